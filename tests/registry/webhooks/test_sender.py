"""The sender over a real registry and real receivers: nothing is left out, nobody waits, repeats look the same."""

import base64
import contextlib
import hmac
import json
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from receiver_under_test import (
    Handler,
    Receiver,
    Seen,
    answers,
    drips,
    floods,
    hangs,
    in_turn,
    receiving,
    says_no_http,
)
from registry_under_test import ADMIN, CI, Bench, bench_in, submission

from registry import outbound
from registry.commands import approvals, versions, webhooks
from registry.errors import StorageDamaged
from registry.outbound import WIRES
from registry.records import CreateWebhook, Revoke, WebhookCreated, WebhookEvent
from registry.webhooks import sender as sending
from registry.webhooks.deliveries import Delivery
from registry.webhooks.retrying import Schedule
from registry.webhooks.sender import Sender

# As the standard one, without its long waits.
QUICK = Schedule(waits=(0.05, 0.05, 0.05, 0.1, 0.1), patient=2, refused=3)
CUT_SOON = partial(outbound.post, wires=WIRES._replace(seconds=0.4))
WAIT_SECONDS = 30.0


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    with bench_in(tmp_path / "home") as found:
        found.create_adapter()
        yield found


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as found:
        yield found


@contextlib.contextmanager
def sender_of(bench: Bench, *receivers: Receiver, **given: Any) -> Iterator[Sender]:
    """A running sender that may call these receivers."""
    allow = frozenset(one.place for one in receivers)
    sender = Sender(bench.registry, bench.home, allow=allow, **{"schedule": QUICK, **given})
    sender.start()
    try:
        yield sender
    finally:
        sender.stop()


def hook(bench: Bench, sender: Sender, receiver: Receiver, scope: str | None = None) -> WebhookCreated:
    """A webhook for every event."""
    request = CreateWebhook(url=receiver.url, events=list(WebhookEvent), scope=scope)
    made: WebhookCreated = bench.run(
        ADMIN, webhooks.create, request=request, allow=sender.allow, secret_of=sender.secret_of
    ).value
    return made


def tell(bench: Bench, made: WebhookCreated, times: int = 1) -> list[str]:
    """So many messages to one webhook; their ids."""
    return [bench.run(ADMIN, webhooks.test, id_=made.webhook.id).value.delivery for _ in range(times)]


def revoked(bench: Bench, fill: int = 1) -> str:
    """A version that is announced and revoked, which is told to everyone who may see it."""
    number = bench.submit(fill).number
    bench.revoke(number)
    return f"support-bot/{number}"


def settled(sender: Sender, made: WebhookCreated, count: int = 1) -> list[Delivery]:
    """All deliveries of a webhook, oldest first, once there are so many and none waits."""
    deadline = time.monotonic() + WAIT_SECONDS
    while time.monotonic() < deadline:
        found = sender.deliveries.page(made.webhook.id, None, 1000)
        if len(found) >= count and all(one.state != "pending" for one in found):
            return found[::-1]
        time.sleep(0.01)
    raise AssertionError(f"still waiting: {found}")


def tried(sender: Sender, made: WebhookCreated, attempts: int = 1) -> Delivery:
    """The oldest delivery of a webhook, once so many attempts are recorded."""
    deadline = time.monotonic() + WAIT_SECONDS
    while time.monotonic() < deadline:
        found = sender.deliveries.page(made.webhook.id, None, 1000)
        if found and found[-1].attempts >= attempts:
            return found[-1]
        time.sleep(0.01)
    raise AssertionError(f"not tried: {found}")


def is_signed(seen: Seen, secret: str) -> bool:
    """As a receiver checks it."""
    key = base64.b64decode(secret.removeprefix("whsec_"))
    signed = f"{seen.headers['webhook-id']}.{seen.headers['webhook-timestamp']}.".encode() + seen.body
    expected = "v1," + base64.b64encode(hmac.digest(key, signed, "sha256")).decode()
    return hmac.compare_digest(expected, seen.headers["webhook-signature"])


