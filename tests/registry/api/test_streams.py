"""Streams of events: each person and everyone together have so many, and a place is free again when one ends."""

import contextlib
import gc
import time
from collections.abc import Iterator

import httpx
import pytest
from site_under_test import Site

from registry.api import streams
from registry.api.streams import Streams
from registry.client import Refused
from registry.errors import TooManyRequests
from registry.names import sha256_hex
from registry.records import CreateTraining, TrainingJob

DATA = b'{"instruction": "q", "output": "a"}\n'


@pytest.fixture
def run(site: Site) -> TrainingJob:
    site.create_adapter("support-bot")
    client = site.client("trainer")
    client.upload(DATA)
    recipe = 'name = "r"\nbase = "b"\ndata = "rows.jsonl"\n'
    client.submit_training(CreateTraining(adapter="support-bot", recipe=recipe, dataset=f"sha256:{sha256_hex(DATA)}"))
    job = client.claim_training("w")
    assert job is not None
    return job


@contextlib.contextmanager
def opened(site: Site, run: TrainingJob, role: str) -> Iterator[httpx.Response]:
    headers = {"Authorization": f"Bearer {site.tokens[role]}", "Accept": "text/event-stream"}
    url = f"{site.url}/v1/trainings/{run.id}/events"
    with httpx.Client(timeout=20) as client, client.stream("GET", url, headers=headers) as response:
        yield response


def has_room(site: Site, run: TrainingJob, role: str) -> bool:
    """A connection that a client closed is noticed when something is sent to it: a little later."""
    for _ in range(300):
        with opened(site, run, role) as response:
            if response.status_code == 200:
                return True
        site.client("trainer").post_progress(run)
        time.sleep(0.05)
    return False


def test_one_person_cannot_hold_them_all_and_a_place_is_given_back(
    site: Site, run: TrainingJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "MOST_OF_ONE", 2)
    with opened(site, run, "trainer") as first, opened(site, run, "trainer") as second:
        assert (first.status_code, second.status_code) == (200, 200)
        with opened(site, run, "trainer") as third:
            problem = httpx.Response(third.status_code, content=third.read(), headers=third.headers)
            assert problem.status_code == 429 and int(problem.headers["Retry-After"]) >= 1
            assert problem.json()["code"] == "too_many_requests" and "2 streams" in problem.json()["detail"]
        with opened(site, run, "admin") as other:
            assert other.status_code == 200
        page = site.http("GET", f"/v1/trainings/{run.id}/events", "trainer")
        assert page.status_code == 200, "pages are not counted"
    assert has_room(site, run, "trainer")


def test_everyone_together_cannot_hold_more_than_are_served(
    site: Site, run: TrainingJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "MOST", 2)
    with opened(site, run, "trainer"), opened(site, run, "admin"), opened(site, run, "auditor") as third:
        assert third.status_code == 429
    assert has_room(site, run, "auditor")


def test_a_stream_that_ends_by_itself_gives_its_place_back(
    site: Site, run: TrainingJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "MOST_OF_ONE", 1)
    site.client("trainer").cancel_training(run.id)
    for _ in range(4):
        assert list(site.client("trainer").follow_training(run.id))
    with pytest.raises(Refused):
        list(site.client("trainer").follow_training("no-such-run"))
    assert list(site.client("trainer").follow_training(run.id))


def test_a_follower_waits_for_a_place_and_gives_up_in_the_end(
    site: Site, run: TrainingJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "MOST_OF_ONE", 0)
    slept: list[float] = []
    monkeypatch.setattr("registry.client.jobs.time.sleep", lambda seconds: slept.append(seconds))
    with pytest.raises(Refused) as refused:
        list(site.client("trainer").follow_training(run.id))
    assert refused.value.status == 429 and len(slept) >= 2


def test_places_are_counted_by_person_and_forgotten_with_the_last() -> None:
    one = Streams()
    with contextlib.ExitStack() as stack:
        for _ in range(streams.MOST_OF_ONE):
            stack.enter_context(one.held("ada"))
        with pytest.raises(TooManyRequests, match="'ada' has 20"), one.held("ada"):
            pass
        for number in range(streams.MOST - streams.MOST_OF_ONE):
            stack.enter_context(one.held(f"p{number}"))
        with pytest.raises(TooManyRequests, match="200 streams"), one.held("bob"):
            pass
    with one.held("ada"):
        gc.collect()
    assert not one._open
