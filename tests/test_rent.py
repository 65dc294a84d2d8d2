"""Renting: every command against RunPod and a Hub in memory, which fail as they do; and the pod's own script, run."""

import dataclasses
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import serverless_request
import soak_pod as soak
import tenacity.nap
from click.testing import CliRunner
from contract import Server
from contract.hub import Hub
from contract.runpod import RunPod
from huggingface_hub import constants

import renting
from elle import hub
from elle.base import paths, storage, yaml_files
from elle.base.errors import ElleError
from elle.briefings import dataset
from elle.evaluation.audit import audit
from elle.plan import axolotl
from helpers import cli
from renting import lifecycle, on_pod, pods, record, runpod, uploads

# huggingface_hub hands open files to httpx the old way.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")

KEY, TOKEN = "rpa_RecognisableKeyThatMustNotLeak", "hf_RecognisableTokenThatMustNotLeak"
RECIPE = "configs/config_3b_qlora.yaml"
CASES = yaml_files.read_yaml(Path(__file__).parent / "fixtures" / "rented.yaml")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """An audited set."""
    folder = tmp_path_factory.mktemp("rented") / "basic"
    dataset.build("basic", 120, 7, folder)
    assert audit(folder)["passed"]
    return folder


@pytest.fixture(autouse=True)
def _bare(monkeypatch, tmp_path, loopback_only):
    """No account, no settings of the user's, short waits, and nothing but loopback."""
    for name in (*record.VARIABLES, "HF_ENDPOINT", runpod.REST, runpod.QUEUE, "ELLE_GPU_PRICE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    monkeypatch.setattr(runpod, "FIRST_WAIT", 0.01)
    for name, seconds in {"LAG": 0.3, "LATE": 1.0, "LOOK": 0.02}.items():
        monkeypatch.setattr(lifecycle, name, seconds)
    monkeypatch.setattr(hub, "FIRST_WAIT", 0.01)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def account(monkeypatch, tmp_path):
    """RunPod with the Hub beside it, and an environment in which both are ada's."""
    service = RunPod(Hub(), folder=tmp_path / "pods")
    service.hub.tokens[TOKEN] = "ada"
    service.keys.add(KEY)
    with Server(service, service.hub) as service.server:
        url = service.server.url
        names = {"HF_USERNAME": "ada", "HF_DATASET_REPO": "elle-data", "HF_MODEL_REPO": "elle-model"}
        places = {"HF_ENDPOINT": url, runpod.REST: f"{url}/v2", runpod.QUEUE: f"{url}/queue"}
        for name, value in ({"RUNPOD_API_KEY": KEY, "HF_TOKEN": TOKEN} | names | places).items():
            monkeypatch.setenv(name, value)
        yield service
    service.close()


def pod(*arguments):
    return CliRunner().invoke(cli.cli, ["pod", *map(str, arguments)])


def up(data, *arguments, run="first"):
    return pod("up", RECIPE, "--data", data, "--run-id", run, "--poll", "0.02", "--yes", *arguments)


# ---- up


def test_a_training_is_rented_checked_and_ended(account, data):
    done = up(data)
    assert done.exit_code == 0, done.output
    assert not account.pods
    assert [pod["name"] for pod in account.gone] == [record.load_rental("first").name]
    repositories = account.hub.repositories
    assert all(repository.private for repository in repositories.values())
    sent = repositories["datasets", "ada/elle-data"].head.files
    for split in dataset.SPLITS:
        assert sent[f"runs/first/data/{split}.jsonl"] == (data / f"{split}.jsonl").read_bytes()
    assert sent[f"runs/first/recipes/{Path(RECIPE).name}"] == (paths.root() / RECIPE).read_bytes()
    assert "ada/elle-model" in done.output
    status = json.loads(pod("status", "--json").output)  # the newest run; nothing is asked any more
    assert (status["state"], status["weights"], status["costs"]) == ("succeeded", ["ada/elle-model"], False)


@pytest.mark.parametrize(("life", "state", "message"), CASES["lives"])
def test_a_pod_that_fails_is_ended_and_explained(account, data, life, state, message, monkeypatch):
    account.life = life
    monkeypatch.setattr(pods, "START", 0.2)
    assert message in str(up(data).exception)
    assert not account.pods
    assert record.load_rental("first").state == state
    assert message in pod("status").output
    assert pod("status").exit_code == 1
    if life == "dies":  # a report that is taken up late still counts, whatever was thought meanwhile
        account.report(account.gone[0], account.trained(account.gone[0]))
        for state in ("lost", "expired", "refused", "never-started"):
            record.load_rental("first").settle(state)
            assert renting.status("first").state == "succeeded"


def test_a_pod_that_hangs_is_ended_by_its_own_timer_and_at_last_from_here(account, data, monkeypatch):
    """On a clock of the test's own: hours pass between two looks."""
    now = [time.time()]
    account.clock = lambda: now[0]
    hands = {"time": lambda: 0.0, "sleep": lambda _: now.__setitem__(0, now[0] + 600.0)}  # and a clock that stands
    for module in (pods, record):
        monkeypatch.setattr(module, "time", SimpleNamespace(**vars(time) | hands))
    monkeypatch.setattr(record, "uptime", lambda: now[0])
    account.life = "hangs"
    assert up(data).exit_code == 1
    assert record.load_rental("first").state == "expired"
    assert not account.pods
    account.life = "works for ever"  # its timer fails, too: it is ended from here, later
    assert "outlived its own limit" in str(up(data, run="second").exception)
    assert not account.pods


def test_a_run_without_all_variables_is_told_of_each(account, data, monkeypatch):
    for name in record.VARIABLES:
        monkeypatch.delenv(name)
    assert "RUNPOD_API_KEY" in str(up(data, "--price", "2").exception)
    monkeypatch.setenv("RUNPOD_API_KEY", KEY)
    message = str(up(data).exception)
    for name in ("HF_TOKEN", "HF_USERNAME", "HF_DATASET_REPO", "HF_MODEL_REPO"):
        assert f"{name}: {record.VARIABLES[name][0]}" in message
    assert not account.pods
    assert not account.hub.repositories


def test_nothing_is_sent_before_the_price_is_confirmed(account, data):
    done = pod("up", RECIPE, "--data", data)  # nobody can answer
    assert "not confirmed" in str(done.exception)
    assert f"at most     ${renting.order(RECIPE, data=data, live=False).max_dollars:.2f}" in done.output
    assert {request.route for request in account.server.requests} == {"gpus"}
    assert not record.rentals()


@pytest.mark.parametrize(("arguments", "message", "fix"), CASES["refused"])
def test_what_cannot_be_meant_is_refused_before_anything_is_rented(account, data, arguments, message, fix):
    done = pod("up", *arguments.split(), "--yes", "--data", data)
    assert message in str(done.exception)
    assert fix in done.exception.fix
    assert not account.server.count("create-pod")
    assert not account.hub.repositories


def test_no_gpu_is_left(account, data):
    account.stock["NVIDIA A100-SXM4-80GB"] = "NONE"
    done = up(data)
    assert "no 1 x NVIDIA A100-SXM4-80GB left" in str(done.exception)
    assert "--gpu h200 or h100" in done.exception.fix
    # The last one goes between the look and the request.
    account.stock["NVIDIA A100-SXM4-80GB"] = "LOW"
    account.server.fail("create-pod", status=400, body={"status": 400, "detail": "no longer any instances available"})
    assert "no longer any instances" in str(up(data).exception)
    assert record.load_rental("first").state == "refused"
    assert up(data).exit_code == 0  # the same run again


def test_a_pod_that_is_dearer_than_confirmed_is_ended(account, data):
    account.life, account.asked_more = "works for ever", 0.5
    assert "$2.29 an hour, and $1.79 was confirmed" in str(up(data).exception)
    assert not account.pods
    assert record.load_rental("first").state == "refused"


def test_a_key_that_is_refused_is_named_and_not_shown(account, data, monkeypatch):
    monkeypatch.setenv("RUNPOD_API_KEY", "rpa_another")
    done = up(data)
    assert "does not accept the key" in str(done.exception)
    assert "rpa_another" not in done.output + str(done.exception)
    assert account.server.count("gpus") == 1  # it is not tried again
    with Server(RunPod(Hub())) as other:
        account.server.fail("pods", status=307, headers={"Location": f"{other.url}/v2/pods"})
        with pytest.raises(ElleError, match="refuses with 307"):
            runpod.Client().rented("pod")
        assert other.requests == []
    monkeypatch.setenv("RUNPOD_API_KEY", "rpa_with a blank")
    with pytest.raises(ElleError, match="holds a character"):
        runpod.Client().rented("pod")
    monkeypatch.setenv(runpod.REST, "http://runpod.example/v2")
    with pytest.raises(ElleError, match="must begin with https"):
        runpod.Client().rented("pod")


PASSING = soak.FAILURES[:6]
OTHER_ROUTES = ["gpus", "find-secret", "create-secret", "pods", "commit", "info"]


@pytest.mark.parametrize(
    ("route", "fault"),
    [*(("create-pod", fault) for fault in PASSING), *zip(OTHER_ROUTES, PASSING, strict=True)],
    ids=str,
)
def test_what_fails_once_passes_and_one_pod_is_rented(account, data, route, fault):
    account.server.fail(route, **fault)
    account.steps = (0.0, 0.0, 0.8 if route == "create-pod" else 0.0)
    done = up(data)
    assert done.exit_code == 0, done.output + str(done.exception)
    assert len(account.gone) == 1
    assert not account.pods
    assert list(account.secrets.values()) == [TOKEN]


def test_the_wait_that_runpod_asks_for_is_waited(account, monkeypatch):
    waited = []
    monkeypatch.setattr(tenacity.nap, "time", SimpleNamespace(sleep=waited.append))
    account.server.fail("pods", status=429, headers={"Retry-After": "12"})
    assert runpod.Client().rented("pod") == []
    assert waited == [12.0]
    account.server.fail("pods", status=429, headers={"Retry-After": "4000"})
    with pytest.raises(ElleError, match="asks for a wait of 4000 s"):
        runpod.Client().rented("pod")


#: The answer to a create is lost, or is 500, and it was done: the fault, and the seconds that a list lags behind: none,
#: or more than is waited for it.
TAKEN_UP = [(fault, lag) for fault in ({"drop": "done"}, {"status": 500, "done": True}) for lag in (0.0, 0.6)]


@pytest.mark.parametrize("refused", [False, True])
@pytest.mark.parametrize(("fault", "lag"), TAKEN_UP, ids=str)
def test_a_create_that_is_taken_up_late_leaves_no_second_pod(account, data, fault, lag, refused):
    """The next try finds its pod; or the list does not show it in time, and there are two for a moment, or the next try
    is refused. What turns up later is ended."""
    account.life, account.lag = "works for ever", lag
    account.server.fail("create-pod", **fault)
    if refused:
        account.server.fail("create-pod", status=400, body={"detail": "no longer any instances available"})
    done = up(data, "--detach")
    if refused and lag > lifecycle.LAG:
        assert "no longer any instances" in str(done.exception)
        assert (record.load_rental("first").state, account.pods) == ("refused", {})
        return
    assert done.exit_code == 0
    kept, gone = record.load_rental("first").pod, ["pod1"] if lag > lifecycle.LAG else []
    assert (list(account.pods), [each["id"] for each in account.gone]) == ([kept], gone)  # although nobody watches
    account.pods["late"] = account.pods[kept] | {"id": "late", "_since": 0.0}  # nobody knows whence
    said = []
    assert renting.status("first", said.append).pod == kept
    assert list(account.pods) == [kept]
    assert f"late has the name of {kept}" in said[0]
    assert renting.down("first").state == "stopped"
    assert not account.pods


@pytest.mark.parametrize(
    ("kind", "moment"),
    [*((kind, moment) for kind in ("pod", "endpoint") for moment in ("interrupted", "down")), ("pod", "dearer"),
     ("pod", "no price"), ("pod", "abc")],
)  # fmt: skip
def test_what_comes_while_a_create_is_in_doubt_leaves_nothing(account, data, kind, moment, monkeypatch):
    """RunPod answers 500 and has made it, its list lags behind; then Ctrl-C, `down` from elsewhere, another price."""
    account.life, account.lag = "works for ever", 0.2
    account.server.fail(f"create-{kind}", status=500, done=True)
    account.asked_more = {"dearer": 0.5, "no price": float("nan")}.get(moment, 0.0)
    account.costs = moment if moment == "abc" else None
    slept = []

    def sleep(seconds):
        slept.append(seconds)
        if len(slept) == 1 and moment == "interrupted":
            os.kill(os.getpid(), signal.SIGINT)
        elif len(slept) == 1 and moment == "down":
            assert renting.down("first").state == "stopped"
        time.sleep(seconds)

    monkeypatch.setattr(lifecycle, "time", SimpleNamespace(sleep=sleep))
    done = up(data) if kind == "pod" else pod("deploy", "--run-id", "first", "--yes")
    assert (account.pods, account.endpoints) == ({}, {})
    assert account.gone or account.deleted
    assert (done.exit_code, record.load_rental("first").costs) == (1, False)
    assert isinstance(done.exception, ElleError) or moment == "interrupted"
    assert renting.status("first").state == ("stopped" if moment in ("interrupted", "down") else "refused")


@pytest.mark.parametrize("kind", ["pod", "endpoint"])
@pytest.mark.parametrize("moment", ["waiting", "sent"])
def test_ended_while_a_create_is_tried_again_nothing_is_made_or_left(account, data, kind, moment, monkeypatch):
    """RunPod answers 429; `down` comes from elsewhere while the next try is waited for, or while that is under way."""
    account.life, exchange, tries = "works for ever", runpod.Client._exchange, []
    account.server.fail(f"create-{kind}", status=429)

    def down():
        record.load_rental("first").save(stop=True)
        record.load_rental("first").settle("stopped")

    def strike(client, request):
        tries.extend([1] if request.method == "POST" and "secrets" not in request.path else [])
        if (len(tries), moment) == (2, "sent"):
            down()
        return exchange(client, request)

    monkeypatch.setattr(runpod.Client, "_exchange", strike)
    waits = SimpleNamespace(sleep=lambda _: down() if moment == "waiting" else None)
    monkeypatch.setattr(tenacity.nap, "time", waits)
    done = up(data) if kind == "pod" else pod("deploy", "--run-id", "first", "--yes")
    assert "ended meanwhile" in str(done.exception)
    assert (account.pods, account.endpoints, len(tries)) == ({}, {}, 1 if moment == "waiting" else 2)
    assert renting.status("first").state == "stopped"


def test_ended_is_only_what_is_gone_by_its_id(account, data, monkeypatch):
    """A list that shows nothing says nothing; neither does a pod that is still there after it was ended."""
    account.life = "works for ever"
    up(data, "--detach")
    account.server.fail("pods", status=200, body={"pods": []}, times=1000)
    assert renting.status("first").state == "running"
    account.server.fail("terminate", status=204, times=1000)  # and does nothing
    with pytest.raises(ElleError, match="still there"):
        renting.down("first")
    assert renting.status("first").costs
    account.server.faults.pop()
    assert renting.down("first").state == "stopped"
    assert not account.pods
    # Of a request that was cut off nothing came: it is not said before nothing can come any more.
    second = record.begin("second", "pod", dataset="ada/elle-data").save(
        state="asked", asked=record.uptime(), creates=1
    )
    assert renting.status("second").state == "asked"
    account.server.faults.clear()
    assert renting.down("second").state == "stopped"
    assert record.uptime() - second.asked > lifecycle.LATE
    account.server.fail("create-pod", status=201, body={"cost": 1.0})  # it has no id
    account.server.fail("create-pod", status=201, body=b"<html>")
    assert up(data, "--detach", run="third").exit_code == 0


@pytest.mark.parametrize("signals", CASES["signals"], ids=str)
def test_signals_do_not_cut_the_ending_short_or_it_is_said_how_to_end_it(account, data, monkeypatch, signals):
    """The first one comes between two looks, the others while the pod is being ended."""
    to_come, account.life = [getattr(signal, name) for name in signals["signals"]], "works for ever"
    end, before = runpod.Client.end, [signal.getsignal(number) for number in to_come]

    def strike(*ended):
        while to_come:
            os.kill(os.getpid(), to_come.pop(0))
        end(*ended)

    monkeypatch.setattr(runpod.Client, "end", strike)
    first = {"sleep": lambda _: os.kill(os.getpid(), to_come.pop(0))}
    monkeypatch.setattr(pods, "time", SimpleNamespace(**vars(time) | first))
    done = up(data)
    assert [signal.getsignal(getattr(signal, name)) for name in signals["signals"]] == before
    assert (done.exit_code, to_come, bool(account.pods)) == (1, [], signals["left"])
    assert all(text in done.output for text in signals["said"])
    assert renting.down("first").state == "stopped"
    assert not account.pods


def test_a_lost_connection_does_not_end_the_pod(account, data):
    account.steps = (0.0, 0.0, 0.4)
    account.server.fail("pods", drop="request", after=2, times=20)
    account.server.fail("pods", status=401, after=2, times=2)  # nor does a refusal
    done = up(data)
    assert done.exit_code == 0, str(done.exception)
    assert "Still trying" in done.output
    assert record.load_rental("first").state == "succeeded"


@pytest.mark.parametrize(("work", "said", "state"), CASES["interrupted"])
def test_an_interrupt_terminates_the_pod_and_says_what_becomes_of_it(account, data, monkeypatch, work, said, state):
    """Ctrl-C between two looks."""

    def interrupt(_):
        if work == "succeeds":
            account.report(account.pods["pod1"], account.trained(account.pods["pod1"]))
        elif work == "no network":
            account.server.fail("pods", drop="request", times=100)
        raise KeyboardInterrupt

    account.life = "works for ever"
    monkeypatch.setattr(pods, "time", SimpleNamespace(**vars(time) | {"sleep": interrupt}))
    done = up(data)
    assert done.exit_code == 1
    assert all(text in done.output for text in said)
    account.server.faults.clear()
    if work == "no network":
        assert account.pods
        assert pod("down").exit_code == 0
        state = "stopped"
    assert not account.pods
    assert renting.status("first").state == state


def test_detached_it_is_watched_by_status_from_any_process(account, data):
    for verb in ("status", "logs", "down"):
        assert "nothing was rented" in str(pod(verb).exception)
    now = [0.0]
    account.clock, account.steps = lambda: now[0], (10.0, 10.0, 60.0)
    done = up(data, "--detach")
    assert (done.exit_code, renting.status("first").state) == (0, "provisioning")
    now[0] = 15.0
    assert "loads its image" in pod("status").output
    now[0] = 25.0
    assert "It ends by itself, at the latest" in pod("status").output
    assert pod("logs").output.splitlines()[0] == "working"
    with pytest.raises(ElleError, match="rented already"):
        record.begin("first", "pod")
    account.pods["pod1"]["status"] = "EXITED"  # somebody stopped it: it still costs
    assert renting.status("first").state == "exited"
    account.pods["pod1"]["status"] = "RUNNING"
    account.server.fail("pods", drop="request", times=100)
    assert renting.status("first").state == "unreachable"
    account.server.faults.clear()
    now[0] = 85.0
    assert renting.status("first").state == "succeeded"
    assert pod("logs", "first").output.splitlines() == ["working", "ended"]
    assert pod("down", "first").exit_code == 0  # safe to repeat, and it stays what it was
    assert record.load_rental("first").state == "succeeded"


def test_a_record_before_the_answer_is_enough_to_go_on_from(account, data):
    """The process was killed between the request and the note of its answer."""
    account.life = "works for ever"
    up(data, "--detach")
    before = {"state": "asked", "pod": None, "ids": [], "rented": None}
    record.load_rental("first").save(**before)
    assert renting.status("first").state in ("provisioning", "running")
    record.load_rental("first").save(**before)
    assert renting.down("first").state == "stopped"
    assert not account.pods
    # Or no pod came of it: for a while it may still be taken up, then not.
    asked = {"state": "asked", "creates": 1}
    record.begin("second", "pod", dataset="ada/elle-data").save(asked=record.uptime(), **asked)
    assert renting.status("second").state == "asked"
    record.load_rental("second").save(asked=record.uptime() - 2 * lifecycle.LATE)
    assert renting.status("second").state == "refused"
    record.begin("third", "pod", dataset="ada/elle-data")
    assert "Nothing is rented" in renting.status("third").sentence


def test_the_records_of_older_versions_and_broken_ones_keep_no_pod_from_being_ended(account, data):
    account.life = "works for ever"
    for name in ("first", "second"):
        up(data, "--detach", run=name)
    account.pods["nameless"] = account.pods["pod1"] | {"id": "nameless", "name": None}
    file = record.load_rental("first").file
    old = {name: value for name, value in storage.read_json(file).items() if name not in ("ids", "creates", "mark")}
    storage.write_json(file, old)
    for number, broken in enumerate(("", "{}", "[]", '{"run_id": "b3", "kind": "pod", "state": "odd"}')):
        storage.write_text(paths.runs() / f"b{number}" / record.FILE, broken)
        with pytest.raises(ElleError):
            renting.down(f"b{number}")
    record.begin("third", "pod").settle("refused", "of its own words")  # the newest costs nothing
    said = []
    assert renting.status(say=said.append).run_id == "second"
    assert all(f"b{number}/{record.FILE}" in "".join(said) for number in range(4))
    assert "cost too, or may: first" in said[-1]
    assert [renting.down(say=said.append).run_id for _ in range(2)] == ["second", "first"]
    assert list(account.pods) == ["nameless"]
    assert renting.status().run_id == "third"


def test_two_commands_at_once_rent_once(account, data):
    """The second comes while the first is at work on the same name; one that was overtaken writes over no record."""
    account.life = "works for ever"
    with record.beginning("first"):
        for done in (up(data), pod("deploy", "--run-id", "first", "--yes")):
            assert "is at work on run 'first'" in str(done.exception)
    assert not record.rentals()
    old = record.begin("first", "pod")
    assert up(data, "--detach").exit_code == 0
    with pytest.raises(ElleError, match="rented anew meanwhile"):
        old.save(state="asked")
    assert renting.down("first").state == "stopped"
    assert not account.pods


@pytest.mark.parametrize("kind", ["pod", "endpoint"])
def test_to_another_account_nothing_is_gone(account, data, kind, monkeypatch):
    account.life = "works for ever"
    assert (up(data, "--detach") if kind == "pod" else pod("deploy", "--run-id", "first", "--yes")).exit_code == 0
    with Server(other := RunPod(Hub())) as server, monkeypatch.context() as patch:
        other.keys.add(KEY)
        patch.setenv(runpod.REST, f"{server.url}/v2")
        assert "address is another" in renting.status("first").sentence
        assert ("Nothing ends what runs" in renting.status("first").sentence) == (kind == "endpoint")
        with pytest.raises(ElleError, match="address is another"):
            renting.down("first")
    account.keys.add("rpa_new")  # of the same account
    monkeypatch.setenv("RUNPOD_API_KEY", "rpa_new")
    assert renting.down("first").state == "stopped"
    assert (account.pods, account.endpoints) == ({}, {})


@pytest.mark.parametrize("gpus", [{}, [], None, {"gpus": [{}, None]}, {"gpus": "x"}, "no price", "null"])
def test_an_answer_of_another_shape_is_an_error_in_words(account, data, gpus):
    row = {"id": "NVIDIA A100-SXM4-80GB", "secure": True, "availability": "HIGH"}
    row |= {"price": None} if gpus == "null" else {}
    body = {"gpus": [row]} if isinstance(gpus, str) else gpus
    for route in ("gpus", "find-secret"):
        account.server.fail(route, status=200, body=body)
        assert isinstance(up(data).exception, ElleError)
    account.server.faults.clear()
    assert pod("deploy", "--yes").exit_code == 0
    account.server.fail("health", status=200, body=gpus)
    assert renting.status("elle").state == "unreachable"
    assert not account.pods


def test_a_run_of_the_same_name_counts_nothing_of_an_older_one_and_leaves_another_machines_alone(account, data):
    assert up(data).exit_code == 0  # its weights and its report stay on the Hub
    account.life = "dies"
    assert "left no result" in str(up(data).exception)
    assert renting.status("first").state == "lost"
    with pytest.raises(ElleError, match="no log"):
        renting.logs("first")
    account.life = "works for ever"
    for name in ("elle-first", "elle-first-0badcafe"):
        theirs = account.pods["theirs"] = {"id": "theirs", "name": name, "status": "RUNNING", "env": {}, "_since": 0.0}
        account.endpoints["theirs"] = {"id": "theirs", "name": f"{name} -fb"}
        sent = account.server.count("commit")
        for done in (up(data), pod("deploy", "--run-id", "first", "--yes")):
            assert "theirs is called elle-first" in str(done.exception)
            assert "another --run-id" in done.exception.fix
        assert renting.down("first").state == "lost"  # its own record is what it was
        assert (account.pods["theirs"], account.endpoints["theirs"]["id"]) == (theirs, "theirs")
        assert account.server.count("commit") == sent  # nor is anything of theirs on the Hub written over
        account.pods.clear(), account.endpoints.clear()


def test_a_profile_trains_each_of_its_recipes_into_a_repository_of_its_own(account):
    order = renting.order("three-hours", live=False)
    assert order.repositories == ["ada/elle-model-config", "ada/elle-model-config_14b"]
    assert order.count == 2
    assert order.max_dollars <= 22.5
    # "at most $1000.00" was said of a pod whose own timer ends it for a fiftieth of that.
    assert renting.order("three-hours", live=False, max_dollars=1000).max_dollars < 100


def test_without_the_extra_the_verb_says_what_to_install(tmp_path):
    absent = """import importlib.machinery as machinery
class Without(machinery.PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name == "httpx" else super().find_spec(name, path, target)
import sys
sys.meta_path = [Without if finder is machinery.PathFinder else finder for finder in sys.meta_path]
"""
    (tmp_path / "sitecustomize.py").write_text(absent)
    places = {"PYTHONPATH": f"{tmp_path}:{Path(renting.__file__).parents[1]}:{paths.root()}"}
    command = [sys.executable, "-m", "helpers.cli", "pod", "up", "starter", "--dry-run"]
    done = subprocess.run(command, env=os.environ | places, check=False, capture_output=True, text=True)
    assert done.returncode == 1
    assert "`elle pod` needs the package httpx, which is not installed" in done.stderr
    assert "pip install -e '.[rent]'" in done.stderr
    assert "Traceback" not in done.stderr


# ---- what is shown is what is sent


def test_a_dry_run_shows_exactly_what_is_sent_and_needs_nothing(account, data, monkeypatch):
    dry = ("up", RECIPE, "--data", data, "--run-id", "first", "--dry-run")
    shown = json.loads(pod(*dry, "--json").output)
    assert not account.server.requests
    assert not record.rentals()
    account.steps = (0.0, 0.0, 0.2)
    assert up(data).exit_code == 0
    told = [(each["method"], each["url"].removeprefix(account.server.url), each["body"]) for each in shown["requests"]]
    sent = []
    for each in account.server.requests:
        if each.path.startswith("/v2/"):
            query = "&".join(f"{name}={value}" for name, value in each.query.items())
            one = each.method, f"{each.path}?{query}".rstrip("?").replace("pod1", "{pod}"), each.json()
            sent += [] if one in sent[-2:] else [one]
    said = json.dumps(told).replace("{rental}", record.load_rental("first").mark)
    assert json.loads(json.dumps(sent).replace(TOKEN, "$HF_TOKEN")) == json.loads(said)
    uploaded = account.hub.repositories["datasets", "ada/elle-data"].commits[1].files
    assert {each["file"] for each in shown["uploads"]} == {name for name in uploaded if name != ".gitattributes"}
    # Without an account, it is the same but for the names that come from it.
    for name in (*record.VARIABLES, "HF_ENDPOINT"):
        monkeypatch.delenv(name)
    bare = pod(*dry)
    for text in ("Bearer $RUNPOD_API_KEY", "$HF_USERNAME/$HF_DATASET_REPO", "RUNPOD_SECRET_elle_hf_token"):
        assert text in bare.output


def test_the_committed_request_is_the_recipes_and_the_trainer_takes_it():
    body = serverless_request.render_job("configs/config_qlora.yaml", "elle-7b-lora")
    assert storage.read_json(paths.configs() / "runpod_request.json") == body, "render it anew: docs/runpod.md"
    args, policy = body["input"]["args"], body["policy"]
    assert not set(args) - set(axolotl.known_keys(args))
    # Ten minutes are RunPod's default.
    assert 600_000 < policy["executionTimeout"] < policy["ttl"] <= serverless_request.LONGEST


# ---- the pod's own script


@pytest.fixture
def script(account, data, monkeypatch):
    """`script(work, *arguments of up, **variables)`: a pod's start command, really run, as RunPod would run it; its
    record."""
    account.life = "script"

    def run(work=soak.WORK, *arguments, **variables):
        account.variables = {"ELLE_SETUP": "true", "ELLE_WORK": "bash work.sh"} | variables
        tree = account.folder.parent / "tree"  # what is fetched and unpacked: the stand-in for the work
        storage.write_text(tree / "work.sh", work)
        storage.write_text(tree / "pyproject.toml", "")
        name = f"run{len(account.gone)}"
        with monkeypatch.context() as patch:
            patch.setattr(uploads, "archive", lambda out: shutil.make_archive(f"{out.parent}/elle", "gztar", tree))
            done = up(data, *arguments, run=name)
        until = time.monotonic() + 20
        for process in [*account.processes.values()]:  # detached
            while account.pods and time.monotonic() < until:
                process.poll()  # the one that is killed is reaped
                time.sleep(0.02)
        assert not account.pods
        return done, record.load_rental(name)

    return run


def test_the_pod_trains_and_keeps_trying_to_report_and_to_end_itself_with_its_own_key(account, script):
    account.server.fail("terminate", status=500, times=2)
    account.server.fail("terminate", drop="request")
    # The first commit is the upload's. A success is reported as long as it takes, also after a wait of an hour.
    account.server.fail("commit", status=429, headers={"Retry-After": "3600"}, after=1, times=9)
    done, rental = script()
    assert done.exit_code == 0, done.output + str(done.exception)
    assert rental.state == "succeeded"
    ended = [request for request in account.server.requests if request.route == "terminate"]
    assert len(ended) >= 4
    assert {request.token for request in ended} == {"pod-key-pod1"}  # not by the machine that watched
    assert "ending: succeeded" in pod("logs").output


@pytest.mark.parametrize(("work", "variables", "state", "message"), CASES["work"])
def test_whatever_happens_on_the_pod_it_reports_and_ends_itself(account, script, work, variables, state, message):
    if work == "not fetched":
        account.server.fail("resolve", status=404, times=6)
    done, rental = script(work, **variables)
    assert rental.state == state
    assert message in str(done.exception)
    assert account.server.count("terminate") >= 1


def test_a_container_that_is_started_again_goes_on_and_gets_no_second_life(account, tmp_path):
    home = tmp_path / "runs" / "again-1"
    account.life = "works for ever"
    account.hub.add("datasets", "ada/elle-data")
    env = {
        "ELLE_RUN": "again", "ELLE_MARK": "1", "ELLE_SECONDS": "1000", "ELLE_DATASET_REPO": "ada/elle-data",
        "ELLE_VOLUME": str(tmp_path), "RUNPOD_POD_ID": "pod1", "RUNPOD_API_KEY": "pod-key-pod1", "ELLE_TICK": "0.05",
        "ELLE_WORK": "touch worked",
    }  # fmt: skip

    def start() -> dict:
        account.pods["pod1"] = {"id": "pod1", "name": "x", "status": "RUNNING", "cost": 1.0, "_since": 0.0}
        command = ["bash", Path(pods.__file__).with_name("start.sh")]
        subprocess.run(command, env=os.environ | env, check=True, timeout=60, stdin=subprocess.DEVNULL)
        assert not account.pods
        report = account.hub.repositories["datasets", "ada/elle-data"].head.files
        return json.loads(report["runs/again/1/result.json"])

    storage.write_text(home / "life", f"{int(record.uptime()) - 1} 100")
    assert start()["state"] == "expired"
    storage.write_text(home / "life", f"{int(record.uptime()) + 10**6} 0")  # of a machine that was started again
    assert start()["state"] == "expired"
    # One that was done before it was started again only reports and ends; what another rental left does not count.
    storage.write_json(tmp_path / "runs" / "again" / "result.json", {"state": "succeeded", "weights": []})
    storage.write_json(tmp_path / "runs" / "again-0" / "result.json", {"state": "succeeded", "weights": []})
    (home / "life").unlink()
    storage.write_json(home / "result.json", {"state": "failed", "reason": "before"})
    assert start()["reason"] == "before"
    assert not list(tmp_path.rglob("worked"))


@pytest.mark.parametrize(("variables", "message", "keys"), CASES["variables"], ids=str)
def test_a_pod_that_lacks_a_variable_or_has_a_wrong_key_ends_itself(account, script, variables, message, keys):
    """By RunPod where it may; else its container ends, and whoever watches ends the pod."""
    done, rental = script(**variables)
    assert message in str(done.exception) + rental.sentence
    asked = {request.token for request in account.server.requests if request.route == "terminate"}
    assert asked == {{"the account's": KEY}.get(key, key) for key in keys}


@pytest.mark.parametrize("killed", ["$script", "$timer $script", "$timer; sleep 0.3; kill -9 $second $script"])
def test_a_pod_whose_script_or_timer_is_killed_is_ended_by_what_is_left(account, script, killed):
    """Nobody watches; the last one: the script has started its timer anew."""
    work = """script=$(cut -d' ' -f6 /proc/$$/stat) timer=$(pgrep -P $script -f start.sh | head -1)
        second=$(pgrep -P $PPID -f start.sh | head -1)"""
    _, rental = script(f"{work}\nkill -9 {killed}\nsleep 60", "--detach")
    assert {request.token for request in account.server.requests if request.route == "terminate"} == {"pod-key-pod1"}
    assert "the script on the pod was killed" in renting.status(rental.run_id).sentence


@pytest.mark.parametrize("clock", ["echo 0", "echo 99999999999"])
def test_a_clock_that_is_set_moves_no_limit(account, script, clock, tmp_path, monkeypatch):
    """Back, a pod that counted by it would live for ever; forward, it would end before its work does."""
    storage.write_text(tmp_path / "bin" / "date", f"#!/bin/sh\n{clock}\n").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    assert script("sleep 60", ELLE_SECONDS="1")[1].state == "expired"
    assert script()[1].state == "succeeded"


# ---- the pod's own work


@pytest.mark.real
def test_weights_are_loaded_before_they_count(trained, tmp_path):
    folder = Path(shutil.copytree(trained.weights, tmp_path / "weights"))
    assert not any("checkpoint" in name for name in on_pod.weights_of(folder))
    on_pod.load(folder)
    (folder / "config.json").write_text("{}")
    with pytest.raises(ElleError, match="do not load"):
        on_pod.load(folder)
    tensors = folder / "model.safetensors"
    tensors.write_bytes(tensors.read_bytes()[:-100])
    with pytest.raises(ElleError, match="cut short"):
        on_pod.weights_of(folder)
    tensors.unlink()
    with pytest.raises(ElleError, match="no weights"):
        on_pod.weights_of(folder)


@pytest.mark.real
def test_the_work_of_a_pod_from_the_hub_to_the_hub(account, trained, small_data, small_base, tmp_path):
    """The order is fetched, `elle train` finds its training finished (as on a pod that was started again), the weights
    are loaded and pushed, and the machine that rented it finds them as they were checked."""
    set_ = Path(shutil.copytree(small_data, tmp_path / "set"))
    assert audit(set_)["passed"]
    order = renting.order("configs/smoke.yaml", data=set_, gpu="a100", run_id="whole", live=False)
    order = dataclasses.replace(order, bases=[str(small_base)])
    hub.send(uploads.stage(order, print), say=print)
    rental = record.begin("whole", "pod", dataset="ada/elle-data", models=order.repositories)
    rental.save(state="asked", asked=0.0, creates=1)
    account.server.fail("commit", status=403)  # the Hub's refusal of the weights is not the end of them
    home = tmp_path / "volume" / "runs" / "whole"
    shutil.copytree(trained.folder.parent, home / "train")
    variables = {"ELLE_RUN": "whole", "ELLE_HOME": str(home), "ELLE_RUNS": str(home.parent), "HF_HUB_OFFLINE": "0"}
    variables["ELLE_LEFT"] = "600"
    done = subprocess.run(
        [sys.executable, "-m", "renting.on_pod"], cwd=paths.root(), text=True, capture_output=True, timeout=600,
        env=os.environ | variables | {"ELLE_DATASET_REPO": "ada/elle-data"}, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    report = (home / "result.json").read_bytes()
    dataset_ = account.hub.repositories["datasets", "ada/elle-data"]
    dataset_.commit("report", dataset_.head.files | {f"runs/whole/{rental.mark}/result.json": report})
    assert renting.status("whole").weights == ("ada/elle-model",)
    model = account.hub.repositories["models", "ada/elle-model"]
    assert model.private
    assert model.head.files["model.safetensors"] == (trained.weights / "model.safetensors").read_bytes()
    model.commit("changed", model.head.files | {"model.safetensors": b"other"})
    storage.write_json(
        rental.file, storage.read_json(rental.file) | {"state": "running"}
    )  # `save` keeps what is settled
    assert "does not hold ada/elle-model: model.safetensors" in renting.status("whole").sentence


# ---- endpoints


def test_an_endpoint_is_made_changed_looked_at_and_deleted(account):
    shown = json.loads(pod("deploy", "--dry-run", "--json").output)
    assert not account.server.requests
    done = pod("deploy", "--yes")
    assert done.exit_code == 0, str(done.exception)
    body = json.dumps(shown["requests"][-3]["body"]).replace("{rental}", record.load_rental("elle").mark)
    assert account.server.requests[-3].json() == json.loads(body)
    (made,) = account.endpoints.values()
    assert (made["gpu"]["pools"], made["env"]["MODEL_NAME"]) == (["ADA_80_PRO"], "Qwen/Qwen2.5-3B-Instruct")
    assert f"{account.server.url}/queue/ep1/openai/v1 (workers: 1 idle)" in pod("status").output
    account.server.fail("update-endpoint", status=503)
    assert pod("deploy", "ada/elle-model", "--workers", "0", "1", "--yes").exit_code == 0
    (made,) = account.endpoints.values()
    assert (made["env"]["MODEL_NAME"], made["workers"]["max"]) == ("ada/elle-model", 1)
    assert pod("down", "elle").exit_code == 0
    assert not account.endpoints
    assert renting.down("elle").state == "stopped"
    account.server.fail("create-endpoint", drop="done")
    assert pod("deploy", "--yes").exit_code == 0
    assert len(account.endpoints) == 1
    account.endpoints.clear()
    assert renting.status("elle").state == "stopped"
    account.server.fail("create-endpoint", status=422, body={"detail": "validation failed", "errors": ["unknown x"]})
    assert "unknown x" in str(pod("deploy", "--yes").exception)
    assert "not confirmed" in str(pod("deploy").exception)


# ---- secrets


@pytest.fixture
def command_lines(tmp_path):
    """A file of every command line of the machine that is seen meanwhile."""
    watch = "while sleep 0.01; do cat /proc/[0-9]*/cmdline; done >command-lines 2>/dev/null"
    watcher = subprocess.Popen(["bash", "-c", watch], cwd=tmp_path)
    yield tmp_path / "command-lines"
    watcher.kill()
    watcher.wait()


def test_the_secrets_are_nowhere_but_where_they_must_be(account, data, script, command_lines, tmp_path, capfd):
    """Everything is run, with a server that gives back what it was sent; then every trace is searched."""
    traces = {}

    def run(*arguments):
        done = pod(*arguments)
        traces[f"output {len(traces)} of {arguments}"] = done.output + str(done.exception)

    rent = ("up", RECIPE, "--data", data)
    echo = {"title": "Bad", "status": 400, "detail": f"{KEY} {TOKEN}", "errors": [TOKEN]}
    script()
    for verb in ("status", "logs", "down"):
        run(verb)
    account.life = "works for ever"
    account.server.fail("create-pod", status=400, body=echo)
    run(*rent, "--yes", "--run-id", "echoed")
    run(*rent, "--yes", "--run-id", "held", "--detach")
    for verb in ("status", "logs", "down"):
        run(verb, "held")
    account.life = "fails"  # with the token in its report
    run(*rent, "--yes", "--run-id", "failing", "--poll", "0.02")
    for words in ((*rent, "--dry-run"), ("deploy", "--yes"), ("deploy", "--dry-run")):
        run(*words)
    account.server.fail("endpoints", status=403, body=echo)
    run("status", "elle")
    run("down", "elle")
    assert "start.sh" in command_lines.read_text(errors="replace")  # the pod's script was seen at work
    traces["streams"] = "".join(capfd.readouterr())
    written = [path for path in tmp_path.rglob("*") if path.is_file() and not path.is_symlink()]
    assert {record.FILE, "log.txt"} <= {path.name for path in written}
    traces |= {str(path): path.read_text(errors="replace") for path in written}
    for repository in account.hub.repositories.values():
        for number, commit in enumerate(repository.commits):
            for name, content in commit.files.items():
                if not re.fullmatch(
                    "runs/failing/.*/result.json", name
                ):  # the stand-in for a failing pod wrote its token
                    traces[f"{name} {number}"] = content.decode(errors="replace")
    for number, request in enumerate(account.server.requests):
        body = request.body.decode(errors="replace")
        body = body.replace(TOKEN, "") if request.route == "create-secret" else body  # what this request is for
        headers = {name: value for name, value in request.headers.items() if name != "authorization"}
        traces[f"request {number} {request.path}"] = f"{body} {request.query} {headers}"
    for where, text in traces.items():
        assert KEY not in text + where, where
        assert TOKEN not in text + where, where


# ---- faults at random points


def test_whatever_strikes_no_pod_is_left_nothing_is_lost_and_the_state_is_explained():
    """`make soak` runs ten times as many."""
    outcome = soak.pods(20, seed=7)
    assert outcome["bad"] == []
    assert (outcome["pods left"], outcome["data lost"], outcome["not explained"]) == (0, 0, 0)
    assert len(outcome["states"]) > 5
