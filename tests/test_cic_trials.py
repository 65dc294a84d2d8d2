"""The trials find what is true of the claims, at small sizes; the same seed finds the same."""

import json

import numpy as np
import pytest
from click.testing import CliRunner
from scipy.special import ellipk

from cic import analogues, claims, systems
from cic.trials import documents, transitions, votes
from helpers import cli

VERDICTS = {
    "definition": "functional basin-center cap",
    "reproduced": "mu decay",
    "conditional": "error-reduction ncd-traces",
    "unfalsifiable": "existence",
    "not reproduced": "functional-example computes phi uipt-ising uipt-fold uipt-data ncd-answers overconfidence "
    "phase-table phases-in-data critical-temperature historical",
}


@pytest.fixture(scope="module")
def ledger():
    """Claim → its outcome, by the smaller experiments."""
    progress = []
    outcomes = claims.run(fast=True, progress=lambda done, total: progress.append((done, total)))
    assert progress == [(k, len(outcomes)) for k in range(1, len(outcomes) + 1)]
    return {outcome.claim.name: outcome for outcome in outcomes}


def test_every_claim_gets_the_verdict_that_its_figures_give_and_they_are_json(ledger):
    verdicts = {name: verdict for verdict, names in VERDICTS.items() for name in names.split()}
    assert {name: str(outcome.finding.status) for name, outcome in ledger.items()} == verdicts
    assert {outcome.claim.insight for outcome in ledger.values()} == set(range(1, 9))
    for row in json.loads(json.dumps([outcome.to_json() for outcome in ledger.values()], allow_nan=False)):
        assert row["measured"]
        assert row["prediction"]
        assert isinstance(row["value"], int | float)
        assert row["low"] is None or row["low"] <= row["value"] <= row["high"]
        assert isinstance(row["seed"], int)


def test_the_same_figures_every_time(ledger):
    names = ["uipt-fold", "error-reduction", "basin-center", "historical", "ncd-traces"]
    for cached in (claims._generator, claims._votes, claims._traces):
        cached.cache_clear()
    for outcome in claims.run(names, fast=True):
        assert outcome.to_json() | {"seconds": 0} == ledger[outcome.claim.name].to_json() | {"seconds": 0}


def test_the_command_prints_the_ledger():
    printed = CliRunner().invoke(cli.cli, ["claims", "mu", "decay", "--fast"]).output
    assert all(text in printed for text in ("mu: reproduced", "2.259125", "2 reproduced")), printed
    rows = json.loads(CliRunner().invoke(cli.cli, ["claims", "existence", "--json"]).output)
    assert [(row["claim"], row["status"]) for row in rows] == [("existence", "unfalsifiable")]
    assert "unknown claim 'nu'" in str(CliRunner().invoke(cli.cli, ["claims", "nu"]).exception)


def test_clusters_win_with_near_misses_only_and_never_by_as_much_as_claimed(ledger):
    answered = ledger["error-reduction"].finding.trial
    near, mixed, wide, none, attractor, *_ = [result.reduction[votes.CENTRE] for result in answered.regimes]
    assert min(near.value, mixed.value) > 0.85
    assert 0 < wide.value < 0.3
    assert none.high < 0
    assert attractor.high < -5
    assert answered.spread[0].low > answered.spread[-1].high  # the wider the near-misses, the less is won
    assert 0.75 < answered.pooled.low < answered.pooled.value < answered.pooled.high < votes.CLAIM
    assert (answered.reached, len(answered.seeds)) == (0, 5)


def test_ncd_sees_the_wording_and_neither_the_method_nor_whether_it_is_right(ledger):
    trial = ledger["ncd-traces"].finding.trial
    fixed, method, paraphrased, wrong, raw, padded = [separation.ratio for separation in trial.values()]
    assert fixed.low > 10 > 6 > method.value > 3 > 1.9 > paraphrased.value > paraphrased.low > 1.1
    assert wrong.low < 1.05
    assert (raw.value, padded.value, *trial["answers only, XZ container"].commonest) == (1, 1, 4 / 64, 1)


def test_the_imbalance_points_away_from_the_ising_transition(ledger):
    trial = ledger["uipt-ising"].finding.trial
    errors = {name: estimate.value for name, estimate in trial.errors.items()}
    assert max(errors["largest imbalance"], errors["susceptibility"]) < 0.2 < errors["chance"] < 0.55
    assert errors["smallest imbalance (UIPT)"] > 0.35


def test_a_fold_is_foreseen_by_variance_and_not_by_a_small_imbalance(ledger):
    trial = ledger["uipt-fold"].finding.trial
    assert trial.auc["variance"].low > 0.85
    assert trial.auc["autocorrelation"].low > 0.8
    assert trial.auc["smallest imbalance (UIPT)"].value < 0.5
    # The control takes the same road: the drift by itself tells nothing.
    assert abs(trial.approaching[:, -1].mean() - trial.quiet[:, -1].mean()) < 0.05


