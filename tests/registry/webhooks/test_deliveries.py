"""The log of deliveries: planned once, sent in order, kept through anything but its own loss."""

import sqlite3
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.webhooks import deliveries
from registry.webhooks.deliveries import Deliveries, Delivery, Planned, open_deliveries
from registry.webhooks.retrying import Attempt, Next, Schedule, judge

HOOK, OTHER = "wh_1", "wh_2"
PATIENT = 2
REFUSED = Next("pending", 10.0)


def make_delivery(seq: int, webhook: str = HOOK, position: int = 0) -> Delivery:
    return Delivery(f"msg_{webhook}_{seq}_{position}", webhook, seq, position, "alias.moved", b"{}")


def planned(log: Deliveries, *found: Delivery, again: list[tuple[str, str]] | None = None) -> int:
    return log.plan(Planned(max((one.seq for one in found), default=1), "0" * 64), found, again or [])


@pytest.fixture
def log() -> Deliveries:
    return Deliveries(None)


def due(log: Deliveries, now: float, webhook: str = HOOK) -> int | None:
    found = log.next_due(webhook, now, PATIENT)
    return found.seq if found else None


def failed(log: Deliveries, now: float, following: Next = REFUSED) -> None:
    found = log.next_due(HOOK, now, PATIENT)
    assert found is not None
    log.record(found, Attempt(503, "answered 503"), following, now)


def test_what_is_planned_twice_is_there_once_and_keeps_its_state(log: Deliveries) -> None:
    planned(log, make_delivery(1))
    found = log.next_due(HOOK, 0.0, PATIENT)
    assert found is not None
    log.record(found, Attempt(204), Next("delivered"), 5.0)
    planned(log, make_delivery(1), make_delivery(2))
    assert [(one.seq, one.state, one.attempts) for one in log.page(HOOK, None, 10)] == [
        (2, "pending", 0),
        (1, "delivered", 1),
    ]
    assert log.planned() == Planned(2, "0" * 64)


def test_a_failing_delivery_holds_up_the_others_until_patience_ends(log: Deliveries) -> None:
    planned(log, make_delivery(1), make_delivery(2))
    failed(log, 0.0)
    assert [due(log, now) for now in (5.0, 9.9, 10.0)] == [None, None, 1]
    failed(log, 10.0)
    assert due(log, 11.0) == 2, "patience is over: it no longer stands in the way"
    assert due(log, 20.0) == 1, "and is sent when it is due, before what came later"


def test_webhooks_do_not_stand_in_each_others_way(log: Deliveries) -> None:
    planned(log, make_delivery(1), make_delivery(1, OTHER), make_delivery(2, OTHER))
    failed(log, 0.0)
    assert (due(log, 1.0), due(log, 1.0, OTHER)) == (None, 1)


def test_order_is_by_entry_and_then_by_position_in_it(log: Deliveries) -> None:
    planned(log, make_delivery(2), make_delivery(1, position=1), make_delivery(1), make_delivery(10))
    order = []
    while (found := log.next_due(HOOK, 0.0, PATIENT)) is not None:
        order.append((found.seq, found.position))
        log.record(found, Attempt(204), Next("delivered"), 0.0)
    assert order == [(1, 0), (1, 1), (2, 0), (10, 0)]
    pages, before = [], None
    while page := log.page(HOOK, before, 2):
        pages.append([(one.seq, one.position) for one in page])
        before = (page[-1].seq, page[-1].position)
    assert pages == [[(10, 0), (2, 0)], [(1, 1), (1, 0)]]


def test_what_is_asked_for_again_is_sent_again_whatever_came_of_it(log: Deliveries) -> None:
    planned(log, make_delivery(1))
    failed(log, 0.0, Next("failed"))
    assert due(log, 100.0) is None
    again = [(HOOK, "msg_wh_1_1_0"), (OTHER, "msg_wh_1_1_0"), (HOOK, "msg_unknown")]
    assert planned(log, make_delivery(2), again=again) == 0
    found = log.next_due(HOOK, 7.0, PATIENT)
    assert found is not None
    assert (found.seq, found.attempts) == (1, 0)
    assert not log.has(OTHER, "msg_wh_1_1_0") and log.has(HOOK, "msg_wh_1_1_0")


def test_only_the_newest_finished_deliveries_are_kept(log: Deliveries, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deliveries, "_KEPT", 3)
    planned(log, *[make_delivery(seq) for seq in range(1, 8)], make_delivery(1, OTHER))
    while (found := log.next_due(HOOK, 0.0, PATIENT)) is not None and found.seq < 7:
        log.record(found, Attempt(204), Next("delivered"), 0.0)
    assert [one.seq for one in log.page(HOOK, None, 100)] == [7, 6, 5, 4]
    assert [one.seq for one in log.page(OTHER, None, 100)] == [1]


