"""How each event changes the catalog. Deterministic: the same journal gives the same rows, on any machine, at any time.

An invariant that an event would break is a key violation here, before the event is journalled.
"""

import math
from collections.abc import Callable, Sequence
from functools import singledispatch
from typing import NamedTuple

import msgspec

from registry.approval.keyring import DEFAULT_ROLES as GATE_ROLES
from registry.events import (
    AccessRefused,
    AdapterCreated,
    AliasMoved,
    AnyEvent,
    ApprovalProposed,
    AssignmentIssued,
    AssignmentSkipped,
    BlobQuarantined,
    BlobSent,
    CampaignOpened,
    CampaignSealed,
    DeliveryRequested,
    DisputeAdjudicated,
    Entry,
    EvidenceRecorded,
    GateDecided,
    JobClaimed,
    JobFailed,
    JobQueued,
    KeyAdded,
    KeyRevoked,
    KeyRotated,
    PolicySet,
    PublisherAdded,
    PublisherRemoved,
    RatingRecorded,
    RegistryCreated,
    ReviewerVouched,
    ReviewerWithdrawn,
    SuiteRegistered,
    TokenCreated,
    TokenMinted,
    TokenRevoked,
    TrainingCancelled,
    TrainingClaimed,
    TrainingFailed,
    TrainingFinished,
    TrainingPaused,
    TrainingResumed,
    TrainingSubmitted,
    VersionCreated,
    VersionRejected,
    VersionRevoked,
    VersionSubmitted,
    WebhookCreated,
    WebhookDeleted,
    WebhookDisabled,
    WebhookTested,
)
from registry.records import State, TrainingError, TrainingStatus
from registry.storage.working import Row, WorkingSet


class Target(NamedTuple):
    """Where an event goes: the working set, the entry it is in, and how to load a blob of per-item rows.

    What comes often is inserted and updated through the working set, which tells the database of many events at once.
    `execute` of a statement is for the rest.
    """

    db: WorkingSet
    entry: Entry
    load_items: Callable[[str, str, int], None]


def fold_entry(target: Target) -> None:
    for event in target.entry.events:
        fold(event, target)
    if receipt := target.entry.receipt:
        actor = target.entry.actor
        target.db.insert(
            "receipts",
            actor=actor.token or actor.person,
            key=receipt.key,
            request=receipt.request,
            status=receipt.status,
            answer=_json(receipt.answer),
        )


@singledispatch
def fold(event: AnyEvent, to: Target) -> None:
    raise TypeError(f"no fold for {type(event).__name__}")


@fold.register
def _(event: RegistryCreated, to: Target) -> None:
    to.db.execute("UPDATE applied SET registry = ?", [event.registry])
    _add_key(to, event.key, event.public, GATE_ROLES, None)


@fold.register
def _(event: KeyRotated, to: Target) -> None:
    to.db.execute(
        "UPDATE signing_keys SET public = coalesce(public, ?), valid_until = ? WHERE id = ?",
        [event.previous_public, to.entry.at, event.previous],
    )
    _add_key(to, event.key, event.public, GATE_ROLES, None)


@fold.register
def _(event: KeyAdded, to: Target) -> None:
    _add_key(to, event.id, event.public, (event.role,), event.person)


@fold.register
def _(event: KeyRevoked, to: Target) -> None:
    to.db.execute(
        "UPDATE signing_keys SET revoked_at = ?, revoked_reason = ? WHERE id = ?", [to.entry.at, event.reason, event.id]
    )


@fold.register
def _(event: TokenCreated, to: Target) -> None:
    to.db.execute(
        "INSERT INTO tokens VALUES (?, ?, ?, ?, ?, ?, ?, NULL, ?)",
        [
            event.id,
            event.role,
            event.person,
            event.scope,
            event.secret_sha256,
            to.entry.at,
            event.expires_at,
            event.publisher,
        ],
    )


@fold.register
def _(event: TokenRevoked, to: Target) -> None:
    to.db.execute("UPDATE tokens SET revoked_at = ? WHERE id = ?", [to.entry.at, event.id])


@fold.register
def _(event: TokenMinted, to: Target) -> None:
    to.db.execute("INSERT INTO minted VALUES (?)", [event.jti])
    # They come by the thousand and live for minutes; the journal remembers them.
    to.db.execute("DELETE FROM tokens WHERE publisher IS NOT NULL AND expires_at < ?", [to.entry.at])


@fold.register
def _(event: PublisherAdded, to: Target) -> None:
    to.db.execute(
        "INSERT INTO publishers VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        [
            event.id,
            event.scope,
            event.issuer,
            event.audience,
            _json(event.claims),
            _json(event.keys) if event.keys is not None else None,
            event.jwks_url,
            to.entry.actor.person,
            to.entry.at,
        ],
    )


