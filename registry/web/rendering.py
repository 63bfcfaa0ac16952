"""How a question or a command becomes a page, for whoever the session's cookie says.

Pages are never kept by browsers or proxies, load nothing from elsewhere, and run a script only where `scripted` says.
Whatever is refused is refused in words, on a page: who is not signed in gets the sign-in form.
"""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from litestar import Response
from litestar.datastructures import Cookie
from litestar.exceptions import HTTPException

from registry.access import Principal, require_role
from registry.api.door import AnyRequest, in_thread
from registry.api.problems import TABLE
from registry.api.visitors import Visitors
from registry.commands.context import Command, Context
from registry.errors import NotFound, TunegateError, Unauthenticated, Unavailable
from registry.records import Role
from registry.registry import Registry, Repeat
from registry.web.forms import FORM_COOKIE, SESSION_COOKIE, read_form, require_own, ticket
from registry.web.inert import inert

T = TypeVar("T")
HERE = Path(__file__).parent
_TIMEOUT_SECONDS = 30.0
_environment = Environment(
    loader=FileSystemLoader(HERE / "templates"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
)
_environment.filters["inert"] = inert
_POLICY = "default-src 'none'; style-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    # Not "no-referrer": under it browsers name no origin with a form (`Origin: null`), and `forms` would refuse ours.
    "Referrer-Policy": "same-origin",
    "Cache-Control": "no-store",
}
_SCRIPTED = {**_HEADERS, "Content-Security-Policy": f"{_POLICY}; script-src 'self'; connect-src 'self'"}


def render(
    request: AnyRequest, template: str, values: dict[str, Any], status: int = 200, *, scripted: bool = False
) -> Response[str]:
    """The page, and the cookie that its forms need where the browser has none yet."""
    form = ticket(request.cookies, request.app.state.form_key)
    html = _environment.get_template(template).render(values, form_token=form.token)
    nonce = Cookie(FORM_COOKIE, value=form.new_nonce, httponly=True, samesite="lax", path="/", secure=secure(request))
    cookies = [nonce] if form.new_nonce else []
    headers = _SCRIPTED if scripted else _HEADERS
    return Response(html, status_code=status, media_type="text/html", headers=headers, cookies=cookies)


async def page(request: AnyRequest, template: str, question: Callable[[Context], dict[str, Any]]) -> Response[str]:
    """What the catalog answers to whoever is signed in."""

    async def found() -> Response[str]:
        principal = await signed_in(request)
        return render(request, template, await ask(request, principal, question))

    return await in_words(request, found)


async def in_words(request: AnyRequest, work: Callable[[], Awaitable[Response[Any]]]) -> Response[Any]:
    """The page that `work` makes, or one that says why there is none."""
    try:
        return await work()
    except Unauthenticated as error:
        return refused(request, error)
    except TunegateError as error:
        template = "missing.html" if isinstance(error, NotFound) else "refused.html"
        start = "/review" if request.url.path.startswith("/review") else "/"
        return render(request, template, {"problem": str(error), "start": start}, TABLE[type(error)][0])


def refused(request: AnyRequest, error: Unauthenticated) -> Response[str]:
    """The sign-in form; a token that was refused is counted, and said why."""
    if request.method == "GET" and not request.cookies.get(SESSION_COOKIE):
        return render(request, "sign_in.html", {"problem": None})
    visitors: Visitors = request.app.state.visitors
    visitors.count_failure(request.scope, error)
    return render(request, "sign_in.html", {"problem": str(error)}, 401)


async def signed_in(request: AnyRequest, *roles: Role) -> Principal:
    """Whose cookie it is; Forbidden unless in one of these roles, if any are named."""
    registry: Registry = request.app.state.registry
    token = request.cookies.get(SESSION_COOKIE, "")
    principal = registry.recognise(token)
    if principal is None:
        principal = await in_thread(request, lambda: registry.authenticate(token))
    if roles:
        require_role(principal, frozenset(roles))
    return principal


async def ask(request: AnyRequest, principal: Principal, question: Callable[[Context], T]) -> T:
    """Answer a question about the committed state on a reader's thread."""
    registry: Registry = request.app.state.registry
    return await in_thread(request, lambda: registry.ask(principal, question))


async def perform(request: AnyRequest, principal: Principal, command: Command, repeat: Repeat | None = None) -> Any:
    """Run a command to its end, though the browser may hang up; its answer, None where it has no content."""
    registry: Registry = request.app.state.registry
    future = asyncio.wrap_future(registry.submit(principal, command, repeat))
    try:
        return (await asyncio.wait_for(asyncio.shield(future), _TIMEOUT_SECONDS)).value
    except TimeoutError:
        raise Unavailable("the registry is too busy to answer; the outcome is unknown, ask again") from None


async def own_form(request: AnyRequest) -> dict[str, str]:
    """The fields of a form that one of our pages sent; 415 for what is no form, Forbidden for another's."""
    content_type = request.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    if content_type != "application/x-www-form-urlencoded":
        detail = f"content type {content_type[:100]!r} is not application/x-www-form-urlencoded"
        raise HTTPException(status_code=415, detail=detail)
    form = read_form(await request.body())
    headers, key = request.headers, request.app.state.form_key
    require_own(form, request.cookies, key, origin=headers.get("Origin"), host=headers.get("Host"))
    return form


def secure(request: AnyRequest) -> bool:
    visitors: Visitors = request.app.state.visitors
    return visitors.comes_by_https(request.scope)
