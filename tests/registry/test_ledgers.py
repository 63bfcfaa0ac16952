"""Ledgers read back: by what became of a row, by row, by source; older ones and files that are none."""

import contextlib
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from registry.errors import InvalidRequest, Unavailable
from registry.ledgers import Ledger, LedgerEntry
from registry.licensed import REVIEW_FIELDS, void_review
from registry.records import LedgerReviews
from trainer.ledger import LedgerRow, write_ledger
from trainer.provenance import lacking


def make_row(line: int, disposition: str = "trained", **changes: Any) -> LedgerRow:
    row = LedgerRow("data", f"r{line}", line, "g", disposition, "", f"{line:064x}", f"{line + 1000:064x}", 40, 10)
    return row._replace(**changes)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "it's a ledger.parquet"
    rows = [make_row(n, origin=f"https://x/{n % 3}", licence="CC0-1.0" if n % 2 else "") for n in range(1, 2001)]
    write_ledger(path, [*rows, make_row(2001, "blocked", reason="without licence")])
    return path


def test_a_reader_knows_every_column_that_is_written() -> None:
    assert LedgerEntry.__struct_fields__ == LedgerRow._fields


def test_rows_come_in_the_order_of_the_file(file: Path) -> None:
    with Ledger(file) as ledger:
        assert [one.line for one in ledger.entries()] == list(range(1, 2002))
        assert [one.reason for one in ledger.entries("blocked")] == ["without licence"]
        assert ledger.counts("disposition") == {"trained": 2000, "blocked": 1}
        assert ledger.counts("licence") == {"CC0-1.0": 1000}


def test_a_row_is_found_by_its_content_and_by_what_the_model_saw(file: Path) -> None:
    with Ledger(file) as ledger:
        for sha256 in (f"{7:064x}", f"{1007:064x}"):
            assert 7 in [one.line for one in ledger.of_row(sha256)]
        assert list(ledger.of_row("f" * 64)) == []


@pytest.mark.parametrize(
    ("origin", "count"),
    [("https://x/1", 667), ("https://x/", 0), ("https://x/*", 2000), ("*", 2000), ("https://y*", 0), ("' OR ''='", 0)],
)
def test_rows_of_a_source_are_found_by_all_of_its_name_or_its_beginning(file: Path, origin: str, count: int) -> None:
    with Ledger(file) as ledger:
        assert len(list(ledger.from_origin(origin))) == count


def test_a_ledger_of_an_older_trainer_is_read_without_provenance(tmp_path: Path) -> None:
    path = tmp_path / "old.parquet"
    with duckdb.connect() as db:
        db.execute(
            "COPY (SELECT 'data' AS source, 'r' AS id, 3 AS line, 'g' AS \"group\", 'trained' AS disposition,"
            " '' AS reason, 'c' AS content_sha256, NULL AS rendered_sha256, 9 AS tokens, 4 AS trained_tokens)"
            f" TO '{path}'"
        )
    with Ledger(path) as ledger:
        assert list(ledger.entries()) == [LedgerEntry("data", "r", 3, "g", "trained", "", "c", "", 9, 4)]
        assert list(ledger.from_origin("x")) == [] and ledger.counts("origin") == {}


def test_a_parquet_file_of_something_else_is_no_ledger(tmp_path: Path) -> None:
    with duckdb.connect() as db:
        db.execute(f"COPY (SELECT 1 AS line) TO '{tmp_path}/x.parquet'")
    with pytest.raises(InvalidRequest, match="no column 'source'"):
        Ledger(tmp_path / "x.parquet")


def test_a_column_that_no_ledger_has_is_refused(file: Path) -> None:
    with Ledger(file) as ledger, pytest.raises(InvalidRequest, match="has no column"):
        ledger.counts('x" FROM y; --')


@given(st.binary(max_size=300), st.integers(0, 400))
def test_a_file_that_is_no_ledger_is_told_so(tmp_path_factory: pytest.TempPathFactory, data: bytes, cut: int) -> None:
    path = tmp_path_factory.mktemp("fuzz") / "l.parquet"
    path.write_bytes(b"PAR1" + data[:cut] + b"PAR1")
    with pytest.raises((InvalidRequest, Unavailable), match=r"no training ledger|as its trainer wrote it"):
        Ledger(path)


