"""What rows say of their review that cannot be so: a review that is still to come.

A run looks at its data once and keeps what it found, so the clock that is asked here decides nothing when it resumes.
"""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

from trainer.preflight.codes import Problem, found
from trainer.preflight.reading import Row
from trainer.provenance import is_after


def check_reviews(rows: Sequence[Row], now: datetime | None = None) -> Iterator[Problem]:
    """now: None for the clock's. A date without a zone is UTC's, and one that names no hour is past once it begins."""
    now = now or datetime.now(UTC)
    for row in rows:
        said = row.provenance.get("reviewed_at", "")
        if is_after(said, now):
            message = f"reviewed_at is {said[:40]!r}, and it is {now:%Y-%m-%dT%H:%MZ}"
            yield found("E253", message, row=row.number, line=row.line)
