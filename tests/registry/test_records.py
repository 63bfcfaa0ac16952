"""The vocabulary: what is public, what a request may not hold, what an answer may, and the identity of files."""

import ast
import importlib
import inspect
import itertools
import pkgutil
from types import ModuleType
from typing import Any

import msgspec
import pytest
from factories import (
    BASE,
    SEALED,
    entry_of,
    make_accuracy,
    make_evidence,
    make_policy,
    make_ratings,
    make_subject,
    make_training,
)

from registry import client, records
from registry.gate.decision import decide
from registry.records import (
    Base,
    CreateToken,
    Evidence,
    FileEntry,
    Policy,
    Rating,
    Record,
    Request,
    Rollback,
    SubmitVersion,
    Verdict,
    VersionCreated,
    evidence_digest,
    manifest_digest,
)

STRUCTS = [
    one
    for _, one in inspect.getmembers(records, inspect.isclass)
    if issubclass(one, msgspec.Struct) and one.__module__.startswith(records.__name__)
]
HEX = "0" * 64
FILE = {"path": "a", "size": 1, "sha256": HEX}


def public_names(module: ModuleType) -> set[str]:
    """Classes, functions and values defined at the top of a module, without underscore and without type variables."""
    names = set()
    for node in ast.parse(inspect.getsource(module)).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign):
            names |= {target.id for target in node.targets if isinstance(target, ast.Name)}
    return {name for name in names if not name.startswith("_") and name != "T"}


def test_records_exports_what_it_defines_and_nothing_it_imports() -> None:
    rooms = [importlib.import_module(f"registry.records.{one.name}") for one in pkgutil.iter_modules(records.__path__)]
    assert set(records.__all__) == set().union(*(public_names(room) for room in rooms))


def test_client_exports_what_it_defines_and_what_workers_need_from_below() -> None:
    """Trainer and evaluator may import registry.client and registry.records only."""
    own = set("AsyncClient Client Refused Unreachable describe_file".split())
    below = set("Choice Conversation Document InvalidRequest Item LmEvalTask Message Prompt Question Refusal".split())
    below |= {"Sections", "SuiteContent", "REVIEW_FIELDS"}
    functions_below = set("accuracy_is_lost describe_base digest_of forgetting_is_lost read_suite summarise".split())
    functions_below |= {"is_after", "moment", "void_review"}
    assert set(client.__all__) == own | below | functions_below


@pytest.mark.parametrize("module", [records, client])
def test_exports_are_listed_once_in_order_and_exist(module: ModuleType) -> None:
    names: list[str] = module.__all__

    def order(name: str) -> tuple[int, str]:
        return (0 if name.isupper() else 1 if name[0].isupper() else 2, name)

    assert names == sorted(set(names), key=order)
    assert all(hasattr(module, name) for name in names)


@pytest.mark.parametrize("one", STRUCTS)
def test_every_record_is_frozen(one: type[msgspec.Struct]) -> None:
    assert one.__struct_config__.frozen


@pytest.mark.parametrize("one", [one for one in STRUCTS if issubclass(one, Request)])
def test_a_request_refuses_a_field_that_it_does_not_know(one: type[Request]) -> None:
    assert one.__struct_config__.forbid_unknown_fields
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"mispelt": 1}, one)


@pytest.mark.parametrize("one", [one for one in STRUCTS if issubclass(one, Record)])
def test_an_answer_tolerates_a_field_that_it_does_not_know(one: type[Record]) -> None:
    """So that an old reader survives a new writer."""
    assert not one.__struct_config__.forbid_unknown_fields


def test_a_misspelt_field_names_itself_at_any_depth() -> None:
    with pytest.raises(msgspec.ValidationError, match="minn"):
        msgspec.convert({"accuracy": {"minn": 0.9}}, Policy)


@pytest.mark.parametrize("value", [make_evidence(), make_policy(), make_training(), BASE, entry_of("a", b"x")])
def test_a_record_survives_the_wire(value: msgspec.Struct) -> None:
    assert msgspec.json.decode(msgspec.json.encode(value), type=type(value)) == value


@pytest.mark.parametrize(
    ("one", "good", "changes"),
    [
        (FileEntry, FILE, {"size": [-1, 1.0, "1", True, None, 2**53 + 1], "path": ["", "x" * 256, 1]}),
        (FileEntry, FILE, {"sha256": ["", HEX[1:], HEX + "0", HEX.replace("0", "A"), HEX + "\n", "sha256:" + HEX]}),
        (Base, {"id": "b", "digest": "sha256:" + HEX}, {"digest": [HEX, "sha256:", f"sha256:{HEX}\n"], "id": [""]}),
        (
            Rating,
            {"clarity": 1, "relevance": 5, "safety": 3, "accuracy": 4, "hallucination": False},
            {"clarity": [0, 6, 4.5, "5", True, None], "hallucination": [0, 1, "no", None], "comment": ["x" * 4001]},
        ),
        (
            CreateToken,
            {"role": "ci", "person": "ada"},
            {
                "role": ["root", "", "CI", None],
                "person": ["", "x" * 201, "a\nb", "a\0", "a\x7f", "ada\n"],
                "expires_days": [0, -1, 3651, 1.5, True],
            },
        ),
        (Rollback, {"to": 1, "reason": "worse"}, {"to": [0, -1, "1", 1.0, True], "reason": ["", "x" * 4001, None]}),
        (SubmitVersion, {"files": [FILE]}, {"files": [[], [FILE] * 17, FILE, None], "notes": ["x" * 4001]}),
    ],
)  # fmt: skip
def test_a_field_takes_its_own_type_and_range_only(
    one: type[msgspec.Struct], good: dict[str, Any], changes: dict[str, list[Any]]
) -> None:
    msgspec.convert(good, one)
    for key, values in changes.items():
        for value in values:
            with pytest.raises(msgspec.ValidationError):
                msgspec.convert({**good, key: value}, one)


