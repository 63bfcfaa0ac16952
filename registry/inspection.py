"""Static check of an adapter's files before anything loads them. Pure: bytes in, findings out.

What passes here is what vLLM really applies: vLLM refuses some adapters late, and serves others wrongly without a
word (a wrong prefix or an extra layer is a silent no-op, a config rank that differs from the tensors scales wrongly).

>>> [finding.code for finding in inspect(AdapterFiles({"model.bin": 10}, b"", b"", None))]
['file_not_accepted', 'file_missing', 'file_missing']
"""

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from registry.records import Finding

CONFIG, WEIGHTS, README = "adapter_config.json", "adapter_model.safetensors", "README.md"
REQUIRED_FILES = (CONFIG, WEIGHTS)
ACCEPTED_FILES = (CONFIG, WEIGHTS, README)
MAX_CONFIG_BYTES = 256 * 1024
MAX_HEADER_BYTES = 1024 * 1024
MAX_TENSORS = 20_000
MAX_RANK = 256
MAX_DIMENSIONS = 8

# vLLM pads the LoRA buffers to one of these (vllm 0.32, config/lora.py); another rank is served but wastes the slot.
SERVED_RANKS = (1, 8, 16, 32, 64, 128, 256)
SERVED_INITS = ("gaussian", "eva", "orthogonal", "mica", "lora_ga")
DTYPE_BYTES = {"F32": 4, "F16": 2, "BF16": 2}

_TENSOR = re.compile(r"base_model\.model\.([A-Za-z0-9_.]{1,300})\.(lora_[AB])\.weight", re.ASCII)

# Fields of peft 0.21's LoraConfig that change what the adapter means. Each must hold a value that vLLM serves as
# trained; vLLM ignores what it does not parse.
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
}
# Fields that say how it was trained, or that the tensors themselves show.
_HARMLESS = frozenset(
    "r lora_alpha target_modules base_model_name_or_path revision inference_mode lora_dropout use_rslora peft_version "
    "init_lora_weights layers_to_transform layers_pattern exclude_modules megatron_config megatron_core eva_config "
    "lora_ga_config qalora_group_size runtime_config".split()
)
_REMEDIES = {
    "use_dora": "vLLM does not serve DoRA; train plain LoRA or rsLoRA",
    "modules_to_save": "vLLM does not serve whole saved modules; leave lm_head and embeddings out of the training",
    "rank_pattern": "use one rank for all modules",
    "alpha_pattern": "use one alpha for all modules",
    "bias": "train with bias='none'",
}


class AdapterFiles(NamedTuple):
    """`sizes` by path; `config` the bytes of adapter_config.json; `header` the JSON bytes of the safetensors header.

    `base_tensors`: weight name to shape of the base model, or None where the base was registered without them.
    """

    sizes: Mapping[str, int]
    config: bytes
    header: bytes
    base_tensors: Mapping[str, Sequence[int]] | None


class _Adapter(NamedTuple):
    config: dict[str, Any]
    tensors: dict[str, dict[str, Any]]
    weights_size: int
    header_size: int
    base_tensors: Mapping[str, Sequence[int]] | None


def inspect(files: AdapterFiles) -> list[Finding]:
    """Every finding of every check, in order. No finding of severity `error` means the adapter may be evaluated."""
    if findings := list(check_layout(files.sizes)):
        return findings
    try:
        config = parse_strictly(files.config, CONFIG)
        tensors = parse_strictly(files.header, f"header of {WEIGHTS}")
    except ValueError as error:
        return [_error("unreadable", str(error))]
    metadata = tensors.pop("__metadata__", {})
    if not files.header.startswith(b"{") or not _is_text(metadata):
        return [_error("unreadable", f"header of {WEIGHTS} is not one that safetensors loads; save it with peft")]
    adapter = _Adapter(config, tensors, files.sizes[WEIGHTS], len(files.header), files.base_tensors)
    return [finding for check in CHECKS for finding in check(adapter)]


def check_layout(sizes: Mapping[str, int]) -> Iterator[Finding]:
    for path in sizes:
        if path not in ACCEPTED_FILES:
            yield _error("file_not_accepted", f"{path!r} is not accepted; upload only {', '.join(ACCEPTED_FILES)}")
    for path in REQUIRED_FILES:
        if path not in sizes:
            yield _error("file_missing", f"{path} is missing; save the adapter with peft's save_pretrained")
    if sizes.get(CONFIG, 0) > MAX_CONFIG_BYTES:
        yield _error("config_too_large", f"{CONFIG} has {sizes[CONFIG]} bytes; at most {MAX_CONFIG_BYTES} are read")


