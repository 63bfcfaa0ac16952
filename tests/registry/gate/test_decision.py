"""The gate as a whole: the worst check makes the verdict, and what is not there yet, or was refused, is never go."""

import itertools

import msgspec
import pytest
from factories import SEALED, make_evidence, make_perplexity, make_ratings, make_subject
from gate_under_test import KINDS, altered, check, judged, only

from registry.gate.decision import RULES, decide, verdict_of
from registry.records import GateReport, ReviewFacts, Status, Verdict


def test_evidence_that_satisfies_the_policy_is_go_with_every_check_in_order() -> None:
    report = judged()
    assert report.verdict is Verdict.GO
    assert [one.kind for one in report.checks] == KINDS
    assert {one.status for one in report.checks} == {Status.PASS}
    assert report.evaluated_with == make_evidence().engine
    assert all(one.reason and one.required for one in report.checks)


def test_every_kind_of_the_contract_has_one_rule() -> None:
    assert [rule.__name__ for rule in RULES] == KINDS


def test_nothing_measured_is_pending_not_go() -> None:
    report = decide(make_subject(), None, make_ratings(), SEALED)
    assert report.verdict is Verdict.PENDING and report.evaluated_with is None
    assert {one.kind for one in report.checks if one.status is Status.PENDING} == set(KINDS[2:])


@pytest.mark.parametrize("length", [1, 2, 3])
def test_the_worst_status_makes_the_verdict(length: int) -> None:
    blank = check(judged(), "effect")
    for statuses in itertools.product(Status, repeat=length):
        verdict = verdict_of([altered(blank, status=status) for status in statuses])
        if Status.FAIL in statuses:
            assert verdict is Verdict.NO_GO
        elif {Status.INCONCLUSIVE, Status.INVALID} & set(statuses):
            assert verdict is Verdict.INCONCLUSIVE
        elif Status.PENDING in statuses:
            assert verdict is Verdict.PENDING
        else:
            assert verdict is Verdict.GO


def test_no_checks_at_all_are_not_go() -> None:
    assert verdict_of([]) is not Verdict.GO


def test_a_report_is_plain_json_even_when_a_number_is_not_finite() -> None:
    report = judged(perplexity=make_perplexity(nll=800.0))
    text = msgspec.json.encode(report)
    assert msgspec.json.decode(text, type=GateReport) == report
    assert check(report, "perplexity").observed["value"] is None
    assert report.verdict is Verdict.NO_GO


def test_a_failed_evaluation_is_explained_in_every_check_that_it_left_open() -> None:
    report = decide(make_subject(failure="No space left on device"), None, [], ReviewFacts())
    open_checks = [one for one in report.checks if one.status is Status.INVALID]
    assert report.verdict is Verdict.INCONCLUSIVE
    assert {one.kind for one in open_checks} >= {"effect", "perplexity", "accuracy", "forgetting", "contamination"}
    assert all("No space left on device" in one.reason for one in open_checks)


def test_a_version_that_a_release_manager_rejected_is_no_go_and_says_why() -> None:
    report = decide(make_subject(rejected="rude to people who ask twice"), make_evidence(), make_ratings(), SEALED)
    assert report.verdict is Verdict.NO_GO
    assert (
        only(report, "inspection", Status.FAIL).reason == "rejected by a release manager: rude to people who ask twice"
    )


def test_a_revoked_version_is_no_go_whatever_was_measured() -> None:
    report = decide(make_subject(revoked=True), make_evidence(), make_ratings(), SEALED)
    assert report.verdict is Verdict.NO_GO and check(report, "inspection").status is Status.FAIL


def test_an_upload_that_is_not_complete_is_pending() -> None:
    report = decide(make_subject(sealed=False), make_evidence(), make_ratings(), SEALED)
    assert report.verdict is Verdict.PENDING and only(report, "inspection", Status.PENDING)
