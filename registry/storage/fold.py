"""How each event changes the catalog. Deterministic: the same journal gives the same rows, on any machine, at any time.

An invariant that an event would break is a key violation here, before the event is journalled.
"""

from collections.abc import Callable
from functools import singledispatch
from typing import NamedTuple

import duckdb
import msgspec

from registry.events import (
    AdapterCreated,
    AliasMoved,
    AnyEvent,
    AssignmentIssued,
    AssignmentSkipped,
    CampaignOpened,
    Entry,
    EvidenceRecorded,
    GateDecided,
    JobClaimed,
    JobFailed,
    JobQueued,
    PolicySet,
    RatingRecorded,
    RegistryCreated,
    SuiteRegistered,
    TokenCreated,
    TokenRevoked,
    VersionCreated,
    VersionRevoked,
    VersionSubmitted,
)
from registry.records import State


class Target(NamedTuple):
    """Where an event goes: the writer's cursor, the entry it is in, and how to load a blob of per-item rows."""

    db: duckdb.DuckDBPyConnection
    entry: Entry
    load_items: Callable[[duckdb.DuckDBPyConnection, str, str, int], None]


def fold_entry(target: Target) -> None:
    for event in target.entry.events:
        fold(event, target)
    if receipt := target.entry.receipt:
        actor = target.entry.actor
        target.db.execute(
            "INSERT INTO receipts VALUES (?, ?, ?, ?, ?)",
            [actor.token or actor.person, receipt.key, receipt.request, receipt.status, _json(receipt.answer)],
        )


@singledispatch
def fold(event: AnyEvent, to: Target) -> None:
    raise TypeError(f"no fold for {type(event).__name__}")


@fold.register
def _(event: RegistryCreated, to: Target) -> None:
    to.db.execute("UPDATE applied SET registry = ?", [event.registry])


@fold.register
def _(event: TokenCreated, to: Target) -> None:
    to.db.execute(
        "INSERT INTO tokens VALUES (?, ?, ?, ?, ?, ?, ?, NULL)",
        [event.id, event.role, event.person, event.scope, event.secret_sha256, to.entry.at, event.expires_at],
    )


@fold.register
def _(event: TokenRevoked, to: Target) -> None:
    to.db.execute("UPDATE tokens SET revoked_at = ? WHERE id = ?", [to.entry.at, event.id])


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
    training = _json(event.training) if event.training else None
    to.db.execute(
        "INSERT INTO versions VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, NULL, NULL, '[]', NULL, NULL)",
        [
            event.adapter,
            event.number,
            event.digest,
            State.UPLOADING,
            _json(event.files),
            training,
            event.notes,
            to.entry.actor.person,
            to.entry.at,
        ],
    )
    held = {("file", file.sha256) for file in event.files}
    if event.training:
        held |= {("dataset", event.training.dataset[7:]), ("ledger", event.training.ledger[7:])}
    for purpose, sha256 in sorted(held):
        _hold(to, event.adapter, event.number, sha256, purpose)


@fold.register
def _(event: VersionSubmitted, to: Target) -> None:
    to.db.execute(
        "UPDATE versions SET state = ?, sealed_at = ?, policy = ?, findings = ? WHERE adapter = ? AND number = ?",
        [State.SUBMITTED, to.entry.at, event.policy, _json(event.findings), event.adapter, event.number],
    )
    _queue(to, event.job, event.adapter, event.number)


@fold.register
def _(event: JobQueued, to: Target) -> None:
    _queue(to, event.id, event.adapter, event.number)
    _move_version(to, event.adapter, event.number, State.SUBMITTED)


@fold.register
def _(event: JobClaimed, to: Target) -> None:
    to.db.execute(
        "UPDATE jobs SET state = 'claimed', fence = ?, attempts = attempts + 1, worker = ?, reason = NULL WHERE id = ?",
        [event.fence, event.worker, event.id],
    )
    _move_job_version(to, event.id, State.EVALUATING)


@fold.register
def _(event: JobFailed, to: Target) -> None:
    state = "failed" if event.final else "queued"
    to.db.execute("UPDATE jobs SET state = ?, worker = NULL, reason = ? WHERE id = ?", [state, event.reason, event.id])
    _move_job_version(to, event.id, State.INCONCLUSIVE if event.final else State.SUBMITTED)


