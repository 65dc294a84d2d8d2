"""Asks a server for the briefings of a data set's rows, and keeps the raw outputs."""

import hashlib
import json
import math
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

from elle.base import storage
from elle.base.errors import ElleError
from elle.briefings.dataset import messages
from elle.briefings.metrics import parse
from elle.briefings.schema import Briefing, CicBriefing, Example, json_schema
from elle.evaluation.cost import per_hour
from elle.evaluation.verdict import Record, judge
from elle.serving.client import Answer, Batch, ask

#: Of so many requests of a load measurement one is streamed: enough to see when tokens come, and not felt.
SAMPLED = 8


class ServedModel(Protocol):
    """A model behind an OpenAI-compatible server: a `Server` started here, or an `Endpoint`."""

    base_url: str  # with its /v1
    name: str  # the model's, in requests


@dataclass
class Endpoint:
    """A server that someone else started. An address without a path gets `/v1`.

    Raises:
        ElleError: the address is no http(s) URL, or carries a user name or password.
    """

    base_url: str
    name: str

    def __post_init__(self) -> None:
        parts = urlsplit(self.base_url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ElleError(
                f"not an address of a server: {self.base_url[:80]!r}",
                where="--endpoint",
                fix="give it as http://127.0.0.1:8000/v1",
            )
        if "@" in parts.netloc:
            raise ElleError(
                "an address must not carry a password", where="--endpoint", fix="set ELLE_API_KEY in the environment"
            )
        if not parts.path.strip("/"):
            self.base_url = f"{self.base_url.rstrip('/')}/v1"


@dataclass
class Verdicts:
    """What the evaluator says of answers, counted: call it with each `Record`. Nothing is repaired.

    not_json: not strictly one JSON object; not_schema: no briefing by its schema (those that are no JSON included);
    not_right: something that the evaluator checks does not hold.
    """

    answers: int = 0
    not_json: int = 0
    not_schema: int = 0
    not_right: int = 0

    def __call__(self, record: Record) -> None:
        self.answers += 1
        self.not_json += not record.counts["json_strict"][0]
        self.not_schema += not record.counts["schema"][0]
        self.not_right += not record.counts["all_right"][0]


def fingerprint(folder: Path | str) -> str:
    """What tells a model folder from the same folder retrained: a digest of its files' names, sizes and times."""
    facts = sorted((p.name, p.stat().st_size, p.stat().st_mtime_ns) for p in Path(folder).iterdir() if p.is_file())
    return _digest(facts)


def schema_of(rows: Sequence[dict]) -> dict:
    """The JSON schema of the rows' briefings: that of the basic or of the CIC set.

    Raises:
        ElleError: the rows are of both sets, or one's prompt is not in the project's format.
    """
    kinds = {parse(messages(row)[1]["content"]).cic is not None for row in rows}
    if len(kinds) != 1:
        raise ElleError(
            f"{'rows of both sets' if kinds else 'no rows'}: there is no one schema to hold them to",
            fix="evaluate the basic and the CIC set apart",
        )
    return json_schema(CicBriefing if kinds.pop() else Briefing)


def collect(
    server: ServedModel,
    rows: Sequence[dict],
    path: Path | str,
    *,
    schema: dict | None = None,
    max_tokens: int = 400,
    concurrency: int = 16,
    identity: str | None = None,
    limit: int | None = None,
    progress: Callable[[int, int], None] | None = None,
    arrived: Callable[[list[Answer]], None] | None = None,
    judged: Callable[[Record], None] | None = None,
    timeout: float = 120.0,
    retries: int = 4,
    stream: int = 0,
) -> Batch:
    """Ask for each row's briefing, greedily; keep one line a row in `path`: id, output, finish_reason, tokens, seconds,
    error, and `request`, a digest of the question.

    Each line is on disk as soon as its answer has come; an interrupt loses only what was in flight. Failed requests
    have a null output.

    Args:
        schema: the JSON schema for constrained decoding; None leaves the model free.
        identity: what the model is beyond its name, such as `fingerprint(folder)`; given (it may be empty), answers
            that `path` holds to the very same questions (model, identity, messages, max_tokens, schema) are not asked
            for again. None: `path` is made anew.
        limit: ask for the first `limit` rows only; answers to the others stay in the file.
        progress: called as `progress(done, total)`, of the questions that are asked now.
        arrived: called with the answers as they come, failed ones included, once they are on disk.
        judged: called with the evaluator's verdict on each answer as it comes, such as a `Verdicts`.
        timeout, retries, stream: as `ask` takes them.

    Returns:
        The answers in the rows' order, kept ones included; its `seconds` are those of this call.

    Raises:
        ElleError: not one request was answered; or, with an identity, `path` holds what is no answer to these
            questions: it is left as it is.
    """
    asked = rows[:limit]
    requests = {row["id"]: messages(row) for row in rows}
    if len(requests) < len(rows):
        raise ElleError("an id occurs twice in the data", fix="give the rows ids of their own")
    terms = {"model": server.name, "max_tokens": max_tokens, "schema": schema, "identity": identity}
    digests = {name: _digest(terms | {"messages": turns}) for name, turns in requests.items()}
    kept = {} if identity is None else _kept(Path(path), digests)
    todo = [(row["id"], requests[row["id"]]) for row in asked if row["id"] not in kept]

    def line(answer: Answer) -> dict:
        output = None if answer.error else answer.output
        return asdict(answer) | {"output": output, "request": digests[answer.id]}

    by_id = {row["id"]: row for row in asked}

    def keep(news: list[Answer]) -> None:
        _append(Path(path), [line(answer) for answer in news])
        if arrived:
            arrived(news)
        for answer in news if judged else ():
            if answer.error is None:
                _, _, prompt, reference = Example.of(by_id[answer.id])
                judged(judge(answer.id, prompt, reference, answer.output))

    # Failed lines go now, so that no id has two of them.
    _write(path, (line(answer) for answer in kept.values()))
    batch = ask(
        server.base_url,
        server.name,
        todo,
        max_tokens=max_tokens,
        schema=schema,
        concurrency=concurrency,
        progress=progress,
        arrived=keep,
        timeout=timeout,
        retries=retries,
        stream=stream,
    )
    found = kept | {answer.id: answer for answer in batch.answers}
    _write(path, (line(found[name]) for name in requests if name in found))
    answers = [found[row["id"]] for row in asked]
    return Batch(answers, batch.seconds, kept=frozenset(answer.id for answer in answers if answer.id in kept))


def usage(batch: Batch, dollars_per_hour: float | None = None) -> dict[str, Any]:
    """What a batch took: requests asked, kept and failed, wall-clock seconds, tokens a second, latency and, with the
    price of the server's hour, dollars a briefing (None where this call brought no answer)."""
    answered = [answer for answer in batch.answers if answer.error is None]
    fresh = [answer for answer in answered if answer.id not in batch.kept]
    dollars = per_hour(dollars_per_hour, batch.seconds, len(fresh)) if fresh and dollars_per_hour is not None else None
    return {
        "asked": len(batch.answers) - len(batch.kept),
        "kept": len(batch.kept),
        "failed": len(batch.failed),
        "seconds": round(batch.seconds, 3),
        "tokens_per_second": round(batch.tokens_per_second, 1),
        "p50": round(batch.latency(50), 3) if answered else None,
        "p95": round(batch.latency(95), 3) if answered else None,
        "dollars_a_briefing": dollars and float(f"{dollars:.4g}"),
    }


def _known(seconds: float) -> float | None:
    """To tenths of a millisecond; None where nothing was measured."""
    return None if math.isnan(seconds) else round(seconds, 4)


def _digest(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _kept(path: Path, digests: dict[str, str]) -> dict[str, Answer]:
    """The answers in `path` to the questions of `digests` (id → digest), by id.

    Raises:
        ElleError: a line that is no answer to them, the cut-off last line of an interrupted run aside.
    """
    kept: dict[str, Answer] = {}
    if not path.exists():
        return kept
    for number, text in enumerate((lines := path.read_bytes().split(b"\n")), 1):
        if not text.strip() or (number == len(lines) and not _whole(text)):
            continue
        where = f"{path}:{number}"
        row = storage.parse_line(text, where)
        name, digest = row.get("id"), row.pop("request", None)
        if name not in digests or digest != digests[name]:
            why = "asked otherwise" if name in digests and digest else "not by this command, or for other rows"
            raise ElleError(
                f"this file already holds other outputs (id {str(name)[:60]!r}: {why})",
                where=where,
                fix="name another file for these outputs, or delete this one; the model, --max-tokens, --constrained "
                "and the data must be the same for going on with it",
            )
        if row.get("error") is None:
            try:
                kept[name] = Answer(**row)
            except TypeError as error:
                raise ElleError("this line is not an answer", where=where, fix="delete the line") from error
    return kept


def _whole(text: bytes) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def _line(row: dict) -> bytes:
    """A line of JSON; a lone surrogate, which is no UTF-8, as its escape."""
    return storage.line(row).encode(errors="backslashreplace") + b"\n"


def _write(path: Path | str, rows: Iterable[dict]) -> None:
    with storage.atomic(path, "wb") as file:
        file.writelines(map(_line, rows))


def _append(path: Path, rows: list[dict]) -> None:
    """Add lines to a file, and have them on disk; one system call, so that an interrupt cuts no line."""
    try:
        with path.open("ab", buffering=0) as file:
            file.write(b"".join(map(_line, rows)))
            os.fsync(file.fileno())
    except OSError as error:
        raise ElleError(
            f"cannot write: {error.strerror or error}",
            where=str(path),
            fix="free disk space, then give the same command again: it goes on",
        ) from error


def load_table(points: Iterable[dict]) -> list[dict[str, str]]:
    """The measurements of `measure` for display, a row each; seconds are medians where nothing else is said."""
    return [
        {
            "requests at once": str(point["concurrency"]),
            "held to": "json_schema" if point["constrained"] else "nothing",
            "tokens a second": f"{point['tokens_per_second']:,.0f}",
            "whole (s)": f"{point['p50']:.2f}",
            "95 % (s)": f"{point['p95']:.2f}",
            "first token (s)": "" if point["first_token"] is None else f"{point['first_token']:.2f}",
        }
        | {name: str(point[name]) for name in ("requests", "failed", "not_json", "not_schema", "not_right")}
        for point in points
    ]


def measure_load(
    server: ServedModel,
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
        One dict a measurement (concurrency, constrained, requests, failed, seconds, tokens_per_second, p50 and p95 of
        the whole answer, first_token (p50) and inter_token (p50) in seconds, tokens an answer, and the `Verdicts`), and
        the batches by (concurrency, constrained); the raw answers are kept in `folder`.
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
            kind, verdicts = "json_schema" if constrained else "free", Verdicts()
            batch = collect(
                server,
                rows,
                folder / f"{kind}-{concurrency}.jsonl",
                schema=schema if constrained else None,
                max_tokens=max_tokens,
                concurrency=concurrency,
                progress=progress(f"{kind}, {concurrency} at once") if progress else None,
                judged=verdicts,
                stream=SAMPLED,
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
                    **{name: _known(batch.percentile(name, 50)) for name in ("first_token", "inter_token")},
                    "tokens": round(batch.completion_tokens / max(1, verdicts.answers), 1),
                    **asdict(verdicts),
                }
            )
    return points, batches