def test_auc_is_the_chance_that_a_positive_scores_higher():
    rng = np.random.default_rng(0)
    positive, negative = rng.normal(1, 1, 30), rng.normal(0, 1, 40).round(1)
    pairs = [(p > n) + 0.5 * (p == n) for p in positive for n in negative]
    assert transitions.auc(positive, negative, rng).value == pytest.approx(np.mean(pairs))
    assert transitions.auc(np.ones(5), np.ones(7), rng) == (0.5, 0.5, 0.5)


def test_the_ising_entropy_is_onsagers():
    assert systems.ising_entropy(systems.ISING_CRITICAL_TEMPERATURE) == pytest.approx(0.306470, abs=5e-7)
    assert systems.ising_entropy(1000) == pytest.approx(np.log(2), abs=1e-5)
    assert systems.ising_entropy(0.3) == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("temperature", [1.6, 2.0, 3.0, 4.0])
def test_the_simulated_lattice_has_the_exact_energy(temperature):
    lattices = systems.ising([temperature], 32, 8, 200, np.random.default_rng(0))
    spins = np.array([-1, 1])
    bond = np.einsum("abcd,a,b->", lattices.plaquettes.mean(axis=(0, 1)), spins, spins)
    beta = 1 / temperature
    modulus = 2 * np.sinh(2 * beta) / np.cosh(2 * beta) ** 2
    exact = (1 + 2 / np.pi * (2 * np.tanh(2 * beta) ** 2 - 1) * ellipk(modulus**2)) / np.tanh(2 * beta)  # Onsager 1944
    assert 2 * bond == pytest.approx(exact, abs=0.02)
    assert lattices.plaquettes.sum() == pytest.approx(8)


def test_bad_systems_are_refused():
    with pytest.raises(ValueError, match="above 0"):
        systems.ising_entropy(0)
    for size, sweeps in ((5, 10), (2, 10), (8, 0)):
        with pytest.raises(ValueError, match="even size"):
            systems.ising([2.0], size, 1, sweeps, np.random.default_rng(0))


def test_the_documents_generator_is_found_again_and_its_phi_does_not_see_coupling(ledger):
    generator, coupling = ledger["phi"].finding.trial
    assert generator.phi_is_one.value == 1
    assert generator.phases["SUPERCOOLED"] == pytest.approx(0.767, abs=0.04)
    assert generator.phases["PLASMA"] == generator.phases["NUCLEATING"] == 0
    assert generator.flagged.low < 0.925 < generator.flagged.high
    assert coupling["documents' Φ"].value == 0.5
    assert coupling["minimum bipartition"].low > 0.85


def test_the_documents_arithmetic():
    assert [equality.holds for equality in documents.worked_example()] == [True, True, False, True, True, True]
    assert documents.table_areas() == pytest.approx({"without a phase": 0.73, "with two phases": 0.05})
    assert documents.self_reference_sweep()[0.2] == pytest.approx(0.959125, abs=1e-6)
    assert documents.basin_centers_that_differ(500) == 0


def test_every_correlate_is_nearest_to_itself():
    assert len(analogues.CORRELATES) == len({correlate.name for correlate in analogues.CORRELATES}) == 12
    for correlate in analogues.CORRELATES:
        match, second = analogues.nearest(correlate.features, 2)
        assert (match.correlate, match.distance) == (correlate, 0)
        assert second.distance > 0.1  # two that can hardly be told apart would be one
        assert analogues.stability(correlate.features) > 0.95


def test_matches_are_sorted_by_distance_and_stability_shrinks_with_noise():
    situation = np.random.default_rng(3).random(6)
    by_hand = {c.name: np.sqrt(np.mean((np.array(c.features) - situation) ** 2)) for c in analogues.CORRELATES}
    assert [m.correlate.name for m in analogues.nearest(situation, 12)] == sorted(by_hand, key=by_hand.get)
    assert analogues.stability(situation, 0.01) >= analogues.stability(situation, 0.3)


def test_a_situation_is_six_numbers_from_0_to_1():
    for features in ([], [0.5] * 5, [0.5] * 5 + [1.2], [0.5] * 5 + [np.nan], "abc"):
        with pytest.raises(ValueError, match="features"):
            analogues.nearest(features)
    with pytest.raises(ValueError, match="count must be"):
        analogues.nearest([0.5] * 6, 0)
    with pytest.raises(ValueError, match="noise"):
        analogues.stability([0.5] * 6, noise=0)
