"""The formulas of the source plans, under their own names and exactly as given, faults included.

Used to reproduce and criticise the plans' figures, and for nothing else: what this project computes with stands in the
other modules of `cic`. Names follow the plans' list of key functions; `compute_causality` and `temperature_and_order`
are what those need. r is a list of risks in 0..1; empty lists and NaN raise ValueError.
"""

import math
from collections.abc import Sequence

import numpy as np
from scipy.linalg import circulant

from cic import _checks


def _risks(r: Sequence[float]) -> np.ndarray:
    return _checks.finite(r, "the list of risks", 1)


def _clip(value: float) -> float:
    return min(1.0, max(0.0, float(value)))


def compute_cic_functional(
    phi: float, entropy: float, causality: float, lam: float = 0.3, gamma: float = 0.25
) -> float:
    """F = Φ − λ·H + γ·C."""
    return phi - lam * entropy + gamma * causality


def compute_integrated_information(r: Sequence[float], clip: bool = True) -> float:
    """Φ = clip((1 − var r)·Σ i·r₍ᵢ₎ / (n·max r + 0.001)), r₍ᵢ₎ ascending, i from 0.

    It looks at the marginal values only, and for a dozen ordinary risks it exceeds 1 before it is clipped: 1.000.
    """
    r = np.sort(_risks(r))
    value = (1 - r.var()) * (np.arange(len(r)) * r).sum() / (len(r) * r.max() + 0.001)
    return _clip(value) if clip else float(value)


def compute_entropy(r: Sequence[float]) -> float:
    """H = clip(−Σ pᵢ·ln(pᵢ + 0.001) / ln(n + 1)), pᵢ = rᵢ / (Σr + 0.001), over pᵢ > 0."""
    r = _risks(r)
    p = r / (r.sum() + 0.001)
    p = p[p > 0]
    return _clip(-(p * np.log(p + 0.001)).sum() / math.log(len(r) + 1))


def compute_causality(trends: Sequence[float], tone: float) -> float:
    """C = clip(0.6·(1 − Σ|trendᵢ| / (n + 0.001)) + 0.4·clip(tone/10 + 0.5)); 0.5 without trends."""
    if not len(trends):
        return 0.5
    steadiness = 1 - np.abs(_checks.finite(trends, "trends", 1)).sum() / (len(trends) + 0.001)
    return _clip(0.6 * steadiness + 0.4 * _clip(tone / 10 + 0.5))


def detect_uipt(
    phi: float, previous_phi: float, entropy: float, previous_entropy: float, lam: float = 0.3, tolerance: float = 0.1
) -> bool:
    """A transition where |ΔΦ − λ·ΔH| < 0.1: where hardly anything changes."""
    return abs((phi - previous_phi) - lam * (entropy - previous_entropy)) < tolerance


def find_basin_center(values: Sequence[float]) -> float:
    """The median, refined by a symmetrically trimmed mean; what is left after trimming is the median again."""
    values = np.sort(_checks.finite(values, "the values", 1))
    trimmed = (len(values) - 1) // 2
    return float(values[trimmed : len(values) - trimmed].mean())


def apply_epistemic_bounds(confidence: float, months: float, steps: int = 0) -> float:
    """min(C, 0.95)·e^(−0.1·months), times 0.9^k for a cascade of k > 1 steps only."""
    decayed = min(confidence, 0.95) * math.exp(-0.1 * months)
    return decayed * 0.9**steps if steps > 1 else decayed


def temperature_and_order(r: Sequence[float]) -> tuple[float, float]:
    """The generator's T = clip(2·var·(2 − mean)), which stays below 0.77 (PLASMA wants 0.8), and Ψ = 1 − mean."""
    r = _risks(r)
    return _clip(2 * r.var() * (2 - r.mean())), float(1 - r.mean())


def circulant_self_reference_operator(diagonal: float = 1.5) -> np.ndarray:
    """The operator behind μ, shape (8, 8): `diagonal`, and 0.3·exp(−d/2) at circular distance d from it."""
    distance = np.minimum(np.arange(8), 8 - np.arange(8))
    return circulant(np.where(distance == 0, diagonal, 0.3 * np.exp(-distance / 2)))


def calculate_phase(temperature: float, order: float, nuclei: int, critical_temperature: float = 0.7632) -> str:
    """The phase by the source plans' rule, which differs from that of their table."""
    distance = math.sqrt((temperature - critical_temperature) ** 2 + (order - 0.5) ** 2) / math.sqrt(2)
    if distance < 0.1 and nuclei > 2:
        return "NUCLEATING"
    if temperature > 0.8 and order < 0.3:
        return "PLASMA"
    if temperature < 0.3 and order > 0.7:
        return "CRYSTALLINE"
    if temperature < 0.5 and order > 0.5 and nuclei >= 1:
        return "SUPERCOOLED"
    return "ANNEALING"
