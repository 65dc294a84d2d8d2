"""Whether a briefing's words say what its prompt's figures say: risk words, trends, the phase, and all in `_FINDERS`.

A rule looks for a closed list of words in one text, upper and lower case alike, and holds where those that it finds
are exactly what the figures give: a wrong one fails, and so does none. Other words for the same thing are not known
to it: a briefing that uses them fails by silence, not by falsehood.
"""

import re
from collections.abc import Callable, Mapping, Set
from decimal import Decimal

from cic.confidence import CAP
from cic.criticality import PHASES
from elle.briefings.cic_figures import CicFigures, match_word, net_words, state_words, warning_words
from elle.briefings.metrics import CONTINGENCY, RISK_WORDS, STRESS, TRENDS, Metrics, risk_band, signal_density
from elle.briefings.scenario import COUNTRIES
from elle.briefings.schema import CATEGORIES
from elle.evaluation.parsing import Text

#: Risk word → its band, by the first of its words.
_BANDS = {word: words[0] for _, words in RISK_WORDS for word in words}
#: Words for a move → the move, as the prompt's arrows have it.
_MOVES = {
    **dict.fromkeys(("rising", "growing", "increasing", "escalating"), "rising"),
    **dict.fromkeys(("falling", "shrinking", "decreasing", "declining"), "falling"),
    **dict.fromkeys(("steady", "level", "stable", "unchanged"), "steady"),
}
_RISK_WORDS, _MOVE_WORDS = frozenset(_BANDS), frozenset(_MOVES)
_PHASES = frozenset(phase.lower() for phase in PHASES)
_NO_PHASE = re.compile(r"\bundefined\b|\bno phase\b|\bnot defined\b")
_CODE = re.compile(r"(?<![^\W\d_])[A-Z]{3}(?![^\W\d_])")
_CONCERNS = re.compile(r"(?:concerns?|led by)\b([^;.]*)", re.IGNORECASE)
_CAP = Decimal(str(CAP))
_EMPTY = Text("", "", frozenset())

#: Finds what a text says about one thing.
_Finder = Callable[[Text, Metrics], Set[str]]


def _words(*words: str) -> _Finder:
    """Finds these words."""
    known = frozenset(words)
    return lambda text, _: known & text.words


def _phrases(pattern: str, hint: str, senses: Mapping[str, str] | None = None) -> _Finder:
    """Finds the only group of a pattern, as itself or as its sense, in a text that holds the word `hint`."""
    compiled = re.compile(pattern)

    def find(text: Text, _: Metrics) -> Set[str]:
        if hint not in text.words:
            return frozenset()
        phrases = compiled.findall(text.lower)
        return set(phrases) if senses is None else {senses[phrase] for phrase in phrases}

    return find


def _either(*finders: _Finder) -> _Finder:
    """Finds what any of these finds."""
    return lambda text, metrics: frozenset().union(*(find(text, metrics) for find in finders))


def _moves(text: Text, _: Metrics | None = None) -> Set[str]:
    return {_MOVES[word] for word in _MOVE_WORDS & text.words}


def _nations(text: str, metrics: Metrics) -> Set[str]:
    """The nations that a text names."""
    known = {code for code, _ in metrics.nations}
    return {code for code in _CODE.findall(text) if code in known or code in COUNTRIES}


_TRANSITIONS = {"transition": "yes", "no transition": "no", "no recent transition": "no"}
#: (The text that says it, the thing) → what finds the words for it, in the order of the reasons.
_FINDERS: dict[tuple[str, str], _Finder] = {
    ("financial", "stress"): _phrases(r"\b(under|no) stress\b", "stress"),
    ("summary", "key concerns"): lambda text, metrics: _nations(" ".join(_CONCERNS.findall(text.text)), metrics),
    ("summary", "overall risk"): _phrases(rf"\boverall[^.;:]{{0,60}}?\b({'|'.join(_BANDS)})\b", "overall", _BANDS),
    ("summary", "signal density"): _phrases(r"\bdensity(?: is)?:? (high|moderate|low)\b", "density"),
    ("nsm", "plans"): _words("contingency", "routine"),
    ("cic_assessment", "F"): _words("undefined"),
    ("cic_assessment", "net"): _moves,
    ("phase_assessment", "temperature"): _either(_words("hotter", "cooler"), _phrases(r"\b(as hot)\b", "hot")),
    ("phase_assessment", "order"): _phrases(r"\b((?:more|less|as) ordered)\b", "ordered"),
    ("phase_assessment", "early warning"): _either(
        _phrases(r"\b((?:no )?early warning)\b", "early"),
        _phrases(r"\b(mixed signals|signals (?:low|high))\b", "signals"),
    ),
    ("phase_assessment", "transition"): _phrases(r"\b((?:no (?:recent )?)?transition)\b", "transition", _TRANSITIONS),
    ("confidence_bounds", "cap"): lambda text, _: {"capped"} if text.words & {"cap", "capped"} else set(),
    ("historical_parallel", "match"): _words("close", "loose", "weak"),
}


