"""Causality: what a state does to the next one, and what one series adds to the prediction of another."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from cic import _checks

#: All coarse-grainings are compared up to this many states (115,975 of them); beyond, pairs are merged greedily.
ENUMERATED_STATES = 10


def effective_information(P) -> float:
    """Effective information in bits of a transition matrix (Hoel, Albantakis and Tononi 2013); 0 ≤ EI ≤ log₂ n.

    EI = (1/n)·Σᵢ KL(Pᵢ ‖ P̄): the mutual information of now and next when every state is set equally often. log₂ n for
    a permutation, 0 where all rows are alike.

    Args:
        P: shape (n, n), rows from a state, summing to one.

    Raises:
        ValueError: not square, negative, or rows that do not sum to one.
    """
    return _effective_information(_checks.transition_matrix(P))


class Emergence(NamedTuple):
    """The best coarse-graining: each state's macro-state (`partition`), and effective information in bits, before
    (`micro`) and after (`macro`). exact: every partition was compared."""

    micro: float
    macro: float
    gain: float
    partition: tuple[int, ...]
    exact: bool


def causal_emergence(P) -> Emergence:
    """The coarse-graining with the highest effective information, against the states themselves (Hoel et al. 2013).

    To set a macro-state is to set its states equally often: P_macro(A→B) = mean over i in A of Σ_{j in B} P(i→j).
    Every partition is compared up to 10 states (Bell's number of them); beyond, the best pair is merged again and
    again, which gives a lower bound (`exact` is False). gain = macro − micro ≥ 0: not to coarsen is one of the choices.

    Raises:
        ValueError: as `effective_information`.
    """
    P = _checks.transition_matrix(P)
    n = len(P)
    micro = _effective_information(P)
    best, chosen = micro, tuple(range(n))
    for labels in _partitions(n) if n <= ENUMERATED_STATES else _greedy_merges(P):
        value = _effective_information(_coarse_grain(P, np.array(labels)))
        if value > best + 1e-12:  # among equals the states themselves, then the first
            best, chosen = value, labels
    return Emergence(micro, best, best - micro, chosen, n <= ENUMERATED_STATES)


def coarse_grain(P, labels) -> np.ndarray:
    """The transition matrix between macro-states, of shape (k, k).

    Args:
        labels: each state's macro-state, 0..k − 1.

    Raises:
        ValueError: as `effective_information`; not one label per state, or one of 0..k − 1 is missing.
    """
    P, labels = _checks.transition_matrix(P), _checks.finite(labels, "labels", 1)
    named = np.unique(labels)
    if len(labels) != len(P) or not np.array_equal(named, np.arange(len(named))):
        raise ValueError(f"labels must name macro-states 0..k-1, one for each of {len(P)} states")
    return _coarse_grain(P, labels.astype(int))


def _coarse_grain(P: np.ndarray, labels: np.ndarray) -> np.ndarray:
    member = np.eye(labels.max() + 1)[labels]  # (n, k)
    return (member.T @ P @ member) / member.sum(axis=0)[:, None]


def transfer_entropy_gaussian(source, target, lags: int = 1) -> float:
    """Transfer entropy in nats from `source` to `target` (Schreiber 2000), for jointly Gaussian series.

    TE = ½·ln(residual variance of target given its own past / given both pasts), which is half of Granger's causality
    (Barnett, Barrett and Seth 2009). ≥ 0; estimated from T samples it is biased upwards by about lags/(2T) nats.
    Limits: 0 where the target's own past determines it (a constant included), ∞ where only both pasts do.

    Args:
        source, target: series of one length, more than 4·lags + 2.

    Raises:
        ValueError: of different or too short length, NaN, or lags < 1.
    """
    source, target = _checks.finite(source, "the source", 1), _checks.finite(target, "the target", 1)
    if lags < 1 or len(source) != len(target) or len(target) <= 4 * lags + 2:
        raise ValueError(f"need two series of one length above {4 * lags + 2}, not {len(source)} and {len(target)}")
    source, target = _standardised(source), _standardised(target)
    own, other = (
        np.column_stack([series[lags - k - 1 : len(series) - k - 1] for k in range(lags)])
        for series in (target, source)
    )
    now = target[lags:] - target[lags:].mean()
    total = float(now @ now)
    alone, both = _residual(now, own), _residual(now, np.hstack([own, other]))
    negligible = 1e-12 * total
    if alone <= negligible:
        return 0.0
    return float("inf") if both <= negligible else max(0.0, 0.5 * float(np.log(alone / both)))


def _standardised(series: np.ndarray) -> np.ndarray:
    """The series without its unit, so that none is negligible beside another; a constant is exactly 0."""
    span = np.ptp(series)
    return (series - series.mean()) / span if span else np.zeros(len(series))


def _residual(now: np.ndarray, past: np.ndarray) -> float:
    """The sum of squares that a regression with an intercept leaves."""
    past = past - past.mean(axis=0)
    weights = np.linalg.lstsq(past, now, rcond=None)[0]
    left = now - past @ weights
    return float(left @ left)


def _effective_information(P: np.ndarray) -> float:
    mean = P.mean(axis=0)
    present = (P > 0) & (mean > 0)  # the mean of the smallest floats is 0
    ratio = np.where(present, P, 1) / np.where(present, mean, 1)
    return max(0.0, float((P * np.log2(ratio)).sum() / len(P)))


def _partitions(n: int) -> Iterator[tuple[int, ...]]:
    """Every partition of n states, as restricted growth strings (Knuth, TAOCP 4A, 7.2.1.5)."""
    labels = [0] * n

    def grow(place: int, used: int) -> Iterator[tuple[int, ...]]:
        if place == n:
            yield tuple(labels)
            return
        for label in range(used + 1):
            labels[place] = label
            yield from grow(place + 1, max(used, label + 1))

    yield from grow(1, 1)


def _greedy_merges(P: np.ndarray) -> Iterator[tuple[int, ...]]:
    labels = np.arange(len(P))
    while labels.max() > 0:
        k = labels.max() + 1
        pairs = [(a, b) for a in range(k) for b in range(a + 1, k)]
        merged = [np.where(labels == b, a, labels - (labels > b)) for a, b in pairs]
        labels = max(merged, key=lambda candidate: _effective_information(_coarse_grain(P, candidate)))
        yield tuple(labels.tolist())
