"""The CIC measures: golden values, libraries of the field, closed forms, brute force, properties, limits, bad input."""

import ast
import itertools
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.linalg import block_diag, hilbert, solve_discrete_lyapunov
from scipy.optimize import minimize_scalar
from scipy.stats import kendalltau, norm

from cic import causality, confidence, consensus, criticality, functional
from cic import information as info
from cic import seed_formulas as seed
from cic.causality import effective_information as effective
from cic.compression import ncd_matrix
from cic.confidence import epistemic_bound as bound
from cic.information import minimum_information_bipartition as bipartition
from cic.information import total_correlation_gaussian as gaussian_tc
from cic.systems import var1_series
from elle.base import yaml_files

few = settings(max_examples=40, deadline=None)
strict = pytest.mark.filterwarnings("error")
seeds, unit = st.integers(0, 2**32 - 1), st.floats(0, 1)
INF, NAN, I2 = float("inf"), float("nan"), np.eye(2)
EQUI = 0.7 * np.eye(5) + 0.3
READ = np.diff(norm.cdf(np.arange(-1, 1.005, 0.01), scale=0.1))
ANSWERS = [100, 100, 103, 104, 7, 7, 7]
VOTES = (consensus.majority_vote, consensus.basin_center, consensus.cluster_then_vote)


def noise(correlation):
    return np.array([[1, correlation], [correlation, 1]])


@strict
@pytest.mark.parametrize(
    ("values", "golden", "digits"),
    [
        (lambda: [f(0.92, 0.31, 0.78) for f in (functional.cic_functional, seed.compute_cic_functional)], 1.022, 3),
        (lambda: functional.cic_functional(np.array([0.2, 0.4]), 0.5, 0.1, lam=0.5, gamma=0.3), [-0.02, 0.18], 12),
        # A bug: the product of two variances under- or overflowed, and noise was judged against the largest variance.
        (lambda: [gaussian_tc(unit * noise(0.6)) for unit in (1, 1e-300, 1e-12, 1e300)], 0.223144, 6),
        (lambda: bipartition(EQUI).value, 0.105036, 6),
        (lambda: gaussian_tc(hilbert(4)), np.log(240), 9),  # its determinant is 1/6,048,000
        (lambda: [info.entropy(p, normalized=True) for p in (np.full((2, 5), 0.1), [0, 1, 0], [1])], [1, 0, 0], 12),
        # The state read to a resolution of 0.01 in 0..1, and what is as uncertain as uniform there.
        (lambda: info.normalized_entropy_gaussian([[0.01]]), info.entropy(READ / READ.sum()) / np.log2(100), 3),
        (lambda: info.normalized_entropy_gaussian([[4 / (2 * np.pi * np.e)]], 0.04, 4), np.log(50) / np.log(100), 12),
        (lambda: causality.causal_emergence([[1 / 3] * 3 + [0]] * 3 + [[0, 0, 0, 1]])[:3], [0.811278, 1, 0.188722], 6),
        (lambda: [effective(P) for P in (np.eye(7)[::-1], np.full((7, 7), 1 / 7))], [np.log2(7), 0], 12),
        # A bug: the mean of a column of the smallest float is 0.
        (lambda: effective([[5e-324, 1], [0, 1]]), 0, 12),
        (lambda: np.abs(np.linalg.eigvals(seed.circulant_self_reference_operator())).max(), 2.259125, 6),
        (lambda: [bound(0.85, 3), seed.apply_epistemic_bounds(0.85, 3)], [0.6297] * 2, 4),
        (lambda: bound(0.9, 1, 2) / bound(0.9, 1), 0.81, 12),
        (lambda: [seed.apply_epistemic_bounds(1, 0, k) for k in (1, 2)], [0.95, 0.7695], 12),  # only for k > 1
        (lambda: [vote(ANSWERS) for vote in VOTES], [7, 101.5, 100], 12),
        (lambda: [len(x) for x in consensus.relative_gap_clusters([100, 106, 0, 0, -1, 1])], [1, 2, 1, 1, 1], 0),
        (lambda: [consensus.cohesion(x) for x in ([1, 2, 3], [-1, 0, 1], [0, 0])], [2 / 3, 0, 1], 12),
        (lambda: [consensus.half_sample_mode(x) for x in ([4], [9, 1, 2], [1, 2, 3])], [4, 1.5, 2], 12),
    ],
)
def test_golden_values(values, golden, digits):
    assert np.abs(np.subtract(values(), golden)).max() <= 0.500001 * 10.0**-digits


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
        assert info.entropy(p) == pytest.approx(dit.shannon.entropy(oracle), abs=1e-9)
        for measure in ("total_correlation", "dual_total_correlation", "o_information"):
            expected = getattr(multivariate, measure)(oracle)
            assert getattr(info, measure)(p) == pytest.approx(expected, abs=1e-9)


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


