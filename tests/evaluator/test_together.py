"""Several candidates of one base in one run: each gets what it would have got alone, whatever becomes of the others."""

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
from factories import make_adapter, make_config, make_tensors, make_weights
from fake_engine import ByteRenderer, FakeEngine, Faults
from site_under_test import Site
from worker_lab import SILENT, Lab, believe_numbers

from evaluator import desk as desks
from evaluator import worker
from evaluator.desk import Workplace
from evaluator.engine import Answer, EngineDied, EngineRefused, Prompt, Unfit
from evaluator.measure import KL_PROMPTS
from registry.records import Evidence, ItemRow, State

pytestmark = pytest.mark.slow

CANARY_BASE_PROMPTS = 3 * 8
BASE_PROMPTS = 100 + 600 + 200 + 2 * KL_PROMPTS + 60
BAD = 248  # fill of the adapter that Choosy refuses
LARGE = {"adapter_config.json": make_config(r=32), "adapter_model.safetensors": make_weights(make_tensors(32))}


class Choosy(FakeEngine):
    """Serves every adapter but one."""

    def _serve(self, prompts: Sequence[Prompt], result: Any) -> Iterator[tuple[int, Any]]:
        for one in prompts:
            if one.adapter and (one.adapter / "adapter_model.safetensors").read_bytes()[-1] == BAD:
                raise EngineRefused("ValueError: one of them cannot be served")
        return super()._serve(prompts, result)


