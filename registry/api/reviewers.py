"""/v1/reviewers: who may review in which domain, and who says so."""

from functools import partial
from typing import Any

from litestar import Controller, Response, delete, get, post
from litestar.params import FromPath, JSONBody

from registry.api.door import AnyRequest, allowed, ask, run
from registry.commands import reviewers
from registry.records import AddReviewer, ReviewerInfo, Role


class Reviewers(Controller):
    """Vouched for by admins; the records stay when they no longer count."""

    tags = ["review"]

    @post("/v1/reviewers", opt=allowed(Role.ADMIN))
    async def vouch(self, request: AnyRequest, data: JSONBody[AddReviewer]) -> Response[Any]:
        return await run(request, partial(reviewers.vouch, request=data))

    @get("/v1/reviewers", opt=allowed(Role.ADMIN, Role.RELEASE_MANAGER, Role.AUDITOR))
    async def list_reviewers(self, request: AnyRequest) -> list[ReviewerInfo]:
        return await ask(request, reviewers.listed)

    @delete("/v1/reviewers/{record_id:str}", opt=allowed(Role.ADMIN), status_code=200)
    async def withdraw(self, request: AnyRequest, record_id: FromPath[str]) -> Response[Any]:
        """From now on it counts no rating any more."""
        return await run(request, partial(reviewers.withdraw, id_=record_id))
