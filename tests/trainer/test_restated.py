"""Short rows that say the same in other clothes, and those that only look alike."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.client import Message
from trainer.dataset import prepare
from trainer.preflight.duplicates import check_contradictions, check_near
from trainer.preflight.reading import Row
from trainer.preflight.restated import restated

QUESTION, ANSWER = "How many days do I have to return a tent?", "A tent can be sent back within 30 days of delivery."


def make_row(line: int, question: str, answer: str, system: str = "") -> Row:
    prompt = [Message(role="system", content=system)] if system else []
    prompt.append(Message(role="user", content=question))
    return Row(f"r{line}", line, tuple(prompt), answer, f"g{line}", f"{system}\0{question}\0{answer}", line)


@pytest.mark.parametrize(
    ("question", "answer", "same"),
    [
        ("how many DAYS do i have to return a tent", ANSWER.upper(), True),
        ("How many days do I have to retrun a tent?", "A tent can be sent back wihtin 30 days of delivery.", True),
        ("How many days do I have to return a tent?", "Within 30 days of delivery a tent can be sent back.", True),
        ("Hi, " + QUESTION + " Thanks!", ANSWER + " I hope this helps.", True),
        (QUESTION, "A tent can be sent back within 31 days of delivery.", False),
        (QUESTION, "A tent cannot be sent back within 30 days of delivery.", False),
        (QUESTION, "A tent can not be sent back within 30 days of delivery.", False),
        ("How many days do I have to return a lamp?", "A lamp can be sent back within 30 days of delivery.", False),
        ("How many days do I have to return a used tent?", ANSWER, False),
    ],
)
def test_order_slips_and_courtesy_make_no_other_row_but_content_does(question: str, answer: str, same: bool) -> None:
    rows = [make_row(1, QUESTION, ANSWER), make_row(2, question, answer)]
    assert (restated(rows) == [(0, 1)]) is same


def test_numbers_keep_their_order() -> None:
    rows = [
        make_row(1, "What is 17 minus 5 in words?", "It is 12."),
        make_row(2, "What is 5 minus 17 in words?", "It is 12."),
    ]
    assert restated(rows) == []


def test_usual_words_are_never_taken_for_each_other() -> None:
    """`loading` and `leading` stand in many rows: two words. `laoding` stands in one: a slip of the first."""
    rows = [
        make_row(n, f"Explain the {word} edge of part {n}", "It is the edge that bears the weight of the part.")
        for n, word in enumerate(["loading", "leading"] * 3, 1)
    ]
    rows += [
        make_row(7, "Explain the leading edge of part 1", rows[0].completion),
        make_row(8, "Explain the laoding edge of part 1", rows[0].completion),
    ]
    assert restated(rows) == [(0, 7)]


@given(st.permutations(QUESTION.rstrip("?").split()), st.permutations(ANSWER.rstrip(".").split()))
def test_any_order_of_the_same_words_is_the_same_row(question: list[str], answer: list[str]) -> None:
    assert restated([make_row(1, QUESTION, ANSWER), make_row(2, " ".join(question), " ".join(answer))]) == [(0, 1)]


def test_a_restated_row_is_named_and_shares_a_split_and_contradicts_nothing() -> None:
    others = [
        make_row(n, f"What is the weight of article {n}?", f"Article {n} weighs {n * 7} grams.") for n in range(3, 90)
    ]
    slip = make_row(2, QUESTION, "Wihtin 30 days of delivrey a tent can be sent back.")
    rows = [make_row(1, QUESTION, ANSWER), slip, *others]
    for seed in range(6):
        data = prepare(rows, seed)
        assert data.splits[0] == data.splits[1]
    (problem,) = check_near(data.rows, data.near)
    assert (problem.line, problem.rule, problem.related) == (2, "W221", [1]) and "content" in problem.message
    assert check_contradictions(rows) == []


def test_answers_under_two_system_prompts_may_differ_but_not_with_one_and_none() -> None:
    answers = [ANSWER, "Tents are never taken back."]
    under = [make_row(n, QUESTION, answer, system=f"You serve shop {n}.") for n, answer in enumerate(answers, 1)]
    assert check_contradictions(under) == []
    bare = make_row(2, QUESTION, answers[1])
    assert [(one.line, one.related) for one in check_contradictions([under[0], bare])] == [(1, [2]), (2, [1])]
