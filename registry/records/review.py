"""Human review: ratings and what a reviewer and a release manager see of a campaign."""

from typing import Annotated

from msgspec import Meta

from registry.records.words import Record, Request, Score, Text

CRITERIA = ("clarity", "relevance", "safety", "accuracy")


class RatingRow(Record):
    """One counted or uncounted rating, as the gate sees it."""

    person: str
    item: str
    clarity: Score
    relevance: Score
    safety: Score
    accuracy: Score
    hallucination: bool


class Rating(Request):
    clarity: Score
    relevance: Score
    safety: Score
    accuracy: Score
    hallucination: bool
    comment: Text | None = None


class Skip(Request):
    reason: Annotated[str, Meta(min_length=1, max_length=4000)]


class Campaign(Record):
    id: str
    ref: str
    items: int
    reviewers: int
    complete: int


class Assignment(Record):
    """One blinded item: nothing in it tells which version, author or score it belongs to."""

    id: str
    prompt: str
    output: str
    position: int
    total: int


class ReviewProgress(Record):
    rated: int
    skipped: int
    total: int