@fold.register
def _(event: PublisherRemoved, to: Target) -> None:
    to.db.execute("DELETE FROM publishers WHERE id = ?", [event.id])


@fold.register
def _(event: ReviewerVouched, to: Target) -> None:
    to.db.insert(
        "reviewers",
        id=event.id,
        person=event.person,
        domain=event.domain,
        credential=event.credential,
        issuer=event.issuer,
        valid_from=event.valid_from,
        valid_until=event.valid_until,
        scope=event.scope,
        vouched_by=to.entry.actor.person,
        vouched_at=to.entry.at,
        withdrawn_at=None,
        seq=to.entry.seq,
    )


@fold.register
def _(event: ReviewerWithdrawn, to: Target) -> None:
    to.db.update("reviewers", event.id, withdrawn_at=to.entry.at)


@fold.register
def _(event: AccessRefused, to: Target) -> None:
    """For who reads the journal; nothing depends on it."""


@fold.register
def _(event: BlobQuarantined, to: Target) -> None:
    """Nothing: what is stored now is the disk's to say; the journal tells auditors when it was found damaged."""


@fold.register
def _(event: BlobSent, to: Target) -> None:
    to.db.execute(
        "INSERT INTO sent_blobs VALUES (?, ?, ?) ON CONFLICT DO NOTHING", [event.sha256, event.scope, event.size]
    )


@fold.register
def _(event: WebhookCreated, to: Target) -> None:
    to.db.execute(
        "INSERT INTO webhooks VALUES (?, ?, ?, ?, ?, ?, ?, ?, NULL, NULL)",
        [
            event.id,
            event.url,
            _json(event.events),
            event.scope,
            event.secret_sha256,
            to.entry.actor.person,
            to.entry.at,
            to.entry.seq,
        ],
    )


@fold.register
def _(event: WebhookDeleted, to: Target) -> None:
    to.db.execute("DELETE FROM webhooks WHERE id = ?", [event.id])


@fold.register
def _(event: WebhookDisabled, to: Target) -> None:
    to.db.execute(
        "UPDATE webhooks SET disabled_at = ?, disabled_reason = ? WHERE id = ?", [to.entry.at, event.reason, event.id]
    )


@fold.register
def _(event: WebhookTested | DeliveryRequested, to: Target) -> None:
    """Nothing: what is sent to whom is the sender's to remember."""


@fold.register
def _(event: SuiteRegistered, to: Target) -> None:
    to.db.execute(
        "INSERT INTO suites VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        [
            event.digest,
            event.name,
            event.kind,
            event.n_items,
            _json(event.files),
            event.max_cut_off,
            event.chance,
            to.entry.seq,
        ],
    )
    for sha256 in sorted({file.sha256 for file in event.files}):
        to.db.insert("suite_blobs", sha256=sha256, suite=event.digest)


@fold.register
def _(event: AdapterCreated, to: Target) -> None:
    tensors = _json(event.base_tensors) if event.base_tensors is not None else None
    to.db.execute(
        "INSERT INTO adapters VALUES (?, ?, ?, NULL, 0, ?)", [event.name, _json(event.base), tensors, to.entry.at]
    )


@fold.register
def _(event: PolicySet, to: Target) -> None:
    to.db.execute("INSERT INTO policies VALUES (?, ?) ON CONFLICT DO NOTHING", [event.digest, _json(event.document)])
    to.db.execute(
        "UPDATE adapters SET policy = ?, revision = ? WHERE name = ?", [event.digest, event.revision, event.adapter]
    )


@fold.register
def _(event: VersionCreated, to: Target) -> None:
    to.db.insert(
        "versions",
        adapter=event.adapter,
        number=event.number,
        digest=event.digest,
        state=State.UPLOADING.value,
        files=_json(event.files),
        training=_json(event.training) if event.training else None,
        notes=event.notes,
        submitter=to.entry.actor.person,
        created_at=to.entry.at,
        sealed_at=None,
        policy=None,
        findings="[]",
        evidence_digest=None,
        evidence=None,
        decided=None,
        rejected=None,
        sealed_by=None,
    )
    held = {("file", file.sha256) for file in event.files}
    if event.training:
        held |= {("dataset", event.training.dataset[7:]), ("ledger", event.training.ledger[7:])}
    for purpose, sha256 in sorted(held):
        to.db.insert("version_blobs", adapter=event.adapter, number=event.number, sha256=sha256, purpose=purpose)


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
        findings=_json(event.findings),
    )
    _queue(to, event.job, event.adapter, event.number)


