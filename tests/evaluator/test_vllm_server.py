"""The engine over a server: the contract where the server is sound, and what comes out of each way it is not."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from engine_contract import CONTRACT, EXACT, Promise, scores_of
from factories import make_adapter
from fake_engine import FakeEngine, Faults
from fake_server import FakeServer, make_base, running_server

from evaluator.canaries import run_canaries, trusted
from evaluator.engine import EngineDied, EngineRefused, Prompt, Unfit
from evaluator.vllm_process import EngineSettings
from evaluator.vllm_server import VllmServer, adapter_name, check_server
from registry.client import describe_base

TEXTS = [list(text.encode()) for text in ("How long is the warranty?", "hello", "It is 3 years, ok.")]
Connect = Callable[..., VllmServer]


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return make_base(tmp_path / "base")


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    folder = tmp_path / "adapter"
    folder.mkdir()
    for name, data in make_adapter().items():
        (folder / name).write_bytes(data)
    return folder


@pytest.fixture
def connect(base: Path) -> Iterator[Connect]:
    opened: list[VllmServer] = []

    def open_engine(server: FakeServer | str, log: Path | None = None, **changes: Any) -> VllmServer:
        settings = EngineSettings(base=base, base_digest=describe_base(base).digest, rank=8, silent_seconds=5.0)
        address = server if isinstance(server, str) else server.address
        opened.append(VllmServer(address, settings._replace(**changes), log))
        return opened[-1]

    yield open_engine
    for engine in opened:
        engine.close()


# -- sound --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("promise", CONTRACT + EXACT, ids=lambda promise: promise.__name__)
def test_the_engine_over_a_sound_server_keeps(promise: Promise, base: Path, adapter: Path, connect: Connect) -> None:
    with running_server(base) as server:
        promise(connect(server), adapter, TEXTS)


def test_every_parameter_of_sampling_is_sent(base: Path, connect: Connect) -> None:
    with running_server(base) as server:
        engine = connect(server)
        calls = [
            lambda one: engine.score([one]),
            lambda one: engine.generate([one], 4, ["\n"]),
            lambda one: engine.sample([one], 4, 3),
            lambda one: engine.choose([one], [50, 60]),
        ]
        for call in calls:
            list(call(Prompt(TEXTS[0], None)))
            _, body = server.calls[-1]
            neutral = {"top_p": 1, "top_k": 0, "min_p": 0, "repetition_penalty": 1, "presence_penalty": 0}
            assert body.items() >= {**neutral, "frequency_penalty": 0, "add_special_tokens": False}.items()
            assert body["temperature"] == (1 if "seed" in body else 0) and "max_tokens" in body


def test_requests_hold_several_prompts_and_all_of_one_model(base: Path, adapter: Path, connect: Connect) -> None:
    with running_server(base) as server:
        prompts = [Prompt([*TEXTS[0], index], where) for index in range(40) for where in (None, adapter)]
        assert len(scores_of(connect(server), prompts)) == 80
        sizes = [
            (body["model"] == "base", len(body["prompt"])) for path, body in server.calls if "prompt_logprobs" in body
        ]
        assert sorted(sizes) == [(False, 10)] * 4 + [(True, 10)] * 4


def test_a_request_never_holds_more_than_its_share_of_a_long_call(base: Path, connect: Connect) -> None:
    with running_server(base) as server:
        scores_of(connect(server), [Prompt([*TEXTS[0], index % 256], None) for index in range(300)])
        sizes = [len(body["prompt"]) for _, body in server.calls if "prompt_logprobs" in body]
        assert sorted(sizes) == [12] + [32] * 9


def test_few_prompts_of_two_models_are_in_flight_together(base: Path, adapter: Path, connect: Connect) -> None:
    """As the canaries ask: in two large requests the server would have done with one before it looks at the other."""
    with running_server(base) as server:
        scores_of(
            connect(server), [Prompt([*TEXTS[0], index], where) for index in range(8) for where in (None, adapter)]
        )
        asked = [
            (body["model"] == "base", len(body["prompt"])) for _, body in server.calls if "prompt_logprobs" in body
        ]
        assert sorted(asked) == [(False, 2)] * 4 + [(True, 2)] * 4


def test_a_server_that_mixes_up_rows_of_requests_in_flight_is_found(
    base: Path, adapter: Path, connect: Connect
) -> None:
    with running_server(base, FakeEngine(Faults(leaks=True)), hangs=0.05) as server:
        canaries = run_canaries(connect(server), TEXTS, [adapter])[adapter]
    assert {one.name for one in canaries if not one.passed} == {"base_beside_adapter"}


def test_an_adapter_is_loaded_once_under_a_name_of_its_content_and_taken_back(
    base: Path, adapter: Path, connect: Connect, tmp_path: Path
) -> None:
    with running_server(base) as server:
        engine = connect(server)
        for _ in range(2):
            scores_of(engine, [Prompt(TEXTS[0], adapter)])
        name = adapter_name(adapter)
        loads = [body for path, body in server.calls if path == "/v1/load_lora_adapter"]
        assert loads == [{"lora_name": name, "lora_path": str(adapter)}]
        engine.close()
        assert server.adapters == {}
    before = (adapter / "adapter_model.safetensors").read_bytes()
    (adapter / "adapter_model.safetensors").write_bytes(before[:-1] + b"\2")
    assert name.startswith("tunegate-") and len(name) == 49 and adapter_name(adapter) != name


def test_an_adapter_that_somebody_else_loaded_is_used_and_left(base: Path, adapter: Path, connect: Connect) -> None:
    with running_server(base) as server:
        server.adapters[adapter_name(adapter)] = str(adapter)
        engine = connect(server)
        assert len(scores_of(engine, [Prompt(TEXTS[0], adapter)])) == 1
        engine.close()
        assert list(server.adapters) == [adapter_name(adapter)]


def test_the_fingerprint_goes_by_what_the_server_is(base: Path, connect: Connect) -> None:
    with running_server(base) as server, running_server(base) as same, running_server(base, version="0.33.1") as newer:
        assert connect(server).info == connect(same).info
        assert connect(newer).info.fingerprint != connect(server).info.fingerprint
        assert connect(newer).info.version == "0.33.1" and connect(newer).info.dtype == "unknown"


def test_a_server_in_development_mode_tells_more(base: Path, connect: Connect) -> None:
    told = {
        "vllm_config": {
            "model_config": {"dtype": "torch.float16", "generation_config": "vllm", "override_generation_config": {}},
            "device_config": {"device": "cuda"},
        },
        "system_env": {"torch_version": "2.13.0"},
    }
    with running_server(base, info=told) as server:
        info = connect(server).info
    assert (info.dtype, info.device, info.torch) == ("float16", "cuda", "2.13.0")


def test_a_token_is_greedy_unless_another_is_likelier(base: Path, connect: Connect) -> None:
    """vLLM's rank counts a tie against a token, and in bf16 the two likeliest often tie."""
    row = '{"65": {"logprob": -1.0, "rank": 2}, "66": {"logprob": %s, "rank": 1}}'
    with running_server(base) as server:
        engine = connect(server)
        for other, greedy in (("-1.0", True), ("-0.9", False)):
            says = '{"choices": [{"index": 0, "prompt_logprobs": [null, %s]}]}' % (row % other)
            server.broken = server.broken._replace(says=says)
            [(_, scores)] = engine.score([Prompt([64, 65], None)])
            assert scores == ([-1.0], [greedy])


