"""A real `tunegate serve` over a home, for the time of a block."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from registry.client import Client
from registry.settings import Home

_START_SECONDS = 120


class Server(NamedTuple):
    """A running `tunegate serve`. ready_seconds: from the start of the process to its first yes."""

    url: str
    pid: int
    ready_seconds: float


@contextmanager
def served(home: Home) -> Iterator[Server]:
    """Raises RuntimeError with what the server said where it does not start."""
    log = home.root.with_suffix(".log")
    began = time.monotonic()
    with log.open("w") as output:
        command = [sys.executable, "-m", "registry", "serve", "--port", "0"]
        server = subprocess.Popen(command, env=environment(home), stdout=output, stderr=subprocess.STDOUT)
    try:
        deadline = began + _START_SECONDS
        while not (found := re.search(r"at (http://\S+?)/?\s", log.read_text())):
            if time.monotonic() > deadline or server.poll() is not None:
                raise RuntimeError(f"the server did not start: {log.read_text()}")
            time.sleep(0.02)
        with Client(found[1]) as client:
            while not client.ready() and time.monotonic() < deadline:
                time.sleep(0.02)
        yield Server(found[1], server.pid, time.monotonic() - began)
    finally:
        server.terminate()
        server.wait(timeout=60)


def environment(home: Home) -> dict[str, str]:
    return {**os.environ, "TUNEGATE_HOME": str(home.root)}
