"""The CIC figures of a prompt: how it prints them, how they are read back, and what an answer computes from them.

Three lines follow the basic ones. A figure that does not exist is left out (Φ and order need two nations; trends need
a history that moves; a transition is printed only where the simulated system made one), and a line without any says
`none`. Figures have two decimals, Kendall's taus one; months are whole.

    CIC: Φ 0.42, H 0.46, C 0.67, balance -0.05
    PHASE: NUCLEATING, temperature 0.55, order 0.48, prior temperature 0.50, prior order 0.61, tau variance 0.5, ...
    OUTLOOK: agreement 0.81, horizon 3 months, analogue Great Depression 1929–1939, distance 0.23

Words follow from figures, for a writer and for a judge, by these rules:
    balance above 0.05: net is rising, growing; below -0.05 falling, shrinking; else steady, level
    temperature and order against the prior ones: hotter, cooler, as hot; more, less, as ordered
    both taus above 0.3: early warning; one: mixed signals; none: no early warning, and they are not cited.
        After a transition a warning would be late: signals high, mixed, low
    distance below 0.15: close, below 0.25: loose, else weak
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import ROUND_HALF_EVEN, Decimal
from functools import cache, lru_cache
from typing import Any

from cic.analogues import CORRELATES
from cic.confidence import CAP, DECAY_PER_MONTH
from cic.criticality import PHASES
from cic.functional import GAMMA, LAMBDA
from elle.base.errors import ElleError

#: Section → the names of its figures, in the order of printing.
CIC_SECTIONS = {
    "CIC": ("Φ", "H", "C", "balance"),
    "PHASE": (
        "temperature", "order", "prior temperature", "prior order", "tau variance", "tau autocorrelation", "transition",
    ),
    "OUTLOOK": ("agreement", "horizon", "distance"),
}  # fmt: skip
NAMES = tuple(name for names in CIC_SECTIONS.values() for name in names)
#: Names of the figures that an answer computes.
DERIVED = ("λH", "γC", "net", "F", "confidence", "decayed")
#: Name and period of each analogue, as prompts and answers print it.
ANALOGUES = frozenset(event.dated for event in CORRELATES)

_KNOWN = [{*names} for names in CIC_SECTIONS.values()]
_KNOWN[1].add("phase")
_KNOWN[2].add("analogue")
_PHASE_NEEDS = CIC_SECTIONS["PHASE"][:4]
_LOWEST = {"balance": -100, "tau variance": -1, "tau autocorrelation": -1}  # of the others 0
_HIGHEST = {"balance": 100, "Φ": 100, "horizon": 999, "transition": 999}  # of the others 1
_LAMBDA, _GAMMA, _CAP, _DECAY = (Decimal(str(value)) for value in (LAMBDA, GAMMA, CAP, DECAY_PER_MONTH))
_THOUSANDTH, _HUNDREDTH = Decimal("0.001"), Decimal("0.01")
_FIGURE = re.compile(
    rf"({'|'.join(sorted(NAMES, key=len, reverse=True))}) (-?[0-9]+(?:\.[0-9]+)?)(?: months?(?: ago)?)?"
)


@dataclass(frozen=True)
class CicFigures:
    """values: name (of `NAMES`) → printed value; phase: a name of PHASES, None where it is undefined; analogue: a name
    of `ANALOGUES`. Φ in nats, balance in nats a year, horizon and transition in months (ago), taus -1..1, the rest
    0..1."""

    values: dict[str, Decimal]
    phase: str | None
    analogue: str

    def lines(self) -> list[str]:
        """The three lines as a prompt prints them."""
        lines = []
        for section, names in CIC_SECTIONS.items():
            figures = [f"{name} {_written(name, self.values[name])}" for name in names if name in self.values]
            if section == "PHASE" and self.phase:
                figures.insert(0, self.phase)
            if section == "OUTLOOK":
                figures.insert(2, f"analogue {self.analogue}")
            lines.append(f"{section}: {', '.join(figures) or 'none'}")
        return lines

    @property
    def printed(self) -> dict[str, Decimal | str]:
        """Metric name → value; the analogue counts as a figure."""
        return self.values | {"analogue": self.analogue}

    @property
    def derived(self) -> dict[str, Decimal]:
        """Metric name → value, computed from the printed figures in decimal arithmetic, halves to even:

        λH = 0.3·H (exact) and γC = 0.25·C to three decimals; net = Φ − λH; F = net + γC, so that the printed sum
        adds up exactly and lies within 0.0005 of Φ − 0.3·H + 0.25·C; confidence = min(agreement, 0.95);
        decayed = confidence·e^(−0.1·horizon) to two decimals.
        """
        values = self.values
        confidence = min(values["agreement"], _CAP)
        figures = {"confidence": confidence, "decayed": decayed(confidence, int(values["horizon"]))}
        if "Φ" in values:
            figures["λH"] = _LAMBDA * values["H"]
            figures["γC"] = (_GAMMA * values["C"]).quantize(_THOUSANDTH, ROUND_HALF_EVEN)
            figures["net"] = values["Φ"] - figures["λH"]
            figures["F"] = figures["net"] + figures["γC"]
        return figures

    @property
    def words(self) -> dict[str, str]:
        """Kind of word → what a briefing should say, by the rules at the head of this page; a kind without figures
        is left out. cap: "below" need not be said."""
        values = self.values
        words = {"match": match_word(values["distance"]), "phase": (self.phase or "undefined").lower()}
        words["cap"] = "capped" if values["agreement"] > _CAP else "below"
        if "Φ" in values:
            words["net"] = net_words(values["balance"])[0]
        else:
            words["functional"] = "undefined"
        if self.phase is not None:
            words["heat"], words["order"] = state_words(values)
        if warning := warning_words(values):
            words["warning"] = warning.lower()
        if "temperature" in values:
            words["transition"] = "yes" if "transition" in values else "none"
        return words


def months(count: Decimal) -> str:
    """A whole number of months in words."""
    return f"{count} month{'s' * (count != 1)}"


def _written(name: str, value: Decimal) -> str:
    """A figure as it is printed."""
    if name in ("horizon", "transition"):
        return months(Decimal(f"{value:.0f}")) + " ago" * (name == "transition")
    return f"{value:.{decimals(name)}f}"


def decimals(name: str) -> int:
    """Decimal places of a figure: Kendall's τ over a few years carries no second one."""
    return 0 if name in ("horizon", "transition") else 1 if name.startswith("tau") else 2


