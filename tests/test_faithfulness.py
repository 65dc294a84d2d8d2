"""The binding rule, on sentences written for it and on whole sets of briefings, right and mutated."""

import random
import re
import time
from decimal import Decimal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from elle.briefings import scenario, writer
from elle.briefings.metrics import Metrics, derived_figures, printed_figures
from elle.evaluation.faithfulness import _SPELLINGS, Checker, numbers, texts_of, triples

METRICS = Metrics(
    nations=(("UKR", 74), ("YEM", 62), ("USA", 20)),
    articles=1234,
    tone=Decimal("-3.1"),
    alerts=None,
    categories={
        "political": (40, "↑"),
        "economic": (34, "→"),
        "security": (12, "→"),
        "military": (50, "↓"),
        "financial": (90, "↑"),
        "cyber": (0, "→"),
    },
)
CHECKER = Checker(METRICS)


def briefings(count: int, seed: int = 3) -> list[tuple[Checker, dict[str, str]]]:
    rng = np.random.default_rng(seed)
    drawn = scenario.draw(rng, count)
    choices = rng.random((count, writer.CHOICES))
    return [
        (Checker(metrics), writer.basic_texts(metrics, writer.picker(row)))
        for metrics, row in zip(drawn, choices, strict=True)
    ]


def test_every_name_has_a_spelling():
    codes = {code for code, _ in METRICS.nations}
    names = set(printed_figures(METRICS)) | set(derived_figures(METRICS)) | {"alerts"}
    assert names - codes == set(_SPELLINGS.values())


@pytest.mark.parametrize(
    ("text", "bound"),
    [
        ("UKR 74%", [("74%", "UKR")]),
        ("UKR 74% and YEM 62%", [("74%", "UKR"), ("62%", "YEM")]),
        ("UKR 74% YEM 62%", [("74%", "UKR"), ("62%", "YEM")]),  # a tie goes to the name before
        ("risk of 74% in UKR", [("74%", "UKR")]),
        ("UKR leads, at 74%", [("74%", None)]),  # another clause
        ("political risk is high: 40", [("40", None)]),
        ("Political risk is high: political 40, rising.", [("40", "political")]),
        ("Average tone -3.1. Next", [("-3.1", "tone")]),
        ("tone −3.1", [("−3.1", "tone")]),
        ("tone minus 3.1", [("minus 3.1", "tone")]),
        ("tone -.5", [("-.5", "tone")]),
        ("articles 1,234.", [("1,234", "articles")]),
        ("articles 1,2345", [("1", "articles"), ("2345", None)]),
        ("political 40,economic 34", [("40", "political"), ("34", "economic")]),
        ("Of 3 nations listed, 2 exceed 50%", [("3", "nations listed"), ("2", "exceed 50%")]),
        ("1 nation listed (1 exceeds 50%)", [("1", "nations listed"), ("1", "exceed 50%")]),
        ("2 exceed 60%", [("2", None), ("60%", None)]),
        ("The stability index 10 shows stress", [("10", "stability index")]),
        ("meantime 40 geopolitical", [("40", None)]),
        ("LOW 12 density", [("12", None)]),
        ("UKRAINE 74%", [("74%", None)]),
        ("IRN 74% UKR", [("74%", "IRN")]),
        ("political 40-50", [("40", "political"), ("50", "political")]),
        ("political 40k", [("40k", "political")]),
        ("political 40 million", [("40 million", "political")]),
        ("40articles", [("40articles", "articles")]),
        ("forty", []),
    ],
)
def test_binding(text, bound):
    assert [(n.text, n.metric) for n in numbers("k", text)] == bound
    assert all(text[n.start : n.end] == n.text for n in numbers("k", text))


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("UKR 74%", ""),
        ("UKR 74.0", ""),
        ("articles 1,234", ""),
        ("tone -3.1", ""),
        ("tone minus 3.1", ""),
        ("stability index 10", ""),
        ("2 exceed 50%", ""),
        ("cyber 0", ""),
        ("tone 3.1", "tone is -3.1"),
        ("tone -3.10000000000000000000000000000000000001", "tone is -3.1"),
        ("political -40", "political is 40"),
        ("economic 40", "economic is 34"),  # right for another metric
        ("financial 0.9", "financial is 90"),
        ("financial 0.9%", "financial is 90"),
        ("UKR 62%", "UKR is 74"),
        ("IRN 74%", "the prompt has no IRN"),
        ("alerts 3", "the prompt has no alerts"),
        ("political 40k", "not a plain figure; political is 40"),
        ("political 40 thousand", "not a plain figure; political is 40"),
        ("articles 1234articles", "not a plain figure; articles is 1234"),
        ("3 troops", "no metric is named in its clause"),
        ("political risk 2030-05: 40", "political is 40"),
    ],
)
def test_verdict(text, why):
    finding = CHECKER.check({"summary": text})[0]
    assert (finding.ok, finding.why) == (why == "", why)


