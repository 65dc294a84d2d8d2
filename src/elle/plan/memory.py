"""How much memory a training takes, on each GPU and in the host, by component: computed, and held to measurements.

n GPUs, N parameters, p of them trained, T = micro batch x sequence length, L layers of width h, feed-forward f.
Sources: ZeRO (Rajbhandari et al. 2020) and DeepSpeed's code; QLoRA (Dettmers et al. 2023); activation recomputation
(Korthikanti et al. 2022); Liger's and Axolotl's kernels; what a layer keeps is counted on transformers' own modules
(tests/test_memory.py).
How near it comes to what real GPUs said: docs/planning.md. Units: GB = 1e9 bytes.
"""

import math
import re
from dataclasses import dataclass
from typing import Any

from elle.base.yaml_files import config_table
from elle.plan.findings import Finding
from elle.plan.hardware import Hardware
from elle.plan.models import LINEARS, Model, nf4_bytes
from elle.plan.recipe import Zero, accumulation, number, trusts_code

#: A plan holds if this much of the peak is left over: what the formulas do not know.
MARGIN = 0.12
#: What the driver counts beside what torch reserved: CUDA's context, with NCCL's buffers where processes talk.
CONTEXT, CONTEXT_NCCL = 0.8e9, 1.6e9
#: Torch reserves more than it ever has in use, by this share of it: measured 3 to 9 %; without a fused loss, whose
#: logits come and go, 11 to 23 %.
RESERVE, RESERVE_LOGITS = 0.06, 0.12
#: cuBLAS's workspace and what else stays; DeepSpeed's buckets for reducing; a process of Python, torch and the data.
WORKSPACE, BUCKETS, PROCESS = 0.07e9, 2e9, 6e9
#: Parameters that ZeRO-3 holds gathered at once (stage3_max_live_parameters), and those of a step's sub-group.
LIVE, SUB_GROUP = 1e9, 1e9
#: Bytes per token and word of the vocabulary for the logits' fp32 copy, the softmax and its gradient.
LOGITS = 12
LIGER = "axolotl.integrations.liger.LigerPlugin"


def _layer(name: str) -> dict[tuple[str, bool], tuple[float, float]]:
    """What a layer takes: (how it is trained, whether its LoRA has dropout) → factors of h and of f."""
    table = config_table("coefficients")[name]
    return {(way, bool(place)): tuple(pair) for way, pairs in table.items() for place, pair in enumerate(pairs)}


KEPT, LAYER = _layer("kept"), _layer("taken")
#: The same of h alone, for the last norm and the hidden states on either side of the loss.
ENDS = 11.0


@dataclass(frozen=True)
class Setup:
    """What decides memory and speed. method: full, lora or qlora; width: bytes of a weight in training (2: bf16).

    kernels: Axolotl's own for LoRA; targets: linears of a layer that have an adapter; upcast: embedding, norms and
    head stay in fp32; adapter_width: bytes of an adapter's weight without ZeRO.
    """

    model: Model
    method: str
    trained: int
    gpus: int
    zero: Zero
    optimizer: str
    micro: int
    sequence: int
    fused_loss: bool
    checkpointing: bool
    offload_activations: bool
    width: int = 2
    accumulation: int = 1
    kernels: bool = False
    dropout: bool = False
    targets: int = 7
    upcast: bool = False
    adapter_width: int = 4

    @property
    def way(self) -> tuple[str, bool]:
        """The row of KEPT and LAYER: adapters in 16 bits are not cast, as those of a 4-bit base are not."""
        if self.method == "full":
            return "upcast" if self.upcast else "full", False
        plain = "qlora" if self.adapter_width == 2 else self.method
        return "kernels" if self.kernels else plain, self.dropout

    @property
    def eight_bit(self) -> bool:
        return "8bit" in self.optimizer

    @property
    def optimizer_bytes(self) -> float:
        """Bytes of optimizer state per trained parameter. Offloaded, DeepSpeed's own 32-bit Adam takes over."""
        if self.eight_bit and not self.zero.offload_optimizer:
            return 2 * (1 + 4 / 256)  # two states of 8 bits in blocks of 256 with a 32-bit constant each
        if "adafactor" in self.optimizer:
            return 0.1
        return 4.0 if re.search(r"lion|sgd|muon", self.optimizer) else 8.0


