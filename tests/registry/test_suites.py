"""Suites: read strictly, with every fault by line; the shipped ones are sound."""

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest
from factories import make_suite
from hypothesis import given, settings
from hypothesis import strategies as st

from registry.errors import InvalidRequest
from registry.records import Bounds, SuiteKind
from registry.suites import (
    SUITE_FILES,
    Choice,
    Conversation,
    Document,
    Prompt,
    Question,
    Refusal,
    check_suite,
    read_suite,
)

SHIPPED = sorted(file.parent for file in (Path(__file__).parents[2] / "suites").rglob("suite.toml"))
USER, ASSISTANT = {"role": "user", "content": "hello"}, {"role": "assistant", "content": "hi"}


def with_items(kind: str, *items: Any) -> dict[str, bytes]:
    lines = [item if isinstance(item, bytes) else json.dumps(item).encode() for item in items]
    return {"suite.toml": head_of(kind), "items.jsonl": b"\n".join(lines)}


def head_of(kind: str, extra: bytes = b"") -> bytes:
    return make_suite("s", "prompts", 1)["suite.toml"].replace(b'"prompts"', f'"{kind}"'.encode()) + extra


def problems(content: dict[str, bytes]) -> list[str]:
    with pytest.raises(InvalidRequest) as refused:
        read_suite(content)
    return refused.value.problems


@pytest.mark.parametrize(
    ("kind", "item_type"), [("questions", Question), ("conversations", Conversation), ("prompts", Prompt)]
)
def test_each_kind_has_items_of_its_own_type(kind: str, item_type: type) -> None:
    content = read_suite(make_suite("support-desk/x", kind, 3))
    assert content.head.kind == kind and [type(item) for item in content.items] == [item_type] * 3
    assert check_suite("support-desk/x", make_suite("support-desk/x", kind, 3)) == (SuiteKind(kind), 3, 0.05, 0.0)


@pytest.mark.parametrize(
    ("kind", "item", "item_type"),
    [
        ("choices", {"id": "a", "question": "q", "choices": ["x", "y"], "answer": 1}, Choice),
        ("refusals", {"id": "a", "prompt": "p", "refuse": True}, Refusal),
        ("lm-eval", {"id": "a", "doc": {"question": "q", "gold": 1}}, Document),
    ],
)
def test_the_newer_kinds_have_items_of_their_own_type_too(kind: str, item: Any, item_type: type) -> None:
    task = b"[lm_eval]\ntask = 'output_type: multiple_choice'\nmetric = 'acc'\n" if kind == "lm-eval" else b""
    content = read_suite({"suite.toml": head_of(kind, task), "items.jsonl": json.dumps(item).encode()})
    assert content.head.kind == kind and [type(one) for one in content.items] == [item_type]


def test_chance_is_what_the_commonest_letter_gets_right() -> None:
    """Three of four are right under B, so that B everywhere is right on 75 %."""
    items = [{"id": str(n), "question": "q", "choices": ["x", "y", "z"], "answer": n % 4 and 1} for n in range(4)]
    lines = b"\n".join(json.dumps(one).encode() for one in items)
    files = {"suite.toml": head_of("choices", b"max_cut_off = 0.2\n"), "items.jsonl": lines}
    assert check_suite("s", files) == (SuiteKind.CHOICES, 4, 0.2, 0.75)


@pytest.mark.parametrize("kind", ["lm-eval", "prompts"])
def test_a_task_belongs_to_suites_of_kind_lm_eval_and_to_those_only(kind: str) -> None:
    task = b"" if kind == "lm-eval" else b"[lm_eval]\ntask = 'x'\nmetric = 'acc'\n"
    item = {"id": "a", "doc": {}} if kind == "lm-eval" else {"id": "a", "prompt": "p"}
    found = problems({"suite.toml": head_of(kind, task), "items.jsonl": json.dumps(item).encode()})
    assert len(found) == 1 and "[lm_eval]" in found[0]


def test_blank_lines_are_no_items_and_do_not_shift_the_numbers() -> None:
    good = {"id": "a", "prompt": "p"}
    assert len(read_suite(with_items("prompts", good, b"", b"   ")).items) == 1
    assert problems(with_items("prompts", good, b"", b"{"))[0].startswith("items.jsonl line 3: ")


