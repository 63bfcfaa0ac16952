"""The gate is closed by default: nothing that is missing, of another thing or not to be trusted passes."""

import math
from typing import Any

import msgspec
import pytest
from factories import (
    SEALED,
    make_accuracy,
    make_canaries,
    make_evidence,
    make_forgetting,
    make_perplexity,
    make_policy,
    make_ratings,
    make_subject,
    pinned,
)
from gate_under_test import ENGINE_CANARIES, KINDS, MEASURED, altered, check, judged, only

from registry.gate.decision import decide
from registry.records import Canary, ContaminationEvidence, Evidence, OutputsEvidence, Status, Verdict


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
