"""The CIC set: figures computed from a simulated history, answers that a checker can verify, sets on disk."""

import json
import random
import re
import time
from collections import Counter
from decimal import Decimal
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from cic import analogues, causality, confidence, criticality, functional, information
from elle.base import storage
from elle.base.errors import ElleError
from elle.briefings import cic_writer, dataset, world, writer
from elle.briefings.cic_figures import ANALOGUES, decayed
from elle.briefings.metrics import Metrics, parse, render
from elle.briefings.schema import CicBriefing, json_schema
from elle.evaluation.numbers import Checker, arithmetic_faults, triples
from elle.evaluation.verdict import judge
from helpers import cli

DATA = Path(__file__).resolve().parents[1] / "data"


@cache
def drawn(blocks: int = 8, seed: int = 3) -> list[Metrics]:
    return [m for block in range(blocks) for m in world.draw(world.generator(seed, block))]


@cache
def targets() -> list[tuple[Metrics, dict[str, str]]]:
    rng = np.random.default_rng(1)
    return [(m, cic_writer.cic_texts(m, writer.picker(rng.random(40)))) for m in drawn()]


# The world


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
    for m in drawn():
        if not m.nations:
            assert set(m.cic.values) == {"agreement", "horizon", "distance"}
        if len(m.nations) == 1:
            assert {"H", "C", "temperature"} <= m.cic.values.keys()
            assert not {"Φ", "order", "balance"} & m.cic.values.keys()


def test_no_figure_is_constant_and_transitions_are_rare_enough_to_mean_something():
    for name in ("Φ", "H", "C", "balance", "temperature", "order", "agreement", "tau variance"):
        values = [float(m.cic.values[name]) for m in drawn() if name in m.cic.values]
        assert np.std(values) > 0.05, name
    assert 0.2 < np.mean(["transition" in m.cic.values for m in drawn()]) < 0.6


def test_figures_are_those_of_the_measures_taken_one_by_one():
    worlds = world.simulate(world.generator(4, 0))
    figures, _ = world.measure(worlds)
    now = slice(world.MONTHS - world.WINDOW, world.MONTHS)
    prior = slice(now.start - world.LAG, now.stop - world.LAG)
    checked = 0
    for i in np.flatnonzero((worlds.nations >= 2) & (worlds.edge == ""))[:40]:
        risks = worlds.risks[i, :, : worlds.nations[i]]
        phi, entropy = (
            [measure(np.cov(risks[when].T)) for when in (prior, now)]
            for measure in (
                lambda c: information.minimum_information_bipartition(c).value,
                information.normalized_entropy_gaussian,
            )
        )
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
        checked += 1
    assert checked == 40


def test_a_batch_of_early_warnings_equals_them_one_by_one():
    series = np.random.default_rng(2).normal(size=(30, 40)).cumsum(axis=1)
    series[3], series[4, :30], series[5] = 1.0, 2.0, np.round(series[5])  # constant, constant for long, with ties
    for bandwidth in (None, 0.1):
        found = np.array(criticality.early_warning_signals(series, 0.5, bandwidth)[2:]).T
        alone = [criticality.early_warning_signals(row, 0.5, bandwidth)[2:] for row in series]
        np.testing.assert_allclose(found, alone)
    with pytest.raises(ValueError, match="at least 8"):
        criticality.early_warning_signals(np.ones((2, 7)))


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


def test_regimes_are_what_their_names_say():
    worlds = world.simulate(world.generator(7, 0), 1024)
    figures, _ = world.measure(worlds)
    usual = (worlds.nations >= 2) & (worlds.edge == "")

    def of(name: str, regime: str) -> np.ndarray:
        return figures[name][usual & (worlds.regime == world.REGIMES.index(regime))]

    assert np.median(of("temperature", "calm")) < 0.3 < np.median(of("order", "calm"))
    assert np.median(of("order", "turmoil")) < 0.3 < np.median(of("temperature", "turmoil"))
    assert np.median(of("tau variance", "approach")) > 0.3 > abs(np.median(of("tau variance", "calm")))
    assert np.median(of("temperature", "relaxation")) < np.median(of("prior temperature", "relaxation"))
    assert np.median(of("Φ", "shift")) > np.median(of("Φ", "turmoil")) + 0.5


def test_printed_phases_and_analogues_follow_from_printed_figures():
    for m in drawn(2):
        values = m.cic.values
        if m.cic.phase:
            prior = tuple(float(values[name]) for name in ("prior temperature", "prior order"))
            assert m.cic.phase == criticality.classify_phase(
                float(values["temperature"]), float(values["order"]), previous=prior
            )
        match = analogues.nearest([value / 100 for value, _ in m.categories.values()])[0]
        assert m.cic.analogue == f"{match.correlate.name} {match.correlate.period}"
        assert float(values["distance"]) == pytest.approx(match.distance, abs=0.00501)


