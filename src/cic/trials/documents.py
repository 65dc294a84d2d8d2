"""Insights 1, 3, 6, 7 and 8 on trial: the source plans' own formulas, examples and data, recomputed."""

import math
from collections import Counter
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from cic import analogues, seed_formulas, systems
from cic.criticality import PHASES
from cic.information import minimum_information_bipartition
from cic.trials.intervals import Reading, share
from cic.trials.transitions import auc

#: The base risks of the source plans' 23 countries (0.7–0.9 high, 0.4–0.7 medium, 0.15–0.3 low).
BASE_RISKS = (
    0.85, 0.90, 0.85, 0.75, 0.60, 0.65, 0.60, 0.70, 0.55, 0.18, 0.20, 0.25, 0.20, 0.15, 0.35, 0.35, 0.40, 0.35, 0.45,
    0.25, 0.50, 0.15, 0.12,
)  # fmt: skip


@dataclass(frozen=True)
class Equality:
    """One computation that the source plans print: its text, the result that they print, and the actual one."""

    text: str
    printed: float
    computed: float

    @property
    def holds(self) -> bool:
        """To the digits printed."""
        return abs(self.printed - self.computed) < 0.5 * 10 ** -len(str(self.printed).partition(".")[2]) + 1e-9


def worked_example() -> list[Equality]:
    """The computations in the one output that the source plans print as what the trained model computes."""
    return [
        Equality("0.3 × 0.31", 0.093, 0.3 * 0.31),
        Equality("0.25 × 0.78", 0.195, 0.25 * 0.78),
        Equality("0.92 − 0.093 + 0.195", 0.847, seed_formulas.compute_cic_functional(0.92, 0.31, 0.78)),
        Equality("0.3 × 0.12", 0.036, 0.3 * 0.12),
        Equality("e^(−0.1 × 3)", 0.74, math.exp(-0.3)),
        Equality("0.85 × e^(−0.1 × 3)", 0.63, seed_formulas.apply_epistemic_bounds(0.85, 3)),
    ]


@dataclass(frozen=True)
class GeneratorTrial:
    """What the source plans' generator makes.

    phi_raw: Φ before it is clipped; functional: F; (examples,) each, as temperature and order. phases: the share of
    each. phi_is_one, flagged: the share of examples whose Φ prints 1.000, and that are marked as a transition.
    """

    phi_raw: np.ndarray
    functional: np.ndarray
    temperature: np.ndarray
    order: np.ndarray
    phases: dict[str, float]
    phi_is_one: Reading
    flagged: Reading


def generator_trial(examples: int = 10_000, seed: int = 10) -> GeneratorTrial:
    """Draw examples as the source plans' generator does, and apply its formulas.

    A reconstruction from its description: 6 to 15 of 23 countries, base risk ± 0.15; a nucleus is a country above 50 %;
    the state before is the present one ± 0.1. Trends within ± 0.2 and tones from −5 to 3 are our own choice (they
    enter F only).
    """
    rng = np.random.default_rng(seed)
    bases = np.array(BASE_RISKS)
    raw, functional, states, phases, one, flagged = [], [], [], Counter(), 0, 0
    for _ in range(examples):
        n = int(rng.integers(6, 16))
        r = np.clip(rng.permutation(bases)[:n] + rng.uniform(-0.15, 0.15, n), 0, 1)
        phi, entropy = seed_formulas.compute_integrated_information(r), seed_formulas.compute_entropy(r)
        causality = seed_formulas.compute_causality(rng.uniform(-0.2, 0.2, n), rng.uniform(-5, 3))
        before = phi + rng.uniform(-0.1, 0.1), entropy + rng.uniform(-0.1, 0.1)
        raw.append(seed_formulas.compute_integrated_information(r, clip=False))
        functional.append(seed_formulas.compute_cic_functional(phi, entropy, causality))
        states.append(seed_formulas.temperature_and_order(r))
        phases[seed_formulas.calculate_phase(*states[-1], nuclei=int((r > 0.5).sum()))] += 1
        one += f"{phi:.3f}" == "1.000"
        flagged += seed_formulas.detect_uipt(phi, before[0], entropy, before[1])
    temperature, order = np.array(states).T
    return GeneratorTrial(
        np.array(raw),
        np.array(functional),
        temperature,
        order,
        {name: phases[name] / examples for name in PHASES},
        share(one, examples),
        share(flagged, examples),
    )


