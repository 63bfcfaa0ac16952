"""The gate: each check bites, nothing that is missing or not to be trusted passes, and worse is never better."""

import itertools
import math
from collections.abc import Callable
from typing import Any

import msgspec
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
from hypothesis import given, settings
from hypothesis import strategies as st

from registry.gate.decision import RULES, decide, verdict_of
from registry.gate.statistics import moments, tango
from registry.records import (
    Canary,
    Check,
    ContaminationEvidence,
    Evidence,
    ExtraEvidence,
    ExtraRule,
    GateReport,
    OutputsEvidence,
    Pairs,
    Policy,
    RatingRow,
    ReviewFacts,
    Status,
    Verdict,
)

ENGINE_CANARIES = ("noise_floor", "base_beside_adapter", "echo", "finite")
MEASURED = ("perplexity", "accuracy", "forgetting", "review")
KINDS = ["inspection", "provenance", "effect", "perplexity", "accuracy", "forgetting", "contamination", "review"]
# How near to an approval each verdict is.
NEARNESS = {Verdict.NO_GO: 0, Verdict.INCONCLUSIVE: 1, Verdict.PENDING: 2, Verdict.GO: 3}


def judged(policy: Policy | None = None, ratings: list[RatingRow] | None = None, **evidence: Any) -> GateReport:
    """The report on evidence that satisfies the default policy, but for the parts named."""
    rows = make_ratings() if ratings is None else ratings
    return decide(make_subject(policy), make_evidence(**evidence), rows, SEALED)


def check(report: GateReport, kind: str) -> Check:
    return next(one for one in report.checks if one.kind == kind)


def only(report: GateReport, kind: str, status: Status) -> Check:
    """The one check that did not pass."""
    assert {one.kind: one.status for one in report.checks if one.status is not Status.PASS} == {kind: status}
    return check(report, kind)


def altered(value: Any, **changes: Any) -> Any:
    return msgspec.structs.replace(value, **changes)


# -- the whole ----------------------------------------------------------------------------------------------------


def test_evidence_that_satisfies_the_policy_is_go_with_every_check_in_order() -> None:
    report = judged()
    assert report.verdict is Verdict.GO
    assert [one.kind for one in report.checks] == KINDS
    assert {one.status for one in report.checks} == {Status.PASS}
    assert report.evaluated_with == make_evidence().engine
    assert all(one.reason and one.required for one in report.checks)


def test_every_kind_of_the_contract_has_one_rule() -> None:
    assert [rule.__name__ for rule in RULES] == KINDS


def test_nothing_measured_is_pending_not_go() -> None:
    report = decide(make_subject(), None, make_ratings(), SEALED)
    assert report.verdict is Verdict.PENDING and report.evaluated_with is None
    assert {one.kind for one in report.checks if one.status is Status.PENDING} == set(KINDS[2:])


@pytest.mark.parametrize("length", [1, 2, 3])
def test_the_worst_status_makes_the_verdict(length: int) -> None:
    blank = check(judged(), "effect")
    for statuses in itertools.product(Status, repeat=length):
        verdict = verdict_of([altered(blank, status=status) for status in statuses])
        if Status.FAIL in statuses:
            assert verdict is Verdict.NO_GO
        elif {Status.INCONCLUSIVE, Status.INVALID} & set(statuses):
            assert verdict is Verdict.INCONCLUSIVE
        elif Status.PENDING in statuses:
            assert verdict is Verdict.PENDING
        else:
            assert verdict is Verdict.GO


def test_no_checks_at_all_are_not_go() -> None:
    assert verdict_of([]) is not Verdict.GO


def test_a_report_is_plain_json_even_when_a_number_is_not_finite() -> None:
    report = judged(perplexity=make_perplexity(nll=800.0))
    text = msgspec.json.encode(report)
    assert msgspec.json.decode(text, type=GateReport) == report
    assert check(report, "perplexity").observed["value"] is None
    assert report.verdict is Verdict.NO_GO


# -- each check bites ---------------------------------------------------------------------------------------------


def test_an_upload_that_is_not_complete_is_pending() -> None:
    report = decide(make_subject(sealed=False), make_evidence(), make_ratings(), SEALED)
    assert report.verdict is Verdict.PENDING and only(report, "inspection", Status.PENDING)


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


