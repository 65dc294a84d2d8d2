"""The nearest recipe that passes: each fault of a plan put right, the memory by the lightest change that fits."""

import itertools
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from elle.base import paths, storage, yaml_files
from elle.base.errors import ElleError, unknown
from elle.plan import memory as memories
from elle.plan import recipe
from elle.plan.axolotl import axolotl_schema, known_keys, read_deepspeed
from elle.plan.findings import Finding, value_text
from elle.plan.hardware import NotCovered
from elle.plan.memory import LIGER
from elle.plan.models import LINEARS
from elle.plan.preflight import MOST_ROWS, Plan, assess, faster, sequence_for

MEMORY = ("gpu-memory", "host-memory", "weights-replicated")
#: What is put right last, in this order: only a recipe that can be read and fits can be made faster or cheaper.
LAST = (*MEMORY, "disk", "gpu-idle", "budget")
ROUNDS = 50
RANK = 64


@dataclass(frozen=True)
class Change:
    key: str
    before: Any
    after: Any
    why: str

    def parts(self) -> list[tuple[str, str, str]]:
        """(key, before, after) for people; of a list of data sets one for each key that differs."""
        pairs = {self.key: (self.before, self.after)}
        if self.key in ("datasets", "test_datasets") and self.after:
            pairs = {
                f"{self.key}[{n}].{key}": (old.get(key), new.get(key))
                for n, (old, new) in enumerate(zip(self.before, self.after, strict=True))
                for key in {**old, **new}
                if old.get(key) != new.get(key)
            }

        def shown(value: Any, missing: str) -> str:
            return missing if value is None else value_text(value)

        return [(key, shown(old, "unset"), shown(new, "removed")) for key, (old, new) in pairs.items()]

    def __str__(self) -> str:
        return "; ".join(f"{key}: {old} -> {new}" for key, old, new in self.parts()) + f" ({self.why})"


def _dataset(config: dict, finding: Finding) -> dict:
    """A data set's faults: `sharegpt`, keys that Axolotl does not know, values of the wrong type."""
    key, _, index = finding.where.partition("[")
    sets = [dict(entry) for entry in config[key]]
    entry = sets[int(index[:-1])]
    if finding.code == "sharegpt":
        entry |= yaml_files.config_table("findings")["sharegpt"]["remedy"]
        entry.pop("conversation", None)
    elif finding.code == "trust-remote-code":
        entry.pop("trust_remote_code")
    else:
        known = axolotl_schema()["datasets"]
        sets[int(index[:-1])] = {k: v for k, v in entry.items() if k in known and recipe.fits(v, known[k])}
    return {key: sets}


def _key(config: dict, finding: Finding) -> dict:
    """A key by itself: an unknown one takes the name that it nearly has, if that is free; else it is removed."""
    key, old = finding.where, recipe.special_keys()
    if key in old["attention"]:
        return {key: None, "attn_implementation": config.get("attn_implementation") or old["attention"][key]}
    known = known_keys(config)
    name = old["renamed"].get(key)
    if finding.code == "unknown-key":
        near = unknown("key", key, known).fix
        name = near.split("'")[1] if near.startswith("did you mean") else None
    if name and name not in config and recipe.fits(config[key], known[name]):
        return {key: None, name: config[key]}
    return {key: None}


