"""The figures of the stacking experiment, in the style of `helpers.plots.style`. Each returns a matplotlib Figure."""

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from elle.briefings.cic_figures import DERIVED
from elle.evaluation.statistics import Estimate
from experiments.stacking import ARMS, STAGE_1
from experiments.stacking.scores import Scores, share
from helpers.plots.looks import LOOKS as ALL
from helpers.plots.style import dot_rows, new_axes, styled

#: Model → look, the same in every figure.
LOOKS = dict(zip((STAGE_1, *ARMS), ALL.values(), strict=True))


def _arms(share: Estimate) -> list[list[float]]:
    """The lengths of an error bar to both sides."""
    return [[share.value - share.low], [share.high - share.value]]


@styled
def retention(scores: Mapping[str, Sequence[Scores]]) -> Figure:
    """What stage 2 brought against what it left of stage 1: for each model, right sums over assessments whose own sums
    hold, with Wilson's intervals over all seeds; of several seeds, each as a small dot. scores: model → one a
    seed."""
    figure, (axes,) = new_axes(height=4.6, width=7.5)
    for name, seeds in scores.items():
        colour, marker, *_ = LOOKS[name]
        pooled = Scores.pooled(seeds)
        x, y = share(pooled.gain), share(pooled.sums)
        point, *_ = axes.errorbar(
            x.value, y.value, xerr=_arms(x), yerr=_arms(y),
            color=colour, marker=marker, markersize=8, markeredgecolor="black", linestyle="", zorder=3,
        )  # fmt: skip
        point.set_label(name)  # without its lines, in the legend
        if len(seeds) > 1:
            dots = [each.gain.mean() for each in seeds], [each.sums.mean() for each in seeds]
            axes.scatter(*dots, color=colour, marker=marker, s=20, alpha=0.6, linewidth=0)
        if name == STAGE_1:
            axes.axhline(y.value, color=colour, linestyle=":", linewidth=1)
    axes.set(title="Retention against gain (lines: 95 % intervals; dotted: before stage 2)")
    axes.set(xlabel="gain: share of assessments whose sums hold", ylabel="retention: share of sums right")
    axes.set(xlim=(-0.04, 1.04), ylim=(-0.04, 1.04))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(PercentFormatter(1))
    figure.legend(loc="outside right center")
    return figure


@styled
def by_figure(scores: Mapping[str, Sequence[Scores]]) -> Figure:
    """Which of an assessment's computed figures are right, model by model, over all seeds."""
    rows = {name: [share(right) for right in Scores.pooled(seeds).figures.values()] for name, seeds in scores.items()}
    figure, axes = dot_rows(list(DERIVED), rows, LOOKS)
    axes.set(title="Computed figures that are right (lines: 95 % intervals)", xlabel="share of assessments")
    return figure
