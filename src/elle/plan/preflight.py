"""Know before you pay: everything about a recipe on given hardware and data, as one plan with findings."""

import math
import re
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from elle.base import paths, yaml_files
from elle.base.errors import ElleError, finite, unknown
from elle.plan import budget as budgets
from elle.plan import hardware as machines
from elle.plan import memory as memories
from elle.plan import models, recipe, speed
from elle.plan.axolotl import ask_validator
from elle.plan.budget import Budget, Data
from elle.plan.findings import Finding, finding, value_text
from elle.plan.hardware import Hardware, NotCovered
from elle.plan.memory import Memory, Setup
from elle.plan.models import Model

#: The rank that vLLM serves without being told (--max-lora-rank), and those it can be told.
SERVED_RANK, SERVABLE_RANKS = 16, (1, 8, 16, 32, 64, 128, 256, 320, 512)
#: Examples lost to the sequence length above this share are an error.
LOST = 0.05
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
            "hours": _interval(b and b.hours),
            "training_hours": _interval(b and b.training_hours),
            "dollars": _interval(b and b.dollars),
            "tokens_per_second": _interval(b and b.tokens_per_second, 0),
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
        parts = [self.verdict]
        if self.memory:
            parts[0] += f", {self.memory.peak:.1f} of {self.hardware.memory_gb:.1f} GB"
        if self.budget:
            parts += [span(self.budget.hours, "h"), "free" if self.hardware.is_cpu else span(self.budget.dollars, "$")]
        return "; ".join([*parts, str(self.hardware), f"data {self.data.name}" if self.data else "no data"])

    def short(self) -> str:
        """For people in a hurry: `summary`, what else is needed, and what is wrong."""
        lines = [f"{paths.shown(self.file)}: {self.summary()}"]
        if (m := self.memory) and (b := self.budget):
            host = f"host {m.host_total:,.0f} of {self.hardware.host_gb:,.0f} GB, "
            lines.append(
                f"  {'' if self.hardware.is_cpu else host}disk {b.disk_total:,.0f} of {self.hardware.disk_gb:,.0f} GB; "
                f"{b.examples:,} examples, {b.tokens:,} tokens in {b.steps:,} steps"
            )
        decide = [f for f in self.findings if f.severity == "error" or f.code == "not-covered"]
        return "\n".join([*lines, *(f"  {f.severity:<7} {f.code}: {f.message}" for f in decide)])

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
                lines.append(f"host memory  {_filled(m.host_total, self.hardware.host_gb, m.host)}")
        if b := self.budget:
            lines.append(f"disk         {_filled(b.disk_total, self.hardware.disk_gb, b.disk)}")
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


def _interval(values: tuple[float, float] | None, digits: int = 4) -> dict[str, float | None]:
    low, high = values or (None, None)
    return {"low": low and round(low, digits), "high": high and round(high, digits)}


def _filled(value: float, limit: float, parts: dict[str, float]) -> str:
    return f"{value:,.0f} of {limit:,.0f} GB ({', '.join(f'{name} {part:,.0f}' for name, part in parts.items())})"


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
        known = ", ".join(models.model_names())
        return [finding("unknown-model", base=value_text(base), known=known)]
    if not model.train:
        return [finding("inference-only", base=base, quantized=model.quantized)]
    qlora = config.get("adapter") == "qlora"
    if qlora and config.get("load_in_4bit"):
        return []
    if model.quantized:
        return [finding("quantised-base", base=base, quantized=model.quantized)]
    return [finding("quantised-base/qlora")] if qlora else []


def _code_findings(config: dict) -> list[Finding]:
    """The folders that a recipe names whose own code could be run."""
    named = {key: config.get(key) for key in ("base_model", "base_model_config", "tokenizer_config")}
    files = {key: models.own_code(folder) for key, folder in named.items() if isinstance(folder, str)}
    return [finding("remote-code", key, file=paths.shown(file)) for key, file in files.items() if file]


