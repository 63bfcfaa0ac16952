"""How many bytes a project may keep: checked where a version announces them and again while they arrive.

A project is a namespace, or an adapter that has none. Bytes that several of its versions share count once. A version
that was announced and never completed counts for as long as its uploads are kept. So does a kept part of an upload, and
an upload that goes on counts as all that it may become.
"""

from collections.abc import Sequence
from datetime import UTC, timedelta

from registry.commands.context import Context
from registry.errors import TooLarge
from registry.inspection.adapter import LARGEST, WEIGHTS
from registry.names import project_of
from registry.records import FileEntry


def require_room(context: Context, adapter: str, files: Sequence[FileEntry]) -> None:
    """Raises TooLarge, naming every file, for announced files that no upload could bring."""
    limits = context.services.blobs.limits
    largest = {**LARGEST, WEIGHTS: limits.weights_bytes}
    over = [
        f"{file.path} has {file.size} bytes, at most {largest[file.path]} are accepted"
        for file in files
        if file.path in largest and file.size > largest[file.path]
    ]
    if over:
        raise TooLarge("; ".join(over) + "; nothing was kept")
    if limits.project_bytes is None:
        return
    used = _used(context, project_of(adapter), [file.sha256 for file in files])
    added = sum({file.sha256: file.size for file in files}.values())
    if used + added > limits.project_bytes:
        raise TooLarge(
            f"{added} bytes more than the {used} of {project_of(adapter)!r} are over its quota of "
            f"{limits.project_bytes}; ask an admin for more (TUNEGATE_PROJECT_BYTES)"
        )


def room_for(context: Context, sha256: str) -> int | None:
    """Bytes that this blob may have where the token's scope has a quota; None for just the limit of any blob.

    To be asked while the blob is counted as arriving, so that of two uploads that begin at once neither is overlooked.
    """
    quota, scope = context.services.blobs.limits.project_bytes, context.principal.scope
    if quota is None or scope is None:
        return None
    return max(0, quota - _used(context, project_of(scope), [sha256]))


def _used(context: Context, project: str, without: Sequence[str]) -> int:
    blobs = context.services.blobs
    kept_since = context.time.astimezone(UTC) - timedelta(seconds=blobs.limits.part_seconds)
    parts = blobs.parts_of(project)
    return context.view.project_bytes(project, kept_since.isoformat(timespec="microseconds"), without, parts)
