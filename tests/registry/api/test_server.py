"""How the service ends: asked to, with and without draining, and by itself when storage failed."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest
from registry_under_test import bench_in

from registry.api.app import create_app
from registry.api.server import Server
from registry.settings import Home


def served(home: Path, *options: str) -> tuple[subprocess.Popen[str], str]:
    environment = {**os.environ, "TUNEGATE_HOME": str(home), "COLUMNS": "300"}
    process = subprocess.Popen(
        [sys.executable, "-m", "registry", "serve", "--port", "0", *options],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    for _ in range(50):
        line = process.stdout.readline()
        if " at http://" in line:
            return process, line.split(" at ")[1].strip().rstrip("/")
    process.kill()
    raise AssertionError("the service did not say where it listens")


def ready(url: str, wanted: int) -> bool:
    for _ in range(200):
        try:
            if httpx.get(f"{url}/readyz").status_code == wanted:
                return True
        except httpx.TransportError:
            pass
        time.sleep(0.05)
    return False


@pytest.mark.slow
def test_sigterm_ends_it_with_success(tmp_path: Path) -> None:
    process, url = served(tmp_path / "home")
    assert ready(url, 200)
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=30)
    assert process.returncode == 0, out
    assert "Traceback" not in out


@pytest.mark.slow
def test_while_it_drains_it_serves_and_says_that_it_is_not_ready(tmp_path: Path) -> None:
    process, url = served(tmp_path / "home", "--drain-seconds", "2")
    assert ready(url, 200)
    process.send_signal(signal.SIGTERM)
    assert ready(url, 503)
    assert httpx.get(f"{url}/healthz").status_code == 200
    out, _ = process.communicate(timeout=30)
    assert process.returncode == 0, out


def test_it_ends_by_itself_when_storage_failed(tmp_path: Path) -> None:
    with bench_in(tmp_path) as bench:
        registry = bench.registry
        server = Server(create_app(registry), registry)
        assert not asyncio.run(server.on_tick(1))
        registry._damage = "the disk is gone"
        assert asyncio.run(server.on_tick(2))


def test_a_setting_that_is_wrong_is_told_before_anything_starts(tmp_path: Path) -> None:
    environment = {**os.environ, "TUNEGATE_HOME": str(tmp_path / "home"), "TUNEGATE_LOG": "xml"}
    done = subprocess.run(
        [sys.executable, "-m", "registry", "serve", "--port", "0"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 3 and "TUNEGATE_LOG" in done.stderr and "Traceback" not in done.stderr
    assert not Home(tmp_path / "home").journal.exists()