def random_covariance(rng, n):
    """Variables that share factors, in units of their own: not every best cut is around a single variable."""
    shared = np.eye(3)[rng.integers(0, 3, n)] * rng.uniform(0.3, 3)
    loadings = np.hstack([shared, rng.normal(size=(n, n)) * rng.uniform(0.05, 1), np.eye(n) * 0.3])
    loadings *= 10.0 ** rng.uniform(-3, 3, (n, 1))
    return loadings @ loadings.T


def cut_information(covariance, side):
    """I(A; rest) from three log-determinants."""
    deviations, side = np.sqrt(np.diagonal(covariance)), np.asarray(side, bool)
    R = covariance / np.outer(deviations, deviations)
    inside, outside, whole = (np.linalg.slogdet(R[np.ix_(s, s)])[1] for s in (side, ~side, side | ~side))
    return (inside + outside - whole) / 2


@few
@given(seeds, st.integers(2, 7))
def test_the_bipartition_is_the_least_of_all_and_knows_neither_order_nor_units(number, n):
    rng = np.random.default_rng(number)
    covariance = random_covariance(rng, n)
    cut, total = bipartition(covariance), gaussian_tc(covariance)
    assert total + 1e-9 >= cut.value >= 0
    assert sorted(cut.sides[0] + cut.sides[1]) == list(range(n))
    assert (len(cut.sides[0]) > 0, cut.sides[1][-1]) == (True, n - 1)
    assert cut.value == pytest.approx(cut_information(covariance, cut.partition), abs=1e-9)
    sides = (np.array((True, *rest)) for rest in itertools.product((False, True), repeat=n - 1) if not all(rest))
    assert cut.value == pytest.approx(min(cut_information(covariance, side) for side in sides), abs=1e-9)
    order, units = rng.permutation(n), 10.0 ** rng.uniform(-6, 6, n)
    other = (covariance * np.outer(units, units))[np.ix_(order, order)]
    assert (bipartition(other).value, gaussian_tc(other)) == pytest.approx((cut.value, total), abs=1e-9)
    alone = (np.log(np.diagonal(covariance)) + np.log(2 * np.pi) + 1) / 2
    assert info.entropy_gaussian(covariance) == pytest.approx(alone.sum() - total)


def test_the_bipartition_finds_the_groups_of_many_variables():
    factors = np.repeat(I2, [8, 12], axis=0)
    loadings = np.hstack([factors, np.random.default_rng(20).normal(size=(20, 20)) * 0.1, np.eye(20)])
    assert bipartition(loadings @ loadings.T).sides == (tuple(range(8)), tuple(range(8, 20)))


@pytest.mark.parametrize(("n", "count"), [(1, 4), (4, 12), (14, 40)])  # 14: more than one chunk
def test_a_batch_equals_one_by_one(n, count):
    rng = np.random.default_rng(n)
    ones = [random_covariance(rng, n) for _ in range(count)]
    batch = np.reshape(ones, (2, -1, n, n))
    for measure in (gaussian_tc, info.entropy_gaussian, info.normalized_entropy_gaussian):
        assert measure(batch).ravel() == pytest.approx([measure(one) for one in ones])
    cuts, single = bipartition(batch), [bipartition(one) for one in ones]
    assert cuts.value == pytest.approx(np.reshape([one.value for one in single], (2, -1)), abs=1e-12)
    assert cuts.partition.reshape(-1, n).tolist() == [one.partition.tolist() for one in single]


