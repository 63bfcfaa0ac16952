"""Data that repeat themselves, by nature or on purpose: work grows with the rows, and what a bound leaves out is told.

Work is counted in calls and comparisons; what an index finds is held to the plain computation.
"""

import json
import random
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.client import Message
from trainer.preflight import asked, consistency, duplicates, minhash
from trainer.preflight.asked import Asked
from trainer.preflight.check import Options, preflight
from trainer.preflight.duplicates import check_near, contradictions, near_pairs, repeating
from trainer.preflight.leakage import check_asked
from trainer.preflight.pairs import check_pairs
from trainer.preflight.reading import Row
from trainer.preflight.restated import sayings
from trainer.preflight.text import Words, grams, words

VOCABULARY = [f"{first}{vowel}{last}" for first in "bdfgklmnprst" for vowel in "aeiou" for last in "lmnrst"]


def make_row(line: int, question: str, answer: str, system: str = "") -> Row:
    prompt = [Message(role="system", content=system)] if system else []
    prompt.append(Message(role="user", content=question))
    return Row(f"r{line}", line, tuple(prompt), answer, f"g{line}", f"{system}\0{question}\0{answer}", line)


def say(chance: random.Random, n_words: int) -> str:
    return " ".join(chance.choice(VOCABULARY) for _ in range(n_words))


def counting(monkeypatch: pytest.MonkeyPatch, where: object, name: str) -> Counter[str]:
    """How often a function is called from now on."""
    calls: Counter[str] = Counter()
    inner: Callable[..., Any] = getattr(where, name)

    def counted(*given: Any, **named: Any) -> Any:
        calls[name] += 1
        return inner(*given, **named)

    monkeypatch.setattr(where, name, counted)
    return calls


# -- contradictions ------------------------------------------------------------------------------------------------


def all_contradictions(rows: list[Row]) -> list[tuple[int, int]]:
    """By comparing each row with all before it."""
    pairs = []
    told = [(duplicates._prompt_key(row), _answer(row, said)) for row, said in zip(rows, sayings(rows), strict=True)]
    for place, ((system, question), answer) in enumerate(told):
        others = [
            (other, rows[before].line)
            for before, ((under, also), other) in enumerate(told[:place])
            if also == question and (under == system or not under or not system)
        ]
        if others and all(answer != other for other, _ in others):
            pairs.append((others[0][1], rows[place].line))
    return pairs


def _answer(row: Row, said: Any) -> Words | str:
    in_order = words(row.completion)
    if said and not duplicates._ORDERING.isdisjoint(in_order):
        return in_order
    return (said.answered + said.numbers if said else in_order) or row.completion.strip()


_ANSWERS = ["yes", "Yes.", "no", "!", "Give tea before cake and bread now.", "Give bread before cake and tea now."]


@given(st.lists(st.tuples(st.sampled_from(["", "s", "S!", "t"]), st.sampled_from("pq"), st.sampled_from(_ANSWERS))))
def test_contradictions_are_those_of_all_rows_compared_with_all(asked_for: list[tuple[str, str, str]]) -> None:
    rows = [make_row(line, question, answer, system) for line, (system, question, answer) in enumerate(asked_for, 1)]
    assert contradictions(rows) == all_contradictions(rows)


class Told(tuple[str, ...]):
    """Words that count how often they are compared."""

    compared = 0

    def __eq__(self, other: object) -> bool:
        Told.compared += 1
        return super().__eq__(other)

    __hash__ = tuple.__hash__


@pytest.mark.parametrize("prompts", ["one", "one under many"])
def test_answers_to_one_prompt_are_not_compared_each_with_each(monkeypatch: pytest.MonkeyPatch, prompts: str) -> None:
    monkeypatch.setattr(duplicates, "words", lambda text: Told(words(text)))
    monkeypatch.setattr(Told, "compared", 0)
    n = 600
    rows = [make_row(i, "Which?", f"no {i}", f"shop {i}" if prompts != "one" else "") for i in range(n)]
    assert len(contradictions(rows)) == (n - 1 if prompts == "one" else 0)
    assert Told.compared <= 10 * n


