"""Whether what a briefing says is what its prompt's figures give: each number for the metric that it is said of,
each word for the thing, and what is said of several figures at once (counts, comparisons, sums).

A number is right where its metric has that value, in a unit that the metric has (`metrics.UNITS`). What has no form
in the grammar is unread: a number in it has no metric, and is neither right nor wrong.
"""

import itertools
import operator
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from decimal import Decimal

from cic.confidence import CAP
from cic.functional import GAMMA, LAMBDA
from elle.briefings.cic_figures import decayed
from elle.briefings.metrics import Metrics, derived_figures, printed_figures, words_of
from elle.briefings.scenario import CIC_COUNTRIES
from elle.briefings.schema import CATEGORIES
from elle.evaluation.clauses import FAMILIES, Name, Statement
from elle.evaluation.grammar import PERCENT, UNIT_OF
from elle.evaluation.reading import (
    COMPARISON,
    HALF,
    HOMES,
    SHARES,
    CheckedNumber,
    Read,
    Thing,
    Unread,
    own_numbers,
    reader,
)

CONCERNS, PHASE, _CAP, _FOCUS = ("concerns", ""), ("phase", ""), ("cap", ""), ("focus", "")


@dataclass
class Checked:
    """What texts say.

    cited: key → the metrics of its figures that are right. total, derived: numbers that are read, and those of
    derived metrics among them; wrong: those that are wrong; loose: numbers that are not read. right, not_right: the
    things that must be said, by how they are. more, more_right: what else is said. concerns: key → the nations named
    as such; strangers: (key, nation) of those that the prompt does not list. unread: what is not read, in so many of
    all sentences.
    """

    cited: dict[str, Set[str]] = field(default_factory=dict)
    total: int = 0
    derived: int = 0
    wrong: list[CheckedNumber] = field(default_factory=list)
    loose: int = 0
    right: set[Thing] = field(default_factory=set)
    not_right: set[Thing] = field(default_factory=set)
    more: int = 0
    more_right: int = 0
    concerns: dict[str, set[str]] = field(default_factory=dict)
    strangers: set[tuple[str, str]] = field(default_factory=set)
    faults: list[str] = field(default_factory=list)
    unread: list[Unread] = field(default_factory=list)
    sentences: int = 0
    unread_sentences: int = 0


