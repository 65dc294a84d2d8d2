"""Every figure holds to the style: labels with units, nothing cut off or on top of another, colours that are told apart
without seeing them, legible on a dark page and at 900 pixels."""

import functools
import inspect
import itertools
import re

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.collections import PathCollection
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.text import Text
from matplotlib.ticker import PercentFormatter
from test_gather import ROWS, flawed, right
from test_launch import run_of
from test_stacking import scores_of

from cic.trials import documents, traces, transitions, votes
from elle.briefings import dataset, world
from elle.evaluation import audit, gather
from elle.evaluation.compare import compare
from elle.evaluation.scorecard import METRICS, score
from elle.plan import preflight
from experiments.stacking import ARMS, STAGE_1, pictures
from helpers import economics, plots
from helpers.course import overview
from helpers.plots import looks

#: Figure → why an axis of it has no label.
UNLABELLED = {
    "course.stations_map": "a map: its places have no coordinates",
    "cic.lattices": "sites of a lattice: they have no numbers",
}
#: Figure → why things in its legend may differ by colour alone.
BY_COLOUR = {"cic.phase_map": "each area bears the letter that its name begins with"}
#: What an axis counts or measures in.
UNIT = re.compile(
    r"%|\$|\b(nats|bits|seconds|milliseconds|hours|dollars|GB|tokens|steps?|months?|observations|requests|examples|"
    r"briefings|characters|nations|pieces|percentage points|share|number|0 to 1|no unit|correlation|probability)\b"
)
#: A name, and no number: neither a formula nor millions.
WORD = re.compile(r"(?!\$|[\d.,−]+( million)?$).*[^\W\d_]")
#: What has none: indices, ratios, probabilities, and what a simulation counts in units of its own.
PURE = re.compile(r"AUC|distance|temperature|1 − error|operator|μ|state|drift|shifted|learning rate|norm |scenario")


def lightness(colour) -> float:
    """CIE 1976 L* of a colour, 0 to 100: what is left of it in grey."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(colour)]
    y = float(np.dot((0.2126, 0.7152, 0.0722), linear))
    return 116 * y ** (1 / 3) - 16 if y > 0.008856 else 903.3 * y


def ticks_of(axis) -> tuple[set[Text], list[Text]]:
    """All labels of an axis's ticks, and those that are drawn."""
    low, high = sorted(axis.get_view_interval())
    slack, ticks = 1e-9 * (high - low), axis.get_major_ticks() + axis.get_minor_ticks()
    drawn = [t.label1 for t in ticks if t.get_visible() and low - slack <= t.get_loc() <= high + slack]
    every = {label for t in ticks for label in (t.label1, t.label2)}
    return every, [label for label in drawn if label.get_visible() and label.get_text()]


def unlabelled(axes, axis, siblings, ticks: list[Text], name: str) -> str | None:
    """What is wrong with the label of an axis."""
    label, where = axis.get_label().get_text(), f"at {axis.axis_name}"
    if ticks and all(WORD.match(tick.get_text()) for tick in ticks):  # names need no name
        return None
    if label:
        known = isinstance(axis.get_major_formatter(), PercentFormatter) or UNIT.search(label) or PURE.search(label)
        return None if known or not ticks else f"no unit {where}: {label}"
    others = (getattr(each, f"{axis.axis_name}axis") for each in siblings)
    beside = any(other.get_label().get_text() or ticks_of(other)[1] for other in others)  # judged there
    exempt = name in UNLABELLED or axes.get_label() == "<colorbar>" or beside
    return None if exempt and not ticks else f"no label {where}"


def look(handle) -> tuple[tuple, str]:
    """How a thing in a legend looks: its shape, and its colour."""
    if isinstance(handle, Line2D):
        colour = handle.get_color() if handle.get_linestyle() != "None" else handle.get_markerfacecolor()
        return (handle.get_linestyle(), str(handle._dash_pattern), handle.get_marker()), to_hex(colour)
    shape = handle.get_paths()[0].vertices.tobytes() if isinstance(handle, PathCollection) else handle.get_hatch()
    return (type(handle).__name__, shape), to_hex(np.atleast_2d(handle.get_facecolor())[0])


def alike(one, other) -> bool:
    """Whether two things in a legend differ by hue alone."""
    (shape, colour), (other_shape, other_colour) = look(one), look(other)
    return shape == other_shape and abs(lightness(colour) - lightness(other_colour)) < 15


def overlap(one, other) -> bool:
    """Whether two boxes share more than a pixel's edge."""
    width = min(one.x1, other.x1) - max(one.x0, other.x0)
    height = min(one.y1, other.y1) - max(one.y0, other.y0)
    return width > 1 and height > 1


