"""CIC metrics → answer: the four texts beyond the basic eight, every number printed or computed from printed ones.

Words follow from figures by the rules of `cic_figures`; beside them, an agreement above 0.95 is capped, and a
transition is named only where the prompt prints one, its absence only where there is a history.
"""

from collections.abc import Mapping
from decimal import Decimal

from elle.base import storage
from elle.briefings.cic_figures import UNCITED, CicFigures, match_word, months, net_words, state_words, warning_words
from elle.briefings.metrics import Metrics
from elle.briefings.writer import Pick, basic_texts

SYSTEM_PROMPT = (
    "Turn pipeline metrics into an analyst's briefing. Cite figures as printed; do not fabricate events. "
    "Confidence at most 0.95. Answer with one JSON object: each category, summary, nsm, cic_assessment, "
    "phase_assessment, confidence_bounds, historical_parallel."
)


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
    words = net_words(values["balance"])
    moves = pick(words)
    if "steady" in words:
        moves = pick(words)  # a second choice: their number is part of a set's bytes
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
        cited = warning not in UNCITED
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
