"""Names, dates and events that neither the prompt nor the table of historical correlates holds.

What counts, in the texts of the object extracted:
    a name: a word that is not written in lower case (a code such as FRA, an initial capital, or letters without case)
        and is none of the prompt's words, of `KNOWN`, or of a correlate's full name. The lenient reading forgives one
        that opens a sentence with its only capital, unless another such word follows it.
    a date: a month or a weekday as a name, or a year: a wrong number of four plain digits, 1000 to 2199, that does not
        stand right behind its metric's name. The years of a correlate count where they stand behind its name.
    an event: a word of `EVENTS`, in either case, outside a correlate's name.

What it cannot see: a name in lower case, a name made of known words, an event in other words, a day without its month,
and (leniently) a single name that opens a sentence. Nor can it tell a capitalised ordinary word from a name.
"""

import bisect
import re
from collections.abc import Iterable, Mapping, Set

from cic.analogues import CORRELATES
from cic.criticality import PHASES
from elle.base.yaml_files import config_table
from elle.briefings.cic_figures import ANALOGUES, DERIVED
from elle.briefings.cic_figures import NAMES as CIC_NAMES
from elle.briefings.metrics import RISK_WORDS, SIGNALS, TRENDS, Metrics
from elle.briefings.schema import CicBriefing
from elle.evaluation.numbers import CheckedNumber
from elle.evaluation.parsing import Text

_WORD = re.compile(r"[^\W\d_]+")

_TABLE = {kind: frozenset(words.split()) for kind, words in config_table("fabrication").items()}
EVENTS, _CALENDAR = _TABLE["events"], _TABLE["calendar"]
_NAMES = (*CicBriefing.model_fields, *CIC_NAMES, *DERIVED, *SIGNALS, *PHASES, *TRENDS.values())
#: Words that are not a name.
KNOWN = _TABLE["wording"].union(
    *(_WORD.findall(name.lower().replace("_", " ")) for name in _NAMES),
    *(_WORD.findall(word) for _, words in RISK_WORDS for word in words),
)
_CORRELATE = re.compile(
    "|".join(re.escape(name) for name in sorted((*ANALOGUES, *(event.name for event in CORRELATES)), key=len)[::-1])
)
_ANALOGUE_WORDS = {dated: frozenset(_WORD.findall(dated.lower())) for dated in ANALOGUES}
_YEAR = re.compile(r"1\d{3}|2[01]\d{2}", re.ASCII)
_OPENS = re.compile(r"(?:^|[.!?:;\n])[\s\"'(\[*•–-]*\Z")


def fabrications(
    texts: Mapping[str, Text], metrics: Metrics, findings: Iterable[CheckedNumber]
) -> tuple[list[str], list[str]]:
    """What is fabricated, (under the strict reading, under the lenient one), each "key: what"."""
    wrong: list[tuple[str, bool]] = []  # what, and whether under the lenient reading, too
    # The prompt's own words: the nations' codes and the analogue are all that `KNOWN` does not hold.
    prompts = {code.lower() for code, _ in metrics.nations}
    if metrics.cic:
        prompts |= _ANALOGUE_WORDS[metrics.cic.analogue]
    for key, (text, _, words) in texts.items():
        # Nearly always nothing is left here: the words of a text are looked at one by one only where one is unknown.
        if (unknown := words - KNOWN) and (unknown := unknown - prompts):
            wrong += [(f"{key[:40]}: {what}", sure) for what, sure in _words(text, prompts)]
    correlates: dict[str, list[tuple[int, int]]] = {}
    for number in findings:
        if not number.ok and (what := _year(texts[number.key].text, number, correlates)):
            wrong.append((f"{number.key[:40]}: {what}", True))
    return [what for what, _ in wrong], [what for what, sure in wrong if sure]


def _words(text: str, prompts: Set[str]) -> Iterable[tuple[str, bool]]:
    """Names, dates and events of a text beyond the prompt's words; whether the lenient reading counts it, too."""
    body = _CORRELATE.sub(lambda match: " " * len(match[0]), text)
    words = [
        (match, word, lower)
        for match in _WORD.finditer(body)
        if (lower := (word := match[0]).lower()) not in KNOWN and lower not in prompts
    ]
    for place, (match, word, lower) in enumerate(words):
        if lower in EVENTS:
            yield f"{word!r} is no event of the prompt's", True
        elif word.islower():
            continue
        elif lower in _CALENDAR:
            yield f"{word!r} is no date of the prompt's", True
        else:
            sure = not word.istitle() or not _OPENS.search(body, max(0, match.start() - 8), match.start())
            if not sure and place + 1 < len(words):
                follower, next_word, _ = words[place + 1]
                sure = not next_word.islower() and follower.start() <= match.end() + 1
            yield f"{word[:40]!r} is no name of the prompt's", sure


def _year(text: str, number: CheckedNumber, correlates: dict[str, list[tuple[int, int]]]) -> str:
    key, start, end, digits, _, metric = number[:6]
    if not _YEAR.fullmatch(digits) or metric == "analogue":
        return ""
    if metric and text[max(0, start - len(metric) - 1) : start].lower() == f"{metric} ".lower():
        return ""
    if key not in correlates:
        correlates[key] = [match.span() for match in _CORRELATE.finditer(text)]
    spans = correlates[key]
    place = bisect.bisect(spans, (start, end)) - 1
    return "" if place >= 0 and end <= spans[place][1] else f"{digits!r} is no year of the prompt's"
