"""Trusted publishers: which CI may exchange its own tokens for ours, and the exchange. See `registry.oidc`."""

import secrets
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from registry.access import PUBLISHER_PREFIX, Principal, new_secret, within
from registry.commands.context import Context, Outcome
from registry.commands.tokens import describe as describe_token
from registry.errors import AlreadyExists, Conflict, Forbidden, InvalidRequest, NotFound, Unauthenticated
from registry.events import PublisherAdded, PublisherRemoved, TokenCreated, TokenMinted, TokenRevoked
from registry.names import check_adapter_name, project_of, sha256_hex
from registry.oidc import (
    Shown,
    check_claims,
    check_keys,
    check_required,
    check_signature,
    differing,
    token_identity,
)
from registry.records import AddPublisher, Jwk, PublisherInfo, Role
from registry.records import TokenCreated as TokenAnswer
from registry.storage.views import StoredPublisher, StoredToken

MINTED_SECONDS = 900
MOST_PUBLISHERS = 50  # of one project: a mint looks at all that its token may be meant for
_MOST_SUBJECT = 500
# The same for everyone whose token no issuer is known to have signed: who is trusted for what is told to nobody else.
_REFUSED = (
    "no publisher accepts this token: either none is registered for its issuer, scope, audience, claims and times, or "
    "no key of the issuer signed it; an admin compares it with `tunegate publisher list`"
)


class Accepted(NamedTuple):
    """A CI token that one publisher accepts: who it is about, and what stands for it so that it is used once."""

    publisher: str
    scope: str
    issuer: str
    subject: str
    identity: str

    @property
    def principal(self) -> Principal:
        """Who mints: the CI itself."""
        return Principal(token=None, person=PUBLISHER_PREFIX + self.publisher, role=Role.CI, scope=self.scope)


def add(context: Context, request: AddPublisher) -> Outcome:
    """Trust a CI. Whoever is limited to a scope does so inside it only."""
    check_adapter_name(request.scope)
    if not within(context.principal, request.scope):
        raise Forbidden(f"this token is limited to {context.principal.scope!r} and adds publishers for that scope only")
    check_required(request.claims, request.issuer)
    if (request.keys is None) == (request.jwks_url is None):
        raise InvalidRequest("give either the issuer's keys or the address of its key set (jwks_url)")
    keys = check_keys(request.keys) if request.keys is not None else None
    trusted = (request.scope, request.issuer, request.audience, request.claims)
    project = project_of(request.scope)
    there = [one for one in context.view.publishers() if project_of(one.scope) == project]
    for one in there:
        if (one.scope, one.issuer, one.audience, one.claims) == trusted:
            raise AlreadyExists(f"publisher {one.id} is exactly that; remove it first to give it other keys")
    if len(there) >= MOST_PUBLISHERS:
        raise Conflict(
            f"{project!r} trusts {len(there)} publishers already, and {MOST_PUBLISHERS} are the most; remove one that "
            "is not needed any more (`tunegate publisher list`)"
        )
    event = PublisherAdded(
        id=secrets.token_hex(6),
        scope=request.scope,
        issuer=request.issuer,
        audience=request.audience,
        claims=request.claims,
        keys=keys,
        jwks_url=request.jwks_url,
    )
    stored = StoredPublisher(
        id=event.id,
        scope=event.scope,
        issuer=event.issuer,
        audience=event.audience,
        claims=event.claims,
        keys=event.keys,
        jwks_url=event.jwks_url,
        added_by=context.principal.person,
        created_at=context.now,
    )
    return Outcome(describe(stored), [event], 201)


def listed(context: Context) -> list[PublisherInfo]:
    """Those of the principal's scope."""
    return [describe(one) for one in context.view.publishers() if within(context.principal, one.scope)]


def remove(context: Context, id_: str) -> Outcome:
    """Trust a CI no longer, nor the tokens that it was given."""
    found = next((one for one in context.view.publishers() if one.id == id_), None)
    if found is None or not within(context.principal, found.scope):
        raise NotFound(f"publisher {id_!r} does not exist or is not visible to this token")
    live = [token.id for token in context.view.tokens_minted_by(id_) if token.revoked_at is None]
    return Outcome(None, [PublisherRemoved(id=id_), *(TokenRevoked(id=one) for one in live)], 204)


