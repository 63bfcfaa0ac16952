"""Review items as a CSV sheet for a spreadsheet, and the ratings read back from it. Pure.

Each line carries the id and the hash of its item, so a rating is bound to what was exported, whatever happens to the
texts in between: they are there to be read by people and are not read back. No text can act as a formula.
"""

import csv
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from registry.errors import InvalidRequest
from registry.records import CRITERIA, Assignment, ItemRating, Rating, ReviewedItem
from registry.review import rubric
from registry.web.inert import plain

FLAGS = tuple(flag.name for flag in rubric.FLAGS)
COLUMNS = ("assignment", "hash", "prompt", "output", *CRITERIA, *FLAGS, "comment")
_NEEDED = ("assignment", "hash", *CRITERIA, *FLAGS, "comment")
# What spreadsheets begin a formula with, the wide forms of East Asian keyboards included.
_FORMULA = tuple("=+-@\t\r\n＝＋－＠")
_YES, _NO = {"x", "yes", "true", "1"}, {"", "no", "false", "0"}
_MOST_CHARACTERS = 16 * 1024 * 1024


class Line(NamedTuple):
    """One rated line: `number` is the line of the file on which it begins. The rating carries the hash."""

    number: int
    assignment: str
    rating: Rating


class Sheet(NamedTuple):
    """`unrated`: lines whose scores, flags and comment are all empty."""

    lines: list[Line]
    unrated: int


def write_sheet(items: Iterable[Assignment]) -> str:
    """A sheet of these items with empty columns for the rating."""
    empty = [""] * (len(CRITERIA) + len(FLAGS) + 1)
    return write_table(COLUMNS, ([item.id, item.hash, item.prompt, item.output, *empty] for item in items))


def write_results(items: Iterable[ReviewedItem]) -> str:
    """A sheet of all that was said of the items of a sealed campaign: a line for each rating that stands."""
    of_item, said = ("item", "kind", "subject", "hash", "prompt", "output"), ItemRating.__struct_fields__
    rows = (
        [*(getattr(item, name) for name in of_item), *(getattr(rating, name) for name in said)]
        for item in items
        for rating in item.ratings
    )
    return write_table((*of_item, *said), rows)


def write_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """CSV as spreadsheets read it: every cell quoted, none a formula, nothing in it that acts without being seen."""
    text = io.StringIO()
    writer = csv.writer(text, quoting=csv.QUOTE_ALL)
    writer.writerow(columns)
    writer.writerows([_cell(value) for value in row] for row in rows)
    return text.getvalue()


def read_sheet(data: bytes) -> Sheet:
    """The ratings on a sheet, as any spreadsheet saves it; InvalidRequest lists every problem by its line."""
    reader = _reader(data)
    try:
        header = [name.strip().lower() for name in next(reader, [])]
    except csv.Error as error:
        raise InvalidRequest(f"line 1 is not CSV: {error}; start from `tunegate review export`") from None
    if missing := [name for name in _NEEDED if header.count(name) != 1]:
        raise InvalidRequest(
            f"line 1 must name each of these columns once: {', '.join(missing)}; start from `tunegate review export`"
        )
    lines: list[Line] = []
    problems: list[str] = []
    seen: dict[str, int] = {}
    unrated, number = 0, reader.line_num + 1
    try:
        for cells in reader:
            start, number = number, reader.line_num + 1
            row = dict(zip(header, [cell.strip() for cell in cells], strict=False))
            if not any(row.get(name) for name in (*CRITERIA, *FLAGS, "comment")):
                unrated += any(row.values())
                continue
            line, wrong = _read_line(start, row)
            if line and (before := seen.setdefault(line.assignment, start)) != start:
                wrong = [f"assignment {line.assignment} stands on line {before} already"]
            problems += [f"line {start}: {problem}" for problem in wrong]
            lines += [line] if line and not wrong else []
    except csv.Error as error:
        problems.append(f"line {reader.line_num}: {error}")
    if problems:
        raise refusal(problems)
    return Sheet(lines, unrated)


def refusal(problems: Sequence[str]) -> InvalidRequest:
    """Everything that is wrong with a sheet, as one error."""
    what = problems[0] if len(problems) == 1 else f"{len(problems)} problems in the sheet"
    return InvalidRequest(f"{what}; nothing was imported", problems)


def _reader(data: bytes) -> Any:
    """A reader for the separator that the first line uses: spreadsheets of many countries save semicolons."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise InvalidRequest("the file is not UTF-8; save it as CSV with the character set UTF-8") from None
    first = text.partition("\n")[0]
    csv.field_size_limit(_MOST_CHARACTERS)
    return csv.reader(io.StringIO(text, newline=""), delimiter=max(",;\t", key=first.count), strict=True)


def _read_line(number: int, row: Mapping[str, str]) -> tuple[Line | None, list[str]]:
    """The line, or everything that is wrong with it."""
    values: dict[str, Any] = {}
    problems: list[str] = []

    def take(name: str, read: Callable[[str], object]) -> None:
        try:
            values[name] = read(row.get(name, ""))
        except ValueError as error:
            problems.append(f"{name} {error}")

    take("assignment", _id)
    for name in CRITERIA:
        take(name, _score)
    for name in FLAGS:
        take(name, _flag)
    assignment = str(values.pop("assignment", ""))
    values |= {"hash": row.get("hash", ""), "comment": row.get("comment") or None}
    if not problems:
        try:
            return Line(number, assignment, msgspec.convert(values, Rating)), []
        except msgspec.ValidationError as error:
            problems.append(str(error))
    return None, problems


def _id(text: str) -> str:
    if not (text.isascii() and text.isalnum()):
        raise ValueError(f"{text[:80]!r} is no id as it was exported; let the spreadsheet treat the column as text")
    return text


def _score(text: str) -> int:
    if text not in ("1", "2", "3", "4", "5"):
        raise ValueError(f"{text[:80]!r} is no score; give 1, 2, 3, 4 or 5" if text else "is missing; give 1 to 5")
    return int(text)


def _flag(text: str) -> bool:
    if (word := text.lower()) not in _YES | _NO:
        raise ValueError(f"{text[:80]!r} is neither yes nor no; give x or leave it empty")
    return word in _YES


def _cell(value: object) -> str:
    text = "" if value is None else plain(str(value))
    return f"'{text}" if text.lstrip(" ").startswith(_FORMULA) else text