# Prompt and answer


def test_a_prompt_reads_back_as_what_it_was_made_from():
    for m in drawn():
        assert parse(render(m)) == m


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        (("Φ 0.42, ", "Φ 0.42, Φ 0.42, "), "twice"),
        (("H 0.46", "H 1.46"), "out of range"),
        (("H 0.46", "H 0.460"), "no figure"),
        (("H 0.46, ", ""), "Φ needs H and C"),
        (("horizon 3 months", "horizon 3 month"), "no figure"),
        (("horizon 3 months", "horizon 3.0 months"), "no figure"),
        (("horizon 3 months", "horizon 2.5 months"), "no figure"),
        (("Φ 0.42", "Φ 0.4.2"), "no figure"),
        (("Φ 0.42", "Φ ٠.٤٢"), "no figure"),
        (("horizon 3 months, ", ""), "needs horizon"),
        (("PLASMA, ", ""), "a phase needs"),
        (("PLASMA", "PLASMATIC"), "no figure"),
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
    for m, _ in targets():
        values, derived = m.cic.values, m.cic.derived
        bounded = confidence.epistemic_bound(float(values["agreement"]), int(values["horizon"]))
        assert float(derived["decayed"]) == pytest.approx(bounded, abs=0.00501)
        if "Φ" in values:
            exact = functional.cic_functional(*(float(values[name]) for name in ("Φ", "H", "C")))
            assert float(derived["F"]) == pytest.approx(exact, abs=0.000501)
            assert derived["F"] == values["Φ"] - derived["λH"] + derived["γC"]
    assert decayed(Decimal("0.85"), 3) == Decimal("0.63")


def test_untouched_targets_are_right_in_everything():
    for m, texts in targets():
        findings = Checker(m).check(texts)
        assert all(found.ok for found in findings), [found for found in findings if not found.ok]
        assert arithmetic_faults(findings) == ([], 1 + ("Φ" in m.cic.values))
        held = sum(len(re.findall(r"\d+(?:\.\d+)?", text)) for text in texts.values())
        inside = sum(len(re.findall(r"\d+", found.text)) - 1 for found in findings if "." not in found.text)
        names = sum(len(re.findall(r"exceeds? 50%", text)) for text in texts.values())
        assert len(findings) == held - inside - names  # no number escapes
    for m, texts in targets()[:300]:
        answer = json.dumps(texts, ensure_ascii=False)
        record = judge("x", render(m), answer, answer)
        assert record.counts["all_right"] == (1, 1), record.reasons
        assert not judge("x", render(m), answer, json.dumps(dict(list(texts.items())[:8]))).counts["schema"][0]


def test_no_changed_digit_is_missed():
    pick, made = random.Random(1), targets()[:100]
    for _ in range(500):
        m, texts = pick.choice(made)
        key, place = pick.choice([(k, found.start()) for k, t in texts.items() for found in re.finditer(r"\d", t)])
        digit = pick.choice([d for d in "0123456789" if d != texts[key][place]])
        mutated = {**texts, key: texts[key][:place] + digit + texts[key][place + 1 :]}
        before, after = Checker(m).check(texts), Checker(m).check(mutated)
        assert any(not found.ok for found in after), mutated[key]
        assert triples(after) < triples(before)


@pytest.mark.parametrize(
    ("text", "bound"),
    [
        ("Φ 0.42 - λH 0.138 = net 0.282", [("0.42", "Φ"), ("0.138", "λH"), ("0.282", "net")]),
        ("net + γC 0.168 = F 0.450", [("0.168", "γC"), ("0.450", "F")]),
        ("c 0.4 h 0.5 f 0.6", [("0.4", None), ("0.5", None), ("0.6", None)]),
        ("Prior order 0.3 order 0.4", [("0.3", "prior order"), ("0.4", "order")]),
        ("Tulip Mania 1634–1637", [("Tulip Mania 1634–1637", "analogue")]),
        ("Tulip Mania 1634–1638", [("1634", None), ("1638", None)]),
        ("Tulip Mania 1634–16370", [("1634", None), ("16370", None)]),
        ("Tulip Mania 1634–1637.5 distance", [("1634", "distance"), ("1637.5", "distance")]),
    ],
)
def test_binding_of_cic_names(text, bound):
    assert [(found.text, found.metric) for found in Checker(drawn()[0]).check({"k": text})] == bound


def test_another_analogue_than_the_prompts_is_wrong():
    m, _ = targets()[0]
    for name in ANALOGUES:
        found = Checker(m).check({"historical_parallel": f"{name}, distance {m.cic.values['distance']}."})
        assert [f.ok for f in found] == [name == m.cic.analogue, True]


