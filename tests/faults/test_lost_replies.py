"""Replies that never arrive, and requests that arrive twice: one effect, whatever the network does."""

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from factories import BASE, BASE_TENSORS, entry_of, make_adapter, make_training
from server_under_test import PLAIN
from site_under_test import DATASET, LEDGER, SMALL_REVIEW, Site, running

from registry.client import Client
from registry.records import CreateAdapter, CreateToken, Rating, Role, SubmitVersion
from registry.settings import Home

pytestmark = pytest.mark.slow
_GOOD = Rating(clarity=5, relevance=5, safety=5, accuracy=5, hallucination=False)


class LossyProxy:
    """Forwards connections to a port on loopback. `lose` counts the replies still to be lost.

    A lost reply is one whose first bytes have come: the server has done what was asked. The connection is reset.
    """

    def __init__(self, port: int) -> None:
        self.lose = self.lost = 0
        self._port = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        # Wakes the thread in `accept`, which closing alone would not.
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.create_connection(("127.0.0.1", self._port))
            threading.Thread(target=self._requests, args=(client, server), daemon=True).start()
            threading.Thread(target=self._replies, args=(client, server), daemon=True).start()

    def _requests(self, client: socket.socket, server: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := client.recv(65536):
                server.sendall(data)
            server.shutdown(socket.SHUT_WR)

    def _replies(self, client: socket.socket, server: socket.socket) -> None:
        with client, server, contextlib.suppress(OSError):
            while data := server.recv(65536):
                if self.lose:
                    self.lose -= 1
                    self.lost += 1
                    client.shutdown(socket.SHUT_RDWR)
                    return
                client.sendall(data)


@pytest.fixture
def proxy(site: Site) -> Iterator[LossyProxy]:
    found = LossyProxy(int(site.url.rpartition(":")[2]))
    yield found
    found.close()


@contextlib.contextmanager
def lossy(proxy: LossyProxy, token: str) -> Iterator[Callable[..., Any]]:
    """Calls whose first two replies are lost each."""
    with Client(proxy.url, token) as client:

        def call(method: str, *given: Any, **named: Any) -> Any:
            proxy.lose, before = 2, proxy.lost
            answer = getattr(client, method)(*given, **named)
            assert proxy.lost == before + 2, "both replies were lost"
            return answer

        yield call


def test_every_call_whose_reply_is_lost_is_done_once(site: Site, proxy: LossyProxy, tmp_path: Path) -> None:
    site.publish_suites()
    files = make_adapter()
    entries = [entry_of(path, data) for path, data in files.items()]
    request = SubmitVersion(files=entries, training=make_training(dataset=DATASET, ledger=LEDGER))
    create = CreateAdapter(name="support-bot", base=BASE, base_tensors=BASE_TENSORS, policy=SMALL_REVIEW)

    def adds(entries: int, call: Callable[..., Any], *given: Any, **named: Any) -> Any:
        before = site.registry.journal.head.seq
        answer = call(*given, **named)
        assert site.registry.journal.head.seq == before + entries, given
        return answer

    with lossy(proxy, site.tokens["admin"]) as admin, lossy(proxy, site.tokens["ci"]) as ci:
        adds(1, admin, "create_adapter", create)
        made = adds(1, admin, "create_token", CreateToken(role=Role.CI, person="someone"))
        adds(1, admin, "revoke_token", made.token.id)
        created = adds(1, ci, "submit", "support-bot", request)
        for data in (*files.values(), DATASET, LEDGER):
            adds(0, ci, "upload", data)
        adds(1, ci, "complete", created.ref)
    with lossy(proxy, site.tokens["evaluator"]) as evaluator:
        job = adds(1, evaluator, "claim", ["evaluation"], "w")
        assert job.fence == 1
        adds(1, evaluator, "fail", job, "out of memory", retry=True)
    site.evaluate(tmp_path)
    with lossy(proxy, site.tokens["reviewer"]) as reviewer:
        item = adds(1, reviewer, "next_assignment")
        progress = adds(1, reviewer, "rate", item.id, _GOOD)
        assert progress.rated == 1
    site.review()
    with lossy(proxy, site.tokens["release-manager"]) as manager:
        assert adds(1, manager, "promote", created.ref).counter == 1
        with lossy(proxy, site.tokens["consumer"]) as consumer:
            assert adds(0, consumer, "alias", "support-bot").counter == 1
        adds(1, manager, "revoke", created.ref, "it leaks")


def test_a_request_that_arrives_many_times_at_once_is_done_once(home: Home) -> None:
    with running(home) as site, ThreadPoolExecutor(8) as pool:
        headers = {"Authorization": f"Bearer {site.tokens['admin']}", "Idempotency-Key": "same"}
        body = {"name": "support-bot", "base": {"id": BASE.id, "digest": BASE.digest}, "policy": None}

        def send(_: int) -> httpx.Response:
            with PLAIN(base_url=site.url, headers=headers) as http:
                return http.post("/v1/adapters", json=body)

        site.publish_suites()
        before = site.registry.journal.head.seq
        answers = list(pool.map(send, range(16)))
        assert {answer.status_code for answer in answers} == {201}, answers[0].text
        assert all(answer.json() == answers[0].json() for answer in answers)
        assert sum("Idempotency-Replayed" in answer.headers for answer in answers) == 15
        assert site.registry.journal.head.seq == before + 1
