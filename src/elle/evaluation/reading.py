"""Reads the texts of briefings: which figures and words they state, and what is not read.

A text's tokens are found first. A number is one only in plain form: digits 0-9, thousands commas, a decimal point, a
sign (any of Unicode's dashes, hyphens and minus signs, or the word) and one of `_UNITS`; whatever else looks like a
number is no letter of any form, and so unread. What is left is a skeleton, of which a set of briefings has few: each
is parsed once.
"""

import bisect
import re
from collections.abc import Callable, Iterable, Mapping
from decimal import Decimal
from functools import lru_cache
from itertools import accumulate, islice
from typing import Any, NamedTuple

from cic.analogues import CORRELATES
from elle.briefings.cic_figures import ANALOGUES, DERIVED
from elle.briefings.metrics import UNITS
from elle.briefings.schema import CATEGORIES
from elle.evaluation.clauses import LONGEST, Name, Statement, parse_sentence
from elle.evaluation.grammar import (
    ANALOGUE,
    DASHES,
    KINDS,
    LETTERS,
    NATION,
    NATIONS,
    PERCENT,
    SENTENCE_END,
    THOUSANDS,
    TOKENS,
    UNIT_OF,
    any_of,
    lowered,
)

#: Words, outlines and sentences that are kept, of each at most; letters of a word and of an outline that is.
_MOST_KEPT, _WORD, _OUTLINE = 1 << 14, 40, 1000
#: Stands between the texts of a briefing while they are read.
_BETWEEN = " \x1e "
#: Stands for a simple word in an outline, before what it is: a number, one that may be thousands, a code.
_SOME = "\x1f"
# A word that is a number or a code in plain form and has no more meaning than its value. A year may belong to a name.
_SIMPLE = re.compile(rf"([(]?)([{DASHES}]?[0-9]{{1,3}}(?:\.[0-9]{{1,3}})?|[A-Z]{{3}})(%?[.,;:)]{{0,2}})")
# Letters that show nothing or turn the order of others, and those that stand for tokens.
_HIDDEN = re.compile(f"[\u00ad\u061c\u180e\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufeff{LETTERS}]")
# Pattern → unit.
_UNITS = {
    r"[ \xa0\u2009\u202f]?%|[ \xa0]per[ ]?cent": "%",
    r"/100|[ ](?:out[ ])?of[ ]100": "/100",
    r"[ -]months?[ ]ago": "months ago",
    r"[ -]months?": "months",
    r"[ ](?:percentage[ ])?points?": "points",
}
#: The metric of a number that is said of several figures at once; that of the count of nations above 50 %.
COMPARISON, HALF = "comparison", "exceed 50%"
#: Figures whose % divides by 100.
SHARES = frozenset(("agreement", "confidence", "decayed"))
_KEYS = {
    "stress": "financial", "overall": "summary", "density": "summary", "concerns": "summary", "plans": "nsm",
    "focus": "nsm",
    "functional": "cic_assessment", "net": "cic_assessment", "phase": "phase_assessment", "heat": "phase_assessment",
    "order": "phase_assessment", "warning": "phase_assessment", "transition": "phase_assessment",
    "cap": "confidence_bounds", "match": "historical_parallel",
}  # fmt: skip
#: What is said → the key under which.
HOMES = {(kind, ""): key for kind, key in _KEYS.items()} | {
    (kind, name): name for kind in ("band", "trend") for name in CATEGORIES
}
_LETTER_OF = {unit: letter for letter, unit in UNIT_OF.items()}
_SCORE, _PLAINLY = UNITS["mean"], frozenset(("",))
_UNITS_OF = UNITS | dict.fromkeys(("λH", "γC", "net", "F"), frozenset(("", "thousands")))  # they have three decimals
DERIVED_FIGURES = frozenset((*DERIVED, "stability index", "nations listed", HALF))
_WORLD = frozenset(NATIONS.values())


def _named(names: Mapping[str, str]) -> str:
    """A pattern for names whose first letter was read: name → pattern of what follows it."""
    firsts = sorted({name[0] for name in names})
    return "|".join(
        f"(?<={first})(?:{any_of(_escaped(name[1:]) + rest for name, rest in names.items() if name[0] == first)})"
        for first in firsts
    )


def _escaped(text: str) -> str:
    """For a verbose pattern, all dashes alike."""
    return re.sub("[-–]", lambda _: f"[{DASHES}]", re.escape(text).replace(r"\-", "-"))


