"""The grammar of briefings, compiled from `configs/grammar.yaml`: its forms as patterns over skeletons.

A skeleton is a text whose tokens (numbers with their unit, nations, analogues) are one letter each, the letters below.
"""

import re
from collections.abc import Iterable

from cic.criticality import PHASES
from elle.base.yaml_files import config_table
from elle.briefings.cic_figures import DERIVED
from elle.briefings.cic_figures import NAMES as CIC_NAMES
from elle.briefings.metrics import RISK_WORDS, SIGNALS
from elle.briefings.schema import CATEGORIES

#: The letters of tokens: numbers by their unit, nations, analogues. Thousands: 134.000, which some write for 134,000.
PLAIN, PERCENT, HUNDREDTHS, THOUSANDS, MONTHS, AGO, POINTS, NATION, ANALOGUE = LETTERS = "".join(
    map(chr, range(0xE000, 0xE009))
)
UNIT_OF = {PLAIN: "", PERCENT: "%", HUNDREDTHS: "/100", THOUSANDS: "thousands"}
UNIT_OF |= {MONTHS: "months", AGO: "months ago", POINTS: "points"}
NUMERIC = "".join(UNIT_OF)
_PLAINLY = PLAIN + PERCENT + HUNDREDTHS + THOUSANDS
NUMBER = f"[{_PLAINLY}]"
#: What Unicode calls a dash, a hyphen or a minus sign, for a set of a pattern.
DASHES = (
    "-\u02d7\u058a\u05be\u1400\u1806\u2010-\u2015\u2043\u2052\u207b\u208b\u2212\u2796\u2e17\u2e1a\u2e3a\u2e3b\u2e40\u2e5d"
    "\u301c\u3030\u30a0\ufe31\ufe32\ufe58\ufe63\uff0d\U00010ead"
)
_TABLE = config_table("grammar")
_FLAGS = re.ASCII  # no letter of another script counts as one of these


def any_of(phrases: Iterable[str]) -> str:
    """A pattern for one of them; of two that begin alike, the longer one."""
    return "|".join(sorted(phrases, key=len, reverse=True))


_SYMBOLS = frozenset(name for name in (*CIC_NAMES, *DERIVED) if len(name) <= 2)
_CAPITALS = re.compile(rf"((?<![^\W_])(?:{any_of(_SYMBOLS)})(?![^\W_]))|[A-Z]+", _FLAGS)


def lowered(text: str) -> str:
    """The same in lower case, but for symbols, which are read as printed: "C" is one, "c" is not. (Patterns that tell
    upper from lower case skip more at their first letter.)"""
    return _CAPITALS.sub(lambda match: match[0] if match[1] else match[0].lower(), text)


#: Everyday name → code.
NATIONS = {name: code for code, names in _TABLE["nations"].items() for name in names.split("|")}
#: Kind of word → phrase in lower case → sense.
WORDS = {
    kind: {lowered(phrase): sense for sense, phrases in senses.items() for phrase in phrases.split("|")}
    for kind, senses in _TABLE["words"].items()
}
WORDS["band"] = {word: words[0] for _, words in RISK_WORDS for word in words}
WORDS["phase"] = {phase.lower(): phase.lower() for phase in PHASES}

#: What words say of one thing each.
KINDS = frozenset((*WORDS, "overall")) - {"relation", "extreme", "quantity"}

_ALSO = {other: name for name, others in _TABLE["names"].items() for other in others.split("|")}
#: Spelling of a name in `ITEMS` → the metric that it stands for.
METRIC_OF = {
    lowered(spelling): metric
    for spelling, metric in (
        *(
            (name, name)
            for name in (*SIGNALS, *CATEGORIES, *CIC_NAMES, *DERIVED, "mean", "stability index", "nations listed")
        ),
        *_ALSO.items(),
    )
}
_BASE = rf"(?:{NATION}|(?<![^\W_])(?:{any_of(METRIC_OF)})(?![^\W_]))"
_NOUN, _LINK = (any_of(_TABLE[name].split("|")) for name in ("noun", "link"))
_NAME = rf"(?:(?:the|a) )?(?:risk (?:of|in|for) )?{_BASE}(?:['’]s)?(?: (?:{_NOUN}))?"
_AND = r"(?:, and |, | and )"
_LISTED = rf"(?:the )?{NATION}(?:(?: at| with)? {NUMBER}| \({NUMBER}\)|: {NUMBER})?"
_SYMBOL = f"(?:{any_of((*_SYMBOLS, 'net'))})"
_TERM = rf"(?:(?:{NUMBER} ?[·*×] ?)?{_SYMBOL}(?: {NUMBER})?|{NUMBER})"
_SIDE = rf"{_TERM}(?: [{DASHES}+] {_TERM})*"
_SLOTS = {
    "number": NUMBER,
    "numbers": rf"{NUMBER}(?:(?:{_AND}| against | versus ){NUMBER})+",
    "months": MONTHS,
    "ago": AGO,
    "points": POINTS,
    "nation": f"(?:the )?{NATION}",
    "analogue": f"(?:the )?{ANALOGUE}",
    "name": _NAME,
    "names": f"(?:both )?{_NAME}(?:{_AND}{_NAME})+",
    "category": f"(?:the )?(?:{'|'.join(CATEGORIES)})(?: (?:{_NOUN}))?",
    "listed": f"{_LISTED}(?:{_AND}{_LISTED})*",
    "equation": f"{_SIDE}(?: = {_SIDE})+",
    "link": f"(?::|(?: (?:{_LINK}))?)",
    "not": "not",
} | {kind: any_of(map(re.escape, phrases)) for kind, phrases in WORDS.items()}
_GROUPS = frozenset(WORDS) | {"not"}

