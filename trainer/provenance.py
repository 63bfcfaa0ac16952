"""What a recipe requires of a row's provenance: fields that are there, and a reviewer who was licensed. Pure.

    {…, "reviewer": "dr-huber", "credential": "physician AT-1234",
     "reviewed_at": "2026-03-01", "credential_valid_until": "2027-12-31"}

A review counts if the credential was valid when it was made, not today: a licence that ran out or was taken away before
makes the review void, one that runs out later does not. A revoked credential is valid until it was revoked.
"""

from collections.abc import Collection, Mapping
from datetime import UTC, date, datetime, time

REVIEW = ("reviewer", "credential", "reviewed_at", "credential_valid_until")


def lacking(provenance: Mapping[str, str], require: Collection[str], *, licensed_review: bool) -> str:
    """Why a row must not train, or nothing. Fails closed: a date that is missing or cannot be read is none.

    >>> dates = {"reviewed_at": "2026-03-02", "credential_valid_until": "2026-03-01"}
    >>> lacking({"reviewer": "a", "credential": "b", **dates}, (), licensed_review=True)
    'the credential of a ran out on 2026-03-01, before the review of 2026-03-02'
    """
    needed = [*require, *(key for key in REVIEW if licensed_review and key not in require)]
    if missing := [key for key in needed if not provenance.get(key, "").strip()]:
        return f"without {', '.join(missing)}"
    if not licensed_review:
        return ""
    said_at, said_until = provenance["reviewed_at"], provenance["credential_valid_until"]
    reviewed, until = moment(said_at, end=True), moment(said_until, end=True)
    if reviewed is None or until is None:
        return f"{said_at if reviewed is None else said_until!r} is no date"
    if reviewed > until:
        return f"the credential of {provenance['reviewer']} ran out on {said_until}, before the review of {said_at}"
    return ""


def moment(text: str, *, end: bool = False) -> datetime | None:
    """An ISO 8601 date or time, UTC where it names no zone; of a date its first moment, or its last. None for others.

    >>> moment("2026-03-01", end=True), moment("yesterday")
    (datetime.datetime(2026, 3, 1, 23, 59, 59, 999999, tzinfo=datetime.timezone.utc), None)
    """
    try:
        if len(text.strip()) == len("2026-03-01"):
            day = date.fromisoformat(text.strip())
            return datetime.combine(day, time.max if end else time.min, UTC)
        found = datetime.fromisoformat(text.strip())
        return (found if found.tzinfo else found.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        return None
