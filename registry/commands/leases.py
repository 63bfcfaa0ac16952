"""Which worker holds which job until when. In memory: after a restart every lease starts anew.

Safety does not rest on time: each claim raises the job's fencing token in the journal, and what comes with an older
one is refused.
"""

import threading
from collections.abc import Callable


class Leases:
    """Deadlines by job id. The lock is for what workers tell of runs, which does not pass through the writer."""

    def __init__(self, seconds: float, monotonic: Callable[[], float]) -> None:
        self.seconds = seconds
        self._monotonic = monotonic
        self._started = monotonic()
        self._deadlines: dict[str, float] = {}
        self._lock = threading.Lock()

    def grant(self, job: str) -> None:
        with self._lock:
            self._deadlines[job] = self._monotonic() + self.seconds

    def expired(self, job: str) -> bool:
        """Whether the holder has been silent too long; one unknown from before a restart gets a whole lease."""
        with self._lock:
            return self._monotonic() >= self._deadlines.get(job, self._started + self.seconds)
