"""Sets of examples on disk: ShareGPT rows in train, validation and test files, with a manifest.

Row: `{"id": "basic-42-17", "conversations": [{"from": ..., "value": ...}, ...]}`, one JSON object a line (or a Parquet
row). A set is made in parts of `PART` examples under `parts/`, by one process or several, each part written whole or
not at all: what was finished before an interruption is kept. The parts are then dealt out to the splits, in order, so
that the bytes depend on kind, count and seed alone.
"""

import contextlib
import hashlib
import itertools
import json
import multiprocessing
import multiprocessing.connection
import shutil
import signal
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from elle.base import storage
from elle.base.errors import ElleError, unknown
from elle.briefings import cic_writer, scenario, world, writer
from elle.briefings.metrics import Metrics, parse
from elle.briefings.scenario import BLOCK

SPLITS = ("train", "validation", "test")
KINDS = ("basic", "cic")
FORMATS = ("jsonl", "parquet")
MANIFEST = "manifest.json"
PART = 8 * BLOCK

#: Of the examples of a kind: it grows when those of a seed change, so that parts and sets of another one are not mixed.
VERSIONS = {"basic": 2, "cic": 1}

_MAKERS = {"basic": (scenario, writer), "cic": (world, cic_writer)}

Progress = Callable[[int, int], None]


def split_of(index: int) -> str:
    """The split of scenario `index`: of twenty consecutive ones, the first is test, the second validation.

    It depends on the index alone, so that a set grows without an example changing sides.
    """
    return {0: "test", 1: "validation"}.get(index % 20, "train")


