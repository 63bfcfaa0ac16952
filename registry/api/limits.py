"""Rate limits: token buckets that count what strangers and mistakes may cost, not what a good token reads.

A bucket holds `burst` permits and regains `per_second`. Each rate keeps at most ten thousand buckets, the one that was
used longest ago given up first, so that no one can fill the memory by coming from many addresses.
"""

import math
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import NamedTuple

from registry import settings
from registry.errors import TooManyRequests

_MOST_BUCKETS = 10_000
_BURST_SECONDS = 10.0


class Rate(NamedTuple):
    """`burst` at once, then `per_second` on average; both above 0."""

    burst: float
    per_second: float


class Rates(NamedTuple):
    """The rates of this service. `requests` counts every request of one token; None does not count them."""

    failures: Rate = Rate(100, 1.0)  # tokens and sign-ins of one address that were refused
    mints: Rate = Rate(60, 1.0)  # exchanges of CI tokens by one address, whatever comes of them
    creations: Rate = Rate(200, 1.0)  # tokens made by one token
    requests: Rate | None = None


class Buckets:
    """One rate over any number of keys. Used by the event loop's thread only."""

    def __init__(self, rate: Rate, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate, self._clock = rate, clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, key: str, what: str) -> None:
        """Take one permit; TooManyRequests, which takes none, says when there is one again. `what` is for people."""
        now = self._clock()
        permits, since = self._buckets.get(key, (self._rate.burst, now))
        permits = min(self._rate.burst, permits + (now - since) * self._rate.per_second)
        if permits < 1:
            seconds = max(1, math.ceil((1 - permits) / self._rate.per_second))
            raise TooManyRequests(f"too many {what}; wait {seconds} s and go on slower", seconds)
        self._buckets[key] = (permits - 1, now)
        self._buckets.move_to_end(key)
        if len(self._buckets) > _MOST_BUCKETS:
            self._buckets.popitem(last=False)


def set_rates() -> Rates:
    """The rates of the settings: requests are counted only where TUNEGATE_RATE says how many there may be."""
    per_second = settings.request_rate()
    requests = Rate(max(1.0, _BURST_SECONDS * per_second), per_second) if per_second else None
    return Rates(requests=requests)
