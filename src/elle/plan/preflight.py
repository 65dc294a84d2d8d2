"""Know before you pay: everything about a recipe on given hardware and data, as one plan with findings."""

import math
import re
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from elle.base import paths, yaml_files
from elle.base.errors import ElleError, unknown
from elle.plan import budget as budgets
from elle.plan import hardware as machines
from elle.plan import memory as memories
from elle.plan import models, recipe, speed
from elle.plan.budget import Budget, Data
from elle.plan.hardware import Hardware, NotCovered
from elle.plan.memory import Memory, Setup
from elle.plan.models import Model
from elle.plan.recipe import Finding, error, remark, warning

#: The rank that vLLM serves without being told (--max-lora-rank), and those it can be told.
SERVED_RANK, SERVABLE_RANKS = 16, (1, 8, 16, 32, 64, 128, 256, 320, 512)
#: Examples lost to the sequence length above this share are an error.
LOST = 0.05
#: Keys that change memory or time in ways that are not computed here: another loss or way through the data, other
#: weights or precisions, parts of a model, kernels. PARALLEL: as 1 they change nothing. bf16 is what a GPU is planned
#: with, and Axolotl's own choice where a recipe is silent.
NOT_COVERED = """
    fsdp_config rl reward_model process_reward_model pretraining_dataset streaming diffusion_lm ebft
    auto_find_batch_size gptq load_in_8bit qat fp8 quantize_moe_experts model_quantization_config relora
    unfrozen_parameters lisa_step_interval peft_use_dora peft_layers_to_transform lora_rank_pattern
    lora_target_parameters lora_modules_to_save lora_on_cpu layer_offloading tiled_mlp chunked_cross_entropy
    torch_compile
""".split()  # noqa: SIM905
PARALLEL = """
    tensor_parallel_size context_parallel_size sequence_parallel_degree dp_shard_size dp_replicate_size
""".split()  # noqa: SIM905
PRECISION = ("fp16", "float16", "float32")
#: A choice of batch and recomputation is offered if it saves this share of the training's time.
IDLE = 0.1
#: More rows than any card holds at once.
MOST_ROWS = 4096
_PLANNED = re.compile(r"^# planned for: gpu=(\S+) count=(\d{1,4}) disk=(\d{1,9}) data=(.*)$", re.MULTILINE)


