"""Who is at the other end: what a client says of itself counts only as far as a setting says so."""

import contextlib
import ipaddress
import socket
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from site_under_test import Site, body, running

from registry import settings as environment
from registry.access import new_secret
from registry.api.visitors import client_of, is_https, require_host
from registry.errors import InvalidRequest, WrongHost
from registry.records import Role
from registry.settings import Home

PROXIES = tuple(ipaddress.ip_network(one) for one in ("10.0.0.0/8", "fd00::/8"))
NAMES = frozenset({"gate.example"})


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with running(Home(tmp_path_factory.mktemp("visitors") / "home")) as found:
        yield found


# -- host names -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "host",
    "localhost LOCALHOST:8420 127.0.0.1 127.0.0.1:8420 [::1]:8420 192.168.1.7:80 gate.example Gate.Example:443 "
    "gate.example.".split(),
)
def test_addresses_localhost_and_named_hosts_are_answered(host: str) -> None:
    require_host(host, NAMES)


@pytest.mark.parametrize(
    "host",
    [
        "",
        "evil.example",
        "evil.example:8420",
        "gate.example.evil.example",
        "evil.gate.example",
        "gate.example:8420:1",
        "gate.example@evil.example",
        "evil.example#gate.example",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "127.0.0.1.nip.io",
        "127.1",
        "0x7f000001",
        "[gate.example]",
        "[::1",
        "::1",
        "localhost\x00",
        "gate.example, evil.example",
        "x" * 5000,
    ],
)
def test_any_other_host_is_refused(host: str) -> None:
    with pytest.raises(WrongHost, match="TUNEGATE_HOSTS"):
        require_host(host, NAMES)


@settings(deadline=None)
@given(st.text(max_size=40))
def test_no_host_header_does_more_than_be_refused(host: str) -> None:
    with contextlib.suppress(WrongHost):
        require_host(host, NAMES)


@pytest.mark.parametrize(
    "path", ["/", "/healthz", "/v1/keys", "/v1/adapters", "/nowhere", "/schema/openapi.json", "/static/style.css"]
)
def test_a_page_whose_name_was_pointed_here_gets_nothing(site: Site, path: str) -> None:
    """DNS rebinding: the browser believes that it talks to evil.example, and says so."""
    for method in ("GET", "POST", "OPTIONS"):
        answer = site.http(method, path, headers={"Host": "evil.example:8420"})
        assert (answer.status_code, body(answer)["code"]) == (421, "wrong_host")
        assert answer.headers["Content-Type"] == "application/problem+json"
    assert site.http("GET", "/v1/keys", headers={"Host": "localhost:1"}).status_code == 200


def test_more_names_than_are_remembered_are_checked_each_time(site: Site) -> None:
    with httpx.Client(base_url=site.url, timeout=30, verify=False) as client:
        for number in range(120):
            assert client.get("/healthz", headers={"Host": f"127.0.1.{number}"}).status_code == 200
            assert client.get("/healthz", headers={"Host": f"evil-{number}.example"}).status_code == 421


@pytest.mark.parametrize("name", ["X-Forwarded-Host", "X-Original-Host", "Forwarded"])
def test_a_forwarded_host_is_no_host(site: Site, name: str) -> None:
    refused = site.http("GET", "/v1/keys", headers={"Host": "evil.example", name: "localhost"})
    assert refused.status_code == 421
    assert site.http("GET", "/v1/keys", headers={name: "evil.example"}).status_code == 200


@pytest.mark.parametrize(
    "lines",
    [
        b"HTTP/1.0",
        b"HTTP/1.1\r\nHost:",
        b"HTTP/1.1\r\nHost: localhost\r\nHost: evil.example",
        b"HTTP/1.1\r\nHost: localhost\r\nHost: localhost",
    ],
)
def test_a_request_with_no_host_or_with_two_is_refused(site: Site, lines: bytes) -> None:
    address = httpx.URL(site.url)
    with socket.create_connection((address.host, address.port or 0), timeout=30) as connection:
        connection.sendall(b"GET /healthz " + lines + b"\r\n\r\n")
        assert connection.recv(4096).split()[1] in (b"421", b"400")


