"""Human review: campaigns, what a reviewer sees of them and says, and what was counted in the end."""

from enum import StrEnum
from typing import Annotated

from msgspec import Meta

from registry.records.words import Count, Digest, Record, Request, Score, Sha256, Text, Word

CRITERIA = ("clarity", "relevance", "safety", "accuracy")


class ItemKind(StrEnum):
    """What an item of a campaign is for. Only ratings of candidates decide; the others test reviewers and scale."""

    CANDIDATE = "candidate"
    CONTROL = (
        "control"  # the output of the approved version, or of the base, for a prompt that the candidate answers too
    )
    GOLD = "gold"  # an output of known quality
    DUPLICATE = "duplicate"  # a candidate's output that is shown a second time


class Bounds(Request):
    """How a gold item is to be rated on one criterion."""

    min: Score = 1
    max: Score = 5


class Channel(StrEnum):
    """How a rating came in."""

    WEB = "web"
    API = "api"
    CSV = "csv"


# -- what a reviewer sends and sees -------------------------------------------------------------------------------


class Rating(Request):
    """hash: of the item as it was shown, where the reviewer's tool keeps it; another item's is refused."""

    clarity: Score
    relevance: Score
    safety: Score
    accuracy: Score
    hallucination: bool
    unsafe: bool = False
    discuss: bool = False
    comment: Text | None = None
    hash: Sha256 | None = None


class Skip(Request):
    reason: Annotated[str, Meta(min_length=1, max_length=4000)]


class Assignment(Record):
    """One blinded item: nothing in it tells which version, author, kind or score it belongs to.

    position: from 1, in the order in which this reviewer meets the items. rating: the reviewer's own last word on it.
    """

    id: str
    prompt: str
    output: str
    position: int
    total: int
    hash: Sha256
    state: str = "open"  # or "rated", "skipped"
    rating: Rating | None = None


class ReviewProgress(Record):
    rated: int
    skipped: int
    total: int


# -- experts ------------------------------------------------------------------------------------------------------


class AddReviewer(Request):
    """Vouches that a person may review in a domain between two dates (ISO 8601). Whoever sends it is who vouches.

    scope: the adapters that it is said of, an adapter or a namespace; None for all.
    """

    person: Word
    domain: Word
    credential: Word
    valid_from: Word
    valid_until: Word
    issuer: Word | None = None
    scope: Word | None = None


class ReviewerInfo(Record):
    """A person's standing in one domain, as it was vouched for; withdrawn_at: from when on it no longer counts."""

    id: str
    person: str
    domain: str
    credential: str
    issuer: str | None
    valid_from: str
    valid_until: str
    vouched_by: str
    vouched_at: str
    withdrawn_at: str | None = None
    scope: str | None = None


# -- what is counted ----------------------------------------------------------------------------------------------


class RatingRow(Record, frozen=True, omit_defaults=True):
    """One person's last word on one item, as the gate sees it.

    item: names the prompt: a control and a duplicate bear the name of the candidate that they stand beside, so one item
    may have a row of each kind. position: when in their order the person met it, from 1. seconds: from first showing to
    rating, by the server's clock. words: of prompt and output. gold_passed: whether a gold item's known bounds held
    when it was first rated; None for other kinds. gold_low: a gold item that no high score passes. first: the scores
    given first, where a correction changed them. lapsed: no record of the person's was valid when they rated it.
    """

    person: str
    item: str
    clarity: Score
    relevance: Score
    safety: Score
    accuracy: Score
    hallucination: bool
    unsafe: bool = False
    kind: ItemKind = ItemKind.CANDIDATE
    position: Count = 0
    seconds: float | None = None
    words: Count = 0
    gold_passed: bool | None = None
    channel: Channel = Channel.API
    gold_low: bool = False
    first: tuple[Score, Score, Score, Score] | None = None
    lapsed: bool = False


class Adjudication(Record):
    """What an expert who took no part in the campaign says of an item that was rated unsafe."""

    item: str
    upheld: bool
    person: str


class ReviewFacts(Record):
    """What a campaign's ratings are counted by, beside the policy and the ratings themselves.

    sealed: no rating is added any more. gold: how many gold items each person is shown; gold_low: how many of them no
    high score passes. barred: whose ratings cannot
    count whatever they rate, with the names of the rules (see `registry.review.standing`). finished, rated: how many
    people and ratings there are where the ratings themselves are not told, as before the seal to who is not the gate.
    earlier: rejected versions of the same weights. reviewed_before, rejected_before: as in a Campaign. differs: whether
    the rules of today come to another result on the ratings than the one that the campaign was sealed with.
    """

    sealed: bool = False
    gold: Count = 0
    finished: Count = 0
    rated: Count = 0
    barred: dict[str, list[str]] = {}
    adjudications: list[Adjudication] = []
    gold_low: Count = 0
    earlier: list[str] = []
    reviewed_before: Count = 0
    rejected_before: Count = 0
    differs: bool = False


