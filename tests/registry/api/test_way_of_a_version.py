"""The whole path over real HTTP: create, push, evaluate, review, promote, resolve, pull; and every refusal on it."""

from pathlib import Path

import msgspec
import pytest
from factories import entry_of, make_adapter, make_training, sha
from site_under_test import SMALL_REVIEW, Site, body

from registry.client import Refused
from registry.records import (
    AccuracyRule,
    Adjudicate,
    Base,
    Policy,
    PromotionRule,
    Rating,
    ReviewRule,
    Role,
    State,
    SubmitVersion,
    Verdict,
)
from registry.transfer import push

pytestmark = pytest.mark.slow


def test_a_good_version_becomes_approved_and_resolvable(site: Site, tmp_path: Path) -> None:
    site.create_adapter(policy=Policy(review=ReviewRule(min_seconds=0)))
    ref = site.submit()
    assert site.client("ci").version(ref).state is State.SUBMITTED

    report = site.evaluate(tmp_path)
    assert report.verdict is Verdict.PENDING
    assert site.client("ci").version(ref).state is State.IN_REVIEW

    site.review()
    assert site.client("ci").gate(ref).verdict is Verdict.GO
    assert site.client("ci").version(ref).state is State.APPROVABLE

    moved = site.client("release-manager").promote(ref)
    assert (moved.ref, moved.counter) == (ref, 1)
    resolved = site.client("consumer").resolve("support-bot@approved")
    assert resolved.ref == ref and resolved.attestation is not None
    assert site.client("consumer").resolve("support-bot@latest").digest == resolved.digest
    assert site.client("consumer").resolve(f"support-bot@{resolved.digest}").ref == ref


def test_bad_numbers_are_rejected_and_no_role_can_promote(site: Site, tmp_path: Path) -> None:
    site.create_adapter()
    ref = site.submit()
    report = site.evaluate(tmp_path, lost=150, gained=5)
    assert report.verdict is Verdict.NO_GO
    assert {check.name: check.status for check in report.checks}["forgetting"] == "fail"
    assert site.client("ci").version(ref).state is State.REJECTED
    for role in Role:
        answer = site.http("POST", f"/v1/adapters/{ref.replace('/', '/versions/')}/promote", role.value)
        if role is Role.RELEASE_MANAGER:
            assert answer.status_code == 409
            assert body(answer)["code"] == "gate_not_satisfied"
            assert body(answer)["report"]["verdict"] == "no_go"
        else:
            assert answer.status_code == 403
    with pytest.raises(Refused) as refused:
        site.client("consumer").resolve(ref)
    assert refused.value.status == 404


def test_a_version_in_review_can_not_be_promoted_or_pulled(site: Site, tmp_path: Path) -> None:
    site.create_adapter()
    ref = site.submit()
    site.evaluate(tmp_path)
    with pytest.raises(Refused) as refused:
        site.client("release-manager").promote(ref)
    assert refused.value.code == "gate_not_satisfied" and refused.value.report is not None
    weights = site.client("ci").version(ref).files[1]
    assert site.http("GET", f"/v1/blobs/sha256:{weights.sha256}", "consumer").status_code == 404


def test_the_submitter_can_neither_review_nor_promote(site: Site, tmp_path: Path) -> None:
    site.create_adapter()
    person = "ci person"
    site.add_token("own-reviewer", Role.REVIEWER, person)
    site.add_token("own-manager", Role.RELEASE_MANAGER, person)
    ref = site.submit()
    site.evaluate(tmp_path)
    assert site.client("own-reviewer").next_assignment() is None
    site.review()
    with pytest.raises(Refused) as refused:
        site.client("own-manager").promote(ref)
    assert refused.value.status == 403


def test_one_person_with_two_tokens_counts_once(site: Site, tmp_path: Path) -> None:
    site.create_adapter()
    site.submit()
    site.evaluate(tmp_path)
    site.review(people=2)
    site.add_token("second-token", Role.REVIEWER, "reviewer 2")
    assert site.client("second-token").next_assignment() is None
    assert site.client("admin").gate("support-bot/1").verdict is Verdict.PENDING


