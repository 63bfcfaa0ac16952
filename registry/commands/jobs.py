"""Jobs: claimed under a lease with a fencing token, answered with evidence. Workers measure; judging happens here."""

from collections import Counter
from collections.abc import Iterator, Sequence
from functools import lru_cache

from registry.access import may_know_blob
from registry.commands import drawing, trainings
from registry.commands.context import Context, Outcome
from registry.commands.gate import assess, decided, state_of
from registry.commands.versions import base_of
from registry.errors import EvidenceRefused, NotFound, StaleLease
from registry.events import AnyEvent, EvidenceRecorded, JobClaimed, JobFailed
from registry.gate.rows import contradictions
from registry.gate.summary import suite_refs
from registry.records import (
    ClaimJob,
    Evidence,
    FailJob,
    ItemRow,
    Job,
    JobInfo,
    Lease,
    Policy,
    PostEvidence,
    Role,
    State,
    evidence_digest,
)
from registry.storage.blobs import LocalBlobs
from registry.storage.views import StoredJob, StoredVersion
from registry.suites import read_suite

MOST_ATTEMPTS = 3
KIND = "evaluation"


def claim(context: Context, request: ClaimJob) -> Outcome:
    """The oldest job that is queued, or whose worker fell silent; status 204 and no job if there is none.

    Of one base only, if the worker asks for one. A trainer's jobs are training runs.
    """
    if context.principal.role is Role.TRAINER:
        return trainings.claim(context, request)
    events: list[AnyEvent] = []
    for job in context.view.unfinished_jobs([kind for kind in request.kinds if _does(context, kind)]):
        if not context.principal.may_see(job.adapter):
            continue
        if request.base is not None and base_of(context.view, job.adapter).digest != request.base:
            continue
        if job.state == "claimed" and not context.services.leases.expired(job.id):
            continue
        if job.attempts >= MOST_ATTEMPTS:
            reason = f"given up after {job.attempts} attempts; the last worker ({job.worker}) fell silent"
            events.append(JobFailed(id=job.id, fence=job.fence, reason=reason, final=True))
            continue
        context.services.leases.grant(job.id)
        claimed = job._replace(fence=job.fence + 1)
        events.append(JobClaimed(id=job.id, fence=claimed.fence, worker=request.worker))
        return Outcome(_assembled(context, claimed), events)
    return Outcome(None, events, 204)


def heartbeat(context: Context, job_id: str, request: Lease) -> Outcome:
    """Hold the lease for another while. Nothing is journalled."""
    if context.principal.role is Role.TRAINER:
        return trainings.heartbeat(context, job_id, request)
    job = held(context, job_id, request.fence)
    context.services.leases.grant(job.id)
    return Outcome(describe(job))


def fail(context: Context, job_id: str, request: FailJob) -> Outcome:
    """Give a job back; it is tried again unless the worker says that it is of no use, or too often already."""
    if context.principal.role is Role.TRAINER:
        return trainings.fail(context, job_id, request)
    job = held(context, job_id, request.fence)
    final = not request.retry or job.attempts >= MOST_ATTEMPTS
    event = JobFailed(id=job.id, fence=job.fence, reason=request.reason, final=final)
    return Outcome(describe(job._replace(state="failed" if final else "queued", reason=request.reason)), [event])


def record_evidence(context: Context, job_id: str, request: PostEvidence) -> Outcome:
    """Record what a worker measured, decide the gate, and open the review if only people's ratings are missing."""
    job = held(context, job_id, request.fence)
    stored = context.view.version(job.adapter, job.number)
    assert stored is not None
    evidence, blobs = request.evidence, context.services.blobs
    if problems := list(_foreign(stored, evidence)):
        raise EvidenceRefused("the evidence is not about this job: " + "; ".join(problems), problems)
    if not blobs.has(evidence.rows) or not may_know_blob(context.view, context.principal, evidence.rows):
        raise EvidenceRefused(f"upload the per-item rows first with PUT /v1/blobs/sha256:{evidence.rows}")
    rows = context.services.read_rows(evidence.rows)
    policy, suites = context.view.policy(evidence.policy), context.view.suites()
    limits = {ref: suites[ref].max_cut_off for ref in suite_refs(policy)}
    if problems := list(_strangers(context, policy, rows)) or contradictions(policy, evidence, rows, limits):
        raise EvidenceRefused("the evidence contradicts its own rows: " + "; ".join(problems[:5]), problems)
    digest = evidence_digest(evidence)
    measured = stored._replace(evidence=evidence, evidence_digest=digest)
    report = assess(context.view, measured)
    recorded = EvidenceRecorded(job=job.id, adapter=job.adapter, number=job.number, digest=digest, evidence=evidence)
    events = [recorded, *decided(measured, report)]
    if state_of(report) is State.IN_REVIEW and context.view.campaign_of(job.adapter, job.number) is None:
        events.append(drawing.opened(context, measured, rows))
    return Outcome(describe(job._replace(state="done")), events)


