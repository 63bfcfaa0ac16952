"""Pairs out of a sealed review: only what the same people rated, by enough, and never what one of them found unsafe."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.records import CRITERIA, Channel, ItemKind, ItemRating, ReviewedItem
from registry.review.preferences import preferences


def rating(person: str, *scores: int, **changes: Any) -> ItemRating:
    each = scores * 4 if len(scores) == 1 else scores
    said = ItemRating(
        person=person,
        **dict(zip(CRITERIA, each, strict=True)),
        hallucination=False,
        unsafe=False,
        discuss=False,
        comment=None,
        channel=Channel.WEB,
        seconds=20.0,
        revisions=1,
        counted=True,
    )
    return msgspec.structs.replace(said, **changes)


def item(kind: ItemKind, *ratings: ItemRating, **changes: Any) -> ReviewedItem:
    control = kind is ItemKind.CONTROL
    found = ReviewedItem(
        item="s/i1" + ("" if kind is ItemKind.CANDIDATE else f"#{kind.value}"),
        kind=kind,
        hash="0" * 64,
        subject="base" if control else "candidate",
        prompt="How?",
        output="Like that." if control else "Like this.",
        ratings=list(ratings),
    )
    return msgspec.structs.replace(found, **changes)


def candidate(*ratings: ItemRating, **changes: Any) -> ReviewedItem:
    return item(ItemKind.CANDIDATE, *ratings, **changes)


def control(*ratings: ItemRating, **changes: Any) -> ReviewedItem:
    return item(ItemKind.CONTROL, *ratings, **changes)


def test_the_better_rated_of_two_answers_is_preferred_whosever_it_is() -> None:
    [one] = preferences([candidate(rating("a", 5)), control(rating("a", 4))]).found
    assert (one.chosen, one.rejected, one.preferred, one.other) == ("Like this.", "Like that.", "candidate", "base")
    assert (one.item, one.prompt, one.margin, one.raters) == ("s/i1", "How?", 1.0, 1)
    [other] = preferences([candidate(rating("a", 2)), control(rating("a", 4))]).found
    assert (other.chosen, other.preferred, other.margin) == ("Like that.", "base", 2.0)


def test_only_people_who_rated_both_and_count_are_asked() -> None:
    """One person's severe scale on one side alone would make a preference that nobody has."""
    severe = [candidate(rating("a", 4), rating("severe", 1)), control(rating("a", 3), rating("kind", 5))]
    [one] = preferences(severe).found
    assert (one.preferred, one.margin, one.raters) == ("candidate", 1.0, 1)
    uncounted = [candidate(rating("a", 5)), control(rating("a", 1, counted=False))]
    assert preferences(uncounted).left == {"nobody who counts rated both": 1}


@pytest.mark.parametrize(
    ("items", "why"),
    [
        ([candidate(rating("a", 5, 5, 5, 4)), control(rating("a", 5))], "the ratings differ by less than 0.5"),
        ([candidate(rating("a", 5)), control(rating("a", 5))], "the ratings differ by less than 0.5"),
        ([candidate(rating("a", 5), output=None), control(rating("a", 1))], "the texts are gone"),
        ([candidate(rating("a", 5), prompt=None), control(rating("a", 1))], "the texts are gone"),
        ([candidate(rating("a", 5)), control(rating("a", 1), output="Like this. ")], "both answers are the same"),
        ([candidate(rating("a", 5)), control()], "nobody who counts rated both"),
        (
            [candidate(rating("a", 5, unsafe=True)), control(rating("a", 1))],
            "the better answer was called unsafe or invented",
        ),
        (
            [candidate(rating("a", 5), rating("b", 5, hallucination=True)), control(rating("a", 1), rating("b", 1))],
            "the better answer was called unsafe or invented",
        ),
    ],
)
def test_what_gives_no_pair_is_said(items: list[ReviewedItem], why: str) -> None:
    found = preferences(items)
    assert found.found == [] and found.left == {why: 1}


def test_a_worse_answer_may_be_unsafe_and_gold_and_duplicates_are_no_sides() -> None:
    sides = [candidate(rating("a", 5)), control(rating("a", 1, unsafe=True))]
    others = [item(ItemKind.GOLD, rating("a", 1)), item(ItemKind.DUPLICATE, rating("a", 1))]
    assert len(preferences([*sides, *others]).found) == 1
    assert preferences([candidate(rating("a", 5)), *others]) == preferences([]), "nothing to compare with"


@given(st.lists(st.tuples(st.integers(1, 5), st.integers(1, 5)), min_size=1, max_size=6), st.floats(0, 4))
def test_a_pair_is_there_exactly_where_the_means_are_that_far_apart(
    scores: list[tuple[int, int]], margin: float
) -> None:
    sides = [
        candidate(*(rating(f"p{n}", ours) for n, (ours, _) in enumerate(scores))),
        control(*(rating(f"p{n}", theirs) for n, (_, theirs) in enumerate(scores))),
    ]
    ours, theirs = (sum(one) / len(scores) for one in zip(*scores, strict=True))
    found = preferences(sides, margin).found
    if abs(ours - theirs) < margin or ours == theirs:
        assert found == []
    else:
        assert found[0].preferred == ("candidate" if ours > theirs else "base") and found[0].margin >= margin


def test_a_control_whose_prompt_the_candidate_was_not_asked_gives_no_pair() -> None:
    found = preferences([control(rating("a", 5))])
    assert found.found == [] and found.left == {}
