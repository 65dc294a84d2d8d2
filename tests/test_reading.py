"""The reading of briefings: for each rule of the grammar sentences that are right, wrong and not read, and what holds
for any text."""

import re
import sys
import unicodedata
from functools import cache
from itertools import pairwise, permutations
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from elle.base.yaml_files import config_table
from elle.briefings import dataset, world
from elle.briefings.metrics import parse
from elle.briefings.schema import Example
from elle.evaluation import clauses, grammar, reading
from elle.evaluation.fabrication import above_cap, fabrications
from elle.evaluation.parsing import texts_of
from elle.evaluation.statements import Checked, Checker
from elle.evaluation.verdict import Record, judge

#: What the sentences speak of: a crisis; a calm, of which the other words are right, with no transition; one nation,
#: which has no Φ; no nation.
PROMPTS = {
    "crisis": "NATIONS: UKR 74%, YEM 62%, USA 20%, mean 52%\nSIGNALS: articles 134, tone -3.1, alerts 7\nCATEGORIES: "
    "political 40 ↑, economic 34 →, security 12 →, military 55 ↓, financial 90 ↑, cyber 0 →\n"
    "CIC: Φ 0.42, H 0.46, C 0.67, balance -0.19\nPHASE: NUCLEATING, temperature 0.55, order 0.48, prior temperature "
    "0.50, prior order 0.61, tau variance 0.5, tau autocorrelation 0.4, transition 9 months ago\n"
    "OUTLOOK: agreement 0.98, horizon 3 months, analogue Great Depression 1929–1939, distance 0.23",
    "calm": "NATIONS: UKR 30%, USA 30%, mean 30%\nSIGNALS: articles 1234, tone 1.5, alerts 1\nCATEGORIES: "
    "political 30 →, economic 34 ↓, security 12 →, military 50 ↑, financial 50 ↓, cyber 0 →\n"
    "CIC: Φ 1.42, H 0.46, C 0.67, balance 0.01\nPHASE: PLASMA, temperature 0.85, order 0.20, prior temperature 0.85, "
    "prior order 0.20, tau variance 0.1, tau autocorrelation -0.1\n"
    "OUTLOOK: agreement 0.81, horizon 1 month, analogue Tulip Mania 1634–1637, distance 0.10",
    "lone": "NATIONS: UKR 40%, mean 40%\nSIGNALS: none\nCATEGORIES: political 30 →, economic 34 ↓, security 12 →, "
    "military 50 ↑, financial 50 ↓, cyber 0 →\nCIC: H 0.10, C 0.00\nPHASE: temperature 0.10\n"
    "OUTLOOK: agreement 0.81, horizon 1 month, analogue Tulip Mania 1634–1637, distance 0.30",
    "empty": "NATIONS: none\nSIGNALS: articles 12\nCATEGORIES: political 30 →, economic 34 ↓, security 12 →, "
    "military 50 ↑, financial 50 ↓, cyber 0 →\nCIC: none\nPHASE: none\n"
    "OUTLOOK: agreement 0.81, horizon 1 month, analogue Tulip Mania 1634–1637, distance 0.30",
}

