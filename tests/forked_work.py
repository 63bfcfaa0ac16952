"""What the forked processes of `forked_under_test` do. Imports nothing that the process they fork from has not."""

import hashlib
import os
import socket
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

from registry.api.app import create_app
from registry.api.server import Server
from registry.commands.context import Context
from registry.errors import StorageDamaged
from registry.opening import open_registry, rebuild
from registry.operations.backup import back_up, restore
from registry.registry import SYSTEM
from registry.settings import Home

Work = Callable[[Path, Connection], None]


def serve(root: Path, pipe: Connection) -> None:
    """What `tunegate serve` does. Begins when it is told to, and says its port."""
    pipe.recv()
    registry, _ = open_registry(Home(root))
    listener = socket.create_server(("127.0.0.1", 0))
    pipe.send(listener.getsockname()[1])
    Server(create_app(registry), registry).run(sockets=[listener])


def open_and_close(root: Path, pipe: Connection) -> None:
    pipe.recv()
    open_registry(Home(root)).registry.close()


def rebuild_catalog(root: Path, pipe: Connection) -> None:
    pipe.recv()
    rebuild(Home(root))


def digest_of_tables(root: Path, pipe: Connection) -> None:
    """Opens the home and says what its catalog holds, or that it refuses. Ends without closing anything."""
    pipe.recv()
    try:
        registry, _ = open_registry(Home(root))
    except StorageDamaged as refused:
        pipe.send(str(refused))
        return

    def digest(context: Context) -> str:
        db = context.view._db
        names = [row[0] for row in db.execute("SELECT table_name FROM duckdb_tables() ORDER BY 1").fetchall()]
        rows = [(name, sorted(db.execute(f"SELECT * FROM {name}").fetchall(), key=repr)) for name in names]
        return hashlib.sha256(repr(rows).encode()).hexdigest()

    try:
        pipe.send(registry.ask(SYSTEM, digest))
    except StorageDamaged as refused:
        pipe.send(str(refused))
    os._exit(0)


def back_up_home(root: Path, pipe: Connection) -> None:
    pipe.recv()
    back_up(Home(root / "home"), root / "backup")


def restore_home(root: Path, pipe: Connection) -> None:
    pipe.recv()
    restore(root / "backup", Home(root / "restored"))
