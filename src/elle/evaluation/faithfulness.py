"""Whether the numbers of a briefing are its prompt's: which metric each number stands for, and if it is right.

The rule. A text is split into clauses at , ; : . ( ) and line ends, never inside a number. In a clause, a number binds
to the nearest metric name (characters between the two; at a tie, the name before the number, as prompts print them).
It is right where it equals that metric's value. A number that binds to nothing, or to a metric that the prompt does
not have, is wrong.

Numbers: runs of digits with sign, decimals, thousands commas and %. A % is not converted: 0.9 is not 90%. Not the
plain figure, hence wrong, is a number with letters after it (40k, 3rd), a magnitude word (40 million) or a unit of time
that its metric does not have (only horizon and transition have one, months); with a %, unless it stands for a nation,
a category, the mean or the stability index; in other digits than 0-9 (４０, ½); or in a text that holds invisible
characters (zero-width, direction marks), which shows other numbers than it holds. Numbers in words are not read: they
count for nothing in precision and are missing in recall. Nor is a negation ("not 40") or a comparison ("above 40").

Names: those of `metrics.printed_figures` and `derived_figures`, and the country codes of the worlds' tables; codes as
printed, the others in either case. Those of the CIC figures count only where the prompt prints such figures; its
symbols (Φ, H, C, F, λH, γC, net) as printed. A historical analogue with its whole period ("Tulip Mania 1634–1637") is
one figure, right where it is the prompt's; the digits of any other period are numbers like all others.
"""

import json
import re
from collections.abc import Iterable, Mapping
from decimal import Decimal
from functools import lru_cache
from typing import Any, NamedTuple

from elle.briefings.cic_figures import ANALOGUES, DERIVED
from elle.briefings.cic_figures import NAMES as CIC_NAMES
from elle.briefings.metrics import SIGNALS, Metrics, derived_figures, printed_figures
from elle.briefings.scenario import CIC_COUNTRIES
from elle.briefings.schema import CATEGORIES

#: Codes that name a nation in any text: those of the two simulated worlds.
_CODES = frozenset(CIC_COUNTRIES)

#: Spelling in a text → metric name. The "50%" of "exceed 50%" belongs to the name.
_SPELLINGS = {name: name for name in ("mean", *SIGNALS, *CATEGORIES)} | {
    "stability index": "stability index",
    "nations listed": "nations listed",
    "nation listed": "nations listed",
    "exceed 50%": "exceed 50%",
    "exceeds 50%": "exceed 50%",
}

#: Symbols and words of the CIC set. A symbol is read as printed: "a C" is one, "a c" is not.
_SYMBOLS = {name: name for name in (*CIC_NAMES, *DERIVED) if len(name) <= 2 or name == "net"}
_CIC_SPELLINGS = _SPELLINGS | {name: name for name in (*CIC_NAMES, *DERIVED) if name not in _SYMBOLS}


def _any_of(names: Iterable[str]) -> str:
    """Of two that begin alike, the longer one."""
    return "|".join(map(re.escape, sorted(names, key=len, reverse=True)))


def _standing_alone(names: str) -> re.Pattern[str]:
    return re.compile(rf"(?<![^\W\d_])(?:{names})(?![^\W\d_])")


_NAME = _standing_alone(rf"[A-Z]{{3}}|(?i:{_any_of(_SPELLINGS)})")
_CIC_NAME = _standing_alone(
    rf"(?:{_any_of(ANALOGUES)})(?![.,]?\d)|{_any_of(_SYMBOLS)}|[A-Z]{{3}}|(?i:{_any_of(_CIC_SPELLINGS)})"
)

#: Metrics that may carry a % (nations, the three capitals, besides), and those counted in months.
_PERCENT = frozenset({"mean", "stability index", *CATEGORIES})
_MONTHS = frozenset({"horizon", "transition"})

