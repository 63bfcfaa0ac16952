"""The grouped LoRA operations are a plain computation for each row, and leave rows without an adapter alone."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluator.vllm_plugin import grouped_operations, grouped_wrapper

# The warnings are those of importing vLLM's LoRA layers.
pytestmark = [pytest.mark.stack, pytest.mark.filterwarnings("ignore::DeprecationWarning")]

SLOTS, WIDTH, OUT = 3, 24, 40
ranks = st.sampled_from([1, 8, 16, 64])
dtypes = st.sampled_from(["float32", "bfloat16"])
# Slots of the tokens of a batch, as lengths of runs: base (-1) and adapters in any order, each maybe several times.
runs = st.lists(st.tuples(st.integers(-1, SLOTS - 1), st.integers(1, 6)), min_size=1, max_size=8)
seeds = st.integers(0, 2**31)


class Batch:
    """Random weights of SLOTS adapters, inputs, and a buffer that already holds something."""

    def __init__(self, rank: int, dtype: str, lengths: list[tuple[int, int]], seed: int, stacked: bool) -> None:
        import torch

        generator = torch.Generator().manual_seed(seed)

        def draw(*shape: int) -> Any:
            return torch.randn(shape, generator=generator).to(getattr(torch, dtype))

        self.slots = torch.tensor([slot for slot, _ in lengths])
        self.lengths = torch.tensor([n for _, n in lengths])
        self.indices = torch.repeat_interleave(self.slots, self.lengths)
        self.tokens = len(self.indices)
        self.x = draw(self.tokens, WIDTH)
        self.low = draw(self.tokens, rank)
        self.a, self.b = draw(SLOTS, rank, WIDTH), draw(SLOTS, OUT, rank)
        if stacked:  # vLLM stacks as (slots, 1, out, in)
            self.a, self.b = self.a.unsqueeze(1), self.b.unsqueeze(1)
        self.y = draw(self.tokens, OUT)
        self.shrunk = draw(self.tokens, rank).float()
        self.tolerance = {"atol": 1e-4, "rtol": 1e-4} if dtype == "float32" else {"atol": 0.15, "rtol": 0.03}

    def row(self, weights: Any, token: int) -> Any:
        """The weights of a token's adapter, or None."""
        slot = int(self.indices[token])
        return None if slot < 0 else weights[slot].reshape(weights.shape[-2:]).float()


def both_ways(batch: Batch, name: str) -> list[Callable[..., None]]:
    """The operation by token and by sequence, called alike."""
    operations = grouped_operations()
    plain, by_sequence = operations[f"bgmv_{name}"], operations[f"sgmv_{name}"]

    def in_sequences(x: Any, w: Any, y: Any, _indices: Any, *rest: Any) -> None:
        starts = batch.lengths.cumsum(0) - batch.lengths
        longest = int(batch.lengths.max())
        by_sequence(x, w, y, starts, batch.lengths, batch.slots, len(batch.slots), longest, batch.tokens, *rest)

    return [plain, in_sequences]


@given(ranks, dtypes, runs, seeds, st.booleans())
@settings(max_examples=40, deadline=None)
def test_shrink(rank: int, dtype: str, lengths: list[tuple[int, int]], seed: int, stacked: bool) -> None:
    import torch

    batch = Batch(rank, dtype, lengths, seed, stacked)
    for operation in both_ways(batch, "shrink"):
        found = batch.shrunk.clone()
        operation(batch.x, batch.a, found, batch.indices, 0.5)
        for token in range(batch.tokens):
            a = batch.row(batch.a, token)
            wanted = torch.zeros(rank) if a is None else 0.5 * a @ batch.x[token].float()
            torch.testing.assert_close(found[token], wanted, **batch.tolerance)


@given(ranks, dtypes, runs, seeds, st.booleans(), st.booleans())
@settings(max_examples=40, deadline=None)
def test_expand(rank: int, dtype: str, lengths: list[tuple[int, int]], seed: int, stacked: bool, add: bool) -> None:
    import torch

    batch = Batch(rank, dtype, lengths, seed, stacked)
    for operation in both_ways(batch, "expand"):
        found = batch.y.clone()
        operation(batch.low, batch.b, found, batch.indices, add)
        for token in range(batch.tokens):
            b = batch.row(batch.b, token)
            before = batch.y[token].float() if add else torch.zeros(OUT)
            wanted = before if b is None else before + b @ batch.low[token].float()
            torch.testing.assert_close(found[token].float(), wanted, **batch.tolerance)
            if b is None and add:
                assert torch.equal(found[token], batch.y[token]), "a base row was touched"


