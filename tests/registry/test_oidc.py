"""Which tokens of a CI are believed. Keys and tokens are made here; every attack is one that was once successful."""

import base64
import hashlib
import hmac
import json
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import jwt
import pytest
from ci_under_test import AUDIENCE, CLAIMS, ISSUER, NOW, Issuer, claims_at
from hypothesis import given, settings
from hypothesis import strategies as st

from registry.errors import InvalidRequest, Unauthenticated
from registry.oidc import (
    LEEWAY_SECONDS,
    MOST_LIFETIME_SECONDS,
    check_claims,
    check_keys,
    check_required,
    check_signature,
    differing,
    read_token,
    token_identity,
    unusable,
)
from registry.records import Jwk


@pytest.fixture(scope="module", params=["RS256", "ES256"])
def issuer(request: pytest.FixtureRequest) -> Iterator[Issuer]:
    yield Issuer(request.param)


def verified(issuer: Issuer, text: str, keys: list[Jwk] | None = None, now: datetime = NOW) -> dict[str, Any]:
    claims = check_signature(read_token(text), [issuer.public] if keys is None else keys)
    check_claims(claims, issuer=ISSUER, audience=AUDIENCE, now=now)
    return claims


def raw(header: dict[str, Any], claims: Any, signature: bytes = b"x") -> str:
    """A token of parts that no library would put together."""
    parts = [json.dumps(header).encode(), json.dumps(claims).encode(), signature]
    return ".".join(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts)


def test_a_token_of_a_known_key_with_the_right_claims_is_believed(issuer: Issuer) -> None:
    claims = verified(issuer, issuer.token())
    assert differing(claims, {"repository": "acme/bots", "repository_owner_id": "65"}) == []


# -- the header -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "algorithm", ["none", "None", "HS256", "RS384", "PS256", "EdDSA", "ES256K", "", None, 1, ["RS256"]]
)
def test_an_algorithm_that_is_not_listed_is_refused(algorithm: Any) -> None:
    with pytest.raises(Unauthenticated):
        read_token(raw({"alg": algorithm, "kid": "k", "typ": "JWT"}, CLAIMS))


def test_an_unsigned_token_is_refused(issuer: Issuer) -> None:
    for text in (jwt.encode(CLAIMS, None, algorithm="none", headers={"kid": "k1"}), raw({"alg": "none"}, CLAIMS, b"")):
        with pytest.raises(Unauthenticated):
            read_token(text)
    # The name of a good algorithm over no signature.
    with pytest.raises(Unauthenticated, match="not signed"):
        verified(issuer, raw({"alg": issuer.algorithm, "kid": "k1"}, claims_at(NOW), b""))


def test_the_public_key_is_no_secret_to_sign_with() -> None:
    """HS256 over the PEM of the public key: the confusion that broke many libraries."""
    issuer = Issuer("RS256")
    head = raw({"alg": "HS256", "kid": "k1"}, claims_at(NOW)).rpartition(".")[0]
    seal = hmac.new(issuer.public_pem, head.encode(), hashlib.sha256).digest()
    text = f"{head}.{base64.urlsafe_b64encode(seal).rstrip(b'=').decode()}"
    with pytest.raises(Unauthenticated, match="'HS256' is not accepted"):
        read_token(text)


@pytest.mark.parametrize("algorithm", ["RS256", "ES256"])
def test_a_key_of_the_other_kind_verifies_nothing(algorithm: str) -> None:
    one, other = Issuer(algorithm), Issuer("ES256" if algorithm == "RS256" else "RS256")
    with pytest.raises(Unauthenticated, match="no key 'k1'"):
        verified(one, one.token(), [other.public])


@pytest.mark.parametrize("name", ["jwk", "jku", "x5u", "x5c", "crit", "b64"])
def test_a_token_that_brings_its_own_proof_is_refused(issuer: Issuer, name: str) -> None:
    attacker = Issuer(issuer.algorithm)
    values: dict[str, Any] = {
        "jwk": attacker.public_fields,
        "jku": "https://evil.example/keys",
        "x5u": "https://evil.example/chain",
        "x5c": ["MIIB"],
        "crit": ["exp"],
        "b64": True,
    }
    # The library refuses some of them by itself, with no word of which.
    said = f"{name}|not a JSON Web Token"
    with pytest.raises(Unauthenticated, match=said):
        verified(issuer, attacker.token(headers={name: values[name]}))
    with pytest.raises(Unauthenticated, match=said):
        verified(issuer, issuer.token(headers={name: values[name]}))


@pytest.mark.parametrize("kid", [None, "", 7, ["k1"], "x" * 1001])
def test_a_token_that_names_no_key_is_refused(issuer: Issuer, kid: Any) -> None:
    header = {"alg": issuer.algorithm} if kid is None else {"alg": issuer.algorithm, "kid": kid}
    with pytest.raises(Unauthenticated):
        read_token(raw(header, CLAIMS))


