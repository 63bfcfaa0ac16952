"""Between HTTP and the registry's door: who asks, what may be asked, how a command's answer becomes a response."""

import asyncio
import re
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import msgspec
from litestar import Request, Response
from litestar.connection import ASGIConnection
from litestar.exceptions import HTTPException
from litestar.handlers import BaseRouteHandler

from registry.access import Principal, require_role
from registry.api.visitors import Visitors
from registry.commands.context import Command, Context
from registry.errors import Forbidden, InvalidRequest, Unauthenticated, Unavailable
from registry.records import Role
from registry.registry import Registry, Repeat, request_digest

T = TypeVar("T")
_TIMEOUT_SECONDS = 30.0
_MOST = 2**53 - 1
_MANY_DIGITS = re.compile(rb"[0-9]{16}")  # as many as a number beyond that has at least

AnyRequest = Request[Any, Any, Any]
Connection = ASGIConnection[Any, Any, Any, Any]


def allowed(*roles: Role) -> dict[str, Any]:
    """Handler option: the roles that may call it. A handler without it, or without `open`, is refused to everyone."""
    return {"roles": frozenset(roles)}


OPEN = {"open": True}
EVERYONE = tuple(Role)


async def guard(connection: Connection, handler: BaseRouteHandler) -> None:
    """Authenticate and authorise every call; runs before the body is read."""
    if not handler.opt.get("open"):
        connection.state.principal = await _admitted(connection, handler)
    if isinstance(connection, Request) and not handler.opt.get("raw"):
        _require_json(connection)
        await _require_exact_types(connection, handler)


async def _admitted(connection: Connection, handler: BaseRouteHandler) -> Principal:
    """Who asks, if they may; refusals are counted, and told where the token is known."""
    registry: Registry = connection.app.state.registry
    visitors: Visitors = connection.app.state.visitors
    values = connection.headers.getall("Authorization", [])
    try:
        token = bearer(values)
        principal = registry.recognise(token)
        if principal is None:
            principal = await in_thread(connection, lambda: registry.authenticate(token))
    except Unauthenticated as error:
        if values:
            visitors.count_failure(connection.scope, error)
        raise
    try:
        require_role(principal, handler.opt.get("roles", frozenset()))
    except Forbidden:
        if principal.token is not None:
            visitors.tell(principal.token, "role")
        raise
    return principal


def principal_of(request: AnyRequest) -> Principal:
    principal: Principal = request.state.principal
    return principal


async def run(
    request: AnyRequest,
    command: Command,
    headers: Callable[[Any], dict[str, str]] | None = None,
    *,
    remember: bool = True,
) -> Response[Any]:
    """Run a command; its Idempotency-Key, if any, is remembered with the answer.

    remember: False for what is repeatable by itself, and whose answer shows what the journal must never hold.
    """
    registry: Registry = request.app.state.registry
    repeat = None
    # So is every GET that issues something.
    if remember and request.method != "GET" and (key := request.headers.get("Idempotency-Key")):
        repeat = Repeat(key, request_digest(request.method, str(request.url.path), await request.body()))
    future = asyncio.wrap_future(registry.submit(principal_of(request), command, repeat))
    try:
        async with asyncio.timeout(_TIMEOUT_SECONDS):
            # A client that hangs up must not take its accepted command with it.
            answer = await asyncio.shield(future)
    except TimeoutError:
        raise Unavailable("the registry is too busy to answer; the outcome is unknown, ask again") from None
    more = headers(answer.value) if headers and not answer.repeated else {}
    if answer.repeated:
        more["Idempotency-Replayed"] = "true"
    if answer.status == 204:
        return Response(None, status_code=204, headers=more)
    return Response(
        msgspec.json.encode(answer.value), status_code=answer.status, media_type="application/json", headers=more
    )


async def ask(request: AnyRequest, question: Callable[[Context], T]) -> T:
    """Answer a question about the committed state on a reader's thread."""
    registry: Registry = request.app.state.registry
    principal = principal_of(request)
    return await in_thread(request, lambda: registry.ask(principal, question))


async def in_thread(connection: Connection, work: Callable[[], T]) -> T:
    executor: ThreadPoolExecutor = connection.app.state.readers
    return await asyncio.get_running_loop().run_in_executor(executor, work)


def if_match(request: AnyRequest) -> str | None:
    """What a change is conditional on, if anything; the header may come more than once."""
    values = request.headers.getall("If-Match", [])
    return ", ".join(values) if values else None


def bearer(values: Sequence[str]) -> str:
    """The token in the values of all Authorization headers; Unauthenticated unless there is exactly one that fits."""
    if len(values) != 1:
        raise Unauthenticated("send exactly one header `Authorization: Bearer tg_…`; `tunegate token create` makes one")
    kind, _, token = values[0].partition(" ")
    if kind.lower() != "bearer":
        raise Unauthenticated(f"authorization of kind {kind[:20]!r} is not known; send `Authorization: Bearer tg_…`")
    return token.strip()


def _require_json(connection: Connection) -> None:
    """A JSON body must say so: browsers send other types across sites without asking first."""
    if connection.scope.get("method") not in ("POST", "PUT", "PATCH"):
        return
    content_type = connection.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    has_body = connection.headers.get("Content-Length", "0") != "0" or "Transfer-Encoding" in connection.headers
    if content_type != "application/json" and (has_body or content_type):
        raise HTTPException(status_code=415, detail=f"content type {content_type!r} is not application/json")


async def _require_exact_types(request: AnyRequest, handler: BaseRouteHandler) -> None:
    """Decode the body strictly, as its type says.

    Litestar 2.25 converts bodies leniently: "5" passes for 5 and "nan" for a float, which no gate may ever see.
    """
    field = handler.parsed_data_field
    if field is None:
        return
    if not (body := await request.body()):
        if field.is_optional:
            return
        raise InvalidRequest("the body is missing; send a JSON object (GET /schema/openapi.json describes it)")
    try:
        found = msgspec.json.decode(body, type=field.annotation)
    except msgspec.ValidationError as error:
        raise InvalidRequest(f"the body does not fit: {error}", [str(error)]) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise HTTPException(status_code=400, detail=f"the body is not JSON: {error}") from None
    if _MANY_DIGITS.search(body):
        _require_exact_numbers(msgspec.to_builtins(found))


def _require_exact_numbers(body: Any) -> None:
    """Canonical JSON (RFC 8785), which everything is digested as, holds no whole number beyond 2^53 - 1."""
    waiting = [body]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            waiting.extend(value.values())
        elif isinstance(value, list):
            waiting.extend(value)
        elif isinstance(value, int) and abs(value) > _MOST:
            raise InvalidRequest("the body holds a whole number beyond 2^53 - 1, which JSON cannot carry exactly")
