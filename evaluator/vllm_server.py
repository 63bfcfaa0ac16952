"""Engine over a running vLLM server, on this machine or one that sees the same folders.

The server is somebody else's, so this much is checked: the files under the path that it names as its base, as this
machine sees them, have the digest of the job's (a server on another machine must share them, and must not have changed
them since it started); adapters get a name made of their content; every parameter of sampling is sent, so that the
base's own generation config cannot supply one. Whether adapters have an effect, and stay apart, the canaries tell. What
a server does not tell outside development mode, its dtype and device, is "unknown" in the evidence, and told apart only
by the server's own fingerprint; a generation config from elsewhere (`--generation-config DIRECTORY`), which may end
answers at other tokens, is seen in development mode only.

    VLLM_ALLOW_RUNTIME_LORA_UPDATING=1 python -m vllm.entrypoints.openai.api_server --model DIRECTORY --uds vllm.sock \\
        --generation-config vllm --no-enable-prefix-caching --enable-lora --max-lora-rank 16 \\
        --lora-target-modules q_proj k_proj v_proj o_proj gate_proj up_proj down_proj
    engine = VllmServer("unix:/run/vllm.sock", settings)
"""

import contextlib
import hashlib
import math
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from itertools import chain, zip_longest
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import msgspec

from evaluator.engine import Answer, EngineDied, EngineRefused, Prompt, Scores, Unfit
from evaluator.vllm_http import Reply, Wire
from evaluator.vllm_process import EngineSettings, answer_ends, generation_config
from registry.client import InvalidRequest, describe_base, digest_of
from registry.records import EngineInfo

_OLDEST = (0, 30)
_PROMPTS_PER_REQUEST = 32
_REQUESTS_IN_FLIGHT = 8
_UNLOAD_SECONDS = 10.0
_CHECK_SECONDS = 30.0
_ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors")
# What a request leaves out is supplied by the generation config of the base, silently.
_NEUTRAL = {
    "add_special_tokens": False,
    "top_p": 1.0,
    "top_k": 0,
    "min_p": 0.0,
    "repetition_penalty": 1.0,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
    "return_token_ids": True,
}

T = TypeVar("T")


class _Model(msgspec.Struct):
    id: str
    root: str | None = None
    parent: str | None = None
    max_model_len: int | None = None


class _Models(msgspec.Struct):
    data: list[_Model]


class _Version(msgspec.Struct):
    version: str


class _Logprob(msgspec.Struct):
    logprob: float | None = None


class _Logprobs(msgspec.Struct):
    top_logprobs: list[dict[str, float | None] | None]


class _Choice(msgspec.Struct):
    index: int
    text: str = ""
    finish_reason: str | None = None
    token_ids: list[int] | None = None
    logprobs: _Logprobs | None = None
    prompt_logprobs: list[dict[str, _Logprob] | None] | None = None


class _Completion(msgspec.Struct):
    choices: list[_Choice]
    system_fingerprint: str | None = None


class _ModelConfig(msgspec.Struct):
    dtype: str = "unknown"
    generation_config: str = "vllm"
    override_generation_config: dict[str, Any] = {}


class _DeviceConfig(msgspec.Struct, frozen=True):
    device: str = "unknown"


class _Config(msgspec.Struct):
    model_config: _ModelConfig
    device_config: _DeviceConfig = _DeviceConfig()


class _ServerInfo(msgspec.Struct):
    vllm_config: _Config
    system_env: dict[str, Any] = {}


class _Told(NamedTuple):
    """What a server says of itself, in the words of EngineInfo."""

    device: str = "unknown"
    dtype: str = "unknown"
    torch: str = "unknown"


