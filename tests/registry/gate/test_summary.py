"""The one place where counts come from: by hand on few rows, and in any order."""

import math
import random

import msgspec
import pytest
from factories import make_policy, make_row, pinned
from hypothesis import given, settings
from hypothesis import strategies as st

from registry.gate.summary import Sections, shared_words, suite_refs, summarise
from registry.records import (
    AccuracyEvidence,
    ContaminationEvidence,
    ExtraEvidence,
    ExtraRule,
    ItemRow,
    Pairs,
    PerplexityEvidence,
    Slice,
)

PERPLEXITY, ACCURACY, FORGETTING, REVIEW = map(pinned, ("perplexity", "accuracy", "forgetting", "review"))
CHOICES = "arithmetic@sha256:" + "8" * 64


def summary(rows: list[ItemRow], extra: tuple[ExtraRule, ...] = (), mask: str | None = None) -> Sections:
    return summarise(make_policy(extra), rows, "assistant+eot/v1", mask)


def pair(item: str, base: bool, candidate: bool, suite: str = FORGETTING, **changes: object) -> list[ItemRow]:
    tags = changes.pop("tags", [])
    return [
        make_row(suite, item, "base", correct=base, tags=tags, prompt=changes.get("prompt")),
        make_row(suite, item, "candidate", correct=candidate, tags=tags, **changes),
    ]


def test_no_rows_are_no_sections() -> None:
    assert summary([]) == Sections(None, None, None, None, None, [])


def test_accuracy_counts_answers_and_leaves_the_contaminated_out_of_the_clean() -> None:
    rows = [
        make_row(ACCURACY, "a", correct=True, contaminated=True, finish="stop", tags=["x"]),
        make_row(ACCURACY, "b", correct=True, contaminated=False, finish="length", tags=["x", "y"]),
        make_row(ACCURACY, "c", correct=False, contaminated=False, finish="stop", tags=["y"]),
        make_row(ACCURACY, "d", correct=True, contaminated=False, finish="stop", tags=[]),
    ]
    assert summary(rows).accuracy == AccuracyEvidence(
        suite=ACCURACY,
        n=4,
        correct=3,
        clean_n=3,
        clean_correct=2,
        cut_off=1,
        slices=[Slice(tag="x", n=1, correct=1), Slice(tag="y", n=2, correct=1)],
    )


def test_forgetting_pairs_items_and_counts_the_clean_ones_apart() -> None:
    rows = [
        *pair("a", True, True, contaminated=False, tags=["t"]),
        *pair("b", True, False, contaminated=False, tags=["t"]),
        *pair("c", False, True, contaminated=False, tags=["u"]),
        *pair("d", True, False, contaminated=True, tags=["u"]),
        *pair("e", False, False, contaminated=False),
    ]
    found = summary(rows).forgetting
    assert found is not None
    assert (found.n, found.base_correct, found.candidate_correct, found.lost, found.gained) == (5, 3, 2, 2, 1)
    assert found.clean == Pairs(n=4, base_correct=2, candidate_correct=2, lost=1, gained=1)
    assert found.slices == [
        Slice(tag="t", n=2, correct=1, lost=1, gained=0),
        Slice(tag="u", n=1, correct=1, lost=0, gained=1),
    ]
    assert (found.lost_items, found.gained_items, found.open_gains) == (["b", "d"], ["c"], 0)
    assert found.gold is None and found.kl is None


def test_what_the_candidate_was_not_asked_can_be_gained_where_the_base_is_wrong() -> None:
    rows = [*pair("a", True, True), *pair("b", False, True), *pair("c", False, True)]
    asked = [row for row in rows if (row.item, row.subject) not in {("a", "candidate"), ("b", "candidate")}]
    found = summary(asked).forgetting
    assert found is not None and (found.n, found.gained, found.open_gains) == (1, 1, 1)


