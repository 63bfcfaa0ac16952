"""What is wrong with a recipe, all of it at once, each with its key and what to write instead. Pure.

>>> from trainer.recipe import Recipe
>>> list(problems_of({"name": "x", "base": "b", "data": "d", "lora": {"rnk": 8}}, Recipe))
["lora.rnk is no key of a recipe; did you mean 'rank'?"]
"""

import difflib
from collections.abc import Iterator, Mapping
from typing import Any, Literal, get_args, get_origin

import msgspec
from msgspec import Struct

# What other trainers call it.
_OUR_WORDS = {
    "lr": "training.learning_rate",
    "num_train_epochs": "training.epochs",
    "num_epochs": "training.epochs",
    "per_device_train_batch_size": "training.batch_size",
    "micro_batch_size": "training.batch_size",
    "gradient_accumulation_steps": "training.accumulate",
    "lr_scheduler_type": "training.schedule",
    "lr_scheduler": "training.schedule",
    "warmup_ratio": "training.warmup",
    "max_seq_length": "training.max_length",
    "sequence_len": "training.max_length",
    "save_steps": "training.checkpoint_steps",
    "eval_steps": "training.evaluate_steps",
    "early_stopping_patience": "training.patience",
    "r": "lora.rank",
    "lora_r": "lora.rank",
    "lora_alpha": "lora.alpha",
    "lora_dropout": "lora.dropout",
    "lora_target_modules": "lora.target_modules",
    "use_rslora": "lora.rslora",
    "loraplus_lr_ratio": "lora.plus_ratio",
    "layers_to_transform": "lora.first_layer",
    "load_in_4bit": "quantization",
    "base_model": "base",
    "model_name_or_path": "base",
    "dataset": "data",
    "system_prompt": "system",
}
_NOT_HERE = {
    "fp16": "E171: fp16 often diverges with 4-bit bases; computation is in bfloat16",
    "compute_dtype": "E171: computation is in bfloat16, where fp16 often diverges with 4-bit bases",
    "bnb_4bit_compute_dtype": "E171: computation is in bfloat16, where fp16 often diverges with 4-bit bases",
    "bf16": "computation is in bfloat16 anyway; lora.dtype sets the adapter's own",
    "packing": "batches are packed by themselves, without changing which rows make a step",
    "use_dora": "E180: vLLM serves no DoRA; lora.rslora is served",
    "modules_to_save": "E180: vLLM refuses adapters with whole modules in them",
    "bias": "E180: vLLM refuses adapters with biases",
    "lora_bias": "E180: vLLM refuses adapters with biases",
    "init_lora_weights": "E180: vLLM refuses adapters that start from pissa, olora, corda or loftq",
    "layer_replication": "E180: vLLM refuses it",
    "rank_pattern": "E180: one rank for all modules is what is served as trained",
    "alpha_pattern": "E180: one alpha for all modules is what is served as trained",
}
_INTEGER_BITS = 64  # written in hexadecimal a number may have any, and Python refuses to show one of 14,000
_SERVED_MODULES = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def problems_of(document: Mapping[str, Any], kind: type[Struct], path: str = "") -> Iterator[str]:
    """Every key that is unknown or missing, every value that does not fit, in `kind` and the sections within it."""
    fields = {one.name: one for one in msgspec.structs.fields(kind)}
    for key, value in document.items():
        if key not in fields:
            yield f"{path}{key[:50]} is no key of a recipe; {_advice(key, kind, path)}"
        elif (section := _section_of(fields[key].type)) and isinstance(value, dict):
            yield from problems_of(value, section, f"{path}{key}.")
        else:
            yield from _misfits(f"{path}{key}", value, fields[key].type)
    yield from (f"{path}{name} is missing" for name, one in fields.items() if one.required and name not in document)


def _advice(key: str, kind: type[Struct], path: str) -> str:
    if key in _NOT_HERE:
        return _NOT_HERE[key]
    if key in _OUR_WORDS:
        return f"here it is called {_OUR_WORDS[key]}"
    own = [one.name for one in msgspec.structs.fields(kind)]
    if near := difflib.get_close_matches(key, own, n=1):
        return f"did you mean {near[0]!r}?"
    if not path:
        for one in msgspec.structs.fields(kind):
            section = _section_of(one.type)
            if section and key in {inner.name for inner in msgspec.structs.fields(section)}:
                return f"it belongs under [{one.name}]"
    return f"{'this section' if path else 'a recipe'} has {', '.join(own)}"


def _misfits(key: str, value: Any, kind: Any) -> Iterator[str]:
    if isinstance(value, int) and value.bit_length() > _INTEGER_BITS:
        yield f"{key} is a number of {value.bit_length():,} bits; TOML has numbers of {_INTEGER_BITS}"
        return
    try:
        msgspec.convert(value, kind)
    except (msgspec.ValidationError, ValueError) as error:  # the second for such a number within a list
        shown = repr(value)[:100] if isinstance(value, str | int | float) else "…"
        yield f"{key} = {shown} does not fit: {_in_words(str(error), kind)}"
        return
    if key == "lora.target_modules":
        yield from _unservable(value)


def _in_words(text: str, kind: Any) -> str:
    allowed = [str(one) for part in (kind, *get_args(kind)) if get_origin(part) is Literal for one in get_args(part)]
    return f"{text[:1].lower()}{text[1:]}" + (f"; give {' or '.join(sorted(allowed))}" if allowed else "")


def _unservable(modules: list[str]) -> Iterator[str]:
    if not modules:
        yield "lora.target_modules is empty; name at least one module, such as q_proj"
    if other := [name for name in modules if name not in _SERVED_MODULES]:
        yield (
            f"E180: lora.target_modules has {', '.join(other)[:200]}, which the engine that measures does not serve; "
            f"train some of {', '.join(_SERVED_MODULES)}"
        )


def _section_of(kind: Any) -> type[Struct] | None:
    """The Struct that a field's type is, alone or beside None."""
    if get_origin(kind) is tuple:
        return None
    return next((one for one in (kind, *get_args(kind)) if isinstance(one, type) and issubclass(one, Struct)), None)
