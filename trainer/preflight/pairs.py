"""Preflight of preference pairs: the checks of data on both sides of every pair, and what is a pair's own. Pure.

A pair is looked at as two rows, its prompt with each of its answers. What makes an answer a bad one (a refusal, a
placeholder, a sentence that was cut) is looked for in the preferred answer only; what may stand nowhere, in both.
"""

import hashlib
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from msgspec import structs

from trainer.dataset import Data, Split
from trainer.pairs import Pair, examine
from trainer.preflight import characters, consistency, duplicates, lengths, privacy, quality, reviews
from trainer.preflight.check import Checked, Options, Report, cluster_sizes, count_tokens, graded, leaks
from trainer.preflight.codes import Problem, Span, blocking, check_waivers, found
from trainer.preflight.duplicates import Near, NearPair, alike, repeating
from trainer.preflight.reading import Reading, Row
from trainer.preflight.text import Words, folded, words

_HELD_OUT = "the held-out rows of the data"
_ANSWER = re.compile(r"^(the )?answer\b")
_ROW = re.compile(r"\brow(s?)\b")
_SIGN = re.compile(r"[+<>=≤≥≠±×÷]|[-−*/^](?=\s*\d)")
_Said = Words | str
# Findings that speak of rows and quote nothing that the data says.
_OF_ROWS = ("W121", "W123", "W152", "W221", "W224")


def check_pairs(path: Path, options: Options, data: Data | None = None) -> Checked:
    """Look at pairs as a run with these options would use them. data: that of the same recipe.

    Raises InvalidRequest where the file, a suite or the base cannot be read at all.
    """
    waived = check_waivers(options.waivers)
    reading = examine(path)
    pairs, duplicate = reading.pairs
    rows, rejected = [pair.row for pair in pairs], [_rejected(pair) for pair in pairs]
    everything = [*rows, *(pair.row for pair, _ in duplicate)]
    counted = _tokens(rows, rejected, options)
    measured, drift = consistency.template(rows)
    compared, leaked = leaks(rows, options)
    whole, prompts = _near(pairs)
    problems = [
        *reading.problems,
        *duplicates.check_exact(everything, [(pair.row.line, first) for pair, first in duplicate]),
        *_check_near(rows, whole, prompts),
        *check_preferences(pairs),
        *reviews.check_reviews(everything),
        *_named(_of_preferred(rows), "chosen"),
        *_named(_of_rejected(rejected), "rejected"),
        *drift,
        *lengths.check_lengths(rows, counted, options.max_length),
        *leaked,
        *(_check_held_out(pairs, data) if data else ()),
    ]
    problems, low = graded(everything, [_of_pairs(one) for one in problems], "pairs")
    report = Report(
        data=str(path),
        sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
        lines=len(reading.records),
        rows=len(everything),
        distinct=len(pairs),
        splits={},
        clusters=cluster_sizes(len(rows), [*whole.pairs, *prompts]),
        template_share=measured.share,
        skeletons=measured.skeletons,
        lengths=counted.rows,
        lengths_by=counted.how,
        max_length=options.max_length,
        compared=[*compared, _HELD_OUT] if data else compared,
        problems=problems,
        low=low,
        waived=waived,
        blocked=bool(blocking(problems, waived)),
        kind="pairs",
    )
    return Checked(report, Reading(reading.records, everything, reading.problems), Data([], [], [], [], Near([], [])))


# -- the checks of data, on the sides of a pair


def _rejected(pair: Pair) -> Row:
    return pair.row._replace(completion=pair.rejected)


def _of_preferred(rows: Sequence[Row]) -> list[Problem]:
    """All that can be wrong with a prompt and the answer that is learnt to it."""
    return [
        *privacy.check_privacy(rows),
        *quality.check_rows(rows),
        *characters.check_characters(rows),
        *consistency.languages(rows),
        *consistency.unfinished(rows),
        *consistency.too_short(rows),
    ]


def _of_rejected(rows: Sequence[Row]) -> list[Problem]:
    """What may not stand in an answer that is only rejected; its prompt was looked at beside the preferred one."""
    marks = (one for one in quality.check_rows(rows) if one.rule == "W249")
    both = [*privacy.check_privacy(rows), *characters.check_characters(rows), *marks]
    return [one for one in both if _ANSWER.match(one.message)]


def _named(problems: Iterable[Problem], side: str) -> Iterator[Problem]:
    """The findings, with the side's name in place of "answer"."""
    for one in problems:
        span = Span(side, one.span.start, one.span.end) if one.span and one.span.field == "answer" else one.span
        yield structs.replace(one, message=_ANSWER.sub(rf"\g<1>{side} answer", one.message), span=span)


def _of_pairs(problem: Problem) -> Problem:
    if problem.rule not in _OF_ROWS:
        return problem
    return structs.replace(problem, message=_ROW.sub(r"pair\1", problem.message))


