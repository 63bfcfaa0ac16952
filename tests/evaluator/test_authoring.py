"""Suites are looked over before they measure anything."""

import pytest

from evaluator.authoring import check_items
from registry.client import Conversation, Message, Prompt, Question, SuiteContent
from registry.records import SuiteKind
from registry.suites import SuiteFile


def content(kind: SuiteKind, *items: Question | Conversation | Prompt) -> SuiteContent:
    head = SuiteFile(name="a/b", kind=kind, title="t", description="d", licence="l", source="s")
    return SuiteContent(head, list(items))


def questions(*texts: str, answers: list[str] | None = None) -> SuiteContent:
    listed = [Question(id=f"q{i}", question=text, answers=answers or ["Armstrong"]) for i, text in enumerate(texts)]
    return content(SuiteKind.QUESTIONS, *listed)


def messages(found: SuiteContent, *training: str) -> list[tuple[str, str]]:
    return [(one.severity, one.item) for one in check_items(found, training)]


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
