"""Which blobs the journal names: the one answer for backup, scrub and collection. Pure.

A blob is stored before the entry that names it, with one exception: a submitted version announces its files before they
are uploaded. Two kinds may be deleted again: what people write in a review, so that the words can go and the journal
stay whole, and bytes that were sent but are of no version. What was erased is named no more.
"""

from collections.abc import Iterable
from typing import NamedTuple

from registry.events import (
    AnyEvent,
    AssignmentSkipped,
    BlobSent,
    DisputeAdjudicated,
    EvidenceRecorded,
    RatingRecorded,
    SuiteRegistered,
    TrainingSubmitted,
    VersionCreated,
    VersionSubmitted,
    WordsErased,
)

_DELETABLE = ("comment", "sent")


class Named(NamedTuple):
    """One blob as an event names it. `purpose`: suite, file, dataset, ledger, items, comment or sent.

    A comment is whatever people write in a review. about: what it is about, as in `events.WordsErased`.
    """

    sha256: str
    purpose: str
    about: str = ""


def blobs_named(event: AnyEvent) -> list[Named]:
    """Every blob that the event names, stored or not, in the event's own order."""
    match event:
        case SuiteRegistered(files=files):
            return [Named(file.sha256, "suite") for file in files]
        case VersionCreated(files=files, training=training):
            named = [Named(file.sha256, "file") for file in files]
            if training is not None:
                named += [Named(_hex(training.dataset), "dataset"), Named(_hex(training.ledger), "ledger")]
            return named
        case EvidenceRecorded(evidence=evidence):
            return [Named(evidence.rows, "items")]
        case TrainingSubmitted(dataset=dataset, replay=replay, preferences=preferences):
            return [Named(_hex(one), "dataset") for one in (dataset, replay, preferences) if one is not None]
        case RatingRecorded(assignment=about, comment=str(words)) | AssignmentSkipped(id=about, words=str(words)):
            return [Named(words, "comment", about)]
        case DisputeAdjudicated(campaign=campaign, item=item, words=str(words)):
            return [Named(words, "comment", f"{campaign}/{item}")]
        case BlobSent(sha256=sha256):
            return [Named(sha256, "sent")]
        case _:
            return []


class References:
    """The blobs that a journal names, gathered event by event.

    named: all of them. needed: those that must be stored, or something that was accepted is lost. The rest may be
    missing: files of versions that were never completed, comments, and bytes sent for nothing. comments: those alone.
    """

    def __init__(self) -> None:
        self.named: set[str] = set()
        self.needed: set[str] = set()
        self.comments: set[str] = set()
        self._announced: dict[tuple[str, int], set[str]] = {}
        self._about: dict[str, set[str]] = {}

    def add(self, event: AnyEvent) -> None:
        found = blobs_named(event)
        kept = {one.sha256 for one in found if one.purpose not in _DELETABLE}
        self.named.update(one.sha256 for one in found)
        for one in found:
            if one.purpose == "comment":
                self.comments.add(one.sha256)
                self._about.setdefault(one.sha256, set()).add(one.about)
        match event:
            case WordsErased(about=about, texts=texts):
                for sha256 in texts:
                    self._erase(sha256, about)
            case VersionCreated(adapter=adapter, number=number):
                self._announced[adapter, number] = kept
            case VersionSubmitted(adapter=adapter, number=number):
                self.needed |= self._announced.pop((adapter, number), set())
            case _:
                self.needed |= kept

    def _erase(self, sha256: str, about: Iterable[str]) -> None:
        """Others may have written the same words, and bytes of another kind be the same."""
        left = self._about.get(sha256, set())
        left.difference_update(about)
        if not left:
            self.comments.discard(sha256)
            self.named -= {sha256} - self.needed.union(*self._announced.values())


def _hex(digest: str) -> str:
    return digest.removeprefix("sha256:")
