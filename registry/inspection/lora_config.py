"""What an adapter_config.json says, and whether vLLM serves just that. Pure.

vLLM reads a few of peft's fields and ignores the rest without a word, so each field that changes what the adapter means
must hold the one value that is served as trained. peft runs some fields as programs of their author (regular
expressions, module names to import): those must be plain names.

>>> config = {"peft_type": "LORA", "target_modules": ["q_proj"], "r": 8, "lora_alpha": 0}
>>> [finding.code for finding in check_config(config)]
['alpha']
"""

import re
from collections.abc import Callable, Iterator
from typing import Any

from registry.inspection.findings import error, short, warning
from registry.records import Finding

MAX_RANK = 256
# vLLM pads the LoRA buffers to one of these (vllm 0.32, config/lora.py); another rank is served but wastes the slot.
SERVED_RANKS = (1, 8, 16, 32, 64, 128, 256)
SERVED_INITS = ("gaussian", "eva", "orthogonal", "mica", "lora_ga")
# The evaluator's engine applies LoRA to these and ignores any other module without a word.
SERVED_MODULES = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
_UNSCORED_MODULES = {"lm_head", "embed_tokens"}

_NAME = re.compile(r"[A-Za-z0-9_]+(?:\.[A-Za-z0-9_]+)*", re.ASCII)
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")

# Fields of peft 0.21's LoraConfig that change what the adapter means, with the values that are served as trained.
_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "peft_type": ("LORA",),
    "task_type": ("CAUSAL_LM",),
    "bias": ("none", None),
    "use_dora": (False, None),
    "use_qalora": (False, None),
    "use_bdlora": (None, False),
    "lora_bias": (False, None),
    "fan_in_fan_out": (False, None),
    "modules_to_save": (None, []),
    "trainable_token_indices": (None,),
    "target_parameters": (None, []),
    "alora_invocation_tokens": (None,),
    "layer_replication": (None,),
    "auto_mapping": (None,),
    "arrow_config": (None,),
    "corda_config": (None,),
    "kasa_config": (None,),
    "velora_config": (None,),
    "monteclora_config": (None,),
    "loftq_config": (None, {}),
    "rank_pattern": (None, {}),
    "alpha_pattern": (None, {}),
    "ensure_weight_tying": (False, None),
    # peft imports the module that the second one names.
    "megatron_config": (None,),
    "megatron_core": (None, "megatron.core"),
}
_REMEDIES = {
    "use_dora": "vLLM does not serve DoRA; train plain LoRA or rsLoRA",
    "modules_to_save": "vLLM does not serve whole saved modules; leave lm_head and embeddings out of the training",
    "rank_pattern": "use one rank for all modules",
    "alpha_pattern": "use one alpha for all modules",
    "bias": "train with bias='none'",
}


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and len(value) <= 300 and _NAME.fullmatch(value) is not None


def _is_names(value: Any) -> bool:
    return value is None or (isinstance(value, list) and all(map(_is_name, value)))


def _is_layers(value: Any) -> bool:
    return value is None or all(type(one) is int for one in (value if isinstance(value, list) else [value]))


def _is_short_text(value: Any) -> bool:
    return value is None or (isinstance(value, str) and len(value) <= 200 and not _CONTROL.search(value))


# Fields that say how it was trained, or that the tensors themselves show: any value, as long as it has this form.
_FORMS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "use_rslora": (lambda value: value is None or isinstance(value, bool), "true or false"),
    "inference_mode": (lambda value: isinstance(value, bool), "true or false"),
    "lora_dropout": (lambda value: type(value) in (int, float) and 0 <= value <= 1, "a number from 0 to 1"),
    "layers_to_transform": (_is_layers, "a list of layer numbers"),
    "layers_pattern": (lambda value: _is_name(value) or _is_names(value), "a list of plain names"),
    "exclude_modules": (_is_names, "a list of plain module names"),
    "peft_version": (_is_short_text, "a short text"),
    "revision": (_is_short_text, "a short text"),
    "eva_config": (lambda value: value is None or isinstance(value, dict), "an object"),
    "lora_ga_config": (lambda value: value is None or isinstance(value, dict), "an object"),
    "runtime_config": (lambda value: value is None or isinstance(value, dict), "an object"),
    "qalora_group_size": (lambda value: value is None or type(value) is int, "a whole number"),
}
_CHECKED_APART = frozenset("r lora_alpha init_lora_weights target_modules base_model_name_or_path".split())


