"""Sets of examples on disk: ShareGPT rows in train, validation and test files, with a manifest.

Row: `{"id": "basic-42-17", "conversations": [{"from": ..., "value": ...}, ...]}`, one JSON object a line.
"""

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path

from helpers import jsonl
from helpers.briefings import scenario, writer
from helpers.briefings.metrics import Metrics, parse
from helpers.errors import ElleError, unknown

SPLITS = ("train", "validation", "test")
KINDS = ("basic",)
MANIFEST = "manifest.json"


def split_of(index: int) -> str:
    """The split of scenario `index`: of twenty consecutive ones, the first is test, the second validation.

    It depends on the index alone, so that a set grows without an example changing sides.
    """
    return {0: "test", 1: "validation"}.get(index % 20, "train")


def row(kind: str, seed: int, index: int) -> dict:
    """Example `index` of (kind, seed)."""
    rng = scenario.generator(seed, index)
    metrics = scenario.draw(rng)
    return {"id": f"{kind}-{seed}-{index}", "conversations": writer.conversation(metrics, rng)}


def build(
    kind: str, count: int, seed: int, folder: Path | str, *, progress: Callable[[int, int], None] | None = None
) -> dict:
    """Make `count` examples in `folder`, or find them made; return the manifest.

    Same bytes for the same arguments. A folder that already holds this very set is left as it is.

    Raises:
        ElleError: an unknown kind, a count below 20 (every split needs an example), a negative seed, or a folder
            that holds another set.
    """
    folder = Path(folder)
    if kind not in KINDS:
        raise unknown("data set", kind, KINDS, where="parameter kind")
    if not isinstance(count, int) or count < 20:
        raise ElleError(
            f"{count} examples cannot fill three splits", where="parameter count", fix="ask for at least 20"
        )
    if not isinstance(seed, int) or seed < 0:
        raise ElleError(f"the seed {seed!r} is not a whole number from 0", where="parameter seed")
    asked = {"kind": kind, "count": count, "seed": seed, "version": 1}
    if (folder / MANIFEST).exists():
        manifest = load_manifest(folder)
        if {key: manifest.get(key) for key in asked} == asked:
            return manifest
        raise ElleError(
            "this folder already holds another data set",
            where=f"{folder}: {manifest.get('kind')}, {manifest.get('count')} examples, seed {manifest.get('seed')}",
            fix="choose another folder, or delete this one",
        )

    seen: dict[bytes, str] = {}
    shared = 0
    files = {}
    for split in SPLITS:
        indices = [index for index in range(count) if split_of(index) == split]

        def rows(split: str = split, indices: list[int] = indices) -> Iterator[dict]:
            nonlocal shared
            for done, index in enumerate(indices, 1):
                example = row(kind, seed, index)
                prompt = hashlib.blake2b(example["conversations"][1]["value"].encode(), digest_size=12).digest()
                shared += seen.setdefault(prompt, split) != split
                yield example
                if progress and (done % 200 == 0 or done == len(indices)):
                    progress(done, len(indices))

        path = folder / f"{split}.jsonl"
        files[split] = {"file": path.name, "rows": jsonl.write(path, rows()), "sha256": jsonl.sha256(path)}
    manifest = asked | {"splits": files, "prompts_shared_between_splits": shared}
    jsonl.write_json(folder / MANIFEST, manifest)
    return manifest


def ensure(kind: str, count: int, seed: int, folder: Path | str, **options) -> dict:
    """The manifest of whatever set `folder` holds; where it holds none, `build` makes the one described."""
    return load_manifest(folder) if (Path(folder) / MANIFEST).exists() else build(kind, count, seed, folder, **options)


def load_manifest(folder: Path | str) -> dict:
    path = Path(folder) / MANIFEST
    if not path.exists():
        raise ElleError("no data set here", where=str(folder), fix="run notebook 03_generate_data")
    return jsonl.read_json(path)


def read_split(folder: Path | str, split: str, limit: int | None = None) -> list[dict]:
    """The rows of a split, at most `limit` of them.

    Raises:
        ElleError: unknown split, no such set, an empty split, or a row that is no example (file and line).
    """
    folder = Path(folder)
    manifest = load_manifest(folder)
    if split not in manifest["splits"]:
        raise unknown("split", split, manifest["splits"])
    path = folder / manifest["splits"][split]["file"]
    rows: list[dict] = []
    for number, example in enumerate(jsonl.read(path), 1):
        if limit is not None and len(rows) == limit:
            break
        turns = example.get("conversations")
        if not isinstance(turns, list) or [t.get("from") for t in turns if isinstance(t, dict)] != [
            "system",
            "human",
            "gpt",
        ]:
            raise ElleError(
                "this row is not a system, human, gpt conversation",
                where=f"{path}:{number}",
                fix="regenerate the set with notebook 03_generate_data",
            )
        rows.append(example)
    if not rows:
        raise ElleError("this split is empty", where=str(path), fix="generate more examples")
    return rows


def metrics_of(rows: list[dict]) -> list[Metrics]:
    """The figures that the prompts of `rows` print."""
    return [parse(example["conversations"][1]["value"]) for example in rows]


def messages(example: dict) -> list[dict[str, str]]:
    """The chat messages that ask for an example's answer: system and user, without the answer."""
    system, human, _ = example["conversations"]
    return [{"role": "system", "content": system["value"]}, {"role": "user", "content": human["value"]}]
