"""The registry's own books: how far the catalog is, what was answered before, whom to tell, and how much there is."""

from typing import Any, NamedTuple

from registry.records import WebhookEvent
from registry.storage.views.reader import Reader, read_json


class Applied(NamedTuple):
    schema_version: int
    seq: int
    hash: str
    registry: str | None


class Receipt(NamedTuple):
    request: str
    status: int
    answer: bytes


class StoredWebhook(NamedTuple):
    """`seq`: the entry it was made in; it is told of what came later."""

    id: str
    url: str
    events: list[WebhookEvent]
    scope: str | None
    secret_sha256: str
    created_by: str
    created_at: str
    seq: int
    disabled_at: str | None
    disabled_reason: str | None


class Bookkeeping(Reader):
    """What the service asks about itself."""

    def applied(self) -> Applied:
        row = self._one("SELECT schema_version, seq, hash, registry FROM applied")
        assert row is not None
        return Applied(*row)

    def receipt(self, actor: str, key: str) -> Receipt | None:
        row = self._one("SELECT request, status, answer FROM receipts WHERE actor = ? AND key = ?", actor, key)
        return Receipt(row[0], row[1], row[2].encode()) if row else None

    def webhook(self, id_: str) -> StoredWebhook | None:
        rows = self._webhooks("WHERE id = ?", id_)
        return rows[0] if rows else None

    def webhooks(self) -> list[StoredWebhook]:
        return self._webhooks("ORDER BY seq")

    def _webhooks(self, clause: str, *values: Any) -> list[StoredWebhook]:
        columns = "id, url, events, scope, secret_sha256, created_by, created_at, seq, disabled_at, disabled_reason"
        rows = self._all(f"SELECT {columns} FROM webhooks {clause}", *values)
        return [StoredWebhook(row[0], row[1], read_json(row[2], list[WebhookEvent]), *row[3:]) for row in rows]

    def version_counts(self) -> dict[str, int]:
        """Versions by state."""
        return dict(self._all("SELECT state, count(*) FROM versions GROUP BY state ORDER BY state"))

    def job_counts(self) -> dict[tuple[str, str], int]:
        """Jobs by kind and state."""
        rows = self._all("SELECT kind, state, count(*) FROM jobs GROUP BY kind, state ORDER BY kind, state")
        return {(kind, state): count for kind, state, count in rows}
