"""Axolotl as a subprocess: prepared, started or found running, followed, and its results read.

A training run has a folder of its own, named by what goes into it (recipe, data, base model, versions): the same
inputs lead to the same folder, where a finished run is found finished, a running one is joined, and an interrupted
one continues from its last checkpoint. Different inputs never overwrite each other.
"""

import hashlib
import json
import os
import shlex
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

from elle.base import machine, paths, storage, yaml_files
from elle.base.errors import ElleError
from elle.base.machine import Machine
from elle.base.process import Job
from elle.plan import budget, hardware, preflight, recipe
from elle.plan.axolotl import trainer_environment
from elle.plan.findings import Finding
from elle.plan.preflight import Plan
from elle.training import checkpoints, diagnosis
from elle.training.history import copying_learned, ending, finite_or_none, rate, read_history, tokens

#: Environment variable: a pid with which a training ends too (`elle run` sets it). Without it a training outlives
#: its notebook's kernel, and a re-run cell joins it again.
OWNER = "ELLE_OWNER"

#: Environment variables for the plugin inside the trainer: where to write progress, since when the job runs, whether
#: to use bf16 on a CPU, and "1" where nothing is to be refused.
PROGRESS, STARTED, CPU_BF16, FORCE = "ELLE_PROGRESS", "ELLE_STARTED", "ELLE_CPU_BF16", "ELLE_FORCE"

#: Environment variables of a cluster, as RunPod and torch name them.
NODES, NODE_RANK, MASTER, MASTER_PORT = "NUM_NODES", "NODE_RANK", "MASTER_ADDR", "MASTER_PORT"
PORT = 29500

PLUGIN = "elle.training.plugin.ElleAxolotlPlugin"
DONE, ATTEMPTS, COUNTS = "training.json", "attempts.json", "counts.json"
#: Packages whose versions a run's manifest names.
PACKAGES = ("axolotl", "torch", "transformers", "peft", "bitsandbytes", "deepspeed", "accelerate", "datasets")
#: The share of examples that may be lost (too long, or nothing to train on) before a training is refused.
LOST_ROWS = 0.01
#: What Axolotl's own CUDA kernels for LoRA are switched by: they do not run on a CPU.
LORA_KERNELS = ("lora_mlp_kernel", "lora_qkv_kernel", "lora_o_kernel")


@dataclass(frozen=True)
class Prepared:
    """What is about to run: `config` is written to `folder/axolotl.yaml`, `command` trains it.

    plan: what the preflight says of it on this machine; remarks: what was changed for this machine, and what to know;
    forced: what stood against it and was overridden; node: which of the machines this is, 0 the first.
    """

    folder: Path
    config: dict
    command: list[str]
    variables: dict[str, str]
    inputs: dict[str, str]  # what goes in, by name → sha256 or version
    precision: str  # one sentence: which precision, and why
    plan: Plan
    remarks: list[str] = field(default_factory=list)
    forced: list[str] = field(default_factory=list)
    node: int = 0

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

    def said(self, *, data_only: bool = False, exact: bool = False) -> list[str]:
        """What is to run, in lines for people: the commands, the precision, and what to know.

        exact: commands as they run here, not with the paths that a committed notebook may show.
        """
        commands = [self.preprocess] if data_only else self.commands
        lines = [f"command    {shlex.join(c if exact else map(_shown, c))}" for c in commands]
        lines.append(f"precision  {self.precision}")
        lines += [f"remark     {remark}" for remark in self.remarks]
        lines += [f"warning    {_said(f)}" for f in self.plan.findings if f.severity == "warning"]
        return lines + [f"forced     {reason}" for reason in self.forced]

    @property
    def _job(self) -> Path:
        """The job's folder: nodes may share a volume."""
        return self.folder / f"node-{self.node}" if self.node else self.folder


