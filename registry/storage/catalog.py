"""The catalog: a DuckDB database folded from the journal, which answers every question and can be thrown away.

It holds the number and hash of the last entry it applied, in the same transaction as the rows. That makes it a witness
too: a catalog that is ahead of the journal proves that the journal lost its tail, and the service refuses to start.
"""

import contextlib
import logging
import os
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import duckdb

from registry.errors import BlobDamaged, EvidenceRefused, NotFound, StorageDamaged, StorageFull, TunegateError
from registry.events import Entry
from registry.records import ItemRow
from registry.storage.blobs import LocalBlobs
from registry.storage.files import guarded, write_durably
from registry.storage.fold import Target, fold_entry
from registry.storage.journal import Journal
from registry.storage.rows import ITEM_TYPES, quoted, read_rows, source_of
from registry.storage.views import View
from registry.storage.writer import GlanceView, WriterView

SCHEMA_VERSION = 8
_log = logging.getLogger("tunegate")
_FOLD_BATCH = 500
_MAX_ROWS_BYTES = 256 * 1024**2


class Catalog:
    """One database, one writer, any number of reading threads. Use `open_catalog`, which checks it first."""

    def __init__(self, path: Path | None, staging: Path, blobs: LocalBlobs) -> None:
        if not duckdb.__version__.startswith("2."):
            # 1.5 loses index entries after a crash (duckdb#23788): wrong answers are worse than none.
            raise StorageDamaged(
                f"duckdb {duckdb.__version__} is installed; tunegate needs 2.x: pip install 'duckdb>=2,<3'"
            )
        self._path, self._staging, self._blobs = path, staging, blobs
        staging.mkdir(parents=True, exist_ok=True)
        self._connection = duckdb.connect(
            str(path) if path else ":memory:",
            config={
                "autoinstall_known_extensions": False,
                "autoload_known_extensions": False,
                "allow_community_extensions": False,
                # A second thread helps no table of fewer than 122,880 rows, and costs every small statement a fifth.
                "threads": 1,
                "memory_limit": "1GB",
            },
        )
        # In this order: afterwards no statement can reach another file or loosen this again.
        self._connection.execute(f"SET allowed_directories = [{quoted(str(staging.resolve()))}]")
        self._connection.execute("SET enable_external_access = false")
        self._connection.execute("SET lock_configuration = true")
        self._recovering = False
        self._readers = threading.local()
        self._writer = WriterView(self._connection)

    # -- writing: by one thread only ---------------------------------------------------------------------------

    @contextlib.contextmanager
    def transaction(self) -> Iterator[View]:
        """The writer's own view inside one transaction: committed at the end, rolled back on any exception."""
        self._connection.execute("BEGIN TRANSACTION")
        try:
            yield self._writer
            self.write_out()
            self._connection.execute("COMMIT")
            self._writer.settle()
        except BaseException:
            self._writer.rows.forget()
            # DuckDB: COMMIT of an aborted transaction returns normally and writes nothing, so always roll back.
            with contextlib.suppress(duckdb.Error):
                self._connection.execute("ROLLBACK")
            raise

    def apply(self, entry: Entry, chain_hash: str) -> None:
        """Fold one entry inside the open transaction; the database is told of it by `write_out`."""
        fold_entry(Target(self._writer.rows, entry, self.load_items))
        self._writer.rows.applied(entry.seq, chain_hash)

    def write_out(self) -> None:
        """Tell the database of all that was applied. duckdb.ConstraintException: an invariant refuses it."""
        self._writer.rows.write_out()

    def load_items(self, sha256: str, adapter: str, number: int) -> None:
        """Copy the rows of a Parquet blob into `items`; raises EvidenceRefused if they cannot be.

        While the journal is folded anew, rows that are gone or rotten are left out and told: evidence and verdict stand
        in the journal, and one lost file must not keep everything else from being served.
        """
        if self._recovering and not self._is_whole(sha256):
            _log.error("the per-item rows of %s/%d, sha256:%s, are gone or damaged", adapter, number, sha256)
            return
        columns = ", ".join(ITEM_TYPES)
        with self._staged(sha256) as path:
            source = source_of(self._connection, path)
            try:
                self._writer.rows.execute(
                    f"INSERT INTO items (adapter, number, {columns}) SELECT ?, ?, {columns} FROM {source}",
                    [adapter, number],
                )
            except duckdb.ConstraintException as error:
                raise EvidenceRefused(f"the per-item rows break a rule: {error}") from None

    # -- reading ------------------------------------------------------------------------------------------------

    def view(self) -> View:
        """A view of the committed state for the calling thread; each thread has a cursor of its own."""
        return View(self._cursor())

    def glance(self) -> GlanceView:
        """A view that answers what it can from memory; what it says of one thing may be newer than of another."""
        return GlanceView(self._cursor(), self._writer.committed)

    @contextlib.contextmanager
    def snapshot(self) -> Iterator[View]:
        """As `view`, and every question inside is answered from the same state."""
        cursor = self._cursor()
        cursor.execute("BEGIN TRANSACTION")
        try:
            yield View(cursor)
        finally:
            # What is dead takes its transactions with it.
            with contextlib.suppress(duckdb.Error):
                cursor.execute("ROLLBACK")

    def _cursor(self) -> duckdb.DuckDBPyConnection:
        cursor = getattr(self._readers, "cursor", None)
        if cursor is None:
            cursor = self._readers.cursor = self._connection.cursor()
        return cursor

    def _is_whole(self, sha256: str) -> bool:
        try:
            self._blobs.check(sha256)
        except (NotFound, BlobDamaged):
            return False
        return True

    def read_rows(self, sha256: str) -> list[ItemRow]:
        """The rows of a Parquet blob of per-item results; raises EvidenceRefused if it is not one.

        Never by this database: there are files at which DuckDB gives up whatever database reads them.
        """
        with self._staged(sha256) as path:
            return read_rows(path)

    @contextlib.contextmanager
    def _staged(self, sha256: str) -> Iterator[Path]:
        """A checked copy of a blob: DuckDB may write where it may read, so it never sees the blob itself."""
        if self._blobs.size(sha256) > _MAX_ROWS_BYTES:
            raise EvidenceRefused(f"the per-item rows have more than {_MAX_ROWS_BYTES} bytes")
        staged = self._staging / f"{sha256}.{threading.get_ident()}.parquet"
        try:
            data = self._blobs.read(sha256, most_bytes=_MAX_ROWS_BYTES)
            with guarded("the per-item rows could not be staged"):
                staged.write_bytes(data)
            yield staged
        finally:
            with contextlib.suppress(OSError):  # what stays is removed by the next start
                staged.unlink()

    @contextlib.contextmanager
    def explaining(self) -> Iterator[None]:
        """Damage that a question meets: StorageDamaged, and this catalog is built anew at the next start.

        A block is only checked when it is read, so this may come long after the start.
        """
        try:
            yield
        except duckdb.Error as error:
            if not _is_corrupt(error):
                raise
            if self._path:
                write_durably(_distrusted(self._path), b"")
            raise StorageDamaged(
                "the catalog is damaged; restart the service, which builds it anew from the journal"
            ) from error

    # -- life ---------------------------------------------------------------------------------------------------

    def create_schema(self) -> None:
        self._connection.execute(Path(__file__).with_name("schema.sql").read_text())
        self._connection.execute("INSERT INTO applied VALUES (true, ?, 0, ?, NULL)", [SCHEMA_VERSION, "0" * 64])

    def catch_up(self, journal: Journal) -> None:
        """Fold what the journal has beyond this catalog."""
        self._recovering = True
        try:
            self._fold(journal)
        finally:
            self._recovering = False

    def _fold(self, journal: Journal) -> None:
        for batch in _batches(journal, self.view().applied().seq):
            try:
                self._apply_all(batch)
            except (duckdb.Error, TunegateError):
                self._apply_each(batch)

    def _apply_all(self, batch: Sequence[tuple[Entry, str]]) -> None:
        with self.transaction():
            for entry, chain_hash in batch:
                self.apply(entry, chain_hash)

    def _apply_each(self, batch: Sequence[tuple[Entry, str]]) -> None:
        """As `_apply_all`, but what cannot be folded is named."""
        for entry, chain_hash in batch:
            try:
                self._apply_all([(entry, chain_hash)])
            except (duckdb.Error, TunegateError) as error:
                raise StorageDamaged(f"journal entry {entry.seq} cannot be folded: {error}") from error

    def checkpoint(self) -> None:
        """Write everything into the main file. Raises StorageDamaged, or StorageFull, where that fails."""
        try:
            self._connection.execute("CHECKPOINT")
        except duckdb.Error as error:
            if "No space left" in str(error):
                raise StorageFull("no space left for the catalog; free some and start again") from None
            raise StorageDamaged(f"the catalog could not be written: {error}; start again") from None

    def close(self) -> None:
        with contextlib.suppress(StorageFull, StorageDamaged):
            self.checkpoint()
        self._connection.close()


