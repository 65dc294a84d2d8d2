"""The figures of the notebooks and the report: one style, axes with units, readable without the text.

The background is white, so that a figure is legible in a dark notebook too. Colours and markers: `looks`.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, PercentFormatter, StrMethodFormatter

from elle.evaluation.statistics import Estimate
from helpers.plots.looks import GREY, SMALL, Look


def styled(function: Callable[..., Figure]) -> Callable[..., Figure]:
    """Draw under the project's style, whatever the caller's is."""

    @functools.wraps(function)
    def draw(*arguments, **options) -> Figure:
        with plt.style.context(["default", Path(__file__).with_name("elle.mplstyle")]):
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
