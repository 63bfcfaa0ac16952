"""Questions the catalog answers, as plain values. Each method is one question; every result is fetched whole."""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple, Protocol, TypeVar

import msgspec

from registry.names import Reference
from registry.records import (
    Adjudication,
    AliasMove,
    Base,
    Bounds,
    Channel,
    Envelope,
    Evidence,
    FileEntry,
    Finding,
    ItemKind,
    ItemRow,
    Jwk,
    Policy,
    ReviewerInfo,
    Role,
    State,
    Suite,
    TrainingError,
    TrainingRecord,
    TrainingStatus,
    WebhookEvent,
)
from registry.search import Condition, Operator

T = TypeVar("T")
_COMPARED = {
    operator: " AND EXISTS (SELECT 1 FROM metrics m WHERE m.adapter = v.adapter AND m.number = v.number "
    f"AND m.seq = v.decided AND m.name = ? AND m.value {operator.value} ?)"
    for operator in Operator
}
# A search looks through so many times the rows that it is to find, then through so many times more, and so on.
_FIRST_WINDOW, _WIDER = 4, 16
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
    publisher: str | None = None


class StoredPublisher(NamedTuple):
    """A CI system whose tokens are exchanged; `keys` are its own where it has no `jwks_url`."""

    id: str
    scope: str
    issuer: str
    audience: str
    claims: dict[str, str]
    keys: list[Jwk] | None
    jwks_url: str | None
    added_by: str
    created_at: str


class StoredKey(NamedTuple):
    id: str
    public: str | None
    roles: tuple[str, ...]
    person: str | None
    valid_from: str
    valid_until: str | None
    revoked_at: str | None
    revoked_reason: str | None


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
    rejected: str | None  # why a release manager refused it, where one did
    sealed_by: str | None

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


class StoredTraining(NamedTuple):
    """`claim`: the entry of the latest claim, which what its worker tells is ordered under."""

    id: str
    adapter: str
    status: TrainingStatus
    recipe: str
    dataset: str
    replay: str | None
    notes: str | None
    submitter: str
    created_at: str
    started_at: str | None
    finished_at: str | None
    worker: str | None
    fence: int
    attempts: int
    claim: int | None
    error: TrainingError | None
    version: int | None
    seq: int


class WaitingTraining(NamedTuple):
    """What a run is chosen for a worker by."""

    id: str
    status: TrainingStatus
    fence: int
    attempts: int
    worker: str | None


class TrainingFact(NamedTuple):
    seq: int
    at: str
    level: str
    message: str


class StoredWebhook(NamedTuple):
    """`seq`: the entry it was made in; it is told of what came later."""

    id: str
    url: str
    events: list[WebhookEvent]
    scope: str | None
    secret_sha256: str
    created_by: str
    created_at: str
    seq: int
    disabled_at: str | None
    disabled_reason: str | None


class StoredAlias(NamedTuple):
    adapter: str
    alias: str
    number: int
    digest: str
    counter: int
    moved_at: str


class StoredProposal(NamedTuple):
    adapter: str
    alias: str
    counter: int
    previous: int | None
    number: int
    digest: str
    proposed_by: str
    made_at: str
    reason: str
    attestation: Envelope


class StoredCampaign(NamedTuple):
    """`opened_by`: whoever's command opened it, which the evidence of a passed evaluation does."""

    id: str
    adapter: str
    number: int
    policy: str
    suite: str
    reviewers: int
    root: str
    opened_by: str
    opened_at: str
    sealed_at: str | None


class StoredItem(NamedTuple):
    """An output to rate: what `subject` of version `number` answered to item `source` of a suite.

    position: where it was drawn, from 0. words: of prompt and output. expect: how a gold item is to be rated.
    """

    item: str
    position: int
    hash: str
    kind: ItemKind
    suite: str
    source: str
    subject: str
    number: int
    words: int
    expect: dict[str, Bounds] | None


class StoredAssignment(NamedTuple):
    """position: in the person's order, from 1. batch: how many items came at once; None where it came alone."""

    id: str
    campaign: str
    person: str
    item: str
    position: int
    batch: int | None
    issued_at: str
    state: str


