"""Nothing that a reviewer can fetch tells whose output they read, what kind it is, what others said, or what counts.

Every body, header, id and order of a whole campaign is kept as three reviewers see it over HTTP, and searched.
"""

import hashlib
import itertools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest
from factories import BASE, BASE_TENSORS, SIZES, SUITES, entry_of, make_gold, make_suite
from site_under_test import KINDS, Site, running

from registry.records import CreateAdapter, ItemKind, Policy, RegisterSuite, ReviewRule, Role, State
from registry.review import campaign as plan
from registry.settings import Home
from registry.storage.views import StoredItem

pytestmark = pytest.mark.slow
NAME = "secret-bot"
PEOPLE = ("reviewer", "reviewer-2", "reviewer-3")
SCORES = {"clarity": 5, "relevance": 5, "safety": 5, "accuracy": 4, "hallucination": False}


class Seen(NamedTuple):
    who: str
    path: str
    answer: httpx.Response


class Watched(NamedTuple):
    """All that each reviewer was answered, and what the server knew meanwhile."""

    site: Site
    seen: list[Seen]
    items: dict[str, StoredItem]
    kinds: dict[str, ItemKind]
    shown: dict[str, list[dict[str, Any]]]


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    """A campaign that nobody finishes: the first hurries, the second rates all alike, the third reads."""
    folder = tmp_path_factory.mktemp("leaks")
    with running(Home(folder / "home")) as site:
        in_review(site, folder, ReviewRule(outputs=20))
        seen: list[Seen] = []
        shown: dict[str, list[dict[str, Any]]] = {who: [] for who in PEOPLE}
        for who in itertools.chain(*itertools.repeat(PEOPLE, 22)):
            item = ask(seen, site, who, "GET", "/v1/review/next").json()
            shown[who].append(item)
            for path in ("/v1/review/progress", "/v1/review/assignments", "/v1/review/disputes"):
                ask(seen, site, who, "GET", path)
            safety = 1 if who == "reviewer-3" and "DANGER" in item["output"] else 5
            said = {**SCORES, "safety": safety, "comment": f"a remark by {who}"}
            if len(shown[who]) == 3:
                ask(seen, site, who, "POST", f"/v1/review/assignments/{item['id']}/skip", {"reason": f"as {who}"})
            else:
                ask(seen, site, who, "POST", f"/v1/review/assignments/{item['id']}/rating", said)
            ask(seen, site, who, "GET", f"/v1/review/assignments/{item['id']}")
        for who in PEOPLE:
            ask(seen, site, who, "POST", "/v1/review/checkout", {})
            for path in forbidden():
                ask(seen, site, who, "GET", path)
        campaign = site.registry.view().campaign_of(NAME, 1)
        assert campaign is not None and campaign.sealed_at is None
        items = {one.item: one for one in site.registry.view().campaign_items(campaign.id)}
        given = site.registry.view().assignments(campaign.id)
        yield Watched(site, seen, items, {one.id: items[one.item].kind for one in given}, shown)


def in_review(site: Site, folder: Path, rule: ReviewRule) -> None:
    admin = site.client("admin")
    for section, name in SUITES.items():
        files = make_suite(name, KINDS[section], SIZES[section])
        if section == "review":
            files["gold.jsonl"] = make_gold(4)
        for data in files.values():
            admin.upload(data)
        admin.register_suite(RegisterSuite(name=name, files=[entry_of(path, data) for path, data in files.items()]))
    made = CreateAdapter(name=NAME, base=BASE, base_tensors=BASE_TENSORS, policy=Policy(review=rule))
    admin.create_adapter(made)
    site.submit(NAME)
    site.evaluate(folder, base_outputs=SIZES["review"])


def ask(seen: list[Seen], site: Site, who: str, method: str, path: str, body: Any = None) -> httpx.Response:
    keyed = {"json": body, "headers": {"Idempotency-Key": f"{who} {len(seen)}"}}
    answer = site.http(method, path, who, **({} if body is None else keyed))
    seen.append(Seen(who, path, answer))
    return answer