#: Prompt and key → sentences, with | between them, that are right.
RIGHT = {
    "crisis summary": """
        UKR 74% | UKR (74%) | UKR: 74% | UKR = 74% | UKR=74% | UKR at 74% | UKR is at 74% | UKR is rated 74%
        UKR, at 74% | UKR stands at 74% | UKR has a risk of 74% | risk in UKR is 74% | the risk of UKR is 74%
        UKR's risk is 74% | UKR’s risk: 74% | UKR risk score: 74% | UKR risk, with 74% | 74% for UKR
        74% in Ukraine | a risk of 74% in UKR | UKR 74 % | UKR 74\xa0% | UKR 74\u2009% | UKR 74\u202f%
        UKR 74 percent | UKR 74 per cent | UKR 74 PERCENT | UKR 74 | UKR 74/100 | UKR 74 of 100 | UKR 74 out of 100
        UKR 74.0% | Ukraine is at 74% | the Ukraine (74%) | The United States is at 20% | The mean is 52 percent
        mean risk of 52% | The mean of 52% is high | Tone averages -3.1 | Average tone: −3.1 | tone of -3.1
        tone minus 3.1 | Tone is negative 3.1 | tone -3.10 | 134 articles | 7 active alerts | there are 7 alerts
        on 134 articles | with articles at 134 | Active alerts 7 | UKR 74%, YEM 62%, and USA 20%
        UKR 74%; YEM 62%; USA 20% | UKR 74% and YEM 62% | UKR 74% but USA 20% | UKR and YEM are at 74% and 62%
        UKR, YEM and USA stand at 74%, 62% and 20% respectively | UKR and YEM, at 74% and 62%
        both UKR and YEM (74% and 62%) | UKR 74% against YEM 62% | UKR with 74% versus YEM with 62%
        UKR and UKR 74% each | UKR leads YEM, 74% against 62% | UKR leads YEM (74% and 62%)
        UKR leads YEM, at 74% to 62% | 3 nations listed | of the 3 nations, 2 exceed 50% | 3 nations are listed
        Of 3 nations listed, 2 are above 50% | 2 nations exceed 50 | 2 of 3 nations are above 50%
        2 of the 3 listed nations exceed 50% | 2 of 3 listed are over 50% | 1 nation exceeds 70%
        1 nation is below 50% | 3 nations, 1 does not exceed 50% | No nation is above 80%
        All nations are above 10% | none of the nations exceed 74% | all nations are at least 20%
        UKR ranks above YEM | UKR is higher than YEM | USA is below the mean | Political is above economic
        UKR > YEM | UKR 74%, ahead of YEM at 62% | UKR exceeds YEM with 62% | YEM < UKR | UKR 74% ranks above YEM
        UKR, at 74%, leads | UKR leads at 74% | UKR is highest at 74% | USA is the lowest at 20% | UKR ranks highest
        the highest nation is UKR at 74% | lowest: USA 20% | UKR 74%, the top nation | Financial is the highest
        financial 90 is the highest category | UKR 74% is the greatest | UKR is 12 points above YEM
        YEM 62%, 12 percentage points below UKR | the mean is 10 points below YEM
        the gap between UKR and YEM is 12 points | a difference of 54 points between USA and UKR
        Key concerns are UKR 74%, YEM 62% | Key concerns: YEM and UKR | Led by UKR 74%, YEM at 62%
        the key concerns are UKR and YEM | Key concerns are Ukraine (74%) and Yemen with 62%
        Key concern is UKR. Key concern is YEM | Led by UKR (74%), followed by YEM: 62%
        UKR 74%, followed by YEM 62% | UKR leads at 74%, followed by YEM at 62% and USA at 20%
        Overall risk is high: mean 52% | high overall risk | The overall risk level remains significant
        Mean 52%, while overall risk is high | Overall risk is high at 52%
        the overall risk is high with a mean of 52% | Overall risk is not low
        Signal density is MODERATE: articles 134 | density is moderate at 134 articles
        Signal density is moderate, at 134 articles | density: moderate | Signal density is moderate (134 articles)
        moderate signal density | UKR 74%. | UKR 74%! | UKR 74%; | UKR 74%. YEM 62%.
        UKR 74%.\nYEM 62%\r\nUSA 20%\n\n""",
    "crisis political": """
        Political risk is elevated, rising: political 40. | Political: 40, rising | Political at 40 | at 40
        elevated | Political risk is 40/100 and rising | Political risk is elevated and rising at 40
        political risk level 40 | Political risk (40) is elevated and rising
        Political risk is at 40, elevated and rising | Political (40), rising
        Political risk is elevated, at 40, and rising | Rising political risk: political 40
        Political risk is rising to 40 | Elevated political risk, rising, at 40 | A political risk of 40
        Political risk of 40 is elevated | Political risk is not low | Political risk is not high
        Political risk: elevated, rising | not falling | The trend is rising | a rising trend
        the trend is not falling | trending upward | it is on the rise | Political, at 40, is elevated and rising
        political 40 but elevated | Political risk is increasing | Political pressure remains elevated
        Political risk is elevated (40) | Political risk is elevated; it is rising; political 40
        Political risk is elevated. It is rising | Economic strain is moderate. It is steady
        economic 34, steady""",
    "crisis financial": """
        Financial risk is critical, rising, under stress | Stability index 10, under stress | it is under stress
        The financial system is under stress | financial stability index 10, not free of stress""",
    "crisis nsm": """
        Focus on UKR and YEM; review contingency plans. | Focus on UKR (74%) and YEM (62%) | Prioritize UKR, YEM
        Prioritise Ukraine and Yemen | The focus is on UKR and YEM | Attention stays on YEM and UKR
        Concentrate on UKR and YEM while reviewing contingency plans | Contingency plans should be reviewed""",
    "crisis cic_assessment": """
        Φ 0.42, H 0.46, C 0.67: Φ - λH 0.138 = net 0.282, net + γC 0.168 = F 0.450. Balance -0.19: net falling.
        F is 0.450 | F = 0.45 | F: 0.450 | Φ=0.42 | phi 0.42 | lambda H 0.138 | net = Φ - λH = 0.282
        F = net + γC = 0.45 | λH = 0.3·H = 0.138 | λH = 0.3*H | F = Φ − 0.3·H + 0.25×C = 0.450
        F = 0.282 + 0.168 = 0.450 | Net is falling | The net is shrinking with balance -0.19 | net 0.282 is falling
        Balance -0.19: net falling | Φ is 0.42, H is 0.46 and C is 0.67 | Φ, H and C are 0.42, 0.46 and 0.67""",
    "crisis phase_assessment": """
        Phase NUCLEATING: temperature 0.55, order 0.48; hotter, less ordered. Signals high: tau variance 0.5.
        The phase is NUCLEATING | Phase: nucleating | The system is in the NUCLEATING phase | NUCLEATING
        Temperature 0.55 is hotter | temperature 0.55 (hotter), order 0.48 (less ordered)
        temperature 0.55, hotter than before | temperature is above the prior temperature
        order is less ordered than before | Signals are high | temperature 0.55 is above prior temperature 0.50
        temperature is 0.05 points above prior temperature | A transition occurred 9 months ago
        there was a transition 9 months ago | The last transition: 9 months ago | Transition: 9 months ago
        Transition is 9 months ago | with tau autocorrelation of 0.4""",
    "crisis confidence_bounds": """
        Agreement 0.98 is capped. Confidence 0.95, at horizon 3 months decayed 0.70. | Confidence of 95%
        agreement 98 %, confidence 95 % | decayed 70% | Confidence 0.95, at the 3-month horizon | horizon (3 months)
        horizon: 3 months | Confidence stands at 0.95, decayed to 0.70 at 3 months
        Confidence decays to 0.70 over 3 months | Confidence decays to 0.70 at a horizon of 3 months
        After 3 months confidence decays to 0.70 | Confidence 0.95. At the 3-month horizon, it has decayed to 0.7
        Confidence 0.95. It decays to 0.70 | Confidence 0.95, decaying to 0.70 at the 3-month horizon
        Confidence 0.95, decayed 0.70 by the horizon of 3 months | Agreement is 0.98, capped at 0.95
        Agreement 0.98 is capped at 0.95 | Agreement of 0.98 exceeds the cap | Agreement (0.98) is capped
        Agreement 0.98. It is above the cap of 0.95 | Confidence 0.95, by the horizon of 3 months
        Horizon 3 months: decayed 0.7""",
    "crisis historical_parallel": """
        Great Depression 1929–1939, distance 0.23: loose match. | Great Depression 1929-1939 at distance 0.23, loose
        The nearest analogue is Great Depression 1929–1939 at distance 0.23, a loose match | not a close match
        Loose match with the Great Depression 1929—1939 at a distance of 0.23 | A loose match at distance 0.23
        closest analogue: Great Depression (1929–1939)""",
    "calm summary": """
        articles 1234 | articles 1,234 | 1,234 articles | tone 1.5 | Overall risk is moderate
        Signal density is high | no nations are above 50% | 0 of 2 nations exceed 50% | 2 nations
        UKR is as high as USA""",
    "calm economic": "Economic risk is moderate and easing: economic 34 | trending down",
    "calm financial": "financial 50, no stress | Financial 50, without stress | the financial sector is free of stress",
    "calm nsm": "Focus on USA and UKR; keep routine monitoring | routine monitoring continues",
    "calm cic_assessment": "Balance 0.01: net steady | net level | F = net + γC = 1.450 | F = 1.282 + 0.168",
    "calm phase_assessment": """
        PLASMA phase, temperature 0.85, order 0.20; as hot, as ordered. No early warning. No transition.
        temperature 0.85, as hot as before | there is no early warning | recent transition: none
        There was no recent transition""",
    "calm confidence_bounds": "Agreement 0.81, not capped | Agreement 0.81 is below the cap | horizon 1 month",
    "calm historical_parallel": "Tulip Mania 1634–1637, distance 0.10: close match. | not weak",
    "lone summary": "1 nation listed, 0 exceed 50%",
    "lone cic_assessment": "F is undefined: Φ needs two nations. H 0.10 | Φ needs two nations, so F is undefined",
    "lone phase_assessment": "The phase is undefined. Temperature 0.10. No transition | No phase is defined",
    "empty summary": "No nations are listed. | 0 nations | The list of nations is empty | low signal density",
    "empty nsm": "Focus on data collection; keep routine monitoring. | prioritise data collection",
    "empty cic_assessment": "F is undefined without nations. | No nations: F is not defined",
}