def row(kind: str, seed: int, index: int) -> dict:
    """Example `index` of (kind, seed)."""
    conversation = _block(kind, seed, index // BLOCK)[index % BLOCK]
    return {"id": f"{kind}-{seed}-{index}", "conversations": conversation}


@lru_cache(1)
def _block(kind: str, seed: int, block: int) -> list[list[dict[str, str]]]:
    """The conversations of a whole block, whichever of them is asked for: so their bits depend on nothing else."""
    drawer, author = _MAKERS[kind]
    rng = drawer.generator(seed, block)
    drawn = drawer.draw(rng)
    choices = rng.random((BLOCK, writer.CHOICES)).tolist()
    return [author.conversation(m, writer.picker(c)) for m, c in zip(drawn, choices, strict=True)]


def build(
    kind: str,
    count: int,
    seed: int,
    folder: Path | str,
    *,
    workers: int = 1,
    format: str = "jsonl",
    progress: Progress | None = None,
) -> dict:
    """Make `count` examples in `folder`, or find them made; return the manifest.

    Same bytes for the same arguments, whatever the number of workers. A folder that already holds this very set is
    left as it is; one that holds finished parts of it is gone on with.

    Raises:
        ElleError: an unknown kind or format, a count below 20 (every split needs an example), a negative seed, less
            than one worker, or a folder that holds another set.
    """
    folder = Path(folder)
    if kind not in KINDS:
        raise unknown("data set", kind, KINDS, where="parameter kind")
    if format not in FORMATS:
        raise unknown("format", format, FORMATS, where="parameter format")
    if not isinstance(count, int) or count < 20:
        raise ElleError(
            f"{count} examples cannot fill three splits", where="parameter count", fix="ask for at least 20"
        )
    if not isinstance(seed, int) or not 0 <= seed < 2**64:
        raise ElleError(f"the seed {seed!r} is not a whole number from 0 (to 2^64 - 1)", where="parameter seed")
    if not isinstance(workers, int) or workers < 1:
        raise ElleError(f"{workers!r} workers cannot work", where="parameter workers", fix="use 1 or more")
    asked = {"kind": kind, "count": count, "seed": seed, "version": VERSIONS[kind]}
    asked |= {} if format == "jsonl" else {"format": format}
    if storage.exists(folder / MANIFEST):
        manifest = load_manifest(folder)
        if {key: manifest.get(key) for key in {*asked, "format"}} == {"format": None} | asked:
            _remove(folder / "parts")  # of a process that was killed between its last two steps
            return manifest
        raise ElleError(
            "this folder already holds another data set",
            where=f"{folder}: " + ", ".join(f"{key} {manifest.get(key)}" for key in asked),
            fix="choose another folder, or delete this one",
        )

    parts = folder / "parts"
    if not storage.exists(parts / "asked.json") or storage.read_json(parts / "asked.json") != asked:
        _remove(parts)
        storage.write_json(parts / "asked.json", asked)
    for place in (parts, folder):
        _sweep(place)
    numbers = range(-(-count // PART))
    missing = [number for number in numbers if not _part(parts, number).exists()]
    _make_parts(kind, seed, count, parts, missing, workers, progress)

    def lines() -> Iterator[tuple[str, bytes]]:
        for number in numbers:
            path, index, line = _part(parts, number), number * PART - 1, b""
            with path.open("rb") as file:
                for index, line in enumerate(file, number * PART):
                    yield split_of(index), line
            if index + 1 != min(count, (number + 1) * PART) or not line.endswith(b"\n"):
                fix = "delete it and give the same command again"
                raise ElleError("this part of the set is damaged", where=f"{path}:{index % PART + 1}", fix=fix)

    manifest = write_splits(folder, asked, lines())
    _remove(parts)
    return manifest


def _remove(parts: Path) -> None:
    with _removing(parts):
        if parts.is_dir():
            shutil.rmtree(parts)


@contextlib.contextmanager
def _removing(what: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ElleError(f"cannot remove: {error.strerror}", where=str(what), fix="delete it yourself") from error


def _part(parts: Path, number: int) -> Path:
    return parts / f"{number:06d}.jsonl"


def _make_parts(
    kind: str, seed: int, count: int, parts: Path, missing: list[int], workers: int, progress: Progress | None
) -> None:
    sizes = {number: min(count, (number + 1) * PART) - number * PART for number in missing}
    done = count - sum(sizes.values())
    if workers == 1 or len(missing) < 2:
        for number in missing:
            done = _make_part(kind, seed, count, parts, number, progress, done)
        return
    # Not a pool: its workers would outlive a parent that is killed. These end when there is nobody to tell.
    context = multiprocessing.get_context("spawn")
    pipes, processes = {}, []
    try:
        for worker in range(min(workers, len(missing))):
            here, there = context.Pipe(duplex=False)
            arguments = (kind, seed, count, parts, missing[worker::workers], there)
            processes.append(context.Process(target=_work, args=arguments, daemon=True))
            processes[-1].start()
            there.close()
            pipes[here] = processes[-1]
        while pipes:
            for pipe in multiprocessing.connection.wait(list(pipes)):
                try:
                    told = pipe.recv()
                except EOFError:
                    process = pipes.pop(pipe)
                    process.join()
                    if process.exitcode:
                        raise ElleError(
                            f"a worker ended by itself (exit code {process.exitcode})",
                            where=str(parts.parent),
                            fix="free memory or use fewer workers, then give the same command again: it goes on",
                        ) from None
                    continue
                if isinstance(told, ElleError):
                    raise told
                done += sizes[told]
                if progress:
                    progress(done, count)
    finally:
        for process in processes:
            process.terminate()
            process.join()
        _sweep(parts)


def _sweep(folder: Path) -> None:
    """Remove what processes that were ended in the middle of a file left of it."""
    for left in folder.glob(".*.partial"):
        with _removing(left):
            left.unlink(missing_ok=True)


def _work(kind: str, seed: int, count: int, parts: Path, numbers: list[int], pipe: Any) -> None:
    """A worker: makes its parts and tells of each; ends where its parent is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    with contextlib.suppress(BrokenPipeError):
        try:
            for number in numbers:
                _make_part(kind, seed, count, parts, number)
                pipe.send(number)
        except ElleError as error:
            pipe.send(error)


def _make_part(
    kind: str, seed: int, count: int, parts: Path, number: int, progress: Progress | None = None, done: int = 0
) -> int:
    """Write one part; return how many examples are done with it, `done` being those before."""
    stop = min(count, (number + 1) * PART)

    def rows() -> Iterator[dict]:
        nonlocal done
        for index in range(number * PART, stop):
            yield row(kind, seed, index)
            done += 1
            if progress and (done % 200 == 0 or done == count):
                progress(done, count)

    storage.write_lines(_part(parts, number), rows())
    return done


def write_splits(folder: Path, described: dict, lines: Iterable[tuple[str, bytes]]) -> dict:
    """Write (split, row as a line of JSON) pairs into a file a split, then the manifest; return the manifest.

    All files appear, or none does. The rows' prompts are counted that stand in a split before theirs as well.
    """
    format = described.get("format", "jsonl")
    if format not in FORMATS:
        raise unknown("format", format, FORMATS, where="parameter format")
    digests = {split: bytearray() for split in SPLITS}  # eight bytes a row: a set may be large
    files = {split: folder / f"{split}.{format}" for split in SPLITS}
    with _all_or_none(list(files.values())):
        with contextlib.ExitStack() as stack:
            sinks = {split: stack.enter_context(_sink(path, format)) for split, path in files.items()}
            for split, line in lines:
                sinks[split](line)
                # The prompt as the line spells it: what lies between these marks, whatever the text.
                prompt = line.partition(b'{"from":"human","value":"')[2].partition(b'"},{"from":"gpt"')[0]
                digests[split] += hashlib.blake2b(prompt, digest_size=8).digest()
        shared, before = 0, np.zeros(0, np.uint64)
        for split in SPLITS:
            here = np.frombuffer(digests[split], np.uint64)
            shared += int(np.isin(here, before).sum())
            before = np.union1d(before, here)
        splits = {
            split: {"file": path.name, "rows": len(digests[split]) // 8, "sha256": storage.sha256(path)}
            for split, path in files.items()
        }
        manifest = described | {"splits": splits, "prompts_shared_between_splits": shared}
        storage.write_json(folder / MANIFEST, manifest)
    return manifest


@contextlib.contextmanager
def _all_or_none(files: list[Path]) -> Iterator[None]:
    """On a failure, remove those of `files` that are new: a full disk may be found out when some have their names."""
    new = [path for path in files if not storage.exists(path)]
    try:
        yield
    except BaseException:
        for path in new:
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def _sink(path: Path, format: str) -> Iterator[Callable[[bytes], Any]]:
    """A function that appends one row, given as a line of JSON, to a file that appears when all is well."""
    with storage.atomic(path, "wb") as file:
        if format == "jsonl":
            yield file.write
            return
        import pyarrow as pa
        import pyarrow.parquet

        turn = pa.struct([("from", pa.string()), ("value", pa.string())])
        schema = pa.schema([("id", pa.string()), ("conversations", pa.list_(turn))])
        waiting: list[dict] = []
        with pyarrow.parquet.ParquetWriter(file, schema, compression="zstd") as parquet:

            def add(line: bytes) -> None:
                waiting.append(json.loads(line))
                if len(waiting) == PART:
                    flush()

            def flush() -> None:
                if waiting:
                    parquet.write_table(pa.Table.from_pylist(waiting, schema))
                    waiting.clear()

            yield add
            flush()


def ensure(kind: str, count: int, seed: int, folder: Path | str, **options) -> dict:
    """The manifest of whatever set `folder` holds; where it holds none, `build` makes the one described."""
    return (
        load_manifest(folder)
        if storage.exists(Path(folder) / MANIFEST)
        else build(kind, count, seed, folder, **options)
    )


def load_manifest(folder: Path | str) -> dict:
    """The manifest of the set in `folder`.

    Raises:
        ElleError: there is none, or it does not describe the files of a set.
    """
    path = Path(folder) / MANIFEST
    if not storage.exists(path):
        raise ElleError("no data set here", where=str(folder), fix="run notebook 03_generate_data")
    manifest = storage.read_json(path)
    splits = manifest.get("splits") if isinstance(manifest, dict) else None
    if not isinstance(splits, dict) or not splits or not all(map(_is_file, splits.values())):
        raise ElleError(
            "this manifest does not describe the files of a data set",
            where=str(path),
            fix="make the set again, in another folder",
        )
    return manifest


def _is_file(facts: Any) -> bool:
    types = {"file": str, "rows": int, "sha256": str}
    described = isinstance(facts, dict) and all(isinstance(facts.get(key), kind) for key, kind in types.items())
    return described and Path(facts["file"]).name == facts["file"]  # of this folder


def read_split(folder: Path | str, split: str, limit: int | None = None) -> list[dict]:
    """The rows of a split, at most `limit` of them.

    Raises:
        ElleError: unknown split, no such set, an empty split, or a row that is no example (file and line).
    """
    rows = list(itertools.islice(rows_of(folder, split), limit))
    if not rows:
        raise ElleError("this split is empty", where=f"{folder}: {split}", fix="generate more examples")
    return rows


def rows_of(folder: Path | str, split: str) -> Iterator[dict]:
    """The rows of a split, streaming.

    Raises:
        ElleError: unknown split, no such set, or a row that is no example (file and line).
    """
    folder = Path(folder)
    manifest = load_manifest(folder)
    if split not in manifest["splits"]:
        raise unknown("split", split, manifest["splits"])
    yield from read_rows(folder / manifest["splits"][split]["file"])


def read_rows(path: Path) -> Iterator[dict]:
    """The rows of a file, JSONL or (by its name) Parquet, streaming.

    Raises:
        ElleError: it cannot be read, or a row is no example (file and line).
    """
    expected = [(speaker, str) for speaker in ("system", "human", "gpt")]
    for number, example in _read(path):
        turns = example.get("conversations")
        turns = turns if isinstance(turns, list) else []
        if [(t.get("from"), type(t.get("value"))) if isinstance(t, dict) else t for t in turns] != expected:
            raise ElleError(
                "this row is not a system, human, gpt conversation",
                where=f"{path}:{number}",
                fix="regenerate the set with notebook 03_generate_data",
            )
        yield example


def _read(path: Path) -> Iterator[tuple[int, dict]]:
    """The rows with their line numbers; in Parquet, with their places, from 1."""
    if path.suffix != ".parquet":
        yield from storage.numbered(path)
        return
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            yield from enumerate((row for batch in file.iter_batches(PART) for row in batch.to_pylist()), 1)
    except (pyarrow.ArrowInvalid, OSError) as error:
        raise ElleError(f"cannot read: {error}", where=str(path), fix="generate the set again") from error


def metrics_of(rows: list[dict]) -> list[Metrics]:
    """The figures that the prompts of `rows` print."""
    return [parse(example["conversations"][1]["value"]) for example in rows]


def messages(example: dict) -> list[dict[str, str]]:
    """The chat messages that ask for an example's answer: system and user, without the answer."""
    system, human, _ = example["conversations"]
    return [{"role": "system", "content": system["value"]}, {"role": "user", "content": human["value"]}]