# -- items of suites -----------------------------------------------------------------------------------------------


def leaks(prompt: str, items: list[str]) -> bool:
    """By comparing with each item, as the rule is written."""
    said = words(prompt)
    return any(_leaks(said, words(item)) for item in items if words(item)) if said else False


def _leaks(said: Words, item: Words) -> bool:
    if said == item or (len(item) >= 13 and set(grams(said, 13)) & set(grams(item, 13)) and len(said) >= 13):
        return True
    own, held = set(grams(said, 8)), set()
    for start, gram in enumerate(grams(item, 8)):
        if min(len(said), len(item)) >= 8 and gram in own:
            held |= set(range(start, start + 8))
    one, other = set(grams(said, 5)), set(grams(item, 5))
    near = len(one & other) >= 0.8 * len(one | other)
    plain = asked._without_courtesy(said)
    inside = len(item) >= max(5, 2 / 3 * len(plain)) and item in grams(plain, len(item))
    bare = asked._without_courtesy(item)
    return bool(2 * len(held) >= len(item) and held) or near or inside or (bool(bare) and bare == plain)


# Few words, and pieces that come again: frames, loops, prefixes.
_PIECES = ["b b b b b b", "c d e f g h i j k l m n", "one two three", "four", "five six", "hello", "thanks", "x", "y"]
said = st.lists(st.sampled_from(_PIECES), min_size=1, max_size=8).map(" ".join)


@given(said, st.lists(said, min_size=1, max_size=8))
def test_a_prompt_gives_away_what_it_does_by_comparing_with_every_item(prompt: str, items: list[str]) -> None:
    found = Asked([(str(place), item) for place, item in enumerate(items)]).compare(prompt)
    assert (found.item is not None) == leaks(prompt, items) and not found.cut
    assert found.item is None or leaks(prompt, [items[int(found.item)]])


