"""Training data as a run uses it: read, freed of exact duplicates, split by group. Pure but for reading the file.

The formats and their faults are `trainer.preflight.reading`'s; rows that nearly repeat each other share a split
(`trainer.preflight.duplicates`), because a held-out row that was trained on in other words measures nothing.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, NamedTuple

from msgspec import Meta

from registry.client import InvalidRequest
from trainer.preflight.codes import Problem, Severity
from trainer.preflight.duplicates import Near, alike, contradictions, split_keys
from trainer.preflight.reading import Row, Split, read

__all__ = ["Data", "Filled", "Row", "Split", "contradictions", "prepare", "read_rows", "refuse", "split_of"]

_TEST_SHARE, _VALIDATION_SHARE = 0.10, 0.10
Filled = Annotated[str, Meta(min_length=1, max_length=100_000)]


class Data(NamedTuple):
    """Distinct rows with their split, and what was left out: (line, line of the first occurrence).

    keys: what decided each row's split, the same for all rows that must stay together.
    """

    rows: list[Row]
    splits: list[Split]
    duplicates: list[tuple[int, int]]
    keys: list[str]
    near: Near


def read_rows(path: Path) -> list[Row]:
    """Every row of a file. Raises InvalidRequest with every faulty line at once."""
    reading = read(path)
    refuse(path, [one for one in reading.problems if one.severity is Severity.ERROR])
    return reading.rows


def refuse(path: Path, problems: Sequence[Problem]) -> None:
    """Raises InvalidRequest that lists these problems, if there are any."""
    if not problems:
        return
    listed = [f"line {one.line}: {one.message}; {one.fix}" if one.line else one.message for one in problems]
    shown = "; ".join(listed[:3]) + ("; …" if len(listed) > 3 else "")
    count = len({one.line for one in problems})
    raise InvalidRequest(f"{path} has {count} faulty line{'s' if count > 1 else ''}: {shown}", listed)


def prepare(rows: Sequence[Row], seed: int) -> Data:
    """Drop exact duplicates and split 80/10/10 by cluster, the same for the same rows and seed in any order.

    A row that declares its split keeps it.
    """
    first: dict[str, Row] = {}
    duplicates = []
    for row in rows:
        if row.digest in first:
            duplicates.append((row.line, first[row.digest].line))
        else:
            first[row.digest] = row
    kept = list(first.values())
    near = alike(kept)
    keys = split_keys(kept, near.pairs)
    splits = [row.split or split_of(key, seed) for row, key in zip(kept, keys, strict=True)]
    return Data(kept, splits, duplicates, keys, near)


def split_of(group: str, seed: int) -> Split:
    """A group's split by hash, so that it does not change when other rows come and go."""
    position = int.from_bytes(hashlib.sha256(f"split {seed} {group}".encode()).digest()[:8]) / 2**64
    if position < _TEST_SHARE:
        return Split.TEST
    return Split.VALIDATION if position < _TEST_SHARE + _VALIDATION_SHARE else Split.TRAIN
