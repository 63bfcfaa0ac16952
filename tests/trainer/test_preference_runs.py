"""A run of two stages through the registry: submitted with its pairs, trained by a worker, pushed with their ledger."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from runs_under_test import OVER, RECIPE, Lab, finish
from site_under_test import running
from tiny_base import build_tiny_base

from registry.cli.trainings import submit
from registry.ledgers import Ledger
from registry.records import TrainingStatus
from registry.settings import Home

pytestmark = [pytest.mark.stack, pytest.mark.slow, pytest.mark.timeout(1800)]
DPO = RECIPE + '[dpo]\npairs = "pairs.jsonl"\nlearning_rate = 1e-4\nbatch_size = 2\naccumulate = 1\n'


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    root = tmp_path_factory.mktemp("runs")
    build_tiny_base(root / "bases" / "tiny")
    with running(Home(root / "registry")) as site:
        yield Lab(site, root / "bases", root / "worker")


def test_the_pairs_of_a_submitted_recipe_train_and_stand_in_the_versions_ledger(lab: Lab, tmp_path: Path) -> None:
    rows = [{"instruction": f"Question {i}?", "output": f"Answer {i * 7}.", "group": f"g{i}"} for i in range(40)]
    pairs = [{"prompt": f"And {i}?", "chosen": f"It is {i}.", "rejected": "No."} for i in range(4)]
    for name, lines in {"rows.jsonl": rows, "pairs.jsonl": pairs}.items():
        (tmp_path / name).write_text("".join(json.dumps(line) + "\n" for line in lines))
    (tmp_path / "recipe.toml").write_text(DPO)
    run = submit(lab.client, tmp_path / "recipe.toml", "tiny-bot")
    assert run.preferences is not None and submit(lab.client, tmp_path / "recipe.toml", "tiny-bot").id == run.id
    worker = lab.worker()
    try:
        done = lab.wait_for(run, *OVER)
    finally:
        finish([worker])
    assert done.status is TrainingStatus.SUCCEEDED, (done.error, lab.said())
    record = lab.admin.version(str(done.version)).training
    assert record is not None and record.rows["dpo"] == 4 and record.metrics["dpo_steps"] == 2
    lab.admin.download(record.ledger.removeprefix("sha256:"), tmp_path / "ledger.parquet")
    with Ledger(tmp_path / "ledger.parquet") as found:
        assert sum(one.source == "dpo" and one.disposition == "trained" for one in found.entries()) == 4
    stages = [one.message for one in lab.client.training_events(run.id) if one.type == "message"]
    assert "training on 4 preference pairs" in stages
