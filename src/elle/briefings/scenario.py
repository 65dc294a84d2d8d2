"""The simulated world of the basic set: (seed, block) → the metrics of its moments.

Moments are drawn in blocks of 256, always whole, each with a counter-based generator (Philox, Salmon et al. 2011) keyed
by seed and block: an example is the same whether it is made alone, in order or in parallel.

Model: a world tension w ~ U(0, 1) is shared by all figures of a moment. A nation's risk is its base risk (the table
below) + U(-0.15, 0.15), clipped to 0..1. A category's risk is 1.3 (0.4 w + 0.6 U(0, 1)) - 0.15, clipped to 0..1: an
indicator saturates, so that 0 and 100 are rare but ordinary values (2.8 % each). Articles ~ U(0, 120 + 180 w), tone ~
N(2 - 7 w, 2) clipped to ±10, alerts ~ Poisson(12 w). One example in twelve is an edge case.
"""

from collections.abc import Iterable
from decimal import Decimal

import numpy as np

from elle.briefings.metrics import TRENDS, Metrics
from elle.briefings.schema import CATEGORIES

BLOCK = 256

#: Base risk (0..1) of the twenty countries of the basic set.
COUNTRIES = {
    "UKR": 0.85, "SYR": 0.90, "YEM": 0.85, "PRK": 0.75,
    "RUS": 0.58, "IRN": 0.65, "ISR": 0.58, "VEN": 0.70, "TWN": 0.55,
    "USA": 0.17, "GBR": 0.20, "FRA": 0.25, "DEU": 0.20, "JPN": 0.15,
    "CHN": 0.33, "IND": 0.35, "BRA": 0.40, "SAU": 0.33, "TUR": 0.45, "KOR": 0.25,
}  # fmt: skip

#: Those of the CIC set.
CIC_COUNTRIES = COUNTRIES | {"PAK": 0.50, "AUS": 0.15, "CAN": 0.12}

MAX_NATIONS = 5  # tokens are the price of training and serving; a sixth nation costs ten of them
EDGE_CASES = ("no nations", "one nation", "all zero", "all 100", "missing signals")

_CODES = tuple(COUNTRIES)
_BASES = np.array(list(COUNTRIES.values()))
_ARROWS = tuple(TRENDS)
_TENTHS = {tenths: Decimal(tenths).scaleb(-1) for tenths in range(-100, 101)}


def generator(seed: int, block: int) -> np.random.Generator:
    """The generator of one block; independent of every other (seed, block)."""
    return np.random.Generator(np.random.Philox(key=np.array([seed, block], np.uint64)))


def draw(rng: np.random.Generator, count: int = BLOCK) -> list[Metrics]:
    """Draw the metrics of `count` moments."""
    tension = rng.random(count)
    edge = rng.choice(("", *EDGE_CASES), count, p=[11 / 12] + [1 / (12 * len(EDGE_CASES))] * len(EDGE_CASES))
    nations = rng.integers(2, MAX_NATIONS + 1, count)
    nations[edge == "no nations"], nations[edge == "one nation"] = 0, 1
    codes = rng.permuted(np.tile(np.arange(len(_CODES)), (count, 1)), axis=1)[:, :MAX_NATIONS]
    risks = np.clip(_BASES[codes] + rng.uniform(-0.15, 0.15, codes.shape), 0, 1)
    spread = rng.random((count, len(CATEGORIES)))
    categories = np.clip(1.3 * (0.4 * tension[:, None] + 0.6 * spread) - 0.15, 0, 1)
    for name, value in (("all zero", 0), ("all 100", 1)):
        risks[edge == name] = categories[edge == name] = value
    trends = rng.integers(len(_ARROWS), size=categories.shape)
    drawn = zip(
        listed(np.array(_CODES)[codes], risks, nations),
        *signals(rng, tension, edge == "missing signals"),
        np.rint(100 * categories).astype(int).tolist(),
        np.array(_ARROWS)[trends].tolist(),
        strict=True,
    )
    return [Metrics(*figures, by_category(values, arrows)) for *figures, values, arrows in drawn]


def listed(codes: np.ndarray, risks: np.ndarray, counts: np.ndarray) -> list[tuple[tuple[str, int], ...]]:
    """The nations of each moment as `Metrics` lists them, highest risk first.

    Args:
        codes: country codes (moments, MAX_NATIONS). risks: theirs, 0..1. counts: how many of the first are listed.
    """
    # Stable sorts: by risk, and by code where risks are printed alike.
    percent = np.rint(100 * risks).astype(int)
    percent[np.arange(codes.shape[1]) >= counts[:, None]] = -1  # behind all others
    order = np.lexsort((codes, -percent))
    ordered = (np.take_along_axis(values, order, 1).tolist() for values in (codes, percent))
    return [tuple(zip(*pair, strict=True))[:count] for *pair, count in zip(*ordered, counts.tolist(), strict=True)]


def signals(rng: np.random.Generator, tension: np.ndarray, gaps: np.ndarray) -> tuple[list, list, list]:
    """Articles, tone and alerts of moments of this `tension` (moments,), 0..1; each missing half the time at `gaps`."""
    count = len(tension)
    articles = (rng.random(count) * (121 + 180 * tension)).astype(int)
    tone = np.rint(10 * np.clip(rng.normal(2 - 7 * tension, 2), -10, 10)).astype(int)
    alerts = rng.poisson(12 * tension)
    missing = ((rng.random((count, 3)) >= 0.5) & gaps[:, None]).T
    drawn = (articles.tolist(), [_TENTHS[value] for value in tone.tolist()], alerts.tolist())
    return tuple(
        [None if gone else value for value, gone in zip(values, gaps, strict=True)]
        for values, gaps in zip(drawn, missing.tolist(), strict=True)
    )


def by_category(values: Iterable[int], arrows: Iterable[str]) -> dict[str, tuple[int, str]]:
    """The categories of a moment as `Metrics` holds them."""
    return dict(zip(CATEGORIES, zip(values, arrows, strict=True), strict=True))
