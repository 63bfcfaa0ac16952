"""/v1/tokens: made, listed and revoked."""

from functools import partial
from typing import Any

from litestar import Controller, Response, delete, get, post
from litestar.params import FromPath, JSONBody

from registry.api.door import EVERYONE, AnyRequest, allowed, ask, run
from registry.commands import tokens
from registry.records import CreateToken, Role, TokenInfo


class Tokens(Controller):
    """Made by admins; anyone may list and revoke their own."""

    tags = ["tokens"]

    @post("/v1/tokens", opt=allowed(Role.ADMIN))
    async def create(self, request: AnyRequest, data: JSONBody[CreateToken]) -> Response[Any]:
        return await run(request, partial(tokens.create, request=data))

    @get("/v1/tokens", opt=allowed(*EVERYONE))
    async def list_tokens(self, request: AnyRequest) -> list[TokenInfo]:
        return await ask(request, tokens.listed)

    @delete("/v1/tokens/{token_id:str}", opt=allowed(*EVERYONE), status_code=200)
    async def revoke(self, request: AnyRequest, token_id: FromPath[str]) -> Response[Any]:
        return await run(request, partial(tokens.revoke, id_=token_id))
