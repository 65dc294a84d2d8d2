"""Fixed points: the matrix behind the documents' μ, spectral radii, and Banach's iteration."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from cic import _checks


def spectral_radius(matrix) -> float:
    """The largest modulus of an eigenvalue, ρ = lim ‖Aᵏ‖^(1/k) (Gelfand 1941).

    A power iteration on the matrix itself: k doubles by squaring, up to 2⁶⁰, so that it converges for any matrix,
    complex and defective eigenvalues included.

    Raises:
        ValueError: not square, NaN or empty.
    """
    power = _checks.square(matrix, "the matrix").copy()
    log_norm = 0.0  # of the k-th power, divided by k
    for doubling in range(60):
        norm = np.abs(power).max()
        if norm == 0:  # nilpotent
            return 0.0
        log_norm += np.log(norm) / 2.0**doubling
        power = power / norm
        power = power @ power
    return float(np.exp(log_norm))


def circulant_self_reference_operator(
    size: int = 8, diagonal: float = 1.5, coupling: float = 0.3, length: float = 2.0
) -> np.ndarray:
    """The documents' self-reference operator: `diagonal`, and coupling·exp(−d/length) at circular distance d from it.

    For entries that are not negative its spectral radius is the row sum, 2.259125 with the documents' values: at least
    `diagonal`, whatever the rest.

    Raises:
        ValueError: size < 1, length not above 0, or a diagonal or coupling that is not finite.
    """
    if size < 1 or not length > 0 or not np.isfinite([diagonal, coupling]).all():
        raise ValueError(f"need size ≥ 1, length > 0, and finite entries, not {size}, {length}, {diagonal}, {coupling}")
    steps = np.abs(np.subtract.outer(np.arange(size), np.arange(size)))
    distance = np.minimum(steps, size - steps)
    return np.where(distance == 0, diagonal, coupling * np.exp(-distance / length))


class FixedPoint(NamedTuple):
    """point: x = f(x); iterations: until it stood still; contraction: the last ratio of successive steps (< 1)."""

    point: float
    iterations: int
    contraction: float


def banach_fixed_point(
    f: Callable[[float], float], start: float, tolerance: float = 1e-12, limit: int = 10_000
) -> FixedPoint:
    """The fixed point of a contraction, by x ← f(x) (Banach 1922), to a relative tolerance; cos gives 0.739085.

    Raises:
        ValueError: f leaves the finite numbers, or does not settle within `limit` iterations (it is no contraction).
    """
    x, before, ratio = float(start), np.inf, 0.0
    for iteration in range(1, limit + 1):
        following = float(f(x))
        if not np.isfinite(following):
            raise ValueError(f"f({x:g}) is {following}: start elsewhere, or f has no fixed point to find this way")
        step = abs(following - x)
        ratio = step / before if 0 < before < np.inf else 0.0
        x, before = following, step
        # Banach's bound on what is left: q/(1 − q) steps like the last one.
        if step * max(1.0, ratio / (1 - ratio) if ratio < 1 else np.inf) <= tolerance * max(1.0, abs(x)):
            return FixedPoint(x, iteration, ratio)
    raise ValueError(
        f"no fixed point within {limit} iterations: the last step was {before:.3g}, f is no contraction here"
    )
