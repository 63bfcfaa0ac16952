"""The ledger holds every row with what became of it, and is the same file for the same rows."""

from pathlib import Path

import duckdb
from factories import sha

from trainer.ledger import LedgerRow, write_ledger


def make_row(line: int, disposition: str = "trained") -> LedgerRow:
    return LedgerRow("data", f"r{line}", line, f"g'{line}", disposition, "", "c" * 64, "d" * 64, 40, 10)


def read(path: Path) -> list[tuple[object, ...]]:
    with duckdb.connect() as db:
        return db.execute("SELECT * FROM read_parquet(?)", [str(path)]).fetchall()


def test_every_row_is_there_in_its_order(tmp_path: Path) -> None:
    rows = [make_row(line, "trained" if line % 3 else "duplicate") for line in range(1, 1203)]
    write_ledger(tmp_path / "ledger.parquet", rows)
    assert read(tmp_path / "ledger.parquet") == [tuple(row) for row in rows]


def test_the_same_rows_give_the_same_bytes(tmp_path: Path) -> None:
    rows = [make_row(line) for line in range(700)]
    digests = set()
    for name in ("a.parquet", "b.parquet"):
        write_ledger(tmp_path / name, rows)
        digests.add(sha((tmp_path / name).read_bytes()))
    assert len(digests) == 1
    write_ledger(tmp_path / "c.parquet", rows[:-1])
    assert sha((tmp_path / "c.parquet").read_bytes()) not in digests


def test_a_path_with_a_quote_is_a_path(tmp_path: Path) -> None:
    folder = tmp_path / "ada's run"
    folder.mkdir()
    write_ledger(folder / "ledger.parquet", [make_row(1)])
    assert len(read(folder / "ledger.parquet")) == 1


def test_no_rows_are_a_ledger_too(tmp_path: Path) -> None:
    write_ledger(tmp_path / "ledger.parquet", [])
    assert read(tmp_path / "ledger.parquet") == []
