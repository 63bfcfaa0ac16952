"""A real registry with a worker of training runs, each in a process of its own, for the trainer's benchmark.

The data are the demo's first rows: so many in training that a run has the steps that were asked for, and eight for
validation. Every run has an adapter of its own, since the same submission to the same adapter is the same run.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.served import environment, served
from benchmarks.trainer_scripts import RECIPE as DEMO
from registry.client import Client, describe_base
from registry.records import (
    Base,
    CreateAdapter,
    CreateToken,
    CreateTraining,
    Policy,
    Role,
    TrainingInfo,
    TrainingStatus,
)
from registry.settings import Home

_BATCH, _VALIDATION, _PATIENCE_SECONDS = 8, 8, 1800.0
_SETTLED_SECONDS = 15.0  # a worker has started and waits
_SUITES = ("support-desk/questions", "support-desk/conversations", "support-desk/pilot", "general-knowledge")
_RECIPE = f"""
name = "bench"
base = "{{base}}"
data = "rows.jsonl"
seed = 7
[lora]
first_layer = 12
[training]
learning_rate = 1e-3
epochs = 1.0
batch_size = {_BATCH}
accumulate = 1
checkpoint_steps = 2
[[waive]]
code = "E140"
reason = "a benchmark needs no more rows"
"""
_BARE = """
import json, sys
from pathlib import Path
from trainer.libraries import quiet
with quiet():
    from trainer import qlora, run
    from trainer.dataset import Split
    from trainer.recipe import read_recipe
    recipe, text = read_recipe(Path(sys.argv[1]) / "recipe.toml")
    plan = run.plan_run(recipe, text, Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]))
    tokenizer, model = qlora.load_tokenizer(plan.base), qlora.load_model(plan.base, recipe)
    made = {split: [] for split in Split}
    for row, split in zip(plan.data.rows, plan.data.splits):
        made[split].append(run.tokenise("data", row, split, tokenizer, recipe).example)
    train, rest = made[Split.TRAIN], made[Split.VALIDATION]
    metrics = qlora.train(model, tokenizer, recipe, train, rest, Path(sys.argv[3]), lambda seen: None)
