"""Integration: how much a system's parts know of one another.

Discrete measures take a joint distribution with one axis a variable and answer in bits; Gaussian ones take a covariance
and answer in nats (1 nat = 1.442695 bits). None of them sees more than the distribution that it is given: an estimate
from few samples is biased upwards.
"""

from typing import NamedTuple

import numpy as np

from cic import _checks

#: A variable whose variance, given others, is below this share of its own counts as determined by them: float64 cannot
#: tell such a dependence from an exact one.
DETERMINED = 1e-12
#: Bipartitions are enumerated up to this many variables; Queyranne's algorithm, exact as well, takes over beyond.
ENUMERATED = 16


# Discrete


def entropy(p, base: float = 2.0, normalized: bool = False) -> float:
    """Shannon entropy, H = −Σ p·log p (Shannon 1948), of a distribution of any shape.

    Args:
        p: probabilities; a joint distribution is taken as a whole.
        base: of the logarithm: 2 for bits, e for nats.
        normalized: divide by log(number of states): 1 for the uniform distribution, 0 for a point mass (and for a
            single state).

    Raises:
        ValueError: `p` is empty, not finite, negative or does not sum to one; or the base is not above 1.
    """
    p = _checks.distribution(p)
    if not 1 < base < np.inf:
        raise ValueError(f"the base of the logarithm must be above 1, not {base}")
    positive = p[p > 0]
    nats = max(0.0, -float((positive * np.log(positive)).sum()))
    if normalized:
        return min(1.0, nats / np.log(p.size)) if p.size > 1 else 0.0
    return nats / np.log(base)


def total_correlation(p) -> float:
    """Total correlation in bits, TC = Σ H(Xᵢ) − H(X) (Watanabe 1960); ≥ 0, and 0 only for independent variables.

    Args:
        p: joint distribution, one axis a variable.

    Raises:
        ValueError: as `entropy`.
    """
    p = _checks.distribution(p)
    marginals = sum(entropy(p.sum(axis=_others(p.ndim, i))) for i in range(p.ndim))
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


def empirical_distribution(states, levels: int) -> np.ndarray:
    """The joint distribution of observed states: relative frequencies (the plug-in estimate, biased for few samples).

    Args:
        states: integers 0..levels − 1, shape (samples, variables).

    Returns:
        Probabilities, shape (levels,) * variables.

    Raises:
        ValueError: no samples, or a state that is no integer of 0..levels − 1.
    """
    states = _checks.finite(states, "the states", 2)
    if states.min() < 0 or states.max() >= levels or (states % 1).any():
        raise ValueError(f"states must be integers 0..{levels - 1}, not {states.min():g}..{states.max():g}")
    states = states.astype(int)
    shape = (levels,) * states.shape[1]
    counts = np.bincount(np.ravel_multi_index(tuple(states.T), shape), minlength=levels ** states.shape[1])
    return counts.reshape(shape) / len(states)


def _others(ndim: int, kept: int) -> tuple[int, ...]:
    return tuple(axis for axis in range(ndim) if axis != kept)


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
    """Gaussian entropy against a stated reference, 0..1: how much of the state space, in logarithms, it wanders over.

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
    """A cut in two. value: nats, shape (...); partition: bool, shape (..., n), True on the side without the last."""

    value: float | np.ndarray
    partition: np.ndarray

    @property
    def sides(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The variables on each side; of a single cut only, not of a batch."""
        return tuple(tuple(np.flatnonzero(self.partition == side).tolist()) for side in (True, False))


def minimum_information_bipartition(covariance) -> Bipartition:
    """The cut in two parts that loses least: the minimum over bipartitions of the mutual information I(A; B), in nats.

    The measure of integration used here for Φ: zero as soon as some part is independent of the rest, unlike the total
    correlation, and without the double counting of a sum of pairwise terms. It is not normalised by the parts' sizes,
    so that it often cuts off a single variable. Exact. Up to 16 variables all bipartitions
    are compared, by all principal minors at once (Griffin and Tsatsomeros 2006), over a batch if there is one. Beyond,
    by Queyranne's algorithm (1998), of O(n³) determinants: entropy is submodular, so I(A; rest) is a symmetric
    submodular function of A (Hidaka and Oizumi 2018).

    Limits: a constant can be cut off for nothing (0); ∞ where every cut severs an exact dependence; n = 1 has nothing
    to cut (0, with itself on one side).

    Args:
        covariance: shape (..., n, n); a batch only up to 16 variables.

    Raises:
        ValueError: not a covariance; a batch or a singular covariance of more than 16 variables.
    """
    correlation, eigenvalues = _correlation(_checks.covariance(covariance))
    n = correlation.shape[-1]
    if n > ENUMERATED:
        if correlation.ndim > 2:
            raise ValueError(f"a batch is for at most {ENUMERATED} variables, not {n}: pass one covariance at a time")
        if eigenvalues.min() <= DETERMINED:
            raise ValueError("this covariance is singular: leave out variables that others determine")
        return _queyranne(correlation)
    if n == 1:
        return Bipartition(_scalar(np.zeros(correlation.shape[:-2])), np.ones(correlation.shape[:-1], bool))
    batch = correlation.reshape(-1, n, n)
    step = max(1, 2**19 >> n)  # keeps the tables of a chunk in the processor's cache
    found = [_cheapest_cut(batch[start : start + step]) for start in range(0, len(batch), step)]
    value = np.concatenate([value for value, _ in found]).reshape(correlation.shape[:-2])
    index = np.concatenate([index for _, index in found])
    partition = (index[:, None] >> np.arange(n)) & 1 == 1
    return Bipartition(_scalar(value), partition.reshape(correlation.shape[:-1]))


