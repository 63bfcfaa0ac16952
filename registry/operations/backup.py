"""A home's truth in another directory, taken while the service runs, and a home made from it.

    tunegate-backup      says what this directory is, from the first moment
    journal.log          the journal up to a whole entry that was durable when it was copied
    blobs/sha256/ab/…    every blob that those entries name
    keys/<sha256>        the files of the home's `keys` directory, each under the hash of its bytes
    manifest.json        written last: what of all this is a backup, and that it is whole

What a manifest names is never changed, only added to, so that the older backup stays whole until the newer one is. The
catalog is not in it: it is folded from the journal.
"""

import contextlib
import fcntl
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import msgspec
from msgspec import Struct

from registry.audit.references import References
from registry.errors import Conflict, DigestMismatch, InvalidRequest, StorageDamaged, Unavailable
from registry.events import GENESIS
from registry.names import sha256_hex
from registry.opening import rebuild
from registry.records import Count, Sha256
from registry.settings import Home, Limits
from registry.storage.blobs import CHUNK_BYTES, LocalBlobs
from registry.storage.files import sync_directory, write_durably
from registry.storage.journal import Head, read_chain

_MARK = "tunegate-backup"
_COPIERS, _BATCH = 4, 1000
# What is in a home was taken under its limits already, and a backup does not stop before the disk is full.
_NO_LIMITS = Limits(blob_bytes=2**62, free_bytes=0)

Report = Callable[[int, int], None]


class Manifest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a backup is: the first `journal_bytes` of its journal, which lead to `seq` and `hash`, and all they name.

    keys: sha256 of each file by its name; empty if they were left out. absent: blobs that are named, but need not be
    there (see `registry.audit.references`). lost: blobs that must be there, and were not or had rotted.
    """

    format: int = 1
    seq: Count
    hash: Sha256
    journal_bytes: Count
    keys: dict[str, Sha256]
    absent: list[Sha256]
    lost: list[Sha256]


class BackedUp(NamedTuple):
    """A finished backup, and how much of it was not there before."""

    manifest: Manifest
    new_blobs: int
    new_bytes: int


class _Copied(NamedTuple):
    """A journal's copy: where it ends, and what its entries name."""

    head: Head
    size: int
    references: References


# -- backing up ---------------------------------------------------------------------------------------------------


def back_up(home: Home, target: Path, *, with_keys: bool = True, report: Report = lambda done, total: None) -> BackedUp:
    """Copy what a home holds into `target`, or add to it what is new since the last backup there.

    Reads the home's files only; a service may run. Raises InvalidRequest for a directory that is no backup or a backup
    of something else, and StorageDamaged for a journal that does not verify.
    """
    if not home.journal.exists():
        raise InvalidRequest(f"there is no journal in {home.root}; set TUNEGATE_HOME to the registry's home")
    with _held(target):
        previous = read_manifest(target) if _manifest_path(target).exists() else None
        fresh, keys = target / "journal.log.new", _read_keys(home)
        copied = _copy_journal(home.journal, fresh, previous)
        blobs, copies = LocalBlobs(home.blobs), LocalBlobs(target / "blobs", limits=_NO_LIMITS)
        missing, sizes = _copy_blobs(blobs, copies, copied.references.named, report)
        _require_kept(home.journal, fresh)
        if _read_keys(home) != keys:
            raise Unavailable("the keys were changed while the journal was copied; run `tunegate backup` again")
        os.replace(fresh, target / "journal.log")
        sync_directory(target)
        manifest = Manifest(
            seq=copied.head.seq,
            hash=copied.head.hash,
            journal_bytes=copied.size,
            keys=_write_keys(keys, target / "keys") if with_keys else {},
            absent=sorted(missing - copied.references.needed),
            lost=sorted(missing & copied.references.needed),
        )
        write_durably(_manifest_path(target), msgspec.json.encode(manifest))
        _drop_old_keys(target / "keys", manifest)
    return BackedUp(manifest, len(sizes), sum(sizes))


