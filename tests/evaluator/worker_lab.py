"""A registry, an adapter for a base on disk, and fake engines: everything that a worker meets."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from factories import BASE_TENSORS, entry_of, make_adapter, make_training, make_weights
from fake_engine import FakeEngine, Faults, Knows
from site_under_test import DATASET, LEDGER, SMALL_REVIEW, Site

from evaluator.desk import Desk, Workplace
from evaluator.engine import Engine
from evaluator.vllm_process import EngineSettings
from evaluator.worker import Reporter, do_jobs
from registry.client import describe_base
from registry.records import (
    Base,
    Check,
    CreateAdapter,
    Evidence,
    ItemRow,
    Job,
    Policy,
    RegisterSuite,
    State,
    SubmitVersion,
)
from registry.storage.views import StoredJob

Shapes = dict[str, list[int]]
SILENT = Reporter(lambda text: None, lambda done, total, numbers: None)


class Launches:
    """Engines that a test makes; how often one was prepared, and was dropped again."""

    def __init__(self, start: Callable[[EngineSettings], Engine]) -> None:
        self._start, self.prepared = start, 0

    def check(self) -> None:
        """They can be made at any time."""

    def prepare(self, log: Path) -> None:
        self.prepared += 1

    def start(self, settings: EngineSettings, log: Path) -> Engine:
        self.prepared = 0
        return self._start(settings)

    def close(self) -> None:
        self.prepared = 0


def believe_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    """A registry that does not look through the numbers itself, as older ones did not."""
    monkeypatch.setattr("registry.commands.versions.check_weights", lambda *_: iter(()))


class Lab:
    """A site with an adapter for a base on disk, and engines that are started as told."""

    def __init__(self, site: Site, folder: Path) -> None:
        self.site = site
        self.place = Workplace(folder / "cache", [folder / "bases"])
        self.engines: list[FakeEngine] = []
        self.started: list[EngineSettings] = []
        self.knows: Knows = knows
        self.kind_of_engine: type[FakeEngine] = FakeEngine
        self.said: list[str] = []
        self.base = folder / "bases" / "fake"
        self.base.mkdir(parents=True)
        weights = make_weights(BASE_TENSORS)
        for name, data in {"config.json": b"{}", "tokenizer.json": b"{}", "model.safetensors": weights}.items():
            (self.base / name).write_bytes(data)
        site.publish_suites()
        self.create("support-bot")

    def create(self, adapter: str, policy: Policy = SMALL_REVIEW, tensors: Shapes | None = BASE_TENSORS) -> None:
        """An adapter for the base; `tensors` is what the registry is told of the base."""
        base = Base(id="fake", digest=describe_base(self.base).digest)
        self.site.client("admin").create_adapter(CreateAdapter(adapter, base, policy=policy, base_tensors=tensors))

    def register(self, name: str, kind: str, items: Sequence[dict[str, Any]], **head: float) -> str:
        """A suite of these items; its pinned name."""
        client, described = self.site.client("admin"), {"title": "t", "description": "d", "licence": "l", "source": "s"}
        lines = [f'name = "{name}"', f'kind = "{kind}"', *(f'{key} = "{value}"' for key, value in described.items())]
        lines += [f"{key} = {value}" for key, value in head.items()]
        files = {
            "suite.toml": "\n".join(lines).encode(),
            "items.jsonl": "\n".join(map(json.dumps, items)).encode(),
        }
        for data in files.values():
            client.upload(data)
        entries = [entry_of(path, data) for path, data in files.items()]
        return client.register_suite(RegisterSuite(name=name, files=entries)).ref

    def submit(
        self,
        fill: int = 1,
        dataset: bytes = DATASET,
        adapter: str = "support-bot",
        files: dict[str, bytes] | None = None,
    ) -> str:
        """A version, completed; another `fill` is another adapter."""
        client, files = self.site.client("ci"), files or make_adapter(fill=fill)
        base = Base(id="fake", digest=describe_base(self.base).digest)
        request = SubmitVersion(
            files=[entry_of(path, data) for path, data in files.items()],
            training=make_training(base=base, dataset=dataset, ledger=LEDGER),
        )
        created = client.submit(adapter, request)
        for data in (*files.values(), dataset, LEDGER):
            client.upload(data)
        return client.complete(created.ref).ref

    def desk(self, *faults: Faults, fingerprint: str = "2") -> Desk:
        """A desk whose engines have these faults, one after the other; the last kind is started again and again."""
        before = len(self.engines)

        def start(settings: EngineSettings) -> Engine:
            mine = min(len(self.engines) - before, len(faults) - 1)
            self.started.append(settings)
            self.engines.append(self.kind_of_engine(faults[mine] if faults else Faults(), self.knows, fingerprint))
            return self.engines[-1]

        return Desk(self.place, Launches(start))

    def claim(self) -> Job:
        job = self.site.client("evaluator").claim(["evaluation"], "test")
        assert job is not None
        return job

    def take_over(self, job: Job) -> Job:
        """Another worker gets the job, as if this one had fallen silent."""
        leases = self.site.registry.services.leases
        leases.seconds = -1.0
        leases.grant(job.id)
        taken = self.claim()
        leases.seconds = 30.0
        assert taken.id == job.id
        return taken

    def work(
        self,
        desk: Desk,
        job: Job | None = None,
        step: Callable[[int], None] = lambda done: None,
        fast_fail: bool = False,
    ) -> StoredJob:
        """One job to its end; what the registry holds of it then."""
        job = job or self.claim()
        self.work_together(desk, [job], step, fast_fail)
        stored = self.site.registry.view().job(job.id)
        assert stored is not None
        return stored

    def work_together(
        self,
        desk: Desk,
        jobs: Sequence[Job],
        step: Callable[[int], None] = lambda done: None,
        fast_fail: bool = False,
    ) -> None:
        report = Reporter(self.said.append, lambda done, total, numbers: step(done))
        do_jobs(self.site.client("evaluator"), desk, jobs, report, fast_fail=fast_fail)

    def state(self, ref: str) -> State:
        return self.site.client("admin").version(ref).state

    def evidence(self, ref: str) -> Evidence | None:
        return self.site.client("admin").version(ref).evidence

    def rows(self, ref: str) -> list[ItemRow]:
        """Every row of a version, by suite, item and subject."""
        client = self.site.client("admin")
        suites = [one.ref for one in client.suites()]
        rows = [row for suite in suites for row in client.items(ref, suite)]
        return sorted(rows, key=lambda row: (row.suite, row.item, row.subject))

    def check(self, ref: str, name: str) -> Check:
        return next(check for check in self.site.client("admin").gate(ref).checks if check.name == name)

    def statuses(self, ref: str) -> dict[str, str]:
        return {check.name: check.status for check in self.site.client("admin").gate(ref).checks}


def knows(question: str, adapted: bool) -> str:
    """The base knows two thirds of "What is number i?", the adapter all but the first ten."""
    number = int("".join(filter(str.isdigit, question)) or 0)
    right = number >= 10 if adapted else number % 3 > 0
    return f"It is answer{number}." if right else "I do not know."
