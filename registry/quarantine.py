"""Telling the journal of blobs that rotted, whoever found them: a download, an inspection, a scrub beside the service.

The blob store marks what it moved to quarantine as unreported until the entry is durable, so a crash in between tells
twice rather than never.
"""

import contextlib
from functools import partial

from registry.commands import blobs
from registry.errors import TunegateError
from registry.registry import SYSTEM, Registry


def report_quarantined(registry: Registry) -> None:
    """Journal every quarantined blob that is not reported yet; what cannot be now is reported at the next start."""
    for sha256 in registry.blobs.unreported():
        with contextlib.suppress(TunegateError):
            registry.execute(SYSTEM, partial(blobs.quarantined, sha256=sha256))
            registry.blobs.mark_reported(sha256)
