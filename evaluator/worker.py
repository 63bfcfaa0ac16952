"""The worker: claim jobs, materialise what they name, measure, post the evidence. It never judges.

Jobs about one base are done together: their prompts share the engine's batches, and their results are kept apart.
Whatever goes wrong with several jobs is tried again with each alone, so that none takes the others along. What is
wrong with the worker itself ends the worker, and its jobs are left to others.
"""

import contextlib
import os
import socket
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from evaluator.adapters import check_adapter
from evaluator.canaries import TEXTS, finish_by_length, run_canaries, trusted
from evaluator.contamination import TrainingIndex, training_prompts
from evaluator.course import Case, Course, Watch
from evaluator.desk import Desk, ServerLauncher, Workplace
from evaluator.engine import Engine, EngineDied, EngineRefused, Unfit
from evaluator.evidence import Found, build_evidence, compared_suites, item_rows, nothing_found, write_rows
from evaluator.leases import LeaseLost, Leases
from evaluator.measure import Ground, Subject
from evaluator.suites import Loaded, compared_texts, gold_reads
from evaluator.vllm_process import EngineSettings
from registry.client import Client, InvalidRequest, Refused, Unreachable
from registry.records import Canary, Job, SuiteKind

_IDLE_SECONDS = 2.0
_ENGINE_STARTS = 2
_TOGETHER = 4


class Reporter(NamedTuple):
    """Where the worker says what it does: stages in words, and steps as (done, of, numbers)."""

    stage: Callable[[str], None]
    step: Callable[[int, int, dict[str, float]], None]


class Shift(NamedTuple):
    """What is needed to do some jobs. fast_fail: stop asking a candidate that cannot pass any more."""

    client: Client
    desk: Desk
    leases: Leases
    report: Reporter
    fast_fail: bool


def work(
    client: Client,
    place: Workplace,
    report: Reporter,
    *,
    once: bool,
    fast_fail: bool = False,
    server: str | None = None,
) -> int:
    """Do jobs until stopped, or until there are none left; how many were done.

    server: the address of a running vLLM server to measure with, instead of an engine of this worker's own.
    Raises InvalidRequest where this worker cannot do what there is to do: it claims no other job.
    """
    desk, done = Desk(place, ServerLauncher(server) if server else None), 0
    try:
        desk.check()
        while True:
            try:
                if jobs := _claim(client, desk):
                    do_jobs(client, desk, jobs, report, fast_fail=fast_fail)
                    done += len(jobs)
                    continue
            except (Unreachable, Refused) as error:
                if once or (isinstance(error, Refused) and error.status < 500):
                    raise
                report.stage(f"{error}; trying again")
            if once:
                return done
            time.sleep(_IDLE_SECONDS)
    except (Unfit, EngineDied) as error:
        raise InvalidRequest(f"this worker cannot evaluate: {error}") from None
    finally:
        desk.close()


def do_jobs(client: Client, desk: Desk, jobs: Sequence[Job], report: Reporter, *, fast_fail: bool = False) -> None:
    """Jobs about one base to their end: evidence posted for each, or the failure told with its reason.

    Raises Unfit where the fault is this worker's; the jobs that it had not done yet are given back for others.
    """
    with Leases(client, jobs) as leases:
        shift = Shift(client, desk, leases, report, fast_fail)
        try:
            _do(shift, jobs, _ENGINE_STARTS)
        except Unfit as error:
            desk.close()
            for job in filter(leases.holds, jobs):
                _tell(shift, job, error)
            raise
        for job in jobs:
            if leases.lost(job):
                report.stage(f"{job.ref}: another worker has taken the job over")


def evaluate(shift: Shift, jobs: Sequence[Job]) -> None:
    """Measure everything that the jobs' policies ask for and post it. What was finished before is not asked again."""
    started, desk = time.monotonic(), shift.desk
    cases = [case for job in jobs if (case := _prepared(shift, job)) is not None]
    if not cases:
        return
    digest = jobs[0].base.digest
    settings = EngineSettings(desk.base(digest).directory, digest, max(case.rank for case in cases))
    _stage(shift, cases, "starting vLLM")
    engine = desk.engine(settings)
    _stage(shift, cases, "canaries")
    canaries = _canaries(engine, cases)
    found = _measured(shift, engine, [case for case in cases if trusted(canaries[case.job.id])])
    for case in cases:
        if shift.leases.holds(case.job):
            passed = canaries[case.job.id]
            mine = found if trusted(passed) else nothing_found()
            try:
                _post(shift, case, mine, passed, engine, time.monotonic() - started)
            except Refused as error:
                if error.code == "stale_lease":
                    shift.leases.lose(case.job)
                else:
                    _tell(shift, case.job, error)


def _do(shift: Shift, jobs: Sequence[Job], starts: int) -> None:
    """`starts`: engines that these jobs may still use up; whatever fails with several is tried with each alone."""
    try:
        evaluate(shift, jobs)
    except LeaseLost:
        # Left in the middle of a call, whose replies would be taken for those of the next job.
        shift.desk.close()
    except (Unreachable, Unfit):
        raise
    except Exception as error:
        # One job that breaks an engine or a worker must not break the next one without a word.
        shift.desk.close()
        starts -= isinstance(error, EngineDied)
        again = len(jobs) > 1 or (isinstance(error, EngineDied) and starts > 0)
        for job in filter(shift.leases.holds, jobs):
            if again:
                _do(shift, [job], starts)
            else:
                _tell(shift, job, error)


