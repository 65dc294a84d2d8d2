"""Scores of the stacking experiment: worked sums and short CIC assessments, right to the last digit; arms compared on
the same questions; and what became of the documents' statements."""

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from decimal import Decimal
from typing import Any

import numpy as np
from scipy.stats import t as student

from elle.briefings.cic_figures import DERIVED
from elle.briefings.schema import Example
from elle.evaluation.compare import Difference, yes_or_no
from elle.evaluation.statistics import Estimate, wilson

_SUMS = ("Φ", "λH", "net", "γC", "F")
_PRINTED = re.compile(rf"\b({'|'.join({*DERIVED, *_SUMS})}|Confidence) (-?\d+(?:\.\d+)?)(?![\d.]*\d)")
#: What an answer to a sum looks like, right or wrong (`curriculum.worked`).
_WORKED = re.compile(r"-?\(\d\.\d{3}[+-]\d\.\d{3}\)(;\d{1,2}[+-]\d([+-]1)?=\d{1,2}){4};-?\d\.\d{3}")
#: A difference of shares below this is none to speak of: the margin of `verdict`.
MARGIN = 0.05


def final(answer: str) -> str:
    """The result of a worked sum: what stands after its last step."""
    return answer.strip().rpartition(";")[2]


def printed(answer: str) -> dict[str, set[str]]:
    """Φ and the computed figures of an assessment (names of `DERIVED`) as its texts print them, the working aside; {}
    where it is no JSON object of texts."""
    try:
        texts = json.loads(answer)
    except ValueError:
        return {}
    figures: dict[str, set[str]] = {}
    if isinstance(texts, dict) and all(isinstance(text, str) for text in texts.values()):
        for name, value in _PRINTED.findall(" ".join(texts[key] for key in texts if key != "working")):
            figures.setdefault(name.lower() if name == "Confidence" else name, set()).add(value)
    return figures


def adds_up(figures: Mapping[str, set[str]], phi: set[str]) -> bool:
    """Whether an assessment's two sums hold, Φ − λH = net and net + γC = F, from `phi`, which its prompt prints, and
    what it prints itself, each figure with one value."""
    if figures.get("Φ") != phi or any(len(figures.get(name, ())) != 1 for name in _SUMS):
        return False
    first, less, net, more, total = (Decimal(next(iter(figures[name]))) for name in _SUMS)
    return first - less == net and net + more == total


@dataclass(frozen=True)
class Scores:
    """What a model got right, question by question. sums: of stage 1, the result; form: whether it is worked out at
    all, rightly or wrongly. Of the assessments, gain: whether both sums hold (`adds_up`), which neither copying nor
    looking up gives; figures: name of `DERIVED` → each computed figure, exactly."""

    sums: np.ndarray
    form: np.ndarray
    gain: np.ndarray
    figures: dict[str, np.ndarray]

    @classmethod
    def pooled(cls, scores: Sequence["Scores"]) -> "Scores":
        """Of several seeds, one after the other."""
        figures = {name: np.concatenate([each.figures[name] for each in scores]) for name in DERIVED}
        names = ("sums", "form", "gain")
        return cls(*(np.concatenate([getattr(each, name) for each in scores]) for name in names), figures)

    def to_json(self) -> dict[str, dict[str, float | int | None]]:
        """Plain values: share, n, low and high of each, and of net and F together (`right`)."""
        shares = {"sums": self.sums, "form": self.form, "gain": self.gain} | self.figures
        shares["right"] = self.figures["net"] & self.figures["F"]
        return {name: asdict(share(right)) for name, right in shares.items()}


def share(right: np.ndarray) -> Estimate:
    """How many are right, with Wilson's interval."""
    return wilson(int(right.sum()), len(right))


