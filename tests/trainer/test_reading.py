"""Whatever bytes a file of training data holds: rows, or listed errors, never a traceback."""

import csv
import io
import json
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from trainer.dataset import read_rows
from trainer.preflight.check import Options, check
from trainer.preflight.codes import Severity
from trainer.preflight.fixing import fix
from trainer.preflight.reading import Reading, Split, read
from trainer.preflight.records import MAX_LINE_BYTES
from trainer.preflight.report import page, summary, write_problems

GOOD = {"instruction": "How long?", "output": "3 years."}


def write(folder: Path, *lines: object, name: str = "data.jsonl") -> Path:
    path = folder / name
    parts = [line if isinstance(line, bytes) else json.dumps(line).encode() for line in lines]
    path.write_bytes(b"".join(part + b"\n" for part in parts))
    return path


def rules(reading: Reading) -> list[tuple[int | None, str]]:
    return [(one.line, one.rule) for one in reading.problems]


# -- the formats


def test_all_formats_say_the_same(tmp_path: Path) -> None:
    turns = [{"role": "user", "content": "How long?"}, {"role": "assistant", "content": "3 years."}]
    pair = {"prompt": turns[:1], "completion": turns[1:]}
    rows = [GOOD, {"prompt": "How long?", "completion": "3 years."}, {"messages": turns}, pair]
    assert len({row.digest for row in read(write(tmp_path, *rows)).rows}) == 1
    assert len(read(write(tmp_path, *rows)).rows) == 4


@pytest.mark.parametrize("name", ["data.csv", "data.tsv", "data.parquet"])
def test_tables_are_read_with_line_breaks_and_messages_in_their_cells(tmp_path: Path, name: str) -> None:
    messages = [{"role": "user", "content": "a\nb"}, {"role": "assistant", "content": 'He said "c", twice.'}]
    if name.endswith("parquet"):
        pyarrow.parquet.write_table(pyarrow.table({"messages": [messages, messages], "id": [1, 2]}), tmp_path / name)
    else:
        text = io.StringIO()
        writer = csv.writer(text, delimiter="\t" if name.endswith("tsv") else ",")
        writer.writerows([["messages", "id"], [json.dumps(messages), "1"], [json.dumps(messages), "2"]])
        (tmp_path / name).write_text(text.getvalue())
    rows = read_rows(tmp_path / name)
    assert [(row.id, row.prompt[0].content, row.completion) for row in rows] == [
        ("1", "a\nb", 'He said "c", twice.'),
        ("2", "a\nb", 'He said "c", twice.'),
    ]


def test_a_row_says_where_it_comes_from_and_which_split_it_is_in(tmp_path: Path) -> None:
    row = {**GOOD, "source": "ticket 4", "licence": "CC-BY-4.0", "reviewer": "ann", "split": "dev", "meta": {"x": 1}}
    (found,) = read(write(tmp_path, row)).rows
    assert found.provenance == {"source": "ticket 4", "licence": "CC-BY-4.0", "reviewer": "ann"}
    assert found.split is Split.VALIDATION


# -- the faults, each with its code

