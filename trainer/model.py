"""The base while it trains, and what it says: loaded and quantised as the recipe says, asked for greedy answers."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig

from trainer.examples import IGNORED, Example
from trainer.recipe import Recipe

_STOP_PROMPTS, _STOP_TOKENS = 20, 512


def load_tokenizer(base: Path) -> Any:
    tokenizer = AutoTokenizer.from_pretrained(base)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_model(base: Path, recipe: Recipe) -> Any:
    """The frozen base, quantised as the recipe says, on the GPU if there is one."""
    on_cpu = not torch.cuda.is_available()
    quantization = None
    if recipe.quantization == "nf4":
        quantization = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=torch.bfloat16,
        )
    model = AutoModelForCausalLM.from_pretrained(
        base,
        dtype=torch.bfloat16,
        quantization_config=quantization,
        # The CPU's fused attention needs 10 ms for a backward that plain matrix products do in 1.
        attn_implementation="eager" if on_cpu else "sdpa",
        device_map=None if on_cpu else "auto",
    )
    model.config.use_cache = False
    for module in model.modules():
        # bitsandbytes 0.50 repacks weights on AVX512-BF16 CPUs at the first forward in eval mode, for a kernel without
        # a backward: whoever generates or evaluates before training then trains without gradients, silently.
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False
    return model


def answer_greedily(
    model: Any, tokenizer: Any, prompts: Sequence[Sequence[int]], max_new_tokens: int, report: Callable[[int], None]
) -> list[str]:
    """The base's own answers, each cut at its last whole sentence where it did not end by itself."""
    found = _generate(model, tokenizer, prompts, max_new_tokens, report)
    return [_whole_sentences(tokenizer, tokens) for tokens in found]


def stopped_share(model: Any, tokenizer: Any, examples: Sequence[Example]) -> float | None:
    """Share of the prompts that the adapter answers to an end, within twice the tokens of the longest known answer.

    At most twenty prompts, evenly spread; replay rows are not the task. None where there are no others.
    """
    rows = [one for one in examples if not one.replay]
    if not rows:
        return None
    rows = rows[:: math.ceil(len(rows) / _STOP_PROMPTS)]
    starts = [next(place for place, label in enumerate(one.labels) if label != IGNORED) for one in rows]
    prompts = [one.ids[:start] for one, start in zip(rows, starts, strict=True)]
    longest = max(len(one.ids) - start for one, start in zip(rows, starts, strict=True))
    found = _generate(model, tokenizer, prompts, min(2 * longest, _STOP_TOKENS), lambda done: None)
    return sum(tokenizer.eos_token_id in tokens for tokens in found) / len(found)


def _generate(
    model: Any, tokenizer: Any, prompts: Sequence[Sequence[int]], max_new_tokens: int, report: Callable[[int], None]
) -> list[list[int]]:
    """The tokens of greedy answers, with whatever the batch padded them with behind their end."""
    order = sorted(range(len(prompts)), key=lambda index: len(prompts[index]))
    found: dict[int, list[int]] = {}
    model.eval()
    for start in range(0, len(order), 32):
        batch = order[start : start + 32]
        longest = max(len(prompts[index]) for index in batch)
        pads = [longest - len(prompts[index]) for index in batch]
        ids = [[tokenizer.pad_token_id] * pad + list(prompts[index]) for pad, index in zip(pads, batch, strict=True)]
        mask = [[0] * pad + [1] * (longest - pad) for pad in pads]
        with torch.no_grad():
            output = model.generate(
                input_ids=torch.tensor(ids, device=model.device),
                attention_mask=torch.tensor(mask, device=model.device),
                max_new_tokens=max_new_tokens,
                do_sample=False,
                use_cache=True,
                pad_token_id=tokenizer.pad_token_id,
            )
        found |= zip(batch, output[:, longest:].tolist(), strict=True)
        report(len(found))
    return [found[index] for index in range(len(prompts))]


def _whole_sentences(tokenizer: Any, tokens: list[int]) -> str:
    ended = tokenizer.eos_token_id in tokens
    if ended:
        tokens = tokens[: tokens.index(tokenizer.eos_token_id)]
    text = str(tokenizer.decode(tokens, skip_special_tokens=True)).strip()
    if ended or text.endswith((".", "!", "?")):
        return text
    return text[: max(text.rfind(". "), text.rfind(".\n")) + 1]
