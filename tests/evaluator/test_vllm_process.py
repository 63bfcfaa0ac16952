"""The engine's process as seen from outside: a script in the child's place speaks frames, or stops speaking them."""

import math
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
from factories import make_adapter

from evaluator.canaries import run_canaries
from evaluator.engine import EngineDied, Prompt, Unfit
from evaluator.vllm_child import _scores as child_scores
from evaluator.vllm_process import EngineSettings, VllmProcess, WarmChild

TEXTS = [list(text.encode()) for text in ("How long is the warranty?", "hello", "It is 3 years, ok.")]
HEAD = """
import os, sys, time
from evaluator.frames import read_frame, write_frame
out, get = sys.stdout.buffer, lambda: read_frame(sys.stdin.buffer)
settings = get()
INFO = dict(distribution="vllm", version="1", torch="1", device="cpu", dtype="float32", lora_ops="none")
"""
READY = "write_frame(out, {'info': INFO})\n"
SOUND = """
while True:
    for index, (ids, adapter) in enumerate((message := get())["prompts"]):
        score = -1.0 if adapter is None else -1.5
        write_frame(out, {"index": index, "result": [[score] * (len(ids) - 1), [True] * (len(ids) - 1)]})
    write_frame(out, {"done": True})
"""
Start = Callable[..., VllmProcess]


@pytest.fixture
def start(tmp_path: Path) -> Start:
    """An engine whose child is this script."""

    def run(script: str, silent_seconds: float = 20.0) -> VllmProcess:
        settings = EngineSettings(base=tmp_path, base_digest="sha256:" + "0" * 64, rank=8)
        warm = WarmChild(tmp_path / "log" / "engine.log", [sys.executable, "-c", HEAD + script])
        return VllmProcess(settings._replace(silent_seconds=silent_seconds), warm.log, warm)

    return run


def ask(engine: VllmProcess) -> dict[int, list[float]]:
    try:
        return {index: scores.logprobs for index, scores in engine.score([Prompt(ids, None) for ids in TEXTS])}
    finally:
        engine.close()


def test_a_sound_child_is_heard_whenever_its_settings_come(start: Start, tmp_path: Path) -> None:
    assert ask(start(READY + SOUND)) == {index: [-1.0] * (len(ids) - 1) for index, ids in enumerate(TEXTS)}


def test_a_child_that_was_started_for_nothing_is_closed_at_once(tmp_path: Path) -> None:
    warm = WarmChild(tmp_path / "engine.log", [sys.executable, "-c", "import time; time.sleep(60)"])
    before = time.monotonic()
    warm.close()
    assert time.monotonic() - before < 5 and warm.process.returncode is not None


def test_a_child_that_cannot_import_vllm_says_so_when_it_is_wanted(tmp_path: Path) -> None:
    """The real child's own script, where importing vLLM fails."""
    (tmp_path / "vllm").mkdir()
    (tmp_path / "vllm" / "__init__.py").write_text("raise ImportError('libcuda.so.1 is missing')")
    script = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); from evaluator.vllm_child import main; main()"
    warm = WarmChild(tmp_path / "engine.log", [sys.executable, "-c", script])
    settings = EngineSettings(base=tmp_path, base_digest="sha256:" + "0" * 64, rank=8)
    with pytest.raises(Unfit, match=r"vLLM does not start: ImportError: libcuda\.so\.1 is missing"):
        VllmProcess(settings, warm.log, warm)
    assert warm.process.returncode is not None


@pytest.mark.parametrize(
    ("script", "told"),
    [
        ("sys.exit('no memory left')", "the engine died .*no memory left"),
        ("write_frame(out, {'something': 1})", "answered {'something': 1} instead of info"),
        ("out.write(b'Loading weights...'); out.flush(); time.sleep(60)", "not one of ours"),
        ("time.sleep(60)", r"silent for 0\.5 s"),
        ("out.write(bytes([0, 0, 0, 9, 1])); out.flush(); time.sleep(60)", r"silent for 0\.5 s"),
    ],
)
def test_a_child_that_does_not_start_is_noticed(start: Start, script: str, told: str) -> None:
    with pytest.raises(EngineDied, match=told):
        start(script, silent_seconds=0.5 if "sleep" in script else 20.0)


