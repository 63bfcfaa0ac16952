"""A file taken apart into records, whatever its kind: JSON Lines, CSV or Parquet. The only place that reads data.

Every fault is a listed problem with its line; no content whatever makes this raise.
"""

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from registry.client import InvalidRequest
from trainer.preflight.codes import Problem, found

MAX_LINE_BYTES = 8 * 1024 * 1024
_UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff", b"\x00\x00\xfe\xff")
_UTF8_MARK = b"\xef\xbb\xbf"


class Record(NamedTuple):
    """One object of the file. `number` counts records, `line` lines, both from 1; `raw` is its line of JSON Lines.

    value: None where the line is no object; a problem says so.
    """

    number: int
    line: int
    raw: bytes
    value: dict[str, Any] | None


class Taken(NamedTuple):
    records: list[Record]
    problems: list[Problem]


class _Twice(ValueError):
    """A key stands twice in one object."""


def take_apart(path: Path) -> Taken:
    """The records of a file, by its suffix: .csv, .tsv, .parquet, otherwise JSON Lines.

    Raises InvalidRequest only where the file itself cannot be read.
    """
    try:
        data = path.read_bytes()
    except (OSError, ValueError) as error:  # or a NUL in the path
        reason = error.strerror if isinstance(error, OSError) else error
        raise InvalidRequest(f"{path} cannot be read: {reason}; give a file of training data") from None
    kind = path.suffix.lower()
    if kind == ".parquet":
        return _from_parquet(data)
    problems = []
    if data.startswith(_UTF16_MARKS):
        return Taken([], [found("E200", "the file is UTF-16 or UTF-32, not UTF-8", line=1)])
    if data.startswith(_UTF8_MARK):
        problems.append(found("W218", "the file begins with a byte order mark", line=1))
        data = data.removeprefix(_UTF8_MARK)
    taken = _from_table(data, "\t" if kind == ".tsv" else ",") if kind in (".csv", ".tsv") else _from_lines(data)
    return Taken(taken.records, problems + taken.problems)


def _from_lines(data: bytes) -> Taken:
    records: list[Record] = []
    problems: list[Problem] = []
    for line, raw in enumerate(data.splitlines(), start=1):
        if not raw.strip():
            continue
        number = len(records) + 1
        value, problem = _parse_line(raw, number, line)
        records.append(Record(number, line, raw, value))
        problems += [problem] if problem else []
    return Taken(records, problems)


def _parse_line(raw: bytes, number: int, line: int) -> tuple[dict[str, Any] | None, Problem | None]:
    def fault(code: str, message: str) -> tuple[None, Problem]:
        return None, found(code, message, row=number, line=line)

    if len(raw) > MAX_LINE_BYTES:
        return fault("E204", f"the line has {len(raw):,} bytes; {MAX_LINE_BYTES:,} are allowed")
    try:
        value = json.loads(raw.decode(), object_pairs_hook=_pairs, parse_constant=_constant)
    except UnicodeDecodeError as error:
        return fault("E200", f"byte {error.start + 1} of the line is not UTF-8")
    except _Twice as error:
        return fault("E203", str(error))
    except RecursionError:
        return fault("E201", "not JSON that can be read: nested too deeply")
    except ValueError as error:
        return fault("E201", f"not JSON: {error}")
    if not isinstance(value, dict):
        return fault("E202", f"not a JSON object but {_kind(value)}")
    return value, None


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        keys = [key for key, _ in pairs]
        raise _Twice(f"the key {next(key for key in keys if keys.count(key) > 1)!r} stands twice in one object")
    return value


def _constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON value")


def _kind(value: object) -> str:
    names: dict[type, str] = {list: "a list", str: "text", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")


def _from_table(data: bytes, delimiter: str) -> Taken:
    """CSV or TSV with a header; a record's line is the one it ends on where cells hold line breaks."""
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        return Taken([], [found("E200", f"byte {error.start + 1} of the file is not UTF-8", line=line)])
    csv.field_size_limit(MAX_LINE_BYTES)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    rows = _table_rows(reader)
    line, header = next(rows, (1, []))
    if isinstance(header, str):
        return Taken([], [found("E216", f"the header is no CSV: {header}", line=line)])
    if twice := sorted({name for name in header if header.count(name) > 1}):
        return Taken([], [found("E203", f"the column {twice[0]!r} stands twice in the header", line=line)])
    records: list[Record] = []
    problems: list[Problem] = []
    for line, cells in rows:
        number = len(records) + 1
        value = None
        if isinstance(cells, str):
            problems.append(found("E216", f"no CSV: {cells}", row=number, line=line))
        elif len(cells) != len(header):
            message = f"the row has {len(cells)} cells, the header {len(header)}"
            problems.append(found("E216", message, row=number, line=line))
        else:
            value = {name: _cell(name, cell) for name, cell in zip(header, cells, strict=True)}
        records.append(Record(number, line, b"", value))
    return Taken(records, problems)


def _table_rows(reader: Any) -> Iterator[tuple[int, list[str] | str]]:
    """Line and cells of every row that is not blank, or the reason why it is none."""
    while True:
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield reader.line_num, str(error)
            continue
        if cells:
            yield reader.line_num, cells


def _cell(name: str, cell: str) -> Any:
    """Lists of messages are JSON inside their cell; what does not parse stays text, and is reported as such."""
    if name in ("messages", "prompt", "completion") and cell.lstrip().startswith("["):
        try:
            return json.loads(cell, object_pairs_hook=_pairs, parse_constant=_constant)
        except (ValueError, RecursionError):
            return cell
    return cell


def _from_parquet(data: bytes) -> Taken:
    """A record's line is its row: Parquet has no lines."""
    import pyarrow
    import pyarrow.parquet

    records: list[Record] = []
    try:
        file = pyarrow.parquet.ParquetFile(io.BytesIO(data))
        names = file.schema_arrow.names
        if twice := sorted({name for name in names if names.count(name) > 1}):
            return Taken([], [found("E203", f"the column {twice[0]!r} stands twice")])
        for batch in file.iter_batches():
            for value in batch.to_pylist():
                number = len(records) + 1
                records.append(Record(number, number, b"", value))
    except (pyarrow.ArrowException, OSError, ValueError, KeyError, OverflowError, MemoryError) as error:
        reason = " ".join(str(error).split())[:200]
        return Taken(records, [found("E216", f"the Parquet file cannot be read beyond row {len(records)}: {reason}")])
    return Taken(records, [])
