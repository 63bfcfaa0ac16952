"""What is said about a suite before it is measured: held against the gate's own statistics and the policy's rules."""

import math
import random

import pytest

from registry.gate.power import POWER, perplexity_change, what_it_shows
from registry.gate.statistics import clustered_ratio, moments
from registry.records import AccuracyRule, ExtraRule, ForgettingRule, Policy, SuiteKind


def test_a_change_of_perplexity_of_the_stated_size_is_found_in_the_stated_share_of_runs() -> None:
    change = perplexity_change(100, 0.95)
    assert change is not None
    draw = random.Random(3)
    found = 0
    for _ in range(1500):
        clusters = [(20 * draw.gauss(math.log1p(change), 0.1), 20.0) for _ in range(100)]
        found += clustered_ratio(moments(clusters), 0.95).lower > 0
    assert found / 1500 == pytest.approx(POWER, abs=0.04)


def test_fewer_conversations_than_an_interval_needs_show_nothing() -> None:
    assert perplexity_change(19, 0.95) is None
    [line] = what_it_shows("x", SuiteKind.CONVERSATIONS, 19, Policy())
    assert "bear no interval; 20 are needed" in line
    with pytest.raises(ValueError, match="20 are needed"):
        clustered_ratio(moments([(1.0, 1.0)] * 19), 0.95)


def test_each_rule_that_names_a_suite_says_what_it_can_show() -> None:
    extra = ExtraRule(suite="refusals@sha256:" + "1" * 64, min=0.5, margin=0.1)
    shown = what_it_shows("refusals", SuiteKind.REFUSALS, 120, Policy(extra=[extra]))
    assert len(shown) == 2 and "must be right for 50%" in shown[0] and "a margin of 10%" in shown[1]
    only = what_it_shows("refusals", SuiteKind.REFUSALS, 120, Policy(extra=[ExtraRule(suite="refusals", margin=0.1)]))
    assert only == shown[1:]


def test_a_suite_that_no_rule_names_is_measured_against_the_main_limits_and_says_so() -> None:
    policy = Policy(accuracy=AccuracyRule(min=0.7), forgetting=ForgettingRule(margin=0.02))
    shown = what_it_shows("other", SuiteKind.CHOICES, 200, policy)
    assert shown[0].startswith("no rule of the policy names it") and "70%" in shown[1] and "2%" in shown[2]


def test_a_margin_of_nothing_is_said_to_be_unreachable() -> None:
    policy = Policy(forgetting=ForgettingRule(margin=0.0))
    assert "no number of items" in what_it_shows("general-knowledge", SuiteKind.QUESTIONS, 743, policy)[1]


def test_the_point_rule_asks_for_fewer_right_answers() -> None:
    for rule, least in (("lower_bound", 179), ("point", 170)):
        shown = what_it_shows(
            "support-desk/questions", SuiteKind.QUESTIONS, 200, Policy(accuracy=AccuracyRule(rule=rule))
        )
        assert shown[0].startswith(f"accuracy: {least} of 200 must be right for 85%")


def test_prompts_say_how_many_outputs_are_drawn_from_them() -> None:
    [line] = what_it_shows("support-desk/pilot", SuiteKind.PROMPTS, 60, Policy())
    assert line == "review: 50 outputs are rated, 40 of them drawn from 60 prompts"


def test_an_extra_rule_with_a_least_share_alone_says_nothing_of_a_margin() -> None:
    [line] = what_it_shows("extra", SuiteKind.CHOICES, 200, Policy(extra=[ExtraRule(suite="extra", min=0.5)]))
    assert "must be right for 50%" in line


def test_too_few_items_are_said_to_show_nothing_even_all_right() -> None:
    shown = what_it_shows("support-desk/questions", SuiteKind.QUESTIONS, 3, Policy())
    assert shown[0] == "accuracy: 3 items cannot show 85%, not even all right"


def test_enough_conversations_say_which_change_is_found() -> None:
    [line] = what_it_shows("x", SuiteKind.CONVERSATIONS, 100, Policy())
    change = perplexity_change(100, 0.95)
    assert change is not None and f"a change of {change:.1%} against the base" in line
