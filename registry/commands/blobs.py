"""Blobs as facts: which bytes a token limited to a scope has proven to have, by sending them, and which have rotted."""

from registry.access import may_know_blob
from registry.commands.context import Context, Outcome
from registry.errors import NotFound
from registry.events import BlobQuarantined, BlobSent


def sent(context: Context, sha256: str) -> Outcome:
    """The principal has sent these bytes whole; to be told only after they are stored and their digest was checked."""
    if not context.services.blobs.has(sha256):
        raise NotFound(f"blob sha256:{sha256} is not stored; send its bytes first")
    scope = context.principal.scope
    if scope is None or may_know_blob(context.view, context.principal, sha256):
        return Outcome(None, status=204)
    return Outcome(None, [BlobSent(sha256=sha256, scope=scope, size=context.services.blobs.size(sha256))], 204)


def quarantined(context: Context, sha256: str) -> Outcome:
    """The blob was found with other bytes than its name says, and is no longer handed out."""
    return Outcome(None, [BlobQuarantined(sha256=sha256)], 204)
