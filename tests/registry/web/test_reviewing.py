"""The reviewer's pages as plain forms, whoever sends them: what the API would refuse is refused here, in words."""

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest
from reviewing_under_test import BAD, Review, open_review, quick
from site_under_test import Site, running

from registry.records import CRITERIA, Role
from registry.settings import Home

pytestmark = pytest.mark.slow
GOOD = {"clarity": "5", "relevance": "4", "safety": "5", "accuracy": "4"}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with running(Home(tmp_path_factory.mktemp("reviews") / "home")) as found:
        yield found


@pytest.fixture(scope="module")
def review(site: Site, tmp_path_factory: pytest.TempPathFactory) -> Review:
    """Shared: every test is another person in it, and hardly any of them finish."""
    return open_review(site, tmp_path_factory.mktemp("rows"), quick())


@pytest.fixture
def other_review(site: Site, tmp_path: Path) -> Review:
    """One that a test may bring to its end."""
    return open_review(site, tmp_path, quick())


class Form(NamedTuple):
    """The first form of a page that posts to a path of this pattern."""

    action: str
    fields: dict[str, str]


class Person:
    """Someone with a browser that runs no script."""

    def __init__(self, client: httpx.Client, token: str) -> None:
        self.client = client
        answer = client.post("/sign-in", data={**self.form("/sign-in").fields, "token": token})
        assert answer.status_code == 303
        self.start = answer.headers["Location"]

    def form(self, pattern: str, page: str = "/review") -> Form:
        html = self.client.get(page).text
        for action, inside in re.findall(r'<form[^>]* action="([^"]+)"[^>]*>(.*?)</form>', html, re.S):
            if re.fullmatch(pattern, action):
                hidden = re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)">', inside)
                return Form(action, dict(hidden))
        raise AssertionError(f"no form for {pattern} in {html}")

    def rating(self) -> Form:
        return self.form("/review/[0-9a-f]{32}")

    def send(self, form: Form, **fields: str | None) -> httpx.Response:
        """The form with these fields; None leaves one out."""
        data = {name: value for name, value in {**form.fields, **fields}.items() if value is not None}
        return self.client.post(form.action, data=data)


@pytest.fixture
def person(review: Review) -> Iterator[Person]:
    with httpx.Client(base_url=review.site.url, timeout=30) as client:
        yield Person(client, review.token())


def notice(answer: httpx.Response) -> str:
    found = re.search(r'<p id="said"[^>]*>(.*?)</p>', answer.text, re.S)
    assert found, answer.text
    return found[1]


def chosen(html: str) -> dict[str, str]:
    return dict(re.findall(r'<input type="radio" name="(\w+)" value="(\d)" required checked>', html))


def test_reviewers_begin_at_their_review_and_others_at_the_overview(review: Review, person: Person) -> None:
    assert person.start == "/review"
    for role in set(Role) - {Role.REVIEWER}:
        with httpx.Client(base_url=review.site.url, timeout=30) as client:
            other = Person(client, review.site.tokens[role])
            assert other.start == "/"
            for path in ("/review", "/review/disputes", f"/review/{'0' * 32}"):
                answer = client.get(path)
                assert answer.status_code == 403 and f"role {role} may not do this" in answer.text
                assert '<a href="/review">Go on</a>' in answer.text
                assert "number" not in answer.text


