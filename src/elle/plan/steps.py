"""Steps, evaluations and saves of a run, as the locked Axolotl and transformers count them (tests/test_steps.py asks
them). Lengths are in tokens; a micro batch is what one GPU takes at once; nothing here is measured."""

import functools
import math
import random
import re
from dataclasses import dataclass

from elle.plan.axolotl import axolotl_schema
from elle.plan.findings import Finding, finding
from elle.plan.recipe import accumulation, number

#: Axolotl's `sample_packing_group_size` and `sample_packing_bin_size`.
GROUP, ROW = 100_000, 200
#: Examples that are really packed; of more, as many of each length in proportion, and the result is scaled.
SAMPLE = 20_000


def first_fit(lengths: list[int], capacity: int, most: int) -> int:
    """Rows of `capacity` tokens and at most `most` examples, when each example goes into the first row with room.

    As Axolotl's `pack_group` does it: in the order given, not the longest first. n log n: a tree holds the largest
    room below each of its nodes.
    """
    size = 1 << (min(len(lengths), 2 * sum(lengths) // capacity + len(lengths) // most + 2)).bit_length()
    room, held, used = [capacity] * (2 * size), [0] * size, 0
    for length in lengths:
        node = 1
        while node < size:
            node = 2 * node if room[2 * node] >= length else 2 * node + 1
        row = node - size
        held[row] += 1
        used = max(used, row + 1)
        room[node] = room[node] - length if held[row] < most else -1
        while node := node // 2:
            best = max(room[2 * node], room[2 * node + 1])
            if room[node] == best:
                break
            room[node] = best
    return used


def next_fit(lengths: list[int], capacity: int) -> int:
    """Rows of `capacity` tokens, filled one after the other (`sample_packing_sequentially`)."""
    rows, room = 0, 0
    for length in lengths:
        if length > room:
            rows, room = rows + 1, capacity
        room -= length
    return rows


@functools.lru_cache(maxsize=64)
def pack(lengths: tuple[tuple[int, int], ...], held_out: int, capacity: int, most: int, group: int) -> tuple[int, int]:
    """Rows of (training, validation) examples, of which `held_out` are the latter; most, group: see `first_fit` and
    GROUP (0: `next_fit`).

    The order is a random one that is always the same. Axolotl's hangs on its seed and changes with the epoch; over
    its orders the count differs by a row in some hundreds.
    """
    examples = sum(count for _, count in lengths)
    size = min(examples, SAMPLE)
    order: list[int] = []
    done = 0
    for length, count in lengths:
        done += count
        order += [length] * (done * size // examples - len(order))
    random.Random(0).shuffle(order)
    cut = size - round(held_out * size / examples)

    def rows(part: list[int]) -> int:
        if not group:
            found = next_fit(part, capacity)
        else:
            found = sum(first_fit(part[at : at + group], capacity, most) for at in range(0, len(part), group))
        return found * examples // size

    return rows(order[:cut]), rows(order[cut:])


@dataclass(frozen=True)
class Schedule:
    """A run as counted. steps: of the optimizer; batches: micro batches that one GPU trains on in all of them;
    epochs: passes begun; seen: passes through the training rows, as a share of them that is trained on;
    evaluated: micro batches of one evaluation on one GPU."""

    steps: int
    batches: int
    epochs: int
    seen: float
    evaluated: int


def validation(recipe: dict, examples: int, found: list[Finding]) -> tuple[int, int]:
    """(examples taken out of the training set, examples evaluated on), as `datasets.train_test_split` cuts them: a
    share of the rows that are short enough, rounded up, or above 1 a number of rows. A number that it refuses when
    the run has begun (1 is "all of them") becomes a finding."""
    sets = recipe.get("test_datasets")
    if isinstance(sets, list) and sets and isinstance(sets[0], dict):
        cut = re.search(r"\[:(\d{1,9})\]", str(sets[0].get("split")))
        return 0, int(cut[1]) if cut else examples // 20
    share = number(recipe, "val_set_size", 0, -1e9, 1e9, found)
    taken = int(share) if share > 1 else math.ceil(share * examples)
    if (share and not 0 < taken < examples) or share == 1:
        what = "all examples" if share == 1 else f"{taken:,} of {examples:,} examples"
        found.append(finding("validation-size", share=share, taken=what))
        return 0, 0
    return taken, taken


def _whole(recipe: dict, key: str, default: int, found: list[Finding]) -> int:
    return int(number(recipe, key, default, 1, 1e9, found))


def _filled(
    recipe: dict, lengths: dict[int, int], held_out: int, sequence: int, width: int, found: list[Finding]
) -> tuple[int, int]:
    """Whole micro batches of `width` rows that packing fills with (training, validation) examples."""
    switched = any(recipe.get(key) for key in axolotl_schema()["one_row_switches"])
    one_row = switched or str(recipe.get("attn_implementation")).split("@")[0] in axolotl_schema()["one_row"]
    # One row of all the micro batch's tokens; else that many rows, and what does not make a batch is dropped.
    whole = 1 if one_row and not recipe.get("multipack_real_batches") else width
    most = _whole(recipe, "sample_packing_bin_size", ROW, found)
    group = _whole(recipe, "sample_packing_group_size", GROUP, found)
    group = 0 if recipe.get("sample_packing_sequentially") else group
    training, tests = pack(tuple(sorted(lengths.items())), held_out, sequence * width // whole, most, group)
    return training // whole, tests // whole


def schedule(
    recipe: dict, lengths: dict[int, int], cut: tuple[int, int], shape: tuple[int, int, int], found: list[Finding]
) -> Schedule:
    """The steps of a run on examples of these lengths (length → how many, none above `sequence_len`).

    Packed (axolotl/utils/trainer.py, calculate_total_num_steps): whole optimizer steps of an epoch, times the epochs,
    rounded down; else all examples of all epochs, rounded up. That number is the trainer's `max_steps`: it goes on
    with a new epoch until it is reached, and what is left over at an epoch's end is a step of its own (transformers,
    set_initial_training_values). Packed, an incomplete micro batch and one that not every GPU has are dropped.

    Args:
        cut: `validation`'s answer; shape: micro_batch_size, GPUs, sequence_len.
    """
    micro, gpus, sequence = shape
    held_out, evaluated = cut
    rows = sum(lengths.values()) - held_out
    if rows <= 0:
        return Schedule(0, 0, 0, 0.0, 0)
    accumulated = accumulation(recipe, found)
    epochs = number(recipe, "num_epochs", 1, 0, 1e4, found)
    packed, drop = bool(recipe.get("sample_packing")), recipe.get("dataloader_drop_last")
    if packed:
        made = _filled(recipe, lengths, held_out, sequence, micro, found)[0]
        steps = math.floor(max(1, made // (accumulated * gpus)) * epochs) - (math.ceil(epochs) if drop else 0)
        batches, share = made // gpus, gpus / max(1, made)
    else:
        steps = math.ceil(rows * epochs / (micro * accumulated * gpus))
        batches, share = _loaded(rows, micro, gpus, bool(drop)), micro * gpus / rows
    own = max(1, math.ceil(batches / accumulated))  # the trainer's own steps in an epoch
    given = int(number(recipe, "max_steps", 0, -1, 1e9, found))
    steps = math.ceil(own * epochs) if given == -1 else given or max(0, steps)
    full, rest = divmod(steps if batches else 0, own)
    last = min(rest * accumulated, batches)
    seen = full * min(1.0, batches * share) + min(1.0, last * share)

    wide = _whole(recipe, "eval_batch_size", micro, found)
    if packed and recipe.get("eval_sample_packing") is not False:
        training, tests = _filled(recipe, lengths, held_out, sequence, wide, found)
        tested = (tests if held_out else math.ceil(training * evaluated / rows)) // gpus
    else:  # where only training is packed, Axolotl drops an incomplete batch of the validation set
        tested = _loaded(evaluated, wide, gpus, packed if drop is None else bool(drop))
    if not batches:
        found.append(finding("no-steps", rows=rows, gpus=gpus))
    return Schedule(full * own + rest, full * batches + last, full + (rest > 0), seen, tested)


def _loaded(rows: int, width: int, gpus: int, drop: bool) -> int:
    """Micro batches of one GPU that a plain loader makes of `rows` examples."""
    return rows // width // gpus if drop else math.ceil(math.ceil(rows / width) / gpus)


def _every(recipe: dict, what: str, run: Schedule, found: list[Finding]) -> int:
    """Steps from one evaluation or save (`what`: eval or save) to the next; 0 where the recipe counts none.

    A share of all steps is rounded up. `evals_per_epoch` and `saves_per_epoch` become one, but for 1 in one epoch:
    that is the share 1, which Axolotl leaves out (axolotl/utils/config, normalize_config).
    """
    epochs = number(recipe, "num_epochs", 1, 0, 1e4, found)
    if each := number(recipe, f"{what}s_per_epoch", 0, 0, 1e6, found):
        share = 1 / (each * epochs) if epochs else 1
        return math.ceil(run.steps * share) if share < 1 else 0
    every = number(recipe, f"{what}_steps", 0, 0, 1e9, found)
    if every > 1 and every != int(every):
        found.append(finding("wrong-value/whole", f"{what}_steps", value=every))
    return math.ceil(run.steps * every) if every < 1 else int(every)


def evaluations(recipe: dict, run: Schedule, cut: tuple[int, int], found: list[Finding]) -> int:
    """How often a run evaluates: at its intervals, at its last step, and before the first unless `eval_on_start` is
    false (axolotl/core/builders/base.py)."""
    strategy = recipe.get("eval_strategy")
    if not cut[1] or not run.steps or strategy == "no":
        return 0
    every = _every(recipe, "eval", run, found)
    if not every and strategy == "steps":
        every = _whole(recipe, "logging_steps", max(1, min(10, run.steps // 200)), found)
    if not every and strategy != "epoch":
        found.append(finding("validation-unused/once" if recipe.get("evals_per_epoch") else "validation-unused"))
        return 0
    if not run.evaluated:
        severity, further = "warning", ""
        if best(recipe):
            severity, further = "error", ", and choosing the best checkpoint fails"
        found.append(finding("validation-size/batch", severity=severity, tests=cut[1], further=further))
    # At the last step, too (transformers, DefaultFlowCallback).
    return (math.ceil(run.steps / every) if every else run.epochs) + (recipe.get("eval_on_start") is not False)


def saves(recipe: dict, run: Schedule, evaluations: int, found: list[Finding]) -> int:
    """How many checkpoints a run writes: at its intervals and at its last step; one per epoch where the recipe is
    silent; of `best` at most one per evaluation. The result itself, written at the end, is not counted."""
    if not run.steps:
        return 0
    strategy = recipe.get("save_strategy")
    every = _every(recipe, "save", run, found) or (500 if strategy == "steps" else 0)
    if every or strategy == "no":
        count = math.ceil(run.steps / every) if every else 0
    elif strategy == "best":
        count = evaluations - (recipe.get("eval_on_start") is not False) if evaluations else 0
    else:
        count = run.epochs
    return count + bool(recipe.get("save_first_step") and every != 1)


def best(recipe: dict) -> bool:
    """Whether the trainer looks for the best checkpoint."""
    return any(recipe.get(k) for k in ("load_best_model_at_end", "early_stopping_patience", "metric_for_best_model"))


def most_kept(recipe: dict, count: int, limit: int) -> int:
    """The most of `count` checkpoints that are on the disk at a time, of `save_total_limit: limit`: a new one is
    whole before the oldest goes, and the best one stays beside the last (transformers, rotate_checkpoints)."""
    return min(count, max(limit, 2 if best(recipe) else 1) + 1)
