"""Idempotency-Key: a repeated call does nothing again and gets the first answer; a key is for one request only."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from factories import BASE, entry_of, make_adapter
from site_under_test import Site, body, running

from registry.opening import open_registry
from registry.records import Role
from registry.settings import Home

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with running(Home(tmp_path_factory.mktemp("idempotency") / "home")) as found:
        found.create_adapter()
        yield found


def head(site: Site) -> int:
    return site.registry.journal.head.seq


def key(text: str) -> dict[str, str]:
    return {"Idempotency-Key": text}


def test_the_same_call_again_gets_the_first_answer_and_status_and_changes_nothing(site: Site) -> None:
    request = {"name": "twice", "base": {"id": BASE.id, "digest": BASE.digest}}
    before = head(site)
    first = site.http("POST", "/v1/adapters", json=request, headers=key("k1"))
    again = site.http("POST", "/v1/adapters", json=request, headers=key("k1"))
    assert (first.status_code, again.status_code) == (201, 201)
    assert body(first) == body(again)
    assert "Idempotency-Replayed" not in first.headers and again.headers["Idempotency-Replayed"] == "true"
    assert head(site) == before + 1
    # Without the key it is a new call, and the name is taken.
    assert site.http("POST", "/v1/adapters", json=request).status_code == 409


def test_a_repeat_after_the_state_moved_on_still_gets_the_first_answer(site: Site) -> None:
    files = [entry_of(path, data) for path, data in make_adapter(fill=7).items()]
    request = {"files": [{"path": one.path, "size": one.size, "sha256": one.sha256} for one in files]}
    path = "/v1/adapters/support-bot/versions"
    first = site.http("POST", path, "ci", json=request, headers=key("version"))
    for data in make_adapter(fill=7).values():
        site.client("ci").upload(data)
    site.client("ci").complete(body(first)["ref"])
    again = site.http("POST", path, "ci", json=request, headers=key("version"))
    assert (again.status_code, body(again)) == (201, body(first))
    assert body(again)["state"] == "uploading"


@pytest.mark.parametrize("change", ["body", "path", "bytes"])
def test_the_key_of_another_request_is_refused(site: Site, change: str) -> None:
    content = b'{"role": "ci", "person": "one", "expires_days": 1}'
    headers = {**key(f"other {change}"), "Content-Type": "application/json"}
    assert site.http("POST", "/v1/tokens", content=content, headers=headers).status_code == 201
    before = head(site)
    path, other = "/v1/tokens", content.replace(b"one", b"two")
    if change == "bytes":
        other = content.replace(b": ", b":")
    if change == "path":
        path, other = (
            "/v1/adapters",
            b'{"name": "other-path", "base": {"id": "x", "digest": "%s"}}' % BASE.digest.encode(),
        )
    refused = site.http("POST", path, content=other, headers=headers)
    assert (refused.status_code, body(refused)["code"]) == (422, "idempotency_mismatch")
    assert head(site) == before


def test_a_key_belongs_to_one_token(site: Site) -> None:
    for name, who in (("key-a", "admin"), ("key-b", "release-manager")):
        request = {"name": name, "base": {"id": BASE.id, "digest": BASE.digest}}
        answer = site.http("POST", "/v1/adapters", who, json=request, headers=key("shared"))
        assert (answer.status_code, body(answer)["name"]) == (201, name)


def test_a_refused_call_leaves_its_key_free(site: Site) -> None:
    request = {"name": "Not A Name", "base": {"id": BASE.id, "digest": BASE.digest}}
    assert site.http("POST", "/v1/adapters", json=request, headers=key("fixed")).status_code == 422
    answer = site.http("POST", "/v1/adapters", json={**request, "name": "a-name"}, headers=key("fixed"))
    assert answer.status_code == 201


@pytest.mark.parametrize("length", [200, 201])
def test_a_key_has_at_most_200_characters(site: Site, length: int) -> None:
    request = {"role": "ci", "person": "long key"}
    answer = site.http("POST", "/v1/tokens", json=request, headers=key("k" * length))
    assert answer.status_code == (201 if length == 200 else 422)


def test_a_tokens_secret_is_answered_once_and_lies_nowhere(site: Site) -> None:
    request = {"role": "ci", "person": "secretive"}
    first = site.http("POST", "/v1/tokens", json=request, headers=key("secret"))
    again = site.http("POST", "/v1/tokens", json=request, headers=key("secret"))
    secret = body(first)["secret"]
    assert again.status_code == 201 and again.headers["Idempotency-Replayed"] == "true"
    assert body(again) == {"token": body(first)["token"]}
    assert site.http("GET", "/v1/keys", "admin", headers={"Authorization": f"Bearer {secret}"}).status_code == 200
    random_part = secret.split("_")[3].encode()
    kept = [path for path in site.home.root.rglob("*") if path.is_file() and random_part in path.read_bytes()]
    assert not kept


def test_a_restart_forgets_no_key(tmp_path: Path) -> None:
    home, request = Home(tmp_path / "home"), {"name": "kept", "base": {"id": BASE.id, "digest": BASE.digest}}
    with running(home) as site:
        site.publish_suites()
        first = site.http("POST", "/v1/adapters", json=request, headers=key("across"))
    home.catalog.unlink()
    with running(home) as site:
        again = site.http("POST", "/v1/adapters", json=request, headers=key("across"))
    assert (again.status_code, body(again)) == (201, body(first))


def test_a_call_that_answers_without_a_body_can_be_remembered(tmp_path: Path) -> None:
    """The client sends a key with every change, so this is what `tunegate token revoke` does."""
    home = Home(tmp_path / "home")
    with running(home) as site:
        site.add_token("gone", Role.CI, "gone")
        gone = site.client("gone").tokens()[0].id
        for _ in range(2):
            assert site.http("DELETE", f"/v1/tokens/{gone}", headers=key("revoke")).status_code == 204
        assert site.http("GET", "/v1/audit/events").status_code == 200
    registry, _ = open_registry(home)
    registry.close()


def test_what_a_reviewer_is_shown_never_reaches_the_journal(tmp_path: Path) -> None:
    with running(Home(tmp_path / "home")) as fresh:
        fresh.create_adapter()
        fresh.submit()
        fresh.evaluate(tmp_path)
        shown = body(fresh.http("GET", "/v1/review/next", who="reviewer", headers=key("again")))
        journal = fresh.home.journal.read_text()
    assert shown["prompt"] and shown["output"] and shown["id"] in journal
    assert shown["output"] not in journal and shown["prompt"] not in journal
