"""The figures over a data set: each with its definition, version, denominator and 95 % interval, and every failure
kept with its reasons."""

import heapq
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from helpers.errors import ElleError
from helpers.evaluation.records import Record, judge
from helpers.evaluation.statistics import Estimate, clustered_ratio, wilson


@dataclass(frozen=True)
class Metric:
    """What a figure means; `version` changes whenever its definition does. Figures of different versions do not
    compare. All lie in 0..1, higher is better, and pool counts over briefings (micro-average)."""

    definition: str
    version: int = 1
    by_briefing: bool = True  # one yes or no a briefing (Wilson), or many counts in each (bootstrap over briefings)


METRICS = {
    "json_strict": Metric("share of rows whose whole output parses as one JSON object under a strict reading"),
    "json_lenient": Metric(
        "share of rows from whose output such an object can be extracted, text or a code fence around it forgiven"
    ),
    "schema": Metric("share of rows that are strictly one JSON object with all keys, no other, each of the right type"),
    "schema_lenient": Metric("the same for the extracted object"),
    "numeric_precision": Metric(
        "numbers equal to the printed figure that they bind to / all numbers but those bound to derived metrics, in "
        "the objects extracted; an unbound number is wrong; no numbers: undefined (n = 0)",
        by_briefing=False,
    ),
    "numeric_recall": Metric(
        "(key, metric, value) of the reference answers, derived ones included, that the answer has under the same key "
        "/ all of them; an output without an object has none",
        by_briefing=False,
    ),
    "derived_accuracy": Metric(
        "numbers equal to the derived figure that they bind to / all numbers bound to derived metrics, in the objects "
        "extracted; none: undefined (n = 0)",
        by_briefing=False,
    ),
    "risk_words": Metric(
        "category texts with at least one risk word, all of the band of the category's true number / six a row",
        by_briefing=False,
    ),
    "all_right": Metric("share of rows where schema holds, every number is right and recall is complete"),
}


@dataclass(frozen=True)
class Scorecard:
    """metrics: name → estimate, for every name in `METRICS`; records: one a row, in the rows' order; outputs: the
    number of rows that have an output (the others count as failures)."""

    metrics: dict[str, Estimate]
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
            "definitions": {
                name: {"version": metric.version, "definition": metric.definition} for name, metric in METRICS.items()
            },
            "coverage": {"rows": len(self.records), "outputs": self.outputs},
            "worst": [record.to_json() for record in self.worst()],
        }


def score(rows: Iterable[Mapping[str, Any]], outputs: Mapping[str, str], *, seed: int = 0) -> Scorecard:
    """Score `outputs` (row id → raw output) on `rows` ({"id", "conversations": [system, human, gpt]}).

    The human turn is the prompt, whose figures are the truth; the gpt turn is the reference, which says what must be
    cited. A row without an output is a failure. `seed` is the bootstrap's.

    Raises:
        ElleError: no rows, a duplicate id, an output of an unknown id or that is no text, a row that is not in the
            project's format.
    """
    records: dict[str, Record] = {}
    for position, row in enumerate(rows, 1):
        name, prompt, reference = _turns(row, position)
        if name in records:
            raise ElleError(
                f"the id {name!r} occurs twice in the data",
                where=f"row {position}",
                fix="keep one row of each id, or give the rows ids of their own",
            )
        output = outputs.get(name)
        if not isinstance(output, str | None):
            raise ElleError(
                f"an output must be text, not {type(output).__name__}",
                where=f"output of {name!r}",
                fix="pass the raw text that the model wrote",
            )
        records[name] = judge(name, prompt, reference, output)
    if not records:
        raise ElleError("there is nothing to score: the data set is empty", fix="give at least one row")
    if strangers := [name for name in outputs if name not in records]:
        raise ElleError(
            f"{len(strangers)} of {len(outputs)} outputs belong to no row of the data",
            where=f"output id {strangers[0]!r}",
            fix="score outputs against the data set that they were made from",
        )
    judged = tuple(records.values())
    return Scorecard(
        {name: _estimate(metric, [record.counts[name] for record in judged], seed) for name, metric in METRICS.items()},
        judged,
        sum(record.output is not None for record in judged),
    )


def _estimate(metric: Metric, counts: Sequence[tuple[int, int]], seed: int) -> Estimate:
    tops, bottoms = zip(*counts, strict=True)
    if metric.by_briefing:
        return wilson(sum(tops), sum(bottoms))
    return clustered_ratio(tops, bottoms, np.random.default_rng(seed))


def _turns(row: Mapping[str, Any], position: int) -> tuple[str, str, str]:
    """A row's id, prompt and reference answer."""
    name = row.get("id")
    try:
        turns = {turn["from"]: turn["value"] for turn in row["conversations"]}
        prompt, reference = turns["human"], turns["gpt"]
    except (KeyError, TypeError) as error:
        raise _bad_row(row, position, "no conversation of system, human and gpt turns") from error
    if not all(isinstance(part, str) for part in (name, prompt, reference)):
        raise _bad_row(row, position, "its id and the values of its turns must be text")
    return name, prompt, reference


def _bad_row(row: Mapping[str, Any], position: int, why: str) -> ElleError:
    return ElleError(
        f"this row is not in the project's format: {why}",
        where=f"row {position} (id {str(row.get('id'))[:60]!r})",
        fix='rows look like {"id": …, "conversations": [{"from": "human", "value": …}, …]}',
    )
