"""The figures of the notebooks and the report: one style, axes with units, readable without the text.

Colours are Okabe and Ito's (2008), which colour-blind readers can tell apart; the background is white, so that a
figure is legible in a dark notebook too. Each function returns a matplotlib Figure and shows nothing by itself.
"""

import functools
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, PercentFormatter, StrMethodFormatter

from helpers.costs import Option
from helpers.evaluation.statistics import Estimate
from helpers.training.preflight import Plan

BLUE, ORANGE, GREEN, RED, PURPLE, GREY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#666666"
SKY, YELLOW = "#56B4E9", "#F0E442"
PALETTE = (BLUE, ORANGE, GREEN, RED, PURPLE, GREY, SKY, YELLOW)
#: For quantities from little (light) to much (dark): even steps of lightness, so that it survives printing in grey.
SEQUENTIAL = "cividis_r"
SMALL = 8  # points: the smallest text


class Look(NamedTuple):
    """How one of several things side by side is drawn: where its colour cannot be seen, the rest tells it apart."""

    colour: str
    marker: str
    line: Any
    hatch: str

    @property
    def curve(self) -> dict[str, Any]:
        return {"color": self.colour, "marker": self.marker, "linestyle": self.line}

    @property
    def bar(self) -> dict[str, Any]:
        return {"color": self.colour, "hatch": self.hatch, "edgecolor": "white", "linewidth": 0.5}


#: Colour → look. The first is for what the others are compared with.
LOOKS = {
    look.colour: look
    for look in (
        Look(GREY, "o", "-", "--"),
        Look(BLUE, "s", "-", ""),
        Look(ORANGE, "^", (0, (5, 1.5)), "//"),
        Look(GREEN, "D", (0, (1, 1)), ".."),
        Look(RED, "v", "-.", "xx"),
        Look(PURPLE, "P", (0, (8, 1.5, 1, 1.5, 1, 1.5)), "\\\\"),
        Look(SKY, "X", (0, (2, 2)), "++"),
    )
}

_STYLE = {
    "figure.facecolor": "white", "axes.facecolor": "white", "savefig.facecolor": "white", "text.color": "black",
    "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.alpha": 0.25,
    "axes.axisbelow": True, "font.size": 10, "axes.titlesize": 11, "axes.titlelocation": "left",
    "lines.linewidth": 1.6, "lines.markersize": 5.5, "errorbar.capsize": 3, "hatch.linewidth": 0.8,
    "legend.fontsize": 9, "legend.edgecolor": "none", "legend.facecolor": "white", "legend.framealpha": 0.9,
    "figure.constrained_layout.use": True,
}  # fmt: skip


def styled(function: Callable[..., Figure]) -> Callable[..., Figure]:
    """Draw under the project's style, whatever the caller's is."""

    @functools.wraps(function)
    def draw(*arguments, **options) -> Figure:
        with plt.style.context(["default", _STYLE]):
            return function(*arguments, **options)

    return draw


def new_axes(columns: int = 1, rows: int = 1, width: float = 9, height: float = 3.6, **options) -> tuple:
    """A figure that notebooks show once (pyplot does not keep it open), and its axes, row by row. Inches: what is wider
    than 9 is made smaller by a page of 900 pixels, its text too."""
    figure, axes = plt.subplots(rows, columns, figsize=(width, height), squeeze=False, **options)
    plt.close(figure)
    return figure, axes.ravel()


def name_rows(axes: Axes, names: Sequence[str]) -> None:
    """Names from top to bottom, beside the bars or points at 0, 1, 2, …"""
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(max(len(names), 1) - 0.45, -0.55)
    axes.grid(axis="y", visible=False)


def note(axes: Axes, text: str, at: tuple[float, float], offset: tuple[float, float] = (4, 0), **options) -> None:
    """Small text beside a point, on white: no line runs through it."""
    white = {"facecolor": "white", "alpha": 0.9, "linewidth": 0, "pad": 0.8}
    usual = {"textcoords": "offset points", "va": "center", "fontsize": SMALL, "bbox": white}
    axes.annotate(text, at, offset, **usual | options)


