"""The working set answers what the database would, whatever was changed, forgotten or rolled back before."""

from collections.abc import Iterator
from typing import Any

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from registry.storage import working
from registry.storage.working import Row, WorkingSet

SCHEMA = """
CREATE TABLE shelves (place TEXT, number BIGINT, colour TEXT NOT NULL, weight DOUBLE, papers JSON, full_up BOOLEAN,
                      PRIMARY KEY (place, number), UNIQUE (place, colour));
CREATE TABLE boxes (id TEXT PRIMARY KEY, place TEXT NOT NULL);
CREATE TABLE applied (seq BIGINT, hash TEXT);
INSERT INTO applied VALUES (0, '');
"""
PLACES, NUMBERS = ("cellar", "loft's"), (1, 2)


@pytest.fixture
def db() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect() as connection:
        connection.execute(SCHEMA)
        connection.execute("BEGIN")
        yield connection


def shelf(place: str, number: int, **changes: Any) -> dict[str, Any]:
    plain = {"colour": f"c{number}", "weight": 0.5, "papers": '{"a":1.0}', "full_up": None}
    return {"place": place, "number": number, **plain, **changes}


def stored(db: duckdb.DuckDBPyConnection) -> list[tuple[Any, ...]]:
    return db.execute("SELECT * FROM shelves ORDER BY place, number").fetchall()


# -- what is kept -------------------------------------------------------------------------------------------------


@given(
    texts=st.lists(st.text(st.characters(exclude_categories=["Cs"])), min_size=1, max_size=5, unique=True),
    weight=st.floats(allow_nan=False, allow_infinity=False),
    number=st.integers(-(2**53), 2**53),
)
@settings(max_examples=15, deadline=None)
def test_every_value_comes_back_as_it_was(texts: list[str], weight: float, number: int) -> None:
    """Also quotes, zero bytes and what looks like SQL or JSON."""
    with duckdb.connect() as db:
        db.execute(SCHEMA)
        rows = WorkingSet(db)
        given = [
            shelf(text, number + place, colour=text, weight=weight, papers=working._json({"x": text}), full_up=True)
            for place, text in enumerate(texts)
        ]
        for row in given:
            rows.insert("shelves", **row)
        rows.write_out()
        assert sorted(stored(db), key=repr) == sorted((tuple(row.values()) for row in given), key=repr)
        for row in given:
            rows.update("shelves", row["place"], row["number"], papers=working._json([row["place"]]), weight=-weight)
        rows.write_out()
        assert {one[4] for one in stored(db)} == {working._json([text]) for text in texts}


def test_a_document_is_kept_as_it_was_written(db: duckdb.DuckDBPyConnection) -> None:
    rows = WorkingSet(db)
    rows.insert("shelves", **shelf("loft", 1, papers='{"b": 1.0,"a":1e-7, "c":100000000000000000000}'))
    rows.write_out()
    assert stored(db)[0][4] == '{"b": 1.0,"a":1e-7, "c":100000000000000000000}'


def test_rows_of_many_events_reach_the_database_in_one_statement(db: duckdb.DuckDBPyConnection) -> None:
    told = Recorder(db)
    rows = WorkingSet(told)  # type: ignore[arg-type]
    for number in range(50):
        rows.insert("shelves", **shelf("loft", number))
        rows.update("shelves", "loft", number, weight=float(number))
    rows.write_out()
    assert len([sql for sql in told.said if sql.startswith("EXECUTE")]) == 1
    assert not [sql for sql in told.said if sql.startswith("UPDATE")], "changes of new rows are part of them"
    told.said.clear()
    for number in range(50):
        rows.update("shelves", "loft", number, weight=1.0)
    assert told.said == []
    rows.write_out()
    assert [sql.split()[0] for sql in told.said] == ["UPDATE"]
    assert {row[3] for row in stored(db)} == {1.0}


class Recorder:
    """A connection that remembers what it was told."""

    def __init__(self, db: duckdb.DuckDBPyConnection) -> None:
        self._db, self.said = db, list[str]()

    def execute(self, sql: str, values: Any = None) -> duckdb.DuckDBPyConnection:
        self.said.append(sql)
        return self._db.execute(sql, values)


def test_row_whose_key_is_taken_is_refused(db: duckdb.DuckDBPyConnection) -> None:
    for first, second in (
        (shelf("loft", 1), shelf("loft", 1)),
        (shelf("loft", 2), shelf("loft", 3, colour="c2")),
    ):
        for between in (True, False):
            rows = WorkingSet(db)
            rows.insert("shelves", **first)
            if between:
                rows.write_out()
            rows.insert("shelves", **second)
            with pytest.raises(duckdb.ConstraintException):
                rows.write_out()
            rows.forget()
            db.execute("ROLLBACK")
            db.execute("BEGIN")


def test_number_of_the_last_entry_is_written_with_the_rows(db: duckdb.DuckDBPyConnection) -> None:
    rows = WorkingSet(db)
    for seq in (1, 2):
        rows.applied(seq, f"hash {seq}")
        assert rows.execute("SELECT seq FROM applied").fetchall() == [(seq,)]
    rows.applied(3, "hash 3")
    rows.write_out()
    assert db.execute("SELECT * FROM applied").fetchall() == [(3, "hash 3")]


