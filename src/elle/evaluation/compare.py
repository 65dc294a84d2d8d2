"""Two models on the same briefings: is the difference more than chance? McNemar's exact test for yes or no, the paired
bootstrap for ratios of counts, and Holm's correction because many figures are compared at once."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from scipy.stats import binomtest

from elle.base.errors import ElleError
from elle.base.tables import aligned
from elle.evaluation.scorecard import METRICS, Scorecard, share_text
from elle.evaluation.statistics import Z

MCNEMAR, BOOTSTRAP = "McNemar, exact", "paired bootstrap"
RESAMPLES = 10_000


@dataclass(frozen=True)
class Difference:
    """One metric of two models, over the briefings that both answered.

    a, b: the figures, None where undefined (then all that follows from them is None too); difference: b − a with its
    95 % interval low..high; p: two-sided, against no difference; p_holm: the same, corrected for the number of metrics
    compared; n: briefings that have what the metric judges; discordant: how many briefings only a and only b has right,
    None for ratios of counts.
    """

    a: float | None = None
    b: float | None = None
    difference: float | None = None
    low: float | None = None
    high: float | None = None
    p: float | None = None
    p_holm: float | None = None
    test: str = MCNEMAR
    n: int = 0
    discordant: tuple[int, int] | None = None


@dataclass(frozen=True)
class Comparison:
    """metrics: name → difference; rows: briefings of the data; only_a, only_b, neither: how many of them have an output
    of one model alone or of none, and are left out."""

    metrics: dict[str, Difference]
    rows: int
    only_a: int
    only_b: int
    neither: int

    @property
    def compared(self) -> int:
        return self.rows - self.only_a - self.only_b - self.neither

    def to_json(self) -> dict[str, Any]:
        """Plain values for strict JSON (undefined is null)."""
        return asdict(self) | {"compared": self.compared}


def compare(a: Scorecard, b: Scorecard, *, seed: int = 0) -> Comparison:
    """Compare two scorecards of the same rows, metric by metric, on the rows where both have an output.

    A missing output is a fault of one model's run, not an answer: it counts as a failure in each scorecard, and not at
    all here. `seed` is the bootstrap's.

    Raises:
        ElleError: the scorecards are not of the same rows, or no row has an output of both.
    """
    if [record.id for record in a.records] != [record.id for record in b.records]:
        raise ElleError("these scorecards are of different rows", fix="score both sets of outputs on the same data")
    pairs = list(zip(a.records, b.records, strict=True))
    answered = Counter((first.output is not None, second.output is not None) for first, second in pairs)
    both = [(first, second) for first, second in pairs if None not in (first.output, second.output)]
    if not both:
        raise ElleError("no row has an output of both models", fix="compare outputs that were made from the same rows")
    metrics = {}
    for name, metric in METRICS.items():
        a_counts, b_counts = (np.array([pair[side].counts[name] for pair in both], np.int64).T for side in (0, 1))
        if not metric.by_briefing:
            metrics[name] = ratios(a_counts, b_counts, np.random.default_rng(seed))
        else:  # where one answer has nothing that the metric judges there is no pair
            judged = (a_counts[1] > 0) & (b_counts[1] > 0)
            metrics[name] = yes_or_no(a_counts[0][judged] > 0, b_counts[0][judged] > 0)
    corrected = holm({name: each.p for name, each in metrics.items() if each.p is not None})
    return Comparison(
        {name: replace(each, p_holm=corrected.get(name)) for name, each in metrics.items()},
        rows=len(pairs),
        only_a=answered[True, False],
        only_b=answered[False, True],
        neither=answered[False, False],
    )


def yes_or_no(a: Sequence[bool] | np.ndarray, b: Sequence[bool] | np.ndarray) -> Difference:
    """Two models' verdicts on the same briefings (one entry each): McNemar's test, exact at any number of pairs.

    p is the binomial test of the discordant pairs against 1/2. The interval is Agresti and Min's: Wald's, with half a
    pair added to each cell of the table; so it has a width where no pair is discordant. It and the exact test may
    disagree at the edge of significance.
    Source: McNemar, Psychometrika 12 (1947) 153; Agresti and Min, Stat. Med. 24 (2005) 729.
    """
    a, b = np.asarray(a, bool), np.asarray(b, bool)
    if a.shape != b.shape or a.ndim != 1:
        raise ValueError("a and b must hold one verdict for each of the same briefings")
    if not len(a):
        return Difference()
    n, only_a, only_b = len(a), int(np.sum(a & ~b)), int(np.sum(b & ~a))
    p = float(binomtest(only_a, only_a + only_b).pvalue) if only_a + only_b else 1.0
    difference = (only_b - only_a) / n
    centre = (only_b - only_a) / (n + 2)
    half = Z * math.sqrt(only_a + only_b + 1 - (only_b - only_a) ** 2 / (n + 2)) / (n + 2)
    low, high = max(-1.0, centre - half), min(1.0, centre + half)
    shares = int(a.sum()) / n, int(b.sum()) / n
    return Difference(*shares, difference, low, high, p, n=n, discordant=(only_a, only_b))


def ratios(a: np.ndarray, b: np.ndarray, rng: np.random.Generator, resamples: int = RESAMPLES) -> Difference:
    """Two models' pooled ratios Σ numerators / Σ denominators, compared by the paired bootstrap over briefings.

    Whole briefings are drawn, the same ones for both; low..high are the 2.5 and 97.5 % points of the difference, and p
    is twice the share of draws on the other side of zero (or on it), counting the sample itself as a draw. Briefings
    that carry no number of either model are left out. Where all draws agree, an interval of width 0 would claim
    certainty: that of as many briefings without a discordant pair (see `yes_or_no`) is given.
    Source: Efron and Tibshirani, An Introduction to the Bootstrap (1993), ch. 13 and 16; Davison and Hinkley,
    Bootstrap Methods and their Application (1997), 4.2 (the added draw).

    Args:
        a, b: shape (2, briefings): numerators and denominators.
    """
    a, b = np.asarray(a, np.int64), np.asarray(b, np.int64)
    if a.shape != b.shape or a.ndim != 2 or len(a) != 2:
        raise ValueError("a and b must be of one shape: numerators and denominators of the same briefings")
    informative = (a[1] > 0) | (b[1] > 0)
    a, b = a[:, informative], b[:, informative]
    n = a.shape[1]
    values = [float(top.sum() / bottom.sum()) if bottom.sum() else None for top, bottom in (a, b)]
    if None in values:
        return Difference(*values, test=BOOTSTRAP, n=n)
    difference = values[1] - values[0]
    counts = np.concatenate([a, b]).T.astype(float)  # (briefings, 4)
    sums = np.empty((resamples, 4))
    step = max(1, 1_000_000 // n)  # memory stays flat
    for begin in range(0, resamples, step):
        size = min(step, resamples - begin)
        # How often each briefing is drawn: the sums of all draws are then one product.
        sums[begin : begin + size] = rng.multinomial(n, np.full(n, 1 / n), size) @ counts
    sums = sums[(sums[:, 1] > 0) & (sums[:, 3] > 0)]  # a draw without a number has no ratio
    draws = sums[:, 2] / sums[:, 3] - sums[:, 0] / sums[:, 1]
    if np.ptp(draws) < 1e-12:
        half = Z / (n + 2)
        low, high = difference - half, difference + half
    else:
        low, high = np.quantile(draws, (0.025, 0.975)).tolist()
    tail = min(int((draws <= 0).sum()), int((draws >= 0).sum()))
    p = min(1.0, 2 * (1 + tail) / (1 + len(draws)))
    return Difference(*values, difference, max(-1.0, low), min(1.0, high), p, test=BOOTSTRAP, n=n)


def holm(p: Mapping[str, float]) -> dict[str, float]:
    """Holm's step-down correction, which bounds the chance of any false finding among all.

    Source: Holm, Scand. J. Stat. 6 (1979) 65.
    """
    corrected, highest = {}, 0.0
    for rank, name in enumerate(sorted(p, key=p.__getitem__)):
        highest = max(highest, min(1.0, p[name] * (len(p) - rank)))
        corrected[name] = highest
    return corrected


def differences_text(comparison: Comparison, a: str, b: str) -> str:
    """The comparison for people: metric, both figures, b − a with its 95 % interval, p, p after Holm's correction,
    briefings, and how many of them one alone has right. a, b: what the models are called."""
    rows = []
    for name, each in comparison.metrics.items():
        defined = each.difference is not None
        only_a, only_b = map(str, each.discordant or ("", ""))
        rows.append(
            {
                "metric": name,
                a: share_text(each.a),
                b: share_text(each.b),
                "difference": f"{each.difference:+.4f}" if defined else "undefined",
                "95 % interval": f"[{each.low:+.4f}, {each.high:+.4f}]" if defined else "",
                "p": _p_text(each.p),
                "p (Holm)": _p_text(each.p_holm),
                "n": f"{each.n:,}",
                f"only {a}": only_a,
                f"only {b}": only_b,
                "test": each.test,
            }
        )
    text = f"{aligned(rows)}\n\ncompared on {comparison.compared:,} of {comparison.rows:,} rows"
    if comparison.compared < comparison.rows:
        text += f"; no output: {a} alone {comparison.only_b:,}, {b} alone {comparison.only_a:,}, "
        text += f"both {comparison.neither:,}"
    return text


def _p_text(p: float | None) -> str:
    return "" if p is None else "<0.0001" if p < 1e-4 else f"{p:.4f}"
