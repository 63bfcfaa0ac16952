"""Estimates of a run: counted where it can be counted, by the documented formulas where not."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.estimate import Base, Counts, adapter_parameters, estimate, read_base, seconds_for
from trainer.recipe import LINEAR, parse_recipe

SMALL = 'name = "x"\nbase = "b"\ndata = "d.jsonl"\n'
# Llama-3.1-8B, whose adapter of rank 16 on all linear layers has 41.9 million parameters.
LLAMA = {
    "num_hidden_layers": 32,
    "hidden_size": 4096,
    "num_attention_heads": 32,
    "vocab_size": 128_256,
}
SHAPES = {
    "self_attn.q_proj": [4096, 4096],
    "self_attn.k_proj": [1024, 4096],
    "self_attn.v_proj": [1024, 4096],
    "self_attn.o_proj": [4096, 4096],
    "mlp.gate_proj": [14_336, 4096],
    "mlp.up_proj": [14_336, 4096],
    "mlp.down_proj": [4096, 14_336],
}
TENSORS = {f"model.layers.{layer}.{name}.weight": shape for layer in range(32) for name, shape in SHAPES.items()} | {
    "model.embed_tokens.weight": [128_256, 4096],
    "lm_head.weight": [128_256, 4096],
    **{f"model.layers.{layer}.input_layernorm.weight": [4096] for layer in range(32)},
}
TINY = Base(layers=2, hidden=64, heads=2, vocabulary=384, linear=100_000, other=50_000)


def test_an_adapter_has_the_parameters_that_are_known_of_it() -> None:
    assert adapter_parameters(TENSORS, LINEAR, 16, 0) == 41_943_040
    assert adapter_parameters(TENSORS, LINEAR, 8, 0) == 20_971_520
    assert adapter_parameters(TENSORS, LINEAR, 16, 16) == 41_943_040 // 2
    assert adapter_parameters(TENSORS, ["q_proj"], 16, 0) == 32 * 16 * 8192


def test_a_base_is_counted_from_its_weights() -> None:
    base = read_base(LLAMA, TENSORS)
    assert base is not None and base.layers == 32
    assert base.linear == 6_979_321_856 and base.other == 2 * 128_256 * 4096 + 32 * 4096
    assert read_base({"text_config": LLAMA}, TENSORS) == base
    assert read_base({"hidden_size": 4096}, TENSORS) is None


def test_an_8b_in_four_bits_fits_where_it_is_known_to_fit() -> None:
    """Measured by others: 7.4 GiB on a 4090 with torchtune, two rows of 2,048 tokens."""
    recipe = parse_recipe(SMALL + "[training]\nbatch_size = 2\naccumulate = 8\nmax_length = 2048\n")
    base = read_base(LLAMA, TENSORS)
    assert base is not None
    found = estimate(recipe, base, 41_943_040, Counts([2048] * 100, [700] * 100, []), on_cpu=False)
    assert 6 < found.memory_bytes / 1024**3 < 12
    assert found.memory_bytes == sum(found.memory.values())
    whole = estimate(
        parse_recipe(SMALL + 'quantization = "none"\n'), base, 41_943_040, Counts([2048], [1], []), on_cpu=True
    )
    assert whole.memory["base"] == 2 * (base.linear + base.other)


def test_steps_are_those_of_the_run() -> None:
    recipe = parse_recipe(SMALL + "[training]\nbatch_size = 4\naccumulate = 2\nepochs = 1.5\n")
    found = estimate(recipe, TINY, 1000, Counts([10] * 30, [4] * 30, [20] * 3), on_cpu=True)
    assert (found.steps_per_epoch, found.steps) == (5, 8)  # 33 rows, 8 a step; round(7.5)
    assert (found.rows, found.replay_rows, found.longest_row, found.tokens_per_epoch) == (30, 3, 20, 360)
    assert found.tokens == round(360 * 8 / 5) and found.trained_tokens == round(120 * 8 / 5)


def test_work_is_what_the_formula_says() -> None:
    recipe = parse_recipe(SMALL + "[lora]\nfirst_layer = 1\n[training]\nepochs = 1.0\nbatch_size = 1\naccumulate = 1\n")
    counts = Counts([10, 10], [5, 5], [6])
    on_cpu = estimate(recipe, TINY, 1, counts, on_cpu=True)
    assert on_cpu.flops == pytest.approx(2 * 100_000 * (26 * 1.5 + 6))
    assert estimate(recipe, TINY, 1, counts, on_cpu=False).flops == pytest.approx(2 * 100_000 * (26 * 2 + 6))
    assert seconds_for(4e12, 1e12) == pytest.approx(10.0)


def test_no_rows_take_no_steps() -> None:
    found = estimate(parse_recipe(SMALL), TINY, 1000, Counts([], [], []), on_cpu=True)
    assert (found.steps, found.tokens, found.flops) == (0, 0, 0)


@given(st.lists(st.integers(1, 500), min_size=1, max_size=30), st.integers(1, 100))
def test_more_rows_never_take_less(rows: list[int], more: int) -> None:
    recipe = parse_recipe(SMALL)
    few = estimate(recipe, TINY, 1000, Counts(rows, rows, []), on_cpu=True)
    many = estimate(recipe, TINY, 1000, Counts([*rows, more], [*rows, more], []), on_cpu=True)
    assert many.steps >= few.steps and many.flops > few.flops and many.memory_bytes >= few.memory_bytes


def test_replay_rows_need_the_logits_of_every_token_twice() -> None:
    plain, replay = parse_recipe(SMALL), parse_recipe(SMALL + '[replay]\nprompts = "p"\n')
    counts = Counts([30], [10], [])
    sizes = [estimate(recipe, TINY, 1, counts, on_cpu=True).memory["head"] for recipe in (plain, replay)]
    assert sizes == [8 * 30 // 3 * 384 * 10, 8 * 30 * 384 * 20]


DPO = SMALL + '[dpo]\npairs = "p"\nbatch_size = 2\naccumulate = 2\nepochs = 1.5\n'


def test_a_second_stage_adds_its_steps_and_the_references_one_reading() -> None:
    plain, both = parse_recipe(SMALL), parse_recipe(DPO)
    counts = Counts([10] * 16, [4] * 16, [], pairs=[30] * 10, longest_pair=15)
    first, found = (estimate(recipe, TINY, 1000, counts, on_cpu=True) for recipe in (plain, both))
    assert (found.steps, found.pairs, found.pair_steps) == (first.steps, 10, 4)  # 10 pairs, 4 a step; round(4.5)
    # 300 tokens: 4/3 epochs forward and backward, and once through the reference.
    assert found.flops - first.flops == pytest.approx(2 * 100_000 * 300 * (2 * 4 / 3 + 1))


def test_memory_is_that_of_the_stage_that_takes_more() -> None:
    both = parse_recipe(DPO)

    def sizes(row: int, pair: int) -> dict[str, int]:
        counts = Counts([row], [1], [], pairs=[2 * pair], longest_pair=pair)
        return estimate(both, TINY, 1000, counts, on_cpu=True).memory

    assert sizes(100, 10) == estimate(parse_recipe(SMALL), TINY, 1000, Counts([100], [1], []), on_cpu=True).memory
    long_pairs = sizes(10, 1000)
    assert long_pairs["adapter"] == 4 * 1000 * 4, "float32"
    assert long_pairs["head"] == 2 * 2 * 1000 * 384 * 10 // 3, "two pairs are four rows"
