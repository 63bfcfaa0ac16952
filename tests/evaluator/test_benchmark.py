"""The evaluator's benchmark: what it scales, what it does not, and which way its ratios point."""

import time

import pytest

from benchmarks.evaluator import Outcome, _how, _ratios, _scaled
from benchmarks.evaluator_parts import _timed


def test_only_the_seconds_inside_the_model_are_scaled_to_all_items() -> None:
    tasks = {
        "questions": {"model": 2.0, "fixed": 5.0, "prompt_tokens": 10},
        "general": {"model": 3.0, "fixed": 7.0, "prompt_tokens": 20},
    }
    one = _scaled({"start": 9.0, "tasks": tasks}, {"questions": 640, "general": 32, "pilot": 5}, 64, peak=1)
    assert one == Outcome(9.0, 12.0 + 20.0 + 3.0, 120, 1, sample=64, fixed=12.0)
    assert _scaled({"start": 9.0, "tasks": tasks}, {"questions": 64, "general": 32}, 64, peak=1).sample is None


def test_the_model_is_timed_and_what_stands_around_it_is_not() -> None:
    class Slow:
        def loglikelihood(self, requests: list[int], disable_tqdm: bool = False) -> list[int]:
            time.sleep(0.05)
            return [*requests, int(disable_tqdm)]

        def generate_until(self, requests: list[int]) -> list[int]:
            raise ValueError("no")

    begun, model = time.perf_counter(), Slow()
    seconds = _timed(model)
    time.sleep(0.1)
    assert model.loglikelihood([3], disable_tqdm=True) == [3, 1]
    assert len(seconds) == 1 and 0.05 <= seconds[0] <= time.perf_counter() - begun - 0.1
    with pytest.raises(ValueError, match="no"):
        model.generate_until([])
    assert len(seconds) == 2


def test_ratios_are_of_speeds_and_say_what_they_leave_out() -> None:
    ours = Outcome(5.0, 10.0, 1, 1, first_item=4.0, second_candidate=6.0)
    found = {
        "tunegate": [ours],
        "raw vLLM": [Outcome(4.0, 8.0, 1, 1)],
        "lm-eval vllm": [Outcome(10.0, 35.0, 1, 1, sample=64, fixed=15.0)],
        "lm-eval hf": [Outcome(0, 0, 0, 0, failure="exit 1: no")],
    }
    assert list(_ratios(found)) == [
        "speed of tunegate ÷ speed of raw vLLM: 0.80 start excluded, 0.80 start included",
        "speed of tunegate ÷ speed of lm-eval vllm: 3.50 start excluded, 3.00 start included, "
        "2.00 start and its fixed costs excluded",
        "from the worker's start to its first scored item: 4.0 s",
        "second candidate: 6.0 s, 40% of the first with its start",
    ]


def test_a_row_says_of_how_many_runs_and_items_it_speaks() -> None:
    one, failed = Outcome(1, 1, 1, 1), Outcome(0, 0, 0, 0, failure="exit 1: no")
    assert _how([one, one, failed], one) == "median of 2, 1 failed, all items"
    assert _how([one], one._replace(sample=64)) == "1 run, scaled from 64 items a suite"
