"""What tunegate puts into vLLM: LoRA operations for CPU that are right and fast. Loaded through `vllm.general_plugins`.

vLLM's own CPU operations look the adapter's weights up by a slot index that is -1 for "no adapter", which Python reads
as "the last one": in a batch that mixes base and adapter requests, base requests get the adapter's weights
(vllm#48421, seen on 0.32.0). They also copy the weights once for every token. Here rows are grouped by slot, once for
each step of the engine: two matrix products a slot, and rows without an adapter are left alone.
"""

from collections.abc import Callable
from typing import Any

OPS_VERSION = "tunegate-grouped/3"


def register() -> None:
    """Entry point, called in every vLLM process: installs the operations where vLLM runs on CPU."""
    from vllm.platforms import current_platform

    if current_platform.is_cpu():
        install_cpu_lora_ops()


def install_cpu_lora_ops() -> None:
    """Replace vLLM's CPU LoRA wrapper and the six operations that the rest of it calls. Before the engine is built."""
    import vllm.lora.punica_wrapper.punica_cpu as wrapper

    for name, operation in grouped_operations().items():
        if not hasattr(wrapper, name):
            raise RuntimeError(f"vLLM has no LoRA operation {name}; this version is not supported on CPU")
        setattr(wrapper, name, operation)
    if not hasattr(wrapper.PunicaWrapperCPU, "groups"):
        wrapper.PunicaWrapperCPU = grouped_wrapper()


def grouped_wrapper() -> type[Any]:
    """vLLM's CPU LoRA wrapper with linear layers by groups: nearly all of an adapter's work."""
    import torch
    from vllm.lora.punica_wrapper.punica_cpu import PunicaWrapperCPU

    class GroupedWrapper(PunicaWrapperCPU):  # type: ignore[misc]
        # (slot, its rows) of the tokens of the present step; empty where none has an adapter.
        groups: list[tuple[int, Any]] = []

        def update_metadata(self, *mapping: Any, **more: Any) -> None:
            """Called when a step's tokens belong to other slots than those of the step before."""
            super().update_metadata(*mapping, **more)
            self.groups = [(slot, rows) for slot, rows in groups_of(self.token_lora_indices) if slot >= 0]

        def add_lora_linear(self, y: Any, x: Any, a: Any, b: Any, scale: float, sizes: Any, **_unused: Any) -> None:
            """y[:, slice i] += scale * x @ a[i].T @ b[i].T for the rows of each adapter, in place.

            y: (tokens, out). a[i], b[i]: stacked weights of all slots, the inputs' and outputs' half of slice i.
            """
            for slot, rows in self.groups:
                start, inputs = 0, x[rows]
                for stacked_a, stacked_b, size in zip(a, b, sizes, strict=True):
                    low = inputs.to(stacked_a.dtype) @ slot_weights(stacked_a, slot).t()
                    to = slice(start, start + size)
                    into = y[rows, to]
                    weights = slot_weights(stacked_b, slot)[:size].t()
                    if isinstance(rows, slice):
                        into.addmm_(low, weights, alpha=scale)
                    else:
                        y[rows, to] = torch.addmm(into, low, weights, alpha=scale)
                    start += size

    return GroupedWrapper


def groups_of(indices: Any) -> list[tuple[int, Any]]:
    """(slot, its rows): a slice where they lie together, which costs no copy, otherwise their indices."""
    import torch

    slots, counts = torch.unique_consecutive(indices, return_counts=True)
    runs, lengths = slots.tolist(), counts.tolist()
    if len(set(runs)) < len(runs):
        return [(slot, (indices == slot).nonzero().squeeze(1)) for slot in sorted(set(runs))]
    found, start = [], 0
    for slot, length in zip(runs, lengths, strict=True):
        found.append((slot, slice(start, start + length)))
        start += length
    return found


def slot_weights(stacked: Any, slot: int) -> Any:
    """One slot's weights, shape (out, in), of stacked ones, shape (slots, [1,] out, in)."""
    one = stacked[slot]
    return one.squeeze(0) if one.dim() == 3 else one


def grouped_operations() -> dict[str, Callable[..., None]]:
    """The operations by the names that vLLM 0.32 gives them.

    x: inputs, shape (tokens, in). w: stacked weights, shape (slots, [1,] out, in). y: output, changed in place.
    indices: slot of each token, shape (tokens,), -1 for none.
    """
    import torch

    def shrink(x: Any, w: Any, y: Any, indices: Any, scale: float = 1.0) -> None:
        for slot, rows in groups_of(indices):
            if slot < 0:
                y[rows] = 0
            else:
                a = slot_weights(w, slot)
                y[rows, : a.shape[0]] = (scale * (x[rows].to(a.dtype) @ a.t())).to(y.dtype)

    def expand_slice(x: Any, w: Any, y: Any, indices: Any, offset: int, size: int, add: bool = True) -> None:
        for slot, rows in groups_of(indices):
            if slot < 0:
                if not add:
                    y[rows, offset : offset + size] = 0
                continue
            b = slot_weights(w, slot)
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
