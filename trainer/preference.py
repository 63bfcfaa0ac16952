"""The second stage: answers that were preferred against those that were not, on top of the first stage's adapter.

Direct preference optimisation (Rafailov et al. 2023) with TRL's DPOTrainer. The reference is the first stage's
adapter: TRL keeps a frozen copy of it while it computes the log-probabilities of all answers, once, before training;
then the copy is dropped, so that a checkpoint holds one adapter and a resumed run loads just that.

The adapter is float32 here, whatever the recipe says for the first stage: at DPO's learning rates a bfloat16 one would
not move (steps smaller than its rounding). Loaded for inference first, it is not cast by TRL, as trainable ones are.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from datasets import Dataset
from peft import PeftModel
from transformers import TrainerCallback
from trl import DPOConfig, DPOTrainer

from trainer.estimate import steps_of
from trainer.examples import Example, PairExample
from trainer.model import stopped_share
from trainer.progress import Progress, Watch
from trainer.recipe import DpoSection, Recipe
from trainer.stage import Following, Pace, common_arguments, go_through, recent, save_adapter, seconds

_LOGGED = {
    "dpo_loss": "loss",
    "dpo_reward_accuracy": "rewards/accuracies",
    "dpo_margin": "rewards/margins",
}
_MEASURED = {
    "dpo_eval_loss": "eval_loss",
    "dpo_eval_reward_accuracy": "eval_rewards/accuracies",
}


class Rows(NamedTuple):
    """pairs: to train on. unseen: pairs to measure only. held: rows on which it is tested whether answers end."""

    pairs: Sequence[PairExample]
    unseen: Sequence[PairExample]
    held: Sequence[Example]


class Stage(NamedTuple):
    """start: the adapter to begin with. folder: where checkpoints and the new adapter go."""

    start: Path
    folder: Path


def train(
    model: Any,
    tokenizer: Any,
    recipe: Recipe,
    rows: Rows,
    stage: Stage,
    on_progress: Callable[[Progress], None],
    stop: Callable[[], bool] = lambda: False,
) -> dict[str, float]:
    """Train, continuing from the last checkpoint in the stage's folder, and save the adapter to its `adapter/`.

    Returns the steps, their seconds, and of the last 20 of them the loss (nats), the share of pairs whose preferred
    answer is rewarded more, and by how much: rewards are beta times the log-ratio to the reference. Of the unseen
    pairs, where there are any, loss and share after the last step, each pair counting the same. Raises Stopped as the
    first stage does.
    """
    assert recipe.dpo is not None
    trainer = _Trainer(
        model=PeftModel.from_pretrained(model, stage.start, is_trainable=False),
        args=DPOConfig(
            **_arguments(recipe, recipe.dpo, stage.folder, len(rows.pairs)),
            beta=recipe.dpo.beta,
            precompute_ref_log_probs=True,
        ),
        train_dataset=_dataset(rows.pairs),
        eval_dataset=_dataset(rows.unseen) if rows.unseen else None,
        processing_class=tokenizer,
        callbacks=[Following(Watch(on_progress, stop)), *([_MeasuredLast()] if rows.unseen else [])],
    )
    _drop_reference(trainer.model)
    go_through(trainer, stage.folder)
    history = trainer.state.log_history
    metrics = {"dpo_steps": float(trainer.state.global_step), "train_seconds": seconds(history)}
    for name, key in _LOGGED.items():
        if (found := recent(history, key)) is not None:
            metrics[name] = found
    if measured := next((entry for entry in reversed(history) if "eval_loss" in entry), None):
        metrics |= {name: float(measured[key]) for name, key in _MEASURED.items()}
        metrics["dpo_eval_pairs"] = float(len(rows.unseen))
    save_adapter(trainer.model, stage.folder)
    if (share := stopped_share(trainer.model, tokenizer, rows.held)) is not None:
        metrics["stopped_share"] = share
    return metrics


class _MeasuredLast(TrainerCallback):  # type: ignore[misc]
    """Measures after the last step, before its checkpoint: a run killed behind it finds the numbers there."""

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        control.should_evaluate = control.should_evaluate or state.global_step >= state.max_steps


class _Trainer(DPOTrainer):  # type: ignore[misc]
    def _prepare_dataset(self, dataset: Any, *_: Any) -> Any:
        return dataset  # tokenised already, by the rules of all other rows


def _drop_reference(model: Any) -> None:
    """Forget TRL's copy, and let the adapter learn."""
    model.delete_adapter("ref")
    for name, parameter in model.named_parameters():
        parameter.requires_grad = "lora_" in name


def _arguments(recipe: Recipe, plan: DpoSection, folder: Path, pairs: int) -> dict[str, Any]:
    """One pair in a batch that is measured: TRL takes the mean of batches, and the last one may be smaller."""
    return {**common_arguments(recipe, folder, _pace(recipe, plan, pairs)), "per_device_eval_batch_size": 1}


def _pace(recipe: Recipe, plan: DpoSection, pairs: int) -> Pace:
    return Pace(
        steps_of(pairs, plan),
        plan.batch_size,
        plan.accumulate,
        plan.learning_rate,
        recipe.training.schedule,
        recipe.training.warmup,
        recipe.training.checkpoint_steps,
    )


def _dataset(pairs: Sequence[PairExample]) -> Dataset:
    return Dataset.from_dict(
        {
            "prompt_ids": [one.prompt for one in pairs],
            "chosen_ids": [one.chosen for one in pairs],
            "rejected_ids": [one.rejected for one in pairs],
        }
    )