@strict
@pytest.mark.parametrize(
    ("loadings", "total", "cut"),
    [
        ([[1, 0], [1, 0]], INF, INF),
        ([[1, 0], [0, 1], [1, 1]], INF, INF),  # each is determined by the other two
        ([[1, 0], [2, 0], [0, 1]], INF, 0),
        ([[1, 0], [0.6, 0.8], [1, 0], [0.6, 0.8]], INF, 0.223144),  # two pairs of copies, interleaved
        ([[1, 0, 0], [0, 1, 0], [1, 1, 0], [0.6, 0, 0.8]], INF, 0.223144),
        ([[0, 0], [1, 0], [0.6, 0.8]], 0.223144, 0),  # a constant can be cut off for nothing
        ([[0]], 0, 0),
    ],
)
def test_limits_of_singular_covariances(loadings, total, cut):
    covariance = np.array(loadings, float) @ np.array(loadings, float).T
    assert (gaussian_tc(covariance), bipartition(covariance).value) == pytest.approx((total, cut), abs=1e-6)
    assert (info.entropy_gaussian(covariance), info.normalized_entropy_gaussian(covariance)) == (-INF, 0)


@few
@given(st.integers(1, 5).flatmap(lambda n: hnp.arrays(float, (n, n), elements=st.one_of(st.just(0.0), unit))))
def test_effective_information_and_the_best_of_all_coarse_grainings(weights):
    weights[weights.sum(axis=1) < 1e-300, 0] = 1
    P = weights / weights.sum(axis=1, keepdims=True)
    n, micro, emergence = len(P), effective(P), causality.causal_emergence(P)
    assert 0 <= micro <= np.log2(n) + 1e-9
    assert micro == pytest.approx(info.total_correlation(P / n), abs=1e-9)  # the joint of now and next
    assert (emergence.micro, emergence.gain) == (micro, emergence.macro - micro)
    assert effective(causality.coarse_grain(P, emergence.partition)) == emergence.macro >= micro
    best = 0.0
    for labels in itertools.product(range(n), repeat=n) if n < 5 else ():  # each partition, in every naming
        macro = np.zeros((n, n))
        for i, j in np.ndindex(n, n):
            macro[labels[i], labels[j]] += P[i, j] / labels.count(labels[i])
        used = sorted(set(labels))
        best = max(best, effective(macro[np.ix_(used, used)]))
    assert emergence.macro == pytest.approx(best, abs=1e-9) or n == 5


@pytest.mark.parametrize("sizes", [(3, 1), (3, 1, 1), (2, 3, 1), (11, 1), (5, 1, 6)])
def test_hoels_coarse_graining_also_beyond_the_enumeration(sizes):
    P = block_diag(*[np.full((size, size), 1 / size) for size in sizes])
    emergence = causality.causal_emergence(P)
    assert emergence.partition == tuple(np.repeat(np.arange(len(sizes)), sizes).tolist())
    assert (emergence.macro, emergence.exact) == (pytest.approx(np.log2(len(sizes))), len(P) <= 10)


@pytest.mark.parametrize(("a", "b", "c"), [(0, 0, 1), (0.8, 0.5, 0.4), (-0.5, 0.9, 0.2)])
def test_transfer_entropy_reaches_its_theoretical_value(a, b, c):
    A = np.array([[a, 0], [c, b]])
    x, y = var1_series(A, noise(0.4), 60_000, np.random.default_rng(5)).T
    S = solve_discrete_lyapunov(A, noise(0.4))
    theory = 0.5 * np.log(S[1, 1] - (A @ S)[1, 1] ** 2 / S[1, 1])  # y given its own past; given both it is 1
    assert causality.transfer_entropy_gaussian(x, y) == pytest.approx(theory, abs=0.01)
    assert 0 <= causality.transfer_entropy_gaussian(y, x) < 2e-4


