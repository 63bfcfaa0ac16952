"""Outgoing calls go to public addresses, by https, once resolved, in their time and their bytes, or not at all."""

import gzip
import ipaddress
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import NoReturn

import pytest
from hypothesis import given
from hypothesis import strategies as st
from receiver_under_test import (
    Receiver,
    answers,
    certified,
    drips,
    drips_its_body,
    floods,
    hangs,
    receiving,
    says_no_http,
    silent_listener,
)

from registry import outbound, settings
from registry.errors import AddressRefused, InvalidRequest, OutboundFailed
from registry.outbound import MOST_BYTES, WIRES, check_url, fetch, is_public, post

PUBLIC = "93.184.215.14"
SOON = WIRES._replace(seconds=0.5)


def nobody_calls(address: str, port: int, seconds: float) -> NoReturn:
    raise AssertionError(f"a connection to {address}:{port} was tried")


CAREFUL = WIRES._replace(dial=nobody_calls, seconds=5.0)

LOCAL_FORMS = [
    "127.1",
    "127.0.0.1",
    "2130706433",
    "0x7f000001",
    "0x7f.1",
    "0177.0.0.1",
    "017700000001",
    "0",
    "10.1",
    "169.254.169.254",
    "2852039166",
    "[::]",
    "[::1]",
    "[0:0:0:0:0:0:0:1]",
    "[::ffff:127.0.0.1]",
    "[::ffff:169.254.169.254]",
    "[::ffff:a9fe:a9fe]",
    "[::127.0.0.1]",
    "[64:ff9b::169.254.169.254]",
    "[64:ff9b:1::1]",
    "[2002:7f00:1::]",
    "[2001:0:7f00:1::]",
    "[fc00::1]",
    "[fe80::1]",
    "[ff02::1]",
]
UNREADABLE = [
    "https://127%2e0.0.1/",
    "https://127。0。0。1/",
    "https://１２７.0.0.1/",
    "https://[fe80::1%25eth0]/",
    "https://user:word@hooks.example/",
    "https://hooks.example@127.0.0.1/",
    "https://127.0.0.1\\@hooks.example/",
    "https://hooks.example/\r\nX-Injected: 1",
    "https://hooks.example/a b",
    "https://hooks.example/#fragment",
    "https://hooks.example:0/",
    "https://hooks.example:65536/",
    "https://hooks.example:https/",
    "https://[::1/",
    "https:///path",
    "https:hooks.example",
    "//hooks.example/",
    "hooks.example",
    "",
    "ftp://hooks.example/",
    "file:///etc/passwd",
    "gopher://hooks.example/",
    "https://hooks.example/" + "a" * 2000,
]
PRIVATE = (
    "127.0.0.1 127.255.255.254 0.0.0.0 10.0.0.1 172.16.0.1 172.31.255.254 192.168.1.1 169.254.169.254 100.64.0.1 "
    "192.0.0.8 192.0.2.1 198.18.0.1 198.51.100.1 203.0.113.1 192.88.99.1 224.0.0.1 239.1.1.1 240.0.0.1 "
    "255.255.255.255 ::1 :: ::ffff:127.0.0.1 ::ffff:8.8.8.8 64:ff9b::8.8.8.8 64:ff9b:1::1 2002:808:808:: 2001::1 "
    "2001:db8::1 3fff::1 100::1 5f00::1 fc00::1 fd12::1 fe80::1 fe80::1%1 fec0::1 ff02::1"
).split()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as found:
        yield found


def redirected_to(port: int, asked: list[str]) -> Callable[[str, int, float], socket.socket]:
    """A way of connecting that notes the address asked for and goes to loopback, where tests may go."""

    def dial(address: str, _: int, seconds: float) -> socket.socket:
        asked.append(address)
        return socket.create_connection(("127.0.0.1", port), timeout=seconds)

    return dial


# -- where a call may go -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", LOCAL_FORMS)
def test_no_form_of_a_local_address_is_called(host: str) -> None:
    with pytest.raises(AddressRefused, match="public address"):
        post(f"https://{host}/hook", b"{}", {}, wires=CAREFUL)
    with pytest.raises(AddressRefused):
        fetch(f"https://{host}:8443/keys", wires=CAREFUL)


@pytest.mark.parametrize("url", UNREADABLE)
def test_a_url_that_two_readers_could_read_differently_is_refused(url: str) -> None:
    with pytest.raises(AddressRefused):
        fetch(url, wires=CAREFUL)


@pytest.mark.parametrize("address", PRIVATE)
def test_a_name_at_an_address_that_is_not_public_is_not_called(address: str) -> None:
    assert not is_public(address)
    with pytest.raises(AddressRefused) as refused:
        post("https://hooks.example/", b"{}", {}, wires=CAREFUL._replace(resolve=lambda _: [address]))
    assert address not in str(refused.value), "what a private name server answers is not told"


