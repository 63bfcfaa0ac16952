"""The first stage: a 4-bit base, LoRA on its linear layers, TRL's SFTTrainer with four overrides.

1. `compute_loss`, on CPU and wherever there are replay rows, for the bases that `trainer.loss` can pack. TRL 1.16
   projects every position through the LM head on CPU, where the labelled ones are enough; and each batch is packed as a
   tree of prefixes. Same loss.
2. Replay rows add the divergence KL(base || adapter) over their tokens: a fine-tune may change what it says about its
   task, and is held to the base everywhere else. Source: learning without forgetting (Li & Hoiem 2016), with the base
   itself, adapter switched off, as the teacher.
3. `_load_from_checkpoint`: peft's load_adapter turns bf16 adapters into float32 (peft#2421), so that a resumed run
   would go on with other numbers.
4. `_get_train_sampler`: rows as they come, where the recipe has put them in an order.

Where the recipe measures the validation loss on the way, the adapter is that of the best step (`trainer.checkpoints`).
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import LoraConfig
from peft.optimizers import create_loraplus_optimizer
from torch.utils.data import Sampler, SequentialSampler
from trl import SFTConfig, SFTTrainer

from registry.client import InvalidRequest
from trainer.checkpoints import Standing, folder_of, runs_out, standing
from trainer.estimate import steps_of
from trainer.examples import IGNORED, Example
from trainer.loss import PACKED_MODELS, Batch, batch_loss, can_pack
from trainer.model import load_model, load_tokenizer, stopped_share
from trainer.progress import Progress, Watch
from trainer.recipe import Recipe
from trainer.stage import Following, Pace, common_arguments, go_through, recent, save_adapter, seconds

__all__ = ["check_replay", "load_model", "load_tokenizer", "train"]


def train(
    model: Any,
    tokenizer: Any,
    recipe: Recipe,
    examples: Sequence[Example],
    validation: Sequence[Example],
    folder: Path,
    on_progress: Callable[[Progress], None],
    stop: Callable[[], bool] = lambda: False,
) -> dict[str, float]:
    """Train, continuing from the last checkpoint in `folder` if there is one, and save the adapter to `folder/adapter`.

    Returns the metrics of the run, those of killed predecessors included: steps, their seconds, loss and divergence of
    the last 20 steps, validation loss, the share of prompts that the adapter answers to an end; where the recipe
    evaluates as it goes, also the step that is kept and whether the run ended early. Raises InvalidRequest for a base
    or data that the recipe does not fit, and Stopped, with a checkpoint of that step kept, after the step in which
    `stop` says so.
    """
    plan = recipe.training
    if plan.evaluate_steps and not validation:
        raise InvalidRequest(
            f"training.evaluate_steps = {plan.evaluate_steps}, but no row is left for validation; give more groups of "
            'rows, declare some with "split": "validation", or leave evaluate_steps out'
        )
    trainer = _make_trainer(model, tokenizer, recipe, examples, validation, folder, Watch(on_progress, stop))
    go_through(trainer, folder, plan.patience)
    history = list(trainer.state.log_history)
    metrics = {"steps": float(trainer.state.global_step), "train_seconds": seconds(history)}
    for name, key in (("train_loss", "loss"), ("replay_divergence", "replay_divergence")):
        if (found := recent(history, key)) is not None:
            metrics[name] = found
    if plan.evaluate_steps:
        metrics |= _take_best(trainer, folder, standing(history), plan.patience)
    if validation:
        metrics["validation_loss"] = trainer.evaluate()["eval_loss"]
    save_adapter(trainer.model, folder)
    if (share := stopped_share(trainer.model, tokenizer, validation or examples)) is not None:
        metrics["stopped_share"] = share
    return metrics


def _take_best(trainer: "_Trainer", folder: Path, now: Standing, patience: int) -> dict[str, float]:
    """Put the weights of the best step in place of the last one's."""
    if now.best is None:
        raise InvalidRequest("the validation loss was never a number; lower training.learning_rate, or mend the data")
    if now.best != trainer.state.global_step:
        trainer._load_from_checkpoint(str(folder_of(folder, now.best)))
    return {"best_step": float(now.best), "stopped_early": float(runs_out(now, patience))}


