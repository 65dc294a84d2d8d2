"""Asks a model behind an OpenAI-compatible server many questions at once, and says what came of each."""

import asyncio
import contextlib
import ipaddress
import os
import queue
import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from elle.base.errors import ElleError

Request = tuple[str, list[dict]]  # (id, chat messages with role and content)


@dataclass(frozen=True)
class Answer:
    """One request's end: an output, or the reason why there is none."""

    id: str
    output: str
    finish_reason: str  # "stop"; "length": cut off at max_tokens; "" where there was an error
    prompt_tokens: int
    completion_tokens: int
    seconds: float  # from the first attempt to the last byte: retries and their pauses included
    error: str | None = None
    first_token: float | None = None  # streamed: seconds from sending the attempt that was answered to its first token
    inter_token: float | None = None  # streamed: mean seconds from one token to the next; of one token: None


@dataclass(frozen=True)
class Batch:
    """All answers, in the order of the requests, and the wall-clock `seconds` that they took together; but for those
    of the ids in `kept`, which an earlier batch brought."""

    answers: list[Answer]
    seconds: float
    kept: frozenset[str] = frozenset()

    @property
    def failed(self) -> list[Answer]:
        return [answer for answer in self.answers if answer.error is not None]

    @property
    def completion_tokens(self) -> int:
        return sum(answer.completion_tokens for answer in self.answers)

    @property
    def tokens_per_second(self) -> float:
        """Completion tokens a second of wall-clock time, all requests together (kept answers took none of it)."""
        tokens = sum(answer.completion_tokens for answer in self.answers if answer.id not in self.kept)
        return tokens / self.seconds if self.seconds else 0.0

    def latency(self, percent: float) -> float:
        """Seconds within which `percent` (0 to 100) of the answered requests ended (nearest rank); NaN if none was."""
        return self.percentile("seconds", percent)

    def percentile(self, name: str, percent: float) -> float:
        """The same of `seconds`, `first_token` or `inter_token`, over the answers that have it."""
        found = (getattr(answer, name) for answer in self.answers if answer.error is None)
        times = sorted(time for time in found if time is not None)
        return times[max(0, -int(-len(times) * percent // 100) - 1)] if times else float("nan")

    @property
    def latencies(self) -> dict[str, float]:
        return {f"p{percent}": self.latency(percent) for percent in (50, 90, 95, 99)}


def refuse_guided(field: str, where: str) -> None:
    """Raises an ElleError for `guided_json` and its kin."""
    if field.startswith("guided_"):
        raise ElleError(
            f"{field} does nothing: current vLLM accepts the field, answers 200 and constrains nothing",
            where=where,
            fix="constrain by response_format with json_schema: `ask(..., schema=...)`, `elle evaluate --constrained`",
        )


def loopback(host: str) -> bool:
    """Whether a host name or address is this machine's own, out of reach for all others."""
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    return host == "localhost"


def ask(
    base_url: str,
    model: str,
    requests: Sequence[Request],
    *,
    max_tokens: int,
    temperature: float = 0.0,
    schema: dict | None = None,
    concurrency: int = 16,
    progress: Callable[[int, int], None] | None = None,
    arrived: Callable[[list[Answer]], None] | None = None,
    timeout: float = 120.0,
    retries: int = 4,
    stream: int = 0,
    fields: Mapping[str, Any] | None = None,
) -> Batch:
    """Send every request, at most `concurrency` at a time, and wait for all; works inside Jupyter too.

    Where as many requests in a row as run at once find no server, or one that refuses the key or knows no such model,
    the rest is not sent: each of them is an Answer whose error says so.

    Args:
        base_url: the server's, with its `/v1`. The key is read from ELLE_API_KEY, else OPENAI_API_KEY, if set.
        max_tokens: the longest answer, in tokens.
        temperature: 0 is greedy.
        schema: a JSON schema that the server holds the output to (constrained decoding).
        progress: called in this thread as `progress(done, total)`.
        arrived: called in this thread with the answers that came since the last call, failed ones included: what it
            keeps survives an interrupt, which loses only the requests in flight.
        timeout: seconds for one attempt.
        retries: further attempts after a refused connection, a time-out, 408, 409, 429 or 5xx, with growing, jittered
            pauses (0.5 s to 8 s): 4 wait about 7 s in all, 12 about a minute, in which a server can start again.
        stream: every so manieth request has its tokens sent as they are made, to measure when they come; 1: all, 0:
            none. It costs both sides work: on two cores, all streamed halves the throughput of a nano model.
        fields: further fields of the requests, such as {"seed": 1}.

    Raises:
        ElleError: `guided_json` among the fields, which constrains nothing; not one request was answered. One that
            fails among others is an Answer with its `error`.
    """
    if concurrency < 1:
        raise ElleError(f"concurrency is {concurrency}", fix="at least 1")
    options: dict[str, Any] = {"model": model, "max_tokens": max_tokens, "temperature": temperature}
    if schema is not None:
        response_format = {"name": "answer", "schema": schema, "strict": True}
        options["response_format"] = {"type": "json_schema", "json_schema": response_format}
    if temperature == 0:
        # vLLM takes its defaults from the model's generation_config.json; a repetition penalty from there (Qwen2.5's
        # is 1.05) would steer even greedy decoding away from the keys and figures that a briefing has to repeat.
        options["extra_body"] = {"repetition_penalty": 1.0}
    for name in fields or {}:
        refuse_guided(name, "fields")
    if fields:
        options["extra_body"] = options.get("extra_body", {}) | dict(fields)

    answers: list[Answer | None] = [None] * len(requests)
    finished: queue.SimpleQueue[Answer | None] = queue.SimpleQueue()  # None: the end
    # A loop of its own in a thread of its own: a notebook's kernel runs one already in this thread.
    loop = asyncio.new_event_loop()
    stop = threading.Event()
    task = loop.create_task(
        _ask_all(base_url, requests, options, concurrency, timeout, retries, stream, answers, finished, stop)
    )

    def work() -> None:
        try:
            with contextlib.suppress(asyncio.CancelledError):
                loop.run_until_complete(task)
        except Exception:  # raised again by task.result(), in the caller's thread
            pass
        finally:
            loop.close()
            finished.put(None)

    start = time.perf_counter()
    thread = threading.Thread(target=work, name="elle-client", daemon=True)
    thread.start()
    done = 0
    try:
        while (answer := finished.get()) is not None:
            news, more = _drain(finished, [answer])
            if arrived:
                arrived(news)
            for _ in news:
                done += 1
                if progress:
                    progress(done, len(requests))
            if not more:
                break
    except BaseException:  # Ctrl-C: open requests are dropped, and the server aborts them
        stop.set()  # a cancellation can be swallowed by a request that ends in the same moment: no other must follow
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(task.cancel)
        thread.join()
        if arrived and (news := _drain(finished, [])[0]):
            arrived(news)
        raise
    thread.join()
    task.result()
    sent = [answer for answer in answers if answer is not None]
    why = f"not sent: the requests before it failed ({sent[-1].error})" if sent else ""
    batch = Batch(
        [a or Answer(name, "", "", 0, 0, 0.0, why) for a, (name, _) in zip(answers, requests, strict=True)],
        time.perf_counter() - start,
    )
    if batch.answers and len(batch.failed) == len(batch.answers):
        raise ElleError(
            f"none of {len(batch.answers)} requests was answered; the first: {batch.answers[0].error}",
            where=base_url,
            fix="check that the server runs (its log says why not), and its name for the model",
        )
    return batch


def _drain(waiting: "queue.SimpleQueue[Answer | None]", news: list[Answer]) -> tuple[list[Answer], bool]:
    """`news` and what is waiting behind it; whether more will come."""
    with contextlib.suppress(queue.Empty):
        while (answer := waiting.get_nowait()) is not None:
            news.append(answer)
        return news, False
    return news, True


async def _ask_all(
    base_url: str,
    requests: Sequence[Request],
    options: dict[str, Any],
    concurrency: int,
    timeout: float,
    retries: int,
    stream: int,
    answers: list[Answer | None],
    finished: "queue.SimpleQueue[Answer | None]",
    stop: threading.Event,
) -> None:
    import httpx
    import openai

    # A proxy from the environment is right for an endpoint on the internet, and wrong for this machine's own server.
    web = openai.DefaultAsyncHttpxClient(trust_env=not loopback(urlsplit(base_url).hostname or ""))
    secret = os.environ.get("ELLE_API_KEY") or os.environ.get("OPENAI_API_KEY")
    key = secret or "none"  # the openai package wants one, a server without a key ignores it
    waiting: Iterator[tuple[int, Request]] = iter(enumerate(requests))
    at_once = min(concurrency, len(requests))
    in_vain = 0  # requests in a row that came upon no server, or one that will not hear the others either

    async with openai.AsyncOpenAI(
        base_url=base_url, api_key=key, max_retries=retries, timeout=timeout, http_client=web
    ) as client:

        async def one(name: str, messages: list[dict], streamed: bool) -> Answer:
            nonlocal options, in_vain
            start = time.perf_counter()
            streaming = {"stream": True, "stream_options": {"include_usage": True}} if streamed else {}
            broken = 0
            try:
                while True:
                    asked = options
                    try:
                        sent = time.perf_counter()
                        reply = await client.chat.completions.create(messages=messages, **asked, **streaming)  # type: ignore[arg-type]
                        if streamed:
                            output, reason, usage, first = await asyncio.wait_for(_streamed(reply), timeout)
                        else:
                            choice, usage, first = reply.choices[0], reply.usage, None
                            output, reason = choice.message.content or "", choice.finish_reason or ""
                        break
                    except openai.BadRequestError as error:
                        if (other := _without(asked, str(error))) is None:
                            raise
                        options = other
                    except (httpx.TransportError, TimeoutError, openai.APIError) as error:
                        # The package retries until an answer begins; one that breaks off as it streams is asked anew.
                        if isinstance(error, openai.APIStatusError | openai.APIConnectionError):
                            raise
                        if (broken := broken + 1) > retries:
                            late = isinstance(error, TimeoutError | httpx.TimeoutException)
                            kind = openai.APITimeoutError if late else openai.APIConnectionError
                            raise kind(request=reply.response.request) from error
                        await asyncio.sleep(min(8.0, 0.5 * 2 ** (broken - 1)) * random.uniform(0.75, 1))
                tokens = (usage.prompt_tokens, usage.completion_tokens) if usage else (0, 0)
                end = time.perf_counter()
                between = (end - first) / (tokens[1] - 1) if first and tokens[1] > 1 else None
                times = (first and first - sent, between)
                answer = Answer(name, output, reason, *tokens, end - start, None, *times)
            except Exception as error:  # whatever it is, it is this request's end and no other's
                why = _reason(error, timeout)
                why = why.replace(secret, "…") if secret else why  # a server may repeat the key: it ends up in files
                in_vain = in_vain + 1 if _for_all(error) else 0
                return Answer(name, "", "", 0, 0, time.perf_counter() - start, why)
            in_vain = 0
            return answer

        async def worker() -> None:
            for number, (name, messages) in waiting:  # shared by all workers: no request waits as a task of its own
                if stop.is_set():
                    return
                answers[number] = answer = await one(name, messages, bool(stream) and number % stream == 0)
                finished.put(answer)
                if in_vain >= at_once:
                    return

        async with asyncio.TaskGroup() as group:
            for _ in range(at_once):
                group.create_task(worker())


async def _streamed(reply: Any) -> tuple[str, str, Any, float | None]:
    """Output, finish reason, usage, and when the first token came (`perf_counter`), of an answer that streams.

    Raises:
        httpx.RemoteProtocolError: it broke off.
    """
    import httpx

    parts, reason, usage, first = [], "", None, None
    async for chunk in reply:
        usage = chunk.usage or usage
        for choice in chunk.choices:
            if choice.delta.content:
                first = first or time.perf_counter()
                parts.append(choice.delta.content)
            reason = choice.finish_reason or reason
    if not reason:
        raise httpx.RemoteProtocolError("the answer broke off")
    return "".join(parts), reason, usage, first


def _without(options: dict[str, Any], complaint: str) -> dict[str, Any] | None:
    """The same question in terms of a server that refuses some of them (OpenAI's own does); None: not in question."""
    if "repetition_penalty" in complaint and "extra_body" in options:
        return {name: value for name, value in options.items() if name != "extra_body"}
    if "max_completion_tokens" in complaint and "max_tokens" in options:
        return {("max_completion_tokens" if name == "max_tokens" else name): v for name, v in options.items()}
    return None


def _for_all(error: Exception) -> bool:
    """Whether a request failed for a reason that the next one will meet as well: no server, the key, the model."""
    import openai

    if isinstance(error, openai.APIConnectionError):
        return not isinstance(error, openai.APITimeoutError)
    return isinstance(error, openai.AuthenticationError | openai.PermissionDeniedError | openai.NotFoundError)


def _reason(error: Exception, timeout: float) -> str:
    """A failed request in one line."""
    import openai

    match error:
        case openai.APITimeoutError():
            return f"no answer within {timeout:g} s"
        case openai.APIConnectionError():
            return f"no connection: {error.__cause__ or error}"
        case openai.APIStatusError():
            body = error.body if isinstance(error.body, dict) else {}
            return f"HTTP {error.status_code}: {body.get('message') or error.message}"
        case openai.APIError() if not isinstance(error, openai.APIResponseValidationError):
            return error.message
    return f"not a chat completion ({type(error).__name__}: {error})"
