"""The figures of the evaluation notebook, in the style of `helpers.plots.style`. Each returns a matplotlib Figure."""

from collections.abc import Mapping, Sequence
from itertools import cycle

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from elle.evaluation.compare import Comparison
from elle.evaluation.gather import UNREAD, Gathering
from elle.evaluation.statistics import Estimate
from helpers.plots.looks import BLUE, GREY, LOOKS, ORANGE, RED, SMALL
from helpers.plots.style import dot_rows, name_rows, new_axes, note, styled

#: Property of `gather.errors_by` → (title, its unit).
PROPERTIES = {
    "metric": ("… by metric", ""),
    "phase": ("… by phase in the prompt", ""),
    "nations": ("… by number of nations in the prompt", "nations"),
    "length": ("… by length of the answer", "characters"),
}


@styled
def figures(scores: Mapping[str, Mapping[str, Estimate]], metrics: Sequence[str]) -> Figure:
    """Models side by side: for each metric every model's value with its 95 % interval. scores: model → metric → share.

    Metrics that are undefined for all of them are left out.
    """
    metrics = [name for name in metrics if any(values[name].value is not None for values in scores.values())]
    rows = {model: [values[name] for name in metrics] for model, values in scores.items()}
    figure, axes = dot_rows(metrics, rows, dict(zip(rows, cycle(LOOKS.values()), strict=False)))
    axes.set(title="What comes out (dots: value, lines: 95 % interval)", xlabel="share (more is better)")
    return figure


@styled
def differences(comparison: Comparison, a: str, b: str) -> Figure:
    """By how much b surpasses a, metric by metric, with the 95 % interval; filled where Holm's p is below 0.05."""
    shown = {name: each for name, each in comparison.metrics.items() if each.difference is not None}
    figure, (axes,) = new_axes(height=0.34 * max(len(shown), 1) + 1.4)
    axes.axvline(0, color="black", linewidth=1)
    for row, each in enumerate(shown.values()):
        sure = each.p_holm is not None and each.p_holm < 0.05
        colour = GREY if not sure else BLUE if (each.difference or 0) > 0 else RED
        axes.hlines(row, each.low, each.high, color=colour)
        axes.plot(each.difference, row, "o", color=colour, fillstyle="full" if sure else "none")
        p = "p < 0.0001" if (each.p_holm or 0) < 1e-4 else f"p = {each.p_holm:.2g}"
        axes.annotate(p, (1.01, row), xycoords=("axes fraction", "data"), va="center", fontsize=SMALL)
    name_rows(axes, list(shown))
    axes.set(
        title=f"{b} against {a}, {comparison.compared:,} briefings (p: Holm; filled: p < 0.05)",
        xlabel=f"← {a} is better        difference in percentage points        {b} is better →",
    )
    edge = max((abs(end) for each in shown.values() for end in (each.low or 0, each.high or 0)), default=0.1) * 1.1
    axes.set_xlim(-edge, edge)
    axes.xaxis.set_major_formatter(PercentFormatter(1, symbol=""))
    return figure


@styled
def error_map(gathered: Mapping[str, Gathering], limit: int = 16) -> Figure:
    """Where errors gather (`gather.errors_by`): the share that is wrong in each group, with its n and 95 % interval; of
    the metrics the `limit` worst. Numbers that are not read are of no metric: the title says how many they are."""
    metrics = gathered.get("metric", Gathering("numbers", {}))
    unread = metrics.groups.get(UNREAD)
    worst = {label: share for label, share in metrics.groups.items() if label != UNREAD}
    first = {label: worst[label] for label in list(worst)[:limit]}
    rest = {name: gathered[name].groups for name in PROPERTIES if name in gathered and name != "metric"}
    rows = max(len(first), sum(map(len, rest.values())) + 3 * len(rest), 6)
    figure, _ = new_axes(height=0.24 * rows + 1.2)
    figure.clear()
    grid = figure.add_gridspec(
        max(len(rest), 1), 2, height_ratios=[len(groups) + 2 for groups in rest.values()] or None
    )
    title = f"… by metric{f' (the worst {limit})' if len(worst) > limit else ''}"
    _shares(figure.add_subplot(grid[:, 0]), "metric", first, metrics.counted, title)
    for place, (name, groups) in enumerate(rest.items()):
        _shares(figure.add_subplot(grid[place, 1]), name, groups, gathered[name].counted, PROPERTIES[name][0])
    note = f"; not read, and so in no bar: {unread.value:.1%} of {unread.n:,} numbers" if unread else ""
    figure.suptitle(f"Where errors gather (lines: 95 % interval{note})", x=0.01, ha="left", fontsize=11)
    return figure


def _shares(axes: Axes, name: str, groups: Mapping[str, Estimate], counted: str, title: str) -> None:
    for row, share in enumerate(groups.values()):
        axes.barh(row, share.value or 0, 0.62, color=ORANGE)
        axes.hlines(row, share.low or 0, share.high or 0, color="black", linewidth=1.2)
        note(axes, f"n = {share.n:,}", (share.high or 0, row))
    name_rows(axes, list(groups))
    widest = max((share.high or 0 for share in groups.values()), default=1)
    axes.set(title=title, ylabel=PROPERTIES[name][1], xlabel=f"share of wrong {counted}")
    ticks = MaxNLocator(5).tick_values(0, max(widest, 0.01))
    axes.set_xticks([tick for tick in ticks if tick <= 1])
    axes.set_xlim(0, max(widest, 0.01) * 1.28)
    axes.xaxis.set_major_formatter(PercentFormatter(1))
