"""The exercises' checks: a right answer is seen, a wrong one gets the hint that it needs, and none ends a notebook."""

import contextlib
import functools
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


def is_read(prompt):
    """A careful client's check."""
    with contextlib.suppress(ElleError):
        return bool(metrics.parse(prompt))
    return False


ROWS = [dataset.row("basic", 42, index) for index in range(100)]
ABOVE = [len(figures.above_half) for figures in dataset.metrics_of(ROWS)]
RIGHT = {
    "parameters_of": PARAMETERS,
    "cheapest_cut": 0.314,
    "spreads_that_pass": (0.01, 0.02),
    "with_a_nation_above_half": sum(map(bool, ABOVE)),
    "longest_rows": 13312,
    "loss_before_copying": 0.22,
    "fair_epochs": 7.4,
    "metrics_that_move": ["numeric_precision", "numeric_recall", "all_right"],
    "careful_client": is_read,
    "break_even_of_an_idle_machine": 230_000,
    "all_right_above_99": 381,
}
#: Exercise → wrong answers, and what is said of them.
WRONG = {
    "parameters_of": [(PARAMETERS[1:], "1 of its"), ([*PARAMETERS, "lr"], "lr: no parameter"), ("recipe", "A list of")],
    "cheapest_cut": [("much", "A number is asked"), (1.5, "between 0 and 1"), (0.2, "costs 0.0448 nats")],
    "spreads_that_pass": [(0.01, "Two spreads"), ((2, 5), "a share of the truth"), ((0.02, 0.05), "not by 92.1 %")],
    "with_a_nation_above_half": [(sum(ABOVE), "counts nations"), (0, "more than"), (99, "fewer than"), (0.8, "share")],
    "longest_rows": [(4096, "so do longer ones"), (14336, "the peak is"), (5000, "A multiple of 1,024")],
    "loss_before_copying": [(0.14, "loss of step 300"), (0.6, "on training batches"), (3, "had that loss")],
    "fair_epochs": [(3, "Stage 1 saw 19,200 rows"), (22, "count tokens")],
    "metrics_that_move": [(["json_strict"], "json_strict does not move"), (["numeric_precision"], "2 more move")],
    "careful_client": [(True, "A function"), (bool, "`political 250`"), (lambda prompt: 1 / 0, "ZeroDivisionError")],
    "break_even_of_an_idle_machine": [(10, "More."), (1e9, "Fewer."), (700_000, "Three times as many?")],
    "all_right_above_99": [(100, "begins at 96.30%"), (1000, "so are fewer"), (-1, "At least one")],
}


@functools.cache
def replied(check):
    """An exercise's check, with what it needs to know besides."""
    context = {
        "parameters_of": ("05_train",),
        "with_a_nation_above_half": (ROWS,),
        "longest_rows": (preflight.plan("configs/config_14b.yaml", data="basic"),),
        "loss_before_copying": (HISTORY, 300),
        "fair_epochs": (EXPERIMENT,),
    }
    return lambda answer: getattr(exercises, check)(answer, *context.get(check, ()))


@pytest.mark.parametrize("check", RIGHT)
def test_a_right_answer_is_seen_and_none_is_asked_for(check):
    reply, nothing = map(replied(check), (RIGHT[check], None))
    assert reply
    assert repr(reply).startswith("Right. ")
    assert not nothing
    assert "in place of None" in repr(nothing)


@pytest.mark.parametrize(
    ("check", "answer", "said"), [(check, *wrong) for check, answers in WRONG.items() for wrong in answers]
)
def test_a_wrong_answer_gets_its_hint_which_does_not_hold_the_right_one(check, answer, said):
    reply = replied(check)(answer)
    assert not reply
    assert repr(reply).startswith("Not yet. ")
    assert said in repr(reply)
    assert not isinstance(RIGHT[check], int) or f"{RIGHT[check]:,}" not in repr(reply)


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
