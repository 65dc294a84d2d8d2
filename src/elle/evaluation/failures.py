"""What is wrong with an output: as lines for a terminal, and on a page, its wrong numbers marked."""

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from itertools import islice
from typing import Any

from elle.evaluation.verdict import Record

#: Characters of one text, and keys, that are shown; a runaway output would make the page unusable.
MAX_SHOWN = 20_000
MAX_KEYS = 50

# Translucent on the page's own colours, so that it reads in a light and in a dark theme; underlined, so that it does
# not hang on colour alone.
_WRONG = "background:rgba(220,38,38,.28);color:inherit;text-decoration:underline wavy rgb(220,38,38);padding:0 .15em"
_BOX = "border:1px solid rgba(128,128,128,.5);border-radius:6px;padding:.6em .9em;margin:.6em 0;color:inherit"
_PRE = "white-space:pre-wrap;overflow-wrap:anywhere;margin:.3em 0;background:none;color:inherit;font-size:.9em"


def failure_html(record: Mapping[str, Any]) -> str:
    """A self-contained HTML fragment: what is wrong, the output with each wrong number marked (why: on hovering and in
    the list), the prompt. Everything that a model or a data file wrote is escaped.

    record: what `Record.to_json` gives, so that a report can be rendered from its JSON alone.
    """
    reasons = "".join(f"<li>{escape(reason[:300])}</li>" for reason in record["reasons"][:50])
    if len(record["reasons"]) > 50:
        reasons += f"<li>… and {len(record['reasons']) - 50:,} more</li>"
    parts = [f"<strong>{escape(record['id'])}</strong>", f"<ul>{reasons or '<li>nothing is wrong</li>'}</ul>"]
    wrong: dict[str, list[Mapping[str, Any]]] = {}
    for number in record["findings"]:
        if not number["ok"]:
            wrong.setdefault(number["key"], []).append(number)
    rows = [
        f"<dt><code>{escape(key[:80])}</code></dt><dd>{_marked(text, wrong.get(key, []))}</dd>"
        for key, text in islice(record["texts"].items(), MAX_KEYS)
    ]
    if rows:
        parts.append(f'<dl style="overflow-wrap:anywhere">{"".join(rows)}</dl>')
    verbatim = f'<pre style="{_PRE}">{_cut(record["output"] or "(none)")}</pre>'
    parts.append(f"<details{'' if rows else ' open'}><summary>Output, verbatim</summary>{verbatim}</details>")
    prompt = f'<pre style="{_PRE}">{_cut(record["prompt"])}</pre>'
    parts.append(f"<details><summary>Prompt</summary>{prompt}</details>")
    return f'<div style="{_BOX}">{"".join(parts)}</div>'


def faults_text(records: Iterable[Record]) -> str:
    """Records with the first four reasons of each."""
    lines = []
    for record in records:
        lines.append(f"{record.id}: {len(record.reasons)} fault{'s' * (len(record.reasons) != 1)}")
        lines += [f"  {reason[:160]}" for reason in record.reasons[:4]]
        if len(record.reasons) > 4:
            lines.append(f"  … and {len(record.reasons) - 4} more")
    return "\n".join(lines)


def _cut(text: str) -> str:
    note = f"\n… {len(text) - MAX_SHOWN:,} more characters" if len(text) > MAX_SHOWN else ""
    return escape(text[:MAX_SHOWN]) + note


def _marked(text: str, wrong: Sequence[Mapping[str, Any]]) -> str:
    pieces, position = [], 0
    for number in wrong:
        if number["end"] > MAX_SHOWN:
            break
        pieces.append(escape(text[position : number["start"]]))
        pieces.append(f'<mark style="{_WRONG}" title="{escape(number["why"])}">{escape(number["text"])}</mark>')
        position = number["end"]
    return "".join(pieces) + _cut(text[position:])
