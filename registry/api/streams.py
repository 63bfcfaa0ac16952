"""How many streams of events are open: each holds a connection for minutes, so nobody may hold them all.

with streams.held("ada"):
    …  # send events
"""

import contextlib
from collections import Counter
from collections.abc import Iterator

from registry.errors import TooManyRequests

MOST_OF_ONE = 20  # of one person
MOST = 200  # of everyone; below the connections that the service takes
_RETRY_SECONDS = 5


class Streams:
    """Used by the event loop's thread only."""

    def __init__(self) -> None:
        self._open: Counter[str] = Counter()

    @contextlib.contextmanager
    def held(self, person: str) -> Iterator[None]:
        """A place for one stream of this person; TooManyRequests where there is none left."""
        if self._open[person] >= MOST_OF_ONE:
            self._refuse(f"{person!r} has {MOST_OF_ONE} streams of events open already, the most for one")
        if self._open.total() >= MOST:
            self._refuse(f"{MOST} streams of events are open already, the most that are served")
        self._open[person] += 1
        try:
            yield
        finally:
            self._open[person] -= 1
            if not self._open[person]:
                del self._open[person]

    def _refuse(self, why: str) -> None:
        hint = f"close some, ask for pages, or come again in {_RETRY_SECONDS} s"
        raise TooManyRequests(f"{why}; {hint}", _RETRY_SECONDS)
