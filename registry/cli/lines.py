"""Progress of long work: a bar on a terminal, a plain line now and then everywhere else."""

import contextlib
import time
from collections.abc import Iterator

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

_LINE_SECONDS = 20.0


class Follower:
    """Shows stages and steps. `step` gives what is done, of how much, and any numbers worth showing."""

    def __init__(self, console: Console, title: str, progress: Progress | None) -> None:
        self._console, self._title, self._progress = console, title, progress
        self._task: TaskID | None = None
        self._before: int | None = None
        self._stage, self._started, self._last_line = "", time.monotonic(), 0.0

    def stage(self, text: str) -> None:
        """A new stage begins."""
        self._finish()
        self._stage, self._started, self._last_line = text, time.monotonic(), time.monotonic()
        self._before = None
        if self._progress is None:
            self._console.print(f"{self._title}: {text}")
        else:
            self._task = self._progress.add_task(text, total=None, numbers="")

    def step(self, done: int, total: int, numbers: dict[str, float]) -> None:
        """Some of the present stage is done."""
        shown = "  ".join(f"{name} {value:.4g}" for name, value in numbers.items())
        if self._progress is not None and self._task is not None:
            self._progress.update(self._task, completed=done, total=total, numbers=shown)
            return
        now = time.monotonic()
        if self._before is None:
            self._before = done - 1  # what an earlier run had done says nothing about this one's speed
        if now - self._last_line < _LINE_SECONDS and done < total:
            return
        self._last_line = now
        left = (now - self._started) / max(1, done - self._before) * (total - done)
        self._console.print(f"  {self._stage}: {done}/{total}  {shown}  {left:.0f} s left")

    def _finish(self) -> None:
        if self._progress is not None and self._task is not None:
            total = self._progress.tasks[-1].total or 1
            self._progress.update(self._task, total=total, completed=total)
            self._progress.stop_task(self._task)


@contextlib.contextmanager
def follow(console: Console, title: str) -> Iterator[Follower]:
    """A follower for the time of one piece of work."""
    if not console.is_terminal:
        yield Follower(console, title, None)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        TextColumn("{task.fields[numbers]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as progress:
        follower = Follower(console, title, progress)
        yield follower
        follower._finish()