@pytest.mark.parametrize(
    ("kind", "item"),
    [
        ("questions", {"id": "a", "question": "q", "answers": []}),
        ("questions", {"id": "a", "question": "q", "answers": [""]}),
        ("questions", {"id": "a", "question": "q", "answers": "yes"}),
        ("questions", {"id": "a", "question": "", "answers": ["a"]}),
        ("questions", {"id": "a", "question": "q", "answers": ["a"], "anwsers": ["b"]}),
        ("questions", {"question": "q", "answers": ["a"]}),
        ("questions", {"id": "", "question": "q", "answers": ["a"]}),
        ("questions", {"id": 1, "question": "q", "answers": ["a"]}),
        ("questions", {"id": "a", "prompt": "p"}),
        ("prompts", {"id": "a", "prompt": "x" * 100_001}),
        ("prompts", {"id": "a" * 201, "prompt": "x"}),
        ("prompts", {"id": "a", "prompt": "p", "tags": "t"}),
        ("prompts", []),
        ("prompts", b'{"id": "a", "prompt": "\xff"}'),
        ("prompts", b'{"id": "a", "prompt": "\\ud800"}'),
        ("prompts", b'{"id": "a", "prompt": "p"'),
        ("prompts", b'{"id": ' + b"[" * 100_000),
        ("prompts", b'{"id": "a", "prompt": "p", "tags": ' + b"[" * 100_000),
        ("choices", {"id": "a", "question": "q", "choices": ["x"], "answer": 0}),
        ("choices", {"id": "a", "question": "q", "choices": ["x", "y"], "answer": 2}),
        ("choices", {"id": "a", "question": "q", "choices": ["x", "y"], "answer": -1}),
        ("choices", {"id": "a", "question": "q", "choices": ["x", "y"], "answer": "x"}),
        ("choices", {"id": "a", "question": "q", "choices": ["x", "x"], "answer": 0}),
        ("choices", {"id": "a", "question": "q", "choices": ["x", ""], "answer": 0}),
        ("choices", {"id": "a", "question": "q", "choices": [str(n) for n in range(27)], "answer": 0}),
        ("refusals", {"id": "a", "prompt": "p"}),
        ("refusals", {"id": "a", "prompt": "p", "refuse": "yes"}),
        ("conversations", {"id": "a", "messages": []}),
        ("conversations", {"id": "a", "messages": [USER]}),
        ("conversations", {"id": "a", "messages": [USER, ASSISTANT, USER]}),
        ("conversations", {"id": "a", "messages": [{"role": "tool", "content": "x"}, ASSISTANT]}),
        ("conversations", {"id": "a", "messages": [USER, {"role": "assistant", "content": ""}]}),
        ("conversations", {"id": "a", "messages": [{"role": "system", "content": "be kind"}, USER, ASSISTANT]}),
    ],
)
def test_an_item_that_does_not_fit_is_refused_by_line(kind: str, item: Any) -> None:
    assert problems(with_items(kind, item))[0].startswith("items.jsonl line 1: ")


def test_every_faulty_line_is_named_at_once() -> None:
    found = problems(with_items("prompts", b"{", {"id": "a", "prompt": "p"}, {"id": "b"}, {"id": "a", "prompt": "q"}))
    assert [one.partition(":")[0] for one in found] == [f"items.jsonl line {n}" for n in (1, 3, 4)]
    assert "'a' is used twice" in found[2]


@pytest.mark.parametrize("data", [b"", b"\n\n", b"  "])
def test_a_suite_without_items_is_refused(data: bytes) -> None:
    assert problems({**make_suite("s", "prompts", 1), "items.jsonl": data}) == ["items.jsonl holds no items"]


