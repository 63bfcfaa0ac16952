"""The same numbers as lm-evaluation-harness: its own backends beside our engine, on the same model, adapter and texts.

The model is tiny and random, its adapter too, so that nothing agrees by being easy. One document per assistant turn
on their side, one request per conversation on ours: the chain rule makes the sums equal.
"""

import json
import math
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from lm_eval.api.instance import Instance
from tiny_base import TEMPLATE, build_tiny_base

from evaluator.engine import Prompt
from evaluator.lm_eval_bridge import EngineLM, run_documents
from evaluator.lm_eval_import import import_task
from evaluator.rendering import LM_EVAL_COMPAT, Renderer, Scored
from evaluator.vllm_process import LORA_MODULES, EngineSettings, VllmProcess
from registry.client import Message, describe_base, read_suite
from registry.records import CONVENTION

pytestmark = [pytest.mark.stack, pytest.mark.timeout(400)]

SAME = 1e-3  # relative, both in float32
# Nats a token, bfloat16 engine against a float32 reference; measured: 0.030 on average, 0.23 at most.
BF16_MEAN, BF16_MOST = 0.06, 0.5
LONGEST = 512
TURNS = (
    ("How long is the warranty on a tent?", "The warranty is 3 years."),
    ("Where is the return label?", "It is under My Orders, at the bottom."),
    ("When is a parcel lost?", "After 10 working days."),
    ("Who wrote Hamlet?", "William Shakespeare did, in about 1600."),
)
CHOICES = """
task: which
dataset_path: json
dataset_kwargs: {data_files: {test: which.json}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{question}}"
doc_to_choice: choices
doc_to_target: answer
metric_list: [{metric: acc}, {metric: acc_norm}]
"""
OPEN = """
task: open
dataset_path: json
dataset_kwargs: {data_files: {test: open.json, train: shown.json}}
test_split: test
fewshot_split: train
num_fewshot: 2
fewshot_config: {sampler: first_n, doc_to_target: "{{answer}}!"}
output_type: generate_until
doc_to_text: "Q: {{question}}\\nA:"
doc_to_target: "{{answer}}"
generation_kwargs: {until: ["\\n", "Q:"], do_sample: false, max_gen_toks: 12}
filter_list: [{name: first, filter: [{function: regex, regex_pattern: "([A-Za-z])"}, {function: take_first}]}]
metric_list: [{metric: exact_match, ignore_case: true}]
"""
# lm-eval's vLLM backend, in a process of its own, as it is without us: vLLM's own LoRA operations. It asks for the
# version of the distribution "vllm", which on a CPU has another name (seen with lm-eval 0.4.13).
THEIR_VLLM = """
import importlib.metadata, json, sys
known = importlib.metadata.version

def version(name):
    try:
        return known(name)
    except importlib.metadata.PackageNotFoundError:
        return known(f"{name}-cpu") + "+cpu"

importlib.metadata.version = version
from lm_eval.api.instance import Instance
from lm_eval.models.vllm_causallms import VLLM

asked = json.load(sys.stdin)
model = VLLM(**asked["model"])
pairs = [Instance("loglikelihood", {}, tuple(pair), 0) for pair in asked["pairs"]]
found = model.loglikelihood(pairs, disable_tqdm=True)
json.dump(found, open(asked["to"], "w"))
"""


class Ground(NamedTuple):
    """What is compared: a base in float32, an adapter with an effect, conversations, and their turns as documents."""

    base: Path
    adapter: Path
    conversations: list[list[Message]]
    documents: list[tuple[int, tuple[str, str]]]  # which conversation, (context, continuation)

    def pairs(self) -> list[tuple[str, str]]:
        return [pair for _, pair in self.documents]

    def by_conversation(self, found: Sequence[tuple[float, bool]]) -> list[float]:
        sums = [0.0] * len(self.conversations)
        for (number, _), (value, _) in zip(self.documents, found, strict=True):
            sums[number] += value
        return sums


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Ground:
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    folder = tmp_path_factory.mktemp("parity")
    base = build_tiny_base(folder / "base", seed=5, dtype="float32")
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    torch.manual_seed(7)
    config = LoraConfig(r=8, lora_alpha=16, target_modules=list(LORA_MODULES), task_type="CAUSAL_LM")
    adapted = get_peft_model(model, config)
    with torch.no_grad():
        for name, weights in adapted.named_parameters():
            if "lora_" in name:
                weights.normal_(0, 0.1)
    adapted.save_pretrained(folder / "adapter")
    conversations = []
    for count in (1, 2, 3, 4):
        for start in range(4):
            turns = [TURNS[(start + place) % 4] for place in range(count)]
            conversations.append(
                [
                    Message(role=role, content=text)
                    for turn in turns
                    for role, text in zip(("user", "assistant"), turn, strict=True)
                ]
            )
    return Ground(base, folder / "adapter", conversations, list(_documents(conversations)))


@pytest.fixture(scope="module")
def engine(ground: Ground, tmp_path_factory: pytest.TempPathFactory) -> Iterator[VllmProcess]:
    yield from _started(ground, "float32", tmp_path_factory.mktemp("float32"))


