"""The gate's intervals against published values, hand computations, their bounds, and a seeded simulation."""

import itertools
import math
import random
from statistics import NormalDist

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.gate.statistics import (
    binomial_at_least,
    clustered_ratio,
    exponential,
    moments,
    t_quantile,
    tango,
    wilson,
    z_quantile,
)
from registry.records import Moments

CONFIDENCE = st.sampled_from([0.5, 0.8, 0.95, 0.975, 0.9999])
COUNTS = st.integers(1, 2000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))
PAIRS = st.integers(1, 1500).flatmap(
    lambda n: st.integers(0, n).flatmap(
        lambda flips: st.integers(0, flips).map(lambda lost: (n, lost, flips - lost)),
    )
)

# Two-sided 95 % intervals are two one-sided ones of 97.5 %.
TWO_SIDED_95 = 0.975


# -- Wilson -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("successes", "n", "lower", "upper"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_gives_the_intervals_that_newcombe_published_in_1998(
    successes: int, n: int, lower: float, upper: float
) -> None:
    found = wilson(successes, n, TWO_SIDED_95)
    assert (round(found.lower, 4), round(found.upper, 4)) == (lower, upper)


def test_wilson_at_none_and_at_all_has_the_closed_form() -> None:
    z = NormalDist().inv_cdf(0.95)
    assert wilson(0, 50, 0.95) == (0.0, 0.0, pytest.approx(z * z / (50 + z * z)))
    assert wilson(50, 50, 0.95) == (1.0, pytest.approx(50 / (50 + z * z)), 1.0)


@given(COUNTS, CONFIDENCE)
def test_wilson_holds_its_estimate_and_stays_between_0_and_1(count: tuple[int, int], confidence: float) -> None:
    found = wilson(*count, confidence)
    assert 0 <= found.lower <= found.value <= found.upper <= 1


@given(st.integers(1, 500), CONFIDENCE)
def test_one_more_success_raises_both_bounds_of_wilson(n: int, confidence: float) -> None:
    found = [wilson(k, n, confidence) for k in range(n + 1)]
    for fewer, more in itertools.pairwise(found):
        assert fewer.lower <= more.lower and fewer.upper <= more.upper


@given(COUNTS, st.sampled_from([(0.5, 0.8), (0.9, 0.95), (0.95, 0.9999)]))
def test_more_confidence_never_narrows_wilson(count: tuple[int, int], levels: tuple[float, float]) -> None:
    narrow, wide = (wilson(*count, level) for level in levels)
    assert wide.lower <= narrow.lower and narrow.upper <= wide.upper


@pytest.mark.parametrize(("successes", "n"), [(0, 0), (1, 0), (-1, 10), (11, 10), (-5, -5)])
def test_wilson_refuses_what_is_no_proportion(successes: int, n: int) -> None:
    with pytest.raises(ValueError, match="not a proportion"):
        wilson(successes, n, 0.95)


@pytest.mark.parametrize(("n", "p"), [(200, 0.85), (50, 0.85)])
def test_a_model_at_the_limit_passes_about_as_seldom_as_the_confidence_says(n: int, p: float) -> None:
    """Exactly, by summing the binomial: the chance that the lower bound exceeds the true value."""
    chance = sum(math.comb(n, k) * p**k * (1 - p) ** (n - k) for k in range(n + 1) if wilson(k, n, 0.95).lower > p)
    assert 0.02 < chance < 0.06


# -- Student t ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("confidence", "degrees", "table"),
    [(0.95, 19, 1.729), (0.975, 19, 2.093), (0.975, 30, 2.042), (0.99, 19, 2.539), (0.995, 24, 2.797)],
)
def test_t_quantiles_are_those_of_the_printed_tables(confidence: float, degrees: int, table: float) -> None:
    assert round(t_quantile(confidence, degrees), 3) == table


