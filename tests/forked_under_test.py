"""A registry in a forked process, and strace, which makes one of its system calls fail or be the last one.

Forking from a process that has everything imported costs milliseconds where starting Python costs a second, so a sweep
over every such call is affordable. strace counts each kind of call of each thread apart, so a point is met by its path.
"""

import contextlib
import multiprocessing
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from forked_work import Work
from server_under_test import PLAIN

from registry.settings import Home

# Whatever changes bytes on disk, makes them durable, or decides under which name they are found.
CALLS = "write pwrite64 fsync fdatasync rename renameat renameat2 link linkat unlink unlinkat ftruncate".split()
_SECONDS = 60
_forks = multiprocessing.get_context("forkserver")
_forks.set_forkserver_preload(["registry.api.app", "registry.api.server", "registry.opening", "uvloop", "httptools"])

needs_strace = pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed: `make packages`")


class Forked:
    """A function of `forked_work` in a process of its own; `go` lets it begin."""

    def __init__(self, work: Work, home: Home) -> None:
        self._pipe, theirs = _forks.Pipe()
        self.process: Any = _forks.Process(target=work, args=(home.root, theirs), daemon=True)
        self.process.start()
        self.pid: int = self.process.pid
        theirs.close()

    def go(self) -> None:
        self._pipe.send(True)

    def address(self) -> str:
        """Where it serves, once it does. EOFError: it ended before."""
        self.go()
        url = f"http://127.0.0.1:{self.said()}"
        with PLAIN(base_url=url) as http:
            assert http.get("/readyz").is_success
        return url

    def said(self) -> Any:
        """What it sends next. EOFError: it ended without."""
        assert self._pipe.poll(_SECONDS), "the process says nothing"
        return self._pipe.recv()

    def wait(self) -> int:
        """Its exit code; negative if a signal ended it."""
        self.process.join(_SECONDS)
        code: int | None = self.process.exitcode
        assert code is not None, "the process did not end"
        return code

    def kill(self) -> None:
        self.process.kill()
        self.wait()
        self.process.close()
        self._pipe.close()


@contextlib.contextmanager
def forked(work: Work, home: Home) -> Iterator[Forked]:
    """Killed at the end of the block, if it still runs."""
    found = Forked(work, home)
    try:
        yield found
    finally:
        found.kill()


class Point(NamedTuple):
    """The n-th call of a kind on a path that a thread makes. `path` is one in the home; `PID` stands for the pid."""

    call: str
    path: str
    nth: int


_LINE = re.compile(r"(\d+) +(\w+)\((.*)")


def points(log: Path, home: Home, pid: int) -> list[Point]:
    """The calls on files of the home that strace wrote down, in order."""
    met: Counter[tuple[str, str, str]] = Counter()
    found = []
    for line in log.read_text().splitlines():
        if (match := _LINE.match(line)) is None:
            continue
        thread, call, given = match.groups()
        named = (
            re.findall(r'"([^"]*)"', given) if "name" in call or "link" in call else re.findall(r"^\d+<(.*?)>", given)
        )
        if not named or not named[-1].startswith(f"{home.root}/"):
            continue
        path = named[-1].removeprefix(f"{home.root}/")
        met[thread, call, path] += 1
        found.append(Point(call, path.replace(str(pid), "PID"), met[thread, call, path]))
    return found


@contextlib.contextmanager
def traced(process: Forked, log: Path, *options: str) -> Iterator[None]:
    """Within the block strace writes down the CALLS of the process, and does to them what the options say."""
    command = ["strace", "-f", "-y", "-s", "0", "-o", str(log), *options, "-p", str(process.pid)]
    tracer = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert tracer.stderr is not None
    try:
        said = tracer.stderr.readline()
        if "attached" not in said:
            pytest.skip(f"strace cannot attach here: {said.strip()}")
        yield
    finally:
        tracer.terminate()
        tracer.wait(timeout=20)
        tracer.stderr.close()


def watched(process: Forked, log: Path) -> contextlib.AbstractContextManager[None]:
    return traced(process, log, "-e", "trace=" + ",".join(f"?{call}" for call in CALLS))


def injected(
    process: Forked, home: Home, point: Point, fault: str, log: Path
) -> contextlib.AbstractContextManager[None]:
    """Within the block the call at the point meets the fault: `signal=SIGKILL` or `error=EIO`."""
    path = home.root / point.path.replace("PID", str(process.pid))
    inject = f"inject={point.call}:{fault}:when={point.nth}"
    return traced(process, log, "-P", str(path), "-e", f"trace={point.call}", "-e", inject)


def struck(log: Path) -> bool:
    """Whether the fault came to pass."""
    return any("(INJECTED)" in line or "killed by SIGKILL" in line for line in log.read_text().splitlines())
