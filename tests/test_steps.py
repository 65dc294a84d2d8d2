"""Steps, evaluations and saves: as the planner counts them, and as the installed trainer does."""

import math
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers import paths
from helpers.training import recipe, steps

PACKED = {"sample_packing": True, "attn_implementation": "flash_attention_2", "num_epochs": 3}


def counted(config: dict, lengths: dict[int, int], micro: int = 2, gpus: int = 1, sequence: int = 2048) -> steps.Run:
    found: list[recipe.Finding] = []
    cut = steps.validation(config, sum(lengths.values()), found)
    return steps.run(config, lengths, cut, (micro, gpus, sequence), found)


def found_in(config: dict, lengths: dict[int, int], gpus: int = 1) -> list[tuple[str, str]]:
    found: list[recipe.Finding] = []
    cut = steps.validation(config, sum(lengths.values()), found)
    run = steps.run(config, lengths, cut, (2, gpus, 2048), found)
    steps.saves(config, run, steps.evaluations(config, run, cut, found), found)
    return [(f.code, f.severity) for f in found]


# Packing


@given(st.lists(st.integers(1, 100), max_size=60), st.integers(1, 9))
def test_first_fit_is_the_plain_one(lengths, most):
    rows: list[list[int]] = []
    for length in lengths:
        row = next((row for row in rows if sum(row) + length <= 100 and len(row) < most), None)
        if row is None:
            rows.append(row := [])
        row.append(length)
    assert steps.first_fit(lengths, 100, most) == len(rows)


@given(st.dictionaries(st.integers(1, 100), st.integers(1, 30), min_size=1, max_size=12), st.integers(0, 5))
def test_packing_holds_every_example_and_wastes_little(lengths, held_out):
    held_out = min(held_out, sum(lengths.values()) - 1)
    rows, tests = steps.pack(tuple(sorted(lengths.items())), held_out, 100, 200, 100_000)
    tokens, examples = sum(length * count for length, count in lengths.items()), sum(lengths.values())
    assert math.ceil(tokens / 100) <= rows + tests <= examples
    assert rows + tests <= 2 * tokens / 100 + 2  # no two rows of a part are half empty


def test_packing_is_quick_and_scales():
    small, large = ((tuple((length, n * 40) for length in range(20, 2000, 20))) for n in (1, 100))
    started = time.perf_counter()
    rows, _ = steps.pack(small, 0, 4096, 200, 100_000)
    assert time.perf_counter() - started < 0.5  # 0.02 s where nothing else runs
    assert steps.pack(large, 0, 4096, 200, 100_000)[0] == pytest.approx(100 * rows, rel=0.01)


# What a recipe says


def test_the_shipped_recipes_take_the_steps_of_axolotls_own_sampler():
    """55 and 52, where whole rows in whole epochs would make 60 and 56."""
    sets = recipe.table("recipes")["data"]
    for name, data, gpus, wanted in (("config", "basic", 2, 55), ("config_72b_8xh200", "cic", 8, 52)):
        config = recipe.read_yaml(paths.configs() / f"{name}.yaml")
        found = counted(config, sets[data]["lengths"], config["micro_batch_size"], gpus, config["sequence_len"])
        assert found.steps == wanted


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        ({}, 3 * 12),  # 50 rows of two, 4 steps each: 12 an epoch, and the trainer's own epoch has 13
        ({"num_epochs": 1.5}, 18),
        ({"dataloader_drop_last": True}, 3 * 12 - 3),
        ({"max_steps": 100}, 100),
        ({"max_steps": -1}, 3 * 13),
        ({"max_steps": 0}, 3 * 12),
        ({"attn_implementation": "sdpa"}, 3 * 12),
        ({"sample_packing_bin_size": 1}, 3 * 50),
        ({"sample_packing": False}, math.ceil(200 * 3 / 8)),
        ({"sample_packing": False, "max_steps": -1}, 3 * 25),
    ],
)
def test_steps_follow_the_settings(changes, wanted):
    config = PACKED | {"gradient_accumulation_steps": 4} | changes
    assert counted(config, {1024: 200}).steps == wanted


