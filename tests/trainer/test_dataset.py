"""Training data: every fault named by its line, duplicates left out, groups kept together."""

import json
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.client import InvalidRequest, Message
from trainer.dataset import Row, Split, contradictions, prepare, read_rows, split_of


def write(folder: Path, *lines: object) -> Path:
    path = folder / "data.jsonl"
    path.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines))
    return path


def chat(*turns: tuple[str, str], **more: Any) -> dict[str, Any]:
    return {"messages": [{"role": role, "content": text} for role, text in turns], **more}


def make_row(line: int, question: str = "", answer: str = "a", group: str | None = None) -> Row:
    prompt = question or f"question {line}"
    return Row(f"r{line}", line, (Message(role="user", content=prompt),), answer, group or prompt, prompt + answer)


def test_both_shapes_are_read(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        {"instruction": "How long?", "output": "3 years.", "group": "ticket-17", "id": "first"},
        {"instruction": "Translate", "input": "chat", "output": "cat"},
        "",
        chat(("system", "s"), ("user", "u"), ("assistant", "a"), ("user", "u2"), ("assistant", "a2")),
    )
    one, two, three = read_rows(path)
    assert (one.id, one.line, one.group, one.completion) == ("first", 1, "ticket-17", "3 years.")
    assert two.prompt[0].content == "Translate\nchat"
    assert (three.id, three.line) == ("line-4", 4)
    assert [message.role for message in three.prompt] == ["system", "user", "assistant", "user"]
    assert three.completion == "a2"


FAULTS = {
    "not JSON": '{"instruction": ',
    "not an object": "[1]",
    "neither shape": {"question": "q", "answer": "a"},
    "an unknown key": {"instruction": "q", "output": "a", "wieght": 1},
    "an answer that is no text": {"instruction": "q", "output": 3},
    "a blank answer": {"instruction": "q", "output": "  \n"},
    "a blank question": {"instruction": " ", "output": "a"},
    "one message": chat(("user", "u")),
    "the user has the last word": chat(("user", "u"), ("assistant", "a"), ("user", "u")),
    "the assistant begins": chat(("assistant", "a"), ("user", "u"), ("assistant", "a")),
    "two questions in a row": chat(("user", "u"), ("user", "u"), ("assistant", "a")),
    "a system message in the middle": chat(("user", "u"), ("system", "s"), ("assistant", "a")),
    "two system messages": chat(("system", "s"), ("system", "s"), ("user", "u"), ("assistant", "a")),
    "an unknown role": chat(("tool", "u"), ("assistant", "a")),
    "nested without end": "[" * 100_000,
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_faulty_line_is_named(fault: str, tmp_path: Path) -> None:
    good = {"instruction": "q", "output": "a"}
    with pytest.raises(InvalidRequest) as refused:
        read_rows(write(tmp_path, good, FAULTS[fault], good))
    assert len(refused.value.problems) == 1 and refused.value.problems[0].startswith("line 2: ")


def test_every_faulty_line_is_named_at_once(tmp_path: Path) -> None:
    good = {"instruction": "q", "output": "a"}
    lines = [line for fault in FAULTS.values() for line in (fault, good)]
    with pytest.raises(InvalidRequest) as refused:
        read_rows(write(tmp_path, *lines))
    named = [int(problem.split(":")[0].removeprefix("line ")) for problem in refused.value.problems]
    assert named == list(range(1, 2 * len(FAULTS), 2))
    assert f"{len(FAULTS)} faulty lines" in str(refused.value) and "…" in str(refused.value)


def test_an_id_is_used_once(tmp_path: Path) -> None:
    row = {"instruction": "q", "output": "a", "id": "x"}
    with pytest.raises(InvalidRequest, match="line 3: id 'x' is used on line 1 already"):
        read_rows(write(tmp_path, row, "", row))


@pytest.mark.parametrize("line", [b"\xff\xfe", b'{"instruction": "\xff", "output": "a"}'])
def test_bytes_that_are_no_text_are_a_faulty_line(tmp_path: Path, line: bytes) -> None:
    (tmp_path / "data.jsonl").write_bytes(b"\n" + line + b"\n")
    with pytest.raises(InvalidRequest, match="line 2: "):
        read_rows(tmp_path / "data.jsonl")


@pytest.mark.parametrize("content", ["", "\n\n"])
def test_an_empty_file_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "data.jsonl").write_text(content)
    with pytest.raises(InvalidRequest, match="holds no rows"):
        read_rows(tmp_path / "data.jsonl")


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="cannot be read"):
        read_rows(tmp_path / "nothing.jsonl")


