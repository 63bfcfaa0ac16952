"""Answers are cut where they are compared and whole where people read them, and the two are never mixed up."""

from pathlib import Path

import pytest
from fake_engine import SOUND, FakeEngine, Faults

from evaluator.engine import EngineDied
from evaluator.measure import Subject, answer_all, score_all
from evaluator.suites import Ask, Loaded, Read
from registry.records import Suite, SuiteKind

BASE = Subject("sha256:" + "4" * 64, "base", None)
SAID = "First line.\nSecond line."


def make_loaded(kind: SuiteKind, n: int = 3) -> Loaded:
    """A suite of one digest, whatever its kind."""
    suite = Suite(name="s", kind=kind, digest="sha256:" + "5" * 64, n_items=n, files=[])
    texts = [f"user: question {i}\nassistant: ".encode() for i in range(n)]
    if kind is SuiteKind.CONVERSATIONS:
        return Loaded(
            suite, 64, [], [Read(f"i{i}", list(t), [False, *[True] * (len(t) - 1)], ()) for i, t in enumerate(texts)]
        )
    return Loaded(suite, 64, [Ask(f"i{i}", list(t), f"question {i}", ()) for i, t in enumerate(texts)], [])


def make_engine(faults: Faults = SOUND) -> FakeEngine:
    return FakeEngine(faults, lambda question, adapted: SAID)


def ignore(done: int, total: int) -> None:
    pass


@pytest.mark.parametrize(
    ("kind", "stop", "text"), [(SuiteKind.PROMPTS, None, SAID), (SuiteKind.QUESTIONS, "\n", "First line.")]
)
def test_people_read_whole_answers_and_the_rest_ends_at_the_first_line_break(
    tmp_path: Path, kind: SuiteKind, stop: str | None, text: str
) -> None:
    engine = make_engine()
    found = answer_all(engine, make_loaded(kind), BASE, tmp_path, ignore)
    assert {item: one.text for item, one in found.items()} == {f"i{i}": text for i in range(3)}
    assert engine.stops == {f"question {i}": stop for i in range(3)}


def test_an_answer_with_one_stop_is_never_taken_for_one_with_another(tmp_path: Path) -> None:
    engine = make_engine()
    for kind in (SuiteKind.QUESTIONS, SuiteKind.PROMPTS):
        answer_all(engine, make_loaded(kind), BASE, tmp_path, ignore)
    assert engine.asked["base"] == 6 and len(list(tmp_path.iterdir())) == 2
    found = answer_all(engine, make_loaded(SuiteKind.PROMPTS), BASE, tmp_path, ignore)
    assert {one.text for one in found.values()} == {SAID} and engine.asked["base"] == 6


@pytest.mark.parametrize("kind", [SuiteKind.QUESTIONS, SuiteKind.CONVERSATIONS])
def test_what_a_dead_engine_had_measured_is_not_measured_again(tmp_path: Path, kind: SuiteKind) -> None:
    measure = score_all if kind is SuiteKind.CONVERSATIONS else answer_all
    with pytest.raises(EngineDied):
        measure(make_engine(Faults(dies_after=2)), make_loaded(kind), BASE, tmp_path, ignore)
    engine, steps = make_engine(), []
    found = measure(engine, make_loaded(kind), BASE, tmp_path, lambda done, total: steps.append((done, total)))
    assert sorted(found) == ["i0", "i1", "i2"] and engine.asked["base"] == 1 and steps == [(3, 3)]