def _tokens(rows: Sequence[Row], rejected: Sequence[Row], options: Options) -> lengths.Lengths:
    """Of a pair the longer of its two conversations counts."""
    both = count_tokens([*rows, *rejected], options)
    n = len(rows)
    longer = [max(two) for two in zip(both.rows[:n], both.rows[n:], strict=True)]
    return lengths.Lengths(longer, both.prompts[:n], both.how)


def _near(pairs: Sequence[Pair]) -> tuple[Near, list[NearPair]]:
    """Pairs that are nearly the same, and those of different prompts that are. One prompt may have many answers."""
    whole = alike([pair.row._replace(completion=f"{pair.row.completion}\n{pair.rejected}") for pair in pairs])
    first: dict[object, int] = {}
    for place, pair in enumerate(pairs):
        first.setdefault(pair.row.prompt, place)
    places = list(first.values())
    prompts = alike([_prompt(pairs[place].row) for place in places]).pairs
    return whole, [NearPair(places[one.first], places[one.second], one.jaccard) for one in prompts]


def _check_near(rows: Sequence[Row], whole: Near, prompts: Sequence[NearPair]) -> Iterator[Problem]:
    problems = duplicates.check_near(rows, whole)
    yield from problems
    told = {one.line for one in problems}
    for one in duplicates.check_near(rows, Near([*prompts], [])):
        if one.line not in told:
            message = one.message.replace("of this row", "of the prompts of this row", 1)
            yield structs.replace(one, message=message)


# -- what is a pair's own


def check_preferences(pairs: Sequence[Pair]) -> Iterator[Problem]:
    """Pairs that prefer the one of two answers of which an earlier pair prefers the other.

    Case and punctuation aside, unless they are all that tells the two answers apart.
    """
    verdicts: dict[tuple[object, frozenset[_Said]], tuple[_Said, int]] = {}
    for pair in pairs:
        asked = tuple((one.role, _said(one.content)) for one in pair.row.prompt)
        chosen, rejected = _said(pair.row.completion), _said(pair.rejected)
        if chosen == rejected:
            chosen, rejected = folded(pair.row.completion), folded(pair.rejected)
        preferred, line = verdicts.setdefault((asked, frozenset((chosen, rejected))), (chosen, pair.row.line))
        if preferred != chosen:
            message = f"line {line} prefers the other of the same two answers"
            yield found("E223", message, row=pair.row.number, line=pair.row.line, related=[line])


def _said(text: str) -> _Said:
    """Its words, and the signs that make 5 + 3 another question than 5 - 3. Without any it is what it is."""
    return (*words(text), *_SIGN.findall(text)) or text.strip()


def _check_held_out(pairs: Sequence[Pair], data: Data) -> Iterator[Problem]:
    reasons = held_out(pairs, data)
    for pair in pairs:
        if reason := reasons.get(pair.row.line):
            yield found("W165", reason, row=pair.row.number, line=pair.row.line)


def held_out(pairs: Sequence[Pair], data: Data) -> dict[int, str]:
    """Why pairs cannot train beside this data, by line: they ask what a validation or test row asks, or nearly so.

    Such a row would measure nothing any more. Nearly is what keeps rows of the data in one split, of the very two that
    are compared: of prompt and preferred answer together; or of the prompts alone, unless that of a training row is as
    well nearly the held-out row's: that is a form of asking.
    """
    sorted_out = list(zip(data.rows, data.splits, strict=True))
    held = [(row, f"line {row.line}, a {split} row") for row, split in sorted_out if split is not Split.TRAIN]
    trained = [_prompt(row) for row, split in sorted_out if split is Split.TRAIN]
    rows = [pair.row for pair in pairs]
    same = {_asked(row): name for row, name in reversed(held)}
    usual = repeating(trained, [_prompt(row) for row, _ in held])
    own = [one for place, one in enumerate(held) if place not in usual]
    near = repeating([_prompt(row) for row, _ in own], [_prompt(row) for row in rows])
    whole = repeating([row for row, _ in held], rows)
    reasons = {}
    for place, row in enumerate(rows):
        if name := same.get(_asked(row)):
            reasons[row.line] = f"its prompt is that of {name}"
        elif place in near:
            reasons[row.line] = f"its prompt is nearly that of {own[near[place]][1]}"
        elif place in whole:
            reasons[row.line] = f"with its preferred answer it nearly repeats {held[whole[place]][1]}"
    return reasons


def _asked(row: Row) -> tuple[object, ...]:
    return tuple(words(one.content) or one.content.strip() for one in row.prompt if one.role == "user")


def _prompt(row: Row) -> Row:
    """The row without its answer. Where it has no words, its prompt stands for them."""
    return row._replace(completion="", digest=repr(row.prompt))
