"""Easy rows first: the base says what is easy, replay lies between, and every epoch takes the rows as they come."""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_base import build_tiny_base

from trainer.libraries import quiet
from trainer.recipe import LoraSection, Recipe, TrainingSection

PLAN = TrainingSection(
    learning_rate=5e-3, epochs=2.0, batch_size=2, accumulate=2, checkpoint_steps=2, order="easy-to-hard"
)
RECIPE = Recipe(name="t", base="t", data="d", seed=3, lora=LoraSection(rank=8, dropout=0.1), training=PLAN)


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


def rows(n: int = 12, *, replay: bool = True) -> list[Any]:
    """Of different lengths; every fourth is of replay."""
    from trainer.examples import IGNORED, Example

    found = []
    for i in range(n):
        ids = [0, 50, 60, 70 + i, 80 + i % 9, 90 + i % 5, 100 + i % 7, 1][: 6 + i % 3]
        held = replay and i % 4 == 3
        found.append(Example(ids, [IGNORED] * len(ids) if held else [IGNORED] * 4 + ids[4:], held, 0))
    return found


@given(st.integers(1, 30), st.integers(0, 30))
def test_rows_between_others_lie_evenly_and_all_keep_their_order(n: int, between: int) -> None:
    from trainer.curriculum import spread

    found = spread(range(n), range(100, 100 + between))
    assert [one for one in found if one < 100] == list(range(n))
    assert [one for one in found if one >= 100] == list(range(100, 100 + between))
    for place in range(1, len(found) + 1):
        share = sum(one >= 100 for one in found[:place])
        assert abs(share - place * between / (n + between)) <= 1


@pytest.mark.stack
def test_how_hard_a_row_is_does_not_depend_on_the_rows_beside_it(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    from trainer import curriculum

    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32, attn_implementation="eager")
    examples = rows(replay=False)
    alone = []
    for one in examples:
        ids, labels = torch.tensor([one.ids]), torch.tensor([one.labels])
        with torch.no_grad():
            alone.append(model(input_ids=ids, labels=labels).loss.item())
    assert max(alone) - min(alone) > 0.5
    for most in (2048, 20, 1):
        monkeypatch.setattr(curriculum, "_MOST_TOKENS", most)
        assert curriculum.answer_losses(model, examples) == pytest.approx(alone, abs=1e-5)
    order = curriculum.easy_to_hard(model, examples)
    assert [alone[place] for place in order] == sorted(alone)


@pytest.mark.stack
def test_replay_rows_are_not_asked_how_hard_they_are(base: Path) -> None:
    from trainer import curriculum, qlora

    model, examples = qlora.load_model(base, RECIPE), rows()
    order = curriculum.easy_to_hard(model, examples)
    assert sorted(order) == list(range(12))
    assert [place for place in order if examples[place].replay] == [3, 7, 11]
    assert [order.index(place) for place in (3, 7, 11)] == [2, 6, 10]


def train(base: Path, folder: Path, recipe: Recipe, monkeypatch: pytest.MonkeyPatch, kill: int = 0) -> list[int]:
    """Which rows were collated, one after the other, by their fourth token."""
    from trainer import qlora

    seen: list[int] = []
    collate = qlora._Collator.__call__

    def watched(self: Any, batch: Any) -> Any:
        seen.extend(row["input_ids"][3] - 70 for row in batch)
        return collate(self, batch)

    def on_progress(progress: Any) -> None:
        if progress.step == kill:
            raise KeyboardInterrupt

    monkeypatch.setattr(qlora._Collator, "__call__", watched)
    model, tokenizer = qlora.load_model(base, recipe), qlora.load_tokenizer(base)
    try:
        qlora.train(model, tokenizer, recipe, rows(replay=False), [], folder, on_progress)
    except KeyboardInterrupt:
        assert kill
    monkeypatch.undo()
    return seen


@pytest.mark.stack
def test_every_epoch_takes_the_rows_in_order_also_after_a_kill(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import msgspec

    assert train(base, tmp_path / "whole", RECIPE, monkeypatch) == [*range(12), *range(12)]
    train(base, tmp_path / "parts", RECIPE, monkeypatch, kill=5)
    assert train(base, tmp_path / "parts", RECIPE, monkeypatch)[-8:] == list(range(4, 12))
    files = [tmp_path / name / "adapter" / "adapter_model.safetensors" for name in ("whole", "parts")]
    assert len({hashlib.sha256(one.read_bytes()).hexdigest() for one in files}) == 1
    shuffled = msgspec.structs.replace(RECIPE, training=msgspec.structs.replace(PLAN, order="random"))
    seen = train(base, tmp_path / "random", shuffled, monkeypatch)
    assert seen[:12] != list(range(12)) and sorted(seen[:12]) == list(range(12)) and seen[:12] != seen[12:]
