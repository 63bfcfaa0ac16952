"""Blobs: immutable bytes under their sha256. A path is built from a digest, never from a name.

    sha256/ab/ab12…      whole and verified; becomes visible in one step (rename after fsync) or not at all
    parts/ab12…          on its way (see `uploads`)
    quarantine/ab12…     found with other bytes than its name says: kept for whoever looks into it, never handed out

A blob that rotted is not there any more; sending its bytes again heals it.
"""

import contextlib
import errno
import hashlib
import math
import os
import stat
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, TypeVar

from registry.errors import BlobDamaged, Conflict, NotFound, RangeRefused, StorageFull, TooLarge
from registry.names import check_hex, project_of, sha256_hex
from registry.settings import Limits
from registry.storage.files import guarded, sync_directory
from registry.storage.uploads import Upload, drop_parts

T = TypeVar("T")
CHUNK_BYTES = 1024 * 1024
_PUT_ATTEMPTS, _PUT_WAIT_SECONDS = 100, 0.02
_REMEMBERED_CHECKS, _REMEMBERED_FACTS = 100_000, 10_000
_UNREPORTED = ".new"


class StoredBlob(NamedTuple):
    """A file of the store: `modified` in seconds since the epoch."""

    sha256: str
    size: int
    modified: float


class _Arriving(NamedTuple):
    """An upload that goes on: of which blob, for which project (as `_short` has it), and how large it may become."""

    sha256: str
    project: str
    size: int