_NAMES = _named(dict.fromkeys(NATIONS, "") | {event.name: rf"\ \(?{_escaped(event.period)}\)?" for event in CORRELATES})
# One set leads, which lets the scan skip all other letters at once; what stood before it is looked up behind it.
_TOKEN = re.compile(
    rf"""(
        [0-9A-Z{DASHES}] (?:
            (?: (?<=[0-9]) (?<!\w[0-9]) (?<!\d[.,][0-9]) [0-9]{{0,14}}
              | (?<=[{DASHES}]) (?<![\w%)][{DASHES}]) [0-9]{{1,15}} )
            (?:,[0-9]{{3}})* (?:\.[0-9]{{1,15}})? (?:(?=[%/ \xa0\u2009\u202f-])(?ai:{"|".join(_UNITS)}))? (?!\w|[.,]\d)
          | (?<=[A-Z]) (?<!\w[A-Z]) (?: [A-Z]{{2}} | {_NAMES} ) (?!\w|[.]\d)
        )
    )""",
    re.VERBOSE,
)
_SIGN_WORD = re.compile(r"\b(?:minus|negative) \Z", re.IGNORECASE | re.ASCII)
_NUMBER = re.compile(
    rf"(\D*)([\d,]+(?:\.\d+)?)(?:{'|'.join(f'({pattern})' for pattern in _UNITS)})?", re.IGNORECASE | re.ASCII
)
_THOUSANDS = re.compile(r"[1-9]\d*\.\d{3}\Z")  # some write thousands so


class CheckedNumber(NamedTuple):
    """One number of one text, and the verdict on it: where it stands (characters start..end of the text under `key`),
    what it is said of, and why it is wrong."""

    key: str
    start: int
    end: int
    text: str
    value: Decimal | str
    metric: str | None  # None: not read
    expected: Decimal | str | None  # the metric's true value; None: it has none
    derived: bool  # the metric is computed, not printed
    ok: bool
    why: str  # "" where `ok`


class Unread(NamedTuple):
    """A part of a text that is not read (characters start..end of the text under `key`)."""

    key: str
    start: int
    end: int
    text: str


#: A kind of word or statement, and the category that it is said of, or "".
Thing = tuple[str, str]


class Meaning(NamedTuple):
    """What all texts with one skeleton say, by the places of their tokens.

    figures: (name, place of its number, whether its unit can be). names, numbers: of those that a metric's name names;
    nations: places of the other ones; metrics: the former; plain: each number is its figure's value as it
    stands; derived: how many are of a derived metric, counts included, of `total`.
    letters: of all tokens. words: (thing, sense, denied). said: the same of those that say, under the key where it
    belongs, what a thing is. others: statements on several figures. unread: (start, end) in the skeleton. loose: the
    numbers in it.
    """

    figures: tuple[tuple[Name, int, bool], ...]
    names: tuple[str, ...]
    numbers: tuple[int, ...]
    nations: tuple[tuple[int, int], ...]
    metrics: frozenset[str]
    plain: bool
    derived: int
    total: int
    letters: str
    words: tuple[tuple[Thing, str, bool], ...]
    said: frozenset[tuple[Thing, str]]
    things: frozenset[Thing]
    others: tuple[Statement, ...]
    unread: tuple[tuple[int, int], ...]
    loose: tuple[int, ...]
    sentences: int
    unread_sentences: int


class Read(NamedTuple):
    """A text, read. values: of its tokens: a number, a nation's code, an analogue with its years."""

    key: str
    text: str
    plan: Meaning
    values: list[Decimal | str]


