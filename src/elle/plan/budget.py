"""Tokens, time, dollars and disk of a training run: from the data's own lengths, and measured throughput.

What the intervals rest on: docs/planning.md. Units: GB = 1e9 bytes, hours of wall-clock, dollars for all GPUs.
"""

import math
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from elle.base import paths, storage
from elle.base.errors import ElleError, unknown
from elle.base.yaml_files import config_table
from elle.plan import speed, steps
from elle.plan.findings import Finding
from elle.plan.hardware import Hardware, hourly
from elle.plan.memory import Setup
from elle.plan.models import local_file
from elle.plan.recipe import number

#: Hours until a pod trains (CPU: start-up alone); GB per second for fetching and loading the base, and for saving.
START, START_CPU, LOAD, SAVE = 0.1, 0.015, 0.1, 0.3
#: What Axolotl keeps where a recipe does not say (`save_total_limit`); GB for packages and prepared data.
CHECKPOINTS, PACKAGES = 4, 20.0
#: Rows that are tokenised of a larger file, spread evenly over it; tokens that ChatML adds per turn.
SAMPLE, TURN = 500, 5
#: Tokens of Qwen2.5 per piece of its pre-tokenisation, counted over this project's sets (basic 1.093, CIC 1.095; see
#: tests/qwen_tokens.py). It depends on the text: sums of digits have 1.00, and the documents' CIC set, with its rules
#: of box-drawing characters, 1.56.
TOKENS_PER_PIECE = 1.094

