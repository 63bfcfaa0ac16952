"""Who cannot count whatever they rate: each rule bites, and nothing said after the fact changes anything."""

from typing import Any

import pytest

from registry.records import ReviewerInfo
from registry.review.standing import REASONS, Doings, Opening, bars

OPENED = "2026-03-01T00:00:00.000000Z"
FIRST, LAST = "2026-03-02T00:00:00.000000Z", "2026-03-05T00:00:00.000000Z"
OPENING = Opening("ada", frozenset({"tom"}), "worker", OPENED, domain=None)
SUPPORT = OPENING._replace(domain="support")


def record(**changes: Any) -> ReviewerInfo:
    """A record in the domain `support`, vouched for in time by someone uninvolved, valid all the year."""
    values: dict[str, Any] = {
        "id": "r",
        "person": "eva",
        "domain": "support",
        "credential": "ten years at the desk",
        "issuer": None,
        "valid_from": "2026-01-01T00:00:00.000000Z",
        "valid_until": "2026-12-31T23:59:59.999999Z",
        "vouched_by": "root",
        "vouched_at": "2026-02-01T00:00:00.000000Z",
        **changes,
    }
    return ReviewerInfo(**values)


def of(opening: Opening, *records: ReviewerInfo, person: str = "eva") -> list[str]:
    return bars(opening, Doings(person, FIRST, LAST, records))


@pytest.mark.parametrize(
    ("person", "rule"),
    [("ada", "submitter"), ("tom", "named_in_provenance"), ("worker", "opened_campaign")],
)
def test_who_had_a_part_in_the_version_or_the_campaign_cannot_count(person: str, rule: str) -> None:
    assert of(OPENING, person=person) == [rule]
    assert of(SUPPORT, record(), person=person) == [rule]


def test_every_reason_is_named_where_there_are_several() -> None:
    both = OPENING._replace(opened_by="ada", named=frozenset({"ada"}))
    assert of(both, person="ada") == ["submitter", "named_in_provenance", "opened_campaign"]


def test_without_a_domain_nobody_needs_a_record() -> None:
    assert of(OPENING) == [] == of(OPENING, record(domain="law"))


@pytest.mark.parametrize(
    "lapsed",
    [
        {"valid_until": "2026-03-04T00:00:00.000000Z"},  # between the first rating and the last
        {"valid_until": "2026-02-28T00:00:00.000000Z"},
        {"valid_from": "2026-03-03T00:00:00.000000Z"},
        {"withdrawn_at": "2026-03-04T00:00:00.000000Z"},
    ],
)
def test_a_credential_that_was_not_valid_throughout_does_not_count(lapsed: dict[str, str]) -> None:
    for opening in (OPENING, SUPPORT):
        assert of(opening, record(**lapsed)) == ["expired_credential"]
        assert of(opening, record(**lapsed), record()) == []
    two_halves = record(valid_until="2026-03-03T00:00:00.000000Z"), record(valid_from="2026-03-03T00:00:00.000000Z")
    assert of(SUPPORT, *two_halves) == ["expired_credential"]


def test_a_credential_that_lapsed_after_the_last_rating_counts() -> None:
    for ended in ({"valid_until": LAST}, {"withdrawn_at": LAST}, {"withdrawn_at": "2026-03-06T00:00:00.000000Z"}):
        assert of(SUPPORT, record(**ended)) == []


def test_a_domain_takes_a_record_of_that_domain_from_someone_uninvolved() -> None:
    assert of(SUPPORT) == ["wrong_domain"] == of(SUPPORT, record(domain="law"))
    assert of(SUPPORT, record(vouched_by="ada")) == ["wrong_domain"]
    assert of(SUPPORT, record(vouched_by="ada"), record()) == []


@pytest.mark.parametrize("vouched_at", [OPENED, "2026-03-01T12:00:00.000000Z"])
def test_a_friend_who_is_vouched_for_once_the_campaign_is_open_does_not_count(vouched_at: str) -> None:
    assert of(SUPPORT, record(vouched_at=vouched_at)) == ["late_reviewer"]


def test_what_is_said_of_a_person_after_their_last_rating_changes_nothing() -> None:
    later = record(vouched_at="2026-03-06T00:00:00.000000Z", valid_from="2026-03-06T00:00:00.000000Z")
    assert of(OPENING, later) == of(OPENING) == []
    assert of(SUPPORT, later) == of(SUPPORT) == ["wrong_domain"]
    assert of(SUPPORT, record(), later) == []


def test_every_rule_has_a_reason_in_words() -> None:
    assert set(REASONS) == {
        "submitter",
        "named_in_provenance",
        "opened_campaign",
        "late_reviewer",
        "expired_credential",
        "wrong_domain",
    }
