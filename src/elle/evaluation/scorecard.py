"""The figures over a data set: each with its definition, version, denominator and 95 % interval, and every failure
kept with its reasons."""

import heapq
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from elle.base.errors import ElleError
from elle.base.tables import aligned
from elle.base.yaml_files import config_table
from elle.evaluation.statistics import Estimate, clustered_ratio, wilson
from elle.evaluation.verdict import Record, judge


@dataclass(frozen=True)
class Metric:
    """What a figure means: a row of `configs/metrics.yaml`, whose head explains its columns."""

    definition: str
    version: int = 1
    by_briefing: bool = True
    of_objects: bool = False
    unseen: str = ""


METRICS = {name: Metric(**row) for name, row in config_table("metrics").items()}


@dataclass(frozen=True)
class Scorecard:
    """metrics: name → estimate, for every name in `METRICS`, over the objects that could be extracted; strict: the
    same where only outputs that are strictly JSON have an object; records: one a row, in the rows' order; outputs: the
    number of rows that have an output (the others count as failures)."""

    metrics: dict[str, Estimate]
    strict: dict[str, Estimate]
    records: tuple[Record, ...]
    outputs: int

    def worst(self, k: int = 3) -> list[Record]:
        """The k worst: no object, then no schema, then most reasons; the first rows first among equals."""

        def badness(record: Record) -> tuple[int, int, int]:
            return record.counts["json_lenient"][0], record.counts["schema"][0], -len(record.reasons)

        return heapq.nsmallest(k, self.records, key=badness)

    def to_json(self) -> dict[str, Any]:
        """Plain values for strict JSON (undefined is null): figures, definitions, coverage and the three worst."""
        return {
            "metrics": {name: asdict(estimate) for name, estimate in self.metrics.items()},
            "strict": {name: asdict(estimate) for name, estimate in self.strict.items()},
            "definitions": {
                name: {"version": metric.version, "definition": metric.definition, "unseen": metric.unseen}
                for name, metric in METRICS.items()
            },
            "coverage": {
                "rows": len(self.records),
                "outputs": self.outputs,
                # Rows in which there is anything that the metric counts.
                "judged": {name: sum(record.counts[name][1] > 0 for record in self.records) for name in METRICS},
            },
            "worst": [record.to_json() for record in self.worst()],
        }


def score(rows: Iterable[Mapping[str, Any]], outputs: Mapping[str, str], *, seed: int = 0) -> Scorecard:
    """Score `outputs` (row id → raw output) on `rows` ({"id", "conversations": [system, human, gpt]}).

    The human turn is the prompt, whose figures are the truth; the gpt turn is the reference, which says what must be
    cited. A row without an output is a failure. `seed` is the bootstrap's.

    Raises:
        ElleError: no rows, a duplicate id, an output of an unknown id or that is not text, a row that is not in the
            project's format.
    """
    records: dict[str, Record] = {}
    for position, row in enumerate(rows, 1):
        name, prompt, reference = _turns(row, position)
        if name in records:
            what = f"the id {name!r} occurs twice in the data"
            fix = "keep one row of each id, or give the rows ids of their own"
            raise ElleError(what, where=f"row {position}", fix=fix)
        output = outputs.get(name)
        if not isinstance(output, str | None):
            what = f"an output must be text, not {type(output).__name__}"
            fix = "pass the raw text that the model wrote"
            raise ElleError(what, where=f"output of {name!r}", fix=fix)
        records[name] = judge(name, prompt, reference, output)
    if not records:
        raise ElleError("there is nothing to score: the data set is empty", fix="give at least one row")
    if strangers := [name for name in outputs if name not in records]:
        what = f"{len(strangers)} of {len(outputs)} outputs belong to no row of the data"
        fix = "score outputs against the data set that they were made from"
        raise ElleError(what, where=f"output id {strangers[0]!r}", fix=fix)
    judged = tuple(records.values())
    metrics, strict = {}, {}
    for name in METRICS:
        lenient_counts = [record.counts[name] for record in judged]
        counts = [strict_counts(record, name) for record in judged]
        metrics[name] = _estimate(name, lenient_counts, seed)
        strict[name] = metrics[name] if counts == lenient_counts else _estimate(name, counts, seed)
    return Scorecard(metrics, strict, judged, sum(record.output is not None for record in judged))


def strict_counts(record: Record, name: str) -> tuple[int, int]:
    """A record's counts for a metric where an output that is not strictly JSON has no object."""
    top, bottom = record.counts[name]
    if record.parsed.strict:
        return top, bottom
    return 0, 0 if METRICS[name].of_objects else bottom


def _estimate(name: str, counts: Sequence[tuple[int, int]], seed: int) -> Estimate:
    tops, bottoms = zip(*counts, strict=True)
    if METRICS[name].by_briefing:
        return wilson(sum(tops), sum(bottoms))
    return clustered_ratio(tops, bottoms, np.random.default_rng(seed))


def _turns(row: Mapping[str, Any], position: int) -> tuple[str, str, str]:
    """A row's id, prompt and reference answer."""
    try:
        turns = {turn["from"]: turn["value"] for turn in row["conversations"]}
        parts = row["id"], turns["human"], turns["gpt"]
    except (KeyError, TypeError):
        parts = (None,)
    if not all(isinstance(part, str) for part in parts):
        what = "this row is not in the project's format: it needs an id and the texts of a human and a gpt turn"
        fix = 'rows look like {"id": …, "conversations": [{"from": "human", "value": …}, …]}'
        raise ElleError(what, where=f"row {position} (id {str(row.get('id'))[:60]!r})", fix=fix)
    return parts


def figures_text(card: Scorecard) -> str:
    """The figures for people: metric, value, 95 % interval, the value where only strict JSON counts, n, and coverage:
    the share of rows that have anything the metric counts; and how much of the outputs they are about."""
    rows = []
    for name, estimate in card.metrics.items():
        covered = sum(record.counts[name][1] > 0 for record in card.records) / len(card.records)
        rows.append(
            {
                "metric": name,
                "value": share_text(estimate.value),
                "95 % interval": "" if estimate.low is None else f"[{estimate.low:.4f}, {estimate.high:.4f}]",
                "strict": share_text(card.strict[name].value),
                "n": f"{estimate.n:,}",
                "coverage": f"{covered:.1%}",
            }
        )
    text = f"{aligned(rows)}\n\n{card.outputs:,} of {len(card.records):,} rows have an output"
    read, every = (sum(counts) for counts in zip(*(record.counts["read"] for record in card.records), strict=True))
    if every:
        text += f"; {read:,} of their {every:,} numbers and sentences were read: precision is of these"
    return text


def share_text(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.4f}"
