"""What people said of a version, gathered from the catalog for the rules that count it."""

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import NamedTuple

import msgspec

from registry.inspection.adapter import CONFIG, WEIGHTS
from registry.names import canonical, digest_of
from registry.records import CRITERIA, Adjudication, ItemKind, RatingRow, ReviewerInfo, ReviewFacts, ReviewRule, State
from registry.review import campaign as plan
from registry.review.counting import Facts
from registry.review.result import review_result
from registry.review.standing import Doings, Opening, bars, lapsed
from registry.storage.views import StoredAssignment, StoredCampaign, StoredItem, StoredRating, StoredVersion, View


class Reviewed(NamedTuple):
    """Everyone's last word on each item, and what is known beside.

    facts: None for a version that was decided before campaigns were sealed.
    """

    rows: list[RatingRow]
    facts: ReviewFacts | None

    @property
    def key(self) -> bytes:
        """Equal to another's where all of it is."""
        return msgspec.json.encode(self, order="sorted")


NOTHING = Reviewed([], ReviewFacts())


def reviewed(
    view: View,
    stored: StoredVersion,
    and_also: Sequence[StoredRating] = (),
    *,
    sealed: bool = False,
    ruling: Adjudication | None = None,
) -> Reviewed:
    """What a version's campaign holds. and_also, sealed, ruling: what is about to be recorded."""
    campaign = view.campaign_of(stored.adapter, stored.number)
    if campaign is None:
        return NOTHING
    items = {one.item: one for one in view.campaign_items(campaign.id)}
    assignments = {one.id: one for one in view.assignments(campaign.id)}
    ratings = [*view.ratings(campaign.id), *and_also]
    records = _records(view, stored)
    rows = rows_of(items, assignments, ratings, opening_of(view, stored, campaign), records)
    if campaign.sealed_at is None and stored.state is not State.IN_REVIEW and _is_older(items.values()):
        return Reviewed(rows, None)
    before = view.reviewed_before(stored.adapter, stored.number)
    facts = ReviewFacts(
        sealed=sealed or campaign.sealed_at is not None,
        gold=sum(one.kind is ItemKind.GOLD for one in items.values()),
        gold_low=sum(one.expect is not None and plan.must_be_low(one.expect) for one in items.values()),
        barred=_barred(view, stored, campaign, assignments, ratings, records),
        adjudications=[*view.adjudications(campaign.id), *([ruling] if ruling else [])],
        earlier=_rejected_before(view, stored),
        reviewed_before=len(before),
        rejected_before=sum(one.state is State.REJECTED for one in before),
    )
    if campaign.result is not None:
        now = sealed_result(rule_of(view, campaign), facts, rows, rating_root(assignments.values(), ratings))
        facts = msgspec.structs.replace(facts, differs=now != campaign.result)
    return Reviewed(rows, facts)


def sealed_result(rule: ReviewRule, facts: ReviewFacts, rows: Sequence[RatingRow], root: str) -> str:
    """The digest of what a campaign comes to at its seal, when no expert has ruled on anything yet."""
    before = msgspec.structs.replace(facts, adjudications=[])
    return _result_digest(msgspec.json.encode((rule, before, rows, root)))


@lru_cache(maxsize=128)
def _result_digest(counted: bytes) -> str:
    """Computed once: whether a seal still holds is asked with every promotion, rollback and look at a gate."""
    rule, facts, rows, root = msgspec.json.decode(counted, type=tuple[ReviewRule, ReviewFacts, list[RatingRow], str])
    return digest_of(msgspec.to_builtins(review_result(Facts(rule, facts), rows, root)))


def rows_of(
    items: dict[str, StoredItem],
    assignments: dict[str, StoredAssignment],
    ratings: Iterable[StoredRating],
    opening: Opening,
    records: dict[str, list[ReviewerInfo]],
) -> list[RatingRow]:
    """The rating that stands of each assignment, as the rules see it, by person and item."""
    history: dict[str, list[StoredRating]] = {}
    for one in ratings:
        history.setdefault(one.assignment, []).append(one)
    rows = []
    for id_, said in history.items():
        row = row_of(items[assignments[id_].item], assignments[id_], said)
        late = any(lapsed(opening, records.get(row.person, []), one.rated_at) for one in said)
        rows.append(msgspec.structs.replace(row, lapsed=late))
    return sorted(rows, key=lambda row: (row.person, row.item, row.kind))


