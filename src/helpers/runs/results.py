"""What a finished step leaves: its manifest, and in it the metrics that later steps and the report read.

What a notebook gives to `run.finish` is checked by its model, and the report reads by it, so that a misspelt name is an
error. What an older run does not hold is None or empty.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from elle.base import paths, storage
from elle.base.errors import ElleError
from elle.base.yaml_files import validated


class LedgerStep(BaseModel):
    ledger: list[dict[str, Any]]  # `cic.claims.Outcome.to_json`
    verdicts: dict[str, int] = {}


class DataStep(BaseModel):
    kind: str
    rows: dict[str, int] = {}  # split → examples
    mean_pieces: float | None = None
    near_duplicates: int | None = None
    targets: dict[str, Any] = {}


class PlanStep(BaseModel):
    plan: dict[str, Any]  # `planning.kept`


class TrainingStep(BaseModel):
    weights: str = ""  # folders, as `Run.relative` has them
    base: str = ""
    adapter: str = ""
    recipe: str
    precision: str | None = None
    steps: int
    seconds: float
    learned_at: int | None = None
    final_loss: float | None = None
    forced: list[str] = []  # what stood against the training
    examples: dict[str, Any] = {}
    red_flags: list[str] | None = None
    trainings: list[dict[str, Any]] | None = None


class EvaluationStep(BaseModel):
    scorecards: dict[str, dict[str, Any]]  # model → `Scorecard.to_json`
    differences: dict[str, dict[str, Any]] | None = None  # model → `Comparison.to_json`
    errors: list[dict[str, Any]] = []


class ServingStep(BaseModel):
    startup_seconds: float | None = None
    points: list[dict[str, Any]]  # `answers.measure_load`
    tokens_per_second: float
    models: dict[str, float | None] = {}


#: Step → its metrics; the others' nobody reads, so they are free.
METRICS: dict[str, type[BaseModel]] = {
    "02_cic_on_trial": LedgerStep,
    "03_generate_data": DataStep,
    "04_plan_the_run": PlanStep,
    "05_train": TrainingStep,
    "07_evaluate": EvaluationStep,
    "08_serve_vllm": ServingStep,
}


class Manifest(BaseModel):
    """`manifests/<step>.json`, written last: a step with a manifest is done."""

    step: str
    run: str = ""
    started: str
    seconds: float
    parameters: dict[str, Any]
    code: str = ""  # stamp of the notebook's code
    inputs: dict[str, str]  # earlier step, or file of the repository → sha256
    whole_run: bool = False  # it sums up all other steps
    outputs: dict[str, dict[str, Any]] = {}  # file → its bytes and sha256
    metrics: dict[str, Any]
    machine: str = ""
    device: str
    versions: dict[str, str]


def check_metrics(step: str, metrics: Mapping[str, Any], where: str) -> Any:
    """The metrics of a step by its model (as they are, where it has none); raises what `validated` raises."""
    if step not in METRICS:
        return metrics
    return validated(METRICS[step], metrics, f"metrics of {step}", where, "see src/helpers/runs/results.py")


def read_manifest(path: Path) -> tuple[Manifest, Any]:
    """A manifest, and its metrics by their model.

    Raises:
        ElleError: it is not what this version of the project writes.
    """
    try:
        manifest = validated(Manifest, storage.read_json(path), "manifest", "", "")
        return manifest, check_metrics(manifest.step, manifest.metrics, "")
    except ElleError as error:
        what, fix = "this manifest is of another version of the project", f"run notebooks/{path.stem}.ipynb again"
        raise ElleError(f"{what}: {error.what}", where=paths.shown(path), fix=fix) from error
