"""The Axolotl plugin that `launch` adds to every recipe it runs: progress for people, examples counted before
training, a halt at the first loss that is not a number, and bf16 on a CPU.

Axolotl writes its progress as text without step numbers. The plugin writes what happens as JSONL instead
(`progress.jsonl` beside the weights): one object per log, evaluation, save and end.
"""

import itertools
import json
import math
import os
import resource
import time
from datetime import datetime
from pathlib import Path

import torch
from axolotl.integrations.base import BasePlugin
from transformers import TrainerCallback

from elle.base import storage
from elle.base.errors import ElleError
from elle.training.launch import COUNTS, FORCE, LOST_ROWS, PROGRESS, STARTED
from elle.training.resolution import CPU_BF16

#: Validation batches on which digits are counted: enough for two figures of the accuracy, cheap beside an evaluation.
DIGIT_BATCHES = 2


class Progress(TrainerCallback):
    """Appends events to a JSONL file; only the first process of a multi-GPU run writes."""

    def __init__(self, path: Path):
        self.path = path
        self.began = time.monotonic()

    def _write(self, event: str, state, **values) -> None:
        if state.is_world_process_zero:
            seconds = round(time.monotonic() - self.began, 3)
            line = {"event": event, "step": state.global_step, "of": state.max_steps, "seconds": seconds} | values
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")

    def on_train_begin(self, args, state, control, **kwargs):
        self.began = time.monotonic()
        started = os.environ.get(STARTED)
        startup = time.time() - datetime.fromisoformat(started).timestamp() if started else 0.0
        self._write("begin", state, startup=round(startup, 3))

    def on_log(self, args, state, control, logs, **kwargs):
        self._write("log", state, **{key: value for key, value in logs.items() if isinstance(value, int | float)})

    def on_evaluate(self, args, state, control, model, processing_class, eval_dataloader, **kwargs):
        accuracy = digit_accuracy(model, processing_class, itertools.islice(eval_dataloader, DIGIT_BATCHES))
        if accuracy is not None:
            self._write("log", state, digit_accuracy=accuracy)

    def on_save(self, args, state, control, **kwargs):
        self._write("save", state)

    def on_train_end(self, args, state, control, model, **kwargs):
        self._write("end", state, **parameter_counts(model), **peaks())


def parameter_counts(model) -> dict[str, int]:
    """Parameters of a model as it trains: all (of a 4-bit base: those it stands for), and those that are trained."""
    trained = total = 0
    for parameter in model.parameters():
        count = getattr(parameter, "ds_numel", 0) or parameter.numel()  # ZeRO-3 leaves empty ones behind
        if type(parameter).__name__ == "Params4bit":
            count *= 2 * parameter.element_size()  # two to a byte
        total += count
        trained += count if parameter.requires_grad else 0
    return {"parameters": total, "trained_parameters": trained}


