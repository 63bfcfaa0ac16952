"""Evidence against its own rows: every number is recomputed, and every contradiction is named."""

import functools
import math
from typing import Any

import msgspec
import pytest
from factories import MASK, SUITES, make_canaries, make_policy, make_row, make_subject, pinned, rows_and_evidence

from registry.gate import rows as rule
from registry.gate.rows import outputs
from registry.gate.summary import summarise
from registry.records import CONVENTION, Canary, Evidence, ItemRow

POLICY = make_policy()
PINNED = {section: pinned(section) for section in SUITES}
contradictions = functools.partial(rule.contradictions, cut_off_limits=make_subject().cut_off_limits)


def good() -> tuple[list[ItemRow], Evidence]:
    return rows_and_evidence(PINNED, "sha256:" + "4" * 64, "sha256:" + "5" * 64)


ROWS, EVIDENCE = good()


def altered(section: str, **changes: Any) -> Evidence:
    """The evidence with one section changed."""
    part = getattr(EVIDENCE, section)
    if isinstance(part, list):
        return msgspec.structs.replace(EVIDENCE, **{section: [msgspec.structs.replace(part[0], **changes), *part[1:]]})
    return msgspec.structs.replace(EVIDENCE, **{section: msgspec.structs.replace(part, **changes)})


def changed(position: int, **changes: Any) -> list[ItemRow]:
    return [msgspec.structs.replace(row, **changes) if i == position else row for i, row in enumerate(ROWS)]


def position_of(section: str, subject: str = "candidate", item: str = "i0050") -> int:
    return next(
        i for i, row in enumerate(ROWS) if (row.suite, row.subject, row.item) == (PINNED[section], subject, item)
    )


def test_evidence_that_its_rows_add_up_to_has_no_contradictions() -> None:
    assert contradictions(POLICY, EVIDENCE, ROWS) == []


@pytest.mark.parametrize(
    ("section", "field"),
    [
        ("accuracy", "n"),
        ("accuracy", "correct"),
        ("accuracy", "clean_n"),
        ("accuracy", "clean_correct"),
        ("forgetting", "n"),
        ("forgetting", "base_correct"),
        ("forgetting", "candidate_correct"),
        ("forgetting", "lost"),
        ("forgetting", "gained"),
        ("forgetting", "cut_off"),
        ("forgetting", "base_cut_off"),
        ("outputs", "n"),
        ("outputs", "cut_off"),
        ("contamination", "n"),
        ("contamination", "contaminated"),
    ],
)
@pytest.mark.parametrize("by", [1, -1])
def test_a_count_that_is_off_by_one_is_named(section: str, field: str, by: int) -> None:
    part = getattr(EVIDENCE, section)
    stated = getattr(part[0] if isinstance(part, list) else part, field) + by
    found = contradictions(POLICY, altered(section, **{field: stated}), ROWS)
    assert len(found) == 1 and found[0].startswith(section)
    assert found[0].endswith(f"{field} is stated as {stated}, the rows give {stated - by}")


@pytest.mark.parametrize("part", ["candidate", "base", "difference"])
@pytest.mark.parametrize("field", ["clusters", "x", "n", "xx", "xn", "nn"])
@pytest.mark.parametrize("factor", [1.00001, -1.0, 0.0, math.nan, math.inf])
def test_a_sum_that_is_off_is_named(part: str, field: str, factor: float) -> None:
    assert EVIDENCE.perplexity is not None
    stated = getattr(EVIDENCE.perplexity, part)
    off = msgspec.structs.replace(stated, **{field: getattr(stated, field) * factor})
    found = contradictions(POLICY, altered("perplexity", **{part: off}), ROWS)
    assert len(found) == 1 and f"perplexity.{part}.{field} is stated as" in found[0]


def test_rounding_is_no_contradiction() -> None:
    assert EVIDENCE.perplexity is not None
    stated = EVIDENCE.perplexity.candidate
    near = msgspec.structs.replace(stated, x=stated.x * (1 + 1e-9), xx=stated.xx * (1 - 1e-9))
    assert contradictions(POLICY, altered("perplexity", candidate=near), ROWS) == []