def faults(figure: Figure, name: str = "") -> list[str]:
    """What is wrong with a figure; name: as in the tables above."""
    figure.draw_without_rendering()
    found, labels, shown = [], set(), []
    for axes in figure.axes:
        if not axes.axison:
            found += [] if name in UNLABELLED else ["axes without an axis"]
            labels |= ticks_of(axes.xaxis)[0] | ticks_of(axes.yaxis)[0]
            continue
        for axis, shared in ((axes.xaxis, axes.get_shared_x_axes()), (axes.yaxis, axes.get_shared_y_axes())):
            every, ticks = ticks_of(axis)
            labels |= every
            shown += ticks
            found += [fault] if (fault := unlabelled(axes, axis, shared.get_siblings(axes), ticks, name)) else []
    shown += [t for t in figure.findobj(Text) if t not in labels and t.get_visible() and t.get_text().strip()]
    boxes = [(text.get_text(), text.get_window_extent()) for text in shown]
    canvas = figure.bbox.padded(1)
    found += [
        f"cut off: {said}" for said, box in boxes
        if min(box.x0, box.y0) < canvas.x0 or box.x1 > canvas.x1 or box.y1 > canvas.y1
    ]  # fmt: skip
    found += [f"on one another: {a[0]}, {b[0]}" for a, b in itertools.combinations(boxes, 2) if overlap(a[1], b[1])]
    found += [f"too small: {text.get_text()}" for text in shown if text.get_fontsize() < looks.SMALL]
    pale = [text for text in shown if lightness(text.get_color()) > 50 and to_hex(text.get_color()) != "#ffffff"]
    found += [f"pale: {text.get_text()}" for text in pale]
    for part in (figure, *figure.axes):
        if part.get_facecolor()[3] < 1 or lightness(part.get_facecolor()) < 95:
            found.append("the background is not an opaque white")
    handles = [*figure.legends, *(axes.get_legend() for axes in figure.axes if axes.get_legend())]
    for legend in () if name in BY_COLOUR else handles:
        pairs = itertools.combinations(zip(legend.legend_handles, legend.get_texts(), strict=True), 2)
        found += [
            f"told apart by hue alone: {a[1].get_text()}, {b[1].get_text()}" for a, b in pairs if alike(a[0], b[0])
        ]
    return found + (["wider than a page"] if figure.get_figwidth() > 9 else [])


# What the figures are drawn from: small, and of the real kind


def load_points():
    keys = ("concurrency", "tokens_per_second", "p50", "p95", "first_token", "inter_token")
    measured = ((1, 247, 0.62, 0.91, 0.020, 0.004), (16, 2420, 0.9, 1.2, None, None))
    points = [dict(zip(keys, values, strict=True)) for values in measured]
    return ([point | {"constrained": held} for point in points for held in (False, True)],)


def stations():
    states = ("here", "done", "ready", "done", "waits", "ready", "waits", "waits", "waits", "ready", "waits")
    stations = zip(overview.STATIONS, states, strict=True)
    return ([(each.number, each.makes, state, each.reads) for each, state in stations],)


def integration():
    coupling = np.linspace(0, 0.9, 10)
    exact = {"total correlation": coupling**2 * 5, "cheapest cut": coupling**2}
    return coupling, {name: 1.02 * values for name, values in exact.items()}, exact


def decays():
    months = np.linspace(0, 24, 97)
    curves = {"0.85, to 0": 0.85, "0.85, to a base rate": 0.8, "1.00, capped": 0.95}
    return months, {name: start * np.exp(-months / 10) for name, start in curves.items()}, 0.95


def histories():
    worlds = world.simulate(world.generator(42, 0))
    shown = {name: world.first(worlds, name) for name in ("calm", "shift", "turmoil")}
    return worlds, world.measure(worlds), shown


