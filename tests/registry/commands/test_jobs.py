"""An evaluation that failed says nothing and can be repeated; one that succeeded cannot be drawn anew."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pytest
from factories import SUITES, make_canaries, make_row, rows_and_evidence
from registry_under_test import CI, EVALUATOR, NAME, REVIEWERS, Bench, bench_in, make_rating

from evaluator.evidence import write_rows
from registry.access import Principal
from registry.commands import jobs, review
from registry.commands.gate import assess
from registry.errors import EvidenceRefused, NotFound
from registry.records import (
    ClaimJob,
    FailJob,
    GateReport,
    ItemRow,
    Job,
    Lease,
    PostEvidence,
    Role,
    State,
    Status,
    Verdict,
)
from registry.settings import Home

TRAINER = Principal("t-trainer", "tina", Role.TRAINER)
MEASURED = {"effect", "perplexity", "accuracy", "forgetting", "contamination"}


@pytest.fixture
def bench(home: Home) -> Iterator[Bench]:
    with bench_in(home.root) as made:
        made.create_adapter()
        yield made


def report_of(bench: Bench, number: int = 1) -> GateReport:
    stored = bench.registry.view().version(NAME, number)
    assert stored is not None
    return assess(bench.registry.view(), stored)


def state_of(bench: Bench, number: int = 1) -> State:
    stored = bench.registry.view().version(NAME, number)
    assert stored is not None
    return stored.state


def take(bench: Bench) -> Job:
    job = bench.claim()
    assert job is not None
    return job


def fail(bench: Bench, job: Job, reason: str, *, retry: bool = True) -> None:
    bench.run(EVALUATOR, jobs.fail, job_id=job.id, request=FailJob(fence=job.fence, reason=reason, retry=retry))


def sealed(bench: Bench) -> None:
    bench.complete(bench.submit(1).number)


def push_again(bench: Bench) -> State:
    """What pushing the same files does."""
    return bench.complete(bench.submit(1).number).state


def failed_three_times(bench: Bench) -> None:
    for attempt in (1, 2, 3):
        fail(bench, take(bench), f"out of memory, attempt {attempt}")


def given_up(bench: Bench) -> None:
    fail(bench, take(bench), "no such engine", retry=False)


def distrusted(bench: Bench) -> None:
    job = take(bench)
    request = bench.measured(job)
    evidence = msgspec.structs.replace(request.evidence, canaries=make_canaries(finite=False))
    request = msgspec.structs.replace(request, evidence=evidence)
    bench.run(EVALUATOR, jobs.record_evidence, job_id=job.id, request=request)


@pytest.mark.parametrize("happens", [failed_three_times, given_up, distrusted])
def test_what_measured_nothing_to_be_trusted_is_measured_again(bench: Bench, happens: Callable[[Bench], None]) -> None:
    sealed(bench)
    happens(bench)
    assert (state_of(bench), report_of(bench).verdict) == (State.INCONCLUSIVE, Verdict.INCONCLUSIVE)
    assert bench.claim() is None
    first = bench.registry.view().job_of(NAME, 1)
    assert push_again(bench) is State.SUBMITTED
    assert push_again(bench) is State.SUBMITTED, "once more queues nothing more"
    job = bench.evaluate()
    assert first is not None and job.id != first.id
    assert bench.claim() is None
    assert (state_of(bench), report_of(bench).verdict) == (State.IN_REVIEW, Verdict.PENDING)
    bench.review()
    assert state_of(bench) is State.APPROVABLE
    assert bench.rebuilt() == bench.tables()
    bench.reopen()
    assert bench.promote(1).number == 1


def test_it_can_fail_any_number_of_times_and_still_be_measured(bench: Bench) -> None:
    sealed(bench)
    ids = []
    for happens in (failed_three_times, distrusted, given_up, distrusted):
        happens(bench)
        last = bench.registry.view().job_of(NAME, 1)
        assert last is not None and state_of(bench) is State.INCONCLUSIVE
        ids.append(last.id)
        assert push_again(bench) is State.SUBMITTED
        assert bench.rebuilt() == bench.tables()
    assert len(set(ids)) == 4
    bench.evaluate()
    assert state_of(bench) is State.IN_REVIEW


def test_a_failed_evaluation_is_named_in_every_open_check(bench: Bench) -> None:
    sealed(bench)
    for attempt in (1, 2):
        fail(bench, take(bench), f"attempt {attempt}")
        assert report_of(bench).verdict is Verdict.PENDING
    fail(bench, take(bench), "CUDA out of memory")
    report = report_of(bench)
    found = {check.kind: check for check in report.checks if check.kind in MEASURED}
    assert found.keys() == MEASURED
    for check in found.values():
        assert check.status is Status.INVALID
        assert "CUDA out of memory" in check.reason and "push the same files" in check.reason
    assert not [check for check in report.checks if check.status is Status.PENDING and check.kind != "review"]


def test_trusted_evidence_that_decides_nothing_is_not_drawn_anew(bench: Bench) -> None:
    sealed(bench)
    bench.evaluate(correct=172)  # the interval straddles the limit
    assert state_of(bench) is State.INCONCLUSIVE
    assert next(check for check in report_of(bench).checks if check.kind == "effect").status is Status.PASS
    head = bench.registry.journal.head
    assert push_again(bench) is State.INCONCLUSIVE
    assert bench.registry.journal.head == head and bench.claim() is None


def test_a_rejected_version_is_not_drawn_anew(bench: Bench) -> None:
    sealed(bench)
    bench.evaluate(lost=150, gained=5)
    assert push_again(bench) is State.REJECTED
    assert bench.claim() is None


def test_a_review_without_agreement_is_not_drawn_anew(bench: Bench) -> None:
    sealed(bench)
    bench.evaluate()
    for index, who in enumerate(REVIEWERS):
        turn = index
        while (item := bench.run(who, review.next_assignment).value) is not None:
            rating = make_rating(**dict.fromkeys(("clarity", "relevance", "accuracy"), 5 if turn % 2 else 2))
            bench.run(who, review.rate, assignment_id=item.id, rating=rating, comment_sha256=None)
            turn += 1
    state = state_of(bench)
    assert state in (State.INCONCLUSIVE, State.REJECTED)
    assert push_again(bench) is state and bench.claim() is None


def test_a_revoked_version_whose_evaluation_was_ended_is_not_measured_again(bench: Bench) -> None:
    sealed(bench)
    bench.revoke(1)
    assert push_again(bench) is State.REVOKED
    assert bench.claim() is None
    assert report_of(bench).verdict is Verdict.NO_GO


# -- who does what ------------------------------------------------------------------------------------------------


def test_a_trainer_neither_claims_nor_touches_evaluations(bench: Bench) -> None:
    sealed(bench)
    for kinds in (["evaluation"], ["training"], ["evaluation", "training"]):
        assert bench.run(TRAINER, jobs.claim, request=ClaimJob(kinds=kinds, worker="w")).value is None
    job = take(bench)
    head = bench.registry.journal.head
    with pytest.raises(NotFound):
        bench.run(TRAINER, jobs.heartbeat, job_id=job.id, request=Lease(fence=job.fence))
    with pytest.raises(NotFound):
        bench.run(TRAINER, jobs.fail, job_id=job.id, request=FailJob(fence=job.fence, reason="x", retry=False))
    with pytest.raises(NotFound):
        bench.run(TRAINER, jobs.record_evidence, job_id=job.id, request=bench.measured(job))
    assert bench.registry.journal.head == head and state_of(bench) is State.EVALUATING
    bench.run(EVALUATOR, jobs.heartbeat, job_id=job.id, request=Lease(fence=job.fence))


# -- rows about something else ------------------------------------------------------------------------------------


@dataclass
class Strange:
    """A row too many, and the word by which its refusal names it."""

    suite: str | None
    item: str
    named: str


@pytest.mark.parametrize(
    "strange",
    [
        Strange(None, "i9999", "no item 'i9999'"),
        Strange(None, "", "no item ''"),
        Strange("other/suite@sha256:" + "7" * 64, "i0000", "is not a suite of the policy"),
        Strange(SUITES["accuracy"], "i0000", "is not a suite of the policy"),  # its name without its digest
    ],
    ids=["item", "empty item", "suite", "unpinned suite"],
)
def test_rows_about_what_the_suites_do_not_have_are_refused(bench: Bench, tmp_path: Path, strange: Strange) -> None:
    sealed(bench)
    job = take(bench)
    suites = {section: getattr(job.document, section).suite for section in SUITES}
    rows, evidence = rows_and_evidence(suites, job.digest, job.policy)
    extra = make_row(strange.suite or suites["review"], strange.item, prompt="p", output="o")
    head = bench.registry.journal.head
    with pytest.raises(EvidenceRefused, match=strange.named) as refused:
        bench.run(EVALUATOR, jobs.record_evidence, job_id=job.id, request=posted(bench, job, tmp_path, [*rows, extra]))
    assert any(strange.named in problem for problem in refused.value.problems)
    assert bench.registry.journal.head == head and state_of(bench) is State.EVALUATING
    bench.run(EVALUATOR, jobs.record_evidence, job_id=job.id, request=posted(bench, job, tmp_path, rows))
    assert state_of(bench) is State.IN_REVIEW and evidence.manifest == job.digest


def test_an_item_exchanged_for_an_invented_one_is_refused(bench: Bench, tmp_path: Path) -> None:
    """The numbers add up all the same: only the suite itself knows that the question was never asked."""
    sealed(bench)
    job = take(bench)
    suites = {section: getattr(job.document, section).suite for section in SUITES}
    rows, _ = rows_and_evidence(suites, job.digest, job.policy)
    changed: list[ItemRow] = [
        msgspec.structs.replace(row, item="easy") if (row.suite, row.item) == (suites["accuracy"], "i0000") else row
        for row in rows
    ]
    with pytest.raises(EvidenceRefused, match="no item 'easy'"):
        bench.run(EVALUATOR, jobs.record_evidence, job_id=job.id, request=posted(bench, job, tmp_path, changed))


def posted(bench: Bench, job: Job, folder: Path, rows: list[ItemRow], **changes: Any) -> PostEvidence:
    suites = {section: getattr(job.document, section).suite for section in SUITES}
    _, evidence = rows_and_evidence(suites, job.digest, job.policy)
    write_rows(folder / "rows.parquet", rows)
    stored = bench.registry.blobs.put((folder / "rows.parquet").read_bytes())
    return PostEvidence(fence=job.fence, evidence=msgspec.structs.replace(evidence, rows=stored, **changes))


def test_only_the_submitter_is_the_submitter_after_a_repetition(bench: Bench) -> None:
    """Whoever asks for the repetition does not become the one who submitted."""
    sealed(bench)
    given_up(bench)
    push_again(bench)
    stored = bench.registry.view().version(NAME, 1)
    assert stored is not None and stored.submitter == CI.person
