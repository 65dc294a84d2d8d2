"""The trainer's own judgement, in a process of its own: importing Axolotl and DeepSpeed takes many seconds.

    python -m elle.plan.validator keys                    the schema's keys and types, as JSON
    python -m elle.plan.validator check RECIPE.yaml ...   what Axolotl and DeepSpeed say to each, as JSON

The answer is the last line of stdout: importing Axolotl prints a logo.
"""

import json
import logging
import os
import re
import sys
import tempfile
from importlib import metadata
from typing import Any

#: Plugins of Axolotl whose keys exist only where a recipe names the plugin.
PLUGINS = {
    "axolotl.integrations.liger.LigerPlugin": "axolotl.integrations.liger.args.LigerArgs",
    "axolotl.integrations.cut_cross_entropy.CutCrossEntropyPlugin": (
        "axolotl.integrations.cut_cross_entropy.args.CutCrossEntropyArgs"
    ),
}
_SIMPLE = ("bool", "int", "float", "str", "list", "dict")


def _kinds(annotation: Any) -> str:
    """A type as `bool | 'auto'`: simple types and literals only; `any` where there is no saying it so."""
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
    """What the installed Axolotl and DeepSpeed know: key → type, of recipes, plugins and data sets."""
    from axolotl.utils.schemas.config import AxolotlInputConfig
    from axolotl.utils.schemas.datasets import SFTDataset
    from deepspeed.runtime.zero.config import DeepSpeedZeroConfig
    from pydantic import BaseModel

    def of(model: type[BaseModel]) -> dict[str, str]:
        kinds = {}
        for name, field in model.model_fields.items():
            kinds[name] = kinds[field.alias or name] = _kinds(field.annotation)
        return dict(sorted(kinds.items()))

    def load(target: str) -> type[BaseModel]:
        module, _, name = target.rpartition(".")
        return getattr(__import__(module, fromlist=[name]), name)

    fields = AxolotlInputConfig.model_fields
    optimizers, schedulers = _names()
    return {
        "axolotl": metadata.version("axolotl"),
        "deepspeed": metadata.version("deepspeed"),
        "required": sorted(name for name in fields if fields[name].is_required()),
        "keys": of(AxolotlInputConfig),
        "datasets": of(SFTDataset),
        "plugins": {plugin: of(load(arguments)) for plugin, arguments in PLUGINS.items()},
        "zero_optimization": sorted(of(DeepSpeedZeroConfig)),
        "optimizers": optimizers,
        "schedulers": schedulers,
    }


def _names() -> tuple[dict[str, str], list[str]]:
    """The optimizers that Axolotl's builder and the trainer know, each with what they say when they cannot make it
    with the installed packages ("" if they can), and the schedulers. Axolotl's schema takes any string for both."""
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
    asked = {"learning_rate": 1.0, "weight_decay": 0.0, "dion_learning_rate": 1.0, "dion_momentum": 0.9}

    def said(name: str) -> str:
        try:
            if name in [entry.value for entry in CustomSupportedOptimizers]:
                builder = Builder(DictDefault({"optimizer": name}), model, None)
                builder._configure_optimizer(dict(asked), {})
            else:
                with tempfile.TemporaryDirectory() as folder:
                    targets = ["q_proj"]
                    args = TrainingArguments(folder, optim=name, use_cpu=True, optim_target_modules=targets)
                    Trainer.get_optimizer_cls_and_kwargs(args, model)
        except Exception as error:  # ImportError, or ValueError: as the run would fail
            return _shorten(error)
        return ""

    names = sorted({entry.value for group in (CustomSupportedOptimizers, OptimizerNames) for entry in group})
    # The last two are Axolotl's own (axolotl/core/builders/base.py, _configure_scheduler).
    schedulers = sorted([*(entry.value for entry in SchedulerType), "one_cycle", "rex"])
    return {name: said(name) for name in names}, schedulers


def check(path: str) -> list[dict[str, str]]:
    """What Axolotl's validator and DeepSpeed's parser object to, as `{"by": ..., "says": ...}`; empty if nothing.

    The recipe is judged as on a machine of eight H200.
    """
    from axolotl.utils.config import prepare_plugins, validate_config
    from axolotl.utils.dict import DictDefault

    from elle.base import paths, yaml_files
    from elle.plan import recipe

    pass

    config = yaml_files.read_yaml(path, "recipe")
    said = []
    zero = config.get("deepspeed")
    content: Any = zero
    if isinstance(zero, str):
        content = recipe.read_deepspeed(zero)
        config["deepspeed"] = str(paths.located(zero))
    try:
        cfg = DictDefault(config)
        prepare_plugins(cfg)
        able = {"bf16": True, "fp8": True, "tf32": True, "n_gpu": 8, "compute_capability": "sm_90"}
        validate_config(cfg, capabilities=able, env_capabilities={"torch_version": metadata.version("torch")})
    except Exception as error:  # whatever it raises is what the user would see
        said.append({"by": "Axolotl", "says": _shorten(error)})
    if isinstance(content, dict):
        from deepspeed.runtime.config import DeepSpeedConfig

        try:
            # The trainer replaces every "auto"; a batch size stands in for what it puts there.
            DeepSpeedConfig(_without_auto(content) | {"train_micro_batch_size_per_gpu": 1})
        except Exception as error:
            said.append({"by": "DeepSpeed", "says": _shorten(error)})
    return said


def _without_auto(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_auto(entry) for key, entry in value.items() if entry != "auto"}
    return value


def _shorten(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if "errors.pydantic.dev" not in line]
    return " ".join(line for line in lines if line)[:500] or type(error).__name__


if __name__ == "__main__":
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    logging.disable(logging.WARNING)
    answer = keys() if sys.argv[1] == "keys" else {path: check(path) for path in sys.argv[2:]}
    print("\n" + json.dumps(answer))
