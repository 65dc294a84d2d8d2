"""The server's start and stop, and the client: each way to fail has an error that says what to do."""

import asyncio
import contextlib
import http.client
import itertools
import json
import re
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
import watching
from contract import Request, Response, Route, Server
from starlette.responses import PlainTextResponse
from starlette.testclient import TestClient

from elle.base import machine, paths, storage, yaml_files
from elle.base.errors import ElleError
from elle.base.process import Job, created, descendants
from elle.base.secrets import key_for
from elle.briefings import dataset
from elle.evaluation.verdict import judge
from elle.serving import server
from elle.serving.answers import Endpoint, Verdicts, collect, measure_load, schema_of
from elle.serving.client import ask
from elle.serving.exporter import Exporter
from elle.serving.guard import Guard
from elle.serving.server import start_server
from helpers.course import form, show

REFUSALS = yaml_files.read_yaml(paths.root() / "tests" / "fixtures" / "refusals.yaml")
KEY = "a-key-of-the-tests"
PROMPTS = [(f"q{number}", [{"role": "user", "content": f"political {number}"}]) for number in range(8)]
SCHEMA = {
    "type": "object",
    "properties": {"risk": {"enum": ["low", "high"]}, "level": {"enum": [1, 2, 3]}},
    "required": ["risk", "level"],
    "additionalProperties": False,
}


# ---- starting, without vLLM: another program stands in for the server environment's python


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return storage.write_json(tmp_path / "model" / "config.json", {}).parent


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Let this Python code run in vLLM's place: it sees vLLM's arguments in sys.argv."""

    def use(code: str) -> None:
        program = tmp_path / "python"
        program.write_text(f"#!{sys.executable} -S\n{code}\n")
        program.chmod(0o755)
        monkeypatch.setenv("ELLE_SERVER_PYTHON", str(program))

    monkeypatch.setattr(machine, "has_gpu", lambda: False)
    return use


HEALTHY = """
import http.server, json, os, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        environment = {"key": os.environ.get("VLLM_API_KEY"), "hosts": os.environ["ELLE_SERVER_HOSTS"]}
        self.wfile.write(json.dumps({"argv": sys.argv, **environment}).encode())
