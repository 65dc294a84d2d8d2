"""Text for a terminal, and rows of equal keys as a table there or on a page of markdown."""

import re
from collections.abc import Mapping, Sequence

_UNUSUAL = re.compile(r"[^ -~]")


def printable(text: str) -> str:
    """A line of a terminal that holds `text` and does nothing else: what a terminal would obey, or show as nothing or
    in another order, as its escape (such as \\x1b)."""

    def shown(match: re.Match[str]) -> str:
        letter = match[0]
        return letter if letter.isprintable() else letter.encode("unicode_escape").decode()

    return text if text.isprintable() else _UNUSUAL.sub(shown, text)


def aligned(rows: Sequence[Mapping[str, str]]) -> str:
    """A table for a terminal; the first column to the left, the others to the right."""
    from tabulate import tabulate

    columns = ["left"] + ["right"] * (len(rows[0]) - 1) if rows else []
    return tabulate(rows, headers="keys", tablefmt="plain", disable_numparse=True, colalign=columns)


def markdown(rows: Sequence[Mapping[str, str]]) -> str:
    """A table for a page; its cells are not padded, so that a changed one changes its own line alone."""
    lines = [list(rows[0]), ["---"] * len(rows[0]), *(list(row.values()) for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