def _expected(metrics: Metrics) -> dict[tuple[str, str], Set[str]]:
    """What the words should say of each thing that the figures determine."""
    expected: dict[tuple[str, str], Set[str]] = {
        ("financial", "stress"): {"under" if metrics.categories["financial"][0] > STRESS else "no"},
        ("nsm", "plans"): {"contingency" if (metrics.mean or 0) > CONTINGENCY else "routine"},
    }
    if metrics.nations:
        expected["summary", "key concerns"] = {code for code, _ in metrics.above_half}
        expected["summary", "overall risk"] = {risk_band(metrics.mean)[0]}
    if metrics.articles is not None:
        expected["summary", "signal density"] = {signal_density(metrics.articles).lower()}
    return expected | _cic_expected(metrics.cic) if metrics.cic else expected


def _cic_expected(cic: CicFigures) -> dict[tuple[str, str], Set[str]]:
    values, warning = cic.values, warning_words(cic.values).lower()
    transition = {"yes"} if "transition" in values else {"no"} if "temperature" in values else set()
    expected: dict[tuple[str, str], Set[str]] = {
        ("cic_assessment", "F"): set() if "Φ" in values else {"undefined"},
        ("phase_assessment", "early warning"): {warning} if warning else set(),
        ("phase_assessment", "transition"): transition,
        ("confidence_bounds", "cap"): {"capped"} if values["agreement"] > _CAP else set(),
        ("historical_parallel", "match"): {match_word(values["distance"])},
    }
    if "Φ" in values:
        expected["cic_assessment", "net"] = {_MOVES[net_words(values["balance"])[0]]}
    if cic.phase is not None:
        heat, order = state_words(values)
        expected["phase_assessment", "temperature"] = {heat}
        expected["phase_assessment", "order"] = {order}
    return expected


def word_faults(texts: Mapping[str, Text], metrics: Metrics) -> tuple[dict[str, str], dict[str, str], int]:
    """What is wrong with the words of `texts`: (category → with its risk words, "key, thing" → with what it says of the
    things that the figures determine, the number of these things: what a rule finds, six trends, and the focus)."""
    risk, wrong = {}, {}
    for name in CATEGORIES:
        value, arrow = metrics.categories[name]
        text = texts.get(name, _EMPTY)
        used = _RISK_WORDS & text.words
        if not used:
            risk[name] = "no risk word"
        elif others := sorted(used.difference(risk_band(value))):
            risk[name] = f"risk word {', '.join(others)} for {value}"
        if (moves := _moves(text)) != {TRENDS[arrow]}:
            wrong[f"{name}, trend"] = f"{_named(moves)}, not {TRENDS[arrow]}"
    expected = _expected(metrics)
    for (key, thing), find in _FINDERS.items():
        if (right := expected.get((key, thing))) is not None:
            written = find(texts.get(key, _EMPTY), metrics)
            if written != right:
                wrong[f"{key}, {thing}"] = f"{_named(written)}, not {_named(right)}"
    named = _nations(texts.get("nsm", _EMPTY).text, metrics)
    if not _in_focus(named, metrics):
        first = " and ".join(code for code, _ in metrics.nations[:2])
        wrong["nsm, focus"] = f"{_named(named)}, not {first or 'nothing'}"
    return risk, wrong, len(expected) + len(CATEGORIES) + 1


def _in_focus(named: Set[str], metrics: Metrics) -> bool:
    """Whether these are the two highest; any two of them where several are as high as the second."""
    first = metrics.nations[:2]
    if named == {code for code, _ in first}:
        return True
    if len(named) != 2 or len(first) < 2:
        return False
    risks = dict(metrics.nations)
    return sorted((risks.get(code, -1) for code in named), reverse=True) == [risk for _, risk in first]


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


def _named(words: Set[str]) -> str:
    return " and ".join(sorted(words)) or "nothing"
