"""Pages as a browser gets them: nothing unescaped, nothing from elsewhere, nothing that the token may not see."""

import contextlib
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import factories
import httpx
import msgspec
import pytest
from factories import SUITES, entry_of, make_adapter, make_training
from site_under_test import DATASET, LEDGER, SMALL_REVIEW, Site, running

from evaluator.evidence import write_rows
from registry.records import Base, CreateAdapter, Role, SubmitVersion
from registry.settings import Home

EVIL = '"><script>alert(1)</script><img src=x onerror=alert(2)>{{ 7 * 7 }}'
COOKIE, FORM = "tunegate_token", "tunegate_form"
TAGS = set(
    "html head meta title link body header main footer section a form label input button span h1 h2 h3 p code table "
    "thead tbody tr th td time ul li dl dt dd".split()
)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """support-bot/1 is approved, /2 in review, team/other/1 waits, evil-bot/1 says <script> wherever it can,
    lost-bot/1 has forgotten too much.
    """
    rows = tmp_path_factory.mktemp("rows")
    with running(Home(tmp_path_factory.mktemp("web") / "home")) as found:
        found.create_adapter()
        found.approved(rows, fill=1)
        found.submit(fill=2)
        found.evaluate(rows)
        make_evil(found, rows)
        found.create_adapter("lost-bot")
        found.submit("lost-bot", fill=5)
        found.evaluate(rows, lost=150)
        found.create_adapter("team/other")
        found.submit("team/other", fill=4)
        yield found


def make_evil(site: Site, folder: Path) -> None:
    base = Base(id=EVIL, digest=factories.BASE.digest)
    request = CreateAdapter(name="evil-bot", base=base, policy=SMALL_REVIEW)
    site.client("admin").create_adapter(request)
    site.add_token("evil", Role.CI, EVIL)
    files = make_adapter(fill=3)
    record = make_training(dataset=DATASET, ledger=LEDGER)
    training = msgspec.structs.replace(record, rows={EVIL: 7}, versions={EVIL: EVIL}, recipe=EVIL)
    entries = [entry_of(path, data) for path, data in files.items()]
    created = site.client("evil").submit("evil-bot", SubmitVersion(files=entries, training=training, notes=EVIL))
    for data in files.values():
        site.client("evil").upload(data)
    site.client("evil").complete(created.ref)
    job = site.client("evaluator").claim(["evaluation"], EVIL)
    assert job is not None and job.ref == "evil-bot/1"
    suites = {section: getattr(job.document, section).suite for section in SUITES}
    made, evidence = factories.rows_and_evidence(suites, job.digest, job.policy)
    write_rows(folder / "evil.parquet", made)
    engine = msgspec.structs.replace(evidence.engine, distribution=EVIL, version=EVIL, device=EVIL)
    canaries = [
        # How answers end is checked against the rows; the rest is the worker's word.
        msgspec.structs.replace(one, passed=one.name == "finish_by_length", detail=EVIL)
        for one in evidence.canaries
    ]
    stored = site.client("evaluator").upload(folder / "evil.parquet")
    changed = msgspec.structs.replace(evidence, rows=stored.sha256, engine=engine, canaries=canaries)
    site.client("evaluator").post_evidence(job, changed)


def browse(site: Site, path: str, who: str | None = "admin", **headers: str) -> httpx.Response:
    cookies = {"Cookie": f"{COOKIE}={site.tokens[who]}"} if who else {}
    return httpx.get(site.url + path, headers={**cookies, **headers}, timeout=30, verify=False)


@contextlib.contextmanager
def browser(site: Site) -> Iterator[httpx.Client]:
    """Keeps cookies, as a browser does."""
    with httpx.Client(base_url=site.url, timeout=30, verify=False) as client:
        yield client


def form_token(client: httpx.Client) -> str:
    """What the forms of the first page carry."""
    (token,) = set(re.findall(r'name="form_token" value="([0-9a-f]{64})"', client.get("/").text))
    return str(token)


def send(client: httpx.Client, path: str, **fields: str) -> httpx.Response:
    """A form of ours, filled in."""
    return client.post(path, data={"form_token": form_token(client), **fields})


