"""Tokens that are limited to a scope stay in it, whatever their role."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from site_under_test import Site, body, running

from registry.records import Role
from registry.settings import Home


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with running(Home(Path(tmp_path_factory.mktemp("tokens")) / "home")) as found:
        found.add_token("team-admin", Role.ADMIN, "team admin", scope="team")
        found.add_token("team-ci", Role.CI, "team ci", scope="team/bot")
        found.add_token("team-manager", Role.RELEASE_MANAGER, "team manager", scope="team")
        yield found


def tokens(site: Site, who: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = site.http("GET", "/v1/tokens", who).json()
    return found


@pytest.mark.parametrize("scope", [None, "other", "tea", "teams", "team-bot"])
def test_a_scoped_admin_makes_no_token_beyond_the_scope(site: Site, scope: str | None) -> None:
    wanted = {"role": "admin", "person": "x", "scope": scope}
    answer = site.http("POST", "/v1/tokens", "team-admin", json=wanted)
    assert (answer.status_code, body(answer)["code"]) == (403, "forbidden")


@pytest.mark.parametrize("scope", ["team", "team/bot"])
def test_a_scoped_admin_makes_tokens_inside_the_scope(site: Site, scope: str) -> None:
    answer = site.http("POST", "/v1/tokens", "team-admin", json={"role": "ci", "person": "x", "scope": scope})
    assert answer.status_code == 201
    assert body(answer)["token"]["scope"] == scope


def test_a_scoped_admin_neither_sees_nor_ends_the_tokens_of_others(site: Site) -> None:
    seen = {one["scope"] for one in tokens(site, "team-admin")}
    assert seen == {"team", "team/bot"}
    everyone = tokens(site, "admin")
    outside = next(one for one in everyone if one["scope"] is None and one["role"] == "evaluator")
    assert site.http("DELETE", f"/v1/tokens/{outside['id']}", "team-admin").status_code == 404
    inside = next(one for one in everyone if one["scope"] == "team/bot" and one["person"] == "team ci")
    assert site.http("DELETE", f"/v1/tokens/{inside['id']}", "team-admin").status_code == 204


@pytest.mark.parametrize("scope", ["../..", "a\u0000b", "Team", "", "a/b/c", "team/"])
def test_a_scope_that_names_no_namespace_or_adapter_is_refused(site: Site, scope: str) -> None:
    answer = site.http("POST", "/v1/tokens", "admin", json={"role": "ci", "person": "x", "scope": scope})
    assert answer.status_code == 422


def test_a_scoped_token_registers_no_suites(site: Site) -> None:
    files = [{"path": path, "size": 1, "sha256": "0" * 64} for path in ("suite.toml", "items.jsonl")]
    answer = site.http("POST", "/v1/suites", "team-manager", json={"name": "support-desk/questions", "files": files})
    assert answer.status_code == 403


def test_a_scoped_admin_meets_no_token_of_the_same_person_outside_the_scope(site: Site) -> None:
    """One name, in the scope, beside it and everywhere: being the same person widens no token."""
    person = "team admin"
    for name, scope in (("wide", None), ("beside", "other"), ("within", "team/bot")):
        site.add_token(name, Role.CI, person, scope=scope)
    mine = [one for one in tokens(site, "admin") if one["person"] == person]
    assert {one["scope"] for one in mine} == {None, "other", "team", "team/bot"}
    seen = {one["id"] for one in tokens(site, "team-admin")}
    for one in mine:
        inside = one["scope"] in ("team", "team/bot")
        assert (one["id"] in seen) == inside
        if not inside:
            assert site.http("DELETE", f"/v1/tokens/{one['id']}", "team-admin").status_code == 404
    assert [one["scope"] for one in tokens(site, "within")] == ["team/bot"], "nor does it for other roles"
    assert {one["scope"] for one in tokens(site, "wide")} == {None, "other", "team", "team/bot"}


@pytest.mark.parametrize("scope", [None, "other", "tea", "team-b/bot"])
@pytest.mark.parametrize("spelling", ["", "Upper "])
def test_a_scoped_admin_cannot_act_as_a_person_of_another_scope(site: Site, scope: str | None, spelling: str) -> None:
    person = f"elsewhere {scope}"
    site.add_token(person, Role.REVIEWER, person, scope=scope)
    head = site.registry.journal.head
    for role in ("reviewer", "release-manager", "ci"):
        named = person.upper() if spelling else person
        answer = site.http("POST", "/v1/tokens", "team-admin", json={"role": role, "person": named, "scope": "team"})
        assert (answer.status_code, body(answer)["code"]) == (409, "conflict")
        if spelling:
            assert person not in answer.text, "nor is told how that person is spelled"
    assert site.registry.journal.head == head


def test_a_person_stays_out_of_a_scoped_admins_reach_when_the_tokens_elsewhere_are_revoked(site: Site) -> None:
    """What was submitted or rated in that name is still that person's."""
    site.add_token("left", Role.CI, "one who left", scope="other")
    (left,) = [one["id"] for one in tokens(site, "admin") if one["person"] == "one who left"]
    assert site.http("DELETE", f"/v1/tokens/{left}").status_code == 204
    wanted = {"role": "reviewer", "person": "one who left", "scope": "team"}
    assert site.http("POST", "/v1/tokens", "team-admin", json=wanted).status_code == 409
    assert site.http("POST", "/v1/tokens", "admin", json=wanted).status_code == 201


