"""Training runs: submitted, claimed under a lease with a fencing token, followed, paused, resumed, finished.

The id of a run follows from its adapter, recipe and data, so that the same submission is the same run. What is in the
journal is what happened to a run; how far it is stands in files of its own (`registry.storage.progress`).
"""

import re
import tomllib
from collections.abc import Iterator
from typing import Any

import msgspec

from registry.access import may_know_blob
from registry.commands.adapters import find_adapter
from registry.commands.context import Context, Outcome
from registry.errors import Conflict, InvalidRequest, NotFound, StaleLease
from registry.events import (
    AnyEvent,
    TrainingCancelled,
    TrainingClaimed,
    TrainingFailed,
    TrainingFinished,
    TrainingPaused,
    TrainingResumed,
    TrainingSubmitted,
)
from registry.names import parse_reference, project_of, sha256_hex
from registry.records import (
    ClaimJob,
    CreateTraining,
    FailJob,
    FaultKind,
    FinishTraining,
    JobInfo,
    Lease,
    PostProgress,
    State,
    TrainingEvent,
    TrainingInfo,
    TrainingJob,
    TrainingRecord,
    TrainingStatus,
)
from registry.storage.progress import BEGINNING, Place, ToldLine
from registry.storage.views import StoredTraining, StoredVersion

KIND = "training"
# A worker that dies costs no more than the steps since the last checkpoint; a run that kills every worker ends here.
MOST_ATTEMPTS = 10
MOST_UNFINISHED = 200  # of one project, the paused ones among them
_OPEN = (TrainingStatus.QUEUED, TrainingStatus.RUNNING)
_RESUMABLE = (TrainingStatus.PAUSED, TrainingStatus.FAILED, TrainingStatus.CANCELLED)
_HELD_OUT = ("suite", "items")
# tomllib takes time with the square of a dotted key's parts, and recurses into what is nested.
_MOST_PARTS, _MOST_DEPTH = 8, 20
# Texts, an unfinished one to its end; comments; and whatever nests, or begins or goes on with a key. Each match is
# final, so that the scan takes one pass.
_TOKENS = re.compile(
    r'''"""(?:\\.|(?!""")[^\\])*(?:""")?|'{3}(?:(?!'{3}).)*(?:'{3})?'''
    r"""|"(?:\\[^\n]|[^"\\\n])*"?|'[^'\n]*'?|\#[^\n]*|[\[\]{}.,=\n]""",
    re.DOTALL,
)


# -- who submits and follows ---------------------------------------------------------------------------------------


def check_recipe(request: CreateTraining) -> None:
    """InvalidRequest for a recipe that cannot be run. Comes before `submit`, off the writer's thread."""
    if problems := list(_recipe_problems(request)):
        raise InvalidRequest("the training cannot be run: " + "; ".join(problems), problems)


def submit(context: Context, request: CreateTraining) -> Outcome:
    """Queue a run whose recipe was checked; 200 and the run as it stands if it was submitted before."""
    adapter = find_adapter(context, request.adapter)
    parts = (adapter.name, sha256_hex(request.recipe.encode()), request.dataset, request.replay or "")
    preferred = (request.preferences,) if request.preferences else ()  # older runs keep their ids
    id_ = sha256_hex(f"training {' '.join((*parts, *preferred))}".encode())[:32]
    if known := context.view.training(id_):
        return Outcome(describe(context, known))
    if missing := [digest for digest in _data(request) if not _usable(context, digest.removeprefix("sha256:"))]:
        raise InvalidRequest(
            f"the data {', '.join(missing)} are not stored here; upload them first with PUT /v1/blobs/sha256:…", missing
        )
    _require_room(context, adapter.name)
    event = TrainingSubmitted(
        id=id_,
        adapter=adapter.name,
        recipe=request.recipe,
        dataset=request.dataset,
        replay=request.replay,
        notes=request.notes,
        preferences=request.preferences,
    )
    stored = StoredTraining(
        id=id_,
        adapter=adapter.name,
        status=TrainingStatus.QUEUED,
        recipe=request.recipe,
        dataset=request.dataset,
        replay=request.replay,
        preferences=request.preferences,
        notes=request.notes,
        submitter=context.principal.person,
        created_at=context.now,
        started_at=None,
        finished_at=None,
        worker=None,
        fence=0,
        attempts=0,
        claim=None,
        error=None,
        version=None,
        seq=0,
    )
    return _answered(describe(context, stored), [event], 201)


