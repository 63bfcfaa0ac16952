"""What follows from an attempt to deliver: done, again later, or given up. Pure: time and chance are arguments."""

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import NamedTuple

GONE = 410
_TEMPORARY = (408, 429)
_MOST_RETRY_AFTER_SECONDS = 3600.0


class Schedule(NamedTuple):
    """How long to wait after each failed attempt, in seconds, and when to lose patience.

    patient: failed attempts for which later messages of the same webhook wait behind this one, so that a receiver's
    restart changes no order; afterwards they pass it. refused: attempts at all where the receiver refuses, rather than
    fails: it may yet be put right, but seldom by itself.
    """

    waits: tuple[float, ...]
    patient: int
    refused: int


# About a minute in order, then for a day in ever longer steps.
STANDARD = Schedule(
    waits=(1, 2, 4, 8, 16, 32, 5 * 60, 30 * 60, 2 * 3600, 5 * 3600, 8 * 3600, 8 * 3600), patient=6, refused=5
)


class Attempt(NamedTuple):
    """What an attempt came to: the status of an answer, or why there was none."""

    status: int | None
    error: str | None = None
    retry_after: float | None = None


class Next(NamedTuple):
    """`wait_seconds` until the next attempt; None when there is none. `disable`: never send to this webhook again."""

    state: str
    wait_seconds: float | None = None
    disable: bool = False


def judge(attempt: Attempt, attempts: int, schedule: Schedule, chance: float) -> Next:
    """What to do after the last of so many attempts.

    chance: uniform in [0, 1), spreads waits by a quarter to either side so that many messages do not return at once.

    >>> judge(Attempt(204), 1, STANDARD, 0.5)
    Next(state='delivered', wait_seconds=None, disable=False)
    >>> judge(Attempt(503), 3, STANDARD, 0.5)
    Next(state='pending', wait_seconds=4.0, disable=False)
    """
    status = attempt.status
    if status is not None and 200 <= status < 300:
        return Next("delivered")
    if status == GONE:
        return Next("failed", disable=True)
    passing = status is None or status >= 500 or status in _TEMPORARY
    if attempts > len(schedule.waits) or (not passing and attempts >= schedule.refused):
        return Next("failed")
    wait = schedule.waits[attempts - 1] * (0.75 + chance / 2)
    return Next("pending", max(wait, min(attempt.retry_after or 0.0, _MOST_RETRY_AFTER_SECONDS)))


def retry_after_seconds(header: str | None, now: float) -> float | None:
    """The wait that a Retry-After header asks for, as seconds or as a date; None where it cannot be read.

    >>> retry_after_seconds("120", 0.0), retry_after_seconds("Thu, 01 Jan 1970 00:02:00 GMT", 60.0)
    (120.0, 60.0)
    """
    if header is None:
        return None
    if header.isascii() and header.isdigit():
        return float(header[:9])
    try:
        moment = parsedate_to_datetime(header)
    except (ValueError, OverflowError):
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max(0.0, (moment - datetime.fromtimestamp(now, UTC)).total_seconds())
