"""Recipes: Axolotl's YAML and DeepSpeed's JSON, read with care; and what is wrong with them: keys that the trainer
would drop without a word, values of the wrong type, settings that it rejects or that have no effect."""

import contextlib
import functools
import re
from dataclasses import dataclass
from importlib import metadata
from typing import Any, Literal

from elle.base import paths
from elle.base.errors import ElleError, unknown
from elle.base.yaml_files import config_table
from elle.plan.axolotl import axolotl_schema, known_keys, read_deepspeed
from elle.plan.findings import Finding, finding, value_text


def special_keys() -> dict[str, Any]:
    """`configs/special_keys.yaml`: keys of older versions, keys that exclude one another, and what is not covered."""
    return config_table("special_keys")


def merged(recipe: dict, changes: dict) -> dict:
    """`recipe` with `changes` (key → value; None removes the key)."""
    return {key: value for key, value in (recipe | changes).items() if value is not None or key not in changes}


@functools.cache
def _adapter(kinds: str):
    from pydantic import TypeAdapter

    simple = {"bool": bool, "int": int, "float": float, "str": str, "list": list, "dict": dict}
    wanted: Any = None
    for kind in kinds.split(" | "):
        wanted = wanted | (simple[kind] if kind in simple else Literal[kind.strip("'")])
    return TypeAdapter(wanted)


def fits(value: Any, kinds: str) -> bool:
    """Whether Axolotl's schema (pydantic, which reads "3" as a number) would take `value`."""
    if kinds == "any" or value is None:
        return True
    try:
        _adapter(kinds).validate_python(value)
    except Exception:  # ValidationError, and what numbers and nestings without end raise
        return False
    return True


def _offer(kind: str, name: Any, known: dict | list) -> str:
    return unknown(kind, value_text(name)[1:-1], known).fix


def _key_findings(recipe: dict) -> list[Finding]:
    known, old = known_keys(recipe), special_keys()
    plugin_of = {key: plugin for plugin, keys in axolotl_schema()["plugins"].items() for key in keys}
    found = []
    for key, value in recipe.items():
        # A key that asks for nothing loses nothing by being dropped.
        severity = "info" if value is None or value is False else "error"
        if key in old["dropped"]:
            found.append(finding("ignored-key", key, severity=severity, key=key, fix=old["dropped"][key]))
        elif key in plugin_of and key not in known:
            found.append(finding("ignored-key/plugin", key, severity=severity, key=key, plugin=plugin_of[key]))
        elif key not in known:
            found.append(finding("unknown-key", key, key=value_text(key), fix=_offer("recipe key", key, known)))
        elif key in old["attention"] and value:
            found.append(finding("deprecated-key", key, key=key, fix=f"attn_implementation: {old['attention'][key]}"))
        elif key in old["renamed"] and value is not None:
            found.append(finding("deprecated-key", key, key=key, fix=f"rename it to {old['renamed'][key]}"))
        elif (key in old["removed"] or key.startswith("unsloth_")) and value:
            found.append(finding("removed-key", key, key=key))
        elif not fits(value, known[key]):
            found.append(finding("wrong-type", key, value=value_text(value), kinds=known[key]))
    return found


def _dataset_findings(recipe: dict) -> list[Finding]:
    known = axolotl_schema()["datasets"]
    found = []
    for key in ("datasets", "test_datasets"):
        sets = recipe.get(key)
        if sets is None:
            continue
        if not isinstance(sets, list) or not sets or not all(isinstance(entry, dict) for entry in sets):
            found.append(finding("wrong-type/list", key, value=value_text(sets)))
            continue
        for place, entry in enumerate(sets):
            where, kind = f"{key}[{place}]", entry.get("type")
            if isinstance(kind, str) and kind.startswith("sharegpt"):
                found.append(finding("sharegpt", where))
            if trusts_code(entry):
                found.append(finding("trust-remote-code/dataset", where))
            for name, value in entry.items():
                if name not in known:
                    offer = _offer("key", name, known)
                    found.append(finding("unknown-key/dataset", where, key=value_text(name), fix=offer))
                elif name != "type" and not fits(value, known[name]):
                    text = value_text(value)
                    found.append(finding("wrong-type/dataset", where, key=name, value=text, kinds=known[name]))
    return found


