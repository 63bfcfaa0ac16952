"""A dry run tells what a run would take and which tokens it would learn, and leaves nothing behind."""

import json
from pathlib import Path
from typing import Any

import pytest
from factories import make_weights
from tiny_base import build_tokenizer

from registry.cli import main
from trainer.recipe import LINEAR

pytestmark = pytest.mark.stack
CONFIG = {"num_hidden_layers": 2, "hidden_size": 64, "num_attention_heads": 2, "vocab_size": 384}
TENSORS = {f"model.layers.{layer}.{name}.weight": [64, 64] for layer in range(2) for name in LINEAR}
ANSWER = "After 10 working days."
RECIPE = """
name = "tiny"
base = "BASE"
data = "d.jsonl"
system = "Answer shortly."
[lora]
rank = 8
[training]
batch_size = 4
accumulate = 1
max_length = 200
[replay]
prompts = "p.jsonl"
rows = 3
max_new_tokens = 7
"""


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TUNEGATE_HOME", str(tmp_path / "home"))
    base = tmp_path / "base"
    base.mkdir()
    build_tokenizer(base)
    (base / "config.json").write_text(json.dumps(CONFIG))
    (base / "model.safetensors").write_bytes(make_weights(TENSORS))
    rows = [{"instruction": f"When is parcel {n} lost?", "output": ANSWER, "group": f"g{n}"} for n in range(40)]
    rows += [rows[0], {"instruction": "x" * 4000, "output": ANSWER, "group": "long", "split": "train"}]
    (tmp_path / "d.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "p.jsonl").write_text('{"prompt": "Who wrote Hamlet?"}\n' * 5)
    file = tmp_path / "recipe.toml"
    file.write_text(RECIPE.replace("BASE", str(base)))
    return file


def ask(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    capsys.readouterr()
    with pytest.raises(SystemExit) as exit:
        main(["train", *arguments])
    return int(exit.value.code or 0), capsys.readouterr().out


def test_it_counts_what_the_run_would_use(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out = ask(capsys, "--json", str(recipe), "--dry-run", "--price-per-hour", "3.6")
    found: dict[str, Any] = json.loads(out)
    assert code == 0 and found["begins"] and found["uses"]["too_long"] == 1 and found["uses"]["duplicate"] == 1
    used = found["uses"]["train"]
    assert sum(found["uses"].values()) == 42 + 3 and found["uses"]["replay"] == 3
    estimate = found["estimate"]
    assert (estimate["rows"], estimate["replay_rows"]) == (used, 3)
    assert estimate["steps"] == 2 * -(-(used + 3) // 4) and estimate["adapter_parameters"] == 2 * 7 * 8 * 128
    assert found["cost"] == pytest.approx(found["seconds"] * 3.6 / 3600)
    assert [one["rule"] for one in found["problems"]] == ["W131"]
    assert not (recipe.parent / "home" / "runs").exists(), "nothing is left behind"


def test_a_second_stage_is_counted_too(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe.write_text(recipe.read_text() + '[dpo]\npairs = "pairs.jsonl"\nbatch_size = 2\naccumulate = 1\n')
    pairs = [{"prompt": f"What if number {n} never comes?", "chosen": ANSWER, "rejected": "No."} for n in range(5)]
    pairs += [pairs[0], {"prompt": "x", "chosen": "y" * 4000, "rejected": "z"}]
    (recipe.parent / "pairs.jsonl").write_text("".join(json.dumps(one) + "\n" for one in pairs))
    code, out = ask(capsys, "--json", str(recipe), "--dry-run")
    found = json.loads(out)
    assert code == 0 and (found["uses"]["dpo"], found["uses"]["too_long"], found["uses"]["duplicate"]) == (5, 2, 2)
    assert (found["estimate"]["pairs"], found["estimate"]["pair_steps"]) == (5, 3)
    _, out = ask(capsys, str(recipe), "--dry-run")
    assert "5, 3 steps more" in out


def test_pairs_that_the_run_would_refuse_are_told_until_that_is_waived(
    recipe: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe.write_text(recipe.read_text() + '[dpo]\npairs = "pairs.jsonl"\n')
    key = "Use AKIAABCDEFGHIJKLMNOP."
    answers = ["No.", "Never.", key, "Maybe.", key, "Perhaps."]
    pairs = [{"prompt": f"Is parcel {n} lost?", "chosen": ANSWER, "rejected": one} for n, one in enumerate(answers)]
    (recipe.parent / "pairs.jsonl").write_text("".join(json.dumps(one) + "\n" for one in pairs))
    code, out = ask(capsys, "--json", str(recipe), "--dry-run")
    found = json.loads(out)
    [secret] = [one for one in found["problems"] if one["rule"] == "E230"]
    assert code == 1 and not found["begins"]
    assert secret["message"] == "pairs.jsonl line 3: rejected answer holds an aws key (1 more of this code)"
    code, out = ask(capsys, str(recipe), "--dry-run", "--waive", "E230", "--reason", "a key of a test")
    assert code == 0 and "E230 waived" in out


def test_it_shows_which_part_of_five_rows_is_learnt(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, out = ask(capsys, "--json", str(recipe), "--dry-run")
    previews = json.loads(out)["previews"]
    assert len(previews) == 5
    for one in previews:
        seen, learnt = one["pieces"]
        assert not seen["learnt"] and learnt == {"text": f"{ANSWER}<|im_end|>", "learnt": True}
        assert seen["text"].startswith(
            "<|im_start|>system\nAnswer shortly.<|im_end|>\n<|im_start|>user\nWhen is parcel"
        )
        assert 0 < one["learnt_tokens"] < one["tokens"]
    _, out = ask(capsys, str(recipe), "--dry-run")
    assert out.count(f"⟦{ANSWER}<|im_end|>⟧") == 5 and "steps" in out and "memory" in out and "W131" in out


def test_what_would_stop_the_run_exits_with_1_until_it_is_waived(
    recipe: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe.write_text(recipe.read_text().replace("batch_size = 4", "batch_size = 4\nlearning_rate = 3e-3"))
    code, out = ask(capsys, str(recipe), "--dry-run")
    assert code == 1 and "E103 error" in out
    code, out = ask(capsys, str(recipe), "--dry-run", "--waive", "E103", "--reason", "a [tiny] base")
    assert code == 0 and "E103 waived" in out and "a [tiny] base" in out


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ((), "no recipe given"),
        (("r.toml", "--price-per-hour", "3"), "add --dry-run"),
        (("r.toml", "--waive", "E140"), "a reason for each code"),
        (("r.toml", "--submit", "x", "--dry-run"), "leave --push out, and --dry-run"),
        (("r.toml", "--follow"), "add --submit"),
    ],
)
def test_options_that_do_not_belong_together_are_refused(
    arguments: tuple[str, ...], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(["train", *arguments])
    assert told in " ".join(capsys.readouterr().err.split())


def test_the_schema_is_printed_without_a_recipe(capsys: pytest.CaptureFixture[str]) -> None:
    main(["train", "--schema"])
    found = json.loads(capsys.readouterr().out)
    assert found["$schema"].endswith("2020-12/schema") and "LoraSection" in found["$defs"]
