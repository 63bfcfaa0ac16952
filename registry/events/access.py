"""Who may come in and who may sign: keys, tokens, CI publishers, and the blobs that a token's scope may use."""

from registry.errors import Refusal
from registry.events.event import Event
from registry.records import Jwk, Role, Sha256


class RegistryCreated(Event, frozen=True, tag="registry.created"):
    """First event of a journal. `draw_commitment` is the sha256 of the secret that seeds every campaign's draw."""

    registry: str
    key: str
    draw_commitment: Sha256
    public: str | None = None


class KeyRotated(Event, frozen=True, tag="key.rotated"):
    """The gate signs with `key` from now on, `public` being its bytes in base64; `previous` may no longer sign.

    previous_public: its bytes, if they were still known.
    """

    key: Sha256
    public: str
    previous: Sha256
    previous_public: str | None


class KeyAdded(Event, frozen=True, tag="key.added"):
    """A person's public key may sign in this role."""

    id: Sha256
    public: str
    role: str
    person: str


class KeyRevoked(Event, frozen=True, tag="key.revoked"):
    """Nothing that the key signed is to be believed any more, whenever it did."""

    id: Sha256
    reason: str


class TokenCreated(Event, frozen=True, tag="token.created"):
    id: str
    role: Role
    person: str
    secret_sha256: Sha256
    expires_at: str
    scope: str | None = None
    publisher: str | None = None


class TokenRevoked(Event, frozen=True, tag="token.revoked"):
    id: str


class TokenMinted(Event, frozen=True, tag="token.minted"):
    """A CI's own token was exchanged for `token`; `jti` is the sha256 that stands for its issuer and id."""

    token: str
    publisher: str
    issuer: str
    subject: str
    jti: Sha256


class PublisherAdded(Event, frozen=True, tag="publisher.added"):
    """Who shows a token of this issuer with these claims may submit in `scope`. Keys are given, or at `jwks_url`."""

    id: str
    scope: str
    issuer: str
    audience: str
    claims: dict[str, str]
    keys: list[Jwk] | None = None
    jwks_url: str | None = None


class PublisherRemoved(Event, frozen=True, tag="publisher.removed"):
    id: str


class AccessRefused(Event, frozen=True, tag="access.refused"):
    """A token that is known here was refused for this reason; told once an hour, however often it happened."""

    token: str
    reason: Refusal


class BlobQuarantined(Event, frozen=True, tag="blob.quarantined"):
    """The stored bytes no longer hashed to their name and were taken away; sending them again heals the blob."""

    sha256: Sha256


class BlobSent(Event, frozen=True, tag="blob.sent"):
    """A token limited to `scope` sent these bytes whole: in that scope they may be used from now on."""

    sha256: Sha256
    scope: str
    size: int = 0
