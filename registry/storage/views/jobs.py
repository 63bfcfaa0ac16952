"""Evaluation jobs, and the per-item rows that came of them."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from registry.records import ItemRow
from registry.storage.views.reader import Reader

ITEM_COLUMNS = ItemRow.__struct_fields__


class StoredJob(NamedTuple):
    id: str
    kind: str
    adapter: str
    number: int
    state: str
    fence: int
    attempts: int
    worker: str | None
    reason: str | None


class Jobs(Reader):
    """Jobs, and what was measured of each item."""

    def job(self, id_: str) -> StoredJob | None:
        rows = self._jobs("WHERE id = ?", id_)
        return rows[0] if rows else None

    def job_of(self, adapter: str, number: int) -> StoredJob | None:
        rows = self._jobs("WHERE adapter = ? AND number = ? ORDER BY seq DESC LIMIT 1", adapter, number)
        return rows[0] if rows else None

    def unfinished_jobs(self, kinds: Sequence[str]) -> list[StoredJob]:
        """Queued and claimed jobs, oldest first."""
        return self._jobs(
            "WHERE state IN ('queued', 'claimed') AND list_contains(?, kind) ORDER BY seq LIMIT 1000", list(kinds)
        )

    def _jobs(self, clause: str, *values: Any) -> list[StoredJob]:
        columns = "id, kind, adapter, number, state, fence, attempts, worker, reason"
        return [StoredJob(*row) for row in self._all(f"SELECT {columns} FROM jobs {clause}", *values)]

    def items(self, adapter: str, number: int, suite: str, after: str, limit: int) -> list[ItemRow]:
        """Rows of one suite in order of `item/subject`, beyond the row named by `after`."""
        rows = self._all(
            f"SELECT {', '.join(ITEM_COLUMNS)} FROM items WHERE adapter = ? AND number = ? AND suite = ? "
            "AND item || '/' || subject > ? ORDER BY item || '/' || subject LIMIT ?",
            adapter,
            number,
            suite,
            after,
            limit,
        )
        return [item_row(row) for row in rows]

    def shown(
        self, adapter: str, number: int, suite: str, item: str, subject: str = "candidate"
    ) -> tuple[str, str] | None:
        """Prompt and output of the candidate, or of the base, for one item."""
        row = self._one(
            "SELECT prompt, output FROM items WHERE adapter = ? AND number = ? AND suite = ? AND item = ? "
            "AND subject = ? AND prompt IS NOT NULL AND output IS NOT NULL",
            adapter,
            number,
            suite,
            item,
            subject,
        )
        return (row[0], row[1]) if row else None

    def outputs(self, adapter: str, number: int, suite: str, subject: str) -> dict[str, tuple[str, str]]:
        """Prompt and output of each item of a suite that has both."""
        rows = self._all(
            "SELECT item, prompt, output FROM items WHERE adapter = ? AND number = ? AND suite = ? AND subject = ? "
            "AND prompt IS NOT NULL AND output IS NOT NULL ORDER BY item",
            *(adapter, number, suite, subject),
        )
        return {item: (prompt, output) for item, prompt, output in rows}


def item_row(values: tuple[Any, ...]) -> ItemRow:
    """An ItemRow from values in the order of ITEM_COLUMNS."""
    return ItemRow(**dict(zip(ITEM_COLUMNS, values, strict=True)))
