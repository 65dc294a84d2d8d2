"""Recipes: Axolotl's YAML and DeepSpeed's JSON, read with care; and what is wrong with them: keys that the trainer
would drop without a word, values of the wrong type, settings that it rejects or that have no effect."""

import contextlib
import functools
import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

from elle.base import paths, storage
from elle.base.errors import ElleError, unknown


def _keys_file() -> Path:
    return paths.configs() / "axolotl_keys.json"


@functools.cache
def axolotl_schema() -> dict:
    """The locked Axolotl's own schema: `keys`, `datasets` and each of `plugins` (key → type), and `required` keys.

    Asking Axolotl takes long, so the answer is kept beside this module; `python -m elle.plan.recipe` (part of
    `make lock`) asks it again, and a test compares.
    """
    return storage.read_json(_keys_file())


def known_keys(recipe: dict | None = None) -> dict[str, str]:
    """The keys (→ types) that Axolotl takes in `recipe`: its own, and those of the plugins that the recipe names."""
    plugins = (recipe or {}).get("plugins")
    named = [name for name in plugins if isinstance(name, str)] if isinstance(plugins, list) else []
    found = dict(axolotl_schema()["keys"])
    for name in named:
        found |= axolotl_schema()["plugins"].get(name, {})
    return found


def trainer_environment() -> dict[str, str]:
    """The variables under which Axolotl runs: this environment's programs first (its launchers call each other by
    name), and no usage reports."""
    programs = f"{Path(sys.prefix) / 'bin'}{os.pathsep}{os.environ.get('PATH', '')}"
    return dict(os.environ) | {"PATH": programs, "AXOLOTL_DO_NOT_TRACK": "1"}


def ask_validator(*arguments: str) -> dict:
    """The answer of `elle.plan.validator`, run as a process.

    Raises:
        ElleError: it gives none.
    """
    command = [sys.executable, "-m", "elle.plan.validator", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=trainer_environment(), check=False)
    try:
        return json.loads(done.stdout.strip().splitlines()[-1])
    except (ValueError, IndexError) as error:
        raise ElleError(
            f"Axolotl could not be asked: {done.stderr[-300:]}", where=" ".join(command[1:]), fix="run `make setup`"
        ) from error


def refresh_known_keys() -> None:
    """Ask the installed Axolotl for its schema and keep it.

    Raises:
        ElleError: it gives none.
    """
    storage.write_json(_keys_file(), ask_validator("keys"))
    axolotl_schema.cache_clear()


def merged(recipe: dict, changes: dict) -> dict:
    """`recipe` with `changes` (key → value; None removes the key)."""
    return {key: value for key, value in (recipe | changes).items() if value is not None or key not in changes}


# What is wrong with a recipe


@dataclass(frozen=True)
class Finding:
    """One thing to know before paying. `error`: it cannot run so; `warning`: it runs otherwise than it looks; `info`:
    it makes no difference."""

    code: str
    severity: Literal["error", "warning", "info"]
    where: str
    message: str
    fix: str = ""


def error(code: str, where: str, message: str, fix: str) -> Finding:
    return Finding(code, "error", where, message, fix)


def warning(code: str, where: str, message: str, fix: str) -> Finding:
    return Finding(code, "warning", where, message, fix)


def remark(code: str, where: str, message: str, fix: str = "") -> Finding:
    return Finding(code, "info", where, message, fix)


