"""Axolotl as a subprocess: prepared, started or found running, followed, and its results read.

A training run has a folder of its own, named by what goes into it (recipe, data, base model, versions): the same
inputs lead to the same folder, where a finished run is found finished, a running one is joined, and an interrupted
one continues from its last checkpoint. Different inputs never overwrite each other.
"""

import hashlib
import json
import math
import os
import shlex
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from elle.base import machine, paths, storage, yaml_files
from elle.base.errors import ElleError
from elle.base.process import Job
from elle.plan import hardware
from elle.plan.axolotl import trainer_environment
from elle.plan.findings import Finding
from elle.plan.preflight import Plan
from elle.training import checkpoints, diagnosis
from elle.training.history import copying_learned, ending, rate, read_history, tokens
from elle.training.resolution import Resolved, resolve_recipe

#: Environment variable: a pid with which a training ends too (`elle run`, `elle train` set it). Without it a training
#: outlives its notebook's kernel, and a re-run cell joins it again.
OWNER = "ELLE_OWNER"

#: Environment variables for the plugin inside the trainer: where to write progress, since when the job runs, and "1"
#: where nothing is to be refused.
PROGRESS, STARTED, FORCE = "ELLE_PROGRESS", "ELLE_STARTED", "ELLE_FORCE"

DONE, ATTEMPTS, COUNTS = "training.json", "attempts.json", "counts.json"
#: Packages whose versions a run's manifest names.
PACKAGES = ("axolotl", "torch", "transformers", "peft", "bitsandbytes", "deepspeed", "accelerate", "datasets")
#: The share of examples that may be lost (too long, or nothing to train on) before a training is refused.
LOST_ROWS = 0.01
#: Shows a training's history as it grows.
Progress = Callable[[list[dict]], None]
#: Findings of the preflight about this machine, and not about recipe and data.
ABOUT_THE_MACHINE = ("gpu-memory", "host-memory", "weights-replicated", "disk", "unknown-model")


@dataclass(kw_only=True)
class Prepared(Resolved):
    """What is about to run: `config` is written to `folder/axolotl.yaml`, `command` trains it.

    plan: what the preflight says of it on this machine; forced: what stood against it and was overridden.
    """

    folder: Path
    command: list[str]
    plan: Plan
    forced: list[str]

    @property
    def weights(self) -> Path:
        return self.folder / "weights"

    @property
    def progress(self) -> Path:
        return self.folder / "progress.jsonl"

    @property
    def preprocess(self) -> list[str]:
        """The command that prepares the data, and does no more."""
        return ["axolotl", "preprocess", str(self.folder / "axolotl.yaml")]

    @property
    def commands(self) -> list[list[str]]:
        """What runs, in order. On a GPU the data is prepared by a process of its own, before the GPU's memory is
        taken; on a CPU in one process with the training: starting Axolotl takes longer than the data."""
        prepared = self.plan.hardware.is_cpu or (self.folder / COUNTS).exists()
        return [self.command] if prepared else [self.preprocess, self.command]

    @property
    def hourly(self) -> float | None:
        """Dollars an hour for all GPUs, between the lowest and the highest price; 0 on a CPU, None if unknown."""
        low, high = hardware.hourly(self.plan.hardware)
        return (low + high) / 2 or (0.0 if self.plan.hardware.is_cpu else None)

    @property
    def has_weights(self) -> bool:
        return any(self.weights.glob("*.safetensors"))

    def said(self, *, data_only: bool = False, exact: bool = False) -> list[str]:
        """What is to run, in lines for people: the commands, the precision, and what to know.

        exact: commands as they run here, not with the paths that a committed notebook may show.
        """
        commands = [self.preprocess] if data_only else self.commands
        lines = [f"command    {shlex.join(c if exact else map(_shown, c))}" for c in commands]
        lines.append(f"precision  {self.precision}")
        lines += [f"remark     {remark}" for remark in self.remarks]
        lines += [f"warning    {_sentence(f)}" for f in self.plan.findings if f.severity == "warning"]
        return lines + [f"forced     {reason}" for reason in self.forced]


@dataclass(frozen=True)
class Trained:
    """A finished training run.

    history: one dict per log, in order of steps (`history.read_history`); seconds: of training and start-up, over all
    attempts; manifest: what `training.json` holds.
    """

    folder: Path
    weights: Path
    steps: int
    seconds: float
    history: list[dict]
    manifest: dict

    @property
    def adapter(self) -> bool:
        """Whether the weights are an adapter, which needs its base model (or `merge_adapter`), not a whole model."""
        return (self.weights / "adapter_config.json").exists()


