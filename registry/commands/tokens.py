"""Tokens: made, listed, revoked. Their secrets never reach journal, catalog or log."""

from datetime import timedelta

from registry.access import Principal, new_secret
from registry.commands.context import Context, Outcome
from registry.errors import Forbidden, NotFound
from registry.events import TokenCreated, TokenRevoked
from registry.names import check_adapter_name, sha256_hex
from registry.records import CreateToken, Role, TokenInfo
from registry.records import TokenCreated as TokenAnswer
from registry.storage.views import StoredToken


def create(context: Context, request: CreateToken) -> Outcome:
    """A new token; its secret is in this answer and nowhere else, so a repeated call returns the token without it.

    Whoever is limited to a scope makes tokens inside it only.
    """
    if request.scope is not None:
        check_adapter_name(request.scope)
    if not _within(context.principal, request.scope):
        raise Forbidden(
            f"this token is limited to {context.principal.scope!r} and makes tokens for that scope only; "
            f"ask for scope {context.principal.scope!r} or an adapter in it"
        )
    id_, secret = new_secret(request.role)
    expires_at = (context.time + timedelta(days=request.expires_days)).isoformat(timespec="seconds")
    event = TokenCreated(
        id=id_,
        role=request.role,
        person=request.person,
        scope=request.scope,
        secret_sha256=sha256_hex(secret.encode()),
        expires_at=expires_at,
    )
    info = TokenInfo(
        id=id_,
        role=request.role,
        person=request.person,
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


def _manages(principal: Principal, token: StoredToken) -> bool:
    if principal.role is Role.ADMIN:
        return _within(principal, token.scope)
    return token.person == principal.person


def _within(principal: Principal, scope: str | None) -> bool:
    """Whether a scope is no wider than the principal's own."""
    return principal.scope is None or (scope is not None and principal.may_see(scope))


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
