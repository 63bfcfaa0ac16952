"""Rows whose reviewer was not licensed at the review do not train where the recipe demands it; the ledger says why."""

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
from factories import make_weights
from hypothesis import given
from hypothesis import strategies as st
from tiny_base import build_tokenizer

from registry.client import InvalidRequest
from registry.ledgers import Ledger
from trainer.ledger import LedgerRow, write_ledger
from trainer.model import load_tokenizer
from trainer.preflight.check import Options, admit
from trainer.preflight.codes import Waiver
from trainer.preflight.pairs import check_pairs
from trainer.preflight.reading import Row, read
from trainer.preflight.reviews import check_reviews
from trainer.provenance import REVIEW_FIELDS, lacking, moment
from trainer.recipe import parse_recipe
from trainer.record import ledger
from trainer.rendering import render_data
from trainer.run import plan_run

RIGHT = {
    "reviewer": "ada",
    "credential": "nurse 7",
    "reviewed_at": "2026-03-01",
    "credential_valid_until": "2026-12-31",
}
ASKED = 'name = "x"\nbase = "b"\ndata = "d.jsonl"\n[provenance]\nlicensed_review = true\n'


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({}, ""),
        ({"reviewed_at": "2026-12-31T23:59:59Z"}, ""),
        ({"reviewed_at": "2027-01-01"}, "ran out on 2026-12-31, before the review of 2027-01-01"),
        ({"reviewed_at": "2026-12-31T23:30:00-01:00"}, "ran out"),
        ({"credential_valid_until": "2026-03-01"}, ""),
        ({"credential_valid_until": "2026-02-28"}, "ran out"),
        ({"credential_valid_until": ""}, "without credential_valid_until"),
        ({"reviewed_at": "in spring"}, "'in spring' is no date"),
        ({"reviewer": " "}, "without reviewer"),
    ],
)
def test_a_review_counts_if_the_credential_was_valid_when_it_was_made(change: dict[str, str], why: str) -> None:
    found = lacking({**RIGHT, **change}, (), licensed_review=True)
    assert why in found and bool(found) is bool(why)


@pytest.mark.parametrize("key", REVIEW_FIELDS)
def test_nothing_that_a_review_needs_may_be_missing(key: str) -> None:
    told = {name: value for name, value in RIGHT.items() if name != key}
    assert lacking(told, (), licensed_review=True) == f"without {key}"
    assert lacking(told, (), licensed_review=False) == ""


def test_without_the_demand_an_old_credential_stops_nothing() -> None:
    assert lacking({**RIGHT, "credential_valid_until": "2001-01-01"}, REVIEW_FIELDS, licensed_review=False) == ""


@given(st.datetimes(), st.datetimes())
def test_of_two_times_one_is_before_the_other(one, other) -> None:
    told = {**RIGHT, "reviewed_at": one.isoformat(), "credential_valid_until": other.isoformat()}
    assert bool(lacking(told, (), licensed_review=True)) is (one > other)


@given(st.text(max_size=30))
def test_any_text_is_a_moment_or_none(text: str) -> None:
    found = moment(text)
    assert found is None or found.tzinfo is not None


