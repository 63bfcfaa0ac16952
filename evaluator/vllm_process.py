"""Engine over vLLM's offline engine in a child process: one import of vLLM, and a crash that stays in there.

The import takes most of the start and needs no settings, so a child can be spawned ahead of its job:

    warm = WarmChild(log)
    ...                                        # fetch, inspect and tokenise what the job names
    engine = VllmProcess(settings, log, warm)  # or warm.close()
"""

import contextlib
import importlib.metadata
import io
import json
import os
import selectors
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from evaluator.engine import Answer, EngineDied, EngineRefused, Prompt, Scores, Unfit
from evaluator.frames import read_frame, write_frame
from registry.client import digest_of
from registry.records import EngineInfo

SERVED_RANKS = (8, 16, 32, 64, 128, 256)
CONTEXT_TOKENS = 1024  # of prompt and answer together
LORA_MODULES = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
CHILD = (sys.executable, "-m", "evaluator.vllm_child")
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
    max_model_len: int = CONTEXT_TOKENS
    max_num_seqs: int = 256
    max_num_batched_tokens: int = 1024
    silent_seconds: float = 600.0


class WarmChild:
    """A child that imports vLLM and waits for its settings. Whoever spawns it gives it to `VllmProcess` or closes it.

    It dies with the thread that spawned it, so that must be one that lives on. An import that fails is told to
    VllmProcess.
    """

    def __init__(self, log: Path, command: Sequence[str] = CHILD) -> None:
        log.parent.mkdir(parents=True, exist_ok=True)
        self.log = log
        with log.open("wb") as errors:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                bufsize=0,  # what Python read ahead would be hidden from select
                env={**os.environ, **_cpu_environment(), **_ENVIRONMENT},
            )
        assert isinstance(self.process.stdin, io.RawIOBase) and isinstance(self.process.stdout, io.RawIOBase)
        self.requests: io.BufferedWriter = io.BufferedWriter(self.process.stdin)
        self.replies: io.RawIOBase = self.process.stdout

    def close(self) -> None:
        """End the child; it has nothing to save."""
        self.process.kill()
        self.process.wait()
        with contextlib.suppress(OSError):
            self.requests.close()
        self.replies.close()

    def last_words(self) -> str:
        return last_words(self.log)


class VllmProcess:
    """See `evaluator.engine.Engine`. Waits until the child is ready; `warm` is one that was spawned before.

    Raises Unfit where vLLM does not start with these settings.
    """

    def __init__(self, settings: EngineSettings, log: Path, warm: WarmChild | None = None) -> None:
        self._settings, self._child = settings, warm or WarmChild(log)
        try:
            self._send(_child_settings(settings))
            self._info: EngineInfo = _engine_info(settings, self._receive("info")["info"])
        except EngineRefused as error:
            self._child.close()
            raise Unfit(str(error)) from None
        except BaseException:
            self._child.close()
            raise

    @property
    def info(self) -> EngineInfo:
        return self._info

    def score(self, prompts: Sequence[Prompt]) -> Iterator[tuple[int, Scores]]:
        for index, result in self._ask({"op": "score"}, prompts):
            yield index, Scores(*result)

    def generate(
        self, prompts: Sequence[Prompt], max_tokens: int, stops: Sequence[str] = ()
    ) -> Iterator[tuple[int, Answer]]:
        for index, result in self._ask({"op": "generate", "max_tokens": max_tokens, "stops": list(stops)}, prompts):
            yield index, Answer(*result)

    def sample(self, prompts: Sequence[Prompt], max_tokens: int, seed: int) -> Iterator[tuple[int, Answer]]:
        for index, result in self._ask({"op": "sample", "max_tokens": max_tokens, "seed": seed}, prompts):
            yield index, Answer(*result)

    def choose(self, prompts: Sequence[Prompt], options: Sequence[int]) -> Iterator[tuple[int, list[float]]]:
        yield from self._ask({"op": "choose", "options": list(options)}, prompts)

    def close(self) -> None:
        self._child.close()

    def _ask(self, message: dict[str, Any], prompts: Sequence[Prompt]) -> Iterator[tuple[int, Any]]:
        if not prompts:
            return
        pairs = [[list(one.ids), str(one.adapter.resolve()) if one.adapter else None] for one in prompts]
        self._send({**message, "prompts": pairs})
        missing = set(range(len(prompts)))
        while not (reply := self._receive("done", "result")).get("done"):
            if reply["index"] not in missing:
                raise EngineDied(f"the engine answered prompt {reply['index']} of {len(prompts)} twice or unasked")
            missing.discard(reply["index"])
            yield reply["index"], reply["result"]
        if missing:
            raise EngineDied(
                f"the engine left out {len(missing)} of {len(prompts)} prompts: {self._child.last_words()}"
            )

    def _send(self, message: Any) -> None:
        try:
            write_frame(self._child.requests, message)
        except OSError:
            raise EngineDied(f"the engine is gone: {self._child.last_words()}") from None

    def _receive(self, *kinds: str) -> dict[str, Any]:
        """The next reply, which is one of these kinds."""
        try:
            reply = read_frame(_Listening(self._child, self._settings.silent_seconds))
        except EOFError as error:
            raise EngineDied(f"the engine died ({error}): {self._child.last_words()}") from None
        if isinstance(reply, dict) and "refused" in reply:
            raise EngineRefused(reply["refused"])
        if not isinstance(reply, dict) or not set(kinds) & set(reply):
            raise EngineDied(f"the engine answered {reply!r:.200} instead of {' or '.join(kinds)}")
        return reply


class _Listening(NamedTuple):
    """What a child says, and an end of patience in the middle of it too."""

    child: WarmChild
    silent_seconds: float

    def read(self, size: int, /) -> bytes | None:
        with selectors.DefaultSelector() as selector:
            selector.register(self.child.replies, selectors.EVENT_READ)
            if not selector.select(self.silent_seconds):
                self.child.process.kill()
                raise EngineDied(f"silent for {self.silent_seconds:g} s: {self.child.last_words()}")
        return self.child.replies.read(size)


def last_words(log: Path) -> str:
    """The end of what an engine wrote to its log."""
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()] if log.exists() else []
    return " | ".join(lines[-_LAST_WORDS:])[-2000:] or "it said nothing"


def generation_config(base: Path) -> dict[str, Any]:
    """What a base says of generating, which is no part of its digest; empty where it says nothing."""
    path = base / "generation_config.json"
    try:
        found = json.loads(path.read_text()) if path.is_file() else {}
    except (OSError, ValueError) as error:
        raise Unfit(f"{path} cannot be read ({error}); fetch the base again") from None
    return found if isinstance(found, dict) else {}


def answer_ends(base: Path) -> list[int]:
    """Tokens at which vLLM ends an answer because the base's generation config names them, sorted.

    It does so under `--generation-config vllm` too (0.32, `try_get_generation_config`).
    """
    ends = generation_config(base).get("eos_token_id")
    return sorted({ends} if isinstance(ends, int) else set(ends or []))


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
    # Another rank class is another shape of the adapters' products, and nothing proves that base rows never notice.
    document = {
        **described,
        "base": settings.base_digest,
        "base_ends": answer_ends(settings.base),
        "max_lora_rank": served_rank(settings.rank),
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
