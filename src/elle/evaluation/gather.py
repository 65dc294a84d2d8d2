"""Where errors gather: at which metric, in which phase, with how many nations, in answers of which length."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from cic.criticality import PHASES
from elle.base.errors import ElleError
from elle.briefings.metrics import Metrics, parse
from elle.briefings.scenario import COUNTRIES
from elle.evaluation.statistics import Estimate, clustered_ratio, wilson
from elle.evaluation.verdict import Record

NATION, UNBOUND, UNDEFINED = "a nation's risk", "no metric named", "undefined"


@dataclass(frozen=True)
class Gathering:
    """groups: label → share that is wrong, its n in `counted`, with a 95 % interval; in the order of the figure."""

    counted: str  # "numbers" or "briefings"
    groups: dict[str, Estimate]


def errors_by(records: Sequence[Record], *, bins: int = 4, seed: int = 0) -> dict[str, Gathering]:
    """The share of errors by property: "metric", "phase", "nations", "length"; one that the records lack is left out.

    By metric it is the share of the numbers bound to that metric that are wrong (bootstrap over briefings), the worst
    first; what is missing from an answer is not seen there. By the others it is the share of the briefings that are not
    all right (Wilson): by the phase and the number of nations of the prompt, and by the length of the answer in
    characters, in `bins` groups of about equal size, without the rows that have no answer.

    Raises:
        ElleError: no records.
        ValueError: bins < 1.
    """
    if not records:
        raise ElleError("there are no verdicts to sort", fix="score at least one row")
    if bins < 1:
        raise ValueError(f"need at least one bin, not {bins}")
    known = [parse(record.prompt) for record in records]
    wrong = [record.counts["all_right"][0] == 0 for record in records]

    phases = [None if metrics.cic is None else metrics.cic.phase or UNDEFINED for metrics in known]
    nations = [str(len(metrics.nations)) for metrics in known]
    answered = [place for place, record in enumerate(records) if record.output is not None]
    lengths = _binned([len(records[place].output or "") for place in answered], bins)
    found = {
        "metric": Gathering("numbers", _by_metric(records, known, seed)),
        "phase": _briefings(phases, wrong, (*PHASES, UNDEFINED)),
        "nations": _briefings(nations, wrong, sorted(set(nations), key=int)),
        "length": _briefings(lengths, [wrong[place] for place in answered], dict.fromkeys(sorted(lengths, key=_start))),
    }
    return {name: gathering for name, gathering in found.items() if gathering.groups}


def _by_metric(records: Sequence[Record], known: Sequence[Metrics], seed: int) -> dict[str, Estimate]:
    counts: dict[str, np.ndarray] = {}  # label → (2, records): wrong numbers, numbers
    for place, (record, metrics) in enumerate(zip(records, known, strict=True)):
        codes = COUNTRIES.keys() | {code for code, _ in metrics.nations}
        for finding in record.findings:
            metric = finding.number.metric
            label = UNBOUND if metric is None else NATION if metric in codes else metric
            table = counts.setdefault(label, np.zeros((2, len(records)), int))
            table[:, place] += (not finding.ok, 1)
    shares = {label: clustered_ratio(*table, np.random.default_rng(seed)) for label, table in counts.items()}
    return dict(sorted(shares.items(), key=lambda item: (-(item[1].value or 0), item[0])))


def _briefings(labels: Sequence[str | None], wrong: Sequence[bool], order: Iterable[str]) -> Gathering:
    groups = {}
    for label in order:
        chosen = [fault for name, fault in zip(labels, wrong, strict=True) if name == label]
        if chosen:
            groups[label] = wilson(sum(chosen), len(chosen))
    return Gathering("briefings", groups)


def _binned(lengths: Sequence[int], bins: int) -> list[str]:
    """Each length's bin, as "first–last" of the lengths in it; equal lengths fall into one bin."""
    if not lengths:
        return []
    edges = np.quantile(lengths, np.linspace(0, 1, bins + 1)[1:-1])
    places = np.searchsorted(edges, lengths, side="left")
    members: Mapping[int, list[int]] = {
        place: [length for length, other in zip(lengths, places, strict=True) if other == place]
        for place in set(places.tolist())
    }
    return [f"{min(members[place]):,}–{max(members[place]):,}" for place in places.tolist()]


def _start(label: str) -> int:
    return int(label.partition("–")[0].replace(",", ""))


def table(gathered: Mapping[str, Gathering]) -> list[dict[str, str | int | float]]:
    """One row a group, for display and for JSON: by, group, counted, n, share wrong, low, high."""
    return [
        {"by": name, "group": label, "counted": gathering.counted, "n": share.n, "share wrong": share.value or 0.0}
        | {"low": share.low or 0.0, "high": share.high or 0.0}
        for name, gathering in gathered.items()
        for label, share in gathering.groups.items()
    ]