def test_a_review_page_lets_in_no_script_but_its_own(person: Person) -> None:
    answer = person.client.get("/review")
    policy = answer.headers["Content-Security-Policy"]
    assert set(policy.split("; ")) == {
        "default-src 'none'",
        "script-src 'self'",
        "connect-src 'self'",
        "style-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    }
    assert answer.headers["Cache-Control"] == "no-store" and answer.headers["X-Content-Type-Options"] == "nosniff"
    assert re.findall(r"<script[^>]*>", answer.text) == ['<script src="/static/review.js" defer>']
    assert " on" not in re.sub(r">[^<]*<", "><", answer.text) and "style=" not in answer.text
    assert person.client.get("/static/review.js").headers["Content-Type"].startswith("text/javascript")


def test_a_rating_is_recorded_as_it_was_sent(review: Review, person: Person) -> None:
    form = person.rating()
    answer = person.send(form, **GOOD, unsafe="true", comment="one\r\ntwo ")
    assert (answer.status_code, answer.headers["Location"]) == (303, "/review")
    (one,) = review.ratings(form.action)
    assert {name: str(getattr(one, name)) for name in CRITERIA} == GOOD
    assert (one.hallucination, one.unsafe, one.discuss, one.channel) == (False, True, False, "web")
    assert review.site.registry.blobs.read(str(one.comment)) == b"one\ntwo"
    again = person.client.get(form.action).text
    assert chosen(again) == GOOD and "one\ntwo</textarea>" in again and "Save again to change it" in again


WRONG: list[dict[str, str | None]] = [
    {"clarity": None},
    {"safety": ""},
    {"safety": "0"},
    {"safety": "6"},
    {"safety": "4.5"},
    {"safety": "five"},
    {"safety": "\u0664"},
    {"hash": "x"},
    {"comment": "x" * 4001},
]


def test_what_is_no_rating_is_refused_and_shown_again(review: Review, person: Person) -> None:
    form = person.rating()
    for fields in WRONG:
        answer = person.send(form, **{**GOOD, "discuss": "true", **fields})
        assert answer.status_code == 422 and "Not saved" in notice(answer), fields
        kept = {name: value for name, value in {**GOOD, **fields}.items() if name in GOOD and value in set("12345")}
        assert chosen(answer.text) == kept and re.search(r'name="discuss"[^>]* checked', answer.text)
    assert not review.ratings(form.action)


def test_a_rating_of_another_text_than_was_shown_is_refused(review: Review, person: Person) -> None:
    form = person.rating()
    answer = person.send(form, **GOOD, hash="0" * 64)
    assert answer.status_code == 409 and "another item" in notice(answer) and not review.ratings(form.action)


def test_a_form_that_is_sent_twice_counts_once(review: Review, person: Person) -> None:
    form = person.rating()
    assert [person.send(form, **GOOD).status_code for _ in range(3)] == [303] * 3
    assert len(review.ratings(form.action)) == 1
    changed = person.send(form, **{**GOOD, "clarity": "1"})
    assert changed.status_code == 422 and len(review.ratings(form.action)) == 1


def test_another_tabs_rating_is_shown_before_it_is_replaced(review: Review, person: Person) -> None:
    first, second = person.rating(), person.rating()
    assert first.action == second.action and first.fields["once"] != second.fields["once"]
    person.send(first, **GOOD)
    stale = person.send(second, **{**GOOD, "clarity": "1"})
    assert stale.status_code == 409 and "another tab" in notice(stale) and chosen(stale.text) == GOOD
    # What is shown now may be replaced knowingly.
    knowing = person.form(first.action, first.action)
    assert knowing.fields["state"] == "rated"
    assert person.send(knowing, **{**GOOD, "clarity": "1"}).status_code == 303
    assert [one.clarity for one in review.ratings(first.action)] == [5, 1]


def test_another_persons_item_does_not_exist(review: Review, person: Person) -> None:
    form = person.rating()
    with httpx.Client(base_url=review.site.url, timeout=30) as client:
        other = Person(client, review.token())
        own = other.rating()
        assert client.get(form.action).status_code == 404
        assert other.send(Form(form.action, own.fields), **GOOD, comment="not on mine").status_code == 404
        sha256 = hashlib.sha256(b"not on mine").hexdigest()
        assert not (review.site.home.blobs / "sha256" / sha256[:2] / sha256).exists()
        assert other.send(Form(form.action + "/skip", own.fields), reason="x").status_code == 404
    assert not review.ratings(form.action)
    missing = person.client.get("/review/" + "0" * 32)
    assert missing.status_code == 404 and '<a href="/review">Your review</a>' in missing.text


def test_skipping_needs_a_reason_and_has_an_end(review: Review, person: Person) -> None:
    form = person.form("/review/.*/skip")
    for reason in (None, "", "  "):
        answer = person.send(form, reason=reason)
        assert answer.status_code == 422 and "say why" in notice(answer)
    assert person.send(form, reason="outside my field").status_code == 303
    skipped = person.client.get(form.action.removesuffix("/skip")).text
    assert "You skipped this one." in skipped and 'name="clarity"' not in skipped
    answer = person.send(person.form("/review/.*/skip"), reason="again")
    assert answer.status_code == 409 and "as many as may be" in notice(answer)


def test_forms_of_others_and_of_no_kind_change_nothing(review: Review, person: Person) -> None:
    form = person.rating()
    for fields in ({"form_token": None}, {"form_token": "0" * 64}):
        answer = person.send(form, **GOOD, **fields)
        assert answer.status_code == 403 and "load the page again" in answer.text
    for origin in ("https://evil.example", "null"):
        answer = person.client.post(form.action, data={**form.fields, **GOOD}, headers={"Origin": origin})
        assert answer.status_code == 403
    assert person.client.post(form.action, json=GOOD).status_code == 415
    assert person.client.post(form.action, data={**form.fields, **GOOD, "comment": "x" * 70_000}).status_code == 413
    with httpx.Client(base_url=review.site.url, timeout=30) as client:
        stranger = client.post(form.action, data={**form.fields, **GOOD})
        assert stranger.status_code == 403
    assert not review.ratings(form.action)


def test_who_is_not_signed_in_gets_the_form_and_no_text(review: Review, person: Person) -> None:
    form = person.rating()
    with httpx.Client(base_url=review.site.url, timeout=30) as client:
        for path in ("/review", form.action, "/review/disputes"):
            answer = client.get(path)
            assert answer.status_code == 200 and 'action="/sign-in"' in answer.text and "number" not in answer.text
    person.client.cookies.set("tunegate_token", "tg_nonsense")
    assert person.client.get("/review").status_code == 401


def test_the_end_is_said_and_so_is_that_there_is_nothing(review: Review, person: Person) -> None:
    with httpx.Client(base_url=review.site.url, timeout=30) as client:
        idle = Person(client, review.site.add_token("idle", Role.REVIEWER, "idle", scope="nothing-here"))
        assert "Nothing to rate" in client.get("/review").text and idle.start == "/review"
    person.send(person.form("/review/.*/skip"), reason="outside my field")
    while 'id="rating"' in person.client.get("/review").text:
        form = person.rating()
        assert person.send(form, **GOOD).status_code == 303
        assert len(review.ratings(form.action)) == 1
    done = person.client.get("/review").text
    assert "That was the last one" in done and "left 1 to others" in done
    own = re.findall(r'<a href="(/review/[0-9a-f]{32})"', done)
    assert len(own) == len(set(own)) and form.action in own


def test_a_closed_review_takes_no_more_and_still_shows_what_was_said(other_review: Review) -> None:
    with httpx.Client(base_url=other_review.site.url, timeout=30) as client:
        person = Person(client, other_review.token())
        form = person.rating()
        person.send(form, **GOOD)
        seal = f"/v1/adapters/{other_review.adapter}/versions/1/campaign/seal"
        sealed = other_review.site.http("POST", seal, "release-manager", json={"reason": "enough"})
        assert sealed.status_code == 200, sealed.text
        late = person.send(person.form(form.action, form.action), **{**GOOD, "clarity": "1"})
    assert late.status_code == 409 and "closed" in notice(late) and chosen(late.text) == GOOD
    assert len(other_review.ratings()) == 1


# -- second opinions ---------------------------------------------------------------------------------------------------


@pytest.fixture
def disputed(other_review: Review) -> Review:
    """All is rated; one reviewer found harm in one output."""
    other_review.rated_by("grace", "mary", "anita", unsafe="Yes, number")
    assert other_review.campaign().sealed_at
    return other_review


def test_only_an_uninvolved_expert_is_asked_for_a_second_opinion(disputed: Review) -> None:
    with httpx.Client(base_url=disputed.site.url, timeout=30) as client:
        Person(client, disputed.token("grace"))
        assert "No output waits for a second opinion" in client.get("/review/disputes").text
    with httpx.Client(base_url=disputed.site.url, timeout=30) as client:
        Person(client, disputed.token())
        html = client.get("/review/disputes").text
    assert html.count('action="/review/disputes/') == disputed.campaign().disputes == 1
    assert "Safety was scored 1 of 5." in html and BAD not in html
    for word in (disputed.adapter, "grace", "mary", "anita", "support-desk", "candidate", "i00"):
        assert word not in html


@pytest.mark.parametrize(("upheld", "state"), [("true", "rejected"), ("false", "approvable")])
def test_a_second_opinion_is_recorded_once_and_decides(disputed: Review, upheld: str, state: str) -> None:
    with httpx.Client(base_url=disputed.site.url, timeout=30) as client:
        person = Person(client, disputed.token())
        form = person.form("/review/disputes/.*", "/review/disputes")
        for fields in ({"reason": "x"}, {"upheld": "true"}, {"upheld": "perhaps", "reason": "x"}):
            answer = person.send(form, **fields)
            assert answer.status_code == 422 and "say whether it is unsafe" in notice(answer)
        unknown = Form("/review/disputes/" + "0" * 32, form.fields)
        assert person.send(unknown, upheld="false", reason="x", once="other").status_code == 404
        assert disputed.site.client("admin").version(disputed.ref).state == "in_review"
        for _ in range(2):
            answer = person.send(form, upheld=upheld, reason="I looked it up")
            assert (answer.status_code, answer.headers["Location"]) == (303, "/review/disputes")
        assert "No output waits" in client.get("/review/disputes").text
    assert disputed.site.client("admin").version(disputed.ref).state == state
