"""Reading training ledgers: what became of a row, and which rows came from where. One Parquet file for each run.

A ledger is somebody's upload: a file that is none is an error with a reason, and counting its reviews takes a bounded
memory, whatever it holds. That it could not be read this time says nothing of the file, and is another error. Ledgers
of older trainers lack the columns of provenance, which are then empty.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

import duckdb
from msgspec import Struct

from registry.errors import InvalidRequest, Unavailable
from registry.licensed import MOST_CHARACTERS, REVIEW_FIELDS, void_review
from registry.records import LedgerReviews

TRAINED = "trained"
# Four ledgers may be counted at once, whoever pushed them; the other is for whoever looks into one.
_MEMORY, _COUNTING_MEMORY = "512MB", "256MB"
# A row that ended otherwise taught something, whatever that is called; so did one with tokens that were trained on.
_NOT_TRAINED = "'validation', 'test', 'duplicate', 'too_long', 'blocked', 'empty', 'held_out'"
# Replay holds the base's own answers, at which the adapter is held: there is nothing that a person could have reviewed.
_TAUGHT = f"trained_tokens != 0 OR (disposition NOT IN ({_NOT_TRAINED}) AND source != 'replay')"
_MOST_ROWS, _MOST_NAMED = 1_000_000, 5
_ROWS_AT_ONCE, _REMEMBERED = 10_000, 1_000
# What can be long for each row while the file is short (lists, structs) is nothing that a ledger has.
_KINDS = frozenset({"VARCHAR", "TINYINT", "SMALLINT", "INTEGER", "BIGINT", "DATE", "TIMESTAMP", '"NULL"'})
# A file that is not there is looked for as a folder, which is not permitted.
_PASSING = (duckdb.IOException, duckdb.OutOfMemoryException, duckdb.PermissionException)


class LedgerEntry(Struct, frozen=True):
    """A row of a run's input. origin: where it comes from, as the data says it.

    source: "data", "replay" (the base's own answers), or "dpo" for a preference pair.
    """

    source: str
    id: str
    line: int
    group: str
    disposition: str
    reason: str
    content_sha256: str
    rendered_sha256: str
    tokens: int
    trained_tokens: int
    origin: str = ""
    licence: str = ""
    collector: str = ""
    reviewer: str = ""
    credential: str = ""
    reviewed_at: str = ""
    credential_valid_until: str = ""


class Ledger:
    """An open ledger; close it, or use it as a context manager."""

    def __init__(self, path: Path) -> None:
        self._path = path.resolve()
        with self._reading():
            self._db = duckdb.connect(
                config={"memory_limit": _MEMORY, "threads": 1, "autoload_known_extensions": False, "temp_directory": ""}
            )
        try:
            # A file of somebody else's making is read by a connection that can reach nothing else.
            self._run(f"SET allowed_paths = [{_quoted(str(self._path))}]", [])
            self._run("SET enable_external_access = false", [])
            self._columns = self._select()
        except BaseException:
            self._db.close()
            raise

    def __enter__(self) -> "Ledger":
        return self

    def __exit__(self, *_: object) -> None:
        self._db.close()

    def entries(self, disposition: str | None = None) -> Iterator[LedgerEntry]:
        """In the order of the file."""
        where, values = ("disposition = ?", [disposition]) if disposition else ("true", [])
        return self._entries(where, values)

    def of_row(self, sha256: str) -> Iterator[LedgerEntry]:
        """Rows of this content, or which the model saw as this text."""
        return self._entries("? IN (content_sha256, rendered_sha256)", [sha256])

    def from_origin(self, origin: str) -> Iterator[LedgerEntry]:
        """Rows of this origin; with `*` at its end, of every origin that begins so."""
        if origin.endswith("*"):
            return self._entries("starts_with(origin, ?) AND origin != ''", [origin[:-1]])
        return self._entries("origin = ?", [origin])

    def counts(self, column: str) -> dict[str, int]:
        """Rows by the value of a column of text; the empty one is left out."""
        if column not in LedgerEntry.__struct_fields__:
            raise InvalidRequest(
                f"a ledger has no column {column!r}; it has {', '.join(LedgerEntry.__struct_fields__)}"
            )
        query = f'SELECT "{column}" AS value, count(*) FROM ({self._columns}) GROUP BY value ORDER BY 2 DESC, 1'
        return {str(value): int(count) for value, count in self._run(query, []) if value}

    def reviews(self, by: datetime) -> LedgerReviews:
        """How many rows taught something, and how many of these a licensed person had reviewed `by` then.

        Raises InvalidRequest for what is no ledger, or has more than a million rows; Unavailable where the file could
        not be read this time.
        """
        self._run(f"SET memory_limit = '{_COUNTING_MEMORY}'", [])
        if self._run(f"SELECT 1 FROM ({self._columns}) LIMIT 1 OFFSET {_MOST_ROWS}", []):
            raise InvalidRequest(f"the ledger has more than {_MOST_ROWS:,} rows; train on fewer")

        @lru_cache(_REMEMBERED)
        def is_void(*said: str) -> bool:
            return void_review(dict(zip(REVIEW_FIELDS, said, strict=True)), by) != ""

        trained, licensed, without = 0, 0, list[str]()
        # One character more than counts, so that the rule sees what is too long.
        told = ", ".join(f"left({name}, {MOST_CHARACTERS + 1})" for name in REVIEW_FIELDS)
        query = f"SELECT {told}, source = 'dpo', line FROM ({self._columns}) WHERE {_TAUGHT}"
        for *said, is_pair, line in self._stream(query, []):
            trained += 1
            if not is_void(*said):
                licensed += 1
            elif len(without) < _MOST_NAMED:
                without.append(f"{'pair on ' * is_pair}line {line}")
        return LedgerReviews(trained=trained, licensed=licensed, without=tuple(without))

    def _entries(self, where: str, values: list[Any]) -> Iterator[LedgerEntry]:
        for row in self._run(f"SELECT * FROM ({self._columns}) WHERE {where} ORDER BY place", values):
            yield LedgerEntry(*row[:-1])

    def _select(self) -> str:
        """A query for every column by name, the missing ones of provenance empty, and the row's place in the file."""
        fields = LedgerEntry.__struct_fields__
        source = f"read_parquet({_quoted(str(self._path))}, file_row_number = true)"
        found = {str(row[0]): str(row[1]) for row in self._run(f"DESCRIBE SELECT * FROM {source}", [])}
        if missing := [name for name in fields[:10] if name not in found]:
            raise InvalidRequest(f"the file is no training ledger: it has no column {missing[0]!r}")
        if strange := [name for name in fields if found.get(name, "VARCHAR") not in _KINDS]:
            raise InvalidRequest(
                f"the file is no training ledger: its column {strange[0]!r} is neither text nor a number"
            )
        columns = [_column(name) if name in found else f"'' AS \"{name}\"" for name in fields]
        return f"SELECT {', '.join(columns)}, file_row_number AS place FROM {source}"

    def _run(self, query: str, values: list[Any]) -> list[tuple[Any, ...]]:
        return list(self._stream(query, values))

    def _stream(self, query: str, values: list[Any]) -> Iterator[tuple[Any, ...]]:
        """Rows as they are read, so that they are never all held; the next query ends it."""
        with self._reading():
            found = self._db.execute(query, values)
            while rows := found.fetchmany(_ROWS_AT_ONCE):
                yield from rows

    @contextmanager
    def _reading(self) -> Iterator[None]:
        try:
            yield
        except duckdb.Error as error:
            # Where the file lies is nobody's matter.
            reason = str(error).splitlines()[0].replace(str(self._path), self._path.name)[:200]
            if isinstance(error, _PASSING):
                raise Unavailable(
                    f"the ledger could not be read this time: {reason}; try again, and if it stays so, "
                    "give the file as its trainer wrote it"
                ) from None
            raise InvalidRequest(f"the file is no training ledger: {reason}") from None


def _column(name: str) -> str:
    kind, empty = ("BIGINT", "0") if name in ("line", "tokens", "trained_tokens") else ("TEXT", "''")
    return f'coalesce(CAST("{name}" AS {kind}), {empty}) AS "{name}"'


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