def test_transfer_entropy_is_biased_by_lags_over_2T():
    rng = np.random.default_rng(8)
    values = [causality.transfer_entropy_gaussian(*rng.normal(size=(2, 200)), lags=2) for _ in range(400)]
    assert np.mean(values) == pytest.approx(2 / 400, rel=0.25)  # 5 standard errors


def test_transfer_entropy_has_no_units():
    """A source in small units was dropped by the regression's cut-off: 0 nats instead of 0.35."""
    x, z = np.random.default_rng(1).normal(size=(2, 2000))
    y = np.r_[0, x[:-1]] + z
    values = [causality.transfer_entropy_gaussian(x * u, (y + 1) / u) for u in (1, 1e-16, 1e-3, 1e20)]
    assert values == pytest.approx([0.5 * np.log(2)] * 4, abs=0.05)
    assert np.ptp(values) < 1e-9


@strict
def test_limits_of_transfer_entropy():
    x, te = np.random.default_rng(1).normal(size=50), causality.transfer_entropy_gaussian
    assert (te(x, np.full(50, 0.1)), te(np.full(50, 0.1), x), te(x, np.arange(50.0), lags=2)) == (0, 0, 0)
    assert te(x, np.r_[0, x[:-1]]) == INF


@few
@given(st.lists(st.integers(-9, 9), min_size=2, max_size=30))
def test_kendall_trend(values):
    expected = kendalltau(np.arange(len(values)), values).statistic
    assert criticality.kendall_trend([NAN, *values, NAN]) == pytest.approx(expected, nan_ok=True)


@strict
@pytest.mark.parametrize("constant", [0, 0.1, 1 / 3, 1e-200])
def test_rounding_is_no_signal(constant):
    """The rounding of the mean of a constant had a variance, and an autocorrelation of 1."""
    for n in range(8, 40):
        signs = criticality.early_warning_signals([constant] * n)
        assert not signs.variance.any()
        assert np.isnan([*signs.autocorrelation, signs.tau_variance, signs.tau_autocorrelation]).all()
        assert np.isnan(criticality.lag1_autocorrelation([constant] * n + [5]))
    assert criticality.lag1_autocorrelation(np.arange(5) * 1e-200) == pytest.approx(1)


def test_balance_is_zero_for_what_is_quiet():
    t = np.arange(6.0)
    assert criticality.uipt_balance(t**2, 2 * t, lam=0.5, dt=2)[1:-1] == pytest.approx(t[1:-1] - 0.5)
    assert not criticality.uipt_balance(np.full(5, 0.7), np.full(5, 0.2)).any()


TABLE = {  # the specification's, in thousandths: temperature and order, each from .. to
    "CRYSTALLINE": (0, 300, 700, 1000),
    "SUPERCOOLED": (300, 500, 500, 700),
    "NUCLEATING": (400, 700, 300, 600),
    "ANNEALING": (500, 700, 400, 600),
    "PLASMA": (800, 1000, 0, 300),
}


@settings(max_examples=200, deadline=None)
@given(*[st.integers(0, 1000)] * 4)
def test_every_state_has_one_phase_that_agrees_with_the_table(t, o, before_t, before_o):
    far = {n: np.hypot(max(a - t, t - b, 0), max(c - o, o - d, 0)) for n, (a, b, c, d) in TABLE.items()}
    alone = criticality.classify_phase(t / 1000, o / 1000)
    assert alone != "ANNEALING"
    assert far[alone] == min(far.values())  # 0 inside a box, so where there is one box only, it is that one's
    later = criticality.classify_phase(t / 1000, o / 1000, (before_t / 1000, before_o / 1000))
    settles = alone == "NUCLEATING" and far["ANNEALING"] == far[alone] and before_t - before_o > t - o
    assert later == ("ANNEALING" if settles else alone)