def ids(receiver: Receiver) -> list[str]:
    return [one.headers["webhook-id"] for one in receiver.seen]


# -- what is sent ------------------------------------------------------------------------------------------------------


def test_what_happens_is_told_once_signed_and_counted(bench: Bench, receiver: Receiver) -> None:
    with sender_of(bench, receiver) as sender:
        made = hook(bench, sender, receiver)
        ref = revoked(bench)
        (seen,) = receiver.wait_for(1)
        (delivery,) = settled(sender, made)
        assert (delivery.state, delivery.status, delivery.attempts, delivery.error) == ("delivered", 204, 1, None)
        assert sender.counts() == (1, 0, 0)
    assert (seen.method, seen.path, seen.headers["content-type"]) == ("POST", "/hook", "application/json")
    assert seen.headers["webhook-id"] == delivery.id
    message = json.loads(seen.body)
    assert (message["type"], message["data"]["ref"]) == ("version.revoked", ref)
    assert abs(int(seen.headers["webhook-timestamp"]) - time.time()) < 300
    assert is_signed(seen, str(made.secret))
    assert not is_signed(seen, sender.secret_of("wh_other"))
    assert not is_signed(seen._replace(body=seen.body + b" "), str(made.secret))


def test_the_secret_is_in_no_file_of_the_home(bench: Bench, receiver: Receiver) -> None:
    with sender_of(bench, receiver) as sender:
        made = hook(bench, sender, receiver)
        tell(bench, made)
        settled(sender, made)
        secret = str(made.secret).removeprefix("whsec_")
        for file in bench.home.root.rglob("*"):
            data = file.read_bytes() if file.is_file() else b""
            assert secret.encode() not in data and base64.b64decode(secret) not in data, file
    assert bench.home.webhook_secret.stat().st_mode & 0o777 == 0o600


def test_only_what_was_asked_for_and_came_after_is_told(bench: Bench, receiver: Receiver) -> None:
    with sender_of(bench, receiver) as sender:
        early = hook(bench, sender, receiver)
        revoked(bench, fill=1)
        request = CreateWebhook(url=receiver.url, events=[WebhookEvent.ALIAS_MOVED])
        deaf: WebhookCreated = bench.run(
            ADMIN, webhooks.create, request=request, allow=sender.allow, secret_of=sender.secret_of
        ).value
        made = hook(bench, sender, receiver)
        ref = revoked(bench, fill=2)
        (delivery,) = settled(sender, made)
        assert json.loads(delivery.body)["data"]["ref"] == ref
        assert sender.deliveries.page(deaf.webhook.id, None, 10) == []
        assert len(settled(sender, early, 2)) == 2


def test_a_scoped_webhook_is_told_of_its_adapters_only(bench: Bench, receiver: Receiver) -> None:
    """Two tenants, one of them with a name that begins like the other's."""
    for name in ("team/bot", "teams/bot", "other/bot"):
        bench.create_adapter(name)
    with sender_of(bench, receiver) as sender:
        scopes = ["team", "other/bot", "other/b", None]
        made = {scope: hook(bench, sender, receiver, scope) for scope in scopes}
        for name in ("team/bot", "teams/bot", "other/bot"):
            number = bench.run(CI, versions.submit, adapter=name, request=submission(1)).value.number
            bench.run(ADMIN, approvals.revoke, adapter=name, number=number, request=Revoke(reason="it leaks"))
        settled(sender, made[None], 3)
        told = {
            scope: [json.loads(one.body)["data"]["ref"] for one in settled(sender, one_made, count)]
            for (scope, one_made), count in zip(made.items(), (1, 1, 0, 3), strict=True)
        }
    assert told == {
        "team": ["team/bot/1"],
        "other/bot": ["other/bot/1"],
        "other/b": [],
        None: ["team/bot/1", "teams/bot/1", "other/bot/1"],
    }