@dataclass(frozen=True)
class Memory:
    """GB. `components` of a GPU's peak, as nvidia-smi shows it, add up to `peak`; `phases` are the parts of a step."""

    components: dict[str, float]
    phases: dict[str, float]
    host: dict[str, float]

    @property
    def peak(self) -> float:
        return max(self.phases.values())

    @property
    def torch(self) -> float:
        """What torch has in use at the peak (`torch.cuda.max_memory_allocated`)."""
        return self.peak - self.components["reserve"] - self.components["driver"]

    @property
    def reserved(self) -> float:
        """What torch has taken from the driver at the peak (`torch.cuda.max_memory_reserved`)."""
        return self.peak - self.components["driver"]

    @property
    def states(self) -> float:
        """Weights, gradients, master weights and optimizer: what ZeRO partitions."""
        return sum(self.components[k] for k in ("weights", "adapter", "gradients", "master", "optimizer"))

    @property
    def host_total(self) -> float:
        return sum(self.host.values())


def _targets(recipe: dict) -> tuple[str, ...]:
    """The linears that LoRA is put on; peft's own choice for Qwen2 where the recipe says nothing."""
    named: Any = recipe.get("lora_target_modules")
    if recipe.get("lora_target_linear") or named in ("all_linear", "all-linear"):
        return LINEARS
    if isinstance(named, str):
        try:
            return tuple(name for name in LINEARS if re.search(named, f"model.layers.0.mlp.{name}"))
        except (re.error, RecursionError, OverflowError):
            return LINEARS
    if isinstance(named, list) and named:
        return tuple(name for name in LINEARS if name in named)
    return ("q_proj", "v_proj")


def setup(recipe: dict, model: Model, hardware: Hardware, zero: Zero) -> tuple[Setup, list[Finding]]:
    """What of a recipe decides memory; values that cannot be are findings, and defaults stand in for them."""
    found: list[Finding] = []
    method = "full"
    if recipe.get("adapter"):
        method = "qlora" if recipe.get("adapter") == "qlora" or recipe.get("load_in_4bit") else "lora"
    trained, targets = model.parameters, ()
    if method != "full":
        targets = _targets(recipe)
        trained = model.lora(int(number(recipe, "lora_r", 8, 1, 2**16, found)), targets)
    plugins = recipe.get("plugins")
    liger = isinstance(plugins, list) and LIGER in plugins and bool(recipe.get("liger_fused_linear_cross_entropy"))
    cut, flash = bool(recipe.get("cut_cross_entropy")), "flash" in str(recipe.get("attn_implementation"))
    found_setup = Setup(
        model=model,
        method=method,
        trained=trained,
        gpus=hardware.count,
        zero=zero,
        optimizer=str(recipe.get("optimizer") or "adamw_torch_fused"),
        micro=int(number(recipe, "micro_batch_size", 1, 1, 2**16, found)),
        sequence=int(number(recipe, "sequence_len", 512, 1, 2**24, found)),
        fused_loss=liger or cut,
        checkpointing=bool(recipe.get("gradient_checkpointing")),
        offload_activations=bool(recipe.get("activation_offloading")),
        width=4 if hardware.is_cpu or zero.fp32 else 2,
        accumulation=accumulation(recipe, found),
        kernels=method != "full" and not hardware.is_cpu and lora_kernels(recipe),
        dropout=method != "full" and number(recipe, "lora_dropout", 0, 0, 1, found) > 0,
        targets=len(targets),
        # Axolotl's loader turns them back to 16 bits for an adapter, flash attention or cut cross-entropy; DeepSpeed
        # for itself.
        upcast=method == "full" and not (recipe.get("deepspeed") or cut or flash or hardware.is_cpu),
    )
    return found_setup, found