@pytest.mark.stack
def test_a_void_review_blocks_its_row_in_every_split_and_the_ledger_tells(tmp_path: Path) -> None:
    (tmp_path / "base").mkdir()
    for name, data in {"config.json": b"{}", "model.safetensors": make_weights()}.items():
        (tmp_path / "base" / name).write_bytes(data)
    build_tokenizer(tmp_path / "base")
    late = {"reviewed_at": "2027-05-01T10:00:00Z"}
    rows = [
        {"instruction": "q0", "output": "a0", "split": "train", **RIGHT},
        {"instruction": "q1", "output": "a1", "split": "train", **RIGHT, **late},
        {"instruction": "q2", "output": "a2", "split": "test", **RIGHT, **late},
        {"instruction": "q3", "output": "a3", "split": "train"},
    ]
    (tmp_path / "d.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    planned = plan_run(parse_recipe(ASKED), ASKED, tmp_path, tmp_path / "base", tmp_path / "runs")
    rendered = render_data(planned, load_tokenizer(tmp_path / "base"))
    write_ledger(tmp_path / "ledger.parquet", ledger(planned, rendered))
    with Ledger(tmp_path / "ledger.parquet") as told:
        found = {one.line: one for one in told.entries()}
    assert [found[line].disposition for line in (1, 2, 3, 4)] == ["trained", "blocked", "blocked", "blocked"]
    assert "ran out on 2026-12-31" in found[2].reason and "without reviewer" in found[4].reason
    assert found[2].trained_tokens == 0
    assert (found[2].reviewed_at, found[2].credential_valid_until) == ("2027-05-01T10:00:00Z", "2026-12-31")


def test_a_date_that_is_none_is_a_faulty_row(tmp_path: Path) -> None:
    row = {"instruction": "q", "output": "a", **RIGHT}
    lines = [row, {**row, "reviewed_at": "01.03.2026"}, {**row, "credential_valid_until": 12}]
    (tmp_path / "d.jsonl").write_text("".join(json.dumps(one) + "\n" for one in lines))
    found = read(tmp_path / "d.jsonl")
    assert [(one.line, one.rule) for one in found.problems] == [(2, "E207"), (3, "E207")]
    assert found.rows[0].provenance == RIGHT


def test_dates_of_a_parquet_column_are_taken_as_they_are(tmp_path: Path) -> None:
    import duckdb

    with duckdb.connect() as db:
        db.execute(
            "COPY (SELECT 'q' AS instruction, 'a' AS output, DATE '2026-03-01' AS reviewed_at, "
            f"TIMESTAMP '2026-12-31 10:00:00' AS credential_valid_until) TO '{tmp_path}/d.parquet' (FORMAT parquet)"
        )
    (row,) = read(tmp_path / "d.parquet").rows
    assert row.provenance == {"reviewed_at": "2026-03-01", "credential_valid_until": "2026-12-31T10:00:00"}


def test_a_ledger_of_an_older_trainer_is_read_without_the_dates(tmp_path: Path) -> None:
    import duckdb

    row = LedgerRow("data", "r", 1, "g", "trained", "", "c" * 64, "d" * 64, 9, 3, credential="nurse 7", reviewed_at="x")
    write_ledger(tmp_path / "new.parquet", [row])
    with duckdb.connect() as db:
        db.execute(
            f"COPY (SELECT * EXCLUDE (reviewed_at, credential_valid_until) FROM '{tmp_path}/new.parquet') "
            f"TO '{tmp_path}/old.parquet' (FORMAT parquet)"
        )
    with Ledger(tmp_path / "old.parquet") as told:
        (found,) = told.entries()
    assert (found.credential, found.reviewed_at) == ("nurse 7", "")


def told(reviewed_at: str) -> dict[str, str]:
    return {**RIGHT, "reviewed_at": reviewed_at, "credential_valid_until": "9999-12-31"}


def test_a_review_that_is_still_to_come_is_a_finding_and_one_of_today_is_none() -> None:
    now = datetime(2026, 3, 1, 9, 30, tzinfo=UTC)
    dates = ["2026-03-01", "2026-03-01T09:30Z", "2026-03-01T10:00+01:00", "2026-03-02", "2026-03-01T09:31Z", "", "soon"]
    rows = [Row(f"r{n}", n, (), "a", "g", "d", n, None, told(text)) for n, text in enumerate(dates, start=1)]
    found = list(check_reviews([*rows, Row("x", 8, (), "a", "g", "d", 8)], now))
    assert [(one.line, one.rule, one.severity) for one in found] == [(4, "E253", "error"), (5, "E253", "error")]
    assert found[0].message == "reviewed_at is '2026-03-02', and it is 2026-03-01T09:30Z"


def test_data_with_a_review_that_is_still_to_come_are_stopped_before_a_run(tmp_path: Path) -> None:
    rows = [
        {"instruction": f"q{n}", "output": f"a{n}", **told("9998-01-01" if n == 3 else "2026-03-01")} for n in range(5)
    ]
    (tmp_path / "d.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    few = Waiver("E140", "a pilot")
    with pytest.raises(InvalidRequest, match=r"line 4: reviewed_at is '9998-01-01'.*give the day"):
        admit(tmp_path / "d.jsonl", Options(waivers=[few]))
    report = admit(tmp_path / "d.jsonl", Options(waivers=[few, Waiver("E253", "a clock that went wrong")]))
    assert report.counts()["E253"] == 1


def test_pairs_with_a_review_that_is_still_to_come_are_named_too(tmp_path: Path) -> None:
    pairs = [
        {"prompt": f"q{n}", "chosen": f"a{n}", "rejected": f"b{n}", **told("9998-01-01" if n == 3 else "2026-03-01")}
        for n in range(5)
    ]
    (tmp_path / "p.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    report = check_pairs(tmp_path / "p.jsonl", Options()).report
    assert [one.line for one in report.problems if one.rule == "E253"] == [4] and report.blocked


def test_a_credential_that_was_withdrawn_on_the_day_of_the_review_does_not_count() -> None:
    """The hour of a review that names only its day is not known."""
    told = {"reviewer": "a", "credential": "b", "reviewed_at": "2026-03-01"}
    morning = {**told, "credential_valid_until": "2026-03-01T08:00:00Z"}
    assert "ran out" in lacking(morning, (), licensed_review=True)
    assert not lacking({**told, "credential_valid_until": "2026-03-01"}, (), licensed_review=True)
