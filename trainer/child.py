"""The process that trains one attempt of a registry's run: `python -m trainer.child DIRECTORY FENCE`.

It tells what it does in a file, stops after a step when the order says so (or names another attempt), and leaves a
word on how it ended. What it prints is the run's log.
"""

import contextlib
import ctypes
import fcntl
import os
import resource
import signal
import sys
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import msgspec

from registry.records import FaultKind, StepProgress
from trainer.faults import NO_ROOM_FOR_A_WORD, Busy, fault_of
from trainer.launchers import PARENT
from trainer.recipe import read_recipe
from trainer.run import Given, Reporter, Stopped, plan_run, run
from trainer.saved import Shelf
from trainer.workspace import Ended, Order, Told, Workspace, read_whole, write_whole

_PR_SET_PDEATHSIG = 1
_LOCK_SECONDS = 300.0
_PROBE_BYTES = 1024 * 1024


def main(arguments: list[str]) -> None:
    place, fence = Workspace(Path(arguments[0])), int(arguments[1])
    if parent := os.environ.get(PARENT):
        _end_with(int(parent))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core of a trainer is as large as its memory
    ended = Ended(stopped=True)
    try:
        with place.told(fence).open("ab", buffering=0) as told, _alone(place):
            ended = _train(place, fence, told)
    except Stopped:
        pass
    except BaseException as error:
        fault = fault_of(error, "input_invalid")
        with contextlib.suppress(OSError):  # of a disk that is full
            # Where recipe or data are to be mended, the words say how, and our own lines say nothing.
            traceback.print_exception(error, limit=0 if fault.error.kind is FaultKind.USER_ERROR else None)
        # torch says of a full disk that a file "has an unexpected position".
        if fault.error.code == "crashed" and (full := _disk_fault(place)) is not None:
            fault = fault_of(full, "input_invalid")
        ended = Ended(error=fault.error, retry=fault.retry)
    try:
        write_whole(place.ended(fence), ended)
    except OSError:
        sys.exit(NO_ROOM_FOR_A_WORD)


def _train(place: Workspace, fence: int, told: BinaryIO) -> Ended:
    order = read_whole(place.order, Order)
    if order is None or order.fence != fence or order.stop:
        return Ended(stopped=True)
    recipe, text = read_recipe(place.recipe)
    given = Given(place.data(recipe.data), place.replay, place.pairs(recipe.dpo.pairs if recipe.dpo else ""))
    plan = plan_run(recipe, text, place.root, Path(order.base), place.root, given)
    teller = _Teller(told, place, fence, Shelf(plan.directory, order.saved))
    try:
        run(plan, Reporter(teller.stage, teller.step, teller.is_to_stop))
    finally:
        with contextlib.suppress(OSError):  # of a disk that is full: it must not hide why the run ended
            teller.checkpoints()
    return Ended(directory=str(plan.directory))


class _Teller:
    """Writes what the run reports, a line each, and reads whether it is to stop."""

    def __init__(self, told: BinaryIO, place: Workspace, fence: int, shelf: Shelf) -> None:
        self._told, self._place, self._fence, self._shelf = told, place, fence, shelf
        self._steps = 0
        self._stage, self._began, self._first = "", time.monotonic(), 0

    def stage(self, text: str) -> None:
        self.checkpoints()
        self._stage, self._began, self._first = text, time.monotonic(), 0
        self._tell(Told(message=text))

    def step(self, done: int, of: int, numbers: dict[str, float]) -> None:
        loss, self._first, self._steps = numbers.get("loss"), self._first or done, of
        self.checkpoints()
        # What an earlier attempt had done says nothing about this one's speed.
        pace = (time.monotonic() - self._began) / (done - self._first + 1)
        step = StepProgress(
            step=done,
            steps=of,
            loss=loss,
            learning_rate=numbers.get("lr"),
            tokens_per_second=numbers.get("tokens/s"),
            memory_bytes=_memory_bytes(),
            seconds_left=round(pace * (of - done), 1),
        )
        self._tell(Told(message=self._stage, step=step))

    def checkpoints(self) -> None:
        """Those since the last time: a checkpoint is told with the step behind it, or with the end of an attempt.

        The last step's is the adapter.
        """
        for one in self._shelf.new():
            loss = "" if one.validation_loss is None else f", validation loss {one.validation_loss:.4f}"
            step = StepProgress(
                step=one.step,
                steps=max(self._steps, one.step),
                loss=one.loss,
                validation_loss=one.validation_loss,
                checkpoint=True,
            )
            self._tell(Told(message=f"saved step {one.step}{loss}", step=step))

    def is_to_stop(self) -> bool:
        order = read_whole(self._place.order, Order)
        return order is None or order.fence != self._fence or order.stop

    def _tell(self, told: Told) -> None:
        self._told.write(msgspec.json.encode(told) + b"\n")


@contextlib.contextmanager
def _alone(place: Workspace) -> Iterator[None]:
    """One trainer in a workspace at a time: that of an older attempt ends after the step that it is in."""
    with place.lock.open("w") as lock:
        deadline = time.monotonic() + _LOCK_SECONDS
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise Busy(f"the trainer of an older attempt still works in {place.root}") from None
                time.sleep(0.1)
        yield


def _disk_fault(place: Workspace) -> OSError | None:
    """What the system says to a file of the size of a small checkpoint."""
    probe = place.root / ".probe"
    try:
        probe.write_bytes(bytes(_PROBE_BYTES))
    except OSError as error:
        return error
    finally:
        probe.unlink(missing_ok=True)
    return None


def _memory_bytes() -> int:
    """The most that this process has taken: of a GPU's memory where there is one, otherwise of the machine's."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _end_with(parent: int) -> None:
    """Where the worker is killed, its trainer must not go on alone: the next worker continues the run."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        sys.exit(1)


if __name__ == "__main__":
    main(sys.argv[1:])