class LocalBlobs:
    """Blobs in a directory of the local file system."""

    def __init__(self, root: Path, *, limits: Limits | None = None) -> None:
        self._root, self._parts, self._quarantine = root / "sha256", root / "parts", root / "quarantine"
        self.limits = limits or Limits()
        for folder in (self._root, self._parts, self._quarantine):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._arriving: dict[object, _Arriving] = {}
        # Files found whole, by inode, size and time of change; the lock guards the forgetting.
        self._checked: dict[tuple[str, int, int, int], None] = {}
        self._checking = threading.Lock()
        self._facts: dict[tuple[str, str, int, int, int], Any] = {}

    # -- reading -----------------------------------------------------------------------------------------------

    def path(self, sha256: str) -> Path:
        """Where the blob lies, present or not."""
        return self._root / check_hex(sha256)[:2] / sha256

    def has(self, sha256: str) -> bool:
        # Asked four times by every submission, and a Path costs ten times the look at the disk.
        return _is_file(self._place(sha256))

    def _place(self, sha256: str) -> str:
        return f"{self._root}/{check_hex(sha256)[:2]}/{sha256}"

    def size(self, sha256: str) -> int:
        try:
            return os.stat(self._place(sha256), follow_symlinks=False).st_size
        except FileNotFoundError:
            raise self._absent(sha256) from None

    def open(self, sha256: str) -> BinaryIO:
        """The stored bytes, unchecked; raises NotFound, or BlobDamaged for one in quarantine."""
        place = self._place(sha256)
        with guarded("the blob could not be opened"):
            try:
                return os.fdopen(os.open(place, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb")
            except FileNotFoundError:
                raise self._absent(sha256) from None

    def read(self, sha256: str, *, most_bytes: int = 64 * 1024**2) -> bytes:
        """The whole blob, its digest checked again; for small ones."""
        with self.open(sha256) as file, self._reading(sha256):
            data = file.read(most_bytes + 1)
        if len(data) > most_bytes:
            raise TooLarge(f"blob sha256:{sha256} has more than the {most_bytes} bytes that may be read at once")
        if sha256_hex(data) != sha256:
            raise self.quarantine(sha256)
        return data

    def check(self, sha256: str, pace: Callable[[int], None] = lambda _: None) -> int:
        """Hash every stored byte; the size. `pace` is told of each chunk's size, so that it can slow this down.

        Raises BlobDamaged, the blob being in quarantine then, if they are not what its name says.
        """
        digest = hashlib.sha256()
        with self.open(sha256) as file, self._reading(sha256):
            while chunk := file.read(CHUNK_BYTES):
                digest.update(chunk)
                pace(len(chunk))
            identity, size = _identity(sha256, file), file.tell()
        if digest.hexdigest() != sha256:
            raise self.quarantine(sha256)
        with self._checking:
            if len(self._checked) >= _REMEMBERED_CHECKS:
                self._checked.clear()
            self._checked[identity] = None
        return size

    def read_through(self, sha256: str, file: BinaryIO) -> Iterator[bytes]:
        """The whole blob from its open file, chunk by chunk; the last one only once all of them hash to its name.

        Raises BlobDamaged in its place, so that a wrong blob is never handed out whole.
        """
        digest, held = hashlib.sha256(), b""
        with file, self._reading(sha256):
            while chunk := file.read(CHUNK_BYTES):
                digest.update(chunk)
                if held:
                    yield held
                held = chunk
        if digest.hexdigest() != sha256:
            raise self.quarantine(sha256)
        yield held

    def is_checked(self, sha256: str) -> bool:
        """Whether this process has checked the blob since its file was last changed."""
        with self.open(sha256) as file:
            return _identity(sha256, file) in self._checked

    def fact(self, sha256: str, file: BinaryIO, about: str, work: Callable[[], T]) -> T:
        """What follows from the bytes of an open blob and nothing else: worked out once, while its file is the same.

        about: which fact, as a file may be read as several things.
        """
        identity = (about, *_identity(sha256, file))
        try:
            found: T = self._facts[identity]
        except KeyError:
            found = work()
            if len(self._facts) >= _REMEMBERED_FACTS:
                self._facts.clear()
            self._facts[identity] = found
        return found

    def stored(self) -> Iterator[StoredBlob]:
        """Every blob that is there, in order of their digests."""
        for folder in sorted(self._root.iterdir()):
            for path in sorted(folder.iterdir()):
                # One that was quarantined or collected meanwhile is just not there.
                with contextlib.suppress(FileNotFoundError):
                    found = path.stat(follow_symlinks=False)
                    yield StoredBlob(path.name, found.st_size, found.st_mtime)

    # -- damage ------------------------------------------------------------------------------------------------

    def quarantine(self, sha256: str) -> BlobDamaged:
        """Take away a blob whose bytes are not its own; the error to raise. Nobody reads it from now on."""
        # Whoever found the same at the same time has moved it.
        with guarded("the damaged blob could not be moved"), contextlib.suppress(FileNotFoundError):
            os.replace(self.path(sha256), self._quarantine / (sha256 + _UNREPORTED))
            sync_directory(self._quarantine)
        return _damaged(sha256)

    @contextlib.contextmanager
    def _reading(self, sha256: str) -> Iterator[None]:
        """A sector that the disk cannot read has rotted like a flipped bit."""
        with guarded("the blob could not be read"):
            try:
                yield
            except OSError as error:
                if error.errno != errno.EIO:
                    raise
                raise self.quarantine(sha256) from None

    def quarantined(self) -> list[str]:
        """Blobs that rotted and were not sent again since."""
        names = {path.name.removesuffix(_UNREPORTED) for path in self._quarantine.iterdir()}
        return sorted(name for name in names if not self.has(name))

    def unreported(self) -> list[str]:
        """Quarantined blobs of which no journal entry tells yet."""
        return sorted(path.name.removesuffix(_UNREPORTED) for path in self._quarantine.glob(f"*{_UNREPORTED}"))

    def mark_reported(self, sha256: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.replace(self._quarantine / (sha256 + _UNREPORTED), self._quarantine / check_hex(sha256))

    def _absent(self, sha256: str) -> NotFound | BlobDamaged:
        if any((self._quarantine / (sha256 + end)).exists() for end in ("", _UNREPORTED)):
            return _damaged(sha256)
        return NotFound(f"blob sha256:{sha256} is not stored")

    # -- writing -----------------------------------------------------------------------------------------------

    def put(self, data: bytes) -> str:
        """Store bytes made here; returns their sha256. Whoever stores the same bytes at the same time is waited for."""
        sha256 = sha256_hex(data)
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

    def stored_part(self, sha256: str, owner: str | None = None) -> int:
        """How many bytes of an unfinished upload are kept."""
        try:
            return self._part(sha256, owner).stat(follow_symlinks=False).st_size
        except FileNotFoundError:
            return 0

    @contextlib.contextmanager
    def arriving(self, sha256: str, owner: str | None, total: int | None) -> Iterator[None]:
        """While this lasts, an upload counts as its whole size, or as the largest blob there may be if it says none."""
        key = object()
        if owner is not None:
            size = self.limits.blob_bytes if total is None else min(total, self.limits.blob_bytes)
            self._arriving[key] = _Arriving(check_hex(sha256), _short(project_of(owner)), size)
        try:
            yield
        finally:
            self._arriving.pop(key, None)

    def parts_of(self, project: str) -> dict[str, int]:
        """Bytes by blob of the uploads, going on or broken off, by owners of a project."""
        mark, found = _short(project), dict[str, int]()
        for one in list(self._arriving.values()):
            if one.project == mark:
                found[one.sha256] = max(one.size, found.get(one.sha256, 0))
        with os.scandir(self._parts) as parts:
            for part in parts:
                sha256, _, owner = part.name.partition(".")
                if owner.startswith(mark + "."):
                    with contextlib.suppress(FileNotFoundError):  # finished or given up at this moment
                        found[sha256] = max(part.stat(follow_symlinks=False).st_size, found.get(sha256, 0))
        return found

    def upload(
        self, sha256: str, *, total: int | None, offset: int, owner: str | None = None, most: int | None = None
    ) -> Upload:
        """Begin an upload, or continue one at `offset`, which must be where the kept part ends.

        owner: whose part it is, the scope of a token; parts of one blob by different owners have nothing in common.
        most: bytes that this blob may have, where that is less than the limit for any. Raises RangeRefused for any
        other offset, TooLarge for a declared size over the limit, StorageFull where too little space would be left.
        """
        largest = self.limits.blob_bytes if most is None else min(most, self.limits.blob_bytes)
        if total is not None and total > largest:
            left = ", which its project has left beside uploads that go on or broke off" if largest == most else ""
            raise TooLarge(f"{total} bytes are over the limit of {largest} for this blob{left}; nothing was kept")
        kept = self.stored_part(sha256, owner)
        if offset and offset != kept:
            raise RangeRefused(f"the upload must continue at byte {kept}, not at {offset}", kept)
        self._require_room((total or 0) - offset)
        target = self.path(sha256)
        with guarded("the blob could not be stored"):
            target.parent.mkdir(mode=0o700, exist_ok=True)
            return Upload(
                self._part(sha256, owner),
                target,
                sha256,
                total=total,
                offset=offset,
                largest=largest,
                require_room=self._require_room,
            )

    def drop_stale_parts(self, now: float) -> int:
        """Delete what was uploaded in part and not continued for the time that the limits give; how many parts."""
        return drop_parts(self._parts.iterdir(), before=now - self.limits.part_seconds)

    def discard(self, sha256: str) -> None:
        """Delete a blob that nothing names, with its damaged and partial copies; an upload that goes on is left alone.

        Only for whoever holds the journal, so that nothing can name it now: beside a service, for its writer's thread.
        """
        path, damaged = self.path(sha256), self._quarantine / sha256
        with guarded("the blob could not be deleted"):
            # In this order, which is the way that a copy takes when it is found damaged.
            for one in (path, damaged.with_name(sha256 + _UNREPORTED), damaged):
                if _is_file(one):
                    one.unlink(missing_ok=True)
                    sync_directory(one.parent)
        drop_parts(self._parts.glob(f"{sha256}*"), before=math.inf)

    def discard_healed(self) -> int:
        """Delete quarantined bytes of blobs that are whole again; how many."""
        healed = [path for path in self._quarantine.iterdir() if self.has(path.name.removesuffix(_UNREPORTED))]
        for path in healed:
            path.unlink(missing_ok=True)
        return len(healed)

    def _require_room(self, size: int) -> None:
        """Leave the journal its space: a disk that uploads filled would stop everything else too."""
        disk = os.statvfs(self._root)
        floor = self.limits.free_bytes
        if floor is None:
            floor = min(1024**3, disk.f_blocks * disk.f_frsize // 20)
        free = disk.f_bavail * disk.f_frsize
        if free - size < floor:
            raise StorageFull(
                f"{size} bytes more would leave less than {floor} of {free} free; free some space and try again"
            )

    def _part(self, sha256: str, owner: str | None) -> Path:
        name = check_hex(sha256)
        if owner is not None:
            name = f"{name}.{_short(project_of(owner))}.{_short(owner)}"
        return self._parts / name


def _short(name: str) -> str:
    """What stands for a name in the name of a file."""
    return sha256_hex(name.encode())[:16]


def _identity(sha256: str, file: BinaryIO) -> tuple[str, int, int, int]:
    found = os.fstat(file.fileno())
    return sha256, found.st_ino, found.st_size, found.st_mtime_ns


def _is_file(path: Path | str) -> bool:
    try:
        return stat.S_ISREG(os.stat(path, follow_symlinks=False).st_mode)
    except FileNotFoundError:
        return False


def _damaged(sha256: str) -> BlobDamaged:
    return BlobDamaged(
        f"blob sha256:{sha256} has rotted on disk and is in quarantine; "
        "send its bytes again or restore them from a backup"
    )
