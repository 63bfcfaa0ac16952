"""Trusted publishing as a CI meets it: its own token for one of ours, once, for a quarter of an hour."""

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from ci_under_test import CLAIMS, ISSUER, Issuer, Published, claims_at, published
from site_under_test import Site, body, running

from registry.api.issuers import KeySets
from registry.api.limits import Rate, Rates
from registry.client import Client, Refused
from registry.errors import OutboundFailed, Unavailable
from registry.events import TokenMinted
from registry.names import sha256_hex
from registry.outbound import Answer
from registry.records import AddPublisher, MintToken, Role
from registry.registry import Registry
from registry.settings import Home
from registry.storage.catalog import rebuild_catalog

REQUIRED = {"repository": "acme/bots", "repository_owner_id": "65"}
MANY = Rates(mints=Rate(1e6, 1e6), failures=Rate(1e6, 1e6))
KEY = Issuer("RS256")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """`team/bot`'s publisher has its keys given."""
    with running(Home(tmp_path_factory.mktemp("publishers") / "home"), rates=MANY) as found:
        found.create_adapter("team/bot")
        found.create_adapter("other/bot")
        found.client("admin").add_publisher(publisher())
        found.add_token("team-admin", Role.ADMIN, "team admin", scope="team")
        yield found


def publisher(scope: str = "team/bot", **changes: Any) -> AddPublisher:
    fields: dict[str, Any] = {"scope": scope, "issuer": ISSUER, "claims": REQUIRED, "keys": [KEY.public], **changes}
    return AddPublisher(**fields)


def fresh(key: Issuer = KEY, **claims: Any) -> str:
    return key.token(claims_at(datetime.now(UTC), **claims))


def mint(site: Site, text: str, **more: Any) -> httpx.Response:
    return httpx.post(f"{site.url}/v1/oidc/mint", json={"token": text, **more}, timeout=30, verify=False)


def refused(answer: httpx.Response, reason: str) -> None:
    assert (answer.status_code, body(answer)["code"]) == (401, "unauthenticated"), answer.text
    assert reason in body(answer)["detail"]


def minted(registry: Registry) -> list[TokenMinted]:
    events = [event for line in registry.journal.read() for event in line.entry.events]
    return [event for event in events if isinstance(event, TokenMinted)]


# -- the exchange -----------------------------------------------------------------------------------------------------


def test_a_ci_token_becomes_a_token_of_its_scope_for_a_quarter_of_an_hour(site: Site) -> None:
    text = fresh()
    answer = mint(site, text)
    assert answer.status_code == 201
    token, secret = body(answer)["token"], body(answer)["secret"]
    (listed,) = [one for one in site.client("admin").publishers() if one.scope == "team/bot"]
    assert (token["role"], token["scope"], token["person"]) == ("ci", "team/bot", f"ci:{listed.id}")
    lives = datetime.fromisoformat(token["expires_at"]) - datetime.fromisoformat(token["created_at"])
    assert timedelta(minutes=14) < lives <= timedelta(minutes=15)
    event = minted(site.registry)[-1]
    assert (event.token, event.publisher, event.subject) == (token["id"], listed.id, CLAIMS["sub"])
    journal = b"".join(line.body for line in site.registry.journal.read())
    assert secret.encode() not in journal and text.encode() not in journal


def test_a_minted_token_submits_and_is_named_as_the_submitter(site: Site) -> None:
    site.tokens["minted"] = body(mint(site, fresh()))["secret"]
    ref = site.submit("team/bot", fill=7, who="minted")
    info = site.client("admin").version(ref)
    assert info.submitter.startswith("ci:") and info.state == "submitted"
    for path in ("/v1/tokens", "/v1/jobs/claim", "/v1/publishers", "/v1/adapters/team/bot/versions/1/promote"):
        assert site.http("POST", path, "minted").status_code == 403
    assert site.http("GET", "/v1/adapters/other/bot", "minted").status_code == 404


def test_a_minted_token_ends_and_nobody_misses_its_row(site: Site) -> None:
    site.tokens["brief"] = body(mint(site, fresh()))["secret"]
    assert site.http("GET", "/v1/keys", "brief").status_code == 200
    try:
        site.registry._clock = lambda: datetime.now(UTC) + timedelta(minutes=16)
        refused(site.http("GET", "/v1/keys", "brief"), "expired")
        now = datetime.now(UTC) + timedelta(minutes=16)
        assert mint(site, KEY.token(claims_at(now))).status_code == 201
        assert site.http("GET", "/v1/keys", "brief").status_code == 401
        brief = site.tokens["brief"].split("_")[2]
        assert brief not in {one.id for one in site.client("admin").tokens()}
    finally:
        site.registry._clock = lambda: datetime.now(UTC)


