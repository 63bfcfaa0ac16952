"""/v1/adapters: adapters, policies, versions, gate reports; /v1/suites; /v1/resolve."""

from functools import partial
from typing import Annotated, Any

from litestar import Controller, Response, get, post, put
from litestar.params import JSONBody, QueryParameter

from registry.access import BLOB_READERS, visible_states
from registry.api.cursor import read_cursor, read_number, write_cursor
from registry.api.door import EVERYONE, AnyRequest, allowed, ask, if_match, principal_of, run
from registry.api.params import Adapter, Cursor, Limit, Number, paths
from registry.api.recall import Question, poll
from registry.api.transfers import transfers_of
from registry.commands import adapters, versions
from registry.commands.bundle import bundle_of
from registry.commands.context import Context
from registry.commands.gate import assess
from registry.errors import BlobDamaged
from registry.names import parse_reference
from registry.quarantine import report_quarantined
from registry.records import (
    AdapterInfo,
    Bundle,
    CreateAdapter,
    GateReport,
    ItemRow,
    Page,
    Policy,
    PolicyInfo,
    RegisterSuite,
    Resolved,
    Role,
    State,
    SubmitVersion,
    Suite,
    VersionInfo,
)
from registry.search import read_conditions


class Adapters(Controller):
    """Adapters, their policies and suites."""

    tags = ["adapters"]

    @post("/v1/adapters", opt=allowed(Role.ADMIN, Role.RELEASE_MANAGER))
    async def create(self, request: AnyRequest, data: JSONBody[CreateAdapter]) -> Response[Any]:
        return await run(request, partial(adapters.create, request=data))

    @get("/v1/adapters", opt=allowed(*EVERYONE))
    async def list_adapters(self, request: AnyRequest, limit: Limit = 100, cursor: Cursor = None) -> Page[AdapterInfo]:
        def question(context: Context) -> Page[AdapterInfo]:
            found = context.view.adapters(read_cursor(cursor), limit + 1, context.principal.scope)
            page = adapters.describe_all(context.view, found[:limit])
            return Page(items=page, next_cursor=write_cursor(found[limit - 1].name) if len(found) > limit else None)

        return await ask(request, question)

    @get(paths(), opt=allowed(*EVERYONE))
    async def show(self, request: AnyRequest, adapter: Adapter) -> AdapterInfo:
        def question(context: Context) -> AdapterInfo:
            return adapters.describe(context.view, adapters.find_adapter(context, adapter))

        return await ask(request, question)

    @get(paths("/policy"), opt=allowed(*EVERYONE))
    async def show_policy(self, request: AnyRequest, adapter: Adapter) -> Response[PolicyInfo]:
        def question(context: Context) -> PolicyInfo:
            stored = adapters.find_adapter(context, adapter)
            document = context.view.policy(stored.policy)
            return PolicyInfo(adapter=stored.name, digest=stored.policy, revision=stored.revision, document=document)

        info = await ask(request, question)
        return Response(info, headers={"ETag": f'"{info.digest}"'})

    @put(paths("/policy"), opt=allowed(Role.ADMIN))
    async def set_policy(self, request: AnyRequest, data: JSONBody[Policy], adapter: Adapter) -> Response[Any]:
        command = partial(adapters.set_policy, adapter=adapter, policy=data, if_match=if_match(request))
        return await run(request, command, headers=lambda info: {"ETag": f'"{info.digest}"'})

    @post("/v1/suites", opt=allowed(Role.ADMIN, Role.RELEASE_MANAGER))
    async def register_suite(self, request: AnyRequest, data: JSONBody[RegisterSuite]) -> Response[Any]:
        return await run(request, partial(adapters.register_suite, request=data))

    @get("/v1/suites", opt=allowed(*EVERYONE))
    async def list_suites(self, request: AnyRequest) -> list[Suite]:
        def question(context: Context) -> list[Suite]:
            return [suite for ref, suite in context.view.suites().items() if ref == suite.ref]

        return await ask(request, question)

    @get("/v1/resolve", opt=allowed(*EVERYONE))
    async def resolve(
        self, request: AnyRequest, ref: Annotated[str, QueryParameter(max_length=300)]
    ) -> Response[Resolved]:
        """ETag and If-None-Match as for an alias; the tag changes with anything in the answer."""
        return await poll(
            request,
            Question(
                subject=parse_reference(ref).adapter,
                ask=lambda context: versions.resolve(context, ref),
                keep=lambda resolved: resolved.state is State.APPROVED,
            ),
        )


