"""Whether the numbers of a briefing are its prompt's: which metric each number stands for, and if it is right; whether
an answer's own arithmetic holds; and whether it states a confidence above the cap.

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

A stated confidence is a number
    behind a word of `_SURE`, within 40 characters that hold no other digit, no end of a sentence and no metric name
    ("confidence of 0.97", "Confidence: 97%");
    or in front of one, at most two words between, unless a metric name stands right before it ("97% confident", "0.97
    with certainty");
    or with which a text begins whose key holds one of these words ('"confidence": 0.97').
A % divides by 100, and so does the lack of one above 2. A comma before digits is a decimal point. A number that counts
months, nations or the like is not a confidence. Numbers in words ("ninety-seven") and "certain" alone are not seen.
"""

import re
from collections.abc import Iterable, Mapping
from decimal import Decimal
from functools import lru_cache
from typing import NamedTuple

from cic.confidence import CAP
from cic.functional import GAMMA, LAMBDA
from elle.briefings.cic_figures import ANALOGUES, DERIVED, decayed
from elle.briefings.cic_figures import NAMES as CIC_NAMES
from elle.briefings.metrics import SIGNALS, Metrics, derived_figures, printed_figures
from elle.briefings.scenario import CIC_COUNTRIES
from elle.briefings.schema import CATEGORIES
from elle.evaluation.parsing import Text

#: Codes that name a nation in any text: those of the two simulated worlds.
_CODES = frozenset(CIC_COUNTRIES)
#: Spelling in a text → metric name. The "50%" of "exceed 50%" belongs to the name.
_SPELLINGS = {name: name for name in ("mean", *SIGNALS, *CATEGORIES, "stability index", "nations listed", "exceed 50%")}
_SPELLINGS |= {"nation listed": "nations listed", "exceeds 50%": "exceed 50%"}
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

# Digits that are not decimal ones: ², ½, Ⅳ, ④, ❹.
_OTHER_DIGITS = "\u00b2\u00b3\u00b9\u00bc-\u00be\u2070-\u2089\u2150-\u218b\u2460-\u249b\u24ea-\u24ff\u2776-\u2793"
# A clause's end or a number. One set leads, which lets the scan skip all other characters at once; the sign, if any, is
# looked up behind the number. A full stop leads a number only where nothing but a sign can stand before it (" .5").
# Groups: 1 the cut or the digits, 2 a %, 3 what makes a number not a plain figure, 4 months, which do so for most.
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


class CheckedNumber(NamedTuple):
    """One number of one text, and the verdict on it: where it stands (characters start..end of the text under `key`),
    what it binds to, and why it is wrong."""

    key: str
    start: int
    end: int
    text: str
    value: Decimal | None  # None: not a plain figure
    metric: str | None  # None: unbound
    expected: Decimal | None  # the metric's true value; None: it has none
    derived: bool  # the metric is computed, not printed
    ok: bool
    why: str  # "" where `ok`


#: A number before the verdict: start and end in its piece, text, value, metric.
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
    clause, marks = 0, []
    for mark in _MARK.finditer(piece):
        if mark[1] not in _CUTS:
            marks.append(mark)
            continue
        if marks:
            result += _bind(piece, clause, mark.start(), marks, codes, cic)
            marks = []
        clause = mark.end()
    if marks:
        result += _bind(piece, clause, len(piece), marks, codes, cic)
    return tuple(result)


def _bind(text: str, begin: int, end: int, marks: list[re.Match[str]], codes: frozenset[str], cic: bool) -> list[_Read]:
    """The numbers at `marks` in the clause begin..end, each with the nearest name; one pass over numbers and names."""
    names: list[tuple[int, int, str]] = []
    bound: list[_Read] = []
    periods: list[_Read] = []
    for name in (_CIC_NAME if cic else _NAME).finditer(text, begin, end):
        written = name[0]
        if cic and written in ANALOGUES:
            periods.append((*name.span(), written, Decimal(ANALOGUES[written]), "analogue"))
            continue
        metric = _SPELLINGS.get(written.lower()) or (written if written in _CODES or written in codes else None)
        if cic and not metric:
            metric = _SYMBOLS.get(written) or _CIC_SPELLINGS.get(written.lower())
        if metric:  # other capitals (LOW) are not a name
            names.append((*name.span(), metric))
    after = 0  # the first name that begins behind the number
    behind = 0  # the first period that ends behind it
    for mark in marks:
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
    """Where the number begins, its sign included, and its value (None: not a plain figure)."""
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
        self.derived = derived_figures(metrics)
        # A user's own records may hold other nations.
        self._codes = frozenset(code for code, _ in metrics.nations if code not in _CODES)
        self._cic = metrics.cic is not None
        self._true = printed_figures(metrics) | self.derived

    def check(self, texts: Mapping[str, str]) -> list[CheckedNumber]:
        """The verdict on every number of `texts` (key → text), in order."""
        findings = []
        reader = _reader(self._codes, self._cic)
        for key, text in texts.items():
            begin, hidden = 0, not text.isascii() and bool(_INVISIBLE.search(text))
            for piece in _PIECE.split(text):
                for start, end, written, read, metric in reader[piece]:
                    value, expected = None if hidden else read, self._true.get(metric)
                    ok = expected is not None and value == expected
                    why = "" if ok else _why(value, metric, expected)
                    place = key, begin + start, begin + end, written
                    findings.append(CheckedNumber(*place, value, metric, expected, metric in self.derived, ok, why))
                begin += len(piece) + 2
        return findings