def open_catalog(path: Path, staging: Path, blobs: LocalBlobs, journal: Journal) -> Catalog:
    """The catalog at `path`, caught up with the journal; built anew if it is missing, damaged or of another version.

    Raises StorageDamaged if the catalog knows entries that the journal does not have: then evidence was lost.
    """
    if path.exists() and _distrusted(path).exists():
        _set_aside(path)
    catalog = _open_existing(path, staging, blobs) if path.exists() else None
    if catalog is None:
        return rebuild_catalog(path, staging, blobs, journal)
    applied = catalog.view().applied()
    if not _witnessed(journal, applied.seq, applied.hash):
        catalog.close()
        raise StorageDamaged(
            f"the catalog has applied entry {applied.seq} ({applied.hash[:12]}…), but the journal, which ends at "
            f"{journal.head.seq} ({journal.head.hash[:12]}…), does not have it: it lost its tail or is another one. "
            "Restore the newer journal, or accept the loss with `tunegate rebuild --accept-loss`"
        )
    try:
        catalog.catch_up(journal)
    except StorageDamaged as error:
        catalog.close()
        if not _is_corrupt(error.__cause__):
            raise
        _set_aside(path)
        return rebuild_catalog(path, staging, blobs, journal)
    return catalog


def _is_corrupt(error: BaseException | None) -> bool:
    """Whether DuckDB says that its own file is damaged; it has no class for that."""
    return isinstance(error, duckdb.Error) and "Corrupt" in str(error)


