"""The laptop's base model: an untrained Qwen2 of about a million parameters and a tokenizer to match.

No weights can be assumed at hand on a laptop, so the project makes its own: the architecture, the chat format and
the pre-tokenisation are those of Qwen2.5, only the sizes differ.
"""

import functools
import itertools
import json
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from elle.base import paths, storage
from elle.base.errors import ElleError, unknown
from elle.base.yaml_files import read_yaml

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
    return len(_splitter().pre_tokenize_str(text))


@functools.cache
def _splitter():
    from tokenizers import Regex, pre_tokenizers
    from transformers.models.qwen2.tokenization_qwen2 import PRETOKENIZE_REGEX

    return pre_tokenizers.Split(Regex(PRETOKENIZE_REGEX), "isolated")


def train_tokenizer(texts: Iterable[str], vocab_size: int):
    """Train a byte-level BPE of `vocab_size` tokens on `texts`, under Qwen2's own pre-tokenisation.

    transformers loads any tokenizer beside a Qwen2 model as a Qwen2Tokenizer, with Qwen2's normalisation and
    splitting (single digits, words with their leading space). So the merges are learned under exactly these: else
    the tokenizer that trains would differ from the one that serves.
    """
    from tokenizers.pre_tokenizers import ByteLevel
    from transformers import Qwen2Tokenizer

    alphabet = {byte: index for index, byte in enumerate(sorted(ByteLevel.alphabet()))}
    # The chat format's own words belong in the vocabulary too: spelled letter by letter, they cost nine tokens per row.
    texts = itertools.chain(texts, ["system\nuser\nassistant\n"] * 100)
    blank = Qwen2Tokenizer(vocab=alphabet, merges=[])
    tokenizer = blank.train_new_from_iterator(
        texts, vocab_size, new_special_tokens=[TURN_START, TURN_END], show_progress=False
    )
    tokenizer.eos_token, tokenizer.pad_token = TURN_END, END_OF_TEXT
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


@dataclass(frozen=True)
class Sizes:
    """The sizes of a nano base; the names are Qwen2's own, shortened where they stay clear."""

    vocab_size: int = 1024
    hidden_size: int = 128
    layers: int = 4
    heads: int = 4
    kv_heads: int = 2
    intermediate_size: int = 384
    max_length: int = 1024
    seed: int = 42


def make_base(sizes: Sizes, train: Path | str, folder: Path | str) -> dict:
    """Make an untrained Qwen2 in `folder`, with a tokenizer trained on the rows of `train`; return its description,
    which is also in `nano.json`. A folder that already holds the same base is left as it is.

    It is made by a process of its own: the caller, a notebook's kernel, need not load torch and its warnings.

    Raises:
        ElleError: the sizes do not make a Qwen2, or the rows cannot be read.
    """
    folder = Path(folder)
    wanted = asdict(sizes) | {"data": storage.sha256(train)}
    described = folder / "nano.json"
    if described.exists() and (description := storage.read_json(described)) | wanted == description:
        return description
    if sizes.vocab_size < 259:
        what = f"a vocabulary of {sizes.vocab_size} cannot hold 256 bytes and 3 special tokens"
        raise ElleError(what, where="vocab_size", fix="use 512 or more")
    command = [sys.executable, "-m", "elle.training.nano", json.dumps(asdict(sizes)), str(train), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise ElleError(
            f"the base model could not be made: {(done.stderr.strip() or 'no reason given').splitlines()[-1]}",
            where=str(folder),
            fix="correct the sizes (configs/nano_base.yaml shows ones that work) or the data set",
        )
    description = wanted | json.loads(done.stdout.splitlines()[-1])
    storage.write_json(described, description)  # last: a base without it is made again
    return description


def _make(sizes: Sizes, train: str, folder: str) -> dict:
    """The other process's part: write tokenizer, configuration and weights; return tokens and parameters."""
    from transformers import Qwen2Config, Qwen2ForCausalLM, set_seed

    rows = itertools.islice(storage.read_lines(train), TOKENIZER_ROWS)
    tokenizer = train_tokenizer((turn["value"] for row in rows for turn in row["conversations"]), sizes.vocab_size)
    config = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=sizes.hidden_size,
        num_hidden_layers=sizes.layers,
        num_attention_heads=sizes.heads,
        num_key_value_heads=sizes.kv_heads,
        intermediate_size=sizes.intermediate_size,
        max_position_embeddings=sizes.max_length,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.convert_tokens_to_ids(TURN_END),
        pad_token_id=tokenizer.convert_tokens_to_ids(END_OF_TEXT),
        dtype="float32",
    )
    set_seed(sizes.seed)
    model = Qwen2ForCausalLM(config)
    model.generation_config.update(do_sample=False, eos_token_id=config.eos_token_id, pad_token_id=config.pad_token_id)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return {"tokens": len(tokenizer), "parameters": model.num_parameters()}


def resolve_base(base: str, train: Path | str | None, folder: Path | str) -> str | None:
    """The base model that `base` names: "" is the recipe's own (None); a YAML file holds the sizes of a nano base,
    which is made in `folder` with a tokenizer trained on the `train` file; anything else is taken as it is.

    Raises:
        ElleError: an unknown key in the sizes, or sizes without a data set to train the tokenizer on.
    """
    if not base.endswith((".yaml", ".yml")):
        return base or None
    path = paths.located(base)
    given = read_yaml(path, "base")
    for key, value in given.items():
        if key not in Sizes.__annotations__:
            raise unknown("base size", key, Sizes.__annotations__, where=str(path))
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            raise ElleError(f"{key} is {value!r}, not a whole number", where=str(path), fix="such as in configs/")
    if train is None:
        raise ElleError("a nano base needs a data set for its tokenizer", where=str(path), fix="name one (--data)")
    make_base(Sizes(**given), train, folder)
    return str(folder)


if __name__ == "__main__":
    print(json.dumps(_make(Sizes(**json.loads(sys.argv[1])), *sys.argv[2:])))
