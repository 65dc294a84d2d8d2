"""Two models on the same briefings: the tests agree with other implementations, are blind to the order of the models,
and find no difference where there is none."""

import json
import math
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests

from elle.base.errors import ElleError
from elle.briefings.dataset import row
from elle.evaluation.compare import BOOTSTRAP, MCNEMAR, compare, holm, ratios, yes_or_no
from elle.evaluation.scorecard import METRICS, score

ROWS = [row("basic", 3, index) for index in range(30)]
RIGHT = {each["id"]: each["conversations"][2]["value"] for each in ROWS}
SOME_WRONG = {
    name: re.sub(r"\d", "7", text) if place % 3 == 0 else text[:-9] if place % 7 == 0 else text
    for place, (name, text) in enumerate(RIGHT.items())
}

verdicts = st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60)
cells = st.integers(0, 9).flatmap(lambda bottom: st.tuples(st.integers(0, bottom), st.just(bottom)))
counted = st.lists(st.tuples(cells, cells), min_size=1, max_size=25)


def sides(pairs):
    return np.array([a for a, _ in pairs]).T, np.array([b for _, b in pairs]).T


@settings(max_examples=200, deadline=None)
@given(verdicts)
def test_mcnemar_is_that_of_statsmodels_and_blind_to_the_order(pairs):
    a, b = sides(pairs)
    found = yes_or_no(a, b)
    table = [[np.sum(a & b), np.sum(a & ~b)], [np.sum(b & ~a), np.sum(~a & ~b)]]
    assert found.p == pytest.approx(min(1, mcnemar(table, exact=True).pvalue))
    assert found.discordant == (table[0][1], table[1][0])
    assert found.difference == pytest.approx(b.mean() - a.mean())
    assert -1 <= found.low <= found.difference <= found.high <= 1
    assert found.low < found.high
    other = yes_or_no(b, a)
    assert (found.difference, found.low, found.high) == pytest.approx((-other.difference, -other.high, -other.low))
    assert (found.p, found.discordant) == (other.p, other.discordant[::-1])


def test_the_interval_of_agresti_and_min():
    """Wald's interval of the table with half a pair more in each cell."""
    pairs = [(True, True)] * 50 + [(True, False)] * 5 + [(False, True)] * 15 + [(False, False)] * 30
    found = yes_or_no(*sides(pairs))
    only_a, only_b, n = 5.5, 15.5, 102
    centre = (only_b - only_a) / n
    half = 1.959964 * math.sqrt((only_a + only_b) / n - centre**2) / math.sqrt(n)
    assert (found.low, found.high) == pytest.approx((centre - half, centre + half), abs=1e-6)


@settings(max_examples=100, deadline=None)
@given(counted)
def test_swapped_counts_mirror_and_a_against_itself_is_nothing(pairs):
    a, b = sides(pairs)
    one, other = (ratios(*order, np.random.default_rng(3), 400) for order in ((a, b), (b, a)))
    assert (one.a, one.b, one.p) == (other.b, other.a, other.p)
    if one.difference is None:
        assert 0 in (a[1].sum(), b[1].sum())
        assert (one.low, one.high, one.p) == (None, None, None)
    else:
        assert (one.difference, one.low, one.high) == pytest.approx((-other.difference, -other.high, -other.low))
        assert -1 <= one.low < one.high <= 1
    same = ratios(a, a, np.random.default_rng(3), 400)
    if a[1].sum():
        assert (same.difference, same.p) == (0, 1)
        assert same.low < 0 < same.high


def test_the_bootstrap_is_that_of_scipy():
    rng = np.random.default_rng(5)
    bottom = rng.integers(5, 20, (2, 150))
    top = rng.binomial(bottom, [[0.85], [0.9]])
    a, b = (np.array([top[side], bottom[side]]) for side in (0, 1))

    def difference(at, ab, bt, bb, axis=-1):
        return bt.sum(axis) / bb.sum(axis) - at.sum(axis) / ab.sum(axis)

    theirs = stats.bootstrap(
        (*a, *b), difference, paired=True, method="percentile", n_resamples=20_000, rng=np.random.default_rng(6)
    )
    ours = ratios(a, b, np.random.default_rng(7), 20_000)
    assert (ours.low, ours.high) == pytest.approx(tuple(theirs.confidence_interval), abs=6e-4)
    tail = np.mean(theirs.bootstrap_distribution <= 0)
    assert ours.p == pytest.approx(2 * tail, abs=2e-3)


@settings(max_examples=20, deadline=None)  # each call of theirs takes a tenth of a second
@given(st.lists(st.floats(0, 1), min_size=1, max_size=15))
def test_holm_is_that_of_statsmodels(p):
    named = {f"metric {place}": value for place, value in enumerate(p)}
    assert list(map(holm(named).get, named)) == pytest.approx(list(multipletests(p, method="holm")[1]))


def test_two_scorecards():
    right, wrong = score(ROWS, RIGHT), score(ROWS, SOME_WRONG)
    found = compare(wrong, right, seed=4)
    assert (found.rows, found.compared, found.only_a, found.only_b, found.neither) == (30, 30, 0, 0, 0)
    assert found == compare(wrong, right, seed=4)
    for name, each in found.metrics.items():
        if each.n == 0:  # a metric of the CIC set
            continue
        assert each.test == (MCNEMAR if METRICS[name].by_briefing else BOOTSTRAP)
        if each.n == 30 or not METRICS[name].by_briefing:  # otherwise over the pairs alone
            assert (each.a, each.b) == (wrong.metrics[name].value, right.metrics[name].value)
        assert each.p <= each.p_holm <= 1
    assert found.metrics["numeric_precision"].p_holm < 0.05
    assert json.loads(json.dumps(found.to_json(), allow_nan=False))["metrics"].keys() == METRICS.keys()


def test_only_rows_of_both_and_undefined_stays_undefined():
    names = list(RIGHT)
    a = score(ROWS, {name: "no object" for name in names[2:]})
    b = score(ROWS, {name: RIGHT[name] for name in [names[0], *names[3:]]})
    found = compare(a, b)
    assert (found.compared, found.only_a, found.only_b, found.neither) == (27, 1, 1, 1)
    assert (found.metrics["json_strict"].n, found.metrics["json_strict"].b) == (27, 1)
    undefined = found.metrics["numeric_precision"]
    assert (undefined.a, undefined.b) == (None, 1)
    assert undefined.difference is undefined.p is undefined.p_holm is None
    with pytest.raises(ElleError, match="no row"):
        compare(score(ROWS, {}), b)
    with pytest.raises(ElleError, match="different rows"):
        compare(score(ROWS[1:], {}), b)


def test_a_metric_that_judges_nothing_is_undefined():
    """Zero of zero was taken for a wrong answer, and the difference for 0."""
    card = score(ROWS, SOME_WRONG)
    for each in compare(card, card).metrics.values():
        if each.n == 0:
            assert (each.a, each.difference, each.p, each.p_holm) == (None, None, None, None)
        else:
            assert (each.difference, each.p, each.p_holm) == (0, 1, 1)
            assert each.low < 0 < each.high
    assert yes_or_no([], []).difference is None


def test_bad_shapes():
    with pytest.raises(ValueError, match="same briefings"):
        yes_or_no([True], [True, False])
    with pytest.raises(ValueError, match="same briefings"):
        ratios(np.ones((2, 3)), np.ones((2, 4)), np.random.default_rng(0))
