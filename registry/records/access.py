"""Tokens and trusted publishers."""

from typing import Annotated

from msgspec import UNSET, Meta, UnsetType

from registry.records.words import Record, Request, Role, Word


class CreateToken(Request):
    """`person` is who acts: two tokens of one person count once in a review."""

    role: Role
    person: Annotated[str, Meta(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]+\Z")]
    scope: Word | None = None
    expires_days: Annotated[int, Meta(ge=1, le=365)] = 90


class Jwk(Record):
    """A public key as issuers publish it (RFC 7517): RSA with `n` and `e`, or P-256 with `crv`, `x` and `y`.

    `d` and `k` are read only to be refused: they make it a secret.
    """

    kty: str
    kid: str | None = None
    use: str | None = None
    alg: str | None = None
    n: str | None = None
    e: str | None = None
    crv: str | None = None
    x: str | None = None
    y: str | None = None
    d: str | None = None
    k: str | None = None


class AddPublisher(Request):
    """A CI whose own tokens may be exchanged for tokens limited to `scope`, when all these claims are in them.

    The keys that sign them come either here, as `keys`, or from `jwks_url`.
    """

    scope: Word
    issuer: Word
    claims: Annotated[dict[Word, Word], Meta(max_length=20)]
    audience: Word = "tunegate"
    keys: Annotated[list[Jwk], Meta(min_length=1, max_length=50)] | None = None
    jwks_url: Annotated[str, Meta(max_length=1000)] | None = None


class MintToken(Request):
    """`token`: the CI's own. `scope` chooses where several publishers accept it."""

    token: Annotated[str, Meta(max_length=16384)]
    scope: Word | None = None


class TokenInfo(Record):
    id: str
    role: Role
    person: str
    scope: str | None
    created_at: str
    expires_at: str
    revoked_at: str | None = None
    last_used: str | None = None  # to the hour, since the service was started


class PublisherInfo(Record):
    """`key_ids` are those of the keys that were given with it, where they do not come from `jwks_url`."""

    id: str
    scope: str
    issuer: str
    audience: str
    claims: dict[str, str]
    jwks_url: str | None
    key_ids: list[str]
    added_by: str
    created_at: str


class TokenCreated(Record):
    """`secret` is shown once; an idempotent repeat of the call returns the same token without it."""

    token: TokenInfo
    secret: str | UnsetType = UNSET
