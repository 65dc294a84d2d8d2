"""Axolotl as a subprocess: prepared, started or found running, followed, and its results read.

A training run has a folder of its own, named by what goes into it (recipe, data, base model, versions): the same
inputs lead to the same folder, where a finished run is found finished, a running one is joined, and an interrupted
one continues from its last checkpoint. Different inputs never overwrite each other.
"""

import hashlib
import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import yaml

from helpers import jsonl, machine, paths
from helpers.errors import ElleError
from helpers.process import Job
from helpers.training import recipe as recipes

#: Environment variable: a pid with which a training ends too (`elle run` sets it). Without it a training outlives
#: its notebook's kernel, and a re-run cell joins it again.
OWNER = "ELLE_OWNER"

#: Environment variables that tell the plugin inside the trainer where to write progress, and to use bf16 on a CPU.
PROGRESS, CPU_BF16 = "ELLE_PROGRESS", "ELLE_CPU_BF16"

PLUGIN = "helpers.training.plugin.ElleAxolotlPlugin"
DONE, ATTEMPTS = "training.json", "attempts.json"


def environment() -> dict[str, str]:
    """The variables under which Axolotl runs: this environment's programs first (its launchers call each other by
    name), and no usage reports."""
    programs = f"{Path(sys.prefix) / 'bin'}{os.pathsep}{os.environ.get('PATH', '')}"
    return dict(os.environ) | {"PATH": programs, "AXOLOTL_DO_NOT_TRACK": "1"}


@dataclass(frozen=True)
class Prepared:
    """What is about to run: `config` is written to `folder/axolotl.yaml`, `command` trains it."""

    folder: Path
    config: dict
    command: list[str]
    variables: dict[str, str]
    inputs: dict[str, str]  # what goes in, by name → sha256 or version
    precision: str  # one sentence: which precision, and why

    @property
    def weights(self) -> Path:
        return self.folder / "weights"

    @property
    def progress(self) -> Path:
        return self.folder / "progress.jsonl"


@dataclass(frozen=True)
class Trained:
    """A finished training run.

    history: one dict a log, in order of steps (`step`, `seconds` of training so far, `loss` or `eval_loss`, …);
    seconds: of training and start-up, over all attempts.
    """

    folder: Path
    weights: Path
    steps: int
    seconds: float
    history: list[dict]


