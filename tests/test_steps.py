"""Steps, evaluations and saves: as the planner counts them, and as the installed trainer does."""

import contextlib
import math
import random
import time
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elle.base import paths, yaml_files
from elle.plan import steps
from elle.plan.axolotl import axolotl_schema
from elle.plan.findings import Finding

RECIPES = yaml_files.config_table("recipes")
CASES = yaml_files.read_yaml(paths.root() / "tests" / "fixtures" / "steps.yaml")
PACKED = {"sample_packing": True, "attn_implementation": "flash_attention_2", "num_epochs": 3}


class Counted(NamedTuple):
    run: steps.Schedule
    validated: int  # examples
    evaluations: int
    saves: int
    findings: list[Finding]

    def codes(self) -> set[tuple[str, str]]:
        return {(f.code, f.severity) for f in self.findings}


def counted(config: dict, lengths: dict[int, int], gpus: int = 1) -> Counted:
    found: list[Finding] = []
    shape = (config.get("micro_batch_size", 2), gpus, config.get("sequence_len", 2048))
    cut = steps.validation(config, sum(lengths.values()), found)
    run = steps.schedule(config, lengths, cut, shape, found)
    times = steps.evaluations(config, run, cut, found)
    return Counted(run, cut[1], times, steps.saves(config, run, times, found), found)


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
    """55 and 52, where whole rows in whole epochs would make 60 and 56: a micro batch in one row, lengths in pieces."""
    for name, data, gpus, wanted in (("config", "basic", 2, 55), ("config_72b_8xh200", "cic", 8, 52)):
        config = yaml_files.read_yaml(paths.configs() / f"{name}.yaml") | {"attn_implementation": "flash_attention_2"}
        assert counted(config, RECIPES["data"][data]["pieces"], gpus).run.steps == wanted


@pytest.mark.parametrize(("changes", "wanted"), CASES["schedules"])
def test_steps_follow_the_settings(changes, wanted):
    config = PACKED | {"gradient_accumulation_steps": 4} | changes
    assert counted(config, {1024: 200}).run.steps == wanted


def test_what_an_epoch_leaves_over_is_a_step_of_its_own():
    """36 steps are not three passes over 50 micro batches: an epoch takes the trainer 13, the last one of 2."""
    run = counted(PACKED | {"gradient_accumulation_steps": 4}, {1024: 200}).run
    assert (run.steps, run.batches, run.epochs) == (36, 50 + 50 + 40, 3)
    assert run.seen == pytest.approx(140 / 50)


def test_too_few_examples_train_nothing():
    too_few, enough = (counted(PACKED, {1024: examples}, gpus=8) for examples in (8, 80))
    assert ("no-steps", "error") in too_few.codes() - enough.codes()
    assert too_few.run.steps == 0


@pytest.mark.parametrize(("size", "taken"), CASES["validation"])
def test_the_validation_set_is_cut_as_datasets_cuts_it(size, taken):
    """`size` as Axolotl hands it on (axolotl/utils/data/sft.py, _handle_train_dataset_split)."""
    from datasets import Dataset

    found: list[Finding] = []
    assert steps.validation({"val_set_size": size}, 100, found)[0] == (taken or 0)
    assert [f.code for f in found] == ([] if taken is not None else ["validation-size"])
    if size:
        rows = Dataset.from_dict({"a": list(range(100))})
        refused = pytest.raises(ValueError, match="test_size") if taken is None else contextlib.nullcontext()
        with refused:
            cut = rows.train_test_split(test_size=int(size) if size > 1 else float(size), shuffle=False)
            assert len(cut["test"]) == taken


@pytest.mark.parametrize(("changes", "evaluations", "saves"), CASES["evaluations"])
def test_evaluations_and_saves_follow_the_settings(changes, evaluations, saves):
    config = PACKED | {"gradient_accumulation_steps": 4, "val_set_size": 8} | changes
    made = counted(config, {1024: 208})
    assert (made.evaluations, made.saves) == (evaluations, saves)
    unused = not evaluations and made.validated > 0 and config.get("eval_strategy") != "no"
    assert (("validation-unused", "warning") in made.codes()) == unused


def test_the_best_checkpoint_stays_beside_the_last():
    assert steps.most_kept({}, 9, 1) == 2
    assert steps.most_kept({"load_best_model_at_end": True}, 9, 1) == 3
    assert steps.most_kept({"load_best_model_at_end": True}, 9, 2) == 3
    assert steps.most_kept({}, 1, 4) == 1


# What the installed trainer says