class Checker:
    """Checks texts against the metrics of one prompt."""

    def __init__(self, metrics: Metrics):
        self.metrics = metrics
        self.derived = derived_figures(metrics)
        self.true: dict[str, Decimal | str] = printed_figures(metrics) | self.derived
        self.risks = dict(metrics.nations)
        self.words = words_of(metrics)
        #: What must be said → the key under which.
        self.required = {thing: HOMES[thing] for thing in (*self.words, _FOCUS)}
        if self.words.get(_CAP) == "below":
            del self.required[_CAP]
        if metrics.above_half:
            self.required[CONCERNS] = HOMES[CONCERNS]
        self._reader = reader(self.risks)

    def cited(self, texts: Mapping[str, str]) -> dict[str, Set[str]]:
        """Key → the metrics of its figures in `texts` that are right."""
        cited = {}
        for read in self._reader.read(texts):
            key = read.key
            cited[key], _ = self._cited(read)
            for each in read.plan.others:
                if each.kind == "counted" and _counts_half(each, read) and not self._why(each, read):
                    cited[key] = cited[key] | {HALF}
        return cited

    def check(self, texts: Mapping[str, str]) -> Checked:
        """The verdict on all that `texts` (key → text) say."""
        found, words = Checked(), self.words.items()
        for read in self._reader.read(texts):
            key, plan = read.key, read.plan
            found.total, found.derived = found.total + plan.total, found.derived + plan.derived
            found.sentences += plan.sentences
            found.cited[key], right = self._cited(read)
            if not right:
                wrong = [number for number in self._figures(read) if not number.ok]
                found.wrong += wrong
                self._strangers(found, key, (number.metric for number in wrong))
            if len(plan.said) == len(plan.words) and plan.said <= words and plan.things <= self.required.keys():
                found.right |= plan.things
            else:
                self._words(found, key, plan.words)
            for each in plan.others:
                self._other(found, each, read)
            if plan.unread:
                spans = self._reader.unread(read)
                found.unread += [Unread(key, *span, read.text[slice(*span)]) for span in spans]
                found.unread_sentences += plan.unread_sentences
                found.loose += len(plan.loose)
        self._close(found)
        return found

    def numbers(self, texts: Mapping[str, str]) -> list[CheckedNumber]:
        """The verdict on every number of `texts`, in order."""
        numbers: list[CheckedNumber] = []
        for read in self._reader.read(texts):
            places = self._reader.places(read.text)
            found = self._figures(read)
            for each in read.plan.others:
                found += self._stated(each, read, self._why(each, read))
            for place in read.plan.loose:
                found.append(_number(read.key, places[place], read.values[place], None, None, False, False, "not read"))
            numbers += sorted(found, key=operator.attrgetter("start"))
        return numbers

    def _cited(self, read: Read) -> tuple[Set[str], bool]:
        """The metrics of the figures that are right, and whether all are."""
        plan, values, true = read.plan, read.values, self.true.get
        if plan.plain and [*map(true, plan.names)] == [values[place] for place in plan.numbers]:
            if not plan.nations:
                return plan.metrics, True
            if all([true(values[name]) == values[place] for name, place in plan.nations]):
                return plan.metrics.union([values[name] for name, _ in plan.nations]), True
        right, count = set(), 0
        for name, place, fits in plan.figures:
            metric, value = self._figure(read, name, place)
            if fits and value == true(metric):
                right.add(metric)
                count += 1
        return right, count == len(plan.figures)

    def _figure(self, read: Read, name: Name, place: int) -> tuple[str, Decimal | str]:
        """A figure's metric and the number said of it: a % of a share divides by 100."""
        metric, value = name if isinstance(name, str) else read.values[name], read.values[place]
        return metric, value / 100 if read.plan.letters[place] == PERCENT and metric in SHARES else value

    def _figures(self, read: Read) -> list[CheckedNumber]:
        numbers, places = [], self._reader.places(read.text)
        for name, place, fits in read.plan.figures:
            metric, value = self._figure(read, name, place)
            expected = self.true.get(metric)
            ok = fits and value == expected
            why = f"{metric} is {expected}{'' if fits else ', in another unit'}"
            if expected is None:
                why = f"the prompt has no {metric}"
            verdict = metric, expected, metric in self.derived, ok, "" if ok else why
            numbers.append(_number(read.key, places[place], value, *verdict))
        return numbers

    def _words(self, found: Checked, key: str, words: Iterable[tuple[Thing, str, bool]]) -> None:
        for thing, sense, denied in words:
            right = self.words.get(thing)
            ok = right is not None and (sense == right) != denied
            self._said(found, key, thing, ok, not denied)
            if not ok:
                said = " ".join(filter(None, (*thing[::-1], "not" * denied, sense)))
                found.faults.append(f"{key[:40]}: {said}, but it is {right or 'not given'}")

    def _said(self, found: Checked, key: str, thing: Thing, ok: bool, sure: bool = True) -> None:
        """sure: it says what the thing is, not only what it is not."""
        if self.required.get(thing) != key:
            found.more, found.more_right = found.more + 1, found.more_right + ok
            if ok or thing != PHASE:  # a phase is wrong wherever it stands
                return
        if not ok:
            found.not_right.add(thing)
        elif sure:
            found.right.add(thing)

    def _other(self, found: Checked, each: Statement, read: Read) -> None:
        key, why = read.key, self._why(each, read)
        self._said(found, key, CONCERNS if each.kind == "led" else (each.kind, ""), not why)
        names = _names(each, read)
        self._strangers(found, key, names)
        if why:
            found.faults.append(f"{key[:40]}: {' '.join(filter(None, (each.kind, *names, each.sense)))}: {why}")
            found.wrong += self._stated(each, read, why)
            return
        if each.kind == "concerns" or (each.kind == "led" and key == HOMES[CONCERNS]):
            found.concerns.setdefault(key, set()).update(names)
        if _counts_half(each, read):
            found.cited[key] = found.cited[key] | {HALF}

    def _strangers(self, found: Checked, key: str, names: Iterable[str]) -> None:
        found.strangers.update((key, name) for name in names if name in CIC_COUNTRIES and name not in self.risks)

    def _stated(self, each: Statement, read: Read, why: str) -> list[CheckedNumber]:
        if not (numbers := own_numbers(each)):
            return []
        metric, places = HALF if _counts_half(each, read) else COMPARISON, self._reader.places(read.text)
        verdict = metric, self.derived.get(metric), True, not why, why
        return [_number(read.key, places[place], read.values[place], *verdict) for place in numbers]

    def _why(self, each: Statement, read: Read) -> str:
        """Why a statement on several figures does not hold, "" where it does."""
        numbers = [(read.values[place], UNIT_OF[read.plan.letters[place]]) for place in each.numbers]
        return _CHECKS[each.kind](self, each, _names(each, read), numbers)

    def _close(self, found: Checked) -> None:
        """What must be said and is not, or not in full."""
        for key, named in found.concerns.items():
            if left := [code for code, _ in self.metrics.above_half if code not in named]:
                found.not_right.add(CONCERNS)
                found.faults.append(f"{key[:40]}: {left[0]} is a key concern that is not named")
        found.faults += [
            f"{key}: {' '.join(filter(None, thing))}: nothing is said"
            for thing, key in self.required.items()
            if thing not in found.right and thing not in found.not_right
        ]
        found.right -= found.not_right


