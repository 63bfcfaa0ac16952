"""Tokens: made, listed, revoked. Their secrets never reach journal, catalog or log."""

import unicodedata
from datetime import timedelta

from registry.access import PUBLISHER_PREFIX, SERVICE, Principal, new_secret, within
from registry.commands.context import Context, Outcome
from registry.commands.part import reviews_spoiled_by
from registry.errors import Conflict, Forbidden, InvalidRequest, NotFound, Refusal
from registry.events import AccessRefused, TokenCreated, TokenRevoked
from registry.names import check_adapter_name, sha256_hex
from registry.records import CreateToken, Role, TokenInfo
from registry.records import TokenCreated as TokenAnswer
from registry.storage.views import StoredToken

_MOST_CI_DAYS = 90


def create(context: Context, request: CreateToken) -> Outcome:
    """A new token; its secret is in this answer and nowhere else, so a repeated call returns the token without it.

    Whoever is limited to a scope makes tokens inside it only. Nobody who rates in an open review is given one that
    would end their part in it.
    """
    if request.scope is not None:
        check_adapter_name(request.scope)
    if request.role is Role.CI and request.expires_days > _MOST_CI_DAYS:
        raise InvalidRequest(
            f"{request.expires_days} days are too long for a token that lies in a CI's settings; ask for at most "
            f"{_MOST_CI_DAYS}, or let the CI exchange its own tokens (`tunegate publisher add`)"
        )
    if not within(context.principal, request.scope):
        raise Forbidden(
            f"this token is limited to {context.principal.scope!r} and makes tokens for that scope only; "
            f"ask for scope {context.principal.scope!r} or an adapter in it"
        )
    person = one_spelling(context, request.person)
    if spoiled := reviews_spoiled_by(context, Principal(None, person, request.role, request.scope)):
        raise Conflict(
            f"a token of role {request.role} shows what is kept from reviewers, and {person!r} rates in open reviews: "
            f"{', '.join(spoiled)}; with it they could not go on there. Give it to somebody else, limit it to a scope "
            "without those adapters, or wait until those reviews are sealed"
        )
    id_, secret = new_secret(request.role)
    expires_at = (context.time + timedelta(days=request.expires_days)).isoformat(timespec="seconds")
    event = TokenCreated(
        id=id_,
        role=request.role,
        person=person,
        scope=request.scope,
        secret_sha256=sha256_hex(secret.encode()),
        expires_at=expires_at,
    )
    info = TokenInfo(
        id=id_,
        role=request.role,
        person=person,
        scope=request.scope,
        created_at=context.now,
        expires_at=expires_at,
    )
    return Outcome(TokenAnswer(token=info, secret=secret), [event], 201, remembered=TokenAnswer(token=info))


def listed(context: Context) -> list[TokenInfo]:
    """All tokens in an admin's scope; for anyone else those of the same person."""
    return [describe(token) for token in context.view.tokens() if _manages(context.principal, token)]


def revoke(context: Context, id_: str) -> Outcome:
    """End a token at once. Others' tokens do not exist for anyone but an admin."""
    token = context.view.token(id_)
    if token is None or not _manages(context.principal, token):
        raise NotFound(f"token {id_!r} does not exist or is not yours")
    if token.revoked_at:
        return Outcome(None, status=204)
    return Outcome(None, [TokenRevoked(id=id_)], 204)


def refused(context: Context, token: str, reason: Refusal) -> Outcome:
    """Remember that a token was refused; how often that is worth remembering is for the caller to say."""
    known = context.view.token(token) is not None
    return Outcome(None, [AccessRefused(token=token, reason=reason)] if known else [])


def one_spelling(context: Context, name: str) -> str:
    """The one spelling of a person's name: distinct people are told apart by it, in reviews and promotions."""
    person = " ".join(unicodedata.normalize("NFKC", name).split())
    if not person or not person.isprintable():
        raise InvalidRequest(f"person {name!r} is no name; give one that can be read")
    if person.startswith(PUBLISHER_PREFIX):
        raise InvalidRequest(
            f"names that begin with {PUBLISHER_PREFIX!r} are those of trusted publishers; choose another"
        )
    if person.casefold() == SERVICE.casefold():
        raise InvalidRequest(f"{SERVICE!r} is who the service itself acts as; choose another name")
    same = [token for token in context.view.tokens() if token.person.casefold() == person.casefold()]
    if not all(within(context.principal, token.scope) for token in same):
        # Else an admin of one team could act as a person of another. How that one is spelled is not theirs to know.
        raise Conflict(
            f"an admin limited to {context.principal.scope!r} cannot name {person!r}, who may be somebody elsewhere "
            "too; choose another name, such as one with the team's in it, or ask an admin without a scope"
        )
    if other := next((token.person for token in same if token.person != person), None):
        raise Conflict(f"person {person!r} is known here as {other!r}; use that spelling, or another name")
    return person


def _manages(principal: Principal, token: StoredToken) -> bool:
    own = principal.role is Role.ADMIN or token.person == principal.person
    return own and within(principal, token.scope)


def describe(token: StoredToken) -> TokenInfo:
    return TokenInfo(
        id=token.id,
        role=token.role,
        person=token.person,
        scope=token.scope,
        created_at=token.created_at,
        expires_at=token.expires_at,
        revoked_at=token.revoked_at,
    )
