"""The release manager's page in a real Chromium: readable by everyone, on a phone, in the dark, by keyboard alone."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import axe_playwright_python
import pytest
import reviewing_under_test as campaign
from browser_under_test import CHROMIUM, PHONE, browsing, chromium
from playwright.sync_api import Browser, Page, expect
from site_under_test import Site, running

from registry.records import State
from registry.settings import Home

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="needs chromium: apt-get install chromium"),
    # Playwright's own pipes to the browser are closed with its process.
    pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning"),
]
AXE = (Path(axe_playwright_python.__file__).parent / "axe.min.js").read_text()
WIDE = "W" * 3000
MODES: dict[str, dict[str, Any]] = {"light": {}, "dark": {"color_scheme": "dark"}, "phone": PHONE}


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as found:
        yield found


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """support-bot/1 is approvable, with long texts; one person has begun with /2."""
    folder = tmp_path_factory.mktemp("rows")
    with running(Home(folder / "home")) as found:
        campaign.create(found)
        found.submit(fill=1)
        campaign.evaluate(found, folder, lambda number: (f"question {number}", f"answer {number} {WIDE}"))
        campaign.rate(found, campaign.opinion)
        found.submit(fill=2)
        campaign.evaluate(found, folder)
        campaign.rate(found, campaign.opinion, ("reviewer",))
        yield found


def opened(context: Any, site: Site, number: int) -> Page:
    """The campaign's page, shown to a release manager who is signed in."""
    context.add_cookies([{"name": "tunegate_token", "value": site.tokens["release-manager"], "url": site.url}])
    page: Page = context.new_page()
    page.goto(f"/adapters/support-bot/{number}/campaign")
    return page


@pytest.mark.parametrize("mode", MODES)
def test_axe_finds_nothing_serious_and_nothing_runs_off_the_screen(site: Site, browser: Browser, mode: str) -> None:
    with browsing(browser, site.url, **MODES[mode]) as context:
        for number in (1, 2):
            page = opened(context, site, number)
            for one in page.locator("details").all()[:3]:
                one.evaluate("one => one.open = true")
            page.evaluate(AXE)
            found = page.evaluate("axe.run()")["violations"]
            assert [
                (one["id"], one["nodes"][0]["html"]) for one in found if one["impact"] in ("serious", "critical")
            ] == []
            wide, seen = page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
            assert wide <= seen, f"{mode}: {wide} of {seen}"


def test_everything_is_reached_and_decided_by_keyboard(site: Site, browser: Browser) -> None:
    with browsing(browser, site.url) as context:
        page = opened(context, site, 1)
        first = page.locator("details.apart").first
        page.locator("details.apart summary").first.focus()
        page.keyboard.press("Enter")
        expect(first.get_by_text("Prompt")).to_be_visible()
        page.keyboard.press("Enter")
        expect(first.get_by_text("Prompt")).not_to_be_visible()
        page.get_by_label("Reject").focus()
        page.keyboard.press("Enter")
        # The browser itself asks for the reason, so nothing was sent.
        assert site.client("admin").version("support-bot/1").state is State.APPROVABLE
        page.get_by_label("Promote").focus()
        page.keyboard.type("good enough")
        page.keyboard.press("Tab")
        page.keyboard.press("Enter")
        expect(page.locator("h1 .state")).to_have_text("approved")
        assert site.client("admin").history("support-bot")[-1].reason == "good enough"
