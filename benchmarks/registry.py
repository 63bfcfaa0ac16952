"""The registry's server beside MLflow's, with the same client on the same machine; and its cost as it grows.

    python -m benchmarks.registry [--only reads writes growth upload] [--seconds 10] [--rounds 3]
                                  [--versions 1000 10000 100000] [--mebibytes 1024]

reads, writes: both servers in one run, 16 connections, medians of the rounds (one round each in turn). MLflow is
installed from the package index into an environment of its own, once; reads need `wrk` (apt-get install wrk).
growth: start-up, memory and the median time of lists and searches at so many versions. upload: one file beside writing,
hashing and fsyncing the same bytes, while `/healthz` is asked a hundred times a second. Asserts nothing.
"""

import argparse
import itertools
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import msgspec
from rich.console import Console
from rich.table import Table

from benchmarks import load, mlflow_server, registry_homes
from benchmarks.load import CONNECTIONS, Connection, Load
from benchmarks.registry_homes import MANY, NAME
from benchmarks.served import environment, served
from benchmarks.upload import measure_uploads, resident
from registry.api.cursor import write_cursor
from registry.client import Client
from registry.records import FileEntry, Role
from registry.settings import Home

sys.path.insert(0, str(registry_homes.ROOT / "tests"))
from factories import entry_of, make_adapter, make_training
from site_under_test import DATASET, LEDGER

_MODEL = "bench"
_PARTS = ("reads", "writes", "growth", "upload")
_FILES = 150  # so many configurations and as many weights give every pair of them as a version


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=_PARTS, default=_PARTS)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--versions", type=int, nargs="+", default=[1000, 10_000, 100_000])
    parser.add_argument("--mebibytes", type=int, default=1024)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="tunegate-bench-") as folder:
        root = Path(folder)
        if "reads" in asked.only or "writes" in asked.only:
            _beside_mlflow(root / "beside", asked)
        if "growth" in asked.only:
            _growth(root, asked.versions)
        if "upload" in asked.only:
            _upload(root / "upload", asked.mebibytes, asked.rounds)


# -- beside MLflow ------------------------------------------------------------------------------------------------


class Row(NamedTuple):
    """Two ways of doing the same. theirs: the name of MLflow's, which is measured once a round for all rows with it."""

    name: str
    ours: Callable[[], Load]
    theirs: str
    other: Callable[[], Load]


def _beside_mlflow(root: Path, asked: argparse.Namespace) -> None:
    home = Home(root / "home")
    tokens = registry_homes.approved(home, CONNECTIONS)
    _, version = mlflow_server.install()
    with served(home) as server, mlflow_server.served(root / "mlflow") as other:
        mlflow_server.fill(other, _MODEL, 2, CONNECTIONS)
        rows: list[Row] = []
        if "reads" in asked.only:
            rows += _reads(server.url, tokens, other, asked.seconds)
        if "writes" in asked.only:
            rows += _writes(server.url, tokens, other, asked.seconds)
        found: dict[str, list[Load]] = {}
        for _ in range(asked.rounds):
            # One after the other, so that a slow minute of the machine hits both.
            acts = {row.theirs: row.other for row in rows} | {row.name: row.ours for row in rows}
            for name, act in acts.items():
                found.setdefault(name, []).append(act())
    table = _table(f"beside MLflow {version}, {mlflow_server.WORKERS} workers, sqlite; {CONNECTIONS} connections")
    medians = {name: load.median_of(loads) for name, loads in found.items()}
    for theirs in dict.fromkeys(row.theirs for row in rows):
        other_median = medians[theirs]
        _add(table, theirs, other_median, 1.0)
        for row in (row for row in rows if row.theirs == theirs):
            _add(table, f"  {row.name}", medians[row.name], medians[row.name].per_second / other_median.per_second)
    Console().print(table)