class VllmServer:
    """See `evaluator.engine.Engine`. `log`: the server's output, if it is at hand, for its last words.

    Raises Unfit, with the remedy, for a server that is too old or serves something else, EngineDied for one that does
    not answer. Closing it ends the conversation and takes back what it loaded; the server stays.
    """

    def __init__(self, address: str, settings: EngineSettings, log: Path | None = None) -> None:
        self._wire = Wire(address, settings.silent_seconds, log)
        self._pool = ThreadPoolExecutor(_REQUESTS_IN_FLIGHT, thread_name_prefix="tunegate-server")
        self._names: dict[Path, str] = {}
        self._loaded: set[str] = set()
        try:
            version = _checked_version(self._wire)
            base = _checked_base(self._wire, settings)
            told = _checked_settings(self._wire)
            if told is None:
                _check_generation(self._wire, Path(base.root or ""))
            self._base = base.id
            probe = self._complete([[0, 1]], {"model": base.id, "max_tokens": 1, "temperature": 0})
            configuration = _checked_fingerprint(self._wire, probe)
            self._info = _engine_info(settings, version, base, told or _Told(), configuration)
        except BaseException:
            self.close()
            raise

    @property
    def info(self) -> EngineInfo:
        return self._info

    def score(self, prompts: Sequence[Prompt]) -> Iterator[tuple[int, Scores]]:
        # One beside the token's own: ranks count ties against a token, and bf16 has many.
        body = {"max_tokens": 1, "temperature": 0, "prompt_logprobs": 1}
        return self._ask(prompts, body, self._scores)

    def generate(
        self, prompts: Sequence[Prompt], max_tokens: int, stops: Sequence[str] = ()
    ) -> Iterator[tuple[int, Answer]]:
        body = {"max_tokens": max_tokens, "temperature": 0, "stop": list(stops)}
        return self._ask(prompts, body, lambda _, choice: self._answer(choice, max_tokens))

    def sample(self, prompts: Sequence[Prompt], max_tokens: int, seed: int) -> Iterator[tuple[int, Answer]]:
        # A request has one seed, and so one prompt. One after the other: a prompt with a seed that is read in two
        # steps, because others fill the first, ends vLLM 0.32 on CPU.
        for index, one in enumerate(prompts):
            body = {"max_tokens": max_tokens, "temperature": 1, "seed": seed + index, "model": self._model(one.adapter)}
            found = self._complete([list(one.ids)], body)
            yield index, self._answer(found.choices[0], max_tokens)

    def choose(self, prompts: Sequence[Prompt], options: Sequence[int]) -> Iterator[tuple[int, list[float]]]:
        body = {
            "max_tokens": 1,
            "temperature": 0,
            "logprobs": 1,
            "logprob_token_ids": list(options),
            "return_tokens_as_token_ids": True,
        }
        return self._ask(prompts, body, lambda _, choice: self._chosen(choice, options))

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)
        for name in self._loaded:
            with contextlib.suppress(EngineDied):
                self._wire.post("/v1/unload_lora_adapter", {"lora_name": name}, _UNLOAD_SECONDS)
        self._loaded.clear()
        self._wire.close()

    # -- requests -------------------------------------------------------------------------------------------------

    def _ask(
        self,
        prompts: Sequence[Prompt],
        body: dict[str, Any],
        result: Callable[[Sequence[int], _Choice], T],
    ) -> Iterator[tuple[int, T]]:
        """Some requests in flight, results as they come."""
        models = {adapter: self._model(adapter) for adapter in {one.adapter for one in prompts}}
        flying = {}
        # No more prompts in a request than leave some for the others: what models share is what is in flight together.
        together = max(1, min(_PROMPTS_PER_REQUEST, math.ceil(len(prompts) / _REQUESTS_IN_FLIGHT)))
        for chunk in _chunks([models[one.adapter] for one in prompts], together):
            ids = [list(prompts[index].ids) for index in chunk]
            model = models[prompts[chunk[0]].adapter]
            flying[self._pool.submit(self._complete, ids, {**body, "model": model})] = chunk
        try:
            for done in as_completed(flying):
                for index, choice in zip(flying[done], done.result().choices, strict=True):
                    yield index, result(prompts[index].ids, choice)
        finally:
            for one in flying:
                one.cancel()

    def _complete(self, ids: list[list[int]], body: dict[str, Any]) -> _Completion:
        """One request: a choice for each prompt, in their order."""
        reply = self._wire.post("/v1/completions", {**_NEUTRAL, **body, "prompt": ids})
        if reply.status != 200:
            raise self._failure(reply, body["model"])
        found = self._wire.read(reply, _Completion)
        found.choices.sort(key=lambda one: one.index)
        if [one.index for one in found.choices] != list(range(len(ids))):
            raise EngineDied(f"{self._wire.address} answered {len(ids)} prompts with {len(found.choices)} choices")
        return found

    def _failure(self, reply: Reply, model: str) -> EngineDied | EngineRefused:
        address, said = self._wire.address, reply.complaint
        if "JSON compliant" in said:
            return EngineRefused(
                f"{address} finds scores of {model} that are not numbers ({said}); look at the weights"
            )
        if reply.status in (400, 413, 422):
            return EngineRefused(f"{address} refuses a request: {said}")
        if reply.status in (401, 403):
            return Unfit(f"{address} wants a key ({said}); start it without --api-key, on a unix socket")
        if reply.status == 404:
            return EngineDied(f"{address} no longer serves {model}: {said}")
        return self._wire.died(f"failed: {said}")

    # -- adapters -------------------------------------------------------------------------------------------------

    def _model(self, adapter: Path | None) -> str:
        """The name under which the server serves the base or this adapter, which is loaded if it is not yet."""
        if adapter is None:
            return self._base
        path = adapter.resolve()
        if path not in self._names:
            name = adapter_name(path)
            reply = self._wire.post("/v1/load_lora_adapter", {"lora_name": name, "lora_path": str(path)})
            if reply.status == 200:
                self._loaded.add(name)
            elif not (reply.status == 400 and "already been loaded" in reply.complaint):
                raise self._not_loaded(reply, path)
            self._names[path] = name
        return self._names[path]

    def _not_loaded(self, reply: Reply, path: Path) -> EngineDied | EngineRefused:
        address, said = self._wire.address, reply.complaint
        if reply.status == 404 and "No adapter found" in said:
            return Unfit(f"{address} does not see {path} ({said}); share the folder with the server's machine")
        if reply.status in (404, 405):
            return Unfit(
                f"{address} loads no adapters at run time ({said}); start the server with --enable-lora and "
                "VLLM_ALLOW_RUNTIME_LORA_UPDATING=1"
            )
        if reply.status == 503 or "EngineDead" in said:
            return self._wire.died(f"failed: {said}")
        if "max_lora_rank" in said:
            return Unfit(f"{address} cannot serve the adapter {path}: {said}; start it with a larger --max-lora-rank")
        return EngineRefused(f"{address} cannot serve the adapter {path}: {said}")

    # -- answers --------------------------------------------------------------------------------------------------

    def _scores(self, ids: Sequence[int], choice: _Choice) -> Scores:
        """Log-probabilities by token id; NaN where the server has none."""
        rows = choice.prompt_logprobs
        if rows is None or len(rows) != len(ids):
            found = "no" if rows is None else len(rows)
            raise EngineDied(f"{self._wire.address} has {found} log-probabilities for a text of {len(ids)} tokens")
        logprobs, greedy = [], []
        for token, row in zip(ids[1:], rows[1:], strict=True):
            values = {key: _number(one.logprob) for key, one in (row or {}).items()}
            score = values.get(str(token), math.nan)
            logprobs.append(score)
            greedy.append(score >= max(values.values(), default=score))
        return Scores(logprobs, greedy)

    def _answer(self, choice: _Choice, max_tokens: int) -> Answer:
        if choice.token_ids is None or choice.finish_reason not in ("stop", "length"):
            raise EngineDied(
                f"{self._wire.address} ended an answer with {choice.finish_reason!r} and "
                f"{'no' if choice.token_ids is None else len(choice.token_ids)} token ids"
            )
        if choice.finish_reason == "length" and len(choice.token_ids) < max_tokens:
            raise Unfit(
                f"{self._wire.address} cut an answer off after {len(choice.token_ids)} tokens instead of {max_tokens}; "
                "start it with --generation-config vllm and without a max_new_tokens of its own"
            )
        return Answer(choice.text, choice.token_ids, choice.finish_reason)

    def _chosen(self, choice: _Choice, options: Sequence[int]) -> list[float]:
        first = choice.logprobs.top_logprobs[0] if choice.logprobs and choice.logprobs.top_logprobs else None
        if first is None:
            raise EngineDied(f"{self._wire.address} has no log-probabilities for the next token")
        return [_number(first.get(f"token_id:{option}")) for option in options]


