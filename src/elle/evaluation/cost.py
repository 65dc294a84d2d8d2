"""What a briefing costs: tokens, seconds and dollars, from what the outputs' file says of each request."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from elle.base.errors import ElleError
from elle.evaluation.statistics import Interval, bootstrap

DEFINITIONS = {
    "prompt_tokens": "tokens in, a request, as the server counted them",
    "completion_tokens": "tokens out, a request, as the server counted them",
    "seconds": "seconds from sending a request to the last byte of its answer, waiting included",
    "dollars": "tokens in and out, each times its price",
}
FIELDS = ("prompt_tokens", "completion_tokens", "seconds")


@dataclass(frozen=True)
class Price:
    """Dollars for a million tokens."""

    tokens_in: float
    tokens_out: float

    def __post_init__(self):
        if not (0 <= self.tokens_in < float("inf") and 0 <= self.tokens_out < float("inf")):
            raise ElleError(
                f"a price must be dollars for a million tokens, not {self.tokens_in} and {self.tokens_out}",
                where="price",
                fix="give two numbers, 0 or more",
            )


def per_hour(dollars: float, seconds: float, briefings: int) -> float:
    """Dollars a briefing on a machine of `dollars` an hour that made `briefings` in `seconds` of wall-clock time.

    Raises:
        ValueError: no briefings, or a negative price or time.
    """
    if briefings < 1 or not (dollars >= 0 and seconds >= 0):
        raise ValueError(f"need a price, a time and briefings, not {dollars}, {seconds} and {briefings}")
    return dollars * seconds / 3600 / briefings


def summary(
    lines: Iterable[Mapping[str, Any]], price: Price | None = None, *, seed: int = 0
) -> dict[str, Interval | None]:
    """The mean of each of `DEFINITIONS` a request, with a 95 % bootstrap interval over requests; None where no line
    says it, and for dollars where there is no price.

    lines: of the outputs' file. A request that brought no output (an error) is left out; so is, from one figure, a line
    that does not say it or says what is no number of 0 or more.
    """
    rows = [line for line in lines if line.get("output") is not None]
    columns = {name: [value for row in rows if (value := _number(row, name)) is not None] for name in FIELDS}
    columns["dollars"] = [
        (price.tokens_in * tokens_in + price.tokens_out * tokens_out) / 1e6
        for row in (rows if price else ())
        if (tokens_in := _number(row, FIELDS[0])) is not None and (tokens_out := _number(row, FIELDS[1])) is not None
    ]
    return {name: _mean(values, seed) for name, values in columns.items()}


def _number(row: Mapping[str, Any], name: str) -> float | None:
    value = row.get(name)
    good = (
        isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1e18
    )  # a larger one is no measurement
    return float(value) if good else None


def _mean(values: list[float], seed: int) -> Interval | None:
    if not values:
        return None
    array = np.array(values)
    return bootstrap(len(array), lambda rows: float(array[rows].mean()), np.random.default_rng(seed))
