"""Each check of the gate bites, at its limit and not before, and by the interval rather than the estimate."""

import math
from collections.abc import Callable
from typing import Any

import pytest
from factories import (
    SEALED,
    make_accuracy,
    make_canaries,
    make_contamination,
    make_evidence,
    make_forgetting,
    make_perplexity,
    make_policy,
    make_ratings,
    make_subject,
    pinned,
)
from gate_under_test import altered, check, judged, only

from registry.gate.decision import decide
from registry.gate.statistics import tango
from registry.records import Canary, GateReport, OutputsEvidence, Pairs, Status, Verdict


def test_a_missing_training_record_fails_only_where_it_is_required() -> None:
    report = decide(make_subject(has_training_record=False), make_evidence(), make_ratings(), SEALED)
    assert report.verdict is Verdict.NO_GO and only(report, "provenance", Status.FAIL)
    lenient = make_policy(provenance={"require_training_record": False})
    subject = make_subject(lenient, has_training_record=False)
    assert decide(subject, make_evidence(contamination=None), make_ratings(), SEALED).verdict is Verdict.GO


def test_an_adapter_without_effect_fails() -> None:
    report = judged(canaries=make_canaries(adapter_effect=False))
    assert report.verdict is Verdict.NO_GO and only(report, "effect", Status.FAIL)


def test_an_effect_within_the_noise_fails_whatever_the_worker_says() -> None:
    silent = Canary(name="adapter_effect", passed=True, observed=0.1, limit=0.1, detail="d")
    report = judged(canaries=[*make_canaries(adapter_effect=None), silent])
    assert report.verdict is Verdict.NO_GO and only(report, "effect", Status.FAIL)


@pytest.mark.parametrize(
    ("measured", "policy", "status"),
    [
        ({"nll": math.log(14.5), "spread": 0.0, "base_nll": 5.0}, {}, Status.PASS),
        ({"nll": math.log(15.5), "spread": 0.0, "base_nll": 5.0}, {}, Status.FAIL),
        ({"nll": math.log(14.9), "spread": 0.5, "base_nll": 5.0}, {}, Status.INCONCLUSIVE),
        ({"nll": math.log(15.1), "spread": 0.5, "base_nll": 5.0}, {}, Status.INCONCLUSIVE),
        ({"nll": 1.01, "base_nll": 1.0}, {}, Status.FAIL),
        ({"nll": 1.01, "base_nll": 1.0}, {"max_ratio_to_base": 1.1}, Status.PASS),
        ({"nll": 0.99, "base_nll": 1.0}, {"max_ratio_to_base": 0.9}, Status.FAIL),
    ],
)
def test_perplexity_passes_only_with_its_whole_interval_below_both_limits(
    measured: dict[str, float], policy: dict[str, float], status: Status
) -> None:
    report = judged(make_policy(perplexity=policy), perplexity=make_perplexity(**measured))  # type: ignore[arg-type]
    assert check(report, "perplexity").status is status


def test_the_reported_perplexity_is_exp_of_the_nats_per_token() -> None:
    observed = check(judged(perplexity=make_perplexity(nll=1.0, base_nll=2.0)), "perplexity").observed
    assert observed["value"] == pytest.approx(math.e) and observed["ratio_to_base"] == pytest.approx(1 / math.e)
    assert (observed["conversations"], observed["tokens"]) == (100, 2000)


@pytest.mark.parametrize(
    ("correct", "status"),
    [(179, Status.PASS), (178, Status.INCONCLUSIVE), (162, Status.INCONCLUSIVE), (150, Status.FAIL)],
)
def test_accuracy_passes_only_with_its_lower_bound_at_the_minimum(correct: int, status: Status) -> None:
    report = judged(accuracy=make_accuracy(correct, clean_correct=correct))
    assert check(report, "accuracy").status is status
    assert (report.verdict is Verdict.GO) == (status is Status.PASS)


@pytest.mark.parametrize(("correct", "status"), [(170, Status.PASS), (169, Status.FAIL)])
def test_the_point_rule_asks_the_estimate_alone(correct: int, status: Status) -> None:
    policy = make_policy(accuracy={"rule": "point"})
    assert check(judged(policy, accuracy=make_accuracy(correct)), "accuracy").status is status


