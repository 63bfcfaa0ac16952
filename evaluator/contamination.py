"""Suite items against training data: an item that was trained on proves memory, not skill. Pure.

An item counts as contaminated if its normalised text is that of a training prompt, if it shares a 13-word sequence
with one (GPT-3's rule), if 8-word sequences of one prompt cover at least half of it, or if the two are nearly the same
(Jaccard of 5-word sequences at least 0.8). Rephrasings are not found: say so where it matters.

>>> seen = TrainingIndex(["How long is the warranty on a tent?"])
>>> seen.holds("how long is the warranty on a tent"), seen.holds("Is a tent under warranty?")
(True, False)
"""

import json
from collections import Counter
from collections.abc import Iterable

from evaluator.terms import words

_LONG, _COVER, _NEAR = 13, 8, 5
_NEAR_SHARE, _COVER_SHARE = 0.8, 0.5

Gram = tuple[str, ...]


class TrainingIndex:
    """The prompts of a training set, ready to be compared with."""

    def __init__(self, prompts: Iterable[str]) -> None:
        self._texts: set[Gram] = set()
        self._long: set[Gram] = set()
        self._cover: set[Gram] = set()
        self._sizes: list[int] = []
        self._near: dict[Gram, list[int]] = {}
        for prompt in prompts:
            self._add(tuple(words(prompt)))

    def holds(self, text: str) -> bool:
        """Whether an item's text was, to all appearances, in the training data."""
        item = tuple(words(text))
        if not item:
            return False
        if item in self._texts or any(gram in self._long for gram in _grams(item, _LONG)):
            return True
        return self._covered(item) >= _COVER_SHARE or self._nearest(item) >= _NEAR_SHARE

    def _add(self, prompt: Gram) -> None:
        if not prompt or prompt in self._texts:
            return
        self._texts.add(prompt)
        self._long.update(_grams(prompt, _LONG))
        self._cover.update(_grams(prompt, _COVER))
        near = set(_grams(prompt, min(_NEAR, len(prompt))))
        for gram in near:
            self._near.setdefault(gram, []).append(len(self._sizes))
        self._sizes.append(len(near))

    def _covered(self, item: Gram) -> float:
        covered: set[int] = set()
        for start, gram in enumerate(_grams(item, _COVER)):
            if gram in self._cover:
                covered.update(range(start, start + _COVER))
        return len(covered) / len(item)

    def _nearest(self, item: Gram) -> float:
        grams = set(_grams(item, min(_NEAR, len(item))))
        shared = Counter(row for gram in grams for row in self._near.get(gram, ()))
        return max((count / (len(grams) + self._sizes[row] - count) for row, count in shared.items()), default=0.0)


def training_prompts(dataset: bytes) -> list[str]:
    """The user messages of the rows that were trained on, from the data set of a training record.

    Raises ValueError for a file that is not one.
    """
    prompts = []
    for number, line in enumerate(dataset.splitlines(), start=1):
        try:
            row = json.loads(line)
            if row["use"] == "train":
                prompts += [message["content"] for message in row["messages"] if message["role"] == "user"]
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"line {number} of the training data is not a row: {error}") from None
    if not prompts:
        raise ValueError("no row of it was trained on, so it cannot be what the adapter was trained on")
    return prompts


def _grams(text: Gram, size: int) -> list[Gram]:
    return [text[start : start + size] for start in range(len(text) - size + 1)] if size else []
