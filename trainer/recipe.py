"""The recipe: one reviewable TOML file that says everything about a run.

    name = "support-bot"
    base = "smollm2-135m-instruct"      # a prepared base, a path, or a hub id
    data = "train.jsonl"                # relative paths are relative to the recipe
    system = "You are …"                # put before rows that bring no system message of their own

    [lora]
    rank = 16                           # 8, 16, 32 … : what engines serve without padding
    [training]
    learning_rate = 2e-4                # ten times what full fine-tuning takes; see docs/training.md
    [replay]
    prompts = "replay.jsonl"            # general questions; the base's own answers hold the adapter back

>>> parse_recipe('name = "x"\\nbase = "b"\\ndata = "d.jsonl"').training.epochs
2.0
"""

import math
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from registry.client import InvalidRequest

LINEAR = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


class _Section(Struct, frozen=True, forbid_unknown_fields=True):
    pass


class LoraSection(_Section):
    """alpha 2 × rank and all linear layers: *LoRA Without Regret* (2025), QLoRA (2023)."""

    rank: Annotated[int, Meta(ge=1, le=256)] = 16
    alpha: float = 32.0
    dropout: float = 0.0
    target_modules: tuple[str, ...] = LINEAR
    first_layer: Annotated[int, Meta(ge=0)] = 0  # train this layer and those above it; backward stops there


class TrainingSection(_Section):
    learning_rate: float = 2e-4
    epochs: float = 2.0
    batch_size: Annotated[int, Meta(ge=1, le=1024)] = 8  # rows in one forward
    accumulate: Annotated[int, Meta(ge=1, le=1024)] = 2  # forwards in one step
    schedule: Annotated[str, Meta(pattern="^(cosine|constant|linear)\\Z")] = "cosine"
    warmup: float = 0.05  # share of all steps
    max_length: Annotated[int, Meta(ge=16, le=131_072)] = 1024  # tokens; longer rows are left out, never cut
    checkpoint_steps: Annotated[int, Meta(ge=1)] = 50


class ReplaySection(_Section):
    """Rows that are not the task: the adapter is held to the base's own distribution on them (KL divergence)."""

    prompts: str
    rows: Annotated[int, Meta(ge=1)] = 160
    max_new_tokens: Annotated[int, Meta(ge=1, le=1024)] = 40
    weight: float = 1.0


class Recipe(_Section):
    name: Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}\Z")]
    base: str
    data: str
    system: str | None = None
    seed: Annotated[int, Meta(ge=0, le=2**31)] = 0
    quantization: Annotated[str, Meta(pattern="^(nf4|none)\\Z")] = "nf4"
    lora: LoraSection = LoraSection()
    training: TrainingSection = TrainingSection()
    replay: ReplaySection | None = None


def read_recipe(path: Path) -> tuple[Recipe, str]:
    """The recipe in a file and its text; raises InvalidRequest that says what is wrong with it."""
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidRequest(f"recipe {path} cannot be read: {error}") from None
    return parse_recipe(text), text


def parse_recipe(text: str) -> Recipe:
    try:
        recipe = msgspec.convert(tomllib.loads(text), Recipe)
    except tomllib.TOMLDecodeError as error:
        raise InvalidRequest(f"the recipe is not valid TOML: {error}") from None
    except msgspec.ValidationError as error:
        raise InvalidRequest(f"the recipe does not fit: {error}; see docs/training.md for every key") from None
    if problems := list(_problems(recipe)):
        raise InvalidRequest("the recipe cannot be run: " + "; ".join(problems), problems)
    return recipe


def warnings(recipe: Recipe) -> list[str]:
    """What is legal and usually a mistake."""
    found = []
    rate, epochs = recipe.training.learning_rate, recipe.training.epochs
    if rate < 5e-5:
        found.append(f"learning_rate {rate:g} is a full fine-tuning value; LoRA learns little below 5e-5")
    if rate > 5e-4 and recipe.replay is None:
        found.append(f"learning_rate {rate:g} without replay rows: expect the base's general knowledge to suffer")
    if epochs > 3:
        found.append(f"{epochs:g} epochs: more than 3 mostly memorise the wording")
    return found


def _problems(recipe: Recipe) -> Iterator[str]:
    ranges = {
        "training.learning_rate": (recipe.training.learning_rate, 1e-7, 1.0),
        "training.epochs": (recipe.training.epochs, 0.01, 1000.0),
        "training.warmup": (recipe.training.warmup, 0.0, 1.0),
        "lora.alpha": (recipe.lora.alpha, 1e-3, 1e6),
        "lora.dropout": (recipe.lora.dropout, 0.0, 0.9),
        "replay.weight": (recipe.replay.weight if recipe.replay else 1.0, 0.0, 1000.0),
    }
    for key, (value, low, high) in ranges.items():
        if not (math.isfinite(value) and low <= value <= high):
            yield f"{key} = {value} is not between {low:g} and {high:g}"
    if forbidden := sorted({"lm_head", "embed_tokens"}.intersection(recipe.lora.target_modules)):
        yield f"lora.target_modules has {', '.join(forbidden)}, which vLLM scores wrongly; train the linear layers only"
    if not recipe.lora.target_modules:
        yield "lora.target_modules is empty; name at least one module, such as q_proj"
