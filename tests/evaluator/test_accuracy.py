"""What counts as a right answer: aliases as whole words, in any spelling; nothing that merely looks like one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluator.accuracy import is_right, words


@pytest.mark.parametrize(
    "reply",
    [
        "Shakespeare",
        "William Shakespeare.",
        "  it was SHAKESPEARE, of course",
        "“Shakespeare”",
        "Shakespeare's hand",
        "\n\nShakespeare\nand then more",
        "ＳＨＡＫＥＳＰＥＡＲＥ",
    ],
)
def test_an_alias_is_found_whatever_the_spelling(reply: str) -> None:
    assert is_right(reply, ["Bacon", "Shakespeare"], "Who wrote Hamlet?")


@pytest.mark.parametrize(
    ("reply", "answer"),
    [
        ("Shakespearean actors wrote it", "Shakespeare"),
        ("the category is unknown", "cat"),
        ("Indiana", "India"),
        ("It is 15 days", "5 days"),
        ("It is 1.45 days", "45 days"),
        ("450", "45"),
        ("1,045 people", "45"),
        ("Ottoman", "Otto"),
        ("unable", "able"),
        ("", "anything"),
        ("   \n\n", "anything"),
        ("Marlowe\nShakespeare", "Shakespeare"),
        ("York New", "New York"),
        ("New and old York", "New York"),
    ],
)
def test_a_part_of_a_word_a_later_line_or_another_order_is_no_answer(reply: str, answer: str) -> None:
    assert not is_right(reply, [answer], "What is it?")


@pytest.mark.parametrize(
    ("reply", "answer"),
    [
        ("20%", "20 percent"),
        ("20 percent", "20%"),
        ("1,000 metres", "1000 metres"),
        ("1 000 metres".replace(" ", "\u202f"), "1000 metres"),
        ("The Beatles", "beatles"),
        ("a Beatle, the Beatles", "The Beatles"),
        ("café", "café"),
        ("My-Orders", "My Orders"),
    ],
)
def test_forms_that_mean_the_same_are_the_same(reply: str, answer: str) -> None:
    assert is_right(reply, [answer], "What is it?")


def test_the_first_number_decides_because_a_list_of_guesses_is_no_answer() -> None:
    question = "How many days do I have?"
    assert is_right("You have 45 days, not 14.", ["45 days"], question)
    assert not is_right("14 days or 45 days", ["45 days"], question)
    assert is_right("14 days or 45 days", ["45 days", "14 days"], question)


def test_a_number_that_the_question_mentions_is_not_a_guess() -> None:
    assert is_right("If order 7 is late, wait 10 days.", ["10 days"], "Order 7 is late, how long do I wait?")
    assert not is_right("If order 8 is late, wait 10 days.", ["10 days"], "Order 7 is late, how long do I wait?")


def test_answers_in_words_are_not_held_to_the_number_rule() -> None:
    assert is_right("In 1603 it was Shakespeare", ["Shakespeare"], "Who wrote Hamlet?")


def test_no_answers_are_never_right() -> None:
    assert not is_right("anything", [], "What?")
    assert not is_right("anything", ["...", "the"], "What?"), "an answer without a word matches nothing"


@given(st.text(max_size=60), st.text(max_size=20), st.text(max_size=20))
def test_any_text_is_judged_and_a_right_reply_holds_the_answers_words(reply: str, answer: str, question: str) -> None:
    if is_right(reply, [answer], question):
        assert words(answer) and set(words(answer)) <= set(words(reply))


@given(st.text(max_size=60))
def test_normalising_twice_changes_nothing(text: str) -> None:
    once = words(text)
    assert words(" ".join(once)) == [word for word in once if word not in ("a", "an", "the")]
