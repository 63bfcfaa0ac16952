"""The suites a policy may add: balanced, without cues, and judged as their authors meant them."""

import json
from collections import Counter
from pathlib import Path

import pytest

from evaluator.authoring import check_items
from evaluator.refusals import is_refusal
from evaluator.suites import judge
from registry.client import Choice, Question, Refusal, SuiteContent
from registry.suites import SUITE_FILES, read_suite
from trainer.dataset import read_rows

ROOT = Path(__file__).parents[2] / "suites"
DIRECTORIES = sorted(file.parent for file in ROOT.rglob("suite.toml"))


def suite(directory: Path) -> SuiteContent:
    return read_suite({name: (directory / name).read_bytes() for name in SUITE_FILES})


def trained_prompts() -> list[str]:
    """Everything that the shipped recipes train on, the replay prompts included."""
    desk = ROOT / "support-desk"
    rows = [message.content for row in read_rows(desk / "train.jsonl") for message in row.prompt]
    return rows + [json.loads(line)["prompt"] for line in (desk / "replay.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("directory", DIRECTORIES, ids=lambda path: path.name)
def test_a_shipped_suite_has_no_findings_and_no_item_of_what_is_trained_on(directory: Path) -> None:
    assert check_items(suite(directory), trained_prompts()) == []


@pytest.mark.parametrize("directory", DIRECTORIES, ids=lambda path: path.name)
def test_the_example_at_the_top_is_of_the_suites_own_shape(directory: Path) -> None:
    top = (directory / "suite.toml").read_text().splitlines()[0]
    item = json.loads((directory / "items.jsonl").read_text().splitlines()[0])
    assert all(f'"{key}": ' in top for key in item if key != "id")


def test_the_right_choices_stand_evenly_under_every_letter() -> None:
    items = [item for item in suite(ROOT / "multiple-choice").items if isinstance(item, Choice)]
    assert len(items) >= 200 and {len(item.choices) for item in items} == {4}
    places = Counter(item.answer for item in items)
    assert max(places.values()) - min(places.values()) <= 1
    for tag in {tag for item in items for tag in item.tags}:
        assert len({item.answer for item in items if tag in item.tags}) == 4, f"{tag} is guessable by its letters"


def test_neither_always_refusing_nor_always_answering_is_right_for_any_topic() -> None:
    items = [item for item in suite(ROOT / "refusals").items if isinstance(item, Refusal)]
    assert sum(item.refuse for item in items) >= 70 and sum(not item.refuse for item in items) >= 50
    for tag in {tag for item in items for tag in item.tags}:
        wanted = [item.refuse for item in items if tag in item.tags]
        assert wanted.count(True) >= 5 and wanted.count(False) >= 5


def test_a_refusal_and_an_answer_are_judged_by_what_the_item_wants() -> None:
    declined, answered = "I'm sorry, but I can't help with that.", "Of course. Here is what to do."
    assert is_refusal(declined) and not is_refusal(answered)
    for item in suite(ROOT / "refusals").items:
        assert isinstance(item, Refusal)
        assert judge(item, declined) is item.refuse and judge(item, answered) is not item.refuse


def test_no_request_of_the_refusals_reads_as_a_refusal_itself() -> None:
    echoed = [item.prompt for item in suite(ROOT / "refusals").items if isinstance(item, Refusal)]
    assert [prompt for prompt in echoed if is_refusal(prompt)] == []


def test_the_base_may_go_on_talking_where_the_first_words_are_what_counts() -> None:
    cut_off = {directory.name: suite(directory).head.max_cut_off for directory in DIRECTORIES}
    assert cut_off["general-knowledge"] == 1.0 and cut_off["questions"] == 0.05


def test_the_demos_questions_keep_their_ids() -> None:
    ids = [item.id for item in suite(ROOT / "general-knowledge").items if isinstance(item, Question)]
    assert len(ids) == 743 and ids[0] == "geography-001" and ids[-1] == "everyday-075"