def test_a_ci_token_is_exchanged_once(site: Site) -> None:
    text = fresh()
    assert mint(site, text).status_code == 201
    refused(mint(site, text), "exchanged before")
    same_id = fresh(jti="a-fixed-id")
    assert mint(site, same_id).status_code == 201
    refused(mint(site, fresh(jti="a-fixed-id", ref="refs/heads/other")), "exchanged before")
    try:
        # Expired, and still within the leeway: neither first nor second use may come of the clock.
        site.registry._clock = lambda: datetime.now(UTC) + timedelta(seconds=330)
        refused(mint(site, text), "exchanged before")
    finally:
        site.registry._clock = lambda: datetime.now(UTC)


def test_of_many_exchanges_of_one_token_at_once_exactly_one_wins(site: Site) -> None:
    for _ in range(5):
        text, before = fresh(), len(minted(site.registry))
        with ThreadPoolExecutor(8) as crowd:
            answers = crowd.map(lambda _, text=text: mint(site, text), range(8))
            statuses = sorted(answer.status_code for answer in answers)
        assert statuses == [201] + [401] * 7
        assert len(minted(site.registry)) == before + 1


def test_a_used_token_stays_used_after_a_restart_and_a_rebuild(tmp_path: Path) -> None:
    text = fresh()
    with running(Home(tmp_path / "home"), rates=MANY) as first:
        first.client("admin").add_publisher(publisher())
        assert mint(first, text).status_code == 201
    with running(Home(tmp_path / "home"), rates=MANY) as second:
        refused(mint(second, text), "exchanged before")
        journal, blobs = second.registry.journal, second.registry.blobs
        catalog = rebuild_catalog(tmp_path / "again.duckdb", tmp_path / "staging", blobs, journal)
        used = minted(second.registry)[0].jti
        assert catalog.view().was_minted(used) and second.registry.view().was_minted(used)
        assert catalog.view().publishers() == second.registry.view().publishers()
        assert catalog.view().tokens() == second.registry.view().tokens()
        catalog.close()


def test_a_repeated_call_returns_no_secret(site: Site) -> None:
    text, key = fresh(), {"Idempotency-Key": "mint-once"}
    first = httpx.post(f"{site.url}/v1/oidc/mint", json={"token": text}, headers=key, timeout=30, verify=False)
    again = httpx.post(f"{site.url}/v1/oidc/mint", json={"token": text}, headers=key, timeout=30, verify=False)
    assert (first.status_code, again.status_code) == (201, 201)
    assert again.headers["Idempotency-Replayed"] == "true" and "secret" not in body(again)
    assert body(again)["token"]["id"] == body(first)["token"]["id"]


# -- who is refused ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("claims", "reason"),
    [
        # The repository was deleted, and somebody else registered its name.
        ({"repository_owner_id": "66"}, "repository_owner_id='66'"),
        ({"repository_owner_id": 65}, "repository_owner_id='65'"),
        ({"repository": "acme/other"}, "repository='acme/other'"),
        ({"repository": None}, "repository='None'"),
        ({"aud": "pypi"}, "audience 'pypi'"),
        ({"iss": "https://evil.example"}, "no publisher accepts this token"),
        ({"jti": ""}, "no id"),
        ({"exp": 1}, "expired"),
    ],
)
def test_a_token_with_a_wrong_claim_is_refused_and_nothing_is_told(
    site: Site, claims: dict[str, Any], reason: str
) -> None:
    head = site.registry.journal.head
    answer = mint(site, fresh(**claims))
    refused(answer, reason)
    assert REQUIRED["repository_owner_id"] not in body(answer)["detail"] or claims.get("repository_owner_id") == 65
    assert site.registry.journal.head == head


def test_a_token_that_somebody_else_signed_is_refused(site: Site) -> None:
    head = site.registry.journal.head
    refused(mint(site, fresh(Issuer("RS256"))), "no key of the issuer signed it")
    refused(mint(site, fresh(Issuer("RS256", key_id="../../etc/passwd"))), "no key")
    refused(mint(site, fresh(Issuer("ES256"))), "no key")
    refused(mint(site, KEY.token(claims_at(datetime.now(UTC)), headers={"jku": "https://evil.example"})), "jku")
    assert site.registry.journal.head == head


@pytest.mark.parametrize("sent", [{}, {"token": 7}, {"token": "x", "more": 1}, [], {"token": "x" * 20_000}])
def test_a_body_that_is_no_request_is_refused(site: Site, sent: Any) -> None:
    assert httpx.post(f"{site.url}/v1/oidc/mint", json=sent, timeout=30, verify=False).status_code == 422


