"""Whether confidence is earned: Brier score and expected calibration error of (confidence, truth) pairs.

The confidence that a CIC briefing states is the agreement of its sources, and what they forecast is not in a data set:
there the truth is not known, and calibration is NOT RUN. It is known of a model's own confidence that its briefing is
right: `confidence` (0..1) beside an output in its file, the truth being that the briefing is `all_right`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cic.confidence import brier_score
from elle.evaluation.statistics import Interval, bootstrap

DEFINITIONS = {
    "brier": "mean squared distance of the confidence from the truth (0 or 1): 0 is perfect, 0.25 is always saying ½",
    "ece": "expected calibration error: mean distance of the mean confidence from the share that is true, over bins of "
    "equally many briefings; 0 is perfect; biased upwards for few briefings",
}
#: Bins of the calibration error.
BINS = 10


@dataclass(frozen=True)
class Calibration:
    """n: pairs; brier and ece: None where there is none; mean: (of the confidence, of the truth)."""

    n: int
    brier: Interval | None
    ece: Interval | None
    mean: tuple[float, float] | None


def calibration(pairs: Sequence[tuple[float, bool]], *, seed: int = 0) -> Calibration:
    """Brier score and calibration error, each with a 95 % bootstrap interval over pairs.

    Raises:
        ValueError: a confidence outside 0..1.
    """
    if not pairs:
        return Calibration(0, None, None, None)
    confidence, truth = np.array(pairs, float).T
    found = {
        name: bootstrap(len(pairs), lambda rows, f=f: f(confidence[rows], truth[rows]), np.random.default_rng(seed))
        for name, f in (("brier", brier), ("ece", ece))
    }
    return Calibration(len(pairs), found["brier"], found["ece"], (float(confidence.mean()), float(truth.mean())))


def brier(confidence, truth) -> float:
    """Mean squared distance (Brier 1950, halved as is usual for events that happen or do not)."""
    return brier_score(confidence, truth)


def ece(confidence, truth, bins: int = BINS) -> float:
    """Σ_b (n_b/n)·|mean confidence − share true| over `bins` bins of equal mass, by rank of confidence.

    Pairs of one confidence stay together, in the bin where the first of them falls: how ties are ordered must not
    matter. Source: Naeini et al., AAAI (2015); of equal mass, less biased than of equal width: Roelofs et al., AISTATS
    (2022).

    Raises:
        ValueError: of different lengths, a confidence outside 0..1, a truth other than 0 and 1, empty, or bins < 1.
    """
    brier_score(confidence, truth)  # checks both
    if bins < 1:
        raise ValueError(f"need at least one bin, not {bins}")
    confidence, truth = np.asarray(confidence, float), np.asarray(truth, float)
    ordered = np.sort(confidence)
    place = np.searchsorted(ordered, confidence, "left") * bins // len(confidence)
    gaps = np.bincount(place, confidence - truth, bins)
    return float(np.abs(gaps).sum() / len(confidence))


def pairs_of(facts: Mapping[str, Mapping[str, Any]], right: Mapping[str, bool]) -> list[tuple[float, bool]]:
    """(confidence, truth) of the outputs whose line in the outputs' file has a `confidence` in 0..1.

    facts: row id → the line; right: row id → whether the briefing is all right.
    """
    found = []
    for name, truth in right.items():
        value = facts.get(name, {}).get("confidence")
        if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1:
            found.append((float(value), truth))
    return found
