"""Ninety-five per cent intervals: Wilson's for proportions, the bootstrap over briefings for ratios and means."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

#: The 97.5 % point of the standard normal distribution.
Z = 1.959963984540054
RESAMPLES = 2000


@dataclass(frozen=True)
class Estimate:
    """A figure, its denominator `n`, and its 95 % interval; all but `n` None where n = 0 (undefined)."""

    value: float | None
    n: int
    low: float | None
    high: float | None


def wilson(successes: int, n: int) -> Estimate:
    """A proportion of independent trials with Wilson's score interval, without continuity correction.

    Source: E. B. Wilson, J. Am. Stat. Assoc. 22 (1927) 209-212; Brown, Cai and DasGupta, Stat. Sci. 16 (2001) 101.
    """
    from scipy.stats import binomtest  # half a second, which a plan does not need

    if not 0 <= successes <= n:
        raise ValueError(f"successes must be in 0..n, got {successes} of {n}")
    if n == 0:
        return Estimate(None, 0, None, None)
    interval = binomtest(int(successes), int(n)).proportion_ci(method="wilson")
    return Estimate(successes / n, n, float(interval.low), float(interval.high))


def clustered_ratio(numerators: Sequence[int], denominators: Sequence[int], rng: np.random.Generator) -> Estimate:
    """Pooled ratio Σ numerators / Σ denominators with a percentile bootstrap over clusters (one entry per briefing).

    Numbers of one briefing are right or wrong together, so whole briefings are drawn. Briefings with denominator 0
    carry no information and are left out. Where the ratio is exactly 0 or 1 every draw equals it, and an interval of
    width 0 would claim certainty: the Wilson interval with the number of briefings as n is given instead, the widest
    that clustering allows.
    Source: Field and Welsh, J. R. Stat. Soc. B 69 (2007) 369 (the cluster bootstrap).
    """
    top, bottom = np.asarray(numerators, np.int64), np.asarray(denominators, np.int64)
    if top.shape != bottom.shape or top.ndim != 1 or np.any(top < 0) or np.any(top > bottom):
        raise ValueError("numerators and denominators must be of one length, with 0 <= numerator <= denominator")
    top, bottom = top[bottom > 0], bottom[bottom > 0]
    clusters, n = len(top), int(bottom.sum())
    if n == 0:
        return Estimate(None, 0, None, None)
    value = int(top.sum()) / n
    if value in (0.0, 1.0):
        bound = wilson(int(value) * clusters, clusters)
        return Estimate(value, n, bound.low, bound.high)
    return Estimate(value, n, *_percentiles(top, bottom, rng))


def mean(values: Sequence[float], rng: np.random.Generator) -> Estimate:
    """The mean with a percentile bootstrap; one value has no spread: its interval is the value itself."""
    values = np.asarray(values, float)
    return Estimate(float(values.mean()), len(values), *_percentiles(values, np.ones(len(values)), rng))


def _percentiles(top: np.ndarray, bottom: np.ndarray, rng: np.random.Generator) -> tuple[float, float]:
    """The 2.5 and 97.5 % points of Σ top / Σ bottom over entries drawn with replacement, as many as there are.

    Source: Efron and Tibshirani, An Introduction to the Bootstrap (1993), ch. 13.
    """
    ratios = np.empty(RESAMPLES)
    step = max(1, 2_000_000 // len(top))  # at most 2 million indices at a time: memory stays flat
    for begin in range(0, RESAMPLES, step):
        count = min(step, RESAMPLES - begin)
        draw = rng.integers(len(top), size=(count, len(top)))
        ratios[begin : begin + count] = top[draw].sum(axis=1) / bottom[draw].sum(axis=1)
    low, high = np.quantile(ratios, (0.025, 0.975)).tolist()
    return low, high
