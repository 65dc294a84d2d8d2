"""Tokens per second of Axolotl's nano training beside a plain PyTorch loop: the same model, rows, batch, precision and
optimizer, on this machine.

python benchmarks/train.py [STEPS]

The plain loop runs before and after Axolotl, each in a process of its own under the same variables. Both count all
tokens, padding included, and leave out the first tenth of the steps, evaluation and saving. Beside the wall-clock
stands the processor's own time, which other programs on the machine disturb less.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
import yaml

from elle.base import paths
from elle.base.yaml_files import read_yaml
from elle.briefings import dataset
from elle.training import history, launch, nano, resolution


def plain(folder: str, base: str, steps: int, bf16: bool) -> dict:
    """Train `steps` steps by hand; tokens per second of wall-clock and of the processor's time."""
    import torch
    from axolotl.contribs.mit.muon import MuonOptimizerFactory
    from datasets import load_from_disk
    from transformers import AutoModelForCausalLM

    rows = max((load_from_disk(str(path)) for path in Path(folder).iterdir() if path.is_dir()), key=len)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32).train()
    optimizer = MuonOptimizerFactory()(model, None, lr=0.003, weight_decay=0.0, betas=(0.9, 0.999))
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(42)).tolist()
    seconds, used, counted = [], [], []
    for step in range(steps):
        began, spent = time.perf_counter(), time.process_time()
        batch = rows.select(order[16 * step : 16 * (step + 1)])
        width = max(map(len, batch["input_ids"]))
        ids, mask, labels = (
            torch.tensor([[*row, *[fill] * (width - len(row))] for row in batch[name]])
            for name, fill in (("input_ids", model.config.pad_token_id), ("attention_mask", 0), ("labels", -100))
        )
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            loss = model(input_ids=ids, attention_mask=mask, labels=labels).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        seconds.append(time.perf_counter() - began)
        used.append(time.process_time() - spent)
        counted.append(ids.numel())
    first = steps // 10
    return {
        "wall": [sum(counted[i : i + 10]) / sum(seconds[i : i + 10]) for i in range(first, steps, 10)],
        "cpu": sum(counted[first:]) / sum(used[first:]),
        "loss": float(loss),
    }


def by_hand(prepared: launch.Prepared, steps: int) -> dict:
    command = [sys.executable, __file__, "plain", str(prepared.folder / "prepared"), prepared.config["base_model"]]
    command += [str(steps), str(int(prepared.variables[resolution.CPU_BF16] == "1"))]
    done = subprocess.run(
        command, env=os.environ | prepared.variables, capture_output=True, text=True, check=False, cwd=prepared.folder
    )
    if done.returncode:
        sys.exit(done.stderr[-2000:])
    return json.loads(done.stdout.splitlines()[-1])


def by_axolotl(prepared: launch.Prepared, steps: int) -> dict:
    """Train the recipe; its processor's time is looked up at the first log and at the last."""
    job = launch.start_training(prepared)
    marks: dict[int, tuple[float, int]] = {}
    while job.running:
        rows = [row for row in history.read_history(prepared.progress) if history.TOTAL in row]
        if rows and rows[-1]["step"] not in marks:
            marks[rows[-1]["step"]] = (processor_seconds(job.pid), rows[-1][history.TOTAL])
        time.sleep(0.05)
    trained = launch.follow(prepared, job)
    (_, first), *_, (_, last) = sorted(marks.items())
    return {
        "wall": [pace for step, pace in history.rates(trained.history) if step > steps // 10],
        "cpu": (last[1] - first[1]) / (last[0] - first[0]),
        "loss": [row["loss"] for row in trained.history if "loss" in row][-1],
    }


def processor_seconds(pid: int) -> float:
    total = 0.0
    for process in psutil.Process(pid).children(recursive=True):
        try:
            total += sum(process.cpu_times()[:2])
        except psutil.NoSuchProcess:
            continue
    return total


def main(steps: int) -> None:
    recipe = read_yaml(paths.configs() / "nano.yaml")
    recipe |= {"max_steps": steps, "save_strategy": "no", "eval_strategy": "no", "warmup_steps": 5}
    recipe |= {"learning_rate": 0.003, "lr_scheduler": "constant"}
    for key in ("test_datasets", "eval_steps", "save_steps", "lr_scheduler_kwargs"):
        recipe.pop(key)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        dataset.ensure("basic", 20 * steps, 42, folder / "data")
        file = folder / "nano.yaml"
        file.write_text(yaml.safe_dump(recipe), encoding="utf-8")
        train = folder / "data" / "train.jsonl"
        base = nano.resolve_base("configs/nano_base.yaml", train, folder / "base")
        prepared = launch.prepare(file, folder / "train", base_model=base, train=train)
        launch.preprocess(prepared)
        before = by_hand(prepared, steps)
        axolotl = by_axolotl(prepared, steps)
        after = by_hand(prepared, steps)
    hand = {"wall": before["wall"] + after["wall"], "cpu": (before["cpu"] + after["cpu"]) / 2, "loss": after["loss"]}
    print(f"precision {prepared.precision}")
    for label, run in (("plain PyTorch", hand), ("Axolotl", axolotl)):
        wall = statistics.median(run["wall"])
        print(f"{label:<14} {wall:7,.0f} tokens/s (median of {len(run['wall'])} windows of ten steps), ", end="")
        print(f"{run['cpu']:7,.0f} tokens per second of processor time; last loss {run['loss']:.3f}")
    wall = statistics.median(axolotl["wall"]) / statistics.median(hand["wall"])
    print(f"ratio          {wall:.2f} by the clock, {axolotl['cpu'] / hand['cpu']:.2f} by processor time")


if __name__ == "__main__":
    if sys.argv[1:2] == ["plain"]:
        print(json.dumps(plain(sys.argv[2], sys.argv[3], int(sys.argv[4]), sys.argv[5] == "1")))
    else:
        main(int(sys.argv[1]) if len(sys.argv) > 1 else 100)
