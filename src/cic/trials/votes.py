"""Insights 4 and 6 on trial: does the value cluster beat a majority vote by 92.1 %, and does the cap tame confidence?

Questions are simulated, so that their truth is known. Our own choices: truth and answers are whole numbers, and the
truth is 100 to 999. Garbage is one of the 30 mistakes that a question invites, uniform from 0 to three times the truth
without the 5 % around it: it has nothing to do with the truth, yet can agree, and so outvote it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from cic.confidence import brier_score, epistemic_bound, expected_calibration_error
from cic.consensus import basin_center, best_cluster, cluster_then_vote, cohesion, half_sample_mode, majority_vote
from cic.trials.intervals import Reading, resampled, share

#: The claim to its digits (0.921 rounded), the largest relative error counted, and the mistakes a question invites.
CLAIM, ERROR_CAP, MISTAKES = 0.9205, 2.0, 30
MAJORITY, CENTRE, MEAN = "majority vote", "cluster centre", "cluster mean"
VOTE, MODE = "cluster-then-vote", "half-sample mode"
METHODS: dict[str, Callable[[np.ndarray], float]] = {
    MAJORITY: majority_vote,
    CENTRE: basin_center,
    MEAN: lambda answers: float(best_cluster(answers).mean()),
    VOTE: cluster_then_vote,
    MODE: half_sample_mode,
}


@dataclass(frozen=True)
class Regime:
    """A mix of answers: how many are the truth, near it (truth·(1 + sigma·N(0, 1))) and garbage.

    attractor: all garbage is one mistake·(1 + attractor·N(0, 1)), instead of any of the question's mistakes.
    """

    name: str
    correct: int
    near: int
    garbage: int
    sigma: float = 0.02
    attractor: float | None = None


REGIMES = (
    Regime("nobody right, near-misses", 0, 4, 7),
    Regime("two right, near-misses", 2, 3, 6),
    Regime("nobody right, wide near-misses", 0, 4, 7, sigma=0.25),
    Regime("two right, no near-misses", 2, 0, 9),
    Regime("four right, one wrong attractor", 4, 0, 7, attractor=0.02),
    Regime("all drawn to one wrong answer", 0, 0, 11, attractor=0.01),
    Regime("most right", 7, 2, 2),
)


def _conditions(spreads: Sequence[float]) -> tuple[Regime, ...]:
    return tuple(replace(regime, sigma=spread) for spread in spreads for regime in REGIMES[:2])


#: The claim's four conditions are not spelled out. Ours: near-misses well inside the clusters' gap and as wide as it.
CONDITIONS = _conditions((0.02, 0.05))
#: The near-misses' spread that decides: the first regime, wider and wider.
SPREADS = (0.01, 0.02, 0.03, 0.05, 0.08, 0.12, 0.18, 0.25)


@dataclass(frozen=True)
class RegimeResult:
    """What one regime makes of each method, and of the cluster's confidence.

    wrong: method → share of questions whose answer, rounded, is not the truth. reduction: method → 1 − its mean error /
    the majority vote's, with an interval over questions; NaN if the vote makes no error. The confidence is judged by
    whether cluster-then-vote is right.
    """

    regime: Regime
    wrong: dict[str, Reading]
    reduction: dict[str, Reading]
    mean_confidence: float
    calibration_error: float
    brier: float


@dataclass(frozen=True)
class VoteTrial:
    """Each of REGIMES, and the cluster centre's reduction: for each of SPREADS, and pooled over CONDITIONS.

    seeds: (seeds,), the pooled one on new questions each; reached: how many of them reach the claim.
    """

    regimes: tuple[RegimeResult, ...]
    spread: tuple[Reading, ...]
    pooled: Reading
    seeds: np.ndarray
    reached: int


def vote_trial(trials: int = 1000, seeds: int = 30, seed: int = 40) -> VoteTrial:
    """Answer `trials` questions per regime by vote, by cluster and by mode, and judge the cluster's confidence.

    The centre is the best cluster's median; the mean stands beside it, as it makes a wrong answer of right ones.
    Confidence is the cluster's share of the answers times its cohesion, capped at 0.95: our own choice, as the source
    plans give no formula.
    """
    rng = np.random.default_rng(seed)
    regimes = tuple(_regime_result(regime, trials, rng) for regime in REGIMES)
    spread = [_errors(replace(REGIMES[0], sigma=sigma), trials, rng) for sigma in SPREADS]
    first, *others = [_pooled_errors(CONDITIONS, trials, rng) for _ in range(seeds + 1)]
    again = np.array([_reduction(errors, axis=0) for errors in others])
    estimates = tuple(resampled(errors, _reduction, rng) for errors in (*spread, first))
    return VoteTrial(regimes, estimates[:-1], estimates[-1], again, int((again >= CLAIM).sum()))


def pooled_reduction(spreads: Sequence[float], trials: int = 300, seed: int = 1) -> float:
    """The cluster centre's reduction, pooled as over CONDITIONS, with near-misses of these spreads."""
    rng = np.random.default_rng(seed)
    return float(_reduction(_pooled_errors(_conditions(spreads), trials, rng), axis=0))


