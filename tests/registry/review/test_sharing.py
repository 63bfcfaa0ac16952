"""Outputs that are shared out: as many get all their ratings as were drawn, whatever people skip."""

from collections import Counter
from collections.abc import Callable
from random import Random

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from registry.records import ItemKind, RatingRow, ReviewFacts, ReviewRule
from registry.review.campaign import Items, most_skips, next_item
from registry.review.counting import Counted, Facts, count, is_complete
from registry.review.sharing import Share, stand

SECRET, CAMPAIGN = b"s" * 32, "c" * 32
RULE = ReviewRule(reviewers=5, ratings_per_output=3, outputs=15, gold=0, controls=0, duplicates=0)
PEOPLE = ("ada", "bob", "cleo", "dora", "emil")
Skips = Callable[[str, str], bool]


def items_of(spares: int = 8, rule: ReviewRule = RULE) -> Items:
    n = rule.outputs * rule.reviewers // (rule.ratings_per_output or 1)
    return Items.of(rule, {f"i{i:03}": ItemKind.CANDIDATE for i in range(n + spares)})


class Campaign:
    """Five people at work. skips: whether a person would skip an item, if they still may."""

    def __init__(self, items: Items, skips: Skips, rule: ReviewRule = RULE) -> None:
        self.items, self.skips, self.rule = items, skips, rule
        self.met: dict[str, list[str]] = {person: [] for person in PEOPLE[: rule.reviewers]}
        self.skipped: dict[str, set[str]] = {person: set() for person in self.met}

    def turn(self, person: str) -> bool:
        """This person's next item, rated or skipped; whether there was one."""
        shares = {
            who: Share(frozenset(met), frozenset(met) - self.skipped[who], len(met) >= self.items.total)
            for who, met in self.met.items()
            if met or who == person
        }
        met, skipped = self.met[person], self.skipped[person]
        wanting = self.items.total + len(skipped) - len(met)
        shared = stand(person, shares, self.items, self.rule)
        item = next_item(person, self.items, met, wanting, shared, SECRET, CAMPAIGN)
        if item is None:
            return False
        met.append(item)
        if len(skipped) < most_skips(self.items.total) and self.skips(person, item):
            skipped.add(item)
        return True

    def run(self, order: Random | None = None) -> Counted:
        """All work, one after another or in any order, and look in again until nothing is left for anyone."""
        while True:
            left = list(self.met)
            worked = False
            while left:
                person = order.choice(left) if order else left[0]
                if self.turn(person):
                    worked = True
                else:
                    left.remove(person)
            if not worked:
                return self.counted()

    def counted(self) -> Counted:
        rows = [
            RatingRow(
                person=who, item=item, clarity=5, relevance=5, safety=5, accuracy=5, hallucination=False,
                seconds=60.0, position=place,
            )
            for who, met in self.met.items()
            for place, item in enumerate(met)
            if item not in self.skipped[who]
        ]  # fmt: skip
        return count(Facts(self.rule, ReviewFacts()), rows)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    share=st.sampled_from([0.0, 0.05, 0.1]),
    hard=st.integers(0, 24),
    one_by_one=st.booleans(),
)
def test_whatever_five_people_skip_the_campaign_ends_complete_within_its_spares(
    seed: int, share: float, hard: int, one_by_one: bool
) -> None:
    """Each skips some at random, and all skip one output that they would rather not judge."""
    source = Random(seed)
    campaign = Campaign(items_of(), lambda _, item: item == f"i{hard:03}" or source.random() < share)
    found = campaign.run(None if one_by_one else source)
    assert is_complete(RULE, found) and len(found.people) == 5
    rated = Counter(row.item for row in found.candidates)
    assert len(rated) == found.whole >= 25 and min(rated.values()) >= 3


@pytest.mark.parametrize("share", [0.05, 0.1])
def test_a_whole_campaign_of_the_default_size_ends_complete_whatever_is_skipped(share: float) -> None:
    rule = ReviewRule(reviewers=5, ratings_per_output=3)
    for seed in range(3):
        source = Random(seed)
        campaign = Campaign(items_of(25, rule), lambda _, i, s=source: i == "i040" or s.random() < share, rule)  # type: ignore[misc]
        found = campaign.run(source)
        assert is_complete(rule, found) and found.whole >= 82
        extra = sum(len(met) - campaign.items.total for met in campaign.met.values())
        assert extra <= sum(map(len, campaign.skipped.values())) + 12


def test_an_output_that_all_skip_is_replaced_by_the_same_first_spare_for_all() -> None:
    campaign = Campaign(items_of(), lambda _, item: item == "i007")
    found = campaign.run()
    given_spare = {item: {who for who, met in campaign.met.items() if item in met} for item in campaign.items.spares}
    assert is_complete(RULE, found) and "i007" not in {row.item for row in found.candidates}
    assert len(given_spare[campaign.items.spares[0]]) >= 3
    assert not any(given_spare[one] for one in campaign.items.spares[1:])


def test_only_where_there_are_no_spares_left_a_campaign_stays_without_all_its_outputs() -> None:
    hard = {"i003", "i007"}
    rule = msgspec.structs.replace(RULE, outputs=21)  # of which two may be skipped
    for spares, complete in ((0, False), (1, False), (2, True)):
        campaign = Campaign(items_of(spares, rule), lambda _, item: item in hard, rule)
        found = campaign.run()
        assert is_complete(rule, found) is complete and found.whole == min(33 + spares, 35)
        assert len(found.people) == 5 or not complete


def test_what_the_others_are_about_to_rate_lacks_nothing_and_before_enough_are_through_nothing_does() -> None:
    items = items_of(1, msgspec.structs.replace(RULE, outputs=3))
    everyone = {who: Share(frozenset(items.core), frozenset(items.core), True) for who in PEOPLE}
    assert stand("ada", everyone, items, RULE).short == []
    two = Share(frozenset(items.core), frozenset(), True)
    lacking = {**everyone, "ada": two, "bob": two, "cleo": two._replace(met=frozenset(items.core[1:]))}
    assert stand("cleo", lacking, items, RULE).short == [items.core[0], items.spares[0]]
    assert stand("cleo", {**lacking, "emil": everyone["emil"]._replace(through=False)}, items, RULE).short == ()
