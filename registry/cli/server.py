"""tunegate serve, rebuild: running a registry."""

import resource
import socket
import sys

import click
from rich.markup import escape

from registry import settings
from registry.api.app import create_app
from registry.api.server import Server
from registry.cli.console import UNKNOWN, console, errors, show
from registry.errors import InvalidRequest
from registry.opening import open_registry, rebuild
from registry.operations import logs

# 1,000 connections, and for each a blob and a question that are open; many systems give a process 1,024 unless it asks.
_DESCRIPTORS = 8192


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--port", default=settings.DEFAULT_PORT, show_default=True, help="0 picks a free one.")
@click.option("--drain-seconds", default=0.0, show_default=True, help="Go on for so long after SIGTERM, not ready.")
def serve(host: str, port: int, drain_seconds: float) -> None:
    """Run the registry over TUNEGATE_HOME; the first start makes it."""
    settings.metrics_need_token(), settings.proxies(), settings.request_rate()  # wrong ones end it before it begins
    settings.address_connections()
    logs.configure(settings.log_form())
    _allow_many_files()
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
    Server(create_app(registry, host=host), registry, drain_seconds=drain_seconds).run(sockets=[listener])
    if registry.damage:
        errors.print(f"[bold red]error:[/] {escape(registry.damage)}")
        sys.exit(UNKNOWN)


def _allow_many_files() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, _DESCRIPTORS)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


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


COMMANDS = (serve, rebuild_command)