def check_config(adapter: _Adapter) -> Iterator[Finding]:
    config = adapter.config
    rank, alpha = config.get("r"), config.get("lora_alpha")
    if type(rank) is not int or not 1 <= rank <= MAX_RANK:
        yield _error("rank", f"r = {rank!r} must be an integer from 1 to {MAX_RANK}; train with such a rank")
    elif rank not in SERVED_RANKS:
        above = next(served for served in SERVED_RANKS if served >= rank)
        yield _warning("rank_padded", f"r = {rank} is padded to {above} by the engine; {above} costs the same to serve")
    if isinstance(alpha, bool) or not isinstance(alpha, int | float) or not 0 < alpha <= 1e6:
        yield _error("alpha", f"lora_alpha = {alpha!r} must be a positive number; train with alpha of about 2 × r")
    init = config.get("init_lora_weights", True)
    if not isinstance(init, bool) and init not in SERVED_INITS:
        yield _error("init", f"init_lora_weights = {init!r} changes the base weights, which serving does not; use true")
    for key, value in config.items():
        if key in _NEUTRAL and not any(value == one and type(value) is type(one) for one in _NEUTRAL[key]):
            remedy = _REMEDIES.get(key, f"leave {key} at its default")
            yield _error("not_servable", f"{key} = {_short(value)} cannot be served; {remedy}")
        elif key not in _NEUTRAL and key not in _HARMLESS:
            yield _error(
                "config_unknown", f"config key {_short(key)} is not known and might change the adapter; remove it"
            )
    for key in ("peft_type", "target_modules"):
        if config.get(key) is None:
            yield _error("config_missing", f"{CONFIG} has no {key}; save the adapter with peft")


def check_target_modules(adapter: _Adapter) -> Iterator[Finding]:
    """A list of plain names: peft runs a string as a regular expression, which is a stranger's program."""
    targets = adapter.config.get("target_modules")
    if targets is None:
        return
    if not isinstance(targets, list) or not all(isinstance(name, str) for name in targets) or not targets:
        yield _error("target_modules", f"target_modules = {_short(targets)} must be a list of module names")
    elif forbidden := sorted({"lm_head", "embed_tokens"} & {name.rpartition(".")[2] for name in targets}):
        yield _error(
            "target_modules",
            f"LoRA on {', '.join(forbidden)} is scored wrongly by vLLM; train the linear layers of the blocks only",
        )


def check_tensor_names(adapter: _Adapter) -> Iterator[Finding]:
    if not adapter.tensors:
        yield _error("no_tensors", f"{WEIGHTS} holds no tensors; save the trained adapter")
    if len(adapter.tensors) > MAX_TENSORS:
        yield _error("too_many_tensors", f"{len(adapter.tensors)} tensors; at most {MAX_TENSORS} are accepted")
        return
    targets = adapter.config.get("target_modules")
    suffixes = (
        {name.rpartition(".")[2] for name in targets if isinstance(name, str)} if isinstance(targets, list) else None
    )
    halves: dict[str, set[str]] = {}
    for name in adapter.tensors:
        match = _TENSOR.fullmatch(name)
        if match is None:
            yield _error(
                "tensor_name",
                f"tensor {_short(name)} is not base_model.model.<module>.lora_A/lora_B.weight; it would not be served",
            )
            continue
        module = match[1]
        halves.setdefault(module, set()).add(match[2])
        if suffixes is not None and module.rpartition(".")[2] not in suffixes:
            yield _error("tensor_untargeted", f"tensor {_short(name)} belongs to no module of target_modules")
    for module, found in halves.items():
        if len(found) == 1:
            yield _error("tensor_half", f"module {module} has {found.pop()} only; both halves are needed")


def check_tensor_shapes(adapter: _Adapter) -> Iterator[Finding]:
    """A is [r, in], B is [out, r]: vLLM would slice or rescale what does not fit, and say nothing."""
    rank, base = adapter.config.get("r"), adapter.base_tensors
    if base is None:
        yield _warning("base_shapes_unknown", "the base was registered without tensor shapes; shapes were not compared")
    for name, tensor in adapter.tensors.items():
        match = _TENSOR.fullmatch(name)
        shape: Any = tensor.get("shape") if isinstance(tensor, dict) else None
        if match is None:
            continue
        if not _is_shape(shape) or len(shape) != 2:
            yield _error("tensor_shape", f"tensor {name} has shape {_short(shape)}; two positive dimensions are needed")
            continue
        module, half = match[1], match[2]
        if shape[0 if half == "lora_A" else 1] != rank:
            yield _error("tensor_rank", f"tensor {name} has shape {shape}, but r = {rank}; vLLM would scale it wrongly")
        if base is None:
            continue
        weight = base.get(f"{module}.weight")
        if weight is None:
            yield _error("module_unknown", f"module {module} is not in the base; vLLM would ignore it without a word")
        elif len(weight) != 2 or shape[1 if half == "lora_A" else 0] != weight[1 if half == "lora_A" else 0]:
            yield _error("tensor_shape", f"tensor {name} has shape {shape}, but the base weight is {list(weight)}")


