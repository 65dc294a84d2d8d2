"""The CIC measures against libraries of the field: dit for discrete distributions, ewstools for early warnings."""

import numpy as np
import pytest

from cic import criticality, information


@pytest.mark.parametrize("shape", [(2, 2), (2, 3, 2), (3, 2, 2, 2)])
@pytest.mark.parametrize("zeros", [0.0, 0.5])
def test_discrete_measures_equal_dit(shape, zeros):
    import dit
    from dit import multivariate

    rng = np.random.default_rng(len(shape))
    for _ in range(5):
        p = rng.exponential(size=shape) * (rng.uniform(size=shape) >= zeros)
        p[(0,) * len(shape)] += 0.1
        p /= p.sum()
        outcomes = [index for index in np.ndindex(shape) if p[index] > 0]
        oracle = dit.Distribution(outcomes, [p[index] for index in outcomes])
        assert information.entropy(p) == pytest.approx(dit.shannon.entropy(oracle), abs=1e-9)
        for measure in ("total_correlation", "dual_total_correlation", "o_information"):
            expected = getattr(multivariate, measure)(oracle)
            assert getattr(information, measure)(p) == pytest.approx(expected, abs=1e-9)


@pytest.mark.filterwarnings("ignore")  # its own, and of the modules that it imports
@pytest.mark.parametrize(("window", "bandwidth"), [(0.5, None), (0.25, None), (0.5, 0.1), (0.4, 0.3)])
def test_early_warning_signals_equal_ewstools(window, bandwidth):
    from ewstools import TimeSeries

    rng = np.random.default_rng(2)
    series = np.cumsum(rng.normal(size=200)) * 0.1 + rng.normal(size=200) * np.linspace(1, 2, 200)
    oracle = TimeSeries(series)
    if bandwidth is not None:
        oracle.detrend(method="Gaussian", bandwidth=bandwidth)
        bandwidth *= 0.25 / 0.675  # theirs is four times the quartile of the kernel, ours its standard deviation
    oracle.compute_var(rolling_window=window)
    oracle.compute_auto(rolling_window=window, lag=1)
    oracle.compute_ktau()
    signals = criticality.early_warning_signals(series, window, bandwidth)
    np.testing.assert_allclose(signals.variance, oracle.ews["variance"].dropna(), rtol=1e-9)
    np.testing.assert_allclose(signals.autocorrelation, oracle.ews["ac1"].dropna(), rtol=1e-9)
    taus = [oracle.ktau["variance"], oracle.ktau["ac1"]]
    assert [signals.tau_variance, signals.tau_autocorrelation] == pytest.approx(taus)
