"""Suites that a policy adds: each of their bounds is one check more, as strict as those of the sections."""

import pytest
from factories import make_accuracy, make_contamination, make_policy, make_subject
from gate_under_test import ARITHMETIC, BOTH, KINDS, altered, check, judged_extra, named

from registry.gate.decision import decide
from registry.records import ContaminationEvidence, ExtraEvidence, ReviewFacts, Status, Verdict


def test_each_bound_of_an_extra_suite_is_one_check_more() -> None:
    report = judged_extra()
    assert report.verdict is Verdict.GO
    assert [one.name for one in report.checks[len(KINDS) :]] == ["accuracy:arithmetic", "forgetting:arithmetic"]
    assert [one.kind for one in report.checks[len(KINDS) :]] == ["accuracy", "forgetting"]
    for rule, names in ((altered(BOTH, margin=None), ["accuracy"]), (altered(BOTH, min=None), ["forgetting"])):
        assert [one.kind for one in judged_extra(rule).checks[len(KINDS) :]] == names


@pytest.mark.parametrize(
    ("numbers", "name", "status"),
    [
        ({"correct": 58}, "accuracy", Status.INCONCLUSIVE),
        ({"correct": 40}, "accuracy", Status.FAIL),
        ({"lost": 10}, "forgetting", Status.INCONCLUSIVE),
        ({"lost": 40}, "forgetting", Status.FAIL),
    ],
)
def test_an_extra_suite_is_judged_like_the_sections_of_those_names(
    numbers: dict[str, int], name: str, status: Status
) -> None:
    report = judged_extra(**numbers)
    failed = {one.name: one.status for one in report.checks if one.status is not Status.PASS}
    assert failed == {f"{name}:arithmetic": status}
    assert named(report, f"{name}:arithmetic").suite == ARITHMETIC


def test_an_extra_suite_that_was_not_measured_is_invalid() -> None:
    report = judged_extra(extra=[])
    invalid = {one.name: one.reason for one in report.checks if one.status is Status.INVALID}
    assert invalid == dict.fromkeys(("accuracy:arithmetic", "forgetting:arithmetic"), "missing from the evidence")


def test_an_extra_suite_that_was_not_compared_with_the_base_is_invalid() -> None:
    alone = ExtraEvidence(suite=ARITHMETIC, accuracy=altered(make_accuracy(80, 100), suite=ARITHMETIC))
    report = judged_extra(extra=[alone])
    assert named(report, "accuracy:arithmetic").status is Status.PASS
    assert named(report, "forgetting:arithmetic").status is Status.INVALID


def test_part_of_an_extra_suite_is_not_the_suite() -> None:
    report = judged_extra(size=101)
    assert {one.name for one in report.checks if one.status is Status.INVALID} == {
        "accuracy:arithmetic",
        "forgetting:arithmetic",
        "contamination",
    }


@pytest.mark.parametrize(("contaminated", "status"), [(5, Status.PASS), (6, Status.FAIL), (None, Status.INVALID)])
def test_an_extra_suite_must_not_be_in_the_training_data_either(contaminated: int | None, status: Status) -> None:
    one = [ContaminationEvidence(suite=ARITHMETIC, n=100, contaminated=contaminated)] if contaminated else []
    found = check(judged_extra(contamination=[*make_contamination(), *one]), "contamination")
    assert found.status is status


def test_an_extra_suite_waits_like_the_others() -> None:
    report = decide(make_subject(make_policy([BOTH])), None, [], ReviewFacts())
    assert report.verdict is Verdict.PENDING and named(report, "accuracy:arithmetic").status is Status.PENDING


@pytest.mark.parametrize(("chance", "known", "status"), [(0.0, 28, "pass"), (0.25, 28, "inconclusive")])
def test_what_guessing_gets_right_is_not_known(chance: float, known: int, status: str) -> None:
    """28 of 100 right is more than nothing among open questions, and about chance among four letters."""
    report = judged_extra(lost=0, gained=0, base_correct=known, chance=chance)
    assert named(report, "forgetting:arithmetic").status == status


def test_a_base_and_an_adapter_that_always_answer_the_same_letter_forget_nothing_and_show_nothing() -> None:
    report = judged_extra(lost=0, gained=0, base_correct=30, chance=0.3)
    found = named(report, "forgetting:arithmetic")
    assert found.status is Status.INCONCLUSIVE and "44% needed" in found.reason
    assert named(judged_extra(lost=0, gained=0, chance=0.3), "forgetting:arithmetic").status is Status.PASS