def prepare(
    recipe_file: Path | str,
    parent: Path | str,
    *,
    refusals: Sequence[str] = (),
    force: bool = False,
    data_only: bool = False,
    **inputs: Any,
) -> Prepared:
    """Resolve a recipe for this machine and these inputs; write the exact configuration that will run.

    Args:
        recipe_file: a YAML file.
        parent: the folder that holds training runs.
        refusals: further reasons not to train (a data set that fails its audit, say).
        force: train all the same; the manifest names what was overridden.
        data_only: for `preprocess` alone: this machine need not hold the model.
        inputs: `base_model`, `train`, `validation` and `seed`, which replace what the recipe says (`resolve_recipe`).

    Raises:
        ElleError: no such recipe; a data file that is missing or empty; a local base without weights; what the
            preflight refuses on this machine, or one of `refusals`.
    """
    resolved = resolve_recipe(recipe_file, parent, **inputs)
    plan, config = resolved.assess(), resolved.config
    excused = ABOUT_THE_MACHINE if data_only else ()
    against = [_sentence(f) for f in plan.findings if f.severity == "error" and f.code not in excused]
    against += refusals
    if against and not force:
        raise ElleError(
            f"this training is refused: {'; '.join(against)}",
            where=paths.shown(resolved.file),
            fix="correct the recipe (`elle plan` says more, `--fix OUT.yaml` looks for one that passes), "
            "or override it: `elle train --force`, force=True",
        )

    paths_only = ("base_model", "datasets", "test_datasets", "deepspeed")  # what is in them is among the inputs
    named = {key: value for key, value in config.items() if key not in paths_only}
    key = hashlib.sha256(json.dumps([named, resolved.inputs], sort_keys=True, default=str).encode()).hexdigest()[:8]
    folder = Path(parent).resolve() / f"{resolved.file.stem}-{key}"
    config |= {
        "output_dir": str(folder / "weights"),
        "dataset_prepared_path": str(folder / "prepared"),
        "auto_resume_from_checkpoints": not config.get("save_only_model"),
    }
    storage.write_text(folder / "axolotl.yaml", yaml_files.dump(config))
    resolved.variables |= {PROGRESS: str(folder / "progress.jsonl"), FORCE: str(int(force))}
    launcher = ["--launcher", "python"]  # one process: no launcher is needed
    if (gpus := len(resolved.computer.gpus)) > 1:
        options = ["--multi_gpu", "--num_machines", "1", "--num_processes", str(gpus)]
        launcher = ["--launcher", "accelerate", "--", *options, "--main_process_port", "0"]  # 0: any port that is free
    command = ["axolotl", "train", str(folder / "axolotl.yaml"), *launcher]
    return Prepared(**vars(resolved), folder=folder, command=command, plan=plan, forced=against)


def _sentence(finding: Finding) -> str:
    fix = f" (fix: {finding.fix})" if finding.fix else ""
    return f"{finding.where}: {finding.message}{fix}"


def _shown(word: str) -> str:
    return paths.shown(word) if Path(word).is_absolute() else word


def start_training(prepared: Prepared) -> Job | None:
    """Start the training, or join one that runs; None if it is done already, an ElleError if it would wait for a killed
    build. Checkpoints that were cut short are set aside, so that it goes on from the newest whole one."""
    folder = prepared.folder
    if (folder / DONE).exists() and prepared.has_weights:
        return None
    job = Job.attach(folder)
    if job is not None and job.running:
        return job
    if prepared.config.get("deepspeed"):  # no other recipe builds extensions
        _refuse_abandoned_builds(trainer_environment() | prepared.variables)
    if job is not None:  # an earlier attempt: its time counts, and the next one's record takes its place
        storage.write_json(folder / ATTEMPTS, _attempts(folder))
    if prepared.config["auto_resume_from_checkpoints"]:
        for remark in checkpoints.set_aside(prepared.weights):
            print(remark, file=sys.stderr)
    first, *then = prepared.commands
    command = ["sh", "-c", " && exec ".join(map(shlex.join, [first, *then]))] if then else first
    return _run(folder, command, prepared.folder, prepared.variables)


