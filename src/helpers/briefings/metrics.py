"""Pipeline metrics: the figures behind one briefing, how a prompt prints them, and how they are read back.

What a prompt prints is all there is: figures are rounded before they are printed, answers are computed from the
printed figures, and the evaluator reads the prompt with `parse`, the exact inverse of `render`.
"""

import re
from dataclasses import dataclass
from decimal import Decimal

from helpers.briefings.schema import CATEGORIES
from helpers.errors import ElleError

#: A trend arrow and the word that an answer uses for it.
TRENDS = {"↑": "rising", "↓": "falling", "→": "steady"}

#: Risk words by band; a band holds its lower bound (a risk of 30 % is in the second).
RISK_WORDS = (
    (30, ("stable", "low", "minimal", "contained")),
    (50, ("moderate", "elevated", "notable", "increasing")),
    (70, ("high", "significant", "concerning", "escalating")),
    (101, ("critical", "severe", "extreme", "crisis-level")),
)

SIGNALS = ("articles", "tone", "alerts")


#: Words that say how a risk moves: an answer uses them only beside the trend they agree with.
_MOVING = {"stable": "steady", "increasing": "rising", "escalating": "rising"}


def risk_words(value: int, trend: str | None = None) -> tuple[str, ...]:
    """The words for a risk of `value` percent (0..100) that do not contradict its trend (None: no trend known)."""
    words = next(words for bound, words in RISK_WORDS if value < bound)
    return tuple(word for word in words if _MOVING.get(word, trend) == trend)


def signal_density(articles: int) -> str:
    """HIGH above 150 articles, MODERATE above 75, else LOW."""
    return "HIGH" if articles > 150 else "MODERATE" if articles > 75 else "LOW"


@dataclass(frozen=True)
class Metrics:
    """The figures of one moment, as printed.

    nations: (code, risk in percent 0..100), highest first; codes are three capitals, each once. May be empty.
    mean: the mean of the nations' printed risks, rounded to a whole percent; None without nations.
    articles, alerts: counts from the GDELT feed; tone: its average tone, -10.0..10.0 to one decimal. None: missing.
    categories: for each of the six categories its risk 0..100 and its trend arrow.
    """

    nations: tuple[tuple[str, int], ...]
    articles: int | None
    tone: Decimal | None
    alerts: int | None
    categories: dict[str, tuple[int, str]]

    @property
    def mean(self) -> int | None:
        if not self.nations:
            return None
        total, count = sum(risk for _, risk in self.nations), len(self.nations)
        return (2 * total + count) // (2 * count)  # halves round up: no surprise for a reader who checks by hand

    @property
    def above_half(self) -> tuple[tuple[str, int], ...]:
        return tuple((code, risk) for code, risk in self.nations if risk > 50)


def render(metrics: Metrics) -> str:
    """The prompt: one figure a line, under three headings. A missing signal has no line."""
    lines = ["NATIONS", *(f"{code} {risk}%" for code, risk in metrics.nations)]
    if metrics.mean is not None:
        lines.append(f"mean {metrics.mean}%")
    lines.append("SIGNALS")
    lines += [f"{name} {value}" for name in SIGNALS if (value := getattr(metrics, name)) is not None]
    lines.append("CATEGORIES")
    lines += [f"{name} {value} {arrow}" for name, (value, arrow) in metrics.categories.items()]
    return "\n".join(lines)


_NATION = re.compile(r"([A-Z]{3}) (\d{1,3})%")
_CATEGORY = re.compile(rf"({'|'.join(CATEGORIES)}) (\d{{1,3}}) ([{''.join(TRENDS)}])")
_SIGNAL = re.compile(r"(articles|tone|alerts) (-?\d+(?:\.\d)?)")


def parse(prompt: str) -> Metrics:
    """Read a prompt back: `parse(render(m)) == m`.

    Raises:
        ElleError: naming the line that is no figure of this format, or the figure that is missing or out of range.
    """

    def bad(number: int, line: str, why: str) -> ElleError:
        return ElleError(
            f"this prompt is not in the project's format: {why}",
            where=f"prompt line {number}: {line[:80]!r}",
            fix="compare with a row of data/, or convert your records first",
        )

    nations: list[tuple[str, int]] = []
    signals: dict[str, str] = {}
    categories: dict[str, tuple[int, str]] = {}
    mean, section, seen = None, "", set()
    for number, line in enumerate(prompt.strip().splitlines(), 1):
        if line in ("NATIONS", "SIGNALS", "CATEGORIES"):
            section = line
            continue
        name = line.split(" ", 1)[0]
        if name in seen:
            raise bad(number, line, f"{name!r} appears twice")
        seen.add(name)
        if section == "NATIONS" and (found := _NATION.fullmatch(line)):
            nations.append((found[1], int(found[2])))
            value = nations[-1][1]
        elif section == "NATIONS" and (found := re.fullmatch(r"mean (\d{1,3})%", line)):
            mean = value = int(found[1])
        elif section == "SIGNALS" and (found := _SIGNAL.fullmatch(line)):
            signals[found[1]] = found[2]
            value = 0
        elif section == "CATEGORIES" and (found := _CATEGORY.fullmatch(line)):
            categories[found[1]] = (int(found[2]), found[3])
            value = int(found[2])
        else:
            raise bad(number, line, f"not a figure of the section {section or '(none yet)'}")
        if value > 100:
            raise bad(number, line, "a risk is at most 100")
    if missing := [name for name in CATEGORIES if name not in categories]:
        raise bad(0, prompt, f"missing {', '.join(missing)}")
    try:
        metrics = Metrics(
            tuple(nations),
            int(signals["articles"]) if "articles" in signals else None,
            Decimal(signals["tone"]) if "tone" in signals else None,
            int(signals["alerts"]) if "alerts" in signals else None,
            categories,
        )
    except ValueError as error:
        raise bad(0, prompt, "articles and alerts are whole numbers") from error
    if mean != metrics.mean:
        raise bad(0, prompt, f"the mean of the nations is {metrics.mean}, not {mean}")
    return metrics


def printed_figures(metrics: Metrics) -> dict[str, Decimal]:
    """Metric name → value, for every figure that the prompt prints."""
    figures = {code: Decimal(risk) for code, risk in metrics.nations}
    if metrics.mean is not None:
        figures["mean"] = Decimal(metrics.mean)
    figures |= {name: Decimal(value) for name in SIGNALS if (value := getattr(metrics, name)) is not None}
    figures |= {name: Decimal(value) for name, (value, _) in metrics.categories.items()}
    return figures


def derived_figures(metrics: Metrics) -> dict[str, Decimal]:
    """Metric name → value, for the figures that an answer may compute from printed ones, by these rules:

    stability index = 100 - financial; nations listed = their number; exceed 50% = how many are above 50 %.
    """
    return {
        "stability index": Decimal(100 - metrics.categories["financial"][0]),
        "nations listed": Decimal(len(metrics.nations)),
        "exceed 50%": Decimal(len(metrics.above_half)),
    }
