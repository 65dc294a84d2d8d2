"""Transitions: phases, the framework's balance, the field's early-warning signals, and Landau's mean-field theory."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from cic import _checks
from cic.functional import LAMBDA

#: The source plans' phase table: temperature and order, each from .. to.
PHASES = {
    "CRYSTALLINE": ((0.0, 0.3), (0.7, 1.0)),
    "SUPERCOOLED": ((0.3, 0.5), (0.5, 0.7)),
    "NUCLEATING": ((0.4, 0.7), (0.3, 0.6)),
    "PLASMA": ((0.8, 1.0), (0.0, 0.3)),
    "ANNEALING": ((0.5, 0.7), (0.4, 0.6)),
}
_BOXES = {name: np.array(box).T for name, box in PHASES.items()}  # rows: low corner, high corner
# ANNEALING's box lies wholly inside NUCLEATING's, so only history tells them apart.
_PLACED = tuple(name for name in PHASES if name != "ANNEALING")


def classify_phase(temperature, order, previous=None):
    """The phase of a state: every point of the unit square has exactly one.

    1. A point has the phase of the box that it lies in (the source plans' table), or of the nearest one (Euclidean).
    2. Where SUPERCOOLED and NUCLEATING overlap, the box whose centre is nearer, in half-widths, has it.
    3. NUCLEATING becomes ANNEALING where ANNEALING's box is as near and the system comes from disorder: `previous` had
       a higher temperature − order (hotter, or less ordered, on balance). Without a history it is NUCLEATING, a
       transition under way.

    Args:
        temperature, order: 0..1, numbers or arrays of one shape.
        previous: (temperature, order) of the state before, each 0..1; None if there is none.

    Returns:
        A name of `PHASES`, or an array of names.

    Raises:
        ValueError: a value outside 0..1, NaN, or empty input.
    """
    temperature, order = np.broadcast_arrays(
        _checks.unit_interval(temperature, "the temperature"), _checks.unit_interval(order, "the order")
    )
    point = np.stack([temperature, order], axis=-1)
    distance = {
        name: np.linalg.norm(np.maximum(np.maximum(low - point, point - high), 0), axis=-1)
        for name, (low, high) in _BOXES.items()
    }
    nearest = np.min(list(distance.values()), axis=0)
    at_hand = {name: d <= nearest + 1e-12 for name, d in distance.items()}
    off_centre = np.stack(
        [
            np.where(
                at_hand[name], np.abs((point - _BOXES[name].mean(axis=0)) / np.ptp(_BOXES[name], axis=0)).max(-1), 9
            )
            for name in _PLACED
        ]
    )
    phase = np.array(_PLACED)[off_centre.argmin(axis=0)]
    if previous is not None:
        if np.shape(previous)[:1] != (2,):
            raise ValueError("previous must be a pair, (temperature, order) of the state before")
        before = [
            _checks.unit_interval(value, f"the previous {n}")
            for value, n in zip(previous, ("temperature", "order"), strict=True)
        ]
        from_disorder = before[0] - before[1] > temperature - order + 1e-12
        phase = np.where((phase == "NUCLEATING") & at_hand["ANNEALING"] & from_disorder, "ANNEALING", phase)
    return phase if phase.ndim else str(phase)


def uipt_balance(phi, entropy, lam: float = LAMBDA, dt: float = 1.0) -> np.ndarray:
    """dΦ/dt − λ·dH/dt along a series, by central differences; in units of Φ per unit of `dt`.

    The framework's criterion calls it a transition where this is zero, which is where Φ − λ·H is stationary: every
    quiet system satisfies it.

    Args:
        phi, entropy: series of one shape (..., n), n ≥ 2.

    Raises:
        ValueError: of different shapes, shorter than 2, NaN, or dt not above 0.
    """
    phi, entropy = _checks.finite(phi, "phi"), _checks.finite(entropy, "entropy")
    lam = float(_checks.finite(lam, "lam", 0))
    if phi.shape != entropy.shape or phi.ndim == 0 or phi.shape[-1] < 2 or not 0 < dt < np.inf:
        raise ValueError(
            f"need two series of one length, at least 2, and dt > 0, not {phi.shape}, {entropy.shape}, {dt}"
        )
    return np.gradient(phi - lam * entropy, dt, axis=-1)


class EarlyWarning(NamedTuple):
    """Variance and lag-1 autocorrelation in each window, (..., windows); Kendall's τ of both against time, (...)."""

    variance: np.ndarray
    autocorrelation: np.ndarray
    tau_variance: float | np.ndarray
    tau_autocorrelation: float | np.ndarray


def early_warning_signals(series, window: float = 0.5, bandwidth: float | None = None) -> EarlyWarning:
    """Signs of a system losing its stability: variance and autocorrelation that rise (Scheffer 2009, Dakos 2012).

    Args:
        series: shape (..., n): at least 8 values, evenly spaced in time.
        window: length of the rolling window, as a share of the series.
        bandwidth: detrend first by a Gaussian filter of this standard deviation, as a share of the series; None: the
            series has no trend.

    Returns:
        τ is 1 where a signal always rises, −1 where it always falls, about 0 without a trend, and nan where it never
        changes (windows of a constant have variance 0 and no autocorrelation).

    Raises:
        ValueError: fewer than 8 values, NaN, a window outside 0..1 or of fewer than 4 values, or a bandwidth outside
            0..1.
    """
    series = _checks.finite(series, "the series")
    length = series.shape[-1] if series.ndim else 1
    if length < 8:
        raise ValueError(f"need at least 8 values, not {length}")
    if not 0 < window <= 1 or (width := round(window * length)) < 4:
        raise ValueError(f"a window of {window} of {length} values: need window ≤ 1, and at least 4 values in it")
    if bandwidth is not None:
        if not 0 < bandwidth <= 1:
            raise ValueError(f"the bandwidth must lie in 0..1, not {bandwidth}")
        from scipy.ndimage import gaussian_filter1d  # here: reading a prompt loads this module, and does not need it

        series = series - gaussian_filter1d(series, bandwidth * length)
    windows = np.lib.stride_tricks.sliding_window_view(series, width, axis=-1)
    variance = np.where(np.ptp(windows, axis=-1) > 0, windows.var(axis=-1, ddof=1), 0)  # no rounding for a constant
    autocorrelation = lag1_autocorrelation(windows)
    return EarlyWarning(variance, autocorrelation, kendall_trend(variance), kendall_trend(autocorrelation))


def lag1_autocorrelation(series) -> float | np.ndarray:
    """Pearson's correlation of a series with itself one step later: an estimate of φ for an AR(1) process.

    Args:
        series: shape (..., n), n ≥ 3. A constant gives nan, and so does a series constant but for one end.

    Raises:
        ValueError: fewer than 3 values, or NaN.
    """
    series = _checks.finite(series, "the series")
    if series.ndim == 0 or series.shape[-1] < 3:
        raise ValueError("need at least 3 values")
    now, after = series[..., :-1], series[..., 1:]
    spans = [np.ptp(part, axis=-1, keepdims=True) for part in (now, after)]
    # In units of the span: neither rounding nor underflow decides what is constant.
    now, after = (
        (part - part.mean(axis=-1, keepdims=True)) / np.where(span > 0, span, 1)
        for part, span in zip((now, after), spans, strict=True)
    )
    changes = (spans[0] > 0)[..., 0] & (spans[1] > 0)[..., 0]
    scale = np.where(changes, np.sqrt((now**2).sum(axis=-1) * (after**2).sum(axis=-1)), 1)
    value = np.where(changes, (now * after).sum(axis=-1) / scale, np.nan)
    return value if value.ndim else float(value)


def kendall_trend(series) -> float | np.ndarray:
    """Kendall's τ_b of a series against time, −1..1; values that are nan are left out; nan if nothing changes.

    All pairs are compared, one distance in time after the other, for a whole batch of series at once.

    Args:
        series: shape (..., n).

    Raises:
        ValueError: a single number.
    """
    series = np.asarray(series, dtype=float)
    if series.ndim == 0:
        raise ValueError("the series must have at least 1 axis, not be a single number")
    score = np.zeros(series.shape[:-1])
    untied = np.zeros(series.shape[:-1])
    for distance in range(1, series.shape[-1]):
        signs = np.nan_to_num(np.sign(series[..., distance:] - series[..., :-distance]))  # nan where a value is
        score += signs.sum(axis=-1)
        untied += np.abs(signs).sum(axis=-1)
    known = (~np.isnan(series)).sum(axis=-1)
    with np.errstate(invalid="ignore"):  # time has no ties
        value = score / np.sqrt(known * (known - 1) / 2 * untied)
    return value if value.ndim else float(value)


@dataclass(frozen=True)
class LandauFreeEnergy:
    """Landau's expansion of the free energy, f(ψ) = ½·a·(T − T_c)·ψ² + ¼·b·ψ⁴ − h·ψ (Landau 1937).

    Mean-field exponents follow: β = ½, γ = 1. T_c = 0.7632 is the source plans' threshold.

    Raises:
        ValueError: a or b not above 0; anything NaN, infinite or empty.
    """

    a: float = 1.0
    b: float = 1.0
    critical_temperature: float = 0.7632

    def __post_init__(self) -> None:
        for name in ("a", "b", "critical_temperature"):
            _checks.finite(getattr(self, name), name, 0)
        if not (self.a > 0 and self.b > 0):
            raise ValueError(f"a and b must be above 0, not {self.a} and {self.b}: else the energy has no minimum")

    def energy(self, psi, temperature, field: float = 0.0):
        """f(ψ), for numbers or arrays."""
        psi, field = _checks.finite(psi, "psi"), _checks.finite(field, "the field")
        quadratic = 0.5 * self.a * (_checks.finite(temperature, "the temperature") - self.critical_temperature)
        return quadratic * psi**2 + 0.25 * self.b * psi**4 - field * psi

    def order_parameter(self, temperature):
        """ψ = √(a·(T_c − T)/b) below T_c, 0 above: the non-negative minimum without a field."""
        below = np.maximum(self.critical_temperature - _checks.finite(temperature, "the temperature"), 0)
        return np.sqrt(self.a * below / self.b)[()]

    def susceptibility(self, temperature):
        """χ = 1/[a(T − T_c)] above T_c, 1/[2a(T_c − T)] below, ∞ at T_c."""
        distance = _checks.finite(temperature, "the temperature") - self.critical_temperature
        with np.errstate(divide="ignore", over="ignore"):
            return (1 / (self.a * np.where(distance > 0, distance, 2 * np.abs(distance))))[()]
