"""What a notebook shows: tables, texts, verdicts, and progress on one line."""

import json
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from IPython.display import HTML, display

from elle.briefings import metrics
from elle.briefings.schema import Example
from helpers.runs.manifest import STATUS


def table(rows: Iterable[Mapping[str, Any]], index: str | None = None):
    """Rows as a pandas table, for display."""
    import pandas

    table = pandas.DataFrame(list(rows))
    return table.set_index(index) if index else table


def text(rows: Iterable[Mapping[str, Any]]):
    """Rows whose cells are text, for display: to the left and never cut off (and a dollar sign starts no formula)."""
    rows = [{escape(str(name)): escape(str(value)) for name, value in row.items()} for row in rows]
    attributes = ' class="tex2jax_ignore mathjax_ignore"', ' style="text-align: left"'
    return HTML(_cells(rows, *attributes) if rows else "none")


def _cells(rows: Sequence[Mapping[str, str]], table: str = "", head: str = "") -> str:
    """Rows of HTML as a table; table, head: attributes of the table and of its headings."""
    names = "".join(f"<th{head}>{name}</th>" for name in rows[0])
    cell = '<td style="text-align: left; vertical-align: top">{}</td>'
    lines = (f"<tr>{''.join(map(cell.format, row.values()))}</tr>" for row in rows)
    return f"<table{table}><tr>{names}</tr>{''.join(lines)}</table>"


def example(row: Mapping[str, Any]):
    """An example of a data set, for display: its prompt, its answer key by key, and what is derived by rule."""
    _, _, prompt, answer = Example.of(row)
    derived = metrics.derived_figures(metrics.parse(prompt))
    texts = json.loads(answer) | {"derived by rule": ", ".join(f"{name} {value}" for name, value in derived.items())}
    return HTML(preformatted(prompt) + text({"key": key, "text": entry} for key, entry in texts.items()).data)


def preformatted(text: str) -> str:
    """Text as HTML that keeps its lines, and breaks those that are too long."""
    style = "white-space: pre-wrap; word-break: normal; margin: 0 0 0.5em; background: none; color: inherit"
    return f'<pre style="{style}">{escape(text)}</pre>'


def verdicts(outcomes: Iterable[Any]):
    """Outcomes of `cic.claims`, for display: the claim, what would have to be seen, what was, the verdict."""
    facts = ({name: escape(str(value)) for name, value in outcome.to_json().items()} for outcome in outcomes)
    rows = [
        {
            "claim": f"{fact['statement']}<br><small>{fact['source']}</small>",
            "it holds if": fact["prediction"],
            "measured": fact["measured"],
            "verdict": f"<b>{fact['status']}</b>",
        }
        for fact in facts
    ]
    return HTML(_cells(rows))


def confirm(question: str) -> bool:
    """Ask the person at the keyboard before money is spent; anything but "yes" is no."""
    return input(f"{question} Type yes: ").strip().lower() == "yes"


def batch() -> bool:
    """Whether nobody sits before this notebook: `elle run` executes it."""
    return STATUS in os.environ


class Line:
    """A line of text that is updated in place while something runs; a batch run keeps its last state only."""

    def __init__(self) -> None:
        self._handle = display(HTML(""), display_id=True)

    def say(self, text: str) -> None:
        self._handle.update(HTML(f"<code>{escape(text)}</code>"))
        if status := os.environ.get(STATUS):
            Path(status).write_text(text, encoding="utf-8")


class Counter(Line):
    """A progress callback(done, total): one line with the rate and the time left."""

    def __init__(self, what: str) -> None:
        super().__init__()
        self.what, self.began, self.shown = what, time.monotonic(), 0

    def __call__(self, done: int, total: int) -> None:
        if done - self.shown < total / 50 and done != total:
            return
        self.shown = done
        spent = time.monotonic() - self.began
        left = spent / done * (total - done)
        self.say(f"{self.what}: {done}/{total}, {done / max(spent, 1e-9):.1f} a second, {left:.0f} s left")


class TrainingView(Line):
    """A progress callback(history) for `training.launch.follow`: the curve so far, and a line under it.

    hourly: dollars an hour (`Prepared.hourly`): 0 is free, None is unknown.
    """

    def __init__(self, hourly: float | None = 0.0) -> None:
        self.hourly = hourly
        self._figure = display(HTML("<i>the trainer is starting …</i>"), display_id=True)
        super().__init__()

    def __call__(self, history: list[dict]) -> None:
        from elle.training.history import line
        from helpers import plots

        if not history:
            return
        if history[-1]["step"] >= history[-1]["of"]:  # the notebook shows the finished curve itself
            self._figure.update(HTML(""))
        else:
            self._figure.update(plots.training.loss_curve(history))
        self.say(line(history, self.hourly))
