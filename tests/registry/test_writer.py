"""The writer's view answers from memory what the database would answer, at any point of any history."""

import threading
from collections.abc import Iterator
from concurrent.futures import Future
from functools import partial
from typing import Any

import pytest
from registry_under_test import ADMIN, CI, MANAGER, NAME, Bench, bench_in, submission
from writer_under_test import disagreements

from registry.commands import approvals, tokens, versions
from registry.commands.context import Context, Outcome
from registry.errors import Conflict
from registry.records import CreateToken, Revoke, Role, State
from registry.registry import Answer, Repeat
from registry.settings import Home
from registry.storage import writer
from registry.storage.writer import WriterView


@pytest.fixture
def bench(home: Home) -> Iterator[Bench]:
    with bench_in(home.root) as made:
        made.create_adapter()
        yield made


class Together:
    """Commands that come while the writer is busy, and so share a transaction."""

    def __init__(self, bench: Bench) -> None:
        self.bench, self.begin = bench, threading.Event()
        self.answers: list[Future[Answer]] = []

    def __enter__(self) -> "Together":
        started = threading.Event()

        def wait(context: Context) -> Outcome:
            started.set()
            assert self.begin.wait(timeout=20)
            return Outcome(None)

        self.bench.registry.submit(ADMIN, wait)
        assert started.wait(timeout=20)
        return self

    def __exit__(self, *_: object) -> None:
        self.begin.set()
        for answer in self.answers:
            answer.exception(timeout=30)

    def run(self, who: Any, command: Any, repeat: Repeat | None = None, **given: Any) -> None:
        self.answers.append(self.bench.registry.submit(who, partial(command, **given), repeat))


def test_commands_of_one_transaction_see_what_the_ones_before_them_did(bench: Bench) -> None:
    for fill in (1, 2):
        bench.submit(fill)
    before = bench.registry.journal.head.seq
    bench.run(MANAGER, approvals.revoke, adapter=NAME, number=2, request=Revoke(reason="r"))
    with Together(bench) as together:
        for fill in (3, 4, 3):
            together.run(CI, versions.submit, adapter=NAME, request=submission(fill))
        together.run(CI, versions.submit, Repeat("k", "1" * 64), adapter=NAME, request=submission(6))
        together.run(CI, versions.submit, Repeat("k", "1" * 64), adapter=NAME, request=submission(6))
        together.run(CI, versions.complete, adapter=NAME, number=1)
        together.run(CI, versions.complete, adapter=NAME, number=1)
        together.run(MANAGER, approvals.revoke, adapter=NAME, number=1, request=Revoke(reason="r"))
        together.run(CI, versions.complete, adapter=NAME, number=1)
        together.run(ADMIN, disagreements)
    found = [answer.result(timeout=0) for answer in together.answers[:-1]]
    assert [answer.value.number for answer in found[:4]] == [3, 4, 3, 5]
    assert found[4].repeated and not found[3].repeated
    assert [answer.value.state for answer in found[5:]] == [
        State.SUBMITTED,
        State.SUBMITTED,
        State.REVOKED,
        State.REVOKED,
    ]
    assert together.answers[-1].exception(timeout=0) is None
    assert bench.registry.journal.head.seq == before + 1 + 3 + 2
    assert bench.rebuilt() == bench.tables()


def test_what_a_key_refuses_is_not_journalled(bench: Bench) -> None:
    """The database is told of a command's rows at the end of its transaction; that must be before the append."""
    head = bench.registry.journal.head

    def twice(context: Context) -> Outcome:
        return Outcome(None, [*versions.submit(context, NAME, submission(1)).events] * 2)

    with pytest.raises(Conflict):
        bench.registry.execute(CI, twice)
    assert (bench.registry.journal.head, bench.registry.damage) == (head, None)
    assert bench.submit(1).number == 1


def test_what_one_command_spoils_leaves_no_trace_in_the_memory_of_the_others(bench: Bench) -> None:
    def broken(context: Context) -> Outcome:
        made = tokens.create(context, CreateToken(role=Role.CI, person="x"))
        return Outcome(None, [*versions.submit(context, NAME, submission(9)).events, *made.events, *made.events])

    with Together(bench) as together:
        together.run(CI, versions.submit, adapter=NAME, request=submission(1))
        together.run(ADMIN, broken)
        together.run(CI, versions.submit, Repeat("k1", "1" * 64), adapter=NAME, request=submission(2))
        together.run(ADMIN, disagreements)
    assert [type(answer.exception(timeout=0)) for answer in together.answers] == [type(None), Conflict] + [
        type(None)
    ] * 2
    assert [together.answers[place].result(timeout=0).value.number for place in (0, 2)] == [1, 2]
    assert bench.run(CI, versions.submit, adapter=NAME, request=submission(9)).value.number == 3
    assert bench.rebuilt() == bench.tables()


def test_unknown_digest_or_key_is_known_to_be_unknown_without_a_look_at_the_database(bench: Bench) -> None:
    """Every submission brings a new digest and a new key: looking for them would cost a scan each."""
    bench.submit(1)
    said: list[str] = []

    def watch(context: Context) -> Outcome:
        view = context.view
        assert isinstance(view, WriterView)
        told = view.rows._db

        class Told:
            def execute(self, sql: str, values: Any = None) -> Any:
                said.append(sql)
                return told.execute(sql, values)

        view.rows._db = Told()  # type: ignore[assignment]
        try:
            assert view.version_by_digest(NAME, "sha256:" + "0" * 64) is None
            assert view.receipt("t-ci", "new") is None
            assert view.last_number(NAME) == 2
        finally:
            view.rows._db = told
        return Outcome(None)

    bench.run(CI, versions.submit, Repeat("first", "0" * 64), adapter=NAME, request=submission(2))
    bench.run(CI, versions.submit, Repeat("first", "0" * 64), adapter=NAME, request=submission(2))
    bench.registry.execute(ADMIN, watch)
    assert said == []


def test_filter_of_keys_has_no_false_no(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where it is much too small; then the database is asked."""
    monkeypatch.setattr(writer, "_FILTER_BITS", 16)
    keys = [f"key {number}" for number in range(30)]
    for number, key in enumerate(keys):
        bench.run(CI, versions.submit, Repeat(key, "0" * 64), adapter=NAME, request=submission(number))
    for again in range(2):
        for number, key in enumerate(keys):
            answer = bench.run(CI, versions.submit, Repeat(key, "0" * 64), adapter=NAME, request=submission(number))
            assert answer.repeated
        assert not bench.run(
            CI, versions.submit, Repeat(f"new {again}", "0" * 64), adapter=NAME, request=submission(1)
        ).repeated
        bench.reopen()


@pytest.mark.parametrize("name", ["_MOST_ADAPTERS", "_MOST_DIGESTS"])
def test_digests_that_are_too_many_are_read_again(bench: Bench, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(writer, name, 0)
    bench.create_adapter("other")
    for fill in (1, 2, 1):
        for adapter in (NAME, "other"):
            bench.run(CI, versions.submit, adapter=adapter, request=submission(fill))
    assert [bench.registry.view().last_number(adapter) for adapter in (NAME, "other")] == [2, 2]
    bench.registry.execute(ADMIN, disagreements)