def test_long_hostile_texts_take_linear_time():
    begin = time.process_time()
    Checker(drawn()[0]).check({"summary": "Tulip Mania 1634–1637 " * 40_000})
    Checker(drawn()[0]).check({"summary": "tau variance prior " * 40_000 + " 1"})
    assert time.process_time() - begin < 10


def test_arithmetic_judges_the_answer_by_its_own_figures():
    m, texts = next((m, t) for m, t in targets() if "Φ" in m.cic.values)
    for name, value in (("F", m.cic.derived["F"]), ("decayed", m.cic.derived["decayed"])):
        wrong = {
            key: text.replace(f"{name} {value}", f"{name} {value + Decimal('0.01')}") for key, text in texts.items()
        }
        faults, checked = arithmetic_faults(Checker(m).check(wrong))
        assert (len(faults), checked) == (1, 2)
    bold = Checker(m).check(
        {"confidence_bounds": f"Confidence 0.97; horizon 1 month: decayed {decayed(Decimal('0.97'), 1)}"}
    )
    faults, checked = arithmetic_faults(bold)
    assert (len(faults), checked) == (1, 1)


def test_words_follow_from_printed_figures():
    said = Counter()
    for m, texts in targets():
        values, phase = m.cic.values, texts["phase_assessment"]
        named = [name for name in criticality.PHASES if name in phase]
        assert named == ([m.cic.phase] if m.cic.phase else [])
        assert ("ago." in phase) == ("transition" in values)
        assert ("o transition." in phase or "recent transition." in phase) == (
            "temperature" in values and "transition" not in values
        )
        if m.cic.phase:
            gone = values["temperature"] - values["prior temperature"]
            assert ("hotter" in phase, "cooler" in phase, "as hot" in phase) == (gone > 0, gone < 0, gone == 0)
        rising = [values[name] > Decimal("0.3") for name in ("tau variance", "tau autocorrelation") if name in values]
        assert (" Early warning: " in phase) == (rising == [True, True] and "transition" not in values)
        if "balance" in values:
            word = texts["cic_assessment"].rpartition(" ")[2][:-1]
            kind = 0 if abs(values["balance"]) <= Decimal("0.05") else 1 if values["balance"] > 0 else -1
            assert word in {0: ("steady", "level"), 1: ("rising", "growing"), -1: ("falling", "shrinking")}[kind]
            said[word] += 1
        assert ("cap" in texts["confidence_bounds"]) == (values["agreement"] > Decimal("0.95"))
        assert m.cic.analogue in texts["historical_parallel"]
    assert min(said.values()) > 50


def test_answers_vary_in_wording():
    openings = Counter(
        texts[key].split()[0] for _, texts in targets() for key in ("cic_assessment", "phase_assessment")
    )
    assert len(openings) > 6
    assert json_schema(CicBriefing)["required"][-4:] == [
        "cic_assessment", "phase_assessment", "confidence_bounds", "historical_parallel",
    ]  # fmt: skip


def test_an_answer_is_its_briefing_as_json():
    rng = np.random.default_rng(8)
    for m, choices in zip(drawn(1), rng.random((dataset.BLOCK, writer.CHOICES)).tolist(), strict=True):
        answer = cic_writer.answer(m, writer.picker(choices))
        briefing = CicBriefing.model_validate_json(answer)
        assert briefing.model_dump() == cic_writer.cic_texts(m, writer.picker(choices))
        assert answer == json.dumps(briefing.model_dump(), ensure_ascii=False, separators=(",", ":"))


# The audit


def test_the_audit_passes_a_good_set_and_writes_its_card(tmp_path):
    audits = pytest.importorskip("elle.evaluation.audit")
    pytest.importorskip("datasketch")
    from elle.training.nano import pieces

    dataset.build("cic", 2048, 3, tmp_path)
    assert audits.verdict(tmp_path) is None
    found = audits.audit(tmp_path, tokens=pieces, unit="pieces")
    assert found["passed"], found["faults"]
    assert audits.verdict(tmp_path) == []
    assert set(found["targets"].values()) == {1.0}
    assert found["tokens"]["mean"] <= 570
    assert sum(found["tokens"]["histogram"]["counts"]) == found["tokens"]["n"]
    card = (tmp_path / "README.md").read_text()
    assert "Passed its audit" in card
    assert "| phase PLASMA |" in card
    dataset.build("basic", 40, 3, tmp_path / "basic")
    assert audits.audit(tmp_path / "basic")["passed"]


def test_the_audit_fails_a_bad_set_and_says_why(tmp_path):
    pytest.importorskip("datasketch")
    from elle.evaluation import audit as audits

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
