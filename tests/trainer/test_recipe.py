"""Recipes: what is wrong is said with its key, what is merely unwise is said too."""

from pathlib import Path

import pytest

from registry.client import InvalidRequest
from trainer.recipe import parse_recipe, read_recipe, warnings

SMALL = 'name = "x"\nbase = "b"\ndata = "d.jsonl"\n'
SUITES = Path(__file__).parents[2] / "suites" / "support-desk"


def test_a_small_recipe_takes_the_defaults_of_the_field() -> None:
    recipe = parse_recipe(SMALL)
    assert (recipe.lora.rank, recipe.lora.alpha, recipe.training.learning_rate) == (16, 32.0, 2e-4)
    assert recipe.quantization == "nf4" and recipe.replay is None
    assert warnings(recipe) == []


@pytest.mark.parametrize("name", ["recipe.toml", "recipe-too-hot.toml"])
def test_the_shipped_recipes_can_be_run(name: str) -> None:
    recipe, text = read_recipe(SUITES / name)
    assert text == (SUITES / name).read_text()
    assert (SUITES / recipe.data).exists()
    assert recipe.replay is None or (SUITES / recipe.replay.prompts).exists()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("name = ", "not valid TOML"),
        ('name = "x"\nbase = "b"\n', "data"),
        (SMALL + "learning_rate = 1e-4\n", "learning_rate"),
        (SMALL + "[lora]\nranks = 8\n", "ranks"),
        (SMALL + "[lora]\nrank = 0\n", "rank"),
        (SMALL + "[lora]\nrank = 257\n", "rank"),
        (SMALL + '[lora]\nrank = "8"\n', "rank"),
        (SMALL + "[lora]\nalpha = inf\n", "lora.alpha"),
        (SMALL + '[lora]\ntarget_modules = ["q_proj", "lm_head"]\n', "lm_head"),
        (SMALL + "[lora]\ntarget_modules = []\n", "target_modules"),
        (SMALL + "[training]\nlearning_rate = nan\n", "training.learning_rate"),
        (SMALL + "[training]\nlearning_rate = 2.0\n", "training.learning_rate"),
        (SMALL + "[training]\nepochs = 0.0\n", "training.epochs"),
        (SMALL + '[training]\nschedule = "cosine\\n"\n', "schedule"),
        (SMALL + '[replay]\nprompts = "p"\nweight = -1.0\n', "replay.weight"),
        (SMALL + 'quantization = "int3"\n', "quantization"),
    ],
)
def test_what_cannot_be_run_is_refused_with_its_key(text: str, told: str) -> None:
    with pytest.raises(InvalidRequest, match=told.replace(".", r"\.")):
        parse_recipe(text)


@pytest.mark.parametrize("name", ["", ".", "..", "../x", "a/b", "/x", "a\\\\b", ".hidden", "x y", "a\\n", "x" * 101])
def test_a_name_that_is_no_name_of_a_directory_is_refused(name: str) -> None:
    with pytest.raises(InvalidRequest, match=r"\$\.name|name"):
        parse_recipe(SMALL.replace('name = "x"', f'name = "{name}"'))


def test_every_problem_is_told_at_once() -> None:
    with pytest.raises(InvalidRequest) as refused:
        parse_recipe(SMALL + "[lora]\nalpha = nan\ndropout = 1.0\n[training]\nlearning_rate = 0.0\nwarmup = -1.0\n")
    assert len(refused.value.problems) == 4


def test_a_recipe_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe")
    for name in ("missing.toml", "binary.toml"):
        with pytest.raises(InvalidRequest, match="cannot be read"):
            read_recipe(tmp_path / name)


@pytest.mark.parametrize(
    ("section", "told"),
    [
        ("[training]\nlearning_rate = 2e-5\n", "full fine-tuning"),
        ("[training]\nlearning_rate = 1e-3\n", "general knowledge"),
        ("[training]\nepochs = 4.0\n", "memorise"),
    ],
)
def test_what_is_usually_a_mistake_is_said(section: str, told: str) -> None:
    assert [told in warning for warning in warnings(parse_recipe(SMALL + section))] == [True]


def test_a_hot_rate_with_replay_is_no_mistake() -> None:
    assert warnings(parse_recipe(SMALL + '[training]\nlearning_rate = 1e-3\n[replay]\nprompts = "p"\n')) == []
