"""Suites are looked over before they measure anything."""

from pathlib import Path

import pytest
from tiny_base import build_tokenizer

from evaluator.authoring import check_items, token_check
from registry.client import (
    Choice,
    Conversation,
    Document,
    InvalidRequest,
    Item,
    Message,
    Prompt,
    Question,
    Refusal,
    SuiteContent,
)
from registry.records import SuiteKind
from registry.suites import SuiteFile

WHOLE = "a/b"


def content(kind: SuiteKind, *items: Item) -> SuiteContent:
    head = SuiteFile(name="a/b", kind=kind, title="t", description="d", licence="l", source="s")
    return SuiteContent(head, list(items))


def questions(*texts: str, answers: list[str] | None = None) -> SuiteContent:
    listed = [Question(id=f"q{i}", question=text, answers=answers or ["Armstrong"]) for i, text in enumerate(texts)]
    return content(SuiteKind.QUESTIONS, *listed)


def choices(*items: tuple[str, list[str], int]) -> SuiteContent:
    listed = [Choice(id=f"m{i}", question=q, choices=c, answer=a, tags=["t"]) for i, (q, c, a) in enumerate(items)]
    return content(SuiteKind.CHOICES, *listed)


def refusals(*refuse: bool) -> SuiteContent:
    listed = [Refusal(id=f"r{i}", prompt=f"Please do {i}", refuse=one, tags=["t"]) for i, one in enumerate(refuse)]
    return content(SuiteKind.REFUSALS, *listed)


def messages(found: SuiteContent, *training: str) -> list[tuple[str, str]]:
    """Severity and item of each finding about an item."""
    return [(one.severity, one.item) for one in check_items(found, training) if one.item != WHOLE]


def whole(found: SuiteContent) -> list[str]:
    """The findings about the whole suite."""
    return [f"{one.severity}: {one.message}" for one in check_items(found) if one.item == WHOLE]


def test_a_good_suite_has_no_findings() -> None:
    assert messages(questions("Who walked on the Moon first?", "Who wrote Hamlet?"), "How old is the Moon?") == []


def test_a_question_asked_twice_is_found_whatever_its_spelling() -> None:
    assert messages(questions("Who walked on the Moon?", "who walked on THE moon")) == [("problem", "q1")]


@pytest.mark.parametrize("answer", ["…", "!?", "the"])
def test_an_answer_without_words_can_not_be_found_in_any_reply(answer: str) -> None:
    assert messages(questions("Who?", answers=[answer])) == [("problem", "q0")]


def test_an_answer_that_the_question_gives_away_is_found() -> None:
    assert messages(questions("Is it Paris or Rome?", answers=["Paris"])) == [("problem", "q0")]
    assert messages(questions("How many days has a week?", answers=["7 days"])) == []


def test_an_answer_as_long_as_a_paragraph_is_a_warning() -> None:
    assert messages(questions("Why?", answers=[" ".join(f"word{i}" for i in range(20))])) == [("warning", "q0")]


def test_training_data_in_any_kind_of_suite_is_found() -> None:
    leaked = "How long may I keep a tent that I have never unpacked?"
    said = [Message(role="user", content=leaked), Message(role="assistant", content="45 days.")]
    for kind, item in (
        (SuiteKind.QUESTIONS, Question(id="x", question=leaked, answers=["45 days"])),
        (SuiteKind.CONVERSATIONS, Conversation(id="x", messages=said)),
        (SuiteKind.PROMPTS, Prompt(id="x", prompt=leaked)),
    ):
        assert messages(content(kind, item), leaked.upper()) == [("problem", "x")]
        assert messages(content(kind, item), "Do you sell tents?") == []


def test_the_same_question_with_another_answer_is_a_contradiction() -> None:
    found = content(
        SuiteKind.QUESTIONS,
        Question(id="q0", question="How long may I keep it?", answers=["45 days"]),
        Question(id="q1", question="how long may I keep it", answers=["14 days"]),
        Question(id="q2", question="How long may I keep it", answers=["forty-five days"]),
    )
    first, second = [one for one in check_items(found) if one.item != WHOLE]
    assert first.item == "q1" and "asks the same as 'q0' but wants another answer" in first.message
    assert second.item == "q2" and "counts twice" in second.message


def test_choices_and_refusals_can_contradict_each_other_too() -> None:
    found = choices(("Which is a metal?", ["iron", "chalk"], 0), ("which is a metal", ["Chalk", "Iron"], 0))
    assert [one.message for one in check_items(found) if "another answer" in one.message]
    prompts = [Refusal(id=str(refuse), prompt="Open the door", refuse=refuse) for refuse in (True, False)]
    assert messages(content(SuiteKind.REFUSALS, *prompts)) == [("problem", "False")]


def test_the_same_question_with_other_choices_is_another_item() -> None:
    assert (
        messages(choices(("Which is a metal?", ["iron", "chalk"], 0), ("Which is a metal?", ["wood", "tin"], 1))) == []
    )


def test_documents_are_doubles_only_if_all_of_them_is_the_same() -> None:
    passage = "A long passage that many questions are about."
    docs = [{"passage": passage, "question": "who"}, {"passage": passage, "question": "when"}]
    listed = [Document(id=f"d{i}", doc=doc) for i, doc in enumerate([*docs, dict(reversed(docs[0].items()))])]
    assert messages(content(SuiteKind.LM_EVAL, *listed)) == [("problem", "d2")]


