"""What the parts of a briefing that are not read invent: names, dates, and confidences above the cap.

What no form of the grammar reads fails by that alone. These two look closer, so that a report can say how:
    a name: a word that is not written in lower case and is neither in the grammar nor in the prompt. One that opens a
        sentence with its only capital is forgiven, unless another such word follows it. Of what is read, a nation that
        the prompt does not list is one, too.
    a year: four plain digits, 1000 to 2199, of no correlate's period.
    a confidence: a number with at most three words between it and one of `_SURE`; a % divides by 100, and so does the
        lack of one above 2.
A name in lower case and an event in ordinary words are not seen here.
"""

import re
from collections.abc import Iterator, Set
from decimal import Decimal

from cic.analogues import CORRELATES
from cic.confidence import CAP
from elle.briefings.metrics import Metrics
from elle.evaluation.grammar import NATIONS, VOCABULARY
from elle.evaluation.statements import Checked

_WORD = re.compile(r"[^\W\d_]+")
_CORRELATE = re.compile("|".join(re.escape(event.name) for event in CORRELATES))
_YEAR = re.compile(r"(?<![\w.,])(?:1\d{3}|2[01]\d{2})(?![\w]|[.,]\d)", re.ASCII)
_PERIODS = frozenset(year for event in CORRELATES for year in re.findall(r"\d{4}", event.period))
_OPENS = re.compile(r"(?:\A|[.!?:;\n])[\s\"'(\[*•–-]*\Z")
_SURE = r"(?:confidence|confident|certain|certainty|sure|decayed)"
_NUMBER = r"(?P<value>\d{1,30}+(?:[.,]\d{1,30}+)?+|[.,]\d{1,30}+)(?P<percent> ?%| ?per ?cent\b)?(?! ?(?:month|nation))"
_STATED = [
    re.compile(rf"\b{_SURE}\b[\"']?\W{{1,5}}(?:[^\W\d]+\W{{1,5}}){{0,3}}?(?<![\d.,]){_NUMBER}", re.IGNORECASE),
    re.compile(rf"(?<![\w.,]){_NUMBER}(?:[ -][^\W\d]+){{0,2}}[ -]{_SURE}\b", re.IGNORECASE),
]
_CAP = Decimal(str(CAP))
_CONFIDENCES = frozenset(("confidence", "decayed"))


def fabrications(found: Checked, metrics: Metrics) -> list[str]:
    """What is fabricated, each "key: what"."""
    wrong = [f"{key[:40]}: the prompt does not list {code}" for key, code in sorted(found.strangers)]
    if not found.unread:
        return wrong
    listed = {code for code, _ in metrics.nations}
    prompts = {word.lower() for name, code in NATIONS.items() if code in listed for word in (code, *name.split())}
    for unread in found.unread:
        wrong += [f"{unread.key[:40]}: {what}" for what in _names(unread.text, prompts)]
        wrong += [f"{unread.key[:40]}: {year[0]!r} is no year of the prompt's" for year in _years(unread.text)]
    return wrong


def _years(text: str) -> list[re.Match[str]]:
    return [year for year in _YEAR.finditer(text) if year[0] not in _PERIODS]


def _names(text: str, prompts: Set[str]) -> Iterator[str]:
    body = _CORRELATE.sub(lambda match: " " * len(match[0]), text)
    words = [
        match
        for match in _WORD.finditer(body)
        if match[0].isalpha()
        and not match[0].islower()
        and match[0].lower() not in VOCABULARY
        and match[0].lower() not in prompts
    ]
    for place, match in enumerate(words):
        alone = place + 1 == len(words) or words[place + 1].start() > match.end() + 1
        opens = _OPENS.search(body, max(0, match.start() - 8), match.start())
        if not (match[0].istitle() and alone and opens):
            yield f"{match[0][:40]!r} is no name of the prompt's"


def above_cap(found: Checked) -> tuple[list[str], bool]:
    """What is wrong with stated confidences, and whether there are any: those read, and those of what is not."""
    stated = [(each.key, each.text, each.value) for each in found.wrong if each.metric in _CONFIDENCES]
    for unread in found.unread:
        text = f"{unread.key}: {unread.text}"  # a key may say it, too
        for match in (found for pattern in _STATED for found in pattern.finditer(text)):
            value = Decimal(match["value"].replace(",", "."))
            share = value / 100 if match["percent"] or value > 2 else value
            stated.append((unread.key, match["value"] + (match["percent"] or ""), share))
    bold = [f"{key[:40]}: confidence {text[:40]} is above {CAP}" for key, text, share in stated if share > _CAP]
    return bold, bool(stated) or any(_CONFIDENCES & metrics for metrics in found.cited.values())
