"""Simulated systems with a known answer, on which the framework's measures and claims are tried."""

from dataclasses import dataclass

import numpy as np
from scipy.integrate import quad
from scipy.special import ellipk

#: Onsager (1944): where the two-dimensional Ising model orders, in units of its coupling; 2.269185.
ISING_CRITICAL_TEMPERATURE = 2 / np.log(1 + np.sqrt(2))
#: Where the lower branch of x' = c + x − x³ ends: c = 2/(3√3).
FOLD = 2 / (3 * np.sqrt(3))


@dataclass(frozen=True)
class Ising:
    """Independent Ising lattices, one per temperature and replica.

    temperatures: (T,). magnetisation: (sweeps, T, R), per spin. plaquettes: (T, R, 2, 2, 2, 2), the distribution of the
    four spins of a square (down, up). snapshots: (T, L, L), the first replica at the end, ±1.
    """

    temperatures: np.ndarray
    magnetisation: np.ndarray
    plaquettes: np.ndarray
    snapshots: np.ndarray


def ising(
    temperatures, size: int, replicas: int, sweeps: int, rng: np.random.Generator, settle: int = 300, every: int = 5
) -> Ising:
    """Simulate the two-dimensional Ising model without a field, on periodic square lattices, by a heat bath.

    The lattice is held as the two colours of its checkerboard: spins of one colour depend only on the other's, so all
    of them are drawn at once. Chains start ordered, `settle` sweeps are thrown away, and plaquettes are counted every
    `every` sweeps. Near the critical temperature successive sweeps are far from independent (critical slowing down).

    Raises:
        ValueError: `size` is odd (the colours would meet at the border) or below 4, or sweeps < 1.
    """
    temperatures = np.asarray(temperatures, dtype=float)
    if size % 2 or size < 4 or sweeps < 1:
        raise ValueError(f"need an even size of at least 4 and sweeps ≥ 1, not {size} and {sweeps}")
    lattices = len(temperatures) * replicas
    # P(up) for a sum of neighbours −4, −2, 0, 2, 4, one row per temperature, laid out flat for one fast look-up.
    sums = np.array([-4, -2, 0, 2, 4])
    up = (1 / (1 + np.exp(-2 * sums / temperatures[:, None]))).astype(np.float32).ravel()
    row = np.repeat(np.arange(len(temperatures), dtype=np.int16) * 5 + 2, replicas)[:, None, None]
    black = np.ones((lattices, size, size // 2), np.int8)
    white = black.copy()
    odd = (np.arange(size) % 2 == 1)[:, None]

    def draw(other: np.ndarray, step: int) -> np.ndarray:
        """New spins of one colour: the other colour's neighbours lie above, below, here, and one `step` sideways."""
        sideways = np.where(odd, np.roll(other, -step, axis=2), np.roll(other, step, axis=2))
        total = other + sideways + np.roll(other, 1, axis=1) + np.roll(other, -1, axis=1)
        chance = up[row + total // 2]
        return np.where(rng.random(chance.shape, dtype=np.float32) < chance, np.int8(1), np.int8(-1))

    def whole() -> np.ndarray:
        spins = np.empty((lattices, size, size), np.int8)
        spins[:, ::2, ::2], spins[:, 1::2, 1::2] = black[:, ::2], black[:, 1::2]
        spins[:, ::2, 1::2], spins[:, 1::2, ::2] = white[:, ::2], white[:, 1::2]
        return spins

    magnetisation = np.empty((sweeps, lattices))
    counts = np.zeros(lattices * 16, np.int64)
    block = np.arange(lattices, dtype=np.int32)[:, None, None] * 16
    for sweep in range(-settle, sweeps):
        black = draw(white, 1)
        white = draw(black, -1)
        if sweep < 0:
            continue
        total = black.sum(axis=(1, 2), dtype=np.int32) + white.sum(axis=(1, 2), dtype=np.int32)
        magnetisation[sweep] = total / size**2
        if sweep % every == 0:
            counts += np.bincount((block + _squares(whole())).ravel(), minlength=counts.size)
    shape = (len(temperatures), replicas)
    plaquettes = counts.reshape(*shape, 2, 2, 2, 2)
    return Ising(
        temperatures,
        magnetisation.reshape(sweeps, *shape),
        plaquettes / plaquettes[0, 0].sum(),
        whole().reshape(*shape, size, size)[:, 0],
    )


def _squares(spins: np.ndarray) -> np.ndarray:
    """The state of the square that begins at each spin of lattices (b, L, L), 0..15: one bit per corner, 1 is up."""
    up = spins > 0
    below = np.roll(up, -1, axis=1)
    return 8 * up + 4 * np.roll(up, -1, axis=2) + 2 * below + np.roll(below, -1, axis=2)


def ising_entropy(temperature: float) -> float:
    """Entropy per spin of the infinite lattice, in nats (Onsager 1944): 0.306470 at the critical temperature.

    Raises:
        ValueError: the temperature is not above 0.
    """
    if not temperature > 0:
        raise ValueError(f"the temperature must be above 0, not {temperature}")
    beta = 1 / temperature
    modulus = 2 * np.sinh(2 * beta) / np.cosh(2 * beta) ** 2  # 1 at the critical temperature
    free = (
        np.log(2 * np.cosh(2 * beta))
        + quad(lambda angle: np.log(0.5 * (1 + np.sqrt(max(0.0, 1 - (modulus * np.sin(angle)) ** 2)))), 0, np.pi / 2)[0]
        / np.pi
    )  # −βf
    factor = 2 * np.tanh(2 * beta) ** 2 - 1  # 0 at the critical temperature, faster than the integral diverges
    elliptic = factor * ellipk(min(modulus**2, 1 - 1e-15))
    energy = -(1 + 2 / np.pi * elliptic) / np.tanh(2 * beta)
    return float(free + beta * energy)


def fold_series(
    count: int, length: int, approaching: bool, rng: np.random.Generator, units: int = 5, noise: float = 0.05
) -> np.ndarray:
    """Coupled units that drift towards a fold bifurcation, or only drift; shape (count, length, units).

    Approaching: dxᵢ = (c(t) + xᵢ − xᵢ³ + ½·(x̄ − xᵢ)) dt + noise·dW, with c rising from −0.4 to 0.36, short of FOLD.
    The others drift along the same path without losing stability: they fluctuate around the noise-free path of the
    first kind, with the restoring rate that it starts from. So a signal that sees only the drift tells nothing.

    Args:
        length: observations, a quarter of a unit of time apart (5 Euler steps).
    """
    steps, dt = 5, 0.05
    control = np.linspace(-0.4, 0.36, length * steps)
    path = -1.1597  # the stable branch at c = −0.4
    rate = 3 * path**2 - 1
    x = np.full((count, units), path)
    series = np.empty((count, length, units))
    for step, c in enumerate(control):
        velocity = c + path - path**3
        restoring = c + x - x**3 if approaching else velocity - rate * (x - path)
        drift = restoring + 0.5 * (x.mean(axis=1, keepdims=True) - x)
        x = x + drift * dt + noise * np.sqrt(dt) * rng.standard_normal(x.shape)
        path += velocity * dt
        series[:, step // steps] = x
    return series


def var1_series(A, Q, length: int, rng: np.random.Generator, settle: int = 200) -> np.ndarray:
    """A path of x(t) = A·x(t−1) + e, e ~ N(0, Q); shape (length, n), after `settle` steps from 0."""
    A = np.asarray(A, dtype=float)
    noise = rng.multivariate_normal(np.zeros(len(A)), Q, size=length + settle)
    path = np.zeros((length + settle, len(A)))
    for t in range(1, length + settle):
        path[t] = A @ path[t - 1] + noise[t]
    return path[settle:]