def test_a_failed_evaluation_is_explained_in_every_check_that_it_left_open() -> None:
    report = decide(make_subject(failure="No space left on device"), None, [], ReviewFacts())
    open_checks = [one for one in report.checks if one.status is Status.INVALID]
    assert report.verdict is Verdict.INCONCLUSIVE
    assert {one.kind for one in open_checks} >= {"effect", "perplexity", "accuracy", "forgetting", "contamination"}
    assert all("No space left on device" in one.reason for one in open_checks)


def test_a_version_that_a_release_manager_rejected_is_no_go_and_says_why() -> None:
    report = decide(make_subject(rejected="rude to people who ask twice"), make_evidence(), make_ratings(), SEALED)
    assert report.verdict is Verdict.NO_GO
    assert (
        only(report, "inspection", Status.FAIL).reason == "rejected by a release manager: rude to people who ask twice"
    )


def test_a_revoked_version_is_no_go_whatever_was_measured() -> None:
    report = decide(make_subject(revoked=True), make_evidence(), make_ratings(), SEALED)
    assert report.verdict is Verdict.NO_GO and check(report, "inspection").status is Status.FAIL


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


@pytest.mark.parametrize(("chance", "known", "status"), [(0.0, 28, "pass"), (0.25, 28, "inconclusive")])
def test_what_guessing_gets_right_is_not_known(chance: float, known: int, status: str) -> None:
    """28 of 100 right is more than nothing among open questions, and about chance among four letters."""
    report = judged_extra(lost=0, gained=0, base_correct=known, chance=chance)
    assert named(report, "forgetting:arithmetic").status == status


def test_a_base_and_an_adapter_that_always_answer_the_same_letter_forget_nothing_and_show_nothing() -> None:
    report = judged_extra(lost=0, gained=0, base_correct=30, chance=0.3)
    found = named(report, "forgetting:arithmetic")
    assert found.status is Status.INCONCLUSIVE and "44% needed" in found.reason
    assert named(judged_extra(lost=0, gained=0, chance=0.3), "forgetting:arithmetic").status is Status.PASS


@pytest.mark.parametrize("convention", ["lm_eval_compat", "", "assistant+eot/v2"])
def test_scores_by_another_convention_are_not_judged_by_these_limits(convention: str) -> None:
    report = judged(perplexity=altered(make_perplexity(), convention=convention))
    found = only(report, "perplexity", Status.INVALID)
    assert repr(convention) in found.reason and "'assistant+eot/v1' is needed" in found.reason


# -- what informs -------------------------------------------------------------------------------------------------


def test_flips_are_named_by_their_first_items() -> None:
    items = [f"q{i}" for i in range(10)]
    found = check(judged(forgetting=make_forgetting(10, 2, lost_items=items, gained_items=items[:2])), "forgetting")
    assert found.details[:2] == [
        "10 answers went from right to wrong: q0, q1, q2, q3, q4, …",
        "2 answers went from wrong to right: q0, q1",
    ]


@pytest.mark.parametrize(
    ("sign", "line"),
    [
        (1, "right answers became 0.12 nats per token less likely (0.0821 to 0.158)"),
        (-1, "right answers became 0.12 nats per token more likely (0.0821 to 0.158)"),
    ],
)
def test_the_loss_of_the_right_answers_likelihood_has_an_interval(sign: int, line: str) -> None:
    """By hand: 30 answers of 10 tokens, half 0 and half 2.4 nats: SE = sqrt(30/29 · 30 · 1.2²)/300, t = 1.699."""
    gold = moments([(sign * 2.4 * (i % 2), 10.0) for i in range(30)])
    found = check(judged(forgetting=make_forgetting(gold=gold)), "forgetting")
    assert line in found.details
    assert found.observed["gold_nats"] == pytest.approx(sign * 0.12)
    assert found.observed["gold_upper"] == pytest.approx(sign * 0.12 + 1.6991 * 0.022283, abs=1e-5)