def _zero_findings(config: dict, s: Setup, hardware: Hardware) -> list[Finding]:
    if not config.get("deepspeed"):
        return []
    zero, full, kwargs = s.zero, s.method == "full", config.get("gradient_checkpointing_kwargs")
    reentrant = kwargs.get("use_reentrant") if isinstance(kwargs, dict) else None
    swapped = s.eight_bit and zero.offload_optimizer
    holds = {
        "deepspeed-alone": hardware.count == 1 and not full,
        "deepspeed-alone/full": hardware.count == 1 and full,
        "qlora-zero3": s.method == "qlora" and zero.stage == 3,
        "optimizer-swapped": swapped,
        "resume/eight-bit": s.eight_bit and zero.stage == 3 and not swapped,
        "resume/model-only": config.get("save_only_model") and full,
        "reentrant": zero.stage == 3 and reentrant is False,
        "pinned-memory": zero.pinned,
    }
    return [finding(name) for name, true in holds.items() if true]


def _memory_findings(s: Setup, m: Memory, hardware: Hardware) -> list[Finding]:
    found = []
    limit, weights = hardware.memory_gb, m.components["weights"]
    if s.zero.stage < 3 and weights * (1 + memories.MARGIN) > limit:
        found.append(finding("weights-replicated", weights=weights, limit=limit))
    if m.peak > limit:
        worst = max(m.components, key=m.components.__getitem__)
        found.append(finding("gpu-memory", peak=m.peak, limit=limit, worst=worst))
    elif m.peak * (1 + memories.MARGIN) > limit:
        found.append(finding("gpu-memory-tight", peak=m.peak, limit=limit, margin=memories.MARGIN))
    if not hardware.is_cpu and m.host_total > hardware.host_gb:
        found.append(finding("host-memory", needed=m.host_total, there=hardware.host_gb))
    return found


def _run_findings(config: dict, s: Setup, b: Budget, data: Data, hardware: Hardware, limit: float | None) -> list:
    found = []
    if b.dropped:
        severity, longest = "error" if b.dropped / data.examples > LOST else "warning", max(data.lengths)
        values = {"dropped": b.dropped, "examples": data.examples, "sequence": s.sequence}
        values |= {"longest": longest, "longer": sequence_for(longest)}
        found.append(finding("examples-dropped", severity=severity, **values))
    if b.disk_total > hardware.disk_gb:
        checkpoints = b.disk["checkpoints"]
        found.append(finding("disk", needed=b.disk_total, checkpoints=checkpoints, there=hardware.disk_gb))
    rank = config.get("lora_r")
    if s.method != "full" and isinstance(rank, int) and rank > SERVED_RANK:
        able = next((r for r in SERVABLE_RANKS if r >= rank), None)
        fix = f"serve it with --max-lora-rank {able}" if able else "lora_r: 512 or less"
        found.append(finding("lora-rank", rank=rank, served=SERVED_RANK, fix=fix))
    if limit is not None and b.dollars[1] > limit:
        certain = "costs" if b.dollars[0] > limit else "may cost"
        found.append(finding("budget", certain=certain, limit=limit, dollars=span(b.dollars, "$")))
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
    fix = ", ".join(f"{key}: {'unset' if value is None else value}".lower() for key, value in changes.items())
    values = {"peak": m.peak, "limit": hardware.memory_gb, "takes": memories.estimate(setup).peak}
    return [finding("gpu-idle", fix=fix, hours=hours, dollars=dollars, **values)]


