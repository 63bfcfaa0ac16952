"""What counts: every rule bites, no rating in bad faith brings anyone nearer to the quota, no order matters."""

from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from factories import make_ratings
from hypothesis import given, settings
from hypothesis import strategies as st

from registry.records import Adjudication, Channel, Excluded, ItemKind, RatingRow, ReviewFacts, ReviewRule
from registry.review.counting import Counted, Facts, count, is_complete, least_seconds, row_bar
from registry.review.standing import INVOLVED, REASONS

RULE = ReviewRule(outputs=10, max_streak=6)
SCORES = ((5, 4, 5, 4), (4, 5, 5, 5), (5, 5, 5, 4))


def rated(person: str, outputs: int = 10, gold: int = 2, passed: int = 2, **changes: Any) -> list[RatingRow]:
    """A person who reads: scores vary, every rating takes half a minute, gold items stand at places 3 and 7."""
    rows = []
    for i in range(outputs):
        scores = dict(zip(("clarity", "relevance", "safety", "accuracy"), SCORES[i % 3], strict=True))
        values = {"person": person, "item": f"i{i:02}", "seconds": 30.0, "position": 10 * i, **scores, **changes}
        rows.append(RatingRow(**{"hallucination": False, **values}))
    for i in range(gold):
        bad = {"clarity": 3, "relevance": 3, "safety": 1, "accuracy": 3}
        values = {"person": person, "item": f"g{i}", "kind": ItemKind.GOLD, "position": 35 + 40 * i, "seconds": 30.0}
        rows.append(RatingRow(**values, **bad, hallucination=False, gold_passed=i < passed))
    return rows


def facts(rule: ReviewRule = RULE, **known: Any) -> Facts:
    return Facts(rule, ReviewFacts(**{"gold": 2, **known}))


def altered(row: RatingRow, **changes: Any) -> RatingRow:
    return msgspec.structs.replace(row, **changes)


def why(counted: Counted, person: str = "eva") -> set[str]:
    """The rules by which a person as a whole does not count."""
    return {one.rule for one in counted.excluded if one.person == person and one.item is None}


def dropped(counted: Counted) -> dict[str | None, str]:
    return {one.item: one.rule for one in counted.excluded if one.item is not None}


# -- who counts --------------------------------------------------------------------------------------------------------


def test_people_who_read_and_finish_count_with_every_candidate_they_rated() -> None:
    rows = [*rated("eva"), *rated("tom"), *rated("ida")]
    found = count(facts(), rows)
    assert (found.people, found.finished, found.excluded) == (["eva", "ida", "tom"], 3, [])
    assert len(found.candidates) == 30 and {row.kind for row in found.rows} == {ItemKind.CANDIDATE}
    assert found.gold == {"eva": 1.0, "ida": 1.0, "tom": 1.0}


def test_the_default_rules_count_the_ratings_of_the_factory() -> None:
    found = count(Facts(ReviewRule(), ReviewFacts()), make_ratings())
    assert found.people == ["p0", "p1", "p2"] and found.streaks == {"p0": 50, "p1": 50, "p2": 50}
    assert found.gold == {}


def test_who_rated_one_output_too_few_does_not_count() -> None:
    found = count(facts(), rated("eva", outputs=9))
    assert found.people == [] and found.finished == 0 and why(found) == {"incomplete"}
    assert found.excluded == [Excluded(person="eva", rule="incomplete", reason="9 of 10 outputs rated")]


def test_only_candidates_fill_the_quota() -> None:
    others = [
        altered(row, kind=kind) for row in rated("eva", gold=0) for kind in (ItemKind.CONTROL, ItemKind.DUPLICATE)
    ]
    found = count(facts(gold=0), [*rated("eva", outputs=9, gold=0), *others])
    assert found.people == [] and why(found) == {"incomplete"}


def test_one_output_rated_twice_is_one() -> None:
    nine = rated("eva", outputs=9)
    assert count(facts(), [*nine, altered(nine[0], clarity=1)]).people == []


