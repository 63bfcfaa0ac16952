"""The evidence bundle of a version: all that its verdict was decided from, for who wants to decide it again."""

from collections.abc import Sequence

import msgspec

from registry import __version__
from registry.commands.adapters import find_adapter
from registry.commands.context import Context
from registry.commands.gate import subject_of
from registry.commands.versions import find_version
from registry.gate.decision import decide
from registry.records import Bundle, RatingRow
from registry.storage.views import StoredCampaign, View


def bundle_of(context: Context, adapter: str, number: int) -> Bundle:
    """The bundle of a version as it stands now.

    Its report is decided from the very values it holds: a rating that comes in meanwhile is in both or in neither.
    """
    view, stored = context.view, find_version(context, adapter, number)
    subject = subject_of(view, stored, stored.policy or find_adapter(context, adapter).policy)
    campaign = view.campaign_of(adapter, number)
    ratings = pseudonymous_ratings(view, campaign) if campaign else []
    return Bundle(
        ref=stored.ref,
        digest=stored.digest,
        policy=subject.policy_digest,
        document=subject.policy,
        sealed=subject.sealed,
        has_training_record=subject.has_training_record,
        suite_sizes=subject.suite_sizes,
        cut_off_limits=subject.cut_off_limits,
        chances=subject.chances,
        warnings=list(subject.warnings),
        failure=subject.failure,
        revoked=subject.revoked,
        evidence=stored.evidence,
        evidence_digest=stored.evidence_digest,
        ratings=ratings,
        report=decide(subject, stored.evidence, ratings),
        software=f"tunegate {__version__}",
    )


def pseudonymous_ratings(view: View, campaign: StoredCampaign, and_also: Sequence[RatingRow] = ()) -> list[RatingRow]:
    """The campaign's ratings, by "reviewer 1", "reviewer 2" … in the order in which people were first given an item.

    That order is not changed by who joins later, and their names have no part in it.
    and_also: ratings that are about to be recorded.
    """
    ratings = [*view.ratings(campaign.id), *and_also]  # before the assignments, so that every person has one
    joined = list(dict.fromkeys(one.person for one in view.assignments(campaign.id)))
    return [
        msgspec.structs.replace(row, person=f"reviewer {number}")
        for number, person in enumerate(joined, start=1)
        for row in ratings
        if row.person == person
    ]
