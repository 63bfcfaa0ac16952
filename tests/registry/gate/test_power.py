"""What a suite's size can show, held against the gate's own statistics."""

import random

import pytest

from registry.gate.power import POWER, accuracy_power, forgetting_items
from registry.gate.statistics import tango, wilson


@pytest.mark.parametrize("n", [50, 200, 743])
def test_the_least_that_must_be_right_is_where_the_gate_turns(n: int) -> None:
    found = accuracy_power(n, 0.85, 0.95)
    assert found is not None
    assert wilson(found.least_right, n, 0.95).lower >= 0.85 > wilson(found.least_right - 1, n, 0.95).lower


def test_a_model_of_the_stated_accuracy_passes_in_the_stated_share_of_runs() -> None:
    found = accuracy_power(200, 0.85, 0.95)
    assert found is not None
    draw = random.Random(1)
    runs = [sum(draw.random() < found.reaches for _ in range(200)) >= found.least_right for _ in range(4000)]
    assert sum(runs) / len(runs) == pytest.approx(POWER, abs=0.03)


@pytest.mark.parametrize(("n", "minimum"), [(1, 0.85), (10, 0.85), (200, 1.0)])
def test_too_few_items_are_said_to_be_too_few(n: int, minimum: float) -> None:
    assert accuracy_power(n, minimum, 0.95) is None


def test_a_harmless_adapter_passes_the_margin_in_the_stated_share_of_runs() -> None:
    n = forgetting_items(0.05, 0.95, 0.2)
    draw = random.Random(2)
    passed = 0
    for _ in range(1500):
        flips = [draw.random() for _ in range(n)]
        lost, gained = sum(x < 0.1 for x in flips), sum(0.1 <= x < 0.2 for x in flips)
        passed += tango(n, lost, gained, 0.95).lower > -0.05
    assert passed / 1500 == pytest.approx(POWER, abs=0.04)
