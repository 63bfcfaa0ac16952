"""Agreement: published values to five digits, and what holds of any ratings."""

import math
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.review.agreement import (
    CATEGORIES,
    gwet,
    gwet_ac2,
    krippendorff_alpha,
    ordinal_weight,
    raw_agreement,
)

# Krippendorff's example of 2011, four people and twelve units, also `cac.raw4raters` of irrCAC; 0 is missing.
KRIPPENDORFF = (
    (1, 2, 3, 3, 2, 1, 4, 1, 2, 0, 0, 0),
    (1, 2, 3, 3, 2, 2, 4, 1, 2, 5, 0, 3),
    (0, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, 0),
    (1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, 0),
)
# The same with other answers of one unit in three.
CHANGED = (
    (1, 0, 2, 2, 3, 3, 4, 1, 2, 0, 0, 0),
    (1, 2, 3, 3, 3, 2, 4, 1, 2, 5, 0, 3),
    (0, 3, 3, 3, 3, 3, 4, 2, 2, 5, 1, 0),
    (1, 2, 3, 3, 3, 4, 4, 1, 2, 5, 1, 0),
)
# `cont3x3abstractors` of irrCAC: how often two people gave one of three diagnoses.
ABSTRACTORS = ((13, 0, 0), (0, 20, 7), (0, 4, 56))


def units(people: tuple[tuple[int, ...], ...]) -> list[list[int]]:
    return [[score for score in unit if score] for unit in zip(*people, strict=True)]


def identity(one: int, other: int) -> float:
    return float(one == other)


def quadratic(one: int, other: int) -> float:
    return 1 - (one - other) ** 2 / (len(CATEGORIES) - 1) ** 2


@pytest.mark.parametrize(("people", "alpha"), [(KRIPPENDORFF, 0.81539), (CHANGED, 0.83977)])
def test_alpha_is_the_published_value(people: tuple[tuple[int, ...], ...], alpha: float) -> None:
    """0.815 in Krippendorff (2011); all digits as by the packages `krippendorff` 0.9.0 and inspect_ai."""
    found = krippendorff_alpha(units(people))
    assert found is not None and round(found, 5) == alpha


@pytest.mark.parametrize(
    ("people", "weight", "published"),
    [
        (KRIPPENDORFF, identity, 0.77544),  # AC1 of cac.raw4raters in irrCAC's overview
        (KRIPPENDORFF, ordinal_weight, 0.89894),  # irrCAC 0.4.4, weights="ordinal"
        (CHANGED, identity, 0.66435),
        (CHANGED, quadratic, 0.93303),
        (CHANGED, ordinal_weight, 0.90678),
    ],
)
def test_gwets_coefficient_is_the_published_value(
    people: tuple[tuple[int, ...], ...], weight: Any, published: float
) -> None:
    found = gwet(units(people), CATEGORIES, weight)
    assert found is not None and round(found, 5) == published


def test_two_people_and_three_categories_are_a_scale_like_any_other() -> None:
    """irrCAC's overview: AC1 0.8493305, percent agreement 0.89."""
    pairs = [[i, j] for i, row in enumerate(ABSTRACTORS) for j, n in enumerate(row) for _ in range(n)]
    found, equal = gwet(pairs, (0, 1, 2), identity), raw_agreement(pairs)
    assert found is not None and equal is not None
    assert (round(found, 7), round(equal, 7)) == (0.8493305, 0.89)


def test_ordinal_weights_are_irrcacs() -> None:
    """Its vignette on weights prints 1, 0.6666667 and 0 for three categories."""
    assert [round(ordinal_weight(1, k, 3), 7) for k in (1, 2, 3)] == [1.0, 0.6666667, 0.0]


def test_on_a_uniformly_good_adapter_alpha_collapses_and_ac2_does_not() -> None:
    """150 scores, all 5 but for one 4 in four outputs."""
    items = [[5, 5, 4]] * 4 + [[5, 5, 5]] * 46
    alpha, ac2 = krippendorff_alpha(items), gwet_ac2(items)
    assert alpha is not None and ac2 is not None
    assert alpha < 0 < 0.99 < ac2
    assert round(alpha, 4) == -0.0205


def test_what_nobody_rated_twice_says_nothing() -> None:
    for items in ([], [[]], [[5]], [[1], [5], []]):
        assert raw_agreement(items) is None and krippendorff_alpha(items) is None and gwet_ac2(items) is None


def test_an_output_that_one_person_rated_has_a_part_in_chance_only() -> None:
    both, alone = [[5, 5], [4, 5]], [[5, 5], [4, 5], [1]]
    assert raw_agreement(both) == raw_agreement(alone)
    assert krippendorff_alpha(both) == krippendorff_alpha(alone)
    assert gwet_ac2(both) != gwet_ac2(alone)


ITEMS = st.lists(st.lists(st.integers(1, 5), max_size=5), max_size=12)


@given(ITEMS)
def test_nobody_agrees_more_than_wholly(items: list[list[int]]) -> None:
    for found in (raw_agreement(items), krippendorff_alpha(items), gwet_ac2(items)):
        assert found is None or (math.isfinite(found) and found <= 1 + 1e-12)
    equal = raw_agreement(items)
    assert equal is None or equal >= 0
    ac2 = gwet_ac2(items)
    # Chance is at most 18/20 · 4/5: the weights add up to 18 over five scores that are all as frequent.
    assert ac2 is None or ac2 >= -0.72 / 0.28 - 1e-12


@given(ITEMS, st.randoms(use_true_random=False))
def test_neither_the_order_of_outputs_nor_of_people_changes_anything(items: list[list[int]], random: Random) -> None:
    shuffled = [random.sample(scores, len(scores)) for scores in random.sample(items, len(items))]
    for measure in (raw_agreement, krippendorff_alpha, gwet_ac2):
        assert measure(items) == pytest.approx(measure(shuffled), abs=1e-9)


@given(st.lists(st.integers(1, 5), min_size=1, max_size=12), st.integers(2, 5))
def test_who_says_the_same_of_every_output_agrees_wholly(scores: list[int], people: int) -> None:
    items = [[score] * people for score in scores]
    assert raw_agreement(items) == 1 and gwet_ac2(items) == pytest.approx(1)
    assert krippendorff_alpha(items) == (pytest.approx(1) if len(set(scores)) > 1 else None)