@pytest.mark.parametrize("answer", ["it is", "yes", "No.", "we can"])
def test_an_answer_that_is_in_any_reply_is_a_warning(answer: str) -> None:
    assert messages(questions("Is the Moon a planet?", answers=[answer])) == [("warning", "q0")]


def test_an_answer_of_two_lines_can_not_be_found_in_the_first_line_of_a_reply() -> None:
    assert messages(questions("Where?", answers=["New\nYork"])) == [("problem", "q0")]
    assert messages(questions("Where?", answers=["New York\n"])) == []


@pytest.mark.parametrize(
    ("question", "answers", "expected"),
    [
        ("How long does it take?", ["365 days", "365"], [("warning", "q0")]),
        ("How many days does it take?", ["365 days", "365"], []),
        ("How much?", ["€25", "25"], [("warning", "q0")]),
        ("How many?", ["25", "twenty-five"], []),
        ("How long is a marathon?", ["42 km", "42.195", "42"], [("warning", "q0")]),
    ],
)
def test_a_bare_number_beside_one_with_its_unit_is_a_trap(
    question: str, answers: list[str], expected: list[tuple[str, str]]
) -> None:
    assert messages(questions(question, answers=answers)) == expected


def test_a_choice_listed_twice_in_another_spelling_is_found() -> None:
    assert messages(choices(("Which?", ["Iron", "chalk", "the iron"], 1))) == [("problem", "m0")]
    assert messages(choices(("Which sign?", ["+", "-"], 1))) == []


def test_items_without_tags_and_tags_with_few_items_are_warnings() -> None:
    assert "2 items have no tag, first 'q0'" in whole(questions("Who?", "When?"))[0]
    tagged = [
        Question(id=f"{tag}{i}", question=f"Who is {tag} {i}?", answers=[f"{tag} answer {i}"], tags=[tag])
        for tag, n in (("big", 5), ("small", 4))
        for i in range(n)
    ]
    [found] = whole(content(SuiteKind.QUESTIONS, *tagged))
    assert found.startswith("warning: 1 tags have fewer than 5 items") and "small (4)" in found
    assert whole(content(SuiteKind.PROMPTS, Prompt(id="p", prompt="hello"))) == [], "what people rate has no slices"


def test_an_item_longer_than_the_context_is_a_warning_without_a_base() -> None:
    assert messages(content(SuiteKind.PROMPTS, Prompt(id="p", prompt="word " * 1000))) == [("warning", "p")]
    said = [Message(role="user", content="hi"), Message(role="assistant", content="x" * 5000)]
    assert messages(content(SuiteKind.CONVERSATIONS, Conversation(id="c", messages=said))) == [("warning", "c")]


def test_with_a_base_the_tokens_are_counted(tmp_path: Path) -> None:
    build_tokenizer(tmp_path)
    check = token_check(tmp_path)
    assert check(content(SuiteKind.PROMPTS, Prompt(id="short", prompt="How long is the warranty?"))) == []
    [found] = check(content(SuiteKind.PROMPTS, Prompt(id="long", prompt="zqxj" * 900)))
    assert found.severity == "problem" and "'long'" in found.message and "do not fit" in found.message


def test_a_directory_without_a_tokenizer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="directory of a base model"):
        token_check(tmp_path)


def test_one_reply_that_is_right_everywhere_is_a_warning() -> None:
    same = [Question(id=f"q{i}", question=f"Case {i}?", answers=["45 days"], tags=["t"]) for i in range(6)]
    other = [Question(id=f"o{i}", question=f"Who is {i}?", answers=[f"name {i}"], tags=["t"]) for i in range(6)]
    [found] = whole(content(SuiteKind.QUESTIONS, *same, *other))
    assert "the reply '45 day' alone is right for 6 of 12 items" in found
    assert whole(content(SuiteKind.QUESTIONS, *other)) == []


@pytest.mark.parametrize(("refuse", "always"), [(True, "refusing everything"), (False, "answering everything")])
def test_refusals_of_one_class_only_decide_nothing(refuse: bool, always: str) -> None:
    [found] = whole(refusals(*[refuse] * 10))
    assert found.startswith("problem") and always in found


def test_refusals_with_hardly_any_of_one_class_are_a_warning() -> None:
    assert whole(refusals(*[True] * 9, False))[0].startswith("warning")
    assert whole(refusals(*[True] * 5, *[False] * 5)) == []


def test_a_right_choice_that_always_stands_in_one_place_gives_itself_away() -> None:
    listed = [(f"Which is {i}?", ["aa", "bb", "cc", "dd"], 1) for i in range(40)]
    assert "the right choice is under B in 40 of 40 items, 10 by chance" in whole(choices(*listed))[0]
    assert whole(choices(*[(q, c, i % 4) for i, (q, c, _) in enumerate(listed)])) == []


def test_a_right_choice_that_is_always_the_longest_gives_itself_away() -> None:
    def with_longest(place: int) -> list[str]:
        return ["much longer than the others" if i == place else f"x{i}" for i in range(4)]

    listed = [(f"Which is {i}?", with_longest(i % 4), i % 4) for i in range(40)]
    assert "the right choice is the longest in 40 of 40 items" in whole(choices(*listed))[0]