def test_a_scoped_admin_gives_its_own_people_more_tokens(site: Site) -> None:
    for role in ("reviewer", "ci", "release-manager"):
        wanted = {"role": role, "person": "one of ours", "scope": "team/bot"}
        assert site.http("POST", "/v1/tokens", "team-admin", json=wanted).status_code == 201
    answer = site.http("POST", "/v1/tokens", "team-admin", json={**wanted, "person": "One of Ours"})
    assert answer.status_code == 409 and "known here as 'one of ours'" in body(answer)["detail"]


@pytest.mark.parametrize("spelling", ["ann lee", " ann lee", "ann lee ", "ann  lee", "ann\u00a0lee", "\uff41nn lee"])
def test_spellings_that_look_the_same_are_one_person(site: Site, spelling: str) -> None:
    answer = site.http("POST", "/v1/tokens", "admin", json={"role": "reviewer", "person": spelling})
    assert answer.status_code == 201
    assert body(answer)["token"]["person"] == "ann lee"


@pytest.mark.parametrize("spelling", ["Ann Lee", "ANN LEE ", "\uff21nn lee"])
def test_another_case_of_a_known_name_is_refused_with_the_known_one(site: Site, spelling: str) -> None:
    assert site.http("POST", "/v1/tokens", "admin", json={"role": "ci", "person": "ann lee"}).status_code == 201
    answer = site.http("POST", "/v1/tokens", "admin", json={"role": "reviewer", "person": spelling})
    assert answer.status_code == 409
    assert "known here as 'ann lee'" in body(answer)["detail"]


@pytest.mark.parametrize(
    "name",
    [
        "ann\u200blee",
        "ann\u200d",
        "\ufeffann",
        "ann\u202e",
        "\u2060",
        " ",
        "\u3000",
        "ann\u00ad",
        "ann\u0000",
        "",
        "\u2028",
    ],
)
def test_a_name_that_can_not_be_read_is_refused(site: Site, name: str) -> None:
    before = site.registry.journal.head
    answer = site.http("POST", "/v1/tokens", "admin", json={"role": "reviewer", "person": name})
    assert answer.status_code == 422
    assert site.registry.journal.head == before


@pytest.mark.parametrize("spelling", ["tunegate", "Tunegate ", "\uff34UNEGATE"])
def test_nobody_is_called_what_the_service_itself_acts_as(site: Site, spelling: str) -> None:
    answer = site.http("POST", "/v1/tokens", "admin", json={"role": "reviewer", "person": spelling})
    assert answer.status_code == 422 or answer.status_code == 400
    assert "who the service itself acts as" in body(answer)["detail"]
