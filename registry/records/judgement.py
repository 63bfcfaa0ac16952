"""What the gate says, and everything it said it from."""

from registry.records.adapters import LedgerReviews
from registry.records.evidence import EngineInfo, Evidence
from registry.records.policy import Policy
from registry.records.review import RatingRow, ReviewFacts
from registry.records.words import Count, Digest, Plain, Record, Status, Verdict


class SliceReport(Record):
    """How one tag's items did. `p_value` is one-sided and corrected after Holm over the tags of its suite."""

    tag: str
    n: Count
    value: float
    p_value: float
    alarm: bool


class Check(Record):
    """One condition of the gate: what was observed, what is required, and the reason in words.

    details: what explains the number, a line each. slices: the suite by tags; an alarm never changes the status.
    """

    name: str
    kind: str
    status: Status
    reason: str
    observed: dict[str, Plain]
    required: dict[str, Plain]
    suite: str | None = None
    details: list[str] = []
    slices: list[SliceReport] = []


class GateReport(Record):
    ref: str
    digest: Digest
    policy: Digest
    verdict: Verdict
    checks: list[Check]
    evaluated_with: EngineInfo | None = None


class Bundle(Record):
    """What a version's verdict was decided from: with the blob of per-item rows that `evidence` names, it can be again.

    document: the policy, of digest `policy`. sealed to revoked, waived, reviews: what the gate knows without measuring
    (see `registry.gate.case.Subject`). ratings: each person under one pseudonym. review: what they are counted by; None
    where the version was decided before campaigns were sealed. report: what the registry's own gate says, and
    software: which tunegate said it.
    """

    ref: str
    digest: Digest
    policy: Digest
    document: Policy
    sealed: bool
    has_training_record: bool
    suite_sizes: dict[str, Count]
    cut_off_limits: dict[str, float]
    chances: dict[str, float]
    warnings: list[str]
    failure: str | None
    revoked: bool
    evidence: Evidence | None
    evidence_digest: Digest | None
    ratings: list[RatingRow]
    report: GateReport
    software: str
    rejected: str | None = None
    review: ReviewFacts | None = None
    waived: dict[str, str] = {}
    reviews: LedgerReviews | None = None
