"""The figures of the stacking experiment, in the style of `helpers.plots`. Each returns a matplotlib Figure."""

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from helpers.briefings.cic_figures import DERIVED
from helpers.evaluation.stacking import Scores, share
from helpers.evaluation.statistics import Estimate
from helpers.plots import BLUE, GREEN, GREY, ORANGE, PURPLE, RED, SKY, new_axes, styled
from helpers.stacking import ARMS, STAGE_1

_LOOKS = zip((GREY, BLUE, GREEN, ORANGE, PURPLE, RED, SKY), ("o", "s", "D", "^", "v", "P", "X"), strict=True)
#: Model → colour and marker, the same in every figure.
LOOKS = dict(zip((STAGE_1, *ARMS), _LOOKS, strict=True))


def _arms(share: Estimate) -> list[list[float]]:
    """The lengths of an error bar to both sides."""
    return [[share.value - share.low], [share.high - share.value]]


@styled
def retention(scores: Mapping[str, Sequence[Scores]]) -> Figure:
    """What stage 2 brought against what it left of stage 1: for each model, right sums over assessments whose own sums
    hold, with Wilson's intervals over all seeds; of several seeds, each as a small dot. scores: model → one a
    seed."""
    figure, (axes,) = new_axes(height=4.6, width=7.5)
    for name, found in scores.items():
        colour, marker = LOOKS[name]
        pooled = Scores.pooled(found)
        x, y = share(pooled.gain), share(pooled.sums)
        axes.errorbar(
            x.value, y.value, xerr=_arms(x), yerr=_arms(y),
            color=colour, marker=marker, markersize=7, linewidth=1.5, capsize=3, linestyle="", label=name, zorder=3,
        )  # fmt: skip
        if len(found) > 1:
            dots = [each.gain.mean() for each in found], [each.sums.mean() for each in found]
            axes.scatter(*dots, color=colour, marker=marker, s=12, alpha=0.5, linewidth=0)
        if name == STAGE_1:
            axes.axhline(y.value, color=colour, linestyle=":", linewidth=1)
    axes.set(
        title="Retention against gain (lines: 95 % intervals; dotted: before stage 2)",
        xlabel="gain: assessments whose sums hold", ylabel="retention: sums right", xlim=(-0.04, 1.04),
        ylim=(-0.04, 1.04),
    )  # fmt: skip
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(PercentFormatter(1))
    figure.legend(loc="outside right center")
    return figure


@styled
def by_figure(scores: Mapping[str, Sequence[Scores]]) -> Figure:
    """Which of an assessment's computed figures are right, model by model, over all seeds."""
    figure, (axes,) = new_axes(height=0.55 * len(DERIVED) + 1.2)
    height = 0.8 / max(len(scores), 1)
    for place, (name, found) in enumerate(scores.items()):
        shares = [share(right) for right in Scores.pooled(found).figures.values()]
        rows = [row + (place - (len(scores) - 1) / 2) * height for row in range(len(DERIVED))]
        axes.barh(rows, [each.value for each in shares], 0.92 * height, color=LOOKS[name][0], label=name)
        axes.hlines(rows, [each.low for each in shares], [each.high for each in shares], color="black", linewidth=0.8)
    axes.set_yticks(range(len(DERIVED)), DERIVED)
    axes.invert_yaxis()
    axes.grid(axis="y", visible=False)
    axes.xaxis.set_major_formatter(PercentFormatter(1))
    axes.set(title="Computed figures that are right (lines: 95 % intervals)", xlabel="share", xlim=(0, 1.02))
    figure.legend(loc="outside right center")
    return figure
