"""tunegate publisher: the CI systems that may exchange their own tokens for ours."""

from pathlib import Path

import click
import msgspec
from rich.markup import escape

from registry.cli.console import connected, read_text, show
from registry.errors import InvalidRequest
from registry.records import AddPublisher, Jwk


class _KeySet(msgspec.Struct):
    """A JSON Web Key Set (RFC 7517), as issuers publish it."""

    keys: list[Jwk]


@click.group()
def publisher() -> None:
    """Trust a CI: it then needs no token of ours in its settings."""


@publisher.command(name="add")
@click.option("--scope", required=True, help="The adapter, or the namespace, that it may submit to.")
@click.option("--issuer", required=True, help="As `iss` in the CI's tokens, to the letter.")
@click.option("--claim", "claims", multiple=True, metavar="NAME=VALUE", help="What its tokens must say; repeat it.")
@click.option("--audience", default="tunegate", show_default=True, help="As `aud` in the CI's tokens.")
@click.option("--jwks-url", help="Where the issuer publishes its keys.")
@click.option("--jwks", type=click.Path(path_type=Path, dir_okay=False), help="A file with them, instead.")
def add_publisher(
    scope: str, issuer: str, claims: tuple[str, ...], audience: str, jwks_url: str | None, jwks: Path | None
) -> None:
    """Trust tokens of an issuer that make all these claims."""
    request = AddPublisher(
        scope=scope,
        issuer=issuer,
        claims=dict(_pair(claim) for claim in claims),
        audience=audience,
        keys=_read_keys(jwks) if jwks else None,
        jwks_url=jwks_url,
    )
    with connected() as client:
        added = client.add_publisher(request)
    show(added, f"publisher {added.id}: tokens of {escape(issuer)} may submit to {escape(scope)}")


@publisher.command(name="list")
def list_publishers() -> None:
    """Who is trusted, for what, under which claims."""
    with connected() as client:
        found = client.publishers()
    lines = [
        f"{one.id}  {escape(one.scope):<20} {escape(one.issuer)}  "
        + escape(", ".join(f"{name}={value}" for name, value in sorted(one.claims.items())))
        for one in found
    ]
    show(found, "\n".join(lines))


@publisher.command(name="remove")
@click.argument("publisher_id")
def remove_publisher(publisher_id: str) -> None:
    """Trust it no longer; the tokens that it was given end at once."""
    with connected() as client:
        client.remove_publisher(publisher_id)
    show({"removed": publisher_id}, f"publisher {escape(publisher_id)} is removed, and its tokens are revoked")


def _pair(claim: str) -> tuple[str, str]:
    name, equals, value = claim.partition("=")
    if not (name and equals and value):
        raise InvalidRequest(f"--claim {claim!r} is not of the form NAME=VALUE, such as repository_owner_id=12345")
    return name, value


def _read_keys(file: Path) -> list[Jwk]:
    try:
        return msgspec.json.decode(read_text(file), type=_KeySet).keys
    except msgspec.DecodeError as error:
        raise InvalidRequest(f"{file} is no JSON Web Key Set: {error}") from None


COMMANDS = (publisher,)