# Digits that are no decimal ones: ², ½, Ⅳ, ④, ❹.
_OTHER_DIGITS = "\u00b2\u00b3\u00b9\u00bc-\u00be\u2070-\u2089\u2150-\u218b\u2460-\u249b\u24ea-\u24ff\u2776-\u2793"
# A clause's end or a number. One set leads, which lets the scan skip all other characters at once; the sign, if any, is
# looked up behind the number. A full stop leads a number only where nothing but a sign can stand before it (" .5").
# Groups: 1 the cut or the digits, 2 a %, 3 what makes a number no plain figure, 4 months, which do so for most metrics.
_MARK = re.compile(
    rf"""
    ( [\d.,;:()\n\r{_OTHER_DIGITS}]
        (?: (?<=\d) (?: \d{{0,2}} (?:,\d{{3}})+ (?!\d) | \d* ) (?:\.\d+)? | (?<=\.) (?<! [^\s(+\-−–] \. ) \d+ )?
    )
    (?: (?<=\d) (?:
        ([ ]?%) | ( [^\W\d_]+ | [ ] (?i:hundred|thousand|million|billion|trillion|dozen|(?:hour|day|week|year)s?) \b )
        | ([ ] (?i:months?) \b)
    ) )?
    """,
    re.VERBOSE,
)
_CUTS = frozenset(".,;:()\n\r")
_SIGNS = frozenset("-−–+")
_INVISIBLE = re.compile("[\u00ad\u061c\u180e\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufeff]")
# Where every reading agrees that a clause ends: what lies between is read once, however many texts hold it.
_PIECE = re.compile(r"[.,;:]\s")
_LONGEST_KEPT, _MOST_KEPT = 100, 1 << 16  # characters of a piece, pieces


class Number(NamedTuple):
    """One number of one text: where it stands (characters start..end of the text under `key`), what it binds to."""

    key: str
    start: int
    end: int
    text: str
    value: Decimal | None  # None: not a plain figure
    metric: str | None  # None: unbound


class CheckedNumber(NamedTuple):
    """The verdict on one number. `expected` is the metric's true value, None where it has none; `derived`: the metric
    is computed, not printed; `why` says what is wrong, "" where `ok`."""

    number: Number
    expected: Decimal | None
    derived: bool
    ok: bool
    why: str


def texts_of(value: Mapping[str, Any]) -> dict[str, str]:
    """Key → text. What is no text (a fault of its own) is read as its JSON, so that no number escapes."""
    return {key: text if isinstance(text, str) else json.dumps(text, ensure_ascii=False) for key, text in value.items()}


def numbers(key: str, text: str, codes: frozenset[str] = frozenset(), cic: bool = False) -> list[Number]:
    """The numbers of one text, in order, each bound by the rule; `codes` holds the nation codes there are beside the
    table's, `cic` says whether the names of the CIC figures count."""
    result: list[Number] = []
    begin = 0
    reader = _reader(codes, cic)
    for piece in _PIECE.split(text):
        for start, end, digits, value, metric in reader[piece]:
            result.append(Number(key, begin + start, begin + end, digits, value, metric))
        begin += len(piece) + 2
    if result and not text.isascii() and _INVISIBLE.search(text):
        return [number._replace(value=None) for number in result]
    return result


#: What `Number` holds after its key; positions are those in the piece.
_Read = tuple[int, int, str, Decimal | None, str | None]


class _Reader(dict):
    """Piece of text → its numbers, in order. Those of short pieces are kept, for briefings share most of theirs."""

    def __init__(self, codes: frozenset[str], cic: bool):
        self._codes, self._cic = codes, cic

    def __missing__(self, piece: str) -> tuple[_Read, ...]:
        read = _bound(piece, self._codes, self._cic)
        if len(piece) <= _LONGEST_KEPT:
            if len(self) >= _MOST_KEPT:
                self.clear()
            self[piece] = read
        return read


_reader = lru_cache(4)(_Reader)


def _bound(piece: str, codes: frozenset[str], cic: bool) -> tuple[_Read, ...]:
    result: list[_Read] = []
    clause, found = 0, []
    for mark in _MARK.finditer(piece):
        if mark[1] not in _CUTS:
            found.append(mark)
            continue
        if found:
            result += _bind(piece, clause, mark.start(), found, codes, cic)
            found = []
        clause = mark.end()
    if found:
        result += _bind(piece, clause, len(piece), found, codes, cic)
    return tuple(result)


