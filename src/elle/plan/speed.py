"""How long a step takes: the slower of the GPU's arithmetic and of the host that tells it what to do.

Each is an interval, slow end over fast end at most 1.6, that holds what was measured (docs/planning.md has the rows).
Units: seconds, FLOP, tokens of one GPU.
"""

from elle.base.yaml_files import config_table
from elle.plan.hardware import Hardware, NotCovered
from elle.plan.memory import Setup

#: (GPU's generation, full or lora) → the share of the peak that arithmetic reaches, lowest and highest.
SHARES = {
    (generation, method): tuple(ends)
    for generation, methods in config_table("coefficients")["shares"].items()
    for method, ends in methods.items()
}
#: On two CPU cores the share is of 6 FLOP per parameter and token, whatever is done: the nano run.
CPU = (0.3, 0.7)
#: Milliseconds that the host needs per layer and pass, whatever the layer's width: PyTorch's own modules, and with
#: Axolotl's LoRA kernels; an adapter by PEFT's modules adds ADAPTER per linear. An adapter's optimizer takes TENSOR for
#: each of its tensors. (fastest, slowest)
PLAIN, KERNELS, ADAPTER, TENSOR = (2.8, 4.48), (5.0, 8.0), (0.76, 1.216), (0.3, 0.48)
#: ZeRO-3 in fp32 against bf16, measured on one H200.
FP32 = 2.8


def micro_step(s: Setup, hardware: Hardware, tokens: float, *, forward: bool = False) -> tuple[float, float]:
    """(fastest, slowest) seconds of one micro batch of `tokens`: forward and backward pass, or the first alone."""
    # The embedding is looked up, not multiplied; the head is, also where the two are one.
    size = s.model.linears + s.model.embedding
    peak = hardware.tflops * 1e12
    if hardware.is_cpu:
        low, high = CPU
        work = (2 if forward else 6) * s.model.parameters * tokens
        return work / (high * peak), work / (low * peak)
    # 2 FLOP per parameter for the forward pass, 2 for the gradients of what goes in, 2 for those of the weights (an
    # adapter has few), 2 for recomputation.
    passes = 1 if forward else 3 if s.checkpointing else 2
    flop = 2 if forward else (6 if s.method == "full" else 4) + 2 * s.checkpointing
    low, high = _shares(s, hardware)
    slower = FP32 if s.zero.fp32 else 1.0
    arithmetic = tuple(slower * flop * size * tokens / (share * peak) for share in (high, low))
    host = tuple(_host(s, end) * passes * s.model.layers / 1e3 for end in (0, 1))
    return max(arithmetic[0], host[0]), max(arithmetic[1], host[1])


def _shares(s: Setup, hardware: Hardware) -> tuple[float, float]:
    kind = hardware.generation, "full" if s.method == "full" else "lora"
    if kind not in SHARES:
        what = f"nothing says which share of its peak a GPU of the generation {hardware.generation!r} reaches"
        raise NotCovered(
            what, where="configs/gpus.yaml", fix="a known one, or add its shares to configs/coefficients.yaml"
        )
    return SHARES[kind]


def _host(s: Setup, end: int) -> float:
    if s.method == "full":
        return PLAIN[end]
    return KERNELS[end] if s.kernels else PLAIN[end] + ADAPTER[end] * s.targets


def step(s: Setup, hardware: Hardware, tokens: float) -> tuple[float, float]:
    """(fastest, slowest) seconds of an optimizer step: its micro batches of `tokens` each, and the optimizer."""
    micro = micro_step(s, hardware, tokens)
    tensors = 0 if s.method == "full" or s.zero.stage or hardware.is_cpu else 2 * s.targets * s.model.layers
    low, high = (s.accumulation * micro[end] + TENSOR[end] * tensors / 1e3 for end in (0, 1))
    return low, high


def rests_on(s: Setup, hardware: Hardware) -> str:
    """The assumption in one sentence."""
    if hardware.is_cpu:
        return f"{CPU[0]:.0%} to {CPU[1]:.0%} of {hardware.tflops:g} TFLOP/s, 6 FLOP a parameter and token"
    low, high = _shares(s, hardware)
    host = [_host(s, end) for end in (0, 1)]
    return (
        f"the slower of arithmetic, {low:.0%} to {high:.0%} of {hardware.tflops:g} TFLOP/s, "
        f"and of the host, {host[0]:.1f} to {host[1]:.1f} ms per layer and pass"
    )
