"""Blobs: immutable bytes under their sha256. A path is built from a digest, never from a name.

A blob becomes visible in one step (link after fsync), whole and verified, or not at all; a part that was uploaded
before the connection broke can be continued.
"""

import errno
import fcntl
import hashlib
import hmac
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from registry.errors import Conflict, DigestMismatch, NotFound, RangeRefused, StorageDamaged, StorageFull, TooLarge
from registry.names import check_hex
from registry.storage.files import sync_directory, write_all

CHUNK_BYTES = 1024 * 1024
_PUT_ATTEMPTS, _PUT_WAIT_SECONDS = 100, 0.02


class LocalBlobs:
    """Blobs in a directory of the local file system."""

    def __init__(self, root: Path, *, largest_bytes: int = 8 * 1024**3) -> None:
        self._root = root / "sha256"
        self._parts = root / "parts"
        self._largest = largest_bytes
        for folder in (self._root, self._parts):
            folder.mkdir(parents=True, exist_ok=True)

    def path(self, sha256: str) -> Path:
        """Where the blob lies, present or not."""
        return self._root / check_hex(sha256)[:2] / sha256

    def has(self, sha256: str) -> bool:
        return self.path(sha256).is_file()

    def size(self, sha256: str) -> int:
        try:
            return self.path(sha256).stat().st_size
        except FileNotFoundError:
            raise NotFound(f"blob sha256:{sha256} is not stored") from None

    def open(self, sha256: str) -> BinaryIO:
        try:
            return self.path(sha256).open("rb")
        except FileNotFoundError:
            raise NotFound(f"blob sha256:{sha256} is not stored") from None

    def read(self, sha256: str, *, most_bytes: int = 64 * 1024**2) -> bytes:
        """The whole blob, its digest checked again; for small ones."""
        with self.open(sha256) as file:
            data = file.read(most_bytes + 1)
        if len(data) > most_bytes:
            raise TooLarge(f"blob sha256:{sha256} has more than the {most_bytes} bytes that may be read at once")
        if hashlib.sha256(data).hexdigest() != sha256:
            raise StorageDamaged(f"blob sha256:{sha256} has rotted on disk; restore it from a backup")
        return data

    def put(self, data: bytes) -> str:
        """Store bytes made here; returns their sha256. Whoever stores the same bytes at the same time is waited for."""
        sha256 = hashlib.sha256(data).hexdigest()
        for attempt in range(_PUT_ATTEMPTS):
            if self.has(sha256):
                break
            try:
                upload = self.upload(sha256, total=len(data), offset=0)
            except Conflict:
                if attempt == _PUT_ATTEMPTS - 1:
                    raise
                time.sleep(_PUT_WAIT_SECONDS)
                continue
            upload.write(data)
            upload.finish()
        return sha256

    def stored_part(self, sha256: str) -> int:
        """How many bytes of an unfinished upload are kept."""
        try:
            return self._part(sha256).stat().st_size
        except FileNotFoundError:
            return 0

    def upload(self, sha256: str, *, total: int | None, offset: int) -> "Upload":
        """Begin an upload, or continue one at `offset`, which must be where the kept part ends.

        Raises RangeRefused for any other offset and TooLarge for a declared size over the limit.
        """
        if total is not None and total > self._largest:
            raise TooLarge(f"{total} bytes are over the limit of {self._largest} for one blob")
        kept = self.stored_part(sha256)
        if offset and offset != kept:
            raise RangeRefused(f"the upload must continue at byte {kept}, not at {offset}", kept)
        target = self.path(sha256)
        target.parent.mkdir(exist_ok=True)
        return Upload(self._part(sha256), target, sha256, total=total, offset=offset, largest=self._largest)

    def _part(self, sha256: str) -> Path:
        return self._parts / check_hex(sha256)


class Upload:
    """One blob on its way: write chunks, then `finish` (verify and publish), `pause` (keep the part) or `abort`."""

    def __init__(self, part: Path, target: Path, sha256: str, *, total: int | None, offset: int, largest: int) -> None:
        self._part, self._target, self._sha256 = part, target, sha256
        self._total, self._largest, self._size = total, largest, offset
        self._hash = hashlib.sha256()
        self._fd = os.open(part, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        try:
            # Two writers on one part would publish a mixture that neither of them hashed.
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._fd)
            raise Conflict(f"blob sha256:{sha256} is being uploaded by someone else; ask again in a moment") from None
        if not _is_at(part, self._fd):
            # Published or given up between open and lock: writing now would change what others already read.
            os.close(self._fd)
            raise Conflict(f"blob sha256:{sha256} was just uploaded by someone else; ask again in a moment")
        self._open = True
        os.ftruncate(self._fd, offset)
        if offset:
            for chunk in _chunks(self._fd, offset):
                self._hash.update(chunk)
            os.lseek(self._fd, offset, os.SEEK_SET)

    @property
    def size(self) -> int:
        return self._size

    def write(self, chunk: bytes) -> None:
        """Append to the part; raises TooLarge past the declared size or the limit, StorageFull on a full disk."""
        self._size += len(chunk)
        most = self._largest if self._total is None else min(self._total, self._largest)
        if self._size > most:
            self.abort()
            raise TooLarge(f"more than the announced {most} bytes arrived; nothing was kept")
        self._hash.update(chunk)
        self._guarded(lambda: write_all(self._fd, chunk))

    def finish(self) -> None:
        """Publish the blob; raises DigestMismatch, keeping nothing, if it is not what was announced."""
        if self._total is not None and self._size != self._total:
            self.abort()
            raise DigestMismatch(f"{self._size} bytes arrived, {self._total} were announced; nothing was kept")
        found = self._hash.hexdigest()
        if not hmac.compare_digest(found, self._sha256):
            self.abort()
            raise DigestMismatch(f"the bytes hash to sha256:{found}, not to the announced sha256:{self._sha256}")
        self._guarded(lambda: os.fsync(self._fd))
        os.fchmod(self._fd, 0o440)
        os.replace(self._part, self._target)
        self.pause()
        for folder in (self._target.parent, self._target.parent.parent):
            sync_directory(folder)

    def pause(self) -> None:
        """Keep what arrived so that the upload can be continued; nothing to do after `finish` or `abort`."""
        if self._open:
            self._open = False
            os.close(self._fd)

    def abort(self) -> None:
        """Keep nothing."""
        if self._open:
            self._part.unlink(missing_ok=True)
            self.pause()

    def _guarded(self, write: Callable[[], None]) -> None:
        try:
            write()
        except OSError as error:
            self.abort()
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise StorageFull("no space left for blobs; free some and try again") from None
            raise StorageDamaged(f"the blob could not be written: {error.strerror}") from None


def _is_at(path: Path, fd: int) -> bool:
    """Whether the open file is still the one that the path names."""
    try:
        return os.path.samestat(path.stat(follow_symlinks=False), os.fstat(fd))
    except FileNotFoundError:
        return False


def _chunks(fd: int, size: int) -> Iterator[bytes]:
    position = 0
    while position < size and (chunk := os.pread(fd, min(CHUNK_BYTES, size - position), position)):
        position += len(chunk)
        yield chunk
