"""A job's suites, fetched by digest and turned into token ids; whatever cannot be evaluated is refused here."""

from collections.abc import Sequence
from typing import NamedTuple

from evaluator.rendering import Renderer
from registry.client import Client, Conversation, InvalidRequest, Prompt, Question, SuiteContent
from registry.records import Suite


class Ask(NamedTuple):
    """A prompt to answer. `answers` is empty where people judge."""

    item: str
    ids: list[int]
    text: str
    answers: Sequence[str]


class Read(NamedTuple):
    """A conversation to score; `mask` says which tokens count, `texts` are the user's turns."""

    item: str
    ids: list[int]
    mask: list[bool]
    texts: Sequence[str]


class Loaded(NamedTuple):
    """One suite as token ids; either `asks` or `reads` has its items."""

    suite: Suite
    max_tokens: int
    asks: list[Ask]
    reads: list[Read]


def load_suite(client: Client, suite: Suite, renderer: Renderer, longest: int) -> Loaded:
    """Fetch, check and tokenise. Raises InvalidRequest for an item longer than the engine's context."""
    content = client.suite_content(suite)
    loaded = _tokenise(suite, content, renderer)
    room = longest - content.head.max_tokens
    too_long = [one.item for one in loaded.asks if len(one.ids) > room]
    too_long += [one.item for one in loaded.reads if len(one.ids) >= longest]
    if too_long:
        raise InvalidRequest(
            f"suite {suite.name}: {len(too_long)} items do not fit into {longest} tokens, first {too_long[0]!r}; "
            "shorten them or evaluate with a longer context"
        )
    return loaded


def _tokenise(suite: Suite, content: SuiteContent, renderer: Renderer) -> Loaded:
    system = content.head.system
    asks: list[Ask] = []
    reads: list[Read] = []
    for item in content.items:
        match item:
            case Question():
                asks.append(Ask(item.id, renderer.question(system, item.question), item.question, item.answers))
            case Prompt():
                asks.append(Ask(item.id, renderer.question(system, item.prompt), item.prompt, ()))
            case Conversation():
                scored = renderer.conversation(system, item.messages)
                texts = [one.content for one in item.messages if one.role == "user"]
                reads.append(Read(item.id, scored.ids, scored.mask, texts))
    return Loaded(suite, content.head.max_tokens, asks, reads)