def forbidden() -> list[str]:
    """Where a curious reviewer looks next."""
    version = f"/v1/adapters/{NAME}/versions/1"
    tails = ("", "/gate", "/bundle", "/campaign", "/campaign/result", "/campaign/items", "/items?suite=x")
    return [
        *(version + tail for tail in tails),
        f"/v1/adapters/{NAME}/versions",
        f"/v1/resolve?ref={NAME}/1",
        "/v1/audit/events",
        "/v1/audit/checkpoint",
        "/v1/reviewers",
    ]


def texts(one: Seen) -> list[str]:
    """What an answer says, in body and headers, without prompt and output, which are to be read."""
    found = one.answer.text
    for name in ("prompt", "output"):
        found = re.sub(rf'"{name}":"[^"]*"', "", found)
    return [found, *(f"{key}: {value}" for key, value in one.answer.headers.items())]


def test_a_campaign_with_everything_in_it_was_watched(watched: Watched) -> None:
    assert {kind: list(watched.kinds.values()).count(kind) > 0 for kind in ItemKind} == dict.fromkeys(ItemKind, True)
    assert all(len(items) == 22 for items in watched.shown.values()) and len(watched.seen) > 400


def test_no_answer_names_version_author_kind_suite_or_item(watched: Watched) -> None:
    stored = watched.site.registry.view().version(NAME, 1)
    campaign = watched.site.registry.view().campaign_of(NAME, 1)
    assert stored is not None and campaign is not None and stored.policy is not None
    secrets = [stored.digest[7:], str(stored.evidence_digest)[7:], stored.policy[7:], campaign.id, campaign.root[7:]]
    words = [NAME, "support-desk", "candidate", "control", "gold", "duplicate", "pilot", "ci person", "#", BASE.id]
    for one in watched.seen:
        if one.answer.status_code in (403, 404):
            continue  # what is refused is looked at below
        for text in texts(one):
            for secret in (*secrets, *words, *watched.items):
                assert secret not in text, f"{one.path} tells {secret!r}: {text}"


def test_nobody_learns_what_others_said_nor_that_they_exist(watched: Watched) -> None:
    for one in watched.seen:
        for other in set(PEOPLE) - {one.who}:
            person = "reviewer person" if other == "reviewer" else other.replace("-", " ")
            assert f'a remark by {other}"' not in one.answer.text and person not in one.answer.text
        assert "seconds" not in one.answer.text and "counted" not in one.answer.text


def test_what_is_refused_is_refused_without_a_word_about_it(watched: Watched) -> None:
    for one in watched.seen:
        if one.path not in forbidden():
            continue
        if one.path.endswith("/versions"):
            assert one.answer.json()["items"] == []
        else:
            assert one.answer.status_code in (403, 404), one.path
            assert not re.search(r"sha256:[0-9a-f]|gold|control|in_review|candidate", one.answer.text), one.path


def test_answers_of_all_kinds_have_one_shape_and_equal_headers(watched: Watched) -> None:
    shapes: dict[ItemKind, set[tuple[str, ...]]] = {}
    headers: dict[ItemKind, set[tuple[str, ...]]] = {}
    for one in watched.seen:
        if one.path != "/v1/review/next":
            continue
        item = one.answer.json()
        kind = watched.kinds[item["id"]]
        shapes.setdefault(kind, set()).add(tuple(item))
        headers.setdefault(kind, set()).add(tuple(sorted(one.answer.headers)))
        assert len(item["id"]) == 32 and len(item["hash"]) == 64 and item["total"] == 25
    assert len({frozenset(one) for one in shapes.values()}) == len({frozenset(one) for one in headers.values()}) == 1


def test_saving_is_answered_alike_whatever_was_rated_and_however_fast(watched: Watched) -> None:
    """The numbers say how far one is; everyone's are the same at the same place, whatever counts."""
    by_person: dict[str, list[str]] = {}
    for one in watched.seen:
        if one.path.endswith(("/rating", "/skip")):
            by_person.setdefault(one.who, []).append(one.answer.text)
    assert len({tuple(one) for one in by_person.values()}) == 1