def _number(key: str, place: tuple[int, str], value: Decimal | str, *verdict) -> CheckedNumber:
    start, written = place
    return CheckedNumber(key, start, start + len(written), written, value, *verdict)


def _names(each: Statement, read: Read) -> list[str]:
    return [name if isinstance(name, str) else read.values[name] for name in each.names]


def _counts_half(each: Statement, read: Read) -> bool:
    """Whether it counts the nations above 50 %."""
    counts = each.kind == "counted" and each.sense == "above" and len(each.numbers) == 2
    return counts and read.values[each.numbers[1]] == 50


# --- What is said of several figures at once: "" where it holds, else why not ---------------------------------------

_Names, _Numbers = Sequence[str], Sequence[tuple[Decimal, str]]  # numbers: (value, unit)
_RELATIONS = {
    "above": operator.gt, "below": operator.lt, "level": operator.eq, "least": operator.ge, "most": operator.le,
    "apart": operator.ne,
}  # fmt: skip
_LAMBDA, _GAMMA, _MOST = (Decimal(str(value)) for value in (LAMBDA, GAMMA, CAP))
_FACTORS = {("H", _LAMBDA), ("C", _GAMMA)}
_TOLERANCE = Decimal("0.0005")  # of a sum with 0.25·C: γC is rounded to three decimals before


def _bound(checker: Checker, each: Statement, names: _Names, numbers: _Numbers) -> str:
    """Each of the names is above, below, at least … the number."""
    ((number, unit),) = numbers
    for name in names:
        value = checker.true.get(name)
        if value is None or isinstance(value, str):
            return f"the prompt has no {name}"
        score = name in checker.risks or FAMILIES.get(name) in ("nation", "category") or name == "stability index"
        limit = number / 100 if unit == "%" and not score else number
        if (unit and not score and name not in SHARES) or (name in SHARES and limit > 1) or unit not in ("", "%"):
            return f"{name} is not in {unit or 'this unit'}"
        if not _RELATIONS[each.sense](value, limit):
            return f"{name} is {value}"
    return ""


def _counted(checker: Checker, each: Statement, names: _Names, numbers: _Numbers) -> str:
    """So many nations, or none, or all, are above or below a threshold in percent."""
    *count, (threshold, unit) = numbers
    relation, _, quantity = each.sense.partition(" ")
    if unit not in ("", "%") or any(unit for _, unit in count) or 0 < threshold < 1:
        return "nations are counted, their risks are in percent"
    holds = sum(_RELATIONS[relation](risk, threshold) for risk in checker.risks.values())
    wanted = count[0][0] if count else 0 if quantity == "none" else max(len(checker.risks), 1)
    return "" if holds == wanted else f"{holds} of {len(checker.risks)} nations are"


def _comparison(checker: Checker, each: Statement, names: _Names, numbers: _Numbers) -> str:
    """Of two figures of one family."""
    values = [checker.true.get(name) for name in names]
    if None in values:
        return f"the prompt has no {names[values.index(None)]}"
    if _RELATIONS[each.sense](*values):
        return ""
    return ", ".join(f"{name} is {value}" for name, value in zip(names, values, strict=True))


def _difference(checker: Checker, each: Statement, names: _Names, numbers: _Numbers) -> str:
    """In points: the first above or below the second, or between the two."""
    if each.sense not in ("above", "below", "apart"):
        return "a difference is above or below"
    values = [checker.true.get(name) for name in names]
    # Two that are level lie 0 points apart.
    if (None in values or each.sense != "apart") and (why := _comparison(checker, each, names, ())):
        return why
    points = abs(values[0] - values[1])
    return "" if points == numbers[0][0] else f"it is {points}"


def _extreme(checker: Checker, each: Statement, names: _Names, numbers: _Numbers) -> str:
    """The highest or the lowest of the nations, or of the categories."""
    members = CATEGORIES if names[0] in CATEGORIES else checker.risks
    if names[0] not in members:
        return f"the prompt has no {names[0]}"
    bound = (max if each.sense == "highest" else min)(checker.true[name] for name in members)
    return "" if checker.true[names[0]] == bound else f"that is {bound}"


def _ranked(checker: Checker, each: Statement, names: _Names, numbers: _Numbers) -> str:
    """Each nation follows the one before it in the order of their risks."""
    risks = checker.risks
    if strangers := [name for name in names if name not in risks]:
        return f"the prompt has no {strangers[0]}"
    for first, second in itertools.pairwise(names):
        between = any(risks[first] > risk > risks[second] for risk in risks.values())
        if first == second or risks[first] < risks[second] or between:
            return f"{second} does not follow {first}"
    return ""


