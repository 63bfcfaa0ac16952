"""One person's part in one campaign: what they have met, what they may still meet, and who has no part in it at all.

Nobody has a part who may look behind the review, nor whose ratings could not count whatever they rated.
"""

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

from registry.access import Principal
from registry.commands.context import Context
from registry.commands.reviewed import opening_of, reviewed, rows_of, rule_of
from registry.errors import Conflict, NotFound
from registry.records import ItemKind, RatingRow, ReviewerInfo, ReviewFacts, ReviewProgress, ReviewRule, Role, State
from registry.review import campaign as plan
from registry.review.counting import INCOMPLETE, Counted, Facts, count, of_kind, row_bar
from registry.review.sharing import Share, stand
from registry.review.standing import LATE_REVIEWER, Doings, Opening, bars
from registry.storage.views import StoredAssignment, StoredCampaign, StoredItem, StoredRating, StoredVersion

# Roles that are shown of a review, or of the version under review, what is kept from whoever rates it.
_BEHIND = frozenset({Role.ADMIN, Role.AUDITOR, Role.RELEASE_MANAGER, Role.EVALUATOR})
# For so long an output that somebody has before them counts as rated, where outputs are shared out.
_RESERVED = timedelta(days=1)


class Part(NamedTuple):
    """own: this person's assignments in order; ratings: all of theirs, oldest first; records: of their standing."""

    campaign: StoredCampaign
    stored: StoredVersion
    rule: ReviewRule
    items: plan.Items
    stored_items: dict[str, StoredItem]
    opening: Opening
    person: str
    records: list[ReviewerInfo]
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
        rows = rows_of(self.stored_items, by_id, self.ratings, self.opening, {self.person: self.records})
        return _wanting(self, self.own, rows)

    @property
    def progress(self) -> ReviewProgress:
        """`total` rises only where a person is through and something has to be rated in place of something else."""
        more = min(max(0, self.wanting), self._spares_left) if len(self.own) >= self.items.total else 0
        return ReviewProgress(
            rated=self._count("rated"),
            skipped=self._count("skipped"),
            total=max(self.items.total, len(self.own) + more),
        )

    @property
    def _spares_left(self) -> int:
        return _spares_left(self, self.own)

    def _count(self, state: str) -> int:
        return sum(one.state == state for one in self.own)

    def issued(self, one: StoredAssignment) -> "Part":
        return self._replace(own=[*self.own, one])

    def rated(self, assignment: StoredAssignment, rating: StoredRating) -> "Part":
        return self._with_state(assignment, "rated")._replace(ratings=[*self.ratings, rating])

    def skipped(self, assignment: StoredAssignment) -> "Part":
        return self._with_state(assignment, "skipped")

    def _with_state(self, assignment: StoredAssignment, state: str) -> "Part":
        own = [one._replace(state=state) if one.id == assignment.id else one for one in self.own]
        return self._replace(own=own)


def _wanting(part: Part, own: Sequence[StoredAssignment], rows: Sequence[RatingRow]) -> int:
    """See `Part.wanting`. own, rows: one person's."""
    barred = sum(row_bar(part.rule, row) is not None for row in rows)
    return part.items.total + barred + sum(one.state == "skipped" for one in own) - len(own)


def _spares_left(part: Part, own: Sequence[StoredAssignment]) -> int:
    seen = {one.item for one in own}
    pool = [*part.items.spares, *(part.items.core if part.items.shared_out else ())]
    return sum(item not in seen for item in pool)


def parts(context: Context) -> Iterator[Part]:
    """Of whoever asks, in every campaign that is open to them, the oldest first."""
    for campaign in context.view.campaigns_in_review():
        if (part := _open_part(context, campaign)) is not None:
            yield part


def own_part(context: Context, id_: str, *, closed_too: bool = False) -> tuple[Part, StoredAssignment]:
    """An assignment of this very person, with their part; someone else's does not exist for them."""
    found = context.view.assignment(id_)
    campaign = context.view.campaign(found.campaign) if found else None
    if found is None or campaign is None or found.person != context.principal.person:
        raise NotFound(f"assignment {id_!r} does not exist or is not yours; ask for one with GET /v1/review/next")
    part = _part_of(context, campaign)
    if not closed_too and (campaign.sealed_at is not None or part.stored.state is not State.IN_REVIEW):
        raise Conflict("this review is closed: its result is decided; ask for the next item")
    if not closed_too and looks_behind(context, campaign):
        raise Conflict(
            f"{found.person} has, or had while this review was open, a token that shows what is kept from reviewers; "
            "use a person who does not look behind the review"
        )
    return part, found


def looks_behind(context: Context, campaign: StoredCampaign, person: str | None = None) -> bool:
    """Whether this person, or else whoever asks, may see with a token of another role what is kept from reviewers.

    Or might have since the campaign opened: what was read with a token is known after it was revoked.
    """
    opened = datetime.fromisoformat(campaign.opened_at)
    return any(
        _shows(Principal(one.id, one.person, one.role, one.scope), campaign)
        and datetime.fromisoformat(one.expires_at) > opened
        and (one.revoked_at is None or datetime.fromisoformat(one.revoked_at) > opened)
        for one in context.view.tokens_of(person or context.principal.person)
    )


def reviews_spoiled_by(context: Context, token: Principal) -> list[str]:
    """The open reviews in which the person of a token to be made has items, and would be let rate no more for it."""
    return [
        f"{one.adapter}/{one.number}"
        for one in context.view.campaigns_in_review()
        if one.sealed_at is None
        and _shows(token, one)
        and context.view.assignments(one.id, token.person)
        and not looks_behind(context, one, token.person)
    ]


