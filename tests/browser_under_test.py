"""A real Chromium, Debian's, driven by Playwright: what the tests of pages, their pictures and benchmarks look through.

Every context is a browser of its own: its cookies, its storage. Whatever a page asks of any other host, and whatever
its script trips over, fails the test that opened it.
"""

import contextlib
import shutil
from collections.abc import Iterator
from typing import Any

from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, Request, sync_playwright

CHROMIUM = shutil.which("chromium")
DESK = {"width": 1280, "height": 800}
PHONE: dict[str, Any] = {"viewport": {"width": 390, "height": 844}, "is_mobile": True, "has_touch": True}
# Counts what a person presses, before the page sees it; kept over reloads.
_COUNTER = """addEventListener("keydown", () => {
  sessionStorage.setItem("keystrokes", 1 + Number(sessionStorage.getItem("keystrokes")));
}, true)"""


@contextlib.contextmanager
def chromium() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        # As root, which containers often are, Chromium starts without its sandbox only.
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        try:
            yield browser
        finally:
            browser.close()


@contextlib.contextmanager
def browsing(browser: Browser, url: str, **options: Any) -> Iterator[BrowserContext]:
    """A browser's window of its own. `context.new_page()` opens a tab in it."""
    found: list[str] = []

    def note(page: Page) -> None:
        page.set_default_timeout(20_000)
        page.on("pageerror", lambda error: found.append(f"script: {error}"))

    def hear(message: ConsoleMessage) -> None:
        # Chromium reports answers like 401 and a cut connection so; tests that provoke them look at the page.
        if message.type == "error" and "Failed to load resource" not in message.text:
            found.append(message.text)

    def see(request: Request) -> None:
        if not request.url.startswith(url):
            found.append(f"asked {request.url}")

    context = browser.new_context(base_url=url, **{"viewport": DESK, **options})
    context.add_init_script(_COUNTER)
    context.on("page", note)
    context.on("console", hear)
    context.on("request", see)
    try:
        yield context
    finally:
        context.close()
    assert not found, found


def sign_in(context: BrowserContext, token: str, path: str = "/review") -> Page:
    """A tab in which someone has signed in."""
    page = context.new_page()
    page.goto(path)
    page.get_by_label("Token").fill(token)
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_url(lambda url: not url.endswith("/sign-in"))
    return page


def keystrokes(page: Page) -> int:
    return int(page.evaluate("Number(sessionStorage.getItem('keystrokes'))"))
