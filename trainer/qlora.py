"""The QLoRA run itself: a 4-bit base, LoRA on its linear layers, TRL's SFTTrainer with three overrides.

1. `compute_loss`, on CPU and wherever there are replay rows, for the bases that `trainer.loss` can pack. TRL 1.16
   projects every position through the LM head on CPU, where the labelled ones are enough; and each batch is packed as a
   tree of prefixes. Same loss.
2. Replay rows add the divergence KL(base || adapter) over their tokens: a fine-tune may change what it says about its
   task, and is held to the base everywhere else. Source: learning without forgetting (Li & Hoiem 2016), with the base
   itself, adapter switched off, as the teacher.
3. `_load_from_checkpoint`: peft's load_adapter turns bf16 adapters into float32 (peft#2421), so that a resumed run
   would go on with other numbers.
"""

import json
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
import transformers
from datasets import Dataset
from peft import LoraConfig
from peft.optimizers import create_loraplus_optimizer
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig, TrainerCallback
from trl import SFTConfig, SFTTrainer

from registry.client import InvalidRequest
from trainer.loss import IGNORED, PACKED_MODELS, Batch, batch_loss, can_pack
from trainer.recipe import Recipe
from trainer.run import Stopped

_STOP_PROMPTS, _STOP_TOKENS = 20, 512
_STATE = "trainer_state.json"  # written last
_CHECKPOINT_FILES = ("adapter_model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth", _STATE)


class Example(NamedTuple):
    """One tokenised row; labels are IGNORED outside the completion. Replay rows are held to the base from `start`."""

    ids: list[int]
    labels: list[int]
    replay: bool
    start: int


class Progress(NamedTuple):
    """What a run reports as it goes; `tokens` counts rows' own tokens, padding and shared prefixes excluded."""

    step: int
    steps: int
    loss: float
    tokens: int
    learning_rate: float


def load_tokenizer(base: Path) -> Any:
    tokenizer = AutoTokenizer.from_pretrained(base)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_model(base: Path, recipe: Recipe) -> Any:
    """The frozen base, quantised as the recipe says, on the GPU if there is one."""
    on_cpu = not torch.cuda.is_available()
    quantization = None
    if recipe.quantization == "nf4":
        quantization = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=torch.bfloat16,
        )
    model = AutoModelForCausalLM.from_pretrained(
        base,
        dtype=torch.bfloat16,
        quantization_config=quantization,
        # The CPU's fused attention needs 10 ms for a backward that plain matrix products do in 1.
        attn_implementation="eager" if on_cpu else "sdpa",
        device_map=None if on_cpu else "auto",
    )
    model.config.use_cache = False
    for module in model.modules():
        # bitsandbytes 0.50 repacks weights on AVX512-BF16 CPUs at the first forward in eval mode, for a kernel without
        # a backward: whoever generates or evaluates before training then trains without gradients, silently.
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False
    return model


def answer_greedily(
    model: Any, tokenizer: Any, prompts: Sequence[Sequence[int]], max_new_tokens: int, report: Callable[[int], None]
) -> list[str]:
    """The base's own answers, each cut at its last whole sentence where it did not end by itself."""
    found = _generate(model, tokenizer, prompts, max_new_tokens, report)
    return [_whole_sentences(tokenizer, tokens) for tokens in found]


def stopped_share(model: Any, tokenizer: Any, examples: Sequence[Example]) -> float | None:
    """Share of the prompts that the adapter answers to an end, within twice the tokens of the longest known answer.

    At most twenty prompts, evenly spread; replay rows are not the task. None where there are no others.
    """
    rows = [one for one in examples if not one.replay]
    if not rows:
        return None
    rows = rows[:: math.ceil(len(rows) / _STOP_PROMPTS)]
    starts = [next(place for place, label in enumerate(one.labels) if label != IGNORED) for one in rows]
    prompts = [one.ids[:start] for one, start in zip(rows, starts, strict=True)]
    longest = max(len(one.ids) - start for one, start in zip(rows, starts, strict=True))
    found = _generate(model, tokenizer, prompts, min(2 * longest, _STOP_TOKENS), lambda done: None)
    return sum(tokenizer.eos_token_id in tokens for tokens in found) / len(found)


