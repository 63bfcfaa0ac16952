"""Training rows from a file in any of the formats, every fault listed by line. Pure but for reading the file.

    {"instruction": "How long is the warranty?", "input": "Tent X", "output": "3 years."}
    {"prompt": "How long is the warranty?", "completion": "3 years."}
    {"messages": [{"role": "user", "content": "…"}, {"role": "assistant", "content": "…"}]}

Beside these a row may have `id`, `group` (rows that belong together), `split`, where it comes from (`source`,
`licence`, `collector`), who reviewed it (`reviewer`, `credential`, `reviewed_at`, `credential_valid_until`), and
`meta`, which nothing reads.
"""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from enum import StrEnum
from pathlib import Path
from typing import Any, NamedTuple

from registry.client import Message
from trainer.preflight.codes import Problem, Severity, found
from trainer.preflight.records import Record, take_apart
from trainer.preflight.text import folded
from trainer.provenance import moment

ROLES = ("system", "user", "assistant")
PROVENANCE = ("source", "licence", "collector", "reviewer", "credential", "reviewed_at", "credential_valid_until")
_DATES = ("reviewed_at", "credential_valid_until")
FORMATS: Mapping[str, tuple[str, ...]] = {
    "messages": ("messages",),
    "prompt": ("prompt", "completion"),
    "instruction": ("instruction", "output"),
}
_EXTRA = ("id", "group", "split", "meta", *PROVENANCE)
_SPLIT_NAMES = {
    "train": "train",
    "validation": "validation",
    "valid": "validation",
    "dev": "validation",
    "test": "test",
}
# Rows of a format that fewer have than this are strays; with more of them the file as a whole is mixed.
_STRAY_SHARE = 0.05
_UNWRITABLE = re.compile("[\x00\ud800-\udfff]")


class Split(StrEnum):
    TRAIN = "train"
    VALIDATION = "validation"
    TEST = "test"


class Row(NamedTuple):
    """One example: `prompt` ends with a user message, `completion` is what is learnt. `line` counts from 1.

    split: where the file declares one. provenance: those of `PROVENANCE` that the row has.
    """

    id: str
    line: int
    prompt: tuple[Message, ...]
    completion: str
    group: str
    digest: str
    number: int = 0
    split: Split | None = None
    provenance: Mapping[str, str] = {}


class Reading(NamedTuple):
    """`records` has every line, `rows` those without errors."""

    records: list[Record]
    rows: list[Row]
    problems: list[Problem]


class _Fault(NamedTuple):
    code: str
    message: str


class _Turn(NamedTuple):
    role: str
    content: str


def read(path: Path) -> Reading:
    """Every row of a file and every problem of its lines. Raises InvalidRequest where the file cannot be read."""
    taken = take_apart(path)
    columns = _columns_nobody_reads(taken.records)
    problems = list(taken.problems)
    problems += [found("W219", f"nothing reads the column {name[:50]!r} of most rows") for name in sorted(columns)]
    rows: list[Row] = []
    formats: list[str] = []
    ids: dict[str, int] = {}
    for record in taken.records:
        if record.value is None:
            continue
        row, listed = _read_record(record, columns)
        if row and row.id in ids:
            listed.append(_Fault("E214", f"id {row.id[:50]!r} is used on line {ids[row.id]} already"))
        elif row:
            ids[row.id] = row.line
        here = [found(one.code, one.message, row=record.number, line=record.line) for one in listed]
        problems += here
        if row and not any(one.severity is Severity.ERROR for one in here):
            rows.append(row)
            formats.append(_format_of(record.value))
    problems += _check_formats(rows, formats)
    if not taken.records and not taken.problems:
        problems.append(found("E215", "the file holds no rows"))
    return Reading(taken.records, rows, sorted(problems, key=lambda one: one.line or 0))


