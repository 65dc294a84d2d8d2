"""Every figure holds to the style: labels with units, nothing cut off or on top of another, colours that are told apart
without seeing them, legible on a dark page and at 900 pixels."""

import functools
import inspect
import io
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
#: Label → why it names no unit.
PURE = {
    "AUC, coupled against shuffled (more is better)": "a probability",
    "AUC (more is better)": "a probability",
    "distance (NCD)": "a ratio of lengths",
    "distance between / within": "a ratio",
    "median distance from $T_c$ (less is better)": "a temperature in units of the coupling",
    "temperature (coupling = 1)": "a temperature in units of the coupling",
    "1 − error / the vote's (below 0: worse)": "a ratio",
    "diagonal of the operator": "an entry of a matrix of pure numbers",
    "spectral radius μ": "an eigenvalue of a matrix of pure numbers",
    "state (units' mean)": "the variable of a normal form",
    "… one, without drift": "the variable of a normal form",
    "value of each unit (shifted)": "a simulated variable",
    "state now": "an index", "state next": "an index", "macro-state now": "an index", "macro-state next": "an index",
    "learning rate": "a factor", "norm (log scale)": "of a gradient in the parameters' own scale",
    "scenario": "an index",
}  # fmt: skip
COLOURS = {
    "#000000", "#ffffff", "#bbbbbb", *(look.lower() for look in vars(looks).values() if str(look).startswith("#")),
    *(to_hex(colour) for colour in plots.data.BANDS.values()),
}  # fmt: skip


def lightness(colour) -> float:
    """CIE 1976 L* of a colour, 0 to 100: what is left of it in grey."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(colour)]
    y = float(np.dot((0.2126, 0.7152, 0.0722), linear))
    return 116 * y ** (1 / 3) - 16 if y > 0.008856 else 903.3 * y


def ticks_of(axis) -> tuple[set[Text], list[Text]]:
    """All labels of an axis's ticks, and those that are drawn."""
    low, high = sorted(axis.get_view_interval())
    ticks = axis.get_major_ticks() + axis.get_minor_ticks()
    slack = 1e-9 * (high - low)
    drawn = [t.label1 for t in ticks if t.get_visible() and low - slack <= t.get_loc() <= high + slack]
    return {label for t in ticks for label in (t.label1, t.label2)}, [
        label for label in drawn if label.get_visible() and label.get_text()
    ]


def unlabelled(axes, axis, siblings, ticks: list[Text], name: str) -> str | None:
    """What is wrong with the label of an axis."""
    label, where = axis.get_label().get_text(), f"at {axis.axis_name}"
    words = bool(ticks) and all(WORD.match(tick.get_text()) for tick in ticks)
    if words:  # names need no name
        return None
    if not label:
        others = (getattr(each, f"{axis.axis_name}axis") for each in siblings)
        beside = any(other.get_label().get_text() or ticks_of(other)[1] for other in others)  # judged there
        exempt = name in UNLABELLED or axes.get_label() == "<colorbar>" or (beside and not ticks)
        return None if exempt and not ticks else f"no label {where}"
    known = isinstance(axis.get_major_formatter(), PercentFormatter) or UNIT.search(label) or label in PURE
    return None if known or not ticks else f"no unit {where}: {label}"


def style(handle) -> tuple:
    """How a thing in a legend looks, its colour aside."""
    if isinstance(handle, Line2D):
        return "line", handle.get_linestyle(), str(handle._dash_pattern), handle.get_marker()
    if isinstance(handle, PathCollection):
        return "points", handle.get_paths()[0].vertices.tobytes()
    return type(handle).__name__, getattr(handle, "get_hatch", str)()


def colour(handle) -> str:
    if isinstance(handle, Line2D):
        return to_hex(handle.get_color() if handle.get_linestyle() != "None" else handle.get_markerfacecolor())
    faces = getattr(handle, "get_facecolor", lambda: [])()
    return to_hex(faces[0] if np.ndim(faces) == 2 and len(faces) else faces if np.ndim(faces) == 1 else "black")


def alike(one, other) -> bool:
    """Whether two things in a legend differ by hue alone."""
    return style(one) == style(other) and abs(lightness(colour(one)) - lightness(colour(other))) < 15


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
    used = {to_hex(line.get_color()) for axes in figure.axes for line in axes.lines}
    used |= {
        to_hex(patch.get_facecolor()) for axes in figure.axes for patch in axes.patches if patch.get_facecolor()[3]
    }
    for axes in figure.axes:
        for drawn in axes.collections:
            if drawn.get_array() is None and axes.get_label() != "<colorbar>":
                used |= {to_hex(each) for each in (*drawn.get_facecolor(), *drawn.get_edgecolor()) if each[3]}
    found += [f"not of the palette: {each}" for each in sorted(used - COLOURS)]
    if figure.get_figwidth() > 9:
        found.append("wider than a page")
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=110)
    if len(file.getvalue()) > 200_000:
        found.append(f"{len(file.getvalue())} bytes")
    return found