# -- refused before anything is measured --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("broken", "told"),
    [
        ({"version": "0.29.9"}, "0.30 or newer is needed"),
        ({"version": "dev"}, "0.30 or newer is needed"),
        ({"longest": 512}, "--max-model-len 1024"),
        ({"info": {"vllm_config": {"model_config": {"generation_config": "/other"}}}}, "--generation-config vllm"),
        ({"info": {"vllm_config": {"model_config": {"generation_config": "auto"}}}}, "--generation-config vllm"),
        (
            {"info": {"vllm_config": {"model_config": {"override_generation_config": {"max_new_tokens": 9}}}}},
            "max_new_tokens",
        ),
        ({"status": 401}, "without --api-key"),
        ({"fingerprint": None}, "without --fingerprint-mode"),
        ({"fingerprint": "mine"}, "without --fingerprint-mode"),
        ({"fingerprint": "vllm-0.32.0-nohash"}, "without --fingerprint-mode"),
    ],
    ids=str,
)
def test_a_server_that_will_not_do_is_refused_with_the_remedy(
    broken: dict[str, Any], told: str, base: Path, connect: Connect
) -> None:
    with running_server(base, **broken) as server, pytest.raises(Unfit, match=told):
        connect(server)


PLAIN = {"vllm_config": {"model_config": {"generation_config": "vllm"}}}


