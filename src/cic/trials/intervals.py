"""A measured figure with its 95 % interval."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy.stats import binomtest


class Estimate(NamedTuple):
    value: float
    low: float
    high: float


def bootstrap(values: np.ndarray, statistic: Callable, rng: np.random.Generator, draws: int = 1000) -> Estimate:
    """A statistic (a function of an array and an axis) with its percentile bootstrap interval (Efron 1979)."""
    drawn = statistic(values[rng.integers(len(values), size=(draws, len(values)))], axis=1)
    low, high = np.quantile(drawn, (0.025, 0.975))
    return Estimate(float(statistic(values, axis=0)), float(low), float(high))


def share(successes: int, trials: int) -> Estimate:
    """A share with its Wilson interval (Wilson 1927)."""
    interval = binomtest(int(successes), int(trials)).proportion_ci(method="wilson")
    return Estimate(float(successes / trials), float(interval.low), float(interval.high))
