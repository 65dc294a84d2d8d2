"""The Axolotl plugin that `launch` adds to every recipe it runs: progress for people, and bf16 on a CPU.

Axolotl writes its progress as text without step numbers. The plugin writes what happens as JSONL instead
(`progress.jsonl` beside the weights): one object a log, evaluation, save and end.
"""

import itertools
import json
import os
import time
from pathlib import Path

import torch
from axolotl.integrations.base import BasePlugin
from transformers import TrainerCallback

from helpers.training.launch import CPU_BF16, PROGRESS

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
        self._write("begin", state)

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

    def on_train_end(self, args, state, control, **kwargs):
        self._write("end", state)


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


class ElleAxolotlPlugin(BasePlugin):
    def get_training_args(self, cfg):
        # `bf16: true` is refused on a CPU ("assign use_cpu"), and no YAML key reaches use_cpu; this hook does.
        return {"use_cpu": True, "bf16": True} if os.environ.get(CPU_BF16) == "1" else None

    def add_callbacks_post_trainer(self, cfg, trainer):
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
