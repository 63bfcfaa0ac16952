"""Erasing texts that a law or a person wants gone: what people wrote in reviews, and what a model was asked and said.

The journal keeps that there was a text, its sha256, who erased it and why. A command changes no blob itself: what may
be deleted stands in its answer, and is deleted once the entry is written. Asked again, the answer is the same.
"""

from typing import NamedTuple

from registry.commands.context import Context, Outcome
from registry.commands.versions import find_version
from registry.errors import Conflict, InvalidRequest, NotFound
from registry.events import OutputErased, WordsErased
from registry.records import Erased, EraseOutput, EraseWords
from registry.storage.views import ERASED, StoredWords


def erase_words(context: Context, request: EraseWords) -> Outcome:
    """Erase comments and reasons of one person, or of whoever wrote just these bytes. Scores and rulings stay."""
    if (request.person is None) == (request.sha256 is None):
        raise InvalidRequest("give either `person` or `sha256`: whose words, or which")
    found = [one for one in context.view.words_like(request.person, request.sha256) if _may_erase(context, one)]
    if not found:
        whose = f"{request.person!r} wrote" if request.person is not None else f"has sha256 {request.sha256}"
        raise NotFound(f"nothing that {whose} in a review is known to this token; names are spelled as in their tokens")
    there = [one for one in found if not one.erased]
    digests = sorted({one.sha256 for one in found})
    answer = Erased(texts=len(there), blobs=[one for one in digests if not _needed(context, one, found)])
    event = WordsErased(
        about=sorted({one.about for one in there}),
        texts=sorted({one.sha256 for one in there}),
        reason=request.reason,
        person=request.person,
    )
    return Outcome(answer, [event] if there else [])


def _may_erase(context: Context, one: StoredWords) -> bool:
    campaign = context.view.campaign(one.campaign)
    return campaign is not None and context.principal.may_see(campaign.adapter)


def _needed(context: Context, sha256: str, erased: list[StoredWords]) -> bool:
    """Whether the same bytes are somebody else's words, or no words at all."""
    gone = {(one.about, one.sha256) for one in erased}
    others = [one for one in context.view.words_like(None, sha256) if not one.erased]
    return bool(context.view.holders(sha256)) or any((one.about, one.sha256) not in gone for one in others)


def still_unneeded(context: Context, blobs: list[str]) -> list[str]:
    """Those that nothing has come to need since they were erased."""
    return [one for one in blobs if not _needed(context, one, [])]


# -- outputs ------------------------------------------------------------------------------------------------------


class Place(NamedTuple):
    """Where the texts of an item stand, or stood: in the blob `rows`, as `item` of `suite`."""

    rows: str
    suite: str
    item: str
    erased: bool


def place_of(context: Context, adapter: str, number: int, request: EraseOutput) -> Place:
    """Raises NotFound where the version has no such item, or it has no text; Conflict while people rate it."""
    stored = find_version(context, adapter, number)
    name, _, source = request.item.rpartition("/")
    rows = context.view.rows_now(adapter, number)
    found = context.view.told(adapter, number, name, source)
    if rows is None or not found:
        raise NotFound(f"{stored.ref} has no text of an item {request.item!r}; write SUITE/ITEM, as in its results")
    suite, erased = found[0].suite, all(ERASED in (row.prompt, row.output) for row in found)
    if not erased and (rated := context.view.rated_from(rows, suite, source)):
        raise Conflict(
            f"people judge this output in the review of {rated}: end it first, with `tunegate review seal {rated}` or "
            f"`tunegate reject {rated}`"
        )
    return Place(rows, suite, source, erased)


def erase_output(context: Context, adapter: str, number: int, request: EraseOutput, place: Place, kept: str) -> Outcome:
    """Put the rows without these texts, stored as the blob `kept`, in the place of those that hold them."""
    now = place_of(context, adapter, number, request)
    if now.erased:
        return Outcome(Erased(texts=0, blobs=context.view.rows_before(now.rows)))
    if now != place:
        raise Conflict("the version's results changed meanwhile; send it again")
    event = OutputErased(
        adapter=adapter,
        number=number,
        suite=place.suite,
        item=place.item,
        rows=place.rows,
        kept=kept,
        reason=request.reason,
    )
    return Outcome(Erased(texts=1, blobs=[place.rows]), [event])
