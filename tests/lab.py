"""The notebooks as a reader meets them: a real JupyterLab in a real browser, for the tests and the screenshots."""

import json
import os
import re
import secrets
import shutil
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import nbformat
from watching import fetched, free_port, tool

from elle.base import paths
from elle.base.process import Job

if TYPE_CHECKING:
    from playwright.sync_api import Locator

#: JupyterLab by itself shall not save, nor ask other machines for news and newer versions.
SETTINGS = {
    "docmanager-extension/plugin": {"autosave": False},
    "apputils-extension/notification": {"checkForUpdates": False, "fetchNews": "false"},
    "filebrowser-extension/browser": {"showLastModifiedColumn": False},  # room for the notebooks' names
}


class Lab:
    """JupyterLab on a free port of loopback, and headless Chromium in front of it, until its `with` ends.

    It reads nobody's settings and leaves none. The notebooks are copies without outputs, and no name but loopback's
    resolves in the browser. Where Chromium is missing, a test that needs it says that it did not run.

    Args:
        folder: its own: the copies, and all that Jupyter and the browser write.
        runs: what the notebooks take for the folder of all runs.
        width, height: of the browser's window, in pixels.
    """

    def __init__(self, folder: Path, runs: Path, width: int = 1400, height: int = 900):
        self.folder, self.runs, self.size = folder, runs, {"width": width, "height": height}
        self.complaints: list[str] = []  # errors in the browser's console
        self.elsewhere: list[str] = []  # what a page asked for that is not on this machine

    def __enter__(self) -> "Lab":
        from playwright.sync_api import sync_playwright

        chromium = tool("chromium")
        self._serve()
        self._playwright = sync_playwright().start()
        try:
            # It is driven through a pipe, which nobody else can reach, and ends with this process as the pipe does.
            browser = self._playwright.chromium.launch_persistent_context(
                self.folder / "browser",
                executable_path=chromium,
                viewport=self.size,
                args=["--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"],
            )
            self.page = browser.pages[0]
            self.page.set_default_timeout(180_000)
            self.page.on("console", lambda said: said.type == "error" and self.complaints.append(said.text))
            self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
            browser.on("request", self._seen)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._playwright.stop()  # and the browser with it
        finally:
            self.job.stop()

    def _serve(self) -> None:
        own, root, port = self.folder / "jupyter", self.folder / "elle", free_port()
        shutil.copytree(paths.notebooks(), root / "notebooks", ignore=shutil.ignore_patterns(".*"))
        for copy in root.rglob("*.ipynb"):
            book = nbformat.read(copy, as_version=4)
            for cell in book.cells:
                if cell.cell_type == "code":
                    cell.update(outputs=[], execution_count=None)
            nbformat.write(book, copy)
        for entry in paths.root().iterdir():  # what links lead to
            if not entry.name.startswith(".") and entry.name != "notebooks":
                (root / entry.name).symlink_to(entry)
        for name, values in SETTINGS.items():
            file = own / "settings" / "@jupyterlab" / f"{name}.jupyterlab-settings"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(json.dumps(values))
        command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", f"--ServerApp.root_dir={root}"]
        command += ["--ServerApp.ip=127.0.0.1", f"--ServerApp.port={port}", "--ServerApp.port_retries=0"]
        command += ["--LabApp.news_url=None", "--LabApp.extension_manager=readonly"]
        self.url, self.token = f"http://127.0.0.1:{port}", secrets.token_hex()
        env = {f"JUPYTER_{name}_DIR": str(own / name.lower()) for name in ("CONFIG", "DATA", "RUNTIME")}
        env |= {f"JUPYTERLAB_{name}_DIR": str(own / name.lower()) for name in ("SETTINGS", "WORKSPACES")}
        env |= {"IPYTHONDIR": str(own / "ipython"), "ELLE_RUNS": str(self.runs), "JUPYTER_TOKEN": self.token}
        self.job = Job.start(own / "job", command, env=env, owner=os.getpid(), scratch=True)
        deadline = time.monotonic() + 180
        while True:
            try:
                fetched(f"{self.url}/api")
                return
            except OSError:
                if not self.job.running or time.monotonic() > deadline:
                    self.job.stop()
                    raise AssertionError(f"JupyterLab did not start: {self.job.tail()}") from None
            time.sleep(0.1)

    def _seen(self, request) -> None:
        if urlsplit(request.url).hostname not in ("127.0.0.1", None):
            self.elsewhere.append(request.url)

    def open(self, path: str) -> None:
        """Open a notebook, by its path in the repository; returns when its kernel can be asked."""
        self.page.goto(f"{self.url}/lab/tree/{path}?reset&token={self.token}")
        self.idle()

    def menu(self, *names: str) -> None:
        """Choose an entry of a menu, by the names that lead to it."""
        for name in names:
            labels = self.page.locator(".lm-MenuBar-itemLabel, .lm-Menu-itemLabel")  # a submenu has no role
            labels.filter(has_text=re.compile(f"^{re.escape(name)}$")).click()

    def run_all(self) -> None:
        self.menu("Run", "Run All Cells")
        self.idle()

    def run_to(self, code: str) -> "Locator":
        """Run all cells above the one with this code, and that one, which is returned."""
        cell = self.page.locator(".jp-CodeCell", has_text=code)
        cell.locator(".cm-content").click()
        self.menu("Run", "Run All Above Selected Cell")
        self.idle()
        cell.locator(".cm-content").press("Control+Enter")
        self.idle()
        return cell

    def idle(self) -> None:
        """Wait until nothing runs, and nothing waits to: minutes, where a busy machine starts a server."""
        self.page.get_by_text("| Idle").wait_for(timeout=300_000)
        none = "!Array.from(document.querySelectorAll('.jp-InputPrompt')).some(e => e.textContent.includes('*'))"
        self.page.wait_for_function(none, timeout=300_000)

    def show(self, what: "Locator") -> None:
        """Scroll to an element; cells that come into view are drawn only then."""
        what.evaluate("element => element.scrollIntoView({block: 'start'})")
        self.page.wait_for_timeout(500)

    def outputs(self, mime: str = "") -> "Locator":
        """What cells of the open notebook have put out, of one type or all."""
        kind = f"[data-mime-type='{mime}']" if mime else ""
        return self.page.locator(f".jp-NotebookPanel:not(.lm-mod-hidden) .jp-OutputArea-output{kind}")
