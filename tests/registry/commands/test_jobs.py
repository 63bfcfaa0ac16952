"""An evaluation that failed says nothing and can be repeated; one that succeeded cannot be drawn anew."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pytest
from factories import MASK, SUITES, entry_of, make_canaries, make_row, make_suite, rows_and_evidence
from registry_under_test import ADMIN, CI, EVALUATOR, NAME, POLICY, REVIEWERS, Bench, bench_in, make_rating

from evaluator.evidence import write_rows
from registry.access import Principal
from registry.commands import adapters, jobs, review
from registry.commands.gate import assess
from registry.errors import Conflict, EvidenceRefused, NotFound
from registry.gate.summary import summarise
from registry.records import (
    CONVENTION,
    Canary,
    ClaimJob,
    ExtraRule,
    FailJob,
    GateReport,
    ItemRow,
    Job,
    Lease,
    PostEvidence,
    RegisterSuite,
    Role,
    State,
    Status,
    Verdict,
    evidence_digest,
)
from registry.settings import Home

pytestmark = pytest.mark.slow

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


@pytest.mark.parametrize(
    ("section", "right", "state"),
    [("accuracy", True, State.INCONCLUSIVE), ("accuracy", False, State.REJECTED), ("review", True, State.INCONCLUSIVE)],
)
def test_an_adapter_that_rambles_is_not_drawn_anew(
    bench: Bench, tmp_path: Path, section: str, right: bool, state: State
) -> None:
    """How its answers end is measured like what they say: pushing the files again would not change it."""
    sealed(bench)
    job = take(bench)
    suites = {name: getattr(job.document, name).suite for name in SUITES}
    rows = [
        msgspec.structs.replace(row, finish="length", correct=right and row.correct)
        if row.suite == suites[section] and row.item < "i0020"
        else msgspec.structs.replace(row, correct=row.correct if right or row.subject == "base" else False)
        for row in rows_and_evidence(suites, job.digest, job.policy)[0]
    ]
    sections = summarise(job.document, rows, CONVENTION, MASK)
    share = 20 / 200 if section == "accuracy" else 20 / 60
    cut = Canary(name="finish_by_length", passed=False, observed=share, limit=0.05, detail="d")
    canaries = [*make_canaries(finish_by_length=None), cut]
    request = posted(bench, job, tmp_path, rows, canaries=canaries, **sections._asdict())
    bench.run(EVALUATOR, jobs.record_evidence, job_id=job.id, request=request)
    assert state_of(bench) is state
    report = report_of(bench)
    assert next(check for check in report.checks if check.kind == "effect").status is Status.PASS
    doubted = [check.kind for check in report.checks if check.status is Status.INVALID]
    assert doubted == ([section] if right else [])
    assert push_again(bench) is state and bench.claim() is None


def test_a_statement_about_how_answers_ended_that_the_rows_contradict_is_refused(bench: Bench, tmp_path: Path) -> None:
    sealed(bench)
    job = take(bench)
    suites = {name: getattr(job.document, name).suite for name in SUITES}
    rows = [
        msgspec.structs.replace(row, finish="length") if row.finish else row
        for row in rows_and_evidence(suites, job.digest, job.policy)[0]
    ]
    sections = summarise(job.document, rows, CONVENTION, MASK)
    request = posted(bench, job, tmp_path, rows, **sections._asdict())
    with pytest.raises(EvidenceRefused, match=r"canary finish_by_length is stated as 0 with limit 0\.05"):
        bench.run(EVALUATOR, jobs.record_evidence, job_id=job.id, request=request)


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
    with pytest.raises(Conflict, match="revoked for good"):
        push_again(bench)
    assert bench.complete(1).state is State.REVOKED
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


@pytest.mark.parametrize("tags", [[], ["t", "t"], ["u"]])
def test_tags_that_the_suite_does_not_give_an_item_are_refused(bench: Bench, tmp_path: Path, tags: list[str]) -> None:
    """Else a weak kind of question could be hidden under another name."""
    sealed(bench)
    job = take(bench)
    suites = {section: getattr(job.document, section).suite for section in SUITES}
    rows, _ = rows_and_evidence(suites, job.digest, job.policy)
    changed = [msgspec.structs.replace(row, tags=tags) if row.item == "i0007" else row for row in rows]
    with pytest.raises(EvidenceRefused, match=r"item 'i0007' of the .* has tags .*, the suite has \['t'\]"):
        bench.run(EVALUATOR, jobs.record_evidence, job_id=job.id, request=posted(bench, job, tmp_path, changed))


def test_rows_about_neither_candidate_nor_base_are_refused(bench: Bench, tmp_path: Path) -> None:
    sealed(bench)
    job = take(bench)
    suites = {section: getattr(job.document, section).suite for section in SUITES}
    rows, _ = rows_and_evidence(suites, job.digest, job.policy)
    extra = make_row(suites["review"], "i0000", "somebody", prompt="p", output="o")
    with pytest.raises(EvidenceRefused, match="about 'somebody', neither candidate nor base"):
        bench.run(EVALUATOR, jobs.record_evidence, job_id=job.id, request=posted(bench, job, tmp_path, [*rows, extra]))


def test_a_base_that_was_not_asked_everything_is_no_comparison(bench: Bench, tmp_path: Path) -> None:
    """What a candidate that stopped early could still have gained would be unknown."""
    sealed(bench)
    job = take(bench)
    suites = {section: getattr(job.document, section).suite for section in SUITES}
    rows, _ = rows_and_evidence(suites, job.digest, job.policy)
    asked = [row for row in rows if row.suite != suites["forgetting"] or row.item < "i0100"]
    with pytest.raises(EvidenceRefused, match="the base answered 100 of 600 items; it must answer all"):
        bench.run(EVALUATOR, jobs.record_evidence, job_id=job.id, request=posted(bench, job, tmp_path, asked))


def test_a_run_that_stopped_because_all_was_lost_rejects_like_the_whole(bench: Bench, tmp_path: Path) -> None:
    sealed(bench)
    job = take(bench)
    suites = {section: getattr(job.document, section).suite for section in SUITES}
    rows, _ = rows_and_evidence(suites, job.digest, job.policy, correct=0)
    asked = [row for row in rows if row.suite == suites["accuracy"] and row.item < "i0064"]
    sections = summarise(job.document, asked, "assistant+eot/v1", None)
    request = posted(bench, job, tmp_path, asked, **sections._asdict())
    bench.run(EVALUATOR, jobs.record_evidence, job_id=job.id, request=request)
    report = report_of(bench)
    assert (state_of(bench), report.verdict) == (State.REJECTED, Verdict.NO_GO)
    failed = [check for check in report.checks if check.status is Status.FAIL]
    assert [check.kind for check in failed] == ["accuracy"] and "stopped after 64 of 200" in failed[0].reason
    assert push_again(bench) is State.REJECTED and bench.rebuilt() == bench.tables()


def test_the_evidence_digest_does_not_depend_on_how_long_it_took(bench: Bench) -> None:
    sealed(bench)
    job = take(bench)
    request = bench.measured(job)
    slower = msgspec.structs.replace(request.evidence, seconds=99.0)
    bench.run(EVALUATOR, jobs.record_evidence, job_id=job.id, request=msgspec.structs.replace(request, evidence=slower))
    stored = bench.registry.view().version(NAME, 1)
    assert stored is not None and stored.evidence is not None and stored.evidence.seconds == 99.0
    assert stored.evidence_digest == evidence_digest(request.evidence)
    assert stored.evidence_digest != evidence_digest(msgspec.structs.replace(slower, rows="0" * 64))


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


# -- extra suites -------------------------------------------------------------------------------------------------

ARITHMETIC = "arithmetic"


@pytest.fixture
def bench_with_extra(home: Home) -> Iterator[Bench]:
    """A bench whose policy names an extra suite of forty questions."""
    with bench_in(home.root) as made:
        made.create_adapter("another")
        files = make_suite(ARITHMETIC, "questions", 40)
        for data in files.values():
            made.registry.blobs.put(data)
        request = RegisterSuite(name=ARITHMETIC, files=[entry_of(path, data) for path, data in files.items()])
        made.run(ADMIN, adapters.register_suite, request=request)
        rule = ExtraRule(suite=ARITHMETIC, min=0.5, margin=0.2)
        made.create_adapter(NAME, msgspec.structs.replace(POLICY, extra=[rule]))
        yield made


def extra_request(bench: Bench, job: Job, folder: Path, right: int) -> PostEvidence:
    """Evidence that satisfies every section, and the extra suite answered with this many right."""
    suites = {section: getattr(job.document, section).suite for section in SUITES}
    rows, _ = rows_and_evidence(suites, job.digest, job.policy)
    (rule,) = job.document.extra
    for i in range(40):
        rows.append(make_row(rule.suite, f"i{i:04}", "base", correct=i < 36))
        rows.append(make_row(rule.suite, f"i{i:04}", correct=i < right, contaminated=False))
    sections = summarise(job.document, rows, CONVENTION, MASK)
    return posted(bench, job, folder, rows, **sections._asdict())


@pytest.mark.parametrize(("right", "state"), [(36, State.IN_REVIEW), (30, State.INCONCLUSIVE), (5, State.REJECTED)])
def test_an_extra_suite_is_asked_for_pinned_and_judged(
    bench_with_extra: Bench, tmp_path: Path, right: int, state: State
) -> None:
    bench = bench_with_extra
    sealed(bench)
    job = take(bench)
    assert [suite.name for suite in job.suites] == [*(SUITES[section] for section in SUITES), ARITHMETIC]
    assert job.document.extra[0].suite == job.suites[-1].ref
    bench.run(EVALUATOR, jobs.record_evidence, job_id=job.id, request=extra_request(bench, job, tmp_path, right))
    assert state_of(bench) is state
    assert [check.name for check in report_of(bench).checks[-2:]] == ["accuracy:arithmetic", "forgetting:arithmetic"]
    assert bench.rebuilt() == bench.tables()


def test_a_number_of_an_extra_suite_that_its_rows_contradict_is_refused(
    bench_with_extra: Bench, tmp_path: Path
) -> None:
    bench = bench_with_extra
    sealed(bench)
    job = take(bench)
    request = extra_request(bench, job, tmp_path, 30)
    (measured,) = request.evidence.extra
    flattering = msgspec.structs.replace(
        measured, accuracy=msgspec.structs.replace(measured.accuracy, correct=31, clean_correct=31)
    )
    evidence = msgspec.structs.replace(request.evidence, extra=[flattering])
    with pytest.raises(EvidenceRefused) as refused:
        bench.run(
            EVALUATOR,
            jobs.record_evidence,
            job_id=job.id,
            request=msgspec.structs.replace(request, evidence=evidence),
        )
    assert refused.value.problems == [
        "extra[0].accuracy.correct is stated as 31, the rows give 30",
        "extra[0].accuracy.clean_correct is stated as 31, the rows give 30",
    ]