#: A term of a sum: sign, factor, name, the name's number, or a number alone.
TERMS = re.compile(
    rf"(?:(?:\A| )([{DASHES}+]) )?(?:({NUMBER}) ?[·*×] ?)?(?:({_SYMBOL})(?: ({NUMBER}))?|({NUMBER}))", _FLAGS
)
#: A token's letter; a number's.
TOKENS, NUMBERS = re.compile(f"[{LETTERS}]"), re.compile(f"[{NUMERIC}]")
#: What a clause speaks of: figures' names and tokens.
ITEMS = re.compile(f"{_BASE}|[{NUMERIC}{ANALOGUE}]", _FLAGS)
#: What stands between two clauses; a punctuation mark; the end of a sentence.
JOIN = re.compile(rf"\)?[,;:]?(?: (?:{_TABLE['join']}))* \(?|\)?[,;:]?\Z", _FLAGS)
MARK = re.compile(r"[,;:()]")
SENTENCE_END = re.compile(r"[.!](?:\s+|\Z)|(?<!\s)\s*\n\s*")  # the look behind: a run of blanks is tried once


def _pattern(form: str) -> re.Pattern[str]:
    """A form of the table as a pattern that ends where a clause may end; its words are groups by their kind."""
    form = re.sub(r"(?<!\\)\((?!\?)", "(?:", re.sub(r"\[([^\]]*)\]", r"(?:\1)?", lowered(form)))

    def slot(match: re.Match[str]) -> str:
        name = match[1]
        return f"(?P<{name}>{_SLOTS[name]})" if name in _GROUPS else f"(?:{_SLOTS[name]})"

    return re.compile(re.sub(r"\{(\w+)\}", slot, form) + r"(?=[,;:) ]|\Z)", _FLAGS)


def _starts(phrases: Iterable[str]) -> set[str]:
    """The first two letters of each; of a token or a symbol the only one."""
    return {lowered(phrase)[:2] for phrase in phrases}


_STARTS = {
    "number": {*_PLAINLY},
    "numbers": {*_PLAINLY},
    "nation": {"th", NATION},
    "listed": {"th", NATION},
    "analogue": {"th", ANALOGUE},
    "name": _starts(("the", "a ", "risk", NATION, *METRIC_OF)),
    "category": _starts(("the", *CATEGORIES)),
    "equation": _starts((*_PLAINLY, "net", *_SYMBOLS)),
    **{kind: _starts(phrases) for kind, phrases in WORDS.items()},
}
_STARTS["names"] = {"bo", *_STARTS["name"]}


def _start(form: str) -> set[str]:
    """The letters that a clause of this form may begin with, two where they are known."""
    if not form:
        return set()
    if form[0] not in "[({":
        return _starts([form.lstrip("\\")])
    end = form.index("])}"["[({".index(form[0])])
    inside, rest = form[1:end], form[end + 1 :]
    if form[0] == "{":
        return _STARTS.get(inside) or _starts([_SLOTS[inside]])
    if inside.startswith("?<="):
        return _start(rest)
    parts = inside.split("|")
    found = set().union(*map(_start, parts))
    return found | _start(rest) if form[0] == "[" or "" in parts else found


_FORMS = [(kind, _start(form), _pattern(form)) for kind, forms in _TABLE["forms"].items() for form in forms]
#: First one or two letters of a clause → the forms that it may have: (kind of statement, pattern).
FORMS = {
    letters: [(kind, pattern) for kind, starts, pattern in _FORMS if letters in starts or letters[0] in starts]
    for letters in set().union(*(starts for _, starts, _ in _FORMS))
}
_OTHERS = [str(each) for name, each in _TABLE.items() if name != "nations"]
#: Every word of the grammar, in lower case, but for the nations.
VOCABULARY = frozenset(re.findall(r"[^\W\d_]+", " ".join((*_OTHERS, *WORDS["band"], *PHASES, *METRIC_OF)).lower()))
