"""A sealed campaign shown whole: what it came to, and every item with all that was said of it."""

from collections.abc import Set as AbstractSet
from typing import NamedTuple

from registry.commands.campaigns import find_campaign
from registry.commands.context import Context
from registry.commands.reviewed import rating_root, reviewed, row_of, rule_of
from registry.commands.texts import Written, texts_of
from registry.errors import Conflict
from registry.records import (
    CRITERIA,
    Adjudication,
    ItemRating,
    RatingRow,
    ReviewedItem,
    ReviewResult,
    Skipped,
    Words,
)
from registry.review.counting import Counted, Facts, count
from registry.review.result import review_result
from registry.storage.views import StoredAssignment, StoredCampaign, StoredItem, StoredRating, StoredVersion


def result(context: Context, adapter: str, number: int) -> ReviewResult:
    """What a sealed campaign came to; experts' rulings since then are in it."""
    stored, campaign = _sealed_campaign(context, adapter, number)
    found = reviewed(context.view, stored)
    assert found.facts is not None
    root = rating_root(context.view.assignments(campaign.id), context.view.ratings(campaign.id))
    return review_result(Facts(rule_of(context.view, campaign), found.facts), found.rows, root)


def reviewed_items(
    context: Context, adapter: str, number: int, after: int, limit: int
) -> list[tuple[int, ReviewedItem]]:
    """Every item of a sealed campaign with all that was said of it, beyond the place `after`."""
    stored, campaign = _sealed_campaign(context, adapter, number)
    counted = _counted(context, stored, campaign)
    said = _Said.of(context, campaign)
    kept = set(counted.rows)
    items = [one for one in context.view.campaign_items(campaign.id) if one.position > after][:limit]
    return [(item.position, _whole(context, stored, item, said, kept)) for item in items]


class _Said(NamedTuple):
    """All that was said in a campaign: assignments by item, ratings by assignment, oldest first, rulings by item."""

    campaign: str
    assignments: dict[str, list[StoredAssignment]]
    ratings: dict[str, list[StoredRating]]
    rulings: dict[str, Adjudication]
    prose: dict[str, str]
    written: Written

    @classmethod
    def of(cls, context: Context, campaign: StoredCampaign) -> "_Said":
        view = context.view
        assignments: dict[str, list[StoredAssignment]] = {}
        for one in view.assignments(campaign.id):
            assignments.setdefault(one.item, []).append(one)
        ratings: dict[str, list[StoredRating]] = {}
        for rating in view.ratings(campaign.id):
            ratings.setdefault(rating.assignment, []).append(rating)
        return cls(
            campaign=campaign.id,
            assignments=assignments,
            ratings=ratings,
            rulings={one.item: one for one in view.adjudications(campaign.id)},
            prose={**view.skip_reasons(campaign.id), **view.ruling_reasons(campaign.id)},
            written=Written(context, view.words(campaign.id)),
        )

    def why(self, about: str) -> Words:
        """The reason of a skip or a ruling."""
        return self.written.last(about, self.prose.get(about))


def _whole(
    context: Context, stored: StoredVersion, item: StoredItem, said: _Said, kept: AbstractSet[RatingRow]
) -> ReviewedItem:
    texts, own = texts_of(context, stored, item), said.assignments.get(item.item, [])
    ruling = said.rulings.get(item.item)
    return ReviewedItem(
        item=item.item,
        kind=item.kind,
        hash=item.hash,
        subject=item.subject if item.number == stored.number else f"{stored.adapter}/{item.number}",
        prompt=texts[0] if texts else None,
        output=texts[1] if texts else None,
        ratings=[
            _item_rating(one, said, row_of(item, one, said.ratings[one.id]) in kept)
            for one in own
            if one.id in said.ratings
        ],
        ruling=ruling,
        ruling_reason=said.why(f"{said.campaign}/{item.item}") if ruling else None,
        skipped=[Skipped(person=one.person, reason=said.why(one.id)) for one in own if one.state == "skipped"],
    )


def _item_rating(assignment: StoredAssignment, said: _Said, counted: bool) -> ItemRating:
    history = said.ratings[assignment.id]
    last = history[-1]
    comment = said.written.at(assignment.id, last.seq)
    return ItemRating(
        person=assignment.person,
        **{name: getattr(last, name) for name in CRITERIA},
        hallucination=last.hallucination,
        unsafe=last.unsafe,
        discuss=last.discuss,
        comment=comment.text,
        channel=last.channel,
        seconds=last.seconds,
        revisions=len(history),
        counted=counted,
        comment_erased=comment.erased,
    )


def _counted(context: Context, stored: StoredVersion, campaign: StoredCampaign) -> Counted:
    found = reviewed(context.view, stored)
    assert found.facts is not None
    return count(Facts(rule_of(context.view, campaign), found.facts), found.rows)


def _sealed_campaign(context: Context, adapter: str, number: int) -> tuple[StoredVersion, StoredCampaign]:
    stored, campaign = find_campaign(context, adapter, number)
    if campaign.sealed_at is None:
        raise Conflict(
            f"the campaign of {stored.ref} is not sealed; before that nobody sees what was said of it. "
            "`tunegate review seal` ends it with the ratings that there are"
        )
    return stored, campaign
