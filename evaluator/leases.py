"""Leases of the jobs that a worker has claimed, held by heartbeats while the work goes on."""

import threading
from collections.abc import Sequence
from types import TracebackType

from registry.client import Client, Refused, Unreachable
from registry.records import Job


class LeaseLost(Exception):
    """Other workers have all of the jobs; whatever this one found is of no use any more."""


class Leases:
    """Heartbeats from a thread of their own. A job is held until it is over, or until another worker has it."""

    def __init__(self, client: Client, jobs: Sequence[Job]) -> None:
        self._client = client
        self._held = {job.id: job for job in jobs}
        self._lost: set[str] = set()
        self._pause = min(job.lease_seconds for job in jobs) / 3
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="tunegate-heartbeat", daemon=True)

    def __enter__(self) -> "Leases":
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join(timeout=5)

    def holds(self, job: Job) -> bool:
        return job.id in self._held

    def lost(self, job: Job) -> bool:
        return job.id in self._lost

    def check(self) -> None:
        """Raises LeaseLost if no job is held any more."""
        if not self._held:
            raise LeaseLost

    def release(self, job: Job) -> None:
        """The job is over: nothing is left to hold."""
        self._held.pop(job.id, None)

    def lose(self, job: Job) -> None:
        """The registry says that another worker has the job."""
        if self._held.pop(job.id, None) is not None:
            self._lost.add(job.id)

    def _beat(self) -> None:
        while not self._stop.wait(self._pause):
            for job in list(self._held.values()):
                try:
                    self._client.heartbeat(job)
                except Refused as error:
                    if error.status in (404, 409):
                        self.lose(job)
                except Unreachable:
                    pass  # the fence decides in the end
