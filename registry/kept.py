"""Answers kept in memory, each for exactly as long as nothing it was made of has changed.

Before an entry becomes visible, the writer says what it touches; once it is visible, that it is. An answer is kept with
the number that was visible *before* it was computed, and holds while no later entry has touched its subject. So nobody
is told an older answer once a command was acknowledged, nor, while it commits, the old one after someone saw the new.
"""

import threading
import time
from collections.abc import Callable, Hashable, Sequence
from typing import Generic, NamedTuple, TypeVar

from registry.events import (
    AccessRefused,
    AdapterCreated,
    AnyEvent,
    AssignmentIssued,
    AssignmentSkipped,
    BlobSent,
    CampaignSealed,
    DeliveryRequested,
    DisputeAdjudicated,
    Entry,
    JobClaimed,
    JobFailed,
    PublisherAdded,
    PublisherRemoved,
    RatingRecorded,
    RegistryCreated,
    ReviewerVouched,
    ReviewerWithdrawn,
    SuiteRegistered,
    TokenCreated,
    TokenMinted,
    TokenRevoked,
    TrainingCancelled,
    TrainingClaimed,
    TrainingFailed,
    TrainingFinished,
    TrainingPaused,
    TrainingResumed,
    TrainingSubmitted,
    WebhookCreated,
    WebhookDeleted,
    WebhookDisabled,
    WebhookTested,
    WordsErased,
)

V = TypeVar("V")

# Jobs move versions only until they are decided, training runs and people's ratings none: nothing of it changes what is
# approved, which is all that is kept. An event that is named nowhere here touches everything.
_TOUCHES_NOTHING = (
    DeliveryRequested,
    WebhookTested,
    WebhookDisabled,
    WebhookDeleted,
    WebhookCreated,
    RegistryCreated,
    TokenMinted,
    PublisherAdded,
    PublisherRemoved,
    AccessRefused,
    ReviewerVouched,
    ReviewerWithdrawn,
    SuiteRegistered,
    BlobSent,
    JobClaimed,
    JobFailed,
    TrainingSubmitted,
    TrainingClaimed,
    TrainingPaused,
    TrainingResumed,
    TrainingCancelled,
    TrainingFinished,
    TrainingFailed,
    AssignmentIssued,
    AssignmentSkipped,
    RatingRecorded,
    CampaignSealed,
    DisputeAdjudicated,
    WordsErased,
)
_MOST_SUBJECTS = 50_000


def token_subject(id_: str) -> str:
    """The subject of what is kept about a token; an adapter's is its name, which has no colon."""
    return f"token:{id_}"


def subjects(event: AnyEvent) -> tuple[str, ...] | None:
    """What an event touches; None for everything."""
    if isinstance(event, TokenCreated | TokenRevoked):
        return (token_subject(event.id),)
    if isinstance(event, _TOUCHES_NOTHING):
        return ()
    if isinstance(event, AdapterCreated):
        return (event.name,)
    adapter = getattr(event, "adapter", None)
    return (adapter,) if isinstance(adapter, str) else None


class Changes:
    """When each subject was last touched. Written by the registry's writer, read by any thread.

    visible: the number of the last entry that readers of the catalog see.
    """

    def __init__(self, visible: int) -> None:
        self.visible = visible
        self._last: dict[str, int] = {}
        self._floor = 0

    def begin(self, entries: Sequence[Entry]) -> None:
        """These entries are about to become visible: nothing kept about what they touch holds from here on."""
        for entry in entries:
            for event in entry.events:
                touched = subjects(event)
                if touched is None:
                    self._touch_everything(entry.seq)
                else:
                    self._last.update(dict.fromkeys(touched, entry.seq))
        if len(self._last) > _MOST_SUBJECTS:
            self._touch_everything(entries[-1].seq)

    def end(self, seq: int) -> None:
        """Every entry up to this number is visible."""
        self.visible = seq

    def last(self, subject: str) -> int:
        """The number of the last entry that touched the subject, or a higher one."""
        # In this order: `_touch_everything` raises the floor before it empties the rest.
        own = self._last.get(subject, 0)
        return max(own, self._floor)

    def _touch_everything(self, seq: int) -> None:
        self._floor = seq
        self._last.clear()


class _One(NamedTuple, Generic[V]):
    value: V
    subject: str
    seq: int
    size: int
    until: float


class Kept(Generic[V]):
    """Values by key, the oldest given up when their sizes exceed `room`. Thread-safe.

    seconds: how long a value is kept at most, for what changes with time alone, as a signature that expires.
    """

    def __init__(
        self, changes: Changes, room: int, seconds: float = 60.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._changes, self._room, self._used = changes, room, 0
        self._seconds, self._clock = seconds, clock
        self._values: dict[Hashable, _One[V]] = {}
        self._putting = threading.Lock()  # `_used` is the sum of the sizes in `_values`

    def get(self, key: Hashable) -> V | None:
        """The value, if it still holds."""
        found = self._values.get(key)
        if found is None or self._changes.last(found.subject) > found.seq or self._clock() > found.until:
            return None
        return found.value

    def put(self, key: Hashable, value: V, *, subject: str, seq: int, size: int = 1) -> None:
        """Keep a value that depends on `subject` alone. seq: `changes.visible` from before it was computed."""
        if size > self._room:
            return
        with self._putting:
            if before := self._values.pop(key, None):
                self._used -= before.size
            self._values[key] = _One(value, subject, seq, size, self._clock() + self._seconds)
            self._used += size
            while self._used > self._room:
                self._used -= self._values.pop(next(iter(self._values))).size
