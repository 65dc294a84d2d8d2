"""The figures of a training run, in the style of `helpers.plots.style`. Each returns a matplotlib Figure."""

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from elle.training.history import moments, rates, resumed
from helpers.plots.looks import BLUE, GREEN, GREY, ORANGE, PURPLE, RED, SMALL
from helpers.plots.style import log_ticks, new_axes, styled

#: Moment → the colour and the dashes of its line.
MOMENTS = {
    "copying learned": (ORANGE, "-"),
    "best validation": (RED, "--"),
    "warm-up ends": (BLUE, ":"),
    "decay begins": (ORANGE, "--"),
}


def _loss(axes: Axes, history: Sequence[Mapping[str, float]]) -> None:
    """Training as a broad line, validation as dots on it: they often run together."""
    if (points := _points(history, "loss"))[0]:
        axes.plot(*points, color=BLUE, linewidth=2.4, label="training")
    if (points := _points(history, "eval_loss"))[0]:
        axes.plot(*points, color=RED, marker="o", markersize=4, linewidth=0.8, linestyle="--", label="validation")
    axes.set(title="Loss", ylabel="nats a token (log scale)", yscale="log")
    log_ticks(axes.yaxis)


@styled
def loss_curve(history: Sequence[Mapping[str, float]], learned_at: int | None = None) -> Figure:
    """Loss by step, and beside it the share of digits predicted right, with the step at which copying is learned."""
    figure, (left, right) = new_axes(2)
    _loss(left, history)
    if (digits := _points(history, "digit_accuracy"))[0]:
        right.plot(*digits, color=GREEN, marker="o", markersize=4, label="validation")
    right.axhline(0.1, color=GREY, linestyle=":", label="guessing: one in ten")
    right.set(ylabel="digits predicted right", ylim=(0, 1.05), title="Digits")
    right.yaxis.set_major_formatter(PercentFormatter(1))
    if learned_at is not None:
        right.set_title(f"Digits: copying is learned by step {learned_at}")
        colour, line = MOMENTS["copying learned"]
        for axes in (left, right):
            axes.axvline(learned_at, color=colour, linestyle=line, label="copying learned")
    for axes, place in ((left, "upper right"), (right, "center right")):
        axes.set_xlabel("step")
        axes.legend(loc=place)
    return figure


def _points(history: Sequence[Mapping[str, float]], key: str) -> tuple[list, list]:
    rows = [row for row in history if row.get(key) is not None]
    return [row["step"] for row in rows], [row[key] for row in rows]


def _mark(axes: Axes, history: Sequence[Mapping[str, float]], names: Sequence[str]) -> None:
    """Vertical lines at the moments that matter."""
    steps = moments(list(history))
    for name in names:
        if name in steps:
            colour, line = MOMENTS[name]
            axes.axvline(steps[name], color=colour, linestyle=line, label=f"{name} ({steps[name]})")
    for number, step in enumerate(resumed(list(history))):
        axes.axvline(step, color=GREY, linestyle="-.", label=None if number else "went on after a break")


@styled
def training(history: Sequence[Mapping[str, float]], clip: float | None = 1.0) -> Figure:
    """A training run in four pictures by step: loss, learning rate, gradient norm and tokens a second, with the moments
    that matter. clip: the gradient norm above which gradients are scaled down (`max_grad_norm`)."""
    figure, (loss, rate, norm, pace) = new_axes(2, rows=2, height=5.6, sharex=True)
    _loss(loss, history)
    saved = [row["step"] for row in history if "saved" in row]
    if saved:
        top = max((row["loss"] for row in history if "loss" in row), default=1.0)
        loss.plot(saved, [top] * len(saved), color="black", marker="v", linestyle="", label="checkpoint")
    _mark(loss, history, ("copying learned", "best validation"))
    rate.plot(*_points(history, "learning_rate"), color=PURPLE)
    _mark(rate, history, ("warm-up ends", "decay begins"))
    rate.set(title="Learning rate", ylabel="learning rate", ylim=(0, None))
    norm.plot(*_points(history, "grad_norm"), color=BLUE)
    if clip:
        norm.axhline(clip, color=GREY, linestyle="--", label=f"clipped above {clip:g}")
    norm.set(title="Gradient norm, before clipping", ylabel="norm (log scale)", yscale="log")
    log_ticks(norm.yaxis)
    speeds = rates(list(history))
    if speeds:
        pace.plot(*zip(*speeds, strict=True), color=GREEN)
    pace.set(title="Speed, without evaluation", ylabel="tokens a second", ylim=(0, None))
    for axes in (loss, rate, norm, pace):
        axes.set_xlabel("step")
        axes.tick_params(labelbottom=True)
        if axes.get_legend_handles_labels()[0]:
            axes.legend(fontsize=SMALL)
    return figure