@dataclass(frozen=True)
class Trained:
    """A finished training run.

    history: one dict a log, in order of steps (`history.read_history`); seconds: of training and start-up, over all
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
        """Whether the weights are an adapter, which needs its base model (or `merge`), and no whole model."""
        return (self.weights / "adapter_config.json").exists()


def prepare(
    recipe_file: Path | str,
    parent: Path | str,
    *,
    base_model: Path | str | None = None,
    train: Path | str | None = None,
    validation: Path | str | None = None,
    seed: int | None = None,
    refusals: Sequence[str] = (),
    force: bool = False,
    data_only: bool = False,
    nodes: int | None = None,
    node: int | None = None,
    rendezvous: str | None = None,
) -> Prepared:
    """Resolve a recipe for this machine and these inputs; write the exact configuration that will run.

    Args:
        recipe_file: a YAML file; `base_model`, `train`, `validation` and `seed`, where given, replace what it says.
        parent: the folder that holds training runs.
        refusals: further reasons not to train (a data set that fails its audit, say).
        force: train all the same; the manifest names what was overridden.
        data_only: only the data is to be prepared here (`preprocess`): this machine need not hold the model.
        nodes, node, rendezvous: how many machines train together, which of them this is (from 0), and where they
            meet (HOST:PORT, of the first); by default NUM_NODES, NODE_RANK, MASTER_ADDR and MASTER_PORT.

    Raises:
        ElleError: no such recipe; a data file that is missing or empty; a local base without weights; what the
            preflight refuses on this machine, or one of `refusals`.
    """
    file = paths.located(recipe_file)
    config = yaml_files.read_yaml(file, "recipe")
    computer = machine.inspect(parent)
    inputs = {"axolotl": metadata.version("axolotl"), "recipe": storage.sha256(file)}
    remarks: list[str] = []
    if base_model is not None:
        config["base_model"] = str(base_model)
    local = _base(config, inputs)
    _datasets(config, inputs, train, validation, remarks)
    if seed is not None:
        config["seed"] = seed
    if isinstance(plugins := config.get("plugins") or [], list):  # else the preflight says so
        config["plugins"] = [*plugins, PLUGIN]
    nodes, node, rendezvous = _cluster(nodes, node, rendezvous)
    if isinstance(config.get("deepspeed"), str):
        if len(computer.gpus) * nodes > 1:
            # Axolotl is started elsewhere, and takes a path that it does not find for a name.
            config["deepspeed"] = str(paths.located(config["deepspeed"]).resolve())
            inputs["deepspeed"] = storage.sha256(config["deepspeed"])
        else:
            remarks.append("deepspeed is left out: one device has nothing to partition over")
            del config["deepspeed"]

    variables = {"HF_HUB_OFFLINE": "1"} if local else {}
    if computer.device == "cpu":
        precision = _on_cpu(config, computer, inputs, variables, remarks)
    else:
        precision = f"bf16: {config.get('bf16')}, as the recipe says."
    resumable = not config.get("save_only_model")
    if not resumable:
        remarks.append("save_only_model: checkpoints hold no optimizer, so an interrupted run starts over")

    plan = _plan(file, config, computer, parent, nodes, local)
    against = [_said(f) for f in plan.findings if f.severity == "error" and not (data_only and _of_machine(f))]
    against += refusals
    if against and not force:
        raise ElleError(
            f"this training is refused: {'; '.join(against)}",
            where=paths.shown(file),
            fix="correct the recipe (`elle plan` says more, `--fix OUT.yaml` looks for one that passes), "
            "or override it: `elle train --force`, force=True",
        )

    paths_only = ("base_model", "datasets", "test_datasets", "deepspeed")  # what is in them is among the inputs
    named = {key: value for key, value in config.items() if key not in paths_only}
    key = hashlib.sha256(json.dumps([named, inputs], sort_keys=True, default=str).encode()).hexdigest()[:8]
    folder = Path(parent).resolve() / f"{file.stem}-{key}"
    config |= {
        "output_dir": str(folder / "weights"),
        "dataset_prepared_path": str(folder / "prepared"),
        "auto_resume_from_checkpoints": resumable,
    }
    storage.write_text(folder / "axolotl.yaml", yaml_files.dump(config))
    variables |= {PROGRESS: str(folder / "progress.jsonl"), FORCE: str(int(force))}
    command = ["axolotl", "train", str(folder / "axolotl.yaml"), *_launcher(computer, nodes, node, rendezvous, key)]
    return Prepared(folder, config, command, variables, inputs, precision, plan, remarks, against, node)


def _base(config: dict, inputs: dict[str, str]) -> bool:
    """Whether the base model is a folder here: then its weights are among the inputs."""
    base = Path(str(config.get("base_model") or ""))
    if not config.get("base_model") or not (base.is_dir() or base.is_absolute()):
        return False
    weights = sorted(base.glob("*.safetensors"))
    if not weights:
        raise ElleError(
            "the base model's folder has no weights",
            where=str(base),
            fix="run the cell of notebook 05_train that makes the base, or name another base_model",
        )
    if (base / "adapter_config.json").exists():
        raise ElleError(
            "this folder holds an adapter, not a whole model",
            where=str(base),
            fix="merge it into its base first: elle.training.launch.merge_adapter, or `axolotl merge-lora`",
        )
    config["base_model"] = str(base.resolve())
    inputs |= {f"base/{path.name}": storage.sha256(path) for path in weights}
    return True


def _datasets(
    config: dict, inputs: dict[str, str], train: Path | str | None, validation: Path | str | None, remarks: list[str]
) -> None:
    """Put the files given in place of the recipe's own."""
    sets = config.get("datasets")
    first = sets[0] if isinstance(sets, list) and sets and isinstance(sets[0], dict) else {}
    if train is not None:
        config["datasets"] = [first | {"path": _data(train, inputs), "ds_type": "json"}]
    if validation is not None:
        tests = config.get("test_datasets")
        test = tests[0] if isinstance(tests, list) and tests and isinstance(tests[0], dict) else {}
        if share := config.pop("val_set_size", None):
            remarks.append(
                f"val_set_size: {share} is left out: validation is by {Path(validation).name}, and nothing is taken "
                "out of the training set"
            )
        split = {"split": test.get("split", "train")}
        config["test_datasets"] = [first | split | {"path": _data(validation, inputs), "ds_type": "json"}]
    elif train is not None and config.get("val_set_size") is None and config.pop("test_datasets", None):
        remarks.append("no validation file is given: nothing is evaluated while it trains")
        config |= {"eval_strategy": "no"}
        config.pop("eval_steps", None)


