"""What webhooks are told of each event, and what they are never told."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from factories import make_entries
from registry_under_test import NAME, REVIEWERS, Bench, bench_in

from registry.events import Actor, AliasMoved, Entry, WebhookTested
from registry.records import Envelope
from registry.webhooks.messages import Message, message_id, messages_of

DIGESTS = {1: "sha256:" + "1" * 64, 2: "sha256:" + "2" * 64}


@pytest.fixture(scope="module")
def lived(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    """Two versions that went all the way, a way back, and a revocation."""
    with bench_in(Path(tmp_path_factory.mktemp("messages")) / "home") as bench:
        bench.create_adapter()
        for fill in (1, 2):
            bench.promote(bench.approvable(fill))
        bench.rollback(1)
        bench.revoke(2)
        yield bench


def told(bench: Bench) -> list[Message]:
    def digest_of(adapter: str, number: int) -> str:
        stored = bench.registry.view().version(adapter, number)
        assert stored is not None
        return stored.digest

    lines = bench.registry.journal.read()
    return [one for line in lines for one in messages_of(line.entry, line.hash, digest_of)]


def parsed(bench: Bench) -> list[dict[str, Any]]:
    return [json.loads(one.body) for one in told(bench)]


def test_the_way_of_a_version_is_told_in_order(lived: Bench) -> None:
    found = [(one["type"], one["data"]["number"], one["data"]["state"]) for one in parsed(lived)]
    way = [
        [
            ("gate.decided", number, "in_review"),
            ("review.needed", number, "in_review"),
            ("gate.decided", number, "approvable"),
            ("alias.moved", number, "approved"),
        ]
        for number in (1, 2)
    ]
    after = [("alias.moved", 1, "approved"), ("version.revoked", 2, "revoked")]
    assert found == [*way[0], *way[1], *after]


def test_each_message_names_version_digest_entry_and_actor(lived: Bench) -> None:
    view = lived.registry.view()
    for message in parsed(lived):
        data, stored = message["data"], view.version(NAME, message["data"]["number"])
        assert stored is not None
        assert (data["ref"], data["adapter"], data["digest"]) == (stored.ref, NAME, stored.digest)
        line = next(lived.registry.journal.read(after=data["sequence"] - 1))
        assert message["timestamp"] == line.entry.at
        assert data["actor"]["role"] == line.entry.actor.role
    moved = [one["data"] for one in parsed(lived) if one["type"] == "alias.moved"]
    assert [(one["previous"], one["ref"], one["counter"]) for one in moved] == [
        (None, f"{NAME}/1", 1),
        (f"{NAME}/1", f"{NAME}/2", 2),
        (f"{NAME}/2", f"{NAME}/1", 3),
    ]
    assert {one["actor"]["person"] for one in moved} == {"rita"}
    decided = [one["data"] for one in parsed(lived) if one["type"] == "gate.decided"]
    assert {one["verdict"] for one in decided} == {"pending", "go"}
    needed = next(one["data"] for one in parsed(lived) if one["type"] == "review.needed")
    assert (needed["reviewers"], needed["suite"].partition("@")[0]) == (3, "support-desk/pilot")


def test_no_message_holds_suite_items_reasons_or_who_a_reviewer_was(lived: Bench) -> None:
    everything = b"".join(one.body for one in told(lived)).decode()
    held_out = ["please tell me", "What is number", "answer1", "reply ", "hello ", "i0001"]
    words = ["the newer one is worse", "it leaks", "the gate is satisfied"]
    people = [one.person for one in REVIEWERS]
    assert [one for one in (*held_out, *words, *people) if one in everything] == []
    assert '"role":"reviewer"' in everything, "some of this was a reviewer's doing"


def test_messages_are_the_same_whenever_they_are_made(lived: Bench) -> None:
    assert told(lived) == told(lived)
    keys = [one.key for one in told(lived)]
    assert len(set(keys)) == len(keys)


def test_the_ids_of_another_history_are_other_ids() -> None:
    (entry,) = make_entries(1, events=[WebhookTested(id="wh_1", test="a"), move(1, "rita")])
    one, other = (messages_of(entry, digit * 64, lambda *_: DIGESTS[1])[1] for digit in "ab")
    assert one.key != other.key
    assert message_id("wh_1", one.key) != message_id("wh_2", one.key)


def test_what_the_policy_promoted_is_not_said_to_be_the_last_reviewers_doing() -> None:
    (entry,) = make_entries(1, events=[move(1, "tunegate")])
    by_reviewer = Entry(
        seq=1, prev=entry.prev, at=entry.at, actor=Actor(person="rob", role="reviewer"), events=entry.events
    )
    (message,) = messages_of(by_reviewer, "0" * 64, lambda *_: DIGESTS[1])
    assert json.loads(message.body)["data"]["actor"] == {"person": "tunegate"}


def test_a_test_is_for_its_webhook_alone() -> None:
    (entry,) = make_entries(1, events=[WebhookTested(id="wh_1", test="abc")])
    (message,) = messages_of(entry, "0" * 64, lambda *_: DIGESTS[1])
    assert (message.webhook, message.type, message_id("wh_1", message.key)) == (
        "wh_1",
        "webhook.test",
        "msg_1_test_abc",
    )
    assert json.loads(message.body)["data"] == {
        "webhook": "wh_1",
        "sequence": 1,
        "actor": {"person": "ada", "role": "admin"},
    }


def test_other_events_are_told_to_nobody() -> None:
    assert [messages_of(entry, "0" * 64, lambda *_: "") for entry in make_entries(3)] == [[], [], []]


def move(number: int, by: str) -> AliasMoved:
    return AliasMoved(
        adapter=NAME,
        alias="approved",
        counter=1,
        previous=None,
        number=number,
        digest=DIGESTS[number],
        by=by,
        reason="r",
        attestation=Envelope(payloadType="t", payload="", signatures=[]),
    )
