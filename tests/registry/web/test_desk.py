"""The release manager's page: no score before the seal, every number after it, and decisions by forms of our own."""

import re
from collections.abc import Iterator
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
import reviewing_under_test as campaign
from hypothesis import given
from hypothesis import strategies as st
from reviewing_under_test import rating
from site_under_test import Site, body, running

from registry.access import Principal
from registry.client import Client
from registry.commands.context import Outcome
from registry.events import TokenCreated, decode_entry
from registry.records import (
    CRITERIA,
    Assignment,
    Channel,
    ItemKind,
    ItemRating,
    Policy,
    Rating,
    ReviewedItem,
    ReviewRule,
    Role,
    State,
)
from registry.settings import Home
from registry.web.desk import disagreements

EVIL = '"><script>alert(1)</script><img src=x onerror=alert(2)>{{ 7 * 7 }}'
COOKIE = "tunegate_token"
LOOKERS = {Role.RELEASE_MANAGER, Role.AUDITOR, Role.ADMIN}
ALIKE = Policy(review=ReviewRule(outputs=5, min_seconds=0.0))


def path(ref: str) -> str:
    return f"/adapters/{ref}/campaign"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """support-bot/1 is approved, /2 approvable, both after real campaigns; of /3 one of three people has rated all."""
    folder = tmp_path_factory.mktemp("rows")
    with running(Home(tmp_path_factory.mktemp("desk") / "home")) as found:
        campaign.create(found)
        for fill in (1, 2):
            ref = found.submit(fill=fill)
            campaign.evaluate(found, folder, lambda number: (f"{EVIL} {number}", f"{EVIL} says {number}"))
            campaign.rate(found, with_words)
            if fill == 1:
                found.client("release-manager").promote(ref)
        found.submit(fill=3)
        campaign.evaluate(found, folder)
        campaign.rate(found, campaign.opinion, ("reviewer",))
        yield found


def test_the_page_and_the_gate_say_how_many_earlier_versions_people_were_asked_about(site: Site) -> None:
    assert "earlier version" not in browse(site, "/adapters/support-bot/1/campaign").text
    page = browse(site, "/adapters/support-bot/3/campaign").text
    assert "2 earlier versions of support-bot reviewed, 0 rejected" in page
    (check,) = (one for one in site.client("admin").gate("support-bot/3").checks if one.kind == "review")
    assert any(line.endswith("each by a draw of its own: 2, rejected: 0") for line in check.details)


def with_words(person: str, item: Assignment) -> Rating:
    return msgspec.structs.replace(campaign.opinion(person, item), comment=f"{EVIL} by {person}")


def browse(site: Site, url: str, who: str | None = "release-manager") -> httpx.Response:
    cookies = {"Cookie": f"{COOKIE}={site.tokens[who]}"} if who else {}
    return httpx.get(site.url + url, headers=cookies, timeout=30, verify=False)


def send(site: Site, ref: str, who: str = "release-manager", **fields: str) -> httpx.Response:
    """As a browser does that was shown the page."""
    with httpx.Client(base_url=site.url, timeout=30, verify=False) as client:
        client.cookies[COOKIE] = site.tokens[who]
        # Whoever may not see the page was shown this one.
        shown = client.get("/").text
        token = re.findall(r'name="form_token" value="([0-9a-f]{64})"', shown)[0]
        return client.post(path(ref), data={"form_token": token, "once": "o" + str(hash(str(fields))), **fields})


def words(answer: httpx.Response) -> str:
    """What a reader sees, spaces as one."""
    assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
    text = re.sub(r"<[^>]+>", " ", answer.text)
    return " ".join(unescape(text).split())


