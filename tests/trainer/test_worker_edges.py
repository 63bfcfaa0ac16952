"""The worker where the registry, the recipe or the machine misbehaves: no run is lost, and no run ends its worker."""

import re
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import httpx
import pytest
from factories import make_weights
from training_shop import SILENT, Shop, base, fault, shop, site

from registry.client import Client, Refused, describe_base
from registry.records import CreateTraining, TrainingStatus
from registry.storage.progress import ProgressFiles
from trainer import worker
from trainer.faults import SystemCode, UserCode
from trainer.shelf import digests_of, find_base
from trainer.worker import Reporter, _Tail, do_run, work

__all__ = ["base", "shop", "site"]  # fixtures
REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "_FIRST_PAUSE", 0.01)


def refusal(status: int) -> Refused:
    return Refused("not now", status=status, code="unavailable", problems=[], report=None)


def refusing(monkeypatch: pytest.MonkeyPatch, name: str, status: int, times: int) -> Callable[[], int]:
    """A client's call that is refused a few times before it is done; how often it was tried."""
    tries, call = 0, getattr(Client, name)

    def sometimes(client: Client, *given: object, **named: object) -> object:
        nonlocal tries
        tries += 1
        if tries <= times:
            raise refusal(status)
        return call(client, *given, **named)

    monkeypatch.setattr(Client, name, sometimes)
    return lambda: tries


