"""What a connection may cost: raw sockets against a real server."""

import asyncio
import contextlib
import ipaddress
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
import uvicorn

from registry.api import connections
from registry.api.connections import MAX_HEAD_BYTES, MAX_HEADERS, BoundedProtocol, bounded

Address = tuple[str, int]
GET = b"GET / HTTP/1.1\r\nHost: registry\r\n"


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Reads the body and answers with its length; `/endless` answers with more than anybody wants."""
    if scope["type"] != "http":
        return
    size, more = 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        size, more = size + len(message["body"]), message["more_body"]
    await send({"type": "http.response.start", "status": 200, "headers": [(b"x-size", str(size).encode())]})
    if scope["path"] == "/endless":
        for _ in range(2000):
            await send({"type": "http.response.body", "body": b"x" * 65536, "more_body": True})
            await asyncio.sleep(0)
    await send({"type": "http.response.body", "body": b"", "more_body": False})


@pytest.fixture
def protocol() -> type[BoundedProtocol]:
    return BoundedProtocol


@pytest.fixture
def server(protocol: type[BoundedProtocol], monkeypatch: pytest.MonkeyPatch) -> Iterator[uvicorn.Server]:
    monkeypatch.setattr(connections, "LOOK_SECONDS", 0.05)
    monkeypatch.setattr(connections, "HEAD_SECONDS", 0.5)
    monkeypatch.setattr(connections, "STALLED_ANSWER_SECONDS", 0.5)
    monkeypatch.setattr(connections, "MAX_CONNECTIONS", 20)
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, http=protocol, ws="none", lifespan="off", log_config=None))
    thread = threading.Thread(target=lambda: server.run(sockets=[listener]), daemon=True)
    thread.start()
    deadline = time.monotonic() + 20
    while not server.started and time.monotonic() < deadline:
        time.sleep(0.01)
    yield server
    server.should_exit = True
    thread.join(timeout=20)
    listener.close()
    assert not thread.is_alive()


@pytest.fixture
def address(server: uvicorn.Server) -> Address:
    found: Address = server.servers[0].sockets[0].getsockname()
    return found


@contextlib.contextmanager
def connected(address: Address, source: str = "127.0.0.1") -> Iterator[socket.socket]:
    with socket.create_connection(address, timeout=20, source_address=(source, 0)) as found:
        yield found


def answer(connection: socket.socket) -> bytes:
    """All that comes until the server closes."""
    found = b""
    with contextlib.suppress(ConnectionResetError):
        while chunk := connection.recv(65536):
            found += chunk
    return found


def exchange(address: Address, *pieces: bytes) -> bytes:
    with connected(address) as connection:
        with contextlib.suppress(ConnectionError):
            for piece in pieces:
                connection.sendall(piece)
        return answer(connection)


def test_an_ordinary_request_is_served(address: Address) -> None:
    found = exchange(address, GET + b"Connection: close\r\n\r\n")
    assert found.startswith(b"HTTP/1.1 200") and b"x-size: 0" in found


def test_several_requests_share_a_connection(address: Address) -> None:
    found = exchange(address, GET + b"\r\n", GET + b"\r\n" + GET + b"Connection: close\r\n\r\n")
    assert found.count(b"HTTP/1.1 200") == 3


@pytest.mark.parametrize("first", [b"", b"G", GET, GET + b"X-Endless: aaaa"])
def test_a_head_that_does_not_end_is_answered_408_and_closed(address: Address, first: bytes) -> None:
    found = exchange(address, first)
    assert found.startswith(b"HTTP/1.1 408") and b"application/problem+json" in found and b'"too_slow"' in found


def test_a_head_that_drips_is_cut_all_the_same(address: Address) -> None:
    with connected(address) as connection:
        began = time.monotonic()
        with contextlib.suppress(ConnectionError):
            while time.monotonic() - began < 15:
                connection.sendall(b"X")
                time.sleep(0.02)
                connection.settimeout(0.01)
                with contextlib.suppress(TimeoutError):
                    if connection.recv(1, socket.MSG_PEEK):
                        break
        connection.settimeout(20)
        assert answer(connection).startswith((b"HTTP/1.1 408", b"HTTP/1.1 400"))


def test_the_second_request_of_a_connection_has_the_same_limit(address: Address) -> None:
    found = exchange(address, GET + b"\r\n", GET)
    assert found.count(b"HTTP/1.1 200") == 1 and found.count(b"HTTP/1.1 408") == 1


def test_too_many_headers_are_refused(address: Address) -> None:
    most = b"".join(b"X-%d: a\r\n" % number for number in range(MAX_HEADERS - 2))
    assert exchange(address, GET + most + b"Connection: close\r\n\r\n").startswith(b"HTTP/1.1 200")
    more = most + b"X-One: a\r\nX-Two: a\r\n"
    found = exchange(address, GET + more + b"\r\n")
    assert found.startswith(b"HTTP/1.1 431") and b'"head_too_large"' in found


@pytest.mark.parametrize(
    "head",
    [
        GET + b"X-Long: " + b"a" * MAX_HEAD_BYTES + b"\r\n\r\n",
        GET + b"X-Long: " + b"a" * (4 * MAX_HEAD_BYTES),
        b"GET /" + b"a" * MAX_HEAD_BYTES + b" HTTP/1.1\r\nHost: registry\r\n\r\n",
    ],
    ids=["one header", "a header without an end", "a path"],
)
def test_too_large_a_head_is_refused(address: Address, head: bytes) -> None:
    assert exchange(address, head).startswith(b"HTTP/1.1 431")


def test_what_is_no_http_is_refused_as_a_problem(address: Address) -> None:
    found = exchange(address, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n")
    assert found.startswith(b"HTTP/1.1 400") and b"application/problem+json" in found and b'"malformed"' in found


def test_a_body_that_drips_is_cut(address: Address) -> None:
    post = b"POST / HTTP/1.1\r\nHost: registry\r\nContent-Length: 100000\r\n\r\n"
    found = exchange(address, post, b"abc")
    assert found.startswith(b"HTTP/1.1 408") and b"the body arrives slower" in found


def test_a_large_body_at_speed_is_read_whole(address: Address) -> None:
    size = 5_000_000
    post = b"POST / HTTP/1.1\r\nHost: registry\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % size
    assert b"x-size: 5000000" in exchange(address, post, b"b" * size)


def test_an_answer_that_nobody_reads_does_not_hold_the_server(server: uvicorn.Server, address: Address) -> None:
    with connected(address) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.sendall(b"GET /endless HTTP/1.1\r\nHost: registry\r\n\r\n")
        assert connection.recv(1) == b"H"
        assert server.server_state.connections and server.server_state.tasks
        deadline = time.monotonic() + 15
        while (server.server_state.connections or server.server_state.tasks) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not server.server_state.connections and not server.server_state.tasks


def test_more_connections_than_the_limit_are_told_so_and_the_others_go_on(address: Address) -> None:
    with contextlib.ExitStack() as stack:
        held = []
        for _ in range(20):
            connection = stack.enter_context(connected(address))
            connection.sendall(GET + b"\r\n")
            held.append(connection)
            assert connection.recv(65536).startswith(b"HTTP/1.1 200")
        assert exchange(address).startswith(b"HTTP/1.1 503")
        held[0].sendall(GET + b"Connection: close\r\n\r\n")
        assert answer(held[0]).startswith(b"HTTP/1.1 200")


def served_on(connection: socket.socket) -> bool:
    connection.sendall(GET + b"\r\n")
    return connection.recv(65536).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize("protocol", [bounded(5, ())])
def test_one_address_holds_its_share_of_the_connections_and_no_more(address: Address) -> None:
    with contextlib.ExitStack() as stack:
        held = [stack.enter_context(connected(address, "127.0.0.2")) for _ in range(5)]
        assert all(map(served_on, held))
        with connected(address, "127.0.0.2") as one_more:
            found = answer(one_more)
        assert found.startswith(b"HTTP/1.1 429") and b'"too_many_requests"' in found
        assert b"\r\nretry-after: 5\r\n" in found and b"application/problem+json" in found
        others = [stack.enter_context(connected(address, "127.0.0.3")) for _ in range(5)]
        assert all(map(served_on, others)), "another address has a share of its own"
        held[0].close()
        deadline = time.monotonic() + 15
        while time.monotonic() < deadline:
            with connected(address, "127.0.0.2") as again:
                if served_on(again):
                    return
        raise AssertionError("a share is free again once a connection of it is closed")


@pytest.mark.parametrize("protocol", [bounded(5, (ipaddress.ip_network("127.0.0.2/32"),))])
def test_a_trusted_proxy_has_no_share_but_the_whole_limit(address: Address) -> None:
    with contextlib.ExitStack() as stack:
        held = [stack.enter_context(connected(address, "127.0.0.2")) for _ in range(20)]
        assert all(map(served_on, held))
        with connected(address, "127.0.0.2") as one_more:
            assert answer(one_more).startswith(b"HTTP/1.1 503")
