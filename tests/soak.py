"""How far the fault tests go: a sample in `make test`; every point and hundreds of rounds in `make soak`."""

import os
from typing import TypeVar

T = TypeVar("T")
SOAK = os.environ.get("TUNEGATE_SOAK") == "1"


def amount(sample: T, whole: T) -> T:
    """The sample, or the whole of it where TUNEGATE_SOAK=1."""
    return whole if SOAK else sample
