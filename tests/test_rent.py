"""Renting: every command against RunPod and a Hub in memory, which fail as they do; and the pod's own script, run."""

import contextlib
import dataclasses
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import soak_pod as soak
from click.testing import CliRunner
from contract import Server
from contract.hub import Hub
from contract.runpod import RunPod
from huggingface_hub import constants

import renting
from elle import hub
from elle.base import paths, patience, storage
from elle.base.errors import ElleError
from elle.briefings import dataset
from elle.evaluation.audit import audit
from elle.plan import preflight, recipe
from helpers import cli
from renting import jobs, on_pod, pods, record, runpod

pass


# huggingface_hub hands open files to httpx the old way.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")

KEY, TOKEN = "rpa_RecognisableKeyThatMustNotLeak", "hf_RecognisableTokenThatMustNotLeak"
BAD = """echo '{"state": "failed", "reason": "of its own words"}' >"$ELLE_HOME/result.json"; exit 1"""
WANDB = "wandb_RecognisableKeyThatMustNotLeak"
RECIPE = "configs/config_3b_qlora.yaml"


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
    for name in (*record.VARIABLES, "HF_ENDPOINT", runpod.REST, runpod.QUEUE, "ELLE_GPU_PRICE", "WANDB_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    monkeypatch.setattr(patience, "FIRST_WAIT", 0.01)
    monkeypatch.setattr(hub, "FIRST_WAIT", 0.01)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def account(monkeypatch, tmp_path):
    """RunPod with the Hub beside it, and an environment in which both are ada's."""
    hub = Hub()
    hub.tokens[TOKEN] = "ada"
    service = RunPod(hub, folder=tmp_path / "pods")
    service.keys.add(KEY)
    with Server(service, hub) as service.server:
        for name, value in environment(service.server.url).items():
            monkeypatch.setenv(name, value)
        yield service
    service.close()


def environment(url: str) -> dict[str, str]:
    return {
        "RUNPOD_API_KEY": KEY, "HF_TOKEN": TOKEN, "HF_USERNAME": "ada", "HF_DATASET_REPO": "elle-data",
        "HF_MODEL_REPO": "elle-model", "AXOLOTL_ENDPOINT_ID": "axolotl", "HF_ENDPOINT": url,
        runpod.REST: f"{url}/v2", runpod.QUEUE: f"{url}/queue",
    }  # fmt: skip


def elle(*arguments):
    return CliRunner().invoke(cli.cli, [*map(str, arguments)])


def up(data, *arguments, run="first", poll="0.02"):
    return elle("pod", "up", RECIPE, "--data", data, "--run-id", run, "--poll", poll, "--yes", *arguments)


# ---- up


def test_a_training_is_rented_checked_and_ended(account, data):
    done = up(data)
    assert done.exit_code == 0, done.output
    assert not account.pods
    assert [pod["name"] for pod in account.gone] == ["elle-first"]
    repositories = account.hub.repositories
    assert all(repository.private for repository in repositories.values())
    sent = repositories["datasets", "ada/elle-data"].head.files
    for split in dataset.SPLITS:
        assert sent[f"runs/first/data/{split}.jsonl"] == (data / f"{split}.jsonl").read_bytes()
    assert sent[f"runs/first/recipes/{Path(RECIPE).name}"] == (paths.root() / RECIPE).read_bytes()
    assert "ada/elle-model" in done.output
    found = json.loads(elle("pod", "status", "--json").output)  # the newest run; nothing is asked any more
    assert (found["state"], found["weights"], found["costs"]) == ("succeeded", ["ada/elle-model"], False)
    assert 0 < found["cost_so_far"] < 0.1


@pytest.mark.parametrize(
    ("life", "state", "said"),
    [
        ("fails", "failed", "Axolotl failed"),
        ("no weights", "failed", "does not hold ada/model: model.safetensors"),
        ("dies", "lost", "left no result"),
        ("never starts", "never-started", "did not start in time"),
    ],
)
def test_a_pod_that_fails_is_ended_and_explained(account, data, life, state, said, monkeypatch):
    account.life = life
    order = renting.order(RECIPE, data=data, run_id="first")
    with pytest.raises(ElleError, match=said):
        renting.up(order, confirm=lambda _: True, poll=0.02, start_timeout=0.2, say=lambda _: None)
    assert not account.pods
    assert record.load_rental("first").state == state
    assert said in elle("pod", "status").output
    assert elle("pod", "status").exit_code == 1


def test_a_report_that_is_taken_up_late_still_counts(account, data):
    account.life = "dies"
    up(data)
    assert renting.status("first").state == "lost"
    account.server.fail(None, drop="request", times=100)
    assert renting.status("first").state == "lost"
    account.server.faults.clear()
    account.report(account.gone[0], account.trained(account.gone[0]))
    assert renting.status("first").state == "succeeded"


def test_a_pod_that_hangs_is_ended_by_its_own_timer_and_at_last_from_here(account, data, monkeypatch):
    """On a clock of the test's own: hours pass between two looks."""
    now = [time.time()]
    account.clock = lambda: now[0]
    for module in (pods, record):
        monkeypatch.setattr(module, "time", FakeTime(now, step=600.0))
    account.life = "hangs"
    assert up(data).exit_code == 1
    assert record.load_rental("first").state == "expired"
    assert not account.pods
    # One whose timer fails, too: it is ended from here, later.
    account.life = "works for ever"
    done = up(data, run="second")
    assert "outlived its own limit" in str(done.exception)
    assert not account.pods
    order = renting.order(RECIPE, data=data, live=False)
    rented, ended = (record.load_rental("second").rented, record.load_rental("second").ended)
    hours = (ended - rented) / 3600
    assert order.limit_hours < hours < order.limit_hours + (pods.START + pods.OVERDUE + 1200) / 3600


class FakeTime:
    def __init__(self, now, step):
        self.now, self.step = now, step

    def time(self):
        return self.now[0]

    def sleep(self, seconds):
        self.now[0] += self.step

    def __getattr__(self, name):
        return getattr(time, name)


def test_a_run_without_all_variables_is_told_of_each(account, data, monkeypatch):
    for name in record.VARIABLES:
        monkeypatch.delenv(name)
    done = up(data, "--price", "2")
    assert "RUNPOD_API_KEY" in str(done.exception)
    monkeypatch.setenv("RUNPOD_API_KEY", KEY)
    done = up(data)
    for name in ("HF_TOKEN", "HF_USERNAME", "HF_DATASET_REPO", "HF_MODEL_REPO"):
        assert f"{name}: {record.VARIABLES[name][0]}" in str(done.exception)
    assert not account.pods
    assert not account.hub.repositories
    rows = {row["variable"]: row["set"] for row in renting.environment()}
    assert (rows["RUNPOD_API_KEY"], rows["HF_TOKEN"]) == ("yes", "no")
    monkeypatch.setenv("HF_DATASET_REPO", "ada/data")
    monkeypatch.setenv("HF_MODEL_REPO", "ada/model")
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert up(data).exit_code == 0  # each repository names its user


def test_nothing_is_sent_before_the_price_is_confirmed(account, data):
    account.server.requests.clear()
    done = elle("pod", "up", RECIPE, "--data", data)  # nobody can answer
    assert "not confirmed" in str(done.exception)
    assert f"at most     ${renting.order(RECIPE, data=data, live=False).max_dollars:.2f}" in done.output
    assert {request.route for request in account.server.requests} == {"gpus"}
    asked = []
    order = renting.order(RECIPE, data=data)
    with pytest.raises(ElleError, match="not confirmed"):
        renting.up(order, confirm=lambda question: asked.append(question))
    assert f"at most ${order.max_dollars:.2f}?" in asked[0]
    assert not renting.runs()


@pytest.mark.parametrize(
    ("arguments", "said", "fix"),
    [
        ((RECIPE, "--max-dollars", "1"), "may not be enough", "or more"),
        ((RECIPE, "--price", "1"), "it costs $1.79 a GPU-hour now", "leave it out"),
        ((RECIPE, "--gpu", "a10"), "asks for A10", "h200, h100, a100"),
        (("configs/nano.yaml",), "is for a processor", "h200, h100, a100"),
        (("configs/config_72b_8xh200.yaml", "--gpu", "a100", "--count", "1"), "does not hold", "--fix"),
        ((RECIPE, "--run-id", "../x"), "no name of a run", "letters"),
        (("configs/none.yaml",), "unknown recipe", "nano.yaml"),
        (("battle-qlora", "--max-dollars", "20"), "may not be enough", "or more"),
    ],
)
def test_what_cannot_be_meant_is_refused_before_anything_is_rented(account, data, arguments, said, fix):
    done = elle("pod", "up", *arguments, "--yes", *(() if arguments[0] == "battle-qlora" else ("--data", data)))
    assert said in str(done.exception)
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
    done = up(data)
    assert "no longer any instances" in str(done.exception)
    assert record.load_rental("first").state == "refused"
    assert up(data).exit_code == 0  # the same run again


def test_a_pod_that_is_dearer_than_confirmed_is_ended(account, data):
    account.life, account.asked_more = "works for ever", 0.5
    done = up(data)
    assert "$2.29 an hour, and $1.79 was confirmed" in str(done.exception)
    assert not account.pods
    assert record.load_rental("first").state == "refused"


def test_a_key_that_is_refused_is_said_so_without_it(account, data, monkeypatch):
    monkeypatch.setenv("RUNPOD_API_KEY", "rpa_another")
    done = up(data)
    assert "does not accept the key" in str(done.exception)
    assert "rpa_another" not in done.output + str(done.exception)
    assert account.server.count("gpus") == 1  # it is not tried again
    monkeypatch.setenv("RUNPOD_API_KEY", "rpa_with a blank")
    with pytest.raises(ElleError, match="holds a character"):
        runpod.Client().pods()
    monkeypatch.setenv(runpod.REST, "http://runpod.example/v2")
    with pytest.raises(ElleError, match="must begin with https"):
        runpod.Client().pods()


PASSING = [
    {"status": 429, "headers": {"Retry-After": "0"}},
    {"status": 500},
    {"status": 503, "body": b"<html>"},
    {"drop": "request"},
    {"drop": "answer"},
    {"drop": "done"},
]


@pytest.mark.parametrize(
    ("route", "fault"),
    [
        *(("create-pod", fault) for fault in PASSING),
        *zip(["gpus", "find-secret", "create-secret", "pods", "commit", "info"], PASSING, strict=True),
    ],
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
    monkeypatch.setattr(patience, "time", FakeTime([0.0], 0.0))
    monkeypatch.setattr(patience.time, "sleep", waited.append, raising=False)
    account.server.fail("pods", status=429, headers={"Retry-After": "12"})
    assert runpod.Client().pods() == []
    assert waited == [12.0]
    account.server.fail("pods", status=429, headers={"Retry-After": "4000"})
    with pytest.raises(ElleError, match="asks for a wait of 4000 s"):
        runpod.Client().pods()


def test_a_create_that_is_taken_up_late_leaves_no_second_pod(account, data):
    """The answer is lost twice, and both requests were done: the second try finds the first one's pod."""
    account.life = "works for ever"
    account.server.fail("create-pod", drop="done")
    made = runpod.Client().create_pod(renting.order(RECIPE, data=data, run_id="first").body())
    assert [pod for pod in account.pods] == [made["id"]]
    # Both were done, and the list did not show the first in time.
    account.pods.clear()
    account.server.fail("create-pod", drop="done")
    account.server.fail("pods", status=200, body={"pods": []}, after=0)
    account.server.fail("pods", status=200, body={"pods": []}, after=0)
    made = runpod.Client().create_pod(renting.order(RECIPE, data=data, run_id="first").body())
    assert list(account.pods) == [made["id"]]


def test_what_turns_up_still_later_is_ended_by_whoever_looks(account, data):
    account.life = "works for ever"
    assert up(data, "--detach").exit_code == 0
    first = next(iter(account.pods.values()))
    account.pods["late"] = first | {"id": "late"}
    assert renting.status("first").pod == first["id"]
    assert list(account.pods) == [first["id"]]
    renting.down("first")
    assert not account.pods


def test_a_lost_connection_does_not_end_the_pod(account, data):
    account.steps = (0.0, 0.0, 0.4)
    account.server.fail("pods", drop="request", after=2, times=20)
    account.server.fail("pods", status=401, after=2, times=2)  # nor does a refusal
    done = up(data)
    assert done.exit_code == 0, str(done.exception)
    assert "Still trying" in done.output
    assert record.load_rental("first").state == "succeeded"


def interrupted(monkeypatch, first=lambda: None):
    """Ctrl-C between two looks."""

    def interrupt(_):
        first()
        raise KeyboardInterrupt

    fake = FakeTime([time.time()], 0.0)
    fake.sleep = interrupt
    monkeypatch.setattr(pods, "time", fake)


def test_an_interrupt_terminates_the_pod_and_says_so(account, data, monkeypatch):
    account.life = "works for ever"
    interrupted(monkeypatch)
    done = up(data)
    assert done.exit_code == 1
    assert "the pod is terminated; what it had not pushed is lost" in done.output
    assert not account.pods
    assert record.load_rental("first").state == "stopped"


def test_a_success_at_the_moment_of_an_interrupt_is_a_success(account, data, monkeypatch):
    account.life = "works for ever"
    interrupted(monkeypatch, lambda: account.report(account.pods["pod1"], account.trained(account.pods["pod1"])))
    done = up(data)
    assert done.exit_code == 1
    assert "ada/elle-model, file by file" in done.output
    assert not account.pods
    assert renting.status("first").state == "succeeded"


def test_an_interrupt_without_a_network_says_what_becomes_of_the_pod(account, data, monkeypatch):
    account.life = "works for ever"

    interrupted(monkeypatch, lambda: account.server.fail("pods", drop="request", times=100))
    done = up(data)
    assert "could not be ended" in done.output
    assert "it ends by itself; `elle pod down first`" in done.output
    account.server.faults.clear()
    assert account.pods
    assert elle("pod", "down").exit_code == 0
    assert not account.pods
    assert record.load_rental("first").state == "stopped"


def test_detached_it_is_watched_by_status_from_any_process(account, data):
    now = [0.0]
    account.clock, account.steps = lambda: now[0], (10.0, 10.0, 60.0)
    done = up(data, "--detach")
    assert (done.exit_code, renting.status("first").state) == (0, "provisioning")
    now[0] = 15.0
    assert "loads its image" in elle("pod", "status").output
    now[0] = 25.0
    assert "It ends by itself, at the latest" in elle("pod", "status").output
    assert elle("pod", "logs").output.splitlines()[0] == "working"
    with pytest.raises(ElleError, match="rented already"):
        record.begin("first", "pod")
    account.server.fail("pods", drop="request", times=100)
    assert renting.status("first").state == "unreachable"
    account.server.faults.clear()
    now[0] = 85.0
    assert renting.status("first").state == "succeeded"
    assert elle("pod", "logs", "first").output.splitlines() == ["working", "ended"]
    assert elle("pod", "down", "first").exit_code == 0  # safe to repeat, and it stays what it was
    assert record.load_rental("first").state == "succeeded"


def test_a_record_before_the_answer_is_enough_to_go_on_from(account, data):
    """The process was killed between the request and the note of its answer."""
    account.life = "works for ever"
    up(data, "--detach")
    record.load_rental("first").save(state="asked", id=None, rented=None)
    assert renting.status("first").state in ("provisioning", "running")
    record.load_rental("first").save(state="asked", id=None, rented=None)
    assert renting.down("first").state == "stopped"
    assert not account.pods
    # Or no pod came of it: for a while it may still be taken up, then not.
    record.begin("second", "pod", dataset="ada/elle-data").save(state="asked", asked=time.time())
    assert renting.status("second").state == "asked"
    record.load_rental("second").save(asked=time.time() - 2 * pods.LATE)
    assert renting.status("second").state == "refused"
    record.begin("third", "pod", dataset="ada/elle-data")
    assert "Nothing is rented" in renting.status("third").sentence


def test_there_is_nothing_to_look_at():
    for verb in ("status", "logs", "down"):
        assert "nothing was rented" in str(elle("pod", verb).exception)
    assert "by run 'x'" in str(elle("pod", "status", "x").exception)


def test_a_profile_trains_each_of_its_recipes_into_a_repository_of_its_own(account, monkeypatch):
    order = renting.order("three-hours", live=False)
    assert order.repositories == ["ada/elle-model-config", "ada/elle-model-config_14b"]
    assert order.count == 2
    assert order.max_dollars <= 22.5
    # "at most $1000.00" was said of a pod whose own timer ends it for a fiftieth of that.
    assert renting.order("three-hours", live=False, max_dollars=1000).max_dollars < 100
    assert order.hours[1] == pytest.approx(sum(plan.budget.hours[1] for plan in order.plans))
    assert any("made and audited first" in note for note in order.notes) or order.data.is_dir()


# ---- what is shown is what is sent


def test_a_dry_run_shows_exactly_what_is_sent_and_needs_nothing(account, data, monkeypatch):
    shown = json.loads(elle("pod", "up", RECIPE, "--data", data, "--run-id", "first", "--dry-run", "--json").output)
    assert not account.server.requests
    assert not renting.runs()
    account.steps = (0.0, 0.0, 0.2)
    assert up(data).exit_code == 0
    sent = [r for r in account.server.requests if r.path.startswith("/v2/")]
    kept = []
    for request in sent:
        query = "&".join(f"{name}={value}" for name, value in request.query.items())
        url = f"{account.server.url}{request.path}" + (f"?{query}" if query else "")
        names = {"authorization": "Authorization", "content-type": "Content-Type"}
        headers = {names[name]: value for name, value in request.headers.items() if name in names}
        one = {"method": request.method, "url": url, "headers": headers, "body": request.json()}
        if not kept or kept[-1] != one:
            kept.append(one)
    text = json.dumps(shown["requests"], sort_keys=True)
    sent_text = json.dumps(kept, sort_keys=True).replace(KEY, "$RUNPOD_API_KEY").replace(TOKEN, "$HF_TOKEN")
    sent_text = sent_text.replace("/pods/pod1", "/pods/{pod}")
    assert json.loads(sent_text) == json.loads(text)
    uploaded = account.hub.repositories["datasets", "ada/elle-data"].commits[1].files
    assert {each["file"] for each in shown["uploads"]} == {name for name in uploaded if name != ".gitattributes"}
    # Without an account, it is the same but for the names that come from it.
    for name in (*record.VARIABLES, "HF_ENDPOINT"):
        monkeypatch.delenv(name)
    bare = elle("pod", "up", RECIPE, "--data", data, "--run-id", "first", "--dry-run")
    assert bare.exit_code == 0
    assert "Authorization: Bearer $RUNPOD_API_KEY" in bare.output
    assert "$HF_USERNAME/$HF_DATASET_REPO" in bare.output
    assert "RUNPOD_SECRET_elle_hf_token" in bare.output


# ---- the pod's own script


@pytest.fixture
def script(account, data, monkeypatch):
    """`script(work, **variables)`: a pod's start command, really run, as RunPod would run it; its record."""
    account.life = "script"

    def run(work='curl -sf -X POST -o "$ELLE_HOME/result.json" "$STAND_IN"', **variables):
        account.variables = {"ELLE_SETUP": "true", "ELLE_WORK": "bash work.sh"} | variables
        tree = account.folder.parent / "tree"
        shutil.rmtree(tree, ignore_errors=True)
        for name in pods.CODE:  # what is fetched and unpacked is this, with the stand-in for the work in it
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            (tree / name).write_text(work if name == "Makefile" else "")
        (tree / "work.sh").write_text(work)
        with monkeypatch.context() as patch:
            patch.setattr(pods, "CODE", ("work.sh", "pyproject.toml"))
            patch.setattr(pods, "archive", lambda out: archived(tree, out))
            done = up(data, run=f"run{len(account.gone)}")
        assert not account.pods
        return done, record.load_rental(f"run{len(account.gone) - 1}")

    return run


def archived(tree: Path, out: Path) -> Path:
    shutil.make_archive(str(out).removesuffix(".tar.gz"), "gztar", tree)
    return out


def test_the_pod_trains_reports_and_ends_itself_with_its_own_key(account, script):
    done, found = script()
    assert done.exit_code == 0, done.output + str(done.exception)
    assert found.state == "succeeded"
    ended = [request for request in account.server.requests if request.route == "terminate"]
    assert [request.token for request in ended] == ["pod-key-pod1"]  # not by the machine that watched
    log = elle("pod", "logs").output
    assert [line.partition(" ")[2] for line in log.splitlines() if line[:2].isdigit()] == [
        "fetching the run", "setting up", "working", "ending: succeeded ",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("work", "variables", "state", "said"),
    [
        ("exit 3", {}, "failed", "the work ended with code 3"),
        ("true", {"ELLE_SETUP": "false"}, "failed", "the packages could not be installed"),
        ("true", {}, "failed", "success without weights"),
        ("sleep 60 & sleep 60", {"ELLE_SECONDS": "1"}, "expired", "its limit of time was reached"),
        ("trap '' TERM; while :; do sleep 1; done", {"ELLE_SECONDS": "0"}, "expired", "its limit of time"),
        (BAD, {}, "failed", "of its own words"),
    ],
)  # fmt: skip
def test_whatever_happens_on_the_pod_it_reports_and_ends_itself(account, script, work, variables, state, said):
    if "trap" in work:
        work = work.replace("trap '' TERM; ", "")  # what ignores SIGTERM waits 30 s for SIGKILL: not in a test
    done, found = script(work, **variables)
    assert found.state == state
    assert said in str(done.exception)
    assert account.server.count("terminate") >= 1


def test_a_run_that_cannot_be_fetched_is_reported(account, script):
    account.server.fail("resolve", status=404, times=6)
    done, found = script()
    assert (found.state, "could not be fetched" in str(done.exception)) == ("failed", True)


def test_the_pod_keeps_trying_to_report_and_to_end(account, script):
    account.server.fail("terminate", status=500, times=2)
    account.server.fail("terminate", drop="request")
    account.server.fail("commit", status=503, after=1, times=2)  # the first commit is the upload's
    done, _ = script()
    assert done.exit_code == 0, str(done.exception)
    assert account.server.count("terminate") >= 4


def test_a_container_that_is_started_again_goes_on_and_gets_no_second_life(account, data, tmp_path, monkeypatch):
    home = tmp_path / "runs" / "again"
    home.mkdir(parents=True)
    (home / "deadline").write_text(str(int(time.time()) - 1))
    account.pods["pod1"] = {"id": "pod1", "name": "x", "status": "RUNNING", "cost": 1.0, "_since": 0.0}
    account.life = "works for ever"
    account.hub.add("datasets", "ada/elle-data")
    env = {
        "ELLE_RUN": "again", "ELLE_SECONDS": "1000", "ELLE_DATASET_REPO": "ada/elle-data", "ELLE_VOLUME": str(tmp_path),
        "RUNPOD_POD_ID": "pod1", "RUNPOD_API_KEY": "pod-key-pod1", "ELLE_TICK": "0.05", "ELLE_WORK": "touch worked",
    }  # fmt: skip
    start = Path(pods.__file__).with_name("start.sh")
    subprocess.run(["bash", start], env=os.environ | env, check=True, timeout=60, stdin=subprocess.DEVNULL)
    assert not account.pods
    report = account.hub.repositories["datasets", "ada/elle-data"].head.files
    assert json.loads(report["runs/again/result.json"])["state"] == "expired"
    # One that was done before it was started again only reports and ends.
    account.pods["pod1"] = {"id": "pod1", "name": "x", "status": "RUNNING", "cost": 1.0, "_since": 0.0}
    (home / "deadline").unlink()
    storage.write_json(home / "result.json", {"state": "failed", "reason": "before"})
    subprocess.run(["bash", start], env=os.environ | env, check=True, timeout=60, stdin=subprocess.DEVNULL)
    report = account.hub.repositories["datasets", "ada/elle-data"].head.files
    assert json.loads(report["runs/again/result.json"])["reason"] == "before"
    assert not list(tmp_path.rglob("worked"))


# ---- the pod's own work


@pytest.mark.real
def test_weights_are_loaded_before_they_count(trained, tmp_path):
    folder = Path(shutil.copytree(trained.weights, tmp_path / "weights"))
    names = on_pod.weights_of(folder)
    assert {"model.safetensors", "config.json", "tokenizer.json"} <= set(names)
    assert not any("checkpoint" in name for name in names)
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
    hub.send(pods.stage(order, print), say=print)
    record.begin("whole", "pod", dataset="ada/elle-data", models=order.repositories).save(state="asked", asked=0.0)
    home = tmp_path / "volume" / "runs" / "whole"
    shutil.copytree(trained.folder.parent, home / "train")
    pod = {"ELLE_RUN": "whole", "ELLE_HOME": home, "ELLE_RUNS": home.parent, "ELLE_DATASET_REPO": "ada/elle-data"}
    variables = {name: str(value) for name, value in pod.items()} | {"HF_HUB_OFFLINE": "0"}
    done = subprocess.run(
        [sys.executable, "-m", "renting.on_pod"], env=os.environ | variables, cwd=paths.root(), text=True,
        capture_output=True, timeout=600, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads((home / "result.json").read_text())
    dataset_ = account.hub.repositories["datasets", "ada/elle-data"]
    dataset_.commit("report", dataset_.head.files | {"runs/whole/result.json": json.dumps(report).encode()})
    assert renting.status("whole").weights == ("ada/elle-model",)
    model = account.hub.repositories["models", "ada/elle-model"]
    assert model.private
    assert model.head.files["model.safetensors"] == (trained.weights / "model.safetensors").read_bytes()
    model.commit("changed", model.head.files | {"model.safetensors": b"other"})
    record.load_rental("whole").save(state="running")
    assert "does not hold ada/elle-model: model.safetensors" in renting.status("whole").sentence


# ---- jobs


def submit(data, *arguments, run="job-1"):
    return elle("job", "submit", "configs/config_qlora.yaml", "--data", data, "--run-id", run, "--yes", *arguments)


@pytest.mark.parametrize(
    ("job", "state", "said"),
    [
        ("succeeds", "succeeded", "ada/elle-model"),
        ("no weights", "failed", "RunPod says COMPLETED, and ada/elle-model holds no new weights"),
        ("fails", "failed", "bad token $HF_TOKEN"),
        ("worker dies", "failed", "code 137"),
        ("times out", "expired", "limit of time"),
    ],
)
def test_a_job_counts_only_with_new_weights(account, data, job, state, said):
    account.job = job
    old = account.hub.add("models", "ada/elle-model")
    old.commit("older weights", {"model.safetensors": b"older"})
    assert submit(data).exit_code == 0
    assert (renting.job_status().state, renting.status("job-1").state) == ("in-progress", state)
    assert said in elle("job", "status").output
    assert elle("job", "status").exit_code == (state != "succeeded")
    sent = next(iter(account.jobs.values()))["_asked"]
    assert sent["input"]["credentials"] == {"hf_token": TOKEN, "wandb_api_key": ""}
    hours = renting.job("configs/config_qlora.yaml", data=data).hours[1]
    assert sent["policy"]["executionTimeout"] > hours * 3_600_000 > 600_000 / 100
    assert sent["policy"]["executionTimeout"] < sent["policy"]["ttl"] <= 7 * 86_400_000


def test_a_job_can_be_cancelled_and_is_never_sent_twice(account, data):
    account.job = "waits"
    assert submit(data).exit_code == 0
    assert "nothing is charged while it waits" in elle("job", "status").output
    assert elle("job", "cancel").exit_code == 0
    assert account.jobs["job1"]["status"] == "CANCELLED"
    assert elle("job", "cancel").exit_code == 0
    assert renting.down("job-1").state == "stopped"
    account.server.fail("run", status=429, headers={"Retry-After": "0"})  # nothing was done: again
    assert submit(data, run="job-2").exit_code == 0
    account.server.fail("run", drop="done")
    done = submit(data, run="job-3")
    assert isinstance(done.exception, runpod.Unknown)
    assert len(account.jobs) == 3
    assert renting.job_status("job-3").state == "asked"
    with pytest.raises(ElleError, match="no known id"):
        renting.job_cancel("job-3")
    account.server.fail("run", status=401)
    assert "does not accept the key" in str(submit(data, run="job-4").exception)
    assert renting.job_status("job-4").state == "refused"
    assert "one recipe" in str(elle("job", "submit", "three-hours", "--dry-run").exception)
    assert "may not be enough" in str(submit(data, "--max-dollars", "0.01", run="job-5").exception)


def test_a_jobs_dry_run_is_what_is_sent(account, data):
    shown = json.loads(submit(data, "--dry-run", "--json").output)
    assert not account.server.requests
    assert submit(data).exit_code == 0
    sent = next(request for request in account.server.requests if request.route == "run")
    text = (
        json.dumps(sent.json())
        .replace(TOKEN, "$HF_TOKEN")
        .replace('"wandb_api_key": ""', '"wandb_api_key": "$WANDB_API_KEY"')
    )
    assert json.loads(text) == shown["requests"][0]["body"]
    assert f"{account.server.url}{sent.path}" == shown["requests"][0]["url"]


def test_the_committed_request_is_the_recipes_and_the_trainer_takes_it(monkeypatch):
    file = paths.root() / "configs" / "runpod_request.json"
    order = renting.job("configs/config_qlora.yaml", run_id="elle-7b-lora")
    assert storage.read_json(file) == order.request.body, "write it anew: see docs/runpod.md"
    unknown = set(order.request.body["input"]["args"]) - set(recipe.known_keys(order.plan.config))
    assert not unknown
    full = jobs.arguments(preflight.plan("configs/config_72b_qlora.yaml"), "x")
    assert full["deepspeed"]["zero_optimization"]["stage"] == 2  # the worker has no file of ours


# ---- endpoints


def test_an_endpoint_is_made_changed_looked_at_and_deleted(account, monkeypatch):
    shown = json.loads(elle("pod", "deploy", "--dry-run", "--json").output)
    assert not account.server.requests
    done = elle("pod", "deploy", "--yes")
    assert done.exit_code == 0, str(done.exception)
    sent = [r for r in account.server.requests if r.path.startswith("/v2/")]
    paths_ = [(r.method, f"{account.server.url}{r.path}") for r in sent]
    assert [each for number, each in enumerate(paths_) if each != paths_[number - 1]] == [
        (each["method"], each["url"].partition("?")[0]) for each in shown["requests"]
    ]
    assert sent[-1].json() == shown["requests"][-1]["body"]
    (made,) = account.endpoints.values()
    assert made["scaling"] == {"type": "QUEUE_DELAY", "queueDelay": 2}
    assert made["workers"] == {"min": 0, "max": 3, "idleTimeout": 60}
    assert (made["gpu"]["pools"], made["env"]["MODEL_NAME"]) == (["ADA_80_PRO"], "Qwen/Qwen2.5-3B-Instruct")
    assert f"{account.server.url}/queue/ep1/openai/v1 (workers: 1 idle)" in elle("pod", "status").output
    account.server.fail("update-endpoint", status=503)
    assert elle("pod", "deploy", "ada/elle-model", "--workers", "0", "1", "--yes").exit_code == 0
    (made,) = account.endpoints.values()
    assert (made["env"]["MODEL_NAME"], made["workers"]["max"]) == ("ada/elle-model", 1)
    assert elle("pod", "down", "elle").exit_code == 0
    assert not account.endpoints
    assert renting.down("elle").state == "stopped"
    account.server.fail("create-endpoint", drop="done")
    assert elle("pod", "deploy", "--yes").exit_code == 0
    assert len(account.endpoints) == 1
    account.endpoints.clear()
    assert renting.status("elle").state == "stopped"
    account.server.fail("create-endpoint", status=422, body={"detail": "validation failed", "errors": ["unknown x"]})
    assert "unknown x" in str(elle("pod", "deploy", "--yes").exception)
    assert "not confirmed" in str(elle("pod", "deploy").exception)
    found = runpod.Client().create_endpoint(
        {"name": "n", "type": "QUEUE", "image": "i", "gpu": {"pools": ["X"]}, "scaling": {}}
    )
    assert runpod.Client().update_endpoint(found["id"], {"workers": {"max": 2}})["workers"] == {"max": 2}


def test_a_pod_can_be_stopped(account, data):
    account.life = "works for ever"
    up(data, "--detach")
    runpod.Client().stop("pod1")
    assert renting.status("first").state == "exited"
    assert runpod.Client().pod("pod1")["status"] == "EXITED"
    renting.down("first")
    assert runpod.Client().pod("pod1") is None


# ---- secrets


def test_the_secrets_are_nowhere_but_where_they_must_be(account, data, script, tmp_path, monkeypatch, capfd):
    """Everything is run, with a server that gives back what it was sent; then every trace is searched."""
    monkeypatch.setenv("WANDB_API_KEY", WANDB)
    seen, stop = [], threading.Event()

    def watch():
        while not stop.wait(0.01):
            for name in os.listdir("/proc"):  # noqa: PTH208
                with contextlib.suppress(OSError):
                    seen.append(Path(f"/proc/{name}/cmdline").read_bytes() if name.isdigit() else b"")

    watcher = threading.Thread(target=watch)
    watcher.start()
    outputs = []

    def run(*arguments):
        done = elle(*arguments)
        outputs.append(done.output + str(done.exception))

    try:
        script()
        echo = {"title": "Bad", "status": 400, "detail": f"{KEY} {TOKEN}", "errors": [TOKEN]}
        for verb in (("pod", "status"), ("pod", "logs"), ("pod", "down")):
            run(*verb)
        account.life = "works for ever"
        account.server.fail("create-pod", status=400, body=echo)
        outputs.append(str(up(data, run="echoed").exception))
        up(data, "--detach", run="held")
        for verb in ("status", "logs", "down"):
            run("pod", verb, "held")
        account.life = "fails"  # with the token in its report
        outputs.append(str(up(data, run="failing").exception))
        run("pod", "up", RECIPE, "--data", data, "--dry-run", "--json")
        run("pod", "up", RECIPE, "--data", data, "--dry-run")
        account.job = "fails"  # with the token in its error
        for verb in (("submit", "configs/config_qlora.yaml", "--data", data, "--yes"), ("status",), ("status",)):
            run("job", *verb)
        run("job", "submit", "configs/config_qlora.yaml", "--dry-run")
        account.server.fail("run", status=400, body={"error": f"bad {TOKEN}"})
        run("job", "submit", "configs/config_qlora.yaml", "--data", data, "--yes", "--run-id", "refused")
        run("pod", "deploy", "--yes")
        run("pod", "deploy", "--dry-run")
        account.server.fail("endpoints", status=403, body=echo)
        run("pod", "status", "elle")
        run("pod", "down", "elle")
    finally:
        stop.set()
        watcher.join()
    secrets = (KEY, TOKEN, WANDB)
    assert any(b"curl" in line for line in seen)  # the pod's script was seen at work
    held = [("arguments", line.decode(errors="replace")) for line in seen] + [("output", text) for text in outputs]
    held += [("streams", "".join(capfd.readouterr()))]
    written = [path for path in tmp_path.rglob("*") if path.is_file() and not path.is_symlink()]
    assert any(path.name == record.FILE for path in written)
    assert any(path.name == "log.txt" for path in written)
    held += [(str(path), path.read_text(encoding="utf-8", errors="replace")) for path in written]
    for kind, name in account.hub.repositories:
        for commit in account.hub.repositories[kind, name].commits:
            for file, content in commit.files.items():
                if (
                    b"state" not in content or account.life == "script"
                ):  # the stand-in for a failing pod wrote its token
                    held.append((file, content.decode("utf-8", errors="replace")))
    for request in account.server.requests:
        body = request.body.decode("utf-8", errors="replace")
        if request.route == "create-secret":
            body = body.replace(TOKEN, "")  # what this request is for
        elif request.route == "run":
            body = body.replace(TOKEN, "").replace(WANDB, "")  # the worker reads its credentials nowhere else
        headers = {name: value for name, value in request.headers.items() if name != "authorization"}
        held.append((f"{request.method} {request.path}", f"{body} {request.path} {request.query} {headers}"))
    for where, text in held:
        for secret in secrets:
            assert secret not in text, where


# ---- faults at random points


def test_whatever_strikes_no_pod_is_left_nothing_is_lost_and_the_state_is_explained():
    """`make soak` runs ten times as many."""
    found = soak.pods(20, seed=7)
    assert found["bad"] == []
    assert (found["pods left"], found["data lost"], found["not explained"]) == (0, 0, 0)
    assert len(found["states"]) > 5
