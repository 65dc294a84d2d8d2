"""Sets of examples: prompts that read back, examples that depend on nothing but (seed, index), sets on disk, and sets
made of a user's own records."""

import functools
import hashlib
import itertools
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import tracemalloc
from concurrent.futures import ThreadPoolExecutor, wait
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from elle.base import paths, storage, yaml_files
from elle.base.errors import ElleError
from elle.briefings import dataset, metrics, scenario, writer
from elle.briefings.convert import convert
from elle.briefings.schema import CATEGORIES, Briefing, Example
from helpers import cli

DATA = paths.root() / "data"
FAULTY = yaml_files.read_yaml(paths.root() / "tests" / "fixtures" / "faulty_sets.yaml")

risks = st.integers(0, 100)
optional_counts = st.none() | st.integers(0, 999)


def bytes_of(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


def look_for(process: subprocess.Popen) -> None:
    """Look for the session that a process led, as long as there is somebody."""
    for _ in range(1200):
        os.killpg(process.pid, 0)
        time.sleep(0.05)


@st.composite
def any_metrics(draw):
    codes = draw(st.lists(st.sampled_from(sorted(scenario.COUNTRIES)), unique=True, max_size=6))
    tone = draw(st.none() | st.integers(-100, 100))
    return metrics.Metrics(
        tuple((code, draw(risks)) for code in codes),
        draw(optional_counts),
        None if tone is None else Decimal(tone) / 10,
        draw(optional_counts),
        {name: (draw(risks), draw(st.sampled_from(sorted(metrics.TRENDS)))) for name in CATEGORIES},
    )


@given(any_metrics(), st.integers(0, 2**32))
def test_a_prompt_reads_back_and_its_answer_is_a_briefing_whatever_the_figures(figures, seed):
    assert metrics.parse(metrics.render(figures)) == figures
    choices = np.random.default_rng(seed).random(writer.CHOICES).tolist()
    answer = writer.answer(figures, writer.picker(choices))
    briefing = Briefing.model_validate_json(answer)
    assert briefing.model_dump() == writer.basic_texts(figures, writer.picker(choices))
    assert answer == json.dumps(briefing.model_dump(), ensure_ascii=False, separators=(",", ":"))


@given(st.text(max_size=300))
def test_any_other_text_is_refused_with_a_reason(text):
    with pytest.raises(ElleError):
        metrics.parse(text)


def test_a_faulty_prompt_names_its_line():
    prompt = metrics.render(scenario.draw(scenario.generator(1, 1))[1])
    political = re.search(r"political \d+ .", prompt)[0]
    for wrong in ("political 101 ↑", "political x ↑", f"{political}, {political}", "trade 4 ↑"):
        with pytest.raises(ElleError, match="CATEGORIES"):
            metrics.parse(prompt.replace(political, wrong))
    with pytest.raises(ElleError, match="the mean of these nations"):
        metrics.parse(re.sub(r"mean \d+", "mean 100", prompt))
    with pytest.raises(ElleError, match="it needs the lines"):
        metrics.parse(prompt.replace("SIGNALS", "SIGNS"))


def test_risk_words_do_not_contradict_the_trend():
    for value, trend in itertools.product(range(101), (*metrics.TRENDS.values(), None)):
        words = metrics.risk_words(value, trend)
        assert words
        assert trend == "steady" or "stable" not in words
        assert trend == "rising" or not {"increasing", "escalating"} & set(words)


def test_tone_is_never_minus_zero():
    # A bug once: rounding -0.02 to one decimal printed `tone -0.0`.
    tones = [str(m.tone) for block in range(12) for m in scenario.draw(scenario.generator(42, block))]
    assert "0.0" in tones
    assert "-0.0" not in tones


@pytest.mark.parametrize(("kind", "count", "shown"), [("basic", 3000, 1), ("cic", 10_000, 6)])
def test_the_committed_sample_and_hashes_are_what_the_command_makes(kind, count, shown, tmp_path):
    committed = storage.read_json(DATA / "manifests" / f"{kind}-{count}-42.json")
    assert dataset.build(kind, count, 42, tmp_path) == committed
    sample = list(storage.read_lines(DATA / "samples" / f"{kind}-42.jsonl"))
    assert sample == [dataset.row(kind, 42, index) for index in range(100)]
    assert Example.of(sample[shown]).prompt in (DATA / "README.md").read_text()  # the card shows a real one


@pytest.mark.parametrize("kind", dataset.KINDS)
def test_an_example_depends_on_seed_and_index_alone(kind):
    in_order = [dataset.row(kind, 5, index) for index in range(3 * dataset.BLOCK)]
    for index in (600, 301, 5, 255, 256, 767):
        assert dataset.row(kind, 5, index) == in_order[index]
        assert dataset.row(kind, 6, index)["conversations"] != in_order[index]["conversations"]
    assert len({json.dumps(row["conversations"]) for row in in_order}) == len(in_order)


@pytest.mark.parametrize("kind", dataset.KINDS)
def test_bytes_do_not_depend_on_the_number_of_workers_and_splits_are_disjoint(kind, tmp_path):
    count, told = 5 * dataset.BLOCK, []
    one = dataset.build(kind, count, 3, tmp_path / "one")
    four = dataset.build(kind, count, 3, tmp_path / "four", workers=4, progress=lambda *at: told.append(at))
    assert one == four
    assert bytes_of(tmp_path / "one") == bytes_of(tmp_path / "four")
    assert told == sorted(told)
    assert told[-1] == (count, count)
    assert {name: facts["rows"] for name, facts in one["splits"].items()} == dict(train=1152, validation=64, test=64)
    ids = [row["id"] for split in dataset.SPLITS for row in dataset.read_split(tmp_path / "one", split)]
    assert len(ids) == len(set(ids)) == count
    assert one["prompts_shared_between_splits"] == 0


def test_a_set_grows_without_an_example_changing_sides(tmp_path):
    dataset.build("basic", 100, 3, tmp_path / "small")
    dataset.build("basic", 200, 3, tmp_path / "large")
    for split in dataset.SPLITS:
        small = [row["id"] for row in dataset.read_split(tmp_path / "small", split)]
        assert [row["id"] for row in dataset.read_split(tmp_path / "large", split, limit=len(small))] == small


def test_a_folder_with_another_set_is_left_alone(tmp_path):
    dataset.build("basic", 40, 3, tmp_path)
    before = (tmp_path / "train.jsonl").read_bytes()
    for changed in ({"count": 60}, {"format": "parquet"}):
        with pytest.raises(ElleError, match="another data set"):
            dataset.build(**{"kind": "basic", "count": 40, "seed": 3, "folder": tmp_path} | changed)
    assert dataset.build("basic", 40, 3, tmp_path)["count"] == 40
    assert dataset.ensure("basic", 60, 3, tmp_path)["count"] == 40
    assert (tmp_path / "train.jsonl").read_bytes() == before


@pytest.mark.parametrize(("arguments", "options", "expected"), FAULTY["builds"])
def test_impossible_sets_are_refused(tmp_path, arguments, options, expected):
    with pytest.raises(ElleError, match=expected):
        dataset.build(*arguments, tmp_path, **options)
    assert not list(tmp_path.iterdir())


def test_the_command_makes_sets_of_the_same_rows_and_datasets_reads_both(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    import datasets

    for kind in dataset.KINDS:
        folders = {form: tmp_path / f"{kind}-{form}" for form in dataset.FORMATS}
        for form, folder in folders.items():
            words = ["data", kind, "--count", "60", "--seed", "3", "--out", str(folder), "--format", form, "--json"]
            assert json.loads(CliRunner().invoke(cli.cli, words).stdout)["train"] == 54
        rows = dataset.read_split(folders["jsonl"], "train")
        assert dataset.read_split(folders["parquet"], "train") == rows
        for form, folder in folders.items():
            files = {split: str(folder / f"{split}.{form}") for split in dataset.SPLITS}
            builder, cache = {"jsonl": "json"}.get(form, form), str(tmp_path / "cache" / form / kind)
            read = datasets.load_dataset(builder, data_files=files, cache_dir=cache)
            assert read["train"].to_list() == rows
            assert {split: len(read[split]) for split in read} == {"train": 54, "validation": 3, "test": 3}


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_a_build_that_is_ended_leaves_no_worker_and_can_be_repeated(tmp_path, how):
    folder = tmp_path / "set"
    command = [sys.executable, "-m", "helpers.cli", "data", "basic", "--count", "2000000", "--out", str(folder)]
    # A session of its own: its workers, if any were left behind, would be seen there.
    process = subprocess.Popen([*command, "--workers", "2"], start_new_session=True, stderr=subprocess.PIPE)
    while not any(path.stat().st_size for path in folder.glob(".train.*.partial")):
        assert process.poll() is None, "it ended before it could be stopped"
        time.sleep(0.01)
    if how == signal.SIGINT:
        os.killpg(process.pid, how)  # as a terminal does
    else:
        process.kill()
    err = process.communicate(timeout=60)[1].decode()
    with pytest.raises(ProcessLookupError):  # else a worker outlived its parent
        look_for(process)
    assert "Traceback" not in err
    assert how == signal.SIGKILL or not folder.exists()
    dataset.build("basic", 400, 42, folder)
    dataset.build("basic", 400, 42, tmp_path / "whole")
    assert bytes_of(folder) == bytes_of(tmp_path / "whole")


def test_a_worker_that_dies_is_said(tmp_path):
    started = []

    def end_a_worker(done, count):
        if not started:
            started.extend(Path(f"/proc/self/task/{os.getpid()}/children").read_text().split())
            for child in started:
                if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes():
                    os.kill(int(child), signal.SIGKILL)

    with pytest.raises(ElleError, match=r"(?s)a worker ended by itself.*fewer workers"):
        dataset.build("basic", 200_000, 3, tmp_path / "set", workers=2, progress=end_a_worker)
    assert not (tmp_path / "set").exists()


def test_a_full_disk_is_said_and_nothing_half_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ElleError, match="cannot write"):
        dataset.build("basic", 40, 1, tmp_path / "file")
    mine = tmp_path / "mine.jsonl"
    storage.write_lines(mine, [record(number) for number in range(100)])
    # A limit on the size of files, in KiB, stands in for a full disk: it is met in the training file.
    made, converted = "basic --count 1000 --workers", f"convert {mine} --format"
    for words in (f"{made} 1", f"{made} 2", f"{converted} jsonl", f"{converted} parquet"):
        command = f"ulimit -f 4; exec {sys.executable} -m helpers.cli data {words} --out {tmp_path}/new/set"
        ran = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
        assert ran.returncode == 1
        assert "cannot write: File too large" in ran.stderr
        assert "Traceback" not in ran.stderr
        assert not (tmp_path / "new").exists()


def test_of_two_that_make_one_set_the_second_waits_and_finds_it_made(tmp_path):
    """The second took the first one's half-made files for those of a process that was killed."""
    described = {"kind": "basic", "count": 40, "seed": 1, "version": dataset.VERSIONS["basic"]}
    begun, go = threading.Event(), threading.Event()

    def slowly():
        begun.set()
        go.wait(20)
        for index in range(40):
            yield dataset.split_of(index), Example.of(dataset.row("basic", 1, index))

    with ThreadPoolExecutor() as pool:
        first = pool.submit(lambda: dataset.write_splits(tmp_path / "set", described, slowly()))
        assert begun.wait(20)
        second = pool.submit(lambda: dataset.build("basic", 40, 1, tmp_path / "set"))
        other = pool.submit(lambda: dataset.build("basic", 60, 1, tmp_path / "set"))
        assert not wait([second, other], timeout=0.5).done
        go.set()
        assert first.result(20) == second.result(20)
        with pytest.raises(ElleError, match="already holds another data set"):
            other.result(20)
    assert {path.name for path in (tmp_path / "set").iterdir()} == {
        "manifest.json", *(f"{split}.jsonl" for split in dataset.SPLITS)
    }  # fmt: skip


def test_reading_names_file_and_line(tmp_path):
    dataset.build("basic", 40, 3, tmp_path)
    path = tmp_path / "train.jsonl"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0], lines[1][:50], *lines[2:]]))
    with pytest.raises(ElleError, match=r"where: .*train\.jsonl:2"):
        dataset.read_split(tmp_path, "train")
    path.write_text("")
    for folder, split, what in ((".", "train", "empty"), (".", "training", "unknown"), ("x", "train", "no data set")):
        with pytest.raises(ElleError, match=what):
            dataset.read_split(tmp_path / folder, split)


