"""Where a trainer's process runs: beside its worker, or on a Ray cluster. The registry alone knows what runs are about.

A launcher starts, watches and stops; it decides nothing and remembers nothing. Its ids are the registry's (a run and
its attempt), so that the same start twice is one process.
"""

import contextlib
import os
import resource
import shlex
import signal
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol

_STOP_SECONDS, _SILENCE_SECONDS = 60.0, 120.0
PARENT = "TUNEGATE_PARENT"


class Task(NamedTuple):
    """One attempt of one run. `command` finds its files at the same paths wherever it runs; what it prints goes to
    `log`."""

    run: str
    attempt: int
    command: tuple[str, ...]
    directory: Path
    log: Path
    environment: Mapping[str, str] = {}

    @property
    def id(self) -> str:
        return f"tunegate-{self.run}-{self.attempt}"


class Stage(NamedTuple):
    """`waiting` for a place, `running`, or `ended`: with an exit code (negative for a signal), if that is known."""

    name: str
    code: int | None = None
    reason: str = ""

    @property
    def over(self) -> bool:
        return self.name == "ended"


class CannotLaunch(Exception):
    """The process could not be started, and would not be if it were tried again."""


class Launcher(Protocol):
    def start(self, task: Task) -> None:
        """Start a task; one that was started already goes on as it is. Raises CannotLaunch."""
        ...

    def stage(self, task: Task) -> Stage: ...

    def stop(self, task: Task) -> None:
        """End it at once; returns when it is over, and does nothing to what is."""
        ...


class LocalLauncher:
    """A process of this machine, in a process group of its own, which ends with this process.

    memory_bytes: address space that it may take; None: any.
    """

    def __init__(self, memory_bytes: int | None = None) -> None:
        self._memory_bytes = memory_bytes
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        # Once a process was reaped its number may be another's: nothing but how it ended is kept.
        self._ended: dict[str, Stage] = {}

    def start(self, task: Task) -> None:
        if task.id in self._processes or task.id in self._ended:
            return
        try:
            with task.log.open("ab") as log:
                process = subprocess.Popen(
                    task.command,
                    cwd=task.directory,
                    # Its parent's number: where that dies first, the trainer ends itself.
                    env={**os.environ, **task.environment, PARENT: str(os.getpid())},
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
        except OSError as error:
            raise CannotLaunch(f"{task.command[0]} cannot be started: {error.strerror}") from None
        self._processes[task.id] = process
        if self._memory_bytes is not None:
            # Not in the child before it execs: this process has threads, and Python would run between them.
            with contextlib.suppress(ProcessLookupError):
                resource.prlimit(process.pid, resource.RLIMIT_AS, (self._memory_bytes, self._memory_bytes))

    def stage(self, task: Task) -> Stage:
        process = self._processes.get(task.id)
        if process is None:
            return self._ended.get(task.id, Stage("ended", None, "was never started here"))
        code = process.poll()
        if code is None:
            return Stage("running")
        self._end_group(process)  # what it left behind
        return self._forget(task, code)

    def stop(self, task: Task) -> None:
        if process := self._processes.get(task.id):
            self._end_group(process)
            self._forget(task, process.wait(timeout=_STOP_SECONDS))

    def _forget(self, task: Task, code: int) -> Stage:
        stage = Stage("ended", code, f"exit code {code}" if code >= 0 else f"signal {-code}")
        self._ended[task.id] = stage
        del self._processes[task.id]
        return stage

    def _end_group(self, process: "subprocess.Popen[bytes]") -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)


class RayLauncher:
    """A job of a Ray cluster. Worker and cluster share the file system that runs lie in.

    cpus, gpus: what the job reserves; Ray lets it wait until they are free.
    """

    def __init__(self, address: str, *, cpus: float = 1, gpus: float = 0) -> None:
        try:
            from ray.exceptions import RayError
            from ray.job_submission import JobSubmissionClient
        except ModuleNotFoundError:
            raise CannotLaunch("ray is not installed; pip install 'tunegate[ray]'") from None
        try:
            self._client: Any = JobSubmissionClient(address)
        except (RayError, RuntimeError, ConnectionError) as error:
            raise CannotLaunch(f"no Ray cluster answers at {address}: {_last_line(error)}") from None
        self._cpus, self._gpus = cpus, gpus
        self._silent_since: float | None = None

    def start(self, task: Task) -> None:
        deadline = time.monotonic() + _SILENCE_SECONDS
        while True:
            try:
                self._end_older(task)
                self._submit(task)
                return
            except (RuntimeError, OSError) as error:
                # A head has no agent to take jobs for its first seconds, and none that answers while it is busy: 500.
                refused = isinstance(error, RuntimeError) and "status code 500" not in str(error)
                if refused or time.monotonic() > deadline:
                    raise CannotLaunch(f"Ray does not take the job: {_last_line(error)}") from None
                time.sleep(1.0)

    def _submit(self, task: Task) -> None:
        try:
            self._client.submit_job(
                entrypoint=f"cd {shlex.quote(str(task.directory))} && exec {shlex.join(task.command)} "
                f">> {shlex.quote(str(task.log))} 2>&1",
                submission_id=task.id,
                metadata={"tunegate_run": task.run},
                runtime_env={"env_vars": dict(task.environment)},
                entrypoint_num_cpus=self._cpus,
                entrypoint_num_gpus=self._gpus,
            )
        except RuntimeError as error:
            # Ray refuses an id that it has, by a server's error like any other: this very attempt was submitted before.
            if "already exists" not in str(error):
                raise

    def stage(self, task: Task) -> Stage:
        try:
            info, self._silent_since = self._status(task.id), None
        except (RuntimeError, OSError) as error:
            # A head that is busy or being replaced says nothing of the job.
            self._silent_since = self._silent_since or time.monotonic()
            if time.monotonic() - self._silent_since < _SILENCE_SECONDS:
                return Stage("running")
            return Stage("ended", None, f"Ray does not answer any more: {_last_line(error)}")
        if info is None:
            return Stage("ended", None, "Ray does not know the job; its head was started anew")
        if not info.status.is_terminal():
            return Stage("waiting" if info.status == "PENDING" else "running")
        return Stage("ended", info.driver_exit_code, f"{info.status}: {info.message or ''}".strip(": "))

    def stop(self, task: Task) -> None:
        # Where Ray does not answer, the order that the trainer reads after each step ends it too.
        with contextlib.suppress(RuntimeError, OSError):
            self._stop(task.id)

    def _end_older(self, task: Task) -> None:
        """Jobs outlive their worker here: that of an older attempt must not train beside this one."""
        for job in self._client.list_jobs():
            mine = (job.metadata or {}).get("tunegate_run") == task.run
            if mine and job.submission_id != task.id and not job.status.is_terminal():
                self._stop(job.submission_id)

    def _stop(self, id_: str) -> None:
        info = self._status(id_)
        if info is None or info.status.is_terminal():
            return
        self._client.stop_job(id_)
        deadline = time.monotonic() + _STOP_SECONDS
        while (info := self._status(id_)) and not info.status.is_terminal() and time.monotonic() < deadline:
            time.sleep(0.2)

    def _status(self, id_: str) -> Any:
        try:
            return self._client.get_job_info(id_)
        except RuntimeError as error:
            if "does not exist" in str(error) or "404" in str(error):
                return None
            raise


def _last_line(error: Exception) -> str:
    """What Ray says, without the traceback of its server that comes before it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip(" .")]
    return lines[-1] if lines else type(error).__name__
