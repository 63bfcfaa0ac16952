"""Fixtures: real DuckDB, real files, a real server on loopback."""

import socket
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import uvicorn

sys.path.insert(0, str(Path(__file__).parent))

from site_under_test import Site

from registry.api.app import create_app
from registry.opening import open_registry
from registry.settings import Home


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


@pytest.fixture
def site(home: Home) -> Iterator[Site]:
    """A registry served by uvicorn on 127.0.0.1, with a token for every role."""
    registry, _ = open_registry(home)
    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(create_app(registry), log_config=None, lifespan="on", timeout_graceful_shutdown=2)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=lambda: server.run(sockets=[listener]), daemon=True)
    thread.start()
    deadline = time.monotonic() + 20
    while not server.started and time.monotonic() < deadline:
        time.sleep(0.01)
    with Site(home, registry, f"http://127.0.0.1:{listener.getsockname()[1]}") as found:
        yield found
    server.should_exit = True
    thread.join(timeout=20)
    listener.close()
    assert not thread.is_alive()