def audited(folder):
    dataset.build("basic", 60, 7, folder)
    return (audit.audit(folder, tokens=lambda text: len(text) // 4, unit="tokens"),)


RECIPES = {f"{name}: as shipped": f"configs/{name}.yaml" for name in ("config_14b", "config_72b", "config_72b_qlora")}
plans = functools.cache(lambda: {name: preflight.plan(path, data="documents-cic") for name, path in RECIPES.items()})
metrics = functools.cache(lambda: world.draw(world.generator(42, 0))[:200])
ising = functools.cache(lambda: transitions.ising_trial(size=8, replicas=2, sweeps=60))
fold = functools.cache(lambda: transitions.fold_trial(count=4, length=300))
answered = functools.cache(lambda: votes.vote_trial(trials=200, seeds=1))
OUTPUTS = {"base": {}, "tuned": flawed("cic"), "constrained": right("cic")}
card = functools.cache(lambda name: score(ROWS["cic"], OUTPUTS[name]))
RANDOM = np.random.default_rng(0)
SERIES = dict(zip(("c = 0", "c = 0.4", "c = 0.9"), RANDOM.normal(0, 0.1, (3, 60, 6)), strict=True))
STACKED = {
    name: [scores_of(RANDOM.random(60) < 0.9 - 0.1 * place, RANDOM.random(60) < 0.15 * place) for _ in range(2)]
    for place, name in enumerate((STAGE_1, *ARMS))
}
HISTORY = [*run_of(), run_of()[-1] | {"step": 100, "saved": True, "resumed_at": 50}]
GRAINS = np.array([[1 / 3, 1 / 3, 1 / 3, 0]] * 3 + [[0, 0, 0, 1]]), np.eye(2), 0.811, 1.0
SECONDS = {"00_start_here": 0.4, "05_train": 939.0, "09_deploy_runpod": 4.2}

#: Figure → what gives its arguments.
FIGURES = {
    "serving.load_test": load_points,
    "planning.memory_bars": lambda: (plans(), "What fills the memory"),
    "planning.cost_intervals": lambda: (plans(), "10,000 examples", 50),
    "planning.break_even": lambda: (economics.options(), "What a month of briefings costs"),
    "planning.step_seconds": lambda: (SECONDS,),
    "course.stations_map": stations,
    "cic.coupled_series": lambda: (SERIES, "value"),
    "cic.integration_curve": integration,
    "cic.lattices": lambda: (ising().snapshots[::8], ising().temperatures[::8]),
    "cic.ising_curves": lambda: (ising(),),
    "cic.coarse_graining": lambda: GRAINS,
    "cic.decay": decays,
    "cic.phase_map": lambda: (np.random.default_rng(0).random((100, 2)),),
    "cic.phi_on_trial": lambda: (documents.generator_trial(300), documents.coupling_trial(20)),
    "cic.uipt_on_trial": lambda: (ising(), fold()),
    "cic.fold_examples": lambda: (fold(),),
    "cic.answers_on_trial": lambda: (answered(),),
    "cic.traces_on_trial": lambda: (traces.traces_trial(texts=4, draws=20),),
    "cic.confidence_on_trial": lambda: (answered(),),
    "cic.mu_sweep": lambda: (documents.self_reference_sweep(),),
    "data.histories": histories,
    "data.phase_plane": lambda: (metrics(),),
    "data.risk_map": lambda: (metrics(),),
    "data.audit_overview": audited,
    "evaluation.figures": lambda: ({name: card(name).metrics for name in OUTPUTS}, list(METRICS)),
    "evaluation.differences": lambda: (compare(card("tuned"), card("constrained")), "tuned", "constrained"),
    "evaluation.error_map": lambda: (gather.errors_by(card("tuned").records),),
    "pictures.retention": lambda: (STACKED,),
    "pictures.by_figure": lambda: (STACKED,),
    "training.loss_curve": lambda: (HISTORY, 60),
    "training.training": lambda: (HISTORY,),
}
MODULES = {name: getattr(plots, name) for name in plots.__all__ if name != "style"} | {"pictures": pictures}


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_holds_to_the_style_whatever_the_callers_is(name, tmp_path):
    given, (module, _, figure) = FIGURES[name], name.partition(".")
    with plt.style.context("dark_background"):
        arguments = given(tmp_path) if inspect.signature(given).parameters else given()
        drawn = getattr(MODULES[module], figure)(*arguments)
    assert faults(drawn, name) == []


def test_every_figure_is_looked_at():
    public = {
        f"{name}.{function}"
        for name, module in MODULES.items()
        for function, found in inspect.getmembers(module, inspect.isfunction)
        if found.__module__ == module.__name__ and not function.startswith("_")
    }
    assert public == set(FIGURES)


# The check itself


@plots.style.styled
def test_a_bad_figure_is_found():
    figure, (axes,) = plots.style.new_axes()
    axes.plot([0, 1], color=looks.RED, label="one")
    axes.plot([1, 0], color=looks.GREEN, label="two")
    axes.set(xlabel="steps", ylabel="loss (nats)")
    assert faults(figure) == []
    axes.set(xlabel="", ylabel="loss")
    axes.legend()
    figure.text(0.99, 0.5, "far")
    axes.text(0.5, 0.8, "over")
    axes.text(0.5, 0.8, "under")
    axes.text(0.2, 0.4, "tiny", fontsize=6, color=looks.ORANGE)
    figure.set_facecolor("none")
    figure.set_figwidth(12)
    found = faults(figure)
    expected = ["no label at x", "no unit at y: loss", "cut off: far", "on one another: over, under", "too small: tiny"]
    expected += ["pale: tiny", "the background is not", "told apart by hue alone: one, two", "wider than a page"]
    for fault in expected:
        assert any(each.startswith(fault) for each in found), found