def test_items_seen_in_training_do_not_count_as_skill() -> None:
    """170 of 200 were right, but all 20 that it had seen are among them: 150 of 180 remain."""
    lenient = make_policy(provenance={"max_contaminated": 0.2})
    memorised = make_accuracy(170, clean_n=180, clean_correct=150)
    found = check(judged(lenient, accuracy=memorised), "accuracy")
    assert found.status is Status.INCONCLUSIVE
    assert (found.observed["correct"], found.observed["n"], found.observed["left_out"]) == (150, 180, 20)
    assert found.reason.startswith("83.3% of 180, ")
    assert found.reason.endswith("(20 items found in the training data left out, 20 of them right: 100.0%)")


@pytest.mark.parametrize(
    ("lost", "gained", "status"),
    [(10, 10, Status.PASS), (40, 10, Status.INCONCLUSIVE), (100, 10, Status.FAIL), (30, 100, Status.PASS)],
)
def test_forgetting_passes_only_if_the_loss_is_shown_to_be_below_the_margin(
    lost: int, gained: int, status: Status
) -> None:
    report = judged(forgetting=make_forgetting(lost, gained))
    assert check(report, "forgetting").status is status
    assert (report.verdict is Verdict.GO) == (status is Status.PASS)


def test_a_loss_of_exactly_the_margin_is_not_shown_to_be_smaller() -> None:
    bound = tango(600, 10, 10, 0.95).lower
    assert check(judged(make_policy(forgetting={"margin": -bound})), "forgetting").status is Status.INCONCLUSIVE
    assert check(judged(make_policy(forgetting={"margin": -bound + 1e-9})), "forgetting").status is Status.PASS


def test_a_small_suite_cannot_show_that_little_was_forgotten() -> None:
    """No item lost of 30: the loss may still be 8 %."""
    subject = make_subject()._replace(suite_sizes={**make_subject().suite_sizes, pinned("forgetting"): 30})
    evidence = make_evidence(forgetting=make_forgetting(0, 0, n=30, base_correct=20))
    assert check(decide(subject, evidence, make_ratings(), SEALED), "forgetting").status is Status.INCONCLUSIVE


@pytest.mark.parametrize(("contaminated", "status"), [(10, Status.PASS), (11, Status.FAIL)])
def test_too_many_items_found_in_the_training_data_fail(contaminated: int, status: Status) -> None:
    report = judged(contamination=make_contamination(accuracy=contaminated))
    assert check(report, "contamination").status is status
    assert (report.verdict is Verdict.NO_GO) == (status is Status.FAIL)


@pytest.mark.parametrize("section", ["forgetting", "perplexity"])
def test_training_on_the_other_suites_fails_too(section: str) -> None:
    found = make_contamination(**{section: 90})
    assert only(judged(contamination=found), "contamination", Status.FAIL).suite == pinned(section)


@pytest.mark.parametrize(("known", "status"), [(0, "inconclusive"), (120, "inconclusive"), (150, "pass")])
def test_where_the_base_knows_little_nothing_can_be_said_about_forgetting(known: int, status: str) -> None:
    report = judged(forgetting=make_forgetting(lost=0, gained=0, base_correct=known))
    assert check(report, "forgetting").status == status


def test_the_worse_of_two_contaminations_of_one_suite_counts() -> None:
    found = [one for n in (0, 100, 1) for one in make_contamination(accuracy=n)]
    assert only(judged(contamination=found), "contamination", Status.FAIL)


def test_what_was_learnt_by_heart_does_not_hide_what_was_forgotten() -> None:
    """Of 600, 40 lost against 40 gained; but the gained ones were all in the training data."""
    clean = Pairs(n=560, base_correct=400, candidate_correct=360, lost=40, gained=0)
    assert check(judged(forgetting=make_forgetting(40, 40)), "forgetting").status is Status.PASS
    found = check(judged(forgetting=make_forgetting(40, 40, clean=clean)), "forgetting")
    assert found.status is Status.FAIL
    assert (found.observed["n"], found.observed["lost"], found.observed["left_out"]) == (560, 40, 40)
    assert "(40 items found in the training data left out)" in found.reason


