"""What a training run has done so far, read from the plugin's progress (`progress.jsonl`): logs, pace, dollars."""

import contextlib
import json
import math
from pathlib import Path

#: Axolotl's counters of tokens since the first step, over all GPUs: padding and all, and those trained on.
TOTAL, TRAINED_ON = "tokens/total", "tokens/trainable"
_LOG, _EVALUATION, _SAVE = range(3)


def read_events(path: Path | str) -> list[dict]:
    """All events, in the order in which they were written; [] where there are none yet."""
    events = []
    if Path(path).exists():
        for line in Path(path).read_text(encoding="utf-8").splitlines():
            with contextlib.suppress(json.JSONDecodeError):  # a process was killed while writing its last line
                events.append(json.loads(line))
    return events


def read_history(path: Path | str) -> list[dict]:
    """What was logged, evaluated and saved, in order of steps: one dict each, with `step`, `of`, `seconds` of training
    and `wall` (those, and what it took to start), both over all attempts; and `loss`, `eval_loss`, `digit_accuracy`,
    … or `saved`. After an interruption also `resumed_at`, the step from which its attempt went on.

    Where an interrupted run went back to a checkpoint, the later attempt's steps replace all that came after it.
    """
    rows: dict[tuple[int, int], dict] = {}
    before = last = starting = 0.0
    resumed: dict[str, int] = {}
    for event in read_events(path):
        step = event["step"]
        if event["event"] == "begin":
            if last:
                resumed = {"resumed_at": step}
            before, starting = before + last, starting + event.get("startup", 0.0)
            rows = {key: row for key, row in rows.items() if key[0] <= step}
        last = event["seconds"]
        row = event | {"seconds": before + last, "wall": before + last + starting} | resumed
        if event["event"] == "save":
            rows[step, _SAVE] = row | {"saved": True}
        elif event["event"] == "log" and "digit_accuracy" in event:  # counted after an evaluation: one row for both
            rows[step, _EVALUATION] = rows.get((step, _EVALUATION), {}) | row
        elif event["event"] == "log" and "eval_loss" in event:
            rows[step, _EVALUATION] = row
        elif event["event"] == "log" and "loss" in event:
            rows[step, _LOG] = row
    return [rows[key] for key in sorted(rows)]


def ending(path: Path | str) -> dict:
    """What the plugin wrote when the training ended: parameters, memory; {} before."""
    return next((event for event in reversed(read_events(path)) if event["event"] == "end"), {})


def copying_learned(history: list[dict]) -> int | None:
    """The first evaluated step at which at least nine tenths of the digits are predicted right (`digit_accuracy`:
    teacher-forced, on validation examples), or None. The text of a briefing is learned at once, its figures later."""
    return next((log["step"] for log in history if log.get("digit_accuracy", 0) >= 0.9), None)


def resumed(history: list[dict]) -> list[int]:
    """The steps from which an interrupted run went on."""
    return sorted({row["resumed_at"] for row in history if "resumed_at" in row})


def moments(history: list[dict]) -> dict[str, int]:
    """The steps at which something happened, by name: `copying learned`, `best validation`, `warm-up ends` and `decay
    begins` (the learning rate reaches its highest, and leaves it); those that did not happen are left out."""
    evaluated = [(row["eval_loss"], row["step"]) for row in history if math.isfinite(row.get("eval_loss", math.nan))]
    steps = {"copying learned": copying_learned(history), "best validation": min(evaluated)[1] if evaluated else None}
    schedule = [(row["step"], row["learning_rate"]) for row in history if "learning_rate" in row]
    highest = max((value for _, value in schedule), default=0.0)
    at_top = [step for step, value in schedule if value >= 0.999 * highest]
    if at_top and highest:
        steps["warm-up ends"] = at_top[0] if at_top[0] > schedule[0][0] else None
        steps["decay begins"] = at_top[-1] if at_top[-1] < schedule[-1][0] else None
    return {name: step for name, step in steps.items() if step is not None}


def _windows(history: list[dict]) -> list[tuple[int, float, float]]:
    """(step, tokens, seconds) from one log of the loss to the next; evaluating and saving in between are not in it."""
    windows, before = [], None
    for row in history:
        if TOTAL in row:
            same_attempt = before and before.get("resumed_at") == row.get("resumed_at")
            if same_attempt and row["seconds"] > before["seconds"]:
                tokens, seconds = row[TOTAL] - before[TOTAL], row["seconds"] - before["seconds"]
                windows.append((row["step"], tokens, seconds))
            before = row
        elif before and row["step"] == before["step"]:  # an evaluation, or a checkpoint: the next window begins here
            before = before | {"seconds": row["seconds"]}
    return windows


def rates(history: list[dict]) -> list[tuple[int, float]]:
    """(step, tokens per second up to it since the log before), of all GPUs, padding included."""
    return [(step, tokens / seconds) for step, tokens, seconds in _windows(history)]


def rate(history: list[dict], last: int | None = None) -> float | None:
    """Tokens per second over the whole run or its `last` logs, else as in `rates`; None before the second log."""
    windows = _windows(history)[-(last or 0) :]
    return sum(tokens for _, tokens, _ in windows) / sum(s for *_, s in windows) if windows else None


def tokens(history: list[dict]) -> tuple[int, int]:
    """Tokens so far: all that went through the model (padding included), and those it was trained on (the answers)."""
    row = next((row for row in reversed(history) if TOTAL in row), {})
    return row.get(TOTAL, 0), row.get(TRAINED_ON, 0)


def line(history: list[dict], hourly: float | None = 0.0) -> str:
    """Where a training is, in a line: step, loss, tokens per second, time left, dollars so far.

    hourly: dollars per hour for the whole machine; 0: nothing is paid, None: nobody knows.
    """
    if not history:
        return "the trainer is starting …"
    row = history[-1]
    parts = [f"step {row['step']} of {row['of']}"]
    losses = [entry["loss"] for entry in history if "loss" in entry]
    parts += [f"loss {losses[-1]:.4f}"] if losses else []
    if pace := rate(history, last=5):
        total, trained_on = tokens(history)
        parts.append(f"{pace:,.0f} tokens/s ({trained_on / total:.0%} of them trained on)")
    first = next(entry for entry in history if entry.get("resumed_at") == row.get("resumed_at"))  # of this attempt
    steps, seconds = row["step"] - first["step"], row["seconds"] - first["seconds"]
    if steps > 0 and row["step"] < row["of"]:
        parts.append(f"{seconds / steps * (row['of'] - row['step']):,.0f} s left")
    if hourly is not None:
        parts.append(f"${row['wall'] / 3600 * hourly:,.2f} so far" if hourly else "free")
    return ", ".join(parts)