# -- who reviewed what trained -----------------------------------------------------------------------------------------

RIGHT = {
    "reviewer": "ada",
    "credential": "nurse 7",
    "reviewed_at": "2026-03-01",
    "credential_valid_until": "2026-12-31",
}
NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)


def reviews_of(path: Path, *rows: LedgerRow) -> LedgerReviews:
    write_ledger(path / "reviewed.parquet", rows)
    with Ledger(path / "reviewed.parquet") as ledger:
        return ledger.reviews(NOW)


def test_rows_that_trained_are_counted_and_those_without_a_valid_review_are_named(tmp_path: Path) -> None:
    found = reviews_of(
        tmp_path,
        make_row(1, **RIGHT),
        make_row(2, **RIGHT),
        make_row(3),
        make_row(4, **{**RIGHT, "credential_valid_until": "2026-02-28"}),
        make_row(5, **{**RIGHT, "credential": " "}),
        make_row(6, source="dpo"),
        make_row(7, source="dpo", **RIGHT),
        make_row(8, "blocked", trained_tokens=0),
    )
    assert found == LedgerReviews(trained=7, licensed=3, without=("line 3", "line 4", "line 5", "pair on line 6"))


@pytest.mark.parametrize(
    ("at", "licensed"),
    [
        ("2026-06-01", 1),
        ("2026-06-01T12:00:00Z", 1),
        ("2026-06-01T12:00:01Z", 0),
        ("2026-06-01T12:30:00+01:00", 1),
        ("2026-06-02", 0),
    ],
)
def test_a_review_that_is_later_than_the_ledger_is_none(tmp_path: Path, at: str, licensed: int) -> None:
    assert reviews_of(tmp_path, make_row(1, **{**RIGHT, "reviewed_at": at})).licensed == licensed


@pytest.mark.parametrize("disposition", ["validation", "test", "duplicate", "too_long", "blocked", "empty", "held_out"])
def test_a_row_that_did_not_train_needs_no_review(tmp_path: Path, disposition: str) -> None:
    assert reviews_of(tmp_path, make_row(1, disposition, trained_tokens=0)) == LedgerReviews()
    # What was trained on was trained on, whatever the ledger calls it.
    assert reviews_of(tmp_path, make_row(1, disposition, trained_tokens=3)).trained == 1


@pytest.mark.parametrize("disposition", ["trained", "truncated", "", "Blocked", "validation ", "rehearsed"])
def test_what_a_row_became_is_not_guessed_to_be_harmless(tmp_path: Path, disposition: str) -> None:
    assert reviews_of(tmp_path, make_row(1, disposition, trained_tokens=0)).trained == 1


def test_replay_teaches_nothing_that_a_person_wrote_unless_its_tokens_were_learnt(tmp_path: Path) -> None:
    assert reviews_of(tmp_path, make_row(1, source="replay", trained_tokens=0)) == LedgerReviews()
    assert reviews_of(tmp_path, make_row(1, source="replay", trained_tokens=1)).trained == 1
    assert reviews_of(tmp_path, make_row(1, source="replay", trained_tokens=-1)).trained == 1


def test_a_ledger_without_the_columns_of_a_review_shows_none(tmp_path: Path) -> None:
    write_ledger(tmp_path / "new.parquet", [make_row(1, **RIGHT)])
    with duckdb.connect() as db:
        names = ", ".join(RIGHT)
        rest = f"SELECT * EXCLUDE ({names}) FROM '{tmp_path}/new.parquet'"
        db.execute(f"COPY ({rest}) TO '{tmp_path}/o.parquet' (FORMAT parquet)")
    with Ledger(tmp_path / "o.parquet") as ledger:
        assert ledger.reviews(NOW) == LedgerReviews(trained=1, licensed=0, without=("line 1",))


