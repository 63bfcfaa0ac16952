"""Stopping early: only where every possible rest still fails, so that it is the full run's verdict, sooner."""

import itertools
import random

import msgspec
import pytest
from factories import SEALED, make_evidence, make_policy, make_ratings, make_row, make_subject, pinned
from hypothesis import given, settings
from hypothesis import strategies as st

from registry.gate.curtail import accuracy_is_lost, forgetting_is_lost
from registry.gate.decision import decide
from registry.gate.limits import LEAST_KNOWN, judge_accuracy, judge_forgetting
from registry.gate.statistics import wilson
from registry.gate.summary import summarise
from registry.records import AccuracyRule, Check, ForgettingRule, ItemRow, Status, Verdict

pytestmark = pytest.mark.slow

RULES = st.builds(
    AccuracyRule,
    min=st.sampled_from([0.0, 0.3, 0.5, 0.85, 0.95, 1.0]),
    rule=st.sampled_from(["lower_bound", "point"]),
    confidence=st.sampled_from([0.5, 0.8, 0.95]),
)
MARGINS = st.builds(
    ForgettingRule, margin=st.sampled_from([0.0, 0.02, 0.05, 0.2]), confidence=st.sampled_from([0.5, 0.8, 0.95])
)


# -- the functions ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 2, 7, 20])
@given(rule=RULES)
@settings(max_examples=12, deadline=None)
def test_an_accuracy_is_lost_exactly_where_every_rest_fails(size: int, rule: AccuracyRule) -> None:
    for right in range(size + 1):
        for wrong in range(size + 1 - right):
            rest = size - right - wrong
            ends = {judge_accuracy(rule, right + more, size).status for more in range(rest + 1)}
            assert accuracy_is_lost(rule, size, right, wrong) == (ends == {Status.FAIL})


@pytest.mark.parametrize("size", [1, 4, 7])
@given(rule=MARGINS)
@settings(max_examples=6, deadline=None)
def test_a_forgetting_is_lost_exactly_where_every_rest_fails(size: int, rule: ForgettingRule) -> None:
    """Of the rest, what the base gets wrong may be gained, and what it gets right may be lost."""
    for lost, gained, asked in itertools.product(range(size + 1), repeat=3):
        if lost + gained > asked or asked > size:
            continue
        for open_gains, kept in itertools.product(range(size - asked + 1), range(asked - lost - gained + 1)):
            base_correct = lost + kept + size - asked - open_gains
            known = wilson(base_correct, size, rule.confidence).lower >= LEAST_KNOWN
            ends = {
                judge_forgetting(rule, size, lost + worse, gained + better).status
                for worse in range(size - asked - open_gains + 1)
                for better in range(open_gains + 1)
            }
            lost_now = forgetting_is_lost(rule, size, lost, gained, open_gains, base_correct)
            assert lost_now == (known and ends == {Status.FAIL})


@given(RULES, st.integers(1, 60), st.data())
@settings(deadline=None)
def test_a_smaller_suite_of_the_same_answers_is_lost_no_later(
    rule: AccuracyRule, size: int, data: st.DataObject
) -> None:
    """Items of the rest that turn out to be contaminated are left out; that never helps."""
    wrong = data.draw(st.integers(0, size))
    right = data.draw(st.integers(0, size - wrong))
    smaller = data.draw(st.integers(right + wrong, size))
    if accuracy_is_lost(rule, size, right, wrong):
        assert smaller == 0 or accuracy_is_lost(rule, smaller, right, wrong)


@given(MARGINS, st.integers(1, 60), st.data())
@settings(deadline=None)
def test_a_smaller_suite_of_the_same_pairs_is_lost_no_later(
    rule: ForgettingRule, size: int, data: st.DataObject
) -> None:
    lost = data.draw(st.integers(0, size))
    gained = data.draw(st.integers(0, size - lost))
    open_gains = data.draw(st.integers(0, size - lost - gained))
    fewer = data.draw(st.integers(0, open_gains))
    smaller = data.draw(st.integers(lost + gained + fewer, size))
    # The suite on which the base knows the most that these counts allow, so that what it knows decides nothing.
    if forgetting_is_lost(rule, size, lost, gained, open_gains, size - gained - open_gains, least=0.0):
        assert smaller == 0 or forgetting_is_lost(rule, smaller, lost, gained, fewer, smaller - gained - fewer, least=0)


@pytest.mark.parametrize("counts", [(10, 6, 5), (0, 1, 0), (0, 0, 1)])
def test_more_answers_than_items_are_refused(counts: tuple[int, int, int]) -> None:
    size, one, other = counts
    with pytest.raises(ValueError, match=f"the .*{size} items"):
        accuracy_is_lost(AccuracyRule(), size, one, other)
    with pytest.raises(ValueError, match=f"suite's {size} items"):
        forgetting_is_lost(ForgettingRule(), size, one, other, 0, size)


def test_an_empty_suite_is_not_lost() -> None:
    """It is invalid, which the gate says."""
    assert not accuracy_is_lost(AccuracyRule(), 0, 0, 0) and not forgetting_is_lost(ForgettingRule(), 0, 0, 0, 0, 0)


def test_a_hopeless_adapter_needs_a_fifth_of_the_questions() -> None:
    """At 200 questions and 85 %, 39 wrong answers decide; a guesser among ten gives them within about 43."""
    assert not accuracy_is_lost(AccuracyRule(), 200, 4, 38) and accuracy_is_lost(AccuracyRule(), 200, 4, 39)