# -- receivers that fail -----------------------------------------------------------------------------------------------


def test_a_failing_receiver_is_tried_again_under_the_same_id_with_a_new_signature(
    bench: Bench, receiver: Receiver
) -> None:
    clock = iter(range(1_700_000_000, 1_800_000_000))
    receiver.behaviour = in_turn(answers(503), answers(500), says_no_http, answers(429), answers(200))
    with sender_of(bench, receiver, clock=lambda: float(next(clock))) as sender:
        made = hook(bench, sender, receiver)
        (id_,) = tell(bench, made)
        (delivery,) = settled(sender, made)
        assert (delivery.id, delivery.state, delivery.attempts) == (id_, "delivered", 5)
    assert ids(receiver) == [id_] * 5
    assert len({one.headers["webhook-timestamp"] for one in receiver.seen}) == 5
    assert len({one.body for one in receiver.seen}) == 1
    assert all(is_signed(one, str(made.secret)) for one in receiver.seen)


def test_a_receiver_that_asks_for_time_gets_it(bench: Bench, receiver: Receiver) -> None:
    receiver.behaviour = answers(429, {"Retry-After": "100"})
    with sender_of(bench, receiver) as sender:
        made = hook(bench, sender, receiver)
        tell(bench, made)
        delivery = tried(sender, made)
        assert delivery.tried_at is not None
        assert 99 < delivery.due - delivery.tried_at < 101
        assert sender.counts() == (0, 0, 1)


@pytest.mark.parametrize(
    ("behaviour", "says"),
    [
        (hangs, "took longer than"),
        (drips, "took longer than"),
        (says_no_http, "did not answer in HTTP"),
        (answers(500), "answered 500"),
        (answers(404), "answered 404"),
        (answers(302, {"location": "http://127.0.0.1:1/"}), "redirects are not followed"),
    ],
    ids=["hangs", "drips", "no http", "500", "404", "redirects"],
)
def test_what_never_succeeds_is_given_up_with_the_reason(
    bench: Bench, receiver: Receiver, behaviour: Callable[[Handler], None], says: str
) -> None:
    receiver.behaviour = behaviour
    with sender_of(bench, receiver, post=partial(outbound.post, wires=WIRES._replace(seconds=0.15))) as sender:
        made = hook(bench, sender, receiver)
        tell(bench, made)
        (delivery,) = settled(sender, made)
        assert sender.counts() == (0, 1, 0)
    refused = delivery.status in (302, 404)
    assert (delivery.state, delivery.attempts) == ("failed", QUICK.refused if refused else len(QUICK.waits) + 1)
    assert delivery.error is not None and says in delivery.error
    assert len(receiver.seen) == delivery.attempts


def test_an_answer_of_a_gigabyte_is_an_answer_all_the_same(bench: Bench, receiver: Receiver) -> None:
    receiver.behaviour = floods
    with sender_of(bench, receiver) as sender:
        made = hook(bench, sender, receiver)
        tell(bench, made)
        (delivery,) = settled(sender, made)
    assert (delivery.state, delivery.status, len(receiver.seen)) == ("delivered", 200, 1)
    flooded: int = receiver.flooded  # type: ignore[attr-defined]
    assert flooded < 64 * 1024 * 1024


def test_410_disables_the_webhook_and_the_journal_says_so(bench: Bench, receiver: Receiver) -> None:
    receiver.behaviour = answers(410)
    with sender_of(bench, receiver) as sender:
        made = hook(bench, sender, receiver)
        tell(bench, made)
        (delivery,) = settled(sender, made)
        assert (delivery.state, delivery.status) == ("failed", 410)
        (stored,) = bench.registry.view().webhooks()
        assert stored.disabled_at is not None and "410" in str(stored.disabled_reason)
        revoked(bench)
        other = hook(bench, sender, receiver)
        tell(bench, other)
        settled(sender, other)
        assert len(sender.deliveries.page(made.webhook.id, None, 10)) == 1
    assert len(receiver.seen) == 2, "one for each webhook, none after it was disabled"
    assert bench.rebuilt() == bench.tables()