@dataclass(frozen=True)
class Plan:
    """A recipe, judged. memory is None where the base model is unknown, budget where the data is."""

    file: Path
    config: dict
    hardware: Hardware
    model: Model | None
    setup: Setup | None
    memory: Memory | None
    data: Data | None
    budget: Budget | None
    findings: list[Finding]
    sizes: str = ""  # the YAML of a nano base that base_model will be
    limit: float | None = None  # dollars that it may cost

    @property
    def verdict(self) -> str:
        """`fits` (with the margin to spare), `tight` (without), `does not fit`, or `not covered` (no figure)."""
        if self.memory is None:
            return "not covered"
        margin = 1 + memories.MARGIN
        worst = self.memory.peak / self.hardware.memory_gb
        if not self.hardware.is_cpu:
            worst = max(worst, self.memory.host_total / self.hardware.host_gb)
        return "does not fit" if worst > 1 else "tight" if worst * margin > 1 else "fits"

    @property
    def ok(self) -> bool:
        return self.verdict in ("fits", "tight") and not any(f.severity == "error" for f in self.findings)

    def to_json(self) -> dict:
        """For programs: GB of 1e9 bytes, hours of wall-clock, dollars for all GPUs; null where nothing is known."""
        m, b = self.memory, self.budget

        def interval(values: tuple[float, float] | None, digits: int = 4) -> dict[str, float | None]:
            low, high = values or (None, None)
            return {"low": low and round(low, digits), "high": high and round(high, digits)}

        def rounded(values: dict[str, float] | None) -> dict[str, float]:
            return {name: round(value, 2) for name, value in (values or {}).items()}

        return {
            "recipe": paths.shown(self.file),
            "ok": self.ok,
            "verdict": self.verdict,
            "hardware": str(self.hardware),
            "peak_gb": m and round(m.peak, 2),
            "torch_gb": m and round(m.torch, 2),
            "reserved_gb": m and round(m.reserved, 2),
            "limit_gb": self.hardware.memory_gb,
            "components_gb": rounded(m and m.components),
            "phases_gb": rounded(m and m.phases),
            "host_gb": m and round(m.host_total, 1),
            "host_limit_gb": self.hardware.host_gb,
            "host_components_gb": rounded(m and m.host),
            "disk_gb": b and round(b.disk_total, 1),
            "disk_limit_gb": self.hardware.disk_gb,
            "hours": interval(b and b.hours),
            "training_hours": interval(b and b.training_hours),
            "dollars": interval(b and b.dollars),
            "tokens_per_second": interval(b and b.tokens_per_second, 0),
            "steps": b and b.steps,
            "tokens": b and b.tokens,
            "examples": b and b.examples,
            "dropped_examples": b and b.dropped,
            "parameters": self.model and self.model.parameters,
            "trained_parameters": self.setup and self.setup.trained,
            "rests_on": self.rests_on(),
            "findings": [asdict(finding) for finding in self.findings],
        }

    def rests_on(self) -> list[str]:
        """The assumptions behind the figures, a sentence each."""
        lines = ["memory: computed from the model's shape; docs/planning.md says how near that is to measurements"]
        if self.budget and self.data and self.setup:
            lines.append(f"tokens: {self.data.source}")
            lines.append(f"speed: {speed.rests_on(self.setup, self.hardware)}")
            price = sorted({f"{dollars:.2f}" for dollars in self.hardware.price})
            if not self.hardware.is_cpu:
                lines.append(f"price: {' to '.join(price)} dollars a GPU-hour ({self.hardware.priced})")
        return lines

    def summary(self) -> str:
        """One line: verdict, peak, hours, dollars, hardware and data."""
        said = [self.verdict]
        if self.memory:
            said[0] += f", {self.memory.peak:.1f} of {self.hardware.memory_gb:.1f} GB"
        if self.budget:
            said += [span(self.budget.hours, "h"), "free" if self.hardware.is_cpu else span(self.budget.dollars, "$")]
        return "; ".join([*said, str(self.hardware), f"data {self.data.name}" if self.data else "no data"])

    def short(self) -> str:
        """For people in a hurry: `summary`, what else is needed, and what is wrong."""
        lines = [f"{paths.shown(self.file)}: {self.summary()}"]
        if (m := self.memory) and (b := self.budget):
            host = f"host {m.host_total:,.0f} of {self.hardware.host_gb:,.0f} GB, "
            lines.append(
                f"  {'' if self.hardware.is_cpu else host}disk {b.disk_total:,.0f} of {self.hardware.disk_gb:,.0f} GB; "
                f"{b.examples:,} examples, {b.tokens:,} tokens in {b.steps:,} steps"
            )
        lines += [f"  {f.severity:<7} {f.code}: {f.message}" for f in self.findings if self._decides(f)]
        return "\n".join(lines)

    @staticmethod
    def _decides(finding: Finding) -> bool:
        return finding.severity == "error" or finding.code == "not-covered"

    def text(self) -> str:
        """For people: the verdict, a bar for each component of memory against the card's limit, cost, findings."""
        lines = [f"{paths.shown(self.file)}: {self.verdict.upper()} on {self.hardware}", ""]
        if m := self.memory:
            limit = self.hardware.memory_gb
            each = "memory" if self.hardware.is_cpu else "memory of each GPU"
            lines.append(f"{each}  {m.peak:.1f} of {limit:.1f} GB, at the {max(m.phases, key=m.phases.__getitem__)}")
            outer = () if self.hardware.is_cpu else ("reserve", "driver")
            parts = [(n, v) for n, v in m.components.items() if v >= 0.005 and n not in outer]
            if outer:
                parts += [("torch", m.torch), *((n, m.components[n]) for n in outer)]
            parts.append(("in all" if self.hardware.is_cpu else "nvidia-smi", m.peak))
            lines += [f"  {n:<12} {v:7.1f}  {bar(v, limit)}" for n, v in parts]
            if not self.hardware.is_cpu:
                said = ", ".join(f"{name} {value:,.0f}" for name, value in m.host.items())
                lines.append(f"host memory  {m.host_total:,.0f} of {self.hardware.host_gb:,.0f} GB ({said})")
        if b := self.budget:
            said = ", ".join(f"{name} {value:,.0f}" for name, value in b.disk.items())
            lines.append(f"disk         {b.disk_total:,.0f} of {self.hardware.disk_gb:,.0f} GB ({said})")
            low, high = b.tokens_per_second
            lines.append(f"data         {b.examples:,} examples, {b.tokens:,} tokens in {b.steps:,} steps")
            lines.append(
                f"time         {span(b.hours, 'h')}: {span(b.training_hours, 'h')} of training at {low:,.0f} to "
                f"{high:,.0f} tokens/s, {b.other_hours:.2f} h to start, load and save"
            )
            if not self.hardware.is_cpu:
                lines.append(f"cost         {span(b.dollars, '$')}")
        lines += ["", "rests on", *(f"  {line}" for line in self.rests_on())]
        if self.findings:
            lines += ["", "findings"]
        for f in self.findings:
            lines.append(f"  {f.severity:<7} {f.code}: {f.where}: {f.message}")
            lines += [f"          fix: {f.fix}"] if f.fix else []
        return "\n".join(lines)


