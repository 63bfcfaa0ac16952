"""Registered suites."""

from typing import Annotated

from msgspec import Meta

from registry.records.adapters import FileEntry
from registry.records.words import Count, Digest, Record, Request, SuiteKind, Word

MAX_CUT_OFF = 0.05  # where a suite does not say how many of its answers may be cut off


class Suite(Record):
    """A registered suite: data for the evaluator, addressed by the digest of its files.

    max_cut_off: share of answers that may end at the suite's `max_tokens`. chance: share of right answers that one
    letter everywhere gets, 0 where there is nothing to choose from.
    """

    name: Word
    kind: SuiteKind
    digest: Digest
    n_items: Count
    files: list[FileEntry]
    max_cut_off: float = MAX_CUT_OFF
    chance: float = 0.0

    @property
    def ref(self) -> str:
        return f"{self.name}@{self.digest}"


class RegisterSuite(Request):
    name: Word
    files: Annotated[list[FileEntry], Meta(min_length=2, max_length=3)]