#: Qwen2's pre-tokenisation in Python's own terms (transformers' PRETOKENIZE_REGEX, see nano.pieces).
_PIECES = re.compile(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|(?:(?![\r\n])[\W_])?[^\W\d_]+|\d| ?(?:[^\s\w]|_)+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
NANO = "pieces of Qwen2's pre-tokenisation, a nano base's tokens"


@dataclass(frozen=True)
class Data:
    """Lengths of the examples in tokens (length → how many), and what they rest on."""

    name: str
    lengths: dict[int, int]
    source: str

    @property
    def examples(self) -> int:
        return sum(self.lengths.values())

    @property
    def tokens(self) -> int:
        return sum(length * count for length, count in self.lengths.items())

    def scaled(self, examples: int) -> "Data":
        """As many examples as asked for, of the same lengths in the same proportion."""
        factor = examples / self.examples
        return replace(self, lengths={length: max(1, round(n * factor)) for length, n in self.lengths.items()})


def _tokenizer(base_model: str, nano: bool) -> tuple[Callable[[str], float], str]:
    """A counter of tokens, and what it is: the model's own tokenizer if it is on this machine (for Qwen2.5: any of the
    family, in the Hub's cache), else an estimate from the pieces of Qwen2's pre-tokenisation. nano: the tokenizer will
    be trained on the data itself, under that pre-tokenisation: a piece is a token."""
    files = [local_file(base_model, "tokenizer.json")]
    if "qwen2.5" in base_model.lower():
        files += sorted(paths.hub_cache().glob("models--Qwen--Qwen2.5-*/snapshots/*/tokenizer.json"))
    if found := next((file for file in files if file), None):
        try:
            from tokenizers import Tokenizer

            tokenizer = Tokenizer.from_file(str(found))
        except Exception:  # not installed, or a damaged file: the estimate serves as well
            pass
        else:
            return lambda text: len(tokenizer.encode(text, add_special_tokens=False).ids), "its own tokenizer"
    each = 1 if nano else TOKENS_PER_PIECE
    estimated = f"pieces of Qwen2's pre-tokenisation, {each} tokens each (as in our sets; other text differs)"
    return lambda text: each * sum(1 for _ in _PIECES.finditer(text)), NANO if nano else estimated


def _texts(row: dict) -> list[str]:
    """The texts of an example: the turns of a conversation (ShareGPT or messages), else all its strings."""
    for key in ("conversations", "messages"):
        if isinstance(turns := row.get(key), list):
            found = [turn.get(name) for turn in turns if isinstance(turn, dict) for name in ("value", "content")]
            break
    else:
        found = list(row.values())
    return [text for text in found if isinstance(text, str)]


def _is_nano(base_model: str, sizes: str) -> bool:
    """Whether the base is one that this project makes: from the YAML `sizes`, or made already."""
    return bool(sizes) or local_file(base_model, "nano.json") is not None


def read_data(path: Path, base_model: str, sizes: str = "") -> Data:
    """The lengths of a JSONL file's examples; of a large file, of rows spread evenly over it. `sizes` is the YAML of a
    nano base that is not made yet.

    Raises:
        ElleError: the file cannot be read, holds no examples, or a line is not a JSON object (with its number).
    """
    count, how = _tokenizer(base_model, _is_nano(base_model, sizes))
    if path.is_dir():
        path = path / "train.jsonl"
    try:
        with path.open("rb") as file:
            total = sum(1 for line in file if line.strip())
    except OSError as error:
        raise ElleError(f"cannot read: {error.strerror}", where=str(path), fix="name a file or a data set") from error
    every = max(1, math.ceil(total / SAMPLE))
    lengths: Counter[int] = Counter()
    with path.open("rb") as file:
        rows = (line for line in file if line.strip())
        for number_, line in enumerate(rows):
            if number_ % every == 0:
                row = storage.parse_line(line, f"{path}:{number_ + 1}")
                lengths[round(sum(count(text) + TURN for text in _texts(row)))] += 1
    if not lengths:
        raise ElleError("this data set is empty", where=str(path), fix="generate it anew")
    source = f"{total} rows of {paths.shown(path)}, counted by {how}"
    return Data(str(path), dict(lengths), source + (f" on one row of {every}" if every > 1 else "")).scaled(total)


def find_data(name: str, base_model: str, examples: int | None = None, sizes: str = "") -> Data:
    """The data called `name`: a set of `configs/recipes.yaml`, a JSONL file, or a data set's folder. Its lengths are in
    tokens of Qwen2.5, or of a nano base (`sizes`: the YAML of one that is not made yet).

    Raises:
        ElleError: neither is there (with the nearest name), or the file is faulty.
    """
    sets = config_table("recipes")["data"]
    if name in sets:
        entry = sets[name]
        nano = "pieces" in entry and _is_nano(base_model, sizes)
        lengths = {int(length): int(count) for length, count in entry["pieces" if nano else "tokens"].items()}
        data = Data(name, lengths, f"{entry['source']}, in {NANO if nano else 'tokens of Qwen2.5'}")
    else:
        try:
            exists = paths.located(name).exists()
        except (OSError, ValueError):
            exists = False
        if not exists:
            raise unknown("data set", name, sets, where="--data")
        data = read_data(paths.located(name), base_model, sizes)
    return data if examples is None else data.scaled(max(1, examples))


@dataclass(frozen=True)
class Budget:
    """What a run comes to. tokens: of examples trained on, all epochs; hours and dollars: (lowest, highest)."""

    examples: int
    dropped: int
    tokens: int
    steps: int
    training_hours: tuple[float, float]
    other_hours: float
    dollars: tuple[float, float]
    tokens_per_second: tuple[float, float]
    disk: dict[str, float]
    saves: int

    @property
    def hours(self) -> tuple[float, float]:
        return self.training_hours[0] + self.other_hours, self.training_hours[1] + self.other_hours

    @property
    def disk_total(self) -> float:
        return sum(self.disk.values())


def estimate(recipe: dict, s: Setup, hardware: Hardware, data: Data) -> tuple[Budget, list[Finding]]:
    """Time, money and disk of a recipe on this hardware and data, and values of it that cannot be."""
    found: list[Finding] = []
    kept = {length: count for length, count in data.lengths.items() if length <= s.sequence}
    if recipe.get("excess_length_strategy") == "truncate" and len(kept) < len(data.lengths):
        kept[s.sequence] = kept.get(s.sequence, 0) + data.examples - sum(kept.values())
    examples = sum(kept.values())
    cut = steps.validation(recipe, examples, found) if examples else (0, 0)
    mean = sum(length * count for length, count in kept.items()) / examples if examples else 0
    run = steps.schedule(recipe, kept, cut, (s.micro, s.gpus, s.sequence), found)
    packed = bool(recipe.get("sample_packing"))
    padded = packed if recipe.get("pad_to_sequence_len") is None else bool(recipe.get("pad_to_sequence_len"))
    # A batch is padded to its longest example: between the mean and the longest of all.
    width = s.sequence if packed or padded or not kept else (mean + max(kept)) / 2

    # Time: of each step, padding and all, and of what is evaluated between.
    each = speed.step(s, hardware, s.micro * width)
    tokens = s.micro * s.accumulation * s.gpus * width
    rates = tokens / each[1], tokens / each[0]
    evaluations = steps.evaluations(recipe, run, cut, found)
    wide = number(recipe, "eval_batch_size", s.micro, 1, 1e6, [])
    whole = padded or (packed and recipe.get("eval_sample_packing") is not False)
    forward = speed.micro_step(s, hardware, wide * (s.sequence if whole else width), forward=True)
    passes = run.batches / s.accumulation, evaluations * run.evaluated
    training = tuple((passes[0] * one + passes[1] * other) / 3600 for one, other in zip(each, forward, strict=True))

    # Disk, and the time it takes to fill it.
    saves = steps.saves(recipe, run, evaluations, found)
    weights = 2.0 * s.trained
    state = 0.0
    if not recipe.get("save_only_model"):  # optimizer states, and the fp32 master weights where there are any
        state = s.trained * (s.optimizer_bytes + (4 if s.zero.stage else 0))
    limit = int(number(recipe, "save_total_limit", CHECKPOINTS, 1, 1e6, found))
    kept_checkpoints = steps.most_kept(recipe, saves, limit)
    disk = {"base": s.model.stored_bytes, "checkpoints": kept_checkpoints * (weights + state), "result": weights}
    disk = {name: value / 1e9 for name, value in disk.items()} | {"packages": PACKAGES}
    written = saves * (weights + state) + weights
    moving = disk["base"] / LOAD + written / 1e9 / SAVE
    other = START_CPU if hardware.is_cpu else START + moving / 3600
    dollars = tuple((hours + other) * price for hours, price in zip(training, hourly(hardware), strict=True))
    return Budget(
        examples=examples - cut[0],
        dropped=data.examples - examples,
        tokens=round(run.seen * mean * (examples - cut[0])),
        steps=run.steps,
        training_hours=training,
        other_hours=other,
        dollars=dollars,
        tokens_per_second=rates,
        disk=disk,
        saves=saves,
    ), found