def test_a_base_that_would_cut_answers_off_needs_a_server_that_says_it_does_not(base: Path, connect: Connect) -> None:
    (base / "generation_config.json").write_text('{"max_new_tokens": 20, "temperature": 0.6, "top_p": 0.9}')
    with running_server(base) as server, pytest.raises(Unfit, match=r"max_new_tokens 20 .*--generation-config vllm"):
        connect(server)
    with running_server(base, info=PLAIN) as server:
        connect(server)
    (base / "generation_config.json").write_text('{"temperature": 0.6, "top_p": 0.9}')
    with running_server(base) as server:
        connect(server)


def test_the_tokens_at_which_a_base_ends_answers_are_in_the_fingerprint(base: Path, connect: Connect) -> None:
    """They end answers under every `--generation-config` that names the base's own, and are not in its digest."""
    with running_server(base) as server:
        before = connect(server).info.fingerprint
        (base / "generation_config.json").write_text('{"eos_token_id": [3, 2]}')
        assert connect(server).info.fingerprint != before


@pytest.mark.parametrize(
    ("broken", "told"),
    [
        ({"version": "0.29.9"}, "0.30 or newer"),
        ({"info": {"vllm_config": {"model_config": {"generation_config": "/x"}}}}, "vllm"),
    ],
    ids=str,
)
def test_what_needs_no_job_is_checked_without_one(broken: dict[str, Any], told: str, base: Path) -> None:
    with running_server(base) as server:
        check_server(server.address)
        assert server.calls == []
    with running_server(base, **broken) as server, pytest.raises(Unfit, match=told):
        check_server(server.address)


def test_what_cannot_be_proven_to_be_the_base_is_refused(base: Path, connect: Connect, tmp_path: Path) -> None:
    other = make_base(tmp_path / "other", fill=2)
    with running_server(other) as server, pytest.raises(Unfit, match=f"--model {base}"):
        connect(server)
    with running_server(Path("organisation/model")) as server, pytest.raises(Unfit, match="cannot be proven"):
        connect(server)


@pytest.mark.parametrize("address", ["localhost:8000", "http://host:port", "http://[::1", "ftp://host"])
def test_an_address_that_is_none_is_refused(connect: Connect, address: str) -> None:
    for ask in (connect, check_server):
        with pytest.raises(Unfit, match="unix:/path"):
            ask(address)


@pytest.mark.parametrize(
    ("faults", "broken", "told"),
    [
        (Faults(refuses=True), {}, "rank 32 is greater than max_lora_rank 16.*larger --max-lora-rank"),
        (Faults(), {"loads": False}, "VLLM_ALLOW_RUNTIME_LORA_UPDATING=1"),
        (Faults(), {"sees": False}, "share the folder"),
    ],
    ids=["rank", "no runtime loading", "another machine"],
)
def test_an_adapter_that_cannot_be_served_is_refused_and_the_base_is_still_there(
    faults: Faults, broken: dict[str, Any], told: str, base: Path, adapter: Path, connect: Connect
) -> None:
    with running_server(base, FakeEngine(faults), **broken) as server:
        engine = connect(server)
        with pytest.raises(Unfit, match=told):
            scores_of(engine, [Prompt(TEXTS[0], None), Prompt(TEXTS[0], adapter)])
        assert len(scores_of(engine, [Prompt(TEXTS[0], None)])) == 1


def test_an_adapter_without_its_files_is_refused(base: Path, connect: Connect, tmp_path: Path) -> None:
    with running_server(base) as server, pytest.raises(EngineRefused, match="cannot be read"):
        scores_of(connect(server), [Prompt(TEXTS[0], tmp_path / "nothing")])


def test_a_text_that_is_too_long_is_refused(base: Path, connect: Connect) -> None:
    with running_server(base) as server, pytest.raises(EngineRefused, match="maximum context length is 1024"):
        scores_of(connect(server), [Prompt([65] * 1024, None)])


def test_an_answer_that_the_server_cut_off_is_refused(base: Path, connect: Connect) -> None:
    with running_server(base, cuts=3) as server:
        engine = connect(server)
        assert len(list(engine.generate([Prompt(TEXTS[0], None)], 3))) == 1
        with pytest.raises(Unfit, match="after 3 tokens instead of 8"):
            list(engine.generate([Prompt(TEXTS[0], None)], 8))


