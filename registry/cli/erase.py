"""tunegate erase: what people wrote in reviews, where they or a law want it gone; scores and rulings stay."""

import click

from registry.cli.console import connected, show
from registry.errors import InvalidRequest
from registry.records import Erased, EraseWords


@click.group()
def erase() -> None:
    """Erase texts for good. The journal keeps that there were some, their sha256, who erased them and why."""


@erase.command(name="words")
@click.option("--person", help="All that this person wrote in reviews: comments, reasons of skips and rulings.")
@click.option("--sha256", help="All that has these bytes, as the journal names them.")
@click.option("--reason", required=True, help="Stays in the journal: name no person in it.")
def erase_words(person: str | None, sha256: str | None, reason: str) -> None:
    """Erase what people wrote in reviews."""
    if (person is None) == (sha256 is None):
        raise InvalidRequest("give either --person or --sha256")
    request = EraseWords(person=person, sha256=sha256, reason=reason)
    with connected() as client:
        found = client.erase_words(request)
    show(found, _told(found))


def _told(found: Erased) -> str:
    told = f"{found.texts} texts are erased and {len(found.blobs)} blobs deleted; erase them from backups too"
    if found.in_journal:
        told += f"\n{found.in_journal} reasons stand in full in older entries of the journal and cannot be erased"
    return told


COMMANDS = (erase,)
