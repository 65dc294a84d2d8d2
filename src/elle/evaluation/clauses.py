"""From a sentence's skeleton to what it says: which clauses have a form of the grammar, and what each means.

A sentence is parsed from left to right: at each clause the longest form that ends where a clause may end, and fits.
Where none does, the clause is unread up to the next punctuation mark, and so is what is joined to it without one.
"""

import re
from collections.abc import Sequence, Set
from typing import NamedTuple

from elle.briefings.schema import CATEGORIES
from elle.evaluation.grammar import (
    FORMS,
    ITEMS,
    JOIN,
    MARK,
    METRIC_OF,
    MONTHS,
    NATION,
    NUMBERS,
    NUMERIC,
    TERMS,
    TOKENS,
    WORDS,
)

#: Letters of a sentence's skeleton beyond which it is unread as a whole: time stays linear in the length of a text.
LONGEST = 400
#: Figures of one family compare with one another; those of nations do, too, with one another and the mean.
FAMILIES = {
    **dict.fromkeys(CATEGORIES, "category"), **dict.fromkeys(("Φ", "λH", "net", "F"), "nats"),
    "temperature": "temperature", "prior temperature": "temperature", "order": "order", "prior order": "order",
    "agreement": "share", "confidence": "share", "decayed": "share", "mean": "nation",
}  # fmt: skip
#: A figure that a clause names: its metric, or the place of a nation's token in its sentence.
Name = str | int


class Term(NamedTuple):
    """A term of a sum: a figure's name, perhaps behind a factor, or a number (name: ""). Factors and such numbers
    are the statement's `numbers`, in order."""

    negative: bool
    factor: bool
    name: str


class Statement(NamedTuple):
    """What a clause says beside figures. kind: of `forms`, or of `words`; names: what it is said of; numbers: places of
    tokens; sense: of its word; sides: of an equation."""

    kind: str
    names: tuple[Name, ...] = ()
    numbers: tuple[int, ...] = ()
    sense: str = ""
    denied: bool = False
    sides: tuple[tuple[Term, ...], ...] = ()


class Sentence(NamedTuple):
    """figures: (name, place of its number); unread: (start, end) in the skeleton of what is not read; loose: places
    of the numbers in it; tokens: how many the sentence has; about: the metrics that it spoke of last."""

    figures: tuple[tuple[Name, int], ...]
    statements: tuple[Statement, ...]
    unread: tuple[tuple[int, int], ...]
    loose: tuple[int, ...]
    tokens: int
    about: tuple[str, ...]


class _Number(NamedTuple):
    place: int


class _Clause(NamedTuple):
    """A clause that has a form. items: names (metrics; places of tokens) and numbers (`_Number`) in order; about: what
    the sentence spoke of last; nations: places of their tokens; bare: nothing stands between it and the one before."""

    kind: str
    items: tuple[Name | _Number, ...]
    said: dict[str, str]
    about: tuple[Name, ...]
    nations: frozenset[int]
    text: str
    bare: bool

    @property
    def denied(self) -> bool:
        return "not" in self.said

    def sense(self, kind: str) -> str:
        """The sense of the clause's word of this kind, "" without one."""
        return WORDS[kind][self.said[kind]] if kind in self.said else ""

    @property
    def subject(self) -> tuple[Name, ...]:
        """The one thing that the sentence spoke of last; empty where there were several: a word would be of each."""
        return self.about if len(self.about) == 1 else ()

    @property
    def names(self) -> tuple[Name, ...]:
        return tuple(item for item in self.items if not isinstance(item, _Number))

    @property
    def numbers(self) -> tuple[int, ...]:
        return tuple(item.place for item in self.items if isinstance(item, _Number))

    @property
    def cited(self) -> list[tuple[Name, int]]:
        """Each name with the number right behind it."""
        pairs = zip(self.items, self.items[1:], strict=False)
        return [(a, b.place) for a, b in pairs if isinstance(b, _Number) and not isinstance(a, _Number)]


#: What a clause comes to: its figures, its statements; None: it does not fit here.
_Meant = tuple[Sequence[tuple[Name, int]], Sequence[Statement]] | None


def _figures(clause: _Clause) -> _Meant:
    """One number is said of each of its names; several are theirs in order."""
    names, numbers = clause.names or clause.about, clause.numbers
    counts = clause.names and isinstance(clause.items[0], _Number) and clause.nations.isdisjoint(clause.names)
    if clause.names == ("decayed",) and " to " in clause.text and not _is_of(clause._replace(kind="decay")):
        return None
    if _UNKNOWN[0] in names or (counts and not clause.nations.isdisjoint(clause.about)):  # "UKR 74%: 7 alerts"
        return None
    if len(numbers) == 1 and names:
        pairs = [(name, numbers[0]) for name in names]
    elif len(numbers) == len(names):
        pairs = list(zip(names, numbers, strict=True))
    else:
        return None
    return pairs, [Statement("transition", sense="yes") for name in names if name == "transition"]


