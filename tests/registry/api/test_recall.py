"""What is polled is answered from memory, and never with anything older than what was acknowledged or seen."""

import asyncio
import gc
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from factories import make_entries
from registry_under_test import bench_in
from site_under_test import Site, body, running

from registry.api.app import create_app
from registry.api.recall import Answered, Answers, is_known
from registry.errors import NotFound
from registry.events import VersionRevoked
from registry.kept import Changes
from registry.records import Role
from registry.settings import Home

pytestmark = pytest.mark.slow

BOT = "/v1/adapters/support-bot"
ALIAS = BOT + "/aliases/approved"
RESOLVE = "/v1/resolve?ref=support-bot@approved"
POLLED = (ALIAS, RESOLVE, BOT + "/aliases/latest", "/v1/resolve?ref=support-bot@latest", "/v1/resolve?ref=support-bot")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Two versions that were approved, and one that was only completed; `approved` may stand at 1 or 2."""
    rows = tmp_path_factory.mktemp("rows")
    with running(Home(tmp_path_factory.mktemp("recall") / "home")) as found:
        found.create_adapter()
        for fill in (1, 2):
            found.approved(rows, fill=fill)
        found.submit(fill=3)
        found.create_adapter("team/other-bot")
        yield found


def move(site: Site, to: int) -> dict[str, Any]:
    """The acknowledged answer to a rollback."""
    request = {"to": to, "reason": "back and forth"}
    answer = site.http("POST", ALIAS + "/rollback", "release-manager", json=request)
    assert answer.status_code == 200
    return body(answer)


def without_catalog(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("the catalog was asked")

    for name in ("snapshot", "view", "_cursor"):
        monkeypatch.setattr(site.registry._catalog, name, refuse)


def facts(answer: httpx.Response) -> tuple[int, bytes, dict[str, str]]:
    """What must be the same each time; date and request id are not."""
    own = {key: value for key, value in answer.headers.items() if key not in ("date", "x-request-id")}
    return answer.status_code, answer.content, own


def test_second_answer_is_the_first_one_and_asks_nothing(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    first = {path: site.http("GET", path, "consumer") for path in POLLED}
    known = {path: {"If-None-Match": answer.headers["ETag"]} for path, answer in first.items()}
    move(site, 1)
    move(site, 2)
    computed = {path: facts(site.http("GET", path, "consumer", headers=known[path])) for path in POLLED}
    assert {status for status, *_ in computed.values()} == {200}, "the counter rose, so the answers are others"
    known = {path: {"If-None-Match": headers["etag"]} for path, (_, _, headers) in computed.items()}
    not_modified = {path: facts(site.http("GET", path, "ci", headers=known[path])) for path in POLLED}
    site.http("GET", RESOLVE, "ci")
    without_catalog(site, monkeypatch)
    for path in POLLED:
        assert facts(site.http("GET", path, "consumer")) == computed[path]
        again = site.http("GET", path, "consumer", headers=known[path])
        assert facts(again) == not_modified[path] and again.status_code == 304 and not again.content
        assert site.http("GET", path, "consumer", headers={"If-None-Match": '"other"'}).status_code == 200


@pytest.mark.parametrize(
    ("conditions", "known"),
    [
        ([], False),
        (["*"], True),
        ([" * "], True),
        (['"tag"'], True),
        (['W/"tag"'], True),
        (['"a", W/"b","tag"'], True),
        (['"a"', '"tag"'], True),
        (['"a,tag"'], False),
        (['"a, "tag'], False),
        (["tag"], False),
        (['""'], False),
        (['"*"'], False),
        (['"tagtag"', '"Tag"'], False),
    ],
)
def test_if_none_match_names_tags_by_weak_comparison(conditions: list[str], known: bool) -> None:
    assert is_known(conditions, "tag") is known


@pytest.mark.parametrize("path", [ALIAS, RESOLVE])
def test_conditions_count_alike_for_a_computed_and_a_kept_answer(site: Site, path: str) -> None:
    tag = site.http("GET", path, "admin").headers["ETag"]
    for condition in ("*", f'"x", W/{tag}'):
        move(site, 1)
        move(site, 2)
        computed = site.http("GET", path, "admin", headers={"If-None-Match": "*"})
        assert computed.status_code == 304 and computed.headers["ETag"] != tag
        tag = computed.headers["ETag"]
        condition = condition if condition == "*" else f'"x", W/{tag}'
        assert site.http("GET", path, "admin", headers={"If-None-Match": condition}).status_code == 304


def test_resolved_answer_changes_its_tag_when_the_same_version_is_approved_anew(site: Site) -> None:
    move(site, 2)
    before = site.http("GET", RESOLVE, "consumer")
    move(site, 1)
    move(site, 2)
    after = site.http("GET", RESOLVE, "consumer", headers={"If-None-Match": before.headers["ETag"]})
    assert after.status_code == 200 and body(after)["digest"] == body(before)["digest"]
    assert body(after)["attestation"] != body(before)["attestation"]


def test_what_one_role_or_scope_was_answered_another_is_not(site: Site) -> None:
    site.add_token("outside", Role.CONSUMER, "outside", scope="team")
    site.add_token("inside", Role.CONSUMER, "inside", scope="support-bot")
    move(site, 1)
    superseded, waiting = "/v1/resolve?ref=support-bot/2", "/v1/resolve?ref=support-bot/3"
    for _ in range(3):
        for path, seen_by in {ALIAS: "ci consumer inside", RESOLVE: "ci consumer inside", superseded: "ci"}.items():
            for who in ("ci", "consumer", "inside", "outside"):
                wanted = 200 if who in seen_by.split() else 404
                assert site.http("GET", path, who).status_code == wanted, (path, who)
        assert site.http("GET", waiting, "ci").status_code == 200
        assert site.http("GET", waiting, "consumer").status_code == 404


def test_state_of_a_version_that_is_on_its_way_is_not_kept(site: Site) -> None:
    path = "/v1/resolve?ref=support-bot/3"
    for _ in range(2):
        assert body(site.http("GET", path, "ci"))["state"] == "submitted"
    job = site.client("evaluator").claim(["evaluation"], "w")
    assert job is not None and body(site.http("GET", path, "ci"))["state"] == "evaluating"
    site.client("evaluator").fail(job, "given back", retry=True)
    assert body(site.http("GET", path, "ci"))["state"] == "submitted"


@pytest.mark.parametrize("path", [ALIAS, RESOLVE])
def test_acknowledged_move_is_seen_by_the_next_reader(site: Site, path: str) -> None:
    for turn in range(20):
        moved = move(site, 1 + turn % 2)
        for who in ("consumer", "ci"):
            assert body(site.http("GET", path, who))["number"] == moved["number"]


def test_nobody_sees_an_older_alias_than_somebody_saw_before(site: Site) -> None:
    """Linearisable: whoever begins to ask after any answer with counter n has arrived gets n or more."""
    seen, wrong, stop = [body(site.http("GET", ALIAS, "consumer"))["counter"]], list[tuple[int, int]](), False
    lock = threading.Lock()

    def note(counter: int) -> None:
        with lock:
            seen[0] = max(seen[0], counter)

    def poll(who: str) -> int:
        asked = 0
        with httpx.Client(base_url=site.url, headers={"Authorization": f"Bearer {site.tokens[who]}"}) as client:
            while not stop:
                least = seen[0]
                counter = client.get(ALIAS).json()["counter"]
                if counter < least:
                    wrong.append((least, counter))
                note(counter)
                asked += 1
        return asked

    with ThreadPoolExecutor(6) as pool:
        polls = [pool.submit(poll, who) for who in ("consumer", "consumer", "consumer", "ci", "admin", "admin")]
        try:
            until = time.monotonic() + 4
            for turn in range(10_000):
                if turn > 10 and time.monotonic() > until:
                    break
                note(move(site, 1 + turn % 2)["counter"])
        finally:
            stop = True
        asked = sum(one.result(timeout=30) for one in polls)
    assert not wrong
    assert asked > 100


def test_revoked_token_is_refused_at_once_however_hot_it_is(site: Site) -> None:
    for turn in range(5):
        who = f"hot-{turn}"
        token = site.add_token(who, Role.CONSUMER, "hot person")
        revoked, hot = threading.Event(), threading.Barrier(4)

        def hammer(
            token: str = token, revoked: threading.Event = revoked, hot: threading.Barrier = hot
        ) -> list[tuple[bool, int]]:
            """Whether it was asked after the acknowledgement, and the answer; until the first that is not 200."""
            seen = []
            with httpx.Client(base_url=site.url, headers={"Authorization": f"Bearer {token}"}) as client:
                while not seen or seen[-1][1] == 200:
                    seen.append((revoked.is_set(), client.get(RESOLVE).status_code))
                    if len(seen) == 5:
                        hot.wait(timeout=30)
            return seen

        with ThreadPoolExecutor(3) as pool:
            hammering = [pool.submit(hammer) for _ in range(3)]
            hot.wait(timeout=30)
            assert site.http("DELETE", f"/v1/tokens/{token.split('_')[2]}").status_code == 204
            revoked.set()
            assert site.http("GET", RESOLVE, who).status_code == 401
            for seen in (one.result(timeout=30) for one in hammering):
                assert seen[-1][1] == 401 and (True, 200) not in seen


def test_kept_token_expires_by_the_clock(site: Site) -> None:
    assert [site.http("GET", RESOLVE, "consumer").status_code for _ in range(2)] == [200, 200]
    site.registry._clock = lambda: datetime.now(UTC) + timedelta(days=91)
    try:
        refused = site.http("GET", RESOLVE, "consumer")
        assert refused.status_code == 401 and "expired" in body(refused)["detail"]
    finally:
        site.registry._clock = lambda: datetime.now(UTC)
    assert site.http("GET", RESOLVE, "consumer").status_code == 200


def test_two_authorization_headers_get_nothing_that_is_kept(site: Site) -> None:
    assert site.http("GET", RESOLVE, "consumer").status_code == 200
    twice = [("Authorization", f"Bearer {site.tokens['consumer']}")] * 2
    assert httpx.get(site.url + RESOLVE, headers=twice).status_code == 401
    assert httpx.get(site.url + RESOLVE).status_code == 401


def test_nothing_is_answered_from_memory_once_storage_is_damaged(home: Home) -> None:
    """Without a server: it would end."""
    with bench_in(home.root) as bench:
        bench.create_adapter()
        bench.promote(bench.approvable())
        authorised = {"Authorization": f"Bearer {home.admin_token.read_text().strip()}"}

        async def ask() -> list[int]:
            application: Any = httpx.ASGITransport(create_app(bench.registry))
            async with httpx.AsyncClient(transport=application, base_url="http://localhost") as client:
                before = [(await client.get(RESOLVE, headers=authorised)).status_code for _ in range(2)]
                bench.registry._damage = "the disk is gone"
                return [*before, (await client.get(RESOLVE, headers=authorised)).status_code]

        assert asyncio.run(ask()) == [200, 200, 503]


def test_revoked_version_is_gone_with_the_acknowledgement(home: Home, tmp_path: Path) -> None:
    with running(home) as site:
        site.create_adapter()
        for fill in (1, 2):
            site.approved(tmp_path, fill=fill)
        by_number = "/v1/resolve?ref=support-bot/2"
        for path in (RESOLVE, by_number):
            assert [site.http("GET", path, who).status_code for who in ("consumer", "ci") * 2] == [200] * 4
        revoked = site.http("POST", BOT + "/versions/2/revoke", "admin", json={"reason": "it leaks"})
        assert revoked.status_code == 200
        for who in ("consumer", "ci"):
            assert [site.http("GET", path, who).status_code for path in (RESOLVE, by_number)] == [404, 404]
        assert site.http("GET", ALIAS, "consumer").status_code == 404
        move(site, 1)
        assert body(site.http("GET", RESOLVE, "consumer"))["number"] == 1


# -- an answer that is being made -----------------------------------------------------------------------------------


class Kitchen:
    """Makes answers, each only when it is let; `begun` holds the number that was visible before each."""

    def __init__(self) -> None:
        self.changes = Changes(0)
        self.answers = Answers(self.changes)
        self.begun: list[int] = []
        self.let: list[asyncio.Future[Answered]] = []

    async def make(self, seq: int) -> Answered:
        self.begun.append(seq)
        self.let.append(asyncio.get_running_loop().create_future())
        return await self.let[-1]

    async def ask(self) -> "asyncio.Task[Answered]":
        asked = asyncio.ensure_future(self.answers.made("key", "support-bot", self.make))
        for _ in range(3):
            await asyncio.sleep(0)
        return asked

    def change(self, seq: int, adapter: str) -> None:
        event = VersionRevoked(adapter=adapter, number=1, reason="x")
        self.changes.begin(make_entries(seq, events=[event])[-1:])


def answer(body: str) -> Answered:
    return Answered(body.encode(), body, "/")


def test_many_who_ask_the_same_at_once_are_answered_by_one_look() -> None:
    async def act() -> None:
        kitchen = Kitchen()
        asked = [await kitchen.ask() for _ in range(16)]
        assert kitchen.begun == [0]
        kitchen.let[0].set_result(answer("one"))
        assert await asyncio.gather(*asked) == [answer("one")] * 16
        again = await kitchen.ask()
        assert kitchen.begun == [0, 0], "what is made is remembered elsewhere, or not at all"
        kitchen.let[1].set_result(answer("two"))
        assert await again == answer("two")

    asyncio.run(act())


def test_an_answer_that_fails_once_nobody_waits_any_more_is_no_defect() -> None:
    """What nobody looks at is told of when it is collected: "Task exception was never retrieved"."""

    async def act() -> list[dict[str, Any]]:
        told: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))
        kitchen = Kitchen()
        asked = await kitchen.ask()
        asked.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asked
        kitchen.let[0].set_exception(NotFound("gone"))
        for _ in range(3):
            await asyncio.sleep(0)
        del kitchen, asked
        gc.collect()
        return told

    assert asyncio.run(act()) == []


def test_who_asks_after_a_change_is_not_answered_with_what_began_before_it() -> None:
    async def act() -> None:
        kitchen = Kitchen()
        before = await kitchen.ask()
        kitchen.change(1, "another-bot")
        beside = await kitchen.ask()
        assert kitchen.begun == [0]
        kitchen.change(2, "support-bot")
        kitchen.changes.end(2)
        after = [await kitchen.ask() for _ in range(2)]
        assert kitchen.begun == [0, 2]
        kitchen.let[0].set_result(answer("old"))
        assert [await before, await beside] == [answer("old")] * 2
        late = await kitchen.ask()
        assert kitchen.begun == [0, 2], "the end of the first did not take the second away"
        kitchen.let[1].set_result(answer("new"))
        assert await asyncio.gather(*after, late) == [answer("new")] * 3

    asyncio.run(act())


def test_one_who_hangs_up_takes_nothing_from_the_others_and_a_refusal_is_for_all() -> None:
    async def act() -> None:
        kitchen = Kitchen()
        first, second = await kitchen.ask(), await kitchen.ask()
        first.cancel()
        await asyncio.sleep(0)
        kitchen.let[0].set_result(answer("for the second"))
        assert await second == answer("for the second")
        asked = [await kitchen.ask() for _ in range(2)]
        kitchen.let[1].set_exception(NotFound("gone"))
        assert [str(one) for one in await asyncio.gather(*asked, return_exceptions=True)] == ["gone"] * 2

    asyncio.run(act())