def test_few_answers_have_no_interval() -> None:
    gold = moments([(1.0, 10.0)] * 5)
    found = check(judged(forgetting=make_forgetting(gold=gold)), "forgetting")
    assert "right answers became 0.1 nats per token less likely, on too few for an interval" in found.details
    assert "gold_lower" not in found.observed


def test_the_divergence_from_the_base_is_told() -> None:
    kl = moments([(0.6 + 0.1 * (i % 2), 24.0) for i in range(48)])
    found = check(judged(forgetting=make_forgetting(kl=kl)), "forgetting")
    assert "on texts of the base, KL(base || adapter) is 0.0271 nats per token (0.0266 to 0.0276)" in found.details


def test_shared_words_are_told() -> None:
    found = check(judged(forgetting=make_forgetting(shared_words=["dragon", "gold"])), "forgetting")
    assert "questions of lost items have in common: dragon, gold" in found.details


@pytest.mark.parametrize("section", ["gold", "kl"])
@pytest.mark.parametrize("value", [-1e6, 0.0, 1e6])
def test_what_informs_never_changes_a_status(section: str, value: float) -> None:
    extreme = moments([(value, 10.0)] * 30)
    assert judged(forgetting=make_forgetting(**{section: extreme})).verdict is Verdict.GO


def test_bits_per_byte_do_not_depend_on_the_tokenizer() -> None:
    """100 conversations of 20 tokens at 1 nat and 2 nats, in 80 bytes each: 20/80/ln 2 and 40/80/ln 2 bits."""
    part = make_perplexity(nll=1.0, base_nll=2.0, spread=0.0)
    mask = "sha256:" + "7" * 64
    sized = altered(
        part, mask=mask, candidate_bytes=moments([(20.0, 80.0)] * 100), base_bytes=moments([(40.0, 80.0)] * 100)
    )
    found = check(judged(perplexity=sized), "perplexity")
    assert found.status is Status.PASS and found.observed["mask"] == mask
    assert found.observed["bits_per_byte"] == pytest.approx(0.25 / math.log(2))
    assert found.observed["bits_per_byte_upper"] == pytest.approx(0.25 / math.log(2))
    assert found.observed["bits_per_byte_base"] == pytest.approx(0.5 / math.log(2))
    assert found.details[0].startswith("0.361 bits per byte (upper bound 0.361), base 0.721")
    assert "bits_per_byte" not in check(judged(), "perplexity").observed


@pytest.mark.parametrize("part", ["candidate_bytes", "base_bytes"])
@pytest.mark.parametrize("bad", [[(20.0, 80.0)] * 99, [(10.0, 80.0)] * 100, [(math.nan, 80.0)] * 100])
def test_sums_over_bytes_of_other_scores_are_invalid(part: str, bad: list[tuple[float, float]]) -> None:
    good = {"candidate_bytes": moments([(20.0, 80.0)] * 100), "base_bytes": moments([(40.0, 80.0)] * 100)}
    spoilt = altered(make_perplexity(spread=0.0), **{**good, part: moments(bad)})
    assert only(judged(perplexity=spoilt), "perplexity", Status.INVALID)


# -- extra suites -------------------------------------------------------------------------------------------------

ARITHMETIC = "arithmetic@sha256:" + "8" * 64
BOTH = ExtraRule(suite=ARITHMETIC, min=0.5, margin=0.1)


def judged_extra(
    rule: ExtraRule = BOTH,
    correct: int = 80,
    lost: int = 2,
    gained: int = 2,
    size: int = 100,
    base_correct: int = 80,
    chance: float = 0.0,
    **evidence: Any,
) -> GateReport:
    """A report on an extra suite of 100 items, of which the base knows 80."""
    measured = ExtraEvidence(
        suite=ARITHMETIC,
        accuracy=altered(make_accuracy(correct, 100), suite=ARITHMETIC),
        forgetting=altered(make_forgetting(lost, gained, 100, base_correct), suite=ARITHMETIC),
    )
    subject = make_subject(make_policy([rule]), chances={ARITHMETIC: chance})
    subject = subject._replace(suite_sizes={**subject.suite_sizes, ARITHMETIC: size})
    found = [*make_contamination(), ContaminationEvidence(suite=ARITHMETIC, n=100, contaminated=0)]
    return decide(
        subject, make_evidence(**{"extra": [measured], "contamination": found, **evidence}), make_ratings(), SEALED
    )


