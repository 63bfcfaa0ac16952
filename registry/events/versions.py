"""The way of a version: its adapter, suites and policy, its measurement and verdict, its approval and its end."""

from registry.events.event import Event
from registry.records import (
    MAX_CUT_OFF,
    Base,
    Digest,
    Envelope,
    Evidence,
    FileEntry,
    Finding,
    GateReport,
    LedgerReviews,
    Policy,
    State,
    SuiteKind,
    TrainingRecord,
)


class SuiteRegistered(Event, frozen=True, tag="suite.registered"):
    name: str
    kind: SuiteKind
    digest: Digest
    n_items: int
    files: list[FileEntry]
    max_cut_off: float = MAX_CUT_OFF
    chance: float = 0.0


class AdapterCreated(Event, frozen=True, tag="adapter.created"):
    name: str
    base: Base
    base_tensors: dict[str, list[int]] | None = None


class PolicySet(Event, frozen=True, tag="policy.set"):
    """`document` has its suites pinned to digests; `digest` is over that document."""

    adapter: str
    revision: int
    digest: Digest
    document: Policy


class VersionCreated(Event, frozen=True, tag="version.created"):
    adapter: str
    number: int
    digest: Digest
    files: list[FileEntry]
    training: TrainingRecord | None = None
    notes: str | None = None


class VersionSubmitted(Event, frozen=True, tag="version.submitted"):
    """Upload complete and inspected: the version is sealed, its policy pinned, its evaluation queued as `job`.

    reviews: None without a training record, and in entries from before they were counted.
    """

    adapter: str
    number: int
    policy: Digest
    findings: list[Finding]
    job: str
    reviews: LedgerReviews | None = None


class JobQueued(Event, frozen=True, tag="job.queued"):
    """A sealed version is to be measured again, because the last attempt did not end in evidence to be trusted."""

    id: str
    adapter: str
    number: int


class JobClaimed(Event, frozen=True, tag="job.claimed"):
    id: str
    fence: int
    worker: str


class JobFailed(Event, frozen=True, tag="job.failed"):
    """`final` ends the job; otherwise it is queued again."""

    id: str
    fence: int
    reason: str
    final: bool


class EvidenceRecorded(Event, frozen=True, tag="evidence.recorded"):
    job: str
    adapter: str
    number: int
    digest: Digest
    evidence: Evidence


class GateDecided(Event, frozen=True, tag="gate.decided"):
    adapter: str
    number: int
    state: State
    report: GateReport


class AliasMoved(Event, frozen=True, tag="alias.moved"):
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


class ApprovalProposed(Event, frozen=True, tag="approval.proposed"):
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


class VersionRejected(Event, frozen=True, tag="version.rejected"):
    """A release manager refuses a version that was not approved yet, for good, whatever its evidence says."""

    adapter: str
    number: int
    reason: str


class VersionRevoked(Event, frozen=True, tag="version.revoked"):
    adapter: str
    number: int
    reason: str
