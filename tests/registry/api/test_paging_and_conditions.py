"""Keyset pages meet everything exactly once while new things arrive; conditional calls act on what was read."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import pytest
from factories import BASE, SUITES, entry_of, make_adapter
from site_under_test import SMALL_REVIEW, Site, body, running

from registry.access import BLOB_READERS
from registry.api.cursor import read_cursor
from registry.client import Refused
from registry.records import AccuracyRule, CreateAdapter, Policy, Role, State, SubmitVersion
from registry.settings import Home

pytestmark = pytest.mark.slow

BOT = "/v1/adapters/support-bot"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Two versions, approved under an alias of their own each, and a third that only waits for its files."""
    rows = tmp_path_factory.mktemp("rows")
    with running(Home(tmp_path_factory.mktemp("paging") / "home")) as found:
        found.create_adapter()
        for fill in (1, 2):
            ref = found.submit(fill=fill)
            found.evaluate(rows)
            found.review()
            found.client("release-manager").promote(ref, f"keep-{fill}")
        announce(found, "support-bot", 3)
        yield found


def add_adapter(site: Site, name: str) -> None:
    site.client("admin").create_adapter(CreateAdapter(name=name, base=BASE))


def announce(site: Site, adapter: str, fill: int) -> str:
    files = [entry_of(path, data) for path, data in make_adapter(fill=fill).items()]
    return site.client("ci").submit(adapter, SubmitVersion(files=files)).ref


def walk(site: Site, path: str, who: str = "ci", limit: int = 3, **query: Any) -> Iterator[list[dict[str, Any]]]:
    """Page after page, as a client follows the cursors."""
    cursor: dict[str, str] = {}
    for _ in range(1000):
        page = body(site.http("GET", path, who, params={"limit": limit, **query, **cursor}))
        assert page.keys() == {"items", "next_cursor"} and len(page["items"]) <= limit
        yield page["items"]
        if page["next_cursor"] is None:
            return
        cursor = {"cursor": page["next_cursor"]}
    raise AssertionError("the pages never end")


def test_adapters_are_met_exactly_once_while_others_are_created(site: Site) -> None:
    present = sorted([f"m{number:02}" for number in range(11)] + ["team/a", "team/b"])
    for name in present:
        add_adapter(site, name)
    seen: list[str] = []
    for number, page in enumerate(walk(site, "/v1/adapters")):
        seen += [one["name"] for one in page]
        add_adapter(site, f"a{number}")  # behind the cursor: not met any more
        if number < 3:
            add_adapter(site, f"z{number}")  # before it: met
    assert sorted(seen) == seen and len(seen) == len(set(seen))
    assert set(seen) - {"a0"} == {*present, "support-bot", "z0", "z1", "z2"}
    assert [one.name for one in site.client("ci").adapters()] == sorted({*seen, *(f"a{n}" for n in range(number + 1))})


@pytest.mark.parametrize("scope", ["inside", "inside/b"])
@pytest.mark.parametrize("limit", [1, 2, 100])
def test_a_scoped_token_pages_over_its_own_adapters_and_learns_no_other_name(
    site: Site, scope: str, limit: int
) -> None:
    names = ["aaa-secret", "inside-secret", "inside/a", "inside/b", "inside/c", "insidesecret", "zzz-secret"]
    known = {one.name for one in site.client("admin").adapters()}
    for name in names:
        if name not in known:
            add_adapter(site, name)
    who = f"scoped to {scope}"
    if who not in site.tokens:
        site.add_token(who, Role.CI, who, scope=scope)
    visible = [name for name in names if name == scope or name.startswith(scope + "/")]
    pages, cursor = [], None
    while True:
        query = {"limit": limit} | ({"cursor": cursor} if cursor else {})
        page = body(site.http("GET", "/v1/adapters", who, params=query))
        pages.append([one["name"] for one in page["items"]])
        cursor = page["next_cursor"]
        if cursor is None:
            break
        assert read_cursor(cursor) in visible
    assert [name for page in pages for name in page] == visible
    assert all(len(page) == limit for page in pages[:-1]) and pages[-1], "no page is short before the last"


def test_versions_are_met_newest_first_exactly_once_while_others_are_submitted(site: Site) -> None:
    add_adapter(site, "pager")
    refs = [announce(site, "pager", fill) for fill in range(10, 20)]
    seen: list[str] = []
    for number, page in enumerate(walk(site, "/v1/adapters/pager/versions")):
        seen += [one["ref"] for one in page]
        announce(site, "pager", 30 + number)
    assert seen == refs[::-1]
    assert [one.number for one in site.client("ci").versions("pager")] == list(range(10 + number + 1, 0, -1))


