"""Every error tunegate raises on purpose, as one tree. No HTTP here: `api/problems.py` is the table to status codes.

    TunegateError
    ├── InvalidRequest            the request cannot be right; `problems` lists everything found
    │   ├── InspectionFailed      the adapter's files fail the static check; `findings`
    │   ├── DigestMismatch        bytes do not hash to what was declared
    │   ├── EvidenceRefused       evidence that contradicts itself or is about something else
    │   └── IdempotencyMismatch   the same key came with another request
    ├── RangeRefused              a resumed upload does not continue where the stored part ends; `offset`
    ├── TooLarge                  over a size limit
    ├── Unauthenticated           no token, or one that is unknown, expired or revoked
    ├── Forbidden                 the role may not do this
    ├── NotFound                  unknown, or not visible to this token
    ├── Conflict                  the state does not allow it
    │   ├── AlreadyExists         the name or digest is taken
    │   ├── StaleLease            the job was given to another worker
    │   └── GateNotSatisfied      promotion refused; carries the whole `report`
    ├── PreconditionFailed        stale If-Match
    └── Unavailable               not now
        ├── StorageFull           the disk is full; reads go on
        └── StorageDamaged        journal or catalog cannot be trusted; the service must not serve

A message is value + reason + remedy. Several problems are reported together.
"""

from collections.abc import Sequence
from typing import Any


class TunegateError(Exception):
    """Base of all deliberate errors; `str(error)` is fit for a person to read."""


class InvalidRequest(TunegateError):
    """The request cannot be right, whatever the state; `problems` lists every fault found."""

    def __init__(self, message: str, problems: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.problems = list(problems)


class InspectionFailed(InvalidRequest):
    """The static check refuses the adapter; `problems` holds one line for each finding."""


class DigestMismatch(InvalidRequest):
    """The bytes do not have the declared sha256 or size; nothing was kept."""


class EvidenceRefused(InvalidRequest):
    """Evidence that contradicts its own rows, or is about another manifest, policy or suite."""


class IdempotencyMismatch(InvalidRequest):
    """An Idempotency-Key was used again with a different request."""


class RangeRefused(TunegateError):
    """A resumed upload must continue at `offset`, the number of bytes already stored."""

    def __init__(self, message: str, offset: int) -> None:
        super().__init__(message)
        self.offset = offset


class TooLarge(TunegateError):
    """Over a size limit; nothing was kept."""


class Unauthenticated(TunegateError):
    """No token, or one that is malformed, unknown, expired or revoked."""


class Forbidden(TunegateError):
    """The token's role may not do this."""


class NotFound(TunegateError):
    """Unknown, or not visible to this token: the two are not told apart."""


class Conflict(TunegateError):
    """The present state does not allow it."""


class AlreadyExists(Conflict):
    """The name or content is already registered."""


class StaleLease(Conflict):
    """The job is no longer this worker's: its lease ended and the fencing token moved on."""


class GateNotSatisfied(Conflict):
    """Promotion refused; `report` is the whole GateReport as plain data."""

    def __init__(self, message: str, report: dict[str, Any]) -> None:
        super().__init__(message)
        self.report = report


class PreconditionFailed(TunegateError):
    """If-Match names a state that is no longer the current one; `current` is the current ETag."""

    def __init__(self, message: str, current: str) -> None:
        super().__init__(message)
        self.current = current


class Unavailable(TunegateError):
    """The service cannot do this now; try again later."""


class StorageFull(Unavailable):
    """No space left on the device; nothing was changed."""


class StorageDamaged(Unavailable):
    """Journal and catalog disagree, or one is damaged: refuse to serve rather than answer wrongly."""
