"""Rows that say the same but for a slip of the pen, another order of words, or courtesy. Pure.

In a short row one typing error spoils half of the three-word sequences, so that `duplicates` cannot see the copy. Here
two rows are the same if they have the same words of content, as a bag: articles, prepositions and courtesy aside, each
rare word taken for the usual one that it misspells, numbers in their order. A word more or another number is another
row.

>>> content(words("Hello! Please, how do I return the tent? Thanks"))
('return', 'tent')
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from trainer.preflight.reading import Row
from trainer.preflight.text import Words, words

_MOST_WORDS, _LEAST_CONTENT = 80, 5
_RARE, _LEAST_LETTERS, _MOST_LETTERS = 2, 5, 40
# Without those that turn a sentence round: not, no, without, before, more, less, under …
_EMPTY = frozenset(
    "of to in on at by for with from as and or is are was were be been do does did has have had will would can "
    "could should it its i you we me my your our this that these those there here what which who whom how so just "
    "also very then than hello hi hey dear good morning afternoon evening please thank thanks regards kind kindly "
    "cheers hope helps welcome".split()
)
_NUMBER = re.compile(r"\d")


class Said(NamedTuple):
    """What a row says, as far as copies are concerned: content of its questions and of its answer, numbers in order."""

    asked: Words
    answered: Words
    numbers: Words


def content(said: Sequence[str]) -> Words:
    """The words that carry meaning, in order."""
    return tuple(word for word in said if word not in _EMPTY)


def sayings(rows: Sequence[Row]) -> list[Said | None]:
    """What each row says; None where it is too short to tell, or so long that its word sequences tell better."""
    spoken = [_spoken(row) for row in rows]
    spelling = _spelling(Counter(word for asked, answered in spoken for word in {*asked, *answered}))
    return [
        _said(*(content([spelling.get(word, word) for word in side]) for side in (asked, answered)))
        for asked, answered in spoken
    ]


def restated(rows: Sequence[Row]) -> list[tuple[int, int]]:
    """Indices of rows, (earlier, later), where the later says what the earlier said already."""
    first: dict[Said, int] = {}
    pairs = []
    for index, said in enumerate(sayings(rows)):
        if said is not None and first.setdefault(said, index) != index:
            pairs.append((first[said], index))
    return pairs


def _spoken(row: Row) -> tuple[Words, Words]:
    return words("\n".join(one.content for one in row.prompt if one.role != "system")), words(row.completion)


def _said(asked: Words, answered: Words) -> Said | None:
    if not asked or not _LEAST_CONTENT <= len(asked) + len(answered) <= _MOST_WORDS:
        return None
    numbers = tuple(word for word in asked + answered if _NUMBER.match(word))
    return Said(tuple(sorted(asked)), tuple(sorted(answered)), numbers)


def _spelling(counts: Mapping[str, int]) -> dict[str, str]:
    """What a rare word stands for: a usual one that it misspells by one letter, or the letters it shares with another.

    Two usual words are never taken for each other, however alike; nor is a word for its own plural.
    """
    usual: dict[str, str] = {}
    for word, count in counts.items():
        if count > _RARE and _is_spelt(word):
            for form in _one_less(word):
                usual[form] = max(usual.get(form, word), word, key=lambda one: counts[one])
    rare = [word for word, n in counts.items() if n <= _RARE and _is_spelt(word)]
    return {word: _meant(word, usual) for word in rare if word not in _EMPTY}


def _is_spelt(word: str) -> bool:
    return word.isalpha() and _LEAST_LETTERS <= len(word) <= _MOST_LETTERS


def _meant(word: str, usual: Mapping[str, str]) -> str:
    near = next((usual[form] for form in _one_less(word) if form in usual and _slip(word, usual[form])), None)
    return near or word[0] + "".join(sorted(word[1:]))


def _one_less(word: str) -> list[str]:
    """The word, and it without one of its letters but the first: two words with one such form in common are near."""
    return [word, *(word[:place] + word[place + 1 :] for place in range(1, len(word)))]


def _slip(word: str, meant: str) -> bool:
    """Whether one letter is missing, doubled, wrong, or two have changed places; endings as in `loads` are meant."""
    if word + "s" == meant or meant + "s" == word:
        return False
    if len(word) != len(meant):
        return abs(len(word) - len(meant)) == 1
    differ = [place for place in range(len(word)) if word[place] != meant[place]]
    return len(differ) == 1 or (
        len(differ) == 2
        and differ[1] == differ[0] + 1
        and word[differ[0]] == meant[differ[1]]
        and word[differ[1]] == meant[differ[0]]
    )
