"""A run whose numbers are none ends, says so, and leaves no adapter behind that looks finished."""

import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tiny_base import build_tiny_base

from registry.records import FaultKind
from trainer.faults import Diverged, fault_of, require_finite


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_number_that_is_none_ends_the_run(value: float) -> None:
    with pytest.raises(Diverged, match="the validation_loss of step 7 is"):
        require_finite({"train_loss": 1.0, "validation_loss": value}, ("train_loss", "validation_loss"), 7)
    require_finite({"train_loss": 1.0}, ("train_loss",), 7)


def test_it_is_the_users_to_mend() -> None:
    fault = fault_of(Diverged("the loss of step 3 is nan"), "input_invalid")
    assert (fault.error.kind, fault.error.code, fault.retry) == (FaultKind.USER_ERROR, "diverged", False)


@pytest.mark.stack
def test_a_step_without_a_loss_is_told_as_it_is_and_ends_the_run() -> None:
    """The Trainer's own filter would log it as 0."""
    from trainer.progress import Watch
    from trainer.recipe import parse_recipe
    from trainer.stage import Following, Pace, common_arguments

    recipe = parse_recipe('name = "x"\nbase = "b"\ndata = "d.jsonl"')
    assert common_arguments(recipe, Path("x"), Pace(1, 1, 1, 1e-4, "cosine", 0.0, 1))["logging_nan_inf_filter"] is False
    seen: list[object] = []
    state = SimpleNamespace(global_step=3, max_steps=5, log_history=[{}])
    with pytest.raises(Diverged, match="the loss of step 3 is nan"):
        Following(Watch(seen.append)).on_log(None, state, None, logs={"loss": math.nan})
    assert seen == []


STAGES = """
name = "x"
base = "base"
data = "d.jsonl"
[dpo]
pairs = "p.jsonl"
[[waive]]
code = "E140"
reason = "a test's few rows"
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from trainer.libraries import quiet

    place = tmp_path_factory.mktemp("diverged")
    with quiet():
        build_tiny_base(place / "base")
    rows = [{"prompt": f"When is parcel {n} lost?", "completion": f"After {n} days.", "split": "train"} for n in "12"]
    pair = {"prompt": "May I open it?", "chosen": "Yes, you may.", "rejected": "No."}
    for name, lines in {"d.jsonl": rows, "p.jsonl": [pair]}.items():
        (place / name).write_text("".join(json.dumps(line) + "\n" for line in lines))
    return place


@pytest.mark.stack
@pytest.mark.parametrize("stage", ["first", "second"])
def test_what_a_stage_measures_ends_the_run_where_it_is_no_number(
    folder: Path, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    """Its losses were numbers; what it measured in the end is none. The run is not over, and the stage neither."""
    from trainer import preference, qlora
    from trainer.recipe import parse_recipe
    from trainer.run import Reporter, finished, plan_run, run

    first = {"steps": 3.0, "train_seconds": 1.0, "validation_loss": math.nan if stage == "first" else 2.0}
    second = {"dpo_steps": 2.0, "train_seconds": 1.0, "dpo_eval_loss": math.inf}

    def learn(*given: Any) -> dict[str, float]:
        given[5].mkdir()  # the stage's folder
        return first

    monkeypatch.setattr(qlora, "train", learn)
    monkeypatch.setattr(preference, "train", lambda *_: second)
    plan = plan_run(parse_recipe(STAGES), STAGES, folder, folder / "base", folder / stage)
    said = {"first": "the validation_loss of step 3 is nan", "second": "the dpo_eval_loss of step 2 is inf"}
    with pytest.raises(Diverged, match=said[stage]):
        run(plan, Reporter(lambda _: None, lambda *_: None))
    assert not finished(plan) and (plan.directory / "first" / "metrics.json").exists() == (stage == "second")
