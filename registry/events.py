"""The event types of the journal: small facts in the past tense, `noun.what-happened`, that are never rewritten.

An entry is one command's batch of events. Its canonical bytes name the entry before it, so the entries form a chain;
a reader of an old journal meets only types and fields that this module still knows.
"""

from typing import Any

import msgspec
import rfc8785
from msgspec import Struct

from registry.names import sha256_hex
from registry.records import (
    MAX_CUT_OFF,
    Base,
    Digest,
    Envelope,
    Evidence,
    FileEntry,
    Finding,
    GateReport,
    Policy,
    Role,
    Sha256,
    State,
    SuiteKind,
    TrainingRecord,
)

GENESIS = "0" * 64
_DOMAIN = b"tunegate journal entry v1\n"


class Event(Struct, frozen=True, kw_only=True):
    """Base of all events; the tag is the event's name."""


class RegistryCreated(Event, tag="registry.created"):
    """First event of a journal. `draw_commitment` is the sha256 of the secret that seeds every campaign's draw."""

    registry: str
    key: str
    draw_commitment: Sha256


class TokenCreated(Event, tag="token.created"):
    id: str
    role: Role
    person: str
    secret_sha256: Sha256
    expires_at: str
    scope: str | None = None


class TokenRevoked(Event, tag="token.revoked"):
    id: str


class SuiteRegistered(Event, tag="suite.registered"):
    name: str
    kind: SuiteKind
    digest: Digest
    n_items: int
    files: list[FileEntry]
    max_cut_off: float = MAX_CUT_OFF
    chance: float = 0.0


class AdapterCreated(Event, tag="adapter.created"):
    name: str
    base: Base
    base_tensors: dict[str, list[int]] | None = None


class PolicySet(Event, tag="policy.set"):
    """`document` has its suites pinned to digests; `digest` is over that document."""

    adapter: str
    revision: int
    digest: Digest
    document: Policy


class VersionCreated(Event, tag="version.created"):
    adapter: str
    number: int
    digest: Digest
    files: list[FileEntry]
    training: TrainingRecord | None = None
    notes: str | None = None


class VersionSubmitted(Event, tag="version.submitted"):
    """Upload complete and inspected: the version is sealed, its policy pinned, its evaluation queued as `job`."""

    adapter: str
    number: int
    policy: Digest
    findings: list[Finding]
    job: str


class JobQueued(Event, tag="job.queued"):
    """A sealed version is to be measured again, because the last attempt did not end in evidence to be trusted."""

    id: str
    adapter: str
    number: int


class JobClaimed(Event, tag="job.claimed"):
    id: str
    fence: int
    worker: str


class JobFailed(Event, tag="job.failed"):
    """`final` ends the job; otherwise it is queued again."""

    id: str
    fence: int
    reason: str
    final: bool


class EvidenceRecorded(Event, tag="evidence.recorded"):
    job: str
    adapter: str
    number: int
    digest: Digest
    evidence: Evidence


class GateDecided(Event, tag="gate.decided"):
    adapter: str
    number: int
    state: State
    report: GateReport


class CampaignItem(Struct, frozen=True, kw_only=True):
    item: str
    hash: Sha256


class CampaignOpened(Event, tag="campaign.opened"):
    """The outputs to review, bound by hash before the first rating; `root` digests the ordered hashes."""

    id: str
    adapter: str
    number: int
    policy: Digest
    suite: str
    reviewers: int
    items: list[CampaignItem]
    root: Digest


class AssignmentIssued(Event, tag="assignment.issued"):
    id: str
    campaign: str
    person: str
    item: str


class AssignmentSkipped(Event, tag="assignment.skipped"):
    id: str
    reason: str


class RatingRecorded(Event, tag="rating.recorded"):
    """`comment` is the sha256 of a blob, so that the words can be deleted and the journal stays whole."""

    assignment: str
    clarity: int
    relevance: int
    safety: int
    accuracy: int
    hallucination: bool
    comment: Sha256 | None = None


class AliasMoved(Event, tag="alias.moved"):
    """`counter` only ever rises; a rollback is a new move with a reason."""

    adapter: str
    alias: str
    counter: int
    previous: int | None
    number: int
    digest: Digest
    by: str
    reason: str
    attestation: Envelope


class VersionRevoked(Event, tag="version.revoked"):
    adapter: str
    number: int
    reason: str


AnyEvent = (
    RegistryCreated
    | TokenCreated
    | TokenRevoked
    | SuiteRegistered
    | AdapterCreated
    | PolicySet
    | VersionCreated
    | VersionSubmitted
    | JobQueued
    | JobClaimed
    | JobFailed
    | EvidenceRecorded
    | GateDecided
    | CampaignOpened
    | AssignmentIssued
    | AssignmentSkipped
    | RatingRecorded
    | AliasMoved
    | VersionRevoked
)


class Actor(Struct, frozen=True, kw_only=True):
    """Who did it: a person through a token. The service itself acts as person `tunegate` with no token."""

    person: str
    role: str
    token: str | None = None


class Receipt(Struct, frozen=True, kw_only=True):
    """What an Idempotency-Key was answered, so that a repeat gets the same answer after any crash."""

    key: str
    request: Sha256
    status: int
    answer: dict[str, Any]


class Entry(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One command: its events, in order. `at` is UTC, RFC 3339 with microseconds; `prev` is the hash before."""

    seq: int
    prev: Sha256
    at: str
    actor: Actor
    events: list[AnyEvent]
    receipt: Receipt | None = None


_decoder = msgspec.json.Decoder(Entry)


def encode_entry(entry: Entry) -> bytes:
    """Canonical (RFC 8785) bytes: the form that is hashed, stored and shown to auditors."""
    return rfc8785.dumps(msgspec.to_builtins(entry))


def decode_entry(body: bytes) -> Entry:
    return _decoder.decode(body)


def chain_hash(body: bytes) -> str:
    """Hash of an entry's canonical bytes; these contain the previous hash, which makes the chain."""
    return sha256_hex(_DOMAIN + body)