#: Bounds, whose numbers may be other ones, and still be right; and bounds that are wrong.
BOUNDS = """
    UKR is above 70% | UKR is at least 74% | USA does not exceed 50% | Ukraine (74%) and Yemen (62%) are above 50%
    UKR and YEM both exceed 50% | UKR ≥ 74% | UKR <= 74% | UKR > 73% | tone is below -3 | tone > -4
    The mean is over 50% | UKR is not above 74% | YEM 62%, not below 62% | UKR 74% is no more than 80%
    articles exceed 100 | temperature remains under 0.6"""
WRONG_BOUNDS = """
    UKR is above 74% | UKR is at least 75% | UKR does not exceed 73% | UKR and USA both exceed 50% | UKR < 74%
    UKR is not below 75% | UKR is above 70/100 | articles exceed 134 | articles exceed 13% | tone is below -3.1
    IRN > 1%"""

#: Prompt and key → sentences that are wrong, and a part of what is said of them.
WRONG = {
    "crisis summary": """
        UKR 73% → UKR is 74 | UKR 0.74 → UKR is 74 | UKR -74% → UKR is 74
        UKR 74 months → UKR is 74, in another unit | tone 3.1 → tone is -3.1
        tone -3.1% → tone is -3.1, in another unit | tone -3.100000000000001 → tone is -3.1
        articles 134.000 → articles is 134, in another unit | 134% articles → articles is 134, in another unit
        134 alerts → alerts is 7 | IRN 74% → the prompt has no IRN | Russia is at 74% → the prompt has no RUS
        UKR and YEM are at 62% and 74% → YEM is 62 | UKR and YEM are 74% → YEM is 62 | UKR, YEM 74% → YEM is 62
        UKR leads YEM, 62% against 74% → UKR is 74 | UKR leads YEM at 74% → YEM is 62
        of 4 nations listed, 2 exceed 50% → nations listed is 3 | 3 of 3 nations exceed 50% → 2 of 3 nations are
        2% of 3 nations exceed 50% → nations are counted | 2 nations exceed 0.5 → nations are counted
        no nation exceeds 70% → 1 of 3 nations are | all nations exceed 20% → 2 of 3 nations are
        2 nations do not exceed 50% → 1 of 3 nations are | no nations are listed → 3 are
        YEM leads UKR → YEM is 62, UKR is 74 | the gap between UKR and IRN is 12 points → the prompt has no IRN
        IRN is above UKR → the prompt has no IRN | YEM is the highest → that is 74
        IRN is the lowest → the prompt has no IRN | Economic is the highest category → that is 90
        UKR is 13 points above YEM → it is 12 | YEM is 12 points above UKR → YEM is 62, UKR is 74
        UKR is 12 points level with YEM → a difference is above or below
        Key concerns are UKR, YEM, USA → USA is not above 50
        Led by UKR 74% → YEM is a key concern that is not named
        UKR 74%, followed by USA 20% → USA does not follow UKR | UKR 74%, followed by IRN → the prompt has no IRN
        YEM 62%, followed by UKR → UKR does not follow YEM
        Overall risk is not high → overall not high, but it is high
        Overall risk is escalating, low overall risk → overall stable, but it is high
        Signal density is high → density high, but it is moderate | UKR 74%. UKR 73% → UKR is 74""",
    "crisis political": """
        Political risk is not elevated → political band not moderate
        Political risk is escalating → political band high | It is not increasing → political trend not rising
        steady → political trend steady
        political 40; economic 34, rising → economic trend rising, but it is steady
        Economic strain is moderate. It is rising → economic trend rising, but it is steady
        Political, at 41, is elevated → political is 40""",
    "crisis nsm": """
        Focus on UKR → not UKR and YEM | Focus on UKR, YEM and USA → not UKR and YEM
        Focus on UKR and UKR → not UKR and YEM | Focus on data collection → not UKR and YEM
        Focus on UKR (74%) and YEM (61%) → YEM is 62""",
    "crisis cic_assessment": """
        λH = 0.4·H → is not the factor of H | F = Φ + 0.3·H + 0.25·C → its sides are not equal
        net = λH - Φ → its sides are not equal | λH = 0.301·H → is not the factor of H
        F = 0.282 + 0.1684 → its sides are not equal | λH = 0.3%·H → no unit belongs in a sum
        H = 0.3·λH → is not the factor of λH | F = 0.282 + 0.169 → its sides are not equal
        F = net + γC = 0.451 → F is 0.450 | F is undefined → functional undefined""",
    "crisis phase_assessment": """
        phase NUCLEATING, PLASMA → phase plasma, but it is nucleating | no transition → transition none
        Transition 9 months → transition is 9, in another unit
        no early warning → warning no early warning, but it is signals high""",
    "crisis confidence_bounds": """
        confidence 0.95% → confidence is 0.95 | confidence 95 → confidence is 0.95
        agreement 0.98 is capped at 0.96 → confidence is 0.95
        Agreement 0.98, not capped → cap below, but it is capped""",
    "crisis historical_parallel": """
        Tulip Mania 1634–1637 → analogue is Great Depression 1929–1939
        Great Depression 1929–1939 and Tulip Mania 1634–1637 → analogue is Great Depression 1929–1939
        is not a loose match → match not loose""",
    "calm nsm": "Focus on UKR and UKR → not UKR and USA",
    "lone cic_assessment": """
        net = Φ - λH → the prompt has no | F 0.45 → the prompt has no F""",
    "empty summary": """
        mean 52% → the prompt has no mean | key concern: UKR → UKR is not above 50""",
    "empty nsm": """
        Focus on UKR and YEM → not data collection""",
}

