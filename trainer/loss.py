"""The loss of a batch that is packed as a tree of prefixes: cross-entropy of the answers, divergence of replay rows.

Exact only for decoders whose logits are the LM head on the last hidden states and whose attention takes a mask of any
shape; `can_pack` names them.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch

from trainer.examples import IGNORED
from trainer.packing import Packed, pack

# Others scale their logits (Granite, Cohere) or mix tokens along the sequence (Qwen3.5, Mamba).
PACKED_MODELS = frozenset(("llama", "mistral", "qwen2", "qwen3"))
# Attention is quadratic in what is packed together.
_PACK_TOKENS = 1024


class Batch(NamedTuple):
    """Rows of token ids with their labels; replay rows are held to the base from `starts` on."""

    rows: list[list[int]]
    labels: list[list[int]]
    replay: list[bool]
    starts: list[int]

    def parts(self) -> Iterator["Batch"]:
        """The batch in pieces of at most _PACK_TOKENS tokens, or of one row."""
        piece: list[int] = []
        tokens = 0
        for index, row in enumerate(self.rows):
            if piece and tokens + len(row) > _PACK_TOKENS:
                yield self._only(piece)
                piece, tokens = [], 0
            piece.append(index)
            tokens += len(row)
        yield self._only(piece)

    def _only(self, places: list[int]) -> "Batch":
        return Batch(
            [self.rows[place] for place in places],
            [self.labels[place] for place in places],
            [self.replay[place] for place in places],
            [self.starts[place] for place in places],
        )


def can_pack(config: Any, longest: int) -> bool:
    """Whether rows of at most `longest` tokens may be packed for this text config."""
    window = getattr(config, "sliding_window", None) if getattr(config, "use_sliding_window", True) else None
    return config.model_type in PACKED_MODELS and (window is None or longest <= window)


class BatchLoss(NamedTuple):
    """Sums over a batch, in nats, with the tokens they are over. `divergence` is of the replay rows alone."""

    answers: torch.Tensor
    answer_tokens: int
    divergence: torch.Tensor
    replay_tokens: int


def batch_loss(model: Any, batch: Batch, dtype: torch.dtype, *, replay: bool) -> BatchLoss:
    """Both sums, part by part. `dtype` is the model's; `replay`: whether divergences are asked for."""
    found = BatchLoss(torch.zeros((), device=model.device), 0, torch.zeros((), device=model.device), 0)
    for part in batch.parts():
        packed = pack(part.rows, dtype)
        hidden = _hidden(model, packed)
        summed, counted = _answer_loss(model, hidden, packed, part.labels)
        found = found._replace(answers=found.answers + summed, answer_tokens=found.answer_tokens + counted)
        if replay and any(part.replay):
            summed, counted = _divergence(model, hidden, packed, part)
            found = found._replace(divergence=found.divergence + summed, replay_tokens=found.replay_tokens + counted)
    return found


def _answer_loss(model: Any, hidden: torch.Tensor, packed: Packed, labels: list[list[int]]) -> tuple[torch.Tensor, int]:
    """Summed cross-entropy of the labelled tokens, each read off the node before it, and how many there are."""
    pairs = [
        (path[place - 1], label)
        for path, row in zip(packed.nodes, labels, strict=True)
        for place, label in enumerate(row[: len(path)])
        if place and label != IGNORED
    ]
    if not pairs:
        return hidden.sum() * 0.0, 0
    nodes, place_of = torch.tensor([node for node, _ in pairs]).unique(return_inverse=True)
    logits = _head(model)(hidden[nodes]).float()[place_of]
    targets = torch.tensor([label for _, label in pairs], device=logits.device)
    return torch.nn.functional.cross_entropy(logits, targets, reduction="sum"), len(pairs)


def _divergence(model: Any, hidden: torch.Tensor, packed: Packed, batch: Batch) -> tuple[torch.Tensor, int]:
    """Sum over the replay rows' tokens of KL(base || adapter), in nats, and how many tokens there are."""
    held = [index for index, flag in enumerate(batch.replay) if flag]
    nodes = [node for index in held for node in packed.nodes[index][batch.starts[index] : -1]]
    with torch.no_grad(), model.disable_adapter():
        alone = pack([batch.rows[index] for index in held], packed.mask.dtype)
        same = [node for place, index in enumerate(held) for node in alone.nodes[place][batch.starts[index] : -1]]
        teacher = torch.log_softmax(_head(model)(_hidden(model, alone)[same]).float(), -1)
    student = torch.log_softmax(_head(model)(hidden[nodes]).float(), -1)
    return (teacher.exp() * (teacher - student)).sum(), len(nodes)


def _hidden(model: Any, packed: Packed) -> torch.Tensor:
    """Hidden states of a packed batch, shape (n, width), before the LM head."""
    device = model.device
    output = model.get_base_model().get_decoder()(
        input_ids=packed.tokens.to(device),
        position_ids=packed.positions.to(device),
        attention_mask=packed.mask.to(device),
        use_cache=False,
    )
    return output.last_hidden_state[0]


def _head(model: Any) -> Any:
    return model.get_base_model().get_output_embeddings()
