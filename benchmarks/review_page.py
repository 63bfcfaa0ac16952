"""The reviewer's page in a real browser: how soon it shows, what it weighs, how long a save takes to show what is next.

    python -m benchmarks.review_page [--loads 20]

Needs Debian's chromium (apt-get install chromium). Registry and browser share the machine. Asserts nothing.
"""

import argparse
import statistics
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from browser_under_test import browsing, chromium, sign_in
from playwright.sync_api import Page
from reviewing_under_test import open_review, quick
from site_under_test import running

from registry.settings import Home

_PAINT = "performance.getEntriesByName('first-contentful-paint')[0]?.startTime"
_SAVED = """id => new Promise(done => {
  const look = () => document.querySelector("main").dataset.review === id ? requestAnimationFrame(look)
    : done(performance.now() - window.pressed);
  look();
})"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--loads", type=int, default=20)
    loads = parser.parse_args().loads
    with tempfile.TemporaryDirectory() as folder, running(Home(Path(folder) / "home")) as site, chromium() as browser:
        review = open_review(site, Path(folder), quick(outputs=50))
        with browsing(browser, site.url) as window:
            sizes: dict[str, int] = {}
            window.on("response", lambda answer: sizes.update({answer.url: len(answer.body())}) if answer.ok else None)
            page = sign_in(window, review.token())
            sizes.clear()
            paints = [_first_paint(page) for _ in range(loads)]
            saves = [_save(page) for _ in range(loads)]
            print(f"all that a page loads: {sum(sizes.values()) / 1000:.1f} kB in {len(sizes)} answers")
    for name, times in (("first contentful paint", paints), ("from Enter to the next item", saves)):
        print(f"{name}: median {statistics.median(times):.0f} ms, longest {max(times):.0f} ms of {loads}")


def _first_paint(page: Page) -> float:
    page.goto("/review", wait_until="networkidle")
    page.wait_for_function(_PAINT)
    return float(page.evaluate(_PAINT))


def _save(page: Page) -> float:
    before = page.locator("main").get_attribute("data-review")
    for key in "4545":
        page.keyboard.press(key)
    page.evaluate(
        "addEventListener('keydown', () => { window.pressed = performance.now(); }, {capture: true, once: true})"
    )
    page.keyboard.press("Enter")
    return float(page.evaluate(_SAVED, before))


if __name__ == "__main__":
    main()
