"""The door: commands one after another, each once, each whole or not at all."""

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any

import msgspec
import pytest
from registry_under_test import ADMIN, CI, CONSUMER, MANAGER, NAME, Bench, bench_in, submission, tables

from registry.access import Principal
from registry.approval.attestation import Signer
from registry.commands import adapters, tokens, versions
from registry.commands.context import Context, Outcome
from registry.errors import (
    AlreadyExists,
    Conflict,
    IdempotencyMismatch,
    InspectionFailed,
    InvalidRequest,
    NotFound,
    StorageDamaged,
    StorageFull,
    TunegateError,
    Unavailable,
)
from registry.opening import open_registry
from registry.records import Base, CreateAdapter, CreateToken, Policy, Role, State
from registry.registry import Answer, Registry, Repeat
from registry.settings import Home
from registry.storage.blobs import LocalBlobs
from registry.storage.catalog import open_catalog
from registry.storage.journal import Head, Line, MemoryJournal, verify_chain

pytestmark = pytest.mark.slow

BODY, OTHER_BODY = "a" * 64, "b" * 64


@pytest.fixture
def bench(home: Home) -> Iterator[Bench]:
    with bench_in(home.root) as made:
        made.create_adapter()
        yield made


def make_token(person: str) -> Callable[[Context], Outcome]:
    return partial(tokens.create, request=CreateToken(role=Role.CI, person=person))


# -- many at once -------------------------------------------------------------------------------------------------


def test_a_question_of_many_parts_sees_one_state_whatever_is_committed_meanwhile(bench: Bench) -> None:
    for fill in (1, 2):
        bench.promote(bench.approvable(fill))

    def look(context: Context) -> list[Any]:
        view = context.view
        return [view.alias(NAME, "approved"), view.version(NAME, 1), view.version(NAME, 2), view.applied().seq]

    def question(context: Context) -> tuple[list[Any], list[Any]]:
        before = look(context)
        bench.rollback(to=1)
        return before, look(context)

    before, after = bench.registry.ask(ADMIN, question)
    assert before == after and before[0].number == 2
    with pytest.raises(NotFound):
        bench.registry.ask(ADMIN, lambda context: adapters.find_adapter(context, "unknown-bot"))
    now = bench.registry.ask(ADMIN, look)
    assert now[0].number == 1 and (now[1].state, now[2].state) == (State.APPROVED, State.SUPERSEDED)


def test_many_threads_get_numbers_of_their_own_and_leave_one_chain(bench: Bench) -> None:
    def push(fill: int) -> tuple[int, int, int]:
        """Also the same files from two threads, and commands that are refused in between."""
        number = bench.run(CI, versions.submit, adapter=NAME, request=submission(fill)).value.number
        with pytest.raises(NotFound):
            bench.run(CI, versions.complete, adapter=NAME, number=1000)
        again = bench.run(CI, versions.submit, adapter=NAME, request=submission(fill)).value.number
        return fill, number, again

    with ThreadPoolExecutor(12) as pool:
        found = list(pool.map(push, [fill for fill in range(1, 41) for _ in range(2)]))
    given = {fill: number for fill, number, _ in found}
    assert all(given[fill] == number == again for fill, number, again in found)
    assert sorted(given.values()) == list(range(1, 41))
    bench.reopen()
    assert verify_chain(bench.home.journal) == bench.registry.journal.head
    assert bench.rebuilt() == bench.tables()


def test_readers_see_whole_commands_only(bench: Bench) -> None:
    """An adapter and its policy come in one command: nobody sees the one without the other."""
    halves, done = [], threading.Event()

    def look() -> None:
        while not done.is_set():
            view = bench.registry.view()
            halves.extend(one for one in view.adapters("", 1000) if one.policy is None or one.revision != 1)

    readers = [threading.Thread(target=look) for _ in range(3)]
    for reader in readers:
        reader.start()
    try:
        for number in range(30):
            bench.create_adapter(f"one-{number}")
    finally:
        done.set()
        for reader in readers:
            reader.join(timeout=30)
    assert halves == []
    assert len(bench.registry.view().adapters("", 1000)) == 31


def test_command_refused_by_a_key_does_not_take_its_group_with_it(bench: Bench) -> None:
    """Commands share a transaction: one that breaks a key is refused alone."""
    gate = threading.Event()

    def wait(context: Context) -> Outcome:
        assert gate.wait(timeout=20)
        return Outcome(None)

    def broken(context: Context) -> Outcome:
        made = tokens.create(context, CreateToken(role=Role.CI, person="x"))
        return Outcome(None, [*made.events, *made.events])

    first = bench.registry.submit(ADMIN, wait)
    commands = [make_token("ann"), broken, make_token("bob"), broken, make_token("cid")]
    futures = [bench.registry.submit(ADMIN, command) for command in commands]
    gate.set()
    assert first.result(timeout=20).value is None
    errors = [future.exception(timeout=20) for future in futures]
    assert [type(error) for error in errors] == [type(None), Conflict, type(None), Conflict, type(None)]
    assert {"ann", "bob", "cid"} <= {token.person for token in bench.registry.view().tokens()}
    assert "x" not in {token.person for token in bench.registry.view().tokens()}
    assert bench.rebuilt() == bench.tables()