port = int(sys.argv[sys.argv.index("--port") + 1])
print("Resolved architecture: Stand-in", flush=True)
http.server.HTTPServer(("127.0.0.1", port), Handler).serve_forever()
"""


def test_a_server_is_named_and_stopped_and_its_key_goes_by_the_environment_only(model, tmp_path, stand_in, monkeypatch):
    monkeypatch.setenv("ELLE_API_KEY", "s3cr3t-value")
    stand_in(HEALTHY)
    told: list[str] = []
    options = {"hosts": ["elle.internal"], "progress": told.append}
    with start_server(model, tmp_path / "job", name="nano", **options) as found:
        assert found.name == "nano"
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+/v1", found.base_url)
        assert found.startup_seconds > 0
        assert found.job.running
        seen = httpx.get(found.base_url.replace("/v1", "/health"), trust_env=False).json()
    assert not found.job.running
    found.stop()  # once more is no error
    assert seen["key"] == "s3cr3t-value"
    assert seen["hosts"].split(",") == ["localhost", "127.0.0.1", "[::1]", "127.0.0.1", "elle.internal"]
    options = dict(itertools.pairwise(seen["argv"]))
    assert (options["--middleware"], options["--allowed-origins"]) == ("elle.serving.guard.Guard", "[]")
    assert "s3cr3t-value" not in " ".join(seen["argv"])
    assert not any("s3cr3t-value" in path.read_text() for path in (tmp_path / "job").iterdir())


def test_a_server_that_dies_or_never_answers_is_reported_in_its_own_words(model, tmp_path, stand_in):
    stand_in("print('a line'); raise ValueError('the weights are made of cheese')")
    with pytest.raises(ElleError, match="ValueError: the weights are made of cheese") as caught:
        start_server(model, tmp_path / "dead")
    assert "log.txt" in str(caught.value)
    stand_in("import time; print('still loading', flush=True); time.sleep(300)")
    with pytest.raises(ElleError, match="in time"):
        start_server(model, tmp_path / "job", timeout=2)
    assert not Job.attach(tmp_path / "job").running


@pytest.mark.parametrize(("log", "expected"), REFUSALS["reasons"])
def test_the_reason_is_the_cause_and_not_its_consequence(tmp_path, log, expected):
    (tmp_path / "log.txt").write_text(log)
    (tmp_path / "exit.json").write_text('{"code": 1, "seconds": 1}')
    job = Job(tmp_path, {"pid": 2**22 + 1, "create_time": 0.0, "command": []})
    assert expected in job.reason()


def test_what_is_missing_or_taken_is_named_before_anything_starts(model, tmp_path, stand_in, monkeypatch):
    stand_in(HEALTHY)
    with pytest.raises(ElleError, match="no such model folder"):
        start_server(tmp_path / "nothing", tmp_path / "job")
    with pytest.raises(ElleError, match=r"no config\.json"):
        start_server(tmp_path, tmp_path / "job")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ElleError, match=f"port {port} of"):
            start_server(model, tmp_path / "job", port=port)
    for host in ("0.0.0.0", "::", "192.0.2.7", "example.org"):
        with pytest.raises(ElleError, match="public") as caught:
            start_server(model, tmp_path / "job", host=host)
        assert "ELLE_API_KEY" in caught.value.fix
    monkeypatch.setenv("ELLE_API_KEY", "two words")
    with pytest.raises(ElleError, match="no key has"):
        start_server(model, tmp_path / "job")
    monkeypatch.delenv("ELLE_API_KEY")
    monkeypatch.setenv("ELLE_SERVER_PYTHON", str(tmp_path / "nowhere" / "python"))
    with pytest.raises(ElleError, match="environment is missing") as caught:
        start_server(model, tmp_path / "job")
    assert "make setup" in caught.value.fix
    assert not (tmp_path / "job").exists()


# ---- what is let through to it


@pytest.mark.parametrize(("method", "path", "headers", "status", "without"), REFUSALS["requests"])
def test_a_request_is_let_through_by_its_host_its_origin_and_its_key(
    monkeypatch, method, path, headers, status, without
):
    monkeypatch.setenv("ELLE_SERVER_HOSTS", "localhost,127.0.0.1,[::1],elle.internal")
    encoded = {name: value.encode("latin-1") for name, value in headers.items()}
    for key, expected in (("right", status), ("", without)):
        monkeypatch.setenv("VLLM_API_KEY", key)
        client = TestClient(Guard(PlainTextResponse("served")), base_url="http://127.0.0.1:8000")
        answer = client.request(method, path, headers=encoded)
        assert answer.status_code == expected
        assert ("served" in answer.text) == (expected == 200 and method != "HEAD")


# ---- asking, without vLLM


class Fake(Server):
    """A small OpenAI-compatible server; `behave(body, earlier)` gives (status, reply) for each request: a dict, or a
    stream as it goes over the line. `now` and `most`: requests at once."""

    def __init__(self, behave: Callable[[dict, int], tuple[int, dict | str]]):
        self.behave, self.seen, self.now, self.most = behave, [], 0, 0
        self.lock = threading.Lock()
        self.routes = [Route("chat", "POST", "/v1/chat/completions", self.reply)]
        super().__init__(self, alone=False)
        self.url += "/v1"

    def reply(self, request: Request) -> Response:
        body = request.json()
        with self.lock:
            earlier = sum(other["messages"] == body["messages"] for other in self.seen)
            self.seen.append(body | {"key": request.headers.get("authorization")})
            self.now += 1
            self.most = max(self.most, self.now)
        status, reply = self.behave(body, earlier)
        with self.lock:
            self.now -= 1
        if isinstance(reply, str):
            return Response(status, reply.encode(), {"Content-Type": "text/event-stream"})
        return Response(status, reply)


def completion(text: str, end: str = "stop") -> dict:
    return {
        "id": "x", "object": "chat.completion", "created": 0, "model": "elle",
        "choices": [{"index": 0, "finish_reason": end, "message": {"role": "assistant", "content": text}}],
        "usage": {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7},
    }  # fmt: skip


def events(text: str, end: str = "stop") -> str:
    """A streamed completion: a token a word, then its end and its usage."""
    words = text.split(" ")
    base = {"id": "x", "object": "chat.completion.chunk", "created": 0, "model": "elle", "choices": []}
    deltas = [{"role": "assistant", "content": ""}, *({"content": word + " "} for word in words)]
    chunks = [{"choices": [{"index": 0, "delta": delta, "finish_reason": None}]} for delta in deltas]
    if end:
        chunks += [{"choices": [{"index": 0, "delta": {}, "finish_reason": end}]}]
        chunks += [{"usage": {"prompt_tokens": 5, "completion_tokens": len(words), "total_tokens": 0}}]
    lines = [json.dumps(base | chunk) for chunk in chunks] + ["[DONE]"] * bool(end)
    return "".join(f"data: {line}\n\n" for line in lines)


def echo(body: dict, _: int = 0) -> tuple[int, dict]:
    return 200, completion(body["messages"][0]["content"])


def nobody() -> str:
    """An address where no server is."""
    return f"http://127.0.0.1:{watching.free_port()}/v1"


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Fake]]:
    # Were the environment's proxy used for this machine's own server, every request would fail.
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    with contextlib.ExitStack() as servers:
        yield lambda behave: servers.enter_context(Fake(behave))


def test_answers_come_in_the_order_of_the_requests(fake):
    def behave(body: dict, earlier: int) -> tuple[int, dict]:
        if "political 1" in str(body) and earlier < 2:  # it is asked again
            return 500, {"error": {"message": "no"}}
        time.sleep(0.3 if "political 0" in str(body) else 0.02)
        return echo(body)

    one = fake(behave)
    steps: list[tuple[int, int]] = []
    batch = ask(one.url, "elle", PROMPTS, max_tokens=9, concurrency=3, progress=lambda *step: steps.append(step))
    assert one.most <= 3
    assert len(one.seen) == 10
    assert [(answer.id, answer.output) for answer in batch.answers] == [(f"q{n}", f"political {n}") for n in range(8)]
    assert steps == [(number, 8) for number in range(1, 9)]
    assert batch.failed == []
    assert batch.tokens_per_second == pytest.approx(16 / batch.seconds)
    assert 0.3 <= batch.latency(100) <= batch.seconds


def test_the_key_and_a_schema_are_sent_and_greedy_has_no_penalty(fake, monkeypatch):
    one = fake(echo)
    monkeypatch.setenv("ELLE_API_KEY", "s3cr3t-value")
    ask(one.url, "elle", PROMPTS[:1], max_tokens=9, schema=SCHEMA)
    sent = one.seen[0]
    assert sent["key"] == "Bearer s3cr3t-value"
    assert sent["response_format"]["type"] == "json_schema"
    assert sent["response_format"]["json_schema"] == {"name": "answer", "schema": SCHEMA, "strict": True}
    assert (sent["temperature"], sent["max_tokens"], sent["repetition_penalty"]) == (0, 9, 1)
    with pytest.raises(ElleError, match="constrains nothing") as caught:
        ask(one.url, "elle", PROMPTS[:1], max_tokens=9, guided_json=SCHEMA)
    assert "json_schema" in caught.value.fix
    assert len(one.seen) == 1


@pytest.mark.parametrize(("url", "settings", "owner"), REFUSALS["keys"])
def test_a_key_belongs_to_one_address_and_to_this_machine_only_ours(monkeypatch, url, settings, owner):
    for name in ("ELLE_API_URL", "OPENAI_BASE_URL", "LFBM_ENDPOINT", "RUNPOD_ENDPOINT_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    for name in ("ELLE_API_KEY", "OPENAI_API_KEY", "RUNPOD_API_KEY", *settings):
        monkeypatch.setenv(name, settings.get(name, f"the-{name}"))
    if match := {"in the clear": "must begin with https", "not an address": "not an address"}.get(owner):
        with pytest.raises(ElleError, match=match):
            key_for(url)
    else:
        assert key_for(url) == (f"the-{owner}" if owner else "")


def test_nothing_of_another_server_is_sent_and_a_redirect_is_not_followed(fake, monkeypatch):
    """Whatever the environment held for OpenAI's server went to any."""
    one, other = fake(echo), fake(echo)
    theirs = {
        "API_KEY": "sk-theirs",
        "ORG_ID": "org-theirs",
        "CUSTOM_HEADERS": "Authorization: sk-theirs\nX: sk-theirs",
    }
    for name, value in theirs.items():
        monkeypatch.setenv(f"OPENAI_{name}", value)
    one.fail("chat", status=401, body={"error": {"message": "who?"}})
    with pytest.raises(ElleError, match=r"who\?; no key was sent: export ELLE_API_KEY"):
        ask(one.url, "elle", PROMPTS[:1], max_tokens=9)
    monkeypatch.setenv("ELLE_API_KEY", "s3cr3t-value")
    one.fail("chat", status=307, headers={"Location": f"{other.url}/chat/completions"})
    with pytest.raises(ElleError, match="HTTP 307"):
        ask(one.url, "elle", PROMPTS[:1], max_tokens=9)
    assert other.requests == []
    assert [request.token for request in one.requests] == ["none", "s3cr3t-value"]
    assert "theirs" not in str([request.headers for request in one.requests])


