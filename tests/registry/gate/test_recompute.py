"""A verdict derived from its bundle alone: the same where nothing was touched, and every touch is named."""

import functools
from typing import Any

import msgspec
import pytest
from factories import SEALED, SUITES, make_policy, make_ratings, make_subject, pinned, rows_and_evidence

from registry.errors import EvidenceRefused
from registry.gate.decision import Subject, decide
from registry.gate.policy import policy_digest
from registry.gate.recompute import Recomputed, differences, recompute, subject_of
from registry.records import (
    Adjudication,
    Bundle,
    Evidence,
    ItemRow,
    RatingRow,
    ReviewFacts,
    Status,
    Verdict,
    evidence_digest,
)

POLICY = make_policy(review={"outputs": 5})
DIGEST = policy_digest(POLICY)
RATINGS = make_ratings(outputs=5)


@functools.cache
def measured(**numbers: int) -> tuple[list[ItemRow], Evidence]:
    return rows_and_evidence({section: pinned(section) for section in SUITES}, "sha256:" + "4" * 64, DIGEST, **numbers)


def make_bundle(evidence: Evidence | None, ratings: list[RatingRow] = RATINGS, /, **changes: Any) -> Bundle:
    """The bundle that a registry would give, decided by the gate itself, and then changed."""
    subject = make_subject(POLICY)
    known = {name: getattr(subject, name) for name in Subject._fields if name not in ("policy", "policy_digest")}
    bundle = Bundle(
        **{**known, "warnings": list(subject.warnings)},
        policy=DIGEST,
        document=POLICY,
        evidence=evidence,
        evidence_digest=evidence_digest(evidence) if evidence else None,
        ratings=ratings,
        report=decide(subject, evidence, ratings, SEALED),
        review=SEALED,
        software="tunegate",
    )
    return msgspec.structs.replace(bundle, **changes)


def refused(bundle: Bundle, rows: list[ItemRow]) -> list[str]:
    with pytest.raises(EvidenceRefused) as found:
        recompute(bundle, rows)
    assert bundle.ref in str(found.value) and found.value.problems[0] in str(found.value)
    return found.value.problems


@pytest.mark.parametrize(
    ("numbers", "verdict"),
    [({}, Verdict.GO), ({"correct": 120}, Verdict.NO_GO), ({"correct": 174}, Verdict.INCONCLUSIVE)],
)
def test_a_bundle_that_nobody_touched_gives_the_registrys_own_report(numbers: dict[str, int], verdict: Verdict) -> None:
    rows, evidence = measured(**numbers)
    bundle = make_bundle(evidence)
    assert recompute(bundle, rows) == Recomputed(bundle.report, []) and bundle.report.verdict is verdict


def test_the_order_of_the_rows_does_not_matter() -> None:
    rows, evidence = measured()
    assert recompute(make_bundle(evidence), rows[::-1]).differences == []


def test_a_bundle_survives_the_wire() -> None:
    """Whole numbers come back as such: what is equal before is equal after."""
    rows, evidence = measured()
    bundle = msgspec.json.decode(msgspec.json.encode(make_bundle(evidence)), type=Bundle)
    assert recompute(bundle, rows).differences == []


def test_before_anything_was_measured_the_verdict_is_pending() -> None:
    found = recompute(make_bundle(None, []), [])
    assert (found.report.verdict, found.differences) == (Verdict.PENDING, [])


def test_every_fact_of_the_subject_comes_from_the_bundle() -> None:
    subject = make_subject(POLICY, failure="broken", revoked=True, sealed=False, warnings=["w"])
    facts = {"failure": "broken", "revoked": True, "sealed": False, "warnings": ["w"]}
    assert subject_of(make_bundle(None, **facts)) == subject


@pytest.mark.parametrize(
    ("section", "changes"),
    [("perplexity", {"mask": None}), ("forgetting", {"cut_off": None}), ("outputs", {"cut_off": None})],
)
def test_evidence_of_an_older_form_is_said_to_be_that(section: str, changes: dict[str, None]) -> None:
    """Its digest was taken over the fields that there were."""
    rows, evidence = measured()
    part = msgspec.structs.replace(getattr(evidence, section), **changes)
    old = msgspec.structs.replace(evidence, **{section: part})
    bundle = make_bundle(old, evidence_digest="sha256:" + "8" * 64)
    (problem,) = refused(bundle, rows)
    assert problem.startswith("the evidence is of an older form") and "a changed README.md" in problem
    # That is an explanation, not a way in: with a digest that fits, the rows contradict what is missing.
    assert any(section in line for line in refused(make_bundle(old), rows))