def pause(context: Context, id_: str) -> Outcome:
    """Stop a run after the step it is in; `resume` continues it."""
    stored = find_training(context, id_)
    if stored.status is TrainingStatus.PAUSED:
        return Outcome(describe(context, stored))
    _require(stored, _OPEN, "paused")
    return _moved(context, stored, TrainingStatus.PAUSED, TrainingPaused(id=id_))


def resume(context: Context, id_: str) -> Outcome:
    """Queue a run again that was paused, cancelled or had failed; it continues from its last checkpoint."""
    stored = find_training(context, id_)
    if stored.status in _OPEN:
        return Outcome(describe(context, stored))
    _require(stored, _RESUMABLE, "resumed")
    if stored.status is not TrainingStatus.PAUSED:
        _require_room(context, stored.adapter)
    return _moved(context, stored, TrainingStatus.QUEUED, TrainingResumed(id=id_))


def cancel(context: Context, id_: str) -> Outcome:
    """End a run at once."""
    stored = find_training(context, id_)
    if stored.status is TrainingStatus.CANCELLED:
        return Outcome(describe(context, stored))
    _require(stored, (*_OPEN, TrainingStatus.PAUSED), "cancelled")
    return _moved(context, stored, TrainingStatus.CANCELLED, TrainingCancelled(id=id_))


def find_training(context: Context, id_: str) -> StoredTraining:
    """The run if this principal may know of it."""
    stored = context.view.training(id_)
    if stored is None or not context.principal.may_see(stored.adapter):
        raise NotFound(f"training {id_!r} does not exist or is not visible to this token")
    return stored


def describe(context: Context, stored: StoredTraining) -> TrainingInfo:
    adapter = context.view.adapter(stored.adapter)
    assert adapter is not None
    return TrainingInfo(
        id=stored.id,
        status=stored.status,
        adapter=stored.adapter,
        base=adapter.base.digest,
        recipe=stored.recipe,
        dataset=stored.dataset,
        replay=stored.replay,
        preferences=stored.preferences,
        notes=stored.notes,
        submitter=stored.submitter,
        created_at=stored.created_at,
        started_at=stored.started_at,
        finished_at=stored.finished_at,
        worker=stored.worker,
        attempts=stored.attempts,
        error=stored.error,
        version=f"{stored.adapter}/{stored.version}" if stored.version is not None else None,
        progress=context.services.progress.latest(stored.id),
    )


def events_of(context: Context, stored: StoredTraining, after: Place = BEGINNING) -> list[TrainingEvent]:
    """What happened to a run behind a place, in order: the journal's facts, each with what its worker told then."""
    facts = [
        TrainingEvent(id=_event_id(Place(one.seq, 0)), at=one.at, level=one.level, type="status", message=one.message)  # type: ignore[arg-type]
        for one in context.view.training_facts(stored.id)
        if Place(one.seq, 0) > after
    ]
    told = [_told(line) for line in context.services.progress.lines(stored.id, after)]
    return sorted([*facts, *told], key=lambda event: read_event_id(event.id))


def read_event_id(text: str) -> Place:
    """The place that an event's id names; InvalidRequest for what is no such id."""
    claim, _, number = text.partition("-")
    if not all(part.isascii() and part.isdigit() and len(part) <= 15 for part in (claim, number)):
        raise InvalidRequest(f"event id {text[:50]!r} is not one of ours; begin without one")
    return Place(int(claim), int(number))


def require_run(context: Context, adapter: str, record: TrainingRecord) -> None:
    """InvalidRequest for a training record that names a run which it cannot have come of."""
    stored = context.view.training(record.run) if record.run is not None else None
    if stored is None or stored.adapter != adapter:
        why = f"is no run of {adapter!r}"
    elif stored.recipe != record.recipe:
        why = "has another recipe"
    elif stored.fence == 0:
        why = "no worker has claimed yet"
    else:
        return
    raise InvalidRequest(f"the training record names run {record.run!r}, which {why}; leave it out")


# -- workers -------------------------------------------------------------------------------------------------------


