"""Means and shares of few outputs: against other formulas, by simulation, and what holds of any numbers."""

import math
from random import Random

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from benchmarks.review import ADAPTERS, UNIFORMLY_GOOD, mean_coverage, share_coverage
from registry.gate.statistics import t_quantile, wilson
from registry.review.means import MOST_OUTPUTS, Mean, clustered_mean, clustered_share, grouped, outputs_to_decide

SCORES = st.lists(st.lists(st.integers(1, 5), min_size=1, max_size=5), min_size=2, max_size=20)


@pytest.mark.parametrize(
    ("degrees", "quantile"),
    [(1, 6.313752), (2, 2.919986), (3, 2.353363), (4, 2.131847), (9, 1.833113), (18, 1.734064), (19, 1.729133)],
)
def test_students_t_is_the_tabulated_one_for_few_outputs_too(degrees: int, quantile: float) -> None:
    """Any table of Student's t; the expansion takes over at 19 degrees of freedom."""
    assert t_quantile(0.95, degrees) == pytest.approx(quantile, abs=2e-5)


def test_one_score_an_output_gives_the_plain_t_interval() -> None:
    scores = [3.0, 4.0, 5.0, 5.0, 2.0, 4.0]
    found = clustered_mean([[one] for one in scores]).interval(0.95)
    deviation = math.sqrt(sum((one - sum(scores) / 6) ** 2 for one in scores) / 5)
    assert found is not None
    assert found.lower == pytest.approx(sum(scores) / 6 - 2.015048 * deviation / math.sqrt(6), abs=1e-4)
    assert found.upper - found.value == pytest.approx(found.value - found.lower)


def test_three_people_who_say_the_same_are_worth_one() -> None:
    once, thrice = [[3], [4], [5], [5]], [[3] * 3, [4] * 3, [5] * 3, [5] * 3]
    assert clustered_mean(once).interval(0.95) == pytest.approx(clustered_mean(thrice).interval(0.95))
    rate = [[True], [False], [False]] * 10
    assert clustered_share(rate, 0.95) == pytest.approx(clustered_share([one * 3 for one in rate], 0.95), abs=0.005)


def test_what_one_output_says_has_no_bounds_and_nothing_is_an_error() -> None:
    assert clustered_mean([[4, 5]]) == Mean(4.5, None, 1) and clustered_mean([[4, 5], []]).interval(0.95) is None
    for nothing in ([], [[]]):
        with pytest.raises(ValueError, match="nothing was rated"):
            clustered_mean(nothing)
    with pytest.raises(ValueError, match="one output"):
        clustered_share([[True, False]], 0.95)


@given(SCORES, st.sampled_from([0.8, 0.9]), st.randoms(use_true_random=False))
def test_a_surer_interval_is_wider_and_no_order_changes_it(items: list[list[int]], low: float, random: Random) -> None:
    narrow, wide = clustered_mean(items).interval(low), clustered_mean(items).interval(0.95)
    assert narrow is not None and wide is not None
    assert wide.lower <= narrow.lower <= narrow.value <= narrow.upper <= wide.upper
    shuffled = [random.sample(scores, len(scores)) for scores in random.sample(items, len(items))]
    assert clustered_mean(shuffled).interval(0.95) == wide


@given(SCORES, st.integers(2, 4))
def test_more_outputs_that_vary_alike_never_widen_it(items: list[list[int]], times: int) -> None:
    once, more = clustered_mean(items).interval(0.95), clustered_mean(items * times).interval(0.95)
    assert once is not None and more is not None
    assert more.value == pytest.approx(once.value)
    assert more.lower >= once.lower - 1e-9 and more.upper <= once.upper + 1e-9


@given(SCORES, st.data())
def test_a_better_score_never_lowers_the_mean(items: list[list[int]], data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(items) - 1))
    better = [[5] * len(scores) if i == at else scores for i, scores in enumerate(items)]
    assert clustered_mean(better).value >= clustered_mean(items).value


