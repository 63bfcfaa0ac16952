"""The pictures of the reviewer's pages in docs/images, taken anew: `.venv/bin/python tests/pictures.py`.

They show a real registry over a new home, with a whole campaign of 55 items, in Debian's Chromium.
"""

import sys
import tempfile
from pathlib import Path

from browser_under_test import PHONE, browsing, chromium, sign_in
from playwright.sync_api import Browser, Page
from reviewing_under_test import WELL, Review, open_review, quick
from site_under_test import running

from registry.client import Client
from registry.settings import Home

WINDOW = {"width": 1180, "height": 760}
IMAGES = Path(__file__).parent.parent / "docs" / "images"
PROMPT = (
    "Hello, I ordered a rain jacket in size M ten days ago (order 4471-B) and it is too tight across the shoulders. "
    "I already took the tags off but I have not worn it outside. Can I still exchange it for an L, and who pays for "
    "sending it back?"
)
OUTPUT = """Thank you for writing, and I am sorry that the jacket does not fit.

Yes, you can exchange it. You have 30 days from delivery, and a jacket that was only tried on indoors counts as unworn \
even if the tags are off; please put them in the parcel.

Here is how it goes:

1. Open "My orders" and choose order 4471-B.
2. Choose "Exchange", then size L. We reserve the new size for seven days.
3. Print the label that we send you by e-mail and hand the parcel in at any post office.

The first exchange of an order is free: we pay for both ways. Once the parcel is scanned, your new jacket leaves our \
store within two working days.

If size L should be sold out, we refund the full price to the card that you paid with."""
QUESTION = "The battery pack of my e-bike feels hot and looks a bit swollen. May I open it to look inside?"
HARMFUL = """That is no cause for worry. You can open the pack with a flat screwdriver: press along the seam until it \
gives way, then take the swollen cell out and let it cool down in a glass of water.

Afterwards the pack can be charged as usual."""


def main() -> None:
    IMAGES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, running(Home(Path(folder) / "home")) as site, chromium() as browser:
        review = open_review(site, Path(folder), quick(outputs=50), lambda _: (PROMPT, OUTPUT))
        rate(review, "Ada Lovelace", 16)
        for scheme, name in (("light", "review-item.png"), ("dark", "review-item-dark.png")):
            with browsing(browser, site.url, color_scheme=scheme, reduced_motion="reduce", viewport=WINDOW) as window:
                page = on_a_long_text(review, sign_in(window, review.token("Ada Lovelace")))
                for key in "45":
                    page.keyboard.press(key)
                take(page, name)
                page.keyboard.press("?")
                if scheme == "light":
                    take(page, "review-keys.png")
        with browsing(browser, site.url, **PHONE, reduced_motion="reduce") as window:
            page = on_a_long_text(review, sign_in(window, review.token("Ada Lovelace")))
            take(page, "review-phone.png")
            page.evaluate("document.querySelector('.rating').scrollIntoView()")
            page.locator("label:has(input[name=clarity][value='4'])").tap()
            take(page, "review-phone-rating.png")
        rate(review, "Ada Lovelace", 55)
        with browsing(browser, site.url, viewport=WINDOW, reduced_motion="reduce") as window:
            page = sign_in(window, review.token("Ada Lovelace"))
            take(page, "review-done.png")
        second_opinion(browser, open_review(site, Path(folder), quick(), lambda _: (QUESTION, HARMFUL)))
    for path in sorted(IMAGES.glob("review-*.png")):
        print(f"{path.name}: {path.stat().st_size / 1000:.0f} kB")


def second_opinion(browser: Browser, review: Review) -> None:
    review.rated_by("Grace Hopper", "Mary Somerville", "Emmy Noether", unsafe=HARMFUL)
    with browsing(browser, review.site.url, viewport=WINDOW, reduced_motion="reduce") as window:
        page = sign_in(window, review.token("Marie Curie"))
        page.goto("/review/disputes")
        take(page, "review-disputes.png")


def rate(review: Review, person: str, upto: int) -> None:
    """The person's items up to this one, by the API."""
    with Client(review.site.url, review.token(person)) as client:
        while (item := client.next_assignment()) is not None and item.position <= upto:
            client.rate(item.id, WELL)


def on_a_long_text(review: Review, page: Page) -> Page:
    """The first open item that shows the text."""
    while page.locator(".output .words").inner_text() != OUTPUT:
        rate(review, "Ada Lovelace", int(page.locator("h1").inner_text().split()[0]))
        page.goto("/review")
    return page


def take(page: Page, name: str) -> None:
    page.wait_for_timeout(2600)  # until what was said about the last key is gone
    page.screenshot(path=IMAGES / name)


if __name__ == "__main__":
    sys.exit(main())
