"""A run's page: what is known of it, curves of what was told, and nothing for who may not see it."""

import re
from collections.abc import Iterator
from datetime import UTC, datetime

import msgspec
import pytest
from factories import BASE
from hypothesis import given
from hypothesis import strategies as st
from site_under_test import DATASET, Site, running

from registry.records import (
    CreateAdapter,
    CreateTraining,
    FaultKind,
    ProgressNote,
    Role,
    StepProgress,
    TrainingInfo,
    TrainingJob,
    TrainingStatus,
)
from registry.settings import Home
from registry.web.curves import line_chart
from registry.web.trainings import expected_end

EVIL = "<script>alert(1)</script>\u202e"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with running(Home(tmp_path_factory.mktemp("page") / "home")) as found:
        found.create_adapter()
        yield found


def claimed(site: Site, name: str) -> TrainingJob:
    client = site.client("trainer")
    dataset = "sha256:" + client.upload(DATASET).sha256
    recipe = f'name = "{name}"\nbase = "b"\ndata = "d"\n# {EVIL}'
    client.submit_training(CreateTraining(adapter="support-bot", recipe=recipe, dataset=dataset, notes=EVIL))
    job = client.claim_training("w")
    assert job is not None
    return job


def page(site: Site, id_: str, who: str = "trainer") -> tuple[int, str, dict[str, str]]:
    answer = site.http("GET", f"/trainings/{id_}", None, headers={"Cookie": f"tunegate_token={site.tokens[who]}"})
    return answer.status_code, answer.text, dict(answer.headers)


def step(number: int) -> ProgressNote:
    at = StepProgress(
        step=number,
        steps=10,
        loss=4.0 / number,
        learning_rate=1e-4 * number,
        memory_bytes=3 * 1024**3,
        tokens_per_second=123.0,
        seconds_left=60.0,
    )
    return ProgressNote(number=number, message="training", step=at)


def test_a_running_run_shows_its_numbers_and_curves_and_loads_itself_anew(site: Site) -> None:
    job = claimed(site, "runs")
    site.client("trainer").post_progress(job, [step(number) for number in range(1, 6)])
    status, html, headers = page(site, job.id)
    assert status == 200 and headers["refresh"] == "5"
    assert "script-src" not in headers["content-security-policy"]
    assert "step 5 of 10" in html and "3.00 GiB" in html and "Expected end" in html
    assert "loss from 4 at step 1 to 0.8 at step 5" in html and "learning rate from 0.0001" in html
    assert [len(line.split()) for line in re.findall(r'points="([^"]+)"', html)] == [5, 5]
    site.client("trainer").cancel_training(job.id)
    status, html, headers = page(site, job.id)
    assert "refresh" not in headers and "cancelled by trainer person" in html and "Expected end" not in html


def test_what_others_wrote_is_text_and_nothing_else(site: Site) -> None:
    job = claimed(site, "evil")
    note = ProgressNote(number=1, message=EVIL)
    site.client("trainer").post_progress(job, [note])
    site.client("trainer").fail_training(job, FaultKind.USER_ERROR, EVIL, EVIL, retry=False)
    _, html, _ = page(site, job.id)
    assert "<script" not in html and "\u202e" not in html and html.count("&lt;script&gt;") >= 4


def test_who_may_not_see_a_run_sees_no_page_of_it(site: Site) -> None:
    job = claimed(site, "hidden")
    site.client("admin").create_adapter(CreateAdapter(name="team/bot", base=BASE))
    site.add_token("team", Role.TRAINER, "team person", scope="team")
    assert page(site, job.id, "team")[0] == page(site, "0" * 32, "team")[0] == 404
    assert page(site, job.id, "consumer")[0] == page(site, job.id, "reviewer")[0] == 403
    assert site.http("GET", f"/trainings/{job.id}", None).text.count(job.id) == 0
    site.client("trainer").cancel_training(job.id)


@given(st.lists(st.tuples(st.integers(0, 10**9), st.none() | st.floats()), max_size=30, unique_by=lambda one: one[0]))
def test_every_point_of_a_curve_is_inside_its_picture(points: list[tuple[int, float | None]]) -> None:
    drawn = line_chart("loss", sorted(points))
    known = [value for _, value in points if value is not None and abs(value) < float("inf")]
    assert (drawn is None) == (len(known) < 2)
    for line in re.findall(r'points="([^"]+)"', drawn or ""):
        pairs = [tuple(map(float, pair.split(","))) for pair in line.split()]
        assert len(pairs) == len(known)
        assert all(0 <= x <= 640 and 0 <= y <= 180 for x, y in pairs)


def test_a_falling_loss_is_drawn_falling() -> None:
    drawn = str(line_chart("loss", [(1, 4.0), (2, 2.0), (3, 1.0)]))
    heights = [float(pair.split(",")[1]) for pair in re.findall(r'points="([^"]+)"', drawn)[0].split()]
    assert heights == sorted(heights) and len(set(heights)) == 3, "y grows downwards"


def test_an_end_is_expected_only_of_a_run_that_goes_on() -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    at = StepProgress(step=1, steps=2, seconds_left=3600.0)
    run = TrainingInfo(
        id="x",
        status=TrainingStatus.RUNNING,
        adapter="a",
        base=BASE.digest,
        recipe="r",
        dataset=BASE.digest,
        replay=None,
        notes=None,
        submitter="p",
        created_at="",
        started_at=None,
        finished_at=None,
        worker=None,
        attempts=1,
        error=None,
        version=None,
        progress=at,
    )
    assert expected_end(run, now) == "2026-01-01 01:00"
    assert expected_end(msgspec.structs.replace(run, status=TrainingStatus.PAUSED), now) is None
    assert expected_end(msgspec.structs.replace(run, progress=None), now) is None
