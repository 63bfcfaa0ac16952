"""Places in a review are for those who finish it."""

from collections.abc import Iterator

import pytest
from registry_under_test import CI, NAME, POLICY, Bench, bench_in

from registry.access import Principal
from registry.commands import review
from registry.records import Role, State
from registry.review.campaign import MOST_REVIEWERS
from registry.settings import Home

PEOPLE = [Principal(f"t-{n}", f"person {n}", Role.REVIEWER) for n in range(1, MOST_REVIEWERS + 5)]


@pytest.fixture
def bench(home: Home) -> Iterator[Bench]:
    with bench_in(home.root) as made:
        made.create_adapter()
        made.complete(made.submit(1).number)
        made.evaluate()
        yield made


def test_five_people_who_rated_one_item_keep_nobody_out(bench: Bench) -> None:
    for who in PEOPLE[:MOST_REVIEWERS]:
        assert bench.rate(who)
    for who in PEOPLE[MOST_REVIEWERS : MOST_REVIEWERS + 3]:
        for _ in range(POLICY.review.outputs):
            assert bench.rate(who), "there is a place for a sixth"
    stored = bench.registry.view().version(NAME, 1)
    assert stored is not None and stored.state is State.APPROVABLE


def test_people_who_only_looked_keep_nobody_out(bench: Bench) -> None:
    for who in PEOPLE[:-1]:
        assert bench.run(who, review.next_assignment).value is not None
    assert bench.rate(PEOPLE[-1])


def test_the_submitter_gets_no_place_however_many_are_free(bench: Bench) -> None:
    own = Principal("t-own", CI.person, Role.REVIEWER)
    assert bench.run(own, review.next_assignment).value is None
