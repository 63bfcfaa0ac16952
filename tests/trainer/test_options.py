"""Options of a run that change its adapter: its type, rsLoRA, LoRA+; and whether it learnt to stop."""

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tiny_base import build_tiny_base

from trainer.recipe import LoraSection, Recipe, TrainingSection

pytestmark = pytest.mark.stack
IGNORED = -100
RECIPE = Recipe(
    name="x",
    base="b",
    data="d",
    lora=LoraSection(rank=8, alpha=16.0, target_modules=("q_proj", "v_proj")),
    training=TrainingSection(learning_rate=2e-5, epochs=1.0, batch_size=4, accumulate=1, checkpoint_steps=2),
)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_base(tmp_path_factory.mktemp("base") / "tiny")


def examples(n: int = 24) -> list[Any]:
    from trainer.examples import Example

    found = []
    for i in range(n):
        ids = [0, 50, 60, 70, 80 + i % 9, 90 + i % 5, 100 + i % 7, 1]
        found.append(Example(ids, [IGNORED] * 4 + ids[4:], False, 0))
    return found


def train(base: Path, folder: Path, recipe: Recipe, stop_after: int | None = None) -> dict[str, float]:
    from trainer import qlora
    from trainer.progress import Stopped

    seen: list[int] = []
    try:
        return qlora.train(
            qlora.load_model(base, recipe),
            qlora.load_tokenizer(base),
            recipe,
            examples(),
            examples(3),
            folder,
            lambda progress: seen.append(progress.step),
            lambda: stop_after is not None and len(seen) + 1 >= stop_after,
        )
    except Stopped:
        return {}


def with_lora(**changes: Any) -> Recipe:
    return msgspec.structs.replace(RECIPE, lora=msgspec.structs.replace(RECIPE.lora, **changes))


def weights(folder: Path) -> dict[str, Any]:
    from safetensors.torch import load_file

    return load_file(folder / "adapter" / "adapter_model.safetensors")


def config(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "adapter" / "adapter_config.json").read_text())
    return found


def moved_share(first: Path, second: Path) -> float:
    """Share of the entries of every A that differ between two adapters."""
    one, other = weights(first), weights(second)
    pairs = [(one[name], other[name]) for name in one if "lora_A" in name]
    return sum(int((a.float() != b.float()).sum()) for a, b in pairs) / sum(a.numel() for a, _ in pairs)


def test_a_float32_adapter_takes_the_small_steps_that_a_bfloat16_one_rounds_away(base: Path, tmp_path: Path) -> None:
    """The start is the same seed's in both; ten times fewer rows is a start that has hardly moved."""
    share = {}
    for dtype in ("bfloat16", "float32"):
        for epochs in (1 / 6, 1.0):  # one step, six steps
            plan = msgspec.structs.replace(RECIPE.training, epochs=epochs)
            recipe = msgspec.structs.replace(with_lora(dtype=dtype), training=plan)
            train(base, tmp_path / f"{dtype}-{epochs:g}", recipe)
        share[dtype] = moved_share(tmp_path / f"{dtype}-{1 / 6:g}", tmp_path / f"{dtype}-1")
    assert share["float32"] > 0.99 and share["bfloat16"] < 0.6, share
    assert {str(one.dtype) for one in weights(tmp_path / "float32-1").values()} == {"torch.float32"}


@pytest.mark.parametrize("changes", [{"dtype": "float32"}, {"plus_ratio": 16.0}])
def test_such_a_run_resumes_to_the_same_bytes(base: Path, tmp_path: Path, changes: dict[str, Any]) -> None:
    recipe = with_lora(**changes)
    train(base, tmp_path / "whole", recipe)
    assert train(base, tmp_path / "parts", recipe, stop_after=3) == {}
    assert not (tmp_path / "parts" / "adapter").exists()
    train(base, tmp_path / "parts", recipe)
    files = [tmp_path / name / "adapter" / "adapter_model.safetensors" for name in ("whole", "parts")]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_rslora_is_in_the_config_that_the_engine_reads(base: Path, tmp_path: Path) -> None:
    train(base, tmp_path / "rs", with_lora(rslora=True, dtype="float32"))
    train(base, tmp_path / "plain", with_lora(dtype="float32"))
    assert config(tmp_path / "rs")["use_rslora"] is True and config(tmp_path / "plain")["use_rslora"] is False
    assert moved_share(tmp_path / "rs", tmp_path / "plain") > 0.9


def test_lora_plus_moves_b_that_much_faster(base: Path, tmp_path: Path) -> None:
    """B starts at zero and Adam's first step is the learning rate itself: after one step B's size is that rate."""
    plan = msgspec.structs.replace(RECIPE.training, epochs=1 / 6, warmup=0.0)
    sizes = {}
    for ratio in (1.0, 16.0):
        recipe = msgspec.structs.replace(with_lora(plus_ratio=ratio, dtype="float32"), training=plan)
        train(base, tmp_path / f"{ratio:g}", recipe)
        found = [one.abs().max().item() for name, one in weights(tmp_path / f"{ratio:g}").items() if "lora_B" in name]
        sizes[ratio] = max(found)
    assert sizes[16.0] / sizes[1.0] == pytest.approx(16.0, rel=0.02)


def test_the_share_of_answers_that_stop_is_measured(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from trainer import model
    from trainer.examples import Example

    asked = []

    def generate(base_model: Any, tokenizer: Any, prompts: Any, most: int, report: Any) -> list[list[int]]:
        asked.append((prompts, most))
        return [[80, 1, 2] if place % 4 else [80, 90, 100] for place in range(len(prompts))]

    monkeypatch.setattr(model, "_generate", generate)
    tokenizer = model.load_tokenizer(base)
    assert model.stopped_share(None, tokenizer, examples(100)) == 15 / 20
    assert asked[0][0] == [one.ids[:4] for one in examples(100)[::5]] and asked[0][1] == 8
    assert model.stopped_share(None, tokenizer, examples(3)) == 2 / 3
    replay = Example([0, 1], [IGNORED] * 2, True, 0)
    assert model.stopped_share(None, tokenizer, [replay]) is None


def test_a_run_says_how_many_of_its_answers_stop(base: Path, tmp_path: Path) -> None:
    """A base that was never trained rambles; one that learnt rows of one token and an end stops."""
    assert train(base, tmp_path / "cold", RECIPE)["stopped_share"] < 1.0
    plan = msgspec.structs.replace(RECIPE.training, learning_rate=2e-2, epochs=10.0)
    hot = msgspec.structs.replace(RECIPE, training=plan, lora=LoraSection(rank=8, alpha=16.0))
    assert train(base, tmp_path / "hot", hot)["stopped_share"] == 1.0
