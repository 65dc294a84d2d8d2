"""Long trials of what `make test` tries shortly: `make soak`, or `python benchmarks/soak.py [--count 100000]`.

The evaluator: `count` targets with one digit changed, none of which may pass; a fifth as many untouched targets of
another seed, all of which must; `count` damaged outputs, none of which may crash it; and outputs of endless
repetitions, 0.25 and 1 MB long, whose times say whether reading them is linear. Writes `docs/soak.json`, and
`docs/soak.md` made from it.

Exit code 1 where anything was missed.
"""

import argparse
import datetime
import importlib
import json
import platform
import random
import sys
import time
from collections.abc import Callable, Iterator
from importlib.metadata import version

from helpers import jsonl, paths
from helpers.briefings import dataset
from helpers.evaluation.hostile import ENDLESS, change_digit, damage, endless
from helpers.evaluation.parsing import MAX_BYTES
from helpers.evaluation.records import Record, judge

#: Rows of each kind that outputs are made from.
ROWS = 1000


def rows(seed: int, count: int) -> Iterator[tuple[str, str]]:
    """(prompt, answer) of `count` rows, half basic, half CIC."""
    for kind in ("basic", "cic"):
        for index in range(count // 2):
            _, prompt, answer = (turn["value"] for turn in dataset.row(kind, seed, index)["conversations"])
            yield prompt, answer


def right(record: Record) -> int:
    return sum(found.ok for found in record.findings)


def recalled(record: Record) -> int:
    return record.counts["numeric_recall"][0] + record.counts["derived_recall"][0]


def seen(before: Record, after: Record) -> bool:
    """Whether a changed digit was: a number is wrong, fewer are right, recall fell, the briefing is not all right."""
    return (
        any(not found.ok for found in after.findings)
        and right(after) < right(before)
        and recalled(after) < recalled(before)
        and after.counts["all_right"] == (0, 1)
    )


def trial(count: int, once: Callable[[], str], seed: int) -> dict:
    """`once`, `count` times; it returns what went wrong, or ""."""
    began, slowest, faults = time.perf_counter(), 0.0, []
    for number in range(count):
        at = time.perf_counter()
        if fault := once():
            faults.append(fault[:2000])
        slowest = max(slowest, time.perf_counter() - at)
        if number % 5000 == 4999:
            print(f"  {number + 1:,} of {count:,}, {len(faults)} faults", file=sys.stderr, flush=True)
    seconds = time.perf_counter() - began
    return {
        "count": count,
        "faults": len(faults),
        "first": faults[:3],
        "seconds": round(seconds, 1),
        "slowest_ms": round(1000 * slowest, 1),
        "seed": seed,
    }


def evaluator(count: int, seed: int) -> dict:
    pick = random.Random(seed)
    made = [(prompt, answer, judge("x", prompt, answer, answer)) for prompt, answer in rows(seed, 2 * ROWS)]
    others = rows(seed + 1, count // 5)

    def untouched() -> str:
        prompt, answer = next(others)
        record = judge("x", prompt, answer, answer)
        return "; ".join(record.reasons) or ("" if record.counts["all_right"] == (1, 1) else answer)

    def changed() -> str:
        prompt, answer, before = pick.choice(made)
        output = change_digit(answer, pick)
        return "" if seen(before, judge("x", prompt, answer, output)) else output

    def damaged() -> str:
        prompt, answer, _ = pick.choice(made)
        output = damage(answer, pick)
        try:
            record = judge("x", prompt, answer, output)
            json.dumps(record.to_json(), allow_nan=False, ensure_ascii=False).encode()
        except Exception as error:  # whatever it is, it is the fault looked for
            return f"{type(error).__name__}: {error}: {output!r}"
        return "" if all(0 <= top <= bottom for top, bottom in record.counts.values()) else f"counts: {output!r}"

    return {
        "untouched targets, wrongly flagged": trial(count // 5, untouched, seed + 1),
        "one digit changed, missed": trial(count, changed, seed),
        "damaged outputs, crashes": trial(count, damaged, seed),
    }


def growth(sizes: tuple[int, int] = (250_000, 990_000)) -> list[dict]:
    """Seconds for outputs of endless repetitions, and how often as long the longer one takes: 4 is linear."""
    prompt, answer = list(rows(0, 2))[1]
    found = []
    for unit in ENDLESS:
        for key in (None, "summary"):
            taken = []
            for size in sizes:
                output = endless(unit, size, key)
                while len(output.encode()) > MAX_BYTES:
                    output = endless(unit, size := size // 2, key)
                best = 9e9
                for _ in range(2):
                    at = time.process_time()
                    judge("x", prompt, answer, output)
                    best = min(best, time.process_time() - at)
                taken.append(best)
            ratio = taken[1] / max(taken[0], 1e-4)
            found.append(
                {"unit": unit, "in": key or "the output", "seconds": round(taken[1], 3), "ratio": round(ratio, 1)}
            )
    return sorted(found, key=lambda each: -each["seconds"])


def page(found: dict) -> str:
    lines = [
        "# Soak",
        "",
        f"`make soak` on {found['date']}: Python {found['python']}, elle {found['elle']}, "
        f"{found['seconds'] / 60:.0f} minutes on one core of {found['machine']}, shared with other work.",
        "",
        "## The evaluator",
        "",
        "| trial | inputs | faults | a second | slowest (ms) |",
        "|---|---|---|---|---|",
    ]
    lines += [
        f"| {name} | {each['count']:,} | {each['faults']} | {each['count'] / max(each['seconds'], 0.1):,.0f} | "
        f"{each['slowest_ms']:,} |"
        for name, each in found["evaluator"].items()
    ]
    lines += [
        "",
        "A changed digit is seen where a number is wrong, fewer are right, recall fell and the briefing is not all",
        "right. The rates include the making of the input, and of a damaged one its record as JSON.",
        "",
        "Outputs of just under 1 MB of one repetition, the ten slowest of "
        f"{len(found['growth'])}; the ratio is to a quarter of the length, so that 4 is linear:",
        "",
        "| repeated | in | seconds | ratio |",
        "|---|---|---|---|",
        *(
            f"| `{json.dumps(each['unit'])}` | {each['in']} | {each['seconds']} | {each['ratio']} |"
            for each in found["growth"][:10]
        ),
        "",
    ]
    return "\n".join(lines)


#: Trials of their own, each with a `section(found)` of the page, made of `docs/NAME.json`.
PARTS = ("soak_pod",)


def write() -> None:
    """`docs/soak.md`, of what the trials have left in `docs/`."""
    folder = paths.root() / "docs"
    text = page(jsonl.read_json(folder / "soak.json"))
    for name in PARTS:
        if (folder / f"{name}.json").exists():
            lines = importlib.import_module(name).section(jsonl.read_json(folder / f"{name}.json"))
            text += "\n" + "\n".join(lines)
    jsonl.write_text(folder / "soak.md", text)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    began = time.perf_counter()
    found = {
        "date": datetime.date.today().isoformat(),
        "python": platform.python_version(),
        "elle": version("elle"),
        "machine": platform.machine(),
        "evaluator": evaluator(arguments.count, arguments.seed),
        "growth": growth(),
    }
    found["seconds"] = round(time.perf_counter() - began)
    print(page(found))
    jsonl.write_json(paths.root() / "docs" / "soak.json", found)
    write()
    return int(any(each["faults"] for each in found["evaluator"].values()))


if __name__ == "__main__":
    sys.exit(main())
