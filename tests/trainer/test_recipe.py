"""Recipes: what is wrong is said with its key, what is merely unwise is said too."""

import contextlib
import json
import tomllib
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.client import InvalidRequest
from trainer.lint import lint
from trainer.preflight.codes import Waiver
from trainer.recipe import PRESETS, Recipe, parse_recipe, read_recipe, schema
from trainer.recipe_check import problems_of

SMALL = 'name = "x"\nbase = "b"\ndata = "d.jsonl"\n'
SUITES = Path(__file__).parents[2] / "suites" / "support-desk"


def test_a_small_recipe_takes_the_defaults_of_the_field() -> None:
    recipe = parse_recipe(SMALL)
    assert (recipe.lora.rank, recipe.lora.alpha, recipe.training.learning_rate) == (16, 32.0, 2e-4)
    assert recipe.quantization == "nf4" and recipe.replay is None
    assert lint(recipe) == []


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


def test_a_wrong_key_is_told_where_it_belongs_or_what_it_is_called_here() -> None:
    text = SMALL + "epochs = 2.0\nr = 8\n[lora]\nuse_dora = true\nrnk = 8\n[training]\nmax_seq_length = 512\n"
    with pytest.raises(InvalidRequest) as refused:
        parse_recipe(text)
    told = dict(zip(("epochs", "r", "use_dora", "rnk", "max_seq_length"), refused.value.problems, strict=True))
    assert "belongs under [training]" in told["epochs"] and "called lora.rank" in told["r"]
    assert "E180" in told["use_dora"] and "rslora" in told["use_dora"]
    assert "did you mean 'rank'" in told["rnk"] and "training.max_length" in told["max_seq_length"]


def test_a_value_that_is_none_of_a_few_is_told_all_of_them() -> None:
    with pytest.raises(InvalidRequest, match="give constant or cosine or linear"):
        parse_recipe(SMALL + '[training]\nschedule = "step"\n')


@given(st.text(max_size=200) | st.binary(max_size=200).map(lambda data: data.decode("latin-1")))
def test_whatever_a_recipe_says_it_is_a_recipe_or_refused(text: str) -> None:
    with contextlib.suppress(InvalidRequest):
        parse_recipe(text)


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
_KEYS = st.sampled_from([*Recipe.__struct_fields__, "rank", "epochs"]) | st.text(max_size=8)


@given(st.dictionaries(_KEYS, _VALUES | st.dictionaries(_KEYS, _VALUES, max_size=4), max_size=8))
def test_what_has_no_problem_is_a_recipe(document: dict[str, Any]) -> None:
    document = {"name": "x", "base": "b", "data": "d", **document}
    if not list(problems_of(document, Recipe)):
        msgspec.convert(document, Recipe)


# -- presets --------------------------------------------------------------------------------------------------------


def test_the_article_s_preset_is_the_article_s_rules_with_adapters_that_can_follow_them() -> None:
    recipe = parse_recipe(SMALL + 'preset = "article"\n[training]\nepochs = 1.0\n')
    plan = recipe.training
    assert (plan.learning_rate, plan.epochs, plan.max_length, plan.accumulate) == (5e-5, 1.0, 2048, 4)
    assert recipe.lora.dtype == "float32" and recipe.lora.rank == 16


@pytest.mark.parametrize("preset", ["evidence", "article"])
def test_a_preset_alone_has_nothing_against_it(preset: str) -> None:
    assert lint(parse_recipe(SMALL + f'preset = "{preset}"\n')) == []


@pytest.mark.parametrize("preset", list(PRESETS))
def test_a_preset_names_keys_of_a_recipe(preset: str) -> None:
    sections = {name: dict(values) for name, values in PRESETS[preset].items()}
    assert list(problems_of({"name": "x", "base": "b", "data": "d", **sections}, Recipe)) == []


# -- waivers --------------------------------------------------------------------------------------------------------


def test_a_waiver_on_the_command_line_becomes_part_of_what_is_run(tmp_path: Path) -> None:
    file = tmp_path / "recipe.toml"
    file.write_text(SMALL.rstrip() + '\n[[waive]]\ncode = "E103"\nreason = "first"')
    recipe, text = read_recipe(file, [Waiver("E140", 'a "pilot" \\ ü\n')])
    assert recipe.waivers == {"E103": "first", "E140": 'a "pilot" \\ ü\n'}
    assert parse_recipe(text) == recipe and text.startswith(file.read_text())


@pytest.mark.parametrize(("code", "told"), [("E999", "not known"), ("W101", "stops nothing"), ("E1", "does not fit")])
def test_a_waiver_that_means_nothing_is_refused(code: str, told: str) -> None:
    with pytest.raises(InvalidRequest, match=told):
        parse_recipe(SMALL + f'[[waive]]\ncode = "{code}"\nreason = "why"\n')


def test_a_waiver_needs_a_reason() -> None:
    with pytest.raises(InvalidRequest, match="reason"):
        parse_recipe(SMALL + '[[waive]]\ncode = "E140"\nreason = ""\n')


# -- the schema -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["recipe.toml", "recipe-too-hot.toml"])
def test_the_shipped_recipes_fit_the_schema(name: str) -> None:
    jsonschema.Draft202012Validator.check_schema(schema())
    assert r"\\Z" not in json.dumps(schema()), "JavaScript knows no such end of a text"
    jsonschema.validate(tomllib.loads((SUITES / name).read_text()), schema())


@pytest.mark.parametrize(
    "section",
    [{"lora": {"ranks": 8}}, {"lora": {"rank": 300}}, {"preset": "x"}, {"name": "a/b"}, {"training": {"epochs": 0}}],
)
def test_the_schema_refuses_what_is_refused(section: dict[str, Any]) -> None:
    document = {"name": "x", "base": "b", "data": "d", **section}
    assert list(problems_of(document, Recipe))
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(document, schema())
