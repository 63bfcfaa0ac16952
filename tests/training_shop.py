"""A worker's place under test: a registry, a base, and for each test an adapter of its own with runs to be done.

`base`, `shop` and `site` are fixtures; a test module imports them.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from factories import make_weights
from site_under_test import SMALL_REVIEW, Site, running

from registry.client import describe_base
from registry.records import Base, CreateAdapter, CreateTraining, TrainingInfo, TrainingJob, TrainingStatus
from registry.settings import Home
from registry.transfer import Training, push
from trainer.launchers import LocalLauncher
from trainer.worker import Reporter, Result, Workplace, do_run

FAKE = (sys.executable, str(Path(__file__).parent / "trainer_under_test.py"))
SILENT = Reporter(lambda _: None, lambda *_: None)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with running(Home(tmp_path_factory.mktemp("worker") / "home")) as found:
        found.publish_suites()
        yield found


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bases") / "b"
    folder.mkdir()
    for name, data in {"config.json": b"{}", "tokenizer.json": b"{}", "model.safetensors": make_weights()}.items():
        (folder / name).write_bytes(data)
    return folder


class Shop:
    """One adapter of its own for each test, and a worker's place."""

    def __init__(self, site: Site, base: Path, runs: Path, adapter: str) -> None:
        self.site, self.adapter, self.client = site, adapter, site.client("trainer")
        self.place = Workplace(runs, [base.parent], LocalLauncher(), self.publish, FAKE)
        described = Base(id="b", digest=describe_base(base).digest)
        site.client("admin").create_adapter(CreateAdapter(name=adapter, base=described, policy=SMALL_REVIEW))

    def publish(self, result: Result) -> str:
        training = Training(result.record, result.dataset, result.ledger)
        return push(self.client, result.directory, result.adapter, training=training)[0].ref

    def submit(self, name: str, more: str = "", data: bytes = b"{}") -> TrainingInfo:
        recipe = f'name = "{name}"\nbase = "b"\ndata = "d.jsonl"\n{more}'
        dataset = "sha256:" + self.client.upload(data).sha256
        return self.client.submit_training(CreateTraining(adapter=self.adapter, recipe=recipe, dataset=dataset))

    def claim(self) -> TrainingJob:
        job = self.client.claim_training("w")
        assert job is not None
        return job

    def done(self, name: str, more: str = "", data: bytes = b"{}") -> TrainingInfo:
        """A run of this name, claimed and done."""
        run = self.submit(name, more, data)
        do_run(self.client, self.place, self.claim(), SILENT)
        return self.client.training(run.id)


@pytest.fixture
def shop(site: Site, base: Path, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Shop]:
    found = Shop(site, base, tmp_path / "runs", f"bot-{abs(hash(request.node.name)) % 10**9}")
    yield found
    for status in ("queued", "running", "paused"):
        for run in found.client.trainings(status=status):
            found.client.cancel_training(run.id)


def fault(run: TrainingInfo) -> tuple[str, str]:
    assert run.status is TrainingStatus.FAILED and run.error is not None, run
    return run.error.kind, run.error.code
