"""How many tokens rows have, and which are too long for a run. Pure but for loading a tokenizer.

With a base the rows are rendered and counted by its own tokenizer and chat template. Without one the number is an
estimate, and every message says so: a token for four bytes of UTF-8, and eight for each message's frame.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from registry.client import InvalidRequest
from trainer.preflight.codes import Problem, found
from trainer.preflight.reading import Row

_BYTES_PER_TOKEN, _FRAME_TOKENS = 4.0, 8
_CUT_SHARE = 0.01


class Lengths(NamedTuple):
    """Tokens of each row, and of its prompt alone. how: the tokenizer's directory, or "estimate"."""

    rows: list[int]
    prompts: list[int]
    how: str

    @property
    def estimated(self) -> bool:
        return self.how == "estimate"


def estimate(rows: Sequence[Row]) -> Lengths:
    prompts = [sum(_estimated(one.content) for one in row.prompt) for row in rows]
    whole = [prompt + _estimated(row.completion) for row, prompt in zip(rows, prompts, strict=True)]
    return Lengths(whole, prompts, "estimate")


def _estimated(text: str) -> int:
    return round(len(text.encode()) / _BYTES_PER_TOKEN) + _FRAME_TOKENS


def count(rows: Sequence[Row], base: Path) -> Lengths:
    """Tokens as a run with this base sees them. Raises InvalidRequest where it has no usable tokenizer or template."""
    if not base.is_dir():
        raise InvalidRequest(f"{base} is no directory of a base model; give one, or leave --base out for an estimate")
    from transformers import AutoTokenizer

    try:
        tokenizer: Any = AutoTokenizer.from_pretrained(str(base), local_files_only=True)
        rendered = [_render(tokenizer, row) for row in rows]
    except Exception as error:  # whatever a tokenizer's files and its template's Jinja may raise
        reason = " ".join(str(error).split())[:200]
        raise InvalidRequest(
            f"the tokenizer of {base} cannot render the rows: {reason}; leave --base out for an estimate"
        ) from None
    prompts = [len(ids) for ids in _ids(tokenizer, [prompt for prompt, _ in rendered])]
    whole = [len(ids) for ids in _ids(tokenizer, [text for _, text in rendered])]
    return Lengths(whole, prompts, str(base))


def _render(tokenizer: Any, row: Row) -> tuple[str, str]:
    messages = [{"role": one.role, "content": one.content} for one in row.prompt]
    prompt = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    answer = {"role": "assistant", "content": row.completion}
    return prompt, tokenizer.apply_chat_template([*messages, answer], tokenize=False).rstrip("\n")


def _ids(tokenizer: Any, texts: Sequence[str]) -> Any:
    return tokenizer(list(texts), add_special_tokens=False, verbose=False)["input_ids"] if texts else []


def check_lengths(rows: Sequence[Row], lengths: Lengths, max_length: int) -> list[Problem]:
    """Rows that a run leaves out because they are longer than max_length, and those with nothing left to train."""
    about = "about " if lengths.estimated else ""
    problems = []
    long = 0
    for row, tokens, prompt in zip(rows, lengths.rows, lengths.prompts, strict=True):
        long += tokens > max_length
        if prompt >= max_length:
            message = f"the prompt alone has {about}{prompt:,} tokens, max_length is {max_length:,}"
            problems.append(found("E122", message, row=row.number, line=row.line))
        elif tokens > max_length:
            message = f"the row has {about}{tokens:,} tokens, max_length is {max_length:,}"
            problems.append(found("W123", message, row=row.number, line=row.line))
    if long > _CUT_SHARE * len(rows):
        problems.append(found("W121", f"{long} of {len(rows)} rows are longer than {max_length:,} tokens"))
    return problems