@fold.register
def _(event: JobQueued, to: Target) -> None:
    _queue(to, event.id, event.adapter, event.number)
    _move_version(to, event.adapter, event.number, State.SUBMITTED)


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
    evidence = _json(event.evidence)
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


@fold.register
def _(event: CampaignOpened, to: Target) -> None:
    to.db.insert(
        "campaigns",
        id=event.id,
        adapter=event.adapter,
        number=event.number,
        policy=event.policy,
        suite=event.suite,
        reviewers=event.reviewers,
        root=event.root,
        opened_by=to.entry.actor.person,
        opened_at=to.entry.at,
        sealed_at=None,
        seq=to.entry.seq,
    )
    for position, one in enumerate(event.items):
        to.db.insert(
            "campaign_items",
            campaign=event.id,
            position=position,
            item=one.item,
            hash=one.hash,
            kind=one.kind.value,
            suite=one.suite or event.suite,
            source=one.source or one.item,
            subject=one.subject,
            number=one.number or event.number,
            words=one.words,
            expect=_json(one.expect) if one.expect is not None else None,
        )


@fold.register
def _(event: AssignmentIssued, to: Target) -> None:
    position = event.position
    if position is None:  # of an older journal, where each person was shown one after another
        position = len(to.db.select("assignments", campaign=event.campaign, person=event.person)) + 1
    to.db.insert(
        "assignments",
        id=event.id,
        campaign=event.campaign,
        person=event.person,
        item=event.item,
        position=position,
        batch=event.batch,
        issued_at=to.entry.at,
        state="open",
        skip_reason=None,
    )


@fold.register
def _(event: AssignmentSkipped, to: Target) -> None:
    to.db.update("assignments", event.id, state="skipped", skip_reason=event.reason)


@fold.register
def _(event: RatingRecorded, to: Target) -> None:
    about = to.db.find("assignments", event.assignment)
    assert about is not None
    known = to.db.select("ratings", campaign=about["campaign"], person=about["person"])
    to.db.insert(
        "ratings",
        assignment=event.assignment,
        revision=sum(one["assignment"] == event.assignment for one in known) + 1,
        campaign=about["campaign"],
        person=about["person"],
        clarity=event.clarity,
        relevance=event.relevance,
        safety=event.safety,
        accuracy=event.accuracy,
        hallucination=event.hallucination,
        unsafe=event.unsafe,
        discuss=event.discuss,
        comment=event.comment,
        channel=event.channel.value,
        seconds=event.seconds,
        rated_at=to.entry.at,
        seq=to.entry.seq,
    )
    to.db.update("assignments", event.assignment, state="rated")


@fold.register
def _(event: CampaignSealed, to: Target) -> None:
    to.db.update("campaigns", event.id, sealed_at=to.entry.at)


@fold.register
def _(event: DisputeAdjudicated, to: Target) -> None:
    to.db.insert(
        "adjudications",
        campaign=event.campaign,
        item=event.item,
        upheld=event.upheld,
        person=to.entry.actor.person,
        reason=event.reason,
        adjudicated_at=to.entry.at,
    )


@fold.register
def _(event: AliasMoved, to: Target) -> None:
    if to.db.find("proposals", event.adapter, event.alias):
        to.db.execute("DELETE FROM proposals WHERE adapter = ? AND alias = ?", [event.adapter, event.alias])
    now = {"number": event.number, "digest": event.digest, "counter": event.counter, "moved_at": to.entry.at}
    if to.db.find("aliases", event.adapter, event.alias):
        to.db.update("aliases", event.adapter, event.alias, **now)
    else:
        to.db.insert("aliases", adapter=event.adapter, alias=event.alias, **now)
    to.db.insert(
        "alias_moves",
        adapter=event.adapter,
        alias=event.alias,
        counter=event.counter,
        previous=event.previous,
        number=event.number,
        digest=event.digest,
        moved_by=event.by,
        made_at=to.entry.at,
        reason=event.reason,
        attestation=_json(event.attestation),
    )
    _move_version(to, event.adapter, event.number, State.APPROVED)
    # A version that no alias names any more is superseded, unless it was revoked.
    named = {alias["number"] for alias in to.db.select("aliases", adapter=event.adapter)}
    if event.previous is not None and event.previous not in named:
        previous = to.db.find("versions", event.adapter, event.previous)
        if previous and previous["state"] == State.APPROVED:
            _move_version(to, event.adapter, event.previous, State.SUPERSEDED)