@pytest.mark.parametrize("section", ["perplexity", "accuracy", "forgetting", "outputs", "contamination"])
def test_numbers_about_a_suite_without_rows_are_contradicted(section: str) -> None:
    assert contradictions(POLICY, altered(section, suite="elsewhere"), ROWS)


@pytest.mark.parametrize("section", ["perplexity", "accuracy", "forgetting", "review"])
def test_a_row_left_out_is_noticed(section: str) -> None:
    position = position_of(section)
    assert contradictions(POLICY, EVIDENCE, ROWS[:position] + ROWS[position + 1 :])


@pytest.mark.parametrize("section", ["perplexity", "accuracy", "forgetting", "review"])
def test_a_row_given_twice_is_noticed_though_the_counts_agree(section: str) -> None:
    found = contradictions(POLICY, EVIDENCE, [*ROWS, ROWS[position_of(section)]])
    assert len(found) == 1 and "'i0050' has two rows for the candidate" in found[0]


def test_base_and_candidate_must_have_answered_the_same_items() -> None:
    assert (
        "different items"
        in contradictions(POLICY, EVIDENCE, changed(position_of("forgetting", "base"), item="other"))[0]
    )


@pytest.mark.parametrize("subject", ["base", "candidate"])
def test_an_answer_that_nobody_judged_is_not_taken_for_a_wrong_one(subject: str) -> None:
    """The 500th item is wrong in both anyway, so the counts agree."""
    position = position_of("forgetting", subject, "i0500")
    found = contradictions(POLICY, EVIDENCE, changed(position, correct=None))
    assert found == [f"{PINNED['forgetting']}: item 'i0500' of the {subject} says neither right nor wrong"]


@pytest.mark.parametrize("nats", [None, math.nan, math.inf, -math.inf, 1e308])
@pytest.mark.parametrize("subject", ["base", "candidate"])
def test_a_score_that_cannot_be_added_up_is_named(subject: str, nats: float | None) -> None:
    found = contradictions(POLICY, EVIDENCE, changed(position_of("perplexity", subject), nll_nats=nats))
    assert len(found) == 1 and "'i0050' has" in found[0]


def test_two_scores_that_overflow_together_are_named_too() -> None:
    huge = [row if row.nll_nats is None else msgspec.structs.replace(row, nll_nats=1.7e308) for row in ROWS]
    assert contradictions(POLICY, EVIDENCE, huge)
    mixed = [
        row if row.nll_nats is None else msgspec.structs.replace(row, nll_nats=math.inf if i % 2 else -math.inf)
        for i, row in enumerate(ROWS)
    ]
    assert contradictions(POLICY, EVIDENCE, mixed)


@pytest.mark.parametrize("column", ["n_tokens", "n_bytes"])
def test_both_sides_must_have_scored_the_same_text(column: str) -> None:
    position = position_of("perplexity", "base")
    scored = getattr(ROWS[position], column)
    found = contradictions(POLICY, EVIDENCE, changed(position, **{column: scored + 1}))
    assert len(found) == 1
    assert found[0].endswith(f"'i0050' has {column} {scored} for the candidate and {scored + 1} for the base")


def test_a_scored_text_has_at_least_a_byte() -> None:
    found = contradictions(POLICY, EVIDENCE, changed(position_of("perplexity"), n_bytes=0))
    assert any(problem.endswith("item 'i0050' has a scored text of 0 bytes") for problem in found)


@pytest.mark.parametrize("column", ["gold_nll_nats", "kl_nats"])
@pytest.mark.parametrize("nats", [math.nan, math.inf, -math.inf, 1e308])
def test_what_informs_only_must_be_a_number_too(column: str, nats: float) -> None:
    changes = {column: nats, column.replace("_nll", "").replace("nats", "tokens"): 3}
    found = contradictions(POLICY, EVIDENCE, changed(position_of("forgetting"), **changes))
    assert any(f"'i0050' has {column} {nats}" in problem for problem in found)