class StoredRating(NamedTuple):
    """revision: from 1; the highest of an assignment stands. comment: sha256 of a blob."""

    assignment: str
    revision: int
    clarity: int
    relevance: int
    safety: int
    accuracy: int
    hallucination: bool
    unsafe: bool
    discuss: bool
    comment: str | None
    channel: Channel
    seconds: float | None
    rated_at: str
    seq: int


class Holder(NamedTuple):
    """One reason why a blob is kept: a version (or a suite, where `adapter` is None) and what it is there."""

    adapter: str | None
    state: State | None
    purpose: str


class Receipt(NamedTuple):
    request: str
    status: int
    answer: bytes


class Result(Protocol):
    def fetchall(self) -> list[tuple[Any, ...]]: ...


class Database(Protocol):
    """Whatever runs SQL: a cursor, or the writer's working set in front of one."""

    def execute(self, sql: str, values: Sequence[Any] = ..., /) -> Result: ...


class View:
    """The catalog as one cursor sees it."""

    def __init__(self, db: Database) -> None:
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

    def tokens_of(self, person: str) -> list[StoredToken]:
        return self._tokens("WHERE person = ? ORDER BY created_at, id", person)

    def _tokens(self, clause: str, *values: Any) -> list[StoredToken]:
        columns = "id, role, person, scope, secret_sha256, created_at, expires_at, revoked_at, publisher"
        rows = self._all(f"SELECT {columns} FROM tokens {clause}", *values)
        return [StoredToken(row[0], Role(row[1]), *row[2:]) for row in rows]

    def tokens_minted_by(self, publisher: str) -> list[StoredToken]:
        return self._tokens("WHERE publisher = ? ORDER BY created_at, id", publisher)

    def publishers(self, issuer: str | None = None) -> list[StoredPublisher]:
        """All, or those of one issuer, oldest first."""
        rows = self._all(
            "SELECT id, scope, issuer, audience, claims, keys, jwks_url, added_by, created_at FROM publishers "
            "WHERE ?::TEXT IS NULL OR issuer = ? ORDER BY created_at, id",
            issuer,
            issuer,
        )
        return [
            StoredPublisher(
                id=row[0],
                scope=row[1],
                issuer=row[2],
                audience=row[3],
                claims=_read(row[4], dict[str, str]),
                keys=_read(row[5], list[Jwk]) if row[5] else None,
                jwks_url=row[6],
                added_by=row[7],
                created_at=row[8],
            )
            for row in rows
        ]

    def was_minted(self, jti: str) -> bool:
        """Whether the CI token that this sha256 stands for was exchanged before."""
        return self._one("SELECT 1 FROM minted WHERE jti = ?", jti) is not None

    # -- reviewers ---------------------------------------------------------------------------------------------

    def reviewers(self, adapter: str | None = None) -> list[ReviewerInfo]:
        """What was ever said of people's standing, oldest first; all, or what holds for one adapter."""
        columns = ", ".join(ReviewerInfo.__struct_fields__)
        rows = self._all(
            f"SELECT {columns} FROM reviewers WHERE ?::TEXT IS NULL OR scope IS NULL OR scope = ? "
            "OR starts_with(?, scope || '/') ORDER BY seq, id",
            adapter,
            adapter,
            adapter,
        )
        return [ReviewerInfo(**dict(zip(ReviewerInfo.__struct_fields__, row, strict=True))) for row in rows]

    # -- keys --------------------------------------------------------------------------------------------------

    def signing_keys(self) -> list[StoredKey]:
        """Every key there ever was, in the order they came."""
        columns = ", ".join(StoredKey._fields)
        rows = self._all(f"SELECT {columns} FROM signing_keys ORDER BY seq, id")
        return [StoredKey(*row)._replace(roles=_read(row[2], tuple[str, ...])) for row in rows]

    def signing_key(self, id_: str) -> StoredKey | None:
        return next((key for key in self.signing_keys() if key.id == id_), None)

    # -- webhooks ----------------------------------------------------------------------------------------------

    def webhook(self, id_: str) -> StoredWebhook | None:
        rows = self._webhooks("WHERE id = ?", id_)
        return rows[0] if rows else None

    def webhooks(self) -> list[StoredWebhook]:
        return self._webhooks("ORDER BY seq")

    def _webhooks(self, clause: str, *values: Any) -> list[StoredWebhook]:
        columns = "id, url, events, scope, secret_sha256, created_by, created_at, seq, disabled_at, disabled_reason"
        rows = self._all(f"SELECT {columns} FROM webhooks {clause}", *values)
        return [StoredWebhook(row[0], row[1], _read(row[2], list[WebhookEvent]), *row[3:]) for row in rows]

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
        return [stored_adapter(row) for row in rows]

    def base_tensors(self, adapter: str) -> dict[str, list[int]] | None:
        row = self._one("SELECT base_tensors FROM adapters WHERE name = ?", adapter)
        return read_tensors(row[0]) if row and row[0] else None

    def version(self, adapter: str, number: int) -> StoredVersion | None:
        rows = self._versions("WHERE adapter = ? AND number = ?", adapter, number)
        return rows[0] if rows else None

    def version_by_digest(self, adapter: str, digest: str) -> StoredVersion | None:
        rows = self._versions("WHERE adapter = ? AND digest = ?", adapter, digest)
        return rows[0] if rows else None

    def versions(
        self, adapter: str, after: int, limit: int, states: Sequence[State], conditions: Sequence[Condition] = ()
    ) -> list[StoredVersion]:
        """Those in one of the states that meet every condition, newest first, below number `after`.

        A version without a value for a metric meets no condition on it.
        """
        if not states:
            return []
        # Numbers first: the other columns are wide, and DuckDB would read them for every row that it sorts.
        numbers: list[int] = []
        below, width = min(after, self.last_number(adapter) + 1), _FIRST_WINDOW * limit
        while below > 1 and len(numbers) < limit:
            # In windows from the newest down: the blocks of rows outside one are passed over.
            lowest = max(1, below - width)
            found = self._all(
                "SELECT number FROM versions v WHERE adapter = ? AND number BETWEEN ? AND ? "
                f"AND state IN {_places(states)}{''.join(_COMPARED[one.operator] for one in conditions)} "
                "ORDER BY number DESC LIMIT ?",
                *(adapter, lowest, below - 1, *states),
                *(value for one in conditions for value in (one.metric, one.value)),
                limit - len(numbers),
            )
            numbers += [row[0] for row in found]
            below, width = lowest, width * _WIDER
        if not numbers:
            return []
        chosen = f"WHERE adapter = ? AND number BETWEEN ? AND ? AND number IN {_places(numbers)} ORDER BY number DESC"
        return self._versions(chosen, adapter, numbers[-1], numbers[0], *numbers)

    def find(self, reference: Reference) -> StoredVersion | None:
        """The version a reference names."""
        if reference.number is not None:
            return self.version(reference.adapter, reference.number)
        if reference.digest is not None:
            return self.version_by_digest(reference.adapter, reference.digest)
        alias = self.alias(reference.adapter, reference.alias or "approved")
        return self.version(reference.adapter, alias.number) if alias else None

    def project_bytes(
        self, project: str, uploading_since: str, without: Sequence[str], parts: Mapping[str, int]
    ) -> int:
        """Bytes of all versions of a namespace or of an adapter without one, and of what was sent in its scopes.

        Each blob counts once; some are left out. parts: bytes by blob of what is being sent in them.
        Versions that are still uploading count only if they were created at or after a time.
        """
        row = self._one(
            "SELECT sum(size)::BIGINT FROM (SELECT sha256, max(size) AS size FROM ("
            "SELECT file.sha256, file.size FROM (SELECT unnest("
            """from_json(files, '[{"size": "BIGINT", "sha256": "VARCHAR"}]')) AS file FROM versions """
            "WHERE (adapter = ? OR starts_with(adapter, ? || '/')) AND (state != ? OR created_at >= ?)) "
            "UNION ALL SELECT sha256, size FROM sent_blobs WHERE scope = ? OR starts_with(scope, ? || '/') "
            "UNION ALL SELECT unnest(?::VARCHAR[]), unnest(?::BIGINT[])) "
            "WHERE NOT list_contains(?, sha256) GROUP BY sha256)",
            project,
            project,
            State.UPLOADING,
            uploading_since,
            project,
            project,
            list(parts),
            list(parts.values()),
            list(without),
        )
        return int(row[0] or 0) if row else 0

    def last_number(self, adapter: str) -> int:
        return self.last_numbers([adapter]).get(adapter, 0)

    def last_numbers(self, adapters: Sequence[str]) -> dict[str, int]:
        """By adapter; one without versions is missing."""
        among = "adapter IN (SELECT unnest(?::VARCHAR[]))"
        return dict(self._all(f"SELECT adapter, max(number) FROM versions WHERE {among} GROUP BY 1", list(adapters)))

    def _versions(self, clause: str, *values: Any) -> list[StoredVersion]:
        columns = (
            "adapter, number, digest, state, files, training, notes, submitter, created_at, sealed_at, policy, "
            "findings, evidence_digest, evidence, rejected, sealed_by"
        )
        return [stored_version(row) for row in self._all(f"SELECT {columns} FROM versions {clause}", *values)]

    def holders(self, sha256: str) -> list[Holder]:
        """Why a blob is kept: decides who may read it."""
        rows = self._all(
            "SELECT DISTINCT v.adapter, v.state, b.purpose FROM version_blobs b "
            "JOIN versions v ON v.adapter = b.adapter AND v.number = b.number WHERE b.sha256 = ?",
            sha256,
        )
        held = [Holder(adapter, State(state), purpose) for adapter, state, purpose in rows]
        if self._one("SELECT 1 FROM suite_blobs WHERE sha256 = ? LIMIT 1", sha256):
            held.append(Holder(None, None, "suite"))
        # A run's data are there for its workers from the start, like those of a sealed version.
        runs = self._all("SELECT DISTINCT adapter FROM trainings WHERE ? IN (dataset, replay)", f"sha256:{sha256}")
        return held + [Holder(row[0], State.SUBMITTED, "dataset") for row in runs]

    def was_sent(self, sha256: str, scope: str) -> bool:
        """Whether a token of this scope, or of one within it, has sent these bytes."""
        inside = "(scope = ? OR starts_with(scope, ? || '/'))"
        return bool(self._one(f"SELECT 1 FROM sent_blobs WHERE sha256 = ? AND {inside} LIMIT 1", sha256, scope, scope))

    # -- aliases -----------------------------------------------------------------------------------------------

    def alias(self, adapter: str, alias: str) -> StoredAlias | None:
        row = self._one(
            "SELECT adapter, alias, number, digest, counter, moved_at FROM aliases WHERE adapter = ? AND alias = ?",
            adapter,
            alias,
        )
        return StoredAlias(*row) if row else None

    def aliases_of(self, adapters: Sequence[str]) -> dict[str, dict[str, int]]:
        """Each adapter's aliases and the numbers they name; one without aliases is missing."""
        among = "adapter IN (SELECT unnest(?::VARCHAR[]))"
        chosen = f"SELECT adapter, alias, number FROM aliases WHERE {among} ORDER BY alias"
        found: dict[str, dict[str, int]] = {}
        for adapter, alias, number in self._all(chosen, list(adapters)):
            found.setdefault(adapter, {})[alias] = number
        return found

    def alias_moves(self, adapter: str, alias: str) -> list[AliasMove]:
        rows = self._all(
            "SELECT alias, counter, previous, number, digest, moved_by, made_at, reason FROM alias_moves "
            "WHERE adapter = ? AND alias = ? ORDER BY counter",
            adapter,
            alias,
        )
        keys = ("alias", "counter", "previous", "number", "digest", "by", "at", "reason")
        return [AliasMove(**dict(zip(keys, row, strict=True))) for row in rows]

    def has_named(self, adapter: str, alias: str, number: int) -> bool:
        """Whether the alias named this version at any time."""
        chosen = "SELECT 1 FROM alias_moves WHERE adapter = ? AND alias = ? AND number = ? LIMIT 1"
        return self._one(chosen, adapter, alias, number) is not None

    def attestation(self, adapter: str, number: int, alias: str | None = None) -> Envelope | None:
        """The newest approval of a version as an alias that names it still, or as `alias` if that is given."""
        row = self._one(
            "SELECT m.attestation FROM alias_moves m JOIN aliases a ON a.adapter = m.adapter AND a.alias = m.alias "
            "AND a.counter = m.counter WHERE m.adapter = ? AND m.number = ? AND (?::TEXT IS NULL OR m.alias = ?) "
            "ORDER BY m.made_at DESC, m.counter DESC LIMIT 1",
            adapter,
            number,
            alias,
            alias,
        )
        return _read(row[0], Envelope) if row else None

    def proposal(self, adapter: str, alias: str) -> StoredProposal | None:
        """The move of an alias that waits for a second signature."""
        columns = ", ".join(StoredProposal._fields)
        row = self._one(f"SELECT {columns} FROM proposals WHERE adapter = ? AND alias = ?", adapter, alias)
        return StoredProposal(*row)._replace(attestation=_read(row[-1], Envelope)) if row else None

    # -- jobs and evidence -------------------------------------------------------------------------------------

    def job(self, id_: str) -> StoredJob | None:
        rows = self._jobs("WHERE id = ?", id_)
        return rows[0] if rows else None

    def training(self, id_: str) -> StoredTraining | None:
        rows = self._trainings("WHERE id = ?", id_)
        return rows[0] if rows else None

    def trainings(
        self,
        before: int,
        limit: int,
        *,
        status: str | None = None,
        adapter: str | None = None,
        scope: str | None = None,
    ) -> list[StoredTraining]:
        """Newest first, of entries before one; `scope` is a namespace or one adapter that a token is limited to."""
        return self._trainings(
            "WHERE seq < ? AND (?::TEXT IS NULL OR status = ?) AND (?::TEXT IS NULL OR adapter = ?) "
            "AND (?::TEXT IS NULL OR adapter = ? OR starts_with(adapter, ? || '/')) ORDER BY seq DESC LIMIT ?",
            *(before, status, status, adapter, adapter, scope, scope, scope, limit),
        )

    def waiting_trainings(self, scope: str | None, base: str | None) -> list[WaitingTraining]:
        """Queued and running, oldest first; of the adapters in a scope, and of one base (its digest), where given."""
        rows = self._all(
            "SELECT t.id, t.status, t.fence, t.attempts, t.worker "
            "FROM trainings t JOIN adapters a ON a.name = t.adapter WHERE t.status IN ('queued', 'running') "
            "AND (?::TEXT IS NULL OR t.adapter = ? OR starts_with(t.adapter, ? || '/')) "
            "AND (?::TEXT IS NULL OR a.base->>'$.digest' = ?) ORDER BY t.seq",
            *(scope, scope, scope, base, base),
        )
        return [WaitingTraining(id_, TrainingStatus(status), *rest) for id_, status, *rest in rows]

    def count_unfinished_trainings(self, project: str) -> int:
        """Queued, running and paused runs of a project's adapters."""
        row = self._one(
            "SELECT count(*) FROM trainings WHERE status IN ('queued', 'running', 'paused') "
            "AND (adapter = ? OR starts_with(adapter, ? || '/'))",
            *(project, project),
        )
        assert row is not None
        return int(row[0])

    def _trainings(self, clause: str, *values: Any) -> list[StoredTraining]:
        columns = ", ".join(StoredTraining._fields)
        rows = self._all(f"SELECT {columns} FROM trainings {clause}", *values)
        found = [StoredTraining(*row) for row in rows]
        return [
            one._replace(
                status=TrainingStatus(one.status),
                error=_read(one.error, TrainingError) if one.error else None,  # type: ignore[arg-type]
            )
            for one in found
        ]

    def training_facts(self, id_: str) -> list[TrainingFact]:
        """Oldest first."""
        rows = self._all("SELECT seq, told_at, level, message FROM training_facts WHERE training = ? ORDER BY seq", id_)
        return [TrainingFact(*row) for row in rows]

    def trained_by(self, version: StoredVersion) -> frozenset[str]:
        """Who submitted the runs that a version came of: the one that its record names, and any that ended in it."""
        run = version.training.run if version.training else None
        rows = self._all(
            "SELECT DISTINCT submitter FROM trainings WHERE adapter = ? AND (version = ? OR id = ?)",
            *(version.adapter, version.number, run),
        )
        return frozenset(row[0] for row in rows)

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

    def shown(
        self, adapter: str, number: int, suite: str, item: str, subject: str = "candidate"
    ) -> tuple[str, str] | None:
        """Prompt and output of the candidate, or of the base, for one item."""
        row = self._one(
            "SELECT prompt, output FROM items WHERE adapter = ? AND number = ? AND suite = ? AND item = ? "
            "AND subject = ? AND prompt IS NOT NULL AND output IS NOT NULL",
            adapter,
            number,
            suite,
            item,
            subject,
        )
        return (row[0], row[1]) if row else None

    def outputs(self, adapter: str, number: int, suite: str, subject: str) -> dict[str, tuple[str, str]]:
        """Prompt and output of each item of a suite that has both."""
        rows = self._all(
            "SELECT item, prompt, output FROM items WHERE adapter = ? AND number = ? AND suite = ? AND subject = ? "
            "AND prompt IS NOT NULL AND output IS NOT NULL ORDER BY item",
            adapter,
            number,
            suite,
            subject,
        )
        return {item: (prompt, output) for item, prompt, output in rows}

    # -- review ------------------------------------------------------------------------------------------------

    def campaign(self, id_: str) -> StoredCampaign | None:
        rows = self._campaigns("WHERE c.id = ?", id_)
        return rows[0] if rows else None

    def campaign_of(self, adapter: str, number: int) -> StoredCampaign | None:
        """The campaign of a version under the policy it is pinned to."""
        rows = self._campaigns("WHERE c.adapter = ? AND c.number = ? AND c.policy = v.policy", adapter, number)
        return rows[0] if rows else None

    def campaigns_in_review(self) -> list[StoredCampaign]:
        """Campaigns of versions that are in review, oldest first: unsealed ones, and those with disputes."""
        return self._campaigns("WHERE v.state = ? ORDER BY c.seq", State.IN_REVIEW)

    def _campaigns(self, clause: str, *values: Any) -> list[StoredCampaign]:
        columns = ", ".join(f"c.{column}" for column in StoredCampaign._fields)
        rows = self._all(
            f"SELECT {columns} FROM campaigns c "
            f"JOIN versions v ON v.adapter = c.adapter AND v.number = c.number {clause}",
            *values,
        )
        return [StoredCampaign(*row) for row in rows]

    def campaign_items(self, campaign: str) -> list[StoredItem]:
        """In the order they were drawn."""
        columns = ", ".join(StoredItem._fields)
        rows = self._all(f"SELECT {columns} FROM campaign_items WHERE campaign = ? ORDER BY position", campaign)
        return [stored_item(row) for row in rows]

    def assignment(self, id_: str) -> StoredAssignment | None:
        rows = self._assignments("WHERE id = ?", id_)
        return rows[0] if rows else None

    def assignments(self, campaign: str, person: str | None = None) -> list[StoredAssignment]:
        """Everyone's, or one person's, in the order in which they were issued."""
        return self._assignments(
            "WHERE campaign = ? AND (?::TEXT IS NULL OR person = ?) ORDER BY issued_at, person, position",
            campaign,
            person,
            person,
        )

    def _assignments(self, clause: str, *values: Any) -> list[StoredAssignment]:
        columns = ", ".join(StoredAssignment._fields)
        return [StoredAssignment(*row) for row in self._all(f"SELECT {columns} FROM assignments {clause}", *values)]

    def ratings(self, campaign: str, person: str | None = None) -> list[StoredRating]:
        """Everything that everyone, or one person, ever rated in a campaign, in the order it came."""
        rows = self._all(
            f"SELECT {', '.join(StoredRating._fields)} FROM ratings WHERE campaign = ? "
            "AND (?::TEXT IS NULL OR person = ?) ORDER BY seq, assignment, revision",
            campaign,
            person,
            person,
        )
        return [stored_rating(row) for row in rows]

    def rejected_before(self, adapter: str, number: int, blobs: Sequence[str]) -> list[int]:
        """The numbers of rejected versions below this one that hold every one of these blobs, lowest first."""
        rows = self._all(
            f"SELECT number FROM version_blobs WHERE adapter = ? AND number < ? AND sha256 IN {_places(blobs)} "
            "GROUP BY number HAVING count(DISTINCT sha256) = ? INTERSECT "
            "SELECT number FROM versions WHERE adapter = ? AND state = ? ORDER BY number",
            *(adapter, number, *blobs),
            *(len(set(blobs)), adapter, State.REJECTED),
        )
        return [number for (number,) in rows]

    def adjudications(self, campaign: str) -> list[Adjudication]:
        """By item."""
        rows = self._all("SELECT item, upheld, person FROM adjudications WHERE campaign = ? ORDER BY item", campaign)
        return [Adjudication(item=item, upheld=upheld, person=person) for item, upheld, person in rows]

    # -- counts ------------------------------------------------------------------------------------------------

    def version_counts(self) -> dict[str, int]:
        """Versions by state."""
        return dict(self._all("SELECT state, count(*) FROM versions GROUP BY state ORDER BY state"))

    def job_counts(self) -> dict[tuple[str, str], int]:
        """Jobs by kind and state."""
        rows = self._all("SELECT kind, state, count(*) FROM jobs GROUP BY kind, state ORDER BY kind, state")
        return {(kind, state): count for kind, state, count in rows}

    # -- shared ------------------------------------------------------------------------------------------------

    def _one(self, sql: str, *values: Any) -> tuple[Any, ...] | None:
        # Fetched whole: an open result keeps its transaction, and DuckDB does not checkpoint beside one (2.0.0).
        rows = self._all(sql, *values)
        return rows[0] if rows else None

    def _all(self, sql: str, *values: Any) -> list[tuple[Any, ...]]:
        return self._db.execute(sql, list(values)).fetchall()


