"""The CIC set: figures computed from a simulated history, answers that a checker can verify, sets on disk."""

import json
from collections import Counter
from decimal import Decimal
from functools import cache

import numpy as np
import pytest
from click.testing import CliRunner

from cic import analogues, causality, confidence, criticality, functional, information
from elle.base import storage
from elle.base.errors import ElleError
from elle.briefings import cic_writer, dataset, world, writer
from elle.briefings.cic_figures import decayed
from elle.briefings.metrics import Metrics, parse, render
from elle.briefings.schema import CicBriefing
from elle.evaluation import audit as audits
from elle.training.nano import pieces
from helpers import cli


@cache
def drawn(blocks: int = 8, seed: int = 3) -> list[Metrics]:
    return [m for block in range(blocks) for m in world.draw(world.generator(seed, block))]


def test_every_phase_and_every_edge_case_occurs():
    phases = Counter(m.cic.phase for m in drawn())
    assert all(phases[name] >= 0.1 * len(drawn()) for name in criticality.PHASES)
    assert {len(m.nations) for m in drawn()} == set(range(world.MAX_NATIONS + 1))
    assert {code for m in drawn() for code, _ in m.nations} == set(world.CIC_COUNTRIES)
    assert any(None in (m.articles, m.tone, m.alerts) for m in drawn())
    for bound in (0, 100):
        still = [m for m in drawn() if all(value == bound for value, _ in m.categories.values())]
        assert still
        for m in still:
            assert all(m.cic.values[name] == 0 for name in ("Φ", "H", "C", "balance", "temperature"))
            assert m.cic.phase is None
            assert not {"order", "tau variance", "transition"} & m.cic.values.keys()
    assert all(set(m.cic.values) == {"agreement", "horizon", "distance"} for m in drawn() if not m.nations)
    assert not any({"Φ", "order", "balance"} & m.cic.values.keys() for m in drawn() if len(m.nations) == 1)


def test_figures_are_those_of_the_measures_taken_one_by_one():
    worlds = world.simulate(world.generator(4, 0))
    figures, _ = world.measure(worlds)
    now = slice(world.MONTHS - world.WINDOW, world.MONTHS)
    prior = slice(now.start - world.LAG, now.stop - world.LAG)
    chosen = np.flatnonzero((worlds.nations >= 2) & (worlds.edge == ""))[:40]
    assert len(chosen) == 40
    for i in chosen:
        risks = worlds.risks[i, :, : worlds.nations[i]]
        covariances = [np.cov(risks[when].T) for when in (prior, now)]
        phi = [information.minimum_information_bipartition(covariance).value for covariance in covariances]
        entropy = [information.normalized_entropy_gaussian(covariance) for covariance in covariances]
        assert [figures["prior Φ"][i], figures["Φ"][i]] == pytest.approx(phi)
        assert [figures["prior H"][i], figures["H"][i]] == pytest.approx(entropy)
        assert figures["balance"][i] == pytest.approx(criticality.uipt_balance(phi, entropy)[0])
        eigenvalues = np.linalg.eigvalsh(np.corrcoef(risks[now].T))
        assert figures["order"][i] == pytest.approx((eigenvalues[-1] - 1) / (len(eigenvalues) - 1))
        spread = np.log(risks[now] / (1 - risks[now])).std(axis=0).mean()
        assert figures["temperature"][i] == pytest.approx(spread / (spread + 0.15))
        mean = risks.mean(axis=1)
        warning = criticality.early_warning_signals(mean, 0.5, 0.1)
        assert figures["tau variance"][i] == pytest.approx(warning.tau_variance)
        assert figures["tau autocorrelation"][i] == pytest.approx(warning.tau_autocorrelation)
        states = np.digitize(mean, np.quantile(mean, (1 / 3, 2 / 3)))
        counts = np.full((3, 3), 1 / 3)
        np.add.at(counts, (states[:-1], states[1:]), 1)
        expected = causality.effective_information(counts / counts.sum(axis=1, keepdims=True)) / np.log2(3)
        assert figures["C"][i] == pytest.approx(expected)


def test_a_transition_is_printed_only_where_the_simulated_world_changed_branch():
    worlds = world.simulate(world.generator(6, 0), 512)
    found = world.measure(worlds).transition
    for path, ago, nations in zip(worlds.latent, found, worlds.nations, strict=True):
        side, last = 0, None
        for month, x in enumerate(path):
            here = side if abs(x) <= 0.5 else int(np.sign(x))
            if side and here != side:
                last = world.MONTHS - 1 - month
            side = here
        expected = last if nations and last is not None and last < world.WINDOW else None
        assert (None if np.isnan(ago) else ago) == expected
    kinds = np.array(world.REGIMES)[worlds.regime]
    listed = (worlds.nations > 0) & (worlds.edge == "")
    assert np.isnan(found[listed & (kinds == "calm")]).all()
    assert np.isnan(found[listed & (kinds == "approach")]).mean() > 0.95  # noise may carry one over before its fold
    assert (~np.isnan(found[listed & (kinds == "shift")])).mean() > 0.9


