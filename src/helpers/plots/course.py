"""The map of the course."""

from collections.abc import Sequence

from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from helpers.plots.looks import BLUE, GREY, RED, SMALL
from helpers.plots.style import new_axes, styled

#: State of a notebook → how its number stands on the map: shape, filling, edge and the edge's width.
STATES = {
    "here": ("D", "black", "black", 1.5),
    "done": ("o", BLUE, BLUE, 1.5),
    "ready": ("s", "white", RED, 3),
    "waits": ("o", "white", GREY, 1),
}

COLUMNS = (0.55, 5.0, 7.2)  # of the map's words; its numbers stand at 0


@styled
def stations_map(stations: Sequence[tuple[str, str, str, Sequence[str]]]) -> Figure:
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
