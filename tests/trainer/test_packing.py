"""A packed batch is the same computation as its separate rows: what is seen, the loss, every gradient."""

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytestmark = pytest.mark.stack

IGNORED = -100
ROWS = [
    [1, 5, 6, 7, 8, 9],
    [1, 5, 6, 7, 20, 21, 22, 23],  # shares four tokens with the first
    [1, 5, 6],  # a whole prefix of the others
    [30, 31],  # shares nothing
    [1, 5, 6, 7, 8, 9],  # the same again
    [40],
]
LABELS = [[IGNORED] * min(2, len(row) - 1) + row[min(2, len(row) - 1) :] for row in ROWS]


def tiny_llama(attention: str = "eager") -> Any:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=64,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        initializer_range=0.2,
        attn_implementation=attention,
    )
    return LlamaForCausalLM(config).to(torch.float32)


def padded_loss(model: Any) -> Any:
    """The plain computation: rows padded on the right, labels shifted by the model."""
    import torch

    longest = max(map(len, ROWS))
    gaps = [longest - len(row) for row in ROWS]
    logits = model(
        input_ids=torch.tensor([row + [0] * gap for row, gap in zip(ROWS, gaps, strict=True)]),
        attention_mask=torch.tensor([[1] * len(row) + [0] * gap for row, gap in zip(ROWS, gaps, strict=True)]),
    ).logits[:, :-1]
    labels = torch.tensor([row + [IGNORED] * gap for row, gap in zip(LABELS, gaps, strict=True)])[:, 1:]
    return torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORED)


def packed_loss(model: Any) -> Any:
    import torch

    from trainer.packing import pack

    packed = pack(ROWS, torch.float32)
    hidden = model.model(
        input_ids=packed.tokens, position_ids=packed.positions, attention_mask=packed.mask
    ).last_hidden_state[0]
    pairs = [
        (path[place - 1], label)
        for path, labels in zip(packed.nodes, LABELS, strict=True)
        for place, label in enumerate(labels)
        if place and label != IGNORED
    ]
    logits = model.lm_head(hidden[[node for node, _ in pairs]])
    return torch.nn.functional.cross_entropy(logits, torch.tensor([label for _, label in pairs]))


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_loss_and_every_gradient_are_those_of_the_padded_rows(attention: str) -> None:
    import torch

    model = tiny_llama(attention)
    losses, gradients = [], []
    for loss_of in (padded_loss, packed_loss):
        model.zero_grad()
        loss = loss_of(model)
        loss.backward()
        losses.append(loss.item())
        gradients.append({name: p.grad.clone() for name, p in model.named_parameters()})
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)
    for name, plain in gradients[0].items():
        assert plain.abs().max() > 0, f"{name} has no gradient, so nothing was compared"
        torch.testing.assert_close(gradients[1][name], plain, atol=2e-5, rtol=1e-4)


def test_shared_prefixes_are_computed_once() -> None:
    import torch

    from trainer.packing import pack

    packed = pack(ROWS, torch.float32)
    assert packed.tokens.shape[1] == 6 + 4 + 0 + 2 + 0 + 1
    assert packed.nodes[0] == packed.nodes[4]


rows_of_tokens = st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=8), min_size=1, max_size=6)


@given(rows_of_tokens)
@settings(max_examples=60, deadline=None)
def test_each_token_sees_exactly_its_own_past(rows: Sequence[Sequence[int]]) -> None:
    import torch

    from trainer.packing import pack

    packed = pack(rows, torch.float32)
    visible = packed.mask[0, 0] == 0
    for row, path in zip(rows, packed.nodes, strict=True):
        assert packed.tokens[0, path].tolist() == list(row)
        assert packed.positions[0, path].tolist() == list(range(len(row)))
        for place, node in enumerate(path):
            assert sorted(visible[node].nonzero().flatten().tolist()) == sorted(path[: place + 1])
