"""What the gate's rules look at and how they answer, and why a part of the evidence may not be judged at all. Pure."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import msgspec

from registry.records import Check, Evidence, LedgerReviews, Plain, Policy, RatingRow, ReviewFacts, SliceReport, Status

# Every run must report these; the first says something about the adapter, the others whether numbers can be believed.
# How many answers were cut off is about the adapter's answers to one suite, and is counted there: see `rambling`.
EFFECT_CANARY = "adapter_effect"
ENGINE_CANARIES = ("noise_floor", "base_beside_adapter", "echo", "finite")


class Subject(NamedTuple):
    """What is judged: a sealed version, its pinned policy and what is known without measuring."""

    ref: str
    digest: str
    policy_digest: str
    policy: Policy
    sealed: bool
    has_training_record: bool
    # Of each pinned suite, by `name@digest`: its items; the share of answers that may be cut off; and, for suites of
    # choices, the share of right answers that one letter everywhere gets.
    suite_sizes: dict[str, int]
    cut_off_limits: dict[str, float]
    chances: dict[str, float]
    warnings: Sequence[str] = ()
    failure: str | None = None  # why the last attempt to measure it was given up
    revoked: bool = False
    rejected: str | None = None  # why a release manager refused it, where one did
    waived: Mapping[str, str] = {}  # reason by code of what would have stopped its training
    reviews: LedgerReviews | None = None  # of the rows that trained it, where they were counted


class Case(NamedTuple):
    """review: what the ratings are counted by; None for a version that was decided before campaigns were sealed."""

    subject: Subject
    evidence: Evidence | None
    ratings: Sequence[RatingRow]
    review: ReviewFacts | None


class Draft(NamedTuple):
    """A check without its outcome. `about`: the extra suite it is about, where there is more than one of its kind."""

    kind: str
    required: dict[str, Plain]
    suite: str | None = None
    about: str | None = None
    details: Sequence[str] = ()
    slices: Sequence[SliceReport] = ()

    def to(self, status: Status, reason: str, **observed: Plain) -> Check:
        finite = {key: None if isinstance(x, float) and not math.isfinite(x) else x for key, x in observed.items()}
        return Check(
            name=f"{self.kind}:{self.about}" if self.about else self.kind,
            kind=self.kind,
            status=status,
            reason=reason,
            observed=finite,
            required=self.required,
            suite=self.suite,
            details=list(self.details),
            slices=list(self.slices),
        )


def unmeasured(case: Case) -> tuple[Status, str]:
    if case.subject.failure is None:
        return Status.PENDING, "not evaluated yet"
    return Status.INVALID, f"the evaluation failed: {case.subject.failure}; push the same files to measure them again"


def foreign(case: Case, evidence: Evidence) -> str | None:
    """Why this evidence says nothing about this version, or None."""
    if evidence.manifest == case.subject.digest:
        return None
    return f"measured on {evidence.manifest}, this version is {case.subject.digest}"


def distrust(evidence: Evidence) -> str | None:
    """Why no number of this run may be believed, or None."""
    for name in ENGINE_CANARIES:
        found = [canary for canary in evidence.canaries if canary.name == name]
        if not found:
            return f"canary {name} was not run"
        for canary in found:
            measured = math.isfinite(canary.observed) and math.isfinite(canary.limit)
            if not (canary.passed and measured and canary.observed <= canary.limit):
                return f"canary {name} failed: {canary.detail}"
    return None


def unusable(
    case: Case, suite: str, measured_on: str | None, n: int | None, *, measured: bool = True, hopeless: bool = False
) -> tuple[Status, str] | None:
    """Why this part of the evidence cannot be judged, or None: missing, another suite, incomplete, distrusted.

    measured: the engine had a part in it. hopeless: no answer to items that were not asked could avert a failure.
    """
    if case.evidence is None:
        return unmeasured(case)
    if stranger := foreign(case, case.evidence):
        return Status.INVALID, stranger
    if measured_on is None or n is None:
        return Status.INVALID, "missing from the evidence"
    if measured_on != suite:
        return Status.INVALID, f"measured on {measured_on}, the policy asks for {suite}"
    size = case.subject.suite_sizes.get(suite)
    if not n or not size or not (n == size or (hopeless and n < size)):
        return Status.INVALID, f"covers {n} of the suite's {size} items; all are needed"
    if measured and (doubt := distrust(case.evidence)):
        return Status.INVALID, doubt
    return None


class Ends(NamedTuple):
    """How many of `n` answers were cut off; None: older evidence does not say."""

    whose: str
    cut_off: int | None
    n: int


def rambling(case: Case, suite: str, *answers: Ends) -> str | None:
    """Why these answers to a suite are not believed, or None: more of them were cut off than it allows.

    Of a suite whose limit is not known, none may be.
    """
    limit = case.subject.cut_off_limits.get(suite, 0.0)
    for one in answers:
        if one.cut_off is not None and one.n and one.cut_off / one.n > limit:
            return (
                f"{one.cut_off} of the {one.n} answers of the {one.whose} were cut off by max_tokens, "
                f"{one.cut_off / one.n:.1%} where {suite.partition('@')[0]} allows {limit:.0%}: the start of a ramble "
                "is no answer; train it to end its replies, or give the suite more max_tokens"
            )
    return None


def doubted(check: Check, doubt: str | None) -> Check:
    """The check made invalid by what speaks against its answers; a failure stands, for no doubt makes it softer."""
    if doubt is None or check.status in (Status.FAIL, Status.INVALID):
        return check
    return msgspec.structs.replace(check, status=Status.INVALID, reason=f"{doubt} (else: {check.reason})")


def worst(*statuses: Status) -> Status:
    order = (Status.FAIL, Status.INVALID, Status.INCONCLUSIVE, Status.PENDING, Status.PASS)
    return min(statuses, key=order.index)
