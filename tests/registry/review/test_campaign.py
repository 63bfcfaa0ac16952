"""Drawing, ordering and binding of what people rate."""

import hashlib
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.review.campaign import (
    MOST_REVIEWERS,
    assignment_id,
    campaign_id,
    draw,
    item_hash,
    order_for,
    root,
    why_not_review,
)

ITEMS = [f"i{i:03}" for i in range(60)]
SECRET, MANIFEST, SUITE = b"s" * 32, "sha256:" + "4" * 64, "support-desk/pilot@sha256:" + "3" * 64
CAMPAIGN = campaign_id("bot", MANIFEST, "sha256:" + "5" * 64)

PEOPLE = st.text(st.characters(blacklist_categories=("Cc", "Cs")), min_size=1, max_size=12)
NAMES = st.text(st.characters(blacklist_categories=("Cs",)), min_size=1, max_size=12)


def test_a_draw_can_be_repeated_by_who_knows_the_secret_whatever_the_order_of_the_items() -> None:
    drawn = draw(ITEMS, 55, SECRET, MANIFEST, SUITE)
    assert drawn == draw(reversed(ITEMS), 55, SECRET, MANIFEST, SUITE)
    assert len(set(drawn)) == 55 and set(drawn) < set(ITEMS)


def test_a_draw_is_the_recorded_one() -> None:
    """An auditor repeats draws of years ago: a change of the scheme must not go unnoticed."""
    assert draw("abcdefgh", 4, SECRET, MANIFEST, SUITE) == list("behc")


@pytest.mark.parametrize("change", ["secret", "manifest", "suite"])
def test_another_secret_manifest_or_suite_draws_otherwise(change: str) -> None:
    values = {"secret": SECRET, "manifest": MANIFEST, "suite": SUITE}
    other = {**values, change: b"other" if change == "secret" else "other"}
    assert draw(ITEMS, 30, **values) != draw(ITEMS, 30, **other)  # type: ignore[arg-type]


def test_fewer_items_than_wanted_are_all_drawn() -> None:
    assert sorted(draw(ITEMS[:3], 50, SECRET, MANIFEST, SUITE)) == ITEMS[:3]
    assert draw([], 50, SECRET, MANIFEST, SUITE) == []


def test_every_item_is_drawn_about_equally_often() -> None:
    counts = Counter(item for i in range(600) for item in draw(ITEMS[:10], 5, SECRET, f"manifest {i}", SUITE))
    assert counts.keys() == set(ITEMS[:10])
    assert all(230 <= count <= 370 for count in counts.values())  # 300 expected, standard deviation 12


def test_a_longer_draw_begins_with_the_shorter_one() -> None:
    """So that spares follow the core."""
    assert draw(ITEMS, 55, SECRET, MANIFEST, SUITE)[:50] == draw(ITEMS, 50, SECRET, MANIFEST, SUITE)


def test_each_person_sees_all_items_in_an_order_of_their_own() -> None:
    orders = [order_for(person, ITEMS, SECRET, CAMPAIGN) for person in ("ada", "bob", "cleo")]
    assert all(sorted(order) == ITEMS for order in orders)
    assert len({tuple(order) for order in orders}) == 3
    assert orders[0] == order_for("ada", reversed(ITEMS), SECRET, CAMPAIGN)
    assert orders[0] != order_for("ada", ITEMS, SECRET, "another campaign")


def test_an_assignment_names_neither_person_nor_item() -> None:
    found = assignment_id("ada", "i001", SECRET, CAMPAIGN)
    assert len(found) == 32 and set(found) <= set("0123456789abcdef")
    plain = hashlib.sha256(f"assignment {CAMPAIGN}\0ada\0i001".encode()).hexdigest()[:32]
    assert found not in (plain, assignment_id("ada", "i001", b"other", CAMPAIGN))


@given(st.tuples(PEOPLE, NAMES), st.tuples(PEOPLE, NAMES))
def test_no_two_assignments_share_an_id(one: tuple[str, str], other: tuple[str, str]) -> None:
    same = assignment_id(*one, SECRET, CAMPAIGN) == assignment_id(*other, SECRET, CAMPAIGN)
    assert same == (one == other)


def test_a_space_in_a_name_does_not_run_into_the_item() -> None:
    assert assignment_id("ada b", "c", SECRET, CAMPAIGN) != assignment_id("ada", "b c", SECRET, CAMPAIGN)


def test_a_rating_is_bound_to_every_byte_that_was_shown_and_to_its_run() -> None:
    parts = ["manifest", "evidence", "item", "prompt", "output"]
    hashes = {item_hash(*parts)}
    for i in range(len(parts)):
        hashes.add(item_hash(*[part + " " if j == i else part for j, part in enumerate(parts)]))
    hashes.add(item_hash("manifest", "evidence", "item", "promptoutput", ""))
    assert len(hashes) == 7 and all(len(one) == 64 for one in hashes)


def test_the_root_binds_the_items_and_their_order() -> None:
    assert len({root(["a", "b"]), root(["b", "a"]), root(["ab"]), root(["a"]), root([])}) == 5


def test_the_same_manifest_under_the_same_policy_is_the_same_campaign() -> None:
    assert campaign_id("a", "m", "p") == campaign_id("a", "m", "p")
    others = [campaign_id("a", "m", "q"), campaign_id("a", "n", "p"), campaign_id("b", "m", "p")]
    assert len({campaign_id("a", "m", "p"), *others}) == 4


def test_the_submitter_may_never_review_not_even_having_rated() -> None:
    assert "submitted" in str(why_not_review("ada", "ada", {}))
    assert "submitted" in str(why_not_review("ada", "ada", {"ada": 3}))


def test_a_campaign_takes_five_people_and_keeps_those_it_has() -> None:
    people = {f"p{i}": 0 for i in range(MOST_REVIEWERS)}
    assert why_not_review("late", "ada", people) is not None
    assert why_not_review("p0", "ada", people) is None
    assert why_not_review("late", "ada", dict(list(people.items())[1:])) is None
