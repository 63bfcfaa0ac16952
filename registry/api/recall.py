"""What clients poll: conditional answers, and the same answers again from memory, before any routing.

A kept answer is found under everything that decided it: role and scope of whoever asks, path and query. It is there
only because the whole way, guard and question, was gone for that role and scope, and it holds as long as
`registry.kept` says. What is left to do for each request is to authenticate it, with the same functions as everywhere.
"""

import asyncio
import re
from collections.abc import Awaitable, Callable, Hashable
from typing import Any, NamedTuple

import msgspec
from litestar import Response
from litestar.types import ASGIApp, Receive, Send

from registry.access import Principal
from registry.api.door import AnyRequest, bearer, in_thread, principal_of
from registry.commands.context import Context
from registry.errors import TunegateError
from registry.kept import Changes, Kept
from registry.names import sha256_hex
from registry.registry import Registry

_ROOM_BYTES = 32 * 1024**2
_CACHING = "no-cache"  # may be stored, must be revalidated each time
_TAG = re.compile(r'(?:W/)?"([^"]*)"')


class Answered(NamedTuple):
    """An answer as it was given. tag: its entity tag without quotes."""

    body: bytes
    tag: str
    path_template: str


class Question(NamedTuple):
    """What a poll asks. ask: may look at the principal's role and scope, at nothing else of whoever asks.

    subject: the one adapter whose changes change the answer. keep: whether an answer may be kept at all.
    tag: the entity tag of an answer, given with its body; a digest of the body where it is None.
    """

    subject: str
    ask: Callable[[Context], Any]
    tag: Callable[[Any], str] | None = None
    keep: Callable[[Any], bool] = lambda _: True


class _Making(NamedTuple):
    """An answer that is being made; seq: what was visible before that began."""

    subject: str
    seq: int
    answer: "asyncio.Task[Answered]"


class Answers:
    """What was answered, and what is being: whoever asks for the same meanwhile waits for that one. For the event loop.

    When a kept answer is given up, everyone who polls it asks at once; to answer each anew took them all a tenth of a
    second.
    """

    def __init__(self, changes: Changes) -> None:
        self.kept: Kept[Answered] = Kept(changes, _ROOM_BYTES)
        self._changes = changes
        self._making: dict[Hashable, _Making] = {}

    async def made(self, key: Hashable, subject: str, make: Callable[[int], Awaitable[Answered]]) -> Answered:
        """The answer that is being made, if nothing it is made of has changed since that began; else a new one.

        make: given the number that is visible before it begins.
        """
        making = self._making.get(key)
        if making is None or self._changes.last(subject) > making.seq:
            seq = self._changes.visible
            making = _Making(subject, seq, asyncio.ensure_future(make(seq)))
            self._making[key] = making
            making.answer.add_done_callback(lambda _: self._done(key, making))
        # Whoever hangs up must not take the answer from the others.
        return await asyncio.shield(making.answer)

    def _done(self, key: Hashable, making: _Making) -> None:
        if self._making.get(key) is making:
            del self._making[key]
        # Whoever asked may have hung up; an error that nobody has looked at would be told of as a defect.
        if not making.answer.cancelled():
            making.answer.exception()


async def poll(request: AnyRequest, question: Question) -> Response[Any]:
    """Answer on a reader's thread and keep the answer; 304 where the client already has it."""
    registry: Registry = request.app.state.registry
    principal = principal_of(request)
    anyone = Principal(token=None, person="", role=principal.role, scope=principal.scope)
    key, answers = _key(principal, request.scope), answers_of(request)

    async def make(seq: int) -> Answered:
        value = await in_thread(request, lambda: registry.ask(anyone, question.ask))
        body = msgspec.json.encode(value)
        tag = question.tag(value) if question.tag else sha256_hex(body)[:32]
        answered = Answered(body, tag, request.scope["path_template"])
        if question.keep(value):
            size = len(body) + sum(map(len, key[2:]))
            answers.kept.put(key, answered, subject=question.subject, seq=seq, size=size)
        return answered

    answered = await answers.made(key, question.subject, make)
    headers = {"ETag": f'"{answered.tag}"', "Cache-Control": _CACHING}
    if is_known(request.headers.getall("If-None-Match", []), answered.tag):
        return Response(None, status_code=304, headers=headers)
    return Response(answered.body, headers=headers, media_type="application/json")


def answers_of(request: AnyRequest) -> Answers:
    answers: Answers = request.app.state.answers
    return answers


def is_known(conditions: list[str], tag: str) -> bool:
    """Whether If-None-Match names this entity tag: weak comparison (RFC 9110, 13.1.2)."""
    listed = ",".join(conditions)
    return listed.strip() == "*" or tag in _TAG.findall(listed)


class Recall:
    """ASGI middleware: answers from memory what it can, and leaves the rest, refusals too, to the application."""

    def __init__(self, app: ASGIApp, registry: Registry, answers: Answers) -> None:
        self._app, self._registry, self._answers = app, registry, answers

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "GET":
            await self._app(scope, receive, send)
            return
        authorizations, conditions = _headers(scope)
        answered = self._find(scope, authorizations) if authorizations else None
        if answered is None:
            await self._app(scope, receive, send)
            return
        scope["path_template"] = answered.path_template
        known = bool(conditions) and is_known(conditions, answered.tag)
        headers = [(b"etag", b'"%s"' % answered.tag.encode()), (b"cache-control", _CACHING.encode())]
        if not known:
            length = str(len(answered.body)).encode()
            headers += [(b"content-type", b"application/json"), (b"content-length", length)]
        await send({"type": "http.response.start", "status": 304 if known else 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"" if known else answered.body, "more_body": False})

    def _find(self, scope: Any, authorizations: list[str]) -> Answered | None:
        try:
            principal = self._registry.recognise(bearer(authorizations))
        except TunegateError:
            return None
        return self._answers.kept.get(_key(principal, scope)) if principal else None


def _key(principal: Principal, scope: Any) -> tuple[Any, ...]:
    return principal.role, principal.scope, scope["raw_path"], scope["query_string"]


def _headers(scope: Any) -> tuple[list[str], list[str]]:
    """The values of Authorization and If-None-Match, in one pass."""
    authorizations, conditions = [], []
    for name, value in scope["headers"]:
        if name == b"authorization":
            authorizations.append(value.decode("latin-1"))
        elif name == b"if-none-match":
            conditions.append(value.decode("latin-1"))
    return authorizations, conditions
