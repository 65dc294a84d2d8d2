"""The server's start and stop, and the client: each way to fail has an error that says what to do."""

import asyncio
import http.server
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from helpers.errors import ElleError
from helpers.process import Job, created, descendants
from helpers.serving import server
from helpers.serving.client import Batch, ask
from helpers.serving.server import start_server

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
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    return tmp_path / "model"


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Let this Python code run in vLLM's place: it sees vLLM's arguments in sys.argv."""

    def use(code: str) -> None:
        program = tmp_path / "python"
        program.write_text(f"#!{sys.executable} -S\n{code}\n")
        program.chmod(0o755)
        monkeypatch.setenv("ELLE_SERVER_PYTHON", str(program))

    monkeypatch.setattr(server, "has_gpu", lambda: False)
    monkeypatch.delenv("ELLE_API_KEY", raising=False)
    return use


HEALTHY = """
import http.server, json, os, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = json.dumps({"argv": sys.argv, "key": os.environ.get("VLLM_API_KEY")}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
port = int(sys.argv[sys.argv.index("--port") + 1])
print("Resolved architecture: Stand-in", flush=True)
http.server.HTTPServer(("127.0.0.1", port), Handler).serve_forever()
"""


def test_a_healthy_server_is_named_reported_and_stopped(model, tmp_path, stand_in):
    stand_in(HEALTHY)
    told: list[str] = []
    with start_server(model, tmp_path / "job", name="nano", progress=told.append) as found:
        assert found.name == "nano"
        assert found.base_url.startswith("http://127.0.0.1:")
        assert found.base_url.endswith("/v1")
        assert found.startup_seconds > 0
        assert found.job.running
    assert not found.job.running
    found.stop()  # once more is no error


def test_the_key_travels_by_the_environment_only(model, tmp_path, stand_in, monkeypatch):
    import urllib.request

    monkeypatch.setenv("ELLE_API_KEY", "s3cr3t-value")
    stand_in(HEALTHY)
    with start_server(model, tmp_path / "job") as found:
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        seen = json.load(direct.open(found.base_url.replace("/v1", "/health")))
    assert seen["key"] == "s3cr3t-value"
    assert "s3cr3t-value" not in " ".join(seen["argv"])
    assert not any("s3cr3t-value" in path.read_text() for path in (tmp_path / "job").iterdir())


def test_a_server_that_dies_is_reported_in_its_own_words(model, tmp_path, stand_in):
    stand_in("print('a line'); raise ValueError('the weights are made of cheese')")
    with pytest.raises(ElleError, match="ValueError: the weights are made of cheese") as caught:
        start_server(model, tmp_path / "job")
    assert "log.txt" in str(caught.value)


def test_a_server_that_never_answers_is_stopped(model, tmp_path, stand_in):
    stand_in("import time; print('still loading', flush=True); time.sleep(300)")
    with pytest.raises(ElleError, match="in time"):
        start_server(model, tmp_path / "job", timeout=2)
    assert not Job.attach(tmp_path / "job").running


@pytest.mark.parametrize(
    ("log", "expected"),
    [
        (
            "(EngineCore pid=7) ERROR 11-22 10:54:44 [core.py:9] Traceback (most recent call last):\n"
            "(EngineCore pid=7) ERROR 11-22 10:54:44 [core.py:9] RuntimeError: Cannot find any model weights\n"
            "(APIServer pid=6) Traceback (most recent call last):\n"
            "(APIServer pid=6) RuntimeError: Engine core initialization failed. See root cause above.\n",
            "RuntimeError: Cannot find any model weights",
        ),
        (
            "(APIServer pid=6) pydantic_core._pydantic_core.ValidationError: 1 validation error for ModelConfig\n"
            "(APIServer pid=6)   Value error, max_model_len (9) is too large [type=value_error]\n"
            "(APIServer pid=6)     For further information visit https://example.org\n",
            "max_model_len (9) is too large",
        ),
        ("api_server.py: error: argument --dtype: invalid choice: 'x'\n", "invalid choice: 'x'"),
        ("/usr/bin/python: No module named vllm\n", "No module named vllm"),
        ("one\ntwo\n", "exit code 1; the log ends: one\ntwo"),
    ],
)
def test_the_reason_is_the_cause_and_not_its_consequence(tmp_path, log, expected):
    (tmp_path / "log.txt").write_text(log)
    (tmp_path / "exit.json").write_text('{"code": 1, "seconds": 1}')
    job = Job(tmp_path, {"pid": 2**22 + 1, "create_time": 0.0, "command": []})
    assert expected in job.reason()


def test_a_missing_server_environment_names_the_set_up(model, tmp_path, stand_in, monkeypatch):
    monkeypatch.setenv("ELLE_SERVER_PYTHON", str(tmp_path / "nowhere" / "python"))
    with pytest.raises(ElleError) as caught:
        start_server(model, tmp_path / "job")
    assert "make setup" in str(caught.value)
    assert not (tmp_path / "job").exists()


def test_a_missing_model_is_refused(tmp_path):
    with pytest.raises(ElleError, match="no such model folder"):
        start_server(tmp_path / "nothing", tmp_path / "job")
    with pytest.raises(ElleError, match=r"no config\.json"):
        start_server(tmp_path, tmp_path / "job")


def test_a_port_in_use_is_named_before_anything_starts(model, tmp_path, stand_in):
    stand_in(HEALTHY)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ElleError, match=str(port)):
            start_server(model, tmp_path / "job", port=port)
    assert not (tmp_path / "job").exists()


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.7", "example.org"])
def test_a_public_host_without_a_key_is_refused(model, tmp_path, stand_in, host):
    stand_in(HEALTHY)
    with pytest.raises(ElleError, match="public") as caught:
        start_server(model, tmp_path / "job", host=host)
    assert "ELLE_API_KEY" in str(caught.value)


# ---- asking, without vLLM


class Fake:
    """A small OpenAI-compatible server; `behave(body, earlier)` gives (status, reply) for each request."""

    def __init__(self, behave: Callable[[dict, int], tuple[int, dict]]):
        seen = self.seen = []
        self.now = self.most = 0
        lock, fake = threading.Lock(), self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with lock:
                    earlier = sum(other["messages"] == body["messages"] for other in seen)
                    seen.append(body | {"key": self.headers["Authorization"]})
                    fake.now += 1
                    fake.most = max(fake.most, fake.now)
                status, reply = behave(body, earlier)
                with lock:
                    fake.now -= 1
                data = json.dumps(reply).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: object) -> None:
                pass

        self.http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}/v1"
        threading.Thread(target=self.http.serve_forever, daemon=True).start()


def completion(text: str) -> dict:
    return {
        "id": "x", "object": "chat.completion", "created": 0, "model": "elle",
        "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}],
        "usage": {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7},
    }  # fmt: skip


def echo(body: dict, _: int) -> tuple[int, dict]:
    return 200, completion(body["messages"][0]["content"])


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Fake]]:
    monkeypatch.delenv("ELLE_API_KEY", raising=False)
    # Were the environment's proxy used for this machine's own server, every request would fail.
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    made: list[Fake] = []

    def make(behave: Callable[[dict, int], tuple[int, dict]]) -> Fake:
        made.append(Fake(behave))
        return made[-1]

    yield make
    for one in made:
        one.http.shutdown()
        one.http.server_close()


def test_answers_come_in_the_order_of_the_requests(fake):
    def slow_first(body: dict, earlier: int) -> tuple[int, dict]:
        time.sleep(0.3 if body["messages"][0]["content"] == "political 0" else 0)
        return echo(body, earlier)

    steps: list[tuple[int, int]] = []
    batch = ask(fake(slow_first).url, "elle", PROMPTS, max_tokens=9, progress=lambda *step: steps.append(step))
    assert [answer.id for answer in batch.answers] == [name for name, _ in PROMPTS]
    assert [answer.output for answer in batch.answers] == [f"political {number}" for number in range(8)]
    assert steps == [(number, 8) for number in range(1, 9)]
    assert batch.failed == []
    assert batch.tokens_per_second == pytest.approx(16 / batch.seconds)
    assert 0.3 <= batch.latency(100) <= batch.seconds


def test_a_schema_goes_as_json_schema_and_greedy_has_no_penalty(fake):
    one = fake(echo)
    ask(one.url, "elle", PROMPTS[:1], max_tokens=9, schema=SCHEMA)
    sent = one.seen[0]
    assert sent["response_format"]["type"] == "json_schema"
    assert sent["response_format"]["json_schema"]["schema"] == SCHEMA
    assert sent["response_format"]["json_schema"]["strict"] is True
    assert "guided_json" not in sent
    assert (sent["temperature"], sent["max_tokens"], sent["repetition_penalty"]) == (0, 9, 1)


def test_no_more_than_concurrency_at_once(fake):
    one = fake(lambda body, earlier: (time.sleep(0.05), echo(body, earlier))[1])
    ask(one.url, "elle", PROMPTS, max_tokens=9, concurrency=3)
    assert one.most <= 3


def test_a_server_error_is_retried_until_there_is_an_answer(fake):
    one = fake(lambda body, earlier: echo(body, earlier) if earlier >= 2 else (500, {"error": {"message": "no"}}))
    batch = ask(one.url, "elle", PROMPTS[:2], max_tokens=9)
    assert batch.failed == []
    assert len(one.seen) == 6


def test_one_failure_among_answers_is_an_error_in_words(fake):
    def too_long(body: dict, earlier: int) -> tuple[int, dict]:
        if body["messages"][0]["content"] == "political 3":
            return 400, {"error": {"message": "the prompt is too long", "code": 400}}
        return (200, {"nonsense": 1}) if body["messages"][0]["content"] == "political 4" else echo(body, earlier)

    one = fake(too_long)
    batch = ask(one.url, "elle", PROMPTS, max_tokens=9)
    assert [answer.id for answer in batch.failed] == ["q3", "q4"]
    assert batch.failed[0].error == "HTTP 400: the prompt is too long"
    assert "not a chat completion" in batch.failed[1].error
    assert len(one.seen) == 8  # a bad request is not sent again


def test_if_nothing_is_answered_it_is_an_error_with_the_reason(fake):
    one = fake(lambda *_: (404, {"error": {"message": "The model `x` does not exist."}}))
    with pytest.raises(ElleError, match="does not exist"):
        ask(one.url, "x", PROMPTS, max_tokens=9)


def test_no_server_and_a_slow_server_are_told_apart(fake):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
    with pytest.raises(ElleError, match="no connection"):
        ask(url, "elle", PROMPTS[:1], max_tokens=9, retries=0)
    slow = fake(lambda body, earlier: (time.sleep(1), echo(body, earlier))[1])
    with pytest.raises(ElleError, match="no answer within"):
        ask(slow.url, "elle", PROMPTS[:1], max_tokens=9, retries=0, timeout=0.3)


def test_the_key_is_sent_if_there_is_one(fake, monkeypatch):
    one = fake(echo)
    monkeypatch.setenv("ELLE_API_KEY", "s3cr3t-value")
    ask(one.url, "elle", PROMPTS[:1], max_tokens=9)
    assert one.seen[0]["key"] == "Bearer s3cr3t-value"


def test_it_works_where_an_event_loop_is_running_as_in_a_notebook(fake):
    one = fake(echo)

    async def cell() -> Batch:
        return ask(one.url, "elle", PROMPTS, max_tokens=9)

    assert len(asyncio.run(cell()).answers) == 8


def test_an_interrupt_ends_the_batch_at_once(fake):
    one = fake(lambda body, earlier: (time.sleep(0.2), echo(body, earlier))[1])

    def interrupt(*_: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ask(one.url, "elle", PROMPTS * 10, max_tokens=9, concurrency=2, progress=interrupt)
    time.sleep(0.3)
    assert len(one.seen) < 10
    assert not [thread for thread in threading.enumerate() if thread.name == "elle-client"]


def test_answers_are_told_as_they_arrive_and_an_interrupt_loses_none(fake):
    gate = threading.Event()

    def behave(body: dict, earlier: int) -> tuple[int, dict]:
        if body["messages"][0]["content"] not in ("political 0", "political 1", "political 2"):
            gate.wait(10)
        return echo(body, earlier)

    told: list[str] = []

    def interrupt(done: int, _: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    one = fake(behave)
    with pytest.raises(KeyboardInterrupt):
        ask(
            one.url, "elle", PROMPTS, max_tokens=9, concurrency=2, progress=interrupt,
            arrived=lambda news: told.extend(answer.id for answer in news),
        )  # fmt: skip
    gate.set()
    assert sorted(told) == ["q0", "q1", "q2"]


def test_a_batch_that_finds_no_server_ends_soon(fake):
    """Every one of a thousand requests used to wait out its own retries."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
    told: list[str] = []
    with pytest.raises(ElleError, match="none of 8000 requests"):
        ask(
            url, "elle", PROMPTS * 1000, max_tokens=9, concurrency=4, retries=0,
            arrived=lambda news: told.extend(answer.id for answer in news),
        )  # fmt: skip
    assert 4 <= len(told) < 20


def test_failures_of_single_requests_do_not_end_a_batch(fake):
    one = fake(
        lambda body, earlier: (400, {"error": {"message": "too long"}}) if "7" not in str(body) else echo(body, 0)
    )
    batch = ask(one.url, "elle", PROMPTS, max_tokens=9, concurrency=2)
    assert len(one.seen) == 8
    assert [answer.id for answer in batch.answers if not answer.error] == ["q7"]


def test_nothing_to_ask(fake):
    batch = ask(fake(echo).url, "elle", [], max_tokens=9)
    assert batch.answers == []
    assert batch.tokens_per_second == 0


# ---- the real server


@pytest.fixture(scope="module")
def real(small_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[server.Server]:
    with start_server(small_base, tmp_path_factory.mktemp("server"), timeout=900) as found:
        yield found


@pytest.mark.real
def test_vllm_answers_free_and_constrained(real):
    free = ask(real.base_url, real.name, PROMPTS, max_tokens=16)
    assert free.failed == []
    assert all(answer.prompt_tokens > 0 and 0 < answer.completion_tokens <= 16 for answer in free.answers)
    held = ask(real.base_url, real.name, PROMPTS, max_tokens=200, schema=SCHEMA)
    for answer in held.answers:
        assert answer.finish_reason == "stop", answer
        found = json.loads(answer.output)
        assert set(found) == {"risk", "level"}
        assert found["risk"] in ("low", "high")
        # An untrained model would otherwise fill its answer with white space, and never end it.
        assert answer.output == json.dumps(found, separators=(",", ":"))


@pytest.mark.real
def test_vllm_says_why_it_refuses_a_request(real):
    batch = ask(real.base_url, real.name, [*PROMPTS[:1], ("long", PROMPTS[0][1] * 500)], max_tokens=4)
    assert [answer.id for answer in batch.failed] == ["long"]
    assert "HTTP 400" in batch.failed[0].error
    assert "1024" in batch.failed[0].error
    with pytest.raises(ElleError, match="does not exist"):
        ask(real.base_url, "another", PROMPTS[:1], max_tokens=4)


@pytest.mark.real
def test_vllm_stops_in_time_and_leaves_nothing(real):
    family = descendants(real.job.pid)
    assert len(family) >= 2  # the HTTP server and the engine
    start = time.monotonic()
    real.stop()
    assert time.monotonic() - start <= 10
    assert all(created(pid) is None for pid in family)


@pytest.mark.real
def test_vllm_does_not_outlive_a_killed_owner(small_base, tmp_path):
    code = f"""
import time
from helpers.serving.server import start_server
start_server({str(small_base)!r}, {str(tmp_path / "job")!r}, timeout=900)
print("up", flush=True)
time.sleep(600)
"""
    owner = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    try:
        assert owner.stdout.readline() == "up\n"
        job = Job.attach(tmp_path / "job")
        family = descendants(job.pid)
        assert len(family) >= 2
    finally:
        os.kill(owner.pid, signal.SIGKILL)
        owner.wait()
        owner.stdout.close()
    deadline = time.monotonic() + 15
    while (job.running or any(created(pid) for pid in family)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not job.running
    assert all(created(pid) is None for pid in family)


@pytest.mark.real
def test_vllm_own_reason_for_not_starting(small_base, tmp_path):
    with pytest.raises(ElleError, match=r"max_model_len.*1024"):
        start_server(small_base, tmp_path / "job", max_model_len=100_000, timeout=900)
    assert not Job.attach(tmp_path / "job").running
