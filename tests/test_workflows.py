""".github/workflows: by actionlint, and by what it does not know: secrets, money, commands of this project."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from contract import Server
from contract.runpod import Chat, RunPod
from test_environment import check_elle

from elle.base import paths
from renting.uploads import CODE

ROOT = paths.root()
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
LINTER = Path(sys.prefix) / "node" / "node_modules" / "@tktco" / "node-actionlint" / "bin" / "node-actionlint.js"
each = pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)


def read(path: Path) -> dict:
    # YAML 1.1 reads the key `on` as true.
    return {("on" if key is True else key): value for key, value in yaml.safe_load(path.read_text()).items()}


def steps(path: Path) -> list[dict]:
    return [step for job in read(path)["jobs"].values() for step in job["steps"]]


def test_actionlint_finds_nothing():
    if not shutil.which("node") or not LINTER.is_file():
        pytest.skip("actionlint or node is not installed: `make setup` fetches the former by npm")
    for path in WORKFLOWS:  # each by a process of its own: it takes one file
        done = subprocess.run(["node", LINTER, path], capture_output=True, text=True, timeout=120, check=False)
        assert "Checking 1 workflow file" in done.stdout
        assert done.returncode == 0, done.stdout


@each
def test_it_is_held_to_little_and_its_commands_exist(path):
    workflow = read(path)
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert workflow["permissions"] == {"contents": "read"}
    assert "group" in workflow["concurrency"]
    # The runner's own default is `bash -e`, without pipefail: what fails before `| tee` would pass.
    assert workflow["defaults"] == {"run": {"shell": "bash"}}
    for job in workflow["jobs"].values():
        assert "permissions" not in job
        assert 0 < job["timeout-minutes"] <= 360
    for step in steps(path):
        if uses := step.get("uses"):
            assert re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40}", uses), uses
            assert re.search(rf"{re.escape(uses)} # v\d+\.\d+\.\d+$", path.read_text(), re.MULTILINE)
            if "checkout" in uses:
                assert step["with"]["persist-credentials"] is False
        script = step.get("run", "").replace("\\\n", " ")
        assert "${{" not in script, "an input that is pasted into a script is a script: read it from the environment"
        assert set(re.findall(r"\bmake ([a-z-]+)", script)) <= targets
        for line in re.findall(r"\belle ((?:\$\([^)]*\)|[^\n|;&)>])*)", script):
            check_elle(shlex.split(line), whole=True)


@each
def test_secrets_are_in_the_environment_of_single_steps_and_nowhere_else(path):
    """Not in a command line, where logs and process lists show them, nor in all steps, where any tool reads them."""
    workflow = read(path)
    assert "secrets." not in json.dumps([workflow.get("env"), workflow["on"]])
    for job in workflow["jobs"].values():
        assert "secrets." not in json.dumps({key: value for key, value in job.items() if key != "steps"})
    for step in steps(path):
        assert "secrets." not in json.dumps({key: value for key, value in step.items() if key != "env"})
        for name, value in step.get("env", {}).items():
            if "secrets." not in str(value):
                continue
            assert re.fullmatch(r"\$\{\{ secrets\.[A-Z_]+ \}\}", value), value
            assert not re.search(rf"\$\{{?{name}\b", step["run"]), f"{name} is expanded by a shell"
        assert not re.search(r"\b(printenv|set -x|bash -x)\b|\benv\s*($|[|>])", step.get("run", ""), re.MULTILINE)


def test_what_a_workflow_rents_it_ends_in_every_case():
    renting = [path for path in WORKFLOWS if re.search(r"elle pod (up|deploy)", path.read_text())]
    assert [path.stem for path in renting] == ["train"]
    for path in renting:
        workflow = read(path)
        assert list(workflow["on"]) == ["workflow_dispatch"], "nothing but a person may spend money"
        assert workflow["on"]["workflow_dispatch"]["inputs"]["confirm"]["required"]
        assert workflow["concurrency"]["cancel-in-progress"] is False
        (job,) = workflow["jobs"].values()
        scripts = [step.get("run", "") for step in job["steps"]]
        assert "CONFIRM" in scripts[0], "before anything else"
        rents = [at for at, script in enumerate(scripts) if re.search(r"elle pod (up|deploy)", script)]
        (end,) = (at for at, script in enumerate(scripts) if "elle pod down" in script)
        assert max(rents) < end
        assert job["steps"][end]["if"] == "always()"
        # It still has time when the steps before it have used up theirs.
        assert "timeout-minutes" not in job["steps"][end]
        assert job["steps"][rents[0]]["timeout-minutes"] < job["timeout-minutes"]
        for at in rents:
            assert "--max-dollars" in scripts[at] or "--workers 0" in scripts[at]


# The training, its own scripts run against RunPod's and the Hub's contracts


@pytest.fixture
def account(hub, tmp_path, monkeypatch):
    """A checkout of its own, and an account at RunPod and the Hub behind one server: account.run(name of a step)."""
    root = tmp_path / "checkout"
    root.mkdir()
    for name in ("notebooks", *CODE):
        (root / name).symlink_to(ROOT / name)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "elle").write_text(f'#!/bin/sh\nexec {sys.executable} -m helpers.cli "$@"\n')
    (tmp_path / "bin" / "elle").chmod(0o755)
    hub.tokens["hf-secret"] = "ada"
    service = RunPod(hub)
    service.keys.add("rp-secret")
    (job,) = read(WORKFLOWS[1])["jobs"].values()
    given = {"TARGET": "starter", "MAX_DOLLARS": "5", "QUESTIONS": "8", "RUN": "actions-1-1", "CONFIRM": "starter"}
    given |= {"HF_USERNAME": "ada", "HF_DATASET_REPO": "elle", "HF_MODEL_REPO": "elle-model"}
    secrets = {"secrets.RUNPOD_API_KEY": "rp-secret", "secrets.HF_TOKEN": "hf-secret"}
    with Server(service, Chat()) as server:
        at = {"RUNPOD_REST_URL": f"{server.url}/v2", "RUNPOD_ENDPOINT_BASE_URL": f"{server.url}/queue"}
        at |= {"HF_ENDPOINT": hub.server.url, "HF_HUB_OFFLINE": "0", "NO_PROXY": "127.0.0.1,localhost"}
        place = {"ELLE_ROOT": str(root), "ELLE_RUNS": str(root / "runs"), "PYTHONPATH": str(ROOT / "src")}
        place |= {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", "HOME": str(tmp_path)}

        def run(name: str) -> subprocess.CompletedProcess:
            step = next(step for step in job["steps"] if step.get("name") == name)
            own = {k: secrets[v[4:-3]] for k, v in step.get("env", {}).items() if "secrets." in v}
            # As the runner starts it, but for the pause between two looks.
            script = step["run"].replace("elle pod up", "elle pod up --poll 0.05")
            return subprocess.run(
                ["bash", "-eo", "pipefail", "-c", script], cwd=root, env=place | at | given | own, check=False,
                capture_output=True, text=True, timeout=120,
            )  # fmt: skip

        (root / "report").mkdir()
        yield SimpleNamespace(run=run, runpod=service, root=root, given=given, server=server)


@pytest.mark.skipif(not shutil.which("jq"), reason="the runner has jq, this machine has not")
def test_a_training_started_by_hand_ends_with_a_report_and_nothing_rented(account):
    for name in ("Confirmed", "Plan", "Train", "Serve", "Evaluate", "End what is rented"):
        done = account.run(name)
        assert done.returncode == 0, f"{name}: {done.stdout}{done.stderr}"
    assert account.runpod.pods == account.runpod.endpoints == {}
    assert len(account.runpod.gone) == 1
    chats = {request.json()["model"] for request in account.server.requests if request.route == "chat"}
    assert chats == {"elle-trained"}, "the adapter is asked, not its base"
    report = {path.name: path.read_text() for path in (account.root / "report").iterdir()}
    assert set(report) >= {"plan.txt", "training.json", "endpoint.json", "outputs.jsonl", "failures.html"}
    score = json.loads(report["scorecard.json"])["metrics"]
    assert (score["json_strict"]["value"], score["schema"]["value"]) == (1.0, 0.0)
    assert not [name for name, text in report.items() if "rp-secret" in text or "hf-secret" in text]


def test_a_training_that_fails_or_is_not_confirmed_leaves_nothing_rented(account):
    account.given["CONFIRM"] = "yes"
    assert account.run("Confirmed").returncode == 1
    assert account.run("End what is rented").returncode == 0
    assert not account.server.requests
    account.runpod.life = "fails"
    assert account.run("Train").returncode == 1
    assert len(account.runpod.gone) == 1
    assert account.run("End what is rented").returncode == 0
    assert account.runpod.pods == {}
