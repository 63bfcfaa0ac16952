"""The real thing, small: real training, a real server, real vLLM, real SIGKILLs; only the model knows nothing.

The story is told once, by fixtures that each other build on; the tests look at its chapters.
"""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest
from factories import SUITES, make_suite
from site_under_test import KINDS
from tiny_base import build_tiny_base
from worker_lab import SILENT, Launches

from evaluator.desk import ChildLauncher, Desk, Launcher, Workplace
from evaluator.engine import Prompt
from evaluator.rendering import Renderer
from evaluator.vllm_process import EngineSettings, VllmProcess
from evaluator.worker import do_jobs
from registry.client import Client, Question, describe_base, read_suite
from registry.records import CreateToken, Evidence, ItemRow, Rating, Role, State, Verdict
from registry.settings import Home

pytestmark = [pytest.mark.stack, pytest.mark.timeout(400)]

ITEMS = {"perplexity": 24, "accuracy": 16, "forgetting": 40, "review": 8}
OFFLINE = {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "VLLM_NO_USAGE_STATS": "1", "OMP_NUM_THREADS": "1"}
# Nothing here is about how good a model of random weights is: every check is measured, every bound lets it pass.
POLICY = """
[perplexity]
max = 1e6
max_ratio_to_base = 1000.0
[accuracy]
min = 0.0
[forgetting]
margin = 1.0
[review]
outputs = 3
min_seconds = 0.0
[provenance]
max_contaminated = 1.0
"""
RECIPE = """
name = "tiny"
base = "tiny"
data = "train.jsonl"
system = "Answer shortly."
seed = 3
[lora]
rank = 8
alpha = 16.0
[training]
learning_rate = 5e-3
epochs = 12.0
batch_size = 4
accumulate = 2
checkpoint_steps = 4
[replay]
prompts = "replay.jsonl"
rows = 6
max_new_tokens = 8
[[waive]]
code = "E140"
reason = "a test's few rows"
[[waive]]
code = "E103"
reason = "a base of 100,000 weights"
"""


