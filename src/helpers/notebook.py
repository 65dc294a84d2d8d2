"""What every notebook's first and last cell call: parameters checked, a run folder, a manifest.

A run is a folder, `runs/<id>/`. Each notebook (a step of the run) reads the manifests of the steps before it and
writes its own, `manifests/<step>.json`, last: a step with a manifest is done.
"""

import ast
import hashlib
import json
import os
import sys
import textwrap
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from html import escape
from pathlib import Path
from typing import Any

from helpers import jsonl, machine, paths
from helpers.errors import ElleError, unknown

#: Packages whose versions a manifest names.
PACKAGES = ("elle", "axolotl", "torch", "transformers", "datasets", "papermill", "numpy")
_TYPES = {"str": str, "int": int, "float": float, "bool": bool}
#: Outputs above this size are recorded with their size only: hashing a 72B model would take minutes.
HASHED_BYTES = 100_000_000


@dataclass(frozen=True)
class Parameter:
    name: str
    type: str  # str, int, float or bool
    default: Any
    help: str

    def convert(self, value: Any, where: str) -> Any:
        """`value` as this parameter's type; text, as a command line has it, is read.

        Raises:
            ElleError: it is not of this type.
        """
        wanted = _TYPES[self.type]
        if isinstance(value, wanted) and not (wanted is not bool and isinstance(value, bool)):
            return value
        if wanted is float and isinstance(value, int) and not isinstance(value, bool):
            return float(value)
        if isinstance(value, str):
            if wanted is bool and value.lower() in ("true", "false"):
                return value.lower() == "true"
            if wanted in (int, float):
                try:
                    return wanted(value)
                except ValueError:
                    pass
        raw = f"; papermill keeps a number as text with -r {self.name} {value}" if wanted is str else ""
        raise ElleError(
            f"parameter {self.name} is a {self.type}, not {value!r}", where=where, fix=f"such as {self.default!r}{raw}"
        )


def file_of(step: str) -> Path:
    return paths.notebooks() / f"{step}.ipynb"


def code_cells(path: Path) -> list[dict]:
    return [cell for cell in jsonl.read_json(path)["cells"] if cell["cell_type"] == "code"]


def source(cell: dict) -> str:
    return "".join(cell["source"])


def stamp(path: Path) -> str:
    """A hash of a notebook's code: what has to run again when it changes."""
    return hashlib.sha256("\n\0".join(source(cell) for cell in code_cells(path)).encode()).hexdigest()[:16]


def parameters(path: Path) -> dict[str, Parameter]:
    """The parameters that a notebook declares: lines `name: type = literal  # help` in its `parameters` cell.

    Raises:
        ElleError: no such notebook, no such cell, or a line of another form (with its text).
    """
    if not path.exists():
        raise unknown("notebook", path.stem, [p.stem for p in path.parent.glob("*.ipynb")], where=str(path.parent))
    tagged = [c for c in code_cells(path) if "parameters" in c["metadata"].get("tags", [])]
    if len(tagged) != 1:
        raise ElleError(f"{len(tagged)} cells are tagged `parameters`", where=str(path), fix="tag exactly one")
    text = source(tagged[0])
    lines = text.splitlines()
    declared = {}
    for node in ast.parse(text).body:
        line = lines[node.lineno - 1]
        try:
            assert isinstance(node, ast.AnnAssign)
            assert isinstance(node.target, ast.Name)
            assert isinstance(node.annotation, ast.Name)
            assert node.annotation.id in _TYPES
            default = ast.literal_eval(node.value)
        except (AssertionError, ValueError) as error:
            raise ElleError(
                f"not a parameter: {line!r}", where=str(path), fix="write `name: type = literal  # help`"
            ) from error
        declared[node.target.id] = Parameter(
            node.target.id, node.annotation.id, default, line.partition("#")[2].strip()
        )
    return declared


