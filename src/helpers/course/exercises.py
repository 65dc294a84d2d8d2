"""The exercises' checks, one for each notebook: whether a learner's answer is right and, if not, a hint that does not
give it away. A check never ends a notebook: an answer of the wrong kind, or one that fails, gets a hint as well.
"""

import functools
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from elle.briefings import dataset
from elle.briefings.schema import Example
from elle.evaluation.statistics import wilson
from helpers.runs import parameters


@dataclass(frozen=True)
class Reply:
    """What a check says; true if the answer is right. A notebook displays its text."""

    right: bool
    text: str

    def __bool__(self) -> bool:
        return self.right

    def __repr__(self) -> str:
        return self.text


class _Hint(Exception):
    """The answer is not right; says what to look at."""


def _exercise(check: Callable[..., str]) -> Callable[..., Reply]:
    """`check(answer, …)` returns what the right answer shows, or raises `_Hint`."""

    @functools.wraps(check)
    def reply(answer: Any, *context: Any) -> Reply:
        if answer is None:
            return Reply(False, "Not answered yet: put your answer in place of None, and run this cell again.")
        try:
            return Reply(True, f"Right. {check(answer, *context)}")
        except _Hint as hint:
            return Reply(False, f"Not yet. {hint}")
        except Exception as error:  # the learner's: a check must not end the notebook
            return Reply(False, f"Not yet. Your answer made the check fail: {type(error).__name__}: {error}")

    return reply


def _number(answer: Any, example: str) -> float:
    try:
        return float(answer)
    except (TypeError, ValueError):
        raise _Hint(f"A number is asked for, such as {example}; this is a {type(answer).__name__}.") from None


def _names(answer: Any, known: Collection[str], of: str) -> set[str]:
    if isinstance(answer, str) or not isinstance(answer, Collection):
        raise _Hint(f'A list of names is asked for, such as ["{min(known)}"].')
    names = {str(name) for name in answer}
    if strangers := names - set(known):
        raise _Hint(f"{', '.join(sorted(strangers))}: no {of} has that name.")
    return names


@_exercise
def parameters_of(answer: Collection[str], step: str) -> str:
    """00: the names of all parameters of the notebook `step`."""
    declared = parameters.parameters(parameters.file_of(step))
    missing = set(declared) - _names(answer, declared, "parameter there")
    if missing:
        raise _Hint(f"{len(missing)} of its {len(declared)} parameters are missing. The run's name is one as well.")
    return f"All {len(declared)} of them; `elle run PROFILE -p NAME VALUE` sets any."


@_exercise
def cheapest_cut(answer: float) -> str:
    """01: from which correlation on the cheapest cut of four equally correlated units costs more than 0.1 nats."""
    import numpy as np

    c = _number(answer, "0.5")
    if not 0 < c < 1:
        raise _Hint("A correlation between 0 and 1 is asked for.")
    # The closed form for n units: −½ ln[(1 − c)(1 + (n − 1)·c) / (1 + (n − 2)·c)].
    cost = {n: float(-0.5 * np.log((1 - c) * (1 + (n - 1) * c) / (1 + (n - 2) * c))) for n in (4, 2, 8)}
    reached = next((n for n in cost if abs(cost[n] - 0.1) < 0.001), None)
    if reached == 4:
        return "Two units need more, eight less: the more units there are, the more they tell of the one cut off."
    if reached:
        raise _Hint(f"That is where the cut of {reached} units costs 0.1 nats; four are asked for.")
    raise _Hint(f"At c = {c:g} the cheapest cut of four units costs {cost[4]:.4f} nats.")


@_exercise
def spreads_that_pass(answer: Sequence[float]) -> str:
    """02: two spreads of near-misses with which the pooled figure of insight 4 is reached."""
    from cic.trials import votes

    if not isinstance(answer, Sequence) or isinstance(answer, str) or len(answer) != 2:
        raise _Hint("Two spreads are asked for, such as (0.02, 0.05).")
    spreads = [_number(spread, "0.02") for spread in answer]
    if not all(0 < spread < 1 for spread in spreads):
        raise _Hint("A spread is a share of the truth, above 0 and below 1.")
    cut = votes.pooled_reduction(spreads)
    fall = f"With near-misses of {spreads[0]:.1%} and {spreads[1]:.1%} the pooled error falls by {cut:.1%}"
    if cut < votes.CLAIM:
        raise _Hint(f"{fall}, not by 92.1 %. Which way does it move when you change one of them?")
    return f"{fall}. The claim holds where all near-misses are narrow: a property of the answers, not of the method."


