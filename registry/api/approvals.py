"""Promote, roll back, revoke; aliases and their history."""

from functools import partial
from typing import Any

from litestar import Controller, Response, get, post
from litestar.params import FromPath, JSONBody

from registry.access import hidden_from
from registry.api.door import EVERYONE, AnyRequest, allowed, ask, if_match, run
from registry.api.params import Adapter, Number, paths
from registry.commands import adapters, approvals
from registry.commands.context import Context
from registry.errors import NotFound
from registry.records import AliasInfo, AliasMove, Promote, Revoke, Role, Rollback


class Approvals(Controller):
    """The only ways an alias moves."""

    tags = ["approvals"]

    @post(paths("/versions/{number:int}/promote"), opt=allowed(Role.RELEASE_MANAGER))
    async def promote(
        self, request: AnyRequest, adapter: Adapter, number: Number, data: JSONBody[Promote | None] = None
    ) -> Response[Any]:
        command = partial(
            approvals.promote,
            adapter=adapter,
            number=number,
            request=data or Promote(),
            if_match=if_match(request),
        )
        return await run(request, command, headers=_etag)

    @post(paths("/versions/{number:int}/revoke"), opt=allowed(Role.RELEASE_MANAGER, Role.ADMIN))
    async def revoke(
        self, request: AnyRequest, data: JSONBody[Revoke], adapter: Adapter, number: Number
    ) -> Response[Any]:
        return await run(request, partial(approvals.revoke, adapter=adapter, number=number, request=data))

    @get(paths("/aliases/{alias:str}"), opt=allowed(*EVERYONE))
    async def show(self, request: AnyRequest, adapter: Adapter, alias: FromPath[str]) -> Response[Any]:
        def question(context: Context) -> AliasInfo:
            return _find(context, adapter, alias)

        info = await ask(request, question)
        headers = {**_etag(info), "Cache-Control": "no-cache"}
        if request.headers.get("If-None-Match") == headers["ETag"]:
            return Response(None, status_code=304, headers=headers)
        return Response(info, headers=headers)

    @get(paths("/aliases/{alias:str}/history"), opt=allowed(*EVERYONE))
    async def history(self, request: AnyRequest, adapter: Adapter, alias: FromPath[str]) -> list[AliasMove]:
        def question(context: Context) -> list[AliasMove]:
            adapters.find_adapter(context, adapter)
            return context.view.alias_moves(adapter, _read_alias(alias))

        return await ask(request, question)

    @post(paths("/aliases/{alias:str}/rollback"), opt=allowed(Role.RELEASE_MANAGER))
    async def rollback(
        self, request: AnyRequest, data: JSONBody[Rollback], adapter: Adapter, alias: FromPath[str]
    ) -> Response[Any]:
        command = partial(
            approvals.rollback,
            adapter=adapter,
            alias=_read_alias(alias),
            request=data,
            if_match=if_match(request),
        )
        return await run(request, command, headers=_etag)


def _find(context: Context, adapter: str, alias: str) -> AliasInfo:
    adapters.find_adapter(context, adapter)
    stored = context.view.alias(adapter, _read_alias(alias))
    version = context.view.version(adapter, stored.number) if stored else None
    if stored is None or version is None or hidden_from(context.principal, version.state):
        raise NotFound(f"{adapter}@{alias} names no version that is visible to this token")
    return approvals.alias_info(stored)


def _read_alias(alias: str) -> str:
    """`latest` always means latest approved."""
    return "approved" if alias == "latest" else alias


def _etag(info: AliasInfo) -> dict[str, str]:
    return {"ETag": f'"{approvals.etag(info)}"'}
