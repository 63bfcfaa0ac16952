"""What a run will take: tokens, steps, memory, time, money. Estimates, each by the formula that its docstring states.

>>> adapter_parameters({"m.layers.0.q_proj.weight": [64, 32], "m.layers.1.q_proj.weight": [64, 32]}, ["q_proj"], 8, 1)
768
"""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from msgspec import Struct

from trainer.recipe import DpoSection, Recipe, TrainingSection

# Bytes of a weight in nf4: half a byte, and 0.127 bits for the doubly quantised scales (Dettmers et al. 2023).
_NF4_BYTES, _BF16_BYTES = 0.5 + 0.127 / 8, 2.0
_RUNTIME_BYTES = 1.2e9  # Python with torch, transformers and TRL loaded: 1.1 to 1.3 GB of resident memory
# Share of a large matrix product's speed that a run keeps, with everything that it does beside them.
_EFFICIENCY = 0.4
_LAYER = re.compile(r"\.layers\.(\d+)\.|\.h\.(\d+)\.")


class Counts(NamedTuple):
    """Tokens of the rows that train: each row's own, and those of them that are learnt (the answer's).

    pairs: tokens of both conversations of each preference pair. longest_pair: of the longest single one of them.
    """

    rows: list[int]
    trained: list[int]
    replay: list[int]
    pairs: list[int] = []
    longest_pair: int = 0


class Base(NamedTuple):
    """What of a base decides how much it takes. linear: weights in matrices of its layers; other: all the rest."""

    layers: int
    hidden: int
    heads: int
    vocabulary: int
    linear: int
    other: int


class Estimate(Struct, frozen=True):
    """tokens: of all epochs, padding excluded. memory: bytes by what takes them, memory_bytes their sum: of the stage
    that takes more. pair_steps: steps of a second stage over preference pairs.
    """

    rows: int
    replay_rows: int
    tokens_per_epoch: int
    tokens: int
    trained_tokens: int
    longest_row: int
    steps_per_epoch: int
    steps: int
    adapter_parameters: int
    memory: dict[str, int]
    memory_bytes: int
    flops: float
    pairs: int = 0
    pair_steps: int = 0


class _Forward(NamedTuple):
    """What one forward holds: rows, the longest of them, and how much of the head's logits is kept for a token."""

    rows: int
    longest: int
    logits: float
    adapter_bytes: int  # of one number of the adapter


def steps_in_epoch(rows: int, plan: TrainingSection | DpoSection) -> int:
    """The last of them may hold fewer rows than the others."""
    return math.ceil(rows / (plan.batch_size * plan.accumulate))


def steps_of(rows: int, plan: TrainingSection | DpoSection) -> int:
    """How many steps a stage takes over so many rows, at least one, unless it ends early."""
    return max(1, round(steps_in_epoch(rows, plan) * plan.epochs))


def estimate(recipe: Recipe, base: Base, adapter: int, counts: Counts, *, on_cpu: bool) -> Estimate:
    """adapter: how many parameters it has."""
    rows = [*counts.rows, *counts.replay]
    per_epoch, steps, epochs = _steps(len(rows), recipe.training)
    tokens, replayed = sum(rows), sum(counts.replay)
    memory = max(
        (_memory(recipe, base, adapter, one, on_cpu) for one in _forwards(recipe, counts)),
        key=lambda found: sum(found.values()),
    )
    _, pair_steps, pair_epochs = _steps(len(counts.pairs), recipe.dpo)
    flops = epochs * _flops(recipe, base, tokens, replayed, on_cpu)
    # The reference reads every pair once, before the first step.
    in_pairs = sum(counts.pairs) if recipe.dpo else 0
    flops += pair_epochs * _flops(recipe, base, in_pairs, 0, on_cpu) + 2.0 * base.linear * in_pairs
    return Estimate(
        rows=len(counts.rows),
        replay_rows=len(counts.replay),
        tokens_per_epoch=tokens,
        tokens=round(tokens * epochs),
        trained_tokens=round(sum(counts.trained) * epochs),
        longest_row=max(rows, default=0),
        steps_per_epoch=per_epoch,
        steps=steps,
        adapter_parameters=adapter,
        memory=memory,
        memory_bytes=sum(memory.values()),
        flops=flops,
        pairs=len(counts.pairs) if recipe.dpo else 0,
        pair_steps=pair_steps,
    )


