"""`tunegate serve` in a process of its own, which a test may kill."""

import contextlib
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import httpx

from registry.settings import Home

START_SECONDS = 60
# One client for plain requests: each `httpx.get` would load the system's certificates anew.
PLAIN = partial(httpx.Client, verify=False, timeout=30)


class Server:
    """before: words in front of the command, such as `nsenter -t 7 -m`; environment: variables besides the home."""

    def __init__(
        self,
        home: Home,
        before: Sequence[str] = (),
        environment: Mapping[str, str] = {},
        log: Path | None = None,
    ) -> None:
        self.log = log or home.root.with_name("serve.log")
        self.output = self.log.open("wb")
        self.process = subprocess.Popen(
            [*before, sys.executable, "-m", "registry", "serve", "--port", "0"],
            env={**os.environ, "TUNEGATE_HOME": str(home.root), **environment},
            stdout=self.output,
            stderr=subprocess.STDOUT,
        )

    def address(self) -> str:
        deadline = time.monotonic() + START_SECONDS
        with PLAIN() as http:
            while time.monotonic() < deadline and self.process.poll() is None:
                if found := re.search(rb"at (http://127\.0\.0\.1:\d+)/", self.log.read_bytes()):
                    url = found[1].decode()
                    with contextlib.suppress(httpx.TransportError):
                        if http.get(f"{url}/readyz").status_code == 200:
                            return url
                time.sleep(0.02)
        raise AssertionError(f"the server did not start: {self.log.read_text()[-2000:]}")

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(timeout=20)
        self.output.close()

    def stop(self) -> int:
        self.process.terminate()
        try:
            return self.process.wait(timeout=30)
        finally:
            self.kill()


@contextlib.contextmanager
def served(home: Home) -> Iterator[str]:
    """Killed, not stopped, at the end of the block."""
    server = Server(home)
    try:
        yield server.address()
    finally:
        server.kill()
