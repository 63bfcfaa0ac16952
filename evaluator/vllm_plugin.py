"""What tunegate puts into vLLM: LoRA operations for CPU that are right and fast. Loaded through `vllm.general_plugins`.

vLLM's own CPU operations look the adapter's weights up by a slot index that is -1 for "no adapter", which Python reads
as "the last one": in a batch that mixes base and adapter requests, base requests get the adapter's weights
(vllm#48421, seen on 0.32.0). They also copy the weights once for every token. Here rows are grouped by slot: one matrix
product each, and rows without an adapter are left alone.
"""

from collections.abc import Callable
from typing import Any

OPS_VERSION = "tunegate-grouped/2"


def register() -> None:
    """Entry point, called in every vLLM process: installs the operations where vLLM runs on CPU."""
    from vllm.platforms import current_platform

    if current_platform.is_cpu():
        install_cpu_lora_ops()


def install_cpu_lora_ops() -> None:
    """Replace the six operations that vLLM's CPU LoRA wrapper calls. Before the engine is built."""
    import vllm.lora.punica_wrapper.punica_cpu as wrapper

    for name, operation in grouped_operations().items():
        if not hasattr(wrapper, name):
            raise RuntimeError(f"vLLM has no LoRA operation {name}; this version is not supported on CPU")
        setattr(wrapper, name, operation)


def grouped_operations() -> dict[str, Callable[..., None]]:
    """The operations by the names that vLLM 0.32 gives them.

    x: inputs, shape (tokens, in). w: stacked weights, shape (slots, [1,] out, in). y: output, changed in place.
    indices: slot of each token, shape (tokens,), -1 for none.
    """
    import torch

    def groups(indices: Any) -> list[tuple[int, Any]]:
        """(slot, its rows): a slice where they lie together, which costs no copy, otherwise their indices."""
        slots, counts = torch.unique_consecutive(indices, return_counts=True)
        runs, lengths = slots.tolist(), counts.tolist()
        if len(set(runs)) < len(runs):
            return [(slot, (indices == slot).nonzero().squeeze(1)) for slot in set(runs)]
        found, start = [], 0
        for slot, length in zip(runs, lengths, strict=True):
            found.append((slot, slice(start, start + length)))
            start += length
        return found

    def weights(stacked: Any, slot: int) -> Any:
        one = stacked[slot]
        return one.squeeze(0) if one.dim() == 3 else one

    def shrink(x: Any, w: Any, y: Any, indices: Any, scale: float = 1.0) -> None:
        for slot, rows in groups(indices):
            if slot < 0:
                y[rows] = 0
            else:
                a = weights(w, slot)
                y[rows, : a.shape[0]] = (scale * (x[rows].to(a.dtype) @ a.t())).to(y.dtype)

    def expand_slice(x: Any, w: Any, y: Any, indices: Any, offset: int, size: int, add: bool = True) -> None:
        for slot, rows in groups(indices):
            if slot < 0:
                if not add:
                    y[rows, offset : offset + size] = 0
                continue
            b = weights(w, slot)
            product = (x[rows].to(b.dtype) @ b.t())[:, :size].to(y.dtype)
            if add:
                y[rows, offset : offset + size] += product
            else:
                y[rows, offset : offset + size] = product

    def expand(x: Any, w: Any, y: Any, indices: Any, add: bool = True) -> None:
        expand_slice(x, w, y, indices, 0, min(w.shape[-2], y.shape[1]), add)

    def by_token(indices: Any, lengths: Any) -> Any:
        return torch.repeat_interleave(indices, lengths)

    def sequence_shrink(
        x: Any, w: Any, y: Any, _start: Any, lengths: Any, indices: Any, _b: int, _m: int, _t: int, scale: float
    ) -> None:
        shrink(x, w, y, by_token(indices, lengths), scale)

    def sequence_expand(
        x: Any, w: Any, y: Any, _start: Any, lengths: Any, indices: Any, _b: int, _m: int, _t: int, add: bool = False
    ) -> None:
        expand(x, w, y, by_token(indices, lengths), add)

    def sequence_expand_slice(
        x: Any,
        w: Any,
        y: Any,
        _start: Any,
        lengths: Any,
        indices: Any,
        _b: int,
        _m: int,
        _t: int,
        offset: int,
        size: int,
        add: bool = False,
    ) -> None:
        expand_slice(x, w, y, by_token(indices, lengths), offset, size, add)

    return {
        "bgmv_shrink": shrink,
        "bgmv_expand": expand,
        "bgmv_expand_slice": expand_slice,
        "sgmv_shrink": sequence_shrink,
        "sgmv_expand": sequence_expand,
        "sgmv_expand_slice": sequence_expand_slice,
    }
