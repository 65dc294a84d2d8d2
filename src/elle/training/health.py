"""Is a training run healthy? Each measure with its healthy range, this run's value, a verdict and what to do."""

import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from elle.training import history as histories

Verdict = Literal["healthy", "red flag", "not measured"]
#: A run shorter than so many logs of the loss says little.
ENOUGH = 5


@dataclass(frozen=True)
class Row:
    """One measure of a run: its healthy range, the red flag, the fix, and this run's value and verdict."""

    measure: str
    value: str
    verdict: Verdict
    healthy: str
    red_flag: str
    fix: str


#: measure → (healthy range, red flag, fix)
TABLE = {
    "loss": (
        "falls: the last below 0.95 of the first",
        "does not fall, or is no number",
        "is anything trained on (labels)? a rate too low, or too high: change `learning_rate` threefold",
    ),
    "spikes": (
        "no log above 1.5 times the median of the five before it, plus 0.1",
        "the loss jumps up, the rate is too high or a batch is faulty",
        "lower `learning_rate`, lengthen the warm-up, keep `max_grad_norm: 1.0`",
    ),
    "validation": (
        "the last within 5 % (or 0.02) of the lowest",
        "rises while the training loss falls: it learns by heart",
        "stop at the best checkpoint: fewer epochs, more data, a lower rank or rate",
    ),
    "gradient norm": (
        "finite, and in the last quarter below 10 times the run's median",
        "grows, or is no number",
        "lower `learning_rate`; look at the examples of that step",
    ),
    "warm-up": (
        "the highest rate is reached within the first 15 % of the steps",
        "a run that ends before, or hardly after, its warm-up",
        "`warmup_ratio: 0.03` to 0.1, or fewer `warmup_steps`",
    ),
    "decay": (
        "the rate ends below half of its highest",
        "stopped in mid-schedule: the last of the loss is not taken",
        "let it run to its end; `max_steps` and the scheduler's steps must agree",
    ),
    "tokens/s": (
        "the last third above 0.7 of the first",
        "slows down: another program, heat, or a data loader that lags behind",
        "`nvidia-smi` (or `top`); more `dataloader_num_workers`",
    ),
    "figures copied": (
        "at least 0.9 of the digits right",
        "words without figures: copying is not learned",
        "train longer: it is learned late and abruptly; or quote the figures as the prompt prints them",
    ),
    "examples kept": (
        "all",
        "rows are dropped: too long, or nothing to train on",
        "raise `sequence_len`; `elle data audit` looks at each row",
    ),
}


def check_health(history: list[dict], examples: Mapping[str, Mapping[str, int]] | None = None) -> list[Row]:
    """A run against the table of healthy ranges.

    Args:
        history: as `history.read_history` gives it.
        examples: rows and kept examples by split (`launch.counts`).
    """
    found = {
        "loss": _loss(history),
        "spikes": _spikes(history),
        "validation": _validation(history),
        "gradient norm": _gradient(history),
        "warm-up": _warm_up(history),
        "decay": _decay(history),
        "tokens/s": _speed(history),
        "figures copied": _copied(history),
        "examples kept": _kept(examples or {}),
    }
    rows = []
    for measure, (value, holds) in found.items():
        verdict: Verdict = "not measured" if holds is None else "healthy" if holds else "red flag"
        rows.append(Row(measure, value, verdict, *TABLE[measure]))
    return rows


Measured = tuple[str, bool | None]


def _series(history: list[dict], key: str) -> list[tuple[int, float]]:
    return [(row["step"], row[key]) for row in history if row.get(key) is not None]


def _loss(history: list[dict]) -> Measured:
    losses = [value for _, value in _series(history, "loss")]
    if not losses:
        return "–", None
    said = f"{losses[0]:.3g} → {losses[-1]:.3g}"
    if not all(map(math.isfinite, losses)):
        return said, False
    return said, losses[-1] < 0.95 * losses[0] if len(losses) >= ENOUGH else None


def _spikes(history: list[dict]) -> Measured:
    losses = _series(history, "loss")
    if len(losses) <= ENOUGH:
        return "–", None
    jumps = []
    for place in range(ENOUGH, len(losses)):
        usual = statistics.median(value for _, value in losses[place - ENOUGH : place])
        step, value = losses[place]
        if not value <= 1.5 * usual + 0.1:  # NaN too
            jumps.append(step)
    return f"at step {', '.join(map(str, jumps[:5]))}" if jumps else "none", not jumps


def _validation(history: list[dict]) -> Measured:
    values = [value for _, value in _series(history, "eval_loss")]
    if len(values) < 2:
        return "–", None
    lowest = min(values)
    return f"{values[-1]:.3g}, lowest {lowest:.3g}", values[-1] <= lowest + max(0.05 * lowest, 0.02)


def _gradient(history: list[dict]) -> Measured:
    norms = [value for _, value in _series(history, "grad_norm")]
    if len(norms) < ENOUGH:
        return "–", None
    last = norms[-max(1, len(norms) // 4) :]
    usual = statistics.median(norms)
    return f"median {usual:.2g}, at the end up to {max(last):.2g}", all(
        math.isfinite(value) and value <= 10 * usual for value in last
    )


def _warm_up(history: list[dict]) -> Measured:
    rates = _series(history, "learning_rate")
    if len(rates) < ENOUGH:
        return "–", None
    step = max(rates, key=lambda pair: pair[1])[0]  # the first at the highest
    share = step / history[-1]["of"]
    return f"{share:.0%} of the steps", share <= 0.15


def _decay(history: list[dict]) -> Measured:
    rates = [value for _, value in _series(history, "learning_rate")]
    if len(rates) < ENOUGH:
        return "–", None
    left = rates[-1] / max(rates) if max(rates) else 0.0
    return f"{left:.0%} of the highest rate", left < 0.5


def _speed(history: list[dict]) -> Measured:
    paces = [value for _, value in histories.rates(history)]
    if len(paces) < 2 * ENOUGH:
        return f"{histories.rate(history):,.0f}" if paces else "–", None
    third = len(paces) // 3
    first, last = statistics.median(paces[:third]), statistics.median(paces[-third:])
    return f"{first:,.0f} → {last:,.0f}", last > 0.7 * first


def _copied(history: list[dict]) -> Measured:
    values = [value for _, value in _series(history, "digit_accuracy")]
    return (f"{values[-1]:.0%}", values[-1] >= 0.9) if values else ("–", None)


def _kept(examples: Mapping[str, Mapping[str, int]]) -> Measured:
    train = examples.get("train")
    return (f"{train['kept']:,} of {train['rows']:,}", train["kept"] == train["rows"]) if train else ("–", None)
