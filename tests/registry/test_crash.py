"""A real server is killed while clients write: what it acknowledged is there afterwards, and nothing by halves."""

import contextlib
import random
import signal
import threading
import time
from collections.abc import Iterator
from functools import partial
from typing import Any

import httpx
import msgspec
import pytest
from factories import sha
from registry_under_test import ADMIN, CONSUMER, NAME, bench_in, submission
from server_under_test import PLAIN, START_SECONDS, Server, served
from soak import amount

from registry.client import Client
from registry.commands import tokens, versions
from registry.records import CreateToken, Role, Rollback, State
from registry.settings import Home
from registry.storage.journal import verify_chain

pytestmark = pytest.mark.slow

SERIES, ROUNDS = amount(1, 20), amount(4, 10)
SUBMITTERS, MOVERS = 6, 2


class Writer(threading.Thread):
    """Sends requests until the server is gone; `acknowledged` are the answers, `open` the request without one."""

    def __init__(self, url: str, token: str, requests: Iterator[dict[str, Any]]) -> None:
        super().__init__(daemon=True)
        self.http = PLAIN(base_url=url, headers={"Authorization": f"Bearer {token}"})
        self.requests = requests
        self.acknowledged: list[tuple[dict[str, Any], httpx.Response]] = []
        self.open: dict[str, Any] | None = None

    def run(self) -> None:
        with self.http:
            for sent in self.requests:
                self.open = sent
                try:
                    answer = self.http.request(**sent)
                except httpx.TransportError:
                    return
                self.acknowledged.append((sent, answer))


def request(path: str, body: Any, key: str) -> dict[str, Any]:
    headers = {"Idempotency-Key": key, "Content-Type": "application/json"}
    return {"method": "POST", "url": path, "content": msgspec.json.encode(body), "headers": headers}


def submissions(fills: Iterator[int]) -> Iterator[dict[str, Any]]:
    for fill in fills:
        yield request(f"/v1/adapters/{NAME}/versions", renamed(fill), f"submit-{fill}")


def renamed(fill: int) -> Any:
    """Any number of different versions: the announced hash of the weights counts up."""
    made = submission(1)
    config, weights = made.files
    return msgspec.structs.replace(made, files=[config, msgspec.structs.replace(weights, sha256=f"{fill:064x}")])


def alias_moves(numbers: Iterator[int]) -> Iterator[dict[str, Any]]:
    """Back and forth between versions 1 and 2."""
    for number in numbers:
        path = f"/v1/adapters/{NAME}/aliases/approved/rollback"
        yield request(path, Rollback(to=1 + number % 2, reason="crash test"), f"move-{number}")


def two_approved(home: Home) -> dict[str, str]:
    """A home whose alias has named versions 1 and 2, and tokens for the writers."""
    with bench_in(home.root) as bench:
        bench.create_adapter()
        for fill in (101, 102):
            bench.promote(bench.approvable(fill))
        requests = [CreateToken(role=role, person=f"{role} person") for role in (Role.CI, Role.RELEASE_MANAGER)]
        return {str(one.role): bench.run(ADMIN, tokens.create, request=one).value.secret for one in requests}


@pytest.mark.parametrize("series", range(SERIES))
def test_killed_server_keeps_what_it_acknowledged_and_shows_nothing_by_halves(home: Home, series: int) -> None:
    secrets, chance = two_approved(home), random.Random(series)
    fills, numbers = iter(range(1, 10**6)), iter(range(1, 10**6))
    submitted: dict[str, tuple[int, str]] = {}
    moved = 2
    lost: list[dict[str, Any]] = []
    for _ in range(ROUNDS):
        with served(home) as url:
            for sent in lost:
                moved, submitted = learn(again(url, secrets, sent), moved, submitted)
            writers = [Writer(url, secrets["ci"], submissions(fills)) for _ in range(SUBMITTERS)]
            writers += [Writer(url, secrets["release-manager"], alias_moves(numbers)) for _ in range(MOVERS)]
            for writer in writers:
                writer.start()
            deadline = time.monotonic() + START_SECONDS
            while not any(writer.acknowledged for writer in writers) and time.monotonic() < deadline:
                time.sleep(0.01)
            time.sleep(chance.uniform(0.0, 0.6))
        for writer in writers:
            writer.join(timeout=30)
        answers = [pair for writer in writers for pair in writer.acknowledged]
        # 409: the alias named that version already.
        assert answers and {answer.status_code for _, answer in answers} <= {200, 201, 409}
        for pair in answers:
            moved, submitted = learn(pair, moved, submitted)
        lost = [writer.open for writer in writers if writer.open is not None]
        check(home, submitted, moved)
    assert len(submitted) > ROUNDS and moved > 2 + ROUNDS


def again(url: str, secrets: dict[str, str], sent: dict[str, Any]) -> tuple[dict[str, Any], httpx.Response]:
    """A request that got no answer, sent with its key after the restart: done now, or done before, but once."""
    who = "release-manager" if "rollback" in sent["url"] else "ci"
    headers = {**sent["headers"], "Authorization": f"Bearer {secrets[who]}"}
    with PLAIN(base_url=url) as http:
        answers = [http.request(**{**sent, "headers": headers}) for _ in range(2)]
    assert answers[0].json() == answers[1].json()
    return sent, answers[0]


