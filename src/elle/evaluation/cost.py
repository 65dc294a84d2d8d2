"""What a briefing costs: tokens and seconds, from what the outputs' file says of each request, and dollars."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from elle.base.tables import aligned
from elle.evaluation.statistics import Estimate, mean

#: What the outputs' file says of a request (docs/evaluation.md).
FIELDS = ("prompt_tokens", "completion_tokens", "seconds")
#: A larger figure is not a measurement.
_LARGEST = 1e18


def per_hour(dollars: float, seconds: float, briefings: int) -> float:
    """Dollars per briefing on a machine of `dollars` per hour that made `briefings` in `seconds` of wall-clock time."""
    return dollars * seconds / 3600 / briefings


def request_means(lines: Iterable[Mapping[str, Any]]) -> dict[str, Estimate | None]:
    """The mean of each of `FIELDS` per request, with a 95 % bootstrap interval over requests; None where no line says
    it.

    lines: of the outputs' file. A request that brought no output (an error) is left out; so is, from one figure, a line
    that does not say it or says what is not a number of 0 or more.
    """
    rows = [line for line in lines if line.get("output") is not None]
    columns = {name: [float(row[name]) for row in rows if _measured(row.get(name))] for name in FIELDS}
    return {name: mean(values, np.random.default_rng(0)) if values else None for name, values in columns.items()}


def _measured(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < _LARGEST


def requests_text(means: Mapping[str, Estimate | None]) -> str:
    """What a request took (`request_means`), for people; empty where the outputs' file says nothing."""
    return aligned(
        [
            {
                "a request": name,
                "mean": f"{each.value:.4g}",
                "95 % interval": f"[{each.low:.4g}, {each.high:.4g}]",
                "n": f"{each.n:,}",
            }
            for name, each in means.items()
            if each is not None
        ]
    )
