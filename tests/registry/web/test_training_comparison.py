"""The page that compares runs: each is told apart without colour, nobody sees another project's, and it is readable."""

import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import axe_playwright_python
import msgspec
import pytest
from browser_under_test import CHROMIUM, PHONE, browsing, chromium
from factories import BASE
from hypothesis import given
from hypothesis import strategies as st
from playwright.sync_api import Browser
from site_under_test import DATASET, Site, running

from registry.cli import main
from registry.comparison import compared
from registry.records import CreateAdapter, CreateTraining, ProgressNote, Role, StepProgress
from registry.settings import Home
from registry.web import trainings
from registry.web.curves import LETTERS, Curves, loss_chart, swatch
from registry.web.rendering import render

EVIL = "<script>alert(1)</script>\u202e"
AXE = (Path(axe_playwright_python.__file__).parent / "axe.min.js").read_text()
MODES: dict[str, dict[str, Any]] = {"light": {}, "dark": {"color_scheme": "dark"}, "phone": PHONE}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with running(Home(tmp_path_factory.mktemp("compare") / "home")) as found:
        found.create_adapter()
        yield found


@pytest.fixture(scope="module")
def runs(site: Site) -> list[str]:
    """Five runs, the last of which goes on."""
    return [trained(site, f"[lora]\nrank = {8 * n}\n", n, ends=n < 5) for n in range(1, 6)]


def trained(
    site: Site,
    more: str,
    n: int = 1,
    adapter: str = "support-bot",
    *,
    ends: bool = True,
    preferences: str | None = None,
) -> str:
    """A run with three steps and a checkpoint, told in the words of one stage or, with preferences, of two."""
    client = site.client("trainer")
    recipe = f'name = "r"\nbase = "b"\ndata = "d"\nsystem = "{EVIL}"\n{more}'
    dataset = "sha256:" + client.upload(DATASET).sha256
    run = client.submit_training(
        CreateTraining(adapter=adapter, recipe=recipe, dataset=dataset, preferences=preferences)
    )
    job = client.claim_training("w")
    assert job is not None and job.id == run.id
    steps = [StepProgress(step=one, steps=9, loss=n + 4.0 / one, tokens_per_second=100.0 * n) for one in (1, 2, 3)]
    saved = StepProgress(step=3, steps=9, loss=1.0, validation_loss=n + 0.5, checkpoint=True)
    words = ["rows", "rows", "pairs" if preferences else "rows", "saved"]
    client.post_progress(
        job,
        [
            ProgressNote(number=i, message=said, step=one)
            for i, (said, one) in enumerate(zip(words, [*steps, saved], strict=True), 1)
        ],
    )
    if ends:
        client.cancel_training(job.id)
    return job.id


def told(site: Site, run: str, steps: list[StepProgress]) -> None:
    """More steps of a run that goes on, as its first worker would tell them."""
    notes = [{"number": one.step, "message": "rows", "step": msgspec.to_builtins(one)} for one in steps]
    answer = site.http("POST", f"/v1/jobs/{run}/progress", "trainer", json={"fence": 1, "notes": notes})
    assert answer.status_code == 200


def page(site: Site, *ids: str, who: str | None = "trainer") -> tuple[int, str, dict[str, str]]:
    query = "&".join(f"run={one}" for one in ids)
    headers = {"Cookie": f"tunegate_token={site.tokens[who]}"} if who else {}
    answer = site.http("GET", f"/trainings/compare?{query}", None, headers=headers)
    return answer.status_code, answer.text, dict(answer.headers)


def test_runs_stand_side_by_side_with_what_differs_and_one_chart_of_their_losses(site: Site, runs: list[str]) -> None:
    status, html, headers = page(site, *runs[:2])
    assert status == 200 and "refresh" not in headers and "script-src" not in headers["content-security-policy"]
    text = re.sub(r"\s+", " ", re.sub("<[^>]*>", " ", html))
    assert "lora.rank 8 16" in text and "loss at 0 % 5 6" in text and "loss at 100 % 2.333 3.333" in text
    assert "validation loss, best 1.5 at step 3 2.5 at step 3" in text and "tokens/s 100 200" in text
    assert "name" not in text.partition("What differs")[2].partition("What they are")[0], "the same in both"
    assert "A: loss from 5 at step 1 to 2.333 at step 3, validation loss from 1.5 at step 3" in html
    assert html.count('role="img"') == 1 and "differ in" not in html
    for one in runs[:2]:
        assert f'href="/trainings/{one}"' in html


def test_a_page_with_a_run_that_goes_on_loads_itself_anew(site: Site, runs: list[str]) -> None:
    assert page(site, *runs)[2]["refresh"] == "5"