def _data(path: Path | str, inputs: dict[str, str]) -> str:
    path = Path(path).resolve()
    for _ in storage.read_lines(path):  # the first line is enough: Axolotl reads the rest
        inputs[path.name] = storage.sha256(path)
        return str(path)
    raise ElleError("this data set is empty", where=str(path), fix="run notebook 03_generate_data with a larger count")


def _on_cpu(
    config: dict, computer: Machine, inputs: dict[str, str], variables: dict[str, str], remarks: list[str]
) -> str:
    """Set what a CPU needs; the sentence on precision."""
    # Axolotl's Muon compiles its step: on a CPU that costs a minute of start-up and saves nothing at this size.
    variables["TORCHDYNAMO_DISABLE"] = "1"
    # Memory that a step gives back is kept for the next: else a tenth of the time goes into page faults.
    variables |= {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": "100000000000"}
    wants_bf16 = config.get("bf16") in ("auto", True)
    bf16 = wants_bf16 and computer.bf16_on_cpu
    variables[CPU_BF16] = "1" if bf16 else "0"
    config |= {"bf16": False, "fp16": False, "tf32": False, "attn_implementation": "sdpa"}
    for key in recipe.special_keys()["attention"]:
        config.pop(key, None)
    if config.get("adapter"):
        config |= dict.fromkeys(LORA_KERNELS, False)
        remarks.append("on a processor Axolotl's CUDA kernels for LoRA are switched off")
    if config.get("sample_packing"):
        config |= {"sample_packing": False, "eval_sample_packing": False}
        remarks.append("on a processor examples are not packed: to keep them apart costs more than padding")
    inputs["precision"] = "bf16" if bf16 else "fp32"
    why = (
        "the processor multiplies bf16 natively"
        if bf16
        else "the processor has no bf16 arithmetic"
        if wants_bf16
        else "the recipe says so"
    )
    return f"{inputs['precision']}, because {why}."


def _plan(file: Path, config: dict, computer: Machine, parent: Path | str, nodes: int, local: bool) -> Plan:
    """What the preflight says of this very configuration on this machine."""
    base = preflight.base_model(config)
    # The planner counts packages and base as disk to be had: here they are.
    size = sum(path.stat().st_size for path in Path(base).glob("*.safetensors")) / 1e9 if local else 0.0
    here = hardware.here(computer, computer.disk_free_gb + budget.PACKAGES + size, nodes)
    named = preflight.own_data(config)
    data = budget.find_data(named, base) if named else None
    return preflight.assess(file, config, here, data)


def _said(finding: Finding) -> str:
    fix = f" (fix: {finding.fix})" if finding.fix else ""
    return f"{finding.where}: {finding.message}{fix}"


def _shown(word: str) -> str:
    return paths.shown(word) if Path(word).is_absolute() else word


def _of_machine(finding: Finding) -> bool:
    """Whether a finding speaks of this machine, and not of recipe and data."""
    return finding.code in ("gpu-memory", "host-memory", "weights-replicated", "disk", "unknown-model")


def _cluster(nodes: int | None, node: int | None, rendezvous: str | None) -> tuple[int, int, str]:
    """How many machines, which of them this is, and where they meet; from the environment where nothing is given."""
    try:
        nodes = int(os.environ.get(NODES) or 1) if nodes is None else nodes
        node = int(os.environ.get(NODE_RANK) or 0) if node is None else node
    except ValueError as error:
        raise ElleError(
            f"no whole number: {error}", where=f"{NODES}, {NODE_RANK}", fix="unset them, or 2 and 0"
        ) from error
    if nodes == 1:
        return 1, 0, ""
    if rendezvous is None and os.environ.get(MASTER):
        rendezvous = f"{os.environ[MASTER]}:{os.environ.get(MASTER_PORT) or PORT}"
    if not 0 <= node < nodes:
        raise ElleError(f"node {node} of {nodes} machines", where="--node", fix=f"from 0 to {nodes - 1}")
    if not rendezvous:
        fix = f"--rendezvous HOST:{PORT}, the same on every machine: an address of the first (or {MASTER})"
        raise ElleError(f"nothing says where {nodes} machines are to meet", where="--rendezvous", fix=fix)
    return nodes, node, rendezvous if ":" in rendezvous else f"{rendezvous}:{PORT}"


def _launcher(computer: Machine, nodes: int, node: int, rendezvous: str, key: str) -> list[str]:
    """Which of Axolotl's launchers, and what it is told."""
    gpus = max(1, len(computer.gpus))
    if nodes > 1:
        # Axolotl would give each node a rendezvous name of its own, and they would never meet.
        meet = ["--rdzv_backend", "static", "--rdzv_endpoint", rendezvous, "--rdzv_id", key]
        where = ["--nnodes", str(nodes), "--node_rank", str(node), "--nproc_per_node", str(gpus)]
        return ["--launcher", "torchrun", "--", *where, *meet]
    if gpus > 1:  # port 0: any that is free
        told = ["--multi_gpu", "--num_machines", "1", "--num_processes", str(gpus), "--main_process_port", "0"]
        return ["--launcher", "accelerate", "--", *told]
    return ["--launcher", "python"]  # one process: no launcher is needed


def start_training(prepared: Prepared) -> Job | None:
    """Start the training, or join one that runs; None if it is done already. Checkpoints that were cut short are set
    aside, so that it goes on from the newest whole one."""
    if finished(prepared):
        return None
    job = Job.attach(prepared._job)
    if job is not None and job.running:
        return job
    if job is not None:  # an earlier attempt: its time counts, and the next one's record takes its place
        storage.write_json(prepared._job / ATTEMPTS, [*_attempts(prepared._job), _seconds(prepared._job)])
    if not prepared.node and prepared.config["auto_resume_from_checkpoints"]:
        for remark in checkpoints.set_aside(prepared.weights):
            print(remark, file=sys.stderr)
    commands = prepared.commands
    command = commands[0]
    if len(commands) > 1:
        command = ["sh", "-c", " && exec ".join(shlex.join(one) for one in commands)]
    return _run(prepared, prepared._job, command)


def _run(prepared: Prepared, folder: Path, command: list[str]) -> Job:
    owner = os.environ.get(OWNER)
    started = {STARTED: datetime.now(UTC).isoformat()}
    return Job.start(
        folder,
        command,
        env=trainer_environment() | prepared.variables | started,
        cwd=prepared.folder,  # Axolotl leaves files where it runs
        owner=int(owner) if owner else None,
    )


def finished(prepared: Prepared) -> bool:
    """Whether this training is done: its manifest and its weights are there."""
    return (prepared._job / DONE).exists() and (prepared.node > 0 or bool(list(prepared.weights.glob("*.safetensors"))))


def preprocess(prepared: Prepared) -> dict[str, dict[str, int]]:
    """Only prepare the data, as the training would: by split, its `rows`, and the examples `kept` to train on.

    Raises:
        ElleError: Axolotl failed (a malformed row, say), or more than LOST_ROWS of the examples would be lost.
    """
    if not (prepared.folder / COUNTS).exists():
        job = _run(prepared, prepared.folder / "preprocess", prepared.preprocess)
        _wait(job)
    return counts(prepared.folder)


def _wait(job: Job) -> None:
    """Until it ends; an interrupt ends it."""
    try:
        job.wait()
    except KeyboardInterrupt:
        job.stop(timeout=20)
        raise
    if job.returncode != 0:
        raise failure(job)


def counts(folder: Path) -> dict[str, dict[str, int]]:
    """By split, the rows of a training's data and the examples kept of them; {} until they are counted."""
    return storage.read_json(folder / COUNTS) if (folder / COUNTS).exists() else {}


def counted(found: dict[str, dict[str, int]]) -> str:
    """What `counts` found, in words."""
    parts = (
        f"{each['kept']:,} of {each['rows']:,} rows" + ("" if each["kept"] == each["rows"] else " (the rest is lost)")
        for each in found.values()
    )
    return "; ".join(f"{split}: {part}" for split, part in zip(found, parts, strict=True))


def failure(job: Job) -> ElleError:
    """Why a job of Axolotl failed: the log's own reason, and what is known of it."""
    case = diagnosis.diagnose(job.log.read_text(encoding="utf-8", errors="replace"), job.returncode)
    what, fix = f"Axolotl failed: {job.reason()}", f"the log has the rest; {diagnosis.ENDING}"
    if case:
        what, fix = f"{what}\n  cause: {case.means}", f"{case.fix}; {fix}"
    return ElleError(what, where=str(job.log), fix=fix)


def _seconds(folder: Path) -> float:
    """Wall-clock seconds of the last attempt; 0 where it vanished without a record."""
    record = folder / "exit.json"
    return storage.read_json(record)["seconds"] if record.exists() else 0.0


def _attempts(folder: Path) -> list[float]:
    return storage.read_json(folder / ATTEMPTS) if (folder / ATTEMPTS).exists() else []


def follow(
    prepared: Prepared, job: Job | None, progress: Callable[[list[dict]], None] | None = None, every: float = 1.0
) -> Trained:
    """Wait until the training ends, showing its history as it grows; an interrupt (Ctrl-C) ends the training too.

    Raises:
        ElleError: the training failed, with the log's own reason and what is known of it; or it ended without weights.
    """
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
            raise failure(job)
        if not prepared.node and not list(prepared.weights.glob("*.safetensors")):
            raise ElleError("Axolotl ended well but left no weights", where=str(prepared.weights), fix="read log.txt")
        storage.write_json(prepared._job / DONE, _manifest(prepared))
    history = read_history(prepared.progress)
    if progress:
        progress(history)
    steps = max((log["step"] for log in history), default=0)
    manifest = storage.read_json(prepared._job / DONE)
    return Trained(prepared.folder, prepared.weights, steps, manifest["seconds"], history, manifest)


def _manifest(prepared: Prepared) -> dict:
    """What a finished run keeps of itself: what went in, what it took, what came out."""
    attempts = [*_attempts(prepared._job), _seconds(prepared._job)]
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
            finite_or_none({key: row[key] for key in kept if key in row}) for row in history if "saved" not in row
        ],
    }


