"""The worker against a real registry, with the fake engine: what it posts, what it gives back, what it never does."""

import json
import threading
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner
from factories import SIZES
from fake_engine import ByteRenderer, Faults
from fake_server import make_base, running_server
from site_under_test import SMALL_REVIEW, Site
from worker_lab import SILENT, Lab, Launches, knows

from evaluator import desk as desks
from evaluator import worker
from evaluator.desk import ChildLauncher, Desk, Workplace
from evaluator.engine import Engine, EngineDied, Unfit
from evaluator.evidence import compared_suites
from evaluator.leases import LeaseLost, Leases
from evaluator.measure import KL_PROMPTS
from evaluator.vllm_process import EngineSettings
from evaluator.worker import Reporter, Shift
from registry.cli.work import worker as worker_command
from registry.client import Client, InvalidRequest, Refused, Unreachable
from registry.records import Canary, ExtraRule, ItemKind, Job, JobInfo, Policy, ReviewRule, State, Status, Verdict
from registry.storage.views import StoredJob

pytestmark = pytest.mark.slow

CANARY_BASE_PROMPTS = 3 * 8
GOLD = 200
OTHER_CONFIG = {"vllm_config": {"model_config": {"generation_config": "/elsewhere"}}}
ALL_ITEMS = (100 + 600 + GOLD + KL_PROMPTS) * 2 + KL_PROMPTS + 200 + 60 * 2


