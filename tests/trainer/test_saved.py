"""Checkpoints that a run saved since it was looked at last, from what the trainer's library leaves on disk."""

import json
from pathlib import Path

import msgspec

from trainer.child import _Teller
from trainer.saved import Saved, Shelf
from trainer.workspace import Told, Workspace


def save(folder: Path, step: int, *history: dict[str, float]) -> Path:
    kept = folder / "checkpoints" / f"checkpoint-{step}"
    kept.mkdir(parents=True)
    (kept / "trainer_state.json").write_text(json.dumps({"global_step": step, "log_history": list(history)}))
    return kept


def test_each_checkpoint_is_told_once_and_those_of_an_earlier_attempt_never(tmp_path: Path) -> None:
    save(tmp_path, 5)
    shelf = Shelf(tmp_path)
    assert shelf.new() == []
    save(tmp_path, 15, {"step": 15, "loss": 1.5}, {"step": 15, "eval_loss": 2.0})
    save(tmp_path, 10, {"step": 9, "loss": 1.75}, {"step": 5, "eval_loss": 2.5})
    assert shelf.new() == [Saved(10, 1.75, None), Saved(15, 1.5, 2.0)] and shelf.new() == []


def test_a_checkpoint_counts_once_its_state_is_written_and_a_broken_one_never(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path)
    half = tmp_path / "checkpoints" / "checkpoint-3"
    half.mkdir(parents=True)
    assert shelf.new() == []
    (half / "trainer_state.json").write_text('{"global_step": 3, "log_history": [{"loss": NaN}]}')
    assert shelf.new() == [Saved(3, None, None)]
    for step, text in ((4, "{"), (6, "[]"), (7, '{"global_step": 7, "log_history": [7]}'), (8, "{}")):
        (save(tmp_path, step) / "trainer_state.json").write_text(text)
    assert shelf.new() == []


def test_steps_of_the_second_stage_follow_those_of_the_first(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path)
    save(tmp_path / "first", 20)
    assert [one.step for one in shelf.new()] == [20]
    (tmp_path / "first" / "metrics.json").write_text('{"steps": 24}')
    save(tmp_path, 4)
    assert [one.step for one in shelf.new()] == [28]


def test_the_trainer_tells_of_a_checkpoint_with_the_step_behind_it(tmp_path: Path) -> None:
    with (tmp_path / "told.jsonl").open("ab", buffering=0) as file:
        teller = _Teller(file, Workspace(tmp_path), 1, Shelf(tmp_path))
        teller.stage("training")
        teller.step(1, 9, {"loss": 3.0})
        save(tmp_path, 1, {"step": 1, "loss": 3.0}, {"step": 1, "eval_loss": 3.5})
        teller.step(2, 9, {"loss": 2.0})
    told = [msgspec.json.decode(line, type=Told) for line in (tmp_path / "told.jsonl").read_bytes().splitlines()]
    assert [one.message for one in told] == ["training", "training", "saved step 1, validation loss 3.5000", "training"]
    step = told[2].step
    assert step is not None and (step.step, step.steps, step.loss, step.validation_loss) == (1, 9, 3.0, 3.5)
    assert step.checkpoint and not any(one.step.checkpoint for one in told if one.step not in (None, step))
