"""The failures of an evaluation to leaf through, grouped by kind of fault: plain HTML that needs no script and no
network, so that it works in a notebook that nobody has trusted, in a committed one, and in a report."""

import json
from collections.abc import Iterable, Sequence
from html import escape
from itertools import zip_longest

from helpers.evaluation.failures import html as one
from helpers.evaluation.records import Record

#: Bytes, as a notebook's JSON holds them.
BUDGET = 60_000


def kinds(records: Iterable[Record]) -> dict[str, list[Record]]:
    """Metric → the records that fall short of it, in the metrics' order; metrics that nobody falls short of are left
    out. A record is in as many kinds as it has faults."""
    found: dict[str, list[Record]] = {}
    for record in records:
        for name, (top, bottom) in record.counts.items():
            found.setdefault(name, [])
            if top < bottom:
                found[name].append(record)
    return {name: faulty for name, faulty in found.items() if faulty}


def html(records: Sequence[Record], limit: int = 50, budget: int = BUDGET) -> str:
    """A self-contained HTML fragment: for each kind of fault how many records have it, and examples that open on a
    click, each shown once, under its rarest kind, its wrong numbers marked and explained.

    Args:
        limit: the most examples in all.
        budget: bytes, as JSON; examples are taken from all kinds in turn until it is spent. What is left out is said.
    """
    found = kinds(records)
    rarest = sorted(found, key=lambda name: len(found[name]))
    shown: dict[str, list[str]] = {name: [] for name in found}
    seen: set[str] = set()
    spent = _bytes("".join(_group(name, "", len(faulty), 0, len(records)) for name, faulty in found.items())) + 500
    # One example of each kind, then a second one of each, and so on: a rare fault is not crowded out by a common one.
    for turn in zip_longest(*(found[name] for name in rarest)):
        for name, record in zip(rarest, turn, strict=True):
            if record is None or record.id in seen or len(seen) == limit:
                continue
            piece = one(record.to_json())
            if spent + _bytes(piece) <= budget:
                spent += _bytes(piece)
                shown[name].append(piece)
                seen.add(record.id)
    failing = len({record.id for faulty in found.values() for record in faulty})
    head = f"<p>{failing:,} of {len(records):,} outputs have a fault; {len(seen):,} are shown.</p>"
    return head + "".join(
        _group(name, "".join(shown[name]), len(faulty), len(shown[name]), len(records))
        for name, faulty in found.items()
    )


def page(records: Sequence[Record], title: str = "Failures", limit: int = 200) -> str:
    """The same as a page of its own, up to 2 MB, legible in a light and in a dark theme."""
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{escape(title)}</title>'
        "<style>:root{color-scheme:light dark}body{font:15px/1.5 system-ui,sans-serif;max-width:60em;margin:2em auto;"
        f"padding:0 1em}}</style><h1>{escape(title)}</h1>{html(records, limit, 2_000_000)}</html>\n"
    )


def _group(name: str, examples: str, count: int, shown: int, records: int) -> str:
    head = f"<strong>{escape(name)}</strong>: {count:,} of {records:,} outputs fall short"
    if not examples:
        return f"<p>{head} (examples: under other kinds)</p>" if count else ""
    return f"<details><summary>{head} ({shown} shown here)</summary>{examples}</details>"


def _bytes(text: str) -> int:
    return len(json.dumps(text, ensure_ascii=False).encode())