def _reads(url: str, tokens: dict[Role, str], other: str, seconds: float) -> list[Row]:
    headers = {"Authorization": f"Bearer {tokens[Role.CONSUMER]}"}
    alias, resolve = f"{url}/v1/adapters/{NAME}/aliases/approved", f"{url}/v1/resolve?ref={NAME}@approved"
    known = headers | {"If-None-Match": _tag(alias, headers)}
    known_resolve = headers | {"If-None-Match": _tag(resolve, headers)}
    theirs, get = "MLflow: get model version by alias", mlflow_server.by_alias(other, _MODEL)

    def by_alias() -> Load:
        return load.read(get, seconds)

    return [
        Row("resolve approved", lambda: load.read(resolve, seconds, headers), theirs, by_alias),
        Row("resolve approved, 304", lambda: load.read(resolve, seconds, known_resolve), theirs, by_alias),
        Row("get alias", lambda: load.read(alias, seconds, headers), theirs, by_alias),
        Row("get alias, 304", lambda: load.read(alias, seconds, known), theirs, by_alias),
    ]


def _tag(url: str, headers: dict[str, str]) -> str:
    return httpx.get(url, headers=headers).headers["ETag"]


def _writes(url: str, tokens: dict[Role, str], other: str, seconds: float) -> list[Row]:
    made = _manifests(url, tokens[Role.CI])

    async def make_version(connection: Connection, place: int, turn: int) -> bool:
        request = next(made, None)
        if request is None:
            raise StopAsyncIteration
        status, created = await connection.send("POST", f"/v1/adapters/{NAME}/versions", request)
        if status != 201:
            return False
        path = f"/v1/adapters/{NAME}/versions/{created['number']}/complete"
        return (await connection.send("POST", path))[0] == 200

    async def move_alias(connection: Connection, place: int, turn: int) -> bool:
        path = f"/v1/adapters/{NAME}/aliases/{registry_homes.alias(place)}/rollback"
        return (await connection.send("POST", path, {"to": 1 + turn % 2, "reason": "bench"}))[0] == 200

    async def make_model_version(connection: Connection, place: int, turn: int) -> bool:
        body = {"name": _MODEL, "source": f"s3://bench/{place}/{turn}"}
        return (await connection.send("POST", "/api/2.0/mlflow/model-versions/create", body))[0] == 200

    async def set_alias(connection: Connection, place: int, turn: int) -> bool:
        body = {"name": _MODEL, "alias": mlflow_server.alias(place), "version": str(1 + turn % 2)}
        return (await connection.send("POST", "/api/2.0/mlflow/registered-models/alias", body))[0] == 200

    ci = {"Authorization": f"Bearer {tokens[Role.CI]}"}
    manager = {"Authorization": f"Bearer {tokens[Role.RELEASE_MANAGER]}"}
    return [
        Row(
            "create and complete a version",
            lambda: load.write(url, seconds, ci, make_version),
            "MLflow: create a model version",
            lambda: load.write(other, seconds, {}, make_model_version),
        ),
        Row(
            "move an alias",
            lambda: load.write(url, seconds, manager, move_alias),
            "MLflow: set an alias",
            lambda: load.write(other, seconds, {}, set_alias),
        ),
    ]


def _manifests(url: str, token: str) -> Iterator[dict[str, Any]]:
    """Requests for different versions, their blobs uploaded."""
    training = msgspec.to_builtins(make_training(dataset=DATASET, ledger=LEDGER))
    configs, weights = list[FileEntry](), list[FileEntry]()
    with Client(url, token) as client:
        for n in range(_FILES):
            # The fills 1 and 2 are those of the approved versions.
            for name, data in make_adapter(fill=n + 3, lora_alpha=n + 1).items():
                client.upload(data)
                (weights if name.endswith("safetensors") else configs).append(entry_of(name, data))
    pairs = itertools.product(configs, weights)
    return ({"files": msgspec.to_builtins(list(pair)), "training": training} for pair in pairs)


# -- growth ---------------------------------------------------------------------------------------------------------