def _places(values: Sequence[Any]) -> str:
    """A parameter for each value, in brackets."""
    return f"({', '.join('?' * len(values))})"


def item_row(values: tuple[Any, ...]) -> ItemRow:
    """An ItemRow from values in the order of ITEM_COLUMNS."""
    return ItemRow(**dict(zip(ITEM_COLUMNS, values, strict=True)))


def stored_item(row: tuple[Any, ...]) -> StoredItem:
    """A StoredItem from values in the order of its fields, `expect` as JSON."""
    stored = StoredItem(*row)
    expect = _read(row[-1], dict[str, Bounds]) if row[-1] else None
    return stored._replace(kind=ItemKind(stored.kind), expect=expect)


def stored_rating(row: tuple[Any, ...]) -> StoredRating:
    stored = StoredRating(*row)
    return stored._replace(channel=Channel(stored.channel))


# The same few rows are asked for again and again, and nobody changes what was read from one.
@lru_cache(maxsize=64)
def stored_adapter(row: tuple[Any, ...]) -> StoredAdapter:
    """A StoredAdapter from values in the order of its fields, the base as JSON."""
    return StoredAdapter(row[0], _read(row[1], Base), *row[2:])


@lru_cache(maxsize=64)
def stored_version(row: tuple[Any, ...]) -> StoredVersion:
    """A StoredVersion from values in the order of its fields, documents as JSON."""
    stored = StoredVersion(*row)
    return stored._replace(
        state=State(row[3]),
        files=_read(row[4], list[FileEntry]),
        training=_read(row[5], TrainingRecord) if row[5] else None,
        findings=_read(row[11], list[Finding]),
        evidence=_read_evidence(row[13]) if row[13] else None,
    )


# Large, asked for again and again, and never changed by who reads them.
@lru_cache(maxsize=64)
def read_tensors(text: str) -> dict[str, list[int]]:
    return _read(text, dict[str, list[int]])


@lru_cache(maxsize=64)
def _read_evidence(text: str) -> Evidence:
    return _read(text, Evidence)


def _read(text: str, kind: type[T]) -> T:
    return msgspec.json.decode(text, type=kind)