def test_statement_of_another_kind_sees_every_change_and_is_seen(db: duckdb.DuckDBPyConnection) -> None:
    rows = WorkingSet(db)
    for number in NUMBERS:
        rows.insert("shelves", **shelf("loft", number))
    assert rows.find("shelves", "loft", 1) and len(rows.select("shelves", place="loft")) == 2
    rows.execute("DELETE FROM shelves WHERE number = ?", [1])
    assert rows.find("shelves", "loft", 1) is None and len(rows.select("shelves", place="loft")) == 1
    assert rows.execute("SELECT count(*) FROM shelves").fetchall() == [(1,)]
    rows.insert("shelves", **shelf("loft", 3))
    assert rows.execute("SELECT count(*) FROM shelves").fetchall() == [(2,)]
    rows.write_out()
    assert [row[1] for row in stored(db)] == [2, 3]


def test_row_that_is_read_again_has_the_changes_that_the_database_was_not_told_of(
    db: duckdb.DuckDBPyConnection,
) -> None:
    rows = WorkingSet(db)
    rows.insert("shelves", **shelf("loft", 1))
    rows.write_out()
    rows.update("shelves", "loft", 1, weight=2.5)  # nobody has asked for the row, so it is not remembered
    found = rows.find("shelves", "loft", 1)
    assert found and found["weight"] == 2.5 and stored(db)[0][3] == 0.5


# -- what is answered ---------------------------------------------------------------------------------------------

KEYS = st.tuples(st.sampled_from(PLACES), st.sampled_from(NUMBERS))
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("insert"), KEYS, st.sampled_from(["red", "blue", "green"])),
        st.tuples(st.just("insert"), KEYS, st.sampled_from(["red", "blue", "green"])),
        st.tuples(st.just("update"), KEYS, st.sampled_from([None, 0.0, 1.5])),
        st.tuples(st.just("delete"), KEYS, st.none()),
        st.tuples(st.just("commit"), KEYS, st.none()),
        st.tuples(st.just("roll back"), KEYS, st.none()),
        st.tuples(st.just("other table"), KEYS, st.none()),
    ),
    min_size=15,
    max_size=40,
)


@given(steps=STEPS, most=st.sampled_from([0, 2, 1000]))
@settings(max_examples=10, deadline=None, derandomize=True)
def test_answers_are_those_of_a_database_that_was_told_each_change_at_once(steps: list[Any], most: int) -> None:
    with duckdb.connect() as told, duckdb.connect() as plain, pytest.MonkeyPatch.context() as patch:
        for limit in ("_MOST_BYTES", "_MOST_KEYS", "_MOST_ANSWERS"):
            patch.setattr(working, limit, most)
        for db in (told, plain):
            db.execute(SCHEMA)
            db.execute("BEGIN")
        rows = WorkingSet(told)
        for place, step in enumerate(steps):
            if not take(rows, told, plain, step, place):
                rows.forget()
                for db in (told, plain):
                    db.execute("ROLLBACK")
                    db.execute("BEGIN")
            look(rows, plain, step[1])
        rows.write_out()
        assert stored(told) == stored(plain)


def take(rows: WorkingSet, told: Any, plain: Any, step: Any, place: int) -> bool:
    """One step on both; False if the database refused it, or it was to be rolled back."""
    kind, (where, number), value = step
    row = shelf(where, number, colour=value, papers=f'["{place}"]')
    try:
        if kind == "insert":
            marks = ", ".join("?" * len(row))
            plain.execute(f"INSERT INTO shelves VALUES ({marks})", list(row.values()))
            rows.insert("shelves", **row)
        elif kind == "update":
            plain.execute("UPDATE shelves SET weight = ? WHERE place = ? AND number = ?", [value, where, number])
            rows.update("shelves", where, number, weight=value)
        elif kind == "delete":
            for db in (plain, rows):
                db.execute("DELETE FROM shelves WHERE place = ? AND number = ?", [where, number])
        elif kind == "other table":
            for db in (plain, rows):
                db.execute("INSERT INTO boxes VALUES (?, ?)", [f"{place}", where])
        elif kind == "commit":
            rows.write_out()
            for db in (told, plain):
                db.execute("COMMIT")
                db.execute("BEGIN")
            rows.settle()
    except duckdb.ConstraintException:
        return False
    return bool(kind != "roll back")


def look(rows: WorkingSet, plain: Any, key: tuple[str, int]) -> None:
    """Ask the same of both, in every way there is."""
    where, number = key
    names = "place number colour weight papers full_up".split()
    keyed = plain.execute("SELECT * FROM shelves WHERE place = ? AND number = ?", [where, number]).fetchone()
    assert plainly(rows.find("shelves", where, number)) == (dict(zip(names, keyed, strict=True)) if keyed else None)
    of_place = plain.execute("SELECT * FROM shelves WHERE place = ? ORDER BY number", [where]).fetchall()
    found = [tuple(row.values()) for row in rows.select("shelves", place=where)]
    assert sorted(found) == sorted(of_place)
    assert rows.exists("shelves", place=where, colour="red") == any(row[2] == "red" for row in of_place)
    for query, values in (
        ("SELECT count(*), sum(weight) FROM shelves", []),
        (
            "SELECT s.number, b.id FROM shelves s JOIN boxes b ON s.place = b.place WHERE b.place = ? ORDER BY ALL",
            [where],
        ),
    ):
        assert rows.execute(query, values).fetchall() == plain.execute(query, values).fetchall()


def plainly(row: Row | None) -> dict[str, Any] | None:
    return dict(row) if row is not None else None