def check_parameters(step: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """`given`, each converted to its declared type.

    Raises:
        ElleError: one that the notebook does not declare (papermill by itself only warns), with the nearest name.
    """
    path = file_of(step)
    declared = parameters(path)
    for name in given:
        if name not in declared:
            raise unknown("parameter", name, declared, where=f"notebooks/{path.name}")
    return {name: declared[name].convert(value, f"notebooks/{path.name}") for name, value in given.items()}


def _injected(namespace: Mapping[str, Any]) -> set[str]:
    """The names that papermill set: those assigned in the cell that it starts with `# Parameters`."""
    for cell in namespace.get("In", []):
        if cell.startswith("# Parameters\n"):
            return {
                target.id
                for node in ast.parse(cell).body
                if isinstance(node, ast.Assign)
                for target in node.targets
                if isinstance(target, ast.Name)
            }
    return set()


@dataclass
class Run:
    """One step of a run in progress, as a notebook holds it."""

    step: str
    folder: Path
    parameters: dict[str, Any]
    machine: machine.Machine
    began: float = field(default_factory=time.monotonic)
    started: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))
    inputs: dict[str, str] = field(default_factory=dict)
    whole_run: bool = False
    _outputs: list[Path] = field(default_factory=list)

    def path(self, *parts: str) -> Path:
        return self.folder.joinpath(*parts)

    def relative(self, path: Path | str | None) -> str:
        """A path as manifests hold it: relative to the run's folder where it lies in it (`path` reads it back)."""
        inside = path is not None and Path(path).resolve().is_relative_to(self.folder.resolve())
        return str(Path(path).resolve().relative_to(self.folder.resolve())) if inside else str(path or "")

    def need(self, step: str) -> dict:
        """The metrics of an earlier step of this run.

        Raises:
            ElleError: it has not run, naming the notebook to run.
        """
        path = self.path("manifests", f"{step}.json")
        if not path.exists():
            raise ElleError(
                f"this notebook continues from {step}, which has not run in this run",
                where=paths.shown(self.folder),
                fix=f"run notebooks/{step}.ipynb first (with the same run_id)",
            )
        self.inputs[step] = jsonl.sha256(path)
        return jsonl.read_json(path)["metrics"]

    def sums_up(self) -> None:
        """Note the manifests of all other steps: when one changes or is added, this step has to run again."""
        self.whole_run = True
        self.inputs |= {path.stem: jsonl.sha256(path) for path in _other_manifests(self.folder, self.step)}

    def uses(self, path: Path | str) -> Path:
        """Note a file of the repository that this step reads: when it changes, the step has to run again."""
        path = paths.located(path)
        if path.is_file():
            self.inputs[paths.shown(path)] = jsonl.sha256(path)
        return path

    def made(self, *files: Path) -> None:
        """Note files that this step made; the manifest lists them with their hashes."""
        self._outputs += files

    def figure(self, figure, name: str) -> None:
        """Keep a figure in the run's `figures/`, for the report; the notebook shows it as well."""
        path = self.path("figures", f"{name}.png")
        with jsonl.atomic(path, "wb") as file:
            figure.savefig(file, format="png", dpi=110, bbox_inches="tight")
        self.made(path)

    def check(self, holds: bool, what: str, *, rerun: str | None = None) -> None:
        """State a check and its outcome.

        Raises:
            ElleError: it does not hold; names the notebook to run again.
        """
        if not holds:
            raise ElleError(
                f"check failed: {what}",
                where=f"{self.step}, {paths.shown(self.folder)}",
                fix=f"run notebooks/{rerun or self.step}.ipynb again",
            )
        print(f"ok: {what}")

    def finish(self, **metrics: Any) -> None:
        """Write this step's manifest; `metrics` are what later steps and the report read."""
        seconds = round(time.monotonic() - self.began, 1)
        outputs = {}
        for path in self._outputs:
            size = path.stat().st_size
            outputs[str(path.relative_to(self.folder))] = {
                "bytes": size,
                "sha256": jsonl.sha256(path) if size <= HASHED_BYTES else None,
            }
        manifest = {
            "step": self.step,
            "run": self.folder.name,
            "started": self.started,
            "seconds": seconds,
            "parameters": self.parameters,
            "code": stamp(file_of(self.step)),
            "inputs": self.inputs,
            "whole_run": self.whole_run,
            "outputs": outputs,
            "metrics": metrics,
            "machine": self.machine.described,
            "device": self.machine.device_reason,
            "versions": versions(),
        }
        jsonl.write_json(self.path("manifests", f"{self.step}.json"), manifest)
        print(f"{self.step} done in {seconds:.0f} s; manifest: {paths.shown(self.path('manifests'))}/{self.step}.json")