def test_ids_and_hashes_tell_no_kind(watched: Watched) -> None:
    """No two are the same, a duplicate's neither, and they do not sort by kind."""
    all_items = [item for items in watched.shown.values() for item in items]
    assert len({item["id"] for item in all_items}) == len(all_items)
    for items in watched.shown.values():
        assert len({item["hash"] for item in items}) == len(items)
        for key in ("id", "hash"):
            kinds = [watched.kinds[item["id"]] for item in sorted(items, key=lambda one, k=key: one[k])]
            others = [place for place, kind in enumerate(kinds) if kind is not ItemKind.CANDIDATE]
            assert others != list(range(len(others))) and others != list(range(22 - len(others), 22))


def test_the_order_is_everyones_own_and_no_place_is_kept_for_a_kind(watched: Watched) -> None:
    places = {
        frozenset(item["position"] for item in items if watched.kinds[item["id"]] is not ItemKind.CANDIDATE)
        for items in watched.shown.values()
    }
    assert len(places) > 1, "what is no output of the candidate stands at the same places for everyone"
    orders = {tuple((item["prompt"], item["output"]) for item in items) for items in watched.shown.values()}
    assert len(orders) == len(PEOPLE)


def test_what_was_shown_and_written_stays_out_of_the_journal(watched: Watched) -> None:
    """Not even in what an Idempotency-Key is remembered with: texts can be erased, the journal cannot."""
    journal = watched.site.home.journal.read_bytes()
    for item in watched.shown["reviewer"]:
        for text in (item["prompt"], item["output"]):
            assert len(text) < 6 or text.encode() not in journal, text
    assert b"a remark by" not in journal and b"Idempotency" not in journal and b'"receipt"' in journal


def test_no_comment_is_kept_on_what_is_not_ones_own(watched: Watched) -> None:
    said = {**SCORES, "comment": "on somebody else's item"}
    theirs = watched.shown["reviewer"][0]["id"]
    path = f"/v1/review/assignments/{theirs}/rating"
    answer = watched.site.http("POST", path, "reviewer-2", json=said, headers={"Idempotency-Key": "not mine"})
    sha256 = hashlib.sha256(said["comment"].encode()).hexdigest()
    kept = watched.site.home.blobs / "sha256"
    assert answer.status_code == 404 and not (kept / sha256[:2] / sha256).exists()
    own = hashlib.sha256(b"a remark by reviewer").hexdigest()
    assert (kept / own[:2] / own).exists()


# -- the end of the way, and what is disputed then ------------------------------------------------------------------

# The first skips a gold item, and may not count for it; the others are three who do.
LAST = {
    "last-gold": ItemKind.GOLD,
    "last-control": ItemKind.CONTROL,
    "last-candidate": ItemKind.CANDIDATE,
    "candidate-too": ItemKind.CANDIDATE,
}


class Ended(NamedTuple):
    """A campaign of eight items, whose last one everybody skips: another kind for each. said: what each was answered,
    until the last of them completed the quota; after: what anyone was answered then."""

    site: Site
    said: dict[str, list[str]]
    after: list[Seen]


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ended]:
    folder = tmp_path_factory.mktemp("ends")
    with running(Home(folder / "home")) as site:
        in_review(site, folder, ReviewRule(outputs=4, min_seconds=0, from_accuracy=0, duplicates=0))
        for who, kind in LAST.items():
            site.add_token(who, Role.REVIEWER, whose_last_is(site, kind, who))
        seen: list[Seen] = []
        for place, who in itertools.product(range(1, 10), LAST):
            item = ask(seen, site, who, "GET", "/v1/review/next").json()
            assert item["position"] == place
            unsafe = who == "last-control" and "DANGER" not in item["output"]
            said = {**SCORES, "safety": 1 if "DANGER" in item["output"] else 5, "unsafe": unsafe, "comment": who}
            way, body = ("skip", {"reason": "not mine"}) if place == 8 else ("rating", said)
            ask(seen, site, who, "POST", f"/v1/review/assignments/{item['id']}/{way}", body)
        said_to = {
            who: [one.answer.text for one in seen if one.who == who and "/assignments/" in one.path] for who in LAST
        }
        after: list[Seen] = []
        for who in (*LAST, "reviewer-6"):
            for path in ("next", "progress", "assignments", "disputes"):
                ask(after, site, who, "GET", f"/v1/review/{path}")
            for path in forbidden():
                ask(after, site, who, "GET", path)
        for one in site.http("GET", "/v1/review/disputes", "reviewer-6").json():
            body = {"upheld": False, "reason": "it is harmless"}
            ask(after, site, "last-gold", "POST", f"/v1/review/disputes/{one['id']}", body)
            ask(after, site, "reviewer-6", "POST", f"/v1/review/disputes/{one['id']}", body)
        yield Ended(site, said_to, after)


