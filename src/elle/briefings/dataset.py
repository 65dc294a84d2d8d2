"""Sets of examples on disk: ShareGPT rows in train, validation and test files, with a manifest.

A row is that of `schema.Example`, one JSON object per line or one Parquet row. Examples are made in blocks, by one
process or several, and written in order: the bytes depend on kind, count and seed alone.
"""

import contextlib
import hashlib
import itertools
import multiprocessing
import signal
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from multiprocessing import resource_tracker
from pathlib import Path
from typing import Any

import numpy as np

from elle.base import storage
from elle.base.errors import ElleError, unknown
from elle.briefings import cic_writer, scenario, world, writer
from elle.briefings.metrics import Metrics, parse, render
from elle.briefings.scenario import BLOCK
from elle.briefings.schema import Example

SPLITS = ("train", "validation", "test")
KINDS = ("basic", "cic")
FORMATS = ("jsonl", "parquet")
MANIFEST = "manifest.json"
ROW_GROUP = 8 * BLOCK  # rows of a Parquet file that are written, and read, together

#: Versions of each kind's examples: one grows when the examples of a seed change.
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
    return _block(kind, seed, index // BLOCK)[index % BLOCK].row()


@lru_cache(1)
def _block(kind: str, seed: int, block: int) -> list[Example]:
    """The examples of a whole block, whichever of them is wanted: so their bits depend on nothing else."""
    drawer, author = _MAKERS[kind]
    rng = drawer.generator(seed, block)
    drawn = drawer.draw(rng)
    choices = rng.random((BLOCK, writer.CHOICES)).tolist()
    return [
        Example(f"{kind}-{seed}-{index}", author.SYSTEM_PROMPT, render(m), author.answer(m, writer.picker(c)))
        for index, (m, c) in enumerate(zip(drawn, choices, strict=True), block * BLOCK)
    ]


def _check(kind: str, count: int, seed: int, workers: int) -> None:
    if kind not in KINDS:
        raise unknown("data set", kind, KINDS, where="parameter kind")
    if not isinstance(count, int) or count < 20:
        what = f"{count} examples cannot fill three splits"
        raise ElleError(what, where="parameter count", fix="ask for at least 20")
    if not isinstance(seed, int) or not 0 <= seed < 2**64:
        raise ElleError(f"the seed {seed!r} is not a whole number from 0 (to 2^64 - 1)", where="parameter seed")
    if not isinstance(workers, int) or workers < 1:
        raise ElleError(f"{workers!r} workers cannot work", where="parameter workers", fix="use 1 or more")


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
    left as it is.

    Raises:
        ElleError: an unknown kind or format, a count below 20 (every split needs an example), a negative seed, less
            than one worker, or a folder that holds another set.
    """
    folder = Path(folder)
    _check(kind, count, seed, workers)
    described = {"kind": kind, "count": count, "seed": seed, "version": VERSIONS[kind]}
    described |= {} if format == "jsonl" else {"format": format}
    if storage.exists(folder / MANIFEST):
        return _made_before(folder, described)
    blocks = -(-count // BLOCK)

    def dealt(examples: Iterable[Example]) -> Iterator[tuple[str, Example]]:
        for index, example in enumerate(itertools.islice(examples, count)):
            yield split_of(index), example
            if progress and ((index + 1) % 200 == 0 or index + 1 == count):
                progress(index + 1, count)

    with _made(kind, seed, blocks, min(workers, blocks)) as made:
        return write_splits(folder, described, dealt(itertools.chain.from_iterable(made)))


def _made_before(folder: Path, described: dict) -> dict:
    """The manifest of the set in `folder`, which has to be this very one."""
    manifest = load_manifest(folder)
    if {key: manifest.get(key) for key in {*described, "format"}} == {"format": None} | described:
        return manifest
    raise ElleError(
        "this folder already holds another data set",
        where=f"{folder}: " + ", ".join(f"{key} {manifest.get(key)}" for key in described),
        fix="choose another folder, or delete this one",
    )


@contextlib.contextmanager
def _made(kind: str, seed: int, blocks: int, workers: int) -> Iterator[Iterator[list[Example]]]:
    """The examples of each of the first `blocks`, in order.

    A pipe per worker, and no pool of the library's: a pool's workers outlive a parent that is killed, and it waits for
    ever for one that is killed while it sends.
    """
    if workers == 1:
        yield (_block(kind, seed, block) for block in range(blocks))
        return
    context = multiprocessing.get_context("spawn")
    pipes, processes = [], []

    def take(block: int) -> list[Example]:
        try:
            return pipes[block % workers].recv()
        except (EOFError, OSError) as error:  # it ended between two blocks, or while it sent one
            fix = "free memory or use fewer workers, then give the same command again"
            raise ElleError("a worker ended by itself", where="parameter workers", fix=fix) from error

    # Ctrl-C is the parent's to handle: blocked now, it is blocked in the workers from their first moment. The library's
    # own helper unblocks it when it starts, so that it has to run before.
    resource_tracker.ensure_running()
    try:
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            for first in range(workers):
                here, there = context.Pipe(duplex=False)
                arguments = (kind, seed, range(first, blocks, workers), there)
                process = context.Process(target=_work, args=arguments, daemon=True)
                process.start()
                processes.append(process)
                there.close()
                pipes.append(here)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        yield map(take, range(blocks))
    finally:
        for process in processes:
            process.terminate()
            process.join()


def _work(kind: str, seed: int, blocks: Iterable[int], pipe: Any) -> None:
    """A worker: makes its blocks and hands them over; ends where its parent is gone."""
    with contextlib.suppress(BrokenPipeError):
        for block in blocks:
            pipe.send(_block(kind, seed, block))


def write_splits(folder: Path, described: dict, examples: Iterable[tuple[str, Example]]) -> dict:
    """Write (split, example) pairs into a file per split, then the manifest; return the manifest.

    All files appear, or none does. The manifest counts the rows whose prompts stand in an earlier split as well. Of two
    processes that make a set in one folder the second waits, and finds it made.
    """
    format = described.get("format", "jsonl")
    if format not in FORMATS:
        raise unknown("format", format, FORMATS, where="parameter format")
    digests = {split: bytearray() for split in SPLITS}  # eight bytes per row: a set may be large
    files = {split: folder / f"{split}.{format}" for split in SPLITS}
    with storage.locked(folder), _all_or_none(folder, list(files.values())):
        if storage.exists(folder / MANIFEST):
            return _made_before(folder, described)
        with contextlib.ExitStack() as stack:
            sinks = {split: stack.enter_context(_sink(path, format)) for split, path in files.items()}
            for split, example in examples:
                sinks[split](example.row())
                digests[split] += hashlib.blake2b(example.prompt.encode(), digest_size=8).digest()
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
def _all_or_none(folder: Path, files: list[Path]) -> Iterator[None]:
    """On a failure, remove those of `files` that are new: a full disk may be found out late."""
    new_files = [path for path in files if not storage.exists(path)]
    try:
        yield
    except BaseException:
        with contextlib.suppress(OSError):
            for path in new_files:
                path.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def _sink(path: Path, format: str) -> Iterator[Callable[[dict], Any]]:
    """A function that appends a row to a file that appears when all is well."""
    with storage.atomic(path, "wb") as file:
        if format == "jsonl":
            yield lambda row: file.write(storage.line(row).encode() + b"\n")
            return
        import pyarrow as pa
        import pyarrow.parquet

        turn = pa.struct([("from", pa.string()), ("value", pa.string())])
        schema = pa.schema([("id", pa.string()), ("conversations", pa.list_(turn))])
        waiting: list[dict] = []
        with pyarrow.parquet.ParquetWriter(file, schema, compression="zstd") as parquet:

            def flush() -> None:
                if waiting:
                    parquet.write_table(pa.Table.from_pylist(waiting, schema))
                    waiting.clear()

            def add(row: dict) -> None:
                waiting.append(row)
                if len(waiting) == ROW_GROUP:
                    flush()

            yield add
            flush()


def ensure(kind: str, count: int, seed: int, folder: Path | str, **options) -> dict:
    """The manifest of whatever set `folder` holds; where it holds none, `build` makes the one described."""
    made = storage.exists(Path(folder) / MANIFEST)
    return load_manifest(folder) if made else build(kind, count, seed, folder, **options)


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
        ElleError: unknown split, no such set, an empty split, or a row that is not an example (file and line).
    """
    rows = list(itertools.islice(rows_of(folder, split), limit))
    if not rows:
        raise ElleError("this split is empty", where=f"{folder}: {split}", fix="generate more examples")
    return rows


def rows_of(folder: Path | str, split: str) -> Iterator[dict]:
    """The rows of a split, streaming; raises as `read_split`, but for an empty one."""
    folder = Path(folder)
    manifest = load_manifest(folder)
    if split not in manifest["splits"]:
        raise unknown("split", split, manifest["splits"])
    yield from read_rows(folder / manifest["splits"][split]["file"])


def read_rows(path: Path) -> Iterator[dict]:
    """The rows of a file, JSONL or (by its name) Parquet, streaming.

    Raises:
        ElleError: it cannot be read, or a row is not an example (file and line).
    """
    for number, row in _numbered_parquet(path) if path.suffix == ".parquet" else storage.numbered(path):
        try:
            Example.of(row)
        except ElleError as error:
            fix = "regenerate the set with notebook 03_generate_data"
            raise ElleError(error.what, where=f"{path}:{number}", fix=fix) from error
        yield row


def _numbered_parquet(path: Path) -> Iterator[tuple[int, dict]]:
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            yield from enumerate((row for batch in file.iter_batches(ROW_GROUP) for row in batch.to_pylist()), 1)
    except (pyarrow.ArrowInvalid, OSError) as error:
        raise ElleError(f"cannot read: {error}", where=str(path), fix="generate the set again") from error


def metrics_of(rows: list[dict]) -> list[Metrics]:
    """The figures that the prompts of `rows` print."""
    return [parse(Example.of(row).prompt) for row in rows]


def messages(row: dict) -> list[dict[str, str]]:
    """The chat messages that ask for a row's answer: system and user, without the answer."""
    example = Example.of(row)
    return [{"role": "system", "content": example.system}, {"role": "user", "content": example.prompt}]
