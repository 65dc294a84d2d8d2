"""`elle evaluate`: files of outputs, two of them compared, and a server that is asked, dies, and is asked again."""

# ruff: noqa: F811 (the fixture `fake` is an argument)

import json
import signal
import subprocess
import sys
import threading
import time

import pytest
from click.testing import CliRunner
from test_hub import wait_for
from test_serving import completion, fake  # noqa: F401

from elle.base import storage
from elle.base.errors import ElleError
from elle.briefings import dataset
from elle.evaluation.inputs import read_outputs, read_test_rows
from elle.evaluation.scorecard import METRICS
from elle.serving.answers import Endpoint, collect, schema_of
from helpers import cli


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A set with 25 test rows."""
    folder = tmp_path_factory.mktemp("set")
    dataset.build("basic", 500, 5, folder)
    return folder


@pytest.fixture(scope="module")
def rows(data):
    return read_test_rows(data)


def write(path, outputs):
    storage.write_lines(path, ({"id": name, "output": text} for name, text in outputs.items()))
    return path


def right(rows) -> dict[str, str]:
    return {row["id"]: row["conversations"][2]["value"] for row in rows}


def elle(*arguments):
    return CliRunner().invoke(cli.cli, ["evaluate", *map(str, arguments)])


def scored(done) -> tuple[dict, int, int]:
    """The card that a command printed, its rows, and those with an output."""
    card = json.loads(done.stdout)
    return card, card["coverage"]["rows"], card["coverage"]["outputs"]


@pytest.fixture
def oracle(rows):
    """A model that knows every answer; of the rows in `broken` the server fails."""
    by_prompt = {row["conversations"][1]["value"]: row for row in rows}

    def answer(body: dict, _: int) -> tuple[int, dict]:
        row = by_prompt[body["messages"][1]["content"]]
        answer.asked.append(row["id"])
        if row["id"] in answer.broken:
            return 400, {"error": {"message": "out of luck"}}
        return 200, completion(row["conversations"][2]["value"])

    answer.asked, answer.broken = [], set()
    return answer


@pytest.fixture
def server(oracle, fake):
    return fake(oracle)


@pytest.mark.parametrize("form", ["folder", "jsonl", "parquet"])
def test_data_in_each_form(tmp_path, form):
    dataset.build("basic", 100, 9, tmp_path, format="parquet" if form == "parquet" else "jsonl")
    path = tmp_path if form == "folder" else tmp_path / f"test.{form}"
    file = write(tmp_path / "o.jsonl", right(read_test_rows(path)))
    card, *covered = scored(elle("--data", path, "--outputs", file, "--json"))
    assert covered == [5, 5]
    assert card["metrics"]["all_right"]["value"] == 1


def test_people_see_a_table_and_the_worst(tmp_path, data, rows):
    outputs = right(rows)
    sorry, faulty, absent = list(outputs)[3:6]
    outputs |= {sorry: "sorry", faulty: outputs[faulty].replace("1", "2")}
    del outputs[absent]
    done = elle("--data", data, "--outputs", write(tmp_path / "o.jsonl", outputs), "--html", tmp_path / "page.html")
    assert done.exit_code == 0, done.output
    assert done.stdout.splitlines()[1].split()[:2] == ["json_strict", "0.9200"]
    assert all(name in done.stdout for name in METRICS)
    assert "24 of 25 rows have an output" in done.stdout
    assert f"{sorry}: 1 fault\n  not strictly JSON" in done.stdout
    assert "sorry" in (tmp_path / "page.html").read_text()


CODES = "\x1b[2J\x9b31m\u202e\x07\x7f"  # they clear a screen, colour it, turn the order of letters, ring, erase


def on_a_terminal(*arguments) -> list[str]:
    """The lines that a command writes: click takes some codes away where there is no terminal (color=False)."""
    done = CliRunner().invoke(cli.cli, [*map(str, arguments)], color=True)
    printed = done.stdout + done.stderr
    assert CODES not in printed
    return printed.split("\n")


def test_what_a_model_or_a_data_file_wrote_commands_no_terminal(tmp_path, rows):
    rows = [row | {"id": f"{place}{CODES}"} for place, row in enumerate(rows[:3])]
    storage.write_lines(tmp_path / "d.jsonl", rows)
    outputs = {row["id"]: json.dumps({f"k{CODES}": CODES}) for row in rows}
    files = ("--data", tmp_path / "d.jsonl", "--outputs", write(tmp_path / "o.jsonl", outputs))
    lines = on_a_terminal("evaluate", *files)
    assert [line for line in lines if not line.isprintable()] == []
    assert r"0\x1b[2J\x9b31m\u202e\x07\x7f: " in "\n".join(lines)
    card = on_a_terminal("evaluate", *files, "--json")
    assert [line.isprintable() for line in card] == [True, True]
    assert {record["id"] for record in json.loads(card[0])["worst"]} == outputs.keys()


def test_an_audit_prints_what_a_manifest_holds_and_obeys_none_of_it(tmp_path):
    dataset.build("basic", 40, 5, tmp_path)
    manifest, name = storage.read_json(tmp_path / "manifest.json"), f"t{CODES}.jsonl"
    (tmp_path / "test.jsonl").rename(tmp_path / name)
    manifest["splits"]["test"] |= {"file": name, "sha256": "0"}
    storage.write_json(tmp_path / "manifest.json", manifest)
    lines = on_a_terminal("data", "audit", tmp_path)
    assert [line for line in lines if not line.isprintable()] == []
    assert r"- t\x1b[2J\x9b31m\u202e\x07\x7f.jsonl is not the file that the manifest describes" in lines


def test_an_error_quotes_a_row_and_commands_no_terminal(monkeypatch, capsys):
    def fail(**_):
        raise ElleError(f"{CODES} is bad", where=f"row {CODES}")

    monkeypatch.setattr(cli, "cli", fail)
    with pytest.raises(SystemExit):
        cli.main()
    shown = r"\x1b[2J\x9b31m\u202e\x07\x7f"
    assert capsys.readouterr().err == f"error: {shown} is bad\n  where: row {shown}\n"


def test_two_models_side_by_side(tmp_path, data, rows):
    bad = {name: text.replace("1", "2") for name, text in right(rows).items()}
    bad.popitem()
    files = write(tmp_path / "good.jsonl", right(rows)), write(tmp_path / "bad.jsonl", bad)
    arguments = ("--data", data, "--outputs", files[0], "--against", files[1])
    found = json.loads(elle(*arguments, "--json").stdout)["against"]
    assert (found["rows"], found["compared"], found["only_b"]) == (25, 24, 1)
    assert found["metrics"]["numeric_precision"]["p_holm"] < 0.01
    text = elle(*arguments).stdout
    assert text.splitlines()[0].split()[:4] == ["metric", "against", "outputs", "difference"]
    assert "compared on 24 of 25 rows; no output: against alone 1, outputs alone 0, both 0" in text


@pytest.mark.parametrize(
    ("given", "lacking"),
    [("", "--outputs"), ("--endpoint http://127.0.0.1:9", "--model"), ("--outputs o.jsonl --price 3", "--endpoint")],
)
def test_options_that_do_not_fit_are_refused(data, given, lacking):
    done = elle("--data", data, *given.split())
    assert done.exit_code == 2
    assert lacking in done.output


def test_an_address_that_cannot_be_meant():
    for address, what in (("localhost:8000", "not an address"), ("http://me:pw@x/v1", "password")):
        with pytest.raises(ElleError, match=what) as caught:
            Endpoint(address, "elle")
        assert "pw" not in str(caught.value)
    assert Endpoint("http://127.0.0.1:8000/", "elle").base_url == "http://127.0.0.1:8000/v1"
    assert Endpoint("https://x.org/openai/v1", "elle").base_url == "https://x.org/openai/v1"


@pytest.fixture
def file(tmp_path):
    return tmp_path / "new" / "o.jsonl"


@pytest.fixture
def ask(data, server, file):
    """The command against that server, with its outputs in `file`: ask(*options)."""
    given = ("--data", data, "--endpoint", server.url, "--model", "m", "--outputs", file)
    return lambda *options: elle(*given, *options)


def test_a_server_is_asked_and_the_answers_are_kept(rows, oracle, ask, server, file):
    card = json.loads(ask("--json", "--price", 3.6).stdout)
    assert card["metrics"]["all_right"]["value"] == 1
    assert read_outputs(file) == right(rows)
    assert [row["id"] for row in storage.read_lines(file)] == [row["id"] for row in rows]
    assert (card["usage"]["asked"], card["usage"]["kept"], card["answers"]) == (25, 0, str(file))
    assert card["usage"]["dollars_a_briefing"] == pytest.approx(card["usage"]["seconds"] / 1000 / 25, rel=0.01)
    assert card["requests"]["completion_tokens"] == {"value": 2.0, "n": 25, "low": 2.0, "high": 2.0}
    assert (server.seen[0]["temperature"], server.seen[0]["max_tokens"]) == (0, 700)

    again = json.loads(ask("--json", "--price", 3.6).stdout)
    assert len(oracle.asked) == 25
    assert (again["usage"]["asked"], again["usage"]["kept"], again["usage"]["dollars_a_briefing"]) == (0, 25, None)
    assert again["metrics"] == card["metrics"]


def test_the_file_has_a_name_by_itself(data, server):
    done = elle("--data", data, "--endpoint", server.url, "--model", "me/m 1", "--limit", 2, "--json")
    assert json.loads(done.stdout)["answers"].endswith(f"/runs/evaluate/me-m-1-{data.name}.jsonl")


def test_failed_requests_are_asked_again_and_others_not(rows, oracle, ask, file):
    oracle.broken = unlucky = {row["id"] for row in rows[3:6]}
    done = ask("--json")
    assert "3 of 25 requests have no answer; the first: HTTP 400: out of luck" in str(done.exception)
    assert scored(done)[1:] == (25, 22)
    assert {row["id"] for row in storage.read_lines(file) if row["output"] is None} == unlucky
    oracle.asked.clear()
    oracle.broken = set()
    assert scored(ask("--json"))[1:] == (25, 25)
    assert set(oracle.asked) == unlucky
    assert len(list(storage.read_lines(file))) == 25


def test_a_wider_limit_asks_for_the_rest_and_a_narrower_one_loses_nothing(oracle, ask, file):
    for limit, asked in ((5, 5), (12, 12), (3, 12)):
        assert scored(ask("--json", "--limit", limit))[1:] == (limit, limit)
        assert len(oracle.asked) == asked
    assert len(read_outputs(file)) == 12


@pytest.mark.parametrize("change", ["--model other", "--max-tokens 64", "--constrained", "--data"])
def test_another_question_is_not_taken_for_answered(tmp_path, rows, oracle, ask, file, change):
    assert ask().exit_code == 0
    if change == "--data":  # with other prompts
        storage.write_lines(tmp_path / "o.jsonl", json.loads(json.dumps(rows).replace("alerts ", "alerts 1")))
        change = f"--data {tmp_path / 'o.jsonl'}"
    before = file.read_bytes()
    said = str(ask(*change.split()).exception)
    assert "already holds other outputs" in said
    assert "asked otherwise" in said
    assert (file.read_bytes(), len(oracle.asked)) == (before, 25)


def test_a_file_that_it_did_not_write_is_left_alone(rows, ask, file):
    before = write(file, right(rows)).read_bytes()
    assert "already holds other outputs" in str(ask().exception)
    assert file.read_bytes() == before


def test_constrained_sends_the_schema_of_the_set(rows, ask, server):
    assert ask("--constrained").exit_code == 0
    schema = server.seen[0]["response_format"]["json_schema"]["schema"]
    assert (len(schema["required"]), schema["additionalProperties"]) == (8, False)
    cic = [dataset.row("cic", 5, 0)]
    assert len(schema_of(cic)["required"]) == 12
    with pytest.raises(ElleError, match="both sets"):
        schema_of([*rows, *cic])


def test_a_server_that_is_down_is_said_at_once_and_nothing_is_lost(rows, server, file):
    endpoint = Endpoint(server.url, "m")
    collect(endpoint, rows, file, identity="", limit=10)
    kept = read_outputs(file)
    server.http.shutdown()
    server.http.server_close()
    with pytest.raises(ElleError, match=r"(?s)none of 15 .*no connection.*check that the server runs"):
        collect(endpoint, rows, file, identity="", concurrency=4, retries=0)
    assert read_outputs(file) == kept


def test_a_server_that_dies_midway_is_not_asked_for_the_rest(rows, oracle, fake, file):
    """A thousand requests, each with its pauses, would have taken minutes to say so."""

    def behave(body, earlier):
        return oracle(body, earlier) if len(oracle.asked) < 8 else (401, {"error": {"message": "your key is void"}})

    one = fake(behave)
    batch = collect(Endpoint(one.url, "m"), rows, file, identity="", concurrency=2, retries=0)
    assert len(read_outputs(file)) in (8, 9)  # two are asked at once
    assert len(one.seen) <= 9 + 3
    assert batch.failed[-1].error.startswith(
        "not sent: the requests before it failed (HTTP 401: your key is void; no key was sent"
    )


def test_a_key_that_the_server_repeats_is_not_kept(rows, fake, file, monkeypatch):
    one = fake(lambda *_: (401, {"error": {"message": "bad key s3cr3t-value"}}))
    monkeypatch.setenv("OPENAI_API_KEY", "s3cr3t-value")
    monkeypatch.setenv("OPENAI_BASE_URL", one.url)
    with pytest.raises(ElleError) as caught:
        collect(Endpoint(one.url, "m"), rows, file, identity="")
    assert one.seen[0]["key"] == "Bearer s3cr3t-value"
    assert "s3cr3t-value" not in str(caught.value) + file.read_text()


@pytest.mark.parametrize(
    ("refused", "gone"), [("repetition_penalty", "repetition_penalty"), ("max_completion_tokens", "max_tokens")]
)
def test_a_server_that_knows_fewer_options_is_asked_in_its_terms(rows, oracle, fake, file, refused, gone):
    """OpenAI's own server refuses vLLM's repetition_penalty, and its newer models max_tokens."""
    refusal = 400, {"error": {"message": f"unsupported; see {refused}"}}
    one = fake(lambda body, earlier: refusal if gone in body else oracle(body, earlier))
    assert collect(Endpoint(one.url, "m"), rows, file).failed == []
    assert gone not in one.seen[-1]
    assert one.seen[-1].get("max_tokens", one.seen[-1].get("max_completion_tokens")) == 400


def test_a_lone_surrogate_survives(rows, fake, file):
    text = '{"political": "\ud800"}'
    one = fake(lambda *_: (200, completion(text)))
    for _ in range(2):
        collect(Endpoint(one.url, "m"), rows[:2], file, identity="")
        assert set(read_outputs(file).values()) == {text}
    assert len(one.seen) == 2


def test_a_cut_off_last_line_is_asked_again(rows, oracle, server, file):
    """The machine went down in the middle of a line."""
    collect(Endpoint(server.url, "m"), rows, file, identity="")
    file.write_bytes(file.read_bytes()[:-40])
    collect(Endpoint(server.url, "m"), rows, file, identity="")
    assert oracle.asked[25:] == [rows[-1]["id"]]
    assert read_outputs(file) == right(rows)


def test_a_retrained_model_of_the_same_name_is_another(rows, oracle, server, file):
    collect(Endpoint(server.url, "m"), rows, file, identity="first")
    with pytest.raises(ElleError, match="asked otherwise"):
        collect(Endpoint(server.url, "m"), rows, file, identity="second")
    collect(Endpoint(server.url, "m"), rows[:4], file)  # without an identity all are asked, and the file is made anew
    assert (len(oracle.asked), len(read_outputs(file))) == (29, 4)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_killed_command_goes_on(data, oracle, fake, file, how):
    """Answers were written only when all had come: a kill lost them all."""
    gate = threading.Event()

    def behave(body, earlier):
        if len(oracle.asked) >= 10:
            gate.wait(120)
        return oracle(body, earlier)

    one = fake(behave)
    command = [
        sys.executable, "-m", "helpers.cli", "evaluate", "--data", str(data), "--endpoint", one.url, "--model", "m",
        "--outputs", str(file), "--concurrency", "2", "--json",
    ]  # fmt: skip
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    wait_for(lambda: file.exists() and file.read_bytes().count(b"\n") >= 10, process)
    process.send_signal(how)
    _, said = process.communicate(timeout=120)
    gate.set()
    assert process.returncode == (-9 if how == signal.SIGKILL else 130)
    assert "Traceback" not in said
    assert how == signal.SIGKILL or f"what was answered is kept in {file}" in said
    assert len(read_outputs(file)) >= 10
    while one.now:  # requests that were in flight
        time.sleep(0.01)
    before = len(oracle.asked)
    card = json.loads(subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout)
    assert card["usage"]["kept"] >= 10
    assert len(oracle.asked) - before == card["usage"]["asked"] == 25 - card["usage"]["kept"]
    assert card["metrics"]["all_right"]["value"] == 1
