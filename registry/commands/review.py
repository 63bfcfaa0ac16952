"""Human review: one blinded item at a time, issued by the server, rated once."""

from collections import Counter
from typing import NamedTuple

from registry.commands.approvals import automatic_move
from registry.commands.context import Context, Outcome
from registry.commands.gate import assess, decided
from registry.commands.versions import find_version
from registry.errors import Conflict, NotFound
from registry.events import AnyEvent, AssignmentIssued, AssignmentSkipped, RatingRecorded
from registry.records import (
    Assignment,
    Campaign,
    Rating,
    RatingRow,
    ReviewProgress,
    Skip,
    State,
    Status,
    Verdict,
)
from registry.review import campaign as plan
from registry.storage.views import StoredAssignment, StoredCampaign, StoredVersion


def next_assignment(context: Context) -> Outcome:
    """The item this person should rate now; the same one until it is rated or skipped. 204 when there is none."""
    for campaign in context.view.open_campaigns():
        if (desk := _desk(context, campaign)) is None:
            continue
        opened = next((one for one in desk.assignments if one.state == "open"), None)
        item = opened.item if opened else desk.next_item()
        if item is None:
            continue
        shown = context.view.shown(campaign.adapter, campaign.number, campaign.suite, item)
        if shown is None:
            raise Conflict("the output to rate was erased; ask the release manager to close this campaign")
        id_ = plan.assignment_id(context.principal.person, item, context.services.draw_secret, campaign.id)
        answer = Assignment(id=id_, prompt=shown[0], output=shown[1], position=desk.rated + 1, total=desk.wanted)
        issued = AssignmentIssued(id=id_, campaign=campaign.id, person=context.principal.person, item=item)
        return Outcome(answer, [] if opened else [issued])
    return Outcome(None, status=204)


def rate(context: Context, assignment_id: str, rating: Rating, comment_sha256: str | None) -> Outcome:
    """Record a rating and decide the gate again. The comment itself lies in a blob, so that it can be erased."""
    assignment, campaign, stored = _open_assignment(context, assignment_id)
    row = RatingRow(
        person=assignment.person,
        item=assignment.item,
        clarity=rating.clarity,
        relevance=rating.relevance,
        safety=rating.safety,
        accuracy=rating.accuracy,
        hallucination=rating.hallucination,
    )
    recorded = RatingRecorded(
        assignment=assignment.id,
        clarity=rating.clarity,
        relevance=rating.relevance,
        safety=rating.safety,
        accuracy=rating.accuracy,
        hallucination=rating.hallucination,
        comment=comment_sha256,
    )
    events: list[AnyEvent] = [recorded]
    report = assess(context.view, stored, and_also=[row])
    review = next(check for check in report.checks if check.kind == "review")
    if review.status is not Status.PENDING:
        events += decided(context, stored, report, {})
        if report.verdict is Verdict.GO and (move := automatic_move(context, stored, [row])):
            events.append(move)
    return Outcome(_progress(context, [campaign], extra=(1, 0)), events)


def skip(context: Context, assignment_id: str, request: Skip) -> Outcome:
    """Leave an item to others, with a reason; a spare takes its place while there are any."""
    assignment, campaign, _ = _open_assignment(context, assignment_id)
    event = AssignmentSkipped(id=assignment.id, reason=request.reason)
    return Outcome(_progress(context, [campaign], extra=(0, 1)), [event])


def progress(context: Context) -> ReviewProgress:
    """This person's own progress over all campaigns that are open to them."""
    return _progress(context, [one for one in context.view.open_campaigns() if _desk(context, one)])


class _Desk(NamedTuple):
    """One person's part in one campaign."""

    order: list[str]
    assignments: list[StoredAssignment]
    wanted: int

    @property
    def rated(self) -> int:
        return sum(one.state == "rated" for one in self.assignments)

    @property
    def skipped(self) -> int:
        return sum(one.state == "skipped" for one in self.assignments)

    def next_item(self) -> str | None:
        if self.rated >= self.wanted:
            return None
        seen = {one.item for one in self.assignments}
        return next((item for item in self.order if item not in seen), None)