def test_a_key_that_an_answer_repeats_is_nowhere_kept(fake, monkeypatch, small_data, tmp_path):
    """A server, or a proxy before it, that echoes its headers."""
    rows = dataset.read_split(small_data, "test")[:3]
    usage = {"prompt_tokens": "s3cr3t-value", "completion_tokens": None, "total_tokens": 1}
    text = '{"political": "Bearer s3cr3t-value"}'
    one = fake(lambda body, _: (200, completion(text, "s3cr3t-value") | {"usage": usage}))
    records = []
    monkeypatch.setenv("VLLM_API_KEY", "s3cr3t")  # the other begins with it
    monkeypatch.setenv("ELLE_API_KEY", "s3cr3t-value")
    batch = collect(Endpoint(one.url, "elle"), rows, tmp_path / "x.jsonl", judged=records.append)
    assert one.seen[0]["key"] == "Bearer s3cr3t-value"
    kept = [(tmp_path / "x.jsonl").read_text(), repr(batch), *(json.dumps(record.to_json()) for record in records)]
    assert [("s3cr3t-value" in each, "Bearer $ELLE_API_KEY" in each) for each in kept] == [(False, True)] * 5
    streamed = fake(lambda body, _: (200, events("a s3cr3t-value b", "s3cr3t-value")))
    answer = ask(streamed.url, "elle", PROMPTS[:1], max_tokens=9, stream=1).answers[0]
    assert (answer.output, answer.finish_reason) == ("a $ELLE_API_KEY b ", "$ELLE_API_KEY")


