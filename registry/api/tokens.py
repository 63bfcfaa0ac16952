"""/v1/tokens: made, listed and revoked."""

from datetime import datetime
from functools import partial
from typing import Any

import msgspec
from litestar import Controller, Response, delete, get, post
from litestar.params import FromPath, JSONBody

from registry.api.door import EVERYONE, AnyRequest, allowed, ask, principal_of, run
from registry.api.visitors import Visitors
from registry.commands import tokens
from registry.records import CreateToken, Role, TokenInfo
from registry.registry import Registry


class Tokens(Controller):
    """Made by admins; anyone may list and revoke their own."""

    tags = ["tokens"]

    @post("/v1/tokens", opt=allowed(Role.ADMIN))
    async def create(self, request: AnyRequest, data: JSONBody[CreateToken]) -> Response[Any]:
        visitors: Visitors = request.app.state.visitors
        principal = principal_of(request)
        visitors.creations.take(principal.token or principal.person, "tokens made with this token")
        return await run(request, partial(tokens.create, request=data))

    @get("/v1/tokens", opt=allowed(*EVERYONE))
    async def list_tokens(self, request: AnyRequest) -> list[TokenInfo]:
        registry: Registry = request.app.state.registry
        return [_with_use(one, registry.last_used.get(one.id)) for one in await ask(request, tokens.listed)]

    @delete("/v1/tokens/{token_id:str}", opt=allowed(*EVERYONE), status_code=200)
    async def revoke(self, request: AnyRequest, token_id: FromPath[str]) -> Response[Any]:
        return await run(request, partial(tokens.revoke, id_=token_id))


def _with_use(info: TokenInfo, used: datetime | None) -> TokenInfo:
    """To the hour: enough to find tokens that nobody needs, too little to follow a person's day."""
    if used is None:
        return info
    hour = used.replace(minute=0, second=0, microsecond=0)
    return msgspec.structs.replace(info, last_used=hour.isoformat(timespec="seconds").replace("+00:00", "Z"))