def _about(clause: _Clause) -> Name | None:
    names = clause.names or clause.subject
    return names[-1] if names else None


def _band(clause: _Clause) -> _Meant:
    """Of a category, or of the mean: the overall risk. A word that names a trend as well says both."""
    name, sense, denied = _about(clause), clause.sense("band"), clause.denied
    move = WORDS["trend"].get(clause.said["band"])
    if name == "mean":
        return (), [Statement("overall", sense=sense, denied=denied)]
    if name not in CATEGORIES or (move and denied):
        return None
    statements = [Statement("band", (name,), sense=sense, denied=denied)]
    if move:
        statements.append(Statement("trend", (name,), sense=move))
    return (), statements


def _trend(clause: _Clause) -> _Meant:
    name, sense, denied = _about(clause), clause.sense("trend"), clause.denied
    if name == "net":
        return (), [Statement("net", sense=sense, denied=denied)]
    return ((), [Statement("trend", (name,), sense=sense, denied=denied)]) if name in CATEGORIES else None


#: Words that are said of these only, by their kind.
_OF = {
    "stress": {"financial", "stability index"},
    "heat": {"temperature", "order"},
    "order": {"temperature", "order"},
    "match": {"distance", "analogue"},
    "decay": {"confidence", "decayed", "horizon"},
    "horizon": {"horizon", "confidence", "decayed"},
}
#: And of this above all.
_MAIN = {"heat": "temperature", "order": "order"}
_VERB = re.compile("is|ranks|stands|lies|exceed|lead")
_PREDICATE = re.compile("is |ranks |the |lead")


def _is_of(clause: _Clause) -> bool:
    """Whether the clause speaks of what its kind of word is said of: by a name of its own, or by what came before."""
    known = _OF.get(clause.kind)
    own = clause.kind not in ("decay", "horizon") or "confidence" in clause.names
    names = (own and clause.names) or clause.about
    if known is None:
        return True
    return bool(names) and known.issuperset(names) and _MAIN.get(clause.kind, names[0]) in names


def _word(clause: _Clause) -> _Meant:
    """A word of the clause's own kind."""
    text = clause.text
    alone = clause.kind == "phase" and (text in WORDS["phase"] or text.startswith("in "))
    if not _is_of(clause) or (alone and not {"phase"}.issuperset(clause.about)):
        return None
    sense, denied = clause.sense(clause.kind) or "undefined", clause.denied
    return clause.cited, [Statement(clause.kind, sense=sense, denied=denied)]


def _functional(clause: _Clause) -> _Meant:
    statements = [Statement("functional", sense="undefined")]
    return (), [*statements, Statement("listed")] if clause.text.endswith("without nations") else statements


def _cap(clause: _Clause) -> _Meant:
    """Of the agreement; a number that it is capped at is the confidence."""
    sense = clause.sense("cap")
    if _about(clause) != "agreement" or (clause.numbers and sense != "capped"):
        return None
    return [("confidence", number) for number in clause.numbers], [Statement("cap", sense=sense)]


def _overall(clause: _Clause) -> _Meant:
    return (), [Statement("overall", sense=clause.sense("band"), denied=clause.denied)]


def _transition(clause: _Clause) -> _Meant:
    if clause.numbers:
        return _figures(clause)
    return (), [Statement("transition", sense="none")]


def _nations(clause: _Clause) -> _Meant:
    """Nations, each with or without its figure."""
    return clause.cited, [Statement(clause.kind, clause.names)]


def _ranked(clause: _Clause) -> _Meant:
    if not clause.about or not clause.nations.issuperset(clause.about):
        return None
    return clause.cited, [Statement("ranked", (*clause.about, *clause.names))]


def _listed(clause: _Clause) -> _Meant:
    if clause.numbers:
        return [("nations listed", clause.numbers[0])], ()
    return (), [Statement("listed")]


def _counted(clause: _Clause) -> _Meant:
    """Nations are counted: by their name, or behind how many are listed."""
    if not re.search("nation|listed", clause.text) and clause.about != ("nations listed",):
        return None
    *count, threshold = clause.numbers
    figures = [("nations listed", count.pop())] if len(count) == 2 else []
    sense = f"{clause.sense('relation')} {clause.sense('quantity')}".strip()
    return figures, [Statement("counted", numbers=(*count, threshold), sense=sense)]


def _bound(clause: _Clause) -> _Meant:
    names = clause.names or clause.about
    if not names or not _UNBOUNDED.isdisjoint(names):
        return None
    return (), [Statement("bound", names, clause.numbers, clause.sense("relation"))]


