"""Lint of recipes: each code where it belongs and nowhere else; only errors that nobody waived stop a run."""

import msgspec
import pytest

from registry.client import InvalidRequest
from registry.inspection.lora_config import SERVED_MODULES
from registry.inspection.lora_config import SERVED_RANKS as INSPECTED_RANKS
from registry.records import PerplexityRule, Policy
from trainer.estimate import Estimate
from trainer.lint import SERVED_RANKS, lint, lint_estimate, lint_policy, lint_result, require
from trainer.preflight.codes import RULES
from trainer.recipe import LINEAR, parse_recipe
from trainer.recipe_check import _SERVED_MODULES

SMALL = 'name = "x"\nbase = "b"\ndata = "d.jsonl"\n'
REPLAY = '[replay]\nprompts = "p"\n'
GIB = 1024**3


def codes(text: str) -> list[str]:
    return [one.rule for one in lint(parse_recipe(SMALL + text))]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        ("[training]\nlearning_rate = 5e-5\n", ["W104"]),
        ('[lora]\ndtype = "float32"\n[training]\nlearning_rate = 5e-5\n', []),
        ("[training]\nlearning_rate = 2e-5\n", ["W101", "W104"]),
        ("[training]\nlearning_rate = 1e-3\n", ["W102"]),
        ("[training]\nlearning_rate = 1e-3\n" + REPLAY, []),
        ("[training]\nlearning_rate = 2e-3\n" + REPLAY, []),
        ("[training]\nlearning_rate = 3e-3\n" + REPLAY, ["E103"]),
        ("[training]\nepochs = 3.0\n", []),
        ("[training]\nepochs = 4.0\n", ["W132"]),
        ("[lora]\nrank = 12\n", ["W111"]),
        ("[lora]\nrank = 32\n", ["W111"]),
        ("[lora]\nrank = 8\n", []),
        ("[lora]\nrank = 32\n[serving]\nmax_lora_rank = 32\n", []),
        ("[lora]\nrank = 32\n[serving]\nmax_lora_rank = 16\n", ["E112"]),
        ("[lora]\nrank = 12\n[serving]\nmax_lora_rank = 8\n", ["W111", "E112"]),
        ("[serving]\n", []),
        ('[training]\npadding_side = "left"\n', ["W120"]),
        ("[training]\nbatch_size = 8\naccumulate = 4\n", []),
        ("[training]\nbatch_size = 8\naccumulate = 5\n", ["W130"]),
        ('preset = "article"\n[training]\nmax_length = 1024\nepochs = 2.5\n', ["W105"]),
        ('preset = "article"\n[lora]\nrank = 32\n[training]\naccumulate = 9\n', ["W111", "W130", "W105", "W105"]),
    ],
)
def test_a_recipe_has_the_findings_it_should(text: str, expected: list[str]) -> None:
    assert codes(text) == expected


def test_what_the_engine_serves_is_what_the_inspection_takes() -> None:
    assert SERVED_RANKS == INSPECTED_RANKS and LINEAR == SERVED_MODULES == _SERVED_MODULES


def test_an_error_stops_the_run_until_it_is_waived() -> None:
    hot = SMALL + "[training]\nlearning_rate = 3e-3\n" + REPLAY
    with pytest.raises(InvalidRequest, match=r"E103.*--waive"):
        require(lint(parse_recipe(hot)), parse_recipe(hot))
    waived = parse_recipe(hot + '[[waive]]\ncode = "E103"\nreason = "a tiny base"\n')
    require(lint(waived), waived)
    assert [one.rule for one in lint(waived)] == ["E103"], "it is waived, and still there to be seen"


def test_a_warning_stops_nothing() -> None:
    recipe = parse_recipe(SMALL + "[training]\nlearning_rate = 2e-5\n")
    require(lint(recipe), recipe)


def make_estimate(**changes: object) -> Estimate:
    usual = Estimate(
        rows=1000,
        replay_rows=0,
        tokens_per_epoch=60_000,
        tokens=120_000,
        trained_tokens=40_000,
        longest_row=80,
        steps_per_epoch=63,
        steps=126,
        adapter_parameters=4_000_000,
        memory={},
        memory_bytes=2 * GIB,
        flops=1e12,
    )
    return msgspec.structs.replace(usual, **changes)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, []),
        ({"steps": 49}, ["W131"]),
        ({"steps": 50}, []),
        ({"trained_tokens": 8_000_002}, ["W110"]),  # of two epochs: what is learnt is learnt from half of them
        ({"trained_tokens": 8_000_000}, []),
        ({"memory_bytes": 4 * GIB + 1}, ["E170"]),
        ({"memory_bytes": 4 * GIB}, []),
    ],
)
def test_a_size_has_the_findings_it_should(changes: dict[str, object], expected: list[str]) -> None:
    found = lint_estimate(parse_recipe(SMALL), make_estimate(**changes), 4 * GIB)
    assert [one.rule for one in found] == expected


def test_an_adapter_that_does_not_stop_is_told_of() -> None:
    assert [one.rule for one in lint_result({"stopped_share": 0.94})] == ["W190"]
    assert lint_result({"stopped_share": 0.95}) == lint_result({}) == []


def test_a_code_stands_in_the_table_once() -> None:
    from trainer.preflight.codes import _ALL

    assert len(RULES) == len(_ALL)


@pytest.mark.parametrize(("ratio", "expected"), [(1.0, []), (0.5, []), (1.001, ["W150"]), (100.0, ["W150"])])
def test_a_policy_that_forgives_being_worse_than_the_base_is_told_of(ratio: float, expected: list[str]) -> None:
    policy = Policy(perplexity=PerplexityRule(max=15.0, max_ratio_to_base=ratio))
    assert [one.rule for one in lint_policy(policy)] == expected


@pytest.mark.parametrize("key", ["fp16 = true", 'compute_dtype = "float16"', 'bnb_4bit_compute_dtype = "float16"'])
def test_fp16_is_refused_by_its_code(key: str) -> None:
    with pytest.raises(InvalidRequest, match=r"E171: .*bfloat16"):
        parse_recipe(SMALL + f"[training]\n{key}\n")