print(json.dumps([sum(len(one.ids) for one in train), metrics["train_seconds"]]))
"""


class Lab:
    """`place`: holds the recipe and its rows, and the worker's home."""

    def __init__(self, place: Path, base: Path, url: str, tokens: dict[Role, str], clients: dict[Role, Client]) -> None:
        self._place, self._base, self._url, self._tokens, self._clients = place, base, url, tokens, clients
        self._bare_runs, self._tokens_in_a_run = 0, 0

    def bare(self, base: Path) -> float:
        """Tokens a second of the trainer alone, in a process of its own."""
        self._bare_runs += 1
        target = self._place / f"bare-{self._bare_runs}"
        target.mkdir()
        command = [sys.executable, "-c", _BARE, str(self._place), str(base), str(target)]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        self._tokens_in_a_run, seconds = json.loads(done.stdout.splitlines()[-1])
        return self._tokens_in_a_run / seconds

    def tokens_per_second(self, run: TrainingInfo) -> float:
        """Of a run that is over, after one of the same rows alone."""
        assert run.version is not None
        training = self._clients[Role.ADMIN].version(run.version).training
        assert training is not None
        return self._tokens_in_a_run / training.seconds

    def train(self, adapter: str) -> tuple[TrainingInfo, float]:
        """A run from its submission to its version, and the seconds until a worker that waited told of it."""
        with self._worker():
            time.sleep(_SETTLED_SECONDS)
            began = time.monotonic()
            run = self._submit(adapter)
            while len(list(self._clients[Role.TRAINER].training_events(run.id))) < 2:  # the first is the submission
                time.sleep(0.02)
            first_event = time.monotonic() - began
            return self._wait(run), first_event

    def again(self, adapter: str) -> bool:
        """Whether a submission that was made before is the same run."""
        client = self._clients[Role.TRAINER]
        known = {one.id for one in client.trainings(adapter=adapter)}
        return self._submitted(adapter).id in known and len(list(client.trainings(adapter=adapter))) == len(known)

    def killed(self, adapter: str, steps: Sequence[int]) -> TrainingInfo:
        """A run whose worker is killed with -9 after each of these steps; its trainer ends with it."""
        run = self._submit(adapter)
        for step in steps:
            with self._worker() as worker:
                if self._wait(run, step).status is TrainingStatus.SUCCEEDED:
                    raise RuntimeError(f"the run was over before it could be killed at step {step}")
                worker.kill()
        with self._worker():
            return self._wait(run)

    def weights(self, run: TrainingInfo) -> str:
        assert run.version is not None
        files = self._clients[Role.ADMIN].version(run.version).files
        return next(one.sha256 for one in files if one.path == "adapter_model.safetensors")

    def _submit(self, adapter: str) -> TrainingInfo:
        described = describe_base(self._base)
        base = Base(id=self._base.name, digest=described.digest)
        request = CreateAdapter(name=adapter, base=base, base_tensors=described.tensors, policy=Policy())
        self._clients[Role.ADMIN].create_adapter(request)
        return self._submitted(adapter)

    def _submitted(self, adapter: str) -> TrainingInfo:
        client = self._clients[Role.TRAINER]
        dataset = "sha256:" + client.upload(self._place / "rows.jsonl").sha256
        recipe = (self._place / "recipe.toml").read_text()
        return client.submit_training(CreateTraining(adapter=adapter, recipe=recipe, dataset=dataset))

    def _wait(self, run: TrainingInfo, step: int | None = None) -> TrainingInfo:
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while time.monotonic() < deadline:
            found = self._clients[Role.TRAINER].training(run.id)
            if step is not None and found.progress is not None and found.progress.step >= step and found.progress.loss:
                return found
            if found.status is TrainingStatus.SUCCEEDED:
                return found
            if found.status is TrainingStatus.FAILED:
                break
            time.sleep(0.1)
        raise RuntimeError(f"{found}\n{(self._place / 'worker.log').read_text()[-2000:]}")

    @contextlib.contextmanager
    def _worker(self, *arguments: str) -> Iterator["subprocess.Popen[bytes]"]:
        words = ["worker", "--kind", "training", "--base", str(self._base.parent), *arguments]
        told = {
            "TUNEGATE_HOME": str(self._place / "worker"),
            "TUNEGATE_URL": self._url,
            "TUNEGATE_TOKEN": self._tokens[Role.TRAINER],
        }
        with (self._place / "worker.log").open("ab") as log:
            worker = subprocess.Popen(
                [sys.executable, "-m", "registry", *words],
                env={**os.environ, **told},
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            yield worker
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(worker.pid, signal.SIGKILL)
            worker.wait(timeout=60)


@contextlib.contextmanager
def laboratory(folder: Path, base: Path, steps: int) -> Iterator[Lab]:
    place = folder / "lab"
    (place / "worker").mkdir(parents=True)
    lines = (DEMO.parent / "train.jsonl").read_text().splitlines()
    of_training = steps * _BATCH
    with (place / "rows.jsonl").open("w") as file:
        for number, line in enumerate(lines[: of_training + _VALIDATION]):
            split = "train" if number < of_training else "validation"
            file.write(json.dumps({**json.loads(line), "split": split}) + "\n")
    (place / "recipe.toml").write_text(_RECIPE.format(base=base.name))
    home = Home(folder / "home")
    with served(home) as server, contextlib.ExitStack() as open_clients:
        tokens = {Role.ADMIN: home.admin_token.read_text().strip()}
        suites = [str(DEMO.parent.parent / name) for name in _SUITES]
        subprocess.run(
            [sys.executable, "-m", "registry", "suite", "push", *suites],
            env={**environment(home), "TUNEGATE_URL": server.url, "TUNEGATE_TOKEN": tokens[Role.ADMIN]},
            check=True,
            stdout=subprocess.DEVNULL,
        )
        with Client(server.url, tokens[Role.ADMIN]) as admin:
            tokens[Role.TRAINER] = str(admin.create_token(CreateToken(role=Role.TRAINER, person="trainer")).secret)
        clients = {role: open_clients.enter_context(Client(server.url, token)) for role, token in tokens.items()}
        yield Lab(place, base, server.url, tokens, clients)
