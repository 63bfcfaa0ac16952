"""From messages to token ids, once: render the chat template, tokenise the text, know which tokens count.

Scored-token convention `assistant+eot/v1`: the tokens whose characters lie wholly inside an assistant message's
content, and the end-of-turn token behind it. Headers and the line breaks around them do not count: on short replies
they alone would turn a perplexity of 15 into 11.7.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from registry.client import InvalidRequest, Message

CONVENTION = "assistant+eot/v1"
_MOST_STRADDLING = 0.005


class Scored(NamedTuple):
    """`mask[i]` says whether token i counts; the first token never does, having nothing before it."""

    ids: list[int]
    mask: list[bool]


class Renderer:
    """The base's own tokenizer and template: an adapter never brings another."""

    def __init__(self, base: Path) -> None:
        from transformers import AutoTokenizer

        self._tokenizer: Any = AutoTokenizer.from_pretrained(base)
        if not self._tokenizer.chat_template:
            raise InvalidRequest(f"the tokenizer in {base} has no chat template; tunegate evaluates chat models")
        self._special = [token for token in self._tokenizer.all_special_tokens if token]

    def question(self, system: str | None, text: str) -> list[int]:
        """Ids of a prompt that asks for the assistant's answer to one user message."""
        return self._encode(self._render([*_system(system), {"role": "user", "content": text}], ask=True))[0]

    def conversation(self, system: str | None, messages: Sequence[Message]) -> Scored:
        """Ids of a whole conversation and which of them count.

        Raises InvalidRequest for a template whose prompts are no prefixes of the whole, or where nothing counts.
        """
        plain = [*_system(system), *({"role": one.role, "content": one.content} for one in messages)]
        text = self._render(plain, ask=False)
        spans = [self._span(plain, index, text) for index, one in enumerate(plain) if one["role"] == "assistant"]
        ids, offsets = self._encode(text)
        inside = [any(a <= begin and end <= b for a, b in spans) and begin < end for begin, end in offsets]
        straddling = sum(
            any(begin < edge < end for span in spans for edge in span) for begin, end in offsets if begin < end
        )
        mask = [counts and place > 0 for place, counts in enumerate(inside)]
        if not any(mask):
            raise InvalidRequest("the conversation has no assistant token to score")
        if straddling > _MOST_STRADDLING * len(ids) and straddling > 1:
            raise InvalidRequest(f"{straddling} tokens straddle the edges of assistant messages; they cannot be scored")
        return Scored(ids, mask)

    def _span(self, messages: list[dict[str, str]], index: int, text: str) -> tuple[int, int]:
        """Characters of one assistant message's content with its end-of-turn token."""
        head, content = self._render(messages[:index], ask=True), messages[index]["content"]
        begin, end = len(head), len(head) + len(content)
        if not text.startswith(head) or text[begin:end] != content:
            raise InvalidRequest("the chat template rewrites earlier turns, so its parts cannot be scored separately")
        behind = text[end:]
        turn_end = next((token for token in self._special if behind.lstrip().startswith(token)), None)
        if turn_end is None:
            raise InvalidRequest("the chat template puts no end-of-turn token behind an assistant message")
        return begin, end + behind.index(turn_end) + len(turn_end)

    def _render(self, messages: list[dict[str, str]], *, ask: bool) -> str:
        text = self._tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=ask)
        return str(text)

    def _encode(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        encoded = self._tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        ids = list(encoded["input_ids"])
        bos = self._tokenizer.bos_token_id
        if bos is not None and ids[:2] == [bos, bos]:
            raise InvalidRequest("the chat template begins with two BOS tokens; no model was trained that way")
        return ids, [(int(begin), int(end)) for begin, end in encoded["offset_mapping"]]


def _system(system: str | None) -> list[dict[str, str]]:
    return [{"role": "system", "content": system}] if system else []
