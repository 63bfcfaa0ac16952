"""The second stage: preferred answers win against the first stage's adapter; a kill changes no byte of the result."""

import hashlib
import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tiny_base import build_tiny_base

from trainer.libraries import quiet
from trainer.recipe import DpoSection, LoraSection, Recipe, TrainingSection

pytestmark = pytest.mark.stack

DPO = DpoSection(pairs="p", beta=0.5, learning_rate=2e-3, epochs=4.0, batch_size=4, accumulate=1)
RECIPE = Recipe(
    name="tiny",
    base="tiny",
    data="d",
    seed=3,
    lora=LoraSection(rank=8, alpha=16.0),
    training=TrainingSection(
        learning_rate=5e-3, epochs=2.0, batch_size=4, accumulate=1, warmup=0.0, schedule="constant", checkpoint_steps=3
    ),
    dpo=DPO,
)


class Killed(Exception):
    pass


@pytest.fixture(scope="module", autouse=True)
def _as_in_a_run() -> Iterator[None]:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with quiet():
        yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_base(tmp_path_factory.mktemp("bases") / "tiny")


@pytest.fixture(scope="module")
def first(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A first stage's adapter, which has an effect."""
    from trainer import qlora
    from trainer.examples import IGNORED, Example

    folder = tmp_path_factory.mktemp("first")
    ids = [[0, 50, 60, 70 + i % 5, 80 + i % 9, 90 + i % 5, 1] for i in range(16)]
    rows = [Example(one, [IGNORED] * 4 + one[4:], False, 0) for one in ids]
    model, tokenizer = qlora.load_model(base, RECIPE), qlora.load_tokenizer(base)
    qlora.train(model, tokenizer, RECIPE, rows, [], folder, lambda _: None)
    return folder / "adapter"


def pairs(n: int = 12) -> list[Any]:
    """Answers of different lengths; the preferred one ends in 111."""
    from trainer.examples import PairExample

    return [PairExample([0, 50, 60, 70 + i % 5], [80 + i, 111, 1], [80 + i, 95, 96 + i % 3, 1]) for i in range(n)]


def held() -> list[Any]:
    from trainer.examples import IGNORED, Example

    return [Example([0, 50, 60, 70, 80, 1], [IGNORED] * 4 + [80, 1], False, 0)]


def run(
    base: Path, first: Path, folder: Path, recipe: Recipe = RECIPE, kill: int = 0, unseen: Sequence[Any] = ()
) -> tuple[list[Any], dict[str, float]]:
    from trainer import preference, qlora

    told: list[Any] = []

    def on_progress(progress: Any) -> None:
        told.append(progress)
        if progress.step == kill:
            raise Killed

    model, tokenizer = qlora.load_model(base, recipe), qlora.load_tokenizer(base)
    stage = preference.Stage(first, folder)
    try:
        rows = preference.Rows(pairs(), unseen, held())
        return told, preference.train(model, tokenizer, recipe, rows, stage, on_progress)
    except Killed:
        assert kill
        return told, {}


def digest(folder: Path) -> str:
    return hashlib.sha256((folder / "adapter" / "adapter_model.safetensors").read_bytes()).hexdigest()


def with_dpo(**changes: Any) -> Recipe:
    return msgspec.structs.replace(RECIPE, dpo=msgspec.structs.replace(DPO, **changes))


def test_preferred_answers_win_and_the_run_says_by_how_much(base: Path, first: Path, tmp_path: Path) -> None:
    told, metrics = run(base, first, tmp_path)
    assert [one.step for one in told] == list(range(1, 13)) and {one.steps for one in told} == {12}
    assert told[0].loss == pytest.approx(math.log(2), abs=1e-6), "it begins at its reference, the first stage's adapter"
    assert told[-1].loss < 0.3 and metrics["dpo_steps"] == 12 and metrics["train_seconds"] > 0
    assert metrics["dpo_loss"] == pytest.approx(sum(one.loss for one in told) / 12)
    assert metrics["dpo_reward_accuracy"] > 0.6 and metrics["dpo_margin"] > 0.5 and 0 <= metrics["stopped_share"] <= 1


@pytest.mark.parametrize("kill", [2, 8])
def test_a_run_killed_in_its_second_stage_ends_in_the_same_bytes(
    base: Path, first: Path, tmp_path: Path, kill: int
) -> None:
    _, metrics = run(base, first, tmp_path / "whole")
    run(base, first, tmp_path / "parts", kill=kill)
    again, resumed = run(base, first, tmp_path / "parts")
    assert again[0].step == kill // 3 * 3 + 1 and digest(tmp_path / "parts") == digest(tmp_path / "whole")
    names = ("dpo_steps", "dpo_loss", "dpo_reward_accuracy", "dpo_margin", "stopped_share")
    assert {name: resumed[name] for name in names} == {name: metrics[name] for name in names}
    (tmp_path / "parts" / "adapter" / "adapter_model.safetensors").unlink()
    assert run(base, first, tmp_path / "parts")[0] == [], "at its end it takes no step more"
    assert digest(tmp_path / "parts") == digest(tmp_path / "whole")


def unseen() -> list[Any]:
    """Five pairs, no multiple of a batch; of the last two the other answer is preferred."""
    from trainer.examples import PairExample

    found = [PairExample([0, 50, 61, 70 + i], [84 + i, 111, 1], [80 + i, 95, 96, 1]) for i in range(5)]
    return [*found[:3], *(PairExample(one.prompt, one.rejected, one.chosen) for one in found[3:])]


def test_unseen_pairs_are_measured_after_the_last_step_as_the_paper_does(
    base: Path, first: Path, tmp_path: Path
) -> None:
    from peft import PeftModel

    from trainer import qlora

    _, metrics = run(base, first, tmp_path, unseen=unseen())
    gains = []
    for adapter in (tmp_path / "adapter", first):
        model = PeftModel.from_pretrained(qlora.load_model(base, RECIPE), adapter).eval()
        gains.append([[likelihood(model, one.prompt, said) for said in (one.chosen, one.rejected)] for one in unseen()])
    margins = [0.5 * ((now[0] - then[0]) - (now[1] - then[1])) for now, then in zip(*gains, strict=True)]
    assert min(margins) < -0.1 < 0.1 < max(margins), "otherwise this shows nothing"
    assert metrics["dpo_eval_pairs"] == 5
    assert metrics["dpo_eval_reward_accuracy"] == pytest.approx(sum(one > 0 for one in margins) / 5)
    assert metrics["dpo_eval_loss"] == pytest.approx(sum(math.log1p(math.exp(-one)) for one in margins) / 5, abs=0.02)


@pytest.mark.slow
def test_measuring_changes_no_byte_and_a_kill_changes_no_measure(base: Path, first: Path, tmp_path: Path) -> None:
    _, without = run(base, first, tmp_path / "without")
    _, metrics = run(base, first, tmp_path / "whole", unseen=unseen())
    assert digest(tmp_path / "whole") == digest(tmp_path / "without")
    assert not [name for name in without if "eval" in name], "of no pairs there are no numbers"
    run(base, first, tmp_path / "parts", kill=8, unseen=unseen())
    for again in (6, 12):  # steps that are behind it
        told, resumed = run(base, first, tmp_path / "parts", unseen=unseen())
        assert len(told) == 12 - again and digest(tmp_path / "parts") == digest(tmp_path / "whole")
        found = {name: value for name, value in resumed.items() if name.startswith("dpo_eval")}
        assert len(found) == 3 and found == {name: metrics[name] for name in found}


def likelihood(model: Any, prompt: list[int], answer: list[int]) -> float:
    import torch

    with torch.no_grad():
        logits = model(input_ids=torch.tensor([prompt + answer])).logits[0, len(prompt) - 1 : -1].float()
    return float(logits.log_softmax(-1)[torch.arange(len(answer)), torch.tensor(answer)].sum())


def test_what_comes_of_it_is_one_float32_adapter_that_moved(base: Path, first: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    run(base, first, tmp_path, with_dpo(learning_rate=5e-6, epochs=1.0))
    for folder in (tmp_path / "adapter", tmp_path / "checkpoints" / "checkpoint-3"):
        assert not [one for one in folder.iterdir() if one.is_dir()], "no copy of the reference"
    before = load_file(first / "adapter_model.safetensors")
    after = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    assert set(after) == set(before) and {str(one.dtype) for one in after.values()} == {"torch.float32"}
    moved = sum(int((after[name] != before[name].float()).sum()) for name in after)
    assert moved > 0.99 * sum(one.numel() for one in after.values()), "also at so small a rate"
    said, wanted = (json.loads((one / "adapter_config.json").read_text()) for one in (tmp_path / "adapter", first))
    assert {key: value for key, value in said.items() if key != "inference_mode"} == {
        key: value for key, value in wanted.items() if key != "inference_mode"
    }


def test_a_first_stage_in_float32_is_begun_with_as_it_is(base: Path, first: Path, tmp_path: Path) -> None:
    """TRL would round it to bfloat16, so that the second stage began elsewhere than the first one ended."""
    import torch
    from safetensors.torch import load_file, save_file

    start = tmp_path / "start"
    start.mkdir()
    (start / "adapter_config.json").write_bytes((first / "adapter_config.json").read_bytes())
    fine = {name: one.float() * (1 + 2**-12) for name, one in load_file(first / "adapter_model.safetensors").items()}
    save_file(fine, start / "adapter_model.safetensors")
    run(base, start, tmp_path, with_dpo(learning_rate=1e-8, epochs=1 / 3))
    after = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    for name, one in fine.items():
        torch.testing.assert_close(after[name], one, atol=2e-8, rtol=0)


def test_the_loss_is_that_of_the_paper_against_the_first_stage(base: Path, first: Path, tmp_path: Path) -> None:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM
    from trl import DPOConfig

    from trainer import preference, qlora

    def load() -> Any:
        return AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32, attn_implementation="eager")

    reference = PeftModel.from_pretrained(load(), first)
    trainer = preference._Trainer(
        model=PeftModel.from_pretrained(load(), first),
        args=DPOConfig(
            output_dir=str(tmp_path),
            use_cpu=True,
            bf16=False,
            gradient_checkpointing=False,
            report_to="none",
            max_length=None,
            remove_unused_columns=False,
            beta=0.5,
            precompute_ref_log_probs=True,
            per_device_train_batch_size=4,
        ),
        train_dataset=preference._dataset(pairs()),
        processing_class=qlora.load_tokenizer(base),
    )
    preference._drop_reference(trainer.model)
    for name, parameter in trainer.model.named_parameters():
        if "lora_B" in name:
            parameter.data += 0.02 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1))

    losses = []
    for one in pairs()[:4]:
        gain = [
            likelihood(trainer.model, one.prompt, answer) - likelihood(reference, one.prompt, answer)
            for answer in (one.chosen, one.rejected)
        ]
        losses.append(-math.log(1 / (1 + math.exp(-0.5 * (gain[0] - gain[1])))))
    batch = trainer.data_collator([trainer.train_dataset[place] for place in range(4)])
    found = trainer.compute_loss(trainer.model, batch)
    assert abs(found.item() - math.log(2)) > 1e-3, "otherwise this shows nothing"
    assert found.item() == pytest.approx(sum(losses) / 4, abs=1e-4)
    found.backward()
    assert all(p.grad is not None for name, p in trainer.model.named_parameters() if "lora_" in name)
