"""tunegate token: who may do what."""

import click
from msgspec import UNSET
from rich.markup import escape

from registry.cli.console import connected, show
from registry.errors import InvalidRequest
from registry.records import CreateToken, Role

ROLES = click.Choice([role.value for role in Role])


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


COMMANDS = (token,)