class Page(HTMLParser):
    """What a browser would make of a page: its elements, and the text between them."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def check_page(answer: httpx.Response, status: int = 200) -> Page:
    """Whatever the page is about: inert, self-contained, and not kept anywhere."""
    assert answer.status_code == status, answer.text
    assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
    policy = dict(part.strip().partition(" ")[::2] for part in answer.headers["Content-Security-Policy"].split(";"))
    assert policy["default-src"] == "'none'" and policy["style-src"] == "'self'"
    assert (
        policy["frame-ancestors"] == "'none'" and policy["base-uri"] == "'none'" and policy["form-action"] == "'self'"
    )
    assert "script-src" not in policy and "unsafe" not in answer.headers["Content-Security-Policy"]
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Referrer-Policy"] == "same-origin" and answer.headers["Cache-Control"] == "no-store"
    page = Page(answer.text)
    assert {tag for tag, _ in page.elements} <= TAGS
    for tag, attributes in page.elements:
        assert not any(name.startswith("on") or name == "style" for name in attributes), (tag, attributes)
        for name in ("href", "src", "action"):
            assert (attributes.get(name) or "/").startswith("/"), (tag, attributes)
            assert not (attributes.get(name) or "").startswith("//")
    assert answer.text.count("{{") == answer.text.count(EVIL[-11:]) and not re.search(r"tg_[a-z]+_", answer.text)
    return page


def flags_of(cookie: str) -> set[str]:
    return {part.strip().lower() for part in cookie.split(";")[1:]}


def links(page: Page) -> set[str]:
    return {str(attributes["href"]) for tag, attributes in page.elements if tag == "a"} - {"/"}


# -- signing in --------------------------------------------------------------------------------------------------------


def test_without_a_cookie_every_page_is_the_sign_in_form(site: Site) -> None:
    for path in ("/", "/adapters/support-bot/1", "/adapters/team/other/1", "/adapters/none/1"):
        page = check_page(browse(site, path, None))
        (form,) = [attributes for tag, attributes in page.elements if tag == "form"]
        assert (form["method"], form["action"]) == ("post", "/sign-in")
        fields = {(attributes["name"], attributes["type"]) for tag, attributes in page.elements if tag == "input"}
        assert fields == {("form_token", "hidden"), ("token", "password")}
        assert "support-bot" not in page.text


def test_signing_in_sets_a_cookie_that_scripts_and_other_sites_never_get(site: Site) -> None:
    token = site.tokens["admin"]
    with browser(site) as client:
        answer = send(client, "/sign-in", token=f" {token}\n")
    assert (answer.status_code, answer.headers["Location"]) == (303, "/")
    name, _, rest = answer.headers["Set-Cookie"].partition("=")
    value, *flags = (part.strip().lower() for part in rest.split(";"))
    assert (name, value) == (COOKIE, token)
    assert {"httponly", "samesite=strict", "path=/"} <= set(flags)
    assert not any(flag.startswith("domain") for flag in flags)
    assert token not in answer.text and token not in answer.headers["Location"]
    with browser(site) as client:
        send(client, "/sign-in", token=token)
        assert "Adapters" in check_page(client.get("/")).text
        out = send(client, "/sign-out")
        assert out.status_code == 303 and "max-age=0" in out.headers["Set-Cookie"].lower()
        assert "Sign in" in check_page(client.get("/")).text


def test_a_wrong_token_is_refused_and_not_repeated(site: Site) -> None:
    for token in ("", "nonsense", EVIL, site.tokens["admin"][:-1] + "x", "tg_admin_" + "0" * 12):
        with browser(site) as client:
            answer = send(client, "/sign-in", token=token)
        page = check_page(answer, 401)
        assert "Set-Cookie" not in answer.headers and "token" in page.text
        assert not token or token not in answer.text


def test_a_cookie_is_as_good_as_its_token(site: Site) -> None:
    site.add_token("leaving", Role.CI, "leaving person")
    check_page(browse(site, "/", "leaving"))
    leaving = site.client("leaving").tokens()[0].id
    assert site.http("DELETE", f"/v1/tokens/{leaving}").status_code == 204
    for path in ("/", "/adapters/support-bot/1"):
        page = check_page(browse(site, path, "leaving"), 401)
        assert "was revoked" in page.text and "support-bot" not in page.text
    check_page(httpx.get(site.url, headers={"Cookie": f"{COOKIE}={'x' * 3000}"}, timeout=30, verify=False), 401)


@pytest.mark.parametrize("path", ["/sign-in", "/sign-out"])
def test_a_form_of_another_site_signs_nobody_in_or_out(site: Site, path: str) -> None:
    with browser(site) as client:
        fields = {"token": site.tokens["admin"], "form_token": form_token(client)}
        for origin in ("https://evil.example", "null", site.url + ".evil.example", "http://127.0.0.1:1"):
            answer = client.post(path, data=fields, headers={"Origin": origin})
            assert answer.status_code == 403 and "Set-Cookie" not in answer.headers, origin
        assert client.post(path, data=fields, headers={"Origin": site.url}).status_code == 303


@pytest.mark.parametrize("path", ["/sign-in", "/sign-out"])
@pytest.mark.parametrize("origin", [False, True])
def test_a_form_without_our_token_is_refused_whatever_its_origin(site: Site, path: str, origin: bool) -> None:
    """The browser of a victim sends its cookies along; what it cannot send is a token that it never was shown."""
    headers = {"Origin": site.url} if origin else {}
    with browser(site) as client, browser(site) as attacker:
        good, theirs = form_token(client), form_token(attacker)
        for token in (None, "", "x", theirs, good[:-1], good.upper(), f"{good}\n", "\xe9"):
            fields = {"token": site.tokens["admin"]} | ({} if token is None else {"form_token": token})
            answer = client.post(path, data=fields, headers=headers)
            assert answer.status_code == 403 and "Set-Cookie" not in answer.headers, token
        # Without its cookie, or with one that an attacker planted beside a session, a good token is worth nothing.
        fields = {"token": site.tokens["admin"], "form_token": good}
        assert httpx.post(site.url + path, data=fields, headers=headers, timeout=30, verify=False).status_code == 403
        planted = {"Cookie": f"{FORM}={attacker.cookies[FORM]}; {COOKIE}={site.tokens['ci']}", **headers}
        fields["form_token"] = theirs
        assert httpx.post(site.url + path, data=fields, headers=planted, timeout=30, verify=False).status_code == 403


@pytest.mark.parametrize("kind", ["text/plain", "", "application/json", "multipart/form-data; boundary=x", "text/html"])
def test_only_what_says_that_it_is_a_form_is_read_as_one(site: Site, kind: str) -> None:
    with browser(site) as client:
        content = f"form_token={form_token(client)}&token={site.tokens['admin']}".encode()
        for path in ("/sign-in", "/sign-out"):
            answer = client.post(path, content=content, headers={"Content-Type": kind} if kind else {})
            assert answer.status_code == 415 and "Set-Cookie" not in answer.headers


@pytest.mark.parametrize(
    ("content", "status"),
    [
        (b"\xff\x00=%zz", 403),
        (b"", 403),
        (b"&".join([b"a=b"] * 21), 422),
        (b"a" * 70_000, 413),
        (b"form_token=1;2", 403),
    ],
)
def test_a_strange_form_is_refused_in_words(site: Site, content: bytes, status: int) -> None:
    with browser(site) as client:
        client.get("/")
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        answer = client.post("/sign-in", content=content, headers=headers)
        assert answer.status_code == status and answer.headers["Content-Type"] == "application/problem+json"


def test_the_cookie_for_forms_is_given_once_and_never_to_scripts_or_other_sites(site: Site) -> None:
    with browser(site) as client:
        (given,) = client.get("/").headers.get_list("Set-Cookie")
        assert given.startswith(f"{FORM}=") and {"httponly", "samesite=lax", "path=/"} <= flags_of(given)
        assert "Set-Cookie" not in client.get("/").headers, "a second tab keeps the first one's forms"
    strange = httpx.get(site.url, headers={"Cookie": f"{FORM}=../../x"}, timeout=30, verify=False)
    assert strange.headers["Set-Cookie"].startswith(f"{FORM}=") and "../" not in strange.headers["Set-Cookie"]


def test_cookies_are_for_https_only_where_the_client_came_by_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """A proxy in front ends TLS; its word counts where the setting names it, and nobody else's."""
    forwarded = {"X-Forwarded-Proto": "https"}
    for proxies, secure in (("", False), ("10.0.0.0/8", False), ("127.0.0.0/8", True)):
        monkeypatch.setenv("TUNEGATE_PROXIES", proxies)
        with running(Home(tmp_path_factory.mktemp("proxied") / "home")) as site, browser(site) as client:
            first = client.get("/", headers=forwarded)
            token = re.findall(r'name="form_token" value="([0-9a-f]{64})"', first.text)[0]
            # httpx keeps a Secure cookie to itself over http; the proxy would not.
            nonce = first.headers["Set-Cookie"].partition(";")[0]
            fields = {"token": site.tokens["admin"], "form_token": token}
            headers = {**forwarded, "Cookie": nonce}
            second = httpx.post(site.url + "/sign-in", data=fields, headers=headers, timeout=30, verify=False)
            assert second.status_code == 303
            for answer in (first, second):
                assert ("secure" in flags_of(answer.headers["Set-Cookie"])) is secure