TURNS = [{"from": speaker, "value": "x"} for speaker in ("system", "human", "gpt")]


@pytest.mark.parametrize("turns", [None, "text", TURNS[:2], TURNS[::-1], [*TURNS[:2], {"from": "gpt", "value": 5}]])
def test_a_row_of_wrong_types_is_named_with_its_line(tmp_path, turns):
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"conversations": TURNS}) + "\n\n" + json.dumps({"conversations": turns}) + "\n")
    with pytest.raises(ElleError, match=r"(?s)not a system, human, gpt conversation.*rows\.jsonl:3"):
        list(dataset.read_rows(path))  # a blank line is a line


FACTS = {"file": "train.jsonl", "rows": 36, "sha256": ""}


@pytest.mark.parametrize("train", [None, {}, FACTS | {"rows": "36"}, FACTS | {"file": "../train.jsonl"}])
def test_a_damaged_manifest_is_named(tmp_path, train):
    (tmp_path / "manifest.json").write_text(json.dumps({"splits": {"train": train}} if train is not None else []))
    for use in (dataset.load_manifest, lambda folder: dataset.build("basic", 40, 3, folder)):
        with pytest.raises(ElleError, match=f"(?s)does not describe the files.*{tmp_path}/manifest.json"):
            use(tmp_path)


