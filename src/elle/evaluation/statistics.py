"""Ninety-five per cent intervals: Wilson's for proportions, the bootstrap over briefings for ratios of counts."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

#: The 97.5 % point of the standard normal distribution.
Z = 1.959963984540054


@dataclass(frozen=True)
class Estimate:
    """A share in 0..1, its denominator `n`, and its 95 % interval; all but `n` None where n = 0 (undefined)."""

    value: float | None
    n: int
    low: float | None
    high: float | None


def wilson(successes: int, n: int) -> Estimate:
    """The Wilson score interval of a proportion of independent trials, without continuity correction:

    (p + z²/2n ± z·sqrt(p(1−p)/n + z²/4n²)) / (1 + z²/n).
    Source: E. B. Wilson, J. Am. Stat. Assoc. 22 (1927) 209-212; Brown, Cai and DasGupta, Stat. Sci. 16 (2001) 101.
    """
    if not 0 <= successes <= n:
        raise ValueError(f"successes must be in 0..n, got {successes} of {n}")
    if n == 0:
        return Estimate(None, 0, None, None)
    p = successes / n
    centre = (p + Z * Z / (2 * n)) / (1 + Z * Z / n)
    half = Z * math.sqrt(p * (1 - p) / n + Z * Z / (4 * n * n)) / (1 + Z * Z / n)
    # At 0 and n the bound is exactly 0 and 1; only rounding says otherwise.
    low = 0.0 if successes == 0 else max(0.0, centre - half)
    high = 1.0 if successes == n else min(1.0, centre + half)
    return Estimate(p, n, low, high)


def clustered_ratio(
    numerators: Sequence[int], denominators: Sequence[int], rng: np.random.Generator, resamples: int = 2000
) -> Estimate:
    """Pooled ratio Σ numerators / Σ denominators with a percentile bootstrap over clusters (one entry a briefing).

    Numbers of one briefing are right or wrong together, so whole briefings are drawn, with replacement, as many as
    there are; the interval is the 2.5 and 97.5 % points of the ratio over `resamples` draws. Briefings with
    denominator 0 carry no information and are left out. Where the ratio is exactly 0 or 1 every draw equals it, and
    an interval of width 0 would claim certainty: the Wilson interval with the number of briefings as n is given
    instead, the widest that clustering allows.
    Source: Efron and Tibshirani, An Introduction to the Bootstrap (1993), ch. 13; Field and Welsh, J. R. Stat. Soc. B
    69 (2007) 369 (the cluster bootstrap).
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
    ratios = np.empty(resamples)
    step = max(1, 2_000_000 // clusters)  # at most 2 million indices at a time: memory stays flat
    for begin in range(0, resamples, step):
        count = min(step, resamples - begin)
        draw = rng.integers(clusters, size=(count, clusters))
        ratios[begin : begin + count] = top[draw].sum(axis=1) / bottom[draw].sum(axis=1)
    low, high = np.quantile(ratios, (0.025, 0.975))
    return Estimate(value, n, float(low), float(high))


@dataclass(frozen=True)
class Interval:
    """A figure that is no share (a score, a mean), over `n` briefings, with its 95 % interval."""

    value: float
    n: int
    low: float
    high: float


def bootstrap(
    n: int, figure: Callable[[np.ndarray], float], rng: np.random.Generator, resamples: int = 2000
) -> Interval:
    """`figure` of all n briefings, with the percentile bootstrap: `figure` takes the places of the briefings drawn.

    Source: Efron and Tibshirani, An Introduction to the Bootstrap (1993), ch. 13. One briefing has no spread: its
    interval is the value itself.
    """
    value = figure(np.arange(n))
    drawn = [figure(rng.integers(n, size=n)) for _ in range(resamples if n > 1 else 0)]
    low, high = np.quantile(drawn, (0.025, 0.975)) if drawn else (value, value)
    return Interval(float(value), n, float(low), float(high))
