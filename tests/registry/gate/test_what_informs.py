"""What a report says beside its verdict: it helps people to see why, and never changes a status."""

import math

import pytest
from factories import make_forgetting, make_perplexity
from gate_under_test import altered, check, judged, only

from registry.gate.statistics import moments
from registry.records import Status, Verdict


def test_flips_are_named_by_their_first_items() -> None:
    items = [f"q{i}" for i in range(10)]
    found = check(judged(forgetting=make_forgetting(10, 2, lost_items=items, gained_items=items[:2])), "forgetting")
    assert found.details[:2] == [
        "10 answers went from right to wrong: q0, q1, q2, q3, q4, …",
        "2 answers went from wrong to right: q0, q1",
    ]


@pytest.mark.parametrize(
    ("sign", "line"),
    [
        (1, "right answers became 0.12 nats per token less likely (0.0821 to 0.158)"),
        (-1, "right answers became 0.12 nats per token more likely (0.0821 to 0.158)"),
    ],
)
def test_the_loss_of_the_right_answers_likelihood_has_an_interval(sign: int, line: str) -> None:
    """By hand: 30 answers of 10 tokens, half 0 and half 2.4 nats: SE = sqrt(30/29 · 30 · 1.2²)/300, t = 1.699."""
    gold = moments([(sign * 2.4 * (i % 2), 10.0) for i in range(30)])
    found = check(judged(forgetting=make_forgetting(gold=gold)), "forgetting")
    assert line in found.details
    assert found.observed["gold_nats"] == pytest.approx(sign * 0.12)
    assert found.observed["gold_upper"] == pytest.approx(sign * 0.12 + 1.6991 * 0.022283, abs=1e-5)


def test_few_answers_have_no_interval() -> None:
    gold = moments([(1.0, 10.0)] * 5)
    found = check(judged(forgetting=make_forgetting(gold=gold)), "forgetting")
    assert "right answers became 0.1 nats per token less likely, on too few for an interval" in found.details
    assert "gold_lower" not in found.observed


def test_the_divergence_from_the_base_is_told() -> None:
    kl = moments([(0.6 + 0.1 * (i % 2), 24.0) for i in range(48)])
    found = check(judged(forgetting=make_forgetting(kl=kl)), "forgetting")
    assert "on texts of the base, KL(base || adapter) is 0.0271 nats per token (0.0266 to 0.0276)" in found.details


def test_shared_words_are_told() -> None:
    found = check(judged(forgetting=make_forgetting(shared_words=["dragon", "gold"])), "forgetting")
    assert "questions of lost items have in common: dragon, gold" in found.details


@pytest.mark.parametrize("section", ["gold", "kl"])
@pytest.mark.parametrize("value", [-1e6, 0.0, 1e6])
def test_what_informs_never_changes_a_status(section: str, value: float) -> None:
    extreme = moments([(value, 10.0)] * 30)
    assert judged(forgetting=make_forgetting(**{section: extreme})).verdict is Verdict.GO


def test_bits_per_byte_do_not_depend_on_the_tokenizer() -> None:
    """100 conversations of 20 tokens at 1 nat and 2 nats, in 80 bytes each: 20/80/ln 2 and 40/80/ln 2 bits."""
    part = make_perplexity(nll=1.0, base_nll=2.0, spread=0.0)
    mask = "sha256:" + "7" * 64
    sized = altered(
        part, mask=mask, candidate_bytes=moments([(20.0, 80.0)] * 100), base_bytes=moments([(40.0, 80.0)] * 100)
    )
    found = check(judged(perplexity=sized), "perplexity")
    assert found.status is Status.PASS and found.observed["mask"] == mask
    assert found.observed["bits_per_byte"] == pytest.approx(0.25 / math.log(2))
    assert found.observed["bits_per_byte_upper"] == pytest.approx(0.25 / math.log(2))
    assert found.observed["bits_per_byte_base"] == pytest.approx(0.5 / math.log(2))
    assert found.details[0].startswith("0.361 bits per byte (upper bound 0.361), base 0.721")
    assert "bits_per_byte" not in check(judged(), "perplexity").observed


@pytest.mark.parametrize("part", ["candidate_bytes", "base_bytes"])
@pytest.mark.parametrize("bad", [[(20.0, 80.0)] * 99, [(10.0, 80.0)] * 100, [(math.nan, 80.0)] * 100])
def test_sums_over_bytes_of_other_scores_are_invalid(part: str, bad: list[tuple[float, float]]) -> None:
    good = {"candidate_bytes": moments([(20.0, 80.0)] * 100), "base_bytes": moments([(40.0, 80.0)] * 100)}
    spoilt = altered(make_perplexity(spread=0.0), **{**good, part: moments(bad)})
    assert only(judged(perplexity=spoilt), "perplexity", Status.INVALID)