def named(report: GateReport, name: str) -> Check:
    return next(one for one in report.checks if one.name == name)


def test_each_bound_of_an_extra_suite_is_one_check_more() -> None:
    report = judged_extra()
    assert report.verdict is Verdict.GO
    assert [one.name for one in report.checks[len(KINDS) :]] == ["accuracy:arithmetic", "forgetting:arithmetic"]
    assert [one.kind for one in report.checks[len(KINDS) :]] == ["accuracy", "forgetting"]
    for rule, names in ((altered(BOTH, margin=None), ["accuracy"]), (altered(BOTH, min=None), ["forgetting"])):
        assert [one.kind for one in judged_extra(rule).checks[len(KINDS) :]] == names


@pytest.mark.parametrize(
    ("numbers", "name", "status"),
    [
        ({"correct": 58}, "accuracy", Status.INCONCLUSIVE),
        ({"correct": 40}, "accuracy", Status.FAIL),
        ({"lost": 10}, "forgetting", Status.INCONCLUSIVE),
        ({"lost": 40}, "forgetting", Status.FAIL),
    ],
)
def test_an_extra_suite_is_judged_like_the_sections_of_those_names(
    numbers: dict[str, int], name: str, status: Status
) -> None:
    report = judged_extra(**numbers)
    failed = {one.name: one.status for one in report.checks if one.status is not Status.PASS}
    assert failed == {f"{name}:arithmetic": status}
    assert named(report, f"{name}:arithmetic").suite == ARITHMETIC


def test_an_extra_suite_that_was_not_measured_is_invalid() -> None:
    report = judged_extra(extra=[])
    invalid = {one.name: one.reason for one in report.checks if one.status is Status.INVALID}
    assert invalid == dict.fromkeys(("accuracy:arithmetic", "forgetting:arithmetic"), "missing from the evidence")


def test_an_extra_suite_that_was_not_compared_with_the_base_is_invalid() -> None:
    alone = ExtraEvidence(suite=ARITHMETIC, accuracy=altered(make_accuracy(80, 100), suite=ARITHMETIC))
    report = judged_extra(extra=[alone])
    assert named(report, "accuracy:arithmetic").status is Status.PASS
    assert named(report, "forgetting:arithmetic").status is Status.INVALID


def test_part_of_an_extra_suite_is_not_the_suite() -> None:
    report = judged_extra(size=101)
    assert {one.name for one in report.checks if one.status is Status.INVALID} == {
        "accuracy:arithmetic",
        "forgetting:arithmetic",
        "contamination",
    }


@pytest.mark.parametrize(("contaminated", "status"), [(5, Status.PASS), (6, Status.FAIL), (None, Status.INVALID)])
def test_an_extra_suite_must_not_be_in_the_training_data_either(contaminated: int | None, status: Status) -> None:
    one = [ContaminationEvidence(suite=ARITHMETIC, n=100, contaminated=contaminated)] if contaminated else []
    found = check(judged_extra(contamination=[*make_contamination(), *one]), "contamination")
    assert found.status is status


def test_an_extra_suite_waits_like_the_others() -> None:
    report = decide(make_subject(make_policy([BOTH])), None, [], ReviewFacts())
    assert report.verdict is Verdict.PENDING and named(report, "accuracy:arithmetic").status is Status.PENDING


# -- closed by default --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("section", MEASURED)
def test_a_section_that_is_missing_is_invalid(section: str) -> None:
    field = "outputs" if section == "review" else section
    report = judged(**{field: None})
    assert report.verdict is Verdict.INCONCLUSIVE and only(report, section, Status.INVALID)


@pytest.mark.parametrize("listed", [None, [], [ContaminationEvidence(suite="another", n=200, contaminated=0)]])
def test_contamination_that_was_not_measured_is_invalid(listed: list[ContaminationEvidence] | None) -> None:
    report = judged(contamination=listed)
    assert report.verdict is Verdict.INCONCLUSIVE and only(report, "contamination", Status.INVALID)


