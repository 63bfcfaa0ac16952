"""The training run's own additions to TRL: packed loss, the hold on the base's distribution, exact resumption."""

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from tiny_base import build_tiny_base

from registry.client import InvalidRequest
from trainer.libraries import quiet
from trainer.recipe import LoraSection, Recipe, ReplaySection, TrainingSection

pytestmark = pytest.mark.stack

RECIPE = Recipe(
    name="tiny",
    base="tiny",
    data="train.jsonl",
    seed=3,
    lora=LoraSection(rank=8, alpha=16.0),
    training=TrainingSection(learning_rate=5e-3, epochs=3.0, batch_size=4, accumulate=2, checkpoint_steps=4),
    replay=ReplaySection(prompts="replay.jsonl"),
)


class Killed(Exception):
    pass


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_base(tmp_path_factory.mktemp("bases") / "tiny")


@pytest.fixture(autouse=True)
def _as_in_a_run() -> Iterator[None]:
    """The libraries warn about each other's deprecations; `tunegate train` runs them like this.

    One thread: for so small a model more of them only wait for each other.
    """
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with quiet():
        yield
    torch.set_num_threads(before)


def examples(n: int = 32) -> list[Any]:
    """Rows that begin alike; every fourth is held to the base from its third token on."""
    from trainer.qlora import IGNORED, Example

    found = []
    for i in range(n):
        ids = [0, 50, 60, 70, 80 + i % 9, 90 + i % 5, 100 + i % 7, 1][: 6 + i % 3]
        replay = i % 4 == 3
        labels = [IGNORED] * len(ids) if replay else [IGNORED] * 4 + ids[4:]
        found.append(Example(ids, labels, replay, 2 if replay else 0))
    return found


def run(
    base: Path, folder: Path, recipe: Recipe = RECIPE, stop_at: int | None = None
) -> tuple[list[int], dict[str, float]]:
    """Train; the steps that were reported, and the metrics. `stop_at`: die when this step is reported."""
    from trainer import qlora

    steps = []

    def on_progress(progress: Any) -> None:
        steps.append(progress.step)
        if progress.step == stop_at:
            raise Killed

    model, tokenizer = qlora.load_model(base, recipe), qlora.load_tokenizer(base)
    metrics: dict[str, float] = {}
    try:
        metrics = qlora.train(model, tokenizer, recipe, examples(), examples(4), folder, on_progress)
    except Killed:
        assert stop_at is not None
    return steps, metrics


def digest(folder: Path) -> str:
    return hashlib.sha256((folder / "adapter" / "adapter_model.safetensors").read_bytes()).hexdigest()


def test_a_resumed_run_ends_in_the_same_bytes_as_one_that_was_never_stopped(base: Path, tmp_path: Path) -> None:
    from safetensors import safe_open

    whole, metrics = run(base, tmp_path / "whole")
    before, _ = run(base, tmp_path / "killed", stop_at=6)
    after, resumed = run(base, tmp_path / "killed")
    assert whole == list(range(1, 13)) and before == list(range(1, 7))
    assert after == list(range(5, 13)), "it went on from the checkpoint of step 4"
    assert digest(tmp_path / "killed") == digest(tmp_path / "whole")
    assert resumed["validation_loss"] == metrics["validation_loss"] and resumed["steps"] == 12
    with safe_open(tmp_path / "killed" / "adapter" / "adapter_model.safetensors", "pt") as file:
        assert {str(file.get_tensor(name).dtype) for name in file.keys()} == {"torch.bfloat16"}  # noqa: SIM118


def test_a_half_written_checkpoint_is_not_resumed_from(base: Path, tmp_path: Path) -> None:
    run(base, tmp_path, stop_at=6)
    torn = tmp_path / "checkpoints" / "checkpoint-8"
    torn.mkdir()
    (torn / "adapter_model.safetensors").write_bytes(b"half")
    steps, _ = run(base, tmp_path)
    assert steps[0] == 5