def test_duplicates_are_left_out_and_told_with_their_first_line(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        {"instruction": "q", "output": "café"},
        {"instruction": "other", "output": "a"},
        {"instruction": " q ", "output": "cafe\u0301\n"},
        chat(("user", "q"), ("assistant", "café")),
        {"instruction": "q", "output": "another answer"},
        {"instruction": "Q", "output": "café"},
    )
    data = prepare(read_rows(path), seed=0)
    assert data.duplicates == [(3, 1), (4, 1)]
    assert [row.line for row in data.rows] == [1, 2, 5, 6]


def test_two_answers_to_one_question_are_found() -> None:
    rows = [make_row(1, "q", "yes"), make_row(2, "p", "x"), make_row(3, " q", "no"), make_row(4, "q", " yes ")]
    assert contradictions(rows) == [(1, 3)]


def test_the_split_is_frozen() -> None:
    """Another split would move rows from test to training in everyone's next run."""
    marks = {Split.TRAIN: ".", Split.VALIDATION: "v", Split.TEST: "t"}
    found = "".join(marks[split_of(f"ticket-{i}", seed=7)] for i in range(60))
    assert found == "..................t.t.tt.v.v...t............v....t.........."


def test_the_split_is_about_eighty_ten_ten_and_depends_on_the_seed() -> None:
    groups = [f"ticket-{i}" for i in range(5000)]
    found = [split_of(group, seed=1) for group in groups]
    assert found.count(Split.TRAIN) == pytest.approx(4000, abs=120)
    assert found.count(Split.VALIDATION) == pytest.approx(500, abs=90)
    assert found.count(Split.TEST) == pytest.approx(500, abs=90)
    assert found != [split_of(group, seed=2) for group in groups]


def test_rows_with_the_same_question_stay_together_without_a_group(tmp_path: Path) -> None:
    lines = [{"instruction": f"q{i % 40}", "output": f"answer {i}"} for i in range(200)]
    data = prepare(read_rows(write(tmp_path, *lines)), seed=0)
    by_question: dict[str, set[Split]] = {}
    for row, split in zip(data.rows, data.splits, strict=True):
        by_question.setdefault(row.prompt[0].content, set()).add(split)
    assert len(data.rows) == 200 and all(len(splits) == 1 for splits in by_question.values())


rows = st.lists(st.tuples(st.integers(0, 9), st.integers(0, 3), st.integers(0, 30)), min_size=1, max_size=60).map(
    lambda found: [make_row(i, f"q{q}", f"a{a}", f"g{g}") for i, (q, a, g) in enumerate(found, start=1)]
)


@given(rows, st.integers(0, 100))
def test_no_group_is_in_two_splits_and_no_row_is_lost(found: list[Row], seed: int) -> None:
    data = prepare(found, seed)
    splits: dict[str, set[Split]] = {}
    for row, split in zip(data.rows, data.splits, strict=True):
        splits.setdefault(row.group, set()).add(split)
    assert all(len(one) == 1 for one in splits.values())
    assert len(data.rows) + len(data.duplicates) == len(found)
    assert len({row.digest for row in data.rows}) == len(data.rows)


@given(rows, st.integers(0, 100), st.randoms(use_true_random=False))
def test_the_order_of_the_rows_does_not_change_the_split(found: list[Row], seed: int, chance: random.Random) -> None:
    distinct = list({row.digest: row for row in found}.values())
    shuffled = list(distinct)
    chance.shuffle(shuffled)
    forth, back = prepare(distinct, seed), prepare(shuffled, seed)
    assert dict(zip((row.digest for row in forth.rows), forth.splits, strict=True)) == dict(
        zip((row.digest for row in back.rows), back.splits, strict=True)
    )
