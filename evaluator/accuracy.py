"""Whether a generated answer is right. Pure, deterministic, the same for base and candidate.

>>> is_right("It was William Shakespeare.", ["Shakespeare"], "Who wrote Hamlet?")
True
>>> is_right("Within 14 days, at most 45 days.", ["45 days"], "How long?")     # the first number decides
False
>>> is_right("A week has seven days.", ["7", "seven"], "How many days has a week?")
True
"""

import re
import unicodedata
from collections.abc import Sequence

_ARTICLES = frozenset(("a", "an", "the"))
_THOUSANDS = re.compile(r"(?<=\d)[,\u2009\u202f](?=\d{3}\b)")
_WORD = re.compile(r"\d+(?:\.\d+)?|[^\W\d_]+|\d+")
_NUMBER = re.compile(r"\d")


def words(text: str) -> list[str]:
    """Words and numbers of a text in one form: NFKC, case folded, no punctuation, no articles, % spelt out."""
    # Before NFKC, which turns the thin spaces between thousands into plain ones.
    joined = _THOUSANDS.sub("", text)
    folded = unicodedata.normalize("NFKC", joined).casefold().replace("%", " percent ").replace("\u2019", "'")
    return [word for word in _WORD.findall(folded) if word not in _ARTICLES]


def is_right(reply: str, answers: Sequence[str], question: str) -> bool:
    """Whether the first line of a reply contains one of the answers as whole words.

    Where the answers hold numbers, the first number of the reply that the question did not mention must be one of
    theirs: a list of guesses is not an answer.
    """
    line = next((line for line in reply.splitlines() if line.strip()), "")
    said, wanted = words(line), [words(answer) for answer in answers]
    if not any(_contains(said, answer) for answer in wanted):
        return False
    theirs = {word for answer in wanted for word in answer if _NUMBER.match(word)}
    asked = set(words(question))
    first = next((word for word in said if _NUMBER.match(word) and word not in asked), None)
    return not theirs or first is None or first in theirs


def _contains(said: list[str], answer: list[str]) -> bool:
    size = len(answer)
    return size > 0 and any(said[start : start + size] == answer for start in range(len(said) - size + 1))
