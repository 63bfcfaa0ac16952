"""Many callers at once: numbers without gaps, one winner of every race, and every loser is told."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import httpx
import pytest
from factories import entry_of, make_adapter
from registry_under_test import CI, CONSUMER, MANAGER, NAME, Bench, bench_in, submission
from site_under_test import Site, body

from registry.commands import adapters, approvals, versions
from registry.commands.conditions import matches
from registry.errors import Conflict, GateNotSatisfied, NotFound, PreconditionFailed, TunegateError
from registry.records import Policy, Promote, ReviewRule, Revoke, Rollback, State, SubmitVersion
from registry.settings import Home
from registry.storage.journal import verify_chain

pytestmark = pytest.mark.slow

T = TypeVar("T")
WRITERS = 32
BOT = "/v1/adapters/support-bot"


@pytest.fixture
def bench(home: Home) -> Iterator[Bench]:
    with bench_in(home.root) as made:
        made.create_adapter()
        yield made


def at_once(acts: list[Callable[[], T]]) -> list[T | TunegateError]:
    """What each returned or was refused with; all of them start together."""
    barrier = threading.Barrier(len(acts))

    def run(act: Callable[[], T]) -> T | TunegateError:
        barrier.wait(timeout=20)
        try:
            return act()
        except TunegateError as error:
            return error

    with ThreadPoolExecutor(len(acts)) as pool:
        return list(pool.map(run, acts))


# -- at the door --------------------------------------------------------------------------------------------------


def test_as_many_submissions_as_writers_get_consecutive_numbers(bench: Bench) -> None:
    def submit(fill: int) -> int:
        return int(bench.run(CI, versions.submit, adapter=NAME, request=submission(fill)).value.number)

    for round_ in range(3):
        first = round_ * WRITERS
        numbers = at_once([partial(submit, first + one + 1) for one in range(WRITERS)])
        assert sorted(numbers) == list(range(first + 1, first + WRITERS + 1))  # type: ignore[type-var]
    head = bench.registry.journal.head
    bench.reopen()
    assert bench.registry.journal.head == head == verify_chain(bench.home.journal)
    assert bench.rebuilt() == bench.tables()


def test_same_files_from_all_writers_are_one_version(bench: Bench) -> None:
    answers = at_once([partial(bench.run, CI, versions.submit, adapter=NAME, request=submission(1))] * WRITERS)
    assert {answer.value.number for answer in answers} == {1}  # type: ignore[union-attr]
    assert sorted(answer.status for answer in answers) == [200] * (WRITERS - 1) + [201]  # type: ignore[union-attr]


def test_completed_by_all_writers_it_is_sealed_once(bench: Bench) -> None:
    bench.submit(1)
    head = bench.registry.journal.head.seq
    answers = at_once([partial(bench.run, CI, versions.complete, adapter=NAME, number=1)] * WRITERS)
    assert {answer.value.state for answer in answers} == {State.SUBMITTED}  # type: ignore[union-attr]
    assert bench.registry.journal.head.seq == head + 1


@pytest.mark.parametrize("first_come", ["promotion", "revocation"])
def test_promotion_and_revocation_are_in_one_order_and_the_loser_is_told(bench: Bench, first_come: str) -> None:
    """Whatever comes first, nobody can pull a revoked version, and who promotes it afterwards is refused."""
    promote = partial(
        bench.run, MANAGER, approvals.promote, adapter=NAME, request=Promote(alias="approved"), if_match=None
    )
    revoke = partial(bench.run, MANAGER, approvals.revoke, adapter=NAME, request=Revoke(reason="it leaks"))
    for number in (bench.approvable(1), bench.approvable(2), bench.approvable(3)):
        acts = [partial(promote, number=number)] * 4 + [partial(revoke, number=number)] * 2
        answers = at_once(acts if first_come == "promotion" else acts[::-1])
        promoted = answers[:4] if first_come == "promotion" else answers[2:]
        moves = bench.registry.view().alias_moves(NAME, "approved")
        events = [event for line in bench.registry.journal.read() for event in line.entry.events]
        tags = [type(event).__name__ for event in events if getattr(event, "number", None) == number]
        assert tags.count("VersionRevoked") == 1
        won = [answer for answer in promoted if not isinstance(answer, TunegateError)]
        assert all(isinstance(answer, GateNotSatisfied) for answer in promoted if isinstance(answer, TunegateError))
        # A promotion was answered with success if and only if it came before the revocation.
        assert bool(won) == ("AliasMoved" in tags)
        assert "AliasMoved" not in tags or tags.index("AliasMoved") < tags.index("VersionRevoked")
        stored = bench.registry.view().version(NAME, number)
        assert stored is not None and stored.state is State.REVOKED
        assert [move.number for move in moves].count(number) == bool(won)
        with pytest.raises(NotFound):
            bench.registry.ask(CONSUMER, lambda context, n=number: versions.resolve(context, f"{NAME}/{n}"))
    assert bench.rebuilt() == bench.tables()


def test_rollback_and_revocation_of_its_target_are_in_one_order(bench: Bench) -> None:
    first, second = bench.approvable(1), bench.approvable(2)
    bench.promote(first)
    bench.promote(second)
    roll_back = partial(
        bench.run, MANAGER, approvals.rollback, adapter=NAME, alias="approved", if_match=None,
        request=Rollback(to=first, reason="r"),
    )  # fmt: skip
    revoke = partial(bench.run, MANAGER, approvals.revoke, adapter=NAME, number=first, request=Revoke(reason="r"))
    answers = at_once([roll_back, revoke, roll_back])
    refused = [answer for answer in (answers[0], answers[2]) if isinstance(answer, TunegateError)]
    assert all(isinstance(answer, Conflict) for answer in refused) and not isinstance(answers[1], TunegateError)
    alias = bench.registry.view().alias(NAME, "approved")
    assert alias is not None and alias.number == (second if len(refused) == 2 else first)
    with pytest.raises(NotFound):
        bench.registry.ask(CONSUMER, lambda context: versions.resolve(context, f"{NAME}/{first}"))


def test_of_many_who_read_the_same_alias_one_moves_it(bench: Bench) -> None:
    first, second = bench.approvable(1), bench.approvable(2)
    for number in (first, second):
        bench.promote(number, f"keep-{number}")
    for turn in range(6):
        current = bench.registry.view().alias(NAME, "approved")
        seen = f'"{approvals.etag(current)}"' if current else '""'
        number = (first, second)[turn % 2]
        promote = partial(
            bench.run, MANAGER, approvals.promote, adapter=NAME, number=number, request=Promote(), if_match=seen
        )
        answers = at_once([promote] * 8)
        assert sum(isinstance(answer, PreconditionFailed) for answer in answers) == 7
    assert [move.counter for move in bench.registry.view().alias_moves(NAME, "approved")] == list(range(1, 7))


def test_of_many_who_read_the_same_policy_one_changes_it(bench: Bench) -> None:
    seen = adapters.find_adapter
    stored = bench.registry.ask(MANAGER, lambda context: seen(context, NAME))
    acts = [
        partial(
            bench.run, MANAGER, adapters.set_policy, adapter=NAME, if_match=f'"{stored.policy}"',
            policy=Policy(review=ReviewRule(outputs=3 + one)),
        )
        for one in range(8)
    ]  # fmt: skip
    answers = at_once(acts)
    assert sum(isinstance(answer, PreconditionFailed) for answer in answers) == 7
    assert bench.registry.ask(MANAGER, lambda context: seen(context, NAME)).revision == 2


# -- over HTTP ----------------------------------------------------------------------------------------------------


def test_versions_over_http_are_numbered_without_a_gap_and_sealed(site: Site) -> None:
    site.create_adapter()
    plain = make_adapter()
    for data in plain.values():
        site.registry.blobs.put(data)

    def push(number: int) -> tuple[int, str]:
        readme = f"version {number}".encode()
        site.registry.blobs.put(readme)
        files = [entry_of(path, data) for path, data in {**plain, "README.md": readme}.items()]
        client = site.client("ci")
        made = client.submit("support-bot", SubmitVersion(files=files))
        return made.number, client.complete(made.ref).state.value

    found = at_once([partial(push, one) for one in range(WRITERS)])
    assert sorted(found) == [(number, "submitted") for number in range(1, WRITERS + 1)]  # type: ignore[type-var]


def test_over_http_the_loser_of_promotion_and_revocation_is_told(site: Site, tmp_path: Path) -> None:
    site.create_adapter()
    site.submit()
    site.evaluate(tmp_path)
    site.review()
    acts: list[Callable[[], Any]] = [
        partial(site.http, "POST", f"{BOT}/versions/1/promote", "release-manager", json={}),
        partial(site.http, "POST", f"{BOT}/versions/1/revoke", "admin", json={"reason": "it leaks"}),
    ]
    promoted, revoked = at_once(acts)
    assert revoked.status_code == 200 and promoted.status_code in (200, 409)
    history = body(site.http("GET", f"{BOT}/aliases/approved/history", "ci"))
    assert bool(history) == (promoted.status_code == 200)
    assert site.http("POST", f"{BOT}/versions/1/promote", "release-manager", json={}).status_code == 409
    for ref in ("support-bot/1", "support-bot@approved"):
        assert site.http("GET", f"/v1/resolve?ref={ref}", "consumer").status_code == 404


def test_if_match_takes_a_list_and_a_star(site: Site) -> None:
    site.create_adapter()
    path, document = BOT + "/policy", site.client("admin").policy("support-bot").document
    etag = site.http("GET", path, "ci").headers["ETag"]
    given = {"json": body(site.http("GET", path, "ci"))["document"]}
    assert document.review.outputs == given["json"]["review"]["outputs"]
    for wanted, value in (
        (200, etag),
        (200, f'"sha256:{"0" * 64}", {etag}'),
        (200, "*"),
        (412, f"W/{etag}"),
        (412, f'"sha256:{"0" * 64}", "x"'),
        (412, '""'),
    ):
        assert site.http("PUT", path, headers={"If-Match": value}, **given).status_code == wanted, value
    assert site.http("PUT", path, **given).status_code == 200, "the contract asks for no condition"
    twice = [("If-Match", '"x"'), ("If-Match", etag), ("Authorization", f"Bearer {site.tokens['admin']}")]
    assert httpx.put(site.url + path, headers=twice, timeout=30, **given).status_code == 200


@pytest.mark.parametrize(
    ("if_match", "current", "holds"),
    [
        (None, "", True),
        (None, "1-a", True),
        ('"1-a"', "1-a", True),
        ("1-a", "1-a", True),
        ('"1-a"', "2-b", False),
        ('"0-x" ,"2-b"', "2-b", True),
        ("*", "2-b", True),
        ("*", "", False),
        ('"*"', "2-b", False),
        ('""', "", True),
        ('""', "1-a", False),
        ('W/"1-a"', "1-a", False),
    ],
)
def test_condition_holds_for_what_the_caller_has_seen(if_match: str | None, current: str, holds: bool) -> None:
    assert matches(if_match, current) is holds
