"""What the tasks `elle_basic` and `elle_cic` of lm-evaluation-harness call. Nothing is computed here: verdicts are
`verdict.judge`'s, metrics those of `scorecard`, pooled over briefings as there."""

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from elle.base import paths
from elle.base.errors import ElleError
from elle.briefings.metrics import parse
from elle.briefings.schema import Example
from elle.evaluation.inputs import read_test_rows
from elle.evaluation.scorecard import METRICS, strict_counts
from elle.evaluation.verdict import judge


def basic(basic: str | None = None, **_: Any) -> Mapping:
    """The basic set's test rows, from the metadata's `basic` or the environment's ELLE_BASIC."""
    return _dataset("basic", basic)


def cic(cic: str | None = None, **_: Any) -> Mapping:
    """The CIC set's test rows, from the metadata's `cic` or the environment's ELLE_CIC."""
    return _dataset("cic", cic)


def _dataset(kind: str, path: str | None) -> Mapping:
    from datasets import Dataset

    path = path or os.environ.get(f"ELLE_{kind.upper()}")
    if not path:
        raise ElleError(
            f"the task elle_{kind} needs a data set",
            fix=f'lm_eval … --metadata \'{{"{kind}": "FOLDER_OR_FILE"}}\', or set ELLE_{kind.upper()}',
        )
    rows = read_test_rows(paths.located(Path(path)))
    for row in rows:
        if (parse(Example.of(row).prompt).cic is not None) != (kind == "cic"):
            raise ElleError(f"a row of another set than elle_{kind}'s", where=f"{path}, id {row.get('id')!r}")
    # `datasets` would keep a copy of a file that it reads itself, and miss that the file has changed.
    return {"test": Dataset.from_list([_doc(row) for row in rows])}


def _doc(row: Mapping) -> dict[str, str]:
    example = Example.of(row)
    return {"id": example.id, "system": example.system, "prompt": example.prompt, "reference": example.answer}


def process_results(doc: Mapping, results: Sequence[str | None]) -> dict[str, tuple[int, int]]:
    """Metric → (numerator, denominator) of one answer; `_strict_json`: where only strict JSON has an object."""
    record = judge(doc["id"], doc["prompt"], doc["reference"], results[0])
    return record.counts | {f"{name}_strict_json": strict_counts(record, name) for name in BOTH_WAYS}


def pooled(counts: Iterable[tuple[int, int]]) -> float | None:
    """Σ numerators / Σ denominators; None: undefined."""
    tops, bottoms = zip(*counts, strict=True)
    return sum(tops) / sum(bottoms) if sum(bottoms) else None


#: The metrics that depend on how an output is read; the others are about the reading itself.
BOTH_WAYS = [name for name in METRICS if not name.startswith(("json", "schema"))]

metric_list = [
    {"metric": name, "aggregation": pooled, "higher_is_better": True}
    for name in (*METRICS, *(f"{name}_strict_json" for name in BOTH_WAYS))
]
