"""The reviewer's side: blinded items, issued by the server one after another, rated on its clock.

Nothing that is answered here tells what anybody else said, what kind an item is, or whether a rating counts.
"""

from collections.abc import Sequence
from datetime import datetime

import msgspec

from registry.commands.campaigns import sealed_by_quota
from registry.commands.context import Context, Outcome
from registry.commands.part import Part, next_item, own_part, parts, shared_of
from registry.commands.texts import Written, texts_of
from registry.errors import Conflict
from registry.events import AnyEvent, AssignmentIssued, AssignmentSkipped, RatingRecorded
from registry.records import (
    CRITERIA,
    Assignment,
    AssignmentInfo,
    Channel,
    Rating,
    ReviewProgress,
)
from registry.review import campaign as plan
from registry.storage.views import StoredAssignment, StoredRating


def next_assignment(context: Context) -> Outcome:
    """The item this person should rate now; the same one until it is rated or skipped. 204 when there is none."""
    for part in parts(context):
        if (waiting := part.waiting) is not None:
            return Outcome(_shown(context, part, waiting))
        if (item := next_item(context, part)) is not None:
            issued = _issued(context, part, item)
            return Outcome(_shown(context, part.issued(issued), issued), [_event(issued)])
    return Outcome(None, status=204)


def checkout(context: Context) -> Outcome:
    """All items that this person has still to rate, issued at once, for who works offline. Their time is shared out."""
    for part in parts(context):
        new: list[StoredAssignment] = []
        shared = shared_of(context, part)
        while (item := next_item(context, part, shared)) is not None:
            new.append(_issued(context, part, item))
            part = part.issued(new[-1])
        new = [one._replace(batch=len(new)) for one in new]
        if waiting := [one for one in part.own if one.state == "open"]:
            return Outcome([_shown(context, part, one) for one in waiting], [_event(one) for one in new])
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
    part, assignment = own_part(context, assignment_id)
    if assignment.state == "skipped":
        raise Conflict("this item was skipped already; ask for the next one")
    if rating.hash is not None and rating.hash != part.stored_items[assignment.item].hash:
        raise Conflict("this rating is of another item than the assignment's; read the assignment again")
    earlier = [one for one in part.ratings if one.assignment == assignment.id]
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
        seconds=earlier[0].seconds if earlier else _seconds(context.time, assignment, part.ratings, channel),
    )
    known = {**msgspec.structs.asdict(recorded), "revision": len(earlier) + 1, "rated_at": context.now, "seq": 0}
    new = StoredRating(**known)
    after = part.rated(assignment, new)
    return Outcome(after.progress, [recorded, *_sealed_if_through(context, after, [new])])


def skip(context: Context, assignment_id: str, reason_sha256: str) -> Outcome:
    """Leave an item to others; a spare takes its place at the end while there are any. The reason lies in a blob."""
    part, assignment = own_part(context, assignment_id)
    if assignment.state != "open":
        raise Conflict(f"this item was {assignment.state} already; ask for the next one")
    most = plan.most_skips(part.items.total)
    if part.progress.skipped >= most:
        raise Conflict(f"{most} of {part.items.total} items were skipped already, which is as many as may be; rate it")
    after = part.skipped(assignment)
    skipped = AssignmentSkipped(id=assignment.id, words=reason_sha256)
    return Outcome(after.progress, [skipped, *_sealed_if_through(context, after)])


def _sealed_if_through(context: Context, after: Part, new: Sequence[StoredRating] = ()) -> list[AnyEvent]:
    """The seal, where a person has said the last that they can say, and with it the quota is complete."""
    if after.waiting is not None or next_item(context, after) is not None:
        return []
    return sealed_by_quota(context, after.stored, after.campaign, new)


def progress(context: Context) -> ReviewProgress:
    """This person's own progress over all campaigns that are open to them."""
    found = [part.progress for part in parts(context)]
    return ReviewProgress(
        rated=sum(one.rated for one in found),
        skipped=sum(one.skipped for one in found),
        total=sum(one.total for one in found),
    )


def assignments(context: Context) -> list[AssignmentInfo]:
    """This person's own items so far, in the order in which they met them; those of the oldest open campaign first."""
    return [
        AssignmentInfo(id=one.id, position=one.position, state=one.state) for part in parts(context) for one in part.own
    ]


def assignment(context: Context, assignment_id: str) -> Assignment:
    """One of this person's own items, with what they said of it."""
    part, found = own_part(context, assignment_id, closed_too=True)
    shown = _shown(context, part, found)
    said = [one for one in part.ratings if one.assignment == assignment_id]
    return msgspec.structs.replace(shown, rating=_said(context, said[-1]) if said else None)


def _said(context: Context, rating: StoredRating) -> Rating:
    return Rating(
        **{name: getattr(rating, name) for name in CRITERIA},
        hallucination=rating.hallucination,
        unsafe=rating.unsafe,
        discuss=rating.discuss,
        comment=Written(context, context.view.words_about(rating.assignment)).at(rating.assignment, rating.seq).text,
    )


def _issued(context: Context, part: Part, item: str) -> StoredAssignment:
    return StoredAssignment(
        id=plan.assignment_id(part.person, item, context.services.draw_secret, part.campaign.id),
        campaign=part.campaign.id,
        person=part.person,
        item=item,
        position=len(part.own) + 1,
        batch=None,
        issued_at=context.now,
        state="open",
    )


def _event(one: StoredAssignment) -> AssignmentIssued:
    return AssignmentIssued(
        id=one.id, campaign=one.campaign, person=one.person, item=one.item, position=one.position, batch=one.batch
    )


def _shown(context: Context, part: Part, one: StoredAssignment) -> Assignment:
    texts = texts_of(context, part.stored, part.stored_items[one.item])
    if texts is None:
        raise Conflict("the text of the output to rate is gone; ask the release manager to close this campaign")
    item, version = part.stored_items[one.item], part.stored
    salt = plan.item_salt(item.item, context.services.draw_secret, part.campaign.id)
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
        total=part.progress.total,
        hash=part.stored_items[one.item].hash,
        state=one.state,
    )


def _seconds(now: datetime, assignment: StoredAssignment, before: Sequence[StoredRating], channel: Channel) -> float:
    """How long this item can have been read: the time since it was issued, or, of items that were issued together, the
    time since this person's rating before it.

    On a sheet the share of the time since they were issued will do, where it is more: only there are they read in any
    order. On the page it would pass for reading what waited unread.
    """
    shown = datetime.fromisoformat(assignment.issued_at)
    since = (now - shown).total_seconds()
    if assignment.batch is None:
        return round(since, 3)
    free = max([shown, *(datetime.fromisoformat(one.rated_at) for one in before[-1:])])
    share = 0.0 if channel is Channel.WEB else since / assignment.batch
    return round(max((now - free).total_seconds(), share), 3)