def _growth(root: Path, sizes: list[int]) -> None:
    columns, rows = ["versions", *(f"{size:,}" for size in sizes)], dict[str, list[str]]()
    for size in sizes:
        home = Home(root / f"growth-{size}")
        tokens = registry_homes.approved(home, 1)
        registry_homes.many(home, size)
        for name, value in _cost(home, tokens[Role.ADMIN]):
            rows.setdefault(name, []).append(value)
    table = Table(title="as it grows", box=None)
    for column in columns:
        table.add_column(column, justify="left" if column == "versions" else "right")
    for name, values in rows.items():
        table.add_row(name, *values)
    Console().print(table)


def _cost(home: Home, token: str) -> Iterator[tuple[str, str]]:
    yield "journal, MiB", f"{home.journal.stat().st_size / 2**20:.0f}"
    began = time.monotonic()
    command = [sys.executable, "-m", "registry", "rebuild"]
    subprocess.run(command, env=environment(home), check=True, stdout=subprocess.DEVNULL)
    yield "`tunegate rebuild`, s", f"{time.monotonic() - began:.1f}"
    with served(home) as server:
        yield "start-up, s", f"{server.ready_seconds:.2f}"
        yield "RSS after start-up, MiB", f"{resident(server.pid) / 2**20:.0f}"
        path, headers = f"/v1/adapters/{MANY}/versions", {"Authorization": f"Bearer {token}"}
        middle = write_cursor(_middle(server.url + path, headers))
        for name, query in {
            "p50 ms: newest 100 versions": f"{path}?limit=100",
            "p50 ms: 100 from the middle": f"{path}?limit=100&cursor={middle}",
            "p50 ms: state=rejected": f"{path}?limit=100&state=rejected",
            "p50 ms: state=approved (none)": f"{path}?limit=100&state=approved",
            "p50 ms: accuracy > 0.5": f"{path}?limit=100&where=accuracy%20%3E%200.5",
            "p50 ms: one version": f"{path}/1",
            "p50 ms: its gate report": f"{path}/1/gate",
            "p50 ms: 100 adapters": "/v1/adapters?limit=100",
            "p50 ms: 100 audit events": "/v1/audit/events?limit=100&after=1000",
        }.items():
            found = load.read(server.url + query, 3.0, headers, connections=1)
            yield name, f"{found.p50_ms:.1f}" + (f" ({found.failed} failed)" if found.failed else "")
        yield "RSS after that, MiB", f"{resident(server.pid) / 2**20:.0f}"


def _middle(url: str, headers: dict[str, str]) -> str:
    newest = httpx.get(url, params={"limit": 1}, headers=headers).json()["items"][0]["number"]
    return str(newest // 2)


# -- uploads --------------------------------------------------------------------------------------------------------


def _upload(root: Path, mebibytes: int, rounds: int) -> None:
    home = Home(root / "home")
    tokens = registry_homes.approved(home, 1)
    with served(home) as server:
        found = measure_uploads(root, server.url, tokens[Role.CI], server.pid, mebibytes, rounds)
    table = Table(title=f"upload of {mebibytes} MiB, median of {rounds}", box=None)
    for name in ("", "MiB/s", "of raw", "RSS growth, MiB", "/healthz p99 meanwhile, ms"):
        table.add_column(name, justify="left" if not name else "right")
    table.add_row("write, sha256, fsync", f"{found.raw:.0f}", "1.00", "", f"{found.idle_p99_ms:.1f} (idle)")
    table.add_row(
        "PUT /v1/blobs",
        f"{found.upload:.0f}",
        f"{found.ratio:.2f}",
        f"{found.growth / 2**20:.0f}",
        f"{found.healthz_p99_ms:.1f}",
    )
    Console().print(table)


# -- shared ---------------------------------------------------------------------------------------------------------


def _table(title: str) -> Table:
    table = Table(title=title, box=None)
    for column in ("", "per second", "p50 ms", "p99 ms", "failed", "ratio"):
        table.add_column(column, justify="left" if not column else "right")
    return table


def _add(table: Table, name: str, found: Load, ratio: float) -> None:
    numbers = f"{found.per_second:.0f}", f"{found.p50_ms:.1f}", f"{found.p99_ms:.1f}", str(found.failed or "")
    table.add_row(name, *numbers, f"{ratio:.1f}")


if __name__ == "__main__":
    main()