def row_of(item: StoredItem, assignment: StoredAssignment, said: Sequence[StoredRating]) -> RatingRow:
    """said: all ratings of the assignment, oldest first. What tells whether a person reads is taken from the first:
    otherwise who learns of a failure, be it from a seal that does not come, could mend it."""
    rating = said[-1]
    first, last = ([getattr(one, name) for name in CRITERIA] for one in (said[0], rating))
    row = RatingRow(
        person=assignment.person,
        item=plan.prompt_of(item.item, item.kind),
        **dict(zip(CRITERIA, last, strict=True)),
        first=(first[0], first[1], first[2], first[3]) if first != last else None,
        hallucination=rating.hallucination,
        unsafe=rating.unsafe,
        kind=item.kind,
        position=assignment.position,
        seconds=rating.seconds,
        words=item.words,
        channel=rating.channel,
    )
    if item.expect is None:
        return row
    return msgspec.structs.replace(
        row,
        gold_passed=plan.gold_passed(item.expect, dict(zip(CRITERIA, first, strict=True))),
        gold_low=plan.must_be_low(item.expect),
    )


def leaf(assignment: StoredAssignment, rating: StoredRating) -> str:
    """The text that stands for one rating in the tree that a seal is the root of (RFC 8785).

    It says all that the journal says of the rating, whether it counts or not.
    """
    said = {name: value for name, value in rating._asdict().items() if name not in ("assignment", "revision", "seq")}
    about = {"assignment": assignment.id, "person": assignment.person, "item": assignment.item}
    return canonical({**about, **msgspec.to_builtins(said)}).decode()


def rating_root(assignments: Iterable[StoredAssignment], ratings: Iterable[StoredRating]) -> str:
    """The Merkle root over every rating of a campaign, in the order they came; superseded ones are in it too."""
    known = {one.id: one for one in assignments}
    return _root(msgspec.json.encode([(known[one.assignment], one) for one in ratings]))


@lru_cache(maxsize=128)
def _root(said: bytes) -> str:
    pairs = msgspec.json.decode(said, type=list[tuple[StoredAssignment, StoredRating]])
    return plan.root(leaf(assignment, rating) for assignment, rating in pairs)


def weights_of(stored: StoredVersion) -> list[str]:
    """The digests of what makes an adapter behave as it does; none where a version has not both files."""
    found = [one.sha256 for one in stored.files if one.path in (CONFIG, WEIGHTS)]
    return sorted(found) if len(found) == 2 else []


def _rejected_before(view: View, stored: StoredVersion) -> list[str]:
    weights = weights_of(stored)
    numbers = view.rejected_before(stored.adapter, stored.number, weights) if weights else []
    return [f"{stored.adapter}/{number}" for number in numbers]


def rule_of(view: View, campaign: StoredCampaign) -> ReviewRule:
    return view.policy(campaign.policy).review


def _barred(
    view: View,
    stored: StoredVersion,
    campaign: StoredCampaign,
    assignments: dict[str, StoredAssignment],
    ratings: Sequence[StoredRating],
    records: dict[str, list[ReviewerInfo]],
) -> dict[str, list[str]]:
    """The rules by which people cannot count, of those who rated."""
    when: dict[str, list[str]] = {}
    for one in ratings:
        when.setdefault(assignments[one.assignment].person, []).append(one.rated_at)
    for adjudication in view.adjudications(campaign.id):
        when.setdefault(adjudication.person, [campaign.sealed_at or campaign.opened_at])
    opening = opening_of(view, stored, campaign)
    found = {person: bars(opening, Doings(person, at, records.get(person, []))) for person, at in sorted(when.items())}
    return {person: rules for person, rules in found.items() if rules}


def _records(view: View, stored: StoredVersion) -> dict[str, list[ReviewerInfo]]:
    """What is said of people's standing for this adapter, by person."""
    records: dict[str, list[ReviewerInfo]] = {}
    for one in view.reviewers(stored.adapter):
        records.setdefault(one.person, []).append(one)
    return records


def opening_of(view: View, stored: StoredVersion, campaign: StoredCampaign) -> Opening:
    """What decides who may count in a campaign."""
    return Opening(
        submitter=stored.submitter,
        # What becomes known of the version's making after the seal changes nothing that was counted.
        named=frozenset([stored.sealed_by] if stored.sealed_by else []) | view.trained_by(stored, campaign.sealed_at),
        opened_by=campaign.opened_by,
        opened_at=campaign.opened_at,
        domain=rule_of(view, campaign).domain,
    )


def _is_older(items: Iterable[StoredItem]) -> bool:
    """Whether a campaign was opened before items were told apart, and decided without a seal."""
    return all(one.words == 0 for one in items)