def test_a_reviewer_sees_nothing_but_prompt_and_output(site: Site, tmp_path: Path) -> None:
    site.create_adapter()
    ref = site.submit()
    site.evaluate(tmp_path)
    answer = site.http("GET", "/v1/review/next", "reviewer")
    assert set(body(answer)) == {"id", "prompt", "output", "position", "total", "hash", "state", "rating"}
    for hidden in (f"/v1/adapters/support-bot/versions/1{tail}" for tail in ("", "/gate", "/items?suite=x")):
        assert site.http("GET", hidden, "reviewer").status_code == 404
    assert site.http("GET", f"/v1/resolve?ref={ref}", "reviewer").status_code == 404
    listed = site.http("GET", "/v1/adapters/support-bot/versions", "reviewer")
    assert body(listed)["items"] == []


def test_an_assignment_belongs_to_one_person_who_may_think_again(site: Site, tmp_path: Path) -> None:
    site.create_adapter()
    site.submit()
    site.evaluate(tmp_path)
    item = site.client("reviewer").next_assignment()
    assert item is not None and site.client("reviewer").next_assignment() == item
    rating = Rating(clarity=5, relevance=5, safety=5, accuracy=5, hallucination=False, comment="fine")
    with pytest.raises(Refused) as refused:
        site.client("reviewer-2").rate(item.id, rating)
    assert refused.value.status == 404
    with pytest.raises(Refused) as refused:
        site.client("reviewer").rate("f" * 32, rating)
    assert refused.value.status == 404
    site.client("reviewer").rate(item.id, rating)
    progress = site.client("reviewer").rate(item.id, msgspec.structs.replace(rating, clarity=3))
    assert (progress.rated, progress.total) == (1, 5)
    again = site.client("reviewer").assignment(item.id)
    assert again.state == "rated" and again.rating is not None
    assert (again.rating.clarity, again.rating.comment) == (3, "fine")
    with pytest.raises(Refused) as refused:
        site.client("reviewer").rate(item.id, msgspec.structs.replace(rating, hash="0" * 64))
    assert refused.value.status == 409


@pytest.mark.parametrize("score", [0, 6, 4.5, "5", None, True])
def test_a_score_that_is_no_whole_number_from_1_to_5_is_refused(site: Site, tmp_path: Path, score: object) -> None:
    site.create_adapter()
    site.submit()
    site.evaluate(tmp_path)
    item = site.client("reviewer").next_assignment()
    assert item is not None
    rating = {"clarity": 5, "relevance": 5, "safety": score, "accuracy": 5, "hallucination": False}
    answer = site.http("POST", f"/v1/review/assignments/{item.id}/rating", "reviewer", json=rating)
    assert answer.status_code == 422


def test_a_skipped_item_is_replaced_and_the_quota_still_reached(site: Site, tmp_path: Path) -> None:
    site.create_adapter()
    ref = site.submit()
    site.evaluate(tmp_path)
    client = site.client("reviewer")
    first = client.next_assignment()
    assert first is not None
    progress = client.skip(first.id, "I wrote this prompt")
    assert (progress.rated, progress.skipped, progress.total) == (0, 1, 5)
    site.review()
    assert site.client("ci").gate(ref).verdict is Verdict.GO
    assert client.review_progress().total == 0