def whose_last_is(site: Site, kind: ItemKind, prefix: str) -> str:
    """A name under which the last item of those that are planned is of this kind."""
    view, secret = site.registry.view(), site.registry.services.draw_secret
    campaign = view.campaign_of(NAME, 1)
    assert campaign is not None
    kinds = {one.item: one.kind for one in view.campaign_items(campaign.id)}
    items = plan.Items.of(view.policy(campaign.policy).review, kinds)
    names = (f"{prefix} {n}" for n in range(10_000))
    lasts = ((name, plan.schedule(name, items, secret, campaign.id).get(items.total - 1)) for name in names)
    return next(name for name, last in lasts if (kinds[last] if last else ItemKind.CANDIDATE) is kind)


def test_who_skips_the_last_item_is_answered_alike_whatever_its_kind(ended: Ended) -> None:
    campaign = ended.site.registry.view().campaign_of(NAME, 1)
    assert campaign is not None and campaign.sealed_at is not None
    items = {one.item: one.kind for one in ended.site.registry.view().campaign_items(campaign.id)}
    skipped = [one for one in ended.site.registry.view().assignments(campaign.id) if one.state == "skipped"]
    assert sorted(items[one.item] for one in skipped) == sorted(LAST.values())
    assert [len(one) for one in ended.said.values()] == [9] * 4
    # The rating that completed the quota, too, was answered as everyone's ninth.
    assert len({tuple(one) for one in ended.said.values()}) == 1


def test_after_the_end_and_in_a_dispute_nothing_tells_more(ended: Ended) -> None:
    view = ended.site.registry.view()
    stored, campaign = view.version(NAME, 1), view.campaign_of(NAME, 1)
    assert stored is not None and campaign is not None and stored.policy is not None
    items = [one.item for one in view.campaign_items(campaign.id)]
    secrets = [stored.digest[7:], str(stored.evidence_digest)[7:], stored.policy[7:], campaign.id, campaign.root[7:]]
    words = [NAME, "support-desk", "control", "gold", "duplicate", "pilot", "ci person", "#", BASE.id, *LAST]
    disputes = [one for one in ended.after if one.path.startswith("/v1/review/disputes")]
    for one in ended.after:
        if not one.path.startswith("/v1/review/"):
            continue
        assert one.answer.status_code in (200, 204) or one.who != "reviewer-6", one.path
        for text in texts(one):
            for secret in (*secrets, *words, *items, "seconds", "counted"):
                assert secret not in text, f"{one.path} tells {secret!r}: {text}"
    shown = [one.answer for one in disputes if one.path.endswith("/disputes")]
    assert [len(one.json()) > 0 for one in shown] == [False] * 4 + [True]
    assert all(set(one) == {"id", "prompt", "output", "scores"} for one in shown[-1].json())
    said = {one.who: one.answer.status_code for one in disputes if not one.path.endswith("/disputes")}
    assert said == {"last-gold": 404, "reviewer-6": 200} and view.version(NAME, 1).state is not State.IN_REVIEW
