"""Who cannot count in a campaign, whatever they rate: the involved, and who lacks the standing it asks for. Pure.

Moments are the journal's, so that they compare as text.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from registry.records import ReviewerInfo

SUBMITTER = "submitter"
NAMED_IN_PROVENANCE = "named_in_provenance"
OPENED_CAMPAIGN = "opened_campaign"
LATE_REVIEWER = "late_reviewer"
EXPIRED_CREDENTIAL = "expired_credential"
WRONG_DOMAIN = "wrong_domain"

REASONS = {
    SUBMITTER: "submitted the version",
    NAMED_IN_PROVENANCE: "took part in making the version",
    OPENED_CAMPAIGN: "opened the campaign",
    LATE_REVIEWER: "was vouched for only after the campaign had opened",
    EXPIRED_CREDENTIAL: "had no valid record from their first rating to their last",
    WRONG_DOMAIN: "was vouched for in the policy's domain by nobody but the submitter, if at all",
}


class Opening(NamedTuple):
    """What a campaign was opened with. named: everyone whom the version's provenance names."""

    submitter: str
    named: frozenset[str]
    opened_by: str
    opened_at: str
    domain: str | None


class Doings(NamedTuple):
    """One person's part in a campaign. records: every one that is said of them for this adapter, withdrawn or not."""

    person: str
    first_rated_at: str
    last_rated_at: str
    records: Sequence[ReviewerInfo]


def bars(opening: Opening, doings: Doings) -> list[str]:
    """The rules by which this person's ratings cannot count; none for most."""
    involved = {
        SUBMITTER: doings.person == opening.submitter,
        NAMED_IN_PROVENANCE: doings.person in opening.named,
        OPENED_CAMPAIGN: doings.person == opening.opened_by,
    }
    return [*(rule for rule, holds in involved.items() if holds), *_unvouched(opening, doings)]


def _unvouched(opening: Opening, doings: Doings) -> Iterator[str]:
    """Without a domain to ask for, only a person whose every record had lapsed is left out.

    What is said of them after their last rating changes nothing: a seal counts the same for ever.
    """
    records = [one for one in doings.records if one.vouched_at <= doings.last_rated_at]
    if opening.domain is not None:
        vouchers = [one for one in records if one.domain == opening.domain and one.vouched_by != opening.submitter]
        if not vouchers:
            yield WRONG_DOMAIN
            return
        records = [one for one in vouchers if one.vouched_at < opening.opened_at]
        if not records:
            yield LATE_REVIEWER
            return
    if records and not any(_valid(one, doings) for one in records):
        yield EXPIRED_CREDENTIAL


def _valid(record: ReviewerInfo, doings: Doings) -> bool:
    ended = min(record.valid_until, record.withdrawn_at or record.valid_until)
    return record.valid_from <= doings.first_rated_at and doings.last_rated_at <= ended
