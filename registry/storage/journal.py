"""The journal: an append-only, hash-chained log, the one thing that must never be lost.

One entry is one line: the chain hash, a space, the entry's canonical JSON. `append` returns only when the bytes are
on disk. A crash in the middle of an append leaves a torn tail that was never acknowledged; it is set aside at the next
start. Anything else that does not hash is damage, and refused.
"""

import fcntl
import logging
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

import msgspec

from registry.errors import StorageDamaged, StorageFull
from registry.events import GENESIS, Entry, chain_hash, decode_entry, encode_entry
from registry.storage.files import sync_directory, write_all

_HASH_LENGTH = 64
# Entries from one remembered place in the file to the next: what a read has to skip at most.
_STRIDE = 1024
_NO_SPACE = (28, 122)  # ENOSPC, EDQUOT

_log = logging.getLogger("tunegate")


class Head(NamedTuple):
    """The last entry: its number and chain hash; (0, GENESIS) where there is none."""

    seq: int
    hash: str


class Line(NamedTuple):
    """One entry with the hash and bytes that it is stored under."""

    hash: str
    body: bytes
    entry: Entry


def line_of(entry: Entry) -> Line:
    """What an entry is stored as, with the entry as it will be read: one that cannot be would close the journal."""
    body = encode_entry(entry)
    return Line(chain_hash(body), body, decode_entry(body))


class Journal(Protocol):
    """Where entries live. One process appends at a time; any number may read."""

    @property
    def head(self) -> Head:
        """The last durable entry."""
        ...

    def append(self, lines: Sequence[Line]) -> Head:
        """Store the lines, each from `line_of`, all or none, and return when they are durable.

        The first must follow `head`; otherwise nothing is stored and StorageDamaged is raised. StorageFull: nothing
        was stored and a later append may succeed. After any other error nothing more may be appended: what is on disk
        is unknown until the journal is opened again.
        """
        ...

    def read(self, after: int = 0) -> Iterator[Line]:
        """The entries with a number above `after`, in order."""
        ...

    def close(self) -> None: ...


def _written(head: Head, lines: Sequence[Line]) -> tuple[list[bytes], Head]:
    """The bytes to write and the head they lead to; raises StorageDamaged if they do not follow `head`."""
    written = []
    for line in lines:
        if line.entry.seq != head.seq + 1 or line.entry.prev != head.hash:
            raise StorageDamaged(f"entry {line.entry.seq} does not follow entry {head.seq}; open the journal again")
        head = Head(line.entry.seq, line.hash)
        written.append(line.hash.encode() + b" " + line.body + b"\n")
    return written, head


class MemoryJournal:
    """A journal that lives as long as the process: for tests and for trying things out."""

    def __init__(self) -> None:
        self._lines: list[bytes] = []
        self._head = Head(0, GENESIS)

    @property
    def head(self) -> Head:
        return self._head

    def append(self, lines: Sequence[Line]) -> Head:
        written, head = _written(self._head, lines)
        self._lines.extend(written)
        self._head = head
        return head

    def read(self, after: int = 0) -> Iterator[Line]:
        for line in self._lines[after:]:
            yield _parse(line)

    def close(self) -> None:
        pass


