"""What making a data set costs: `python benchmarks/data.py` (a minute), on one core, writing JSONL included.

Rates are the best of three runs (one of the tenfold), by the clock and by the processor's time: what else the machine
does slows down the one, hardly the other. Beside them, in the same run, a straightforward loop: the same model and the
same texts, one example at a time, each with a generator of its own, checked by the schema and written by `json.dumps`.
Then what ten times as many examples take: 10 where the cost is linear. Memory is the peak of a process that makes one
set.
"""

import os

os.environ |= {name: "1" for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")}

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from elle.briefings import cic_writer, dataset, scenario, world, writer
from elle.briefings.metrics import render
from elle.briefings.schema import Example

_PEAK = """
import resource, sys
from elle.briefings import dataset
dataset.build(sys.argv[1], int(sys.argv[2]), 1, sys.argv[3])
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""


def seconds(kind: str, count: int, runs: int) -> tuple[float, float]:
    """The least of `runs`: by the clock, and of the processor."""
    times = []
    for _ in range(runs):
        with tempfile.TemporaryDirectory() as folder:
            began = time.perf_counter(), time.process_time()
            dataset.build(kind, count, 1, Path(folder) / "set")
            times.append((time.perf_counter() - began[0], time.process_time() - began[1]))
    clock, processor = zip(*times, strict=True)
    return min(clock), min(processor)


def one_by_one(kind: str, count: int) -> float:
    """Examples a second of the processor, by the loop."""
    drawer, author = {"basic": (scenario, writer), "cic": (world, cic_writer)}[kind]
    with tempfile.TemporaryFile("w", encoding="utf-8") as file:
        began = time.process_time()
        for index in range(count):
            rng = np.random.default_rng([1, index])
            (metrics,) = drawer.draw(rng, 1)
            answer = author.answer(metrics, writer.picker(rng.random(writer.CHOICES)))
            example = Example(f"{kind}-1-{index}", author.SYSTEM_PROMPT, render(metrics), answer)
            file.write(json.dumps(example.row(), ensure_ascii=False) + "\n")
        file.flush()
        return count / (time.process_time() - began)


def peak(kind: str, count: int) -> float:
    """Megabytes."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-c", _PEAK, kind, str(count), f"{folder}/set"]
        return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def main() -> None:
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    print("| set | examples | a second | a CPU second | one by one | ratio | ten times as many | peak memory (MB) |")
    print("|---|---|---|---|---|---|---|---|")
    for kind, count, single in (("basic", 10_000, 2000), ("cic", 2_048, 300)):
        loop = one_by_one(kind, single)
        clock, processor = seconds(kind, count, 3)
        rate, (_, ten) = count / processor, seconds(kind, 10 * count, 1)
        print(
            f"| {kind} | {count:,} | {count / clock:,.0f} | {rate:,.0f} | {loop:,.0f} | {rate / loop:.0f} | "
            f"{ten / processor:.1f} times as long | {peak(kind, count):.0f}, then {peak(kind, 10 * count):.0f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
