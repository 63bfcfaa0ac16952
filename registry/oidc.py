"""Whether a CI's own token (an OpenID Connect ID token) may be exchanged for one of ours. Pure: no clock, no network.

    shown = read_token(text)                                   # what it says of itself, nothing of it checked yet
    claims = check_signature(shown, keys_of_the_issuer)        # now its issuer is known to have said it
    check_claims(claims, audience="tunegate", now=now)
    differing(claims, {"repository_owner_id": "65", ...})      # [] where every required claim is exactly so

Only RS256 and ES256, only keys that the publisher's issuer publishes, found by `kid`: whatever a token brings along to
verify itself with (jwk, jku, x5u, x5c, crit) makes it refused. It is accepted once: `jti` is required.
Source: RFC 8725 (JWT best current practices), OpenID Connect Core 3.1.3.7.
"""

import binascii
import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

import jwt

from registry.errors import InvalidRequest, Unauthenticated
from registry.names import sha256_hex
from registry.records import Jwk

# The only clock tolerance there is. A used token is remembered for good, so none can be used again within it.
LEEWAY_SECONDS = 60
MOST_LIFETIME_SECONDS = 24 * 3600
_KEY_TYPES = {"RS256": "RSA", "ES256": "EC"}
_LEAST_RSA_BITS, _MOST_RSA_BITS = 2048, 8192
_BRINGS_ITS_OWN = ("crit", "jwk", "jku", "x5u", "x5c", "b64")
_MOST_TEXT = 1000
# Names can be registered anew by someone else after they are given up; these claims never can.
_LASTING = {
    "repository": ("repository_id", "repository_owner_id"),
    "repository_owner": ("repository_id", "repository_owner_id"),
    "project_path": ("project_id", "namespace_id"),
    "namespace_path": ("project_id", "namespace_id"),
}
# Issuers that everybody has an account at, with the claims of which one says for good whose token it is.
_WHOSE = {
    "https://token.actions.githubusercontent.com": ("repository_id", "repository_owner_id"),
    "https://gitlab.com": ("project_id", "namespace_id"),
}
_CHECKED_ANYWAY = frozenset({"iss", "aud", "exp", "nbf", "iat", "jti"})


class Shown(NamedTuple):
    """What a token says of itself. It decides whose keys are looked for, nothing more.

    claims: as they stand in it, signed by nobody yet.
    """

    text: str
    algorithm: str
    key_id: str
    issuer: str
    claims: Mapping[str, Any]


def read_token(text: str) -> Shown:
    """Header, issuer and claims; Unauthenticated for what no honest issuer sends."""
    try:
        header = jwt.get_unverified_header(text)
        claims = jwt.decode(text, options={"verify_signature": False})
    except (jwt.PyJWTError, ValueError, RecursionError):
        raise Unauthenticated("this is not a JSON Web Token; send the ID token that your CI gives, as it is") from None
    algorithm, key_id, issuer = header.get("alg"), header.get("kid"), claims.get("iss")
    if not isinstance(algorithm, str) or algorithm not in _KEY_TYPES:
        raise Unauthenticated(f"algorithm {str(algorithm)[:20]!r} is not accepted; RS256 and ES256 are")
    if brought := [name for name in _BRINGS_ITS_OWN if name in header]:
        raise Unauthenticated(f"the token's header has {', '.join(brought)}, which is never accepted")
    if not isinstance(key_id, str) or not 0 < len(key_id) <= _MOST_TEXT:
        raise Unauthenticated("the token's header names no key (`kid`), so its signature cannot be checked")
    if not isinstance(issuer, str):
        raise Unauthenticated("the token names no issuer (`iss`)")
    return Shown(text, algorithm, key_id, issuer, claims)


def check_signature(shown: Shown, keys: Sequence[Jwk]) -> dict[str, Any]:
    """The claims, once a key of the issuer has signed them; Unauthenticated otherwise."""
    usable = [key for key in keys if key.kid == shown.key_id and key.kty == _KEY_TYPES[shown.algorithm]]
    if len(usable) != 1 or (reason := unusable(usable[0])):
        why = reason if len(usable) == 1 else f"the issuer has {len(usable)} such keys"
        raise Unauthenticated(f"no key {shown.key_id[:100]!r} of {shown.issuer} for {shown.algorithm}: {why}")
    # Checked by `check_claims` against a time that is given, so that a test, and a journal, can say what the time was.
    later = {f"verify_{name}": False for name in ("exp", "nbf", "iat", "aud", "iss", "sub", "jti")}
    try:
        claims: dict[str, Any] = jwt.decode(
            shown.text,
            _public_key(usable[0]),
            algorithms=[shown.algorithm],
            options=later,  # type: ignore[arg-type]
        )
    except (jwt.PyJWTError, ValueError, RecursionError):
        raise Unauthenticated(f"the token is not signed by key {shown.key_id[:100]!r} of {shown.issuer}") from None
    return claims


