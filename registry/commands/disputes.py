"""Outputs that a reviewer rated unsafe wait, once the campaign is sealed, for the word of someone uninvolved."""

from collections.abc import Iterator
from typing import NamedTuple

import msgspec

from registry.commands.campaigns import following
from registry.commands.context import Context, Outcome
from registry.commands.part import looks_behind
from registry.commands.reviewed import opening_of, reviewed, rule_of
from registry.commands.texts import texts_of
from registry.errors import Conflict, NotFound
from registry.events import DisputeAdjudicated
from registry.records import Adjudication, Dispute
from registry.review import campaign as plan
from registry.review.counting import Facts, count, is_veto
from registry.review.standing import Doings, is_uninvolved
from registry.storage.views import StoredCampaign, StoredVersion


class _Open(NamedTuple):
    """One output that waits, with the safety scores that make it wait."""

    id: str
    item: str
    scores: list[int]
    campaign: StoredCampaign
    stored: StoredVersion


def disputes(context: Context) -> list[Dispute]:
    """Those that this person may decide: they rated nothing in the campaign and had no part in the version."""
    return [_shown(context, one) for one in _waiting(context)]


def adjudicate(context: Context, dispute_id: str, upheld: bool, reason_sha256: str) -> Outcome:
    """Say whether an output is unsafe. One word that it is fails the version; all must be cleared for it to pass.

    The reason lies in a blob by then, so that it can be erased.
    """
    found = _own(context, dispute_id)
    shown = _shown(context, found)
    ruling = Adjudication(item=found.item, upheld=upheld, person=context.principal.person)
    event = DisputeAdjudicated(campaign=found.campaign.id, item=found.item, upheld=upheld, words=reason_sha256)
    now = reviewed(context.view, found.stored, ruling=ruling)
    # The journal keeps answers, and never a text.
    kept = msgspec.structs.replace(shown, prompt="", output="")
    return Outcome(shown, [event, *following(context, found.stored, now)], remembered=kept)


def _own(context: Context, dispute_id: str) -> _Open:
    found = next((one for one in _waiting(context) if one.id == dispute_id), None)
    if found is None:
        raise NotFound(f"dispute {dispute_id!r} does not exist, is decided, or is not yours to decide")
    return found


def _shown(context: Context, one: _Open) -> Dispute:
    items = {item.item: item for item in context.view.campaign_items(one.campaign.id)}
    texts = texts_of(context, one.stored, items[one.item])
    if texts is None:
        raise Conflict(
            "the text of the disputed output is gone; ask the release manager to reject or revoke the version"
        )
    return Dispute(id=one.id, prompt=texts[0], output=texts[1], scores=one.scores)


def _waiting(context: Context) -> Iterator[_Open]:
    for campaign in context.view.campaigns_in_review():
        stored = context.view.version(campaign.adapter, campaign.number)
        assert stored is not None
        if campaign.sealed_at is None or not _is_uninvolved(context, stored, campaign):
            continue
        rule, found = rule_of(context.view, campaign), reviewed(context.view, stored)
        assert found.facts is not None
        for item in count(Facts(rule, found.facts), found.rows).disputed:
            vetoes = [row for row in found.rows if row.item == item and is_veto(rule, row)]
            scores = sorted(row.safety for row in vetoes if row.safety <= rule.safety_veto)
            id_ = plan.dispute_id(item, context.services.draw_secret, campaign.id)
            yield _Open(id_, item, scores, campaign, stored)


def _is_uninvolved(context: Context, stored: StoredVersion, campaign: StoredCampaign) -> bool:
    """Whether this person rated nothing, and could have rated: a person of standing who had no part in the version.

    Nor may they see the scores of all that was rated, or be who decides on the version.
    """
    person = context.principal.person
    if not context.principal.may_see(campaign.adapter) or context.view.ratings(campaign.id, person):
        return False
    if looks_behind(context, campaign):
        return False
    records = [one for one in context.view.reviewers(campaign.adapter) if one.person == person]
    return is_uninvolved(opening_of(context.view, stored, campaign), Doings(person, [context.now], records))
