"""tunegate promote, rollback, reject, revoke, history: what release managers decide."""

import click
from rich.markup import escape

from registry.cli.console import NO_GO, concrete, connected, errors, leave, show
from registry.cli.report import gate_table
from registry.client import Refused
from registry.errors import InvalidRequest
from registry.names import parse_reference
from registry.records import AliasInfo


@click.command()
@click.argument("ref")
@click.option("--alias", default="approved", show_default=True)
@click.option("--reason", help="What the alias's history says of it.")
def promote(ref: str, alias: str, reason: str | None) -> None:
    """Point an alias at a version whose gate says go; exits 1 with the whole report if it does not."""
    with connected() as client:
        try:
            moved = client.promote(concrete(client, ref).ref, alias, reason=reason)
        except Refused as error:
            if error.report is None:
                raise
            show(error.report, gate_table(error.report))
            errors.print(f"[bold red]refused[/]: {escape(str(error))}")
            leave(NO_GO)
    show(moved, f"{moved.adapter}@{moved.alias} {_came_to(moved, 'is now')} ({moved.digest[:19]}…)")


@click.command()
@click.argument("name")
@click.option("--to", "number", required=True, type=int, help="The version number to go back to.")
@click.option("--reason", required=True)
@click.option("--alias", default="approved", show_default=True)
def rollback(name: str, number: int, reason: str, alias: str) -> None:
    """Point an alias back at a version it named before."""
    with connected() as client:
        moved = client.rollback(name, number, reason, alias)
    show(moved, f"{moved.adapter}@{moved.alias} {_came_to(moved, 'is back at')}")


def _came_to(moved: AliasInfo, moved_to: str) -> str:
    if not moved.unsigned:
        return f"{moved_to} {moved.ref}"
    name = f"{moved.adapter}@{moved.alias}"
    return f"is where it was: {moved.ref} waits for `tunegate countersign {name} --key FILE`"


@click.command()
@click.argument("ref")
@click.option("--reason", required=True)
def reject(ref: str, reason: str) -> None:
    """Refuse a version that was not approved yet, for good, whatever its evidence says."""
    with connected() as client:
        info = client.reject(concrete(client, ref).ref, reason)
    show(info, f"{info.ref} is rejected; its gate report says why")


@click.command()
@click.argument("ref")
@click.option("--reason", required=True)
def revoke(ref: str, reason: str) -> None:
    """Stop a version from being pulled, at once and for good."""
    with connected() as client:
        info = client.revoke(concrete(client, ref).ref, reason)
    show(info, f"{info.ref} is revoked; roll its alias back with `tunegate rollback`")


@click.command()
@click.argument("ref")
def history(ref: str) -> None:
    """Every move of an alias (`support-bot@approved`): from, to, who, when, why."""
    parsed = parse_reference(ref)
    if parsed.alias is None:
        raise InvalidRequest(f"{ref!r} names no alias; give one, such as {parsed.adapter}@approved")
    with connected() as client:
        moves = client.history(parsed.adapter, parsed.alias)
    lines = [
        f"{move.counter:>4}  {move.at[:19]}  {move.previous or '-'} → {move.number}  by {move.by}: {move.reason}"
        for move in moves
    ]
    show(moves, "\n".join(map(escape, lines)) or f"{ref} was never moved")


COMMANDS = (promote, rollback, reject, revoke, history)