# -- the gate -----------------------------------------------------------------------------------------------------

ACCURACY, FORGETTING = pinned("accuracy"), pinned("forgetting")


def answers(right: list[bool], dirty: list[bool], base: list[bool] | None = None) -> list[ItemRow]:
    """Rows of accuracy's suite, or of forgetting's where the base answered too."""
    suite = ACCURACY if base is None else FORGETTING
    rows = [
        make_row(suite, f"i{i:04}", correct=ok, contaminated=bad, prompt="q", output="a", finish="stop", n_tokens=2)
        for i, (ok, bad) in enumerate(zip(right, dirty, strict=False))
    ]
    return rows + [make_row(suite, f"i{i:04}", "base", correct=ok) for i, ok in enumerate(base or [])]


def judged(rows: list[ItemRow], size: int, **rules: dict[str, object]) -> Check:
    """The check on a suite of this size, of what these rows come to."""
    policy = make_policy(**rules)
    sections = summarise(policy, rows, "c", None)
    kind, suite = ("accuracy", ACCURACY) if sections.accuracy else ("forgetting", FORGETTING)
    subject = make_subject(policy)._replace(suite_sizes={**make_subject().suite_sizes, suite: size})
    report = decide(subject, make_evidence(**{kind: getattr(sections, kind)}), make_ratings(), SEALED)
    if report.verdict is Verdict.GO:
        assert sections.accuracy is None or sections.accuracy.n == size
    return next(check for check in report.checks if check.kind == kind)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.floats(0.2, 1.0), st.integers(20, 120), st.sampled_from([0.0, 0.1, 0.5]))
def test_a_curtailed_accuracy_that_fails_fails_in_full_whatever_the_rest(
    seed: int, skill: float, size: int, dirt: float
) -> None:
    rng = random.Random(seed)
    right, dirty = [rng.random() < skill for _ in range(size)], [rng.random() < dirt for _ in range(size)]
    full = judged(answers(right, dirty), size)
    for asked in range(1, size):
        check = judged(answers(right[:asked], dirty[:asked]), size)
        assert check.status in (Status.FAIL, Status.INVALID)
        if check.status is Status.FAIL:
            assert full.status is Status.FAIL
            assert f"stopped after {asked} of {size} items" in check.reason
            return


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.floats(0.0, 0.9), st.integers(30, 150), st.sampled_from([0.0, 0.1]))
def test_a_curtailed_forgetting_that_fails_fails_in_full_whatever_the_rest(
    seed: int, loss: float, size: int, dirt: float
) -> None:
    rng = random.Random(seed)
    base = [rng.random() < 0.8 for _ in range(size)]
    right = [rng.random() >= loss if known else rng.random() < 0.1 for known in base]
    dirty = [rng.random() < dirt for _ in range(size)]
    full = judged(answers(right, dirty, base), size)
    for asked in range(1, size):
        check = judged(answers(right[:asked], dirty[:asked], base), size)
        assert check.status in (Status.FAIL, Status.INVALID)
        if check.status is Status.FAIL:
            assert full.status is Status.FAIL
            assert f"stopped after {asked} of {size} items" in check.reason
            return


def test_a_run_that_stopped_without_need_is_invalid() -> None:
    check = judged(answers([True] * 90 + [False] * 9, [False] * 99), 100)
    assert check.status is Status.INVALID and "covers 99 of the suite's 100 items; all are needed" in check.reason


def test_a_curtailed_run_says_what_the_best_rest_would_have_come_to() -> None:
    check = judged(answers([False] * 39 + [True], [False] * 40), 200)
    assert check.status is Status.FAIL
    assert check.reason == (
        "stopped after 40 of 200 items with 1 of 40 right: with all others right too, it would be 80.5%, "
        "upper bound 84.69%; 85% needed"
    )


def test_a_curtailed_forgetting_says_what_the_best_rest_would_have_come_to() -> None:
    base = [True] * 80 + [False] * 20
    check = judged(answers([False] * 40, [False] * 40, base), 100)
    assert check.status is Status.FAIL
    assert check.reason == (
        "stopped after 40 of 100 items (40 lost, 0 gained): with nothing more lost and all 20 others gained that the "
        "base gets wrong, the change would be -20.0%, upper bound -7.4%, must stay above -5%"
    )


def test_where_the_base_knows_little_stopping_early_proves_nothing() -> None:
    base = [True] * 30 + [False] * 270
    check = judged(answers([False] * 30, [False] * 30, base), 300, forgetting={"margin": 0.0})
    assert check.status is not Status.FAIL


def test_items_still_to_be_gained_do_not_fit_a_complete_run() -> None:
    rows = answers([True] * 100, [False] * 100, [True] * 100)
    found = summarise(make_policy(), rows, "c", None).forgetting
    assert found is not None
    subject = make_subject()._replace(suite_sizes={**make_subject().suite_sizes, FORGETTING: 100})
    report = decide(
        subject, make_evidence(forgetting=msgspec.structs.replace(found, open_gains=3)), make_ratings(), SEALED
    )
    check = next(one for one in report.checks if one.kind == "forgetting")
    assert check.status is Status.INVALID and "3 items could still be gained, of 0" in check.reason