@lru_cache(1 << 12)
def _figure(text: str) -> tuple[str, Any]:
    """Name and value of a figure as a prompt prints it, phase and analogue included; "" and what is wrong otherwise."""
    if text in PHASES:
        return "phase", text
    if text.startswith("analogue "):
        return (
            ("analogue", text[9:]) if text[9:] in ANALOGUES else ("", f"{text[:60]!r} is none of the known analogues")
        )
    match = _FIGURE.fullmatch(text)
    name, value = (match[1], Decimal(match[2])) if match else ("", Decimal())
    if not match or text != f"{name} {_written(name, value)}":
        return "", f"{text[:40]!r} is no figure of this line"
    if not _LOWEST.get(name, 0) <= value <= _HIGHEST.get(name, 1):
        return "", f"{text!r} is out of range"
    return name, value


def figures_of(line: str, read: Callable[[str], tuple[str, Any]]) -> dict[str, Any]:
    """Name → value of a prompt's line, in its order.

    Raises:
        ElleError: `read` finds no figure in a part of it, or one twice.
    """
    body = line.partition(": ")[2]
    parts = [] if body == "none" else body.split(", ")
    figures = dict([read(part) for part in parts])
    if "" in figures:
        raise bad_line(figures[""], line)
    if len(figures) < len(parts):
        names = [read(part)[0] for part in parts]
        raise bad_line(f"{next(name for name in names if names.count(name) > 1)!r} appears twice", line)
    return figures


@cache
def _factor(months: int) -> Decimal:
    return (-_DECAY * months).exp()


def decayed(confidence: Decimal, months: int) -> Decimal:
    """Confidence after `months`: C₀·e^(−0.1·t), to two decimals."""
    return (confidence * _factor(months)).quantize(_HUNDREDTH, ROUND_HALF_EVEN)


def bad_line(why: str, line: str) -> ElleError:
    """The error for a line that is not in a prompt's format."""
    return ElleError(
        f"this prompt is not in the project's format: {why}",
        where=f"prompt line {line[:80]!r}",
        fix="compare with the prompts that data/README.md shows",
    )


def parse_lines(lines: list[str]) -> CicFigures:
    """Read three lines back: `parse_lines(figures.lines()) == figures`.

    Raises:
        ElleError: naming the line that is not of this format, or the figure that is missing or out of range.
    """
    values: dict[str, Any] = {}
    for line, known in zip(lines, _KNOWN, strict=True):
        figures = figures_of(line, _figure)
        if not figures.keys() <= known:
            raise bad_line(f"{min(figures.keys() - known)!r} is no figure of this line", line)
        values |= figures
    phase, analogue = values.pop("phase", None), values.pop("analogue", None)
    if phase and not lines[1].startswith(f"PHASE: {phase}"):
        raise bad_line("the phase comes first", lines[1])
    for name in ("agreement", "horizon", "distance"):
        if name not in values:
            raise bad_line(f"it needs {name}", lines[2])
    if analogue is None:
        raise bad_line("it needs an analogue", lines[2])
    if "Φ" in values and not {"H", "C"} <= values.keys():
        raise bad_line("Φ needs H and C beside it", lines[0])
    if (phase is not None) != all(name in values for name in _PHASE_NEEDS):
        raise bad_line(f"a phase needs {', '.join(_PHASE_NEEDS)}, and they a phase", lines[1])
    return CicFigures(values, phase, analogue)


_STEADY, _RISING = Decimal("0.05"), Decimal("0.3")
_CLOSE, _LOOSE = Decimal("0.15"), Decimal("0.25")
#: Of no, one and two rising taus, before a transition and after it; the first of each cites no tau.
_EARLY = ("No early warning", "Mixed signals", "Early warning")
_LATE = ("Signals low", "Mixed signals", "Signals high")
UNCITED = (_EARLY[0], _LATE[0])


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