@pytest.mark.parametrize("status", [429, 503, 507])
def test_what_was_told_while_the_registry_refused_for_now_is_told_later(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    tries = refusing(monkeypatch, "post_progress", status, times=3)
    run = shop.done("fast")
    assert run.status is TrainingStatus.SUCCEEDED and tries() > 3
    said = [one.message for one in shop.client.training_events(run.id) if one.type == "message"]
    assert said[0].endswith("prepares the run") and said[-1] == "pushing the adapter"
    assert [one.step for one in shop.client.training_metrics(run.id)] == [1, 2, 3, 4, 5]
    assert shop.client.training_log(run.id) == "fast trains\n"


@pytest.mark.parametrize(
    ("call", "name", "status"),
    [("finish_training", "fast", TrainingStatus.SUCCEEDED), ("fail_training", "crashes", TrainingStatus.FAILED)],
)
def test_how_a_run_ended_is_told_until_the_registry_takes_it(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, call: str, name: str, status: TrainingStatus
) -> None:
    tries = refusing(monkeypatch, call, 503, times=3)
    assert shop.done(name).status is status and tries() == 4


def test_a_registry_that_never_takes_the_end_is_given_up_and_the_work_is_kept(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "_MOST_TRIES", 3)
    tries = refusing(monkeypatch, "finish_training", 507, times=10**6)
    run = shop.done("fast")
    assert run.status is TrainingStatus.RUNNING and tries() == 3
    assert (shop.place.runs / run.id / "result").is_dir()


def test_a_lease_that_lapsed_is_not_insisted_on(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker.Hold, "lapsed", True)
    tries = refusing(monkeypatch, "fail_training", 503, times=10**6)
    shop.done("crashes")
    assert tries() == 1


def test_a_name_that_no_file_can_have_is_no_matter(shop: Shop) -> None:
    recipe = 'name = "fast"\nbase = "b"\ndata = "d.\\u0000"\n'
    digest = "sha256:" + shop.client.upload(b"{}").sha256
    request = CreateTraining(adapter=shop.adapter, recipe=recipe, dataset=digest)
    run = shop.client.submit_training(request)
    do_run(shop.client, shop.place, shop.claim(), SILENT)
    assert shop.client.training(run.id).status is TrainingStatus.SUCCEEDED


def test_a_run_that_the_worker_cannot_handle_fails_and_the_worker_goes_on(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(result: object) -> str:
        raise ValueError("embedded null byte")

    shop.place = shop.place._replace(publish=broken)
    runs = [shop.submit("fast"), shop.submit("killed")]
    assert work(shop.client, shop.place, SILENT, once=True) == 2
    first, second = (shop.client.training(one.id) for one in runs)
    assert fault(first) == ("system_error", "crashed") and first.error and "embedded null byte" in first.error.message
    assert fault(second) == ("system_error", "killed")


# -- bases ---------------------------------------------------------------------------------------------------------


def make_base(folder: Path, fill: int) -> Path:
    folder.mkdir(parents=True)
    for name, data in {
        "config.json": b"{}",
        "tokenizer.json": b"{}",
        "model.safetensors": make_weights(fill=fill),
    }.items():
        (folder / name).write_bytes(data)
    return folder


def test_a_run_whose_base_is_not_here_waits_for_a_worker_that_has_it(shop: Shop, base: Path, tmp_path: Path) -> None:
    bases, said = tmp_path / "bases", list[str]()
    make_base(bases / "another", 77)
    there = shop.place._replace(bases=[bases])
    run = shop.submit("fast")
    assert work(shop.client, there, SILENT, once=True) == 0
    assert work(shop.client, there._replace(bases=[]), Reporter(said.append, lambda *_: None), once=True) == 0
    assert said and "no base model" in said[0]
    assert shop.client.training(run.id).status is TrainingStatus.QUEUED
    shutil.copytree(base, bases / "b")
    assert work(shop.client, there, SILENT, once=True) == 1
    assert shop.client.training(run.id).status is TrainingStatus.SUCCEEDED


def test_the_bases_that_are_here_are_known_by_what_they_are_now(tmp_path: Path) -> None:
    one = make_base(tmp_path / "one", 1)
    shutil.copytree(one, tmp_path / "same")
    (tmp_path / "none").mkdir()
    before = describe_base(one).digest
    assert digests_of([tmp_path, one, tmp_path / "away"]) == [before]
    (one / "config.json").write_bytes(b'{"a": 1}')
    assert digests_of([tmp_path]) == [describe_base(one).digest, before] and describe_base(one).digest != before


# -- following and codes -------------------------------------------------------------------------------------------


def test_a_stream_that_brings_nothing_is_opened_again_after_a_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    event = b'id: 1-0\ndata: {"id":"1-0","at":"2026-01-01T00:00:00Z","level":"info","type":"status","message":"m"}\n\n'
    streams, pauses = [b"", b": alive\n\n", event, b"event: end\n\n"], list[float]()
    client = Client("http://registry.test", "t")
    left = iter(streams)
    client._http = httpx.Client(
        base_url="http://registry.test",
        transport=httpx.MockTransport(lambda _: httpx.Response(200, content=next(left))),
    )
    monkeypatch.setattr(time, "sleep", pauses.append)
    assert [one.id for one in client.follow_training("x")] == ["1-0"]
    assert len(pauses) == 2 and all(pauses), "one for each that brought nothing, none for the one that did"


def test_the_page_names_every_code_and_whose_matter_it_is() -> None:
    page = (REPOSITORY / "docs" / "training.md").read_text()
    rows = re.findall(r"^\| (user|system) \| (`[^|]*) \|", page, re.MULTILINE)
    named = {
        kind: {code for of, codes in rows if of == kind for code in re.findall(r"`(\w+)`", codes)} for kind, _ in rows
    }
    # The registry itself fails a run by one code: that nobody is left to tell why.
    assert named == {"user": set(get_args(UserCode)), "system": {*get_args(SystemCode), "worker_lost"}}


def test_a_log_with_broken_characters_is_told_whole_and_in_its_places(tmp_path: Path) -> None:
    """Each byte that is no character becomes one of three bytes: places count what was told, not the file."""
    printed = [b"ab\xff\xfe", b"cd \xc3", b"\xa9 ef\n", b"\xe2\x82", b"\xac end\xf0\x9f", b"\n"]
    log, files, at = tmp_path / "log", ProgressFiles(tmp_path), 0
    tail = _Tail(log)
    for piece in printed:
        with log.open("ab") as file:
            file.write(piece)
        start, text = tail.read(32_768)
        assert start == at
        at += len(text.encode())
        files.append_log("run", 1, text, start)
        files.append_log("run", 1, text, start)  # as when the answer was lost
    assert files.log("run") == "ab\ufffd\ufffdcd é ef\n€ end\ufffd\n"


def test_a_base_is_found_for_a_trainer_that_works_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bases").mkdir()
    base = make_base(tmp_path / "bases" / "one", 1)
    monkeypatch.chdir(tmp_path)
    assert find_base([Path("bases")], describe_base(base).digest, "one") == base