# -- once only ----------------------------------------------------------------------------------------------------


def test_same_key_and_request_gets_the_first_answer_also_after_a_restart(bench: Bench) -> None:
    first = bench.run(CI, versions.submit, Repeat("k", BODY), adapter=NAME, request=submission(1))
    head = bench.registry.journal.head
    for _ in range(2):
        again = bench.run(CI, versions.submit, Repeat("k", BODY), adapter=NAME, request=submission(1))
        assert again.repeated and not first.repeated
        assert again.status == first.status == 201
        assert msgspec.json.decode(again.value) == msgspec.to_builtins(first.value)
        assert bench.registry.journal.head == head
        bench.reopen()


def test_same_key_with_another_request_is_refused(bench: Bench) -> None:
    bench.run(CI, versions.submit, Repeat("k", BODY), adapter=NAME, request=submission(1))
    head = bench.registry.journal.head
    with pytest.raises(IdempotencyMismatch, match="'k'"):
        bench.run(CI, versions.submit, Repeat("k", OTHER_BODY), adapter=NAME, request=submission(2))
    assert bench.registry.journal.head == head


def test_keys_of_different_callers_do_not_meet(bench: Bench) -> None:
    first = bench.run(CI, versions.submit, Repeat("k", BODY), adapter=NAME, request=submission(1))
    other = Principal("t-other", CI.person, Role.CI)
    second = bench.run(other, versions.submit, Repeat("k", OTHER_BODY), adapter=NAME, request=submission(2))
    assert (first.value.number, second.value.number) == (1, 2)


def test_refused_request_may_be_sent_again_with_its_key(bench: Bench) -> None:
    repeat = Repeat("k", BODY)
    with pytest.raises(InspectionFailed, match="still misses"):
        bench.run(CI, versions.submit, adapter=NAME, request=submission(1))
        bench.run(CI, versions.complete, repeat, adapter=NAME, number=1)
    bench.submit(1)
    assert bench.run(CI, versions.complete, repeat, adapter=NAME, number=1).value.state is State.SUBMITTED


def test_one_key_from_many_threads_is_done_once(bench: Bench) -> None:
    before = bench.registry.journal.head.seq
    request = CreateAdapter(name="new-bot", base=Base(id="tiny", digest="sha256:" + "1" * 64), policy=Policy())
    with ThreadPoolExecutor(8) as pool:
        command = partial(adapters.create, request=request)
        answers: list[Answer] = list(
            pool.map(lambda _: bench.registry.execute(ADMIN, command, Repeat("k", BODY)), range(16))
        )
    assert sorted(answer.repeated for answer in answers) == [False] + [True] * 15
    assert {answer.status for answer in answers} == {201}
    assert bench.registry.journal.head.seq == before + 1


def test_answer_without_content_is_remembered_and_can_be_read_back(bench: Bench) -> None:
    made = bench.registry.execute(ADMIN, make_token("ann")).value
    for repeated in (False, True):
        answer = bench.run(ADMIN, tokens.revoke, Repeat("k", BODY), id_=made.token.id)
        assert (answer.value, answer.status, answer.repeated) == (None, 204, repeated)
    bench.reopen()
    assert bench.run(ADMIN, tokens.revoke, Repeat("k", BODY), id_=made.token.id).repeated


def test_secret_of_a_token_is_in_its_first_answer_only(bench: Bench) -> None:
    command = make_token("ann")
    first = bench.registry.execute(ADMIN, command, Repeat("k", BODY))
    again = bench.registry.execute(ADMIN, command, Repeat("k", BODY))
    assert first.value.secret and msgspec.json.decode(again.value).get("secret") is None
    bench.close()
    for path in bench.home.root.glob("*"):
        assert not path.is_file() or first.value.secret.encode() not in path.read_bytes()
    bench.registry = open_registry(bench.home).registry


@pytest.mark.parametrize("key", ["", "x" * 201])
def test_key_of_an_odd_length_is_refused(bench: Bench, key: str) -> None:
    with pytest.raises(InvalidRequest, match="1 to 200"):
        bench.registry.execute(ADMIN, make_token("ann"), Repeat(key, BODY))


# -- refusals -----------------------------------------------------------------------------------------------------


def refused(bench: Bench) -> list[tuple[type[TunegateError], Callable[[], Any]]]:
    return [
        (AlreadyExists, lambda: bench.create_adapter()),
        (InvalidRequest, lambda: bench.create_adapter("Not A Name")),
        (NotFound, lambda: bench.complete(99)),
        (NotFound, lambda: bench.run(CI, versions.submit, adapter="unknown", request=submission(1))),
        (TunegateError, lambda: bench.promote(1)),
        (NotFound, lambda: bench.rollback(1)),
        (NotFound, lambda: bench.revoke(99)),
    ]


def test_refused_command_appends_nothing_and_changes_nothing(bench: Bench) -> None:
    bench.submit(1)
    head, before = bench.registry.journal.head, bench.tables()
    for kind, act in refused(bench):
        with pytest.raises(kind):
            act()
    assert bench.registry.journal.head == head and bench.tables() == before