def test_evidence_needs_its_canaries_its_engine_and_what_it_is_about() -> None:
    document: dict[str, Any] = msgspec.to_builtins(make_evidence())
    for key in ("manifest", "policy", "engine", "canaries", "rows", "seconds"):
        with pytest.raises(msgspec.ValidationError, match=key):
            msgspec.convert({name: value for name, value in document.items() if name != key}, Evidence)


# What evidence and policies did not have before extra suites, slices and stopping early.
LATER: dict[str, tuple[str, ...]] = {
    "": ("extra",),
    "perplexity": ("mask", "candidate_bytes", "base_bytes"),
    "accuracy": ("slices",),
    "forgetting": (
        "clean", "gold", "kl", "slices", "lost_items", "gained_items", "shared_words", "open_gains",
        "cut_off", "base_cut_off",
    ),
    "outputs": ("cut_off",),
}  # fmt: skip


def test_evidence_of_an_older_journal_is_read_and_judged() -> None:
    """A version that was approved by it can still be gone back to, though it does not say what ended how."""
    now: dict[str, Any] = msgspec.to_builtins(make_evidence())
    for section, names in LATER.items():
        part = now[section] if section else now
        for name in names:
            del part[name]
    old = msgspec.json.decode(msgspec.json.encode(now), type=Evidence)
    assert old == make_evidence()
    old = msgspec.structs.replace(
        old, canaries=[canary for canary in old.canaries if canary.name != "finish_by_length"]
    )
    report = decide(make_subject(), old, make_ratings(), SEALED)
    assert report.verdict is Verdict.GO


def test_the_evidence_digest_leaves_out_the_time_and_nothing_else() -> None:
    evidence = make_evidence()
    assert evidence_digest(msgspec.structs.replace(evidence, seconds=77.0)) == evidence_digest(evidence)
    changes: dict[str, Any] = {
        "manifest": "sha256:" + "9" * 64,
        "policy": "sha256:" + "9" * 64,
        "engine": msgspec.structs.replace(evidence.engine, dtype="float32"),
        "canaries": [],
        "rows": "9" * 64,
        "perplexity": None,
        "accuracy": None,
        "forgetting": None,
        "outputs": None,
        "contamination": None,
        "extra": [records.ExtraEvidence(suite="s", accuracy=make_accuracy())],
    }
    assert {*changes, "seconds"} == set(Evidence.__struct_fields__)
    others = {evidence_digest(msgspec.structs.replace(evidence, **{key: value})) for key, value in changes.items()}
    assert len(others | {evidence_digest(evidence)}) == len(changes) + 1


def test_a_secret_that_is_not_told_is_not_on_the_wire() -> None:
    token = {"id": "t", "role": "ci", "person": "ada", "scope": None, "created_at": "x", "expires_at": "y"}
    answer = msgspec.convert({"token": token}, records.TokenCreated)
    assert b"secret" not in msgspec.json.encode(answer)


def test_the_manifest_digest_does_not_depend_on_the_order_of_the_files() -> None:
    files = [entry_of(name, name.encode()) for name in "abc"]
    assert len({manifest_digest(list(order), BASE) for order in itertools.permutations(files)}) == 1


def test_the_manifest_digest_is_sha256_over_the_documented_json() -> None:
    """The contract's `{files: [{path, size, sha256}], base: {...}}`, which anyone can compute."""
    import hashlib

    text = f'{{"base":{{"digest":"{BASE.digest}","id":"tiny"}},"files":[{{"path":"a","sha256":"{HEX}","size":1}}]}}'
    expected = "sha256:" + hashlib.sha256(text.encode()).hexdigest()
    assert manifest_digest([FileEntry(path="a", size=1, sha256=HEX)], BASE) == expected


def test_the_manifest_digest_depends_on_every_part() -> None:
    files = [entry_of("a", b"1"), entry_of("b", b"2")]
    others = [
        manifest_digest(files),
        manifest_digest(files, BASE),
        manifest_digest(files[:1], BASE),
        manifest_digest([entry_of("a", b"2"), entry_of("b", b"1")], BASE),
        manifest_digest([entry_of("a", b"1"), entry_of("c", b"2")], BASE),
        manifest_digest([msgspec.structs.replace(files[0], size=2), files[1]], BASE),
        manifest_digest(files, msgspec.structs.replace(BASE, digest="sha256:" + "2" * 64)),
        manifest_digest(files, msgspec.structs.replace(BASE, id="other")),
        manifest_digest(files, msgspec.structs.replace(BASE, revision="main")),
    ]
    assert len(set(others)) == len(others)


def test_states_and_verdicts_are_those_of_the_contract() -> None:
    assert " ".join(records.State) == (
        "uploading submitted evaluating rejected inconclusive in_review approvable approved superseded revoked"
    )
    assert " ".join(records.Verdict) == "go no_go inconclusive pending"
    assert " ".join(records.Status) == "pass fail inconclusive invalid pending"
    assert " ".join(records.Role) == "admin ci trainer evaluator reviewer release-manager consumer auditor"
    fields = VersionCreated.__struct_fields__
    assert fields == ("ref", "number", "digest", "state", "missing")