# -- broken in the middle -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("says", "told"),
    [
        ("", "not what vLLM says"),
        ("<html>busy</html>", "not what vLLM says"),
        ("{}", "choices"),
        ('{"choices": []}', "0 choices"),
        ('{"choices": null}', "choices"),
        ('{"choices": [{"index": 1, "prompt_logprobs": []}]}', "1 choices"),
        ('{"choices": [{"index": 0}]}', "no log-probabilities"),
        ('{"choices": [{"index": 0, "prompt_logprobs": [null]}]}', "1 log-probabilities"),
        ('{"choices": [{"index": 0, "prompt_logprobs": "many"}]}', "not what vLLM says"),
    ],
)
def test_an_answer_without_what_was_asked_for_is_the_end(says: str, told: str, base: Path, connect: Connect) -> None:
    with running_server(base) as server:
        engine = connect(server)
        server.broken = server.broken._replace(says=says)
        with pytest.raises(EngineDied, match=told):
            scores_of(engine, [Prompt(TEXTS[0], None)])


@pytest.mark.parametrize("says", ['{"choices": [{"index": 0}]}', '{"choices": [{"index": 0, "logprobs": null}]}'])
def test_no_text_and_no_choice_is_the_end_too(says: str, base: Path, connect: Connect) -> None:
    with running_server(base) as server:
        engine = connect(server)
        server.broken = server.broken._replace(says=says)
        for call in (
            lambda: engine.generate([Prompt(TEXTS[0], None)], 4),
            lambda: engine.sample([Prompt(TEXTS[0], None)], 4, 1),
            lambda: engine.choose([Prompt(TEXTS[0], None)], [50]),
        ):
            with pytest.raises(EngineDied):
                list(call())


@pytest.mark.parametrize(
    ("broken", "told"),
    [
        ({"hangs": 2.0}, r"silent for 0\.5 s; its /health says 200"),
        ({"drops": True, "health": 503}, "does not answer .*; its /health says 503"),
        ({"status": 500}, "EngineCore encountered an issue.; its /health says 200"),
    ],
    ids=str,
)
def test_a_server_that_hangs_or_dies_is_noticed(
    broken: dict[str, Any], told: str, base: Path, connect: Connect, tmp_path: Path
) -> None:
    log = tmp_path / "server.log"
    log.write_text("loading\nout of memory\n")
    with running_server(base) as server:
        engine = connect(server, log, silent_seconds=0.5)
        server.broken = server.broken._replace(**broken)
        with pytest.raises(EngineDied, match=rf"{told}; its last words: loading \| out of memory"):
            scores_of(engine, [Prompt(ids, None) for ids in TEXTS])


# httpcore leaves the socket of a connection that was refused to the garbage collector.
@pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")
def test_a_server_that_is_gone_is_noticed_at_once_and_later(base: Path, connect: Connect, tmp_path: Path) -> None:
    with running_server(base) as server:
        engine = connect(server)
    with pytest.raises(EngineDied, match="nor does its /health"):
        scores_of(engine, [Prompt(TEXTS[0], None)])
    for address in (server.address, f"unix:{tmp_path / 'none.sock'}"):
        with pytest.raises(EngineDied, match="does not answer"):
            connect(address)


def test_an_adapter_that_the_server_forgot_is_the_end_of_this_conversation(
    base: Path, adapter: Path, connect: Connect
) -> None:
    with running_server(base) as server:
        engine = connect(server)
        scores_of(engine, [Prompt(TEXTS[0], adapter)])
        httpx.post(f"{server.address}/v1/unload_lora_adapter", json={"lora_name": adapter_name(adapter)})
        with pytest.raises(EngineDied, match="no longer serves"):
            scores_of(engine, [Prompt(TEXTS[0], adapter)])
        assert len(scores_of(connect(server), [Prompt(TEXTS[0], adapter)])) == 1


@pytest.mark.parametrize("nulls", [False, True])
def test_what_is_not_a_number_stays_none_and_the_canaries_see_it(
    nulls: bool, base: Path, adapter: Path, connect: Connect
) -> None:
    with running_server(base, FakeEngine(Faults(bad=float("nan"))), nulls=nulls) as server:
        found = run_canaries(connect(server), TEXTS, [adapter])[adapter]
    assert not {one.name: one for one in found}["finite"].passed and not trusted(found)


def test_a_server_that_cannot_write_what_is_not_a_number_is_refused(base: Path, connect: Connect) -> None:
    with running_server(base, FakeEngine(Faults(bad=float("nan"))), strict=True) as server:
        engine = connect(server)
        with pytest.raises(EngineRefused, match="look at the weights"):
            scores_of(engine, [Prompt(TEXTS[0], None)])


def test_a_server_that_ignores_the_adapter_fails_the_canary_for_it(base: Path, adapter: Path, connect: Connect) -> None:
    with running_server(base, FakeEngine(Faults(deaf=True))) as server:
        found = run_canaries(connect(server), TEXTS, [adapter])[adapter]
    assert {one.name for one in found if not one.passed} == {"adapter_effect"}
