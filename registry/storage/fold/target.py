"""Where events go, and the one function that every event's change is registered with."""

from collections.abc import Callable
from functools import singledispatch
from typing import NamedTuple

import msgspec

from registry.events import AnyEvent, Entry
from registry.storage.working import WorkingSet


class Target(NamedTuple):
    """Where an event goes: the working set, the entry it is in, and how to load a blob of per-item rows.

    What comes often is inserted and updated through the working set, which tells the database of many events at once.
    `execute` of a statement is for the rest.
    """

    db: WorkingSet
    entry: Entry
    load_items: Callable[[str, str, int], None]


@singledispatch
def fold(event: AnyEvent, to: Target) -> None:
    raise TypeError(f"no fold for {type(event).__name__}")


def as_json(value: object) -> str:
    return msgspec.json.encode(value).decode()