@strict
def test_landau_exponents_and_the_minimum_of_the_energy():
    landau, x = criticality.LandauFreeEnergy(a=2, b=3), np.logspace(-6, -2, 9)
    Tc, chi = landau.critical_temperature, landau.susceptibility
    for exponent, y in ((1 / 2, landau.order_parameter(Tc - x)), (-1, chi(Tc + x))):
        assert np.polyfit(np.log(x), np.log(y), 1)[0] == pytest.approx(exponent)
    assert chi(Tc + x) / chi(Tc - x) == pytest.approx(2)
    assert chi(Tc) == INF  # it was −∞, of 1/(−0.0)
    assert landau.order_parameter(Tc) == landau.order_parameter(1) == 0

    def minimum(T, h):
        return minimize_scalar(lambda psi: landau.energy(psi, T, h), bounds=(0, 3), options={"xatol": 1e-9}).x

    for T in (0.2, 1.0):
        assert minimum(T, 0) == pytest.approx(landau.order_parameter(T), abs=1e-5)
        assert (minimum(T, 1e-3) - minimum(T, 0)) / 1e-3 == pytest.approx(chi(T), rel=0.02)


answers = st.lists(st.integers(-300, 300), min_size=1, max_size=12)


@few
@given(answers, seeds, st.integers(-40, 40), st.sampled_from([0.05, 0.3]))
def test_clusters_are_the_components_and_know_neither_order_nor_scale(values, number, power, gap):
    clusters = [cluster.tolist() for cluster in consensus.relative_gap_clusters(values, gap)]
    assert list(itertools.chain(*clusters)) == sorted(values)  # every value in exactly one
    near = {(a, b) for a in values for b in values if a == b or abs(a - b) < gap * max(abs(a), abs(b))}
    assert all((a, b) in near for cluster in clusters for a, b in itertools.pairwise(cluster))
    assert not any((a, b) in near for x, y in itertools.combinations(clusters, 2) for a in x for b in y)
    scaled = np.random.default_rng(number).permutation(values) * 2.0**power
    assert [(cluster / 2.0**power).tolist() for cluster in consensus.relative_gap_clusters(scaled, gap)] == clusters
    for answer in (consensus.basin_center, consensus.cluster_then_vote):
        assert answer(scaled) == answer(values) * 2.0**power
    assert consensus.cluster_then_vote(values) in values
    assert consensus.majority_vote(values) == max(values, key=values.count)
    assert len(consensus.best_cluster(values, gap)) == max(map(len, clusters))
    assert 0 <= consensus.cohesion(values) <= 1


@few
@given(answers, st.integers(-10, 10), st.integers(-1000, 1000))
def test_half_sample_mode_moves_with_the_values(values, power, shift):
    mode = consensus.half_sample_mode(values)
    assert min(values) <= mode <= max(values)
    assert consensus.half_sample_mode(np.array(values) * 2.0**power + shift) == mode * 2.0**power + shift


@few
@given(unit, st.floats(0, 100), st.floats(0, 100), st.integers(0, 9), st.floats(0, 0.95))
def test_the_bound_decays_to_the_base_rate_and_composes(value, months, more, steps, p0):
    start, once = bound(value, 0, base_rate=p0), bound(value, months, steps, p0)
    assert start == pytest.approx(min(value, 0.95)) == bound(start, 0, base_rate=p0)
    assert 0 <= once <= 0.95
    assert bound(once, more, base_rate=p0) == pytest.approx(bound(value, months + more, steps, p0), abs=1e-12)
    assert abs(bound(value, months + more, steps, p0) - p0) <= abs(once - p0) + 1e-12
    assert bound(value, 1e6, base_rate=p0) == pytest.approx(p0)
    assert bound(np.array([value]), [months, more]).shape == (2,)


def test_brier_score_and_calibration():
    brier, ece = confidence.brier_score, confidence.expected_calibration_error
    assert [brier([1, 0], [1, 0]), brier([0.5, 0.5], [True, False]), brier(0.8, 1)] == pytest.approx([0, 0.25, 0.04])
    assert [ece([0.8] * 10, [1] * 8 + [0] * 2), ece([0.95] * 10, [0] * 10)] == pytest.approx([0, 0.95])
    assert ece([1, 0.95], [0, 1]) == pytest.approx(0.475)  # 1 is in the last bin
    c, o = np.random.default_rng(0).uniform(size=300), np.random.default_rng(1).integers(0, 2, 300)
    groups = [(k / 5 <= c) & (c < (k + 1) / 5) for k in range(5)]
    assert ece(c, o, bins=5) == pytest.approx(sum(g.mean() * abs(c[g].mean() - o[g].mean()) for g in groups))
    assert ece(c, o, bins=1) == pytest.approx(abs(c.mean() - o.mean()))