def check_claims(claims: Mapping[str, Any], *, issuer: str, audience: str, now: datetime) -> None:
    """Raises Unauthenticated unless the token is from this issuer, for this audience, valid now, and has a `jti`."""
    seconds = now.timestamp()
    expires, issued = _time(claims, "exp"), _time(claims, "iat")
    begins = _time(claims, "nbf") if "nbf" in claims else issued
    if claims.get("iss") != issuer:
        raise Unauthenticated(f"the token is of issuer {str(claims.get('iss'))[:200]!r}, not of {issuer!r}")
    named = claims.get("aud")
    if audience not in (named if isinstance(named, list) else [named]):
        raise Unauthenticated(
            f"the token is for audience {str(named)[:200]!r}, not for {audience!r}; ask the CI for that"
        )
    if expires <= seconds - LEEWAY_SECONDS:
        raise Unauthenticated("the CI's token has expired; ask the CI for a new one")
    if max(begins, issued) > seconds + LEEWAY_SECONDS:
        raise Unauthenticated("the CI's token is not valid yet; check the clocks of the CI and of this registry")
    if not 0 < expires - issued <= MOST_LIFETIME_SECONDS:
        raise Unauthenticated("the CI's token is valid for longer than a day, which is not accepted")
    identity = claims.get("jti")
    if not isinstance(identity, str) or not 0 < len(identity) <= _MOST_TEXT:
        raise Unauthenticated("the token has no id (`jti`), so it could be used twice")


def differing(claims: Mapping[str, Any], required: Mapping[str, str]) -> list[str]:
    """The required claims that the token does not have exactly so. No requirement at all is met by nobody."""
    if not required:
        return ["(no claim is required, which accepts nobody)"]
    return [name for name, value in sorted(required.items()) if claims.get(name) != value]


def token_identity(issuer: str, jti: str) -> str:
    """The sha256 that stands for one token of one issuer.

    >>> token_identity("a", "bc") == token_identity("ab", "c")
    False
    """
    return sha256_hex(json.dumps(["tunegate oidc token v1", issuer, jti]).encode())


def check_keys(keys: Sequence[Jwk]) -> list[Jwk]:
    """The keys in their public parts alone; InvalidRequest names each that can never verify anything."""
    problems = [f"key {key.kid!r}: {reason}" for key in keys if (reason := unusable(key))]
    names = [key.kid for key in keys]
    if len(set(names)) != len(names):
        problems.append("two keys have the same kid")
    if problems:
        raise InvalidRequest("the keys cannot be used: " + "; ".join(problems), problems)
    return [
        Jwk(kty=key.kty, kid=key.kid, use=key.use, alg=key.alg, n=key.n, e=key.e, crv=key.crv, x=key.x, y=key.y)
        for key in keys
    ]


def check_required(required: Mapping[str, str], issuer: str) -> None:
    """Raises InvalidRequest for claims that are checked anyway, that may change hands, or that say nobody's name."""
    if not required:
        raise InvalidRequest("no claim is required, so everyone with an account at the issuer could submit; name some")
    if idle := sorted(_CHECKED_ANYWAY & required.keys()):
        raise InvalidRequest(
            f"{', '.join(idle)} cannot be required: every token is checked for them; name other claims"
        )
    for name, lasting in _LASTING.items():
        if name in required and not any(one in required for one in lasting):
            raise InvalidRequest(
                f"claim {name!r} is a name, which someone else may own one day; require {' or '.join(lasting)} too"
            )
    whose = _WHOSE.get(issuer.rstrip("/"))
    if whose and not any(one in required for one in whose):
        raise InvalidRequest(f"{issuer} gives tokens with these claims to strangers too; require {' or '.join(whose)}")


def unusable(key: Jwk) -> str | None:
    """Why a key verifies nothing here; None for a good one."""
    algorithm = {kind: name for name, kind in _KEY_TYPES.items()}.get(key.kty)
    if key.d is not None or key.k is not None:
        return "it is a secret; publish its public half only"
    if algorithm is None or not key.kid:
        return f"kty {key.kty!r} is neither RSA nor EC" if key.kid else "it has no kid"
    if key.use not in (None, "sig") or key.alg not in (None, algorithm):
        return f"it is for use {key.use!r} with {key.alg!r}, not for signatures with {algorithm}"
    if key.kty == "EC" and key.crv != "P-256":
        return f"its curve is {key.crv!r}, not P-256"
    try:
        bits = _public_key(key).key_size
    except (jwt.PyJWTError, ValueError, TypeError, binascii.Error):
        return "it cannot be read"
    if key.kty == "RSA" and not _LEAST_RSA_BITS <= bits <= _MOST_RSA_BITS:
        return f"it has {bits} bits; RSA keys of {_LEAST_RSA_BITS} to {_MOST_RSA_BITS} are accepted"
    return None


def _public_key(key: Jwk) -> Any:
    parts = (
        {"kty": key.kty, "n": key.n, "e": key.e}
        if key.kty == "RSA"
        else {"kty": key.kty, "crv": key.crv, "x": key.x, "y": key.y}
    )
    return jwt.PyJWK.from_dict({name: value for name, value in parts.items() if value is not None}).key


def _time(claims: Mapping[str, Any], name: str) -> int:
    value = claims.get(name)
    if type(value) is not int:
        raise Unauthenticated(f"the token has no {name} in whole seconds, so it cannot be known to be valid")
    return value
