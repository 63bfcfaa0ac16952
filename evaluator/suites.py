"""A job's suites, fetched by digest and turned into token ids; whatever cannot be evaluated is refused here.

Items are kept in one order, by (number of ids, item id): the lines of a suite can be shuffled and nothing changes.
"""

import hashlib
import importlib.util
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

from evaluator.accuracy import is_right
from evaluator.engine import Unfit
from evaluator.refusals import is_refusal
from evaluator.rendering import Renderer, ids_digest, letter
from registry.client import (
    Choice,
    Client,
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
from registry.records import Suite, SuiteKind

ItemT = TypeVar("ItemT", bound=Item)
GOLD_ITEMS = 200
_BY_LETTER = "Answer with the letter of the right choice only."


class Ask(NamedTuple):
    """An item to answer. `text` is what is asked; documents of lm-eval have no `ids`, their task makes them."""

    source: Item
    ids: list[int]
    text: str

    @property
    def item(self) -> str:
        return self.source.id


class Read(NamedTuple):
    """A text to score; `mask` says which tokens count, `n_bytes` how many UTF-8 bytes the assistant's contents have."""

    source: Item
    ids: list[int]
    mask: list[bool]
    n_bytes: int

    @property
    def item(self) -> str:
        return self.source.id


class Loaded(NamedTuple):
    """One suite as token ids; either `asks` or `reads` has its items. `options`: the letters' ids, for choices."""

    suite: Suite
    content: SuiteContent
    asks: list[Ask]
    reads: list[Read]
    options: list[int]

    @property
    def items(self) -> list[Ask | Read]:
        return [*self.asks, *self.reads]

    @property
    def asked(self) -> str:
        """Digest of the ids and of which of them count."""
        return ids_digest([(one.item, one.ids, one.mask if isinstance(one, Read) else ()) for one in self.items])


def load_suite(client: Client, suite: Suite, renderer: Renderer, base: Path, longest: int) -> Loaded:
    """Fetch, check and tokenise for the base in a directory, whose own tokenizer `renderer` has.

    Raises InvalidRequest for an item longer than the engine's context of `longest` tokens.
    """
    content = client.suite_content(suite)
    if suite.kind is SuiteKind.LM_EVAL:
        _check_documents(content, base, longest)
    return tokenise(suite, content, renderer, longest)


def tokenise(suite: Suite, content: SuiteContent, renderer: Renderer, longest: int) -> Loaded:
    """A suite's items as token ids. Raises InvalidRequest for an item longer than the engine's context."""
    asks: list[Ask] = []
    reads: list[Read] = []
    for item in content.items:
        try:
            if isinstance(item, Conversation):
                reads.append(_read(item, content.head.system, item.messages, renderer))
            else:
                asks.append(_ask(item, content.head.system, renderer))
        except InvalidRequest as error:
            raise InvalidRequest(f"suite {suite.name}, item {item.id!r}: {error}") from None
    choices = [len(item.choices) for item in content.items if isinstance(item, Choice)]
    options = renderer.letters(max(choices)) if choices else []
    room = longest - (1 if choices else content.head.max_tokens)
    _check_length(suite, [one.item for one in asks if len(one.ids) > room], longest)
    _check_length(suite, [one.item for one in reads if len(one.ids) >= longest], longest)
    return Loaded(suite, content, sorted(asks, key=_place), sorted(reads, key=_place), options)


def gold_reads(loaded: Loaded, renderer: Renderer, longest: int) -> list[Read]:
    """The right answer to each question of a fixed draw, as the assistant's reply: how likely is what is right?

    The draw depends on the items' ids alone.
    """
    questions = [one.source for one in loaded.asks if isinstance(one.source, Question)]
    system = loaded.content.head.system
    found = [
        _read(one, system, (Message(role="user", content=one.question), _reply(one)), renderer)
        for one in draw(questions, GOLD_ITEMS)
    ]
    _check_length(loaded.suite, [one.item for one in found if len(one.ids) >= longest], longest)
    return sorted(found, key=_place)


def draw(items: Sequence[ItemT], n: int) -> list[ItemT]:
    """At most n items, drawn by the sha256 of their ids: the same ones wherever they stand in the suite."""
    return sorted(items, key=lambda item: hashlib.sha256(item.id.encode()).digest())[:n]


def judge(source: Item, output: str) -> bool | None:
    """Whether an output is right; None where people judge."""
    match source:
        case Question():
            return is_right(output, source.answers, source.question)
        case Choice():
            return output == letter(source.answer)
        case Refusal():
            return is_refusal(output) == source.refuse
    return None


def compared_texts(source: Item) -> list[str]:
    """What of an item is looked for in the training data. Of an lm-eval document, whose fields have no known
    meaning: its longest text."""
    match source:
        case Question() | Choice():
            return [source.question]
        case Refusal() | Prompt():
            return [source.prompt]
        case Conversation():
            return [one.content for one in source.messages if one.role == "user"]
        case Document():
            return [_longest(source)]


def _ask(item: Item, system: str | None, renderer: Renderer) -> Ask:
    match item:
        case Question():
            text = item.question
        case Prompt() | Refusal():
            text = item.prompt
        case Choice():
            lines = [f"{letter(place)}. {choice}" for place, choice in enumerate(item.choices)]
            text = "\n".join([item.question, *lines, _BY_LETTER])
        case Document():
            return Ask(item, [], _longest(item))
        case Conversation():
            raise AssertionError("conversations are read, not asked")
    return Ask(item, renderer.question(system, text), text)


def _read(source: Item, system: str | None, messages: Sequence[Message], renderer: Renderer) -> Read:
    scored = renderer.conversation(system, messages)
    n_bytes = sum(len(one.content.encode()) for one in messages if one.role == "assistant")
    return Read(source, scored.ids, scored.mask, n_bytes)


def _reply(question: Question) -> Message:
    return Message(role="assistant", content=question.answers[0])


def _longest(document: Document) -> str:
    return max(_texts(document.doc), key=len, default="")


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list | dict):
        for one in value.values() if isinstance(value, dict) else value:
            yield from _texts(one)


def _check_documents(content: SuiteContent, base: Path, longest: int) -> None:
    if importlib.util.find_spec("lm_eval") is None:
        raise Unfit(
            f"suite {content.head.name} is a task of lm-evaluation-harness, which is not installed here; install "
            "tunegate[lm-eval]"
        )
    # With it come pandas, torch and more, which nothing else here needs.
    from evaluator.lm_eval_bridge import check_documents

    check_documents(content, base, longest)


def _place(one: Ask | Read) -> tuple[int, str]:
    return len(one.ids), one.item


def _check_length(suite: Suite, too_long: list[str], longest: int) -> None:
    if too_long:
        raise InvalidRequest(
            f"suite {suite.name}: {len(too_long)} items do not fit into {longest} tokens, first {too_long[0]!r}; "
            "shorten them or evaluate with a longer context"
        )
