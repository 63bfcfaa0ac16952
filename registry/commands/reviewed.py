"""What people said of a version, gathered from the catalog for the rules that count it."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import msgspec

from registry.names import canonical
from registry.records import CRITERIA, Adjudication, ItemKind, RatingRow, ReviewFacts, ReviewRule, State
from registry.review import campaign as plan
from registry.review.standing import Doings, Opening, bars
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
    rows = rows_of(items, assignments, ratings)
    if campaign.sealed_at is None and stored.state is not State.IN_REVIEW and _is_older(items.values()):
        return Reviewed(rows, None)
    facts = ReviewFacts(
        sealed=sealed or campaign.sealed_at is not None,
        gold=sum(one.kind is ItemKind.GOLD for one in items.values()),
        barred=_barred(view, stored, campaign, assignments, ratings),
        adjudications=[*view.adjudications(campaign.id), *([ruling] if ruling else [])],
    )
    return Reviewed(rows, facts)


def rows_of(
    items: dict[str, StoredItem], assignments: dict[str, StoredAssignment], ratings: Iterable[StoredRating]
) -> list[RatingRow]:
    """The rating that stands of each assignment, as the rules see it, by person and item."""
    last = {one.assignment: one for one in ratings}  # the later take the place of the earlier
    rows = [row_of(items[assignments[id_].item], assignments[id_], rating) for id_, rating in last.items()]
    return sorted(rows, key=lambda row: (row.person, row.item, row.kind))


def row_of(item: StoredItem, assignment: StoredAssignment, rating: StoredRating) -> RatingRow:
    row = RatingRow(
        person=assignment.person,
        item=plan.prompt_of(item.item, item.kind),
        **{name: getattr(rating, name) for name in CRITERIA},
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
    return msgspec.structs.replace(row, gold_passed=plan.gold_passed(item.expect, row))


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
    return plan.root(leaf(known[one.assignment], one) for one in ratings)


def rule_of(view: View, campaign: StoredCampaign) -> ReviewRule:
    return view.policy(campaign.policy).review


def _barred(
    view: View,
    stored: StoredVersion,
    campaign: StoredCampaign,
    assignments: dict[str, StoredAssignment],
    ratings: Sequence[StoredRating],
) -> dict[str, list[str]]:
    """The rules by which people cannot count, of those who rated."""
    when: dict[str, list[str]] = {}
    for one in ratings:
        when.setdefault(assignments[one.assignment].person, []).append(one.rated_at)
    for adjudication in view.adjudications(campaign.id):
        when.setdefault(adjudication.person, [campaign.sealed_at or campaign.opened_at])
    opening = opening_of(view, stored, campaign)
    records = view.reviewers(stored.adapter)
    found = {
        person: bars(opening, Doings(person, min(at), max(at), [one for one in records if one.person == person]))
        for person, at in sorted(when.items())
    }
    return {person: rules for person, rules in found.items() if rules}


def opening_of(view: View, stored: StoredVersion, campaign: StoredCampaign) -> Opening:
    """What decides who may count in a campaign."""
    return Opening(
        submitter=stored.submitter,
        named=frozenset([stored.sealed_by] if stored.sealed_by else []) | view.trained_by(stored),
        opened_by=campaign.opened_by,
        opened_at=campaign.opened_at,
        domain=rule_of(view, campaign).domain,
    )


def _is_older(items: Iterable[StoredItem]) -> bool:
    """Whether a campaign was opened before items were told apart, and decided without a seal."""
    return all(one.words == 0 for one in items)
