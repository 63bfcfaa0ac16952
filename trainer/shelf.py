"""The bases that a worker holds, by content: a name means another base on another machine.

Hashing a base takes a while, so a directory is hashed once, and again only where one of its files has changed.
"""

import contextlib
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path

from registry.client import InvalidRequest, describe_base

Signature = tuple[tuple[str, int, int, int], ...]


def digests_of(folders: Sequence[Path]) -> list[str]:
    """The digests of all bases in these directories, each of which may also be a base itself."""
    found = (_digest(one) for one in _candidates(folders))
    return list(dict.fromkeys(digest for digest in found if digest is not None))


def find_base(folders: Sequence[Path], digest: str, likely: str) -> Path | None:
    """The directory of the base with this digest, absolute. likely: the name of the one to look into first."""
    for one in sorted(_candidates(folders), key=lambda path: path.name != likely):
        if _digest(one) == digest:
            return one
    return None


def _candidates(folders: Sequence[Path]) -> Iterator[Path]:
    for folder in folders:
        if folder.is_dir():
            yield from [folder.resolve(), *sorted(folder.resolve().iterdir())]


def _digest(directory: Path) -> str | None:
    """None where it is no base, or none that can be read."""
    with contextlib.suppress(OSError):
        return _hashed(directory, _signature(directory)) if directory.is_dir() else None
    return None


def _signature(directory: Path) -> Signature:
    """What changes with the files of a directory; `ctime` too, which no copy sets back."""
    stats = ((one.name, one.stat()) for one in sorted(directory.iterdir()) if one.is_file())
    return tuple((name, stat.st_ino, stat.st_size, stat.st_ctime_ns) for name, stat in stats)


@lru_cache(maxsize=1024)
def _hashed(directory: Path, signature: Signature) -> str | None:
    try:
        return describe_base(directory).digest
    except InvalidRequest:
        return None
