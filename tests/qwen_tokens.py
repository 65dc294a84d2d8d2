"""Qwen2.5's own tokenizer without a download, for tests: made from the ranks that the package `dashscope` carries.

    PYTHONPATH=src python tests/qwen_tokens.py     # the lengths of this project's sets, for configs/recipes.yaml

A rank is the id of a token; among the pairs of parts in a text, the one whose token has the lowest rank is joined
first. A tokenizer.json wants the pairs themselves, in that order.
"""

import base64
import importlib.util
import math
import tempfile
from collections import Counter
from itertools import pairwise
from pathlib import Path
from unittest import mock

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

from elle.briefings import dataset
from elle.plan import budget
from experiments.stacking import curriculum

RANKS, MERGES = 151_643, 151_387
#: What follows the ranks, in the order of the ids.
SPECIAL = [
    *(f"<|{name}|>" for name in ("endoftext", "im_start", "im_end")),
    *(f"<|{name}_{side}|>" for name in ("object_ref", "box", "quad", "vision") for side in ("start", "end")),
    *(f"<|{name}_pad|>" for name in ("vision", "image", "video")),
]
ADDED = [
    *("<tool_call>", "</tool_call>"),
    *(f"<|{name}|>" for name in ("fim_prefix", "fim_middle", "fim_suffix", "fim_pad", "repo_name", "file_sep")),
]
SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)

#: This project's sets: how each is made, and to what multiple its lengths are rounded up.
SETS = {
    "basic": (lambda folder: dataset.build("basic", 3000, 42, folder), 10),
    "cic": (lambda folder: dataset.build("cic", 10_000, 42, folder), 20),
    "sums": (lambda folder: curriculum.build("sums", 20_000, 1, 1, folder), 10),
    "worked": (lambda folder: curriculum.build("worked", 1000, 1, 1, folder), 10),
}


def ranks() -> dict[bytes, int]:
    """Each token's bytes and id, in the order of the ids."""
    package = importlib.util.find_spec("dashscope")  # not imported: it is the file that is wanted
    assert package, "the package dashscope, which has Qwen's ranks, is not installed: make setup"
    path = Path(package.submodule_search_locations[0]) / "resources" / "qwen.tiktoken"
    found = {base64.b64decode(token): int(rank) for token, rank in map(bytes.split, path.read_bytes().splitlines())}
    assert list(found.values()) == list(range(RANKS)), f"{path}: not the {RANKS:,} ranks of Qwen2.5"
    return found


def merge(token: bytes, known: dict[bytes, int]) -> tuple[bytes, bytes]:
    """The two parts that `token` (two bytes or more) is joined from at last."""
    parts = [token[at : at + 1] for at in range(len(token))]
    while len(parts) > 2:
        _, at = min((known.get(left + right, RANKS), at) for at, (left, right) in enumerate(pairwise(parts)))
        parts[at : at + 2] = [parts[at] + parts[at + 1]]
    return tuple(parts)


def printable() -> dict[int, str]:
    """Byte → the letter that stands for it in a tokenizer.json: itself, or one from 256 on if it does not print."""
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [byte for byte in range(256) if byte not in shown]
    return {byte: chr(byte) for byte in shown} | {byte: chr(256 + at) for at, byte in enumerate(hidden)}


def make() -> Tokenizer:
    """The tokenizer, in about three seconds."""
    known, letters = ranks(), printable()

    def spelled(token: bytes) -> str:
        return "".join(letters[byte] for byte in token)

    merges = [tuple(map(spelled, merge(token, known))) for token in known if len(token) > 1]
    tokenizer = Tokenizer(models.BPE({spelled(token): rank for token, rank in known.items()}, merges))
    tokenizer.normalizer = normalizers.NFC()
    split = pre_tokenizers.Split(Regex(SPLIT), "isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(False, use_regex=False)])
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL])
    tokenizer.add_tokens([AddedToken(token, normalized=False) for token in ADDED])
    return tokenizer


def save(folder: Path) -> Path:
    """Write tokenizer.json into `folder`, where the planner takes it for the tokenizer of the base model `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    make().save(str(folder / "tokenizer.json"))
    return folder


def lengths(data: Path, multiple: int, base_model: str = "", sizes: str = "") -> dict[int, int]:
    """How many training examples of the set in `data` have which length, rounded up; every row is counted. The
    tokenizer is that of `base_model`, or pieces with `sizes` (as in `budget.find_data`)."""
    with mock.patch.object(budget, "SAMPLE", math.inf):
        counted = budget.read_data(data, base_model, sizes).lengths
    rounded = Counter()
    for length, count in counted.items():
        rounded[math.ceil(length / multiple) * multiple] += count
    return dict(sorted(rounded.items()))


def main() -> None:
    with tempfile.TemporaryDirectory() as made:
        base = save(Path(made) / "base")
        for name, (build, multiple) in SETS.items():
            build(Path(made) / name)
            print(f"  {name}:")
            print(f"    tokens: {lengths(Path(made) / name, multiple, str(base))}")
            print(f"    pieces: {lengths(Path(made) / name, multiple, sizes='any')}")


if __name__ == "__main__":
    main()
