"""/v1/review: the reviewer's side; campaigns as managers and auditors see them."""

from collections.abc import Callable
from functools import partial
from typing import Any

from litestar import Controller, Response, get, post
from litestar.params import FromPath, JSONBody

from registry.api.cursor import read_number, write_cursor
from registry.api.door import AnyRequest, allowed, ask, principal_of, run
from registry.api.params import Adapter, Cursor, Limit, Number, paths
from registry.api.words import run_with_words
from registry.commands import campaigns, disputes, results, review
from registry.commands.context import Command, Context
from registry.records import (
    Adjudicate,
    Assignment,
    AssignmentInfo,
    Campaign,
    Dispute,
    Page,
    Rating,
    ReviewedItem,
    ReviewProgress,
    ReviewResult,
    Role,
    SealCampaign,
    Skip,
)

_READERS = allowed(Role.RELEASE_MANAGER, Role.ADMIN, Role.AUDITOR)


class Reviews(Controller):
    """One blinded item at a time."""

    tags = ["review"]

    @get("/v1/review/next", opt=allowed(Role.REVIEWER))
    async def next(self, request: AnyRequest) -> Response[Any]:
        return await run(request, review.next_assignment)

    @post("/v1/review/checkout", opt=allowed(Role.REVIEWER), status_code=200)
    async def checkout(self, request: AnyRequest) -> Response[Any]:
        """All that is left to rate, for who works offline."""
        return await run(request, review.checkout, remember=False)

    @get("/v1/review/assignments", opt=allowed(Role.REVIEWER))
    async def assignments(self, request: AnyRequest) -> list[AssignmentInfo]:
        return await ask(request, review.assignments)

    @get("/v1/review/assignments/{assignment:str}", opt=allowed(Role.REVIEWER))
    async def assignment(self, request: AnyRequest, assignment: FromPath[str]) -> Assignment:
        return await ask(request, partial(review.assignment, assignment_id=assignment))

    @post("/v1/review/assignments/{assignment:str}/rating", opt=allowed(Role.REVIEWER))
    async def rate(self, request: AnyRequest, assignment: FromPath[str], data: JSONBody[Rating]) -> Response[Any]:
        def command(comment: str | None) -> Command:
            return partial(review.rate, assignment_id=assignment, rating=data, comment_sha256=comment)

        return await (_say(request, data.comment, command) if data.comment else run(request, command(None)))

    @post("/v1/review/assignments/{assignment:str}/skip", opt=allowed(Role.REVIEWER))
    async def skip(self, request: AnyRequest, assignment: FromPath[str], data: JSONBody[Skip]) -> Response[Any]:
        def command(reason: str) -> Command:
            return partial(review.skip, assignment_id=assignment, reason_sha256=reason)

        return await _say(request, data.reason, command)

    @get("/v1/review/progress", opt=allowed(Role.REVIEWER))
    async def progress(self, request: AnyRequest) -> ReviewProgress:
        return await ask(request, review.progress)

    @get("/v1/review/disputes", opt=allowed(Role.REVIEWER))
    async def disputes(self, request: AnyRequest) -> list[Dispute]:
        return await ask(request, disputes.disputes)

    @post("/v1/review/disputes/{dispute:str}", opt=allowed(Role.REVIEWER), status_code=200)
    async def adjudicate(
        self, request: AnyRequest, dispute: FromPath[str], data: JSONBody[Adjudicate]
    ) -> Response[Any]:
        def command(reason: str) -> Command:
            return partial(disputes.adjudicate, dispute_id=dispute, upheld=data.upheld, reason_sha256=reason)

        return await _say(request, data.reason, command)


async def _say(request: AnyRequest, text: str, command: Callable[[str], Command]) -> Response[Any]:
    return await run_with_words(request, principal_of(request), text, command, partial(run, request))


class Campaigns(Controller):
    """How far a review is, and once it is sealed, what it came to."""

    tags = ["review"]

    @post(paths("/versions/{number:int}/campaign"), opt=allowed(Role.RELEASE_MANAGER))
    async def open_campaign(self, request: AnyRequest, adapter: Adapter, number: Number) -> Response[Any]:
        return await run(request, partial(campaigns.open_campaign, adapter=adapter, number=number))

    @get(paths("/versions/{number:int}/campaign"), opt=allowed(Role.RELEASE_MANAGER, Role.ADMIN, Role.AUDITOR, Role.CI))
    async def campaign(self, request: AnyRequest, adapter: Adapter, number: Number) -> Campaign:
        return await ask(request, partial(campaigns.describe, adapter=adapter, number=number))

    @post(paths("/versions/{number:int}/campaign/seal"), opt=allowed(Role.RELEASE_MANAGER), status_code=200)
    async def seal(
        self, request: AnyRequest, adapter: Adapter, number: Number, data: JSONBody[SealCampaign]
    ) -> Response[Any]:
        """Ends the campaign with the ratings that there are."""
        return await run(request, partial(campaigns.seal, adapter=adapter, number=number, request=data))

    @get(paths("/versions/{number:int}/campaign/result"), opt=_READERS)
    async def result(self, request: AnyRequest, adapter: Adapter, number: Number) -> ReviewResult:
        return await ask(request, partial(results.result, adapter=adapter, number=number))

    @get(paths("/versions/{number:int}/campaign/items"), opt=_READERS)
    async def items(
        self, request: AnyRequest, adapter: Adapter, number: Number, limit: Limit = 100, cursor: Cursor = None
    ) -> Page[ReviewedItem]:
        """Every item of a sealed campaign, with all that was said of it."""

        def question(context: Context) -> Page[ReviewedItem]:
            after = read_number(cursor)
            found = results.reviewed_items(context, adapter, number, -1 if after is None else after, limit + 1)
            more = write_cursor(str(found[limit - 1][0])) if len(found) > limit else None
            return Page(items=[item for _, item in found[:limit]], next_cursor=more)

        return await ask(request, question)