def adapt(
    recipe_file: Path | str, trained: Trained, progress: Callable[[list[dict]], None] | None = None, **options
) -> Trained | None:
    """Train an adapter on top of finished weights, beside them; None where no recipe is named.

    options: as `prepare` takes them, but for the base model.
    """
    if not recipe_file:
        return None
    prepared = prepare(recipe_file, trained.folder.parent, base_model=trained.weights, **options)
    return follow(prepared, start_training(prepared), progress)


def compared(trainings: Mapping[str, Trained | None]) -> list[dict]:
    """What trainings took and left, a row each, for display; those that did not run are left out."""
    rows = []
    for name, trained in trainings.items():
        if trained is None:
            continue
        found = trained.manifest
        losses = [row["eval_loss"] for row in trained.history if "eval_loss" in row]
        rows.append(
            {
                "training": name,
                "learns (parameters)": found["trained_parameters"],
                "of": found["parameters"],
                "steps": trained.steps,
                "seconds": round(trained.seconds),
                "tokens a second": found["tokens_per_second"],
                "validation loss": losses[-1] if losses else None,
                "weights (bytes)": found["weights_bytes"],
            }
        )
    return rows


def merge_adapter(trained: Trained) -> Path:
    """Merge a trained adapter into its base by `axolotl merge-lora`; the folder of the whole model.

    Of a 4-bit base the adapter has only ever seen the rounded weights, so Axolotl rounds them to NF4 and back before it
    adds the adapter: the result, in full precision, is what was trained, not the unrounded base with the adapter.

    Raises:
        ElleError: the weights are no adapter, or Axolotl failed.
    """
    if not trained.adapter:
        raise ElleError("these weights are a whole model: there is nothing to merge", where=str(trained.weights))
    merged = trained.weights / "merged"
    if list(merged.glob("*.safetensors")) and all(map(checkpoints.whole_safetensors, merged.glob("*.safetensors"))):
        return merged
    command = ["axolotl", "merge-lora", str(trained.folder / "axolotl.yaml")]
    job = Job.start(trained.folder / "merge", command, env=trainer_environment(), cwd=trained.folder)
    _wait(job)
    return merged