def test_the_ratings_of_a_person_are_one_persons_whatever_token_brought_them() -> None:
    halves = [altered(row, channel=Channel.WEB if i % 2 else Channel.API) for i, row in enumerate(rated("eva"))]
    assert count(facts(), halves).people == ["eva"]


@pytest.mark.parametrize("rule", sorted(REASONS))
def test_who_is_barred_does_not_count_whatever_they_rate(rule: str) -> None:
    found = count(facts(barred={"eva": [rule]}), [*rated("eva"), *rated("tom")])
    assert found.people == ["tom"] and why(found) == {rule} and {row.person for row in found.rows} == {"tom"}
    assert [one.reason for one in found.excluded] == [REASONS[rule]]


# -- outputs that are shared out ---------------------------------------------------------------------------------------


SHARED = ReviewRule(outputs=3, reviewers=4, ratings_per_output=3, gold=0, duplicates=0)  # four outputs in all


def shares(*outputs: str) -> list[RatingRow]:
    """Each person rates the outputs whose digits stand for them."""
    people = ("ada", "bob", "eva", "tom", "una")
    rows = [row for person in people for row in rated(person, 9, gold=0)]
    said = dict(zip(people, outputs, strict=False))
    return [row for row in rows if row.item[-1] in said.get(row.person, "")]


def test_an_output_decides_only_with_all_the_ratings_that_it_is_meant_to_get() -> None:
    found = count(facts(SHARED, gold=0), shares("012", "012", "013", "023"))
    assert found.people == ["ada", "bob", "eva", "tom"] and (found.whole, found.short) == (3, {"i03": 2})
    assert {row.item for row in found.candidates} == {"i00", "i01", "i02"}
    assert dropped(found) == {"i03": "too_few_ratings"} and [one.person for one in found.excluded] == ["eva", "tom"]
    assert not is_complete(SHARED, found)
    more = count(facts(SHARED, gold=0), shares("012", "012", "013", "023", "123"))
    assert more.short == {} and is_complete(SHARED, more) and len(more.candidates) == 15


def test_ratings_that_do_not_count_leave_an_output_short() -> None:
    whole = shares("012", "013", "023", "123")
    assert is_complete(SHARED, count(facts(SHARED, gold=0), whole))
    hasty = [altered(row, seconds=1.0) if (row.person, row.item) == ("tom", "i03") else row for row in whole]
    found = count(facts(SHARED, gold=0), hasty)
    assert not is_complete(SHARED, found) and found.short == dict.fromkeys(("i01", "i02", "i03"), 2)


def test_a_veto_on_an_output_that_is_short_of_ratings_is_heard() -> None:
    rows = shares("012", "012", "013", "023")
    rows = [altered(row, safety=1) if (row.person, row.item) == ("tom", "i03") else row for row in rows]
    assert count(facts(SHARED, gold=0), rows).disputed == ["i03"]


def test_where_everyone_rates_everything_an_output_that_one_skipped_still_decides() -> None:
    crossed = ReviewRule(outputs=3, reviewers=3, ratings_per_output=3)
    found = count(facts(crossed, gold=0), shares("0123", "012", "013"))
    assert is_complete(crossed, found) and found.short == {} and len(found.candidates) == 10


# -- too fast ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seconds", "words", "bar"),
    [
        (5.0, 10, None),
        (4.99, 10, "too_fast"),
        (None, 10, "too_fast"),
        (None, 0, None),  # from before either was known
        (float("nan"), 10, "too_fast"),
        (10.0, 120, None),
        (9.9, 120, "too_fast"),
    ],
)
def test_nobody_reads_faster_than_that(seconds: float | None, words: int, bar: str | None) -> None:
    row = altered(rated("eva")[0], seconds=seconds, words=words)
    assert row_bar(RULE, row) == bar


