"""The reviewer's side: blinded items, issued by the server one after another, rated on its clock.

Nothing that is answered here depends on anybody else's ratings, on what kind an item is, or on whether a rating counts.
"""

from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

import msgspec

from registry.access import Principal
from registry.commands.campaigns import comment_of, sealed_by_quota, texts_of
from registry.commands.context import Context, Outcome
from registry.commands.reviewed import opening_of, row_of, rule_of
from registry.errors import Conflict, NotFound
from registry.events import AnyEvent, AssignmentIssued, AssignmentSkipped, RatingRecorded
from registry.records import (
    CRITERIA,
    Assignment,
    AssignmentInfo,
    Channel,
    Rating,
    ReviewProgress,
    ReviewRule,
    Role,
    Skip,
    State,
)
from registry.review import campaign as plan
from registry.review.counting import row_bar
from registry.review.standing import LATE_REVIEWER, Doings, bars
from registry.storage.views import StoredAssignment, StoredCampaign, StoredItem, StoredRating, StoredVersion

# Roles that are shown of a review, or of the version under review, what is kept from whoever rates it.
_BEHIND = frozenset({Role.ADMIN, Role.AUDITOR, Role.RELEASE_MANAGER, Role.EVALUATOR})


def next_assignment(context: Context) -> Outcome:
    """The item this person should rate now; the same one until it is rated or skipped. 204 when there is none."""
    for campaign in context.view.campaigns_in_review():
        desk = _desk(context, campaign)
        if desk is None:
            continue
        if (waiting := desk.waiting) is not None:
            return Outcome(_shown(context, desk, waiting))
        if (item := _next_item(context, desk)) is not None:
            issued = _issued(context, desk, item)
            return Outcome(_shown(context, desk.with_(issued), issued), [_event(issued)])
    return Outcome(None, status=204)


def checkout(context: Context) -> Outcome:
    """All items that this person has still to rate, issued at once, for who works offline. Their time is shared out."""
    for campaign in context.view.campaigns_in_review():
        desk = _desk(context, campaign)
        if desk is None:
            continue
        new: list[StoredAssignment] = []
        while (item := _next_item(context, desk)) is not None:
            new.append(_issued(context, desk, item))
            desk = desk.with_(new[-1])
        new = [one._replace(batch=len(new)) for one in new]
        if waiting := [one for one in desk.own if one.state == "open"]:
            return Outcome([_shown(context, desk, one) for one in waiting], [_event(one) for one in new])
    return Outcome([])


def rate(
    context: Context,
    assignment_id: str,
    rating: Rating,
    comment_sha256: str | None,
    channel: Channel = Channel.API,
) -> Outcome:
    """Record a rating. Again before the seal: it takes the place of the last. A comment lies in a blob by then.

    The campaign is sealed in the same step if with it enough people's ratings count.
    """
    desk, assignment = _own(context, assignment_id)
    if assignment.state == "skipped":
        raise Conflict("this item was skipped already; ask for the next one")
    if rating.hash is not None and rating.hash != desk.stored_items[assignment.item].hash:
        raise Conflict("this rating is of another item than the assignment's; read the assignment again")
    earlier = [one for one in desk.ratings if one.assignment == assignment.id]
    recorded = RatingRecorded(
        assignment=assignment.id,
        clarity=rating.clarity,
        relevance=rating.relevance,
        safety=rating.safety,
        accuracy=rating.accuracy,
        hallucination=rating.hallucination,
        comment=comment_sha256,
        unsafe=rating.unsafe,
        discuss=rating.discuss,
        channel=Channel.CSV if channel is Channel.API and assignment.batch is not None else channel,
        # A correction is no slower reading: the first rating's time stays.
        seconds=earlier[0].seconds if earlier else _seconds(context.time, assignment, desk.ratings),
    )
    known = {**msgspec.structs.asdict(recorded), "revision": len(earlier) + 1, "rated_at": context.now, "seq": 0}
    new = StoredRating(**known)
    after = desk.rated(assignment, new)
    return Outcome(after.progress, [recorded, *_sealed_if_through(context, after, [new])])


def skip(context: Context, assignment_id: str, request: Skip) -> Outcome:
    """Leave an item to others, with a reason; a spare takes its place at the end while there are any."""
    desk, assignment = _own(context, assignment_id)
    if assignment.state != "open":
        raise Conflict(f"this item was {assignment.state} already; ask for the next one")
    most = plan.most_skips(desk.items.total)
    if desk.progress.skipped >= most:
        raise Conflict(f"{most} of {desk.items.total} items were skipped already, which is as many as may be; rate it")
    after = desk._replace(own=[one._replace(state="skipped") if one == assignment else one for one in desk.own])
    skipped = AssignmentSkipped(id=assignment.id, reason=request.reason)
    return Outcome(after.progress, [skipped, *_sealed_if_through(context, after)])