def adapter_name(adapter: Path) -> str:
    """A name that only this content has: vLLM's caches go by the name. Raises EngineRefused if files are missing."""
    digest = hashlib.sha256()
    for file in _ADAPTER_FILES:
        try:
            with (adapter / file).open("rb") as stream:
                digest.update(hashlib.file_digest(stream, "sha256").digest())
        except OSError as error:
            raise EngineRefused(f"the adapter {adapter} cannot be read: {error}") from None
    return f"tunegate-{digest.hexdigest()[:40]}"


def _chunks(models: Sequence[str], together: int) -> list[list[int]]:
    """Indices of prompts of the same model, at most `together`; models take turns, so that they share batches."""
    places: dict[str, list[int]] = defaultdict(list)
    for index, model in enumerate(models):
        places[model].append(index)
    each = [[of[start : start + together] for start in range(0, len(of), together)] for of in places.values()]
    return [chunk for chunk in chain.from_iterable(zip_longest(*each)) if chunk is not None]


def check_server(address: str) -> None:
    """What can be known of a server before there is a job. Raises Unfit with the remedy, EngineDied if it is away."""
    wire = Wire(address, _CHECK_SECONDS)
    try:
        _checked_version(wire)
        _checked_settings(wire)
    finally:
        wire.close()


def _number(value: float | None) -> float:
    return math.nan if value is None else value


