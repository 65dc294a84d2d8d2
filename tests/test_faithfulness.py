"""Numbers bound to their metrics, stated confidences and fabrications: on sentences written for each rule, and on whole
sets of briefings."""

import re
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from elle.briefings.metrics import Metrics
from elle.briefings.schema import CATEGORIES
from elle.evaluation import fabrication
from elle.evaluation.numbers import Checker, above_cap, stated_confidences
from elle.evaluation.parsing import read_words, texts_of

METRICS = Metrics(
    nations=(("UKR", 74), ("YEM", 62), ("USA", 20)),
    articles=1234,
    tone=Decimal("-3.1"),
    alerts=None,
    categories=dict(zip(CATEGORIES, zip((40, 34, 12, 50, 90, 0), "↑→→↓↑→", strict=True), strict=True)),
)
CHECKER = Checker(METRICS)


@pytest.mark.parametrize(
    ("text", "bound"),
    [
        ("UKR 74% YEM 62%", [("74%", "UKR"), ("62%", "YEM")]),  # a tie goes to the name before
        ("risk of 74% in UKR", [("74%", "UKR")]),
        ("UKR leads, at 74%", [("74%", None)]),  # another clause
        ("political risk is high: 40", [("40", None)]),
        ("Political risk is high: political 40, rising.", [("40", "political")]),
        ("Average tone -3.1. Next", [("-3.1", "tone")]),
        ("tone minus 3.1", [("minus 3.1", "tone")]),
        ("articles 1,234.", [("1,234", "articles")]),
        ("political 40,economic 34", [("40", "political"), ("34", "economic")]),
        ("Of 3 nations listed, 2 exceed 50%", [("3", "nations listed"), ("2", "exceed 50%")]),
        ("2 exceed 60%", [("2", None), ("60%", None)]),
        ("The stability index 10 shows stress", [("10", "stability index")]),
        ("meantime 40 geopolitical", [("40", None)]),
    ],
)
def test_binding(text, bound):
    assert [(found.text, found.metric) for found in CHECKER.check({"k": text})] == bound


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("2 exceed 50%", ""),
        ("tone 3.1", "tone is -3.1"),
        ("tone -3.10000000000000000000000000000000000001", "tone is -3.1"),
        ("political -40", "political is 40"),
        ("financial 0.9", "financial is 90"),
        ("IRN 74%", "the prompt has no IRN"),
        ("political 40k", "not a plain figure; political is 40"),
        ("political risk 2030-05: 40", "political is 40"),
    ],
)
def test_verdict(text, why):
    finding = CHECKER.check({"summary": text})[0]
    assert (finding.ok, finding.why) == (why == "", why)


def test_numbers_that_are_no_text_do_not_escape():
    findings = CHECKER.check(texts_of({"political": 40, "economic": {"risk": [34, "UKR 74%"]}}))
    assert [f.ok for f in findings] == [False, False, True]


@settings(max_examples=500, deadline=None)
@given(
    st.text() | st.lists(st.sampled_from([*"0159.,-+% (\n", "tone", "exceed ", "50%", "UKR", "minus "])).map("".join)
)
def test_any_text_is_checked_and_no_digit_escapes(text):
    findings = CHECKER.check({"summary": text})
    inside = {i for f in findings for i in range(f.start, f.end)}
    inside |= {i for m in re.finditer(r"(?i)exceeds? 50%", text) for i in range(*m.span())}
    assert all(i in inside for i, c in enumerate(text) if c.isdecimal())
    assert all(f.text == text[f.start : f.end] for f in findings)


@pytest.mark.parametrize(
    ("text", "shares"),
    [
        ("Confidence 0.97; horizon 3 months: decayed 0.63.", ["0.97", "0.63"]),
        ("confidence of the 0.97 kind", ["0.97"]),
        ("CONFIDENCE (.97)", ["0.97"]),
        ("political 40 confidence 0.97", ["0.97"]),
        ("confidence at horizon 99 months", []),
        ("Agreement 1.00 is capped. Confidence 0.95", ["0.95"]),
        ("UKR 97% confidence", []),
        ("confidence is high. 97 articles", []),
    ],
)
def test_stated_confidences(text, shares):
    found = stated_confidences(read_words({"nsm": text}))
    assert [f"{share.normalize():f}" for _, _, share in found] == shares
    assert bool(above_cap(found)) == any(float(share) > 0.95 for share in shares)


@pytest.mark.parametrize(
    ("text", "strict", "lenient"),
    [
        ("After the Vienna talks", 3, 2),
        ("President Smith resigned.", 3, 3),
        ("McDonald leads", 1, 1),
        ("articles 2031", 0, 0),  # a wrong figure, where a figure is expected
        ("like the Great Depression 1929–1939", 0, 0),
        ("like the Great Depression 1928–1938", 2, 2),
        ("Cuban Missile Crisis and Cuban exiles", 1, 1),
        ("Москва и 北京", 2, 1),
        ("results of Q3", 1, 1),
    ],
)
def test_fabrications(text, strict, lenient):
    texts = {"summary": text}
    found = fabrication.fabrications(read_words(texts), METRICS, CHECKER.check(texts))
    assert tuple(map(len, found)) == (strict, lenient), found
    assert set(found[1]) <= set(found[0])