def coupling_trial(systems_drawn: int = 200, length: int = 120, units: int = 6, seed: int = 11) -> dict[str, Reading]:
    """Measure → the chance that it scores a coupled system above the same one shuffled; ½ sees no coupling.

    Risks around 0.5 with a memory of ½ and shocks that correlate by 0 to 0.8, against themselves with each unit
    shuffled in time: every unit keeps its values, the integration is gone. The source plans' Φ is taken of the
    risks' means over time.
    """
    rng = np.random.default_rng(seed)
    pairs = []
    for c in rng.uniform(0, 0.8, systems_drawn):
        shocks = 0.01 * ((1 - c) * np.eye(units) + c)
        coupled = np.clip(0.5 + systems.var1_series(0.5 * np.eye(units), shocks, length, rng), 0, 1)
        pairs.append((coupled, rng.permuted(coupled, axis=0)))
    kinds = tuple(zip(*pairs, strict=True))  # all coupled series, all shuffled ones
    scores = {
        "documents' Φ": [
            [seed_formulas.compute_integrated_information(series.mean(axis=0), clip=False) for series in kind]
            for kind in kinds
        ],
        "minimum bipartition": [
            minimum_information_bipartition([np.cov(series.T) for series in kind]).value for kind in kinds
        ],
    }
    # The means are equal up to the order of summation, which must not decide.
    return {measure: auc(*np.round(both, 9), rng) for measure, both in scores.items()}


def table_areas() -> dict[str, float]:
    """The shares of the unit square, exact, that the source plans' phase table leaves out, and that it claims twice."""
    edges = [np.unique([0.0, 1.0, *(edge for box in PHASES.values() for edge in box[axis])]) for axis in (0, 1)]
    areas = {"without a phase": 0.0, "with two phases": 0.0}
    for t0, t1 in zip(edges[0], edges[0][1:], strict=False):
        for o0, o1 in zip(edges[1], edges[1][1:], strict=False):
            t, o = (t0 + t1) / 2, (o0 + o1) / 2
            claims = sum(low < t < high and bottom < o < top for (low, high), (bottom, top) in PHASES.values())
            areas["without a phase"] += (claims == 0) * float((t1 - t0) * (o1 - o0))
            areas["with two phases"] += (claims == 2) * float((t1 - t0) * (o1 - o0))
    return areas


def self_reference_sweep(diagonals=(0.0, 0.2, 0.5, 1.0, 1.5, 2.0)) -> dict[float, float]:
    """μ, the spectral radius of the source plans' operator, by its diagonal (theirs is 1.5).

    For a circulant without negative entries it is the sum of a row (Perron and Frobenius): at least the diagonal,
    whatever the rest.
    """
    return {d: float(seed_formulas.circulant_self_reference_operator(d)[0].sum()) for d in diagonals}


def basin_centers_that_differ(inputs: int = 20_000, seed: int = 12) -> int:
    """The number of random sets of answers whose basin centre, by the source plans' recipe, is not the median."""
    rng = np.random.default_rng(seed)
    drawn = (rng.lognormal(3, 2, int(rng.integers(1, 31))) for _ in range(inputs))
    return sum(seed_formulas.find_basin_center(values) != float(np.median(values)) for values in drawn)


class AnalogueTrial(NamedTuple):
    """How often two answers to one situation name the same event: drawn as the source plans do, and by the nearest
    neighbour (which always agrees with itself, so its second answer is to scores that are slightly off)."""

    drawn: Reading
    nearest: Reading


def analogue_trial(situations: int = 1000, listed: int = 3, noise: float = 0.05, seed: int = 13) -> AnalogueTrial:
    """Is a historical parallel a match? Ask twice about the same situation.

    The source plans draw at random from a list for the region (`listed` events, our assumption); the situation does not
    enter. The nearest neighbour's second answer is to scores that are off by N(0, noise²). Situations are uniform.
    """
    rng = np.random.default_rng(seed)
    features = rng.random((situations, len(analogues.FEATURES)))
    names = [analogues.nearest(row)[0].correlate.name for row in features]
    again = np.clip(features + rng.normal(0, noise, features.shape), 0, 1)
    same = sum(analogues.nearest(row)[0].correlate.name == name for row, name in zip(again, names, strict=True))
    drawn = int((rng.integers(listed, size=situations) == rng.integers(listed, size=situations)).sum())
    return AnalogueTrial(share(drawn, situations), share(same, situations))
