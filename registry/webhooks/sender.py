"""The sender: turns journal entries into deliveries and sends them, beside the registry and never in its way.

One thread reads the journal and hands out what is due, at most one delivery of a webhook at a time, to a few threads
that send. Nothing waits for it: a receiver that hangs costs one of these threads five seconds. What it knows is on
disk before it acts on it, so a killed process goes on where it was: a message that was being sent is sent again, under
the same id.
"""

import itertools
import logging
import random
import secrets
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import NamedTuple, Protocol

from registry import outbound
from registry.access import Principal
from registry.commands import webhooks
from registry.errors import StorageDamaged, TunegateError
from registry.events import DeliveryRequested
from registry.records import Role
from registry.registry import SYSTEM, Registry
from registry.settings import Home
from registry.storage.journal import Line
from registry.storage.views import StoredWebhook
from registry.webhooks import signing
from registry.webhooks.deliveries import Deliveries, Delivery, Planned, open_deliveries
from registry.webhooks.messages import Message, message_id, messages_of
from registry.webhooks.retrying import GONE, STANDARD, Attempt, Schedule, judge, retry_after_seconds

_log = logging.getLogger("tunegate.webhooks")
_WORKERS = 8
_BATCH = 200  # journal entries planned in one transaction
_LOOK_SECONDS = 0.25  # between two looks at the journal's head
_PAUSE_SECONDS = 5.0  # after an error that is not the receiver's


class Post(Protocol):
    """`outbound.post`."""

    def __call__(
        self, url: str, body: bytes, headers: Mapping[str, str], *, allow: frozenset[str]
    ) -> outbound.Answer: ...


class Counts(NamedTuple):
    """Deliveries that succeeded and that were given up since the start, and those that wait."""

    delivered: int
    failed: int
    pending: int


