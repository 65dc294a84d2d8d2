"""Is a training run healthy? Each measure with its healthy range, this run's value, a verdict and what to do.

The words to each measure are those of `configs/health.yaml`.
"""

import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from elle.base.yaml_files import config_table
from elle.training import history as histories

Verdict = Literal["healthy", "red flag", "not measured"]
#: A run shorter than so many logs of the loss says little.
ENOUGH = 5


@dataclass(frozen=True)
class Row:
    """One measure of a run: this run's value and verdict, the healthy range, the red flag, the fix."""

    measure: str
    value: str
    verdict: Verdict
    healthy: str
    red_flag: str
    fix: str


def check_health(history: list[dict], examples: Mapping[str, Mapping[str, int]] | None = None) -> list[Row]:
    """A run against the table of healthy ranges.

    Args:
        history: as `history.read_history` gives it.
        examples: rows and kept examples by split (`launch.counts`).
    """
    measured = {
        "loss": _loss(_values(history, "loss")),
        "spikes": _spikes(history),
        "validation": _validation(_values(history, "eval_loss")),
        "gradient norm": _gradient(_values(history, "grad_norm")),
        "warm-up": _warm_up(history),
        "decay": _decay(_values(history, "learning_rate")),
        "tokens/s": _speed(history),
        "figures copied": _copied(_values(history, "digit_accuracy")),
        "examples kept": _kept(examples or {}),
    }
    verdicts: dict[bool | None, Verdict] = {True: "healthy", False: "red flag", None: "not measured"}
    words = config_table("health")
    return [Row(name, value, verdicts[holds], **words[name]) for name, (value, holds) in measured.items()]


#: A value in words, and whether it is healthy; None: too little is known.
Measured = tuple[str, bool | None]
UNKNOWN: Measured = ("–", None)


def _values(history: list[dict], key: str) -> list[float]:
    return [row[key] for row in history if row.get(key) is not None]


def _loss(losses: list[float]) -> Measured:
    if not losses:
        return UNKNOWN
    value = f"{losses[0]:.3g} → {losses[-1]:.3g}"
    if not all(map(math.isfinite, losses)):
        return value, False
    return value, losses[-1] < 0.95 * losses[0] if len(losses) >= ENOUGH else None


def _spikes(history: list[dict]) -> Measured:
    logs = [row for row in history if row.get("loss") is not None]
    if len(logs) <= ENOUGH:
        return UNKNOWN
    jumps = []
    for place in range(ENOUGH, len(logs)):
        usual = statistics.median(row["loss"] for row in logs[place - ENOUGH : place])
        if not logs[place]["loss"] <= 1.5 * usual + 0.1:  # NaN too
            jumps.append(logs[place]["step"])
    return f"at step {', '.join(map(str, jumps[:5]))}" if jumps else "none", not jumps


def _validation(losses: list[float]) -> Measured:
    if len(losses) < 2:
        return UNKNOWN
    lowest = min(losses)
    return f"{losses[-1]:.3g}, lowest {lowest:.3g}", losses[-1] <= lowest + max(0.05 * lowest, 0.02)


def _gradient(norms: list[float]) -> Measured:
    if len(norms) < ENOUGH:
        return UNKNOWN
    last = norms[-max(1, len(norms) // 4) :]
    usual = statistics.median(norms)
    holds = all(math.isfinite(norm) and norm <= 10 * usual for norm in last)
    return f"median {usual:.2g}, at the end up to {max(last):.2g}", holds


def _warm_up(history: list[dict]) -> Measured:
    logs = [row for row in history if row.get("learning_rate") is not None]
    if len(logs) < ENOUGH:
        return UNKNOWN
    first_highest = max(logs, key=lambda row: row["learning_rate"])
    share = first_highest["step"] / history[-1]["of"]
    return f"{share:.0%} of the steps", share <= 0.15


def _decay(rates: list[float]) -> Measured:
    if len(rates) < ENOUGH:
        return UNKNOWN
    left = rates[-1] / max(rates) if max(rates) else 0.0
    return f"{left:.0%} of the highest rate", left < 0.5


def _speed(history: list[dict]) -> Measured:
    paces = [value for _, value in histories.rates(history)]
    if len(paces) < 2 * ENOUGH:
        return f"{histories.rate(history):,.0f}" if paces else "–", None
    third = len(paces) // 3
    first, last = statistics.median(paces[:third]), statistics.median(paces[-third:])
    return f"{first:,.0f} → {last:,.0f}", last > 0.7 * first


def _copied(shares: list[float]) -> Measured:
    return (f"{shares[-1]:.0%}", shares[-1] >= 0.9) if shares else UNKNOWN


def _kept(examples: Mapping[str, Mapping[str, int]]) -> Measured:
    train = examples.get("train")
    return (f"{train['kept']:,} of {train['rows']:,}", train["kept"] == train["rows"]) if train else UNKNOWN