def test_the_cookie_opens_pages_only(site: Site) -> None:
    """So no other site's form can use it to change anything."""
    cookie = {"Cookie": f"{COOKIE}={site.tokens['admin']}"}
    for method, path in (("GET", "/v1/tokens"), ("POST", "/v1/tokens"), ("POST", "/v1/adapters")):
        assert httpx.request(method, site.url + path, headers=cookie, timeout=30, verify=False).status_code == 401
    assert httpx.get(f"{site.url}/?token={site.tokens['admin']}", timeout=30, verify=False).status_code == 422


# -- what is shown -----------------------------------------------------------------------------------------------------


def test_the_overview_shows_every_version_with_its_state(site: Site) -> None:
    page = check_page(browse(site, "/"))
    assert links(page) == {
        f"/adapters/{ref}" for ref in ("support-bot/1", "support-bot/2", "evil-bot/1", "lost-bot/1", "team/other/1")
    }
    for text in ("approved", "in review", "submitted", "@approved", "ci person", "· admin"):
        assert text in page.text


def test_a_version_page_shows_what_the_gate_says(site: Site) -> None:
    report = site.client("admin").gate("support-bot/1")
    page = check_page(browse(site, "/adapters/support-bot/1"))
    assert "Gate: go" in page.text and report.digest in page.text and report.policy in page.text
    for check in report.checks:
        assert check.name in page.text and check.reason in page.text
    assert "Gate: pending" in check_page(browse(site, "/adapters/support-bot/2")).text
    assert "Gate: pending" in check_page(browse(site, "/adapters/team/other/1")).text


