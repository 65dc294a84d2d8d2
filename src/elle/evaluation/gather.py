"""Where errors gather: at which metric, in which phase, with how many nations, in answers of which length."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from cic.criticality import PHASES
from elle.briefings.metrics import Metrics, parse
from elle.briefings.scenario import COUNTRIES
from elle.evaluation.statistics import Estimate, clustered_ratio, wilson
from elle.evaluation.verdict import Record

NATION, UNREAD, UNDEFINED = "a nation's risk", "not read", "undefined"
#: Groups by length.
BINS = 4


@dataclass(frozen=True)
class Gathering:
    """groups: label → share that is wrong, its n in `counted`, with a 95 % interval; in the order of the figure. Of
    `UNREAD` it is the share of all numbers that is not read: no metric's, and neither right nor wrong."""

    counted: str  # "numbers" or "briefings"
    groups: dict[str, Estimate]


def errors_by(records: Sequence[Record], *, seed: int = 0) -> dict[str, Gathering]:
    """The share of errors by property: "metric", "phase", "nations", "length"; one that the records lack is left out.

    By metric it is the share of the numbers said of that metric that are wrong (bootstrap over briefings), the worst
    first, and what is not read last; what is missing from an answer is not seen there. By the others it is the share of
    the briefings that are not all right (Wilson): by the phase and the number of nations of the prompt, and by the
    length of the answer in characters, in `BINS` groups of about equal size, without the rows that have no answer.
    """
    prompts = [parse(record.prompt) for record in records]
    phases = [metrics.cic and (metrics.cic.phase or UNDEFINED) for metrics in prompts]
    nations = [len(metrics.nations) for metrics in prompts]
    answered = [record for record in records if record.output is not None]
    lengths = [len(record.output or "") for record in answered]
    bins = _binned(lengths, BINS)
    shortest_first = [label for _, label in sorted(zip(lengths, bins, strict=True))]
    gatherings = {
        "metric": Gathering("numbers", _by_metric(records, prompts, seed)),
        "phase": _briefings(phases, records, (*PHASES, UNDEFINED)),
        "nations": _briefings(list(map(str, nations)), records, map(str, sorted(set(nations)))),
        "length": _briefings(bins, answered, dict.fromkeys(shortest_first)),
    }
    return {name: gathering for name, gathering in gatherings.items() if gathering.groups}


def _by_metric(records: Sequence[Record], prompts: Sequence[Metrics], seed: int) -> dict[str, Estimate]:
    counts: dict[str, np.ndarray] = {}  # label → (2, records): wrong numbers, numbers
    unread = np.zeros((2, len(records)), int)  # numbers that are not read, numbers
    for place, (record, metrics) in enumerate(zip(records, prompts, strict=True)):
        codes = COUNTRIES.keys() | {code for code, _ in metrics.nations}
        for finding in record.findings:
            unread[:, place] += (finding.metric is None, 1)
            if finding.metric is not None:
                label = NATION if finding.metric in codes else finding.metric
                table = counts.setdefault(label, np.zeros((2, len(records)), int))
                table[:, place] += (not finding.ok, 1)
    shares = {label: clustered_ratio(*table, np.random.default_rng(seed)) for label, table in counts.items()}
    groups = dict(sorted(shares.items(), key=lambda item: (-(item[1].value or 0), item[0])))
    if unread[0].any():
        groups[UNREAD] = clustered_ratio(*unread, np.random.default_rng(seed))
    return groups


def _briefings(labels: Sequence[str | None], records: Sequence[Record], order: Iterable[str]) -> Gathering:
    groups = {}
    for label in order:
        wrong = [
            record.counts["all_right"][0] == 0 for record, other in zip(records, labels, strict=True) if other == label
        ]
        if wrong:
            groups[label] = wilson(sum(wrong), len(wrong))
    return Gathering("briefings", groups)


def _binned(lengths: Sequence[int], bins: int) -> list[str]:
    """Each length's bin, as "first–last" of the lengths in it; equal lengths fall into one bin."""
    if not lengths:
        return []
    array = np.array(lengths)
    places = np.searchsorted(np.quantile(array, np.linspace(0, 1, bins + 1)[1:-1]), array, side="left")
    members = [array[places == place] for place in range(bins)]
    return [f"{members[place].min():,}–{members[place].max():,}" for place in places]


def error_table(gathered: Mapping[str, Gathering]) -> list[dict[str, str | int | float]]:
    """One row per group, for display and for JSON: by, group, counted, n, share wrong, low, high."""
    return [
        {"by": name, "group": label, "counted": gathering.counted, "n": share.n, "share wrong": share.value or 0.0}
        | {"low": share.low or 0.0, "high": share.high or 0.0}
        for name, gathering in gathered.items()
        for label, share in gathering.groups.items()
    ]
