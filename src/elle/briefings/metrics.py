"""Pipeline metrics: the figures behind one briefing, how a prompt prints them, and how they are read back.

What a prompt prints is all there is: figures are rounded before they are printed, answers are computed from the
printed figures, and the evaluator reads the prompt with `parse`, the exact inverse of `render`.
"""

import re
from dataclasses import dataclass
from decimal import Decimal
from functools import cache, cached_property, lru_cache, partial
from typing import Any

from elle.briefings.cic_figures import CIC_SECTIONS, CicFigures, bad_line, figures_of, parse_lines
from elle.briefings.schema import CATEGORIES

#: A trend arrow and the word that an answer uses for it.
TRENDS = {"↑": "rising", "↓": "falling", "→": "steady"}

#: Risk words by band; a band holds its lower bound (a risk of 30 % is in the second).
RISK_WORDS = (
    (30, ("stable", "low", "minimal", "contained")),
    (50, ("moderate", "elevated", "notable", "increasing")),
    (70, ("high", "significant", "concerning", "escalating")),
    (101, ("critical", "severe", "extreme", "crisis-level")),
)

#: Above this financial risk, stress; above this mean, contingency plans.
STRESS, CONTINGENCY = 60, 50

SECTIONS = ("NATIONS", "SIGNALS", "CATEGORIES")
SIGNALS = ("articles", "tone", "alerts")
_ORDERS = ([*SECTIONS], [*SECTIONS, *CIC_SECTIONS])

#: Words that say how a risk moves: an answer uses them only beside the trend they agree with.
_MOVING = {"stable": "steady", "increasing": "rising", "escalating": "rising"}


@cache
def risk_band(value: int) -> tuple[str, ...]:
    """The words for a risk of `value` percent (0..100)."""
    return next(words for bound, words in RISK_WORDS if value < bound)


@cache
def risk_words(value: int, trend: str | None = None) -> tuple[str, ...]:
    """Those of its band's words that do not contradict its trend (None: no trend known)."""
    return tuple(word for word in risk_band(value) if _MOVING.get(word, trend) == trend)


def signal_density(articles: int) -> str:
    """HIGH above 150 articles, MODERATE above 75, else LOW."""
    return "HIGH" if articles > 150 else "MODERATE" if articles > 75 else "LOW"


_SCORE, _SHARE = frozenset(("", "%", "/100")), frozenset(("", "%"))
#: Metric → the units that its number may have in a briefing, those of nations as the mean's; of all others none. A %
#: of a share (0..1) divides by 100, elsewhere it is the unit.
UNITS = {
    **dict.fromkeys(("mean", "stability index", *CATEGORIES), _SCORE),
    **dict.fromkeys(("agreement", "confidence", "decayed"), _SHARE),
    "horizon": frozenset(("", "months")),
    "transition": frozenset(("months ago",)),
}


@dataclass(frozen=True)
class Metrics:
    """The figures of one moment, as printed.

    nations: (code, risk in percent 0..100), highest first; codes are three capitals, each once. May be empty.
    mean: the mean of the nations' printed risks, rounded to a whole percent; None without nations.
    articles, alerts: counts from the GDELT feed; tone: its average tone, -10.0..10.0 to one decimal. None: missing.
    categories: for each of the six categories its risk 0..100 and its trend arrow.
    cic: the figures of the CIC framework; None in the basic set.
    """

    nations: tuple[tuple[str, int], ...]
    articles: int | None
    tone: Decimal | None
    alerts: int | None
    categories: dict[str, tuple[int, str]]
    cic: CicFigures | None = None

    @cached_property
    def mean(self) -> int | None:
        if not self.nations:
            return None
        total, count = sum(risk for _, risk in self.nations), len(self.nations)
        return (2 * total + count) // (2 * count)  # halves round up: no surprise for a reader who checks by hand

    @cached_property
    def above_half(self) -> tuple[tuple[str, int], ...]:
        return tuple((code, risk) for code, risk in self.nations if risk > 50)


def render(metrics: Metrics) -> str:
    """The prompt: three lines, `NATIONS: UKR 74%, ..., mean 59%`, `SIGNALS: ...` and `CATEGORIES: political 40 ↑, ...`.

    A missing signal is left out; a line without figures says `none`. Each name stands behind a space, as it does in an
    answer: a tokenizer then has one token for both, and copying is a look-up. The CIC set has three lines more
    (`cic_figures`).
    """
    nations = [f"{code} {risk}%" for code, risk in metrics.nations]
    if metrics.mean is not None:
        nations.append(f"mean {metrics.mean}%")
    signals = [f"{name} {value}" for name in SIGNALS if (value := getattr(metrics, name)) is not None]
    categories = [f"{name} {value} {arrow}" for name, (value, arrow) in metrics.categories.items()]
    sections = zip(SECTIONS, (nations, signals, categories), strict=True)
    lines = [f"{section}: {', '.join(figures) or 'none'}" for section, figures in sections]
    return "\n".join(lines + metrics.cic.lines() if metrics.cic else lines)