@pytest.mark.parametrize(("upheld", "state"), [(True, State.REJECTED), (False, State.APPROVABLE)])
def test_an_unsafe_output_waits_for_an_expert_who_rated_nothing(
    site: Site, tmp_path: Path, upheld: bool, state: State
) -> None:
    site.create_adapter()
    ref = site.submit()
    site.evaluate(tmp_path)
    item = site.client("reviewer").next_assignment()
    assert item is not None
    site.client("reviewer").rate(item.id, Rating(clarity=5, relevance=5, safety=1, accuracy=5, hallucination=False))
    expert = site.client("reviewer-6")
    assert site.client("ci").version(ref).state is State.IN_REVIEW and expert.disputes() == []
    site.review()
    manager = site.client("release-manager")
    assert manager.campaign(ref).disputes == 1 and site.client("reviewer").disputes() == []
    report = manager.gate(ref)
    assert report.verdict is Verdict.PENDING and "uninvolved expert" in report.checks[-1].reason
    (dispute,) = expert.disputes()
    assert (dispute.prompt, dispute.output, dispute.scores) == (item.prompt, item.output, [1])
    with pytest.raises(Refused) as refused:
        site.client("reviewer").adjudicate(dispute.id, Adjudicate(upheld=False, reason="it is not"))
    assert refused.value.status == 404
    expert.adjudicate(dispute.id, Adjudicate(upheld=upheld, reason="read with care"))
    assert site.client("ci").version(ref).state is state
    assert expert.disputes() == []


def test_the_next_version_supersedes_and_a_rollback_needs_a_reason_and_a_past(site: Site, tmp_path: Path) -> None:
    site.create_adapter()
    first, second = site.approved(tmp_path, fill=1), site.approved(tmp_path, fill=2)
    manager = site.client("release-manager")
    assert site.client("ci").version(first).state is State.SUPERSEDED
    assert site.client("consumer").resolve("support-bot@approved").ref == second

    third = site.submit(fill=3)
    with pytest.raises(Refused):
        manager.rollback("support-bot", 3, "never approved")
    moved = manager.rollback("support-bot", 1, "answers are worse")
    assert (moved.ref, moved.counter) == (first, 3)
    assert site.client("ci").version(second).state is State.SUPERSEDED
    assert site.client("ci").version(third).state is State.SUBMITTED
    moves = site.client("auditor").history("support-bot")
    assert [(move.previous, move.number) for move in moves] == [(None, 1), (1, 2), (2, 1)]
    assert moves[-1].reason == "answers are worse" and moves[-1].by == "release-manager person"


def test_a_revoked_version_is_gone_at_once_and_the_alias_stays(site: Site, tmp_path: Path) -> None:
    site.create_adapter()
    first, second = site.approved(tmp_path, fill=1), site.approved(tmp_path, fill=2)
    weights = site.client("consumer").resolve(second).files[1].sha256
    assert site.http("GET", f"/v1/blobs/sha256:{weights}", "consumer").status_code == 200
    site.client("release-manager").revoke(second, "leaks an address")
    for ref in (second, "support-bot@approved"):
        assert site.http("GET", f"/v1/resolve?ref={ref}", "consumer").status_code == 404
        assert site.http("GET", f"/v1/resolve?ref={ref}", "admin").status_code == 404
    assert site.http("GET", f"/v1/blobs/sha256:{weights}", "consumer").status_code == 404
    with pytest.raises(Refused):
        site.client("release-manager").promote(second)
    site.client("release-manager").rollback("support-bot", 1, "second was revoked")
    assert site.client("consumer").resolve("support-bot@approved").ref == first
    assert site.client("ci").version(second).state is State.REVOKED


def test_the_gate_report_of_a_revoked_version_is_no_go(site: Site, tmp_path: Path) -> None:
    site.create_adapter()
    ref = site.approved(tmp_path)
    assert site.client("consumer").gate(ref).verdict is Verdict.GO
    site.client("release-manager").revoke(ref, "leaks an address")
    report = site.client("auditor").gate(ref)
    assert report.verdict is Verdict.NO_GO
    assert [(check.name, check.status) for check in report.checks if check.status != "pass"] == [("inspection", "fail")]
    assert "revoked" in report.checks[0].reason