def test_a_streamed_answer_says_when_its_tokens_came(fake):
    one = fake(lambda body, earlier: (200, events("a b c")) if body.get("stream") else echo(body, earlier))
    batch = ask(one.url, "elle", PROMPTS, max_tokens=9, stream=4, schema=SCHEMA)
    streamed = [bool(body.get("stream")) for body in sorted(one.seen, key=lambda body: str(body["messages"]))]
    assert streamed == [True, False, False, False] * 2
    first, second = batch.answers[0], batch.answers[1]
    assert (first.output, first.finish_reason, first.prompt_tokens, first.completion_tokens) == ("a b c ", "stop", 5, 3)
    assert 0 < first.first_token <= first.seconds
    assert first.inter_token >= 0
    assert second.output == "political 1"
    assert second.first_token is None
    assert batch.latency(100, "first_token") >= batch.latency(50, "first_token") > 0


@pytest.mark.parametrize("broken", [events("a b", end=""), 'data: {"error": {"message": "the engine died"}}\n\n'])
def test_an_answer_that_breaks_off_as_it_streams_is_asked_again(fake, broken):
    """What had come of it used to count as the whole answer."""
    one = fake(lambda body, _: (200, broken) if body.get("stream") else echo(body))
    batch = ask(one.url, "elle", PROMPTS[:2], max_tokens=9, stream=1)
    assert [answer.output for answer in batch.answers] == ["political 0", "political 1"]
    assert len(one.seen) == 4
    with pytest.raises(ElleError, match=r"the answer broke off|the engine died"):
        ask(one.url, "elle", PROMPTS[:1], max_tokens=9, stream=1, retries=0)