def held(context: Context, job_id: str, fence: int) -> StoredJob:
    """The job, if the fencing token is the newest and the job is still open."""
    job = context.view.job(job_id)
    if job is None or not context.principal.may_see(job.adapter) or not _does(context, job.kind):
        raise NotFound(f"job {job_id!r} does not exist or is not visible to this token")
    if job.state != "claimed" or job.fence != fence:
        raise StaleLease(
            f"job {job_id} is {job.state} with fencing token {job.fence}, not {fence}: another worker has it, or it is "
            "over; stop working on it and claim again"
        )
    return job


def _does(context: Context, kind: str) -> bool:
    return context.principal.role is Role.EVALUATOR and kind == KIND


def describe(job: StoredJob) -> JobInfo:
    return JobInfo(
        id=job.id,
        kind=job.kind,
        ref=f"{job.adapter}/{job.number}",
        state=job.state,
        fence=job.fence,
        attempts=job.attempts,
        worker=job.worker,
        reason=job.reason,
    )


def _foreign(stored: StoredVersion, evidence: Evidence) -> Iterator[str]:
    if evidence.manifest != stored.digest:
        yield f"manifest {evidence.manifest} was measured, the job is about {stored.digest}"
    if evidence.policy != stored.policy:
        yield f"policy {evidence.policy} was followed, the version is pinned to {stored.policy}"


def _strangers(context: Context, policy: Policy, rows: Sequence[ItemRow]) -> Iterator[str]:
    """Rows that are not about the items of the policy's suites, as those suites have them."""
    asked: dict[str, dict[tuple[str, str], ItemRow]] = {}
    for row in rows:
        if row.subject not in ("candidate", "base"):
            yield f"{row.suite}: item {row.item!r} is about {row.subject!r}, neither candidate nor base"
        asked.setdefault(row.suite, {})[row.item, row.subject] = row
    suites = context.view.suites()
    for ref, found in sorted(asked.items(), key=repr):
        if ref not in suite_refs(policy):
            yield f"{ref} is not a suite of the policy"
            continue
        tags = _tags(context.services.blobs, tuple((file.path, file.sha256) for file in suites[ref].files))
        if unknown := sorted({item for item, _ in found if item not in tags}, key=repr):
            yield f"{ref} has no item {unknown[0]!r}"
        for (item, subject), row in found.items():
            if item in tags and row.tags != tags[item]:
                yield f"{ref}: item {item!r} of the {subject} has tags {row.tags}, the suite has {tags[item]}"
        by_subject = Counter(subject for _, subject in found)
        # What a run that stopped early could still have gained is known only from the base's answers to all items.
        if by_subject["candidate"] and 0 < by_subject["base"] < len(tags):
            yield f"{ref}: the base answered {by_subject['base']} of {len(tags)} items; it must answer all"


@lru_cache(maxsize=64)
def _tags(blobs: LocalBlobs, files: tuple[tuple[str, str], ...]) -> dict[str, list[str]]:
    """The tags of each item of a registered suite, whose content its digests fix."""
    return {item.id: item.tags for item in read_suite({path: blobs.read(sha256) for path, sha256 in files}).items}


def _assembled(context: Context, job: StoredJob) -> Job:
    stored = context.view.version(job.adapter, job.number)
    assert stored is not None and stored.policy is not None
    policy = context.view.policy(stored.policy)
    suites = context.view.suites()
    return Job(
        id=job.id,
        kind=job.kind,
        ref=stored.ref,
        adapter=job.adapter,
        number=job.number,
        digest=stored.digest,
        fence=job.fence,
        lease_seconds=context.services.leases.seconds,
        base=base_of(context.view, job.adapter),
        files=stored.files,
        policy=stored.policy,
        document=policy,
        suites=[suites[ref] for ref in suite_refs(policy)],
        training=stored.training,
    )
