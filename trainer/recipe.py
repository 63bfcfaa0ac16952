"""The recipe: one reviewable TOML file that says everything about a run.

    name = "support-bot"
    base = "smollm2-135m-instruct"      # a prepared base, a path, or a hub id
    data = "train.jsonl"                # relative paths are relative to the recipe
    system = "You are …"                # put before rows that bring no system message of their own
    preset = "evidence"                 # where the defaults come from; "article" has the field's rules of thumb

    [lora]
    rank = 16                           # 8, 16, 32 … : what engines serve without padding
    [training]
    learning_rate = 2e-4                # ten times what full fine-tuning takes; see docs/training.md
    [replay]
    prompts = "replay.jsonl"            # general questions; the base's own answers hold the adapter back
    [dpo]
    pairs = "pairs.jsonl"               # a second stage: preferred answers against others
    [[waive]]
    code = "E140"                       # a finding that would stop the run, and why it shall not
    reason = "a pilot with one team's tickets"

>>> parse_recipe('name = "x"\\nbase = "b"\\ndata = "d.jsonl"').training.epochs
2.0
>>> parse_recipe('name = "x"\\nbase = "b"\\ndata = "d.jsonl"\\npreset = "article"').training.learning_rate
5e-05
"""

import json
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from registry.client import InvalidRequest
from trainer.preflight.codes import Waiver, check_waivers
from trainer.recipe_check import problems_of

LINEAR = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
_MOST_BYTES = 64_000  # what a training record takes

# What a recipe gets where it says nothing, beside the defaults below. The article's adapters are float32: at its
# learning rates half of the bfloat16 entries of lora_A never change, because the steps are smaller than their rounding.
PRESETS: Mapping[str, Mapping[str, Mapping[str, Any]]] = {
    "evidence": {},
    "article": {
        "lora": {"dtype": "float32"},
        "training": {"learning_rate": 5e-5, "epochs": 3.0, "batch_size": 4, "accumulate": 4, "max_length": 2048},
    },
}


class _Section(Struct, frozen=True, forbid_unknown_fields=True):
    pass


class LoraSection(_Section):
    """alpha 2 × rank and all linear layers: *LoRA Without Regret* (2025), QLoRA (2023)."""

    rank: Annotated[int, Meta(ge=1, le=256, description="8, 16, 32 …: what engines serve without padding")] = 16
    alpha: Annotated[float, Meta(ge=1e-3, le=1e6, description="the adapter counts alpha / rank")] = 32.0
    dropout: Annotated[float, Meta(ge=0, le=0.9)] = 0.0
    target_modules: tuple[str, ...] = LINEAR
    first_layer: Annotated[int, Meta(ge=0, description="train this layer and those above it")] = 0
    dtype: Annotated[Literal["bfloat16", "float32"], Meta(description="of the adapter while it trains")] = "bfloat16"
    rslora: Annotated[bool, Meta(description="alpha / sqrt(rank) instead of alpha / rank")] = False
    plus_ratio: Annotated[float, Meta(ge=1, le=64, description="LoRA+: B learns this much faster than A")] = 1.0


class TrainingSection(_Section):
    learning_rate: Annotated[float, Meta(ge=1e-7, le=1.0)] = 2e-4
    epochs: Annotated[float, Meta(ge=0.01, le=1000.0)] = 2.0
    batch_size: Annotated[int, Meta(ge=1, le=1024, description="rows in one forward")] = 8
    accumulate: Annotated[int, Meta(ge=1, le=1024, description="forwards in one step")] = 2
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    warmup: Annotated[float, Meta(ge=0, le=1, description="share of all steps")] = 0.05
    max_length: Annotated[int, Meta(ge=16, le=131_072, description="tokens; longer rows are left out, never cut")] = (
        1024
    )
    checkpoint_steps: Annotated[int, Meta(ge=1)] = 50
    evaluate_steps: Annotated[
        int, Meta(ge=0, description="steps between measurements of the validation loss, the best is kept; 0: never")
    ] = 0
    patience: Annotated[int, Meta(ge=0, description="end after so many that are no better; 0: go to the end")] = 0
    order: Annotated[Literal["random", "easy-to-hard"], Meta(description="easy: what the base finds likely")] = "random"
    report_to: Annotated[
        tuple[Literal["tensorboard", "wandb", "mlflow"], ...], Meta(description="experiment trackers to tell")
    ] = ()
    padding_side: Annotated[Literal["left", "right"] | None, Meta(description="changes nothing: W120")] = None


class ReplaySection(_Section):
    """Rows that are not the task: the adapter is held to the base's own distribution on them (KL divergence)."""

    prompts: str
    rows: Annotated[int, Meta(ge=1)] = 160
    max_new_tokens: Annotated[int, Meta(ge=1, le=1024)] = 40
    weight: Annotated[float, Meta(ge=0, le=1000)] = 1.0


