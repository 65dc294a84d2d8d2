"""Axolotl and DeepSpeed, the trainer's own judgement: its schema as kept here, and its validators in a process of their
own, as importing them takes many seconds.

    python -m elle.plan.axolotl                         ask for the schema and keep it (part of `make lock`)
    python -m elle.plan.axolotl keys                    the schema's keys and types, as JSON
    python -m elle.plan.axolotl check RECIPE.yaml ...   what Axolotl and DeepSpeed object to in each, as JSON

The answer is the last line of stdout: importing Axolotl prints a logo.
"""

import functools
import json
import logging
import os
import re
import subprocess
import sys
import tempfile
from importlib import metadata
from pathlib import Path
from pydoc import locate
from typing import Any

from elle.base import paths, storage, yaml_files
from elle.base.errors import ElleError
from elle.plan.findings import value_text

#: Plugins of Axolotl whose keys exist only where a recipe names the plugin.
PLUGINS = (
    "axolotl.integrations.liger.LigerPlugin",
    "axolotl.integrations.cut_cross_entropy.CutCrossEntropyPlugin",
)
_SIMPLE = ("bool", "int", "float", "str", "list", "dict")


# What is kept here, and how Axolotl is asked


def keys_file() -> Path:
    return paths.configs() / "axolotl_keys.json"


@functools.cache
def axolotl_schema() -> dict:
    """What the locked Axolotl, DeepSpeed and transformers know (`keys`), as `refresh_known_keys` has kept it."""
    return storage.read_json(keys_file())


def known_keys(recipe: dict) -> dict[str, str]:
    """The keys (→ types) that Axolotl takes in `recipe`: its own, and those of the plugins that the recipe names."""
    plugins = recipe.get("plugins")
    found = dict(axolotl_schema()["keys"])
    for name in plugins if isinstance(plugins, list) else []:
        if isinstance(name, str):
            found |= axolotl_schema()["plugins"].get(name, {})
    return found


def read_deepspeed(path: str) -> dict:
    """A DeepSpeed configuration, looked up as Axolotl is started: from here, else from the repository.

    Raises:
        ElleError: no such file, invalid JSON, or not an object.
    """
    try:
        content = storage.read_json(paths.located(path))
    except (OSError, ValueError) as failure:  # a name that no file can have
        raise ElleError("no such file", where=value_text(path), fix="see deepspeed/") from failure
    if not isinstance(content, dict):
        raise ElleError("a DeepSpeed configuration is one JSON object", where=path, fix="see deepspeed/zero2.json")
    return content


def trainer_environment() -> dict[str, str]:
    """The variables under which Axolotl runs: this environment's programs first (its launchers call each other by
    name), and no usage reports."""
    programs = f"{Path(sys.prefix) / 'bin'}{os.pathsep}{os.environ.get('PATH', '')}"
    return dict(os.environ) | {"PATH": programs, "AXOLOTL_DO_NOT_TRACK": "1"}


def ask_validator(*arguments: str) -> dict:
    """The answer of this module run as a process.

    Raises:
        ElleError: it gives none.
    """
    command = [sys.executable, "-m", "elle.plan.axolotl", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=trainer_environment(), check=False)
    try:
        return json.loads(done.stdout.strip().splitlines()[-1])
    except (ValueError, IndexError) as error:
        raise ElleError(
            f"Axolotl could not be asked: {done.stderr[-300:]}", where=" ".join(command[1:]), fix="run `make setup`"
        ) from error


def refresh_known_keys() -> None:
    """Ask the installed Axolotl for its schema and keep it. Raises ElleError: it does not answer."""
    storage.write_json(keys_file(), ask_validator("keys"))
    axolotl_schema.cache_clear()


# What that process answers


def _kinds(annotation: Any) -> str:
    """A type as `bool | 'auto'`: simple types and literals only; `any` for all others."""
    text = str(annotation).replace("typing.", "").replace("NoneType", "None")
    if match := re.fullmatch(r"<class '(\w+)'>", text):
        text = match[1]
    while (plain := re.sub(r"\b(?:Optional|Union)\[((?:[^\[\]]|\[[^\[\]]*\])*)\]", r"\1", text)) != text:
        text = plain
    text = re.sub(r"Literal\[([^\[\]]*)\]", lambda m: m[1].replace(", ", " | "), text)
    while (plain := re.sub(r"(\w)\[[^\[\]]*\]", r"\1", text)) != text:
        text = plain
    parts = ["str" if ".enums." in part else part.strip() for part in re.split(r"[|,]", text)]
    known = [part for part in parts if part in _SIMPLE or re.fullmatch(r"'[\w-]+'", part)]
    return " | ".join(dict.fromkeys(known)) if len(known) == sum(part != "None" for part in parts) else "any"


