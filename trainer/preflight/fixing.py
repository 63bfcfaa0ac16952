"""A new data set with what a machine may fix fixed, and a log of every change. The given file is never touched.

Exact duplicates are left out, broken characters and stray white space repaired, sensitive places masked if asked for.
What only a person can decide is carried over byte for byte, faulty lines included, so that nothing is lost unseen.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from registry.client import InvalidRequest
from trainer.preflight.characters import repaired
from trainer.preflight.check import Checked
from trainer.preflight.privacy import masked
from trainer.preflight.records import Record

_TEXTS = ("instruction", "input", "output", "prompt", "completion", "chosen", "rejected")
_CONVERSATIONS = ("messages", "prompt", "completion", "chosen", "rejected")
_REPAIR = ("W246", "W251")
_MASK = ("E230", "W231", "W232")


class Change(Struct, frozen=True, omit_defaults=True):
    """What became of one line. new_line: its place in the new file; hashes are of the line before and after.

    The log holds no text: what was masked must not live on in it.
    """

    line: int
    action: str  # repaired, masked, dropped (an exact duplicate) or left_out (a table's row that could not be read)
    rules: list[str]
    before_sha256: str
    new_line: int | None = None
    after_sha256: str | None = None


class Fixed(Struct, frozen=True):
    data: str
    sha256: str
    log: str
    lines: int
    changes: dict[str, int]


def fix(checked: Checked, target: Path, *, mask: bool) -> Fixed:
    """Write the new data set and, beside it, its log (`….changes.jsonl`). Raises InvalidRequest where either exists."""
    log = target.with_name(f"{target.name}.changes.jsonl")
    if target.suffix.lower() != ".jsonl":
        raise InvalidRequest(f"{target} does not end in .jsonl; --fix writes JSON Lines whatever it reads")
    for path in (target, log):
        if path.exists():
            raise InvalidRequest(f"{path} exists; --fix only writes new files, so name another")
    lines, changes = _apply(checked, mask)
    content = b"".join(line + b"\n" for line in lines)
    log.write_bytes(b"".join(msgspec.json.encode(one) + b"\n" for one in changes))
    partial = target.with_name(f".{target.name}.part")  # whoever finds the data set finds all of it, and its log
    partial.write_bytes(content)
    partial.replace(target)
    counts: dict[str, int] = {}
    for change in changes:
        counts[change.action] = counts.get(change.action, 0) + 1
    return Fixed(str(target), hashlib.sha256(content).hexdigest(), str(log), len(lines), counts)


def _apply(checked: Checked, mask: bool) -> tuple[list[bytes], list[Change]]:
    rules: dict[int, set[str]] = {}
    for problem in checked.report.problems:
        rules.setdefault(problem.line or 0, set()).add(problem.rule)
    lines: list[bytes] = []
    changes: list[Change] = []
    for record in checked.reading.records:
        before = record.raw or (_encode(record.value) if record.value is not None else b"")
        here = rules.get(record.line, set())
        if "W220" in here:
            changes.append(Change(record.line, "dropped", ["W220"], _sha256(before)))
        elif not before:
            changes.append(Change(record.line, "left_out", sorted(here), _sha256(before)))
        else:
            after, applied = _fixed(record, before, here, mask)
            lines.append(after)
            if after != before:
                action = "masked" if set(applied) & set(_MASK) else "repaired"
                changes.append(Change(record.line, action, applied, _sha256(before), len(lines), _sha256(after)))
    return lines, changes


def _fixed(record: Record, before: bytes, rules: set[str], mask: bool) -> tuple[bytes, list[str]]:
    """The record's new line, and the rules that were served by it."""
    applied = sorted(rules & {*_REPAIR, *(_MASK if mask else ())})
    if not applied or record.value is None:
        return before, []

    def mend(text: str) -> str:
        text = repaired(text) if rules & set(_REPAIR) else text
        return masked(text) if mask and rules & set(_MASK) else text

    return _encode(_mended(record.value, mend)), applied


def _mended(value: Mapping[str, Any], mend: Callable[[str], str]) -> dict[str, Any]:
    """The record with every text that is trained on mended; ids, groups and provenance as they are."""
    new = dict(value)
    for key in _TEXTS:
        if isinstance(new.get(key), str):
            new[key] = mend(new[key])
    for key in _CONVERSATIONS:
        if isinstance(new.get(key), list):
            new[key] = [_mended_message(one, mend) for one in new[key]]
    return new


def _mended_message(message: Any, mend: Callable[[str], str]) -> Any:
    if isinstance(message, dict) and isinstance(message.get("content"), str):
        return {**message, "content": mend(message["content"])}
    return message


def _encode(value: Mapping[str, Any] | None) -> bytes:
    # A column that nothing reads may hold what JSON has no form for, such as a date of a Parquet file.
    kept = {key: one for key, one in (value or {}).items() if one is not None}
    return json.dumps(kept, ensure_ascii=False, default=str).encode("utf-8", "backslashreplace")


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
