"""One error type, for everything a person can put right."""

import contextlib
import difflib
from collections.abc import Iterable


class ElleError(Exception):
    """A failure that says what went wrong, where, and how to fix it.

    Args:
        what: one sentence, in the user's terms.
        where: the file (and line), parameter, URL or step concerned; empty if `what` says it all.
        fix: what to do about it; empty only where nothing can be done.
    """

    def __init__(self, what: str, *, where: str = "", fix: str = ""):
        self.what, self.where, self.fix = what, where, fix
        super().__init__(what)

    def __str__(self) -> str:
        lines = [self.what]
        if self.where:
            lines.append(f"  where: {self.where}")
        if self.fix:
            lines.append(f"  fix:   {self.fix}")
        return "\n".join(lines)


def unknown(kind: str, name: str, known: Iterable[str], *, where: str = "") -> ElleError:
    """The error for a name that is not one of `known`: it offers the nearest one, or else lists them all."""
    options = sorted(known)
    near = difflib.get_close_matches(name, options, n=1, cutoff=0.5)
    fix = f"did you mean {near[0]!r}?" if near else f"use one of: {', '.join(options) or '(none exist)'}"
    return ElleError(f"unknown {kind} {name!r}", where=where, fix=fix)


def finite(value: float | str, what: str, where: str, fix: str) -> float:
    """`value` as a finite number of 0 or more, else an ElleError: it is not a `what`. (NaN would pass every limit:
    no comparison holds of it.)"""
    with contextlib.suppress(ValueError, TypeError):
        if 0 <= float(value) < float("inf"):
            return float(value)
    raise ElleError(f"{value!r} is not a {what}", where=where, fix=fix)
