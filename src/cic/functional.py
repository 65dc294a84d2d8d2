"""The CIC functional, F = Φ − λ·H + γ·C."""

import numpy as np

from cic import _checks

#: The weights that the source plans give. Elsewhere the framework's author uses λ = 0.5, γ = 0.3.
LAMBDA, GAMMA = 0.3, 0.25


def cic_functional(phi, entropy, causality, lam: float = LAMBDA, gamma: float = GAMMA):
    """F = Φ − λ·H + γ·C, affine in each term.

    A definition: nothing says that larger is better until a task shows it. The units of the terms are the caller's
    choice (in this project Φ is in nats or bits, as stated; H and C are normalised to 0..1).

    Args:
        phi, entropy, causality: finite numbers, or arrays that broadcast.

    Returns:
        A float, or an array for arrays.

    Raises:
        ValueError: an input is empty, NaN or infinite.
    """
    phi, entropy, causality = (
        _checks.finite(value, name) for value, name in ((phi, "phi"), (entropy, "entropy"), (causality, "causality"))
    )
    lam, gamma = float(_checks.finite(lam, "lam", 0)), float(_checks.finite(gamma, "gamma", 0))
    value = phi - lam * entropy + gamma * causality
    return value if np.ndim(value) else float(value)
