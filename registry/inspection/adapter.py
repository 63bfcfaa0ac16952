"""Static check of an adapter's files before anything loads them. Pure: bytes in, findings out.

What passes here is what vLLM really applies: vLLM refuses some adapters late, and serves others wrongly without a
word (a wrong prefix or an extra layer is a silent no-op, a config rank that differs from the tensors scales wrongly).
What the config may say is in `lora_config`, what the numbers may be in `weights`.

>>> [finding.code for finding in inspect(AdapterFiles({"model.bin": 10}, b"", b"", None))]
['file_not_accepted', 'file_missing', 'file_missing']
"""

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, NamedTuple

from registry.inspection.findings import error, short, warning
from registry.inspection.lora_config import check_config
from registry.records import Finding

CONFIG, WEIGHTS, README = "adapter_config.json", "adapter_model.safetensors", "README.md"
REQUIRED_FILES = (CONFIG, WEIGHTS)
ACCEPTED_FILES = (CONFIG, WEIGHTS, README)
MAX_CONFIG_BYTES = 256 * 1024
MAX_README_BYTES = 1024 * 1024
LARGEST = {CONFIG: MAX_CONFIG_BYTES, README: MAX_README_BYTES}
MAX_HEADER_BYTES = 1024 * 1024
MAX_TENSORS = 20_000
MAX_DIMENSIONS = 8
MAX_FINDINGS = 200

DTYPE_BYTES = {"F32": 4, "F16": 2, "BF16": 2}

_TENSOR = re.compile(r"base_model\.model\.([A-Za-z0-9_]+(?:\.[A-Za-z0-9_]+)*)\.(lora_[AB])\.weight", re.ASCII)
_LONGEST_NAME = 330


class AdapterFiles(NamedTuple):
    """`sizes` by path; `config` the bytes of adapter_config.json; `header` the JSON bytes of the safetensors header.

    `base_tensors`: weight name to shape of the base model, or None where the base was registered without them.
    `base_id`: what the registry calls the base. `readme`: the bytes of README.md where there is one.
    """

    sizes: Mapping[str, int]
    config: bytes
    header: bytes
    base_tensors: Mapping[str, Sequence[int]] | None
    base_id: str | None = None
    readme: bytes = b""


class Span(NamedTuple):
    """Where the numbers of a tensor lie, in bytes behind the header."""

    name: str
    begin: int
    end: int
    dtype: str
    shape: list[int]


class _Adapter(NamedTuple):
    config: dict[str, Any]
    tensors: dict[str, dict[str, Any]]
    files: AdapterFiles


def inspect(files: AdapterFiles) -> list[Finding]:
    """The findings of every check, in order. No finding of severity `error` means the adapter may be evaluated.

    After MAX_FINDINGS one more says that there are others: a stranger's file does not decide how long an answer is.
    """
    if findings := list(check_layout(files.sizes)):
        return findings
    try:
        config = parse_strictly(files.config, CONFIG)
        tensors = parse_strictly(files.header, f"header of {WEIGHTS}")
    except ValueError as refused:
        return [error("unreadable", str(refused))]
    metadata = tensors.pop("__metadata__", {})
    if not files.header.startswith(b"{") or not _is_text(metadata):
        return [error("unreadable", f"header of {WEIGHTS} is not one that safetensors loads; save it with peft")]
    adapter = _Adapter(config, tensors, files)
    found = list(islice((finding for check in CHECKS for finding in check(adapter)), MAX_FINDINGS + 1))
    if len(found) > MAX_FINDINGS:
        found[-1] = error("more_findings", f"there are more than these {MAX_FINDINGS} findings; mend these first")
    return found