FAULTS: dict[str, tuple[object, str]] = {
    "bytes that are no text": (b'{"instruction": "\xff"}', "E200"),
    "half an object": (b'{"instruction": "q", ', "E201"),
    "nested without end": (b"[" * 100_000, "E201"),
    "NaN": (b'{"instruction": "q", "output": NaN}', "E201"),
    "a number of 5,000 digits": (b'{"instruction": "q", "output": ' + b"9" * 5_000 + b"}", "E201"),
    "a NUL in the line": (b'{"instruction": "q\x00", "output": "a"}', "E201"),
    "UTF-16 inside": ('{"instruction": "q"}'.encode("utf-16-le"), "E201"),
    "a list": ([GOOD], "E202"),
    "null": (None, "E202"),
    "a key twice": (b'{"instruction": "q", "output": "a", "output": "b"}', "E203"),
    "a huge line": (b'{"instruction": "' + b"q" * MAX_LINE_BYTES + b'", "output": "a"}', "E204"),
    "no format": ({"question": "q", "answer": "a"}, "E205"),
    "half a format": ({"prompt": "q"}, "E205"),
    "an answer of null": ({"instruction": "q", "output": None}, "E205"),
    "two formats at once": ({"messages": [], "prompt": "q"}, "E206"),
    "a misspelt field": ({**GOOD, "gruop": "x"}, "E206"),
    "an unknown field in a message": ({"messages": [{"role": "user", "content": "q", "name": "x"}]}, "E206"),
    "an answer that is a number": ({"instruction": "q", "output": 3}, "E207"),
    "messages that are text": ({"messages": "q"}, "E207"),
    "a message that is text": ({"messages": ["q"]}, "E207"),
    "a split that is none": ({**GOOD, "split": "training"}, "E207"),
    "a group that is a list": ({**GOOD, "group": ["x"]}, "E207"),
    "an unknown role": ({"messages": [{"role": "human", "content": "q"}]}, "E209"),
    "no messages": ({"messages": []}, "E211"),
    "a blank prompt": ({"instruction": " ", "output": "a"}, "E212"),
    "an empty answer": ({"instruction": "q", "output": ""}, "E213"),
    "an answer of no-break spaces": ({"instruction": "q", "output": "\u00a0\u2003"}, "E213"),
    "an escaped NUL": (b'{"instruction": "q", "output": "a\\u0000"}', "E217"),
    "half of a surrogate pair": (b'{"instruction": "q", "output": "\\ud83d"}', "E217"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_has_its_code_and_its_line_and_spoils_no_other_row(tmp_path: Path, fault: str) -> None:
    line, code = FAULTS[fault]
    reading = read(write(tmp_path, GOOD, line, {**GOOD, "output": "4."}))
    assert {(2, code)} <= set(rules(reading)) and {one.line for one in reading.problems} == {2}
    assert [row.line for row in reading.rows] == [1, 3]


def test_a_mark_at_the_start_is_told_and_read_over_and_utf_16_is_refused(tmp_path: Path) -> None:
    marked = read(write(tmp_path, b"\xef\xbb\xbf" + json.dumps(GOOD).encode()))
    assert len(marked.rows) == 1 and rules(marked) == [(1, "W218")]
    (tmp_path / "wide.jsonl").write_bytes(json.dumps(GOOD).encode("utf-16"))
    assert rules(read(tmp_path / "wide.jsonl")) == [(1, "E200")]


def test_few_rows_of_another_format_are_strays_and_many_make_the_file_mixed(tmp_path: Path) -> None:
    pair = {"prompt": "q", "completion": "a"}
    assert rules(read(write(tmp_path, *[GOOD] * 40, pair))) == [(41, "W208")]
    assert rules(read(write(tmp_path, *[GOOD] * 20, *[pair] * 20))) == [(None, "W208")]


def test_a_column_of_ones_own_is_told_once(tmp_path: Path) -> None:
    reading = read(write(tmp_path, *[{**GOOD, "topic": "x"}] * 12))
    assert rules(reading) == [(None, "W219")] and len(reading.rows) == 12


CSV_FAULTS = {
    "a cell too many": ("instruction,output\nq,a\nq,a,b\n", (3, "E216")),
    "a quote without end": ('instruction,output\nq,a\n"q,a\n', (3, "E216")),
    "a column twice": ("instruction,output,output\nq,a,b\n", (1, "E203")),
    "no text": ("instruction,output\nq,\udcff\n", (2, "E200")),
    "no header": ("q,a\nq,b\n", (2, "E205")),
    "messages that are no JSON": ("messages\n[{]\n", (2, "E207")),
    "an empty answer": ("instruction,output\nq,\n", (2, "E213")),
}


@pytest.mark.parametrize("fault", CSV_FAULTS)
def test_each_fault_of_a_csv_has_its_code_and_its_line(tmp_path: Path, fault: str) -> None:
    text, expected = CSV_FAULTS[fault]
    (tmp_path / "data.csv").write_bytes(text.encode("utf-8", "surrogateescape"))
    assert expected in rules(read(tmp_path / "data.csv"))


# -- fuzz

texts = st.text(max_size=20)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)
messages = st.lists(
    st.fixed_dictionaries(
        {"role": st.sampled_from(["user", "assistant", "system", "x"]) | values, "content": texts | values}
    )
    | values,
    max_size=4,
)
keys = st.sampled_from(
    [
        "instruction",
        "output",
        "input",
        "prompt",
        "completion",
        "messages",
        "id",
        "group",
        "split",
        "meta",
        "source",
        "x",
    ]
)
lines = st.dictionaries(keys, values | messages | texts, max_size=5).map(lambda one: json.dumps(one).encode())
contents = st.lists(st.binary(max_size=60) | lines | st.just(json.dumps(GOOD).encode()), max_size=8).map(b"\n".join)


def look_at_all(path: Path, folder: Path) -> None:
    """Everything that the command does with a file."""
    checked = check(path, Options())
    problems = checked.report.problems
    faulty = {one.line for one in problems if one.severity is Severity.ERROR and one.rule.startswith("E2")}
    good = {row.line for row in checked.reading.rows}
    assert {record.line for record in checked.reading.records} <= faulty | good, "a row is neither read nor faulty"
    assert all(one.message and one.fix for one in problems)
    assert summary(checked.report) and page(checked.report).encode("utf-8")
    write_problems(folder / "report.jsonl", problems)
    (folder / "fixed.jsonl").unlink(missing_ok=True)
    (folder / "fixed.jsonl.changes.jsonl").unlink(missing_ok=True)
    fix(checked, folder / "fixed.jsonl", mask=True)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(contents)
@example(b"")
@example(b"\x00" * 50)
@example(b'{"\\ud800": "\\udfff", "instruction": "q", "output": "a"}')
@example(b'{"messages": [{"role": "\\ud800", "content": "x"}]}')
def test_no_json_lines_whatever_end_in_a_traceback(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "data.jsonl").write_bytes(content)
    look_at_all(tmp_path / "data.jsonl", tmp_path)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(st.binary(max_size=200) | st.text(alphabet='ab,"\n\r\t[{}]\x00', max_size=60).map(str.encode))
def test_no_csv_whatever_ends_in_a_traceback(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "data.csv").write_bytes(b"instruction,output\n" + content)
    look_at_all(tmp_path / "data.csv", tmp_path)


def parquet_bytes() -> bytes:
    sink = io.BytesIO()
    table = pyarrow.table({"instruction": ["q", "p"], "output": ["a", None], "when": [1.5, None]})
    pyarrow.parquet.write_table(table, sink)
    return sink.getvalue()


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(st.data())
def test_no_damaged_parquet_ends_in_a_traceback(tmp_path: Path, data: st.DataObject) -> None:
    content = bytearray(parquet_bytes())
    for _ in range(data.draw(st.integers(0, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(content)))
    (tmp_path / "data.parquet").write_bytes(bytes(content[:cut]))
    look_at_all(tmp_path / "data.parquet", tmp_path)


@pytest.mark.parametrize("values", [[[1]], [b"\xff"], [{"a": 1}], [1.5], [None]])
def test_columns_of_other_types_are_named(tmp_path: Path, values: list[Any]) -> None:
    table = pyarrow.table({"instruction": ["q"], "output": values})
    pyarrow.parquet.write_table(table, tmp_path / "data.parquet")
    assert {rule for _, rule in rules(read(tmp_path / "data.parquet"))} <= {"E207", "E205"} and not read(
        tmp_path / "data.parquet"
    ).rows
