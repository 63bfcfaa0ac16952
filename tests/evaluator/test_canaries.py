"""Each canary fails when it must: an engine that is wrong in one way fails the canary for it."""

import math
from pathlib import Path

import pytest
from factories import make_adapter
from fake_engine import FakeEngine, Faults

from evaluator.canaries import finish_by_length, run_canaries, trusted
from evaluator.engine import EngineDied, EngineRefused
from evaluator.results import Answered
from evaluator.suites import Loaded
from registry.client import SuiteContent
from registry.records import Canary, Suite, SuiteKind
from registry.suites import SuiteFile

TEXTS = [list(text.encode()) for text in ("How long is the warranty?", "hello", "It is 3 years, ok.")]


def write_adapter(folder: Path, fill: int = 1) -> Path:
    folder.mkdir()
    for name, data in make_adapter(fill=fill).items():
        (folder / name).write_bytes(data)
    return folder


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    return write_adapter(tmp_path / "adapter")


def canaries_of(adapter: Path, **faults: object) -> dict[str, Canary]:
    engine = FakeEngine(Faults(**faults))  # type: ignore[arg-type]
    return {one.name: one for one in run_canaries(engine, TEXTS, [adapter])[adapter]}


def failing(found: dict[str, Canary]) -> set[str]:
    return {name for name, canary in found.items() if not canary.passed}


def test_a_sound_engine_and_adapter_pass_all_five(adapter: Path) -> None:
    found = canaries_of(adapter)
    assert set(found) == {"noise_floor", "base_beside_adapter", "adapter_effect", "echo", "finite"}
    assert failing(found) == set() and trusted(list(found.values()))


def test_base_rows_with_the_adapters_weights_are_found(adapter: Path) -> None:
    found = canaries_of(adapter, leaks=True)
    assert failing(found) == {"base_beside_adapter"} and not trusted(list(found.values()))
    assert found["base_beside_adapter"].observed == pytest.approx(0.5)


def test_rows_of_one_adapter_with_the_weights_of_another_are_found(adapter: Path, tmp_path: Path) -> None:
    """Base rows stay what they are, and alone each adapter is served rightly."""
    both = [adapter, write_adapter(tmp_path / "other", fill=2)]
    assert failing(canaries_of(adapter, swaps=True)) == set(), "alone there is nothing to swap"
    for canaries in run_canaries(FakeEngine(Faults(swaps=True)), TEXTS, both).values():
        assert failing({one.name: one for one in canaries}) == {"base_beside_adapter"} and not trusted(canaries)
    assert all(map(trusted, run_canaries(FakeEngine(), TEXTS, both).values()))


def test_adapters_that_share_a_run_share_the_bases_canaries(adapter: Path, tmp_path: Path) -> None:
    engine, three = FakeEngine(), [adapter, *(write_adapter(tmp_path / f"{fill}", fill) for fill in (2, 3))]
    assert list(run_canaries(engine, TEXTS, three)) == three
    assert engine.asked == {"base": 3 * len(TEXTS), "adapter": 2 * 3 * len(TEXTS)}


def test_an_adapter_without_effect_is_found_and_is_not_the_engines_fault(adapter: Path) -> None:
    found = canaries_of(adapter, deaf=True)
    assert failing(found) == {"adapter_effect"} and trusted(list(found.values()))


def test_noise_is_measured_and_too_much_of_it_is_no_measurement(adapter: Path) -> None:
    quiet, loud = canaries_of(adapter, noise=0.01), canaries_of(adapter, noise=0.3)
    assert quiet["noise_floor"].passed and quiet["noise_floor"].observed == pytest.approx(0.01)
    assert "noise_floor" in failing(loud) and not trusted(list(loud.values()))


def test_more_noise_than_a_tenth_of_a_nat_is_too_much(adapter: Path) -> None:
    assert canaries_of(adapter, noise=0.09)["noise_floor"].passed
    assert not canaries_of(adapter, noise=0.11)["noise_floor"].passed


def test_an_effect_must_stand_out_of_the_noise(adapter: Path) -> None:
    """The adapter moves every score by 0.2 nats or more; with noise of 0.2 that proves nothing."""
    assert "adapter_effect" not in failing(canaries_of(adapter, noise=0.01))
    assert "adapter_effect" in failing(canaries_of(adapter, noise=0.2))


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, 0.5, -9999.0])
def test_a_value_that_is_no_log_probability_is_found(adapter: Path, bad: float) -> None:
    found = canaries_of(adapter, bad=bad)
    assert "finite" in failing(found) and not trusted(list(found.values()))
    assert all(math.isfinite(canary.observed) and math.isfinite(canary.limit) for canary in found.values())


def test_a_missing_score_is_found(adapter: Path) -> None:
    found = canaries_of(adapter, short=True)
    assert failing(found) == {"echo"}
    assert found["echo"].observed == 5 * len(TEXTS)


def test_a_dying_or_refusing_engine_is_no_canary_result(adapter: Path) -> None:
    with pytest.raises(EngineDied):
        run_canaries(FakeEngine(Faults(dies_after=4)), TEXTS, [adapter])
    with pytest.raises(EngineRefused):
        run_canaries(FakeEngine(Faults(refuses=True)), TEXTS, [adapter])


# -- answers that were cut off --------------------------------------------------------------------------------------


def make_answers(cut: int, n: int, limit: float, name: str = "s") -> tuple[Loaded, list[Answered]]:
    """A suite of which `cut` of n answers ended at its limit."""
    suite = Suite(name=name, kind=SuiteKind.QUESTIONS, digest="sha256:" + "5" * 64, n_items=n, files=[])
    head = SuiteFile(name=name, kind=suite.kind, title="t", description="d", licence="l", source="s", max_cut_off=limit)
    answers = [Answered(f"i{i}", "text", 3, "length" if i < cut else "stop") for i in range(n)]
    return Loaded(suite, SuiteContent(head, []), [], [], []), answers


@pytest.mark.parametrize(("cut", "passed"), [(0, True), (5, True), (6, False), (100, False)])
def test_as_many_answers_may_be_cut_off_as_the_suite_says(cut: int, passed: bool) -> None:
    [canary] = finish_by_length([make_answers(cut, 100, 0.05)])
    assert (canary.name, canary.passed, canary.observed, canary.limit) == ("finish_by_length", passed, cut / 100, 0.05)


def test_the_suite_furthest_above_its_own_limit_is_the_one_that_is_told() -> None:
    suites = [make_answers(60, 100, 1.0, "rambling"), make_answers(7, 100, 0.05, "tight"), make_answers(0, 9, 0.05)]
    [canary] = finish_by_length(suites)
    assert not canary.passed and canary.limit == 0.05 and "7 of 100 answers to tight" in canary.detail


def test_the_share_is_of_what_was_asked_and_without_answers_there_is_none() -> None:
    loaded, answers = make_answers(2, 10, 0.5)
    assert finish_by_length([(loaded, answers[:2])])[0].observed == 1.0
    assert finish_by_length([(loaded, [])]) == finish_by_length([]) == []