def lora_kernels(recipe: dict) -> bool:
    """Whether Axolotl uses its own LoRA kernels: it switches them on itself where the recipe does not mention them."""
    flags = [recipe.get(f"lora_{part}_kernel") for part in ("mlp", "qkv", "o", "embedding")]
    if any(flag is not None for flag in flags):
        return bool(flags[0])
    refused = recipe.get("rl") or trusts_code(recipe)
    return not (refused or (recipe.get("adapter") == "lora" and recipe.get("load_in_8bit")))


def _loss(s: Setup) -> tuple[float, float]:
    """Bytes of the loss, and of the head's gradient that it keeps: Liger's takes the logits chunk by chunk, and has the
    gradient at once (if the head is trained)."""
    m, tokens = s.model, s.micro * s.sequence
    ends = ENDS * s.width * tokens * m.hidden
    if not s.fused_loss:
        return LOGITS * tokens * m.vocab + ends, 0.0
    rows = min(tokens, 2 ** math.ceil(math.log2(max(1, math.ceil(tokens / math.ceil(m.vocab / m.hidden))))))
    head = (4 if s.upcast else s.width) * m.embedding if s.method == "full" else 0.0
    return 2.0 * s.width * rows * m.vocab + ends, float(head)


def _states(s: Setup) -> dict[str, float]:
    """Bytes of what ZeRO partitions, each over the GPUs from the stage that does."""
    m, n, stage, p = s.model, s.gpus, s.zero.stage, s.trained
    adapter = 0 if s.method == "full" else p
    parts = {"weights": s.width * m.parameters}
    if s.method == "qlora":  # stored as bf16, which ZeRO-3 divides as it does other weights
        parts["weights"] = nf4_bytes(m)
    if stage == 3:
        parts["weights"] /= n
    if stage:
        # DeepSpeed keeps gradients in 16 bits, also beside weights that were made in 32.
        wide = 2 if s.zero.fp32 else s.width
        parts["adapter"] = 2 * adapter / (n if stage == 3 else 1)
        parts["gradients"] = wide * p / (n if stage >= 2 else 1)
        parts["master"] = 4 * p / n
        parts["optimizer"] = s.optimizer_bytes * p / n
    else:  # no master weights: a full fine-tune is in bf16 throughout but for what is upcast
        width = s.adapter_width if adapter else s.width
        parts["adapter"], parts["gradients"], parts["master"] = width * adapter, width * p, 0
        parts["optimizer"] = s.optimizer_bytes * p * (1 if s.eight_bit else width / 4)
        heads = m.embedding * (1 if m.tied else 2) if s.upcast else 0  # 4 bytes for 2
        parts["weights"] += 2 * heads
        parts["gradients"] += 2 * heads
        if s.eight_bit and not adapter:  # transformers has bitsandbytes keep the states of an embedding in 32 bits
            parts["optimizer"] += (8 - s.optimizer_bytes) * m.embedding
        elif not adapter:
            parts["optimizer"] += s.optimizer_bytes / 2 * heads
    return parts


def _activations(s: Setup) -> tuple[float, float]:
    """Bytes kept for the backward pass, and of the layer in work: with checkpointing only each layer's input is kept,
    and one layer is recomputed at a time."""
    m, unit = s.model, float(s.width * s.micro * s.sequence)
    if s.checkpointing:
        h, f = LAYER[s.way]
        layer = unit * (h * m.hidden + 2 * m.kv + f * m.ffn)
        if s.method == "qlora" and s.kernels:
            layer += 2 * m.hidden * m.ffn  # a linear as 16 bits, for one product
        return unit * m.hidden * m.layers * (2 if s.upcast else 1), layer
    h, f = KEPT[s.way]
    return unit * (h * m.hidden + f * m.ffn) * m.layers, unit * (ENDS + 2) * m.hidden