def meant(context: Context, issuer: str, scope: str | None) -> list[StoredPublisher]:
    """The publishers that a token of this issuer may be exchanged by: where a scope is named, none but that scope's."""
    return [one for one in context.view.publishers(issuer) if scope in (None, one.scope)]


def may_accept(publisher: StoredPublisher, shown: Shown, now: datetime) -> bool:
    """Whether a publisher would accept what a token says of itself, had the issuer signed it.

    Where it would not, nobody is asked for keys: strangers can make up tokens, and must not cause calls with them.
    """
    try:
        check_claims(shown.claims, issuer=publisher.issuer, audience=publisher.audience, now=now)
    except Unauthenticated:
        return False
    return not differing(shown.claims, publisher.claims)


def accept(shown: Shown, candidates: Sequence[tuple[StoredPublisher, Sequence[Jwk] | None]], now: datetime) -> Accepted:
    """The one publisher, of those that a token is meant for, that accepts it.

    Each comes with its keys, or None where nobody asked for them. Raises Unauthenticated where none accepts it, saying
    why to whom the issuer knows and to others one thing only, and Conflict where several do.
    """
    refusal = Unauthenticated(_REFUSED)
    accepted: list[Accepted] = []
    for publisher, keys in candidates:
        if keys is None:
            continue
        try:
            claims = check_signature(shown, keys)
        except Unauthenticated:
            continue
        try:
            check_claims(claims, issuer=publisher.issuer, audience=publisher.audience, now=now)
            _require(publisher, claims)
        except Unauthenticated as error:
            refusal = error
            continue
        identity = token_identity(publisher.issuer, claims["jti"])
        subject = str(claims.get("sub", ""))[:_MOST_SUBJECT]
        accepted.append(Accepted(publisher.id, publisher.scope, publisher.issuer, subject, identity))
    if len(accepted) > 1:
        raise Conflict("several publishers accept this token; say with `scope` which adapter or namespace is meant")
    if not accepted:
        raise refusal
    return accepted[0]


def mint(context: Context, accepted: Accepted) -> Outcome:
    """A token of a few minutes for the publisher's scope. Each CI token is exchanged once, ever."""
    if all(one.id != accepted.publisher for one in context.view.publishers(accepted.issuer)):
        raise Unauthenticated(f"publisher {accepted.publisher} was just removed")
    if context.view.was_minted(accepted.identity):
        raise Unauthenticated("this CI token was exchanged before; ask the CI for a new one")
    id_, secret = new_secret(Role.CI)
    person = accepted.principal.person
    created = TokenCreated(
        id=id_,
        role=Role.CI,
        person=person,
        scope=accepted.scope,
        secret_sha256=sha256_hex(secret.encode()),
        expires_at=(context.time + timedelta(seconds=MINTED_SECONDS)).isoformat(timespec="seconds"),
        publisher=accepted.publisher,
    )
    minted = TokenMinted(
        token=id_,
        publisher=accepted.publisher,
        issuer=accepted.issuer,
        subject=accepted.subject,
        jti=accepted.identity,
    )
    info = describe_token(
        StoredToken(
            id=id_,
            role=Role.CI,
            person=person,
            scope=accepted.scope,
            secret_sha256=created.secret_sha256,
            created_at=context.now,
            expires_at=created.expires_at,
            revoked_at=None,
            publisher=accepted.publisher,
        )
    )
    return Outcome(TokenAnswer(token=info, secret=secret), [created, minted], 201, remembered=TokenAnswer(token=info))


def describe(stored: StoredPublisher) -> PublisherInfo:
    return PublisherInfo(
        id=stored.id,
        scope=stored.scope,
        issuer=stored.issuer,
        audience=stored.audience,
        claims=stored.claims,
        jwks_url=stored.jwks_url,
        key_ids=[key.kid or "" for key in stored.keys or []],
        added_by=stored.added_by,
        created_at=stored.created_at,
    )


def _require(publisher: StoredPublisher, claims: Mapping[str, Any]) -> None:
    """Unauthenticated unless every claim that the publisher requires is exactly so."""
    if wrong := differing(claims, publisher.claims):
        said = ", ".join(f"{name}={str(claims.get(name))[:200]!r}" for name in wrong)
        raise Unauthenticated(f"no publisher of {publisher.issuer} accepts a token with {said}")
