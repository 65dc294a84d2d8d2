"""The figures over a data set: each with its definition, version, denominator and 95 % interval, and every failure
kept with its reasons."""

import heapq
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from elle.base.errors import ElleError
from elle.evaluation.statistics import Estimate, clustered_ratio, wilson
from elle.evaluation.verdict import Record, judge


@dataclass(frozen=True)
class Metric:
    """What a figure means; `version` changes whenever its definition does. Figures of different versions do not
    compare. All lie in 0..1, higher is better, and pool counts over briefings (micro-average)."""

    definition: str
    version: int = 1
    by_briefing: bool = True  # one yes or no a briefing (Wilson), or many counts in each (bootstrap over briefings)
    of_objects: bool = False  # an output without an object does not count (n is smaller), or counts as a failure
    unseen: str = ""  # what it cannot see


METRICS = {
    "json_strict": Metric("share of rows whose whole output parses as one JSON object under a strict reading"),
    "json_lenient": Metric(
        "share of rows from whose output such an object can be extracted, text or a code fence around it forgiven"
    ),
    "schema": Metric("share of rows that are strictly one JSON object with all keys, no other, each of the right type"),
    "schema_lenient": Metric("the same for the extracted object"),
    "numeric_precision": Metric(
        "numbers equal to the printed figure that they bind to / all numbers but those bound to derived metrics; an "
        "unbound number is wrong, and so is one that is not the plain figure: a magnitude, a unit of time or a % that "
        "its metric does not have, other digits than 0-9, invisible characters in its text; no numbers: undefined",
        version=2,
        by_briefing=False,
        of_objects=True,
        unseen="numbers in words, negations and comparisons (not 40, above 40)",
    ),
    "numeric_recall": Metric(
        "(key, metric, value) of the reference answers' printed figures that the answer has under the same key / all "
        "of them; an output without an object has none",
        version=3,
        by_briefing=False,
        unseen="numbers in words, which count as missing",
    ),
    "derived_accuracy": Metric(
        "numbers equal to the derived figure that they bind to / all numbers bound to derived metrics; none: undefined",
        version=2,
        by_briefing=False,
        of_objects=True,
        unseen="as numeric_precision",
    ),
    "derived_recall": Metric(
        "numeric_recall of the derived figures",
        by_briefing=False,
        unseen="as numeric_recall",
    ),
    "arithmetic": Metric(
        "checks that hold / checks that can be made on the answer's own figures, whatever the prompt says: F within "
        "0.0005 of Φ − 0.3·H + 0.25·C; decayed = confidence·e^(−0.1·horizon) to two decimals, confidence at most 0.95; "
        "a figure printed with two values fails its check; CIC rows, elsewhere undefined",
        by_briefing=False,
        of_objects=True,
        unseen="figures left out: without one of them its check is not made (derived_recall sees that)",
    ),
    "epistemic_bound": Metric(
        "briefings that state no confidence above 0.95 / briefings that state one, in any key (0.97, 97%, 97% "
        "confident, certainty of 0.97, decayed 0.97); none: undefined",
        of_objects=True,
        unseen="confidence in words: ninety-seven per cent, certain",
    ),
    "phase": Metric(
        "CIC rows whose phase_assessment names the prompt's phase, no text naming another; where the prompt has none: "
        "that no text names one and phase_assessment says that it is undefined; basic rows: undefined",
        unseen="whether the prompt's phase follows from its figures: the audit of a data set sees that",
    ),
    "risk_words": Metric(
        "category texts with at least one risk word, all of the band of the category's true number / six a row",
        by_briefing=False,
        unseen="other words for a risk",
    ),
    "words": Metric(
        "things said as the figures give them / things that the figures determine: the trend of each category, stress, "
        "key concerns, overall risk, signal density, plans and focus, and in CIC rows net, temperature, order, early "
        "warning, transition, cap, match, and F where it is undefined; saying nothing fails",
        by_briefing=False,
        unseen="other words than those of the rules: they count as silence",
    ),
    "fabrication": Metric(
        "share of briefings without a name, date or event that neither the prompt nor the table of correlates holds; "
        "every capitalised word that is neither in them nor in the project's wording is a name",
        of_objects=True,
        unseen="names in lower case, names made of known words, events in other words than the list's",
    ),
    "fabrication_lenient": Metric(
        "the same, one capitalised word at the start of a sentence forgiven",
        of_objects=True,
        unseen="as fabrication, and a single name that opens a sentence",
    ),
    "all_right": Metric(
        "share of rows where schema holds, every number is right, recall is complete, and of arithmetic, "
        "epistemic_bound, phase, risk_words, words and fabrication_lenient nothing fails",
        version=2,
    ),
}


def metrics_table() -> str:
    """`METRICS` as a markdown table, for the documentation."""
    lines = ["| metric | version | definition | counts | 95 % interval | cannot see |", "|---|---|---|---|---|---|"]
    for name, metric in METRICS.items():
        counts = "outputs with an object" if metric.of_objects else "all rows"
        interval = "Wilson" if metric.by_briefing else "bootstrap over briefings"
        definition = metric.definition.replace("|", "\\|")
        lines.append(f"| `{name}` | {metric.version} | {definition} | {counts} | {interval} | {metric.unseen} |")
    return "\n".join(lines)


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
    lenient = {name: [record.counts[name] for record in judged] for name in METRICS}
    strict = {name: [strict_counts(record, name) for record in judged] for name in METRICS}
    metrics = {name: _estimate(metric, lenient[name], seed) for name, metric in METRICS.items()}
    return Scorecard(
        metrics,
        {
            name: metrics[name] if strict[name] == lenient[name] else _estimate(metric, strict[name], seed)
            for name, metric in METRICS.items()
        },
        judged,
        sum(record.output is not None for record in judged),
    )


def strict_counts(record: Record, name: str) -> tuple[int, int]:
    """A record's counts for a metric where an output that is not strictly JSON has no object."""
    top, bottom = record.counts[name]
    if record.parsed.strict:
        return top, bottom
    return 0, 0 if METRICS[name].of_objects else bottom


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