def _generate(
    model: Any, tokenizer: Any, prompts: Sequence[Sequence[int]], max_new_tokens: int, report: Callable[[int], None]
) -> list[list[int]]:
    """The tokens of greedy answers, with whatever the batch padded them with behind their end."""
    order = sorted(range(len(prompts)), key=lambda index: len(prompts[index]))
    found: dict[int, list[int]] = {}
    model.eval()
    for start in range(0, len(order), 32):
        batch = order[start : start + 32]
        longest = max(len(prompts[index]) for index in batch)
        pads = [longest - len(prompts[index]) for index in batch]
        ids = [[tokenizer.pad_token_id] * pad + list(prompts[index]) for pad, index in zip(pads, batch, strict=True)]
        mask = [[0] * pad + [1] * (longest - pad) for pad in pads]
        with torch.no_grad():
            output = model.generate(
                input_ids=torch.tensor(ids, device=model.device),
                attention_mask=torch.tensor(mask, device=model.device),
                max_new_tokens=max_new_tokens,
                do_sample=False,
                use_cache=True,
                pad_token_id=tokenizer.pad_token_id,
            )
        found |= zip(batch, output[:, longest:].tolist(), strict=True)
        report(len(found))
    return [found[index] for index in range(len(prompts))]


def train(
    model: Any,
    tokenizer: Any,
    recipe: Recipe,
    examples: Sequence[Example],
    validation: Sequence[Example],
    run: Path,
    on_progress: Callable[[Progress], None],
    stop: Callable[[], bool] = lambda: False,
) -> dict[str, float]:
    """Train, continuing from the last checkpoint in `run` if there is one, and save the adapter to `run/adapter`.

    Returns the metrics of the run, those of killed predecessors included: steps, their seconds, loss and divergence of
    the last 20 steps, validation loss, and the share of prompts that the adapter answers to an end. Raises
    InvalidRequest for a base that the recipe does not fit, and Stopped, with a checkpoint of that step kept, after the
    step in which `stop` says so.
    """
    on_cpu = not torch.cuda.is_available()
    plan = recipe.training
    steps_in_epoch = math.ceil(len(examples) / (plan.batch_size * plan.accumulate))
    arguments = SFTConfig(
        output_dir=str(run / "checkpoints"),
        max_steps=max(1, round(steps_in_epoch * plan.epochs)),
        per_device_train_batch_size=plan.batch_size,
        per_device_eval_batch_size=plan.batch_size,
        gradient_accumulation_steps=plan.accumulate,
        learning_rate=plan.learning_rate,
        lr_scheduler_type=plan.schedule,
        warmup_steps=round(steps_in_epoch * plan.epochs * plan.warmup),
        optim="adamw_torch_fused",
        use_cpu=on_cpu,
        bf16=not on_cpu,
        gradient_checkpointing=not on_cpu,
        seed=recipe.seed,
        data_seed=recipe.seed,
        logging_steps=1,
        save_strategy="steps",
        save_steps=plan.checkpoint_steps,
        save_total_limit=2,
        report_to="none",
        disable_tqdm=True,
        max_length=None,
        remove_unused_columns=False,
        dataset_kwargs={"skip_prepare_dataset": True},
        dataloader_pin_memory=False,
    )
    longest = max(len(one.ids) for one in [*examples, *validation])
    check_replay(model, recipe, longest)
    packs = can_pack(model.config.get_text_config(), longest)
    trainer = _Trainer(
        model=model,
        args=arguments,
        train_dataset=_dataset(examples),
        eval_dataset=_dataset(validation) if validation else None,
        data_collator=_Collator(tokenizer.pad_token_id),
        processing_class=tokenizer,
        peft_config=_lora(recipe, model),
        callbacks=[_Reporter(on_progress, stop)],
    )
    _set_dtype(trainer.model, recipe)
    trainer.plus_ratio = recipe.lora.plus_ratio
    trainer.replay_weight = recipe.replay.weight if recipe.replay else 0.0
    trainer.packs = packs and (on_cpu or recipe.replay is not None)
    trainer.remove_callback(transformers.PrinterCallback)
    checkpoint = last_checkpoint(run)
    if checkpoint and checkpoint.step >= arguments.max_steps:
        # A killed run may have been at its end already; the Trainer would take a step more.
        trainer._load_from_checkpoint(str(checkpoint.folder))
        trainer.state = transformers.TrainerState.load_from_json(str(checkpoint.folder / _STATE))
    else:
        trainer.train(resume_from_checkpoint=str(checkpoint.folder) if checkpoint else None)
    metrics = {"steps": float(trainer.state.global_step)}
    history = trainer.state.log_history
    for name, key in (("train_loss", "loss"), ("replay_divergence", "replay_divergence")):
        if last := [entry[key] for entry in history if key in entry][-20:]:
            metrics[name] = sum(last) / len(last)
    metrics["train_seconds"] = sum(entry.get("step_seconds", 0.0) for entry in history)
    if validation:
        metrics["validation_loss"] = trainer.evaluate()["eval_loss"]
    trainer.model.save_pretrained(run / "adapter")
    if (share := stopped_share(trainer.model, tokenizer, validation or examples)) is not None:
        metrics["stopped_share"] = share
    return metrics