#: Keys of older Axolotl versions, as in the documents: what the installed one does with them, and what to write.
DROPPED = {
    "push_to_hub": "remove it: pushing follows hub_model_id",
    "flash_attn_fuse_qkv": "remove it: there is no replacement",
    "fsdp": "remove it, or use fsdp_config and fsdp_version: 2",
}
#: Axolotl reads `flash_attention` as flash_attention_2, which needs a package or a network; sdpa packs as well.
ATTENTION = {
    "flash_attention": "sdpa",
    "sdp_attention": "sdpa",
    "eager_attention": "eager",
    "flex_attention": "flex_attention",
    "xformers_attention": "xformers",
    "sage_attention": "sage",
}
RENAMED = {
    "evaluation_strategy": "eval_strategy",
    "noisy_embedding_alpha": "neftune_noise_alpha",
    "dataset_processes": "dataset_num_proc",
    "gc_steps": "gc_collect_steps",
    "liger_swiglu": "liger_glu_activation",
    "eval_max_new_tokens": "generation_max_new_tokens",
    "dpo_beta": "rl_beta",
}
REMOVED = (
    "max_packed_sequence_len",
    "rope_scaling",
    "s2_attention",
    "flash_attn_rms_norm",
    "rpo_alpha",
    "dpo_norm_loss",
    "dpo_use_logits_to_keep",
    "dpo_generate_during_eval",
)
#: Where transformers finds a flash attention: the package, else a compiled kernel of this repository on the Hub.
FLASH = {
    "flash_attention_2": ("flash-attn", "kernels-community/flash-attn2"),
    "flash_attention_3": ("flash-attn-3", "kernels-community/vllm-flash-attn3"),
    "flash_attention_4": ("flash-attn-4", "kernels-community/flash-attn4"),
}
#: How the documents' rows (`conversations` of `from` and `value`) are named to Axolotl since `sharegpt` is gone.
CHAT_TEMPLATE = {
    "type": "chat_template",
    "field_messages": "conversations",
    "message_property_mappings": {"role": "from", "content": "value"},
}
REFUSED_PAIRS = (
    ("warmup_steps", "warmup_ratio"),
    ("test_datasets", "val_set_size"),
    ("deepspeed", "fsdp_config"),
    ("gradient_accumulation_steps", "batch_size"),
    ("save_steps", "saves_per_epoch"),
    ("eval_steps", "evals_per_epoch"),
)


def value_text(value: Any) -> str:
    """A value as a message may hold it: short, whatever it is."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # a number of thousands of digits, a nesting without end
        text = f"a {type(value).__name__}"
    return text if len(text) <= 60 else text[:57] + "..."


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


def _key_findings(recipe: dict) -> list[Finding]:
    known = known_keys(recipe)
    plugin_of = {key: plugin for plugin, keys in axolotl_schema()["plugins"].items() for key in keys}
    found = []
    for key, value in recipe.items():
        # A key that asks for nothing loses nothing by being dropped.
        dropped = remark if value is None or value is False else error
        if key in DROPPED:
            found.append(dropped("ignored-key", key, f"Axolotl drops {key} without a word", DROPPED[key]))
        elif key in plugin_of and key not in known:
            fix = f"add `plugins: [{plugin_of[key]}]`"
            found.append(dropped("ignored-key", key, f"Axolotl drops {key} without a word: its plugin is missing", fix))
        elif key not in known:
            offer = unknown("recipe key", value_text(key)[1:-1], known).fix
            found.append(
                error("unknown-key", key, f"Axolotl knows no {value_text(key)} and drops it without a word", offer)
            )
        elif key in ATTENTION and value:
            fix = f"attn_implementation: {ATTENTION[key]}"
            found.append(warning("deprecated-key", key, f"{key} is deprecated", fix))
        elif key in RENAMED and value is not None:
            found.append(warning("deprecated-key", key, f"{key} is deprecated", f"rename it to {RENAMED[key]}"))
        elif (key in REMOVED or key.startswith("unsloth_")) and value:
            found.append(error("removed-key", key, f"Axolotl rejects {key}: it is no longer supported", "remove it"))
        elif not fits(value, known[key]):
            message = f"{value_text(value)} is not what Axolotl takes here ({known[key]})"
            found.append(error("wrong-type", key, message, "correct the value, or remove the key"))
    return found


def _dataset_findings(recipe: dict) -> list[Finding]:
    found = []
    for key in ("datasets", "test_datasets"):
        sets = recipe.get(key)
        if sets is None:
            continue
        if not isinstance(sets, list) or not sets or not all(isinstance(entry, dict) for entry in sets):
            fix = "a list of mappings; see configs/nano.yaml"
            found.append(error("wrong-type", key, f"{value_text(sets)} is no list of data sets", fix))
            continue
        for number, entry in enumerate(sets):
            where = f"{key}[{number}]"
            kind = entry.get("type")
            if isinstance(kind, str) and kind.startswith("sharegpt"):
                message = "Axolotl rejects `type: sharegpt`: it no longer exists"
                fix = "type: chat_template, field_messages: conversations, "
                fix += "message_property_mappings: {role: from, content: value}"
                found.append(error("sharegpt", where, message, fix))
            known = axolotl_schema()["datasets"]
            for name, value in entry.items():
                if name not in known:
                    offer = unknown("key", value_text(name)[1:-1], known).fix
                    found.append(
                        error("unknown-key", where, f"Axolotl knows no {value_text(name)} in a data set", offer)
                    )
                elif name != "type" and not fits(value, known[name]):
                    message = f"{name}: {value_text(value)} is not what Axolotl takes here ({known[name]})"
                    found.append(error("wrong-type", where, message, "correct the value"))
    return found


def nearest_name(kind: str, value: str) -> str | None:
    """The one optimizer or scheduler (`kind`) that `value` is one or two letters off, if there is one; of a short
    name a letter makes another algorithm (`adamw`, `adamc`)."""
    far = {name: distance(value, name) for name in _usable(kind) if abs(len(name) - len(value)) <= 2}
    near = [name for name in far if far[name] <= min(2, len(value) // 6) and far[name] == min(far.values())]
    return near[0] if len(near) == 1 else None


def _usable(kind: str) -> list[str]:
    known = axolotl_schema()[f"{kind}s"]
    return [name for name in known if not known[name]] if isinstance(known, dict) else known


def distance(one: str, other: str) -> int:
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
        value = recipe.get(key)
        if not isinstance(value, str) or not value or value in _usable(kind):
            continue
        code, known = f"unknown-{kind}", axolotl_schema()[f"{kind}s"]
        longer = [name for name in _usable(kind) if name.startswith(value)]
        offer = (
            f"use one of: {', '.join(longer)}" if longer else unknown(kind, value_text(value)[1:-1], _usable(kind)).fix
        )
        if value in known:
            message = f"{value} cannot be made with the locked packages: {known[value]}"
            offer = f"another one, such as {'adamw_bnb_8bit' if '8bit' in value else 'adamw_torch_fused'}"
        else:
            message = f"no {kind} is called {value_text(value)}: Axolotl's validator takes it, the run then fails"
        found.append(error(code, key, message, offer))
    return found


def _attention_findings(recipe: dict) -> list[Finding]:
    """A flash attention that neither a package nor the Hub's cache holds here."""
    key = "flash_attention" if recipe.get("flash_attention") else "attn_implementation"
    named = "flash_attention_2" if key == "flash_attention" else recipe.get(key)
    if not isinstance(named, str) or not (named in FLASH or "/" in named):
        return []
    package, repository = FLASH.get(named, ("", re.split("[@:]", named)[0].strip()))
    with contextlib.suppress(metadata.PackageNotFoundError, ValueError):
        metadata.distribution(package)
        return []
    folder = repository.replace("/", "--")
    if any((paths.hub_cache(kernels=True) / f"{kind}--{folder}").exists() for kind in ("kernels", "models")):
        return []
    without = f"no lock has the package {package}: " if package else ""
    message = f"{without}unless the machine that trains has it, {repository} is fetched from the Hub at the start"
    message += "; without a network, or a build for its torch, the training ends there"
    fix = "attn_implementation: sdpa (packs by torch's own kernel)"
    return [warning("attention-kernel", key, message, fix)]


