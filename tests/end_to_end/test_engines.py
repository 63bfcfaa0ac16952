"""The contract of engines over the real ones: vLLM in a child process, and vLLM's own server on a Unix socket.

Each is started once; the tests that leave one of them unusable come last.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import httpx
import numpy as np
import pytest
from engine_contract import CONTRACT, EXACT, Promise, distance, scores_of
from safetensors.numpy import save_file
from tiny_base import build_tiny_base
from tokenizers import Tokenizer

from evaluator.canaries import run_canaries
from evaluator.engine import Engine, EngineDied, EngineRefused, Prompt, Unfit
from evaluator.vllm_process import LORA_MODULES, EngineSettings, VllmProcess, WarmChild
from evaluator.vllm_server import VllmServer, adapter_name
from registry.client import describe_base

pytestmark = [pytest.mark.stack, pytest.mark.timeout(400)]

TEXTS = [[0, 50, 60, 70, 80, 90, 1, 201], [0, 51, 61], [0, *range(40, 70), 1]]
SERVER_SECONDS = 300
# httpcore leaves the socket of a connection that was refused to the garbage collector.
UNCLOSED = pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")
OFFLINE = {
    "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1",
    "VLLM_PLUGINS": "tunegate",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "OMP_NUM_THREADS": "1",
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "TOKENIZERS_PARALLELISM": "false",
}
SERVER = (
    f"{sys.executable} -m vllm.entrypoints.openai.api_server --served-model-name base --enable-lora --max-loras 4 "
    "--max-cpu-loras 6 --max-lora-rank 8 --dtype bfloat16 --max-model-len 1024 --max-num-seqs 64 "
    "--max-num-batched-tokens 1024 --block-size 32 --kv-cache-memory-bytes 268435456 --generation-config vllm "
    f"--no-enable-prefix-caching --disable-uvicorn-access-log --lora-target-modules {' '.join(LORA_MODULES)}"
).split()


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_base(tmp_path_factory.mktemp("base") / "tiny")


@pytest.fixture(scope="module")
def adapter(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_adapter(base, tmp_path_factory.mktemp("adapter"))


@pytest.fixture(scope="module")
def settings(base: Path) -> EngineSettings:
    return EngineSettings(base=base, base_digest=describe_base(base).digest, rank=8)


@pytest.fixture(scope="module")
def process(settings: EngineSettings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[VllmProcess]:
    log = tmp_path_factory.mktemp("engine") / "engine.log"
    engine = VllmProcess(settings, log, WarmChild(log))
    yield engine
    engine.close()


class Served(NamedTuple):
    """A running server of vLLM's, in a process group of its own."""

    address: str
    log: Path
    process: "subprocess.Popen[bytes]"

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


