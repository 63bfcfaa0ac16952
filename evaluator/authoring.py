"""What is wrong with a suite before it measures anything: doubles, answers that decide nothing, leaks. Pure.

Problems make a suite's numbers wrong; warnings make them weak.
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from evaluator.accuracy import is_right, words
from evaluator.contamination import TrainingIndex
from registry.client import Conversation, Item, Question, SuiteContent

_LONG_ALIAS_WORDS = 12


class Finding(NamedTuple):
    """`severity` is "problem" or "warning"."""

    severity: str
    item: str
    message: str


def check_items(content: SuiteContent, training_prompts: Iterable[str] = ()) -> list[Finding]:
    """Every finding, in the order of the items. `training_prompts`: what must not be in the suite."""
    index = TrainingIndex(training_prompts)
    first: dict[tuple[str, ...], str] = {}
    found: list[Finding] = []
    for item in content.items:
        found += _doubles(item, first)
        found += [
            Finding("problem", item.id, f"{text[:60]!r} is in the training data; take it out of one of the two")
            for text in _texts(item)
            if index.holds(text)
        ]
        if isinstance(item, Question):
            found += _answers(item)
    return found


def _texts(item: Item) -> list[str]:
    """What a user says in an item."""
    if isinstance(item, Question):
        return [item.question]
    if isinstance(item, Conversation):
        return [one.content for one in item.messages if one.role == "user"]
    return [item.prompt]


def _doubles(item: Item, first: dict[tuple[str, ...], str]) -> Iterator[Finding]:
    key = tuple(word for text in _texts(item) for word in words(text))
    if (earlier := first.setdefault(key, item.id)) != item.id:
        yield Finding("problem", item.id, f"asks the same as {earlier!r}, so it counts twice; take one out")


def _answers(item: Question) -> Iterator[Finding]:
    for answer in item.answers:
        if not words(answer):
            yield Finding("problem", item.id, f"answer {answer!r} has no word that could be found in a reply")
        elif is_right(item.question, [answer], ""):
            yield Finding("problem", item.id, f"answer {answer!r} is in the question: repeating it would be right")
        elif len(words(answer)) > _LONG_ALIAS_WORDS:
            yield Finding("warning", item.id, f"answer {answer[:40]!r}… is so long that hardly any reply contains it")
