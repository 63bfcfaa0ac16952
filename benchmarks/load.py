"""The client side of the registry's benchmark: one tool for both servers.

Reads: `wrk` (Debian package `wrk`), one thread. Writes: a small asyncio client, a connection each for a number of
coroutines, because a write needs a body of its own and often the answer to the one before.
"""

import asyncio
import math
import re
import shutil
import statistics
import subprocess
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import httptools
import msgspec

CONNECTIONS = 16
_MILLISECONDS = {"us": 0.001, "ms": 1.0, "s": 1000.0}


class Load(NamedTuple):
    """failed: answers that were neither 2xx nor 3xx."""

    per_second: float
    p50_ms: float
    p99_ms: float
    failed: int


def read(url: str, seconds: float, headers: Mapping[str, str] | None = None, connections: int = CONNECTIONS) -> Load:
    """GET one URL again and again with wrk."""
    if shutil.which("wrk") is None:
        raise SystemExit("wrk is missing: apt-get install wrk")
    command = ["wrk", "-t1", f"-c{connections}", f"-d{max(1, round(seconds))}s", "--latency"]
    for name, value in (headers or {}).items():
        command += ["-H", f"{name}: {value}"]
    said = subprocess.run([*command, url], capture_output=True, text=True, check=True).stdout
    failed = re.search(r"Non-2xx or 3xx responses: (\d+)", said)
    return Load(
        float(re.findall(r"Requests/sec:\s+([\d.]+)", said)[0]),
        _latency(said, "50%"),
        _latency(said, "99%"),
        int(failed[1]) if failed else 0,
    )


def _latency(said: str, share: str) -> float:
    number, unit = re.findall(rf"{share}\s+([\d.]+)(us|ms|s)\b", said)[0]
    return float(number) * _MILLISECONDS[unit]


class Connection:
    """One kept-alive HTTP/1.1 connection."""

    def __init__(self, url: str, headers: Mapping[str, str]) -> None:
        self._host, self._port = urlsplit(url).hostname, urlsplit(url).port
        self._head = "".join(f"{name}: {value}\r\n" for name, value in {"Host": self._host, **headers}.items())

    async def __aenter__(self) -> "Connection":
        self._reader, self._writer = await asyncio.open_connection(self._host, self._port)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._writer.close()
        await self._writer.wait_closed()

    async def send(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        """Status and decoded JSON body."""
        data = b"" if body is None else msgspec.json.encode(body)
        kind = "" if body is None else "Content-Type: application/json\r\n"
        head = f"{method} {path} HTTP/1.1\r\n{self._head}{kind}Content-Length: {len(data)}\r\n\r\n"
        self._writer.write(head.encode() + data)
        answer = _Answer()
        parser = httptools.HttpResponseParser(answer)
        while not answer.complete:
            received = await self._reader.read(1 << 16)
            if not received:
                raise ConnectionError(f"{method} {path}: the server hung up")
            parser.feed_data(received)
        text = b"".join(answer.parts)
        return parser.get_status_code(), msgspec.json.decode(text) if text else None


class _Answer:
    """What httptools tells of one response."""

    def __init__(self) -> None:
        self.complete, self.parts = False, list[bytes]()

    def on_body(self, body: bytes) -> None:
        self.parts.append(body)

    def on_message_complete(self) -> None:
        self.complete = True


Act = Callable[[Connection, int, int], Awaitable[bool]]


def write(url: str, seconds: float, headers: Mapping[str, str], act: Act, connections: int = CONNECTIONS) -> Load:
    """Do something again and again on each connection.

    act: given the connection, its place and the round; whether it succeeded. StopAsyncIteration ends that connection.
    """
    return asyncio.run(_write(url, seconds, headers, act, connections))


async def _write(url: str, seconds: float, headers: Mapping[str, str], act: Act, connections: int) -> Load:
    began, taken, failed = time.perf_counter(), list[float](), 0

    async def one(place: int) -> None:
        nonlocal failed
        async with Connection(url, headers) as connection:
            turn = 0
            while time.perf_counter() - began < seconds:
                start = time.perf_counter()
                try:
                    failed += not await act(connection, place, turn)
                except StopAsyncIteration:
                    return
                taken.append(time.perf_counter() - start)
                turn += 1

    await asyncio.gather(*(one(place) for place in range(connections)))
    whole = time.perf_counter() - began
    return Load(len(taken) / whole, quantile(taken, 0.5) * 1000, quantile(taken, 0.99) * 1000, failed)


def quantile(values: list[float], share: float) -> float:
    """The nearest-rank quantile; not a number where there are none."""
    if not values:
        return math.nan
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


def median_of(loads: list[Load]) -> Load:
    """Each number's median over several runs; failures added up."""
    columns = list(zip(*loads, strict=True))
    return Load(*(statistics.median(column) for column in columns[:3]), sum(columns[3]))
