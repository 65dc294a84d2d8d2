"""`elle run smoke` under SIGKILL: a part of `make soak` (`python benchmarks/soak.py --only runs [--kills 50]`).

One run is not broken; the others are killed (SIGKILL) some times each on their way, always continued with `--resume`,
and at last left to end. Each kill strikes one step of the profile: some fraction of the time that it took the unbroken
run after it began, or within two seconds after its manifest appeared. Several kills share a run, so that a kill also
hits what a kill has left, and no trial pays for a whole run.

Counted: processes that outlive a kill, temporary files left at the end, and runs that do not end with the unbroken
one's bytes of data and figures.
"""

import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from elle.base import paths, storage
from helpers.runs import profile

PROFILE, WHOLE = "smoke", "whole"
#: Kills of one run.
A_RUN = 15
#: Seconds after a kill within which all that the run has started must be gone (a job has `process.GRACE` of its own).
PATIENCE = 60.0
#: Keys of a report that tell of time, of the run or of the machine, and not of what came out.
PASSING = re.compile(r"seconds|run$|created|serving|cost|tokens|hours|within|machine|device|trainings|latency|startup")


@dataclass(frozen=True)
class Kill:
    """When a run is killed: so many seconds after its step began or, with `manifest`, after that appeared."""

    step: str
    seconds: float
    manifest: bool


def planned(kills: int, seconds: dict[str, float], pick: random.Random) -> list[Kill]:
    """So many kills of one run, in the order of its steps, each of which is as likely; seconds: what a step took."""
    steps = sorted(pick.choice(list(seconds)) for _ in range(kills))
    found = []
    for step in steps:
        manifest = pick.random() < 0.3
        found.append(Kill(step, pick.uniform(0, 2 if manifest else 1.1 * seconds[step]), manifest))
    return found