def _claim(client: Client, desk: Desk) -> list[Job]:
    """The next job, and a few more about the same base."""
    name = f"{socket.gethostname()}:{os.getpid()}"
    first = client.claim(["evaluation"], name)
    if first is None:
        return []
    desk.prepare()
    jobs = [first]
    with contextlib.suppress(Unreachable, Refused):  # the first is claimed, and can be done alone
        while len(jobs) < _TOGETHER and (more := client.claim(["evaluation"], name, base=first.base.digest)):
            jobs.append(more)
    return jobs


def _prepared(shift: Shift, job: Job) -> Case | None:
    """A job with all that can be known before an engine runs; None where that shows that it cannot be evaluated."""
    desk, digest = shift.desk, job.base.digest
    try:
        base, renderer = desk.base(digest), desk.renderer(digest)
        adapter = _adapter(shift.client, desk.place, job)
        rank = check_adapter(adapter, base.tensors)
        suites = {suite.ref: desk.suite(shift.client, suite, digest) for suite in job.suites}
        gold = gold_reads(suites[job.document.forgetting.suite], renderer, desk.longest)
        contaminated = _contamination(shift.client, desk.place, job, suites)
    except InvalidRequest as error:
        _tell(shift, job, error)
        return None
    return Case(job, Subject(digest, job.digest, adapter), rank, suites, gold, contaminated)


def _measured(shift: Shift, engine: Engine, cases: Sequence[Case]) -> Found:
    """All cases on their suites. Raises LeaseLost if other workers have taken over all of them."""
    if not cases:
        return nothing_found()
    desk, digest = shift.desk, cases[0].subject.base_digest
    ground = Ground(
        desk.place.cache / "results", desk.base(digest).directory, desk.renderer(digest).digest, desk.longest
    )

    def step(done: int, total: int) -> None:
        shift.leases.check()
        shift.report.step(done, total, {})

    watch = Watch(lambda what: _stage(shift, cases, what), step, shift.leases.holds)
    return Course(engine, cases, ground, watch, fast_fail=shift.fast_fail).run()


def _post(shift: Shift, case: Case, found: Found, canaries: list[Canary], engine: Engine, seconds: float) -> None:
    job = case.job
    rows = item_rows(job, case.suites, case.contaminated, found)
    with tempfile.TemporaryDirectory() as folder:
        parquet = Path(folder) / "rows.parquet"
        write_rows(parquet, rows)
        stored = shift.client.upload(parquet)
    compared = compared_suites(job.document)
    answered = [
        (loaded, found.answers.get((ref, subject), {}).values())
        for ref, loaded in case.suites.items()
        for subject in ([job.digest, "base"] if ref in compared else [job.digest])
    ]
    evidence = build_evidence(
        job,
        rows,
        case.suites[job.document.perplexity.suite].asked,
        rows_sha256=stored.sha256,
        engine=engine.info,
        canaries=[*canaries, *finish_by_length(answered)],
        seconds=seconds,
    )
    if not shift.leases.holds(job):
        return
    shift.client.post_evidence(job, evidence)
    shift.leases.release(job)
    shift.report.stage(f"{job.ref}: evidence posted")


def _canaries(engine: Engine, cases: Sequence[Case]) -> dict[str, list[Canary]]:
    """The engine's self-tests by job, on a few texts of the jobs' own suites, the longest ones, which show most."""
    suites = {ref: loaded for case in cases for ref, loaded in case.suites.items()}
    texts = [one.ids for loaded in suites.values() for one in loaded.items if len(one.ids) > 1]
    adapters = {case.job.id: case.subject.adapter for case in cases if case.subject.adapter is not None}
    found = run_canaries(engine, sorted(texts, key=len, reverse=True)[:TEXTS], list(dict.fromkeys(adapters.values())))
    return {job: found[adapter] for job, adapter in adapters.items()}


def _contamination(client: Client, place: Workplace, job: Job, suites: dict[str, Loaded]) -> dict[str, set[str]] | None:
    """Items that were in the training data, by suite; None where that is not known. Pilot prompts prove nothing."""
    if job.training is None:
        return None
    sha256 = job.training.dataset.removeprefix("sha256:")
    target = place.cache / "datasets" / sha256
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        client.download(sha256, target)
    try:
        index = TrainingIndex(training_prompts(target.read_bytes()))
    except ValueError as error:
        raise InvalidRequest(f"the training data of {job.ref} cannot be compared with the suites: {error}") from None
    return {
        ref: {one.item for one in loaded.items if any(map(index.holds, compared_texts(one.source)))}
        for ref, loaded in suites.items()
        if loaded.suite.kind is not SuiteKind.PROMPTS
    }


def _adapter(client: Client, place: Workplace, job: Job) -> Path:
    """The adapter's files in a directory named by the manifest digest, without its README."""
    target = place.cache / "adapters" / job.digest.replace(":", "-")
    if not target.is_dir():
        with client.download_files([file for file in job.files if file.path != "README.md"], target):
            pass
    return target


def _stage(shift: Shift, cases: Sequence[Case], what: str) -> None:
    shift.report.stage(f"{', '.join(case.job.ref for case in cases)}: {what}")


def _tell(shift: Shift, job: Job, error: Exception) -> None:
    """Give the job back with the reason; what is wrong with the job itself is not worth another try."""
    match error:
        case Unfit():
            reason, retry = f"this worker cannot evaluate it: {error}", True
        case EngineRefused() | InvalidRequest():
            reason, retry = f"cannot be evaluated: {error}", False
        case EngineDied():
            reason, retry = f"{_ENGINE_STARTS} engines died over it: {error}", False
        case _:
            reason, retry = f"the worker failed: {type(error).__name__}: {error}", True
    shift.leases.release(job)
    shift.report.stage(f"{job.ref}: {reason}")
    try:
        shift.client.fail(job, reason, retry=retry)
    except Refused as refused:
        if refused.code != "stale_lease":
            raise
