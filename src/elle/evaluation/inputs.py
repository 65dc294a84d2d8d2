"""What an evaluation reads: rows with their references, and a model's outputs, JSONL of `{"id": ..., "output": ...}`
from any model or server."""

from pathlib import Path

from elle.base import storage
from elle.base.errors import ElleError
from elle.briefings import dataset


def read_test_rows(path: Path | str) -> list[dict]:
    """The rows of a JSONL or Parquet file, or the test split of a data set's folder.

    Raises:
        ElleError: there is no such file or set, it holds nothing, or a row is not an example (file and line).
    """
    path = Path(path)
    rows = list(dataset.rows_of(path, "test") if path.is_dir() else dataset.read_rows(path))
    if not rows:
        raise ElleError("there is nothing to evaluate: no rows", where=str(path), fix="give at least one row")
    return rows


def read_outputs(path: Path | str) -> dict[str, str]:
    """Row id → raw output. A line whose output is null (a request that failed) gives none: it counts as missing.

    Raises:
        ElleError: with file and line, where a line is not JSON, has no id, no text, or an id for the second time.
    """
    outputs: dict[str, str] = {}
    seen: set[str] = set()
    for number, row in enumerate(storage.read_lines(path), 1):
        name, output = row.get("id"), row.get("output")
        where = f"{path}, entry {number}"
        if not isinstance(name, str) or "output" not in row or not isinstance(output, str | None):
            raise ElleError("this line is not an output", where=where, fix='write {"id": "...", "output": "..."}')
        if name in seen:
            raise ElleError(f"the id {name!r} appears twice", where=where, fix="keep one output for each row")
        seen.add(name)
        if output is not None:
            outputs[name] = output
    return outputs
