"""The figures of notebook 03: the simulated world, a set of examples, its audit."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import PercentFormatter

from elle.briefings import world
from elle.briefings.metrics import RISK_WORDS, Metrics
from helpers.plots.cic import PHASE_LOOKS
from helpers.plots.looks import BLUE, GREY, ORANGE, RED, SEQUENTIAL, SMALL
from helpers.plots.style import name_rows, new_axes, note, styled

#: Upper end of a band of risk (%) → about the risk map's colour there.
BANDS = dict(zip((bound for bound, _ in RISK_WORDS), colormaps[SEQUENTIAL]((0.1, 0.37, 0.63, 0.9)), strict=True))


@styled
def histories(worlds: world.Histories, measured: world.Measures, chosen: Mapping[str, int]) -> Figure:
    """The risks of some worlds (title → place) by month: a line per nation, the mean in black, the windows
    of the figures shaded, a change of branch marked."""
    figure, columns = new_axes(len(chosen), height=3.2, sharey=True)
    months = np.arange(-world.MONTHS + 1, 1)
    windows = {  # end → look
        0: {"facecolor": ORANGE, "alpha": 0.25},
        -world.LAG: {"facecolor": "none", "edgecolor": GREY, "hatch": "///", "alpha": 0.45},
    }
    for axes, (title, place) in zip(columns, chosen.items(), strict=True):
        risks = 100 * worlds.risks[place, :, : worlds.nations[place]]
        axes.plot(months, risks, color=BLUE, alpha=0.5, linewidth=1)
        axes.plot(months, risks.mean(axis=1), color="black")
        for end, look in windows.items():
            axes.axvspan(end - world.WINDOW + 0.5, end + 0.5, linewidth=0, **look)
        if not np.isnan(ago := measured.transition[place]):
            axes.axvline(-ago, color=RED, linestyle="--")
        axes.set(title=title, xlabel="month (0: now)", ylim=(0, 100))
    columns[0].set_ylabel("risk (%)")
    handles = [
        Line2D([], [], color=BLUE, alpha=0.5, label="a nation"),
        Line2D([], [], color="black", label="their mean"),
        Line2D([], [], color=RED, linestyle="--", label="a transition"),
        Patch(**windows[0], label="window of the figures"),
        Patch(**windows[-world.LAG], label="prior window (they overlap)"),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=5)
    return figure


@styled
def phase_plane(metrics: Sequence[Metrics]) -> Figure:
    """Temperature and order of CIC examples, coloured by phase, and how often each phase is printed."""
    figure, (left, right) = new_axes(2, height=3.8)
    phased = [m.cic for m in metrics if m.cic and m.cic.phase]
    for row, (phase, look) in enumerate(PHASE_LOOKS.items()):
        points = [(float(c.values["temperature"]), float(c.values["order"])) for c in phased if c.phase == phase]
        if points:
            left.scatter(
                *zip(*points, strict=True), s=12, color=look.colour, marker=look.marker, linewidth=0, label=phase
            )
        share = len(points) / max(len(metrics), 1)
        right.barh(row, share, color=look.colour)
        note(right, f"{share:.0%}", (share, row))
    left.set(title="One point an example", xlabel="temperature (0 to 1)", ylabel="order (0 to 1)")
    left.set(xlim=(0, 1), ylim=(0, 1))
    name_rows(right, list(PHASE_LOOKS))
    right.axvline(0.1, color="black", linestyle=":", label="the least that an audit accepts")
    right.set(title="How often each phase is printed", xlabel="share of examples")
    right.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    right.margins(x=0.12)
    figure.legend(loc="outside lower center", ncols=6, fontsize=SMALL, markerscale=1.6)
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
    image = axes.imshow(grid, cmap=SEQUENTIAL, vmin=0, vmax=100, aspect="auto")
    axes.grid(False)
    axes.set(title="Country risk by scenario (blank: not listed)", xlabel="scenario", ylabel="country")
    axes.set_yticks(range(len(codes)), codes, fontsize=9)
    axes.set_xticks(range(0, len(shown), 2), range(1, len(shown) + 1, 2))
    figure.colorbar(image, ax=axes, label="risk (%)")
    return figure


@styled
def audit_overview(audit: Mapping[str, Any]) -> Figure:
    """What an audit (`evaluation.audit`) counted: the length of examples, and how often each risk word is used."""
    figure, (left, right) = new_axes(2, height=4.2)
    if tokens := audit["tokens"]:
        edges, counts = tokens["histogram"]["edges"], tokens["histogram"]["counts"]
        left.stairs(counts, edges, fill=True, color=BLUE)
        left.axvline(tokens["mean"], color="black", linestyle="--", label=f"mean {tokens['mean']:.0f}")
        left.set(title="Length of an example", xlabel=tokens["unit"], ylabel="examples")
        left.legend()
    words = audit["risk_words"]
    total = max(sum(words.values()), 1)
    bands = {word: bound for bound, group in RISK_WORDS for word in group}
    for row, (word, count) in enumerate(words.items()):
        right.barh(row, count / total, color=BANDS[bands[word]])
    name_rows(right, list(words))
    handles = [Patch(color=BANDS[high], label=f"{low} to {min(high, 100)} %") for low, high in pairwise((0, *BANDS))]
    right.set(title="Risk words in the answers", xlabel="share of all risk words")
    right.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    right.tick_params(axis="y", labelsize=SMALL)
    figure.legend(handles=handles, title="of a risk of", loc="outside right center")
    return figure
