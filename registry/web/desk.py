"""The release manager's page: how far a campaign is, what it came to once it is sealed, and what is decided.

Before the seal it holds no score, whoever looks. Release managers, auditors and admins look; only release managers act.
"""

import secrets
from collections.abc import Iterable
from functools import partial
from typing import Any, NamedTuple

from litestar import Controller, Response, get, post
from litestar.response import Redirect

from registry.access import Principal
from registry.api.door import OPEN, AnyRequest
from registry.api.params import Adapter, Number
from registry.commands import approvals, campaigns, rejection, results
from registry.commands.context import Command, Context
from registry.commands.gate import assess
from registry.commands.moves import standing_proposal
from registry.commands.versions import find_version
from registry.errors import InvalidRequest
from registry.records import CRITERIA, ItemKind, ItemRating, Promote, Reject, ReviewedItem, Role, SealCampaign, State
from registry.registry import Repeat, request_digest
from registry.review.rubric import FLAGS, RUBRIC
from registry.storage.views import StoredVersion
from registry.web.charts import histogram, interval
from registry.web.forms import MOST_BYTES
from registry.web.rendering import ask, in_words, own_form, perform, render, signed_in

LOOKERS = (Role.RELEASE_MANAGER, Role.AUDITOR, Role.ADMIN)
_PATHS = ["/adapters/{name:str}/{number:int}/campaign", "/adapters/{name:str}/{second:str}/{number:int}/campaign"]
_SHOWN, _EVERY, _MOST_REASON = 30, 10_000, 4000


class Desk(Controller):
    """One campaign, for who is responsible for it."""

    include_in_schema = False

    @get(_PATHS, opt=OPEN)
    async def campaign(self, request: AnyRequest, adapter: Adapter, number: Number) -> Response[Any]:
        async def found() -> Response[str]:
            principal = await signed_in(request, *LOOKERS)
            values = await ask(request, principal, partial(_values, adapter=adapter, number=number))
            return render(request, "campaign.html", values)

        return await in_words(request, found)

    @post(_PATHS, opt=OPEN | {"raw": True}, status_code=303, request_max_body_size=MOST_BYTES)
    async def decide(self, request: AnyRequest, adapter: Adapter, number: Number) -> Response[Any]:
        """Seal, promote or reject, as the form says; each is the command that the API runs."""

        async def done() -> Response[Any]:
            form, principal = await own_form(request), await signed_in(request, Role.RELEASE_MANAGER)
            act, reason, once = (form.get(name, "").strip() for name in ("act", "reason", "once"))
            command = _command(act, reason, adapter, number)
            # Sent twice, it is done once; the token of the form is no part of what was asked for.
            digest = request_digest("POST", request.url.path, f"{act} {reason}".encode())
            await perform(request, principal, command, Repeat(f"desk-{once[:150]}", digest) if once else None)
            return Redirect(f"/adapters/{adapter}/{number}/campaign", status_code=303)

        return await in_words(request, done)


def _command(act: str, reason: str, adapter: str, number: int) -> Command:
    """What the form asks for, with its reason."""
    if act == "promote":
        promote = Promote(reason=_checked(reason) if reason else None)
        return partial(approvals.promote, adapter=adapter, number=number, request=promote, if_match=None)
    if act == "reject":
        return partial(rejection.reject, adapter=adapter, number=number, request=Reject(reason=_checked(reason)))
    if act == "seal":
        return partial(campaigns.seal, adapter=adapter, number=number, request=SealCampaign(reason=_checked(reason)))
    raise InvalidRequest(f"{act[:40]!r} is nothing that this page does; load it again")


def _checked(reason: str) -> str:
    if not 0 < len(reason) <= _MOST_REASON:
        raise InvalidRequest(f"give a reason of 1 to {_MOST_REASON} characters; go back and try again")
    return reason


def _values(context: Context, adapter: str, number: int) -> dict[str, Any]:
    """All that the template shows."""
    stored = find_version(context, adapter, number)
    described = campaigns.describe(context, adapter, number)
    report = assess(context.view, stored)
    sealed = described.sealed_at is not None
    items = results.reviewed_items(context, adapter, number, -1, _EVERY) if sealed else []
    apart = disagreements(item for _, item in items)
    return {
        "adapter": adapter,
        "ref": stored.ref,
        "state": stored.state,
        "check": next(check for check in report.checks if check.kind == "review"),
        "campaign": described,
        "result": results.result(context, adapter, number) if sealed else None,
        "rule": context.view.policy(report.policy).review,
        "disagreements": apart[:_SHOWN],
        "apart": len(apart),
        "waiting": standing_proposal(context, stored, "approved") is not None,
        "can": _possible(context.principal, stored, sealed),
        "titles": {criterion.name: criterion.title for criterion in RUBRIC},
        "flags_of": flags_of,
        "histogram": histogram,
        "interval": interval,
        "once": secrets.token_hex(16),
        "person": context.principal.person,
        "role": context.principal.role,
    }


def _possible(principal: Principal, stored: StoredVersion, sealed: bool) -> set[str]:
    """What this person can ask for here; the commands decide again."""
    if principal.role is not Role.RELEASE_MANAGER:
        return set()
    found = {"reject"} if stored.state in rejection.REFUSABLE else set()
    if stored.state is State.IN_REVIEW and not sealed:
        found.add("seal")
    if stored.state is State.APPROVABLE and principal.person != stored.submitter:
        found.add("promote")
    return found


class Disagreement(NamedTuple):
    """An item on which counted ratings part: by how much at most, on which criteria, and what was flagged."""

    item: ReviewedItem
    spread: int
    criteria: list[str]
    flags: list[str]


def disagreements(items: Iterable[ReviewedItem]) -> list[Disagreement]:
    """The outputs on which people differ, or that someone flagged, the widest apart first."""
    found = [_disagreement(item) for item in items if item.kind is ItemKind.CANDIDATE]
    apart = [one for one in found if one.spread or one.flags]
    return sorted(apart, key=lambda one: (-one.spread, -len(one.criteria), -len(one.flags), one.item.item))


def _disagreement(item: ReviewedItem) -> Disagreement:
    counted = [rating for rating in item.ratings if rating.counted]
    spreads = {name: _spread(counted, name) for name in CRITERIA}
    widest = max(spreads.values())
    criteria = [name for name, spread in spreads.items() if spread == widest > 0]
    flags = [flag.title for flag in FLAGS if any(getattr(rating, flag.name) for rating in counted)]
    return Disagreement(item, widest, criteria, flags)


def _spread(ratings: list[ItemRating], name: str) -> int:
    scores = [getattr(rating, name) for rating in ratings]
    return max(scores) - min(scores) if scores else 0


def flags_of(rating: ItemRating) -> list[str]:
    """What one person flagged, in words."""
    return [flag.title for flag in FLAGS if getattr(rating, flag.name)]
