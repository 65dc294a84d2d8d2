"""`elle run`: a profile's notebooks, one after the other, by papermill, into `runs/<id>/`."""

import html
import logging
import os
import re
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import datetime
from functools import partial
from pathlib import Path

from jupyter_client import AsyncKernelClient

from elle.base import paths, storage
from elle.base.errors import ElleError, unknown
from elle.base.process import interruptible
from elle.training.launch import OWNER
from helpers.runs import manifest, parameters, profile, report

SILENT = 120  # seconds without a heartbeat (it has a thread of its own) after which a kernel does not answer any more


class KernelClient(AsyncKernelClient):
    """A kernel's client, which is asked each second while a cell runs: it ends a kernel that does not answer, and shows
    the newest line of progress that the notebook writes to the file STATUS (rewritten in place on a terminal, once a
    minute elsewhere: a log should show that the work goes on, not every step of it)."""

    silent, shown, due = 0, "", 0.0

    async def _async_is_alive(self) -> bool:
        self.silent = 0 if self.hb_channel.is_beating() else self.silent + 1
        if self.silent > SILENT:
            await self.parent.signal_kernel(signal.SIGKILL)
        terminal, now = sys.stderr.isatty(), time.monotonic()
        self.due = self.due or now + 60
        with suppress(OSError):
            text = Path(os.environ[manifest.STATUS]).read_text(encoding="utf-8")
            if text != self.shown and (terminal or now > self.due):
                print(f"\r\x1b[K      {text}" if terminal else f"      {text}\n", end="", file=sys.stderr, flush=True)
                self.shown, self.due = text, now + 60
        return await super()._async_is_alive()

    is_alive = _async_is_alive


def select(chosen: profile.Profile, only: list[str]) -> list[str]:
    """The profile's notebooks, or those of them that `only` names, by number ("03") or in full.

    Raises:
        ElleError: a name that none of them has.
    """
    if not only:
        return chosen.notebooks
    by_name = {name: name for name in chosen.notebooks} | {name[:2]: name for name in chosen.notebooks}
    for name in only:
        if name not in by_name:
            raise unknown("notebook", name, by_name, where=f"profile {chosen.name}")
    wanted = {by_name[name] for name in only}
    return [name for name in chosen.notebooks if name in wanted]


def step_parameters(chosen: profile.Profile, steps: list[str], given: Mapping[str, object]) -> dict[str, dict]:
    """The parameters of each step: the profile's, overridden by `given`, for those that declare them.

    Raises:
        ElleError: a parameter that no step of the profile declares, or of the wrong type.
    """
    values = chosen.parameters | given
    declared = {step: parameters.parameters(parameters.file_of(step)) for step in chosen.notebooks}
    known = {name for names in declared.values() for name in names} - {"run_id"}
    for name in values:
        if name not in known:
            raise unknown("parameter", name, known, where=f"profile {chosen.name}")
    return {
        step: parameters.check_parameters(step, {n: v for n, v in values.items() if n in declared[step]})
        for step in steps
    }


def latest(name: str) -> str:
    """The newest run of a profile.

    Raises:
        ElleError: there is none.
    """
    created = {}
    for folder in paths.runs().glob("*"):
        with suppress(KeyError, ValueError, ElleError):  # another run's record may be damaged, or its name no run's
            if (facts := _recorded(paths.run_folder(folder.name)))["profile"] == name:
                created[folder.name] = datetime.fromisoformat(facts["created"]).timestamp()
    if not created:
        what, fix = f"there is no run of profile {name!r} to resume", f"elle run {name}"
        raise ElleError(what, where=paths.shown(paths.runs()), fix=fix)
    return max(created, key=created.__getitem__)


def _recorded(folder: Path) -> dict:
    """What a run's `run.json` says, its profile and when it was created; nothing where it is missing or damaged."""
    with suppress(ElleError, AttributeError):  # a list, say
        facts = storage.read_json(folder / "run.json").items()
        return {name: fact for name, fact in facts if isinstance(fact, str) and fact.isprintable()}
    return {}


@contextmanager
def _scratch() -> Iterator[Path]:
    """A temporary folder for kernels' sockets and STATUS, gone at the end, or of a killed run when the next begins."""
    place = paths.temporary(32)
    for left in Path(place).glob("elle-run-*"):
        with suppress(ElleError, OSError):
            if not left.is_symlink() and left.stat().st_uid == os.getuid():  # /tmp is everybody's
                with storage.locked(left, busy="of a run at work"):
                    shutil.rmtree(left)
    new = Path(tempfile.mkdtemp(prefix="elle-new-", dir=place))
    with storage.locked(new):
        folder = new.rename(f"{place}/elle-run-{new.name[9:]}")  # it is held: nobody takes it for a killed one's
        os.environ[manifest.STATUS] = f"{folder}/status"
        try:
            yield folder
        finally:
            del os.environ[manifest.STATUS]
            shutil.rmtree(folder, ignore_errors=True)  # a cleaner of /tmp may have been here