@pytest.fixture
def axolotls_steps(monkeypatch):
    """Axolotl's own count of the steps: (recipe, lengths, GPUs) to number."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    import torch
    from axolotl.utils.dict import DictDefault
    from axolotl.utils.schemas.config import AxolotlInputConfig
    from axolotl.utils.trainer import calculate_total_num_steps
    from datasets import Dataset

    def count(config: dict, lengths: list[int], gpus: int) -> int:
        # What its validator would add, and what it makes of the number of processes.
        names = ("sample_packing_bin_size", "sample_packing_group_size")
        defaults = {name: AxolotlInputConfig.model_fields[name].default for name in names}
        supports = config.get("attn_implementation") in axolotl_schema()["one_row"]
        cfg = DictDefault(defaults | {"gradient_accumulation_steps": 1, "attn_supports_packing": supports} | config)
        cfg.batch_size = cfg.micro_batch_size * cfg.gradient_accumulation_steps * gpus
        cfg.dataset_num_proc = 1
        rows = {"length": lengths, "labels": [[1]] * len(lengths), "input_ids": [[1]] * len(lengths)}
        torch.manual_seed(42)  # the order in which it packs
        return calculate_total_num_steps(cfg, Dataset.from_dict(rows))

    return count


@pytest.mark.real
@pytest.mark.parametrize(("changes", "gpus"), CASES["packed"])
def test_axolotl_takes_as_many_steps(axolotls_steps, changes, gpus):
    config = PACKED | {"micro_batch_size": 2, "sequence_len": 2048} | changes
    lengths = {length: 3 + length % 7 for length in range(100, 1500, 11)}
    rows = [length for length, count in lengths.items() for _ in range(count)]
    made = counted(config, lengths, gpus).run.steps
    # Its order hangs on the seed: a step more or less an epoch.
    near = math.ceil(config["num_epochs"]) if config["sample_packing"] else 0
    assert axolotls_steps(config, rows, gpus) == pytest.approx(made, abs=near)


@pytest.mark.real
@pytest.mark.parametrize("name", [name for name in RECIPES["recipes"] if name.startswith("config")])
def test_axolotl_takes_as_many_steps_of_each_shipped_recipe(axolotls_steps, name):
    entry, config = RECIPES["recipes"][name], yaml_files.read_yaml(paths.configs() / name)
    lengths = RECIPES["data"][entry["data"]]["tokens"]
    rows = [length for length, count in lengths.items() for _ in range(count)]
    held_out = steps.validation(config, len(rows), [])[0]
    random.Random(1).shuffle(rows)
    made = counted(config, lengths, entry["count"])
    assert axolotls_steps(config, rows[held_out:], entry["count"]) == made.run.steps


@pytest.mark.real
@pytest.mark.parametrize("changes", CASES["trained"])
def test_the_trainer_evaluates_and_saves_as_often(changes, tmp_path, monkeypatch):
    """Axolotl's builder makes the arguments, transformers' trainer the run."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    import torch
    from axolotl.core.builders.base import TrainerBuilderBase
    from axolotl.utils.callbacks import SaveModelOnFirstStepCallback
    from axolotl.utils.dict import DictDefault
    from transformers import Trainer, TrainerCallback, TrainingArguments

    class Builder(TrainerBuilderBase):
        def build(self, total_num_steps):
            raise NotImplementedError

    class Tiny(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = torch.nn.Linear(1, 1)

        def forward(self, x, labels=None):
            made = self.layer(x)
            return {"loss": ((made - labels) ** 2).mean(), "logits": made}

    class Counts(TrainerCallback):
        evaluated, saved = 0, 0

        def on_evaluate(self, *_, **__):
            self.evaluated += 1

        def on_save(self, *_, **__):
            self.saved += 1

    config = {"sample_packing": False, "num_epochs": 1, "val_set_size": 4, "micro_batch_size": 1} | changes
    planned = counted(config, {9: 14})
    cfg = DictDefault({"gradient_accumulation_steps": 1} | config)
    for what in ("save", "eval"):  # normalize_config
        if each := cfg[f"{what}s_per_epoch"]:
            share = 1.0 / (each * cfg.num_epochs)
            cfg[f"{what}_steps"] = share if share < 1 else None
    rows = [{"x": torch.ones(1), "labels": torch.ones(1)} for _ in range(14)]
    builder, made = Builder(cfg, None, None), {}
    builder.eval_dataset = rows[:4]
    builder._configure_save_and_eval_strategy(made)
    total = cfg.max_steps or math.ceil(10 * cfg.num_epochs / cfg.gradient_accumulation_steps)
    builder._configure_warmup_and_logging(total, made)
    shape = {"max_steps": total, "num_train_epochs": cfg.num_epochs, "per_device_train_batch_size": 1}
    shape |= {"gradient_accumulation_steps": cfg.gradient_accumulation_steps, "use_cpu": True, "report_to": []}
    counts = Counts()
    more = [SaveModelOnFirstStepCallback()] if cfg.save_first_step else []
    args = TrainingArguments(str(tmp_path), disable_tqdm=True, **shape, **made)
    trainer = Trainer(Tiny(), args, train_dataset=rows[4:], eval_dataset=rows[:4], callbacks=[counts, *more])
    trainer.train()
    assert trainer.state.global_step == planned.run.steps
    assert (counts.evaluated, counts.saved) == (planned.evaluations, planned.saves)
    kept = len(list(tmp_path.glob("checkpoint-*")))
    limit = config.get("save_total_limit", 4)
    assert kept == min(limit, counts.saved) <= steps.most_kept(config, counts.saved, limit)
