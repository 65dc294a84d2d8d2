"""Asks a server for the briefings of a data set's rows, and keeps the raw outputs."""

import contextlib
import hashlib
import itertools
import json
import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from elle.base import paths, storage
from elle.base.errors import ElleError
from elle.base.secrets import parts_of
from elle.briefings.dataset import messages
from elle.briefings.metrics import parse
from elle.briefings.schema import Briefing, CicBriefing, json_schema
from elle.evaluation.cost import per_hour
from elle.evaluation.verdict import Record, judge
from elle.serving.client import Answer, AskOptions, Batch, ask

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
        ElleError: the address is not an http(s) URL, or carries a user name or password.
    """

    base_url: str
    name: str

    def __post_init__(self) -> None:
        parts = parts_of(self.base_url, "--endpoint")
        if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc:
            fix = "give it as http://127.0.0.1:8000/v1; a key belongs in ELLE_API_KEY"
            raise ElleError("not an address of a server, or one with a password", where="--endpoint", fix=fix)
        if not parts.path.strip("/"):
            self.base_url = f"{self.base_url.rstrip('/')}/v1"


@dataclass
class Verdicts:
    """What the evaluator says of answers, counted: call it with each `Record`. Nothing is repaired.

    not_json: not strictly one JSON object; not_schema: not a briefing by its schema (those that are not JSON included);
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
    identity: str | None = None,
    limit: int | None = None,
    progress: Callable[[int, int], None] | None = None,
    arrived: Callable[[list[Answer]], None] | None = None,
    judged: Callable[[Record], None] | None = None,
    **options: Any,
) -> Batch:
    """Ask for each row's briefing; keep one line per row in `path`: the answer's fields, and `request`, a digest of the
    question. The output of a failed request is null. Each line is on disk as soon as its answer has come.

    Args:
        identity: what the model is beyond its name, such as a digest of its weights; given (it may be empty), answers
            that `path` holds to the very same questions (model, identity, messages, max_tokens, schema) are not asked
            for again. None: `path` is made anew.
        limit: ask for the first `limit` rows only; answers to the others stay in the file.
        progress: called as `progress(done, total)`, of the questions that are asked now.
        arrived: called with the answers as they come, failed ones included, once they are on disk.
        judged: called with the evaluator's verdict on each answer as it comes, such as a `Verdicts`.
        options: those of `AskOptions`.

    Returns:
        The answers in the rows' order, kept ones included; its `seconds` are those of this call.

    Raises:
        ElleError: not one request was answered; or, with an identity, `path` holds what is not an answer to these
            questions: it is left as it is.
    """
    requests, asking = {row["id"]: messages(row) for row in rows}, AskOptions(**options)
    if len(requests) < len(rows):
        raise ElleError("an id occurs twice in the data", fix="give the rows ids of their own")
    terms = {"model": server.name, "max_tokens": asking.max_tokens, "schema": asking.schema, "identity": identity}
    terms |= {"temperature": asking.temperature} if asking.temperature else {}
    file = _AnswersFile(Path(path), {name: _digest(terms | {"messages": each}) for name, each in requests.items()})
    kept = {} if identity is None else file.read()
    references = {row["id"]: [turn["value"] for turn in row["conversations"][1:]] for row in rows[:limit]}

    def keep(news: list[Answer]) -> None:
        file.append(news)
        if arrived:
            arrived(news)
        for answer in news if judged else ():
            if answer.error is None:
                judged(judge(answer.id, *references[answer.id], answer.output))

    file.write(kept.values())  # failed lines go now, so that no id has two of them
    questions = [(name, requests[name]) for name in references if name not in kept]
    batch = ask(server.base_url, server.name, questions, progress=progress, arrived=keep, **options)
    found = kept | {answer.id: answer for answer in batch.answers}
    file.write(found[name] for name in requests if name in found)
    return Batch([found[name] for name in references], batch.seconds, kept=frozenset(kept.keys() & references.keys()))


def outputs_file(data: Path, model: str, constrained: bool) -> Path:
    """Where outputs are kept by default: a name for the model and the data."""
    name = f"{model}-{data.parent.name if data.stem in ('test', 'train') else data.stem}"
    name = "".join(letter if letter.isalnum() or letter in "-_." else "-" for letter in name)
    return paths.runs() / "evaluate" / f"{name}{'-constrained' if constrained else ''}.jsonl"


def collect_outputs(
    endpoint: Endpoint,
    rows: Sequence[dict],
    file: Path,
    *,
    constrained: bool = False,
    price: float | None = None,
    port: int | None = None,
    **options: Any,
) -> Batch:
    """`collect`, with its `options`; what `file` holds already is not asked for again.

    constrained: held to the JSON schema of the rows' briefings; price: dollars per hour of the server; port: where
    Prometheus may count.
    """
    from elle.serving.exporter import Exporter

    options |= {"schema": schema_of(rows)} if constrained else {}
    with contextlib.ExitStack() as stack:
        if port:
            seen = stack.enter_context(Exporter(port, server=endpoint.base_url, dollars_per_hour=price))
            options |= {"arrived": seen.arrived, "judged": seen.judged}
        return collect(endpoint, rows, file, identity="", **options)


