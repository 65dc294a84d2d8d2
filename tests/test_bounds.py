"""Stated confidences, fabrications, calibration and cost: sentences and figures made for each rule."""

import json
import re

import numpy as np
import pytest

from elle.base.errors import ElleError
from elle.briefings import dataset
from elle.briefings.metrics import parse
from elle.briefings.schema import Example
from elle.evaluation import bounds, fabrication, words
from elle.evaluation.calibration import calibration, ece, pairs_of
from elle.evaluation.cost import Price, per_hour, summary
from elle.evaluation.faithfulness import Checker
from elle.evaluation.statistics import bootstrap

PROMPT = (
    "NATIONS: UKR 74%, USA 20%, mean 47%\nSIGNALS: articles 1234, tone -3.1, alerts 4\nCATEGORIES: political 40 ↑, "
    "economic 34 →, security 12 →, military 50 ↓, financial 90 ↑, cyber 0 →"
)
METRICS = parse(PROMPT)


@pytest.mark.parametrize(
    ("text", "shares"),
    [
        ("Confidence 0.97; horizon 3 months: decayed 0.63.", ["0.97", "0.63"]),
        ("97% confident", ["0.97"]),
        ("97 percent confident", ["0.97"]),
        ("confidence of 0.97", ["0.97"]),
        ("confidence of the 0.97 kind", ["0.97"]),
        ("Confidence: 97", ["0.97"]),
        ("CONFIDENCE (.97)", ["0.97"]),
        ("0,97 confidence", ["0.97"]),
        ("certainty 95.1%", ["0.951"]),
        ("100% sure", ["1"]),
        ("confidence 1", ["1"]),
        ("confidence ９７%", ["0.97"]),
        ("political 40 confidence 0.97", ["0.97"]),
        ("confidence at horizon 99 months", []),
        ("Agreement 1.00 is capped. Confidence 0.95", ["0.95"]),
        ("political 97 with confidence 0.9", ["0.9"]),
        ("UKR 97% confidence", []),
        ("uncertainty 0.99", []),
        ("pressure 99", []),
        ("confidence is high. 97 articles", []),
        ("confident in 96 sources", []),
    ],
)
def test_stated_confidences(text, shares):
    found = bounds.stated(words.read_words({"nsm": text}))
    assert [f"{share.normalize():f}" for _, _, share in found] == shares
    assert bool(bounds.above(found)) == any(float(share) > 0.95 for share in shares)


def test_a_key_may_state_a_confidence():
    assert bounds.above(bounds.stated(words.read_words({"confidence": "0.97", "nsm": '{"certainty": 0.99}'})))
    assert not bounds.stated(words.read_words({"confidence_bounds": "Agreement 0.99.", "0.97": "x"}))


@pytest.mark.parametrize(
    ("text", "strict", "lenient"),
    [
        ("Focus on UKR.", 0, 0),
        ("After the Vienna talks", 3, 2),
        ("on 3 March", 1, 1),
        ("President Smith resigned.", 3, 3),
        ("Caution prevails.", 1, 0),
        ("High. Caution prevails", 1, 0),
        ("caution prevails", 0, 0),
        ("FRA leads", 1, 1),
        ("UKR and GBR", 1, 1),
        ("McDonald leads", 1, 1),
        ("a ceasefire", 1, 1),
        ("by 2031", 1, 1),
        ("articles 2031", 0, 0),  # a wrong figure, where a figure is expected
        ("articles 1234", 0, 0),
        ("like the Great Depression 1929–1939", 0, 0),
        ("like the Great Depression", 0, 0),
        ("like the Great Depression 1928–1938", 2, 2),
        ("Cuban Missile Crisis and Cuban exiles", 1, 1),
        ("Москва и 北京", 2, 1),
        ("results of Q3", 1, 1),
        ("CRITICAL RISK", 0, 0),
    ],
)
def test_fabrications(text, strict, lenient):
    texts = {"summary": text}
    found = fabrication.faults(words.read_words(texts), METRICS, Checker(METRICS).check(texts))
    assert tuple(map(len, found)) == (strict, lenient), found
    assert set(found[1]) <= set(found[0])


