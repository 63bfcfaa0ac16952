"""Approvals: moves of aliases, the signatures under them, and the keys."""

from typing import Annotated

from msgspec import Meta

from registry.records.words import Digest, Record, Request, Sha256, Word


class AddKey(Request):
    """A person's public key, raw in base64, for second signatures on approvals."""

    public: Annotated[str, Meta(min_length=44, max_length=44)]
    person: Word
    role: Annotated[str, Meta(pattern="^release-manager\\Z")] = "release-manager"


class Countersign(Request):
    """A release manager's signature over the proposed approval, as DSSE makes it."""

    keyid: Sha256
    sig: Annotated[str, Meta(min_length=88, max_length=88)]
    alias: Word = "approved"


class Promote(Request):
    """reason: what the alias's history says of the move, where there is more to say than that the gate is satisfied."""

    alias: Word = "approved"
    reason: Annotated[str, Meta(min_length=1, max_length=4000)] | None = None


class Rollback(Request):
    to: Annotated[int, Meta(ge=1)]
    reason: Annotated[str, Meta(min_length=1, max_length=4000)]


class Reject(Request):
    reason: Annotated[str, Meta(min_length=1, max_length=4000)]


class Revoke(Request):
    reason: Annotated[str, Meta(min_length=1, max_length=4000)]


class AliasInfo(Record):
    """`unsigned`: the move is proposed and lacks the second signature, so the alias is where it was."""

    adapter: str
    alias: str
    ref: str
    number: int
    digest: Digest
    counter: int
    moved_at: str
    unsigned: bool = False


class AliasMove(Record):
    """One line of an alias's complete history."""

    alias: str
    counter: int
    previous: int | None
    number: int
    digest: Digest
    by: str
    at: str
    reason: str


class Signature(Record):
    keyid: str
    sig: str


class Envelope(Record):
    """DSSE envelope: base64 payload of the given type with its signatures."""

    payload: str
    payloadType: str
    signatures: list[Signature]


class Proposal(Record):
    """A move that waits for a second signature, with the approval that the gate has signed."""

    adapter: str
    alias: str
    ref: str
    digest: Digest
    counter: int
    by: str
    at: str
    reason: str
    attestation: Envelope


class PublicKey(Record):
    """`public` is the raw 32-byte ed25519 key in base64; `id` is the sha256 of those bytes.

    roles: what it may sign: `gate` approvals, `checkpoint` heads of the journal, `release-manager` second signatures.
    person: whose it is, if it is a person's. A retired key has `valid_until` and still verifies what it signed before;
    a revoked one verifies nothing.
    """

    id: str
    algorithm: str
    public: str
    roles: tuple[str, ...] = ("gate", "checkpoint")
    person: str | None = None
    valid_from: str | None = None
    valid_until: str | None = None
    revoked_at: str | None = None
    revoked_reason: str | None = None


class KeySet(Record):
    """`checksum` is over `keys`: it finds what was changed by accident, and is no signature."""

    keys: list[PublicKey]
    checksum: str | None = None