@pytest.mark.parametrize("address", ["8.8.8.8", PUBLIC, "1.1.1.1", "2606:4700::1111", "2a00:1450:4001::1"])
def test_public_addresses_are_public(address: str) -> None:
    assert is_public(address)


@given(st.ip_addresses(v=4), st.ip_addresses(v=4))
def test_no_ipv6_form_of_an_ipv4_address_is_public(four: ipaddress.IPv4Address, other: ipaddress.IPv4Address) -> None:
    number, rest = int(four), int(other)
    forms = {
        "mapped": (0xFFFF << 32) | number,
        "compatible": number,
        "translated": (0xFFFF << 48) | number,
        "NAT64": (0x64FF9B << 96) | number,
        "6to4": (0x2002 << 112) | (number << 80) | rest,
        "Teredo": (0x20010000 << 96) | (rest << 64) | (number ^ 0xFFFFFFFF),
    }
    for name, form in forms.items():
        assert not is_public(str(ipaddress.IPv6Address(form))), name


@given(st.ip_addresses())
def test_what_python_calls_private_reserved_or_multicast_is_never_public(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> None:
    if address.is_private or address.is_reserved or address.is_multicast or address.is_link_local:
        assert not is_public(str(address))


def test_one_private_address_among_public_ones_is_enough_to_refuse() -> None:
    wires = CAREFUL._replace(resolve=lambda _: [PUBLIC, "10.0.0.7"])
    with pytest.raises(AddressRefused):
        post("https://hooks.example/", b"{}", {}, wires=wires)


def test_a_name_that_changes_its_answer_is_resolved_once_and_the_checked_address_is_called(
    tmp_path: Path,
) -> None:
    """DNS rebinding: the second answer would be loopback."""
    answered, asked, tls = [["127.0.0.1"], [PUBLIC]], list[str](), certified("hooks.example", tmp_path)
    with receiving(tls=tls.server) as receiver:
        wires = WIRES._replace(
            resolve=lambda _: answered.pop(), dial=redirected_to(receiver.port, asked), tls=lambda: tls.client
        )
        assert post("https://hooks.example/x", b"{}", {}, wires=wires).status == 204
        assert (asked, answered) == ([PUBLIC], [["127.0.0.1"]])
        with pytest.raises(AddressRefused):
            post("https://hooks.example/x", b"{}", {}, wires=wires)
    assert asked == [PUBLIC]
    assert [one.path for one in receiver.seen] == ["/x"]


def test_a_redirect_to_loopback_is_not_followed(receiver: Receiver) -> None:
    with receiving(answers(302, {"location": receiver.url})) as first:
        for call in (partial(post, body=b"{}", headers={}), fetch):
            answer = call(first.url, allow=frozenset({first.place, receiver.place}))
            assert (answer.status, answer.headers["location"]) == (302, receiver.url)
    assert receiver.seen == []


def test_the_next_address_is_called_where_the_first_does_not_answer(tmp_path: Path) -> None:
    tls, tried = certified("hooks.example", tmp_path), list[str]()

    def dial(address: str, port: int, seconds: float) -> socket.socket:
        tried.append(address)
        if len(tried) == 1:
            raise ConnectionRefusedError("nobody there")
        return socket.create_connection(("127.0.0.1", receiver.port), timeout=seconds)

    with receiving(tls=tls.server) as receiver:
        wires = WIRES._replace(resolve=lambda _: ["2606:4700::1111", PUBLIC], dial=dial, tls=lambda: tls.client)
        assert post("https://hooks.example/", b"{}", {}, wires=wires).status == 204
    assert tried == ["2606:4700::1111", PUBLIC]


def test_an_address_that_does_not_answer_leaves_time_for_the_next_and_no_more_than_four_are_tried() -> None:
    tried, shares = list[str](), list[float]()

    def dial(address: str, port: int, seconds: float) -> NoReturn:
        tried.append(address)
        shares.append(seconds)
        raise TimeoutError

    many = [f"8.8.8.{number}" for number in range(1, 10)]
    with pytest.raises(OutboundFailed, match="took longer"):
        fetch("https://hooks.example/", wires=WIRES._replace(resolve=lambda _: many, dial=dial))
    assert tried == many[:4]
    assert [round(WIRES.seconds / share) for share in shares] == [4, 3, 2, 1]


@pytest.mark.parametrize("found", [["not an address"], [""], [PUBLIC, "8.8.8.8/8"]])
def test_what_is_no_address_is_not_public(found: list[str]) -> None:
    with pytest.raises(AddressRefused):
        fetch("https://hooks.example/", wires=CAREFUL._replace(resolve=lambda _: found))


def test_a_name_without_an_address_fails_with_a_reason() -> None:
    with pytest.raises(OutboundFailed, match="it has no address"):
        fetch("https://hooks.example/", wires=CAREFUL._replace(resolve=lambda _: []))


# -- https, and who is exempt ------------------------------------------------------------------------------------------


def test_https_is_checked_for_the_host_name_although_the_connection_goes_to_an_address(tmp_path: Path) -> None:
    tls, names = certified("hooks.example", tmp_path), list[str | None]()
    tls.server.sni_callback = lambda _, name, __: names.append(name)
    with receiving(tls=tls.server) as receiver:
        wires = WIRES._replace(
            resolve=lambda _: [PUBLIC], dial=redirected_to(receiver.port, []), tls=lambda: tls.client
        )
        assert fetch("https://hooks.example:8443/keys?a=b", wires=wires).status == 204
        with pytest.raises(OutboundFailed, match="CERTIFICATE_VERIFY_FAILED"):
            fetch("https://other.example/keys", wires=wires)
        with pytest.raises(OutboundFailed, match="CERTIFICATE_VERIFY_FAILED"):
            fetch("https://hooks.example/keys", wires=wires._replace(tls=WIRES.tls))
        (seen,) = receiver.seen
    assert (seen.path, seen.headers["host"]) == ("/keys?a=b", "hooks.example:8443")
    assert names == ["hooks.example", "other.example", "hooks.example"]


def test_plain_http_and_private_addresses_are_for_named_places_only(receiver: Receiver) -> None:
    allow = frozenset({receiver.place})
    assert post(receiver.url, b"{}", {"content-type": "application/json"}, allow=allow).status == 204
    (seen,) = receiver.seen
    assert (seen.method, seen.body, seen.headers["content-type"]) == ("POST", b"{}", "application/json")
    assert "cookie" not in seen.headers and "accept-encoding" not in seen.headers
    for url in (receiver.url.replace("127.0.0.1", "127.1"), receiver.url.replace("127.0.0.1", "localhost")):
        with pytest.raises(AddressRefused):
            post(url, b"{}", {}, allow=allow, wires=CAREFUL)
    for near in (f"127.0.0.1:{receiver.port + 1}", "127.0.0.1", f"127.0.0.1:{str(receiver.port)[:-1]}"):
        with pytest.raises(AddressRefused):
            post(receiver.url, b"{}", {}, allow=frozenset({near}), wires=CAREFUL)


def test_the_exempt_places_are_read_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    assert settings.outbound_allow() == frozenset()
    monkeypatch.setenv("TUNEGATE_OUTBOUND_ALLOW", " Hooks.Local:80, [::1]:8080 ,")
    assert settings.outbound_allow() == {"hooks.local:80", "[::1]:8080"}
    assert check_url("http://[::1]:8080/a", settings.outbound_allow()).host == "::1"
    assert check_url("http://HOOKS.local/a", settings.outbound_allow()).place == "hooks.local:80"
    for wrong in ("hooks.local", "hooks.local:", ":80", "hooks.local:http"):
        monkeypatch.setenv("TUNEGATE_OUTBOUND_ALLOW", wrong)
        with pytest.raises(InvalidRequest, match="host:port"):
            settings.outbound_allow()


def test_proxies_of_the_environment_are_not_asked(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    with receiving() as proxy:
        for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
            monkeypatch.setenv(name, f"http://{proxy.place}")
        assert post(receiver.url, b"{}", {}, allow=frozenset({receiver.place})).status == 204
        assert (len(receiver.seen), proxy.seen) == (1, [])


# -- what a call may cost ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("behaviour", [hangs, drips])
def test_a_receiver_that_hangs_or_drips_is_cut(receiver: Receiver, behaviour: Callable[..., None]) -> None:
    receiver.behaviour = behaviour
    with pytest.raises(OutboundFailed, match=r"took longer than 0\.5 s"):
        post(receiver.url, b"{}", {}, allow=frozenset({receiver.place}), wires=SOON)
    assert len(receiver.seen) == 1


def test_a_body_that_drips_is_cut(receiver: Receiver) -> None:
    receiver.behaviour = drips_its_body
    with pytest.raises(OutboundFailed, match="took longer"):
        fetch(receiver.url, allow=frozenset({receiver.place}), wires=SOON)


def test_a_server_that_does_not_read_is_cut() -> None:
    with silent_listener() as port, pytest.raises(OutboundFailed, match="took longer"):
        url, allow = f"http://127.0.0.1:{port}/", frozenset({f"127.0.0.1:{port}"})
        post(url, bytes(32 * 1024 * 1024), {}, allow=allow, wires=SOON)


def test_a_server_that_does_not_shake_hands_is_cut() -> None:
    with silent_listener() as port, pytest.raises(OutboundFailed, match="took longer"):
        wires = SOON._replace(resolve=lambda _: [PUBLIC], dial=redirected_to(port, []))
        fetch("https://hooks.example/", wires=wires)


def test_a_name_server_that_does_not_answer_is_cut() -> None:
    done = threading.Event()

    def resolve(_: str) -> list[str]:
        done.wait(20)
        return [PUBLIC]

    with pytest.raises(OutboundFailed, match="took longer"):
        fetch("https://hooks.example/", wires=CAREFUL._replace(resolve=resolve, seconds=0.3))
    done.set()


def test_a_call_without_time_is_not_made() -> None:
    with pytest.raises(OutboundFailed, match="took longer than 0 s"):
        fetch("https://hooks.example/", wires=CAREFUL._replace(seconds=0.0, resolve=lambda _: [PUBLIC]))


def test_lookups_that_hang_do_not_pile_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbound, "_LOOKUPS", threading.BoundedSemaphore(1))
    done = threading.Event()
    wires = CAREFUL._replace(resolve=lambda _: [PUBLIC] if done.wait(20) else [], seconds=0.2)
    before = set(threading.enumerate())
    for _ in range(3):
        with pytest.raises(OutboundFailed, match="took longer"):
            fetch("https://hooks.example/", wires=wires)
    waiting = [one for one in threading.enumerate() if one not in before]
    done.set()
    for thread in waiting:
        thread.join(timeout=20)
    assert [one.name for one in waiting] == ["tunegate-resolver"]


def test_a_server_that_hangs_up_fails_with_a_reason() -> None:
    def hang_up() -> None:
        connection, _ = listener.accept()
        # Not an orderly end: what is sent from now on is answered by a reset.
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.recv(1)
        connection.close()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        place = f"127.0.0.1:{listener.getsockname()[1]}"
        thread = threading.Thread(target=hang_up)
        thread.start()
        with pytest.raises(OutboundFailed, match=r"cannot be reached|did not answer in HTTP"):
            post(f"http://{place}/", bytes(16 * 1024 * 1024), {}, allow=frozenset({place}))
        thread.join(timeout=20)


def test_of_a_gigabyte_no_more_than_the_limit_is_read(receiver: Receiver) -> None:
    receiver.behaviour = floods
    allow = frozenset({receiver.place})
    with pytest.raises(OutboundFailed, match=f"more than {MOST_BYTES} bytes"):
        fetch(receiver.url, allow=allow)
    assert post(receiver.url, b"{}", {}, allow=allow).status == 200, "the status was said before the flood"
    flooded: int = receiver.flooded  # type: ignore[attr-defined]
    assert flooded < 64 * 1024 * 1024, "what fits into the kernel's buffers may be sent, not more"


def test_an_answer_up_to_the_limit_is_whole(receiver: Receiver) -> None:
    body = bytes(range(256)) * (60 * 1024 // 256)
    receiver.behaviour = answers(200, {"X-Kind": "keys"}, body)
    answer = fetch(receiver.url, allow=frozenset({receiver.place}))
    assert (answer.status, answer.headers["x-kind"], answer.body) == (200, "keys", body)
    receiver.behaviour = answers(200, None, body + bytes(6 * 1024))
    with pytest.raises(OutboundFailed, match="more than"):
        fetch(receiver.url, allow=frozenset({receiver.place}))


def test_nothing_is_decompressed(receiver: Receiver) -> None:
    bomb = gzip.compress(bytes(20 * 1024 * 1024))
    receiver.behaviour = answers(200, {"content-encoding": "gzip"}, bomb)
    assert fetch(receiver.url, allow=frozenset({receiver.place})).body == bomb


def test_what_is_no_http_and_who_is_not_there_fail_with_a_reason(receiver: Receiver) -> None:
    receiver.behaviour = says_no_http
    with pytest.raises(OutboundFailed, match="did not answer in HTTP"):
        fetch(receiver.url, allow=frozenset({receiver.place}))
    with socket.create_server(("127.0.0.1", 0)) as gone:
        port = gone.getsockname()[1]
    with pytest.raises(OutboundFailed, match="cannot be reached"):
        fetch(f"http://127.0.0.1:{port}/", allow=frozenset({f"127.0.0.1:{port}"}))


@pytest.mark.parametrize("host", ["a..b.example", "x" * 64 + ".example"])
def test_a_name_that_no_name_server_could_know_fails_with_a_reason(host: str) -> None:
    with pytest.raises((OutboundFailed, AddressRefused)):
        fetch(f"https://{host}/", wires=CAREFUL)


def test_a_certificate_that_nobody_vouches_for_is_refused_by_default(tmp_path: Path) -> None:
    context = WIRES.tls()
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)
    assert context.minimum_version >= ssl.TLSVersion.TLSv1_2
