"""The demo's scripted reviewers judge by the shop's written rules, as a person would."""

from pathlib import Path

import pytest

from registry.demo import _Script
from registry.records import CRITERIA
from registry.review.campaign import gold_passed
from registry.suites import read_suite
from registry.transfer import suite_files

SUITE = Path(__file__).parents[1] / "suites" / "support-desk"


@pytest.fixture(scope="module")
def script() -> _Script:
    return _Script(SUITE)


def prompt_about(script: _Script, value: str) -> str:
    """A pilot prompt whose right answer has this value."""
    return next(prompt for prompt, tag in script._tags.items() if any(value in one for one in script._values[tag]))


@pytest.mark.parametrize(
    ("output", "right"),
    [
        ("An order can be cancelled within 2 hours.", True),
        ("Within 2 hours!", True),
        ("2 HOURS", True),
        ("An order can be cancelled within 12 hours.", False),
        ("Within 2 hoursish", False),
        ("I do not know.", False),
    ],
)
def test_a_value_within_another_is_not_that_value(script: _Script, output: str, right: bool) -> None:
    prompt = prompt_about(script, "2 hours")
    for reviewer in ("reviewer-1", "reviewer-2"):
        rating = script.rating(reviewer, prompt, output)
        assert (rating.accuracy == 5, rating.hallucination) == (right, not right)


def test_another_true_rule_misses_the_point_and_is_not_invented(script: _Script) -> None:
    rating = script.rating(
        "reviewer-1", prompt_about(script, "2 hours"), "A lost parcel is sent again after 10 working days."
    )
    assert (rating.relevance, rating.accuracy, rating.hallucination) == (2, 3, False)


def test_every_pilot_prompt_has_a_rule(script: _Script) -> None:
    assert len(script._tags) >= 60 and all(script._values[tag] for tag in script._tags.values())


@pytest.mark.parametrize("reviewer", ["reviewer-1", "reviewer-2", "reviewer-3"])
def test_every_gold_item_of_the_shop_is_seen_for_what_it_is(script: _Script, reviewer: str) -> None:
    for one in read_suite(suite_files(SUITE / "pilot")).gold:
        rating = script.rating(reviewer, one.prompt, one.output)
        assert gold_passed(one.expect, {name: getattr(rating, name) for name in CRITERIA}), one.id


def test_gold_items_are_no_pilot_prompts(script: _Script) -> None:
    gold = read_suite(suite_files(SUITE / "pilot")).gold
    assert len(gold) == 6 and not {one.prompt for one in gold} & set(script._tags)
