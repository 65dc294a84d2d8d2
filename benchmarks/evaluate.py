"""Briefings judged a second, on one core: `python benchmarks/evaluate.py`, beside `json.loads` and `jsonschema` alone.

The outputs are other wordings of the same figures than the references, and one in ten is wrong. The same outputs go
through all three in turn, five times; the first pass (nothing kept from before) and the best one are given.
"""

import json
import os
import random
import time
from collections import deque
from collections.abc import Callable

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


def main() -> None:
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
