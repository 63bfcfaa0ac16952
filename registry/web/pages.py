"""Pages for a person with a browser: sign in with a token, see adapters, versions and gate reports. Read only.

The token lies in an HttpOnly, SameSite=Strict cookie; these pages run no script. Forms are accepted only from our own
pages: see `forms`.
"""

from typing import Any

from litestar import Controller, Response, get, post
from litestar.datastructures import Cookie
from litestar.response import Redirect

from registry.access import visible_states
from registry.api.door import OPEN, AnyRequest, in_thread
from registry.api.params import Adapter, Number
from registry.commands import adapters, versions
from registry.commands.context import Context
from registry.commands.gate import assess
from registry.errors import Unauthenticated
from registry.records import Role, VersionInfo
from registry.registry import Registry
from registry.web.desk import LOOKERS
from registry.web.forms import MOST_BYTES, SESSION_COOKIE
from registry.web.rendering import HERE, own_form, page, refused, secure

_SHOWN = 200


class Pages(Controller):
    """The registry in a browser."""

    include_in_schema = False

    @get("/", opt=OPEN)
    async def overview(self, request: AnyRequest) -> Response[str]:
        def question(context: Context) -> dict[str, Any]:
            found = context.view.adapters("", _SHOWN, context.principal.scope)
            rows = [(adapters.describe(context.view, one), _versions(context, one.name)) for one in found]
            return {"adapters": rows, "person": context.principal.person, "role": context.principal.role}

        return await page(request, "overview.html", question)

    @get(["/adapters/{name:str}/{number:int}", "/adapters/{name:str}/{second:str}/{number:int}"], opt=OPEN)
    async def version(self, request: AnyRequest, adapter: Adapter, number: Number) -> Response[str]:
        def question(context: Context) -> dict[str, Any]:
            stored = versions.find_version(context, adapter, number)
            return {
                "version": versions.describe(context, stored),
                "report": assess(context.view, stored),
                "campaign": context.principal.role in LOOKERS and context.view.campaign_of(adapter, number) is not None,
                "person": context.principal.person,
                "role": context.principal.role,
            }

        return await page(request, "version.html", question)

    @post("/sign-in", opt=OPEN | {"raw": True}, status_code=303, request_max_body_size=MOST_BYTES)
    async def sign_in(self, request: AnyRequest) -> Response[Any]:
        token = (await own_form(request)).get("token", "").strip()
        registry: Registry = request.app.state.registry
        try:
            principal = await in_thread(request, lambda: registry.authenticate(token))
        except Unauthenticated as error:
            return refused(request, error)
        cookie = Cookie(SESSION_COOKIE, value=token, httponly=True, samesite="strict", path="/", secure=secure(request))
        start = "/review" if principal.role is Role.REVIEWER else "/"
        return Redirect(start, status_code=303, cookies=[cookie])

    @post("/sign-out", opt=OPEN | {"raw": True}, status_code=303, request_max_body_size=MOST_BYTES)
    async def sign_out(self, request: AnyRequest) -> Response[Any]:
        await own_form(request)
        return Redirect("/", status_code=303, cookies=[Cookie(SESSION_COOKIE, value="", max_age=0, path="/")])

    @get("/static/style.css", opt=OPEN)
    async def style(self) -> Response[bytes]:
        return Response((HERE / "static" / "style.css").read_bytes(), media_type="text/css")


def _versions(context: Context, adapter: str) -> list[VersionInfo]:
    found = context.view.versions(adapter, 2**31, _SHOWN, visible_states(context.principal))
    return [versions.describe(context, one) for one in found]