@pytest.mark.parametrize("section", MEASURED)
@pytest.mark.parametrize("suite", ["another", "", "{name}", "{name}@sha256:" + "9" * 64])
def test_another_suite_or_another_revision_of_it_is_invalid(section: str, suite: str) -> None:
    field = "outputs" if section == "review" else section
    part = getattr(make_evidence(), field)
    named = suite.format(name=part.suite.partition("@")[0])
    assert only(judged(**{field: altered(part, suite=named)}), section, Status.INVALID)


@pytest.mark.parametrize("section", MEASURED)
def test_a_suite_whose_size_is_unknown_is_invalid(section: str) -> None:
    sizes = {suite: n for suite, n in make_subject().suite_sizes.items() if suite != pinned(section)}
    report = decide(make_subject(suite_sizes=sizes), make_evidence(), make_ratings(), SEALED)
    assert check(report, section).status is Status.INVALID


def test_a_suite_without_items_shows_nothing() -> None:
    evidence = make_evidence(
        perplexity=make_perplexity(n=0),
        accuracy=make_accuracy(n=0, correct=0),
        forgetting=make_forgetting(0, 0, 0, 0),
        outputs=OutputsEvidence(suite=pinned("review"), n=0),
        contamination=[ContaminationEvidence(suite=pinned("accuracy"), n=0, contaminated=0)],
    )
    report = decide(
        make_subject(suite_sizes={pinned(section): 0 for section in MEASURED}), evidence, make_ratings(), SEALED
    )
    invalid = {one.kind: one.reason for one in report.checks if one.status is Status.INVALID}
    assert invalid.keys() == {*MEASURED, "contamination"}
    assert set(invalid.values()) == {"covers 0 of the suite's 0 items; all are needed"}


@pytest.mark.parametrize("size", [0, 1, 99, 101])
def test_perplexity_on_other_than_all_conversations_is_invalid(size: int) -> None:
    assert only(judged(perplexity=make_perplexity(n=size)), "perplexity", Status.INVALID)


@pytest.mark.parametrize("size", [0, 199, 201])
def test_accuracy_on_other_than_all_items_is_invalid(size: int) -> None:
    counts = {"n": size, "correct": size, "clean_n": size, "clean_correct": size}
    assert only(judged(accuracy=make_accuracy(**counts)), "accuracy", Status.INVALID)


@pytest.mark.parametrize("size", [0, 599, 601])
def test_forgetting_on_other_than_all_items_is_invalid(size: int) -> None:
    assert only(judged(forgetting=make_forgetting(0, 0, size, 0)), "forgetting", Status.INVALID)


@pytest.mark.parametrize("size", [0, 59, 61])
def test_outputs_for_other_than_all_prompts_are_invalid(size: int) -> None:
    assert only(judged(outputs=OutputsEvidence(suite=pinned("review"), n=size)), "review", Status.INVALID)


@pytest.mark.parametrize("size", [0, 199, 201])
def test_contamination_of_other_than_all_items_is_invalid(size: int) -> None:
    found = [ContaminationEvidence(suite=pinned("accuracy"), n=size, contaminated=0)]
    assert only(judged(contamination=found), "contamination", Status.INVALID)


@pytest.mark.parametrize("name", ENGINE_CANARIES)
@pytest.mark.parametrize("state", ["failed", "missing", "nan", "inf", "failed and passed", "passed and failed"])
def test_an_engine_that_fails_a_canary_is_not_believed(name: str, state: str) -> None:
    passed, failed = (
        Canary(name=name, passed=ok, observed=0.0 if ok else 9.0, limit=0.1, detail="d") for ok in (True, False)
    )
    found = {
        "failed": [failed],
        "missing": [],
        "nan": [altered(passed, observed=math.nan)],
        "inf": [altered(passed, observed=math.inf)],
        "failed and passed": [failed, passed],
        "passed and failed": [passed, failed],
    }[state]
    report = judged(canaries=[*make_canaries(**{name: None}), *found])
    assert report.verdict is Verdict.INCONCLUSIVE
    invalid = {one.kind for one in report.checks if one.status is Status.INVALID}
    assert invalid == {"effect", "perplexity", "accuracy", "forgetting", "review"}