def test_a_path_that_cannot_be_is_a_clear_error(tmp_path):
    # A bug once: `Path.exists` raises for a name that is too long, or in a folder that may not be read.
    folder = tmp_path / ("x" * 300)
    for use in (dataset.load_manifest, lambda path: dataset.build("basic", 40, 3, path)):
        with pytest.raises(ElleError, match=f"(?s)too long.*{folder}"):
            use(folder)


def test_splitting_takes_a_few_bytes_a_row(tmp_path):
    """Of each prompt 8 bytes are kept, and copies while they are compared; as Python integers they would be 77."""

    def peak(count: int) -> int:
        examples = ((dataset.split_of(i), Example("", "", f"{i}", "")) for i in range(count))
        tracemalloc.start()
        dataset.write_splits(tmp_path / str(count), {}, examples)
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most

    assert peak(60_000) - peak(20_000) < 40_000 * 55


TEXTS = dict.fromkeys((*CATEGORIES, "summary", "nsm"), "a text")


def record(number: int) -> dict:
    trends = [*metrics.TRENDS.values(), *metrics.TRENDS]
    return {
        "nations": {"UKR": 0.74, "FIN": round(number / 100, 2)},
        "signals": {"articles": number, "tone": -3.14},
        "categories": {name: {"risk": 10 * at + 0.4, "trend": trends[at]} for at, name in enumerate(CATEGORIES)},
        "briefings": {key: f"Text {number} for {key}." for key in TEXTS},
    }


