""".github/workflows: by actionlint, and by what it does not know: secrets, money, commands of this project."""

import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from helpers import cli, paths

ROOT = paths.root()
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
LINTER = Path(sys.prefix) / "node" / "node_modules" / "@tktco" / "node-actionlint" / "bin" / "node-actionlint.js"
each = pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)


def read(path: Path) -> dict:
    # YAML 1.1 reads the key `on` as true.
    return {("on" if key is True else key): value for key, value in yaml.safe_load(path.read_text()).items()}


def steps(path: Path) -> list[dict]:
    return [step for job in read(path)["jobs"].values() for step in job["steps"]]


def lint(*files: Path) -> str:
    """What actionlint finds; empty: nothing."""
    if not shutil.which("node") or not LINTER.is_file():
        pytest.skip("actionlint or node is not installed: `make setup` fetches the former by npm")
    found = ""
    for file in files:  # it takes one at a time
        done = subprocess.run(["node", LINTER, file], capture_output=True, text=True, timeout=60, check=False)
        assert "Checking 1 workflow file" in done.stdout, done.stderr
        found += done.stdout if done.returncode else ""
    return found


def test_actionlint_finds_nothing():
    assert lint(*WORKFLOWS) == ""


def test_actionlint_finds_what_is_wrong(tmp_path):
    broken = tmp_path / "broken.yml"
    broken.write_text(WORKFLOWS[0].read_text().replace("runs-on:", "run-on:", 1))
    assert 'unexpected key "run-on"' in lint(broken)


@each
def test_it_is_held_to_little(path):
    workflow = read(path)
    assert workflow["permissions"] == {"contents": "read"}
    assert "group" in workflow["concurrency"]
    for job in workflow["jobs"].values():
        assert "permissions" not in job
        assert 0 < job["timeout-minutes"] <= 360
    for step in steps(path):
        if uses := step.get("uses"):
            assert re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40}", uses), uses
            assert re.search(rf"{re.escape(uses)} # v\d+\.\d+\.\d+$", path.read_text(), re.MULTILINE)
            if "checkout" in uses:
                assert step["with"]["persist-credentials"] is False


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


@each
def test_nothing_that_a_person_typed_is_put_into_a_script(path):
    """An input that is pasted into a script is a script: inputs are read from the environment."""
    for step in steps(path):
        assert "${{" not in step.get("run", ""), step


@each
def test_its_commands_exist(path):
    """Every `elle …`, `make …` and file of a script, as the command itself reads them."""
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for step in steps(path):
        script = step.get("run", "").replace("\\\n", " ")
        for target in re.findall(r"\bmake ([a-z-]+)", script):
            assert target in targets
        for file in re.findall(r"(?<![\w/])(?:\.ci|requirements|configs|docs)/[\w./-]+\w", script):
            assert (ROOT / file).exists(), file
        for line in re.findall(r"\belle ((?:\$\([^)]*\)|[^\n|;&)>])*)", script):
            parse(shlex.split(line))


def test_what_a_workflow_rents_it_ends_in_every_case():
    renting = [path for path in WORKFLOWS if re.search(r"elle (pod (up|deploy)|job submit)", path.read_text())]
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


def parse(words: list[str]) -> None:
    """As click does it, with a number for what the shell would fill in."""
    command, context = cli.cli, None
    words = [re.sub(r"\$\{?\w+\}?|\$\([^)]*\)", "1", word) for word in words]
    while hasattr(command, "commands"):
        assert words[0] in command.commands, words
        command, words = command.commands[words[0]], words[1:]
    context = command.make_context(command.name, list(words))
    assert context is not None
