"""Base models by their shapes (`configs/models.yaml`): how many parameters, and which of them can be quantised."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, fields
from pathlib import Path

from elle.base import paths, storage
from elle.base.errors import ElleError
from elle.base.yaml_files import config_table, read_yaml

LINEARS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")

#: What a config.json may be of: dense decoders whose heads are hidden / heads wide.
COVERED = ("qwen2", "llama", "mistral")


@dataclass(frozen=True)
class Model:
    """A decoder of Qwen2's kind (Llama's is the same without bias)."""

    name: str
    hidden: int
    layers: int
    heads: int
    kv_heads: int
    ffn: int
    vocab: int
    tied: bool = False
    qkv_bias: bool = True
    quantized: str = ""  # nf4 or int4: the checkpoint is stored so
    train: bool = True  # False: it can be served only

    @property
    def kv(self) -> int:
        """Width of the keys (and of the values), all key-value heads together."""
        return self.hidden // self.heads * self.kv_heads

    @property
    def shapes(self) -> dict[str, tuple[int, int]]:
        """(in, out) of each linear of a layer."""
        h, kv, f = self.hidden, self.kv, self.ffn
        out = {"q_proj": (h, h), "k_proj": (h, kv), "v_proj": (h, kv), "o_proj": (h, h)}
        return out | {"gate_proj": (h, f), "up_proj": (h, f), "down_proj": (f, h)}

    @property
    def linears(self) -> int:
        """Parameters that NF4 quantises: the linears of all layers (embedding and head stay in 16 bits)."""
        return self.layers * sum(a * b for a, b in self.shapes.values())

    @property
    def embedding(self) -> int:
        """Parameters of the embedding; the head has as many, unless it is tied."""
        return self.vocab * self.hidden

    @property
    def parameters(self) -> int:
        bias = self.hidden + 2 * self.kv if self.qkv_bias else 0
        norms = 2 * self.hidden
        return self.linears + self.layers * (bias + norms) + self.hidden + self.embedding * (1 if self.tied else 2)

    @property
    def stored_bytes(self) -> float:
        """Size of the checkpoint as it is downloaded."""
        return nf4_bytes(self) if self.quantized else 2.0 * self.parameters

    def lora(self, rank: int, targets: Iterable[str] = LINEARS) -> int:
        """Parameters of a LoRA adapter of `rank` on the linears named (Hu et al. 2021: rank x (in + out) each)."""
        return self.layers * rank * sum(sum(self.shapes[name]) for name in set(targets) & set(self.shapes))

    def kv_cache_bytes(self) -> int:
        """Bytes of bf16 key-value cache per token."""
        return 2 * 2 * self.layers * self.kv


def nf4_bytes(model: Model) -> float:
    """Bytes of the weights in NF4 with double quantisation (Dettmers et al. 2023): blocks of 64 with an 8-bit constant
    each, 256 of these sharing one of 32 bits; the rest in 16 bits."""
    return model.linears * (0.5 + 1 / 64 + 4 / (64 * 256)) + 2.0 * (model.parameters - model.linears)


def _shape(content: dict) -> dict[str, int | bool]:
    """The sizes in a config.json or a base's sizes; those that are not positive whole numbers are left out."""
    wanted = {field.name for field in fields(Model)} - {"name", "quantized", "train", "qkv_bias"}
    names = config_table("models")["names"]
    found = {names.get(key, key): value for key, value in content.items()}
    return {k: v for k, v in found.items() if k in wanted and isinstance(v, int) and (k == "tied" or 0 < v < 2**24)}


def model_names() -> list[str]:
    return list(config_table("models")["models"])


def find(base_model: str, sizes: str = "") -> Model | None:
    """The model that `base_model` names: a local folder's config.json, else `configs/models.yaml`; `sizes` is the YAML
    of a nano base that is not made yet. None if nothing says what it is, or it is of another family.

    Raises:
        ElleError: one of these files is not what it should be.
    """
    if (config := local_file(base_model, "config.json")) is not None:
        read = storage.read_json(config)
        content = read if isinstance(read, dict) else {}
        if (family := content.get("model_type", "qwen2")) not in COVERED:
            return None  # other families have heads of another width, experts, norms of their own
        try:
            return Model(base_model, qkv_bias=family == "qwen2", **_shape(content))
        except TypeError as error:
            raise ElleError("this config.json does not say a model's sizes", where=str(config)) from error
    listed = config_table("models")["models"]
    key = re.sub(r"^meta-|(-instruct|-chat|-hf)+$", "", base_model.rstrip("/").rpartition("/")[2].lower())
    if key in listed:
        return Model(base_model, **listed[key])
    if sizes:
        return Model(base_model, tied=True, **_shape(read_yaml(paths.located(sizes), "base")))
    return None


def local_file(folder: str, name: str) -> Path | None:
    """`folder/name` if that is a file here; None also where `folder` cannot be a path at all."""
    try:
        path = paths.located(folder) / name
        return path if path.is_file() else None
    except (OSError, ValueError):
        return None


def own_code(folder: str) -> Path | None:
    """The configuration in a model's folder that names Python files of its own (`auto_map`) for `trust_remote_code` to
    run; None if none does, or there is no such folder here. Raises an ElleError where one is not JSON."""
    for name in ("config.json", "tokenizer_config.json", "processor_config.json", "preprocessor_config.json"):
        file = local_file(folder, name)
        content = storage.read_json(file) if file else None
        if isinstance(content, dict) and content.get("auto_map"):
            return file
    return None
