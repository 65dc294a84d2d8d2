"""Rows of equal keys as text: for a terminal, and for a page of markdown."""

from collections.abc import Mapping, Sequence


def aligned(rows: Sequence[Mapping[str, str]]) -> str:
    """A table for a terminal; the first column to the left, the others to the right."""
    from tabulate import tabulate

    columns = ["left"] + ["right"] * (len(rows[0]) - 1) if rows else []
    return tabulate(rows, headers="keys", tablefmt="plain", disable_numparse=True, colalign=columns)


def markdown(rows: Sequence[Mapping[str, str]]) -> str:
    """A table for a page; its cells are not padded, so that a changed one changes its own line alone."""
    lines = [list(rows[0]), ["---"] * len(rows[0]), *(list(row.values()) for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