def test_the_exchange_takes_json_only(site: Site) -> None:
    answer = httpx.post(
        f"{site.url}/v1/oidc/mint", content=b"{}", headers={"Content-Type": "text/plain"}, timeout=30, verify=False
    )
    assert answer.status_code == 415


def test_who_has_no_signed_token_cannot_tell_a_scope_that_is_there_from_one_that_is_not(site: Site) -> None:
    stranger = Issuer("RS256")
    answers = [
        mint(site, fresh(key, **claims), scope=scope)
        for key in (stranger, Issuer("RS256", key_id="other"), Issuer("ES256"))
        for claims in ({}, {"repository": "acme/other"}, {"aud": "pypi"}, {"exp": 1}, {"iss": "https://evil.example"})
        for scope in ("team/bot", "team", "no-such-scope", None)
    ]
    assert {answer.status_code for answer in answers} == {401}
    assert len({body(answer)["detail"] for answer in answers}) == 1
    refused(mint(site, fresh(repository="acme/other"), scope="team/bot"), "repository='acme/other'")


# -- publishers -------------------------------------------------------------------------------------------------------


def test_removing_a_publisher_ends_its_tokens_too(site: Site) -> None:
    required = {"sub": CLAIMS["sub"], "ref": CLAIMS["ref"]}
    added = site.client("admin").add_publisher(publisher("other/bot", claims=required))
    site.tokens["doomed"] = body(mint(site, fresh(), scope="other/bot"))["secret"]
    assert site.http("GET", "/v1/keys", "doomed").status_code == 200
    assert site.http("DELETE", f"/v1/publishers/{added.id}").status_code == 204
    refused(site.http("GET", "/v1/keys", "doomed"), "revoked")
    refused(mint(site, fresh(), scope="other/bot"), "no publisher")
    assert site.http("DELETE", f"/v1/publishers/{added.id}").status_code == 404


def test_where_several_publishers_accept_a_token_it_says_which_is_meant(site: Site) -> None:
    added = site.client("admin").add_publisher(publisher("other", claims={"sub": CLAIMS["sub"]}))
    text = fresh()
    both = mint(site, text)
    assert both.status_code == 409 and "`scope`" in body(both)["detail"]
    assert "team/bot" not in both.text, "whoever mints is told of no other project"
    answer = mint(site, text, scope="other")
    assert answer.status_code == 201 and body(answer)["token"]["scope"] == "other"
    refused(mint(site, fresh(), scope="third"), "no publisher accepts this token")
    site.client("admin").remove_publisher(added.id)


@pytest.mark.parametrize(
    "changes",
    [
        {"claims": {}},
        {"claims": {"repository": "acme/bots"}},
        {"claims": {"exp": "1"}},
        {"claims": {"": "x"}},
        {"claims": {"sub": ""}},
        {"claims": {f"c{n}": "x" for n in range(21)}},
        {"keys": None},
        {"keys": []},
        {"jwks_url": "https://ci.example/keys"},
        {"keys": None, "jwks_url": "http://ci.example/keys"},
        {"keys": None, "jwks_url": "https://169.254.169.254/keys"},
        {"keys": None, "jwks_url": "https://127.0.0.1/keys"},
        {"keys": None, "jwks_url": "file:///etc/passwd"},
        {"keys": [Issuer("RS256", bits=1024).public_fields]},
        {"keys": [{**KEY.public_fields, "d": "AQ"}]},
        {"scope": "../x"},
        {"scope": ""},
        {"issuer": ""},
        {"audience": ""},
        {"unknown": 1},
    ],
)
def test_a_publisher_that_would_trust_too_much_or_nobody_is_refused(site: Site, changes: dict[str, Any]) -> None:
    head = site.registry.journal.head
    wanted = {**msgspec.to_builtins(publisher()), **changes}
    wanted = {name: value for name, value in wanted.items() if value is not None}
    assert site.http("POST", "/v1/publishers", json=wanted).status_code == 422
    assert site.registry.journal.head == head


def test_the_same_publisher_twice_is_a_conflict(site: Site) -> None:
    with pytest.raises(Refused) as error:
        site.client("admin").add_publisher(publisher())
    assert error.value.status == 409