def learn(
    pair: tuple[dict[str, Any], httpx.Response], moved: int, submitted: dict[str, tuple[int, str]]
) -> tuple[int, dict[str, tuple[int, str]]]:
    sent, answer = pair
    found = answer.json()
    if "rollback" in sent["url"]:
        return max(moved, found.get("counter", 0)), submitted
    return moved, {**submitted, sent["headers"]["Idempotency-Key"]: (found["number"], found["digest"])}


def check(home: Home, submitted: dict[str, tuple[int, str]], moved: int) -> None:
    """Every promise, on the home as the killed server left it."""
    assert verify_chain(home.journal).seq > 0
    with bench_in(home.root) as bench:
        view = bench.registry.view()
        for number, digest in submitted.values():
            stored = view.version(NAME, number)
            assert stored is not None and (stored.digest, stored.state) == (digest, State.UPLOADING)
        last = view.last_number(NAME)
        assert len({number for number, _ in submitted.values()}) == len(submitted)
        assert last - 2 - len(submitted) <= SUBMITTERS, "at most the request that each writer had under way"
        moves, alias = view.alias_moves(NAME, "approved"), view.alias(NAME, "approved")
        assert alias is not None and alias.counter == len(moves) and moved <= alias.counter <= moved + MOVERS
        states = {number: one.state for number in (1, 2) if (one := view.version(NAME, number))}
        assert states == {alias.number: State.APPROVED, 3 - alias.number: State.SUPERSEDED}
        resolved = bench.registry.ask(CONSUMER, partial(versions.resolve, reference=f"{NAME}@approved"))
        assert resolved.number == alias.number == moves[-1].number
        assert bench.rebuilt() == bench.tables()


def test_server_killed_at_its_first_start_starts_the_next_time(home: Home) -> None:
    server = Server(home)
    deadline = time.monotonic() + START_SECONDS
    while not home.journal.exists() and time.monotonic() < deadline:
        time.sleep(0.001)
    server.kill()
    with served(home) as url, Client(url, home.admin_token.read_text().strip()) as admin:
        made = admin.create_token(CreateToken(role=Role.CI, person="carl")).token
    with bench_in(home.root) as bench:
        assert bench.registry.view().token(made.id) is not None


def test_upload_goes_on_after_the_server_was_killed_in_the_middle(home: Home) -> None:
    data = random.Random(3).randbytes(24 * 1024 * 1024)
    digest, part = sha(data), home.blobs / "parts" / sha(data)
    server = Server(home)
    try:
        url, token = server.address(), home.admin_token.read_text().strip()

        def pieces() -> Iterator[bytes]:
            """Half of it, then nothing until the server has written some of that and is dead."""
            yield data[: len(data) // 2]
            deadline = time.monotonic() + 30
            while time.monotonic() < deadline and not (part.exists() and part.stat().st_size):
                time.sleep(0.005)
            server.process.send_signal(signal.SIGKILL)
            server.process.wait(timeout=20)
            yield data[len(data) // 2 :]

        headers = {"Authorization": f"Bearer {token}", "Content-Length": str(len(data))}
        with contextlib.suppress(httpx.TransportError):
            httpx.put(f"{url}/v1/blobs/sha256:{digest}", content=pieces(), headers=headers, timeout=30)
    finally:
        server.kill()
    kept = part.stat().st_size
    assert 0 < kept < len(data) and part.read_bytes() == data[:kept]
    with served(home) as url, Client(url, token) as admin:
        path, authorised = f"{url}/v1/blobs/sha256:{digest}", {"Authorization": f"Bearer {token}"}
        assert httpx.get(path, headers=authorised).status_code == 404
        span = {"Content-Range": f"bytes {kept + 1}-{len(data) - 1}/{len(data)}"}
        refused = httpx.put(path, content=data[kept + 1 :], headers=authorised | span)
        assert refused.status_code == 416 and refused.json()["offset"] == kept
        span = {"Content-Range": f"bytes {kept}-{len(data) - 1}/{len(data)}"}
        assert httpx.put(path, content=data[kept:], headers=authorised | span, timeout=30).status_code == 201
        assert admin.upload(data).sha256 == digest
    with bench_in(home.root) as bench:
        assert bench.registry.blobs.path(digest).read_bytes() == data
        assert not part.exists()


def test_asked_to_stop_it_answers_what_it_accepted_and_leaves_cleanly(home: Home) -> None:
    server = Server(home)
    try:
        url, token = server.address(), home.admin_token.read_text().strip()
        with Client(url, token) as admin:
            made = [admin.create_token(CreateToken(role=Role.CI, person=f"p{number}")).token.id for number in range(5)]
    finally:
        code = server.stop()
    assert code in (0, -signal.SIGTERM)
    assert not home.catalog.with_name("catalog.duckdb.wal").exists(), "a clean end leaves a checkpointed catalog"
    with bench_in(home.root) as bench:
        assert set(made) <= {stored.id for stored in bench.registry.view().tokens()}
