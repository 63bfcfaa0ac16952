"""The contract over the fake, and that the contract has teeth: each fault of an engine breaks a promise."""

from pathlib import Path

import pytest
from engine_contract import CONTRACT, EXACT, Promise, scores_of, the_base_is_the_same_beside_an_adapter
from factories import make_adapter
from fake_engine import FakeEngine, Faults

from evaluator.engine import EngineDied, EngineRefused, Prompt

TEXTS = [list(text.encode()) for text in ("How long is the warranty?", "hello", "It is 3 years, ok.")]


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    folder = tmp_path / "adapter"
    folder.mkdir()
    for name, data in make_adapter().items():
        (folder / name).write_bytes(data)
    return folder


@pytest.mark.parametrize("promise", CONTRACT + EXACT, ids=lambda promise: promise.__name__)
def test_the_fake_engine_keeps(promise: Promise, adapter: Path) -> None:
    promise(FakeEngine(), adapter, TEXTS)


@pytest.mark.parametrize(
    "faults", [Faults(leaks=True), Faults(deaf=True), Faults(noise=0.1), Faults(bad=float("nan")), Faults(short=True)]
)
def test_a_faulty_engine_breaks_the_contract(faults: Faults, adapter: Path) -> None:
    with pytest.raises(AssertionError):
        for promise in CONTRACT:
            promise(FakeEngine(faults), adapter, TEXTS)


def test_a_base_row_with_adapter_weights_is_noticed_only_beside_an_adapter(adapter: Path) -> None:
    leaking = FakeEngine(Faults(leaks=True))
    assert scores_of(leaking, [Prompt(TEXTS[0], None)]) == scores_of(FakeEngine(), [Prompt(TEXTS[0], None)])
    with pytest.raises(AssertionError):
        the_base_is_the_same_beside_an_adapter(leaking, adapter, TEXTS)


def test_a_dead_engine_stays_dead() -> None:
    engine = FakeEngine(Faults(dies_after=2))
    with pytest.raises(EngineDied):
        scores_of(engine, [Prompt(ids, None) for ids in TEXTS])
    with pytest.raises(EngineDied):
        scores_of(engine, [Prompt(TEXTS[0], None)])


def test_an_adapter_that_cannot_be_served_is_refused_and_the_base_is_still_there(adapter: Path) -> None:
    engine = FakeEngine(Faults(refuses=True))
    with pytest.raises(EngineRefused):
        scores_of(engine, [Prompt(TEXTS[0], adapter)])


def test_a_call_left_in_the_middle_spoils_the_next_one(adapter: Path) -> None:
    """As with the real engine's pipe; so whoever leaves must close the engine."""
    engine = FakeEngine()
    next(engine.score([Prompt(ids, adapter) for ids in TEXTS]))
    found = dict(engine.score([Prompt(TEXTS[0], None)]))
    assert found != dict(FakeEngine().score([Prompt(TEXTS[0], None)]))