def read_manifest(source: Path) -> Manifest:
    """Raises InvalidRequest where no backup was finished."""
    path = _manifest_path(source)
    try:
        manifest = msgspec.json.decode(path.read_bytes(), type=Manifest)
    except OSError as error:
        raise InvalidRequest(
            f"{path} cannot be read ({error.strerror}): {source} holds no finished backup; run `tunegate backup` again"
        ) from None
    except ValueError as error:
        raise InvalidRequest(f"{path} is no manifest of a backup: {error}; use another backup") from None
    if manifest.format != 1:
        raise InvalidRequest(f"{path} has format {manifest.format}; a newer tunegate wrote it, so use that version")
    return manifest


@contextlib.contextmanager
def _held(target: Path) -> Iterator[None]:
    """The directory, marked as a backup and for one process alone."""
    target.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not (target / _MARK).exists() and any(target.iterdir()):
        raise InvalidRequest(f"{target} is not empty and no backup; give a new directory")
    fd = os.open(target, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            # Two at once would each put its journal under the other's manifest.
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Conflict(f"another process writes a backup to {target}; wait until it is done") from None
        write_durably(target / _MARK, b"A backup of a tunegate home. It is whole if manifest.json is here.\n")
        yield
    finally:
        os.close(fd)


def _copy_journal(source: Path, target: Path, previous: Manifest | None) -> _Copied:
    """Copy the entries that are there now, each one checked, and make sure that they are durable in both places."""
    head, size, references = Head(0, GENESIS), 0, References()
    known = (previous is None) or previous.seq == 0
    with target.open("wb") as file:
        os.fchmod(file.fileno(), 0o600)
        for line in read_chain(source):
            head = Head(line.entry.seq, line.hash)
            size += file.write(line.hash.encode() + b" " + line.body + b"\n")
            for event in line.entry.events:
                references.add(event)
            known = known or (previous is not None and head == (previous.seq, previous.hash))
        file.flush()
        os.fsync(file.fileno())
    if not known and previous is not None:
        raise InvalidRequest(
            f"the backup holds entry {previous.seq} ({previous.hash[:12]}…), but the journal {source}, which ends at "
            f"{head.seq}, does not: it lost its tail or is another one. Keep that backup, and give a new directory"
        )
    with source.open("rb") as journal:
        # A running service may have written, but not yet synced, what was just read.
        os.fdatasync(journal.fileno())
    return _Copied(head, size, references)


def _require_kept(source: Path, copy: Path) -> None:
    """The journal still begins with the copy: a service cuts off what it could not make durable."""
    size = copy.stat().st_size
    end = max(0, size - CHUNK_BYTES)
    with source.open("rb") as one, copy.open("rb") as other:
        one.seek(end)
        other.seek(end)
        if one.read(size - end) != other.read():
            raise Unavailable("the journal was cut back while it was copied; run `tunegate backup` again")


def _copy_blobs(
    source: LocalBlobs, target: LocalBlobs, wanted: Iterable[str], report: Report
) -> tuple[set[str], list[int]]:
    """Copy the blobs that the target lacks: those that cannot be had, and the sizes of those that were copied."""
    missing, sizes = set[str](), list[int]()
    todo = sorted(sha256 for sha256 in wanted if not target.has(sha256))
    # Most of the time goes by waiting for the disk to sync, which several can do together.
    copiers = ThreadPoolExecutor(_COPIERS, thread_name_prefix="tunegate-copier")
    try:
        for begin in range(0, len(todo), _BATCH):
            batch = todo[begin : begin + _BATCH]
            copied = copiers.map(lambda sha256: _copy_blob(source, target, sha256), batch)
            for done, (sha256, size) in enumerate(zip(batch, copied, strict=True), start=begin + 1):
                if size is None:
                    missing.add(sha256)
                else:
                    sizes.append(size)
                report(done, len(todo))
    finally:
        copiers.shutdown(cancel_futures=True)
    return missing, sizes


def _copy_blob(source: LocalBlobs, target: LocalBlobs, sha256: str) -> int | None:
    """The size of the blob, now in the target too; None if it cannot be read, or is not what its name says."""
    try:
        with source.path(sha256).open("rb") as file:
            upload = target.upload(sha256, total=None, offset=0)
            try:
                while chunk := file.read(CHUNK_BYTES):
                    upload.write(chunk)
                upload.finish()
            finally:
                upload.abort()  # of what was not finished
            return upload.size
    except (DigestMismatch, OSError):  # an OSError is of reading: those of writing are told otherwise
        return None


def _read_keys(home: Home) -> dict[str, bytes]:
    """The files that a home signs and draws with, by name."""
    folder = home.signing_key.parent
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if _is_key(path)}


