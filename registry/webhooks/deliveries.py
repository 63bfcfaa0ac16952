"""What is to be sent to whom, and what came of it: a small SQLite database beside the catalog.

The journal is the outbox. This file remembers how far it was read (`planned`, in the same transaction as the deliveries
that came of it) and how each delivery stands. It is not the truth: lost or damaged, it is begun anew, the journal is
read again from each webhook's creation, and messages are sent again under the ids they had. Not in the catalog,
because a catalog folded anew from the journal must equal the old one.
"""

import contextlib
import logging
import os
import sqlite3
import threading
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from registry.webhooks.retrying import Attempt, Next

_log = logging.getLogger("tunegate.webhooks")
_VERSION = 1
_KEPT = 1000  # finished deliveries of each webhook
_MOST_WAITING = 10_000  # deliveries of each webhook, its receiver being down all the time
_SCHEMA = """
    CREATE TABLE planned (only_row INTEGER PRIMARY KEY CHECK (only_row = 1), seq INTEGER NOT NULL, hash TEXT NOT NULL);
    CREATE TABLE deliveries (
        id TEXT PRIMARY KEY,
        webhook TEXT NOT NULL,
        seq INTEGER NOT NULL,
        position INTEGER NOT NULL,
        type TEXT NOT NULL,
        body BLOB NOT NULL,
        state TEXT NOT NULL CHECK (state IN ('pending', 'delivered', 'failed')),
        attempts INTEGER NOT NULL,
        due REAL NOT NULL,
        tried_at REAL,
        status INTEGER,
        error TEXT
    );
    CREATE INDEX of_webhook ON deliveries (webhook, seq, position);
    CREATE INDEX waiting ON deliveries (webhook, seq, position) WHERE state = 'pending';
"""
_COLUMNS = "id, webhook, seq, position, type, body, state, attempts, due, tried_at, status, error"


class Delivery(NamedTuple):
    """One message to one webhook. Times are seconds since 1970; `due` is 0 for what waits for nothing but its turn."""

    id: str
    webhook: str
    seq: int
    position: int
    type: str
    body: bytes
    state: str = "pending"
    attempts: int = 0
    due: float = 0.0
    tried_at: float | None = None
    status: int | None = None
    error: str | None = None


class Planned(NamedTuple):
    """The last journal entry that was turned into deliveries."""

    seq: int
    hash: str