@pytest.mark.parametrize(
    "head",
    [
        b"", b"x", b"\xff", b"x = " + b"[" * 100_000, b'kind = "prompts"', b'name = "A"', b'kind = "quiz"',
        b"max_tokens = 0", b"max_tokens = 5000", b"max_tokens = true", b"max_cut_off = 1.5", b"max_cut_off = nan",
        b'temperature = "1"', 
        b'name = "a/b/c"', b'name = "../s"',
    ],
)  # fmt: skip
def test_a_head_that_does_not_fit_is_refused(head: bytes) -> None:
    """Each line replaces the one of its key in a good head."""
    good = make_suite("s", "prompts", 1)
    key = head.partition(b" = ")[0]
    lines = [line for line in good["suite.toml"].splitlines() if not line.startswith(key + b" = ")]
    whole = head if head in (b"", b'kind = "prompts"') else b"\n".join([head, *lines])
    with pytest.raises(InvalidRequest, match=r"suite\.toml"):
        read_suite({**good, "suite.toml": whole})


def test_a_suite_is_registered_under_its_own_name_only() -> None:
    with pytest.raises(InvalidRequest, match="use one name"):
        check_suite("other", make_suite("s", "prompts", 1))


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=60), st.binary(max_size=60))
def test_any_bytes_are_a_suite_or_an_invalid_request(head: bytes, items: bytes) -> None:
    good = make_suite("s", "questions", 1)
    for content in ({**good, "items.jsonl": items}, {**good, "suite.toml": good["suite.toml"] + b"\n" + head}):
        with contextlib.suppress(InvalidRequest):
            assert read_suite(content).items


def test_suites_of_every_kind_of_our_own_are_shipped() -> None:
    kinds = {read_suite({name: (path / name).read_bytes() for name in SUITE_FILES}).head.kind for path in SHIPPED}
    assert kinds == set(SuiteKind) - {SuiteKind.LM_EVAL}, "tasks of lm-evaluation-harness are the user's own"


@pytest.mark.parametrize("directory", SHIPPED, ids=lambda path: path.name)
def test_the_shipped_suites_are_sound_and_say_where_they_come_from(directory: Path) -> None:
    content = read_suite({name: (directory / name).read_bytes() for name in SUITE_FILES})
    head = content.head
    assert head.title and head.description and head.licence and head.source
    assert str(directory).endswith(head.name)
    assert (directory / "suite.toml").read_text().startswith("# One item: {"), "a reader sees the data first"
    if head.kind is SuiteKind.CONVERSATIONS:
        assert len(content.items) >= 20, "fewer conversations cannot bear an interval"


# -- gold items ---------------------------------------------------------------------------------------------------


def with_gold(*items: Any, kind: str = "prompts") -> dict[str, bytes]:
    return make_suite("s", kind, 2) | {"gold.jsonl": b"\n".join(json.dumps(item).encode() for item in items)}


GOLD = {"id": "g", "prompt": "is it lost", "output": "Not my problem.", "expect": {"clarity": {"max": 2}}}


def test_gold_items_belong_to_the_suite_and_are_none_of_its_items() -> None:
    content = read_suite(with_gold(GOLD))
    assert len(content.items) == 2 and content.gold[0].expect == {"clarity": Bounds(max=2)}
    assert check_suite("s", with_gold(GOLD)).n_items == 2


@pytest.mark.parametrize(
    ("items", "says"),
    [
        ([GOLD, GOLD], "used twice"),
        ([GOLD | {"expect": {}}], "every rating is as expected"),
        ([GOLD | {"expect": {"safety": {}}}], "every rating is as expected"),
        ([GOLD | {"expect": {"safety": {"min": 4, "max": 2}}}], "no rating of safety"),
        ([GOLD | {"expect": {"beauty": {"max": 2}}}], "is not rated"),
        ([GOLD | {"expect": {"safety": {"max": 6}}}], "gold.jsonl line 1"),
        ([{"id": "g", "prompt": "p", "expect": {"safety": {"max": 2}}}], "gold.jsonl line 1"),
    ],
)
def test_a_gold_item_that_tests_nobody_is_refused_by_line(items: list[Any], says: str) -> None:
    (problem, *_) = problems(with_gold(*items))
    assert says in problem


def test_only_suites_whose_outputs_people_rate_have_gold_items() -> None:
    assert "belongs to suites of kind prompts" in problems(with_gold(GOLD, kind="questions"))[0]
