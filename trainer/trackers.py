"""Experiment trackers that a recipe asks for (`training.report_to`). None by default: nothing leaves the machine.

Each is configured as its own project says, by environment variables of the machine that trains (WANDB_PROJECT,
MLFLOW_TRACKING_URI …); TensorBoard's files lie in the run's directory.
"""

import contextlib
import importlib.util
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from registry.client import InvalidRequest
from trainer.recipe import Recipe

_FOLDER = "TENSORBOARD_LOGGING_DIR"


def _is_there(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def require_trackers(recipe: Recipe, is_there: Callable[[str], bool] = _is_there) -> None:
    """Raises InvalidRequest for a tracker whose package is not installed."""
    if missing := sorted({name for name in recipe.training.report_to if not is_there(name)}):
        raise InvalidRequest(
            f"training.report_to names {', '.join(missing)}, which is not installed where the run trains; "
            f"pip install {' '.join(missing)} there, or leave it out"
        )


@contextlib.contextmanager
def trackers_in(run: Path) -> Iterator[None]:
    """TensorBoard's files beside the run's own, unless the machine says otherwise: checkpoints are deleted."""
    if _FOLDER in os.environ:
        yield
        return
    os.environ[_FOLDER] = str(run / "tensorboard")
    try:
        yield
    finally:
        del os.environ[_FOLDER]
