"""The SDK against a real registry, a connection that breaks, and things that are no registry."""

import asyncio
import contextlib
import hashlib
import os
import socket
import socketserver
import threading
import uuid
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import msgspec
import pytest
from factories import BASE, make_adapter, sha
from site_under_test import Site, running

import registry.client
from registry.client import AsyncClient, Client, Refused, Unreachable
from registry.records import CreateAdapter, CreateToken, Policy, ReviewRule, Role, Verdict
from registry.settings import Home

pytestmark = pytest.mark.slow

MIB = 1024 * 1024


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with running(Home(tmp_path_factory.mktemp("client") / "home")) as found:
        found.create_adapter()
        found.approved(tmp_path_factory.mktemp("rows"))
        yield found


class Line(socketserver.ThreadingTCPServer):
    """A connection to a registry that breaks: `cuts` says after how many bytes upwards each of the first calls ends.

    None in `cuts` lets the request through and loses its answer.
    """

    daemon_threads = False  # closing waits for the calls, so that no thread outlives its test

    def __init__(self, site: Site, cuts: list[int | None]) -> None:
        super().__init__(("127.0.0.1", 0), _Call)
        host, port = site.url.removeprefix("http://").split(":")
        self.upstream, self.cuts, self.sent = (host, int(port)), cuts, 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Call(socketserver.BaseRequestHandler):
    server: Line

    def handle(self) -> None:
        broken = bool(self.server.cuts)
        cut = self.server.cuts.pop(0) if broken else None
        with socket.create_connection(self.server.upstream, timeout=20) as upstream:
            back = threading.Thread(target=self._answer, args=(upstream,))
            if not broken:
                back.start()
            left = cut if cut is not None else 1 << 60
            self.request.settimeout(0.3 if broken and cut is None else 20)
            with contextlib.suppress(OSError):
                while left > 0 and (data := self.request.recv(min(65536, left))):
                    left -= len(data)
                    self.server.sent += len(data)
                    upstream.sendall(data)
            if broken and cut is None:
                upstream.recv(65536)  # the registry has answered; nobody hears it
            if not broken:
                upstream.shutdown(socket.SHUT_RDWR)
                back.join()

    def _answer(self, upstream: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := upstream.recv(65536):
                self.request.sendall(data)


@contextlib.contextmanager
def line(site: Site, *cuts: int | None) -> Iterator[Line]:
    with Line(site, list(cuts)) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield server
        server.shutdown()


class Script(ThreadingHTTPServer):
    """Answers what it is told, whatever is asked, and remembers the requests."""

    daemon_threads = False

    def __init__(self, answers: list[tuple[int, str, bytes]]) -> None:
        super().__init__(("127.0.0.1", 0), _Scripted)
        self.answers, self.asked = answers, list[tuple[str, dict[str, str]]]()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Scripted(BaseHTTPRequestHandler):
    server: Script

    def _answer(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.asked.append((f"{self.command} {self.path}", dict(self.headers)))
        answers = self.server.answers
        status, kind, content = answers.pop(0) if len(answers) > 1 else answers[0]
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST = do_PUT = do_DELETE = _answer

    def log_message(self, *_: Any) -> None:
        pass


@contextlib.contextmanager
def script(*answers: tuple[int, str, bytes]) -> Iterator[Script]:
    with Script(list(answers)) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield server
        server.shutdown()


BUSY = (503, "application/problem+json", b'{"detail": "busy", "code": "unavailable", "status": 503}')
SUITES = (200, "application/json", b"[]")


def test_the_public_surface_is_what_is_exported() -> None:
    exported = registry.client.__all__
    assert len(set(exported)) == len(exported)
    assert all(hasattr(registry.client, name) for name in exported)
    assert {"Client", "AsyncClient", "Refused", "Unreachable"} <= set(exported)


# -- uploads --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("as_file", [True, False])
def test_an_upload_goes_on_where_the_connection_broke(site: Site, tmp_path: Path, as_file: bool) -> None:
    data = os.urandom(12 * MIB)
    source: Path | bytes = data
    if as_file:
        source = tmp_path / "weights.safetensors"
        source.write_bytes(data)
    with line(site, 7 * MIB) as server, Client(server.url, site.tokens["ci"]) as client:
        entry = client.upload(source)
        # The broken attempt, a short question, and the rest: not everything once more.
        assert len(data) < server.sent < len(data) + 6 * MIB
    assert (entry.size, entry.sha256) == (len(data), sha(data))
    assert hashlib.sha256(site.registry.blobs.path(sha(data)).read_bytes()).hexdigest() == sha(data)


def test_an_upload_whose_every_byte_had_arrived_is_finished(site: Site) -> None:
    """The registry was stopped after the last byte and before the blob was published."""
    data = os.urandom(1000)
    part = site.home.blobs / "parts" / sha(data)
    part.write_bytes(data)
    with line(site, 10) as server, Client(server.url, site.tokens["ci"]) as client:
        client.upload(data)
    assert site.registry.blobs.path(sha(data)).read_bytes() == data and not part.exists()


def test_an_upload_waits_for_a_connection_whose_end_was_not_noticed_yet(site: Site) -> None:
    data = os.urandom(1000)
    held = site.registry.blobs.upload(sha(data), total=1000, offset=0)
    threading.Timer(0.2, held.pause).start()
    assert site.client("ci").upload(data).sha256 == sha(data)
    assert site.registry.blobs.path(sha(data)).read_bytes() == data


def test_a_line_that_breaks_every_time_is_given_up(site: Site) -> None:
    data = os.urandom(1000)
    with line(site, *[10] * 9) as server, Client(server.url, site.tokens["ci"]) as client:
        with pytest.raises(Unreachable, match="no answer from"):
            client.upload(data)
        assert len(server.cuts) == 5


# -- repeated calls -------------------------------------------------------------------------------------------------


def test_a_call_whose_answer_was_lost_is_made_once(site: Site) -> None:
    name = f"lost-{uuid.uuid4().hex[:8]}"
    with line(site, None) as server, Client(server.url, site.tokens["admin"]) as client:
        assert client.create_adapter(CreateAdapter(name=name, base=BASE)).name == name
        assert not server.cuts
    assert site.client("admin").adapter(name).versions == 0


def test_a_tokens_secret_that_was_lost_on_the_way_is_not_made_up(site: Site) -> None:
    with line(site, None) as server, Client(server.url, site.tokens["admin"]) as client:
        made = client.create_token(CreateToken(role=Role.CI, person="unlucky"))
    assert made.secret is msgspec.UNSET and made.token.person == "unlucky"
    assert [one.person for one in site.client("admin").tokens()].count("unlucky") == 1


def test_a_busy_registry_is_asked_again_with_the_same_key() -> None:
    answer = (201, "application/json", b'{"token": null}')
    with script(BUSY, answer) as server, Client(server.url, "t") as client:
        with pytest.raises(Unreachable):  # what it answers in the end is nonsense, but it was asked twice
            client.create_token(CreateToken(role=Role.CI, person="x"))
        keys = [headers["Idempotency-Key"] for _, headers in server.asked]
        assert len(keys) == 2 and len(set(keys)) == 1
        with pytest.raises(Unreachable):
            client.create_token(CreateToken(role=Role.CI, person="x"))
        assert server.asked[2][1]["Idempotency-Key"] != keys[0]
    with script(SUITES) as server, Client(server.url, "t") as client:
        assert client.suites() == [] and "Idempotency-Key" not in server.asked[0][1]


def test_a_registry_that_stays_busy_is_reported_as_busy() -> None:
    with script(BUSY) as server, Client(server.url, "t") as client:
        with pytest.raises(Refused) as refused:
            client.suites()
        assert (refused.value.status, refused.value.code, len(server.asked)) == (503, "unavailable", 4)


def test_a_refusal_is_not_asked_again() -> None:
    no = (409, "application/problem+json", b'{"detail": "no", "code": "conflict"}')
    with script(no) as server, Client(server.url, "t") as client:
        with pytest.raises(Refused, match="no"):
            client.complete("a/1")
        assert len(server.asked) == 1


# -- what is no registry ----------------------------------------------------------------------------------------------


def test_where_nothing_listens_the_message_says_where_and_what_to_do() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with Client(f"http://127.0.0.1:{port}/", "tg_secret") as client:
        with pytest.raises(Unreachable) as unreachable:
            client.suites()
        assert not client.ready()
    message = str(unreachable.value)
    assert f"127.0.0.1:{port}" in message and "tunegate serve" in message and "tg_secret" not in message


@pytest.mark.parametrize(
    "answer",
    [
        (200, "text/html", b"<html>welcome</html>"),
        (404, "text/html", b"<html>not here</html>"),
        (200, "application/json", b'{"items": 5}'),
        (302, "text/html", b""),
        (500, "application/problem+json", b"[]"),
    ],
)
def test_another_server_is_recognised(answer: tuple[int, str, bytes]) -> None:
    with script(answer) as server, Client(server.url, "t") as client:
        with pytest.raises(Unreachable, match="registry"):
            list(client.adapters())
        assert not client.ready() or answer[0] == 200


# -- refusals and answers ----------------------------------------------------------------------------------------------


def test_a_refusal_carries_what_the_registry_said(site: Site) -> None:
    with pytest.raises(Refused) as refused:
        site.client("admin").set_policy("support-bot", Policy(review=ReviewRule(reviewers=9, min_mean=7)))
    assert (refused.value.status, refused.value.code, refused.value.report) == (422, "invalid_request", None)
    assert len(refused.value.problems) == 2 and "review.reviewers" in str(refused.value)

    ref = site.submit(fill=5)
    with pytest.raises(Refused) as gate:
        site.client("release-manager").promote(ref)
    report = gate.value.report
    assert report is not None and (report.ref, report.verdict) == (ref, Verdict.PENDING)
    assert report == site.client("ci").gate(ref)


def test_a_download_is_whole_and_verified_or_leaves_nothing(site: Site, tmp_path: Path) -> None:
    data = make_adapter(fill=1)["adapter_model.safetensors"]
    target = tmp_path / "weights"
    site.client("consumer").download(sha(data), target)
    assert target.read_bytes() == data
    wrong, short = ((200, "application/octet-stream", one) for one in (data[:-1] + b"x", data[:-1]))
    with script(wrong, short) as server, Client(server.url, "t") as client:
        for name in ("weights", "short"):
            with pytest.raises(Unreachable, match="arrived damaged"):
                client.download(sha(data), tmp_path / name)
        assert len(server.asked) == 2
    with pytest.raises(Refused):
        site.client("consumer").download("0" * 64, tmp_path / "none")
    assert target.read_bytes() == data and [path.name for path in tmp_path.iterdir()] == ["weights"]


def test_the_async_client_answers_like_the_blocking_one(site: Site) -> None:
    blocking = site.client("consumer")

    async def ask() -> None:
        client = AsyncClient(site.url, site.tokens["consumer"])
        try:
            resolved = await client.resolve("support-bot@approved")
            assert resolved == blocking.resolve("support-bot@approved")
            assert await client.alias("support-bot") == blocking.alias("support-bot")
            assert await client.gate(resolved.ref) == blocking.gate(resolved.ref)
            digest = hashlib.sha256()
            async with client.download(resolved.files[1].sha256) as chunks:
                async for chunk in chunks:
                    digest.update(chunk)
            assert digest.hexdigest() == resolved.files[1].sha256
            with pytest.raises(Refused) as refused:
                await client.resolve("support-bot/99")
            assert (refused.value.status, refused.value.code) == (404, "not_found")
            with pytest.raises(Refused):
                async with client.download("0" * 64):
                    pass
        finally:
            await client.close()
        nowhere = AsyncClient("http://127.0.0.1:1", "t")
        with pytest.raises(Unreachable):
            await nowhere.resolve("support-bot")
        await nowhere.close()

    asyncio.run(ask())