def _sealed_if_through(context: Context, after: "_Desk", new: Sequence[StoredRating] = ()) -> list[AnyEvent]:
    """The seal, where a person has said the last that they can say, and with it the quota is complete."""
    if after.waiting is not None or _next_item(context, after) is not None:
        return []
    return sealed_by_quota(context, after.stored, after.campaign, new)


def progress(context: Context) -> ReviewProgress:
    """This person's own progress over all campaigns that are open to them."""
    found = [desk.progress for desk in _desks(context)]
    return ReviewProgress(
        rated=sum(one.rated for one in found),
        skipped=sum(one.skipped for one in found),
        total=sum(one.total for one in found),
    )


def assignments(context: Context) -> list[AssignmentInfo]:
    """This person's own items so far, in the order in which they met them; those of the oldest open campaign first."""
    return [
        AssignmentInfo(id=one.id, position=one.position, state=one.state)
        for desk in _desks(context)
        for one in desk.own
    ]


def assignment(context: Context, assignment_id: str) -> Assignment:
    """One of this person's own items, with what they said of it."""
    desk, found = _own(context, assignment_id, closed_too=True)
    shown = _shown(context, desk, found)
    said = [one for one in desk.ratings if one.assignment == assignment_id]
    return msgspec.structs.replace(shown, rating=_said(context, said[-1]) if said else None)


def require_own(context: Context, assignment_id: str) -> None:
    """NotFound unless the assignment is this person's, so that nothing is stored for one that is not."""
    _own(context, assignment_id, closed_too=True)


def _said(context: Context, rating: StoredRating) -> Rating:
    return Rating(
        **{name: getattr(rating, name) for name in CRITERIA},
        hallucination=rating.hallucination,
        unsafe=rating.unsafe,
        discuss=rating.discuss,
        comment=comment_of(context, rating),
    )


# -- one person's part --------------------------------------------------------------------------------------------


class _Desk(NamedTuple):
    """One person's part in one campaign. own: their assignments in order; ratings: all of theirs, oldest first."""

    campaign: StoredCampaign
    stored: StoredVersion
    rule: ReviewRule
    items: plan.Items
    stored_items: dict[str, StoredItem]
    person: str
    own: list[StoredAssignment]
    ratings: list[StoredRating]

    @property
    def waiting(self) -> StoredAssignment | None:
        return next((one for one in self.own if one.state == "open"), None)

    @property
    def wanting(self) -> int:
        """How many spares are missing: one for each item that was skipped, or rated so that it cannot count.

        Whatever its kind, since who sees their total rise would know the kind by it.
        """
        by_id = {one.id: one for one in self.own}
        last = {one.assignment: one for one in self.ratings}
        rows = [row_of(self.stored_items[by_id[id_].item], by_id[id_], [one]) for id_, one in last.items()]
        barred = sum(row_bar(self.rule, row) is not None for row in rows)
        skipped = sum(one.state == "skipped" for one in self.own)
        return self.items.total + barred + skipped - len(self.own)

    @property
    def progress(self) -> ReviewProgress:
        """`total` rises only where a person is through and something has to be rated in place of something else."""
        more = min(max(0, self.wanting), self._spares_left) if len(self.own) >= self.items.total else 0
        return ReviewProgress(
            rated=sum(one.state == "rated" for one in self.own),
            skipped=sum(one.state == "skipped" for one in self.own),
            total=max(self.items.total, len(self.own) + more),
        )

    @property
    def _spares_left(self) -> int:
        seen = {one.item for one in self.own}
        pool = [*self.items.spares, *(self.items.core if self.items.shared_out else ())]
        return sum(item not in seen for item in pool)

    def with_(self, issued: StoredAssignment) -> "_Desk":
        return self._replace(own=[*self.own, issued])

    def rated(self, assignment: StoredAssignment, rating: StoredRating) -> "_Desk":
        own = [one._replace(state="rated") if one.id == assignment.id else one for one in self.own]
        return self._replace(own=own, ratings=[*self.ratings, rating])


def _desks(context: Context) -> list[_Desk]:
    return [desk for one in context.view.campaigns_in_review() if (desk := _desk(context, one))]


def _desk(context: Context, campaign: StoredCampaign) -> _Desk | None:
    """None where the campaign is over, or this person's ratings could not count in it whatever they rated."""
    if campaign.sealed_at is not None or not context.principal.may_see(campaign.adapter):
        return None
    if _looks_behind(context, campaign.adapter):
        return None
    desk = _desk_of(context, campaign)
    records = [one for one in context.view.reviewers(campaign.adapter) if one.person == desk.person]
    opening = opening_of(context.view, desk.stored, campaign)
    barred = bars(opening, Doings(desk.person, [context.now], records))
    # Who was vouched for too late is counted out at the seal, as everything that could be bent meanwhile.
    return None if set(barred) - {LATE_REVIEWER} else desk