def versions() -> dict[str, str]:
    """The versions of Python and of the packages that decide what a run does; those not installed are left out."""
    return {"python": ".".join(map(str, sys.version_info[:3]))} | machine.versions(PACKAGES)


def start(step: str, namespace: Mapping[str, Any]) -> Run:
    """Begin a notebook: check its parameters, open its run's folder, say where it runs.

    Args:
        step: the notebook's name, such as "05_train".
        namespace: its `globals()`, right after the parameters cell.

    Raises:
        ElleError: a parameter that it does not declare or of the wrong type; a run_id that is no plain name.
    """
    declared = parameters(file_of(step))
    for name in _injected(namespace):
        if name not in declared:
            raise unknown("parameter", name, declared, where=f"notebooks/{step}.ipynb")
    values = check_parameters(step, {name: namespace[name] for name in declared})
    run_id = values["run_id"]
    if not run_id or not all(c.isalnum() or c in "-_." for c in run_id) or run_id.startswith("."):
        raise ElleError(f"run_id {run_id!r} is no plain name", where="run_id", fix="letters, digits, - and _")
    folder = paths.runs() / run_id
    folder.mkdir(parents=True, exist_ok=True)
    # A step that begins again is not done: its old manifest must not vouch for what is about to change.
    (folder / "manifests" / f"{step}.json").unlink(missing_ok=True)
    computer = machine.inspect(folder)
    print(f"run      {paths.shown(folder)}")
    print(f"device   {computer.device_reason}")
    print(f"machine  {computer.described}")
    named = ", ".join(f"{name} {version}" for name, version in versions().items())
    print(textwrap.fill(named, 100, initial_indent="versions ", subsequent_indent=" " * 9))
    return Run(step, folder, values, computer)


def is_current(step: str, folder: Path, given: Mapping[str, Any]) -> bool:
    """Whether a step is done and unchanged: same code, same parameters, same inputs, outputs still there."""
    path = folder / "manifests" / f"{step}.json"
    if not path.exists():
        return False
    manifest = jsonl.read_json(path)
    declared = parameters(file_of(step))
    wanted = {name: parameter.default for name, parameter in declared.items()} | check_parameters(step, given)
    if manifest["code"] != stamp(file_of(step)) or manifest["parameters"] != wanted:
        return False
    others = {path.stem for path in _other_manifests(folder, step)}
    if manifest.get("whole_run") and not others <= set(manifest["inputs"]):
        return False
    for name, digest in manifest["inputs"].items():
        earlier = folder / "manifests" / f"{name}.json"
        source_file = earlier if earlier.exists() else paths.root() / name
        if not source_file.is_file() or jsonl.sha256(source_file) != digest:
            return False
    return all(_unchanged(folder / name, facts) for name, facts in manifest["outputs"].items())


def _other_manifests(folder: Path, step: str) -> list[Path]:
    return [path for path in sorted((folder / "manifests").glob("*.json")) if path.stem != step]


def _unchanged(path: Path, facts: Mapping[str, Any]) -> bool:
    if not path.is_file() or path.stat().st_size != facts["bytes"]:
        return False
    return facts["sha256"] is None or jsonl.sha256(path) == facts["sha256"]


def show_table(rows: Iterable[Mapping[str, Any]], index: str | None = None):
    """Rows as a pandas table, for display."""
    import pandas

    table = pandas.DataFrame(list(rows))
    return table.set_index(index) if index else table


def show_text(rows: Iterable[Mapping[str, Any]]):
    """Rows whose cells are text, for display: to the left and never cut off (and a dollar sign starts no formula)."""
    from IPython.display import HTML

    return HTML(_table(rows))


def _table(rows: Iterable[Mapping[str, Any]]) -> str:
    rows = list(rows)
    head = "".join(f'<th style="text-align: left">{escape(str(name))}</th>' for name in (rows[0] if rows else ()))
    lines = (
        "".join(f'<td style="text-align: left; vertical-align: top">{escape(str(v))}</td>' for v in row.values())
        for row in rows
    )
    body = "".join(f"<tr>{line}</tr>" for line in lines)
    return f'<table class="tex2jax_ignore mathjax_ignore"><tr>{head}</tr>{body}</table>' if rows else "none"


