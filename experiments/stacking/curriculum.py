"""The sets of the stacking experiment: sums of decimals with worked steps (stage 1), and short CIC assessments from
printed figures (stage 2), with the sums worked out or plain: the same questions.

Rows and manifests are those of all sets (`dataset`). The split of a row follows from its subtraction (in stage 2 that
of net, Φ − λH) by a hash: what a test asks to subtract was subtracted in no training row of either stage.

A sum has an operand of the size of Φ or net and one of that of λH or γC. Its answer works it out: in a difference the
larger size first, the sign before it; then a step a digit from the right, a borrowed ten before its digit, the carry
after:

    0.04 - 0.216  →  -(0.216-0.040);6-0=6;11-4=7;2-0-1=1;0-0=0;-0.176

Every fifth row of stage 1 is one of 170 products 0.3·H and 0.25·C with its result alone: a table to learn by heart, not
tested.
"""

import functools
import hashlib
import itertools
from collections.abc import Iterator, Mapping
from decimal import ROUND_HALF_EVEN, Decimal
from pathlib import Path

import numpy as np

from elle.base import storage
from elle.base.errors import ElleError, unknown
from elle.briefings import cic_writer, dataset, scenario, world, writer
from elle.briefings.schema import Example

#: Version of the examples: it grows when those of a seed change.
VERSION = 1
VALIDATION = 64  # rows: enough for a curve
PRODUCTS = 0.2
SUM_PROMPT = "Work out the sum, digit by digit."
ASSESSMENT_PROMPT = "Assess the CIC figures, as JSON: {}cic_assessment, confidence_bounds."


def worked(problem: str) -> str:
    """The answer to a sum such as `0.04 - 0.216` or `-0.176 + 0.048` (operands of up to three decimals below 5 in size,
    the second without a sign), or to a product, to three decimals, halves to even."""
    left, operator, right = problem.split(" ")
    if operator == "*":
        return str((Decimal(left) * Decimal(right)).quantize(Decimal("0.001"), ROUND_HALF_EVEN))
    first, second = (int(Decimal(text).scaleb(3)) for text in (left, right))
    second = -second if operator == "-" else second
    minus, total = (first < 0) != (second < 0), first + second
    sizes = (abs(first), abs(second))
    large, small = sorted(sizes, reverse=True) if minus else sizes
    sign = "-" if total < 0 else ""
    steps, carry = [f"{sign}({_decimal(large)}{'-' if minus else '+'}{_decimal(small)})"], 0
    for place in range(4):
        top, bottom = (value // 10**place % 10 for value in (large, small))
        behind = ("-1" if minus else "+1") * carry
        if minus:
            digit, carry = (top - bottom - carry) % 10, int(top < bottom + carry)
            steps.append(f"{'1' * carry}{top}-{bottom}{behind}={digit}")
        else:
            digit = top + bottom + carry
            steps.append(f"{top}+{bottom}{behind}={digit}")
            carry = int(digit > 9)
    return ";".join([*steps, f"{sign}{_decimal(abs(total))}"])


def _decimal(thousandths: int) -> str:
    return f"{thousandths // 1000}.{thousandths % 1000:03d}"


def sums(seed: int, block: int) -> list[str]:
    """The problems of a block: PRODUCTS of them products; of the others half Φ − λH (Φ to two decimals), half net + γC,
    and half of either with a first operand below 0.3 in size, where results change their sign."""
    rng = scenario.generator(seed, block)
    small = rng.random(scenario.BLOCK) < 0.5
    phi = rng.integers(0, np.where(small, 30, 300))
    net = rng.integers(np.where(small, -300, 300), np.where(small, 300, 3000))
    takes = rng.random(scenario.BLOCK) < 0.5
    second = rng.integers(0, np.where(takes, 300, 200))
    product = rng.random(scenario.BLOCK) < PRODUCTS
    factor = rng.integers(0, np.where(takes, 100, 70))
    drawn = zip(*(each.tolist() for each in (product, factor, takes, phi, net, second)), strict=True)
    return [
        f"{'0.3' if t else '0.25'} * 0.{f:02d}"
        if times
        else f"{p // 100}.{p % 100:02d} - {_decimal(s)}"
        if t
        else f"{'-' * (n < 0)}{_decimal(abs(n))} + {_decimal(s)}"
        for times, f, t, p, n, s in drawn
    ]


def _sums(seed: int) -> Iterator[tuple[str, tuple[str, str, str]]]:
    """Without end: the sum that decides the split ("" for a product), and the texts of the example."""
    for block in itertools.count():
        for problem in sums(seed, block):
            yield problem * ("*" not in problem), (SUM_PROMPT, problem, worked(problem))


def _assessments(seed: int, *, steps: bool) -> Iterator[tuple[str, tuple[str, str, str]]]:
    """The same for those moments of the CIC set for which F is defined: two lines of the prompt, two texts of the
    answer; with `steps` a third before them, in which both sums are worked out."""
    for block in itertools.count():
        rng = world.generator(seed, block)
        drawn = world.draw(rng)
        for metrics, choices in zip(drawn, rng.random((len(drawn), writer.CHOICES)).tolist(), strict=True):
            if "Φ" not in metrics.cic.values:
                continue
            values, derived = metrics.cic.values, metrics.cic.derived
            net, total = f"{values['Φ']} - {derived['λH']}", f"{derived['net']} + {derived['γC']}"
            texts = cic_writer.cic_texts(metrics, writer.picker(choices))
            answer = {"working": f"{worked(net)} {worked(total)}"} if steps else {}
            answer |= {key: texts[key] for key in ("cic_assessment", "confidence_bounds")}
            figures, _, outlook = metrics.cic.lines()
            prompt = f"{figures}\n{outlook.partition(', analogue')[0]}"
            yield net, (ASSESSMENT_PROMPT.format("working, " * steps), prompt, storage.line(answer))


_MAKERS = {
    "sums": _sums,
    "worked": functools.partial(_assessments, steps=True),
    "plain": functools.partial(_assessments, steps=False),
}


def rows(kind: str, seed: int) -> Iterator[tuple[str, dict]]:
    """The examples of (kind, seed) as rows, each with its split, without end."""
    return ((split, example.row()) for split, example in examples(kind, seed))


def examples(kind: str, seed: int) -> Iterator[tuple[str, Example]]:
    """The examples of (kind, seed), each with its split, without end; but for the products no prompt occurs twice.

    Raises:
        ElleError: an unknown kind.
    """
    if kind not in _MAKERS:
        raise unknown("set", kind, _MAKERS, where="parameter kind")
    seen: set[bytes] = set()
    for index, (key, texts) in enumerate(_MAKERS[kind](seed)):
        example = Example(f"{kind}-{seed}-{index}", *texts)
        prompt = _digest(example.prompt)
        if not key:
            yield "train", example
        elif prompt not in seen:
            seen.add(prompt)
            yield dataset.split_of(int.from_bytes(_digest(key))), example


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode(), digest_size=8).digest()


