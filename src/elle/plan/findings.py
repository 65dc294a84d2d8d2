"""Findings: what to know of a recipe before paying. Their words and severities are in `configs/findings.yaml`."""

from dataclasses import dataclass
from typing import Any, Literal

from elle.base.yaml_files import config_table


@dataclass(frozen=True)
class Finding:
    """One thing to know before paying. `error`: it cannot run so; `warning`: it runs otherwise than it looks; `info`:
    it makes no difference."""

    code: str
    severity: Literal["error", "warning", "info"]
    where: str
    message: str
    fix: str = ""


def finding(name: str, where: str = "", /, *, severity: str = "", **values: Any) -> Finding:
    """The finding called `name` (CODE or CODE/VARIANT) with `values` filled in; where, severity: if not the table's."""
    entry = config_table("findings")[name]
    message, fix = (entry.get(part, "").format(**values) for part in ("message", "fix"))
    code = name.partition("/")[0]
    return Finding(code, severity or entry["severity"], where or entry.get("where", ""), message, fix)


def value_text(value: Any) -> str:
    """A value as a message may hold it: short, whatever it is."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # a number of thousands of digits, a nesting without end
        text = f"a {type(value).__name__}"
    return text if len(text) <= 60 else text[:57] + "..."
