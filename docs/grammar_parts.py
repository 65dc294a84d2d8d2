"""The grammar of briefings (configs/grammar.yaml) as a part of a page: `docs/refresh.py` puts it there."""

import re
from collections.abc import Iterable

from cic.criticality import PHASES
from elle.base.tables import markdown
from elle.base.yaml_files import config_table
from elle.briefings.metrics import RISK_WORDS, UNITS

#: The prompt for which the examples are right, but for `functional`: it has a Φ.
PROMPT = """\
NATIONS: UKR 74%, YEM 62%, BRA 20%, mean 52%
SIGNALS: articles 160, tone -3.1, alerts 4
CATEGORIES: political 64 ↑, economic 40 →, security 59 →, military 55 ↑, financial 65 ↓, cyber 34 ↓
CIC: Φ 0.39, H 0.21, C 0.44, balance 0.19
PHASE: NUCLEATING, temperature 0.55, order 0.48, prior temperature 0.50, prior order 0.61, tau variance 0.2, tau autocorrelation 0.1, transition 9 months ago
OUTLOOK: agreement 0.99, horizon 3 months, analogue Great Depression 1929–1939, distance 0.13"""  # noqa: E501
#: Kind of statement → a sentence that needs a form of it, and where it is right.
STATEMENTS = {
    "figures": ("Mean 52%, UKR at 74%, horizon 3 months", "each is that figure"),
    "horizon": ("Confidence 0.95, at the 3-month horizon", "it is the horizon"),
    "decay": ("Confidence decays to 0.70 over 3 months", "they are the decayed confidence and the horizon"),
    "bare figure": ("Political risk is high at 64", "it is the figure that was named last"),
    "equation": ("F = net + γC = 0.327 + 0.110 = 0.437", "all sides are equal, by the prompt's figures for the names"),
    "band": ("Political pressure is high", "the figure is in the band of that word"),
    "trend": ("Cyber exposure is falling", "it is the category's arrow, or how net moves"),
    "overall": ("Overall risk is high", "the mean is in the band of that word"),
    "stress": ("The financial system is under stress", "financial is above 60; without stress: it is not"),
    "density": ("Signal density is high", "articles are above 150; moderate: above 75; low: not"),
    "concerns": ("Key concerns are UKR 74% and YEM 62%", "they are above 50 %, and no other nation is"),
    "led": ("Led by UKR 74%, YEM 62%", "they are above 50 %, the highest first; in the summary no other nation is"),
    "ranked": ("UKR 74%, followed by YEM 62%", "each is next to the one before in the order of risks"),
    "listed": ("3 nations listed", "the prompt lists so many"),
    "counted": ("2 of the 3 nations are above 50%", "so many are"),
    "bound": ("Economic risk stays below 50", "each of the figures is"),
    "comparison": ("UKR ranks above YEM", "it is so; of figures of one kind"),
    "difference": ("UKR is 12 points above YEM", "it is so, by so much"),
    "extreme": ("The highest nation is UKR", "no other nation, or no other category, is higher"),
    "focus": ("Focus on UKR and YEM", "they are the two highest, or all; without nations: data collection"),
    "plans": ("Review contingency plans", "the mean is above 50; routine monitoring: it is not"),
    "functional": ("F is undefined", "the prompt has no Φ; without nations: and none is listed"),
    "net": ("Net is rising", "the balance is above 0.05; falling: below −0.05; else steady"),
    "heat": ("Temperature is hotter than before", "it is above the prior one; cooler: below; as hot: equal"),
    "order": ("Order is less ordered than before", "it is below the prior one; more: above; as ordered: equal"),
    "warning": ("Signals are low", "no tau is above 0.3; mixed: one; high: both; without a transition: early warning"),
    "transition": ("The last transition was 9 months ago", "it is so; no transition: the prompt prints none"),
    "cap": ("Agreement 0.99 exceeds the cap of 0.95", "it is above 0.95, and the second number is the confidence"),
    "analogue": ("Nearest analogue Great Depression 1929–1939 at distance 0.13", "they are the prompt's"),
    "match": ("Distance 0.13, a close match", "the distance is below 0.15; loose: below 0.25; else weak"),
    "phase": ("The phase is NUCLEATING", "it is the prompt's; undefined: it has none"),
}
_WRITTEN = {"": "none", "%": "%, per cent", "/100": "/100, of 100", "months": "months", "months ago": "months ago"}


def grammar_page() -> str:
    """Tables of the statements with their forms, of words, of other names, and of units."""
    table = config_table("grammar")
    statements = [
        {"kind": kind, "an example": f"{example}.", "is right where": right, "forms": "<br>".join(map(_form, forms))}
        for kind, forms in table["forms"].items()
        for example, right in [STATEMENTS.get(kind, ("", ""))]
    ]
    # The words of a band are those that the writers use, and the phases are the framework's.
    bands = {f"below {bound}" if bound < 100 else "up to 100": words for bound, words in RISK_WORDS}
    senses_of = {"band": bands, "phase": {phase: [phase] for phase in PHASES}} | table["words"]
    words = [
        {"words": f"`{{{kind}}}`"}
        | {"their sense: phrases": "<br>".join(_sense(sense, _commas(phrases)) for sense, phrases in senses.items())}
        for kind, senses in senses_of.items()
    ]
    names = [{"figure": name, "is also": _commas(others)} for name, others in table["names"].items()]
    nations = "; ".join(f"{code}: {_commas(others)}" for code, others in table["nations"].items())
    groups: dict[frozenset[str], list[str]] = {}
    for name, units in UNITS.items():
        groups.setdefault(units, []).append(name)
    units = [
        {"figure": _commas(["a nation"] * ("mean" in figures) + figures)}
        | {"units": "; ".join(_WRITTEN[unit] for unit in sorted(units))}
        for units, figures in groups.items()
    ]
    units.append({"figure": "all others", "units": _WRITTEN[""]})
    fillers = {f"`{{{name}}}`": table[name] for name in ("link", "noun", "join")}
    parts = {
        f"The examples are right for this prompt, F undefined aside:\n\n```text\n{PROMPT}\n```": statements,
        "### Words": words,
        "### Names": names,
        f"Nations are known by their codes and names ({nations}); between a name and its number stands a link, behind "
        "a name a noun, between two clauses a joining word:": [
            {"": name, "is one of": _commas(phrases)} for name, phrases in fillers.items()
        ],
        "### Units": units,
    }
    return "\n\n".join(f"{head}\n\n{markdown(rows)}" for head, rows in parts.items())


def _sense(sense: str, phrases: str) -> str:
    return sense if phrases == sense else f"{sense}: {phrases}"


def _commas(phrases: str | Iterable[str]) -> str:
    return ", ".join(phrases.split("|") if isinstance(phrases, str) else phrases)


def _form(form: str) -> str:
    """A form as a page shows it: what only a regular expression needs is gone, a table's bars are escaped."""
    plain = re.sub(r"\(\?<=(\\\()\)|\(\?=(\\\))\)", r"\1\2", form).replace(",?", "[,]").replace("\\", "")
    return f"`{plain.replace('|', '\\|')}`"
