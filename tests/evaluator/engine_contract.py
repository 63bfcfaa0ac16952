"""What every engine keeps: the fake in tests/evaluator, the real one in tests/end_to_end.

Each function takes an engine, an adapter that has an effect, and some texts as token ids of different lengths.
"""

import math
from collections.abc import Callable, Sequence
from pathlib import Path

from evaluator.engine import Engine, Prompt

Texts = Sequence[Sequence[int]]
Promise = Callable[[Engine, Path, Texts], None]
SAME_NATS = 0.05  # bf16 in another batch


def scores_of(engine: Engine, prompts: Sequence[Prompt]) -> list[list[float]]:
    found = dict(engine.score(prompts))
    assert sorted(found) == list(range(len(prompts)))
    return [found[index] for index in range(len(prompts))]


def distance(left: Sequence[Sequence[float]], right: Sequence[Sequence[float]]) -> float:
    return max(abs(x - y) for a, b in zip(left, right, strict=True) for x, y in zip(a, b, strict=True))


def each_text_gets_one_log_probability_for_each_token_after_the_first(
    engine: Engine, adapter: Path, texts: Texts
) -> None:
    for where in (None, adapter):
        for ids, scores in zip(texts, scores_of(engine, [Prompt(ids, where) for ids in texts]), strict=True):
            assert len(scores) == len(ids) - 1
            assert all(math.isfinite(score) and score <= 0 for score in scores)


def results_come_once_for_each_prompt_whatever_their_order(engine: Engine, adapter: Path, texts: Texts) -> None:
    prompts = [Prompt(ids, None) for ids in (*texts, *reversed(texts))]
    scores = scores_of(engine, prompts)
    assert distance(scores, list(reversed(scores))) <= SAME_NATS
    assert sorted(index for index, _ in engine.generate(prompts, 4, None)) == list(range(len(prompts)))


def a_token_is_scored_given_only_those_before_it(engine: Engine, adapter: Path, texts: Texts) -> None:
    longest = max(texts, key=len)
    half = longest[: len(longest) // 2]
    whole, beginning = scores_of(engine, [Prompt(longest, None), Prompt(half, None)])
    assert distance([whole[: len(half) - 1]], [beginning]) <= SAME_NATS


def the_base_is_the_same_beside_an_adapter(engine: Engine, adapter: Path, texts: Texts) -> None:
    alone = scores_of(engine, [Prompt(ids, None) for ids in texts])
    mixed = scores_of(engine, [Prompt(ids, where) for ids in texts for where in (None, adapter)])
    assert distance(alone, mixed[0::2]) <= SAME_NATS
    assert distance(alone, mixed[1::2]) > SAME_NATS


def an_answer_is_greedy_and_no_longer_than_allowed(engine: Engine, adapter: Path, texts: Texts) -> None:
    prompts = [Prompt(ids, where) for ids in texts for where in (None, adapter)]
    for limit in (1, 6):
        first, again = dict(engine.generate(prompts, limit, None)), dict(engine.generate(prompts, limit, None))
        assert first == again
        for answer in first.values():
            assert answer.finish in ("stop", "length") and answer.tokens <= limit
            assert answer.finish == "stop" or answer.tokens == limit


def an_answer_ends_before_the_stop(engine: Engine, adapter: Path, texts: Texts) -> None:
    prompt = [Prompt(texts[0], None)]
    [(_, free)] = engine.generate(prompt, 12, None)
    stop = free.text[1:3] or free.text
    [(_, stopped)] = engine.generate(prompt, 12, stop)
    assert stopped.text == free.text.partition(stop)[0] and stopped.finish == "stop"


def nothing_asked_is_nothing_answered(engine: Engine, adapter: Path, texts: Texts) -> None:
    assert list(engine.score([])) == [] and list(engine.generate([], 4, None)) == []


def the_fingerprint_stays(engine: Engine, adapter: Path, texts: Texts) -> None:
    before = engine.info
    scores_of(engine, [Prompt(texts[0], adapter)])
    assert engine.info == before and before.fingerprint.startswith("sha256:")


CONTRACT: tuple[Promise, ...] = (
    each_text_gets_one_log_probability_for_each_token_after_the_first,
    results_come_once_for_each_prompt_whatever_their_order,
    a_token_is_scored_given_only_those_before_it,
    the_base_is_the_same_beside_an_adapter,
    an_answer_is_greedy_and_no_longer_than_allowed,
    an_answer_ends_before_the_stop,
    nothing_asked_is_nothing_answered,
    the_fingerprint_stays,
)
