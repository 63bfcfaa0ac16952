"""Who may do what: tokens, roles, scopes.

A token reads `tg_<role>_<id>_<secret>_<check>`: the prefix lets scanners find leaked ones, the checksum lets a mistyped
one be refused without a look at the database. The secret has 256 random bits, so a plain sha256 of it is kept.
"""

import hmac
import re
import secrets
import zlib
from collections.abc import Mapping
from datetime import datetime
from typing import NamedTuple

from registry.errors import Forbidden, NotFound, Unauthenticated
from registry.names import sha256_hex
from registry.records import Role, State
from registry.storage.views import StoredToken, View

_TOKEN = re.compile(r"tg_([a-z]{1,20})_([0-9a-f]{12})_([0-9a-f]{64})_([0-9a-f]{8})", re.ASCII)
_NO_HASH = "0" * 64
SERVICE = "tunegate"  # the name under which the service itself acts, and no person's
PUBLISHER_PREFIX = "ci:"  # begins the name under which a trusted publisher acts, and no person's


class Principal(NamedTuple):
    """Whoever acts: a person, in a role, through a token that may be limited to a namespace or one adapter."""

    token: str | None
    person: str
    role: Role
    scope: str | None = None

    def may_see(self, adapter: str) -> bool:
        return self.scope is None or adapter == self.scope or adapter.startswith(self.scope + "/")


def within(principal: Principal, scope: str | None) -> bool:
    """Whether a scope is no wider than the principal's own."""
    return principal.scope is None or (scope is not None and principal.may_see(scope))


def new_secret(role: Role) -> tuple[str, str]:
    """A new token id and the whole token text."""
    id_ = secrets.token_hex(6)
    body = f"tg_{role.value.replace('-', '')}_{id_}_{secrets.token_hex(32)}"
    return id_, f"{body}_{_checksum(body)}"


def token_id_of(text: str) -> str:
    """The id in a token's text, which is all of it that should leave this machine; any other text as it is."""
    match = _TOKEN.fullmatch(text.strip())
    return match[2] if match else text


def authenticate(view: View, text: str, now: datetime) -> Principal:
    """The principal of a token's text; Unauthenticated says what is wrong with it."""
    match = _TOKEN.fullmatch(text)
    if match is None or not hmac.compare_digest(_checksum(text[: match.start(4) - 1]), match[4]):
        raise Unauthenticated("this is not a tunegate token; copy the whole of it, it begins with tg_")
    stored = view.token(match[2])
    expected = stored.secret_sha256 if stored else _NO_HASH
    if not hmac.compare_digest(sha256_hex(text.encode()), expected) or stored is None:
        raise Unauthenticated("this token is not known here; ask an admin for one")
    check_token(stored, now)
    return Principal(stored.id, stored.person, stored.role, stored.scope)


def check_token(stored: StoredToken, now: datetime) -> None:
    """Raises Unauthenticated for a token that was revoked or has expired."""
    if stored.revoked_at is not None:
        raise Unauthenticated(
            f"token {stored.id} was revoked at {stored.revoked_at}; ask an admin for a new one",
            token=stored.id,
            reason="revoked",
        )
    if datetime.fromisoformat(stored.expires_at) <= now:
        raise Unauthenticated(
            f"token {stored.id} expired at {stored.expires_at}; ask an admin for a new one",
            token=stored.id,
            reason="expired",
        )


def require_role(principal: Principal, roles: frozenset[Role]) -> None:
    if principal.role not in roles:
        allowed = ", ".join(sorted(roles))
        raise Forbidden(f"role {principal.role} may not do this; it takes a token with role {allowed}")


def may_know_blob(view: View, principal: Principal, sha256: str) -> bool:
    """Whether the principal may learn that a blob is stored, and use it without sending its bytes.

    Within a scope that takes proof: a token of it has sent the bytes, or a sealed version that it sees holds them. A
    version that is still uploading proves nothing: it only announces hashes, which anyone may have read somewhere.
    """
    if principal.scope is None or view.was_sent(sha256, principal.scope):
        return True
    return any(
        holder.adapter is None or (principal.may_see(holder.adapter) and holder.state is not State.UPLOADING)
        for holder in view.holders(sha256)
    )


def require_sight(principal: Principal, adapter: str) -> None:
    """NotFound, as for an unknown name, for an adapter outside the token's scope."""
    if not principal.may_see(adapter):
        raise NotFound(f"adapter {adapter!r} does not exist or is not visible to this token")


def hidden_from(principal: Principal, state: State) -> bool:
    """Whether a version in this state does not exist for this role.

    A consumer sees approved versions only. A reviewer sees nothing of a version while it is being reviewed: ratings
    must not lean on the automatic scores.
    """
    if principal.role is Role.CONSUMER:
        return state is not State.APPROVED
    return principal.role is Role.REVIEWER and state is State.IN_REVIEW


def visible_states(principal: Principal) -> list[State]:
    """The states in which a version exists for this role."""
    return [state for state in State if not hidden_from(principal, state)]


def _checksum(text: str) -> str:
    return f"{zlib.crc32(text.encode()):08x}"


ALL_ROLES = frozenset(Role)
BLOB_READERS: Mapping[str, frozenset[Role]] = {
    # What a blob is to a version decides who may read it.
    "file": ALL_ROLES - {Role.REVIEWER},
    # Held-out data: whoever trains or submits must not see it.
    "suite": frozenset({Role.EVALUATOR, Role.ADMIN, Role.RELEASE_MANAGER, Role.AUDITOR}),
    "items": frozenset({Role.EVALUATOR, Role.ADMIN, Role.RELEASE_MANAGER, Role.AUDITOR}),
    "dataset": frozenset({Role.EVALUATOR, Role.TRAINER, Role.ADMIN, Role.AUDITOR}),
    "ledger": frozenset({Role.EVALUATOR, Role.TRAINER, Role.ADMIN, Role.AUDITOR}),
}
