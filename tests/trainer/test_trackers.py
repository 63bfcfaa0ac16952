"""Experiment trackers: asked for by the recipe, told every step, refused where they are not installed; else silent."""

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from tiny_base import build_tiny_base

from registry.client import InvalidRequest
from trainer.libraries import quiet
from trainer.recipe import LoraSection, Recipe, TrainingSection, parse_recipe
from trainer.trackers import require_trackers, trackers_in

TEXT = 'name = "x"\nbase = "b"\ndata = "d"\n[training]\n'
# What transformers calls of MLflow, written down instead of sent.
MLFLOW = """
import json, types
__version__ = "3.0.0"
utils = types.SimpleNamespace(validation=types.SimpleNamespace(MAX_PARAMS_TAGS_PER_BATCH=100, MAX_PARAM_VAL_LENGTH=250))
runs = []
class _Run:
    class info:
        run_id = "r"
def _tell(kind, value):
    with open(TOLD, "a") as file:
        file.write(json.dumps([kind, value]) + "\\n")
def is_tracking_uri_set(): return True
def get_tracking_uri(): return "nowhere"
def set_tracking_uri(uri): pass
def set_experiment(name): pass
def active_run(): return runs[-1] if runs else None
def start_run(**given):
    _tell("run", given.get("run_name"))
    runs.append(_Run)
    return _Run
def log_params(params, **_): pass
def set_tags(tags): pass
def log_metrics(metrics, step=None, **_): _tell("metrics", {"step": step, **metrics})
def end_run(*_): _tell("end", None)
"""


def test_a_recipe_says_nothing_to_anyone_unless_it_names_a_tracker() -> None:
    assert parse_recipe(TEXT).training.report_to == ()
    require_trackers(parse_recipe(TEXT), lambda _: False)
    asked = parse_recipe(TEXT + 'report_to = ["wandb", "tensorboard", "mlflow"]\n')
    require_trackers(asked, lambda _: True)
    with pytest.raises(
        InvalidRequest, match=r"names mlflow, wandb, which is not installed .* pip install mlflow wandb"
    ):
        require_trackers(asked, lambda name: name == "tensorboard")
    with pytest.raises(InvalidRequest, match=r"report_to.*does not fit"):
        parse_recipe(TEXT + 'report_to = ["all"]\n')


def test_tensorboards_files_lie_in_the_runs_directory_unless_the_machine_says_where(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TENSORBOARD_LOGGING_DIR", raising=False)
    with trackers_in(tmp_path):
        assert os.environ["TENSORBOARD_LOGGING_DIR"] == str(tmp_path / "tensorboard")
    assert "TENSORBOARD_LOGGING_DIR" not in os.environ
    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", "/elsewhere")
    with trackers_in(tmp_path):
        assert os.environ["TENSORBOARD_LOGGING_DIR"] == "/elsewhere"
    assert os.environ["TENSORBOARD_LOGGING_DIR"] == "/elsewhere"


@pytest.fixture
def mlflow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where the stand-in for MLflow writes what it is told."""
    (tmp_path / "packages").mkdir()
    told = tmp_path / "told.jsonl"
    (tmp_path / "packages" / "mlflow.py").write_text(f"TOLD = {str(told)!r}\n{MLFLOW}")
    monkeypatch.syspath_prepend(str(tmp_path / "packages"))
    yield told
    sys.modules.pop("mlflow", None)


@pytest.mark.stack
@pytest.mark.parametrize("asked", [True, False])
def test_a_tracker_is_told_every_step_if_it_is_asked_for(mlflow: Path, tmp_path: Path, asked: bool) -> None:
    """Also where it is installed: what transformers does of itself is to tell every tracker that it finds."""
    from trainer import qlora
    from trainer.examples import IGNORED, Example

    plan = TrainingSection(epochs=1.0, batch_size=4, accumulate=1, report_to=("mlflow",) if asked else ())
    recipe = Recipe(name="tracked", base="t", data="d", lora=LoraSection(rank=8), training=plan)
    rows = [Example([0, 50, 60, 70 + n, 80, 1], [IGNORED] * 4 + [80, 1], False, 0) for n in range(8)]
    with quiet():
        base = build_tiny_base(tmp_path / "base")
        model, tokenizer = qlora.load_model(base, recipe), qlora.load_tokenizer(base)
        qlora.train(model, tokenizer, msgspec.structs.replace(recipe), rows, [], tmp_path / "run", lambda _: None)
    if not asked:
        assert not mlflow.exists()
        return
    told = [json.loads(line) for line in mlflow.read_text().splitlines()]
    assert told[0] == ["run", "tracked"]
    losses = {value["step"]: value["loss"] for kind, value in told if kind == "metrics" and "loss" in value}
    assert sorted(losses) == [1, 2] and all(loss > 0 for loss in losses.values())
