"""A run that measures its validation loss as it goes: the best step is what it gives, wherever it was killed."""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest
from tiny_base import build_tiny_base

from registry.client import InvalidRequest
from trainer.checkpoints import folder_of, last_checkpoint
from trainer.libraries import quiet
from trainer.progress import Stopped
from trainer.recipe import LoraSection, Recipe, TrainingSection, parse_recipe

pytestmark = pytest.mark.stack

# So hot that it memorises: on rows that it has not seen it soon gets worse.
PLAN = TrainingSection(
    learning_rate=2e-2,
    epochs=6.0,
    batch_size=4,
    accumulate=1,
    schedule="constant",
    warmup=0.0,
    checkpoint_steps=5,
    evaluate_steps=2,
)
RECIPE = Recipe(
    name="tiny", base="tiny", data="d", seed=3, lora=LoraSection(rank=8, alpha=16.0, dropout=0.1), training=PLAN
)


class Killed(Exception):
    pass


class Ran(NamedTuple):
    steps: list[int]
    metrics: dict[str, float]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_base(tmp_path_factory.mktemp("bases") / "tiny")


@pytest.fixture(scope="module", autouse=True)
def _as_in_a_run() -> Iterator[None]:
    """One thread: for so small a model more of them only wait for each other."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with quiet():
        yield
    torch.set_num_threads(before)


def rows(n: int, shift: int) -> list[Any]:
    from trainer.examples import IGNORED, Example

    found = []
    for i in range(n):
        ids = [0, 50, 60, 70, 80 + (i + shift) % 9, 90 + i % 5, 100 + (i + shift) % 7, 1]
        found.append(Example(ids, [IGNORED] * 4 + ids[4:], False, 0))
    return found


def with_plan(**changes: Any) -> Recipe:
    return msgspec.structs.replace(RECIPE, training=msgspec.structs.replace(PLAN, **changes))


def run(base: Path, folder: Path, recipe: Recipe = RECIPE, *, kill: int = 0, stop: int = 0) -> Ran:
    """Train. kill: die when this step is told; stop: ask for a stop in it."""
    from trainer import qlora

    steps: list[int] = []

    def on_progress(progress: Any) -> None:
        steps.append(progress.step)
        if progress.step == kill:
            raise Killed

    def is_to_stop() -> bool:
        return len(steps) + 1 == stop

    model, tokenizer = qlora.load_model(base, recipe), qlora.load_tokenizer(base)
    try:
        metrics = qlora.train(model, tokenizer, recipe, rows(16, 0), rows(6, 4), folder, on_progress, is_to_stop)
    except (Killed, Stopped):
        assert kill or stop
        return Ran(steps, {})
    return Ran(steps, metrics)


def digest(folder: Path) -> str:
    return hashlib.sha256((folder / "adapter" / "adapter_model.safetensors").read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def whole(base: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Ran]:
    """A run of 24 steps that nothing interrupted."""
    folder = tmp_path_factory.mktemp("whole")
    return folder, run(base, folder)


def test_the_adapter_is_that_of_the_best_step_and_not_of_the_last(
    base: Path, tmp_path: Path, whole: tuple[Path, Ran]
) -> None:
    folder, ran = whole
    assert ran.steps == list(range(1, 25)) and ran.metrics["stopped_early"] == 0.0
    best = int(ran.metrics["best_step"])
    assert 2 <= best < 20 and best % 2 == 0, "the loss went up again, otherwise this shows nothing"
    short = run(base, tmp_path, with_plan(epochs=best / 4))
    assert short.steps == list(range(1, best + 1)) and short.metrics["best_step"] == best
    assert digest(tmp_path) == digest(folder)
    assert short.metrics["validation_loss"] == ran.metrics["validation_loss"]


def test_the_best_checkpoint_outlives_newer_ones(whole: tuple[Path, Ran]) -> None:
    folder, ran = whole
    best = int(ran.metrics["best_step"])
    left = sorted(int(one.name.partition("-")[2]) for one in (folder / "checkpoints").glob("checkpoint-*"))
    assert left == [best, 24]
    newest = last_checkpoint(folder)
    assert newest is not None and (newest.step, newest.best) == (24, best)


def test_patience_ends_a_run_and_the_adapter_is_the_same(base: Path, tmp_path: Path, whole: tuple[Path, Ran]) -> None:
    folder, ran = whole
    best = int(ran.metrics["best_step"])
    ended = run(base, tmp_path, with_plan(patience=2))
    assert ended.steps == list(range(1, best + 5)) and ended.metrics["stopped_early"] == 1.0
    assert ended.metrics["best_step"] == best and ended.metrics["steps"] == best + 4
    assert digest(tmp_path) == digest(folder)


@pytest.mark.parametrize("way", ["kill", "stop"])
@pytest.mark.parametrize("after", [-1, 1, 3], ids=["before the best step", "after it", "long after it"])
def test_a_run_killed_around_its_best_step_ends_in_the_same_bytes(
    base: Path, tmp_path: Path, whole: tuple[Path, Ran], after: int, way: str
) -> None:
    folder, ran = whole
    at = int(ran.metrics["best_step"]) + after
    assert run(base, tmp_path, with_plan(patience=2), **{way: at}).metrics == {}
    again = run(base, tmp_path, with_plan(patience=2))
    assert again.steps[0] == at + 1 if way == "stop" else 1 <= again.steps[0] <= at + 1
    assert digest(tmp_path) == digest(folder)
    assert again.metrics["best_step"] == ran.metrics["best_step"] and again.metrics["stopped_early"] == 1.0
    assert again.metrics["validation_loss"] == ran.metrics["validation_loss"]


def test_a_run_killed_behind_its_early_end_takes_no_step_more(
    base: Path, tmp_path: Path, whole: tuple[Path, Ran]
) -> None:
    first = run(base, tmp_path, with_plan(patience=2))
    (tmp_path / "adapter" / "adapter_model.safetensors").unlink()
    again = run(base, tmp_path, with_plan(patience=2))
    assert again.steps == [] and digest(tmp_path) == digest(whole[0])
    assert again.metrics == first.metrics


def test_a_run_whose_best_checkpoint_is_gone_begins_before_it(
    base: Path, tmp_path: Path, whole: tuple[Path, Ran]
) -> None:
    best = int(whole[1].metrics["best_step"])
    run(base, tmp_path, kill=best + 2)
    (folder_of(tmp_path, best) / "adapter_model.safetensors").unlink()
    again = run(base, tmp_path)
    assert again.steps[0] <= best and digest(tmp_path) == digest(whole[0])


def test_measuring_without_rows_to_measure_on_is_refused(base: Path, tmp_path: Path) -> None:
    from trainer import qlora

    with pytest.raises(InvalidRequest, match=r"evaluate_steps = 2, but no row is left for validation; give"):
        qlora.train(None, None, RECIPE, rows(4, 0), [], tmp_path, lambda _: None)


def test_patience_without_anything_to_be_patient_with_is_refused() -> None:
    with pytest.raises(InvalidRequest, match=r"patience = 3 counts .*; give training.evaluate_steps"):
        parse_recipe('name = "x"\nbase = "b"\ndata = "d"\n[training]\npatience = 3\n')