def ncd(x, y, compressor="lzma"):
    return ncd_matrix([x, y], compressor)[0, 1]


def test_compression_distance():
    text = " ".join(f"Step {i}: take {i * i} from {1000 - 7 * i}; {1000 - 7 * i - i * i} are left." for i in range(9))
    prose = "Nine herring boats had gone out, and here were eight; nobody on the quay said a word."
    data = np.random.default_rng(0).bytes(40_000)
    assert ncd(text, text) <= 0.05
    assert ncd("", "") == 0
    assert ncd(data, data) == pytest.approx(0.015, abs=5e-4)
    assert abs(ncd(text, prose) - ncd(prose, text)) <= 0.05
    assert ncd(text, text.replace("Step", "Stage")) < 0.4 < 0.8 < ncd(text, prose)
    numbers = np.random.default_rng(0).integers(10_000, 100_000, 20).astype(str).tolist()
    pairs = ncd_matrix(numbers, "xz")[np.triu_indices(20, 1)]
    assert np.mean(pairs == 4 / 64) > 0.95  # the container's padding


@few
@given(st.lists(unit, min_size=1, max_size=15), st.lists(st.floats(-1, 1), max_size=6), st.floats(-10, 10), seeds)
def test_seed_formulas_as_the_specification_has_them(r, trends, tone, nuclei):
    n, mean = len(r), sum(r) / len(r)
    var = sum((x - mean) ** 2 for x in r) / n
    phi = (1 - var) * sum(i * x for i, x in enumerate(sorted(r))) / (n * max(r) + 0.001)
    assert seed.compute_integrated_information(r, clip=False) == pytest.approx(phi)
    assert seed.compute_integrated_information(r) == pytest.approx(np.clip(phi, 0, 1))
    H = -sum(p * np.log(p + 0.001) for p in (x / (sum(r) + 0.001) for x in r) if p > 0) / np.log(n + 1)
    assert seed.compute_entropy(r) == pytest.approx(np.clip(H, 0, 1), abs=1e-12)
    steady = 1 - sum(map(abs, trends)) / (len(trends) + 0.001)
    C = np.clip(0.6 * steady + 0.4 * np.clip(tone / 10 + 0.5, 0, 1), 0, 1) if trends else 0.5
    assert seed.compute_causality(trends, tone) == pytest.approx(C)
    T, order = seed.temperature_and_order(r)
    assert (T, order) == pytest.approx((2 * var * (2 - mean), 1 - mean), abs=1e-12)
    assert T < 0.77  # so PLASMA, which wants 0.8, cannot occur
    assert seed.calculate_phase(T, order, nuclei) != "PLASMA"
    assert seed.find_basin_center(r) == np.median(r)  # the symmetric trimming changes nothing


# Bad input

BAD = yaml_files.read_yaml(Path(__file__).parent / "fixtures" / "measures.yaml")
NUMBERS, TRANSITIONS = BAD["numbers"], BAD["transitions"]
for kind in ("numbers", "matrices"):  # YAML has no complex numbers; what builds on these has them, too
    BAD[kind]["real numbers"].append(1j * I2)
NINE, LANDAU = np.arange(9.0), criticality.LandauFreeEnergy()
warnings_of, phase = criticality.early_warning_signals, criticality.classify_phase


def of(function, *before):
    """`function` of several arguments."""
    return lambda x: function(*before, *x)


