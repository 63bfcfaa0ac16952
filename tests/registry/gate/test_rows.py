"""Evidence against its own rows: every number is recomputed, and every contradiction is named."""

import math
from typing import Any

import msgspec
import pytest
from factories import SUITES, make_canaries, make_row, pinned, rows_and_evidence

from registry.gate.rows import contradictions, moments, outputs
from registry.records import Evidence, ItemRow

PINNED = {section: pinned(section) for section in SUITES}


def good() -> tuple[list[ItemRow], Evidence]:
    return rows_and_evidence(PINNED, "sha256:" + "4" * 64, "sha256:" + "5" * 64)


ROWS, EVIDENCE = good()


def altered(section: str, **changes: Any) -> Evidence:
    """The evidence with one section changed."""
    part = getattr(EVIDENCE, section)
    if isinstance(part, list):
        return msgspec.structs.replace(EVIDENCE, **{section: [msgspec.structs.replace(part[0], **changes)]})
    return msgspec.structs.replace(EVIDENCE, **{section: msgspec.structs.replace(part, **changes)})


def changed(position: int, **changes: Any) -> list[ItemRow]:
    return [msgspec.structs.replace(row, **changes) if i == position else row for i, row in enumerate(ROWS)]


def position_of(section: str, subject: str = "candidate", item: str = "i0050") -> int:
    return next(
        i for i, row in enumerate(ROWS) if (row.suite, row.subject, row.item) == (PINNED[section], subject, item)
    )


def test_evidence_that_its_rows_add_up_to_has_no_contradictions() -> None:
    assert contradictions(EVIDENCE, ROWS) == []


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
        ("outputs", "n"),
        ("contamination", "n"),
        ("contamination", "contaminated"),
    ],
)
@pytest.mark.parametrize("by", [1, -1])
def test_a_count_that_is_off_by_one_is_named(section: str, field: str, by: int) -> None:
    part = getattr(EVIDENCE, section)
    stated = getattr(part[0] if isinstance(part, list) else part, field) + by
    found = contradictions(altered(section, **{field: stated}), ROWS)
    assert len(found) == 1 and f"{field} is stated as {stated}, the rows give {stated - by}" in found[0]


@pytest.mark.parametrize("part", ["candidate", "base", "difference"])
@pytest.mark.parametrize("field", ["clusters", "x", "n", "xx", "xn", "nn"])
@pytest.mark.parametrize("factor", [1.00001, -1.0, 0.0, math.nan, math.inf])
def test_a_sum_that_is_off_is_named(part: str, field: str, factor: float) -> None:
    assert EVIDENCE.perplexity is not None
    stated = getattr(EVIDENCE.perplexity, part)
    off = msgspec.structs.replace(stated, **{field: getattr(stated, field) * factor})
    found = contradictions(altered("perplexity", **{part: off}), ROWS)
    assert len(found) == 1 and f"{part} sums: {field} is stated as" in found[0]


def test_rounding_is_no_contradiction() -> None:
    assert EVIDENCE.perplexity is not None
    stated = EVIDENCE.perplexity.candidate
    near = msgspec.structs.replace(stated, x=stated.x * (1 + 1e-9), xx=stated.xx * (1 - 1e-9))
    assert contradictions(altered("perplexity", candidate=near), ROWS) == []


@pytest.mark.parametrize("section", ["perplexity", "accuracy", "forgetting", "outputs", "contamination"])
def test_numbers_about_a_suite_without_rows_are_contradicted(section: str) -> None:
    assert contradictions(altered(section, suite="elsewhere"), ROWS)


@pytest.mark.parametrize("section", ["perplexity", "accuracy", "forgetting", "review"])
def test_a_row_left_out_is_noticed(section: str) -> None:
    position = position_of(section)
    assert contradictions(EVIDENCE, ROWS[:position] + ROWS[position + 1 :])


