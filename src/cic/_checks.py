"""Checks of what the measures are given: each returns a float array, or raises ValueError saying what is wrong."""

import numpy as np

#: How far probabilities may be from summing to one, and a covariance from symmetry (relative).
TOLERANCE = 1e-8


def finite(values, name: str, ndim: int | None = None) -> np.ndarray:
    """`values` as a non-empty array of finite floats, with `ndim` axes if that is given."""
    try:
        array = np.asarray(values)
        if array.dtype.kind not in "biufO":  # numpy would convert digits and complex numbers in silence
            raise TypeError(f"these are of type {array.dtype}")
        array = np.asarray(array, dtype=float)
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"{name} must be real numbers in a regular array: {error}") from error
    if ndim is not None and array.ndim != ndim:
        raise ValueError(f"{name} must have {ndim} axes, not shape {array.shape}")
    if array.size == 0:
        raise ValueError(f"{name} is empty")
    if not np.isfinite(array).all():
        raise ValueError(f"{name} holds NaN or infinity: remove or impute those values first")
    return array


def unit_interval(values, name: str) -> np.ndarray:
    """`values` as `finite` returns them, each in 0..1."""
    array = finite(values, name)
    if array.min() < 0 or array.max() > 1:
        raise ValueError(f"{name} must lie in 0..1, not {array.min():g}..{array.max():g}")
    return array


def distribution(p) -> np.ndarray:
    """Probabilities: none negative, summing to one over all axes."""
    array = finite(p, "the distribution")
    if array.min() < 0:
        raise ValueError(f"the distribution has a negative probability, {array.min():g}")
    if abs(array.sum() - 1) > TOLERANCE:
        raise ValueError(f"the distribution sums to {array.sum():.9g}, not to 1: divide by the sum if these are counts")
    return array


def transition_matrix(matrix) -> np.ndarray:
    """A square matrix whose rows are distributions."""
    array = finite(matrix, "the transition matrix", 2)
    if array.shape[0] != array.shape[1]:
        raise ValueError(f"the transition matrix must be square, not of shape {array.shape}")
    if array.min() < 0:
        raise ValueError(f"the transition matrix has a negative probability, {array.min():g}")
    sums = array.sum(axis=1)
    worst = int(np.argmax(np.abs(sums - 1)))
    if abs(sums[worst] - 1) > TOLERANCE:
        raise ValueError(f"row {worst} of the transition matrix sums to {sums[worst]:.9g}, not to 1")
    return array


def covariance(matrix) -> np.ndarray:
    """Covariance matrices, shape (..., n, n): symmetric, with no negative variance."""
    array = finite(matrix, "the covariance")
    if array.ndim < 2 or array.shape[-1] != array.shape[-2]:
        raise ValueError(f"the covariance must have shape (..., n, n), not {array.shape}")
    variances = np.diagonal(array, axis1=-2, axis2=-1)
    if variances.min() < 0:
        raise ValueError(f"the covariance has a negative variance, {variances.min():g}")
    deviations = np.sqrt(variances)
    scale = deviations[..., :, None] * deviations[..., None, :]
    if (np.abs(array - np.swapaxes(array, -1, -2)) > TOLERANCE * scale + np.finfo(float).tiny).any():
        raise ValueError("the covariance is not symmetric")
    if (np.abs(array) > (1 + TOLERANCE) * scale + np.finfo(float).tiny).any():
        raise ValueError("the covariance implies a correlation outside -1..1")
    return array
