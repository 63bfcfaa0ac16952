"""What the journal remembers of refusals: enough to see that a token is misused, never more than once an hour."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import httpx
import pytest
from site_under_test import Site, running

from registry.access import _checksum, new_secret
from registry.api import visitors
from registry.api.limits import Rate, Rates
from registry.events import AccessRefused, AnyEvent
from registry.records import CreateToken, Role
from registry.settings import Home

pytestmark = pytest.mark.slow


@pytest.fixture
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with running(Home(tmp_path_factory.mktemp("refusals") / "home"), rates=Rates(failures=Rate(1e6, 1e6))) as found:
        yield found


def events(site: Site) -> list[AnyEvent]:
    """All events, once everything that was handed to the writer is done."""
    made = site.client("admin").create_token(CreateToken(role=Role.CI, person="nobody"))
    site.client("admin").revoke_token(made.token.id)
    return [event for line in site.registry.journal.read() for event in line.entry.events]


def refusals(site: Site) -> list[tuple[str, str]]:
    return [(one.token, one.reason) for one in events(site) if isinstance(one, AccessRefused)]


def id_of(site: Site, who: str) -> str:
    return site.tokens[who].split("_")[2]


def test_a_revoked_token_that_is_used_again_is_told_once(site: Site) -> None:
    site.add_token("leaving", Role.CI, "leaving person")
    assert site.http("GET", "/v1/keys", "leaving").status_code == 200
    site.client("admin").revoke_token(id_of(site, "leaving"))
    for _ in range(20):
        assert site.http("GET", "/v1/keys", "leaving").status_code == 401
    assert refusals(site) == [(id_of(site, "leaving"), "revoked")]


def test_an_expired_token_and_a_wrong_role_are_told_each_for_itself(site: Site) -> None:
    for _ in range(5):
        assert site.http("POST", "/v1/tokens", "consumer", json={}).status_code == 403
        assert site.http("GET", "/v1/audit/events", "ci").status_code == 403
    consumer, ci = id_of(site, "consumer"), id_of(site, "ci")
    assert sorted(refusals(site)) == sorted([(consumer, "role"), (ci, "role")])
    try:
        site.registry._clock = lambda: datetime.now(UTC) + timedelta(days=91)
        for _ in range(5):
            assert site.http("GET", "/v1/keys", "ci").status_code == 401
    finally:
        site.registry._clock = lambda: datetime.now(UTC)
    assert sorted(refusals(site)) == sorted([(consumer, "role"), (ci, "role"), (ci, "expired")])


def test_a_refusal_an_hour_later_is_told_again(site: Site) -> None:
    start = datetime(2027, 1, 1, 10, tzinfo=UTC)
    try:
        for minutes in (0, 1, 59, 60, 61, 125):
            site.registry._clock = lambda minutes=minutes: start + timedelta(minutes=minutes)
            site.http("POST", "/v1/tokens", "consumer", json={})
    finally:
        site.registry._clock = lambda: datetime.now(UTC)
    assert refusals(site) == [(id_of(site, "consumer"), "role")] * 3


def test_a_flood_of_refusals_does_not_grow_the_journal(site: Site) -> None:
    site.add_token("leaving", Role.CI, "leaving person")
    site.client("admin").revoke_token(id_of(site, "leaving"))
    site.http("GET", "/v1/keys", "leaving")
    site.http("POST", "/v1/tokens", "consumer", json={})
    assert len(refusals(site)) == 2
    before = site.registry.journal.head.seq
    strangers = (new_secret(Role.ADMIN)[1], "nonsense", site.tokens["leaving"][:-8] + "00000000")
    with httpx.Client(base_url=site.url, timeout=30, verify=False) as client:
        for _ in range(100):
            for token in (site.tokens["leaving"], *strangers):
                assert client.get("/v1/keys", headers={"Authorization": f"Bearer {token}"}).status_code == 401
            consumer = {"Authorization": f"Bearer {site.tokens['consumer']}"}
            assert client.get("/v1/audit/events", headers=consumer).status_code == 403
    assert site.registry.journal.head.seq == before


def test_the_id_of_a_revoked_token_without_its_secret_tells_nothing(site: Site) -> None:
    """Ids are no secrets: they stand in lists and logs."""
    site.add_token("leaving", Role.CI, "leaving person")
    leaving = id_of(site, "leaving")
    site.client("admin").revoke_token(leaving)
    body = f"tg_ci_{leaving}_{'0' * 64}"
    forged = f"{body}_{_checksum(body)}"
    assert site.http("GET", "/v1/keys", None, headers={"Authorization": f"Bearer {forged}"}).status_code == 401
    assert refusals(site) == []


def test_more_tokens_than_can_be_remembered_are_not_told(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(visitors, "_MOST_TOLD", 2)
    for who in ("consumer", "ci", "auditor", "trainer"):
        for _ in range(3):
            assert site.http("POST", "/v1/tokens", who, json={}).status_code == 403
    assert refusals(site) == [(id_of(site, "consumer"), "role"), (id_of(site, "ci"), "role")]


def test_what_was_told_in_earlier_hours_makes_room(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(visitors, "_MOST_TOLD", 2)
    start = datetime(2027, 1, 1, 10, tzinfo=UTC)
    try:
        for hours, people in enumerate((("consumer", "ci"), ("auditor", "trainer"))):
            site.registry._clock = lambda hours=hours: start + timedelta(hours=hours)
            for who in people:
                assert site.http("POST", "/v1/tokens", who, json={}).status_code == 403
    finally:
        site.registry._clock = lambda: datetime.now(UTC)
    assert len(refusals(site)) == 4


def test_a_refusal_that_cannot_be_told_is_still_a_refusal(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.registry._closing = True
    try:
        assert site.http("POST", "/v1/tokens", "consumer", json={}).status_code == 403
    finally:
        site.registry._closing = False
    assert refusals(site) == []


@pytest.mark.parametrize("cookie", [False, True])
def test_a_token_that_is_revoked_while_it_is_in_use_ends_with_the_next_call(site: Site, cookie: bool) -> None:
    site.add_token("leaving", Role.ADMIN, "leaving person")

    def use() -> int:
        if cookie:
            headers = {"Cookie": f"tunegate_token={site.tokens['leaving']}"}
            return site.http("GET", "/", None, headers=headers).status_code
        return site.http("GET", "/v1/tokens", "leaving").status_code

    assert [use() for _ in range(3)] == [200] * 3
    site.client("admin").revoke_token(id_of(site, "leaving"))
    assert [use() for _ in range(2)] == [401] * 2
    assert refusals(site) == [(id_of(site, "leaving"), "revoked")]