def _longer(config: dict, plan: Plan) -> dict:
    """Rows that hold the longest example, with as many tokens per micro batch, and as many rows per step."""
    length = sequence_for(max(plan.data.lengths))
    most = min(max(1, plan.setup.micro * plan.setup.sequence // length), MOST_ROWS)
    rows = plan.setup.micro * plan.setup.accumulation
    micro = next(n for n in range(most, 0, -1) if rows % n == 0)
    return {"sequence_len": length, "micro_batch_size": micro, "gradient_accumulation_steps": rows // micro}


def _cheaper(config: dict, plan: Plan) -> dict:
    """As many epochs as the limit leaves money for."""
    epochs = recipe.number(config, "num_epochs", 1, 0, 1e6, [])
    high = plan.budget.dollars[1]
    other = plan.budget.other_hours * high / plan.budget.hours[1]
    fewer = math.floor(epochs * (plan.limit - other) / (high - other)) if high > other else 0
    return {"num_epochs": min(fewer, epochs - 1)} if fewer >= 1 else {}


def _ladder(plan: Plan) -> Iterator[dict]:
    """Changes that could make a training smaller, the nearest to what was asked for first. The distances say only
    what is tried before what: a kernel before a smaller batch, that before other states, LoRA last."""
    s, config = plan.setup, plan.config
    losses = [(0, {})]
    if not s.fused_loss:
        plugins = [*(config["plugins"] if isinstance(config.get("plugins"), list) else []), LIGER]
        losses.append((1, {"plugins": plugins, "liger_fused_linear_cross_entropy": True}))
    zeros: list[tuple[float, dict]] = [(5 if s.zero.offload_optimizer else 0, {})]  # offloading is slow
    if s.gpus > 1:
        files = {"zero2": 3, "zero3": 4, "zero3_offload_optimizer": 12}
        zeros += [(far, {"deepspeed": f"deepspeed/{name}.json"}) for name, far in files.items()]
    elif config.get("deepspeed"):
        zeros = [(1, {"deepspeed": None})]
    optimizers = [(0, {})] if s.eight_bit else [(0, {}), (4, {"optimizer": "adamw_bnb_8bit"})]
    adapter = {"lora_r": RANK, "lora_alpha": 2 * RANK, "lora_dropout": 0.05, "lora_target_modules": list(LINEARS)}
    adapter |= {"learning_rate": 1e-4}
    methods = [(0, {})]
    if s.method == "full":
        # Axolotl's LoRA kernels read weights that ZeRO-3 has partitioned.
        kernels = {f"lora_{part}_kernel": False for part in ("mlp", "qkv", "o", "embedding")}
        methods.append((30, adapter | kernels | {"adapter": "lora", "load_in_4bit": False}))
    if s.method != "qlora" and not plan.model.quantized:
        quantised = {"adapter": "qlora", "load_in_4bit": True}
        methods.append((60, (adapter if s.method == "full" else {}) | quantised))
    rows = s.micro * s.accumulation
    micros = [(0, {})]
    for times, micro in enumerate((n for n in range(s.micro - 1, 0, -1) if rows % n == 0), 1):
        micros.append((2 * times, {"micro_batch_size": micro, "gradient_accumulation_steps": rows // micro}))
    options = itertools.product(losses, zeros, optimizers, methods, micros)
    for choice in sorted(options, key=lambda choice: sum(far for far, _ in choice)):
        yield {key: value for _, more in choice for key, value in more.items()}


def _smaller(plan: Plan) -> dict:
    """The lightest changes with which it fits (else: is tight) on the GPUs and in the host."""
    tight: dict = {}
    zeros: dict[str, recipe.Zero] = {}
    for changes in _ladder(plan):
        config = recipe.merged(plan.config, changes)
        named = f"{config.get('deepspeed')}, {config.get('adapter')}"
        if named not in zeros:
            zeros[named] = recipe.zero(config)[0]
        zero = zeros[named]
        s, _ = memories.setup(config, plan.model, plan.hardware, zero)
        if (s.eight_bit and zero.offload_optimizer) or (s.method == "qlora" and zero.stage == 3):
            continue  # QLoRA: every GPU loads all of it first, so ZeRO-3 saves nothing there
        verdict = replace(plan, memory=memories.estimate(s)).verdict
        if verdict == "fits":
            return changes
        tight = tight or (changes if verdict == "tight" else {})
    return tight


def _in_bf16(config: dict) -> dict:
    """The recipe's own DeepSpeed configuration with bf16 on: as the shipped file that says so, else in the recipe."""
    named = config["deepspeed"]
    content = read_deepspeed(named) if isinstance(named, str) else named
    key = "bfloat16" if "bfloat16" in content and "bf16" not in content else "bf16"
    section = content[key] if isinstance(content.get(key), dict) else {}
    content = content | {key: section | {"enabled": True}}
    for name in ("zero3", "zero3_offload", "zero3_offload_optimizer"):
        if read_deepspeed(shipped := f"deepspeed/{name}.json") == content:
            return {"deepspeed": shipped}
    return {"deepspeed": content}


def _remedy(plan: Plan, finding: Finding) -> dict:
    """The changes (key → value, None: remove) that put one finding right; none where nothing can be done here."""
    config, code = plan.config, finding.code
    if re.fullmatch(r"(test_)?datasets\[\d+\]", finding.where) and finding.where not in config:
        return _dataset(config, finding)
    if code in ("ignored-key", "unknown-key", "deprecated-key", "removed-key", "wrong-type", "wrong-value", "conflict"):
        return _key(config, finding)
    if code in ("unknown-optimizer", "unknown-scheduler"):
        near = recipe.nearest_name(code.removeprefix("unknown-"), config[finding.where])
        return {finding.where: near} if near else {}
    if code in MEMORY:
        return _smaller(plan)
    if code == "gpu-idle":
        return faster(config, plan.setup, plan.hardware)
    if code == "examples-dropped":
        return _longer(config, plan)
    if code == "budget":
        return _cheaper(config, plan)
    if code == "zero3-fp32":
        return _in_bf16(config)
    if code == "disk":
        return {"save_total_limit": 1} if config.get("save_only_model") else {"save_only_model": True}
    zero = plan.setup.zero if plan.setup else recipe.Zero()
    name = "zero3_offload_optimizer" if zero.offload_optimizer else "zero3" if zero.stage == 3 else "zero2"
    shipped = {"deepspeed": f"deepspeed/{name}.json"}
    if code in ("activation-checkpointing-block", "pinned-memory"):
        return shipped
    if code == "deepspeed-file":
        return {"deepspeed": None} if plan.hardware.count == 1 else shipped
    if code == "deepspeed-alone":
        # Not where it offloads, or keeps what a full fine-tune has nowhere else: that would be another training.
        return {} if zero.offload_optimizer or not config.get("adapter") else {"deepspeed": None}
    return yaml_files.config_table("findings").get(code, {}).get("remedy", {})


def nearest_recipe(plan: Plan) -> tuple[Plan, list[Change]]:
    """The nearest recipe that passes on the same hardware and data, as a plan, and each change with its reason.

    Raises:
        ElleError: what is left cannot be put right by changing the recipe (with the first such finding).
    """
    if plan.verdict == "not covered":
        what = next((f.message for f in plan.findings if "not covered" in f.message), "not covered")
        fix = "without figures there is nothing to choose by; `elle plan` still checks the keys"
        raise NotCovered(what, where=paths.shown(plan.file), fix=fix)
    original, reasons = plan.config, {}
    for _ in range(ROUNDS):
        # Faults of the file first: what memory and money come to is known only when it can be read.
        found = sorted(plan.findings, key=lambda f: LAST.index(f.code) if f.code in LAST else -1)
        for finding in found:
            remedy = {k: v for k, v in _remedy(plan, finding).items() if plan.config.get(k) != v or v is None}
            remedy = {k: v for k, v in remedy.items() if v is not None or k in plan.config}
            if remedy:
                break
        else:
            break
        reasons |= dict.fromkeys(remedy, finding.message)
        config = recipe.merged(plan.config, remedy)
        plan = assess(plan.file, config, plan.hardware, plan.data, sizes=plan.sizes, limit=plan.limit)
    if not plan.ok:
        tight = Finding("", "error", "", f"the plan is {plan.verdict}")
        left = next((f for f in plan.findings if f.severity == "error"), tight)
        raise ElleError(f"no change of the recipe puts this right: {left.message}", where=left.where, fix=left.fix)
    # A key that was changed twice is one change, for the last reason.
    pairs = {key: (original.get(key), plan.config.get(key)) for key in reasons}
    kept = [
        key for key, (before, after) in pairs.items() if before != after or (key in original) != (key in plan.config)
    ]
    return plan, [Change(key, *pairs[key], reasons[key]) for key in kept]


def write_recipe(plan: Plan, changes: list[Change], out: Path) -> Path:
    """Write the corrected recipe, with its changes and what it is planned for as its header."""
    lines = [f"{paths.shown(plan.file)}, corrected by `elle plan --fix`:", *(f"- {change}" for change in changes)]
    hardware, data = plan.hardware, plan.data.name if plan.data else ""
    lines.append(f"planned for: gpu={hardware.name} count={hardware.count} disk={hardware.disk_gb:.0f} data={data}")
    header = "".join(f"# {''.join(c if c.isprintable() else ' ' for c in line)}\n" for line in lines)
    return storage.write_text(out, header + yaml_files.dump(plan.config))


def corrected(plan: Plan, out: Path) -> tuple[Plan, list[Change]]:
    """Write the nearest recipe that passes to `out`; its plan, and the changes.

    Raises:
        ElleError: nothing passes, or `out` cannot be written.
    """
    if out.resolve() == paths.located(plan.file).resolve():
        raise ElleError("this would overwrite the recipe itself", where=str(out), fix="name another file")
    fixed, changes = nearest_recipe(plan)
    write_recipe(fixed, changes, out)
    return replace(fixed, file=out), changes