def test_printed_phases_and_analogues_follow_from_printed_figures():
    for m in drawn(2):
        values = m.cic.values
        if m.cic.phase:
            now, prior = (
                [float(values[f"{when}{name}"]) for name in ("temperature", "order")] for when in ("", "prior ")
            )
            assert m.cic.phase == criticality.classify_phase(*now, previous=tuple(prior))
        match = analogues.nearest([value / 100 for value, _ in m.categories.values()])[0]
        assert m.cic.analogue == f"{match.correlate.name} {match.correlate.period}"
        assert float(values["distance"]) == pytest.approx(match.distance, abs=0.00501)


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        (("Φ 0.42, ", "Φ 0.42, Φ 0.42, "), "twice"),
        (("H 0.46", "H 1.46"), "out of range"),
        (("H 0.46", "H 0.460"), "no figure"),
        (("H 0.46, ", ""), "Φ needs H and C"),
        (("horizon 3 months", "horizon 2.5 months"), "no figure"),
        (("Φ 0.42", "Φ ٠.٤٢"), "no figure"),
        (("horizon 3 months, ", ""), "needs horizon"),
        (("PLASMA, ", ""), "a phase needs"),
        (("1634–1637", "1634–1638"), "known analogues"),
        (("analogue Tulip Mania 1634–1637, ", ""), "needs an analogue"),
        (("distance 0.23", "distance -0.23"), "out of range"),
        (("OUTLOOK", "LOOKOUT"), "it needs the lines"),
    ],
)
def test_a_faulty_prompt_says_what_is_wrong(wrong, why):
    prompt = (
        "NATIONS: UKR 74%, USA 20%, mean 47%\nSIGNALS: articles 12, tone -3.1, alerts 4\nCATEGORIES: political 40 ↑, "
        "economic 34 →, security 12 →, military 50 ↓, financial 90 ↑, cyber 0 →\n"
        "CIC: Φ 0.42, H 0.46, C 0.67, balance -0.05\nPHASE: PLASMA, temperature 0.85, order 0.20, "
        "prior temperature 0.50, prior order 0.61, tau variance 0.5, tau autocorrelation -0.1, transition 1 month ago\n"
        "OUTLOOK: agreement 0.98, horizon 3 months, analogue Tulip Mania 1634–1637, distance 0.23"
    )
    assert render(parse(prompt)) == prompt
    with pytest.raises(ElleError) as caught:
        parse(prompt.replace(*wrong))
    assert why in str(caught.value)


def test_derived_figures_are_the_frameworks_within_rounding():
    for m in drawn():
        values, derived = m.cic.values, m.cic.derived
        bounded = confidence.epistemic_bound(float(values["agreement"]), int(values["horizon"]))
        assert float(derived["decayed"]) == pytest.approx(bounded, abs=0.00501)
        if "Φ" in values:
            exact = functional.cic_functional(*(float(values[name]) for name in ("Φ", "H", "C")))
            assert float(derived["F"]) == pytest.approx(exact, abs=0.000501)
            assert derived["F"] == values["Φ"] - derived["λH"] + derived["γC"]
    assert decayed(Decimal("0.85"), 3) == Decimal("0.63")


def test_a_prompt_reads_back_and_its_answer_is_a_briefing():
    rng = np.random.default_rng(8)
    for m, choices in zip(drawn(1), rng.random((dataset.BLOCK, writer.CHOICES)).tolist(), strict=True):
        assert parse(render(m)) == m
        answer = cic_writer.answer(m, writer.picker(choices))
        briefing = CicBriefing.model_validate_json(answer)
        assert briefing.model_dump() == cic_writer.cic_texts(m, writer.picker(choices))
        assert answer == json.dumps(briefing.model_dump(), ensure_ascii=False, separators=(",", ":"))


def test_the_audit_passes_a_good_set_and_writes_its_card(tmp_path):
    dataset.build("cic", 2048, 3, tmp_path)
    assert audits.verdict(tmp_path) is None
    found = audits.audit(tmp_path, tokens=pieces, unit="pieces")
    assert found["passed"], found["faults"]
    assert audits.verdict(tmp_path) == []
    assert set(found["targets"].values()) == {1.0}
    assert sum(found["tokens"]["histogram"]["counts"]) == found["tokens"]["n"]
    assert "Passed its audit" in (tmp_path / "README.md").read_text()
    dataset.build("basic", 40, 3, tmp_path / "basic")
    assert audits.audit(tmp_path / "basic")["passed"]


def test_the_audit_fails_a_bad_set_and_says_why(tmp_path):
    dataset.build("cic", 60, 3, tmp_path)
    train = tmp_path / "train.jsonl"
    rows = list(storage.read_lines(train))
    leaked = dataset.read_split(tmp_path, "test")[0]
    spoiled = json.loads(json.dumps(rows[1]))
    answer = json.loads(spoiled["conversations"][2]["value"])
    answer["political"] = answer["political"].replace("political ", "political 9")
    spoiled["conversations"][2]["value"] = json.dumps(answer, ensure_ascii=False)
    unreadable = json.loads(json.dumps(rows[2]))
    unreadable["conversations"][1]["value"] = "What is up?"
    storage.write_lines(train, [leaked, spoiled, unreadable, *rows[3:]])
    found = audits.audit(tmp_path)
    text = "\n".join(found["faults"])
    for part in (
        "train.jsonl is not the file", "train.jsonl:3: this prompt", "numeric_precision of the targets is 0.99",
        "stand in more than one split", "ids occur more than once",
    ):  # fmt: skip
        assert part in text
    assert audits.verdict(tmp_path) == found["faults"] != []
    assert "FAILED its audit" in (tmp_path / "README.md").read_text()
    ran = CliRunner().invoke(cli.cli, ["data", "audit", str(tmp_path), "--json"])
    assert isinstance(ran.exception, ElleError)
    assert json.loads(ran.stdout)["passed"] is False
    train.write_text(train.read_text()[:-40])
    with pytest.raises(ElleError) as caught:
        audits.audit(tmp_path)
    assert caught.value.where.endswith("train.jsonl:54")