@pytest.mark.parametrize("section", ["perplexity", "accuracy", "forgetting", "review"])
def test_a_row_given_twice_is_noticed_though_the_counts_agree(section: str) -> None:
    found = contradictions(EVIDENCE, [*ROWS, ROWS[position_of(section)]])
    assert len(found) == 1 and "'i0050' has two rows for the candidate" in found[0]


def test_base_and_candidate_must_have_answered_the_same_items() -> None:
    assert "different items" in contradictions(EVIDENCE, changed(position_of("forgetting", "base"), item="other"))[0]


@pytest.mark.parametrize("subject", ["base", "candidate"])
def test_an_answer_that_nobody_judged_is_not_taken_for_a_wrong_one(subject: str) -> None:
    """The 500th item is wrong in both anyway, so the counts agree."""
    position = position_of("forgetting", subject, "i0500")
    found = contradictions(EVIDENCE, changed(position, correct=None))
    assert found == [f"{PINNED['forgetting']}: item 'i0500' of the {subject} says neither right nor wrong"]


@pytest.mark.parametrize("nats", [None, math.nan, math.inf, -math.inf, 1e308])
@pytest.mark.parametrize("subject", ["base", "candidate"])
def test_a_score_that_cannot_be_added_up_is_named(subject: str, nats: float | None) -> None:
    found = contradictions(EVIDENCE, changed(position_of("perplexity", subject), nll_nats=nats))
    assert len(found) == 2 and all("'i0050' has" in problem for problem in found)


def test_two_scores_that_overflow_together_are_named_too() -> None:
    huge = [row if row.nll_nats is None else msgspec.structs.replace(row, nll_nats=1.7e308) for row in ROWS]
    assert contradictions(EVIDENCE, huge)
    mixed = [
        row if row.nll_nats is None else msgspec.structs.replace(row, nll_nats=math.inf if i % 2 else -math.inf)
        for i, row in enumerate(ROWS)
    ]
    assert contradictions(EVIDENCE, mixed)


def test_both_sides_must_have_scored_the_same_tokens() -> None:
    found = contradictions(EVIDENCE, changed(position_of("perplexity", "base"), n_tokens=21))
    assert any("'i0050' has 20 tokens for the candidate and 21 for the base" in problem for problem in found)


@pytest.mark.parametrize("column", ["prompt", "output"])
def test_an_output_that_cannot_be_shown_does_not_count(column: str) -> None:
    rows = changed(position_of("review"), **{column: None})
    assert "n is stated as 60, the rows give 59" in contradictions(EVIDENCE, rows)[0]
    assert len(outputs(rows, PINNED["review"])) == 59


@pytest.mark.parametrize("field", ["observed", "limit"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_canary_that_is_not_finite_is_named(field: str, value: float) -> None:
    canaries = [msgspec.structs.replace(make_canaries()[0], **{field: value})]
    assert contradictions(msgspec.structs.replace(EVIDENCE, canaries=canaries), ROWS) == [
        "canary noise_floor is not finite"
    ]


@pytest.mark.parametrize("seconds", [-1.0, math.nan, math.inf])
def test_a_run_takes_a_finite_time(seconds: float) -> None:
    assert contradictions(msgspec.structs.replace(EVIDENCE, seconds=seconds), ROWS) == ["seconds is not a duration"]


def test_outputs_are_those_of_the_candidate_on_one_suite() -> None:
    rows = [
        make_row("one", "a", prompt="p", output="o"),
        make_row("one", "b", prompt="p"),
        make_row("one", "c", subject="base", prompt="p", output="o"),
        make_row("two", "d", prompt="p", output="o"),
    ]
    assert outputs(rows, "one") == {"a": ("p", "o")}


def test_moments_are_plain_sums() -> None:
    found = moments([(2.0, 3.0), (4.0, 5.0)])
    assert (found.clusters, found.x, found.n, found.xx, found.xn, found.nn) == (2, 6.0, 8.0, 20.0, 26.0, 34.0)
    assert moments([]).clusters == 0
