"""Every kind of suite through the whole worker: extra suites, what stands beside the answers, what is refused early."""

import importlib.util
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from factories import make_adapter, make_config, make_suite, make_tensors, make_weights
from fake_engine import ByteRenderer, FakeEngine
from fake_server import running_server
from site_under_test import SMALL_REVIEW, Site
from worker_lab import SILENT, Lab, believe_numbers, knows

from evaluator import desk as desks
from evaluator import worker
from evaluator.engine import Unfit
from registry.records import Canary, ExtraRule, ItemRow, Policy, State, Status, Verdict

pytestmark = pytest.mark.slow

TASK = """
task: capitals
output_type: multiple_choice
doc_to_text: "Capital of {{country}}:"
doc_to_choice: "{{[capital, 'Berlin', 'Cairo']}}"
doc_to_target: 0
metric_list: [{metric: acc}]
"""


@pytest.fixture
def lab(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lab:
    monkeypatch.setattr(desks, "Renderer", ByteRenderer)
    return Lab(site, tmp_path / "lab")


def with_extra(*rules: ExtraRule) -> Policy:
    return msgspec.structs.replace(SMALL_REVIEW, extra=list(rules))


def rows_of(lab: Lab, ref: str, suite: str) -> dict[tuple[str, str], ItemRow]:
    return {(row.item, row.subject): row for row in lab.rows(ref) if row.suite == suite}


def choices(n: int) -> list[dict[str, Any]]:
    return [
        {"id": f"m{i}", "question": f"Pick number {i}", "choices": ["w", "x", "y", "z"], "answer": i % 4, "tags": ["t"]}
        for i in range(n)
    ]


def refusals(n: int) -> list[dict[str, Any]]:
    return [{"id": f"r{i}", "prompt": f"Please do {i}", "refuse": i % 2 == 0, "tags": ["t"]} for i in range(n)]


def says(question: str, adapted: bool) -> str:
    """Picks the right letter, B where adapted; refuses what is even, everything where adapted."""
    number = int("".join(filter(str.isdigit, question)) or 0)
    if question.startswith("Pick"):
        return "B" if adapted else "ABCD"[number % 4]
    if question.startswith("Please do"):
        return "I'm sorry, but I can't help with that." if adapted or number % 2 == 0 else "Gladly.\nHere it is."
    return knows(question, adapted)


# -- extra suites -------------------------------------------------------------------------------------------------


def test_choices_are_compared_with_the_base_by_the_likeliest_letter(lab: Lab) -> None:
    lab.knows = says
    suite = lab.register("extra/choices", "choices", choices(40))
    lab.create("bot", with_extra(ExtraRule(suite=suite, min=0.9, margin=0.05)))
    ref = lab.submit(adapter="bot")
    assert lab.work(lab.desk()).state == "done"
    rows = rows_of(lab, ref, suite)
    assert len(rows) == 80 and {row.output for row in rows.values()} == set("ABCD")
    assert all(row.correct for (_, subject), row in rows.items() if subject == "base")
    assert {item for (item, subject), row in rows.items() if subject == "candidate" and row.correct} == {
        f"m{i}" for i in range(40) if i % 4 == 1
    }
    assert lab.check(ref, "accuracy:extra/choices").status == Status.FAIL
    assert lab.check(ref, "forgetting:extra/choices").status == Status.FAIL


def test_refusals_are_right_where_they_are_due_and_wrong_where_not(lab: Lab) -> None:
    lab.knows = says
    suite = lab.register("extra/refusals", "refusals", refusals(40))
    lab.create("bot", with_extra(ExtraRule(suite=suite, min=0.8)))
    ref = lab.submit(adapter="bot")
    lab.work(lab.desk())
    rows = rows_of(lab, ref, suite)
    assert {subject for _, subject in rows} == {"candidate"}, "without a margin the base is not asked"
    assert {item for (item, _), row in rows.items() if row.correct} == {f"r{i}" for i in range(0, 40, 2)}
    assert lab.check(ref, "accuracy:extra/refusals").status == Status.FAIL


def make_byte_tokenizer(folder: Path) -> None:
    """A tokenizer whose ids are the bytes of a text, as those of ByteRenderer."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    tokenizer = Tokenizer(models.BPE(vocab={sign: byte for byte, sign in bytes_to_unicode().items()}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.save(str(folder / "tokenizer.json"))
    described = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": bytes_to_unicode()[255]}
    (folder / "tokenizer_config.json").write_text(json.dumps(described))


@pytest.mark.stack
def test_documents_of_a_harness_task_are_judged_by_the_task(lab: Lab) -> None:
    make_byte_tokenizer(lab.base)
    capitals = [("Norway", "Oslo"), ("Italy", "Rome"), ("Greece", "Athens"), ("Peru", "Lima")] * 6
    docs = [{"id": f"d{i}", "doc": {"country": c, "capital": k}, "tags": []} for i, (c, k) in enumerate(capitals)]
    task = json.dumps(TASK)
    suite = lab.register("extra/capitals", "lm-eval", docs, lm_eval=f"{{task = {task}, metric = 'acc'}}")
    lab.create("bot", with_extra(ExtraRule(suite=suite, min=0.1, margin=0.2)))
    ref = lab.submit(adapter="bot")
    assert lab.work(lab.desk()).state == "done", lab.said
    rows = rows_of(lab, ref, suite)
    assert len(rows) == 48 and all(row.correct is not None and row.output for row in rows.values())
    right = [sum(row.correct or False for (_, who), row in rows.items() if who == one) for one in ("base", "candidate")]
    evidence = lab.evidence(ref)
    assert evidence is not None
    [extra] = evidence.extra
    assert extra.suite == suite and (extra.accuracy.n, extra.accuracy.correct) == (24, right[1])
    assert extra.forgetting is not None and extra.forgetting.n == 24
    assert extra.forgetting.lost - extra.forgetting.gained == right[0] - right[1]
    assert (lab.check(ref, "accuracy:extra/capitals").status, right[1]) == (Status.PASS, 18)
    assert lab.check(ref, "forgetting:extra/capitals").status == Status.PASS
    engine = lab.engines[0]
    asked = dict(engine.asked)
    lab.submit(fill=2, adapter="bot")
    desk = lab.desk()
    lab.work(desk)
    assert lab.engines[-1].asked["base"] < asked["base"] / 10, "the base's documents are kept"


def test_a_harness_task_without_the_harness_is_refused_with_what_to_install(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "lm_eval" else find(name))
    docs = [{"id": f"d{i}", "doc": {"country": f"c{i}", "capital": "x"}, "tags": []} for i in range(20)]
    suite = lab.register("extra/capitals", "lm-eval", docs, lm_eval=f"{{task = {json.dumps(TASK)}, metric = 'acc'}}")
    lab.create("bot", with_extra(ExtraRule(suite=suite, min=0.1)))
    lab.submit(adapter="bot")
    job = lab.claim()
    with pytest.raises(Unfit, match="not installed here"):
        lab.work(lab.desk(), job)
    stored = lab.site.registry.view().job(job.id)
    assert stored is not None and stored.state == "queued", "a worker that has it can do the job"
    assert "install tunegate[lm-eval]" in str(stored.reason) and lab.engines == []


# -- beside the answers -------------------------------------------------------------------------------------------


def test_gold_and_kl_stand_in_the_rows_of_the_forgetting_suite_and_only_there(lab: Lab) -> None:
    ref = lab.submit()
    lab.work(lab.desk())
    evidence = lab.evidence(ref)
    assert evidence is not None and evidence.forgetting is not None
    gold, kl = evidence.forgetting.gold, evidence.forgetting.kl
    assert gold is not None and kl is not None and (gold.clusters, kl.clusters) == (200, 48)
    # The fake adapter raises every log-probability by one amount: candidate minus base is that, token by token.
    shift = lab.engines[0]._shift(next((lab.place.cache / "adapters").iterdir()))
    assert gold.x / gold.n == pytest.approx(-shift) and kl.x / kl.n == pytest.approx(-shift)
    rows = lab.rows(ref)
    assert {row.suite for row in rows if row.gold_tokens or row.kl_tokens} == {evidence.forgetting.suite}
    assert all(row.kl_nats is None for row in rows if row.subject == "base")


def test_rows_carry_tags_bytes_and_the_mask_they_were_scored_with(lab: Lab) -> None:
    ref = lab.submit()
    lab.work(lab.desk())
    evidence = lab.evidence(ref)
    assert evidence is not None and evidence.perplexity is not None and evidence.perplexity.mask is not None
    rows = lab.rows(ref)
    assert {tuple(row.tags) for row in rows} == {("t",)}
    scored = [row for row in rows if row.nll_nats is not None]
    assert {row.n_bytes for row in scored} == {len(f"reply {i}") for i in range(100)}
    assert evidence.perplexity.candidate_bytes is not None
    assert evidence.perplexity.candidate_bytes.n == sum(len(f"reply {i}") for i in range(100))


def test_shuffled_lines_of_a_suite_change_no_row(lab: Lab) -> None:
    """Another order is another suite by digest; what is measured of an item is the same."""
    ordered = lab.submit()
    lab.work(lab.desk())
    name = SMALL_REVIEW.accuracy.suite
    items = [json.loads(line) for line in make_suite(name, "questions", 200)["items.jsonl"].splitlines()]
    shuffled = lab.register(name, "questions", items[::-1])
    lab.create("shuffled", msgspec.structs.replace(SMALL_REVIEW))
    ref = lab.submit(adapter="shuffled")
    lab.work(lab.desk())

    def rows(ref: str) -> list[ItemRow]:
        return [msgspec.structs.replace(row, suite="") for row in lab.rows(ref) if row.suite.partition("@")[0] == name]

    assert rows_of(lab, ref, shuffled) and rows(ref) == rows(ordered)
    before, after = lab.evidence(ordered), lab.evidence(ref)
    assert before is not None and after is not None and before.accuracy is not None and after.accuracy is not None
    assert before.accuracy.suite != after.accuracy.suite
    assert msgspec.structs.replace(before.accuracy, suite="") == msgspec.structs.replace(after.accuracy, suite="")


# -- answers that were cut off ------------------------------------------------------------------------------------


def cut(lab: Lab, ref: str) -> Canary:
    evidence = lab.evidence(ref)
    assert evidence is not None
    return next(canary for canary in evidence.canaries if canary.name == "finish_by_length")


def test_too_many_answers_that_were_cut_off_are_not_believed(lab: Lab) -> None:
    """Every tenth pilot answer goes on for longer than the suite lets it."""

    def chatters(question: str, adapted: bool) -> str:
        long = adapted and question.startswith("please") and question.endswith("0")
        return "and so on " * 20 if long else knows(question, adapted)

    lab.knows = chatters
    ref = lab.submit()
    lab.work(lab.desk())
    canary = cut(lab, ref)
    assert not canary.passed and (canary.observed, canary.limit) == (0.1, 0.05)
    assert "6 of 60 answers to support-desk/pilot" in canary.detail
    assert lab.site.client("admin").gate(ref).verdict is not Verdict.GO


def test_what_the_suite_allows_to_be_cut_off_passes(lab: Lab) -> None:
    ref = lab.submit()
    lab.work(lab.desk())
    assert cut(lab, ref).passed and cut(lab, ref).observed == 0.0


# -- refused before any engine gets its settings --------------------------------------------------------------------


def trained_on(base: dict[str, list[int]]) -> dict[str, bytes]:
    """An adapter for a base with these tensors."""
    weights = make_weights(make_tensors(8, base))
    return {"adapter_config.json": make_config(), "adapter_model.safetensors": weights}


@pytest.mark.parametrize(
    ("files", "told"),
    [
        (make_adapter(fill=255), "NaN or infinity"),
        (
            {
                "adapter_config.json": make_config(),
                "adapter_model.safetensors": make_weights(
                    make_tensors(8, {"model.layers.0.self_attn.q_proj.weight": [8, 24]})
                ),
            },
            "trained on another base",
        ),
        (
            {
                "adapter_config.json": make_config(),
                "adapter_model.safetensors": make_weights(
                    make_tensors(8, {"model.layers.7.self_attn.q_proj.weight": [8, 16]})
                ),
            },
            "is not there",
        ),
    ],
    ids=["numbers that are none", "another width", "another depth"],
)
def test_an_adapter_that_cannot_be_right_is_refused_before_an_engine_starts(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, files: dict[str, bytes], told: str
) -> None:
    believe_numbers(monkeypatch)
    lab.create("bot", tensors=None)
    lab.submit(files=files, adapter="bot")
    stored = lab.work(lab.desk())
    assert stored.state == "failed" and stored.attempts == 1 and told in str(stored.reason)
    assert lab.engines == []


def test_an_item_longer_than_the_context_is_refused_with_its_suite_and_id(lab: Lab) -> None:
    items = [
        {"id": f"q{i}", "question": "x" * (2000 if i == 7 else 10), "answers": ["y"], "tags": []} for i in range(20)
    ]
    suite = lab.register("extra/long", "questions", items)
    lab.create("bot", with_extra(ExtraRule(suite=suite, min=0.5)))
    lab.submit(adapter="bot")
    stored = lab.work(lab.desk())
    assert stored.state == "failed" and lab.engines == []
    assert "suite extra/long: 1 items do not fit into 1024 tokens, first 'q7'" in str(stored.reason)


def test_an_engine_is_prepared_when_a_job_is_claimed_and_dropped_when_none_is_needed(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk, seen = lab.desk(), []
    launches: Any = desk._launcher
    evaluate = worker.evaluate
    monkeypatch.setattr(worker, "Desk", lambda place, launcher: desk)
    monkeypatch.setattr(worker, "evaluate", lambda shift, jobs: seen.append(launches.prepared) or evaluate(shift, jobs))
    believe_numbers(monkeypatch)
    lab.submit(files=make_adapter(fill=255))
    worker.work(lab.site.client("evaluator"), lab.place, SILENT, once=True)
    assert seen == [1] and lab.engines == [] and launches.prepared == 0
    lab.submit()
    worker.work(lab.site.client("evaluator"), lab.place, SILENT, once=True)
    assert seen == [1, 1] and len(lab.engines) == 1


# -- measured by a server -------------------------------------------------------------------------------------------


def test_a_worker_measures_with_a_running_server_what_it_measures_itself(lab: Lab) -> None:
    ref = lab.submit()
    with running_server(lab.base, FakeEngine(knows=lab.knows)) as server:
        assert worker.work(lab.site.client("evaluator"), lab.place, SILENT, once=True, server=server.address) == 1
    assert lab.state(ref) is State.IN_REVIEW
    lab.create("own")
    own = lab.submit(adapter="own")
    lab.work(lab.desk())
    assert lab.rows(ref) == lab.rows(own)
