"""Files that are either whole or absent: atomic text and JSON, and streaming JSONL."""

import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

from elle.base.errors import ElleError


@contextlib.contextmanager
def writing(path: Path | str) -> Iterator[None]:
    """An ElleError at `path` where the system refuses what is inside: permissions, a full disk."""
    try:
        yield
    except OSError as error:
        fix = "check the folder's permissions and the free disk space"
        raise ElleError(f"cannot write: {error.strerror or error}", where=str(path), fix=fix) from error


@contextlib.contextmanager
def locked(folder: Path, *, busy: str = "") -> Iterator[None]:
    """Hold a folder, made where it is missing, until the end or the process's; others that want to hold it wait. A new
    folder that stays empty goes again.

    Raises:
        ElleError: the folder cannot be written; `busy`, where that is given, instead of waiting.
    """
    from filelock import FileLock, Timeout

    new = [place for place in (folder, *folder.parents) if not exists(place)]
    lock = FileLock(folder / ".lock")
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=0 if busy else -1)
        except Timeout as error:
            raise ElleError(busy, where=str(folder), fix="wait for it, or stop it") from error
    try:
        for left in folder.rglob(".*.*.*.partial"):  # of one that was killed while it wrote
            if (writer := left.name.split(".")[-3]).isdigit() and not exists(Path("/proc") / writer):
                left.unlink(missing_ok=True)
        yield
    finally:
        with contextlib.suppress(OSError):
            (folder / ".lock").unlink()  # before the release: who waits for it sees that it is gone, and makes another
        lock.release()
        with contextlib.suppress(OSError):
            for place in new:
                place.rmdir()


@contextlib.contextmanager
def atomic(path: Path | str, mode: str = "w") -> Iterator[IO]:
    """Open a temporary file beside `path`; on success it takes `path`'s name, on any failure it vanishes.

    Raises:
        ElleError: the folder cannot be written or the disk is full.
    """
    path = Path(path)
    temporary = None
    try:
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            encoding = None if "b" in mode else "utf-8"
            name = f".{path.name}.{os.getpid()}."  # whose it is, for `locked`
            descriptor, temporary = tempfile.mkstemp(prefix=name, suffix=".partial", dir=path.parent)
            with os.fdopen(descriptor, mode, encoding=encoding) as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            # mkstemp makes files private; a run's results are as readable as any file the user makes.
            mask = os.umask(0)
            os.umask(mask)
            os.chmod(temporary, 0o666 & ~mask)  # noqa: PTH101 (the temporary name is a string)
            os.replace(temporary, path)  # noqa: PTH105
            temporary = None
    finally:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)


def write_text(path: Path | str, text: str) -> Path:
    with atomic(path) as file:
        file.write(text)
    return Path(path)


def write_json(path: Path | str, value: Any) -> Path:
    """Strict JSON, indented (NaN and infinities are refused: no other program reads them)."""
    return write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


@contextlib.contextmanager
def _reading(path: Path | str, fix: str = "check the path") -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ElleError(f"cannot read: {error.strerror}", where=str(path), fix=fix) from error


def read_json(path: Path | str) -> Any:
    with _reading(path):
        if not Path(path).exists():
            raise ElleError("file not found", where=str(path))
        content = Path(path).read_bytes()
    try:
        return json.loads(content.decode("utf-8"))
    except (ValueError, RecursionError) as error:  # not JSON, not UTF-8, a number or a nesting without end
        raise ElleError(f"not valid JSON: {error}", where=str(path), fix="repair or regenerate the file") from error


#: A value as compact JSON on one line; made once, as `json.dumps` makes a new encoder for every row.
line = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode


def write_lines(path: Path | str, rows: Iterable[dict]) -> int:
    """Write one JSON object per line, streaming; return how many."""
    count = 0
    with atomic(path) as file:
        for row in rows:
            file.write(line(row) + "\n")
            count += 1
    return count


def read_lines(path: Path | str) -> Iterator[dict]:
    """Read one JSON object per line, streaming; blank lines are skipped.

    Raises:
        ElleError: with file and line number, where the file is missing, a line is not JSON, or not an object.
    """
    return (row for _, row in numbered(path))


def numbered(path: Path | str, *, unique: bool = False) -> Iterator[tuple[int, dict]]:
    """The same with line numbers, from 1; `unique` refuses an object that has a key twice."""
    with _reading(path), Path(path).open("rb") as file:
        for number, text in enumerate(file, 1):
            if text.strip():
                yield number, parse_line(text, f"{path}:{number}", unique=unique)


def parse_line(text: bytes, where: str, *, unique: bool = False) -> dict:
    """The object that one line holds; unique: refuse a key that is there twice (JSON by itself keeps the last one).

    Raises:
        ElleError: at `where`, it is not JSON, or not an object.
    """
    try:
        row = json.loads(text.decode("utf-8"), object_pairs_hook=_unique if unique else None)
    except (ValueError, RecursionError) as error:
        fix = "correct or delete the line (a cut-off last line means an interrupted copy)"
        raise ElleError(f"this line is not valid JSON: {error}", where=where, fix=fix) from error
    if not isinstance(row, dict):
        what = f"this line holds a JSON {type(row).__name__}, not an object"
        raise ElleError(what, where=where, fix="one object per line")
    return row


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    row = dict(pairs)
    if len(row) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the key {next(name for name in names if names.count(name) > 1)!r} appears twice")
    return row


def sha256(path: Path | str) -> str:
    with _reading(path), Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def exists(path: Path | str) -> bool:
    """Whether there is such a file or folder; an ElleError where that cannot be found out (`Path.exists` may crash)."""
    with _reading(path, fix="check the path, and the permissions of its folder"):
        return Path(path).exists()