def test_a_policy_that_could_not_be_set_is_named() -> None:
    """Nobody is that sure: 1.0 has no quantile."""
    rows, evidence = measured()
    sure = make_policy(accuracy={"confidence": 1.0}, review={"outputs": 5})
    digest = policy_digest(sure)
    found = refused(make_bundle(msgspec.structs.replace(evidence, policy=digest), document=sure, policy=digest), rows)
    assert found == ["the policy cannot be applied: accuracy.confidence = 1.0 is not between 0.5 and 0.9999"]


# -- what was touched --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change", [{"accuracy": {"min": 0.5}}, {"review": {"outputs": 4}}, {"forgetting": {"margin": 0.06}}]
)
def test_a_changed_policy_is_noticed_by_its_digest(change: dict[str, dict[str, Any]]) -> None:
    rows, evidence = measured()
    easier = make_policy(**{"review": {"outputs": 5}, **change})
    (problem,) = refused(make_bundle(evidence, document=easier), rows)
    assert problem == f"the policy has digest {policy_digest(easier)}, but {DIGEST} is stated"


def test_another_policy_with_its_own_digest_is_not_the_one_that_was_measured_under() -> None:
    rows, evidence = measured()
    easier = make_policy(accuracy={"min": 0.5}, review={"outputs": 5})
    (problem,) = refused(make_bundle(evidence, document=easier, policy=policy_digest(easier)), rows)
    assert f"was measured under policy {DIGEST}" in problem


@pytest.mark.parametrize(
    ("section", "field"), [("accuracy", "correct"), ("forgetting", "lost"), ("forgetting", "n"), ("outputs", "n")]
)
def test_a_changed_count_is_noticed_by_the_digest_and_named_by_the_rows(section: str, field: str) -> None:
    rows, evidence = measured()
    part = getattr(evidence, section)
    stated = getattr(part, field) + 1
    changed = msgspec.structs.replace(evidence, **{section: msgspec.structs.replace(part, **{field: stated})})
    found = refused(make_bundle(evidence, evidence=changed), rows)
    assert found[0] == f"the evidence has digest {evidence_digest(changed)}, but {evidence_digest(evidence)} is stated"
    assert any(f"{field} is stated as {stated}, the rows give {stated - 1}" in line for line in found[1:])
    # A digest that was made to fit does not help.
    found = refused(make_bundle(changed), rows)
    assert any(f"{field} is stated as {stated}, the rows give {stated - 1}" in line for line in found)


def test_other_rows_than_those_measured_are_named() -> None:
    rows, evidence = measured()
    flipped = [msgspec.structs.replace(rows[0], correct=not rows[0].correct), *rows[1:]]
    assert any(
        "correct is stated as 190, the rows give 189" in line for line in refused(make_bundle(evidence), flipped)
    )
    assert refused(make_bundle(evidence), [])
    assert refused(make_bundle(evidence), [*rows, rows[0]])


def test_how_long_the_run_took_is_no_part_of_what_was_measured() -> None:
    rows, evidence = measured()
    slower = msgspec.structs.replace(evidence, seconds=evidence.seconds + 1)
    assert recompute(make_bundle(evidence, evidence=slower), rows).differences == []


def test_evidence_about_another_version_is_refused() -> None:
    rows, evidence = measured()
    other = "sha256:" + "9" * 64
    assert f"the version is {other}" in refused(make_bundle(evidence, digest=other), rows)[0]


@pytest.mark.parametrize("field", ["evidence", "evidence_digest"])
def test_evidence_and_its_digest_go_together(field: str) -> None:
    rows, evidence = measured()
    assert "the evidence has digest" in refused(make_bundle(evidence, **{field: None}), rows)[0]


