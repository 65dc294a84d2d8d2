"""Why a training failed: what its log is searched for (`configs/diagnosis.yaml`), what that means, and what to do."""

import re

from pydantic import BaseModel

from elle.base.yaml_files import config_table

ENDING = "correct the cause and run this again: it continues from the last whole checkpoint"


class Case(BaseModel, frozen=True, extra="forbid"):
    """A known failure. killed: any end by SIGKILL is one, too, whatever the log says."""

    name: str
    patterns: list[re.Pattern[str]]
    means: str
    fix: str
    killed: bool = False


def cases() -> list[Case]:
    """All cases; causes stand before what they bring about."""
    return [Case(name=name, **entry) for name, entry in config_table("diagnosis").items()]


def diagnose(log: str, returncode: int | None = None) -> Case | None:
    """The case that a failed training's log (its text) and exit code speak of; None if it is not a known one.

    The last exception counts for more than what was only warned of before it.
    """
    known = cases()
    for text in (log[log.rfind("Traceback (most recent call last)") :], log):
        for case in known:
            if any(pattern.search(text) for pattern in case.patterns):
                return case
    return next((case for case in known if case.killed and returncode == -9), None)
