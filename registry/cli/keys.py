"""tunegate keys: what approvals are verified with."""

from pathlib import Path

import click
import msgspec
from rich.markup import escape

from registry.cli.console import connected, show


@click.command()
@click.option("--to", "target", type=click.Path(path_type=Path), help="Write them to this file.")
def keys(target: Path | None) -> None:
    """The public keys that `tunegate verify --keys` needs."""
    with connected() as client:
        found = client.keys()
    if target:
        target.write_bytes(msgspec.json.encode(found))
    show(found, f"{len(found.keys)} keys written to {escape(str(target))}" if target else None)


COMMANDS = (keys,)
