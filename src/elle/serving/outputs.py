"""A model's outputs for a data set's rows, asked of a server that runs: one line each in a file, as they arrive."""

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from elle.base import paths
from elle.serving import answers, exporter
from elle.serving.client import Batch


@dataclass(frozen=True)
class OutputsRequest:
    """Which server is asked, and how. price: dollars per hour of the server; port: where Prometheus may count."""

    endpoint: str  # the address
    model: str  # its name there
    limit: int | None = None  # only the first rows
    concurrency: int = 16
    max_tokens: int = 700
    constrained: bool = False  # held to the JSON schema of the rows' briefings
    price: float | None = None
    port: int | None = None

    def file(self, data: Path) -> Path:
        """Where the outputs go by default: a name for the model and the data."""
        name = f"{self.model}-{data.parent.name if data.stem in ('test', 'train') else data.stem}"
        name = "".join(letter if letter.isalnum() or letter in "-_." else "-" for letter in name)
        return paths.runs() / "evaluate" / f"{name}{'-constrained' if self.constrained else ''}.jsonl"


def collect_outputs(
    rows: Sequence[dict], file: Path, request: OutputsRequest, progress: Callable[[int, int], None] | None = None
) -> Batch:
    """The answers to the rows, kept in `file`; what it holds already is not asked for again.

    Raises:
        ElleError: what `Endpoint`, `Exporter` and `collect` raise.
    """
    server = answers.Endpoint(request.endpoint, request.model)
    seen = (
        exporter.Exporter(request.port, server=server.base_url, dollars_per_hour=request.price)
        if request.port
        else None
    )
    with seen or contextlib.nullcontext():
        return answers.collect(
            server,
            rows,
            file,
            schema=answers.schema_of(rows) if request.constrained else None,
            max_tokens=request.max_tokens,
            concurrency=request.concurrency,
            identity="",
            limit=request.limit,
            progress=progress,
            arrived=seen and seen.arrived,
            judged=seen and seen.judged,
        )