def check_layout(sizes: Mapping[str, int]) -> Iterator[Finding]:
    for path in sizes:
        if path not in ACCEPTED_FILES:
            yield error("file_not_accepted", f"{short(path)} is not accepted; upload only {', '.join(ACCEPTED_FILES)}")
    for path in REQUIRED_FILES:
        if path not in sizes:
            yield error("file_missing", f"{path} is missing; save the adapter with peft's save_pretrained")
    for path, largest in LARGEST.items():
        if sizes.get(path, 0) > largest:
            code = "config_too_large" if path == CONFIG else "file_too_large"
            yield error(code, f"{path} has {sizes[path]} bytes; at most {largest} are accepted")


def check_readme(adapter: _Adapter) -> Iterator[Finding]:
    try:
        text = adapter.files.readme.decode("utf-8")
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        yield error("readme_not_text", f"{README} is no UTF-8 text; write it as such, or leave it out")


def check_tensor_names(adapter: _Adapter) -> Iterator[Finding]:
    if not adapter.tensors:
        yield error("no_tensors", f"{WEIGHTS} holds no tensors; save the trained adapter")
    if len(adapter.tensors) > MAX_TENSORS:
        yield error("too_many_tensors", f"{len(adapter.tensors)} tensors; at most {MAX_TENSORS} are accepted")
        return
    targets = _targets(adapter)
    halves: dict[str, set[str]] = {}
    for name in adapter.tensors:
        match = _parse_name(name)
        if match is None:
            yield error(
                "tensor_name",
                f"tensor {short(name)} is not base_model.model.<module>.lora_A/lora_B.weight; it would not be served",
            )
            continue
        module = match[1]
        halves.setdefault(module, set()).add(match[2])
        if targets and not _is_target(module, targets):
            yield error("tensor_untargeted", f"tensor {short(name)} belongs to no module of target_modules")
    for module, found in halves.items():
        if len(found) == 1:
            yield error("tensor_half", f"module {short(module)} has {found.pop()} only; both halves are needed")


def check_coverage(adapter: _Adapter) -> Iterator[Finding]:
    """What the config says was trained and the weights do not hold: served as if it had not been trained."""
    base, config = adapter.files.base_tensors, adapter.config
    if base is None or config.get("layers_to_transform") is not None or config.get("exclude_modules"):
        return
    modules = [name.removesuffix(".weight") for name, shape in base.items() if len(shape) == 2]
    targets = _targets(adapter)
    wanted = {module for module in modules if _is_target(module, targets)}
    present = {match[1] for name in adapter.tensors if (match := _parse_name(name))}
    if missing := sorted(wanted - present):
        yield warning(
            "modules_not_covered",
            f"{len(missing)} of {len(wanted)} target modules have no tensors, {short(missing[0])} for one; "
            "they are served as the base has them",
        )


def check_tensor_shapes(adapter: _Adapter) -> Iterator[Finding]:
    """A is [r, in], B is [out, r]: vLLM would slice or rescale what does not fit, and say nothing."""
    rank, base = adapter.config.get("r"), adapter.files.base_tensors
    if base is None:
        yield warning("base_shapes_unknown", "the base was registered without tensor shapes; shapes were not compared")
    for name, tensor in adapter.tensors.items():
        match = _parse_name(name)
        shape: Any = tensor.get("shape") if isinstance(tensor, dict) else None
        if match is None:
            continue
        if not _is_shape(shape) or len(shape) != 2:
            yield error("tensor_shape", f"tensor {name} has shape {short(shape)}; two positive dimensions are needed")
            continue
        module, half = match[1], match[2]
        if shape[0 if half == "lora_A" else 1] != rank:
            yield error(
                "tensor_rank", f"tensor {name} has shape {shape}, but r = {short(rank)}; vLLM would scale it wrongly"
            )
        if base is None:
            continue
        weight = base.get(f"{module}.weight")
        if weight is None:
            yield error("module_unknown", f"module {module} is not in the base; vLLM would ignore it without a word")
        elif len(weight) != 2 or shape[1 if half == "lora_A" else 0] != weight[1 if half == "lora_A" else 0]:
            yield error("tensor_shape", f"tensor {name} has shape {shape}, but the base weight is {list(weight)}")


