"""Signed checkpoints of the journal: how many entries there are and the root of the tree over them. Pure.

A checkpoint is three lines of text, and a note is a text with signatures under it:

    tunegate.dev/registry/1f0c…        origin: which journal
    42                                 size: how many entries
    CsUYapGGPo4dkMgIAUqom/Xajj7h2f…    root hash, base64

    — tunegate.dev/registry/1f0c… Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp…

Formats: https://c2sp.org/tlog-checkpoint and https://c2sp.org/signed-note, signature type 0x01 (ed25519). Whoever keeps
a note can show later that a journal was rewritten, with nothing but the note and the registry's public keys.
"""

import base64
import binascii
import hashlib
import re
from collections.abc import Callable, Iterator
from typing import NamedTuple

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from registry.audit.merkle import HASH_BYTES

_ED25519 = b"\x01"
_KEY_ID_BYTES = 4
_MOST_CHARACTERS, _MOST_SIGNATURES = 100_000, 100
_DASH = "\N{EM DASH} "
_NAME = re.compile(r"[^\s+]+")
_SIZE = re.compile(r"0|[1-9][0-9]{0,18}", re.ASCII)


class Checkpoint(NamedTuple):
    """The state of one journal: `root` (32 bytes) is over its first `size` entries."""

    origin: str
    size: int
    root: bytes


def origin_of(registry: str) -> str:
    """What the journal of this registry is called in its checkpoints."""
    return f"tunegate.dev/registry/{registry}"


def sign_checkpoint(checkpoint: Checkpoint, public: bytes, sign: Callable[[bytes], bytes]) -> str:
    """The checkpoint as a note under the journal's own name; `sign` gives the ed25519 signature of what it is given."""
    root = base64.b64encode(checkpoint.root).decode()
    return sign_note(f"{checkpoint.origin}\n{checkpoint.size}\n{root}\n", checkpoint.origin, public, sign)


def sign_note(text: str, name: str, public: bytes, sign: Callable[[bytes], bytes]) -> str:
    """The text, which ends with a line end, with one signature under it."""
    assert text.endswith("\n") and _NAME.fullmatch(name)
    signature = base64.b64encode(key_id(name, public) + sign(text.encode())).decode()
    return f"{text}\n{_DASH}{name} {signature}\n"


def open_checkpoint(note: str, trusted: list[bytes]) -> Checkpoint:
    """What the note says, if one of the trusted public keys (32 bytes each) signed it in the name of its origin.

    Raises ValueError for anything that is not such a note.
    """
    origin = note.partition("\n")[0]
    lines = open_note(note, [(origin, public) for public in trusted]).removesuffix("\n").split("\n")
    if len(lines) < 3 or not all(lines):
        raise ValueError("the note is no checkpoint: it takes an origin, a size and a root hash, a line each")
    if not _SIZE.fullmatch(lines[1]):
        raise ValueError(f"the checkpoint's size {lines[1][:40]!r} is not a whole number")
    root = _decoded(lines[2])
    if root is None or len(root) != HASH_BYTES:
        raise ValueError(f"the checkpoint's root {lines[2][:60]!r} is not a base64 hash of {HASH_BYTES} bytes")
    return Checkpoint(origin, int(lines[1]), root)


def open_note(note: str, trusted: list[tuple[str, bytes]]) -> str:
    """The text of a note that a trusted key, a name with a public key, signed; ValueError says what is wrong.

    Signatures of other keys are passed over, as of witnesses; a wrong one of a trusted key refuses the whole note.
    """
    if len(note) > _MOST_CHARACTERS or any(char < " " and char != "\n" for char in note):
        raise ValueError("the note is too long, or holds control characters: this is no signed checkpoint")
    text, blank, below = note.rpartition("\n\n")
    if not blank:
        raise ValueError("the note has no signatures: below its text stand an empty line and signature lines")
    text += "\n"
    keys = {(name, key_id(name, public)): public for name, public in trusted}
    signed = False
    for name, id_, signature in _signatures(below):
        if (public := keys.get((name, id_))) is None:
            continue
        try:
            Ed25519PublicKey.from_public_bytes(public).verify(signature, text.encode())
        except (InvalidSignature, ValueError):
            raise ValueError("the checkpoint's signature does not match: it was changed") from None
        signed = True
    if not signed:
        raise ValueError("the checkpoint is signed by none of the trusted keys; get them with `tunegate keys`")
    return text


def key_id(name: str, public: bytes) -> bytes:
    """The four bytes by which a signature line names its key."""
    return hashlib.sha256(name.encode() + b"\n" + _ED25519 + public).digest()[:_KEY_ID_BYTES]


def _signatures(below: str) -> Iterator[tuple[str, bytes, bytes]]:
    """Name, key id and signature of every line; raises ValueError for a line that is none."""
    lines = below.removesuffix("\n").split("\n")
    if not below.endswith("\n") or len(lines) > _MOST_SIGNATURES:
        raise ValueError("the note's signatures do not end with a line end, or are too many")
    for line in lines:
        name, _, encoded = line.removeprefix(_DASH).partition(" ")
        raw = _decoded(encoded)
        if not line.startswith(_DASH) or not _NAME.fullmatch(name) or raw is None or len(raw) <= _KEY_ID_BYTES:
            raise ValueError(f"{line[:80]!r} is no signature line of a note")
        yield name, raw[:_KEY_ID_BYTES], raw[_KEY_ID_BYTES:]


def _decoded(text: str) -> bytes | None:
    """The bytes of strict base64, or None: padding bits must be zero, so that one value has one form."""
    try:
        raw = base64.b64decode(text.encode(), validate=True)
    except (binascii.Error, UnicodeEncodeError):
        return None
    return raw if base64.b64encode(raw).decode() == text else None
