"""Briefings judged a second, on one core: `python benchmarks/evaluate.py`, beside `json.loads` and `jsonschema` alone.

The outputs are other wordings of the same figures than the references, and one in ten is wrong. The same outputs go
through all three in turn, five times; the first pass (nothing kept from before) and the best one are given.

`--against FOLDER` (another checkout) judges the same CIC outputs with both, in turn on one core, and prints how often
as fast this one is: on rows that are judged for the first time, 500 by 500, and on the same rows again.
"""

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

if hasattr(os, "sched_setaffinity"):
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})

import jsonschema
import numpy as np
from hostile import change_digit

from elle.briefings import cic_writer, dataset, writer
from elle.briefings.metrics import parse
from elle.briefings.schema import Briefing, CicBriefing, Example, json_schema
from elle.evaluation.verdict import judge


def cases(kind: str, count: int, seed: int = 0) -> list[tuple[str, str, str]]:
    """(prompt, reference, output)."""
    pick, rng, made = random.Random(seed), np.random.default_rng(seed), []
    for index in range(count):
        _, _, prompt, reference = Example.of(dataset.row(kind, seed, index))
        write = writer if kind == "basic" else cic_writer
        output = write.answer(parse(prompt), writer.picker(rng.random(40)))
        made.append((prompt, reference, _wrong(output, pick) if index % 10 == 0 else output))
    return made


def _wrong(output: str, pick: random.Random) -> str:
    """A changed digit, a fence, or a cut-off end."""
    kind = pick.randrange(3)
    return change_digit(output, pick) if kind == 0 else f"```json\n{output}\n```" if kind == 1 else output[:-50]


def schema_alone(validator: jsonschema.Draft202012Validator, output: str) -> bool:
    try:
        return validator.is_valid(json.loads(output))
    except (ValueError, RecursionError):
        return False


def rates(count: int, *calls: Callable[[], object]) -> list[tuple[float, float]]:
    """For each call (first pass, best of five), in briefings a second of processor time."""
    taken: list[list[float]] = [[] for _ in calls]
    for _ in range(5):
        for call, times in zip(calls, taken, strict=True):
            began = time.process_time()
            call()
            times.append(time.process_time() - began)
    return [(count / times[0], count / min(times)) for times in taken]


#: Judges parts of the CIC rows as it is told to, and says how many seconds of processor time each took.
WORKER = """
import sys, time
from evaluate import cases, judge
rows = cases("cic", 6000)
print(flush=True)
for line in sys.stdin:
    part = rows[int(line) : int(line) + 500]
    began = time.process_time()
    for each in part:
        judge("x", *each)
    print(time.process_time() - began, flush=True)
"""


def worker(folder: Path) -> Callable[[int], float]:
    """Seconds that the checkout in `folder` takes for 500 rows from a place on."""
    paths = os.pathsep.join(str(folder / name) for name in ("src", "benchmarks"))
    process = subprocess.Popen(
        [sys.executable, "-c", WORKER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": paths, "ELLE_ROOT": str(folder)},
    )
    process.stdout.readline()

    def seconds(place: int) -> float:
        print(place, file=process.stdin, flush=True)
        return float(process.stdout.readline())

    return seconds


def against(other: Path) -> None:
    theirs, ours = worker(other), worker(Path(__file__).parents[1])
    once = [(theirs(place), ours(place)) for place in range(0, 6000, 500)]
    again = [(theirs(5500), ours(5500)) for _ in range(8)]
    for name, pairs in (("the first 500", once[:1]), ("the next 5,500", once[1:]), ("the same again", again[1:])):
        ratio = statistics.median(before / now for before, now in pairs)
        print(f"{name}: {ratio:.2f} times as fast, {500 / min(now for _, now in pairs):,.0f} a second")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--against", type=Path, metavar="FOLDER")
    if other := parser.parse_args().against:
        against(other.resolve())
        return
    print("| rows | briefings | all right | judged a second: first pass, best | `json.loads` + `jsonschema` | ratio |")
    print("|---|---|---|---|---|---|")
    for kind, model in (("basic", Briefing), ("cic", CicBriefing)):
        made = cases(kind, 2000)
        validator = jsonschema.Draft202012Validator(json_schema(model))
        (first, ours), (_, alone) = rates(
            len(made),
            lambda made=made: deque((judge("x", *case) for case in made), maxlen=0),
            lambda made=made, v=validator: deque((schema_alone(v, output) for _, _, output in made), maxlen=0),
        )
        good = sum(judge("x", *case).counts["all_right"][0] for case in made)
        print(f"| {kind} | {len(made):,} | {good:,} | {first:,.0f}, {ours:,.0f} | {alone:,.0f} | {alone / ours:.1f} |")


if __name__ == "__main__":
    main()
