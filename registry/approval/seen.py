"""The highest counter that was ever seen of each alias: what an older answer is recognised by.

A file of our own beside what was pulled, `{"support-bot@approved": 7}`. Its numbers only rise.
"""

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from registry.approval.dsse import read_json
from registry.storage.files import write_durably


def read_seen(path: Path) -> dict[str, int]:
    """What was seen; nothing where there is no file yet. Raises ValueError for a file that is not one of these."""
    try:
        found = read_json(path.read_bytes())
    except FileNotFoundError:
        return {}
    except ValueError:
        found = None
    if not isinstance(found, dict) or not all(type(counter) is int for counter in found.values()):
        raise ValueError(f"{path} does not hold what was seen; restore it, or remove it to begin anew")
    return found


def remember(path: Path, seen: Mapping[str, int]) -> None:
    """Add what was seen now; a lower number than the known one changes nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with _alone(path):
        known = read_seen(path)
        merged = {name: max(counter, known.get(name, 0)) for name, counter in {**known, **seen}.items()}
        if merged != known:
            write_durably(path, json.dumps(merged, indent=1, sort_keys=True).encode() + b"\n", mode=0o644)


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    """One process at a time reads and writes, so that two pulls do not forget each other's."""
    fd = os.open(path.with_name(f".{path.name}.lock"), os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)
