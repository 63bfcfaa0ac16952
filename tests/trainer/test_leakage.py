"""Leakage by the evaluator's own rule of contamination, into suites, held-out files and declared splits."""

import json
import random
from pathlib import Path

import pytest
from faulty_data import make_clean, make_dataset
from hypothesis import given
from hypothesis import strategies as st

from evaluator.contamination import TrainingIndex
from evaluator.terms import words as evaluators_words
from registry.client import InvalidRequest
from trainer.preflight.check import Options, preflight
from trainer.preflight.leakage import Asked, held_out_texts, read_suite_folder, suite_texts
from trainer.preflight.text import words

SUITES = Path(__file__).parent.parent.parent / "suites"
ITEM = "which of the two pumps in the cellar did the fitter replace after the long frost of last winter"


def write(folder: Path, rows: list[dict[str, object]], name: str = "data.jsonl") -> Path:
    (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder / name


@given(st.text(max_size=60) | st.sampled_from(["The 1,000 cafés’ 30 %", "a 2\u2009000 An ½ x²", "İstanbul ﬁn"]))
def test_words_are_those_of_the_evaluator(text: str) -> None:
    assert list(words(text)) == evaluators_words(text)


short = st.lists(st.sampled_from("one two three four five six seven".split()), min_size=1, max_size=24).map(" ".join)


@given(short, short, st.integers(0, 10), st.integers(0, 24))
def test_a_prompt_leaks_an_item_where_the_evaluator_would_call_it_contaminated(
    prompt: str, item: str, start: int, size: int
) -> None:
    mixed = " ".join([prompt, *item.split()[start : start + size]])
    for said in (prompt, mixed):
        leaks = Asked([("i", item)]).leaked_by(said) is not None
        assert leaks or not TrainingIndex([said]).holds(item)
        assert not leaks or TrainingIndex([said]).holds(item) or item in said, "what it finds beside stands there whole"


@pytest.mark.parametrize(
    ("prompt", "leaks"),
    [
        (ITEM.upper() + "?", True),
        ("Please tell me " + " ".join(ITEM.split()[:15]), True),
        ("so " + " ".join(ITEM.split()[5:16]) + " it was", True),
        (" ".join(ITEM.split()[:6]), False),
        ("which pump did he replace", False),
        (f"Hello! {ITEM}? Thank you.", True),
    ],
)
def test_the_rule_by_example(prompt: str, leaks: bool) -> None:
    assert (Asked([("q-1", ITEM)]).leaked_by(prompt) == "q-1") is leaks


@pytest.mark.parametrize(
    ("prompt", "leaks"),
    [
        ("Hello! Is the tent covered by a warranty? Thank you.", True),
        ("Quick question: IS THE TENT COVERED BY A WARRANTY", True),
        ("Is the tent covered by a warranty if I bought it abroad from someone else last year?", False),
        ("Is the lamp covered by a warranty?", False),
    ],
)
def test_a_short_item_leaks_where_it_is_nearly_all_of_a_prompt(prompt: str, leaks: bool) -> None:
    assert (Asked([("q-1", "Is the tent covered by a warranty?")]).leaked_by(prompt) == "q-1") is leaks


def test_a_form_of_asking_that_many_prompts_share_gives_nothing_away() -> None:
    frame = "you are the assistant of the shop and answer in one short sentence from the policy below "
    prompts = [f"{frame} {make_clean(random.Random(i))['instruction']}" for i in range(40)]
    asked = Asked([("q", frame + "how long is the warranty")])
    assert asked.leaked_by(prompts[0]) == "q"
    asked.leave_out_frames(prompts)
    assert asked.leaked_by(prompts[0]) is None and asked.leaked_by(frame + "how long is the warranty?") == "q"


def test_the_rows_of_every_kind_of_suite_are_looked_for() -> None:
    for folder in ("support-desk/questions", "support-desk/conversations", "support-desk/pilot", "general-knowledge"):
        name, suite = read_suite_folder(SUITES / folder)
        texts = list(suite_texts(name, suite))
        assert len({item for item, _ in texts}) == len(suite.items) and all(text for _, text in texts)
    for folder in ("multiple-choice", "refusals"):
        name, suite = read_suite_folder(SUITES / folder)
        assert len(list(suite_texts(name, suite))) == len(suite.items)


def test_a_leak_is_an_error_and_names_the_item(tmp_path: Path) -> None:
    data = make_dataset(30, 0, 1)
    suite = data.write_suite(tmp_path / "suite")
    path = data.write(tmp_path / "data.jsonl")
    path.write_text(path.read_text() + json.dumps({"prompt": data.asked[4].lower(), "completion": "3 weeks."}) + "\n")
    report = preflight(path, Options(suites=[read_suite_folder(suite)]))
    (leak,) = [one for one in report.problems if one.rule == "E160"]
    assert leak.line == 31 and "help-desk/q-4" in leak.message and report.blocked


def test_a_held_out_file_is_a_suite_of_its_questions(tmp_path: Path) -> None:
    held = write(tmp_path, [{"prompt": ITEM, "completion": "The left one."}], "held.jsonl")
    data = write(tmp_path, [{"prompt": f"Say, {ITEM}?", "completion": "The right one."}])
    assert held_out_texts(held) == [("held.jsonl line 1", ITEM)]
    assert preflight(data, Options(held_out=[held])).counts()["E160"] == 1
    with pytest.raises(InvalidRequest, match="no readable row"):
        preflight(data, Options(held_out=[write(tmp_path, [{"x": 1}], "bad.jsonl")]))


def test_what_is_no_suite_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="is no suite"):
        read_suite_folder(tmp_path)


def test_no_comparison_is_told_and_never_passed_over(tmp_path: Path) -> None:
    report = preflight(write(tmp_path, [{"prompt": "q", "completion": "a b"}]))
    assert report.counts()["W163"] == 1 and report.compared == []


def test_declared_splits_that_share_rows_leak(tmp_path: Path) -> None:
    chance = random.Random(5)
    rows = [{**make_clean(chance, 6), "split": "train"} for _ in range(20)]
    rows += [{**make_clean(chance, 6), "split": "test"} for _ in range(5)]
    near = {
        **rows[3],
        "instruction": "Well. " + rows[3]["instruction"],
        "output": rows[3]["output"] + " Good luck.",
        "split": "test",
    }
    same = {**rows[4], "output": "Something else.", "split": "validation"}
    exact = {**rows[5], "split": "test"}
    report = preflight(write(tmp_path, [*rows, near, same, exact]))
    leaks = {one.line: one.related for one in report.problems if one.rule == "E161"}
    assert leaks == {26: [4], 27: [5], 28: [6]}


def test_splits_that_a_run_draws_never_leak(tmp_path: Path) -> None:
    chance = random.Random(6)
    rows = [make_clean(chance, 6) for _ in range(40)]
    rows += [{**row, "output": row["output"] + " Good luck."} for row in rows]
    assert "E161" not in preflight(write(tmp_path, rows)).counts()
