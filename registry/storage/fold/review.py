"""Human review: who vouches for whom, what a campaign shows to people, and what they say of it."""

from registry.events import (
    AssignmentIssued,
    AssignmentSkipped,
    CampaignOpened,
    CampaignSealed,
    DisputeAdjudicated,
    RatingRecorded,
    ReviewerVouched,
    ReviewerWithdrawn,
    WordsErased,
)
from registry.storage.fold.target import Target, as_json, fold


@fold.register
def _(event: ReviewerVouched, to: Target) -> None:
    to.db.insert(
        "reviewers",
        id=event.id,
        person=event.person,
        domain=event.domain,
        credential=event.credential,
        issuer=event.issuer,
        valid_from=event.valid_from,
        valid_until=event.valid_until,
        scope=event.scope,
        vouched_by=to.entry.actor.person,
        vouched_at=to.entry.at,
        withdrawn_at=None,
        seq=to.entry.seq,
    )


@fold.register
def _(event: ReviewerWithdrawn, to: Target) -> None:
    to.db.update("reviewers", event.id, withdrawn_at=to.entry.at)


@fold.register
def _(event: CampaignOpened, to: Target) -> None:
    to.db.insert(
        "campaigns",
        id=event.id,
        adapter=event.adapter,
        number=event.number,
        policy=event.policy,
        suite=event.suite,
        reviewers=event.reviewers,
        root=event.root,
        opened_by=to.entry.actor.person,
        opened_at=to.entry.at,
        sealed_at=None,
        result=None,
        seq=to.entry.seq,
    )
    for position, one in enumerate(event.items):
        to.db.insert(
            "campaign_items",
            campaign=event.id,
            position=position,
            item=one.item,
            hash=one.hash,
            kind=one.kind.value,
            suite=one.suite or event.suite,
            source=one.source or one.item,
            subject=one.subject,
            number=one.number or event.number,
            words=one.words,
            expect=as_json(one.expect) if one.expect is not None else None,
        )


@fold.register
def _(event: AssignmentIssued, to: Target) -> None:
    position = event.position
    if position is None:  # of an older journal, where each person was shown one after another
        position = len(to.db.select("assignments", campaign=event.campaign, person=event.person)) + 1
    to.db.insert(
        "assignments",
        id=event.id,
        campaign=event.campaign,
        person=event.person,
        item=event.item,
        position=position,
        batch=event.batch,
        issued_at=to.entry.at,
        state="open",
        skip_reason=None,
    )


@fold.register
def _(event: AssignmentSkipped, to: Target) -> None:
    to.db.update("assignments", event.id, state="skipped", skip_reason=event.reason or None)
    about = to.db.find("assignments", event.id)
    if event.words is not None and about is not None:
        _write(to, "skip", event.id, about["campaign"], event.words)


@fold.register
def _(event: RatingRecorded, to: Target) -> None:
    about = to.db.find("assignments", event.assignment)
    assert about is not None
    known = to.db.select("ratings", campaign=about["campaign"], person=about["person"])
    to.db.insert(
        "ratings",
        assignment=event.assignment,
        revision=sum(one["assignment"] == event.assignment for one in known) + 1,
        campaign=about["campaign"],
        person=about["person"],
        clarity=event.clarity,
        relevance=event.relevance,
        safety=event.safety,
        accuracy=event.accuracy,
        hallucination=event.hallucination,
        unsafe=event.unsafe,
        discuss=event.discuss,
        comment=event.comment,
        channel=event.channel.value,
        seconds=event.seconds,
        rated_at=to.entry.at,
        seq=to.entry.seq,
    )
    to.db.update("assignments", event.assignment, state="rated")
    if event.comment is not None:
        _write(to, "comment", event.assignment, about["campaign"], event.comment)


@fold.register
def _(event: CampaignSealed, to: Target) -> None:
    to.db.update("campaigns", event.id, sealed_at=to.entry.at, result=event.result)


@fold.register
def _(event: DisputeAdjudicated, to: Target) -> None:
    to.db.insert(
        "adjudications",
        campaign=event.campaign,
        item=event.item,
        upheld=event.upheld,
        person=to.entry.actor.person,
        reason=event.reason,
        adjudicated_at=to.entry.at,
    )
    if event.words is not None:
        _write(to, "ruling", f"{event.campaign}/{event.item}", event.campaign, event.words)


@fold.register
def _(event: WordsErased, to: Target) -> None:
    to.db.execute(
        "UPDATE words SET erased = true WHERE list_contains(?, about) AND list_contains(?, sha256)",
        [event.about, event.texts],
    )


def _write(to: Target, kind: str, about: str, campaign: str, sha256: str) -> None:
    to.db.insert(
        "words",
        about=about,
        seq=to.entry.seq,
        kind=kind,
        campaign=campaign,
        person=to.entry.actor.person,
        sha256=sha256,
        erased=False,
    )
