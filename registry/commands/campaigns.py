"""Campaigns: opened with what is drawn, described without scores, sealed once, then shown whole.

From the seal on no rating is taken. What it names follows from the ratings alone, so anyone who holds the journal can
compute it again.
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache

import msgspec

from registry.commands.approvals import automatic_move
from registry.commands.context import Context, Outcome
from registry.commands.gate import assess, decided
from registry.commands.reviewed import Reviewed, rating_root, reviewed, row_of, rule_of
from registry.commands.versions import find_version
from registry.errors import BlobDamaged, Conflict, NotFound
from registry.events import AnyEvent, CampaignSealed
from registry.names import digest_of
from registry.records import (
    CRITERIA,
    Adjudication,
    Campaign,
    ItemRating,
    ReviewedItem,
    ReviewerProgress,
    ReviewFacts,
    ReviewResult,
    Role,
    SealCampaign,
    State,
    Status,
    Verdict,
)
from registry.review import campaign as plan
from registry.review.counting import Counted, Facts, count
from registry.review.result import review_result
from registry.storage.blobs import LocalBlobs
from registry.storage.views import StoredAssignment, StoredCampaign, StoredItem, StoredRating, StoredVersion
from registry.suites import GoldItem, read_suite


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
        progress=[_progress(planned, person, own) for person, own in sorted(named.items())],
        disputes=len(counted.disputed) if campaign.sealed_at else 0,
        sealed_at=campaign.sealed_at,
    )


def _progress(planned: plan.Items, person: str, own: Sequence[StoredAssignment]) -> ReviewerProgress:
    return ReviewerProgress(
        person=person,
        rated=sum(one.state == "rated" for one in own),
        skipped=sum(one.state == "skipped" for one in own),
        total=max(planned.total, len(own)),
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
    if len(count(Facts(rule, found.facts), found.rows).people) < rule.reviewers:
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


# -- what it came to ----------------------------------------------------------------------------------------------


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
    rulings = {one.item: one for one in context.view.adjudications(campaign.id)}
    by_item: dict[str, list[StoredAssignment]] = {}
    for one in context.view.assignments(campaign.id):
        by_item.setdefault(one.item, []).append(one)
    history: dict[str, list[StoredRating]] = {}
    for rating in context.view.ratings(campaign.id):
        history.setdefault(rating.assignment, []).append(rating)
    items = [one for one in context.view.campaign_items(campaign.id) if one.position > after][:limit]
    return [
        (item.position, _shown_whole(context, stored, item, by_item.get(item.item, []), history, counted, rulings))
        for item in items
    ]


def _shown_whole(
    context: Context,
    stored: StoredVersion,
    item: StoredItem,
    assignments: Sequence[StoredAssignment],
    history: Mapping[str, Sequence[StoredRating]],
    counted: Counted,
    rulings: Mapping[str, Adjudication],
) -> ReviewedItem:
    texts = texts_of(context, stored, item)
    subject = item.subject if item.number == stored.number else f"{stored.adapter}/{item.number}"
    kept = set(counted.rows)
    ratings = [
        _item_rating(context, one, history[one.id], row_of(item, one, history[one.id]) in kept)
        for one in assignments
        if one.id in history
    ]
    return ReviewedItem(
        item=item.item,
        kind=item.kind,
        hash=item.hash,
        subject=subject,
        prompt=texts[0] if texts else None,
        output=texts[1] if texts else None,
        ratings=ratings,
        ruling=rulings.get(item.item),
    )


def _item_rating(
    context: Context, assignment: StoredAssignment, history: Sequence[StoredRating], counted: bool
) -> ItemRating:
    last = history[-1]
    return ItemRating(
        person=assignment.person,
        **{name: getattr(last, name) for name in CRITERIA},
        hallucination=last.hallucination,
        unsafe=last.unsafe,
        discuss=last.discuss,
        comment=comment_of(context, last),
        channel=last.channel,
        seconds=last.seconds,
        revisions=len(history),
        counted=counted,
    )


def comment_of(context: Context, rating: StoredRating) -> str | None:
    """The words of a rating, if they are still there."""
    if rating.comment is None:
        return None
    try:
        return context.services.blobs.read(rating.comment).decode()
    except (NotFound, BlobDamaged):
        return None


def texts_of(context: Context, stored: StoredVersion, item: StoredItem) -> tuple[str, str] | None:
    """Prompt and output of an item as it is shown; None where they were erased."""
    if item.subject == "gold":
        return {one.id: (one.prompt, one.output) for one in gold_items(context, item.suite)}.get(item.source)
    return context.view.shown(stored.adapter, item.number, item.suite, item.source, item.subject)


def gold_items(context: Context, ref: str) -> Sequence[GoldItem]:
    """Of a registered suite, whose content its digests fix."""
    suite = context.view.suites()[ref]
    return _gold_items(context.services.blobs, tuple((file.path, file.sha256) for file in suite.files))


@lru_cache(maxsize=16)
def _gold_items(blobs: LocalBlobs, files: tuple[tuple[str, str], ...]) -> Sequence[GoldItem]:
    return read_suite({path: blobs.read(sha256) for path, sha256 in files}).gold


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
