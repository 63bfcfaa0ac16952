"""The training run's own additions to TRL: packed loss, the hold on the base's distribution, exact resumption."""

import hashlib
import json
import shutil
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from tiny_base import build_tiny_base, build_tokenizer

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
    from trainer.examples import IGNORED, Example

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
    rows = [row for row in examples() if recipe.replay or not row.replay]
    try:
        metrics = qlora.train(model, tokenizer, recipe, rows, examples(3), folder, on_progress)
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
    names = ("steps", "validation_loss", "train_loss", "replay_divergence")
    assert metrics["steps"] == 12 and metrics["replay_divergence"] > 0
    assert {name: resumed[name] for name in names} == {name: metrics[name] for name in names}
    with safe_open(tmp_path / "killed" / "adapter" / "adapter_model.safetensors", "pt") as file:
        assert {str(file.get_tensor(name).dtype) for name in file.keys()} == {"torch.bfloat16"}  # noqa: SIM118


def test_a_half_written_checkpoint_is_not_resumed_from(base: Path, tmp_path: Path) -> None:
    run(base, tmp_path, stop_at=6)
    torn = tmp_path / "checkpoints" / "checkpoint-8"
    torn.mkdir()
    (torn / "adapter_model.safetensors").write_bytes(b"half")
    steps, _ = run(base, tmp_path)
    assert steps[0] == 5


def test_a_run_killed_at_its_last_checkpoint_takes_no_step_more(base: Path, tmp_path: Path) -> None:
    import msgspec

    # Half an epoch over, and a rate that is not zero by then: one more step would be another adapter.
    plan = msgspec.structs.replace(RECIPE.training, schedule="constant", epochs=1.5)
    recipe = msgspec.structs.replace(RECIPE, training=plan)
    steps, metrics = run(base, tmp_path, recipe)
    whole = digest(tmp_path)
    assert steps == list(range(1, 7)) and (tmp_path / "checkpoints" / "checkpoint-6").is_dir()
    shutil.rmtree(tmp_path / "adapter")
    again, resumed = run(base, tmp_path, recipe)
    assert again == [] and digest(tmp_path) == whole
    assert resumed == metrics


def test_the_seconds_of_a_resumed_run_cover_both_parts(base: Path, tmp_path: Path) -> None:
    run(base, tmp_path, stop_at=6)
    state = tmp_path / "checkpoints" / "checkpoint-4" / "trainer_state.json"
    known = json.loads(state.read_text())
    assert [entry["step"] for entry in known["log_history"] if entry["step_seconds"] > 0] == [1, 2, 3, 4]
    for entry in known["log_history"]:
        entry["step_seconds"] = 1000.0  # as a slow machine would have left it
    state.write_text(json.dumps(known))
    started = time.monotonic()
    _, metrics = run(base, tmp_path)
    assert 4000 < metrics["train_seconds"] < 4000 + time.monotonic() - started


@pytest.mark.parametrize(
    ("name", "left"),
    [
        ("trainer_state.json", b""),
        ("trainer_state.json", b'{"global_step": '),
        ("trainer_state.json", b"[]"),
        ("trainer_state.json", b'{"log_history": []}'),
        ("trainer_state.json", None),
        ("adapter_model.safetensors", None),
        ("optimizer.pt", None),
        ("rng_state.pth", None),
    ],
)
def test_a_checkpoint_that_is_not_whole_gives_way_to_an_older_one(
    tmp_path: Path, name: str, left: bytes | None
) -> None:
    from trainer.checkpoints import last_checkpoint

    for step in (8, 12):
        folder = tmp_path / "checkpoints" / f"checkpoint-{step}"
        folder.mkdir(parents=True)
        for file in ("adapter_model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth"):
            (folder / file).write_bytes(b"x")
        (folder / "trainer_state.json").write_text(json.dumps({"global_step": step}))
    for step, older in ((12, 8), (8, None)):
        newest = last_checkpoint(tmp_path)
        assert newest is not None and newest.step == step
        path = tmp_path / "checkpoints" / f"checkpoint-{step}" / name
        if left is None:
            path.unlink()
        else:
            path.write_bytes(left)
        found = last_checkpoint(tmp_path)
        assert (found.step if found else None) == older


