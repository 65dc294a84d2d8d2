"""CIC metrics → answer: the four texts beyond the basic eight, every number printed or computed from printed ones.

Words that follow from figures, by these rules:
    balance above 0.05: net is rising, growing; below -0.05 falling, shrinking; else steady, level
    temperature and order against the prior ones: hotter, cooler, as hot; more, less, as ordered
    both taus above 0.3: early warning; one: mixed signals; none: no early warning, and they are not cited.
        After a transition a warning would be late: signals high, mixed, low
    agreement above 0.95: capped
    distance below 0.15: close, below 0.25: loose, else weak
    a transition is named only where the prompt prints one, its absence only where there is a history
"""

from collections.abc import Mapping
from decimal import Decimal

from elle.base import storage
from elle.briefings.cic_figures import CicFigures, months
from elle.briefings.metrics import Metrics
from elle.briefings.writer import Pick, basic_texts

SYSTEM_PROMPT = (
    "Turn pipeline metrics into an analyst's briefing. Cite figures as printed; do not fabricate events. "
    "Confidence at most 0.95. Answer with one JSON object: each category, summary, nsm, cic_assessment, "
    "phase_assessment, confidence_bounds, historical_parallel."
)

_STEADY, _RISING = Decimal("0.05"), Decimal("0.3")
#: Of no, one and two rising taus, before a transition and after it; the first of each cites no tau.
_EARLY = ("No early warning", "Mixed signals", "Early warning")
_LATE = ("Signals low", "Mixed signals", "Signals high")
_UNCITED = (_EARLY[0], _LATE[0])
_CLOSE, _LOOSE = Decimal("0.15"), Decimal("0.25")


def cic_texts(metrics: Metrics, pick: Pick) -> dict[str, str]:
    """The texts of the twelve keys."""
    figures = metrics.cic
    derived = figures.derived
    return basic_texts(metrics, pick) | {
        "cic_assessment": _assessment(figures.values, derived, pick),
        "phase_assessment": _phase(figures, pick),
        "confidence_bounds": _confidence(figures.values, derived, pick),
        "historical_parallel": _parallel(figures, pick),
    }


def answer(metrics: Metrics, pick: Pick) -> str:
    """The briefing of `metrics`, which holds CIC figures, as compact JSON; `pick` chooses the wording only."""
    return storage.line(cic_texts(metrics, pick))


def _assessment(values: Mapping[str, Decimal], derived: Mapping[str, Decimal], pick: Pick) -> str:
    if "Φ" not in values:
        if "H" not in values:
            return pick(("No nations: F is undefined.", "F is undefined without nations."))
        why = pick(("Φ needs two nations, so F is undefined", "F is undefined: Φ needs two nations"))
        return f"{why}. H {values['H']}, C {values['C']}."
    worked = pick(("Φ {Φ}, H {H}, C {C}: ", "H {H}, C {C}, Φ {Φ}: "))
    worked += "Φ - λH {λH} = net {net}, net + γC {γC} = F {F}."
    balance = values["balance"]
    moves = pick(net_words(balance))
    if abs(balance) <= _STEADY:
        moves = pick(net_words(balance))  # a second choice: their number is part of a set's bytes
    closing = pick((" Balance {balance}: net {0}.", " Balance {balance}, net {0}."))
    return (worked + closing).format(moves, **values, **derived)


def _phase(figures: CicFigures, pick: Pick) -> str:
    values = figures.values
    if figures.phase:
        heat, order = state_words(values)
        text = pick(("Phase {0}: temperature {1}, order {2}", "{0} phase, temperature {1}, order {2}")).format(
            figures.phase, values["temperature"], values["order"]
        )
        text += pick(("; {0}, {1}.", ", {0} and {1}.")).format(heat, order)
    else:
        text = pick(("The phase is undefined.", "No phase is defined."))
        text += f" Temperature {values['temperature']}." if "temperature" in values else ""
    if warning := warning_words(values):
        text += f" {warning}"
        cited = warning not in _UNCITED
        text += (
            ": tau variance {tau variance}, tau autocorrelation {tau autocorrelation}.".format(**values)
            if cited
            else "."
        )
    if "transition" in values:
        return text + pick((" Transition {0} ago.", " A transition {0} ago.")).format(months(values["transition"]))
    if "temperature" not in values:
        return text  # no history, so nothing is known of transitions
    return text + pick((" No transition.", " No recent transition."))


def _against(now: Decimal, before: Decimal, words: tuple[str, str, str]) -> str:
    return words[0] if now > before else words[1] if now < before else words[2]


def net_words(balance: Decimal) -> tuple[str, ...]:
    """How net moves, each of these in as many words."""
    if abs(balance) <= _STEADY:
        return ("steady", "level")
    return ("rising", "growing") if balance > 0 else ("falling", "shrinking")


def state_words(values: Mapping[str, Decimal]) -> tuple[str, str]:
    """Temperature and order against a year before."""
    return (
        _against(values["temperature"], values["prior temperature"], ("hotter", "cooler", "as hot")),
        _against(values["order"], values["prior order"], ("more ordered", "less ordered", "as ordered")),
    )


def warning_words(values: Mapping[str, Decimal]) -> str:
    """What the taus say; "" without them."""
    taus = [values[name] for name in ("tau variance", "tau autocorrelation") if name in values]
    if len(taus) < 2:
        return ""
    return (_EARLY, _LATE)["transition" in values][sum(tau > _RISING for tau in taus)]


def match_word(distance: Decimal) -> str:
    """How near an analogue is."""
    return "close" if distance < _CLOSE else "loose" if distance < _LOOSE else "weak"


def _confidence(values: Mapping[str, Decimal], derived: Mapping[str, Decimal], pick: Pick) -> str:
    text = ""
    if derived["confidence"] < values["agreement"]:
        text = pick(("Agreement {agreement} is capped. ", "Agreement {agreement} above the cap. "))
    text += pick(
        (
            "Confidence {confidence}, at horizon {months} decayed {decayed}.",
            "Confidence {confidence}; horizon {months}: decayed {decayed}.",
        )
    )
    return text.format(**values, **derived, months=months(values["horizon"]))


def _parallel(figures: CicFigures, pick: Pick) -> str:
    distance = figures.values["distance"]
    text = pick(("{0}, distance {1}: {2} match.", "{0} at distance {1}, {2}."))
    return text.format(figures.analogue, distance, match_word(distance))
