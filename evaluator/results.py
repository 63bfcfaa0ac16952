"""Per-item results on disk, written as they come: a killed worker goes on, and nobody measures twice.

A file is named by a digest of everything that may change a result, all of it content and none of it names: base,
adapter (or none), tokenizer with template, suite, what was asked and how, engine fingerprint. A half-written last line
is dropped.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Generic, TypeVar

import msgspec
from msgspec import Struct

from registry.client import digest_of


class Answered(Struct, frozen=True):
    """A generated answer, or the letter that was likeliest."""

    item: str
    text: str
    tokens: int
    finish: str


class Measured(Struct, frozen=True):
    """Summed negative log-likelihood of the counted tokens, in nats, and how many they are."""

    item: str
    nll_nats: float
    n_tokens: int


class Sampled(Struct, frozen=True):
    """Token ids drawn from the base as a continuation of an item's prompt."""

    item: str
    ids: list[int]


class Judged(Struct, frozen=True):
    """A document as its own task judged it, and what was said."""

    item: str
    right: bool
    text: str


Result = Answered | Measured | Sampled | Judged
R = TypeVar("R", Answered, Measured, Sampled, Judged)


class Results(Generic[R]):
    """Results of one kind, by item."""

    def __init__(self, folder: Path, kind: type[R], key: Mapping[str, object]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / f"{digest_of({**key, 'kind': kind.__name__}).removeprefix('sha256:')}.jsonl"
        self.found: dict[str, R] = {}
        self._load(kind)
        self._file = self._path.open("ab")

    def add(self, result: R) -> None:
        self._file.write(msgspec.json.encode(result) + b"\n")
        self._file.flush()  # a killed worker loses none that is done
        self.found[result.item] = result

    def close(self) -> None:
        """Make what was added durable."""
        os.fsync(self._file.fileno())
        self._file.close()

    def _load(self, kind: type[R]) -> None:
        whole = 0
        if self._path.exists():
            with self._path.open("rb") as file:
                for line in file:
                    try:
                        result = msgspec.json.decode(line, type=kind) if line.endswith(b"\n") else None
                    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                        result = None
                    if result is None:
                        break
                    self.found[result.item] = result
                    whole += len(line)
            os.truncate(self._path, whole)