def test_a_run_goes_on_from_what_is_whole_or_from_the_start(base: Path, tmp_path: Path) -> None:
    run(base, tmp_path / "whole")
    run(base, tmp_path, stop_at=10)
    (tmp_path / "checkpoints" / "checkpoint-8" / "adapter_model.safetensors").unlink()
    steps, _ = run(base, tmp_path, stop_at=6)
    assert steps == [5, 6]
    for state in (tmp_path / "checkpoints").glob("*/trainer_state.json"):
        state.write_bytes(b"")
    steps, _ = run(base, tmp_path)
    assert steps == list(range(1, 13)) and digest(tmp_path) == digest(tmp_path / "whole")


# -- which bases are packed -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "changes", "packs"),
    [
        ("LlamaConfig", {}, True),
        ("MistralConfig", {"sliding_window": None}, True),
        ("MistralConfig", {"sliding_window": 100}, True),
        ("MistralConfig", {"sliding_window": 99}, False),
        ("Qwen2Config", {}, True),
        ("Qwen2Config", {"use_sliding_window": False, "sliding_window": 10}, True),
        ("Qwen2Config", {"use_sliding_window": True, "sliding_window": 10}, False),
        ("Qwen3Config", {}, True),
        ("Qwen3Config", {"use_sliding_window": True, "sliding_window": 99}, False),
        ("GraniteConfig", {}, False),
        ("CohereConfig", {}, False),
        ("Cohere2Config", {}, False),
        ("Gemma2Config", {}, False),
        ("Gemma3TextConfig", {}, False),
        ("Gemma3Config", {}, False),
        ("MixtralConfig", {}, False),
    ],
)
def test_only_families_that_packing_computes_rightly_are_packed(
    name: str, changes: dict[str, Any], packs: bool
) -> None:
    import transformers

    from trainer.loss import can_pack

    config = getattr(transformers, name)(**changes).get_text_config()
    assert can_pack(config, longest=100) is packs


@pytest.fixture(scope="module")
def granite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base that scales its logits, which packing does not know of."""
    import torch
    from transformers import GraniteConfig, GraniteForCausalLM

    directory = tmp_path_factory.mktemp("granite")
    vocabulary = build_tokenizer(directory)
    torch.manual_seed(0)
    config = GraniteConfig(
        vocab_size=vocabulary,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        initializer_range=0.2,
        logits_scaling=4.0,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=2,
    )
    GraniteForCausalLM(config).to(torch.bfloat16).save_pretrained(directory)
    return directory


def test_a_base_that_cannot_be_packed_is_trained_by_trl(
    granite: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import msgspec

    def refuse(*arguments: Any) -> Any:
        raise AssertionError("packed all the same")

    monkeypatch.setattr("trainer.loss.pack", refuse)
    steps, metrics = run(granite, tmp_path, msgspec.structs.replace(RECIPE, replay=None))
    assert steps == list(range(1, 10)) and metrics["train_loss"] > 0 and "replay_divergence" not in metrics
    assert metrics["train_seconds"] > 0 and (tmp_path / "adapter" / "adapter_model.safetensors").is_file()


def test_replay_on_a_base_that_cannot_be_packed_is_refused_before_any_training(granite: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="not granite; take the \\[replay\\] section out"):
        run(granite, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_loss_of_a_family_left_to_trl_is_the_models_own(granite: Path, tmp_path: Path) -> None:
    trainer = make_trainer(granite, tmp_path)
    give_effect(trainer)
    inputs = batch(trainer, [row for row in examples(8) if not row.replay])
    wanted = plain(trainer.model, inputs, labels=inputs["labels"]).loss.item()
    trainer.packs = False
    assert trainer.compute_loss(trainer.model, dict(inputs)).item() == pytest.approx(wanted, abs=1e-5)
    trainer.packs = True
    assert abs(trainer.compute_loss(trainer.model, dict(inputs)).item() - wanted) > 0.1, "why it is left to TRL"


# -- the loss -------------------------------------------------------------------------------------------------------


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
    trainer.packs = True
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


def plain(model: Any, inputs: dict[str, Any], **more: Any) -> Any:
    return model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"], **more)


def divergences(trainer: Any) -> list[float]:
    """What the next log entry will average."""
    found: list[float] = trainer._metrics["train"]["replay_divergence"]
    return found


@pytest.mark.parametrize(("items", "share"), [(40, 4), (None, 1)])
def test_the_hold_weighs_the_same_however_many_forwards_make_a_step(
    base: Path, tmp_path: Path, items: int | None, share: int
) -> None:
    """With a token count the loss is a part of the step's; without one the Trainer divides what it gets."""
    trainer = make_trainer(base, tmp_path)
    give_effect(trainer)
    trainer.current_gradient_accumulation_steps = 4
    inputs = batch(trainer, examples(12))
    losses = []
    for weight in (0.0, 2.0):
        trainer.replay_weight = weight
        losses.append(trainer.compute_loss(trainer.model, dict(inputs), num_items_in_batch=items).item())
    [divergence] = divergences(trainer)
    assert divergence > 0
    assert losses[1] - losses[0] == pytest.approx(2.0 * divergence / share, rel=1e-4)