@pytest.fixture(scope="module")
def theirs(ground: Ground) -> dict[Path | None, Any]:
    """lm-eval's `hf` backend in float32, for the base and for the adapter."""
    from lm_eval.models.huggingface import HFLM

    settings = {"dtype": "float32", "device": "cpu", "batch_size": 4, "max_length": LONGEST}
    return {
        where: HFLM(str(ground.base), peft=str(where) if where else None, **settings) for where in _subjects(ground)
    }


def test_both_ask_about_the_same_tokens(ground: Ground) -> None:
    model = EngineLM(None, None, ground.base, LONGEST)
    ours = Renderer(ground.base)
    for number, conversation in enumerate(ground.conversations):
        scored = ours.conversation(None, conversation, LM_EVAL_COMPAT)
        places = [place for place, counts in enumerate(scored.mask) if counts]
        found: list[int] = []
        for which, pair in ground.documents:
            if which == number:
                context, continuation = model._encode_pair(*pair)
                assert [*context, *continuation] == scored.ids[: len(context) + len(continuation)]
                found += range(len(context), len(context) + len(continuation))
        assert places == found


def test_summed_log_likelihoods_are_those_of_lm_eval_with_transformers(
    ground: Ground, engine: VllmProcess, theirs: dict[Path | None, Any]
) -> None:
    sums = {}
    for where, model in theirs.items():
        expected = ground.by_conversation(model.loglikelihood(_instances(ground.pairs()), disable_tqdm=True))
        found = sums[where] = _conversation_sums(ground, engine, where)
        for mine, other in zip(found, expected, strict=True):
            assert math.isclose(mine, other, rel_tol=SAME), (where, mine, other)
    # Otherwise equal sums would prove nothing about the adapter.
    base, adapted = sums.values()
    assert max(abs(one - other) / abs(one) for one, other in zip(base, adapted, strict=True)) > 10 * SAME


def test_the_bridge_gives_each_document_what_lm_eval_gives_it(
    ground: Ground, engine: VllmProcess, theirs: dict[Path | None, Any]
) -> None:
    for where, model in theirs.items():
        expected = model.loglikelihood(_instances(ground.pairs()), disable_tqdm=True)
        found = EngineLM(engine, where, ground.base, LONGEST).loglikelihood(_instances(ground.pairs()))
        for (mine, greedy), (other, other_greedy) in zip(found, expected, strict=True):
            assert math.isclose(mine, other, rel_tol=SAME) and greedy == bool(other_greedy)
    texts = [(" ".join(one.content for one in conversation),) for conversation in ground.conversations]
    rolling = theirs[None].loglikelihood_rolling(_instances(texts, "loglikelihood_rolling"), disable_tqdm=True)
    mine = EngineLM(engine, None, ground.base, LONGEST).loglikelihood_rolling(
        _instances(texts, "loglikelihood_rolling")
    )
    assert all(math.isclose(one, other, rel_tol=SAME) for one, other in zip(mine, rolling, strict=True))