# The figures, each from small inputs of the real kind


def load():
    keys = ("concurrency", "tokens_per_second", "p50", "p95", "first_token", "inter_token")
    measured = (
        (1, 247, 0.62, 0.91, 0.020, 0.004),
        (4, 930, 0.65, 0.87, 0.025, 0.004),
        (16, 2420, 0.9, 1.2, None, None),
    )
    points = [dict(zip(keys, values, strict=True)) for values in measured]
    return plots.serving.load_test([point | {"constrained": held} for point in points for held in (False, True)])


def plans():
    return {
        f"{name}: as shipped": preflight.plan(f"configs/{name}.yaml", data="documents-cic")
        for name in ("config_14b", "config_72b", "config_72b_qlora")
    }


def course_map():
    states = ("here", "done", "ready", "done", "waits", "ready", "waits", "waits", "waits", "ready", "waits")
    stations = zip(overview.STATIONS, states, strict=True)
    return plots.course.stations_map([(each.number, each.makes, state, each.reads) for each, state in stations])


def integration_curve():
    coupling = np.linspace(0, 0.9, 10)
    exact = {"total correlation": coupling**2 * 5, "cheapest cut": coupling**2}
    return plots.cic.integration_curve(coupling, {name: 1.02 * values for name, values in exact.items()}, exact)


def coarse_graining():
    states = np.array([[1 / 3, 1 / 3, 1 / 3, 0]] * 3 + [[0, 0, 0, 1]])
    return plots.cic.coarse_graining(states, np.eye(2), 0.811, 1.0)


def decay():
    months = np.linspace(0, 24, 97)
    curves = {"0.85, to 0": 0.85, "0.85, to a base rate": 0.8, "1.00, capped": 0.95}
    return plots.cic.decay(months, {name: start * np.exp(-months / 10) for name, start in curves.items()}, 0.95)


@functools.cache
def ising():
    return transitions.ising_trial(size=8, replicas=2, sweeps=60)


@functools.cache
def fold():
    return transitions.fold_trial(count=4, length=300)


@functools.cache
def answered():
    return votes.vote_trial(trials=200, seeds=1)


def phi_on_trial():
    return plots.cic.phi_on_trial(documents.generator_trial(300), documents.coupling_trial(20))


def histories():
    worlds = world.simulate(world.generator(42, 0))
    shown = {name: world.first(worlds, name) for name in ("calm", "shift", "turmoil")}
    return plots.data.histories(worlds, world.measure(worlds), shown)


def drawn_metrics():
    return world.draw(world.generator(42, 0))[:200]


