"""A measured figure with its 95 % interval."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy.stats import binomtest


class Reading(NamedTuple):
    value: float
    low: float
    high: float


def resampled(values: np.ndarray, statistic: Callable, rng: np.random.Generator, draws: int = 1000) -> Reading:
    """A statistic (a function of an array and an axis) with its percentile bootstrap interval (Efron 1979)."""
    drawn = statistic(values[rng.integers(len(values), size=(draws, len(values)))], axis=1)
    low, high = np.quantile(drawn, (0.025, 0.975))
    return Reading(float(statistic(values, axis=0)), float(low), float(high))


def share(successes: int, trials: int) -> Reading:
    """A share with its Wilson interval (Wilson 1927)."""
    interval = binomtest(int(successes), int(trials)).proportion_ci(method="wilson")
    return Reading(float(successes / trials), float(interval.low), float(interval.high))