def test_the_known_words_are_those_of_the_targets():
    """Each is needed but for `I`, `we` and the like; none is missing."""
    used = set()
    for kind, count in (("basic", 300), ("cic", 512)):
        for index in range(count):
            _, _, prompt, answer = Example.of(dataset.row(kind, 31, index))
            texts = words.read_words(json.loads(answer))
            metrics = parse(prompt)
            codes = {code.lower() for code, _ in metrics.nations}
            analogue = set(re.findall(r"[^\W\d_]+", metrics.cic.analogue.lower())) if metrics.cic else set()
            used |= {word for text in texts.values() for word in text.words} - codes - analogue
    assert used - fabrication.KNOWN - {"crisis-level"} == set()
    assert not fabrication.KNOWN & (fabrication.EVENTS | fabrication._CALENDAR)


def test_calibration():
    rng = np.random.default_rng(0)
    confidence = rng.random(1000)
    good = calibration(list(zip(confidence, rng.random(1000) < confidence, strict=True)), seed=1)
    assert good.brier.low < 1 / 6 < good.brier.high  # E[p(1 − p)] of a uniform p
    assert good.ece.value < 0.06
    bold = calibration([(0.9, True), (0.9, False)] * 50)
    assert (bold.brier.value, bold.ece.value) == pytest.approx((0.41, 0.4))
    assert bold.mean == pytest.approx((0.9, 0.5))
    assert calibration([]).brier is None
    with pytest.raises(ValueError, match="confidence"):
        calibration([(1.2, True)])


def test_calibration_error_by_hand_and_whatever_the_order_of_ties():
    assert ece([0.1, 0.2, 0.8, 0.9], [0, 0, 1, 1], bins=2) == pytest.approx(0.15)
    assert ece([0.5] * 4, [0, 0, 1, 1], bins=4) == ece([0.5] * 4, [1, 0, 1, 0], bins=4) == 0
    with pytest.raises(ValueError, match="bin"):
        ece([0.5], [1], bins=0)


def test_only_a_stated_confidence_with_a_known_truth_is_a_pair():
    facts = {"a": {"confidence": 0.8}, "b": {"confidence": True}, "c": {"confidence": 97}, "d": {}}
    assert pairs_of(facts, {"a": True, "b": True, "c": False, "d": True, "e": True}) == [(0.8, True)]


def test_cost():
    line = {"output": "x", "prompt_tokens": 1500, "completion_tokens": 700, "seconds": 2.0}
    lines = [line, line | {"seconds": 4.0}, line | {"output": None, "seconds": 99.0}, {"output": "y", "seconds": "1"}]
    found = summary(lines, Price(1, 5))
    assert found["dollars"].value == pytest.approx(0.005)  # Claude Haiku 4.5's list price for such a briefing
    assert (found["seconds"].value, found["seconds"].n) == (3.0, 2)
    assert 2.0 <= found["seconds"].low <= found["seconds"].high <= 4.0
    assert summary(lines)["dollars"] is None
    assert set(summary([{"output": "x"}]).values()) == {None}
    assert summary([{"output": "x", "seconds": 10**400}])["seconds"] is None
    assert per_hour(3.6, 1000, 500) == pytest.approx(0.002)
    with pytest.raises(ElleError, match="a price"):
        Price(-1, 2)
    with pytest.raises(ValueError, match="briefings"):
        per_hour(1, 1, 0)


def test_the_bootstrap_of_a_mean():
    values = np.random.default_rng(0).normal(size=400)
    found = bootstrap(400, lambda rows: float(values[rows].mean()), np.random.default_rng(1))
    assert found.high - found.low == pytest.approx(2 * 1.96 * values.std() / 20, rel=0.1)
    one = bootstrap(1, lambda rows: 5.0, np.random.default_rng(1))
    assert (one.value, one.low, one.high, one.n) == (5.0, 5.0, 5.0, 1)