class Reader:
    """Reads texts for prompts whose nations have these codes, beside those of the simulated worlds.

    A text is known again by its outline: its words, but of the simple ones only what they are. One that is new is read
    letter by letter, which takes ten times as long.
    """

    def __init__(self, codes: frozenset[str]):
        self._codes = codes | _WORLD
        self._numbers: dict[str, Decimal | str] = {}  # of simple words
        self._pieces = _Made(self._piece)
        self._tokens = _Made(self._token)
        self._last: tuple[str, list[str]] = "", []
        self._placed: tuple[str, list[tuple[int, str]]] = "", []
        self._known: dict[tuple[str, str], tuple[Meaning, list | None, int]] = {}

    def read(self, texts: Mapping[str, str]) -> list[Read]:
        """What each of `texts` (key → text) says."""
        whole = _BETWEEN.join(texts.values())
        words = whole.split(" ")
        if len(self._pieces) > _MOST_KEPT:
            self._pieces.clear()
            self._numbers.clear()
        outlines = " ".join(map(self._pieces.__getitem__, words)).split(_BETWEEN)
        if len(outlines) != len(texts) or _SOME in whole:  # a text holds what should stand in none
            return [self._read(key, text) for key, text in texts.items()]
        simple = [value for value in map(self._numbers.get, words) if value is not None]
        reads, first, known = [], 0, self._known
        for (key, text), outline in zip(texts.items(), outlines, strict=True):
            plan, sources, count = known.get((key, outline)) or self._learn(key, text, outline)
            last = first + count
            if sources is None:
                reads.append(self._read(key, text))
            elif not sources:
                reads.append(Read(key, text, plan, simple[first:last]))
            else:
                given = iter(simple[first:last])
                reads.append(Read(key, text, plan, [next(given) if each is None else each for each in sources]))
            first = last
        return reads

    def _piece(self, word: str) -> str:
        """A word of an outline."""
        match = _SIMPLE.fullmatch(word)
        value = match and self._value(match[2])
        if value is None or match[2] == "100":  # "of 100" is a unit
            return word
        self._numbers[word] = value
        kind = "A" if match[2].isalpha() else "T" if _THOUSANDS.search(match[2]) else "0"
        return f"{match[1]}{_SOME}{kind}{match[3]}"

    def _learn(self, key: str, text: str, outline: str) -> tuple[Meaning, list | None, int]:
        """What texts of this outline mean; where the values of their tokens come from ([]: from the simple words, one
        after the other; a value where it is that of the outline itself; None: it has to be read each time); and the
        number of simple words."""
        read, simple, start = self._read(key, text), {}, 0
        for word in text.split(" "):
            if (value := self._numbers.get(word)) is not None:
                simple[start + (word[0] == "(")] = value
            start += len(word) + 1
        given = [simple.get(start) for start, _ in self.places(text)]
        same = [value for value in given if value is not None] == [*simple.values()] and all(
            value in (None, right) for value, right in zip(given, read.values, strict=True)
        )
        if not same or _has_sign_word(text):  # of "minus 3.1" the sign is another word, of "minus -3.1" it is not
            sources = None
        elif None not in given:
            sources = []
        else:
            sources = [right if value is None else None for value, right in zip(given, read.values, strict=True)]
        learned = read.plan, sources, len(simple)
        if len(self._known) >= _MOST_KEPT:
            self._known.clear()
        if len(key) + len(outline) <= _OUTLINE:
            self._known[key, outline] = learned
        return learned

    def _read(self, key: str, text: str) -> Read:
        parts = _split(text)
        if len(self._tokens) > _MOST_KEPT:
            self._tokens.clear()
        tokens = [self._tokens[written] for written in parts[1::2]]
        values = [value for _, value in tokens if value is not None]
        skeleton = parts.copy()
        skeleton[1::2] = [letter for letter, _ in tokens]
        self._last = text, parts
        return Read(key, text, _plan(key, lowered("".join(skeleton))), values)

    def places(self, text: str) -> list[tuple[int, str]]:
        """(start, as written) of each token of `text`."""
        if text is self._placed[0]:  # a text with many faults asks for each of them
            return self._placed[1]
        parts = self._last[1] if text is self._last[0] else _split(text)
        starts = islice(accumulate(map(len, parts)), 0, None, 2)
        found = zip(starts, parts[1::2], strict=False)
        self._placed = text, [(start, written) for start, written in found if self._tokens[written][1] is not None]
        return self._placed[1]

    def unread(self, read: Read) -> list[tuple[int, int]]:
        """(start, end) in the text of what is not read."""
        # Where the letter of each token is in the skeleton; by how much the text is longer up to it.
        letters, shifts = [], [0]
        for start, written in self.places(read.text):
            letters.append(start - shifts[-1])
            shifts.append(shifts[-1] + len(written) - 1)
        return [tuple(at + shifts[bisect.bisect_left(letters, at)] for at in span) for span in read.plan.unread]

    def _token(self, text: str) -> tuple[str, Decimal | str | None]:
        """A token's letter of the grammar and its value; what is none stays as it is written."""
        value = self._value(text)
        if value is None:
            return text, None
        if isinstance(value, str):
            return ANALOGUE if value in ANALOGUES else NATION, value
        match = _NUMBER.fullmatch(text)
        unit = list(_UNITS.values())[match.lastindex - 3] if match.lastindex > 2 else ""
        return THOUSANDS if not unit and _THOUSANDS.search(match[2]) else _LETTER_OF[unit], value

    def _value(self, text: str) -> Decimal | str | None:
        if text in self._codes or text in NATIONS:
            return NATIONS.get(text, text)
        if analogue := _DATED.get(_undecorated(text)):
            return analogue
        if text.isalpha():  # other capitals
            return None
        sign, digits, *_ = _NUMBER.fullmatch(text).groups()
        if digits.find(",") > 3 or (digits[0] == "0" and digits[1:2].isdigit()):  # 1234,567 and 007
            return None
        value = Decimal(digits.replace(",", ""))
        return value.copy_negate() if sign else value  # exact, unlike -value