def test_names_come_from_the_setting_and_from_what_is_listened_on(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    monkeypatch.setenv("TUNEGATE_HOSTS", " Gate.Example ,registry")
    assert environment.hosts() == {"gate.example", "registry"}
    with running(Home(tmp_path_factory.mktemp("named") / "home")) as named:
        for host, status in (("gate.example", 200), ("registry:8420", 200), ("localhost", 200), ("other", 421)):
            assert named.http("GET", "/v1/keys", headers={"Host": host}).status_code == status


# -- addresses and proxies --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("peer", "forwarded", "expected"),
    [
        ("203.0.113.9", [], "203.0.113.9"),
        ("203.0.113.9", ["198.51.100.1"], "203.0.113.9"),
        ("10.0.0.1", [], "10.0.0.1"),
        ("10.0.0.1", ["198.51.100.1"], "198.51.100.1"),
        # What stands before the entry that a proxy of ours added is the client's own word.
        ("10.0.0.1", ["1.1.1.1, 198.51.100.1"], "198.51.100.1"),
        ("10.0.0.1", ["1.1.1.1", "198.51.100.1"], "198.51.100.1"),
        ("10.0.0.1", ["198.51.100.1, 10.2.3.4"], "198.51.100.1"),
        ("10.0.0.1", ["10.2.3.4"], "10.2.3.4"),
        ("10.0.0.1", ["198.51.100.1, nonsense"], "unknown"),
        ("10.0.0.1", [""], "unknown"),
        ("::ffff:10.0.0.1", ["198.51.100.1"], "198.51.100.1"),
        ("::ffff:203.0.113.9", [], "203.0.113.9"),
        ("2001:db8:1:2:3:4:5:6", [], "2001:db8:1:2::/64"),
        ("fd00::1", ["2001:db8:1:2::9"], "2001:db8:1:2::/64"),
        ("", ["198.51.100.1"], "unknown"),
        ("/run/socket", [], "unknown"),
    ],
)
def test_the_address_is_the_connections_unless_a_trusted_proxy_says_otherwise(
    peer: str, forwarded: list[str], expected: str
) -> None:
    assert client_of(peer, forwarded, PROXIES) == expected


@settings(deadline=None)
@given(st.lists(st.text(max_size=20) | st.ip_addresses().map(str), max_size=5))
def test_without_trusted_proxies_nothing_that_is_forwarded_changes_the_address(forwarded: list[str]) -> None:
    assert client_of("203.0.113.9", forwarded, ()) == "203.0.113.9"
    assert client_of("203.0.113.9", forwarded, PROXIES) == "203.0.113.9"


@pytest.mark.parametrize(
    ("scheme", "peer", "forwarded", "expected"),
    [
        ("https", "203.0.113.9", [], True),
        ("http", "203.0.113.9", [], False),
        ("http", "203.0.113.9", ["https"], False),
        ("http", "10.0.0.1", ["https"], True),
        ("http", "10.0.0.1", ["https, http"], False),
        ("http", "10.0.0.1", ["http", "HTTPS"], True),
        ("http", "10.0.0.1", [], False),
        ("https", "10.0.0.1", ["http"], False),
    ],
)
def test_https_is_the_connections_or_a_trusted_proxys_word(
    scheme: str, peer: str, forwarded: list[str], expected: bool
) -> None:
    assert is_https(scheme, peer, forwarded, PROXIES) is expected


@pytest.mark.parametrize("written", ["10.0.0.0/33", "proxy.example", "10.0.0.1/8"])
def test_proxies_are_addresses_or_networks(monkeypatch: pytest.MonkeyPatch, written: str) -> None:
    monkeypatch.setenv("TUNEGATE_PROXIES", written)
    with pytest.raises(InvalidRequest, match="TUNEGATE_PROXIES"):
        environment.proxies()
    monkeypatch.setenv("TUNEGATE_PROXIES", "10.0.0.0/8, ::1,")
    assert environment.proxies() == (ipaddress.ip_network("10.0.0.0/8"), ipaddress.ip_network("::1"))


# -- tokens in addresses, other sites ---------------------------------------------------------------------------------


@pytest.mark.parametrize("query", ["token={}", "access_token={}", "ref=a/1&x={}", "{}", "a=Bearer%20{}"])
def test_a_token_in_the_address_is_refused_even_beside_a_good_header(site: Site, query: str) -> None:
    secret = new_secret(Role.CI)[1]
    for text in (secret, secret.replace("_", "%5F"), secret.replace("_", "%5f")):
        for who in (None, "admin"):
            answer = site.http("GET", "/v1/adapters?" + query.format(text), who)
            assert answer.status_code == 422 and "stands in the address" in body(answer)["detail"]
            assert text not in answer.text
    assert site.http("GET", "/v1/suites?tg_ci=1&x=tg_").status_code == 200


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://localhost:1"])
def test_no_other_site_is_ever_allowed_to_read_an_answer(site: Site, origin: str) -> None:
    """CORS: a preflight is refused, and no answer says that another origin may have it."""
    asked: dict[str, Any] = {
        "Origin": origin,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization, content-type",
    }
    for path in ("/v1/adapters", "/v1/tokens", "/v1/oidc/mint", "/sign-in", "/"):
        preflight = httpx.options(site.url + path, headers=asked, timeout=30, verify=False)
        assert not any(name.startswith("access-control") for name in preflight.headers), path
        plain = httpx.get(site.url + path, headers={"Origin": origin}, timeout=30, verify=False)
        assert not any(name.startswith("access-control") for name in plain.headers), path
    assert httpx.options(site.url + "/v1/adapters", headers=asked, timeout=30, verify=False).status_code == 401
