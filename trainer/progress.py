"""How training tells what it does, and how it is told to stop."""

from collections.abc import Callable
from typing import NamedTuple


class Stopped(Exception):
    """The run was asked to stop and did, with a checkpoint; running it again continues."""


class Reporter(NamedTuple):
    """Where a run says what it does: stages in words, and steps as (done, of, what is known so far).

    stop: whether it should end after the step that it is in.
    """

    stage: Callable[[str], None]
    step: Callable[[int, int, dict[str, float]], None]
    stop: Callable[[], bool] = lambda: False


class Progress(NamedTuple):
    """One step of a stage; `tokens` counts rows' own tokens, padding and shared prefixes excluded."""

    step: int
    steps: int
    loss: float
    tokens: int
    learning_rate: float


class Watch(NamedTuple):
    """What a stage of training calls after every step."""

    on_progress: Callable[[Progress], None]
    stop: Callable[[], bool] = lambda: False