def _desk(context: Context, campaign: StoredCampaign) -> _Desk | None:
    """None where this person may not take part."""
    stored = context.view.version(campaign.adapter, campaign.number)
    if stored is None or not context.principal.may_see(campaign.adapter):
        return None
    person = context.principal.person
    assignments = context.view.assignments(campaign.id)
    wanted = context.view.policy(campaign.policy).review.outputs
    rated = Counter(one.person for one in assignments if one.state == "rated")
    # Only who has finished takes a place: people who rate one item and leave must not keep others out.
    finished = {one for one, count in rated.items() if count >= wanted}
    if plan.why_not_review(person, stored.submitter, finished):
        return None
    items = context.view.campaign_items(campaign.id)
    # Everyone rates the same core, each in an order of their own; the spares behind it replace what was skipped.
    core, spares = items[:wanted], items[wanted:]
    secret = context.services.draw_secret
    order = plan.order_for(person, core, secret, campaign.id) + plan.order_for(person, spares, secret, campaign.id)
    return _Desk(order, [one for one in assignments if one.person == person], wanted)


def _open_assignment(context: Context, id_: str) -> tuple[StoredAssignment, StoredCampaign, StoredVersion]:
    """An assignment of this very person that waits for a rating; someone else's does not exist for them."""
    assignment = context.view.assignment(id_)
    if assignment is None or assignment.person != context.principal.person:
        raise NotFound(f"assignment {id_!r} does not exist or is not yours; ask for one with GET /v1/review/next")
    campaign = context.view.campaign(assignment.campaign)
    assert campaign is not None
    stored = context.view.version(campaign.adapter, campaign.number)
    assert stored is not None
    if assignment.state != "open":
        raise Conflict(f"this item was {assignment.state} already; ask for the next one")
    if stored.state is not State.IN_REVIEW:
        raise Conflict("this review is closed: its result is decided; ask for the next item")
    return assignment, campaign, stored


def _progress(context: Context, campaigns: list[StoredCampaign], extra: tuple[int, int] = (0, 0)) -> ReviewProgress:
    desks = [desk for one in campaigns if (desk := _desk(context, one))]
    return ReviewProgress(
        rated=sum(desk.rated for desk in desks) + extra[0],
        skipped=sum(desk.skipped for desk in desks) + extra[1],
        total=sum(desk.wanted for desk in desks),
    )


def open_campaign(context: Context, adapter: str, number: int) -> Outcome:
    """The campaign of a version whose suites have passed; it was opened in the same step in which they did."""
    stored = find_version(context, adapter, number)
    if context.view.campaign_of(adapter, number) is None:
        report = assess(context.view, stored)
        open_checks = [f"{check.name}: {check.reason}" for check in report.checks if check.status is not Status.PASS]
        raise Conflict(f"{stored.ref} cannot be reviewed before its suites pass; " + "; ".join(open_checks))
    return Outcome(describe_campaign(context, stored))


def describe_campaign(context: Context, stored: StoredVersion) -> Campaign:
    """How far a campaign is; no scores before it is decided."""
    campaign = context.view.campaign_of(stored.adapter, stored.number)
    if campaign is None:
        raise NotFound(f"{stored.ref} has no review campaign: its state is {stored.state}")
    wanted = context.view.policy(campaign.policy).review.outputs
    rated: dict[str, int] = {}
    for row in context.view.ratings(campaign.id):
        rated[row.person] = rated.get(row.person, 0) + 1
    return Campaign(
        id=campaign.id,
        ref=stored.ref,
        items=len(context.view.campaign_items(campaign.id)),
        reviewers=campaign.reviewers,
        complete=sum(count >= wanted for count in rated.values()),
    )