def check(recipe: dict) -> list[Finding]:
    """What is wrong with a recipe by itself, without asking Axolotl (`ask_validator` does): keys, types, settings that
    it rejects or that do not do what they seem to."""
    found = _key_findings(recipe) + _dataset_findings(recipe) + _name_findings(recipe)
    for key in (*axolotl_schema()["required"], "datasets"):
        if not recipe.get(key):
            found.append(error("missing-key", key, f"the recipe has no {key}", f"add {key}; see configs/nano.yaml"))
    for one, other in REFUSED_PAIRS:
        if recipe.get(one) and recipe.get(other):
            message = f"Axolotl rejects {one} together with {other}"
            found.append(error("conflict", one, message, f"remove {one} or {other}"))
    found += _attention_findings(recipe)
    flags = [key for key in ATTENTION if recipe.get(key)]
    if recipe.get("attn_implementation") and flags:
        message = f"Axolotl rejects attn_implementation together with {flags[0]}"
        found.append(error("conflict", flags[0], message, f"remove {flags[0]}"))
    if recipe.get("deepspeed") and recipe.get("save_only_model") and recipe.get("load_best_model_at_end"):
        message = "under DeepSpeed the trainer refuses load_best_model_at_end with save_only_model"
        found.append(error("conflict", "load_best_model_at_end", message, "remove one of them"))
    if recipe.get("trust_remote_code"):
        message = "trust_remote_code turns off Axolotl's LoRA kernels and runs code from the Hub; Qwen2.5 needs none"
        found.append(warning("trust-remote-code", "trust_remote_code", message, "remove it"))
    return found


