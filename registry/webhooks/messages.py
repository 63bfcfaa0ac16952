"""What webhooks are told: messages as a pure function of journal entries.

A message says what happened to which version, in names, numbers and digests. It never holds suite items, outputs,
comments or reasons in someone's own words, nor who a reviewer was: whoever needs more asks the registry.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import rfc8785

from registry.events import (
    Actor,
    AliasMoved,
    AnyEvent,
    CampaignOpened,
    Entry,
    GateDecided,
    VersionRevoked,
    WebhookTested,
)
from registry.records import Role, State, WebhookEvent

TEST = "webhook.test"
DigestOf = Callable[[str, int], str]


class Message(NamedTuple):
    """One thing to tell. `key` makes it unique among all messages; `body` is what is sent, byte for byte.

    It is for every webhook that asks for `type` and may see `adapter`, or for `webhook` alone where that is given.
    """

    key: str
    position: int
    type: str
    adapter: str
    webhook: str | None
    body: bytes


def messages_of(entry: Entry, chain_hash: str, digest_of: DigestOf) -> list[Message]:
    """The messages of one entry, in the order of its events.

    chain_hash: of this entry. A key holds some of it, so that a journal that lost its tail and grew anew makes no
    message that looks like an old one. digest_of: manifest digest by adapter and number; it never changes.
    """
    found = []
    for position, event in enumerate(entry.events):
        key = f"{entry.seq}_{position}_{chain_hash[:8]}"
        if isinstance(event, WebhookTested):
            data = {"webhook": event.id, "sequence": entry.seq, "actor": _actor(entry.actor)}
            found.append(Message(key_of_test(event.test), position, TEST, "", event.id, _body(TEST, entry, data)))
        elif (told := _told(event, digest_of)) is not None:
            data = {**told.data, "sequence": entry.seq, "actor": _actor(entry.actor, told.by)}
            found.append(Message(key, position, told.type, told.adapter, None, _body(told.type, entry, data)))
    return found


def key_of_test(test: str) -> str:
    return f"test_{test}"


def message_id(webhook: str, key: str) -> str:
    """The same for every attempt, after every restart: receivers tell repeats by it."""
    return f"msg_{webhook.removeprefix('wh_')}_{key}"


class _Told(NamedTuple):
    type: WebhookEvent
    adapter: str
    data: dict[str, Any]
    by: str | None = None


def _told(event: AnyEvent, digest_of: DigestOf) -> _Told | None:
    match event:
        case GateDecided(adapter=adapter, number=number, state=state, report=report):
            about = _version(adapter, number, report.digest, state)
            return _Told(
                WebhookEvent.GATE_DECIDED, adapter, {**about, "verdict": report.verdict, "policy": report.policy}
            )
        case CampaignOpened(adapter=adapter, number=number):
            about = _version(adapter, number, digest_of(adapter, number), State.IN_REVIEW)
            more = {"campaign": event.id, "policy": event.policy, "suite": event.suite, "reviewers": event.reviewers}
            return _Told(WebhookEvent.REVIEW_NEEDED, adapter, {**about, **more})
        case AliasMoved(adapter=adapter, number=number, previous=previous):
            about = _version(adapter, number, event.digest, State.APPROVED)
            before = f"{adapter}/{previous}" if previous is not None else None
            more = {"alias": event.alias, "counter": event.counter, "previous": before}
            return _Told(WebhookEvent.ALIAS_MOVED, adapter, {**about, **more}, event.by)
        case VersionRevoked(adapter=adapter, number=number):
            about = _version(adapter, number, digest_of(adapter, number), State.REVOKED)
            return _Told(WebhookEvent.VERSION_REVOKED, adapter, about)
    return None


def _version(adapter: str, number: int, digest: str, state: State) -> dict[str, Any]:
    return {"ref": f"{adapter}/{number}", "adapter": adapter, "number": number, "digest": digest, "state": state}


def _actor(actor: Actor, by: str | None = None) -> dict[str, str]:
    """Who did it. A reviewer's name is withheld; a move that the policy made is not its last reviewer's doing."""
    if by is not None and by != actor.person:
        return {"person": by}
    if actor.role == Role.REVIEWER:
        return {"role": actor.role}
    return {"person": actor.person, "role": actor.role}


def _body(kind: str, entry: Entry, data: dict[str, Any]) -> bytes:
    return rfc8785.dumps({"type": str(kind), "timestamp": entry.at, "data": data})
