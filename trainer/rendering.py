"""Rows as the model sees them: rendered once and tokenised once, so that nothing is cut or dropped behind our back.

What cannot train is kept, with the reason: the ledger has a line for every row of the input.
"""

import hashlib
from collections.abc import Sequence
from typing import Any, NamedTuple

from registry.client import InvalidRequest, Message
from trainer.dataset import Row, Split
from trainer.examples import IGNORED, Example, PairExample
from trainer.pairs import Pair
from trainer.plan import Plan
from trainer.preflight.pairs import held_out
from trainer.provenance import lacking
from trainer.recipe import Recipe


class Rendered(NamedTuple):
    """A row as the model sees it: of the data, of replay, or a pair ("dpo", its row with the preferred answer).

    use: a split, or what became of it otherwise. sha256: of the text that the model sees.
    """

    source: str
    row: Row
    use: str
    reason: str
    example: Any  # an Example, or of a pair a PairExample
    sha256: str


class _Spoken(NamedTuple):
    """A conversation up to its last answer, and that answer, as text and as tokens."""

    head: str
    tail: str
    prompt: list[int]
    answer: list[int]


def render_data(plan: Plan, tokenizer: Any) -> list[Rendered]:
    return [
        _block(plan.recipe, tokenise("data", row, split, tokenizer, plan.recipe))
        for row, split in zip(plan.data.rows, plan.data.splits, strict=True)
    ]


def render_replay(plan: Plan, tokenizer: Any, answers: Sequence[str]) -> list[Rendered]:
    """answers: the base's own; a prompt without one is not used."""
    rendered = []
    for number, (prompt, answer) in enumerate(zip(plan.prompts, answers, strict=True), start=1):
        row = _replay_row(number, prompt, answer)
        use = Split.TRAIN if answer else "empty"
        one = tokenise("replay", row, use, tokenizer, plan.recipe)
        rendered.append(one if answer else one._replace(reason="the base gave no whole sentence"))
    return rendered


def render_pairs(plan: Plan, tokenizer: Any) -> list[Rendered]:
    """A pair trains unless it asks what a held-out row asks: that row would measure nothing any more."""
    reasons = held_out(plan.pairs.pairs, plan.data)
    rendered = []
    for pair in plan.pairs.pairs:
        one = _tokenise_pair(pair, tokenizer, plan.recipe)
        if reason := reasons.get(pair.row.line):
            one = one._replace(use="held_out", reason=reason)
        rendered.append(_block(plan.recipe, one))
    return rendered


def _block(recipe: Recipe, one: Rendered) -> Rendered:
    """Keep a row out of every split where the recipe asks for provenance that it lacks."""
    asked = recipe.provenance
    reason = lacking(one.row.provenance, asked.require, licensed_review=asked.licensed_review)
    return one._replace(use="blocked", reason=reason) if reason else one


def tokenise(source: str, row: Row, use: str, tokenizer: Any, recipe: Recipe) -> Rendered:
    """A row of data or replay; the completion's tokens are those behind the rendered prompt."""
    said = _speak(row, row.completion, tokenizer, recipe, with_system=source == "data")
    ids = said.prompt + said.answer
    use, reason = _fitting(use, len(ids), recipe)
    labels = [IGNORED] * len(ids) if source == "replay" else [IGNORED] * len(said.prompt) + said.answer
    # The template's own system prompt is the same in every replay row; there is nothing to hold there.
    start = _common_start(tokenizer) if source == "replay" else 0
    example = Example(ids, labels, source == "replay", min(start, len(ids) - 2))
    return Rendered(source, row, use, reason, example, _sha256(said.head + said.tail))


def _tokenise_pair(pair: Pair, tokenizer: Any, recipe: Recipe) -> Rendered:
    chosen, rejected = (
        _speak(pair.row, answer, tokenizer, recipe, with_system=True) for answer in (pair.row.completion, pair.rejected)
    )
    example = PairExample(chosen.prompt, chosen.answer, rejected.answer)
    use, reason = _fitting(Split.TRAIN, example.tokens, recipe)
    return Rendered("dpo", pair.row, use, reason, example, _sha256(chosen.head + chosen.tail + "\0" + rejected.tail))


def _fitting(use: str, tokens: int, recipe: Recipe) -> tuple[str, str]:
    if tokens > recipe.training.max_length:
        return "too_long", f"{tokens} tokens, max_length is {recipe.training.max_length}"
    return str(use), ""


def _speak(row: Row, answer: str, tokenizer: Any, recipe: Recipe, *, with_system: bool) -> _Spoken:
    """Render a row's prompt with one answer to it, and tokenise both."""
    messages = [{"role": one.role, "content": one.content} for one in row.prompt]
    if with_system and recipe.system and messages[0]["role"] != "system":
        messages.insert(0, {"role": "system", "content": recipe.system})
    head = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    whole = tokenizer.apply_chat_template([*messages, {"role": "assistant", "content": answer}], tokenize=False)
    if not whole.startswith(head):
        raise InvalidRequest(
            f"the chat template of {recipe.base} renders line {row.line} so that the prompt is no prefix of the whole; "
            "such templates cannot be trained completion-only"
        )
    tail = whole[len(head) :]
    # Behind the end-of-turn token a template may add a line break, which serving never sees.
    end = tail.rfind(tokenizer.eos_token) if tokenizer.eos_token else -1
    tail = tail[: end + len(tokenizer.eos_token)] if end >= 0 else tail
    prompt, answered = (tokenizer(text, add_special_tokens=False)["input_ids"] for text in (head, tail))
    return _Spoken(head, tail, prompt, answered)


def _common_start(tokenizer: Any) -> int:
    """How many tokens every conversation without a system message has in common."""
    rendered = [
        tokenizer.apply_chat_template([{"role": "user", "content": text}], tokenize=False) for text in ("a", "b")
    ]
    first, second = (tokenizer(text, add_special_tokens=False)["input_ids"] for text in rendered)
    return next(place for place, pair in enumerate(zip(first, second, strict=True)) if pair[0] != pair[1])


def _replay_row(number: int, prompt: str, answer: str) -> Row:
    digest = _sha256(f"{prompt}\0{answer}")
    return Row(f"replay-{number}", number, (Message(role="user", content=prompt),), answer or "-", "replay", digest)


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