#: Key → sentences that are not read.
UNREAD = {
    "summary": """
        UKR ٧٤% | UKR ７４% | UKR 74²% | UKR 74٪ | UKR Ⅶ | UKR seventy-four percent | UKR 74‰ | UKR 74%% | UKR 74k
        UKR 7 4% | UKR 1234,567 | UKR 074% | Mean 52%, so overall risk is high | UKR .74 | UKR 7.4.1% | UKR +74%
        UKR ~74% | UKR 74–75% | UKR 74  % | UKR 74 points | UKR\t74% | U\u200bKR 74% | UKR 7\u200b4% | UKR\u00ad 74%
        UKR \u202e47% | UKR 74%\ufeff | UKR \ue000 | \ue007 74% | UKR 74\u0336% | UК\u0420 74% | ＵＫＲ 74%
        U\u212aR 74% | Russſia 74% | meаn 52% | riſk in UKR is 74% | horizon 3 monthſ | UKR 74 perſent | ukr 74%
        UKRAINE 74% | US 20% | UKR – 74% | UKR — 74% | UKR - 74% | tone - 3.1 | tone minus -3.1 | tone minuſ 3.1
        UKR 74%? | * UKR 74% | - UKR 74% | "UKR 74%" | **UKR** 74% | UKR 74% or YEM 62% | UKR 74% and | and UKR 74%
        UKR 74% and unknown | UKR 74% / YEM 62% | UKR 74% unknown | about UKR 74% | UKR about 74% | UKR not 74%
        YEM follows UKR | only UKR and YEM exceed 50% | Two exceed 50% | 2 exceed 50 points
        2 nations exceed the mean | UKR and YEM are the highest | UKR is a key concern | UKR 74% and 62%
        Two exceed 60% | none exceed 80% | 2 exceed 60% | UKR is above economic | the highest risk is UKR
        articles is the highest | UKR is the highest category | followed by YEM | moderate | rising | high
        UKR is above 70 months | UKR is 12 points apart YEM | Is overall risk high | Overall risk is high or low
        Overall risk is hardly high | Overall risk is not yet high | Overall risk is high and rising | U.S. 20%""",
    "political": """
        Political risk has risen | forty | 40 | hardly elevated | never low | is still rising | political 40% higher
        if political risk is elevated | Political risk could be elevated | Political risk isn't high
        no elevated risk""",
    "nsm": """
        Review contingency plans for UKR and YEM | Do not review contingency plans | review no contingency plans
        No focus on UKR and YEM | Focus not on UKR and YEM""",
    "cic_assessment": """
        c 0.67 | f 0.45 | h 0.46 | φ 0.42 | λh 0.138 | F .45 | Φ 0.42 − λH 0.138 = 0.282 | 0.42 - 0.138 = 0.282
        H·0.3 = 0.138 | balance is falling | Balance -0.19, falling | net is not rising""",
    "phase_assessment": """
        Temperature rose from 0.50 to 0.55 | not NUCLEATING | tau 0.5 | hotter | order 0.48 is hotter
        temperature 0.55 is less ordered | temperature is above order | no transition yet""",
    "confidence_bounds": """
        At horizon 2 months confidence 0.95 | horizon three months | capped | the 3-month horizon
        it decays to 0.70 | Agreement 0.98, not capped at 0.95 | almost capped""",
    "historical_parallel": """
        Great Depression | Great Depression 1929 | Great Depression 1929–1938 | great depression 1929–1939
        the Great Depression of 1929–1939 | not Tulip Mania 1634–1637 | Tulip Mania 1634–1637.5 | no match""",
}


