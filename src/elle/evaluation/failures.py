"""What is wrong with an output: as lines for a terminal, and on a page, its wrong numbers and unread parts marked."""

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from itertools import groupby, islice
from typing import Any

from elle.base.tables import printable
from elle.evaluation.verdict import Record

#: Characters of one text, and keys, that are shown; a runaway output would make the page unusable.
MAX_SHOWN = 20_000
MAX_KEYS = 50

# Translucent on the page's own colours, so that it reads in a light and in a dark theme; underlined in two ways, so
# that it does not hang on colour alone.
_WRONG = "background:rgba(220,38,38,.28);color:inherit;text-decoration:underline wavy rgb(220,38,38);padding:0 .15em"
_UNREAD = "background:rgba(245,158,11,.22);color:inherit;text-decoration:underline dotted rgb(217,119,6)"
_BOX = "border:1px solid rgba(128,128,128,.5);border-radius:6px;padding:.6em .9em;margin:.6em 0;color:inherit"
_PRE = "white-space:pre-wrap;overflow-wrap:anywhere;margin:.3em 0;background:none;color:inherit;font-size:.9em"


def failure_html(record: Mapping[str, Any]) -> str:
    """A self-contained HTML fragment: what is wrong, the output with each wrong number marked (why: on hovering and in
    the list) and in another colour what is not read, the prompt. Everything that a model or a data file wrote is
    escaped.

    record: what `Record.to_json` gives, so that a report can be rendered from its JSON alone.
    """
    reasons = "".join(f"<li>{escape(reason[:300])}</li>" for reason in record["reasons"][:50])
    if len(record["reasons"]) > 50:
        reasons += f"<li>… and {len(record['reasons']) - 50:,} more</li>"
    parts = [f"<strong>{escape(record['id'])}</strong>", f"<ul>{reasons or '<li>nothing is wrong</li>'}</ul>"]
    marks: dict[str, list[tuple[Mapping[str, Any], str, str]]] = {}
    for part in record.get("unread", ()):  # a report of an earlier version has none
        marks.setdefault(part["key"], []).append((part, _UNREAD, "not read"))
    for number in record["findings"]:
        if not number["ok"] and number["metric"] is not None:  # without one it is unread, neither right nor wrong
            marks.setdefault(number["key"], []).append((number, _WRONG, number["why"]))
    rows = [
        f"<dt><code>{escape(key[:80])}</code></dt><dd>{_marked(text, marks.get(key, []))}</dd>"
        for key, text in islice(record["texts"].items(), MAX_KEYS)
    ]
    if rows:
        parts.append(f'<dl style="overflow-wrap:anywhere">{"".join(rows)}</dl>')
    verbatim = f'<pre style="{_PRE}">{_marked(record["output"] or "(none)")}</pre>'
    parts.append(f"<details{'' if rows else ' open'}><summary>Output, verbatim</summary>{verbatim}</details>")
    prompt = f'<pre style="{_PRE}">{_marked(record["prompt"])}</pre>'
    parts.append(f"<details><summary>Prompt</summary>{prompt}</details>")
    return f'<div style="{_BOX}">{"".join(parts)}</div>'


def faults_text(records: Iterable[Record]) -> str:
    """Records with the first four reasons of each, a line each, whatever a model or a data file wrote into them."""
    lines = []
    for record in records:
        lines.append(f"{printable(record.id)}: {len(record.reasons)} fault{'s' * (len(record.reasons) != 1)}")
        lines += [f"  {printable(reason[:160])}" for reason in record.reasons[:4]]
        if len(record.reasons) > 4:
            lines.append(f"  … and {len(record.reasons) - 4} more")
    return "\n".join(lines)


def _marked(text: str, marks: Sequence[tuple[Mapping[str, Any], str, str]] = ()) -> str:
    """The beginning of a text with its marks (part, style, title), none within another: of two that overlap the later
    one is on top."""
    over: list[tuple[int, int, str, str] | None] = [None] * min(len(text), MAX_SHOWN)  # the mark of each letter
    for part, style, title in marks:
        span = slice(part["start"], part["end"])
        over[span] = [(part["start"], part["end"], style, title)] * len(over[span])
    pieces, position = [], 0
    for mark, letters in groupby(over):
        end = position + len(list(letters))
        piece = escape(text[position:end])
        pieces.append(f'<mark style="{mark[2]}" title="{escape(mark[3])}">{piece}</mark>' if mark else piece)
        position = end
    more = f"\n… {len(text) - MAX_SHOWN:,} more characters" if len(text) > MAX_SHOWN else ""
    return "".join(pieces) + more