def _bind(text: str, begin: int, end: int, found: list[re.Match[str]], codes: frozenset[str], cic: bool) -> list[_Read]:
    """The numbers `found` in the clause begin..end, each with the nearest name; one pass over numbers and names."""
    names: list[tuple[int, int, str]] = []
    bound: list[_Read] = []
    periods: list[_Read] = []
    for name in (_CIC_NAME if cic else _NAME).finditer(text, begin, end):
        said = name[0]
        if cic and said in ANALOGUES:
            periods.append((*name.span(), said, Decimal(ANALOGUES[said]), "analogue"))
            continue
        metric = _SPELLINGS.get(said.lower()) or (said if said in _CODES or said in codes else None)
        if cic and not metric:
            metric = _SYMBOLS.get(said) or _CIC_SPELLINGS.get(said.lower())
        if metric:  # other capitals (LOW) are no name
            names.append((*name.span(), metric))
    after = 0  # the first name that begins behind the number
    behind = 0  # the first period that ends behind it
    for mark in found:
        start, value = _signed(text, mark)
        stop = mark.end()
        while behind < len(periods) and periods[behind][1] < stop:
            behind += 1
        if behind < len(periods) and periods[behind][0] < start:
            continue  # the years of a period
        while after < len(names) and names[after][0] < stop:
            after += 1
        if after and names[after - 1][0] < mark.start() < names[after - 1][1]:
            continue  # the 50% of a name
        metric = names[after - 1][2] if after else None
        if after < len(names) and (metric is None or names[after][0] - stop < start - names[after - 1][1]):
            metric = names[after][2]
        if mark[2] and metric not in _PERCENT and not (metric and metric.isupper() and len(metric) == 3):
            value = None
        if mark[4] and metric not in _MONTHS:
            value = None
        bound.append((start, stop, text[start:stop], value, metric))
    return sorted(bound + periods) if periods else bound


def _signed(text: str, mark: re.Match[str]) -> tuple[int, Decimal | None]:
    """Where the number begins, its sign included, and its value (None: no plain figure)."""
    start, digits = mark.start(), mark[1]
    value = Decimal(digits.replace(",", "")) if mark[3] is None and digits.isascii() else None
    before = text[max(0, start - 10) : start]
    if before[-1:] in _SIGNS:
        # In 40-50, 74%-81% and tone-3.1 it joins two words: no sign.
        if len(before) > 1 and (before[-2].isalnum() or before[-2] in "_%)"):
            return start, value
        width = 1
    elif before.lower().endswith(("minus ", "negative ")):
        width = 6 if before[-2] in "sS" else 9
    else:
        return start, value
    return start - width, value if value is None or before[-1] == "+" else value.copy_negate()  # exact, unlike -value


class Checker:
    """Checks texts against the metrics of one prompt."""

    def __init__(self, metrics: Metrics):
        self.printed = printed_figures(metrics)
        self.derived = derived_figures(metrics)
        # A user's own records may hold other nations.
        self._codes = frozenset(code for code, _ in metrics.nations if code not in _CODES)
        self._cic = metrics.cic is not None
        self._true = self.printed | self.derived

    def check(self, texts: Mapping[str, str]) -> list[CheckedNumber]:
        """The verdict on every number of `texts` (key → text), in order."""
        result = []
        for key, text in texts.items():
            for number in numbers(key, text, self._codes, self._cic):
                expected = self._true.get(number.metric)
                ok = expected is not None and number.value == expected
                why = "" if ok else self._why(number, expected)
                result.append(CheckedNumber(number, expected, number.metric in self.derived, ok, why))
        return result

    def triples(self, texts: Mapping[str, str]) -> set[tuple[str, str, Decimal]]:
        """(key, metric, value) of every right number of `texts`: what `triples` makes of their findings, sooner."""
        reader = _reader(self._codes, self._cic)
        return {
            (key, metric, value)
            for key, text in texts.items()
            if text.isascii() or not _INVISIBLE.search(text)
            for piece in _PIECE.split(text)
            for _, _, _, value, metric in reader[piece]
            if value is not None and self._true.get(metric) == value
        }

    @staticmethod
    def _why(number: Number, expected: Decimal | None) -> str:
        if number.metric is None:
            return "no metric is named in its clause"
        if expected is None:
            return f"the prompt has no {number.metric}"
        if number.metric == "analogue":
            return "not the analogue that the prompt names"
        if number.value is None:
            return f"not a plain figure; {number.metric} is {expected}"
        return f"{number.metric} is {expected}"


def triples(findings: list[CheckedNumber]) -> set[tuple[str, str, Decimal]]:
    """(key, metric, value) of every right number."""
    return {(found.number.key, found.number.metric, found.number.value) for found in findings if found.ok}
