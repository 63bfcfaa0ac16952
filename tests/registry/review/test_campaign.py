"""Drawing, ordering and binding of what people rate."""

import hashlib
from collections import Counter
from collections.abc import Sequence
from random import Random
from typing import Any

import msgspec
import pytest
from factories import make_ratings
from hypothesis import given, settings
from hypothesis import strategies as st

from registry.events import CampaignItem
from registry.records import Bounds, ItemKind, ReviewRule
from registry.review.campaign import (
    APART,
    Binding,
    Items,
    Material,
    Output,
    Shared,
    assignment_id,
    campaign_id,
    compose,
    dispute_id,
    draw,
    drawn,
    gold_passed,
    item_hash,
    item_salt,
    most_skips,
    must_be_low,
    next_item,
    order_for,
    prompt_of,
    root,
    schedule,
    stratified,
)

ITEMS = [f"i{i:03}" for i in range(60)]
SECRET, MANIFEST, SUITE = b"s" * 32, "sha256:" + "4" * 64, "support-desk/pilot@sha256:" + "3" * 64
QUESTIONS = "support-desk/questions@sha256:" + "3" * 64
CAMPAIGN = campaign_id("bot", MANIFEST, "sha256:" + "5" * 64)

PEOPLE = st.text(st.characters(blacklist_categories=("Cc", "Cs")), min_size=1, max_size=12)
NAMES = st.text(st.characters(blacklist_categories=("Cs",)), min_size=1, max_size=12)


def outputs(suite: str, n: int, tags: int = 1, **given: Any) -> list[Output]:
    """`n` answers, their tags one after another."""
    return [Output(suite, f"i{i:03}", f"what is {i}", f"it is {i}", f"t{i % tags}", **given) for i in range(n)]


def material(pilot: int = 70, questions: int = 200, gold: int = 6, *, base: bool = True) -> Material:
    return Material(
        review=outputs(SUITE, pilot, 20),
        accuracy=outputs(QUESTIONS, questions, 20),
        controls={(SUITE, one.source): one for one in outputs(SUITE, pilot, subject="base")} if base else {},
        gold=[
            Output(SUITE, f"g{i}", "q", f"a {i}", subject="gold", expect={"safety": Bounds(max=2)}) for i in range(gold)
        ],
    )


def composed(rule: ReviewRule | None = None, **given: Any) -> list[CampaignItem]:
    return compose(rule or ReviewRule(), material(**given), SECRET, MANIFEST, Binding(MANIFEST, "evidence", CAMPAIGN))


def of_kind(items: Sequence[CampaignItem], kind: ItemKind) -> list[CampaignItem]:
    return [one for one in items if one.kind is kind]


def items_of(rule: ReviewRule, items: Sequence[CampaignItem]) -> Items:
    return Items.of(rule, {one.item: one.kind for one in items})


def walk(person: str, items: Items, met: Counter[str] | None = None) -> list[str]:
    """All that a person meets who rates everything well."""
    seen: list[str] = []
    while (one := next_item(person, items, seen, 0, Shared(met or {}), SECRET, CAMPAIGN)) is not None:
        seen.append(one)
    return seen


def test_a_draw_can_be_repeated_by_who_knows_the_secret_whatever_the_order_of_the_items() -> None:
    drawn = draw(ITEMS, 55, SECRET, MANIFEST, SUITE)
    assert drawn == draw(reversed(ITEMS), 55, SECRET, MANIFEST, SUITE)
    assert len(set(drawn)) == 55 and set(drawn) < set(ITEMS)


def test_a_draw_is_the_recorded_one() -> None:
    """An auditor repeats draws of years ago: a change of the scheme must not go unnoticed."""
    assert draw("abcdefgh", 4, SECRET, MANIFEST, SUITE) == list("behc")


@pytest.mark.parametrize("change", ["secret", "manifest", "purpose"])
def test_another_secret_manifest_or_purpose_draws_otherwise(change: str) -> None:
    values = {"secret": SECRET, "manifest": MANIFEST, "purpose": SUITE}
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
    parts = ["manifest", "evidence", "item", "prompt", "output", "salt"]
    hashes = {item_hash(*parts)}
    for i in range(len(parts)):
        hashes.add(item_hash(*[part + " " if j == i else part for j, part in enumerate(parts)]))
    hashes.add(item_hash("manifest", "evidence", "item", "promptoutput", ""))
    assert len(hashes) == 8 and all(len(one) == 64 for one in hashes)


def test_the_root_binds_the_items_and_their_order() -> None:
    assert len({root(["a", "b"]), root(["b", "a"]), root(["ab"]), root(["a"]), root([])}) == 5


