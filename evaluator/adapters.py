"""An adapter on disk, looked through before an engine loads it: numbers that are none, and modules of another base.

The registry inspects headers at upload; here are the weights themselves, and the base that they are to be put on.
"""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from evaluator.vllm_process import served_rank
from registry.client import InvalidRequest

_WEIGHTS = "adapter_model.safetensors"
# Bytes of one number, and the exponent bits that are all ones in NaN and infinity (IEEE 754 and bfloat16).
_EXPONENTS = {"F32": (4, 0x7F800000), "F16": (2, 0x7C00), "BF16": (2, 0x7F80)}
_CHUNK_BYTES = 4 * 1024 * 1024


def check_adapter(folder: Path, base_tensors: Mapping[str, Sequence[int]]) -> int:
    """The rank with which an engine must be started to serve the adapter.

    base_tensors: weight name to shape of the base. Raises InvalidRequest with the first tensor that cannot be served.
    """
    path = folder / _WEIGHTS
    try:
        with path.open("rb") as file:
            size = int.from_bytes(file.read(8), "little")
            if size > path.stat().st_size:
                raise ValueError(f"{_WEIGHTS} has a header of {size} bytes, more than itself")
            header = json.loads(file.read(size))
            if not isinstance(header, dict):
                raise ValueError(f"{_WEIGHTS} has a header that is no JSON object")
            header.pop("__metadata__", None)
            for name, tensor in header.items():
                _check_fits(name, tensor["shape"], base_tensors)
                begin, end = tensor["data_offsets"]
                _check_size(name, tensor, end - begin)
                file.seek(8 + size + begin)
                if not all(_finite(chunk, tensor["dtype"]) for chunk in _chunks(file, end - begin)):
                    raise InvalidRequest(
                        f"tensor {name} of the adapter holds NaN or infinity, so every score would; train with a "
                        "smaller learning rate"
                    )
        config = json.loads((folder / "adapter_config.json").read_text())
        return served_rank(max(int(config["r"]), *map(int, (config.get("rank_pattern") or {}).values()), 1))
    except (AttributeError, KeyError, TypeError, ValueError, OSError) as error:
        raise InvalidRequest(f"the adapter's files cannot be read ({error}); push it again") from None


def _check_fits(name: str, shape: Sequence[int], base_tensors: Mapping[str, Sequence[int]]) -> None:
    module, _, half = name.removeprefix("base_model.model.").removesuffix(".weight").rpartition(".")
    weight = base_tensors.get(f"{module}.weight")
    # A is [r, in], B is [out, r]; the base's weight is [out, in].
    side = 1 if half == "lora_A" else 0
    if weight is None or len(weight) != 2 or len(shape) != 2 or shape[side] != weight[side]:
        has = f"has shape {list(weight)} there" if weight is not None else "is not there"
        raise InvalidRequest(
            f"tensor {name} of shape {list(shape)} does not fit the base, whose {module} {has}; the adapter was "
            "trained on another base"
        )


def _check_size(name: str, tensor: Mapping[str, Any], size: int) -> None:
    if tensor["dtype"] not in _EXPONENTS:
        raise InvalidRequest(
            f"tensor {name} of the adapter is of type {tensor['dtype']}, which is not looked through here; save it "
            f"as one of {', '.join(_EXPONENTS)}"
        )
    expected = math.prod(tensor["shape"]) * _EXPONENTS[tensor["dtype"]][0]
    if size != expected:
        raise ValueError(f"tensor {name} has {size} bytes, and its shape and type need {expected}")


def _finite(chunk: bytes, dtype: str) -> bool:
    import numpy

    width, exponent = _EXPONENTS[dtype]
    bits = numpy.frombuffer(chunk, dtype=f"<u{width}")
    return not bool(((bits & exponent) == exponent).any())


def _chunks(file: Any, size: int) -> Iterator[bytes]:
    while size > 0:
        chunk = file.read(min(size, _CHUNK_BYTES))
        if not chunk:
            raise ValueError(f"{_WEIGHTS} ends {size} bytes too early")
        size -= len(chunk)
        yield chunk
