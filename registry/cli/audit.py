"""tunegate audit: check the journal."""

from pathlib import Path

import click
from rich.markup import escape

from registry import settings
from registry.cli.console import GO, NO_GO, leave, show
from registry.errors import InvalidRequest, StorageDamaged
from registry.storage.journal import verify_chain


@click.group()
def audit() -> None:
    """Check the journal."""


@audit.command(name="verify")
@click.option("--journal", type=click.Path(path_type=Path), help="Default: the one of TUNEGATE_HOME.")
def audit_verify(journal: Path | None) -> None:
    """Verify the hash chain of a journal file; works beside a running service."""
    path = journal or settings.home().journal
    try:
        head = verify_chain(path)
    except StorageDamaged as error:
        show({"valid": False, "reason": str(error)}, f"[red]broken[/]: {escape(str(error))}")
        leave(NO_GO)
    except OSError as error:
        raise InvalidRequest(f"{path} cannot be read: {error.strerror}") from None
    show({"valid": True, "seq": head.seq, "hash": head.hash}, f"{head.seq} entries verify; head {head.hash}")
    leave(GO)


COMMANDS = (audit,)
