"""Sums over conversations, from which the registry recomputes perplexity and its interval."""

import math

import pytest

from evaluator.perplexity import summarise
from evaluator.results import Measured


def measured(*pairs: tuple[float, int]) -> dict[str, Measured]:
    return {f"c{i}": Measured(f"c{i}", nats, tokens) for i, (nats, tokens) in enumerate(pairs)}


def test_the_mean_is_over_tokens_not_over_conversations() -> None:
    found = summarise("s", measured((10.0, 10), (90.0, 30)), measured((20.0, 10), (60.0, 30)))
    assert (found.candidate.clusters, found.candidate.x, found.candidate.n) == (2, 100.0, 40.0)
    assert math.exp(found.candidate.x / found.candidate.n) == pytest.approx(math.exp(2.5))
    assert (found.base.x, found.base.n) == (80.0, 40.0)


def test_the_difference_is_paired_conversation_by_conversation() -> None:
    found = summarise("s", measured((10.0, 10), (90.0, 30)), measured((20.0, 10), (60.0, 30)))
    assert found.difference.x == pytest.approx(20.0)
    assert found.difference.xx == pytest.approx(10.0**2 + 30.0**2)
    assert found.difference.xn == pytest.approx(-10.0 * 10 + 30.0 * 30)
    assert found.difference.nn == 10.0**2 + 30.0**2


def test_the_order_of_the_items_does_not_matter() -> None:
    pairs = [(float(i) / 7, i + 1) for i in range(50)]
    forth = measured(*pairs)
    back = dict(reversed(forth.items()))
    assert summarise("s", forth, forth) == summarise("s", back, back)


def test_sums_do_not_drift() -> None:
    found = summarise("s", measured(*[(0.1, 1)] * 1000), measured(*[(0.1, 1)] * 1000))
    assert found.candidate.x == 100.0 and found.difference.xx == 0.0


def test_an_item_that_the_base_lacks_is_an_error_not_a_number() -> None:
    with pytest.raises(KeyError):
        summarise("s", measured((1.0, 1), (2.0, 1)), measured((1.0, 1)))
