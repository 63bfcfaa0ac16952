"""/v1/trainings: submit a run, follow it, stop it. Shaped like OpenAI's fine-tuning jobs. Workers come by /v1/jobs."""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator
from functools import partial
from typing import Annotated, Any, TypeVar

import msgspec
from litestar import Controller, Response, get, post
from litestar.params import FromPath, JSONBody, QueryParameter
from litestar.response import Stream

from registry.api.cursor import read_cursor, read_number, write_cursor
from registry.api.door import AnyRequest, allowed, ask, in_thread, principal_of, run
from registry.api.params import Cursor, Limit
from registry.api.streams import Streams
from registry.commands import trainings
from registry.commands.context import Command, Context
from registry.records import (
    CreateTraining,
    Page,
    Role,
    StepProgress,
    TrainingCheckpoint,
    TrainingEvent,
    TrainingInfo,
    TrainingStatus,
)
from registry.registry import Registry
from registry.storage.progress import BEGINNING, Place

T = TypeVar("T")
SUBMITTERS = (Role.TRAINER, Role.ADMIN)
READERS = (*SUBMITTERS, Role.RELEASE_MANAGER, Role.AUDITOR)
_LAST = 2**53
_LOOK_SECONDS, _ALIVE_SECONDS = 0.2, 15.0
# Then the client comes again with the last id, and its token is looked at again.
_STREAM_SECONDS = 600.0
_OVER = (TrainingStatus.SUCCEEDED, TrainingStatus.FAILED, TrainingStatus.CANCELLED)
Points = Annotated[int, QueryParameter(ge=2, le=20_000)]
Status = Annotated[TrainingStatus | None, QueryParameter()]
OfAdapter = Annotated[str | None, QueryParameter(name="adapter", max_length=127)]


class Trainings(Controller):
    """A run belongs to an adapter and is seen by who sees that."""

    tags = ["trainings"]

    @post("/v1/trainings", opt=allowed(*SUBMITTERS))
    async def submit(self, request: AnyRequest, data: JSONBody[CreateTraining]) -> Response[Any]:
        """201 for a new run, 200 for one that was submitted before: its id follows from adapter, recipe and data."""
        await in_thread(request, partial(trainings.check_recipe, data))
        return await run_whole(request, partial(trainings.submit, request=data))

    @get("/v1/trainings", opt=allowed(*READERS))
    async def list_trainings(
        self,
        request: AnyRequest,
        status: Status = None,
        of: OfAdapter = None,
        limit: Limit = 100,
        cursor: Cursor = None,
    ) -> Page[TrainingInfo]:
        """Newest first; in one status, or of one adapter, where that is asked."""

        def question(context: Context) -> Page[TrainingInfo]:
            before = read_number(cursor) or _LAST
            scope = context.principal.scope
            found = context.view.trainings(before, limit + 1, status=status, adapter=of, scope=scope)
            more = write_cursor(str(found[limit - 1].seq)) if len(found) > limit else None
            return Page(items=[trainings.describe(context, one) for one in found[:limit]], next_cursor=more)

        return await ask(request, question)

    @get("/v1/trainings/{training:str}", opt=allowed(*READERS))
    async def show(self, request: AnyRequest, training: FromPath[str]) -> TrainingInfo:
        return await ask(
            request, lambda context: trainings.describe(context, trainings.find_training(context, training))
        )

    @get("/v1/trainings/{training:str}/events", opt=allowed(*READERS))
    async def events(
        self, request: AnyRequest, training: FromPath[str], limit: Limit = 100, cursor: Cursor = None
    ) -> Response[Any]:
        """Oldest first: a JSON page, or with `Accept: text/event-stream` a stream that a Last-Event-ID continues."""
        if "text/event-stream" in request.headers.get("Accept", ""):
            last = request.headers.get("Last-Event-ID")
            place = trainings.read_event_id(last) if last else BEGINNING
            await ask(request, partial(trainings.find_training, id_=training))
            headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
            stream = _stream(request, training, place)
            await anext(stream)  # it takes its place, or is refused while an answer can still say so
            return Stream(stream, media_type="text/event-stream", headers=headers)
        key = read_cursor(cursor)
        after = trainings.read_event_id(key) if key else BEGINNING
        found = await ask(request, partial(_events, training=training, after=after))
        more = write_cursor(found[limit - 1].id) if len(found) > limit else None
        return Response(Page(items=found[:limit], next_cursor=more))

    @get("/v1/trainings/{training:str}/metrics", opt=allowed(*READERS))
    async def metrics(self, request: AnyRequest, training: FromPath[str], points: Points = 1000) -> list[StepProgress]:
        """The steps that were told, at most so many, evenly chosen, the last among them."""
        found = await ask(request, partial(_events, training=training, after=BEGINNING))
        return thinned(curve(found), points)

    @get("/v1/trainings/{training:str}/checkpoints", opt=allowed(*READERS))
    async def checkpoints(
        self, request: AnyRequest, training: FromPath[str], limit: Limit = 100, cursor: Cursor = None
    ) -> Page[TrainingCheckpoint]:
        """The steps that the run was saved after, the last first."""
        found = saved(training, await ask(request, partial(_events, training=training, after=BEGINNING)))
        below = read_number(cursor) or _LAST
        rest = [one for one in found if one.step < below]
        more = write_cursor(str(rest[limit - 1].step)) if len(rest) > limit else None
        return Page(items=rest[:limit], next_cursor=more)

    @get("/v1/trainings/{training:str}/logs", opt=allowed(*READERS))
    async def logs(self, request: AnyRequest, training: FromPath[str]) -> Response[str]:
        """The end of what the trainer printed."""

        def question(context: Context) -> str:
            return context.services.progress.log(trainings.find_training(context, training).id)

        headers = {"X-Content-Type-Options": "nosniff", "Cache-Control": "no-store"}
        return Response(await ask(request, question), media_type="text/plain; charset=utf-8", headers=headers)

    @post("/v1/trainings/{training:str}/cancel", opt=allowed(*SUBMITTERS), status_code=200)
    async def cancel(self, request: AnyRequest, training: FromPath[str]) -> Response[Any]:
        return await run_whole(request, partial(trainings.cancel, id_=training))

    @post("/v1/trainings/{training:str}/pause", opt=allowed(*SUBMITTERS), status_code=200)
    async def pause(self, request: AnyRequest, training: FromPath[str]) -> Response[Any]:
        return await run_whole(request, partial(trainings.pause, id_=training))

    @post("/v1/trainings/{training:str}/resume", opt=allowed(*SUBMITTERS), status_code=200)
    async def resume(self, request: AnyRequest, training: FromPath[str]) -> Response[Any]:
        return await run_whole(request, partial(trainings.resume, id_=training))


