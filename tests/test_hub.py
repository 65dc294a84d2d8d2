"""Publishing a set: the real `huggingface_hub` against a Hub in memory, which fails in every way that a Hub does."""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from click.testing import CliRunner
from contract import Server
from contract.hub import Hub
from huggingface_hub import constants
from hypothesis import given, settings
from hypothesis import strategies as st

from elle import hub as publishing
from elle.base import storage
from elle.base.errors import ElleError
from elle.briefings import dataset
from elle.evaluation.audit import audit, verdict
from helpers import cli

# huggingface_hub hands open files to httpx the old way.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")

TOKEN = "hf_RecognisableTokenThatMustNotLeak"
ROUTES = ["info", "create", "preupload", "batch", "upload", "verify", "validate-yaml", "commit"]
ANSWERED = {"status": 429, "headers": {"Retry-After": "2"}}, {"status": 500}, {"status": 503, "body": b"<html>"}
PASSING = [*ANSWERED, *({"drop": what} for what in ("request", "answer", "done")), {"delay": 0.8}]


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    """Audited sets: basic, cic, and basic as Parquet."""
    folder = tmp_path_factory.mktemp("sets")
    for kind, format in (("basic", "jsonl"), ("cic", "jsonl"), ("basic", "parquet")):
        place = folder / (kind if format == "jsonl" else format)
        dataset.build(kind, 120, 7, place, format=format)
        assert audit(place)["passed"]
    return folder


@pytest.fixture
def basic(sets, tmp_path):
    return Path(shutil.copytree(sets / "basic", tmp_path / "basic"))


