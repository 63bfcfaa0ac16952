"""From messages to token ids, once: render the chat template, tokenise the text, know which tokens count.

Two conventions say which tokens of a conversation are scored:

assistant+eot/v1  the gate's: tokens whose characters lie wholly inside an assistant message's content, and the
                  end-of-turn token behind it. Headers and the line breaks around them do not count: on short replies
                  they alone would turn a perplexity of 15 into 11.7.
lm_eval_compat    lm-evaluation-harness's, to compare with it: white space that ends the header in front of a message
                  counts too, because the harness moves it from the context into the continuation.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from registry.client import InvalidRequest, Message
from registry.records import CONVENTION

LM_EVAL_COMPAT = "lm_eval_compat"
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")
_MOST_STRADDLING = 0.005


class Scored(NamedTuple):
    """`mask[i]` says whether token i counts; the first token never does, having nothing before it."""

    ids: list[int]
    mask: list[bool]


class Renderer:
    """The base's own tokenizer and template: an adapter never brings another."""

    def __init__(self, base: Path) -> None:
        if not (base / "tokenizer.json").is_file():
            raise InvalidRequest(
                f"{base} has no tokenizer.json, from which offsets of tokens come; save its tokenizer as a fast one"
            )
        # AutoTokenizer would import torch, which takes seconds and which this process does not need.
        from transformers import PreTrainedTokenizerFast

        self._tokenizer: Any = PreTrainedTokenizerFast.from_pretrained(base)
        if not self._tokenizer.chat_template:
            raise InvalidRequest(f"the tokenizer in {base} has no chat template; tunegate evaluates chat models")
        self._special = [token for token in self._tokenizer.all_special_tokens if token]
        self.digest = tokenizer_digest(base)

    def question(self, system: str | None, text: str) -> list[int]:
        """Ids of a prompt that asks for the assistant's answer to one user message."""
        return self._encode(self._render([*_system(system), {"role": "user", "content": text}], ask=True))[0]

    def conversation(self, system: str | None, messages: Sequence[Message], convention: str = CONVENTION) -> Scored:
        """Ids of a whole conversation and which of them count by a convention.

        Raises InvalidRequest for a template whose prompts are no prefixes of the whole, or where nothing counts.
        """
        plain = [*_system(system), *({"role": one.role, "content": one.content} for one in messages)]
        if not any(one["role"] == "assistant" for one in plain):
            raise InvalidRequest("the conversation has no assistant token to score; end it with an assistant message")
        text = self._render(plain, ask=False)
        spans = [
            self._span(plain, index, text, convention) for index, one in enumerate(plain) if one["role"] == "assistant"
        ]
        ids, offsets = self._encode(text)
        inside = [any(a <= begin and end <= b for a, b in spans) and begin < end for begin, end in offsets]
        straddling = sum(
            any(begin < edge < end for span in spans for edge in span) for begin, end in offsets if begin < end
        )
        mask = [counts and place > 0 for place, counts in enumerate(inside)]
        if not any(mask):
            raise InvalidRequest("the conversation has no assistant token to score; its messages are empty")
        if straddling > _MOST_STRADDLING * len(ids) and straddling > 1:
            raise InvalidRequest(f"{straddling} tokens straddle the edges of assistant messages; they cannot be scored")
        return Scored(ids, mask)

    def letters(self, n: int) -> list[int]:
        """Ids of A, B, C … as the first token of the assistant's reply.

        Raises InvalidRequest where the tokenizer does not make each of them one token of its own.
        """
        text = self._render([{"role": "user", "content": "?"}], ask=True)
        asked = self._encode(text)[0]
        found = []
        for place in range(n):
            answered = self._encode(text + letter(place))[0]
            if answered[:-1] != asked:
                raise InvalidRequest(
                    f"the tokenizer does not make {letter(place)!r} one token at the beginning of a reply, so choices "
                    "cannot be compared by their letters; ask them as a suite of kind questions"
                )
            found.append(answered[-1])
        if len(set(found)) != n:
            raise InvalidRequest("the tokenizer gives several letters one id; ask as a suite of kind questions")
        return found

    def _span(self, messages: list[dict[str, str]], index: int, text: str, convention: str) -> tuple[int, int]:
        """Characters of one assistant message that count, its end-of-turn token among them."""
        head, content = self._render(messages[:index], ask=True), messages[index]["content"]
        begin, end = len(head), len(head) + len(content)
        if not text.startswith(head) or text[begin:end] != content:
            raise InvalidRequest(
                "the chat template rewrites earlier turns, so its parts cannot be scored separately; evaluate with a "
                "template whose prompts are prefixes of the whole conversation"
            )
        behind = text[end:]
        turn_end = next((token for token in self._special if behind.lstrip().startswith(token)), None)
        if turn_end is None:
            raise InvalidRequest("the chat template puts no end-of-turn token behind an assistant message")
        if convention == LM_EVAL_COMPAT:
            begin = len(head.rstrip())
        return begin, end + behind.index(turn_end) + len(turn_end)

    def _render(self, messages: list[dict[str, str]], *, ask: bool) -> str:
        try:
            text = self._tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=ask)
        except Exception as error:  # a template raises what it likes, of jinja2 or of its own making
            raise InvalidRequest(f"the chat template refuses these messages: {error}") from None
        return str(text)

    def _encode(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        encoded = self._tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        ids = list(encoded["input_ids"])
        bos = self._tokenizer.bos_token_id
        if bos is not None and ids[:2] == [bos, bos]:
            raise InvalidRequest("the chat template begins with two BOS tokens; no model was trained that way")
        return ids, [(int(begin), int(end)) for begin, end in encoded["offset_mapping"]]


def letter(place: int) -> str:
    """The name of a choice by its place: A for 0."""
    return chr(ord("A") + place)


def tokenizer_digest(base: Path) -> str:
    """One digest of what turns messages into ids: the base's tokenizer files and chat template, as far as present."""
    whole = hashlib.sha256()
    for name in _TOKENIZER_FILES:
        if (base / name).is_file():
            whole.update(f"{name} {hashlib.sha256((base / name).read_bytes()).hexdigest()}\n".encode())
    return f"sha256:{whole.hexdigest()}"


def ids_digest(asked: Sequence[tuple[str, Sequence[int], Sequence[bool]]]) -> str:
    """What exactly is put to the engine: sha256 over JSON of [item, ids, places that count], in order of the items."""
    document = [
        [item, list(ids), [place for place, counts in enumerate(mask) if counts]]
        for item, ids, mask in sorted(asked, key=lambda one: one[0])
    ]
    return f"sha256:{hashlib.sha256(msgspec.json.encode(document)).hexdigest()}"


def _system(system: str | None) -> list[dict[str, str]]:
    return [{"role": "system", "content": system}] if system else []
