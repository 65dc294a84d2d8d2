"""Renting: every command against RunPod and a Hub in memory, which fail as they do; and the pod's own script, run."""

import json
import os
import shutil
import socket
import subprocess
import time
from pathlib import Path

import pytest
from click.testing import CliRunner
from contract import Server
from contract.hub import Hub
from contract.runpod import RunPod
from huggingface_hub import constants

from helpers import cli, deploy, jsonl, patience, paths, runpod
from helpers.briefings import dataset
from helpers.deploy import pods, record
from helpers.errors import ElleError
from helpers.evaluation.audit import audit

# huggingface_hub hands open files to httpx the old way.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")

KEY, TOKEN = "rpa_RecognisableKeyThatMustNotLeak", "hf_RecognisableTokenThatMustNotLeak"
RECIPE = "configs/config_3b_qlora.yaml"


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """An audited set."""
    folder = tmp_path_factory.mktemp("rented") / "basic"
    dataset.build("basic", 120, 7, folder)
    assert audit(folder)["passed"]
    return folder


@pytest.fixture(autouse=True)
def _bare(monkeypatch, tmp_path):
    """No account, no settings of the user's, short waits, and nothing but loopback."""
    for name in (*record.VARIABLES, "HF_ENDPOINT", runpod.REST, runpod.QUEUE, "ELLE_GPU_PRICE", "WANDB_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    monkeypatch.setattr(patience, "FIRST_WAIT", 0.01)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    elsewhere, connect = [], socket.socket.connect

    def guarded(self, address):
        if self.family in (socket.AF_INET, socket.AF_INET6) and address[0] not in ("127.0.0.1", "::1", "localhost"):
            elsewhere.append(address)
            raise OSError(f"no test goes to {address}")
        return connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", guarded)
    yield
    assert not elsewhere


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
    order = deploy.order(RECIPE, data=data, run_id="first")
    with pytest.raises(ElleError, match=said):
        deploy.up(order, confirm=lambda _: True, poll=0.02, start_timeout=0.2, say=lambda _: None)
    assert not account.pods
    assert record.load("first").state == state
    assert said in elle("pod", "status").output
    assert elle("pod", "status").exit_code == 1


def test_a_pod_that_hangs_is_ended_by_its_own_timer_and_at_last_from_here(account, data, monkeypatch):
    """On a clock of the test's own: hours pass between two looks."""
    now = [time.time()]
    account.clock = lambda: now[0]
    for module in (pods, record):
        monkeypatch.setattr(module, "time", FakeTime(now, step=600.0))
    account.life = "hangs"
    assert up(data).exit_code == 1
    assert record.load("first").state == "expired"
    assert not account.pods
    # One whose timer fails, too: it is ended from here, later.
    account.life = "works for ever"
    done = up(data, run="second")
    assert "outlived its own limit" in str(done.exception)
    assert not account.pods
    order = deploy.order(RECIPE, data=data, live=False)
    rented, ended = (record.load("second").rented, record.load("second").ended)
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
    rows = {row["variable"]: row["set"] for row in deploy.environment()}
    assert (rows["RUNPOD_API_KEY"], rows["HF_TOKEN"]) == ("yes", "no")
    monkeypatch.setenv("HF_DATASET_REPO", "ada/data")
    monkeypatch.setenv("HF_MODEL_REPO", "ada/model")
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert up(data).exit_code == 0  # each repository names its user


def test_nothing_is_sent_before_the_price_is_confirmed(account, data):
    account.server.requests.clear()
    done = elle("pod", "up", RECIPE, "--data", data)  # nobody can answer
    assert "not confirmed" in str(done.exception)
    assert f"at most     ${deploy.order(RECIPE, data=data, live=False).max_dollars:.2f}" in done.output
    assert {request.route for request in account.server.requests} == {"gpus"}
    asked = []
    order = deploy.order(RECIPE, data=data)
    with pytest.raises(ElleError, match="not confirmed"):
        deploy.up(order, confirm=lambda question: asked.append(question))
    assert f"at most ${order.max_dollars:.2f}?" in asked[0]
    assert not deploy.runs()


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
    assert record.load("first").state == "refused"
    assert up(data).exit_code == 0  # the same run again


def test_a_pod_that_is_dearer_than_confirmed_is_ended(account, data):
    account.asked_more = 0.5
    done = up(data)
    assert "$2.29 an hour, and $1.79 was confirmed" in str(done.exception)
    assert not account.pods
    assert record.load("first").state == "refused"


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


@pytest.mark.parametrize("route", ["gpus", "find-secret", "create-secret", "create-pod", "pods", "commit"])
@pytest.mark.parametrize("fault", PASSING, ids=lambda fault: "-".join(map(str, fault.values())))
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
    made = runpod.Client().create_pod(deploy.order(RECIPE, data=data, run_id="first").body())
    assert [pod for pod in account.pods] == [made["id"]]
    # Both were done, and the list did not show the first in time.
    account.pods.clear()
    account.server.fail("create-pod", drop="done")
    account.server.fail("pods", status=200, body={"pods": []}, after=0)
    account.server.fail("pods", status=200, body={"pods": []}, after=0)
    made = runpod.Client().create_pod(deploy.order(RECIPE, data=data, run_id="first").body())
    assert list(account.pods) == [made["id"]]


def test_what_turns_up_still_later_is_ended_by_whoever_looks(account, data):
    account.life = "works for ever"
    assert up(data, "--detach").exit_code == 0
    first = next(iter(account.pods.values()))
    account.pods["late"] = first | {"id": "late"}
    assert deploy.status("first").pod == first["id"]
    assert list(account.pods) == [first["id"]]
    deploy.down("first")
    assert not account.pods


def test_a_lost_connection_does_not_end_the_pod(account, data):
    account.steps = (0.0, 0.0, 0.4)
    account.server.fail("pods", drop="request", after=2, times=40)
    done = up(data)
    assert done.exit_code == 0, str(done.exception)
    assert "Still trying" in done.output
    assert record.load("first").state == "succeeded"


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
    assert record.load("first").state == "stopped"


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
    assert record.load("first").state == "stopped"


def test_detached_it_is_watched_by_status_from_any_process(account, data):
    account.steps = (0.2, 0.2, 60.0)
    done = up(data, "--detach")
    assert (done.exit_code, deploy.status("first").state) == (0, "provisioning")
    time.sleep(0.25)
    assert "loads its image" in elle("pod", "status").output
    time.sleep(0.2)
    assert "It ends by itself, at the latest" in elle("pod", "status").output
    assert elle("pod", "logs").output.splitlines()[0] == "working"
    with pytest.raises(ElleError, match="rented already"):
        record.begin("first", "pod")
    account.server.fail("pods", drop="request", times=100)
    assert deploy.status("first").state == "unreachable"
    account.server.faults.clear()
    account.steps = (0.0, 0.0, 0.0)
    assert deploy.status("first").state == "succeeded"
    assert elle("pod", "logs", "first").output.splitlines() == ["working", "ended"]
    assert elle("pod", "down", "first").exit_code == 0  # safe to repeat, and it stays what it was
    assert record.load("first").state == "succeeded"


def test_a_record_before_the_answer_is_enough_to_go_on_from(account, data):
    """The process was killed between the request and the note of its answer."""
    account.life = "works for ever"
    up(data, "--detach")
    record.load("first").save(state="asked", id=None, rented=None)
    assert deploy.status("first").state in ("provisioning", "running")
    record.load("first").save(state="asked", id=None, rented=None)
    assert deploy.down("first").state == "stopped"
    assert not account.pods
    # Or no pod came of it: for a while it may still be taken up, then not.
    record.begin("second", "pod", dataset="ada/elle-data").save(state="asked", asked=time.time())
    assert deploy.status("second").state == "asked"
    record.load("second").save(asked=time.time() - 2 * pods.LATE)
    assert deploy.status("second").state == "refused"
    record.begin("third", "pod", dataset="ada/elle-data")
    assert "Nothing is rented" in deploy.status("third").sentence


def test_there_is_nothing_to_look_at():
    for verb in ("status", "logs", "down"):
        assert "nothing was rented" in str(elle("pod", verb).exception)
    assert "by run 'x'" in str(elle("pod", "status", "x").exception)


def test_a_profile_trains_each_of_its_recipes_into_a_repository_of_its_own(account, monkeypatch):
    order = deploy.order("three-hours", live=False)
    assert order.repositories == ["ada/elle-model-config", "ada/elle-model-config_14b"]
    assert order.count == 2
    assert order.max_dollars <= 22.5
    assert order.hours[1] == pytest.approx(sum(plan.budget.hours[1] for plan in order.plans))
    assert any("made and audited first" in note for note in order.notes) or order.data.is_dir()


# ---- what is shown is what is sent


def test_a_dry_run_shows_exactly_what_is_sent_and_needs_nothing(account, data, monkeypatch):
    shown = json.loads(elle("pod", "up", RECIPE, "--data", data, "--run-id", "first", "--dry-run", "--json").output)
    assert not account.server.requests
    assert not deploy.runs()
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
        return done, record.load(f"run{len(account.gone) - 1}")

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
        ('echo "{\\"state\\": \\"failed\\", \\"reason\\": \\"bad\\"}" >"$ELLE_HOME/result.json"; exit 1', {}, "failed", "bad"),
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
    done, found = script()
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
    jsonl.write_json(home / "result.json", {"state": "failed", "reason": "before"})
    subprocess.run(["bash", start], env=os.environ | env, check=True, timeout=60, stdin=subprocess.DEVNULL)
    report = account.hub.repositories["datasets", "ada/elle-data"].head.files
    assert json.loads(report["runs/again/result.json"])["reason"] == "before"
    assert not list(tmp_path.rglob("worked"))