@pytest.fixture
def lab(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lab:
    monkeypatch.setattr(desks, "Renderer", ByteRenderer)
    return Lab(site, tmp_path / "lab")


def told(lab: Lab, ref: str) -> tuple[Evidence, list[ItemRow]]:
    evidence = lab.evidence(ref)
    assert evidence is not None
    return msgspec.structs.replace(evidence, seconds=0.0), lab.rows(ref)


def test_together_each_gets_exactly_what_it_gets_alone(lab: Lab) -> None:
    refs = [lab.submit(fill=1), lab.submit(fill=2)]
    lab.work_together(lab.desk(), [lab.claim(), lab.claim()])
    [engine] = lab.engines
    assert engine.asked["base"] == CANARY_BASE_PROMPTS + BASE_PROMPTS, "the base is measured once"
    together = [told(lab, ref) for ref in refs]
    assert together[0] != together[1]

    # The same files again, measured from scratch and one at a time.
    lab.place = Workplace(lab.place.cache.with_name("another-cache"), lab.place.bases)
    lab.create("alone")
    for fill, (evidence, rows) in zip((1, 2), together, strict=True):
        ref = lab.submit(fill=fill, adapter="alone")
        lab.work(lab.desk())
        assert told(lab, ref) == (evidence, rows)


def test_a_run_repeated_from_scratch_gives_the_same_evidence(lab: Lab) -> None:
    """The very digest: the file of rows, too, comes out byte for byte."""
    first = lab.submit()
    lab.work(lab.desk())
    lab.place = Workplace(lab.place.cache.with_name("another-cache"), lab.place.bases)
    lab.create("again")
    second = lab.submit(adapter="again")
    lab.work(lab.desk())
    assert told(lab, first) == told(lab, second)
    assert told(lab, first)[0].rows == told(lab, second)[0].rows


def test_the_worker_claims_what_is_about_the_same_base_and_does_it_together(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    refs = [lab.submit(fill=fill) for fill in (1, 2, 3, 4, 5)]
    desk, groups, evaluate = lab.desk(), [], worker.evaluate
    monkeypatch.setattr(worker, "Desk", lambda place, launcher: desk)
    monkeypatch.setattr(
        worker, "evaluate", lambda shift, jobs: groups.append([job.ref for job in jobs]) or evaluate(shift, jobs)
    )
    assert worker.work(lab.site.client("evaluator"), lab.place, SILENT, once=True) == 5
    assert groups == [refs[:4], refs[4:]]
    assert {lab.state(ref) for ref in refs} == {State.IN_REVIEW} and len(lab.engines) == 1


def test_an_adapter_that_the_engine_refuses_does_not_take_the_others_along(lab: Lab) -> None:
    lab.kind_of_engine = Choosy
    refs = [lab.submit(fill=1), lab.submit(fill=BAD), lab.submit(fill=2)]
    jobs = [lab.claim() for _ in refs]
    lab.work_together(lab.desk(), jobs)
    assert [lab.evidence(ref) is not None for ref in refs] == [True, False, True]
    stored = lab.site.registry.view().job(jobs[1].id)
    assert stored is not None and stored.state == "failed" and "one of them cannot be served" in str(stored.reason)


def test_an_engine_that_dies_over_a_group_is_tried_with_each_alone(lab: Lab) -> None:
    refs = [lab.submit(fill=1), lab.submit(fill=2)]
    lab.work_together(lab.desk(Faults(dies_after=300), Faults()), [lab.claim(), lab.claim()])
    assert {lab.state(ref) for ref in refs} == {State.IN_REVIEW} and len(lab.engines) == 2
    # What the dead one had measured stays measured.
    assert sum(sum(engine.asked.values()) for engine in lab.engines) == BASE_PROMPTS + 2 * 1208 + 56 + 2 * 40


class Fragile(FakeEngine):
    """Dies over one adapter, in the midst of its questions."""

    def _answer(self, prompt: Prompt, max_tokens: int, stops: Sequence[str]) -> Answer:
        if prompt.adapter and (prompt.adapter / "adapter_model.safetensors").read_bytes()[-1] == BAD:
            raise EngineDied("killed by adapter 248")
        return super()._answer(prompt, max_tokens, stops)


def test_an_adapter_that_kills_engines_fails_after_two_and_the_others_are_measured(lab: Lab) -> None:
    lab.kind_of_engine = Fragile
    refs = [lab.submit(fill=1), lab.submit(fill=BAD), lab.submit(fill=2)]
    jobs = [lab.claim() for _ in refs]
    lab.work_together(lab.desk(), jobs)
    stored = lab.site.registry.view().job(jobs[1].id)
    assert stored is not None and stored.state == "failed"
    assert str(stored.reason) == "2 engines died over it: killed by adapter 248"
    assert [lab.evidence(ref) is not None for ref in refs] == [True, False, True]
    assert len(lab.engines) == 3, "one for all, one until the bad one ends it, one for the rest"


def test_a_worker_that_turns_out_unfit_gives_back_what_it_has_not_done(lab: Lab) -> None:
    """One adapter cannot be loaded because of how the engine was started: another worker's may have room."""

    class Small(FakeEngine):
        def _serve(self, prompts: Sequence[Prompt], result: Any) -> Iterator[tuple[int, Any]]:
            if any(one.adapter and one.adapter.name.endswith(jobs[1].digest[-8:]) for one in prompts):
                raise Unfit("start it with a larger --max-lora-rank")
            return super()._serve(prompts, result)

    lab.kind_of_engine = Small
    refs = [lab.submit(fill=1), lab.submit(fill=2)]
    jobs = [lab.claim() for _ in refs]
    with pytest.raises(Unfit, match="--max-lora-rank"):
        lab.work_together(lab.desk(), jobs)
    for job in jobs:
        stored = lab.site.registry.view().job(job.id)
        assert stored is not None and stored.state == "queued" and "--max-lora-rank" in str(stored.reason)
    assert lab.engines[0].closed


def test_candidates_whose_rows_are_mixed_up_are_not_believed(lab: Lab) -> None:
    refs = [lab.submit(fill=1), lab.submit(fill=2)]
    lab.work_together(lab.desk(Faults(swaps=True)), [lab.claim(), lab.claim()])
    for ref in refs:
        evidence = lab.evidence(ref)
        assert evidence is not None and evidence.accuracy is None
        assert [one.name for one in evidence.canaries if not one.passed] == ["base_beside_adapter"]


def test_a_job_whose_adapter_is_broken_is_told_before_any_engine_runs_and_the_other_is_done(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    believe_numbers(monkeypatch)
    broken, good = lab.submit(files=make_adapter(fill=255)), lab.submit(fill=1)
    jobs = [lab.claim(), lab.claim()]
    desk = lab.desk()
    lab.work_together(desk, jobs)
    stored = lab.site.registry.view().job(jobs[0].id)
    assert stored is not None and stored.state == "failed" and "NaN or infinity" in str(stored.reason)
    assert lab.evidence(broken) is None and lab.state(good) is State.IN_REVIEW


def test_a_lost_lease_drops_that_job_and_no_other(lab: Lab) -> None:
    lab.site.registry.services.leases.seconds = 2.0
    first, second = lab.submit(fill=1), lab.submit(fill=2)
    jobs = [lab.claim(), lab.claim()]
    taken = []

    def lose(done: int) -> None:
        if not taken:
            taken.append(lab.take_over(jobs[0]))
            time.sleep(3.0)

    lab.work_together(lab.desk(), jobs, lose)
    assert lab.said[-1] == f"{first}: another worker has taken the job over"
    assert lab.evidence(first) is None and lab.state(second) is State.IN_REVIEW
    lab.work(lab.desk(), taken[0])
    assert lab.state(first) is State.IN_REVIEW


def test_the_same_adapter_twice_in_a_group_is_measured_once(lab: Lab) -> None:
    lab.create("twin")
    refs = [lab.submit(fill=1), lab.submit(fill=1, adapter="twin")]
    lab.work_together(lab.desk(), [lab.claim(), lab.claim()])
    assert lab.engines[0].asked["adapter"] == 2 * 8 + 200 + 600 + 100 + 60 + 200 + KL_PROMPTS
    assert told(lab, refs[0]) == told(lab, refs[1])


def test_the_engine_is_started_for_the_largest_rank_and_kept_for_smaller_ones(lab: Lab) -> None:
    refs = [lab.submit(fill=1), lab.submit(files=LARGE), lab.submit(fill=2)]
    desk = lab.desk()
    lab.work_together(desk, [lab.claim(), lab.claim()])
    lab.work(desk)
    assert [settings.rank for settings in lab.started] == [32]
    assert {lab.state(ref) for ref in refs} == {State.IN_REVIEW}


def test_an_engine_of_too_small_a_rank_is_replaced(lab: Lab) -> None:
    lab.submit(fill=1), lab.submit(files=LARGE)
    desk = lab.desk()
    lab.work(desk)
    lab.work(desk)
    assert [settings.rank for settings in lab.started] == [8, 32] and lab.engines[0].closed