class Deliveries:
    """The database. Thread-safe: the lock guards its one connection. Raises sqlite3.Error when the disk fails."""

    def __init__(self, path: Path | None) -> None:
        self._lock = threading.Lock()
        self._db = sqlite3.connect(path or ":memory:", isolation_level=None, check_same_thread=False)
        try:
            self._prepare()
        except BaseException:
            self._db.close()
            raise

    def _prepare(self) -> None:
        self._db.execute("PRAGMA journal_mode = WAL")
        # What a power cut takes back is done again, so no commit has to wait for the disk that the journal waits for.
        self._db.execute("PRAGMA synchronous = NORMAL")
        (version,) = self._db.execute("PRAGMA user_version").fetchone()
        if version == 0:
            with self._transaction():
                for statement in _SCHEMA.split(";")[:-1]:
                    self._db.execute(statement)
                self._db.execute(f"PRAGMA user_version = {_VERSION}")
        elif version != _VERSION:
            raise sqlite3.DatabaseError(f"it has version {version}, not {_VERSION}")
        (verdict,) = self._db.execute("PRAGMA quick_check(1)").fetchone()
        if verdict != "ok":
            raise sqlite3.DatabaseError(verdict)

    def close(self) -> None:
        with self._lock:
            self._db.close()

    # -- planning ------------------------------------------------------------------------------------------------

    def planned(self) -> Planned | None:
        rows = self._all("SELECT seq, hash FROM planned")
        return Planned(*rows[0]) if rows else None

    def plan(self, planned: Planned, deliveries: Sequence[Delivery], again: Sequence[tuple[str, str]]) -> int:
        """Take in what entries up to `planned` ask for, all or nothing. What is known already stays as it is.

        again: webhook and delivery, to be sent once more. Returns how many of those that waited longest were given up,
        because too many wait for the same webhook.
        """
        with self._transaction():
            self._db.executemany(
                f"INSERT OR IGNORE INTO deliveries ({_COLUMNS}) VALUES ({', '.join('?' * 12)})", deliveries
            )
            self._db.executemany(
                "UPDATE deliveries SET state = 'pending', attempts = 0, due = 0 WHERE webhook = ? AND id = ?", again
            )
            self._db.execute("INSERT OR REPLACE INTO planned VALUES (1, ?, ?)", planned)
            given_up = self._db.executemany(
                "UPDATE deliveries SET state = 'failed', error = ? WHERE webhook = ? AND state = 'pending' "
                "AND (seq, position) <= (SELECT seq, position FROM deliveries WHERE webhook = ? AND state = 'pending' "
                "ORDER BY seq DESC, position DESC LIMIT 1 OFFSET ?)",
                [
                    (f"given up: {_MOST_WAITING} newer ones wait too", webhook, webhook, _MOST_WAITING)
                    for webhook in sorted({one.webhook for one in deliveries})
                ],
            )
            return max(0, given_up.rowcount)

    def forget_planned(self) -> None:
        """Read the journal from the start again."""
        with self._transaction():
            self._db.execute("DELETE FROM planned")

    def keep_only(self, webhooks: Collection[str]) -> None:
        """Drop what belongs to webhooks that are no more."""
        with self._transaction():
            self._db.execute(
                f"DELETE FROM deliveries WHERE webhook NOT IN ({', '.join('?' * len(webhooks))})", list(webhooks)
            )

    # -- sending -------------------------------------------------------------------------------------------------

    def next_due(self, webhook: str, now: float, patient: int) -> Delivery | None:
        """What to send to a webhook now, if anything.

        In journal order: the first that is waiting, or nothing before it is due. One that failed `patient` times no
        longer holds up the others; it is sent when it is due.
        """
        waiting = f"SELECT {_COLUMNS} FROM deliveries WHERE webhook = ? AND state = 'pending'"
        late = self._all(f"{waiting} AND attempts >= ? AND due <= ? ORDER BY due LIMIT 1", webhook, patient, now)
        first = late or self._all(f"{waiting} AND attempts < ? ORDER BY seq, position LIMIT 1", webhook, patient)
        found = [Delivery(*row) for row in first]
        return found[0] if found and found[0].due <= now else None

    def record(self, delivery: Delivery, attempt: Attempt, following: Next, now: float) -> None:
        """What an attempt came to; of what is finished, only the newest is kept."""
        due = now + following.wait_seconds if following.wait_seconds is not None else 0.0
        with self._transaction():
            self._db.execute(
                "UPDATE deliveries SET state = ?, attempts = ?, due = ?, tried_at = ?, status = ?, error = ? "
                "WHERE id = ?",
                [
                    following.state,
                    delivery.attempts + 1,
                    due,
                    now,
                    attempt.status,
                    attempt.error,
                    delivery.id,
                ],
            )
            self._db.execute(
                "DELETE FROM deliveries WHERE webhook = ? AND state <> 'pending' AND (seq, position) < (SELECT seq, "
                "position FROM deliveries WHERE webhook = ? ORDER BY seq DESC, position DESC LIMIT 1 OFFSET ?)",
                [delivery.webhook, delivery.webhook, _KEPT],
            )

    # -- looking -------------------------------------------------------------------------------------------------

    def page(self, webhook: str, before: tuple[int, int] | None, limit: int) -> list[Delivery]:
        """Newest first, below a sequence number and position."""
        seq, position = before or (2**62, 0)
        rows = self._all(
            f"SELECT {_COLUMNS} FROM deliveries WHERE webhook = ? AND (seq, position) < (?, ?) "
            "ORDER BY seq DESC, position DESC LIMIT ?",
            webhook,
            seq,
            position,
            limit,
        )
        return [Delivery(*row) for row in rows]

    def has(self, webhook: str, delivery: str) -> bool:
        return bool(self._all("SELECT 1 FROM deliveries WHERE webhook = ? AND id = ?", webhook, delivery))

    def pending(self, webhooks: Collection[str]) -> int:
        """How many wait to be sent to these webhooks."""
        marks = ", ".join("?" * len(webhooks))
        rows = self._all(f"SELECT count(*) FROM deliveries WHERE state = 'pending' AND webhook IN ({marks})", *webhooks)
        return int(rows[0][0])

    # -- shared --------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._lock:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._db.execute("COMMIT")
            except BaseException:
                # A full disk may have ended the transaction already.
                with contextlib.suppress(sqlite3.Error):
                    self._db.execute("ROLLBACK")
                raise

    def _all(self, sql: str, *values: Any) -> list[tuple[Any, ...]]:
        with self._lock:
            return self._db.execute(sql, values).fetchall()


def open_deliveries(path: Path | None) -> Deliveries:
    """The database at `path`, in memory where there is none; one that is damaged is set aside and begun anew."""
    if path is not None:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    try:
        return Deliveries(path)
    except sqlite3.OperationalError:
        raise  # a disk that is full or not ours to write says nothing about the content
    except sqlite3.DatabaseError as error:
        assert path is not None
        _log.warning("%s is damaged (%s) and set aside; webhooks are sent again from their creation", path, error)
        for suffix in ("", "-wal", "-shm"):
            file = path.with_name(path.name + suffix)
            if file.exists():
                os.replace(file, file.with_name(f"{file.name}.damaged"))
        return open_deliveries(path)