@pytest.mark.parametrize("kid", ["../../etc/passwd", "/dev/null", "k1\x00", "K1", " k1", "k1' OR 1=1 --", "k" * 1000])
def test_a_key_is_found_by_its_exact_name_only(issuer: Issuer, kid: str) -> None:
    with pytest.raises(Unauthenticated, match="no key"):
        verified(issuer, issuer.token(headers={"kid": kid}))


def test_two_keys_of_one_name_are_believed_neither(issuer: Issuer) -> None:
    other = Issuer(issuer.algorithm)
    with pytest.raises(Unauthenticated, match="has 2 such keys"):
        verified(issuer, issuer.token(), [issuer.public, other.public])


def test_a_signature_of_another_key_or_over_other_claims_is_refused(issuer: Issuer) -> None:
    attacker = Issuer(issuer.algorithm)
    with pytest.raises(Unauthenticated, match="not signed"):
        verified(issuer, attacker.token())
    head, _, signature = issuer.token().split(".")
    forged = raw({}, {**claims_at(NOW), "repository_owner_id": "66"}).split(".")[1]
    with pytest.raises(Unauthenticated, match="not signed"):
        verified(issuer, f"{head}.{forged}.{signature}")


@settings(deadline=None)
@given(st.text(max_size=300) | st.from_regex(r"[A-Za-z0-9_-]{0,60}\.[A-Za-z0-9_-]{0,60}\.[A-Za-z0-9_-]{0,60}"))
def test_whatever_is_no_token_is_refused_in_words(text: str) -> None:
    with pytest.raises(Unauthenticated):
        read_token(text)


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9)


@settings(deadline=None)
@given(st.recursive(SCALARS, st.lists, max_leaves=9))
def test_no_header_or_claim_of_a_strange_type_does_more_than_be_refused(value: Any) -> None:
    issuer = Issuer("ES256")
    for header in (value, {"alg": value, "kid": "k"}, {"alg": "ES256", "kid": [value]}):
        with pytest.raises(Unauthenticated):
            read_token(raw(header, CLAIMS))
    for name in ("iss", "aud", "exp", "iat", "nbf", "jti"):
        if (name == "jti" and isinstance(value, str) and value) or (name == "nbf" and type(value) is int):
            continue
        with pytest.raises(Unauthenticated):
            verified(issuer, issuer.token({**claims_at(NOW), name: value}))


def test_nesting_beyond_all_measure_is_refused(issuer: Issuer) -> None:
    deep = "[" * 100_000 + "]" * 100_000
    part = base64.urlsafe_b64encode(f'{{"iss": {deep}}}'.encode()).rstrip(b"=").decode()
    with pytest.raises(Unauthenticated):
        read_token(f"{issuer.token().partition('.')[0]}.{part}.x")


# -- the claims -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["iss", "aud", "exp", "iat", "jti"])
def test_a_token_without_a_claim_that_is_always_needed_is_refused(issuer: Issuer, name: str) -> None:
    claims = {key: value for key, value in claims_at(NOW).items() if key != name}
    with pytest.raises(Unauthenticated):
        verified(issuer, issuer.token(claims))


@pytest.mark.parametrize(
    "audience", ["other", "tunegat", "tunegate ", "TUNEGATE", "", [], ["other"], [["tunegate"]], {"tunegate": 1}]
)
def test_a_token_for_another_audience_is_refused(issuer: Issuer, audience: Any) -> None:
    with pytest.raises(Unauthenticated):
        verified(issuer, issuer.token({**claims_at(NOW), "aud": audience}))


def test_one_of_several_audiences_is_enough(issuer: Issuer) -> None:
    verified(issuer, issuer.token({**claims_at(NOW), "aud": ["other", AUDIENCE]}))


@pytest.mark.parametrize("name", [ISSUER + "/", ISSUER.upper(), "https://evil.example", ISSUER + ".evil.example"])
def test_a_token_of_another_issuer_is_refused(issuer: Issuer, name: str) -> None:
    with pytest.raises(Unauthenticated, match="issuer"):
        verified(issuer, issuer.token({**claims_at(NOW), "iss": name}))


def test_a_token_is_believed_from_its_beginning_to_its_end_and_a_minute_around(issuer: Issuer) -> None:
    text, leeway = issuer.token(claims_at(NOW)), timedelta(seconds=LEEWAY_SECONDS)
    ends = NOW + timedelta(seconds=300)
    for now in (NOW - leeway, NOW, ends, ends + leeway - timedelta(seconds=1)):
        verified(issuer, text, now=now)
    year = timedelta(days=365)
    for now in (NOW - leeway - timedelta(seconds=1), ends + leeway, ends + year, NOW - year):
        with pytest.raises(Unauthenticated):
            verified(issuer, text, now=now)


