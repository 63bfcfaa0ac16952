"""tunegate erase: texts that a person or a law wants gone; scores, rulings and measurements stay."""

import click

from registry.cli.console import concrete, connected, show
from registry.errors import InvalidRequest
from registry.records import Erased, EraseOutput, EraseWords


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
    _tell(found)


@erase.command(name="output")
@click.argument("ref")
@click.argument("item", metavar="SUITE/ITEM")
@click.option("--reason", required=True, help="Stays in the journal: name no person in it.")
def erase_output(ref: str, item: str, reason: str) -> None:
    """Erase prompt and outputs of one item from a version's results; its scores stay."""
    with connected() as client:
        found = client.erase_output(concrete(client, ref).ref, EraseOutput(item=item, reason=reason))
    _tell(found)


def _tell(found: Erased) -> None:
    show(found, f"{found.texts} texts are erased and {len(found.blobs)} blobs deleted; erase them from backups too")


COMMANDS = (erase,)