def dot_rows(
    names: Sequence[str], rows: Mapping[str, Sequence[Estimate]], looks: Mapping[str, Look]
) -> tuple[Figure, Axes]:
    """Things side by side: beside each name a dot with its interval for each of them; what is undefined is said in
    words. rows: thing → a share for each name."""
    figure, (axes,) = new_axes(height=(0.16 + 0.09 * len(rows)) * max(len(names), 2) + 1.4)
    for place, (thing, shares) in enumerate(rows.items()):
        look, offset = looks[thing], (place - (len(rows) - 1) / 2) * 0.72 / max(len(rows), 1)
        for row, share in enumerate(shares):
            if share.value is None or share.low is None or share.high is None:
                axes.text(0.01, row + offset, f"{thing}: undefined", va="center", fontsize=SMALL)
                continue
            axes.hlines(row + offset, share.low, share.high, color=look.colour)
            axes.plot(share.value, row + offset, look.marker, color=look.colour)
        axes.plot([], [], look.marker, color=look.colour, label=thing)
    for row in range(len(names) - 1):
        axes.axhline(row + 0.5, color=GREY, linewidth=0.5, alpha=0.4)
    name_rows(axes, names)
    axes.set_xlim(-0.02, 1.02)
    axes.xaxis.set_major_formatter(PercentFormatter(1))
    figure.legend(loc="outside lower center", ncols=min(max(len(rows), 1), 7))
    return figure, axes


def log_ticks(axis: Axis) -> None:
    """1, 2, 5, 10, … on a log scale, instead of powers of ten."""
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axis.set_minor_formatter(NullFormatter())


def amount(value: float) -> str:
    """A number to three digits; millions in words, to one decimal."""
    return f"{round(value / 1e6, 1):,g} million" if value >= 1e6 else f"{float(f'{value:.3g}'):,g}"


@styled
def load(points: Sequence[Mapping[str, Any]]) -> Figure:
    """Throughput, latency, and when tokens come, by concurrency. points: concurrency, tokens_per_second, p50, p95,
    first_token, inter_token (seconds; None: not measured), constrained (whether held to the schema)."""
    figure, (left, middle, right) = new_axes(3, height=3.8)
    for constrained, look, name in ((False, LOOKS[BLUE], "free"), (True, LOOKS[ORANGE], "held to the schema")):
        rows = [point for point in points if bool(point["constrained"]) == constrained]
        if not rows:
            continue
        x = [row["concurrency"] for row in rows]
        plain = look._replace(line="-").curve
        left.plot(x, [row["tokens_per_second"] for row in rows], **plain, label=name)
        for axes, key, line in (
            (middle, "p50", "-"),
            (middle, "p95", "--"),
            (right, "first_token", "-"),
            (right, "inter_token", "--"),
        ):
            times = [np.nan if row[key] is None else row[key] * (1000 if axes is right else 1) for row in rows]
            axes.plot(x, times, **plain | {"linestyle": line})
    left.set(title="Throughput", ylabel="completion tokens a second", ylim=(0, None))
    middle.set(title="Time for a whole briefing", ylabel="seconds", ylim=(0, None))
    right.set(title="Streamed tokens, median", ylabel="milliseconds (log scale)", yscale="log")
    log_ticks(right.yaxis)
    for axes, names in ((middle, ("median", "95 % are faster")), (right, ("until the first", "between two"))):
        lines = [Line2D([], [], color="black", linestyle=line) for line in ("-", "--")]
        axes.legend(lines, names, fontsize=SMALL)
    ticks = sorted({point["concurrency"] for point in points})
    for axes in (left, middle, right):
        axes.set_xscale("log", base=2)
        axes.set_xticks(ticks, ticks)
        axes.xaxis.minorticks_off()
        axes.set_xlabel("requests at once")
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return figure


#: What a GPU's memory is filled with (`training.memory`), in the order of a bar: look, name, and its components.
MEMORY = (
    (LOOKS[BLUE], "weights", ("weights", "adapter")),
    (LOOKS[SKY], "gradients", ("gradients",)),
    (LOOKS[GREEN], "master weights (fp32)", ("master",)),
    (LOOKS[ORANGE], "optimizer", ("optimizer",)),
    (Look(YELLOW, "", "", ""), "optimizer's step", ("step",)),
    (LOOKS[PURPLE], "activations", ("activations", "layer")),
    (LOOKS[RED], "logits and loss", ("loss",)),
    (LOOKS[GREY], "buffers, reserve, driver", ("workspace", "buckets", "gathered", "reserve", "driver")),
)


@styled
def memory_bars(plans: Mapping[str, Plan], title: str) -> Figure:
    """What fills each GPU's memory at the peak of a step, against what there is; a bar a plan (of a known model)."""
    bars = {name: plan for name, plan in plans.items() if plan.memory}
    figure, (axes,) = new_axes(height=0.55 * len(bars) + 1.7)
    widest = max((max(plan.memory.peak, plan.hardware.memory_gb) for plan in bars.values()), default=1.0)
    handles = {}
    for y, plan in enumerate(bars.values()):
        left, limit = 0.0, plan.hardware.memory_gb
        for look, label, names in MEMORY:
            value = sum(plan.memory.components.get(name, 0) for name in names)
            if value < widest / 500:  # too thin to be seen
                continue
            handles[label] = axes.barh(y, value, 0.66, left=left, **look.bar)
            left += value
        axes.vlines(limit, y - 0.5, y + 0.5, color="black", linestyle="--")
        # Beside the bar, or beyond the limit where that would cross the text.
        x = limit if left <= limit < left + 0.24 * widest else left
        over = plan.memory.peak > limit
        said = f"{plan.memory.peak:.1f} of {limit:.1f} GB{': too much' if over else ''}"
        note(axes, said, (x, y), weight="bold" if over else "normal", bbox=None)
    name_rows(axes, list(bars))
    axes.set(title=title, xlabel="GB at the peak of a step (dashed: what there is)", xlim=(0, 1.36 * widest))
    labels = [label for _, label, _ in MEMORY if label in handles]  # in the bars' order
    figure.legend([handles[label] for label in labels], labels, loc="outside lower center", ncols=4)
    return figure


