"""The texts that a review is about, and those that people write in it: wherever they lie."""

from collections.abc import Sequence
from functools import lru_cache

from registry.commands.context import Context
from registry.errors import BlobDamaged, NotFound
from registry.records import Words
from registry.storage.blobs import LocalBlobs
from registry.storage.views import StoredItem, StoredVersion, StoredWords
from registry.suites import GoldItem, read_suite


def texts_of(context: Context, stored: StoredVersion, item: StoredItem) -> tuple[str, str] | None:
    """Prompt and output of an item as it is shown; None where their blob is lost.

    Of every item both places are looked into: how long it takes must not tell which are gold.
    """
    gold = {one.id: (one.prompt, one.output) for one in gold_items(context, item.suite)}
    answered = context.view.shown(stored.adapter, item.number, item.suite, item.source, item.subject)
    return gold.get(item.source) if item.subject == "gold" else answered


def gold_items(context: Context, ref: str) -> Sequence[GoldItem]:
    """Of a registered suite, whose content its digests fix."""
    suite = context.view.suites()[ref]
    return _gold_items(context.services.blobs, tuple((file.path, file.sha256) for file in suite.files))


@lru_cache(maxsize=16)
def _gold_items(blobs: LocalBlobs, files: tuple[tuple[str, str], ...]) -> Sequence[GoldItem]:
    return read_suite({path: blobs.read(sha256) for path, sha256 in files}).gold


# -- what people write --------------------------------------------------------------------------------------------


class Written:
    """What people wrote, by what it is about: blobs, beside what the journal says of them.

    Bytes that were erased and came back, as another's words, are not what was erased.
    """

    def __init__(self, context: Context, words: Sequence[StoredWords]) -> None:
        self._context = context
        self._at = {(one.about, one.seq): one for one in words}
        self._last = {one.about: one for one in words}

    def at(self, about: str, seq: int) -> Words:
        """What was written in one entry of the journal; nothing, mostly."""
        return self._read(self._at.get((about, seq)))

    def last(self, about: str, prose: str | None = None) -> Words:
        """The last that was written. prose: what an older entry says itself."""
        return Words(text=prose) if prose else self._read(self._last.get(about))

    def _read(self, stored: StoredWords | None) -> Words:
        if stored is None or stored.erased:
            return Words(erased=stored is not None)
        try:
            return Words(text=self._context.services.blobs.read(stored.sha256).decode())
        except (NotFound, BlobDamaged):
            return Words()