def test_a_ledger_of_more_rows_than_are_read_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("registry.ledgers._MOST_ROWS", 2)
    assert reviews_of(tmp_path, make_row(1), make_row(2)).trained == 2
    with pytest.raises(InvalidRequest, match="more than 2 rows"):
        reviews_of(tmp_path, make_row(1), make_row(2), make_row(3))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        # Cut at 64 characters, each of these would be a date.
        ("credential_valid_until", "2026-12-31" + " " * 54 + "REVOKED"),
        ("reviewed_at", "2026-03-01" + " " * 190 + "not"),
        ("credential_valid_until", "2026-12-31" + " " * 191),
        ("reviewer", "a" * 201),
        ("credential", "\u200b"),
        ("reviewer", "\u2060\ufeff\u202e"),
        ("reviewer", "\u3164\u1160"),
        ("credential", "\u2800 -"),
    ],
)
def test_trainer_and_registry_agree_that_a_review_is_void(tmp_path: Path, field: str, value: str) -> None:
    told = {**RIGHT, field: value}
    assert lacking(told, (), licensed_review=True)
    found = reviews_of(tmp_path, make_row(1, **told))
    assert (found.trained, found.licensed, found.without) == (1, 0, ("line 1",))


@pytest.mark.parametrize("who", ["a" * 200, "Å\u0308sa", "\u91d1\u200d", "7"])
def test_a_name_that_can_be_seen_is_one_in_any_script(tmp_path: Path, who: str) -> None:
    assert not lacking({**RIGHT, "reviewer": who}, (), licensed_review=True)
    assert reviews_of(tmp_path, make_row(1, **{**RIGHT, "reviewer": who})).licensed == 1


def write_hostile(path: Path, rows: int, **columns: str) -> None:
    """A ledger by expressions over the row's number `i`."""
    texts = dict.fromkeys((*LedgerEntry.__struct_fields__,), "''")
    numbers = {"line": "i", "tokens": "9", "trained_tokens": "4", "disposition": "'trained'"}
    right = {name: f"'{value}'" for name, value in RIGHT.items()}
    told = ", ".join(f'{value} AS "{name}"' for name, value in {**texts, **numbers, **right, **columns}.items())
    with duckdb.connect() as db:
        db.execute(f"COPY (SELECT {told} FROM range({rows}) t(i)) TO '{path}' (FORMAT parquet, PARQUET_VERSION v2)")


@pytest.mark.slow
def test_a_ledger_of_nothing_but_different_texts_is_counted_without_being_held(tmp_path: Path) -> None:
    """Measured in a process of its own, as the highest that it ever had."""
    write_hostile(tmp_path / "l.parquet", 300_000, **{name: "lpad(i::TEXT, 64, 'x')" for name in RIGHT if "r" in name})
    write_ledger(tmp_path / "one.parquet", [make_row(1, **RIGHT)])
    program = tmp_path / "count.py"  # DuckDB takes `python -c` for a person, and draws a progress bar
    program.write_text(
        "import sys, pathlib, datetime\nfrom registry.ledgers import Ledger\n"
        "with Ledger(pathlib.Path(sys.argv[1])) as ledger:\n"
        "    assert ledger.reviews(datetime.datetime.now(datetime.UTC)).trained == int(sys.argv[2])\n"
        "status = pathlib.Path('/proc/self/status').read_text()\n"
        "print(status.partition('VmHWM:')[2].split()[0])\n"
    )
    few, many = (
        int(subprocess.check_output([sys.executable, program, tmp_path / name, rows]))
        for name, rows in (("one.parquet", "1"), ("l.parquet", "300000"))
    )
    # Held, they were 230 MiB more.
    assert many - few < 100 * 1024


@pytest.mark.parametrize("value", ["[i, i]", "{'a': i}", "MAP {'a': i}"])
def test_a_column_that_is_long_while_its_file_is_short_is_refused(tmp_path: Path, value: str) -> None:
    write_hostile(tmp_path / "l.parquet", 3, reviewer=value)
    with pytest.raises(InvalidRequest, match="'reviewer' is neither text nor a number"):
        Ledger(tmp_path / "l.parquet")


