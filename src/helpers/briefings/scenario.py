"""The simulated world: (seed, index) → metrics.

Example `index` of a seed is the same whether it is made alone, in order or in parallel: each has a counter-based
generator of its own (Philox, Salmon et al. 2011), keyed by seed and index.

Model: a world tension w ~ U(0, 1) is shared by all figures of a moment. A nation's risk is its base risk (the table
below) + U(-0.15, 0.15), clipped to 0..1. A category's risk is 1.3 (0.4 w + 0.6 U(0, 1)) - 0.15, clipped to 0..1: an
indicator saturates, so that 0 and 100 are rare but ordinary values (2.8 % each). Articles ~ U(0, 120 + 180 w), tone ~
N(2 - 7 w, 2) clipped to ±10, alerts ~ Poisson(12 w). One example in twelve is an edge case.
"""

from decimal import Decimal

import numpy as np

from helpers.briefings.metrics import TRENDS, Metrics
from helpers.briefings.schema import CATEGORIES

#: Base risk (0..1) of the twenty countries of the basic set.
COUNTRIES = {
    "UKR": 0.85, "SYR": 0.90, "YEM": 0.85, "PRK": 0.75,
    "RUS": 0.58, "IRN": 0.65, "ISR": 0.58, "VEN": 0.70, "TWN": 0.55,
    "USA": 0.17, "GBR": 0.20, "FRA": 0.25, "DEU": 0.20, "JPN": 0.15,
    "CHN": 0.33, "IND": 0.35, "BRA": 0.40, "SAU": 0.33, "TUR": 0.45, "KOR": 0.25,
}  # fmt: skip

MAX_NATIONS = 5  # tokens are the price of training and serving; a sixth nation costs ten of them
EDGE_CASES = ("no nations", "one nation", "all zero", "all 100", "missing signals")

_CODES = tuple(COUNTRIES)
_BASES = np.array(list(COUNTRIES.values()))
_ARROWS = tuple(TRENDS)


def generator(seed: int, index: int) -> np.random.Generator:
    """The generator of one example; independent of every other (seed, index)."""
    return np.random.Generator(np.random.Philox(key=np.array([seed, index], dtype=np.uint64)))


def draw(rng: np.random.Generator) -> Metrics:
    """Draw the metrics of one moment."""
    tension = rng.random()
    edge = EDGE_CASES[int(rng.integers(len(EDGE_CASES)))] if rng.random() < 1 / 12 else None
    count = {"no nations": 0, "one nation": 1}.get(edge, int(rng.integers(2, MAX_NATIONS + 1)))
    chosen = rng.permutation(len(_CODES))[:count]
    risks = np.clip(_BASES[chosen] + rng.uniform(-0.15, 0.15, count), 0, 1)
    categories = np.clip(1.3 * (0.4 * tension + 0.6 * rng.random(len(CATEGORIES))) - 0.15, 0, 1)
    if edge in ("all zero", "all 100"):
        risks[:] = categories[:] = edge == "all 100"
    nations = sorted(
        ((_CODES[i], round(100 * float(risk))) for i, risk in zip(chosen, risks, strict=True)),
        key=lambda nation: (-nation[1], nation[0]),
    )
    articles = int(rng.integers(0, int(120 + 180 * tension) + 1))
    tone = round(Decimal(float(np.clip(rng.normal(2 - 7 * tension, 2), -10, 10))), 1) + 0  # no -0.0
    alerts = int(rng.poisson(12 * tension))
    present = rng.random(3) < 0.5 if edge == "missing signals" else np.ones(3, bool)
    arrows = rng.integers(len(_ARROWS), size=len(CATEGORIES))
    return Metrics(
        tuple(nations),
        articles if present[0] else None,
        tone if present[1] else None,
        alerts if present[2] else None,
        {
            name: (round(100 * float(value)), _ARROWS[arrow])
            for name, value, arrow in zip(CATEGORIES, categories, arrows, strict=True)
        },
    )
