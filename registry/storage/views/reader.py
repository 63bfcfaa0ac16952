"""What every question of the catalog is asked through: a cursor whose results are fetched whole."""

from collections.abc import Sequence
from typing import Any, Protocol, TypeVar

import msgspec

T = TypeVar("T")


class Result(Protocol):
    def fetchall(self) -> list[tuple[Any, ...]]: ...


class Database(Protocol):
    """Whatever runs SQL: a cursor, or the writer's working set in front of one."""

    def execute(self, sql: str, values: Sequence[Any] = ..., /) -> Result: ...


class Reader:
    """What the questions of each subject build upon."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def _one(self, sql: str, *values: Any) -> tuple[Any, ...] | None:
        # Fetched whole: an open result keeps its transaction, and DuckDB does not checkpoint beside one (2.0.0).
        rows = self._all(sql, *values)
        return rows[0] if rows else None

    def _all(self, sql: str, *values: Any) -> list[tuple[Any, ...]]:
        return self._db.execute(sql, list(values)).fetchall()


def places(values: Sequence[Any]) -> str:
    """A parameter for each value, in brackets."""
    return f"({', '.join('?' * len(values))})"


def read_json(text: str, kind: type[T]) -> T:
    return msgspec.json.decode(text, type=kind)