def test_what_an_epoch_leaves_over_is_a_step_of_its_own():
    """36 steps are not three passes over 50 micro batches: an epoch takes the trainer 13, the last one of 2."""
    run = counted(PACKED | {"gradient_accumulation_steps": 4}, {1024: 200})
    assert (run.steps, run.batches, run.epochs) == (36, 50 + 50 + 40, 3)
    assert run.seen == pytest.approx(140 / 50)


def test_too_few_examples_train_nothing():
    assert ("no-steps", "error") in found_in(PACKED, {1024: 8}, gpus=8)
    assert ("no-steps", "error") not in found_in(PACKED, {1024: 80}, gpus=8)
    assert counted(PACKED, {1024: 8}, gpus=8).steps == 0


@pytest.mark.parametrize(
    ("size", "taken"), [(0.05, 5), (0.041, 5), (0, 0), (2, 2), (30.7, 30), (1, None), (1.5, 1), (100, None), (-1, None)]
)
def test_the_validation_set_is_cut_as_datasets_cuts_it(size, taken):
    found: list[recipe.Finding] = []
    assert steps.validation({"val_set_size": size}, 100, found)[0] == (taken or 0)
    assert [f.code for f in found] == ([] if taken is not None else ["validation-size"])


@pytest.mark.parametrize(
    ("changes", "evaluations", "saves"),
    [
        ({}, 0, 3),  # nothing says when to evaluate; Axolotl saves each epoch
        ({"eval_steps": 10, "save_steps": 10}, 1 + 4, 4),  # 10, 20, 30, and the last
        ({"eval_steps": 12, "save_steps": 12}, 1 + 3, 3),  # the last is one of them: not twice
        ({"eval_steps": 500, "save_steps": 500}, 1 + 1, 1),
        ({"eval_steps": 0.3, "save_steps": 0.3}, 1 + 4, 4),  # each 11
        ({"evals_per_epoch": 2, "saves_per_epoch": 2}, 1 + 6, 6),
        ({"eval_strategy": "epoch", "save_strategy": "epoch"}, 1 + 3, 3),
        ({"eval_strategy": "no", "save_strategy": "no"}, 0, 0),
        ({"eval_strategy": "epoch", "eval_on_start": False, "save_strategy": "best"}, 3, 3),
        ({"eval_strategy": "epoch", "save_strategy": "best"}, 4, 3),
        ({"eval_strategy": "steps", "logging_steps": 6, "save_strategy": "steps"}, 1 + 6, 1),
        ({"eval_steps": 12, "save_steps": 12, "save_first_step": True}, 1 + 3, 4),
        ({"num_epochs": 1, "evals_per_epoch": 1, "saves_per_epoch": 1}, 0, 1),
        ({"eval_steps": 12, "val_set_size": 0}, 0, 3),
    ],
)
def test_evaluations_and_saves_follow_the_settings(changes, evaluations, saves):
    config = PACKED | {"gradient_accumulation_steps": 4, "val_set_size": 8} | changes
    found: list[recipe.Finding] = []
    cut = steps.validation(config, 208, found)
    run = steps.run(config, {1024: 208}, cut, (2, 1, 2048), found)
    times = steps.evaluations(config, run, cut, found)
    assert (times, steps.saves(config, run, times, found)) == (evaluations, saves)
    assert ("validation-unused" in {f.code for f in found}) == (
        not evaluations and cut[1] > 0 and config.get("eval_strategy") != "no"
    )


def test_the_best_checkpoint_stays_beside_the_last():
    assert steps.most_kept({}, 9, 1) == 2
    assert steps.most_kept({"load_best_model_at_end": True}, 9, 1) == 3
    assert steps.most_kept({"load_best_model_at_end": True}, 9, 2) == 3
    assert steps.most_kept({}, 1, 4) == 1
