"""Which checkpoints of a run nobody was told of. Reads directories only; needs no training library.

A run of two stages counts its steps through both: those of the second follow those of the first.
"""

import json
import math
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from trainer.checkpoints import EVALUATED, FOLDER, STATE

FIRST = "first"  # where the first of two stages lives


class Saved(NamedTuple):
    """A checkpoint: the step of the whole run, the loss of training and of validation then, where there was one.

    The second stage has no validation loss: what it measures are pairs.
    """

    step: int
    loss: float | None
    validation_loss: float | None


class Shelf:
    """The checkpoints of one run. told: the steps of those that an earlier attempt told of.

    What that one had saved, but was killed before it could tell, is new.
    """

    def __init__(self, run: Path, told: Collection[int] = ()) -> None:
        self._run = run
        self._known = {folder for folder in self._folders() if (one := self._read(folder)) and one.step in told}

    def new(self) -> list[Saved]:
        """Checkpoints that were not told of before, by step; one that cannot be read is none."""
        fresh = [folder for folder in self._folders() if folder not in self._known and (folder / STATE).is_file()]
        self._known.update(fresh)
        found = [saved for folder in fresh if (saved := self._read(folder))]
        return sorted(found)

    def _folders(self) -> list[Path]:
        return [one for stage in (self._run / FIRST, self._run) for one in (stage / FOLDER).glob("checkpoint-*")]

    def _read(self, folder: Path) -> Saved | None:
        try:
            state = json.loads((folder / STATE).read_bytes())
            step, history = int(state["global_step"]), state.get("log_history", [])
            behind = 0 if folder.parent.parent.name == FIRST else self._steps_of_first()
            measured = _last(history, EVALUATED, of=step) if not behind else None
            return Saved(behind + step, _last(history, "loss"), measured)
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None

    def _steps_of_first(self) -> int:
        kept = self._run / FIRST / "metrics.json"
        return int(json.loads(kept.read_bytes())["steps"]) if kept.is_file() else 0


def _last(history: Sequence[dict[str, Any]], key: str, of: int | None = None) -> float | None:
    """The last finite value that was logged; `of`: at this step."""
    told = [float(one[key]) for one in history if key in one and (of is None or one.get("step") == of)]
    return next((value for value in reversed(told) if math.isfinite(value)), None)
