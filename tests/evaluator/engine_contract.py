"""What every engine keeps: the fake in tests/evaluator, the real ones in tests/end_to_end.

Each function takes an engine, an adapter that has an effect, and some texts as token ids of different lengths.
`CONTRACT` holds for each; `EXACT` besides for those that batch the same prompts in the same way each time, on a CPU.
"""

import math
import random
from collections.abc import Callable, Sequence
from pathlib import Path

from evaluator.engine import Engine, Prompt

Texts = Sequence[Sequence[int]]
Promise = Callable[[Engine, Path, Texts], None]
SAME_NATS = 0.05  # bf16 in another batch


def scores_of(engine: Engine, prompts: Sequence[Prompt]) -> list[list[float]]:
    found = dict(engine.score(prompts))
    assert sorted(found) == list(range(len(prompts)))
    return [found[index].logprobs for index in range(len(prompts))]


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
    assert sorted(index for index, _ in engine.generate(prompts, 4)) == list(range(len(prompts)))


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
        first, again = dict(engine.generate(prompts, limit)), dict(engine.generate(prompts, limit))
        assert first == again
        for answer in first.values():
            assert answer.finish in ("stop", "length") and len(answer.ids) <= limit
            assert answer.finish == "stop" or len(answer.ids) == limit


def an_answer_ends_before_the_stop(engine: Engine, adapter: Path, texts: Texts) -> None:
    prompt = [Prompt(texts[0], None)]
    [(_, free)] = engine.generate(prompt, 12)
    stop = free.text[1:3] or free.text
    [(_, stopped)] = engine.generate(prompt, 12, [stop])
    assert stopped.text == free.text.partition(stop)[0] and stopped.finish == "stop"


def a_drawn_answer_is_decided_by_its_seed(engine: Engine, adapter: Path, texts: Texts) -> None:
    prompts = [Prompt(ids, where) for ids in texts for where in (None, adapter)]
    first, again, other = (dict(engine.sample(prompts, 8, seed)) for seed in (5, 5, 105))
    assert first == again and first != other
    # Each prompt has a seed of its own.
    [(_, third)] = engine.sample(prompts[2:3], 8, 5 + 2)
    assert third == first[2]
    for answer in first.values():
        assert answer.finish in ("stop", "length") and 0 < len(answer.ids) <= 8
        assert answer.finish == "stop" or len(answer.ids) == 8


def a_choice_is_what_the_score_says_of_the_next_token(engine: Engine, adapter: Path, texts: Texts) -> None:
    options = sorted({one for ids in texts for one in ids})[:8]
    for where in (None, adapter):
        prompts = [Prompt(ids, where) for ids in texts]
        chosen = dict(engine.choose(prompts, options))
        turned = dict(engine.choose(prompts, options[::-1]))
        for index, ids in enumerate(texts):
            longer = scores_of(engine, [Prompt([*ids, option], where) for option in options])
            assert distance([chosen[index]], [[scores[-1] for scores in longer]]) <= SAME_NATS
            assert distance([chosen[index]], [turned[index][::-1]]) <= SAME_NATS


def what_the_model_says_by_itself_is_greedy(engine: Engine, adapter: Path, texts: Texts) -> None:
    for where in (None, adapter):
        said = dict(engine.generate([Prompt(ids, where) for ids in texts], 6))
        whole = [[*ids, *said[index].ids] for index, ids in enumerate(texts)]
        found = dict(engine.score([Prompt(ids, where) for ids in whole]))
        for index, ids in enumerate(texts):
            assert len(found[index].greedy) == len(found[index].logprobs)
            assert all(found[index].greedy[len(ids) - 1 :]), (ids, said[index].ids)
    [(_, other)] = engine.score([Prompt([one for one in whole[0] for _ in (1, 2)], where)])
    assert not all(other.greedy)


def shuffled_prompts_have_the_same_scores(
    engine: Engine, adapter: Path, texts: Texts, limit: float = SAME_NATS
) -> None:
    prompts = [Prompt(ids, where) for ids in texts for where in (None, adapter)] * 2
    order = random.Random(7).sample(range(len(prompts)), len(prompts))
    straight, shuffled = scores_of(engine, prompts), scores_of(engine, [prompts[place] for place in order])
    assert distance([straight[place] for place in order], shuffled) <= limit


def shuffled_prompts_have_exactly_the_same_scores(engine: Engine, adapter: Path, texts: Texts) -> None:
    shuffled_prompts_have_the_same_scores(engine, adapter, texts, limit=0.0)


def a_call_repeated_says_the_same(engine: Engine, adapter: Path, texts: Texts) -> None:
    prompts = [Prompt(ids, where) for ids in texts for where in (None, adapter)]
    assert dict(engine.score(prompts)) == dict(engine.score(prompts))
    assert dict(engine.choose(prompts, [50, 60])) == dict(engine.choose(prompts, [50, 60]))


def nothing_asked_is_nothing_answered(engine: Engine, adapter: Path, texts: Texts) -> None:
    assert list(engine.score([])) == [] and list(engine.generate([], 4)) == []
    assert list(engine.sample([], 4, 0)) == [] and list(engine.choose([], [50])) == []


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
    a_drawn_answer_is_decided_by_its_seed,
    a_choice_is_what_the_score_says_of_the_next_token,
    what_the_model_says_by_itself_is_greedy,
    shuffled_prompts_have_the_same_scores,
    nothing_asked_is_nothing_answered,
    the_fingerprint_stays,
)
EXACT: tuple[Promise, ...] = (shuffled_prompts_have_exactly_the_same_scores, a_call_repeated_says_the_same)
