"""Checkpoints that a run saved since it was looked at last, from what the trainer's library leaves on disk."""

import json
from pathlib import Path
from types import SimpleNamespace

import msgspec
import pytest

from trainer import child
from trainer.child import _Teller
from trainer.faults import Diverged
from trainer.progress import Reporter, Stopped
from trainer.saved import Saved, Shelf
from trainer.workspace import Ended, Order, Told, Workspace, read_whole, write_whole


def save(folder: Path, step: int, *history: dict[str, float]) -> Path:
    kept = folder / "checkpoints" / f"checkpoint-{step}"
    kept.mkdir(parents=True)
    (kept / "trainer_state.json").write_text(json.dumps({"global_step": step, "log_history": list(history)}))
    return kept


def test_each_checkpoint_is_told_once_and_those_that_an_earlier_attempt_told_of_never(tmp_path: Path) -> None:
    save(tmp_path, 5)
    shelf = Shelf(tmp_path, told=[5])
    assert shelf.new() == []
    save(tmp_path, 15, {"step": 15, "loss": 1.5}, {"step": 15, "eval_loss": 2.0})
    save(tmp_path, 10, {"step": 9, "loss": 1.75}, {"step": 5, "eval_loss": 2.5})
    assert shelf.new() == [Saved(10, 1.75, None), Saved(15, 1.5, 2.0)] and shelf.new() == []


def test_what_an_earlier_attempt_saved_and_could_not_tell_of_is_new(tmp_path: Path) -> None:
    save(tmp_path, 5)
    save(tmp_path, 10)
    (tmp_path / "checkpoints" / "checkpoint-15").mkdir()  # killed while it was written
    shelf = Shelf(tmp_path, told=[5])
    assert [one.step for one in shelf.new()] == [10]
    (tmp_path / "checkpoints" / "checkpoint-15" / "trainer_state.json").write_text('{"global_step": 15}')
    assert [one.step for one in shelf.new()] == [15]


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
    save(tmp_path, 4, {"step": 4, "loss": 0.5}, {"step": 4, "eval_loss": 0.25})
    assert shelf.new() == [Saved(28, 0.5, None)], "the loss of pairs is none of the validation rows"
    assert Shelf(tmp_path, told=[20, 28]).new() == [] and [one.step for one in Shelf(tmp_path, [20]).new()] == [28]


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


@pytest.mark.parametrize("ends", [Stopped("stopped after step 7"), Diverged("the loss of step 8 is nan")])
def test_what_was_saved_last_is_told_however_the_attempt_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ends: Exception
) -> None:
    """A trainer that saves and then stops has no step behind it to tell of the checkpoint with."""
    place, made = Workspace(tmp_path), tmp_path / "made"
    place.recipe.write_text('name = "x"\nbase = "b"\ndata = "d.jsonl"\n')
    write_whole(place.order, Order(fence=2, base="b", saved=(5,)))
    save(made, 5)

    def run(plan: object, report: Reporter) -> None:
        report.step(7, 9, {"loss": 2.0})
        save(made, 7, {"step": 7, "loss": 2.0})
        raise ends

    monkeypatch.setattr(child, "plan_run", lambda *_: SimpleNamespace(directory=made))
    monkeypatch.setattr(child, "run", run)
    monkeypatch.setattr(child.resource, "setrlimit", lambda *_: None)
    child.main([str(tmp_path), "2"])
    told = [msgspec.json.decode(line, type=Told) for line in place.told(2).read_bytes().splitlines()]
    assert [(one.step.step, one.step.checkpoint) for one in told if one.step] == [(7, False), (7, True)]
    ended = read_whole(place.ended(2), Ended)
    assert ended is not None and ended.stopped == isinstance(ends, Stopped)
    assert ended.stopped or (ended.error is not None and ended.error.code == "diverged")


def test_a_full_disk_hides_no_reason_why_an_attempt_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place, made = Workspace(tmp_path), tmp_path / "made"
    place.recipe.write_text('name = "x"\nbase = "b"\ndata = "d.jsonl"\n')
    write_whole(place.order, Order(fence=1, base="b"))

    def run(plan: object, report: Reporter) -> None:
        save(made, 7)
        raise Diverged("the loss of step 8 is nan")

    monkeypatch.setattr(child, "plan_run", lambda *_: SimpleNamespace(directory=made))
    monkeypatch.setattr(child, "run", run)
    with Path("/dev/full").open("wb", buffering=0) as full, pytest.raises(Diverged):
        child._train(place, 1, full)