@_exercise
def with_a_nation_above_half(answer: int, rows: Sequence[Mapping[str, Any]]) -> str:
    """03: how many of these examples list at least one nation above 50 %."""
    wanted = _number(answer, "200")
    drawn = dataset.metrics_of(rows)
    above = sum(bool(figures.above_half) for figures in drawn)
    if wanted == above:
        return f"{above} of {len(rows)}, {above / len(rows):.0%}."
    if 0 < wanted < 1:
        raise _Hint("A count of examples is asked for, not a share.")
    if wanted == sum(len(figures.above_half) for figures in drawn):
        raise _Hint("That counts nations; an example with three of them counts once.")
    if wanted == sum(any(risk >= 50 for _, risk in figures.nations) for figures in drawn):
        raise _Hint("A nation at exactly 50 % is not above it.")
    raise _Hint(f"Of {len(rows)} examples, {'fewer' if wanted > above else 'more'} than {wanted:g} have one.")


@_exercise
def longest_rows(answer: int, plan: Any) -> str:
    """04: the longest `sequence_len`, in multiples of 1,024, with which this plan still fits."""
    from helpers.runs import planning

    length = _number(answer, "4096")
    if length % 1024 or length < plan.setup.sequence:
        raise _Hint(f"A multiple of 1,024 from {plan.setup.sequence:,} on is asked for.")
    here, next_one = (planning.varied(plan, sequence_len=int(length) + more) for more in (0, 1024))
    if here.verdict != "fits":
        raise _Hint(f"With rows of {length:,.0f} the peak is {here.memory.peak:.1f} GB: {here.verdict}.")
    if next_one.verdict == "fits":
        raise _Hint(f"With rows of {length:,.0f} it fits, and so do longer ones.")
    return "Twice as long takes little more: the states stay as they are, only what a layer keeps and the loss grow."


@_exercise
def loss_before_copying(answer: float, history: Sequence[Mapping[str, Any]], learned_at: int | None) -> str:
    """05: the last validation loss before the step by which copying is learned, in this training."""
    loss = _number(answer, "0.35")
    validations = {log["step"]: log["eval_loss"] for log in history if "eval_loss" in log}
    before = [step for step in validations if learned_at and step < learned_at]
    if not before:
        raise _Hint("This training has not learned to copy, or was validated only after it had: train the nano recipe.")
    step = max(before)
    if abs(loss - validations[step]) < 0.0006:
        return f"At step {step}. Nearly all that the loss had to lose was lost; what mattered was still to come."
    for other, value in validations.items():
        if abs(loss - value) < 0.0006:
            raise _Hint(f"That is the validation loss of step {other}. Copying was learned by step {learned_at}.")
    if any(abs(loss - log.get("loss", -1)) < 0.0006 for log in history):
        raise _Hint("That is a loss on training batches; `eval_loss` is the one on unseen examples.")
    raise _Hint("No validation of this training had that loss: look at the entries with `eval_loss`.")


@_exercise
def fair_epochs(answer: float, experiment: Any) -> str:
    """06: how many epochs of stage 2 alone see as many tokens as stage 1 and stage 2 of `high` together."""
    from itertools import islice

    from elle.base import paths
    from elle.base.yaml_files import read_yaml
    from elle.training.nano import pieces
    from experiments.stacking import curriculum

    epochs = _number(answer, "5")
    first, second = (read_yaml(paths.located(experiment.recipes[name]), name) for name in ("sums", "high"))

    def length(kind: str) -> float:
        examples = [Example.of(row) for _, row in islice(curriculum.rows(kind, 1), 200)]
        return sum(pieces(text) for example in examples for text in example[1:]) / len(examples)

    seen = first["max_steps"] * first["micro_batch_size"] * first["gradient_accumulation_steps"]
    before = seen * length("sums") / (experiment.assessments * length("worked"))  # in epochs of stage 2
    fair = second["num_epochs"] + before
    if abs(epochs - fair) <= 0.1 * fair:
        return f"{fair:.1f}: a fairer control than the notebook's, and longer. Would its verdicts change?"
    if abs(epochs - before) <= 0.1 * before:
        raise _Hint("Those are stage 1's tokens alone; `high` has its own epochs as well.")
    if abs(epochs - (second["num_epochs"] + seen / experiment.assessments)) <= 0.5:
        raise _Hint("That counts rows. A sum and an assessment differ in length: count tokens.")
    raise _Hint(
        f"Stage 1 saw {seen:,} rows of some {length('sums'):.0f} tokens, an epoch of stage 2 has "
        f"{experiment.assessments:,} of some {length('worked'):.0f}."
    )


