"""Running a suite on base or adapter: only what is missing is asked, and every result is kept as it comes."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from evaluator.engine import Engine, EngineRefused, Prompt
from evaluator.rendering import CONVENTION
from evaluator.results import Answered, Measured, Results
from evaluator.suites import Loaded
from registry.records import SuiteKind

_BATCH = 256

Step = Callable[[int, int], None]


class Subject(NamedTuple):
    """The base (`adapter` None) or a candidate; `digest` names the candidate's content."""

    base_digest: str
    digest: str
    adapter: Path | None


def answer_all(engine: Engine, loaded: Loaded, subject: Subject, folder: Path, step: Step) -> dict[str, Answered]:
    """Every item's greedy answer: up to the first line break where it is compared, whole where people read it."""
    stop = None if loaded.suite.kind is SuiteKind.PROMPTS else "\n"
    results = Results(folder, Answered, {**_key(engine, loaded, subject), "stop": stop or ""})
    try:
        todo = [one for one in loaded.asks if one.item not in results.found]
        for start in range(0, len(todo), _BATCH):
            batch = todo[start : start + _BATCH]
            prompts = [Prompt(one.ids, subject.adapter) for one in batch]
            for index, answer in engine.generate(prompts, loaded.max_tokens, stop):
                results.add(Answered(batch[index].item, answer.text, answer.tokens, answer.finish))
                step(len(results.found), len(loaded.asks))
    finally:
        results.close()
    return {item: one for item, one in results.found.items() if isinstance(one, Answered)}


def score_all(engine: Engine, loaded: Loaded, subject: Subject, folder: Path, step: Step) -> dict[str, Measured]:
    """Every conversation's summed negative log-likelihood over the tokens that count.

    Raises EngineRefused for a score that is not a number: nothing can be summed with it.
    """
    results = Results(folder, Measured, _key(engine, loaded, subject))
    try:
        todo = [one for one in loaded.reads if one.item not in results.found]
        for start in range(0, len(todo), _BATCH):
            batch = todo[start : start + _BATCH]
            for index, scores in engine.score([Prompt(one.ids, subject.adapter) for one in batch]):
                one = batch[index]
                if not all(map(math.isfinite, scores)):
                    raise EngineRefused(f"{loaded.suite.name}/{one.item}: a score is not a number; look at the weights")
                counted = [score for score, counts in zip(scores, one.mask[1:], strict=True) if counts]
                results.add(Measured(one.item, -math.fsum(counted), len(counted)))
                step(len(results.found), len(loaded.reads))
    finally:
        results.close()
    return {item: one for item, one in results.found.items() if isinstance(one, Measured)}


def _key(engine: Engine, loaded: Loaded, subject: Subject) -> dict[str, str]:
    return {
        "base": subject.base_digest,
        "subject": subject.digest,
        "suite": loaded.suite.digest,
        "engine": engine.info.fingerprint,
        "convention": CONVENTION,
    }
