"""What making a data set costs: `python benchmarks/data.py` (about a minute), on one core, writing JSONL included.

Rates are the best of three runs. The CIC set stands beside a straightforward loop in the same run: the same model and
the same measures, one example at a time. Memory is the peak of a process that makes one set.
"""

import os

os.environ |= {name: "1" for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")}

import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from helpers import jsonl
from helpers.briefings import cic_writer, dataset, world, writer

_PEAK = """
import resource, sys
from helpers.briefings import dataset
dataset.build(sys.argv[1], int(sys.argv[2]), 1, sys.argv[3])
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""


def rate(kind: str, count: int) -> float:
    """Examples a second."""
    best = 0.0
    for _ in range(3):
        with tempfile.TemporaryDirectory() as folder:
            began = time.perf_counter()
            dataset.build(kind, count, 1, Path(folder) / "set")
            best = max(best, count / (time.perf_counter() - began))
    return best


def one_by_one(count: int) -> float:
    """CIC examples a second, each simulated and measured by itself."""

    def rows():
        for index in range(count):
            rng = np.random.default_rng(index)
            (metrics,) = world.draw(rng, 1)
            yield {"id": str(index), "conversations": cic_writer.conversation(metrics, writer.picker(rng.random(40)))}

    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        jsonl.write(Path(folder) / "set.jsonl", rows())
        return count / (time.perf_counter() - began)


def peak(kind: str, count: int) -> float:
    """Megabytes."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-c", _PEAK, kind, str(count), f"{folder}/set"]
        return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def main() -> None:
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    loop = one_by_one(300)
    print("| set | examples | a second | peak memory (MB) | one by one |\n|---|---|---|---|---|")
    for kind, counts in (("basic", (2_000, 20_000)), ("cic", (2_048, 10_240))):
        for count in counts:
            ours = rate(kind, count)
            beside = f"{loop:.0f} a second: {ours / loop:.0f} times as long" if kind == "cic" else ""
            print(f"| {kind} | {count:,} | {ours:,.0f} | {peak(kind, count):.0f} | {beside} |", flush=True)


if __name__ == "__main__":
    main()