@styled
def cost_intervals(choices: Mapping[str, Plan], title: str, budget: float | None = None) -> Figure:
    """Dollars and hours as intervals, a row a choice; the first is what the others are compared with (shaded). Names
    that begin alike, up to a colon, share a colour."""
    rows = {name: plan.budget for name, plan in choices.items() if plan.budget}
    figure, panels = new_axes(2, height=0.32 * len(rows) + 1.3, sharey=True)
    groups = list(dict.fromkeys(name.partition(":")[0] for name in rows))
    colours = dict(zip(groups, itertools.cycle(LOOKS), strict=False))
    for axes, unit in zip(panels, ("dollars", "hours"), strict=True):
        ends = {name: getattr(row, unit) for name, row in rows.items()}
        for y, (name, (low, high)) in enumerate(ends.items()):
            colour = colours[name.partition(":")[0]]
            axes.barh(y, high - low, 0.55, left=low, color=colour, edgecolor=colour)  # the edge shows where low is high
            digits = 0 if high >= 20 else 1
            note(axes, f"{low:,.{digits}f} – {high:,.{digits}f}", (high, y))
        axes.axvspan(*next(iter(ends.values()), (0, 0)), color=GREY, alpha=0.12, linewidth=0, zorder=0)
        axes.set(
            xlabel=f"{unit}, from low to high", xlim=(0, 1.25 * max((e for _, e in ends.values()), default=1) or 1)
        )
    name_rows(panels[0], list(rows))
    panels[1].grid(axis="y", visible=False)
    panels[0].set_title(title)
    if budget is not None:
        panels[0].axvline(budget, color=RED, linestyle="--", zorder=1, label=f"budget: {budget:g} dollars")
        figure.legend(loc="outside lower left")
    return figure


@styled
def break_even(options: Sequence[Option], title: str, volumes: tuple[float, float] = (1e2, 1e8)) -> Figure:
    """Dollars a month by briefings a month, both on log scales: an API is a line, a self-hosted option the band between
    its cheapest and dearest case. Dots: from there on the dearest case is cheaper than that API; the first and the last
    with their volume."""
    figure, (axes,) = new_axes(height=5.2)
    x = np.geomspace(*volumes, 1200)
    apis = sorted((option for option in options if option.kind == "api"), key=lambda one: one.low.dollars)
    for place, (option, dashes) in enumerate(
        zip(apis, itertools.cycle(((0, (7, 1.5)), ":", "-.", "--")), strict=False)
    ):
        axes.plot(x, option.low.monthly(x), color=GREY, linestyle=dashes, linewidth=1.3)
        end = (x[-1], float(option.low.monthly(x[-1])))
        note(axes, option.name, end, color=GREY, va="bottom" if place % 2 else "top", bbox=None)
    hosted = sorted(
        (o for o in options if o.kind != "api"), key=lambda one: -float(max(e.monthly(1e6) for e in one.ends))
    )
    for place, (option, look) in enumerate(zip(hosted, itertools.cycle(list(LOOKS.values())[1:]), strict=False)):
        ends = np.array([end.monthly(x) for end in option.ends])
        axes.fill_between(x, ends.min(axis=0), ends.max(axis=0), color=look.colour, alpha=0.3, linewidth=0)
        axes.plot(x, ends.max(axis=0), **look.curve, linewidth=2, markevery=(60 + 40 * place, 150), label=option.name)
        crossings = [(at, one.low.dollars * at) for one in apis if (at := option.break_even(one.low.dollars)[1])]
        for at, cost in crossings:
            axes.plot(at, cost, "o", color=look.colour, markeredgecolor="black", markersize=7, zorder=4)
        for at, cost in {min(crossings), max(crossings)} if crossings else ():
            # The dearest above its line, the others below: they run close to one another.
            side = {"offset": (0, 6), "va": "bottom"} if not place else {"offset": (0, -6), "va": "top"}
            note(axes, amount(at), (at, cost), **side, ha="center", weight="bold")
    axes.set(title=title, xscale="log", yscale="log", xlim=volumes)
    axes.set(xlabel="briefings a month (log scale)", ylabel="dollars a month (log scale)")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(FuncFormatter(lambda value, _: amount(value)))
    dot = Line2D([], [], linestyle="", marker="o", color="white", markeredgecolor="black", markersize=7)
    handles, labels = axes.get_legend_handles_labels()
    axes.legend([*handles, dot], [*labels, "from here on cheaper than that API"], loc="upper left")
    return figure