def rebuild_catalog(path: Path, staging: Path, blobs: LocalBlobs, journal: Journal) -> Catalog:
    """Fold the whole journal into a new file, then put it in place of the old in one step."""
    fresh = path.with_name(f"{path.name}.new")
    for leftover in (fresh, _wal(fresh)):
        leftover.unlink(missing_ok=True)
    catalog = Catalog(fresh, staging, blobs)
    try:
        catalog.create_schema()
        catalog.catch_up(journal)
        catalog.checkpoint()
    finally:
        catalog.close()
    _wal(path).unlink(missing_ok=True)
    os.replace(fresh, path)
    _distrusted(path).unlink(missing_ok=True)
    return Catalog(path, staging, blobs)


def _open_existing(path: Path, staging: Path, blobs: LocalBlobs) -> Catalog | None:
    """The catalog if it can be used; otherwise its files are set aside and the answer is None."""
    try:
        catalog = Catalog(path, staging, blobs)
    except duckdb.Error as error:
        if "Could not set lock" in str(error):
            raise StorageDamaged(f"{path} is in use by another process; stop it first") from None
        _set_aside(path)
        return None
    try:
        if catalog.view().applied().schema_version == SCHEMA_VERSION:
            return catalog
    except duckdb.Error:
        pass
    catalog.close()
    _set_aside(path)
    return None


def _witnessed(journal: Journal, seq: int, chain_hash: str) -> bool:
    if seq == 0:
        return True
    line = next(journal.read(after=seq - 1), None)
    return line is not None and line.entry.seq == seq and line.hash == chain_hash


def _batches(journal: Journal, after: int) -> Iterator[list[tuple[Entry, str]]]:
    batch: list[tuple[Entry, str]] = []
    for line in journal.read(after=after):
        batch.append((line.entry, line.hash))
        if len(batch) == _FOLD_BATCH:
            yield batch
            batch = []
    if batch:
        yield batch


def _set_aside(path: Path) -> None:
    for file in (path, _wal(path)):
        if file.exists():
            os.replace(file, file.with_name(f"{file.name}.damaged"))


def _distrusted(path: Path) -> Path:
    return path.with_name(f"{path.name}.distrusted")


def _wal(path: Path) -> Path:
    return path.with_name(f"{path.name}.wal")