def run_profile(
    name: str,
    *,
    only: list[str] | None = None,
    given: Mapping[str, object] | None = None,
    run_id: str | None = None,
    resume: bool = False,
    say: Callable[[str], None] = print,
) -> Path:
    """Run a profile's notebooks; return the run's folder, with `report.html` and `report.json`.

    Args:
        only: the notebooks to run (numbers or names); the others' results are taken as they are.
        given: parameters that override the profile's.
        run_id: the run's name; by default the profile's with the time, or with `resume` the newest of the profile.
        resume: skip the steps that are done and unchanged (code, parameters, inputs and outputs).

    Raises:
        ElleError: an unknown profile, notebook or parameter, before anything runs; a notebook that failed, with its
            cell, the reason, and how to continue.
    """
    chosen = profile.load_profile(name)
    steps = select(chosen, only or [])
    values = step_parameters(chosen, steps, given or {})
    # With the process's number: two that begin in the same second do not share a name.
    fresh = f"{name}-{datetime.now():%Y%m%d-%H%M%S}-{os.getpid()}"
    folder = paths.run_folder((latest(name) if resume or only else fresh) if run_id is None else run_id)
    # What the notebooks start in the background ends with this process, however it ends.
    os.environ[OWNER] = str(os.getpid())
    # Compiled modules are kept: without that each kernel and server would compile thousands of them again.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)  # of an interrupted cell it would print a traceback
    alone = storage.locked(folder, busy="another `elle run` is at work on this run")
    with interruptible(hangup=True), alone, _scratch() as scratch:
        created = datetime.now().astimezone().isoformat(timespec="seconds")
        # Another profile may take a run further: it is the last one whose notebooks `publish` looks for.
        storage.write_json(folder / "run.json", {"created": created} | _recorded(folder) | {"profile": name})
        say(f"run {paths.shown(folder)}: {chosen.summary}")
        began = time.monotonic()
        for number, step in enumerate(steps, 1):
            title = f"[{number}/{len(steps)}] {step}"
            wanted = values[step] | {"run_id": folder.name}
            whole = (folder / "notebooks" / f"{step}.ipynb").exists()  # it appears after the manifest
            if resume and whole and manifest.is_current(step, folder, wanted):
                say(f"{title}: done and unchanged, skipped")
                continue
            say(f"{title} ...")
            start = time.monotonic()
            (scratch / "status").unlink(missing_ok=True)
            _execute(step, folder, wanted, name, scratch)
            print("\r\x1b[K" * sys.stderr.isatty(), end="", file=sys.stderr, flush=True)  # the line of progress goes
            say(f"{title}: {time.monotonic() - start:.0f} s")
        # The time of a run in several pieces is the sum of its steps, not that of the last piece.
        made = report.write_report(folder, total_seconds=None if resume or only else time.monotonic() - began)
        say(f"report   {paths.shown(made)}")
    return folder


def _execute(step: str, folder: Path, values: Mapping[str, object], profile_name: str, scratch: Path) -> None:
    """One notebook by papermill: `notebooks/<step>.ipynb` in the run's folder, and `<step>.html` for any browser. While
    it runs, and where it fails, both are called `<step>.partial`: a finished name means a finished notebook."""
    import papermill
    from traitlets.config import Config

    output = folder / "notebooks" / f"{step}.ipynb"
    running = output.with_suffix(".partial.ipynb")
    try:
        running.parent.mkdir(parents=True, exist_ok=True)
        output.unlink(missing_ok=True)
        papermill.execute_notebook(
            parameters.file_of(step),
            running,
            parameters=dict(values),
            cwd=paths.root(),
            kernel_name="python3",
            progress_bar=False,
            start_timeout=300,
            # Local sockets: a kernel on TCP ports could be reached, and read, by other users of this machine. And
            # silence from a kernel that is being shut down: what a notebook says is in the notebook.
            config=Config(
                AsyncKernelManager={"client_factory": KernelClient},
                KernelManager={"transport": "ipc", "connection_file": str(scratch / "kernel.json")},
                NotebookClient={"extra_arguments": ["--IPKernelApp.log_level=50"], "iopub_timeout": 60},
            ),
        )
        if not (folder / "manifests" / f"{step}.json").exists():
            raise ElleError("it wrote no manifest", fix="end it with run.finish()")
        _write_page(running).replace(output.with_suffix(".html"))
        running.replace(output)
    except Exception as error:  # of a cell, the kernel, its sockets, the disk
        cell: int | str = "?"
        with suppress(Exception):  # a full disk may have cut the notebook off; what ended it matters more
            cell = sum(bool(c["metadata"]["papermill"]["start_time"]) for c in parameters.code_cells(running))
            _write_page(running)
        kind, reason = getattr(error, "ename", type(error).__name__), str(getattr(error, "evalue", error))
        reason = re.sub(r"\x1b\[[0-9;]*m", "", reason if kind == "ElleError" else f"{kind}: {reason}")
        reason += ": killed, most often for want of memory, or it gave no answer" * (kind == "DeadKernelError")
        raise ElleError(
            f"notebook {step} failed in cell [{cell}]: {reason}",
            where=f"{paths.shown(running)}; logs are under {paths.shown(folder)}",
            fix=f"correct the cause, then `elle run {profile_name} --resume --run-id {folder.name}`",
        ) from error


def _write_page(executed: Path) -> Path:
    """The executed notebook as one HTML file beside it that loads nothing: pictures inside, formulas as MathML."""
    from nbconvert import HTMLExporter
    from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath

    formulas = IPythonRenderer(escape=False, embed_images=True, path=str(executed.parent))
    formulas.inline_math, formulas.block_math = partial(_formula, "inline"), partial(_formula, "block")
    filters = {"markdown2html": MarkdownWithMath(renderer=formulas).render}
    exporter = HTMLExporter(template_file=str(Path(__file__).with_name("notebook.html.j2")), filters=filters)
    return storage.write_text(executed.with_suffix(".html"), exporter.from_filename(str(executed))[0])


def _formula(display: str, latex: str) -> str:
    from latex2mathml.converter import convert

    with suppress(Exception):  # what it cannot convert is shown as written: no reason to lose a notebook
        return convert(latex, display=display)
    return f"<code>{html.escape(latex)}</code>"
