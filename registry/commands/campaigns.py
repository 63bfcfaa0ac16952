"""Campaigns: opened with what is drawn, described without scores, sealed once, then shown whole.

From the seal on no rating is taken. What it names follows from the ratings alone, so anyone who holds the journal can
compute it again.
"""

from collections.abc import Sequence

import msgspec

from registry.commands.approvals import automatic_move
from registry.commands.context import Context, Outcome
from registry.commands.gate import assess, decided
from registry.commands.part import looks_behind
from registry.commands.reviewed import Reviewed, rating_root, reviewed, rule_of
from registry.commands.versions import find_version
from registry.errors import Conflict, NotFound
from registry.events import AnyEvent, CampaignSealed
from registry.names import digest_of
from registry.records import (
    Campaign,
    ReviewerProgress,
    ReviewFacts,
    Role,
    SealCampaign,
    State,
    Status,
    Verdict,
)
from registry.review import campaign as plan
from registry.review.counting import Facts, count, is_complete
from registry.review.result import review_result
from registry.storage.views import StoredAssignment, StoredCampaign, StoredRating, StoredVersion


def find_campaign(context: Context, adapter: str, number: int) -> tuple[StoredVersion, StoredCampaign]:
    stored = find_version(context, adapter, number)
    campaign = context.view.campaign_of(adapter, number)
    if campaign is None:
        raise NotFound(f"{stored.ref} has no review campaign: its state is {stored.state}")
    return stored, campaign


def open_campaign(context: Context, adapter: str, number: int) -> Outcome:
    """The campaign of a version whose suites have passed; it was opened in the same step in which they did."""
    stored = find_version(context, adapter, number)
    if context.view.campaign_of(adapter, number) is None:
        report = assess(context.view, stored)
        open_checks = [f"{check.name}: {check.reason}" for check in report.checks if check.status is not Status.PASS]
        raise Conflict(f"{stored.ref} cannot be reviewed before its suites pass; " + "; ".join(open_checks))
    return Outcome(describe(context, adapter, number))


def describe(context: Context, adapter: str, number: int) -> Campaign:
    """How far a campaign is. Until it is sealed nothing in it tells what anyone said, nor whether it counts."""
    stored, campaign = find_campaign(context, adapter, number)
    kinds = {one.item: one.kind for one in context.view.campaign_items(campaign.id)}
    rule = rule_of(context.view, campaign)
    planned = plan.Items.of(rule, kinds)
    by_person: dict[str, list[StoredAssignment]] = {}
    for one in context.view.assignments(campaign.id):
        by_person.setdefault(one.person, []).append(one)
    found = reviewed(context.view, stored)
    counted = count(Facts(rule, found.facts or ReviewFacts()), found.rows)
    # Whoever submits need not know whose judgement it is that is waited for.
    named = {} if context.principal.role is Role.CI else by_person
    return Campaign(
        id=campaign.id,
        ref=stored.ref,
        items=len(kinds),
        reviewers=campaign.reviewers,
        complete=counted.finished,
        opened_at=campaign.opened_at,
        root=campaign.root,
        progress=[
            _progress(
                planned, person, own, looks_behind=not campaign.sealed_at and looks_behind(context, campaign, person)
            )
            for person, own in sorted(named.items())
        ],
        disputes=len(counted.disputed) if campaign.sealed_at else 0,
        sealed_at=campaign.sealed_at,
        reviewed_before=found.facts.reviewed_before if found.facts else 0,
        rejected_before=found.facts.rejected_before if found.facts else 0,
    )


def _progress(
    planned: plan.Items, person: str, own: Sequence[StoredAssignment], *, looks_behind: bool
) -> ReviewerProgress:
    return ReviewerProgress(
        person=person,
        rated=sum(one.state == "rated" for one in own),
        skipped=sum(one.state == "skipped" for one in own),
        total=max(planned.total, len(own)),
        looks_behind=looks_behind,
    )


# -- sealing ------------------------------------------------------------------------------------------------------


def seal(context: Context, adapter: str, number: int, request: SealCampaign) -> Outcome:
    """End a campaign with the ratings that there are; what is too little stays too little."""
    stored, campaign = find_campaign(context, adapter, number)
    if campaign.sealed_at is not None:
        raise Conflict(f"the campaign of {stored.ref} was sealed at {campaign.sealed_at}; see its result")
    if stored.state is not State.IN_REVIEW:
        raise Conflict(f"{stored.ref} is {stored.state}: its review is over")
    events = _sealed(context, stored, campaign, [], reviewed(context.view, stored, sealed=True), request.reason)
    shown = describe(context, adapter, number)
    return Outcome(msgspec.structs.replace(shown, sealed_at=context.now), events)


def sealed_by_quota(
    context: Context, stored: StoredVersion, campaign: StoredCampaign, new: Sequence[StoredRating] = ()
) -> list[AnyEvent]:
    """What follows if, with the ratings that are about to be recorded, enough people's count; else nothing."""
    found = reviewed(context.view, stored, new, sealed=True)
    assert found.facts is not None
    rule = rule_of(context.view, campaign)
    if not is_complete(rule, count(Facts(rule, found.facts), found.rows)):
        return []
    return _sealed(context, stored, campaign, new, found, None)


def _sealed(
    context: Context,
    stored: StoredVersion,
    campaign: StoredCampaign,
    new: Sequence[StoredRating],
    found: Reviewed,
    reason: str | None,
) -> list[AnyEvent]:
    ratings = [*context.view.ratings(campaign.id), *new]
    root = rating_root(context.view.assignments(campaign.id), ratings)
    assert found.facts is not None
    result = review_result(Facts(rule_of(context.view, campaign), found.facts), found.rows, root)
    sealed = CampaignSealed(
        id=campaign.id,
        adapter=stored.adapter,
        number=stored.number,
        ratings=len(ratings),
        counted=result.counted,
        excluded=result.excluded,
        root=root,
        result=digest_of(msgspec.to_builtins(result)),
        reason=reason,
    )
    return [sealed, *following(context, stored, found)]


def following(context: Context, stored: StoredVersion, found: Reviewed) -> list[AnyEvent]:
    """What the gate decides on these ratings, and the promotion that the policy asks for then."""
    report = assess(context.view, stored, found=found)
    events = decided(stored, report)
    if report.verdict is Verdict.GO and (move := automatic_move(context, stored, found)):
        events.append(move)
    return events
