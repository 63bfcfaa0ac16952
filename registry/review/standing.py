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

# What makes a person a party: not even their word that something is unsafe is taken.
INVOLVED = frozenset({SUBMITTER, NAMED_IN_PROVENANCE, OPENED_CAMPAIGN})

REASONS = {
    SUBMITTER: "submitted the version",
    NAMED_IN_PROVENANCE: "took part in making the version",
    OPENED_CAMPAIGN: "opened the campaign",
    LATE_REVIEWER: "was vouched for only after the campaign had opened",
    EXPIRED_CREDENTIAL: "had no valid record whenever they rated",
    WRONG_DOMAIN: "was vouched for in the policy's domain by nobody but people with a part in the version, if at all",
}


class Opening(NamedTuple):
    """What a campaign was opened with. named: everyone whom the version's provenance names."""

    submitter: str
    named: frozenset[str]
    opened_by: str
    opened_at: str
    domain: str | None

    @property
    def parties(self) -> frozenset[str]:
        """Who had a part in the version or the campaign: none of them rates, and none of their vouching counts."""
        return self.named | {self.submitter, self.opened_by}


class Doings(NamedTuple):
    """One person's part in a campaign. moments: when they rated, at least once. records: every one that is said of them
    for this adapter, withdrawn or not."""

    person: str
    moments: Sequence[str]
    records: Sequence[ReviewerInfo]


def bars(opening: Opening, doings: Doings) -> list[str]:
    """The rules by which this person's ratings cannot count; none for most."""
    involved = {
        SUBMITTER: doings.person == opening.submitter,
        NAMED_IN_PROVENANCE: doings.person in opening.named,
        OPENED_CAMPAIGN: doings.person == opening.opened_by,
    }
    return [*(rule for rule, holds in involved.items() if holds), *_unvouched(opening, doings)]


def lapsed(opening: Opening, records: Sequence[ReviewerInfo], moment: str) -> bool:
    """Whether what a person rates at this moment cannot count, for of their records in question none is valid then.

    Where one ends and the next begins nothing is lost. Who has none is another matter.
    """
    held = [one for one in _asked_for(opening, records) if one.vouched_at < opening.opened_at]
    return bool(held) and not any(_valid(one, moment) for one in held)


def is_uninvolved(opening: Opening, doings: Doings) -> bool:
    """Whether this person may settle a dispute, as far as their standing goes.

    They may have been vouched for after the opening, as no rating of theirs is counted, by someone who has no part in
    it either: else a dispute on which everybody of standing has rated could never be settled.
    """
    found = set(bars(opening, doings))
    if found != {LATE_REVIEWER}:
        return not found
    vouchers = _asked_for(opening, doings.records)
    return all(any(_valid(one, moment) for one in vouchers) for moment in doings.moments)


def _unvouched(opening: Opening, doings: Doings) -> Iterator[str]:
    """Without a domain to ask for, only a person whose every record had lapsed is left out.

    What is said of them after their last rating changes nothing: a seal counts the same for ever.
    """
    if opening.domain is not None:
        vouchers = [one for one in _asked_for(opening, doings.records) if one.vouched_at <= max(doings.moments)]
        if not vouchers:
            yield WRONG_DOMAIN
            return
        if all(one.vouched_at >= opening.opened_at for one in vouchers):
            yield LATE_REVIEWER
            return
    if all(lapsed(opening, doings.records, moment) for moment in doings.moments):
        yield EXPIRED_CREDENTIAL


def _asked_for(opening: Opening, records: Sequence[ReviewerInfo]) -> list[ReviewerInfo]:
    if opening.domain is None:
        return list(records)
    return [one for one in records if one.domain == opening.domain and one.vouched_by not in opening.parties]


def _valid(record: ReviewerInfo, moment: str) -> bool:
    return record.valid_from <= moment <= min(record.valid_until, record.withdrawn_at or record.valid_until)
