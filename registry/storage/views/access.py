"""Who may come in and who may sign: tokens, the CI systems whose tokens are exchanged, and keys."""

from typing import Any, NamedTuple

from registry.records import Jwk, Role
from registry.storage.views.reader import Reader, read_json


class StoredToken(NamedTuple):
    id: str
    role: Role
    person: str
    scope: str | None
    secret_sha256: str
    created_at: str
    expires_at: str
    revoked_at: str | None
    publisher: str | None = None


class StoredPublisher(NamedTuple):
    """A CI system whose tokens are exchanged; `keys` are its own where it has no `jwks_url`."""

    id: str
    scope: str
    issuer: str
    audience: str
    claims: dict[str, str]
    keys: list[Jwk] | None
    jwks_url: str | None
    added_by: str
    created_at: str


class StoredKey(NamedTuple):
    id: str
    public: str | None
    roles: tuple[str, ...]
    person: str | None
    valid_from: str
    valid_until: str | None
    revoked_at: str | None
    revoked_reason: str | None


class Access(Reader):
    """Tokens, publishers and signing keys, those too that no longer count."""

    def token(self, id_: str) -> StoredToken | None:
        rows = self._tokens("WHERE id = ?", id_)
        return rows[0] if rows else None

    def tokens(self) -> list[StoredToken]:
        return self._tokens("ORDER BY created_at, id")

    def tokens_of(self, person: str) -> list[StoredToken]:
        return self._tokens("WHERE person = ? ORDER BY created_at, id", person)

    def _tokens(self, clause: str, *values: Any) -> list[StoredToken]:
        columns = "id, role, person, scope, secret_sha256, created_at, expires_at, revoked_at, publisher"
        rows = self._all(f"SELECT {columns} FROM tokens {clause}", *values)
        return [StoredToken(row[0], Role(row[1]), *row[2:]) for row in rows]

    def tokens_minted_by(self, publisher: str) -> list[StoredToken]:
        return self._tokens("WHERE publisher = ? ORDER BY created_at, id", publisher)

    def publishers(self, issuer: str | None = None) -> list[StoredPublisher]:
        """All, or those of one issuer, oldest first."""
        rows = self._all(
            "SELECT id, scope, issuer, audience, claims, keys, jwks_url, added_by, created_at FROM publishers "
            "WHERE ?::TEXT IS NULL OR issuer = ? ORDER BY created_at, id",
            issuer,
            issuer,
        )
        return [
            StoredPublisher(
                id=row[0],
                scope=row[1],
                issuer=row[2],
                audience=row[3],
                claims=read_json(row[4], dict[str, str]),
                keys=read_json(row[5], list[Jwk]) if row[5] else None,
                jwks_url=row[6],
                added_by=row[7],
                created_at=row[8],
            )
            for row in rows
        ]

    def was_minted(self, jti: str) -> bool:
        """Whether the CI token that this sha256 stands for was exchanged before."""
        return self._one("SELECT 1 FROM minted WHERE jti = ?", jti) is not None

    def signing_keys(self) -> list[StoredKey]:
        """Every key there ever was, in the order they came."""
        columns = ", ".join(StoredKey._fields)
        rows = self._all(f"SELECT {columns} FROM signing_keys ORDER BY seq, id")
        return [StoredKey(*row)._replace(roles=read_json(row[2], tuple[str, ...])) for row in rows]

    def signing_key(self, id_: str) -> StoredKey | None:
        return next((key for key in self.signing_keys() if key.id == id_), None)