@pytest.mark.parametrize("limit", [1, 9, 10, 11, 1000])
def test_the_last_page_says_that_it_is_the_last(site: Site, limit: int) -> None:
    name = f"edge-{limit}"
    add_adapter(site, name)
    for fill in range(40, 50):
        announce(site, name, fill)
    pages = list(walk(site, f"/v1/adapters/{name}/versions", limit=limit))
    assert [len(page) for page in pages] == [limit] * (10 // limit) + ([10 % limit] if 10 % limit else [])


def test_versions_can_be_filtered_by_state(site: Site) -> None:
    approved = ["support-bot/2", "support-bot/1"]

    def refs(*states: State) -> list[str]:
        found = walk(site, BOT + "/versions", limit=1, state=[state.value for state in states])
        return [one["ref"] for page in found for one in page]

    assert refs(State.UPLOADING) == ["support-bot/3"]
    assert refs(State.APPROVED) == approved
    assert refs(State.UPLOADING, State.APPROVED) == ["support-bot/3", *approved]
    assert refs(State.REVOKED) == []
    assert [one.ref for one in site.client("ci").versions("support-bot", ["uploading"])] == ["support-bot/3"]


def test_hidden_versions_leave_no_trace_in_pages(site: Site) -> None:
    pages = list(walk(site, BOT + "/versions", "consumer", limit=1))
    assert [[one["ref"] for one in page] for page in pages] == [["support-bot/2"], ["support-bot/1"]]


def test_the_items_of_a_suite_are_paged_by_item_and_subject(site: Site) -> None:
    report = site.client("ci").gate("support-bot/1")
    suite = next(check.suite for check in report.checks if check.suite and check.suite.startswith(SUITES["forgetting"]))
    pages = list(walk(site, BOT + "/versions/1/items", "auditor", limit=999, suite=suite))
    keys = [f"{one['item']}/{one['subject']}" for page in pages for one in page]
    assert [len(page) for page in pages] == [999, 201]
    assert sorted(set(keys)) == keys and keys[:2] == ["i0000/base", "i0000/candidate"]
    assert body(site.http("GET", BOT + "/versions/1/items?suite=none", "auditor"))["items"] == []


def test_the_texts_of_held_out_items_are_for_who_may_read_suites(site: Site) -> None:
    """Everyone else sees which items were right, but neither question nor answer."""
    report = site.client("ci").gate("support-bot/1")
    suite = next(check.suite for check in report.checks if check.suite and check.suite.startswith(SUITES["accuracy"]))
    whole = list(site.client("auditor").items("support-bot/1", suite))
    assert all(row.prompt and row.output for row in whole)
    blank = [msgspec.structs.replace(row, prompt=None, output=None) for row in whole]
    for role in set(Role) - {Role.CONSUMER}:
        found = list(site.client(role.value).items("support-bot/1", suite))
        assert found == (whole if role in BLOB_READERS["suite"] else blank), role


# -- conditions -----------------------------------------------------------------------------------------------------


def test_a_policy_is_replaced_only_by_who_read_the_present_one(site: Site) -> None:
    read = site.http("GET", BOT + "/policy", "ci")
    etag, document = read.headers["ETag"], body(read)["document"]
    assert etag == f'"{body(read)["digest"]}"' and body(read)["revision"] == 1
    wanted = {**document, "accuracy": {**document["accuracy"], "min": 0.9}}
    first = site.http("PUT", BOT + "/policy", json=wanted, headers={"If-Match": etag})
    assert (first.status_code, body(first)["revision"]) == (200, 2)
    assert first.headers["ETag"] == f'"{body(first)["digest"]}"' != etag
    late = site.http("PUT", BOT + "/policy", json=document, headers={"If-Match": etag})
    assert (late.status_code, body(late)["code"]) == (412, "precondition_failed")
    assert late.headers["ETag"] == first.headers["ETag"]
    assert body(site.http("GET", BOT + "/policy", "ci")) == body(first)
    # Back to the first content is a new revision with the old digest.
    back = site.http("PUT", BOT + "/policy", json=document, headers={"If-Match": first.headers["ETag"]})
    assert (body(back)["revision"], f'"{body(back)["digest"]}"') == (3, etag)


def test_setting_the_same_policy_again_changes_nothing(site: Site) -> None:
    before, head = site.client("admin").policy("support-bot"), site.registry.journal.head
    assert site.client("admin").set_policy("support-bot", before.document) == before
    # A suite named without its digest means the newest, which is the pinned one.
    assert site.client("admin").set_policy("support-bot", SMALL_REVIEW) == before
    assert site.registry.journal.head == head


def test_an_alias_moves_only_for_who_read_where_it_is(site: Site) -> None:
    path, manager = BOT + "/aliases/stable", "release-manager"

    def promote(number: int, if_match: str) -> Any:
        headers = {"If-Match": if_match}
        return site.http("POST", f"{BOT}/versions/{number}/promote", manager, json={"alias": "stable"}, headers=headers)

    assert site.http("GET", path, "ci").status_code == 404
    assert promote(1, '"1-0000000000000000"').status_code == 412
    first = promote(1, '""')  # read: there is none yet
    assert first.status_code == 200 and promote(1, '""').status_code == 412
    etag = site.http("GET", path, "ci").headers["ETag"]
    assert etag == first.headers["ETag"]

    with ThreadPoolExecutor(2) as pool:
        outcomes = list(pool.map(lambda number: promote(number, etag), (2, 2)))
    assert sorted(answer.status_code for answer in outcomes) == [200, 412]

    rollback = {"to": 1, "reason": "worse"}
    stale = site.http("POST", path + "/rollback", manager, json=rollback, headers={"If-Match": etag})
    assert stale.status_code == 412
    present = site.http("GET", path, "ci").headers["ETag"]
    assert stale.headers["ETag"] == present
    back = site.http("POST", path + "/rollback", manager, json=rollback, headers={"If-Match": present})
    assert (back.status_code, body(back)["counter"]) == (200, 3)
    # The same version again, but not the same state: whoever held the first tag must not pass.
    assert body(back)["number"] == 1 and back.headers["ETag"] != etag
    history = body(site.http("GET", path + "/history", "ci"))
    assert [move["number"] for move in history] == [1, 2, 1]  # type: ignore[index]


def test_an_alias_that_did_not_move_is_not_sent_again(site: Site) -> None:
    site.client("release-manager").promote("support-bot/1", "quiet")
    path = BOT + "/aliases/quiet"
    first = site.http("GET", path, "consumer")
    assert first.status_code == 200 and first.headers["Cache-Control"] == "no-cache"
    etag = first.headers["ETag"]
    same = site.http("GET", path, "consumer", headers={"If-None-Match": etag})
    assert (same.status_code, same.content, same.headers["ETag"]) == (304, b"", etag)
    site.client("release-manager").promote("support-bot/2", "quiet")
    moved = site.http("GET", path, "consumer", headers={"If-None-Match": etag})
    assert moved.status_code == 200 and moved.headers["ETag"] != etag


def test_promoting_what_the_alias_names_already_is_no_move(site: Site) -> None:
    first = site.client("release-manager").promote("support-bot/2", "same")
    head = site.registry.journal.head
    assert site.client("release-manager").promote("support-bot/2", "same") == first
    assert site.registry.journal.head == head


def test_a_stricter_policy_is_seen_by_a_promotion_that_comes_after_it(site: Site, tmp_path: Path) -> None:
    site.create_adapter("strict-bot")
    ref = site.submit("strict-bot", fill=70)
    site.evaluate(tmp_path)
    site.review()
    site.client("admin").set_policy("strict-bot", Policy(accuracy=AccuracyRule(min=0.99), review=SMALL_REVIEW.review))
    with pytest.raises(Refused) as refused:
        site.client("release-manager").promote(ref)
    assert (refused.value.status, refused.value.code) == (409, "gate_not_satisfied")


def test_versions_are_searched_by_what_their_gate_reports_observed(site: Site) -> None:
    def found(where: str, **more: Any) -> list[int]:
        page = body(site.http("GET", BOT + "/versions", "ci", params={"where": where, **more}))
        return [one["number"] for one in page["items"]]

    report = site.client("ci").gate("support-bot/1")
    observed = {check.name: check.observed.get("value") for check in report.checks}
    accuracy, perplexity = observed["accuracy"], observed["perplexity"]
    assert isinstance(accuracy, float) and isinstance(perplexity, float)
    assert found(f"accuracy >= {accuracy}") == found(f"accuracy = {accuracy}") == [2, 1]
    assert found(f"accuracy > {accuracy}") == found(f"perplexity < {perplexity}") == []
    assert found(f"accuracy <= {accuracy} and perplexity <= {perplexity}") == [2, 1]
    assert found(f"accuracy <= {accuracy} and perplexity > {perplexity}") == []
    assert found("accuracy >= 0", limit=1) == [2], "version 3 was never measured"
    assert found("accuracy >= 0", state="uploading") == []
    assert found("no_such_metric >= 0") == []
    assert [one.number for one in site.client("ci").versions("support-bot", where="accuracy >= 0")] == [2, 1]
    refused = site.http("GET", BOT + "/versions", "ci", params={"where": "accuracy > 1 or true"})
    assert refused.status_code == 422 and "cannot be read" in body(refused)["detail"]


def test_page_of_what_a_role_may_see_is_full(site: Site) -> None:
    site.client("release-manager").promote("support-bot/1", "seen")
    page = body(site.http("GET", BOT + "/versions", "consumer", params={"limit": 1, "state": "approved"}))
    assert len(page["items"]) == 1
    assert body(site.http("GET", BOT + "/versions", "consumer", params={"limit": 1}))["items"] == page["items"]
    hidden = body(site.http("GET", BOT + "/versions", "consumer", params={"state": "uploading"}))
    assert hidden == {"items": [], "next_cursor": None}