def test_right_answers_that_were_scored_for_the_base_only_are_left_out() -> None:
    """A candidate that stopped early has answered the item, and nobody scored its right answer any more."""
    rows = changed(position_of("forgetting", "base"), gold_nll_nats=1.0, gold_tokens=3)
    assert contradictions(POLICY, EVIDENCE, rows) == []
    both = [
        msgspec.structs.replace(row, gold_nll_nats=1.0, gold_tokens=4)
        if (row.suite, row.subject, row.item) == (PINNED["forgetting"], "candidate", "i0050")
        else row
        for row in rows
    ]
    (found,) = contradictions(POLICY, EVIDENCE, both)
    assert found.endswith("'i0050' has gold_tokens 4 for the candidate and 3 for the base")


def test_a_score_over_no_tokens_is_named() -> None:
    found = contradictions(POLICY, EVIDENCE, changed(position_of("perplexity"), n_tokens=0))
    assert any("has nll_nats over 0 tokens" in problem for problem in found)


def test_a_section_that_the_rows_give_cannot_be_left_out() -> None:
    """Least of all that the suites were found in the training data."""
    for section in ("perplexity", "accuracy", "forgetting", "outputs", "contamination"):
        found = contradictions(POLICY, msgspec.structs.replace(EVIDENCE, **{section: None}), ROWS)
        assert len(found) == 1 and found[0].startswith(f"{section} is stated as not measured, the rows give ")


def test_a_slice_or_a_name_that_the_rows_do_not_give_is_named() -> None:
    assert EVIDENCE.forgetting is not None
    for changes in ({"slices": []}, {"lost_items": ["i0001"]}, {"shared_words": ["dragon"]}, {"clean": None}):
        found = contradictions(POLICY, altered("forgetting", **changes), ROWS)
        assert len(found) == 1 and found[0].startswith(f"forgetting.{next(iter(changes))} is stated as ")
    flattering = [msgspec.structs.replace(one, lost=0) for one in EVIDENCE.forgetting.slices]
    assert contradictions(POLICY, altered("forgetting", slices=flattering), ROWS) == [
        "forgetting.slices[0].lost is stated as 0, the rows give 10"
    ]


def test_a_candidate_that_stopped_early_is_compared_on_what_it_was_asked() -> None:
    asked = [
        row for row in ROWS if (row.suite, row.subject) != (PINNED["forgetting"], "candidate") or row.item < "i0100"
    ]
    sections = summarise(POLICY, asked, CONVENTION, MASK)
    assert sections.forgetting is not None and (sections.forgetting.n, sections.forgetting.open_gains) == (100, 200)
    assert contradictions(POLICY, msgspec.structs.replace(EVIDENCE, **sections._asdict()), asked) == []


@pytest.mark.parametrize("column", ["prompt", "output"])
def test_an_output_that_cannot_be_shown_does_not_count(column: str) -> None:
    rows = changed(position_of("review"), **{column: None})
    assert "n is stated as 60, the rows give 59" in contradictions(POLICY, EVIDENCE, rows)[0]
    assert len(outputs(rows, PINNED["review"])) == 59


