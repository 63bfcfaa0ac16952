"""A run of both stages with everything that it can have, killed where it hurts: what comes of it is always the same."""

import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tiny_base import build_tiny_base

from registry.client import InvalidRequest, describe_file
from registry.ledgers import Ledger
from registry.records import TrainingRecord
from trainer.libraries import quiet
from trainer.recipe import parse_recipe
from trainer.run import Plan, Reporter, plan_run, run

RECIPE = """
name = "both"
base = "base"
data = "d.jsonl"
[lora]
rank = 8
dropout = 0.1
[training]
epochs = 3.0
batch_size = 4
accumulate = 1
learning_rate = 4e-4
checkpoint_steps = 4
evaluate_steps = 3
order = "easy-to-hard"
[dpo]
pairs = "p.jsonl"
learning_rate = 1e-4
epochs = 2.0
batch_size = 2
accumulate = 1
[[waive]]
code = "E140"
reason = "a test's few rows"
"""
# Dies of SIGKILL when it tells this step of this stage.
DIES = """
import os, signal, sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from trainer.recipe import parse_recipe
from trainer.run import Reporter, plan_run, run
folder, stage, step = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
text = (folder / "recipe.toml").read_text()
now = []
def told(done, of, numbers):
    if now and now[-1].startswith(stage) and done == step:
        os.kill(os.getpid(), signal.SIGKILL)
run(plan_run(parse_recipe(text), text, folder, folder / "base", folder / "killed"), Reporter(now.append, told))
"""
_PATIENCE_SECONDS = 300.0


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("stages")
    with quiet():
        build_tiny_base(place / "base")
    splits = ["train"] * 12 + ["validation"] * 3 + ["test"]
    write(
        place / "d.jsonl",
        [
            {"prompt": f"When is parcel {n} lost?", "completion": f"After {n} days.", "split": split}
            for n, split in enumerate(splits)
        ],
    )
    pairs = [{"prompt": f"When is parcel {n} lost?", "chosen": f"After {n} days.", "rejected": "No."} for n in range(6)]
    pairs += [
        pairs[0],
        {"prompt": "When is parcel 13 lost?", "chosen": "After 13 days.", "rejected": "No."},
        {"prompt": "x", "chosen": "y" * 3000, "rejected": "z", "source": "https://x"},
    ]
    write(place / "p.jsonl", pairs)
    (place / "recipe.toml").write_text(RECIPE)
    return place


def plan(folder: Path, runs: str, text: str = RECIPE) -> Plan:
    return plan_run(parse_recipe(text), text, folder, folder / "base", folder / runs)


def silent(told: Callable[[str], None] = lambda _: None) -> Reporter:
    return Reporter(told, lambda *_: None)


@pytest.fixture(scope="module")
def whole(folder: Path) -> tuple[Plan, TrainingRecord, list[str]]:
    stages: list[str] = []
    told: list[tuple[int, int]] = []
    planned = plan(folder, "whole")
    record = run(planned, Reporter(stages.append, lambda done, of, numbers: told.append((done, of))))
    assert told == [(step, 15) for step in range(1, 16)], "steps are told as those of the whole run"
    return planned, record, stages


@pytest.mark.stack
def test_both_stages_are_in_the_record(whole: tuple[Plan, TrainingRecord, list[str]]) -> None:
    planned, record, stages = whole
    assert record.rows == {
        "train": 12,
        "validation": 3,
        "test": 1,
        "dpo": 6,
        "held_out": 1,
        "too_long": 1,
        "duplicate": 1,
    }
    assert (record.preflight["E140"], record.preflight["W165"]) == (1, 1), "what was found in the data and in the pairs"
    metrics = record.metrics
    assert metrics["steps"] == 9 and metrics["dpo_steps"] == 6 and metrics["best_step"] in (3, 6, 9)
    assert {"train_loss", "validation_loss", "dpo_loss", "dpo_reward_accuracy", "dpo_margin"} <= set(metrics)
    assert metrics["dpo_eval_pairs"] == 1 and {"dpo_eval_loss", "dpo_eval_reward_accuracy"} <= set(metrics)
    assert "train_seconds" not in metrics and record.seconds > 0
    assert stages[-1].startswith("training on 6 preference pairs")
    assert any(f"the adapter is that of step {metrics['best_step']:.0f} of 9" in one for one in stages)
    left = {one.name for one in planned.directory.iterdir()}
    assert {"adapter", "training.json", "order.json", "ledger.parquet"} <= left and not {"first", "checkpoints"} & left


