"""Near duplicates against the plain computation, their clusters in the split, contradictions."""

import random
from itertools import combinations
from pathlib import Path

import pytest
from faulty_data import make_clean
from hypothesis import given
from hypothesis import strategies as st

from registry.client import Message
from trainer.dataset import prepare
from trainer.preflight.duplicates import check_contradictions, check_near, clusters_of, near_pairs, repeating
from trainer.preflight.minhash import NEAR
from trainer.preflight.reading import Row, Split
from trainer.preflight.restated import sayings
from trainer.preflight.text import grams, words


def make_row(line: int, question: str, answer: str, group: str = "", split: Split | None = None) -> Row:
    prompt = (Message(role="user", content=question),)
    return Row(f"r{line}", line, prompt, answer, group or f"g{line}", f"{question}\0{answer}", line, split)


def jaccard(one: Row, other: Row) -> float:
    """By the definition, without any of the code under test but the form of words."""
    first, second = (set(grams(words(f"{row.prompt[0].content}\n{row.completion}"), 3)) for row in (one, other))
    return len(first & second) / len(first | second)


def near_set(chance: random.Random, n: int) -> list[Row]:
    """Rows of which many are copies of earlier ones with some words changed."""
    rows: list[Row] = []
    for line in range(1, n + 1):
        text = make_clean(chance, 3)["output"].split()
        if rows and chance.random() < 0.6:
            text = chance.choice(rows).completion.split()
            for place in chance.sample(range(len(text)), chance.randint(0, 4)):
                text[place] = chance.choice(["also", "then", "rather"])
        rows.append(make_row(line, f"question {line}", " ".join(text)))
    return rows


@pytest.mark.parametrize("seed", range(4))
def test_clusters_are_those_of_all_pairs_compared_exactly(seed: int) -> None:
    rows = near_set(random.Random(seed), 80)
    expected = clusters_of(rows, [])
    close = [(i, j) for i, j in combinations(range(80), 2) if jaccard(rows[i], rows[j]) >= NEAR]
    for i, j in close:
        expected.join(i, j)
    found = clusters_of(rows, near_pairs(rows).pairs)
    assert len(close) > 20 and [found.of(i) for i in range(80)] == [expected.of(i) for i in range(80)]
    assert all(pair.jaccard == jaccard(rows[pair.first], rows[pair.second]) >= NEAR for pair in near_pairs(rows).pairs)


def test_every_row_of_a_cluster_but_its_first_is_named_with_a_twin() -> None:
    text = make_clean(random.Random(1), 6)["output"]
    rows = [make_row(i, f"q{i}", f"{text} {'and again ' * i}") for i in range(1, 5)] + [make_row(5, "other", "words")]
    found = check_near(rows, near_pairs(rows))
    assert [one.line for one in found] == [2, 3, 4] and all(one.related and one.rule == "W221" for one in found)


def test_near_rows_and_all_of_their_groups_share_a_split() -> None:
    chance = random.Random(3)
    text = make_clean(chance, 6)["output"]
    near = [make_row(i, f"q{i}", f"{text} Note {i}.", group=f"g{i}") for i in range(1, 40)]
    others = [make_row(i, f"p{i}", make_clean(chance, 6)["output"], group=f"g{i - 100}") for i in range(101, 140)]
    for seed in range(5):
        data = prepare(near + others, seed)
        assert len(set(data.splits)) == 1, "one cluster through its groups"
    assert len(set(prepare(others, 0).splits)) == 3, "which they would not share by themselves"


def test_thousands_of_near_rows_are_one_cluster(tmp_path: Path) -> None:
    """Where all rows share every band, they meet their neighbours only, which must hold them together all the same."""
    text = make_clean(random.Random(1), 8)["output"]
    rows = [make_row(i, f"number {i}", text) for i in range(1, 1500)]
    clusters = clusters_of(rows, near_pairs(rows).pairs)
    assert {clusters.of(i) for i in range(len(rows))} == {0}


@pytest.mark.parametrize("seed", range(4))
def test_rows_that_repeat_one_of_the_first_are_those_that_compared_with_each_come_near_it(seed: int) -> None:
    rows = near_set(random.Random(seed), 80)
    firsts, others, said = rows[:30], rows[30:], sayings(rows)
    found = repeating(firsts, others)
    alike = {
        (place, first)
        for place, row in enumerate(others)
        for first, one in enumerate(firsts)
        if jaccard(row, one) >= NEAR or said[30 + place] == said[first] is not None
    }
    assert 5 < len(found) < 50 and set(found) == {place for place, _ in alike} and set(found.items()) <= alike


def test_a_row_is_never_said_to_repeat_one_that_it_reaches_through_others_only() -> None:
    chain = [[f"word{n}" for n in range(start, start + 40)] for start in range(0, 42, 2)]
    rows = [make_row(line, " ".join(text), "") for line, text in enumerate(chain)]
    assert len({clusters_of(rows, near_pairs(rows).pairs).of(i) for i in range(len(rows))}) == 1
    near = {place for place, row in enumerate(rows[1:]) if jaccard(rows[0], row) >= NEAR}
    assert repeating(rows[:1], rows[1:]) == dict.fromkeys(near, 0) and 0 < len(near) < 5
    assert repeating([], rows) == repeating(rows, []) == {}


@given(st.lists(st.tuples(st.sampled_from("pq"), st.sampled_from(["yes", "Yes.", "no", "!", "?"])), max_size=8))
def test_contradictions_are_symmetric_and_overlook_case_and_punctuation(pairs: list[tuple[str, str]]) -> None:
    rows = [make_row(line, question, answer) for line, (question, answer) in enumerate(pairs, start=1)]
    by_prompt: dict[str, set[str]] = {}
    for question, answer in pairs:
        by_prompt.setdefault(question, set()).add({"Yes.": "yes"}.get(answer, answer))
    named = {one.line for one in check_contradictions(rows)}
    prompts = {question for question, answers in by_prompt.items() if len(answers) > 1}
    assert {rows[line - 1].prompt[0].content for line in named if line} == prompts
    for one in check_contradictions(rows):
        assert all(one.line in other.related for other in check_contradictions(rows) if other.line in one.related)


def test_the_same_words_in_another_order_contradict_where_the_order_is_what_is_said() -> None:
    question = "What is given first?"
    one = make_row(1, question, "Give the antidote before the insulin infusion.")
    other = make_row(2, question, "Give the insulin before the antidote infusion.")
    assert {found.line for found in check_contradictions([one, other])} == {1, 2}