def bar(value: float, limit: float, width: int = 40) -> str:
    """A bar of `value` on a scale whose end `|` is the limit; what lies beyond it is `>`."""
    filled = min(width, round(value / limit * width))
    return "█" * filled + "·" * (width - filled) + "|" + (">" if value > limit else "")


def span(values: tuple[float, float], unit: str) -> str:
    """An interval such as "2.1 to 3.1 h" or "$103 to $141"; one figure where both ends read the same."""
    digits = 0 if values[1] >= 20 else 1 if values[1] >= 1 else 2
    low, high = (f"{value:,.{digits}f}" for value in values)
    if unit == "$":
        return f"${high}" if low == high else f"${low} to ${high}"
    return f"{high} {unit}" if low == high else f"{low} to {high} {unit}"


def _model_findings(config: dict, model: Model | None, base: str) -> list[Finding]:
    if model is None:
        fix = f"add its shape to configs/models.yaml; known: {', '.join(models.model_names())}"
        message = f"not covered: nothing says how large {recipe.value_text(base)} is"
        return [error("unknown-model", "base_model", message, fix)]
    if not model.train:
        message = f"{base} is quantised for inference only ({model.quantized}): it can be served, not trained"
        return [error("inference-only", "base_model", message, "train the bf16 base, or the NF4 one by QLoRA")]
    found = []
    four = config.get("adapter") == "qlora" and bool(config.get("load_in_4bit"))
    if model.quantized and not four:
        message = f"{base} is stored in {model.quantized}: only QLoRA trains on it"
        found.append(error("quantised-base", "base_model", message, "adapter: qlora and load_in_4bit: true"))
    elif config.get("adapter") == "qlora" and not four:
        message = "Axolotl rejects `adapter: qlora` without `load_in_4bit: true`"
        found.append(error("quantised-base", "load_in_4bit", message, "load_in_4bit: true"))
    return found


def _zero_findings(config: dict, s: Setup, hardware: Hardware) -> list[Finding]:
    found, zero = [], s.zero
    if not config.get("deepspeed"):
        return found
    if hardware.count == 1:
        message = "on one device DeepSpeed partitions nothing"
        if s.method == "full":
            message += "; but without it there are no fp32 master weights"
        found.append(warning("deepspeed-alone", "deepspeed", message, "remove deepspeed"))
    if s.method == "qlora" and zero.stage == 3:
        message = (
            "ZeRO-3 divides 4-bit weights only after every GPU has loaded all of them, and then gathers each layer"
        )
        found.append(warning("qlora-zero3", "deepspeed", message, "deepspeed: deepspeed/zero2.json, where they fit"))
    if s.eight_bit and zero.offload_optimizer:
        message = "DeepSpeed replaces the 8-bit optimizer by its own 32-bit Adam where the optimizer is offloaded"
        found.append(warning("optimizer-swapped", "optimizer", message, "optimizer: adamw_torch_fused says what runs"))
    elif s.eight_bit and zero.stage == 3:
        message = "resuming 8-bit Adam under ZeRO-3 is not trusted upstream"
        found.append(warning("resume", "optimizer", message, "plan to start over rather than to resume"))
    if config.get("save_only_model") and s.method == "full":
        message = "without the optimizer's state DeepSpeed does not resume: a run that is cut short starts over"
        found.append(warning("resume", "save_only_model", message, "save_only_model: false, if the disk allows it"))
    kwargs = config.get("gradient_checkpointing_kwargs")
    if zero.stage == 3 and isinstance(kwargs, dict) and kwargs.get("use_reentrant") is False:
        message = (
            "Axolotl says that this fails under ZeRO-3; with DeepSpeed 0.19.8 it trains as use_reentrant: true does"
        )
        found.append(remark("reentrant", "gradient_checkpointing_kwargs", message))
    if zero.pinned:
        message = "pinned host memory is rounded up to powers of two: up to twice as much"
        found.append(warning("pinned-memory", "deepspeed", message, "pin_memory: false"))
    return found