def _checked_version(wire: Wire) -> str:
    reply = wire.get("/version")
    if reply.status != 200:
        raise Unfit(f"{wire.address} is no vLLM server: /version says {reply.complaint}")
    version = wire.read(reply, _Version).version
    found = re.match(r"(\d+)\.(\d+)", version)
    if found is None or (int(found[1]), int(found[2])) < _OLDEST:
        raise Unfit(f"{wire.address} runs vLLM {version}; 0.30 or newer is needed, upgrade it")
    return version


def _checked_base(wire: Wire, settings: EngineSettings) -> _Model:
    """The base as the server names it, if its files are those of the job's."""
    reply = wire.get("/v1/models")
    if reply.status != 200:
        raise Unfit(f"{wire.address} does not tell its models: {reply.complaint}")
    bases = [one for one in wire.read(reply, _Models).data if one.parent is None and one.root]
    if not bases:
        raise Unfit(f"{wire.address} serves no base model; start it with --model {settings.base}")
    base = bases[0]
    try:
        digest = describe_base(Path(base.root or "")).digest
    except InvalidRequest as error:
        raise Unfit(
            f"what {wire.address} serves cannot be proven to be the base of the job: {error}; start it with "
            f"--model {settings.base.resolve()}, a directory that is seen from here too"
        ) from None
    if digest != settings.base_digest:
        raise Unfit(
            f"{wire.address} serves {base.root}, whose digest is {digest}, and the job's base is "
            f"{settings.base_digest}; start it with --model {settings.base.resolve()}"
        )
    if (base.max_model_len or 0) < settings.max_model_len:
        raise Unfit(
            f"{wire.address} takes texts of {base.max_model_len} tokens; start it with --max-model-len "
            f"{settings.max_model_len} or more"
        )
    return base


def _checked_settings(wire: Wire) -> _Told | None:
    """What a server in development mode tells of its settings; others tell nothing.

    Another generation config may end answers at other tokens or sooner, which no request can undo.
    """
    reply = wire.get("/server_info?config_format=json")
    if reply.status != 200:
        return None
    found = wire.read(reply, _ServerInfo)
    model = found.vllm_config.model_config
    if model.generation_config != "vllm" or model.override_generation_config:
        raise Unfit(
            f"{wire.address} has a generation config ({model.generation_config}, "
            f"{model.override_generation_config}); start it with --generation-config vllm and no override"
        )
    return _Told(
        found.vllm_config.device_config.device,
        model.dtype.removeprefix("torch."),
        str(found.system_env.get("torch_version", "unknown")),
    )


def _check_generation(wire: Wire, base: Path) -> None:
    """Raises Unfit for a base whose own generation config changes answers whatever requests say.

    vLLM takes that config unless it is told not to, and a server outside development mode does not say which. All that
    it supplies is in `_NEUTRAL` or in each request but the most tokens; the ends it names hold in any case.
    """
    most = generation_config(base).get("max_new_tokens")
    if most is not None:
        raise Unfit(
            f"the base of {wire.address} says max_new_tokens {most} in its generation_config.json, which may cut "
            "answers off; start it with --generation-config vllm, and VLLM_SERVER_DEV_MODE=1 so that this can be seen"
        )


def _checked_fingerprint(wire: Wire, probe: _Completion) -> str:
    """vLLM's name for the configuration: its version, parallelism, and a short digest of what shapes its computations
    (model, quantisation, attention backend and the like), not of every option."""
    found = probe.system_fingerprint
    if found is None or not found.startswith("vllm-") or found.endswith("nohash"):
        raise Unfit(
            f"{wire.address} has the fingerprint {found!r}, which does not tell its configuration from others; start "
            "it without --fingerprint-mode"
        )
    return found


def _engine_info(settings: EngineSettings, version: str, base: _Model, told: _Told, configuration: str) -> EngineInfo:
    described = {
        "engine": "vllm",
        "distribution": "vllm",
        "version": version,
        **told._asdict(),
        "serving": "lora",
        "lora_ops": "unknown",
    }
    document = {
        **described,
        "base": settings.base_digest,
        "base_ends": answer_ends(Path(base.root or "")),
        "max_model_len": base.max_model_len,
        "server": configuration,
    }
    return EngineInfo(**described, fingerprint=digest_of(document))
