"""The reviewer's pages: one blinded item a screen, and second opinions on what was found unsafe.

Forms in, pages out: what may be rated, what is shown and what counts is decided by the same commands that the API
calls. Every form carries a key of its own (`once`), so that a save whose answer was lost counts once when it is sent
again. static/review.js adds keys and drafts to the same forms.
"""

import secrets
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any, TypeVar

import msgspec
from litestar import Controller, Response, get, post
from litestar.params import FromPath
from litestar.response import Redirect

from registry.access import Principal
from registry.api.door import OPEN, AnyRequest
from registry.api.problems import TABLE
from registry.api.words import run_with_words
from registry.commands import disputes, review
from registry.commands.context import Command, Context, Outcome
from registry.errors import Conflict, InvalidRequest
from registry.records import CRITERIA, Adjudicate, Assignment, Channel, Rating, ReviewProgress, Role, Skip
from registry.registry import Repeat, request_digest
from registry.review.rubric import FLAGS, RUBRIC
from registry.web.forms import MOST_BYTES
from registry.web.rendering import HERE, ask, in_words, own_form, perform, render, signed_in

T = TypeVar("T")
_FORM: dict[str, Any] = {"opt": OPEN | {"raw": True}, "status_code": 303, "request_max_body_size": MOST_BYTES}


class ReviewPages(Controller):
    """A review in a browser."""

    include_in_schema = False

    @get("/review", opt=OPEN)
    async def next(self, request: AnyRequest) -> Response[Any]:
        async def shown() -> Response[Any]:
            principal = await signed_in(request, Role.REVIEWER)
            item = await perform(request, principal, review.next_assignment)
            return await (_end(request, principal) if item is None else _item(request, principal, item))

        return await in_words(request, shown)

    @get("/review/done", opt=OPEN)
    async def done(self, request: AnyRequest) -> Response[Any]:
        """Where the last save leads, which may have closed the review, so that nothing tells any more of it."""

        async def shown() -> Response[Any]:
            principal = await signed_in(request, Role.REVIEWER)
            if await perform(request, principal, review.next_assignment) is not None:
                return Redirect("/review", status_code=303)
            return await _end(request, principal, done=True)

        return await in_words(request, shown)

    @get("/review/{assignment:str}", opt=OPEN)
    async def item(self, request: AnyRequest, assignment: FromPath[str]) -> Response[Any]:
        async def shown() -> Response[Any]:
            principal = await signed_in(request, Role.REVIEWER)
            item = await ask(request, principal, partial(review.assignment, assignment_id=assignment))
            return await _item(request, principal, item)

        return await in_words(request, shown)

    @post("/review/{assignment:str}", **_FORM)
    async def save(self, request: AnyRequest, assignment: FromPath[str]) -> Response[Any]:
        async def saved() -> Response[Any]:
            form, principal = await own_form(request), await signed_in(request, Role.REVIEWER)
            try:
                rating = _rating(form)

                def command(comment: str | None) -> Command:
                    return partial(_rate, form=form, id_=assignment, rating=rating, comment=comment)

                repeat = _repeat(request, form, rating)
                if rating.comment:
                    answer = await _say(request, principal, rating.comment, command, repeat)
                else:
                    answer = await perform(request, principal, command(None), repeat)
            except (Conflict, InvalidRequest) as error:
                return await _again(request, principal, assignment, form, error)
            return Redirect(_next_page(answer), status_code=303)

        return await in_words(request, saved)

    @post("/review/{assignment:str}/skip", **_FORM)
    async def skip(self, request: AnyRequest, assignment: FromPath[str]) -> Response[Any]:
        async def skipped() -> Response[Any]:
            form, principal = await own_form(request), await signed_in(request, Role.REVIEWER)
            try:
                skip = _fitting({"reason": form.get("reason", "").strip()}, Skip, "say why you skip it")

                def command(reason: str) -> Command:
                    return partial(review.skip, assignment_id=assignment, reason_sha256=reason)

                answer = await _say(request, principal, skip.reason, command, _repeat(request, form, skip))
            except (Conflict, InvalidRequest) as error:
                return await _again(request, principal, assignment, {}, error)
            return Redirect(_next_page(answer), status_code=303)

        return await in_words(request, skipped)

    @get("/review/disputes", opt=OPEN)
    async def disputes(self, request: AnyRequest) -> Response[Any]:
        async def shown() -> Response[Any]:
            return await _disputes(request, await signed_in(request, Role.REVIEWER))

        return await in_words(request, shown)

    @post("/review/disputes/{dispute:str}", **_FORM)
    async def adjudicate(self, request: AnyRequest, dispute: FromPath[str]) -> Response[Any]:
        async def said() -> Response[Any]:
            form, principal = await own_form(request), await signed_in(request, Role.REVIEWER)
            try:
                fields = {"upheld": form.get("upheld"), "reason": _lines(form.get("reason", ""))}
                opinion = _fitting(fields, Adjudicate, "say whether it is unsafe, and why")

                def command(reason: str) -> Command:
                    return partial(disputes.adjudicate, dispute_id=dispute, upheld=opinion.upheld, reason_sha256=reason)

                await _say(request, principal, opinion.reason, command, _repeat(request, form, opinion))
            except (Conflict, InvalidRequest) as error:
                return await _disputes(request, principal, error)
            return Redirect("/review/disputes", status_code=303)

        return await in_words(request, said)

    @get("/static/review.js", opt=OPEN)
    async def script(self) -> Response[bytes]:
        return Response((HERE / "static" / "review.js").read_bytes(), media_type="text/javascript")


async def _say(
    request: AnyRequest, principal: Principal, text: str, command: Callable[[str], Command], repeat: Repeat | None
) -> Any:
    """Perform a command that names what a person wrote."""

    def execute(one: Command) -> Awaitable[Any]:
        return perform(request, principal, one, repeat)

    return await run_with_words(request, principal, text, command, execute)