def _memory_findings(s: Setup, m: Memory, hardware: Hardware) -> list[Finding]:
    found = []
    limit = hardware.memory_gb
    weights = m.components["weights"]
    if s.zero.stage < 3 and weights * (1 + memories.MARGIN) > limit:
        message = f"every GPU keeps all weights, {weights:.1f} of {limit:.1f} GB: only ZeRO-3 splits them"
        found.append(error("weights-replicated", "deepspeed", message, "deepspeed: deepspeed/zero3.json"))
    if m.peak > limit:
        worst = max(m.components, key=m.components.__getitem__)
        message = f"{m.peak:.1f} GB at the peak of a step, {limit:.1f} are there; the largest part is {worst}"
        found.append(error("gpu-memory", "memory", message, "`elle plan RECIPE --fix OUT.yaml` looks for what fits"))
    elif m.peak * (1 + memories.MARGIN) > limit:
        message = f"{m.peak:.1f} of {limit:.1f} GB leave less than {memories.MARGIN:.0%} for what is not computed"
        found.append(warning("gpu-memory-tight", "memory", message, "halve micro_batch_size, or `--fix OUT.yaml`"))
    if not hardware.is_cpu and m.host_total > hardware.host_gb:
        message = f"{m.host_total:,.0f} GB of host memory, {hardware.host_gb:,.0f} are there"
        found.append(error("host-memory", "deepspeed", message, "offload less, or rent a host with more memory"))
    return found


def _run_findings(config: dict, s: Setup, b: Budget, data: Data, hardware: Hardware, limit: float | None) -> list:
    found = []
    if b.dropped:
        share = b.dropped / data.examples
        longest = max(data.lengths)
        message = f"{b.dropped:,} of {data.examples:,} examples are longer than {s.sequence} tokens and are dropped"
        fix = f"sequence_len: {sequence_for(longest)} (the longest has {longest} tokens)"
        found.append((error if share > LOST else warning)("examples-dropped", "sequence_len", message, fix))
    if b.disk_total > hardware.disk_gb:
        checkpoints, there = b.disk["checkpoints"], hardware.disk_gb
        message = f"{b.disk_total:,.0f} GB of disk, {checkpoints:,.0f} of them checkpoints; {there:,.0f} are there"
        fix = "save_only_model: true and save_total_limit: 1, or a larger disk"
        found.append(error("disk", "save_total_limit", message, fix))
    if s.method != "full":
        rank = config.get("lora_r")
        if isinstance(rank, int) and rank > SERVED_RANK:
            served = next((r for r in SERVABLE_RANKS if r >= rank), None)
            message = f"an adapter of rank {rank} is not served by default: vLLM stops at {SERVED_RANK}"
            fix = f"serve it with --max-lora-rank {served}" if served else "lora_r: 512 or less"
            found.append(warning("lora-rank", "lora_r", message, fix))
    if limit is not None and b.dollars[1] > limit:
        certain = "costs" if b.dollars[0] > limit else "may cost"
        message = f"the run {certain} more than ${limit:,.2f}: {span(b.dollars, '$')}"
        found.append(error("budget", "num_epochs", message, "fewer epochs, fewer or shorter examples, fewer GPUs"))
    return found