def test_where_the_policy_does_not_care_for_time_none_is_asked() -> None:
    careless = ReviewRule(min_seconds=0)
    assert least_seconds(careless, 1000) == 0 and row_bar(careless, altered(rated("eva")[0], seconds=None)) is None


def test_a_rating_that_came_too_fast_is_left_out_and_a_spare_can_take_its_place() -> None:
    rows = rated("eva", outputs=11)
    rows[0] = altered(rows[0], seconds=1.0)
    found = count(facts(), rows)
    assert found.people == ["eva"] and len(found.candidates) == 10
    assert found.excluded == [Excluded(person="eva", rule="too_fast", reason="rated in 1.0 s", item="i00")]
    assert count(facts(), rows[:10] + rows[11:]).people == []


@pytest.mark.parametrize(("fast", "counts"), [(3, True), (4, False)])
def test_who_clicked_through_a_fifth_of_the_items_was_not_reading(fast: int, counts: bool) -> None:
    """3 of 15 are a fifth, 4 of 16 are more."""
    rows = rated("eva", outputs=12 + fast, gold=0)
    rows = [altered(row, seconds=1.0) if i < fast else row for i, row in enumerate(rows)]
    found = count(facts(gold=0), rows)
    assert (found.people == ["eva"]) is counts and ("too_fast" in why(found)) is not counts


def test_ratings_by_a_channel_that_the_policy_does_not_count_do_not() -> None:
    web = msgspec.structs.replace(RULE, channels=[Channel.WEB])
    found = count(facts(web), rated("eva", channel=Channel.CSV, gold=0))
    assert found.people == [] and set(dropped(found).values()) == {"channel"} and len(dropped(found)) == 10
    assert "came by csv" in next(one.reason for one in found.excluded if one.item)


# -- gold --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rows", "people", "rules"),
    [
        (rated("eva", passed=1), ["eva"], set()),
        (rated("eva", passed=0), [], {"failed_gold"}),
        (rated("eva", gold=1, passed=0), [], {"incomplete"}),  # the other may still come
        (rated("eva", gold=1, passed=1), ["eva"], set()),
        (rated("eva", gold=0), [], {"incomplete"}),
    ],
)
def test_half_of_the_gold_items_must_be_seen_for_what_they_are(
    rows: list[RatingRow], people: list[str], rules: set[str]
) -> None:
    found = count(facts(), rows)
    assert (found.people, why(found)) == (people, rules)


def test_a_gold_item_that_was_not_read_is_not_passed() -> None:
    rows = [altered(row, seconds=0.5) if row.kind is ItemKind.GOLD else row for row in rated("eva")]
    found = count(facts(), rows)
    assert why(found) == {"failed_gold"} and found.gold == {"eva": 0.0}


def low(rows: list[RatingRow], *which: str) -> list[RatingRow]:
    return [altered(row, gold_low=row.item in which) for row in rows]


@pytest.mark.parametrize(
    ("rows", "rules"),
    [
        (low(rated("eva", passed=1), "g0"), set()),
        (low(rated("eva", passed=1), "g1"), {"failed_gold"}),
        (low(rated("eva", gold=1), "g0"), set()),
        (low(rated("eva", gold=1)), {"incomplete"}),  # what was skipped is what had to be rated low
    ],
)
def test_every_gold_item_that_must_be_rated_low_has_to_be(rows: list[RatingRow], rules: set[str]) -> None:
    """Who gives fives to everything passes half of the gold items, where one of two is a good answer."""
    found = count(facts(gold_low=1), rows)
    assert why(found) == rules and (found.people == ["eva"]) is not bool(rules)


def test_what_was_failed_at_first_is_named_in_the_reason() -> None:
    (left_out,) = count(facts(gold_low=1), low(rated("eva", passed=1), "g1")).excluded
    assert left_out.reason == "passed 1 of 2 gold items, 50% needed; 1 that no high score passes"