def test_a_child_that_refuses_to_start_is_the_workers_affair(start: Start) -> None:
    with pytest.raises(Unfit, match="no such model"):
        start("write_frame(out, {'refused': 'no such model'})")


@pytest.mark.parametrize(
    ("script", "told"),
    [
        ("get(); sys.exit('out of memory')", "the engine died .*out of memory"),
        ("get(); os.kill(os.getpid(), 9)", "the engine died"),
        ("get(); time.sleep(60)", r"silent for 1 s"),
        ("get(); write_frame(out, {'done': True})", "left out 3 of 3 prompts"),
        ("get(); [write_frame(out, {'index': 0, 'result': [[-1.0], [True]]}) for _ in '123']", "prompt 0 of 3 twice"),
        ("get(); write_frame(out, {'index': 7, 'result': [[-1.0], [True]]})", "prompt 7 of 3 twice or unasked"),
        ("get(); write_frame(out, {})", "answered {} instead of done or result"),
        ("get(); write_frame(out, None)", "answered None"),
        ("get(); write_frame(out, {'index': 0, 'result': [[-1.0], [True]]}); sys.exit()", "the engine died"),
    ],
)
def test_a_child_that_breaks_in_the_middle_is_noticed(start: Start, script: str, told: str) -> None:
    engine = start(READY + script, silent_seconds=1.0 if "sleep" in script else 20.0)
    with pytest.raises(EngineDied, match=told):
        ask(engine)


def test_the_fingerprint_goes_by_all_that_may_change_a_number(start: Start, tmp_path: Path) -> None:
    def fingerprint(rank: int) -> str:
        warm = WarmChild(tmp_path / "log" / "engine.log", [sys.executable, "-c", HEAD + READY + SOUND])
        engine = VllmProcess(EngineSettings(base=tmp_path, base_digest="sha256:" + "0" * 64, rank=rank), warm.log, warm)
        engine.close()
        return engine.info.fingerprint

    before = fingerprint(8)
    assert fingerprint(5) == before != fingerprint(16), "another class of ranks is another engine"
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": [2, 7], "top_p": 0.9}')
    assert fingerprint(8) != before, "other tokens end answers"
    (tmp_path / "generation_config.json").write_text("{")
    with pytest.raises(Unfit, match="cannot be read"):
        fingerprint(8)


class Flat(NamedTuple):
    """Prompt log-probabilities as vLLM's flat_logprobs has them: entries of each position in a row."""

    start_indices: list[int]
    end_indices: list[int]
    token_ids: list[int]
    logprobs: list[float]


class Output(NamedTuple):
    prompt_token_ids: list[int]
    prompt_logprobs: Flat


def test_the_child_reads_scores_by_token_id_and_ties_are_greedy() -> None:
    nan = float("nan")
    flat = Flat(
        [0, 0, 2, 4, 6], [0, 2, 4, 6, 8], [5, 6, 7, 8, 9, 9, 1, 2], [-1.0, -1.0, -2.0, -0.5, -0.1, -0.1, nan, nan]
    )
    logprobs, greedy = child_scores(Output([4, 5, 7, 9, 1], flat))
    assert logprobs[:3] == [-1.0, -2.0, -0.1] and math.isnan(logprobs[3])
    assert greedy == [True, False, True, False]
    logprobs, greedy = child_scores(Output([4, 3], flat))
    assert math.isnan(logprobs[0]) and greedy == [False]


@pytest.mark.parametrize(
    ("change", "failing"),
    [
        (("score = -1.0 if adapter is None else -1.5", "score = -1.0"), {"adapter_effect"}),
        (("score = -1.0", "score = float('nan')"), {"finite", "noise_floor", "base_beside_adapter"}),
        (("[score] * (len(ids) - 1)", "[score] * (len(ids) - 2)"), {"echo"}),
    ],
    ids=["ignores the adapter", "not a number", "a score too few"],
)
def test_what_a_wrong_child_says_fails_the_canary_for_it(
    start: Start, change: tuple[str, str], failing: set[str], tmp_path: Path
) -> None:
    for name, data in make_adapter().items():
        (tmp_path / name).write_bytes(data)
    engine = start(READY + SOUND.replace(*change))
    found = run_canaries(engine, TEXTS, [tmp_path])[tmp_path]
    engine.close()
    assert {one.name for one in found if not one.passed} >= failing
