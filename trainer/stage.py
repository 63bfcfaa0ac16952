"""What every stage of a run shares: its arguments, what it tells of each step, where it goes on after a kill.

A stage lives in a folder of its own: `checkpoints/` while it trains, `adapter/` when it is done.
"""

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
import transformers
from transformers import TrainerCallback

from trainer.checkpoints import FOLDER, STATE, Checkpoint, last_checkpoint, runs_out, standing
from trainer.faults import require_finite
from trainer.progress import Progress, Stopped, Watch
from trainer.recipe import Recipe


class Pace(NamedTuple):
    """How a stage goes through its rows. warmup: share of its steps; checkpoint_steps: between two checkpoints."""

    steps: int
    batch_size: int
    accumulate: int
    learning_rate: float
    schedule: str
    warmup: float
    checkpoint_steps: int


def common_arguments(recipe: Recipe, folder: Path, pace: Pace) -> dict[str, Any]:
    """What TRL's trainers of both kinds are given."""
    on_cpu = not torch.cuda.is_available()
    return {
        "output_dir": str(folder / FOLDER),
        "max_steps": pace.steps,
        "per_device_train_batch_size": pace.batch_size,
        "per_device_eval_batch_size": pace.batch_size,
        "gradient_accumulation_steps": pace.accumulate,
        "learning_rate": pace.learning_rate,
        "lr_scheduler_type": pace.schedule,
        "warmup_steps": round(pace.steps * pace.warmup),
        "optim": "adamw_torch_fused",
        "use_cpu": on_cpu,
        "bf16": not on_cpu,
        "gradient_checkpointing": not on_cpu,
        "seed": recipe.seed,
        "data_seed": recipe.seed,
        "logging_steps": 1,
        "logging_nan_inf_filter": False,  # it would log a loss that is no number as 0
        "save_strategy": "steps",
        "save_steps": pace.checkpoint_steps,
        "save_total_limit": 2,
        "report_to": list(recipe.training.report_to) or "none",
        "run_name": recipe.name,
        "disable_tqdm": True,
        "max_length": None,
        "remove_unused_columns": False,
        "dataloader_pin_memory": False,
    }


def go_through(trainer: Any, folder: Path, patience: int = 0) -> None:
    """Train to the end, from the last checkpoint in `folder` if there is one."""
    trainer.remove_callback(transformers.PrinterCallback)
    checkpoint = last_checkpoint(folder)
    if checkpoint and _is_over(checkpoint, trainer.args.max_steps, patience):
        # A killed run may have been at its end already; the Trainer would take a step more.
        trainer._load_from_checkpoint(str(checkpoint.folder))
        trainer.state = transformers.TrainerState.load_from_json(str(checkpoint.folder / STATE))
    else:
        trainer.train(resume_from_checkpoint=str(checkpoint.folder) if checkpoint else None)


def _is_over(checkpoint: Checkpoint, steps: int, patience: int) -> bool:
    return checkpoint.step >= steps or runs_out(standing(checkpoint.history), patience)


def save_adapter(model: Any, folder: Path) -> None:
    """The adapter in `folder/adapter`: for the same run the same bytes, in every process.

    peft writes target_modules, a set, in the order of Python's string hashes, which differ from process to process.
    """
    model.save_pretrained(folder / "adapter")
    config = folder / "adapter" / "adapter_config.json"
    said = json.loads(config.read_bytes())
    said["target_modules"] = sorted(said["target_modules"])
    config.write_text(json.dumps(said, indent=2, sort_keys=True) + "\n")


def recent(history: Sequence[dict[str, Any]], key: str) -> float | None:
    """The mean of the last 20 steps that logged it."""
    last = [float(entry[key]) for entry in history if key in entry][-20:]
    return sum(last) / len(last) if last else None


def seconds(history: Sequence[dict[str, Any]]) -> float:
    """What the steps took, those of killed predecessors included."""
    return sum(float(entry.get("step_seconds", 0.0)) for entry in history)


class Following(TrainerCallback):  # type: ignore[misc]
    """Tells each logged step's loss and the tokens seen so far; ends the stage where that is wished.

    Where the stage evaluates: keeps a checkpoint of the best step, and ends it after `patience` evaluations in a row
    that were no better. All of that follows from the log that each checkpoint holds, so a resumed run decides alike.
    """

    def __init__(self, watch: Watch, patience: int = 0) -> None:
        self._watch, self._patience, self._stopping = watch, patience, False
        self._logged = time.monotonic()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step < state.max_steps and self._watch.stop():
            self._stopping = control.should_save = True

    def on_evaluate(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        now = standing(state.log_history)
        over = runs_out(now, self._patience)
        control.should_save = control.should_save or over or now.best == state.global_step
        control.should_training_stop = control.should_training_stop or over

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if self._stopping:
            raise Stopped(f"stopped after step {state.global_step}")

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:
        if not logs or "loss" not in logs:
            return
        require_finite(logs, ("loss",), state.global_step)
        now = time.monotonic()
        state.log_history[-1]["step_seconds"], self._logged = now - self._logged, now
        tokens, rate = int(logs.get("num_tokens", 0)), float(logs.get("learning_rate", 0.0))
        self._watch.on_progress(Progress(state.global_step, state.max_steps, float(logs["loss"]), tokens, rate))
