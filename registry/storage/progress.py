"""What workers tell of training runs: losses, speeds, words, the trainer's log. Bounded files, a pair for each run.

None of it is in the journal, because no decision rests on it and a run tells something every second. Losing the tail
of a file in a crash, or all of it, loses curves and nothing else. A line is told once: a worker numbers what it tells
within its claim, and what comes again is known by its number.
"""

import contextlib
import errno
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from registry.errors import StorageFull
from registry.records import ProgressNote, StepProgress

_MOST_BYTES = 4 * 1024 * 1024
_MOST_LOG_BYTES = 1024 * 1024
_TAIL_BYTES = 32 * 1024  # a note has at most some 17 KB of JSON


class ToldLine(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One note as it is stored: under the journal entry of the claim that its worker held, when it came."""

    claim: int
    number: int
    at: str
    message: str
    level: str = "info"
    step: StepProgress | None = None


class Place(NamedTuple):
    """Where a line stands among all that was told of a run."""

    claim: int
    number: int


BEGINNING = Place(0, 0)


class _Log(NamedTuple):
    claim: int
    received: int


_decoder = msgspec.json.Decoder(ToldLine)


class ProgressFiles:
    """Thread-safe. Without a folder nothing is kept."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._last: dict[str, Place] = {}
        self._logs: dict[str, _Log] = {}
        self._changes: dict[str, int] = {}

    def append(self, run: str, claim: int, at: str, notes: Sequence[ProgressNote]) -> None:
        """Keep what is new. Raises StorageFull where the disk is."""
        if self._folder is None:
            return
        with self._lock:
            last = self._last_place(run)
            new = [note for note in notes if Place(claim, note.number) > last]
            if not new:
                return
            lines = [
                ToldLine(claim=claim, number=note.number, at=at, message=note.message, level=note.level, step=note.step)
                for note in new
            ]
            path = self._notes(run)
            # A line that a crash cut short must not take the next one along.
            data = b"\n" if self._is_torn(run) else b""
            _append(path, data + b"".join(msgspec.json.encode(line) + b"\n" for line in lines))
            self._last[run] = Place(claim, new[-1].number)
            self._changes[run] = self._changes.get(run, 0) + 1
            _shorten(path, _MOST_BYTES, lambda kept: b"".join(_thinned(kept.splitlines(keepends=True))))

    def append_log(self, run: str, claim: int, text: str, start: int) -> None:
        """Keep the trainer's output from byte `start` of what it printed in this claim. Raises StorageFull."""
        if self._folder is None or not text:
            return
        with self._lock:
            data, known = text.encode(), self._logs.get(run)
            received = known.received if known and known.claim == claim else start
            new = data[max(0, received - start) :]
            if not new:
                return
            path = self._log(run)
            _append(path, new)
            self._logs[run] = _Log(claim, start + len(data))
            _shorten(path, _MOST_LOG_BYTES, lambda kept: kept[-_MOST_LOG_BYTES // 2 :])

    def lines(self, run: str, after: Place = BEGINNING) -> list[ToldLine]:
        """What was told behind a place, oldest first. A line that a crash cut short is left out."""
        try:
            data = self._notes(run).read_bytes() if self._folder else b""
        except OSError:
            return []
        found = (_decoded(line) for line in data.splitlines())
        return [line for line in found if line and Place(line.claim, line.number) > after]

    def latest(self, run: str) -> StepProgress | None:
        """The last step that was told."""
        found = (_decoded(line) for line in reversed(self._tail(run)))
        return next((line.step for line in found if line and line.step and not line.step.checkpoint), None)

    def log(self, run: str) -> str:
        """The end of what the trainer printed."""
        try:
            return self._log(run).read_bytes().decode(errors="replace") if self._folder else ""
        except OSError:
            return ""

    def changes(self, run: str) -> int:
        """A number that is another one once more was told."""
        return self._changes.get(run, 0)

    def _is_torn(self, run: str) -> bool:
        return run not in self._changes and not self._end(run).endswith(b"\n")

    def _last_place(self, run: str) -> Place:
        if run not in self._last:
            found = (_decoded(line) for line in reversed(self._tail(run)))
            self._last[run] = next((Place(line.claim, line.number) for line in found if line), BEGINNING)
        return self._last[run]

    def _tail(self, run: str) -> list[bytes]:
        return self._end(run).splitlines()

    def _end(self, run: str) -> bytes:
        if self._folder is None:
            return b""
        try:
            with self._notes(run).open("rb") as file:
                file.seek(max(0, os.fstat(file.fileno()).st_size - _TAIL_BYTES))
                return file.read(_TAIL_BYTES)
        except OSError:
            return b""

    def _notes(self, run: str) -> Path:
        assert self._folder is not None
        return self._folder / f"{run}.jsonl"

    def _log(self, run: str) -> Path:
        assert self._folder is not None
        return self._folder / f"{run}.log"


def _thinned(lines: Sequence[bytes]) -> list[bytes]:
    """Every second step and all words; where that is still too much, the newest half of what may be kept."""
    kept, steps = [], 0
    for line in lines:
        is_step = b'"step":{' in line and b'"checkpoint":true' not in line
        steps += is_step
        if not is_step or steps % 2 == 0 or line is lines[-1]:
            kept.append(line)
    while sum(map(len, kept)) > _MOST_BYTES * 3 // 4:
        kept = kept[len(kept) // 4 + 1 :]
    return kept


def _decoded(line: bytes) -> ToldLine | None:
    try:
        return _decoder.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def _append(path: Path, data: bytes) -> None:
    """All of it or nothing. Not synced: what a crash of the machine takes is a curve's last seconds."""
    with _telling():
        path.parent.mkdir(mode=0o700, exist_ok=True)
        with path.open("ab", buffering=0) as file:
            size = os.fstat(file.fileno()).st_size
            try:
                if (written := file.write(data)) != len(data):
                    raise OSError(errno.ENOSPC, f"{written} of {len(data)} bytes were written")
            except OSError:
                # Half a line would take the next one along.
                with contextlib.suppress(OSError):
                    file.truncate(size)
                raise


def _shorten(path: Path, most: int, shortened: Callable[[bytes], bytes]) -> None:
    """Replace a file that has more bytes than it may."""
    with _telling():
        if path.stat().st_size <= most:
            return
        fresh = path.with_name(f"{path.name}.new")
        fresh.write_bytes(shortened(path.read_bytes()))
        os.replace(fresh, path)


@contextlib.contextmanager
def _telling() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StorageFull(f"the progress of a run cannot be kept: {error.strerror}; free some space") from None