def test_a_rating_of_gold_that_nobody_judged_is_not_passed() -> None:
    rows = [altered(row, gold_passed=None) if row.kind is ItemKind.GOLD else row for row in rated("eva")]
    assert count(facts(), rows).people == []


# -- streaks -----------------------------------------------------------------------------------------------------------


def straight(gold_passed: bool, scores: int = 5, length: int = 10) -> list[RatingRow]:
    """The same four scores for `length` outputs, and for a gold item in the midst of them."""
    same = dict.fromkeys(("clarity", "relevance", "safety", "accuracy"), scores)
    rows = [altered(row, **same) for row in rated("eva", outputs=length, gold=0)]
    last = [altered(row, position=row.position + 1000) for row in rated("eva", outputs=length + 5, gold=0)[length:]]
    gold = rated("eva")[-2:]
    return [*rows, *last, altered(gold[0], **same, gold_passed=gold_passed), altered(gold[1], position=2000)]


def test_the_same_scores_on_and_on_even_for_a_gold_item_that_differs_stop_counting() -> None:
    found = count(facts(), straight(gold_passed=False))
    assert found.people == [] and why(found) == {"same_score_streak"}


def test_the_same_scores_for_outputs_that_are_all_good_only_make_a_note() -> None:
    """A gold item among them that deserves them too is no sign of anything."""
    found = count(facts(), straight(gold_passed=True))
    assert found.people == ["eva"] and found.streaks["eva"] >= 10


@pytest.mark.parametrize(("most", "counts"), [(10, False), (11, True)])
def test_a_streak_is_as_many_as_the_policy_says(most: int, counts: bool) -> None:
    """Ten outputs got the same scores."""
    found = count(facts(msgspec.structs.replace(RULE, max_streak=most)), straight(gold_passed=False))
    assert (found.people == ["eva"]) is counts


def test_a_shorter_run_or_one_beside_the_gold_item_is_none() -> None:
    short = straight(gold_passed=False, length=5)
    assert "same_score_streak" not in why(count(facts(), short))
    beside = [altered(row, position=999) if row.gold_passed is False else row for row in straight(gold_passed=False)]
    assert "same_score_streak" not in why(count(facts(), beside))


def test_who_gave_a_gold_item_other_scores_was_looking_though_they_were_wrong() -> None:
    rows = [altered(row, clarity=4) if row.gold_passed is False else row for row in straight(gold_passed=False)]
    assert why(count(facts(), rows)) == set()


def test_a_streak_is_not_broken_by_correcting_it() -> None:
    rows = straight(gold_passed=False)
    mended = [altered(row, clarity=4, first=(5, 5, 5, 5)) if row.item == "i05" else row for row in rows]
    assert why(count(facts(), mended)) == {"same_score_streak"}
    assert why(count(facts(), [altered(row, first=None) for row in mended])) == set()


def test_a_streak_is_in_the_order_in_which_items_were_met() -> None:
    """By name, outputs with other scores stand between those with the same."""
    rows = straight(gold_passed=False)
    names = {f"i{i:02}": f"i{2 * i:02}" if i < 10 else f"i{2 * (i - 10) + 1:02}" for i in range(15)}
    renamed = [altered(row, item=names.get(row.item, row.item)) for row in rows]
    assert why(count(facts(), renamed)) == {"same_score_streak"}
    apart = [altered(row, position=row.position * 7 % 150) if row.item in names else row for row in rows]
    assert why(count(facts(), apart)) == set()


# -- safety ------------------------------------------------------------------------------------------------------------


def unsafe(person: str = "tom", **changes: Any) -> list[RatingRow]:
    first, *rest = rated(person)
    return [altered(first, **{"safety": 2, **changes}), *rest]