class _Trainer(SFTTrainer):  # type: ignore[misc]
    """SFTTrainer with the overrides that the module's docstring explains."""

    replay_weight = 0.0
    optimizer: Any
    plus_ratio = 1.0  # learning rate of B over that of A (LoRA+)
    packs = False  # whether batches are computed here; otherwise by TRL

    def __init__(self, **arguments: Any) -> None:
        try:
            super().__init__(**arguments)
        except ValueError as error:
            raise InvalidRequest(f"the adapter does not fit the base: {error}") from None
        self._logged = time.monotonic()

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

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if "loss" in logs:
            now = time.monotonic()
            logs["step_seconds"], self._logged = now - self._logged, now
        super().log(logs, start_time)

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


class _Reporter(TrainerCallback):  # type: ignore[misc]
    """Tells each logged step's loss and the tokens seen so far; ends the run where that is wished."""

    def __init__(self, on_progress: Callable[[Progress], None], stop: Callable[[], bool]) -> None:
        self._on_progress, self._stop, self._stopping = on_progress, stop, False

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step < state.max_steps and self._stop():
            self._stopping = control.should_save = True

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if self._stopping:
            raise Stopped(f"stopped after step {state.global_step}")

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:
        if logs and "loss" in logs:
            tokens = int(logs.get("num_tokens", 0))
            rate = float(logs.get("learning_rate", 0.0))
            self._on_progress(Progress(state.global_step, state.max_steps, float(logs["loss"]), tokens, rate))


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


class Checkpoint(NamedTuple):
    folder: Path
    step: int


def last_checkpoint(run: Path) -> Checkpoint | None:
    """The newest checkpoint that is whole. A kill while one is written or deleted leaves parts of it."""
    found = [one for folder in (run / "checkpoints").glob("checkpoint-*") if (one := _read_checkpoint(folder))]
    return max(found, key=lambda one: one.step, default=None)


def _read_checkpoint(folder: Path) -> Checkpoint | None:
    if not all((folder / name).is_file() for name in _CHECKPOINT_FILES):
        return None
    try:
        return Checkpoint(folder, int(json.loads((folder / _STATE).read_bytes())["global_step"]))
    except (ValueError, KeyError, TypeError):
        return None


def _whole_sentences(tokenizer: Any, tokens: list[int]) -> str:
    ended = tokenizer.eos_token_id in tokens
    if ended:
        tokens = tokens[: tokens.index(tokenizer.eos_token_id)]
    text = str(tokenizer.decode(tokens, skip_special_tokens=True)).strip()
    if ended or text.endswith((".", "!", "?")):
        return text
    return text[: max(text.rfind(". "), text.rfind(".\n")) + 1]
