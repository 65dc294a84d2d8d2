"""Trying again what may pass: with growing waits, out of step with everyone else, and as long as a server asks for."""

import random
import time
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from elle.base.errors import ElleError

#: Seconds before the first new try; it doubles from try to try, give or take a half. The longest wait that is waited.
FIRST_WAIT, LONGEST_WAIT = 1.0, 300.0

Say = Callable[[str], None]


class Again(Exception):
    """A failure that may pass: `reason` in words, and `wait`, the seconds that the server asks for (0: none)."""

    def __init__(self, reason: str, wait: float = 0.0):
        super().__init__(reason)
        self.reason, self.wait = reason, wait


def patiently[T](
    attempt: Callable[[], T],
    *,
    read: Callable[[Exception], Again | ElleError],
    retries: int,
    who: str,
    what: str,
    where: str,
    fix: str,
    say: Say | None = None,
) -> T:
    """The result of `attempt()`, tried again after each failure that may pass, at most `retries` times.

    Args:
        read: what an exception means. who: the server, in a sentence. what, where, fix: the failure, if it stays.

    Raises:
        ElleError: what `read` gave, or the failure stayed, or the server asks for a longer wait than LONGEST_WAIT.
    """
    for number in range(retries + 1):
        try:
            return attempt()
        except Exception as error:
            failure = read(error)
        if isinstance(failure, ElleError):
            raise failure  # outside `except`: the library's error may quote the server, and that a secret
        wait = max(failure.wait, FIRST_WAIT * 2**number * random.uniform(0.5, 1.5))
        if number == retries or wait > LONGEST_WAIT:
            asks = f"; it asks for a wait of {failure.wait:.0f} s" if failure.wait > LONGEST_WAIT else ""
            tries = "1 try" if number == 0 else f"{number + 1} tries"
            raise ElleError(f"{what}: {failure.reason}, {tries}{asks}", where=where, fix=fix)
        if say:
            say(f"{who}: {failure.reason}; again in {wait:.1f} s ({number + 1} of {retries})")
        time.sleep(wait)
    raise AssertionError("unreachable")


def seconds(retry_after: str) -> float:
    """The wait that a `Retry-After` header asks for, in seconds or up to a date (RFC 9110, 10.2.3); 0: none."""
    if retry_after.strip().isdecimal():
        return float(retry_after)
    try:
        until = parsedate_to_datetime(retry_after)
    except ValueError:
        return 0.0
    return max(0.0, (until.replace(tzinfo=until.tzinfo or UTC) - datetime.now(UTC)).total_seconds())
