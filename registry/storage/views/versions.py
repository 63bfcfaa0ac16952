"""The versions of an adapter, one or those that a search finds, and the blobs that they hold."""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from registry.names import Reference
from registry.records import Evidence, FileEntry, Finding, LedgerReviews, State, TrainingRecord
from registry.search import Condition, Operator
from registry.storage.views.adapters import Adapters
from registry.storage.views.reader import places, read_json

_COMPARED = {
    operator: " AND EXISTS (SELECT 1 FROM metrics m WHERE m.adapter = v.adapter AND m.number = v.number "
    f"AND m.seq = v.decided AND m.name = ? AND m.value {operator.value} ?)"
    for operator in Operator
}
# A search looks through so many times the rows that it is to find, then through so many times more, and so on.
_FIRST_WINDOW, _WIDER = 4, 16


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
    reviews: LedgerReviews | None

    @property
    def ref(self) -> str:
        return f"{self.adapter}/{self.number}"


class Holder(NamedTuple):
    """One reason why a blob is kept: a version (or a suite, where `adapter` is None) and what it is there."""

    adapter: str | None
    state: State | None
    purpose: str


class Versions(Adapters):
    """Versions and their blobs; what a reference by alias names is the adapter's to say."""

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
                f"AND state IN {places(states)}{''.join(_COMPARED[one.operator] for one in conditions)} "
                "ORDER BY number DESC LIMIT ?",
                *(adapter, lowest, below - 1, *states),
                *(value for one in conditions for value in (one.metric, one.value)),
                limit - len(numbers),
            )
            numbers += [row[0] for row in found]
            below, width = lowest, width * _WIDER
        if not numbers:
            return []
        chosen = f"WHERE adapter = ? AND number BETWEEN ? AND ? AND number IN {places(numbers)} ORDER BY number DESC"
        return self._versions(chosen, adapter, numbers[-1], numbers[0], *numbers)

    def find(self, reference: Reference) -> StoredVersion | None:
        """The version a reference names."""
        if reference.number is not None:
            return self.version(reference.adapter, reference.number)
        if reference.digest is not None:
            return self.version_by_digest(reference.adapter, reference.digest)
        alias = self.alias(reference.adapter, reference.alias or "approved")
        return self.version(reference.adapter, alias.number) if alias else None

    def last_number(self, adapter: str) -> int:
        return self.last_numbers([adapter]).get(adapter, 0)

    def last_numbers(self, adapters: Sequence[str]) -> dict[str, int]:
        """By adapter; one without versions is missing."""
        among = "adapter IN (SELECT unnest(?::VARCHAR[]))"
        return dict(self._all(f"SELECT adapter, max(number) FROM versions WHERE {among} GROUP BY 1", list(adapters)))

    def rejected_before(self, adapter: str, number: int, blobs: Sequence[str]) -> list[int]:
        """The numbers of rejected versions below this one that hold every one of these blobs, lowest first."""
        rows = self._all(
            f"SELECT number FROM version_blobs WHERE adapter = ? AND number < ? AND sha256 IN {places(blobs)} "
            "GROUP BY number HAVING count(DISTINCT sha256) = ? INTERSECT "
            "SELECT number FROM versions WHERE adapter = ? AND state = ? ORDER BY number",
            *(adapter, number, *blobs),
            *(len(set(blobs)), adapter, State.REJECTED),
        )
        return [number for (number,) in rows]

    def _versions(self, clause: str, *values: Any) -> list[StoredVersion]:
        columns = (
            "adapter, number, digest, state, files, training, notes, submitter, created_at, sealed_at, policy, "
            "findings, evidence_digest, evidence, rejected, sealed_by, reviews"
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
        runs = self._all(
            "SELECT DISTINCT adapter FROM trainings WHERE ? IN (dataset, replay, preferences)", f"sha256:{sha256}"
        )
        return held + [Holder(row[0], State.SUBMITTED, "dataset") for row in runs]

    def was_sent(self, sha256: str, scope: str) -> bool:
        """Whether a token of this scope, or of one within it, has sent these bytes."""
        inside = "(scope = ? OR starts_with(scope, ? || '/'))"
        return bool(self._one(f"SELECT 1 FROM sent_blobs WHERE sha256 = ? AND {inside} LIMIT 1", sha256, scope, scope))

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


# The same few rows are asked for again and again, and nobody changes what was read from one.
@lru_cache(maxsize=64)
def stored_version(row: tuple[Any, ...]) -> StoredVersion:
    """A StoredVersion from values in the order of its fields, documents as JSON."""
    stored = StoredVersion(*row)
    return stored._replace(
        state=State(row[3]),
        files=read_json(row[4], list[FileEntry]),
        training=read_json(row[5], TrainingRecord) if row[5] else None,
        findings=read_json(row[11], list[Finding]),
        evidence=_read_evidence(row[13]) if row[13] else None,
        reviews=read_json(row[16], LedgerReviews) if row[16] else None,
    )


# Large, asked for again and again, and never changed by who reads them.
@lru_cache(maxsize=64)
def _read_evidence(text: str) -> Evidence:
    return read_json(text, Evidence)
