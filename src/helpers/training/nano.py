"""The laptop's base model: an untrained Qwen2 of about a million parameters and a tokenizer to match.

No weights can be assumed at hand on a laptop, so the project makes its own: the architecture, the chat format and
the pre-tokenisation are those of Qwen2.5, only the sizes differ.
"""

import inspect
import itertools
from collections.abc import Iterable
from pathlib import Path

from helpers import jsonl, paths
from helpers.errors import ElleError, unknown
from helpers.training.recipe import read_yaml

#: Rows of the training set that the tokenizer is trained on: more find no further words.
TOKENIZER_ROWS = 2000

END_OF_TEXT, TURN_START, TURN_END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"

#: ChatML, the format of Qwen2.5's instruct models.
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def pieces(text: str) -> int:
    """How many pieces Qwen2's pre-tokenisation cuts `text` into: no Qwen2 tokenizer gives fewer tokens than that."""
    from tokenizers import Regex, pre_tokenizers
    from transformers.models.qwen2.tokenization_qwen2 import PRETOKENIZE_REGEX

    return len(pre_tokenizers.Split(Regex(PRETOKENIZE_REGEX), "isolated").pre_tokenize_str(text))


def train_tokenizer(texts: Iterable[str], vocab_size: int):
    """Train a byte-level BPE of `vocab_size` tokens on `texts`, under Qwen2's own pre-tokenisation.

    transformers loads any tokenizer beside a Qwen2 model as a Qwen2Tokenizer, with Qwen2's normalisation and
    splitting (single digits, words with their leading space). So the merges are learned under exactly these: else
    the tokenizer that trains would differ from the one that serves.
    """
    from tokenizers.pre_tokenizers import ByteLevel
    from transformers import Qwen2Tokenizer

    alphabet = {byte: index for index, byte in enumerate(sorted(ByteLevel.alphabet()))}
    if vocab_size < len(alphabet) + 3:
        raise ElleError(
            f"a vocabulary of {vocab_size} cannot hold the {len(alphabet)} bytes and 3 special tokens",
            where="vocab_size",
            fix="use 512 or more",
        )
    # The chat format's own words belong in the vocabulary too: spelled letter by letter, they cost nine tokens a row.
    texts = itertools.chain(texts, ["system\nuser\nassistant\n"] * 100)
    blank = Qwen2Tokenizer(vocab=alphabet, merges=[])
    tokenizer = blank.train_new_from_iterator(
        texts, vocab_size, new_special_tokens=[TURN_START, TURN_END], show_progress=False
    )
    tokenizer.eos_token, tokenizer.pad_token = TURN_END, END_OF_TEXT
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def make_base(
    folder: Path | str,
    texts: Iterable[str],
    *,
    vocab_size: int = 1024,
    hidden_size: int = 128,
    layers: int = 4,
    heads: int = 4,
    kv_heads: int = 2,
    intermediate_size: int = 384,
    max_length: int = 1024,
    seed: int = 42,
) -> dict:
    """Make an untrained Qwen2 with its tokenizer in `folder`; return its description (also in `nano.json`).

    A folder that already holds the same base is left as it is.
    """
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM, set_seed

    folder = Path(folder)
    asked = {
        "vocab_size": vocab_size, "hidden_size": hidden_size, "layers": layers, "heads": heads, "kv_heads": kv_heads,
        "intermediate_size": intermediate_size, "max_length": max_length, "seed": seed,
    }  # fmt: skip
    described = folder / "nano.json"
    if described.exists() and (found := jsonl.read_json(described)) | asked == found:
        return found
    tokenizer = train_tokenizer(texts, vocab_size)
    config = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=hidden_size,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        intermediate_size=intermediate_size,
        max_position_embeddings=max_length,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.convert_tokens_to_ids(TURN_END),
        pad_token_id=tokenizer.convert_tokens_to_ids(END_OF_TEXT),
        dtype="float32",
    )
    with torch.random.fork_rng():
        set_seed(seed)
        model = Qwen2ForCausalLM(config)
    model.generation_config.update(do_sample=False, eos_token_id=config.eos_token_id, pad_token_id=config.pad_token_id)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    found = asked | {"parameters": sum(p.numel() for p in model.parameters())}
    jsonl.write_json(described, found)  # last: a base without it is made again
    return found


def resolve_base(base: str, train: Path | str | None, folder: Path | str) -> str | None:
    """The base model that `base` names: "" is the recipe's own (None); a YAML file holds the sizes of a nano base,
    which is made in `folder` with a tokenizer trained on the `train` file; anything else is taken as it stands.

    Raises:
        ElleError: an unknown key in the sizes, or sizes without a data set to train the tokenizer on.
    """
    if not base:
        return None
    if not base.endswith((".yaml", ".yml")):
        return base
    path = Path(base) if Path(base).exists() else paths.root() / base
    sizes = read_yaml(path, "base")
    known = set(inspect.signature(make_base).parameters) - {"folder", "texts"}
    for key in sizes:
        if key not in known:
            raise unknown("base size", key, known, where=str(path))
    if train is None:
        raise ElleError("a nano base needs a data set for its tokenizer", where=str(path), fix="name one (--data)")
    rows = itertools.islice(jsonl.read(train), TOKENIZER_ROWS)
    texts = (turn["value"] for row in rows for turn in row["conversations"])
    make_base(folder, texts, **sizes)
    return str(folder)