def nearest_name(kind: str, value: str) -> str | None:
    """The one optimizer or scheduler (`kind`) that `value` is one or two letters off, if there is one; in a short
    name a letter makes another algorithm (`adamw`, `adamc`)."""
    far = {name: _distance(value, name) for name in _usable(kind) if abs(len(name) - len(value)) <= 2}
    near = [name for name in far if far[name] <= min(2, len(value) // 6) and far[name] == min(far.values())]
    return near[0] if len(near) == 1 else None


def _usable(kind: str) -> list[str]:
    known = axolotl_schema()[f"{kind}s"]
    return [name for name in known if not known[name]] if isinstance(known, dict) else known


def _distance(one: str, other: str) -> int:
    """Letters to put in, take out or change until one is the other."""
    row = list(range(len(other) + 1))
    for i, a in enumerate(one, 1):
        last, row = row, [i]
        for j, b in enumerate(other, 1):
            row.append(min(last[j] + 1, row[-1] + 1, last[j - 1] + (a != b)))
    return row[-1]


def _name_findings(recipe: dict) -> list[Finding]:
    """Names that Axolotl's validator takes, whatever they are, and its builder refuses when the run has begun."""
    found = []
    for kind, key in (("optimizer", "optimizer"), ("scheduler", "lr_scheduler")):
        value, known, usable = recipe.get(key), axolotl_schema()[f"{kind}s"], _usable(kind)
        if not isinstance(value, str) or not value or value in usable:
            continue
        if value in known:
            other = "adamw_bnb_8bit" if "8bit" in value else "adamw_torch_fused"
            found.append(finding("unknown-optimizer/unusable", key, value=value, why=known[value], other=other))
            continue
        longer = ", ".join(name for name in usable if name.startswith(value))
        offer = f"use one of: {longer}" if longer else _offer(kind, value, usable)
        found.append(finding(f"unknown-{kind}", key, value=value_text(value), fix=offer))
    return found


def _attention_findings(recipe: dict) -> list[Finding]:
    """A flash attention that neither a package nor the Hub's cache holds here."""
    key = "flash_attention" if recipe.get("flash_attention") else "attn_implementation"
    named = "flash_attention_2" if key == "flash_attention" else recipe.get(key)
    packages = special_keys()["flash_packages"]
    if not isinstance(named, str) or not (named in packages or "/" in named):
        return []
    package = packages.get(named, "")
    repository = axolotl_schema()["flash_kernels"].get(named) or re.split("[@:]", named)[0].strip()
    with contextlib.suppress(metadata.PackageNotFoundError, ValueError):
        metadata.distribution(package)
        return []
    folder = repository.replace("/", "--")
    if any((paths.hub_cache(kernels=True) / f"{kind}--{folder}").exists() for kind in ("kernels", "models")):
        return []
    without = f"no lock has the package {package}: " if package else ""
    return [finding("attention-kernel", key, without=without, repository=repository)]


def check(recipe: dict) -> list[Finding]:
    """What is wrong with a recipe by itself, without asking Axolotl (`axolotl.check` does): keys, types, settings that
    it rejects or that do not do what they seem to."""
    found = _key_findings(recipe) + _dataset_findings(recipe) + _name_findings(recipe)
    required = (*axolotl_schema()["required"], "datasets")
    found += [finding("missing-key", key, key=key) for key in required if not recipe.get(key)]
    pairs = [(one, other) for one, other in special_keys()["refused_pairs"] if recipe.get(one) and recipe.get(other)]
    found += [finding("conflict", one, one=one, other=other) for one, other in pairs]
    found += _attention_findings(recipe)
    flags = [key for key in special_keys()["attention"] if recipe.get(key)]
    if recipe.get("attn_implementation") and flags:
        found.append(finding("conflict/attention", flags[0], key=flags[0]))
    if recipe.get("deepspeed") and recipe.get("save_only_model") and recipe.get("load_best_model_at_end"):
        found.append(finding("conflict/best"))
    if trusts_code(recipe):
        found.append(finding("trust-remote-code"))
    return found


def trusts_code(entry: dict) -> bool:
    """Whether a recipe, or a data set in it, has `trust_remote_code` on, in any form that Axolotl reads so ("yes"), or
    hands it to the model's loader."""
    value = entry.get("trust_remote_code")
    handed = [entry.get(key) for key in ("overrides_of_model_kwargs", "model_kwargs")]
    if any(isinstance(each, dict) and each.get("trust_remote_code") for each in handed):
        return True
    return value is not None and fits(value, "bool") and _adapter("bool").validate_python(value)


def number(recipe: dict, key: str, default: float, low: float, high: float, found: list[Finding]) -> float:
    """A number from a recipe, between `low` and `high`; the default where there is none, or an impossible one."""
    value = recipe.get(key)
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            return default  # wrong-type is found already
    if isinstance(value, bool) or not isinstance(value, int | float):
        return default
    if not low <= value <= high:
        found.append(finding("wrong-value/range", key, value=value_text(value), low=low, high=high, default=default))
        return default
    return value


def accumulation(recipe: dict, found: list[Finding]) -> int:
    """Micro batches of an optimizer step: `gradient_accumulation_steps`, else what makes up `batch_size`, as Axolotl
    resolves it."""
    size = number(recipe, "batch_size", 0, 0, 1e9, [])
    if size and not recipe.get("gradient_accumulation_steps"):
        return max(1, int(size // number(recipe, "micro_batch_size", 1, 1, 2**16, [])))
    return int(number(recipe, "gradient_accumulation_steps", 1, 1, 1e6, found))


# DeepSpeed


@dataclass(frozen=True)
class Zero:
    """What of a DeepSpeed configuration decides memory: ZeRO stage (0: no partition), CPU offload, and whether stage 3
    makes the weights in 32 bits (and computes in them)."""

    stage: int = 0
    offload_optimizer: bool = False
    offload_parameters: bool = False
    pinned: bool = False
    fp32: bool = False


def zero(recipe: dict) -> tuple[Zero, list[Finding]]:
    """The recipe's DeepSpeed configuration, and what is wrong with it by itself."""
    named = recipe.get("deepspeed")
    if not named or not isinstance(named, str | dict):
        return Zero(), []  # wrong-type is found already
    where = named if isinstance(named, str) else "deepspeed"
    try:
        content = read_deepspeed(named) if isinstance(named, str) else named
    except ElleError as failure:
        fix = failure.fix or "see deepspeed/"
        return Zero(), [finding("deepspeed-file", value_text(where)[1:-1], problem=failure.what, fix=fix)]
    section = content.get("zero_optimization", {})
    if not isinstance(section, dict):
        return Zero(), [finding("deepspeed-file/section", where)]
    known = axolotl_schema()["zero_optimization"]
    strange = [key for key in section if key not in known]
    found = [finding("deepspeed-file/key", where, key=value_text(k), fix=_offer("key", k, known)) for k in strange]
    stage = section.get("stage", 0)
    if isinstance(stage, bool) or not isinstance(stage, int) or not 0 <= stage <= 3:
        found.append(finding("deepspeed-file/stage", where, value=value_text(stage)))
        stage = 0

    def offloads(key: str) -> dict:
        entry = section.get(key)
        return entry if isinstance(entry, dict) and entry.get("device") in ("cpu", "nvme") else {}

    optimizer, parameters = offloads("offload_optimizer"), offloads("offload_param")
    if parameters and stage < 3:
        found.append(finding("deepspeed-file/offload", where))
    if "activation_checkpointing" in content:
        found.append(finding("activation-checkpointing-block", where))
    pinned = any(entry.get("pin_memory") for entry in (optimizer, parameters))
    # A quantised base is divided after the trainer has read the file, as everything is at the other stages.
    precisions = (content.get("bf16", content.get("bfloat16")), content.get("fp16"))
    half = any(isinstance(entry, dict) and entry.get("enabled") is True for entry in precisions)
    fp32 = stage == 3 and not half and not (recipe.get("load_in_4bit") or recipe.get("load_in_8bit"))
    if fp32 and recipe.get("bf16", "auto") in ("auto", True) and not recipe.get("fp16"):
        found.append(finding("zero3-fp32", where))
    return Zero(stage, bool(optimizer), bool(parameters) and stage == 3, pinned, fp32), found