def test_what_was_given_up_is_sent_again_when_asked_for(bench: Bench, receiver: Receiver) -> None:
    receiver.behaviour = in_turn(*[answers(404)] * QUICK.refused, answers(204))
    with sender_of(bench, receiver) as sender:
        made = hook(bench, sender, receiver)
        (id_,) = tell(bench, made)
        assert settled(sender, made)[0].state == "failed"
        bench.run(ADMIN, webhooks.redeliver, id_=made.webhook.id, delivery=id_)
        receiver.wait_for(QUICK.refused + 1)
        assert settled(sender, made)[0].state == "delivered"
        assert len(sender.deliveries.page(made.webhook.id, None, 10)) == 1
    assert set(ids(receiver)) == {id_}


# -- order and fairness ------------------------------------------------------------------------------------------------


def test_a_short_outage_changes_no_order(bench: Bench, receiver: Receiver) -> None:
    receiver.behaviour = in_turn(answers(503), answers(204))
    with sender_of(bench, receiver) as sender:
        made = hook(bench, sender, receiver)
        sent = tell(bench, made, times=3)
        settled(sender, made, 3)
    assert ids(receiver) == [sent[0], *sent]


def test_one_hopeless_message_does_not_stop_the_others(bench: Bench, receiver: Receiver) -> None:
    with sender_of(bench, receiver) as sender:
        made = hook(bench, sender, receiver)
        poison = threading.Event()

        def refuse_the_first(handler: Handler) -> None:
            hopeless = handler.headers["webhook-id"] == ids(receiver)[0]
            handler.say(500 if hopeless and not poison.is_set() else 204)

        receiver.behaviour = refuse_the_first
        sent = tell(bench, made, times=3)
        found = settled(sender, made, 3)
        assert [(one.state, one.attempts) for one in found] == [
            ("failed", len(QUICK.waits) + 1),
            ("delivered", 1),
            ("delivered", 1),
        ]
    order = ids(receiver)
    assert order[: QUICK.patient] == [sent[0]] * QUICK.patient, "it holds them up while there is patience"
    assert [one for one in order if one != sent[0]] == sent[1:]


def test_receivers_that_hang_keep_out_neither_commands_nor_others(bench: Bench, receiver: Receiver) -> None:
    at_once = Schedule(waits=(0.0,) * 1000, patient=1000, refused=3)
    with receiving(hangs) as hanging, sender_of(bench, receiver, hanging, post=CUT_SOON, schedule=at_once) as sender:
        stuck = [hook(bench, sender, hanging, scope=f"n{number}") for number in range(12)]
        good = hook(bench, sender, receiver)
        for made in stuck:
            tell(bench, made, times=2)
        hanging.wait_for(8)
        sent = tell(bench, good, times=3)
        found = settled(sender, good, 3)
        assert [one.state for one in found] == ["delivered"] * 3
        assert sender.counts() == (3, 0, 24)
    assert ids(receiver) == sent


def test_one_webhook_gets_one_message_at_a_time(bench: Bench, receiver: Receiver) -> None:
    inside, most, lock = 0, 0, threading.Lock()

    def count(handler: Handler) -> None:
        nonlocal inside, most
        with lock:
            inside, most = inside + 1, max(most, inside + 1)
        time.sleep(0.6 if len(receiver.seen) == 1 else 0.01)  # longer than the sender waits between two looks
        with lock:
            inside -= 1
        handler.say(204)

    receiver.behaviour = count
    with sender_of(bench, receiver) as sender:
        made = hook(bench, sender, receiver)
        sent = tell(bench, made, times=10)
        settled(sender, made, 10)
    assert (ids(receiver), most) == (sent, 1)


# -- restarts and losses -----------------------------------------------------------------------------------------------


