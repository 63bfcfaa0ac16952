"""Jobs: one worker at a time under a fencing token, and evidence that is about the job and agrees with its rows."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import factories
import msgspec
import pytest
from factories import SUITES
from site_under_test import Site, body, running

from evaluator.evidence import write_rows
from registry.client import Refused
from registry.records import Evidence, ItemRow, Job, Policy, State
from registry.settings import Home

pytestmark = pytest.mark.slow

LEASE_SECONDS = 0.5


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with running(Home(tmp_path_factory.mktemp("jobs") / "home")) as found:
        found.create_adapter()
        yield found


@pytest.fixture
def hasty(tmp_path: Path) -> Iterator[Site]:
    """A registry that takes a job from a worker that is silent for half a second."""
    with running(Home(tmp_path / "home"), lease_seconds=LEASE_SECONDS) as found:
        found.create_adapter()
        yield found


def take(site: Site, fill: int, worker: str = "w") -> Job:
    """A job for a new version; the queue holds nothing else."""
    ref = site.submit(fill=fill)
    job = site.client("evaluator").claim(["evaluation"], worker)
    assert job is not None and job.ref == ref
    return job


def give_back(site: Site, job: Job) -> None:
    site.client("evaluator").fail(job, "over", retry=False)


def measured(site: Site, job: Job, path: Path, rows: list[ItemRow] | None = None, **numbers: int) -> Evidence:
    """Evidence for a job with its rows uploaded; `rows` replaces them."""
    suites = {section: getattr(job.document, section).suite for section in SUITES}
    made, evidence = factories.rows_and_evidence(suites, job.digest, job.policy, **numbers)
    write_rows(path / "rows.parquet", made if rows is None else rows)
    return msgspec.structs.replace(evidence, rows=site.client("evaluator").upload(path / "rows.parquet").sha256)


def refusal(site: Site, job: Job, evidence: Evidence) -> Refused:
    before = site.registry.journal.head
    with pytest.raises(Refused) as refused:
        site.client("evaluator").post_evidence(job, evidence)
    assert site.registry.journal.head == before, "a refusal changes nothing"
    assert site.client("admin").version(job.ref).state is State.EVALUATING
    return refused.value


def test_a_claim_gives_everything_that_a_worker_needs(site: Site) -> None:
    job = take(site, 1)
    version, policy = site.client("ci").version(job.ref), site.client("ci").policy("support-bot")
    assert (job.kind, job.digest, job.files, job.base) == ("evaluation", version.digest, version.files, version.base)
    assert (job.policy, job.document, job.training) == (policy.digest, policy.document, version.training)
    assert {suite.ref for suite in job.suites} == {getattr(job.document, section).suite for section in SUITES}
    assert (job.fence, job.lease_seconds) == (1, 30.0)
    assert version.state is State.EVALUATING
    assert site.client("evaluator").heartbeat(job).state == "claimed"
    give_back(site, job)


def test_nothing_to_do_is_204_and_is_not_journalled(site: Site) -> None:
    before = site.registry.journal.head
    for kinds in (["evaluation"], ["training"], ["unheard-of"], []):
        answer = site.http("POST", "/v1/jobs/claim", "evaluator", json={"kinds": kinds})
        assert (answer.status_code, answer.content) == (204, b"")
    assert site.registry.journal.head == before


def test_a_job_is_claimed_by_one_worker_and_oldest_first(site: Site) -> None:
    refs = [site.submit(fill=fill) for fill in (10, 11)]
    client = site.client("evaluator")
    first, second = client.claim(["evaluation"], "a"), client.claim(["evaluation"], "b")
    assert first and second and [first.ref, second.ref] == refs
    assert client.claim(["evaluation"], "c") is None
    give_back(site, first)
    give_back(site, second)


def test_every_call_about_a_job_needs_its_newest_fencing_token(site: Site, tmp_path: Path) -> None:
    job, client = take(site, 20), site.client("evaluator")
    evidence = measured(site, job, tmp_path)
    for fence in (job.fence - 1, job.fence + 1):
        wrong = msgspec.structs.replace(job, fence=fence)
        for call in (
            lambda wrong=wrong: client.heartbeat(wrong),
            lambda wrong=wrong: client.fail(wrong, "x", retry=True),
            lambda wrong=wrong: client.post_evidence(wrong, evidence),
        ):
            with pytest.raises(Refused) as refused:
                call()
            assert (refused.value.status, refused.value.code) == (409, "stale_lease")
    with pytest.raises(Refused) as unknown:
        client.heartbeat(msgspec.structs.replace(job, id="0" * 32))
    assert unknown.value.status == 404
    give_back(site, job)


def test_a_job_that_failed_is_tried_three_times_and_then_given_up(site: Site) -> None:
    job, client = take(site, 30), site.client("evaluator")
    for attempt in (1, 2):
        assert client.fail(job, f"attempt {attempt}", retry=True).state == "queued"
        again = client.claim(["evaluation"], "w")
        assert again is not None and (again.id, again.fence) == (job.id, attempt + 1)
        job = again
    assert client.fail(job, "attempt 3", retry=True).state == "failed"
    assert client.claim(["evaluation"], "w") is None
    shown = body(site.http("GET", f"/v1/jobs/{job.id}", "auditor"))
    assert (shown["state"], shown["reason"], shown["attempts"]) == ("failed", "attempt 3", 3)
    with pytest.raises(Refused):
        site.client("release-manager").promote(job.ref)


def test_evidence_is_taken_once(site: Site, tmp_path: Path) -> None:
    job, client = take(site, 40), site.client("evaluator")
    evidence = measured(site, job, tmp_path)
    assert client.post_evidence(job, evidence).state == "done"
    better = measured(site, job, tmp_path, correct=200)
    for again in (evidence, better):
        with pytest.raises(Refused) as refused:
            client.post_evidence(job, again)
        assert (refused.value.status, refused.value.code) == (409, "stale_lease")
    stored = site.client("admin").version(job.ref).evidence
    assert stored == evidence


def test_evidence_about_something_else_is_refused(site: Site, tmp_path: Path) -> None:
    job = take(site, 50)
    evidence = measured(site, job, tmp_path)
    other = "sha256:" + "e" * 64
    for changes, word in (({"manifest": other}, "manifest"), ({"policy": other}, "policy")):
        found = refusal(site, job, msgspec.structs.replace(evidence, **changes))
        assert (found.status, found.code) == (422, "evidence_refused") and word in str(found)
    both = refusal(site, job, msgspec.structs.replace(evidence, manifest=other, policy=other))
    assert len(both.problems) == 2
    # A policy that was set later is not the one this version is pinned to.
    newer = site.client("admin").set_policy("support-bot", Policy())
    assert newer.digest != job.policy
    assert refusal(site, job, msgspec.structs.replace(evidence, policy=newer.digest)).code == "evidence_refused"
    site.client("admin").set_policy("support-bot", job.document)
    give_back(site, job)


def test_evidence_without_its_rows_is_refused(site: Site, tmp_path: Path) -> None:
    job = take(site, 60)
    evidence = measured(site, job, tmp_path)
    assert "upload" in str(refusal(site, job, msgspec.structs.replace(evidence, rows="f" * 64)))
    no_parquet = site.client("evaluator").upload(b"PAR1 these are no rows PAR1").sha256
    assert refusal(site, job, msgspec.structs.replace(evidence, rows=no_parquet)).code == "evidence_refused"
    give_back(site, job)


def flattered(evidence: Evidence) -> dict[str, dict[str, Any]]:
    """Evidence that claims more than its rows show, one number at a time."""
    accuracy, forgetting, perplexity = evidence.accuracy, evidence.forgetting, evidence.perplexity
    assert accuracy and forgetting and perplexity and evidence.outputs and evidence.contamination
    replace = msgspec.structs.replace
    return {
        "correct": {"accuracy": replace(accuracy, correct=199)},
        "clean": {"accuracy": replace(accuracy, clean_correct=199)},
        "n": {"accuracy": replace(accuracy, n=201)},
        "lost": {"forgetting": replace(forgetting, lost=0)},
        "base": {"forgetting": replace(forgetting, base_correct=300)},
        "nats": {"perplexity": replace(perplexity, candidate=replace(perplexity.candidate, x=1.0))},
        "spread": {"perplexity": replace(perplexity, difference=replace(perplexity.difference, xx=0.0))},
        "outputs": {"outputs": replace(evidence.outputs, n=61)},
        "contamination": {"contamination": [replace(evidence.contamination[0], n=100)]},
    }


def test_numbers_that_the_rows_do_not_add_up_to_are_refused(site: Site, tmp_path: Path) -> None:
    job = take(site, 70)
    evidence = measured(site, job, tmp_path)
    for name, changes in flattered(evidence).items():
        found = refusal(site, job, msgspec.structs.replace(evidence, **changes))
        assert found.code == "evidence_refused" and "the rows give" in str(found), name
    worst = {key: value for changes in flattered(evidence).values() for key, value in changes.items()}
    assert len(refusal(site, job, msgspec.structs.replace(evidence, **worst)).problems) >= len(worst)
    assert site.client("evaluator").post_evidence(job, evidence).state == "done"


def test_rows_that_were_left_out_or_counted_twice_are_noticed(site: Site, tmp_path: Path) -> None:
    job = take(site, 80)
    suites = {section: getattr(job.document, section).suite for section in SUITES}
    rows, _ = factories.rows_and_evidence(suites, job.digest, job.policy)
    wrong = [row for row in rows if row.suite == suites["accuracy"] and not row.correct]
    assert wrong
    for shown in (
        [row for row in rows if row not in wrong],  # the failures left out
        [row for row in rows if row.subject != "base"],  # nothing to compare with
        [msgspec.structs.replace(row, correct=True) if row in wrong else row for row in rows],
        [],
    ):
        assert refusal(site, job, measured(site, job, tmp_path, shown)).code == "evidence_refused"
    # Each failure once more as a success, behind it: whoever reads the last row only would count 200 of 200.
    twice = [*rows, *(msgspec.structs.replace(row, correct=True) for row in wrong)]
    assert refusal(site, job, measured(site, job, tmp_path, twice, correct=200)).status == 422
    give_back(site, job)


def test_numbers_that_are_not_finite_never_become_evidence(site: Site, tmp_path: Path) -> None:
    job = take(site, 90)
    evidence = measured(site, job, tmp_path)
    text = msgspec.json.encode({"fence": job.fence, "evidence": evidence}).decode()
    assert '"seconds":1.0' in text
    for number in ("NaN", "1e999", "null", '"1.0"', "-1.0"):
        content = text.replace('"seconds":1.0', f'"seconds":{number}').encode()
        headers = {"Content-Type": "application/json"}
        answer = site.http("POST", f"/v1/jobs/{job.id}/evidence", "evaluator", content=content, headers=headers)
        assert answer.status_code in (400, 422), number
    nan_rows = tmp_path / "nan"
    nan_rows.mkdir()
    suites = {section: getattr(job.document, section).suite for section in SUITES}
    rows, _ = factories.rows_and_evidence(suites, job.digest, job.policy)
    spoiled = [msgspec.structs.replace(row, nll_nats=float("nan")) if row.nll_nats else row for row in rows]
    assert refusal(site, job, measured(site, job, nan_rows, spoiled)).code == "evidence_refused"
    give_back(site, job)


def test_a_job_whose_worker_fell_silent_goes_to_another_whose_word_alone_counts(hasty: Site, tmp_path: Path) -> None:
    first, client = take(hasty, 1, "first"), hasty.client("evaluator")
    assert first.lease_seconds == LEASE_SECONDS
    # A worker that gives signs of life keeps its job, however long it takes.
    for _ in range(6):
        time.sleep(LEASE_SECONDS / 4)
        client.heartbeat(first)
        assert client.claim(["evaluation"], "greedy") is None
    time.sleep(LEASE_SECONDS + 0.1)
    second = client.claim(["evaluation"], "second")
    assert second is not None and (second.id, second.fence) == (first.id, first.fence + 1)

    evidence = measured(hasty, first, tmp_path)
    with pytest.raises(Refused) as refused:
        client.post_evidence(first, evidence)
    assert (refused.value.status, refused.value.code) == (409, "stale_lease")
    with pytest.raises(Refused):
        client.heartbeat(first)
    with pytest.raises(Refused):
        client.fail(first, "late", retry=False)
    assert client.post_evidence(second, evidence).state == "done"
    shown = body(hasty.http("GET", f"/v1/jobs/{first.id}", "admin"))
    assert (shown["worker"], shown["attempts"]) == ("second", 2)


def test_a_worker_that_comes_back_before_anyone_else_took_its_job_may_finish_it(hasty: Site, tmp_path: Path) -> None:
    job, client = take(hasty, 1), hasty.client("evaluator")
    evidence = measured(hasty, job, tmp_path)
    time.sleep(LEASE_SECONDS + 0.1)
    assert client.heartbeat(job).state == "claimed"
    assert client.claim(["evaluation"], "other") is None
    assert client.post_evidence(job, evidence).state == "done"


def test_a_job_that_silences_every_worker_is_given_up(hasty: Site) -> None:
    job, client = take(hasty, 1), hasty.client("evaluator")
    for _ in range(2):
        time.sleep(LEASE_SECONDS + 0.1)
        assert client.claim(["evaluation"], "w") is not None
    time.sleep(LEASE_SECONDS + 0.1)
    assert client.claim(["evaluation"], "w") is None
    shown = body(hasty.http("GET", f"/v1/jobs/{job.id}", "admin"))
    assert shown["state"] == "failed" and "fell silent" in shown["reason"]


def test_the_same_files_may_be_versions_of_two_adapters(site: Site, tmp_path: Path) -> None:
    site.create_adapter("twin-bot")
    for adapter in ("support-bot", "twin-bot"):
        ref = site.submit(adapter, fill=100)
        job = site.client("evaluator").claim(["evaluation"], "w")
        assert job is not None and job.ref == ref
        site.client("evaluator").post_evidence(job, measured(site, job, tmp_path))
        assert site.client("admin").version(ref).state is State.IN_REVIEW