def test_only_admins_add_publishers_and_only_within_their_scope(site: Site) -> None:
    for role in Role:
        status = site.http("POST", "/v1/publishers", role.value, json={}).status_code
        assert status == (422 if role is Role.ADMIN else 403)
    wanted = msgspec.to_builtins(publisher("other", claims={"sub": "s"}))
    wanted.pop("jwks_url")
    assert site.http("POST", "/v1/publishers", "team-admin", json=wanted).status_code == 403
    outside = site.client("admin").add_publisher(publisher("other", claims={"sub": "s"}))
    assert {one.scope for one in site.client("team-admin").publishers()} == {"team/bot"}
    assert site.http("DELETE", f"/v1/publishers/{outside.id}", "team-admin").status_code == 404
    site.client("admin").remove_publisher(outside.id)


def test_nobody_is_named_like_a_publisher(site: Site) -> None:
    wanted = {"role": "reviewer", "person": "ci:abc"}
    assert site.http("POST", "/v1/tokens", json=wanted).status_code == 422


def test_the_client_exchanges_without_a_token_of_its_own(site: Site) -> None:
    with Client(site.url) as client:
        made = client.mint(MintToken(token=fresh(), scope="team/bot"))
    assert isinstance(made.secret, str) and made.token.scope == "team/bot"


# -- keys at an address -----------------------------------------------------------------------------------------------


@pytest.fixture
def served() -> Iterator[Published]:
    with published(Issuer("ES256", key_id="first")) as found:
        yield found