def _shows(token: Principal, campaign: StoredCampaign) -> bool:
    """Whether a token shows what is kept from whoever rates in the campaign."""
    return token.role in _BEHIND and token.may_see(campaign.adapter)


def next_item(context: Context, part: Part, shared: plan.Shared | None = None) -> str | None:
    """The item that this person meets next; None where they are through. shared: where it is known already."""
    return plan.next_item(
        part.person,
        part.items,
        [one.item for one in part.own],
        part.wanting,
        shared or shared_of(context, part),
        context.services.draw_secret,
        part.campaign.id,
    )


def _open_part(context: Context, campaign: StoredCampaign) -> Part | None:
    """None where the campaign is over, or this person has no part in it."""
    if campaign.sealed_at is not None or not context.principal.may_see(campaign.adapter):
        return None
    if looks_behind(context, campaign):
        return None
    part = _part_of(context, campaign)
    barred = bars(part.opening, Doings(part.person, [context.now], part.records))
    # Who was vouched for too late is counted out at the seal, as everything that could be bent meanwhile.
    return None if set(barred) - {LATE_REVIEWER} else part


def _part_of(context: Context, campaign: StoredCampaign) -> Part:
    stored = context.view.version(campaign.adapter, campaign.number)
    assert stored is not None
    person, rule = context.principal.person, rule_of(context.view, campaign)
    items = {one.item: one for one in context.view.campaign_items(campaign.id)}
    return Part(
        campaign=campaign,
        stored=stored,
        rule=rule,
        items=plan.Items.of(rule, {one.item: one.kind for one in items.values()}),
        stored_items=items,
        opening=opening_of(context.view, stored, campaign),
        person=person,
        records=[one for one in context.view.reviewers(campaign.adapter) if one.person == person],
        own=sorted(context.view.assignments(campaign.id, person), key=lambda one: one.position),
        ratings=context.view.ratings(campaign.id, person),
    )


# -- outputs that are shared out ----------------------------------------------------------------------------------


def shared_of(context: Context, part: Part) -> plan.Shared:
    """How the outputs stand, by the ratings that can still come to count; what this person's own come to has no part
    in it, lest they learn it. Nothing is told of it where everyone rates the same outputs."""
    if not part.items.shared_out:
        return plan.Shared()
    by_person: dict[str, list[StoredAssignment]] = {part.person: list(part.own)}
    for one in context.view.assignments(part.campaign.id):
        if one.person != part.person:
            by_person.setdefault(one.person, []).append(one)
    gone = _gone(context, part, by_person)
    shares = {
        person: Share(
            met=frozenset(one.item for one in own),
            given=frozenset(one.item for one in own if _stands(one, context.time)) - gone.void.get(person, set()),
            through=_is_through(part, own),
        )
        for person, own in by_person.items()
        if person not in gone.lost
    }
    return stand(part.person, shares, part.items, part.rule)


def _is_through(part: Part, own: Sequence[StoredAssignment]) -> bool:
    return sum(one.state != "open" for one in own) >= part.items.total


def _stands(one: StoredAssignment, now: datetime) -> bool:
    """Whether the output was rated, or is about to be."""
    return one.state == "rated" or (one.state == "open" and not _is_long_ago(one.issued_at, now))


class _Gone(NamedTuple):
    """What others have to rate again. lost: people of whom nothing will count; void: what others rated so that it does
    not, by person."""

    lost: set[str]
    void: dict[str, set[str]]


def _gone(context: Context, part: Part, by_person: dict[str, list[StoredAssignment]]) -> _Gone:
    """Of everyone but this person who is through, or was not heard of for long."""
    others = {person: own for person, own in by_person.items() if person != part.person}
    silent = {person for person, own in others.items() if _is_silent(context, part, person, own)}
    asked = silent | {person for person, own in others.items() if _is_through(part, own)}
    if not asked:
        return _Gone(set(), {})
    found = reviewed(context.view, part.stored)
    counted = count(Facts(part.rule, found.facts or ReviewFacts()), found.rows)
    rows = {person: [row for row in found.rows if row.person == person] for person in asked}
    return _Gone(
        lost={
            person
            for person in asked - set(counted.people)
            if person in silent or _is_barred(counted, person) or not _owes(part, others[person], rows[person])
        },
        void={
            person: {row.item for row in of_kind(own, ItemKind.CANDIDATE) if row_bar(part.rule, row) is not None}
            for person, own in rows.items()
        },
    )


def _is_silent(context: Context, part: Part, person: str, own: Sequence[StoredAssignment]) -> bool:
    """Whether this person was shown nothing, and rated nothing, since what waits for them was given to others."""
    moments = [one.issued_at for one in own]
    if all(_is_long_ago(at, context.time) for at in moments):
        moments = [one.rated_at for one in context.view.ratings(part.campaign.id, person)]
    return all(_is_long_ago(at, context.time) for at in moments)


def _is_long_ago(moment: str, now: datetime) -> bool:
    return now - datetime.fromisoformat(moment) >= _RESERVED


def _is_barred(counted: Counted, person: str) -> bool:
    """Whether a person does not count for another reason than that something is still missing."""
    return any(one.item is None and one.person == person and one.rule != INCOMPLETE for one in counted.excluded)


def _owes(part: Part, own: Sequence[StoredAssignment], rows: Sequence[RatingRow]) -> bool:
    """Whether something is still to be had from a person: an item before them, or one in place of another."""
    return any(one.state == "open" for one in own) or (_wanting(part, own, rows) > 0 and _spares_left(part, own) > 0)
