"""The evidence bundle of a version: all that its verdict was decided from, for who wants to decide it again."""

from msgspec.structs import replace

from registry import __version__
from registry.commands.adapters import find_adapter
from registry.commands.context import Context
from registry.commands.gate import subject_of
from registry.commands.reviewed import Reviewed, reviewed
from registry.commands.versions import find_version
from registry.gate.decision import decide
from registry.records import Bundle, ReviewRule
from registry.review.counting import Facts, count
from registry.storage.views import StoredVersion, View


def bundle_of(context: Context, adapter: str, number: int) -> Bundle:
    """The bundle of a version as it stands now.

    Its report is decided from the very values it holds: a rating that comes in meanwhile is in both or in neither.
    """
    view, stored = context.view, find_version(context, adapter, number)
    subject = subject_of(view, stored, stored.policy or find_adapter(context, adapter).policy)
    ratings, facts = _told(subject.policy.review, pseudonymous(view, stored, reviewed(view, stored)))
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
        rejected=subject.rejected,
        waived=dict(subject.waived),
        reviews=subject.reviews,
        evidence=stored.evidence,
        evidence_digest=stored.evidence_digest,
        ratings=ratings,
        report=decide(subject, stored.evidence, ratings, facts),
        software=f"tunegate {__version__}",
        review=facts,
    )


def pseudonymous(view: View, stored: StoredVersion, found: Reviewed) -> Reviewed:
    """The same under "reviewer 1", "reviewer 2" … in the order in which people were first given an item.

    That order is not changed by who joins later, and their names have no part in it. Experts who settled a dispute are
    numbered in the order in which they spoke.
    """
    campaign = view.campaign_of(stored.adapter, stored.number)
    joined = dict.fromkeys(one.person for one in view.assignments(campaign.id)) if campaign else {}
    names = {person: f"reviewer {number}" for number, person in enumerate(joined, start=1)}
    settled = found.facts.adjudications if found.facts else []
    experts = dict.fromkeys(one.person for one in settled if one.person not in names)
    names |= {person: f"expert {number}" for number, person in enumerate(experts, start=1)}
    order = {person: place for place, person in enumerate(names)}
    rows = [replace(row, person=names[row.person]) for row in sorted(found.rows, key=lambda row: order[row.person])]
    if found.facts is None:
        return Reviewed(rows, None)
    facts = replace(
        found.facts,
        barred={names[person]: rules for person, rules in found.facts.barred.items()},
        adjudications=[replace(one, person=names[one.person]) for one in settled],
    )
    return Reviewed(rows, facts)


def _told(rule: ReviewRule, found: Reviewed) -> Reviewed:
    """Before the seal how far people are, and not what they said: who may read a bundle must not learn it sooner."""
    if found.facts is None or found.facts.sealed:
        return found
    finished = count(Facts(rule, found.facts), found.rows).finished
    return Reviewed([], replace(found.facts, barred={}, finished=finished, rated=len(found.rows)))