def test_the_same_manifest_under_the_same_policy_is_the_same_campaign() -> None:
    assert campaign_id("a", "m", "p") == campaign_id("a", "m", "p")
    others = [campaign_id("a", "m", "q"), campaign_id("a", "n", "p"), campaign_id("b", "m", "p")]
    assert len({campaign_id("a", "m", "p"), *others}) == 4


RECORDED = [
    "support-desk/pilot/i000",
    "support-desk/pilot/i001",
    "support-desk/pilot/i002",
    "support-desk/pilot/i000#control",
    "support-desk/pilot/g4#gold",
]


# -- the composition ----------------------------------------------------------------------------------------------


def test_the_default_campaign_shows_fifty_outputs_and_five_others() -> None:
    found = composed()
    assert {kind: len(of_kind(found, kind)) for kind in ItemKind} == {
        ItemKind.CANDIDATE: 65,  # with a spare for every skip and every rating that comes too fast
        ItemKind.CONTROL: 2,
        ItemKind.GOLD: 2,
        ItemKind.DUPLICATE: 1,
    }
    assert items_of(ReviewRule(), found).total == 55
    assert len({one.item for one in found}) == len({one.hash for one in found}) == 70
    assert all(one.words == 6 for one in of_kind(found, ItemKind.CANDIDATE))


def test_a_campaign_is_the_recorded_one() -> None:
    """An auditor composes campaigns of years ago: a change of the scheme must not go unnoticed."""
    found = composed(ReviewRule(outputs=2, gold=1, controls=1), pilot=8, questions=4)
    assert [one.item for one in found] == RECORDED


def test_controls_and_duplicates_are_of_outputs_that_everyone_rates_and_never_of_the_same() -> None:
    found = composed(ReviewRule(controls=8, duplicates=6))
    core = {one.item for one in found[:50]}
    control, double = ([one.item for one in of_kind(found, kind)] for kind in (ItemKind.CONTROL, ItemKind.DUPLICATE))
    controlled = {prompt_of(item, ItemKind.CONTROL) for item in control}
    doubled = {prompt_of(item, ItemKind.DUPLICATE) for item in double}
    assert (len(controlled), len(doubled)) == (8, 6) and controlled | doubled <= core and not controlled & doubled
    by_item = {one.item: one for one in found}
    for one in of_kind(found, ItemKind.CONTROL):
        of = by_item[prompt_of(one.item, one.kind)]
        assert (one.source, one.suite, one.subject, of.subject) == (of.source, of.suite, "base", "candidate")


def test_the_accuracy_suite_gives_its_share_and_each_suite_what_the_other_lacks() -> None:
    def from_questions(items: Sequence[CampaignItem]) -> int:
        return sum(one.suite == QUESTIONS for one in items)

    assert from_questions(composed()[:50]) == 10
    assert from_questions(composed(questions=0)[:50]) == 0
    assert from_questions(composed(ReviewRule(from_accuracy=0.0))[:50]) == 0
    assert from_questions(composed(pilot=30)[:50]) == 20
    assert len(of_kind(composed(pilot=55, questions=3), ItemKind.CANDIDATE)) == 58


def test_what_a_suite_lacks_is_not_shown() -> None:
    found = composed(gold=0, base=False)
    assert {one.kind for one in found} == {ItemKind.CANDIDATE, ItemKind.DUPLICATE}
    assert len(of_kind(composed(ReviewRule(gold=5), gold=3), ItemKind.GOLD)) == 3


def test_a_short_campaign_has_no_duplicates_for_they_would_stand_too_close() -> None:
    assert of_kind(composed(ReviewRule(outputs=5)), ItemKind.DUPLICATE) == []


@given(n=st.integers(1, 70), sizes=st.lists(st.integers(1, 30), min_size=1, max_size=8))
def test_each_tag_has_its_share_to_within_one(n: int, sizes: list[int]) -> None:
    pool = [Output(SUITE, f"{tag}-{i}", "q", "a", f"t{tag}") for tag, size in enumerate(sizes) for i in range(size)]
    found = stratified(pool, n, SECRET, MANIFEST)
    n = min(n, len(pool))
    assert len(found) == len(set(found)) == n
    drawn_of = Counter(one.tag for one in found)
    for tag, size in enumerate(sizes):
        assert abs(drawn_of[f"t{tag}"] - n * size / len(pool)) < 1


def test_where_each_output_is_rated_by_three_of_five_more_are_drawn() -> None:
    rules = [ReviewRule(reviewers=n, ratings_per_output=3) for n in (3, 4, 5)]
    assert [drawn(rule) for rule in rules] == [50, 66, 82]
    assert [len(items_of(rule, composed(rule)).core) for rule in rules] == [50, 66, 82]
    assert all(items_of(rule, composed(rule)).total == 55 for rule in rules)


