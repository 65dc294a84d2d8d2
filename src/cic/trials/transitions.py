"""Insight 2 on trial: does the balance dΦ/dt = λ·dH/dt mark a transition, better than the field's own signals?"""

from dataclasses import dataclass

import numpy as np
from scipy.signal import savgol_filter
from scipy.stats import mannwhitneyu

from cic import systems
from cic.criticality import early_warning_signals, kendall_trend, lag1_autocorrelation, uipt_balance
from cic.information import entropy, normalized_entropy_gaussian, total_correlation, total_correlation_gaussian
from cic.trials.intervals import Reading, resampled


@dataclass(frozen=True)
class IsingTrial:
    """Where each signal puts the critical temperature of the Ising model; rows are replicas.

    curves: signal → (replicas, T). errors: signal → the median distance of its estimate from T_c, with an interval.
    `snapshots` as in `systems.Ising`.
    """

    temperatures: np.ndarray
    curves: dict[str, np.ndarray]
    errors: dict[str, Reading]
    snapshots: np.ndarray


def ising_trial(size: int = 32, replicas: int = 16, sweeps: int = 2000, seed: int = 20) -> IsingTrial:
    """Heat an Ising lattice through its transition, and see where each signal puts it.

    Temperature takes the place of time. Φ is the total correlation of the four spins of a square, in bits, H their
    entropy as a share of 4 bits. The field's signals are the peak of the susceptibility L²·var|m|/T and of the lag-1
    autocorrelation of |m|; chance is a temperature drawn from the grid.
    """
    rng = np.random.default_rng(seed)
    temperatures = np.arange(1.5, 3.2001, 0.05)
    lattice = systems.ising(temperatures, size, replicas, sweeps, rng)
    magnetisation = np.abs(lattice.magnetisation).transpose(2, 1, 0)  # (R, T, sweeps)
    squares = lattice.plaquettes.swapaxes(0, 1)
    phi = np.array([[total_correlation(square) for square in replica] for replica in squares])
    disorder = np.array([[entropy(square, normalized=True) for square in replica] for replica in squares])
    step = temperatures[1] - temperatures[0]
    imbalance = np.abs(uipt_balance(phi, disorder, dt=step))
    susceptibility = size**2 * magnetisation.var(axis=2) / temperatures
    autocorrelation = lag1_autocorrelation(magnetisation)
    estimates = {
        "susceptibility": temperatures[susceptibility.argmax(axis=1)],
        "autocorrelation": temperatures[autocorrelation.argmax(axis=1)],
        "smallest imbalance (UIPT)": temperatures[imbalance.argmin(axis=1)],
        "largest imbalance": temperatures[imbalance.argmax(axis=1)],
        "chance": rng.choice(temperatures, 1000),
    }
    errors = {
        name: resampled(np.abs(values - systems.ISING_CRITICAL_TEMPERATURE), np.median, rng)
        for name, values in estimates.items()
    }
    curves = {
        "susceptibility": susceptibility,
        "autocorrelation": autocorrelation,
        "phi": phi,
        "entropy": disorder,
        "imbalance": imbalance,
    }
    return IsingTrial(temperatures, curves, errors, lattice.snapshots)


@dataclass(frozen=True)
class FoldTrial:
    """Series that approach a fold, and series that do not.

    approaching, quiet: (count, length), the mean of the units. auc: signal → the chance that a series that approaches
    scores higher, with an interval.
    """

    approaching: np.ndarray
    quiet: np.ndarray
    auc: dict[str, Reading]


def fold_trial(count: int = 150, length: int = 800, seed: int = 21) -> FoldTrial:
    """Tell series that approach a fold bifurcation from series that do not, before it happens.

    The field's scores are Kendall's τ of the rolling variance and lag-1 autocorrelation of the units' mean, and of the
    units' total correlation. UIPT's are minus the smallest |dΦ/dt − λ·dH/dt| of the rolling windows, as stated, and
    the largest, its inverse; Φ is the total correlation (nats), H the normalised entropy of the units in a window.
    """
    rng = np.random.default_rng(seed)
    approaching, quiet = (systems.fold_series(count, length, approaching, rng) for approaching in (True, False))
    near, far = _fold_scores(approaching), _fold_scores(quiet)
    aucs = {signal: auc(near[signal], far[signal], rng) for signal in near}
    return FoldTrial(approaching.mean(axis=2), quiet.mean(axis=2), aucs)


def _fold_scores(series: np.ndarray, window: float = 0.5) -> dict[str, np.ndarray]:
    """Signal → scores (count,) of series (count, length, units): higher where a transition seems near."""
    series = detrended(series, axis=1)
    signals = early_warning_signals(series.mean(axis=2), window)
    width = round(window * series.shape[1])
    covariances = np.array([_rolling_covariance(units, width) for units in series])
    phi, disorder = total_correlation_gaussian(covariances), normalized_entropy_gaussian(covariances)
    imbalance = np.abs(uipt_balance(phi, disorder))
    return {
        "variance": signals.tau_variance,
        "autocorrelation": signals.tau_autocorrelation,
        "total correlation": kendall_trend(phi),
        "smallest imbalance (UIPT)": -imbalance.min(axis=1),
        "largest imbalance": imbalance.max(axis=1),
    }


def detrended(series: np.ndarray, axis: int = 0) -> np.ndarray:
    """What is left of a series when its drift is taken out."""
    # A local quadratic follows the drift up to the borders, where a Gaussian filter leaves some of it behind.
    return series - savgol_filter(series, round(0.3 * series.shape[axis]) | 1, 2, axis=axis)


def _rolling_covariance(units: np.ndarray, width: int) -> np.ndarray:
    windows = np.lib.stride_tricks.sliding_window_view(units, width, axis=0)  # (windows, units, width)
    centred = windows - windows.mean(axis=2, keepdims=True)
    return centred @ centred.swapaxes(1, 2) / (width - 1)


def auc(positive: np.ndarray, negative: np.ndarray, rng: np.random.Generator, draws: int = 1000) -> Reading:
    """P(a positive scores above a negative), ties counted half (Mann and Whitney 1947), with a bootstrap interval."""

    def value(p: np.ndarray, n: np.ndarray) -> np.ndarray:
        above = mannwhitneyu(p, n, axis=-1, method="asymptotic").statistic  # its exact p-value would take long
        return above / (p.shape[-1] * n.shape[-1])

    drawn = value(rng.choice(positive, (draws, len(positive))), rng.choice(negative, (draws, len(negative))))
    low, high = np.quantile(drawn, (0.025, 0.975))
    return Reading(float(value(positive, negative)), float(low), float(high))
