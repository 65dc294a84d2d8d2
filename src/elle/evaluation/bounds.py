"""The epistemic bound: no stated confidence above 0.95, in whatever key and wording it is stated.

A stated confidence is a number
    behind a word of `_SURE` (confidence, confident, certain, certainty, sure, decayed), within 40 characters that hold
    no other digit, no end of a sentence and no metric name ("confidence of 0.97", "Confidence: 97%");
    or in front of one, at most two words between, unless a metric name stands right before it ("97% confident", "0.97
    with certainty");
    or with which a text begins whose key holds one of these words ('"confidence": 0.97').
A % divides by 100, and so does the lack of one above 2. A comma before digits is a decimal point. A number that counts
months, nations or the like is no confidence. Numbers in words ("ninety-seven") and "certain" alone are not seen.
"""

import re
from collections.abc import Iterable, Mapping
from decimal import Decimal

from cic.confidence import CAP
from elle.briefings.cic_figures import DERIVED
from elle.briefings.cic_figures import NAMES as CIC_NAMES
from elle.briefings.metrics import SIGNALS
from elle.briefings.schema import CATEGORIES
from elle.evaluation.words import Text

_CAP = Decimal(str(CAP))
_SURE = r"(?:confiden(?:ce|t)|certain(?:ty)?|sure|decayed)"
_NUMBER = (
    r"(?P<value>\d{1,30}(?:[.,]\d{1,30})?|[.,]\d{1,30})(?!\d)"
    r"(?P<percent>[ ]?(?:%|per[ ]?cent\b))?(?![ ]?(?:month|year|week|day|nation|source|forecast))"
)
_OTHERS = [
    *(*CATEGORIES, *SIGNALS, "mean", "index", "nation", "nations"),
    *(name for name in (*CIC_NAMES, *DERIVED) if name not in ("confidence", "decayed")),
]
# Symbols and codes as printed, words in either case.
_OTHER = "|".join(["[A-Z]{3}", *(re.escape(name) if len(name) < 3 else f"(?i:{re.escape(name)})" for name in _OTHERS)])
_OTHER_NAME = re.compile(rf"(?<![^\W\d_])(?:{_OTHER})(?![^\W\d_])")
_NAME_BEFORE = re.compile(rf"(?<![^\W\d_])(?:{_OTHER})[ ]\Z")
_BEHIND = re.compile(rf"\b{_SURE}\b(?P<gap>(?:[^\d.!?;]|[.](?![\s\d])){{0,40}}?)(?<![\d.,]){_NUMBER}", re.IGNORECASE)
_BEFORE = re.compile(rf"(?<![\w.,]){_NUMBER}(?:[ -][^\W\d_]+){{0,2}}[ -]{_SURE}\b", re.IGNORECASE)
_FIRST = re.compile(rf"\s*[\"'\[]*{_NUMBER}")
#: The words that `_SURE` finds.
_HINTS = frozenset(("confidence", "confident", "certain", "certainty", "sure", "decayed"))
_KEY_HINT = re.compile(_SURE, re.IGNORECASE)


def stated(texts: Mapping[str, Text]) -> list[tuple[str, str, Decimal]]:
    """(key, the number as written, its value as a share) of every stated confidence."""
    found = []
    for key, (text, _, words) in texts.items():
        if _HINTS.isdisjoint(words) and not _KEY_HINT.search(key):
            continue
        for match in _matches(key, text):
            value = Decimal(match["value"].replace(",", "."))
            share = value / 100 if match["percent"] or value > 2 else value
            found.append((key, match["value"] + (match["percent"] or ""), share))
    return found


def above(statements: Iterable[tuple[str, str, Decimal]]) -> list[str]:
    """What is wrong with stated confidences."""
    return [f"{key[:40]}: confidence {text[:40]} is above {CAP}" for key, text, share in statements if share > _CAP]


def _matches(key: str, text: str) -> Iterable[re.Match[str]]:
    if _KEY_HINT.search(key) and (match := _FIRST.match(text)):
        yield match
    for match in _BEHIND.finditer(text):
        if not _OTHER_NAME.search(match["gap"]):
            yield match
    for match in _BEFORE.finditer(text):
        if not _NAME_BEFORE.search(text, max(0, match.start() - 24), match.start()):
            yield match