def test_whatever_others_wrote_is_text(site: Site) -> None:
    for path in ("/", "/adapters/evil-bot/1"):
        answer = browse(site, path)
        page = check_page(answer)
        assert EVIL in page.text and "<script" not in answer.text and "49" not in page.text.partition("{{")[0]
    report = site.client("admin").gate("evil-bot/1")
    shown = check_page(browse(site, "/adapters/evil-bot/1"))
    # Submitter, base, engine and training record all carry it.
    assert shown.text.count(EVIL) >= 5 and all(check.reason in shown.text for check in report.checks)
    assert EVIL in check_page(browse(site, "/", "evil")).text, "the name of who is signed in"
    missing = browse(site, "/adapters/%3Cscript%3Ealert(1)%3C%2Fscript%3E/1")
    assert missing.status_code == 404 and "<script" not in missing.text
    check_page(browse(site, "/adapters/%3Cscript%3Ealert(1)/1"), 404)


def test_a_version_shows_what_explains_its_numbers_and_every_tag(site: Site) -> None:
    report = site.client("admin").gate("lost-bot/1")
    page = check_page(browse(site, "/adapters/lost-bot/1"))
    text = " ".join(page.text.split())
    details = [line for check in report.checks for line in check.details]
    assert details and all(line in text for line in details)
    slices = [(check, one) for check in report.checks for one in check.slices]
    assert {(check.kind, one.alarm) for check, one in slices} == {("accuracy", False), ("forgetting", True)}
    assert "forgetting t 600 change -23.3%" in text and "accuracy t 200 95.0% right 1 " in text
    assert text.count("Alarm: t, change -23.3% of 600 items") == 1 and text.count("Alarm:") == 1
    waiting = check_page(browse(site, "/adapters/team/other/1")).text
    assert "By tag" not in waiting and "Alarm" not in waiting


def test_a_consumer_sees_approved_versions_and_a_reviewer_none_in_review(site: Site) -> None:
    consumer = check_page(browse(site, "/", "consumer"))
    assert links(consumer) == {"/adapters/support-bot/1"} and "in review" not in consumer.text
    reviewer = check_page(browse(site, "/", "reviewer"))
    assert "/adapters/support-bot/2" not in links(reviewer)
    page = check_page(browse(site, "/adapters/support-bot/1", "consumer"))
    assert "Trained on" not in page.text
    assert "Trained on" in check_page(browse(site, "/adapters/support-bot/1", "ci")).text
    for who, path in (
        ("consumer", "/adapters/support-bot/2"),
        ("consumer", "/adapters/team/other/1"),
        ("reviewer", "/adapters/support-bot/2"),
    ):
        hidden, unknown = browse(site, path, who), browse(site, "/adapters/support-bot/99", who)
        assert check_page(hidden, 404).text.replace(path[10:], "X") == check_page(unknown, 404).text.replace(
            "support-bot/99", "X"
        )


def test_a_scoped_token_sees_its_own_adapters_only(site: Site) -> None:
    site.add_token("team", Role.ADMIN, "team admin", scope="team")
    page = check_page(browse(site, "/", "team"))
    assert links(page) == {"/adapters/team/other/1"} and "support-bot" not in page.text and "evil" not in page.text
    check_page(browse(site, "/adapters/support-bot/1", "team"), 404)
    check_page(browse(site, "/adapters/team/other/1", "team"))


def test_the_style_comes_from_here_and_loads_nothing(site: Site) -> None:
    style = httpx.get(site.url + "/static/style.css", timeout=30, verify=False)
    assert style.status_code == 200 and style.headers["Content-Type"].startswith("text/css")
    assert "url(" not in style.text and "@import" not in style.text
    for path in ("/static/", "/static/pages.py", "/static/../pages.py"):
        assert httpx.get(site.url + path, timeout=30, verify=False).status_code == 404