def _desk_of(context: Context, campaign: StoredCampaign) -> _Desk:
    stored = context.view.version(campaign.adapter, campaign.number)
    assert stored is not None
    person, rule = context.principal.person, rule_of(context.view, campaign)
    items = {one.item: one for one in context.view.campaign_items(campaign.id)}
    return _Desk(
        campaign=campaign,
        stored=stored,
        rule=rule,
        items=plan.Items.of(rule, {one.item: one.kind for one in items.values()}),
        stored_items=items,
        person=person,
        own=sorted(context.view.assignments(campaign.id, person), key=lambda one: one.position),
        ratings=context.view.ratings(campaign.id, person),
    )


def _own(context: Context, id_: str, *, closed_too: bool = False) -> tuple[_Desk, StoredAssignment]:
    """An assignment of this very person; someone else's does not exist for them."""
    found = context.view.assignment(id_)
    campaign = context.view.campaign(found.campaign) if found else None
    if found is None or campaign is None or found.person != context.principal.person:
        raise NotFound(f"assignment {id_!r} does not exist or is not yours; ask for one with GET /v1/review/next")
    desk = _desk_of(context, campaign)
    if not closed_too and (campaign.sealed_at is not None or desk.stored.state is not State.IN_REVIEW):
        raise Conflict("this review is closed: its result is decided; ask for the next item")
    if not closed_too and _looks_behind(context, campaign.adapter):
        raise Conflict(
            f"{found.person} holds a token that shows what is kept from reviewers; "
            "use a person who does not look behind the review"
        )
    return desk, found


def _looks_behind(context: Context, adapter: str) -> bool:
    """Whether this person may see, with a token of another role, what is kept from them while they rate."""
    return any(
        one.role in _BEHIND
        and one.revoked_at is None
        and datetime.fromisoformat(one.expires_at) > context.time
        and Principal(one.id, one.person, one.role, one.scope).may_see(adapter)
        for one in context.view.tokens_of(context.principal.person)
    )


def _next_item(context: Context, desk: _Desk) -> str | None:
    met: Counter[str] = Counter()
    if desk.items.shared_out:
        met.update(one.item for one in context.view.assignments(desk.campaign.id) if one.person != desk.person)
    return plan.next_item(
        desk.person,
        desk.items,
        [one.item for one in desk.own],
        desk.wanting,
        met,
        context.services.draw_secret,
        desk.campaign.id,
    )


def _issued(context: Context, desk: _Desk, item: str) -> StoredAssignment:
    return StoredAssignment(
        id=plan.assignment_id(desk.person, item, context.services.draw_secret, desk.campaign.id),
        campaign=desk.campaign.id,
        person=desk.person,
        item=item,
        position=len(desk.own) + 1,
        batch=None,
        issued_at=context.now,
        state="open",
    )


def _event(one: StoredAssignment) -> AssignmentIssued:
    return AssignmentIssued(
        id=one.id, campaign=one.campaign, person=one.person, item=one.item, position=one.position, batch=one.batch
    )


def _shown(context: Context, desk: _Desk, one: StoredAssignment) -> Assignment:
    texts = texts_of(context, desk.stored, desk.stored_items[one.item])
    if texts is None:
        raise Conflict("the output to rate was erased; ask the release manager to close this campaign")
    item, version = desk.stored_items[one.item], desk.stored
    salt = plan.item_salt(item.item, context.services.draw_secret, desk.campaign.id)
    bound = [plan.item_hash(version.digest, version.evidence_digest or "", item.item, *texts, s) for s in (salt, "")]
    if item.hash not in bound:
        raise Conflict(
            "the output to rate is not the one that was drawn; ask the release manager to close this campaign"
        )
    return Assignment(
        id=one.id,
        prompt=texts[0],
        output=texts[1],
        position=one.position,
        total=desk.progress.total,
        hash=desk.stored_items[one.item].hash,
        state=one.state,
    )


def _seconds(now: datetime, assignment: StoredAssignment, before: Sequence[StoredRating]) -> float:
    """How long this item can have been read: its share of the time since it was issued with others, or, where that is
    more, the time since this person's rating before it."""
    shown = datetime.fromisoformat(assignment.issued_at)
    free = max([shown, *(datetime.fromisoformat(one.rated_at) for one in before[-1:])])
    return round(max((now - free).total_seconds(), (now - shown).total_seconds() / (assignment.batch or 1)), 3)