class Stack(NamedTuple):
    """A home with a tiny base, a served registry and everyone's tokens."""

    home: Home
    url: str
    tokens: dict[str, str]

    def start(self, who: str, *arguments: str, **pipes: Any) -> "subprocess.Popen[str]":
        environment = {
            **os.environ,
            **OFFLINE,
            "TUNEGATE_HOME": str(self.home.root),
            "TUNEGATE_URL": self.url,
            "TUNEGATE_TOKEN": self.tokens.get(who, ""),
        }
        return subprocess.Popen([sys.executable, "-m", "registry", *arguments], env=environment, text=True, **pipes)

    def tunegate(self, who: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
        """One command to its end; its exit code is the caller's to judge."""
        process = self.start(who, *arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        try:
            said, errors = process.communicate(timeout=240)
        finally:
            process.kill()
        return subprocess.CompletedProcess(arguments, process.returncode, said, errors)

    def succeed(self, who: str, *arguments: str) -> str:
        done = self.tunegate(who, *arguments)
        assert done.returncode == 0, f"{arguments}: {done.stdout}{done.stderr}"
        return done.stdout

    def client(self, who: str) -> Client:
        return Client(self.url, self.tokens[who])


class Trained(NamedTuple):
    """A run that was killed once; its checkpoints (step, when written) as it died and as it went on."""

    recipe: Path
    adapter: Path
    record: dict[str, Any]
    left_at: dict[int, int]
    seen_later: set[tuple[int, int]]


class Evaluated(NamedTuple):
    """A version whose first worker was killed; its result files as that one left them."""

    ref: str
    suites: Path
    left: dict[Path, bytes]
    said: str


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    root = tmp_path_factory.mktemp("stack")
    home = Home(root / "home")
    build_tiny_base(home.bases / "tiny")
    with _served(home, root / "serve.log") as url:
        tokens = {"admin": home.admin_token.read_text().strip()}
        people = {role.value: role for role in (Role.CI, Role.EVALUATOR, Role.RELEASE_MANAGER, Role.CONSUMER)}
        people |= {f"reviewer-{number}": Role.REVIEWER for number in (1, 2, 3)}
        with Client(url, tokens["admin"]) as client:
            for name, role in people.items():
                tokens[name] = str(client.create_token(CreateToken(role=role, person=name)).secret)
        yield Stack(home, url, tokens)


@pytest.fixture(scope="module")
def trained(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    folder = tmp_path_factory.mktemp("recipe")
    (folder / "recipe.toml").write_text(RECIPE)
    _write_lines(folder / "train.jsonl", _training_rows(60))
    _write_lines(folder / "replay.jsonl", [{"prompt": f"Who painted picture {n}?"} for n in range(6)])
    (folder / "policy.toml").write_text(POLICY)
    command = ("--json", "train", str(folder / "recipe.toml"))

    first = stack.start("ci", *command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _wait(lambda: max(_checkpoints(stack.home), default=0) >= 8 or first.poll() is not None)
    _kill(first)
    left_at = _checkpoints(stack.home)

    second = stack.start("ci", *command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    seen: set[tuple[int, int]] = set()
    _wait(lambda: seen.update(_checkpoints(stack.home).items()) or second.poll() is not None, pause=0.005)
    said, _ = second.communicate(timeout=60)
    assert second.returncode == 0
    found = json.loads(said)
    return Trained(folder / "recipe.toml", Path(found["directory"]), found["training"], left_at, seen)


@pytest.fixture(scope="module")
def engine(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[VllmProcess]:
    base = stack.home.bases / "tiny"
    settings = EngineSettings(base=base, base_digest=describe_base(base).digest, rank=8)
    started = VllmProcess(settings, tmp_path_factory.mktemp("engine") / "engine.log")
    yield started
    started.close()


@pytest.fixture(scope="module")
def evaluated(
    stack: Stack, trained: Trained, engine: VllmProcess, tmp_path_factory: pytest.TempPathFactory
) -> Evaluated:
    folder = tmp_path_factory.mktemp("suites")
    for section, name in SUITES.items():
        for path, data in make_suite(name, KINDS[section], ITEMS[section]).items():
            target = folder / name / path
            target.parent.mkdir(parents=True, exist_ok=True)
            # A model of random weights ends no answer by itself.
            target.write_bytes(data + b"max_cut_off = 1.0\n" if path == "suite.toml" else data)
    _teach(folder / SUITES["forgetting"], stack, engine)
    (folder / "policy.toml").write_text(POLICY)
    stack.succeed("admin", "suite", "push", *(str(folder / name) for name in SUITES.values()))
    stack.succeed("admin", "adapter", "create", "bot", "--base", "tiny", "--policy", str(folder / "policy.toml"))
    pushed = json.loads(stack.succeed("ci", "--json", "push", str(trained.adapter), "--adapter", "bot"))

    results = stack.home.cache / "results"
    first = stack.start("evaluator", "worker", "--once", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _wait(lambda: len(list(results.glob("*.jsonl"))) >= 3 or first.poll() is not None)
    _kill(first)
    left = {path: path.read_bytes() for path in results.glob("*.jsonl")}

    said = ""
    with stack.client("admin") as client:

        def measured() -> bool:
            nonlocal said
            said += stack.succeed("evaluator", "worker", "--once")
            return client.version(pushed["ref"]).state not in (State.SUBMITTED, State.EVALUATING)

        _wait(measured, pause=2.0)
    return Evaluated(pushed["ref"], folder, left, said)


# -- the chapters -------------------------------------------------------------------------------------------------


def test_a_killed_trainer_goes_on_from_its_checkpoint(trained: Trained) -> None:
    assert trained.left_at and max(trained.left_at) < trained.record["metrics"]["steps"]
    # A run from the start would write them anew.
    assert {one for one in trained.seen_later if one[0] <= max(trained.left_at)} <= set(trained.left_at.items())
    assert max(step for step, _ in trained.seen_later) > max(trained.left_at)
    assert not (trained.adapter.parent / "checkpoints").exists()


def test_every_row_is_accounted_for_in_the_training_record(trained: Trained) -> None:
    rows = trained.record["rows"]
    assert rows["train"] + rows["validation"] + rows["test"] == 60 and rows["duplicate"] == 1
    # A base of random weights ends no sentence in eight tokens: nothing of what it says is fit to be held.
    assert rows.get("replay", 0) + rows.get("empty", 0) == 6
    assert (trained.adapter.parent / "ledger.parquet").exists() and trained.record["metrics"]["train_loss"] > 0


def test_a_finished_run_is_found_finished(stack: Stack, trained: Trained) -> None:
    before = (trained.adapter.parent / "training.json").stat().st_mtime_ns
    again = json.loads(stack.succeed("ci", "--json", "train", str(trained.recipe)))
    assert again["training"] == trained.record
    assert (trained.adapter.parent / "training.json").stat().st_mtime_ns == before


def test_a_killed_worker_goes_on_with_what_it_measured(stack: Stack, evaluated: Evaluated) -> None:
    assert any(evaluated.left.values()), "the first worker was killed before it had measured anything"
    for path, left in evaluated.left.items():
        whole = left[: left.rfind(b"\n") + 1]
        assert path.read_bytes().startswith(whole)
    for path in (stack.home.cache / "results").glob("*.jsonl"):
        items = [json.loads(line)["item"] for line in path.read_text().splitlines()]
        assert len(items) == len(set(items)), "an item was measured twice"


def test_every_check_is_measured_and_every_canary_passes(stack: Stack, evaluated: Evaluated) -> None:
    with stack.client("admin") as client:
        version, report = client.version(evaluated.ref), client.gate(evaluated.ref)
    assert version.state is State.IN_REVIEW, report
    status = {check.kind: check.status for check in report.checks}
    assert status.pop("review") == "pending"
    assert set(status.values()) == {"pass"}
    assert {"inspection", "effect", "perplexity", "accuracy", "forgetting", "provenance", "contamination"} <= set(
        status
    )
    engine = report.evaluated_with
    assert engine is not None and (engine.engine, engine.serving) == ("vllm", "lora")
    assert version.evidence is not None and len(version.evidence.canaries) == 6
    assert [canary for canary in version.evidence.canaries if not canary.passed] == []


def test_an_approved_version_is_pulled_and_verified_offline(stack: Stack, evaluated: Evaluated, tmp_path: Path) -> None:
    assert stack.tunegate("release-manager", "promote", evaluated.ref).returncode == 1
    for number in (1, 2, 3):
        with stack.client(f"reviewer-{number}") as client:
            while (item := client.next_assignment()) is not None:
                client.rate(item.id, Rating(clarity=5, relevance=5, safety=5, accuracy=5, hallucination=False))
    with stack.client("admin") as client:
        assert client.gate(evaluated.ref).verdict is Verdict.GO
    stack.succeed("release-manager", "promote", evaluated.ref)
    out, keys = tmp_path / "out", tmp_path / "keys.json"
    stack.succeed("consumer", "keys", "--to", str(keys))
    stack.succeed("consumer", "pull", "bot@approved", "--to", str(out))

    assert stack.tunegate("nobody", "verify", str(out), "--keys", str(keys)).returncode == 0
    weights = out / "adapter_model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    assert stack.tunegate("nobody", "verify", str(out), "--keys", str(keys)).returncode == 1


def test_a_run_repeated_gives_the_same_evidence_and_shuffled_lines_the_same_rows(
    stack: Stack, trained: Trained, evaluated: Evaluated, engine: VllmProcess, tmp_path: Path
) -> None:
    """On a CPU, to the byte: measured from nothing by one engine and by another that is started for it."""

    def measure(name: str, launcher: Launcher) -> tuple[Evidence, list[ItemRow]]:
        stack.succeed("admin", "adapter", "create", name, "--base", "tiny", "--policy", str(tmp_path / "policy.toml"))
        ref = json.loads(stack.succeed("ci", "--json", "push", str(trained.adapter), "--adapter", name))["ref"]
        with stack.client("evaluator") as worker, stack.client("admin") as client:
            job = worker.claim(["evaluation"], "test")
            assert job is not None and job.ref == ref
            desk = Desk(Workplace(tmp_path / name, [stack.home.bases]), launcher)
            do_jobs(worker, desk, [job], SILENT)
            if launcher is own:
                desk.close()
            evidence = client.version(ref).evidence
            rows = [row for suite in job.suites for row in client.items(ref, suite.ref)]
        assert evidence is not None
        return msgspec.structs.replace(evidence, seconds=0.0), rows

    (tmp_path / "policy.toml").write_text(POLICY)
    running, own = Launches(lambda settings: engine), ChildLauncher()
    first = measure("first", running)
    second = measure("second", own)
    assert first == second and first[0].rows == second[0].rows

    for section in ("accuracy", "perplexity", "review"):  # the forgetting suite's digest seeds what is drawn of it
        items = evaluated.suites / SUITES[section] / "items.jsonl"
        items.write_text("\n".join(reversed(items.read_text().splitlines())))
        stack.succeed("admin", "suite", "push", str(items.parent))
    shuffled, rows = measure("shuffled", running)
    assert shuffled.rows != first[0].rows, "other suites, by their digests"
    assert _without_digests(rows) == _without_digests(first[1])


def _without_digests(rows: Sequence[ItemRow]) -> list[ItemRow]:
    found = [msgspec.structs.replace(row, suite=row.suite.partition("@")[0]) for row in rows]
    return sorted(found, key=lambda row: (row.suite, row.item, row.subject))


def _teach(suite: Path, stack: Stack, engine: VllmProcess) -> None:
    """Make what the base says to three questions in four the right answer: it must know something to forget."""
    content = read_suite({path: (suite / path).read_bytes() for path in ("suite.toml", "items.jsonl")})
    renderer, asked = Renderer(stack.home.bases / "tiny"), [one for one in content.items if isinstance(one, Question)]
    prompts = [Prompt(renderer.question(content.head.system, one.question), None) for one in asked]
    said = dict(engine.generate(prompts, content.head.max_tokens, ["\n"]))
    lines = []
    for place, one in enumerate(asked):
        taught = place % 4 and said[place].text.strip()
        lines.append({"id": one.id, "question": one.question, "answers": [said[place].text] if taught else one.answers})
    _write_lines(suite / "items.jsonl", lines)


# -- helpers ------------------------------------------------------------------------------------------------------


def _training_rows(n: int) -> list[dict[str, str]]:
    rows = [
        {"instruction": f"Where is shelf {i} please?", "output": f"Shelf {i} is in aisle {i % 7}."} for i in range(n)
    ]
    return [*rows, rows[0]]


def _write_lines(path: Path, rows: Sequence[dict[str, str]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def _checkpoints(home: Home) -> dict[int, int]:
    """Steps of the checkpoints that are complete, and when each was written."""
    found = {}
    for path in home.runs.glob("*/checkpoints/checkpoint-*/trainer_state.json"):
        with contextlib.suppress(FileNotFoundError):  # deleted while we look
            found[int(path.parent.name.rpartition("-")[2])] = path.stat().st_mtime_ns
    return found


def _wait(ready: Callable[[], Any], *, seconds: float = 240.0, pause: float = 0.05) -> None:
    deadline = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(pause)


def _kill(process: "subprocess.Popen[str]") -> None:
    assert process.poll() is None, "it was over before it could be killed"
    process.send_signal(signal.SIGKILL)
    process.wait(timeout=30)


@contextlib.contextmanager
def _served(home: Home, log: Path) -> Iterator[str]:
    """`tunegate serve` on a free port of 127.0.0.1."""
    with log.open("w") as output:
        server = subprocess.Popen(
            [sys.executable, "-m", "registry", "serve", "--port", "0"],
            env={**os.environ, "TUNEGATE_HOME": str(home.root)},
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        found: list[str] = []

        def ready() -> bool:
            found.extend(re.findall(r"at (http://127\.0\.0\.1:\d+)", log.read_text()))
            assert server.poll() is None, log.read_text()
            return bool(found)

        _wait(ready, seconds=60)
        with Client(found[0]) as client:
            _wait(client.ready, seconds=60)
        yield found[0]
    finally:
        server.terminate()
        try:
            server.wait(timeout=20)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()