def _make_trainer(
    model: Any,
    tokenizer: Any,
    recipe: Recipe,
    examples: Sequence[Example],
    validation: Sequence[Example],
    folder: Path,
    watch: Watch,
) -> "_Trainer":
    plan = recipe.training
    longest = max(len(one.ids) for one in [*examples, *validation])
    check_replay(model, recipe, longest)
    packs = can_pack(model.config.get_text_config(), longest)
    trainer = _Trainer(
        model=model,
        args=SFTConfig(
            **common_arguments(recipe, folder, _pace(recipe, len(examples))),
            **_evaluation(recipe),
            dataset_kwargs={"skip_prepare_dataset": True},
        ),
        train_dataset=_dataset(examples),
        eval_dataset=_dataset(validation) if validation else None,
        data_collator=_Collator(tokenizer.pad_token_id),
        processing_class=tokenizer,
        peft_config=_lora(recipe, model),
        callbacks=[Following(watch, plan.patience)],
    )
    _set_dtype(trainer.model, recipe)
    trainer.plus_ratio = recipe.lora.plus_ratio
    trainer.replay_weight = recipe.replay.weight if recipe.replay else 0.0
    trainer.packs = packs and (not torch.cuda.is_available() or recipe.replay is not None)
    trainer.in_order = plan.order != "random"
    return trainer


def _pace(recipe: Recipe, rows: int) -> Pace:
    plan = recipe.training
    return Pace(
        steps_of(rows, plan),
        plan.batch_size,
        plan.accumulate,
        plan.learning_rate,
        plan.schedule,
        plan.warmup,
        plan.checkpoint_steps,
    )


def _evaluation(recipe: Recipe) -> dict[str, Any]:
    """metric_for_best_model makes the Trainer keep the best step's checkpoint when it deletes older ones."""
    if not recipe.training.evaluate_steps:
        return {}
    return {
        "eval_strategy": "steps",
        "eval_steps": recipe.training.evaluate_steps,
        "metric_for_best_model": "loss",
        "greater_is_better": False,
    }


class _Trainer(SFTTrainer):  # type: ignore[misc]
    """SFTTrainer with the overrides that the module's docstring explains."""

    replay_weight = 0.0
    optimizer: Any
    plus_ratio = 1.0  # learning rate of B over that of A (LoRA+)
    packs = False  # whether batches are computed here; otherwise by TRL
    in_order = False  # whether every epoch takes the rows as they come

    def __init__(self, **arguments: Any) -> None:
        try:
            super().__init__(**arguments)
        except ValueError as error:
            raise InvalidRequest(f"the adapter does not fit the base: {error}") from None

    def create_optimizer(self, model: Any = None) -> Any:
        if self.plus_ratio == 1.0:
            return super().create_optimizer(model)
        if self.optimizer is None:
            kind, options = self.get_optimizer_cls_and_kwargs(self.args, self.model)
            self.optimizer = create_loraplus_optimizer(self.model, kind, loraplus_lr_ratio=self.plus_ratio, **options)
        return self.optimizer

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        replay, starts = inputs.pop("replay"), inputs.pop("starts")
        if return_outputs or not self._here():
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        lengths = inputs["attention_mask"].sum(1).tolist()
        rows = [ids[:length] for ids, length in zip(inputs["input_ids"].tolist(), lengths, strict=True)]
        batch = Batch(rows, inputs["labels"].tolist(), replay.tolist(), starts.tolist())
        found = batch_loss(model, batch, self.model.dtype, replay=bool(self.replay_weight))
        total = found.answer_tokens if num_items_in_batch is None else num_items_in_batch
        loss = found.answers / torch.as_tensor(total).clamp(min=1)
        if found.replay_tokens:
            divergence = found.divergence / found.replay_tokens
            if self.model.training:
                self._metrics["train"]["replay_divergence"].append(divergence.item())
            # As TRL weighs its own auxiliary loss: without a token count the Trainer divides by itself.
            share = self.current_gradient_accumulation_steps if num_items_in_batch is not None else 1
            loss = loss + self.replay_weight * divergence / share
        if self.model.training:
            self._total_train_tokens += sum(map(len, rows))
            self._metrics["train"]["num_tokens"] = [self._total_train_tokens]
        return loss

    def _here(self) -> bool:
        plain = self.args.loss_type == "nll" and self.accelerator.num_processes == 1 and not self.aux_loss_enabled
        if self.replay_weight and not plain:
            raise InvalidRequest("replay rows need one process and TRL's plain nll loss")
        return plain and self.packs

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler[int] | None:
        if not self.in_order:
            return super()._get_train_sampler(train_dataset)
        return SequentialSampler(self.train_dataset if train_dataset is None else train_dataset)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        wanted = {name: p.dtype for name, p in self.model.named_parameters() if p.requires_grad}
        super()._load_from_checkpoint(resume_from_checkpoint, model)
        for name, parameter in self.model.named_parameters():
            if name in wanted and parameter.dtype != wanted[name]:
                parameter.data = parameter.data.to(wanted[name])


