"""Insight 5 on trial: does NCD separate methods of reasoning elevenfold, and answers not at all?

The traces are made up, so that method, wording and correctness vary one at a time; all texts are our own. Separation is
the mean distance between two groups over the mean distance within them: 1 where they are not separated.
"""

from dataclasses import dataclass

import numpy as np

from cic.compression import ncd_matrix
from cic.trials.intervals import Reading

#: Two essays on different subjects, with gaps for numbers: texts this different reach a factor of 11.
TEMPLATES = (
    "Let x stand for the unknown quantity and translate the statement into an equation. Multiplying x by {a} and "
    "adding {b} has to give {c}. Subtract the constant from both sides to isolate the linear term, then divide by the "
    "coefficient. Because the equation is linear with a nonzero coefficient, the solution exists and is unique. "
    "Substituting it back into the left-hand side reproduces the right-hand side. Therefore x = {x}.",
    "First try small cases by hand: one row of tiles needs few pieces, two rows need more, and a pattern shows up "
    "quickly. Each new ring grows by the same amount, here {a}, while the border keeps its own {b}. Picture every "
    "layer as an L-shaped strip wrapped around the previous figure; counting strips instead of single tiles avoids "
    "double counting at corners. Summing layers until {c} tiles are used up, we reach ring number {x}.",
)
#: The other traces: one problem, solved forward or by rounding up and correcting; one sentence per line, two wordings.
PROBLEM = (
    """A depot receives {a} lorries with {b} crates each, and every crate holds {c} tins.
Of all tins {d} are damaged; how many can be sold?""",
    """There are {a} trucks coming in; a truck brings {b} boxes, each of them packed with {c} cans.
What is left for sale once {d} dented ones have been thrown out?""",
)
METHODS = (
    (
        """First multiply the lorries by the crates: {a} * {b} = {ab} crates in total.
Then multiply by the tins in a crate: {ab} * {c} = {abc} tins in total.
Finally subtract the damaged tins: {abc} - {d} = {x}.
So the depot can sell {x} tins.""",
        """To begin with, count boxes; we get {ab} of them because {a} times {b} is {ab}.
Next comes the content: {c} cans in each give {abc} cans altogether, from {ab} times {c}.
Taking away {d} useless ones from {abc} leaves {x}.
Hence {x} is what remains for customers.""",
    ),
    (
        """Round the crates on a lorry up to {u}, which is {v} too many, and keep that for later.
With round figures a lorry would bring {uc} tins, and the whole convoy {auc} tins.
The surplus that was never there is {avc} tins, so take it off again to correct the estimate.
After the correction, and without the {d} damaged ones, {x} tins are left to be sold.""",
        """It is easier to pretend a truck brought {u} boxes, an excess of {v}.
Under this assumption one load is {uc} cans; all loads together would be {auc}.
Correcting for the phantom goods costs us {avc} cans.
Leaving out {d} faulty items as well, our final figure is {x}.""",
    ),
)


@dataclass(frozen=True)
class Separation:
    """How far two groups of texts are apart.

    distances: (n, n) NCDs of the first group, then the second, the row's text first. ratio: their mean between the
    groups / within them, with an interval over texts. commonest: the distance that most pairs have, and the share of
    pairs that have it.
    """

    distances: np.ndarray
    ratio: Reading
    commonest: tuple[float, float]


def traces_trial(texts: int = 20, draws: int = 1000, seed: int = 41) -> dict[str, Separation]:
    """The separation of two groups of `texts` texts in each condition; `draws` resamples make an interval.

    Conditions: two fixed templates, other numbers in each text (the claim's own); two methods for one kind of problem
    in fixed wording, and paraphrased; one method in fixed wording with right and with wrong numbers; the latter's
    answers alone, as a raw stream and in the XZ container, whose padding is the claim's 0.06.
    """
    rng = np.random.default_rng(seed)

    def groups(write, *options: dict) -> list[str]:
        return [write(rng, **option) for option in options for _ in range(texts)]

    right_or_wrong = groups(trace, {"method": 0}, {"method": 0, "right": False})
    answers = [text.split()[-2] for text in right_or_wrong]
    conditions = {
        "two fixed templates": groups(template, {"which": 0}, {"which": 1}),
        "another method, fixed wording": groups(trace, {"method": 0}, {"method": 1}),
        "another method, paraphrased": groups(trace, *({"method": k, "paraphrased": True} for k in (0, 1))),
        "same method, wrong numbers": right_or_wrong,
        "answers only": answers,
        "answers only, XZ container": answers,
    }
    return {
        name: _separation(written, "xz" if name.endswith("container") else "lzma", draws, rng)
        for name, written in conditions.items()
    }


def template(rng: np.random.Generator, which: int) -> str:
    """One of the two fixed templates, with numbers of its own."""
    a, b, x = rng.integers((3, 10, 10), (10, 100, 100))
    return TEMPLATES[which].format(a=a, b=b, c=a * x + b, x=x)


def trace(rng: np.random.Generator, method: int, paraphrased: bool = False, right: bool = True) -> str:
    """The problem with numbers of its own, and its solution by one of METHODS.

    Paraphrased: each sentence in either wording, and the two of the problem in either order. Not right: in place of
    each calculated number any other of as many digits.
    """
    a, b, c, d = (int(value) for value in rng.integers((21, 21, 25, 100), (40, 39, 61, 1000)))
    u, v = 40, 40 - b
    results = {
        "ab": a * b,
        "abc": a * b * c,
        "v": v,
        "uc": u * c,
        "auc": a * u * c,
        "avc": a * v * c,
        "x": a * b * c - d,
    }
    if not right:
        results = {name: rng.integers(10 ** (len(str(n)) - 1), 10 ** len(str(n))) for name, n in results.items()}
    problem, solution = (list(zip(*map(str.splitlines, block), strict=True)) for block in (PROBLEM, METHODS[method]))
    sentences = [problem[k] for k in (rng.permutation(2) if paraphrased else (0, 1))] + solution
    chosen = rng.integers(2, size=len(sentences)) if paraphrased else [0] * len(sentences)
    text = " ".join(wordings[k] for wordings, k in zip(sentences, chosen, strict=True))
    return text.format(a=a, b=b, c=c, d=d, u=u, **results)


def _separation(texts: list[str], compressor: str, draws: int, rng: np.random.Generator) -> Separation:
    matrix = ncd_matrix(texts, compressor)
    half = len(texts) // 2
    across = np.arange(2 * half)[:, None] // half != np.arange(2 * half) // half
    same = ~across & ~np.eye(2 * half, dtype=bool)  # a text and itself are not a pair

    def mean(weights: np.ndarray, pairs: np.ndarray) -> np.ndarray:
        return ((weights @ (matrix * pairs)) * weights).sum(axis=1) / ((weights @ pairs) * weights).sum(axis=1)

    # The resamples are of texts, not of pairs: all pairs of one text depend on each other.
    drawn = np.hstack([rng.multinomial(half, np.full(half, 1 / half), draws) for _ in range(2)]).astype(float)
    within, between = (float(mean(np.ones((1, 2 * half)), pairs)[0]) for pairs in (same, across))
    interval = np.quantile(mean(drawn, across) / mean(drawn, same), (0.025, 0.975)).tolist()
    values, counts = np.unique(matrix[same | across], return_counts=True)
    commonest = float(values[counts.argmax()]), float(counts.max() / counts.sum())
    return Separation(matrix, Reading(between / within, *interval), commonest)
