"""`elle run`: a profile's notebooks, one after the other, by papermill, into `runs/<id>/`; and `elle publish`."""

import base64
import io
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
from helpers.course import show
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
    everything = {name for names in declared.values() for name in names} - {"run_id"}
    for name in values:
        if name not in everything:
            raise unknown("parameter", name, everything, where=f"profile {chosen.name}")
    return {
        step: parameters.check_parameters(step, {n: v for n, v in values.items() if n in declared[step]})
        for step in steps
    }


def latest(name: str) -> str:
    """The newest run of a profile.

    Raises:
        ElleError: there is none.
    """
    found = [path.parent for path in paths.runs().glob("*/run.json") if storage.read_json(path)["profile"] == name]
    if not found:
        raise ElleError(
            f"there is no run of profile {name!r} to resume", where=paths.shown(paths.runs()), fix=f"elle run {name}"
        )
    return max(found, key=lambda folder: storage.read_json(folder / "run.json")["created"]).name


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Hold the run's lock, and turn SIGTERM into the same clean end as Ctrl-C."""
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise ElleError(
            "another `elle run` is at work on this run", where=paths.shown(folder), fix="wait for it, or stop it"
        ) from error

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
    os.environ[show.STATUS] = str(status)
    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        ended.set()
        watcher.join()
        os.environ.pop(show.STATUS, None)
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
        # Of a run in several pieces the whole is the sum of its steps, not the time of the last piece.
        made = report.write_report(folder, total_seconds=None if resume or only else time.monotonic() - began)
        say(f"report   {paths.shown(made)}")
    return folder


def _execute(step: str, folder: Path, values: Mapping[str, object], profile_name: str) -> None:
    """One notebook by papermill; the executed copy is `notebooks/<step>.ipynb` in the run's folder, and beside it
    `<step>.html`, to read in any browser.

    While it runs, and where it fails, the copy is `<step>.partial.ipynb`: a finished name means a finished notebook.
    """
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
            # Local sockets: a kernel on TCP ports of this machine could be reached, and read, by its other users.
            # And no word from a kernel that is being shut down: what a notebook says is in the notebook.
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
        raise ElleError(
            f"notebook {step} ran but wrote no manifest", where=paths.shown(partial), fix="end it with run.finish()"
        )
    _write_page(partial).replace(output.with_suffix(".html"))
    partial.replace(output)


def _write_page(executed: Path) -> Path:
    """The executed notebook as one HTML file beside it, pictures in it: nobody sat before it, somebody will read it."""
    from nbconvert import HTMLExporter

    page, _ = HTMLExporter(embed_images=True).from_filename(str(executed))
    storage.write_text(executed.with_suffix(".html"), page)
    return executed.with_suffix(".html")


def _reduced(picture: bytes) -> bytes:
    """A picture (PNG) in 64 colours: a third of the size, and plots look the same."""
    from PIL import Image

    small = io.BytesIO()
    image = Image.open(io.BytesIO(picture)).convert("RGB")
    # Pillow's default (median cut) loses the colour of a thin line.
    image.quantize(64, method=Image.Quantize.FASTOCTREE).save(small, "PNG", optimize=True)
    return small.getvalue()


#: What the published figures of a run leave out: raw outputs, and the ledger, which is in docs/measured.md.
UNPUBLISHED = ("worst", "claims")


def publish(run_id: str) -> list[str]:
    """Copy a run's executed notebooks over the project's own, so that they are committed with their outputs; and its
    figures, where it went the whole way, into docs/: the pages have theirs from there (`make docs`).

    What papermill added (the injected cell, times, paths) is left out, and pictures are reduced to 64 colours. A stamp
    of the code and the profile's name are put in, so that a test can tell when the outputs are no longer those of the
    code.

    Returns:
        The names of the notebooks.

    Raises:
        ElleError: no such run, a notebook that it has not executed, or one that has changed since.
    """
    import nbformat

    folder = paths.runs() / run_id
    if not (folder / "run.json").exists():
        raise unknown("run", run_id, [path.parent.name for path in paths.runs().glob("*/run.json")])
    chosen = profile.load_profile(storage.read_json(folder / "run.json")["profile"])
    for step in chosen.notebooks:
        executed, own = folder / "notebooks" / f"{step}.ipynb", parameters.file_of(step)
        made_by = executed.exists() and storage.read_json(folder / "manifests" / f"{step}.json")["code"]
        if made_by != parameters.stamp(own):
            raise ElleError(
                f"notebook {step} has not been executed in this run as it now stands",
                where=paths.shown(folder),
                fix=f"elle run {chosen.name} --resume --run-id {run_id}",
            )
        book = nbformat.read(executed, as_version=4)
        book.cells = [cell for cell in book.cells if "injected-parameters" not in cell.metadata.get("tags", [])]
        for cell in book.cells:
            cell.metadata = {"tags": tags} if (tags := cell.metadata.get("tags")) else {}
            for output in cell.get("outputs", []):
                if picture := output.get("data", {}).get("image/png"):
                    output["data"]["image/png"] = base64.b64encode(_reduced(base64.b64decode(picture))).decode()
        book.metadata = {
            "kernelspec": book.metadata["kernelspec"],
            "language_info": {"name": "python"},
            "elle": {"profile": chosen.name, "stamp": parameters.stamp(own)},
        }
        storage.write_text(own, nbformat.writes(book) + "\n")
    card = storage.read_json(folder / "report.json")
    if not card["not_run"]:
        with storage.atomic(paths.published().parent / "images" / "loss.png", "wb") as file:
            file.write(_reduced((folder / "figures" / "loss.png").read_bytes()))
        storage.write_json(paths.published(), {name: value for name, value in card.items() if name not in UNPUBLISHED})
    return chosen.notebooks
