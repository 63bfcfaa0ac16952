"""Two ways to train the same rows, each as a script: a TRL user's, and our trainer without anything around it.

python -m benchmarks.trainer_scripts "stock TRL" BASE FOLDER STEPS
"""

import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from trainer.dataset import Split
from trainer.libraries import quiet
from trainer.recipe import Recipe, read_recipe

RECIPE = Path(__file__).parent.parent / "suites" / "support-desk" / "recipe.toml"


class Result(NamedTuple):
    """loss: mean over the steps."""

    tokens_per_second: float
    tokens_per_cpu_second: float
    loss: float


def main() -> None:
    name, base, folder, steps = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4])
    with quiet():
        recipe, text = read_recipe(RECIPE)
        recipe = _once(recipe)
        examples = _examples(recipe, text, base, steps)
        with tempfile.TemporaryDirectory(dir=folder) as place:
            found = _measured(examples, SCRIPTS[name](recipe, base, examples, Path(place)))
    print(json.dumps(found._asdict()))


def _measured(examples: list[Any], train: Callable[[], list[float]]) -> Result:
    started, cpu = time.monotonic(), time.process_time()
    losses = train()
    seconds, cpu = time.monotonic() - started, time.process_time() - cpu
    tokens = sum(len(one.ids) for one in examples)
    return Result(tokens / seconds, tokens / cpu, statistics.fmean(losses))


def _examples(recipe: Recipe, text: str, base: Path, steps: int) -> list[Any]:
    from trainer import qlora, run

    plan = run.plan_run(recipe, text, RECIPE.parent, base, Path(tempfile.gettempdir()))
    tokenizer = qlora.load_tokenizer(base)
    rows = plan.data.rows[: steps * recipe.training.batch_size]
    return [run.tokenise("data", row, Split.TRAIN, tokenizer, recipe).example for row in rows]


def _ours(recipe: Recipe, base: Path, examples: list[Any], place: Path) -> Callable[[], list[float]]:
    from trainer import qlora

    model, tokenizer = qlora.load_model(base, recipe), qlora.load_tokenizer(base)
    losses: list[float] = []

    def train() -> list[float]:
        qlora.train(model, tokenizer, recipe, examples, [], place, lambda seen: losses.append(seen.loss))
        return losses

    return train


def _stock(recipe: Recipe, base: Path, examples: list[Any], place: Path) -> Callable[[], list[float]]:
    """The same run as a TRL user writes it: SFTTrainer with a peft config, nothing overridden."""
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig, PrinterCallback
    from trl import SFTConfig, SFTTrainer

    from trainer import qlora

    on_cpu = not torch.cuda.is_available()
    quantization = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16, quantization_config=quantization)
    layers = range(recipe.lora.first_layer, model.config.num_hidden_layers)
    trainer = SFTTrainer(
        model=model,
        args=SFTConfig(
            output_dir=str(place),
            max_steps=len(examples) // recipe.training.batch_size,
            per_device_train_batch_size=recipe.training.batch_size,
            learning_rate=recipe.training.learning_rate,
            lr_scheduler_type=recipe.training.schedule,
            warmup_steps=0,
            optim="adamw_torch_fused",
            use_cpu=on_cpu,
            bf16=not on_cpu,
            gradient_checkpointing=not on_cpu,
            seed=recipe.seed,
            data_seed=recipe.seed,
            logging_steps=1,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            max_length=None,
            dataset_kwargs={"skip_prepare_dataset": True},
            dataloader_pin_memory=False,
        ),
        train_dataset=Dataset.from_dict(
            {"input_ids": [one.ids for one in examples], "labels": [one.labels for one in examples]}
        ),
        processing_class=qlora.load_tokenizer(base),
        peft_config=LoraConfig(
            r=recipe.lora.rank,
            lora_alpha=recipe.lora.alpha,
            target_modules=list(recipe.lora.target_modules),
            layers_to_transform=list(layers),
            task_type="CAUSAL_LM",
        ),
    )
    trainer.remove_callback(PrinterCallback)

    def train() -> list[float]:
        trainer.train()
        return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]

    return train


def _once(recipe: Recipe) -> Recipe:
    """One pass without warm-up, checkpoints and replay, so that both do the same."""
    training = msgspec.structs.replace(recipe.training, epochs=1.0, warmup=0.0, checkpoint_steps=10**6)
    return msgspec.structs.replace(recipe, training=training, replay=None)


SCRIPTS = {"stock TRL": _stock, "tunegate": _ours}

if __name__ == "__main__":
    main()
