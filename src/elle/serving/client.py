"""Asks a model behind an OpenAI-compatible server many questions at once, and says what came of each."""

import asyncio
import math
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any
from urllib.parse import urlsplit

import httpx
import openai
from anyio.from_thread import start_blocking_portal

from elle.base.errors import ElleError
from elle.base.secrets import key_for, loopback, redacted
from elle.serving.deployments import refuse_guided

Request = tuple[str, list[dict]]  # (id, chat messages with role and content)


@dataclass(frozen=True)
class Answer:
    """One request's end: an output, or the reason why there is none."""

    id: str
    output: str = ""  # a key of this environment that it repeats stands there by its name
    finish_reason: str = ""  # "stop"; "length": cut off at max_tokens; "" where there was an error
    prompt_tokens: int = 0
    completion_tokens: int = 0
    seconds: float = 0.0  # from the first attempt to the last byte: retries and their pauses included
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
        """Completion tokens per second of wall-clock time, all requests together (kept answers took none of it)."""
        tokens = sum(answer.completion_tokens for answer in self.answers if answer.id not in self.kept)
        return tokens / self.seconds if self.seconds else 0.0

    def latency(self, percent: float, until: str = "seconds") -> float:
        """Seconds within which `percent` (0 to 100) of the answered requests ended (nearest rank), or had their
        `first_token`, or went from one token to the next (`inter_token`). NaN if none did."""
        values = (getattr(answer, until) for answer in self.answers if answer.error is None)
        times = sorted(value for value in values if value is not None)
        return times[max(0, math.ceil(len(times) * percent / 100) - 1)] if times else math.nan


@dataclass(frozen=True)
class AskOptions:
    """What requests ask for, and how they are sent.

    retries: further attempts after a refused connection, a time-out, 408, 409, 429 or 5xx, with growing, jittered
    pauses (0.5 s to 8 s): 4 wait about 7 s in all, 12 about a minute, in which a server can start again.
    stream: one request in so many is streamed, to measure when its tokens come; 1: all, 0: none. It costs both sides
    work: on two cores, all streamed halves the throughput of a nano model.
    """

    max_tokens: int = 400  # the longest answer
    temperature: float = 0.0  # 0 is greedy
    schema: dict | None = None  # a JSON schema that the server holds the output to (constrained decoding)
    concurrency: int = 16  # requests at a time
    timeout: float = 120.0  # seconds for one attempt
    retries: int = 4
    stream: int = 0


def ask(
    base_url: str,
    model: str,
    requests: Sequence[Request],
    *,
    progress: Callable[[int, int], None] | None = None,
    arrived: Callable[[list[Answer]], None] | None = None,
    **options: Any,
) -> Batch:
    """Send every request and wait for all; works inside Jupyter too.

    Where as many requests in a row as run at once find no server, or one that refuses the key or knows no such model,
    the rest is not sent: each of them is an Answer whose error says so.

    Args:
        base_url: the server's, with its `/v1`. The environment's key that belongs there is sent (`key_for`), if any.
        progress: called in this thread as `progress(done, total)`.
        arrived: called in this thread with the answers that came since the last call, failed ones included: what it
            keeps survives an interrupt, which loses only the requests in flight.
        options: those of `AskOptions`.

    Raises:
        ElleError: `guided_json` among the options, which constrains nothing; as `key_for`; not one request was
            answered. One that fails among others is an Answer with its `error`.
    """
    for name in options:
        refuse_guided(name, "options")
    sender, start, done = _Sender(base_url, model, AskOptions(**options), len(requests)), time.perf_counter(), 0
    finished, coming = SimpleQueue[Future](), set[Future]()
    try:
        # In a thread of its own, for a notebook's kernel runs an event loop in this one.
        with start_blocking_portal(name="elle-client") as loop, loop.wrap_async_context_manager(sender.client):
            futures = [loop.start_task_soon(sender.send, *each) for each in enumerate(requests)]
            coming.update(futures)
            for future in futures:
                future.add_done_callback(finished.put)
            while coming:
                news = [finished.get(), *(finished.get() for _ in range(finished.qsize()))]
                coming.difference_update(news)
                answers = [answer for future in news if (answer := future.result())]
                if arrived and answers:
                    arrived(answers)
                for _ in answers:
                    done += 1
                    if progress:
                        progress(done, len(requests))
    except BaseException:  # Ctrl-C: open requests were dropped, and the server aborts them
        answers = [future.result() for future in coming if future.done() and not future.cancelled()]
        if arrived and (late := [answer for answer in answers if answer and not answer.error]):
            arrived(late)
        raise
    unsent = f"not sent: the requests before it failed ({sender.failure})"
    answers = [future.result() or Answer(requests[n][0], error=unsent) for n, future in enumerate(futures)]
    batch = Batch(answers, time.perf_counter() - start)
    if answers and len(batch.failed) == len(answers):
        what = f"none of {len(answers)} requests was answered; the first: {answers[0].error}"
        fix = "check that the server runs (its log says why not), and its name for the model"
        raise ElleError(what, where=base_url, fix=fix)
    return batch


