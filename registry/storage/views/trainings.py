"""Training runs: where each stands, what happened to it, and which of them wait for a worker."""

from typing import Any, NamedTuple

from registry.records import TrainingError, TrainingStatus
from registry.storage.views.reader import Reader, read_json
from registry.storage.views.versions import StoredVersion


class StoredTraining(NamedTuple):
    """`claim`: the entry of the latest claim, which what its worker tells is ordered under."""

    id: str
    adapter: str
    status: TrainingStatus
    recipe: str
    dataset: str
    replay: str | None
    preferences: str | None
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


class Trainings(Reader):
    """Runs as the journal tells of them; their progress is kept elsewhere."""

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
                error=read_json(one.error, TrainingError) if one.error else None,  # type: ignore[arg-type]
            )
            for one in found
        ]

    def training_facts(self, id_: str) -> list[TrainingFact]:
        """Oldest first."""
        rows = self._all("SELECT seq, told_at, level, message FROM training_facts WHERE training = ? ORDER BY seq", id_)
        return [TrainingFact(*row) for row in rows]

    def trained_by(self, version: StoredVersion, until: str | None = None) -> frozenset[str]:
        """Who submitted the runs that a version came of: the one that its record names, and any that ended in it.

        until: the moment by which they had ended, if it matters.
        """
        run = version.training.run if version.training else None
        rows = self._all(
            "SELECT DISTINCT submitter FROM trainings WHERE adapter = ? "
            "AND (id = ? OR (version = ? AND (?::TEXT IS NULL OR finished_at <= ?)))",
            *(version.adapter, run, version.number, until, until),
        )
        return frozenset(row[0] for row in rows)
