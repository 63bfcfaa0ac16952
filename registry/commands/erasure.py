"""Erasing what people wrote in reviews, where they or a law want it gone.

The journal keeps that there was a text, its sha256, who erased it and why. The bytes are deleted right behind the
entry; what a process that died in between has left goes when the same is asked again.
"""

from collections.abc import Sequence

from registry.commands.context import Context, Outcome
from registry.errors import InvalidRequest, NotFound
from registry.events import WordsErased
from registry.records import Erased, EraseWords
from registry.storage.views import StoredWords, View


def erase_words(context: Context, request: EraseWords) -> Outcome:
    """Erase comments and reasons of one person, or of whoever wrote just these bytes. Scores and rulings stay."""
    if (request.person is None) == (request.sha256 is None):
        raise InvalidRequest("give either `person` or `sha256`: whose words, or which")
    found = [
        one for one in context.view.words_like(request.person, request.sha256) if _may_erase(context, one.campaign)
    ]
    in_journal = sum(_may_erase(context, one) for one in context.view.told_in_full(request.person))
    if not found and not in_journal:
        whose = f"{request.person!r} wrote" if request.person is not None else f"has sha256 {request.sha256}"
        raise NotFound(f"nothing that {whose} in a review is known to this token; names are spelled as in their tokens")
    there = [one for one in found if not one.erased]
    digests = sorted({one.sha256 for one in found})
    gone = [one for one in digests if not is_needed(context.view, one, without=found)]
    event = WordsErased(
        about=sorted({one.about for one in there}),
        texts=sorted({one.sha256 for one in there}),
        reason=request.reason,
        person=request.person,
    )
    answer = Erased(texts=len(there), blobs=gone, in_journal=in_journal)
    return Outcome(answer, [event] if there else [], discard=digests)


def discard_unneeded(context: Context, blobs: Sequence[str]) -> Outcome:
    """Delete those of these blobs that nothing needs."""
    return Outcome(None, status=204, discard=blobs)


def is_needed(view: View, sha256: str, without: Sequence[StoredWords] = ()) -> bool:
    """Whether these bytes are somebody's words that were not erased, `without` some, or no words at all."""
    gone = {(one.about, one.sha256) for one in without}
    words = [one for one in view.words_like(None, sha256) if not one.erased]
    return bool(view.holders(sha256)) or any((one.about, one.sha256) not in gone for one in words)


def _may_erase(context: Context, campaign: str) -> bool:
    found = context.view.campaign(campaign)
    return found is not None and context.principal.may_see(found.adapter)
