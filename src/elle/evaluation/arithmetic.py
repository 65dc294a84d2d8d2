"""Whether an answer's own arithmetic holds: F and the decayed confidence against the figures that the answer itself
prints, whatever its prompt says."""

from collections.abc import Iterable
from decimal import Decimal

from cic.confidence import CAP
from cic.functional import GAMMA, LAMBDA
from elle.briefings.cic_figures import decayed
from elle.evaluation.faithfulness import CheckedNumber

#: How far F may be from Φ − 0.3·H + 0.25·C: γC is rounded to three decimals before the sum.
F_TOLERANCE = Decimal("0.0005")
_LAMBDA, _GAMMA, _CAP = (Decimal(str(value)) for value in (LAMBDA, GAMMA, CAP))
_SUM, _DECAY = ("F", "Φ", "H", "C"), ("decayed", "confidence", "horizon")
_NEEDED = frozenset((*_SUM, *_DECAY))


def faults(findings: Iterable[CheckedNumber]) -> tuple[list[str], int]:
    """(what does not hold, how many can be checked) of: F = Φ − 0.3·H + 0.25·C; decayed = confidence·e^(−0.1·horizon).

    A check needs each of its figures, as a plain number. Where an answer prints one of them with two values it
    contradicts itself, and the check fails. Confidence above the cap never holds.
    """
    found: dict[str, set[Decimal]] = {}
    for item in findings:
        number = item.number
        if number.metric in _NEEDED and number.value is not None:
            found.setdefault(number.metric, set()).add(number.value)
    wrong, checked = [], 0
    for names, check in ((_SUM, _sum), (_DECAY, _decay)):
        if not found.keys() >= set(names):
            continue
        checked += 1
        twice = [name for name in names if len(found[name]) > 1]
        if twice:
            wrong.append(f"{', '.join(twice)} printed with several values")
        elif why := check(*(next(iter(found[name])) for name in names)):
            wrong.append(why)
    return wrong, checked


def consistency(findings: Iterable[CheckedNumber]) -> tuple[int, int]:
    """(how many hold, how many can be checked), as `faults` has them."""
    wrong, checked = faults(findings)
    return checked - len(wrong), checked


def _sum(total: Decimal, phi: Decimal, entropy: Decimal, power: Decimal) -> str:
    exact = phi - _LAMBDA * entropy + _GAMMA * power
    if abs(total - exact) <= F_TOLERANCE:
        return ""
    return f"F {_short(total)} is not Φ {_short(phi)} − 0.3·{_short(entropy)} + 0.25·{_short(power)}"


def _decay(left: Decimal, confidence: Decimal, horizon: Decimal) -> str:
    bounded = 0 <= confidence <= _CAP and 0 <= horizon <= 1200
    if bounded and left == decayed(confidence, int(horizon)):
        return ""
    return f"decayed {_short(left)} is not {_short(confidence)}·e^(−0.1·{_short(horizon)}), confidence at most {CAP}"


def _short(value: Decimal) -> str:
    return str(value)[:20]
