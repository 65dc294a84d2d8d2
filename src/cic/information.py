"""Integration: how much a system's parts know of one another.

Discrete measures take a joint distribution with one axis per variable and answer in bits; Gaussian ones take a
covariance and answer in nats (1 nat = 1.442695 bits). None of them sees more than the distribution that it is given: an
estimate from few samples is too high on average.
"""

from typing import NamedTuple

import numpy as np

from cic import _checks

#: A variable whose variance, given others, is below this share of its own counts as determined by them: float64 cannot
#: tell such a dependence from an exact one.
DETERMINED = 1e-12
#: Bipartitions are compared up to this many variables: for 20 it takes 0.1 s and 50 MB, and twice that for each more.
MOST_VARIABLES = 20


# Discrete


def entropy(p, normalized: bool = False) -> float:
    """Shannon entropy in bits, H = −Σ p·log₂ p (Shannon 1948), of a distribution of any shape.

    Args:
        p: probabilities; a joint distribution is taken as a whole.
        normalized: divide by log₂(number of states): 1 for the uniform distribution, 0 for a point mass (and for a
            single state).

    Raises:
        ValueError: `p` is empty, not finite, negative or does not sum to one.
    """
    p = _checks.distribution(p)
    positive = p[p > 0]
    nats = max(0.0, -float((positive * np.log(positive)).sum()))
    if normalized:
        return min(1.0, nats / np.log(p.size)) if p.size > 1 else 0.0
    return nats / np.log(2)


def total_correlation(p) -> float:
    """Total correlation in bits, TC = Σ H(Xᵢ) − H(X) (Watanabe 1960); ≥ 0, and 0 only for independent variables.

    Args:
        p: joint distribution, one axis per variable.

    Raises:
        ValueError: as `entropy`.
    """
    p = _checks.distribution(p)
    axes = range(p.ndim)
    marginals = sum(entropy(p.sum(axis=tuple(other for other in axes if other != i))) for i in axes)
    return max(0.0, marginals - entropy(p))


def dual_total_correlation(p) -> float:
    """Dual total correlation in bits, DTC = H(X) − Σ H(Xᵢ | the others) (Han 1978); ≥ 0.

    Raises:
        ValueError: as `entropy`.
    """
    p = _checks.distribution(p)
    whole = entropy(p)
    alone = sum(whole - entropy(p.sum(axis=i)) for i in range(p.ndim))
    return max(0.0, whole - alone)


def o_information(p) -> float:
    """O-information in bits, Ω = TC − DTC (Rosas et al. 2019): above 0 redundancy prevails, below 0 synergy.

    Raises:
        ValueError: as `entropy`.
    """
    return total_correlation(p) - dual_total_correlation(p)


# Gaussian


def entropy_gaussian(covariance) -> float | np.ndarray:
    """Differential entropy in nats, h = ½·ln det(2πe·Σ); −∞ for a singular covariance.

    Unlike Shannon's it depends on units and may be negative: `normalized_entropy_gaussian` states a reference.

    Args:
        covariance: shape (..., n, n).

    Raises:
        ValueError: not a covariance.
    """
    covariance = _checks.covariance(covariance)
    correlation, eigenvalues = _correlation(covariance)
    variances = np.diagonal(covariance, axis1=-2, axis2=-1)
    with np.errstate(divide="ignore"):
        log_variances = np.log(variances).sum(axis=-1)
    value = 0.5 * (_log_determinant(eigenvalues) + log_variances + correlation.shape[-1] * np.log(2 * np.pi * np.e))
    return _scalar(value)


def normalized_entropy_gaussian(covariance, resolution: float = 0.01, span: float = 1.0) -> float | np.ndarray:
    """Gaussian entropy as a share of a stated maximum, 0..1: how much of the state space, in logarithms, it covers.

    H = (h − n·ln δ) / (n·ln(span/δ)), clipped: h − n·ln δ is the entropy in nats of the state read to a resolution δ
    (for δ well below its standard deviations), and n·ln(span/δ) is that of a uniform distribution over the span. So 1
    is as uncertain as uniform, and 0 a state that stays within one reading (a singular covariance included).

    Args:
        covariance: shape (..., n, n), in the squared unit of `resolution` and `span`.

    Raises:
        ValueError: not a covariance, or not 0 < resolution < span < ∞.
    """
    if not 0 < resolution < span < np.inf:
        raise ValueError(f"need 0 < resolution < span, not {resolution} and {span}")
    nats = np.asarray(entropy_gaussian(covariance))
    n = np.shape(covariance)[-1]
    return _scalar(np.clip((nats - n * np.log(resolution)) / (n * np.log(span / resolution)), 0, 1))


def total_correlation_gaussian(covariance) -> float | np.ndarray:
    """Total correlation in nats of a Gaussian, TC = −½·ln det R with R the correlation matrix; ≥ 0.

    Limits: ∞ where one variable is determined by others; a constant (zero variance) is independent of everything and
    adds nothing; 0 for n = 1.

    Args:
        covariance: shape (..., n, n).

    Raises:
        ValueError: not a covariance (not symmetric, not positive semidefinite, NaN, empty).
    """
    _, eigenvalues = _correlation(_checks.covariance(covariance))
    return _scalar(np.maximum(-0.5 * _log_determinant(eigenvalues), 0))


