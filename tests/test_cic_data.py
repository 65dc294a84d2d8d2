"""The CIC set: figures computed from a simulated history, answers that a checker can verify, sets on disk."""

import hashlib
import json
import os
import random
import re
import signal
import subprocess
import sys
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
from elle.briefings import cic_writer, dataset, metrics, world, writer
from elle.briefings.cic_figures import ANALOGUES, decayed
from elle.briefings.convert import convert
from elle.briefings.metrics import Metrics, parse, render
from elle.briefings.schema import CATEGORIES, CicBriefing, json_schema
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
    return [(m, cic_writer.compose(m, writer.picker(rng.random(40))).model_dump()) for m in drawn()]


# The world


@pytest.mark.parametrize(("kind", "count", "shown"), [("basic", 3000, 1), ("cic", 10_000, 6)])
def test_the_committed_sample_and_hashes_are_what_the_command_makes(kind, count, shown, tmp_path):
    committed = storage.read_json(DATA / "manifests" / f"{kind}-{count}-42.json")
    assert dataset.build(kind, count, 42, tmp_path) == committed
    sample = list(storage.read_lines(DATA / "samples" / f"{kind}-42.jsonl"))
    assert sample == [dataset.row(kind, 42, index) for index in range(100)]
    assert sample[shown]["conversations"][1]["value"] in (DATA / "README.md").read_text()  # the card shows a real one


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


# Sets on disk


