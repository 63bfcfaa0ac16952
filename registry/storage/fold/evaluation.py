"""A sealed version on its way to a verdict: its job, its evidence, and what the gate decided of it."""

import math

from registry.events import EvidenceRecorded, GateDecided, JobClaimed, JobFailed, JobQueued, VersionSubmitted
from registry.records import State
from registry.storage.fold.target import Target, as_json, fold
from registry.storage.fold.versions import move_version
from registry.storage.working import Row


@fold.register
def _(event: VersionSubmitted, to: Target) -> None:
    to.db.update(
        "versions",
        event.adapter,
        event.number,
        state=State.SUBMITTED.value,
        sealed_at=to.entry.at,
        sealed_by=to.entry.actor.person,
        policy=event.policy,
        findings=as_json(event.findings),
        reviews=as_json(event.reviews) if event.reviews else None,
    )
    _queue(to, event.job, event.adapter, event.number)


@fold.register
def _(event: JobQueued, to: Target) -> None:
    _queue(to, event.id, event.adapter, event.number)
    move_version(to, event.adapter, event.number, State.SUBMITTED)


@fold.register
def _(event: JobClaimed, to: Target) -> None:
    if job := to.db.find("jobs", event.id):
        attempts = job["attempts"] + 1
        to.db.update(
            "jobs",
            event.id,
            state="claimed",
            fence=event.fence,
            attempts=attempts,
            worker=event.worker,
            reason=None,
        )
        _move_measured(to, job, State.EVALUATING)


@fold.register
def _(event: JobFailed, to: Target) -> None:
    if job := to.db.find("jobs", event.id):
        state = "failed" if event.final else "queued"
        to.db.update("jobs", event.id, state=state, worker=None, reason=event.reason)
        _move_measured(to, job, State.INCONCLUSIVE if event.final else State.SUBMITTED)


@fold.register
def _(event: EvidenceRecorded, to: Target) -> None:
    to.db.update("jobs", event.job, state="done")
    evidence = as_json(event.evidence)
    to.db.update("versions", event.adapter, event.number, evidence=evidence, evidence_digest=event.digest)
    # A version that is measured again holds the rows of both times, but only the new ones are in `items`: the first
    # were of evidence that was not to be trusted.
    to.db.execute(
        "INSERT INTO version_blobs VALUES (?, ?, ?, 'items') ON CONFLICT DO NOTHING",
        [event.adapter, event.number, event.evidence.rows],
    )
    to.db.execute("DELETE FROM items WHERE adapter = ? AND number = ?", [event.adapter, event.number])
    to.load_items(event.evidence.rows, event.adapter, event.number)


@fold.register
def _(event: GateDecided, to: Target) -> None:
    seq = to.entry.seq
    to.db.update("versions", event.adapter, event.number, state=event.state.value, decided=seq)
    values = {check.name: check.observed.get("value") for check in event.report.checks}
    for name, value in values.items():
        # Canonical JSON writes 1.0 as 1.
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
            to.db.insert("metrics", adapter=event.adapter, number=event.number, seq=seq, name=name, value=float(value))


def _queue(to: Target, job: str, adapter: str, number: int) -> None:
    to.db.insert(
        "jobs",
        id=job,
        kind="evaluation",
        adapter=adapter,
        number=number,
        state="queued",
        fence=0,
        attempts=0,
        worker=None,
        reason=None,
        seq=to.entry.seq,
    )


def _move_measured(to: Target, job: Row, state: State) -> None:
    """Move the version that a job is about, while it waits for its evidence."""
    version = to.db.find("versions", job["adapter"], job["number"])
    if version and version["state"] in (State.SUBMITTED, State.EVALUATING):
        move_version(to, job["adapter"], job["number"], state)
