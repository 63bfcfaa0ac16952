"""Who may come in and who may sign: the gate's and people's keys, tokens, and the CI systems that mint them."""

from collections.abc import Sequence

from registry.approval.keyring import DEFAULT_ROLES as GATE_ROLES
from registry.events import (
    AccessRefused,
    KeyAdded,
    KeyRevoked,
    KeyRotated,
    PublisherAdded,
    PublisherRemoved,
    RegistryCreated,
    TokenCreated,
    TokenMinted,
    TokenRevoked,
)
from registry.storage.fold.target import Target, as_json, fold


@fold.register
def _(event: RegistryCreated, to: Target) -> None:
    to.db.execute("UPDATE applied SET registry = ?", [event.registry])
    _add_key(to, event.key, event.public, GATE_ROLES, None)


@fold.register
def _(event: KeyRotated, to: Target) -> None:
    to.db.execute(
        "UPDATE signing_keys SET public = coalesce(public, ?), valid_until = ? WHERE id = ?",
        [event.previous_public, to.entry.at, event.previous],
    )
    _add_key(to, event.key, event.public, GATE_ROLES, None)


@fold.register
def _(event: KeyAdded, to: Target) -> None:
    _add_key(to, event.id, event.public, (event.role,), event.person)


@fold.register
def _(event: KeyRevoked, to: Target) -> None:
    to.db.execute(
        "UPDATE signing_keys SET revoked_at = ?, revoked_reason = ? WHERE id = ?", [to.entry.at, event.reason, event.id]
    )


@fold.register
def _(event: TokenCreated, to: Target) -> None:
    to.db.execute(
        "INSERT INTO tokens VALUES (?, ?, ?, ?, ?, ?, ?, NULL, ?)",
        [
            event.id,
            event.role,
            event.person,
            event.scope,
            event.secret_sha256,
            to.entry.at,
            event.expires_at,
            event.publisher,
        ],
    )


@fold.register
def _(event: TokenRevoked, to: Target) -> None:
    to.db.execute("UPDATE tokens SET revoked_at = ? WHERE id = ?", [to.entry.at, event.id])


@fold.register
def _(event: TokenMinted, to: Target) -> None:
    to.db.execute("INSERT INTO minted VALUES (?)", [event.jti])
    # They come by the thousand and live for minutes; the journal remembers them.
    to.db.execute("DELETE FROM tokens WHERE publisher IS NOT NULL AND expires_at < ?", [to.entry.at])


@fold.register
def _(event: PublisherAdded, to: Target) -> None:
    to.db.execute(
        "INSERT INTO publishers VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        [
            event.id,
            event.scope,
            event.issuer,
            event.audience,
            as_json(event.claims),
            as_json(event.keys) if event.keys is not None else None,
            event.jwks_url,
            to.entry.actor.person,
            to.entry.at,
        ],
    )


@fold.register
def _(event: PublisherRemoved, to: Target) -> None:
    to.db.execute("DELETE FROM publishers WHERE id = ?", [event.id])


@fold.register
def _(event: AccessRefused, to: Target) -> None:
    """For who reads the journal; nothing depends on it."""


def _add_key(to: Target, id_: str, public: str | None, roles: Sequence[str], person: str | None) -> None:
    to.db.execute(
        "INSERT INTO signing_keys VALUES (?, ?, ?, ?, ?, NULL, NULL, NULL, ?)",
        [id_, public, as_json(roles), person, to.entry.at, to.entry.seq],
    )
