"""The keys that are believed: what each may sign, from when until when, and whether it was revoked.

A key file is `{"keys": […], "checksum"?}` as `tunegate keys --to FILE` writes it, or a DSSE envelope around one, signed
by an offline root key. Standard library and `cryptography` only.
"""

import hashlib
import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from registry.approval.dsse import decode64, exactly, key_id, read_envelope, read_json, signers

KEYS_TYPE = "application/vnd.tunegate.keys+json"
GATE, RELEASE_MANAGER, CHECKPOINT = "gate", "release-manager", "checkpoint"
# What a key without `roles` may do: key files were written so before there were any.
DEFAULT_ROLES = (GATE, CHECKPOINT)

_TEXT = (str, type(None))
_FIELDS = {
    "id": str,
    "algorithm": str,
    "public": str,
    "roles": list,
    "person": _TEXT,
    "valid_from": _TEXT,
    "valid_until": _TEXT,
    "revoked_at": _TEXT,
    "revoked_reason": _TEXT,
}
_OPTIONAL = set(_FIELDS) - {"id", "algorithm", "public"}


class Key(NamedTuple):
    """One public key, 32 raw bytes. Times are points in time; None is "without bound" or "never"."""

    id: str
    public: bytes
    roles: tuple[str, ...]
    person: str | None = None
    valid_from: datetime | None = None
    valid_until: datetime | None = None
    revoked_at: datetime | None = None

    def objection(self, role: str, at: datetime) -> str | None:
        """Why it may not sign in this role at that time, or None.

        A revoked key is believed for no time at all: whoever stole it writes any date.
        """
        if self.revoked_at is not None:
            return f"was revoked at {self.revoked_at:%Y-%m-%d %H:%M} UTC"
        if role not in self.roles:
            return f"has no role {role}, only {', '.join(self.roles) or 'none'}"
        if self.valid_from is not None and at < self.valid_from:
            return f"was not yet valid at {at:%Y-%m-%d %H:%M} UTC, when it is said to have signed"
        if self.valid_until is not None and at > self.valid_until:
            return f"was no longer valid at {at:%Y-%m-%d %H:%M} UTC, when it is said to have signed"
        return None


def read_keys(data: bytes, root: bytes | None = None) -> list[Key]:
    """The keys of a key file; with `root`, a raw public key, only of a file that this key signed.

    Keys of an algorithm other than ed25519 are left out. Raises ValueError with reason and remedy.
    """
    document = read_json(data)
    enveloped = isinstance(document, dict) and "payloadType" in document
    if enveloped and root is None:
        raise ValueError("it is signed by a root key; give that key with --root-key")
    if not enveloped and root is not None:
        raise ValueError("no root key signed it; get the signed key file, or sign it with `tunegate keys sign`")
    if root is not None:
        sealed = read_envelope(data)
        if sealed.kind != KEYS_TYPE or not signers(sealed, {key_id(root): root}):
            raise ValueError("the root key did not sign it as a key file; get it again")
        document = read_json(sealed.payload)
    document = exactly(document, {"keys": list, "checksum": _TEXT}, optional={"checksum"})
    if document.get("checksum") not in (None, checksum(document["keys"])):
        raise ValueError("it was changed: its checksum is another; get it again")
    found = [_key(one) for one in document["keys"] if not isinstance(one, dict) or one.get("algorithm") == "ed25519"]
    if len({key.id for key in found}) != len(found):
        raise ValueError("it lists one key twice")
    return found


def checksum(keys: Any) -> str:
    """Of the list of keys, as plain data: finds what was changed by accident. It is no signature."""
    text = json.dumps(keys, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()


def by_role(keys: Sequence[Key], signed: set[str], role: str, at: datetime) -> tuple[set[str], list[str]]:
    """Of the keys that signed, those that may in this role at that time; and of each other one why not."""
    objections = {key.id: key.objection(role, at) for key in keys if key.id in signed}
    return (
        {id_ for id_, objection in objections.items() if objection is None},
        [f"key {id_[:12]}… {objection}" for id_, objection in objections.items() if objection is not None],
    )


def read_public_pem(pem: bytes) -> bytes:
    """The 32 raw bytes of an ed25519 public key in PEM. Raises ValueError for any other."""
    public = serialization.load_pem_public_key(pem)
    if not isinstance(public, Ed25519PublicKey):
        raise ValueError("it is no ed25519 public key")
    return public.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)


def moment(text: str) -> datetime:
    """An RFC 3339 time with its offset. Raises ValueError for anything else."""
    found = datetime.fromisoformat(text)
    if found.tzinfo is None:
        raise ValueError(f"the time {text!r} has no offset")
    return found


def _key(value: Any) -> Key:
    fields = exactly(value, _FIELDS, _OPTIONAL)
    public = decode64(fields["public"])
    if fields["id"] != key_id(public):
        raise ValueError(f"key {fields['id'][:12]!r} does not have the id of its own bytes")
    roles = fields.get("roles", list(DEFAULT_ROLES))
    if not all(isinstance(role, str) for role in roles):
        raise ValueError(f"the roles of key {fields['id'][:12]} are no words")
    times = {name: fields.get(name) for name in ("valid_from", "valid_until", "revoked_at")}
    return Key(
        fields["id"],
        public,
        tuple(roles),
        fields.get("person"),
        **{name: moment(text) if text is not None else None for name, text in times.items()},
    )