def test_the_right_answers_likelihood_is_compared_on_clean_items_that_have_it() -> None:
    rows = [
        make_row(FORGETTING, item, subject, correct=True, contaminated=dirty, gold_nll_nats=nats, gold_tokens=tokens)
        for item, dirty, tokens, scores in (
            ("a", False, 2, {"base": 1.0, "candidate": 1.5}),
            ("b", False, 4, {"base": 2.0, "candidate": 1.0}),
            ("c", True, 4, {"base": 2.0, "candidate": 9.0}),
            ("d", False, None, {"base": None, "candidate": None}),
        )
        for subject, nats in scores.items()
    ]
    found = summary(rows).forgetting
    assert found is not None and found.gold is not None
    assert (found.gold.clusters, found.gold.x, found.gold.n) == (2, -0.5, 6.0)


def test_divergence_is_summed_over_the_candidates_rows() -> None:
    rows = [*pair("a", True, True, kl_nats=0.5, kl_tokens=10), *pair("b", True, True, kl_nats=-0.1, kl_tokens=8)]
    found = summary([*rows, *pair("c", True, True)]).forgetting
    assert found is not None and found.kl is not None
    assert (found.kl.clusters, found.kl.x, found.kl.n) == (2, pytest.approx(0.4), 18.0)


def test_perplexity_sums_scores_over_tokens_and_over_bytes() -> None:
    rows = [
        make_row(PERPLEXITY, item, subject, nll_nats=nats, n_tokens=tokens, n_bytes=size)
        for item, tokens, size, scores in (
            ("a", 3, 12, {"base": 6.0, "candidate": 3.0}),
            ("b", 5, 30, {"base": 5.0, "candidate": 4.0}),
        )
        for subject, nats in scores.items()
    ]
    found = summary(rows, mask="sha256:" + "7" * 64).perplexity
    assert isinstance(found, PerplexityEvidence) and found.candidate_bytes is not None and found.base_bytes is not None
    assert (found.convention, found.mask) == ("assistant+eot/v1", "sha256:" + "7" * 64)
    assert (found.candidate.x, found.base.x, found.difference.x, found.candidate.n) == (7.0, 11.0, -4.0, 8.0)
    assert (found.difference.xx, found.difference.xn) == (9.0 + 1.0, -9.0 - 5.0)
    assert (found.candidate_bytes.x, found.candidate_bytes.n, found.base_bytes.x) == (7.0, 42.0, 11.0)
    one = msgspec.structs.replace(rows[0], n_bytes=None)
    unsized = summary([one, *rows[1:]]).perplexity
    assert unsized is not None and unsized.candidate_bytes is None and unsized.base_bytes is None


def test_contamination_is_counted_where_it_was_looked_for() -> None:
    rows = [
        *pair("a", True, True, contaminated=True),
        *pair("b", True, True, contaminated=False),
        make_row(ACCURACY, "a", correct=True),
        make_row(PERPLEXITY, "a", nll_nats=1.0, n_tokens=1, contaminated=False),
        make_row(PERPLEXITY, "b", nll_nats=1.0, n_tokens=1),
    ]
    assert summary(rows).contamination == [
        ContaminationEvidence(suite=PERPLEXITY, n=1, contaminated=0),  # one of two: the gate finds that incomplete
        ContaminationEvidence(suite=FORGETTING, n=2, contaminated=1),
    ]


def test_only_outputs_that_can_be_shown_count() -> None:
    rows = [make_row(REVIEW, "a", prompt="p", output="o"), make_row(REVIEW, "b", prompt="p")]
    found = summary(rows).outputs
    assert found is not None and found.n == 1


@pytest.mark.parametrize("margin", [None, 0.05])
def test_an_extra_suite_is_compared_with_the_base_only_where_its_rule_asks(margin: float | None) -> None:
    rule = ExtraRule(suite=CHOICES, min=0.5, margin=margin)
    rows = [*pair("a", True, True, CHOICES), *pair("b", True, False, CHOICES)]
    (found,) = summary(rows, (rule,)).extra
    assert isinstance(found, ExtraEvidence) and (found.accuracy.n, found.accuracy.correct) == (2, 1)
    assert (found.forgetting is not None) == (margin is not None)
    assert found.forgetting is None or (found.forgetting.n, found.forgetting.lost) == (2, 1)


def test_an_extra_suite_without_rows_has_no_entry() -> None:
    assert summary([], (ExtraRule(suite=CHOICES, min=0.5),)).extra == []


def test_rows_of_neither_side_are_of_no_account() -> None:
    assert summary([make_row(ACCURACY, "a", "somebody", correct=True)]).accuracy is None