def _why(value: Decimal | None, metric: str | None, expected: Decimal | None) -> str:
    if metric is None:
        return "no metric is named in its clause"
    if expected is None:
        return f"the prompt has no {metric}"
    if metric == "analogue":
        return "not the analogue that the prompt names"
    return f"{metric} is {expected}" if value is not None else f"not a plain figure; {metric} is {expected}"


def triples(findings: Iterable[CheckedNumber]) -> set[tuple[str, str, Decimal]]:
    """(key, metric, value) of every right number."""
    return {(number.key, number.metric, number.value) for number in findings if number.ok}


#: How far F may be from Φ − 0.3·H + 0.25·C: γC is rounded to three decimals before the sum.
_F_TOLERANCE = Decimal("0.0005")
_LAMBDA, _GAMMA, _CAP = (Decimal(str(value)) for value in (LAMBDA, GAMMA, CAP))
_SUM, _DECAY = ("F", "Φ", "H", "C"), ("decayed", "confidence", "horizon")
_NEEDED = frozenset((*_SUM, *_DECAY))


def arithmetic_faults(findings: Iterable[CheckedNumber]) -> tuple[list[str], int]:
    """(what does not hold, how many can be checked) of: F = Φ − 0.3·H + 0.25·C; decayed = confidence·e^(−0.1·horizon).

    Both are judged by the figures that the answer itself prints, whatever its prompt says. A check needs each of its
    figures, as a plain number. Where an answer prints one of them with two values it contradicts itself, and the check
    fails. Confidence above the cap never holds.
    """
    values: dict[str, set[Decimal]] = {}
    for number in findings:
        if number.metric in _NEEDED and number.value is not None:
            values.setdefault(number.metric, set()).add(number.value)
    wrong, checked = [], 0
    for names, check in ((_SUM, _sum_fault), (_DECAY, _decay_fault)):
        if not values.keys() >= set(names):
            continue
        checked += 1
        twice = [name for name in names if len(values[name]) > 1]
        if twice:
            wrong.append(f"{', '.join(twice)} printed with several values")
        elif why := check(*(next(iter(values[name])) for name in names)):
            wrong.append(why)
    return wrong, checked


def _sum_fault(total: Decimal, phi: Decimal, entropy: Decimal, power: Decimal) -> str:
    if abs(total - (phi - _LAMBDA * entropy + _GAMMA * power)) <= _F_TOLERANCE:
        return ""
    return f"F {_short(total)} is not Φ {_short(phi)} − 0.3·{_short(entropy)} + 0.25·{_short(power)}"


def _decay_fault(left: Decimal, confidence: Decimal, horizon: Decimal) -> str:
    if 0 <= confidence <= _CAP and 0 <= horizon <= 1200 and left == decayed(confidence, int(horizon)):
        return ""
    return f"decayed {_short(left)} is not {_short(confidence)}·e^(−0.1·{_short(horizon)}), confidence at most {CAP}"


def _short(value: Decimal) -> str:
    return str(value)[:20]


#: What says that a number is a confidence.
_SURE = frozenset(("confidence", "confident", "certain", "certainty", "sure", "decayed"))
_SURELY = rf"(?:{_any_of(_SURE)})"
_SHARE = (
    r"(?P<value>\d{1,30}(?:[.,]\d{1,30})?|[.,]\d{1,30})(?!\d)"
    r"(?P<percent>[ ]?(?:%|per[ ]?cent\b))?(?![ ]?(?:month|year|week|day|nation|source|forecast))"
)
_OTHERS = {*CATEGORIES, *SIGNALS, "mean", "index", "nation", "nations", *CIC_NAMES, *DERIVED} - _SURE
# Symbols and codes as printed, words in either case.
_OTHER = "|".join(["[A-Z]{3}", *(re.escape(name) if len(name) < 3 else f"(?i:{re.escape(name)})" for name in _OTHERS)])
_OTHER_NAME = _standing_alone(_OTHER)
_NAME_BEFORE = re.compile(rf"(?<![^\W\d_])(?:{_OTHER})[ ]\Z")
_BEHIND = re.compile(rf"\b{_SURELY}\b(?P<gap>(?:[^\d.!?;]|[.](?![\s\d])){{0,40}}?)(?<![\d.,]){_SHARE}", re.IGNORECASE)
_BEFORE = re.compile(rf"(?<![\w.,]){_SHARE}(?:[ -][^\W\d_]+){{0,2}}[ -]{_SURELY}\b", re.IGNORECASE)
_FIRST = re.compile(rf"\s*[\"'\[]*{_SHARE}")
_KEY_HINT = re.compile(_SURELY, re.IGNORECASE)


def stated_confidences(texts: Mapping[str, Text]) -> list[tuple[str, str, Decimal]]:
    """(key, the number as written, its value as a share) of every stated confidence."""
    stated = []
    for key, (text, _, words) in texts.items():
        if _SURE.isdisjoint(words) and not _KEY_HINT.search(key):
            continue
        for match in _confidences(key, text):
            value = Decimal(match["value"].replace(",", "."))
            share = value / 100 if match["percent"] or value > 2 else value
            stated.append((key, match["value"] + (match["percent"] or ""), share))
    return stated


def above_cap(stated: Iterable[tuple[str, str, Decimal]]) -> list[str]:
    """What is wrong with stated confidences."""
    return [f"{key[:40]}: confidence {text[:40]} is above {CAP}" for key, text, share in stated if share > _CAP]


def _confidences(key: str, text: str) -> Iterable[re.Match[str]]:
    if _KEY_HINT.search(key) and (match := _FIRST.match(text)):
        yield match
    for match in _BEHIND.finditer(text):
        if not _OTHER_NAME.search(match["gap"]):
            yield match
    for match in _BEFORE.finditer(text):
        if not _NAME_BEFORE.search(text, max(0, match.start() - 24), match.start()):
            yield match
