"""Whether a generated answer is right. Pure, deterministic, the same for base and candidate.

>>> is_right("It was William Shakespeare.", ["Shakespeare"], "Who wrote Hamlet?")
True
>>> is_right("Within 14 days, at most 45 days.", ["45 days"], "How long?")     # the first number decides
False
>>> is_right("A forty-five-day window.", ["45 days"], "How long?")             # the same number, the same unit
True
>>> is_right("45 hours.", ["45"], "How many days do I have?")                  # not what was asked for
False
>>> is_right("Not 45 days.", ["45 days"], "How long?")
False
"""

from collections.abc import Sequence

from evaluator.terms import MEASURES, is_number, terms


def is_right(reply: str, answers: Sequence[str], question: str) -> bool:
    """Whether the first line of a reply contains one of the answers, term by term (see `evaluator.terms`).

    Where the answers hold numbers, the first number of the reply that the question did not mention must be one of
    theirs: a list of guesses is not an answer. A number may not be followed by another unit than the question names,
    where it names one that measures the same and the answer names none. What stands right behind "not" is not stated.
    """
    line = next((line for line in reply.splitlines() if line.strip()), "")
    said, wanted, asked = terms(line), [terms(answer) for answer in answers], terms(question)
    if not any(_states(said, answer, asked) for answer in wanted):
        return False
    theirs = {term for answer in wanted for term in answer if is_number(term)}
    first = next((term for term in said if is_number(term) and term not in asked), None)
    return not theirs or first is None or first in theirs


def _states(said: list[str], answer: list[str], asked: list[str]) -> bool:
    size = len(answer)
    return size > 0 and any(
        _same(said[start : start + size], answer)
        and not _is_negated(said[:start])
        and not (is_number(answer[-1]) and _is_another_unit("".join(said[start + size : start + size + 1]), asked))
        for start in range(len(said) - size + 1)
    )


def _is_negated(before: list[str]) -> bool:
    return before[-1:] == ["not"] or (before[-1:] == ["t"] and "".join(before[-2:-1]).endswith("n"))


def _same(said: list[str], answer: list[str]) -> bool:
    """Whether the terms are equal, "an hour" and "1 hour" included."""
    return all(
        one == other or ({one, other} == {"1", "one"} and after in MEASURES)
        for one, other, after in zip(said, answer, [*answer[1:], ""], strict=True)
    )


def _is_another_unit(term: str, asked: list[str]) -> bool:
    """Whether a term is a unit of what the question's units measure, but none of those."""
    return term not in asked and MEASURES.get(term) in {MEASURES[unit] for unit in asked if unit in MEASURES}