@pytest.mark.parametrize(
    ("confidence", "error"), [(0.8, 2e-5), (0.95, 2e-5), (0.975, 2e-5), (0.99, 1e-4), (0.9999, 3e-3)]
)
def test_t_quantile_is_as_exact_as_it_says_at_its_smallest_sample(confidence: float, error: float) -> None:
    """Against Simpson's rule on the density of t with 19 degrees of freedom, inverted by bisection."""
    v, steps = 19, 2000
    scale = math.gamma((v + 1) / 2) / (math.sqrt(v * math.pi) * math.gamma(v / 2))

    def below(t: float) -> float:
        h = t / steps
        heights = [(1 + (i * h) ** 2 / v) ** (-(v + 1) / 2) for i in range(steps + 1)]
        return 0.5 + scale * h / 3 * (heights[0] + heights[-1] + 4 * sum(heights[1:-1:2]) + 2 * sum(heights[2:-1:2]))

    low, high = 0.0, 10.0
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if below(middle) < confidence else (low, middle)
    assert abs(t_quantile(confidence, v) - low) < error


def test_t_approaches_the_normal_quantile_from_above() -> None:
    assert t_quantile(0.95, 20) > t_quantile(0.95, 100) > z_quantile(0.95)
    assert t_quantile(0.95, 10**9) == pytest.approx(z_quantile(0.95))


# -- sums ------------------------------------------------------------------------------------------------------------


def test_moments_are_plain_sums() -> None:
    found = moments([(2.0, 3.0), (4.0, 5.0)])
    assert (found.clusters, found.x, found.n, found.xx, found.xn, found.nn) == (2, 6.0, 8.0, 20.0, 26.0, 34.0)
    assert moments([]).clusters == 0


# -- ratio over clusters ------------------------------------------------------------------------------------------


def test_the_clustered_ratio_is_the_hand_computation() -> None:
    """Ten conversations of 10 tokens with 10 nats, ten of 10 tokens with 30: r = 2, each residual is 10."""
    found = clustered_ratio(moments([(10.0, 10.0), (30.0, 10.0)] * 10), 0.95)
    error = math.sqrt(20 / 19 * 20 * 10**2) / 200
    assert found.value == 2.0
    assert found.upper - found.value == pytest.approx(1.729132812 * error, rel=1e-5)  # t for 19 degrees, from tables
    assert found.value - found.lower == pytest.approx(found.upper - found.value)


def test_long_conversations_weigh_by_their_tokens() -> None:
    found = clustered_ratio(moments([(300.0, 100.0)] + [(10.0, 10.0)] * 19), 0.95)
    assert found.value == pytest.approx((300 + 190) / (100 + 190))


def test_equal_clusters_leave_no_uncertainty() -> None:
    found = clustered_ratio(moments([(0.1 * 7, 7.0)] * 30), 0.95)
    assert found.upper - found.lower < 1e-6 and found.value == pytest.approx(0.1)


@given(st.lists(st.tuples(st.floats(0, 1e4), st.integers(1, 4000)), min_size=20, max_size=60), CONFIDENCE)
def test_any_real_scores_have_an_interval_that_holds_their_ratio(
    scores: list[tuple[float, int]], confidence: float
) -> None:
    found = clustered_ratio(moments([(x, float(n)) for x, n in scores]), confidence)
    assert found.lower <= found.value <= found.upper
    assert found.value == pytest.approx(math.fsum(x for x, _ in scores) / sum(n for _, n in scores))


@pytest.mark.parametrize("clusters", [0, 1, 19])
def test_fewer_than_twenty_conversations_cannot_bear_an_interval(clusters: int) -> None:
    with pytest.raises(ValueError, match="20 are needed"):
        clustered_ratio(moments([(10.0 + i, 10.0) for i in range(clusters)]), 0.95)


GOOD = moments([(20.0 + i % 3, 20.0) for i in range(30)])


