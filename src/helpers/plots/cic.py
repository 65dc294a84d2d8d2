"""The figures of the CIC notebooks, in the style of `helpers.plots.style`. Each returns a matplotlib Figure."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle

from cic.criticality import PHASES, classify_phase
from cic.systems import ISING_CRITICAL_TEMPERATURE
from cic.trials.documents import GeneratorTrial
from cic.trials.intervals import Reading
from cic.trials.traces import Separation
from cic.trials.transitions import FoldTrial, IsingTrial, detrended
from cic.trials.votes import CENTRE, CLAIM, SPREADS, VOTE, VoteTrial
from helpers.plots.looks import BLUE, GREEN, GREY, LOOKS, ORANGE, PURPLE, RED, SEQUENTIAL, SKY, SMALL
from helpers.plots.style import name_rows, new_axes, note, styled

#: Phase → look, from cold to hot.
PHASE_LOOKS = {name: LOOKS[colour] for name, colour in zip(PHASES, (SKY, BLUE, ORANGE, RED, PURPLE), strict=True)}


def _bars(axes, estimates: Mapping[str, Reading], colours: Mapping[str, str] | None = None) -> None:
    """Horizontal bars with intervals and their values, the first on top."""
    for row, (name, (value, low, high)) in enumerate(estimates.items()):
        axes.barh(row, value, color=(colours or {}).get(name, BLUE), height=0.62)
        axes.errorbar(value, row, xerr=[[value - low], [high - value]], color="black", linewidth=1)
        note(axes, f"{value:.2f}", (max(high, 0), row))
    name_rows(axes, list(estimates))


def _mark_chance(axes) -> None:
    """The line that an AUC has to pass, named above the bars."""
    axes.axvline(0.5, color="black", linestyle=":", linewidth=1)
    axes.set_ylim(top=-0.9)
    note(axes, "chance", (0.5, -0.65), (0, 0), ha="center")


@styled
def coupled_series(panels: Mapping[str, np.ndarray], unit: str = "risk") -> Figure:
    """Panels side by side, each (time, units): what integration looks like."""
    figure, columns = new_axes(len(panels), height=2.6, sharey=True)
    for axes, (title, series) in zip(columns, panels.items(), strict=True):
        axes.plot(series + 0.35 * np.arange(series.shape[1]), color=BLUE, linewidth=1)
        axes.set(title=title, xlabel="time (steps)", yticks=[])
    columns[0].set_ylabel(f"{unit} of each unit (shifted)")
    return figure


@styled
def integration_curve(coupling: Sequence[float], measured: Mapping[str, Sequence[float]], exact: Mapping) -> Figure:
    """Measured integration by coupling (points), beside its closed form (lines), in nats."""
    figure, (axes,) = new_axes(width=7)
    for (name, values), look in zip(measured.items(), list(LOOKS.values())[1:], strict=False):
        axes.plot(coupling, values, look.marker, color=look.colour, label=f"{name}, measured")
        axes.plot(coupling, exact[name], linestyle=look.line, color=look.colour, label=f"{name}, exact")
    axes.set(title="Integration, turned up", xlabel="coupling (correlation of the shocks)", ylabel="integration (nats)")
    axes.legend()
    return figure


@styled
def lattices(snapshots: np.ndarray, temperatures: Sequence[float]) -> Figure:
    """Ising lattices, (k, L, L), under their temperatures."""
    figure, columns = new_axes(len(temperatures), height=2.3)
    for axes, spins, temperature in zip(columns, snapshots, temperatures, strict=True):
        axes.imshow(spins, cmap=ListedColormap(["white", BLUE]), vmin=-1, vmax=1, interpolation="nearest")
        side = "below" if temperature < ISING_CRITICAL_TEMPERATURE - 0.05 else "above"
        near = abs(temperature - ISING_CRITICAL_TEMPERATURE) <= 0.05
        axes.set(title=f"T = {temperature:.2f}: {'near' if near else side} $T_c$", xticks=[], yticks=[])
        axes.grid(False)
        axes.spines[:].set_visible(True)
    figure.supxlabel("Each cell is a spin: blue up, white down", fontsize=9)
    return figure


@styled
def ising_curves(trial: IsingTrial) -> Figure:
    """Integration and entropy by temperature, and the framework's imbalance beside the susceptibility."""
    figure, (left, right) = new_axes(2)
    for axes, name, look, label in (
        (left, "phi", LOOKS[BLUE], "Φ: total correlation of a square (bits)"),
        (left, "entropy", LOOKS[ORANGE], "H: its entropy (share of 4 bits)"),
        (right, "susceptibility", LOOKS[GREEN], "susceptibility"),
        (right, "imbalance", LOOKS[RED], "imbalance |dΦ/dT − λ·dH/dT|"),
    ):
        mean = trial.curves[name].mean(axis=0)
        mean = mean / mean.max() if axes is right else mean
        axes.plot(trial.temperatures, mean, color=look.colour, linestyle=look.line, label=label)
    left.set(title="Heated: order is lost", ylabel="Φ (bits), H (share of 4 bits)")
    right.set(title="Where each is largest", ylabel="share of its own maximum")
    for axes in (left, right):
        line = {"ymax": 0.72, "color": GREY, "linestyle": "--"}  # ends below the legend
        axes.axvline(ISING_CRITICAL_TEMPERATURE, label="exact $T_c$", **line)
        axes.set(xlabel="temperature (coupling = 1)", ylim=(-0.03, 1.5), yticks=np.linspace(0, 1, 6))
        axes.legend(fontsize=SMALL, loc="upper left")
    return figure