def usage(batch: Batch, dollars_per_hour: float | None = None) -> dict[str, Any]:
    """What a batch took: requests asked, kept and failed, wall-clock seconds, tokens per second, latency and, with the
    price of the server's hour, dollars per briefing (None where this call brought no answer)."""
    fresh = sum(answer.error is None and answer.id not in batch.kept for answer in batch.answers)
    dollars = per_hour(dollars_per_hour, batch.seconds, fresh) if fresh and dollars_per_hour is not None else None
    return {
        "asked": len(batch.answers) - len(batch.kept),
        "kept": len(batch.kept),
        "failed": len(batch.failed),
        "seconds": round(batch.seconds, 3),
        "tokens_per_second": round(batch.tokens_per_second, 1),
        "p50": _rounded(batch.latency(50), 3),
        "p95": _rounded(batch.latency(95), 3),
        "dollars_a_briefing": dollars and float(f"{dollars:.4g}"),
    }


def _rounded(seconds: float, digits: int) -> float | None:
    """None where nothing was measured."""
    return None if math.isnan(seconds) else round(seconds, digits)


def _digest(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class _AnswersFile:
    """The answers to the questions of `digests` (id → digest), one JSON object per line."""

    path: Path
    digests: Mapping[str, str]

    def read(self) -> dict[str, Answer]:
        """The answers that it holds, by id; failed ones are left out, and the cut-off last line of an interrupted run.

        Raises:
            ElleError: a line that is not an answer to these questions.
        """
        kept: dict[str, Answer] = {}
        lines = self.path.read_bytes().split(b"\n") if self.path.exists() else []
        for number, text in enumerate(lines, 1):
            where = f"{self.path}:{number}"
            if not text.strip():
                continue
            try:
                row = storage.parse_line(text, where)
            except ElleError:
                if number < len(lines):
                    raise
                break
            name, digest = row.get("id"), row.pop("request", None)
            if name not in self.digests or digest != self.digests[name]:
                why = "asked otherwise" if name in self.digests and digest else "not by this command, or for other rows"
                raise ElleError(
                    f"this file already holds other outputs (id {str(name)[:60]!r}: {why})",
                    where=where,
                    fix="name another file for these outputs, or delete this one; the model, --max-tokens, "
                    "--constrained and the data must be the same for going on with it",
                )
            if row.get("error") is None:
                try:
                    kept[name] = Answer(**row)
                except TypeError as error:
                    raise ElleError("this line is not an answer", where=where, fix="delete the line") from error
        return kept

    def write(self, answers: Iterable[Answer]) -> None:
        with storage.atomic(self.path, "wb") as file:
            file.writelines(map(self._line, answers))

    def append(self, answers: list[Answer]) -> None:
        """Add answers, and have them on disk; one system call, so that an interrupt cuts no line."""
        try:
            with self.path.open("ab", buffering=0) as file:
                file.write(b"".join(map(self._line, answers)))
                os.fsync(file.fileno())
        except OSError as error:
            fix = "free disk space, then give the same command again: it goes on"
            raise ElleError(f"cannot write: {error.strerror or error}", where=str(self.path), fix=fix) from error

    def _line(self, answer: Answer) -> bytes:
        """A line of JSON; a lone surrogate, which is not UTF-8, as its escape."""
        row = asdict(answer) | {"request": self.digests[answer.id]}
        row["output"] = None if answer.error else answer.output
        return storage.line(row).encode(errors="backslashreplace") + b"\n"


def load_table(points: Iterable[dict]) -> list[dict[str, str]]:
    """The measurements of `measure_load` for display, a row each; seconds are medians where nothing else is said."""
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

    Args:
        progress: given a label, returns a progress callback(done, total).

    Returns:
        One dict per measurement (concurrency, constrained, requests, failed, seconds, tokens_per_second; in seconds
        p50 and p95 of the whole answer, and first_token and inter_token (p50); tokens per answer, and the `Verdicts`),
        and the batches by (concurrency, constrained); the raw answers are kept in `folder`.
    """
    points, batches = [], {}
    for held in (None, schema):  # the first requests after a start are slower: a schema's grammar is compiled once
        ask(server.base_url, server.name, [("warm-up", messages(rows[0]))], max_tokens=max_tokens, schema=held)
    for concurrency, held in itertools.product(concurrencies, (None, schema)):
        kind, verdicts = "json_schema" if held else "free", Verdicts()
        batch = collect(
            server,
            rows,
            Path(folder) / f"{kind}-{concurrency}.jsonl",
            progress=progress(f"{kind}, {concurrency} at once") if progress else None,
            judged=verdicts,
            schema=held,
            max_tokens=max_tokens,
            concurrency=concurrency,
            stream=SAMPLED,
        )
        batches[concurrency, held is not None], took = batch, usage(batch)
        points.append(
            {
                "concurrency": concurrency,
                "constrained": held is not None,
                "requests": len(batch.answers),
                **{name: took[name] for name in ("failed", "seconds", "tokens_per_second", "p50", "p95")},
                "first_token": _rounded(batch.latency(50, "first_token"), 4),
                "inter_token": _rounded(batch.latency(50, "inter_token"), 4),
                "tokens": round(batch.completion_tokens / max(1, verdicts.answers), 1),
                **asdict(verdicts),
            }
        )
    return points, batches