def _two(clause: _Clause) -> tuple[Name, ...]:
    """The two figures of one family that a clause compares; () where they are not."""
    names = (*clause.subject, *clause.names)[-2:]
    families = {"nation" if name in clause.nations else FAMILIES.get(name) for name in names}
    return names if len(names) == 2 and len(families) == 1 and None not in families else ()


def _comparison(clause: _Clause) -> _Meant:
    names = _two(clause) if len(clause.names) == 2 or not clause.bare or _VERB.match(clause.text) else ()
    figures = [(clause.names[-1], number) for number in clause.numbers]
    return (figures, [Statement("comparison", names, sense=clause.sense("relation"))]) if names else None


def _difference(clause: _Clause) -> _Meant:
    names, sense = _two(clause), clause.sense("relation") or "apart"
    return ((), [Statement("difference", names, clause.numbers, sense)]) if names else None


def _extreme(clause: _Clause) -> _Meant:
    """Of a nation or a category, as its noun says."""
    name = _about(clause)
    if not clause.names and not _PREDICATE.match(clause.text):
        return None
    if clause.names and clause.text.startswith("lead"):  # "leads UKR": over whom, not who
        return None
    other = "category" if name in clause.nations else "nation"
    if (name not in clause.nations and name not in CATEGORIES) or other in clause.text:
        return None
    figures = [(name, number) for number in clause.numbers]
    return figures, [Statement("extreme", (name,), sense=clause.sense("extreme"))]


def _decay(clause: _Clause) -> _Meant:
    if not _is_of(clause):
        return None
    names = ["horizon" if letter == MONTHS else "decayed" for letter in NUMBERS.findall(clause.text)]
    return list(zip(names, clause.numbers, strict=True)), ()


def _analogue(clause: _Clause) -> _Meant:
    place = next(name for name in clause.names if isinstance(name, int))
    return [("analogue", place), *clause.cited], ()


def _equation(clause: _Clause) -> _Meant:
    """The number behind a name is its figure, and a side that is a number only that of a side that is a name."""
    figures, sides, numbers, names, results = [], [], [], [], []
    places = iter(clause.numbers)
    for side in clause.text.split(" = "):
        terms = TERMS.findall(side)
        for sign, factor, name, cited, only in terms:
            numbers += [next(places)] if factor else []
            if cited:
                figures.append((name, next(places)))
            elif only:
                numbers.append(next(places))
            if len(terms) == 1 and not (sign or factor or cited):
                names += [name] if name else []
                results += [numbers[-1]] if only else []
        sides.append(tuple(Term(bool(sign) and sign != "+", bool(factor), name) for sign, factor, name, *_ in terms))
    if results and not names:
        return None
    figures += [(names[0], number) for number in results]
    return figures, [Statement("equation", clause.names, tuple(numbers), sides=tuple(sides))]


_MEANINGS = {
    "figures": _figures, "bare figure": _figures, "equation": _equation, "band": _band, "trend": _trend,
    "overall": _overall, "concerns": _nations, "led": _nations, "focus": _nations, "ranked": _ranked,
    "listed": _listed, "counted": _counted, "bound": _bound, "comparison": _comparison, "difference": _difference,
    "extreme": _extreme, "transition": _transition, "cap": _cap, "analogue": _analogue, "decay": _decay,
    "horizon": _decay, "functional": _functional,
}  # fmt: skip
#: What a kind of clause speaks of beside the names in it.
_SUBJECTS = {
    "overall": ("mean",), "net": ("net",), "functional": ("F",), "transition": ("transition",),
    "listed": ("nations listed",), "counted": ("nations listed",),
    **{kind: (kind,) for kind in ("density", "plans", "warning", "phase", "analogue")},
}  # fmt: skip
#: Nothing that can be said of: what was spoken of is not known.
_UNKNOWN = ("",)
_UNBOUNDED = frozenset((*_UNKNOWN, "nations listed", "density", "plans", "warning", "phase", "analogue", "transition"))
#: What may follow a clause without a mark or a joining word between them: "political 40" "is rising" "at 40".
_PREDICATES = frozenset(
    ("band", "trend", "bare figure", "bound", "comparison", "difference", "extreme", "cap", "heat", "order", "concerns")
)
_BEHIND_A_WORD = frozenset(("band", "trend", "bare figure"))  # no bound: "rising above 30"
_CONTRAST = re.compile(r";|\b(?:while|whereas|but|though)\b")


