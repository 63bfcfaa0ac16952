"""Worse is never better: no change of a number for the worse brings a verdict nearer to go."""

from collections.abc import Callable
from typing import Any

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
from gate_under_test import ARITHMETIC, BOTH, ENGINE_CANARIES, altered, judged
from hypothesis import given, settings
from hypothesis import strategies as st

from registry.gate.decision import decide
from registry.records import ContaminationEvidence, ExtraEvidence, OutputsEvidence, Pairs, Verdict

# How near to an approval each verdict is.
NEARNESS = {Verdict.NO_GO: 0, Verdict.INCONCLUSIVE: 1, Verdict.PENDING: 2, Verdict.GO: 3}
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