@styled
def coarse_graining(micro: np.ndarray, macro: np.ndarray, micro_bits: float, macro_bits: float) -> Figure:
    """Transition matrices of the states and of the best macro-states, with their effective information."""
    figure, columns = new_axes(2, width=7, height=3.1)
    shown = ((micro, "State", micro_bits), (macro, "Macro-state", macro_bits))
    for axes, (matrix, name, bits) in zip(columns, shown, strict=True):
        image = axes.imshow(matrix, cmap=SEQUENTIAL, vmin=0, vmax=1)
        for (i, j), p in np.ndenumerate(matrix):
            axes.text(j, i, f"{p:.2f}", ha="center", va="center", color="white" if p > 0.6 else "black", fontsize=9)
        axes.set(title=f"{name}s: {bits:.3f} bits", xlabel=f"{name.lower()} next", ylabel=f"{name.lower()} now")
        axes.set(xticks=range(len(matrix)), yticks=range(len(matrix)))
        axes.grid(False)
    figure.colorbar(image, ax=columns, label="probability")
    return figure


@styled
def decay(months: np.ndarray, curves: Mapping[str, np.ndarray], cap: float) -> Figure:
    """Confidence by the months since an assessment."""
    figure, (axes,) = new_axes(width=7)
    for (name, values), look in zip(curves.items(), list(LOOKS.values())[1:], strict=False):
        axes.plot(months, values, color=look.colour, linestyle=look.line, label=name)
    axes.axhline(cap, color=GREY, linestyle="-.", linewidth=1, label=f"cap {cap}")
    axes.set(title="Confidence decays", xlabel="months since the assessment", ylabel="confidence (0 to 1)", ylim=(0, 1))
    axes.legend()
    return figure


@styled
def phase_map(states: np.ndarray | None = None) -> Figure:
    """The documents' table with its gaps (and states (n, 2)), the total classifier without and with a history."""
    figure, (table, total, after) = new_axes(3, height=3.5, sharey=True)
    none = {"facecolor": "none", "edgecolor": "#bbbbbb", "hatch": "////", "linewidth": 0}
    table.add_patch(Rectangle((0, 0), 1, 1, **none))
    phases = {name: look.colour for name, look in PHASE_LOOKS.items()}
    for colours, alpha in ((dict.fromkeys(PHASES, "white"), 1), (phases, 0.75)):  # no hatching through a box
        for name, ((t0, t1), (o0, o1)) in PHASES.items():
            box = Rectangle((t0, o0), t1 - t0, o1 - o0, facecolor=colours[name], alpha=alpha, edgecolor="black")
            table.add_patch(box)
    for name, ((t0, _), (o0, _)) in PHASES.items():
        table.text(t0 + 0.05, o0 + 0.05, name[0], ha="center", va="center", weight="bold")
    grid = np.linspace(0, 1, 301)
    temperature, order = np.meshgrid(grid, grid)
    for axes, previous in ((total, None), (after, (np.ones_like(order), np.zeros_like(order)))):
        phase = classify_phase(temperature, order, previous)
        index = np.select([phase == name for name in PHASES], range(len(PHASES)))
        axes.imshow(
            index, origin="lower", extent=(0, 1, 0, 1), aspect="auto", alpha=0.75,
            cmap=ListedColormap(list(phases.values())), vmin=0, vmax=len(PHASES) - 1, interpolation="nearest",
        )  # fmt: skip
        axes.contour(temperature, order, index, levels=np.arange(len(PHASES)) + 0.5, colors="black", linewidths=0.8)
        for number, name in enumerate(PHASES):
            if len(inside := np.argwhere(index == number)):  # the point of the region nearest to its middle
                o, t = inside[np.linalg.norm(inside - inside.mean(axis=0), axis=1).argmin()]
                axes.text(grid[t], grid[o], name[0], ha="center", va="center", weight="bold")
    if states is not None:
        points = {"color": "black", "markersize": 1.5, "alpha": 0.5, "label": f"{len(states):,} examples"}
        table.plot(*np.transpose(states), ".", **points)
        table.legend(loc="upper right", fontsize=SMALL, markerscale=5)
    table.set(title="The documents' table", ylabel="order (0 to 1)", xlim=(0, 1), ylim=(0, 1))
    total.set(title="Every point has one phase")
    after.set(title="… coming from disorder")
    for axes in (table, total, after):
        axes.set_xlabel("temperature (0 to 1)")
        axes.set_xticks(np.linspace(0, 1, 6), ["0", "0.2", "0.4", "0.6", "0.8", "1"])
        axes.grid(False)
    handles = [Patch(facecolor=colour, alpha=0.75, label=f"{name[0]}: {name}") for name, colour in phases.items()]
    figure.legend(handles=[*handles, Patch(**none, label="no phase")], loc="outside lower center", ncols=6)
    return figure