def _check_formats(rows: Sequence[Row], formats: Sequence[str]) -> list[Problem]:
    """Strays by row; where no format is rare, the file as a whole is mixed."""
    counts = Counter(formats)
    strays = {name for name, count in counts.items() if count < _STRAY_SHARE * len(rows)}
    usual = [name for name, _ in counts.most_common() if name not in strays]
    mixed = [found("W208", f"the file mixes the formats {', '.join(usual)}")] if len(usual) > 1 else []
    return mixed + [
        found("W208", f"the row has the format {name!r}, most have {usual[0]!r}", row=row.number, line=row.line)
        for row, name in zip(rows, formats, strict=True)
        if name in strays
    ]


def _format_of(value: Mapping[str, Any]) -> str:
    return next((name for name, keys in FORMATS.items() if any(value.get(key) is not None for key in keys)), "")


def _columns_nobody_reads(records: Sequence[Record]) -> set[str]:
    """Unknown keys that most rows have are columns of the user's own; in a few rows they are slips of the pen."""
    known = {"input", *_EXTRA, *(key for keys in FORMATS.values() for key in keys)}
    counts = Counter(key for record in records for key in record.value or {} if key not in known)
    return {key for key, count in counts.items() if len(records) >= 10 and 2 * count > len(records)}


def _read_record(record: Record, columns: set[str]) -> tuple[Row | None, list[_Fault]]:
    value = {key: one for key, one in (record.value or {}).items() if one is not None and key not in columns}
    kind = _format_of(value)
    if not kind:
        had = ", ".join(repr(key[:50]) for key in sorted(value)[:5]) or "nothing"
        return None, [_Fault("E205", f"the row has {had}, and the fields of no format")]
    allowed = {*FORMATS[kind], *_EXTRA, *(["input"] if kind == "instruction" else [])}
    listed = [_Fault("E206", f"the field {key[:50]!r} is not known") for key in sorted(value) if key not in allowed]
    listed += [_Fault("E205", f"the field {key!r} is missing") for key in FORMATS[kind] if key not in value]
    if any(one.code == "E205" for one in listed):
        return None, listed
    turns = _turns(kind, value, listed)
    extras = {key: _label(key, value[key], listed) for key in _EXTRA if key in value and key != "meta"}
    listed += _check_text(turns)
    if turns is None or not turns or any(one.code.startswith("E") for one in listed):
        return None, listed
    listed += _check_conversation(turns)
    if any(one.code.startswith("E") for one in listed):
        return None, listed
    return _make_row(record, turns, {key: text for key, text in extras.items() if text}), listed


def _turns(kind: str, value: Mapping[str, Any], listed: list[_Fault]) -> list[_Turn] | None:
    """The conversation that a row of any format stands for."""
    if kind == "messages":
        return _read_messages("messages", value["messages"], listed)
    if kind == "prompt":
        prompt = _read_side("prompt", "user", value["prompt"], listed)
        completion = _read_side("completion", "assistant", value["completion"], listed)
        return prompt + completion if prompt is not None and completion is not None else None
    parts = [value["instruction"], value.get("input", ""), value["output"]]
    for key, part in zip(("instruction", "input", "output"), parts, strict=True):
        if not isinstance(part, str):
            listed.append(_Fault("E207", f"{key} is {_named(part)}, not text"))
    if not all(isinstance(part, str) for part in parts):
        return None
    instruction, more, output = parts
    return [_Turn("user", f"{instruction}\n{more}" if more else instruction), _Turn("assistant", output)]


def _read_side(key: str, role: str, side: Any, listed: list[_Fault]) -> list[_Turn] | None:
    """One side of prompt and completion: text, or TRL's list of messages."""
    if isinstance(side, str):
        return [_Turn(role, side)]
    if isinstance(side, list):
        return _read_messages(key, side, listed)
    listed.append(_Fault("E207", f"{key} is {_named(side)}, not text"))
    return None


