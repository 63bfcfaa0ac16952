"""Items that were, to all appearances, in the training data; and those that were not."""

import json
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluator.contamination import TrainingIndex, training_prompts

LONG = "one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen"
SENTENCE = "How long do I have to send back a rain coat that I bought in your shop last week?"


@pytest.mark.parametrize(
    "item",
    [SENTENCE, SENTENCE.upper(), SENTENCE.replace(" ", "  "), f"{SENTENCE}!!", SENTENCE.replace("a rain", "the rain")],
)
def test_the_same_text_in_another_dress_is_found(item: str) -> None:
    assert TrainingIndex([SENTENCE]).holds(item)


def test_thirteen_words_in_a_row_are_found_inside_another_text() -> None:
    index = TrainingIndex([f"zero {LONG} seventeen eighteen nineteen"])
    thirteen = " ".join(LONG.split()[:13])
    noise = " ".join(f"w{i}" for i in range(60))
    assert index.holds(f"{noise} {thirteen} {noise}")
    assert not index.holds(f"{noise} {' '.join(LONG.split()[:12])} {noise}")


def test_half_covered_by_eight_word_runs_is_found() -> None:
    index = TrainingIndex([LONG])
    eight = " ".join(LONG.split()[:8])
    assert index.holds(f"{eight} alpha beta gamma delta epsilon zeta eta theta")
    assert not index.holds(f"{eight} alpha beta gamma delta epsilon zeta eta theta iota")


def test_one_word_changed_in_a_long_text_is_found_and_in_a_short_one_is_not() -> None:
    index = TrainingIndex([LONG, "where is my parcel"])
    assert index.holds(LONG.replace("sixteen", "banana"))
    assert not index.holds("where is my order")


def test_short_texts_are_found_only_whole() -> None:
    index = TrainingIndex(["refund"])
    assert index.holds("Refund?")
    assert not index.holds("refund policy please") and not index.holds("how do I get it")


def test_nothing_is_never_found() -> None:
    assert not TrainingIndex([SENTENCE]).holds("") and not TrainingIndex([SENTENCE]).holds(" ?! ")
    assert not TrainingIndex([]).holds(SENTENCE) and not TrainingIndex(["", "?"]).holds("?")


def row(use: str, *messages: tuple[str, str]) -> str:
    return json.dumps({"use": use, "messages": [{"role": role, "content": text} for role, text in messages]})


def test_only_what_was_trained_on_counts_and_only_what_was_asked() -> None:
    lines = [
        row("train", ("system", "rules"), ("user", "first"), ("assistant", "answer"), ("user", "second")),
        row("test", ("user", "held out")),
        row("too_long", ("user", "left out")),
    ]
    assert training_prompts("\n".join(lines).encode()) == ["first", "second"]


@pytest.mark.parametrize("line", ["{", "[]", "{}", '{"use": "train"}', '{"use": "train", "messages": [1]}', "3"])
def test_data_that_is_no_training_data_is_refused_with_its_line(line: str) -> None:
    with pytest.raises(ValueError, match="line 2"):
        training_prompts(f"{row('train', ('user', 'x'))}\n{line}".encode())


texts = st.lists(st.text(string.ascii_lowercase, min_size=1, max_size=5), min_size=1, max_size=25).map(" ".join)


@given(st.lists(texts, max_size=5), texts)
def test_what_was_trained_on_is_always_found_whatever_else_was(others: list[str], item: str) -> None:
    # Articles are no words here: a text of nothing else says nothing.
    if set(item.split()) - {"a", "an", "the"}:
        assert TrainingIndex([*others, item]).holds(item)
        assert TrainingIndex([item, *others]).holds(item.upper())
