"""One big upload through a plain socket, beside writing, hashing and fsyncing the same bytes on the same disk."""

import contextlib
import hashlib
import http.client
import os
import re
import socket
import statistics
import threading
import time
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from benchmarks.load import quantile

_CHUNK = 1 << 20
_PAUSE_SECONDS = 0.01


class Uploads(NamedTuple):
    """Medians; speeds in MiB/s, growth of the server's resident memory in bytes. ratio: of speeds in the same round."""

    upload: float
    raw: float
    ratio: float
    growth: float
    healthz_p99_ms: float
    idle_p99_ms: float


def measure_uploads(folder: Path, url: str, token: str, pid: int, mebibytes: int, rounds: int) -> Uploads:
    source, scratch = folder / "source.bin", folder / "raw.bin"
    with source.open("wb") as file:
        for _ in range(mebibytes):
            file.write(os.urandom(_CHUNK))
    with _Watch(url, pid) as idle:
        time.sleep(2.0)
    rows = []
    for turn in range(rounds):
        with source.open("r+b") as file:
            file.write(turn.to_bytes(8, "big"))
        raw, digest = _raw(source, scratch)
        with _Watch(url, pid) as watch:
            upload = _upload(source, url, token, digest)
        rows.append((mebibytes / upload, mebibytes / raw, raw / upload, watch.growth, watch.p99_ms))
    return Uploads(*(statistics.median(column) for column in zip(*rows, strict=True)), idle.p99_ms)


def _raw(source: Path, target: Path) -> tuple[float, str]:
    """Seconds, and the sha256."""
    began, digest = time.monotonic(), hashlib.sha256()
    with source.open("rb") as read, target.open("wb") as written:
        while chunk := read.read(_CHUNK):
            digest.update(chunk)
            written.write(chunk)
        written.flush()
        os.fsync(written.fileno())
    seconds = time.monotonic() - began
    target.unlink()
    return seconds, digest.hexdigest()


def _upload(source: Path, url: str, token: str, digest: str) -> float:
    parts, size = urlsplit(url), source.stat().st_size
    head = f"PUT /v1/blobs/sha256:{digest} HTTP/1.1\r\nHost: {parts.hostname}\r\nAuthorization: Bearer {token}\r\n"
    head += f"Content-Type: application/octet-stream\r\nContent-Length: {size}\r\nConnection: close\r\n\r\n"
    began = time.monotonic()
    with socket.create_connection((parts.hostname, parts.port)) as connection, source.open("rb") as file:
        connection.sendall(head.encode())
        connection.sendfile(file)
        answer = connection.recv(1 << 16)
    if not answer.startswith(b"HTTP/1.1 201"):
        raise RuntimeError(f"the upload was answered {answer[:500]!r}")
    return time.monotonic() - began


def resident(pid: int) -> int:
    """Bytes of a process that lie in memory."""
    found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found is not None
    return int(found[1]) * 1024


class _Watch:
    """Asks /healthz and looks at the server's memory, a hundred times a second."""

    def __init__(self, url: str, pid: int) -> None:
        self._address, self._pid = urlsplit(url), pid
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._taken: list[float] = []
        self._before = self._most = resident(pid)

    def __enter__(self) -> "_Watch":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    @property
    def growth(self) -> int:
        return self._most - self._before

    @property
    def p99_ms(self) -> float:
        return quantile(self._taken, 0.99) * 1000

    def _watch(self) -> None:
        connection = http.client.HTTPConnection(str(self._address.hostname), self._address.port)
        with contextlib.closing(connection):
            while not self._done.wait(_PAUSE_SECONDS):
                began = time.perf_counter()
                connection.request("GET", "/healthz")
                connection.getresponse().read()
                self._taken.append(time.perf_counter() - began)
                self._most = max(self._most, resident(self._pid))
