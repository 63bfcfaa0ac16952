"""Putting a suite to the engine: only what is missing is asked, and every result is kept as it comes.

A `Task` is one way of asking a suite's items. Several subjects (the base, candidates) are asked together, item by
item, so that one engine call serves them all; what each of them answered is kept apart.
"""

import contextlib
import importlib.metadata
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Generic, NamedTuple

from evaluator.engine import Engine, EngineRefused, Prompt
from evaluator.rendering import ids_digest, letter
from evaluator.results import Answered, Judged, Measured, R, Results, Sampled
from evaluator.suites import Ask, Loaded, Read, draw
from registry.client import Choice
from registry.records import CONVENTION, SuiteKind

BATCH = 1024
KL_PROMPTS, KL_TOKENS = 48, 24
_BRIDGE = 1  # to be raised with every change of lm_eval_bridge that may change a result

Step = Callable[[int, int], None]


class Subject(NamedTuple):
    """The base (`adapter` None) or a candidate; `digest` names the candidate's content."""

    base_digest: str
    digest: str
    adapter: Path | None


class Want(NamedTuple):
    """One item as it is put to the engine; `mask` where its tokens are scored."""

    item: str
    ids: Sequence[int]
    mask: Sequence[bool] = ()


Batch = Sequence[tuple[Want, Subject]]


class Task(NamedTuple, Generic[R]):
    """One way of asking a suite's items, in one order.

    request: everything that may change a result, besides subject and engine. ask: yields (place in the batch, result).
    """

    kind: type[R]
    request: Mapping[str, object]
    wants: Sequence[Want]
    ask: Callable[[Engine, Batch], Iterator[tuple[int, R]]]


class Ground(NamedTuple):
    """What a run stands on. results: where they are kept; tokenizer: digest of it with its template.

    longest: tokens of prompt and answer together.
    """

    results: Path
    base: Path
    tokenizer: str
    longest: int


def run(
    engine: Engine,
    task: Task[R],
    subjects: Sequence[Subject],
    ground: Ground,
    step: Step,
    *,
    batch: int = BATCH,
    going: Callable[[Subject, Mapping[str, R]], bool] = lambda subject, found: True,
) -> dict[Subject, dict[str, R]]:
    """Every item's result for every subject, by item.

    going: asked before each batch; a subject for which it says no is not asked any further.
    """
    with contextlib.ExitStack() as stack:
        results = {
            subject: Results(ground.results, task.kind, _key(engine, task, subject, ground)) for subject in subjects
        }
        for one in results.values():
            stack.callback(one.close)
        todo = [(want, one) for want in task.wants for one in results if want.item not in results[one].found]
        done, total = len(results) * len(task.wants) - len(todo), len(results) * len(task.wants)
        while True:
            still = {subject for subject, one in results.items() if going(subject, one.found)}
            todo = [pair for pair in todo if pair[1] in still]
            if not todo:
                break
            now, todo = todo[:batch], todo[batch:]
            for index, result in task.ask(engine, now):
                results[now[index][1]].add(result)
                done += 1
                step(done, total)
    return {subject: one.found for subject, one in results.items()}


# -- the ways of asking -------------------------------------------------------------------------------------------


def answers(loaded: Loaded) -> Task[Answered]:
    """Greedy answers: up to the first line break where they are compared, whole where people or rules read them."""
    stops = ("\n",) if loaded.suite.kind is SuiteKind.QUESTIONS else ()
    most = loaded.content.head.max_tokens

    def ask(engine: Engine, batch: Batch) -> Iterator[tuple[int, Answered]]:
        for index, answer in engine.generate(_prompts(batch), most, stops):
            yield index, Answered(batch[index][0].item, answer.text, len(answer.ids), answer.finish)

    request = {"op": "generate", "max_tokens": most, "stops": list(stops)}
    return Task(Answered, _request(loaded, request), _wants(loaded.asks), ask)


def letters(loaded: Loaded) -> Task[Answered]:
    """The likeliest of an item's letters as the first token of the reply; of equal ones, the first."""
    n_choices = {one.item: len(one.source.choices) for one in loaded.asks if isinstance(one.source, Choice)}

    def ask(engine: Engine, batch: Batch) -> Iterator[tuple[int, Answered]]:
        for index, scores in engine.choose(_prompts(batch), loaded.options):
            item = batch[index][0].item
            mine = scores[: n_choices[item]]
            _check_finite(loaded, item, mine)
            yield index, Answered(item, letter(mine.index(max(mine))), 1, "stop")

    return Task(Answered, _request(loaded, {"op": "choose", "options": loaded.options}), _wants(loaded.asks), ask)


def readings(loaded: Loaded) -> Task[Measured]:
    """The suite's conversations: summed negative log-likelihood over the tokens that count."""
    return _scores(loaded, {"what": "conversations", "convention": CONVENTION}, _read_wants(loaded.reads))


