"""Runs through the registry with the real trainer: killed, paused and resumed, they end in the same bytes."""

import os
import random
import resource
import signal
import subprocess
from collections.abc import Iterator

import pytest
from runs_under_test import OVER, RECIPE, Lab, finish, kill, trainers
from site_under_test import running
from tiny_base import build_tiny_base

from registry.records import State, TrainingStatus
from registry.settings import Home

pytestmark = [pytest.mark.stack, pytest.mark.slow, pytest.mark.timeout(1800)]
# Of 40 rows, 8 are for validation and test; 4 in a batch, 20 epochs.
STEPS = 160
LONG = RECIPE.replace("epochs = 3.0", "epochs = 20.0").replace("checkpoint_steps = 3", "checkpoint_steps = 10")
Process = subprocess.Popen[bytes]


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    root = tmp_path_factory.mktemp("runs")
    build_tiny_base(root / "bases" / "tiny")
    with running(Home(root / "registry"), lease_seconds=3.0) as site:
        yield Lab(site, root / "bases", root / "worker")


@pytest.fixture
def started() -> Iterator[list[Process]]:
    processes: list[Process] = []
    yield processes
    finish(processes)


def test_a_run_becomes_a_version_that_tells_of_it(lab: Lab, started: list[Process]) -> None:
    run = lab.submit()
    started.append(lab.worker())
    done = lab.wait_for(run, *OVER)
    assert done.status is TrainingStatus.SUCCEEDED, (done.error, lab.said())
    version = lab.admin.version(str(done.version))
    assert version.state is State.SUBMITTED and version.training is not None
    assert version.training.run == run.id and version.training.recipe == RECIPE
    metrics = lab.client.training_metrics(run.id)
    assert [one.step for one in metrics] == list(range(1, metrics[-1].steps + 1))
    assert metrics[0].loss and metrics[-1].loss and metrics[-1].loss < metrics[0].loss
    assert metrics[0].learning_rate is not None and metrics[-1].memory_bytes and metrics[-1].tokens_per_second
    assert started[0].wait(timeout=60) == 0
    assert not list(lab.home.runs.iterdir()), "everything of it is in the registry"


def test_the_events_of_a_run_tell_its_story_in_order(lab: Lab) -> None:
    run = lab.submit()  # the same submission: the run that is over
    assert run.status is TrainingStatus.SUCCEEDED
    events = list(lab.client.follow_training(run.id))
    assert events == list(lab.client.training_events(run.id))
    said = [one.message for one in events if one.type != "metrics"]
    assert said[0].startswith("submitted by") and said[1].startswith("claimed by")
    assert any(one.startswith("training on") for one in said) and said[-1].startswith("finished as version")
    assert list(lab.client.follow_training(run.id, after=events[5].id)) == events[6:]


@pytest.fixture(scope="module")
def whole(lab: Lab) -> str:
    """The weights of the long run when nothing interrupts it."""
    run = lab.submit(LONG)
    worker = lab.worker()
    try:
        return lab.weights(lab.wait_for(run, *OVER))
    finally:
        finish([worker])


def steps_told(lab: Lab, run: str) -> list[int]:
    """Every step of training that any attempt told of, in order."""
    told = [one.data for one in lab.client.training_events(run) if one.data is not None]
    return [one.step for one in told if one.loss is not None and not one.checkpoint]


def saved_steps(lab: Lab, run: str) -> list[int]:
    """Every checkpoint that any attempt told of, in order."""
    return [one.data.step for one in lab.client.training_events(run) if one.data is not None and one.data.checkpoint]


def test_killed_at_random_steps_it_ends_in_the_same_bytes(lab: Lab, whole: str, started: list[Process]) -> None:
    """The worker with its trainer, twice; then the trainer alone, which a worker tells as a failure."""
    lab.create_adapter("killed-bot")
    run = lab.submit(LONG, adapter="killed-bot")
    first, second, third = sorted(random.sample(range(5, STEPS - 30), 3))
    for step in (first, second):
        started.append(lab.worker(once=False))  # waits for the lease of the one before
        lab.wait_for_step(run, step)
        kill(started[-1])
        lab.wait(run, lambda _: not trainers(run.id))
        assert lab.client.training(run.id).status is TrainingStatus.RUNNING, "nobody has told the registry"
    started.append(lab.worker(once=False))
    lab.wait_for_step(run, third)
    for process in trainers(run.id):
        os.kill(process, signal.SIGKILL)
    failed = lab.wait_for(run, *OVER)
    assert failed.error is not None and (failed.error.kind, failed.error.code) == ("system_error", "killed")
    assert failed.attempts == 3 and (lab.home.runs / run.id).is_dir()
    lab.client.resume_training(run.id)
    done = lab.wait_for(run, *OVER)
    assert done.status is TrainingStatus.SUCCEEDED, done.error
    assert lab.weights(done) == whole, (first, second, third)
    told = steps_told(lab, run.id)
    assert len(told) < STEPS + 60, "each attempt went on from a checkpoint"
    assert set(saved_steps(lab, run.id)) == set(range(10, STEPS, 10)), "none was lost by a kill"


def test_a_pause_keeps_the_step_it_was_in(lab: Lab, whole: str, started: list[Process]) -> None:
    lab.create_adapter("paused-bot")
    run = lab.submit(LONG, adapter="paused-bot")
    started.append(lab.worker(once=False))
    lab.wait_for_step(run, 15)
    assert lab.client.pause_training(run.id).status is TrainingStatus.PAUSED
    lab.wait(run, lambda _: not trainers(run.id))
    (checkpoints,) = (lab.home.runs / run.id).glob("tiny-*/checkpoints")
    kept = max(int(one.name.partition("-")[2]) for one in checkpoints.glob("checkpoint-*"))
    assert kept >= 15 and lab.client.training(run.id).status is TrainingStatus.PAUSED
    lab.wait(run, lambda _: kept in saved_steps(lab, run.id))
    lab.client.resume_training(run.id)
    done = lab.wait_for(run, *OVER)
    assert done.status is TrainingStatus.SUCCEEDED and lab.weights(done) == whole
    told = steps_told(lab, run.id)
    assert told == list(range(1, STEPS + 1)), "its last step was told too"
    assert saved_steps(lab, run.id).count(kept) == 1


def test_a_full_disk_leaves_a_run_that_goes_on_once_there_is_room(lab: Lab, whole: str, started: list[Process]) -> None:
    """No file of the trainer may grow beyond a kilobyte from some step on, which is what a full disk does to it."""
    lab.create_adapter("full-bot")
    run = lab.submit(LONG, adapter="full-bot")
    started.append(lab.worker(once=False))
    lab.wait_for_step(run, 15)
    for process in trainers(run.id):
        resource.prlimit(process, resource.RLIMIT_FSIZE, (1000, 1000))
    failed = lab.wait_for(run, *OVER)
    assert failed.error is not None and (failed.error.kind, failed.error.code) == ("system_error", "out_of_disk")
    lab.client.resume_training(run.id)
    done = lab.wait_for(run, *OVER)
    assert done.status is TrainingStatus.SUCCEEDED and lab.weights(done) == whole
    told = steps_told(lab, run.id)
    assert told.count(1) == 1, "it went on from a checkpoint"
