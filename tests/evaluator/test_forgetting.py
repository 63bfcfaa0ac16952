"""Paired counts: what was known before and is not any more, and the other way round."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluator.forgetting import summarise


def test_losses_and_gains_are_counted_item_by_item() -> None:
    base = {"kept": True, "lost": True, "gained": False, "never": False, "lost too": True}
    candidate = {"kept": True, "lost": False, "gained": True, "never": False, "lost too": False}
    found = summarise("s", candidate, base)
    assert (found.n, found.base_correct, found.candidate_correct, found.lost, found.gained) == (5, 3, 2, 2, 1)


def test_equal_totals_can_hide_a_lot_of_forgetting() -> None:
    base = {str(i): i < 50 for i in range(100)}
    candidate = {str(i): i >= 50 for i in range(100)}
    found = summarise("s", candidate, base)
    assert found.base_correct == found.candidate_correct == 50
    assert (found.lost, found.gained) == (50, 50)


def test_an_item_that_the_base_was_not_asked_is_an_error() -> None:
    with pytest.raises(KeyError):
        summarise("s", {"a": True, "b": True}, {"a": True})


@given(st.lists(st.tuples(st.booleans(), st.booleans()), max_size=30))
def test_the_counts_agree_with_each_other(pairs: list[tuple[bool, bool]]) -> None:
    base = {str(i): before for i, (before, _) in enumerate(pairs)}
    candidate = {str(i): after for i, (_, after) in enumerate(pairs)}
    found = summarise("s", candidate, base)
    assert found.candidate_correct - found.base_correct == found.gained - found.lost
    assert found.lost <= found.base_correct and found.lost + found.gained <= found.n == len(pairs)