def _read_messages(key: str, value: Any, listed: list[_Fault]) -> list[_Turn] | None:
    if not isinstance(value, list):
        listed.append(_Fault("E207", f"{key} is {_named(value)}, not a list of messages"))
        return None
    if not value:
        listed.append(_Fault("E211", f"{key} has no messages"))
    turns = []
    for place, one in enumerate(value, start=1):
        if not isinstance(one, dict) or not isinstance(one.get("role"), str) or not isinstance(one.get("content"), str):
            listed.append(_Fault("E207", f"message {place} of {key} is no object with the texts 'role' and 'content'"))
        elif one["role"] not in ROLES:
            listed.append(_Fault("E209", f"message {place} of {key} has the role {one['role'][:50]!r}"))
        elif unknown := sorted(set(one) - {"role", "content"}):
            listed.append(_Fault("E206", f"message {place} of {key} has the field {unknown[0][:50]!r}"))
        else:
            turns.append(_Turn(one["role"], one["content"]))
    return turns


def _label(key: str, value: Any, listed: list[_Fault]) -> str:
    """`id`, `group`, `split` and provenance: short texts; a number is as good a name as any."""
    if key in _DATES and isinstance(value, date):  # a column of dates in Parquet
        value = value.isoformat()
    if isinstance(value, bool) or not isinstance(value, str | int):
        listed.append(_Fault("E207", f"{key} is {_named(value)}, not text"))
        return ""
    text = str(value)
    if key in _DATES and text.strip() and moment(text) is None:
        listed.append(_Fault("E207", f"{key} is {text[:50]!r}, no date such as 2026-03-01 or 2026-03-01T09:30:00Z"))
    if _UNWRITABLE.search(text):
        listed.append(_Fault("E217", f"{key} has a NUL or half of a surrogate pair"))
    if key == "split" and text and text not in _SPLIT_NAMES:
        listed.append(_Fault("E207", f"split is {text[:50]!r}, not train, validation or test"))
    return text


def _check_text(turns: Sequence[_Turn] | None) -> Iterator[_Fault]:
    for place, turn in enumerate(turns or (), start=1):
        if _UNWRITABLE.search(turn.content):
            yield _Fault("E217", f"message {place} ({turn.role}) has a NUL or half of a surrogate pair")
        if not turn.content.strip():
            code, what = ("E213", "answer") if turn.role == "assistant" else ("E212", "prompt")
            yield _Fault(code, f"message {place} is a blank {what}")


def _check_conversation(turns: Sequence[_Turn]) -> Iterator[_Fault]:
    if turns[-1].role != "assistant":
        yield _Fault("E211", f"the last message is from {turns[-1].role!r}; it must be the assistant's")
        return
    asked = turns[1:] if turns[0].role == "system" else turns
    roles = [turn.role for turn in asked]
    if len(roles) % 2 or roles != ["user", "assistant"] * (len(roles) // 2):
        yield _Fault("E210", "roles must alternate, user first, after at most one system message")


def _make_row(record: Record, turns: Sequence[_Turn], extras: Mapping[str, str]) -> Row:
    prompt = tuple(Message(role=turn.role, content=turn.content) for turn in turns[:-1])
    completion = turns[-1].content
    split = extras.get("split")
    return Row(
        id=extras.get("id") or f"line-{record.line}",
        line=record.line,
        prompt=prompt,
        completion=completion,
        group=extras.get("group") or _digest(prompt, ""),
        digest=_digest(prompt, completion),
        number=record.number,
        split=Split(_SPLIT_NAMES[split]) if split else None,
        provenance={key: extras[key] for key in PROVENANCE if key in extras},
    )


def _digest(prompt: Sequence[Message], completion: str) -> str:
    document = [[message.role, folded(message.content)] for message in prompt] + [["assistant", folded(completion)]]
    return hashlib.sha256(json.dumps(document, ensure_ascii=False).encode()).hexdigest()


def _named(value: object) -> str:
    names: dict[type, str] = {list: "a list", dict: "an object", str: "text", bool: "true or false"}
    return names.get(type(value), "a number" if isinstance(value, int | float) else type(value).__name__)
