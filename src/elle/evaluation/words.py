"""Whether a briefing's words say what its prompt's figures say: risk words, the phase, and the words of `RULES`.

A rule looks for a closed list of words in one text, upper and lower case alike, and holds where those that it finds
are exactly what the figures give: a wrong one fails, and so does none. Other words for the same thing are not known
to it: a briefing that uses them fails by silence, not by falsehood.
"""

import re
from collections.abc import Callable, Mapping, Set
from decimal import Decimal
from typing import NamedTuple

from cic.confidence import CAP
from cic.criticality import PHASES
from elle.briefings import cic_writer
from elle.briefings.metrics import RISK_WORDS, TRENDS, Metrics, signal_density
from elle.briefings.scenario import COUNTRIES
from elle.briefings.schema import CATEGORIES

#: Risk word → its band, by the first of its words.
_BANDS = {word: words[0] for _, words in RISK_WORDS for word in words}
#: Words for a move → the move, as the prompt's arrows have it.
MOVES = {
    "rising": ("rising", "growing", "increasing", "escalating"),
    "falling": ("falling", "shrinking", "decreasing", "declining"),
    "steady": ("steady", "level", "stable", "unchanged"),
}
_MOVE = {word: move for move, words in MOVES.items() for word in words}
_RISK_WORDS, _MOVE_WORDS = frozenset(_BANDS), frozenset(_MOVE)
_PHASES = frozenset(phase.lower() for phase in PHASES)
#: Above this financial risk, stress; above this mean, contingency plans.
STRESS, CONTINGENCY = 60, 50
_CAP = Decimal(str(CAP))

# A word in lower case: letters, for speed by what they are not (ASCII but a-z, and the punctuation of other blocks).
_WORD = re.compile(r"crisis-level|[^\x00-`{-\xbf\xd7\xf7\u2000-\u206f\u2190-\u22ff\u3000-\u303f\uff00-\uff20]+")
_NO_PHASE = re.compile(r"\bundefined\b|\bno phase\b|\bnot defined\b")
_CODE = re.compile(r"(?<![^\W\d_])[A-Z]{3}(?![^\W\d_])")

#: What a text says, or should say, about one thing.
Said = frozenset[str]


class Text(NamedTuple):
    """A text as written, in lower case, and the words of it, in lower case."""

    text: str
    lower: str
    words: frozenset[str]


_EMPTY = Text("", "", frozenset())


def read_words(texts: Mapping[str, str]) -> dict[str, Text]:
    """What the rules read, by key."""
    result = {}
    for key, text in texts.items():
        lower = text.lower()
        result[key] = Text(text, lower, frozenset(_WORD.findall(lower)))
    return result


class Rule(NamedTuple):
    """One thing that words say. key: the text that says it; needs: whether the figures of a prompt determine it;
    expected: what they give; found: what a text says."""

    name: str
    key: str
    needs: Callable[[Metrics], bool]
    expected: Callable[[Metrics], Said]
    found: Callable[[Text, Metrics], Said]


def _words(*words: str) -> Callable[[Text, Metrics], Said]:
    """Finds these words."""
    known = frozenset(words)
    return lambda text, _: known & text.words


def _phrases(pattern: str, hint: str, senses: Mapping[str, str] | None = None) -> Callable[[Text, Metrics], Said]:
    """Finds the only group of a pattern, as itself or as its sense, in a text that holds the word `hint`."""
    compiled = re.compile(pattern)

    def found(text: Text, _: Metrics) -> Said:
        if hint not in text.words:
            return frozenset()
        phrases = compiled.findall(text.lower)
        return frozenset(phrases) if senses is None else frozenset(senses[phrase] for phrase in phrases)

    return found


def _just(word: str) -> Said:
    return frozenset((word,)) if word else frozenset()


def _moves(text: Text, _: Metrics | None = None) -> Said:
    return frozenset(_MOVE[word] for word in _MOVE_WORDS & text.words)


def _nations(text: str, metrics: Metrics) -> Said:
    """The nations that a text names."""
    known = {code for code, _ in metrics.nations}
    return frozenset(code for code in _CODE.findall(text) if code in known or code in COUNTRIES)


_CONCERNS = re.compile(r"(?:concerns?|led by)\b([^;.]*)", re.IGNORECASE)


def _concerns(text: Text, metrics: Metrics) -> Said:
    return _nations(" ".join(_CONCERNS.findall(text.text)), metrics)


def _band(risk: int) -> str:
    return next(words[0] for bound, words in RISK_WORDS if risk < bound)


def _always(metrics: Metrics) -> bool:
    return True


_overall = _phrases(rf"\boverall[^.;:]{{0,60}}?\b({'|'.join(_BANDS)})\b", "overall", _BANDS)
_as_hot = _phrases(r"\b(as hot)\b", "hot")
_early = _phrases(r"\b((?:no )?early warning)\b", "early")
_signals = _phrases(r"\b(mixed signals|signals (?:low|high))\b", "signals")
_hotter = _words("hotter", "cooler")


def _heat(text: Text, metrics: Metrics) -> Said:
    return _hotter(text, metrics) | _as_hot(text, metrics)


def _warning(text: Text, metrics: Metrics) -> Said:
    return _early(text, metrics) | _signals(text, metrics)


