"""Whether a person with a valid credential reviewed a row, by what its data say of that review. Pure.

    {…, "reviewer": "dr-huber", "credential": "physician AT-1234",
     "reviewed_at": "2026-03-01", "credential_valid_until": "2027-12-31"}

A review counts if the credential was valid when it was made, not today: a licence that ran out or was taken away before
makes the review void, one that runs out later does not. A revoked credential is valid until it was revoked. The trainer
keeps rows out by this rule where a recipe asks, and the registry counts what trained by it. Closed by default.

Who reviewed, and with what credential, is said in letters or digits: signs that cannot be seen name nobody.
"""

import re
from collections.abc import Mapping
from datetime import UTC, date, datetime, time

REVIEW_FIELDS = ("reviewer", "credential", "reviewed_at", "credential_valid_until")
MOST_CHARACTERS = 200
# A letter or a digit, but for the four letters that cannot be seen: they fill a gap in a Korean syllable.
_SEEN = re.compile("[^\\W_\u115f\u1160\u3164\uffa0]")


def void_review(provenance: Mapping[str, str], by: datetime | None = None) -> str:
    """Why a row's review does not count, or nothing. by: when it must have been made at the latest, where that matters.

    >>> dates = {"reviewed_at": "2026-03-02", "credential_valid_until": "2026-03-01"}
    >>> void_review({"reviewer": "a", "credential": "b", **dates})
    'the credential of a ran out on 2026-03-01, before the review of 2026-03-02'
    """
    if missing := [key for key in REVIEW_FIELDS if not _SEEN.search(provenance.get(key, ""))]:
        return f"without {', '.join(missing)}"
    if long := [key for key in REVIEW_FIELDS if len(provenance[key]) > MOST_CHARACTERS]:
        return f"{long[0]} has {len(provenance[long[0]])} characters, {MOST_CHARACTERS} at most"
    said_at, said_until = provenance["reviewed_at"], provenance["credential_valid_until"]
    reviewed, until = moment(said_at, end=True), moment(said_until, end=True)
    if reviewed is None or until is None:
        return f"{said_at if reviewed is None else said_until!r} is no date"
    if reviewed > until:
        return f"the credential of {provenance['reviewer']} ran out on {said_until}, before the review of {said_at}"
    if by is not None and is_after(said_at, by):
        return f"the review of {said_at} had not been made on {by:%Y-%m-%d}"
    return ""


def is_after(text: str, now: datetime) -> bool:
    """Whether a date or time is still to come; a day is not, once it has begun. What is no date is none.

    >>> now = datetime(2026, 3, 1, 8, tzinfo=UTC)
    >>> is_after("2026-03-01", now), is_after("2026-03-01T09:00", now), is_after("2026-03-02", now)
    (False, True, True)
    """
    found = moment(text)
    return found is not None and found > now


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
