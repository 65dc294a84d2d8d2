"""Answers made wrong on purpose, to judge the judge: one changed digit, one change that makes a text false, damage of
every kind, endless repetitions."""

import functools
import itertools
import json
import operator
import random
import re
from collections.abc import Callable, Iterable, Sequence
from decimal import Decimal
from functools import partial
from typing import NamedTuple

from cic.analogues import CORRELATES
from cic.criticality import PHASES
from elle.base import storage
from elle.briefings.cic_figures import DERIVED, NAMES
from elle.briefings.metrics import (
    RISK_WORDS,
    SIGNALS,
    STRESS,
    TRENDS,
    UNITS,
    derived_figures,
    parse,
    printed_figures,
    risk_band,
    risk_words,
    words_of,
)
from elle.briefings.schema import CATEGORIES
from elle.evaluation.grammar import NATIONS

_DIGIT = re.compile(r"[0-9]")
#: What is thrown into an output: JSON's own marks, numbers, names, invisible and other-script characters.
JUNK = (
    *'{}[]":,\\\n\t\0 ', "\\u", "\\ud800", "\ud800", "\\n", '\\"', "NaN", "-Infinity", "1e999", "null", "true",
    "```json\n", "40", "-3.1", "4,000", "1.2.3", "99999999999999999999", "%", " million", "４０", "٤", "½",
    "\u200b", "\u202e", "\ufeff", "é", "😀", "Φ", "λH", "UKR", "FRA", "political", "exceed 50%", "confidence 0.97",
    "97% sure", "PLASMA", "Tulip Mania 1634–1637", "rising", "no early warning", "Vienna accord", "3 March 2031", "İ",
    "ß", "\u0301", "{}", "[[", '{"a":',
)  # fmt: skip
#: What a hostile output of any length is made of.
ENDLESS = (
    *'"{}[],:\\ 9.é', '{"', '{"a":', '{"a"}', '{"\\"', "1,", "9 ", "political 4 ", "UKR ", "Vienna ",
    "Great Depression ", "1929–1939 ", "in 1931 ", "confidence 0.97 ", "confidence ", "97% ", "sure 5 a ", "minus ",
    "tau variance prior ", "1,234", "4½", "\u200b4", "overall ", "no transition ", "key concerns ", "exceed 50% ",
    "\\u0034", "\\ud800", "```json",
)  # fmt: skip


def change_digit(text: str, pick: random.Random) -> str:
    """`text` with one of its digits 0-9 changed to another.

    Raises:
        ValueError: it has none.
    """
    places = [found.start() for found in _DIGIT.finditer(text)]
    if not places:
        raise ValueError("there is no digit to change")
    place = pick.choice(places)
    digit = pick.choice([digit for digit in "0123456789" if digit != text[place]])
    return text[:place] + digit + text[place + 1 :]


def damage(text: str, pick: random.Random) -> str:
    """`text` after one to four damages: characters lost, doubled, turned, replaced; junk; bits; nesting; fences."""
    for _ in range(pick.randint(1, 4)):
        start = pick.randrange(len(text) + 1)
        stop = min(len(text), start + pick.choice((1, 1, 2, 5, 40, 400)))
        kind = pick.randrange(10)
        if kind == 0:
            text = text[:start] + text[stop:]
        elif kind == 1:
            text = text[:stop] + text[start:]
        elif kind == 2:
            text = text[:start] + text[start:stop][::-1] + text[stop:]
        elif kind == 3:
            text = text[:start] + pick.choice(JUNK) + text[start:]
        elif kind == 4:
            text = text[:start] + pick.choice(JUNK) * pick.choice((2, 50, 2000)) + text[stop:]
        elif kind == 5:
            text = text[:start]
        elif kind == 6:  # a bit of a byte
            data = bytearray(text.encode(errors="surrogatepass"))
            if data:
                data[pick.randrange(len(data))] ^= 1 << pick.randrange(8)
            text = data.decode(errors="surrogateescape")
        elif kind == 7:
            depth = pick.choice((1, 31, 32, 33, 2000))
            text = text[:start] + '{"a":' * depth + text[start:stop] + "}" * depth + text[stop:]
        elif kind == 8:
            text = (
                text[:start]
                + "".join(chr(pick.choice((pick.randrange(128), pick.randrange(0x110000)))) for _ in "12345")
                + text[stop:]
            )
        else:
            text = (
                pick.choice(("```json\n", "Here: ", "[", '"', "\ufeff", "{"))
                + text
                + pick.choice(("\n```", " Done.", "]", '"', "}", ""))
            )
    return text