def test_summed_log_likelihoods_are_those_of_lm_eval_with_vllm(
    ground: Ground, engine: VllmProcess, tmp_path: Path
) -> None:
    model = {
        "pretrained": str(ground.base),
        "dtype": "float32",
        "max_model_len": LONGEST,
        "lora_local_path": str(ground.adapter),
        "max_lora_rank": 8,
        # Without it, vLLM on a CPU dies of prompt log-probabilities beside LoRA.
        "lora_target_modules": list(LORA_MODULES),
        "kv_cache_memory_bytes": 1 << 28,
        "block_size": 32,
        "max_num_seqs": 16,
        "enable_prefix_caching": False,
    }
    environment = {
        **os.environ,
        "VLLM_PLUGINS": "",
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "OMP_NUM_THREADS": "2",
        "HF_HUB_OFFLINE": "1",
    }
    to = tmp_path / "found.json"
    done = subprocess.run(
        [sys.executable, "-c", THEIR_VLLM],
        input=json.dumps({"model": model, "pairs": ground.pairs(), "to": str(to)}),
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    expected = ground.by_conversation(json.loads(to.read_text()))
    for mine, other in zip(_conversation_sums(ground, engine, ground.adapter), expected, strict=True):
        assert math.isclose(mine, other, rel_tol=SAME)


@pytest.mark.parametrize(("text", "metric"), [(CHOICES, "acc"), (CHOICES, "acc_norm"), (OPEN, "exact_match")])
def test_every_document_is_right_or_wrong_as_lm_eval_says(
    text: str, metric: str, ground: Ground, engine: VllmProcess, theirs: dict[Path | None, Any], tmp_path: Path
) -> None:
    from lm_eval.evaluator import evaluate
    from lm_eval.tasks import TaskManager

    _write_data(tmp_path)
    (tmp_path / "task.yaml").write_text(text)
    imported = import_task(tmp_path / "task.yaml", "parity", metric)
    suite = {"suite.toml": imported.suite_toml.encode(), "items.jsonl": imported.items_jsonl.encode()}
    place = os.getcwd()
    os.chdir(tmp_path)  # lm-eval looks for data files from here
    try:
        task = TaskManager(include_path=str(tmp_path), include_defaults=False).load([str(tmp_path / "task.yaml")])
    finally:
        os.chdir(place)
    verdicts = set()
    for where, model in theirs.items():
        logged = evaluate(model, task["tasks"], bootstrap_iters=0, verbosity="ERROR")["samples"]
        [samples] = logged.values()
        found = list(run_documents(engine, read_suite(suite), where, ground.base, LONGEST))
        assert len(found) == len(samples) > 20
        for (item, right, said), sample in zip(found, sorted(samples, key=lambda one: one["doc_id"]), strict=True):
            assert item.endswith(f"-{sample['doc_id']}")
            assert right == bool(sample[metric]), (item, said, sample["resps"])
            if metric == "exact_match":
                # Where an answer is cut inside a character, Transformers shows what vLLM keeps back.
                assert said.rstrip("\ufffd") == sample["resps"][0][0].rstrip("\ufffd")
            verdicts.add(right)
    assert verdicts == {True, False}


def test_the_engine_in_bfloat16_stays_near_a_float32_reference(
    ground: Ground, tmp_path_factory: pytest.TempPathFactory
) -> None:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    ours = Renderer(ground.base)
    scored = [ours.conversation(None, one, CONVENTION) for one in ground.conversations]
    for engine in _started(ground, "bfloat16", tmp_path_factory.mktemp("bfloat16")):
        found = dict(engine.score([Prompt(one.ids, ground.adapter) for one in scored]))
    reference = PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(ground.base, dtype=torch.float32), ground.adapter
    )
    gaps = []
    with torch.no_grad():
        for index, one in enumerate(scored):
            logits = reference(torch.tensor([one.ids])).logits[0, :-1].log_softmax(-1)
            expected = logits.gather(1, torch.tensor(one.ids[1:])[:, None])[:, 0].tolist()
            pairs = zip(found[index].logprobs, expected, one.mask[1:], strict=True)
            gaps += [abs(mine - other) for mine, other, counts in pairs if counts]
    print(f"bfloat16 against float32: {sum(gaps) / len(gaps):.4f} nats a token on average, {max(gaps):.4f} at most")
    assert sum(gaps) / len(gaps) < BF16_MEAN and max(gaps) < BF16_MOST


# -- helpers ------------------------------------------------------------------------------------------------------


def _started(ground: Ground, dtype: str, folder: Path) -> Iterator[VllmProcess]:
    settings = EngineSettings(
        base=ground.base, base_digest=describe_base(ground.base).digest, rank=8, dtype=dtype, max_model_len=LONGEST
    )
    engine = VllmProcess(settings, folder / "engine.log")
    try:
        yield engine
    finally:
        engine.close()


def _subjects(ground: Ground) -> tuple[Path | None, Path]:
    return (None, ground.adapter)


def _documents(conversations: Sequence[Sequence[Message]]) -> Iterator[tuple[int, tuple[str, str]]]:
    """One document for each assistant turn: all before it, header included, then the message and its end of turn."""
    from jinja2 import Template

    template = Template(TEMPLATE, keep_trailing_newline=True)
    for number, conversation in enumerate(conversations):
        for place, message in enumerate(conversation):
            if message.role == "assistant":
                before = template.render(messages=conversation[:place], add_generation_prompt=True)
                yield number, (before, f"{message.content}<|im_end|>")


def _instances(arguments: Sequence[tuple[str, ...]], kind: str = "loglikelihood") -> list[Instance]:
    return [Instance(kind, {}, one, 0) for one in arguments]


def _conversation_sums(ground: Ground, engine: VllmProcess, where: Path | None) -> list[float]:
    """Each conversation's log-likelihood in lm-eval's convention, from one request."""
    ours = Renderer(ground.base)
    scored = [ours.conversation(None, one, LM_EVAL_COMPAT) for one in ground.conversations]
    found = dict(engine.score([Prompt(one.ids, where) for one in scored]))
    return [_sum(one, found[index].logprobs) for index, one in enumerate(scored)]


def _sum(scored: Scored, logprobs: Sequence[float]) -> float:
    return math.fsum(value for value, counts in zip(logprobs, scored.mask[1:], strict=True) if counts)


def _write_data(folder: Path) -> None:
    """Questions with choices, of which an arbitrary one is right, and open questions answered by a letter."""
    which = [
        {"question": f"What is number {n}?", "choices": ["tent", "parcel box", f"{n} years"], "answer": n % 3}
        for n in range(40)
    ]
    letters = [{"question": f"{turn[0]} Number {n}", "answer": "aeios"[n % 5]} for n, turn in enumerate(TURNS * 10)]
    shown = [{"question": f"What is letter {n}?", "answer": "bc"[n]} for n in range(2)]
    for name, rows in (("which", which), ("open", letters), ("shown", shown)):
        (folder / f"{name}.json").write_text("".join(json.dumps(row) + "\n" for row in rows))