def check_tensor_bytes(adapter: _Adapter) -> Iterator[Finding]:
    """Offsets must tile the data exactly: no gap, no overlap, nothing behind the end."""
    spans = []
    for name, tensor in adapter.tensors.items():
        span = _span(tensor)
        if span is None:
            yield _error("tensor_layout", f"tensor {_short(name)} has no valid dtype, shape and data_offsets")
            continue
        begin, end, dtype, shape = span
        if dtype not in DTYPE_BYTES:
            yield _error("tensor_dtype", f"tensor {_short(name)} is {dtype}; use one of {', '.join(DTYPE_BYTES)}")
        elif end - begin != math.prod(shape) * DTYPE_BYTES[dtype]:
            yield _error("tensor_layout", f"tensor {_short(name)} spans {end - begin} bytes, its shape needs other")
        spans.append((begin, end))
    position = 0
    for begin, end in sorted(spans):
        if begin != position:
            yield _error("tensor_layout", f"the data has a gap or overlap at byte {min(begin, position)}")
            return
        position = end
    if (
        adapter.tensors
        and len(spans) == len(adapter.tensors)
        and 8 + adapter.header_size + position != adapter.weights_size
    ):
        yield _error("tensor_layout", f"{WEIGHTS} has {adapter.weights_size} bytes, its header describes other")


CHECKS: tuple[Callable[[_Adapter], Iterator[Finding]], ...] = (
    check_config,
    check_target_modules,
    check_tensor_names,
    check_tensor_shapes,
    check_tensor_bytes,
)


def parse_strictly(data: bytes, what: str) -> dict[str, Any]:
    """A JSON object without duplicate keys, NaN, bytes around it or absurd nesting; ValueError says what is wrong."""

    def object_without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            raise ValueError("an object has duplicate keys")
        return found

    def refuse_constant(text: str) -> Any:
        raise ValueError(f"{text} is not JSON")

    try:
        value = json.loads(
            data.decode("utf-8"), object_pairs_hook=object_without_duplicates, parse_constant=refuse_constant
        )
        json.dumps(value, ensure_ascii=False).encode()  # lone surrogates
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{what} is not valid JSON: {str(error)[:200]}") from None
    if not isinstance(value, dict):
        raise ValueError(f"{what} is not a JSON object")
    return value


def header_size(prefix: bytes, file_size: int) -> int:
    """Length of the safetensors header from the first 8 bytes of the file.

    Raises ValueError where it cannot be: empty, over MAX_HEADER_BYTES, or beyond the end of the file.
    """
    size = int.from_bytes(prefix, "little") if len(prefix) == 8 else 0
    if not 2 <= size <= min(MAX_HEADER_BYTES, file_size - 8):
        raise ValueError(f"{WEIGHTS} declares a header of {size} bytes in a file of {file_size}; it is not safetensors")
    return size


def _span(tensor: Any) -> tuple[int, int, str, list[int]] | None:
    if not isinstance(tensor, dict) or set(tensor) != {"dtype", "shape", "data_offsets"}:
        return None
    offsets, shape, dtype = tensor["data_offsets"], tensor["shape"], tensor["dtype"]
    if not isinstance(dtype, str) or not _is_shape(shape) or not isinstance(offsets, list) or len(offsets) != 2:
        return None
    if not all(type(offset) is int and 0 <= offset < 2**48 for offset in offsets) or offsets[0] > offsets[1]:
        return None
    return offsets[0], offsets[1], dtype, shape


def _is_shape(shape: Any) -> bool:
    # Few dimensions: the product of a hundred thousand takes seconds.
    return (
        isinstance(shape, list)
        and len(shape) <= MAX_DIMENSIONS
        and all(type(size) is int and 0 < size < 2**32 for size in shape)
    )


def _is_text(metadata: Any) -> bool:
    return isinstance(metadata, dict) and all(isinstance(value, str) for value in metadata.values())


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "…"


def _error(code: str, message: str) -> Finding:
    return Finding(code=code, severity="error", message=message)


def _warning(code: str, message: str) -> Finding:
    return Finding(code=code, severity="warning", message=message)
