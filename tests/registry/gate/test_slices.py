"""Tags one by one: exact p-values against published ones, Holm's correction, and alarms that only inform."""

import math

import pytest
from factories import SEALED, make_accuracy, make_evidence, make_forgetting, make_ratings, make_subject
from hypothesis import given
from hypothesis import strategies as st

from registry.gate.decision import decide
from registry.gate.slices import accuracy_slices, below, driver, forgetting_slices, holm, more_lost, weakest
from registry.records import Check, Slice, Status

P_VALUES = st.lists(st.floats(0, 1), max_size=12)


def tag(name: str, n: int, correct: int = 0, lost: int | None = None, gained: int | None = None) -> Slice:
    return Slice(tag=name, n=n, correct=correct, lost=lost, gained=gained)


# -- Holm ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("p_values", "published"),
    [
        # The worked example of the encyclopaedia's article on the Holm-Bonferroni method.
        ([0.01, 0.04, 0.03, 0.005], [0.03, 0.06, 0.06, 0.02]),
        # By hand: the smallest counts three times, and the others may not fall below it.
        ([0.02, 0.02, 0.02], [0.06, 0.06, 0.06]),
        ([0.5, 0.9], [1.0, 1.0]),
        ([], []),
    ],
)
def test_holm_gives_the_corrected_values_that_are_known(p_values: list[float], published: list[float]) -> None:
    assert holm(p_values) == pytest.approx(published)


@given(P_VALUES)
def test_holm_only_ever_raises_a_p_value_keeps_their_order_and_never_exceeds_bonferroni(p_values: list[float]) -> None:
    corrected = holm(p_values)
    for p, q in zip(p_values, corrected, strict=True):
        assert p <= q <= min(1.0, len(p_values) * p) or q == pytest.approx(p)
    for (p, q), (other, corrected_other) in zip(
        zip(p_values, corrected, strict=True), zip(p_values[1:], corrected[1:], strict=True), strict=False
    ):
        assert p > other or q <= corrected_other


# -- exact tests --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("correct", "n", "minimum"), [(0, 5, 0.85), (8, 12, 0.85), (12, 12, 0.85), (3, 40, 0.1)])
def test_the_binomial_tail_is_the_plain_sum(correct: int, n: int, minimum: float) -> None:
    plain = sum(math.comb(n, k) * minimum**k * (1 - minimum) ** (n - k) for k in range(correct + 1))
    assert below(correct, n, minimum) == pytest.approx(plain)


def test_a_minimum_of_everything_or_nothing_has_no_doubt() -> None:
    assert (below(9, 10, 1.0), below(10, 10, 1.0), below(0, 10, 0.0)) == (0.0, 1.0, 1.0)


@pytest.mark.parametrize(
    ("lost", "gained", "two_sided"),
    [(7, 1, 0.0703), (8, 2, 0.1094), (9, 1, 0.0215), (12, 5, 0.1435)],  # binomial tables, e.g. Siegel 1956, table D
)
def test_the_paired_test_is_the_exact_mcnemar_test(lost: int, gained: int, two_sided: float) -> None:
    assert round(2 * more_lost(lost, gained), 4) == two_sided


def test_no_flips_and_more_gained_than_lost_are_no_loss() -> None:
    assert more_lost(0, 0) == 1.0 and more_lost(0, 5) == 1.0 and more_lost(3, 3) > 0.5


# -- reports ------------------------------------------------------------------------------------------------------

GOOD, BAD = tag("capitals", 100, 97), tag("dragons", 12, 4)


def test_an_alarm_names_the_tag_that_is_too_weak_to_be_chance() -> None:
    good, bad = accuracy_slices([GOOD, BAD], minimum=0.85, confidence=0.95)
    assert (good.alarm, bad.alarm) == (False, True)
    assert (bad.value, bad.p_value) == (4 / 12, pytest.approx(2 * below(4, 12, 0.85)))


def test_looking_at_many_tags_raises_no_alarm_by_chance() -> None:
    """At 85 %, 7 right of 12 or fewer has a chance of 2.4 %: rare for one tag, to be expected of one among ten."""
    seven = tag("dragons", 12, 7)
    assert accuracy_slices([seven], 0.85, 0.95)[0].alarm
    assert not accuracy_slices([seven, *[GOOD] * 9], 0.85, 0.95)[0].alarm


def test_a_lost_tag_raises_an_alarm_of_forgetting() -> None:
    found = forgetting_slices([tag("a", 50, 30, lost=9, gained=0), tag("b", 50, 40, lost=1, gained=2)], 0.95)
    assert [one.alarm for one in found] == [True, False]
    assert [one.value for one in found] == [-9 / 50, 1 / 50]


def check_of(kind: str, **evidence: object) -> Check:
    report = decide(make_subject(), make_evidence(**evidence), make_ratings(), SEALED)
    return next(check for check in report.checks if check.kind == kind)


def test_an_alarm_never_changes_a_status() -> None:
    check = check_of("accuracy", accuracy=make_accuracy(190, slices=[GOOD, tag("dragons", 100, 60)]))
    assert check.status is Status.PASS and [one.alarm for one in check.slices] == [False, True]
    lost = [tag("a", 300, 200, lost=10, gained=0), tag("b", 300, 200, lost=0, gained=10)]
    check = check_of("forgetting", forgetting=make_forgetting(slices=lost))
    assert check.status is Status.PASS and [one.alarm for one in check.slices] == [True, False]


def test_the_driving_tag_is_named_without_an_alarm() -> None:
    found = [tag("a", 300, 200, lost=7, gained=5), tag("b", 300, 200, lost=3, gained=5)]
    check = check_of("forgetting", forgetting=make_forgetting(slices=found))
    assert not any(one.alarm for one in check.slices)
    assert "most was lost under the tag a: 7 lost, 5 gained of 300" in check.details


def test_where_nothing_was_lost_no_tag_drives_a_loss() -> None:
    assert driver([tag("a", 10, 5, lost=1, gained=1)]) is None and driver([]) is None


def test_the_weakest_tag_is_named_where_tags_tell_items_apart() -> None:
    assert weakest([GOOD, BAD]) == "weakest tag: dragons, 4 of 12 right"
    assert weakest([BAD]) is None and weakest([]) is None and weakest([BAD, tag("none", 0)]) is None
