"""Training runs: what is submitted, how it is followed, what a worker is given and tells."""

from enum import StrEnum
from typing import Annotated, Literal

from msgspec import Meta

from registry.records.adapters import Base
from registry.records.words import Count, Digest, Record, Request, Text, Word

_RecipeText = Annotated[str, Meta(min_length=1, max_length=64_000)]
_Level = Literal["info", "warn", "error"]
_Number = Annotated[int, Meta(ge=1, le=2**53 - 1)]


class TrainingStatus(StrEnum):
    """`paused`, `failed` and `cancelled` runs can be resumed: they continue from their last checkpoint."""

    QUEUED = "queued"
    RUNNING = "running"
    PAUSED = "paused"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


class FaultKind(StrEnum):
    """Who can mend it: whoever wrote recipe and data, or whoever runs the machines."""

    USER_ERROR = "user_error"
    SYSTEM_ERROR = "system_error"


class TrainingError(Record):
    """Why a run failed. `code` is stable; `message` says what to do."""

    kind: FaultKind
    code: Word
    message: Text


class CreateTraining(Request, frozen=True, omit_defaults=True):
    """`recipe`: TOML text; the blobs `dataset`, `replay` and `preferences` stand in for the files that it names."""

    adapter: Word
    recipe: _RecipeText
    dataset: Digest
    replay: Digest | None = None
    notes: Text | None = None
    preferences: Digest | None = None


class StepProgress(Record, frozen=True, omit_defaults=True):
    """Where a run is. loss: nats per trained token; memory: the most that the trainer has taken.

    validation_loss: of this step, where it was measured. checkpoint: this tells that the step was saved. stage: in a
    run's curve, from 1; another one begins where a step is told with other words, and its loss may be of another kind.
    """

    step: Count
    steps: Count
    loss: float | None = None
    learning_rate: float | None = None
    tokens_per_second: float | None = None
    memory_bytes: Count | None = None
    seconds_left: float | None = None
    validation_loss: float | None = None
    checkpoint: bool = False
    stage: Count = 1


class TrainingCheckpoint(Record):
    """A step that a run was saved after. Only the last one and the best are kept, and none once the run is over.

    metrics: `loss` and `validation_loss`, if known.
    """

    id: str
    training: str
    step: Count
    created_at: str
    metrics: dict[str, float]


class TrainingInfo(Record):
    """`version`: the reference of the adapter version that came of it. `progress`: the last that was told."""

    id: str
    status: TrainingStatus
    adapter: str
    base: Digest
    recipe: str
    dataset: Digest
    replay: Digest | None
    notes: str | None
    submitter: str
    created_at: str
    started_at: str | None
    finished_at: str | None
    worker: str | None
    attempts: int
    error: TrainingError | None
    version: str | None
    progress: StepProgress | None = None
    preferences: Digest | None = None


class TrainingEvent(Record):
    """One thing that happened to a run; `metrics` carry `data`, a `status` is in the journal. Ids rise in order."""

    id: str
    at: str
    level: _Level
    type: Literal["status", "message", "metrics"]
    message: str
    data: StepProgress | None = None


# -- the worker's side ---------------------------------------------------------------------------------------------


class TrainingJob(Record):
    """Everything a worker needs; the fence goes into every later call about it."""

    id: str
    kind: str
    adapter: str
    fence: int
    lease_seconds: float
    base: Base
    recipe: str
    dataset: Digest
    replay: Digest | None = None
    preferences: Digest | None = None


class ProgressNote(Request):
    """One thing that a worker tells, numbered from 1 within its claim, so that a repeat is told from news."""

    number: _Number
    message: Text
    level: _Level = "info"
    step: StepProgress | None = None


class PostProgress(Request, frozen=True, omit_defaults=True):
    """What happened since the last post, oldest first; nothing at all is a heartbeat.

    log: what the trainer printed, from byte `log_from` of what it printed in this claim. last_words: of a worker whose
    run was paused, about the step that it ended; taken while the run is paused. Defaults are not sent: a registry that
    does not know a field would refuse every post.
    """

    fence: Count
    notes: Annotated[list[ProgressNote], Meta(max_length=1000)] = []
    log: Annotated[str, Meta(max_length=65_536)] = ""
    log_from: Count = 0
    last_words: bool = False


class FinishTraining(Request):
    """`version`: the reference of what was pushed."""

    fence: Count
    version: Word
