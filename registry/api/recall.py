"""What clients poll: conditional answers, and the same answers again from memory, before any routing.

A kept answer is found under everything that decided it: role and scope of whoever asks, path and query. It is there
only because the whole way, guard and question, was gone for that role and scope, and it holds as long as
`registry.kept` says. What is left to do for each request is to authenticate it, with the same functions as everywhere.
"""

import re
from collections.abc import Callable
from typing import Any, NamedTuple

import msgspec
from litestar import Response
from litestar.types import ASGIApp, Receive, Send

from registry.access import Principal
from registry.api.door import AnyRequest, bearer, in_thread, principal_of
from registry.commands.context import Context
from registry.errors import TunegateError
from registry.kept import Kept
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


async def poll(request: AnyRequest, question: Question) -> Response[Any]:
    """Answer on a reader's thread and keep the answer; 304 where the client already has it."""
    registry: Registry = request.app.state.registry
    principal = principal_of(request)
    anyone = Principal(token=None, person="", role=principal.role, scope=principal.scope)
    seq = registry.changes.visible
    value = await in_thread(request, lambda: registry.ask(anyone, question.ask))
    body = msgspec.json.encode(value)
    tag = question.tag(value) if question.tag else sha256_hex(body)[:32]
    if question.keep(value):
        answered = Answered(body, tag, request.scope["path_template"])
        key = _key(principal, request.scope)
        kept: Kept[Answered] = request.app.state.answers
        kept.put(key, answered, subject=question.subject, seq=seq, size=len(body) + sum(map(len, key[2:])))
    headers = {"ETag": f'"{tag}"', "Cache-Control": _CACHING}
    if is_known(request.headers.getall("If-None-Match", []), tag):
        return Response(None, status_code=304, headers=headers)
    return Response(body, headers=headers, media_type="application/json")


def is_known(conditions: list[str], tag: str) -> bool:
    """Whether If-None-Match names this entity tag: weak comparison (RFC 9110, 13.1.2)."""
    listed = ",".join(conditions)
    return listed.strip() == "*" or tag in _TAG.findall(listed)


class Recall:
    """ASGI middleware: answers from memory what it can, and leaves the rest, refusals too, to the application."""

    def __init__(self, app: ASGIApp, registry: Registry, answers: Kept[Answered]) -> None:
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
        return self._answers.get(_key(principal, scope)) if principal else None


def new_answers(registry: Registry) -> Kept[Answered]:
    return Kept(registry.changes, _ROOM_BYTES)


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
