"""Self-tests of engine and adapter, in every run: a number from an engine that fails them is not a number.

noise_floor          base twice, in another order: how much scores move by themselves
base_beside_adapter  base and adapter alone, and in one batch with all adapters that share the run: the same, or rows
                     get mixed up
adapter_effect       adapter against base: they must differ, or the adapter is served as nothing
echo                 as many scores as tokens
finite               every score is a log-probability
finish_by_length     after measuring: how many answers were cut off at the suite's limit, in the worst suite
"""

import math
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import NamedTuple

from evaluator.engine import Engine, Prompt
from evaluator.results import Answered
from evaluator.suites import Loaded
from registry.records import Canary

TEXTS = 8
_NOISE_LIMIT = 0.1  # nats on one token; bf16 on CPU and GPU stays well below, a broken engine does not
_MIXED_LIMIT, _MOST_MIXED = 0.05, 0.1
_EFFECT_FLOOR = 1e-3


Scored = Sequence[Sequence[float]]


class _Runs(NamedTuple):
    """The same texts, scored by the base in three ways and by one adapter in two."""

    alone: Scored
    again: Scored
    beside: Scored
    adapted: Scored
    adapted_beside: Scored


def run_canaries(engine: Engine, texts: Sequence[Sequence[int]], adapters: Sequence[Path]) -> dict[Path, list[Canary]]:
    """Score a few texts alone and together and compare: the canaries of each of the adapters that share a run.

    texts: token ids, at least two tokens each.
    """
    alone = _scores(engine, [Prompt(ids, None) for ids in texts])
    again = list(reversed(_scores(engine, [Prompt(ids, None) for ids in reversed(texts)])))
    adapted = {adapter: _scores(engine, [Prompt(ids, adapter) for ids in texts]) for adapter in adapters}
    rows = (None, *adapters)
    mixed = _scores(engine, [Prompt(ids, where) for ids in texts for where in rows])
    beside = {where: mixed[place :: len(rows)] for place, where in enumerate(rows)}
    return {one: _judged(texts, _Runs(alone, again, beside[None], adapted[one], beside[one])) for one in adapters}


def _judged(texts: Sequence[Sequence[int]], runs: _Runs) -> list[Canary]:
    noise = _distance(runs.alone, runs.again)
    mixing = max(_distance(runs.alone, runs.beside), _distance(runs.adapted, runs.adapted_beside))
    effect = _distance(runs.alone, runs.adapted)
    mixed_limit, effect_limit = min(_MOST_MIXED, max(_MIXED_LIMIT, 4 * noise)), max(_EFFECT_FLOOR, 10 * noise)
    wrong_lengths = sum(len(scores) != len(ids) - 1 for run in runs for scores, ids in zip(run, texts, strict=True))
    bad = sum(not _is_logprob(x) for run in runs for scores in run for x in scores)
    return [
        _canary("noise_floor", noise, _NOISE_LIMIT, noise <= _NOISE_LIMIT, "base scored twice, largest change in nats"),
        _canary(
            "base_beside_adapter",
            mixing,
            mixed_limit,
            mixing <= mixed_limit,
            "base and adapter alone and in one batch with all that share it, largest change in nats",
        ),
        _canary(
            "adapter_effect",
            effect,
            effect_limit,
            effect > effect_limit,
            "adapter against base, largest change in nats",
        ),
        _canary("echo", float(wrong_lengths), 0.0, wrong_lengths == 0, "texts with more or fewer scores than tokens"),
        _canary("finite", float(bad), 0.0, bad == 0, "scores that are no log-probabilities"),
    ]


def finish_by_length(asked: Sequence[tuple[Loaded, Collection[Answered]]]) -> list[Canary]:
    """One canary over the answers of each subject to each suite: the share that was cut off, where it is furthest
    above the suite's limit.

    An answer that was cut off says what the limit left of it. Empty where nothing was generated.
    """
    found = []
    for loaded, answers in asked:
        if answers:
            cut, limit = sum(one.finish == "length" for one in answers), loaded.content.head.max_cut_off
            found.append((cut / len(answers), limit, f"{cut} of {len(answers)} answers to {loaded.suite.name}"))
    if not found:
        return []
    share, limit, what = max(found, key=lambda one: one[0] - one[1])
    return [_canary("finish_by_length", share, limit, share <= limit, f"{what} were cut off by max_tokens, share")]


def trusted(canaries: Sequence[Canary]) -> bool:
    """Whether the engine may be believed; the adapter's own effect is another matter."""
    return all(canary.passed for canary in canaries if canary.name != "adapter_effect")


def _scores(engine: Engine, prompts: Sequence[Prompt]) -> list[list[float]]:
    found: list[list[float]] = [[] for _ in prompts]
    for index, scores in engine.score(prompts):
        found[index] = scores.logprobs
    return found


def _distance(left: Sequence[Sequence[float]], right: Sequence[Sequence[float]]) -> float:
    """Largest difference on one token; a million where the two cannot be compared."""
    largest = 0.0
    for a, b in zip(left, right, strict=True):
        if len(a) != len(b) or not all(map(math.isfinite, (*a, *b))):
            return 1e6
        largest = max(largest, max((abs(x - y) for x, y in zip(a, b, strict=True)), default=0.0))
    return largest


def _is_logprob(value: float) -> bool:
    # vLLM clamps minus infinity to -9999; no token of a sane model comes near that.
    return math.isfinite(value) and -1000.0 < value <= 1e-3


def _canary(name: str, observed: float, limit: float, passed: bool, detail: str) -> Canary:
    return Canary(
        name=name, passed=passed, observed=observed, limit=limit, detail=f"{detail}: {observed:.4g}, limit {limit:.4g}"
    )