def _step(s: Setup) -> float:
    """Bytes that the optimizer's step takes beside states and gradients."""
    if s.zero.offload_optimizer:
        return 0.0
    if s.zero.stage:  # the gradient as fp32, and flat in 16 bits before: a GPU's whole share, or one sub-group of it
        return 6 * min(s.trained / s.gpus, SUB_GROUP if s.zero.stage == 3 else math.inf)
    if s.optimizer == "adamw_torch":  # for each tensor at once: a copy of one state
        return float(s.trained * (s.adapter_width if s.method != "full" else s.width))
    return 0.0


def estimate(s: Setup) -> Memory:
    """Peak memory of a training step on each GPU, and of the host."""
    m, n, stage, p = s.model, s.gpus, s.zero.stage, s.trained
    parts = _states(s)
    cpu = s.width == 4 and not s.zero.fp32
    host = {"processes": PROCESS * (1 if cpu else n)}
    if s.zero.offload_optimizer:
        parts["gradients"] = parts["master"] = parts["optimizer"] = 0
        host["offload"] = 18 * p  # bf16 and fp32 gradient, master, two states of Adam
    if s.zero.offload_parameters and s.method != "qlora":
        parts["weights"] = 0
        host["offload"] = host.get("offload", 0) + 2 * m.parameters
    parts["workspace"] = 0 if cpu else WORKSPACE
    gradients = parts.pop("gradients")
    kept, layer = _activations(s)
    if s.offload_activations:
        host["activations"], kept = kept * n, 0
    loss, head = _loss(s)
    # While gradients are accumulated (and at ZeRO-3, which keeps room for them) they lie beside all activations; else
    # they come as the activations go, the embedding's last.
    beside = s.accumulation > 1 or stage == 3
    late = 0 if m.tied or s.method != "full" else (4 if s.upcast else s.width) * m.embedding / (n if stage >= 2 else 1)
    first = gradients if beside else 0.0
    last = gradients if beside else max(0.0, gradients - late)
    gathered = s.width * min(LIVE, m.parameters) if stage == 3 and n > 1 else 0.0
    # ZeRO's for reducing; without it each process has a copy of what it reduces.
    buckets = 0.0 if n == 1 else min(BUCKETS, 4 * p) if stage else s.width * p
    shared = {"gathered": gathered, "buckets": buckets}
    base = sum(parts.values())
    whole_head = s.width * m.embedding if gathered else 0.0
    extra = {
        "loss": shared
        | {"gradients": first, "activations": kept, "loss": loss + head, "gathered": gathered + whole_head},
        "backward": shared | {"gradients": first, "activations": kept, "layer": layer, "loss": head},
        "last layer": shared | {"gradients": last, "layer": layer},
        "step": {"gradients": gradients, "step": _step(s)},
    }
    if not s.checkpointing:
        del extra["last layer"]
    reserve = 0.0 if cpu else RESERVE if s.fused_loss else RESERVE_LOGITS
    driver = PROCESS / 6 if cpu else CONTEXT_NCCL if stage or n > 1 else CONTEXT
    phases = {name: ((base + sum(more.values())) * (1 + reserve) + driver) / 1e9 for name, more in extra.items()}
    worst = extra[max(phases, key=phases.__getitem__)]
    names = ("gathered", "buckets", "gradients", "activations", "layer", "loss", "step")
    parts |= {name: worst.get(name, 0.0) for name in names}
    parts |= {"reserve": reserve * sum(parts.values()), "driver": driver}
    return Memory(
        {name: value / 1e9 for name, value in parts.items()},
        phases,
        {name: value / 1e9 for name, value in host.items()},
    )