class Sender:
    """Owned by the application: `start` before the first request, `stop` before the registry is closed.

    home: where the secret and the deliveries lie; None keeps both in memory, for a registry that lives there too.
    sends: False for a copy of a registry that is only being tried out: its webhooks wait until it does send.
    """

    def __init__(
        self,
        registry: Registry,
        home: Home | None,
        *,
        allow: frozenset[str] = frozenset(),
        sends: bool = True,
        schedule: Schedule = STANDARD,
        post: Post = outbound.post,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.allow, self._sends = allow, sends
        self._registry, self._home, self._schedule, self._post, self._clock = registry, home, schedule, post, clock
        self._service_secret = signing.service_secret(home.webhook_secret) if home else secrets.token_bytes(32)
        self._hooks: list[StoredWebhook] = []
        self._read_to = -1  # the journal entry up to which it was looked at
        self._known = False  # whether `planned` is known to be of this journal
        self._served: dict[str, float] = {}
        self._busy: set[str] = set()  # the thread adds a webhook, its worker removes it
        self._finished: Counter[str] = Counter()
        self._counting = threading.Lock()  # guards `_finished`, which every worker adds to
        self._looked_at = 0.0
        self._wake, self._stopping = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="tunegate-webhooks", daemon=True)
        self._workers = ThreadPoolExecutor(_WORKERS, thread_name_prefix="tunegate-webhook")

    # -- life ----------------------------------------------------------------------------------------------------

    def start(self) -> None:
        self.deliveries: Deliveries = open_deliveries(self._home.deliveries if self._home else None)
        self._thread.start()

    def stop(self) -> None:
        """Finish what is being sent, five seconds at most, and leave the rest for the next start."""
        if self._thread.ident is None:
            return
        self._stopping.set()
        self._wake.set()
        self._thread.join()
        self._workers.shutdown()
        self.deliveries.close()

    def counts(self) -> Counts:
        active = [hook.id for hook in self._hooks]
        return Counts(self._finished["delivered"], self._finished["failed"], self.deliveries.pending(active))

    def secret_of(self, webhook: str) -> str:
        """What this webhook's messages are signed with."""
        return signing.webhook_secret(self._service_secret, webhook)

    # -- the thread ----------------------------------------------------------------------------------------------

    def _run(self) -> None:
        while self._sends and not self._stopping.is_set():
            try:
                self._look()
                self._hand_out()
            except StorageDamaged:
                return  # the registry serves nothing any more either
            except Exception:
                _log.exception("webhooks are not sent for now")
                self._stopping.wait(_PAUSE_SECONDS)
            self._wake.wait(_LOOK_SECONDS)
            self._wake.clear()

    def _look(self) -> None:
        """Plan what the journal has beyond the last look, several times a second at most, however much happens."""
        now = time.monotonic()
        if self._registry.journal.head.seq == self._read_to or now < self._looked_at + _LOOK_SECONDS:
            return
        self._looked_at = now
        view = self._registry.view()
        # In this order: a webhook that is made in between is seen, and is no concern of entries before it.
        applied = view.applied().seq
        every = view.webhooks()
        hooks = [hook for hook in every if hook.disabled_at is None]
        if self._read_to < 0 or [hook.id for hook in hooks] != [hook.id for hook in self._hooks]:
            self.deliveries.keep_only([hook.id for hook in every])
        self._hooks = hooks
        if hooks:
            self._plan(hooks, applied)
        self._read_to = applied

    def _plan(self, hooks: list[StoredWebhook], applied: int) -> None:
        planned = self._planned()
        after = max(planned.seq if planned else 0, min(hook.seq for hook in hooks))
        lines = itertools.takewhile(lambda line: line.entry.seq <= applied, self._registry.journal.read(after=after))
        while (batch := list(itertools.islice(lines, _BATCH))) and not self._stopping.is_set():
            self._plan_batch(hooks, batch)

    def _planned(self) -> Planned | None:
        """How far the journal was planned; None if nothing was, or if it was a journal with another end than this."""
        planned = self.deliveries.planned()
        if planned is None or self._known:
            return planned
        self._known = True
        line = next(self._registry.journal.read(after=planned.seq - 1), None)
        if line is not None and line.hash == planned.hash:
            return planned
        _log.warning(
            "the journal lost entries that webhooks were told of; they are told again of all since their creation"
        )
        self.deliveries.forget_planned()
        return None

    def _plan_batch(self, hooks: list[StoredWebhook], batch: list[Line]) -> None:
        found, again = [], []
        for line in batch:
            for message in messages_of(line.entry, line.hash, self._digest_of):
                found += [_delivery(hook, line, message) for hook in hooks if _wants(hook, line, message)]
            requested = [event for event in line.entry.events if isinstance(event, DeliveryRequested)]
            again += [(event.webhook, event.delivery) for event in requested]
        given_up = self.deliveries.plan(Planned(batch[-1].entry.seq, batch[-1].hash), found, again)
        self._count("failed", given_up)

    def _digest_of(self, adapter: str, number: int) -> str:
        stored = self._registry.view().version(adapter, number)
        assert stored is not None  # it was created before anything else happened to it
        return stored.digest

    def _hand_out(self) -> None:
        now = self._clock()
        # Who waited longest comes first, so that many receivers that hang do not keep out one that does not.
        for hook in sorted(self._hooks, key=lambda one: self._served.get(one.id, 0.0)):
            if len(self._busy) == _WORKERS:
                return
            if hook.id in self._busy:
                continue
            if (delivery := self.deliveries.next_due(hook.id, now, self._schedule.patient)) is not None:
                self._busy.add(hook.id)
                self._served[hook.id] = time.monotonic()
                self._workers.submit(self._deliver, hook, delivery)

    # -- the workers ---------------------------------------------------------------------------------------------

    def _deliver(self, hook: StoredWebhook, delivery: Delivery) -> None:
        """One attempt, and its record."""
        try:
            attempt = self._attempt(hook, delivery)
            following = judge(attempt, delivery.attempts + 1, self._schedule, random.random())
            if following.disable:
                self._disable(hook)
            self.deliveries.record(delivery, attempt, following, self._clock())
            if following.state != "pending":
                self._count(following.state, 1)
        except Exception:
            _log.exception("an attempt to deliver %s could not be recorded; it will be made again", delivery.id)
            self._stopping.wait(_PAUSE_SECONDS)
        finally:
            self._busy.discard(hook.id)
            self._wake.set()

    def _count(self, state: str, number: int) -> None:
        with self._counting:
            self._finished[state] += number

    def _attempt(self, hook: StoredWebhook, delivery: Delivery) -> Attempt:
        now, secret = self._clock(), self.secret_of(hook.id)
        if signing.fingerprint(secret) != hook.secret_sha256:
            return Attempt(None, "keys/webhooks.secret is not the one this webhook was made with; restore it")
        headers = signing.signed_headers(secret, delivery.id, int(now), delivery.body)
        try:
            answer = self._post(hook.url, delivery.body, headers, allow=self.allow)
        except TunegateError as error:
            return Attempt(None, str(error))
        wrong = None if 200 <= answer.status < 300 else _explained(answer)
        return Attempt(answer.status, wrong, retry_after_seconds(answer.headers.get("retry-after"), now))

    def _disable(self, hook: StoredWebhook) -> None:
        reason = f"its receiver answered {GONE}: it wants no more messages"
        self._registry.execute(SYSTEM, partial(webhooks.disable, id_=hook.id, reason=reason))


def _wants(hook: StoredWebhook, line: Line, message: Message) -> bool:
    """Whether a webhook is to be told: of what came after it, as far as an admin's token of its scope would see it."""
    if message.webhook is not None:
        return message.webhook == hook.id
    eyes = Principal(None, hook.created_by, Role.ADMIN, hook.scope)
    return line.entry.seq > hook.seq and message.type in hook.events and eyes.may_see(message.adapter)


def _delivery(hook: StoredWebhook, line: Line, message: Message) -> Delivery:
    id_ = message_id(hook.id, message.key)
    return Delivery(id_, hook.id, line.entry.seq, message.position, message.type, message.body)


def _explained(answer: outbound.Answer) -> str:
    if 300 <= answer.status < 400:
        return f"answered {answer.status}: redirects are not followed; make a webhook with the final URL"
    return f"answered {answer.status}"
