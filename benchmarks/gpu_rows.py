"""What real GPUs said of trainings (tests/fixtures/gpu-rows.jsonl: `benchmarks/gpu.py` measures such rows, others are
published), and what the planner says of the same settings. Units: GB of 1e9 bytes; tokens a second of all GPUs.

Two settings are not Axolotl's, but those of other trainers: `upcast` (false: embedding and head in 16 bits) and
`adapter_width` (bytes of an adapter's weight). `memory_not_held` says why a row's memory tells nothing of the planner.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

from elle.base import paths, storage
from elle.base.errors import ElleError
from elle.plan import hardware, memory, models, recipe, speed
from elle.plan.models import LINEARS

#: What was measured, from the inside out: torch's tensors, what torch reserved, what the driver counts.
LEVELS = {"peak_gb": "torch", "reserved_gb": "reserved", "driver_gb": "nvidia-smi"}
#: How the source of a row begins that was measured here.
MEASURED = "measured"


def file() -> Path:
    """The rows that the planner is held to."""
    return paths.root() / "tests" / "fixtures" / "gpu-rows.jsonl"


def _ours(row: dict) -> bool:
    return row["source"].startswith(MEASURED)


def _in_fp32(row: dict) -> bool:
    """Whether a full training under ZeRO was seen to hold its weights in 32 bits."""
    return row["adapter"] == "full" and "float32*" in row.get("parameters", {})


@dataclass(frozen=True)
class Compared:
    """A row beside its prediction: `memory` by LEVELS' names, as (predicted, measured); `speed` as (lowest, highest,
    measured)."""

    row: dict
    memory: dict[str, tuple[float, float]]
    speed: tuple[float, float, float] | None

    @property
    def level(self) -> str | None:
        """The level that counts: the one that the row's source states first, else the outermost."""
        stated = LEVELS.get(self.row.get("level", ""))
        return stated or next(reversed(self.memory), None)

    @property
    def ours(self) -> bool:
        return _ours(self.row)

    @property
    def error(self) -> float | None:
        """By which share the prediction is above (below: negative) what was measured; None where nothing follows."""
        if self.level is None or "memory_not_held" in self.row:
            return None
        predicted, measured = self.memory[self.level]
        return predicted / measured - 1

    @property
    def within(self) -> bool | None:
        """Whether the measured speed lies in the interval."""
        return None if self.speed is None else self.speed[0] <= self.speed[2] <= self.speed[1]


def as_recipe(row: dict) -> dict:
    """The row's settings as an Axolotl recipe."""
    config = {
        "base_model": row["model"],
        "micro_batch_size": row["micro"],
        "gradient_accumulation_steps": row["accumulation"],
        "sequence_len": row["sequence"],
        "optimizer": row["optimizer"],
        "gradient_checkpointing": row.get("checkpointing", True),
        "sample_packing": True,
        "bf16": True,
    }
    if row["liger"]:
        config |= {"plugins": [memory.LIGER], "liger_fused_linear_cross_entropy": True}
    if row["zero"]:
        bf16 = {"enabled": "auto" if _in_fp32(row) else True}
        config["deepspeed"] = {"zero_optimization": {"stage": row["zero"]}, "bf16": bf16}
    if row["adapter"] != "full":
        named = row.get("targets") or "all-linear"
        dropout = row.get("dropout")
        config |= {
            "adapter": row["adapter"],
            "load_in_4bit": row["adapter"] == "qlora",
            "lora_r": row["rank"],
            "lora_dropout": 0.05 if dropout is None else dropout,
            "lora_target_modules": list(LINEARS) if named == "all-linear" else named,
        }
        if not row["lora_kernels"]:
            config |= {f"lora_{part}_kernel": False for part in ("mlp", "qkv", "o")}
    return config


