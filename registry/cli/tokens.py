"""tunegate token: who may do what."""

from pathlib import Path

import click
from msgspec import UNSET
from rich.markup import escape

from registry import settings
from registry.access import token_id_of
from registry.cli.console import connected, options, read_text, show
from registry.client import Client
from registry.errors import InvalidRequest
from registry.opening import recover_admin
from registry.records import CreateToken, MintToken, Role

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


@token.command(name="mint")
@click.option(
    "--oidc-token-file",
    type=click.Path(path_type=Path, dir_okay=False),
    required=True,
    help="A file with the ID token that the CI gives.",
)
@click.option("--scope", help="Which adapter or namespace, where several publishers accept the token.")
def mint_token(oidc_token_file: Path, scope: str | None) -> None:
    """Exchange a CI's own token for one of 15 minutes, and print its secret. Needs no token of ours."""
    shown = read_text(oidc_token_file).strip()
    with Client(options().url) as client:
        made = client.mint(MintToken(token=shown, scope=scope))
    if made.secret is UNSET:
        raise InvalidRequest(
            "the secret of the new token was lost with the connection; ask the CI for a new ID token and repeat"
        )
    show(made, made.secret)


@token.command(name="recover")
def recover_token() -> None:
    """A new admin token in TUNEGATE_HOME, when none is valid any more; the service must not run."""
    home = settings.home()
    made = recover_admin(home)
    show(made, f"a new admin token, until {made.expires_at}, is in {escape(str(home.admin_token))}")


@token.command(name="list")
def list_tokens() -> None:
    """All tokens for an admin, otherwise your own; never their secrets."""
    with connected() as client:
        found = client.tokens()
    lines = [
        f"{one.id}  {one.role:<16} {escape(one.person):<20} {escape(one.scope or 'all adapters'):<20} "
        + (f"revoked {one.revoked_at}" if one.revoked_at else f"until {one.expires_at}")
        + (f"  used {one.last_used}" if one.last_used else "")
        for one in found
    ]
    show(found, "\n".join(lines))


@token.command(name="revoke")
@click.argument("token_id")
def revoke_token(token_id: str) -> None:
    """End a token at once; TOKEN_ID is its id, or the whole of it."""
    token_id = token_id_of(token_id)
    with connected() as client:
        client.revoke_token(token_id)
    show({"revoked": token_id}, f"token {token_id} is revoked")


COMMANDS = (token,)
