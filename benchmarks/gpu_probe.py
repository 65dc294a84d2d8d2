"""The Axolotl plugin of benchmarks/gpu.py: fills a base of zeros with noise, measures a training, and ends it.

It waits with loading until the process of the variable PROBE_AFTER has ended, so that a run's imports can be made while
the run before it still trains. What it measured goes to PROBE_OUT, again after each step: GB of 1e9 bytes, seconds.
"""

import json
import os
import statistics
import subprocess
import time
from pathlib import Path

import torch
from axolotl.integrations.base import BasePlugin
from transformers import TrainerCallback

GPU = torch.cuda.is_available()
measured: dict = {}


def driver() -> float | None:
    """GB that the driver counts for this process; for the whole card, where it does not tell processes apart."""

    def ask(query: str) -> list[str]:
        command = ["nvidia-smi", f"--query-{query}", "--format=csv,noheader,nounits", f"--id={first}"]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()

    first = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0]
    try:
        own = [line.split(",")[1] for line in ask("compute-apps=pid,used_memory") if line.startswith(f"{os.getpid()},")]
        return round(float((own or ask("gpu=memory.used"))[0]) * 2**20 / 1e9, 3)
    except (OSError, subprocess.SubprocessError, ValueError, IndexError):
        return None


def wait() -> float:
    """All that the GPU was told is done; the clock."""
    if GPU:
        torch.cuda.synchronize()
    return time.perf_counter()


def gb(what: str) -> float:
    return round(getattr(torch.cuda, what)() / 1e9, 3) if GPU else 0.0


def write() -> None:
    if int(os.environ.get("RANK", "0")) == 0:
        out = Path(os.environ["PROBE_OUT"])
        out.with_suffix(".part").write_text(json.dumps(measured))
        out.with_suffix(".part").replace(out)


def fill(model) -> None:
    """Noise in place of zeros, on the GPU: with zeros a product is faster than it ever is in training."""
    for name, weights in model.named_parameters():
        if "lora_" in name:
            continue
        if getattr(weights, "ds_id", None) is not None:  # ZeRO-3: this rank's part
            weights = weights.ds_tensor
        if type(weights).__name__ == "Params4bit":
            weights.data.view(torch.uint8).random_(0, 256)
            state = weights.quant_state
            state.offset.fill_(0.03) if state.nested else state.absmax.fill_(0.03)
        elif "norm" in name:
            weights.data.fill_(1.0)
        elif not name.endswith("bias"):
            weights.data.normal_(0, 0.02)


class Watch(TrainerCallback):
    trainer, sequence = None, 0

    def __init__(self):
        self.times: list[float] = []

    def on_train_begin(self, args, state, control, model=None, **kwargs):
        kinds: dict[str, int] = {}
        for weights in model.parameters():
            kind = str(weights.dtype).removeprefix("torch.") + "*" * weights.requires_grad
            kinds[kind] = kinds.get(kind, 0) + (getattr(weights, "ds_numel", 0) or weights.numel())
        measured.update(
            parameters=kinds,
            states_gb=gb("memory_allocated"),
            attention=getattr(model.config, "_attn_implementation", None),
            checkpointing=bool(args.gradient_checkpointing),
            load_s=round(time.perf_counter() - measured.pop("loading"), 1),
        )
        if GPU:
            torch.cuda.reset_peak_memory_stats()
        self.times.append(wait())

    def on_step_end(self, args, state, control, **kwargs):
        self.times.append(wait())
        seconds = [round(end - begin, 4) for begin, end in zip(self.times[:-1], self.times[1:], strict=True)]
        measured.update(
            step_s=seconds,
            median_step_s=round(statistics.median(seconds[1:] or seconds), 4),
            after_step_gb=gb("memory_allocated"),
            peak_gb=gb("max_memory_allocated"),
            reserved_gb=gb("max_memory_reserved"),
            driver_gb=driver() if GPU else None,
        )
        write()

    def on_log(self, args, state, control, logs=None, **kwargs):
        if "loss" in (logs or {}):
            measured.setdefault("losses", []).append(float(logs["loss"]))

    def on_train_end(self, args, state, control, model=None, **kwargs):
        if sizes := os.environ.get("PROBE_MICRO"):
            measured["micro_steps"] = [
                one for micro in sizes.split(",") if (one := micro_step(self.trainer, model, int(micro)))
            ]
        write()
        os._exit(0)  # nothing is saved


def micro_step(trainer, model, micro: int, times: int = 3) -> dict | None:
    """Forward and backward of `micro` rows of the training set, without the optimizer; None where memory runs out."""
    batch = trainer._prepare_inputs(next(iter(trainer.get_train_dataloader())))
    repeated = {
        name: value[:1, : Watch.sequence].repeat(
            (micro, 1) if len(value) > 1 else (1, micro)
        )  # rows in a row, or below
        for name, value in batch.items()
        if isinstance(value, torch.Tensor) and value.dim() > 1
    }
    seconds = []
    try:
        for turn in range(times):
            model.zero_grad(set_to_none=True)
            if turn == 1 and GPU:
                torch.cuda.empty_cache()
                torch.cuda.reset_peak_memory_stats()
            began = wait()
            trainer.training_step(model, dict(repeated))
            seconds.append(wait() - began)
    except torch.OutOfMemoryError:
        return None
    finally:
        model.zero_grad(set_to_none=True)
    return {
        "micro": micro,
        "seconds": round(min(seconds[1:]), 4),
        "peak_gb": gb("max_memory_allocated"),
        "reserved_gb": gb("max_memory_reserved"),
    }


class Probe(BasePlugin):
    def pre_model_load(self, cfg):
        before = Path("/proc") / os.environ.get("PROBE_AFTER", "none")
        while before.exists():
            time.sleep(0.05)
        Path(os.environ["PROBE_OUT"]).with_suffix(".loading").touch()
        measured["loading"] = time.perf_counter()

    def post_model_load(self, cfg, model):
        with torch.no_grad():
            fill(model)

    def add_callbacks_pre_trainer(self, cfg, model):
        return [Watch()]

    def add_callbacks_post_trainer(self, cfg, trainer):
        Watch.trainer, Watch.sequence = trainer, cfg.sequence_len
        return []
