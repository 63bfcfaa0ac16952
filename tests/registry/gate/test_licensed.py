"""Where a policy demands licensed review, a version passes only if every row that trained is known to have had one."""

from typing import Any

import msgspec
import pytest
from factories import SEALED, make_evidence, make_policy, make_ratings, make_subject
from gate_under_test import KINDS, check, only
from hypothesis import given
from hypothesis import strategies as st

from registry.gate.decision import decide
from registry.gate.policy import policy_digest
from registry.gate.recompute import recompute, subject_of
from registry.records import Bundle, GateReport, LedgerReviews, Status, Verdict

DEMANDED = make_policy(provenance={"licensed_review": True})
WITHOUT_RECORD = make_policy(provenance={"licensed_review": True, "require_training_record": False})
ALL = LedgerReviews(trained=500, licensed=500)


def judged(reviews: LedgerReviews | None, policy: Any = DEMANDED, **subject: Any) -> GateReport:
    """The report on evidence that satisfies everything else."""
    return decide(make_subject(policy, reviews=reviews, **subject), make_evidence(), make_ratings(), SEALED)


def test_a_version_all_of_whose_rows_were_reviewed_by_licensed_people_passes() -> None:
    report = judged(ALL)
    found = check(report, "licensed_review")
    assert report.verdict is Verdict.GO and found.status is Status.PASS
    assert (found.required, found.observed) == ({"licensed_review": True}, {"trained": 500, "licensed": 500})


@pytest.mark.parametrize(
    ("reviews", "said"),
    [
        (LedgerReviews(trained=500, licensed=499, without=("line 12",)), ["1 of 500 rows", "line 12", "data trace"]),
        (LedgerReviews(trained=500, licensed=0), ["500 of 500 rows", "support-bot/1"]),
        (LedgerReviews(), ["names no row that trained", "README.md"]),
        (LedgerReviews(trained=0, licensed=3), ["names no row that trained"]),
        (LedgerReviews(trained=9, licensed=9, problem="its ledger cannot be read"), ["cannot be read", "README.md"]),
    ],
)
def test_one_row_without_or_nothing_that_shows_it_is_a_refusal_with_a_remedy(
    reviews: LedgerReviews, said: list[str]
) -> None:
    report = judged(reviews)
    found = only(report, "licensed_review", Status.FAIL)
    assert report.verdict is Verdict.NO_GO and all(word in found.reason for word in said), found.reason


def test_a_version_that_was_pushed_without_a_ledger_fails_even_where_no_record_is_asked_for() -> None:
    """Also where counts came from nowhere: only a ledger can show it."""
    for reviews in (None, ALL):
        report = judged(reviews, WITHOUT_RECORD, has_training_record=False)
        assert "--run DIRECTORY" in check(report, "licensed_review").reason
        assert report.verdict is Verdict.NO_GO and check(report, "provenance").status is Status.PASS


def test_a_version_that_was_sealed_before_reviews_were_counted_is_not_judged() -> None:
    report = judged(None)
    assert "before reviews were counted" in only(report, "licensed_review", Status.INVALID).reason
    assert report.verdict is Verdict.INCONCLUSIVE


def test_before_the_seal_it_is_pending() -> None:
    report = judged(None, sealed=False)
    assert check(report, "licensed_review").status is Status.PENDING and report.verdict is Verdict.PENDING


@pytest.mark.parametrize("reviews", [None, ALL, LedgerReviews(), LedgerReviews(trained=5, licensed=1, problem="p")])
def test_a_policy_that_does_not_ask_has_the_very_report_that_it_had(reviews: LedgerReviews | None) -> None:
    silent = judged(reviews, make_policy())
    assert [one.kind for one in silent.checks] == KINDS
    assert msgspec.json.encode(silent) == msgspec.json.encode(judged(None, make_policy()))


@given(st.integers(0, 50), st.integers(0, 50), st.integers(0, 50), st.booleans())
def test_taking_a_valid_review_away_never_turns_a_refusal_into_a_pass(
    licensed: int, others: int, lost: int, row_too: bool
) -> None:
    """Be it that a review turns out void, or that its whole row is gone from the ledger."""
    lost = min(lost, licensed)
    before = LedgerReviews(trained=licensed + others, licensed=licensed)
    after = LedgerReviews(trained=before.trained - lost * row_too, licensed=licensed - lost)
    if judged(after).verdict is Verdict.GO:
        assert judged(before).verdict is Verdict.GO
    assert (judged(before).verdict is Verdict.GO) == (others == 0 and licensed > 0)


def make_bundle(reviews: LedgerReviews | None, **changes: Any) -> Bundle:
    subject = make_subject(DEMANDED, reviews=reviews)
    known = {name: value for name, value in subject._asdict().items() if name not in ("policy", "policy_digest")}
    bundle = Bundle(
        **{**known, "warnings": list(subject.warnings)},
        policy=policy_digest(DEMANDED),
        document=DEMANDED,
        evidence=None,
        evidence_digest=None,
        ratings=[],
        report=decide(subject, None, [], SEALED),
        review=SEALED,
        software="tunegate",
    )
    return msgspec.structs.replace(bundle, **changes)


def test_a_bundle_takes_the_counts_along_and_other_counts_show_as_another_report() -> None:
    bundle = msgspec.json.decode(msgspec.json.encode(make_bundle(ALL)), type=Bundle)
    assert subject_of(bundle).reviews == ALL and recompute(bundle, []).differences == []
    forged = recompute(make_bundle(LedgerReviews(trained=500, licensed=1), report=bundle.report), [])
    assert any(line.startswith("licensed_review: status is fail") for line in forged.differences)
