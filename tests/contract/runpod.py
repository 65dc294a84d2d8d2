"""The routes of RunPod that `renting` calls: REST v2 (pods, catalogue, secrets, serverless) and a queue's health.

Written from RunPod's OpenAPI description. A pod lives by `clock` (seconds): it is PROVISIONING, STARTING, RUNNING in
turn, and while it runs it does what `life` says; with `life="script"` its start command really runs, in a shell here,
with this server in place of RunPod and the Hub. Mistakes fail loudly: an unknown field is refused, as RunPod does.
"""

import contextlib
import hashlib
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from contract import Request, Response, Route
from contract.hub import Hub

FIELDS = {"name", "image", "args", "gpu", "cloud", "disk", "mounts", "ports", "env", "dataCenterIds", "registry"}
GPU = {"id", "count", "minCudaVersion", "allowedCudaVersions", "minRamPerGpu", "minVcpuCountPerGpu"}
ENDPOINT = {"name", "type", "image", "gpu", "disk", "env", "workers", "scaling", "timeout", "flashboot"}
PRICES = {"NVIDIA H200": 4.59, "NVIDIA H100 80GB HBM3": 3.99, "NVIDIA A100-SXM4-80GB": 1.79}
HEALTH = {"workers": {"idle": 1, "running": 0}}
WEIGHTS = b"\x08\x00\x00\x00\x00\x00\x00\x00{}      " * 500