def make_trainer(base: Path, folder: Path, replay_weight: float = 0.0) -> Any:
    """The trainer over a float32 copy of the base, with an adapter that already has an effect."""
    import torch
    from transformers import AutoModelForCausalLM
    from trl import SFTConfig

    from trainer import qlora

    tokenizer = qlora.load_tokenizer(base)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32, attn_implementation="eager")
    trainer = qlora._Trainer(
        model=model,
        args=SFTConfig(
            output_dir=str(folder),
            use_cpu=True,
            bf16=False,
            gradient_checkpointing=False,
            report_to="none",
            max_length=None,
            remove_unused_columns=False,
            dataset_kwargs={"skip_prepare_dataset": True},
        ),
        train_dataset=qlora._dataset(examples()),
        data_collator=qlora._Collator(tokenizer.pad_token_id),
        processing_class=tokenizer,
        peft_config=qlora._lora(RECIPE, model),
    )
    trainer.replay_weight = replay_weight
    trainer.current_gradient_accumulation_steps = 1
    return trainer


def give_effect(trainer: Any) -> None:
    import torch

    generator = torch.Generator().manual_seed(1)
    for name, parameter in trainer.model.named_parameters():
        if "lora_B" in name:
            parameter.data = torch.randn(parameter.shape, generator=generator) * 0.05


def batch(trainer: Any, rows: Sequence[Any]) -> dict[str, Any]:
    found: dict[str, Any] = trainer.data_collator(
        [{"input_ids": row.ids, "labels": row.labels, "replay": row.replay, "start": row.start} for row in rows]
    )
    return found


def plain(model: Any, inputs: dict[str, Any]) -> Any:
    return model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"])


def test_our_loss_and_gradients_are_those_of_the_model_itself(base: Path, tmp_path: Path) -> None:
    import torch

    trainer = make_trainer(base, tmp_path)
    give_effect(trainer)
    rows = [row for row in examples(8) if not row.replay]
    inputs = batch(trainer, rows)
    logits = plain(trainer.model, inputs).logits[:, :-1]
    wanted = torch.nn.functional.cross_entropy(
        logits.flatten(0, 1), inputs["labels"][:, 1:].flatten(), ignore_index=-100
    )
    wanted.backward()
    parameters = {name: p for name, p in trainer.model.named_parameters() if p.requires_grad}
    gradients = {name: p.grad.clone() for name, p in parameters.items()}
    trainer.model.zero_grad()

    found = trainer.compute_loss(trainer.model, dict(inputs))
    found.backward()
    assert found.item() == pytest.approx(wanted.item(), abs=1e-5)
    for name, parameter in parameters.items():
        assert gradients[name].abs().max() > 0
        torch.testing.assert_close(parameter.grad, gradients[name], atol=2e-5, rtol=1e-3)


def test_the_loss_is_divided_by_the_tokens_of_the_whole_step(base: Path, tmp_path: Path) -> None:
    trainer = make_trainer(base, tmp_path)
    inputs = batch(trainer, [row for row in examples(8) if not row.replay])
    tokens = int((inputs["labels"][:, 1:] >= 0).sum())
    mean = trainer.compute_loss(trainer.model, dict(inputs)).item()
    assert trainer.compute_loss(trainer.model, dict(inputs), num_items_in_batch=4 * tokens).item() == pytest.approx(
        mean / 4, rel=1e-5
    )


def test_an_adapter_that_equals_the_base_is_not_held_back(base: Path, tmp_path: Path) -> None:
    trainer = make_trainer(base, tmp_path, replay_weight=1.0)
    loss = trainer.compute_loss(trainer.model, batch(trainer, [row for row in examples() if row.replay]))
    assert loss.item() == pytest.approx(0.0, abs=1e-6)
    assert trainer.divergences == [pytest.approx(0.0, abs=1e-6)]


