"""The reviewer's page as experts meet it: in a real Chromium, by keyboard, on a phone, in the dark, interrupted."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import axe_playwright_python
import pytest
from browser_under_test import CHROMIUM, PHONE, browsing, chromium, keystrokes, sign_in
from playwright.sync_api import Browser, BrowserContext, Page, Response, Route, expect
from reviewing_under_test import BAD, Review, open_review, quick
from site_under_test import Site, running

from registry.records import ItemKind
from registry.settings import Home

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="needs chromium: apt-get install chromium"),
    # Playwright's own pipes to the browser are closed with its process.
    pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning"),
]
AXE = (Path(axe_playwright_python.__file__).parent / "axe.min.js").read_text()
TOTAL = 9  # five outputs, two of someone else, two of known quality
CRITERIA = ("clarity", "relevance", "safety", "accuracy")
HOSTILE = (
    "<script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">",
    "</div></main><h1>owned</h1><form action=https://evil.example><button>Save</button></form>",
    "{{ 7 * 7 }} javascript:alert(1) https://evil.example/ [x](javascript:alert(1)) <a href=//evil.example>x</a>",
    "\u202egnissim si txet siht\u202c \u2066\u200f\u200b\ufeff\U000e0041",
    "\x00\x01\x1b[31mred\x1b[0m\x07\x7f\x9b\r\u2028 end",
    "word " * 20_000,
    "W" * 100_000,
    "Ĥ\u0301\u0302\u0303\u0304\u0305\u0306\u0307" * 500,
)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as found:
        yield found


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with running(Home(tmp_path_factory.mktemp("reviews") / "home")) as found:
        yield found


@pytest.fixture(scope="module")
def review(shared: Site, tmp_path_factory: pytest.TempPathFactory) -> Review:
    """Five outputs to rate, and four items beside them. Every test is another person in it, and none finishes."""
    return open_review(shared, tmp_path_factory.mktemp("rows"), quick())


@pytest.fixture(scope="module")
def finished(shared: Site, tmp_path_factory: pytest.TempPathFactory) -> Review:
    """One that three people have rated, of whom one found harm in one output."""
    found = open_review(shared, tmp_path_factory.mktemp("rows"), quick())
    found.rated_by("grace", "mary", "anita", unsafe="Yes, number")
    return found


@pytest.fixture
def window(review: Review, browser: Browser) -> Iterator[BrowserContext]:
    with browsing(browser, review.site.url, reduced_motion="reduce") as found:
        yield found


@pytest.fixture
def page(review: Review, window: BrowserContext) -> Page:
    """The first item, as a reviewer sees it."""
    return sign_in(window, review.token())


def shown(page: Page) -> str:
    """The id of the item on the screen."""
    return page.locator("main").get_attribute("data-review") or ""


def position(page: Page) -> str:
    return page.locator("h1").inner_text()


def scores(page: Page) -> list[int | None]:
    """What is entered, by criterion."""
    found = []
    for name in CRITERIA:
        box = page.locator(f"input[name={name}]:checked")
        found.append(int(box.get_attribute("value") or 0) if box.count() else None)
    return found


def rate(page: Page, keys: str = "4545") -> None:
    """Rate the item on the screen and wait for what follows it."""
    before = shown(page)
    for key in keys:
        page.keyboard.press(key)
    page.keyboard.press("Enter")
    page.wait_for_function("before => document.querySelector('main').dataset.review !== before", arg=before)


def of(review: Review, assignment: str) -> list[tuple[int, ...]]:
    """The scores of every rating of one item."""
    return [tuple(getattr(one, name) for name in CRITERIA) for one in review.ratings(assignment)]


# -- a whole review ------------------------------------------------------------------------------------------------


def test_three_people_rate_a_whole_campaign_by_keyboard_alone(shared: Site, tmp_path: Path, browser: Browser) -> None:
    """Five keys an item; and nothing that they are sent tells what they rate, or what anyone said of it."""
    review, people = open_review(shared, tmp_path, quick(outputs=50)), ("anneliese", "bartholomew", "chiyoko")
    for who in people:
        secrets = {**secret_words(review), **{other: other for other in people if other != who}}
        with browsing(browser, shared.url, reduced_motion="reduce") as window:
            seen = listen(window)
            page = sign_in(window, review.token(who))
            total = int(position(page).partition(" of ")[2])
            assert total == 55
            for number in range(1, total + 1):
                assert position(page) == f"{number} of {total}"
                check_no_leak(page.content(), secrets)
                rate(page, "1121" if BAD in page.locator(".output").inner_text() else ("4554", "5445")[number % 2])
            expect(page.locator("h1")).to_have_text("That was the last one. Thank you.")
            assert keystrokes(page) <= 275
            for told in [*seen, json.dumps(window.cookies()), json.dumps(window.storage_state()), page.content()]:
                check_no_leak(told, secrets)
    ratings, campaign = review.ratings(), review.campaign()
    assert len(ratings) == 3 * 55 and {one.channel for one in ratings} == {"web"}
    assert campaign.sealed_at and campaign.complete == 3
    assert shared.client("admin").gate(review.ref).verdict == "go"


def listen(window: BrowserContext) -> list[str]:
    """Everything that this browser is sent from now on: addresses, headers, bodies."""
    seen: list[str] = []

    def note(answer: Response) -> None:
        content = answer.body().decode() if answer.status == 200 else ""
        headers = {name: value for name, value in answer.headers.items() if name != "cache-control"}
        seen.append(f"{answer.url}\n{json.dumps(headers)}\n{content}")

    window.on("response", note)
    return seen


def secret_words(review: Review) -> dict[str, str]:
    """What no reviewer may learn of the version they rate, by what it is."""
    version, campaign = review.site.client("admin").version(review.ref), review.campaign()
    return {
        "version": review.ref,
        "adapter": review.adapter,
        "manifest": version.digest.removeprefix("sha256:"),
        "author": version.submitter,
        "campaign": campaign.id,
        "root": campaign.root.removeprefix("sha256:"),
        "suite": "support-desk",
        "item": "i00",
        "gold item": "known-",
        **{kind: kind for kind in ItemKind},
        **{word: word for word in ("histogram", "agreement", "perplexity", "min_mean", "evaluator")},
    }


def check_no_leak(told: str, secrets: dict[str, str]) -> None:
    for name, word in secrets.items():
        assert word.lower() not in told.lower(), f"the {name} is told: …{_around(told, word)}…"


def _around(text: str, word: str) -> str:
    at = text.lower().index(word.lower())
    return text[max(0, at - 80) : at + 80]


# -- going on after an interruption --------------------------------------------------------------------------------


def test_a_reload_in_the_middle_loses_nothing(page: Page) -> None:
    rate(page)
    rate(page)
    here = shown(page)
    page.keyboard.press("2")
    page.keyboard.press("3")
    page.keyboard.press("h")
    page.keyboard.press("c")
    page.keyboard.type("Where is 1 from?")
    page.reload()
    assert (shown(page), position(page), scores(page)) == (here, f"3 of {TOTAL}", [2, 3, None, None])
    assert page.get_by_label("Hallucination").is_checked()
    assert page.get_by_label("Comment").input_value() == "Where is 1 from?"
    # What is marked is what comes next.
    rate(page, "45")
    assert position(page) == f"4 of {TOTAL}" and scores(page) == [None] * 4


def test_what_was_saved_is_kept_nowhere_in_the_browser(page: Page) -> None:
    page.keyboard.press("c")
    page.keyboard.type("private")
    page.keyboard.press("Escape")
    assert "private" in page.evaluate("JSON.stringify({...localStorage})")
    rate(page)
    assert page.evaluate("JSON.stringify({...localStorage})") == "{}"
    page.keyboard.press("5")
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_label("Token")).to_be_visible()
    assert page.evaluate("JSON.stringify({...localStorage})") == "{}"


def test_undo_goes_back_and_saving_again_supersedes(review: Review, page: Page) -> None:
    first = shown(page)
    page.keyboard.press("c")
    page.keyboard.type("first words")
    page.keyboard.press("Escape")
    rate(page, "4545")
    second = shown(page)
    page.keyboard.press("u")
    page.wait_for_url(f"**/review/{first}")
    assert scores(page) == [4, 5, 4, 5] and page.get_by_label("Comment").input_value() == "first words"
    expect(page.get_by_text("Saved. Save again to change it.")).to_be_visible()
    rate(page, "1")
    assert shown(page) == second and page.url.endswith("/review")
    assert of(review, first) == [(4, 5, 4, 5), (1, 5, 4, 5)]
    one, two = review.ratings(first)
    assert one.comment == two.comment is not None


def test_arrows_lead_through_the_own_items_and_no_further(page: Page) -> None:
    rate(page)
    rate(page)
    assert position(page) == f"3 of {TOTAL}"
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowLeft")
    page.wait_for_url("**/review/*")
    assert position(page) == f"2 of {TOTAL}"
    page.keyboard.press("ArrowLeft")
    expect(page.locator("h1")).to_have_text(f"1 of {TOTAL}")
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowRight")
    expect(page.locator("h1")).to_have_text(f"2 of {TOTAL}")
    page.keyboard.press("ArrowRight")
    expect(page.locator("h1")).to_have_text(f"3 of {TOTAL}")
    expect(page.locator("#after")).to_have_count(0)


def test_two_tabs_rate_each_item_once(review: Review, window: BrowserContext, browser: Browser) -> None:
    token = review.token()
    page, other = sign_in(window, token), window.new_page()
    other.goto("/review")
    first = shown(page)
    assert shown(other) == first
    rate(page, "4545")
    # The other tab follows by itself …
    expect(other.locator("h1")).to_have_text(f"2 of {TOTAL}")
    # … and another browser, which cannot hear of it, is told before it replaces what was said.
    with browsing(browser, review.site.url) as elsewhere:
        stale = sign_in(elsewhere, token)
        second = shown(stale)
        assert second == shown(page)
        for key in "1111":
            stale.keyboard.press(key)
        rate(page, "5454")
        stale.keyboard.press("Enter")
        expect(stale.locator("#said")).to_contain_text("another tab")
        assert (shown(stale), scores(stale)) == (second, [5, 4, 5, 4])
    assert of(review, first) == [(4, 5, 4, 5)] and of(review, second) == [(5, 4, 5, 4)]


def test_a_session_that_ends_midway_keeps_what_was_entered(review: Review, window: BrowserContext) -> None:
    page = sign_in(window, review.token("someone"))
    rate(page)
    here = shown(page)
    for key in "2345":
        page.keyboard.press(key)
    (token,) = [one for one in review.site.client("admin").tokens() if one.person == "someone"]
    review.site.client("admin").revoke_token(token.id)
    page.keyboard.press("Enter")
    expect(page.get_by_label("Token")).to_be_visible()
    page.get_by_label("Token").fill(review.token("someone"))
    page.keyboard.press("Enter")
    expect(page.locator("h1")).to_have_text(f"2 of {TOTAL}")
    assert shown(page) == here and scores(page) == [2, 3, 4, 5]
    rate(page, "")
    assert of(review, here) == [(2, 3, 4, 5)]


@pytest.mark.parametrize("reload", [False, True])
def test_a_save_whose_answer_was_lost_counts_once(review: Review, page: Page, reload: bool) -> None:
    here, lost = shown(page), []

    def lose(route: Route) -> None:
        if route.request.method == "POST" and not lost:
            lost.append(route.fetch(max_redirects=0).status)
            route.abort("connectionreset")
        else:
            route.continue_()

    page.route("**/review/*", lose)
    for key in "3344":
        page.keyboard.press(key)
    page.keyboard.press("Enter")
    expect(page.locator("#said")).to_contain_text("No answer came")
    assert lost == [303] and scores(page) == [3, 3, 4, 4]
    if reload:
        page.goto(f"/review/{here}")
        assert scores(page) == [3, 3, 4, 4]
    rate(page, "")
    assert of(review, here) == [(3, 3, 4, 4)] and position(page) == f"2 of {TOTAL}"


# -- keys ------------------------------------------------------------------------------------------------------------


def test_keys_move_and_flag_and_rest_while_someone_writes(review: Review, page: Page) -> None:
    here = shown(page)
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("5")  # safety
    page.keyboard.press("ArrowUp")
    page.keyboard.press("ArrowUp")
    page.keyboard.press("ArrowUp")
    page.keyboard.press("1")  # clarity, as nothing is above it
    assert scores(page) == [1, None, 5, None]
    page.keyboard.press("Enter")
    expect(page.locator("#said")).to_have_text("Relevance has no score yet.")
    page.keyboard.press("2")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("3")
    page.keyboard.press("f")
    page.keyboard.press("2")
    page.keyboard.press("F")
    page.keyboard.press("3")
    page.keyboard.press("h")
    page.keyboard.press("h")
    page.keyboard.press("c")
    page.keyboard.type("12345 hfcsu? ok")
    page.keyboard.press("Enter")
    page.keyboard.type("line 2")
    assert scores(page) == [1, 2, 5, 3] and shown(page) == here
    page.keyboard.press("Control+Enter")
    expect(page.locator("h1")).to_have_text(f"2 of {TOTAL}")
    (one,) = review.ratings(here)
    assert (one.hallucination, one.unsafe, one.discuss) == (False, True, True)
    assert review.site.registry.blobs.read(str(one.comment)) == b"12345 hfcsu? ok\nline 2"


def test_an_item_is_skipped_with_a_reason(page: Page) -> None:
    first = shown(page)
    page.keyboard.press("s")
    page.keyboard.press("Escape")
    expect(page.locator("#reason")).to_be_hidden()
    page.keyboard.press("s")
    page.keyboard.press("Enter")  # no reason, no skip
    assert shown(page) == first
    page.keyboard.type("1 outside my field")
    page.keyboard.press("Enter")
    expect(page.locator("#said")).to_contain_text("Skipped.")
    assert shown(page) != first and scores(page) == [None] * 4
    # One in ten may be skipped. What was entered stays when it is refused.
    page.keyboard.press("4")
    page.keyboard.press("s")
    page.keyboard.type("again")
    page.keyboard.press("Enter")
    expect(page.locator("#said")).to_contain_text("as many as may be")
    assert scores(page) == [4, None, None, None]


def test_help_opens_and_keys_can_be_switched_off(page: Page) -> None:
    page.keyboard.press("?")
    expect(page.get_by_role("dialog", name="Keys")).to_be_visible()
    page.keyboard.press("3")
    page.get_by_label("Use these keys").uncheck()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_be_hidden()
    page.keyboard.press("4")
    page.reload()
    page.keyboard.press("4")
    assert scores(page) == [None] * 4
    # What every browser does with radio buttons is left alone then.
    page.locator("input[name=clarity][value='1']").focus()
    page.keyboard.press("Space")
    page.keyboard.press("ArrowDown")
    assert scores(page) == [2, None, None, None]


def test_a_held_key_rates_one_criterion(page: Page) -> None:
    page.keyboard.down("5")
    for _ in range(5):
        page.keyboard.down("5")  # repeats
    page.keyboard.up("5")
    assert scores(page) == [5, None, None, None]


def test_a_digit_is_known_by_its_place_where_it_needs_shift(page: Page) -> None:
    page.evaluate(
        """document.body.dispatchEvent(new KeyboardEvent("keydown", {key: "'", code: "Digit4", bubbles: true}))"""
    )
    assert scores(page) == [4, None, None, None]


# -- what outputs may hold -------------------------------------------------------------------------------------------


def test_outputs_stay_inert_whatever_they_hold(shared: Site, tmp_path: Path, browser: Browser) -> None:
    everything = "\n".join(HOSTILE)
    review = open_review(shared, tmp_path, quick(outputs=3), lambda index: (f"{everything}{index}", everything))
    with browsing(browser, shared.url, reduced_motion="reduce") as window:
        page, whole = sign_in(window, review.token()), 0
        while shown(page):
            text = page.locator(".output .words").inner_text()
            if text.startswith("<script>"):
                whole += 1
                assert HOSTILE[2] in text and text.count("W") >= 100_000 and text.count("word ") >= 20_000
                for mark in (
                    "U+202Egnissim",
                    "U+2066U+200FU+200BU+FEFFU+E0041",
                    "U+0000U+0001U+001B[31mred",
                    "U+2028 end",
                ):
                    assert mark in text
            check_inert(page)
            rate(page)
        assert whole >= 2


def check_inert(page: Page) -> None:
    assert page.title().endswith("Review · tunegate")
    pane = page.locator(".output .pane")
    assert pane.locator("*:not(mark):not(.words)").count() == 0, "only text, and marks for what is unseen"
    unseen = "[\\u0000-\\u0008\\u000b-\\u001f\\u007f-\\u009f\\u200b\\u200e\\u200f\\u2028-\\u202e\\u2066-\\u2069\\ufeff]"
    assert not page.evaluate(f"/{unseen}|[\\u{{E0000}}-\\u{{E007F}}]/u.test(document.body.textContent)")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "nothing pushes the page wide"
    assert pane.evaluate("one => one.scrollWidth <= one.clientWidth + 1"), "long words break"
    # However long the text, what is to be answered stays in sight.
    save = page.locator("#save").bounding_box()
    assert save is not None and save["y"] + save["height"] <= 800


def test_a_long_output_scrolls_without_leaving_the_keys(shared: Site, tmp_path: Path, browser: Browser) -> None:
    review = open_review(shared, tmp_path, quick(), lambda index: (f"prompt {index}", "word " * 20_000))
    with browsing(browser, shared.url, reduced_motion="reduce") as window:
        page = sign_in(window, review.token())
        while "word word" not in page.locator(".output .words").inner_text()[:20]:
            rate(page)
        page.keyboard.press("4")
        page.keyboard.press("PageDown")
        assert page.locator(".output .pane").evaluate("one => one.scrollTop") > 100
        page.keyboard.press("5")
        assert scores(page) == [4, 5, None, None]


# -- everyone ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("phone", [False, True], ids=["desk", "phone"])
def test_no_page_has_a_serious_accessibility_problem(
    finished: Review, review: Review, browser: Browser, scheme: Any, phone: bool
) -> None:
    options = {**(PHONE if phone else {}), "color_scheme": scheme, "reduced_motion": "reduce"}
    with browsing(browser, review.site.url, **options) as window:
        page = window.new_page()
        page.goto("/review")
        check_accessible(page, "sign in")
        page = sign_in(window, review.token())
        check_accessible(page, "an open item")
        for key in ("4", "f"):
            page.keyboard.press(key)
        check_accessible(page, "a score and the flags")
        page.keyboard.press("s")
        check_accessible(page, "skipping")
        page.keyboard.press("Escape")
        page.keyboard.press("?")
        check_accessible(page, "help")
        page.keyboard.press("Escape")
        page.keyboard.press("Enter")
        check_accessible(page, "something is missing")
        page.reload()
        rate(page, "545")
        page.goto(page.locator("#before").get_attribute("href") or "")
        check_accessible(page, "a saved item")
        for path in ("/review/disputes", "/review/unknown", "/"):
            page.goto(path)
            check_accessible(page, path)
    with browsing(browser, review.site.url, **options) as window:
        page = sign_in(window, finished.token("grace"))
        page.goto("/review/done")
        expect(page.locator("h1")).to_have_text("That was the last one. Thank you.")
        check_accessible(page, "the end")
    with browsing(browser, review.site.url, **options) as window:
        page = sign_in(window, finished.token("uninvolved"))
        expect(page.locator("h1")).to_have_text("Nothing to rate")
        check_accessible(page, "nothing to rate")
        page.goto("/review/disputes")
        expect(page.locator("article")).to_have_count(1)
        check_accessible(page, "a second opinion")


def check_accessible(page: Page, what: str) -> None:
    # The page's own policy lets no script in but ours; the driver's way around it is not open to pages.
    page.evaluate(AXE)
    found = page.evaluate("axe.run({resultTypes: ['violations']})")["violations"]
    serious = [(one["id"], [node["html"] for node in one["nodes"]]) for one in found if one["impact"] in BAD_IMPACTS]
    assert not serious, f"{what}: {serious}"
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), f"{what} is wider than the screen"


BAD_IMPACTS = ("serious", "critical")


def test_a_screen_reader_is_told_what_there_is_and_what_happened(page: Page) -> None:
    for name in ("Clarity", "Relevance", "Safety", "Factual accuracy"):
        assert page.get_by_role("radiogroup", name=name).get_by_role("radio").count() == 5
    expect(page.get_by_role("radiogroup", name="Safety")).to_have_accessible_description("Could it do harm?")
    assert page.get_by_role("radio", name="5 Nothing in it could do harm").count() == 1
    for name in ("Hallucination", "Unsafe", "Discuss"):
        assert page.get_by_role("checkbox", name=name).count() == 1
    assert page.get_by_role("main").count() == page.get_by_role("banner").count() == 1
    assert page.get_by_role("heading", level=1).inner_text() == f"1 of {TOTAL}"
    assert [one.inner_text().lower() for one in page.get_by_role("heading", level=2).all()] == ["prompt", "output"]
    page.keyboard.press("4")
    expect(page.get_by_role("status")).to_have_text("Clarity 4")
    assert page.evaluate("document.activeElement.getAttribute('aria-labelledby')") == "relevance-title"
    rate(page, "545")
    expect(page.get_by_role("status")).to_have_text(f"Saved. 2 of {TOTAL}")
    assert page.evaluate("document.activeElement.tagName") == "H1"
    # From there, Tab meets the texts before the first score.
    page.keyboard.press("Tab")
    name = "(one => one.getAttribute('aria-label') || one.name || one.id)(document.activeElement)"
    met = []
    for _ in range(8):
        met.append(page.evaluate(name))
        page.keyboard.press("Tab")
    assert met.index("Prompt") < met.index("Output") < met.index("clarity")


def test_a_phone_shows_everything_in_one_column_to_a_finger(review: Review, browser: Browser) -> None:
    with browsing(browser, review.site.url, **PHONE) as window:
        page = sign_in(window, review.token())
        here = shown(page)
        prompt, output = (page.locator(one).bounding_box() for one in (".prompt", ".output"))
        assert prompt and output and output["y"] >= prompt["y"] + prompt["height"]
        for name, value in zip(CRITERIA, (5, 4, 3, 2), strict=True):
            cell = page.locator(f"label:has(input[name={name}][value='{value}'])")
            box = cell.bounding_box()
            assert box and box["height"] >= 44 and box["width"] >= 300
            cell.tap()
        page.get_by_label("Hallucination").tap()
        page.get_by_role("button", name="Save and go on").tap()
        expect(page.locator("h1")).to_have_text(f"2 of {TOTAL}")
        assert page.evaluate("scrollY") == 0
    (one,) = review.ratings(here)
    assert of(review, here) == [(5, 4, 3, 2)] and one.hallucination


def test_darkness_and_stillness_follow_the_reader(review: Review, browser: Browser) -> None:
    ground = "getComputedStyle(document.body).backgroundColor"
    slow = "one => parseFloat(getComputedStyle(one).transitionDuration) > 0"
    moving = f"[...document.querySelectorAll('*')].filter({slow}).length"
    colours = {}
    for scheme in ("light", "dark"):
        for motion in ("reduce", "no-preference"):
            with browsing(browser, review.site.url, color_scheme=scheme, reduced_motion=motion) as window:
                page = sign_in(window, review.token())
                colours[scheme] = [int(part) for part in page.evaluate(ground)[4:-1].split(",")]
                assert (page.evaluate(moving) == 0) is (motion == "reduce")
    assert min(colours["light"]) > 230 and max(colours["dark"]) < 40


def test_a_page_with_all_that_it_loads_is_small(review: Review, browser: Browser) -> None:
    with browsing(browser, review.site.url) as window:
        sizes: dict[str, int] = {}
        window.on("response", lambda answer: sizes.update({answer.url: len(answer.body())}) if answer.ok else None)
        page = sign_in(window, review.token())
        sizes.clear()
        page.reload(wait_until="networkidle")
        assert {url.removeprefix(review.site.url) for url in sizes} == {
            "/review",
            "/static/style.css",
            "/static/review.js",
        }
        assert sum(sizes.values()) < 100_000


def test_everything_works_without_script(review: Review, browser: Browser) -> None:
    with browsing(browser, review.site.url, java_script_enabled=False) as window:
        page = sign_in(window, review.token())
        first = shown(page)
        for name in CRITERIA:
            page.locator(f"input[name={name}][value='4']").check()
        page.get_by_label("Comment").fill("by hand")
        page.get_by_role("button", name="Save and go on").click()
        expect(page.locator("h1")).to_have_text(f"2 of {TOTAL}")
        page.get_by_role("link", name="Earlier").click()
        assert shown(page) == first and page.get_by_label("Comment").input_value() == "by hand"
        page.get_by_role("link", name="Later").click()
        page.locator("summary").click()
        page.get_by_label("Why do you leave").fill("not mine")
        page.get_by_role("button", name="Skip this one").click()
        expect(page.locator("h1")).to_have_text(f"3 of {TOTAL}")
    assert of(review, first) == [(4, 4, 4, 4)]
