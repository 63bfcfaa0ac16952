"""The directory that a run of the registry lives in, on the machine that trains it, and what lies in it.

The worker writes the order and reads what is told and how it ended; the trainer, a process of its own, does the other
half. Both sides go on after either was killed: the order names the attempt, and a trainer of an older one stops.

    recipe.toml  data.jsonl  replay.jsonl  pairs.jsonl  order.json  told-2.jsonl  log-2.txt  ended-2.json  lock
    NAME-DIGEST/
"""

import os
from pathlib import Path, PurePosixPath
from typing import Literal, NamedTuple, TypeVar

import msgspec

from registry.records import StepProgress, TrainingError

T = TypeVar("T")
# What a file of data may be by its suffix; a recipe may name anything.
_SUFFIXES = (".jsonl", ".json", ".csv", ".tsv", ".parquet")


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """What the trainer is to do: attempt number `fence` on this base, until it is told to stop.

    saved: the steps whose checkpoints the registry knows of.
    """

    fence: int
    base: str
    saved: tuple[int, ...] = ()
    stop: bool = False


class Told(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that the trainer says; a line of the file that the worker reads on as it grows."""

    message: str
    level: Literal["info", "warn", "error"] = "info"
    step: StepProgress | None = None


class Ended(msgspec.Struct, frozen=True, kw_only=True):
    """How an attempt ended: with an adapter in `directory`, stopped as ordered, or with an error.

    retry: whether the same may go well another time.
    """

    directory: str | None = None
    stopped: bool = False
    error: TrainingError | None = None
    retry: bool = False


class Workspace(NamedTuple):
    root: Path

    @property
    def recipe(self) -> Path:
        return self.root / "recipe.toml"

    @property
    def replay(self) -> Path:
        return self.root / "replay.jsonl"

    @property
    def order(self) -> Path:
        return self.root / "order.json"

    @property
    def lock(self) -> Path:
        return self.root / "lock"

    def pairs(self, named: str) -> Path:
        """Where preference pairs lie; `named` as in `data`."""
        return self.data(named).with_stem("pairs")

    def data(self, named: str) -> Path:
        """Where the data lie; `named`: the file that the recipe names, whose suffix says what it is.

        >>> Workspace(Path("r")).data("d.CSV").name, Workspace(Path("r")).data("d.\\0").name
        ('data.csv', 'data')
        """
        suffix = PurePosixPath(named).suffix.lower()
        return self.root / f"data{suffix if suffix in _SUFFIXES else ''}"

    def told(self, fence: int) -> Path:
        return self.root / f"told-{fence}.jsonl"

    def log(self, fence: int) -> Path:
        return self.root / f"log-{fence}.txt"

    def ended(self, fence: int) -> Path:
        return self.root / f"ended-{fence}.json"


def write_whole(path: Path, value: msgspec.Struct) -> None:
    """Put a file in place in one step: whoever finds it finds all of it."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    partial.write_bytes(msgspec.json.encode(value))
    partial.replace(path)


def read_whole(path: Path, kind: type[T]) -> T | None:
    """What `write_whole` wrote; None where there is no such file."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except FileNotFoundError:
        return None