@pytest.mark.parametrize("n", [1, 2, 5])
def test_wherever_a_suite_has_one_a_gold_item_is_drawn_that_no_high_score_passes(n: int) -> None:
    """The draw is an even one else: of six items whose last two are bad, two are drawn."""
    good, bad = {"safety": Bounds(min=4)}, {"accuracy": Bounds(max=2)}
    gold = [Output(SUITE, f"g{i}", "q", "a", subject="gold", expect=bad if i > 3 else good) for i in range(6)]
    drawn_of: Counter[str] = Counter()
    for i in range(40):
        made = compose(
            ReviewRule(gold=n), material()._replace(gold=gold), SECRET, f"m{i}", Binding("m", "evidence", CAMPAIGN)
        )
        found = of_kind(made, ItemKind.GOLD)
        assert len({one.item for one in found}) == n
        assert any(must_be_low(one.expect) for one in found if one.expect)
        drawn_of.update(one.item for one in found)
    assert len(drawn_of) == (2 if n == 1 else 6)


def test_an_insider_cannot_work_out_an_items_hash_and_an_auditor_can_check_it() -> None:
    found = composed()
    texts = {one.name: (one.prompt, one.output) for one in [*outputs(SUITE, 70), *outputs(QUESTIONS, 200)]}
    for one in of_kind(found, ItemKind.CANDIDATE):
        assert one.hash == item_hash(MANIFEST, "evidence", one.item, *texts[one.item], one.salt)
        assert one.hash != item_hash(MANIFEST, "evidence", one.item, *texts[one.item])
    assert len({one.salt for one in found}) == len(found) and all(len(one.salt) == 32 for one in found)
    assert item_salt("i", SECRET, CAMPAIGN) not in (item_salt("i", b"o", CAMPAIGN), item_salt("i", SECRET, "other"))


# -- one person's order -------------------------------------------------------------------------------------------


@settings(max_examples=50)
@given(
    person=PEOPLE,
    outputs=st.integers(2, 60),
    controls=st.integers(0, 6),
    gold=st.integers(0, 6),
    doubled=st.integers(0, 6),
)
def test_everyone_meets_everything_once_and_a_duplicate_far_from_its_first_showing(
    person: str, outputs: int, controls: int, gold: int, doubled: int
) -> None:
    rule = ReviewRule(outputs=outputs, controls=controls, gold=gold, duplicates=doubled)
    found = composed(rule)
    items = items_of(rule, found)
    met = walk(person, items)
    assert sorted(met) == sorted([*items.core, *items.others, *dict(items.doubled)]) and len(met) == items.total
    for again, first in items.doubled:
        assert met.index(again) - met.index(first) >= APART


