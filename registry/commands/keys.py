"""Keys: which there are, a person's that is added, the gate's that is replaced, any that is believed no longer."""

import base64
import binascii

import msgspec

from registry.access import Principal
from registry.approval.attestation import Signer
from registry.approval.dsse import key_id
from registry.approval.keyring import GATE, checksum
from registry.commands.context import Context, Outcome
from registry.errors import AlreadyExists, Conflict, Forbidden, InvalidRequest, NotFound
from registry.events import KeyAdded, KeyRevoked, KeyRotated
from registry.records import AddKey, KeySet, PublicKey, Revoke, Role
from registry.storage.views import StoredKey, View

_KEY_BYTES = 32


def key_set(view: View, signer: Signer, reader: Principal | None = None) -> KeySet:
    """Every key whose bytes are known, retired and revoked ones too: what approvals are verified with.

    reader: who asks; a reader with a scope is not told the names of people who have nothing to do with that scope.
    """
    keys = [_described(key, signer) for key in view.signing_keys()]
    known = [key for key in keys if key is not None]
    if reader is not None and reader.scope is not None:
        met = {token.person for token in view.tokens() if _meet(reader.scope, token.scope)}
        known = [key if key.person in met else msgspec.structs.replace(key, person=None) for key in known]
    return KeySet(keys=known, checksum=checksum(msgspec.to_builtins(known)))


def _meet(one: str, other: str | None) -> bool:
    """Whether two scopes have an adapter in common; None is the scope of all."""
    return other is None or one == other or one.startswith(other + "/") or other.startswith(one + "/")


def current_key(view: View) -> StoredKey | None:
    """The key that the gate signs with, as the journal's last word on it says; None before the first entry."""
    return next((key for key in reversed(view.signing_keys()) if GATE in key.roles), None)


def add(context: Context, request: AddKey) -> Outcome:
    """Let a person's key sign in a role. The same key for the same person again changes nothing."""
    _require_no_scope(context)
    public = _raw(request.public)
    id_ = key_id(public)
    if existing := context.view.signing_key(id_):
        if (existing.person, existing.roles, existing.revoked_at) == (request.person, (request.role,), None):
            return Outcome(_described(existing, context.services.signer))
        raise AlreadyExists(f"key {id_[:12]}… is known here already, for another use or as revoked; make a new key")
    held = {token.person for token in context.view.tokens() if token.role is Role.RELEASE_MANAGER}
    if request.person not in held:
        raise InvalidRequest(
            f"nobody called {request.person!r} has a token with role release-manager; make one with "
            "`tunegate token create`, or spell the name as it is there"
        )
    event = KeyAdded(id=id_, public=request.public, role=request.role, person=request.person)
    added = PublicKey(
        id=id_,
        algorithm="ed25519",
        public=request.public,
        roles=(request.role,),
        person=request.person,
        valid_from=context.now,
    )
    return Outcome(added, [event], 201)


def revoke(context: Context, id_: str, request: Revoke) -> Outcome:
    """Believe nothing any more that a key signed. The gate's present key is replaced first: something must sign."""
    _require_no_scope(context)
    key = context.view.signing_key(id_)
    if key is None:
        raise NotFound(f"key {id_!r} does not exist here; `tunegate keys` lists all")
    if key.revoked_at is not None:
        return Outcome(_described(key, context.services.signer))
    if key.id == context.services.signer.public.id:
        raise Conflict(
            "this key signs now; stop the service, replace the key with `tunegate keys rotate`, start it, then revoke"
        )
    revoked = _described(key._replace(revoked_at=context.now, revoked_reason=request.reason), context.services.signer)
    return Outcome(revoked, [KeyRevoked(id=id_, reason=request.reason)])


def _require_no_scope(context: Context) -> None:
    if context.principal.scope is not None:
        raise Forbidden(
            f"keys sign for every adapter, not only for {context.principal.scope!r}; ask an admin without a scope"
        )


def rotate(context: Context, fresh: PublicKey, previous_public: str | None) -> Outcome:
    """Sign with a new key from now on. previous_public: the bytes of the one before, where the journal lacks them."""
    current = current_key(context.view)
    if current is None:
        raise Conflict("this registry has no key to replace: it never started; run `tunegate serve` once")
    event = KeyRotated(
        key=fresh.id, public=fresh.public, previous=current.id, previous_public=current.public or previous_public
    )
    return Outcome(fresh, [event])


def signing_time(context: Context) -> str:
    """When what is signed now is signed: never before the key was valid, should the clock have gone back since."""
    current = current_key(context.view)
    return max(context.now, current.valid_from) if current else context.now


def _described(key: StoredKey, signer: Signer) -> PublicKey | None:
    """None for a key whose bytes nobody kept."""
    public = signer.public.public if key.id == signer.public.id else key.public
    if public is None:
        return None
    return PublicKey(
        id=key.id,
        algorithm="ed25519",
        public=public,
        roles=key.roles,
        person=key.person,
        valid_from=key.valid_from,
        valid_until=key.valid_until,
        revoked_at=key.revoked_at,
        revoked_reason=key.revoked_reason,
    )


def _raw(public: str) -> bytes:
    try:
        raw = base64.b64decode(public, validate=True)
    except (binascii.Error, ValueError):
        raw = b""
    if len(raw) != _KEY_BYTES or base64.b64encode(raw).decode() != public:
        raise InvalidRequest("the public key is not the base64 of 32 bytes; give an ed25519 key")
    return raw