class Bipartition(NamedTuple):
    """A cut in two parts. value: nats, shape (...); partition: bool, (..., n), True on the side without the last."""

    value: float | np.ndarray
    partition: np.ndarray

    @property
    def sides(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The variables on each side, for a single cut (not for a batch)."""
        return tuple(tuple(np.flatnonzero(self.partition == side).tolist()) for side in (True, False))


def minimum_information_bipartition(covariance) -> Bipartition:
    """The cut in two parts that loses least: the minimum of the mutual information I(A; B) over bipartitions, in nats.

    The measure of integration used here for Φ: zero as soon as some part is independent of the rest, unlike the total
    correlation, and without the double counting of a sum of pairwise terms. It is not normalised by the parts' sizes,
    so that it often cuts off a single variable. Exact: all bipartitions are compared, by all principal minors at once
    (Griffin and Tsatsomeros 2006).

    Limits: a constant can be cut off for nothing (0); ∞ where every cut severs an exact dependence; n = 1 has nothing
    to cut (0, with itself on one side).

    Args:
        covariance: shape (..., n, n), n ≤ 20.

    Raises:
        ValueError: not a covariance, or of more than 20 variables.
    """
    correlation, _ = _correlation(_checks.covariance(covariance))
    n = correlation.shape[-1]
    if n > MOST_VARIABLES:
        raise ValueError(
            f"all bipartitions of at most {MOST_VARIABLES} variables are compared, not of {n}: merge or leave out some"
        )
    if n == 1:
        return Bipartition(_scalar(np.zeros(correlation.shape[:-2])), np.ones(correlation.shape[:-1], bool))
    batch = correlation.reshape(-1, n, n)
    step = max(1, 2**19 >> n)  # keeps the tables of a chunk in the processor's cache
    cuts = [_cheapest_cut(batch[start : start + step]) for start in range(0, len(batch), step)]
    value = np.concatenate([value for value, _ in cuts]).reshape(correlation.shape[:-2])
    index = np.concatenate([index for _, index in cuts])
    partition = (index[:, None] >> np.arange(n)) & 1 == 1
    return Bipartition(_scalar(value), partition.reshape(correlation.shape[:-1]))


def _correlation(covariance: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The correlation matrix, with constants made independent of the rest, and its eigenvalues."""
    deviations = np.sqrt(np.diagonal(covariance, axis1=-2, axis2=-1))
    safe = np.where(deviations > 0, deviations, 1)
    correlation = covariance / safe[..., :, None] / safe[..., None, :]
    correlation = (correlation + np.swapaxes(correlation, -1, -2)) / 2
    diagonal = np.arange(correlation.shape[-1])
    correlation[..., diagonal, diagonal] = 1
    eigenvalues = np.linalg.eigvalsh(correlation)
    if eigenvalues.min() < -_checks.TOLERANCE:
        raise ValueError(f"the covariance is not positive semidefinite (eigenvalue {eigenvalues.min():.3g})")
    return correlation, eigenvalues


def _log_determinant(eigenvalues: np.ndarray) -> np.ndarray:
    singular = eigenvalues.min(axis=-1) <= DETERMINED
    return np.where(singular, -np.inf, np.log(np.where(singular[..., None], 1, eigenvalues)).sum(axis=-1))


def _scalar(value: np.ndarray) -> float | np.ndarray:
    return value if np.ndim(value) else float(value)


def _cheapest_cut(correlation: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For a batch (b, n, n): the least mutual information, and its side as a bit mask without the last variable."""
    n = correlation.shape[-1]
    log_minors, rank = _principal_minors(correlation)
    whole, rank_whole = log_minors[:, -1:], rank[:, -1:]
    # A subset's complement stands at the mirrored index. A cut severs an exact dependence if the ranks do not add up.
    loss = 0.5 * (log_minors + log_minors[:, ::-1] - whole)
    loss = np.where(rank + rank[:, ::-1] > rank_whole, np.inf, np.maximum(loss, 0))[:, 1 : 2 ** (n - 1)]
    best = np.argmin(np.round(loss, 12), axis=1)  # of equal cuts the first, whatever the rounding
    return loss[np.arange(len(loss)), best], best + 1


def _principal_minors(correlation: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """ln det and rank of every principal submatrix of a batch (b, n, n): shape (b, 2ⁿ), bit i for variable i.

    Variable by variable, each subset so far either drops it (a submatrix) or takes it (a Schur complement). A
    determined variable adds no rank and leaves the determinant of the independent ones as it is.
    """
    matrices = correlation[:, None]
    log_minors = np.zeros((len(correlation), 1))
    rank = np.zeros((len(correlation), 1), np.int8)
    for _ in range(correlation.shape[-1]):
        pivot = matrices[..., 0, 0]
        free = pivot > DETERMINED
        pivot = np.where(free, pivot, 1)
        column, rest = matrices[..., 1:, 0], matrices[..., 1:, 1:]
        scaled = np.where(free, 1 / pivot, 0)[..., None] * column
        matrices = np.concatenate([rest, rest - scaled[..., :, None] * column[..., None, :]], axis=1)
        log_minors = np.concatenate([log_minors, log_minors + np.log(pivot)], axis=1)
        rank = np.concatenate([rank, rank + free], axis=1)
    return log_minors, rank