class DpoSection(_Section):
    """Direct preference optimisation (Rafailov et al. 2023) of the adapter that the first stage gave.

    beta: how dear it is to leave the reference. 5e-6 with LoRA: TRL's own example, ten times a full fine-tuning rate.
    """

    pairs: str
    beta: Annotated[float, Meta(ge=1e-3, le=10)] = 0.1
    learning_rate: Annotated[float, Meta(ge=1e-8, le=1e-2)] = 5e-6
    epochs: Annotated[float, Meta(ge=0.01, le=100)] = 1.0
    batch_size: Annotated[int, Meta(ge=1, le=1024, description="pairs in one forward")] = 4
    accumulate: Annotated[int, Meta(ge=1, le=1024, description="forwards in one step")] = 4


class ServingSection(_Section):
    """What the engines that will serve the adapter are started with."""

    max_lora_rank: Annotated[Literal[1, 8, 16, 32, 64, 128, 256, 320, 512], Meta(description="vLLM's option")] = 16


class ProvenanceSection(_Section):
    """A row that lacks one of the required fields is blocked: it does not train, and the ledger says why."""

    require: tuple[
        Literal["source", "licence", "collector", "reviewer", "credential", "reviewed_at", "credential_valid_until"],
        ...,
    ] = ()
    licensed_review: Annotated[
        bool, Meta(description="only rows whose reviewer's credential was valid when they were reviewed")
    ] = False


class WaiveSection(_Section):
    """A finding that does not stop this run. It travels with the adapter, and is shown to whoever approves it."""

    code: Annotated[str, Meta(pattern=r"^[EW][0-9]{3}\Z")]
    reason: Annotated[str, Meta(min_length=1, max_length=1000)]


class Recipe(_Section):
    name: Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}\Z")]
    base: str
    data: str
    system: str | None = None
    preset: Literal["evidence", "article"] = "evidence"
    seed: Annotated[int, Meta(ge=0, le=2**31)] = 0
    quantization: Literal["nf4", "none"] = "nf4"
    lora: LoraSection = LoraSection()
    training: TrainingSection = TrainingSection()
    replay: ReplaySection | None = None
    dpo: DpoSection | None = None
    serving: ServingSection | None = None
    provenance: ProvenanceSection = ProvenanceSection()
    waive: tuple[WaiveSection, ...] = ()

    @property
    def waivers(self) -> dict[str, str]:
        """Reason by code of a finding that does not stop the run."""
        return check_waivers([Waiver(one.code, one.reason) for one in self.waive])


def read_recipe(path: Path, waivers: Sequence[Waiver] = ()) -> tuple[Recipe, str]:
    """The recipe in a file and its text, with more waivers; raises InvalidRequest that says what is wrong with it."""
    try:
        text = path.read_bytes().decode()  # as it is: what a run's version names must be the recipe that was submitted
    except (OSError, ValueError) as error:  # not UTF-8, or a NUL in the path
        raise InvalidRequest(f"recipe {path} cannot be read: {error}") from None
    text = _with_waivers(text, waivers) if waivers else text
    return parse_recipe(text), text


def parse_recipe(text: str) -> Recipe:
    """Raises InvalidRequest that lists every key which is unknown, missing or out of its range."""
    if len(text) > _MOST_BYTES:
        raise InvalidRequest(f"the recipe has {len(text):,} characters, at most {_MOST_BYTES:,} are kept; shorten it")
    try:
        document = tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # not TOML, or a number of thousands of digits
        raise InvalidRequest(f"the recipe is not valid TOML: {error}") from None
    if problems := list(problems_of(document, Recipe)):
        raise InvalidRequest(
            f"the recipe cannot be run: {'; '.join(problems)}; see docs/training.md for every key", problems
        )
    recipe = msgspec.convert(_with_preset(document), Recipe)
    if recipe.training.patience and not recipe.training.evaluate_steps:
        raise InvalidRequest(
            f"training.patience = {recipe.training.patience} counts measurements of the validation loss, and there are "
            "none; give training.evaluate_steps, or leave patience out"
        )
    check_waivers([Waiver(one.code, one.reason) for one in recipe.waive])
    return recipe


def _with_preset(document: Mapping[str, Any]) -> dict[str, Any]:
    sections = PRESETS[document.get("preset", "evidence")]
    return {**document, **{name: {**values, **document.get(name, {})} for name, values in sections.items()}}


def _with_waivers(text: str, waivers: Sequence[Waiver]) -> str:
    """The recipe's text with more waivers at its end: what was waived for a run is part of what was run."""
    added = [f"\n[[waive]]\ncode = {json.dumps(one.code)}\nreason = {json.dumps(one.reason)}\n" for one in waivers]
    return "".join([text, "" if text.endswith("\n") else "\n", *added])


def schema() -> dict[str, Any]:
    """JSON Schema (2020-12) of a recipe, for editors that check TOML as it is written."""
    # Python's end of the text is \\Z, JavaScript's (which JSON Schema takes) $.
    found = json.loads(json.dumps(msgspec.json.schema(Recipe)).replace("\\\\Z", "$"))
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "tunegate recipe",
        "description": "One training run of `tunegate train`; docs/training.md explains every key.",
        **found,
    }