class RunPod:
    """One account in memory.

    Args:
        keys: API keys that are valid. stock: GPU id → availability. life: what a running pod comes to: "succeeds",
            "fails", "hangs" (until its limit), "no weights" (reports a success that is none), "dies" (the container
            ends without a word), "never starts"; "script" runs its start command in a shell below `folder`.
    """

    def __init__(self, hub: Hub, *, life: str = "succeeds", folder: Path | None = None):
        self.hub, self.life, self.folder = hub, life, folder
        self.keys: set[str] = set()
        self.stock = dict.fromkeys(PRICES, "HIGH")
        self.asked_more = 0.0  # dollars an hour that a pod costs beyond the catalogue
        self.costs: object = None  # what it says instead
        self.lag = 0.0  # seconds until a list shows what is made, and hides what is gone
        self.pods: dict[str, dict[str, Any]] = {}
        self.gone: list[dict[str, Any]] = []
        self.secrets: dict[str, str] = {}
        self.endpoints: dict[str, dict[str, Any]] = {}
        self.deleted: list[dict[str, Any]] = []  # endpoints
        self.clock: Callable[[], float] = time.monotonic
        self.steps = (0.0, 0.0, 0.0)  # seconds in PROVISIONING, in STARTING, at work
        self.variables: dict[str, str] = {}  # of a pod whose start command runs here
        self.processes: dict[str, subprocess.Popen] = {}
        pod, endpoint = "/v2/pods/(?P<pod>[^/]+)", "/v2/serverless/(?P<endpoint>[^/]+)"
        self.routes = [
            Route("gpus", "GET", "/v2/catalog/gpus", self._of(self.gpus)),
            Route("find-secret", "GET", "/v2/account/secrets", self._of(self.find_secret)),
            Route("create-secret", "POST", "/v2/account/secrets", self._of(self.create_secret)),
            Route("pods", "GET", "/v2/pods", self._of(lambda _: {"pods": self.listed(self.pods, self.gone)})),
            Route("create-pod", "POST", "/v2/pods", self._of(self.create_pod)),
            Route("pod", "GET", pod, self._of(lambda _, pod: shown(self.pods[pod]))),
            Route("terminate", "DELETE", pod, self._of(lambda _, pod: self.end(pod), pods_own_key=True)),
            Route("logs", "GET", f"{pod}/logs", self._of(self.logs)),
            Route("endpoints", "GET", "/v2/serverless", self._of(self.list_endpoints)),
            Route("endpoint", "GET", endpoint, self._of(lambda _, endpoint: shown(self.endpoints[endpoint]))),
            Route("create-endpoint", "POST", "/v2/serverless", self._of(self.create_endpoint)),
            Route("update-endpoint", "PATCH", endpoint, self._of(self.update_endpoint)),
            Route("delete-endpoint", "DELETE", endpoint, self._of(self.delete_endpoint)),
            Route("health", "GET", "/queue/(?P<endpoint>[^/]+)/health", self._of(lambda *_, **__: HEALTH)),
            Route("work", "POST", "/stand-in/(?P<pod>[^/]+)", self.stand_in),
        ]

    def _of(self, answer: Callable[..., Any], *, pods_own_key: bool = False) -> Callable[..., Response]:
        """Check the key first: the account's, or (to end itself) that of the very pod. What `answer` returns is sent as
        JSON, or a Response."""

        def checked(request: Request, **groups: str) -> Response:
            own = pods_own_key and request.token == f"pod-key-{groups['pod']}"
            if request.token not in self.keys and not own:
                return problem(401, "Unauthorized", "missing or invalid bearer token")
            self.live()
            if any(name not in {"pod": self.pods, "endpoint": self.endpoints}[kind] for kind, name in groups.items()):
                return problem(404, "Not Found", f"no such {next(iter(groups))}")
            answered = answer(request, **groups)
            return answered if isinstance(answered, Response) else Response(200, answered)

        return checked

    def listed(self, there: dict[str, dict[str, Any]], gone: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """What a list shows: what stood there `lag` seconds ago."""
        then = self.clock() - self.lag
        still = [each for each in gone if each["_ended"] > then]
        return [shown(each) for each in (*there.values(), *still) if each.get("_since", then) <= then]

    # ---- pods

    def gpus(self, request: Request) -> Response | dict[str, Any]:
        if not {"include", "product"} <= set(request.query):
            return problem(400, "Bad Request", "include=AVAILABILITY needs product")
        offer = {"secure": True, "community": False}
        prices = {name: {"secure": price, "community": 0.0} for name, price in PRICES.items()}
        return {"gpus": [{"id": n, "price": prices[n], "availability": self.stock[n]} | offer for n in prices]}

    def find_secret(self, request: Request) -> dict[str, Any]:
        name = request.query["name"]
        return {"secrets": [{"id": name, "name": name}] if name in self.secrets else []}

    def create_secret(self, request: Request) -> Response:
        asked = request.json()
        if asked["name"] in self.secrets:
            return problem(409, "Conflict", "a secret of this name exists")
        self.secrets[asked["name"]] = asked["value"]
        return Response(201, {"id": asked["name"], "name": asked["name"]})

    def create_pod(self, request: Request) -> Response:
        asked = request.json()
        if wrong := invalid(asked, FIELDS, {"name", "image", "gpu"}) or invalid(asked["gpu"], GPU, {"id"}):
            return wrong
        if self.stock.get(asked["gpu"]["id"], "NONE") == "NONE":
            return problem(400, "Bad Request", "There are no longer any instances available")
        number = len(self.pods) + len(self.gone) + 1
        price = PRICES[asked["gpu"]["id"]] * asked["gpu"].get("count", 1) + self.asked_more
        pod = {"id": f"pod{number}", "status": "PROVISIONING", "cost": self.costs or price, **asked}
        pod["_since"], pod["_base"] = self.clock(), request.base
        self.pods[pod["id"]] = pod
        if self.life == "script":
            self.restart(pod["id"])
        return Response(201, shown(pod))

    def logs(self, request: Request, pod: str) -> Response:
        lines = ["working", f"HF_TOKEN={self.token(self.pods[pod])}"]
        events = [f"data: {json.dumps({'source': 'container', 'line': each})}\n" for each in lines]
        return Response(200, "\n".join(events).encode(), {"Content-Type": "text/event-stream"})

    def token(self, pod: dict[str, Any]) -> str:
        """What RunPod puts in place of `{{ RUNPOD_SECRET_name }}` when the pod boots."""
        name = pod["env"].get("HF_TOKEN", "").removeprefix("{{ RUNPOD_SECRET_").removesuffix(" }}")
        return self.secrets.get(name, "")

    def live(self) -> None:
        """Let every pod come to where it is by now."""
        for pod in list(self.pods.values()):
            if pod["status"] in ("EXITED", "ERROR"):
                continue
            if self.life == "script":
                pod["status"] = {"PROVISIONING": "STARTING"}.get(pod["status"], "RUNNING")
                if (process := self.processes.get(pod["id"])) and process.poll() is not None:
                    pod["status"] = "EXITED"
                continue
            age, (provisioning, starting, work) = self.clock() - pod["_since"], self.steps
            if age < provisioning or self.life == "never starts":
                continue
            pod["status"] = "STARTING" if age < provisioning + starting else "RUNNING"
            if age >= provisioning + starting + work and pod["status"] == "RUNNING":
                self.finish(pod)
            if self.life == "hangs" and age >= provisioning + starting + float(pod["env"]["ELLE_SECONDS"]):
                self.report(pod, {"state": "expired", "reason": "its limit of time was reached"}, last=True)

    def finish(self, pod: dict[str, Any]) -> None:
        """What its own script would do at its end."""
        absent = {"repository": "ada/model", "files": {"model.safetensors": [len(WEIGHTS), "0" * 64]}}
        if self.life == "dies":
            pod["status"] = "EXITED"
        elif self.life == "succeeds":
            self.report(pod, self.trained(pod), last=True)
        elif self.life == "no weights":
            self.report(pod, {"state": "succeeded", "weights": [absent]}, last=True)
        elif self.life == "fails":
            self.report(pod, {"state": "failed", "reason": f"Axolotl failed; {self.token(pod)}"}, last=True)

    def trained(self, pod: dict[str, Any]) -> dict[str, Any]:
        """Put weights into the model repositories of the pod's order; the result that says so."""
        run, dataset = pod["env"]["ELLE_RUN"], pod["env"]["ELLE_DATASET_REPO"]
        files = self.hub.repositories["datasets", dataset].head.files
        order, results = json.loads(files[f"runs/{run}/order.json"]), []
        for recipe in order["recipes"]:
            name = recipe["repository"]
            if ("models", name) not in self.hub.repositories:
                self.hub.add("models", name)
            repository = self.hub.repositories["models", name]
            repository.commit(f"Trained by {run}", repository.head.files | {"model.safetensors": WEIGHTS})
            found = {"model.safetensors": [len(WEIGHTS), hashlib.sha256(WEIGHTS).hexdigest()]}
            results.append({"repository": name, "files": found})
        return {"state": "succeeded", "reason": "", "weights": results}

    def report(self, pod: dict[str, Any], result: dict[str, Any], *, last: bool = False) -> None:
        """Push a result; `last`: then the pod ends itself."""
        repository = self.hub.repositories["datasets", pod["env"]["ELLE_DATASET_REPO"]]
        inside = f"runs/{pod['env']['ELLE_RUN']}/{pod['env']['ELLE_MARK']}"
        files = {f"{inside}/result.json": json.dumps(result).encode(), f"{inside}/log.txt": b"working\nended\n"}
        repository.commit(f"report of {pod['id']}", repository.head.files | files)
        if last:
            self.end(pod["id"])

    def end(self, pod: str) -> Response:
        found = self.pods.pop(pod)
        self.gone.append(found | {"status": "TERMINATED", "_ended": self.clock()})
        if process := self.processes.pop(pod, None):  # as a container ends: all of it at once
            kill(process)
        return Response(204)

    # ---- a pod whose start command runs here

    def restart(self, pod: str) -> None:
        """Start a pod's container, for the first time or again: its volume is kept."""
        pod, home = self.pods[pod], self.folder / pod
        home.mkdir(parents=True, exist_ok=True)
        own = {
            "RUNPOD_POD_ID": pod["id"], "RUNPOD_API_KEY": f"pod-key-{pod['id']}", "HF_TOKEN": self.token(pod),
            "ELLE_VOLUME": str(home / "volume"), "PATH": os.environ["PATH"], "HOME": str(home), "ELLE_TICK": "0.05",
            "ELLE_PAUSE": "0.05", "STAND_IN": f"{pod['_base']}/stand-in/{pod['id']}", "TMPDIR": str(home),
            "LANG": "C.UTF-8",
        }  # fmt: skip
        args = pod["args"].replace("~/start.sh", f"{home}/start.sh")
        with (home / "out.txt").open("wb") as out:
            self.processes[pod["id"]] = subprocess.Popen(
                f"exec {args}", shell=True, executable="/bin/bash", env=pod["env"] | own | self.variables, cwd=home,
                stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True,
            )  # fmt: skip

    def stand_in(self, request: Request, pod: str) -> Response:
        """The training that a pod's script would run, in a moment: it pushes weights and gives what it left."""
        return Response(200, self.trained(self.pods[pod])) if pod in self.pods else Response(404)

    def close(self) -> None:
        for process in self.processes.values():
            kill(process)
        if self.folder:
            shutil.rmtree(self.folder, ignore_errors=True)

    # ---- endpoints

    def list_endpoints(self, request: Request) -> dict[str, Any]:
        return {"endpoints": self.listed(self.endpoints, self.deleted)}

    def create_endpoint(self, request: Request) -> Response:
        asked = request.json()
        if wrong := invalid(asked, ENDPOINT, {"name", "type", "scaling", "image", "gpu"}):
            return wrong
        made = {"id": f"ep{len(self.endpoints) + len(self.deleted) + 1}", **asked, "_since": self.clock()}
        self.endpoints[made["id"]] = made
        return Response(201, shown(made))

    def update_endpoint(self, request: Request, endpoint: str) -> Response:
        if wrong := invalid(request.json(), ENDPOINT):
            return wrong
        self.endpoints[endpoint] |= request.json()
        return Response(200, shown(self.endpoints[endpoint]))

    def delete_endpoint(self, request: Request, endpoint: str) -> Response:
        self.deleted.append(self.endpoints.pop(endpoint) | {"_ended": self.clock()})
        return Response(204)


class Chat:
    """The route of an endpoint that an app asks: every answer is `{}`."""

    def __init__(self):
        self.routes = [Route("chat", "POST", ".*/openai/v1/chat/completions", self.answer)]

    def answer(self, request: Request) -> Response:
        choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "{}"}}
        usage = {"prompt_tokens": 9, "completion_tokens": 1, "total_tokens": 10}
        about = {"id": "1", "object": "chat.completion", "created": 0, "model": request.json()["model"]}
        return Response(body=about | {"choices": [choice], "usage": usage})


def shown(thing: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in thing.items() if not name.startswith("_")}


def problem(status: int, title: str, detail: str, **more: Any) -> Response:
    """RFC 9457, as RunPod answers."""
    body = {"title": title, "status": status, "detail": detail} | more
    return Response(status, body, {"Content-Type": "application/problem+json"})


def invalid(asked: dict[str, Any], known: set[str], needed: Iterable[str] = ()) -> Response | None:
    """The refusal of a body with a field that is not known, or without one that is needed."""
    errors = [f"unknown field {name}" for name in set(asked) - known]
    errors += [f"needed field {name}" for name in needed if not asked.get(name)]
    return problem(422, "Unprocessable Entity", "validation failed", errors=errors) if errors else None


def kill(process: subprocess.Popen) -> None:
    """End a pod's process and all of its session, as the end of a container does."""
    for name in os.listdir("/proc"):  # noqa: PTH208 (names are all that is wanted)
        with contextlib.suppress(OSError, ValueError):
            if os.getsid(int(name)) == process.pid:
                os.kill(int(name), signal.SIGKILL)
    process.wait()
