"""Results on disk: what was measured is not measured again, and never taken for something else."""

import json
from pathlib import Path

import pytest

from evaluator.results import Answered, Measured, Results

KEY = {"base": "b", "subject": "base", "suite": "s", "engine": "e", "convention": "c"}


def open_results(folder: Path, **changes: str) -> Results:
    return Results(folder, Answered, {**KEY, **changes})


def fill(folder: Path, n: int, **changes: str) -> Path:
    results = open_results(folder, **changes)
    for i in range(n):
        results.add(Answered(f"i{i}", f"text {i}", 3, "stop"))
    results.close()
    [path] = folder.glob("*.jsonl")
    return path


def found(folder: Path, kind: type[Answered] | type[Measured] = Answered, **changes: str) -> dict[str, object]:
    """What is there, as the next worker finds it."""
    results = Results(folder, kind, {**KEY, **changes})
    results.close()
    return dict(results.found)


def test_what_was_added_is_found_again(tmp_path: Path) -> None:
    fill(tmp_path, 3)
    assert list(found(tmp_path)) == ["i0", "i1", "i2"]
    assert found(tmp_path)["i1"] == Answered("i1", "text 1", 3, "stop")


def test_what_was_added_is_there_for_whoever_comes_after_a_kill(tmp_path: Path) -> None:
    killed = open_results(tmp_path)
    killed.add(Answered("i0", "text", 3, "stop"))
    assert list(found(tmp_path)) == ["i0"]  # nobody has closed the first
    killed.close()


@pytest.mark.parametrize("torn", [b'{"item":"i9","te', b"\x00\x00\x00", b'{"item":"i9"}\n', b"[]\n"])
def test_a_torn_last_line_is_dropped_and_writing_goes_on_behind_the_whole_ones(tmp_path: Path, torn: bytes) -> None:
    path = fill(tmp_path, 2)
    with path.open("ab") as file:
        file.write(torn)
    results = open_results(tmp_path)
    assert list(results.found) == ["i0", "i1"]
    results.add(Answered("i2", "text 2", 3, "stop"))
    results.close()
    assert [json.loads(line)["item"] for line in path.read_text().splitlines()] == ["i0", "i1", "i2"]
    assert list(found(tmp_path)) == ["i0", "i1", "i2"]


@pytest.mark.parametrize("cut", range(0, 60, 7))
def test_a_file_cut_anywhere_keeps_its_whole_lines(tmp_path: Path, cut: int) -> None:
    path = fill(tmp_path, 3)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) - cut])
    kept = whole[: len(whole) - cut].count(b"\n")
    assert list(found(tmp_path)) == [f"i{i}" for i in range(kept)]


@pytest.mark.parametrize("part", sorted(KEY))
def test_results_of_another_base_subject_suite_engine_or_convention_are_not_reused(tmp_path: Path, part: str) -> None:
    fill(tmp_path, 2)
    assert found(tmp_path, **{part: "another"}) == {}


def test_answers_are_not_taken_for_scores(tmp_path: Path) -> None:
    fill(tmp_path, 2)
    assert found(tmp_path, Measured) == {}


def test_scores_come_back_to_the_last_bit(tmp_path: Path) -> None:
    results = Results(tmp_path, Measured, KEY)
    results.add(Measured("a", 0.1 + 0.2, 7))
    results.close()
    assert found(tmp_path, Measured)["a"] == Measured("a", 0.30000000000000004, 7)