def parse_sentence(skeleton: str, about: tuple[str, ...]) -> Sentence:
    """The sentence that `skeleton` is; about: what the text spoke of before it."""
    places = {match.start(): number for number, match in enumerate(TOKENS.finditer(skeleton))}
    nations = frozenset(number for place, number in places.items() if skeleton[place] == NATION)
    kept: list[_Meaning] = []
    run: list[_Meaning] = []  # since the last punctuation mark
    unread: list[tuple[int, int]] = []
    position = begin = len(skeleton) - len(skeleton.lstrip(" "))  # of the clause; of the run
    last: tuple[Name, ...] = about
    kinds: Set[str] = frozenset()  # of the next clause
    before = ""  # the kind of the last one
    listing: Statement | None = None  # what the nations are named for
    if len(skeleton) > LONGEST:
        position, unread = len(skeleton), [(0, len(skeleton))]
    while position < len(skeleton):
        found = _longest(skeleton, position, places, nations, last, kinds)
        end = found.end if found else position
        join = JOIN.match(skeleton, end) if found else None
        if found and join and (join[0] or end == len(skeleton)):
            found, listing = _listing(found, listing, nations)
            run.append(found)
            # Figures one after the other are spoken of together.
            last = (*last, *found.about) if found.kind == before == "figures" else found.about or last
            before = found.kind
            position, kinds = join.end(), frozenset()
            if join[0] == " ":
                kinds = _BEHIND_A_WORD if before in ("band", "trend") else _PREDICATES
            if MARK.search(skeleton, end, position) or position == len(skeleton):
                kept, run, begin = kept + run, [], position
            if _CONTRAST.search(join[0]):
                listing = None
            if ";" in join[0] or ":" in join[0]:
                before = ""
            continue
        mark = MARK.search(skeleton, end)
        stop = mark.start() if mark else len(skeleton)
        unread.append((begin, max(stop, begin + 1)))
        after = JOIN.match(skeleton, stop)
        position = begin = max(after.end() if after else 0, stop + 1)
        run, last, kinds, before, listing = [], _UNKNOWN, frozenset(), "", None
    if run:
        unread.append((begin, len(skeleton)))
    figures = tuple(figure for each in kept for figure in each.figures)
    statements = tuple(statement for each in kept for statement in each.statements)
    read = {number for each in kept for number in each.numbers}
    loose = tuple(number for place, number in places.items() if skeleton[place] in NUMERIC and number not in read)
    named = tuple(name for name in last if isinstance(name, str))
    left = _UNKNOWN if unread or len(named) < len(last) else named
    return Sentence(figures, statements, tuple(unread), loose, len(places), left)


def _listing(found: "_Meaning", listing: Statement | None, nations: Set[int]) -> tuple["_Meaning", Statement | None]:
    """A clause behind one that names nations for something names more of them for it: "2 exceed 50%: USA 20%"."""
    own = [each for each in found.statements if each.kind in ("concerns", "led", "focus", "counted")]
    named = tuple(name for name in found.about if name in nations)
    if own or not listing or not named:
        return found, own[-1] if own else listing
    more = Statement("concerns" if listing.kind == "led" else listing.kind, named)
    if listing.kind == "counted":
        more = Statement("bound", named, listing.numbers[-1:], listing.sense.partition(" ")[0])
    return found._replace(statements=(*found.statements, more)), listing


class _Meaning(NamedTuple):
    """What a clause means. about: what it speaks of; numbers: places of those in it; end: of the clause."""

    kind: str
    figures: Sequence[tuple[Name, int]]
    statements: Sequence[Statement]
    about: tuple[Name, ...]
    numbers: tuple[int, ...]
    end: int


def _longest(
    skeleton: str,
    position: int,
    places: dict[int, int],
    nations: frozenset[int],
    about: tuple[Name, ...],
    kinds: Set[str],
) -> _Meaning | None:
    """The longest clause at `position` that has a form (of these kinds; none: of any) and fits."""
    start = skeleton[position : position + 2]
    matches = [
        (kind, match)
        for kind, pattern in FORMS.get(start) or FORMS.get(start[0], ())
        if (not kinds or kind in kinds) and (match := pattern.match(skeleton, position))
    ]
    for kind, match in sorted(matches, key=lambda each: -each[1].end()):
        items: list[Name | _Number] = []
        for item in ITEMS.finditer(skeleton, *match.span()):
            place = places.get(item.start())
            items.append(METRIC_OF[item[0]] if place is None else _Number(place) if item[0] in NUMERIC else place)
        said = {name: words for name, words in match.groupdict().items() if words}
        clause = _Clause(kind, tuple(items), said, about, nations, match[0], bool(kinds))
        if (meant := _MEANINGS.get(kind, _word)(clause)) is not None:
            about = _SUBJECTS.get(kind) or clause.names
            return _Meaning(kind, *meant, about, clause.numbers, match.end())
    return None