class Parsed(HTMLParser):
    """Which elements and attributes a browser would find."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}


def steady(answer: httpx.Response) -> str:
    """The page without what is new each time."""
    return re.sub(r'value="[0-9a-f]{32,64}(-\w+)?"', "", answer.text)


# -- who looks --------------------------------------------------------------------------------------------------------


def test_only_who_is_responsible_may_look(site: Site) -> None:
    for role in Role:
        for number in (2, 3):
            answer = browse(site, path(f"support-bot/{number}"), role.value)
            assert answer.status_code == (200 if role in LOOKERS else 403), role
            assert ("Human review of" in answer.text) == (role in LOOKERS)
    anonymous = browse(site, path("support-bot/2"), None)
    assert "Sign in" in anonymous.text and "support-bot" not in anonymous.text


def test_another_projects_campaign_looks_like_one_that_does_not_exist(site: Site) -> None:
    site.add_token("team-manager", Role.RELEASE_MANAGER, "team manager", scope="team")
    for ref in ("support-bot/2", "unknown-bot/2", "support-bot/99", "team/bot/1"):
        answer = browse(site, path(ref), "team-manager")
        assert answer.status_code == 404 and "Human review of" not in answer.text
        assert send(site, ref, "team-manager", act="reject", reason="x").status_code == 404
    assert browse(site, path("support-bot/99")).status_code == 404


def test_the_version_page_leads_to_it_for_those_who_may_look(site: Site) -> None:
    for role in Role:
        version = browse(site, "/adapters/support-bot/1", role.value)
        assert (path("support-bot/1") in version.text) == (role in LOOKERS), role


# -- what is shown ----------------------------------------------------------------------------------------------------


def test_the_page_says_who_can_rate_no_more_for_a_token_that_looks_behind(site: Site, tmp_path: Path) -> None:
    """As a journal may hold one that was made before this was refused."""
    review = campaign.open_review(site, tmp_path, ALIKE)
    with Client(site.url, review.token("begun")) as client:
        assert client.next_assignment() is not None
    (begun,) = review.campaign().progress
    assert "looks behind" not in browse(site, path(review.ref)).text
    old = {"secret_sha256": "0" * 64, "expires_at": "2099-01-01T00:00:00+00:00", "scope": review.adapter}
    made = TokenCreated(id="oldtoken", role=Role.AUDITOR, person=begun.person, **old)
    site.registry.execute(Principal(None, "admin person", Role.ADMIN), lambda _: Outcome(None, [made]))
    said = words(browse(site, path(review.ref)))
    assert f"{begun.person} can rate no more: a token of theirs looks behind the review" in said


def test_before_the_seal_the_page_says_nothing_of_what_anyone_said(site: Site) -> None:
    """Whatever is rated, the page is the same, byte for byte."""
    before = browse(site, path("support-bot/3"))
    (done,) = site.client("admin").campaign("support-bot/3").progress
    assert done.rated == done.total >= 20 and f"{done.person} {done.rated} of {done.total}" in words(before)
    assert "<svg" not in before.text and "Scores are shown once the campaign is sealed" in before.text
    reviewer = site.client("reviewer")
    (first, *_) = reviewer.assignments()
    own = reviewer.assignment(first.id)
    assert own.rating is not None
    harsh = rating(1, 1, 1, 1, hallucination=True, unsafe=True, discuss=True, comment="dreadful")
    reviewer.rate(first.id, harsh)
    assert steady(browse(site, path("support-bot/3"))) == steady(before)
    reviewer.rate(first.id, msgspec.structs.replace(own.rating, hash=None))
    for role in LOOKERS:
        assert site.http("GET", "/v1/adapters/support-bot/versions/3/campaign/result", role.value).status_code == 409


def test_after_the_seal_it_shows_every_number_of_the_result(site: Site) -> None:
    answer = browse(site, path("support-bot/2"))
    text, result = words(answer), site.client("auditor").review_result("support-bot/2")
    for one in result.criteria:
        assert one.lower is not None and one.upper is not None and one.ac2 is not None
        assert f"{one.mean:.2f} {one.lower:.2f} to {one.upper:.2f}" in text
        assert f"mean {one.mean:.2f}, from {one.lower:.2f} to {one.upper:.2f}; 4 is needed" in answer.text
        counts = ", ".join(f"score {number}: {count}" for number, count in enumerate(one.histogram, start=1))
        assert f'aria-label="{counts}"' in answer.text and sum(one.histogram) == result.ratings
        assert f"{one.ac2:.2f}" in text and one.difference is not None and f"{one.difference:+.2f}" in text
    assert result.root in text and ", ".join(result.counted) in text
    assert f"{100 * (result.hallucination_rate or 0):.1f}% of ratings" in text
    for person, share in result.gold.items():
        assert f"{person} {100 * share:.0f}%" in text
    assert result.gold, "the fixture shows gold items"
    assert "Every rating counts" in text and not result.excluded


def test_disagreements_come_item_by_item_with_the_widest_first(site: Site) -> None:
    answer = browse(site, path("support-bot/2"))
    spreads = [int(one) for one in re.findall(r"(\d) apart on", words(answer))]
    assert spreads == sorted(spreads, reverse=True) and spreads[0] >= 1
    expected = disagreements(site.client("auditor").reviewed_items("support-bot/2"))
    shown = re.findall(r"<summary><strong>([^<]+)</strong>", answer.text)
    assert shown == [one.item.item for one in expected][:30] and len(shown) >= 2


def test_whatever_people_and_models_wrote_is_text(site: Site) -> None:
    answer = browse(site, path("support-bot/2"))
    assert "<script" not in answer.text and "<img" not in answer.text
    assert EVIL in unescape(answer.text) and "by reviewer-2" in answer.text and "49" not in words(answer)[:200]
    policy = answer.headers["Content-Security-Policy"]
    assert "script-src" not in policy and "unsafe" not in policy and "style-src 'self'" in policy
    page = Parsed(answer.text)
    assert not [name for name in page.attributes if name.startswith("on") or name in ("style", "src")]
    assert not {"script", "img", "iframe", "object"} & page.tags
    assert answer.headers["Cache-Control"] == "no-store"


scores = st.integers(1, 5)
ratings = st.builds(
    ItemRating,
    person=st.sampled_from(["a", "b", "c"]),
    **dict.fromkeys(CRITERIA, scores),
    hallucination=st.booleans(),
    unsafe=st.booleans(),
    discuss=st.booleans(),
    comment=st.none(),
    channel=st.just(Channel.WEB),
    seconds=st.none(),
    revisions=st.just(1),
    counted=st.booleans(),
)
items = st.builds(
    ReviewedItem,
    item=st.uuids().map(str),
    kind=st.sampled_from(ItemKind),
    hash=st.just("0" * 64),
    subject=st.just("candidate"),
    prompt=st.just("p"),
    output=st.just("o"),
    ratings=st.lists(ratings, max_size=4),
    ruling=st.none(),
)


@given(st.lists(items, max_size=6))
def test_a_disagreement_is_the_widest_gap_among_the_ratings_that_count(listed: list[ReviewedItem]) -> None:
    found = {one.item.item: one for one in disagreements(listed)}
    for item in listed:
        counted = [one for one in item.ratings if one.counted]
        gaps = {
            name: max(values) - min(values) for name in CRITERIA if (values := [getattr(one, name) for one in counted])
        }
        widest = max(gaps.values(), default=0)
        flagged = any(one.hallucination or one.unsafe or one.discuss for one in counted)
        listed_here = item.kind is ItemKind.CANDIDATE and (widest > 0 or flagged)
        assert (item.item in found) == listed_here
        if listed_here:
            shown = found[item.item]
            assert shown.spread == widest
            assert shown.criteria == [name for name, gap in gaps.items() if gap == widest > 0]
    order = [one.spread for one in disagreements(listed)]
    assert order == sorted(order, reverse=True)


# -- deciding ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def ready(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """support-bot/1 to /4 are approvable, each for one test; /5 and /6 in review, two of three reviewers done."""
    folder = tmp_path_factory.mktemp("ready")
    with running(Home(folder / "home")) as found:
        found.create_adapter(policy=ALIKE)
        for fill in range(1, 7):
            found.submit(fill=fill)
            found.evaluate(folder)
            found.review(people=3 if fill <= 4 else 2)
        yield found


def events(site: Site, kind: str) -> list[Any]:
    entries = [decode_entry(line.body) for line in site.registry.journal.read()]
    return [event for entry in entries for event in entry.events if type(event).__name__ == kind]


def state(site: Site, number: int) -> State:
    return site.client("admin").version(f"support-bot/{number}").state


def test_a_release_manager_promotes_with_a_reason(ready: Site) -> None:
    shown = browse(ready, path("support-bot/1"))
    assert 'value="promote"' in shown.text and 'value="reject"' in shown.text and 'value="seal"' not in shown.text
    answer = send(ready, "support-bot/1", act="promote", reason="the pilot went well")
    assert (answer.status_code, answer.headers["Location"]) == (303, path("support-bot/1"))
    assert state(ready, 1) is State.APPROVED
    assert ready.client("admin").history("support-bot")[-1].reason == "the pilot went well"
    after = browse(ready, path("support-bot/1"))
    assert 'value="promote"' not in after.text and 'value="reject"' not in after.text


def test_a_release_manager_rejects_and_says_why(ready: Site) -> None:
    refused = send(ready, "support-bot/2", act="reject", reason="   ")
    assert refused.status_code == 422 and "give a reason" in words(refused) and state(ready, 2) is State.APPROVABLE
    assert send(ready, "support-bot/2", act="reject", reason=EVIL).status_code == 303
    assert state(ready, 2) is State.REJECTED
    page, version = browse(ready, path("support-bot/2")), browse(ready, "/adapters/support-bot/2")
    assert EVIL in unescape(version.text) and "<script" not in version.text + page.text
    again = send(ready, "support-bot/2", act="promote")
    assert again.status_code == 409 and "<script" not in again.text and state(ready, 2) is State.REJECTED


def test_a_release_manager_ends_a_campaign_with_what_there_is(ready: Site) -> None:
    assert 'value="seal"' in browse(ready, path("support-bot/5")).text
    assert send(ready, "support-bot/5", act="seal", reason="nobody else is free").status_code == 303
    (*_, sealed) = events(ready, "CampaignSealed")
    assert sealed.reason == "nobody else is free" and state(ready, 5) is not State.APPROVABLE
    after = browse(ready, path("support-bot/5"))
    assert "<svg" in after.text and 'value="seal"' not in after.text
    assert send(ready, "support-bot/5", act="seal", reason="again").status_code == 409


def test_a_form_that_is_sent_twice_is_done_once(ready: Site) -> None:
    def rejections() -> list[Any]:
        return [one for one in events(ready, "VersionRejected") if one.number == 3]

    first = send(ready, "support-bot/3", act="reject", reason="worse", once="same")
    second = send(ready, "support-bot/3", act="reject", reason="worse", once="same")
    assert first.status_code == second.status_code == 303 and len(rejections()) == 1
    other = send(ready, "support-bot/6", act="reject", reason="worse", once="same")
    assert other.status_code == 422 and state(ready, 6) is State.IN_REVIEW


def test_nobody_else_decides_and_no_other_sites_form_does(ready: Site) -> None:
    for role in set(Role) - {Role.RELEASE_MANAGER}:
        for act in ("promote", "reject", "seal"):
            assert send(ready, "support-bot/4", role.value, act=act, reason="x").status_code == 403, (role, act)
        if role in LOOKERS:
            assert 'name="act"' not in browse(ready, path("support-bot/4"), role.value).text
    fields = {"act": "reject", "reason": "x", "form_token": "0" * 64}
    cookie = {"Cookie": f"{COOKIE}={ready.tokens['release-manager']}"}
    for headers in (cookie, {**cookie, "Origin": ready.url}, {**cookie, "Origin": "https://evil.example"}):
        url = ready.url + path("support-bot/4")
        assert httpx.post(url, data=fields, headers=headers, timeout=30, verify=False).status_code == 403
        assert httpx.post(url, json=fields, headers=headers, timeout=30, verify=False).status_code == 415
    assert send(ready, "support-bot/4", act="dance", reason="x").status_code == 422
    assert state(ready, 4) is State.APPROVABLE


def test_whoever_submitted_a_version_is_not_asked_to_promote_it(ready: Site) -> None:
    ready.add_token("both", Role.RELEASE_MANAGER, "ci person")
    shown = browse(ready, path("support-bot/4"), "both")
    assert 'value="promote"' not in shown.text and 'value="reject"' in shown.text
    assert send(ready, "support-bot/4", "both", act="promote").status_code == 403
    assert state(ready, 4) is State.APPROVABLE


@pytest.mark.slow
def test_what_was_left_out_is_shown_with_its_rule(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """People who rate faster than anyone reads: nothing counts, and the page says so to the manager only."""
    hasty = Policy(review=ReviewRule(outputs=5, min_seconds=60.0))
    with running(Home(tmp_path_factory.mktemp("hasty") / "home")) as site:
        site.create_adapter(policy=hasty)
        site.submit()
        site.evaluate(tmp_path)
        site.review()
        assert "too_fast" not in browse(site, path("support-bot/1")).text
        site.client("release-manager").seal("support-bot/1", "enough")
        answer = browse(site, path("support-bot/1"))
        result = site.client("auditor").review_result("support-bot/1")
        assert result.excluded and not result.counted
        for one in result.excluded:
            assert one.rule in answer.text and one.reason in words(answer) and one.person in answer.text
        assert "by nobody count" in words(answer)


@pytest.mark.slow
def test_what_waits_for_a_second_opinion_is_said_until_it_has_one(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    with running(Home(tmp_path_factory.mktemp("veto") / "home")) as site:
        alone = ReviewRule(outputs=5, min_seconds=0.0, controls=0, duplicates=0, from_accuracy=0.0)
        site.create_adapter(policy=Policy(review=alone))
        site.submit()
        site.evaluate(tmp_path)
        wary = site.client("reviewer").next_assignment()
        assert wary is not None
        site.client("reviewer").rate(wary.id, rating(5, 5, 5, 5, unsafe=True))
        assert "rated unsafe" not in browse(site, path("support-bot/1")).text
        site.review()
        text = words(browse(site, path("support-bot/1")))
        assert "1 output was rated unsafe and waits for an expert" in text and 'value="promote"' not in text
        (dispute,) = body(site.http("GET", "/v1/review/disputes", "reviewer-5"))
        answer = site.http(
            "POST", f"/v1/review/disputes/{dispute['id']}", "reviewer-5", json={"upheld": False, "reason": "it is fine"}
        )
        assert answer.status_code == 200
        after = browse(site, path("support-bot/1"))
        assert "for an expert who" not in after.text and "cleared by reviewer 5" in words(after)
        assert 'value="promote"' in after.text and state(site, 1) is State.APPROVABLE
        # The journal keeps answers, and never a text.
        journal = b"".join(line.body for line in site.registry.journal.read())
        assert f'"{wary.output}"'.encode() not in journal and f'"{wary.id}"'.encode() in journal