def test_a_failed_evaluation_is_repeated_by_pushing_the_same_files(site: Site, tmp_path: Path) -> None:
    site.create_adapter()
    ref = site.submit()
    client = site.client("evaluator")
    for attempt in (1, 2, 3):
        job = client.claim(["evaluation"], "w")
        assert job is not None
        client.fail(job, f"out of memory, attempt {attempt}", retry=True)
    assert site.client("ci").version(ref).state is State.INCONCLUSIVE
    report = site.client("ci").gate(ref)
    assert report.verdict is Verdict.INCONCLUSIVE
    assert "out of memory, attempt 3" in str([check.reason for check in report.checks if check.status == "invalid"])
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    for name, data in make_adapter().items():
        (adapter / name).write_bytes(data)
    again, _ = push(site.client("ci"), adapter, "support-bot")
    assert (again.ref, again.state) == (ref, State.SUBMITTED)
    assert site.evaluate(tmp_path).verdict is Verdict.PENDING
    assert site.client("ci").version(ref).state is State.IN_REVIEW


def test_the_same_files_again_are_the_same_version(site: Site, tmp_path: Path) -> None:
    site.create_adapter()
    assert site.submit() == site.submit() == "support-bot/1"
    site.evaluate(tmp_path)
    assert site.submit() == "support-bot/1"
    assert site.client("evaluator").claim(["evaluation"], "again") is None


def test_only_missing_blobs_are_asked_for(site: Site) -> None:
    site.create_adapter()
    site.submit(fill=1)

    files = make_adapter(fill=2)
    created = site.client("ci").submit("support-bot", SubmitVersion(files=[entry_of(p, d) for p, d in files.items()]))
    assert created.missing == [sha(files["adapter_model.safetensors"])]


def test_an_incomplete_upload_can_not_be_completed(site: Site) -> None:
    site.create_adapter()

    files = make_adapter(fill=9)
    created = site.client("ci").submit("support-bot", SubmitVersion(files=[entry_of(p, d) for p, d in files.items()]))
    with pytest.raises(Refused) as refused:
        site.client("ci").complete(created.ref)
    assert refused.value.status == 422 and "misses 2 blobs" in str(refused.value)


def test_an_adapter_that_engines_would_serve_wrongly_is_refused_with_every_finding(site: Site) -> None:
    site.create_adapter()

    files = make_adapter(use_dora=True, r=16)
    client = site.client("ci")
    created = client.submit("support-bot", SubmitVersion(files=[entry_of(p, d) for p, d in files.items()]))
    for data in files.values():
        client.upload(data)
    with pytest.raises(Refused) as refused:
        client.complete(created.ref)
    assert refused.value.code == "inspection_failed"
    assert len(refused.value.problems) == 5  # DoRA, and a rank that none of the four tensors has
    assert client.version(created.ref).state is State.UPLOADING


def test_an_adapter_trained_on_another_base_is_refused(site: Site) -> None:
    site.create_adapter()

    other = Base(id="other", digest="sha256:" + "9" * 64)
    request = SubmitVersion(
        files=[entry_of(path, data) for path, data in make_adapter().items()], training=make_training(base=other)
    )
    with pytest.raises(Refused) as refused:
        site.client("ci").submit("support-bot", request)
    assert refused.value.status == 422 and "trained on base" in str(refused.value)


def test_policy_changes_do_not_touch_a_sealed_version_but_promotion_asks_both(site: Site, tmp_path: Path) -> None:
    site.create_adapter()
    ref = site.submit()
    site.evaluate(tmp_path)  # 190 of 200: lower bound 91.8 %
    site.review()
    before = site.client("admin").gate(ref)
    site.client("admin").set_policy("support-bot", Policy(accuracy=AccuracyRule(min=0.93), review=SMALL_REVIEW.review))
    assert site.client("admin").gate(ref) == before
    with pytest.raises(Refused) as refused:
        site.client("release-manager").promote(ref)
    assert "present policy" in str(refused.value)


def test_automatic_promotion_happens_with_the_last_rating(site: Site, tmp_path: Path) -> None:
    site.create_adapter(policy=Policy(promotion=PromotionRule(automatic=True), review=SMALL_REVIEW.review))
    ref = site.submit()
    site.evaluate(tmp_path)
    site.review()
    assert site.client("consumer").resolve("support-bot@approved").ref == ref
    assert site.client("auditor").history("support-bot")[0].by == "tunegate"
