"""`--fix` writes a new data set, logs every change, loses nothing, and never touches what it was given."""

import json
from pathlib import Path

import pytest

from registry.client import InvalidRequest
from trainer.preflight.check import Options, check
from trainer.preflight.fixing import fix

LINES = [
    b'{"instruction": "How long?", "output": "3 years.", "id": "a"}',
    b'{"instruction": "How long?", "output": "3  years."}',
    '{"instruction": "Who?", "output": "Itâ€™s Zoë. "}'.encode(),
    b'{"instruction": "broken", ',
    b'{"messages": [{"role": "user", "content": "Mail?"}, {"role": "assistant", "content": "jane@mail.example.org"}]}',
    b'{"instruction": "Odd   but fine", "output": "ok then."}',
]


def write(folder: Path) -> Path:
    path = folder / "data.jsonl"
    path.write_bytes(b"\n".join(LINES) + b"\n")
    return path


def test_what_a_machine_may_fix_is_fixed_and_every_change_is_logged(tmp_path: Path) -> None:
    path = write(tmp_path)
    before = path.read_bytes()
    fixed = fix(check(path, Options()), tmp_path / "new.jsonl", mask=False)
    lines = (tmp_path / "new.jsonl").read_bytes().splitlines()
    assert path.read_bytes() == before
    assert lines == [LINES[0], '{"instruction": "Who?", "output": "It’s Zoë."}'.encode(), *LINES[3:]]
    log = [json.loads(line) for line in Path(fixed.log).read_text().splitlines()]
    assert [(one["line"], one["action"], one["rules"]) for one in log] == [
        (2, "dropped", ["W220"]),
        (3, "repaired", ["W246", "W251"]),
    ]
    assert log[1]["new_line"] == 2 and fixed.changes == {"dropped": 1, "repaired": 1} and fixed.lines == 5


def test_masking_is_asked_for_and_leaves_no_trace_in_the_log(tmp_path: Path) -> None:
    fixed = fix(check(write(tmp_path), Options()), tmp_path / "new.jsonl", mask=True)
    text = (tmp_path / "new.jsonl").read_text() + Path(fixed.log).read_text()
    assert "jane" not in text and "<EMAIL_ADDRESS>" in text and fixed.changes["masked"] == 1


def test_what_was_fixed_is_not_found_again(tmp_path: Path) -> None:
    fix(check(write(tmp_path), Options()), tmp_path / "new.jsonl", mask=True)
    left = check(tmp_path / "new.jsonl", Options()).report.counts()
    assert not {"W220", "W231", "W246", "W251"} & set(left) and left["E201"] == 1


def test_a_table_becomes_json_lines(tmp_path: Path) -> None:
    (tmp_path / "data.csv").write_text("instruction,output\nq,a b\nq,a b\np,c ,d\nr,e\n")
    fixed = fix(check(tmp_path / "data.csv", Options()), tmp_path / "new.jsonl", mask=False)
    assert fixed.changes == {"dropped": 1, "left_out": 1}, "a row that is no row has no line to carry over"
    rows = [json.loads(line) for line in (tmp_path / "new.jsonl").read_text().splitlines()]
    assert rows == [{"instruction": "q", "output": "a b"}, {"instruction": "r", "output": "e"}]


@pytest.mark.parametrize("name", ["data.jsonl", "other.jsonl", "new.jsonl", "new.csv"])
def test_nothing_is_ever_written_over(tmp_path: Path, name: str) -> None:
    path = write(tmp_path)
    (tmp_path / "other.jsonl").write_text("precious")
    (tmp_path / "new.jsonl.changes.jsonl").write_text("precious")
    before = {one: one.read_bytes() for one in tmp_path.iterdir()}
    with pytest.raises(InvalidRequest):
        fix(check(path, Options()), tmp_path / name, mask=False)
    assert {one: one.read_bytes() for one in tmp_path.iterdir()} == before
