"""Pages for a person with a browser: sign in with a token, see adapters, versions and gate reports. Read only.

The token lies in an HttpOnly, SameSite=Strict cookie; pages load nothing from elsewhere and run no script.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import parse_qs, urlsplit

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from litestar import Controller, Response, get, post
from litestar.datastructures import Cookie
from litestar.response import Redirect

from registry.access import hidden_from
from registry.api.door import OPEN, AnyRequest, in_thread
from registry.api.params import Adapter, Number
from registry.commands import adapters, versions
from registry.commands.context import Context
from registry.commands.gate import assess
from registry.errors import Forbidden, NotFound, Unauthenticated
from registry.records import VersionInfo
from registry.registry import Registry

T = TypeVar("T")
COOKIE = "tunegate_token"
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

    @post("/sign-in", opt=OPEN | {"raw": True}, status_code=303)
    async def sign_in(self, request: AnyRequest) -> Response[Any]:
        _require_same_origin(request)
        form = parse_qs((await request.body()).decode("utf-8", "replace"))
        token = (form.get("token") or [""])[0].strip()
        registry: Registry = request.app.state.registry
        try:
            await in_thread(request, lambda: registry.authenticate(token))
        except Unauthenticated as error:
            return _render("sign_in.html", {"problem": str(error)}, 401)
        cookie = Cookie(COOKIE, value=token, httponly=True, samesite="strict", path="/")
        return Redirect("/", status_code=303, cookies=[cookie])

    @post("/sign-out", opt=OPEN | {"raw": True}, status_code=303)
    async def sign_out(self, request: AnyRequest) -> Response[Any]:
        _require_same_origin(request)
        return Redirect("/", status_code=303, cookies=[Cookie(COOKIE, value="", max_age=0, path="/")])

    @get("/static/style.css", opt=OPEN)
    async def style(self) -> Response[bytes]:
        return Response((_HERE / "static" / "style.css").read_bytes(), media_type="text/css")


async def _page(request: AnyRequest, template: str, question: Callable[[Context], dict[str, Any]]) -> Response[str]:
    """A page for whoever is signed in; the sign-in form for everyone else."""
    registry: Registry = request.app.state.registry
    token = request.cookies.get(COOKIE, "")

    def look() -> dict[str, Any]:
        return registry.ask(registry.authenticate(token), question)

    if not token:
        return _render("sign_in.html", {"problem": None}, 200)
    try:
        return _render(template, await in_thread(request, look), 200)
    except Unauthenticated as error:
        return _render("sign_in.html", {"problem": str(error)}, 401)
    except NotFound as error:
        return _render("missing.html", {"problem": str(error)}, 404)


def _render(template: str, values: dict[str, Any], status: int) -> Response[str]:
    html = _environment.get_template(template).render(values)
    return Response(html, status_code=status, media_type="text/html", headers=_HEADERS)


def _versions(context: Context, adapter: str) -> list[VersionInfo]:
    found = context.view.versions(adapter, 2**31, _SHOWN, [])
    return [versions.describe(context, one) for one in found if not hidden_from(context.principal, one.state)]


def _require_same_origin(request: AnyRequest) -> None:
    """A form of another site must not sign anyone in or out."""
    origin = request.headers.get("Origin")
    if origin is not None and urlsplit(origin).netloc != request.headers.get("Host"):
        raise Forbidden("this form was sent from another site; open the registry's own page")
