"""The figures of a training run, in the style of `helpers.plots`. Each returns a matplotlib Figure."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from helpers.plots import BLUE, GREEN, GREY, ORANGE, PURPLE, RED, SKY, new_axes, styled
from helpers.training.history import moments, rates, resumed

MOMENTS = {"copying learned": GREEN, "best validation": RED, "warm-up ends": SKY, "decay begins": ORANGE}


@styled
def loss_curve(history: Sequence[Mapping[str, float]], learned_at: int | None = None) -> Figure:
    """Loss by step, and beside it the share of digits predicted right, with the step at which copying is learned."""
    figure, (left, right) = new_axes(2)
    train = [(log["step"], log["loss"]) for log in history if "loss" in log]
    valid = [(log["step"], log["eval_loss"]) for log in history if "eval_loss" in log]
    digits = [(log["step"], log["digit_accuracy"]) for log in history if "digit_accuracy" in log]
    for points, label, colour, marker in ((train, "training", BLUE, ""), (valid, "validation", RED, "o")):
        if points:
            left.plot(*zip(*points, strict=True), label=label, color=colour, marker=marker, markersize=4)
    left.set(title="The words are learned at once …", xlabel="step", ylabel="loss (nats a token, log scale)")
    left.set_yscale("log")
    left.legend()
    if digits:
        right.plot(*zip(*digits, strict=True), color=GREEN, marker="o", markersize=4)
    right.axhline(0.1, color=GREY, linestyle=":", label="guessing")
    right.set(title="… the figures later, and suddenly", xlabel="step", ylabel="digits predicted right", ylim=(0, 1.05))
    right.yaxis.set_major_formatter(PercentFormatter(1))
    if learned_at is not None:
        for axes in (left, right):
            axes.axvline(learned_at, color=ORANGE, linewidth=1.5)
        right.plot([], [], color=ORANGE, label=f"copying learned: step {learned_at}")
    right.legend(loc="lower right", bbox_to_anchor=(1, 0.12))
    return figure


def _points(history: Sequence[Mapping[str, float]], key: str) -> tuple[list, list]:
    rows = [row for row in history if row.get(key) is not None]
    return [row["step"] for row in rows], [row[key] for row in rows]


def _mark(axes: Axes, history: Sequence[Mapping[str, float]], names: Sequence[str]) -> None:
    """Vertical lines at the moments that matter; where two fall together, they stand side by side in the legend."""
    found = moments(list(history))
    for place, name in enumerate(name for name in names if name in found):
        line = (0, (4, 4)) if place % 2 else "--"
        axes.axvline(found[name], color=MOMENTS[name], linestyle=line, linewidth=1.2, label=f"{name} ({found[name]})")
    for number, step in enumerate(resumed(list(history))):
        axes.axvline(step, color=GREY, linestyle=":", linewidth=1.5, label=None if number else "went on after a break")


@styled
def training(history: Sequence[Mapping[str, float]], clip: float | None = 1.0) -> Figure:
    """A training run in four pictures by step: loss, learning rate, gradient norm and tokens a second, with the moments
    that matter. clip: the gradient norm above which gradients are scaled down (`max_grad_norm`)."""
    figure, grid = plt.subplots(2, 2, figsize=(9, 5.6), sharex=True)
    plt.close(figure)
    (loss, rate), (norm, pace) = grid
    loss.plot(*_points(history, "loss"), color=BLUE, label="training")
    steps, values = _points(history, "eval_loss")
    if steps:
        loss.plot(steps, values, color=RED, marker="o", markersize=3, linewidth=1, label="validation")
    saved = [row["step"] for row in history if "saved" in row]
    if saved:
        top = max((row["loss"] for row in history if "loss" in row), default=1.0)
        loss.plot(saved, [top] * len(saved), color="black", marker="v", linestyle="", markersize=5, label="checkpoint")
    _mark(loss, history, ("copying learned", "best validation"))
    loss.set(title="Loss", ylabel="nats a token (log scale)", yscale="log")
    rate.plot(*_points(history, "learning_rate"), color=PURPLE)
    _mark(rate, history, ("warm-up ends", "decay begins"))
    rate.set(title="Learning rate", ylabel="rate", ylim=(0, None))
    norm.plot(*_points(history, "grad_norm"), color=ORANGE)
    if clip:
        norm.axhline(clip, color=GREY, linestyle="--", linewidth=1, label=f"clipped above {clip:g}")
    norm.set(title="Gradient norm, before clipping", xlabel="step", ylabel="norm (log scale)", yscale="log")
    speeds = rates(list(history))
    if speeds:
        pace.plot(*zip(*speeds, strict=True), color=GREEN)
    pace.set(title="Speed, without evaluation", xlabel="step", ylabel="tokens a second", ylim=(0, None))
    for axes in grid.flat:
        axes.tick_params(labelbottom=True)
        if axes.get_legend_handles_labels()[0]:
            axes.legend(fontsize=8)
    return figure