def keys() -> dict:
    """What the installed packages know: key → type, of recipes, plugins and data sets; optimizers and schedulers; the
    kinds of attention (and the older switches for them) under which a packed micro batch is one row; and the kernels
    of the Hub that stand in for flash attention."""
    from axolotl.utils.schemas import enums
    from axolotl.utils.schemas.config import AxolotlInputConfig
    from axolotl.utils.schemas.datasets import SFTDataset
    from deepspeed.runtime.zero.config import DeepSpeedZeroConfig
    from pydantic import BaseModel
    from transformers.modeling_flash_attention_utils import FLASH_ATTN_KERNEL_FALLBACK

    def of(model: type[BaseModel]) -> dict[str, str]:
        kinds = {}
        for name, field in model.model_fields.items():
            kinds[name] = kinds[field.alias or name] = _kinds(field.annotation)
        return dict(sorted(kinds.items()))

    fields = AxolotlInputConfig.model_fields
    optimizers, schedulers = _names()
    one_row = enums.ATTN_IMPLS_SUPPORTING_PACKING
    return {
        "axolotl": metadata.version("axolotl"),
        "deepspeed": metadata.version("deepspeed"),
        "required": sorted(name for name in fields if fields[name].is_required()),
        "keys": of(AxolotlInputConfig),
        "datasets": of(SFTDataset),
        "plugins": {name: of(locate(locate(name)().get_input_args())) for name in PLUGINS},
        "zero_optimization": sorted(of(DeepSpeedZeroConfig)),
        "optimizers": optimizers,
        "schedulers": schedulers,
        "one_row": sorted(one_row),
        "one_row_switches": sorted(k for k, name in enums.LEGACY_ATTN_FLAG_TO_IMPL.items() if name in one_row),
        "flash_kernels": dict(sorted(FLASH_ATTN_KERNEL_FALLBACK.items())),
    }


def _names() -> tuple[dict[str, str], list[str]]:
    """The optimizers that Axolotl's builder and the trainer know, each with the error where it cannot be made with the
    installed packages ("" if it can), and the schedulers. Axolotl's schema takes any string for both."""
    import torch
    from axolotl.core.builders.base import TrainerBuilderBase
    from axolotl.utils.dict import DictDefault
    from axolotl.utils.schemas.enums import CustomSupportedOptimizers
    from transformers import Trainer, TrainingArguments
    from transformers.trainer_utils import SchedulerType
    from transformers.training_args import OptimizerNames

    class Builder(TrainerBuilderBase):
        def build(self, total_num_steps):
            raise NotImplementedError

    model = torch.nn.ModuleDict({"q_proj": torch.nn.Linear(1, 1)})
    settings = {"learning_rate": 1.0, "weight_decay": 0.0, "dion_learning_rate": 1.0, "dion_momentum": 0.9}

    def problem(name: str) -> str:
        try:
            if name in [entry.value for entry in CustomSupportedOptimizers]:
                builder = Builder(DictDefault({"optimizer": name}), model, None)
                builder._configure_optimizer(dict(settings), {})
            else:
                with tempfile.TemporaryDirectory() as folder:
                    args = TrainingArguments(folder, optim=name, use_cpu=True, optim_target_modules=["q_proj"])
                    Trainer.get_optimizer_cls_and_kwargs(args, model)
        except Exception as error:  # ImportError, or ValueError: as the run would fail
            return _shorten(error)
        return ""

    names = sorted({entry.value for group in (CustomSupportedOptimizers, OptimizerNames) for entry in group})
    # The last two are Axolotl's own (axolotl/core/builders/base.py, _configure_scheduler).
    schedulers = sorted([*(entry.value for entry in SchedulerType), "one_cycle", "rex"])
    return {name: problem(name) for name in names}, schedulers


def check(path: str) -> list[dict[str, str]]:
    """What Axolotl's validator and DeepSpeed's parser object to, as `{"by": ..., "says": ...}`; empty if nothing.

    The recipe is judged as on a machine of eight H200.
    """
    from axolotl.utils.config import prepare_plugins, validate_config
    from axolotl.utils.dict import DictDefault
    from deepspeed.runtime.config import DeepSpeedConfig

    config = yaml_files.read_yaml(path, "recipe")
    objections = []
    zero = config.get("deepspeed")
    if isinstance(zero, str):
        zero, config["deepspeed"] = read_deepspeed(zero), str(paths.located(zero))
    try:
        cfg = DictDefault(config)
        prepare_plugins(cfg)
        able = {"bf16": True, "fp8": True, "tf32": True, "n_gpu": 8, "compute_capability": "sm_90"}
        validate_config(cfg, capabilities=able, env_capabilities={"torch_version": metadata.version("torch")})
    except Exception as error:  # whatever it raises is what the user would see
        objections.append({"by": "Axolotl", "says": _shorten(error)})
    if isinstance(zero, dict):
        try:
            # The trainer replaces every "auto"; a batch size stands in for what it puts there.
            DeepSpeedConfig(_without_auto(zero) | {"train_micro_batch_size_per_gpu": 1})
        except Exception as error:
            objections.append({"by": "DeepSpeed", "says": _shorten(error)})
    return objections


def _without_auto(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_auto(entry) for key, entry in value.items() if entry != "auto"}
    return value


def _shorten(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if "errors.pydantic.dev" not in line]
    return " ".join(line for line in lines if line)[:500] or type(error).__name__


if __name__ == "__main__":
    if not sys.argv[1:]:
        sys.exit(refresh_known_keys())
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    logging.disable(logging.WARNING)
    answer = keys() if sys.argv[1] == "keys" else {path: check(path) for path in sys.argv[2:]}
    print("\n" + json.dumps(answer))
