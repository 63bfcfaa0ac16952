"""An entry of the journal: one command's batch of events, its canonical bytes, and the hash that chains it."""

from typing import Any

import msgspec
from msgspec import Struct

from registry.events.access import (
    AccessRefused,
    BlobQuarantined,
    BlobSent,
    KeyAdded,
    KeyRevoked,
    KeyRotated,
    PublisherAdded,
    PublisherRemoved,
    RegistryCreated,
    TokenCreated,
    TokenMinted,
    TokenRevoked,
)
from registry.events.review import (
    AssignmentIssued,
    AssignmentSkipped,
    CampaignOpened,
    CampaignSealed,
    DisputeAdjudicated,
    RatingRecorded,
    ReviewerVouched,
    ReviewerWithdrawn,
    WordsErased,
)
from registry.events.trainings import (
    TrainingCancelled,
    TrainingClaimed,
    TrainingFailed,
    TrainingFinished,
    TrainingPaused,
    TrainingResumed,
    TrainingSubmitted,
)
from registry.events.versions import (
    AdapterCreated,
    AliasMoved,
    ApprovalProposed,
    EvidenceRecorded,
    GateDecided,
    JobClaimed,
    JobFailed,
    JobQueued,
    PolicySet,
    SuiteRegistered,
    VersionCreated,
    VersionRejected,
    VersionRevoked,
    VersionSubmitted,
)
from registry.events.webhooks import DeliveryRequested, WebhookCreated, WebhookDeleted, WebhookDisabled, WebhookTested
from registry.names import canonical, sha256_hex
from registry.records import Sha256

GENESIS = "0" * 64
_DOMAIN = b"tunegate journal entry v1\n"

AnyEvent = (
    RegistryCreated
    | KeyRotated
    | KeyAdded
    | KeyRevoked
    | TokenCreated
    | TokenRevoked
    | TokenMinted
    | PublisherAdded
    | PublisherRemoved
    | AccessRefused
    | ReviewerVouched
    | ReviewerWithdrawn
    | BlobQuarantined
    | BlobSent
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
    | CampaignSealed
    | DisputeAdjudicated
    | WordsErased
    | AliasMoved
    | ApprovalProposed
    | VersionRejected
    | VersionRevoked
    | TrainingSubmitted
    | TrainingClaimed
    | TrainingPaused
    | TrainingResumed
    | TrainingCancelled
    | TrainingFinished
    | TrainingFailed
    | WebhookCreated
    | WebhookDeleted
    | WebhookDisabled
    | WebhookTested
    | DeliveryRequested
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
    return canonical(msgspec.to_builtins(entry))


def decode_entry(body: bytes) -> Entry:
    return _decoder.decode(body)


def chain_hash(body: bytes) -> str:
    """Hash of an entry's canonical bytes; these contain the previous hash, which makes the chain."""
    return sha256_hex(_DOMAIN + body)
