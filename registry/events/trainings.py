"""Training runs: submitted, claimed, and how they ended. Their progress is not journalled."""

from registry.events.event import Event
from registry.records import Digest, FaultKind


class TrainingSubmitted(Event, frozen=True, tag="training.submitted"):
    """A run is to train an adapter. Its progress is not journalled: see `registry.storage.progress`."""

    id: str
    adapter: str
    recipe: str
    dataset: Digest
    replay: Digest | None = None
    notes: str | None = None
    preferences: Digest | None = None


class TrainingClaimed(Event, frozen=True, tag="training.claimed"):
    id: str
    fence: int
    worker: str


class TrainingPaused(Event, frozen=True, tag="training.paused"):
    id: str


class TrainingResumed(Event, frozen=True, tag="training.resumed"):
    """A run that was paused, cancelled or had failed is queued again."""

    id: str


class TrainingCancelled(Event, frozen=True, tag="training.cancelled"):
    id: str


class TrainingFinished(Event, frozen=True, tag="training.finished"):
    """Version `number` of the run's adapter came of it."""

    id: str
    fence: int
    number: int


class TrainingFailed(Event, frozen=True, tag="training.failed"):
    """`final` ends the run; otherwise it is queued again."""

    id: str
    fence: int
    kind: FaultKind
    code: str
    message: str
    final: bool