def _refuse_abandoned_builds(variables: Mapping[str, str]) -> None:
    """Raise an ElleError if a build of an extension of torch was killed: its lock is left, and torch waits for it for
    ever, in silence. Whoever builds has the lock's file open (torch.utils.file_baton)."""
    import psutil

    given, home = variables.get("TORCH_EXTENSIONS_DIR"), variables.get("XDG_CACHE_HOME") or "~/.cache"
    builds = f"torch_extensions/py{sys.version_info.major}{sys.version_info.minor}_*"
    locks = list(Path(given).glob("*/lock") if given else Path(home).expanduser().glob(f"{builds}/*/lock"))
    processes = psutil.process_iter(["open_files"]) if locks else ()
    held = {file.path for process in processes for file in process.info["open_files"] or ()}
    for lock in locks:
        if str(lock.resolve()) not in held and lock.exists():  # else that build has ended meanwhile
            since = f"{datetime.fromtimestamp(lock.stat().st_mtime):%Y-%m-%d %H:%M}"
            what = f"the build of torch's extension {lock.parent.name} was killed: its lock, which no process of this "
            what += f"machine holds since {since}, would let the training wait for ever"
            fix = f"`rm {shlex.quote(str(lock))}`, then the same command (unless another machine builds there)"
            raise ElleError(what, where=str(lock), fix=fix)


def _attempts(folder: Path) -> list[float]:
    """Wall-clock seconds of each attempt, the last one's too; 0 where it vanished without a record."""
    earlier, record = folder / ATTEMPTS, folder / "exit.json"
    last = storage.read_json(record)["seconds"] if record.exists() else 0.0
    return [*(storage.read_json(earlier) if earlier.exists() else []), last]


def _run(folder: Path, command: list[str], training: Path, variables: Mapping[str, str]) -> Job:
    """Axolotl in a training's folder, where it leaves files (wandb's temporary ones too); `folder` is the job's own."""
    owner = os.environ.get(OWNER)
    env = trainer_environment() | variables | {STARTED: datetime.now(UTC).isoformat()}
    return Job.start(folder, command, env=env, cwd=training, owner=int(owner) if owner else None, scratch=True)


def preprocess(prepared: Prepared) -> dict[str, dict[str, int]]:
    """Only prepare the data, as the training would: by split, its `rows`, and the examples `kept` to train on.

    Raises:
        ElleError: Axolotl failed (a malformed row, say), or more than LOST_ROWS of the examples would be lost.
    """
    if not (prepared.folder / COUNTS).exists():
        _wait(_run(prepared.folder / "preprocess", prepared.preprocess, prepared.folder, prepared.variables))
    return counts(prepared.folder)


def counts(folder: Path) -> dict[str, dict[str, int]]:
    """By split, the rows of a training's data and the examples kept of them; {} until they are counted."""
    return storage.read_json(folder / COUNTS) if (folder / COUNTS).exists() else {}


def counted(counts: dict[str, dict[str, int]]) -> str:
    """The same in words."""
    parts = []
    for split, count in counts.items():
        lost = "" if count["kept"] == count["rows"] else " (the rest is lost)"
        parts.append(f"{split}: {count['kept']:,} of {count['rows']:,} rows{lost}")
    return "; ".join(parts)


def _wait(job: Job, look: Callable[[], None] = lambda: None, every: float = 0.1) -> None:
    """Wait until a job ends, looking in `every` so many seconds; an interrupt (Ctrl-C) ends it.

    Raises:
        ElleError: Axolotl failed, with the log's own reason and what is known of it.
    """
    try:
        while job.running:
            look()
            time.sleep(every)
    except KeyboardInterrupt:
        job.stop(timeout=20)
        raise
    if job.returncode == 0:
        return
    case = diagnosis.diagnose(job.log.read_text(encoding="utf-8", errors="replace"), job.returncode)
    what, fix = f"Axolotl failed: {job.reason()}", f"the log has the rest; {diagnosis.ENDING}"
    if case:
        what, fix = f"{what}\n  cause: {case.means}", f"{case.fix}; {fix}"
    raise ElleError(what, where=str(job.log), fix=fix)


def follow(prepared: Prepared, job: Job | None, progress: Progress | None = None) -> Trained:
    """Wait until the training ends, showing its history as it grows; an interrupt (Ctrl-C) ends the training too.

    Raises:
        ElleError: the training failed, with the log's own reason and what is known of it; or it ended without weights.
    """
    if job is not None:
        shown = -1

        def look() -> None:
            nonlocal shown
            history = read_history(prepared.progress)
            if progress and len(history) != shown:
                shown = len(history)
                progress(history)

        _wait(job, look, every=1.0)
        if not prepared.has_weights:
            raise ElleError("Axolotl ended well but left no weights", where=str(prepared.weights), fix="read log.txt")
        storage.write_json(prepared.folder / DONE, _manifest(prepared))
    history = read_history(prepared.progress)
    if progress:
        progress(history)
    steps = max((log["step"] for log in history), default=0)
    manifest = storage.read_json(prepared.folder / DONE)
    return Trained(prepared.folder, prepared.weights, steps, manifest["seconds"], history, manifest)