def test_a_load_measurement_says_quality_speed_and_tokens(fake, small_data, tmp_path):
    rows = dataset.read_split(small_data, "test")[:9]
    right = {row["conversations"][1]["value"]: row["conversations"][2]["value"] for row in rows}

    def behave(body: dict, _: int) -> tuple[int, dict | str]:
        text = right[body["messages"][1]["content"]] if "response_format" in body else '{"political": "x"}'
        return 200, events(text) if body.get("stream") else completion(text)

    async def cell():  # a notebook's runs inside an event loop
        return measure_load(Endpoint(fake(behave).url, "elle"), rows, [1, 4], tmp_path, schema=schema_of(rows))

    points, batches = asyncio.run(cell())
    for point, key in zip(points, itertools.product((1, 4), (False, True)), strict=True):
        assert (point["concurrency"], point["constrained"]) == key
        wrong = 0 if point["constrained"] else 9
        assert point["not_schema"] == point["not_right"] == wrong  # judged as they come, and none is repaired
        assert (point["answers"], point["requests"], point["failed"]) == (9, 9, 0)
        assert point["first_token"] > 0
    assert len(batches[4, True].answers) == 9


# ---- the form


def test_a_forms_verdict_is_the_evaluators(small_data):
    """How it asks is seen in a browser: test_pipeline."""
    _, prompt, right = (turn["value"] for turn in dataset.read_split(small_data, "test")[0]["conversations"])
    said = re.search(
        r"All right: the form, and every number that was read \((\d+) of (\d+) numbers and sentences\)\.",
        form._html(judge("x", prompt, right, right)),
    )
    assert int(said[1]) == int(said[2]) > 20
    unread = right.replace('"nsm":"', '"nsm":"Something <else>. ')
    page = form._html(judge("x", prompt, right, unread))
    assert f"objects (it read {said[2]} of {int(said[2]) + 1} numbers and sentences):" in page
    assert "nsm: not read: &#x27;Something &lt;else&gt;&#x27;" in page
    wrong = judge("x", prompt, right, re.sub(r"\d", "7", right))
    assert f"and {len(wrong.reasons) - 3} more" in form._html(wrong, most=3)
    nothing = form._html(judge("x", prompt, right, "no <JSON>"))
    assert "no &lt;JSON&gt;" in nothing
    assert "objects (it read nothing):" in nothing


