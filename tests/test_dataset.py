"""The briefing data: prompts that read back, examples that depend on nothing but (seed, index), sets on disk."""

import json
import re
import tracemalloc
from decimal import Decimal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from elle.base.errors import ElleError
from elle.briefings import dataset, metrics, scenario, writer
from elle.briefings.schema import CATEGORIES, Briefing, json_schema

risks = st.integers(0, 100)
optional_counts = st.none() | st.integers(0, 999)


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


@given(any_metrics())
def test_a_prompt_reads_back_as_what_it_was_made_from(figures):
    assert metrics.parse(metrics.render(figures)) == figures


@given(any_metrics(), st.integers(0, 2**32))
def test_every_answer_is_a_briefing_whatever_the_figures(figures, seed):
    choices = np.random.default_rng(seed).random(writer.CHOICES).tolist()
    turns = writer.conversation(figures, writer.picker(choices))
    assert [turn["from"] for turn in turns] == ["system", "human", "gpt"]
    briefing = Briefing.model_validate_json(turns[2]["value"])
    assert briefing == writer.compose(figures, writer.picker(choices))
    assert turns[2]["value"] == json.dumps(briefing.model_dump(), ensure_ascii=False, separators=(",", ":"))


@given(st.text(max_size=300))
def test_any_other_text_is_refused_with_a_reason(text):
    with pytest.raises(ElleError):
        metrics.parse(text)


def test_a_faulty_prompt_names_its_line():
    prompt = metrics.render(scenario.draw(scenario.generator(1, 1))[1])
    political = re.search(r"political \d+ .", prompt)[0]
    for right, wrong in (
        (political, "political 101 ↑"),
        (political, "political x ↑"),
        (political, f"{political}, {political}"),
        (f"{political}, ", ""),
    ):
        with pytest.raises(ElleError) as caught:
            metrics.parse(prompt.replace(right, wrong))
        assert "CATEGORIES" in caught.value.where
    with pytest.raises(ElleError, match="the mean of these nations"):
        metrics.parse(re.sub(r"mean \d+", "mean 100", prompt))
    with pytest.raises(ElleError, match="it needs the lines"):
        metrics.parse(prompt.replace("SIGNALS", "SIGNS"))


def test_risk_words_do_not_contradict_the_trend():
    for value in range(101):
        for trend in (*metrics.TRENDS.values(), None):
            words = metrics.risk_words(value, trend)
            assert words
            assert trend == "steady" or "stable" not in words
            assert trend == "rising" or not {"increasing", "escalating"} & set(words)


def test_tone_is_never_minus_zero():
    # A bug once: rounding -0.02 to one decimal printed `tone -0.0`.
    tones = [str(m.tone) for block in range(12) for m in scenario.draw(scenario.generator(42, block))]
    assert "0.0" in tones
    assert "-0.0" not in tones


def test_an_example_depends_on_seed_and_index_alone():
    alone = dataset.row("basic", 5, 123)
    in_order = [dataset.row("basic", 5, index) for index in range(120, 126)]
    assert in_order[3] == alone
    assert dataset.row("basic", 6, 123) != alone
    assert dataset.row("basic", 5, 124) != alone


def test_the_simulated_world_spans_its_range_and_has_its_edge_cases():
    drawn = [m for block in range(8) for m in scenario.draw(scenario.generator(9, block))]
    political = np.array([m.categories["political"][0] for m in drawn])
    assert political.min() == 0
    assert political.max() == 100
    assert political.std() > 15
    assert {len(m.nations) for m in drawn} == set(range(scenario.MAX_NATIONS + 1))
    assert {code for m in drawn for code, _ in m.nations} == set(scenario.COUNTRIES)
    for name in metrics.SIGNALS:
        assert any(getattr(m, name) is None for m in drawn)
    mean = {code: np.mean([r for m in drawn for c, r in m.nations if c == code]) for code in ("SYR", "JPN")}
    assert mean["SYR"] > 80
    assert mean["JPN"] < 25


def test_a_set_has_the_same_bytes_every_time_and_disjoint_splits(tmp_path):
    first = dataset.build("basic", 200, 3, tmp_path / "a")
    second = dataset.build("basic", 200, 3, tmp_path / "b")
    assert first == second
    assert {name: facts["rows"] for name, facts in first["splits"].items()} == {
        "train": 180,
        "validation": 10,
        "test": 10,
    }
    ids = [row["id"] for split in dataset.SPLITS for row in dataset.read_split(tmp_path / "a", split)]
    assert len(ids) == len(set(ids)) == 200
    assert first["prompts_shared_between_splits"] == 0


def test_a_set_grows_without_an_example_changing_sides(tmp_path):
    dataset.build("basic", 100, 3, tmp_path / "small")
    dataset.build("basic", 200, 3, tmp_path / "large")
    for split in dataset.SPLITS:
        small = [row["id"] for row in dataset.read_split(tmp_path / "small", split)]
        assert [row["id"] for row in dataset.read_split(tmp_path / "large", split, limit=len(small))] == small


def test_a_folder_with_another_set_is_left_alone(tmp_path):
    dataset.build("basic", 40, 3, tmp_path)
    before = (tmp_path / "train.jsonl").read_bytes()
    with pytest.raises(ElleError, match="another data set"):
        dataset.build("basic", 60, 3, tmp_path)
    assert dataset.build("basic", 40, 3, tmp_path)["count"] == 40
    assert dataset.ensure("basic", 60, 3, tmp_path)["count"] == 40
    assert (tmp_path / "train.jsonl").read_bytes() == before


