"""`elle run`: a profile's notebooks, one after the other, by papermill, into `runs/<id>/`."""

import os
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path

from filelock import FileLock, Timeout

from elle.base import paths, storage
from elle.base.errors import ElleError, unknown
from elle.base.process import interruptible
from elle.training.launch import OWNER
from helpers.runs import manifest, parameters, profile, report


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
    runs = {path.parent.name: storage.read_json(path) for path in paths.runs().glob("*/run.json")}
    created = {run_id: facts["created"] for run_id, facts in runs.items() if facts["profile"] == name}
    if not created:
        what, fix = f"there is no run of profile {name!r} to resume", f"elle run {name}"
        raise ElleError(what, where=paths.shown(paths.runs()), fix=fix)
    return max(created, key=created.__getitem__)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Hold the run's lock, and turn SIGTERM into the same clean end as Ctrl-C."""
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        what, fix = "another `elle run` is at work on this run", "wait for it, or stop it"
        raise ElleError(what, where=paths.shown(folder), fix=fix) from error
    try:
        with interruptible():
            yield
    finally:
        lock.release()


@contextmanager
def _watched(status: Path) -> Iterator[None]:
    """Show the newest line of progress that the notebook writes to `status`: rewritten in place on a terminal, once a
    minute elsewhere (a log should show that the work goes on, not every step of it)."""
    terminal = sys.stderr.isatty()
    ended = threading.Event()

    def watch() -> None:
        shown = ""
        while not ended.wait(1 if terminal else 60):
            with suppress(OSError):
                text = status.read_text(encoding="utf-8")
                if text != shown:
                    sys.stderr.write(f"\r\x1b[K      {text}" if terminal else f"      {text}\n")
                    sys.stderr.flush()
                    shown = text
        if terminal and shown:
            sys.stderr.write("\r\x1b[K")

    status.unlink(missing_ok=True)
    os.environ[manifest.STATUS] = str(status)
    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        ended.set()
        watcher.join()
        os.environ.pop(manifest.STATUS, None)
        status.unlink(missing_ok=True)


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
    run_id = run_id or (latest(name) if resume or only else f"{name}-{datetime.now():%Y%m%d-%H%M%S}")
    folder = paths.runs() / run_id
    # What the notebooks start in the background ends with this process, however it ends.
    os.environ[OWNER] = str(os.getpid())
    # Compiled modules are kept: without that each kernel and server would compile thousands of them again.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    with _alone(folder):
        created = datetime.now().astimezone().isoformat(timespec="seconds")
        before = storage.read_json(folder / "run.json") if (folder / "run.json").exists() else {}
        # Another profile may take a run further: it is the last one whose notebooks `publish` looks for.
        storage.write_json(folder / "run.json", {"created": created} | before | {"profile": name})
        say(f"run {paths.shown(folder)}: {chosen.summary}")
        began = time.monotonic()
        for number, step in enumerate(steps, 1):
            title = f"[{number}/{len(steps)}] {step}"
            if resume and manifest.is_current(step, folder, values[step] | {"run_id": run_id}):
                say(f"{title}: done and unchanged, skipped")
                continue
            say(f"{title} ...")
            start = time.monotonic()
            with _watched(folder / ".status"):
                _execute(step, folder, values[step] | {"run_id": run_id}, name)
            say(f"{title}: {time.monotonic() - start:.0f} s")
        # The time of a run in several pieces is the sum of its steps, not that of the last piece.
        made = report.write_report(folder, total_seconds=None if resume or only else time.monotonic() - began)
        say(f"report   {paths.shown(made)}")
    return folder


def _execute(step: str, folder: Path, values: Mapping[str, object], profile_name: str) -> None:
    """One notebook by papermill: `notebooks/<step>.ipynb` in the run's folder, and `<step>.html` for any browser. While
    it runs, and where it fails, both are called `<step>.partial`: a finished name means a finished notebook."""
    import papermill
    from traitlets.config import Config

    output = folder / "notebooks" / f"{step}.ipynb"
    partial = output.with_suffix(".partial.ipynb")
    partial.parent.mkdir(parents=True, exist_ok=True)
    try:
        papermill.execute_notebook(
            parameters.file_of(step),
            partial,
            parameters=dict(values),
            cwd=paths.root(),
            kernel_name="python3",
            progress_bar=False,
            # Local sockets: a kernel on TCP ports could be reached, and read, by other users of this machine. And
            # silence from a kernel that is being shut down: what a notebook says is in the notebook.
            config=Config(
                KernelManager={"transport": "ipc"},
                NotebookClient={"extra_arguments": ["--IPKernelApp.log_level=50"]},
            ),
        )
    except papermill.PapermillExecutionError as error:
        _write_page(partial)
        reason = re.sub(r"\x1b\[[0-9;]*m", "", error.evalue)
        raise ElleError(
            f"notebook {step} failed in cell [{error.exec_count}]: "
            + (reason if error.ename == "ElleError" else f"{error.ename}: {reason}"),
            where=f"{paths.shown(partial)}; logs are under {paths.shown(folder)}",
            fix=f"correct the cause, then `elle run {profile_name} --resume --run-id {folder.name}`",
        ) from error
    if not (folder / "manifests" / f"{step}.json").exists():
        what, fix = f"notebook {step} ran but wrote no manifest", "end it with run.finish()"
        raise ElleError(what, where=paths.shown(partial), fix=fix)
    _write_page(partial).replace(output.with_suffix(".html"))
    partial.replace(output)


def _write_page(executed: Path) -> Path:
    """The executed notebook as one HTML file beside it that loads nothing: pictures inside, formulas as MathML."""
    from latex2mathml.converter import convert
    from nbconvert import HTMLExporter
    from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath

    formulas = IPythonRenderer(escape=False, embed_images=True, path=str(executed.parent))
    formulas.inline_math, formulas.block_math = convert, lambda formula: convert(formula, display="block")
    filters = {"markdown2html": MarkdownWithMath(renderer=formulas).render}
    exporter = HTMLExporter(template_file=str(Path(__file__).with_name("notebook.html.j2")), filters=filters)
    return storage.write_text(executed.with_suffix(".html"), exporter.from_filename(str(executed))[0])
