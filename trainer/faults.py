"""Why a run failed, in one stable code each, and who can mend it. Pure."""

import errno
import math
from collections.abc import Iterable, Mapping
from typing import Literal, NamedTuple

from registry.client import InvalidRequest
from registry.records import FaultKind, TrainingError

UserCode = Literal["recipe_invalid", "input_invalid", "diverged", "version_refused"]
SystemCode = Literal[
    "base_missing",
    "out_of_memory",
    "out_of_disk",
    "killed",
    "crashed",
    "cannot_launch",
    "busy",
    "stopped",
    "worker_stopped",
    "registry_failed",
]

_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_DISK_WORDS = ("No space left on device", "Disk quota exceeded", "File too large")
_MEMORY_WORDS = ("can't allocate memory", "Cannot allocate memory", "out of memory")
_SIGKILL = 9
NO_ROOM_FOR_A_WORD = 74  # EX_IOERR: the exit code of a trainer that cannot even write how it ended


class Diverged(InvalidRequest):
    """The loss, or what was measured, is not a number any more."""


def require_finite(numbers: Mapping[str, float], names: Iterable[str], step: int) -> None:
    """Raises Diverged for a number that is none: what comes of such a run is no adapter."""
    for name in names:
        if not math.isfinite(numbers[name]):
            raise Diverged(
                f"the {name} of step {step} is {numbers[name]}; lower training.learning_rate, or look at the data"
            )


class Busy(Exception):
    """The trainer of an older attempt is still there."""


class Fault(NamedTuple):
    """retry: whether the same may go well another time."""

    error: TrainingError
    retry: bool = False


def user_error(code: UserCode, message: str) -> Fault:
    return Fault(TrainingError(kind=FaultKind.USER_ERROR, code=code, message=message[:4000]))


def system_error(code: SystemCode, message: str, *, retry: bool = False) -> Fault:
    return Fault(TrainingError(kind=FaultKind.SYSTEM_ERROR, code=code, message=message[:4000]), retry)


def fault_of(error: BaseException, invalid: UserCode) -> Fault:
    """The fault behind an exception of the trainer. invalid: the code of input that cannot be trained on."""
    text = str(error)
    if isinstance(error, InvalidRequest):
        return user_error("diverged" if isinstance(error, Diverged) else invalid, text)
    if isinstance(error, Busy):
        return system_error("busy", text, retry=True)
    # torch, safetensors and pyarrow wrap what the system says in errors of their own.
    if (isinstance(error, OSError) and error.errno in _DISK) or any(word in text for word in _DISK_WORDS):
        return system_error("out_of_disk", f"no space is left for the run: {text}; free some and resume the run")
    is_memory = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    if is_memory or any(word in text for word in _MEMORY_WORDS):
        remedy = "lower training.batch_size (and raise training.accumulate), or resume the run on a larger machine"
        return system_error("out_of_memory", f"memory ran out: {text[:500]}; {remedy}")
    return system_error("crashed", f"{type(error).__name__}: {text}; the run's log says where")


def fault_of_exit(code: int | None, reason: str, log_tail: str) -> Fault:
    """The fault of a trainer that ended without a word. code: negative for a signal, as subprocess has it."""
    if code == -_SIGKILL or code == 128 + _SIGKILL:
        return system_error(
            "killed",
            "the trainer was killed (signal 9), as the kernel does where memory runs out; lower training.batch_size or "
            "free memory, and resume the run: it continues from its last checkpoint",
        )
    if code == NO_ROOM_FOR_A_WORD:
        return system_error("out_of_disk", "no space is left for the run; free some and resume the run")
    last = f"; it last said: {log_tail[-1500:]}" if log_tail else ""
    return system_error("crashed", f"the trainer ended without a result ({reason}){last}")
