"""Rate limits: what they stop, whom they never stop, and that nobody fills the memory with them."""

import math
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from server_under_test import served
from site_under_test import Site, body, running

from registry.access import new_secret
from registry.api.limits import Buckets, Rate, Rates, set_rates
from registry.errors import InvalidRequest, TooManyRequests
from registry.records import Role
from registry.settings import Home

pytestmark = pytest.mark.slow


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def allowed(buckets: Buckets, key: str) -> bool:
    try:
        buckets.take(key, "things")
    except TooManyRequests:
        return False
    return True


# -- the rule ---------------------------------------------------------------------------------------------------------


def test_a_bucket_gives_its_burst_and_then_what_it_regains() -> None:
    clock = Clock()
    buckets = Buckets(Rate(3, 0.5), clock)
    assert [allowed(buckets, "a") for _ in range(5)] == [True, True, True, False, False]
    assert allowed(buckets, "b"), "one key takes nothing from another"
    clock.now = 1.9
    assert not allowed(buckets, "a")
    clock.now = 2.0
    assert [allowed(buckets, "a") for _ in range(2)] == [True, False]
    clock.now = 1000.0
    assert [allowed(buckets, "a") for _ in range(4)] == [True, True, True, False], "never more than the burst"


@settings(deadline=None)
@given(
    st.floats(1, 50),
    st.floats(0.01, 50),
    st.lists(st.floats(0, 5), max_size=60),
)
def test_no_key_ever_gets_more_than_burst_and_rate_allow(burst: float, per_second: float, pauses: list[float]) -> None:
    clock = Clock()
    buckets = Buckets(Rate(burst, per_second), clock)
    given_out = 0
    for pause in pauses:
        clock.now += pause
        given_out += allowed(buckets, "a")
        assert given_out <= burst + clock.now * per_second + 1e-6


@settings(deadline=None)
@given(st.floats(1, 5), st.floats(0.01, 50), st.floats(0, 0.9))
def test_who_waits_as_long_as_told_is_let_in(burst: float, per_second: float, pause: float) -> None:
    clock = Clock()
    buckets = Buckets(Rate(burst, per_second), clock)
    for _ in range(math.floor(burst)):
        assert allowed(buckets, "a")
    clock.now += pause / per_second
    if allowed(buckets, "a"):
        return
    with pytest.raises(TooManyRequests) as refused:
        buckets.take("a", "things")
    assert refused.value.retry_seconds >= 1 and f"{refused.value.retry_seconds} s" in str(refused.value)
    clock.now += refused.value.retry_seconds
    assert allowed(buckets, "a")


def test_a_clock_that_stands_still_gives_nothing_away() -> None:
    buckets = Buckets(Rate(2, 1000.0), Clock())
    assert [allowed(buckets, "a") for _ in range(4)] == [True, True, False, False]


def test_coming_from_many_addresses_fills_no_memory() -> None:
    buckets = Buckets(Rate(2, 0.001), Clock())
    for number in range(30_000):
        buckets.take(f"address {number}", "things")
    assert len(buckets._buckets) == 10_000
    assert allowed(buckets, "address 29999") and not allowed(buckets, "address 29999"), "the newest are still counted"


@pytest.mark.parametrize(("written", "expected"), [("", None), ("50", Rate(500.0, 50.0)), ("0.05", Rate(1.0, 0.05))])
def test_requests_are_counted_where_the_setting_says_so(
    monkeypatch: pytest.MonkeyPatch, written: str, expected: Rate | None
) -> None:
    monkeypatch.setenv("TUNEGATE_RATE", written)
    assert set_rates() == Rates(requests=expected)


@pytest.mark.parametrize("written", ["0", "-1", "many", "nan", "inf", "1e9"])
def test_a_rate_that_is_no_rate_is_refused(monkeypatch: pytest.MonkeyPatch, written: str) -> None:
    monkeypatch.setenv("TUNEGATE_RATE", written)
    with pytest.raises(InvalidRequest, match="TUNEGATE_RATE"):
        set_rates()


# -- over HTTP --------------------------------------------------------------------------------------------------------

SLOW = 1e-4  # permits a second: none comes back while a test runs
RATES = Rates(failures=Rate(5, SLOW), mints=Rate(3, SLOW), creations=Rate(20, SLOW))


