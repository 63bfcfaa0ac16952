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


class Unfit(EngineRefused):
    """What this worker has is not fit for the work, whosever job it is: another engine, another worker may do."""


class Prompt(NamedTuple):
    """Token ids for the base, or for the adapter in this directory (whose name must change with its content)."""

    ids: Sequence[int]
    adapter: Path | None


class Scores(NamedTuple):
    """A text's tokens after the first, each given those before it; both lists have length len(ids) - 1.

    logprobs: natural logarithms. greedy: whether no other token was likelier there.
    """

    logprobs: list[float]
    greedy: list[bool]


class Answer(NamedTuple):
    """A continuation, as text and as the ids that were generated. `finish` is "stop" or "length"."""

    text: str
    ids: list[int]
    finish: str


class Engine(Protocol):
    """A loaded model. Results come in the order in which they are ready, each with the index of its prompt.

    One call at a time, read to its end: an engine that was left in the middle of one is of no use and must be closed.
    EngineDied: it broke, and must be closed. EngineRefused: one of the adapters cannot be served, or one of the prompts
    is too long; nothing was asked, and the engine is as before. Unfit: the engine, not what was asked, is to blame.
    """

    @property
    def info(self) -> EngineInfo:
        """What measures, and a fingerprint of everything that may change a number."""
        ...

    def score(self, prompts: Sequence[Prompt]) -> Iterator[tuple[int, Scores]]:
        """Log-probability of each token after the first."""
        ...

    def generate(
        self, prompts: Sequence[Prompt], max_tokens: int, stops: Sequence[str] = ()
    ) -> Iterator[tuple[int, Answer]]:
        """The greedy continuation of each prompt, up to one of `stops`, the end of the turn, or `max_tokens`."""
        ...

    def sample(self, prompts: Sequence[Prompt], max_tokens: int, seed: int) -> Iterator[tuple[int, Answer]]:
        """A continuation of each prompt drawn from the model's own distribution (temperature 1, nothing cut off).

        Prompt i is drawn with `seed` + i.
        """
        ...

    def choose(self, prompts: Sequence[Prompt], options: Sequence[int]) -> Iterator[tuple[int, list[float]]]:
        """Log-probability of each of the token ids `options` (at most 26) as the next token of each prompt."""
        ...

    def close(self) -> None: ...
