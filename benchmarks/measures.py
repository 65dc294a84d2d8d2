"""What the costly measures of the CIC framework cost as n grows: `python benchmarks/measures.py` (about a minute).

Each table gives the best of three runs, the growth over the row before, and the ratio to a straightforward
implementation of the same thing in the same run, where that one ends in a reasonable time.
"""

import itertools
import math
import time
from collections.abc import Callable

import numpy as np

from cic import causality, information, systems


def seconds(call: Callable[[], object], repeats: int = 3) -> float:
    best = math.inf
    for _ in range(repeats):
        began = time.perf_counter()
        call()
        best = min(best, time.perf_counter() - began)
    return best


def table(title: str, rows: list[tuple[str, float, float | None]], straight: str) -> None:
    print(f"\n{title}\n\n| n | seconds | growth | {straight} |\n|---|---|---|---|")
    before = None
    for n, ours, theirs in rows:
        growth = f"× {ours / before:.1f}" if before else ""
        print(f"| {n} | {ours:.3g} | {growth} | {f'{theirs / ours:.0f} times as long' if theirs else ''} |")
        before = ours


def bipartition_one_by_one(covariance: np.ndarray) -> float:
    n, whole = len(covariance), np.linalg.slogdet(covariance)[1]
    best = math.inf
    for size in range(1, n // 2 + 1):
        for side in itertools.combinations(range(n), size):
            rest = [i for i in range(n) if i not in side]
            parts = (covariance[np.ix_(part, part)] for part in (side, rest))
            best = min(best, 0.5 * (sum(np.linalg.slogdet(part)[1] for part in parts) - whole))
    return best


def ising_spin_by_spin(size: int, sweeps: int, rng: np.random.Generator) -> np.ndarray:
    spins = np.ones((size, size), int).tolist()
    for _ in range(sweeps):
        for i in range(size):
            for j in range(size):
                total = spins[i - 1][j] + spins[(i + 1) % size][j] + spins[i][j - 1] + spins[i][(j + 1) % size]
                spins[i][j] = 1 if rng.random() < 1 / (1 + math.exp(-2 * total / 2.269)) else -1
    return np.array(spins)


def main() -> None:
    rng = np.random.default_rng(0)

    rows = []
    for n in (4, 8, 12, 16, 20):
        samples = rng.normal(size=(3 * n, n))
        covariance = samples.T @ samples
        ours = seconds(lambda c=covariance: information.minimum_information_bipartition(c))
        rows.append((str(n), ours, seconds(lambda c=covariance: bipartition_one_by_one(c), 1) if n <= 12 else None))
    table("Minimum information bipartition: 2ⁿ minors", rows, "one by one")

    rows = []
    for batch in (1, 100, 10_000):
        samples = rng.normal(size=(batch, 24, 8))
        covariances = samples.swapaxes(1, 2) @ samples
        ours = seconds(lambda c=covariances: information.minimum_information_bipartition(c))
        alone = seconds(lambda c=covariances: [information.minimum_information_bipartition(x) for x in c[:100]], 1)
        rows.append((str(batch), ours, alone * batch / min(batch, 100)))
    table("The same of 8 variables, over a batch: linear", rows, "not as a batch")

    rows = []
    for n in (4, 6, 8, 9, 10):
        P = rng.dirichlet(np.ones(n), n)
        rows.append((str(n), seconds(lambda P=P: causality.causal_emergence(P), 1), None))
    table(
        "Causal emergence, all coarse-grainings: Bell's numbers (15, 203, 4140, 21147, 115975)",
        rows,
        "(nothing to compare with: it is the enumeration)",
    )

    rows = []
    for size in (16, 32, 64, 128):
        ours = seconds(lambda s=size: systems.ising([2.269] * 4, s, 4, 20, np.random.default_rng(0), settle=0), 2) / 320
        straight = seconds(lambda s=size: ising_spin_by_spin(s, 2, rng), 1) / 2 if size <= 64 else None
        rows.append((f"{size} × {size}", ours, straight))
    table("A sweep of an Ising lattice, 16 lattices at once: linear in spins", rows, "spin by spin")


if __name__ == "__main__":
    main()
