"""The worker: whatever becomes of a trainer, the run ends with a reason, and nothing that can go on is lost."""

import contextlib
import errno
import os
import shutil
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from training_shop import SILENT, Shop, base, fault, shop, site

from registry.client import Client, InvalidRequest, Refused, Unreachable
from registry.records import TrainingStatus
from trainer.faults import Busy, Diverged, fault_of, fault_of_exit
from trainer.launchers import LocalLauncher, Stage, Task
from trainer.worker import Result, do_run, work
from trainer.workspace import Order, Workspace, read_whole

__all__ = ["base", "shop", "site"]  # fixtures
_PATIENCE_SECONDS = 60.0


def until(reached: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while not reached():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_run_becomes_a_version_and_all_that_was_told_of_it_is_kept(shop: Shop) -> None:
    run = shop.done("fast")
    assert run.status is TrainingStatus.SUCCEEDED and run.version == f"{shop.adapter}/1"
    version = shop.client.version(run.version)
    assert version.training is not None and version.training.run == run.id
    assert [one.step for one in shop.client.training_metrics(run.id)] == [1, 2, 3, 4, 5]
    assert shop.client.training_log(run.id) == "fast trains\n"
    assert not (shop.place.runs / run.id).exists()


def test_a_run_whose_version_was_pushed_before_the_worker_died_finishes_as_that_version(shop: Shop) -> None:
    run = shop.submit("fast")
    lost: list[str] = []

    def publish(result: Result) -> str:
        lost.append(shop.publish(result))
        raise KeyboardInterrupt  # the worker ends between the push and the word of it

    with pytest.raises(KeyboardInterrupt):
        do_run(shop.client, shop.place._replace(publish=publish), shop.claim(), SILENT)
    assert shop.client.training(run.id).status is TrainingStatus.QUEUED
    shutil.rmtree(shop.place.runs)
    do_run(shop.client, shop.place, shop.claim(), SILENT)
    assert shop.client.training(run.id).version == lost[0] == f"{shop.adapter}/1"


@pytest.mark.parametrize(
    ("name", "kind", "code", "said"),
    [
        ("killed", "system_error", "killed", "signal 9"),
        ("crashes", "system_error", "crashed", "something is wrong: é"),
        ("diverges", "user_error", "diverged", "the loss is nan"),
        ("unservable", "user_error", "version_refused", "refuses the adapter"),
    ],
)
def test_what_went_wrong_with_a_trainer_is_told(shop: Shop, name: str, kind: str, code: str, said: str) -> None:
    run = shop.done(name)
    assert fault(run) == (kind, code) and run.error is not None and said in run.error.message
    assert (shop.place.runs / run.id).is_dir(), "what can be continued is kept"


def test_a_recipe_that_does_not_fit_is_the_users_to_mend(shop: Shop) -> None:
    run = shop.done("fast", "[lora]\nrank = 0\n")
    assert fault(run) == ("user_error", "recipe_invalid") and run.error is not None and "rank" in run.error.message


def test_data_that_cannot_be_trained_on_are_the_users_to_mend(shop: Shop) -> None:
    """The real trainer, which reads the data before it loads anything."""
    shop.place = shop.place._replace(trainer=(sys.executable, "-m", "trainer.child"))
    run = shop.done("fast", data=b'{"instruction": 5}\n')
    assert fault(run) == ("user_error", "input_invalid") and run.error is not None and "line 1" in run.error.message


def test_a_missing_base_is_named_and_the_run_goes_on_once_it_is_there(shop: Shop, tmp_path: Path) -> None:
    there = shop.place
    shop.place = there._replace(bases=[tmp_path / "empty"])
    run = shop.done("fast")
    assert fault(run) == ("system_error", "base_missing") and run.error is not None
    assert shop.client.resume_training(run.id).status is TrainingStatus.QUEUED
    do_run(shop.client, there, shop.claim(), SILENT)
    assert shop.client.training(run.id).status is TrainingStatus.SUCCEEDED


def test_what_no_launcher_starts_is_told(shop: Shop) -> None:
    shop.place = shop.place._replace(trainer=("/no/such/trainer",))
    assert fault(shop.done("fast")) == ("system_error", "cannot_launch")


@pytest.mark.parametrize("action", ["pause", "cancel"])
def test_a_run_is_stopped_where_it_is_and_resumed_from_there(shop: Shop, action: str) -> None:
    run = shop.submit("slow")
    worker = threading.Thread(target=do_run, args=(shop.client, shop.place, shop.claim(), SILENT))
    worker.start()
    until(lambda: (shop.client.training(run.id).progress or None) is not None)
    stop = shop.client.pause_training if action == "pause" else shop.client.cancel_training
    stop(run.id)
    worker.join(timeout=_PATIENCE_SECONDS)
    assert not worker.is_alive()
    at = shop.client.training(run.id)
    assert at.status == {"pause": "paused", "cancel": "cancelled"}[action]
    kept = shop.place.runs / run.id / "checkpoint"
    assert kept.exists() == (action == "pause"), "a pause waits for the step's checkpoint, a cancellation for nothing"
    saved = [one.step for one in shop.client.training_checkpoints(run.id)]
    assert saved == ([int(kept.read_text())] if action == "pause" else []), "told while it is paused"
    shop.client.resume_training(run.id)
    worker = threading.Thread(target=do_run, args=(shop.client, shop.place, shop.claim(), SILENT))
    worker.start()
    until(lambda: shop.client.training(run.id).attempts == 1)
    steps_then = [one.data.step for one in shop.client.training_events(run.id) if one.data]
    until(lambda: len([one for one in shop.client.training_events(run.id) if one.data]) > len(steps_then) + 3)
    order = read_whole(Workspace(shop.place.runs / run.id).order, Order)
    assert order is not None and list(order.saved) == saved, "the next attempt knows what was told"
    shop.client.cancel_training(run.id)
    worker.join(timeout=_PATIENCE_SECONDS)
    if action == "pause":
        told = [one.data.step for one in shop.client.training_events(run.id) if one.data]
        assert int(kept.read_text()) + 1 in told, "it went on behind its checkpoint"


def test_a_worker_that_is_stopped_gives_its_run_back_with_a_checkpoint(shop: Shop) -> None:
    run = shop.submit("slow")
    job, stages = shop.claim(), 0

    class Interrupting:
        """As Ctrl-C in the middle of the watch."""

        def __init__(self) -> None:
            self._inner = LocalLauncher()

        def start(self, task: Task) -> None:
            self._inner.start(task)

        def stop(self, task: Task) -> None:
            self._inner.stop(task)

        def stage(self, task: Task) -> Stage:
            nonlocal stages
            stages += 1
            if stages == 5:
                until(lambda: shop.client.training(run.id).progress is not None or task.log.stat().st_size > 0)
                raise KeyboardInterrupt
            return self._inner.stage(task)

    with pytest.raises(KeyboardInterrupt):
        do_run(shop.client, shop.place._replace(launcher=Interrupting()), job, SILENT)
    given_back = shop.client.training(run.id)
    assert (given_back.status, given_back.worker) == (TrainingStatus.QUEUED, None)
    kept = int((shop.place.runs / run.id / "checkpoint").read_text())
    assert [one.step for one in shop.client.training_checkpoints(run.id)] == [kept]


def test_a_worker_does_what_is_queued_one_after_another(shop: Shop) -> None:
    runs = [shop.submit("fast"), shop.submit("killed")]
    assert work(shop.client, shop.place, SILENT, once=True) == 2
    statuses = [shop.client.training(one.id).status for one in runs]
    assert statuses == [TrainingStatus.SUCCEEDED, TrainingStatus.FAILED]


def test_a_registry_that_is_away_for_a_while_stops_no_trainer(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    tries = 0
    post = Client.post_progress

    def sometimes(client: Client, *given: object, **named: object) -> object:
        nonlocal tries
        tries += 1
        if tries % 3:
            raise Unreachable("no answer")
        return post(client, *given, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(Client, "post_progress", sometimes)
    run = shop.done("fast")
    assert run.status is TrainingStatus.SUCCEEDED and tries > 3


# -- faults --------------------------------------------------------------------------------------------------------


def _full_disk() -> OSError:
    try:
        with open("/dev/full", "w") as file:
            file.write("x")
    except OSError as error:
        return error
    raise AssertionError("/dev/full takes everything")


class OutOfMemoryError(RuntimeError):
    """As torch names its own."""


@pytest.mark.parametrize(
    ("error", "kind", "code", "retry"),
    [
        (InvalidRequest("no"), "user_error", "input_invalid", False),
        (Diverged("nan"), "user_error", "diverged", False),
        (Busy("b"), "system_error", "busy", True),
        (_full_disk(), "system_error", "out_of_disk", False),
        (OSError(errno.EDQUOT, "quota"), "system_error", "out_of_disk", False),
        (RuntimeError("I/O error: No space left on device (os error 28)"), "system_error", "out_of_disk", False),
        (MemoryError(), "system_error", "out_of_memory", False),
        (OutOfMemoryError("CUDA"), "system_error", "out_of_memory", False),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), "system_error", "out_of_memory", False),
        (KeyError("x"), "system_error", "crashed", False),
    ],
)
def test_each_error_has_a_code_and_someone_who_can_mend_it(error: Exception, kind: str, code: str, retry: bool) -> None:
    found = fault_of(error, "input_invalid")
    assert (found.error.kind, found.error.code, found.retry) == (kind, code, retry) and found.error.message


def test_an_end_without_a_word_is_told_by_its_exit() -> None:
    assert fault_of_exit(-9, "signal 9", "").error.code == fault_of_exit(137, "", "").error.code == "killed"
    assert fault_of_exit(74, "exit code 74", "").error.code == "out_of_disk"
    found = fault_of_exit(3, "exit code 3", "boom").error
    assert found.code == "crashed" and "exit code 3" in found.message and "boom" in found.message
    assert len(fault_of_exit(1, "x", "y" * 9000).error.message) <= 4000


def test_a_worker_whose_token_is_refused_in_the_middle_leaves_no_trainer_behind(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = shop.submit("slow")
    pids: list[int] = []
    post = Client.post_progress

    def refused(client: Client, *given: object, **named: object) -> object:
        log = shop.place.runs / run.id / "log-1.txt"
        if not log.exists() or not log.read_bytes():
            return post(client, *given, **named)  # type: ignore[arg-type]
        pids.extend(children())
        raise Refused("expired", status=401, code="unauthenticated", problems=[], report=None)

    monkeypatch.setattr(Client, "post_progress", refused)
    with pytest.raises(Refused, match="expired"):
        do_run(shop.client, shop.place, shop.claim(), SILENT)
    assert pids and not set(pids) & set(children())


def children() -> list[int]:
    """The trainers that this process has started and that live."""
    found = []
    for folder in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError):
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            if parent == os.getpid() and b"trainer_under_test" in (folder / "cmdline").read_bytes():
                found.append(int(folder.name))
    return found