class Adjudicate(Request):
    upheld: bool
    reason: Annotated[str, Meta(min_length=1, max_length=4000)]


class Dispute(Record):
    """An output that a reviewer rated unsafe, shown to an uninvolved expert. Opaque as an assignment is."""

    id: str
    prompt: str
    output: str
    scores: list[int]  # every safety score at or below the veto, lowest first


class AssignmentInfo(Record):
    """One of a reviewer's own items, without its texts."""

    id: str
    position: int
    state: str


# -- what managers and auditors see -------------------------------------------------------------------------------


class ReviewerProgress(Record):
    """How far one person is; no scores. looks_behind: they can rate no more, for they hold, or held while the review
    was open, a token that shows what is kept from reviewers."""

    person: str
    rated: Count
    skipped: Count
    total: Count
    looks_behind: bool = False


class Campaign(Record):
    """How far a campaign is. No scores before it is sealed. `root`: over the hashes of its items.

    reviewed_before, rejected_before: how many earlier versions of the adapter people reviewed, each by a draw of its
    own, and how many of those were refused.
    """

    id: str
    ref: str
    items: int
    reviewers: int
    complete: int
    opened_at: str
    root: Digest
    progress: list[ReviewerProgress] = []
    disputes: Count = 0  # safety vetoes that wait for an uninvolved expert
    sealed_at: str | None = None
    reviewed_before: Count = 0
    rejected_before: Count = 0


class CriterionResult(Record):
    """One criterion over the counted ratings of candidates; bounds are one-sided and clustered by item.

    histogram: how often each score from 1 to 5 was given. agreement: share of pairs of ratings of one item that are
    equal. alpha: Krippendorff's, ordinal. ac2: Gwet's, ordinal weights. Any may be None where it is undefined.
    difference: candidate minus control on the prompts that both answered, with its bounds.
    """

    criterion: str
    mean: float
    lower: float | None
    upper: float | None
    histogram: list[Count]
    agreement: float | None
    alpha: float | None
    ac2: float | None
    difference: float | None = None
    difference_lower: float | None = None
    difference_upper: float | None = None


class Excluded(Record):
    """Whose ratings do not count, and by which rule. item: None where all of the person's do not."""

    person: str
    rule: str
    reason: str
    item: str | None = None


class ReviewResult(Record):
    """What a sealed campaign came to; follows from the journal alone. root: over every rating, counted or not."""

    counted: list[str]  # persons
    ratings: Count
    criteria: list[CriterionResult]
    hallucination_rate: float | None
    hallucination_upper: float | None
    excluded: list[Excluded]
    vetoes: list[str]  # items whose safety was rated at or below the policy's veto and not cleared
    gold: dict[str, float]  # person → share of gold items passed
    consistency: float | None  # share of duplicate ratings within one point of the first on every criterion
    root: Digest


class Words(Record):
    """What a person wrote. text: None where it is gone; erased: because it was erased, and the journal says so."""

    text: str | None = None
    erased: bool = False


class ItemRating(Record):
    """One person's last word on one item of a sealed campaign. counted: whether it is among those that decide.

    comment: None where nothing was written, or where the words are gone. revisions: how often they rated it.
    """

    person: str
    clarity: Score
    relevance: Score
    safety: Score
    accuracy: Score
    hallucination: bool
    unsafe: bool
    discuss: bool
    comment: str | None
    channel: Channel
    seconds: float | None
    revisions: Count
    counted: bool
    comment_erased: bool = False


class Skipped(Record):
    """Who left an item to others, and why."""

    person: str
    reason: Words


class ReviewedItem(Record):
    """One item of a sealed campaign as a manager sees it. prompt and output are None where their blob is lost.

    subject: whose answer it is: the candidate's, the base's, another version's (its ref), or a gold item's own.
    ruling: what an uninvolved expert said of it, where it was rated unsafe, and ruling_reason, why.
    """

    item: str
    kind: ItemKind
    hash: Sha256
    subject: str
    prompt: str | None
    output: str | None
    ratings: list[ItemRating]
    ruling: Adjudication | None = None
    ruling_reason: Words | None = None
    skipped: list[Skipped] = []


class SealCampaign(Request):
    """Ends a campaign with the ratings that there are."""

    reason: Annotated[str, Meta(min_length=1, max_length=4000)]


# -- erasing ------------------------------------------------------------------------------------------------------


class EraseWords(Request):
    """Erases what was written in reviews: all of one person's words, or all that has these bytes."""

    reason: Annotated[str, Meta(min_length=1, max_length=4000)]
    person: Word | None = None
    sha256: Sha256 | None = None


class Erased(Record):
    """texts: how many were erased. blobs: those that nothing needs any more, and that are deleted.

    in_journal: how many reasons of the person older entries of the journal say in full; nothing erases those.
    """

    texts: Count
    blobs: list[Sha256]
    in_journal: Count = 0