def endless(unit: str, size: int, key: str | None = None) -> str:
    """`unit` over and over, `size` characters; with a key: as its text, in an object (JSON, if the unit allows)."""
    text = (unit * (size // len(unit) + 1))[:size]
    return text if key is None else f'{{"{key}":"{text}"}}'


# --- False by one change, which the prompt's figures are asked about -------------------------------------------------

#: A passage of an answer put otherwise: key, start, end, what stands there then.
_Edit = tuple[str, int, int, str]
_SCORES, _SHARES = (*CATEGORIES, "mean", "stability index"), ("agreement", "confidence", "decayed")
_COUNTS = {"nations listed": r"\d+(?= nations? listed)", "exceed 50%": r"\d+(?= exceeds? 50%)"}
_SYMBOLS = [name for name in (*NAMES, *DERIVED) if len(name) <= 2]
_LONG = [name for name in (*SIGNALS, *_SCORES, *NAMES, *DERIVED) if len(name) > 2]
_FIGURE = re.compile(
    rf"(?<!\w)([A-Z]{{3}}|{'|'.join(_SYMBOLS)}|(?i:{'|'.join(sorted(_LONG, key=len, reverse=True))})) "
    r"(-?\d+(?:\.\d+)?)(%| months?(?: ago)?|)"
)
#: True sentences about a figure.
_RESTATED = (
    "{name} is {number}.", "{name} stands at {number}.", "{name}: {number}.", "The {name} is at {number}.",
    "{name} comes to {number}.", "{name} ({number}).", "{name}, at {number}.", "With {name} at {number}.",
)  # fmt: skip
_RESTATED_OF = {
    "nations listed": ("{number} nations are listed.",),
    "exceed 50%": ("{number} nations are above 50%.",),
    "articles": ("There are {number} {name}.", *_RESTATED[:2]),
    "alerts": ("There are {number} {name}.", *_RESTATED[:2]),
    "transition": ("The last {name} was {number}.",),
    "horizon": ("{name}: {number}.", "The {name} is {number}."),
}


class Place(NamedTuple):
    """A figure in an answer. name: (start, end) of its name in the text under `key`, None of a count; span: of its
    number with the unit; number, unit: these, as written."""

    key: str
    metric: str
    name: tuple[int, int] | None
    span: tuple[int, int]
    number: str
    unit: str

    @property
    def value(self) -> Decimal:
        return Decimal(self.number)

    def put(self, template: str) -> list[_Edit]:
        """The number as `template` has it: {n} without its unit {u}, {N} with it, {a} without its sign."""
        fields = {"n": self.number, "u": self.unit, "N": self.number + self.unit, "a": self.number.lstrip("-")}
        return [(self.key, *self.span, template.format(**fields))]


class Target:
    """A right answer that is to be made false. true: the value of each figure that its prompt gives; risks: of its
    nations; words: what should be said (`words_of`)."""

    def __init__(self, prompt: str, answer: str, pick: random.Random):
        self.metrics, self.texts, self.pick = parse(prompt), json.loads(answer), pick
        figures = printed_figures(self.metrics) | derived_figures(self.metrics)
        self.true = {name: value for name, value in figures.items() if isinstance(value, Decimal)}
        self.risks, self.words = dict(self.metrics.nations), words_of(self.metrics)
        families = [[*CATEGORIES], [*self.risks], [*self.risks, "mean"], [*_SHARES], ["Φ", "net", "F"]]
        families += [["temperature", "prior temperature"], ["order", "prior order"]]
        self.families = [family for family in families if self.true.keys() >= {*family}]

    def places(self) -> list[Place]:
        """Its figures that are right."""
        found = []
        for key, text in self.texts.items():
            for match in _FIGURE.finditer(text):
                metric = match[1] if match[1] in (*_SYMBOLS, *self.risks) else match[1].lower()
                found.append(Place(key, metric, match.span(1), (match.start(2), match.end()), match[2], match[3]))
            for metric, pattern in _COUNTS.items():
                found += [Place(key, metric, None, match.span(), match[0], "") for match in re.finditer(pattern, text)]
        return [place for place in found if self.true.get(place.metric) == place.value]

    def place(self, fits: Callable[[Place], bool] = bool, anew: float = 0.5) -> Place | None:
        """One of its figures that fit; `anew` of the time in a true sentence that is added for it."""
        places = [place for place in self.places() if fits(place)]
        if not places:
            return None
        place = self.pick.choice(places)
        return self.restated(place) if self.pick.random() < anew else place

    def restated(self, place: Place) -> Place:
        """The same figure in a further true sentence."""
        scored = place.metric in _SCORES or place.metric in self.risks
        unit = self.pick.choice(("", "%", "/100", " per cent", " out of 100")) if scored else place.unit
        template = self.pick.choice(_RESTATED_OF.get(place.metric, _RESTATED))
        key = self.pick.choice(list(self.texts))
        text, spans = self.texts[key] + " ", {}
        for part in re.split(r"(\{\w+\})", template):
            start = len(text)
            text += {"{name}": place.metric, "{number}": place.number + unit}.get(part, part)
            spans[part] = start, len(text)
        self.texts[key] = text
        return Place(key, place.metric, spans.get("{name}"), spans["{number}"], place.number, unit)

    def add(self, sentence: str) -> list[_Edit]:
        """A sentence behind any of its texts."""
        key, sentence = self.pick.choice(list(self.texts)), sentence.strip()
        return [(key, len(self.texts[key]), len(self.texts[key]), f" {sentence[:1].upper()}{sentence[1:]}")]

    def say(self, forms: Sequence[str], names: Sequence[str], *words: object) -> list[_Edit]:
        """A sentence of one of the forms: {0}, {1} … the names, then their figures, then the words."""
        figures = [f"{self.true[name]}{'%' * (name in self.risks)}" for name in names]
        return self.add(self.pick.choice(forms).format(*names, *figures, *words))

    def change(self, pattern: str, new: Callable[[re.Match], str], keys: Iterable[str] = ()) -> list[_Edit] | None:
        """One of the passages that match, put otherwise."""
        found = [(key, match) for key in keys or self.texts for match in re.finditer(pattern, self.texts.get(key, ""))]
        if not found:
            return None
        key, match = self.pick.choice(found)
        return [(key, *match.span(), new(match))]

    def chosen(self, fits: Callable[..., bool], *families: Sequence[str], count: int = 2) -> tuple[str, ...] | None:
        """Some names of one family, of those given or any, that fit."""
        groups = [itertools.permutations(family, count) for family in families or self.families]
        found = [names for names in itertools.chain(*groups) if fits(*names)]
        return self.pick.choice(found) if found else None

    def differ(self, first: str, second: str) -> bool:
        return self.true.get(first) != self.true.get(second)


#: What makes edits of a target; None: it has nothing of that kind.
_Maker = Callable[[Target], list[_Edit] | None]

# --- unit: what no figure has, then what some have

_UNITS = (
    "{n} thousand", "{n}k", "{n}K", "{n} million", "{n}M", "{n} bn", "{n} hundred", "{n} dozen", "{n}e3", "{n}E-2",
    "{n}‰", "{n}‱", "{n} per mille", "{n} basis points", "{n} points", "{n} percentage points", "{n}%%", "{n}% of GDP",
    "{n} per second", "{n} per day", "{n}/s", "{n} a year", "{n} per capita", "{n} times", "{n}x", "{n}-fold", "{n}th",
    "${n}", "€{n}", "{n} dollars", "{n} USD", "{n} years", "{n} weeks", "{n} weeks ago", "{n} days", "{n}°C", "{n} kg",
    "{n} degrees", "{n} months ahead", "{n}/10", "{n} out of 10", "{n} of 1000", "#{n}", "{n}½", "{n} tenths",
)  # fmt: skip
_SOME_UNITS = {
    "%": ("{n}%", "{n} %", "{n} per cent", "{n} percent", "{n}％"),
    "/100": ("{n}/100", "{n} of 100", "{n} out of 100"),
    "months": ("{n} months", "{n}-month"),
    "months ago": ("{n} months ago",),
}


def _unit(target: Target) -> list[_Edit] | None:
    if (place := target.place(lambda place: place.value != 0)) is None:
        return None
    # A % of a share divides by 100, which changes it.
    has = () if place.metric in _SHARES else UNITS.get("mean" if place.metric in target.risks else place.metric, ())
    some = [template for unit, templates in _SOME_UNITS.items() if unit not in has for template in templates]
    return place.put(target.pick.choice((*_UNITS, *some)))


# --- sign

_DASHED = [f"{dash}{{N}}" for dash in "-−–—‐‑‒―﹣－⁻₋➖─⸺〜֊ー¬¯⊖"]
_NEGATIVE = (
    "minus {N}", "Minus {N}", "negative {N}", "a negative {N}", "-({N})", "(-{N})", "minus ({N})", "±{N}", "+/-{N}",
    "+-{N}", "plus or minus {N}", "∓{N}", "{N} below zero", "{N} in the negative", "{n}-{u}", "0 - {N}", "-1·{N}",
    "less {N}", "minus a {N}", "−\u2009{N}", "-\xa0{N}", "--{N}", "the opposite of {N}",
)  # fmt: skip
_POSITIVE = (
    "{a}{u}", "+{a}{u}", "plus {a}{u}", "positive {a}{u}", "--{a}{u}", "minus -{a}{u}", "±{a}{u}", "-(-{a}{u})",
    "{a}{u} above zero", "|-{a}{u}|", "an absolute {a}{u}", "({a}{u})",
)  # fmt: skip


def _signed(target: Target, templates: Sequence[str]) -> list[_Edit] | None:
    """A minus on a positive number, or one taken from a negative one."""
    sign = -1 if templates is _POSITIVE else 1
    place = target.place(lambda place: sign * place.value > 0)
    return place and place.put(target.pick.choice(templates))


def _turned(target: Target) -> list[_Edit] | None:
    """A sum of the CIC assessment with a minus for its plus, or the other way about."""
    signs = [sign for sign, name in (("-", "λH"), ("+", "γC")) if target.true.get(name)]
    new = {"-": "+", "+": "-"}
    return signs and target.change(rf"(?<= )[{''.join(signs)}](?= )", lambda match: new[match[0]], ["cic_assessment"])


# --- bound: what does not say a figure; what may, but no longer exactly

_FALSE_BOUNDS = (
    "above {N}", "below {N}", "more than {N}", "less than {N}", "over {N}", "under {N}", "beyond {N}", "> {N}", "< {N}",
    "higher than {N}", "lower than {N}", "fewer than {N}", "exceeding {N}", ">{N}", "<{N}", "half of {N}", "half {N}",
    "twice {N}", "double {N}", "a third of {N}", "{N} squared", "{N} times two", "just under {N}", "well above {N}",
    "short of {N}", "no longer {N}", "{N} and counting", "ahead of {N}", "behind {N}", "far from {N}",
)  # fmt: skip
_LOOSE_BOUNDS = (
    "at least {N}", "at most {N}", "no more than {N}", "no less than {N}", "not below {N}", "not above {N}", "≥ {N}",
    "up to {N}", "≤ {N}", ">= {N}", "<= {N}", "about {N}", "around {N}", "roughly {N}", "some {N}", "circa {N}", "≈{N}",
    "~{N}", "{N}+", "{N} or more", "{N} or less", "{N} or so", "{N} ± 5", "{N} +/- 5", "nearly {N}", "almost {N}",
    "between {N} and {N}1", "{N}-{N}1", "{N}–{N}1", "from {N} up", "{N} at most", "a maximum of {N}", "as much as {N}",
    "close to {N}", "in the range of {N}", "not far from {N}", "possibly {N}", "equal to or above {N}",
)  # fmt: skip
_RELATIONS = (
    ("above", operator.gt), ("more than", operator.gt), ("higher than", operator.gt), ("over", operator.gt),
    ("greater than", operator.gt), (">", operator.gt), ("below", operator.lt), ("less than", operator.lt),
    ("lower than", operator.lt), ("under", operator.lt), ("<", operator.lt), ("at least", operator.ge),
    ("no less than", operator.ge), ("not below", operator.ge), ("≥", operator.ge), (">=", operator.ge),
    ("at most", operator.le), ("no more than", operator.le), ("not above", operator.le), ("≤", operator.le),
    ("up to", operator.le), ("equal to", operator.eq), ("level with", operator.eq), ("the same as", operator.eq),
)  # fmt: skip


def _bound(target: Target, templates: Sequence[str]) -> list[_Edit] | None:
    """A loose bound may be true, so it takes the place of the figure that an answer must have."""
    place = target.place(lambda place: place.value != 0, anew=0.5 * (templates is _FALSE_BOUNDS))
    return place and place.put(target.pick.choice(templates))


def _false_bound(target: Target, names: int) -> list[_Edit] | None:
    """A bound that one of so many figures does not keep."""
    pick, family = target.pick, target.pick.choice((CATEGORIES, [*target.risks], target.true.keys() - _COUNTS))
    if len(family) < names:
        return None
    chosen = pick.sample(sorted(family), names)
    near = target.true[pick.choice(chosen)]
    number = near + pick.choice((-20, -3, -1, 0, 1, 3, 20)) * Decimal(1).scaleb(near.as_tuple().exponent)
    false = [word for word, holds in _RELATIONS if not all(holds(target.true[name], number) for name in chosen)]
    one = ("{0} is {1} {2}.", "{0} {1} {2}.", "{0} stands {1} {2}.", "{0} remains {1} {2}.", "The {0}, {1} {2}.")
    two = ("{0} are {1} {2}.", "{0} are both {1} {2}.", "Both {0} stand {1} {2}.", "{0} {1} {2}.")
    form = pick.choice(one if names == 1 else two)
    return target.add(form.format(" and ".join(chosen), pick.choice(false), number)) if false else None


def _false_count(target: Target) -> list[_Edit]:
    """How many nations are above or below some per cent, wrongly."""
    (word, holds), risks, listed = target.pick.choice(_RELATIONS), target.risks.values(), len(target.risks)
    threshold = target.pick.choice((*risks, 50, 50, 30, 70))
    true = sum(holds(risk, threshold) for risk in risks)
    count = target.pick.choice([count for count in range(listed + 2) if count != true])
    forms = ["{0} nations are {2} {3}%.", "{0} of {1} nations {2} {3}%.", "{0} of the {1} listed are {2} {3}%."]
    forms += ["No nation is {2} {3}%.", "None of the nations is {2} {3}%.", "None {2} {3}%."] if true else []
    forms += ["All nations are {2} {3}%.", "All of the nations are {2} {3}%."] if true < listed else []
    return target.say(forms, (), count, listed, word, threshold)


def _other_threshold(target: Target) -> list[_Edit] | None:
    above = len(target.metrics.above_half)
    false = [str(each) for each in range(0, 100, 5) if sum(risk > each for risk in target.risks.values()) != above]
    return false and target.change(r"(?:(?<=exceed )|(?<=exceeds ))50(?=%)", lambda _: target.pick.choice(false))


# --- negation

#: Words that carry meaning, as answers have them.
_WORD = "|".join(
    (
        rf"(?<=is )(?:{'|'.join(word for _, words in RISK_WORDS for word in words)})(?=[,:.])",
        rf"(?<=, )(?:{'|'.join(TRENDS.values())})(?=[.:])",
        r"(?<=net )(?:rising|growing|falling|shrinking|steady|level)",
        r"under stress|no stress|HIGH|MODERATE|LOW|capped|above the cap",
        rf"(?:Phase )?(?:{'|'.join(PHASES)})|hotter|cooler|as hot|(?:more|less|as) ordered",
        r"(?:No e|E)arly warning|Mixed signals|Signals (?:high|low)|(?<=: |, )(?:close|loose|weak)",
        r"(?:No |A )?(?:recent )?[Tt]ransition(?= \d|\.)|undefined|(?<=phase is )defined",
        r"Key concerns|Led by|Focus on|Prioritise|review contingency plans|keep routine monitoring",
        r"(?:(?<=concerns are )|(?<=Led by )|(?<=Focus on )|(?<=Prioritise ))[A-Z]{3}",
    )
)
_NOT = (
    "not ", "no ", "never ", "hardly ", "barely ", "scarcely ", "rarely ", "seldom ", "neither ", "nowhere near ",
    "no longer ", "anything but ", "far from ", "by no means ", "in no way ", "not at all ", "the opposite of ",
    "isn't ", "is not ", "do not ", "don't ", "without ", "lacking ", "least of all ", "NOT ",
)  # fmt: skip
_UN = ("un", "un-", "non-", "non", "in", "dis", "anti-", "not-", "de-", "half-")
_DENIALS = (
    "It is false that ", "It is untrue that ", "It is not the case that ", "It is not true that ", "It is wrong that ",
    "Nobody says that ", "Contrary to the figures, ", "Not: ", "No: ", "False: ", "It cannot be said that ", "Never ",
)  # fmt: skip
_RETRACTIONS = (
    "This is false.", "That is not true.", "None of this holds.", "The opposite is true.", "Not so.", "(Not true.)",
    "No!", "All of it is wrong.", "Or not.", "Disregard this.", "So it was, but no longer is.",
)  # fmt: skip
_NOT_VERBS = {"is": ("is not", "isn't", "is no longer", "was not"), "are": ("are not", "are no longer", "aren't")}
#: Sentences that say a word of each kind; {0}: a category, {1}: a negation, {2}: the word.
_SAID = {
    "trend": ("{0} is {1} {2}.", "{0} remains {1} {2}.", "{0}: {1} {2}.", "{0} {3}. It is {1} {2}."),
    "band": ("{0} risk is {1} {2}.", "{0} stays {1} {2}.", "{0} looks {1} {2}.", "{0} risk {1} {2}."),
    "stress": ("The financial sector is {1} {2}.", "Financial system is {1} {2}."),
    "overall": ("Overall risk is {1} {2}.", "The overall risk level remains {1} {2}."),
    "density": ("Signal density is {1} {2}.", "The density: {1} {2}."),
    "phase": ("The phase is {1} {2}.", "The system is {1} in the {2} phase.", "Phase: {1} {2}.", "{1} {2}."),
    "net": ("The net is {1} {2}.", "Net {1} {2}."),
    "heat": ("Temperature is {1} {2}.", "{1} {2} than before."),
    "order": ("Order is {1} {2} than before.", "{1} {2}."),
    "match": ("It is {1} a {2} match.", "The analogue is {1} a {2} match.", "{1} a {2} match.", "{1} {2}."),
    "warning": ("There is {1} {2}.", "{1} {2}."),
    "cap": ("The agreement is {1} {2}.", "Agreement {1} {2}."),
}


def _denied_word(target: Target) -> list[_Edit] | None:
    return target.change(_WORD, lambda match: target.pick.choice(_NOT + _UN * match[0].islower()) + match[0])


def _denied_count(target: Target) -> list[_Edit] | None:
    if 2 * len(target.metrics.above_half) == len(target.risks):  # as many do not
        return None
    return target.change(r"exceeds?(?= 50)", lambda match: target.pick.choice(("do not ", "never ", "un")) + "exceed")


def _denied_sentence(target: Target) -> list[_Edit] | None:
    return target.change(r"(?:\A|(?<=[.!] ))(?!No )(?=\w)", lambda _: target.pick.choice(_DENIALS))


def _denied_verb(target: Target) -> list[_Edit] | None:
    pattern = r"(?<!phase )\b(?:is|are)\b(?! listed)"  # "No phase is defined"
    return target.change(pattern, lambda match: target.pick.choice(_NOT_VERBS[match[0]]))


def _denied_number(target: Target) -> list[_Edit] | None:
    place = target.place()
    return place and place.put(target.pick.choice(("not {N}", "never {N}", "anything but {N}", "hardly {N}", "no {N}")))


def _affirmed(target: Target) -> list[_Edit] | None:
    """A negation is taken away."""
    nothing = r"\bno (?=stress)|\bNo (?=(?:recent )?transition|early warning|phase|nations)|(?<=is )un(?=defined)"
    return target.change(nothing, lambda _: "")


def _retracted(target: Target) -> list[_Edit]:
    return target.add(target.pick.choice(_RETRACTIONS))


def _denied_anew(target: Target) -> list[_Edit]:
    """A further sentence denies a word that is true."""
    things = [thing for thing, word in target.words.items() if thing[0] in _SAID and word not in ("undefined", "below")]
    kind, name = thing = target.pick.choice(things)
    word = {"under": "under stress", "none": "free of stress"}.get(target.words[thing], target.words[thing])
    if kind == "band":
        word = target.pick.choice(_still(target, name))
    negation = target.pick.choice(("not", "not", "not", "never", "hardly", "no longer", "anything but"))
    return target.add(target.pick.choice(_SAID[kind]).format(name, negation, word, target.true.get(name)))


def _still(target: Target, category: str) -> tuple[str, ...]:
    """The words of a category's band that say nothing of its trend."""
    return risk_words(target.metrics.categories[category][0], "")


# --- name

_QUALIFIERS = ("prior", "last year's", "expected", "forecast", "maximum", "median", "target", "rival", "next month's")
_STRANGERS = ("XYZ", "ESP", "Atlantis", "Spain", "EU", "NATO", "social", "cyber-military", "volatility", "G", "λF", "Ψ")


def _renamed(target: Target) -> list[_Edit] | None:
    """A figure under another name: of its family, of any figure, of none."""
    if (place := target.place(lambda place: place.name is not None)) is None:
        return None
    families = [family for family in target.families if place.metric in family]
    pool = target.pick.choice((*families, [*target.true], [*NATIONS], [*NATIONS.values()], _STRANGERS))
    same = (place.value, place.value / 100, place.value * 100)  # 40% of a share are 0.40
    names = [name for name in pool if name not in _COUNTS and target.true.get(NATIONS.get(name, name)) not in same]
    return [(place.key, *place.name, target.pick.choice(names))] if names else None


def _qualified(target: Target) -> list[_Edit] | None:
    """The figure of another time or kind; only temperature and order have a prior one."""
    if (place := target.place(lambda place: place.name is not None)) is None:
        return None
    words = _QUALIFIERS[target.true.get(f"prior {place.metric}") == place.value :]
    return [(place.key, place.name[0], place.name[0], f"{target.pick.choice(words)} ")]


def _outside(target: Target) -> list[str]:
    """Nations that are not among the two highest: codes and everyday names."""
    second = target.metrics.nations[1][1] if len(target.risks) > 1 else 0
    inside = {code for code, risk in target.risks.items() if risk >= second}
    codes = sorted({*NATIONS.values(), *target.risks})
    return [name for name in (*codes, *NATIONS) if NATIONS.get(name, name) not in inside]


def _other_focus(target: Target) -> list[_Edit] | None:
    names = r"(?:(?<=Focus on )|(?<=Prioritise )|(?<= and ))[A-Z]{3}\b"
    return target.change(names, lambda _: target.pick.choice(_outside(target)), ["nsm"])


def _other_analogue(target: Target) -> list[_Edit] | None:
    if target.metrics.cic is None:
        return None
    mine = next(event for event in CORRELATES if event.dated == target.metrics.cic.analogue)
    other = target.pick.choice([event for event in CORRELATES if event != mine])
    new = (other.dated, f"{other.name} ({other.period})", f"{mine.name} {other.period}", f"{other.name} {mine.period}")
    return target.change(re.escape(mine.dated), lambda _: target.pick.choice(new), ["historical_parallel"])


def _other_phase(target: Target) -> list[_Edit] | None:
    def other(match: re.Match) -> str:
        return target.pick.choice([phase for phase in PHASES if phase != match[0]])

    return target.change("|".join(PHASES), other, ["phase_assessment"])


def _other_opening(target: Target) -> list[_Edit] | None:
    """A category's word, said of one with another band."""
    pair = target.chosen(lambda a, b: target.words["band", a] != target.words["band", b], CATEGORIES)
    return pair and target.change(rf"\A{pair[0].title()}\b", lambda _: pair[1].title(), pair[:1])


def _other_symbol(target: Target) -> list[_Edit] | None:
    """Another figure in a sum of the CIC assessment."""

    def other(match: re.Match) -> str:
        names = [name for name in (*_SYMBOLS, "net", "balance") if target.true.get(name)]
        return target.pick.choice([*(name for name in names if target.differ(name, match[0])), "political"])

    return target.change(r"(?<=: )Φ(?= - )|(?<=Φ - )λH|(?<=, )net(?= \+ )|(?<= \+ )γC", other, ["cic_assessment"])


# --- subject

_VERBS = (*_RELATIONS, ("ahead of", operator.gt), ("behind", operator.lt), ("as high as", operator.eq))
_COMPARED = (
    "{0} is {4} {1}.", "{0} ranks {4} {1}.", "{0} stands {4} {1}.", "{0} {4} {1}.", "{0} is {4} {1} at {3}.",
    "{0} {2}, {4} {1}.", "{0} is {2} and {4} {1} with {3}.", "{0} lies {4} the {1}.",
)  # fmt: skip
_EXTREMES = (("highest", max), ("top", max), ("greatest", max), ("lowest", min), ("least", min), ("smallest", min))
_EXTREME = (
    "The {2} is {0}.", "{0} is the {2}.", "{2} risk: {0}.", "{0} ranks {2}.", "{0} has the {2} risk.", "{0} is {2}.",
    "The {2} {3} is {0} at {1}.", "{2} {3}: {0} with {1}.", "{0} {1}, the {2}.", "{0}, {2}.",
)  # fmt: skip
_SHARED = (
    "{0} and {1} are {4}.", "{0} and {1} stand at {4} each.", "Both {0} and {1}: {4}.", "{0} and {1} {4}.",
    "{0} and {1}, at {4}.", "Each of {0} and {1} is {4}.", "{0} is, like {1}, {4}.", "{0} and {1} both: {4}.",
)  # fmt: skip
_RANKED = (
    "Led by {0}, followed by {1}.", "Led by {0} {2}, followed by {1} {3}.", "{0} is {2}, followed by {1}.",
    "{0} {2}, followed by {1} {3}.", "{0} is ahead of the others, followed by {1}.", "First {0}, then {1}.",
)  # fmt: skip
_OTHER_WORD = (
    "{1} risk is {4}.", "{1} is {4}.", "{1} remains {4}.", "{1} {3}; it is {4}.", "{1} is {3}. It is {4}.", "{1}: {4}.",
    "{0} is {2}, {1} {3}; it is {4}.", "{0} is {2} while {1} is {3} and {4}.", "{4} {1} risk.", "{1} {3} is {4}.",
    "{1} is {3}, {4}.", "{0} and {1} are {4}.", "{0} and {1} are {2} and {3}, {4}.",
    "{1} and {0} are {3} and {2}, {4}.",
)  # fmt: skip
_PRONOUN = (
    "{1} is {3}, at {2}.", "{1} {3} ({2}).", "{0} {2}, {1} {3}, at {2}.", "{1} is {3}. It is {2}.", "{1}: {3}, to {2}.",
    "{1} ({2}).", "{1} is not {0}; it is at {2}.", "{1} at {2}, {0} at {2}.", "{1} {3}; the same figure is {2}.",
    "{0} {2}; {1}, at {2}.", "At {2}, {1} ends here.",
)  # fmt: skip


def _exchanged(target: Target) -> list[_Edit] | None:
    """The text of a category under the key of another one, and perhaps the other way about."""
    figures = target.metrics.categories
    pair = target.chosen(lambda a, b: figures[a] != figures[b], CATEGORIES)
    if pair is None:
        return None
    first, second = (target.texts[key] for key in pair)
    edits = [(pair[0], 0, len(first), second), (pair[1], 0, len(second), first)]
    return edits[: target.pick.randint(1, 2)]


def _compared(target: Target) -> list[_Edit] | None:
    word, holds = target.pick.choice(_VERBS)
    pair = target.chosen(lambda a, b: not holds(target.true[a], target.true[b]))
    more = ("{0} exceeds {1}.", "{0} leads {1}.", "{0} leads {1} at {3}.") * (holds is operator.gt)
    return pair and target.say(_COMPARED + more, pair, word)


def _compared_both(target: Target) -> list[_Edit] | None:
    """What holds for one of two, said of both: a comparison, an extreme."""
    word, holds = target.pick.choice(_VERBS)
    if target.pick.random() < 0.3:
        word, _ = target.pick.choice(_EXTREMES)
        pair = target.chosen(target.differ, CATEGORIES, [*target.risks])
        return pair and target.say(("{0} and {1} are {2} and {3}, the {4}.",), pair, word)
    three = target.chosen(lambda a, b, c: not holds(target.true[a], target.true[c]), *target.families[:3], count=3)
    if target.pick.random() < 0.3:
        ranks = functools.partial(_follows, target)  # a list in order goes on with the next one
        three = target.chosen(lambda a, b, c: not (ranks(a, b) and ranks(b, c)), [*target.risks], count=3)
        return three and target.say(("{0} and {1} are {3} and {4}, followed by {2}.",), three)
    forms = ("{0} and {1} are {3} and {4}, {6} {2}.", "{0} and {1} are {6} {2}.", "Both {0} and {1} rank {6} {2}.")
    return three and target.say(forms, three, word)


def _extreme(target: Target) -> list[_Edit] | None:
    """What is not the highest or lowest of its family, or is of the other family."""
    word, bound = target.pick.choice(_EXTREMES)
    families = (CATEGORIES, "category", "nation"), ([*target.risks], "nation", "category")
    family, noun, other = target.pick.choice(families)
    if not family:
        return None
    most = bound(target.true[name] for name in family)
    false = [name for name in family if target.true[name] != most]
    if not false or target.pick.random() < 0.2:
        true = target.pick.choice([name for name in family if target.true[name] == most])
        return target.say(("The {2} {3} is {0}.", "{0} is the {2} {3}.", "{2} {3}: {0} with {1}."), [true], word, other)
    more = ("{0} leads.", "{0} leads, at {1}.") * (bound is max)
    return target.say(_EXTREME + more, [target.pick.choice(false)], word, noun)


def _shared(target: Target) -> list[_Edit] | None:
    """One number for two figures, of which it is one's."""
    pair = target.chosen(target.differ)
    return pair and target.say(_SHARED, pair, target.true[target.pick.choice(pair)])


def _apart(target: Target) -> list[_Edit] | None:
    """A difference in points that is another one, or the other way about."""
    pair = target.chosen(lambda a, b: True, *target.families[:3])
    true = target.true[pair[0]] - target.true[pair[1]]
    points = target.pick.choice([each for each in (abs(true), abs(true) + 1, abs(true) + 10, abs(true - 1)) if each])
    above, below = ("above", "higher than", "ahead of", "over"), ("below", "lower than", "behind", "under")
    forms = ("{0} is {4} points {5} {1}.", "{0} {4} points {5} {1}.", "{0} ranks {4} points {5} {1}.")
    if points != abs(true):
        forms += ("A gap of {4} points between {0} and {1}.", "The margin between {0} and {1} is {4} points.")
    return target.say(forms, pair, points, target.pick.choice(below if points == true else above))


def _follows(target: Target, first: str, second: str) -> bool:
    risks = target.risks
    return risks[first] >= risks[second] and not any(risks[first] > risk > risks[second] for risk in risks.values())


def _ranked(target: Target) -> list[_Edit] | None:
    pair = target.chosen(lambda a, b: not _follows(target, a, b), [*target.risks])
    return pair and target.say(_RANKED, pair)


def _other_word(target: Target) -> list[_Edit] | None:
    """A category's word or trend, said of another one, by name or by a pronoun."""
    kind = target.pick.choice(("band", "trend"))
    pair = target.chosen(lambda a, b: target.words[kind, a] != target.words[kind, b], CATEGORIES)
    if pair is None:
        return None
    word = target.words[kind, pair[0]] if kind == "trend" else target.pick.choice(_still(target, pair[0]))
    return target.say(_OTHER_WORD, pair, word)


def _pronoun(target: Target) -> list[_Edit] | None:
    """A figure behind the name of another one."""
    pair = target.chosen(target.differ)
    return pair and target.say(_PRONOUN, pair)


def _strange_word(target: Target) -> list[_Edit] | None:
    """What is true of one thing, said of a nation or a category."""
    said = {
        "heat": (" is {}", " is {} than before"),
        "order": (", {}", " is {} than before"),
        "match": (", {}", ": a {} match"),
        "phase": (", in the {} phase",),
    }
    known = [(form, target.words.get((kind, ""))) for kind, forms in said.items() for form in forms]
    pick, words = target.pick, [form.format(word) for form, word in known if word not in (None, "undefined")]
    if "decayed" in target.true:
        words += [f"{form} {target.true['decayed']}" for form in (", decayed to", " decays to", ": decaying to")]
    names = [*CATEGORIES, *target.risks]
    if target.risks and pick.random() < 0.3:  # these are of no nation alone
        names, signals = [*target.risks], [name for name in ("alerts", "articles") if name in target.true]
        words = [f"{form} {target.true[name]} {name}" for form in (" with", ":", " at") for name in signals]
    return target.say(("{0} {1}{2}.", "{0}{2}."), [pick.choice(names)], pick.choice(words)) if words else None


def _carried(target: Target) -> list[_Edit] | None:
    """A category's own trend behind a clause about what has none."""
    known = (
        ("signal density is", target.words.get(("density", ""))),
        ("the phase is", target.words.get(("phase", ""))),
    )
    clauses = [f"{start} {word}" for start, word in known if word not in (None, "undefined")]
    name = target.pick.choice(CATEGORIES)
    forms = ("{0} is {1}. {2}, {3}.", "{0} is {1}; {2}, {3}.", "{0} {1}. {2} and {3}.", "{0} {1}; {2}: {3}.")
    return target.say(forms, [name], target.pick.choice(clauses), target.words["trend", name]) if clauses else None


def _plural(target: Target) -> list[_Edit] | None:
    """What is true of the second of two figures and not of the first, said of both."""
    words, risks = target.words, target.risks
    scores = risks | {name: value for name, (value, _) in target.metrics.categories.items()}
    stressed = words["stress", ""] == "under"
    found = [(name, "financial", "under stress" if stressed else "no stress")
             for name, value in scores.items() if (value > STRESS) != stressed]  # fmt: skip
    if overall := words.get(("overall", "")):
        found += [(name, "mean", overall) for name, risk in risks.items() if risk_band(risk)[0] != overall]
    if net := words.get(("net", "")):
        found += [(name, "net", net) for name in CATEGORIES if words["trend", name] != net]
    if words.get(("cap", "")) == "capped":
        found += [(name, "agreement", "capped") for name in CATEGORIES]
    if not found:
        return None
    name, owner, word = target.pick.choice(found)
    return target.say(("{0} and {1} are {2} and {3}, {4}.",), (name, owner), word)


def _counted_others(target: Target) -> list[_Edit] | None:
    """A count that holds for the nations, said of two categories."""
    threshold = target.pick.choice((10, 30, 50, 70, 90, *target.risks.values()))
    word, holds = target.pick.choice(_RELATIONS[:9])
    count = sum(holds(risk, threshold) for risk in target.risks.values())
    said = {0: "none is", len(target.risks): "all are"}.get(count, f"{count} are")
    whole = {"none is": 0, "all are": 2}.get(said, count)
    pair = target.chosen(lambda *names: sum(holds(target.true[name], threshold) for name in names) != whole, CATEGORIES)
    forms = ("{0} {2}, {1} {3}: {4} {5} {6}%.", "{0} and {1} are {2} and {3}; {4} {5} {6}%.")
    return pair and target.say(forms, pair, said, word, threshold)


def _concern(target: Target) -> list[_Edit] | None:
    """A nation of at most 50 %, or one that the prompt does not have."""
    pool = (*target.risks, "ESP", "CAN", "AUS", "Canada")
    name = target.pick.choice([name for name in pool if target.risks.get(NATIONS.get(name, name), 0) <= 50])
    if target.pick.random() < 0.5:
        return target.change(r"(?:Key concerns are|Led by) (?=[A-Z])", lambda match: f"{match[0]}{name}, ", ["summary"])
    forms = ("Key concerns are {}.", "The key concern is {}.", "{} is a key concern.", "{} is the key concern.")
    return target.add(target.pick.choice((*forms, "Led by {}.")).format(name))


def _focus(target: Target) -> list[_Edit]:
    first = target.pick.choice(outside := _outside(target))
    second = target.pick.choice([name for name in (*target.risks, *outside) if name != first])
    forms = ("Focus on {} and {}.", "Prioritise {} and {}.", "Attention stays on {} and {}.", "The focus is on {}, {}.")
    return target.add(target.pick.choice(forms).format(*target.pick.sample((first, second), 2)))


# --- rounding: each what may be written for a number, the same value included

_TENS = ("ten", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety", "a hundred")


def _dropped(number: str) -> list[str]:
    return [number[:at] + number[at + 1 :] for at, char in enumerate(number) if char.isdigit()]


def _fewer(number: str) -> list[str]:
    value = Decimal(number)
    found = [f"{round(value, -places):.0f}" for places in (1, 2)]
    return found + [f"{round(value, places)}" for places in (0, 1, 2) if "." in number]


def _marked(number: str) -> list[str]:
    """With a thousands separator or a decimal comma."""
    found = [number.replace(".", ","), f"{number},000", f"{number},0", f"{number}.000,0", f"{number}.5", f"{number},5"]
    places = [at for at in range(1, len(number)) if number[:at].isdigit()]
    return found + [number[:at] + mark + number[at:] for at in places for mark in ",."]


def _moved(number: str) -> list[str]:
    return [f"{Decimal(number).scaleb(by):f}" for by in (-3, -2, -1, 1, 2)] + [f"{number}5", f"{number}0"]


def _worded(number: str) -> list[str]:
    """As tens, in words and otherwise."""
    tens, rest = divmod(abs(Decimal(number)), 10)
    if not rest or not 1 <= tens <= 10:
        return []
    word = _TENS[int(tens) - 1]
    return [word, f"{word}-something", f"{tens}0s", f"{tens}x", f"{tens}0-odd"]


def _transposed(number: str) -> list[str]:
    """Two of its digits swapped."""
    digits = [at for at, char in enumerate(number) if char.isdigit()]
    return [
        number[:a] + number[b] + number[a + 1 : b] + number[a] + number[b + 1 :]
        for a, b in itertools.combinations(digits, 2)
    ]


def _read(number: str) -> Decimal | None:
    """The value of a number: a comma before three last digits is one of thousands, another one decimal."""
    try:
        return Decimal(re.sub(r"(?<=\d),(?=\d{3}\b)", "", number).replace(",", "."))
    except ArithmeticError:
        return None


def _rewritten(target: Target, ways: Callable[[str], list[str]]) -> list[_Edit] | None:
    def others(number: str) -> list[str]:
        return [new for new in ways(number) if new.strip("-.,") and _read(new) != Decimal(number)]

    place = target.place(lambda place: bool(others(place.number)))
    return place and place.put(target.pick.choice(others(place.number)) + "{u}")


def _factor(target: Target) -> list[_Edit] | None:
    """λH = 0.3·H with another factor, which makes another λH."""
    if not target.true.get("λH"):
        return None
    factor = target.pick.choice(("0.301", "0.29", "0.33", "0.4", "3"))
    if abs(Decimal(factor) * target.true["H"] - target.true["λH"]) <= Decimal("0.0005"):  # alike to three decimals
        return None
    forms = ("{0} = {4}·{1}.", "{0} {2} = {4}·{1} {3}.", "{0} = {4}·{1} = {2}.", "Φ - {4}·{1} = net.")
    return target.say(forms, ("λH", "H"), factor)


# --- order

_ORDERED = (
    "{0} and {1} are {3} and {2}.", "{0} and {1} are {3} and {2} respectively.", "{0}, {1}: {3}, {2}.",
    "{0} and {1} ({3}, {2}).", "{0} and {1}, at {3} and {2} respectively.", "Both {0} and {1} stand at {3} and {2}.",
    "{0} and {1} are {3} versus {2}.", "{0} {3} and {1} {2}.", "{1} {2}, {0} {3}.",
)  # fmt: skip
_TURNED = (
    "Led by {0} {2}, followed by {1} {3}.", "Led by {0}, followed by {1}.", "{0} leads {1}.", "{0} > {1}.",
    "{0} ranks above {1}.", "In order of risk: {0}, {1}.", "{0} first, {1} second.", "{0}, followed by {1}.",
    "{1} < {0}.", "{1} ranks below {0}.", "{0} {2} exceeds {1} {3}.", "{0} {2} > {1} {3}.",
)  # fmt: skip


def _swapped(target: Target, part: Callable[[Place], tuple[int, int] | None]) -> list[_Edit] | None:
    """Two figures' numbers or names, each at the other's place; half the time of one text."""
    near = target.pick.random() < 0.5
    pairs = [
        (first, second)
        for first, second in itertools.combinations([place for place in target.places() if part(place)], 2)
        if first.value != second.value and (first.key == second.key or not near)
    ]
    if not pairs:
        return None
    pair = target.pick.choice(pairs)
    texts = [target.texts[place.key][slice(*part(place))] for place in pair]
    return [(place.key, *part(place), text) for place, text in zip(pair, texts[::-1], strict=True)]


def _crossed(target: Target, patterns: Sequence[str], keys: Sequence[str]) -> list[_Edit] | None:
    """Two different words, each at the other's place."""
    found = [re.search(pattern, target.texts[key]) for pattern, key in zip(patterns, keys, strict=True)]
    if None in found or found[0][0].lower() == found[1][0].lower():
        return None
    return [(key, *match.span(), other[0]) for key, match, other in zip(keys, found, found[::-1], strict=True)]


def _words_crossed(target: Target) -> list[_Edit] | None:
    """The words, or the trends, of two categories."""
    trend = rf"(?<=, )(?:{'|'.join(TRENDS.values())})(?=[.:])"
    kind, pattern = target.pick.choice((("band", r"(?<=is )[\w-]+(?=[,:])"), ("trend", trend)))
    pair = target.chosen(lambda a, b: target.words[kind, a] != target.words[kind, b], CATEGORIES)
    return pair and _crossed(target, (pattern, pattern), pair)


def _respectively(target: Target) -> list[_Edit] | None:
    """Two figures in one order, their numbers in the other."""
    pair = target.chosen(target.differ)
    return pair and target.say(_ORDERED, pair)


def _ranks_turned(target: Target) -> list[_Edit] | None:
    """Two nations in an order that says something, turned round."""
    pair = target.chosen(lambda a, b: target.risks[a] < target.risks[b], [*target.risks])
    return pair and target.say(_TURNED, pair)


def _led_turned(target: Target) -> list[_Edit] | None:
    """The second of the key concerns as the first."""
    found = re.search(r"(?:Key concerns are|Led by) (\w+ (\d+)%), (\w+ (\d+)%)", target.texts["summary"])
    if found is None or found[2] == found[4]:
        return None
    return [("summary", *found.span(), f"Led by {found[3]}, followed by {found[1]}")]


def _sides_turned(target: Target) -> list[_Edit] | None:
    """The terms of a sum of the CIC assessment."""
    ways = [(r"Φ - (λH [\d.]+)", r"\1 - Φ", "net"), (r"net \+ (γC [\d.]+) = F", r"F + \1 = net", "γC")]
    ways = [(old, new) for old, new, name in ways if target.true.get(name)]
    if not ways:
        return None
    old, new = target.pick.choice(ways)
    return target.change(old, lambda match: match.expand(new), ["cic_assessment"])


_IS = (r"(?<=risk is )[\w-]+", r"(?<=density is )[\w-]+")
#: Kind of change → what makes one.
MAKERS: dict[str, tuple[_Maker, ...]] = {
    "unit": (_unit,),
    "sign": (*(partial(_signed, templates=each) for each in (_DASHED, _NEGATIVE, _POSITIVE)), _turned),
    "bound": (
        *(partial(_bound, templates=each) for each in (_FALSE_BOUNDS, _LOOSE_BOUNDS)),
        *(partial(_false_bound, names=names) for names in (1, 2)), _false_count, _other_threshold,
    ),
    "negation": (
        _denied_word, _denied_count, _denied_sentence, _denied_verb, _denied_number, _denied_anew, _affirmed,
        _retracted,
    ),
    "name": (_renamed, _qualified, _other_focus, _other_analogue, _other_phase, _other_opening, _other_symbol),
    "subject": (
        _exchanged, _compared, _compared_both, _extreme, _shared, _apart, _ranked, _other_word, _pronoun, _strange_word,
        _carried, _plural, _counted_others, _concern, _focus,
    ),
    "rounding": (*(partial(_rewritten, ways=ways) for ways in (_dropped, _fewer, _marked, _moved, _worded)), _factor),
    "order": (
        partial(_swapped, part=lambda place: (place.span[0], place.span[0] + len(place.number))),
        partial(_swapped, part=lambda place: place.name), partial(_rewritten, ways=_transposed), _words_crossed,
        partial(_crossed, patterns=_IS, keys=("summary", "summary")), _respectively, _ranks_turned, _led_turned,
        _sides_turned,
    ),
}  # fmt: skip
KINDS = tuple(MAKERS)


def mutate(prompt: str, answer: str, kind: str, pick: random.Random) -> str | None:
    """A right answer with one change of a kind (of `KINDS`): it says something false, or lacks a figure or a word that
    it must have. None: it has nothing of that kind."""
    for maker in pick.sample(MAKERS[kind], len(MAKERS[kind])):
        target = Target(prompt, answer, pick)
        if edits := maker(target):
            for key, start, end, new in sorted(edits, key=operator.itemgetter(1), reverse=True):
                target.texts[key] = target.texts[key][:start] + new + target.texts[key][end:]
            return storage.line(target.texts)
    return None