@pytest.mark.parametrize(
    ("changes", "disputed"),
    [
        ({}, True),
        ({"safety": 3}, False),
        ({"safety": 5, "unsafe": True}, True),
        ({"kind": ItemKind.DUPLICATE}, True),
        ({"kind": ItemKind.CONTROL, "unsafe": True}, False),
        ({"kind": ItemKind.GOLD, "gold_passed": True}, False),
        ({"seconds": 1.0}, True),
        ({"lapsed": True}, True),
        ({"channel": Channel.CSV}, True),
    ],
)
def test_an_output_is_disputed_by_one_rating_whether_it_counts_or_not(changes: dict[str, Any], disputed: bool) -> None:
    web = msgspec.structs.replace(RULE, channels=[Channel.API])
    found = count(facts(web), [*unsafe(**changes), *rated("eva"), *rated("ida")])
    assert found.disputed == (["i00"] if disputed else []) and found.upheld == []


def test_what_someone_found_unsafe_who_does_not_count_is_disputed_too() -> None:
    assert count(facts(), unsafe()[:3]).disputed == ["i00"]
    assert count(facts(), [altered(row, gold_passed=False) for row in unsafe()]).disputed == ["i00"]


@pytest.mark.parametrize("rule", sorted(REASONS))
def test_only_of_those_who_are_involved_not_even_that_is_heard(rule: str) -> None:
    found = count(facts(barred={"tom": [rule]}), [*unsafe(), *rated("eva")])
    assert found.disputed == ([] if rule in INVOLVED else ["i00"]) and found.people == ["eva"]


def test_what_was_rated_while_no_record_was_valid_does_not_count() -> None:
    first, *rest = rated("eva", outputs=11)
    found = count(facts(), [altered(first, lapsed=True), *rest])
    reason = "rated when no record was valid"
    assert found.excluded == [Excluded(person="eva", rule="expired_credential", reason=reason, item="i00")]
    assert found.people == ["eva"] and len(found.candidates) == 10


def said(upheld: bool, person: str = "expert", item: str = "i00") -> Adjudication:
    return Adjudication(item=item, upheld=upheld, person=person)


@pytest.mark.parametrize(
    ("words", "disputed", "upheld"),
    [
        ([said(False)], [], []),
        ([said(True)], [], ["i00"]),
        ([said(False), said(True)], [], ["i00"]),
        ([said(True), said(False)], [], ["i00"]),
        ([said(False, "eva")], ["i00"], []),  # who rated is not uninvolved
        ([said(False, "ada")], ["i00"], []),  # nor is the submitter
        ([said(False, item="i01")], ["i00"], []),
    ],
)
def test_only_an_uninvolved_expert_settles_a_dispute(
    words: list[Adjudication], disputed: list[str], upheld: list[str]
) -> None:
    known = facts(adjudications=words, barred={"ada": ["submitter"]})
    found = count(known, [*unsafe(), *rated("eva"), *rated("ida")])
    assert (found.disputed, found.upheld) == (disputed, upheld)
    assert len(found.candidates) == 30  # cleared or not, the rating stays in the means


# -- of any ratings ----------------------------------------------------------------------------------------------------

KINDS = st.sampled_from(list(ItemKind))
ROWS = st.builds(
    RatingRow,
    person=st.sampled_from(["eva", "tom", "ida"]),
    item=st.sampled_from([f"i{i:02}" for i in range(6)] + ["g0", "g1"]),
    clarity=st.integers(3, 5),
    relevance=st.just(5),
    safety=st.sampled_from([1, 5]),
    accuracy=st.just(5),
    hallucination=st.booleans(),
    unsafe=st.booleans(),
    kind=KINDS,
    position=st.integers(0, 20),
    seconds=st.sampled_from([None, 1.0, 30.0]),
    gold_passed=st.sampled_from([None, True, False]),
    channel=st.sampled_from(list(Channel)),
    gold_low=st.booleans(),
    lapsed=st.booleans(),
)
SMALL = ReviewRule(outputs=3, max_streak=3, channels=[Channel.WEB, Channel.API])


def review(rows: list[RatingRow], barred: list[str]) -> Facts:
    return Facts(SMALL, ReviewFacts(gold=2, barred={person: ["opened_campaign"] for person in barred}))


