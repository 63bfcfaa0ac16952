"""Training runs: where each stands, with one line for people about every step of it."""

from registry.events import (
    TrainingCancelled,
    TrainingClaimed,
    TrainingFailed,
    TrainingFinished,
    TrainingPaused,
    TrainingResumed,
    TrainingSubmitted,
)
from registry.records import TrainingError, TrainingStatus
from registry.storage.fold.target import Target, as_json, fold


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
        preferences=event.preferences,
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
        error = as_json(TrainingError(kind=event.kind, code=event.code, message=event.message))
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