def test_what_others_wrote_is_text_and_nothing_else(site: Site, runs: list[str]) -> None:
    evil = trained(site, f"'{EVIL}' = 1\n", 1)
    _, html, _ = page(site, runs[0], evil)
    assert "<script" not in html and "\u202e" not in html and "&lt;script&gt;" in html


def test_losses_over_other_rows_are_said_to_be_so(site: Site, runs: list[str]) -> None:
    other = trained(site, "seed = 1\n")
    assert "These runs differ in seed:" in page(site, runs[0], other)[1]


def test_of_a_run_with_a_second_stage_only_the_first_is_compared(site: Site, runs: list[str]) -> None:
    pairs = "sha256:" + site.client("trainer").upload(DATASET).sha256
    html = page(site, runs[0], trained(site, '[dpo]\npairs = "p"\n', preferences=pairs))[1]
    text = re.sub(r"\s+", " ", re.sub("<[^>]*>", " ", html))
    assert "These runs differ in [dpo]:" in html and "losses up to step 3 2" in text
    assert "loss at 100 % 2.333 3" in text and "B: loss from 5 at step 1 to 3 at step 2" in html


def test_a_page_of_long_recipes_and_many_checkpoints_is_made_small_and_not_in_the_event_loop(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    made_in = set[str]()

    def noted(original: Any) -> Any:
        def call(*given: Any, **named: Any) -> Any:
            made_in.add(threading.current_thread().name)
            return original(*given, **named)

        return call

    long = [trained(site, "".join(f"a{key} = {n}\n" for key in range(3000)), n, ends=False) for n in (1, 2)]
    saved = [StepProgress(step=at, steps=900, validation_loss=1.0, checkpoint=True) for at in range(10, 900)]
    for one in long:
        told(site, one, saved)
    for name, part in {"compared": compared, "loss_chart": loss_chart, "render": render}.items():
        monkeypatch.setattr(trainings, name, noted(part))
    status, html, _ = page(site, *long)
    assert status == 200 and "and 2800 more keys" in html and html.count("<tr") < 250
    assert html.count('class="mark run-A"') == 201, "with the one of the legend"
    assert "validation loss from 1.5 at step 3 to 1 at step 899" in html
    assert all(name.startswith("tunegate-reader") for name in made_in) and made_in


def test_page_and_terminal_show_the_same_figures(
    site: Site, runs: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    long = trained(site, "", ends=False)
    told(site, long, [StepProgress(step=one, steps=900, loss=1000.0 - one) for one in range(10, 900)])
    monkeypatch.setenv("TUNEGATE_URL", site.url)
    monkeypatch.setenv("TUNEGATE_TOKEN", site.tokens["trainer"])
    main(["training", "compare", runs[0], long])
    terminal = re.sub(r"[^\w%.]+", " ", capsys.readouterr().out)
    shown = re.findall(
        r"<tr><th[^>]*>(loss at \d+ %)</th><td>([^<]*)</td><td>([^<]*)</td>", page(site, runs[0], long)[1]
    )
    assert len(shown) == 6
    for figures in shown:
        assert " ".join(figures) in terminal


def test_a_question_that_cannot_be_answered_is_refused_in_words(site: Site, runs: list[str]) -> None:
    for ids in ([], runs[:1], [*runs, "x"], [runs[0]] * 2):
        status, html, _ = page(site, *ids)
        assert status == 422 and ("2 to 5 runs" in html or "more than once" in html) and "name each" in html
    for wrong in ("0" * 32, "", "%ff%00", "<script>", "x" * 2000):
        status, html, _ = page(site, runs[0], wrong)
        assert status == 404 and "does not exist or is not visible" in html and "<script" not in html
    assert page(site, runs[0], f"{runs[1]}&other=1&run[]=3")[0] == 200, "what is not asked for is not looked at"


def test_who_may_not_see_a_run_cannot_compare_it(site: Site, runs: list[str]) -> None:
    site.client("admin").create_adapter(CreateAdapter(name="team/bot", base=BASE))
    theirs = [trained(site, f"seed = {n}\n", adapter="team/bot") for n in (1, 2)]
    site.add_token("team", Role.TRAINER, "team person", scope="team")
    assert page(site, *theirs, who="team")[0] == 200 and page(site, theirs[0], runs[0])[0] == 200
    unknown = page(site, theirs[0], "0" * 32, who="team")
    hidden = page(site, theirs[0], runs[0], who="team")
    assert unknown[0] == hidden[0] == 404 and hidden[1].replace(runs[0], "0" * 32) == unknown[1]
    assert page(site, *runs[:2], who="consumer")[0] == page(site, *runs[:2], who="reviewer")[0] == 403
    assert "Sign in" in page(site, *runs[:2], who=None)[1]


def test_a_runs_page_leads_to_the_comparison_with_the_run_before_it(site: Site) -> None:
    site.client("admin").create_adapter(CreateAdapter(name="linked", base=BASE))
    first, second = (trained(site, f"seed = {n}\n", adapter="linked") for n in (1, 2))
    cookie = {"Cookie": f"tunegate_token={site.tokens['trainer']}"}
    shown = {one: site.http("GET", f"/trainings/{one}", None, headers=cookie).text for one in (first, second)}
    assert "/trainings/compare" not in shown[first], "there is none before it"
    (link,) = re.findall(r'href="(/trainings/compare[^"]*)"', shown[second])
    assert link == f"/trainings/compare?run={first}&amp;run={second}"
    assert site.http("GET", link.replace("&amp;", "&"), None, headers=cookie).status_code == 200


# -- the chart -----------------------------------------------------------------------------------------------------

losses = st.lists(st.tuples(st.integers(0, 10**9), st.none() | st.floats()), max_size=8, unique_by=lambda one: one[0])


@given(st.lists(st.tuples(losses.map(sorted), losses.map(sorted)), min_size=2, max_size=5))
def test_everything_of_the_chart_is_inside_it_and_nothing_is_left_out(given_runs: list[Any]) -> None:
    drawn = loss_chart([Curves(*one) for one in given_runs])
    known = [
        [[value for _, value in part if value is not None and abs(value) < float("inf")] for part in one]
        for one in given_runs
    ]
    assert (drawn is None) == all(len(training) < 2 for training, _ in known)
    if drawn is None:
        return
    picture = ElementTree.fromstring(drawn)
    for place, (training, validation) in enumerate(known):
        of_run = [one for one in picture if (one.get("class") or "").endswith(f"run-{LETTERS[place]}")]
        line, marks, letters = (
            [one for one in of_run if (one.get("class") or "").startswith(kind)] for kind in ("line", "mark", "letter")
        )
        places = [pair.split(",") for one in line for pair in (one.get("points") or "").split()]
        assert len(places) == len(training) and len(marks) == len(validation) and len(letters) == bool(training)
        places += [re.findall(r"[\d.-]+", one.get("transform") or "") for one in marks]
        places += [[one.get("x") or "", one.get("y") or ""] for one in letters]
        assert all(0 <= float(x) <= 640 and 0 <= float(y) <= 320 for x, y in places)


def test_runs_have_one_scale_and_each_its_own_letter_dashes_and_mark() -> None:
    curves = [Curves([(1, 2.0), (9, 1.0)], [(9, 1.5)]), Curves([(1, 4.0), (5, 2.0)], [])]
    drawn = str(loss_chart(curves))
    (first, second) = (
        [tuple(map(float, pair.split(","))) for pair in line.split()] for line in re.findall(r'points="([^"]+)"', drawn)
    )
    assert first[0] == (first[0][0], second[1][1]), "the same loss stands at the same height"
    assert second[1][0] == (first[0][0] + first[1][0]) / 2, "and the same step in the same place"
    assert re.findall(r'<text class="letter[^>]*>(.)<', drawn) == ["A", "B"]
    style = (Path(__file__).parents[3] / "registry" / "web" / "static" / "style.css").read_text()
    dashes = {re.findall(rf"\.swatch \.run-{letter} {{[^}}]*dasharray: ([^;]+);", style)[0] for letter in LETTERS[1:]}
    shapes = {re.findall(r' d="([^"]+)"', str(swatch(place)))[0] for place in range(5)}
    assert len(dashes) == 4 and len(shapes) == 5, "colour alone tells nothing"


# -- in a browser --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as found:
        yield found


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="needs chromium: apt-get install chromium")
@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")  # Playwright's own pipes
@pytest.mark.parametrize("mode", MODES)
def test_axe_finds_nothing_serious_and_nothing_runs_off_the_screen(
    site: Site, runs: list[str], browser: Browser, mode: str
) -> None:
    with browsing(browser, site.url, **MODES[mode]) as context:
        context.add_cookies([{"name": "tunegate_token", "value": site.tokens["trainer"], "url": site.url}])
        shown = context.new_page()
        for ids in (runs[:2], runs):
            shown.goto("/trainings/compare?" + "&".join(f"run={one}" for one in ids))
            shown.evaluate(AXE)
            found = shown.evaluate("axe.run()")["violations"]
            assert [(one["id"], one["nodes"][0]["html"]) for one in found] == []
            wide, seen = shown.evaluate("[document.documentElement.scrollWidth, innerWidth]")
            assert wide <= seen, f"{mode}: {wide} of {seen}"