def gold(loaded: Loaded, reads: Sequence[Read]) -> Task[Measured]:
    """How likely the right answers are, as replies."""
    return _scores(loaded, {"what": "gold", "convention": CONVENTION}, _read_wants(reads))


def samples(loaded: Loaded, ground: Ground) -> Task[Sampled]:
    """Continuations of a few prompts, drawn from the base's own distribution; prompts that leave no room are left out.

    The seed comes from the suite and a prompt's place among those drawn, so all of them are drawn in one call.
    """
    room = {one.item for one in loaded.asks if len(one.ids) + KL_TOKENS < ground.longest}
    drawn = {item.id for item in draw([one.source for one in loaded.asks if one.item in room], KL_PROMPTS)}
    wants = _wants([one for one in loaded.asks if one.item in drawn])
    seed = int(loaded.suite.digest.removeprefix("sha256:")[:8], 16)

    def ask(engine: Engine, batch: Batch) -> Iterator[tuple[int, Sampled]]:
        places = {want.item: index for index, (want, _) in enumerate(batch)}
        # Another place in the call is another seed: what a killed worker left half done is drawn as a whole again.
        for index, answer in engine.sample([Prompt(want.ids, None) for want in wants], KL_TOKENS, seed):
            if (item := wants[index].item) in places:
                yield places[item], Sampled(item, answer.ids)

    return Task(Sampled, _request(loaded, {"op": "sample", "max_tokens": KL_TOKENS, "seed": seed}), wants, ask)


def echoes(loaded: Loaded, sampled: Mapping[str, Sampled]) -> Task[Measured]:
    """The sampled continuations, scored behind their prompts: the base's minus the candidate's estimates the KL."""
    wants = [
        Want(one.item, [*one.ids, *ids], [*([False] * len(one.ids)), *([True] * len(ids))])
        for one in loaded.asks
        if one.item in sampled and (ids := sampled[one.item].ids)
    ]
    return _scores(loaded, {"what": "samples"}, wants)


def documents(loaded: Loaded, ground: Ground) -> Task[Judged]:
    """Documents of an lm-eval task, judged by the task."""
    from evaluator.lm_eval_bridge import run_documents

    def ask(engine: Engine, batch: Batch) -> Iterator[tuple[int, Judged]]:
        for subject in dict.fromkeys(subject for _, subject in batch):
            mine = {want.item: index for index, (want, one) in enumerate(batch) if one == subject}
            content = loaded.content._replace(items=[one for one in loaded.content.items if one.id in mine])
            for item, right, text in run_documents(engine, content, subject.adapter, ground.base, ground.longest):
                yield mine[item], Judged(item, right, text)

    request = {
        "op": "lm-eval",
        "version": importlib.metadata.version("lm_eval"),
        "bridge": _BRIDGE,
        "longest": ground.longest,
    }
    return Task(Judged, _request(loaded, request), _wants(loaded.asks), ask)


def _scores(loaded: Loaded, request: Mapping[str, object], wants: Sequence[Want]) -> Task[Measured]:
    """Raises EngineRefused for a score that is not a number: nothing can be summed with it."""

    def ask(engine: Engine, batch: Batch) -> Iterator[tuple[int, Measured]]:
        for index, (scores, _) in engine.score(_prompts(batch)):
            want = batch[index][0]
            _check_finite(loaded, want.item, scores)
            counted = [score for score, counts in zip(scores, want.mask[1:], strict=True) if counts]
            yield index, Measured(want.item, -math.fsum(counted), len(counted))

    asked = ids_digest([(one.item, one.ids, one.mask) for one in wants])
    return Task(Measured, _request(loaded, {"op": "score", **request, "asked": asked}), wants, ask)


def _prompts(batch: Batch) -> list[Prompt]:
    return [Prompt(want.ids, subject.adapter) for want, subject in batch]


def _wants(asks: Sequence[Ask]) -> list[Want]:
    return [Want(one.item, one.ids) for one in asks]


def _read_wants(reads: Sequence[Read]) -> list[Want]:
    return [Want(one.item, one.ids, one.mask) for one in reads]


def _check_finite(loaded: Loaded, item: str, scores: Sequence[float]) -> None:
    if not all(map(math.isfinite, scores)):
        raise EngineRefused(f"{loaded.suite.name}/{item}: a score is not a number; look at the weights")


def _request(loaded: Loaded, request: Mapping[str, object]) -> dict[str, object]:
    # The ids themselves are part of it: a change of how prompts are written here is another question.
    return {"suite": loaded.suite.digest, "asked": loaded.asked, **request}


def _key(engine: Engine, task: Task[Any], subject: Subject, ground: Ground) -> dict[str, object]:
    return {
        "base": subject.base_digest,
        "subject": subject.digest,
        "tokenizer": ground.tokenizer,
        "engine": engine.info.fingerprint,
        **task.request,
    }