def stochastic_interaction(A, Q) -> float:
    """Stochastic interaction in nats of a stationary VAR(1), x(t) = A·x(t−1) + e, e ~ N(0, Q) (Ay 2015).

    SI = Σ H(xᵢ(t) | xᵢ(t−1)) − H(x(t) | x(t−1)), over the system's n single variables; ≥ 0. Correlated noise counts
    as interaction, by its definition.

    Raises:
        ValueError: A is not square or not stable (spectral radius < 1), Q is not positive definite or of another size.
    """
    _, alone, noise = _var1(A, Q)
    return float(max(0.0, 0.5 * (np.log(alone).sum() - noise)))


def whole_minus_sum_phi(A, Q) -> float:
    """Whole-minus-sum Φ in nats of a stationary VAR(1) (Barrett and Seth 2011), over its n single variables.

    Φ = I(x(t−1); x(t)) − Σ I(xᵢ(t−1); xᵢ(t)). Barrett and Seth minimise over bipartitions; for n = 2 the two agree.
    It can be negative (redundancy between the parts is subtracted more than once), a known defect as a measure of
    integration.

    Raises:
        ValueError: as `stochastic_interaction`.
    """
    covariance, alone, noise = _var1(A, Q)
    whole = 0.5 * (np.linalg.slogdet(covariance)[1] - noise)
    return float(whole - 0.5 * np.log(np.diagonal(covariance) / alone).sum())


def stationary_covariance(A, Q) -> np.ndarray:
    """The covariance Σ = A·Σ·Aᵀ + Q that a VAR(1) settles at.

    Raises:
        ValueError: as `stochastic_interaction`.
    """
    return _var1(A, Q)[0]


def _var1(A, Q) -> tuple[np.ndarray, np.ndarray, float]:
    """Stationary covariance; each variable's variance given its own past; ln det Q."""
    A, Q = _checks.square(A, "A"), _checks.covariance(_checks.square(Q, "Q"), "Q")
    if A.shape != Q.shape:
        raise ValueError(f"A and Q must be of one size, not {A.shape} and {Q.shape}")
    radius = float(np.abs(np.linalg.eigvals(A)).max())
    if radius >= 1:
        raise ValueError(f"the process is not stationary: A has spectral radius {radius:.6g}, and must be below 1")
    if np.diagonal(Q).min() == 0 or _correlation(Q)[1].min() <= DETERMINED:  # whatever the units
        raise ValueError("Q must be positive definite: every variable needs noise of its own")
    covariance, power = Q, A
    for _ in range(60):  # Σ Aᵏ·Q·(Aᵏ)ᵀ by doubling (Smith 1968): no matrix to invert, so no scale of units matters
        covariance, power = covariance + power @ covariance @ power.T, power @ power
    variances = np.diagonal(covariance)
    lagged = np.diagonal(A @ covariance)
    # Never below the noise: what rounding would have it near the edge of stability.
    alone = np.maximum(variances - lagged * (lagged / variances), np.diagonal(Q))
    return covariance, alone, float(np.linalg.slogdet(Q)[1])


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


def _queyranne(correlation: np.ndarray) -> Bipartition:
    """Minimise the symmetric submodular I(A; rest) by merging pendant pairs (Queyranne 1998)."""
    n = len(correlation)
    whole = np.linalg.slogdet(correlation)[1]

    def loss(side: list[int]) -> float:
        inside = np.zeros(n, bool)
        inside[side] = True
        parts = (correlation[np.ix_(part, part)] for part in (inside, ~inside))
        return 0.5 * (sum(np.linalg.slogdet(part)[1] for part in parts) - whole)

    groups = [[i] for i in range(n)]
    best, cut = np.inf, groups[0]
    while len(groups) > 1:
        alone = [loss(group) for group in groups]
        order, left = [0], list(range(1, len(groups)))
        while left:
            taken = [i for place in order for i in groups[place]]
            following = min(left, key=lambda place: loss(taken + groups[place]) - alone[place])
            order.append(following)
            left.remove(following)
        # The last one taken, against all others, is a best cut among those that part it from the one before.
        before, last = order[-2], order[-1]
        if alone[last] < best:
            best, cut = alone[last], groups[last]
        merged = groups[before] + groups[last]
        groups = [group for place, group in enumerate(groups) if place not in (before, last)] + [merged]
    partition = np.zeros(n, bool)
    partition[cut] = True
    return Bipartition(max(best, 0.0), partition if not partition[-1] else ~partition)