#: Text → the parts of it that are not read.
PARTS = {
    "UKR 74%, YEM perhaps 62%; USA 20%": ["YEM perhaps 62%"],
    "UKR 74% and so on, YEM 62%": ["UKR 74% and so on"],
    "UKR 74%. Unrest grew! YEM 62%": ["Unrest grew"],
    "UKR 74% (perhaps)": ["perhaps"],
    "(UKR 74%)": ["("],
    "tone -3,1": ["tone -3", "1"],
    "UKR 74%, rising": ["rising"],
    # a word behind several figures would be of each
    "Economic and political are at 34 and 40, rising": ["rising"],
    "political 40, economic 34, rising": ["rising"],
    "USA and UKR are at 20% and 74%, above YEM": ["above YEM"],
    # what is not read ends the subject
    "political 40, perhaps, rising": ["perhaps", "rising"],
    "UKR 74%" + " and UKR 74%" * 60: ["UKR 74%" + " and UKR 74%" * 60],
}

#: Text → (number, metric) of each of its numbers.
NUMBERS = {
    "UKR 74%, YEM 62%": [("74%", "UKR"), ("62%", "YEM")],
    "risk of 74% in UKR": [("74%", "UKR")],
    "UKR and UKR 74%": [("74%", "UKR"), ("74%", "UKR")],
    "political 40,economic 34": [("40", None), ("34", "economic")],
    "Of 3 nations listed, 2 exceed 50%": [("3", "nations listed"), ("2", "exceed 50%")],
    "2 nations exceed 60%": [("2", "comparison")],
    "UKR is 12 points above YEM": [("12 points", "comparison")],
    "UKR is above 70%": [("70%", "comparison")],
    "meantime 40 geopolitical": [("40", None)],
    "tone minus 3.1": [("minus 3.1", "tone")],
    "Φ - λH 0.138 = net 0.282": [("0.138", "λH"), ("0.282", "net")],
    "λH = 0.3·H = 0.138": [("0.138", "λH")],
    "Tulip Mania 1634–1638": [("1634", None), ("1638", None)],
    "prior order 0.61 order 0.48": [("0.61", None), ("0.48", None)],
    "prior order 0.61, order 0.48": [("0.61", "prior order"), ("0.48", "order")],
    "Great Depression (1929–1939), distance 0.23": [("Great Depression (1929–1939)", "analogue"), ("0.23", "distance")],
    "Agreement 0.98 is capped at 0.95": [("0.98", "agreement"), ("0.95", "confidence")],
}