@given(said, st.lists(said, min_size=1, max_size=12))
def test_where_not_every_item_is_looked_at_no_leak_is_missed_untold(prompt: str, items: list[str]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(asked, "_MOST", 1)
        found = Asked([(str(place), item) for place, item in enumerate(items)]).compare(prompt)
    assert not leaks(prompt, items) or found.item is not None or found.cut
    assert found.item is None or leaks(prompt, [items[int(found.item)]])


@pytest.mark.parametrize("slot", [2, 8, 30])
def test_items_of_one_frame_cost_a_prompt_no_more_when_there_are_more_of_them(
    monkeypatch: pytest.MonkeyPatch, slot: int
) -> None:
    work = []
    for n in (150, 600):
        chance = random.Random(1)
        frame = say(chance, 12)
        index = Asked([(str(i), f"{frame} {say(chance, slot)}") for i in range(n)])
        assert max(map(len, index._cover.items.values())) <= 100
        with monkeypatch.context() as patch:
            counted = [counting(patch, asked, name) for name in ("grams", "_is_near", "_may_cover")]
            for _ in range(10):
                index.compare(f"{frame} {say(chance, slot)}")
        work.append(sum(calls.total() for calls in counted))
    assert work[1] <= 1.2 * work[0]


@pytest.mark.parametrize(("slot", "told"), [(26, ["W164"]), (60, [])])
def test_a_prompt_that_was_not_compared_with_all_is_told_where_that_could_matter(slot: int, told: list[str]) -> None:
    chance = random.Random(2)
    frame = say(chance, 10)
    items = Asked([(str(i), f"{frame} {say(chance, slot)}") for i in range(150)])
    rows = [make_row(1, f"{frame} {say(chance, slot)}", "yes"), make_row(2, say(chance, 20), "no")]
    found = check_asked(rows, items)
    assert [one.rule for one in found] == told and all(one.line == 1 and one.severity == "warning" for one in found)


# -- near duplicates -----------------------------------------------------------------------------------------------


def framed(n: int, share: float, chance: random.Random) -> list[Row]:
    """Rows of 100 words that have this share of them in common."""
    frame = say(chance, round(100 * share))
    return [make_row(i, f"{frame} {say(chance, round(100 * (1 - share)))}", "so it is") for i in range(n)]


def test_rows_of_one_frame_are_compared_with_few_others_each(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = counting(monkeypatch, duplicates, "jaccard")
    n = 400
    near_pairs(framed(n, 0.78, random.Random(3)))
    assert n < calls["jaccard"] <= 10 * 32 * n / 2


def test_copies_among_rows_of_one_frame_are_found() -> None:
    chance = random.Random(4)
    rows = framed(400, 0.75, chance)
    copies = [one._replace(completion="so it is now", line=1000 + one.line) for one in rows[::20]]
    found = {pair.first for pair in near_pairs(rows + copies).pairs}
    assert found >= set(range(0, 400, 20))


def test_copies_of_a_few_of_many_rows_of_one_frame_are_found_with_comparisons_that_do_not_grow(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    n, rows = 1600, framed(1620, 0.75, random.Random(7))
    firsts, others = rows[:n], rows[n:]
    copies = [one._replace(completion="so it is now", line=5000 + one.line) for one in firsts[::100]]
    calls = counting(monkeypatch, duplicates, "jaccard")
    assert repeating(firsts, others + copies) == {20 + place: 100 * place for place in range(16)}
    assert 16 < calls["jaccard"] <= 2 * 10 * 32 * 36


@pytest.mark.parametrize(("fields", "times"), [(("prompt", "completion"), 1), (("prompt", "chosen", "rejected"), 2)])
def test_the_minima_of_every_text_are_computed_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, fields: tuple[str, ...], times: int
) -> None:
    """Of rows once; of pairs those of the whole and those of the prompts."""
    chance = random.Random(9)
    file = tmp_path / "any.jsonl"
    file.write_text("".join(json.dumps({one: say(chance, 20) for one in fields}) + "\n" for _ in range(30)))
    calls = counting(monkeypatch, minhash, "_minima")
    (check_pairs if "chosen" in fields else preflight)(file, Options())
    assert calls["_minima"] == times


def test_rows_so_much_alike_that_a_copy_may_be_missed_are_told_and_copies_of_one_row_are_not() -> None:
    chance = random.Random(5)
    crowd = framed(150, 0.8, chance)
    (told,) = check_near(crowd, near_pairs(crowd))
    assert told.rule == "W224" and told.line is None and "150 rows" in told.message
    text = say(chance, 80)
    copies = [make_row(i, f"{text} {i}", "yes") for i in range(150)]
    unlike = [make_row(1000 + i, say(chance, 60), "yes") for i in range(150)]
    assert {one.rule for one in check_near(copies, near_pairs(copies))} == {"W221"}
    assert check_near(unlike, near_pairs(unlike)) == []


# -- answers -------------------------------------------------------------------------------------------------------

_ENDED = re.compile(r"[.!?…:;)\]}\"'”’»›*`~_>|。！？」』）।؟۔\d%€$£°+=/-]\W*\Z|[^\w\s,]\Z")


@given(st.text("ab ,.!_1\u0663²½-(\n“”#،", max_size=8).map(str.rstrip) | st.text(max_size=6).map(str.rstrip))
def test_an_answer_is_ended_as_by_the_pattern_that_says_so_in_one_line(text: str) -> None:
    assert consistency._is_ended(text) == bool(_ENDED.search(text))


def test_the_end_of_an_answer_is_looked_for_from_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = counting(monkeypatch, consistency, "_is_of_a_word")
    assert not consistency._is_ended("- " * 100_000 + "and so on it went, and")
    assert calls["_is_of_a_word"] < 10
