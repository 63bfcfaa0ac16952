"""The shipped suites: large enough to decide anything, distinct, and kept apart from what is trained on."""

import json
import tomllib
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from evaluator.accuracy import is_right
from evaluator.contamination import TrainingIndex
from evaluator.terms import words
from registry.client import Conversation, InvalidRequest, Prompt, Question, SuiteContent
from registry.suites import check_suite, read_suite
from trainer.dataset import contradictions, prepare, read_rows

ROOT = Path(__file__).parents[2] / "suites"
DESK = ROOT / "support-desk"
NAMES = ("general-knowledge", "support-desk/questions", "support-desk/conversations", "support-desk/pilot")


def suite(name: str) -> SuiteContent:
    return read_suite({file.name: file.read_bytes() for file in (ROOT / name).iterdir()})


def texts(content: SuiteContent) -> list[str]:
    """What is asked: one text for each item."""
    found = []
    for item in content.items:
        match item:
            case Question():
                found.append(item.question)
            case Prompt():
                found.append(item.prompt)
            case Conversation():
                found.append(" ".join(message.content for message in item.messages if message.role == "user"))
    return found


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def trained_prompts() -> list[str]:
    """Everything that the shipped recipes train on, the replay prompts included."""
    rows = [message.content for row in read_rows(DESK / "train.jsonl") for message in row.prompt]
    return rows + [row["prompt"] for row in lines(DESK / "replay.jsonl")]


@pytest.mark.parametrize("name", NAMES)
def test_a_shipped_suite_is_registrable_under_its_name_with_unique_ids(name: str) -> None:
    files = {file.name: file.read_bytes() for file in (ROOT / name).iterdir()}
    n = check_suite(name, files).n_items
    items = read_suite(files).items
    assert n == len({item.id for item in items}) == len(items)


@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_asked_twice(name: str) -> None:
    counted = Counter(" ".join(words(text)) for text in texts(suite(name)))
    assert [text for text, times in counted.items() if times > 1] == []


@pytest.mark.parametrize(
    ("name", "kind", "least"),
    [
        ("general-knowledge", "questions", 600),
        ("support-desk/questions", "questions", 200),
        ("support-desk/conversations", "conversations", 100),
        ("support-desk/pilot", "prompts", 60),
    ],
)
def test_a_suite_is_large_enough_for_its_check(name: str, kind: str, least: int) -> None:
    content = suite(name)
    assert content.head.kind == kind and len(content.items) >= least


def test_the_training_data_is_large_enough_and_does_not_contradict_itself() -> None:
    rows = read_rows(DESK / "train.jsonl")
    data = prepare(rows, seed=7)
    assert len(data.rows) >= 600 and Counter(data.splits)["train"] >= 600
    assert contradictions(data.rows) == []


def test_general_knowledge_covers_many_fields_and_knows_shakespeare() -> None:
    content = suite("general-knowledge")
    fields = Counter(item.tags[0] for item in content.items)
    assert len(fields) >= 8 and min(fields.values()) >= 20
    [shakespeare] = [one for one in content.items if isinstance(one, Question) and "Romeo and Juliet?" in one.question]
    assert shakespeare.question == "Who wrote Romeo and Juliet?" and "Shakespeare" in shakespeare.answers
    assert content.head.system is None


@pytest.mark.parametrize("name", ["general-knowledge", "support-desk/questions"])
def test_every_question_accepts_each_of_its_answers_and_is_not_answered_by_itself(name: str) -> None:
    questions = [item for item in suite(name).items if isinstance(item, Question)]
    wrong = [
        (one.id, answer)
        for one in questions
        for answer in one.answers
        if not is_right(answer, one.answers, one.question)
    ]
    assert wrong == []
    echoed = [one.id for one in questions if is_right(one.question, one.answers, one.question)]
    assert echoed == [], "a model that repeats the question would be right"


def test_the_policy_questions_ask_each_rule_often_and_in_many_words() -> None:
    content = suite("support-desk/questions")
    rules = Counter(item.tags[0] for item in content.items)
    assert len(rules) >= 20 and min(rules.values()) >= 10
    aliases = [len(item.answers) for item in content.items if isinstance(item, Question)]
    assert sum(n > 1 for n in aliases) > len(aliases) / 2


@pytest.mark.parametrize("name", NAMES)
def test_no_held_out_item_is_in_the_training_data(name: str) -> None:
    index = TrainingIndex(trained_prompts())
    assert [text for text in texts(suite(name)) if index.holds(text)] == []


def test_the_check_would_have_found_them() -> None:
    prompts = trained_prompts()
    index = TrainingIndex(prompts)
    assert all(index.holds(prompt.upper() + "!") for prompt in prompts)


@pytest.mark.parametrize("name", NAMES[1:])
def test_the_adapter_is_asked_as_it_was_trained(name: str) -> None:
    recipe = tomllib.loads((DESK / "recipe.toml").read_text())
    assert suite(name).head.system == recipe["system"]


def test_the_training_answers_state_what_the_questions_want() -> None:
    """Each rule that is asked for is taught: some training answer would be right for the question."""
    taught = {row.completion for row in read_rows(DESK / "train.jsonl")}
    unknown = [
        one.id
        for one in suite("support-desk/questions").items
        if isinstance(one, Question) and not any(is_right(answer, one.answers, one.question) for answer in taught)
    ]
    assert unknown == []


def test_a_damaged_suite_is_refused_with_every_line() -> None:
    files = {file.name: file.read_bytes() for file in (ROOT / "support-desk" / "pilot").iterdir()}
    first, second, *rest = files["items.jsonl"].splitlines()
    files["items.jsonl"] = b"\n".join([first, b"{", first, second[:-1], *rest])
    with pytest.raises(InvalidRequest) as refused:
        read_suite(files)
    assert [problem.split(":")[0] for problem in refused.value.problems] == [f"items.jsonl line {n}" for n in (2, 3, 4)]