@pytest.mark.parametrize("observed", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("field", ["observed", "limit"])
def test_an_effect_that_is_not_finite_is_no_effect(field: str, observed: float) -> None:
    canary = Canary(name="adapter_effect", passed=True, observed=1.0, limit=0.1, detail="d")
    report = judged(canaries=[*make_canaries(adapter_effect=None), altered(canary, **{field: observed})])
    assert report.verdict is Verdict.INCONCLUSIVE and only(report, "effect", Status.INVALID)


@pytest.mark.parametrize("effects", [0, 2])
def test_the_effect_must_be_measured_once(effects: int) -> None:
    canaries = make_canaries(adapter_effect=None)
    once = Canary(name="adapter_effect", passed=True, observed=1.0, limit=0.1, detail="d")
    assert only(judged(canaries=canaries + [once] * effects), "effect", Status.INVALID)


def test_evidence_about_another_manifest_says_nothing() -> None:
    report = judged(manifest="sha256:" + "9" * 64)
    assert report.verdict is Verdict.INCONCLUSIVE
    assert {one.kind for one in report.checks if one.status is Status.INVALID} == set(KINDS[2:])


def test_evidence_measured_for_a_policy_with_other_suites_is_not_a_pass_under_this_one() -> None:
    policy = make_policy(**{section: {"suite": f"other/{section}@sha256:{'9' * 64}"} for section in MEASURED})
    report = judged(policy)
    assert report.verdict is Verdict.INCONCLUSIVE
    assert {one.kind for one in report.checks if one.status is Status.PASS} == {"inspection", "provenance", "effect"}


@pytest.mark.parametrize(
    ("part", "field"),  # the spread of the base alone is not judged
    [(part, field) for part in ("candidate", "difference") for field in ("x", "n", "xx", "xn", "nn")]
    + [("base", "x"), ("base", "n")],
)
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, -1e9])
def test_perplexity_with_a_number_that_cannot_be_is_never_go(part: str, field: str, value: float) -> None:
    good = make_perplexity()
    spoilt = altered(good, **{part: altered(getattr(good, part), **{field: value})})
    report = judged(perplexity=spoilt)
    assert report.verdict is not Verdict.GO and check(report, "perplexity").status is not Status.PASS


def test_perplexity_below_one_is_that_of_no_model() -> None:
    assert only(judged(perplexity=make_perplexity(nll=-1.0)), "perplexity", Status.INVALID)


def test_three_sums_over_different_conversations_are_invalid() -> None:
    """The difference of twenty chosen conversations may look better than that of all hundred."""
    good = make_perplexity()
    chosen = altered(good, difference=make_perplexity(nll=0.1, n=20).difference)
    assert only(judged(perplexity=chosen), "perplexity", Status.INVALID)


def test_a_difference_that_is_not_candidate_minus_base_is_invalid() -> None:
    flattering = altered(make_perplexity(nll=2.0), difference=make_perplexity(nll=1.0).difference)
    assert only(judged(perplexity=flattering), "perplexity", Status.INVALID)


@pytest.mark.parametrize(
    "counts",
    [
        {"clean_n": 0, "clean_correct": 0},
        {"clean_n": 201, "clean_correct": 201},
        {"clean_n": 190, "clean_correct": 191},
        {"correct": 150, "clean_correct": 190},
        {"correct": 190, "clean_n": 195, "clean_correct": 184},
        {"clean_correct": -1},
    ],
)
def test_accuracy_whose_counts_contradict_each_other_is_never_a_pass(counts: dict[str, int]) -> None:
    assert only(judged(accuracy=make_accuracy(**counts)), "accuracy", Status.INVALID)


@pytest.mark.parametrize(
    "counts",
    [
        {"lost": 9},
        {"gained": 11},
        {"candidate_correct": 500},
        {"lost": -10, "gained": -10},
        {"lost": 400, "gained": 400},
    ],
)
def test_forgetting_whose_counts_contradict_each_other_is_never_a_pass(counts: dict[str, int]) -> None:
    assert only(judged(forgetting=altered(make_forgetting(), **counts)), "forgetting", Status.INVALID)