def check_config(config: dict[str, Any], base_id: str | None = None) -> Iterator[Finding]:
    """Every finding on a parsed config. `base_id`: what the registry calls the base, where it is known."""
    yield from _check_scale(config)
    yield from _check_fields(config)
    yield from _check_targets(config.get("target_modules"))
    yield from _check_base_name(config.get("base_model_name_or_path"), base_id)


def _check_scale(config: dict[str, Any]) -> Iterator[Finding]:
    rank, alpha = config.get("r"), config.get("lora_alpha")
    if type(rank) is not int or not 1 <= rank <= MAX_RANK:
        yield error("rank", f"r = {short(rank)} must be an integer from 1 to {MAX_RANK}; train with such a rank")
    elif rank not in SERVED_RANKS:
        above = next(served for served in SERVED_RANKS if served >= rank)
        yield warning("rank_padded", f"r = {rank} is padded to {above} by the engine; {above} costs the same to serve")
    if type(alpha) not in (int, float) or not 0 < alpha <= 1e6:  # type: ignore[operator]
        yield error("alpha", f"lora_alpha = {short(alpha)} must be a positive number; train with alpha of about 2 × r")
    init = config.get("init_lora_weights", True)
    if not isinstance(init, bool) and init not in SERVED_INITS:
        yield error(
            "init", f"init_lora_weights = {short(init)} changes the base weights, which serving does not; use true"
        )


def _check_fields(config: dict[str, Any]) -> Iterator[Finding]:
    for key, value in config.items():
        if key in _NEUTRAL:
            if not any(value == one and type(value) is type(one) for one in _NEUTRAL[key]):
                remedy = _REMEDIES.get(key, f"leave {key} at its default")
                yield error("not_servable", f"{key} = {short(value)} cannot be served; {remedy}")
        elif key in _FORMS:
            fits, form = _FORMS[key]
            if not fits(value):
                yield error("config_value", f"{key} = {short(value)} must be {form}; leave it as peft writes it")
        elif key not in _CHECKED_APART:
            yield error(
                "config_unknown", f"config key {short(key)} is not known and might change the adapter; remove it"
            )
    for key in ("peft_type", "target_modules"):
        if config.get(key) is None:
            yield error("config_missing", f"adapter_config.json has no {key}; save the adapter with peft")


def _check_targets(targets: Any) -> Iterator[Finding]:
    """A list of plain names: peft runs a string as a regular expression, which is a stranger's program."""
    if targets is None:
        return
    if not isinstance(targets, list) or not targets or not all(map(_is_name, targets)):
        yield error("target_modules", f"target_modules = {short(targets)} must be a list of module names")
        return
    named = {name.rpartition(".")[2] for name in targets}
    if forbidden := sorted(_UNSCORED_MODULES & named):
        yield error(
            "target_modules",
            f"LoRA on {', '.join(forbidden)} is scored wrongly by vLLM; train the linear layers of the blocks only",
        )
    if ignored := sorted(named - _UNSCORED_MODULES - set(SERVED_MODULES)):
        yield error(
            "target_modules",
            f"LoRA on {short(ignored)} would be ignored by the engine; train only {', '.join(SERVED_MODULES)}",
        )


def _check_base_name(name: Any, base_id: str | None) -> Iterator[Finding]:
    """The registry goes by digests, but whoever loads the adapter with peft loads the base that this names."""
    if name is None:
        return
    remedy = (
        f"set base_model_name_or_path to {base_id!r}" if base_id else "set base_model_name_or_path to the base's id"
    )
    if not isinstance(name, str) or len(name) > 1000 or _CONTROL.search(name):
        yield error("base_name", f"base_model_name_or_path = {short(name)} is no name; {remedy}")
        return
    parts = name.strip("/").split("/")
    if "://" in name or "\\" in name or ".." in parts:
        yield error("base_name", f"base_model_name_or_path = {short(name)} is no name and no plain path; {remedy}")
    elif base_id is not None and not _names(parts, base_id):
        if name.startswith(("/", "~", ".")):
            yield error("base_name", f"base_model_name_or_path = {short(name)} leads to something else; {remedy}")
        else:
            yield warning(
                "base_name_differs", f"the adapter says that it is for {short(name)}, not for {base_id!r}; {remedy}"
            )


def _names(parts: list[str], base_id: str) -> bool:
    """Whether a name or path is of the base: its last part is the id's, or it lies in the hub's cache of it."""
    wanted = base_id.rpartition("/")[2].casefold()
    found = [part.casefold() for part in parts]
    return found[-1] == wanted or any(part.endswith("--" + wanted) for part in found)
