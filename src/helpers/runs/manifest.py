"""What every notebook's first and last cell call: parameters checked, a run folder, a manifest.

A run is a folder, `runs/<id>/`; each notebook is a step of it, and a step with a manifest (`results`) is done.
"""

import sys
import textwrap
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from elle.base import machine, paths, storage
from elle.base.errors import ElleError
from helpers.runs.parameters import check_parameters, file_of, injected, parameters, stamp
from helpers.runs.results import Manifest, check_metrics, read_manifest

#: Environment variable: a file that holds the newest line of progress, for whoever watches from outside (`elle run`).
STATUS = "ELLE_STATUS"
#: Packages whose versions a manifest names.
PACKAGES = ("elle", "axolotl", "torch", "transformers", "datasets", "papermill", "numpy")
#: Outputs above this size are recorded with their size only: hashing a 72B model would take minutes.
HASHED_BYTES = 100_000_000


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
        inside = path and Path(path).resolve().is_relative_to(self.folder.resolve())
        return str(Path(path).resolve().relative_to(self.folder.resolve())) if inside else str(path or "")

    def need(self, step: str) -> dict:
        """The metrics of an earlier step of this run.

        Raises:
            ElleError: it has not run, or its manifest is of another version; names the notebook to run.
        """
        path = self.path("manifests", f"{step}.json")
        if not path.exists():
            what = f"this notebook continues from {step}, which has not run in this run"
            fix = f"run notebooks/{step}.ipynb first (with the same run_id)"
            raise ElleError(what, where=paths.shown(self.folder), fix=fix)
        self.inputs[step] = storage.sha256(path)
        return read_manifest(path)[0].metrics

    def sums_up(self) -> None:
        """Note all other steps: when one changes or is added, this one has to run again."""
        self.whole_run = True
        self.inputs |= {path.stem: storage.sha256(path) for path in _other_manifests(self.folder, self.step)}

    def uses(self, path: Path | str) -> Path:
        """Note a file of the repository that this step reads: when it changes, it has to run again."""
        path = paths.located(path)
        if path.is_file():
            self.inputs[paths.shown(path)] = storage.sha256(path)
        return path

    def made(self, *files: Path) -> None:
        """Note files that this step made; the manifest lists them with their hashes."""
        self._outputs += files

    def figure(self, figure, name: str) -> None:
        """Keep a figure in the run's `figures/`, for the report; the notebook shows it as well."""
        path = self.path("figures", f"{name}.png")
        with storage.atomic(path, "wb") as file:
            figure.savefig(file, format="png", dpi=110, bbox_inches="tight")
        self.made(path)

    def check(self, holds: bool, what: str, *, rerun: str | None = None) -> None:
        """State a check and its outcome.

        Raises:
            ElleError: it does not hold; names the notebook to run again.
        """
        if not holds:
            where, fix = f"{self.step}, {paths.shown(self.folder)}", f"run notebooks/{rerun or self.step}.ipynb again"
            raise ElleError(f"check failed: {what}", where=where, fix=fix)
        print(f"ok: {what}")

    def finish(self, **metrics: Any) -> None:
        """Write this step's manifest; `metrics` are what later steps and the report read.

        Raises:
            ElleError: they are not those of this step (`results.METRICS`).
        """
        check_metrics(self.step, metrics, f"notebooks/{self.step}.ipynb")
        manifest = Manifest(
            step=self.step,
            run=self.folder.name,
            started=self.started,
            seconds=round(time.monotonic() - self.began, 1),
            parameters=self.parameters,
            code=stamp(file_of(self.step)),
            inputs=self.inputs,
            whole_run=self.whole_run,
            outputs={str(path.relative_to(self.folder)): _facts(path) for path in self._outputs},
            metrics=metrics,
            machine=self.machine.described,
            device=self.machine.device_reason,
            versions=package_versions(),
        )
        path = storage.write_json(self.path("manifests", f"{self.step}.json"), manifest.model_dump())
        print(f"{self.step} done in {manifest.seconds:.0f} s; manifest: {paths.shown(path)}")


def _facts(path: Path) -> dict[str, Any]:
    size = path.stat().st_size
    return {"bytes": size, "sha256": storage.sha256(path) if size <= HASHED_BYTES else None}


def package_versions() -> dict[str, str]:
    """The versions of Python and of the packages that decide what a run does; those not installed are left out."""
    return {"python": ".".join(map(str, sys.version_info[:3]))} | machine.versions(PACKAGES)


def start(step: str, namespace: Mapping[str, Any]) -> Run:
    """Begin a notebook: check its parameters, open its run's folder, say where it runs.

    Args:
        step: the notebook's name, such as "05_train".
        namespace: its `globals()`, right after the parameters cell.

    Raises:
        ElleError: a parameter that it does not declare or of the wrong type; an invalid run_id.
    """
    names = (*parameters(file_of(step)), *injected(namespace))
    values = check_parameters(step, {name: namespace.get(name) for name in names})
    folder = paths.run_folder(values["run_id"])
    # A step that begins again is not done: its old manifest must not vouch for what is about to change.
    with storage.writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "manifests" / f"{step}.json").unlink(missing_ok=True)
    computer = machine.inspect(folder)
    print(f"run      {paths.shown(folder)}")
    print(f"device   {computer.device_reason}")
    print(f"machine  {computer.described}")
    named = ", ".join(f"{name} {version}" for name, version in package_versions().items())
    print(textwrap.fill(named, 100, initial_indent="versions ", subsequent_indent=" " * 9))
    return Run(step, folder, values, computer)


def is_current(step: str, folder: Path, given: Mapping[str, Any]) -> bool:
    """Whether a step is done and unchanged: same code, same parameters (but for the run's name: its folder may have got
    another), same inputs, outputs still there."""
    path = folder / "manifests" / f"{step}.json"
    try:
        manifest, _ = read_manifest(path)
    except ElleError:  # none, or of another version
        return False
    declared = parameters(file_of(step))
    wanted = {name: parameter.default for name, parameter in declared.items()} | check_parameters(step, given)
    if manifest.code != stamp(file_of(step)) or manifest.parameters | {"run_id": ""} != wanted | {"run_id": ""}:
        return False
    if manifest.whole_run and not {path.stem for path in _other_manifests(folder, step)} <= set(manifest.inputs):
        return False
    for name, digest in manifest.inputs.items():
        earlier = folder / "manifests" / f"{name}.json"
        source_file = earlier if earlier.exists() else paths.root() / name
        if not source_file.is_file() or storage.sha256(source_file) != digest:
            return False
    return all((folder / name).is_file() and _facts(folder / name) == was for name, was in manifest.outputs.items())


def _other_manifests(folder: Path, step: str) -> list[Path]:
    return [path for path in sorted((folder / "manifests").glob("*.json")) if path.stem != step]
