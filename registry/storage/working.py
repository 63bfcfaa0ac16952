"""The writer's working set: rows it has read or changed, in front of DuckDB, which plans every statement anew.

What it answers is what DuckDB would answer inside the open transaction. A change is made here first and reaches the
database with all others of its kind in one statement; a statement of any other kind is run only after that, and makes
it forget the tables that the statement names. After a rollback it is thrown away.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import duckdb
import msgspec

from registry.storage.rows import quoted
from registry.storage.views import Result

Row = Mapping[str, Any]
Key = tuple[Any, ...]

# So many bytes of rows (about a third of what they take), keys and rows of answers are remembered between two
# transactions; beyond that, none of them.
_MOST_BYTES, _MOST_KEYS, _MOST_ANSWERS = 32 * 1024**2, 100_000, 1000
_ROW_BYTES = 500
_BATCH = 10_000


class Table(NamedTuple):
    """Columns with their types as JSON is read into them, and which of them are the primary key."""

    columns: dict[str, str]
    key: tuple[str, ...]


class Answer(NamedTuple):
    """Rows of a query, and how often its tables had been changed then."""

    stamps: list[int]
    rows: list[tuple[Any, ...]]


class Found(NamedTuple):
    """Rows of a query, to be fetched as from a cursor."""

    rows: list[tuple[Any, ...]]

    def fetchall(self) -> list[tuple[Any, ...]]:
        return list(self.rows)


class Watcher(Protocol):
    """Keeps an index of its own of one table."""

    def inserted(self, row: Row) -> None: ...

    def forgotten(self) -> None:
        """The table may hold anything now."""
        ...


class WorkingSet:
    """Rows by primary key, keys by other columns, and the answers to whole queries. For one thread only."""

    def __init__(self, db: duckdb.DuckDBPyConnection) -> None:
        self._db = db
        self._watchers: dict[str, Watcher] = {}
        self._tables: dict[str, Table] = {}
        self._prepared: set[str] = set()
        self._rows: dict[str, dict[Key, Row | None]] = {}
        self._weight = 0
        self._keys: dict[str, dict[tuple[str, ...], dict[Key, list[Key]]]] = {}
        self._n_keys = 0
        self._stamps: dict[str, int] = {}
        self._answers: dict[tuple[str, str], Answer] = {}
        self._named: dict[str, list[str]] = {}
        self._inserts: dict[str, list[Row]] = {}
        self._new: dict[str, dict[Key, int]] = {}
        self._updates: dict[str, dict[Key, dict[str, Any]]] = {}
        self._applied: tuple[int, str] | None = None

    def watch(self, table: str, watcher: Watcher) -> None:
        self._watchers[table] = watcher

    # -- asking --------------------------------------------------------------------------------------------------

    def find(self, table: str, *key: Any) -> Row | None:
        """The row with this primary key."""
        rows = self._rows.setdefault(table, {})
        if key not in rows:
            rows[key] = self._read(table, key)
            self._weigh(rows[key] or {})
        return rows[key]

    def _read(self, table: str, key: Key) -> Row | None:
        if (place := self._new.get(table, {}).get(key)) is not None:
            return self._inserts[table][place]
        shape = self._table(table)
        where = " AND ".join(f"{column} = ?" for column in shape.key)
        columns = ", ".join(shape.columns)
        found = self._db.execute(f"SELECT {columns} FROM {table} WHERE {where}", list(key)).fetchall()
        if not found:
            return None
        return {**dict(zip(shape.columns, found[0], strict=True)), **self._updates.get(table, {}).get(key, {})}

    def _read_all(self, table: str, where: Mapping[str, Any]) -> None:
        """Remember the stored rows with these values, and their keys: one question, where there would be many."""
        shape, rows, changed = self._table(table), self._rows[table], self._updates.get(table, {})
        condition = " AND ".join(f"{column} = ?" for column in where)
        chosen = f"SELECT {', '.join(shape.columns)} FROM {table} WHERE {condition} ORDER BY {', '.join(shape.key)}"
        stored = self._db.execute(chosen, list(where.values())).fetchall()
        keys: list[Key] = []
        for values in stored:
            row = dict(zip(shape.columns, values, strict=True))
            keys.append(key := _values(row, shape.key))
            if key not in rows:
                rows[key] = {**row, **changed.get(key, {})}
                self._weigh(row)
        self._remember_keys(table, where, keys)

    def all_remembered(self, table: str) -> dict[Key, Row | None]:
        return dict(self._rows.get(table, {}))

    def select(self, table: str, **where: Any) -> list[Row]:
        """The rows with these values, in columns that are never changed."""
        known = self._keys.setdefault(table, {}).setdefault(tuple(where), {}).get(tuple(where.values()))
        rows = self._rows.setdefault(table, {})
        if known is None or sum(key not in rows for key in known) > 1:
            self._read_all(table, where)
        found = [self.find(table, *key) for key in self._keys_of(table, where)]
        return [row for row in found if row is not None]

    def exists(self, table: str, **where: Any) -> bool:
        """Whether there is a row with these values, in columns that are never changed."""
        return bool(self._keys_of(table, where))

    def _keys_of(self, table: str, where: Mapping[str, Any]) -> list[Key]:
        columns, values = tuple(where), tuple(where.values())
        known = self._keys.setdefault(table, {}).setdefault(columns, {})
        if values not in known:
            key = self._table(table).key
            condition = " AND ".join(f"{column} = ?" for column in columns)
            chosen = f"SELECT {', '.join(key)} FROM {table} WHERE {condition} ORDER BY {', '.join(key)}"
            self._remember_keys(table, where, self._db.execute(chosen, list(values)).fetchall())
        return known[values]

    def _remember_keys(self, table: str, where: Mapping[str, Any], stored: list[Key]) -> None:
        """stored: the keys of the rows with these values that the database has been told of."""
        columns, values, key = tuple(where), tuple(where.values()), self._table(table).key
        new = [_values(row, key) for row in self._inserts.get(table, ()) if _values(row, columns) == values]
        self._keys[table][columns][values] = stored + new
        self._n_keys += 1 + len(stored) + len(new)

    # -- changing ------------------------------------------------------------------------------------------------

    def insert(self, table: str, **row: Any) -> None:
        """Add a whole row. One whose key is taken is refused by the database, when it is told."""
        key = _values(row, self._table(table).key)
        rows = self._inserts.setdefault(table, [])
        self._new.setdefault(table, {})[key] = len(rows)
        rows.append(row)
        if (known := self._rows.get(table)) is not None:
            # Of tables that nobody asks for a row, none is remembered.
            known[key] = row
            self._weigh(row)
        for columns, by_values in self._keys.get(table, {}).items():
            if (values := _values(row, columns)) in by_values:
                by_values[values].append(key)
                self._n_keys += 1
        if watcher := self._watchers.get(table):
            watcher.inserted(row)
        self._changed(table)

    def update(self, table: str, *key: Any, **changes: Any) -> None:
        """Change a row, if it is there; never a column of a key."""
        known = self._rows.get(table, {}).get(key)
        if known is not None and all(known[column] == value for column, value in changes.items()):
            return
        if (place := self._new.get(table, {}).get(key)) is not None:
            self._inserts[table][place] = {**self._inserts[table][place], **changes}
        else:
            self._updates.setdefault(table, {}).setdefault(key, {}).update(changes)
        if known is not None:
            self._rows[table][key] = {**known, **changes}
            self._weigh(changes)
        self._changed(table)

    def applied(self, seq: int, chain_hash: str) -> None:
        """The last entry that all changes so far follow from."""
        self._applied = (seq, chain_hash)
        self._changed("applied")

    def execute(self, sql: str, values: Sequence[Any] = ()) -> Result:
        """Run any statement, on everything changed so far.

        A query is run again only once one of the tables that it names has changed.
        """
        tables = self._tables_in(sql)
        if not sql.startswith("SELECT"):
            self.write_out()
            for table in tables:
                self._lose(table)
            return self._db.execute(sql, list(values))
        question = (sql, repr(values))
        stamps = [self._stamps.get(table, 0) for table in tables]
        known = self._answers.get(question)
        if known is None or known.stamps != stamps:
            if any(table in self._inserts or table in self._updates or table == "applied" for table in tables):
                self.write_out()
            known = self._answers[question] = Answer(stamps, self._db.execute(sql, list(values)).fetchall())
        return Found(known.rows)

    def read(self, sql: str, values: Sequence[Any] = ()) -> Iterator[list[tuple[Any, ...]]]:
        """The rows of a long query, batch after batch; nothing of it is remembered."""
        self.write_out()
        found = self._db.execute(sql, list(values))
        while batch := found.fetchmany(_BATCH):
            yield batch

    # -- the database --------------------------------------------------------------------------------------------

    def write_out(self) -> None:
        """Tell the database what has changed. duckdb.ConstraintException: an invariant refuses it."""
        inserts, updates, applied = self._inserts, self._updates, self._applied
        self._inserts, self._new, self._updates, self._applied = {}, {}, {}, None
        for table, rows in inserts.items():
            self._insert_all(table, rows)
        for table, by_key in updates.items():
            alike: dict[tuple[str, ...], list[Row]] = {}
            for key, changes in by_key.items():
                row = dict(zip(self._table(table).key, key, strict=True)) | changes
                alike.setdefault(tuple(changes), []).append(row)
            for columns, rows in alike.items():
                self._update_all(table, columns, rows)
        if applied:
            self._db.execute("UPDATE applied SET seq = ?, hash = ?", list(applied))

    def settle(self) -> None:
        """After a commit: remember no more than is bounded."""
        if self._weight > _MOST_BYTES:
            self._weight = 0
            for rows in self._rows.values():
                rows.clear()
        if self._n_keys > _MOST_KEYS:
            self._keys, self._n_keys = {}, 0
        if sum(len(answer.rows) + 1 for answer in self._answers.values()) > _MOST_ANSWERS:
            self._answers.clear()

    def forget(self) -> None:
        """After a rollback: remember nothing."""
        self._rows, self._weight, self._keys, self._n_keys, self._answers = {}, 0, {}, 0, {}
        self._inserts, self._new, self._updates, self._applied = {}, {}, {}, None
        for watcher in self._watchers.values():
            watcher.forgotten()

    def _insert_all(self, table: str, rows: Sequence[Row]) -> None:
        if table not in self._prepared:
            columns = self._table(table).columns
            self._db.execute(
                f"PREPARE insert_{table} AS INSERT INTO {table} ({', '.join(columns)}) {_rows_of('$1', columns)}"
            )
            self._prepared.add(table)
        # EXECUTE takes no parameters, but unlike a plain statement it is not planned anew.
        self._db.execute(f"EXECUTE insert_{table}({quoted(_json(rows))})")

    def _update_all(self, table: str, columns: Sequence[str], rows: Sequence[Row]) -> None:
        shape = self._table(table)
        changed = ", ".join(f"{column} = new.{column}" for column in columns)
        same = " AND ".join(f"{table}.{column} = new.{column}" for column in shape.key)
        given = {column: shape.columns[column] for column in (*shape.key, *columns)}
        self._db.execute(f"UPDATE {table} SET {changed} FROM ({_rows_of('?', given)}) new WHERE {same}", [_json(rows)])

    def _table(self, name: str) -> Table:
        if name not in self._tables:
            columns = self._db.execute(
                "SELECT column_name, data_type FROM duckdb_columns() WHERE table_name = ? ORDER BY column_index", [name]
            ).fetchall()
            keys = self._db.execute(
                "SELECT constraint_column_names FROM duckdb_constraints() "
                "WHERE table_name = ? AND constraint_type = 'PRIMARY KEY'",
                [name],
            ).fetchall()
            # Read as JSON, a document would come back with its numbers written anew.
            types = {column: "VARCHAR" if kind == "JSON" else kind for column, kind in columns}
            self._tables[name] = Table(types, tuple(keys[0][0]))
        return self._tables[name]

    def _tables_in(self, sql: str) -> list[str]:
        """The tables that a statement names."""
        if sql not in self._named:
            if len(self._named) > _MOST_ANSWERS:
                self._named.clear()
            names = {row[0] for row in self._db.execute("SELECT table_name FROM duckdb_tables()").fetchall()}
            self._named[sql] = sorted(names & set(re.findall(r"\w+", sql)))
        return self._named[sql]

    def _lose(self, table: str) -> None:
        """The table may hold anything now."""
        self._rows.pop(table, None)
        self._keys.pop(table, None)
        if watcher := self._watchers.get(table):
            watcher.forgotten()
        self._changed(table)

    def _weigh(self, row: Row) -> None:
        self._weight += _ROW_BYTES + sum(len(value) for value in row.values() if isinstance(value, str))

    def _changed(self, table: str) -> None:
        self._stamps[table] = self._stamps.get(table, 0) + 1


def _rows_of(parameter: str, columns: Mapping[str, str]) -> str:
    """A query that gives the rows of one JSON text."""
    shape = _json([dict(columns)])
    return f"SELECT unnest(from_json_strict({parameter}::VARCHAR, {quoted(shape)}), recursive := true)"


def _values(row: Row, columns: Sequence[str]) -> Key:
    return tuple(row[column] for column in columns)


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()
