"""Clients that are slow, silent, half gone or absurd, all at once: others are served. And many who write at once."""

import contextlib
import resource
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import httpx
import msgspec
import pytest
from factories import sha
from registry_under_test import ADMIN, CI, NAME, bench_in, submission
from server_under_test import PLAIN, Server, served
from soak import amount

from registry.commands import tokens
from registry.records import CreateToken, Role, Rollback
from registry.settings import Home
from registry.storage.journal import verify_chain

pytestmark = pytest.mark.slow
IDLE, SLOW, HALF = 200, 50, 50
WRITERS, EACH = 32, amount(6, 50)


@pytest.fixture
def secrets(home: Home) -> dict[str, str]:
    """By role; the alias has named versions 1 and 2."""
    with bench_in(home.root) as bench:
        bench.create_adapter()
        for fill in (1, 2):
            bench.promote(bench.approvable(fill))
        people = {Role.CI: CI.person}
        requests = [CreateToken(role=role, person=people.get(role, f"{role} person")) for role in Role]
        return {str(one.role): bench.run(ADMIN, tokens.create, request=one).value.secret for one in requests}


class Crowd:
    """Connections that take the server's time and give nothing for it, from one address that is not everyone's."""

    def __init__(self, url: str) -> None:
        self._address = (urlsplit(url).hostname, urlsplit(url).port)
        self._open = contextlib.ExitStack()
        self._slow: list[socket.socket] = []
        self._end = threading.Event()

    def connect(self, data: bytes = b"") -> socket.socket:
        made = self._open.enter_context(
            socket.create_connection(self._address, timeout=30, source_address=("127.0.0.2", 0))
        )
        with contextlib.suppress(OSError):  # past its share of connections it is hung up on
            made.sendall(data)
        return made

    def gather(self) -> None:
        for _ in range(IDLE):
            self.connect()
        for _ in range(SLOW):
            self._slow.append(self.connect(b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Slow: "))
        for _ in range(HALF):
            half = self.connect(b"GET /healthz HTTP/1.1\r\n")
            with contextlib.suppress(OSError):
                half.shutdown(socket.SHUT_WR)
            self.connect(b"PUT /v1/blobs/sha256:" + b"0" * 64 + b" HTTP/1.1\r\nContent-Length: 1000000\r\n\r\nx")
        threading.Thread(target=self._drip, daemon=True).start()

    def _drip(self) -> None:
        """A byte to each, again and again: slow loris."""
        while not self._end.wait(0.2):
            for one in self._slow:
                with contextlib.suppress(OSError):
                    one.sendall(b"x")

    def leave(self) -> None:
        self._end.set()
        self._open.close()


@pytest.fixture
def crowded(home: Home, secrets: dict[str, str]) -> Iterator[str]:
    with served(home) as url:
        crowd = Crowd(url)
        crowd.gather()
        yield url
        crowd.leave()


def test_beside_hundreds_of_silent_and_slow_connections_everyone_else_is_served(
    crowded: str, secrets: dict[str, str]
) -> None:
    with PLAIN(base_url=crowded, headers={"Authorization": f"Bearer {secrets['ci']}"}) as http:
        for number in range(20):
            assert http.get("/healthz").status_code == 200
            assert http.get("/readyz").status_code == 200
            assert http.get("/v1/resolve", params={"ref": f"{NAME}@approved"}).json()["number"] == 2
            blob = b"%d" % number * 100_000
            assert http.put(f"/v1/blobs/sha256:{sha(blob)}", content=blob).status_code == 201
        body = msgspec.json.encode(submission(3))
        made = http.post(f"/v1/adapters/{NAME}/versions", content=body, headers={"Content-Type": "application/json"})
        assert made.status_code == 201, made.text


def test_a_low_limit_of_open_files_is_raised_to_what_its_connections_need(home: Home) -> None:
    server = Server(home, before=("sh", "-c", 'ulimit -Sn 256; exec "$@"', "sh"))
    try:
        server.address()
        soft, hard = resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE)
    finally:
        server.kill()
    assert soft == (8192 if hard == resource.RLIM_INFINITY else min(hard, 8192))


@pytest.mark.parametrize(
    "head",
    [
        b"".join(b"X-%d: y\r\n" % number for number in range(10_000)),
        b"X-Huge: " + b"y" * 1_000_000 + b"\r\n",
        b"X-Huge: " + b"y" * 1_000_000,
        b"Cookie: " + b"a=b; " * 100_000 + b"\r\n",
        b"Authorization: Bearer " + b"tg_" * 100_000 + b"\r\n",
    ],
    ids=["10,000 headers", "a megabyte in one", "one without an end", "a cookie", "a token"],
)
def test_absurd_headers_are_refused_and_cost_nobody_else(home: Home, secrets: dict[str, str], head: bytes) -> None:
    with served(home) as url, PLAIN(base_url=url) as http:
        for _ in range(5):
            with socket.create_connection((urlsplit(url).hostname, urlsplit(url).port), timeout=30) as odd:
                # The server may answer and hang up before it was told everything.
                with contextlib.suppress(OSError):
                    odd.sendall(b"GET /v1/tokens HTTP/1.1\r\nHost: 127.0.0.1\r\n" + head + b"\r\n\r\n")
                with contextlib.suppress(ConnectionError):
                    answer = odd.recv(65536)
                    assert answer == b"" or answer.split()[1] in (b"400", b"413", b"431"), answer[:200]
            assert http.get("/healthz").status_code == 200


def test_many_who_write_at_once_each_get_their_own_and_the_order_is_one(home: Home, secrets: dict[str, str]) -> None:
    """Versions are numbered without a gap, and of alias moves with If-Match exactly as many win as the counter says."""
    with served(home) as url, ThreadPoolExecutor(WRITERS) as pool:
        before = verify_chain(home.journal).seq

        def write(writer: int) -> list[tuple[int, int]]:
            found = []
            with PLAIN(base_url=url, timeout=120) as http:
                for turn in range(EACH):
                    answer = version(http, secrets, writer * EACH + turn) if writer % 4 else move(http, secrets)
                    found.append((answer.status_code, answer.json().get("number") if writer % 4 else 0))
            return found

        answers = list(pool.map(write, range(WRITERS)))
    made = sorted(number for writer, found in enumerate(answers) if writer % 4 for _, number in found)
    moves = [status for writer, found in enumerate(answers) if writer % 4 == 0 for status, _ in found]
    assert made == list(range(3, 3 + len(made))) and len(made) == WRITERS * EACH * 3 // 4
    assert set(moves) <= {200, 412} and 200 in moves
    with bench_in(home.root) as bench:
        alias = bench.registry.view().alias(NAME, "approved")
        assert alias is not None and alias.counter == 2 + moves.count(200)
        assert bench.registry.journal.head.seq == before + len(made) + moves.count(200)
        assert bench.rebuilt() == bench.tables()


def version(http: httpx.Client, secrets: dict[str, str], fill: int) -> httpx.Response:
    request = submission(1)
    weights = msgspec.structs.replace(request.files[1], sha256=f"{fill + 1:064x}")
    request = msgspec.structs.replace(request, files=[request.files[0], weights])
    headers = {"Authorization": f"Bearer {secrets['ci']}", "Content-Type": "application/json"}
    return http.post(f"/v1/adapters/{NAME}/versions", content=msgspec.json.encode(request), headers=headers)


def move(http: httpx.Client, secrets: dict[str, str]) -> httpx.Response:
    """To the other version than the alias names now, if it still names it."""
    headers = {"Authorization": f"Bearer {secrets['release-manager']}", "Content-Type": "application/json"}
    now = http.get(f"/v1/adapters/{NAME}/aliases/approved", headers=headers)
    back = Rollback(to=3 - now.json()["number"], reason="at once")
    headers["If-Match"] = now.headers["ETag"]
    path = f"/v1/adapters/{NAME}/aliases/approved/rollback"
    return http.post(path, content=msgspec.json.encode(back), headers=headers)