class Versions(Controller):
    """Versions of an adapter: submit, complete, look."""

    tags = ["versions"]

    @post(paths("/versions"), opt=allowed(Role.CI, Role.TRAINER))
    async def submit(self, request: AnyRequest, data: JSONBody[SubmitVersion], adapter: Adapter) -> Response[Any]:
        return await run(request, partial(versions.submit, adapter=adapter, request=data))

    @post(paths("/versions/{number:int}/complete"), opt=allowed(Role.CI, Role.TRAINER))
    async def complete(self, request: AnyRequest, adapter: Adapter, number: Number) -> Response[Any]:
        # The files are read through here, and not on the thread that all commands share.
        registry, principal = request.app.state.registry, principal_of(request)
        ahead = partial(versions.inspect_ahead, adapter=adapter, number=number)
        try:
            inspected = await transfers_of(request).scan(lambda: registry.glance(principal, ahead))
        except BlobDamaged:
            await transfers_of(request).start(lambda: report_quarantined(registry))
            raise
        return await run(request, partial(versions.complete, adapter=adapter, number=number, inspected=inspected))

    @get(paths("/versions"), opt=allowed(*EVERYONE))
    async def list_versions(
        self,
        request: AnyRequest,
        adapter: Adapter,
        states: Annotated[list[State] | None, QueryParameter(name="state")] = None,
        where: Annotated[str | None, QueryParameter(max_length=1000)] = None,
        limit: Limit = 100,
        cursor: Cursor = None,
    ) -> Page[VersionInfo]:
        """Newest first. where: conditions on what the gate report observed: `accuracy >= 0.85 and perplexity < 6`."""
        conditions = read_conditions(where) if where is not None else []

        def question(context: Context) -> Page[VersionInfo]:
            base = adapters.find_adapter(context, adapter).base
            after = read_number(cursor) or 2**31
            wanted = [state for state in visible_states(context.principal) if not states or state in states]
            found = context.view.versions(adapter, after, limit + 1, wanted, conditions)
            page = [versions.describe(context, one, base) for one in found[:limit]]
            more = write_cursor(str(found[limit - 1].number)) if len(found) > limit else None
            return Page(items=page, next_cursor=more)

        return await ask(request, question)

    @get(paths("/versions/{number:int}"), opt=allowed(*EVERYONE))
    async def show(self, request: AnyRequest, adapter: Adapter, number: Number) -> VersionInfo:
        def question(context: Context) -> VersionInfo:
            return versions.describe(context, versions.find_version(context, adapter, number))

        return await ask(request, question)

    @get(paths("/versions/{number:int}/gate"), opt=allowed(*EVERYONE))
    async def gate(self, request: AnyRequest, adapter: Adapter, number: Number) -> GateReport:
        def question(context: Context) -> GateReport:
            return assess(context.view, versions.find_version(context, adapter, number))

        return await ask(request, question)

    @get(paths("/versions/{number:int}/bundle"), opt=allowed(*BLOB_READERS["items"]))
    async def bundle(self, request: AnyRequest, adapter: Adapter, number: Number) -> Bundle:
        """What the verdict was decided from, for who may also read the per-item rows that belong to it."""
        return await ask(request, lambda context: bundle_of(context, adapter, number))

    @get(paths("/versions/{number:int}/items"), opt=allowed(*(set(EVERYONE) - {Role.CONSUMER})))
    async def items(
        self,
        request: AnyRequest,
        adapter: Adapter,
        number: Number,
        suite: Annotated[str, QueryParameter(max_length=300)],
        limit: Limit = 100,
        cursor: Cursor = None,
    ) -> Page[ItemRow]:
        """Per-item results of one suite, given as the gate report names it; its texts only for who may read suites."""

        def question(context: Context) -> Page[ItemRow]:
            found = versions.items(context, adapter, number, suite, read_cursor(cursor), limit + 1)
            page = found[:limit]
            more = write_cursor(f"{page[-1].item}/{page[-1].subject}") if len(found) > limit else None
            return Page(items=page, next_cursor=more)

        return await ask(request, question)