def test_a_users_records_become_a_set(tmp_path):
    rows = [record(number) for number in range(40)]
    rows += [rows[0]] * 3  # the same figures again: they stay in one split
    storage.write_lines(tmp_path / "mine.jsonl", rows)
    arguments = ["data", "convert", str(tmp_path / "mine.jsonl"), "--out", str(tmp_path / "set"), "--json"]
    ran = CliRunner().invoke(cli.cli, arguments)
    assert sum(json.loads(ran.stdout)[split] for split in dataset.SPLITS) == 43
    manifest = dataset.load_manifest(tmp_path / "set")
    assert manifest["prompts_shared_between_splits"] == 0
    first = dataset.read_split(tmp_path / "set", "test")[0]
    assert Example.of(first).prompt == (
        "NATIONS: UKR 74%, FIN 0%, mean 37%\nSIGNALS: articles 0, tone -3.1\nCATEGORIES: political 0 ↑, "
        "economic 10 ↓, security 20 →, military 30 ↑, financial 40 ↓, cyber 50 →"
    )
    assert json.loads(Example.of(first).answer) == rows[0]["briefings"]
    with pytest.raises(ElleError, match="already holds"):
        convert(tmp_path / "mine.jsonl", tmp_path / "set")
    convert(tmp_path / "mine.jsonl", tmp_path / "again", format="parquet")
    assert dataset.read_split(tmp_path / "again", "test")[0] == first


SURROGATE = ("briefings", TEXTS | {"nsm": "\ud800"}, "not a character, in nsm")


@pytest.mark.parametrize(("place", "value", "what"), [*FAULTY["records"], SURROGATE])
def test_a_faulty_record_is_named_with_its_line_and_nothing_is_written(tmp_path, place, value, what):
    rows = [record(number) for number in range(30)]
    *outer, key = place.split(".")
    holder = functools.reduce(dict.__getitem__, outer, rows[2])
    holder[key] = value
    if value == "absent":
        del holder[key]
    (tmp_path / "mine.jsonl").write_text("\n".join(map(json.dumps, rows)))
    with pytest.raises(ElleError) as caught:
        convert(tmp_path / "mine.jsonl", tmp_path / "set")
    assert what in caught.value.what
    assert caught.value.where == f"{tmp_path / 'mine.jsonl'}:3, {place}"
    assert not (tmp_path / "set").exists()


def test_files_that_hold_no_records_are_refused(tmp_path):
    mine, out = tmp_path / "mine.jsonl", tmp_path / "set"
    lines = [json.dumps(record(number)) for number in range(30)]
    for text, what, line in (
        ("\n".join([lines[0], lines[1][:50]]), "not valid JSON", ":2"),
        ("\n".join([lines[0], "[1]"]), "not an object", ":2"),
        (lines[0].replace('"FIN"', '"UKR"'), "'UKR' appears twice", ":1"),
        ("\n".join(lines[:19]), "cannot fill three splits", ""),
        ("\n".join([lines[0]] * 40), "1 with different figures", ""),
    ):
        mine.write_text(text)
        with pytest.raises(ElleError) as caught:
            convert(mine, out)
        assert what in caught.value.what
        assert caught.value.where == f"{mine}{line}"
        assert not out.exists()
    with pytest.raises(ElleError, match="file not found"):
        convert(tmp_path / "nowhere.jsonl", out)
