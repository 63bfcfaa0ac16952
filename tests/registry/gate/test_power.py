"""What a suite's size can show, held against the gate's own statistics."""

import random

import pytest

from registry.gate.power import POWER, accuracy_power, forgetting_items
from registry.gate.statistics import binomial_at_least, tango, wilson
from registry.records import AccuracyRule

RULE = AccuracyRule(min=0.85)


@pytest.mark.parametrize("n", [50, 200, 743])
def test_the_least_that_must_be_right_is_where_the_gate_turns(n: int) -> None:
    found = accuracy_power(n, RULE)
    assert found is not None
    assert wilson(found.least_right, n, 0.95).lower >= 0.85 > wilson(found.least_right - 1, n, 0.95).lower


def test_a_model_of_the_stated_accuracy_passes_in_the_stated_share_of_runs() -> None:
    found = accuracy_power(200, RULE)
    assert found is not None
    draw = random.Random(1)
    runs = [sum(draw.random() < found.reaches for _ in range(200)) >= found.least_right for _ in range(4000)]
    assert sum(runs) / len(runs) == pytest.approx(POWER, abs=0.03)


# Right answers needed, accuracy that gets there in 80 % of runs, and P(pass) at a true accuracy of 85 and of 90 %.
PLANNED = [
    (100, 91, 0.927, 0.055, 0.451),
    (150, 135, 0.916, 0.049, 0.568),
    (200, 179, 0.909, 0.041, 0.648),
    (300, 266, 0.900, 0.041, 0.809),
    (500, 439, 0.889, 0.043, 0.954),
]


@pytest.mark.parametrize(("n", "least", "reaches", "at_85", "at_90"), PLANNED)
def test_sizes_of_a_suite_of_questions_have_the_power_that_was_planned(
    n: int, least: int, reaches: float, at_85: float, at_90: float
) -> None:
    found = accuracy_power(n, RULE)
    assert found is not None and found.least_right == least
    assert found.reaches == pytest.approx(reaches, abs=1.1e-3)
    assert binomial_at_least(least, n, 0.85) == pytest.approx(at_85, abs=6e-4)
    assert binomial_at_least(least, n, 0.90) == pytest.approx(at_90, abs=6e-4)


@pytest.mark.parametrize(
    ("margin", "flips", "items"),
    [
        (0.05, 0.05, 124),
        (0.05, 0.10, 248),
        (0.05, 0.15, 371),
        (0.03, 0.05, 344),
        (0.03, 0.10, 687),
        (0.03, 0.15, 1031),
        (0.02, 0.05, 773),
        (0.02, 0.10, 1546),
    ],
)
def test_a_margin_needs_the_items_that_were_planned(margin: float, flips: float, items: int) -> None:
    """(z.95 + z.80)² · flips / margin², rounded up, or to the next item in the printed table."""
    assert forgetting_items(margin, 0.95, flips) in (items, items + 1)


@pytest.mark.parametrize(("n", "minimum"), [(1, 0.85), (10, 0.85), (200, 1.0)])
def test_too_few_items_are_said_to_be_too_few(n: int, minimum: float) -> None:
    assert accuracy_power(n, AccuracyRule(min=minimum)) is None


def test_a_harmless_adapter_passes_the_margin_in_the_stated_share_of_runs() -> None:
    n = forgetting_items(0.05, 0.95, 0.2)
    draw = random.Random(2)
    passed = 0
    for _ in range(1500):
        flips = [draw.random() for _ in range(n)]
        lost, gained = sum(x < 0.1 for x in flips), sum(0.1 <= x < 0.2 for x in flips)
        passed += tango(n, lost, gained, 0.95).lower > -0.05
    assert passed / 1500 == pytest.approx(POWER, abs=0.04)


@pytest.mark.parametrize(("n", "minimum", "least"), [(200, 0.85, 170), (10, 0.85, 9), (1, 1.0, 1), (10, 0.0, 0)])
def test_under_the_point_rule_the_share_itself_must_be_reached(n: int, minimum: float, least: int) -> None:
    found = accuracy_power(n, AccuracyRule(min=minimum, rule="point"))
    assert found is not None and found.least_right == least