def _manifest(prepared: Prepared) -> dict:
    """What a finished run keeps of itself: what went in, what it took, what came out."""
    attempts = _attempts(prepared.folder)
    history, end = read_history(prepared.progress), ending(prepared.progress)
    total, trained_on = tokens(history)
    saved = [path for path in prepared.weights.glob("*") if path.is_file()]
    seconds = sum(attempts)
    kept = ("step", "seconds", "loss", "eval_loss", "digit_accuracy", "learning_rate", "grad_norm", "resumed_at")
    return {
        "recipe": paths.shown(prepared.plan.file),
        "config_sha256": storage.sha256(prepared.folder / "axolotl.yaml"),
        "inputs": prepared.inputs,
        "versions": machine.versions(PACKAGES),
        "seed": prepared.config.get("seed"),
        "hardware": str(prepared.plan.hardware),
        "precision": prepared.precision,
        "remarks": prepared.remarks,
        "forced": prepared.forced,
        "examples": counts(prepared.folder),
        "seconds": round(seconds, 1),
        "attempts": len(attempts),
        "dollars": None if prepared.hourly is None else round(seconds / 3600 * prepared.hourly, 2),
        "parameters": end.get("parameters"),
        "trained_parameters": end.get("trained_parameters"),
        "weights": "adapter" if (prepared.weights / "adapter_config.json").exists() else "whole model",
        "weights_bytes": sum(path.stat().st_size for path in saved if path.suffix == ".safetensors"),
        "saved_bytes": sum(path.stat().st_size for path in saved),
        "tokens": total,
        "tokens_trained_on": trained_on,
        "tokens_per_second": (pace := rate(history)) and round(pace, 1),
        "peak_host_gb": end.get("peak_host_gb"),
        "peak_gpu_gb": end.get("peak_gpu_gb"),
        "learned_at": copying_learned(history),
        "history": [
            {key: row[key] if math.isfinite(row[key]) else None for key in kept if key in row}
            for row in history
            if "saved" not in row
        ],
    }


def adapt(recipe_file: Path | str, trained: Trained, progress: Progress | None = None, **options) -> Trained | None:
    """Train an adapter on top of finished weights, beside them; None where no recipe is named.

    options: as `prepare` takes them, but for the base model.
    """
    if not recipe_file:
        return None
    prepared = prepare(recipe_file, trained.folder.parent, base_model=trained.weights, **options)
    return follow(prepared, start_training(prepared), progress)


def compared(trainings: Mapping[str, Trained | None]) -> list[dict]:
    """What trainings took and left, one row each, for display; those that did not run are left out."""
    return [
        {
            "training": name,
            "learns (parameters)": trained.manifest["trained_parameters"],
            "of": trained.manifest["parameters"],
            "steps": trained.steps,
            "seconds": round(trained.seconds),
            "tokens a second": trained.manifest["tokens_per_second"],
            "validation loss": next((row["eval_loss"] for row in trained.history[::-1] if "eval_loss" in row), None),
            "weights (bytes)": trained.manifest["weights_bytes"],
        }
        for name, trained in trainings.items()
        if trained is not None
    ]


def merge_adapter(trained: Trained) -> Path:
    """Merge a trained adapter into its base by `axolotl merge-lora`; the folder of the whole model.

    Of a 4-bit base the adapter has only ever seen the rounded weights, so Axolotl rounds them to NF4 and back before it
    adds the adapter: the result, in full precision, is what was trained, not the unrounded base with the adapter.

    Raises:
        ElleError: the weights are not an adapter, or Axolotl failed.
    """
    if not trained.adapter:
        raise ElleError("these weights are a whole model: there is nothing to merge", where=str(trained.weights))
    merged = trained.weights / "merged"
    files = list(merged.glob("*.safetensors"))
    if files and all(map(checkpoints.whole_safetensors, files)):
        return merged
    command = ["axolotl", "merge-lora", str(trained.folder / "axolotl.yaml")]
    _wait(_run(trained.folder / "merge", command, trained.folder, {}))
    return merged