@pytest.fixture(scope="module")
def served(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("server")
    socket, log = folder / "vllm.sock", folder / "server.log"
    with log.open("w") as output:
        process = subprocess.Popen(
            [*SERVER, "--model", str(base), "--uds", str(socket)],
            env={**os.environ, **OFFLINE},
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    found = Served(f"unix:{socket}", log, process)
    try:
        _wait_until_it_listens(process, log)
        yield found
    finally:
        found.kill()


@pytest.fixture(scope="module")
def server(served: Served, settings: EngineSettings) -> Iterator[VllmServer]:
    engine = VllmServer(served.address, settings, served.log)
    yield engine
    engine.close()


@pytest.mark.parametrize("promise", CONTRACT + EXACT, ids=lambda promise: promise.__name__)
def test_vllm_in_a_child_keeps(promise: Promise, process: VllmProcess, adapter: Path) -> None:
    promise(process, adapter, TEXTS)


@pytest.mark.parametrize("promise", CONTRACT, ids=lambda promise: promise.__name__)
def test_vllm_behind_a_server_keeps(promise: Promise, server: VllmServer, adapter: Path) -> None:
    promise(server, adapter, TEXTS)


def test_both_say_the_same(process: VllmProcess, server: VllmServer, adapter: Path) -> None:
    prompts = [Prompt(ids, where) for ids in TEXTS for where in (None, adapter)]
    assert distance(scores_of(process, prompts), scores_of(server, prompts)) <= 0.05
    assert dict(process.generate(prompts, 6)) == dict(server.generate(prompts, 6))


@pytest.mark.parametrize("kind", ["process", "server"])
def test_the_canaries_trust_it(
    kind: str, request: pytest.FixtureRequest, base: Path, adapter: Path, tmp_path: Path
) -> None:
    engine: Engine = request.getfixturevalue(kind)
    both = [adapter, make_tiny_adapter(base, tmp_path, seed=7)]
    for canaries in run_canaries(engine, TEXTS, both).values():
        assert [one for one in canaries if not one.passed] == []


@pytest.mark.parametrize("kind", ["process", "server"])
def test_ids_are_those_of_the_text(kind: str, request: pytest.FixtureRequest, base: Path) -> None:
    engine: Engine = request.getfixturevalue(kind)
    tokenizer = Tokenizer.from_file(str(base / "tokenizer.json"))
    for _, answer in engine.sample([Prompt(ids, None) for ids in TEXTS * 4], 12, 0):
        said = tokenizer.decode(answer.ids, skip_special_tokens=True)
        # Random weights end in the middle of a character; how that looks is the decoder's own affair.
        assert _ascii(said) == _ascii(answer.text)


@pytest.mark.parametrize("kind", ["process", "server"])
def test_many_adapters_share_a_call(
    kind: str, request: pytest.FixtureRequest, base: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    engine: Engine = request.getfixturevalue(kind)
    adapters = [make_tiny_adapter(base, tmp_path_factory.mktemp("many"), seed=seed) for seed in range(6)]
    mixed = scores_of(engine, [Prompt(ids, one) for ids in TEXTS for one in (None, *adapters)])
    for place, one in enumerate((None, *adapters)):
        alone = scores_of(engine, [Prompt(ids, one) for ids in TEXTS])
        assert distance(alone, mixed[place :: len(adapters) + 1]) <= 0.05


@pytest.mark.parametrize("kind", ["process", "server"])
def test_an_adapter_above_the_engines_rank_is_refused_and_the_others_go_on(
    kind: str, request: pytest.FixtureRequest, base: Path, adapter: Path, tmp_path: Path
) -> None:
    engine: Engine = request.getfixturevalue(kind)
    before = scores_of(engine, [Prompt(TEXTS[0], adapter)])
    large = make_tiny_adapter(base, tmp_path, rank=16)
    # A server was started by somebody else, who can give it room; an engine of the worker's own has all there is.
    told = (
        pytest.raises(Unfit, match="--max-lora-rank")
        if kind == "server"
        else pytest.raises(EngineRefused, match="rank")
    )
    with told as refused:
        list(engine.score([Prompt(TEXTS[1], adapter), Prompt(TEXTS[0], large)]))
    assert isinstance(refused.value, Unfit) == (kind == "server")
    assert distance(scores_of(engine, [Prompt(TEXTS[0], adapter)]), before) <= 0.05


@pytest.mark.parametrize("kind", ["process", "server"])
def test_a_text_that_is_too_long_is_refused_and_the_others_go_on(
    kind: str, request: pytest.FixtureRequest, adapter: Path
) -> None:
    engine: Engine = request.getfixturevalue(kind)
    before = scores_of(engine, [Prompt(TEXTS[0], adapter)])
    with pytest.raises(EngineRefused, match="1024"):
        list(engine.score([Prompt(TEXTS[1], None), Prompt([50] * 1100, None)]))
    assert distance(scores_of(engine, [Prompt(TEXTS[0], adapter)]), before) <= 0.05


def test_scores_that_are_not_numbers_are_no_scores(
    process: VllmProcess, server: VllmServer, base: Path, tmp_path: Path
) -> None:
    broken = make_tiny_adapter(base, tmp_path, scale=float("nan"))
    [(_, scores)] = process.score([Prompt(TEXTS[0], broken)])
    assert all(map(np.isnan, scores.logprobs)) and not any(scores.greedy)
    with pytest.raises(EngineRefused, match="not numbers"):
        list(server.score([Prompt(TEXTS[0], broken)]))
    found = {one.name: one.passed for one in run_canaries(process, TEXTS, [broken])[broken]}
    assert not found["finite"]


def test_a_server_is_told_apart_and_known_by_its_configuration(
    process: VllmProcess, server: VllmServer, served: Served, settings: EngineSettings
) -> None:
    assert (server.info.engine, server.info.serving) == ("vllm", "lora")
    assert server.info.version == process.info.version
    assert server.info.fingerprint != process.info.fingerprint
    again = VllmServer(served.address, settings)
    assert again.info == server.info
    again.close()


def test_a_server_with_another_base_is_refused(served: Served, settings: EngineSettings, tmp_path: Path) -> None:
    other = build_tiny_base(tmp_path / "other", seed=1)
    with pytest.raises(EngineRefused, match=f"--model {other}"):
        VllmServer(served.address, settings._replace(base=other, base_digest=describe_base(other).digest))


def test_closing_takes_back_what_was_loaded_and_leaves_the_rest(
    server: VllmServer, served: Served, settings: EngineSettings, base: Path, adapter: Path, tmp_path: Path
) -> None:
    scores_of(server, [Prompt(TEXTS[0], adapter)])
    own = make_tiny_adapter(base, tmp_path, seed=40)
    guest = VllmServer(served.address, settings)
    scores_of(guest, [Prompt(TEXTS[0], where) for where in (adapter, own)])
    assert {adapter_name(adapter), adapter_name(own)} <= _names(served.address)
    guest.close()
    assert adapter_name(own) not in _names(served.address) and adapter_name(adapter) in _names(served.address)


def test_a_killed_engine_is_noticed_and_its_last_words_are_told(process: VllmProcess) -> None:
    process._child.process.kill()
    with pytest.raises(EngineDied, match="the engine"):
        list(process.score([Prompt(TEXTS[0], None)]))


@UNCLOSED
def test_a_killed_server_is_noticed_and_its_last_words_are_told(server: VllmServer, served: Served) -> None:
    served.kill()
    with pytest.raises(EngineDied, match=r"nor does its /health; its last words: \S"):
        list(server.score([Prompt(TEXTS[0], None)]))


# -- helpers ------------------------------------------------------------------------------------------------------


def make_tiny_adapter(base: Path, folder: Path, *, rank: int = 8, seed: int = 0, scale: float = 0.3) -> Path:
    """A LoRA of random weights, all of them of this size, on every linear layer of a base."""
    draw, tensors = np.random.default_rng(seed), {}
    for name, shape in describe_base(base).tensors.items():
        module = name.removesuffix(".weight")
        if module.rpartition(".")[2] in LORA_MODULES:
            for half, size in (("A", (rank, shape[1])), ("B", (shape[0], rank))):
                weights = draw.normal(size=size) * scale
                tensors[f"base_model.model.{module}.lora_{half}.weight"] = weights.astype(np.float32)
    save_file(tensors, folder / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "r": rank, "lora_alpha": rank, "bias": "none", "target_modules": list(LORA_MODULES)}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return folder


def _ascii(text: str) -> str:
    return "".join(one for one in text if one.isascii())


def _names(address: str) -> set[str]:
    with httpx.Client(transport=httpx.HTTPTransport(uds=address.removeprefix("unix:"))) as http:
        return {one["id"] for one in http.get("http://server/v1/models").json()["data"]}


def _wait_until_it_listens(server: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + SERVER_SECONDS
    while "Application startup complete" not in log.read_text(errors="replace"):
        assert server.poll() is None and time.monotonic() < deadline, log.read_text(errors="replace")[-3000:]
        time.sleep(0.5)
