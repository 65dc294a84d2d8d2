"""Renting under faults: a part of `make soak` (`python benchmarks/soak.py --only renting [--rentals 200]`).

Each run is the real `elle pod up` in a process of its own, against the tests' RunPod and Hub; its pod's start command
really runs (the training in it is a stand-in). RunPod's lists lag behind, and one fault strikes each run at a random
point: a request fails, or is answered by 500 and done; the process is killed or interrupted, the container is killed,
the work fails or hangs. Then new processes ask for the status and, where something is left, end it. Counted: pods left
running, data lost, states that nothing explains.
"""

import hashlib
import json
import multiprocessing
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from elle.base import paths, storage

sys.path.insert(0, str(paths.root() / "tests"))

from contract import Server
from contract.hub import Hub
from contract.runpod import RunPod, kill

#: Runs at once: most of their time they wait.
AT_ONCE = 4
KEY, TOKEN = "rpa_SoakKey", "hf_SoakToken"
RECIPE = "configs/config_3b_qlora.yaml"
#: What stands in for the training: it takes a moment, then pushes weights (the server does) and leaves its result.
WORK = 'sleep 0.2; curl -sf -X POST -o "$ELLE_HOME/result.json" "$STAND_IN"'
ROUTES = ("gpus", "find-secret", "create-secret", "create-pod", "pods", "pod", "info", "create", "preupload", "batch",
          "upload", "commit", "resolve", "terminate", None)  # fmt: skip
FAILURES = (
    {"status": 429, "headers": {"Retry-After": "0"}}, {"status": 500}, {"status": 503, "body": b"<html>"},
    {"drop": "request"}, {"drop": "answer"}, {"drop": "done"}, {"delay": 0.3}, {"status": 401},
    {"status": 500, "done": True},
)  # fmt: skip
FAULTS = (
    "none", "request", "many requests", "killed", "killed, work hangs", "killed, container too", "interrupted",
    "container killed", "container killed twice", "work fails", "work hangs", "set-up fails", "no GPU left",
    "500 and a pod", "500 and a pod, killed", "500 and a pod, interrupted",
)  # fmt: skip
#: About as many requests as a run makes until its pod works; a process is killed after a number up to this.
REQUESTS = 45
#: Seconds that a list lags behind, at most (RunPod's: 3 to 5). What is waited for it, and for what may yet come of a
#: request, is as much shorter here.
LAG = 0.6


