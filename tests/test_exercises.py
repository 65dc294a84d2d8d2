"""The exercises' checks: a right answer is seen, a wrong one gets the hint that it needs, and none ends a notebook."""

import re
from types import SimpleNamespace

import pytest

from elle.base import paths
from elle.base.errors import ElleError
from elle.briefings import dataset, metrics
from elle.plan import preflight
from experiments.stacking import Experiment
from helpers.course import exercises, overview
from helpers.runs import parameters

HISTORY = [{"step": 90, "loss": 0.6}] + [
    {"step": step, "eval_loss": loss} for step, loss in [(100, 0.79), (200, 0.45), (250, 0.22), (300, 0.14)]
]
PARAMETERS = list(parameters.parameters(parameters.file_of("05_train")))
EXPERIMENT = SimpleNamespace(
    recipes={"sums": "configs/nano_math.yaml", "high": "configs/nano_stack.yaml"},
    assessments=1000,
    length=Experiment.length,
)


@pytest.fixture(scope="module")
def rows():
    return [dataset.row("basic", 42, index) for index in range(100)]


@pytest.fixture(scope="module")
def written():
    return preflight.plan("configs/config_14b.yaml", data="basic")


def reads_back(prompt):
    try:
        metrics.parse(prompt)
    except ElleError:
        return False
    return True


@pytest.mark.parametrize(
    ("check", "answer", "context", "said"),
    [
        ("parameters_of", PARAMETERS[1:], ("05_train",), f"1 of its {len(PARAMETERS)} parameters are missing"),
        ("parameters_of", [*PARAMETERS, "lr"], ("05_train",), "lr: no parameter there"),
        ("parameters_of", "recipe", ("05_train",), "A list of names"),
        ("cheapest_cut", "much", (), "A number is asked for"),
        ("cheapest_cut", 1.5, (), "between 0 and 1"),
        ("cheapest_cut", 0.4258, (), "the cut of 2 units"),
        ("cheapest_cut", 0.2, (), "costs 0.0448 nats"),
        ("spreads_that_pass", 0.01, (), "Two spreads"),
        ("spreads_that_pass", (2, 5), (), "a share of the truth"),
        ("spreads_that_pass", (0.02, 0.05), (), "not by 92.1 %"),
        ("loss_before_copying", 0.14, (HISTORY, 300), "the validation loss of step 300"),
        ("loss_before_copying", 0.6, (HISTORY, 300), "on training batches"),
        ("loss_before_copying", 3, (HISTORY, 300), "had that loss"),
        ("loss_before_copying", 0.22, (HISTORY, None), "has not learned to copy"),
        ("fair_epochs", 3, (EXPERIMENT,), "Stage 1 saw 19,200 rows"),
        ("fair_epochs", 22, (EXPERIMENT,), "count tokens"),
        ("metrics_that_move", ["json_strict"], (), "json_strict does not move"),
        ("metrics_that_move", ["numeric_precision"], (), "2 more move"),
        ("careful_client", True, (), "A function"),
        ("careful_client", lambda prompt: True, (), "`political 250`"),
        ("careful_client", lambda prompt: False, (), "This prompt is in order"),
        ("careful_client", lambda prompt: 1 / 0, (), "ZeroDivisionError"),
        ("break_even_of_an_idle_machine", 10, (), "More."),
        ("break_even_of_an_idle_machine", 1e9, (), "Fewer."),
        ("break_even_of_an_idle_machine", 700_000, (), "Three times as many?"),
        ("all_right_above_99", 100, (), "begins at 96.30%"),
        ("all_right_above_99", 1000, (), "so are fewer"),
        ("all_right_above_99", -1, (), "At least one"),
    ],
)
def test_a_wrong_answer_gets_its_hint(check, answer, context, said):
    reply = getattr(exercises, check)(answer, *context)
    assert not reply
    assert repr(reply).startswith("Not yet. ")
    assert said in repr(reply)


