"""Starts a vLLM server for a model folder, waits until it answers, and leaves nothing behind when it stops."""

import contextlib
import importlib.util
import os
import socket
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from elle.base import machine, paths
from elle.base.errors import ElleError
from elle.base.process import Job
from elle.base.secrets import loopback, secret
from elle.serving import deployments
from elle.serving.deployments import Deployment

STOP_SECONDS = 8.0  # from SIGTERM to SIGKILL: vLLM needs about 1 s

# What a start goes through, by the lines of vLLM's log that say so.
STAGES = {
    "Resolved architecture": "the model's architecture is known; starting the engine",
    "Initializing a V1": "the engine is starting",
    "Starting to load model": "loading the weights",
    "Starting vLLM server": "the engine is ready",
}


@dataclass
class Server(contextlib.AbstractContextManager):
    """A running server; a context manager that stops it."""

    base_url: str  # with /v1, as OpenAI clients want it
    name: str  # the model's, in requests
    startup_seconds: float
    job: Job
    names: tuple[str, ...] = ()  # of all models served: this one, and adapters (or an adapter's base)

    def under(self, name: str) -> "Server":
        """The same server, asked for another of its models."""
        return replace(self, name=name)

    def metrics(self) -> dict[str, float]:
        """What the server counts of itself (`/metrics`, Prometheus's text format): each name's sum over its labels,
        without the buckets of histograms."""
        import httpx

        reply = httpx.get(self.base_url.removesuffix("/v1") + "/metrics", timeout=10, trust_env=False)
        sums: dict[str, float] = {}
        for line in reply.raise_for_status().text.splitlines():
            name = line.partition("{")[0].partition(" ")[0]
            if not line.startswith("#") and not name.endswith("_bucket"):
                sums[name] = sums.get(name, 0.0) + float(line.rpartition(" ")[2])
        return sums

    def stop(self) -> None:
        """End the server and all its processes, within 10 s."""
        self.job.stop(timeout=STOP_SECONDS)

    def __exit__(self, *_: object) -> None:
        self.stop()


def start_server(
    model: Path | str,
    folder: Path,
    *,
    name: str = "elle",
    adapters: Mapping[str, Path | str] | None = None,
    max_model_len: int = 1024,
    **options: Any,
) -> Server:
    """Serve a model folder over HTTP; returns once it answers. It never outlives this process.

    Args:
        model: a folder in Hugging Face format (weights, config.json, tokenizer), or what else `deployments.resolve`
            takes.
        folder: the server's own: its log and process record.
        name: the name to ask for it by.
        adapters: LoRA adapters' folders, each served beside the model under its name.
        max_model_len: the longest prompt and answer together, in tokens.
        options: port, host, hosts, timeout, progress, as `serve` takes them.

    Raises:
        ElleError: as `serve`.
    """
    named = {name: str(Path(place).resolve()) for name, place in (adapters or {}).items()}
    values = {"model_id": str(model), "served_name": name, "enable_lora": bool(named), "adapters": named}
    return serve(deployments.made(values | {"max_model_len": max_model_len}, "start_server"), folder, **options)


def serve(
    deployment: Deployment,
    folder: Path,
    *,
    port: int | None = None,
    host: str = "127.0.0.1",
    hosts: Sequence[str] = (),
    timeout: float = 600,
    progress: Callable[[str], None] | None = None,
) -> Server:
    """Serve a deployment on this machine; returns once it answers. It never outlives this process.

    On a machine with NVIDIA GPUs, vLLM of this environment, over as few of them as the model fits on; elsewhere that of
    the CPU server's own. With ELLE_API_KEY in the environment, requests need that key (not `/health`, `/metrics`).

    Args:
        folder: the server's own: its log and process record.
        port: 1 to 65535; None takes a free one.
        hosts: names, without port, by which it is asked beside loopback's and `host`; by another none is answered.
        timeout: seconds to wait until it answers: seconds usually, minutes from a cold disk. One that ends is noticed
            at once.
        progress: called with a sentence at each stage of the start.

    Raises:
        ElleError: no such model, adapter or server environment; it does not fit this machine; the port is taken; a
            public host without a key; a key that cannot be one; a start that failed (with the log's own
            reason) or took too long. Nothing is left running.
    """
    name, deployment = deployment.served_name, deployments.for_this_machine(deployment)
    key = os.environ.get("ELLE_API_KEY", "").strip() and secret("ELLE_API_KEY", "key of the server", "choose another")
    if not loopback(host) and not key:
        raise ElleError(
            f"host {host} is public, and there is no API key: anyone could use the server",
            where="host",
            fix="set ELLE_API_KEY in the environment, or serve on 127.0.0.1",
        )
    port = _port(host, port)
    command, env = _command()
    command += ["--host", host, "--port", str(port), *deployments.render_command(deployment)]
    # A line for each request is noise (its text is not logged by default, and must not be).
    command += ["--disable-uvicorn-access-log", "--middleware", "elle.serving.guard.Guard", "--allowed-origins", "[]"]
    # The key travels by the environment: an argument list is everybody's to read.
    known = ("localhost", "127.0.0.1", "[::1]", f"[{host}]" if ":" in host else host, *hosts)
    env |= {"ELLE_SERVER_HOSTS": ",".join(known)} | ({"VLLM_API_KEY": key} if key else {})

    start = time.monotonic()
    # vLLM leaves its sockets lying in the temporary folder: it gets one of its own.
    job = Job.start(folder, command, env=env, owner=os.getpid(), scratch=True)
    try:
        reach = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
        url = f"http://[{reach}]:{port}" if ":" in reach else f"http://{reach}:{port}"
        _wait(job, f"{url}/health", start + timeout, progress or (lambda _: None))
    except BaseException:  # Ctrl-C too
        job.stop(timeout=STOP_SECONDS)
        raise
    names = tuple(dict.fromkeys((name, deployment.served_name, *deployment.adapters)))
    return Server(f"{url}/v1", name, time.monotonic() - start, job, names)


