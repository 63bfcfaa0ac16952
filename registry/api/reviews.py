"""/v1/review: the reviewer's side; campaigns as the release manager sees them."""

from functools import partial
from typing import Any

from litestar import Controller, Response, get, post
from litestar.params import FromPath, JSONBody

from registry.api.door import AnyRequest, allowed, ask, in_thread, run
from registry.api.params import Adapter, Number, paths
from registry.commands import review, versions
from registry.commands.context import Context
from registry.records import Campaign, Rating, ReviewProgress, Role, Skip
from registry.registry import Registry


class Reviews(Controller):
    """One blinded item at a time."""

    tags = ["review"]

    @get("/v1/review/next", opt=allowed(Role.REVIEWER))
    async def next(self, request: AnyRequest) -> Response[Any]:
        return await run(request, review.next_assignment)

    @post("/v1/review/assignments/{assignment:str}/rating", opt=allowed(Role.REVIEWER))
    async def rate(self, request: AnyRequest, assignment: FromPath[str], data: JSONBody[Rating]) -> Response[Any]:
        registry: Registry = request.app.state.registry
        comment = None
        if data.comment:
            text = data.comment.encode()
            comment = await in_thread(request, lambda: registry.blobs.put(text))
        command = partial(review.rate, assignment_id=assignment, rating=data, comment_sha256=comment)
        return await run(request, command)

    @post("/v1/review/assignments/{assignment:str}/skip", opt=allowed(Role.REVIEWER))
    async def skip(self, request: AnyRequest, assignment: FromPath[str], data: JSONBody[Skip]) -> Response[Any]:
        return await run(request, partial(review.skip, assignment_id=assignment, request=data))

    @get("/v1/review/progress", opt=allowed(Role.REVIEWER))
    async def progress(self, request: AnyRequest) -> ReviewProgress:
        return await ask(request, review.progress)

    @post(paths("/versions/{number:int}/campaign"), opt=allowed(Role.RELEASE_MANAGER))
    async def open_campaign(self, request: AnyRequest, adapter: Adapter, number: Number) -> Response[Any]:
        command = partial(review.open_campaign, adapter=adapter, number=number)
        return await run(request, command)

    @get(paths("/versions/{number:int}/campaign"), opt=allowed(Role.RELEASE_MANAGER, Role.ADMIN, Role.AUDITOR, Role.CI))
    async def campaign(self, request: AnyRequest, adapter: Adapter, number: Number) -> Campaign:
        def question(context: Context) -> Campaign:
            stored = versions.find_version(context, adapter, number)
            return review.describe_campaign(context, stored)

        return await ask(request, question)
