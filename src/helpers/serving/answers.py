"""Asks a server for the briefings of a data set's rows, and keeps the raw outputs."""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

from helpers import jsonl
from helpers.briefings.dataset import messages
from helpers.serving.client import Batch, ask
from helpers.serving.server import Server


def collect(
    server: Server,
    rows: Sequence[dict],
    path: Path | str,
    *,
    schema: dict | None = None,
    max_tokens: int = 400,
    concurrency: int = 16,
    progress: Callable[[int, int], None] | None = None,
) -> Batch:
    """Ask for each row's briefing, greedily; write one line a row (id, output, tokens, seconds, error) to `path`.

    Args:
        schema: the JSON schema for constrained decoding; None leaves the model free.

    Raises:
        ElleError: not one request was answered.
    """
    requests = [(row["id"], messages(row)) for row in rows]
    batch = ask(
        server.base_url,
        server.name,
        requests,
        max_tokens=max_tokens,
        schema=schema,
        concurrency=concurrency,
        progress=progress,
    )
    jsonl.write(
        path,
        (asdict(answer) | {"output": None if answer.error else answer.output} for answer in batch.answers),
    )
    return batch


def measure(
    server: Server,
    rows: Sequence[dict],
    concurrencies: Sequence[int],
    folder: Path | str,
    *,
    schema: dict,
    max_tokens: int = 400,
    progress: Callable[[str], Callable[[int, int], None]] | None = None,
) -> tuple[list[dict], dict[tuple[int, bool], Batch]]:
    """Ask for the rows' briefings at each number of requests at once, free and constrained by `schema`.

    The first requests after a start are slower (the grammar of a schema is compiled once): both ways are asked once
    before anything is measured.

    Args:
        progress: given a label, returns a progress callback(done, total).

    Returns:
        One dict a measurement (concurrency, constrained, requests, seconds, tokens_per_second, p50 and p95 in
        seconds), and the batches by (concurrency, constrained); the raw answers are kept in `folder`.
    """
    folder = Path(folder)
    points, batches = [], {}
    for constrained in (False, True):
        ask(
            server.base_url,
            server.name,
            [("warm-up", messages(rows[0]))],
            max_tokens=max_tokens,
            schema=schema if constrained else None,
        )
    for concurrency in concurrencies:
        for constrained in (False, True):
            kind = "json_schema" if constrained else "free"
            batch = collect(
                server,
                rows,
                folder / f"{kind}-{concurrency}.jsonl",
                schema=schema if constrained else None,
                max_tokens=max_tokens,
                concurrency=concurrency,
                progress=progress(f"{kind}, {concurrency} at once") if progress else None,
            )
            batches[concurrency, constrained] = batch
            points.append(
                {
                    "concurrency": concurrency,
                    "constrained": constrained,
                    "requests": len(batch.answers),
                    "failed": len(batch.failed),
                    "seconds": round(batch.seconds, 3),
                    "tokens_per_second": round(batch.tokens_per_second, 1),
                    "p50": round(batch.latency(50), 3),
                    "p95": round(batch.latency(95), 3),
                }
            )
    return points, batches