@pytest.fixture
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with running(Home(tmp_path_factory.mktemp("limits") / "home"), rates=RATES) as found:
        yield found


def ask(site: Site, token: str, **headers: str) -> httpx.Response:
    return site.http("GET", "/v1/keys", None, headers={"Authorization": f"Bearer {token}", **headers})


def check_refused(answer: httpx.Response) -> None:
    problem = body(answer)
    assert (answer.status_code, problem["code"]) == (429, "too_many_requests")
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert int(answer.headers["Retry-After"]) >= 1 and answer.headers["Retry-After"] in problem["detail"]


def test_wrong_tokens_of_one_address_are_soon_refused_and_good_ones_never(site: Site) -> None:
    for _ in range(5):
        assert ask(site, new_secret(Role.ADMIN)[1]).status_code == 401
    for _ in range(3):
        check_refused(ask(site, new_secret(Role.ADMIN)[1]))
    for _ in range(20):
        assert ask(site, site.tokens["admin"]).status_code == 200
    check_refused(ask(site, "nonsense"))


@pytest.mark.parametrize("header", ["X-Forwarded-For", "X-Real-IP", "Forwarded", "CF-Connecting-IP"])
def test_what_a_client_says_of_its_address_evades_nothing(site: Site, header: str) -> None:
    statuses = [ask(site, "nonsense", **{header: f"203.0.113.{number}"}).status_code for number in range(8)]
    assert statuses == [401] * 5 + [429] * 3


def test_the_server_as_it_is_run_believes_no_forwarded_address_either(tmp_path: Path) -> None:
    """uvicorn by itself believes X-Forwarded-For from this machine, where a proxy usually stands."""
    with served(Home(tmp_path / "home")) as url, httpx.Client(base_url=url, timeout=30, verify=False) as client:
        headers = {"Authorization": "Bearer nonsense"}
        statuses = [
            client.get("/v1/keys", headers={**headers, "X-Forwarded-For": f"203.0.113.{n}"}).status_code
            for n in range(110)
        ]
    # A permit a second comes back meanwhile.
    assert set(statuses[:100]) == {401} and 429 in statuses[100:]


def test_signing_in_with_wrong_tokens_counts_the_same(site: Site) -> None:
    with httpx.Client(base_url=site.url, timeout=30, verify=False) as browser:
        field = browser.get("/").text.partition('name="form_token" value="')[2].partition('"')[0]
        form = {"token": "nonsense", "form_token": field}
        statuses = [browser.post("/sign-in", data=form).status_code for _ in range(7)]
        assert statuses == [401] * 5 + [429] * 2
        assert browser.post("/sign-in", data={**form, "token": site.tokens["admin"]}).status_code == 303
    cookies = {"Cookie": "tunegate_token=nonsense"}
    check_refused(httpx.get(site.url, headers=cookies, timeout=30, verify=False))


def test_exchanges_are_counted_whatever_comes_of_them(site: Site) -> None:
    statuses = [
        httpx.post(f"{site.url}/v1/oidc/mint", json={"token": "x"}, timeout=30, verify=False).status_code
        for _ in range(5)
    ]
    assert statuses == [401] * 3 + [429] * 2


def test_making_tokens_is_counted_for_each_maker(site: Site) -> None:
    site.add_token("other-admin", Role.ADMIN, "other admin")
    made = {"role": "ci", "person": "x"}
    statuses = [site.http("POST", "/v1/tokens", "other-admin", json=made).status_code for _ in range(22)]
    assert statuses == [201] * 20 + [429] * 2
    check_refused(site.http("POST", "/v1/tokens", "other-admin", json=made))
    assert site.http("GET", "/v1/tokens", "other-admin").status_code == 200, "nothing else is"


def test_with_a_general_limit_one_token_that_asks_too_often_stops_no_other(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    rates = Rates(requests=Rate(20, SLOW))
    with running(Home(tmp_path_factory.mktemp("general") / "home"), rates=rates) as site:
        statuses = [ask(site, site.tokens["ci"]).status_code for _ in range(23)]
        assert statuses == [200] * 20 + [429] * 3
        check_refused(ask(site, site.tokens["ci"]))
        assert ask(site, site.tokens["consumer"]).status_code == 200
        assert httpx.get(f"{site.url}/healthz", timeout=30, verify=False).status_code == 200
