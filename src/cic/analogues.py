"""Historical analogues: twelve events as feature vectors, and the one nearest to a given situation.

Features stand for the six categories of a briefing, each 0..1: `political` (rule contested or lost), `economic` (loss
of output, trade, labour or harvests), `security` (violence and disorder inside), `military` (war or mobilisation
between powers), `financial` (credit, money, prices of assets, public debt), `networks` (how much the shock travelled by
trade routes, print or media; a briefing's `cyber`). The scores are this project's judgement, in tenths, on reading the
works named as sources. Another reader would differ by a tenth or two, which is why `stability` exists.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from cic import _checks

FEATURES = ("political", "economic", "security", "military", "financial", "networks")


@dataclass(frozen=True)
class Correlate:
    """An event of the past. pattern: in the framework's words, or like them; features: 0..1 in FEATURES' order."""

    name: str
    period: str
    pattern: str
    features: tuple[float, ...]
    source: str

    @property
    def dated(self) -> str:
        """Name and period, as prompts and answers print them."""
        return f"{self.name} {self.period}"


#: In order of time. The source plans name five of these events, and their patterns are from there.
CORRELATES = (
    Correlate("Peloponnesian War", "431–404 BC", "hegemonic rivalry → preventive war",
              (0.5, 0.4, 0.4, 1.0, 0.3, 0.2), "Thucydides; Kagan, The Peloponnesian War (2003)"),
    Correlate("Fall of Rome", "376–476", "overextension, migration, fiscal crisis",
              (0.9, 0.8, 0.7, 0.8, 0.8, 0.2), "Heather, The Fall of the Roman Empire (2005); Ward-Perkins (2005)"),
    Correlate("Black Death", "1346–1353", "disease along trade networks → restructuring",
              (0.3, 0.9, 0.4, 0.2, 0.3, 0.9), "Benedictow, The Black Death (2004)"),
    Correlate("Protestant Reformation", "1517–1555", "new medium, contested authority → schism",
              (0.8, 0.2, 0.6, 0.5, 0.2, 0.9), "MacCulloch, Reformation (2003); Pettegree, Brand Luther (2015)"),
    Correlate("Tulip Mania", "1634–1637", "easy credit, novel asset → bubble collapse",
              (0.1, 0.2, 0.1, 0.2, 0.8, 0.4), "Goldgar, Tulipmania (2007)"),
    Correlate("French Revolution", "1789–1799", "fiscal crisis, hunger, contested rule → revolution",
              (1.0, 0.7, 0.9, 0.6, 0.9, 0.5), "Doyle, The Oxford History of the French Revolution (2002)"),
    Correlate("Taiping Rebellion", "1850–1864", "millenarian movement, weak state → civil war",
              (0.9, 0.7, 1.0, 0.6, 0.4, 0.1), "Platt, Autumn in the Heavenly Kingdom (2012)"),
    Correlate("World War I", "1914–1918", "alliances, mobilisation timetables → general war",
              (0.6, 0.6, 0.3, 1.0, 0.5, 0.6), "Clark, The Sleepwalkers (2012)"),
    Correlate("Great Depression", "1929–1939", "crash, bank failures, gold standard → contagion",
              (0.6, 1.0, 0.3, 0.2, 1.0, 0.6), "Eichengreen, Golden Fetters (1992)"),
    Correlate("Cuban Missile Crisis", "1962", "nuclear confrontation → negotiated withdrawal",
              (0.2, 0.1, 0.1, 0.9, 0.1, 0.4), "Allison and Zelikow, Essence of Decision (1999)"),
    Correlate("Arab Spring", "2010–2012", "social media, youth bulge, autocracy → uprisings",
              (0.9, 0.5, 0.8, 0.3, 0.3, 1.0), "Lynch, The Arab Uprising (2012)"),
    Correlate("COVID-19", "2020–2023", "disease along travel networks → lockdown, support, inflation",
              (0.4, 0.8, 0.2, 0.1, 0.5, 1.0), "Tooze, Shutdown (2021)"),
)  # fmt: skip

_MATRIX = np.array([correlate.features for correlate in CORRELATES])


class Match(NamedTuple):
    """A correlate, and its distance from a situation: root mean square over the features, 0..1."""

    correlate: Correlate
    distance: float


def nearest(features, count: int = 1) -> list[Match]:
    """The `count` correlates nearest to a situation, nearest first; among equals the earlier in time.

    A small distance says that the scores are alike, and nothing about what comes next.

    Args:
        features: 0..1, in FEATURES' order.

    Raises:
        ValueError: not six numbers in 0..1, or count outside 1..12.
    """
    features = _situation(features)
    if not 1 <= count <= len(CORRELATES):
        raise ValueError(f"count must be 1..{len(CORRELATES)}, not {count}")
    distances = np.sqrt(((_MATRIX - features) ** 2).mean(axis=1))
    order = np.argsort(np.round(distances, 12), kind="stable")[:count]
    return [Match(CORRELATES[i], float(distances[i])) for i in order]


def stability(features, noise: float = 0.05, draws: int = 1000, seed: int = 0) -> float:
    """The share of draws in which the nearest correlate stays the same when every feature is off by N(0, noise²).

    Raises:
        ValueError: as `nearest`, noise not above 0, or draws < 1.
    """
    features = _situation(features)
    if not noise > 0 or draws < 1:
        raise ValueError(f"need noise > 0 and draws ≥ 1, not {noise} and {draws}")
    shaken = np.clip(features + np.random.default_rng(seed).normal(0, noise, (draws, len(FEATURES))), 0, 1)
    distances = ((shaken[:, None] - _MATRIX) ** 2).sum(axis=2)
    return float((distances.argmin(axis=1) == CORRELATES.index(nearest(features)[0].correlate)).mean())


def _situation(features) -> np.ndarray:
    features = _checks.unit_interval(features, "the features")
    if features.shape != (len(FEATURES),):
        raise ValueError(f"need {len(FEATURES)} features ({', '.join(FEATURES)}), not shape {features.shape}")
    return features