def peaks() -> dict[str, float]:
    """GB of memory at the highest: of this process, and of its GPU."""
    memory = {"peak_host_gb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9, 3)}
    if torch.cuda.is_available():
        memory["peak_gpu_gb"] = round(torch.cuda.max_memory_allocated() / 1e9, 3)
    return memory


def digit_accuracy(model, tokenizer, batches) -> float | None:
    """The share of digits (0..1) that the model predicts right, each given all that stands before it; None if no
    digit is trained on. It shows the copying of figures being learned, which the loss hides among the words.

    batches: dicts of tensors with `labels` (-100: not trained on), as the trainer's data loader gives them.
    """
    device = next(model.parameters()).device
    vocabulary = tokenizer.get_vocab()
    digits = torch.tensor([vocabulary[digit] for digit in "0123456789" if digit in vocabulary], device=device)
    right = total = 0
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            for batch in batches:
                inputs = {name: batch[name].to(device) for name in ("input_ids", "attention_mask") if name in batch}
                guesses = model(**inputs).logits[:, :-1].argmax(-1)
                labels = batch["labels"][:, 1:].to(device)
                is_digit = torch.isin(labels, digits)
                right += int((guesses[is_digit] == labels[is_digit]).sum())
                total += int(is_digit.sum())
    finally:
        model.train(training)
    return right / total if total else None


def untrained(dataset) -> int:
    """How many examples have no token to train on (all labels -100)."""
    import pyarrow.compute as compute

    count = 0
    for batch in dataset.select_columns("labels").with_format("arrow").iter(10_000):
        labels = batch["labels"].combine_chunks()
        trained_on = compute.not_equal(compute.list_flatten(labels), -100)
        examples = compute.list_parent_indices(labels).filter(trained_on)
        count += len(labels) - len(compute.unique(examples))
    return count


def count_examples(cfg, meta) -> dict[str, dict[str, int]]:
    """By split, the rows of its files (`rows`) and those that will be trained or evaluated on (`kept`)."""
    from axolotl.utils.data.shared import load_dataset_with_config

    def rows(entries) -> int:
        return sum(len(load_dataset_with_config(entry, cfg.hf_use_auth_token, streaming=False)) for entry in entries)

    sets = {"train": meta.train_dataset, "validation": meta.eval_dataset}
    kept = {split: len(dataset) - untrained(dataset) for split, dataset in sets.items() if dataset is not None}
    if not cfg.test_datasets:  # the validation set is cut off the training set
        return {"train": {"rows": rows(cfg.datasets), "kept": sum(kept.values())}}
    named = {"train": cfg.datasets, "validation": cfg.test_datasets}
    return {split: {"rows": rows(named[split]), "kept": count} for split, count in kept.items()}


def halt_on_nan(trainer) -> None:
    """Halt before the optimizer takes a step by a loss or a gradient that is not a number: it would ruin the weights,
    and the next checkpoint with them."""
    step, norm = trainer.training_step, trainer._get_grad_norm

    def check(name: str, value) -> None:
        if value is not None and not math.isfinite(number := float(value)):
            raise ElleError(
                f"the {name} is not a finite number at step {trainer.state.global_step + 1}: {number}",
                fix="lower learning_rate; the last checkpoint is from before this step",
            )

    latest = None

    def training_step(*arguments, **options):
        nonlocal latest
        latest = step(*arguments, **options)
        return latest

    def grad_norm(*arguments, **options):
        value = norm(*arguments, **options)
        check("loss", latest)
        if not trainer.args.fp16:  # its scaler skips steps of infinite gradients by itself
            check("gradient", value)
        return value

    trainer.training_step, trainer._get_grad_norm = training_step, grad_norm


class ElleAxolotlPlugin(BasePlugin):
    def load_datasets(self, cfg, preprocess=False):
        """Prepare the data as Axolotl does by itself, then count what is left of it, once."""
        path = os.environ.get(PROGRESS)
        if not path or cfg.rl or cfg.streaming or cfg.pretraining_dataset or cfg.skip_prepare_dataset:
            return None
        from axolotl.common.datasets import load_datasets

        meta = load_datasets(cfg=cfg)
        counts = Path(path).with_name(COUNTS)
        if int(os.environ.get("RANK", 0)) == 0 and not counts.exists():
            by_split = count_examples(cfg, meta)
            rows, lost = by_split["train"]["rows"], by_split["train"]["rows"] - by_split["train"]["kept"]
            if lost > LOST_ROWS * rows and os.environ.get(FORCE) != "1":
                raise ElleError(f"{lost / rows:.1%} of the data would not be trained on: {lost} of {rows} examples")
            storage.write_json(counts, by_split)
        return meta

    def get_training_args(self, cfg):
        # `bf16: true` is refused on a CPU ("assign use_cpu"), and no YAML key reaches use_cpu; this hook does.
        return {"use_cpu": True, "bf16": True} if os.environ.get(CPU_BF16) == "1" else None

    def post_model_load(self, cfg, model):
        # On a processor with avx512_bf16, bitsandbytes repacks 4-bit weights for good at the first evaluation, into a
        # form that has no gradient: the next training step would fail.
        for module in model.modules():
            if hasattr(module, "support_avx512bf16_for_cpu"):
                module.support_avx512bf16_for_cpu = False

    def add_callbacks_post_trainer(self, cfg, trainer):
        halt_on_nan(trainer)
        make = trainer.create_optimizer

        def create_optimizer(*arguments, **options):
            optimizer = make(*arguments, **options)
            # Axolotl asks each group for `weight_decay` when it resumes; its own Muon keeps it under `wd`.
            for group in optimizer.param_groups:
                group.setdefault("weight_decay", group.get("wd", 0.0))
            return optimizer

        trainer.create_optimizer = create_optimizer
        return []

    def add_callbacks_pre_trainer(self, cfg, model):
        path = os.environ.get(PROGRESS)
        return [Progress(Path(path))] if path else []