FLAGS = st.lists(st.lists(st.booleans(), min_size=1, max_size=5), min_size=2, max_size=20)


@given(FLAGS)
def test_a_share_lies_between_its_bounds_and_these_between_none_and_all(flags: list[list[bool]]) -> None:
    found = clustered_share(flags, 0.95)
    assert 0 <= found.lower <= found.value <= found.upper <= 1
    if not any(map(any, flags)):
        assert found.upper > 0


@given(FLAGS)
def test_clustering_never_narrows_a_share_beyond_independent_ratings(flags: list[list[bool]]) -> None:
    assume(any(map(any, flags)))
    n, true = sum(map(len, flags)), sum(map(sum, flags))
    assert clustered_share(flags, 0.95).upper >= wilson(true, n, 0.95).upper - 1e-9


def test_where_nobody_saw_any_the_bound_is_that_of_so_many_outputs() -> None:
    """About three in n: 3 / 50."""
    assert clustered_share([[False] * 3] * 50, 0.95).upper == pytest.approx(0.0532, abs=1e-4)


# -- how many more -----------------------------------------------------------------------------------------------------


def test_as_many_more_outputs_as_it_says_decide_and_one_fewer_do_not() -> None:
    items = [[5, 4, 4], [3, 4, 4], [5, 5, 4], [4, 3, 5], [4, 4, 4]] * 4
    mean = clustered_mean(items)
    more = outputs_to_decide(mean, 4.0, 0.95)
    assert more is not None and more > 0 and mean.error is not None
    deviation, gap = mean.error * math.sqrt(mean.clusters), mean.value - 4.0
    for outputs, decided in ((mean.clusters + more, True), (mean.clusters + more - 1, False)):
        assert (t_quantile(0.95, outputs - 1) * deviation / math.sqrt(outputs) <= gap) is decided


@pytest.mark.parametrize(
    "mean",
    [Mean(4.0, 0.1, 50), Mean(4.5, None, 1), Mean(4.001, 0.5, 50)],
    ids=["at the limit", "one output", "near it"],
)
def test_some_means_no_number_of_outputs_decides(mean: Mean) -> None:
    assert outputs_to_decide(mean, 4.0, 0.95) is None


@given(SCORES, st.floats(1, 5))
def test_the_number_is_one_that_can_be_rated(items: list[list[int]], limit: float) -> None:
    mean = clustered_mean(items)
    more = outputs_to_decide(mean, limit, 0.95)
    assert more is None or 0 <= more <= MOST_OUTPUTS


def test_grouping_ignores_the_order_of_what_is_grouped() -> None:
    pairs = [("b", 2.0), ("a", 3.0), ("b", 1.0)]
    assert grouped(pairs) == grouped(pairs[::-1]) == [[3.0], [1.0, 2.0]]


# -- coverage ----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_bounds_hold_about_as_often_as_they_say_where_outputs_vary_evenly() -> None:
    """`python -m benchmarks.review` prints these and more; seeded, so never by chance."""
    mixed, at_four = (next(one for one in ADAPTERS if one.name == name) for name in ("mixed", "just at 4"))
    for adapter in (UNIFORMLY_GOOD, mixed, at_four):
        lower, upper, _ = mean_coverage(adapter, 50, 500)
        assert 0.9 < lower < 0.99 and 0.9 < upper < 0.99
    assert mean_coverage(at_four, 50, 500)[2] < 0.1 and mean_coverage(UNIFORMLY_GOOD, 50, 200)[2] == 1.0


@pytest.mark.slow
@pytest.mark.parametrize("rate", [0.05, 0.1])
@pytest.mark.parametrize("together", [1.0, 0.4])
def test_the_upper_bound_of_a_rate_holds_however_people_agree(rate: float, together: float) -> None:
    assert share_coverage(rate, together, 50, 500) > 0.9
