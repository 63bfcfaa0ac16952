"""Pages for a person with a browser: sign in with a token, see adapters, versions and gate reports. Read only.

The token lies in an HttpOnly, SameSite=Strict cookie; pages load nothing from elsewhere and run no script. Forms are
accepted only from our own pages: see `forms`.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from litestar import Controller, Response, get, post
from litestar.datastructures import Cookie
from litestar.exceptions import HTTPException
from litestar.response import Redirect

from registry.access import visible_states
from registry.api.door import OPEN, AnyRequest, in_thread
from registry.api.params import Adapter, Number
from registry.api.visitors import Visitors
from registry.commands import adapters, versions
from registry.commands.context import Context
from registry.commands.gate import assess
from registry.errors import NotFound, Unauthenticated
from registry.records import VersionInfo
from registry.registry import Registry
from registry.web.forms import FORM_COOKIE, MOST_BYTES, SESSION_COOKIE, read_form, require_own, ticket

T = TypeVar("T")
_HERE = Path(__file__).parent
_SHOWN = 200
_environment = Environment(
    loader=FileSystemLoader(_HERE / "templates"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
)
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


class Pages(Controller):
    """The registry in a browser."""

    include_in_schema = False

    @get("/", opt=OPEN)
    async def overview(self, request: AnyRequest) -> Response[str]:
        def question(context: Context) -> dict[str, Any]:
            found = context.view.adapters("", _SHOWN, context.principal.scope)
            rows = [(adapters.describe(context.view, one), _versions(context, one.name)) for one in found]
            return {"adapters": rows, "person": context.principal.person, "role": context.principal.role}

        return await _page(request, "overview.html", question)

    @get(["/adapters/{name:str}/{number:int}", "/adapters/{name:str}/{second:str}/{number:int}"], opt=OPEN)
    async def version(self, request: AnyRequest, adapter: Adapter, number: Number) -> Response[str]:
        def question(context: Context) -> dict[str, Any]:
            stored = versions.find_version(context, adapter, number)
            return {
                "version": versions.describe(context, stored),
                "report": assess(context.view, stored),
                "person": context.principal.person,
                "role": context.principal.role,
            }

        return await _page(request, "version.html", question)

    @post("/sign-in", opt=OPEN | {"raw": True}, status_code=303, request_max_body_size=MOST_BYTES)
    async def sign_in(self, request: AnyRequest) -> Response[Any]:
        token = (await _own_form(request)).get("token", "").strip()
        registry: Registry = request.app.state.registry
        try:
            await in_thread(request, lambda: registry.authenticate(token))
        except Unauthenticated as error:
            return _refused(request, error)
        cookie = Cookie(
            SESSION_COOKIE, value=token, httponly=True, samesite="strict", path="/", secure=_secure(request)
        )
        return Redirect("/", status_code=303, cookies=[cookie])

    @post("/sign-out", opt=OPEN | {"raw": True}, status_code=303, request_max_body_size=MOST_BYTES)
    async def sign_out(self, request: AnyRequest) -> Response[Any]:
        await _own_form(request)
        return Redirect("/", status_code=303, cookies=[Cookie(SESSION_COOKIE, value="", max_age=0, path="/")])

    @get("/static/style.css", opt=OPEN)
    async def style(self) -> Response[bytes]:
        return Response((_HERE / "static" / "style.css").read_bytes(), media_type="text/css")


async def _page(request: AnyRequest, template: str, question: Callable[[Context], dict[str, Any]]) -> Response[str]:
    """A page for whoever is signed in; the sign-in form for everyone else."""
    registry: Registry = request.app.state.registry
    token = request.cookies.get(SESSION_COOKIE, "")

    def look() -> dict[str, Any]:
        return registry.ask(registry.authenticate(token), question)

    if not token:
        return _render(request, "sign_in.html", {"problem": None}, 200)
    try:
        return _render(request, template, await in_thread(request, look), 200)
    except Unauthenticated as error:
        return _refused(request, error)
    except NotFound as error:
        return _render(request, "missing.html", {"problem": str(error)}, 404)


def _refused(request: AnyRequest, error: Unauthenticated) -> Response[str]:
    visitors: Visitors = request.app.state.visitors
    visitors.count_failure(request.scope, error)
    return _render(request, "sign_in.html", {"problem": str(error)}, 401)


def _render(request: AnyRequest, template: str, values: dict[str, Any], status: int) -> Response[str]:
    form = ticket(request.cookies, request.app.state.form_key)
    html = _environment.get_template(template).render(values, form_token=form.token)
    nonce = Cookie(FORM_COOKIE, value=form.new_nonce, httponly=True, samesite="lax", path="/", secure=_secure(request))
    cookies = [nonce] if form.new_nonce else []
    return Response(html, status_code=status, media_type="text/html", headers=_HEADERS, cookies=cookies)


def _versions(context: Context, adapter: str) -> list[VersionInfo]:
    found = context.view.versions(adapter, 2**31, _SHOWN, visible_states(context.principal))
    return [versions.describe(context, one) for one in found]


async def _own_form(request: AnyRequest) -> dict[str, str]:
    """The fields of a form that one of our pages sent; 415 for what is no form, Forbidden for another's."""
    content_type = request.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    if content_type != "application/x-www-form-urlencoded":
        detail = f"content type {content_type[:100]!r} is not application/x-www-form-urlencoded"
        raise HTTPException(status_code=415, detail=detail)
    form = read_form(await request.body())
    headers, key = request.headers, request.app.state.form_key
    require_own(form, request.cookies, key, origin=headers.get("Origin"), host=headers.get("Host"))
    return form


def _secure(request: AnyRequest) -> bool:
    visitors: Visitors = request.app.state.visitors
    return visitors.comes_by_https(request.scope)