def command(arguments: list[str], variables: dict[str, str], out: str) -> None:
    """`elle …`, as a process of its own does it (forked from one that has imported it all)."""
    os.environ.update(variables)
    descriptor = os.open(out, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(descriptor, stream)
    sys.stdin = open(os.devnull)  # noqa: PTH123, SIM115
    signal.signal(signal.SIGINT, signal.default_int_handler)
    from huggingface_hub import constants

    from elle import hub
    from helpers import cli
    from renting import lifecycle, runpod

    constants.HF_HUB_OFFLINE = False  # read when it was imported, before these variables
    hub.FIRST_WAIT = runpod.FIRST_WAIT = lifecycle.LOOK = 0.05
    lifecycle.LAG, lifecycle.LATE = LAG / 2, 2 * LAG  # the longer half of lags: two pods for a moment
    sys.argv = ["elle", *arguments]
    cli.main()


class Elle:
    """Starts commands in processes of their own."""

    def __init__(self, variables: dict[str, str], out: Path):
        self.context = multiprocessing.get_context("forkserver")
        self.context.set_forkserver_preload(["helpers.cli", "renting", "httpx", "huggingface_hub.hf_api"])
        self.variables, self.out = variables, out

    def start(self, *arguments: str):
        process = self.context.Process(target=command, args=([*arguments], self.variables, str(self.out)))
        process.start()
        return process

    def run(self, *arguments: str) -> int:
        process = self.start(*arguments)
        process.join(60)
        if process.is_alive():
            process.kill()
        return process.exitcode if process.exitcode is not None else -1


def once(number: int, pick: random.Random, folder: Path, data: Path) -> dict:
    """One run with one fault; what became of it."""
    place = folder / f"{number}"
    place.mkdir()
    hub = Hub()
    hub.tokens[TOKEN] = "ada"
    account = RunPod(hub, life="script", folder=place / "pods")
    account.keys.add(KEY)
    account.lag = pick.uniform(0.0, LAG)
    fault, run = pick.choice(FAULTS), f"soak-{number}"
    account.variables = {"ELLE_SETUP": "true", "ELLE_WORK": f"bash {_work(place)}"}
    if fault == "work fails":
        account.variables["ELLE_WORK"] = "false"
    elif fault == "set-up fails":
        account.variables["ELLE_SETUP"] = "false"
    elif fault.endswith("work hangs"):
        account.variables |= {"ELLE_WORK": "sleep 600", "ELLE_SECONDS": "1"}
    elif fault == "no GPU left":
        account.stock = dict.fromkeys(account.stock, pick.choice(["NONE", "LOW"]))
    detail = ""
    with Server(account, hub) as server:
        if fault in ("request", "many requests"):
            failure, route = dict(pick.choice(FAILURES)), pick.choice(ROUTES)
            times = 1 if fault == "request" else pick.randint(2, 8)
            server.fail(route, **failure, after=pick.randint(0, 3), times=times)
            detail = f"{route or 'any'}: {failure}, {times} times"
        elif fault == "no GPU left" and account.stock["NVIDIA H200"] == "LOW":
            server.fail("create-pod", status=400, body={"status": 400, "detail": "no instances available"})
        elif fault.startswith("500"):
            server.fail("create-pod", status=500, done=True, times=pick.randint(1, 3))
        variables = {
            "RUNPOD_API_KEY": KEY, "HF_TOKEN": TOKEN, "HF_USERNAME": "ada", "HF_DATASET_REPO": "elle-data",
            "HF_MODEL_REPO": "elle-model", "HF_ENDPOINT": server.url, "RUNPOD_REST_URL": f"{server.url}/v2",
            "RUNPOD_ENDPOINT_BASE_URL": f"{server.url}/queue", "ELLE_RUNS": str(place / "runs"),
            "HF_HUB_OFFLINE": "0", "TRANSFORMERS_OFFLINE": "0", "NO_PROXY": "127.0.0.1,localhost",
        }  # fmt: skip
        elle = Elle(variables, place / "out.txt")
        process = elle.start("pod", "up", RECIPE, "--data", str(data), "--run-id", run, "--yes", "--poll", "0.05")
        ended_by_us = fault.endswith("interrupted")
        if "killed" in fault.partition("container")[0] or ended_by_us:
            if fault.startswith("500"):  # in that very moment, or a little later
                _after(server, REQUESTS, process, lambda: server.count("create-pod"))
                time.sleep(pick.uniform(0.0, 2 * LAG))
            else:
                _after(server, pick.randint(0, REQUESTS), process)
            detail = f"after {len(server.requests)} requests"
            for _ in range(pick.randint(1, 2) if ended_by_us else 1):  # Ctrl-C, once or twice
                if process.is_alive():
                    os.kill(process.pid, signal.SIGINT if ended_by_us else signal.SIGKILL)
            if fault.endswith("container too"):
                process.join()
                _container(server, account, pick.uniform(0.0, 0.3), None, again=False)
        elif fault.startswith("container"):
            for _ in range(2 if fault.endswith("twice") else 1):
                _container(server, account, pick.uniform(0.05, 0.5), process, again=fault.endswith("twice"))
        process.join(60)
        hung = process.is_alive()
        if hung:
            process.kill()
        code = process.exitcode
        # The pod goes on by itself; a while later somebody looks, from a new process.
        deadline = time.monotonic() + 4
        while account.pods and time.monotonic() < deadline and fault != "no GPU left":
            with server._lock:
                account.live()
            if all(pod["status"] == "EXITED" for pod in account.pods.values()):
                break
            time.sleep(0.05)
        server.faults.clear()
        elle.run("pod", "status", run, "--json")
        said = _said(place)
        unknown = bool(account.pods and not (said and said["costs"]))
        if account.pods or (said and said["state"] == "asked"):
            ended_by_us = True
            elle.run("pod", "down", run, "--json")
            said = _said(place)
    left = len(account.pods)
    account.close()
    lost = _lost(hub, run, data, said, ended_by_us)
    recorded = (place / "runs" / run / "rented.json").exists()
    explained = bool(said and said["sentence"] and not said["costs"] and not unknown) or not recorded
    result = {
        "fault": fault, "detail": detail, "code": code, "left": left, "lost": lost, "hung": hung,
        "explained": explained, "state": said["state"] if said else "nothing was rented",
    }  # fmt: skip
    if not (left or lost or hung or not explained):
        shutil.rmtree(place)
    return result


def _said(place: Path) -> dict | None:
    """What the last command said of the run."""
    lines = (place / "out.txt").read_text(errors="replace").splitlines()
    return next((json.loads(line) for line in reversed(lines) if line.startswith('{"run_id"')), None)


def _work(place: Path) -> Path:
    script = place / "work.sh"
    script.write_text(WORK)
    return script


def _after(server: Server, count: int, process, come=lambda: False) -> None:
    """Wait until so many requests have come, or what `come` says has, or the process has ended."""
    deadline = time.monotonic() + 20
    while len(server.requests) < count and not come() and process.is_alive() and time.monotonic() < deadline:
        time.sleep(0.005)


def _container(server: Server, account: RunPod, wait: float, process, *, again: bool) -> None:
    """Kill a pod's container a while after it began (process None: what there is of it); RunPod may start it again."""
    deadline = time.monotonic() + 20
    while not account.processes and process is not None and process.is_alive() and time.monotonic() < deadline:
        time.sleep(0.005)
    time.sleep(wait)
    with server._lock:  # nobody sees a container between its end and its start, and ends the wrong one
        for pod, running in list(account.processes.items()):
            kill(running)
            if again:
                account.restart(pod)


def _lost(hub: Hub, run: str, data: Path, said: dict | None, ended_by_us: bool) -> list[str]:
    """What is not where it should be."""
    lost = []
    repository = hub.repositories.get(("datasets", "ada/elle-data"))
    files = repository.head.files if repository else {}
    sent = {name: content for name, content in files.items() if name.startswith(f"runs/{run}/data/")}
    for name, content in sent.items():  # all of the upload, or none
        if (data / Path(name).name).read_bytes() != content:
            lost.append(f"{name} is not what was sent")
    if sent and len(sent) != 6:
        lost.append(f"half of the data is there: {sorted(sent)}")
    models = hub.repositories.get(("models", "ada/elle-model"))
    name = next((name for name in files if name.startswith(f"runs/{run}/") and name.endswith("/result.json")), "")
    reported = json.loads(files.get(name, b"{}"))
    if reported.get("state") == "succeeded" and (not said or said["state"] != "succeeded"):
        lost.append(f"weights are there, and the state is {said and said['state']}")
    for each in reported.get("weights", []):
        for name, (size, digest) in each["files"].items():
            content = models.head.files.get(name, b"") if models else b""
            if (len(content), hashlib.sha256(content).hexdigest()) != (size, digest):
                lost.append(f"{name} is not what was pushed")
    if said and said["state"] == "succeeded" and models is None:
        lost.append("a success without weights")
    if said and said["state"] in ("lost", "stopped") and not ended_by_us and reported:
        lost.append("a report that nobody read")
    return lost


def pods(count: int, seed: int) -> dict:
    """`count` runs; what was left, lost or unexplained in all of them."""
    from elle.briefings import dataset
    from elle.evaluation.audit import audit

    pick = random.Random(seed)
    folder = Path(tempfile.mkdtemp(prefix="elle-soak-"))
    data = folder / "data"
    dataset.build("basic", 60, 7, data)
    audit(data)
    before = {path.name: storage.sha256(path) for path in data.iterdir()}
    seeds = [pick.random() for _ in range(count)]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        results = list(pool.map(lambda number: once(number, random.Random(seeds[number]), folder, data), range(count)))
    bad = [each for each in results if each["left"] or each["lost"] or each["hung"] or not each["explained"]]
    unchanged = before == {path.name: storage.sha256(path) for path in data.iterdir()}
    table: dict[str, Counter] = {}
    for each in results:
        table.setdefault(each["fault"], Counter())[each["state"]] += 1
    if not bad:
        shutil.rmtree(folder)
    return {
        "count": count,
        "seed": seed,
        "pods left": sum(each["left"] for each in results),
        "data lost": sum(bool(each["lost"]) for each in results) + (not unchanged),
        "not explained": sum(not each["explained"] or each["hung"] for each in results),
        "states": {fault: dict(states) for fault, states in sorted(table.items())},
        "bad": [each for each in bad][:5],
    }


def section(found: dict, told: str) -> list[str]:
    """The part of docs/soak.md on renting. told: when, with what, how long."""
    lines = [
        "## Renting",
        "",
        f"{told}: {found['count']} runs of `elle pod up`, each in a process of its own against the tests' RunPod and",
        "Hub, its pod's start command really run, the training in it a stand-in; lists that lag behind in all, and one",
        "fault each, at a random point.",
        "",
        "| | of all runs |",
        "|---|---|",
        *(f"| {name} | {found[name]} |" for name in ("pods left", "data lost", "not explained")),
        "",
        "| fault | ended as (how often) |",
        "|---|---|",
    ]
    for fault, states in found["states"].items():
        said = ", ".join(f"{state} ({count})" for state, count in sorted(states.items(), key=lambda each: -each[1]))
        lines.append(f"| {fault} | {said} |")
    return [*lines, ""]