def _steps(rows: int, plan: TrainingSection | DpoSection | None) -> tuple[int, int, float]:
    """Steps in an epoch, steps in all, and how many epochs these are; none where there is nothing to train on."""
    if plan is None or not rows:
        return 0, 0, 0.0
    per_epoch, steps = steps_in_epoch(rows, plan), steps_of(rows, plan)
    return per_epoch, steps, steps / per_epoch


def _forwards(recipe: Recipe, counts: Counts) -> list[_Forward]:
    """Of each stage. Of replay rows all logits are kept, and the base's own beside them; otherwise the answers'."""
    longest, answers = max([*counts.rows, *counts.replay], default=0), 1 / 3
    each = 4 if recipe.lora.dtype == "float32" else 2
    found = [_Forward(recipe.training.batch_size, longest, 2.0 if recipe.replay else answers, each)]
    if recipe.dpo is not None:
        found.append(_Forward(2 * recipe.dpo.batch_size, counts.longest_pair, answers, 4))
    return found


def seconds_for(flops: float, flops_per_second: float) -> float:
    """How long training takes. flops_per_second: of a large bfloat16 matrix product; a run keeps two fifths of it."""
    return flops / (flops_per_second * _EFFICIENCY)


def _flops(recipe: Recipe, base: Base, tokens: int, replayed: int, on_cpu: bool) -> float:
    """Of one epoch: 2 N a token forward and 2 N backward through the trained layers (a frozen weight has no gradient).

    N: weights in the layers' matrices. On a GPU the trained layers are computed a second time (checkpointing). Rows of
    replay go through the bare base once more.
    """
    share = 1 - recipe.lora.first_layer / max(1, base.layers)
    backward = share if on_cpu else 2 * share
    return 2.0 * base.linear * (tokens * (1 + backward) + replayed)


def _memory(recipe: Recipe, base: Base, adapter: int, forward: _Forward, on_cpu: bool) -> dict[str, int]:
    """Bytes at the peak.

    Base: nf4 or bfloat16 for the layers' matrices, bfloat16 for the rest. Adapter: weights, gradients and Adam's two
    moments. Activations: 34 s b h bytes a layer and 5 a s² b for the attention's scores (Korthikanti et al. 2022), over
    the layers that train; with checkpointing (GPU) 2 s b h a layer, and one layer whole without scores. Head: the
    logits of a batch in bfloat16 and twice in float32, a third of the tokens being answers. s: the longest row. Of a
    preference pair, both conversations are in the batch, and the adapter is float32.
    """
    tokens, layers = forward.rows * forward.longest, base.layers - recipe.lora.first_layer
    weight = _NF4_BYTES if recipe.quantization == "nf4" else _BF16_BYTES
    whole_layer = 34.0 * tokens * base.hidden
    scores = 5.0 * base.heads * forward.longest * tokens
    activations = layers * (whole_layer + scores) if on_cpu else layers * 2.0 * tokens * base.hidden + whole_layer
    found = {
        "base": base.linear * weight + base.other * _BF16_BYTES,
        "adapter": 4.0 * adapter * forward.adapter_bytes,
        "activations": activations,
        "head": tokens * base.vocabulary * 10.0 * forward.logits,
        "libraries": _RUNTIME_BYTES,
    }
    return {name: round(value) for name, value in found.items()}


def read_base(config: Mapping[str, Any], tensors: Mapping[str, Sequence[int]]) -> Base | None:
    """From a base's config.json and the shapes of its weights; None where the config lacks one of the numbers."""
    text = config.get("text_config", config)
    if not {"num_hidden_layers", "hidden_size", "num_attention_heads", "vocab_size"} <= set(text):
        return None
    sizes = {name: math.prod(shape) for name, shape in tensors.items()}
    linear = sum(size for name, size in sizes.items() if len(tensors[name]) == 2 and _LAYER.search(name))
    return Base(
        layers=int(text["num_hidden_layers"]),
        hidden=int(text["hidden_size"]),
        heads=int(text["num_attention_heads"]),
        vocabulary=int(text["vocab_size"]),
        linear=linear,
        other=sum(sizes.values()) - linear,
    )


def adapter_parameters(
    tensors: Mapping[str, Sequence[int]], modules: Sequence[str], rank: int, first_layer: int
) -> int:
    """rank × (in + out) for each of the modules, in the layers that train."""
    found = 0
    for name, shape in tensors.items():
        layer = _LAYER.search(name)
        if layer and len(shape) == 2 and name.removesuffix(".weight").rsplit(".", 1)[-1] in modules:
            found += rank * sum(shape) * (int(layer[1] or layer[2]) >= first_layer)
    return found