async def run_whole(request: AnyRequest, command: Command) -> Response[Any]:
    """Run a command about a run. Its answer is remembered without the recipe; a repeated one is given it again."""
    response = await run(request, command)
    if response.status_code == 204 or "Idempotency-Replayed" not in response.headers:
        return response
    told = msgspec.json.decode(response.content)

    def recipe(context: Context) -> str:
        return trainings.find_training(context, told["id"]).recipe

    content = msgspec.json.encode({**told, "recipe": await ask(request, recipe)})
    return Response(content, status_code=response.status_code, media_type="application/json", headers=response.headers)


def curve(events: list[TrainingEvent]) -> list[StepProgress]:
    """One point for each step, the latest that was told: an attempt that was taken over did some steps again.

    The words that a step is told with are its stage's.
    """
    told = {
        event.data.step: (event.data, event.message)
        for event in events
        if event.data is not None and event.data.loss is not None and not event.data.checkpoint
    }
    found, stage, said = list[StepProgress](), 0, None
    for step in sorted(told):
        point, words = told[step]
        stage, said = stage + (words != said), words
        found.append(msgspec.structs.replace(point, stage=stage))
    return found


def saved(training: str, events: list[TrainingEvent]) -> list[TrainingCheckpoint]:
    """A run's checkpoints, the last step first; of a step that was saved again, the latest."""
    by_step = {event.data.step: event for event in events if event.data is not None and event.data.checkpoint}
    return [_checkpoint(training, step, by_step[step]) for step in sorted(by_step, reverse=True)]


def _checkpoint(training: str, step: int, event: TrainingEvent) -> TrainingCheckpoint:
    assert event.data is not None
    told = {"loss": event.data.loss, "validation_loss": event.data.validation_loss}
    metrics = {name: value for name, value in told.items() if value is not None}
    return TrainingCheckpoint(
        id=f"{training}-step-{step}", training=training, step=step, created_at=event.at, metrics=metrics
    )


def thinned(points: list[T], most: int) -> list[T]:
    """At most so many of the points, the first and the last among them.

    >>> [one.step for one in thinned([StepProgress(step=i, steps=9) for i in range(1, 10)], 3)]
    [1, 5, 9]
    """
    if len(points) <= most:
        return points
    return [points[round(place * (len(points) - 1) / (most - 1))] for place in range(most)]


def _events(context: Context, training: str, after: Place) -> list[TrainingEvent]:
    return trainings.events_of(context, trainings.find_training(context, training), after)


def _status(context: Context, training: str) -> TrainingStatus:
    return trainings.find_training(context, training).status


async def _stream(request: AnyRequest, training: str, place: Place) -> AsyncGenerator[bytes]:
    """Server-sent events until the run is over, the client is to come again, or the service ends.

    The first piece is empty and says that a place was had; it is given back however the stream ends.
    """
    streams: Streams = request.app.state.streams
    with streams.held(principal_of(request).person):
        yield b""
        async for piece in _told(request, training, place):
            yield piece


async def _told(request: AnyRequest, training: str, place: Place) -> AsyncIterator[bytes]:
    registry: Registry = request.app.state.registry
    files, seen = registry.services.progress, None
    ends, silent_since = time.monotonic() + _STREAM_SECONDS, time.monotonic()
    while time.monotonic() < ends and not registry.draining:
        now = (registry.changes.visible, files.changes(training))
        if now != seen:
            seen = now
            status = await ask(request, partial(_status, training=training))
            for event in await ask(request, partial(_events, training=training, after=place)):
                place, silent_since = trainings.read_event_id(event.id), time.monotonic()
                yield _sent(event)
            if status in _OVER:
                yield b"event: end\ndata: " + msgspec.json.encode({"status": status}) + b"\n\n"
                return
        if time.monotonic() - silent_since > _ALIVE_SECONDS:
            silent_since = time.monotonic()
            yield b": alive\n\n"
        await asyncio.sleep(_LOOK_SECONDS)


def _sent(event: TrainingEvent) -> bytes:
    return b"id: %s\nevent: %s\ndata: %s\n\n" % (
        event.id.encode(),
        event.type.encode(),
        msgspec.json.encode(event),
    )