def test_a_token_that_is_not_valid_yet_is_refused(issuer: Issuer) -> None:
    seconds = int(NOW.timestamp())
    for late in ({"nbf": seconds + 61}, {"iat": seconds + 61, "exp": seconds + 400}):
        with pytest.raises(Unauthenticated, match="not valid yet"):
            verified(issuer, issuer.token({**claims_at(NOW), **late}))


@pytest.mark.parametrize("seconds", [MOST_LIFETIME_SECONDS + 1, 10**400, 0, -5])
def test_a_token_that_lives_for_ever_or_never_is_refused(issuer: Issuer, seconds: int) -> None:
    issued = int(NOW.timestamp())
    with pytest.raises(Unauthenticated):
        verified(issuer, issuer.token({**claims_at(NOW), "iat": issued, "exp": issued + seconds}))


@pytest.mark.parametrize("value", [True, 1.5e9, "1764000000", None, float("inf")])
@pytest.mark.parametrize("name", ["exp", "iat", "nbf"])
def test_times_are_whole_seconds(name: str, value: Any) -> None:
    with pytest.raises(Unauthenticated):
        check_claims({**claims_at(NOW), name: value}, issuer=ISSUER, audience=AUDIENCE, now=NOW)


@pytest.mark.parametrize("name", ["repository_owner_id", "repository"])
def test_every_required_claim_must_be_exactly_so(name: str) -> None:
    required = {"repository": "acme/bots", "repository_owner_id": "65"}
    good = claims_at(NOW)
    assert differing(good, required) == []
    for value in ("66", "", None, 65, ["65"], " 65", good[name].upper() + "x"):
        assert differing({**good, name: value}, required) == [name]
    assert differing({key: one for key, one in good.items() if key != name}, required) == [name]


def test_no_requirement_is_met_by_nobody() -> None:
    assert differing(claims_at(NOW), {})


def test_two_tokens_never_share_an_identity() -> None:
    pairs = [("a", "bc"), ("ab", "c"), ("a", "b"), ('a","b', ""), ("", 'a","b')]
    assert len({token_identity(*pair) for pair in pairs}) == len(pairs)
    assert token_identity("a", "b") == token_identity("a", "b")


# -- what an admin registers ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "required", [{}, {"exp": "1"}, {"jti": "x", "sub": "y"}, {"repository": "acme/bots"}, {"project_path": "a/b"}]
)
def test_claims_that_do_not_bind_are_refused(required: dict[str, str]) -> None:
    with pytest.raises(InvalidRequest):
        check_required(required, "https://ci.example")


@pytest.mark.parametrize(
    "required",
    [
        {"repository": "acme/bots", "repository_owner_id": "65"},
        {"sub": "repo:x"},
        {"project_path": "a", "project_id": "1"},
    ],
)
def test_claims_that_bind_are_accepted(required: dict[str, str]) -> None:
    check_required(required, "https://ci.example")


def changed(key: Jwk, **fields: Any) -> Jwk:
    return Jwk(**{name: getattr(key, name) for name in key.__struct_fields__} | fields)


def test_keys_that_can_never_verify_are_named(issuer: Issuer) -> None:
    good = issuer.public
    assert unusable(good) is None
    bad = [
        changed(good, kid=None),
        changed(good, d="AQ"),
        changed(good, use="enc"),
        changed(good, alg="RS512"),
        changed(good, kty="oct", k="c2VjcmV0"),
        changed(good, kty="OKP"),
        changed(good, n="!", x="!"),
        changed(good, n=None, x=None),
        Issuer("RS256", bits=1024).public,
        changed(Issuer("ES256").public, crv="P-384"),
        changed(Issuer("ES256").public, y=Issuer("ES256").public.y),
    ]
    for key in bad:
        assert unusable(key), key
        with pytest.raises(InvalidRequest, match="cannot be used"):
            check_keys([key])
        with pytest.raises(Unauthenticated):
            verified(issuer, issuer.token(), [key])
    with pytest.raises(InvalidRequest, match="same kid"):
        check_keys([good, good])
    assert check_keys([changed(good, use="sig", alg=issuer.algorithm)])


@pytest.mark.parametrize(
    ("issuer", "vague", "enough"),
    [
        ("https://token.actions.githubusercontent.com", {"ref": "refs/heads/main"}, {"repository_owner_id": "1"}),
        ("https://token.actions.githubusercontent.com/", {"sub": "repo:acme/bots:ref:main"}, {"repository_id": "2"}),
        ("https://gitlab.com", {"ref_protected": "true"}, {"project_id": "3"}),
    ],
)
def test_claims_that_are_true_of_strangers_are_not_enough(
    issuer: str, vague: dict[str, str], enough: dict[str, str]
) -> None:
    with pytest.raises(InvalidRequest, match="strangers"):
        check_required(vague, issuer)
    check_required({**vague, **enough}, issuer)
