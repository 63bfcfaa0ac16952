"""One blob on its way to the disk: hashed while it is written, visible when its last byte is verified and durable.

What arrived before a connection broke is a part, which can be continued; what nobody continues is deleted after a time.
"""

import contextlib
import fcntl
import hashlib
import hmac
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from registry.errors import Conflict, DigestMismatch, TooLarge
from registry.storage.files import guarded, start_writeback, sync_directory, write_all

_CHUNK_BYTES = 1024 * 1024
# Written back while more arrives, so that the fsync at the end has little left to do.
_WRITEBACK_BYTES = 16 * 1024 * 1024
_REMEMBERED_PARTS = 1000


class _Paused:
    """How far paused parts were hashed, by what identifies an unchanged file.

    Otherwise each small piece of a large upload would cost a hash of all before it. A restart forgets it.
    """

    def __init__(self) -> None:
        self._hashes: dict[tuple[int, ...], hashlib._Hash] = {}
        self._lock = threading.Lock()

    def put(self, fd: int, digest: "hashlib._Hash") -> None:
        with self._lock:
            if len(self._hashes) >= _REMEMBERED_PARTS:
                self._hashes.pop(next(iter(self._hashes)))
            self._hashes[_identity(fd)] = digest

    def take(self, fd: int) -> "hashlib._Hash | None":
        with self._lock:
            return self._hashes.pop(_identity(fd), None)


_paused = _Paused()


class Upload:
    """Write chunks, then `finish` (verify and publish), `pause` (keep the part) or `abort`. Thread-safe."""

    def __init__(
        self,
        part: Path,
        target: Path,
        sha256: str,
        *,
        total: int | None,
        offset: int,
        largest: int,
        require_room: Callable[[int], None] = lambda _: None,
    ) -> None:
        self._part, self._target, self._sha256 = part, target, sha256
        self._total, self._largest, self._size = total, largest, offset
        self._require_room = require_room
        self._hash = hashlib.sha256()
        self._written_back = offset
        # The file is not closed under a thread that still writes to it.
        self._busy = threading.RLock()
        self._fd = _lock_part(part, sha256)
        self._open = True
        try:
            known = _paused.take(self._fd) if os.fstat(self._fd).st_size == offset else None
            os.ftruncate(self._fd, offset)
            if known is not None:
                self._hash = known
            else:
                for chunk in _chunks(self._fd, offset):
                    self._hash.update(chunk)
            os.lseek(self._fd, offset, os.SEEK_SET)
        except BaseException:
            self._close()
            raise

    @property
    def size(self) -> int:
        return self._size

    @property
    def is_open(self) -> bool:
        """Whether more may be written: neither finished nor paused nor aborted."""
        return self._open

    def write(self, *chunks: bytes) -> None:
        """Append to the part; raises TooLarge past the declared size or the limit, StorageFull on a full disk."""
        with self._busy, self._keeping_nothing("the blob could not be written"):
            self._require_open()
            added = sum(map(len, chunks))
            most = self._largest if self._total is None else min(self._total, self._largest)
            if self._size + added > most:
                raise TooLarge(f"more than the announced or allowed {most} bytes arrived; nothing was kept")
            self._require_room(added)
            self._size += added
            for chunk in chunks:
                self._hash.update(chunk)
                write_all(self._fd, chunk)
            if self._size - self._written_back >= _WRITEBACK_BYTES:
                start_writeback(self._fd, self._written_back, self._size - self._written_back)
                self._written_back = self._size

    def finish(self) -> None:
        """Publish the blob; raises DigestMismatch, keeping nothing, if it is not what was announced."""
        with self._busy, self._keeping_nothing("the blob could not be stored"):
            self._require_open()
            if self._total is not None and self._size != self._total:
                raise DigestMismatch(f"{self._size} bytes arrived, {self._total} were announced; nothing was kept")
            found = self._hash.hexdigest()
            if not hmac.compare_digest(found, self._sha256):
                raise DigestMismatch(f"the bytes hash to sha256:{found}, not to the announced sha256:{self._sha256}")
            os.fchmod(self._fd, 0o440)
            os.fsync(self._fd)
            os.replace(self._part, self._target)
            try:
                for folder in (self._target.parent, self._target.parent.parent):
                    sync_directory(folder)
            except BaseException:
                # Whoever asks again must not be told that it is stored: its name may not outlive a power cut.
                self._target.unlink(missing_ok=True)
                raise
            self._close()

    def pause(self) -> None:
        """Keep what arrived so that the upload can be continued; nothing to do after `finish` or `abort`."""
        with self._busy:
            if not self._size:
                self.abort()
            elif self._open:
                _paused.put(self._fd, self._hash)
                self._close()

    def abort(self) -> None:
        """Keep nothing."""
        with self._busy:
            if self._open:
                self._part.unlink(missing_ok=True)
                self._close()

    def _close(self) -> None:
        if self._open:
            self._open = False
            os.close(self._fd)

    def _require_open(self) -> None:
        # The number of a closed file may be another file's by now.
        if not self._open:
            raise Conflict("this upload has ended; begin or continue it with a new request")

    @contextlib.contextmanager
    def _keeping_nothing(self, what: str) -> Iterator[None]:
        """After any failure nothing is kept: a part that could not be written whole must not be continued."""
        try:
            with guarded(what):
                yield
        except BaseException:
            self.abort()
            raise


def drop_parts(paths: Iterable[Path], *, before: float) -> int:
    """Delete parts that were last written before a time (seconds since the epoch), unless one is being written."""
    dropped = 0
    for path in paths:
        with contextlib.suppress(OSError, Conflict):
            fd = _lock_part(path, path.name[:64], create=False)
            try:
                if os.fstat(fd).st_mtime < before:
                    path.unlink()
                    dropped += 1
            finally:
                os.close(fd)
    return dropped


def _lock_part(part: Path, sha256: str, *, create: bool = True) -> int:
    """The part, open and locked: two writers on one part would publish a mixture that neither of them hashed."""
    flags = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        fd = os.open(part, flags | (os.O_CREAT | os.O_EXCL if create else 0), 0o600)
    except FileExistsError:
        try:
            fd = os.open(part, flags)
        except FileNotFoundError:
            raise _just_uploaded(sha256) from None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        raise Conflict(f"blob sha256:{sha256} is being uploaded by someone else; ask again in a moment") from None
    if not _is_at(part, fd):
        # Published or given up between open and lock: writing now would change what others already read.
        os.close(fd)
        raise _just_uploaded(sha256)
    return fd


def _just_uploaded(sha256: str) -> Conflict:
    return Conflict(f"blob sha256:{sha256} was just uploaded by someone else; ask again in a moment")


def _is_at(path: Path, fd: int) -> bool:
    """Whether the open file is still the one that the path names."""
    try:
        return os.path.samestat(path.stat(follow_symlinks=False), os.fstat(fd))
    except FileNotFoundError:
        return False


def _identity(fd: int) -> tuple[int, ...]:
    stat = os.fstat(fd)
    return stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns


def _chunks(fd: int, size: int) -> Iterator[bytes]:
    position = 0
    while position < size and (chunk := os.pread(fd, min(_CHUNK_BYTES, size - position), position)):
        position += len(chunk)
        yield chunk