@styled
def phi_on_trial(generator: GeneratorTrial, coupling: Mapping[str, Reading]) -> Figure:
    """The documents' Φ before it is clipped, and whether two measures tell coupled from shuffled systems."""
    figure, (left, right) = new_axes(2)
    left.hist(generator.phi_raw, bins=40, color=BLUE)
    left.axvspan(0, 1, color=ORANGE, alpha=0.25, label="what clipping leaves alone")
    left.axvline(1, color=RED, linestyle="--", label="clipped to 1.000")
    left.set(title="The documents' Φ over their data", xlabel="Φ before clipping (no unit)", ylabel="examples")
    left.set(xlim=(0, None), ylim=(None, 1.3 * left.get_ylim()[1]))
    left.legend()
    _bars(right, coupling, {"documents' Φ": RED})
    _mark_chance(right)
    right.set(title="Does it see coupling?", xlabel="AUC, coupled against shuffled (more is better)", xlim=(0, 1.12))
    return figure


@styled
def uipt_on_trial(ising: IsingTrial, fold: FoldTrial) -> Figure:
    """How far each signal lands from the Ising T_c, and how well it foresees a fold."""
    colours = {"smallest imbalance (UIPT)": RED, "chance": GREY, "largest imbalance": ORANGE}
    figure, (left, right) = new_axes(2)
    _bars(left, ising.errors, colours)
    left.set(title="Ising: where is $T_c$?", xlabel="median distance from $T_c$ (less is better)")
    left.margins(x=0.12)
    _bars(right, fold.auc, colours)
    _mark_chance(right)
    right.set(title="Fold: is one coming?", xlabel="AUC (more is better)", xlim=(0, 1.12))
    return figure


@styled
def fold_examples(trial: FoldTrial) -> Figure:
    """Series that approach a fold, and series that take the same road without losing stability; below, what is left of
    the first of each without its drift. Noise makes a heavy picture: a tenth of the observations, and no soft edges."""
    figure, axes = new_axes(2, rows=2, height=3.6, sharex=True, sharey="row")
    kinds = ((trial.approaching, "Approaching a fold", RED), (trial.quiet, "The same drift, as stable as before", BLUE))
    for above, below, (series, title, colour) in zip(axes[:2], axes[2:], kinds, strict=True):
        above.plot(np.arange(0, series.shape[1], 10), series[:3, ::10].T, color=colour, linewidth=0.8)
        above.set_title(title)
        below.plot(detrended(series[0]), color=colour, linewidth=0.6, antialiased=False)
        below.set_xlabel("time (observations)")
    axes[0].set_ylabel("state (units' mean)")
    axes[2].set_ylabel("… one, without drift")
    return figure