def test_facts_and_ratings_that_were_changed_show_as_another_report() -> None:
    rows, evidence = measured()
    rude = [msgspec.structs.replace(RATINGS[0], safety=1), *RATINGS[1:]]
    for changes, check in (
        ({"ratings": rude}, "review"),
        ({"ratings": RATINGS[:-1]}, "review"),
        ({"review": ReviewFacts()}, "review"),
        ({"review": ReviewFacts(sealed=True, barred={"p0": ["submitter"]})}, "review"),
        ({"review": ReviewFacts(sealed=True, gold=1)}, "review"),
        ({"has_training_record": False}, "provenance"),
        ({"suite_sizes": {**make_subject(POLICY).suite_sizes, pinned("accuracy"): 201}}, "accuracy"),
        ({"chances": {pinned("forgetting"): 0.9}}, "forgetting"),
        ({"revoked": True}, "inspection"),
    ):
        found = recompute(make_bundle(evidence, **changes), rows)
        assert any(line.startswith(f"{check}: status is") for line in found.differences), changes
        assert found.report.verdict is not Verdict.GO


def test_an_experts_word_is_part_of_the_bundle() -> None:
    rows, evidence = measured()
    unsafe = [msgspec.structs.replace(RATINGS[0], unsafe=True), *RATINGS[1:]]
    for upheld, verdict in ((None, Verdict.PENDING), (False, Verdict.GO), (True, Verdict.NO_GO)):
        said = [] if upheld is None else [Adjudication(item=RATINGS[0].item, upheld=upheld, person="expert 1")]
        known = ReviewFacts(sealed=True, adjudications=said)
        assert recompute(make_bundle(evidence, unsafe, review=known), rows).report.verdict is verdict


def test_a_bundle_from_before_campaigns_were_sealed_is_decided_by_the_rule_of_its_time() -> None:
    """Its JSON knows nothing of facts, and its ratings nothing of time."""
    rows, evidence = measured()
    ratings = [msgspec.structs.replace(row, seconds=None, position=0) for row in RATINGS]
    document = msgspec.to_builtins(make_bundle(evidence, ratings))
    del document["review"]
    assert set(document["ratings"][0]) == {
        "person",
        "item",
        "clarity",
        "relevance",
        "safety",
        "accuracy",
        "hallucination",
    }
    old = msgspec.convert(document, Bundle)
    found = recompute(old, rows)
    assert old.review is None and found.report.verdict is Verdict.GO
    report = decide(make_subject(POLICY), evidence, ratings, None)
    assert recompute(msgspec.structs.replace(old, report=report), rows).differences == []


def test_how_many_answers_may_be_cut_off_is_what_the_worker_was_told() -> None:
    rows, evidence = measured()
    (problem,) = refused(make_bundle(evidence, cut_off_limits=dict.fromkeys(map(pinned, SUITES), 0.5)), rows)
    assert problem.startswith("canary finish_by_length is stated as 0 with limit 0.05, the rows give 0 with limit 0.5")


def test_a_report_that_was_changed_is_not_believed() -> None:
    rows, evidence = measured(correct=120)
    honest = make_bundle(evidence)
    passed = [msgspec.structs.replace(check, status=Status.PASS) for check in honest.report.checks]
    bettered = msgspec.structs.replace(honest.report, verdict=Verdict.GO, checks=passed)
    found = recompute(msgspec.structs.replace(honest, report=bettered), rows)
    assert found.report == honest.report
    assert found.differences[0] == "verdict is no_go when recomputed, go in the registry's report"
    assert "accuracy: status is fail when recomputed, pass in the registry's report" in found.differences


# -- comparing reports -------------------------------------------------------------------------------------------------


def test_rounding_is_no_difference_and_a_check_too_many_is_one() -> None:
    report = make_bundle(measured()[1]).report
    checks = list(report.checks)
    at = next(i for i, check in enumerate(checks) if check.kind == "perplexity")

    def with_value(factor: float) -> list[str]:
        seen = checks[at].observed
        value = seen["value"]
        assert isinstance(value, float)
        other = msgspec.structs.replace(checks[at], observed={**seen, "value": value * factor})
        changed = [*checks[:at], other, *checks[at + 1 :]]
        return differences(report, msgspec.structs.replace(report, checks=changed))

    assert with_value(1 + 1e-9) == [] and len(with_value(1 + 1e-3)) == 1
    shorter = msgspec.structs.replace(report, checks=checks[:-1])
    assert differences(report, shorter) == ["review: only in the recomputed report"]
    assert differences(shorter, report) == ["review: only in the registry’s report"]