@pytest.mark.parametrize("field", ["x", "n", "xx", "xn", "nn"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_sums_that_are_not_finite_have_no_interval(field: str, value: float) -> None:
    with pytest.raises(ValueError):
        clustered_ratio(_replaced(**{field: value}), 0.95)


@pytest.mark.parametrize(
    "changes",
    [
        {"n": 0.0},
        {"n": -600.0},
        {"nn": 0.0},
        {"nn": 0.0, "xn": 0.0},
        {"nn": -1.0},
        {"xx": 0.0},
        {"xx": -1.0},
        {"xn": 1e9},
        {"xn": 1e308},
    ],
)
def test_sums_that_no_data_can_have_never_make_an_interval_without_width(changes: dict[str, float]) -> None:
    assert clustered_ratio(GOOD, 0.95).upper > clustered_ratio(GOOD, 0.95).value
    with pytest.raises(ValueError):
        clustered_ratio(_replaced(**changes), 0.95)


def test_the_upper_bound_of_clustered_scores_covers_the_truth_as_often_as_it_says() -> None:
    """Conversations of uneven length whose tokens share an effect: an interval over tokens would cover far less."""
    rng = random.Random(20260101)
    covered, repetitions = 0, 400
    for _ in range(repetitions):
        pairs = []
        for _ in range(40):
            n = float(rng.randint(10, 30))
            pairs.append((n * rng.gauss(2.0, 0.4), n))
        covered += clustered_ratio(moments(pairs), 0.95).upper >= 2.0
    assert 0.92 <= covered / repetitions <= 0.98


def test_exp_of_what_no_float_holds_is_infinity() -> None:
    found = exponential(clustered_ratio(moments([(1e4 + i, 10.0) for i in range(20)]), 0.95))
    assert found == (math.inf, math.inf, math.inf)
    assert exponential(clustered_ratio(moments([(0.0, 10.0)] * 20), 0.95)) == (1.0, 1.0, 1.0)


def _replaced(**changes: float) -> Moments:
    values = {name: getattr(GOOD, name) for name in GOOD.__struct_fields__}
    return Moments(**{**values, **changes})


# -- Tango --------------------------------------------------------------------------------------------------------


def test_tango_gives_the_interval_that_fagerland_published_in_2014() -> None:
    """Airway hyper-responsiveness before and after stem cell transplantation (Bentur 2009): 1 and 7 flips of 21."""
    found = tango(21, lost=7, gained=1, confidence=TWO_SIDED_95)
    assert tuple(round(bound, 3) for bound in found) == (-0.286, -0.517, -0.026)


@pytest.mark.parametrize("n", [1, 10, 600])
def test_without_flips_tango_has_a_closed_form(n: int) -> None:
    """The score equation with no flips is n d² = -z² d (1 + d), hence d = -z²/(n + z²)."""
    z = z_quantile(0.95)
    found = tango(n, 0, 0, 0.95)
    assert found == (0.0, pytest.approx(-z * z / (n + z * z)), pytest.approx(z * z / (n + z * z)))


@pytest.mark.parametrize(("n", "lost", "gained"), [(44, 1, 0), (200, 6, 4), (600, 30, 5), (50, 20, 25), (30, 0, 7)])
def test_tango_inverts_the_score_with_the_most_likely_nuisance_parameter(n: int, lost: int, gained: int) -> None:
    """The estimate of the chance to lose, constrained to the difference, here by search instead of by formula."""
    z = z_quantile(0.95)
    found = tango(n, lost, gained, 0.95)
    for bound, sign in ((found.lower, 1), (found.upper, -1)):

        def likelihood(q: float, d: float = bound) -> float:
            chances = ((lost, q), (gained, q + d), (n - lost - gained, 1 - 2 * q - d))
            if any(p < 0 for _, p in chances):
                return -math.inf
            return sum(count * (math.log(p) if p > 0 else -math.inf) for count, p in chances if count)

        low, high = max(0.0, -bound), (1 - bound) / 2
        for _ in range(200):
            third = (high - low) / 3
            low, high = (
                (low + third, high) if likelihood(low + third) < likelihood(high - third) else (low, high - third)
            )
        variance = n * (2 * low + bound - bound**2)
        assert (gained - lost - n * bound) / math.sqrt(variance) == pytest.approx(sign * z, abs=1e-4)


@given(PAIRS, CONFIDENCE)
def test_tango_holds_its_estimate_and_stays_between_minus_1_and_1(
    pair: tuple[int, int, int], confidence: float
) -> None:
    found = tango(*pair, confidence)
    assert -1 <= found.lower <= found.value <= found.upper <= 1
    assert found.value == (pair[2] - pair[1]) / pair[0]


@given(PAIRS)
def test_lost_and_gained_are_mirror_images(pair: tuple[int, int, int]) -> None:
    n, lost, gained = pair
    one, other = tango(n, lost, gained, 0.95), tango(n, gained, lost, 0.95)
    assert one.lower == pytest.approx(-other.upper, abs=1e-9) and one.upper == pytest.approx(-other.lower, abs=1e-9)


@pytest.mark.parametrize("n", [1, 5, 24])
def test_one_more_lost_or_one_fewer_gained_never_raises_a_bound_of_tango(n: int) -> None:
    """Every table of n pairs."""
    found = {(b, c): tango(n, b, c, 0.95) for b in range(n + 1) for c in range(n + 1 - b)}
    for (lost, gained), here in found.items():
        for worse in (found.get((lost + 1, gained)), found.get((lost, gained - 1))):
            if worse is not None:
                assert worse.lower <= here.lower + 1e-12 and worse.upper <= here.upper + 1e-12


@pytest.mark.parametrize(("n", "lost", "gained"), [(0, 0, 0), (10, -1, 0), (10, 0, -1), (10, 6, 5), (-1, 0, 0)])
def test_tango_refuses_what_is_no_paired_count(n: int, lost: int, gained: int) -> None:
    with pytest.raises(ValueError, match="not a paired count"):
        tango(n, lost, gained, 0.95)


def test_an_adapter_that_forgets_exactly_the_margin_passes_about_as_seldom_as_the_confidence_says() -> None:
    """Exactly, over all tables of 150 pairs: 10 % lost, 5 % gained, against a margin of 5 %."""
    n, p_lost, p_gained = 150, 0.10, 0.05
    chance = 0.0
    for lost in range(n + 1):
        for gained in range(n + 1 - lost):
            if not 2 <= lost <= 35 or gained > 22:  # the rest has a chance below 1e-6
                continue
            if tango(n, lost, gained, 0.95).lower > -0.05:
                rest = n - lost - gained
                ways = math.comb(n, lost) * math.comb(n - lost, gained)
                chance += ways * p_lost**lost * p_gained**gained * (1 - p_lost - p_gained) ** rest
    assert 0.03 < chance < 0.065


# -- coverage: a bound holds the truth as often as it says ---------------------------------------------------------

NOMINAL, POINT = 0.95, 0.01


def chance_of(counts: tuple[int, ...], chances: tuple[float, ...]) -> float:
    """The chance of these counts in a multinomial draw."""
    logs = (k * math.log(p) - math.lgamma(k + 1) for k, p in zip(counts, chances, strict=True))
    return math.exp(math.lgamma(sum(counts) + 1) + math.fsum(logs))


@pytest.mark.parametrize("n", [100, 200, 600])
def test_the_bounds_of_wilson_cover_as_often_as_they_say(n: int) -> None:
    """Exactly, averaged over true proportions from 5 to 95 %; no single one is off by more than three points."""
    found = [wilson(k, n, NOMINAL) for k in range(n + 1)]
    below, above = [], []
    for p in (i / 100 for i in range(5, 96)):
        weights = [chance_of((k, n - k), (p, 1 - p)) for k in range(n + 1)]
        below.append(math.fsum(w for w, one in zip(weights, found, strict=True) if one.lower <= p))
        above.append(math.fsum(w for w, one in zip(weights, found, strict=True) if one.upper >= p))
    for coverage in (below, above):
        assert abs(math.fsum(coverage) / len(coverage) - NOMINAL) < POINT
        assert min(coverage) > NOMINAL - 3 * POINT


def test_the_bounds_of_tango_cover_as_often_as_they_say() -> None:
    """Exactly, over all 1,891 tables of 60 pairs, averaged over chances to lose and to gain from 2 to 30 %."""
    n = 60
    tables = {(b, c): tango(n, b, c, NOMINAL) for b in range(n + 1) for c in range(n + 1 - b)}
    below, above = [], []
    for lose, gain in itertools.product((0.02, 0.05, 0.1, 0.15, 0.2, 0.3), repeat=2):
        chances, truth = (lose, gain, 1 - lose - gain), gain - lose
        weights = {table: chance_of((*table, n - sum(table)), chances) for table in tables}
        below.append(math.fsum(w for table, w in weights.items() if tables[table].lower <= truth))
        above.append(math.fsum(w for table, w in weights.items() if tables[table].upper >= truth))
    for coverage in (below, above):
        assert abs(math.fsum(coverage) / len(coverage) - NOMINAL) < POINT
        assert min(coverage) > NOMINAL - 3 * POINT


def test_the_bounds_of_a_ratio_over_uneven_conversations_cover_as_often_as_they_say() -> None:
    """Seeded: 4,000 samples of 100 conversations of 5 to 120 tokens (standard error of a coverage: 0.34 points)."""
    rng = random.Random(20260101)
    below = above = 0
    samples = 4000
    for _ in range(samples):
        sizes = [float(rng.randint(5, 120)) for _ in range(100)]
        found = clustered_ratio(moments([(n * rng.gauss(2.0, 0.5), n) for n in sizes]), NOMINAL)
        below += found.lower <= 2.0
        above += found.upper >= 2.0
    assert abs(below / samples - NOMINAL) < POINT and abs(above / samples - NOMINAL) < POINT


@pytest.mark.parametrize(("clusters", "covered"), [(20, 0.893), (100, 0.924)])
def test_over_skewed_conversations_the_upper_bound_covers_less_often_than_it_says(
    clusters: int, covered: float
) -> None:
    """As docs/policy.md says. Seeded: 4,000 samples of conversations of 5 to 120 tokens, nats per token lognormal.

    With sigma 0.5, a few conversations are much harder than the rest; samples without them have too low a bound.
    """
    rng = random.Random(20260102)
    truth, samples = math.exp(0.5**2 / 2), 4000
    above = 0
    for _ in range(samples):
        sizes = [float(rng.randint(5, 120)) for _ in range(clusters)]
        found = clustered_ratio(moments([(n * rng.lognormvariate(0.0, 0.5), n) for n in sizes]), NOMINAL)
        above += found.upper >= truth
    assert above / samples == pytest.approx(covered, abs=0.012)


# -- binomial tail ------------------------------------------------------------------------------------------------


@given(st.integers(0, 300), st.data())
def test_the_binomial_tail_falls_from_one_to_nothing(n: int, data: st.DataObject) -> None:
    p = data.draw(st.floats(0, 1))
    tail = [binomial_at_least(k, n, p) for k in range(n + 2)]
    assert tail[0] == 1.0 and tail[-1] == 0.0
    assert all(0.0 <= more <= fewer + 1e-12 for fewer, more in itertools.pairwise(tail[:-1]))


@pytest.mark.parametrize(("least", "n", "p"), [(3, 10, 0.3), (179, 200, 0.85), (1, 40, 0.001), (20, 20, 0.9)])
def test_the_binomial_tail_is_the_sum_of_its_terms(least: int, n: int, p: float) -> None:
    plain = sum(math.comb(n, k) * p**k * (1 - p) ** (n - k) for k in range(least, n + 1))
    assert binomial_at_least(least, n, p) == pytest.approx(plain, rel=1e-10)