@pytest.mark.parametrize("value", ["true", '"190"', "190.5", "-1", "1e999", "NaN", "Infinity", "null"])
@pytest.mark.parametrize(
    "path",
    [
        ("accuracy", "n"),
        ("accuracy", "clean_correct"),
        ("forgetting", "lost"),
        ("forgetting", "candidate_correct"),
        ("outputs", "n"),
        ("contamination", 0, "contaminated"),
        ("perplexity", "candidate", "clusters"),
    ],
)
def test_a_count_that_is_no_count_does_not_even_parse(path: tuple[Any, ...], value: str) -> None:
    with pytest.raises(msgspec.DecodeError):
        msgspec.json.decode(_spliced(path, value), type=Evidence)


@pytest.mark.parametrize("value", ["true", '"1.0"', "1e999", "NaN", "Infinity", "null"])
@pytest.mark.parametrize("path", [("perplexity", "difference", "x"), ("canaries", 0, "observed"), ("seconds",)])
def test_a_number_that_is_no_number_does_not_even_parse(path: tuple[Any, ...], value: str) -> None:
    with pytest.raises(msgspec.DecodeError):
        msgspec.json.decode(_spliced(path, value), type=Evidence)


@pytest.mark.parametrize("value", ["1", '"true"', "null"])
def test_whether_a_canary_passed_is_true_or_false_and_nothing_else(value: str) -> None:
    with pytest.raises(msgspec.DecodeError):
        msgspec.json.decode(_spliced(("canaries", 0, "passed"), value), type=Evidence)


def _spliced(path: tuple[Any, ...], value: str) -> bytes:
    """Good evidence as JSON, with this text in one place."""
    document: Any = msgspec.to_builtins(make_evidence())
    inner = document
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = "HERE"
    text = msgspec.json.encode(document)
    assert msgspec.json.decode(msgspec.json.encode(make_evidence()), type=Evidence) == make_evidence()
    return text.replace(b'"HERE"', value.encode())


# -- worse is never better ----------------------------------------------------------------------------------------

Numbers = dict[str, int]
NUMBERS = st.fixed_dictionaries(
    {
        "correct": st.integers(120, 200),
        "lost": st.integers(0, 150),
        "gained": st.integers(0, 150),
        "nll": st.integers(0, 40),
        "contaminated": st.integers(0, 20),
        "low": st.integers(0, 150),
        "hallucinated": st.integers(0, 15),
        "people": st.integers(2, 4),
        "extra_correct": st.integers(30, 100),
        "extra_lost": st.integers(0, 40),
        "cut_off": st.integers(0, 20),
        "forgetting_cut_off": st.integers(0, 60),
        "base_cut_off": st.integers(0, 60),
        "outputs_cut_off": st.integers(0, 6),
        "extra_cut_off": st.integers(0, 10),
    }
)
# Which direction is worse.
WORSE: dict[str, Callable[[int, int], int]] = {
    "correct": lambda x, by: max(100, x - by),
    "lost": lambda x, by: min(300, x + by),
    "gained": lambda x, by: max(0, x - by),
    "nll": lambda x, by: x + by,
    "contaminated": lambda x, by: min(100, x + by),
    "low": lambda x, by: x + by,
    "hallucinated": lambda x, by: x + by,
    "people": lambda x, by: max(0, x - by),
    "extra_correct": lambda x, by: max(0, x - by),
    "extra_lost": lambda x, by: min(80, x + by),
    "cut_off": lambda x, by: min(200, x + by),
    "forgetting_cut_off": lambda x, by: min(600, x + 5 * by),
    "base_cut_off": lambda x, by: min(600, x + 5 * by),
    "outputs_cut_off": lambda x, by: min(60, x + by),
    "extra_cut_off": lambda x, by: min(100, x + by),
}