def _command() -> tuple[list[str], dict[str, str]]:
    """How vLLM starts on this machine: the command's first part, and its environment variables."""
    # Not `vllm serve`: the CPU build's own script fails, looking its version up under another name.
    # Not `python -m` either: each process that vllm spawns would import the HTTP server's main module again, in vain
    # (2 of 17 CPU seconds of the start). Seen from `-c`, there is no main module to import.
    # The guard is found by the path of this checkout, last of all: no module of ours stands before one of vLLM's.
    run = "runpy.run_module('vllm.entrypoints.openai.api_server', run_name='__main__')"
    module = ["-c", f"import runpy, sys; sys.path.append({str(Path(__file__).parents[2])!r}); {run}"]
    env = {"VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1", "HF_HUB_OFFLINE": "1"}
    if machine.has_gpu() and importlib.util.find_spec("vllm"):
        return [sys.executable, *module, "--dtype", "auto"], env
    python = paths.server_python()
    if not python.is_file():
        raise ElleError("the server's environment is missing", where=str(python), fix="run `make setup`")
    # Measured on 2 cores, nano, 16 requests at once.
    env |= {
        "VLLM_CPU_KVCACHE_SPACE": str(deployments.CPU_CACHE),
        # The model runs inside the engine's process, not in a third one: two imports of vLLM instead of three
        # (17 instead of 29 CPU seconds until it answers), and no messages between the two at each token (19 instead
        # of 31 CPU seconds for 40,000 tokens).
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        # That gives up vLLM's own binding of threads to cores. One core is left to HTTP, tokenizing and sampling, as
        # vLLM's binding does too: with a thread on both, they spin for each other (43 CPU seconds instead of 19).
        "OMP_NUM_THREADS": str(max(1, len(os.sched_getaffinity(0)) - 1)),
    }
    # bfloat16 is a tenth faster there, and rounds.
    return [str(python), *module, "--dtype", "float32", "--enforce-eager"], env


def _port(host: str, port: int | None) -> int:
    """`port` if it is free, or any free one.

    Raises:
        ElleError: it is taken, or the host is not an address of this machine.
    """
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # one that a stopped server just left is free
        try:
            probe.bind((host, port or 0))
        except (OSError, OverflowError) as error:
            fix = "choose another port, or none to take a free one"
            raise ElleError(f"port {port} of {host} cannot be used: {error}", where="port", fix=fix) from error
        return probe.getsockname()[1]


def _wait(job: Job, health: str, deadline: float, progress: Callable[[str], None]) -> None:
    """Return when the server says that it is well.

    Raises:
        ElleError: it ended, or the time is up.
    """
    import httpx

    told: set[str] = set()
    while True:
        # Alive first: had it ended, whatever answers on this port would be another program.
        if not job.running:
            raise ElleError(f"the server did not start: {job.reason()}", where=str(job.log), fix="the log has the rest")
        with contextlib.suppress(httpx.HTTPError):
            if httpx.get(health, timeout=2, trust_env=False).status_code == 200:
                return
        log = job.log.read_text(errors="replace")
        for stage in STAGES:
            if stage in log and stage not in told:
                told.add(stage)
                progress(STAGES[stage])
        if time.monotonic() > deadline:
            raise ElleError(
                f"the server did not answer in time; its log ends: {job.tail(1)}",
                where=str(job.log),
                fix="give it a longer timeout; a busy machine, or a first start, takes longer",
            )
        time.sleep(0.2)
