"""A sealed campaign's result: every number by hand, and the same bytes for the same ratings in any order."""

from typing import Any

import msgspec
import pytest
from factories import SEALED, make_ratings
from hypothesis import given
from hypothesis import strategies as st

from registry.records import CRITERIA, Adjudication, ItemKind, RatingRow, ReviewFacts, ReviewResult, ReviewRule
from registry.review.counting import Facts
from registry.review.result import consistency, review_result

ROOT = "sha256:" + "0" * 64
RULE = ReviewRule(outputs=4, min_seconds=0)


def altered(row: RatingRow, **changes: Any) -> RatingRow:
    return msgspec.structs.replace(row, **changes)


def result(rows: list[RatingRow], rule: ReviewRule = RULE, known: ReviewFacts = SEALED) -> ReviewResult:
    return review_result(Facts(rule, known), rows, ROOT)


def scored(clarity: list[list[int]]) -> list[RatingRow]:
    """clarity: of each person, output by output; all else is 5."""
    rows = make_ratings(len(clarity), len(clarity[0]))
    return [altered(row, clarity=clarity[int(row.person[1:])][int(row.item[1:])]) for row in rows]


def of(found: ReviewResult, criterion: str) -> Any:
    return next(one for one in found.criteria if one.criterion == criterion)


def test_a_result_says_everything_about_each_criterion() -> None:
    found = result(scored([[5, 4, 3, 5], [5, 4, 4, 5], [5, 5, 3, 2]]))
    assert (found.counted, found.ratings, found.root) == (["p0", "p1", "p2"], 12, ROOT)
    assert [one.criterion for one in found.criteria] == list(CRITERIA)
    clarity = of(found, "clarity")
    assert clarity.mean == pytest.approx(50 / 12) and clarity.histogram == [0, 1, 2, 3, 6]
    assert clarity.agreement == pytest.approx((1 + 1 / 3 + 1 / 3 + 1 / 3) / 4)
    assert clarity.lower < clarity.mean < clarity.upper
    # Means of outputs 5, 13/3, 10/3 and 4: t(3) = 2.35336 times their standard deviation over the root of four.
    assert clarity.mean - clarity.lower == pytest.approx(2.353363 * 0.693889 / 2, abs=1e-4)
    assert 0 < clarity.ac2 < 1 and clarity.alpha is not None
    safety = of(found, "safety")
    assert (safety.mean, safety.lower, safety.alpha, safety.ac2) == (5.0, 5.0, None, pytest.approx(1.0))
    assert (found.hallucination_rate, found.vetoes, found.gold, found.consistency) == (0.0, [], {}, None)
    assert found.hallucination_upper is not None and 0.3 < found.hallucination_upper < 0.7


def test_candidate_minus_control_is_paired_by_person_and_prompt() -> None:
    rows = scored([[5, 4, 3, 5], [5, 4, 4, 5], [5, 5, 3, 2]])
    control = [altered(row, kind=ItemKind.CONTROL, clarity=2) for row in rows if row.item in ("i0000", "i0001")]
    # One person never met the second control, and a control without its candidate compares nothing.
    control = [*control[:-1], altered(control[0], item="i0099")]
    clarity = of(result([*rows, *control]), "clarity")
    assert clarity.difference == pytest.approx((3 + 3 + 3 + 2 + 2) / 5)
    assert clarity.difference_lower < clarity.difference < clarity.difference_upper
    assert clarity.mean == pytest.approx(50 / 12)
    alone = of(result([*rows, *control[:1]]), "clarity")
    assert (alone.difference, alone.difference_lower, alone.difference_upper) == (3.0, None, None)
    assert of(result(rows), "clarity").difference is None


@pytest.mark.parametrize(
    ("again", "share"), [([{}], 1.0), ([{"clarity": 4}], 1.0), ([{"clarity": 3}], 0.0), ([{}, {"safety": 1}], 0.5)]
)
def test_consistency_is_how_often_the_second_look_says_about_the_same(
    again: list[dict[str, int]], share: float
) -> None:
    first = make_ratings(1, 4)
    second = [altered(first[i], kind=ItemKind.DUPLICATE, **changes) for i, changes in enumerate(again)]
    assert consistency([*first, *second]) == share
    assert consistency([*first, altered(second[0], item="never met")]) is None


def test_vetoes_are_what_was_not_cleared() -> None:
    rows = [altered(row, safety=1) if row.item in ("i0000", "i0001", "i0002") else row for row in make_ratings(3, 4)]
    words = [Adjudication(item="i0001", upheld=False, person="x"), Adjudication(item="i0002", upheld=True, person="x")]
    assert result(rows, known=ReviewFacts(sealed=True, adjudications=words)).vetoes == ["i0000", "i0002"]


def test_who_does_not_count_is_named_with_the_rule_to_who_may_read_results() -> None:
    known = ReviewFacts(sealed=True, gold=1, barred={"p0": ["submitter"]})
    gold = [altered(row, kind=ItemKind.GOLD, item="g", gold_passed=row.person == "p1") for row in make_ratings(3, 1)]
    found = result([*make_ratings(3, 4), *gold], known=known)
    assert found.counted == ["p1"] and found.gold == {"p0": 0.0, "p1": 1.0, "p2": 0.0}
    assert [(one.person, one.rule) for one in found.excluded] == [
        ("p0", "submitter"),
        ("p0", "failed_gold"),
        ("p2", "failed_gold"),
    ]


def test_where_nothing_counts_there_is_no_number() -> None:
    found = result(make_ratings(3, 3))
    assert (found.counted, found.ratings, found.criteria) == ([], 0, [])
    assert found.hallucination_rate is None is found.hallucination_upper
    one = result(make_ratings(3, 1, hallucination=True), ReviewRule(outputs=1))
    assert (one.hallucination_rate, one.hallucination_upper) == (1.0, None)


@given(st.lists(st.lists(st.integers(1, 5), min_size=4, max_size=4), min_size=3, max_size=3), st.randoms())
def test_the_same_ratings_in_any_order_give_the_same_bytes(scores: list[list[int]], random: Any) -> None:
    rows = scored(scores)
    rows += [altered(row, kind=ItemKind.CONTROL, clarity=row.accuracy) for row in rows[:6]]
    shuffled = random.sample(rows, len(rows))
    assert msgspec.json.encode(result(shuffled)) == msgspec.json.encode(result(rows))
