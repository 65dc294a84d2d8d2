"""Metrics → answer: the prose of a briefing, every number of it printed in the prompt or derived from printed ones.

A metric is cited as the prompt prints it (`political 40`, `UKR 74%`), so that a checker, and a model, can tell which
number is which. Each sentence has several wordings, all of which cite the same figures.
"""

from collections.abc import Callable, Iterable, Sequence
from functools import cache
from typing import Any

from elle.base import storage
from elle.briefings.metrics import CONTINGENCY, STRESS, TRENDS, Metrics, risk_words, signal_density
from elle.briefings.schema import CATEGORIES

SYSTEM_PROMPT = (
    "Turn pipeline metrics into an analyst's briefing. Cite figures as printed; do not fabricate events. "
    "Answer with one JSON object: a text for each category, summary, nsm."
)

_OPENINGS = {
    "political": ("Political risk is {word}", "Political pressure is {word}"),
    "economic": ("Economic risk is {word}", "Economic strain is {word}"),
    "security": ("Security risk is {word}", "Security pressure is {word}"),
    "military": ("Military risk is {word}", "Military tension is {word}"),
    "financial": ("Financial risk is {word}", "Financial strain is {word}"),
    "cyber": ("Cyber risk is {word}", "Cyber exposure is {word}"),
}

_SENTENCES = ("{0}: {1} {2}, {3}.", "{0}, {3}: {1} {2}.")

#: Chooses one of several wordings.
Pick = Callable[[Sequence], Any]

#: No example chooses more often than this.
CHOICES = 40


def picker(choices: Iterable[float]) -> Pick:
    """Wordings by `choices`, each in 0..1 (1 excluded), one after the other."""
    left = iter(choices)
    return lambda options: options[int(next(left) * len(options))]


@cache
def _wordings(name: str, value: int, trend: str) -> tuple[tuple[tuple[str, ...], ...], ...]:
    """Every wording of a category's text: by opening, then by risk word, then by sentence."""
    ending = f" Stability index {100 - value}, {'under stress' if value > STRESS else 'no stress'}."
    return tuple(
        tuple(
            tuple(
                sentence.format(opening.format(word=word), name, value, trend) + ending * (name == "financial")
                for sentence in _SENTENCES
            )
            for word in risk_words(value, trend)
        )
        for opening in _OPENINGS[name]
    )


def basic_texts(metrics: Metrics, pick: Pick) -> dict[str, str]:
    """The texts of the eight basic keys."""
    texts = {}
    for name in CATEGORIES:
        value, arrow = metrics.categories[name]
        texts[name] = pick(pick(pick(_wordings(name, value, TRENDS[arrow]))))
    if metrics.alerts is not None:
        texts["security"] += f" Active alerts {metrics.alerts}."

    if metrics.nations:
        half, count = metrics.above_half, len(metrics.nations)
        concerns = ", ".join(f"{code} {risk}%" for code, risk in half)
        summary = pick(("Key concerns are ", "Led by ")) + concerns + "; of" if half else "Of"
        summary += f" {count} nation{'s' * (count > 1)} listed, {len(half)} exceed{'s' * (len(half) == 1)} 50%"
        summary += f". Overall risk is {pick(risk_words(metrics.mean))}: mean {metrics.mean}%."
    else:
        summary = "No nations are listed."
    if metrics.articles is not None:
        summary += f" Signal density is {signal_density(metrics.articles)}: articles {metrics.articles}."
    if metrics.tone is not None:
        summary += f" Average tone {metrics.tone}."

    focus = " and ".join(code for code, _ in metrics.nations[:2]) or "data collection"
    steps = pick((f"Focus on {focus}", f"Prioritise {focus}"))
    steps += "; review contingency plans." if (metrics.mean or 0) > CONTINGENCY else "; keep routine monitoring."
    return texts | {"summary": summary, "nsm": steps}


def answer(metrics: Metrics, pick: Pick) -> str:
    """The briefing of `metrics` as compact JSON; `pick` chooses the wording only, never a figure."""
    return storage.line(basic_texts(metrics, pick))
