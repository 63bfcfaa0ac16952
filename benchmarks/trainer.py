"""Tokens per second of our trainer beside stock TRL: same base in 4 bits, same LoRA, same batches, same steps.

    python -m benchmarks.trainer [--steps 12] [--rounds 3]

Each round trains afresh with both, one after the other; the table gives medians. Tokens are the rows' own (padding and
shared prefixes not counted), so the ratio is that of the time for the same work; the losses show that it is the same.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table

from registry import settings
from trainer import base as bases
from trainer.dataset import Split
from trainer.libraries import quiet
from trainer.recipe import Recipe, read_recipe

RECIPE = Path(__file__).parent.parent / "suites" / "support-desk" / "recipe.toml"


class Result(NamedTuple):
    tokens_per_second: float
    loss: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    home = settings.home()
    bases.prepare_demo_base(home.bases, print)
    recipe, text = read_recipe(RECIPE)
    base = bases.locate_base(recipe.base, home.bases)
    with quiet():
        examples = _examples(recipe, text, base, asked.steps)
        found: dict[str, list[Result]] = {"stock TRL": [], "tunegate": []}
        for _ in range(asked.rounds):
            found["stock TRL"].append(_stock(recipe, base, examples))
            found["tunegate"].append(_ours(recipe, base, examples))
    _print(found, asked.steps)


def _examples(recipe: Recipe, text: str, base: Path, steps: int) -> list[Any]:
    from trainer import qlora, run

    plan = run.plan_run(recipe, text, RECIPE.parent, base, Path(tempfile.gettempdir()))
    tokenizer = qlora.load_tokenizer(base)
    rows = plan.data.rows[: steps * recipe.training.batch_size]
    return [run.tokenise("data", row, Split.TRAIN, tokenizer, recipe).example for row in rows]


def _ours(recipe: Recipe, base: Path, examples: list[Any]) -> Result:
    from trainer import qlora

    losses: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        model, tokenizer = qlora.load_model(base, recipe), qlora.load_tokenizer(base)
        once = _once(recipe)
        started = time.monotonic()
        qlora.train(model, tokenizer, once, examples, [], Path(folder), lambda seen: losses.append(seen.loss))
        return _result(examples, time.monotonic() - started, losses)


def _stock(recipe: Recipe, base: Path, examples: list[Any]) -> Result:
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
    with tempfile.TemporaryDirectory() as folder:
        trainer = SFTTrainer(
            model=model,
            args=SFTConfig(
                output_dir=folder,
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
                {
                    "input_ids": [one.ids for one in examples],
                    "labels": [one.labels for one in examples],
                }
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
        started = time.monotonic()
        trainer.train()
        losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
        return _result(examples, time.monotonic() - started, losses)


def _once(recipe: Recipe) -> Recipe:
    """One pass without warm-up, checkpoints and replay, so that both do the same."""
    import msgspec

    training = msgspec.structs.replace(recipe.training, epochs=1.0, warmup=0.0, checkpoint_steps=10**6)
    return msgspec.structs.replace(recipe, training=training, replay=None)


def _result(examples: list[Any], seconds: float, losses: list[float]) -> Result:
    return Result(sum(len(one.ids) for one in examples) / seconds, statistics.fmean(losses))


def _print(found: dict[str, list[Result]], steps: int) -> None:
    table = Table(title=f"QLoRA training, {steps} steps, medians of {len(found['tunegate'])} rounds", box=None)
    for column in ("", "tokens/s", "ratio", "mean loss"):
        table.add_column(column, justify="left" if not column else "right")
    floor = statistics.median(one.tokens_per_second for one in found["stock TRL"])
    for name, results in found.items():
        speed = statistics.median(one.tokens_per_second for one in results)
        loss = statistics.median(one.loss for one in results)
        table.add_row(name, f"{speed:.0f}", f"{speed / floor:.2f}", f"{loss:.3f}")
    Console().print(table)


if __name__ == "__main__":
    main()
