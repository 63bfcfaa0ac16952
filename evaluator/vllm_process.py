"""Engine over vLLM's offline engine in a child process: one import of vLLM, and a crash that stays in there."""

import contextlib
import importlib.metadata
import io
import os
import selectors
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from evaluator.engine import Answer, EngineDied, EngineRefused, Prompt
from evaluator.frames import read_frame, write_frame
from registry.client import digest_of
from registry.records import EngineInfo

SERVED_RANKS = (8, 16, 32, 64, 128, 256)
LORA_MODULES = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
_LAST_WORDS = 12
_ENVIRONMENT = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_PLUGINS": "tunegate",
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
    "VLLM_LOGGING_LEVEL": "WARNING",
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "TOKENIZERS_PARALLELISM": "false",
}


class EngineSettings(NamedTuple):
    """How the engine is run; what of it may change a number goes into the fingerprint."""

    base: Path
    base_digest: str
    rank: int
    dtype: str = "bfloat16"
    max_model_len: int = 1024
    max_num_seqs: int = 64
    max_num_batched_tokens: int = 1024
    silent_seconds: float = 600.0


class VllmProcess:
    """See `evaluator.engine.Engine`. Starts the child at once and waits until it is ready."""

    def __init__(self, settings: EngineSettings, log: Path) -> None:
        self._settings, self._log = settings, log
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("wb") as errors:
            self._child = subprocess.Popen(
                [sys.executable, "-m", "evaluator.vllm_child"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                bufsize=0,  # what Python read ahead would be hidden from select
                env={**os.environ, **_cpu_environment(), **_ENVIRONMENT},
            )
        assert isinstance(self._child.stdin, io.RawIOBase) and isinstance(self._child.stdout, io.RawIOBase)
        self._requests: io.BufferedWriter = io.BufferedWriter(self._child.stdin)
        self._replies: io.RawIOBase = self._child.stdout
        self._send(_child_settings(settings))
        self._info: EngineInfo = _engine_info(settings, self._receive()["info"])

    @property
    def info(self) -> EngineInfo:
        return self._info

    def score(self, prompts: Sequence[Prompt]) -> Iterator[tuple[int, list[float]]]:
        return self._ask({"op": "score"}, prompts)

    def generate(self, prompts: Sequence[Prompt], max_tokens: int, stop: str | None) -> Iterator[tuple[int, Answer]]:
        for index, result in self._ask({"op": "generate", "max_tokens": max_tokens, "stop": stop}, prompts):
            yield index, Answer(*result)

    def close(self) -> None:
        """End the child; it has nothing to save."""
        with contextlib.suppress(OSError):
            self._requests.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._child.wait(timeout=1)
        self._child.kill()
        self._child.wait()
        self._replies.close()

    def _ask(self, message: dict[str, Any], prompts: Sequence[Prompt]) -> Iterator[tuple[int, Any]]:
        if not prompts:
            return
        pairs = [[list(one.ids), str(one.adapter.resolve()) if one.adapter else None] for one in prompts]
        self._send({**message, "prompts": pairs})
        while not (reply := self._receive()).get("done"):
            yield reply["index"], reply["result"]

    def _send(self, message: Any) -> None:
        try:
            write_frame(self._requests, message)
        except OSError:
            raise EngineDied(f"the engine is gone: {self._last_words()}") from None

    def _receive(self) -> dict[str, Any]:
        try:
            with selectors.DefaultSelector() as selector:
                selector.register(self._replies, selectors.EVENT_READ)
                if not selector.select(self._settings.silent_seconds):
                    self._child.kill()
                    raise EngineDied(f"silent for {self._settings.silent_seconds:g} s: {self._last_words()}")
            reply: dict[str, Any] = read_frame(self._replies)
        except EOFError:
            raise EngineDied(f"the engine died: {self._last_words()}") from None
        if "refused" in reply:
            raise EngineRefused(reply["refused"])
        return reply

    def _last_words(self) -> str:
        lines = [line for line in self._log.read_text(errors="replace").splitlines() if line.strip()]
        return " | ".join(lines[-_LAST_WORDS:])[-2000:] or "it said nothing"


def served_rank(rank: int) -> int:
    """The smallest rank the engine can be started with that holds this one."""
    return next((one for one in SERVED_RANKS if one >= rank), SERVED_RANKS[-1])


def _child_settings(settings: EngineSettings) -> dict[str, Any]:
    # Without a GPU, vLLM would take most of the machine's memory for its KV cache.
    extra: dict[str, Any] = {} if not _on_cpu() else {"kv_cache_memory_bytes": 1 << 30, "block_size": 32}
    return {
        "model": str(settings.base.resolve()),
        "dtype": settings.dtype,
        "max_model_len": settings.max_model_len,
        "max_num_seqs": settings.max_num_seqs,
        "max_num_batched_tokens": settings.max_num_batched_tokens,
        "max_lora_rank": served_rank(settings.rank),
        "lora_modules": list(LORA_MODULES),
        "extra": extra,
    }


def _engine_info(settings: EngineSettings, found: dict[str, str]) -> EngineInfo:
    described = {"engine": "vllm", "serving": "lora", **found}
    # The rank class is left out: base rows do not depend on it, which a canary proves in every run.
    document = {
        **described,
        "base": settings.base_digest,
        "max_model_len": settings.max_model_len,
        "max_num_seqs": settings.max_num_seqs,
        "max_num_batched_tokens": settings.max_num_batched_tokens,
    }
    return EngineInfo(**described, fingerprint=digest_of(document))


def _cpu_environment() -> dict[str, str]:
    """Threads as this process may use them; vLLM would bind cores that a container does not have."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)
    return {"VLLM_CPU_OMP_THREADS_BIND": "nobind", "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(cores))}


def _on_cpu() -> bool:
    """Whether the installed vLLM is the one for CPUs; it stays there on a machine with a GPU too."""
    try:
        importlib.metadata.version("vllm-cpu")
    except importlib.metadata.PackageNotFoundError:
        return False
    return True
