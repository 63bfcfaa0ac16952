"""Work for evaluators and trainers, and the lease on it."""

from registry.records.adapters import Base, FileEntry, TrainingRecord
from registry.records.evidence import Evidence
from registry.records.policy import Policy
from registry.records.suites import Suite
from registry.records.trainings import FaultKind
from registry.records.words import Count, Digest, Record, Request, Text, Word


class ClaimJob(Request):
    """`base`: only jobs about adapters of this base, for a worker whose engine already serves it."""

    kinds: list[Word]
    worker: Word = "worker"
    base: Digest | None = None


class Lease(Request):
    """Proof that a worker still holds a job: the fencing token it was given with the claim."""

    fence: Count


class PostEvidence(Request):
    fence: Count
    evidence: Evidence


class FailJob(Request):
    """`code` and `kind` say what went wrong with a training, and who can mend it."""

    fence: Count
    reason: Text
    retry: bool = True
    code: Word = "failed"
    kind: FaultKind = FaultKind.SYSTEM_ERROR


class Job(Record):
    """Everything a worker needs; the fence goes into every later call about it."""

    id: str
    kind: str
    ref: str
    adapter: str
    number: int
    digest: Digest
    fence: int
    lease_seconds: float
    base: Base
    files: list[FileEntry]
    policy: Digest
    document: Policy
    suites: list[Suite]
    training: TrainingRecord | None = None


class JobInfo(Record):
    id: str
    kind: str
    ref: str
    state: str
    fence: int
    attempts: int
    worker: str | None = None
    reason: str | None = None