#: Words → others of their kind, that mean something else.
OTHER = """
    rising → falling | falling → rising | steady → rising | increasing → stable | easing → growing
    elevated → severe | moderate → high | MODERATE → low | critical → low | high → low | low → high
    hotter → cooler | as hot → hotter | less ordered → as ordered | as ordered → more ordered | NUCLEATING → PLASMA
    PLASMA → ANNEALED | undefined → crystalline | Signals high → Mixed signals | loose → weak | close → loose
    is capped → is not capped | is below the cap → is capped | exceeds YEM → is below YEM | above → below
    below → above | ahead of → behind | > → < | < → > | highest → lowest | lowest → highest | leads → is lowest
    greatest → smallest | all → none | under stress → free of stress | no stress → under stress
    review contingency plans → keep routine monitoring | early warning → mixed signals
    No transition → A transition 3 months ago | No nations are listed → 3 nations listed
    data collection → UKR and YEM | UKR → IRN | YEM → RUS | Political → Cyber | net → Φ
    No nation is → All nations are | - λH → + λH"""


def listed(table: dict[str, str]) -> list[tuple[str, str]]:
    """(head, sentence) of each sentence of a table."""
    pieces = {head: re.split(r" \| |\n +", re.sub(r"\A\n +", "", text)) for head, text in table.items()}
    return [(head, sentence) for head, sentences in pieces.items() for sentence in sentences]


@cache
def checker(prompt: str = "crisis") -> Checker:
    return Checker(parse(PROMPTS[prompt]))


def check(head: str, text: str) -> Checked:
    """head: a prompt's name and a key."""
    prompt, key = head.split()
    return checker(prompt).check({key: text})


def verdict(found: Checked) -> str:
    if found.unread:
        return "not read"
    return "wrong" if found.wrong or found.not_right or found.more_right < found.more else "right"


@pytest.mark.parametrize(("head", "text"), listed(RIGHT) + listed({"crisis summary": BOUNDS}))
def test_right(head, text):
    found = check(head, text)
    assert verdict(found) == "right", (found.unread, found.wrong, found.faults)


@pytest.mark.parametrize(("head", "text"), listed({"crisis summary": WRONG_BOUNDS}))
def test_a_bound_that_does_not_hold(head, text):
    assert verdict(check(head, text)) == "wrong"


@pytest.mark.parametrize(("head", "text"), listed(WRONG))
def test_wrong(head, text):
    text, why = text.split(" → ")
    found = check(head, text)
    assert verdict(found) == "wrong", (found.unread, found.wrong, found.faults)
    assert why in " ".join([number.why for number in found.wrong] + found.faults)


@pytest.mark.parametrize(("key", "text"), listed(UNREAD))
def test_not_read(key, text):
    assert verdict(check(f"crisis {key}", text)) == "not read"


@pytest.mark.parametrize(("text", "parts"), PARTS.items())
def test_the_parts_that_are_not_read(text, parts):
    assert [part.text for part in check("crisis summary", text).unread] == parts


@pytest.mark.parametrize(("text", "numbers"), NUMBERS.items())
def test_what_numbers_are_said_of(text, numbers):
    assert [(number.text, number.metric) for number in checker().numbers({"summary": text})] == numbers


@pytest.mark.parametrize(("head", "text"), listed(RIGHT))
def test_another_number_is_never_right(head, text):
    prompt, key = head.split()
    for number in checker(prompt).numbers({key: text}):
        for place, digit in enumerate(number.text.removesuffix("100"), start=number.start):
            if digit.isdigit():
                changed = f"{text[:place]}{(int(digit) + 1) % 10}{text[place + 1 :]}"
                assert verdict(check(head, changed)) != "right", changed


@pytest.mark.parametrize(("head", "text"), listed(RIGHT))
def test_another_word_is_never_right(head, text):
    for _, pair in listed({"": OTHER}):
        word, other = pair.split(" → ")
        for match in re.finditer(rf"(?<!\w){re.escape(word)}(?!\w)", text):
            changed = text[: match.start()] + other + text[match.end() :]
            assert verdict(check(head, changed)) != "right" or "not " in text, changed


#: Kind of word → a sentence with a place for it.
FRAMES = {
    "trend": "political The trend is {}", "stress": "financial financial 90, {}", "plans": "nsm {}",
    "density": "summary Signal density is {}", "functional": "cic_assessment {}", "net": "cic_assessment net {}",
    "heat": "phase_assessment temperature 0.55, {}", "order": "phase_assessment order 0.48, {}",
    "warning": "phase_assessment {}", "transition": "phase_assessment {}", "phase": "phase_assessment phase {}",
    "match": "historical_parallel {} match", "cap": "confidence_bounds Agreement 0.98, {}",
    "relation": "summary UKR is {} YEM", "extreme": "summary UKR is {}", "quantity": "summary {} are above 90%",
    "band": "political Political risk is {}",
}  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "phrase", "sense"),
    [(kind, phrase, sense) for kind, phrases in grammar.WORDS.items() for phrase, sense in phrases.items()],
)
def test_every_word_is_read_as_what_it_means(kind, phrase, sense):
    key, _, frame = FRAMES[kind].partition(" ")
    if kind == "relation" and re.search(r"exceed|leads|^[<>≤≥]|^do", phrase):
        frame = frame.replace("is ", "")
    true = {"relation": ("above", "least"), "extreme": ("highest",), "quantity": ("none",), "trend": ("rising",)}
    true |= {"band": ("moderate",)} | {kind: (sense,) for (kind, name), sense in checker().words.items() if not name}
    assert verdict(check(f"crisis {key}", frame.format(phrase))) == (
        "right" if sense in true.get(kind, ()) else "wrong"
    )


