"""Pictures of plans and costs: what fills a GPU's memory, intervals of dollars and hours, where hosting pays."""

import itertools
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter

from elle.plan.preflight import Plan
from helpers.economics import Option
from helpers.plots.looks import BLUE, GREEN, GREY, LOOKS, ORANGE, PURPLE, RED, SKY, YELLOW, Look
from helpers.plots.style import amount, name_rows, new_axes, note, styled

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
def break_even(options: Sequence[Option], title: str) -> Figure:
    """Dollars a month by briefings a month, both on log scales: an API is a line, a self-hosted option the band between
    its cheapest and dearest case. Dots: from there on the dearest case is cheaper than that API; the first and the last
    with their volume."""
    figure, (axes,) = new_axes(height=5.2)
    x = np.geomspace(1e2, 1e8, 1200)
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
    axes.set(title=title, xscale="log", yscale="log", xlim=(x[0], x[-1]))
    axes.set(xlabel="briefings a month (log scale)", ylabel="dollars a month (log scale)")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(FuncFormatter(lambda value, _: amount(value)))
    dot = Line2D([], [], linestyle="", marker="o", color="white", markeredgecolor="black", markersize=7)
    handles, labels = axes.get_legend_handles_labels()
    axes.legend([*handles, dot], [*labels, "from here on cheaper than that API"], loc="upper left")
    return figure


@styled
def step_seconds(seconds: Mapping[str, float]) -> Figure:
    """Where a run's time went: one bar a step."""
    figure, (axes,) = new_axes(height=0.34 * len(seconds) + 1)
    for row, took in enumerate(seconds.values()):
        axes.barh(row, took, color=BLUE)
        note(axes, f"{took:,.0f} s", (took, row))
    name_rows(axes, list(seconds))
    axes.set(title=f"Where the time went: {sum(seconds.values()):,.0f} s in all", xlabel="seconds")
    axes.margins(x=0.08)
    return figure
