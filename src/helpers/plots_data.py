"""The figures of notebook 03, in the style of `helpers.plots`: the simulated world, a set of examples, its audit. Each
function returns a matplotlib Figure."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from helpers.briefings import world
from helpers.briefings.metrics import RISK_WORDS, Metrics
from helpers.cic.criticality import PHASES
from helpers.plots import BLUE, GREY, ORANGE, RED, new_axes, styled
from helpers.plots_cic import PHASE_COLOURS

RISK_MAP = "YlOrRd"  # lightness grows with the risk: it survives printing in grey


@styled
def histories(worlds: world.Histories, measured: world.Measures, chosen: Mapping[str, int]) -> Figure:
    """The risks of some worlds (title → place) by month: a line a nation, the mean in black, the windows of the figures
    shaded, a change of branch marked."""
    figure, columns = new_axes(len(chosen), height=3.2, sharey=True)
    months = np.arange(-world.MONTHS + 1, 1)
    for axes, (title, place) in zip(columns, chosen.items(), strict=True):
        risks = 100 * worlds.risks[place, :, : worlds.nations[place]]
        axes.plot(months, risks, color=BLUE, alpha=0.5, linewidth=1)
        axes.plot(months, risks.mean(axis=1), color="black", linewidth=1.8)
        for end, colour in ((0, ORANGE), (-world.LAG, GREY)):
            axes.axvspan(end - world.WINDOW + 0.5, end + 0.5, color=colour, alpha=0.14, linewidth=0)
        if not np.isnan(ago := measured.transition[place]):
            axes.axvline(-ago, color=RED, linewidth=1.5, linestyle="--")
        axes.set(title=title, xlabel="month (0: now)", ylim=(0, 100))
    columns[0].set_ylabel("risk (%)")
    handles = [
        columns[0].plot([], [], color=BLUE, alpha=0.5, label="a nation")[0],
        columns[0].plot([], [], color="black", linewidth=1.8, label="their mean")[0],
        columns[0].plot([], [], color=RED, linestyle="--", label="a transition")[0],
        columns[0].fill_between([], [], color=ORANGE, alpha=0.25, label="window of the figures"),
        columns[0].fill_between([], [], color=GREY, alpha=0.25, label="prior window (they overlap)"),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=5, fontsize=9)
    return figure


@styled
def phase_plane(metrics: Sequence[Metrics]) -> Figure:
    """Temperature and order of CIC examples, coloured by phase, and how often each phase is printed."""
    figure, (left, right) = new_axes(2, height=3.8)
    phased = [m.cic for m in metrics if m.cic and m.cic.phase]
    for phase in PHASES:
        points = [(float(c.values["temperature"]), float(c.values["order"])) for c in phased if c.phase == phase]
        if points:
            left.scatter(*zip(*points, strict=True), s=9, color=PHASE_COLOURS[phase], label=phase, alpha=0.8)
    left.set(title="One point an example", xlabel="temperature", ylabel="order", xlim=(0, 1), ylim=(0, 1))
    shares = [sum(c.phase == phase for c in phased) / max(len(metrics), 1) for phase in PHASES]
    bars = right.bar(list(PHASES), shares, color=[PHASE_COLOURS[phase] for phase in PHASES])
    right.bar_label(bars, [f"{share:.0%}" for share in shares], fontsize=9)
    right.axhline(0.1, color="black", linestyle=":", linewidth=1)
    right.set(title="Phases (dotted: the least that an audit accepts)", ylabel="share of examples")
    right.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    right.tick_params(axis="x", rotation=25, labelsize=8)
    left.legend(fontsize=8, markerscale=2)
    return figure


@styled
def risk_map(metrics: Sequence[Metrics], limit: int = 24) -> Figure:
    """Countries by scenario, coloured by risk: which nations a prompt lists, and how the same one varies."""
    shown = metrics[:limit]
    codes = sorted(
        {code for m in shown for code, _ in m.nations},
        key=lambda code: -np.mean([risk for m in shown for c, risk in m.nations if c == code]),
    )
    grid = np.full((len(codes), len(shown)), np.nan)
    for column, m in enumerate(shown):
        for code, risk in m.nations:
            grid[codes.index(code), column] = risk
    figure, (axes,) = new_axes(height=0.24 * len(codes) + 1.2)
    image = axes.imshow(grid, cmap=RISK_MAP, vmin=0, vmax=100, aspect="auto")
    axes.grid(False)
    axes.set(title="Country risk by scenario (blank: not listed)", xlabel="scenario", ylabel="country")
    axes.set_yticks(range(len(codes)), codes, fontsize=8)
    axes.set_xticks(range(0, len(shown), 2), range(1, len(shown) + 1, 2))
    figure.colorbar(image, ax=axes, label="risk (%)")
    return figure


@styled
def audit(found: Mapping[str, Any]) -> Figure:
    """What an audit (`evaluation.audit`) counted: the length of examples, and how often each risk word is used."""
    figure, (left, right) = new_axes(2, height=4.2)
    if tokens := found["tokens"]:
        edges, counts = tokens["histogram"]["edges"], tokens["histogram"]["counts"]
        left.stairs(counts, edges, fill=True, color=BLUE)
        left.axvline(tokens["mean"], color=RED, label=f"mean {tokens['mean']:.0f}")
        left.set(title="Length of an example", xlabel=tokens["unit"], ylabel="examples")
        left.legend()
    words = found["risk_words"]
    total = max(sum(words.values()), 1)
    names = list(words)[::-1]
    bands = {word: band for band, (_, group) in enumerate(RISK_WORDS) for word in group}
    shades = ("#FECC5C", "#FD8D3C", "#E31A1C", "#800026")  # the risk map's, from low to high
    right.barh(names, [words[name] / total for name in names], color=[shades[bands[name]] for name in names])
    right.set(title="Risk words in the answers (a colour a band)", xlabel="share of all risk words")
    right.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    right.grid(axis="y", visible=False)
    right.tick_params(axis="y", labelsize=8)
    return figure
