"""One form for what a text says: numbers by value, units by name; plain words are left alone."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluator.terms import terms, words

_TENS = ["", "", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
_SMALL = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen"
).split()


def spelt(number: int) -> str:
    """In English words, as the British write them."""
    if number < 20:
        return _SMALL[number]
    if number < 100:
        return _TENS[number // 10] + (f"-{_SMALL[number % 10]}" if number % 10 else "")
    size, name = (1000, "thousand") if number >= 1000 else (100, "hundred")
    head, rest = f"{spelt(number // size)} {name}", number % size
    return head if not rest else f"{head} {'and ' if rest < 100 else ''}{spelt(rest)}"


@given(st.integers(min_value=0, max_value=999_999))
def test_every_number_in_words_is_the_number_in_digits(number: int) -> None:
    expected = "one" if number == 1 else str(number)
    assert terms(spelt(number)) == terms(spelt(number).replace(" and ", " ")) == [expected]
    assert terms(f"{spelt(number)} days") == [str(number), "day"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("between five and six", ["between", "5", "and", "6"]),
        ("zero and one", ["0", "and", "one"]),
        ("one hundred and five and six", ["105", "and", "6"]),
        ("twenty twenty", ["20", "20"]),
        ("two five", ["2", "5"]),
        ("hundreds of thousands", ["hundreds", "of", "thousands"]),
        ("rock and roll", ["rock", "and", "roll"]),
        ("the one who", ["one", "who"]),
        ("3.10 and 3.100", ["3.1", "and", "3.1"]),
        ("007", ["007"]),
        ("US$5 and £7", ["us", "5", "dollar", "and", "7", "pound"]),
        ("25 € 14 days", ["25", "euro", "14", "day"]),
        ("I am 8 a magazine", ["i", "am", "8", "magazine"]),
        ("at 25:00 or 9:75", ["at", "25", "00", "or", "9", "75"]),
        ("once a day, not in an hour", ["once", "one", "day", "not", "in", "one", "hour"]),
        ("one day, one km, one of us", ["1", "day", "1", "kilometre", "one", "of", "us"]),
        ("-5 to -3, 5-3, b-3, 1 -2, --4", ["-5", "to", "-3", "5", "3", "b", "3", "1", "-2", "4"]),
        ("1.000 and 1.000.000 and 1.000.00", ["1", "and", "1000000", "and", "1", "00"]),
        ("1/2, 2 3/4, 1/3, 5/2 and 1/2/3", ["0.5", "2.75", "1/3", "5/2", "and", "1", "2", "3"]),
        ("1/0 and 0/5", ["1/0", "and", "0"]),
        ("10^-2, 1e3, 2^10, x^2", ["0.01", "1000", "2^10", "x", "2"]),
        ("", []),
    ],
)
def test_what_looks_like_a_number_or_a_unit_is_read_with_care(text: str, expected: list[str]) -> None:
    assert terms(text) == expected


@given(st.text(max_size=80))
def test_any_text_has_terms_without_spaces_or_punctuation(text: str) -> None:
    assert [
        term for term in terms(text) if not re.fullmatch(r"[^\W_]+|-?\d+([.:/]\d+)?|\d+:\d+|-?[\d.]+\^-?\d+", term)
    ] == []


@given(st.text(max_size=60))
def test_taking_the_words_of_words_changes_nothing(text: str) -> None:
    once = words(text)
    assert words(" ".join(once)) == [word for word in once if word not in ("a", "an", "the")]
