"""What trains: tokenised rows of an answer to learn, and pairs of which one is to be preferred."""

from typing import NamedTuple

IGNORED = -100


class Example(NamedTuple):
    """One tokenised row; labels are IGNORED outside the completion. Replay rows are held to the base from `start`."""

    ids: list[int]
    labels: list[int]
    replay: bool
    start: int


class PairExample(NamedTuple):
    """One prompt with two answers to it, each to its end-of-turn token."""

    prompt: list[int]
    chosen: list[int]
    rejected: list[int]

    @property
    def tokens(self) -> int:
        """Of the longer of the two conversations."""
        return len(self.prompt) + max(len(self.chosen), len(self.rejected))