@pytest.mark.parametrize(
    ("frame", "word"),
    [
        *(("UKR {} 74%", word) for word in config_table("grammar")["link"].split("|")),
        *(("political {} 40", word) for word in config_table("grammar")["noun"].split("|")),
        *(("UKR 74% {} YEM 62%", word) for word in config_table("grammar")["join"].split("|")),
    ],
)
def test_every_link_noun_and_join_is_read(frame, word):
    assert verdict(check("crisis summary", frame.format(word))) == "right"


@pytest.mark.parametrize(
    ("metric", "name"),
    [
        (metric, name)
        for table in ("names", "nations")
        for metric, names in config_table("grammar")[table].items()
        for name in (metric, *names.split("|"))
    ],
)
def test_every_name_is_read_as_its_figure(metric, name):
    (number,) = checker().numbers({"summary": f"{name} 3"})
    assert number.metric == metric


def test_nations_have_the_codes_of_both_worlds():
    assert set(config_table("grammar")["nations"]) == set(world.CIC_COUNTRIES)


def test_every_dash_of_unicode_is_a_sign():
    """What Unicode calls a dash, a hyphen or a minus sign stands for one before a number."""
    named = re.compile(r"(?:(?!.*WITH).* )?(?:MINUS SIGN|SUPERSCRIPT MINUS|SUBSCRIPT MINUS|HYPHEN BULLET)")
    letters = [chr(code) for code in range(sys.maxunicode + 1)]
    dashes = {
        letter
        for letter in letters
        if unicodedata.category(letter) == "Pd" or named.fullmatch(unicodedata.name(letter, ""))
    }
    assert {*re.findall(f"[{grammar.DASHES}]", "".join(letters))} == dashes
    assert {verdict(check("crisis summary", f"tone {dash}3.1")) for dash in dashes} == {"right"}


@pytest.mark.parametrize(
    ("text", "stated", "bold"),
    [
        ("Confidence 0.97; horizon 3 months: decayed 0.63.", True, "confidence 0.97 is above 0.95"),
        ("Agreement 1.00 is capped. Confidence 0.95", True, ""),
        ("confidence of the 0.97 kind", True, "confidence 0.97"),
        ("UKR 97% confidence", True, "confidence 97%"),
        ("political 40 confidence 0.97", True, "confidence 0.97"),
        ("We are 99 per cent certain", True, "confidence 99 per cent"),
        ("decayed to 96", True, "confidence 96"),
        ("confidence about 0.95", True, ""),
        ("confidence at horizon 99 months", False, ""),  # not its first digit, either
        ("confidence is high. 97 articles", False, ""),
        ("sure of 14 nations", False, ""),
    ],
)
def test_stated_confidences(text, stated, bold):
    found, there = above_cap(check("crisis nsm", text))
    assert there == stated
    assert [bold in each for each in found] == [True] * bool(bold)


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("After the Vienna talks", 1),  # the word that opens a sentence is forgiven
        ("President Smith resigned.", 2),
        ("McDonald leads", 1),
        ("articles 2031", 0),  # a wrong figure
        ("in 2031 or 1999", 2),
        ("like the Great Depression 1929–1939", 0),
        ("like the Great Depression 1928–1938", 2),
        ("Cuban Missile Crisis and Cuban exiles", 1),
        ("Москва и 北京", 1),
        ("results of Q3", 1),
        ("IRN 74%, while Russia is at 20%", 2),
        ("UKR, YEM in Sanaa", 1),
        ("Political Risk Is Soaring and Unknown", 2),
    ],
)
def test_fabrications(text, count):
    found = fabrications(check("crisis summary", text), checker().metrics)
    assert len(found) == count, found


@cache
def targets() -> list[Record]:
    examples = [Example.of(dataset.row(kind, 23, index)) for kind in dataset.KINDS for index in range(300)]
    return [judge("x", each.prompt, each.answer, each.answer) for each in examples]


def test_targets_are_read_in_full_and_right():
    """Which holds the writers to the grammar."""
    for record in targets():
        assert all(top == bottom for top, bottom in record.counts.values()), record.reasons
        assert not record.reasons


def parsed() -> dict[tuple[str, tuple[str, ...]], clauses.Sentence]:
    """All sentences of the targets and of the tables above, as they are parsed."""
    texts = [record.texts for record in targets()]
    texts += [{head.split()[1]: text} for head, text in listed(RIGHT) + listed({"crisis summary": BOUNDS})]
    found = {}

    def parse_sentence(skeleton: str, about: tuple[str, ...]) -> clauses.Sentence:
        found[skeleton, about] = sentence = clauses.parse_sentence(skeleton, about)
        return sentence

    with mock.patch.object(reading, "_sentence", parse_sentence):
        reader = reading.Reader(frozenset())
        for each in texts:
            reader.read(each)
    return found