def _is_key(path: Path) -> bool:
    return path.is_file() and not path.name.startswith(".")  # a name with a dot is of a file half written


def _write_keys(keys: dict[str, bytes], target: Path) -> dict[str, str]:
    target.mkdir(mode=0o700, exist_ok=True)
    named = {name: sha256_hex(data) for name, data in keys.items()}
    for name, data in keys.items():
        write_durably(target / named[name], data)
    return named


def _drop_old_keys(folder: Path, manifest: Manifest) -> None:
    """Keep no secret that the newest backup does not name."""
    for path in folder.iterdir() if folder.exists() else ():
        if path.name not in manifest.keys.values():
            path.unlink()


def _manifest_path(target: Path) -> Path:
    return target / "manifest.json"


# -- restoring ----------------------------------------------------------------------------------------------------


def restore(source: Path, home: Home, *, report: Report = lambda done, total: None) -> Manifest:
    """Make a home of a backup, once all of it was found whole, and fold its catalog.

    Raises InvalidRequest if the home holds anything already, StorageDamaged if the backup is not as its manifest says.
    A home that was not finished is not opened, see `Home.restoring`.
    """
    manifest = read_manifest(source)
    if home.restoring.exists():
        raise InvalidRequest(f"{home.root} holds an unfinished restore; remove that directory, then try again")
    if home.root.exists() and any(home.root.iterdir()):
        raise InvalidRequest(f"{home.root} is not empty; set TUNEGATE_HOME to a new directory")
    home.root.mkdir(mode=0o700, parents=True, exist_ok=True)
    home.restoring.mkdir(mode=0o700)
    sync_directory(home.root)
    part = Home(home.restoring)
    try:
        _fill(part, source, manifest, report)
        rebuild(part)
    except BaseException:
        shutil.rmtree(home.restoring)
        raise
    for made, final in zip(_pieces(part), _pieces(home), strict=True):
        if made.exists():
            os.replace(made, final)
    sync_directory(home.root)
    shutil.rmtree(home.restoring)
    sync_directory(home.root)
    return manifest


def _fill(part: Home, source: Path, manifest: Manifest, report: Report) -> None:
    """Copy journal, keys and blobs, checking each; StorageDamaged tells everything that is wrong."""
    with (source / "journal.log").open("rb") as journal, part.journal.open("xb") as file:
        os.fchmod(file.fileno(), 0o600)
        left = manifest.journal_bytes
        while left and (chunk := journal.read(min(CHUNK_BYTES, left))):
            left -= file.write(chunk)
        file.flush()
        os.fsync(file.fileno())
    head, references = Head(0, GENESIS), References()
    for line in read_chain(part.journal):
        head = Head(line.entry.seq, line.hash)
        for event in line.entry.events:
            references.add(event)
    problems = []
    if left or head != (manifest.seq, manifest.hash):
        problems.append(f"its journal ends at entry {head.seq}, not as the manifest says at entry {manifest.seq}")
    wanted = references.named.difference(manifest.absent, manifest.lost)
    blobs = LocalBlobs(part.blobs, limits=_NO_LIMITS)
    missing, _ = _copy_blobs(LocalBlobs(source / "blobs"), blobs, wanted, report)
    problems += [f"blob sha256:{sha256} is missing or damaged" for sha256 in sorted(missing)]
    problems += _restore_keys(part.signing_key.parent, source / "keys", manifest)
    if problems:
        more = f", and {len(problems) - 5} more" if len(problems) > 5 else ""
        raise StorageDamaged(f"{source} is damaged: {'; '.join(problems[:5])}{more}; use another backup")


def _restore_keys(target: Path, source: Path, manifest: Manifest) -> Iterator[str]:
    if manifest.keys:
        target.mkdir(mode=0o700)
    for name, sha256 in manifest.keys.items():
        try:
            data = (source / sha256).read_bytes()
        except OSError as error:
            yield f"key file {name} cannot be read: {error.strerror}"
            continue
        if sha256_hex(data) != sha256 or Path(name).name != name:
            yield f"key file {name} was changed"
        else:
            write_durably(target / name, data)


def _pieces(home: Home) -> tuple[Path, ...]:
    """What a home is made of; the journal last."""
    return home.signing_key.parent, home.blobs, home.catalog, home.journal
