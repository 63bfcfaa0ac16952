"""Suites, adapters, policies and versions, the blobs that they hold, and what is approved of them."""

from registry.events import (
    AdapterCreated,
    AliasMoved,
    ApprovalProposed,
    BlobQuarantined,
    BlobSent,
    PolicySet,
    SuiteRegistered,
    VersionCreated,
    VersionRejected,
    VersionRevoked,
)
from registry.records import State
from registry.storage.fold.target import Target, as_json, fold


@fold.register
def _(event: SuiteRegistered, to: Target) -> None:
    to.db.execute(
        "INSERT INTO suites VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        [
            event.digest,
            event.name,
            event.kind,
            event.n_items,
            as_json(event.files),
            event.max_cut_off,
            event.chance,
            to.entry.seq,
        ],
    )
    for sha256 in sorted({file.sha256 for file in event.files}):
        to.db.insert("suite_blobs", sha256=sha256, suite=event.digest)


@fold.register
def _(event: AdapterCreated, to: Target) -> None:
    tensors = as_json(event.base_tensors) if event.base_tensors is not None else None
    to.db.execute(
        "INSERT INTO adapters VALUES (?, ?, ?, NULL, 0, ?)", [event.name, as_json(event.base), tensors, to.entry.at]
    )


@fold.register
def _(event: PolicySet, to: Target) -> None:
    to.db.execute("INSERT INTO policies VALUES (?, ?) ON CONFLICT DO NOTHING", [event.digest, as_json(event.document)])
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
        files=as_json(event.files),
        training=as_json(event.training) if event.training else None,
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
        reviews=None,
    )
    held = {("file", file.sha256) for file in event.files}
    if event.training:
        held |= {("dataset", event.training.dataset[7:]), ("ledger", event.training.ledger[7:])}
    for purpose, sha256 in sorted(held):
        to.db.insert("version_blobs", adapter=event.adapter, number=event.number, sha256=sha256, purpose=purpose)


@fold.register
def _(event: BlobSent, to: Target) -> None:
    to.db.execute(
        "INSERT INTO sent_blobs VALUES (?, ?, ?) ON CONFLICT DO NOTHING", [event.sha256, event.scope, event.size]
    )


@fold.register
def _(event: BlobQuarantined, to: Target) -> None:
    """Nothing: what is stored now is the disk's to say; the journal tells auditors when it was found damaged."""


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
        attestation=as_json(event.attestation),
    )
    move_version(to, event.adapter, event.number, State.APPROVED)
    # A version that no alias names any more is superseded, unless it was revoked.
    named = {alias["number"] for alias in to.db.select("aliases", adapter=event.adapter)}
    if event.previous is not None and event.previous not in named:
        previous = to.db.find("versions", event.adapter, event.previous)
        if previous and previous["state"] == State.APPROVED:
            move_version(to, event.adapter, event.previous, State.SUPERSEDED)


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
            as_json(event.attestation),
        ],
    )


@fold.register
def _(event: VersionRejected, to: Target) -> None:
    to.db.update("versions", event.adapter, event.number, state=State.REJECTED.value, rejected=event.reason)


@fold.register
def _(event: VersionRevoked, to: Target) -> None:
    move_version(to, event.adapter, event.number, State.REVOKED)


def move_version(to: Target, adapter: str, number: int, state: State) -> None:
    to.db.update("versions", adapter, number, state=state.value)