def test_of_too_many_that_wait_the_oldest_are_given_up(log: Deliveries, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deliveries, "_MOST_WAITING", 3)
    assert planned(log, *[make_delivery(seq) for seq in (1, 2, 3)], make_delivery(1, OTHER)) == 0
    assert planned(log, make_delivery(4), make_delivery(5)) == 2
    assert [(one.seq, one.state) for one in log.page(HOOK, None, 10)] == [
        (5, "pending"),
        (4, "pending"),
        (3, "pending"),
        (2, "failed"),
        (1, "failed"),
    ]
    assert "given up" in str(log.page(HOOK, None, 10)[-1].error)
    assert [one.state for one in log.page(OTHER, None, 10)] == ["pending"]
    assert due(log, 0.0) == 3


def test_what_belongs_to_webhooks_that_are_no_more_is_dropped(log: Deliveries) -> None:
    planned(log, make_delivery(1), make_delivery(1, OTHER))
    assert log.pending([HOOK, OTHER]) == 2
    log.keep_only([OTHER])
    assert (log.page(HOOK, None, 10), len(log.page(OTHER, None, 10))) == ([], 1)
    log.keep_only([])
    assert log.pending([HOOK, OTHER]) == 0


def test_all_of_it_outlives_the_process(tmp_path: Path) -> None:
    path = tmp_path / "deliveries.sqlite"
    first = open_deliveries(path)
    planned(first, make_delivery(1), make_delivery(2))
    failed(first, 50.0)
    first.close()
    second = open_deliveries(path)
    assert second.planned() == Planned(2, "0" * 64)
    assert [(one.seq, one.attempts, one.due, one.status) for one in second.page(HOOK, None, 10)] == [
        (2, 0, 0.0, None),
        (1, 1, 60.0, 503),
    ]
    assert path.stat().st_mode & 0o777 == 0o600
    second.close()


@pytest.mark.parametrize("damage", ["garbage", "torn", "newer"])
def test_a_damaged_log_is_set_aside_and_begun_anew(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "deliveries.sqlite"
    first = open_deliveries(path)
    planned(first, *[make_delivery(seq) for seq in range(1, 200)])
    if damage == "newer":
        first._db.execute("PRAGMA user_version = 99")
    first.close()
    data = path.read_bytes()
    if damage == "garbage":
        path.write_bytes(b"not a database" * 1000)
    if damage == "torn":
        middle = len(data) // 2
        path.write_bytes(data[:middle] + bytes(8192) + data[middle + 8192 :])
    second = open_deliveries(path)
    assert (second.planned(), second.page(HOOK, None, 10)) == (None, [])
    assert (tmp_path / "deliveries.sqlite.damaged").exists()
    planned(second, make_delivery(1))
    second.close()


def test_a_disk_that_fails_says_nothing_about_the_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "deliveries.sqlite"
    first = open_deliveries(path)
    planned(first, make_delivery(1))
    first.close()

    def fail(_: Deliveries) -> None:
        raise sqlite3.OperationalError("disk I/O error")

    with monkeypatch.context() as broken:
        broken.setattr(Deliveries, "_prepare", fail)
        with pytest.raises(sqlite3.OperationalError):
            open_deliveries(path)
    second = open_deliveries(path)
    assert second.has(HOOK, "msg_wh_1_1_0")
    second.close()


def test_a_plan_that_fails_half_way_changes_nothing(log: Deliveries) -> None:
    planned(log, make_delivery(1))
    with pytest.raises(sqlite3.ProgrammingError):
        log.plan(Planned(3, "1" * 64), [make_delivery(2)], [("one value too few",)])  # type: ignore[list-item]
    assert log.planned() == Planned(1, "0" * 64)
    assert [one.seq for one in log.page(HOOK, None, 10)] == [1]
    planned(log, make_delivery(2))
    assert [one.seq for one in log.page(HOOK, None, 10)] == [2, 1]


SCHEDULE = Schedule(waits=(1, 2, 4, 50, 100), patient=3, refused=2)


@given(st.lists(st.lists(st.sampled_from([500, 404, None, 429]), max_size=6), min_size=1, max_size=6))
def test_every_message_ends_and_is_passed_only_by_what_has_lost_patience_with_it(
    scripts: list[list[int | None]],
) -> None:
    """A receiver that answers each message by its own script, and 204 after it."""
    log, now, ended = Deliveries(None), 0.0, set[int]()
    attempts, firsts = dict.fromkeys(range(1, len(scripts) + 1), 0), list[int]()
    planned(log, *[make_delivery(seq) for seq in attempts])
    while log.pending([HOOK]):
        found = log.next_due(HOOK, now, SCHEDULE.patient)
        if found is None:
            now += 0.5
            assert now < 10_000, "nothing is ever due again"
            continue
        assert all(one in ended or attempts[one] >= SCHEDULE.patient for one in range(1, found.seq))
        attempt = Attempt([*scripts[found.seq - 1], *[204] * 10][found.attempts])
        following = judge(attempt, found.attempts + 1, SCHEDULE, 0.5)
        log.record(found, attempt, following, now)
        attempts[found.seq] += 1
        firsts += [found.seq] if found.attempts == 0 else []
        ended |= {found.seq} if following.state != "pending" else set()
    assert firsts == list(attempts), "first attempts are in order"
    assert ended == set(attempts)
    log.close()
