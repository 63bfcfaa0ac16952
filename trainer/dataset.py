"""Training data: read, checked line by line, freed of exact duplicates, split by group. Pure but for reading the file.

A line is a JSON object in one of two shapes; `group` (ticket, document, customer) keeps rows that belong together in
one split, `id` names the row:

    {"instruction": "How long is the warranty?", "output": "3 years.", "group": "ticket-17"}
    {"messages": [{"role": "user", "content": "…"}, {"role": "assistant", "content": "…"}]}
"""

import hashlib
import json
import unicodedata
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, NamedTuple

import msgspec
from msgspec import Meta, Struct

from registry.client import InvalidRequest, Message

_TEST_SHARE, _VALIDATION_SHARE = 0.10, 0.10
Filled = Annotated[str, Meta(min_length=1, max_length=100_000)]


class Split(StrEnum):
    TRAIN = "train"
    VALIDATION = "validation"
    TEST = "test"


class Row(NamedTuple):
    """One example: `prompt` ends with a user message, `completion` is what is learnt. `line` counts from 1."""

    id: str
    line: int
    prompt: tuple[Message, ...]
    completion: str
    group: str
    digest: str


class Data(NamedTuple):
    """Distinct rows with their split, and what was left out: (line, line of the first occurrence)."""

    rows: list[Row]
    splits: list[Split]
    duplicates: list[tuple[int, int]]


class _Instruction(Struct, forbid_unknown_fields=True):
    instruction: Filled
    output: Filled
    input: str = ""
    id: str | None = None
    group: str | None = None


class _Chat(Struct, forbid_unknown_fields=True):
    messages: Annotated[list[Message], Meta(min_length=2)]
    id: str | None = None
    group: str | None = None


def read_rows(path: Path) -> list[Row]:
    """Every row of a JSONL file. Raises InvalidRequest with every faulty line at once."""
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise InvalidRequest(f"{path} cannot be read: {error.strerror}") from None
    rows: list[Row] = []
    problems: list[str] = []
    ids: dict[str, int] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = _parse(line, number)
        except ValueError as error:
            problems.append(f"line {number}: {error}")
            continue
        if row.id in ids:
            problems.append(f"line {number}: id {row.id!r} is used on line {ids[row.id]} already")
        ids[row.id] = number
        rows.append(row)
    if not rows and not problems:
        problems.append("the file holds no rows")
    if problems:
        shown = "; ".join(problems[:3]) + ("; …" if len(problems) > 3 else "")
        raise InvalidRequest(f"{path} has {len(problems)} faulty lines: {shown}", problems)
    return rows


def prepare(rows: Sequence[Row], seed: int) -> Data:
    """Drop exact duplicates and split 80/10/10 by group, the same for the same rows and seed in any order."""
    first: dict[str, Row] = {}
    duplicates = []
    for row in rows:
        if row.digest in first:
            duplicates.append((row.line, first[row.digest].line))
        else:
            first[row.digest] = row
    kept = list(first.values())
    return Data(kept, [split_of(row.group, seed) for row in kept], duplicates)


def split_of(group: str, seed: int) -> Split:
    """A group's split by hash, so that it does not change when other rows come and go."""
    position = int.from_bytes(hashlib.sha256(f"split {seed} {group}".encode()).digest()[:8]) / 2**64
    if position < _TEST_SHARE:
        return Split.TEST
    return Split.VALIDATION if position < _TEST_SHARE + _VALIDATION_SHARE else Split.TRAIN


def contradictions(rows: Sequence[Row]) -> list[tuple[int, int]]:
    """Pairs of lines that answer the same prompt differently."""
    seen: dict[tuple[tuple[str, str], ...], Row] = {}
    found = []
    for row in rows:
        key = tuple((message.role, _folded(message.content)) for message in row.prompt)
        earlier = seen.setdefault(key, row)
        if _folded(earlier.completion) != _folded(row.completion):
            found.append((earlier.line, row.line))
    return found


def _parse(line: bytes, number: int) -> Row:
    try:
        keys = set(msgspec.json.decode(line, type=dict[str, msgspec.Raw]))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"not a JSON object: {error}") from None
    found: _Chat | _Instruction
    try:
        if "messages" in keys:
            found = msgspec.json.decode(line, type=_Chat)
            prompt, completion = _split_chat(found.messages)
        else:
            found = msgspec.json.decode(line, type=_Instruction)
            text = f"{found.instruction}\n{found.input}" if found.input else found.instruction
            prompt, completion = (Message(role="user", content=text),), found.output
    except msgspec.ValidationError as error:
        raise ValueError(f"{error}; a row has 'instruction' and 'output', or 'messages'") from None
    if not completion.strip() or not prompt[-1].content.strip():
        raise ValueError("the question or the answer is blank")
    digest = _digest(prompt, completion)
    group = found.group or _digest(prompt, "")
    return Row(found.id or f"line-{number}", number, prompt, completion, group, digest)


def _split_chat(messages: list[Message]) -> tuple[tuple[Message, ...], str]:
    """Everything before the last assistant message, and that message."""
    *prompt, last = messages
    if last.role != "assistant":
        raise ValueError(f"the last message is from {last.role!r}; it must be the assistant's")
    if prompt[-1].role != "user":
        raise ValueError(f"the message before the answer is from {prompt[-1].role!r}; it must be the user's")
    turns = prompt[1:] if prompt[0].role == "system" else prompt
    wanted = ["user" if index % 2 == 0 else "assistant" for index in range(len(turns))]
    if [message.role for message in turns] != wanted:
        raise ValueError("roles must alternate, user first, after at most one system message")
    return tuple(prompt), last.content


def _digest(prompt: Sequence[Message], completion: str) -> str:
    document = [[message.role, _folded(message.content)] for message in prompt] + [["assistant", _folded(completion)]]
    return hashlib.sha256(json.dumps(document, ensure_ascii=False).encode()).hexdigest()


def _folded(text: str) -> str:
    """Text as far as duplicates are concerned: composed characters, single spaces."""
    return " ".join(unicodedata.normalize("NFC", text).split())
