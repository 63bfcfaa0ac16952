"""DSSE v1 envelopes (https://github.com/secure-systems-lab/dsse): what is signed is a type and bytes, together.

Standard library and `cryptography` only, so that whoever verifies needs nothing else. Reading is exact: there is one
text for an envelope's content, so that no byte of it can be changed and still be taken.
"""

import base64
import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey


class Sealed(NamedTuple):
    """An envelope as it was read: nothing in it is to be believed before `signers` says whose it is."""

    kind: str
    payload: bytes
    signatures: dict[str, bytes]


def pre_authentication(kind: str, payload: bytes) -> bytes:
    """The bytes that are signed: type and payload with their lengths, never the payload alone.

    >>> pre_authentication("text/plain", b"hello")
    b'DSSEv1 10 text/plain 5 hello'
    """
    name = kind.encode()
    return b"DSSEv1 %d %s %d %s" % (len(name), name, len(payload), payload)


def read_envelope(data: bytes) -> Sealed:
    """The envelope in a JSON document. Raises ValueError for anything that is not exactly one."""
    document = exactly(read_json(data), {"payload": str, "payloadType": str, "signatures": list})
    signatures: dict[str, bytes] = {}
    for one in document["signatures"]:
        signature = exactly(one, {"keyid": str, "sig": str})
        if signature["keyid"] in signatures:
            raise ValueError(f"key {signature['keyid'][:12]} signed twice")
        signatures[signature["keyid"]] = decode64(signature["sig"])
    return Sealed(document["payloadType"], decode64(document["payload"]), signatures)


def signers(sealed: Sealed, public: Mapping[str, bytes]) -> set[str]:
    """Which of these keys, by id, signed the envelope's type and payload."""
    message = pre_authentication(sealed.kind, sealed.payload)
    return {
        keyid
        for keyid, signature in sealed.signatures.items()
        if keyid in public and is_signed(public[keyid], signature, message)
    }


def is_signed(public: bytes, signature: bytes, message: bytes) -> bool:
    """Whether it is the ed25519 signature of the message by the key with these 32 raw bytes."""
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True


def key_id(public: bytes) -> str:
    """A key's id: the sha256 of its 32 raw bytes."""
    return hashlib.sha256(public).hexdigest()


# -- exact reading ------------------------------------------------------------------------------------------------


def read_json(data: bytes) -> Any:
    """A JSON value with no key twice in any object. Raises ValueError for what is not JSON, or nested without end."""
    try:
        return json.loads(data.decode(), object_pairs_hook=_unique, parse_constant=_no_constant)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def exactly(value: Any, fields: Mapping[str, Any], optional: Iterable[str] = ()) -> dict[str, Any]:
    """The value, if it is an object with these fields, each of its type, and no other. Raises ValueError."""
    if not isinstance(value, dict):
        raise ValueError("an object is expected")
    if unknown := value.keys() - fields.keys():
        raise ValueError(f"it has the unknown field {sorted(unknown)[0]!r}")
    if missing := fields.keys() - value.keys() - set(optional):
        raise ValueError(f"it lacks the field {sorted(missing)[0]!r}")
    if wrong := [name for name in value if not isinstance(value[name], fields[name])]:
        raise ValueError(f"its field {wrong[0]!r} has the wrong type")
    return value


def decode64(text: str) -> bytes:
    """Base64 in its one canonical form: Python ignores the spare bits of the last letter, so two texts could be one."""
    data = base64.b64decode(text, validate=True)
    if base64.b64encode(data).decode() != text:
        raise ValueError("it holds base64 that is not in its canonical form")
    return data


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("an object has one key twice")
    return found


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is no JSON")
