"""Preference pairs: one prompt, an answer that is preferred and one that is not. Every fault is listed by line.

    {"prompt": "How long is the warranty?", "chosen": "3 years.", "rejected": "It depends."}
    {"prompt": [{"role": "user", "content": "…"}], "chosen": [{"role": "assistant", "content": "…"}], "rejected": "…"}

Beside these a pair may have `id`, `group`, where it comes from and who reviewed it (as a row of data has), and `meta`,
which nothing reads. What is wrong with pairs that can be read is `trainer.preflight.pairs`' matter.
"""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import msgspec
from msgspec import Meta

from registry.client import Message
from trainer.dataset import refuse
from trainer.preflight.codes import Problem, Severity, found
from trainer.preflight.reading import PROVENANCE, Row
from trainer.preflight.records import Record, take_apart
from trainer.provenance import moment

_DATES = ("reviewed_at", "credential_valid_until")
_SIDES = ("prompt", "chosen", "rejected")
_LABELS = ("id", "group", *PROVENANCE)
_OTHERS = ("completion", "messages", "output")  # fields of formats of data
_UNWRITABLE = re.compile("[\x00\ud800-\udfff]")
_Turns = Annotated[list[Message], Meta(min_length=1)]


class Pair(NamedTuple):
    """`row` has the prompt and, as its completion, the preferred answer; its digest is over all three texts."""

    row: Row
    rejected: str


class Pairs(NamedTuple):
    """Distinct pairs, and what was left out: pairs with the line of their first occurrence."""

    pairs: list[Pair]
    duplicates: list[tuple[Pair, int]]


class PairReading(NamedTuple):
    """`records` has every line, `pairs` those without errors."""

    records: list[Record]
    pairs: Pairs
    problems: list[Problem]


def read_pairs(path: Path) -> Pairs:
    """Every pair of a JSON Lines, CSV or Parquet file. Raises InvalidRequest with every faulty line at once."""
    reading = examine(path)
    refuse(path, [one for one in reading.problems if one.severity is Severity.ERROR])
    return reading.pairs


def are_pairs(path: Path) -> bool:
    """Whether most lines of a file mean to be pairs. Raises InvalidRequest where it cannot be read."""
    values = [one.value for one in take_apart(path).records if one.value is not None]
    meant = [one for one in values if ("chosen" in one or "rejected" in one) and not any(key in one for key in _OTHERS)]
    return 2 * len(meant) > len(values)


def examine(path: Path) -> PairReading:
    """Every pair of a file and every problem of its lines. Raises InvalidRequest where the file cannot be read."""
    taken = take_apart(path)
    problems = list(taken.problems)
    ids: dict[str, int] = {}
    known: dict[str, int] = {}
    pairs, duplicates = [], []
    for record in taken.records:
        if record.value is None:
            continue
        pair, listed = _read_pair(record)
        if pair is not None and (used := ids.setdefault(pair.row.id, record.line)) != record.line:
            listed.append(_fault(record, "E214", f"id {pair.row.id[:50]!r} is used on line {used} already"))
        problems += listed
        if pair is None or listed:
            continue
        if (first := known.setdefault(pair.row.digest, record.line)) != record.line:
            duplicates.append((pair, first))
        else:
            pairs.append(pair)
    if not taken.records and not taken.problems:
        problems.append(found("E215", "the file holds no pairs"))
    return PairReading(taken.records, Pairs(pairs, duplicates), sorted(problems, key=lambda one: one.line or 0))


def _read_pair(record: Record) -> tuple[Pair | None, list[Problem]]:
    value = {key: one for key, one in (record.value or {}).items() if one is not None}
    listed = [
        _fault(record, "E206", f"the field {key[:50]!r} is not known; a pair has prompt, chosen and rejected")
        for key in sorted(value)
        if key not in (*_SIDES, *_LABELS, "meta")
    ]
    listed += [_fault(record, "E205", f"the field {key!r} is missing") for key in _SIDES if key not in value]
    sides = {key: _side(record, key, value[key], listed) for key in _SIDES if key in value}
    labels = {key: _label(record, key, value[key], listed) for key in _LABELS if key in value}
    if listed:
        return None, listed
    prompt, (chosen,), (rejected,) = (sides[key] for key in _SIDES)
    if chosen.content.strip() == rejected.content.strip():
        return None, [_fault(record, "E213", "chosen and rejected are the same answer: there is nothing to prefer")]
    return Pair(_row(record, prompt, chosen.content, rejected.content, labels), rejected.content), []


def _side(record: Record, key: str, value: Any, listed: list[Problem]) -> list[Message]:
    """A prompt as the messages that lead to its answers, or an answer as the one message that it is."""
    role = "user" if key == "prompt" else "assistant"
    try:
        turns = [Message(role=role, content=value)] if isinstance(value, str) else msgspec.convert(value, _Turns)
    except msgspec.ValidationError as error:
        listed.append(_fault(record, "E207", f"{key} is neither text nor a list of messages: {error}"))
        return []
    roles = [one.role for one in turns]
    asked = roles[1:] if roles[0] == "system" else roles
    fits = asked == (["user", "assistant"] * len(asked))[: len(asked)] and len(asked) % 2 == 1
    if not (fits if key == "prompt" else roles == ["assistant"]):
        wanted = "end with the user's turn, roles alternating" if key == "prompt" else "be one message of the assistant"
        listed.append(_fault(record, "E210", f"{key} has the roles {', '.join(roles)[:100]}; it must {wanted}"))
    if not all(one.content.strip() for one in turns):
        listed.append(_fault(record, "E213", f"{key} has a blank message"))
    if any(_UNWRITABLE.search(one.content) for one in turns):
        listed.append(_fault(record, "E217", f"{key} has a NUL or half of a surrogate pair"))
    return turns


def _label(record: Record, key: str, value: Any, listed: list[Problem]) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int | date):
        listed.append(_fault(record, "E207", f"{key} is not text"))
    elif key in _DATES and moment(str(value)) is None:
        listed.append(_fault(record, "E207", f"{key} is {str(value)[:50]!r}, no date such as 2026-03-01"))
    if _UNWRITABLE.search(str(value)):
        listed.append(_fault(record, "E217", f"{key} has a NUL or half of a surrogate pair"))
    return str(value)


def _row(record: Record, prompt: Sequence[Message], chosen: str, rejected: str, labels: Mapping[str, str]) -> Row:
    said = [[one.role, one.content] for one in prompt]
    return Row(
        id=labels.get("id") or f"pair-{record.line}",
        line=record.line,
        prompt=tuple(prompt),
        completion=chosen,
        group=labels.get("group") or _digest(said),
        digest=_digest([said, chosen, rejected]),
        number=record.number,
        provenance={key: labels[key] for key in PROVENANCE if key in labels},
    )


def _digest(document: object) -> str:
    return hashlib.sha256(json.dumps(document, ensure_ascii=False).encode()).hexdigest()


def _fault(record: Record, code: str, message: str) -> Problem:
    return found(code, message, row=record.number, line=record.line)