@styled
def steps(seconds: Mapping[str, float]) -> Figure:
    """Where a run's time went: one bar a step."""
    figure, (axes,) = new_axes(height=0.34 * len(seconds) + 1)
    for row, took in enumerate(seconds.values()):
        axes.barh(row, took, color=BLUE)
        note(axes, f"{took:,.0f} s", (took, row))
    name_rows(axes, list(seconds))
    axes.set(title=f"Where the time went: {sum(seconds.values()):,.0f} s in all", xlabel="seconds")
    axes.margins(x=0.08)
    return figure


#: State of a notebook → how its number stands on the map: shape, filling, edge and the edge's width.
STATES = {
    "here": ("D", "black", "black", 1.5),
    "done": ("o", BLUE, BLUE, 1.5),
    "ready": ("s", "white", RED, 3),
    "waits": ("o", "white", GREY, 1),
}
COLUMNS = (0.55, 5.0, 7.2)  # of the map's words; its numbers stand at 0


@styled
def course_map(stations: Sequence[tuple[str, str, str, Sequence[str]]]) -> Figure:
    """The way through the notebooks, from top to bottom. stations: (number, what it makes, state, the numbers it reads)
    in order; states: those of `STATES`. Thin arrows to the left are what is read, dotted until it is there."""
    figure, (axes,) = new_axes(height=0.36 * len(stations) + 1.1)
    axes.axis("off")
    rows = {number: row for row, (number, *_) in enumerate(stations)}
    states = {number: state for number, _, state, _ in stations}
    ends = {"shrinkA": 11, "shrinkB": 11}
    for row, (number, makes, state, reads) in enumerate(stations):
        marker, filling, edge, width = STATES[state]
        if row:
            way = {"arrowstyle": "-|>,head_width=0.2,head_length=0.3", "color": "black", "linewidth": 1.6}
            axes.annotate("", (0, row), (0, row - 1), arrowprops=way | ends)
        # Arrows from everything would hide the others: one bracket instead.
        everything = len(reads) > 1 and set(reads) >= set(list(rows)[1:row])
        thin = {"arrowstyle": "->", "color": GREY, "linewidth": 1}
        thin["linestyle"] = "-" if all(states[read] == "done" for read in reads) else ":"
        if everything:
            axes.plot([-1.5, -1.6, -1.6], [0.6, 0.6, row], color=GREY, linewidth=1, linestyle=thin["linestyle"])
            axes.annotate("", (0, row), (-1.6, row), arrowprops=thin | {"shrinkA": 0, "shrinkB": 11})
        for read in () if everything else reads:
            thin["linestyle"] = "-" if states[read] == "done" else ":"
            bent = {"connectionstyle": f"arc3,rad={0.6 + 0.4 / (row - rows[read])}"}
            axes.annotate("", (0, row), (0, rows[read]), arrowprops=thin | bent | ends)
        axes.scatter(0, row, s=330, marker=marker, color=filling, edgecolor=edge, linewidth=width, zorder=3)
        axes.text(0, row, number, ha="center", va="center", color="black" if filling == "white" else "white", zorder=4)
        cells = (makes, "all before it" if everything else ", ".join(reads) or "nothing", state)
        for x, cell in zip(COLUMNS, cells, strict=True):
            axes.text(x, row, cell, va="center", weight="bold" if cell == "ready" else "normal")
    for x, heading in zip(COLUMNS, ("makes", "reads", "state"), strict=True):
        axes.text(x, -1, heading, va="center", color=GREY)
    done = sum(state == "done" for state in states.values())
    axes.set(
        xlim=(-1.9, 8.6), ylim=(len(stations) - 0.4, -1.4), title=f"The course: {done} of {len(stations) - 1} done"
    )
    handles = [
        Line2D([], [], linestyle="", marker=marker, markersize=11, color=filling, markeredgecolor=edge,
               markeredgewidth=width, label=state)
        for state, (marker, filling, edge, width) in STATES.items()
    ]  # fmt: skip
    handles += [
        Line2D([], [], color="black", linewidth=2, label="the way"),
        Line2D([], [], color=GREY, linewidth=1, label="reads: there"),
        Line2D([], [], color=GREY, linewidth=1, linestyle=":", label="reads: not yet"),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=7, fontsize=SMALL)
    return figure