def check_tensor_bytes(adapter: _Adapter) -> Iterator[Finding]:
    """Offsets must tile the data exactly: no gap, no overlap, nothing behind the end."""
    spans = []
    for name, tensor in adapter.tensors.items():
        span = _span(name, tensor)
        if span is None:
            yield error("tensor_layout", f"tensor {short(name)} has no valid dtype, shape and data_offsets")
            continue
        if span.dtype not in DTYPE_BYTES:
            yield error(
                "tensor_dtype", f"tensor {short(name)} is {short(span.dtype)}; use one of {', '.join(DTYPE_BYTES)}"
            )
        elif span.end - span.begin != math.prod(span.shape) * DTYPE_BYTES[span.dtype]:
            yield error(
                "tensor_layout", f"tensor {short(name)} spans {span.end - span.begin} bytes, its shape needs other"
            )
        spans.append(span)
    position = 0
    for span in sorted(spans, key=lambda one: (one.begin, one.end)):
        if span.begin != position:
            yield error("tensor_layout", f"the data has a gap or overlap at byte {min(span.begin, position)}")
            return
        position = span.end
    size = adapter.files.sizes[WEIGHTS]
    if adapter.tensors and len(spans) == len(adapter.tensors) and 8 + len(adapter.files.header) + position != size:
        yield error("tensor_layout", f"{WEIGHTS} has {size} bytes, its header describes other")


CHECKS: tuple[Callable[[_Adapter], Iterator[Finding]], ...] = (
    lambda adapter: check_config(adapter.config, adapter.files.base_id),
    check_readme,
    check_tensor_names,
    check_coverage,
    check_tensor_shapes,
    check_tensor_bytes,
)


def spans_of(header: bytes) -> list[Span]:
    """Where each tensor's numbers lie, in order of their bytes, from a header without findings."""
    tensors = parse_strictly(header, f"header of {WEIGHTS}")
    found = [_span(name, tensor) for name, tensor in tensors.items() if name != "__metadata__"]
    return sorted((span for span in found if span is not None), key=lambda span: span.begin)


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
    except (ValueError, RecursionError) as refused:
        raise ValueError(f"{what} is not valid JSON: {str(refused)[:200]}") from None
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


def _parse_name(name: str) -> re.Match[str] | None:
    return _TENSOR.fullmatch(name) if len(name) <= _LONGEST_NAME else None


def _targets(adapter: _Adapter) -> frozenset[str]:
    targets = adapter.config.get("target_modules")
    return frozenset(one for one in targets if isinstance(one, str)) if isinstance(targets, list) else frozenset()


def _is_target(module: str, targets: frozenset[str]) -> bool:
    """As peft matches a list of names: the whole path, or its end from a dot on."""
    while module not in targets:
        _, dot, module = module.partition(".")
        if not dot:
            return False
    return True


def _span(name: str, tensor: Any) -> Span | None:
    if not isinstance(tensor, dict) or set(tensor) != {"dtype", "shape", "data_offsets"}:
        return None
    offsets, shape, dtype = tensor["data_offsets"], tensor["shape"], tensor["dtype"]
    if not isinstance(dtype, str) or not _is_shape(shape) or not isinstance(offsets, list) or len(offsets) != 2:
        return None
    if not all(type(offset) is int and 0 <= offset < 2**48 for offset in offsets) or offsets[0] > offsets[1]:
        return None
    return Span(name, offsets[0], offsets[1], dtype, shape)


def _is_shape(shape: Any) -> bool:
    # Few dimensions: the product of a hundred thousand takes seconds.
    return (
        isinstance(shape, list)
        and len(shape) <= MAX_DIMENSIONS
        and all(type(size) is int and 0 < size < 2**32 for size in shape)
    )


def _is_text(metadata: Any) -> bool:
    return isinstance(metadata, dict) and all(isinstance(value, str) for value in metadata.values())