@_exercise
def metrics_that_move(answer: Collection[str]) -> str:
    """07: the names of the metrics that fall when one digit of a right answer's `political` figure is changed."""
    from elle.evaluation.scorecard import METRICS, score

    names = _names(answer, METRICS, "metric")
    row = dataset.row("basic", 42, 0)
    right = Example.of(row).answer
    wrong = re.sub(r"political (\d)", lambda match: f"political {(int(match[1]) + 1) % 10}", right, count=1)
    before, after = (score([row], {row["id"]: output}).metrics for output in (right, wrong))
    moved = {name for name in METRICS if before[name].value != after[name].value}
    if names == moved:
        return "The form holds and the content does not: that is why they are judged apart."
    if still := names - moved:
        raise _Hint(f"{min(still)} does not move: what does it look at?")
    raise _Hint(f"{len(moved - names)} more move. The figure that was cited is gone, and a wrong one stands there.")


@_exercise
def careful_client(answer: Callable[[str], bool]) -> str:
    """08: a function that says whether a prompt may be sent."""
    if not callable(answer):
        raise _Hint("A function is asked for: it takes a prompt and returns True if it may be sent.")
    prompts = [Example.of(dataset.row("basic", 42, index)).prompt for index in range(20)]
    for prompt in prompts:
        if not answer(prompt):
            raise _Hint(f"This prompt is in order, and your client refuses it:\n\n{prompt}")
    political = r"political \d+"
    for pattern, bad in ((political, "political 250"), (political, "political minus three"), (r"\d+%", "130%")):
        prompt = next(changed for text in prompts if (changed := re.sub(pattern, bad, text, count=1)) != text)
        if answer(prompt):
            raise _Hint(f"A prompt with `{bad}` in it would be sent. What reads a prompt back, and says what is wrong?")
    return "It lets through what is in order, and refuses what no model should be asked."


@_exercise
def break_even_of_an_idle_machine(answer: float) -> str:
    """09: from how many briefings a month on an A100 that is given work in a third of its hours beats Haiku 4.5."""
    from helpers import economics

    volume = _number(answer, "1000000")
    price = economics.api(economics.Assumptions(), "claude-haiku-4.5")
    options = economics.options(economics.Assumptions(gpu="a100", utilisation=1 / 3))
    low, high = next(option for option in options if option.kind == "always on").break_even(price)
    if 0.9 * low <= volume <= 1.1 * high:
        return f"{low:,.0f} to {high:,.0f}: as at full work. A machine is paid by the hour, whatever it does in it."
    if 2.7 * low <= volume <= 3.3 * high:
        raise _Hint("Three times as many? What is paid for: the machine's hours, or its briefings?")
    raise _Hint(f"{'Fewer' if volume > high else 'More'}. `economics.options` has it, `break_even` the volume.")


@_exercise
def all_right_above_99(answer: int) -> str:
    """10: how many briefings, all right, until the lower end of the 95 % interval passes 99 %."""
    n = int(_number(answer, "100"))
    if n < 1:
        raise _Hint("At least one briefing has to be seen.")
    here = wilson(n, n).low
    if here <= 0.99:
        raise _Hint(f"Of {n:,} right ones of {n:,} the interval begins at {here:.2%}.")
    if wilson(n - 1, n - 1).low > 0.99:
        raise _Hint(f"{n:,} are enough, and so are fewer.")
    return "Nearly four hundred without a single fault, for a claim of 99 %."
