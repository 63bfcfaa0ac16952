"""Threads for what moves or reads many bytes, apart from the readers': no transfer may delay an answer.

Half of the threads at most read whole files: whoever asks for a hundred at once waits in line, and uploads go on.
"""

import asyncio
import ctypes
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from registry.api.door import Connection

T = TypeVar("T")
_THREADS = 8
# Of glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3


class Transfers:
    """The threads of one application."""

    def __init__(self) -> None:
        _keep_freed_memory()
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="tunegate-transfer")
        self._scanning = asyncio.Semaphore(_THREADS // 2)

    def start(self, work: Callable[[], T]) -> "asyncio.Future[T]":
        """Begin one piece of a transfer."""
        return asyncio.get_running_loop().run_in_executor(self._threads, work)

    async def scan(self, work: Callable[[], T]) -> T:
        """Run what reads a whole file, when it is its turn."""
        async with self._scanning:
            return await self.start(work)

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)


def transfers_of(connection: Connection) -> Transfers:
    transfers: Transfers = connection.app.state.transfers
    return transfers


def _keep_freed_memory() -> None:
    """Let the allocator keep up to 32 MiB that are free.

    The chunks of an upload come and go by the thousand; giving each one's pages back and faulting them in again took a
    fifth of the processor time of an upload. Elsewhere than on glibc this does nothing.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_TRIM_THRESHOLD, 32 * 1024**2)
        mallopt(_M_MMAP_THRESHOLD, 8 * 1024**2)