def test_the_first_five_rows_without_a_review_are_named_in_the_order_of_the_file(tmp_path: Path) -> None:
    """Over many groups of rows, and more rows than are fetched at once."""
    path = tmp_path / "l.parquet"
    write_hostile(
        path, 30_000, line="30000 - i", reviewer="CASE WHEN i % 7000 = 6999 OR i > 29990 THEN '' ELSE 'a' END"
    )
    with Ledger(path) as ledger:
        found = ledger.reviews(NOW)
    assert (found.trained, found.licensed) == (30_000, 30_000 - 4 - 9)
    assert found.without == ("line 23001", "line 16001", "line 9001", "line 2001", "line 9")


def test_what_keeps_a_ledger_from_being_read_this_time_is_no_fault_of_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_ledger(tmp_path / "l.parquet", [make_row(1, **RIGHT)])
    monkeypatch.setattr("registry.ledgers._COUNTING_MEMORY", "1KB")
    with Ledger(tmp_path / "l.parquet") as ledger, pytest.raises(Unavailable, match=r"Out of Memory.*try again"):
        ledger.reviews(NOW)
    (tmp_path / "l.parquet").unlink()
    with pytest.raises(Unavailable, match=r"Cannot access.*l\.parquet.*try again") as raised:
        Ledger(tmp_path / "l.parquet")
    assert str(tmp_path) not in str(raised.value)


DATES = st.sampled_from(
    ["", "2026-01-01", "2026-05-01T10:00:00Z", "2026-06-01", "2026-07-01", "soon", "2026-05-01 " * 9]
)
ROWS = st.builds(
    lambda source, disposition, tokens, who, what, at, until: make_row(
        1,
        disposition,
        source=source,
        trained_tokens=tokens,
        reviewer=who,
        credential=what,
        reviewed_at=at,
        credential_valid_until=until,
    ),
    st.sampled_from(["data", "replay", "dpo"]),
    st.sampled_from(["trained", "test", "blocked"]),
    st.sampled_from([0, 5]),
    st.sampled_from(["", "ada", "bo" * 50, "bo" * 101]),
    st.sampled_from(["", "nurse", "\u00a0", "\u200b"]),
    DATES,
    DATES,
)


@pytest.mark.slow
@settings(max_examples=30, deadline=None)
@given(st.lists(ROWS, max_size=30))
def test_the_counts_are_those_of_looking_at_every_row(
    tmp_path_factory: pytest.TempPathFactory, rows: list[LedgerRow]
) -> None:
    taught = [row for row in rows if row.trained_tokens or (row.disposition == "trained" and row.source != "replay")]
    valid = [row for row in taught if not void_review({key: getattr(row, key) for key in REVIEW_FIELDS}, NOW)]
    found = reviews_of(tmp_path_factory.mktemp("rows"), *rows)
    assert (found.trained, found.licensed, bool(found.without)) == (len(taught), len(valid), taught != valid)


def test_reading_a_ledger_reaches_no_other_file(tmp_path: Path, file: Path) -> None:
    (tmp_path / "other.csv").write_text("a\n1\n")
    with Ledger(file) as ledger, pytest.raises(Unavailable, match="Permission Error"):
        ledger._run(f"SELECT * FROM '{tmp_path}/other.csv'", [])


@pytest.mark.slow
@settings(max_examples=50, deadline=None)
@given(st.data())
def test_a_ledger_with_damaged_bytes_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("damaged")
    write_ledger(folder / "l.parquet", [make_row(n, **RIGHT) for n in range(1, 40)])
    body = bytearray((folder / "l.parquet").read_bytes())
    for place in data.draw(st.lists(st.integers(0, len(body) - 1), min_size=1, max_size=6)):
        body[place] = data.draw(st.integers(0, 255))
    (folder / "l.parquet").write_bytes(body)
    with contextlib.suppress(InvalidRequest, Unavailable), Ledger(folder / "l.parquet") as ledger:
        assert ledger.reviews(NOW).licensed <= 39