def _none_listed(checker: Checker, each: Statement, names: _Names, numbers: _Numbers) -> str:
    return f"{len(checker.risks)} are" if checker.risks else ""


def _concerns(checker: Checker, each: Statement, names: _Names, numbers: _Numbers) -> str:
    """Each is above 50 %; that none is left out is seen where all is said."""
    wrong = [name for name in names if checker.risks.get(name, 0) <= 50]
    return f"{wrong[0]} is not above 50" if wrong else ""


def _led(checker: Checker, each: Statement, names: _Names, numbers: _Numbers) -> str:
    """The highest come first, in their order."""
    if why := _ranked(checker, each, names, numbers) or _concerns(checker, each, names, numbers):
        return why
    return "" if checker.risks[names[0]] == checker.metrics.nations[0][1] else f"{names[0]} is not the highest"


def _focus(checker: Checker, each: Statement, names: _Names, numbers: _Numbers) -> str:
    """The two highest; any two of them where several are as high as the second."""
    first = checker.metrics.nations[:2]
    named = sorted((checker.risks.get(name, -1) for name in names), reverse=True)
    if len(set(names)) == len(names) and named == [risk for _, risk in first]:
        return ""
    return f"not {' and '.join(code for code, _ in first) or 'data collection'}"


def _equation(checker: Checker, each: Statement, names: _Names, numbers: _Numbers) -> str:
    """All sides are equal, with the prompt's figures for the names; `numbers` are those of the terms, in order."""
    if any(unit not in ("", "thousands") for _, unit in numbers):  # 1.282 has three decimals
        return "no unit belongs in a sum"
    values, given, rounded = [], (value for value, _ in numbers), False
    for side in each.sides:
        total = Decimal(0)
        for term in side:
            factor = next(given) if term.factor else Decimal(1)
            value = checker.true.get(term.name) if term.name else next(given)
            if value is None:
                return f"the prompt has no {term.name}"
            if term.factor and (term.name, factor) not in _FACTORS:
                return f"{factor} is not the factor of {term.name}"
            rounded |= (term.name, factor) == ("C", _GAMMA)
            total += -factor * value if term.negative else factor * value
        values.append(total)
    return "" if max(values) - min(values) <= (_TOLERANCE if rounded else 0) else "its sides are not equal"


_CHECKS = {
    "bound": _bound, "counted": _counted, "comparison": _comparison, "difference": _difference, "extreme": _extreme,
    "ranked": _ranked, "listed": _none_listed, "concerns": _concerns, "led": _led, "focus": _focus,
    "equation": _equation,
}  # fmt: skip


# --- The answer's own arithmetic ------------------------------------------------------------------------------------

_SUM, _DECAY = ("F", "Φ", "H", "C"), ("decayed", "confidence", "horizon")
_NEEDED = frozenset((*_SUM, *_DECAY))


def arithmetic_faults(checker: Checker, found: Checked) -> tuple[list[str], int]:
    """(what does not hold, how many can be checked) of: F = Φ − 0.3·H + 0.25·C; decayed = confidence·e^(−0.1·horizon).

    Both are judged by the figures that the answer itself prints, whatever its prompt says. A check needs each of its
    figures. Where an answer prints one of them with two values it contradicts itself, and the check fails. Confidence
    above the cap never holds.
    """
    cited = _NEEDED.intersection(frozenset().union(*found.cited.values()))
    values = {metric: {checker.true[metric]} for metric in cited}
    wrong = [number for number in found.wrong if number.metric in _NEEDED]
    for number in wrong:
        values.setdefault(number.metric, set()).add(number.value)
    faults, checked = [], 0
    for names, check in ((_SUM, _sum_fault), (_DECAY, _decay_fault)):
        if not values.keys() >= set(names):
            continue
        checked += 1
        twice = [name for name in names if len(values[name]) > 1]
        if twice:
            faults.append(f"{', '.join(twice)} printed with several values")
        elif wrong and (why := check(*(next(iter(values[name])) for name in names))):  # the prompt's own add up
            faults.append(why)
    return faults, checked


def _sum_fault(total: Decimal, phi: Decimal, entropy: Decimal, power: Decimal) -> str:
    if abs(total - (phi - _LAMBDA * entropy + _GAMMA * power)) <= _TOLERANCE:
        return ""
    return f"F {_short(total)} is not Φ {_short(phi)} − 0.3·{_short(entropy)} + 0.25·{_short(power)}"


def _decay_fault(left: Decimal, confidence: Decimal, horizon: Decimal) -> str:
    if 0 <= confidence <= _MOST and 0 <= horizon <= 1200 and left == decayed(confidence, int(horizon)):
        return ""
    return f"decayed {_short(left)} is not {_short(confidence)}·e^(−0.1·{_short(horizon)}), confidence at most {CAP}"


def _short(value: Decimal) -> str:
    return str(value)[:20]