def bytes_of(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


@pytest.mark.parametrize("kind", dataset.KINDS)
def test_an_example_depends_on_seed_and_index_alone(kind):
    in_order = [dataset.row(kind, 5, index) for index in range(3 * dataset.BLOCK)]
    for index in (600, 301, 5, 255, 256, 767):
        assert dataset.row(kind, 5, index) == in_order[index]
        assert dataset.row(kind, 6, index)["conversations"] != in_order[index]["conversations"]
    assert len({json.dumps(row["conversations"]) for row in in_order}) == len(in_order)


def test_an_answer_is_its_briefing_as_json():
    rng = np.random.default_rng(8)
    for m, choices in zip(drawn(1), rng.random((dataset.BLOCK, writer.CHOICES)).tolist(), strict=True):
        briefing = cic_writer.compose(m, writer.picker(choices))
        answer = cic_writer.conversation(m, writer.picker(choices))[2]["value"]
        assert answer == json.dumps(briefing.model_dump(), ensure_ascii=False, separators=(",", ":"))


@pytest.mark.parametrize("kind", ["basic", "cic"])
def test_bytes_do_not_depend_on_the_number_of_workers(kind, tmp_path, monkeypatch):
    count = 3 * dataset.PART // 2 if kind == "cic" else 3 * dataset.PART
    told = []
    one = dataset.build(kind, count, 3, tmp_path / "one")
    four = dataset.build(kind, count, 3, tmp_path / "four", workers=4, progress=lambda *at: told.append(at))
    assert one == four
    assert bytes_of(tmp_path / "one") == bytes_of(tmp_path / "four")
    assert told[-1] == (count, count)


def test_a_killed_build_goes_on_and_ends_in_the_same_bytes(tmp_path):
    count, folder = 8 * dataset.PART, tmp_path / "killed"
    command = [sys.executable, "-m", "helpers.cli", "data", "basic", "--count", str(count), "--out", str(folder)]
    # A session of its own: its workers, if any were left behind, would be seen there.
    process = subprocess.Popen([*command, "--workers", "2"], start_new_session=True)
    deadline = time.monotonic() + 120
    while len(list(folder.glob("parts/0*.jsonl"))) < 2:
        assert process.poll() is None, "it ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    while True:  # workers end by themselves once there is nobody to tell
        try:
            os.killpg(process.pid, 0)
        except ProcessLookupError:
            break
        assert time.monotonic() < deadline, "a worker outlived its parent"
        time.sleep(0.1)
    assert not (folder / "manifest.json").exists()
    finished = {path.name: path.stat().st_mtime_ns for path in folder.glob("parts/0*.jsonl")}
    assert len(finished) >= 2
    (folder / "parts" / ".000004.jsonl.x.partial").write_text("cut o")
    made = []
    dataset.build("basic", count, 42, folder, progress=lambda done, of: made.append(done))
    assert len(finished) * dataset.PART < made[0] or len(finished) == 8  # what was finished is not made again
    dataset.build("basic", count, 42, tmp_path / "whole")
    assert bytes_of(folder) == bytes_of(tmp_path / "whole")


def test_parts_of_another_set_are_not_taken_over(tmp_path, monkeypatch):
    parts = tmp_path / "parts"
    storage.write_json(parts / "asked.json", {"kind": "basic", "count": 40, "seed": 1, "version": 1})
    (parts / "000000.jsonl").write_text("of another set\n")
    assert dataset.build("basic", 40, 2, tmp_path)["splits"]["train"]["rows"] == 36


def test_a_parquet_set_holds_the_same_rows_and_datasets_reads_both(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    import datasets

    for kind in ("basic", "cic"):
        folders = {form: tmp_path / f"{kind}-{form}" for form in dataset.FORMATS}
        for form, folder in folders.items():
            dataset.build(kind, 60, 3, folder, format=form)
        rows = dataset.read_split(folders["jsonl"], "train")
        assert dataset.read_split(folders["parquet"], "train") == rows
        for form, folder in folders.items():
            files = {split: str(folder / f"{split}.{form}") for split in dataset.SPLITS}
            read = datasets.load_dataset(
                "json" if form == "jsonl" else form, data_files=files, cache_dir=str(tmp_path / "cache" / form / kind)
            )
            assert read["train"].to_list() == rows
            assert {split: len(read[split]) for split in read} == {"train": 54, "validation": 3, "test": 3}
        with pytest.raises(ElleError, match="another data set"):
            dataset.build(kind, 60, 3, folders["parquet"])


@pytest.mark.parametrize(
    ("arguments", "options", "expected"),
    [
        (("cics", 40, 1), {}, "did you mean 'cic'"),
        (("cic", 40, 2**64), {}, "seed"),
        (("cic", 40, 1), {"workers": 0}, "workers"),
        (("cic", 40, 1), {"format": "csv"}, "unknown format"),
    ],
)
def test_impossible_sets_are_refused(tmp_path, arguments, options, expected):
    with pytest.raises(ElleError) as caught:
        dataset.build(*arguments, tmp_path, **options)
    assert expected in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_a_full_disk_is_said_and_nothing_half_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ElleError, match="cannot write"):
        dataset.build("basic", 40, 1, tmp_path / "file")
    # A limit on the size of files stands in for a full disk; workers inherit it.
    for workers in (1, 2):
        folder = tmp_path / f"{workers}"
        command = f"ulimit -f 100; exec {sys.executable} -m helpers.cli data basic --count {2 * dataset.PART} "
        ran = subprocess.run(
            ["bash", "-c", command + f"--out {folder} --workers {workers}"], capture_output=True, text=True, check=False
        )
        assert ran.returncode == 1
        assert "cannot write: File too large" in ran.stderr
        assert "Traceback" not in ran.stderr
        assert {path.name for path in folder.rglob("*")} == {"parts", "asked.json"}


def test_a_disk_that_fills_up_at_the_end_leaves_the_parts_alone(tmp_path):
    """The parts fit, the training file does not; with room again, the same command goes on."""
    folder, count = tmp_path / "set", 2 * dataset.PART
    command = [sys.executable, "-m", "helpers.cli", "data", "basic", "--count", str(count), "--out", str(folder)]
    ran = subprocess.run(
        ["bash", "-c", 'ulimit -f 3000; exec "$@"', "bash", *command], capture_output=True, text=True, check=False
    )
    assert ran.returncode == 1
    assert "cannot write: File too large" in ran.stderr
    assert {path.name for path in folder.rglob("*")} == {"parts", "asked.json", "000000.jsonl", "000001.jsonl"}
    assert dataset.build("basic", count, 42, folder)["splits"]["train"]["rows"] == 0.9 * count // 1


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


# A user's own records


def record(number: int) -> dict:
    m = drawn()[number]
    return {
        "nations": {"UKR": 0.74, "FIN": round(number / 100, 2)},
        "signals": {"articles": number, "tone": -3.14},
        "categories": {
            name: {"risk": value, "trend": metrics.TRENDS[arrow]} for name, (value, arrow) in m.categories.items()
        },
        "briefings": {key: f"Text for {key}." for key in (*CATEGORIES, "summary", "nsm")},
    }


def test_a_users_records_become_a_set(tmp_path):
    rows = [record(number) for number in range(40)]
    rows += [rows[0]] * 3  # the same figures again: they stay in one split
    storage.write_lines(tmp_path / "mine.jsonl", rows)
    arguments = ["data", "convert", str(tmp_path / "mine.jsonl"), "--out", str(tmp_path / "set"), "--json"]
    ran = CliRunner().invoke(cli.cli, arguments)
    assert ran.exit_code == 0, ran.output
    assert sum(json.loads(ran.stdout)[split] for split in dataset.SPLITS) == 43
    manifest = dataset.load_manifest(tmp_path / "set")
    assert manifest["prompts_shared_between_splits"] == 0
    first = dataset.read_split(tmp_path / "set", "test")[0]
    assert "NATIONS: UKR 74%, FIN 0%, mean 37%\nSIGNALS: articles 0, tone -3.1\n" in first["conversations"][1]["value"]
    assert json.loads(first["conversations"][2]["value"]) == rows[0]["briefings"]
    with pytest.raises(ElleError, match="already holds"):
        convert(tmp_path / "mine.jsonl", tmp_path / "set")
    convert(tmp_path / "mine.jsonl", tmp_path / "again", format="parquet")
    assert dataset.read_split(tmp_path / "again", "test")[0] == first


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda r: r["nations"].update(UKR=1.2), ("1.2 is not in 0..1", "nations.UKR")),
        (lambda r: r["nations"].update(UKR=True), ("no number", "nations.UKR")),
        (lambda r: r["nations"].update(UKR=float("nan")), ("no number", "nations.UKR")),
        (lambda r: r["nations"].update(XXX=0.2), ("no country code", "nations")),
        (lambda r: r.update(nations=[1]), ("not an object", "nations")),
        (lambda r: r.pop("signals"), ("'signals' is missing", "")),
        (lambda r: r["signals"].update(rumours=3), ("'rumours' is unknown", "signals")),
        (lambda r: r["signals"].update(articles=1.5), ("no whole number", "signals.articles")),
        (lambda r: r["signals"].update(articles=-1), ("not in 0..", "signals.articles")),
        (lambda r: r["signals"].update(tone="low"), ("no number", "signals.tone")),
        (lambda r: r["categories"].pop("cyber"), ("'cyber' is missing", "categories")),
        (lambda r: r["categories"]["cyber"].update(risk=101), ("not in 0..100", "categories.cyber")),
        (lambda r: r["categories"]["cyber"].update(trend="up"), ("no trend", "categories.cyber")),
        (lambda r: r["categories"]["cyber"].update(trend=["rising"]), ("no trend", "categories.cyber")),
        (lambda r: r["briefings"].pop("nsm"), ("Field required", "briefings.nsm")),
        (lambda r: r["briefings"].update(nsm=5), ("valid string", "briefings.nsm")),
        (lambda r: r["briefings"].update(nsm="\ud800"), ("lone surrogate", "briefings.nsm")),
    ],
)
def test_a_faulty_record_is_named_with_its_line_and_nothing_is_written(tmp_path, change, expected):
    rows = [record(number) for number in range(30)]
    change(rows[2])
    (tmp_path / "mine.jsonl").write_text("\n".join(map(json.dumps, rows)))
    with pytest.raises(ElleError) as caught:
        convert(tmp_path / "mine.jsonl", tmp_path / "set")
    what, where = expected
    assert what in caught.value.what
    assert caught.value.where.startswith(f"{tmp_path / 'mine.jsonl'}:3")
    assert where in caught.value.where
    assert not (tmp_path / "set").exists()