def prepare(
    recipe: Path | str,
    parent: Path | str,
    *,
    base_model: Path | str | None = None,
    train: Path | str | None = None,
    validation: Path | str | None = None,
    seed: int | None = None,
) -> Prepared:
    """Resolve a recipe for this machine and these inputs; write the exact configuration that will run.

    Args:
        recipe: a YAML file; `base_model`, `train`, `validation` and `seed`, where given, replace what it says.
        parent: the folder that holds training runs.

    Raises:
        ElleError: what `recipe.load` raises; a data file that is missing or empty; a local base without weights.
    """
    config = dict(recipes.load(recipe))
    computer = machine.inspect()
    inputs = {"axolotl": metadata.version("axolotl"), "recipe": jsonl.sha256(paths.located(recipe))}
    if base_model is not None:
        config["base_model"] = str(base_model)
    base = Path(config["base_model"])
    local = base.is_dir()
    if local or base.is_absolute():
        weights = sorted(base.glob("*.safetensors"))
        if not weights:
            raise ElleError(
                "the base model's folder has no weights",
                where=str(base),
                fix="run the cell of notebook 05_train that makes the base, or name another base_model",
            )
        config["base_model"] = str(base.resolve())
        inputs |= {f"base/{path.name}": jsonl.sha256(path) for path in weights}
    if train is not None:
        config["datasets"] = [dict(config["datasets"][0]) | {"path": _data(train, inputs), "ds_type": "json"}]
    if validation is not None:
        subset = (config.get("test_datasets") or [{}])[0].get("split", "train")
        config.pop("val_set_size", None)
        config["test_datasets"] = [
            dict(config["datasets"][0]) | {"path": _data(validation, inputs), "split": subset, "ds_type": "json"}
        ]
    if seed is not None:
        config["seed"] = seed
    config["plugins"] = [*(config.get("plugins") or []), PLUGIN]

    if isinstance(config.get("deepspeed"), str):
        if len(computer.gpus) > 1:
            # Axolotl is started elsewhere, and takes a path that it does not find for a name.
            config["deepspeed"] = str(paths.located(config["deepspeed"]).resolve())
            inputs["deepspeed"] = jsonl.sha256(config["deepspeed"])
        else:
            del config["deepspeed"]  # one device has nothing to partition over

    variables = {"HF_HUB_OFFLINE": "1"} if local else {}
    if computer.device == "cpu":
        # Axolotl's Muon compiles its step: on a CPU that costs a minute of start-up and saves nothing at this size.
        variables["TORCHDYNAMO_DISABLE"] = "1"
        # Memory that a step gives back is kept for the next: else a tenth of the time goes into page faults.
        variables |= {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": "100000000000"}
        wants_bf16 = config.get("bf16") in ("auto", True)
        bf16 = wants_bf16 and computer.bf16_on_cpu
        variables[CPU_BF16] = "1" if bf16 else "0"
        config |= {"bf16": False, "fp16": False, "tf32": False, "attn_implementation": "sdpa"}
        config.pop("flash_attention", None)
        inputs["precision"] = "bf16" if bf16 else "fp32"
        why = (
            "the processor multiplies bf16 natively"
            if bf16
            else "the processor has no bf16 arithmetic"
            if wants_bf16
            else "the recipe says so"
        )
        precision = f"{inputs['precision']}, because {why}."
    else:
        precision = f"bf16: {config.get('bf16')}, as the recipe says."

    paths_only = ("base_model", "datasets", "test_datasets", "deepspeed")  # what is in them is among the inputs
    named = {key: value for key, value in config.items() if key not in paths_only}
    key = hashlib.sha256(json.dumps([named, inputs], sort_keys=True, default=str).encode()).hexdigest()[:8]
    folder = Path(parent).resolve() / f"{Path(recipe).stem}-{key}"
    config |= {
        "output_dir": str(folder / "weights"),
        "dataset_prepared_path": str(folder / "prepared"),
        "auto_resume_from_checkpoints": True,
    }
    jsonl.write_text(folder / "axolotl.yaml", yaml.safe_dump(config, sort_keys=False, allow_unicode=True))
    variables[PROGRESS] = str(folder / "progress.jsonl")
    command = ["axolotl", "train", str(folder / "axolotl.yaml")]
    if len(computer.gpus) <= 1:
        command += ["--launcher", "python"]  # one process: no launcher is needed
    return Prepared(folder, config, command, variables, inputs, precision)


def _data(path: Path | str, inputs: dict[str, str]) -> str:
    path = Path(path).resolve()
    for _ in jsonl.read(path):  # the first line is enough: Axolotl reads the rest
        inputs[path.name] = jsonl.sha256(path)
        return str(path)
    raise ElleError("this data set is empty", where=str(path), fix="run notebook 03_generate_data with a larger count")


def start(prepared: Prepared) -> Job | None:
    """Start the training, or join one that runs; None if it is done already."""
    if (prepared.folder / DONE).exists() and list(prepared.weights.glob("*.safetensors")):
        return None
    job = Job.attach(prepared.folder)
    if job is not None and job.running:
        return job
    if job is not None:  # an earlier attempt: its time counts, and the next one's record takes its place
        jsonl.write_json(prepared.folder / ATTEMPTS, [*_attempts(prepared.folder), _seconds(prepared.folder)])
    owner = os.environ.get(OWNER)
    return Job.start(
        prepared.folder,
        prepared.command,
        env=environment() | prepared.variables,
        cwd=prepared.folder,  # Axolotl leaves files where it runs
        owner=int(owner) if owner else None,
    )


def _seconds(folder: Path) -> float:
    """Wall-clock seconds of the last attempt; 0 where it vanished without a record."""
    record = folder / "exit.json"
    return jsonl.read_json(record)["seconds"] if record.exists() else 0.0


def _attempts(folder: Path) -> list[float]:
    return jsonl.read_json(folder / ATTEMPTS) if (folder / ATTEMPTS).exists() else []


def read_history(path: Path | str) -> list[dict]:
    """The plugin's progress so far: logs in order of steps, `seconds` counted over all attempts.

    Where an interrupted run went back to a checkpoint, the later attempt's steps replace the earlier one's.
    """
    logs: dict[tuple[int, bool], dict] = {}
    before = last = 0.0
    if not Path(path).exists():
        return []
    for line in Path(path).read_text(encoding="utf-8").splitlines():
        try:
            event = json.loads(line)
        except json.JSONDecodeError:  # the last line of a process that was killed while writing it
            continue
        if event["event"] == "begin":
            before += last
        last = event["seconds"]
        evaluation = "eval_loss" in event or "digit_accuracy" in event
        if event["event"] == "log" and (evaluation or "loss" in event):
            log = event | {"seconds": before + last}
            same_step = logs.get((event["step"], evaluation), {}) if "digit_accuracy" in event else {}
            logs[event["step"], evaluation] = same_step | log
    return [logs[key] for key in sorted(logs)]


def follow(
    prepared: Prepared, job: Job | None, progress: Callable[[list[dict]], None] | None = None, every: float = 1.0
) -> Trained:
    """Wait until the training ends, showing its history as it grows; an interrupt (Ctrl-C) ends the training too.

    Raises:
        ElleError: the training failed, with the log's own reason; or it ended without weights.
    """
    marker = prepared.folder / DONE
    if job is not None:
        shown = -1
        try:
            while job.running:
                history = read_history(prepared.progress)
                if progress and len(history) != shown:
                    shown = len(history)
                    progress(history)
                time.sleep(every)
        except KeyboardInterrupt:
            job.stop(timeout=20)
            raise
        if job.returncode != 0:
            raise ElleError(
                f"Axolotl failed: {job.reason()}",
                where=str(job.log),
                fix="the log has the rest; correct the cause and run this again: it continues from the last checkpoint",
            )
        if not list(prepared.weights.glob("*.safetensors")):
            raise ElleError("Axolotl ended well but left no weights", where=str(prepared.weights), fix="read log.txt")
        attempts = [*_attempts(prepared.folder), _seconds(prepared.folder)]
        jsonl.write_json(
            marker, {"inputs": prepared.inputs, "seconds": round(sum(attempts), 1), "attempts": len(attempts)}
        )
    history = read_history(prepared.progress)
    if progress:
        progress(history)
    steps = max((log["step"] for log in history), default=0)
    return Trained(prepared.folder, prepared.weights, steps, jsonl.read_json(marker)["seconds"], history)


def copying_learned(history: list[dict], threshold: float = 0.9) -> int | None:
    """The first evaluated step at which at least `threshold` of the digits are predicted right (`digit_accuracy`:
    teacher-forced, on validation examples); None if there is none.

    The text of a briefing is learned at once; copying its figures is learned abruptly, and later.
    """
    return next((log["step"] for log in history if log.get("digit_accuracy", 0) >= threshold), None)
