"""Whether the numbers of a briefing are its prompt's: which metric each number stands for, and if it is right.

The rule. A text is split into clauses at , ; : . ( ) and line ends, never inside a number. In a clause, a number binds
to the nearest metric name (characters between the two; at a tie, the name before the number, as prompts print them).
It is right where it equals that metric's value. A number that binds to nothing, or to a metric that the prompt does
not have, is wrong.

Numbers: runs of digits with sign, decimals, thousands commas and %. A % is not converted: 0.9 is not 90%. A number
with letters after it (40k, 3rd) or a magnitude word (40 million) is not the plain figure, hence wrong. Numbers in words
are not read: they count for nothing in precision and are missing in recall.

Names: those of `metrics.printed_figures` and `derived_figures`, and the country codes of the world's table; codes as
printed, the others in either case. Those of the CIC figures count only where the prompt prints such figures; its
symbols (Φ, H, C, F, λH, γC, net) as printed. A historical analogue with its whole period ("Tulip Mania 1634–1637") is
one figure, right where it is the prompt's; the digits of any other period are numbers like all others.
"""

import json
import re
from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any, NamedTuple

from helpers.briefings.cic_figures import ANALOGUES, DERIVED
from helpers.briefings.cic_figures import NAMES as CIC_NAMES
from helpers.briefings.metrics import SIGNALS, Metrics, derived_figures, printed_figures
from helpers.briefings.scenario import COUNTRIES
from helpers.briefings.schema import CATEGORIES

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

# A clause's end or a number. One set leads, which lets the scan skip all other characters at once; the sign, if any, is
# looked up behind the number. A full stop leads a number only where nothing but a sign can stand before it (" .5").
# Groups: 1 the cut or the digits, 2 what makes a number no plain figure.
_MARK = re.compile(
    r"""
    ( [\d.,;:()\n\r]
        (?: (?<=\d) (?: \d{0,2} (?:,\d{3})+ (?!\d) | \d* ) (?:\.\d+)? | (?<=\.) (?<! [^\s(+\-−–] \. ) \d+ )?
    )
    (?: (?<=\d) (?: [ ]?% | ( [^\W\d_]+ | [ ] (?i:hundred|thousand|million|billion) \b ) ) )?
    """,
    re.VERBOSE,
)
_CUTS = frozenset(".,;:()\n\r")
_SIGNS = frozenset("-−–+")


class Number(NamedTuple):
    """One number of one text: where it stands (characters start..end of the text under `key`), what it binds to."""

    key: str
    start: int
    end: int
    text: str
    value: Decimal | None  # None: not a plain figure
    metric: str | None  # None: unbound


class Finding(NamedTuple):
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


def numbers(key: str, text: str, codes: Mapping[str, Any] = COUNTRIES, cic: bool = False) -> list[Number]:
    """The numbers of one text, in order, each bound by the rule; `codes` holds the nation codes there are, `cic` says
    whether the names of the CIC figures count."""
    result: list[Number] = []
    clause, found = 0, []
    for mark in _MARK.finditer(text):
        if mark[1] not in _CUTS:
            found.append(mark)
            continue
        if found:
            result += _bind(key, text, clause, mark.start(), found, codes, cic)
            found = []
        clause = mark.end()
    if found:
        result += _bind(key, text, clause, len(text), found, codes, cic)
    return result


def _bind(
    key: str, text: str, begin: int, end: int, found: list[re.Match[str]], codes: Mapping[str, Any], cic: bool
) -> list[Number]:
    """The numbers `found` in the clause begin..end, each with the nearest name; one pass over numbers and names."""
    names, bound, periods = [], [], []
    for name in (_CIC_NAME if cic else _NAME).finditer(text, begin, end):
        if cic and name[0] in ANALOGUES:
            periods.append(Number(key, *name.span(), name[0], Decimal(ANALOGUES[name[0]]), "analogue"))
            continue
        metric = _SPELLINGS.get(name[0].lower()) or (name[0] if name[0] in codes else None)
        if cic and not metric:
            metric = _SYMBOLS.get(name[0]) or _CIC_SPELLINGS.get(name[0].lower())
        if metric:  # other capitals (LOW) are no name
            names.append((name.start(), name.end(), metric))
    after = 0  # the first name that begins behind the number
    behind = 0  # the first period that ends behind it
    for mark in found:
        start, value = _signed(text, mark)
        stop = mark.end()
        while behind < len(periods) and periods[behind].end < stop:
            behind += 1
        if behind < len(periods) and periods[behind].start < start:
            continue  # the years of a period
        while after < len(names) and names[after][0] < stop:
            after += 1
        if after and names[after - 1][0] < mark.start() < names[after - 1][1]:
            continue  # the 50% of a name
        metric = names[after - 1][2] if after else None
        if after < len(names) and (metric is None or names[after][0] - stop < start - names[after - 1][1]):
            metric = names[after][2]
        bound.append(Number(key, start, stop, text[start:stop], value, metric))
    return sorted(bound + periods, key=lambda number: number.start) if periods else bound


def _signed(text: str, mark: re.Match[str]) -> tuple[int, Decimal | None]:
    """Where the number begins, its sign included, and its value (None: no plain figure)."""
    start = mark.start()
    value = Decimal(mark[1].replace(",", "")) if mark[2] is None else None
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
        self._codes = {**COUNTRIES, **self.printed}  # a user's own records may hold other nations
        self._cic = metrics.cic is not None

    def check(self, texts: Mapping[str, str]) -> list[Finding]:
        """The verdict on every number of `texts` (key → text), in order."""
        return [
            self._verdict(number)
            for key, text in texts.items()
            for number in numbers(key, text, self._codes, self._cic)
        ]

    def _verdict(self, number: Number) -> Finding:
        metric = number.metric
        derived = metric in self.derived
        expected = self.derived[metric] if derived else self.printed.get(metric)
        ok = expected is not None and number.value == expected
        if ok:
            why = ""
        elif metric is None:
            why = "no metric is named in its clause"
        elif expected is None:
            why = f"the prompt has no {metric}"
        elif metric == "analogue":
            why = "not the analogue that the prompt names"
        elif number.value is None:
            why = f"not a plain figure; {metric} is {expected}"
        else:
            why = f"{metric} is {expected}"
        return Finding(number, expected, derived, ok, why)


def triples(findings: list[Finding]) -> set[tuple[str, str, Decimal]]:
    """(key, metric, value) of every right number."""
    return {(found.number.key, found.number.metric, found.number.value) for found in findings if found.ok}
