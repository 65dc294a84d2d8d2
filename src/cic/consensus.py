"""Consensus: one answer from many numeric ones."""

from collections import Counter

import numpy as np

from cic import _checks

#: Neighbours closer than this share of the larger one belong together.
RELATIVE_GAP = 0.05


def relative_gap_clusters(values, relative_gap: float = RELATIVE_GAP) -> list[np.ndarray]:
    """Single-linkage clusters of numbers: neighbours belong together if |a − b| < gap · max(|a|, |b|).

    In one dimension this is a sort. Single linkage chains: 100, 104, 108, … is one cluster at 5 %, however long. Only
    zero is near zero, and numbers of different sign are never together.

    Args:
        values: numbers, any order.

    Returns:
        Sorted arrays, in ascending order; together they hold every value.

    Raises:
        ValueError: no values, NaN, or a gap outside 0..1.
    """
    values = np.sort(_checks.finite(values, "the answers", 1))
    if not 0 < relative_gap < 1:
        raise ValueError(f"the relative gap must lie in 0..1, not {relative_gap}")
    apart = np.diff(values) >= relative_gap * np.maximum(np.abs(values[:-1]), np.abs(values[1:]))
    return np.split(values, np.flatnonzero(apart & (np.diff(values) > 0)) + 1)


def cohesion(cluster) -> float:
    """How close the answers of a cluster are, 0..1: 1 − their mean distance from the median, relative to the median.

    The source plans call a cluster cohesive from 0.7 on and give no formula; this one is ours. It is 0 for a cluster
    around 0 that is not all zero.

    Raises:
        ValueError: no values, or NaN.
    """
    cluster = _checks.finite(cluster, "the cluster", 1)
    centre = float(np.median(cluster))
    spread = float(np.abs(cluster - centre).mean())
    if spread == 0:
        return 1.0
    return max(0.0, 1 - spread / abs(centre)) if centre else 0.0


def best_cluster(values, relative_gap: float = RELATIVE_GAP) -> np.ndarray:
    """The largest cluster; among equals the most cohesive, then the one of smallest numbers.

    Raises:
        ValueError: as `relative_gap_clusters`.
    """
    clusters = relative_gap_clusters(values, relative_gap)
    size = max(map(len, clusters))
    return max((cluster for cluster in clusters if len(cluster) == size), key=cohesion)


def basin_center(values, relative_gap: float = RELATIVE_GAP) -> float:
    """The median of the best cluster: what the source plans call a Platonic Form.

    Raises:
        ValueError: as `relative_gap_clusters`.
    """
    return float(np.median(best_cluster(values, relative_gap)))


def half_sample_mode(values) -> float:
    """A robust mode: the densest half, then the densest half of that, and so on (Bickel and Frühwirth 2006).

    Raises:
        ValueError: no values, or NaN.
    """
    values = np.sort(_checks.finite(values, "the values", 1))
    while len(values) > 3:
        half = (len(values) + 1) // 2
        widths = values[half - 1 :] - values[: len(values) - half + 1]
        start = int(np.argmin(widths))
        values = values[start : start + half]
    if len(values) == 3:
        left, right = values[1] - values[0], values[2] - values[1]
        values = values[:2] if left < right else values[1:] if right < left else values[1:2]
    return float(values.mean())


def majority_vote(values) -> float:
    """The commonest answer (self-consistency, Wang et al. 2022); among equals the first given.

    Raises:
        ValueError: no values, or NaN.
    """
    return Counter(_checks.finite(values, "the answers", 1).tolist()).most_common(1)[0][0]


def cluster_then_vote(values, relative_gap: float = RELATIVE_GAP) -> float:
    """A majority vote inside the best cluster; among equals the answer nearest to its median.

    The cluster says where the answer lies, the vote which one it is: unlike the centre, it is one of the answers given.

    Raises:
        ValueError: as `relative_gap_clusters`.
    """
    cluster = best_cluster(values, relative_gap)
    distinct, counts = np.unique(cluster, return_counts=True)
    commonest = distinct[counts == counts.max()]
    return float(commonest[np.abs(commonest - np.median(cluster)).argmin()])