class Elle:
    """`elle run smoke` in processes of its own, with runs and temporary files in `folder`."""

    def __init__(self, folder: Path):
        self.runs, self.temporary = folder / "runs", folder / "tmp"
        self.temporary.mkdir(parents=True, exist_ok=True)
        self.variables = os.environ | {"ELLE_RUNS": str(self.runs), "TMPDIR": str(self.temporary)}

    def start(self, run: str) -> subprocess.Popen:
        command = [sys.executable, "-m", "helpers.cli", "run", PROFILE, "--resume", "--run-id", run]
        return subprocess.Popen(
            command, env=self.variables, cwd=paths.root(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )

    def finish(self, run: str) -> str:
        """Run to the end; what it printed where that is no success."""
        process = self.start(run)
        printed, _ = process.communicate()
        return printed[-2000:] if process.returncode else ""

    def kill(self, run: str, kill: Kill) -> float | None:
        """Start the run and kill it; seconds until nothing of it ran any more (None: something outlived it)."""
        manifest = self.runs / run / "manifests" / f"{kill.step}.json"
        process = self.start(run)
        for line in process.stdout:
            if f"] {kill.step}" in line:  # it begins, or is skipped
                break
        while kill.manifest and process.poll() is None and not manifest.exists():
            time.sleep(0.01)
        try:
            process.wait(kill.seconds)
        except subprocess.TimeoutExpired:
            process.kill()
        process.stdout.close()
        process.wait()
        began = time.monotonic()
        while self.running():
            if time.monotonic() - began > PATIENCE:
                return None
            time.sleep(0.1)
        return time.monotonic() - began

    def running(self) -> list[psutil.Process]:
        """The processes that a run has started, however they are called: they have inherited where runs lie."""
        found = []
        for process in psutil.process_iter(["environ", "status"]):
            environment = process.info["environ"] or {}
            if environment.get("ELLE_RUNS") == str(self.runs) and process.info["status"] != psutil.STATUS_ZOMBIE:
                found.append(process)
        return found

    def left(self, run: str) -> list[str]:
        """Files that should not be there once a run has ended."""
        names = (".*.partial", "*.partial.*", ".lock", ".status", "incomplete-*")
        found = [path for name in names for path in (self.runs / run).rglob(name) if path.parent.name != "train"]
        job_locks = {path.parent for path in (self.runs / run).rglob("process.json")}
        found = [path for path in found if path.name != ".lock" or path.parent not in job_locks]
        # torch's cache of compiled kernels is meant to stay: a run that is not broken leaves it, too.
        found += [path for path in self.temporary.iterdir() if not path.name.startswith("torchinductor_")]
        return [str(path) for path in [*found, *paths.root().glob("kernel-ipc-*")]]


def figures(value: Any) -> Any:
    """What a report says, without what passes."""
    if isinstance(value, dict):
        return {key: figures(each) for key, each in value.items() if not PASSING.search(key)}
    if isinstance(value, float):
        return float(f"{value:.4g}")  # a training that goes on from a checkpoint repeats its losses to about that
    return [figures(each) for each in value] if isinstance(value, list) else value


def data(folder: Path) -> dict[str, str]:
    return {path.name: storage.sha256(path) for path in sorted((folder / "data").iterdir())}


def differing(one: Any, other: Any, at: str = "") -> list[str]:
    """The places where two JSON values differ."""
    if isinstance(one, dict) and isinstance(other, dict):
        return [place for key in one | other for place in differing(one.get(key), other.get(key), f"{at}.{key}")]
    return [] if one == other else [f"{at}: {str(one)[:80]} ≠ {str(other)[:80]}"]


def broken(elle: Elle, run: str, kills: list[Kill]) -> dict:
    """One run with these kills; what became of it."""
    whole, folder = elle.runs / WHOLE, elle.runs / run
    gone = []
    for kill in kills:
        gone.append(elle.kill(run, kill))
        print(f"  {run}: {kill}, nothing left after {gone[-1]} s", file=sys.stderr, flush=True)
    failed = elle.finish(run)
    reports = [] if failed else [figures(storage.read_json(each / "report.json")) for each in (whole, folder)]
    return {
        "run": run,
        "kills": [vars(kill) for kill in kills],
        "gone": gone,
        "failed": failed,
        "data": [] if failed else differing(data(whole), data(folder)),
        "figures": differing(*reports) if reports else [],
        "left": elle.left(run),
    }


def runs(count: int, seed: int, folder: Path | None = None) -> dict:
    """`count` kills; folder: where runs are kept, and a finished unbroken one is used (default: made, and removed)."""
    pick, place = random.Random(seed), folder or Path(tempfile.mkdtemp(prefix="elle-"))
    elle = Elle(place)
    if printed := elle.finish(WHOLE):
        raise SystemExit(f"the unbroken run failed: {printed}")
    seconds = storage.read_json(elle.runs / WHOLE / "report.json")["step_seconds"]
    seconds = {step: seconds[step] for step in profile.load_profile(PROFILE).notebooks}
    results = []
    for number in range(-(-count // A_RUN)):
        kills = planned(min(A_RUN, count - number * A_RUN), seconds, pick)
        results.append(broken(elle, f"broken-{number}", kills))
    gone = [each for result in results for each in result["gone"]]
    bad = [each for each in results if each["failed"] or each["data"] or each["figures"] or each["left"]]
    if not bad and None not in gone and folder is None:
        shutil.rmtree(place)
    return {
        "count": count,
        "seed": seed,
        "runs": len(results),
        "processes outlived a kill": gone.count(None),
        "runs did not end": sum(bool(each["failed"]) for each in results),
        "runs ended with other data": sum(bool(each["data"]) for each in results),
        "runs ended with other figures": sum(bool(each["figures"]) for each in results),
        "temporary files left": sum(len(each["left"]) for each in results),
        "slowest": round(max((each for each in gone if each is not None), default=0.0), 1),
        "steps": dict(Counter(kill["step"] for each in results for kill in each["kills"])),
        "bad": bad[:5],
    }


COUNTED = ("processes outlived a kill", "runs did not end", "runs ended with other data",
           "runs ended with other figures", "temporary files left")  # fmt: skip


def section(found: dict, told: str) -> list[str]:
    """The part of docs/soak.md on killed runs. told: when, with what, how long."""
    return [
        "## Runs",
        "",
        f"{told}: {found['count']} kills (SIGKILL) of `elle run smoke`,",
        f"up to {A_RUN} of one run, each continued with `--resume` and at last left to end. All that a killed run had",
        f"started was gone within {found['slowest']} s.",
        "",
        "| | of all |",
        "|---|---|",
        *(f"| {name} | {found[name]} |" for name in COUNTED),
        "",
        "| killed in | how often |",
        "|---|---|",
        *(f"| {step} | {count} |" for step, count in sorted(found["steps"].items())),
        "",
    ]