@pytest.mark.parametrize(
    "clean",
    [
        {"n": 601},
        {"n": 599, "lost": 11},
        {"lost": 9},
        {"n": 590, "base_correct": 391, "candidate_correct": 401, "lost": 0},
        {"n": 0, "base_correct": 0, "candidate_correct": 0, "lost": 0, "gained": 0},
    ],
)
def test_clean_pairs_that_are_no_part_of_all_pairs_are_never_a_pass(clean: dict[str, int]) -> None:
    whole = {"n": 600, "base_correct": 400, "candidate_correct": 400, "lost": 10, "gained": 10}
    report = judged(forgetting=make_forgetting(clean=Pairs(**{**whole, **clean})))
    assert only(report, "forgetting", Status.INVALID)


@pytest.mark.parametrize("convention", ["lm_eval_compat", "", "assistant+eot/v2"])
def test_scores_by_another_convention_are_not_judged_by_these_limits(convention: str) -> None:
    report = judged(perplexity=altered(make_perplexity(), convention=convention))
    found = only(report, "perplexity", Status.INVALID)
    assert repr(convention) in found.reason and "'assistant+eot/v1' is needed" in found.reason


@pytest.mark.parametrize(
    ("kind", "section", "limit", "over"),
    [
        ("accuracy", make_accuracy, 10, {"cut_off": 11}),
        ("forgetting", make_forgetting, 30, {"cut_off": 31}),
        ("forgetting", make_forgetting, 30, {"base_cut_off": 31}),
        ("review", None, 3, {"cut_off": 4}),
    ],
)
def test_a_suite_whose_answers_were_cut_off_is_not_judged_by_their_start(
    kind: str, section: Callable[..., Any] | None, limit: int, over: dict[str, int]
) -> None:
    """5 % may be, and it is that suite's check alone that is in doubt: not the engine, nor the other suites."""

    def with_counts(counts: dict[str, int]) -> GateReport:
        part = section(**counts) if section else OutputsEvidence(suite=pinned("review"), n=60, **counts)
        return judged(**{"outputs" if kind == "review" else kind: part})

    assert with_counts(dict.fromkeys(over, limit)).verdict is Verdict.GO
    report = with_counts(over)
    found = only(report, kind, Status.INVALID)
    assert report.verdict is Verdict.INCONCLUSIVE
    assert "were cut off by max_tokens" in found.reason and "allows 5%" in found.reason


def test_a_failure_stands_however_many_answers_were_cut_off() -> None:
    """Else an adapter that fails could come back by rambling."""
    assert judged(accuracy=make_accuracy(100, cut_off=200)).verdict is Verdict.NO_GO
    assert judged(forgetting=make_forgetting(200, 0, cut_off=600, base_cut_off=600)).verdict is Verdict.NO_GO
    rude = make_ratings(safety=1)
    outputs = OutputsEvidence(suite=pinned("review"), n=60, cut_off=60)
    assert check(judged(ratings=rude, outputs=outputs), "review").status is Status.FAIL


def test_outputs_that_were_cut_off_do_not_wait_for_people() -> None:
    outputs = OutputsEvidence(suite=pinned("review"), n=60, cut_off=60)
    assert only(judged(ratings=[], outputs=outputs), "review", Status.INVALID)


def test_what_the_suite_allows_to_be_cut_off_is_judged() -> None:
    limits = {**make_subject().cut_off_limits, pinned("forgetting"): 1.0}
    evidence = make_evidence(forgetting=make_forgetting(cut_off=600, base_cut_off=600))
    assert decide(make_subject(cut_off_limits=limits), evidence, make_ratings(), SEALED).verdict is Verdict.GO


def test_of_a_suite_whose_limit_is_not_known_no_answer_may_be_cut_off() -> None:
    for cut_off, verdict in ((0, Verdict.GO), (1, Verdict.INCONCLUSIVE)):
        evidence = make_evidence(accuracy=make_accuracy(cut_off=cut_off))
        assert decide(make_subject(cut_off_limits={}), evidence, make_ratings(), SEALED).verdict is verdict
