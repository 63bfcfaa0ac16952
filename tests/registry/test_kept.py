"""What is kept is never older than what is visible: at no moment of a commit, whatever happens beside it."""

from typing import Any, get_args

import msgspec
import pytest
from factories import make_entries
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, precondition, rule

from registry.events import (
    AnyEvent,
    BlobQuarantined,
    Entry,
    KeyAdded,
    KeyRevoked,
    KeyRotated,
    PolicySet,
    TokenCreated,
    TokenRevoked,
    VersionRevoked,
)
from registry.kept import _TOUCHES_NOTHING, Changes, Kept, subjects, token_subject

NAMES = ("a", "b", "c")
# They touch everything, and may: they come once in weeks.
RARE = (KeyAdded, KeyRotated, KeyRevoked, BlobQuarantined)


def revoked(*adapters: str, seq: int) -> Entry:
    """An entry with this number that touches these adapters."""
    events = [VersionRevoked(adapter=adapter, number=1, reason="x") for adapter in adapters]
    return msgspec.structs.replace(make_entries(1, events=events)[0], seq=seq)


class OneWriterManyReaders(RuleBasedStateMachine):
    """Every interleaving of the steps that a commit, a computation and a look-up are made of."""

    computing = Bundle("computing")
    computed = Bundle("computed")

    def __init__(self) -> None:
        super().__init__()
        self.changes = Changes(0)
        self.kept: Kept[int] = Kept(self.changes, room=4)
        self.truth = dict.fromkeys(NAMES, 0)
        self.seq = 0
        self.under_way: list[Entry] = []
        self.committed = False

    @precondition(lambda self: not self.under_way)
    @rule(groups=st.lists(st.sets(st.sampled_from(NAMES)), min_size=1, max_size=3))
    def begin(self, groups: list[set[str]]) -> None:
        self.under_way = [revoked(*sorted(names), seq=self.seq + 1 + n) for n, names in enumerate(groups)]
        self.committed = False
        self.changes.begin(self.under_way)

    @precondition(lambda self: self.under_way and not self.committed)
    @rule()
    def commit(self) -> None:
        for entry in self.under_way:
            self.truth.update({event.adapter: entry.seq for event in entry.events})
        self.committed = True

    @precondition(lambda self: self.under_way and not self.committed)
    @rule()
    def roll_back(self) -> None:
        self.under_way = []

    @precondition(lambda self: self.committed)
    @rule()
    def end(self) -> None:
        self.seq = self.under_way[-1].seq
        self.changes.end(self.seq)
        self.under_way, self.committed = [], False

    @rule(target=computing, name=st.sampled_from(NAMES))
    def begin_to_compute(self, name: str) -> tuple[str, int]:
        return name, self.changes.visible

    @rule(target=computed, started=consumes(computing))
    def compute(self, started: tuple[str, int]) -> tuple[str, int, int]:
        return *started, self.truth[started[0]]

    @rule(done=consumes(computed))
    def keep(self, done: tuple[str, int, int]) -> None:
        name, seq, value = done
        self.kept.put(name, value, subject=name, seq=seq)

    @invariant()
    def what_is_kept_is_what_is_true(self) -> None:
        for name in NAMES:
            assert self.kept.get(name) in (None, self.truth[name])


OneWriterManyReaders.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestInterleavings = OneWriterManyReaders.TestCase


@pytest.fixture
def changes() -> Changes:
    return Changes(5)


def test_value_is_kept_until_its_subject_is_touched(changes: Changes) -> None:
    kept: Kept[str] = Kept(changes, room=10)
    kept.put("k", "old", subject="a", seq=changes.visible)
    changes.begin([revoked("b", seq=6)])
    changes.end(6)
    assert kept.get("k") == "old"
    changes.begin([revoked("a", seq=7)])
    assert kept.get("k") is None
    changes.end(7)
    assert kept.get("k") is None
    kept.put("k", "new", subject="a", seq=changes.visible)
    assert kept.get("k") == "new"


def test_value_computed_while_its_subject_was_being_changed_is_not_kept(changes: Changes) -> None:
    kept: Kept[str] = Kept(changes, room=10)
    seq = changes.visible
    changes.begin([revoked("a", seq=6)])
    changes.end(6)
    kept.put("k", "maybe old", subject="a", seq=seq)
    assert kept.get("k") is None


def test_oldest_values_make_room_and_too_large_ones_are_not_kept(changes: Changes) -> None:
    kept: Kept[int] = Kept(changes, room=10)
    for n in range(5):
        kept.put(n, n, subject="a", seq=5, size=4)
    assert [n for n in range(5) if kept.get(n) is not None] == [3, 4]
    kept.put(4, 44, subject="a", seq=5, size=6)
    assert (kept.get(3), kept.get(4)) == (3, 44)
    kept.put("large", 1, subject="a", seq=5, size=11)
    assert (kept.get("large"), kept.get(4)) == (None, 44)


def test_value_is_given_up_when_its_time_is_over(changes: Changes) -> None:
    now = [100.0]
    kept: Kept[str] = Kept(changes, room=10, seconds=60.0, clock=lambda: now[0])
    kept.put("k", "v", subject="a", seq=5)
    now[0] = 160.0
    assert kept.get("k") == "v"
    now[0] = 160.1
    assert kept.get("k") is None


def test_so_many_subjects_that_they_are_forgotten_touch_everything(
    changes: Changes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("registry.kept._MOST_SUBJECTS", 10)
    kept: Kept[str] = Kept(changes, room=10)
    kept.put("k", "v", subject="a", seq=5)
    entries = [revoked(f"bot-{n}", seq=6 + n) for n in range(11)]
    changes.begin(entries[:10])
    changes.end(15)
    assert kept.get("k") == "v"
    changes.begin(entries[10:])
    changes.end(16)
    assert kept.get("k") is None and changes.last("a") == 16
    kept.put("k", "v", subject="a", seq=changes.visible)
    assert kept.get("k") == "v"


@pytest.mark.parametrize("event", get_args(AnyEvent), ids=lambda event: event.__name__)
def test_of_every_event_it_is_known_what_it_touches(event: Any) -> None:
    """An event that is not named touches everything, which is right but slow: say what a new one touches."""
    named = {"adapter", "name"} & set(event.__struct_fields__) or event in (TokenCreated, TokenRevoked)
    assert named or event in _TOUCHES_NOTHING or event in RARE


def test_events_touch_the_adapter_or_token_that_they_name() -> None:
    assert subjects(VersionRevoked(adapter="team/a", number=1, reason="x")) == ("team/a",)
    assert subjects(TokenRevoked(id="t1")) == (token_subject("t1"),)
    assert "adapter" in PolicySet.__struct_fields__
    unknown: Any = object()
    assert subjects(unknown) is None, "an event that nobody has thought of touches everything"
