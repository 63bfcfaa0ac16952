"""A run whose numbers are none ends, says so, and leaves no adapter behind that looks finished."""

import math
from pathlib import Path
from types import SimpleNamespace

import pytest

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