def setup(row: dict) -> tuple[memory.Setup, hardware.Hardware]:
    """Raises ElleError: a model or GPU that is not covered."""
    config, machine = as_recipe(row), hardware.find(row["gpu"], row["gpus"])
    model = models.find(row["model"])
    if model is None:
        raise ElleError(f"not covered: {row['model']}", where=row["run"], fix="add it to configs/models.yaml")
    found, _ = memory.setup(config, model, machine, recipe.zero(config)[0])
    return replace(found, **{key: row[key] for key in ("upcast", "adapter_width") if key in row}), machine


def compare(row: dict) -> Compared:
    """Raises ElleError: a model or GPU that is not covered."""
    s, machine = setup(row)
    said = memory.estimate(s)
    predicted = {"peak_gb": said.torch, "reserved_gb": said.reserved, "driver_gb": said.peak}
    found = {LEVELS[key]: (predicted[key], row[key]) for key in LEVELS if row.get(key)}
    rate = None
    if row.get("row_tokens_per_s"):
        tokens = s.micro * s.sequence
        low, high = (s.accumulation * s.gpus * tokens / seconds for seconds in speed.step(s, machine, tokens)[::-1])
        rate = (low, high, row["row_tokens_per_s"])
    return Compared(row, found, rate)


def compare_all(path: Path) -> list[Compared]:
    return [compare(row) for row in storage.read_lines(path)]


def title(row: dict) -> str:
    """A row's name, for people: a published one's own, and for a measured one what was run, before its short name."""
    liger = ", Liger" if row["liger"] else ""
    if not _ours(row):
        return f"{row['run']}{liger}"
    said = [row["model"]]
    said.append("full" if row["adapter"] == "full" else f"{row['adapter']} r{row['rank']}".replace("lora", "LoRA"))
    if row["zero"]:
        said.append(f"ZeRO-{row['zero']}{' in fp32' if _in_fp32(row) else ''}")
    if row["lora_kernels"] is False:
        said.append("without LoRA kernels")
    said += [f"{row['gpus']} x {row['gpu'].upper()}", f"{row['micro']} x {row['sequence']}"]
    if row["accumulation"] > 1:
        said.append(f"accumulated {row['accumulation']} times")
    return f"{', '.join(said)}{liger} ({row['run']})".replace("qLoRA", "QLoRA")


def table(compared: list[Compared]) -> list[dict[str, str]]:
    """A row each, for people."""
    rows = []
    for one in compared:
        predicted, measured = one.memory[one.level] if one.level else (None, None)
        off = one.row.get("memory_not_held") or ("" if one.error is None else f"{one.error:+.1%}")
        low, high, rate = one.speed or (None, None, None)
        rows.append(
            {
                "run": title(one.row),
                "GB planned": "" if predicted is None else f"{predicted:.1f}",
                "GB measured": "" if measured is None else f"{measured:.1f} ({one.level})",
                "off by": off,
                "tokens/s planned": "" if low is None else f"{low:,.0f} to {high:,.0f}",
                "tokens/s measured": "" if rate is None else f"{rate:,.0f}{'' if one.within else ' (outside)'}",
            }
        )
    return rows


def summary(compared: list[Compared]) -> str:
    """How near the planner comes to all rows, in two sentences."""
    said = []
    for name, ours in (("measured here", True), ("published", False)):
        errors = [one.error for one in compared if one.ours is ours and one.error is not None]
        if errors:
            low, high, middle = max(0.0, -min(errors)), max(0.0, *errors), median(map(abs, errors))
            said.append(
                f"at most {low:.1%} too low and {high:.1%} too high on {len(errors)} rows {name} (median {middle:.1%})"
            )
    aside = sum("memory_not_held" in one.row for one in compared)
    left = f", with {aside} more set aside, listed with the reason" if aside else ""
    rates = [one.within for one in compared if one.within is not None]
    inside = f"{sum(rates)} of {len(rates)} speeds lie inside their interval, which is a factor of 1.6 wide."
    return f"Planned memory is {', and '.join(said)}{left}. {inside}" if said else inside
