"""MLflow's registry server in a virtual environment of its own: sqlite, two workers, otherwise its defaults."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
from platformdirs import user_cache_path

WORKERS = 2
_START_SECONDS = 300
_STARTED = "Application startup complete"
_API = "/api/2.0/mlflow"
_QUIET = {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"}


def install() -> tuple[Path, str]:
    """The environment's directory and MLflow's version; made at the first call and kept in the user's cache."""
    folder = user_cache_path("tunegate") / "bench-mlflow"
    python = folder / "bin" / "python"
    if not (folder / ".installed").exists():
        uv = str(Path(sys.executable).with_name("uv"))
        print(f"installing MLflow into {folder}", flush=True)
        subprocess.run([uv, "venv", "--quiet", "--clear", "--python", sys.executable, str(folder)], check=True)
        subprocess.run(
            [uv, "pip", "install", "--quiet", "--compile-bytecode", "--python", str(python), "mlflow"], check=True
        )
        (folder / ".installed").touch()
    version = subprocess.run(
        [str(python), "-c", "import importlib.metadata as m; print(m.version('mlflow'))"],
        capture_output=True,
        text=True,
        check=True,
    )
    return folder, version.stdout.strip()


@contextlib.contextmanager
def served(home: Path) -> Iterator[str]:
    """The address of a server over an empty sqlite database in `home`."""
    folder, _ = install()
    home.mkdir(parents=True, exist_ok=True)
    port = _free_port()
    command = [
        *(str(folder / "bin" / "mlflow"), "server", "--host", "127.0.0.1", "--port", str(port)),
        *("--backend-store-uri", f"sqlite:///{home / 'mlflow.db'}", "--workers", str(WORKERS)),
        *("--default-artifact-root", str(home / "artifacts")),
    ]
    environment = {**os.environ, **_QUIET, "PATH": f"{folder / 'bin'}:{os.environ['PATH']}"}
    log = home / "mlflow.log"
    with log.open("w") as output:
        # A session of its own: the server's workers are children of its children.
        server = subprocess.Popen(
            command, env=environment, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
    url = f"http://127.0.0.1:{port}"
    try:
        _wait(url, server, log)
        yield url
    finally:
        with contextlib.suppress(ProcessLookupError, subprocess.TimeoutExpired):
            os.killpg(server.pid, signal.SIGTERM)
            server.wait(timeout=20)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGKILL)
        server.wait(timeout=20)


def call(url: str, path: str, body: Any) -> Any:
    """POST one request of MLflow's REST interface."""
    request = urllib.request.Request(
        url + _API + path, data=msgspec.json.encode(body), headers={"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        return msgspec.json.decode(answer.read())


def fill(url: str, name: str, versions: int, aliases: int) -> None:
    """A registered model with this many versions and aliases, all of them at version 1."""
    call(url, "/registered-models/create", {"name": name})
    for number in range(1, versions + 1):
        call(url, "/model-versions/create", {"name": name, "source": f"s3://bench/{number}"})
    for place in range(aliases):
        call(url, "/registered-models/alias", {"name": name, "alias": alias(place), "version": "1"})


def alias(place: int) -> str:
    return f"alias-{place}"


def by_alias(url: str, name: str) -> str:
    return f"{url}{_API}/registered-models/alias?name={name}&alias={alias(0)}"


def _wait(url: str, server: "subprocess.Popen[bytes]", log: Path) -> None:
    """Until every worker is there: the first alone would answer too."""
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline and server.poll() is None:
        if log.read_text().count(_STARTED) >= WORKERS:
            with contextlib.suppress(OSError):
                urllib.request.urlopen(url + "/health", timeout=5).close()
                return
        time.sleep(0.2)
    raise RuntimeError(f"MLflow did not start: {log.read_text()[-2000:]}")


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])
