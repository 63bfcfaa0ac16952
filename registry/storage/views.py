"""Questions the catalog answers, as plain values. Each method is one question; every result is fetched whole."""

from collections.abc import Sequence
from typing import Any, NamedTuple, TypeVar

import duckdb
import msgspec

from registry.names import Reference
from registry.records import (
    AliasMove,
    Base,
    Envelope,
    Evidence,
    FileEntry,
    Finding,
    ItemRow,
    Policy,
    RatingRow,
    Role,
    State,
    Suite,
    TrainingRecord,
)

T = TypeVar("T")
ITEM_COLUMNS = ItemRow.__struct_fields__


class Applied(NamedTuple):
    schema_version: int
    seq: int
    hash: str
    registry: str | None


class StoredToken(NamedTuple):
    id: str
    role: Role
    person: str
    scope: str | None
    secret_sha256: str
    created_at: str
    expires_at: str
    revoked_at: str | None


class StoredAdapter(NamedTuple):
    name: str
    base: Base
    policy: str
    revision: int
    created_at: str


class StoredVersion(NamedTuple):
    adapter: str
    number: int
    digest: str
    state: State
    files: list[FileEntry]
    training: TrainingRecord | None
    notes: str | None
    submitter: str
    created_at: str
    sealed_at: str | None
    policy: str | None
    findings: list[Finding]
    evidence_digest: str | None
    evidence: Evidence | None

    @property
    def ref(self) -> str:
        return f"{self.adapter}/{self.number}"


class StoredJob(NamedTuple):
    id: str
    kind: str
    adapter: str
    number: int
    state: str
    fence: int
    attempts: int
    worker: str | None
    reason: str | None


class StoredAlias(NamedTuple):
    adapter: str
    alias: str
    number: int
    digest: str
    counter: int
    moved_at: str


class StoredCampaign(NamedTuple):
    id: str
    adapter: str
    number: int
    policy: str
    suite: str
    reviewers: int


class StoredAssignment(NamedTuple):
    id: str
    campaign: str
    person: str
    item: str
    issued_at: str
    state: str


class Holder(NamedTuple):
    """One reason why a blob is kept: a version (or a suite, where `adapter` is None) and what it is there."""

    adapter: str | None
    state: State | None
    purpose: str


class Receipt(NamedTuple):
    request: str
    status: int
    answer: bytes


