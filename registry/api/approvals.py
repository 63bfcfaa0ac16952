"""Promote, roll back, revoke; aliases and their history."""

from functools import partial
from typing import Any

from litestar import Controller, Response, get, post
from litestar.params import FromPath, JSONBody

from registry.access import hidden_from
from registry.api.door import EVERYONE, AnyRequest, allowed, ask, if_match, run
from registry.api.params import Adapter, Number, paths
from registry.api.recall import Question, poll
from registry.commands import adapters, approvals, moves, rejection
from registry.commands.context import Context
from registry.errors import NotFound
from registry.records import (
    AliasInfo,
    AliasMove,
    Countersign,
    Envelope,
    Promote,
    Proposal,
    Reject,
    Revoke,
    Role,
    Rollback,
)


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

    @post(paths("/versions/{number:int}/countersign"), opt=allowed(Role.RELEASE_MANAGER))
    async def countersign(
        self, request: AnyRequest, data: JSONBody[Countersign], adapter: Adapter, number: Number
    ) -> Response[Any]:
        """Add the caller's own signature to a proposed approval; with it the alias moves."""
        command = partial(approvals.countersign, adapter=adapter, number=number, request=data)
        return await run(request, command, headers=_etag)

    @get(
        paths("/aliases/{alias:str}/proposal"),
        opt=allowed(Role.RELEASE_MANAGER, Role.ADMIN, Role.AUDITOR),
    )
    async def proposal(self, request: AnyRequest, adapter: Adapter, alias: FromPath[str]) -> Proposal:
        """The move of an alias that waits for a second signature."""
        return await ask(request, lambda context: approvals.proposal(context, adapter, _read_alias(alias)))

    @get(paths("/aliases/{alias:str}/freshness"), opt=allowed(*EVERYONE))
    async def freshness(self, request: AnyRequest, adapter: Adapter, alias: FromPath[str]) -> Response[Envelope]:
        """The registry's signed word, good for a day, on what an alias names now. Never kept: it is dated."""
        said = await ask(request, lambda context: moves.freshness(context, _find(context, adapter, alias)))
        return Response(said, headers={"Cache-Control": "no-store"})

    @post(paths("/versions/{number:int}/reject"), opt=allowed(Role.RELEASE_MANAGER))
    async def reject(
        self, request: AnyRequest, data: JSONBody[Reject], adapter: Adapter, number: Number
    ) -> Response[Any]:
        """Refuse a version that was not approved yet, for good, whatever its evidence says."""
        return await run(request, partial(rejection.reject, adapter=adapter, number=number, request=data))

    @post(paths("/versions/{number:int}/revoke"), opt=allowed(Role.RELEASE_MANAGER, Role.ADMIN))
    async def revoke(
        self, request: AnyRequest, data: JSONBody[Revoke], adapter: Adapter, number: Number
    ) -> Response[Any]:
        return await run(request, partial(approvals.revoke, adapter=adapter, number=number, request=data))

    @get(paths("/aliases/{alias:str}"), opt=allowed(*EVERYONE))
    async def show(self, request: AnyRequest, adapter: Adapter, alias: FromPath[str]) -> Response[Any]:
        def question(context: Context) -> AliasInfo:
            return _find(context, adapter, alias)

        return await poll(request, Question(adapter, question, tag=approvals.etag))

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
    """None for a move that is only proposed: the alias is where it was."""
    return {} if info.unsigned else {"ETag": f'"{approvals.etag(info)}"'}