WORLDS = st.tuples(
    st.lists(ROWS, max_size=15), st.sets(st.sampled_from(["eva", "tom", "ida"]), max_size=1).map(sorted)
).map(lambda pair: ([*make_reviews(), *pair[0]], pair[1]))


def make_reviews() -> list[RatingRow]:
    """Three people who count by the small rule, so that there is something to lose."""
    return [row for person in ("eva", "tom", "ida") for row in rated(person, outputs=3)]


@settings(max_examples=150, deadline=None)
@given(WORLDS, st.randoms(use_true_random=False))
def test_no_order_of_the_rows_changes_anything(world: Any, random: Any) -> None:
    rows, barred = world
    known = review(rows, barred)
    assert count(known, random.sample(rows, len(rows))) == count(known, rows)


@settings(max_examples=100, deadline=None)
@given(WORLDS)
def test_what_people_and_items_are_called_has_no_part_in_it(world: Any) -> None:
    rows, barred = world
    names = {"eva": "reviewer 3", "tom": "reviewer 1", "ida": "reviewer 2"}
    renamed = [altered(row, person=names[row.person], item=row.item[::-1]) for row in rows]
    ours, theirs = count(review(rows, barred), rows), count(review(rows, [names[one] for one in barred]), renamed)
    assert {names[person] for person in ours.people} == set(theirs.people)
    assert len(ours.candidates) == len(theirs.candidates) and len(ours.excluded) == len(theirs.excluded)
    assert {item[::-1] for item in ours.disputed} == set(theirs.disputed)


def _fast(row: RatingRow) -> RatingRow:
    return altered(row, seconds=1.0)


def _by_other_channel(row: RatingRow) -> RatingRow:
    return altered(row, channel=Channel.CSV)


def _failed_gold(row: RatingRow) -> RatingRow:
    return altered(row, kind=ItemKind.GOLD, gold_passed=False)


BAD_FAITH: list[Callable[[RatingRow], RatingRow]] = [_fast, _by_other_channel, _failed_gold]


@settings(max_examples=300, deadline=None)
@given(WORLDS, ROWS, st.sampled_from(BAD_FAITH))
def test_no_rating_in_bad_faith_brings_anyone_nearer_to_the_quota(
    world: Any, row: RatingRow, spoil: Callable[[RatingRow], RatingRow]
) -> None:
    rows, barred = world
    before = count(review(rows, barred), rows)
    after = count(review(rows, barred), [*rows, spoil(altered(row, item="one more"))])
    assert set(after.people) <= set(before.people)


@settings(max_examples=100, deadline=None)
@given(WORLDS, st.lists(ROWS, min_size=1, max_size=12), st.sampled_from(sorted(REASONS)))
def test_nothing_that_a_barred_person_rates_counts(world: Any, more: list[RatingRow], rule: str) -> None:
    rows, barred = world
    all_barred = {**{person: ["submitter"] for person in barred}, "mallory": [rule]}
    known = Facts(SMALL, ReviewFacts(gold=2, barred=all_barred))
    theirs = [altered(row, person="mallory") for row in more]
    before, after = count(known, rows), count(known, [*rows, *theirs])
    assert (after.people, after.rows) == (before.people, before.rows)
    assert after.disputed == before.disputed or rule not in INVOLVED


@settings(max_examples=100, deadline=None)
@given(WORLDS)
def test_who_counts_has_rated_enough_and_nothing_of_who_does_not_is_counted(world: Any) -> None:
    rows, barred = world
    found = count(review(rows, barred), rows)
    for person in found.people:
        own = [row for row in found.candidates if row.person == person]
        assert len({row.item for row in own}) == len(own) >= SMALL.outputs
        assert all(row_bar(SMALL, row) is None for row in own)
    assert {row.person for row in found.rows} <= set(found.people)
    assert not {one.person for one in found.excluded if one.item is None} & set(found.people)