@pytest.mark.parametrize(
    ("check", "answer", "context"),
    [
        ("parameters_of", PARAMETERS, ("05_train",)),
        ("cheapest_cut", 0.314, ()),
        ("spreads_that_pass", (0.01, 0.02), ()),
        ("loss_before_copying", 0.22, (HISTORY, 300)),
        ("fair_epochs", 7.4, (EXPERIMENT,)),
        ("metrics_that_move", ["numeric_precision", "numeric_recall", "all_right"], ()),
        ("careful_client", reads_back, ()),
        ("break_even_of_an_idle_machine", 230_000, ()),
        ("all_right_above_99", 381, ()),
    ],
)
def test_a_right_answer_is_seen_and_none_is_asked_for(check, answer, context):
    reply = getattr(exercises, check)(answer, *context)
    assert reply
    assert repr(reply).startswith("Right. ")
    nothing = getattr(exercises, check)(None, *context)
    assert not nothing
    assert "in place of None" in repr(nothing)


def test_examples_are_counted_not_nations(rows):
    drawn = dataset.metrics_of(rows)
    above = sum(bool(figures.above_half) for figures in drawn)
    nations = sum(len(figures.above_half) for figures in drawn)
    assert exercises.with_a_nation_above_half(above, rows)
    for wrong, said in (
        (nations, "counts nations"),
        (above - 1, "more than"),
        (above + 1, "fewer than"),
        (0.8, "share"),
    ):
        reply = exercises.with_a_nation_above_half(wrong, rows)
        assert not reply
        assert said in reply.text


def test_the_longest_rows_fit_and_longer_ones_do_not(written):
    replies = {length: exercises.longest_rows(length, written) for length in range(2048, 16385, 1024)}
    (right,) = [length for length, reply in replies.items() if reply]
    assert all("so do longer ones" in reply.text for length, reply in replies.items() if length < right)
    assert all("the peak is" in reply.text for length, reply in replies.items() if length > right)
    assert "A multiple of 1,024" in exercises.longest_rows(5000, written).text


def test_a_hint_does_not_hold_the_answer(written):
    for reply, right in (
        (exercises.cheapest_cut(0.2), "0.31"),
        (exercises.all_right_above_99(300), "381"),
        (exercises.metrics_that_move(["numeric_precision"]), "numeric_recall"),
        (exercises.parameters_of(PARAMETERS[1:], "05_train"), PARAMETERS[0]),
        (exercises.longest_rows(4096, written), "13,312"),
    ):
        assert right not in reply.text


# The map of the course


def test_the_course_is_its_notebooks_and_each_says_its_question_and_time():
    assert [station.step for station in overview.STATIONS] == sorted(p.stem for p in paths.notebooks().glob("*.ipynb"))
    numbers = [station.number for station in overview.STATIONS]
    for station in overview.STATIONS:
        assert station.question.endswith("?")
        assert re.search(r"second|minute", station.laptop)
        assert set(station.needs) <= set(station.reads) <= set(numbers[: numbers.index(station.number)])


def test_the_map_shows_how_far_a_run_has_come(tmp_path):
    assert overview.states(tmp_path)["07"] == "waits"
    manifest = tmp_path / "manifests" / "05_train.json"
    manifest.parent.mkdir()
    manifest.write_text("{}")
    standing = overview.states(tmp_path)
    assert (standing["00"], standing["03"], standing["05"], standing["07"]) == ("here", "ready", "done", "ready")
    assert [row["in this run"] for row in overview.table(tmp_path)] == list(standing.values())


def test_what_is_missing_is_named_with_what_to_do(monkeypatch, tmp_path):
    from elle.base import machine

    monkeypatch.setenv("ELLE_SERVER_PYTHON", str(tmp_path / "bin" / "python"))
    monkeypatch.setenv("RUNPOD_API_KEY", "rpa_SECRET")
    small = machine.Machine("a processor", 2, 4.0, 0.5, gpu_note="nvidia-smi is not installed here")
    rows = {row["what"]: row for row in overview.equipment(small)}
    assert rows["server"]["found"] == "missing"
    assert "make setup" in rows["server"]["to do"]
    assert "close what you can" in rows["memory"]["to do"]
    assert "make room" in rows["free disk"]["to do"]
    assert rows["keys"]["found"] == "RUNPOD_API_KEY"
    assert "SECRET" not in str(rows)