@pytest.mark.parametrize("field", ["observed", "limit"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_canary_that_is_not_finite_is_named(field: str, value: float) -> None:
    canaries = [msgspec.structs.replace(make_canaries()[0], **{field: value})]
    assert contradictions(POLICY, msgspec.structs.replace(EVIDENCE, canaries=canaries), ROWS) == [
        "canary noise_floor is not finite"
    ]


@pytest.mark.parametrize("seconds", [-1.0, math.nan, math.inf])
def test_a_run_takes_a_finite_time(seconds: float) -> None:
    assert contradictions(POLICY, msgspec.structs.replace(EVIDENCE, seconds=seconds), ROWS) == [
        "seconds is not a duration"
    ]


def test_outputs_are_those_of_the_candidate_on_one_suite() -> None:
    rows = [
        make_row("one", "a", prompt="p", output="o"),
        make_row("one", "b", prompt="p"),
        make_row("one", "c", subject="base", prompt="p", output="o"),
        make_row("two", "d", prompt="p", output="o"),
    ]
    assert outputs(rows, "one") == {"a": ("p", "o")}


@pytest.mark.parametrize("column", ["nll_nats", "gold_nll_nats"])
def test_a_negative_log_likelihood_below_zero_is_that_of_no_model(column: str) -> None:
    section, tokens = ("perplexity", {}) if column == "nll_nats" else ("forgetting", {"gold_tokens": 2})
    position = position_of(section)
    for nats, named in ((-0.5, True), (-1e-4, False), (0.0, False)):
        found = contradictions(POLICY, EVIDENCE, changed(position, **{column: nats}, **tokens))
        assert any(f"has {column} {nats}" in problem and "of no model" in problem for problem in found) == named


def test_a_divergence_estimated_from_a_sample_may_be_negative() -> None:
    rows = changed(position_of("forgetting"), kl_nats=-0.5, kl_tokens=24)
    sections = summarise(POLICY, rows, CONVENTION, MASK)
    assert contradictions(POLICY, msgspec.structs.replace(EVIDENCE, **sections._asdict()), rows) == []


def test_scores_of_nobody_knows_which_tokens_are_refused() -> None:
    assert contradictions(POLICY, altered("perplexity", mask=None), ROWS) == [
        "perplexity.mask is missing: which tokens were scored cannot be known"
    ]


# -- answers that were cut off ------------------------------------------------------------------------------------


def ended(rows: list[ItemRow], share: float, limit: float, *, passed: bool) -> list[str]:
    """The contradictions of evidence that these rows add up to, with this statement of the worker's own."""
    sections = summarise(POLICY, rows, CONVENTION, MASK)
    stated = Canary(name="finish_by_length", passed=passed, observed=share, limit=limit, detail="d")
    canaries = [*make_canaries(finish_by_length=None), stated]
    return contradictions(POLICY, msgspec.structs.replace(EVIDENCE, **sections._asdict(), canaries=canaries), rows)


def cut(section: str, n: int, subject: str = "candidate") -> list[ItemRow]:
    """The rows with the first n answers of one side cut off."""
    items = {f"i{i:04}" for i in range(n)}
    return [
        msgspec.structs.replace(row, finish="length")
        if (row.suite, row.subject) == (PINNED[section], subject) and row.item in items
        else row
        for row in ROWS
    ]


@pytest.mark.parametrize(("section", "subject"), [("accuracy", "candidate"), ("forgetting", "base")])
def test_how_many_answers_were_cut_off_is_what_the_rows_say_of_the_worst_side(section: str, subject: str) -> None:
    n = {"accuracy": 200, "forgetting": 600}[section]
    rows = cut(section, n // 10, subject)
    assert ended(rows, 0.1, 0.05, passed=False) == []
    for share, limit, passed in ((0.0, 0.05, True), (0.1, 0.2, True), (0.1, 0.05, True), (0.09, 0.05, False)):
        (found,) = ended(rows, share, limit, passed=passed)
        assert found.startswith("canary finish_by_length is stated as ")


def test_answers_that_all_end_have_no_share_to_state_but_none() -> None:
    assert ended(ROWS, 0.0, 0.05, passed=True) == []
    assert ended(ROWS, 0.01, 0.05, passed=True) == [
        "canary finish_by_length is stated as 0.01 with limit 0.05, the rows give 0 with limit 0.05 for the worst suite"
    ]


def test_evidence_may_leave_the_counting_to_the_registry() -> None:
    silent = msgspec.structs.replace(EVIDENCE, canaries=make_canaries(finish_by_length=None))
    assert contradictions(POLICY, silent, ROWS) == []
