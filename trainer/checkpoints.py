"""Which checkpoint a stage goes on from, and which one it gives. Reads directories; needs no training library.

A checkpoint counts only while every file of it is there, and the best one that it names as well: a kill while one is
written or deleted leaves parts of it, and steps that were taken over again end in the same bytes.
"""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

FOLDER = "checkpoints"
STATE = "trainer_state.json"  # written last
_FILES = ("adapter_model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth", STATE)
EVALUATED = "eval_loss"


class Checkpoint(NamedTuple):
    """best: the step whose validation loss was the lowest by then; None where nothing was evaluated."""

    folder: Path
    step: int
    best: int | None
    history: list[dict[str, Any]]


def folder_of(run: Path, step: int) -> Path:
    return run / FOLDER / f"checkpoint-{step}"


def last_checkpoint(run: Path) -> Checkpoint | None:
    """The newest checkpoint that is whole, with the best one that it names."""
    whole = {one.step: one for folder in (run / FOLDER).glob("checkpoint-*") if (one := _read(folder))}
    usable = [one for one in whole.values() if one.best is None or one.best in whole]
    return max(usable, key=lambda one: one.step, default=None)


def _read(folder: Path) -> Checkpoint | None:
    if not all((folder / name).is_file() for name in _FILES):
        return None
    try:
        state = json.loads((folder / STATE).read_bytes())
        history = state.get("log_history", [])
        return Checkpoint(folder, int(state["global_step"]), standing(history).best, history)
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


class Standing(NamedTuple):
    """What the evaluations say so far. loss: of the best step, in nats a token; stale: evaluations since then."""

    best: int | None = None
    loss: float = math.inf
    stale: int = 0


def standing(history: Sequence[Mapping[str, Any]]) -> Standing:
    """Of a stage's log: the lowest validation loss, the first of equal ones; what is no number is never the best.

    >>> standing([{"step": 2, "eval_loss": 2.0}, {"step": 4, "eval_loss": 1.5}, {"step": 6, "eval_loss": 1.5}])
    Standing(best=4, loss=1.5, stale=1)
    """
    now = Standing()
    for entry in history:
        if EVALUATED in entry:
            better = float(entry[EVALUATED]) < now.loss
            now = Standing(int(entry["step"]), float(entry[EVALUATED])) if better else now._replace(stale=now.stale + 1)
    return now


def runs_out(now: Standing, patience: int) -> bool:
    """Whether so many evaluations in a row were no better; patience 0 never runs out."""
    return 0 < patience <= now.stale