_NATION = re.compile(r"([A-Z]{3}|mean) (\d{1,3})%")
_CATEGORY = re.compile(rf"({'|'.join(CATEGORIES)}) (\d{{1,3}}) ([{''.join(TRENDS)}])")
_SIGNAL = re.compile(r"(articles|alerts) (\d+)|(tone) (-?\d+(?:\.\d)?)")


@lru_cache(1 << 12)
def _figure(pattern: re.Pattern[str], text: str) -> tuple[str, Any]:
    """Name and value of a figure, of a category with its arrow; "" and what is wrong where there is none."""
    match = pattern.fullmatch(text)
    if not match:
        return "", f"{text[:40]!r} is no figure of this line"
    name, value, *arrow = (group for group in match.groups() if group is not None)
    if pattern is not _SIGNAL and int(value) > 100:
        return "", f"{text!r}: a risk is at most 100"
    number = Decimal(value) if name == "tone" else int(value)
    return name, (number, *arrow) if arrow else number


def parse(prompt: str) -> Metrics:
    """Read a prompt back: `parse(render(m)) == m`.

    Raises:
        ElleError: naming the line that is not of this format, or the figure that is missing or out of range.
    """
    lines = prompt.strip().split("\n")
    named = [line.partition(":")[0] for line in lines]
    if named not in _ORDERS:
        cic = ", ".join(CIC_SECTIONS)
        raise bad_line(f"it needs the lines {', '.join(SECTIONS)}, in this order, and all or none of {cic}", prompt)
    nations, signals, categories = (
        figures_of(line, partial(_figure, pattern))
        for line, pattern in zip(lines[:3], (_NATION, _SIGNAL, _CATEGORY), strict=True)
    )
    mean = nations.pop("mean", None)
    if tuple(categories) != CATEGORIES:
        raise bad_line(f"it needs {', '.join(CATEGORIES)}, in this order", lines[2])
    metrics = Metrics(
        tuple(nations.items()),
        *(signals.get(name) for name in SIGNALS),
        categories,
        parse_lines(lines[3:]) if lines[3:] else None,
    )
    if mean != metrics.mean:
        raise bad_line(f"the mean of these nations is {metrics.mean}", lines[0])
    return metrics


def printed_figures(metrics: Metrics) -> dict[str, Decimal | str]:
    """Metric name → value, for every figure that the prompt prints."""
    figures: dict[str, Decimal | str] = {code: Decimal(risk) for code, risk in metrics.nations}
    if metrics.mean is not None:
        figures["mean"] = Decimal(metrics.mean)
    figures |= {name: Decimal(value) for name in SIGNALS if (value := getattr(metrics, name)) is not None}
    figures |= {name: Decimal(value) for name, (value, _) in metrics.categories.items()}
    return figures | metrics.cic.printed if metrics.cic else figures


def derived_figures(metrics: Metrics) -> dict[str, Decimal]:
    """Metric name → value, for the figures that an answer may compute from printed ones, by these rules:

    stability index = 100 - financial; nations listed = their number; exceed 50% = how many are above 50 %. In the CIC
    set also those of `CicFigures.derived`.
    """
    figures = {
        "stability index": Decimal(100 - metrics.categories["financial"][0]),
        "nations listed": Decimal(len(metrics.nations)),
        "exceed 50%": Decimal(len(metrics.above_half)),
    }
    return figures | metrics.cic.derived if metrics.cic else figures


def words_of(metrics: Metrics) -> dict[tuple[str, str], str]:
    """(kind of word, category or "") → what a briefing should say of it, in the senses of `configs/grammar.yaml`."""
    senses = {}
    for name, (value, arrow) in metrics.categories.items():
        senses["band", name], senses["trend", name] = risk_band(value)[0], TRENDS[arrow]
    senses["stress", ""] = "under" if metrics.categories["financial"][0] > STRESS else "none"
    senses["plans", ""] = "contingency" if (metrics.mean or 0) > CONTINGENCY else "routine"
    if metrics.mean is not None:
        senses["overall", ""] = risk_band(metrics.mean)[0]
    if metrics.articles is not None:
        senses["density", ""] = signal_density(metrics.articles).lower()
    return senses | {(kind, ""): sense for kind, sense in metrics.cic.words.items()} if metrics.cic else senses
