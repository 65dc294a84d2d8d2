"""The picture of a load test."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from helpers.plots.looks import BLUE, LOOKS, ORANGE, SMALL
from helpers.plots.style import log_ticks, new_axes, styled


@styled
def load_test(points: Sequence[Mapping[str, Any]]) -> Figure:
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
