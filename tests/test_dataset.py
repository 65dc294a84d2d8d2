"""The briefing data: prompts that read back, examples that depend on nothing but (seed, index), sets on disk."""

import json
import re
from decimal import Decimal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers.briefings import dataset, metrics, scenario, writer
from helpers.briefings.schema import CATEGORIES, Briefing, json_schema
from helpers.errors import ElleError

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


def test_the_schema_for_constrained_decoding_is_the_briefings():
    schema = json_schema()
    assert schema["required"] == [*CATEGORIES, "summary", "nsm"]
    assert schema["additionalProperties"] is False
