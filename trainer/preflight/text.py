"""Text in the forms in which it is compared: folded for equality, words for overlap. Pure.

`words` follows the evaluator's convention for suites (NFKC, case folded, no punctuation, no articles), so that a row
counts as leaked here where an item counts as contaminated there; a test holds the two together.

>>> words("The return, a café: 30 %")
('return', 'café', '30', 'percent')
"""

import re
import unicodedata
from collections.abc import Sequence

_ARTICLES = frozenset(("a", "an", "the"))
_WORD = re.compile(r"\d+(?:\.\d+)?|[^\W\d_]+|\d+")
_THOUSANDS = re.compile(r"(?<=\d)[,\u2009\u202f](?=\d{3}\b)")
# Markdown's code: fenced, in backticks, indented by four; and lines of an interpreter or a shell.
_CODE = re.compile(r"```.*?(?:```|\Z)|``?[^`\n]+``?|^(?: {4}|\t|>>> |\.\.\. |\$ )[^\n]*", re.S | re.M)

Words = tuple[str, ...]


def words(text: str) -> Words:
    """Words and numbers without case, punctuation and articles."""
    # Thousands first: NFKC turns the thin spaces between them into plain ones.
    plain = unicodedata.normalize("NFKC", _THOUSANDS.sub("", text)).casefold()
    return tuple(word for word in _WORD.findall(plain.replace("%", " percent ")) if word not in _ARTICLES)


def grams(text: Sequence[str], size: int) -> list[Words]:
    """Every run of `size` words, in order; a shorter text is one run of all it has, and no words have no run."""
    if not text:
        return []
    return list(zip(*(text[start:] for start in range(min(size, len(text)))), strict=False))


def folded(text: str) -> str:
    """Text as far as exact duplicates are concerned: composed characters, single spaces."""
    return " ".join(unicodedata.normalize("NFC", text).split())


def prose(text: str) -> str:
    """The text without its code, where braces, repetition and odd words mean something else."""
    return _CODE.sub(" ", text)
