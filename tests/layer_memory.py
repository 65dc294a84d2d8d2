"""What a layer of Qwen2 keeps for the backward pass, and what is alive while it is recomputed: counted on the modules
of transformers and PEFT, on Axolotl's LoRA kernels and on torch's attention for packed rows, without memory or a GPU.

Tensors are fake: they have shapes and nothing in them, so a million tokens cost nothing. Stand-ins, for what only CUDA
has: dropout is called as the function that CUDA uses (its mask is of bools); a 4-bit linear multiplies by a fresh copy
in 16 bits, which it does not keep, as bitsandbytes and Axolotl's kernels do; Axolotl's product for the gradients of an
adapter makes fp32 at once, where on a CPU it would cast both sides before; autocast is the CPU's.
"""

import contextlib
import types
import weakref
from unittest import mock

import torch
from axolotl.kernels import lora as kernels
from bitsandbytes.nn import Linear4bit
from peft import LoraConfig, get_peft_model
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.attention.varlen import varlen_attn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import Qwen2Config, Qwen2ForCausalLM
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.qwen2.modeling_qwen2 import apply_rotary_pos_emb

from elle.plan.models import LINEARS, Model

RANK = 64


class Storages(TorchDispatchMode):
    """The bytes of all storages that are alive, `now` and at most (`top`)."""

    def __init__(self):
        super().__init__()
        self.alive, self.now, self.top = {}, 0, 0

    def see(self, tensor: torch.Tensor) -> None:
        storage = tensor.untyped_storage()
        if storage._cdata not in self.alive:
            self.alive[storage._cdata] = storage.nbytes()
            self.now += storage.nbytes()
            self.top = max(self.top, self.now)
            weakref.finalize(storage, self._freed, storage._cdata)

    def _freed(self, key: int) -> None:
        self.now -= self.alive.pop(key, 0)

    def __torch_dispatch__(self, function, kinds, arguments=(), options=None):
        result = function(*arguments, **(options or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor):
                self.see(tensor)
        return result


def _attention(module, query, key, value, mask, **_):
    """As axolotl/monkeypatch/attention/sdpa_varlen.py does it: heads repeated, one row of all tokens."""
    rows, heads, length, width = query.shape
    key, value = (t.repeat_interleave(heads // t.shape[1], dim=1) for t in (key, value))
    query, key, value = (t.transpose(1, 2).reshape(rows * length, heads, width) for t in (query, key, value))
    ends = torch.zeros(rows + 1, dtype=torch.int32)
    out = varlen_attn(query, key, value, ends, ends, length, length, window_size=(-1, 0))
    return out.reshape(rows, length, heads, width), None


ALL_ATTENTION_FUNCTIONS["counted"] = _attention


def _attention_by_kernels(self, hidden_states, position_embeddings=None, **_):
    """Qwen2Attention.forward with the lines that axolotl/monkeypatch/lora_kernels.py puts into it."""
    shape = (*hidden_states.shape[:-1], -1, self.head_dim)
    query, key, value = (t.view(shape).transpose(1, 2) for t in kernels.apply_lora_qkv(self, hidden_states))
    query, key = apply_rotary_pos_emb(query, key, *position_embeddings)
    out, _ = _attention(self, query, key, value, None)
    return kernels.apply_lora_o(self, out.reshape(*hidden_states.shape[:-1], -1).contiguous()), None


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight, bias):
        ctx.weight = weight
        return torch.nn.functional.linear(x, torch.empty_like(weight), bias)

    @staticmethod
    def backward(ctx, gradient):
        return gradient @ torch.empty_like(ctx.weight), None, None


class FourBit(Linear4bit):
    """A linear that PEFT takes for one of 4 bits."""

    def __init__(self, linear: torch.nn.Linear):
        torch.nn.Module.__init__(self)
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.weight, self.bias, self.compute_dtype = linear.weight, linear.bias, torch.bfloat16
        self.weight.compress_statistics, self.weight.quant_type = True, "nf4"

    def forward(self, x):
        return _Product.apply(x, self.weight, self.bias)


def _gradient_mm(left, right, dtype, scale):
    return torch.empty(left.shape[0], right.shape[1], dtype=dtype)


def _model(m: Model, layers: int, way: str, four_bit: bool, dropout: float, recompute: bool, vocab: int):
    sizes = {"hidden_size": m.hidden, "intermediate_size": m.ffn, "num_hidden_layers": layers, "vocab_size": vocab}
    sizes |= {"num_attention_heads": m.heads, "num_key_value_heads": m.kv_heads, "tie_word_embeddings": False}
    net = Qwen2ForCausalLM._from_config(Qwen2Config(**sizes), dtype=torch.bfloat16)
    net.config._attn_implementation = "counted"
    if way == "upcast":
        for name, module in net.named_modules():
            if name.endswith(("norm", "embed_tokens", "lm_head")):
                module.float()
    elif way != "full":
        if four_bit:
            net.is_loaded_in_4bit = True
            for name, module in list(net.named_modules()):
                if name.rpartition(".")[2] in LINEARS:
                    net.set_submodule(name, FourBit(module))
        adapted = get_peft_model(net, LoraConfig(r=RANK, lora_dropout=dropout, target_modules=list(LINEARS)))
        adapted.enable_input_require_grads()
    if way == "kernels":
        for layer in net.model.layers:
            layer.self_attn.forward = types.MethodType(_attention_by_kernels, layer.self_attn)
            layer.mlp.forward = types.MethodType(kernels.apply_lora_mlp_swiglu, layer.mlp)
    if recompute:
        net.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": True})
    return net.train()


def counted(
    m: Model,
    tokens: int,
    way: str,
    dropout: float = 0.0,
    *,
    four_bit: bool = False,
    layers: int = 2,
    recompute: bool = True,
    vocab: int = 0,
) -> tuple[int, int]:
    """Bytes that `layers` layers of a model's widths keep after the forward pass, and the most that is alive in the
    backward pass, both without the weights. way, dropout: as in `memory.KEPT`; vocab: with transformers' own loss of so
    many words, whose own peak counts too."""
    enabled, storages = torch.is_autocast_enabled, Storages()
    four_bit = four_bit or way == "qlora"
    with contextlib.ExitStack() as stack:
        for where, name, other in (
            (torch, "is_autocast_enabled", lambda *_: enabled("cpu")),
            (torch.nn.functional, "dropout", lambda x, p, training, _: torch.native_dropout(x, p, training)[0]),
            (kernels, "_gradient_mm", _gradient_mm),
            (kernels, "dequantize", lambda weight, _: torch.empty_like(weight) if four_bit else weight),
        ):
            stack.enter_context(mock.patch.object(where, name, other))
        with torch.device("meta"):
            net = _model(m, layers, way, four_bit, dropout, recompute, vocab or 64)
        stack.enter_context(FakeTensorMode(allow_non_fake_inputs=True))
        net.to_empty(device="cpu")
        for weight in net.parameters():
            storages.see(weight)
        weights = storages.now
        stack.enter_context(storages)
        ids = torch.zeros(1, tokens, dtype=torch.long)
        with torch.autocast("cpu", torch.bfloat16):
            if vocab:
                end = net(input_ids=ids, labels=ids, use_cache=False).loss
            else:
                end = net.model(input_ids=ids, use_cache=False).last_hidden_state.sum()
                storages.top = storages.now
            kept = storages.now
            end.backward()
    return kept - weights, storages.top - weights