class View:
    """The catalog as one cursor sees it."""

    def __init__(self, db: duckdb.DuckDBPyConnection) -> None:
        self._db = db

    # -- bookkeeping -------------------------------------------------------------------------------------------

    def applied(self) -> Applied:
        row = self._one("SELECT schema_version, seq, hash, registry FROM applied")
        assert row is not None
        return Applied(*row)

    def receipt(self, actor: str, key: str) -> Receipt | None:
        row = self._one("SELECT request, status, answer FROM receipts WHERE actor = ? AND key = ?", actor, key)
        return Receipt(row[0], row[1], row[2].encode()) if row else None

    # -- tokens ------------------------------------------------------------------------------------------------

    def token(self, id_: str) -> StoredToken | None:
        rows = self._tokens("WHERE id = ?", id_)
        return rows[0] if rows else None

    def tokens(self) -> list[StoredToken]:
        return self._tokens("ORDER BY created_at, id")

    def _tokens(self, clause: str, *values: Any) -> list[StoredToken]:
        columns = "id, role, person, scope, secret_sha256, created_at, expires_at, revoked_at"
        rows = self._all(f"SELECT {columns} FROM tokens {clause}", *values)
        return [StoredToken(row[0], Role(row[1]), *row[2:]) for row in rows]

    # -- suites and policies -----------------------------------------------------------------------------------

    def suites(self) -> dict[str, Suite]:
        """Every registered suite under `name@digest`, and the newest of each name under `name`."""
        found: dict[str, Suite] = {}
        columns = "name, kind, digest, n_items, max_cut_off, chance"
        for files, *values in self._all(f"SELECT files, {columns} FROM suites ORDER BY seq"):
            facts = dict(zip(columns.split(", "), values, strict=True))
            suite = Suite(files=_read(files, list[FileEntry]), **facts)
            found[suite.ref] = found[suite.name] = suite
        return found

    def policy(self, digest: str) -> Policy:
        row = self._one("SELECT document FROM policies WHERE digest = ?", digest)
        assert row is not None
        return _read(row[0], Policy)

    # -- adapters and versions ---------------------------------------------------------------------------------

    def adapter(self, name: str) -> StoredAdapter | None:
        rows = self._adapters("WHERE name = ?", name)
        return rows[0] if rows else None

    def adapters(self, after: str, limit: int, scope: str | None = None) -> list[StoredAdapter]:
        """By name; `scope` is a namespace or one adapter that a token is limited to."""
        inside = "AND (?::TEXT IS NULL OR name = ? OR starts_with(name, ? || '/'))"
        return self._adapters(f"WHERE name > ? {inside} ORDER BY name LIMIT ?", after, scope, scope, scope, limit)

    def _adapters(self, clause: str, *values: Any) -> list[StoredAdapter]:
        rows = self._all(f"SELECT name, base, policy, revision, created_at FROM adapters {clause}", *values)
        return [StoredAdapter(row[0], _read(row[1], Base), *row[2:]) for row in rows]

    def base_tensors(self, adapter: str) -> dict[str, list[int]] | None:
        row = self._one("SELECT base_tensors FROM adapters WHERE name = ?", adapter)
        return _read(row[0], dict[str, list[int]]) if row and row[0] else None

    def version(self, adapter: str, number: int) -> StoredVersion | None:
        rows = self._versions("WHERE adapter = ? AND number = ?", adapter, number)
        return rows[0] if rows else None

    def version_by_digest(self, adapter: str, digest: str) -> StoredVersion | None:
        rows = self._versions("WHERE adapter = ? AND digest = ?", adapter, digest)
        return rows[0] if rows else None

    def versions(self, adapter: str, after: int, limit: int, states: Sequence[str]) -> list[StoredVersion]:
        """Newest first, below number `after`; every state where `states` is empty."""
        return self._versions(
            "WHERE adapter = ? AND number < ? AND (len(?) = 0 OR list_contains(?, state)) ORDER BY number DESC LIMIT ?",
            adapter,
            after,
            list(states),
            list(states),
            limit,
        )

    def find(self, reference: Reference) -> StoredVersion | None:
        """The version a reference names."""
        if reference.number is not None:
            return self.version(reference.adapter, reference.number)
        if reference.digest is not None:
            return self.version_by_digest(reference.adapter, reference.digest)
        alias = self.alias(reference.adapter, reference.alias or "approved")
        return self.version(reference.adapter, alias.number) if alias else None

    def last_number(self, adapter: str) -> int:
        row = self._one("SELECT max(number) FROM versions WHERE adapter = ?", adapter)
        return int(row[0] or 0) if row else 0

    def _versions(self, clause: str, *values: Any) -> list[StoredVersion]:
        columns = (
            "adapter, number, digest, state, files, training, notes, submitter, created_at, sealed_at, policy, "
            "findings, evidence_digest, evidence"
        )
        return [_stored_version(row) for row in self._all(f"SELECT {columns} FROM versions {clause}", *values)]

    def holders(self, sha256: str) -> list[Holder]:
        """Why a blob is kept: decides who may read it."""
        rows = self._all(
            "SELECT v.adapter, v.state, b.purpose FROM version_blobs b "
            "JOIN versions v ON v.adapter = b.adapter AND v.number = b.number WHERE b.sha256 = ?",
            sha256,
        )
        held = [Holder(adapter, State(state), purpose) for adapter, state, purpose in rows]
        if self._one("SELECT 1 FROM suites WHERE contains(files::TEXT, ?)", sha256):
            held.append(Holder(None, None, "suite"))
        return held

    # -- aliases -----------------------------------------------------------------------------------------------

    def alias(self, adapter: str, alias: str) -> StoredAlias | None:
        row = self._one(
            "SELECT adapter, alias, number, digest, counter, moved_at FROM aliases WHERE adapter = ? AND alias = ?",
            adapter,
            alias,
        )
        return StoredAlias(*row) if row else None

    def aliases(self, adapter: str) -> dict[str, int]:
        return dict(self._all("SELECT alias, number FROM aliases WHERE adapter = ? ORDER BY alias", adapter))

    def alias_moves(self, adapter: str, alias: str) -> list[AliasMove]:
        rows = self._all(
            "SELECT alias, counter, previous, number, digest, moved_by, made_at, reason FROM alias_moves "
            "WHERE adapter = ? AND alias = ? ORDER BY counter",
            adapter,
            alias,
        )
        keys = ("alias", "counter", "previous", "number", "digest", "by", "at", "reason")
        return [AliasMove(**dict(zip(keys, row, strict=True))) for row in rows]

    def attestation(self, adapter: str, number: int, alias: str | None = None) -> Envelope | None:
        """The newest approval of a version, as `alias` if that is given."""
        row = self._one(
            "SELECT attestation FROM alias_moves WHERE adapter = ? AND number = ? AND (?::TEXT IS NULL OR alias = ?) "
            "ORDER BY made_at DESC, counter DESC LIMIT 1",
            adapter,
            number,
            alias,
            alias,
        )
        return _read(row[0], Envelope) if row else None

    # -- jobs and evidence -------------------------------------------------------------------------------------

    def job(self, id_: str) -> StoredJob | None:
        rows = self._jobs("WHERE id = ?", id_)
        return rows[0] if rows else None

    def job_of(self, adapter: str, number: int) -> StoredJob | None:
        rows = self._jobs("WHERE adapter = ? AND number = ? ORDER BY seq DESC LIMIT 1", adapter, number)
        return rows[0] if rows else None

    def unfinished_jobs(self, kinds: Sequence[str]) -> list[StoredJob]:
        """Queued and claimed jobs, oldest first."""
        return self._jobs(
            "WHERE state IN ('queued', 'claimed') AND list_contains(?, kind) ORDER BY seq LIMIT 1000", list(kinds)
        )

    def _jobs(self, clause: str, *values: Any) -> list[StoredJob]:
        columns = "id, kind, adapter, number, state, fence, attempts, worker, reason"
        return [StoredJob(*row) for row in self._all(f"SELECT {columns} FROM jobs {clause}", *values)]

    def items(self, adapter: str, number: int, suite: str, after: str, limit: int) -> list[ItemRow]:
        """Rows of one suite in order of `item/subject`, beyond the row named by `after`."""
        rows = self._all(
            f"SELECT {', '.join(ITEM_COLUMNS)} FROM items WHERE adapter = ? AND number = ? AND suite = ? "
            "AND item || '/' || subject > ? ORDER BY item || '/' || subject LIMIT ?",
            adapter,
            number,
            suite,
            after,
            limit,
        )
        return [item_row(row) for row in rows]

    def shown(self, adapter: str, number: int, suite: str, item: str) -> tuple[str, str] | None:
        """Prompt and output of the candidate for one item."""
        row = self._one(
            "SELECT prompt, output FROM items WHERE adapter = ? AND number = ? AND suite = ? AND item = ? "
            "AND subject = 'candidate'",
            adapter,
            number,
            suite,
            item,
        )
        return (row[0], row[1]) if row else None

    # -- review ------------------------------------------------------------------------------------------------

    def campaign(self, id_: str) -> StoredCampaign | None:
        rows = self._campaigns("WHERE c.id = ?", id_)
        return rows[0] if rows else None

    def campaign_of(self, adapter: str, number: int) -> StoredCampaign | None:
        """The campaign of a version under the policy it is pinned to."""
        rows = self._campaigns("WHERE c.adapter = ? AND c.number = ? AND c.policy = v.policy", adapter, number)
        return rows[0] if rows else None

    def open_campaigns(self) -> list[StoredCampaign]:
        """Campaigns of versions that are in review, oldest first."""
        return self._campaigns("WHERE v.state = ? ORDER BY c.seq", State.IN_REVIEW)

    def _campaigns(self, clause: str, *values: Any) -> list[StoredCampaign]:
        rows = self._all(
            "SELECT c.id, c.adapter, c.number, c.policy, c.suite, c.reviewers FROM campaigns c "
            f"JOIN versions v ON v.adapter = c.adapter AND v.number = c.number {clause}",
            *values,
        )
        return [StoredCampaign(*row) for row in rows]

    def campaign_items(self, campaign: str) -> list[str]:
        """In the order they were drawn."""
        return [
            row[0]
            for row in self._all("SELECT item FROM campaign_items WHERE campaign = ? ORDER BY position", campaign)
        ]

    def assignment(self, id_: str) -> StoredAssignment | None:
        rows = self._assignments("WHERE id = ?", id_)
        return rows[0] if rows else None

    def assignments(self, campaign: str) -> list[StoredAssignment]:
        return self._assignments("WHERE campaign = ? ORDER BY issued_at, id", campaign)

    def _assignments(self, clause: str, *values: Any) -> list[StoredAssignment]:
        rows = self._all(f"SELECT id, campaign, person, item, issued_at, state FROM assignments {clause}", *values)
        return [StoredAssignment(*row) for row in rows]

    def ratings(self, campaign: str) -> list[RatingRow]:
        rows = self._all(
            "SELECT a.person, a.item, r.clarity, r.relevance, r.safety, r.accuracy, r.hallucination "
            "FROM ratings r JOIN assignments a ON a.id = r.assignment WHERE a.campaign = ? ORDER BY a.person, a.item",
            campaign,
        )
        keys = ("person", "item", "clarity", "relevance", "safety", "accuracy", "hallucination")
        return [RatingRow(**dict(zip(keys, row, strict=True))) for row in rows]

    # -- shared ------------------------------------------------------------------------------------------------

    def _one(self, sql: str, *values: Any) -> tuple[Any, ...] | None:
        return self._db.execute(sql, list(values)).fetchone()

    def _all(self, sql: str, *values: Any) -> list[tuple[Any, ...]]:
        return self._db.execute(sql, list(values)).fetchall()


def item_row(values: tuple[Any, ...]) -> ItemRow:
    """An ItemRow from values in the order of ITEM_COLUMNS."""
    return ItemRow(**dict(zip(ITEM_COLUMNS, values, strict=True)))


def _stored_version(row: tuple[Any, ...]) -> StoredVersion:
    stored = StoredVersion(*row)
    return stored._replace(
        state=State(row[3]),
        files=_read(row[4], list[FileEntry]),
        training=_read(row[5], TrainingRecord) if row[5] else None,
        findings=_read(row[11], list[Finding]),
        evidence=_read(row[13], Evidence) if row[13] else None,
    )


def _read(text: str, kind: type[T]) -> T:
    return msgspec.json.decode(text, type=kind)