def sequence_for(longest: int) -> int:
    """The sequence length that holds an example of `longest` tokens: the next multiple of 1,024."""
    return -(-longest // 1024) * 1024


def _uncovered(config: dict, hardware: Hardware) -> list[str]:
    """The keys for which there is no figure."""
    special = recipe.special_keys()
    keys = [key for key in special["not_covered"] if config.get(key)]
    keys += [key for key in special["parallel"] if config.get(key) not in (None, 0, 1)]
    keys += ["adapter"] * (config.get("adapter") not in (None, "", "lora", "qlora"))
    if not hardware.is_cpu:
        keys += [key for key in special["precision"] if config.get(key)] + ["bf16"] * (config.get("bf16") is False)
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
    base = base_model(config)
    try:
        found += _code_findings(config)
        model = models.find(base, sizes)
    except ElleError as failure:
        model = None
        found.append(finding("unknown-model/faulty", problem=failure.what, fix=failure.fix or "correct it"))
    found += _model_findings(config, model, base)
    uncovered = _uncovered(config, hardware)
    found += [finding("not-covered", key, key=key, value=value_text(config[key])) for key in uncovered]
    if model is None or uncovered:
        return Plan(file, config, hardware, model, None, None, data, None, found, sizes, limit)
    s, more = memories.setup(config, model, hardware, zero)
    m = memories.estimate(s)
    found += more + _zero_findings(config, s, hardware) + _memory_findings(s, m, hardware)
    b = None
    if data is None:
        found.append(finding("unknown-data", severity="warning" if limit is None else "error"))
    else:
        b, more = budgets.estimate(config, s, hardware, data)
        found += more + _run_findings(config, s, b, data, hardware, limit)
        if not any(f.severity == "error" for f in found):
            found += _idle_findings(config, s, m, b, data, hardware)
    return Plan(file, config, hardware, model, s, m, data, b, found, sizes, limit)


def base_model(config: dict) -> str:
    """A recipe's base model, "" where it names none."""
    base = config.get("base_model")
    return base if isinstance(base, str) else ""


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
        price: dollars per GPU-hour, by default the list price.
        data: a file, a folder or a set's name; by default the recipe's own file if it is here, else the set that it
            is planned with. examples: scales it.
        limit: dollars that it may cost.

    Raises:
        NotCovered: a recipe that is not in `configs/recipes.yaml`, and no `gpu`.
        ElleError: no such file, not YAML, an unknown GPU or data set, or a price or limit that is no amount.
    """
    path, gpu = paths.located(path), gpu or None
    finite(limit or 0, "budget", "--budget", "dollars, such as 22.5")
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
    if count is None:
        count = entry.get("count", 1) if gpu in (None, entry.get("gpu")) else 1
    disk = entry.get("disk", machines.DISK_GB) if disk is None else disk
    hardware = machines.find(gpu or entry["gpu"], count, disk, price)
    chosen = data or own_data(config) or entry.get("data")
    sizes = entry.get("base", "")
    read = budgets.find_data(chosen, base_model(config), examples, sizes) if chosen else None
    return assess(path, config, hardware, read, sizes=sizes, limit=limit)


def ask_trainer(plans: list[Plan]) -> list[Plan]:
    """The same plans, with what Axolotl's own validator and DeepSpeed's own parser object to (one process for all).

    Raises:
        ElleError: they cannot be asked.
    """
    files = [str(paths.located(p.file)) for p in plans]
    answers = ask_validator(*files)

    def objections(file: str) -> list[Finding]:
        return [finding(f"{one['by'].lower()}-rejects", problem=one["says"]) for one in answers[file]]

    return [replace(p, findings=p.findings + objections(file)) for p, file in zip(plans, files, strict=True)]


def _summed(plans: list[Plan], key: str) -> tuple[float, float] | None:
    """(lowest, highest) of a budget's `hours` or `dollars` over all plans; None where one of them has no budget."""
    each = [getattr(p.budget, key) for p in plans if p.budget]
    return (sum(low for low, _ in each), sum(high for _, high in each)) if len(each) == len(plans) else None


def together(name: str, plans: list[Plan], limit: float | None) -> dict:
    """Several plans of one profile, run one after the other, as one (`Plan.to_json`'s keys, and `plans`): the worst
    verdict, the largest memory and disk, hours and dollars summed; an ElleError for a limit that is no amount."""
    finite(limit or 0, "budget", name, "dollars, such as 22.5")
    order = ("fits", "tight", "not covered", "does not fit")
    each = [p.to_json() for p in plans]

    def most(key: str) -> float | None:
        return max((one[key] for one in each if one[key] is not None), default=None)

    findings = [f | {"where": f"{one['recipe']}: {f['where']}"} for one in each for f in one["findings"]]
    dollars = _interval(_summed(plans, "dollars"))
    if limit is not None and (dollars["high"] is None or dollars["high"] > limit):
        findings.append(asdict(finding("budget/profile", name, high=dollars["high"] or 0, limit=limit)))
    worst = max(each, key=lambda one: one["peak_gb"] or 0)
    return {
        "profile": name,
        "ok": all(p.ok for p in plans) and not any(f["severity"] == "error" for f in findings),
        "verdict": max((p.verdict for p in plans), key=order.index),
        "peak_gb": most("peak_gb"),
        "components_gb": worst["components_gb"],
        "host_gb": most("host_gb"),
        "disk_gb": most("disk_gb"),
        "hours": _interval(_summed(plans, "hours")),
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