@fold.register
def _(event: EvidenceRecorded, to: Target) -> None:
    to.db.execute("UPDATE jobs SET state = 'done' WHERE id = ?", [event.job])
    to.db.execute(
        "UPDATE versions SET evidence = ?, evidence_digest = ? WHERE adapter = ? AND number = ?",
        [_json(event.evidence), event.digest, event.adapter, event.number],
    )
    _hold(to, event.adapter, event.number, event.evidence.rows, "items")
    # A version that is measured again has rows of the evidence that was not to be trusted.
    to.db.execute("DELETE FROM items WHERE adapter = ? AND number = ?", [event.adapter, event.number])
    to.load_items(to.db, event.evidence.rows, event.adapter, event.number)


@fold.register
def _(event: GateDecided, to: Target) -> None:
    _move_version(to, event.adapter, event.number, event.state)


@fold.register
def _(event: CampaignOpened, to: Target) -> None:
    to.db.execute(
        "INSERT INTO campaigns VALUES (?, ?, ?, ?, ?, ?, ?)",
        [event.id, event.adapter, event.number, event.policy, event.suite, event.reviewers, to.entry.seq],
    )
    values = [value for position, one in enumerate(event.items) for value in (event.id, position, one.item, one.hash)]
    to.db.execute(f"INSERT INTO campaign_items VALUES {', '.join(['(?, ?, ?, ?)'] * len(event.items))}", values)


@fold.register
def _(event: AssignmentIssued, to: Target) -> None:
    to.db.execute(
        "INSERT INTO assignments VALUES (?, ?, ?, ?, ?, 'open', NULL)",
        [event.id, event.campaign, event.person, event.item, to.entry.at],
    )


@fold.register
def _(event: AssignmentSkipped, to: Target) -> None:
    to.db.execute("UPDATE assignments SET state = 'skipped', skip_reason = ? WHERE id = ?", [event.reason, event.id])


@fold.register
def _(event: RatingRecorded, to: Target) -> None:
    to.db.execute(
        "INSERT INTO ratings VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        [
            event.assignment,
            event.clarity,
            event.relevance,
            event.safety,
            event.accuracy,
            event.hallucination,
            event.comment,
            to.entry.at,
        ],
    )
    to.db.execute("UPDATE assignments SET state = 'rated' WHERE id = ?", [event.assignment])


@fold.register
def _(event: AliasMoved, to: Target) -> None:
    to.db.execute("DELETE FROM aliases WHERE adapter = ? AND alias = ?", [event.adapter, event.alias])
    to.db.execute(
        "INSERT INTO aliases VALUES (?, ?, ?, ?, ?, ?)",
        [event.adapter, event.alias, event.number, event.digest, event.counter, to.entry.at],
    )
    to.db.execute(
        "INSERT INTO alias_moves VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
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
    _move_version(to, event.adapter, event.number, State.APPROVED)
    # A version that no alias names any more is superseded, unless it was revoked.
    to.db.execute(
        "UPDATE versions SET state = ? WHERE adapter = ? AND number = ? AND state = ? "
        "AND number NOT IN (SELECT number FROM aliases WHERE adapter = ?)",
        [State.SUPERSEDED, event.adapter, event.previous, State.APPROVED, event.adapter],
    )


@fold.register
def _(event: VersionRevoked, to: Target) -> None:
    _move_version(to, event.adapter, event.number, State.REVOKED)


def _queue(to: Target, job: str, adapter: str, number: int) -> None:
    to.db.execute(
        "INSERT INTO jobs VALUES (?, 'evaluation', ?, ?, 'queued', 0, 0, NULL, NULL, ?)",
        [job, adapter, number, to.entry.seq],
    )


def _hold(to: Target, adapter: str, number: int, sha256: str, purpose: str) -> None:
    to.db.execute(
        "INSERT INTO version_blobs VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING", [adapter, number, sha256, purpose]
    )


def _move_version(to: Target, adapter: str, number: int, state: State) -> None:
    to.db.execute("UPDATE versions SET state = ? WHERE adapter = ? AND number = ?", [state, adapter, number])


def _move_job_version(to: Target, job: str, state: State) -> None:
    rows = to.db.execute("SELECT adapter, number FROM jobs WHERE id = ?", [job]).fetchall()
    for adapter, number in rows:
        to.db.execute(
            "UPDATE versions SET state = ? WHERE adapter = ? AND number = ? AND state IN (?, ?)",
            [state, adapter, number, State.SUBMITTED, State.EVALUATING],
        )


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()
