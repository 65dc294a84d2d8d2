"""How much memory a training takes, on each GPU and in the host, by component: computed, not measured.

n GPUs, N parameters, p of them trained, T = micro batch x sequence length. Sources: ZeRO (Rajbhandari et al. 2020) and
DeepSpeed's code; QLoRA (Dettmers et al. 2023); activation recomputation (Korthikanti et al. 2022); Liger's code. What
it rests on, and how near it comes to figures stated elsewhere: docs/planning.md. Units: GB = 1e9 bytes.
"""

import math
import re
from dataclasses import dataclass
from typing import Any

from helpers.training.hardware import Hardware
from helpers.training.models import LINEARS, Model, nf4_bytes
from helpers.training.recipe import Finding, Zero, number

#: A plan holds if this much of the peak is left over: fragmentation, and what the formulas do not know.
MARGIN = 0.12
#: CUDA context and NCCL; DeepSpeed's buckets for reducing and gathering; a process of Python, torch and the data.
CONTEXT, BUCKETS, PROCESS = 1.5e9, 2e9, 6e9
#: Parameters that ZeRO-3 holds gathered at once (stage3_max_live_parameters), and those of a step's sub-group.
LIVE, SUB_GROUP = 1e9, 1e9
#: Bytes a token and word of the vocabulary for logits, their fp32 copy, the softmax and its gradient: 8 to 14.
LOGITS = 14
LIGER = "axolotl.integrations.liger.LigerPlugin"


@dataclass(frozen=True)
class Setup:
    """What decides the memory. method: full, lora or qlora; width: bytes of a weight in training (2: bf16)."""

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

    @property
    def eight_bit(self) -> bool:
        return "8bit" in self.optimizer

    @property
    def optimizer_bytes(self) -> float:
        """Bytes of optimizer state a trained parameter, in fp32. Offloaded, DeepSpeed's own 32-bit Adam takes over."""
        if self.eight_bit and not self.zero.offload_optimizer:
            return 2 * (1 + 4 / 256)  # two states of 8 bits in blocks of 256 with a 32-bit constant each
        if "adafactor" in self.optimizer:
            return 0.1
        return 4.0 if re.search(r"lion|sgd|muon", self.optimizer) else 8.0


@dataclass(frozen=True)
class Memory:
    """Bytes as GB: `components` of the GPU's peak add up to `peak`; `phases` are the peaks of the parts of a step."""

    components: dict[str, float]
    phases: dict[str, float]
    host: dict[str, float]

    @property
    def peak(self) -> float:
        return max(self.phases.values())

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
    trained = model.parameters
    if method != "full":
        trained = model.lora(int(number(recipe, "lora_r", 8, 1, 2**16, found)), _targets(recipe))
    plugins = recipe.get("plugins")
    liger = isinstance(plugins, list) and LIGER in plugins and bool(recipe.get("liger_fused_linear_cross_entropy"))
    found_setup = Setup(
        model=model,
        method=method,
        trained=trained,
        gpus=hardware.count,
        zero=zero,
        optimizer=str(recipe.get("optimizer") or "adamw_torch_fused"),
        micro=int(number(recipe, "micro_batch_size", 1, 1, 2**16, found)),
        sequence=int(number(recipe, "sequence_len", 512, 1, 2**24, found)),
        fused_loss=liger or bool(recipe.get("cut_cross_entropy")),
        checkpointing=bool(recipe.get("gradient_checkpointing")),
        offload_activations=bool(recipe.get("activation_offloading")),
        width=4 if hardware.is_cpu else 2,
    )
    return found_setup, found


def _fused_loss(s: Setup) -> tuple[float, float]:
    """Bytes of Liger's fused cross-entropy: a chunk of logits, and the head's gradient, which it keeps (only if the
    head is trained)."""
    m, tokens = s.model, s.micro * s.sequence
    rows = min(tokens, 2 ** math.ceil(math.log2(max(1, math.ceil(tokens / math.ceil(m.vocab / m.hidden))))))
    return 2.0 * s.width * rows * m.vocab, float(s.width * m.embedding) if s.method == "full" else 0.0


def estimate(s: Setup) -> Memory:
    """Peak memory of a training step on each GPU, and of the host."""
    m, n, stage, p = s.model, s.gpus, s.zero.stage, s.trained
    size, tokens, kv = m.parameters, s.micro * s.sequence, m.kv
    parts = {}

    # States: partitioned over the GPUs, each from the stage that partitions it.
    parts["weights"] = nf4_bytes(m) if s.method == "qlora" else s.width * size / (n if stage == 3 else 1)
    adapter = 0 if s.method == "full" else p
    if stage:
        parts["adapter"] = 2 * adapter / (n if stage == 3 else 1)
        parts["gradients"] = 2 * p / (n if stage >= 2 else 1)
        parts["master"] = 4 * p / n
        parts["optimizer"] = s.optimizer_bytes * p / n
    else:  # no master weights: LoRA's are 32 bits wide themselves, a full fine-tune is in bf16 throughout
        width = 4 if adapter else s.width
        parts["adapter"], parts["gradients"], parts["master"] = 4 * adapter, width * p, 0
        parts["optimizer"] = s.optimizer_bytes * p * (1 if s.eight_bit else width / 4)
    host = {"processes": PROCESS * (1 if s.width == 4 else n)}
    if s.zero.offload_optimizer:
        parts["gradients"] = parts["master"] = parts["optimizer"] = 0
        host["offload"] = 18 * p  # bf16 and fp32 gradient, master, two states of Adam
    if s.zero.offload_parameters and s.method != "qlora":
        parts["weights"] = 0
        host["offload"] = host.get("offload", 0) + 2 * size

    parts["context"] = CONTEXT if s.width == 2 else PROCESS / 6
    parts["buckets"] = (min(BUCKETS, 4 * p) if stage else s.width * p) if n > 1 else 0
    parts["gathered"] = 2 * (min(LIVE, size) + 2 * m.embedding) if stage == 3 else 0
    base = sum(parts.values())

    # Activations: with checkpointing only each layer's input is kept, and one layer is recomputed at a time.
    inside = s.width * tokens * (9 * m.hidden + 2 * kv + 7 * m.ffn)
    kept = s.width * tokens * m.hidden * m.layers if s.checkpointing else inside * m.layers
    layer = 8 * tokens * m.hidden + (inside if s.checkpointing else 0)
    if s.offload_activations:
        host["activations"], kept = kept * n, 0
    loss, head = _fused_loss(s) if s.fused_loss else (LOGITS * tokens * m.vocab, 0.0)
    step = 0.0
    if stage and not s.zero.offload_optimizer:  # the gradient as fp32, all of a GPU's share or one sub-group of it
        step = 4 * min(p / n, SUB_GROUP) if stage == 3 else 4 * p / n

    extra = {
        "loss": {"activations": kept, "loss": loss + head},
        "backward": {"activations": kept, "layer": layer, "loss": head},
        "step": {"step": step},
    }
    phases = {name: (base + sum(more.values())) / 1e9 for name, more in extra.items()}
    worst = extra[max(phases, key=phases.__getitem__)]
    parts |= {name: worst.get(name, 0) for name in ("activations", "layer", "loss", "step")}
    return Memory(
        {name: value / 1e9 for name, value in parts.items()},
        phases,
        {name: value / 1e9 for name, value in host.items()},
    )
