"""Confidence: the bound and the decay that the framework sets, and the field's scores of whether it was right."""

import numpy as np

from cic import _checks

#: The source plans' epistemic humility: the cap, the decay per month, the factor per step of a cascade.
CAP, DECAY_PER_MONTH, CASCADE = 0.95, 0.1, 0.9


def epistemic_bound(confidence, months, steps=0, base_rate: float = 0.0):
    """Confidence after `months` and `steps` of a cascade: p₀ + (min(C₀, 0.95) − p₀)·e^(−0.1·t)·0.9^k.

    t counts from the moment of the assessment, and decays compose: t₁ then t₂ months are t₁ + t₂. The half-life is
    6.931 months. With base rate p₀ = 0 this is the source plans' formula; otherwise confidence decays to p₀, what one
    would say knowing nothing. A cap bounds the number; whether it is right, only outcomes tell (`brier_score`).

    Args:
        confidence: 0..1. months: ≥ 0. steps: ≥ 0. Numbers, or arrays that broadcast.
        base_rate: p₀, 0..0.95.

    Returns:
        0..0.95.

    Raises:
        ValueError: out of these ranges, NaN or empty.
    """
    confidence = _checks.unit_interval(confidence, "the confidence")
    months, steps = _checks.finite(months, "months"), _checks.finite(steps, "steps")
    if months.min() < 0 or steps.min() < 0:
        raise ValueError("months and steps must not be negative")
    if not 0 <= base_rate <= CAP:
        raise ValueError(f"the base rate must lie in 0..{CAP}, not {base_rate}")
    left = np.exp(-DECAY_PER_MONTH * months) * CASCADE**steps
    value = base_rate + (np.minimum(confidence, CAP) - base_rate) * left
    return value if value.ndim else float(value)


def brier_score(confidence, outcome) -> float:
    """Mean squared distance of confidence from what happened: 0 is perfect, 0.25 is always saying ½.

    Half of Brier's (1950) sum over both outcomes, as is usual for events that happen or do not.

    Args:
        confidence: 0..1, one per event. outcome: 0 or 1, one per event.

    Raises:
        ValueError: of different lengths, out of range, NaN or empty.
    """
    confidence, outcome = _judged(confidence, outcome)
    return float(np.mean((confidence - outcome) ** 2))


def expected_calibration_error(confidence, outcome, bins: int = 10) -> float:
    """Mean distance, over equally wide bins of confidence, of the mean confidence from the share that came true.

    ECE = Σ_b (n_b/n)·|mean confidence − share| (Naeini 2015, Guo 2017), 0..1; it depends on the bins and is biased
    upwards for few events.

    Raises:
        ValueError: as `brier_score`, or bins < 1.
    """
    confidence, outcome = _judged(confidence, outcome)
    if not bins >= 1:
        raise ValueError(f"need at least one bin, not {bins}")
    place = np.minimum((confidence * bins).astype(int), bins - 1)
    gaps = np.bincount(place, confidence - outcome, bins)
    return float(np.abs(gaps).sum() / len(confidence))


def _judged(confidence, outcome) -> tuple[np.ndarray, np.ndarray]:
    """Confidences and outcomes, checked, as arrays of one length."""
    confidence = _checks.unit_interval(np.atleast_1d(confidence), "the confidence")
    outcome = _checks.finite(np.atleast_1d(outcome), "the outcome")
    if confidence.shape != outcome.shape or confidence.ndim != 1 or not np.isin(outcome, (0, 1)).all():
        raise ValueError(
            f"need one outcome, 0 or 1, for each confidence, not shapes {confidence.shape} and {outcome.shape}"
        )
    return confidence, outcome