def test_numbers_that_are_no_text_do_not_escape():
    findings = CHECKER.check(texts_of({"political": 40, "economic": {"risk": [34, "UKR 74%"]}}))
    assert [f.ok for f in findings] == [False, False, True]


def test_untouched_targets_are_all_right_and_all_bound():
    for checker, texts in briefings(3000):
        findings = checker.check(texts)
        assert all(f.ok for f in findings), (texts, [f for f in findings if not f.ok])
        digits = sum(len(re.findall(r"\d+(?:\.\d+)?", text.replace("50%", ""))) for text in texts.values())
        names = sum(len(re.findall(r"exceeds? 50%", text)) for text in texts.values())
        fifties = sum(text.count("50%") for text in texts.values())
        assert len(findings) == digits + fifties - names


def test_no_changed_digit_is_missed():
    """Any digit to any other, the 50 of "exceed 50%" included: a wrong number appears and a right one is gone."""
    pick, made = random.Random(1), briefings(500)
    for _ in range(1000):
        checker, texts = pick.choice(made)
        key, place = pick.choice([(k, m.start()) for k, t in texts.items() for m in re.finditer(r"\d", t)])
        digit = pick.choice([d for d in "0123456789" if d != texts[key][place]])
        mutated = {**texts, key: texts[key][:place] + digit + texts[key][place + 1 :]}
        before, after = checker.check(texts), checker.check(mutated)
        assert sum(not f.ok for f in after) >= 1, mutated[key]
        assert sum(f.ok for f in after) < sum(f.ok for f in before)
        assert triples(after) < triples(before)


def test_swapped_figures_are_wrong():
    swaps = 0
    for checker, texts in briefings(500):
        nations = re.findall(r"([A-Z]{3}) (\d+%)", texts["summary"])
        if len(nations) < 2 or nations[0][1] == nations[1][1]:
            continue
        (one, first), (two, second) = nations[:2]
        swapped = (
            texts["summary"].replace(f"{one} {first}", f"{one} {second}").replace(f"{two} {second}", f"{two} {first}")
        )
        wrong = [f.number.metric for f in checker.check({**texts, "summary": swapped}) if not f.ok]
        assert wrong == [one, two]
        swaps += 1
    assert swaps > 100


def test_right_number_for_the_wrong_metric():
    for checker, texts in briefings(300):
        swapped = texts["political"].replace("political ", "economic ")
        values = checker.printed["political"], checker.printed["economic"]
        wrong = [f for f in checker.check({"political": swapped}) if not f.ok]
        assert len(wrong) == (values[0] != values[1])


@settings(max_examples=500, deadline=None)
@given(
    st.text() | st.lists(st.sampled_from([*"0159.,-+% (\n", "tone", "exceed ", "50%", "UKR", "minus "])).map("".join)
)
def test_any_text_is_checked_and_no_digit_escapes(text):
    findings = CHECKER.check({"summary": text})
    inside = {i for f in findings for i in range(f.number.start, f.number.end)}
    inside |= {i for m in re.finditer(r"(?i)exceeds? 50%", text) for i in range(*m.span())}
    assert all(i in inside for i, c in enumerate(text) if c.isdecimal())
    assert all(f.number.text == text[f.number.start : f.number.end] for f in findings)


@pytest.mark.parametrize("text", ["UKR 1 ", "1 ", "1,", "1", "minus 1"])
def test_long_texts_are_checked_in_linear_time(text):
    begin = time.process_time()
    assert CHECKER.check({"summary": text * 50_000})
    assert CHECKER.check({"summary": "UKR " * 50_000 + text})
    assert time.process_time() - begin < 10  # well under a second; quadratic time would be minutes
