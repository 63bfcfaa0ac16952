"""tunegate serve, rebuild, token, keys, audit: running a registry and looking after it."""

import logging
import socket
from pathlib import Path

import click
import msgspec
import uvicorn
from msgspec import UNSET
from rich.markup import escape

from registry import settings
from registry.api.app import create_app
from registry.cli.console import GO, NO_GO, connected, console, leave, show
from registry.errors import InvalidRequest, StorageDamaged
from registry.opening import open_registry, rebuild
from registry.records import CreateToken, Role
from registry.storage.journal import verify_chain

ROLES = click.Choice([role.value for role in Role])


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--port", default=settings.DEFAULT_PORT, show_default=True, help="0 picks a free one.")
def serve(host: str, port: int) -> None:
    """Run the registry over TUNEGATE_HOME; the first start makes it."""
    listener = _listen(host, port)
    home = settings.home()
    registry, first_start = open_registry(home)
    address = f"http://{host}:{listener.getsockname()[1]}"
    out = console()
    out.print(f"tunegate serves {escape(str(home.root))} at [bold]{address}/[/]")
    if first_start:
        out.print(f"  made a signing key: {home.signing_key} (public: {home.public_keys})", markup=False)
        out.print(f"  made an admin token: {home.admin_token}", markup=False)
        token_from = f"TUNEGATE_TOKEN=$(cat '{home.admin_token}')"
        out.print(f"  try: TUNEGATE_URL={address} {token_from} tunegate adapter list", markup=False)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    config = uvicorn.Config(create_app(registry), log_config=None, access_log=False, timeout_graceful_shutdown=10)
    uvicorn.Server(config).run(sockets=[listener])


def _listen(host: str, port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(1024)
    except OSError as error:
        listener.close()
        raise InvalidRequest(
            f"cannot listen on {host}:{port}: {error.strerror}; stop what uses it or give another --port (0 for any)"
        ) from None
    return listener


@click.command(name="rebuild")
@click.option("--accept-loss", is_flag=True, help="Go on although the catalog knows of entries the journal lost.")
def rebuild_command(accept_loss: bool) -> None:
    """Build the catalog anew from the journal; the service must not run."""
    last = rebuild(settings.home(), accept_loss=accept_loss)
    show({"applied": last}, f"catalog rebuilt from {last} journal entries")


@click.group()
def token() -> None:
    """Make, list and revoke tokens."""


@token.command(name="create")
@click.option("--role", type=ROLES, required=True)
@click.option("--person", required=True, help="Who acts: two tokens of one person count once in a review.")
@click.option("--scope", help="Limit it to a namespace or one adapter.")
@click.option("--days", default=90, show_default=True, help="Days until it expires.")
def create_token(role: str, person: str, scope: str | None, days: int) -> None:
    """Make a token; its secret is shown once."""
    with connected() as client:
        made = client.create_token(CreateToken(role=Role(role), person=person, scope=scope, expires_days=days))
    if made.secret is UNSET:
        raise InvalidRequest(
            f"token {made.token.id} was made, but its secret was lost with the connection; revoke it "
            f"(`tunegate token revoke {made.token.id}`) and make another"
        )
    show(made, made.secret)


@token.command(name="list")
def list_tokens() -> None:
    """All tokens for an admin, otherwise your own; never their secrets."""
    with connected() as client:
        found = client.tokens()
    lines = [
        f"{one.id}  {one.role:<16} {escape(one.person):<20} {escape(one.scope or 'all adapters'):<20} "
        + (f"revoked {one.revoked_at}" if one.revoked_at else f"until {one.expires_at}")
        for one in found
    ]
    show(found, "\n".join(lines))


@token.command(name="revoke")
@click.argument("token_id")
def revoke_token(token_id: str) -> None:
    """End a token at once."""
    with connected() as client:
        client.revoke_token(token_id)
    show({"revoked": token_id}, f"token {token_id} is revoked")


@click.command()
@click.option("--to", "target", type=click.Path(path_type=Path), help="Write them to this file.")
def keys(target: Path | None) -> None:
    """The public keys that `tunegate verify --keys` needs."""
    with connected() as client:
        found = client.keys()
    if target:
        target.write_bytes(msgspec.json.encode(found))
    show(found, f"{len(found.keys)} keys written to {escape(str(target))}" if target else None)


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


COMMANDS = (serve, rebuild_command, token, keys, audit)
