"""What a person learns before a run, and that looking changes nothing."""

import json
from pathlib import Path

import pytest

from registry.client import InvalidRequest
from trainer.preflight import FEW_ROWS, preflight


def write(folder: Path, pairs: list[tuple[str, str]]) -> Path:
    path = folder / "data.jsonl"
    path.write_text("".join(json.dumps({"instruction": q, "output": a}) + "\n" for q, a in pairs))
    return path


def test_enough_distinct_rows_give_no_warning(tmp_path: Path) -> None:
    found = preflight(write(tmp_path, [(f"question {i}", "answer") for i in range(FEW_ROWS)]), seed=0)
    assert found.warnings == [] and found.duplicates == [] and found.contradictions == []
    assert found.rows == FEW_ROWS == sum(found.splits.values())
    assert all(found.splits[split] > 0 for split in ("train", "validation", "test"))
    assert found.longest_characters == len("question 499answer")


def test_everything_odd_is_told_at_once(tmp_path: Path) -> None:
    path = write(tmp_path, [("q", "yes"), ("q", "no"), ("q", "yes"), ("p", "x")])
    before = path.read_bytes()
    found = preflight(path, seed=0)
    assert (found.rows, found.duplicates, found.contradictions) == (4, [(3, 1)], [(1, 2)])
    told = " | ".join(found.warnings)
    assert "3 distinct rows" in told and "1 exact duplicates" in told and "lines 1 and 2" in told
    assert "no test rows" in told and "no train rows" not in told
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


def test_the_split_told_is_the_split_of_that_seed(tmp_path: Path) -> None:
    path = write(tmp_path, [(f"question {i}", "answer") for i in range(300)])
    assert preflight(path, seed=1).splits != preflight(path, seed=2).splits
    assert preflight(path, seed=1).splits == preflight(path, seed=1).splits


def test_the_findings_are_plain_json(tmp_path: Path) -> None:
    found = preflight(write(tmp_path, [("q", "a")]), seed=0)
    assert json.loads(json.dumps(found.as_json()))["splits"] == found.splits


def test_faulty_lines_are_all_named(tmp_path: Path) -> None:
    path = write(tmp_path, [("q", "a")])
    path.write_text(path.read_text() + "{\n" + path.read_text() + '{"instruction": "q"}\n')
    with pytest.raises(InvalidRequest) as refused:
        preflight(path, seed=0)
    assert [problem.split(":")[0] for problem in refused.value.problems] == ["line 2", "line 4"]
