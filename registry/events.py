"""The event types of the journal: small facts in the past tense, `noun.what-happened`, that are never rewritten.

An entry is one command's batch of events. Its canonical bytes name the entry before it, so the entries form a chain;
a reader of an old journal meets only types and fields that this module still knows.
"""

from typing import Any

import msgspec
from msgspec import Struct

from registry.errors import Refusal
from registry.names import canonical, sha256_hex
from registry.records import (
    MAX_CUT_OFF,
    Base,
    Bounds,
    Channel,
    Digest,
    Envelope,
    Evidence,
    Excluded,
    FaultKind,
    FileEntry,
    Finding,
    GateReport,
    ItemKind,
    Jwk,
    Policy,
    Role,
    Sha256,
    State,
    SuiteKind,
    TrainingRecord,
    WebhookEvent,
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
    public: str | None = None


class KeyRotated(Event, tag="key.rotated"):
    """The gate signs with `key` from now on, `public` being its bytes in base64; `previous` may no longer sign.

    previous_public: its bytes, if they were still known.
    """

    key: Sha256
    public: str
    previous: Sha256
    previous_public: str | None


class KeyAdded(Event, tag="key.added"):
    """A person's public key may sign in this role."""

    id: Sha256
    public: str
    role: str
    person: str


class KeyRevoked(Event, tag="key.revoked"):
    """Nothing that the key signed is to be believed any more, whenever it did."""

    id: Sha256
    reason: str


class TokenCreated(Event, tag="token.created"):
    id: str
    role: Role
    person: str
    secret_sha256: Sha256
    expires_at: str
    scope: str | None = None
    publisher: str | None = None


class TokenRevoked(Event, tag="token.revoked"):
    id: str


class TokenMinted(Event, tag="token.minted"):
    """A CI's own token was exchanged for `token`; `jti` is the sha256 that stands for its issuer and id."""

    token: str
    publisher: str
    issuer: str
    subject: str
    jti: Sha256


class PublisherAdded(Event, tag="publisher.added"):
    """Who shows a token of this issuer with these claims may submit in `scope`. Keys are given, or at `jwks_url`."""

    id: str
    scope: str
    issuer: str
    audience: str
    claims: dict[str, str]
    keys: list[Jwk] | None = None
    jwks_url: str | None = None


class PublisherRemoved(Event, tag="publisher.removed"):
    id: str


class AccessRefused(Event, tag="access.refused"):
    """A token that is known here was refused for this reason; told once an hour, however often it happened."""

    token: str
    reason: Refusal


class ReviewerVouched(Event, tag="reviewer.vouched"):
    """The actor vouches that a person may review in a domain, from one moment to another (both included).

    scope: the adapters that this is said of, an adapter or a namespace; None for all.
    """

    id: str
    person: str
    domain: str
    credential: str
    valid_from: str
    valid_until: str
    issuer: str | None = None
    scope: str | None = None


class ReviewerWithdrawn(Event, tag="reviewer.withdrawn"):
    """From now on nobody vouches for this record any more."""

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
    """One output to rate; `item` names it in its campaign. `words`: of prompt and output.

    suite, source: which suite's item is answered; None for the campaign's suite, and for the item that `item` names.
    subject: whose answer it is: the candidate's, the base's, or the one that a gold item gives.
    number: the version that answered, where that is not the campaign's. expect: how a gold item is to be rated.
    salt: what went into the hash beside what it binds; empty in older campaigns.
    """

    item: str
    hash: Sha256
    kind: ItemKind = ItemKind.CANDIDATE
    suite: str | None = None
    source: str | None = None
    subject: str = "candidate"
    number: int | None = None
    words: int = 0
    expect: dict[str, Bounds] | None = None
    salt: str = ""


class CampaignOpened(Event, tag="campaign.opened"):
    """The outputs to review, bound by hash before the first rating; `root` is over the hashes, in order.

    Those that everyone rates come first, then the spares that take the place of what does not count, then the others
    by kind. Nobody who reviews may ever read it.
    """

    id: str
    adapter: str
    number: int
    policy: Digest
    suite: str
    reviewers: int
    items: list[CampaignItem]
    root: Digest


class AssignmentIssued(Event, tag="assignment.issued"):
    """A person was shown an item for the first time. `position`: in the order in which they meet them, from 1.

    batch: how many a checkout has issued at once; None where it was shown alone.
    """

    id: str
    campaign: str
    person: str
    item: str
    position: int | None = None
    batch: int | None = None


class AssignmentSkipped(Event, tag="assignment.skipped"):
    id: str
    reason: str


class RatingRecorded(Event, tag="rating.recorded"):
    """What a person says of an item; one for the same assignment takes the place of the last, and both stay here.

    comment: the sha256 of a blob, so that the words can be deleted and the journal stays whole.
    seconds: from the first showing of the item to the first rating of it, a checkout's divided by its items.
    """

    assignment: str
    clarity: int
    relevance: int
    safety: int
    accuracy: int
    hallucination: bool
    comment: Sha256 | None = None
    unsafe: bool = False
    discuss: bool = False
    channel: Channel = Channel.API
    seconds: float | None = None


class CampaignSealed(Event, tag="campaign.sealed"):
    """From here on no rating is taken. What it came to follows from the journal up to here, and nothing else.

    root: of the Merkle tree over every rating, counted or not, in the order they came; result: digest of the
    ReviewResult. counted: persons. reason: a release manager's, who ended it; None where the quota did.
    """

    id: str
    adapter: str
    number: int
    ratings: int
    counted: list[str]
    excluded: list[Excluded]
    root: Digest
    result: Digest
    reason: str | None = None


class DisputeAdjudicated(Event, tag="dispute.adjudicated"):
    """The actor, who took no part in the campaign, says whether an item that was rated unsafe is."""

    campaign: str
    item: str
    upheld: bool
    reason: str


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


class ApprovalProposed(Event, tag="approval.proposed"):
    """The move of an alias, signed by the gate, that waits for a release manager's signature. Nothing moved yet.

    Only the newest proposal for an alias stands, and only while the alias is where it was then.
    """

    adapter: str
    alias: str
    counter: int
    previous: int | None
    number: int
    digest: Digest
    by: str
    reason: str
    attestation: Envelope


class VersionRejected(Event, tag="version.rejected"):
    """A release manager refuses a version that was not approved yet, for good, whatever its evidence says."""

    adapter: str
    number: int
    reason: str


class VersionRevoked(Event, tag="version.revoked"):
    adapter: str
    number: int
    reason: str


class TrainingSubmitted(Event, tag="training.submitted"):
    """A run is to train an adapter. Its progress is not journalled: see `registry.storage.progress`."""

    id: str
    adapter: str
    recipe: str
    dataset: Digest
    replay: Digest | None = None
    notes: str | None = None


class TrainingClaimed(Event, tag="training.claimed"):
    id: str
    fence: int
    worker: str


class TrainingPaused(Event, tag="training.paused"):
    id: str


class TrainingResumed(Event, tag="training.resumed"):
    """A run that was paused, cancelled or had failed is queued again."""

    id: str


class TrainingCancelled(Event, tag="training.cancelled"):
    id: str


class TrainingFinished(Event, tag="training.finished"):
    """Version `number` of the run's adapter came of it."""

    id: str
    fence: int
    number: int


class TrainingFailed(Event, tag="training.failed"):
    """`final` ends the run; otherwise it is queued again."""

    id: str
    fence: int
    kind: FaultKind
    code: str
    message: str
    final: bool


class WebhookCreated(Event, tag="webhook.created"):
    """The receiver at `url` is told of these events inside `scope`; the secret itself is in no journal."""

    id: str
    url: str
    events: list[WebhookEvent]
    secret_sha256: Sha256
    scope: str | None = None


class WebhookDeleted(Event, tag="webhook.deleted"):
    id: str


class WebhookDisabled(Event, tag="webhook.disabled"):
    """Its receiver wants no more messages."""

    id: str
    reason: str


class WebhookTested(Event, tag="webhook.tested"):
    """A message that says nothing is to be sent to this webhook; `test` is in its id."""

    id: str
    test: str


class DeliveryRequested(Event, tag="delivery.requested"):
    """A message is to be sent to its webhook once more."""

    webhook: str
    delivery: str


class BlobQuarantined(Event, tag="blob.quarantined"):
    """The stored bytes no longer hashed to their name and were taken away; sending them again heals the blob."""

    sha256: Sha256


class BlobSent(Event, tag="blob.sent"):
    """A token limited to `scope` sent these bytes whole: in that scope they may be used from now on."""

    sha256: Sha256
    scope: str
    size: int = 0


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