def _rate(context: Context, *, form: Mapping[str, str], id_: str, rating: Rating, comment: str | None) -> Outcome:
    """As the API's command, but an item that another tab has saved since it was shown is not replaced unawares."""
    if form.get("state") == "open" and review.assignment(context, id_).state == "rated":
        raise Conflict("You saved this item in another tab. This is what you said there; save again to change it.")
    return review.rate(context, id_, rating, comment, channel=Channel.WEB)


# -- forms ------------------------------------------------------------------------------------------------------------


def _rating(form: Mapping[str, str]) -> Rating:
    missing = [criterion.title for criterion in RUBRIC if not form.get(criterion.name)]
    if missing:
        raise InvalidRequest(f"Not saved: {', '.join(missing)} {'has' if len(missing) == 1 else 'have'} no score yet.")
    fields: dict[str, Any] = {name: form.get(name) for name in CRITERIA}
    fields |= {flag.name: form.get(flag.name) == "true" for flag in FLAGS}
    fields |= {"comment": _lines(form.get("comment", "")) or None, "hash": form.get("hash")}
    return _fitting(fields, Rating, "Not saved: a score is a whole number from 1 to 5")


def _fitting(fields: dict[str, Any], type_: type[T], remedy: str) -> T:
    try:
        return msgspec.convert(fields, type_, strict=False)
    except msgspec.ValidationError as error:
        raise InvalidRequest(f"{remedy} ({error})") from None


def _next_page(answer: ReviewProgress | msgspec.Raw) -> str:
    """Where a save leads. answer: the command's; as it is kept for an Idempotency-Key, where it came before."""
    progress = msgspec.json.decode(answer, type=ReviewProgress) if isinstance(answer, msgspec.Raw) else answer
    return "/review/done" if progress.rated + progress.skipped >= progress.total else "/review"


def _lines(text: str) -> str:
    """Forms send line ends as CR LF."""
    return text.replace("\r\n", "\n").strip()


def _repeat(request: AnyRequest, form: Mapping[str, str], content: Any) -> Repeat | None:
    """What makes a form that is sent twice count once. The token of the form, which a new session changes, is no part.

    A form without a key is no form that a page of ours showed, yet harmless.
    """
    if not (key := form.get("once")):
        return None
    return Repeat(f"web-{key}", request_digest("POST", request.url.path, msgspec.json.encode(content)))


# -- pages ------------------------------------------------------------------------------------------------------------


async def _item(
    request: AnyRequest,
    principal: Principal,
    item: Assignment,
    *,
    given: Mapping[str, Any] | None = None,
    notice: str | None = None,
    status: int = 200,
) -> Response[str]:
    """One item with its neighbours among the reviewer's own. given: what stands in the form, default what was saved."""
    own = await ask(request, principal, review.assignments)
    here = next((index for index, one in enumerate(own) if one.id == item.id), len(own))
    rated = [one.id for one in own[:here] if one.state == "rated"]
    later = "/review" if item.state != "open" else None
    values = {
        "item": item,
        "given": given or _given(item.rating),
        "before": own[here - 1].id if here else None,
        "after": f"/review/{own[here + 1].id}" if here + 1 < len(own) else later,
        "undo": rated[-1] if rated else None,
        "rubric": RUBRIC,
        "flags": FLAGS,
    }
    return _screen(request, principal, "review_item.html", values, notice=notice, status=status)


async def _again(
    request: AnyRequest,
    principal: Principal,
    assignment: str,
    form: Mapping[str, str],
    error: Conflict | InvalidRequest,
) -> Response[str]:
    """The item once more, with what is wrong: as it was sent, or as it is saved where the state refused it."""
    item = await ask(request, principal, partial(review.assignment, assignment_id=assignment))
    given = None if isinstance(error, Conflict) or not form else _sent(form)
    return await _item(request, principal, item, given=given, notice=str(error), status=TABLE[type(error)][0])


async def _end(request: AnyRequest, principal: Principal, *, done: bool = False) -> Response[str]:
    """Nothing is left to rate. done: the reviewer has just said the last of it, though nothing may tell of it now."""
    progress = await ask(request, principal, review.progress)
    own = await ask(request, principal, review.assignments)
    values = {"progress": progress, "own": own, "done": done or progress.total > 0}
    return _screen(request, principal, "review_done.html", values)


async def _disputes(
    request: AnyRequest, principal: Principal, error: Conflict | InvalidRequest | None = None
) -> Response[str]:
    found = await ask(request, principal, disputes.disputes)
    values = {"disputes": found, "here": "disputes"}
    status = TABLE[type(error)][0] if error else 200
    return _screen(
        request, principal, "review_disputes.html", values, notice=str(error) if error else None, status=status
    )


def _screen(
    request: AnyRequest,
    principal: Principal,
    template: str,
    values: dict[str, Any],
    *,
    notice: str | None = None,
    status: int = 200,
) -> Response[str]:
    about = {"person": principal.person, "role": principal.role, "here": "rate", "notice": notice}
    once = secrets.token_hex(16)
    return render(request, template, {**about, "once": once, **values}, status, scripted=True)


def _given(rating: Rating | None) -> dict[str, Any]:
    return {name: getattr(rating, name, None) for name in (*CRITERIA, *(flag.name for flag in FLAGS), "comment")}


def _sent(form: Mapping[str, str]) -> dict[str, Any]:
    scores = {name: int(form[name]) if form.get(name, "") in set("12345") else None for name in CRITERIA}
    return {**scores, **{flag.name: form.get(flag.name) for flag in FLAGS}, "comment": form.get("comment")}