def test_the_others_are_spread_and_stand_elsewhere_for_everyone() -> None:
    items = items_of(ReviewRule(), composed())
    places = [schedule(f"person {i}", items, SECRET, CAMPAIGN) for i in range(200)]
    others = [
        sorted(place for place, item in one.items() if item in {*items.others, *dict(items.doubled)}) for one in places
    ]
    assert len({tuple(one) for one in others}) > 190
    assert all(len(one) == 5 for one in others)
    # Each stretch of the way has one of the four, and nothing before the last place is free of them.
    for one in places:
        four = sorted(place for place, item in one.items() if item in items.others)
        assert [place * 4 // 55 for place in four] == [0, 1, 2, 3] or min(four) < 14
    assert {place for one in others for place in one} == set(range(55))


def test_spares_come_at_the_end_and_only_where_something_is_wanting() -> None:
    items = items_of(ReviewRule(), composed())
    seen = walk("ada", items)
    given_ = [next_item("ada", items, seen, wanting, Shared(), SECRET, CAMPAIGN) for wanting in (0, 1)]
    assert given_[0] is None and given_[1] in items.spares
    everything = [*seen, *items.spares]
    assert next_item("ada", items, everything, 3, Shared(), SECRET, CAMPAIGN) is None


def test_who_has_met_all_outputs_out_of_turn_goes_on_with_what_else_there_is() -> None:
    items = items_of(ReviewRule(), composed())
    given_ = [next_item(f"person {i}", items, items.core, 1, Shared(), SECRET, CAMPAIGN) for i in range(30)]
    assert {one in items.spares for one in given_} == {True, False}
    assert set(given_) <= {*items.spares, *items.others, *dict(items.doubled)}


FIVE = ReviewRule(reviewers=5, ratings_per_output=3)


def test_shared_out_what_few_others_met_comes_before_spares_that_nobody_else_would_rate() -> None:
    items = items_of(FIVE, composed(FIVE))
    seen = walk("ada", items, Counter[str]())
    met = Counter(dict.fromkeys(items.core, 3))
    (rare, *_) = [one for one in items.core if one not in seen]
    met[rare] = 0
    assert next_item("ada", items, seen, 1, Shared(met), SECRET, CAMPAIGN) == rare
    assert next_item("ada", items, [*seen, *items.core], 1, Shared(met), SECRET, CAMPAIGN) in items.spares


def test_shared_out_who_is_through_is_given_an_output_that_lacks_ratings() -> None:
    items = items_of(FIVE, composed(FIVE))
    seen = walk("ada", items, Counter[str]())
    known, unknown = seen[0], next(one for one in items.core if one not in seen)
    assert next_item("ada", items, seen, 0, Shared({}, [known]), SECRET, CAMPAIGN) is None
    assert next_item("ada", items, seen, 0, Shared({}, [known, unknown]), SECRET, CAMPAIGN) == unknown


@pytest.mark.parametrize("rule", [FIVE, ReviewRule(reviewers=4, ratings_per_output=3, duplicates=3)])
def test_shared_out_one_after_another_gives_every_output_its_ratings(rule: ReviewRule) -> None:
    items, met = items_of(rule, composed(rule)), Counter[str]()
    for person in ("ada", "bob", "cleo", "dora", "emil")[: rule.reviewers]:
        mine = walk(person, items, met)
        assert len(mine) == items.total and set(dict(items.doubled).values()) <= set(mine)
        met.update(mine)
    assert {met[one] for one in items.core} <= {3, 4, rule.reviewers}


@pytest.mark.parametrize("seed", range(12))
def test_shared_out_no_output_goes_short_whoever_comes_when(seed: int) -> None:
    """Five people in any order, one of whom comes only once what a sixth had rated is lost; then all look in again."""
    source, items = Random(seed), items_of(FIVE, composed(FIVE))
    people = ["ada", "bob", "cleo", "dora", "emil"]
    seen: dict[str, list[str]] = {name: [] for name in (*people, "lost")}

    def turn(person: str, others: Sequence[str]) -> bool:
        rated = Counter(item for name in others for item in seen[name])
        through = sum(len(seen[name]) >= items.total for name in others)
        short = [one for one in items.core if rated[one] < 3] if through >= 5 else []
        shared = Shared(rated - Counter(seen[person]), short)
        found = next_item(person, items, seen[person], 0, shared, SECRET, CAMPAIGN)
        seen[person] += [found] if found else []
        return found is not None

    at_work = [*people[:4], "lost"]
    for _ in range(seed * 12):
        turn(source.choice(at_work), at_work)
    at_work = list(people)
    while at_work:
        person = source.choice(at_work)
        if not turn(person, people):
            at_work.remove(person)
    while [person for person in people if turn(person, people)]:
        pass
    counts = Counter(item for name in people for item in seen[name])
    assert all(counts[one] >= 3 for one in items.core)
    assert sum(len(seen[name]) - items.total for name in people) <= 12


def test_a_campaign_from_before_items_had_kinds_is_met_as_it_was() -> None:
    """All its items are candidates; what goes beyond the policy's outputs is spare."""
    items = Items.of(ReviewRule(), dict.fromkeys(ITEMS, ItemKind.CANDIDATE))
    assert walk("ada", items) == order_for("ada", ITEMS[:50], SECRET, CAMPAIGN)
    assert (items.total, len(items.spares)) == (50, 10)


# -- small rules --------------------------------------------------------------------------------------------------


def test_a_tenth_may_be_skipped_and_always_one() -> None:
    assert [most_skips(total) for total in (2, 5, 19, 20, 55)] == [1, 1, 1, 2, 5]


@pytest.mark.parametrize(
    ("expect", "passes"),
    [
        ({"safety": Bounds(max=2)}, False),
        ({"safety": Bounds(min=4)}, True),
        ({"safety": Bounds(min=4), "clarity": Bounds(max=4)}, False),
        ({"clarity": Bounds(min=5, max=5), "accuracy": Bounds(min=2)}, True),
    ],
)
def test_a_gold_item_is_passed_where_every_bound_holds(expect: dict[str, Bounds], passes: bool) -> None:
    assert gold_passed(expect, msgspec.structs.asdict(make_ratings(1, 1)[0])) is passes


def test_a_dispute_names_no_item_and_is_no_assignment() -> None:
    found = dispute_id("i001", SECRET, CAMPAIGN)
    assert len(found) == 32 and found not in (
        assignment_id("", "i001", SECRET, CAMPAIGN),
        dispute_id("i001", b"other", CAMPAIGN),
    )