RULES = (
    Rule(
        "stress",
        "financial",
        _always,
        lambda m: _just("under" if m.categories["financial"][0] > STRESS else "no"),
        _phrases(r"\b(under|no) stress\b", "stress"),
    ),
    Rule(
        "key concerns",
        "summary",
        lambda m: bool(m.nations),
        lambda m: frozenset(code for code, _ in m.above_half),
        _concerns,
    ),
    Rule("overall risk", "summary", lambda m: bool(m.nations), lambda m: _just(_band(m.mean)), _overall),
    Rule(
        "signal density",
        "summary",
        lambda m: m.articles is not None,
        lambda m: _just(signal_density(m.articles).lower()),
        _phrases(r"\bdensity(?: is)?:? (high|moderate|low)\b", "density"),
    ),
    Rule(
        "plans",
        "nsm",
        _always,
        lambda m: _just("contingency" if (m.mean or 0) > CONTINGENCY else "routine"),
        _words("contingency", "routine"),
    ),
)

CIC_RULES = (
    Rule(
        "F",
        "cic_assessment",
        _always,
        lambda m: _just("" if "Φ" in m.cic.values else "undefined"),
        _words("undefined"),
    ),
    Rule(
        "net",
        "cic_assessment",
        lambda m: "Φ" in m.cic.values,
        lambda m: _just(_MOVE[cic_writer.net_words(m.cic.values["balance"])[0]]),
        _moves,
    ),
    Rule(
        "temperature",
        "phase_assessment",
        lambda m: m.cic.phase is not None,
        lambda m: _just(cic_writer.state_words(m.cic.values)[0]),
        _heat,
    ),
    Rule(
        "order",
        "phase_assessment",
        lambda m: m.cic.phase is not None,
        lambda m: _just(cic_writer.state_words(m.cic.values)[1]),
        _phrases(r"\b((?:more|less|as) ordered)\b", "ordered"),
    ),
    Rule(
        "early warning",
        "phase_assessment",
        _always,
        lambda m: _just(cic_writer.warning_words(m.cic.values).lower()),
        _warning,
    ),
    Rule(
        "transition",
        "phase_assessment",
        _always,
        lambda m: _just("yes" if "transition" in m.cic.values else "no" if "temperature" in m.cic.values else ""),
        _phrases(
            r"\b((?:no (?:recent )?)?transition)\b",
            "transition",
            {"transition": "yes", "no transition": "no", "no recent transition": "no"},
        ),
    ),
    Rule(
        "cap",
        "confidence_bounds",
        _always,
        lambda m: _just("capped" if m.cic.values["agreement"] > _CAP else ""),
        lambda text, _: _just("capped" if text.words & {"cap", "capped"} else ""),
    ),
    Rule(
        "match",
        "historical_parallel",
        _always,
        lambda m: _just(cic_writer.match_word(m.cic.values["distance"])),
        _words("close", "loose", "weak"),
    ),
)
ALL_RULES = (*RULES, *CIC_RULES)


def faults(texts: Mapping[str, Text], metrics: Metrics) -> tuple[dict[str, str], dict[str, str]]:
    """What is wrong with the words of `texts`: (category → with its risk words, "key, rule" → with what it says of the
    `count` things that the figures determine)."""
    risk, wrong = {}, {}
    for name in CATEGORIES:
        value, arrow = metrics.categories[name]
        text = texts.get(name, _EMPTY)
        band, used = _band(value), _RISK_WORDS & text.words
        if not used:
            risk[name] = "no risk word"
        elif others := sorted(word for word in used if _BANDS[word] != band):
            risk[name] = f"risk word {', '.join(others)} for {value}"
        if (moves := _moves(text)) != {TRENDS[arrow]}:
            wrong[f"{name}, trend"] = f"{_named(moves)}, not {TRENDS[arrow]}"
    for rule in _determined(metrics):
        expected, found = rule.expected(metrics), rule.found(texts.get(rule.key, _EMPTY), metrics)
        if found != expected:
            wrong[f"{rule.key}, {rule.name}"] = f"{_named(found)}, not {_named(expected)}"
    named = _nations(texts.get("nsm", _EMPTY).text, metrics)
    if not _in_focus(named, metrics):
        first = " and ".join(code for code, _ in metrics.nations[:2])
        wrong["nsm, focus"] = f"{_named(named)}, not {first or 'nothing'}"
    return risk, wrong


def _in_focus(named: Said, metrics: Metrics) -> bool:
    """Whether these are the two highest; any two of them where several are as high as the second."""
    first = metrics.nations[:2]
    if named == {code for code, _ in first}:
        return True
    if len(named) != 2 or len(first) < 2:
        return False
    risks = dict(metrics.nations)
    return sorted((risks.get(code, -1) for code in named), reverse=True) == [risk for _, risk in first]


def count(metrics: Metrics) -> int:
    """How many things the figures determine: the rules that apply, six trends, and the focus."""
    return len(_determined(metrics)) + len(CATEGORIES) + 1


def _determined(metrics: Metrics) -> list[Rule]:
    return [rule for rule in (ALL_RULES if metrics.cic else RULES) if rule.needs(metrics)]


def phase_fault(texts: Mapping[str, Text], metrics: Metrics) -> str:
    """What is wrong with the phase that a CIC briefing names, "" where nothing is.

    It must be named in `phase_assessment`, and no other phase in any text. Where the prompt has none, no text may name
    one, and `phase_assessment` must say that there is none ("undefined", "not defined", "no phase").
    """
    text = texts.get("phase_assessment", _EMPTY)
    right = (metrics.cic.phase or "").lower()
    named = {phase for each in texts.values() for phase in _PHASES & each.words}
    if others := sorted(named - {right}):
        return f"names {', '.join(others).upper()}; the phase is {metrics.cic.phase or 'undefined'}"
    none = _NO_PHASE.search(text.lower)
    if not right:
        return "" if none else "does not say that the phase is undefined"
    if right not in text.words:
        return f"the phase, {metrics.cic.phase}, is not named"
    return "says that the phase is undefined" if none else ""


def _named(said: Set[str]) -> str:
    return " and ".join(sorted(said)) or "nothing"