class _Sender:
    """Sends the requests of one batch, some at a time."""

    def __init__(self, base_url: str, model: str, options: AskOptions, total: int):
        if options.concurrency < 1:
            raise ElleError(f"concurrency is {options.concurrency}", fix="at least 1")
        self.options, self.gate = options, asyncio.Semaphore(options.concurrency)
        self.body = {"model": model, "max_tokens": options.max_tokens, "temperature": options.temperature}
        if options.schema is not None:
            held = {"name": "answer", "schema": options.schema, "strict": True}
            self.body["response_format"] = {"type": "json_schema", "json_schema": held}
        if options.temperature == 0:
            # vLLM takes its defaults from the model's generation_config.json; a repetition penalty from there (1.05 in
            # Qwen2.5's) would steer even greedy decoding away from the keys and figures that a briefing has to repeat.
            self.body["extra_body"] = {"repetition_penalty": 1.0}
        self.in_vain, self.most_in_vain = 0, min(options.concurrency, total)  # requests in a row that no server heard
        self.failure = ""  # the last one
        self.key = key_for(base_url)
        kinds = openai.AsyncOpenAI, openai.DefaultAsyncHttpxClient
        self.client = connected(kinds, base_url, self.key, max_retries=options.retries, timeout=options.timeout)

    async def send(self, number: int, request: Request) -> Answer | None:
        """What came of a request; None: it was not sent, for it would have been in vain."""
        async with self.gate:
            if self.in_vain >= self.most_in_vain:
                return None
            (name, messages), start = request, time.perf_counter()
            streamed = self.options.stream > 0 and number % self.options.stream == 0
            try:
                fields = await self._reply(messages, streamed)
                self.in_vain = 0
            except Exception as error:  # whatever it is, it is this request's end and no other's
                self.failure = redacted(_reason(error, self.options.timeout))  # a server may repeat the key
                if isinstance(error, openai.AuthenticationError) and not self.key:
                    self.failure += "; no key was sent: export ELLE_API_KEY, and in ELLE_API_URL where it belongs"
                self.in_vain = self.in_vain + 1 if _for_all(error) else 0
                fields = {"error": self.failure}
            return Answer(name, seconds=time.perf_counter() - start, **fields)

    async def _reply(self, messages: list[dict], streamed: bool) -> dict[str, Any]:
        """The fields of an Answer that only the server knows, and when its tokens came."""
        if streamed:
            sent = time.perf_counter()
            reply = await self._create(messages, stream=True, stream_options={"include_usage": True})
            try:
                return await asyncio.wait_for(_read_stream(reply, sent), self.options.timeout)
            except (httpx.TransportError, TimeoutError, openai.APIError):
                # The package retries until an answer begins; one that breaks off on its way is asked for as a whole.
                if not self.options.retries:
                    raise
        reply = await self._create(messages)
        return _fields(reply.choices[0].message.content, reply.choices[0].finish_reason, reply.usage)

    async def _create(self, messages: list[dict], **streaming: Any) -> Any:
        """The server's reply; asked for in its own terms where it refuses some of ours (OpenAI's own does)."""
        while True:
            body = self.body
            try:
                return await self.client.chat.completions.create(messages=messages, **body, **streaming)
            except openai.BadRequestError as error:
                changed = dict(body)
                if "repetition_penalty" in str(error):
                    changed.pop("extra_body", None)
                elif "max_completion_tokens" in str(error) and "max_tokens" in body:
                    changed["max_completion_tokens"] = changed.pop("max_tokens")
                if changed == body:
                    raise
                self.body = changed


def connected(kinds: tuple[Any, Any], base_url: str, key: str, **options: Any) -> Any:
    """A client of the openai package that sends `key` to `base_url`, and nothing else of the environment's; kinds: its
    class, and that of its connections."""
    of_client, of_connections = kinds
    # A proxy from the environment is right for the internet, and wrong for this machine's own server; a redirect would
    # take prompts to an address that nobody named.
    own = loopback(urlsplit(base_url).hostname)
    http = of_connections(trust_env=not own, follow_redirects=False)
    # The package wants a key; a server without one ignores it.
    client = of_client(base_url=base_url, api_key=key or "none", http_client=http, **options)
    # These it would send to any server; OPENAI_CUSTOM_HEADERS may hold keys.
    client.organization = client.project = None
    client._custom_headers = {}
    return client


async def _read_stream(reply: Any, sent: float) -> dict[str, Any]:
    """The fields of an Answer that streams; sent: `perf_counter` when it was asked for.

    Raises:
        httpx.RemoteProtocolError: it broke off.
    """
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
    fields = _fields("".join(parts), reason, usage)
    if first:
        fields["first_token"] = first - sent
        if (tokens := fields["completion_tokens"]) > 1:
            fields["inter_token"] = (time.perf_counter() - first) / (tokens - 1)
    return fields


def _fields(output: str | None, reason: str | None, usage: Any) -> dict[str, Any]:
    output = redacted(output or "")
    fields = {"output": output, "finish_reason": redacted(reason or "")}
    for name in ("prompt_tokens", "completion_tokens"):  # a server may write anything there
        fields[name] = count if type(count := getattr(usage, name, 0)) is int else 0
    return fields


def _for_all(error: Exception) -> bool:
    """Whether a request failed for a reason that the next one will meet as well: no server, the key, the model."""
    refused = openai.AuthenticationError | openai.PermissionDeniedError | openai.NotFoundError
    return isinstance(error, refused | openai.APIConnectionError) and not isinstance(error, openai.APITimeoutError)


def _reason(error: Exception, timeout: float) -> str:
    """A failed request in one line."""
    match error:
        case openai.APITimeoutError() | httpx.TimeoutException() | TimeoutError():
            return f"no answer within {timeout:g} s"
        case openai.APIConnectionError() | httpx.TransportError():
            return f"no connection: {error.__cause__ or error}"
        case openai.APIStatusError():
            body = error.body if isinstance(error.body, dict) else {}
            return f"HTTP {error.status_code}: {body.get('message') or error.message}"
    return f"not a chat completion ({type(error).__name__}: {error})"