def show_example(row: Mapping[str, Any]):
    """An example of a data set, for display: its prompt, its answer key by key, and what is derived by rule."""
    from IPython.display import HTML

    from helpers.briefings import metrics

    _, prompt, answer = (turn["value"] for turn in row["conversations"])
    derived = metrics.derived_figures(metrics.parse(prompt))
    texts = json.loads(answer) | {"derived by rule": ", ".join(f"{name} {value}" for name, value in derived.items())}
    return HTML(preformatted(prompt) + _table({"key": key, "text": text} for key, text in texts.items()))


def preformatted(text: str) -> str:
    """Text as HTML that keeps its lines, and breaks those that are too long."""
    style = "white-space: pre-wrap; word-break: normal; margin: 0 0 0.5em; background: none; color: inherit"
    return f'<pre style="{style}">{escape(text)}</pre>'


def show_verdicts(outcomes: Iterable[Any]):
    """Outcomes of `helpers.cic.claims`, for display: the claim, what would have to be seen, what was, the verdict."""
    from IPython.display import HTML

    rows = (outcome.to_json() for outcome in outcomes)
    cells = "".join(
        f"<tr>{''.join(f'<td style="text-align: left; vertical-align: top">{cell}</td>' for cell in row)}</tr>"
        for row in (
            (
                f"{escape(r['statement'])}<br><small>{escape(r['source'])}</small>",
                escape(r["prediction"]),
                escape(r["measured"]),
                f"<b>{escape(r['status'])}</b>",
            )
            for r in rows
        )
    )
    head = "".join(f"<th>{name}</th>" for name in ("claim", "it holds if", "measured", "verdict"))
    return HTML(f"<table><tr>{head}</tr>{cells}</table>")


def confirm(question: str) -> bool:
    """Ask the person at the keyboard before money is spent; anything but "yes" is no."""
    return input(f"{question} Type yes: ").strip().lower() == "yes"


#: Environment variable: a file that holds the newest line of progress, for whoever watches from outside (`elle run`).
STATUS = "ELLE_STATUS"


def batch() -> bool:
    """Whether nobody sits before this notebook: `elle run` executes it."""
    return STATUS in os.environ


class Line:
    """A line of text that is updated in place while something runs; a batch run keeps its last state only."""

    def __init__(self) -> None:
        from IPython.display import HTML, display

        self._handle = display(HTML(""), display_id=True)

    def say(self, text: str) -> None:
        from IPython.display import HTML

        self._handle.update(HTML(f"<code>{escape(text)}</code>"))
        if status := os.environ.get(STATUS):
            Path(status).write_text(text, encoding="utf-8")


class Counter(Line):
    """A progress callback(done, total): one line with the rate and the time left."""

    def __init__(self, what: str) -> None:
        super().__init__()
        self.what, self.began, self.said = what, time.monotonic(), 0

    def __call__(self, done: int, total: int) -> None:
        if done - self.said < total / 50 and done != total:
            return
        self.said = done
        spent = time.monotonic() - self.began
        left = spent / done * (total - done)
        self.say(f"{self.what}: {done}/{total}, {done / max(spent, 1e-9):.1f} a second, {left:.0f} s left")


class TrainingView(Line):
    """A progress callback(history) for `training.launch.follow`: the curve so far, and a line under it.

    hourly: dollars an hour (`Prepared.hourly`): 0 is free, None is unknown.
    """

    def __init__(self, hourly: float | None = 0.0) -> None:
        from IPython.display import HTML, display

        self.hourly = hourly
        self._figure = display(HTML("<i>the trainer is starting …</i>"), display_id=True)
        super().__init__()

    def __call__(self, history: list[dict]) -> None:
        from IPython.display import HTML

        from helpers import plots_training
        from helpers.training.history import line

        if not history:
            return
        if history[-1]["step"] >= history[-1]["of"]:  # the notebook shows the finished curve itself
            self._figure.update(HTML(""))
        else:
            self._figure.update(plots_training.loss_curve(history))
        self.say(line(history, self.hourly))
