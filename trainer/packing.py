"""Batches without repetition: tokens that rows have in common are computed once, and padding not at all.

Rows of one task begin with the same system prompt. Laid out as a tree of prefixes, a batch of 8 rows of 70 tokens that
share 27 is one sequence of 371 tokens instead of 8 × 70 padded ones. Each token sees exactly its own row's past (the
attention mask follows the tree), so hidden states, loss and gradients are those of the separate rows.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch


class Packed(NamedTuple):
    """One sequence for a whole batch.

    tokens, positions: shape (1, n). mask: additive attention mask, shape (1, 1, n, n).
    nodes: for each row, the place of each of its tokens in the sequence.
    """

    tokens: torch.Tensor
    positions: torch.Tensor
    mask: torch.Tensor
    nodes: list[list[int]]


def pack(rows: Sequence[Sequence[int]], dtype: torch.dtype) -> Packed:
    """Lay rows of token ids out as a tree of prefixes. `dtype` is the model's, for the mask.

    >>> packed = pack([[5, 6, 7], [5, 6, 8, 9]], torch.float32)
    >>> packed.tokens.tolist(), packed.positions.tolist(), packed.nodes
    ([[5, 6, 7, 8, 9]], [[0, 1, 2, 2, 3]], [[0, 1, 2], [0, 1, 3, 4]])
    """
    known: dict[tuple[int, int], int] = {}
    tokens: list[int] = []
    parents: list[int] = []
    depths: list[int] = []
    nodes: list[list[int]] = []
    for row in rows:
        parent, path = -1, []
        for depth, token in enumerate(row):
            node = known.get((parent, token))
            if node is None:
                node = known[(parent, token)] = len(tokens)
                tokens.append(token)
                parents.append(parent)
                depths.append(depth)
            path.append(node)
            parent = node
        nodes.append(path)
    sees = torch.zeros(len(tokens), len(tokens), dtype=torch.bool)
    for node, parent in enumerate(parents):
        if parent >= 0:
            sees[node] = sees[parent]
        sees[node, node] = True
    mask = torch.zeros(sees.shape, dtype=dtype).masked_fill(~sees, torch.finfo(dtype).min)
    return Packed(torch.tensor([tokens]), torch.tensor([depths]), mask[None, None], nodes)
