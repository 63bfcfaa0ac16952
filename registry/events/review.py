"""Human review: who is vouched for, what a campaign shows, what people say, and what it came to."""

from msgspec import Struct

from registry.events.event import Event
from registry.records import Bounds, Channel, Digest, Excluded, ItemKind, Sha256


class ReviewerVouched(Event, frozen=True, tag="reviewer.vouched"):
    """The actor vouches that a person may review in a domain, from one moment to another (both included).

    scope: the adapters that this is said of, an adapter or a namespace; None for all.
    """

    id: str
    person: str
    domain: str
    credential: str
    valid_from: str
    valid_until: str
    issuer: str | None = None
    scope: str | None = None


class ReviewerWithdrawn(Event, frozen=True, tag="reviewer.withdrawn"):
    """From now on nobody vouches for this record any more."""

    id: str


class CampaignItem(Struct, frozen=True, kw_only=True):
    """One output to rate; `item` names it in its campaign. `words`: of prompt and output.

    suite, source: which suite's item is answered; None for the campaign's suite, and for the item that `item` names.
    subject: whose answer it is: the candidate's, the base's, or the one that a gold item gives.
    number: the version that answered, where that is not the campaign's. expect: how a gold item is to be rated.
    salt: what went into the hash beside what it binds; empty in older campaigns.
    """

    item: str
    hash: Sha256
    kind: ItemKind = ItemKind.CANDIDATE
    suite: str | None = None
    source: str | None = None
    subject: str = "candidate"
    number: int | None = None
    words: int = 0
    expect: dict[str, Bounds] | None = None
    salt: str = ""


class CampaignOpened(Event, frozen=True, tag="campaign.opened"):
    """The outputs to review, bound by hash before the first rating; `root` is over the hashes, in order.

    Those that everyone rates come first, then the spares that take the place of what does not count, then the others
    by kind. Nobody who reviews may ever read it.
    """

    id: str
    adapter: str
    number: int
    policy: Digest
    suite: str
    reviewers: int
    items: list[CampaignItem]
    root: Digest


class AssignmentIssued(Event, frozen=True, tag="assignment.issued"):
    """A person was shown an item for the first time. `position`: in the order in which they meet them, from 1.

    batch: how many a checkout has issued at once; None where it was shown alone.
    """

    id: str
    campaign: str
    person: str
    item: str
    position: int | None = None
    batch: int | None = None


class AssignmentSkipped(Event, frozen=True, tag="assignment.skipped"):
    """A person left an item to others. words: the sha256 of a blob with their reason, which older entries say here."""

    id: str
    reason: str = ""
    words: Sha256 | None = None


class RatingRecorded(Event, frozen=True, tag="rating.recorded"):
    """What a person says of an item; one for the same assignment takes the place of the last, and both stay here.

    comment: the sha256 of a blob, so that the words can be deleted and the journal stays whole.
    seconds: from the first showing of the item to the first rating of it, a checkout's divided by its items.
    """

    assignment: str
    clarity: int
    relevance: int
    safety: int
    accuracy: int
    hallucination: bool
    comment: Sha256 | None = None
    unsafe: bool = False
    discuss: bool = False
    channel: Channel = Channel.API
    seconds: float | None = None


class CampaignSealed(Event, frozen=True, tag="campaign.sealed"):
    """From here on no rating is taken. What it came to follows from the journal up to here, and nothing else.

    root: of the Merkle tree over every rating, counted or not, in the order they came; result: digest of the
    ReviewResult. counted: persons. reason: a release manager's, who ended it; None where the quota did.
    """

    id: str
    adapter: str
    number: int
    ratings: int
    counted: list[str]
    excluded: list[Excluded]
    root: Digest
    result: Digest
    reason: str | None = None


class DisputeAdjudicated(Event, frozen=True, tag="dispute.adjudicated"):
    """The actor, who took no part in the campaign, says whether an item that was rated unsafe is.

    words: the sha256 of a blob with their reason, which older entries say here.
    """

    campaign: str
    item: str
    upheld: bool
    reason: str = ""
    words: Sha256 | None = None


class WordsErased(Event, frozen=True, tag="words.erased"):
    """What people wrote in a review is gone: comments, and reasons of skips and rulings.

    about: the assignments, and `campaign/item` of rulings, beside which the words stood. texts: their sha256. person:
    whose words all of them were, where that was asked for.
    """

    about: list[str]
    texts: list[Sha256]
    reason: str
    person: str | None = None