def number(recipe: dict, key: str, default: float, low: float, high: float, found: list[Finding]) -> float:
    """A number from a recipe, between `low` and `high`; the default where there is none, or none that can be."""
    value = recipe.get(key)
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            value = None  # wrong-type is found already
    if value is None or isinstance(value, bool) or not isinstance(value, int | float):
        return default
    if not low <= value <= high:
        message = f"{value_text(value)} is not between {low:g} and {high:g}"
        found.append(error("wrong-value", key, message, f"such as {default:g}"))
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


def read_deepspeed(path: str) -> dict:
    """A DeepSpeed configuration, looked up as Axolotl is started: from here, else from the repository.

    Raises:
        ElleError: no such file, no JSON, or no object.
    """
    try:
        content = storage.read_json(paths.located(path))
    except (OSError, ValueError) as failure:  # a name that no file can have
        raise ElleError("no such file", where=value_text(path), fix="see deepspeed/") from failure
    if not isinstance(content, dict):
        raise ElleError("a DeepSpeed configuration is one JSON object", where=path, fix="see deepspeed/zero2.json")
    return content


def zero(recipe: dict) -> tuple[Zero, list[Finding]]:
    """The recipe's DeepSpeed configuration, and what is wrong with it by itself."""
    named = recipe.get("deepspeed")
    if not named:
        return Zero(), []
    where = named if isinstance(named, str) else "deepspeed"
    if not isinstance(named, str | dict):
        return Zero(), []  # wrong-type is found already
    try:
        content = read_deepspeed(named) if isinstance(named, str) else named
    except ElleError as failure:
        return Zero(), [error("deepspeed-file", value_text(where)[1:-1], failure.what, failure.fix or "see deepspeed/")]
    found = []
    section = content.get("zero_optimization", {})
    if not isinstance(section, dict):
        fix = "see deepspeed/zero2.json"
        return Zero(), [error("deepspeed-file", where, "zero_optimization is no object", fix)]
    for key in section:
        if key not in axolotl_schema()["zero_optimization"]:
            offer = unknown("key", value_text(key)[1:-1], axolotl_schema()["zero_optimization"]).fix
            found.append(
                error("deepspeed-file", where, f"DeepSpeed rejects zero_optimization.{value_text(key)}", offer)
            )
    stage = section.get("stage", 0)
    if isinstance(stage, bool) or not isinstance(stage, int) or not 0 <= stage <= 3:
        found.append(error("deepspeed-file", where, f"{value_text(stage)} is no ZeRO stage", "stage: 0, 1, 2 or 3"))
        stage = 0

    def offloads(key: str) -> dict:
        entry = section.get(key)
        return entry if isinstance(entry, dict) and entry.get("device") in ("cpu", "nvme") else {}

    optimizer, parameters = offloads("offload_optimizer"), offloads("offload_param")
    if parameters and stage < 3:
        fix = "stage: 3, or remove offload_param"
        found.append(error("deepspeed-file", where, "offload_param needs ZeRO stage 3", fix))
    if "activation_checkpointing" in content:
        message = "the activation_checkpointing block has no effect under the Hugging Face trainer"
        fix = "remove it; Axolotl's gradient_checkpointing (and activation_offloading) do this"
        found.append(warning("activation-checkpointing-block", where, message, fix))
    pinned = any(entry.get("pin_memory") for entry in (optimizer, parameters))
    # A quantised base is divided after the trainer has read the file, as everything is at the other stages.
    fp32 = stage == 3 and not _half(content) and not (recipe.get("load_in_4bit") or recipe.get("load_in_8bit"))
    if fp32 and recipe.get("bf16", "auto") in ("auto", True) and not recipe.get("fp16"):
        message = 'bf16.enabled is not true here, and Axolotl reads the model before the trainer resolves an "auto": '
        message += "weights are made, and all is computed, in fp32"
        fix = '"bf16": {"enabled": true} in the file, as in deepspeed/zero3.json'
        found.append(error("zero3-fp32", where, message, fix))
    return Zero(stage, bool(optimizer), bool(parameters) and stage == 3, pinned, fp32), found


def _half(content: dict) -> bool:
    """Whether a DeepSpeed configuration says outright that it trains in 16 bits."""
    sections = (content.get("bf16", content.get("bfloat16")), content.get("fp16"))
    return any(isinstance(section, dict) and section.get("enabled") is True for section in sections)


if __name__ == "__main__":
    refresh_known_keys()
