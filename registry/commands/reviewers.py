"""Who may review in which domain: vouched for by an admin, withdrawn by one, never changed.

A record holds in a scope. An admin who is limited to one vouches and withdraws inside it only: no other project's
campaign counts a person more, or less, for what was said there.
"""

import secrets
from datetime import UTC, date, datetime, time

from registry.access import within
from registry.commands.context import Context, Outcome
from registry.commands.tokens import one_spelling
from registry.errors import AlreadyExists, Forbidden, InvalidRequest, NotFound
from registry.events import ReviewerVouched, ReviewerWithdrawn
from registry.names import check_adapter_name
from registry.records import AddReviewer, ReviewerInfo

_LAST_MOMENT = time(23, 59, 59, 999999)


def vouch(context: Context, request: AddReviewer) -> Outcome:
    """Say that a person may review in a domain. It counts in campaigns that open later, and not by one's own word."""
    if request.scope is not None:
        check_adapter_name(request.scope)
    if not within(context.principal, request.scope):
        raise Forbidden(
            f"this token is limited to {context.principal.scope!r} and vouches for reviewers there only; "
            f"give scope {context.principal.scope!r} or an adapter in it"
        )
    person = one_spelling(context, request.person)
    if person == context.principal.person:
        raise Forbidden(f"{person!r} cannot vouch for {person!r}; another admin can")
    event = ReviewerVouched(
        id=secrets.token_hex(6),
        person=person,
        domain=request.domain,
        credential=request.credential,
        issuer=request.issuer,
        scope=request.scope,
        **_validity(request, context.time),
    )
    info = ReviewerInfo(
        id=event.id,
        person=person,
        domain=event.domain,
        credential=event.credential,
        issuer=event.issuer,
        valid_from=event.valid_from,
        valid_until=event.valid_until,
        vouched_by=context.principal.person,
        vouched_at=context.now,
        scope=event.scope,
    )
    if known := next((one for one in context.view.reviewers() if _says_the_same(one, info)), None):
        raise AlreadyExists(f"record {known.id} says exactly that already")
    return Outcome(info, [event], 201)


def listed(context: Context) -> list[ReviewerInfo]:
    """Those of the principal's scope, the withdrawn and expired ones too: past campaigns were counted by them."""
    return [one for one in context.view.reviewers() if within(context.principal, one.scope)]


def withdraw(context: Context, id_: str) -> Outcome:
    """From now on the record counts no rating any more. What a sealed campaign has counted stays counted."""
    found = next((one for one in listed(context) if one.id == id_), None)
    if found is None:
        raise NotFound(f"reviewer record {id_!r} does not exist or is not visible to this token")
    if found.withdrawn_at is not None:
        return Outcome(None, status=204)
    return Outcome(None, [ReviewerWithdrawn(id=id_)], 204)


def _validity(request: AddReviewer, now: datetime) -> dict[str, str]:
    """Both ends as the journal writes moments, so that they can be compared as text; every fault at once."""
    problems: list[str] = []
    ends: dict[str, datetime] = {}
    for name, text, at in (
        ("valid_from", request.valid_from, time.min),
        ("valid_until", request.valid_until, _LAST_MOMENT),
    ):
        try:
            ends[name] = _moment(text, at)
        except (ValueError, OverflowError):
            problems.append(f"{name} {text!r} is no date; write 2026-01-31, or 2026-01-31T12:00:00Z")
    if not problems and ends["valid_until"] <= ends["valid_from"]:
        problems.append(f"valid_until {request.valid_until} is not after valid_from {request.valid_from}")
    elif not problems and ends["valid_until"] <= now:
        problems.append(f"valid_until {request.valid_until} is over; give a date to come")
    if problems:
        raise InvalidRequest("; ".join(problems), problems)
    return {name: end.isoformat(timespec="microseconds").replace("+00:00", "Z") for name, end in ends.items()}


def _moment(text: str, at: time) -> datetime:
    """A moment in UTC. at: the time of day that a date alone stands for."""
    if len(text) == len("2026-01-31"):
        return datetime.combine(date.fromisoformat(text), at, UTC)
    found = datetime.fromisoformat(text)
    if found.tzinfo is None:
        raise ValueError("no time zone")
    return found.astimezone(UTC)


def _says_the_same(one: ReviewerInfo, other: ReviewerInfo) -> bool:
    said = ("person", "domain", "credential", "issuer", "valid_from", "valid_until", "scope", "vouched_by")
    return one.withdrawn_at is None and all(getattr(one, name) == getattr(other, name) for name in said)