@pytest.mark.parametrize("items", [None, 40])
def test_a_batch_in_several_packs_has_the_loss_and_gradients_of_one(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, items: int | None
) -> None:
    import torch

    from trainer.packing import pack

    trainer = make_trainer(base, tmp_path, replay_weight=0.5)
    give_effect(trainer)
    inputs = batch(trainer, examples(12))
    packs: list[int] = []

    def counted(rows: Sequence[Sequence[int]], dtype: Any) -> Any:
        packs.append(len(rows))
        return pack(rows, dtype)

    monkeypatch.setattr("trainer.loss.pack", counted)
    losses, gradients, seen = [], [], []
    for most in (1024, 17, 1):
        monkeypatch.setattr("trainer.loss._PACK_TOKENS", most)
        trainer.model.zero_grad()
        packs.clear()
        loss = trainer.compute_loss(trainer.model, dict(inputs), num_items_in_batch=items)
        loss.backward()
        losses.append(loss.item())
        gradients.append({name: p.grad.clone() for name, p in trainer.model.named_parameters() if p.requires_grad})
        seen.append(list(packs))
    # Three of the twelve rows are replayed: once more, in packs of their own, for the base.
    assert seen[0] == [12, 3]
    assert sum(seen[1]) == 15 and set(seen[1]) == {1, 2} and len(seen[1]) > 6, (
        "some packs hold replay rows, others none"
    )
    assert seen[2] == [1] * 15
    held = divergences(trainer)
    assert held[0] > 0.01 and held == pytest.approx([held[0]] * 3, rel=1e-5)
    assert losses == pytest.approx([losses[0]] * 3, rel=1e-5)
    for name, whole in gradients[0].items():
        assert whole.abs().max() > 0, name
        for parts in gradients[1:]:
            torch.testing.assert_close(parts[name], whole, atol=2e-5, rtol=1e-3)


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
    assert divergences(trainer) == [pytest.approx(0.0, abs=1e-6)]
    logged: dict[str, float] = {"loss": 1.0}
    trainer.log(logged)
    assert trainer.state.log_history[-1]["replay_divergence"] == pytest.approx(0.0, abs=1e-6)


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

    from trainer import model as models

    tokenizer = models.load_tokenizer(base)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32, attn_implementation="eager")
    done: list[int] = []
    prompts = [tokenizer(text)["input_ids"] for text in ("Who wrote Hamlet?", "When?", "Where is the return label?")]
    together = models.answer_greedily(model, tokenizer, prompts, 6, done.append)
    alone = [models.answer_greedily(model, tokenizer, [one], 6, done.append)[0] for one in prompts]
    assert together == alone and done == [3, 1, 1, 1]


def test_an_answer_without_an_end_is_cut_at_its_last_whole_sentence(base: Path) -> None:
    from trainer import model as models

    tokenizer = models.load_tokenizer(base)
    ids = {text: tokenizer(text)["input_ids"] for text in ("It is 3. And mo", "no end", "Yes!")}
    assert models._whole_sentences(tokenizer, ids["It is 3. And mo"]) == "It is 3."
    assert models._whole_sentences(tokenizer, ids["no end"]) == ""
    assert models._whole_sentences(tokenizer, [*ids["no end"], tokenizer.eos_token_id, 5]) == "no end"
    assert models._whole_sentences(tokenizer, ids["Yes!"]) == "Yes!"