def build(kind: str, train: int, test: int, seed: int, folder: Path | str) -> dict:
    """Make a set of `train` and `test` examples (and 64 for validation) in `folder`, or find it made; return the
    manifest. Same bytes for the same arguments; a larger set begins with the smaller one's examples.

    Raises:
        ElleError: an unknown kind, no examples, a negative seed, or a folder that holds another set.
    """
    folder = Path(folder)
    if min(train, test) < 1 or seed < 0:
        raise ElleError(f"{train} and {test} examples of seed {seed} make no set", fix="1 or more, of a seed from 0")
    described = {"kind": kind, "train": train, "test": test, "seed": seed, "version": VERSION}
    if storage.exists(folder / dataset.MANIFEST):
        manifest = dataset.load_manifest(folder)
        if manifest == manifest | described:
            return manifest
        raise ElleError("this folder already holds another set", where=str(folder), fix="delete it")

    def needed() -> Iterator[tuple[str, Example]]:
        left = {"train": train, "validation": VALIDATION, "test": test}
        for split, example in examples(kind, seed):
            if left[split]:
                left[split] -= 1
                yield split, example
            elif not any(left.values()):
                return

    return dataset.write_splits(folder, described, needed())


def mix(sets: Mapping[Path, float], path: Path, seed: int) -> Path:
    """Write a share (0..1) of the training rows of each set's folder into one file, shuffled; return its path."""
    taken = []
    for folder, share in sets.items():
        rows = dataset.read_split(folder, "train")
        taken += rows[: round(share * len(rows))]
    order = np.random.default_rng(seed).permutation(len(taken))
    storage.write_lines(path, (taken[place] for place in order))
    return path
