"""What the tests of monitoring/ share: its expressions, and a real Prometheus that reads its files."""

import contextlib
import json
import os
import re
import shutil
import socket
import time
import urllib.parse
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from elle.base import paths
from elle.base.process import Job

FOLDER = paths.root() / "monitoring"


def tool(name: str) -> str:
    """The path of `prometheus`, `promtool` or `chromium`; where it is missing, the test says that it did not run."""
    package = "chromium" if name == "chromium" else "prometheus"
    return shutil.which(name) or pytest.skip(f"NOT RUN: {name} is not installed (Debian's package {package})")


def rules() -> list[dict]:
    groups = yaml.safe_load((FOLDER / "alerts.yml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def dashboard() -> dict:
    return json.loads((FOLDER / "dashboard.json").read_text())


def queries(window: str = "5m") -> dict[str, str]:
    """Every expression of the dashboard, by panel and letter, as Grafana would send it for all servers."""
    found = {f"annotation {each['name']}": each["expr"] for each in dashboard()["annotations"]["list"]}
    for panel in dashboard()["panels"]:
        found |= {f"{panel['title']} {target['refId']}": target["expr"] for target in panel.get("targets", ())}
    for name, text in found.items():
        found[name] = text.replace("$__rate_interval", window).replace("$server", ".*")
        assert "$" not in found[name], name
    return found


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def fetched(url: str) -> str:
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url, timeout=10) as reply:
        return reply.read().decode()


def types(text: str) -> dict[str, str]:
    """Metrics by name and type, of Prometheus's text format."""
    return dict(re.findall(r"^# TYPE (\S+) (\w+)$", text, re.MULTILINE))


def listed() -> dict[str, str]:
    """vLLM's metrics by name and type, as they are committed."""
    lines = (paths.root() / "tests" / "fixtures" / "vllm_metrics.txt").read_text().splitlines()
    return dict(line.split() for line in lines if not line.startswith("#"))


class Prometheus(contextlib.AbstractContextManager):
    """The real program on a free port of loopback, until its `with` ends: the files of monitoring/ as they are,
    but that it looks every second, at these targets, and that alerts wait for `wait` where the files say minutes."""

    def __init__(self, folder: Path, *, server: str, client: str, wait: str = "1s", key: str = ""):
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        config = folder / "monitoring"
        shutil.copytree(FOLDER, config)
        for name, place in (("server", server), ("client", client)):
            (config / "targets" / f"{name}.yml").write_text(yaml.safe_dump([{"targets": [place]}]))
        main, alerts = config / "prometheus.yml", config / "alerts.yml"
        text = main.read_text()
        if key:
            (config / "server.key").write_text(key)
            text = re.sub(r"# (authorization:|  credentials_file)", r"\1", text)
        main.write_text(re.sub(r"_interval: \w+", "_interval: 1s", text))
        alerts.write_text(re.sub(r"for: \w+", f"for: {wait}", alerts.read_text()))
        command = [tool("prometheus"), f"--config.file={main}", f"--storage.tsdb.path={folder / 'data'}"]
        command += [f"--web.listen-address=127.0.0.1:{port}", "--log.level=warn"]
        self.job = Job.start(folder / "job", command, owner=os.getpid())

    def __exit__(self, *_: object) -> None:
        self.job.stop()

    def get(self, path: str, **parameters: str) -> Any:
        """The data of its answer. Raises urllib's HTTPError where it refuses the question."""
        return json.loads(fetched(f"{self.url}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"))["data"]

    def query(self, expression: str) -> list[dict]:
        return self.get("query", query=expression)["result"]

    def firing(self) -> dict[str, str]:
        """The alerts that fire, by name: what they say."""
        firing = [alert for alert in self.get("alerts")["alerts"] if alert["state"] == "firing"]
        return {alert["labels"]["alertname"]: alert["annotations"]["summary"] for alert in firing}

    def until(self, true: Callable[[], Any], seconds: float = 30) -> Any:
        """What `true` returns as soon as that is true; the last thing it returned when the time is up."""
        deadline = time.monotonic() + seconds
        while True:
            assert self.job.running, self.job.tail()
            found = None
            try:
                found = true()
            except OSError:  # it has not started yet
                if time.monotonic() > deadline:
                    raise
            if found or time.monotonic() > deadline:
                return found
            time.sleep(0.25)
