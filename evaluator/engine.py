"""The port to whatever runs the model: score token ids, generate from token ids, for the base or an adapter.

Ids go in and log-probabilities come out; rendering and tokenising happen once, on our side (`rendering.py`).
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

from registry.records import EngineInfo


class EngineDied(Exception):
    """The engine is gone or does not answer; its own last words are in the message."""


class EngineRefused(Exception):
    """The engine cannot do this at all: trying again is of no use."""


class Prompt(NamedTuple):
    """Token ids for the base, or for the adapter in this directory (whose name must change with its content)."""

    ids: Sequence[int]
    adapter: Path | None


class Answer(NamedTuple):
    """`finish` is "stop" or "length"."""

    text: str
    tokens: int
    finish: str


class Engine(Protocol):
    """A loaded model. Results come in the order in which they are ready, each with the index of its prompt.

    One call at a time, read to its end: an engine that was left in the middle of one is of no use and must be closed.
    """

    @property
    def info(self) -> EngineInfo:
        """What measures, and a fingerprint of everything that may change a number."""
        ...

    def score(self, prompts: Sequence[Prompt]) -> Iterator[tuple[int, list[float]]]:
        """Log-probability (natural) of each token after the first, given those before it; length len(ids) - 1.

        Raises EngineDied where the engine broke, EngineRefused where it cannot serve an adapter.
        """
        ...

    def generate(self, prompts: Sequence[Prompt], max_tokens: int, stop: str | None) -> Iterator[tuple[int, Answer]]:
        """The greedy continuation of each prompt, up to `stop`, the end of the turn, or `max_tokens`."""
        ...

    def close(self) -> None: ...