def test_what_waits_is_sent_after_a_restart(bench: Bench, receiver: Receiver) -> None:
    receiver.behaviour = answers(503, {"Retry-After": "3600"})
    with sender_of(bench, receiver) as sender:
        made = hook(bench, sender, receiver)
        (id_,) = tell(bench, made)
        tried(sender, made)
    tell(bench, made)  # while nobody sends
    bench.reopen()
    receiver.behaviour = answers(204)
    later = time.time() + 3700
    with sender_of(bench, receiver, clock=lambda: later) as sender:
        assert [one.state for one in settled(sender, made, 2)] == ["delivered"] * 2
    assert ids(receiver)[:2] == [id_, id_] and len(receiver.seen) == 3


def test_a_lost_log_means_all_is_sent_again_under_the_same_ids(bench: Bench, receiver: Receiver) -> None:
    with sender_of(bench, receiver) as sender:
        made = hook(bench, sender, receiver)
        sent = tell(bench, made, times=3)
        settled(sender, made, 3)
    for suffix in ("", "-wal", "-shm"):
        Path(f"{bench.home.deliveries}{suffix}").unlink(missing_ok=True)
    bench.reopen()
    with sender_of(bench, receiver) as sender:
        settled(sender, made, 3)
    assert ids(receiver) == sent + sent
    assert receiver.seen[0].body == receiver.seen[3].body


def test_a_log_that_was_read_up_to_now_is_not_read_again(bench: Bench, receiver: Receiver) -> None:
    with sender_of(bench, receiver) as sender:
        made = hook(bench, sender, receiver)
        tell(bench, made, times=2)
        settled(sender, made, 2)
    bench.reopen()
    with sender_of(bench, receiver) as sender:
        tell(bench, made)
        settled(sender, made, 3)
    assert len(receiver.seen) == 3


def test_a_journal_with_another_end_is_told_anew_and_what_is_the_same_only_once(
    bench: Bench, receiver: Receiver
) -> None:
    with sender_of(bench, receiver) as sender:
        made = hook(bench, sender, receiver)
        tell(bench, made, times=2)
        settled(sender, made, 2)
    with sqlite3.connect(bench.home.deliveries) as db:
        db.execute("UPDATE planned SET seq = seq + 100")
    db.close()
    with sender_of(bench, receiver) as sender:
        tell(bench, made)
        settled(sender, made, 3)
    assert len(receiver.seen) == 3


def test_what_was_sent_but_not_noted_is_sent_again_under_the_same_id(
    bench: Bench, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sending, "_PAUSE_SECONDS", 0.05)
    with sender_of(bench, receiver) as sender:
        made = hook(bench, sender, receiver)
        record, failures = sender.deliveries.record, iter([True])

        def full_once(*given: Any) -> None:
            if next(failures, False):
                raise sqlite3.OperationalError("database or disk is full")
            record(*given)

        monkeypatch.setattr(sender.deliveries, "record", full_once)
        (id_,) = tell(bench, made)
        assert settled(sender, made)[0].state == "delivered"
    assert ids(receiver) == [id_, id_]


def test_an_error_while_planning_stops_nothing_for_good(
    bench: Bench, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sending, "_PAUSE_SECONDS", 0.05)
    with sender_of(bench, receiver) as sender:
        made = hook(bench, sender, receiver)
        plan, failures = sender.deliveries.plan, iter([True, True])

        def full_twice(*given: Any) -> int:
            if next(failures, False):
                raise sqlite3.OperationalError("database or disk is full")
            return plan(*given)

        monkeypatch.setattr(sender.deliveries, "plan", full_twice)
        sent = tell(bench, made, times=2)
        settled(sender, made, 2)
    assert ids(receiver) == sent