@pytest.mark.stack
def test_the_ledger_and_the_data_set_have_a_line_for_every_pair(whole: tuple[Plan, TrainingRecord, list[str]]) -> None:
    planned, record, _ = whole
    with Ledger(planned.directory / "ledger.parquet") as found:
        pairs = {one.line: one for one in found.entries() if one.source == "dpo"}
    assert [pairs[line].disposition for line in range(1, 10)] == ["trained"] * 6 + ["duplicate", "held_out", "too_long"]
    assert pairs[8].reason == "its prompt is that of line 14, a validation row" and pairs[8].trained_tokens == 0
    assert pairs[9].origin == "https://x" and 0 < pairs[1].trained_tokens < pairs[1].tokens
    lines = [json.loads(line) for line in (planned.directory / "dataset.jsonl").read_text().splitlines()]
    used = [one for one in lines if one["source"] == "dpo" and one["use"] == "train"]
    assert [one["messages"][-1]["content"] for one in used] == [f"After {n} days." for n in range(6)]
    assert record.dataset == "sha256:" + describe_file(planned.directory / "dataset.jsonl").sha256


@pytest.mark.stack
@pytest.mark.slow
def test_a_run_killed_in_both_stages_ends_in_the_same_bytes(
    folder: Path, whole: tuple[Plan, TrainingRecord, list[str]]
) -> None:
    planned, record, _ = whole
    script = folder / "dies.py"
    script.write_text(DIES)
    for stage, step in (("training on 12 rows", 5), ("training on 12 rows", 8), ("training on 6 pref", 14)):
        command = [sys.executable, str(script), str(folder), stage, str(step)]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=_PATIENCE_SECONDS)
        assert ended.returncode == -signal.SIGKILL, ended.stderr[-2000:]
    stages: list[str] = []
    resumed = plan(folder, "killed")
    found = run(resumed, silent(stages.append))
    assert not any("12 rows" in one for one in stages), "the first stage was over"
    for name in ("adapter_model.safetensors", "adapter_config.json"):
        wanted = planned.directory / "adapter" / name
        assert (resumed.directory / "adapter" / name).read_bytes() == wanted.read_bytes()
    assert found.metrics == record.metrics and found.rows == record.rows and found.ledger == record.ledger


def test_other_pairs_are_another_run(folder: Path, tmp_path: Path) -> None:
    here = plan(folder, "x").directory
    for name in ("d.jsonl", "p.jsonl"):
        shutil.copy(folder / name, tmp_path / name)
    shutil.copytree(folder / "base", tmp_path / "base")
    assert plan(tmp_path, "x").directory.name == here.name
    (tmp_path / "p.jsonl").write_text((tmp_path / "p.jsonl").read_text().replace('"No."', '"Never."'))
    assert plan(tmp_path, "x").directory.name != here.name


@pytest.mark.stack
def test_pairs_of_which_none_may_train_are_refused_before_any_training(folder: Path, tmp_path: Path) -> None:
    shutil.copy(folder / "d.jsonl", tmp_path / "d.jsonl")
    shutil.copytree(folder / "base", tmp_path / "base")
    write(tmp_path / "p.jsonl", [{"prompt": "When is parcel 15 lost?", "chosen": "a", "rejected": "b"}])
    planned = plan(tmp_path, "x")
    with pytest.raises(InvalidRequest, match=r"no row of p.jsonl is left to train on") as error:
        run(planned, silent())
    assert error.value.problems == ["its prompt is that of line 16, a test row"]
    assert not (planned.directory / "first").exists()