class FileJournal:
    """A journal in one file, held by one process through a lock on it.

    A tail without a line end was never acknowledged: it is set aside. accept_loss: so is a last line that has one.
    Raises StorageDamaged if another process holds it or a whole line does not verify.
    """

    def __init__(self, path: Path, *, accept_loss: bool = False) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        created = not path.exists()
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._fd)
            raise StorageDamaged(
                f"{path} is in use by another tunegate process; stop it, or give this one another TUNEGATE_HOME"
            ) from None
        self._broken = False
        # Where entries 1, 1 + _STRIDE, 1 + 2 * _STRIDE, … begin.
        self._places: list[int] = []
        try:
            if created:
                os.fsync(self._fd)
                sync_directory(path.parent)
            self._head, self._size = self._recover(accept_loss)
        except BaseException:
            os.close(self._fd)
            raise

    @property
    def head(self) -> Head:
        return self._head

    def append(self, lines: Sequence[Line]) -> Head:
        if self._broken:
            raise StorageDamaged("an earlier write to the journal failed; restart the service")
        written, head = _written(self._head, lines)
        data = b"".join(written)
        try:
            write_all(self._fd, data)
            os.fdatasync(self._fd)
        except OSError as error:
            # After a failed fsync the kernel may have dropped the pages: only a fresh look at the file can tell.
            self._broken = True
            if error.errno in _NO_SPACE and self._roll_back():
                self._broken = False
                raise StorageFull("no space left for the journal; free some and try again") from None
            raise StorageDamaged(f"the journal could not be written: {error.strerror}; restart the service") from None
        place = self._size
        for seq, one in enumerate(written, start=self._head.seq + 1):
            self._remember(seq, place)
            place += len(one)
        self._head, self._size = head, place
        return head

    def read(self, after: int = 0) -> Iterator[Line]:
        end, places = self._size, self._places
        block, skipped = divmod(after, _STRIDE)
        if block >= len(places):
            return
        left = end - places[block]
        with self._path.open("rb") as file:
            file.seek(places[block])
            for raw in file:
                left -= len(raw)
                if left < 0:
                    return
                if skipped:
                    skipped -= 1
                else:
                    yield _parse(raw)

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _roll_back(self) -> bool:
        """Cut off what a failed append left; False if even that fails."""
        try:
            os.ftruncate(self._fd, self._size)
            os.fdatasync(self._fd)
        except OSError:
            return False
        return True

    def _recover(self, accept_loss: bool) -> tuple[Head, int]:
        """Verify the whole chain; set a torn tail aside."""
        head, size, torn = Head(0, GENESIS), 0, None
        with self._path.open("rb") as file:
            for raw in file:
                following = _follow(head, raw)
                if following is None:
                    if raw.endswith(b"\n") and not accept_loss:
                        raise StorageDamaged(
                            f"{self._path}: the entry after number {head.seq} does not verify; restore the journal "
                            "from a backup, or cut off what follows with `tunegate rebuild --accept-loss`"
                        )
                    torn = torn if torn is not None else size
                elif torn is not None:
                    raise StorageDamaged(
                        f"{self._path}: the entry after number {head.seq} does not verify, but later ones do; "
                        "restore the journal from a backup"
                    )
                else:
                    head = following
                    self._remember(head.seq, size)
                size += len(raw)
            if torn is not None:
                file.seek(torn)
                self._set_aside(file.read(), torn)
                size = torn
        return head, size

    def _remember(self, seq: int, place: int) -> None:
        if seq % _STRIDE == 1:
            self._places.append(place)

    def _set_aside(self, tail: bytes, offset: int) -> None:
        aside = self._path.with_name(f"{self._path.name}.torn-at-{offset}")
        aside.write_bytes(tail)
        _log.warning("%s: %d bytes that are no whole, verified entry are now in %s", self._path, len(tail), aside)
        os.ftruncate(self._fd, offset)
        os.fsync(self._fd)


def read_chain(path: Path) -> Iterator[Line]:
    """The entries of a journal file, each checked before it is given; touches nothing, also beside a running service.

    Raises StorageDamaged at the first entry that does not verify. A torn tail, which has no line end, is no damage.
    """
    head = Head(0, GENESIS)
    with path.open("rb") as file:
        for raw in file:
            if not raw.endswith(b"\n"):
                return
            if not _is_whole(raw):
                raise StorageDamaged(f"the entry after number {head.seq} does not verify")
            line = _decoded(raw)
            if line.entry.seq != head.seq + 1 or line.entry.prev != head.hash:
                raise StorageDamaged(f"journal entry {line.entry.seq} does not continue entry {head.seq}")
            head = Head(line.entry.seq, line.hash)
            yield line


def verify_chain(path: Path) -> Head:
    """The head that a journal file leads to, as `read_chain` checks it."""
    head = Head(0, GENESIS)
    for line in read_chain(path):
        head = Head(line.entry.seq, line.hash)
    return head


def _follow(head: Head, raw: bytes) -> Head | None:
    """The head after this line, or None if it is not a whole line that continues the chain.

    Lines after a torn one cannot name it as their predecessor, so "later ones verify" means that their own hash holds.
    """
    if not _is_whole(raw):
        return None
    line = _decoded(raw)
    if line.entry.seq == head.seq + 1 and line.entry.prev == head.hash:
        return Head(line.entry.seq, line.hash)
    raise StorageDamaged(f"journal entry {line.entry.seq} does not continue entry {head.seq}; restore a backup")


def _is_whole(raw: bytes) -> bool:
    """Whether a line is complete and hashes to the name in front of it."""
    name, space, body = raw[:_HASH_LENGTH], raw[_HASH_LENGTH : _HASH_LENGTH + 1], raw[_HASH_LENGTH + 1 : -1]
    return raw.endswith(b"\n") and space == b" " and chain_hash(body).encode() == name


def _parse(raw: bytes) -> Line:
    if not _is_whole(raw):
        raise StorageDamaged("a journal line does not hash to its own name; restore the journal from a backup")
    return _decoded(raw)


def _decoded(raw: bytes) -> Line:
    """A line that is known to be whole."""
    body = raw[_HASH_LENGTH + 1 : -1]
    try:
        return Line(raw[:_HASH_LENGTH].decode(), body, decode_entry(body))
    except msgspec.DecodeError as error:
        raise StorageDamaged(
            f"a journal entry verifies but cannot be read: {error}; a newer tunegate wrote it, so use that version"
        ) from None