def check_replay(model: Any, recipe: Recipe, longest: int) -> None:
    """Raises InvalidRequest where the recipe has replay rows and the base cannot take them."""
    config = model.config.get_text_config()
    if recipe.replay and not can_pack(config, longest):
        raise InvalidRequest(
            f"replay rows need a base that is one of {', '.join(sorted(PACKED_MODELS))}, without an attention window "
            f"shorter than the longest row ({longest} tokens), not {config.model_type}; take the [replay] section "
            "out of the recipe"
        )


class _Collator:
    """Pads a batch on the right and keeps what `compute_loss` needs to know about each row."""

    def __init__(self, pad: int) -> None:
        self._pad = pad

    def __call__(self, batch: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        longest = max(len(row["input_ids"]) for row in batch)
        gaps = [longest - len(row["input_ids"]) for row in batch]
        rows = list(zip(batch, gaps, strict=True))
        return {
            "input_ids": torch.tensor([row["input_ids"] + [self._pad] * gap for row, gap in rows]),
            "labels": torch.tensor([row["labels"] + [IGNORED] * gap for row, gap in rows]),
            "attention_mask": torch.tensor([[1] * (longest - gap) + [0] * gap for gap in gaps]),
            "replay": torch.tensor([row["replay"] for row in batch]),
            "starts": torch.tensor([row["start"] for row in batch]),
        }


def _lora(recipe: Recipe, model: Any) -> LoraConfig:
    layers = model.config.get_text_config().num_hidden_layers
    first = recipe.lora.first_layer
    if first >= layers:
        raise InvalidRequest(f"lora.first_layer = {first}, but the base has {layers} layers; give at most {layers - 1}")
    return LoraConfig(
        r=recipe.lora.rank,
        lora_alpha=recipe.lora.alpha,
        lora_dropout=recipe.lora.dropout,
        use_rslora=recipe.lora.rslora,
        target_modules=list(recipe.lora.target_modules),
        layers_to_transform=list(range(first, layers)) if first else None,
        task_type="CAUSAL_LM",
    )


def _set_dtype(model: Any, recipe: Recipe) -> None:
    """The adapter's weights in the recipe's type; TRL has made them bfloat16."""
    if recipe.lora.dtype == "float32":
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.data = parameter.data.float()


def _dataset(examples: Sequence[Example]) -> Dataset:
    return Dataset.from_dict(
        {
            "input_ids": [one.ids for one in examples],
            "labels": [one.labels for one in examples],
            "replay": [one.replay for one in examples],
            "start": [one.start for one in examples],
        }
    )