def test_an_interrupted_set_leaves_no_manifest_and_no_partial_file(tmp_path, monkeypatch):
    real, calls = dataset.row, []

    def failing(kind, seed, index):
        calls.append(index)
        if len(calls) > 183:
            raise KeyboardInterrupt
        return real(kind, seed, index)

    monkeypatch.setattr(dataset, "row", failing)
    with pytest.raises(KeyboardInterrupt):
        dataset.build("basic", 200, 3, tmp_path)
    assert {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")} == {"parts", "parts/asked.json"}
    monkeypatch.setattr(dataset, "row", real)
    assert dataset.build("basic", 200, 3, tmp_path)["count"] == 200


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("basics", 40, 1), "did you mean 'basic'"),
        (("basic", 0, 1), "at least 20"),
        (("basic", -5, 1), "at least 20"),
        (("basic", 40, -1), "seed"),
    ],
)
def test_impossible_sets_are_refused(tmp_path, arguments, expected):
    with pytest.raises(ElleError) as caught:
        dataset.build(*arguments, tmp_path)
    assert expected in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_reading_names_file_and_line(tmp_path):
    dataset.build("basic", 40, 3, tmp_path)
    path = tmp_path / "train.jsonl"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0], lines[1][:50], *lines[2:]]))
    with pytest.raises(ElleError) as caught:
        dataset.read_split(tmp_path, "train")
    assert caught.value.where.endswith("train.jsonl:2")
    path.write_text(json.dumps({"conversations": [{"from": "human", "value": "x"}]}) + "\n")
    with pytest.raises(ElleError, match="not a system, human, gpt conversation"):
        dataset.read_split(tmp_path, "train")
    path.write_text("")
    with pytest.raises(ElleError, match="empty"):
        dataset.read_split(tmp_path, "train")
    with pytest.raises(ElleError, match="unknown split"):
        dataset.read_split(tmp_path, "training")
    with pytest.raises(ElleError, match="no data set"):
        dataset.read_split(tmp_path / "nowhere", "train")


TURNS = [{"from": speaker, "value": "x"} for speaker in ("system", "human", "gpt")]


@pytest.mark.parametrize(
    "turns", [None, 5, "text", [], TURNS[:2], [*TURNS, 5], TURNS[::-1], [*TURNS[:2], {"from": "gpt", "value": 5}]]
)
def test_a_row_of_wrong_types_is_named_with_its_line(tmp_path, turns):
    dataset.build("basic", 40, 3, tmp_path)
    with (tmp_path / "train.jsonl").open("a") as file:
        file.write("\n" + json.dumps({"conversations": turns}) + "\n")
    with pytest.raises(ElleError, match="not a system, human, gpt conversation") as caught:
        dataset.read_split(tmp_path, "train")
    assert caught.value.where.endswith("train.jsonl:38")  # a blank line is a line


@pytest.mark.parametrize(
    "manifest",
    [
        [],
        {},
        {"splits": {}},
        {"splits": 3},
        {"splits": {"train": {}}},
        {"splits": {"train": {"file": "train.jsonl", "rows": "36", "sha256": ""}}},
        {"splits": {"train": {"file": "../train.jsonl", "rows": 36, "sha256": ""}}},
    ],
)
def test_a_damaged_manifest_is_named(tmp_path, manifest):
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    for use in (dataset.load_manifest, lambda folder: dataset.build("basic", 40, 3, folder)):
        with pytest.raises(ElleError, match="does not describe the files") as caught:
            use(tmp_path)
        assert caught.value.where == str(tmp_path / "manifest.json")


@pytest.mark.parametrize(
    "damage", [lambda text: text[:-40], lambda text: text[:-1], lambda text: "", lambda text: 2 * text]
)
def test_a_damaged_part_is_named_and_never_dealt_out(tmp_path, monkeypatch, damage):
    # A bug once: rows behind a cut part would have changed sides.
    whole = dataset.build("basic", 60, 3, tmp_path / "whole")
    monkeypatch.setattr(dataset, "PART", 20)
    monkeypatch.setattr(dataset, "write_splits", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    folder = tmp_path / "set"
    with pytest.raises(KeyboardInterrupt):
        dataset.build("basic", 60, 3, folder)
    monkeypatch.undo()
    monkeypatch.setattr(dataset, "PART", 20)
    part = folder / "parts" / "000001.jsonl"
    part.write_text(damage(part.read_text()))
    with pytest.raises(ElleError, match="damaged") as caught:
        dataset.build("basic", 60, 3, folder)
    assert caught.value.where.startswith(f"{part}:")
    assert {path.name for path in folder.iterdir()} == {"parts"}
    part.unlink()
    assert dataset.build("basic", 60, 3, folder) == whole


def test_a_path_that_cannot_be_is_a_clear_error(tmp_path):
    # A bug once: `Path.exists` raises for a name that is too long, or in a folder that may not be read.
    folder = tmp_path / ("x" * 300)
    for use in (dataset.load_manifest, lambda path: dataset.build("basic", 40, 3, path)):
        with pytest.raises(ElleError, match="too long") as caught:
            use(folder)
        assert str(folder) in caught.value.where


def test_splitting_takes_a_few_bytes_a_row(tmp_path):
    # A digest of each prompt is all that is kept: 8 bytes, and copies while they are compared; as Python integers they
    # would be 77 bytes a row.
    def peak(count: int) -> int:
        lines = ((dataset.split_of(i), b'{"from":"human","value":"%d"},{"from":"gpt"}\n' % i) for i in range(count))
        tracemalloc.start()
        try:
            dataset.write_splits(tmp_path / str(count), {}, lines)
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    assert peak(100_000) - peak(20_000) < 80_000 * 55


def test_the_schema_for_constrained_decoding_is_the_briefings():
    schema = json_schema()
    assert schema["required"] == [*CATEGORIES, "summary", "nsm"]
    assert schema["additionalProperties"] is False
