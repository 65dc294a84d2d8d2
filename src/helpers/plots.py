"""The figures of the notebooks and the report: one style, axes with units, readable without the text.

Colours are Okabe and Ito's (2008), which colour-blind readers can tell apart; the background is white, so that a
figure is legible in a dark notebook too. Each function returns a matplotlib Figure and shows nothing by itself.
"""

import functools
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

from helpers.costs import Option
from helpers.training.preflight import Plan

BLUE, ORANGE, GREEN, RED, PURPLE, GREY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#666666"
SKY, YELLOW = "#56B4E9", "#F0E442"

_STYLE = {
    "figure.facecolor": "white", "axes.facecolor": "white", "savefig.facecolor": "white",
    "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.alpha": 0.25,
    "axes.axisbelow": True, "font.size": 10, "axes.titlesize": 11, "axes.titlelocation": "left",
    "legend.frameon": False, "figure.constrained_layout.use": True,
}  # fmt: skip


def styled(function: Callable[..., Figure]) -> Callable[..., Figure]:
    """Draw under the project's style, whatever the caller's is."""

    @functools.wraps(function)
    def draw(*arguments, **options) -> Figure:
        with plt.rc_context(_STYLE):
            return function(*arguments, **options)

    return draw


def new_axes(columns: int = 1, width: float = 9, height: float = 3.6, **options) -> tuple[Figure, np.ndarray]:
    """A figure that notebooks show once: pyplot does not keep it open."""
    figure, axes = plt.subplots(1, columns, figsize=(width, height), squeeze=False, **options)
    plt.close(figure)
    return figure, axes[0]


@styled
def load(points: Sequence[Mapping[str, Any]]) -> Figure:
    """Throughput, latency, and when tokens come, by concurrency. points: concurrency, tokens_per_second, p50, p95,
    first_token, inter_token (seconds; None: not measured), constrained (whether held to the schema)."""
    figure, (left, middle, right) = new_axes(3, width=12)
    for constrained, colour, name in ((False, BLUE, "free"), (True, ORANGE, "json_schema")):
        rows = [point for point in points if bool(point["constrained"]) == constrained]
        if not rows:
            continue
        x = [row["concurrency"] for row in rows]
        left.plot(x, [row["tokens_per_second"] for row in rows], color=colour, marker="o", label=name)
        middle.plot(x, [row["p50"] for row in rows], color=colour, marker="o", label=f"{name}, median")
        middle.plot(x, [row["p95"] for row in rows], color=colour, marker="^", linestyle="--", label=f"{name}, 95 %")
        for key, line, what in (("first_token", "-", "to the first"), ("inter_token", ":", "between")):
            times = [np.nan if row[key] is None else 1000 * row[key] for row in rows]
            right.plot(x, times, color=colour, marker="o", linestyle=line, label=f"{name}, {what}")
    left.set(title="Throughput", xlabel="requests at once", ylabel="completion tokens a second", ylim=(0, None))
    middle.set(title="Latency of a whole briefing", xlabel="requests at once", ylabel="seconds", ylim=(0, None))
    right.set(
        title="Streamed tokens, median",
        xlabel="requests at once",
        ylabel="milliseconds",
        yscale="log",
    )
    right.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    right.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    right.yaxis.set_minor_formatter(NullFormatter())
    ticks = sorted({point["concurrency"] for point in points})
    for axes in (left, middle, right):
        axes.set_xscale("log", base=2)
        axes.set_xticks(ticks, ticks)
        axes.xaxis.minorticks_off()
        axes.legend(fontsize=8)
    return figure


