"""Requests per second of a real `tunegate serve` on loopback, and what of that the machine and the framework allow.

    python -m benchmarks.registry [--versions 100] [--seconds 5]

The floor for reads is the server's own `/healthz` (no token, no catalog); for uploads, writing, hashing and fsyncing
the same bytes to the same disk. All of it in one run, one client thread a connection, 8 connections.
"""

import argparse
import hashlib
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
from rich.console import Console
from rich.table import Table

from registry.client import Client
from registry.records import CreateAdapter, CreateToken, Role, SubmitVersion
from registry.transfer import push_suite

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "tests"))
from factories import BASE, BASE_TENSORS, entry_of, make_adapter, make_training  # noqa: E402

CONNECTIONS = 8
UPLOAD_BYTES = 256 * 1024 * 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--versions", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=5.0)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        with _served(Path(folder)) as (url, token):
            _report(Path(folder), url, token, asked.versions, asked.seconds)
        started = time.monotonic()
        environment = {**os.environ, "TUNEGATE_HOME": folder}
        subprocess.run(
            [sys.executable, "-m", "registry", "rebuild"], env=environment, check=True, stdout=subprocess.DEVNULL
        )
        entries = (Path(folder) / "journal.log").read_bytes().count(b"\n")
        Console().print(f"tunegate rebuild of {entries} entries: {time.monotonic() - started:.2f} s, start included")


def _report(home: Path, url: str, token: str, versions: int, seconds: float) -> None:
    with Client(url, token) as admin:
        for name in ("support-desk/questions", "support-desk/conversations", "support-desk/pilot", "general-knowledge"):
            push_suite(admin, ROOT / "suites" / name)
        admin.create_adapter(CreateAdapter(name="bench", base=BASE, base_tensors=BASE_TENSORS))
        uploader = str(admin.create_token(CreateToken(role=Role.CI, person="bench")).secret)
    with Client(url, uploader) as client:
        client.upload(b"{}")
        client.upload(b"ledger")
        created = _rate_of(versions, lambda number: _submit(client, number))
        upload, raw = _upload_speed(client, home), _raw_speed(home)
    headers = {"Authorization": f"Bearer {uploader}"}
    floor = _requests_per_second(url + "/healthz", {}, seconds)
    version = _requests_per_second(url + "/v1/adapters/bench/versions/1", headers, seconds)
    gate = _requests_per_second(url + "/v1/adapters/bench/versions/1/gate", headers, seconds)
    pages = _requests_per_second(url + "/v1/adapters/bench/versions?limit=20", headers, seconds)
    table = Table(title=f"one server, {CONNECTIONS} connections, {versions} versions", box=None)
    for column in ("", "per second", "ratio", "to"):
        table.add_column(column, justify="right" if column in ("per second", "ratio") else "left")
    table.add_row("GET /healthz", f"{floor:.0f}", "1.00", "")
    for name, rate in (("GET version", version), ("GET gate report", gate), ("GET 20 versions", pages)):
        table.add_row(name, f"{rate:.0f}", f"{rate / floor:.2f}", "/healthz")
    table.add_row("submit + upload + complete, one client", f"{created:.0f}", "", "")
    table.add_row("upload of 256 MiB", f"{upload / 2**20:.0f} MiB", f"{upload / raw:.2f}", "write + sha256 + fsync")
    Console().print(table)


def _submit(client: Client, number: int) -> None:
    files = make_adapter(fill=number % 256)
    files["README.md"] = f"version {number}".encode()
    request = SubmitVersion(
        files=[entry_of(path, data) for path, data in files.items()], training=make_training(dataset=b"{}")
    )
    created = client.submit("bench", request)
    wanted = {entry.sha256: files[entry.path] for entry in request.files}
    for digest in created.missing:
        client.upload(wanted[digest])
    client.complete(created.ref)


def _rate_of(times: int, act: Callable[[int], None]) -> float:
    started = time.monotonic()
    for number in range(times):
        act(number)
    return times / (time.monotonic() - started)


def _upload_speed(client: Client, home: Path) -> float:
    data = home / "upload.bin"
    data.write_bytes(os.urandom(UPLOAD_BYTES))
    started = time.monotonic()
    client.upload(data)
    return UPLOAD_BYTES / (time.monotonic() - started)


def _raw_speed(home: Path) -> float:
    data = (home / "upload.bin").read_bytes()
    started = time.monotonic()
    digest = hashlib.sha256()
    with (home / "raw.bin").open("wb") as file:
        for start in range(0, len(data), 1 << 20):
            digest.update(data[start : start + (1 << 20)])
            file.write(data[start : start + (1 << 20)])
        file.flush()
        os.fsync(file.fileno())
    return UPLOAD_BYTES / (time.monotonic() - started)


def _requests_per_second(url: str, headers: dict[str, str], seconds: float) -> float:
    counts = [0] * CONNECTIONS
    until = time.monotonic() + seconds

    def ask(place: int) -> None:
        with httpx.Client(headers=headers) as client:
            while time.monotonic() < until:
                client.get(url).raise_for_status()
                counts[place] += 1

    threads = [threading.Thread(target=ask, args=(place,)) for place in range(CONNECTIONS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(counts) / seconds


@contextmanager
def _served(home: Path) -> Iterator[tuple[str, str]]:
    log = home / "serve.log"
    with log.open("w") as output:
        server = subprocess.Popen(
            [sys.executable, "-m", "registry", "serve", "--port", "0"],
            env={**os.environ, "TUNEGATE_HOME": str(home)},
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        deadline = time.monotonic() + 30
        while not (found := re.search(r"at (http://\S+?)/?\s", log.read_text())):
            if time.monotonic() > deadline or server.poll() is not None:
                raise RuntimeError(f"the server did not start: {log.read_text()}")
            time.sleep(0.1)
        with Client(found[1]) as client:
            while not client.ready() and time.monotonic() < deadline:
                time.sleep(0.1)
        yield found[1], (home / "keys" / "admin.token").read_text().strip()
    finally:
        server.terminate()
        server.wait(timeout=30)


if __name__ == "__main__":
    main()
