"""Adapters, their bases and versions: files, provenance, findings, what a reference resolves to."""

from collections.abc import Sequence
from typing import Annotated

import msgspec
from msgspec import Meta

from registry.names import digest_of
from registry.records.approvals import Envelope
from registry.records.evidence import Evidence
from registry.records.policy import Policy
from registry.records.words import Count, Digest, Record, Request, Sha256, State, Text, Word

_LintCode = Annotated[str, Meta(pattern=r"^[EW][0-9]{3}\Z")]


class FileEntry(Record):
    path: Annotated[str, Meta(min_length=1, max_length=255)]
    size: Count
    sha256: Sha256


class Base(Record):
    """A base model, identified by content. `digest` covers config, tokenizer and weights (see `trainer.base`)."""

    id: Word
    digest: Digest
    revision: Word | None = None


class Finding(Record):
    """One result of the static inspection; severity `error` refuses the adapter, `warning` is recorded."""

    code: str
    severity: str
    message: str


class TrainingRecord(Record, omit_defaults=True):
    """How an adapter came to be. `dataset` and `ledger` are blobs; `recipe` is the TOML text that was run.

    run: the id of the training, where it was one of this registry's. waived: reason by code of the findings that would
    have stopped it. lint: what its recipe, its size and its result had against them. preflight: how many findings its
    data and pairs had, by code. The codes are in docs/training.md.
    """

    base: Digest
    dataset: Digest
    ledger: Digest
    recipe: Annotated[str, Meta(max_length=64_000)]
    seed: Count
    versions: dict[str, str]
    rows: dict[str, Count]
    metrics: dict[str, float]
    seconds: float
    run: Annotated[str, Meta(min_length=1, max_length=64)] | None = None
    waived: Annotated[dict[_LintCode, Text], Meta(max_length=100)] = {}
    lint: Annotated[list[Finding], Meta(max_length=100)] = []
    preflight: Annotated[dict[_LintCode, Count], Meta(max_length=200)] = {}


class LedgerReviews(Record, omit_defaults=True):
    """Of a ledger's rows that taught the adapter something: how many, and how many of them a licensed person reviewed.

    Counted by the registry when the version was sealed. without: a few of the others, such as "line 12". problem: why
    the ledger could not be read; nothing was counted then.
    """

    trained: Count = 0
    licensed: Count = 0
    without: tuple[str, ...] = ()
    problem: str | None = None


def manifest_digest(files: Sequence[FileEntry], base: Base | None = None) -> str:
    """Identity of a set of files (and of the base they belong to): sha256 over canonical JSON, files sorted by path."""
    document: dict[str, object] = {
        "files": [
            {"path": entry.path, "size": entry.size, "sha256": entry.sha256}
            for entry in sorted(files, key=lambda entry: entry.path)
        ]
    }
    if base is not None:
        document["base"] = {key: value for key, value in msgspec.to_builtins(base).items() if value is not None}
    return digest_of(document)


class CreateAdapter(Request):
    """`base_tensors` maps the base's weight names to shapes, so that shapes can be inspected at upload."""

    name: Word
    base: Base
    policy: Policy | None = None
    base_tensors: dict[str, list[Count]] | None = None


class SubmitVersion(Request):
    files: Annotated[list[FileEntry], Meta(min_length=1, max_length=16)]
    training: TrainingRecord | None = None
    notes: Text | None = None


class AdapterInfo(Record):
    name: str
    base: Base
    policy: Digest
    created_at: str
    versions: int
    aliases: dict[str, int]


class VersionCreated(Record):
    ref: str
    number: int
    digest: Digest
    state: State
    missing: list[Sha256]


class VersionInfo(Record):
    """`training` and `evidence` are None until there are any, and for roles that may not see them."""

    ref: str
    adapter: str
    number: int
    digest: Digest
    state: State
    base: Base
    files: list[FileEntry]
    submitter: str
    created_at: str
    sealed_at: str | None
    policy: Digest | None
    findings: list[Finding]
    notes: str | None = None
    training: TrainingRecord | None = None
    evidence: Evidence | None = None


class Resolved(Record):
    ref: str
    number: int
    digest: Digest
    state: State
    base: Base
    files: list[FileEntry]
    attestation: Envelope | None = None