def test_a_copy_that_is_tried_out_sends_nothing_until_it_may(bench: Bench, receiver: Receiver) -> None:
    with sender_of(bench, receiver, sends=False) as sender:
        made = hook(bench, sender, receiver)
        sent = tell(bench, made, times=2)
        time.sleep(0.6)  # longer than the sender waits between two looks
        assert (sender.deliveries.page(made.webhook.id, None, 9), sender.counts(), receiver.seen) == ([], (0, 0, 0), [])
    with sender_of(bench, receiver) as sender:
        settled(sender, made, 2)
    assert ids(receiver) == sent


def test_nothing_is_signed_with_a_secret_that_is_not_the_webhooks(bench: Bench, receiver: Receiver) -> None:
    with sender_of(bench, receiver) as sender:
        made = hook(bench, sender, receiver)
    bench.home.webhook_secret.write_bytes(bytes(32))
    with sender_of(bench, receiver) as sender:
        tell(bench, made)
        (delivery,) = settled(sender, made)
    assert (delivery.state, receiver.seen) == ("failed", [])
    assert "webhooks.secret" in str(delivery.error)


def test_a_webhook_that_is_deleted_is_forgotten(bench: Bench, receiver: Receiver) -> None:
    receiver.behaviour = answers(503, {"Retry-After": "3600"})
    with sender_of(bench, receiver) as sender:
        made = hook(bench, sender, receiver)
        tell(bench, made)
        tried(sender, made)
        bench.run(ADMIN, webhooks.delete, id_=made.webhook.id)
        deadline = time.monotonic() + WAIT_SECONDS
        while sender.deliveries.page(made.webhook.id, None, 10) and time.monotonic() < deadline:
            time.sleep(0.01)
        assert sender.deliveries.page(made.webhook.id, None, 10) == []
        assert sender.counts() == (0, 0, 0)


def test_stopping_finishes_what_is_being_sent(bench: Bench, receiver: Receiver) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def slow(handler: Handler) -> None:
        begun.set()
        go_on.wait(20)
        handler.say(204)

    receiver.behaviour = slow
    sender = Sender(bench.registry, bench.home, allow=frozenset({receiver.place}), schedule=QUICK)
    sender.start()
    made = hook(bench, sender, receiver)
    (id_,) = tell(bench, made)
    assert begun.wait(20)
    stopping = threading.Thread(target=sender.stop)
    stopping.start()
    go_on.set()
    stopping.join(timeout=20)
    assert not stopping.is_alive()
    with sender_of(bench, receiver) as again:
        assert settled(again, made)[0].state == "delivered"
    assert ids(receiver) == [id_]


def test_a_registry_that_serves_nothing_any_more_sends_nothing_either(bench: Bench, receiver: Receiver) -> None:
    with sender_of(bench, receiver) as sender:
        made = hook(bench, sender, receiver)
        tell(bench, made)
        settled(sender, made)
        bench.registry._damage = "the disk is gone"
        sender._read_to = 0
        sender._thread.join(timeout=WAIT_SECONDS)
        assert not sender._thread.is_alive()
    assert len(receiver.seen) == 1


def test_a_sender_that_never_started_stops(bench: Bench) -> None:
    Sender(bench.registry, bench.home).stop()


@pytest.mark.parametrize("content", [b"", bytes(31), bytes(33)])
def test_a_secret_file_that_is_not_ours_is_refused(bench: Bench, content: bytes) -> None:
    bench.home.webhook_secret.write_bytes(content)
    with pytest.raises(StorageDamaged, match="restore the keys"):
        Sender(bench.registry, bench.home)
    assert bench.home.webhook_secret.read_bytes() == content


def test_a_registry_in_memory_has_its_deliveries_there_too(bench: Bench, receiver: Receiver) -> None:
    sender = Sender(bench.registry, None, allow=frozenset({receiver.place}), schedule=QUICK)
    sender.start()
    try:
        made = hook(bench, sender, receiver)
        tell(bench, made)
        settled(sender, made)
    finally:
        sender.stop()
    assert not bench.home.deliveries.exists() and not bench.home.webhook_secret.exists()
