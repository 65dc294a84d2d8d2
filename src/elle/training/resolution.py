"""A recipe fitted to this machine: its data and base model, what a processor needs, what the preflight says of it."""

from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path

from elle.base import machine, paths, storage, yaml_files
from elle.base.errors import ElleError
from elle.base.machine import Machine
from elle.plan import budget, hardware, preflight, recipe
from elle.plan.preflight import Plan

PLUGIN = "elle.training.plugin.ElleAxolotlPlugin"
#: Environment variable for the plugin: "1" to use bf16 on a CPU.
CPU_BF16 = "ELLE_CPU_BF16"
#: What Axolotl's own CUDA kernels for LoRA are switched by: they do not run on a CPU.
LORA_KERNELS = ("lora_mlp_kernel", "lora_qkv_kernel", "lora_o_kernel")


@dataclass
class Resolved:
    """A recipe as it is to run on this machine.

    inputs: what goes in, by name → sha256 or version; variables: the trainer's environment; precision: one sentence:
    which, and why; remarks: what was changed for this machine, and what to know; local: the base model is a folder.
    """

    file: Path
    config: dict
    computer: Machine
    inputs: dict[str, str]
    variables: dict[str, str] = field(default_factory=dict)
    precision: str = ""
    remarks: list[str] = field(default_factory=list)
    local: bool = False

    def assess(self) -> Plan:
        """What the preflight says of this very configuration on this machine."""
        base = preflight.base_model(self.config)
        # The planner counts packages and base as still to be stored: they are here already.
        weights = Path(base).glob("*.safetensors") if self.local else ()
        stored = budget.PACKAGES + sum(path.stat().st_size for path in weights) / 1e9
        here = hardware.here(self.computer, self.computer.disk_free_gb + stored)
        named = preflight.own_data(self.config)
        data = budget.find_data(named, base) if named else None
        return preflight.assess(self.file, self.config, here, data)


def resolve_recipe(
    recipe_file: Path | str,
    parent: Path | str,
    base_model: Path | str | None = None,
    train: Path | str | None = None,
    validation: Path | str | None = None,
    seed: int | None = None,
) -> Resolved:
    """A recipe as it is to run here, below the folder `parent`; what is given takes the place of what it says.

    Raises:
        ElleError: no such recipe; a data file that is missing or empty; a local base without weights.
    """
    file = paths.located(recipe_file)
    config = yaml_files.read_yaml(file, "recipe")
    inputs = {"axolotl": metadata.version("axolotl"), "recipe": storage.sha256(file)}
    resolved = Resolved(file, config, machine.inspect(parent), inputs)
    if base_model is not None:
        config["base_model"] = str(base_model)
    _use_base(resolved)
    _use_data(resolved, train, validation)
    if seed is not None:
        config["seed"] = seed
    if isinstance(plugins := config.get("plugins") or [], list):  # else the preflight says so
        config["plugins"] = [*plugins, PLUGIN]
    _use_deepspeed(resolved)
    if resolved.computer.device == "cpu":
        _use_processor(resolved)
    else:
        resolved.precision = f"bf16: {config.get('bf16')}, as the recipe says."
    if config.get("save_only_model"):
        resolved.remarks.append("save_only_model: checkpoints hold no optimizer, so an interrupted run starts over")
    return resolved


def _use_base(resolved: Resolved) -> None:
    """The weights of a base that is a folder here are among the inputs."""
    named = resolved.config.get("base_model")
    base = Path(str(named or ""))
    if not named or not (base.is_dir() or base.is_absolute()):
        return
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
    resolved.local = True
    resolved.config["base_model"] = str(base.resolve())
    resolved.inputs |= {f"base/{path.name}": storage.sha256(path) for path in weights}
    resolved.variables["HF_HUB_OFFLINE"] = "1"


def _use_data(resolved: Resolved, train: Path | str | None, validation: Path | str | None) -> None:
    """Put the files given in place of the recipe's own."""
    config, first = resolved.config, _first_set(resolved.config, "datasets")
    if train is not None:
        config["datasets"] = [first | {"path": _data_file(train, resolved.inputs), "ds_type": "json"}]
    if validation is not None:
        if share := config.pop("val_set_size", None):
            resolved.remarks.append(
                f"val_set_size: {share} is left out: validation is by {Path(validation).name}, and nothing is taken "
                "out of the training set"
            )
        split = {"split": _first_set(config, "test_datasets").get("split", "train")}
        entry = first | split | {"path": _data_file(validation, resolved.inputs), "ds_type": "json"}
        config["test_datasets"] = [entry]
    elif train is not None and config.get("val_set_size") is None and config.pop("test_datasets", None):
        resolved.remarks.append("no validation file is given: nothing is evaluated while it trains")
        config["eval_strategy"] = "no"
        config.pop("eval_steps", None)


def _first_set(config: dict, key: str) -> dict:
    sets = config.get(key)
    return sets[0] if isinstance(sets, list) and sets and isinstance(sets[0], dict) else {}


def _data_file(path: Path | str, inputs: dict[str, str]) -> str:
    path = Path(path).resolve()
    if next(storage.read_lines(path), None) is None:  # the first line is enough: Axolotl reads the rest
        fix = "run notebook 03_generate_data with a larger count"
        raise ElleError("this data set is empty", where=str(path), fix=fix)
    inputs[path.name] = storage.sha256(path)
    return str(path)


def _use_deepspeed(resolved: Resolved) -> None:
    config = resolved.config
    if not isinstance(config.get("deepspeed"), str):
        return
    if len(resolved.computer.gpus) > 1:
        # Axolotl is started elsewhere, and takes a path that it does not find for a name.
        config["deepspeed"] = str(paths.located(config["deepspeed"]).resolve())
        resolved.inputs["deepspeed"] = storage.sha256(config["deepspeed"])
    else:
        resolved.remarks.append("deepspeed is left out: one device has nothing to partition over")
        del config["deepspeed"]


def _use_processor(resolved: Resolved) -> None:
    """Set what a CPU needs."""
    config, remarks = resolved.config, resolved.remarks
    wants_bf16 = config.get("bf16") in ("auto", True)
    bf16 = wants_bf16 and resolved.computer.bf16_on_cpu
    resolved.variables |= {
        # Axolotl's Muon compiles its step: on a CPU that costs a minute of start-up and saves nothing at this size.
        "TORCHDYNAMO_DISABLE": "1",
        # Memory that a step gives back is kept for the next: else a tenth of the time goes into page faults.
        "MALLOC_MMAP_MAX_": "0",
        "MALLOC_TRIM_THRESHOLD_": "100000000000",
        CPU_BF16: "1" if bf16 else "0",
    }
    config |= {"bf16": False, "fp16": False, "tf32": False, "attn_implementation": "sdpa"}
    for key in recipe.special_keys()["attention"]:
        config.pop(key, None)
    if config.get("adapter"):
        config |= dict.fromkeys(LORA_KERNELS, False)
        remarks.append("on a processor Axolotl's CUDA kernels for LoRA are switched off")
    if config.get("sample_packing"):
        config |= {"sample_packing": False, "eval_sample_packing": False}
        remarks.append("on a processor examples are not packed: to keep them apart costs more than padding")
    why = "the processor multiplies bf16 natively" if bf16 else "the processor has no bf16 arithmetic"
    resolved.inputs["precision"] = "bf16" if bf16 else "fp32"
    resolved.precision = f"{resolved.inputs['precision']}, because {why if wants_bf16 else 'the recipe says so'}."