def test_a_form_whose_server_does_not_answer_says_so_at_once(fake, small_data, monkeypatch):
    """After "Run All Cells" the server is stopped: its refusal was retried for seconds, in silence."""
    shown: list = []
    monkeypatch.setattr("IPython.display.display", shown.append)
    one = fake(lambda *_: (500, {"error": {"message": "stopping"}}))
    row = dataset.read_split(small_data, "test")[0]
    form.show(Endpoint(one.url, "elle"), row, schema=SCHEMA)
    button = shown.pop().children[0].children[-1]
    button.click()
    assert "check that the server runs" in shown.pop().data
    assert len(one.seen) == 1
    assert not button.disabled
    monkeypatch.setenv(show.STATUS, "x")  # in a batch run it is a line of text
    form.show(Endpoint(one.url, "elle"), row, schema=SCHEMA)
    assert "form" in shown[0].data


def test_a_failure_is_an_error_in_words_and_a_batch_of_nothing_else_is_raised_with_the_reason(fake):
    wrong = {
        "political 3": (400, {"error": {"message": "the prompt is too long", "code": 400}}),
        "political 4": (200, {"nonsense": 1}),
    }
    one = fake(lambda body, _: wrong.get(body["messages"][0]["content"]) or echo(body))
    batch = ask(one.url, "elle", PROMPTS, max_tokens=9)
    assert [answer.id for answer in batch.failed] == ["q3", "q4"]
    assert batch.failed[0].error == "HTTP 400: the prompt is too long"
    assert "not a chat completion" in batch.failed[1].error
    assert len(one.seen) == 8  # a bad request is not sent again
    unknown = fake(lambda *_: (404, {"error": {"message": "The model `x` does not exist."}}))
    late = fake(lambda body, _: (time.sleep(3), echo(body))[1])
    for url, message in ((unknown.url, "does not exist"), (nobody(), "no connection"), (late.url, "no answer within")):
        with pytest.raises(ElleError, match=message):
            ask(url, "elle", PROMPTS[:1], max_tokens=9, retries=0, timeout=1.0)