@styled
def answers_on_trial(trial: VoteTrial) -> Figure:
    """What each regime makes of the claim, and how the near-misses' spread decides."""
    figure, (left, right) = new_axes(2, height=3.9)
    shown = trial.regimes[:5]
    for offset, (method, look) in enumerate(((CENTRE, LOOKS[BLUE]), (VOTE, LOOKS[ORANGE]))):
        for place, result in enumerate(shown):
            value, low, high = result.reduction[method]
            at = place - 0.18 + 0.36 * offset
            left.barh(at, value, 0.34, **look.bar, label=method if place == 0 else None)
            left.errorbar(value, at, xerr=[[value - low], [high - value]], color="black", capsize=2, linewidth=0.9)
    left.set_xscale("symlog", linthresh=1)
    left.axvline(CLAIM, color=RED, linestyle="--", label="claimed: 0.921")
    left.axvline(0, color="black", linewidth=0.8)
    name_rows(left, [result.regime.name for result in shown])
    left.set_xticks([-30, -5, -1, 0, 1], ["−30", "−5", "−1", "0", "1"])
    left.set(title="Error cut against a majority vote", xlabel="1 − error / the vote's (below 0: worse)")
    left.legend(loc="upper left", fontsize=SMALL)
    spread = 100 * np.array(SPREADS)
    value, low, high = np.array(trial.spread).T
    right.fill_between(spread, low, high, color=BLUE, alpha=0.25)
    right.plot(spread, value, "o-", color=BLUE, label=CENTRE)
    right.axhline(CLAIM, color=RED, linestyle="--", label="claimed: 0.921")
    right.axvline(5, color=GREY, linestyle=":", label="the clusters' gap: 5 %")
    right.set(title="The near-misses' spread decides", xlabel="spread of the near-misses (%)")
    right.set(ylabel="share of the error that is cut", ylim=(0, 1.05))
    right.legend(fontsize=SMALL)
    return figure


@styled
def traces_on_trial(trial: Mapping[str, Separation]) -> Figure:
    """What NCD separates, and how far the texts of two conditions are from one another."""
    figure, (bars, fixed, wrong) = new_axes(3, height=3.2, width_ratios=(1.5, 1, 1))
    _bars(bars, {name: separation.ratio for name, separation in trial.items()})
    bars.axvline(11, color=RED, linestyle="--", label="claimed: 11")
    bars.axvline(1, color=GREY, linestyle=":", label="no separation")
    bars.set(title="Separation by NCD", xlabel="distance between / within")
    bars.margins(x=0.12)
    bars.legend(loc="lower right", fontsize=SMALL)
    for axes, name in ((fixed, "two fixed templates"), (wrong, "same method, wrong numbers")):
        image = axes.imshow(trial[name].distances, cmap=SEQUENTIAL, vmin=0, vmax=1)
        axes.set(xlabel="text number", ylabel="text number")
        axes.set_title(name.replace(", ", ",\n"), fontsize=9)
        axes.grid(False)
    figure.colorbar(image, ax=[fixed, wrong], label="distance (NCD)")
    return figure


@styled
def confidence_on_trial(trial: VoteTrial) -> Figure:
    """Confidence beside what came true, regime by regime."""
    figure, (axes,) = new_axes(width=8)
    for place, result in enumerate(trial.regimes):
        right = 1 - result.wrong[VOTE].value
        axes.plot([result.mean_confidence, right], [place, place], color=GREY, linewidth=1.2)
        axes.plot(result.mean_confidence, place, "o", color=BLUE, label=None if place else "mean confidence")
        axes.plot(right, place, "D", color=ORANGE, label=None if place else "share right")
    axes.axvline(0.95, color=RED, linestyle="--", label="cap 0.95")
    name_rows(axes, [result.regime.name for result in trial.regimes])
    axes.set(title="A cap bounds the number, not the error", xlim=(-0.03, 1.03))
    axes.set_xlabel("confidence, and share right (0 to 1)")
    axes.legend(loc="upper left", ncols=3, bbox_to_anchor=(0, -0.16))
    return figure


@styled
def mu_sweep(sweep: Mapping[float, float]) -> Figure:
    """μ by the diagonal that is put in."""
    figure, (axes,) = new_axes(width=6)
    diagonal = np.array(list(sweep))
    axes.plot(diagonal, list(sweep.values()), "o-", color=BLUE, label="μ")
    axes.plot(diagonal, diagonal, ":", color=GREY, label="the diagonal alone")
    axes.axhline(1, color=RED, linestyle="--", label='"existence": μ > 1')
    axes.annotate("the documents' 1.5", (1.5, sweep[1.5]), (0.75, sweep[1.5] + 0.25), arrowprops={"arrowstyle": "->"})
    axes.set(title="What is put in comes out", xlabel="diagonal of the operator", ylabel="spectral radius μ")
    axes.legend(loc="lower right")
    return figure