#: What a GPU's memory is filled with (`training.memory`), in the order of a bar: colour, name, and its components.
MEMORY = (
    (BLUE, "weights", ("weights", "adapter")),
    (SKY, "gradients", ("gradients",)),
    (GREEN, "master weights (fp32)", ("master",)),
    (ORANGE, "optimizer", ("optimizer",)),
    (YELLOW, "optimizer's step", ("step",)),
    (PURPLE, "activations", ("activations", "layer")),
    (RED, "logits and loss", ("loss",)),
    (GREY, "program, buffers", ("context", "buckets", "gathered")),
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
        for colour, label, names in MEMORY:
            value = sum(plan.memory.components.get(name, 0) for name in names)
            if value < widest / 500:  # too thin to be seen
                continue
            handles[label] = axes.barh(y, value, 0.66, left=left, color=colour, edgecolor="white", linewidth=0.5)
            left += value
        axes.vlines(limit, y - 0.5, y + 0.5, color="black", linestyle="--", linewidth=1.3)
        # Beside the bar, or beyond the limit where that would cross the text.
        x = limit if left <= limit < left + 0.24 * widest else left
        axes.annotate(
            f"{plan.memory.peak:.1f} of {limit:.1f} GB", (x, y), (5, 0), textcoords="offset points", va="center",
            fontsize=9, color=RED if plan.memory.peak > limit else "black",
        )  # fmt: skip
    axes.set_yticks(range(len(bars)), bars)
    axes.invert_yaxis()
    axes.set(title=title, xlabel="GB at the peak of a step (dashed: what there is)", xlim=(0, 1.22 * widest))
    axes.grid(axis="y", visible=False)
    labels = [label for _, label, _ in MEMORY if label in handles]  # in the bars' order
    figure.legend([handles[label] for label in labels], labels, loc="outside lower center", ncols=4, fontsize=9)
    return figure


@styled
def cost_intervals(choices: Mapping[str, Plan], title: str, budget: float | None = None) -> Figure:
    """Dollars and hours as intervals, a row a choice; the first is what the others are compared with (shaded). Names
    that begin alike, up to a colon, share a colour."""
    rows = {name: plan.budget for name, plan in choices.items() if plan.budget}
    figure, panels = new_axes(2, height=0.32 * len(rows) + 1.3, sharey=True)
    groups = list(dict.fromkeys(name.partition(":")[0] for name in rows))
    colours = dict(zip(groups, itertools.cycle((GREY, BLUE, GREEN, ORANGE, PURPLE, RED, SKY)), strict=False))
    for axes, unit in zip(panels, ("dollars", "hours"), strict=True):
        ends = {name: getattr(row, unit) for name, row in rows.items()}
        for y, (name, (low, high)) in enumerate(ends.items()):
            axes.barh(y, high - low, 0.55, left=low, color=colours[name.partition(":")[0]])
            digits = 0 if high >= 20 else 1
            axes.annotate(
                f"{low:,.{digits}f} – {high:,.{digits}f}", (high, y), (4, 0), textcoords="offset points", va="center",
                fontsize=8, bbox={"facecolor": "white", "alpha": 0.9, "linewidth": 0, "pad": 1},
            )  # fmt: skip
        axes.axvspan(*next(iter(ends.values()), (0, 0)), color=GREY, alpha=0.12, linewidth=0, zorder=0)
        axes.set(xlabel=unit, xlim=(0, 1.22 * max((high for _, high in ends.values()), default=1) or 1))
        axes.grid(axis="y", visible=False)
    if budget is not None:
        panels[0].axvline(budget, color=RED, linestyle="--", linewidth=1.3, zorder=1, label=f"{budget:g} dollars")
        panels[0].legend(loc="lower right", fontsize=8)
    panels[0].set_yticks(range(len(rows)), rows)
    panels[0].invert_yaxis()
    panels[0].set_title(title)
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
        axes.annotate(
            option.name, (x[-1], float(option.low.monthly(x[-1]))), (4, 0), textcoords="offset points", fontsize=8,
            color=GREY, va="bottom" if place % 2 else "top",
        )  # fmt: skip
    hosted = [option for option in options if option.kind != "api"]
    for place, (option, colour) in enumerate(zip(hosted, itertools.cycle((BLUE, ORANGE, GREEN, PURPLE)), strict=False)):
        ends = np.array([end.monthly(x) for end in option.ends])
        axes.fill_between(x, ends.min(axis=0), ends.max(axis=0), color=colour, alpha=0.3, linewidth=0)
        axes.plot(x, ends.max(axis=0), color=colour, linewidth=2, label=option.name)
        crossings = [(at, one.low.dollars * at) for one in apis if (at := option.break_even(one.low.dollars)[1])]
        for at, cost in crossings:
            axes.plot(at, cost, "o", color=colour, markeredgecolor="white", markersize=7, zorder=4)
        for at, cost in {min(crossings), max(crossings)} if crossings else ():
            axes.annotate(
                f"{at / 1e6:,.1f} million" if at >= 1e6 else f"{float(f'{at:.3g}'):,.0f}", (at, cost),
                (0, 7 if place else -8), textcoords="offset points", ha="center", va="bottom" if place else "top",
                fontsize=8, color=colour, weight="bold",
                bbox={"facecolor": "white", "alpha": 0.8, "linewidth": 0, "pad": 0.5},
            )  # fmt: skip
    axes.set(
        title=title, xscale="log", yscale="log", xlim=volumes, xlabel="briefings a month", ylabel="dollars a month"
    )
    axes.legend(loc="upper left")
    return figure


@styled
def steps(seconds: Mapping[str, float]) -> Figure:
    """Where a run's time went: one bar a step."""
    figure, (axes,) = new_axes(height=0.34 * len(seconds) + 1)
    names = list(seconds)[::-1]
    bars = axes.barh(names, [seconds[name] for name in names], color=BLUE)
    axes.bar_label(bars, [f"{seconds[name]:.0f} s" for name in names], padding=4)
    axes.set(title="Where the time went", xlabel="seconds")
    axes.grid(axis="y", visible=False)
    return figure


@styled
def course_map(stations: Sequence[tuple[str, str, str]]) -> Figure:
    """The way through the notebooks. stations: (number, what it makes, "done" or "open") in order."""
    figure, (axes,) = new_axes(height=1.9)
    axes.axis("off")
    axes.grid(False)
    for place, (number, makes, state) in enumerate(stations):
        colour = GREEN if state == "done" else "white"
        if place:
            axes.annotate("", (place - 0.22, 0), (place - 0.78, 0), arrowprops={"arrowstyle": "->", "color": GREY})
        axes.scatter(place, 0, s=900, color=colour, edgecolor=GREEN, linewidth=2, zorder=3)
        axes.text(
            place, 0, number, ha="center", va="center", color="white" if state == "done" else GREEN, weight="bold"
        )
        axes.text(place, -0.62, makes, ha="center", va="top", fontsize=9)
    axes.set(xlim=(-0.6, len(stations) - 0.4), ylim=(-1.2, 0.8), title="The way (filled: done in this run)")
    return figure