def test_keys_are_fetched_from_the_issuers_address(
    served: Published, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    key = Issuer("ES256", key_id="first")
    served.show([key])
    monkeypatch.setenv("TUNEGATE_OUTBOUND_ALLOW", httpx.URL(served.url).netloc.decode())
    with running(Home(tmp_path / "home"), rates=MANY) as site:
        site.client("admin").add_publisher(publisher(keys=None, jwks_url=served.url))
        assert served.asked == 0
        for _ in range(5):
            assert mint(site, fresh(key)).status_code == 201
        assert served.asked == 1
        # Made-up key names cause no stream of calls.
        for number in range(10):
            refused(mint(site, fresh(Issuer("ES256", key_id=f"made-up-{number}"))), "no key")
        assert served.asked == 1


def test_without_the_issuers_keys_nobody_is_let_in_and_nothing_is_said_of_the_address(
    served: Published, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    served.status = 500
    monkeypatch.setenv("TUNEGATE_OUTBOUND_ALLOW", httpx.URL(served.url).netloc.decode())
    with running(Home(tmp_path / "home"), rates=MANY) as site:
        site.client("admin").add_publisher(publisher(keys=None, jwks_url=served.url))
        answer = mint(site, fresh())
        assert (answer.status_code, answer.headers["Retry-After"]) == (503, "5")
        assert "127.0.0.1" not in answer.text
        # Another publisher whose keys are known is not held up by it.
        site.client("admin").add_publisher(publisher("other"))
        assert mint(site, fresh()).status_code == 201


def test_nobody_is_asked_for_the_keys_of_a_publisher_that_could_not_accept_the_token(
    served: Published, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Anyone can make up a token, and anyone with a scope an address: neither may send this service calling."""
    key = Issuer("ES256", key_id="first")
    served.show([key])
    monkeypatch.setenv("TUNEGATE_OUTBOUND_ALLOW", httpx.URL(served.url).netloc.decode())
    with running(Home(tmp_path / "home"), rates=MANY) as site:
        site.client("admin").add_publisher(publisher(keys=None, jwks_url=served.url))
        site.client("admin").add_publisher(publisher("other"))
        made_up: list[dict[str, Any]] = [
            {"repository_owner_id": "66"},
            {"aud": "pypi"},
            {"exp": 1},
            {"jti": ""},
            {"iss": "https://evil.example"},
        ]
        for claims in made_up:
            answer = mint(site, fresh(key, **claims), scope="team/bot")
            refused(answer, "no publisher")
            assert "repository_owner_id" not in answer.text, "strangers are not told what is required"
        assert mint(site, fresh(KEY), scope="other").status_code == 201
        refused(mint(site, fresh(key), scope="third"), "no publisher accepts this token")
        assert served.asked == 0
        assert mint(site, fresh(key), scope="team/bot").status_code == 201
        assert served.asked == 1
        # Whom the issuer knows is told what is wrong.
        refused(mint(site, fresh(key, repository_owner_id="66"), scope="team/bot"), "repository_owner_id='66'")
        assert served.asked == 1


def test_another_teams_publisher_never_stands_in_the_way_of_a_mint_that_names_its_scope(
    served: Published, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    served.status = 500
    monkeypatch.setenv("TUNEGATE_OUTBOUND_ALLOW", httpx.URL(served.url).netloc.decode())
    with running(Home(tmp_path / "home"), rates=MANY) as site:
        admin = site.client("admin")
        admin.add_publisher(publisher())
        site.add_token("rival", Role.ADMIN, "rival", scope="rival")
        for given in ({"keys": [KEY.public]}, {"keys": [Issuer("RS256").public]}, {"jwks_url": served.url}):
            claims = {**REQUIRED, "ref": CLAIMS["ref"]} if "jwks_url" in given else {"sub": CLAIMS["sub"]}
            scope = f"rival/bot-{len(admin.publishers())}"
            site.client("rival").add_publisher(publisher(scope, **{"keys": None, "claims": claims, **given}))
        assert mint(site, fresh()).status_code == 409, "the same claims twice, and nobody said which is meant"
        answer = mint(site, fresh(), scope="team/bot")
        assert answer.status_code == 201 and body(answer)["token"]["scope"] == "team/bot"
        assert served.asked == 1, "by the mint that named no scope"


class Source:
    """What an issuer's address answers, and how often it was asked."""

    def __init__(self, *keys: Issuer) -> None:
        self.keys, self.asked = keys, 0
        self.error: Exception | None = None

    def fetch(self, url: str) -> Answer:
        self.asked += 1
        if self.error:
            raise self.error
        return Answer(200, {}, msgspec.json.encode({"keys": [one.public_fields for one in self.keys]}))


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def names(key_sets: KeySets, key_id: str) -> list[str | None]:
    return [key.kid for key in asyncio.run(key_sets.keys("https://ci.example/keys", key_id))]


def test_a_rotated_key_is_found_within_a_minute_and_a_withdrawn_one_forgotten() -> None:
    old, new = Issuer(key_id="old"), Issuer(key_id="new")
    source, clock = Source(old), Clock()
    key_sets = KeySets(source.fetch, clock)
    assert names(key_sets, "old") == ["old"]
    source.keys = (new,)
    assert names(key_sets, "new") == ["old"] and source.asked == 1, "asked a moment ago"
    clock.now += 61
    assert names(key_sets, "new") == ["new"] and source.asked == 2
    source.keys = ()
    clock.now += 500
    assert names(key_sets, "new") == ["new"] and source.asked == 2
    clock.now += 101
    assert names(key_sets, "new") == [] and source.asked == 3


def test_an_address_that_fails_is_asked_once_a_minute_and_its_keys_serve_a_while() -> None:
    source, clock = Source(Issuer(key_id="a")), Clock()
    key_sets = KeySets(source.fetch, clock)
    source.error = OutboundFailed("it is down")
    for _ in range(3):
        with pytest.raises(Unavailable):
            names(key_sets, "a")
    assert source.asked == 1
    clock.now += 61
    source.error = None
    assert names(key_sets, "a") == ["a"]
    source.error = OutboundFailed("it is down")
    clock.now += 630
    assert names(key_sets, "a") == ["a"]
    clock.now += 100
    with pytest.raises(Unavailable):
        names(key_sets, "a")


def test_many_at_once_ask_an_address_once() -> None:
    source = Source(Issuer(key_id="a"))
    key_sets = KeySets(source.fetch)

    async def crowd() -> list[int]:
        found = await asyncio.gather(*(key_sets.keys("https://ci.example/keys", "a") for _ in range(20)))
        return [len(one) for one in found]

    assert asyncio.run(crowd()) == [1] * 20 and source.asked == 1


@pytest.mark.parametrize(
    "answer",
    [
        Answer(404, {}, b'{"keys": []}'),
        Answer(302, {"location": "https://evil.example"}, b""),
        Answer(200, {}, b"<html>"),
        Answer(200, {}, b"[]"),
        Answer(200, {}, b'{"keys": 1}'),
        Answer(200, {}, b'{"keys": ' + b"[" * 20_000 + b"}"),
        Answer(200, {}, msgspec.json.encode({"keys": [{"kty": "RSA"}] * 51})),
    ],
)
def test_an_answer_that_is_no_key_set_is_none(answer: Answer) -> None:
    with pytest.raises(Unavailable):
        names(KeySets(lambda _: answer), "a")


def test_an_identity_is_kept_as_a_digest_only(site: Site) -> None:
    jti = "a-jti-to-look-for"
    assert mint(site, fresh(jti=jti)).status_code == 201
    journal = b"".join(line.body for line in site.registry.journal.read())
    assert jti.encode() not in journal and sha256_hex(jti.encode()).encode() not in journal


def test_what_anyone_may_send_is_read_only_as_far_as_a_token_can_be_long(site: Site) -> None:
    refused = httpx.post(f"{site.url}/v1/oidc/mint", json={"token": "x" * 40_000}, timeout=30, verify=False)
    assert refused.status_code == 413 and refused.headers["Content-Type"] == "application/problem+json"