@fold.register
def _(event: ApprovalProposed, to: Target) -> None:
    to.db.execute("DELETE FROM proposals WHERE adapter = ? AND alias = ?", [event.adapter, event.alias])
    to.db.execute(
        "INSERT INTO proposals VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        [
            event.adapter,
            event.alias,
            event.counter,
            event.previous,
            event.number,
            event.digest,
            event.by,
            to.entry.at,
            event.reason,
            _json(event.attestation),
        ],
    )


@fold.register
def _(event: VersionRejected, to: Target) -> None:
    to.db.update("versions", event.adapter, event.number, state=State.REJECTED.value, rejected=event.reason)


@fold.register
def _(event: VersionRevoked, to: Target) -> None:
    _move_version(to, event.adapter, event.number, State.REVOKED)


@fold.register
def _(event: TrainingSubmitted, to: Target) -> None:
    to.db.insert(
        "trainings",
        id=event.id,
        adapter=event.adapter,
        status=TrainingStatus.QUEUED.value,
        recipe=event.recipe,
        dataset=event.dataset,
        replay=event.replay,
        notes=event.notes,
        submitter=to.entry.actor.person,
        created_at=to.entry.at,
        started_at=None,
        finished_at=None,
        worker=None,
        fence=0,
        attempts=0,
        claim=None,
        error=None,
        version=None,
        seq=to.entry.seq,
    )
    _tell(to, event.id, f"submitted by {to.entry.actor.person}")


@fold.register
def _(event: TrainingClaimed, to: Target) -> None:
    if run := to.db.find("trainings", event.id):
        attempts = run["attempts"] + 1
        _move_training(
            to,
            event.id,
            TrainingStatus.RUNNING,
            fence=event.fence,
            attempts=attempts,
            worker=event.worker,
            claim=to.entry.seq,
            started_at=run["started_at"] or to.entry.at,
        )
        _tell(to, event.id, f"claimed by {event.worker}, attempt {attempts}")


@fold.register
def _(event: TrainingPaused, to: Target) -> None:
    _move_training(to, event.id, TrainingStatus.PAUSED, worker=None)
    _tell(to, event.id, f"paused by {to.entry.actor.person}")


@fold.register
def _(event: TrainingResumed, to: Target) -> None:
    _move_training(to, event.id, TrainingStatus.QUEUED, worker=None, attempts=0, error=None, finished_at=None)
    _tell(to, event.id, f"resumed by {to.entry.actor.person}")


@fold.register
def _(event: TrainingCancelled, to: Target) -> None:
    _move_training(to, event.id, TrainingStatus.CANCELLED, worker=None, finished_at=to.entry.at)
    _tell(to, event.id, f"cancelled by {to.entry.actor.person}")


@fold.register
def _(event: TrainingFinished, to: Target) -> None:
    _move_training(to, event.id, TrainingStatus.SUCCEEDED, worker=None, version=event.number, finished_at=to.entry.at)
    _tell(to, event.id, f"finished as version {event.number}")


@fold.register
def _(event: TrainingFailed, to: Target) -> None:
    if event.final:
        error = _json(TrainingError(kind=event.kind, code=event.code, message=event.message))
        _move_training(to, event.id, TrainingStatus.FAILED, worker=None, error=error, finished_at=to.entry.at)
    else:
        _move_training(to, event.id, TrainingStatus.QUEUED, worker=None)
    then = "failed" if event.final else "given back"
    _tell(to, event.id, f"{then}: {event.message}", "error" if event.final else "warn")


def _move_training(to: Target, id_: str, status: TrainingStatus, **changes: object) -> None:
    to.db.update("trainings", id_, status=status.value, **changes)


def _tell(to: Target, training: str, message: str, level: str = "info") -> None:
    to.db.insert(
        "training_facts", training=training, seq=to.entry.seq, told_at=to.entry.at, level=level, message=message
    )


def _add_key(to: Target, id_: str, public: str | None, roles: Sequence[str], person: str | None) -> None:
    to.db.execute(
        "INSERT INTO signing_keys VALUES (?, ?, ?, ?, ?, NULL, NULL, NULL, ?)",
        [id_, public, _json(roles), person, to.entry.at, to.entry.seq],
    )


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


def _move_version(to: Target, adapter: str, number: int, state: State) -> None:
    to.db.update("versions", adapter, number, state=state.value)


def _move_measured(to: Target, job: Row, state: State) -> None:
    """Move the version that a job is about, while it waits for its evidence."""
    version = to.db.find("versions", job["adapter"], job["number"])
    if version and version["state"] in (State.SUBMITTED, State.EVALUATING):
        _move_version(to, job["adapter"], job["number"], state)


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()