def test_an_interrupt_ends_the_batch_at_once_and_loses_no_answer(fake):
    gate = threading.Event()
    one = fake(lambda body, _: (gate.wait(0 if body["messages"][0]["content"][-1] in "012" else 10), echo(body))[1])
    told: list[str] = []

    def interrupt(done: int, _: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    options = {"progress": interrupt, "arrived": lambda news: told.extend(answer.id for answer in news)}
    with pytest.raises(KeyboardInterrupt):
        ask(one.url, "elle", PROMPTS * 10, max_tokens=9, concurrency=2, **options)
    gate.set()
    time.sleep(0.3)
    assert sorted(told) == ["q0", "q1", "q2"]
    assert len(one.seen) <= 5
    assert not [thread for thread in threading.enumerate() if thread.name == "elle-client"]


def test_a_batch_that_finds_no_server_ends_soon(fake):
    """Every one of a thousand requests used to wait out its own retries."""
    told: list[str] = []
    options = {"retries": 0, "arrived": lambda news: told.extend(answer.id for answer in news)}
    with pytest.raises(ElleError, match="none of 8000 requests"):
        ask(nobody(), "elle", PROMPTS * 1000, max_tokens=9, concurrency=4, **options)
    assert 4 <= len(told) < 20


# ---- the real server


@pytest.fixture(scope="module")
def shared(small_base, small_adapter, tmp_path_factory) -> Iterator[server.Server]:
    """One server for all that follows: a base, an adapter beside it, and a key."""
    folder = tmp_path_factory.mktemp("server")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ELLE_API_KEY", KEY)
        found = start_server(small_base, folder, adapters={"lora": small_adapter}, timeout=900)
    with found:
        yield found


@pytest.fixture
def real(shared, monkeypatch) -> server.Server:
    monkeypatch.setenv("ELLE_API_KEY", KEY)
    return shared


@pytest.fixture(scope="module")
def short(small_data) -> dict:
    """The schema of a briefing whose texts are short: even an untrained model comes to its end."""
    schema = schema_of(dataset.read_split(small_data, "test"))
    return schema | {"properties": {name: text | {"maxLength": 16} for name, text in schema["properties"].items()}}


@pytest.mark.real
def test_vllm_answers_free_streamed_and_constrained_under_two_names(real):
    assert real.names == ("elle", "lora")
    free = ask(real.base_url, real.name, PROMPTS, max_tokens=16)
    assert free.failed == []
    assert all(answer.prompt_tokens > 0 and 0 < answer.completion_tokens <= 16 for answer in free.answers)
    streamed = ask(real.base_url, real.name, PROMPTS, max_tokens=16, stream=1)
    assert [answer.output for answer in streamed.answers] == [answer.output for answer in free.answers]
    adapted = ask(real.base_url, "lora", PROMPTS, max_tokens=16)
    assert all(one.output != other.output for one, other in zip(free.answers, adapted.answers, strict=True))
    assert all(0 < answer.first_token < answer.seconds for answer in streamed.answers)
    assert all(0 < answer.inter_token < answer.seconds for answer in streamed.answers if answer.completion_tokens > 1)
    held = ask(real.base_url, real.name, PROMPTS, max_tokens=200, schema=SCHEMA)
    for answer in held.answers:
        assert answer.finish_reason == "stop", answer
        value = json.loads(answer.output)
        assert value.keys() == {"risk", "level"}
        assert value["risk"] in ("low", "high")
        # An untrained model would otherwise fill its answer with white space, and never end it.
        assert answer.output == json.dumps(value, separators=(",", ":"))


@pytest.mark.real
def test_vllm_says_why_it_refuses_a_request(real, monkeypatch):
    batch = ask(real.base_url, real.name, [*PROMPTS[:1], ("long", PROMPTS[0][1] * 500)], max_tokens=4)
    assert [answer.id for answer in batch.failed] == ["long"]
    assert "HTTP 400" in batch.failed[0].error
    assert "1024" in batch.failed[0].error
    with pytest.raises(ElleError, match="does not exist"):
        ask(real.base_url, "another", PROMPTS[:1], max_tokens=4)
    for key in ("", "another"):
        monkeypatch.setenv("ELLE_API_KEY", key)
        with pytest.raises(ElleError, match="HTTP 401"):
            ask(real.base_url, real.name, PROMPTS[:1], max_tokens=4)


@pytest.mark.real
def test_every_route_of_vllm_asks_for_the_key_but_health_and_metrics(real):
    """vLLM's own check left /invocations and all that is not under four prefixes open, and every OPTIONS."""

    def status(method: str, path: str, **headers: str) -> int:
        line = http.client.HTTPConnection(real.base_url.split("/")[2], timeout=60)  # it sends a path as it is written
        line.request(method, path, headers=headers)
        answer = line.getresponse()
        assert "Access-Control-Allow-Origin" not in answer.headers
        return answer.status

    root, key = real.base_url.removesuffix("/v1"), {"Authorization": f"Bearer {KEY}"}
    listed = httpx.get(f"{root}/openapi.json", headers=key, trust_env=False).json()["paths"]
    assert {"/v1/chat/completions", "/invocations", "/tokenize", "/version", "/health"} <= listed.keys()
    routes = {(method.upper(), re.sub(r"{\w+}", "x", path)) for path, methods in listed.items() for method in methods}
    for path in {path for _, path in routes} | {"/openapi.json", "/docs", "/redoc", "/docs/oauth2-redirect", "/none"}:
        near = (f"{path}/", f"/{path}", path.upper(), f"/health/..{path}", path.replace("/", "/%2e/"))
        routes |= {(method, each) for method in ("GET", "HEAD", "OPTIONS") for each in (path, *near)}
    routes -= {(method, path) for method, path in routes if path in ("/health", "/metrics")}
    assert len(routes) > 400
    for wrong in ({}, {"Authorization": f"Bearer {KEY}x"}):
        assert {route for route in routes if status(*route, **wrong) != 401} == set()
    upgrade = {"Upgrade": "websocket", "Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA=="}
    assert status("GET", "/v1/realtime", Connection="Upgrade", **upgrade) == 401
    for path, others in (("/health", {}), ("/metrics", {}), ("/v1/models", key)):
        assert status("GET", path, **others) == 200
        assert status("GET", path, **others, Host="evil.example") == 400
        assert status("GET", path, **others, Origin="http://evil.example") == 403


@pytest.mark.real
def test_a_hundred_briefings_at_once_none_lost_and_none_invalid(real, small_data, short, tmp_path):
    verdicts = Verdicts()
    options = {"schema": short, "concurrency": 32, "max_tokens": 400, "judged": verdicts, "stream": 8}
    batch = collect(real, dataset.read_split(small_data, "train")[:100], tmp_path / "x.jsonl", **options)
    assert batch.failed == []
    assert {answer.finish_reason for answer in batch.answers} == {"stop"}
    assert (verdicts.answers, verdicts.not_json, verdicts.not_schema) == (100, 0, 0)
    counted = real.metrics()
    assert counted["vllm:generation_tokens_total"] >= batch.completion_tokens
    assert counted["vllm:num_requests_running"] == 0


@pytest.mark.real
def test_prompts_and_answers_are_in_no_log(real):
    marked = [("marked", [{"role": "user", "content": "MARKER-5ec2e7 political 40"}])]
    answer = ask(real.base_url, real.name, marked, max_tokens=24).answers[0]
    kept = [path.read_text(errors="replace") for path in real.job.folder.rglob("*") if path.is_file()]
    assert len(answer.output) > 20
    assert not [text for text in kept if "5ec2e7" in text or answer.output in text or KEY in text]


@pytest.mark.real
def test_prometheus_reads_server_and_client_and_answers_the_whole_dashboard(real, small_data, short, tmp_path):
    watching.tool("prometheus")
    root, rows = real.base_url.removesuffix("/v1"), dataset.read_split(small_data, "train")[:4]
    # Else the templates name what this vLLM does not have.
    assert watching.listed().items() <= watching.types(watching.fetched(f"{root}/metrics")).items()
    with Exporter(0, server=root, dollars_per_hour=2) as seen:
        places = {"server": root.removeprefix("http://"), "client": f"127.0.0.1:{seen.port}"}
        with watching.Prometheus(tmp_path, **places, wait="1h", key=KEY) as prometheus:
            queries = watching.queries("30s")

            def without() -> set[str]:
                """The queries without a number; asks Elle once more, for a rate needs counts that grow."""
                batch = collect(real, rows, tmp_path / "x.jsonl", schema=short, judged=seen.judged)
                seen.arrived(batch.answers)
                found = {name: prometheus.query(text) for name, text in queries.items()}
                return {name for name, values in found.items() if all(each["value"][1] == "NaN" for each in values)}

            # No alert fires; and this model, which has learned nothing, gets nothing right.
            expected = {"annotation Alerts", "Cost of a thousand briefings B"}
            assert prometheus.until(lambda: without() == expected), without()
            assert {row["metric"]["job"] for row in prometheus.query("up == 1")} == {"elle-server", "elle-client"}
            rules = [rule for group in prometheus.get("rules")["groups"] for rule in group["rules"]]
            assert {rule["health"] for rule in rules} == {"ok"}
            assert {rule["name"] for rule in rules if rule["state"] != "inactive"} <= {"ElleServerDown"}


@pytest.mark.real
def test_vllm_stops_in_time_and_leaves_nothing(real):
    family = descendants(real.job.pid)
    assert len(family) >= 2  # the HTTP server and the engine
    environment = Path(f"/proc/{family[-1]}/environ").read_text().split("\0")
    scratch = Path(next(line for line in environment if line.startswith("TMPDIR=")).partition("=")[2])
    assert list(scratch.iterdir())  # its sockets: they used to be left in /tmp, four a start
    start = time.monotonic()
    real.stop()
    assert time.monotonic() - start <= 10
    assert all(created(pid) is None for pid in family)
    assert not scratch.exists()
