"""Who cannot count whatever they rate: each rule bites, and nothing said after the fact changes anything."""

from typing import Any

import pytest

from registry.records import ReviewerInfo
from registry.review.standing import REASONS, Doings, Opening, bars, is_uninvolved, lapsed

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
    return bars(opening, Doings(person, [FIRST, LAST], records))


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
    ("ended", "covered"),
    [
        ({"valid_until": "2026-03-04T00:00:00.000000Z"}, [FIRST]),  # between the first rating and the last
        ({"withdrawn_at": "2026-03-04T00:00:00.000000Z"}, [FIRST]),
        ({"valid_from": "2026-03-03T00:00:00.000000Z"}, [LAST]),
        ({"valid_until": "2026-02-28T00:00:00.000000Z"}, []),
        ({"withdrawn_at": "2026-02-28T00:00:00.000000Z"}, []),
    ],
)
def test_only_what_was_rated_while_no_record_was_valid_does_not_count(
    ended: dict[str, str], covered: list[str]
) -> None:
    for opening in (OPENING, SUPPORT):
        assert [at for at in (FIRST, LAST) if not lapsed(opening, [record(**ended)], at)] == covered
        assert of(opening, record(**ended)) == ([] if covered else ["expired_credential"])
        assert of(opening, record(**ended), record()) == []


def test_a_record_that_was_renewed_loses_nothing() -> None:
    halves = [record(valid_until="2026-03-03T00:00:00.000000Z"), record(valid_from="2026-03-03T00:00:00.000000Z")]
    for opening in (OPENING, SUPPORT):
        assert of(opening, *halves) == [] and not any(lapsed(opening, halves, at) for at in (FIRST, LAST))


def test_without_a_domain_a_record_from_after_the_opening_takes_nobodys_ratings_away() -> None:
    """Else an admin could silence a person: vouch for them, and withdraw it."""
    made = record(vouched_at=OPENED, withdrawn_at="2026-03-01T12:00:00.000000Z")
    assert of(OPENING, made) == [] and not lapsed(OPENING, [made], FIRST)


def may_settle(opening: Opening, *records: ReviewerInfo, person: str = "eva") -> bool:
    return is_uninvolved(opening, Doings(person, [LAST], records))


def test_a_dispute_is_settled_by_people_of_standing_be_they_vouched_for_late() -> None:
    late = {"vouched_at": "2026-03-02T00:00:00.000000Z"}
    assert may_settle(OPENING) and may_settle(SUPPORT, record()) and may_settle(SUPPORT, record(**late))
    assert not may_settle(SUPPORT) and not may_settle(SUPPORT, record(**late, domain="law"))
    assert not may_settle(SUPPORT, record(**late, withdrawn_at=FIRST))
    for party in ("ada", "tom", "worker"):
        assert not may_settle(SUPPORT, record(**late, vouched_by=party))
        assert not may_settle(SUPPORT, record(**late), person=party)


def test_a_credential_that_lapsed_after_the_last_rating_counts() -> None:
    for ended in ({"valid_until": LAST}, {"withdrawn_at": LAST}, {"withdrawn_at": "2026-03-06T00:00:00.000000Z"}):
        assert of(SUPPORT, record(**ended)) == []


def test_a_domain_takes_a_record_of_that_domain_from_someone_uninvolved() -> None:
    assert of(SUPPORT) == ["wrong_domain"] == of(SUPPORT, record(domain="law"))
    for party in ("ada", "tom", "worker"):
        assert of(SUPPORT, record(vouched_by=party)) == ["wrong_domain"]
        assert of(SUPPORT, record(vouched_by=party), record()) == []


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
