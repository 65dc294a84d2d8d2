"""Whether an answer's own arithmetic holds: F and the decayed confidence against the figures that the answer itself
prints, whatever its prompt says."""

from collections.abc import Iterable
from decimal import Decimal

from helpers.briefings.cic_figures import decayed
from helpers.cic.confidence import CAP
from helpers.cic.functional import GAMMA, LAMBDA
from helpers.evaluation.faithfulness import Finding

#: How far F may be from Φ − 0.3·H + 0.25·C: γC is rounded to three decimals before the sum.
F_TOLERANCE = Decimal("0.0005")


def consistency(findings: Iterable[Finding]) -> tuple[int, int]:
    """(how many hold, how many can be checked) of: F = Φ − 0.3·H + 0.25·C, and decayed = confidence·e^(−0.1·horizon).

    Where an answer prints a figure several times, the last one counts. Confidence above the cap never holds.
    """
    found = {item.number.metric: item.number.value for item in findings if item.number.value is not None}
    checks = []
    if {"Φ", "H", "C", "F"} <= found.keys():
        exact = found["Φ"] - Decimal(str(LAMBDA)) * found["H"] + Decimal(str(GAMMA)) * found["C"]
        checks.append(abs(found["F"] - exact) <= F_TOLERANCE)
    if {"confidence", "horizon", "decayed"} <= found.keys():
        bounded = 0 <= found["confidence"] <= Decimal(str(CAP)) and 0 <= found["horizon"] <= 1200
        checks.append(bounded and found["decayed"] == decayed(found["confidence"], int(found["horizon"])))
    return sum(checks), len(checks)