def claim(context: Context, request: ClaimJob) -> Outcome:
    """The oldest run that is queued, or whose worker fell silent; status 204 and no run if there is none."""
    events: list[AnyEvent] = []
    scope = context.principal.scope
    for run in context.view.waiting_trainings(scope, request.base) if KIND in request.kinds else []:
        if run.status is TrainingStatus.RUNNING and not context.services.leases.expired(run.id):
            continue
        if run.attempts >= MOST_ATTEMPTS:
            message = f"given up after {run.attempts} attempts; the last worker ({run.worker}) fell silent"
            events.append(_failure(run.id, run.fence, FaultKind.SYSTEM_ERROR, "worker_lost", message, final=True))
            continue
        context.services.leases.grant(run.id)
        stored = find_training(context, run.id)
        fence = run.fence + 1
        events.append(TrainingClaimed(id=run.id, fence=fence, worker=request.worker))
        job = TrainingJob(
            id=run.id,
            kind=KIND,
            adapter=stored.adapter,
            fence=fence,
            lease_seconds=context.services.leases.seconds,
            base=find_adapter(context, stored.adapter).base,
            recipe=stored.recipe,
            dataset=stored.dataset,
            replay=stored.replay,
            preferences=stored.preferences,
        )
        return _answered(job, events)
    return Outcome(None, events, 204)


def heartbeat(context: Context, id_: str, request: Lease) -> Outcome:
    """Hold the lease for another while. Nothing is journalled."""
    run = held(context, id_, request.fence)
    context.services.leases.grant(run.id)
    return Outcome(describe_job(run))


def progress(context: Context, id_: str, request: PostProgress) -> JobInfo:
    """Keep what a worker tells, and hold its lease for another while. No command: nothing is journalled."""
    run = held(context, id_, request.fence, paused=request.last_words)
    assert run.claim is not None
    if run.status is TrainingStatus.RUNNING:
        context.services.leases.grant(run.id)
    context.services.progress.append(run.id, run.claim, context.now, request.notes)
    context.services.progress.append_log(run.id, run.claim, request.log, request.log_from)
    return describe_job(run)


def fail(context: Context, id_: str, request: FailJob) -> Outcome:
    """Give a run back, or end it where trying again is of no use."""
    run = held(context, id_, request.fence)
    final = not request.retry or run.attempts >= MOST_ATTEMPTS
    event = _failure(run.id, run.fence, request.kind, request.code, request.reason, final=final)
    status = TrainingStatus.FAILED if final else TrainingStatus.QUEUED
    return Outcome(describe_job(run._replace(status=status, worker=None), request.reason), [event])


def finish(context: Context, id_: str, request: FinishTraining) -> Outcome:
    """A version came of the run: pushed, sealed, and recorded as what this run gave."""
    run = held(context, id_, request.fence)
    reference = parse_reference(request.version)
    version = context.view.version(run.adapter, reference.number) if reference.number is not None else None
    if reference.adapter != run.adapter or version is None or version.state is State.UPLOADING:
        raise InvalidRequest(f"{request.version!r} is no complete version of {run.adapter!r}; push it first")
    if not _came_of(run, version):
        raise InvalidRequest(
            f"the training record of {version.ref} does not name run {id_}; push what the run gave, with its record"
        )
    event = TrainingFinished(id=id_, fence=run.fence, number=version.number)
    return Outcome(describe_job(run._replace(status=TrainingStatus.SUCCEEDED, worker=None)), [event])


def held(context: Context, id_: str, fence: int, *, paused: bool = False) -> StoredTraining:
    """The run, if the fencing token is the newest and the run goes on; `paused`: or was paused since its claim."""
    run = find_training(context, id_)
    is_paused = run.status is TrainingStatus.PAUSED and run.claim is not None
    is_held = run.status is TrainingStatus.RUNNING or (paused and is_paused)
    if not is_held or run.fence != fence:
        raise StaleLease(
            f"training {id_} is {run.status} with fencing token {run.fence}, not {fence}: it was paused or cancelled, "
            "another worker has it, or it is over; stop working on it and claim again"
        )
    return run


def describe_job(run: StoredTraining, reason: str | None = None) -> JobInfo:
    """A run as the calls about jobs show it."""
    return JobInfo(
        id=run.id,
        kind=KIND,
        ref=run.adapter,
        state=run.status.value,
        fence=run.fence,
        attempts=run.attempts,
        worker=run.worker,
        reason=reason,
    )


# -- rules ---------------------------------------------------------------------------------------------------------