def faster(config: dict, s: Setup, hardware: Hardware) -> dict:
    """The changes of batch and recomputation with which the same effective batch takes least time, of those that fit
    with the margin; none where they would save less than IDLE of it."""
    offloads = s.zero.offload_optimizer or s.offload_activations or config.get("gradient_checkpointing") == "offload"
    if hardware.is_cpu or offloads or config.get("batch_size"):
        return {}

    def seconds(one: Setup) -> float:
        return sum(speed.step(one, hardware, one.micro * one.sequence))

    rows = s.micro * s.accumulation
    others = [
        replace(s, micro=micro, accumulation=rows // micro, checkpointing=recomputes)
        # With several GPUs none smaller: it would talk to the others more often.
        for micro in range(min(rows, MOST_ROWS), (s.micro if s.gpus > 1 else 1) - 1, -1)
        if rows % micro == 0
        for recomputes in (True, False)
    ]
    fit = [one for one in others if memories.estimate(one).peak * (1 + memories.MARGIN) <= hardware.memory_gb]
    least = min(map(seconds, fit), default=math.inf)
    if least > (1 - IDLE) * seconds(s):
        return {}
    best = next(one for one in fit if seconds(one) <= 1.02 * least)  # the largest micro batch: fewer, larger products
    changes = {"micro_batch_size": best.micro, "gradient_accumulation_steps": best.accumulation}
    if best.checkpointing != s.checkpointing:
        changes["gradient_checkpointing"] = best.checkpointing
        if not best.checkpointing and "gradient_checkpointing_kwargs" in config:
            changes["gradient_checkpointing_kwargs"] = None
    return {key: value for key, value in changes.items() if config.get(key) != value}


def _idle_findings(config: dict, s: Setup, m: Memory, b: Budget, data: Data, hardware: Hardware) -> list[Finding]:
    if m.peak > hardware.memory_gb or not b.steps or not (changes := faster(config, s, hardware)):
        return []
    other = recipe.merged(config, changes)
    setup, _ = memories.setup(other, s.model, hardware, s.zero)
    after, _ = budgets.estimate(other, setup, hardware, data)
    hours = (sum(b.hours) - sum(after.hours)) / 2
    dollars = (sum(b.dollars) - sum(after.dollars)) / 2
    if hours < IDLE / 2 * sum(b.hours) / 2:  # of what is paid for, loading included
        return []
    text = ", ".join(f"{key}: {'unset' if value is None else value}".lower() for key, value in changes.items())
    message = f"the GPU is idle, {m.peak:.0f} of {hardware.memory_gb:.0f} GB used: with {text} the same batch takes "
    message += f"{memories.estimate(setup).peak:.0f} GB, {hours:.2f} h and ${dollars:,.2f} less"
    return [remark("gpu-idle", "micro_batch_size", message, text)]


def sequence_for(longest: int) -> int:
    """The sequence length that holds an example of `longest` tokens: the next multiple of 1,024."""
    return -(-longest // 1024) * 1024


def _uncovered(config: dict, hardware: Hardware) -> list[str]:
    """The keys for which there is no figure."""
    keys = [key for key in NOT_COVERED if config.get(key)]
    keys += [key for key in PARALLEL if config.get(key) not in (None, 0, 1)]
    keys += ["adapter"] * (config.get("adapter") not in (None, "", "lora", "qlora"))
    if not hardware.is_cpu:
        keys += [key for key in PRECISION if config.get(key)] + ["bf16"] * (config.get("bf16") is False)
    return keys


def assess(
    file: Path, config: dict, hardware: Hardware, data: Data | None, *, sizes: str = "", limit: float | None = None
) -> Plan:
    """Judge a recipe that is already read from `file`.

    Args:
        sizes: the YAML of a nano base that `base_model` will be; limit: dollars that it may cost.
    """
    zero, zero_findings = recipe.zero(config)
    found = recipe.check(config) + zero_findings
    base = config.get("base_model")
    base = base if isinstance(base, str) else ""
    try:
        model = models.find(base, sizes)
    except ElleError as failure:
        model = None
        found.append(error("unknown-model", "base_model", failure.what, failure.fix or "correct it"))
    found += _model_findings(config, model, base)
    uncovered = _uncovered(config, hardware)
    for key in uncovered:
        message = (
            f"not covered: what {key}: {recipe.value_text(config[key])} makes of memory and time; the rest is checked"
        )
        found.append(warning("not-covered", key, message, "see docs/planning.md; the trainer may well run it"))
    if model is None or uncovered:
        return Plan(file, config, hardware, model, None, None, data, None, found, sizes, limit)
    s, more = memories.setup(config, model, hardware, zero)
    found += more
    m = memories.estimate(s)
    found += _zero_findings(config, s, hardware) + _memory_findings(s, m, hardware)
    b = None
    if data is None:
        message = "nothing says which data it trains on: no time and no cost"
        level = error if limit is not None else warning
        found.append(level("unknown-data", "datasets", message, "--data FILE, or a set of configs/recipes.yaml"))
    else:
        b, more = budgets.estimate(config, s, hardware, data)
        found += more + _run_findings(config, s, b, data, hardware, limit)
        if not any(f.severity == "error" for f in found):
            found += _idle_findings(config, s, m, b, data, hardware)
    return Plan(file, config, hardware, model, s, m, data, b, found, sizes, limit)


def _entry(path: Path) -> dict:
    """What a recipe is meant for: by `# planned for:` in it (`--fix` writes that), else by its name in
    `configs/recipes.yaml`."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except (OSError, ValueError):
        text = ""
    if match := _PLANNED.search(text):
        return {"gpu": match[1], "count": int(match[2]), "disk": float(match[3]), "data": match[4] or None}
    return yaml_files.config_table("recipes")["recipes"].get(path.name, {})


def own_data(config: dict) -> str | None:
    """The file that the recipe itself names, if it is here."""
    sets = config.get("datasets")
    named: Any = sets[0].get("path") if isinstance(sets, list) and sets and isinstance(sets[0], dict) else None
    try:
        return named if isinstance(named, str) and paths.located(named).is_file() else None
    except (OSError, ValueError):
        return None


def plan(
    path: Path | str,
    *,
    gpu: str | None = None,
    count: int | None = None,
    disk: float | None = None,
    price: float | None = None,
    data: str | None = None,
    examples: int | None = None,
    limit: float | None = None,
) -> Plan:
    """Judge the recipe in a file.

    Args:
        gpu, count, disk: the hardware (GPU's name, how many, GB of disk), by default what the recipe is meant for.
        price: dollars a GPU-hour, by default the list price.
        data: a file, a folder or a set's name; by default the recipe's own file if it is here, else the set that it
            is planned with. examples: scales it.
        limit: dollars that it may cost.

    Raises:
        NotCovered: a recipe that is not in `configs/recipes.yaml`, and no `gpu`.
        ElleError: no such file, not YAML, or an unknown GPU or data set.
    """
    path, gpu = paths.located(path), gpu or None
    if gpu is None and not path.exists() and not _entry(path):
        fix = "recipes are in configs/; `elle profiles` lists the profiles"
        raise NotCovered(f"there is no recipe or profile {path.name!r}", where=str(path), fix=fix)
    config = yaml_files.read_yaml(path, "recipe")
    entry = _entry(path)
    if gpu is None and "gpu" not in entry:
        known = yaml_files.config_table("recipes")["recipes"]
        raise NotCovered(
            f"nothing says on which GPUs {path.name!r} is to run",
            where=str(path),
            fix=f"--gpu h200 --count 2, or a name of configs/recipes.yaml ({unknown('recipe', path.name, known).fix})",
        )
    hardware = machines.find(
        gpu or entry["gpu"],
        (entry.get("count", 1) if gpu in (None, entry.get("gpu")) else 1) if count is None else count,
        entry.get("disk", machines.DISK_GB) if disk is None else disk,
        price,
    )
    base = config.get("base_model")
    chosen = data or own_data(config) or entry.get("data")
    base = base if isinstance(base, str) else ""
    sizes = entry.get("base", "")
    read = budgets.find_data(chosen, base, examples, sizes) if chosen else None
    return assess(path, config, hardware, read, sizes=sizes, limit=limit)


def ask_trainer(plans: list[Plan]) -> list[Plan]:
    """The same plans, with what Axolotl's own validator and DeepSpeed's own parser object to (one process for all).

    Raises:
        ElleError: they cannot be asked.
    """
    files = [str(paths.located(p.file)) for p in plans]
    said = recipe.ask_validator("check", *files)

    def objections(file: str) -> list[Finding]:
        fix = "correct it; the other findings may say how"
        return [error(f"{a['by'].lower()}-rejects", "recipe", f"{a['by']}: {a['says']}", fix) for a in said[file]]

    return [replace(p, findings=p.findings + objections(file)) for p, file in zip(plans, files, strict=True)]


def corrected(found: Plan, out: Path) -> tuple[Plan, list]:
    """Write the nearest recipe that passes to `out`; return its plan and the changes (`elle.plan.fix`).

    Raises:
        ElleError: nothing passes, or `out` cannot be written.
    """
    from elle.plan import fix  # that module imports this one

    if out.resolve() == paths.located(found.file).resolve():
        raise ElleError("this would overwrite the recipe itself", where=str(out), fix="name another file")
    fixed, changes = fix.nearest_recipe(found)
    fix.write_recipe(fixed, changes, out)
    return replace(fixed, file=out), changes


def _summed(plans: list[Plan], key: str) -> tuple[float, float] | None:
    """(lowest, highest) of a budget's `hours` or `dollars` over all plans; None where one of them has no budget."""
    each = [getattr(p.budget, key) for p in plans if p.budget]
    return (sum(low for low, _ in each), sum(high for _, high in each)) if len(each) == len(plans) else None


def together(name: str, plans: list[Plan], limit: float | None) -> dict:
    """Several plans of one profile, run one after the other, as one (`Plan.to_json`'s keys, and `plans`): the worst
    verdict, the largest memory and disk, hours and dollars summed."""
    order = ("fits", "tight", "not covered", "does not fit")
    each = [p.to_json() for p in plans]

    def total(key: str) -> dict[str, float | None]:
        low, high = _summed(plans, key) or (None, None)
        return {"low": low and round(low, 4), "high": high and round(high, 4)}

    def most(key: str) -> float | None:
        return max((one[key] for one in each if one[key] is not None), default=None)

    findings = [
        finding | {"where": f"{one['recipe']}: {finding['where']}"} for one in each for finding in one["findings"]
    ]
    dollars = total("dollars")
    if limit is not None and (dollars["high"] is None or dollars["high"] > limit):
        message = f"the profile costs up to ${dollars['high'] or 0:,.2f}, more than ${limit:,.2f}"
        findings.append(asdict(error("budget", name, message, "fewer epochs, fewer or shorter examples")))
    worst = max(each, key=lambda one: one["peak_gb"] or 0)
    return {
        "profile": name,
        "ok": all(p.ok for p in plans) and not any(f["severity"] == "error" for f in findings),
        "verdict": max((p.verdict for p in plans), key=order.index),
        "peak_gb": most("peak_gb"),
        "components_gb": worst["components_gb"],
        "host_gb": most("host_gb"),
        "disk_gb": most("disk_gb"),
        "hours": total("hours"),
        "dollars": dollars,
        "budget": limit,
        "tokens": sum(one["tokens"] or 0 for one in each),
        "dropped_examples": sum(one["dropped_examples"] or 0 for one in each),
        "findings": findings,
        "plans": each,
    }


def total_text(answer: dict, plans: list[Plan]) -> str:
    """The last lines of a profile's plan: what `together` came to, and what it found beyond the single plans."""
    sums = [(_summed(plans, key), unit) for key, unit in (("hours", "h"), ("dollars", "$"))]
    hours, cost = ("unknown" if total is None else span(total, unit) for total, unit in sums)
    own = [f for f in answer["findings"] if f["where"] == answer["profile"]]
    allowed = "" if answer["budget"] is None else f"; budget ${answer['budget']:,.2f}"
    total = f"profile {answer['profile']}: {answer['verdict'].upper()}, in all {hours}, {cost}{allowed}"
    return "\n".join([total, *(f"  {f['severity']:<7} {f['code']}: {f['message']}; fix: {f['fix']}" for f in own)])