@pytest.fixture(autouse=True)
def _at_home(monkeypatch, tmp_path, loopback_only):
    """A token, an empty cache, no settings of the user's, and nothing but loopback."""
    for name in ("HF_ENDPOINT", "HF_USERNAME", "HF_DATASET_REPO"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_XET_CACHE", str(tmp_path / "xet"))


@pytest.fixture(autouse=True)
def waits(monkeypatch):
    """The seconds that `push` waited between its tries, none of them really."""
    waited = []
    monkeypatch.setattr(publishing, "time", SimpleNamespace(sleep=waited.append))
    return waited


@pytest.fixture
def ada(hub):
    """The Hub, where the token is ada's."""
    hub.tokens[TOKEN] = "ada"
    return hub


def push(hub, folder, repo="ada/elle", **options):
    """`publishing.push`, with the options of `send` too, to this Hub."""
    sending = {
        name: options.pop(name) for name in ("retries", "until", "timeout", "progress", "say") if name in options
    }
    planned = publishing.upload_plan(folder, repo, **{"verdict": []} | options)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_ENDPOINT", hub.server.url)
        return publishing.send(planned, **{"timeout": 5.0} | sending)


def stands(hub, repo="ada/elle") -> dict[str, bytes]:
    files = dict(hub.repositories["datasets", repo].head.files)
    del files[".gitattributes"]
    return files


def on_disk(folder) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def command(hub, folder, **environment) -> subprocess.Popen:
    """`elle data push` of a folder to this Hub, in a process of its own."""
    online = {"HF_ENDPOINT": hub.server.url, "HF_HUB_OFFLINE": "0", "TRANSFORMERS_OFFLINE": "0"}
    words = [sys.executable, "-m", "helpers.cli", "data", "push", str(folder), "--repo", "ada/elle"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(words, env=os.environ | online | environment, **pipes)


def elle(*words):
    return CliRunner().invoke(cli.cli, ["data", "push", *map(str, words)])


def wait_for(arrived, process) -> None:
    until = time.monotonic() + 120
    while not arrived() and time.monotonic() < until and process.poll() is None:
        time.sleep(0.01)


@pytest.mark.parametrize("kind", ["basic", "cic", "parquet"])
def test_a_set_is_pushed_once(sets, ada, kind):
    folder, told = sets / kind, []
    pushed = push(ada, folder, verdict=verdict(folder), progress=lambda *at: told.append(at))
    repository = ada.repositories["datasets", "ada/elle"]
    assert repository.private
    assert [commit.message for commit in repository.commits] == ["initial commit", f"Elle's briefings: {kind}"]
    assert (pushed.new, pushed.commit, pushed.private) == (True, repository.head.id, True)
    assert pushed.url == f"{ada.server.url}/datasets/ada/elle"
    assert pushed.size == sum(map(len, on_disk(folder).values()))
    assert told == sorted(told)
    assert told[-1] == (pushed.size, pushed.size)
    assert stands(ada) == on_disk(folder)
    uploads = ada.server.count("upload")
    again = push(ada, folder)
    assert (again.new, again.commit, len(repository.commits)) == (False, pushed.commit, 2)
    assert ada.server.count("upload") == uploads > 0


def test_a_published_set_loads_with_datasets(sets, ada, tmp_path):
    push(ada, sets / "cic")
    code = "import datasets; read = datasets.load_dataset('ada/elle'); print(read.num_rows, read['test'][0]['id'])"
    environment = os.environ | {"HF_ENDPOINT": ada.server.url, "HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "0"}
    environment |= {"HF_HUB_CACHE": str(tmp_path / "hub"), "HF_DATASETS_CACHE": str(tmp_path / "datasets")}
    environment |= {"HF_HUB_DISABLE_TELEMETRY": "1", "TRANSFORMERS_OFFLINE": "0", "HF_DATASETS_OFFLINE": "0"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=300)
    assert done.stdout == "{'train': 108, 'validation': 6, 'test': 6} cic-7-0\n", done.stderr


def test_one_set_replaces_another_and_leaves_other_files_alone(sets, ada):
    push(ada, sets / "basic")
    repository = ada.repositories["datasets", "ada/elle"]
    repository.commit("by hand", repository.head.files | {"notes.md": b"mine"})
    push(ada, sets / "parquet")
    # A bug it would be: train.jsonl beside train.parquet, of two different sets.
    assert stands(ada) == on_disk(sets / "parquet") | {"notes.md": b"mine"}
    assert len(repository.commits) == 4


def test_a_public_set_is_public_only_when_asked_for(sets, ada):
    push(ada, sets / "basic", private=False)
    assert not ada.repositories["datasets", "ada/elle"].private
    ada.server.requests.clear()
    with pytest.raises(ElleError, match=r"(?s)exists and is public.*--public"):
        push(ada, sets / "cic")
    assert {request.method for request in ada.server.requests} == {"GET"}
    ada.repositories["datasets", "ada/elle"].private = True
    with pytest.raises(ElleError, match="exists and is private"):
        push(ada, sets / "cic", private=False)


def test_a_dry_run_lists_what_would_go_without_token_or_network(basic, ada, monkeypatch):
    monkeypatch.delenv("HF_TOKEN")
    for name, value in {"HF_ENDPOINT": ada.server.url, "HF_USERNAME": "ada", "HF_DATASET_REPO": "elle"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    listed = json.loads(elle(basic, "--dry-run", "--json").stdout)
    assert (listed["repository"], listed["private"]) == ("ada/elle", True)
    assert {file["name"]: file["sha256"] for file in listed["files"]} == {
        name: hashlib.sha256(content).hexdigest() for name, content in on_disk(basic).items()
    }
    out = elle(basic, "--dry-run", "--public", "--repo", "mine").stdout
    assert out.startswith("would go to a PUBLIC dataset repository ada/mine\n")
    assert all(name in out for name in on_disk(basic))
    assert ada.server.requests == []


def test_the_command_pushes_and_says_so(basic, ada, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", ada.server.url + "/")
    assert json.loads(elle(basic, "--repo", "elle", "--json").stdout)["repository"] == "ada/elle"
    assert stands(ada) == on_disk(basic)
    ada.server.fail("info", status=401)
    assert "the Hub does not accept the token" in str(elle(basic, "--repo", "ada/elle").exception)


def test_a_set_that_did_not_pass_its_audit_is_refused_unless_forced(basic, ada):
    (basic / "audit.json").rename(basic.parent / "audit.json")
    assert verdict(basic) is None
    with pytest.raises(ElleError, match=r"(?s)not been audited.*elle data audit"):
        push(ada, basic, verdict=None)
    push(ada, basic, verdict=None, force=True)
    assert {*stands(ada)} == {"train.jsonl", "validation.jsonl", "test.jsonl", "manifest.json"}  # no card of another

    found = storage.read_json(basic.parent / "audit.json") | {"faults": ["political is wrong"], "passed": False}
    storage.write_json(basic / "audit.json", found)
    with pytest.raises(ElleError, match="failed its audit: political is wrong"):
        push(ada, basic, verdict=verdict(basic))
    push(ada, basic, verdict=verdict(basic), force=True)
    assert b"political is wrong" in stands(ada)["audit.json"]


def test_a_folder_that_is_not_what_its_manifest_says_is_refused(basic, ada, tmp_path):
    with pytest.raises(ElleError, match="no data set here"):
        push(ada, tmp_path)
    with (basic / "test.jsonl").open("a") as file:
        file.write("{}\n")
    with pytest.raises(ElleError, match=r"(?s)not the file that the manifest describes.*test\.jsonl"):
        push(ada, basic)
    (basic / "test.jsonl").unlink()
    with pytest.raises(ElleError, match=r"'test.jsonl' is not in its folder"):
        push(ada, basic)
    # A manifest from elsewhere must not publish the user's other files.
    (basic / "manifest.json").write_text((basic / "manifest.json").read_text().replace("test.jsonl", "../id_rsa"))
    with pytest.raises(ElleError, match="does not describe the files of a data set"):
        push(ada, basic)
    assert ada.server.requests == []


def test_a_file_that_changes_while_it_is_sent_is_not_committed(basic, ada, waits, monkeypatch):
    change = SimpleNamespace(sleep=lambda _: (basic / "train.jsonl").write_text("another\n"))
    monkeypatch.setattr(publishing, "time", change)
    ada.server.fail("batch", status=500, after=1)
    with pytest.raises(ElleError, match="changed while it was being sent"):
        push(ada, basic)
    assert stands(ada) == {}


@pytest.mark.parametrize(
    ("named", "user", "default", "found"),
    [("ada/x", "bob", "y", "ada/x"), ("x", "bob", "ada/y", "bob/x"), (None, "bob", "y", "bob/y"), (None, "", "y", "y")],
)
def test_the_repositorys_name(basic, monkeypatch, named, user, default, found):
    monkeypatch.setenv("HF_USERNAME", user)
    monkeypatch.setenv("HF_DATASET_REPO", default)
    assert publishing.upload_plan(basic, named, verdict=[]).repository == found
    monkeypatch.setenv("HF_DATASET_REPO", "ada/y")  # with its user
    assert publishing.upload_plan(basic, None, verdict=[]).repository == "ada/y"


@pytest.mark.parametrize("name", ["", "a/b/c", "a b", "/x", "x/", "../x", "a..b", "a--b", "-a", "é", "a" * 97, "a\n"])
def test_what_is_no_repositorys_name_is_refused(basic, name):
    with pytest.raises(ElleError, match="repository"):
        publishing.upload_plan(basic, name, verdict=[])


def test_without_a_token_in_the_environment_nothing_is_sent(basic, ada, monkeypatch, tmp_path):
    (tmp_path / "token").write_text(TOKEN)  # that of `hf auth login` may be another account's
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    for token in (None, "", "  ", "hf_with a space", f"{TOKEN}\nX-Evil: 1", "hf_é"):
        monkeypatch.delenv("HF_TOKEN", raising=False)
        if token is not None:
            monkeypatch.setenv("HF_TOKEN", token)
        with pytest.raises(ElleError, match="token") as caught:
            push(ada, basic)
        assert "HF_TOKEN" in caught.value.where
        assert TOKEN not in str(caught.value)
    assert ada.server.requests == []


@pytest.mark.parametrize("url", ["http://example.org", "ftp://127.0.0.1", "huggingface.co", "https://a:b@example.org"])
def test_a_token_goes_to_no_unsafe_address(basic, url, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", url)
    with pytest.raises(ElleError, match="https"):
        publishing.push(basic, "ada/elle", verdict=[])


def test_a_redirect_takes_no_token_along(ada, monkeypatch):
    """The Hub does redirect: to the storage that holds large files."""
    monkeypatch.setenv("HF_ENDPOINT", ada.server.url)
    with Server(Hub()) as other:
        ada.server.fail("resolve", status=302, headers={"Location": f"{other.url}/x"})
        assert publishing.read_remote("ada/elle", "dataset", "x") is None
    assert [request.token for request in (*ada.server.requests, *other.requests)] == [TOKEN, None]


@pytest.mark.parametrize(
    ("status", "said"), [(401, "does not accept the token"), (403, "may not write"), (413, "refuses with 413")]
)
@pytest.mark.parametrize("route", ["info", "batch", "commit"])
def test_a_refusal_is_not_tried_again_and_does_not_quote_the_token(basic, ada, waits, status, said, route):
    body = json.dumps({"error": f"no, {TOKEN}"}).encode()
    ada.server.fail(route, status=status, body=body, headers={"Content-Type": "application/json"}, times=99)
    with pytest.raises(ElleError, match=said) as caught:
        push(ada, basic)
    assert waits == []
    assert ada.server.count(route) == 1
    assert "(it said: no, …" in str(caught.value)
    assert TOKEN not in str(caught.value) + repr(caught.value)
    assert caught.value.__cause__ is caught.value.__context__ is None  # or a traceback would quote the server
    assert caught.value.fix


def test_what_the_hub_answers_is_named_as_the_reason(basic, ada):
    for route, fault, what in (
        ("info", {"status": 200, "body": b"<html>welcome</html>"}, r"(?s)cannot be used.*is this address a Hub's\?"),
        ("tree", {"status": 200, "body": [{"type": "file", "path": "train.jsonl", "size": 1, "oid": "0"}]},
         r"does not hold this file as it was sent\n.*ada/elle: train\.jsonl"),
        ("info", {"status": 404, "headers": {"X-Error-Code": "RepoNotFound"}, "times": 99}, "may not see it"),
    ):  # fmt: skip
        ada.server.fail(route, **fault)
        with pytest.raises(ElleError, match=what):
            push(ada, basic)


def test_the_token_stands_in_authorization_headers_only(basic, ada, tmp_path):
    """The command in a process of its own, with the library's debugging on, through failures, to both ends."""
    ada.server.fail("info", delay=1.0)
    ada.server.fail("upload", drop="request")
    debugged = {"HF_DEBUG": "1", "HF_HOME": str(tmp_path / "home")}
    with command(ada, basic, **debugged) as process:
        wait_for(lambda: ada.server.requests, process)
        shown = Path(f"/proc/{process.pid}/cmdline").read_bytes()
        out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert b"again in" in err
    ada.server.fail("commit", status=403, body=TOKEN.encode(), times=9)
    (basic / "README.md").write_text("another card\n")
    with command(ada, basic, **debugged) as refused:
        said = refused.communicate(timeout=120)
    assert refused.returncode == 1
    assert not any(TOKEN.encode() in text for text in (shown, out, err, *said))
    for place in (basic, tmp_path / "home"):
        for path in place.rglob("*"):
            assert path.is_dir() or TOKEN.encode() not in path.read_bytes(), path
    for request in ada.server.requests:
        others = {name: value for name, value in request.headers.items() if name != "authorization"}
        assert TOKEN not in f"{request.path}{request.query}{others}"
        assert TOKEN.encode() not in request.body
        another_host = request.route in ("upload", "storage")
        assert request.headers.get("authorization") == (None if another_host else f"Bearer {TOKEN}")


@pytest.mark.parametrize("fault", PASSING, ids=str)
@pytest.mark.parametrize("route", ROUTES)
def test_what_fails_once_is_tried_again_and_committed_once(sets, ada, waits, route, fault):
    said = []
    ada.server.fail(route, **fault)
    slow = "delay" in fault
    pushed = push(ada, sets / "basic", timeout=0.4 if slow else 5.0, say=said.append)
    while slow and ada.server.busy:  # the Hub goes on with what its client gave up
        time.sleep(0.01)
    assert stands(ada) == on_disk(sets / "basic")
    assert len(ada.repositories["datasets", "ada/elle"].commits) == 2
    assert pushed.new
    assert len(waits) == len(said)
    assert len(waits) == 1 or (slow and waits)  # on a busy machine other answers may be late
    assert waits[0] >= (2 if fault.get("status") == 429 else 0.5)
    assert "again in" in said[0]


def test_what_others_commit_at_the_same_time_is_kept(sets, ada, waits):
    repository = ada.add("datasets", "ada/elle")

    def meanwhile(*at):
        if len(repository.commits) == 1:
            repository.commit("by another", repository.head.files | {"theirs.md": b"theirs"})

    push(ada, sets / "basic", progress=meanwhile)
    assert stands(ada) == on_disk(sets / "basic") | {"theirs.md": b"theirs"}
    assert (len(repository.commits), len(waits)) == (3, 1)


def test_waits_grow_with_jitter_and_the_hubs_own_is_honoured_or_said(sets, ada, waits):
    ada.server.fail("info", status=502, times=5)
    push(ada, sets / "basic")
    for attempt, wait in enumerate(waits):
        assert 0.5 * 2**attempt <= wait <= 1.5 * 2**attempt
    assert len(set(waits)) == 5
    asked = {"Retry-After": "77"}, {"RateLimit": '"api";r=0;t=55'}, {"Retry-After": "-5"}
    for headers, wait in zip(asked, (77, 55, 1), strict=True):
        waits.clear()
        ada.server.fail("preupload", status=429, headers=headers)
        push(ada, sets / "basic")
        assert waits == [pytest.approx(wait, abs=0.5)]
    waits.clear()
    ada.server.fail("preupload", status=429, headers={"Retry-After": "301"})
    with pytest.raises(ElleError, match=r"429 Too Many Requests, 1 try; it asks for a wait of 301 s"):
        push(ada, sets / "basic")  # too long: say so rather than hang
    assert waits == []


@pytest.mark.parametrize(
    "fault",
    [{"status": 429, "headers": {"Retry-After": "4000"}}, {"status": 503}, {"drop": "request"}, {"status": 403},
     {"status": 200, "body": b"<html>"}],
    ids=str,
)  # fmt: skip
def test_with_a_deadline_it_is_tried_until_then_whatever_the_hub_answers(sets, ada, monkeypatch, fault):
    """Five minutes of it lose nothing that was trained."""
    now = [1000.0]

    def sleep(wait):
        now[0] += wait
        if now[0] > 1300.0:
            ada.server.faults.clear()

    monkeypatch.setattr(publishing, "time", SimpleNamespace(sleep=sleep, monotonic=lambda: now[0]))
    ada.server.fail("commit", **fault, times=1000)
    with pytest.raises(ElleError):
        push(ada, sets / "basic", until=1200.0)
    assert 1200.0 <= now[0] < 1202.0  # its last try was not long before
    now[0] = 1000.0
    push(ada, sets / "basic", until=2000.0)
    assert stands(ada) == on_disk(sets / "basic")


def test_a_push_that_failed_loses_nothing_and_goes_on(basic, ada, waits):
    before = on_disk(basic)
    ada.server.fail("upload", drop="request", after=1, times=99)
    with pytest.raises(ElleError, match=r"(?s)did not take the set.*3 tries.*goes on"):
        push(ada, basic, retries=2)
    assert on_disk(basic) == before
    ada.server.faults.clear()
    ada.server.requests.clear()
    assert push(ada, basic).new
    resent = [request.path for request in ada.server.requests if request.route == "upload"]
    assert not any(hashlib.sha256(before["train.jsonl"]).hexdigest() in path for path in resent)


def test_an_interrupted_push_ends_at_once_and_goes_on(basic, ada):
    ada.server.fail("upload", delay=60, after=1)
    with command(ada, basic) as process:
        wait_for(lambda: ada.server.count("upload") == 2, process)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err.strip()) == (130, b"", b"interrupted")
    assert stands(ada) == {}
    assert push(ada, basic).new
    assert stands(ada) == on_disk(basic)


def test_a_hub_that_cannot_be_reached_is_said_so(basic, ada, waits, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(ElleError, match=r"the connection failed.*6 tries") as caught:
        publishing.push(basic, "ada/elle", verdict=[])
    assert (caught.value.where, len(waits)) == ("http://127.0.0.1:9", 5)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ElleError, match=r"(?s)offline.*unset HF_HUB_OFFLINE"):
        push(ada, basic)
    assert ada.server.requests == []


@settings(max_examples=20, deadline=None)
@given(st.lists(st.tuples(*map(st.sampled_from, ([*ROUTES, None], PASSING[:-1], range(7), range(1, 5)))), max_size=6))
def test_whatever_fails_the_repository_shows_the_old_set_or_the_new_one(sets, faults):
    service = Hub()
    service.tokens[TOKEN] = "ada"
    with Server(service) as service.server:
        push(service, sets / "basic")
        old, new = on_disk(sets / "basic"), on_disk(sets / "cic")
        for route, fault, after, times in faults:
            service.server.fail(route, **fault, after=after, times=times)
        try:
            push(service, sets / "cic", retries=1)
        except ElleError:
            assert stands(service) in (old, new)
        else:
            assert stands(service) == new
        service.server.faults.clear()
        push(service, sets / "cic")
        assert stands(service) == new
        assert len(service.repositories["datasets", "ada/elle"].commits) == 3