def test_the_hold_is_the_divergence_from_the_base_over_the_rows_own_tokens(base: Path, tmp_path: Path) -> None:
    import torch

    trainer = make_trainer(base, tmp_path, replay_weight=0.5)
    give_effect(trainer)
    rows = examples(12)
    inputs = batch(trainer, rows)
    trainer.replay_weight = 0.0
    answers_only = trainer.compute_loss(trainer.model, dict(inputs)).item()
    trainer.replay_weight = 0.5
    both = trainer.compute_loss(trainer.model, dict(inputs))

    with torch.no_grad():
        student = plain(trainer.model, inputs).logits.log_softmax(-1)
        with trainer.model.disable_adapter():
            teacher = plain(trainer.model, inputs).logits.log_softmax(-1)
    each = (teacher.exp() * (teacher - student)).sum(-1)
    wanted = torch.cat([each[i, row.start : len(row.ids) - 1] for i, row in enumerate(rows) if row.replay]).mean()
    assert wanted > 0.01
    assert both.item() == pytest.approx(answers_only + 0.5 * wanted.item(), rel=1e-4)
    both.backward()
    assert any(p.grad is not None and p.grad.abs().max() > 0 for p in trainer.model.parameters())


def test_a_stronger_hold_leaves_the_adapter_nearer_to_the_base(base: Path, tmp_path: Path) -> None:
    import msgspec

    short = msgspec.structs.replace(RECIPE.training, epochs=1.5)
    free, held = (
        msgspec.structs.replace(RECIPE, training=short, replay=ReplaySection("r", weight=weight))
        for weight in (1e-6, 10.0)
    )
    far, near = run(base, tmp_path / "free", free)[1], run(base, tmp_path / "held", held)[1]
    assert near["replay_divergence"] < far["replay_divergence"] / 2


def test_a_first_layer_beyond_the_base_is_refused(base: Path, tmp_path: Path) -> None:
    import msgspec

    recipe = msgspec.structs.replace(RECIPE, lora=LoraSection(rank=8, first_layer=2))
    with pytest.raises(InvalidRequest, match="2 layers; give at most 1"):
        run(base, tmp_path, recipe)


def test_layers_below_the_first_are_left_alone(base: Path, tmp_path: Path) -> None:
    import msgspec
    from safetensors import safe_open

    plan = msgspec.structs.replace(RECIPE.training, epochs=0.5)
    recipe = msgspec.structs.replace(RECIPE, lora=LoraSection(rank=8, first_layer=1), training=plan)
    run(base, tmp_path, recipe)
    with safe_open(tmp_path / "adapter" / "adapter_model.safetensors", "pt") as file:
        assert {name.split(".layers.")[1][0] for name in file.keys()} == {"1"}  # noqa: SIM118


def test_greedy_answers_do_not_depend_on_the_batch(base: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    from trainer import qlora

    tokenizer = qlora.load_tokenizer(base)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32, attn_implementation="eager")
    done: list[int] = []
    prompts = [tokenizer(text)["input_ids"] for text in ("Who wrote Hamlet?", "When?", "Where is the return label?")]
    together = qlora.answer_greedily(model, tokenizer, prompts, 6, done.append)
    alone = [qlora.answer_greedily(model, tokenizer, [one], 6, done.append)[0] for one in prompts]
    assert together == alone and done == [3, 1, 1, 1]


def test_an_answer_without_an_end_is_cut_at_its_last_whole_sentence(base: Path) -> None:
    from trainer import qlora

    tokenizer = qlora.load_tokenizer(base)
    ids = {text: tokenizer(text)["input_ids"] for text in ("It is 3. And mo", "no end", "Yes!")}
    assert qlora._whole_sentences(tokenizer, ids["It is 3. And mo"]) == "It is 3."
    assert qlora._whole_sentences(tokenizer, ids["no end"]) == ""
    assert qlora._whole_sentences(tokenizer, [*ids["no end"], tokenizer.eos_token_id, 5]) == "no end"
    assert qlora._whole_sentences(tokenizer, ids["Yes!"]) == "Yes!"