def _recipe_problems(request: CreateTraining) -> Iterator[str]:
    """What can be said of a recipe without the trainer, which reads it whole."""
    if problem := _excess(request.recipe):
        yield problem
        return
    try:
        recipe: dict[str, Any] = tomllib.loads(request.recipe)
    except (ValueError, RecursionError) as error:  # not TOML, or a number of thousands of digits
        yield f"the recipe is not valid TOML: {error}"
        return
    for key in ("name", "base", "data"):
        if not isinstance(recipe.get(key), str) or not recipe[key]:
            yield f"the recipe has no text for {key!r}; docs/training.md has every key"
    for section, name, given in (("replay", "replay", request.replay), ("dpo", "preferences", request.preferences)):
        if (section in recipe) != (given is not None):
            has, lacks = f"[{section}]", f"a {name} digest"
            has, lacks = (has, lacks) if section in recipe else (lacks, has)
            yield f"there is {has} without {lacks}; give both, or neither"


def _excess(text: str) -> str | None:
    """What of a TOML text is beyond any recipe and dear to read, if anything; a scan that understands no more."""
    dots = depth = 0
    for token in _TOKENS.findall(text):
        if token == ".":
            dots += 1
        elif token in ("[", "{"):
            dots, depth = 0, depth + 1
        elif token in ("]", "}"):
            dots, depth = 0, depth - 1
        elif token in (",", "=", "\n"):
            dots = 0
        if dots >= _MOST_PARTS:
            return f"the recipe has a key of more than {_MOST_PARTS} parts; docs/training.md has every key"
        if depth > _MOST_DEPTH:
            return f"the recipe is nested deeper than {_MOST_DEPTH}; docs/training.md has every key"
    return None


def _came_of(run: StoredTraining, version: StoredVersion) -> bool:
    """Whether a version's record names the run. The same files, pushed before by hand, keep a record without one."""
    record = version.training
    if record is None or record.recipe != run.recipe:
        return False
    return record.run == run.id or (record.run is None and record.dataset == run.dataset)


def _require_room(context: Context, adapter: str) -> None:
    project = project_of(adapter)
    if (there := context.view.count_unfinished_trainings(project)) >= MOST_UNFINISHED:
        raise Conflict(
            f"{project!r} has {there} unfinished runs, and {MOST_UNFINISHED} are the most; wait until one is over, or "
            "cancel one (`tunegate training list`, POST /v1/trainings/RUN/cancel)"
        )


def _data(request: CreateTraining) -> list[str]:
    return [one for one in (request.dataset, request.replay, request.preferences) if one is not None]


def _usable(context: Context, sha256: str) -> bool:
    """Stored, for this principal to know, and not held out: what a suite asks must not be trained on."""
    if not context.services.blobs.has(sha256) or not may_know_blob(context.view, context.principal, sha256):
        return False
    return not any(holder.purpose in _HELD_OUT for holder in context.view.holders(sha256))


def _require(stored: StoredTraining, statuses: tuple[TrainingStatus, ...], wanted: str) -> None:
    if stored.status not in statuses:
        raise Conflict(f"training {stored.id} is {stored.status} and cannot be {wanted}")


def _moved(context: Context, stored: StoredTraining, status: TrainingStatus, event: AnyEvent) -> Outcome:
    over = status is TrainingStatus.CANCELLED
    now = stored._replace(
        status=status,
        worker=None,
        error=None if status is TrainingStatus.QUEUED else stored.error,
        attempts=0 if status is TrainingStatus.QUEUED else stored.attempts,
        finished_at=context.now if over else None,
    )
    return _answered(describe(context, now), [event])


def _answered(answer: TrainingInfo | TrainingJob, events: list[AnyEvent], status: int = 200) -> Outcome:
    """With the run's recipe, which the journal has already, and its progress, which it is never to have."""
    remembered = msgspec.structs.replace(answer, recipe="")
    if isinstance(remembered, TrainingInfo):
        remembered = msgspec.structs.replace(remembered, progress=None)
    return Outcome(answer, events, status, remembered=remembered)


def _failure(id_: str, fence: int, kind: FaultKind, code: str, message: str, *, final: bool) -> TrainingFailed:
    return TrainingFailed(id=id_, fence=fence, kind=kind, code=code, message=message, final=final)


def _told(line: ToldLine) -> TrainingEvent:
    return TrainingEvent(
        id=_event_id(Place(line.claim, line.number)),
        at=line.at,
        level=line.level,  # type: ignore[arg-type]
        type="message" if line.step is None or line.step.checkpoint else "metrics",
        message=line.message,
        data=line.step,
    )


def _event_id(place: Place) -> str:
    return f"{place.claim}-{place.number}"