class _Made(dict):
    """Values by key; those of short keys are made once."""

    def __init__(self, make: Callable[[str], Any]):
        self._make = make

    def __missing__(self, key: str) -> Any:
        value = self._make(key)
        if len(key) <= _WORD:
            self[key] = value
        return value


_readers = lru_cache(4)(Reader)


def reader(codes: Iterable[str]) -> Reader:
    """The reader for prompts with these nations; prompts of the simulated worlds share one."""
    return _readers(frozenset(codes) - _WORLD)


def _undecorated(analogue: str) -> str:
    return re.sub(f"[{DASHES}]", "–", analogue.replace("(", "").replace(")", ""))


_DATED = {_undecorated(dated): dated for dated in ANALOGUES}


def _has_sign_word(text: str) -> bool:
    return "minus" in (lower := text.lower()) or "negative" in lower


def _split(text: str) -> list[str]:
    """A text in parts; at the odd places what looks like a token."""
    if not text.isascii() and _HIDDEN.search(text):
        return [_HIDDEN.sub("\0", text)]
    parts = _TOKEN.split(text)
    if _has_sign_word(text):
        for place in range(1, len(parts), 2):  # the word for a sign belongs to its number
            if (sign := _SIGN_WORD.search(parts[place - 1])) and parts[place][0].isdigit():
                parts[place] = sign[0] + parts[place]
                parts[place - 1] = parts[place - 1][: sign.start()]
    return parts


#: What a sentence says, by its skeleton and by what was spoken of before.
_sentence = lru_cache(_MOST_KEPT)(parse_sentence)


def _plan(key: str, skeleton: str) -> Meaning:
    """What texts under `key` with this skeleton mean."""
    about = (key,) if key in CATEGORIES else ("analogue",) if key == HOMES["match", ""] else ()
    letters = "".join(TOKENS.findall(skeleton))
    figures, statements, unread, loose = [], [], [], []
    begin = first = sentences = unread_sentences = 0
    for end in (*SENTENCE_END.finditer(skeleton), None):
        stop = end.start() if end else len(skeleton)
        if begin < stop:
            found = (_sentence if stop - begin <= LONGEST else parse_sentence)(skeleton[begin:stop], about)
            figures += [
                (name if isinstance(name, str) else name + first, place + first) for name, place in found.figures
            ]
            statements += [_moved(statement, first) for statement in found.statements]
            unread += [(begin + start, begin + stop) for start, stop in found.unread]
            loose += [place + first for place in found.loose]
            sentences, unread_sentences = sentences + 1, unread_sentences + bool(found.unread)
            first, about = first + found.tokens, found.about
        begin = end.end() if end else begin
    fitting = tuple((name, place, _fits(name, letters[place])) for name, place in figures)
    named = [(name, place) for name, place in figures if isinstance(name, str)]
    words = [
        ((each.kind, each.names[0] if each.names else ""), each.sense, each.denied)
        for each in statements
        if each.kind in KINDS
    ]
    said = [(thing, sense) for thing, sense, denied in words if not denied and HOMES[thing] == key]
    others = tuple(each for each in statements if each.kind not in KINDS)
    counts = sum(len(own_numbers(each)) for each in others)
    return Meaning(
        fitting,
        tuple(name for name, _ in named),
        tuple(place for _, place in named),
        tuple((name, place) for name, place in figures if not isinstance(name, str)),
        frozenset(name for name, _ in named),
        all(fits and not (name in SHARES and letters[place] == PERCENT) for name, place, fits in fitting),
        sum(name in DERIVED_FIGURES for name, _ in named) + counts,
        len(figures) + counts,
        letters,
        tuple(words),
        frozenset(said),
        frozenset(thing for thing, _ in said),
        others,
        tuple(unread),
        tuple(loose),
        sentences,
        unread_sentences,
    )


def _fits(name: Name, letter: str) -> bool:
    """Whether a figure may have the unit of a number, or be an analogue."""
    units = _UNITS_OF.get(name, _PLAINLY) if isinstance(name, str) else _SCORE
    return UNIT_OF.get(letter, "") in units


def own_numbers(statement: Statement) -> tuple[int, ...]:
    """The places of the numbers that only this statement is about: a count's threshold is a part of its name, and
    those of an equation are figures or factors."""
    return {"counted": statement.numbers[:-1], "equation": ()}.get(statement.kind, statement.numbers)


def _moved(statement: Statement, by: int) -> Statement:
    """The same with the places of a text, not of a sentence."""
    if not by:
        return statement
    names = tuple(name if isinstance(name, str) else name + by for name in statement.names)
    return statement._replace(names=names, numbers=tuple(place + by for place in statement.numbers))
