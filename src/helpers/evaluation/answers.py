"""A model's outputs on disk: JSONL of `{"id": ..., "output": ...}`, from any model or server."""

from pathlib import Path

from helpers import jsonl
from helpers.errors import ElleError


def read_outputs(path: Path | str) -> dict[str, str]:
    """Row id → raw output. A line whose output is null (a request that failed) gives none: it counts as missing.

    Raises:
        ElleError: with file and line, where a line is not JSON, has no id, no text, or an id for the second time.
    """
    outputs: dict[str, str] = {}
    seen: set[str] = set()
    for number, row in enumerate(jsonl.read(path), 1):
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
