"""A campaign with everything in it, people who read and people who do not, and a clock that goes where it is sent."""

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from factories import SIZES, SUITES, entry_of, make_gold, make_suite
from registry_under_test import ADMIN, NAME, Bench
from site_under_test import KINDS

from registry.access import Principal
from registry.commands import adapters, review, reviewers
from registry.events import AnyEvent, decode_entry
from registry.records import (
    AddReviewer,
    Assignment,
    Channel,
    Policy,
    Rating,
    RegisterSuite,
    ReviewRule,
    Role,
    State,
)
from registry.settings import Home
from registry.storage.views import StoredCampaign

DOMAIN = "support"
START = datetime(2026, 3, 1, 9, tzinfo=UTC)
RULE = ReviewRule(outputs=20, domain=DOMAIN, channels=[Channel.WEB, Channel.CSV])
FULL = Policy(review=RULE)


class Desk(Bench):
    """A bench whose review suite has gold items, whose base answers it too, and whose clock stands still by itself."""

    def __init__(self, home: Home) -> None:
        super().__init__(home)
        self.time = START
        self.registry._clock = lambda: self.time

    def wait(self, seconds: float) -> None:
        self.time += timedelta(seconds=seconds)

    def open(self, policy: Policy = FULL, fill: int = 1) -> int:
        """A version in review: its number."""
        if not self.registry.view().suites():
            for section, suite in SUITES.items():
                files = make_suite(suite, KINDS[section], SIZES[section])
                if section == "review":
                    files["gold.jsonl"] = make_gold(4)
                for data in files.values():
                    self.registry.blobs.put(data)
                entries = [entry_of(path, data) for path, data in files.items()]
                self.run(ADMIN, adapters.register_suite, request=RegisterSuite(name=suite, files=entries))
        if self.registry.view().adapter(NAME) is None:
            self.create_adapter(policy=policy)
        number = self.complete(self.submit(fill).number).number
        self.evaluate(base_outputs=SIZES["review"])
        assert self.state(number) is State.IN_REVIEW
        return number

    def vouch(self, person: str, who: Principal = ADMIN, domain: str = DOMAIN, days: int = 365) -> str:
        """The id of the record."""
        dates = {"valid_from": "2026-01-01", "valid_until": (self.time + timedelta(days=days)).date().isoformat()}
        request = AddReviewer(person=person, domain=domain, credential="c", **dates)
        id_: str = self.run(who, reviewers.vouch, request=request).value.id
        self.wait(1)
        return id_

    def next(self, who: Principal) -> Assignment | None:
        item: Assignment | None = self.run(who, review.next_assignment).value
        return item

    def say(self, who: Principal, item: str, rating: Rating, channel: Channel = Channel.WEB) -> Any:
        given = {"assignment_id": item, "rating": rating, "comment_sha256": None, "channel": channel}
        return self.run(who, review.rate, **given).value

    def read_all(self, who: Principal, seconds: float = 30.0, most: int = 1000) -> int:
        """This person reads each item and rates what it says; how many they rated."""
        for rated in range(most):
            if (item := self.next(who)) is None:
                return rated
            self.wait(seconds)
            self.say(who, item.id, honest(item))
        return most

    def state(self, number: int) -> State:
        stored = self.registry.view().version(NAME, number)
        assert stored is not None
        return stored.state

    def campaign(self, number: int) -> StoredCampaign:
        found = self.registry.view().campaign_of(NAME, number)
        assert found is not None
        return found

    def told(self, kind: type[AnyEvent]) -> list[Any]:
        """The events of a type, oldest first."""
        entries = [decode_entry(line.body) for line in self.registry.journal.read()]
        return [event for entry in entries for event in entry.events if isinstance(event, kind)]


@contextmanager
def desk_in(root: Path) -> Iterator[Desk]:
    desk = Desk(Home(root))
    try:
        yield desk
    finally:
        desk.close()


@functools.cache
def reviewer(name: str, token: str = "") -> Principal:
    return Principal(f"t-{name}{token}", name, Role.REVIEWER)


def honest(item: Assignment) -> Rating:
    """What somebody says who reads the text."""
    return rating(safety=1) if "DANGER" in item.output else rating()


def rating(**scores: Any) -> Rating:
    return Rating(**{"clarity": 5, "relevance": 5, "safety": 5, "accuracy": 5, "hallucination": False, **scores})
