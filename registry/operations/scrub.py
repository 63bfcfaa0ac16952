"""Reading back what is stored: what rotted goes into quarantine, what is missing is named, what is left over counted.

Works beside a running service. Only collecting needs the service to be stopped.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from msgspec import Struct

from registry.audit.references import References
from registry.errors import BlobDamaged, InvalidRequest, NotFound
from registry.settings import Home, Limits
from registry.storage.blobs import LocalBlobs, StoredBlob
from registry.storage.journal import FileJournal, read_chain


class Scrubbed(Struct, frozen=True, kw_only=True):
    """What a scrub found and did; digests are sha256 in hex.

    damaged: in quarantine, found now or earlier, and not sent again since. missing: the journal counts on them.
    left_over: blobs that nothing names, older than an unfinished upload may be; collected: how many were deleted.
    idle: blobs that the journal names and counts on for nothing, such as the files of versions that were never
    completed; they are never deleted, since whoever announced them may complete them still.
    """

    checked: int
    size_bytes: int
    damaged: list[str]
    missing: list[str]
    stale_parts: int
    left_over: int
    left_over_bytes: int
    collected: int
    idle: int
    idle_bytes: int

    @property
    def clean(self) -> bool:
        """Whether everything that something counts on is there, whole."""
        return not self.damaged and not self.missing


def scrub(
    home: Home,
    limits: Limits,
    *,
    bytes_per_second: float,
    collect: bool = False,
    clock: Callable[[], float] = time.time,
    sleep: Callable[[float], None] = time.sleep,
    progress: Callable[[int, int], None] = lambda checked, of: None,
) -> Scrubbed:
    """Hash every stored blob, at most `bytes_per_second` of them, and compare what is there with the journal.

    collect: delete blobs that nothing names. Raises StorageDamaged for it while a service holds the journal, or for a
    journal that does not verify.
    """
    if not home.journal.exists():
        raise InvalidRequest(f"there is no journal in {home.root}; set TUNEGATE_HOME to the registry's home")
    blobs = LocalBlobs(home.blobs, limits=limits)
    # Collecting comes first: reading back may take hours, and needs no service to be stopped.
    with _references(home, alone=collect) as references:
        before = clock() - limits.part_seconds
        old = [one for one in blobs.stored() if one.modified < before and one.sha256 not in references.needed]
        left_over = [one for one in old if one.sha256 not in references.named]
        idle = [one for one in old if one.sha256 in references.named - references.comments]
        if collect:
            for one in left_over:
                blobs.discard(one.sha256)
            blobs.discard_healed()
    stale_parts = blobs.drop_stale_parts(clock())
    checked, size = _check_all(blobs, _Pace(bytes_per_second, sleep), progress)
    damaged = blobs.quarantined()
    missing = sorted(one for one in references.needed if not blobs.has(one) and one not in damaged)
    return Scrubbed(
        checked=checked,
        size_bytes=size,
        damaged=damaged,
        missing=missing,
        stale_parts=stale_parts,
        left_over=len(left_over),
        left_over_bytes=sum(one.size for one in left_over),
        collected=len(left_over) if collect else 0,
        idle=len(idle),
        idle_bytes=sum(one.size for one in idle),
    )


def _check_all(blobs: LocalBlobs, pace: "_Pace", progress: Callable[[int, int], None]) -> tuple[int, int]:
    """Check every blob; how many, and their bytes. Named or not: what is stored may be named in the next moment."""
    stored: list[StoredBlob] = list(blobs.stored())
    checked = size = 0
    for number, one in enumerate(stored, start=1):
        # Damage shows in the quarantine; what was taken away meanwhile is named by nothing, or missing.
        with suppress(BlobDamaged, NotFound):
            size += blobs.check(one.sha256, pace.spend)
            checked += 1
        progress(number, len(stored))
    return checked, size


@contextmanager
def _references(home: Home, *, alone: bool) -> Iterator[References]:
    """What the journal names, read up to its present end.

    alone: and nobody can append while this lasts. A version that is submitted at this moment counts on blobs that are
    stored already and that nothing named until now; without the lock one of them could be deleted under it.
    """
    references = References()
    journal = FileJournal(home.journal) if alone else None
    try:
        for line in journal.read() if journal else read_chain(home.journal):
            for event in line.entry.events:
                references.add(event)
        yield references
    finally:
        if journal:
            journal.close()


class _Pace:
    """Sleeps so that, on average since the beginning, no more bytes a second are spent."""

    def __init__(self, bytes_per_second: float, sleep: Callable[[float], None]) -> None:
        self._rate, self._sleep = bytes_per_second, sleep
        self._began, self._spent = time.monotonic(), 0

    def spend(self, size: int) -> None:
        self._spent += size
        ahead = self._spent / self._rate - (time.monotonic() - self._began)
        if ahead > 0:
            self._sleep(ahead)