def score(
    sums: Sequence[dict], solved: Mapping[str, str], assessments: Sequence[dict], assessed: Mapping[str, str]
) -> Scores:
    """Judge the outputs (row id → text) to both kinds of rows; one that is missing is wrong."""
    results = [final(solved.get(row["id"], "")) == final(Example.of(row).answer) for row in sums]
    form = [bool(_WORKED.fullmatch(solved.get(row["id"], "").strip())) for row in sums]
    figures: dict[str, list[bool]] = {name: [] for name in DERIVED}
    gain = []
    for row in assessments:
        right, cited = printed(Example.of(row).answer), printed(assessed.get(row["id"], ""))
        gain.append(adds_up(cited, right["Φ"]))
        for name, each in figures.items():
            each.append(cited.get(name) == right[name])
    return Scores(
        np.array(results, bool),
        np.array(form, bool),
        np.array(gain, bool),
        {name: np.array(each, bool) for name, each in figures.items()},
    )


def across(values: Sequence[float]) -> dict[str, float] | None:
    """Mean (`value`) of the seeds' values with its 95 % interval (`low`, `high`) by Student's t with n − 1 degrees of
    freedom, cut to 0..1; None of fewer than two. It holds the spread between trainings, which Wilson's does not."""
    n = len(values)
    if n < 2:
        return None
    mean = float(np.mean(values))
    half = float(student.ppf(0.975, n - 1) * np.std(values, ddof=1) / math.sqrt(n))
    return {"value": mean, "low": max(0.0, mean - half), "high": min(1.0, mean + half)}


@dataclass(frozen=True)
class Statement:
    """What the documents say, as a comparison of two models on the same questions: `after` against `before`, by the
    sums or by the gain. keeps: it says that `after` is no worse; else that it is better."""

    says: str
    before: str
    after: str
    by: str
    keeps: bool


STATEMENTS = (
    Statement("mathematics is preserved: one epoch, low rate", "stage1", "low", "sums", keeps=True),
    Statement("… and an adapter does as well", "stage1", "lora", "sums", keeps=True),
    Statement("one epoch at a low rate is enough to learn the CIC task", "high", "low", "gain", keeps=True),
    Statement("an adapter learns it as well", "high", "lora", "gain", keeps=True),
    Statement("its arithmetic is better than without the mathematics", "alone", "high", "gain", keeps=False),
    Statement("it computes as well where no step is written", "high", "plain", "gain", keeps=True),
)


def verdict(difference: Difference, keeps: bool, by_seed: Sequence[float]) -> str:
    """`holds`, `does not hold` or `undecided`, by the 95 % interval of after − before.

    No worse: by less than `MARGIN`, for sure. Better: by more than nothing (and by McNemar's test, p < 0.05); it does
    not hold where it is worse, or better by less than `MARGIN` at most. What holds has to hold with each seed, for the
    interval knows nothing of the spread between trainings.
    """
    low, high, p = difference.low, difference.high, difference.p
    if low is None or high is None or p is None:
        return "undecided"
    bound = -MARGIN if keeps else 0.0
    if low > bound and (keeps or p < 0.05) and all(each > bound for each in by_seed):
        return "holds"
    return "does not hold" if high < (-MARGIN if keeps else MARGIN) else "undecided"


def judge(scores: Mapping[str, Sequence[Scores]]) -> list[dict[str, Any]]:
    """The statements whose models are there, on trial: scores are by model, one a seed.

    Returns:
        One dict a statement: `says`, `of` (which models, by what), before and after (shares), difference with low, high
        and p (all seeds' questions together, paired), by_seed (the difference in each), verdict.
    """
    rows = []
    for each in STATEMENTS:
        if not {each.before, each.after} <= scores.keys():
            continue
        pairs = [
            tuple(score.sums if each.by == "sums" else score.gain for score in pair)
            for pair in zip(scores[each.before], scores[each.after], strict=True)
        ]
        by_seed = [float(after.mean() - before.mean()) for before, after in pairs]
        compared = yes_or_no(*(np.concatenate(side) for side in zip(*pairs, strict=True)))
        rows.append(
            {
                "says": each.says,
                "of": f"{each.after} against {each.before}, {each.by}",
                **{"before": compared.a, "after": compared.b, "difference": compared.difference},
                **{"low": compared.low, "high": compared.high, "p": compared.p, "n": compared.n},
                "by_seed": by_seed,
                "verdict": verdict(compared, each.keeps, by_seed),
            }
        )
    return rows