def draw_answers(regime: Regime, trials: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Truths (trials,) and shuffled answers (trials, 11) of a regime."""
    truth = rng.integers(100, 1000, (trials, 1)).astype(float)
    near = truth * (1 + regime.sigma * rng.standard_normal((trials, regime.near)))
    factors = rng.uniform(0, 2.9, (trials, MISTAKES))
    mistakes = truth * np.where(factors > 0.95, factors + 0.1, factors)  # nothing within 5 % of the truth
    garbage = np.take_along_axis(mistakes, rng.integers(0, MISTAKES, (trials, regime.garbage)), axis=1)
    if regime.attractor is not None:
        garbage = mistakes[:, :1] * (1 + regime.attractor * rng.standard_normal((trials, regime.garbage)))
    answers = np.rint(np.hstack([np.repeat(truth, regime.correct, axis=1), near, garbage]))
    return truth[:, 0], rng.permuted(answers, axis=1)


def _errors(regime: Regime, trials: int, rng: np.random.Generator) -> np.ndarray:
    """The cluster centre's and the majority vote's errors, (trials, 2)."""
    truth, answers = draw_answers(regime, trials, rng)
    centre, majority = (np.array([answer(row) for row in answers]) for answer in (basin_center, majority_vote))
    return np.column_stack([_relative(centre, truth), _relative(majority, truth)])


def _pooled_errors(conditions: Sequence[Regime], trials: int, rng: np.random.Generator) -> np.ndarray:
    """Those of each condition, side by side: (trials, 2·conditions)."""
    return np.hstack([_errors(regime, trials, rng) for regime in conditions])


def _relative(answer: np.ndarray, truth: np.ndarray) -> np.ndarray:
    return np.minimum(np.abs(answer - truth) / truth, ERROR_CAP)


def _reduction(errors: np.ndarray, axis: int) -> np.ndarray:
    """1 − a method's errors / the majority vote's: columns in turn, so that conditions can stand side by side."""
    totals = errors.sum(axis=axis)
    vote = np.maximum(totals[..., 1::2].sum(axis=-1), 0.001)  # where a resample holds no error, the least there is
    return 1 - totals[..., ::2].sum(axis=-1) / vote


def _regime_result(regime: Regime, trials: int, rng: np.random.Generator) -> RegimeResult:
    truth, answers = draw_answers(regime, trials, rng)
    given = {name: np.array([answer(row) for row in answers]) for name, answer in METHODS.items()}
    errors = {name: _relative(answer, truth) for name, answer in given.items()}
    wrong = {name: share((np.rint(answer) != truth).sum(), trials) for name, answer in given.items()}
    pairs = {name: np.column_stack([errors[name], errors[MAJORITY]]) for name in errors if name != MAJORITY}
    reduction = {name: resampled(pair, _reduction, rng) for name, pair in pairs.items()}
    if not errors[MAJORITY].any():
        reduction = dict.fromkeys(pairs, Reading(np.nan, np.nan, np.nan))
    clusters = [best_cluster(row) for row in answers]
    strength = np.array([len(cluster) / answers.shape[1] * cohesion(cluster) for cluster in clusters])
    confidence, right = epistemic_bound(strength, months=0), errors[VOTE] == 0
    judged = float(confidence.mean()), expected_calibration_error(confidence, right), brier_score(confidence, right)
    return RegimeResult(regime, wrong, reduction, *judged)