def test_no_form_is_dead():
    """Without it, some sentence of a target or of the tables above would be read otherwise."""
    sentences = parsed()
    assert len(sentences) > 400
    forms = [form for forms in config_table("grammar")["forms"].values() for form in forms]
    dead = []
    for form, (_, _, pattern) in zip(forms, grammar._FORMS, strict=True):
        others = {
            letters: [each for each in found if each[1] is not pattern] for letters, found in grammar.FORMS.items()
        }
        with mock.patch.object(clauses, "FORMS", others):
            if not any(
                pattern.search(skeleton) and clauses.parse_sentence(skeleton, about) != sentence
                for (skeleton, about), sentence in sentences.items()
            ):
                dead.append(form)
    assert not dead, dead


# What holds for any text

PIECES = sorted(
    {
        piece
        for head, text in listed(RIGHT) + listed({"a b": BOUNDS}) + listed(UNREAD)
        for piece in (text, *re.split(r"(?<=[,;:.]) ", text), *text.split(" "))
    }
)
TEXTS = st.text() | st.lists(st.sampled_from([*PIECES, *" .,;:()-\n%0", "\x1e", "\x1f", "minus", "and"])).map(" ".join)
TEXTS |= st.lists(st.sampled_from([*PIECES, *" .,;:()-\n%0\x1e\x1f"])).map("".join)


def spans(parts) -> list[tuple[int, int]]:
    return [(part.start, part.end) for part in parts]


@settings(max_examples=500, deadline=None)
@given(TEXTS, st.sampled_from(["summary", "political", "x"]))
def test_no_number_escapes(text, key):
    """Each is a finding, or a threshold or a factor of a statement that is checked, or in a part that is not read."""
    numbers, unread = checker().numbers({key: text}), checker().check({key: text}).unread
    for each in (*numbers, *unread):
        assert each.text == text[each.start : each.end] != ""
        assert each.key == key
    assert spans(numbers) == sorted(spans(numbers))
    assert all(end <= start for (_, end), (start, _) in pairwise(spans(unread)))
    for number in numbers:
        inside = any(start <= number.start and number.end <= end for start, end in spans(unread))
        assert inside == (number.metric is None)
    reader = reading.reader(checker().risks)
    (read,), places = reader.read({key: text}), reader.places(text)
    said = {place for statement in read.plan.others for place in statement.numbers}
    for place, (letter, (start, _)) in enumerate(zip(read.plan.letters, places, strict=True)):
        if letter in grammar.NUMERIC:
            assert place in said or start in {number.start for number in numbers}
    seen = {at for start, written in places for at in range(start, start + len(written))}
    seen |= {at for start, end in spans(unread) for at in range(start, end)}
    assert all(at in seen for at, letter in enumerate(text) if letter.isnumeric())


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(st.sampled_from(["summary", "political", "nsm", "x", ""]), TEXTS))
def test_texts_are_read_together_as_one_by_one(texts):
    found = checker().check(texts)
    each = [checker().check({key: text}) for key, text in texts.items()]
    assert checker().numbers(texts) == [n for key, text in texts.items() for n in checker().numbers({key: text})]
    assert found.unread == [part for one in each for part in one.unread]
    assert found.wrong == [number for one in each for number in one.wrong]
    assert found.cited == {key: one.cited[key] for key, one in zip(texts, each, strict=True)}
    for name in ("total", "derived", "loose", "more", "more_right", "sentences", "unread_sentences"):
        assert getattr(found, name) == sum(getattr(one, name) for one in each)


@settings(max_examples=300, deadline=None)
@given(st.lists(TEXTS, max_size=5), TEXTS)
def test_what_was_read_before_changes_nothing(before, text):
    """Nor what is kept of it, or how much."""
    fresh = reading.Reader(frozenset()).read({"summary": text})
    used = reading.Reader(frozenset())
    with mock.patch.object(reading, "_MOST_KEPT", 2):
        for each in before:
            used.read({"summary": each})
        assert used.read({"summary": text}) == fresh
    assert reading.reader(checker().risks).read({"summary": text}) == fresh


@pytest.mark.parametrize(
    "frame", ["tone {}", "UKR {} of 100", "tone minus {}", "74 of {}", "{} months ago", "UKR {}%", "-{}, 3 UKR"]
)
def test_texts_that_are_alike_but_for_their_numbers_do_not_mix(frame):
    numbers = ["3.1", "-3.1", "minus 3.1", "1,234", "1.234", "74%", "100", "(3.1)", "3.1.", "007", "UKR", "IRN", "XXX"]
    for first, second in permutations([{"summary": frame.format(number)} for number in numbers], 2):
        used = reading.Reader(frozenset())
        used.read(first)
        assert used.read(second) == reading.Reader(frozenset()).read(second), first


def test_what_is_no_text_is_read_as_its_json():
    """A number does not escape by its type."""
    found = checker().numbers(texts_of({"political": 40, "economic": {"risk": [34, "UKR 74%"]}}))
    assert [(number.text, number.metric) for number in found] == [("40", None), ("34", None), ("74%", None)]