def test_command_with_a_defect_changes_nothing_and_the_next_one_works(bench: Bench) -> None:
    head = bench.registry.journal.head

    def defect(context: Context) -> Outcome:
        raise ZeroDivisionError("a defect")

    with pytest.raises(ZeroDivisionError):
        bench.registry.execute(ADMIN, defect)
    assert bench.registry.journal.head == head and bench.registry.damage is None
    assert bench.submit(1).number == 1


def test_event_that_could_not_be_read_back_is_not_written(bench: Bench) -> None:
    """One such entry and no start would ever succeed again."""
    head = bench.registry.journal.head

    def defect(context: Context) -> Outcome:
        event = tokens.create(context, CreateToken(role=Role.CI, person="x")).events[0]
        return Outcome(None, [msgspec.structs.replace(event, person=None)])

    with pytest.raises(msgspec.ValidationError):
        bench.registry.execute(ADMIN, defect)
    assert bench.registry.journal.head == head
    bench.reopen()


# -- closing ------------------------------------------------------------------------------------------------------


def test_close_finishes_what_was_accepted_and_takes_nothing_more(home: Home) -> None:
    registry = open_registry(home).registry
    futures: list[Future[Answer]] = [registry.submit(ADMIN, make_token(f"p{number}")) for number in range(200)]
    registry.close()
    assert all(future.result(timeout=0).status == 201 for future in futures)
    with pytest.raises(Unavailable, match="shutting down"):
        registry.submit(ADMIN, make_token("late"))
    with bench_in(home.root) as bench:
        people = {token.person for token in bench.registry.view().tokens()}
        assert {f"p{number}" for number in range(200)} <= people and "late" not in people


# -- a journal that fails -----------------------------------------------------------------------------------------


class FailingJournal:
    """A journal on a bad disk: `error` is what the next appends meet; `late` fails after the entries were stored."""

    def __init__(self) -> None:
        self.inner = MemoryJournal()
        self.error: Exception | None = None
        self.late = False

    @property
    def head(self) -> Head:
        return self.inner.head

    def append(self, lines: Sequence[Line]) -> Head:
        if self.error is not None:
            if self.late:
                self.inner.append(lines)
            raise self.error
        return self.inner.append(lines)

    def read(self, after: int = 0) -> Iterator[Line]:
        return self.inner.read(after)

    def close(self) -> None:
        self.inner.close()


class Shaky(Bench):
    """A bench over a failing journal; `restart` opens the same journal again, as a new process would."""

    def __init__(self, home: Home) -> None:
        self.home, self.journal = home, FailingJournal()
        home.root.mkdir()
        self.restart()

    def restart(self) -> None:
        blobs = LocalBlobs(self.home.blobs)
        catalog = open_catalog(self.home.catalog, self.home.staging, blobs, self.journal)
        self.registry = Registry(
            journal=self.journal, catalog=catalog, blobs=blobs, signer=Signer.generate(), draw_secret=b"s" * 32
        )


@pytest.fixture
def shaky(home: Home) -> Iterator[Shaky]:
    bench = Shaky(home)
    bench.create_adapter()
    yield bench
    bench.close()


def test_full_disk_refuses_the_command_and_reads_go_on(shaky: Shaky) -> None:
    before = shaky.tables()
    shaky.journal.error = StorageFull("no space left")
    futures = [shaky.registry.submit(ADMIN, make_token(f"p{number}")) for number in range(5)]
    assert {type(future.exception(timeout=20)) for future in futures} == {StorageFull}
    assert shaky.tables() == before and shaky.registry.damage is None
    shaky.journal.error = None
    assert shaky.submit(1).number == 1
    assert shaky.rebuilt() == shaky.tables()


@pytest.mark.parametrize("error", [StorageDamaged("cannot be written"), OSError(5, "I/O error"), RuntimeError("lost")])
@pytest.mark.parametrize("late", [False, True])
def test_failed_append_shows_nothing_and_ends_the_service(shaky: Shaky, error: Exception, late: bool) -> None:
    """What the disk holds is unknown then, so nothing more may be decided on it before a restart has looked."""
    applied, shown = shaky.registry.view().applied(), tables(shaky.registry)
    shaky.journal.error, shaky.journal.late = error, late
    with pytest.raises(StorageDamaged):
        shaky.registry.execute(ADMIN, make_token("ann"))
    shaky.journal.error = None
    assert shaky.registry.damage is not None
    with pytest.raises(StorageDamaged):
        shaky.registry.execute(ADMIN, make_token("bob"))
    with pytest.raises(StorageDamaged):
        shaky.registry.ask(CONSUMER, lambda context: context.view.adapters("", 10))
    assert shaky.journal.head.seq == applied.seq + late
    shaky.registry._catalog.close()
    shaky.restart()
    assert {token.person for token in shaky.registry.view().tokens()} == ({"ann"} if late else set())
    assert late or shaky.tables() == shown
    shaky.registry.execute(MANAGER, make_token("cid"))
    assert shaky.rebuilt() == shaky.tables()