def test_the_suites_of_a_policy_are_each_named_once() -> None:
    policy = make_policy((ExtraRule(suite=CHOICES, min=0.5),), forgetting={"suite": ACCURACY})
    assert suite_refs(policy) == [PERPLEXITY, ACCURACY, REVIEW, CHOICES]


def test_only_the_first_fifty_flips_are_named() -> None:
    rows = [row for i in range(70) for row in pair(f"i{i:02}", True, False)]
    found = summary(rows).forgetting
    assert found is not None and found.lost == 70 and found.lost_items == [f"i{i:02}" for i in range(50)]


# -- words --------------------------------------------------------------------------------------------------------


def asked(*questions: str) -> dict[str, ItemRow]:
    return {f"q{i}": make_row(FORGETTING, f"q{i}", prompt=text) for i, text in enumerate(questions)}


DRAGONS = ["Which dragon guards the gold?", "Name a Dragon of the north.", "How old is the dragon, really?"]
OTHERS = [f"What is the capital of country {chr(97 + i) * 4}?" for i in range(17)]


def test_a_word_that_three_lost_questions_share_and_few_others_have_is_named() -> None:
    """Share among the lost (3+1)/(3+2) = 0.8, in all (3+1)/(20+2) = 0.18: 4.4 times as often."""
    assert shared_words(asked(*DRAGONS, *OTHERS), ["q0", "q1", "q2"]) == ["dragon"]


def test_a_word_that_is_everywhere_says_nothing() -> None:
    rows = asked(*DRAGONS, *OTHERS)
    assert "the" not in shared_words(rows, ["q0", "q1", "q2"])
    assert shared_words(rows, list(rows)) == []


def test_two_lost_questions_are_too_few_to_share_a_word() -> None:
    assert shared_words(asked(*DRAGONS, *OTHERS), ["q0", "q1"]) == []


def test_a_word_twice_as_often_counts_and_one_a_little_less_does_not() -> None:
    """Of 8 lost of 28: with 6 more that have it elsewhere the ratio is (8+1)/(8+2) / ((14+1)/(28+2)) = 1.8."""
    for elsewhere, named in ((3, True), (6, False)):
        rows = asked(*["dragon"] * (8 + elsewhere), *[f"word{chr(97 + i)}" for i in range(20 - elsewhere)])
        found = shared_words(rows, [f"q{i}" for i in range(8)])
        assert (found == ["dragon"]) == named


def test_words_are_ordered_by_how_telling_they_are_and_then_alphabetically() -> None:
    lost = ["zebra apple lion"] * 3 + ["apple zebra"]
    rows = asked(*lost, *["lion"] * 2, *["other"] * 30)
    assert shared_words(rows, ["q0", "q1", "q2", "q3"]) == ["apple", "zebra", "lion"]
    many = asked(*[" ".join(f"word{chr(97 + i)}" for i in range(12))] * 3, *["other"] * 30)
    assert shared_words(many, ["q0", "q1", "q2"]) == [f"word{chr(97 + i)}" for i in range(8)]


def test_short_words_digits_and_missing_questions_are_no_words() -> None:
    rows = asked(*["go to 12345 it2"] * 3, *["other"] * 30)
    rows["q0"] = msgspec.structs.replace(rows["q0"], prompt=None)
    assert shared_words(rows, ["q0", "q1", "q2"]) == []


# -- order --------------------------------------------------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6))
def test_the_order_of_the_rows_changes_nothing_not_even_the_last_bit(seed: int) -> None:
    rng = random.Random(seed)
    rows = [
        row
        for i in range(30)
        for row in pair(
            f"i{i}", rng.random() < 0.7, rng.random() < 0.6, contaminated=rng.random() < 0.1, tags=[rng.choice("abc")]
        )
    ]
    rows += [
        make_row(PERPLEXITY, f"i{i}", subject, nll_nats=rng.expovariate(0.1), n_tokens=7, n_bytes=9)
        for i in range(30)
        for subject in ("candidate", "base")
    ]
    shuffled = rng.sample(rows, len(rows))
    assert summary(rows) == summary(shuffled)
    assert math.isfinite(summary(rows).perplexity.candidate.x)  # type: ignore[union-attr]