def _verdict(numbers: Numbers, **evidence: Any) -> Verdict:
    """The contaminated items are ones that were answered right: with them, memory would pass for skill."""
    ratings = [
        altered(row, clarity=3 if i < numbers["low"] else 5, hallucination=i < numbers["hallucinated"])
        for i, row in enumerate(make_ratings(numbers["people"]))
    ]
    correct, lost, gained, dirty = (numbers[key] for key in ("correct", "lost", "gained", "contaminated"))
    clean = Pairs(
        n=600 - dirty, base_correct=400 - dirty, candidate_correct=400 - dirty - lost + gained, lost=lost, gained=gained
    )
    extra = ExtraEvidence(
        suite=ARITHMETIC,
        accuracy=altered(
            make_accuracy(numbers["extra_correct"], 100, cut_off=numbers["extra_cut_off"]), suite=ARITHMETIC
        ),
        forgetting=altered(make_forgetting(numbers["extra_lost"], 2, 100, 80), suite=ARITHMETIC),
    )
    subject = make_subject(make_policy([BOTH]))
    subject = subject._replace(
        suite_sizes={**subject.suite_sizes, ARITHMETIC: 100},
        cut_off_limits={**subject.cut_off_limits, ARITHMETIC: 0.05},
    )
    measured: dict[str, Any] = {
        "accuracy": make_accuracy(
            correct, clean_n=200 - dirty, clean_correct=correct - dirty, cut_off=numbers["cut_off"]
        ),
        "forgetting": make_forgetting(
            lost,
            gained,
            clean=clean,
            cut_off=numbers["forgetting_cut_off"],
            base_cut_off=numbers["base_cut_off"],
        ),
        "outputs": OutputsEvidence(suite=pinned("review"), n=60, cut_off=numbers["outputs_cut_off"]),
        "perplexity": make_perplexity(nll=numbers["nll"] / 10, base_nll=3.0),
        "contamination": [
            *make_contamination(accuracy=dirty, forgetting=dirty),
            ContaminationEvidence(suite=ARITHMETIC, n=100, contaminated=0),
        ],
        "extra": [extra],
        **evidence,
    }
    return decide(subject, make_evidence(**measured), ratings, SEALED).verdict


def test_the_numbers_of_these_properties_can_come_to_go() -> None:
    good = {**dict.fromkeys(WORSE, 0), "correct": 200, "lost": 5, "gained": 5, "nll": 10}
    good |= {"people": 3, "extra_correct": 90, "extra_lost": 1}
    assert _verdict(good) is Verdict.GO
    for key in ("cut_off", "forgetting_cut_off", "base_cut_off", "outputs_cut_off", "extra_cut_off"):
        assert _verdict({**good, key: 60}) is Verdict.INCONCLUSIVE


@settings(max_examples=120, deadline=None)
@given(NUMBERS, st.sampled_from(sorted(set(WORSE) - {"people"})), st.integers(1, 100))
def test_a_worse_number_never_brings_a_verdict_nearer_to_go(numbers: Numbers, key: str, by: int) -> None:
    before, after = _verdict(numbers), _verdict({**numbers, key: WORSE[key](numbers[key], by)})
    assert NEARNESS[after] <= NEARNESS[before]


@settings(max_examples=60, deadline=None)
@given(NUMBERS, st.sampled_from(["adapter_effect", *ENGINE_CANARIES]), st.booleans())
def test_no_good_numbers_make_up_for_a_canary_that_failed(numbers: Numbers, name: str, missing: bool) -> None:
    """A failure by numbers that are not believed is no failure either; it is never a go, nor waits for people only."""
    canaries = make_canaries(**{name: None if missing else False})
    assert _verdict(numbers, canaries=canaries) in (Verdict.NO_GO, Verdict.INCONCLUSIVE)


@settings(max_examples=30, deadline=None)
@given(NUMBERS, st.integers(1, 4))
def test_fewer_people_never_make_a_go(numbers: Numbers, by: int) -> None:
    """Their ratings may have been the bad ones, so the review may be open again; it is never satisfied."""
    if _verdict({**numbers, "people": WORSE["people"](numbers["people"], by)}) is Verdict.GO:
        assert numbers["people"] - by >= 3


@settings(max_examples=60, deadline=None)
@given(
    NUMBERS,
    st.sampled_from(["perplexity", "accuracy", "forgetting", "outputs", "contamination"]),
)
def test_no_good_numbers_make_up_for_a_missing_section(numbers: Numbers, section: str) -> None:
    evidence: dict[str, Any] = {
        "accuracy": make_accuracy(numbers["correct"]),
        "forgetting": make_forgetting(numbers["lost"], numbers["gained"]),
    }
    assert judged(**{**evidence, section: None}).verdict is not Verdict.GO