@pytest.mark.parametrize("form", dataset.FORMATS)
def test_records_that_cannot_be_written_leave_nothing(tmp_path, form):
    mine, out = tmp_path / "mine.jsonl", tmp_path / "new" / "set"
    storage.write_lines(mine, [record(number) for number in range(100)])
    limited = f"ulimit -f 4; exec {sys.executable} -m helpers.cli data convert {mine} --out {out} --format {form}"
    ran = subprocess.run(["bash", "-c", limited], capture_output=True, text=True, check=False)
    assert ran.returncode == 1
    assert "cannot write: File too large" in ran.stderr
    assert str(out) in ran.stderr
    assert not out.parent.exists()
    with pytest.raises(ElleError, match="cannot"):
        convert(mine, mine / "set", format=form)
    with pytest.raises(ElleError, match="unknown format"):
        convert(mine, out, format="csv")
    assert not out.parent.exists()


def test_files_that_hold_no_records_are_refused(tmp_path):
    mine, out = tmp_path / "mine.jsonl", tmp_path / "set"
    lines = [json.dumps(record(number)) for number in range(30)]
    for text, what, line in (
        ("\n".join([lines[0], lines[1][:50]]), "not valid JSON", ":2"),
        ("\n".join([lines[0], "[1]"]), "not an object", ":2"),
        ("\n".join([lines[0].replace('{"nations"', '{"nations": {}, "nations"', 1)]), "'nations' appears twice", ":1"),
        ("\n".join([lines[0].replace('"FIN"', '"UKR"')]), "'UKR' appears twice", ":1"),
        ("\n".join(lines[:19]), "cannot fill three splits", ""),
        ("\n".join([lines[0]] * 40), "1 with different figures", ""),
        ("", "cannot fill three splits", ""),
    ):
        mine.write_text(text)
        with pytest.raises(ElleError) as caught:
            convert(mine, out)
        assert what in caught.value.what
        assert caught.value.where == f"{mine}{line}"
        assert not out.exists()
    with pytest.raises(ElleError, match="file not found"):
        convert(tmp_path / "nowhere.jsonl", out)


def test_the_command_makes_cic_sets(tmp_path):
    arguments = ["data", "cic", "--count", "40", "--seed", "3", "--out", str(tmp_path), "--format", "parquet", "--json"]
    made = CliRunner().invoke(cli.cli, arguments)
    assert made.exit_code == 0, made.output
    assert json.loads(made.stdout)["train"] == 36
    assert {path.name for path in tmp_path.iterdir()} == {
        "train.parquet", "validation.parquet", "test.parquet", "manifest.json",
    }  # fmt: skip