@strict
@pytest.mark.parametrize(
    ("measures", "inputs"),
    [
        ([info.entropy_gaussian, info.normalized_entropy_gaussian, gaussian_tc, bipartition], BAD["covariances"]),
        ([bipartition], {"at most 20 variables": [np.eye(21)]}),
        ([of(info.normalized_entropy_gaussian, I2)], {"resolution": [(1, 1), (-1, 1), (0.1, INF)]}),
        ([info.entropy, info.total_correlation, info.dual_total_correlation, info.o_information], BAD["distributions"]),
        ([effective, causality.causal_emergence], TRANSITIONS),
        ([lambda x: causality.coarse_grain(x, [0, 1])], TRANSITIONS),
        ([lambda x: causality.coarse_grain(I2, x)], NUMBERS | {"macro-states": [[0, 2], [0, 0.9], [0]]}),
        ([lambda x: causality.transfer_entropy_gaussian(x, NINE)], NUMBERS | {"one length": [NINE[1:]]}),
        ([lambda x: causality.transfer_entropy_gaussian(NINE, NINE, x)], {"need": [0], "above 10": [2]}),
        ([criticality.lag1_autocorrelation], NUMBERS | {"at least 3": [[1, 2], 5]}),
        ([warnings_of], NUMBERS | {"at least 8": [NINE[:7], 5]}),
        ([of(warnings_of, NINE)], {"window": [(x,) for x in (0, 0.1, 2, NAN, INF)]}),
        ([of(warnings_of, NINE, 1)], {"bandwidth": [(x,) for x in (0, -1, 2, NAN)]}),
        ([criticality.kendall_trend], {"1 axis": [5], "string": [["a"]]}),
        ([lambda x: criticality.uipt_balance(x, x)], NUMBERS | {"at least 2": [[1]]}),
        ([of(criticality.uipt_balance, NINE, NINE)], {"NaN": [(NAN,)], "dt": [(1, 0), (1, INF), (1, NAN)]}),
        ([of(phase), lambda x: phase(0.5, 0.5, x)], BAD["phases"]),
        ([lambda x: phase(0.5, 0.5, x)], {"pair": [0.5, [0.5], "ab"]}),
        ([of(criticality.LandauFreeEnergy)], {"above 0": [(0,), (1, -1)], "NaN or inf": [(1, 1, NAN), (INF,)]}),
        ([lambda x: LANDAU.energy(x, 0), lambda x: LANDAU.energy(0, x), lambda x: LANDAU.energy(0, 0, x)], NUMBERS),
        ([consensus.cohesion, consensus.half_sample_mode, *VOTES], NUMBERS | {"1 axes": [[[1]]]}),
        ([lambda x: consensus.best_cluster([1], x)], {"gap": [0, 1, NAN]}),
        ([lambda x: bound(x, 0)], NUMBERS | {"0..1": [1.1, -0.1]}),
        ([lambda x: bound(1, x), lambda x: bound(1, 1, x)], NUMBERS | {"not be negative": [-1]}),
        ([lambda x: bound(1, 1, base_rate=x)], {"base rate": [-0.1, 0.96, NAN]}),
        ([of(confidence.brier_score), of(confidence.expected_calibration_error)], BAD["judged"]),
        ([lambda x: confidence.expected_calibration_error([1], [1], x)], {"bin": [0, NAN]}),
        ([lambda x: ncd("a", x), lambda x: ncd(x, "a")], {"NCD compares text or bytes": [5, None, [b"a"]]}),
        ([of(ncd, "a", "b")], {"unknown compressor": [("zip",)]}),
    ],
)
def test_bad_input_is_named(measures, inputs):
    for measure, (message, values) in itertools.product(measures, inputs.items()):
        for value in values:
            with pytest.raises(ValueError, match=message):
                measure(value)


def test_the_framework_stands_on_numpy_and_scipy_alone_and_the_documents_formulas_stand_apart():
    for path in sorted(Path(info.__file__).parent.rglob("*.py")):
        nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        imports = [(getattr(n, "module", None), n.names) for n in nodes if isinstance(n, ast.Import | ast.ImportFrom)]
        names = {f"{module or ''}.{alias.name}".strip(".") for module, aliases in imports for alias in aliases}
        assert {name.partition(".")[0] for name in names} <= {"numpy", "scipy", "cic", *sys.stdlib_module_names}, path
        if path.name != "documents.py":  # the trial of the documents' own figures
            assert not any("seed_formulas" in name for name in names), path
