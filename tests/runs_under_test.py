"""A served registry with an adapter on a tiny base, runs submitted to it, and workers as processes of their own."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from site_under_test import SMALL_REVIEW, Site

from registry.client import Client, describe_base
from registry.records import Base, CreateAdapter, CreateTraining, TrainingInfo, TrainingStatus
from registry.settings import Home

RECIPE = """
name = "tiny"
base = "tiny"
data = "rows.jsonl"
seed = 3
[lora]
rank = 8
[training]
learning_rate = 2e-3
epochs = 3.0
batch_size = 4
accumulate = 1
checkpoint_steps = 3
[[waive]]
code = "E140"
reason = "a test needs no more rows"
"""
OVER = (TrainingStatus.SUCCEEDED, TrainingStatus.FAILED, TrainingStatus.CANCELLED)
_PATIENCE_SECONDS = 600.0


def rows(n: int = 40) -> bytes:
    lines = [{"instruction": f"Question {i}?", "output": f"Answer {i * 7}.", "group": f"g{i}"} for i in range(n)]
    return "".join(json.dumps(line) + "\n" for line in lines).encode()


class Lab:
    """Adapters of one tiny base, which the workers have; `tiny-bot` is there from the start."""

    def __init__(self, site: Site, bases: Path, home: Path) -> None:
        self.site, self.home, self.bases = site, Home(home), bases
        self.client: Client = site.client("trainer")
        self.admin: Client = site.client("admin")
        site.publish_suites()
        self.create_adapter("tiny-bot")

    def create_adapter(self, name: str) -> None:
        described = describe_base(next(self.bases.iterdir()))
        base = Base(id="tiny", digest=described.digest)
        self.admin.create_adapter(
            CreateAdapter(name=name, base=base, base_tensors=described.tensors, policy=SMALL_REVIEW)
        )

    def submit(self, recipe: str = RECIPE, data: bytes | None = None, **changes: Any) -> TrainingInfo:
        dataset = "sha256:" + self.client.upload(rows() if data is None else data).sha256
        return self.client.submit_training(
            CreateTraining(**{"adapter": "tiny-bot", "recipe": recipe, "dataset": dataset, **changes})
        )

    def worker(self, *arguments: str, once: bool = True) -> "subprocess.Popen[bytes]":
        """`tunegate worker --kind training`, in a process group of its own."""
        words = ["worker", "--kind", "training", *(["--once"] if once else []), "--base", str(self.bases), *arguments]
        environment = {
            **os.environ,
            "TUNEGATE_HOME": str(self.home.root),
            "TUNEGATE_URL": self.site.url,
            "TUNEGATE_TOKEN": self.site.tokens["trainer"],
            "OMP_NUM_THREADS": "1",
        }
        self.home.root.mkdir(parents=True, exist_ok=True)
        with (self.home.root / "worker.log").open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "registry", *words],
                env=environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def said(self) -> str:
        return (self.home.root / "worker.log").read_text()

    def wait(self, run: TrainingInfo, reached: Callable[[TrainingInfo], bool]) -> TrainingInfo:
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while not reached(found := self.client.training(run.id)):
            assert time.monotonic() < deadline, (found, self.said())
            time.sleep(0.05)
        return found

    def wait_for_step(self, run: TrainingInfo, step: int) -> TrainingInfo:
        return self.wait(run, lambda one: one.progress is not None and one.progress.step >= step)

    def wait_for(self, run: TrainingInfo, *statuses: TrainingStatus) -> TrainingInfo:
        return self.wait(run, lambda one: one.status in statuses)

    def weights(self, run: TrainingInfo) -> str:
        """The digest of the weights of the version that a run gave."""
        assert run.version is not None, run
        files = self.admin.version(run.version).files
        return next(file.sha256 for file in files if file.path == "adapter_model.safetensors")


def trainers(run: str) -> list[int]:
    """The processes that train a run."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                words = (folder / "cmdline").read_bytes().decode().split("\0")
            except OSError:
                continue
            if "trainer.child" in words and any(run in word for word in words):
                found.append(int(folder.name))
    return found


def kill(process: "subprocess.Popen[bytes]", *others: int) -> None:
    """As `kill -9` does."""
    for one in (process.pid, *others):
        with contextlib.suppress(ProcessLookupError):
            os.kill(one, signal.SIGKILL)
    process.wait(timeout=20)


def finish(processes: Sequence["subprocess.Popen[bytes]"]) -> None:
    for process in processes:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(timeout=20)