@given(ranks, dtypes, runs, seeds, st.booleans(), st.integers(0, 20))
@settings(max_examples=40, deadline=None)
def test_expand_into_a_slice(
    rank: int, dtype: str, lengths: list[tuple[int, int]], seed: int, add: bool, offset: int
) -> None:
    """As for q, k and v in one matrix: nothing outside the slice changes."""
    import torch

    size = OUT - 20
    batch = Batch(rank, dtype, lengths, seed, stacked=True)
    weights = batch.b[..., :size, :]
    inside = slice(offset, offset + size)
    for operation in both_ways(batch, "expand_slice"):
        found = batch.y.clone()
        operation(batch.low, weights, found, batch.indices, offset, size, add)
        outside = torch.ones(OUT, dtype=torch.bool)
        outside[inside] = False
        assert torch.equal(found[:, outside], batch.y[:, outside])
        for token in range(batch.tokens):
            b = batch.row(weights, token)
            before = batch.y[token, inside].float() if add else torch.zeros(size)
            wanted = before if b is None else before + b @ batch.low[token].float()
            torch.testing.assert_close(found[token, inside].float(), wanted, **batch.tolerance)


@given(ranks, dtypes, runs, seeds, st.booleans())
@settings(max_examples=40, deadline=None)
def test_a_linear_layer_of_several_slices(
    rank: int, dtype: str, lengths: list[tuple[int, int]], seed: int, prefill: bool
) -> None:
    """As vLLM calls it: the mapping of a step's tokens once, then q, k and v in one matrix, in every layer."""
    import torch
    from vllm.lora.layers import LoRAMapping

    batch = Batch(rank, dtype, lengths, seed, stacked=True)
    sizes = (24, 16)
    wrapper = grouped_wrapper()(64, 64, "cpu")
    ids = tuple(int(slot) + 1 for slot in batch.indices)
    wrapper.update_metadata(LoRAMapping(ids, ids, is_prefill=prefill), [1, 2, 3], SLOTS, 1000)
    a, b = (batch.a, batch.a.flip(0)), (batch.b[..., :24, :], batch.b.flip(0)[..., :16, :])
    found = batch.y.clone()
    for _ in range(2):  # the second layer uses the same groups
        found.copy_(batch.y)
        wrapper.add_lora_linear(found, batch.x, a, b, 0.5, sizes)
    for token in range(batch.tokens):
        if batch.indices[token] < 0:
            assert torch.equal(found[token], batch.y[token]), "a base row was touched"
            continue
        parts = [
            0.5 * batch.row(down, token) @ (batch.row(up, token) @ batch.x[token].float())
            for up, down in zip(a, b, strict=True)
        ]
        wanted = batch.y[token].float() + torch.cat(parts)
        tolerance = {"atol": 1e-3, "rtol": 1e-3} if dtype == "float32" else {"atol": 1.5, "rtol": 0.05}
        torch.testing.assert_close(found[token].float(), wanted, **tolerance)


def test_the_next_steps_mapping_replaces_the_last() -> None:
    import torch
    from vllm.lora.layers import LoRAMapping

    wrapper = grouped_wrapper()(64, 64, "cpu")
    y, x = torch.zeros(2, 4), torch.ones(2, 4)
    a, b = (torch.ones(SLOTS, 1, 2, 4),), (torch.ones(SLOTS, 1, 4, 2),)
    for ids, touched in (((1, 0), [True, False]), ((0, 0), [False, False]), ((0, 2), [False, True])):
        wrapper.update_metadata(LoRAMapping(ids, ids, is_prefill=False), [1, 2, 3], SLOTS, 1000)
        y.zero_()
        wrapper.add_lora_linear(y, x, a, b, 1.0, (4,))
        assert y.any(dim=1).tolist() == touched


def test_vllms_own_operation_gives_base_rows_the_last_adapter() -> None:
    """Why the operations are replaced. Fails where vLLM has repaired it (vllm#48421): then ask whether ours may go."""
    import torch
    from vllm.lora.ops.torch_ops import lora_ops

    batch = Batch(8, "float32", [(-1, 2), (1, 2)], seed=0, stacked=False)
    theirs, ours = torch.zeros(4, OUT), torch.zeros(4, OUT)
    lora_ops.bgmv_expand(batch.low, batch.b, theirs, batch.indices, True)
    grouped_operations()["bgmv_expand"](batch.low, batch.b, ours, batch.indices, True)
    assert not torch.any(ours[:2]) and torch.any(theirs[:2])
    torch.testing.assert_close(ours[2:], theirs[2:])


def test_they_take_the_place_of_all_that_vllms_cpu_wrapper_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    import vllm.lora.punica_wrapper.punica_cpu as wrapper

    from evaluator.vllm_plugin import install_cpu_lora_ops

    imported = {name for name in vars(wrapper) if name.startswith(("bgmv_", "sgmv_"))}
    assert imported == set(grouped_operations())
    for name in (*imported, "PunicaWrapperCPU"):
        monkeypatch.setattr(wrapper, name, getattr(wrapper, name))  # put back afterwards
    install_cpu_lora_ops()
    install_cpu_lora_ops()
    assert all(getattr(wrapper, name).__module__ == "evaluator.vllm_plugin" for name in imported)
    assert wrapper.PunicaWrapperCPU.__name__ == "GroupedWrapper"
    assert wrapper.PunicaWrapperCPU.__base__.__module__ == wrapper.__name__, "installed twice, wrapped once"
    monkeypatch.delattr(wrapper, "sgmv_shrink")
    with pytest.raises(RuntimeError, match="sgmv_shrink"):
        install_cpu_lora_ops()
