"""Ledgers read back: by what became of a row, by row, by source; older ones and files that are none."""

from pathlib import Path

import duckdb
import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.errors import InvalidRequest
from registry.ledgers import Ledger, LedgerEntry
from trainer.ledger import LedgerRow, write_ledger


def make_row(line: int, disposition: str = "trained", **changes: str) -> LedgerRow:
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
    with pytest.raises(InvalidRequest, match="no training ledger"):
        Ledger(path)
