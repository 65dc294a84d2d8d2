"""The failures of an evaluation to leaf through, grouped by kind of fault: plain HTML that needs no script and no
network, so that it works in a notebook that nobody has trusted, in a committed one, and in a report."""

import json
from collections.abc import Iterable, Sequence
from html import escape

from elle.evaluation.failures import failure_html as one
from elle.evaluation.verdict import Record

#: Bytes, as a notebook's JSON holds them.
BUDGET = 60_000


def kinds(records: Iterable[Record]) -> dict[str, list[Record]]:
    """Metric → the records that fall short of it, in the metrics' order; metrics that nobody falls short of are left
    out, and so is `all_right`. A record is in as many kinds as it has faults."""
    by_kind: dict[str, list[Record]] = {}
    for record in records:
        for name, (top, bottom) in record.counts.items():
            by_kind.setdefault(name, [])
            if top < bottom and name != "all_right":  # which any fault lowers
                by_kind[name].append(record)
    return {name: faulty for name, faulty in by_kind.items() if faulty}


def html(records: Sequence[Record], limit: int = 50, budget: int = BUDGET) -> str:
    """A self-contained HTML fragment: for each kind of fault how many records have it, and examples that open on a
    click, each shown once, its wrong numbers marked and explained, its unread parts marked, and all its kinds named.

    Args:
        limit: the most examples in all.
        budget: bytes, as JSON. Each kind gives an example in turn, the rarest first, until it is spent, so that a rare
            fault is not crowded out by a common one. What is left out is said.
    """
    by_kind = kinds(records)
    shown: dict[str, list[str]] = {name: [] for name in by_kind}
    seen: set[str] = set()
    spent = _bytes("".join(_group(name, "?", len(faulty), 999, len(records)) for name, faulty in by_kind.items())) + 200
    waiting = {name: iter(by_kind[name]) for name in sorted(by_kind, key=lambda name: len(by_kind[name]))}
    while waiting and len(seen) < limit:
        for name, candidates in list(waiting.items()):
            record = next((each for each in candidates if each.id not in seen), None)
            if record is None or len(seen) == limit:
                del waiting[name]
                continue
            piece = _example(
                record, [kind for kind, faulty in by_kind.items() if any(each is record for each in faulty)]
            )
            if spent + _bytes(piece) <= budget:  # a shorter one may still fit
                spent += _bytes(piece)
                shown[name].append(piece)
                seen.add(record.id)
    failing = len({record.id for faulty in by_kind.values() for record in faulty})
    head = f"<p>{failing:,} of {len(records):,} outputs have a fault; {len(seen):,} of them are here.</p>"
    return head + "".join(
        _group(name, "".join(shown[name]), len(faulty), len(shown[name]), len(records))
        for name, faulty in by_kind.items()
    )


def page(records: Sequence[Record], title: str = "Failures", limit: int = 200) -> str:
    """The same as a page of its own, up to 2 MB, legible in a light and in a dark theme."""
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{escape(title)}</title>'
        "<style>:root{color-scheme:light dark}body{font:15px/1.5 system-ui,sans-serif;max-width:60em;margin:2em auto;"
        f"padding:0 1em}}</style><h1>{escape(title)}</h1>{html(records, limit, 2_000_000)}</html>\n"
    )


def _example(record: Record, names: Sequence[str]) -> str:
    more = f" and {len(record.reasons) - 1} more" if len(record.reasons) > 1 else ""
    head = f"{escape(record.id)}: {escape((record.reasons or ('no reason given',))[0][:90])}{more}"
    return (
        f'<details style="margin-left:1.2em"><summary>{head}</summary>'
        f"<small>falls short of {', '.join(map(escape, names))}</small>{one(record.to_json())}</details>"
    )


def _group(name: str, examples: str, count: int, shown: int, records: int) -> str:
    head = f"<strong>{escape(name)}</strong>: {count:,} of {records:,} outputs fall short"
    if not examples:
        return f"<p>{head}</p>"
    return f"<details><summary>{head}, {shown} of them here</summary>{examples}</details>"


def _bytes(text: str) -> int:
    return len(json.dumps(text, ensure_ascii=False).encode())
