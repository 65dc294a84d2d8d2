"""The Axolotl plugin that `launch` adds to every recipe it runs: progress for people, examples counted before
training, a halt at the first loss that is no number, and bf16 on a CPU.

Axolotl writes its progress as text without step numbers. The plugin writes what happens as JSONL instead
(`progress.jsonl` beside the weights): one object a log, evaluation, save and end.
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
from elle.training.diagnosis import NOT_FINITE, ROWS_LOST
from elle.training.launch import COUNTS, CPU_BF16, FORCE, LOST_ROWS, PROGRESS, STARTED

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

    def on_log(self, args, state, control, logs=None, **kwargs):
        numbers = {key: value for key, value in (logs or {}).items() if isinstance(value, int | float)}
        self._write("log", state, **numbers)

    def on_evaluate(self, args, state, control, model=None, processing_class=None, eval_dataloader=None, **kwargs):
        if model is None or eval_dataloader is None or processing_class is None:
            return
        accuracy = digit_accuracy(model, processing_class, itertools.islice(eval_dataloader, DIGIT_BATCHES))
        if accuracy is not None:
            self._write("log", state, digit_accuracy=accuracy)

    def on_save(self, args, state, control, **kwargs):
        self._write("save", state)

    def on_train_end(self, args, state, control, model=None, **kwargs):
        self._write("end", state, **(parameter_counts(model) if model is not None else {}), **peaks())


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
    found = {"peak_host_gb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9, 3)}
    if torch.cuda.is_available():
        found["peak_gpu_gb"] = round(torch.cuda.max_memory_allocated() / 1e9, 3)
    return found


def digit_accuracy(model, tokenizer, batches) -> float | None:
    """The share of digits (0..1) that the model predicts right, each given all that stands before it; None if no
    digit is trained on. It shows the copying of figures being learned, which the loss hides among the words.

    batches: dicts of tensors with `labels` (-100: not trained on), as the trainer's data loader gives them.
    """
    digits = [index for token, index in tokenizer.get_vocab().items() if len(token) == 1 and token in "0123456789"]
    right = total = 0
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            for batch in batches:
                device = next(model.parameters()).device
                inputs = {name: batch[name].to(device) for name in ("input_ids", "attention_mask") if name in batch}
                guesses = model(**inputs).logits[:, :-1].argmax(-1)
                labels = batch["labels"][:, 1:].to(device)
                asked = torch.isin(labels, torch.tensor(digits, device=device))
                right += int((guesses[asked] == labels[asked]).sum())
                total += int(asked.sum())
    finally:
        model.train(training)
    return right / total if total else None


def untrained(dataset) -> int:
    """How many examples have no token to train on (all labels -100)."""
    import pyarrow.compute as compute

    count = 0
    for batch in dataset.select_columns("labels").with_format("arrow").iter(10_000):
        labels = batch["labels"].combine_chunks()
        asked = compute.not_equal(compute.list_flatten(labels), -100)
        owners = compute.list_parent_indices(labels).filter(asked)
        count += len(labels) - len(compute.unique(owners))
    return count


def count_examples(cfg, meta) -> dict[str, dict[str, int]]:
    """By split, the rows of its files (`rows`) and those that will be trained or evaluated on (`kept`)."""
    from axolotl.utils.data.shared import load_dataset_with_config

    def rows(entries) -> int:
        return sum(len(load_dataset_with_config(entry, cfg.hf_use_auth_token, streaming=False)) for entry in entries)

    kept = {"train": meta.train_dataset, "validation": meta.eval_dataset}
    found = {name: len(set_) - untrained(set_) for name, set_ in kept.items() if set_ is not None}
    if cfg.test_datasets:
        asked = {"train": rows(cfg.datasets), "validation": rows(cfg.test_datasets)}
    else:  # the validation set is cut off the training set
        found = {"train": sum(found.values())}
        asked = {"train": rows(cfg.datasets)}
    return {name: {"rows": asked[name], "kept": kept} for name, kept in found.items()}


def halt_on_nan(trainer) -> None:
    """Halt before the optimizer takes a step by a loss or a gradient that is no number: it would ruin the weights, and
    the next checkpoint with them."""
    step, norm = trainer.training_step, trainer._get_grad_norm
    latest = {}

    def training_step(*arguments, **options):
        latest["loss"] = step(*arguments, **options)
        return latest["loss"]

    def grad_norm(*arguments, **options):
        value = norm(*arguments, **options)
        seen = {"loss": latest.get("loss")}
        if not trainer.args.fp16:  # its scaler skips steps of infinite gradients by itself
            seen["gradient"] = value
        for name, number in seen.items():
            if number is not None and not math.isfinite(number := float(number)):
                raise ElleError(
                    f"the {name} {NOT_FINITE} at step {trainer.state.global_step + 1}: {number}",
                    fix="lower learning_rate; the last checkpoint is from before this step",
                )
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
            found = count_examples(cfg, meta)
            rows, kept = found["train"]["rows"], found["train"]["kept"]
            if rows - kept > LOST_ROWS * rows and os.environ.get(FORCE) != "1":
                raise ElleError(f"{(rows - kept) / rows:.1%} {ROWS_LOST}: {rows - kept} of {rows} examples")
            storage.write_json(counts, found)
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
