"""Easy rows first: the order of a run that asks for it (`training.order = "easy-to-hard"`).

How hard a row is, the base itself says: the mean negative log-likelihood of its answer's tokens, before any training.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import torch

from trainer.examples import IGNORED, Example

_MOST_TOKENS = 2048  # of one forward, padding included


def easy_to_hard(model: Any, examples: Sequence[Example]) -> list[int]:
    """Places of the examples in their new order; rows of replay, which have no answer to learn, lie evenly between."""
    learnt = [place for place, one in enumerate(examples) if not one.replay]
    replay = [place for place, one in enumerate(examples) if one.replay]
    losses = dict(zip(learnt, answer_losses(model, [examples[place] for place in learnt]), strict=True))
    return spread(sorted(learnt, key=lambda place: (losses[place], place)), replay)


def spread(order: Sequence[int], between: Sequence[int]) -> list[int]:
    """`order` with the others between its members, as evenly as can be; both keep their own order.

    >>> spread([1, 2, 3, 4], [8, 9])
    [1, 8, 2, 3, 9, 4]
    """
    marked = [((place + 0.5) / len(order), 0, one) for place, one in enumerate(order)]
    marked += [((place + 0.5) / len(between), 1, one) for place, one in enumerate(between)]
    return [one for _, _, one in sorted(marked)]


def answer_losses(model: Any, examples: Sequence[Example]) -> list[float]:
    """Mean negative log-likelihood of each answer's tokens, in nats, in the order of the examples."""
    found: dict[int, float] = {}
    model.eval()
    for batch in _batches(examples):
        longest = max(len(examples[place].ids) for place in batch)
        rows = [examples[place] for place in batch]
        gaps = [longest - len(row.ids) for row in rows]
        ids = torch.tensor([row.ids + [0] * gap for row, gap in zip(rows, gaps, strict=True)], device=model.device)
        mask = torch.tensor([[1] * (longest - gap) + [0] * gap for gap in gaps], device=model.device)
        labels = torch.tensor([row.labels + [IGNORED] * gap for row, gap in zip(rows, gaps, strict=True)])[:, 1:]
        with torch.no_grad():
            logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits[:, :-1]
        for place, row_logits, row_labels in zip(batch, logits, labels, strict=True):
            at = row_labels != IGNORED
            targets = row_labels[at].to(row_logits.device)
            found[place] = torch.nn.functional.cross_entropy(
                row_logits[at.to(row_logits.device)].float(), targets
            ).item()
    return [found[place] for place in range(len(examples))]


def _batches(examples: Sequence[Example]) -> Iterator[list[int]]:
    """Places of rows of about one length, of so many tokens together, or one row alone."""
    batch: list[int] = []
    for place in sorted(range(len(examples)), key=lambda place: len(examples[place].ids)):
        if batch and (len(batch) + 1) * len(examples[place].ids) > _MOST_TOKENS:
            yield batch
            batch = []
        batch.append(place)
    if batch:
        yield batch
