"""Reviewer records: who vouches for whom, where it holds, and what is refused."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from site_under_test import Site, body, running

from registry.events import decode_entry
from registry.records import AddReviewer, Role
from registry.settings import Home
from registry.storage.catalog import rebuild_catalog

ADA = {
    "person": "Ada Lovelace",
    "domain": "medicine",
    "credential": "licence 42",
    "issuer": "the chamber",
    "valid_from": "2026-01-01",
    "valid_until": "2099-12-31",
}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with running(Home(tmp_path_factory.mktemp("reviewers") / "home")) as found:
        found.add_token("team-admin", Role.ADMIN, "team admin", scope="team")
        found.add_token("bot-admin", Role.ADMIN, "bot admin", scope="team/bot")
        found.add_token("other-admin", Role.ADMIN, "other admin", scope="other")
        found.add_token("team-manager", Role.RELEASE_MANAGER, "team manager", scope="team")
        yield found


def vouch(site: Site, who: str = "admin", **changes: Any) -> httpx.Response:
    return site.http("POST", "/v1/reviewers", who, json={**ADA, **changes})


def listed(site: Site, who: str = "admin") -> set[str]:
    return {one["id"] for one in body(site.http("GET", "/v1/reviewers", who))}  # type: ignore[index]


def test_a_record_says_who_vouched_when_and_for_how_long(site: Site) -> None:
    made = body(vouch(site, person="  Ada   Byron "))
    assert made["person"] == "Ada Byron", "spelled as in tokens, which is how ratings are told apart"
    assert made["vouched_by"] == "admin" or made["vouched_by"]
    assert (made["valid_from"], made["valid_until"]) == ("2026-01-01T00:00:00.000000Z", "2099-12-31T23:59:59.999999Z")
    assert made["withdrawn_at"] is None and made["scope"] is None and made["issuer"] == "the chamber"
    (shown,) = [one for one in site.client("auditor").reviewers() if one.id == made["id"]]
    assert shown.vouched_at == made["vouched_at"] and shown in site.client("release-manager").reviewers()
    precise = body(vouch(site, person="Zoned", valid_from="2026-01-01T12:00:00+02:00"))
    assert precise["valid_from"] == "2026-01-01T10:00:00.000000Z"


def test_what_is_in_the_catalog_follows_from_the_journal(site: Site, tmp_path: Any) -> None:
    made = body(vouch(site, person="Told"))["id"]
    site.client("admin").withdraw_reviewer(made)
    tags = [
        type(event).__name__
        for line in site.registry.journal.read()
        for event in decode_entry(line.body).events
        if getattr(event, "id", None) == made
    ]
    assert tags == ["ReviewerVouched", "ReviewerWithdrawn"]
    catalog = rebuild_catalog(tmp_path / "c.duckdb", tmp_path / "s", site.registry.blobs, site.registry.journal)
    try:
        assert catalog.view().reviewers() == site.registry.view().reviewers()
    finally:
        catalog.close()


def test_a_withdrawn_record_stays_and_says_so_and_is_withdrawn_once(site: Site) -> None:
    made = body(vouch(site, person="Leaving"))["id"]
    assert site.http("DELETE", f"/v1/reviewers/{made}").status_code == 204
    (first,) = [one for one in site.client("admin").reviewers() if one.id == made]
    assert first.withdrawn_at is not None and first.withdrawn_at > first.vouched_at
    assert site.http("DELETE", f"/v1/reviewers/{made}").status_code == 204
    assert first in site.client("admin").reviewers(), "a second withdrawal changes nothing"
    assert site.http("DELETE", "/v1/reviewers/none").status_code == 404
    assert vouch(site, person="Leaving").status_code == 201, "vouched for anew"


def test_the_same_is_not_said_twice(site: Site) -> None:
    assert vouch(site, person="Twice").status_code == 201
    again = vouch(site, person="Twice")
    assert again.status_code == 409 and body(again)["code"] == "already_exists"
    assert vouch(site, person="Twice", valid_until="2100-12-31").status_code == 201, "a renewal is another record"


def test_nobody_vouches_for_themselves(site: Site) -> None:
    site.add_token("proud", Role.ADMIN, "Proud Admin")
    for name in ("Proud Admin", " Proud  Admin "):
        assert vouch(site, "proud", person=name).status_code == 403
    # Another spelling would be another person, whom ratings never name.
    assert vouch(site, "proud", person="proud admin").status_code == 409
    assert vouch(site, person="Proud Admin").status_code == 201


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"valid_from": "soon", "valid_until": "later"}, ["valid_from 'soon'", "valid_until 'later'"]),
        ({"valid_from": "2026-01-01T10:00:00"}, ["valid_from"]),
        ({"valid_from": "2026-02-30"}, ["valid_from"]),
        ({"valid_until": "0001-01-01T00:00:00+23:00"}, ["valid_until"]),
        ({"valid_from": "2099-01-02", "valid_until": "2099-01-01"}, ["not after"]),
        ({"valid_from": "2020-01-01", "valid_until": "2020-12-31"}, ["is over"]),
        ({"scope": "No Name"}, ["No Name"]),
        ({"person": " "}, ["no name"]),
        ({"person": "ci:42"}, ["ci:"]),
        ({"domain": ""}, ["domain"]),
    ],
)
def test_what_cannot_be_right_is_refused_with_every_fault(
    site: Site, changes: dict[str, str], words: list[str]
) -> None:
    refused = vouch(site, **changes)
    assert refused.status_code == 422, refused.text
    assert all(word in refused.text for word in words), refused.text


def test_who_is_limited_to_a_scope_has_no_say_about_other_projects(site: Site) -> None:
    for who, scope in (
        ("team-admin", None),
        ("team-admin", "other"),
        ("bot-admin", "team"),
        ("team-admin", "teamwork"),
    ):
        assert vouch(site, who, person="Intruder", scope=scope).status_code == 403, (who, scope)
    ours = body(vouch(site, "team-admin", person="Insider", scope="team"))["id"]
    theirs = body(vouch(site, "other-admin", person="Outsider", scope="other"))["id"]
    everywhere = body(vouch(site, person="Everywhere"))["id"]
    assert {ours, theirs, everywhere} <= listed(site)
    for who in ("team-admin", "team-manager"):
        assert ours in listed(site, who) and not {theirs, everywhere} & listed(site, who)
    assert not {ours, theirs, everywhere} & listed(site, "bot-admin")
    for record in (theirs, everywhere):
        assert site.http("DELETE", f"/v1/reviewers/{record}", "team-admin").status_code == 404
    assert site.http("DELETE", f"/v1/reviewers/{ours}", "bot-admin").status_code == 404
    assert all(one.withdrawn_at is None for one in site.client("admin").reviewers() if one.id in (ours, theirs))
    assert site.http("DELETE", f"/v1/reviewers/{ours}", "team-admin").status_code == 204


def test_a_record_holds_for_the_adapters_of_its_scope_only(site: Site) -> None:
    for person, scope in (("In All", None), ("In Team", "team"), ("In Bot", "team/bot"), ("In Work", "teamwork")):
        assert vouch(site, person=person, scope=scope).status_code == 201
    view = site.registry.view()

    def names(adapter: str) -> set[str]:
        return {one.person for one in view.reviewers(adapter)} & {"In All", "In Team", "In Bot", "In Work"}

    assert names("team/bot") == {"In All", "In Team", "In Bot"}
    assert names("team/cat") == {"In All", "In Team"} and names("bot") == {"In All"}
    assert names("teamwork") == {"In All", "In Work"} and names("team/bottle") == {"In All", "In Team"}


def test_a_lost_answer_is_repeated_and_nothing_is_done_twice(site: Site) -> None:
    headers = {"Idempotency-Key": "vouch-1"}
    one, two = (
        site.http("POST", "/v1/reviewers", json={**ADA, "person": "Repeated"}, headers=headers) for _ in range(2)
    )
    assert (one.status_code, one.json()) == (two.status_code, two.json()) and one.status_code == 201
    assert sum(record.person == "Repeated" for record in site.client("admin").reviewers()) == 1


def test_the_sdk_says_the_same(site: Site) -> None:
    made = site.client("admin").vouch(AddReviewer(**{**ADA, "person": "By SDK"}))
    assert made in site.client("admin").reviewers()
    site.client("admin").withdraw_reviewer(made.id)
    assert [one.withdrawn_at for one in site.client("admin").reviewers() if one.id == made.id] != [None]
