"""tunegate reviewer: who may review in which domain."""

import click
from rich.markup import escape

from registry.cli.console import connected, show
from registry.records import AddReviewer, ReviewerInfo


@click.group()
def reviewer() -> None:
    """Vouch for the experts whose ratings count where a policy names a domain."""


@reviewer.command(name="add")
@click.option("--person", required=True, help="As in their token.")
@click.option("--domain", required=True, help="As in the policies' [review] domain.")
@click.option("--credential", required=True, help="What makes them an expert, such as a licence and its number.")
@click.option("--from", "valid_from", required=True, metavar="DATE", help="From when on the credential is valid.")
@click.option("--until", "valid_until", required=True, metavar="DATE", help="Until when, this day included (UTC).")
@click.option("--issuer", help="Who gave them the credential.")
@click.option("--scope", help="Say it of one adapter or namespace only.")
def add_reviewer(
    person: str,
    domain: str,
    credential: str,
    valid_from: str,
    valid_until: str,
    issuer: str | None,
    scope: str | None,
) -> None:
    """Vouch for an expert. It counts in campaigns that open later."""
    request = AddReviewer(
        person=person,
        domain=domain,
        credential=credential,
        valid_from=valid_from,
        valid_until=valid_until,
        issuer=issuer,
        scope=scope,
    )
    with connected() as client:
        added = client.vouch(request)
    show(added, f"record {added.id}: {escape(added.person)} may review in {escape(added.domain)}")


@reviewer.command(name="list")
def list_reviewers() -> None:
    """Every record there ever was, those too that no longer count."""
    with connected() as client:
        found = client.reviewers()
    show(found, "\n".join(map(_line, found)))


@reviewer.command(name="withdraw")
@click.argument("record_id")
def withdraw_reviewer(record_id: str) -> None:
    """Vouch for it no longer; what a sealed campaign has counted stays counted."""
    with connected() as client:
        client.withdraw_reviewer(record_id)
    show({"withdrawn": record_id}, f"record {escape(record_id)} counts no more")


def _line(one: ReviewerInfo) -> str:
    issuer = f" ({one.issuer})" if one.issuer else ""
    ends = f"withdrawn {one.withdrawn_at[:10]}" if one.withdrawn_at else f"until {one.valid_until[:10]}"
    words = (
        f"{one.person:<20} {one.domain:<16} {one.credential}{issuer}  from {one.valid_from[:10]} {ends}  "
        f"{one.scope or 'all adapters'}, vouched for by {one.vouched_by}"
    )
    return f"{one.id}  {escape(words)}"


COMMANDS = (reviewer,)
