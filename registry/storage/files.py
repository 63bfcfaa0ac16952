"""The few file operations that durability rests on."""

import contextlib
import ctypes
import errno
import os
from collections.abc import Iterator
from pathlib import Path

from registry.errors import StorageDamaged, StorageFull, Unavailable

# Python has no name for it; a system without it writes everything back at the fsync.
_sync_file_range = getattr(ctypes.CDLL(None), "sync_file_range", None)
_SYNC_FILE_RANGE_WRITE = 2


def write_all(fd: int, data: bytes) -> None:
    """Write every byte: one `write` may store fewer."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def start_writeback(fd: int, offset: int, size: int) -> None:
    """Ask the kernel to begin writing these bytes to the disk. A hint: only fsync makes anything durable."""
    if _sync_file_range is not None:
        _sync_file_range(fd, ctypes.c_int64(offset), ctypes.c_int64(size), _SYNC_FILE_RANGE_WRITE)


@contextlib.contextmanager
def guarded(what: str) -> Iterator[None]:
    """Failures of the file system as ours: StorageFull where space is short, StorageDamaged for any other.

    Too many open files are no damage: Unavailable, and well once some are closed.
    """
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StorageFull(f"{what}: no space left; free some and try again") from None
        if error.errno in (errno.EMFILE, errno.ENFILE):
            raise Unavailable(f"{what}: too many files are open; try again, or allow more (`ulimit -n`)") from None
        raise StorageDamaged(f"{what}: {error.strerror}; look at the disk that the home lies on") from None


def sync_directory(path: Path) -> None:
    """Make created, renamed and removed names in the directory durable."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def write_durably(path: Path, data: bytes, *, mode: int = 0o600) -> None:
    """Create or replace a small file in one step: a crash leaves the old content or the new, never a part."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.new")
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    try:
        write_all(fd, data)
        os.fsync(fd)
    finally:
        os.close(fd)
    os.replace(temporary, path)
    sync_directory(path.parent)