@pytest.fixture
def lab(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lab:
    monkeypatch.setattr(desks, "Renderer", ByteRenderer)
    return Lab(site, tmp_path / "lab")


def test_a_good_version_goes_to_review_with_evidence_for_every_check(lab: Lab) -> None:
    ref = lab.submit()
    assert lab.work(lab.desk()).state == "done"
    assert lab.state(ref) is State.IN_REVIEW
    assert set(lab.statuses(ref).values()) == {Status.PASS, Status.PENDING}
    evidence = lab.evidence(ref)
    assert evidence is not None and evidence.accuracy is not None and evidence.forgetting is not None
    assert (evidence.accuracy.correct, evidence.accuracy.n) == (190, 200)
    assert (evidence.forgetting.lost, evidence.forgetting.gained) == (6, 196)
    assert evidence.engine.engine == "fake" and all(canary.passed for canary in evidence.canaries)
    items = list(lab.site.client("admin").items(ref, evidence.accuracy.suite))
    assert [item.item for item in items if not item.correct] == [f"i{i:04}" for i in range(10)]


def test_the_base_answers_the_pilot_prompts_too_for_its_outputs_are_controls(lab: Lab) -> None:
    ref = lab.submit()
    lab.work(lab.desk())
    evidence = lab.evidence(ref)
    assert evidence is not None and evidence.outputs is not None
    rows = list(lab.site.client("admin").items(ref, evidence.outputs.suite))
    assert Counter(row.subject for row in rows) == {"base": SIZES["review"], "candidate": SIZES["review"]}
    opened = lab.site.registry.view().campaign_of("support-bot", 1)
    assert opened is not None
    controls = [one for one in lab.site.registry.view().campaign_items(opened.id) if one.kind is ItemKind.CONTROL]
    assert len(controls) == 2 and {one.subject for one in controls} == {"base"}
    # A policy without controls does not pay for them.
    none = msgspec.structs.replace(Policy(), review=ReviewRule(controls=0))
    assert compared_suites(Policy()) - compared_suites(none) == {Policy().review.suite}


def test_the_base_is_measured_once_for_all_versions_and_the_engine_stays_warm(lab: Lab) -> None:
    desk = lab.desk()
    lab.submit(fill=1)
    lab.submit(fill=2)
    lab.work(desk)
    [engine] = lab.engines
    assert engine.asked["base"] == CANARY_BASE_PROMPTS + 100 + 600 + GOLD + 2 * KL_PROMPTS + SIZES["review"]
    before = dict(engine.asked)
    lab.work(desk)
    assert lab.engines == [engine]
    assert engine.asked["base"] - before["base"] == CANARY_BASE_PROMPTS
    assert engine.asked["adapter"] == 2 * before["adapter"]


def test_another_engine_measures_the_base_anew(lab: Lab) -> None:
    lab.submit(fill=1)
    lab.work(lab.desk())
    lab.submit(fill=2)
    lab.work(lab.desk(fingerprint="3"))
    assert lab.engines[1].asked == lab.engines[0].asked


def test_an_engine_that_dies_once_is_started_again_and_goes_on(lab: Lab) -> None:
    ref = lab.submit()
    lab.work(lab.desk(Faults(dies_after=500), Faults()))
    assert lab.state(ref) is State.IN_REVIEW
    first, second = lab.engines
    assert first.closed and sum(first.asked.values()) == 500
    # 40 canary prompts each time; none of the items twice.
    assert sum(first.asked.values()) + sum(second.asked.values()) == 2 * 40 + ALL_ITEMS


def test_a_job_over_which_two_engines_die_has_failed_with_their_last_words_and_no_evidence(lab: Lab) -> None:
    ref = lab.submit()
    stored = lab.work(lab.desk(Faults(dies_after=60)))
    assert (stored.state, stored.attempts, len(lab.engines)) == ("failed", 1, 2)
    assert str(stored.reason) == "2 engines died over it: the engine died: killed by the test"
    assert lab.evidence(ref) is None
    assert lab.site.client("evaluator").claim(["evaluation"], "test") is None
    gate = lab.site.client("admin").gate(ref)
    assert gate.verdict in (Verdict.PENDING, Verdict.INCONCLUSIVE)
    with pytest.raises(Refused):
        lab.site.client("release-manager").promote(ref)


@pytest.mark.parametrize(
    "faults", [Faults(leaks=True), Faults(noise=0.3), Faults(short=True), Faults(bad=float("nan"))], ids=str
)
def test_numbers_of_an_engine_that_fails_its_canaries_are_never_a_go(lab: Lab, faults: Faults) -> None:
    ref = lab.submit()
    assert lab.work(lab.desk(faults)).state == "done"
    evidence = lab.evidence(ref)
    assert evidence is not None and not all(canary.passed for canary in evidence.canaries)
    assert evidence.accuracy is None and evidence.perplexity is None, "nothing is measured with such an engine"
    statuses = lab.statuses(ref)
    assert statuses["effect"] == Status.INVALID
    assert Status.PASS not in {statuses[name] for name in ("perplexity", "accuracy", "forgetting")}
    assert lab.site.client("admin").gate(ref).verdict is Verdict.INCONCLUSIVE
    with pytest.raises(Refused):
        lab.site.client("release-manager").promote(ref)


def test_an_adapter_without_effect_is_refused_by_the_gate(lab: Lab) -> None:
    ref = lab.submit()
    lab.work(lab.desk(Faults(deaf=True)))
    assert lab.statuses(ref)["effect"] == Status.FAIL
    assert lab.state(ref) is State.REJECTED


def test_an_adapter_that_the_engine_refuses_is_not_tried_again(lab: Lab) -> None:
    lab.submit()
    stored = lab.work(lab.desk(Faults(refuses=True)))
    assert stored.state == "failed" and "max_lora_rank" in str(stored.reason)
    assert lab.engines[0].closed


def test_a_score_that_is_no_number_is_never_summed_even_where_the_canaries_saw_none(lab: Lab) -> None:
    ref = lab.submit()
    stored = lab.work(lab.desk(Faults(bad=float("nan"), bad_in=b"hello 7\n")))
    assert stored.state == "failed" and "a score is not a number" in str(stored.reason)
    assert lab.evidence(ref) is None and lab.engines[0].closed


def test_a_base_that_is_not_here_is_told_with_its_remedy_and_leaves_the_job_to_others(lab: Lab) -> None:
    lab.submit()
    (lab.base / "tokenizer.json").write_bytes(b'{"changed": 1}')
    job = lab.claim()
    with pytest.raises(Unfit, match="--base"):
        lab.work(lab.desk(), job)
    stored = job_of(lab, job)
    assert stored.state == "queued" and "--base" in str(stored.reason) and lab.engines == []


@pytest.mark.parametrize(
    "error", [EngineDied("no memory"), Unfit("vLLM does not start: no libcuda")], ids=["dies", "refuses"]
)
def test_an_engine_that_does_not_start_leaves_every_job_to_others_and_ends_the_worker(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def start(settings: EngineSettings) -> Engine:
        raise error

    refs = [lab.submit(fill=fill) for fill in (1, 2, 3, 4, 5)]
    monkeypatch.setattr(worker, "Desk", lambda place, launcher: Desk(place, Launches(start)))
    with pytest.raises(InvalidRequest, match=f"this worker cannot evaluate: .*{error}"):
        worker.work(lab.site.client("evaluator"), lab.place, SILENT, once=True)
    jobs = [lab.claim() for _ in refs]
    assert [job_of(lab, job).attempts for job in jobs] == [2, 2, 2, 2, 1], "the fifth was never claimed"
    lab.work_together(lab.desk(), jobs[:4])
    lab.work(lab.desk(), jobs[4])
    assert {lab.state(ref) for ref in refs} == {State.IN_REVIEW}


def test_training_data_that_cannot_be_read_is_told(lab: Lab) -> None:
    lab.submit(dataset=b"no rows")
    stored = lab.work(lab.desk())
    assert stored.state == "failed" and "line 1 of the training data" in str(stored.reason)


def test_items_from_the_training_data_are_counted(lab: Lab) -> None:
    rows = [
        {"use": "train", "messages": [{"role": "user", "content": "what is   NUMBER 12"}]},
        {"use": "test", "messages": [{"role": "user", "content": "What is number 13?"}]},
    ]
    ref = lab.submit(dataset="\n".join(map(json.dumps, rows)).encode())
    lab.work(lab.desk())
    evidence = lab.evidence(ref)
    assert evidence is not None and evidence.contamination is not None and evidence.accuracy is not None
    assert {(one.n, one.contaminated) for one in evidence.contamination} == {(100, 0), (200, 1), (600, 1)}
    assert (evidence.accuracy.clean_n, evidence.accuracy.clean_correct) == (199, 189)


def test_the_job_of_a_killed_worker_is_taken_over_and_the_dead_one_can_say_nothing_more(lab: Lab) -> None:
    lab.site.registry.services.leases.seconds = 0.3
    ref = lab.submit()
    dead = lab.claim()
    assert lab.site.client("evaluator").claim(["evaluation"], "second") is None
    time.sleep(0.4)
    taken = lab.claim()
    assert (taken.id, taken.fence) == (dead.id, dead.fence + 1)
    lab.site.registry.services.leases.seconds = 30.0
    lab.work(lab.desk(), taken)
    assert lab.state(ref) is State.IN_REVIEW
    for late in (
        lambda: lab.site.client("evaluator").heartbeat(dead),
        lambda: lab.site.client("evaluator").fail(dead, "late", retry=True),
    ):
        with pytest.raises(Refused) as refused:
            late()
        assert refused.value.code == "stale_lease"


def test_a_worker_at_work_keeps_its_lease(lab: Lab) -> None:
    lab.site.registry.services.leases.seconds = 0.6
    ref = lab.submit()
    job, waited = lab.claim(), []

    def linger(done: int) -> None:
        if not waited:
            time.sleep(1.0)
            waited.append(lab.site.client("admin-2").claim(["evaluation"], "second"))

    lab.site.tokens["admin-2"] = lab.site.tokens["evaluator"]
    assert lab.work(lab.desk(), job, linger).state == "done"
    assert waited == [None] and lab.state(ref) is State.IN_REVIEW


def test_who_has_lost_the_lease_stops_and_does_not_use_that_engine_again(lab: Lab) -> None:
    """Replies to the abandoned call would be taken for those of the next job."""
    lab.site.registry.services.leases.seconds = 0.3
    ref, desk = lab.submit(), lab.desk()
    dead, taken = lab.claim(), []

    def lose(done: int) -> None:
        if not taken:
            taken.append(lab.take_over(dead))
            time.sleep(0.5)

    lab.work(desk, dead, lose)
    assert lab.said[-1] == f"{ref}: another worker has taken the job over"
    assert sum(lab.engines[0].asked.values()) < 100 and lab.engines[0].closed
    lab.work(desk, taken[0])
    assert len(lab.engines) == 2 and lab.state(ref) is State.IN_REVIEW


def job_of(lab: Lab, job: Job) -> StoredJob:
    stored = lab.site.registry.view().job(job.id)
    assert stored is not None
    return stored


def test_a_worker_stops_when_there_is_nothing_left_and_ends_its_engine(lab: Lab) -> None:
    assert worker.work(lab.site.client("evaluator"), lab.place, SILENT, once=True) == 0
    desk = lab.desk()
    lab.submit()
    lab.work(desk)
    desk.close()
    assert lab.engines[0].closed


# -- a worker that stays up -----------------------------------------------------------------------------------------


class Stopped(BaseException):
    """The end of a test's loop; nothing in the worker may catch it."""


class Shaky(Client):
    """A client whose registry is away now and then: each of `claims` is raised in place of an answer, None lets one
    through. After the last of them the worker is stopped."""

    def __init__(self, lab: Lab, *claims: BaseException | None) -> None:
        super().__init__(lab.site.client("evaluator").url, lab.site.tokens["evaluator"])
        self.claims = [*claims, Stopped()]

    def claim(self, kinds: list[str], worker: str, base: str | None = None) -> Job | None:
        error = self.claims.pop(0) if base is None else None
        if error is not None:
            raise error
        return super().claim(kinds, worker, base)


@pytest.fixture
def waited(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long the worker wanted to wait between its tries."""
    found: list[float] = []
    monkeypatch.setattr(worker, "_IDLE_SECONDS", 0.01)
    sleep = time.sleep

    def noted(seconds: float) -> None:
        if threading.current_thread() is threading.main_thread():
            found.append(seconds)
        sleep(seconds)

    monkeypatch.setattr(worker.time, "sleep", noted)
    return found


def go_to_work(lab: Lab, client: Client, monkeypatch: pytest.MonkeyPatch, *, once: bool) -> int:
    desk = lab.desk()
    monkeypatch.setattr(worker, "Desk", lambda place, launcher: desk)
    return worker.work(client, lab.place, Reporter(lab.said.append, lambda done, total, numbers: None), once=once)


def test_a_job_that_breaks_the_worker_is_told_and_the_next_one_is_done(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken, good = lab.submit(fill=1), lab.submit(fill=2)
    evaluate, tries = worker.evaluate, []

    def breaks(shift: Shift, jobs: Sequence[Job]) -> None:
        for job in jobs:
            if job.ref == broken:
                tries.append((job.id, len(jobs)))
                raise KeyError("a defect")
        evaluate(shift, jobs)

    monkeypatch.setattr(worker, "evaluate", breaks)
    with lab.site.client("evaluator") as client:
        assert go_to_work(lab, client, monkeypatch, once=True) == 4
    assert lab.state(good) is State.IN_REVIEW and lab.evidence(broken) is None
    assert [n for _, n in tries] == [2, 1, 1, 1], "with the other, alone, and as often as the job's attempts allow"
    stored = lab.site.registry.view().job(tries[0][0])
    assert stored is not None and stored.state == "failed"
    assert "the worker failed: KeyError" in str(stored.reason) and "a defect" in str(stored.reason)


def test_a_defect_ends_the_engine_which_may_be_in_the_middle_of_a_call(lab: Lab) -> None:
    ref, desk = lab.submit(), lab.desk()

    def breaks(done: int) -> None:
        raise RuntimeError("a defect")

    assert lab.work(desk, step=breaks).state == "queued"
    assert lab.engines[0].closed
    lab.work(desk)
    assert len(lab.engines) == 2 and lab.state(ref) is State.IN_REVIEW


def test_a_registry_that_is_away_is_waited_for(lab: Lab, monkeypatch: pytest.MonkeyPatch, waited: list[float]) -> None:
    ref = lab.submit()
    away = Unreachable("nobody there")
    with Shaky(lab, away, away, None, None) as client, pytest.raises(Stopped):
        go_to_work(lab, client, monkeypatch, once=False)
    assert lab.said[:2] == ["nobody there; trying again"] * 2 and lab.state(ref) is State.IN_REVIEW
    assert waited == [0.01] * 3, "twice for the registry, once because there is nothing left"
    assert lab.engines[0].closed


def test_a_worker_for_one_round_says_that_the_registry_is_away(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, waited: list[float]
) -> None:
    with Shaky(lab, Unreachable("nobody there")) as client, pytest.raises(Unreachable):
        go_to_work(lab, client, monkeypatch, once=True)
    assert waited == []


class Beats(Client):
    """A client whose heartbeats are refused with this status, or not answered (0)."""

    def __init__(self, status: int) -> None:
        super().__init__("http://127.0.0.1:9")
        self.status, self.beats = status, 0

    def heartbeat(self, job: Job) -> JobInfo:
        self.beats += 1
        if not self.status:
            raise Unreachable("nobody there")
        raise Refused("no", status=self.status, code="x", problems=[], report=None)


@pytest.mark.parametrize(
    ("status", "lost"), [(404, True), (409, True), (503, False), (500, False), (429, False), (0, False)]
)
def test_only_who_is_told_so_has_lost_the_lease(lab: Lab, status: int, lost: bool) -> None:
    lab.submit()
    job = msgspec.structs.replace(lab.claim(), lease_seconds=0.03)
    with Beats(status) as client, Leases(client, [job]) as leases:
        leases.check()
        deadline = time.monotonic() + 10
        while client.beats < (1 if lost else 4) and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.05)
        assert leases.lost(job) == lost != leases.holds(job)
        if lost:
            with pytest.raises(LeaseLost):
                leases.check()
            assert client.beats == 1, "nobody asks for a lease that is gone"
        else:
            leases.check()
            assert client.beats >= 4, "it asks again"


def test_questions_are_answered_in_a_line_and_pilot_prompts_in_full(lab: Lab) -> None:
    lab.submit()
    lab.work(lab.desk())
    stops: dict[str | None, set[str]] = {}
    for question, stop in lab.engines[0].stops.items():
        stops.setdefault(stop, set()).add(question)
    assert stops[None] == {f"please tell me about number {i}" for i in range(60)}
    assert stops.keys() == {None, "\n"} and stops["\n"] == {f"What is number {i}?" for i in range(600)}


def test_conversations_whose_user_turn_was_trained_on_are_counted(lab: Lab) -> None:
    rows = [{"use": "train", "messages": [{"role": "user", "content": f"Hello, {i}!"}]} for i in (3, 5)]
    rows.append(
        {"use": "train", "messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "hello 7"}]}
    )
    rows.append({"use": "validation", "messages": [{"role": "user", "content": "hello 8"}]})
    ref = lab.submit(dataset="\n".join(map(json.dumps, rows)).encode())
    lab.work(lab.desk())
    evidence = lab.evidence(ref)
    assert evidence is not None and evidence.contamination is not None and evidence.perplexity is not None
    found = {one.suite: (one.n, one.contaminated) for one in evidence.contamination}
    assert found.pop(evidence.perplexity.suite) == (100, 2)
    assert set(found.values()) == {(200, 0), (600, 0)}
    items = list(lab.site.client("admin").items(ref, evidence.perplexity.suite))
    assert {item.item for item in items if item.contaminated} == {"i0003", "i0005"}


# -- what was cut off -------------------------------------------------------------------------------------------------


def cut(lab: Lab, ref: str) -> Canary:
    evidence = lab.evidence(ref)
    assert evidence is not None, lab.said
    return next(canary for canary in evidence.canaries if canary.name == "finish_by_length")


def test_what_the_base_was_cut_off_in_counts_where_it_is_compared(lab: Lab) -> None:
    lab.knows = lambda question, adapted: (
        knows(question, adapted) if adapted else knows(question, False) + " and so on" * 20
    )
    ref = lab.submit()
    assert lab.work(lab.desk()).state == "done"
    assert not cut(lab, ref).passed and "600 of 600 answers" in cut(lab, ref).detail
    assert lab.site.client("admin").gate(ref).verdict is not Verdict.GO


def test_a_letter_is_an_answer_that_was_not_cut_off(lab: Lab) -> None:
    """As the registry counts the rows, or the statement would contradict them."""
    items = [{"id": f"m{i}", "question": "Pick", "choices": ["x", "y"], "answer": 0, "tags": []} for i in range(20)]
    suite = lab.register("extra/strict", "choices", items, max_cut_off=0.0)
    lab.create("bot", msgspec.structs.replace(SMALL_REVIEW, extra=[ExtraRule(suite=suite, min=0.1)]))
    ref = lab.submit(adapter="bot")
    assert lab.work(lab.desk()).state == "done", lab.said
    assert cut(lab, ref).passed and (cut(lab, ref).observed, cut(lab, ref).limit) == (0.0, 0.0)


# -- where engines come from ------------------------------------------------------------------------------------------


@pytest.mark.stack
def test_a_prepared_child_is_one_process_that_ends_with_the_desk(tmp_path: Path) -> None:
    launcher = ChildLauncher()
    desk = Desk(Workplace(tmp_path, []), launcher)
    desk.prepare()
    assert launcher._warm is not None
    child = launcher._warm.process
    desk.prepare()
    assert launcher._warm.process is child and child.poll() is None
    desk.close()
    assert child.poll() is not None and launcher._warm is None


# httpcore leaves the socket of a connection that was refused to the garbage collector.
@pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")
@pytest.mark.parametrize(
    ("broken", "told"),
    [
        ({"version": "0.29.0"}, "0.30 or newer"),
        ({"info": OTHER_CONFIG}, "--generation-config vllm"),
        (None, "not answer"),
    ],
    ids=["too old", "another config", "away"],
)
def test_a_server_that_will_not_do_is_found_before_any_job_is_claimed(
    lab: Lab, broken: dict[str, Any] | None, told: str
) -> None:
    refs = [lab.submit(fill=fill) for fill in (1, 2, 3)]
    with running_server(lab.base, **(broken or {})) as server:
        if broken is None:
            server.close()
        with pytest.raises(InvalidRequest, match=told):
            worker.work(lab.site.client("evaluator"), lab.place, SILENT, once=True, server=server.address)
    assert [job_of(lab, lab.claim()).attempts for _ in refs] == [1, 1, 1]


def test_a_server_of_another_base_leaves_the_jobs_to_others(lab: Lab, tmp_path: Path) -> None:
    lab.submit()
    other = make_base(tmp_path / "other", fill=2)
    with running_server(other) as server, pytest.raises(InvalidRequest, match=f"--model {lab.base}"):
        worker.work(lab.site.client("evaluator"), lab.place, SILENT, once=True, server=server.address)
    assert job_of(lab, lab.claim()).attempts == 2


def test_an_address_that_is_none_is_refused_at_once() -> None:
    result = CliRunner().invoke(worker_command, ["--once", "--server", "localhost:8000"])
    assert isinstance(result.exception, InvalidRequest) and "http://host:port or unix:/" in str(result.exception)