def audited(folder):
    dataset.build("basic", 60, 7, folder)
    return plots.data.audit_overview(audit.audit(folder, tokens=lambda text: len(text) // 4, unit="tokens"))


@functools.cache
def cards():
    return {"base": score(ROWS["cic"], {}), "tuned": score(ROWS["cic"], flawed("cic")),
            "constrained": score(ROWS["cic"], right("cic"))}  # fmt: skip


def stacked():
    rng = np.random.default_rng(0)
    return {name: [scores_of(rng.random(60) < 0.9 - 0.1 * place, rng.random(60) < 0.15 * place) for _ in range(2)]
            for place, name in enumerate((STAGE_1, *ARMS))}  # fmt: skip


def history():
    rows = run_of()
    return [*rows, rows[-1] | {"step": 100, "saved": True, "resumed_at": 50}]


def errors():
    return plots.evaluation.error_map(gather.errors_by(cards()["tuned"].records))


def series(panels=3):
    return np.random.default_rng(0).normal(0, 0.1, (panels, 60, 6))


FIGURES = {
    "serving.load_test": load,
    "planning.memory_bars": lambda: plots.planning.memory_bars(plans(), "What fills the memory"),
    "planning.cost_intervals": lambda: plots.planning.cost_intervals(plans(), "10,000 examples", budget=50),
    "planning.break_even": lambda: plots.planning.break_even(economics.options(), "What a month of briefings costs"),
    "planning.step_seconds": lambda: plots.planning.step_seconds(
        {"00_start_here": 0.4, "05_train": 939.0, "09_deploy_runpod": 4.2}
    ),
    "course.stations_map": course_map,
    "cic.coupled_series": lambda: plots.cic.coupled_series(
        dict(zip(("c = 0", "c = 0.4", "c = 0.9"), series(), strict=True)), unit="value"
    ),
    "cic.integration_curve": integration_curve,
    "cic.lattices": lambda: plots.cic.lattices(ising().snapshots[::8], ising().temperatures[::8]),
    "cic.ising_curves": lambda: plots.cic.ising_curves(ising()),
    "cic.coarse_graining": coarse_graining,
    "cic.decay": decay,
    "cic.phase_map": lambda: plots.cic.phase_map(np.random.default_rng(0).random((100, 2))),
    "cic.phi_on_trial": phi_on_trial,
    "cic.uipt_on_trial": lambda: plots.cic.uipt_on_trial(ising(), fold()),
    "cic.fold_examples": lambda: plots.cic.fold_examples(fold()),
    "cic.answers_on_trial": lambda: plots.cic.answers_on_trial(answered()),
    "cic.traces_on_trial": lambda: plots.cic.traces_on_trial(traces.traces_trial(texts=4, draws=20)),
    "cic.confidence_on_trial": lambda: plots.cic.confidence_on_trial(answered()),
    "cic.mu_sweep": lambda: plots.cic.mu_sweep(documents.self_reference_sweep()),
    "data.histories": histories,
    "data.phase_plane": lambda: plots.data.phase_plane(drawn_metrics()),
    "data.risk_map": lambda: plots.data.risk_map(drawn_metrics()),
    "data.audit_overview": audited,
    "evaluation.figures": lambda: plots.evaluation.figures(
        {name: card.metrics for name, card in cards().items()}, list(METRICS)
    ),
    "evaluation.differences": lambda: plots.evaluation.differences(
        compare(cards()["tuned"], cards()["constrained"]), "tuned", "constrained"
    ),
    "evaluation.error_map": errors,
    "pictures.retention": lambda: pictures.retention(stacked()),
    "pictures.by_figure": lambda: pictures.by_figure(stacked()),
    "training.loss_curve": lambda: plots.training.loss_curve(history(), 60),
    "training.training": lambda: plots.training.training(history()),
}


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_holds_to_the_style(name, tmp_path):
    draw = FIGURES[name]
    figure = draw(tmp_path) if inspect.signature(draw).parameters else draw()
    assert faults(figure, name) == []


def test_every_figure_is_looked_at():
    modules = [getattr(plots, name) for name in plots.__all__ if name != "style"] + [pictures]
    public = {
        f"{module.__name__.rpartition('.')[2]}.{function}"
        for module in modules
        for function, found in inspect.getmembers(module, inspect.isfunction)
        if found.__module__ == module.__name__ and not function.startswith("_")
    }
    assert public == set(FIGURES)


def test_figures_are_drawn_in_the_projects_style_whatever_the_callers_is():
    with plt.style.context("dark_background"):
        assert faults(decay()) == []


# The check itself


@plots.style.styled
def sound() -> Figure:
    figure, (axes,) = plots.style.new_axes()
    axes.plot([0, 1], color=looks.BLUE, label="one")
    axes.plot([1, 0], color=looks.ORANGE, linestyle="--", label="two")
    axes.set(xlabel="steps", ylabel="loss (nats)")
    axes.legend()
    return figure


def hue_alone(axes):
    for line in axes.lines:
        line.set(linestyle="-", color=looks.GREEN if line.get_label() == "two" else looks.RED)
    axes.legend()


@pytest.mark.parametrize(
    ("fault", "spoil"),
    [
        ("no label at x", lambda axes: axes.set_xlabel("")),
        ("no unit at y: loss", lambda axes: axes.set_ylabel("loss")),
        ("cut off: far", lambda axes: axes.figure.text(0.99, 0.5, "far")),
        ("on one another: 0.1", lambda axes: axes.set_xticks([0.1, 0.11], ["0.1", "0.11"])),
        ("on one another: over, under", lambda axes: [axes.text(0.5, 0.8, said) for said in ("over", "under")]),
        ("too small: tiny", lambda axes: axes.text(0.5, 0.8, "tiny", fontsize=6)),
        ("pale: faint", lambda axes: axes.text(0.5, 0.8, "faint", color=looks.ORANGE)),
        ("the background", lambda axes: axes.figure.set_facecolor("none")),
        ("the background", lambda axes: axes.set_facecolor("#111111")),
        ("told apart by hue alone: one, two", hue_alone),
        ("not of the palette: #ff0000", lambda axes: axes.axhline(0.5, color="#ff0000")),
        ("not of the palette: #00ff00", lambda axes: axes.bar([0.5], [1], color="#00ff00")),
        ("not of the palette: #0000ff", lambda axes: axes.scatter([0.5], [1], color="#0000ff")),
        ("wider than a page", lambda axes: axes.figure.set_figwidth(12)),
        ("axes without an axis", lambda axes: axes.axis("off")),
        ("bytes", lambda axes: axes.imshow(np.random.default_rng(0).random((400, 400)), extent=(0, 1, 0, 1))),
    ],
)
def test_a_bad_figure_is_found(fault, spoil):
    figure = sound()
    spoil(figure.axes[0])
    found = faults(figure)
    assert any(each.startswith(fault) or each.endswith(fault) for each in found), found


def test_a_sound_figure_has_no_faults():
    assert faults(sound()) == []


def test_a_map_of_an_unknown_state_is_refused():
    with pytest.raises(KeyError):
        plots.course.stations_map([("00", "a map", "perhaps", [])])
