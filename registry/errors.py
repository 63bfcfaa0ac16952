"""Every error tunegate raises on purpose, as one tree. No HTTP here: `api/problems.py` is the table to status codes.

    TunegateError
    ├── InvalidRequest            the request cannot be right; `problems` lists everything found
    │   ├── InspectionFailed      the adapter's files fail the static check; `findings`
    │   ├── DigestMismatch        bytes do not hash to what was declared
    │   ├── EvidenceRefused       evidence that contradicts itself or is about something else
    │   ├── IdempotencyMismatch   the same key came with another request
    │   └── AddressRefused        a URL that this service must not call
    ├── RangeRefused              a resumed upload does not continue where the stored part ends; `offset`
    ├── TooLarge                  over a size limit
    ├── Unauthenticated           no token, or one that is unknown, expired or revoked
    ├── Forbidden                 the role may not do this
    ├── NotFound                  unknown, or not visible to this token
    ├── Conflict                  the state does not allow it
    │   ├── AlreadyExists         the name or digest is taken
    │   ├── Revoked               these files were revoked for good
    │   ├── StaleLease            the job was given to another worker
    │   └── GateNotSatisfied      promotion refused; carries the whole `report`
    ├── PreconditionFailed        stale If-Match
    ├── TooManyRequests           over a rate limit; `retry_seconds`
    ├── WrongHost                 the request names a host that this service does not answer for
    ├── BlobDamaged               the bytes of one blob have rotted; nothing else is affected
    └── Unavailable               not now
        ├── OutboundFailed        another server did not answer as it should
        ├── StorageFull           the disk is full; reads go on
        └── StorageDamaged        journal or catalog cannot be trusted; the service must not serve

A message is value + reason + remedy. Several problems are reported together.
"""

from collections.abc import Sequence
from typing import Any, Literal

# Why a token that is known here was refused.
Refusal = Literal["revoked", "expired", "role"]


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


class AddressRefused(InvalidRequest):
    """A URL that this service must not call: not https, or not at a public address."""


class RangeRefused(TunegateError):
    """A resumed upload must continue at `offset`, the number of bytes already stored.

    `size` instead: the range that was asked for lies outside a blob of so many bytes.
    """

    def __init__(self, message: str, offset: int = 0, *, size: int | None = None) -> None:
        super().__init__(message)
        self.offset, self.size = offset, size


class TooLarge(TunegateError):
    """Over a size limit; nothing was kept."""


class Unauthenticated(TunegateError):
    """No token, or one that is malformed, unknown, expired or revoked.

    token, reason: the id of a token that is known here, and whether it was `revoked` or has `expired`.
    """

    def __init__(self, message: str, *, token: str | None = None, reason: Refusal | None = None) -> None:
        super().__init__(message)
        self.token, self.reason = token, reason


class Forbidden(TunegateError):
    """The token's role may not do this."""


class NotFound(TunegateError):
    """Unknown, or not visible to this token: the two are not told apart."""


class Conflict(TunegateError):
    """The present state does not allow it."""


class AlreadyExists(Conflict):
    """The name or content is already registered."""


class Revoked(Conflict):
    """These files are a version that was revoked: no upload, evaluation or promotion brings it back."""


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


class TooManyRequests(TunegateError):
    """Over a rate limit; the next request is accepted in `retry_seconds`, a whole number of at least 1."""

    def __init__(self, message: str, retry_seconds: int) -> None:
        super().__init__(message)
        self.retry_seconds = retry_seconds


class WrongHost(TunegateError):
    """The Host header names none of the hosts that this service answers for."""


class BlobDamaged(TunegateError):
    """The stored bytes of one blob are not what its name says; in quarantine until someone sends them again."""


class Unavailable(TunegateError):
    """The service cannot do this now; try again later."""


class OutboundFailed(Unavailable):
    """Another server could not be reached, or did not answer whole, in HTTP and in time."""


class StorageFull(Unavailable):
    """No space left on the device; nothing was changed."""


class StorageDamaged(Unavailable):
    """Journal and catalog disagree, or one is damaged: refuse to serve rather than answer wrongly."""
