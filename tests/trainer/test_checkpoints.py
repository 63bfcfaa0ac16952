"""Which checkpoint a stage goes on from, and what its evaluations say: pure rules over a log and a directory."""

import json
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.checkpoints import Standing, folder_of, last_checkpoint, runs_out, standing

LOSSES = st.lists(st.one_of(st.integers(0, 9).map(float), st.just(math.nan)), max_size=20)


def log(losses: list[float]) -> list[dict[str, float]]:
    steps = [{"step": 2.0 * place, "loss": 1.0} for place in range(1, len(losses) + 1)]
    found = []
    for step, loss in zip(steps, losses, strict=True):
        found += [step, {"step": step["step"], "eval_loss": loss}]
    return found


@given(LOSSES)
def test_the_best_step_is_the_first_of_the_lowest_loss_and_staleness_counts_from_there(losses: list[float]) -> None:
    now = standing(log(losses))
    known = [loss for loss in losses if not math.isnan(loss)]
    if not known:
        assert now == Standing(None, math.inf, len(losses))
        return
    place = losses.index(min(known))
    assert now == Standing(2 * (place + 1), min(known), len(losses) - place - 1)


@pytest.mark.parametrize(
    ("losses", "patience", "over"),
    [([3, 2, 1], 1, False), ([1, 2], 1, True), ([1, 2], 2, False), ([1, 2, 1], 2, True), ([1, 2, 3, 4], 0, False)],
)
def test_patience_runs_out_after_so_many_evaluations_that_are_no_better(
    losses: list[float], patience: int, over: bool
) -> None:
    assert runs_out(standing(log(losses)), patience) is over


def write(run: Path, step: int, losses: list[float]) -> Path:
    folder = folder_of(run, step)
    folder.mkdir(parents=True)
    for name in ("adapter_model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth"):
        (folder / name).write_bytes(b"x")
    (folder / "trainer_state.json").write_text(json.dumps({"global_step": step, "log_history": log(losses)}))
    return folder


def test_a_checkpoint_counts_only_with_the_best_one_that_it_names(tmp_path: Path) -> None:
    """Otherwise a run would come to its end and have no weights to give."""
    write(tmp_path, 2, [3.0])
    best = write(tmp_path, 4, [3.0, 1.0])
    write(tmp_path, 6, [3.0, 1.0, 2.0])
    found = last_checkpoint(tmp_path)
    assert found is not None and (found.step, found.best) == (6, 4)
    (best / "optimizer.pt").unlink()
    found = last_checkpoint(tmp_path)
    assert found is not None and (found.step, found.best) == (2, 2)
