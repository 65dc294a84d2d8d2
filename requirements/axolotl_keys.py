"""What the installed Axolotl, DeepSpeed and transformers know, kept for the planner in configs/axolotl_keys.json.

.venv/bin/python requirements/axolotl_keys.py     # part of `make lock`
"""

import logging
import os
import re
import tempfile
from importlib import metadata
from pydoc import locate
from typing import Any

from elle.base import storage
from elle.plan.axolotl import keys_file, shorten

#: Plugins of Axolotl whose keys exist only where a recipe names the plugin.
PLUGINS = (
    "axolotl.integrations.liger.LigerPlugin",
    "axolotl.integrations.cut_cross_entropy.CutCrossEntropyPlugin",
)
_SIMPLE = ("bool", "int", "float", "str", "list", "dict")


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
            return shorten(error)
        return ""

    names = sorted({entry.value for group in (CustomSupportedOptimizers, OptimizerNames) for entry in group})
    # The last two are Axolotl's own (axolotl/core/builders/base.py, _configure_scheduler).
    schedulers = sorted([*(entry.value for entry in SchedulerType), "one_cycle", "rex"])
    return {name: problem(name) for name in names}, schedulers


if __name__ == "__main__":
    os.environ |= {"HF_HUB_OFFLINE": "1", "AXOLOTL_DO_NOT_TRACK": "1"}
    logging.disable(logging.WARNING)
    storage.write_json(keys_file(), keys())
